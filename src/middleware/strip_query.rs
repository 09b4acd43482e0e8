//! Removes query parameters.
//!
//! When none of them is there, the query stays as it is, byte for byte. Otherwise what remains is sorted by name and encoded
//! anew, as Goma writes it: `flag` becomes `flag=`, `%20` becomes `+`. A pair that Goma could not read and silently dropped
//! stays as it was sent. Spec middlewares §5.15.
//!
//! ```yaml
//! - name: no-tracking
//!   type: stripQuery
//!   rule: { params: [utm_source, utm_medium], methods: [GET] }
//! ```

use std::borrow::Cow;
use std::sync::Arc;

use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};
use pingora_http::RequestHeader;
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Flow, Middleware, Part, Scope, Settings, replace};
use crate::config::Problem;
use crate::exchange::Exchange;
use crate::gate;

/// Removes query parameters. The query stays as it is when none of them is there; else the rest is sorted by name.
#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct StripQuery {
    /// Names of the parameters, exactly as they are after decoding.
    params: Vec<String>,
    /// Methods that it is for, in any case; empty: all.
    methods: Vec<String>,
    /// Regular expression in Go's syntax; only requests with a match in their decoded path are changed. Empty: all.
    path_pattern: String,
}

impl Settings for StripQuery {
    const KIND: &'static [&'static str] = &["stripQuery"];
    const GUARDS: bool = false;
    const PATHS: bool = false;
    const EXAMPLE: &'static str = include_str!("../../conf/examples/middlewares/stripQuery.yml");

    fn build(self, scope: &Scope<'_>) -> Result<Part, Vec<Problem>> {
        let place = scope.place.child("rule");
        let mut problems = Vec::new();
        if self.params.is_empty() {
            problems
                .push(place.child("params").error("are missing: nothing is removed", "list the parameters to remove"));
        }
        let mut methods = Vec::new();
        for (index, name) in self.methods.iter().enumerate() {
            match name.trim().to_ascii_uppercase().parse::<Method>() {
                Ok(method) => methods.push(method),
                Err(_) => {
                    let place = place.child("methods").item(index);
                    problems.push(place.error(format!("`{name}` is no method"), "use names such as GET and POST"));
                }
            }
        }
        let pattern = match self.path_pattern.as_str() {
            "" => None,
            pattern => replace::compile(pattern, &place.child("pathPattern")).map_err(|e| problems.push(e)).ok(),
        };
        if !problems.is_empty() {
            return Err(problems);
        }
        let params = self.params.into_iter().map(String::into_bytes).collect();
        Ok(Part::Step(Arc::new(Strips { params, methods, pattern })))
    }
}

struct Strips {
    params: Vec<Vec<u8>>,
    methods: Vec<Method>,
    pattern: Option<Regex>,
}

impl Middleware for Strips {
    fn request<'a>(&'a self, exchange: &'a mut Exchange, _: &'a mut RequestHeader) -> Flow<'a> {
        if let Some(query) = &exchange.query
            && self.takes(exchange)
            && let Some(rest) = self.rest(query)
        {
            exchange.query = Some(rest).filter(|rest| !rest.is_empty());
        }
        Flow::Next
    }
}

impl Strips {
    fn takes(&self, exchange: &Exchange) -> bool {
        let matches = |pattern: &Regex| {
            gate::path(&exchange.path).is_ok_and(|path| path.forms().any(|form| pattern.is_match(form)))
        };
        (self.methods.is_empty() || self.methods.contains(&exchange.method))
            && self.pattern.as_ref().is_none_or(matches)
    }

    /// What remains of a query; `None` when nothing is to be removed.
    fn rest(&self, query: &str) -> Option<String> {
        let listed = |pair: &str| {
            let name = decoded(pair.split_once('=').map_or(pair, |(name, _)| name));
            self.params.iter().any(|param| *param == *name)
        };
        if !pairs(query).any(listed) {
            return None;
        }
        let mut kept: Vec<Pair<'_>> = pairs(query).filter(|pair| !listed(pair)).map(Pair::of).collect();
        kept.sort_by(|one, other| one.name.cmp(&other.name));
        Some(kept.iter().map(Pair::written).collect::<Vec<_>>().join("&"))
    }
}

fn pairs(query: &str) -> impl Iterator<Item = &str> {
    query.split('&').filter(|pair| !pair.is_empty())
}

struct Pair<'a> {
    raw: &'a str,
    name: Cow<'a, [u8]>,
    value: Cow<'a, [u8]>,
}

impl<'a> Pair<'a> {
    fn of(raw: &'a str) -> Pair<'a> {
        let (name, value) = raw.split_once('=').unwrap_or((raw, ""));
        Pair { raw, name: decoded(name), value: decoded(value) }
    }

    fn written(&self) -> Cow<'a, str> {
        if !is_readable(self.raw) {
            return Cow::Borrowed(self.raw);
        }
        Cow::Owned(format!("{}={}", encoded(&self.name), encoded(&self.value)))
    }
}

/// Whether Go reads such a pair: no semicolon, and every `%` begins an encoding.
fn is_readable(pair: &str) -> bool {
    let is_encoding =
        |rest: &str| rest.as_bytes().first_chunk::<2>().is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    !pair.contains(';') && pair.split('%').skip(1).all(is_encoding)
}

fn decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.contains('+') {
        return percent_decode(text.as_bytes()).into();
    }
    Cow::Owned(percent_decode(text.replace('+', " ").as_bytes()).collect())
}

fn encoded(bytes: &[u8]) -> String {
    // A space is left to the second step: a plus sign is encoded in the first.
    percent_encode(bytes, IN_QUERY).to_string().replace(' ', "+")
}

/// What Go encodes in a query, but the space.
const IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b' ');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_written_as_go_writes_it() {
        let strips = Strips { params: vec![b"x".to_vec(), b"utm a".to_vec()], methods: Vec::new(), pattern: None };
        for (about, query, rest) in [
            ("nothing listed", "b=2&a=1&flag", None),
            ("case counts", "X=1", None),
            ("sorted", "b=2&x=1&a=1", Some("a=1&b=2")),
            ("all of one name, in their order", "b=2&x=1&a=2&x=3&a=1", Some("a=2&a=1&b=2")),
            ("without a value", "x&flag", Some("flag=")),
            ("spaces", "x=&a=b%20c+d", Some("a=b+c+d")),
            ("signs", "x=1&q=%2b%2F~*é", Some("q=%2B%2F~%2A%C3%A9")),
            ("a name in another encoding", "%78=1&a=1", Some("a=1")),
            ("a name with a space", "utm+a=1&utm%20a=2", Some("")),
            ("nothing else", "x=1", Some("")),
            ("empty pairs", "x=1&&a=1&", Some("a=1")),
            ("no UTF-8", "x=1&a=%ff", Some("a=%FF")),
            ("unreadable stays", "x=1&b=100%&a=1;2", Some("a=1;2&b=100%")),
            ("unreadable is removed all the same", "x=1;y=2&a=1", Some("a=1")),
        ] {
            assert_eq!(strips.rest(query).as_deref(), rest, "{about}");
        }
    }
}
