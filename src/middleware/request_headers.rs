//! Removes and sets request headers.
//!
//! First the removals, then what is set; an empty value removes as well. The headers that tell a backend about the client are
//! the gateway's own: what is set here for them does not count, but `X-Forwarded-Proto`, which from here on is the scheme of
//! the request (Goma reads it there; spec middlewares §4.5, §5.19). `paths` are optional, and see the path as the chain has it.
//!
//! ```yaml
//! - name: tell-tenant
//!   type: requestHeaders
//!   rule:
//!     setHeaders: { X-Tenant: acme }
//!     removeHeaders: [X-Debug]
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, header};
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::spelled::Spelled;
use super::{Flow, Middleware, Part, Paths, Scope, Settings};
use crate::config::{Place, Problem};
use crate::exchange::Exchange;

/// Removes request headers, then sets others. Without `paths` it counts for every request.
#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestHeaders {
    /// Header values by name; an empty value removes the header. `X-Forwarded-Proto` becomes the scheme of the request.
    set_headers: BTreeMap<String, String>,
    /// Names of headers to remove.
    remove_headers: Vec<String>,
}

impl Settings for RequestHeaders {
    const KIND: &'static [&'static str] = &["requestHeaders"];
    const GUARDS: bool = false;
    const EXAMPLE: &'static str = include_str!("../../conf/examples/middlewares/requestHeaders.yml");

    fn doubts(&self, scope: &Scope<'_>) -> Vec<Problem> {
        let place = scope.place.child("rule");
        let set = self.set_headers.keys().map(|name| (name.as_str(), place.child("setHeaders").child(name)));
        let removed = self.remove_headers.iter().enumerate();
        let removed = removed.map(|(index, name)| (name.as_str(), place.child("removeHeaders").item(index)));
        let doubt = |(name, place): (&str, Place)| {
            let ours = OURS.iter().any(|ours| name.trim().eq_ignore_ascii_case(ours));
            ours.then(|| place.warning("the gateway itself says this to the backend: no effect", "remove it"))
        };
        set.chain(removed).filter_map(doubt).collect()
    }

    fn build(self, scope: &Scope<'_>) -> Result<Part, Vec<Problem>> {
        let place = scope.place.child("rule");
        if self.set_headers.is_empty() && self.remove_headers.is_empty() {
            return Err(vec![place.error("nothing to do", "give `setHeaders` or `removeHeaders`")]);
        }
        let mut problems = Vec::new();
        let mut changes = Changes { paths: Paths::of(scope), removed: Vec::new(), set: Vec::new(), scheme: None };
        for (index, name) in self.remove_headers.iter().enumerate() {
            match header_name(name, &place.child("removeHeaders").item(index)) {
                Ok(name) => changes.remove(name),
                Err(problem) => problems.push(problem),
            }
        }
        for (name, value) in &self.set_headers {
            let place = place.child("setHeaders").child(name);
            let set = header_name(name, &place).and_then(|name| changes.set(name, value.trim(), &place));
            problems.extend(set.err());
        }
        if problems.is_empty() { Ok(Part::Step(Arc::new(changes))) } else { Err(problems) }
    }
}

fn header_name(name: &str, place: &Place) -> Result<HeaderName, Problem> {
    let Ok(known) = HeaderName::try_from(name.trim()) else {
        return Err(place.error(format!("`{name}` is no header name"), "use letters, digits and dashes"));
    };
    match FRAMING.contains(&known) {
        true => Err(place.error(format!("`{name}` belongs to the connection"), "remove it")),
        false => Ok(known),
    }
}

/// Headers that frame a message or steer the connection: not for configuration.
const FRAMING: [HeaderName; 8] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Headers that the gateway writes behind the chain.
const OURS: [&str; 4] = ["host", "x-forwarded-for", "x-forwarded-host", "x-real-ip"];

struct Changes {
    paths: Paths,
    removed: Vec<HeaderName>,
    set: Vec<(Spelled, HeaderValue)>,
    scheme: Option<&'static str>,
}

impl Changes {
    fn remove(&mut self, name: HeaderName) {
        if !OURS.contains(&name.as_str()) {
            self.removed.push(name);
        }
    }

    fn set(&mut self, name: HeaderName, value: &str, place: &Place) -> Result<(), Problem> {
        if name.as_str() == "x-forwarded-proto" && !value.is_empty() {
            self.scheme = Some(scheme(value, place)?);
            return Ok(());
        }
        let Ok(value) = HeaderValue::from_str(value) else {
            return Err(place.error("the value holds control characters", "use one plain line"));
        };
        match value.is_empty() {
            true => self.remove(name),
            false if OURS.contains(&name.as_str()) => {}
            false => self.set.push((name.into(), value)),
        }
        Ok(())
    }
}

fn scheme(value: &str, place: &Place) -> Result<&'static str, Problem> {
    let known = ["http", "https"].into_iter().find(|known| value.eq_ignore_ascii_case(known));
    known.ok_or_else(|| place.error(format!("`{value}` is no scheme of a request"), "use `http` or `https`"))
}

impl Middleware for Changes {
    fn request<'a>(&'a self, exchange: &'a mut Exchange, head: &'a mut RequestHeader) -> Flow<'a> {
        if self.paths.take(&exchange.path) {
            for name in &self.removed {
                head.remove_header(name);
            }
            for (name, value) in &self.set {
                name.ask(head, value.clone());
            }
            exchange.scheme = self.scheme.unwrap_or(exchange.scheme);
        }
        Flow::Next
    }
}
