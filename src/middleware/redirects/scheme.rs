//! Redirects requests that came by another scheme.
//!
//! The scheme is the one that the client used: behind a trusted proxy what that says, else what the connection is (Goma
//! believed `X-Forwarded-Proto` of anybody; spec middlewares §5.16, W-27). Host, path and query stay as they were sent (W-38).
//! Challenges of certificate authorities pass.
//!
//! ```yaml
//! - name: tls-only
//!   type: redirectScheme
//!   rule: { scheme: https, permanent: true }
//! ```

use std::sync::Arc;

use http::StatusCode;
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{is_challenge, redirect, refuse, status};
use crate::config::Problem;
use crate::exchange::Exchange;
use crate::gate;
use crate::middleware::{Flow, Middleware, Part, Scope, Settings};

/// Redirects requests that came by another scheme to the same host, path and query by this one.
#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct RedirectScheme {
    /// `https` or `http`. Required.
    scheme: String,
    /// Port of the target, left out where it is the scheme's usual one; 0 keeps the host as the client wrote it, with its port.
    port: u16,
    /// 301 in place of 302.
    permanent: bool,
    /// Keep method and body (ours): 308 and 307 in place of 301 and 302.
    keep_method: bool,
}

impl Settings for RedirectScheme {
    const KIND: &'static [&'static str] = &["redirectScheme"];
    const GUARDS: bool = true;
    const PATHS: bool = false;
    const EXAMPLE: &'static str = include_str!("../../../conf/examples/middlewares/redirectScheme.yml");

    fn build(self, scope: &Scope<'_>) -> Result<Part, Vec<Problem>> {
        let scheme = match self.scheme.trim().to_ascii_lowercase().as_str() {
            "http" => "http",
            "https" => "https",
            other => {
                let message = match other {
                    "" => "is missing".to_owned(),
                    other => format!("`{other}` is no scheme to redirect to"),
                };
                let place = scope.place.child("rule").child("scheme");
                return Err(vec![place.error(message, "use https or http")]);
            }
        };
        let port = match (self.port, scheme) {
            (0, _) => Port::AsAsked,
            (80, "http") | (443, "https") => Port::Usual,
            (port, _) => Port::Other(port),
        };
        Ok(Part::Step(Arc::new(To { scheme, port, status: status(self.permanent, self.keep_method) })))
    }
}

struct To {
    scheme: &'static str,
    port: Port,
    status: StatusCode,
}

enum Port {
    /// Whatever the client wrote.
    AsAsked,
    /// The scheme's own: none is written.
    Usual,
    /// This one.
    Other(u16),
}

impl Middleware for To {
    fn request<'a>(&'a self, exchange: &'a mut Exchange, _: &'a mut RequestHeader) -> Flow<'a> {
        if exchange.scheme == self.scheme || is_challenge(exchange) {
            return Flow::Next;
        }
        // Only HTTP/1.0 may say no host.
        let Ok(authority) = gate::authority(&exchange.host) else { return refuse("no host to redirect to") };
        let mut target = format!("{}://", self.scheme);
        match self.port {
            Port::AsAsked => target.push_str(&exchange.host),
            Port::Usual => target.push_str(authority.host),
            Port::Other(port) => target += &format!("{}:{port}", authority.host),
        }
        target.push_str(&exchange.path);
        if let Some(query) = exchange.query.as_deref().filter(|query| !query.is_empty()) {
            target.push('?');
            target.push_str(query);
        }
        redirect(self.status, &target, exchange)
    }
}
