//! What the gateway's own endpoints answer: health, readiness, reload.
//!
//! Pure functions from facts to an [`Answer`]; who may ask, on which path and host, is decided by the route table. The
//! metrics page is `telemetry`'s.

mod cache;
mod health;
mod reload;

use serde::Serialize;

pub use cache::{cache_purged, cache_refused, cache_status, purge_of};
pub use health::{RouteHealth, health, ready, route_health};
pub use reload::{bearer, reload_done, reload_failed, reload_unauthorized};

/// A response as plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Value of `Content-Type`.
    pub content_type: &'static str,
    /// The whole body.
    pub body: String,
}

impl Answer {
    /// JSON as Go's encoder writes it: one line with its line feed, and `<`, `>`, `&` escaped.
    fn json(status: u16, value: &impl Serialize) -> Answer {
        let mut body = String::new();
        let text = serde_json::to_string(value).expect("structs of texts and numbers always serialize");
        for c in text.chars() {
            match c {
                '<' => body.push_str("\\u003c"),
                '>' => body.push_str("\\u003e"),
                '&' => body.push_str("\\u0026"),
                '\u{2028}' => body.push_str("\\u2028"),
                '\u{2029}' => body.push_str("\\u2029"),
                c => body.push(c),
            }
        }
        body.push('\n');
        Answer { status, content_type: "application/json", body }
    }
}
