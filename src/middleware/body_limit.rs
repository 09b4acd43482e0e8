//! Limits the size of request bodies.
//!
//! A declared length above the limit is refused at once, before a byte of the body is asked for, and the connection ends; a
//! body that does not say its length is counted while it streams, and refused when it passes the limit. Nothing is held back
//! or kept. (Goma read the whole body into memory first, and ignored what was declared; spec middlewares §5.12, W-28.)
//!
//! ```yaml
//! - name: small-uploads
//!   type: bodyLimit
//!   rule: { limit: 1MiB }
//! ```

use std::sync::Arc;

use bytes::Bytes;
use http::{StatusCode, header};
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BodyWatch, Flow, Middleware, Part, Scope, Settings, Verdict};
use crate::config::{Problem, units};
use crate::exchange::Exchange;
use crate::reply::Reply;

/// Refuses requests with a body above a size with 413: at once where the length is declared, else while it streams.
#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct BodyLimit {
    /// Largest body, with its unit: `Ki`, `Mi`, `Gi` (1024) or `K`, `M`, `G` (1000), each also with a `B`. A body of exactly that
    /// size passes. Required.
    limit: String,
}

impl Settings for BodyLimit {
    const KIND: &'static [&'static str] = &["bodyLimit"];
    const GUARDS: bool = true;
    const PATHS: bool = false;
    const EXAMPLE: &'static str = include_str!("../../conf/examples/middlewares/bodyLimit.yml");

    fn build(self, scope: &Scope<'_>) -> Result<Part, Vec<Problem>> {
        let place = scope.place.child("rule").child("limit");
        if self.limit.is_empty() {
            return Err(vec![place.error("is missing", "write a size such as 1Mi")]);
        }
        match units::size_with_unit(&self.limit) {
            Ok(limit) => Ok(Part::Step(Arc::new(Limit(limit)))),
            Err(message) => Err(vec![place.error(format!("`{}` {message}", self.limit), "")]),
        }
    }
}

struct Limit(u64);

impl Limit {
    fn refusal(&self) -> Verdict {
        let message = format!("Request body too large (limit {} bytes)", self.0);
        Verdict::refuse(Reply::message(StatusCode::PAYLOAD_TOO_LARGE, message).closing(), "")
    }
}

impl Middleware for Limit {
    fn request<'a>(&'a self, _: &'a mut Exchange, head: &'a mut RequestHeader) -> Flow<'a> {
        match declared(head) {
            Some(length) if length > self.0 => Flow::Reply(self.refusal()),
            _ => Flow::Next,
        }
    }

    fn watches_body(&self) -> bool {
        true
    }

    /// Nobody has to count what was declared: more does not get through.
    fn watch(&self, _: &Exchange, head: &RequestHeader) -> Option<Box<dyn BodyWatch>> {
        declared(head).is_none().then(|| Box::new(Count { limit: Limit(self.0), left: self.0 }) as _)
    }
}

/// The length that the request says; the gate has seen that it says one.
fn declared(head: &RequestHeader) -> Option<u64> {
    head.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Counts one body.
struct Count {
    limit: Limit,
    left: u64,
}

impl BodyWatch for Count {
    fn chunk(&mut self, chunk: Bytes, _: bool) -> Result<Bytes, Verdict> {
        self.left = self.left.checked_sub(chunk.len() as u64).ok_or_else(|| self.limit.refusal())?;
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_counted_to_the_last_byte() {
        for (limit, chunks, passes) in [
            (10, &[10][..], true),
            (10, &[11], false),
            (10, &[4, 6, 0], true),
            (10, &[4, 6, 1], false),
            (0, &[0], true),
            (0, &[1], false),
        ] {
            let mut count = Count { limit: Limit(limit), left: limit };
            let counted = chunks.iter().all(|size| count.chunk(Bytes::from(vec![0; *size]), false).is_ok());
            assert_eq!(counted, passes, "{chunks:?} of {limit}");
        }
    }
}
