//! Packs the bodies of responses for clients that unpack them: zstd, brotli or gzip.
//!
//! Part of the shell, behind the header policies: it counts for every response of the route, error pages included; of
//! several that take a path the last one counts. What is packed already, partial, or not to be transformed passes as it is.
//! Ours, not Goma's. RFC 9110 §8.4, §8.8.3.3, §12.5.3; RFC 9111 §5.2.2.6.
//!
//! ```yaml
//! - name: small
//!   type: compress
//!   rule: { encodings: [zstd, br, gzip], minSize: 1Ki }
//! ```

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use pingora_http::ResponseHeader;
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::encodings::{Accepted, Coding};
use super::error_interceptor::declared;
use super::{Part, Paths, Scope, Settings};
use crate::config::{Place, Problem, units};

/// Packs the bodies of responses with zstd, brotli or gzip for clients that accept it.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Compress {
    /// Codings to use, the preferred one first; it counts where a client welcomes several equally.
    encodings: Vec<String>,
    /// Content types to pack, with `*` for any part of a name. Default: text, JSON, XML, scripts, fonts that are not packed
    /// already and the like.
    types: Vec<String>,
    /// Smallest body to pack, in bytes or with a unit (`1Ki`). A body of unknown length is packed.
    min_size: String,
    /// How hard to try: one number for all codings (1 to 9), or one for each.
    level: Effort,
    /// Whether event streams are packed too: each event is sent at once all the same. Default false.
    sse: bool,
}

/// How hard to try.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum Effort {
    /// For all codings.
    Same(i32),
    /// By coding.
    Each(Levels),
}

/// Like serde's own for such a choice, but with words for the operator, and with quoted numbers.
impl<'de> Deserialize<'de> for Effort {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Effort, D::Error> {
        struct Choice;

        impl<'de> Visitor<'de> for Choice {
            type Value = Effort;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a number, or a map of coding to number")
            }

            fn visit_i64<E: de::Error>(self, level: i64) -> Result<Effort, E> {
                i32::try_from(level)
                    .map(Effort::Same)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(level), &self))
            }

            fn visit_u64<E: de::Error>(self, level: u64) -> Result<Effort, E> {
                i32::try_from(level)
                    .map(Effort::Same)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(level), &self))
            }

            fn visit_str<E: de::Error>(self, level: &str) -> Result<Effort, E> {
                let number = level.trim().parse();
                number.map(Effort::Same).map_err(|_| E::invalid_value(de::Unexpected::Str(level), &self))
            }

            fn visit_map<A: MapAccess<'de>>(self, levels: A) -> Result<Effort, A::Error> {
                Levels::deserialize(MapAccessDeserializer::new(levels)).map(Effort::Each)
            }
        }

        value.deserialize_any(Choice)
    }
}

/// How hard to try, by coding.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Levels {
    /// 1 to 9.
    pub gzip: i32,
    /// 0 to 11.
    pub br: i32,
    /// 1 to 19.
    pub zstd: i32,
}

/// What a processor does for the bandwidth of several cores' worth of clients: each packs text to about a quarter.
impl Default for Levels {
    fn default() -> Self {
        Levels { gzip: 5, br: 4, zstd: 3 }
    }
}

impl Default for Compress {
    fn default() -> Self {
        Compress {
            encodings: ["zstd", "br", "gzip"].map(str::to_owned).to_vec(),
            types: TYPES.iter().map(|name| (*name).to_owned()).collect(),
            min_size: "1024".to_owned(),
            level: Effort::Each(Levels::default()),
            sse: false,
        }
    }
}

/// What is text, whatever its name says.
const TYPES: [&str; 22] = [
    "text/*",
    "application/json",
    "application/*+json",
    "application/ld+json",
    "application/ndjson",
    "application/x-ndjson",
    "application/jsonl",
    "application/xml",
    "application/*+xml",
    "application/javascript",
    "application/x-javascript",
    "application/ecmascript",
    "application/wasm",
    "application/graphql",
    "application/yaml",
    "application/x-yaml",
    "application/vnd.ms-fontobject",
    "font/ttf",
    "font/otf",
    "image/svg+xml",
    "image/x-icon",
    "image/bmp",
];

impl Settings for Compress {
    const KIND: &'static [&'static str] = &["compress"];
    const GUARDS: bool = false;
    const EXAMPLE: &'static str = include_str!("../../conf/examples/middlewares/compress.yml");

    fn build(self, scope: &Scope<'_>) -> Result<Part, Vec<Problem>> {
        let place = scope.place.child("rule");
        let mut problems = Vec::new();
        let codings = codings(&self.encodings, &place.child("encodings"), &mut problems);
        let types = types(&self.types, &place.child("types"), &mut problems);
        let min_size = units::bytes(self.min_size.trim()).unwrap_or_else(|_| {
            let message = format!("`{}` is no size", self.min_size);
            problems.push(place.child("minSize").error(message, "write bytes as a number, or with a unit: 1Ki"));
            0
        });
        let levels = self.level.of_each(&place.child("level"), &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        let paths = Paths::new(scope.paths.clone(), "");
        Ok(Part::Compress(Compression { paths, codings, types, min_size, levels, sse: self.sse }))
    }
}

fn codings(names: &[String], place: &Place, problems: &mut Vec<Problem>) -> Vec<Coding> {
    let mut codings = Vec::new();
    if names.is_empty() {
        problems.push(place.error("are none", "list zstd, br or gzip, or remove the middleware"));
    }
    for (index, name) in names.iter().enumerate() {
        let place = place.item(index);
        let coding = match &*name.trim().to_ascii_lowercase() {
            "zstd" => Coding::Zstd,
            "br" | "brotli" => Coding::Br,
            "gzip" => Coding::Gzip,
            _ => {
                problems.push(place.error(format!("`{name}` is no coding that is known here"), "use zstd, br or gzip"));
                continue;
            }
        };
        if codings.contains(&coding) {
            problems.push(place.error(format!("`{name}` is listed twice"), "keep one of them"));
        } else {
            codings.push(coding);
        }
    }
    codings
}

fn types(names: &[String], place: &Place, problems: &mut Vec<Problem>) -> Vec<Type> {
    let mut types = Vec::new();
    if names.is_empty() {
        problems.push(place.error("are none", "list content types, or remove the key for the usual ones"));
    }
    for (index, name) in names.iter().enumerate() {
        match Type::new(name) {
            Some(known) => types.push(known),
            None => {
                let message = format!("`{name}` is no content type");
                problems
                    .push(place.item(index).error(message, "write it like text/html, text/* or application/*+json"));
            }
        }
    }
    types
}

impl Effort {
    fn of_each(&self, place: &Place, problems: &mut Vec<Problem>) -> Levels {
        match *self {
            Effort::Same(level) => {
                if !(1..=9).contains(&level) {
                    let remedy = "use 1 to 9, or a number for each coding: `level: {br: 11}`";
                    problems.push(place.error(format!("{level} is out of range"), remedy));
                }
                Levels { gzip: level, br: level, zstd: level }
            }
            Effort::Each(levels) => {
                for (key, level, range) in
                    [("gzip", levels.gzip, 1..=9), ("br", levels.br, 0..=11), ("zstd", levels.zstd, 1..=19)]
                {
                    if !range.contains(&level) {
                        let remedy = format!("use {} to {}", range.start(), range.end());
                        problems.push(place.child(key).error(format!("{level} is out of range"), remedy));
                    }
                }
                levels
            }
        }
    }
}

/// A pattern of content types, in lower case.
#[derive(Debug)]
enum Type {
    Any,
    Exact(String),
    /// What stands before and behind the `*`.
    Around(String, String),
}

impl Type {
    fn new(text: &str) -> Option<Type> {
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
    paths: Paths,
    codings: Vec<Coding>,
    types: Vec<Type>,
    min_size: u64,
    levels: Levels,
    sse: bool,
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
    use crate::middleware::PathRules;

    fn compression(change: impl FnOnce(&mut Compress)) -> Compression {
        let mut settings = Compress::default();
        change(&mut settings);
        let place = Place::default();
        let mut problems = Vec::new();
        let built = Compression {
            paths: Paths::new(Arc::new(PathRules::compile(&[], &place).unwrap()), ""),
            codings: codings(&settings.encodings, &place, &mut problems),
            types: types(&settings.types, &place, &mut problems),
            min_size: units::bytes(&settings.min_size).unwrap(),
            levels: settings.level.of_each(&place, &mut problems),
            sse: settings.sse,
        };
        assert!(problems.is_empty());
        built
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
        let recipe = compression.dress(&accepted(accept), &mut head);
        let text = |name| head.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        assert_eq!(
            recipe.is_some(),
            fields.iter().all(|(name, value)| *name != "content-encoding" || *value == "identity")
                && !text("content-encoding").is_empty()
        );
        [text("content-encoding"), text("vary"), text("etag")]
    }

    #[test]
    fn what_is_packed_says_so_and_nothing_untrue() {
        let compression = compression(|_| {});
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
            let mut expected = expected.map(str::to_owned);
            if about == "packed already" {
                expected[0] = "br".to_owned();
            }
            assert_eq!(dressed(&compression, status, accept, fields), expected, "{about}");
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
        assert!(compression(|_| {}).dress(&accepted("gzip"), &mut head).is_some());
        let mut left: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-encoding", "content-type", "vary", "x-other"]);
    }

    #[test]
    fn events_and_other_types_are_packed_when_asked_for() {
        let events = compression(|settings| settings.sse = true);
        let stream = &[("content-type", "text/event-stream")];
        assert_eq!(dressed(&events, 200, "gzip", stream)[0], "gzip");
        let types = compression(|settings| settings.types = vec!["*/*".into()]);
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
