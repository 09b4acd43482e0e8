//! What clients are told of a limit: status, text, and the fields of draft-ietf-httpapi-ratelimit-headers-10.

use std::fmt::Write;

use http::{HeaderName, HeaderValue, StatusCode, header};

use crate::limit::Quota;
use crate::middleware::Verdict;
use crate::reply::Reply;

/// What is left: `"name";r=3;t=10`, tokens and seconds.
pub(super) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// The limit: `"name";q=100;w=60`, tokens and seconds.
pub(super) const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// A limit as clients see it.
pub(super) struct Told {
    /// The name, quoted as a string of a structured field (RFC 9651 §3.3.3).
    name: String,
    policy: Option<HeaderValue>,
}

impl Told {
    pub(super) fn new(name: &str, quota: &Quota) -> Told {
        let mut quoted = String::from("\"");
        for letter in name.chars().map(|letter| if letter == ' ' || letter.is_ascii_graphic() { letter } else { '?' }) {
            if matches!(letter, '"' | '\\') {
                quoted.push('\\');
            }
            quoted.push(letter);
        }
        quoted.push('"');
        let policy = format!("{quoted};q={};w={}", quota.rate, quota.window.as_secs());
        Told { name: quoted, policy: HeaderValue::try_from(policy).ok() }
    }

    /// The fields for what is left, and nanoseconds until it is more.
    pub(super) fn fields(&self, remaining: u32, more_in: u64) -> Vec<(HeaderName, HeaderValue)> {
        let mut text = self.name.clone();
        // Writing to a string does not fail.
        let _ = write!(text, ";r={remaining};t={}", seconds(more_in));
        let left = HeaderValue::try_from(text).ok().map(|left| (RATE_LIMIT, left));
        [self.policy.clone().map(|policy| (POLICY, policy)), left].into_iter().flatten().collect()
    }

    /// 429: nothing for so many nanoseconds.
    pub(super) fn limited(&self, retry: u64) -> Verdict {
        let mut reply = Reply::message(StatusCode::TOO_MANY_REQUESTS, "429 Too many requests. Try again later.");
        reply.headers = self.fields(0, retry);
        Verdict::refuse(reply.header(header::RETRY_AFTER, HeaderValue::from(seconds(retry).max(1))), "limited")
    }

    /// 403 for so many nanoseconds yet.
    pub(super) fn banned(&self, left: u64) -> Verdict {
        let message = "403 Forbidden: Client temporarily banned due to repeated abuse";
        let reply = Reply::message(StatusCode::FORBIDDEN, message);
        Verdict::refuse(reply.header(header::RETRY_AFTER, HeaderValue::from(seconds(left).max(1))), "banned")
    }

    /// 503: nobody knows.
    pub(super) fn unknown(&self) -> Verdict {
        let reply = Reply::plain(StatusCode::SERVICE_UNAVAILABLE);
        Verdict::refuse(reply.header(header::RETRY_AFTER, HeaderValue::from_static("1")), "store_unavailable")
    }
}

/// Whole seconds, rounded up.
fn seconds(nanos: u64) -> u64 {
    nanos.div_ceil(1_000_000_000)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_fields_are_lists_of_named_items() {
        let told = Told::new("per \"client\"", &Quota::new(100, Duration::from_secs(60), 50));
        let fields = told.fields(3, 1_000_000_001);
        let shown: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text"))).collect();
        assert_eq!(
            shown,
            [("ratelimit-policy", r#""per \"client\"";q=100;w=60"#), ("ratelimit", r#""per \"client\"";r=3;t=2"#)]
        );
    }
}
