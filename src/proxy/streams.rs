//! Responses that have no end of their own, counted while they last: a drain waits for them until its deadline, and cutting them
//! then loses nobody a request.

use http::{StatusCode, header};
use pingora_http::ResponseHeader;
use prometheus::IntGauge;

use crate::telemetry::metrics::Metrics;

/// Keeps a stream counted as long as its request lives.
pub struct Stream(IntGauge);

impl Stream {
    /// If the response with this head is one.
    pub fn of(head: &ResponseHeader, metrics: &Metrics) -> Option<Stream> {
        let events = |value: &http::HeaderValue| value.as_bytes().starts_with(b"text/event-stream");
        let kind = match head.status {
            StatusCode::SWITCHING_PROTOCOLS => "websocket",
            _ if head.headers.get(header::CONTENT_TYPE).is_some_and(events) => "events",
            _ => return None,
        };
        let gauge = metrics.streams(kind);
        gauge.inc();
        Some(Stream(gauge))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.dec();
    }
}
