//! A stored response goes out: its head with what has to be said of it, and its body block by block, as it is kept.

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use pingora_core::protocols::http::conditional_filter::to_304;
use pingora_error::Result;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{RangeType, Session};

use super::cached::{Cached, ttl};
use super::ctx::Ctx;
use super::respond;
use crate::cache::entry::Entry;
use crate::cache::freshness;
use crate::cache::status::CacheStatus;

/// Sends an entry to the client, or that it has not changed.
pub async fn send(session: &mut Session, ctx: &mut Ctx, entry: &Entry, now: u64) -> Result<()> {
    let mut head = entry.head.clone();
    head.insert_header(header::AGE, entry.age(now) / 1000)?;
    if let Some(cached) = &mut ctx.cache {
        cached.ttl = Some(ttl(entry.terms.fresh_until, now));
        say(cached, &mut head)?;
    }
    let unchanged = not_modified(session.req_header(), &head);
    if unchanged {
        to_304(&mut head);
    }
    let body = if unchanged || session.req_header().method == Method::HEAD { &[][..] } else { entry.body.blocks() };
    respond::blocks(session, ctx, head, body).await
}

/// Adds what the cache did to a head.
pub fn say(cached: &Cached, head: &mut ResponseHeader) -> Result<()> {
    let outcome = cached.outcome;
    head.insert_header("X-Goma-Cache", HeaderValue::from_static(outcome.goma()))?;
    if let Some(ttl) = cached.ttl {
        head.insert_header("X-Goma-Cache-Max-Age", HeaderValue::from(ttl.max(0)))?;
    }
    if !cached.rule.says {
        return Ok(());
    }
    head.insert_header("X-Cache-Status", HeaderValue::from_static(outcome.title()))?;
    let status = CacheStatus { outcome, ttl: cached.ttl, stored: cached.stored, why: cached.why };
    if let Ok(status) = HeaderValue::from_maybe_shared(bytes::Bytes::from(status.to_string())) {
        head.append_header("Cache-Status", status)?;
    }
    let silent = !head.headers.contains_key(header::CACHE_CONTROL) && !head.headers.contains_key(header::EXPIRES);
    if let (true, Some(ttl)) = (silent, cached.ttl.filter(|_| cached.stored || outcome.goma() == "HIT")) {
        let text = format!("public, max-age={}", ttl.max(0));
        head.insert_header(header::CACHE_CONTROL, text)?;
    }
    Ok(())
}

/// Whether the client has this response already. RFC 9111 §4.3.2.
pub fn not_modified(request: &RequestHeader, head: &ResponseHeader) -> bool {
    let headers = &request.headers;
    if head.status != StatusCode::OK {
        return false;
    }
    if headers.contains_key(header::IF_NONE_MATCH) {
        let stored = head.headers.get(header::ETAG).map(|tag| weak(tag.as_bytes()));
        return headers.get_all(header::IF_NONE_MATCH).iter().any(|line| lists(line.as_bytes(), stored));
    }
    let Some(since) = freshness::date(headers, header::IF_MODIFIED_SINCE) else { return false };
    let modified = freshness::date(&head.headers, header::LAST_MODIFIED).or_else(|| made(&head.headers));
    modified.is_some_and(|modified| modified <= since)
}

fn made(headers: &HeaderMap) -> Option<u64> {
    freshness::date(headers, header::DATE)
}

/// Whether a list of entity tags has this one; compared weakly. RFC 9110 §8.8.3.2, §13.1.2.
fn lists(line: &[u8], wanted: Option<&[u8]>) -> bool {
    let line = line.trim_ascii();
    if line == b"*" {
        return true;
    }
    let Some(wanted) = wanted else { return false };
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        rest = rest.strip_prefix(b"W/").unwrap_or(rest);
        let length = match rest.first() {
            Some(b'"') => match rest[1..].iter().position(|byte| *byte == b'"') {
                Some(at) => at + 2,
                None => rest.len(),
            },
            Some(_) => rest.iter().position(|byte| *byte == b',').unwrap_or(rest.len()),
            None => return false,
        };
        if rest[..length].trim_ascii_end() == wanted {
            return true;
        }
        let Some(comma) = rest[length..].iter().position(|byte| *byte == b',') else { return false };
        rest = &rest[length + comma + 1..];
    }
}

fn weak(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// The part of a response that the client asks for. A weak tag in `If-Range` matches nothing. RFC 9110 §13.1.5.
pub fn range(request: &RequestHeader, head: &mut ResponseHeader) -> RangeType {
    let weak = request.headers.get(header::IF_RANGE).is_some_and(|tag| tag.as_bytes().starts_with(b"W/"));
    let several = request.headers.get_all(header::RANGE).iter().count() > 1;
    if weak || several {
        return RangeType::None;
    }
    pingora_proxy::range_header_filter(request, head, Some(MOST_RANGES))
}

/// More ranges than these at once, and the client gets the whole.
const MOST_RANGES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9110 §13.1.2, RFC 9111 §4.3.2.
    #[test]
    fn a_client_that_has_the_response_is_told_so() {
        let date = "Fri, 27 Nov 2026 08:00:00 GMT";
        let later = "Fri, 27 Nov 2026 08:00:01 GMT";
        for (request, response, same) in [
            (&[("If-None-Match", "\"a\"")][..], &[("ETag", "\"a\"")][..], true),
            (&[("If-None-Match", "W/\"a\"")], &[("ETag", "\"a\"")], true),
            (&[("If-None-Match", "\"x\" , \"a\"")], &[("ETag", "W/\"a\"")], true),
            (&[("If-None-Match", "\"x,\", \"a\"")], &[("ETag", "\"a\"")], true),
            (&[("If-None-Match", "\"a")], &[("ETag", "\"a\"")], false),
            (&[("If-None-Match", "a")], &[("ETag", "\"a\"")], false),
            (&[("If-None-Match", "a")], &[("ETag", "a")], true),
            (&[("If-None-Match", "*")], &[], true),
            (&[("If-None-Match", "\"b\"")], &[("ETag", "\"a\"")], false),
            (
                &[("If-None-Match", "\"b\""), ("If-Modified-Since", date)],
                &[("ETag", "\"a\""), ("Last-Modified", date)],
                false,
            ),
            (&[("If-Modified-Since", date)], &[("Last-Modified", date)], true),
            (&[("If-Modified-Since", date)], &[("Last-Modified", later)], false),
            (&[("If-Modified-Since", later)], &[("Date", date)], true),
            (&[("If-Modified-Since", "x")], &[("Last-Modified", date)], false),
        ] {
            let mut asked = RequestHeader::build("GET", b"/", None).unwrap();
            request.iter().for_each(|(name, value)| asked.insert_header(*name, *value).unwrap());
            let mut head = ResponseHeader::build(200, None).unwrap();
            response.iter().for_each(|(name, value)| head.insert_header(*name, *value).unwrap());
            assert_eq!(not_modified(&asked, &head), same, "{request:?} {response:?}");
        }
    }
}
