//! Rewrites the path by a regular expression.
//!
//! Every match in the decoded path is replaced; the query is kept. What groups matched goes on in the client's encoding, so an
//! encoded slash stays one. Placeholders are expanded in the replacement only, never where the client typed them, and their
//! values are escaped once, as one path segment (Goma expanded both and escaped twice; spec middlewares §5.14, W-36). What
//! comes out has to pass the gate: a value that makes a `..` segment ends the request with 400.
//!
//! ```yaml
//! - name: by-tenant
//!   type: rewriteRegex
//!   rule: { pattern: "^/orders/(.*)$", replacement: "/t/{{goma.headers.X-Tenant}}/$1" }
//! ```

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderName, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use pingora_http::RequestHeader;
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reading::Reading;
use super::replace::{self, Piece, Replace, TooLong};
use super::{Flow, Middleware, Part, Scope, Settings, Verdict};
use crate::config::Problem;
use crate::exchange::Exchange;
use crate::reply::Reply;
use crate::{fields, gate};

/// Rewrites the path by a regular expression, after routing and before the route's own `rewrite`; the query is kept.
#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct RewriteRegex {
    /// Regular expression in Go's syntax, searched in the decoded path; `%2F` and `%25` stay encoded in it.
    pattern: String,
    /// What replaces every match: `$1`, `${1}` and `${name}` are groups, `{{goma.headers.NAME}}` and `{{goma.query.NAME}}` the
    /// value of a header or parameter, escaped as one segment; what is missing is empty. `%XX` is taken as it is.
    replacement: String,
}

impl Settings for RewriteRegex {
    const KIND: &'static [&'static str] = &["rewriteRegex"];
    const GUARDS: bool = false;
    const PATHS: bool = false;
    const EXAMPLE: &'static str = include_str!("../../conf/examples/middlewares/rewriteRegex.yml");

    fn doubts(&self, scope: &Scope<'_>) -> Vec<Problem> {
        let place = scope.place.child("rule");
        let mut doubts = replace::doubts(&self.pattern, &self.replacement, &place);
        if self.replacement.contains(['?', '#']) {
            let place = place.child("replacement");
            let message = "`?` and `#` become part of the path: the query cannot be rewritten";
            doubts.push(place.warning(message, "keep to the path"));
        }
        doubts
    }

    fn build(self, scope: &Scope<'_>) -> Result<Part, Vec<Problem>> {
        let place = scope.place.child("rule");
        if self.pattern.is_empty() {
            return Err(vec![
                place.child("pattern").error("is missing", "write what to look for, as in `^/old/(.*)$`"),
            ]);
        }
        let replace = Replace::new(&self.pattern, &self.replacement, &place).map_err(|problem| vec![problem])?;
        let pieces = replace.pieces().iter().flat_map(with_placeholders).collect();
        Ok(Part::Step(Arc::new(Rewrites(replace.with(pieces)))))
    }
}

/// Finds the placeholders in a text, and writes what is around them as it stands in a path.
fn with_placeholders(piece: &Piece) -> Vec<Piece> {
    let Piece::Text(text) = piece else { return vec![piece.clone()] };
    let placeholder = Regex::new(r"\{\{\s*goma\.(headers|query)\.([A-Za-z0-9_-]+)\s*\}\}");
    let placeholder = placeholder.expect("the expression above is sound");
    let mut pieces = Vec::new();
    let mut rest = text.as_str();
    while let Some((whole, [source, name])) = placeholder.captures(rest).map(|found| found.extract()) {
        let (before, after) = rest.split_once(whole).unwrap_or((rest, ""));
        pieces.extend(path_text(before));
        pieces.push(match (source, HeaderName::try_from(name)) {
            ("headers", Ok(name)) => Piece::Header(name),
            _ => Piece::Parameter(name.to_owned()),
        });
        rest = after;
    }
    pieces.extend(path_text(rest));
    pieces
}

/// Text of the operator's as it stands in a path: what is encoded already stays so.
fn path_text(text: &str) -> Option<Piece> {
    let mut encoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        encoded.extend(percent_encode(before.as_bytes(), IN_PATH));
        let is_encoding =
            after.as_bytes().first_chunk::<2>().is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        encoded.push_str(if is_encoding { "%" } else { "%25" });
        rest = after;
    }
    encoded.extend(percent_encode(rest.as_bytes(), IN_PATH));
    (!encoded.is_empty()).then_some(Piece::Text(encoded))
}

/// What a path cannot hold as it is. RFC 3986 §3.3.
const IN_PATH: &AsciiSet =
    &SEGMENT.remove(b'/').remove(b';').remove(b',').remove(b'!').remove(b'\'').remove(b'(').remove(b')').remove(b'*');

/// What one segment cannot hold as it is, as Goma escapes it.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b':')
    .remove(b'=')
    .remove(b'@');

struct Rewrites(Replace);

impl Middleware for Rewrites {
    fn request<'a>(&'a self, exchange: &'a mut Exchange, head: &'a mut RequestHeader) -> Flow<'a> {
        let value = |piece: &Piece| value(piece, exchange, head);
        let mut path = match self.0.apply(&Reading::path(&exchange.path), value) {
            None => return Flow::Next,
            Some(Ok(path)) => path,
            Some(Err(TooLong)) => {
                return Flow::Reply(Verdict::refuse(
                    Reply::plain(StatusCode::URI_TOO_LONG),
                    "the path becomes too long",
                ));
            }
        };
        if !path.starts_with('/') {
            path.insert(0, '/');
        }
        if let Err(refusal) = gate::path(&path) {
            return Flow::Reply(Verdict::refuse(Reply::plain(StatusCode::BAD_REQUEST), refusal.detail));
        }
        exchange.path = path;
        Flow::Next
    }
}

/// What the request says, escaped as one segment.
fn value<'v>(piece: &Piece, exchange: &Exchange, head: &RequestHeader) -> Cow<'v, str> {
    let escaped = |bytes: &[u8]| Cow::Owned(percent_encode(bytes, SEGMENT).to_string());
    match piece {
        Piece::Header(name) => head.headers.get(name).map_or(Cow::Borrowed(""), |value| escaped(value.as_bytes())),
        Piece::Parameter(name) => {
            let value = fields::parameter(exchange.query.as_deref().unwrap_or_default(), name);
            value.map_or(Cow::Borrowed(""), |value| escaped(value.as_bytes()))
        }
        _ => Cow::Borrowed(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_is_split_at_its_placeholders() {
        let text = |text: &str| Piece::Text(text.to_owned());
        let header = Piece::Header(HeaderName::from_static("x-id"));
        for (template, pieces) in [
            ("/a", vec![text("/a")]),
            ("{{goma.headers.X-Id}}", vec![header.clone()]),
            ("/a/{{ goma.headers.X-Id }}/b", vec![text("/a/"), header, text("/b")]),
            ("/{{goma.query.q}}", vec![text("/"), Piece::Parameter("q".to_owned())]),
            ("/{{goma.other.q}}{x}", vec![text("/%7B%7Bgoma.other.q%7D%7D%7Bx%7D")]),
            ("/a b%20c%zz?d#é", vec![text("/a%20b%20c%25zz%3Fd%23%C3%A9")]),
        ] {
            assert_eq!(with_placeholders(&text(template)), pieces, "{template}");
        }
    }
}
