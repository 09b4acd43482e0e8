//! Decides whether the body of a response is packed, and dresses its head for it.
//!
//! What is packed already, partial, or not to be transformed passes as it is. A response that would be packed for another
//! client says so in `Vary`; the validator of a packed one is weak. RFC 9110 §8.4, §8.8.3.3, §12.5.3; RFC 9111 §5.2.2.6.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use pingora_http::ResponseHeader;

use super::Paths;
use super::compress::Levels;
use super::encodings::{Accepted, Coding};
use super::error_interceptor::declared;

/// A pattern of content types, in lower case.
#[derive(Debug)]
pub(super) enum Type {
    Any,
    Exact(String),
    /// What stands before and behind the `*`.
    Around(String, String),
}

impl Type {
    pub(super) fn new(text: &str) -> Option<Type> {
        let text = text.trim().to_ascii_lowercase();
        if text == "*/*" || text == "*" {
            return Some(Type::Any);
        }
        let is_token = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-*".contains(&b));
        let (kind, name) = text.split_once('/')?;
        if kind.is_empty() || name.is_empty() || !is_token(kind) || !is_token(name) {
            return None;
        }
        match text.split_once('*') {
            None => Some(Type::Exact(text)),
            Some((before, behind)) if !behind.contains('*') => Some(Type::Around(before.into(), behind.into())),
            Some(_) => None,
        }
    }

    fn takes(&self, media: &[u8]) -> bool {
        match self {
            Type::Any => true,
            Type::Exact(name) => media.eq_ignore_ascii_case(name.as_bytes()),
            Type::Around(before, behind) => {
                let (head, tail) = (before.len(), behind.len());
                media.len() >= head + tail
                    && media[..head].eq_ignore_ascii_case(before.as_bytes())
                    && media[media.len() - tail..].eq_ignore_ascii_case(behind.as_bytes())
            }
        }
    }
}

/// Which responses to pack, and how.
#[derive(Debug)]
pub struct Compression {
    pub(super) paths: Paths,
    pub(super) codings: Vec<Coding>,
    pub(super) types: Vec<Type>,
    pub(super) min_size: u64,
    pub(super) levels: Levels,
    pub(super) sse: bool,
}

/// How a body is to be packed.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// The coding.
    pub coding: Coding,
    /// Its level.
    pub level: i32,
}

impl Compression {
    /// Whether it counts for a raw path.
    pub fn takes(&self, raw: &str) -> bool {
        self.paths.is_empty()
            || crate::gate::path(raw).is_ok_and(|path| path.forms().any(|form| self.paths.matches(form)))
    }

    /// Decides on a response and dresses its head for it. Framing is the caller's: the length that the head says is that
    /// of the unpacked body, and is left.
    pub fn dress(&self, accepted: &Accepted, head: &mut ResponseHeader) -> Option<Recipe> {
        let eligible = match head.status {
            // Says what a response with content would say. RFC 9110 §15.4.5.
            StatusCode::NOT_MODIFIED => may_be_packed(&head.headers) && self.takes_type_if_any(&head.headers),
            _ => self.is_eligible(head),
        };
        let small = declared(&head.headers).is_some_and(|length| length < self.min_size);
        if !eligible || small && !accepted.refuses_identity() {
            return None;
        }
        vary(head);
        let coding = accepted.best(&self.codings)?;
        weaken(head);
        if head.status == StatusCode::NOT_MODIFIED {
            return None;
        }
        for name in &OF_THE_UNPACKED {
            head.remove_header(name);
        }
        let _ = head.insert_header(header::CONTENT_ENCODING, coding.name());
        let level = match coding {
            Coding::Gzip => self.levels.gzip,
            Coding::Br => self.levels.br,
            Coding::Zstd => self.levels.zstd,
        };
        Some(Recipe { coding, level })
    }

    fn is_eligible(&self, head: &ResponseHeader) -> bool {
        let headers = &head.headers;
        !head.status.is_informational()
            && !WITHOUT_WHOLE_CONTENT.contains(&head.status)
            && declared(headers) != Some(0)
            && headers.contains_key(header::CONTENT_TYPE)
            && self.takes_type_if_any(headers)
            && may_be_packed(headers)
    }

    fn takes_type_if_any(&self, headers: &HeaderMap) -> bool {
        headers.get(header::CONTENT_TYPE).is_none_or(|value| self.takes_type(value.as_bytes()))
    }

    fn takes_type(&self, value: &[u8]) -> bool {
        let media = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        if media.eq_ignore_ascii_case(b"text/event-stream") {
            return self.sse;
        }
        // gRPC packs its messages by itself.
        let grpc = media.get(..16).is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc"));
        !grpc && self.types.iter().any(|known| known.takes(media))
    }
}

const WITHOUT_WHOLE_CONTENT: [StatusCode; 3] =
    [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::PARTIAL_CONTENT];

/// What is not true of the packed body.
const OF_THE_UNPACKED: [HeaderName; 5] = [
    header::ACCEPT_RANGES,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// Whether a body is whole, not packed yet, and nobody's to leave alone.
fn may_be_packed(headers: &HeaderMap) -> bool {
    let plain =
        headers.get(header::CONTENT_ENCODING).is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    plain
        && !headers.contains_key(header::CONTENT_RANGE)
        // Trailers have no place behind a body that ends by its own measure.
        && !headers.contains_key(header::TRAILER)
        && !forbids_transforming(headers)
}

fn forbids_transforming(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::CACHE_CONTROL).into_iter();
    let mut directives = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    directives.any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
}

/// Says that the response differs by what the client accepts, to caches on the way.
fn vary(head: &mut ResponseHeader) {
    let lines = head.headers.get_all(header::VARY).iter().filter_map(|line| line.to_str().ok());
    let mut fields = lines.flat_map(|line| line.split(',')).map(str::trim);
    if !fields.any(|field| field == "*" || field.eq_ignore_ascii_case("accept-encoding")) {
        let _ = head.append_header(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

/// The packed body is not the same bytes: its validator is a weak one.
fn weaken(head: &mut ResponseHeader) {
    let Some(etag) = head.headers.get(header::ETAG).filter(|etag| etag.as_bytes().starts_with(b"\"")) else { return };
    if let Ok(weak) = HeaderValue::from_bytes(&[b"W/", etag.as_bytes()].concat()) {
        let _ = head.insert_header(header::ETAG, weak);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Place;
    use crate::middleware::PathRules;
    use crate::middleware::compress::Compress;

    fn usual() -> Compression {
        let place = Place::default();
        let paths = Paths::new(Arc::new(PathRules::compile(&[], &place).unwrap()), "");
        Compress::default().compile(&place, paths).unwrap_or_else(|_| panic!("the defaults are valid"))
    }

    fn accepted(line: &str) -> Accepted {
        Accepted::of(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, line.parse().unwrap())]))
    }

    /// Coding, `Vary` and `ETag` of a response with these fields.
    fn dressed(compression: &Compression, status: u16, accept: &str, fields: &[(&str, &str)]) -> [String; 3] {
        let mut head = ResponseHeader::build(status, None).unwrap();
        for (name, value) in fields {
            head.append_header(name.to_string(), *value).unwrap();
        }
        compression.dress(&accepted(accept), &mut head);
        let text = |name| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        [text("content-encoding"), text("vary"), text("etag")]
    }

    #[test]
    fn what_is_packed_says_so_and_nothing_untrue() {
        let usual = usual();
        let long = ("content-length", "5000");
        let json = ("content-type", "Application/JSON; charset=utf-8");
        let etag = ("etag", "\"v1\"");
        let vary = "Accept-Encoding";
        for (about, status, accept, fields, expected) in [
            ("packed", 200, "gzip", &[long, json, etag][..], ["gzip", vary, "W/\"v1\""]),
            ("of unknown length", 200, "br", &[json], ["br", vary, ""]),
            ("an error", 404, "zstd, gzip", &[json], ["zstd", vary, ""]),
            ("the client wants none", 200, "identity", &[long, json, etag], ["", vary, "\"v1\""]),
            ("weak already", 200, "gzip", &[json, ("etag", "W/\"a\"")], ["gzip", vary, "W/\"a\""]),
            (
                "Vary says so already",
                200,
                "gzip",
                &[json, ("vary", "origin, accept-encoding")],
                ["gzip", "origin, accept-encoding", ""],
            ),
            ("Vary says everything", 200, "gzip", &[json, ("vary", "*")], ["gzip", "*", ""]),
            ("identity is no coding", 200, "gzip", &[json, ("content-encoding", "identity")], ["gzip", vary, ""]),
            ("packed already", 200, "gzip", &[json, etag, ("content-encoding", "br")], ["br", "", "\"v1\""]),
            ("small", 200, "gzip", &[json, etag, ("content-length", "1023")], ["", "", "\"v1\""]),
            ("not small", 200, "gzip", &[json, ("content-length", "1024")], ["gzip", vary, ""]),
            (
                "small, but unpacked is refused",
                200,
                "gzip, identity;q=0",
                &[json, ("content-length", "9")],
                ["gzip", vary, ""],
            ),
            ("empty", 200, "gzip, identity;q=0", &[json, ("content-length", "0")], ["", "", ""]),
            ("a picture", 200, "gzip", &[long, ("content-type", "image/png")], ["", "", ""]),
            ("a drawing", 200, "gzip", &[long, ("content-type", "image/svg+xml")], ["gzip", vary, ""]),
            (
                "a structured type",
                200,
                "gzip",
                &[long, ("content-type", "application/problem+json")],
                ["gzip", vary, ""],
            ),
            ("no type", 200, "gzip", &[long], ["", "", ""]),
            ("an event stream", 200, "gzip", &[("content-type", "text/event-stream")], ["", "", ""]),
            ("gRPC", 200, "gzip", &[("content-type", "application/grpc+json")], ["", "", ""]),
            ("a part", 206, "gzip", &[long, json, ("content-range", "bytes 0-4999/9999")], ["", "", ""]),
            ("no content", 204, "gzip", &[json], ["", "", ""]),
            (
                "not to be changed",
                200,
                "gzip",
                &[long, json, etag, ("cache-control", "public, No-Transform")],
                ["", "", "\"v1\""],
            ),
            ("with trailers", 200, "gzip", &[json, ("trailer", "x-sum")], ["", "", ""]),
            ("not modified", 304, "gzip", &[etag], ["", vary, "W/\"v1\""]),
            ("not modified, unpacked", 304, "", &[etag], ["", vary, "\"v1\""]),
            ("not modified, a picture", 304, "gzip", &[etag, ("content-type", "image/png")], ["", "", "\"v1\""]),
        ] {
            assert_eq!(dressed(&usual, status, accept, fields), expected, "{about}");
        }
    }

    #[test]
    fn the_headers_of_the_unpacked_body_go() {
        let mut head = ResponseHeader::build(200, None).unwrap();
        for (name, value) in [
            ("content-type", "text/plain"),
            ("accept-ranges", "bytes"),
            ("content-md5", "x"),
            ("digest", "sha-256=x"),
            ("repr-digest", "sha-256=:x:"),
            ("x-other", "stays"),
        ] {
            head.append_header(name, value).unwrap();
        }
        assert!(usual().dress(&accepted("gzip"), &mut head).is_some());
        let mut left: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-encoding", "content-type", "vary", "x-other"]);
    }

    #[test]
    fn events_and_other_types_are_packed_when_asked_for() {
        let events = Compression { sse: true, ..usual() };
        let stream = &[("content-type", "text/event-stream")];
        assert_eq!(dressed(&events, 200, "gzip", stream)[0], "gzip");
        let types = Compression { types: vec![Type::Any], ..usual() };
        assert_eq!(dressed(&types, 200, "gzip", &[("content-type", "image/png")])[0], "gzip");
        for never in ["text/event-stream", "application/grpc", "application/grpc-web"] {
            assert_eq!(dressed(&types, 200, "gzip", &[("content-type", never)])[0], "", "{never}");
        }
    }

    #[test]
    fn a_pattern_takes_what_it_says() {
        for (pattern, media, takes) in [
            ("text/*", "text/html", true),
            ("text/*", "text", false),
            ("TEXT/HTML", "text/html", true),
            ("application/*+json", "application/problem+JSON", true),
            ("application/*+json", "application/+json", true),
            ("application/*+json", "application/json", false),
            ("*/xml", "text/xml", true),
        ] {
            assert_eq!(Type::new(pattern).unwrap().takes(media.as_bytes()), takes, "{pattern} and {media}");
        }
        for wrong in ["html", "text/", "/html", "text/html; charset=utf-8", "a*b/c*d", "text /html"] {
            assert!(Type::new(wrong).is_none(), "{wrong}");
        }
    }
}
