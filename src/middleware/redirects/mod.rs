//! What the redirects share: their status, their form on the wire, and where a relative target leads. Spec middlewares §4.4.
//!
//! A target that the operator wrote whole goes out as it is. Whatever the client had a hand in leads to a path of this host,
//! with one slash at its beginning: `//host` and `/\host` would be another host to a browser.

pub mod fixed;
pub mod pattern;
pub mod scheme;

use std::borrow::Cow;
use std::fmt::Write;

use http::{HeaderValue, Method, StatusCode, header};

use super::{Flow, Verdict};
use crate::exchange::Exchange;
use crate::reply::Reply;

/// The status of a redirect; to keep the method takes the newer ones (RFC 9110 §15.4.8).
pub(super) fn status(permanent: bool, keep_method: bool) -> StatusCode {
    match (permanent, keep_method) {
        (true, false) => StatusCode::MOVED_PERMANENTLY,
        (false, false) => StatusCode::FOUND,
        (true, true) => StatusCode::PERMANENT_REDIRECT,
        (false, true) => StatusCode::TEMPORARY_REDIRECT,
    }
}

/// Whether the request is a certificate authority's, which must reach whoever asked for the certificate.
pub(super) fn is_challenge(exchange: &Exchange) -> bool {
    exchange.path.starts_with("/.well-known/acme-challenge/")
}

/// Sends the client elsewhere: with a page for GET and HEAD, without content for others.
pub(super) fn redirect<'a>(status: StatusCode, target: &str, exchange: &Exchange) -> Flow<'a> {
    match to(status, target, exchange) {
        Some(reply) => Flow::Reply(Verdict::answer(reply)),
        None => refuse("the target of the redirect holds control characters"),
    }
}

/// The reply that sends the client elsewhere; `None` when no header can hold the target.
pub(super) fn to(status: StatusCode, target: &str, exchange: &Exchange) -> Option<Reply> {
    let location = HeaderValue::from_str(&plain(target)).ok()?;
    let reply = match exchange.method {
        Method::GET | Method::HEAD => Reply::exact(status, "text/html; charset=utf-8", page(status, target)),
        _ => Reply::empty(status),
    };
    Some(reply.header(header::LOCATION, location))
}

/// Answers a request whose redirect would lead where it must not.
pub(super) fn refuse<'a>(why: &'static str) -> Flow<'a> {
    Flow::Reply(Verdict::refuse(Reply::plain(StatusCode::BAD_REQUEST), why))
}

/// Goma's page, byte for byte.
fn page(status: StatusCode, target: &str) -> String {
    let mut page = String::with_capacity(target.len() + 48);
    page.push_str("<a href=\"");
    for part in target.chars() {
        match part {
            '&' => page.push_str("&amp;"),
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '"' => page.push_str("&#34;"),
            '\'' => page.push_str("&#39;"),
            other => page.push(other),
        }
    }
    page.push_str("\">");
    page.push_str(status.canonical_reason().unwrap_or_default());
    page.push_str("</a>.\n\n");
    page
}

/// A target as it stands in a header. What is no ASCII is encoded as Go does it; so is what URLs have no place for, of which
/// browsers take `\` for a slash.
fn plain(target: &str) -> Cow<'_, str> {
    let odd = |byte: u8| byte >= 0x80 || byte == b' ' || ODD.contains(&byte);
    if !target.bytes().any(odd) {
        return Cow::Borrowed(target);
    }
    let mut plain = String::with_capacity(target.len() + 16);
    for byte in target.bytes() {
        match byte {
            // Writing to a string does not fail.
            0x80.. => drop(write!(plain, "%{byte:02x}")),
            b' ' => plain.push_str("%20"),
            byte if ODD.contains(&byte) => drop(write!(plain, "%{byte:02X}")),
            byte => plain.push(char::from(byte)),
        }
    }
    Cow::Owned(plain)
}

const ODD: &[u8] = b"\"<>\\^`{|}";

/// Where a target without scheme and host leads from this path: one slash, no `.` or `..`, no empty segments.
pub(super) fn resolved(target: &str, path: &str) -> String {
    let folder = match target.starts_with('/') {
        true => "",
        false => path.rsplit_once('/').map_or("", |(folder, _)| folder),
    };
    let (target, query) = match target.find('?') {
        Some(at) => target.split_at(at),
        None => (target, ""),
    };
    let mut segments: Vec<&str> = Vec::new();
    for segment in folder.split('/').chain(target.split('/')) {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let mut resolved = String::with_capacity(folder.len() + target.len() + query.len() + 2);
    for segment in &segments {
        resolved.push('/');
        resolved.push_str(segment);
    }
    if segments.is_empty() || target.is_empty() || target.ends_with('/') {
        resolved.push('/');
    }
    resolved + query
}

/// The scheme that a target begins with, if it does. RFC 3986 §3.1.
pub(super) fn scheme_of(target: &str) -> Option<&str> {
    let (scheme, _) = target.split_once(':')?;
    let letter = scheme.starts_with(|first: char| first.is_ascii_alphabetic());
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    (letter && scheme.bytes().all(legal)).then_some(scheme)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_targets_are_resolved_as_goma_resolves_them() {
        for (target, path, expected) in [
            ("new/place", "/a/b", "/a/new/place"),
            ("new/place?x=1/../2", "/a/b", "/a/new/place?x=1/../2"),
            ("new/", "/a/b/", "/a/b/new/"),
            ("../up", "/a/b/c", "/a/up"),
            ("../../../up", "/a/b", "/up"),
            ("./x", "/", "/x"),
            ("/x//y/./z/", "/a", "/x/y/z/"),
            ("/", "/a", "/"),
            ("?q=1", "/a/b", "/a/?q=1"),
            ("x", "//evil.example/y", "/evil.example/x"),
            ("//evil.example", "/a", "/evil.example"),
            ("/..", "/a/b", "/"),
        ] {
            assert_eq!(resolved(target, path), expected, "{target} on {path}");
        }
    }

    #[test]
    fn a_location_is_one_plain_word() {
        for (target, expected) in [
            ("https://n.example/a?b#c", "https://n.example/a?b#c"),
            ("/é", "/%c3%a9"),
            ("/\\evil \"", "/%5Cevil%20%22"),
        ] {
            assert_eq!(plain(target), expected);
        }
    }

    #[test]
    fn a_scheme_is_what_a_browser_takes_for_one() {
        for (target, scheme) in
            [("https://x", Some("https")), ("mailto:x", Some("mailto")), ("/a:b", None), ("1a:b", None), ("ab", None)]
        {
            assert_eq!(scheme_of(target), scheme, "{target}");
        }
    }

    #[test]
    fn the_page_escapes_the_target() {
        assert_eq!(
            page(StatusCode::FOUND, "/a?b=1&c='\"<>"),
            "<a href=\"/a?b=1&amp;c=&#39;&#34;&lt;&gt;\">Found</a>.\n\n"
        );
    }
}
