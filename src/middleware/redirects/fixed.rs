//! Redirects to one URL.
//!
//! A URL with scheme and host goes out as it is, without path or query of the request. A relative one is resolved against the
//! folder of the request's path, and takes the request's query along unless it has one. Challenges of certificate authorities
//! pass. Spec middlewares §5.17.
//!
//! ```yaml
//! - name: moved
//!   type: redirect
//!   rule: { url: "https://new.example.com/", permanent: true }
//! ```

use std::sync::Arc;

use http::StatusCode;
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{is_challenge, redirect, resolved, scheme_of, status};
use crate::config::{Place, Problem};
use crate::exchange::Exchange;
use crate::middleware::{Flow, Middleware, Part, Scope, Settings};

/// Redirects every request to one URL, but challenges of certificate authorities.
#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Redirect {
    /// Where to: a whole URL, or a path; one without a slash in front is relative to the folder of the request. Required.
    url: String,
    /// 301 in place of 302.
    permanent: bool,
    /// Keep method and body (ours): 308 and 307 in place of 301 and 302.
    keep_method: bool,
}

impl Settings for Redirect {
    const KIND: &'static [&'static str] = &["redirect"];
    const GUARDS: bool = false;
    const PATHS: bool = false;
    const EXAMPLE: &'static str = include_str!("../../../conf/examples/middlewares/redirect.yml");

    fn build(self, scope: &Scope<'_>) -> Result<Part, Vec<Problem>> {
        let place = scope.place.child("rule").child("url");
        check(&self.url, &place).map_err(|problem| vec![problem])?;
        let relative = scheme_of(&self.url).is_none() && !self.url.starts_with("//");
        Ok(Part::Step(Arc::new(To { relative, status: status(self.permanent, self.keep_method), url: self.url })))
    }
}

fn check(url: &str, place: &Place) -> Result<(), Problem> {
    let wrong = |message: String| Err(place.error(message, "write `https://host/path`, `/path` or `path`"));
    let authority = url.split_once("//").map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or_default());
    match scheme_of(url) {
        _ if url.trim().is_empty() => wrong("is missing".to_owned()),
        _ if url.contains(|c: char| c.is_control() || c.is_whitespace()) => wrong(format!("`{url}` holds white space")),
        Some("http" | "https") if !url.contains("://") => wrong(format!("`{url}` has no host")),
        Some(scheme) if url[scheme.len() + 1..].starts_with(|c: char| c.is_ascii_digit()) => {
            wrong(format!("`{url}` has no scheme"))
        }
        Some("http" | "https") if authority.is_none_or(str::is_empty) => wrong(format!("`{url}` has no host")),
        None if url.starts_with("//") && authority.is_none_or(str::is_empty) => wrong(format!("`{url}` has no host")),
        _ => Ok(()),
    }
}

struct To {
    url: String,
    relative: bool,
    status: StatusCode,
}

impl Middleware for To {
    fn request<'a>(&'a self, exchange: &'a mut Exchange, _: &'a mut RequestHeader) -> Flow<'a> {
        if is_challenge(exchange) {
            return Flow::Next;
        }
        if !self.relative {
            return redirect(self.status, &self.url, exchange);
        }
        let (url, fragment) = self.url.split_at(self.url.find('#').unwrap_or(self.url.len()));
        let mut target = resolved(url, &exchange.path);
        if let (Some(query), false) = (exchange.query.as_deref().filter(|query| !query.is_empty()), url.contains('?')) {
            target.push('?');
            target.push_str(query);
        }
        redirect(self.status, &(target + fragment), exchange)
    }
}
