//! Redirects by a regular expression.
//!
//! The expression is held against the decoded path with the query behind a `?`; every match in it is replaced, and the result
//! is where the client is sent. What groups matched keeps the client's encoding. Requests without a match pass, and so do
//! challenges of certificate authorities. Spec middlewares §5.18.
//!
//! Only the operator says to which host: where `replacement` begins with one, the result has to lead there, and where it does
//! not, the result is a path of this host. What leads elsewhere is answered with 400 (`^/go` and `https://new.example.com`
//! would turn `/go.evil.example` into another host). A replacement that begins with a group may give a whole URL only if
//! `pattern` spells out `://`, which shows that it is meant.
//!
//! ```yaml
//! - name: moved-shop
//!   type: redirectRegex
//!   rule: { pattern: "^/shop/(.*)$", replacement: "https://shop.example.com/$1", permanent: true }
//! ```

use std::borrow::Cow;
use std::sync::Arc;

use http::StatusCode;
use pingora_http::RequestHeader;
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{is_challenge, redirect, refuse, resolved, scheme_of, status};
use crate::config::{Place, Problem};
use crate::exchange::Exchange;
use crate::middleware::reading::Reading;
use crate::middleware::replace::{self, Piece, Replace, TooLong};
use crate::middleware::{Flow, Middleware, Part, Scope, Settings};

/// Redirects requests whose path and query match a regular expression.
#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct RedirectRegex {
    /// Regular expression in Go's syntax, searched in the decoded path with the query behind a `?`. Required.
    pattern: String,
    /// What replaces every match: a URL or a path; `$1`, `${1}` and `${name}` are groups. Required.
    replacement: String,
    /// 301 in place of 302.
    permanent: bool,
    /// Keep method and body (ours): 308 and 307 in place of 301 and 302.
    keep_method: bool,
}

impl Settings for RedirectRegex {
    const KIND: &'static [&'static str] = &["redirectRegex"];
    const GUARDS: bool = false;
    const PATHS: bool = false;
    const EXAMPLE: &'static str = include_str!("../../../conf/examples/middlewares/redirectRegex.yml");

    fn doubts(&self, scope: &Scope<'_>) -> Vec<Problem> {
        replace::doubts(&self.pattern, &self.replacement, &scope.place.child("rule"))
    }

    fn build(self, scope: &Scope<'_>) -> Result<Part, Vec<Problem>> {
        let place = scope.place.child("rule");
        let mut problems = Vec::new();
        for (key, text) in [("pattern", &self.pattern), ("replacement", &self.replacement)] {
            if text.is_empty() {
                problems.push(place.child(key).error("is missing", "give `pattern` and `replacement`"));
            }
        }
        if self.replacement.contains(|c: char| c.is_control() || c.is_whitespace()) {
            problems.push(place.child("replacement").error("holds white space", "write a URL or a path"));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let replace = Replace::new(&self.pattern, &self.replacement, &place).map_err(|problem| vec![problem])?;
        let leads = Leads::of(replace.pieces(), &self.pattern, &place).map_err(|problem| vec![problem])?;
        Ok(Part::Step(Arc::new(To { replace, leads, status: status(self.permanent, self.keep_method) })))
    }
}

struct To {
    replace: Replace,
    leads: Leads,
    status: StatusCode,
}

impl Middleware for To {
    fn request<'a>(&'a self, exchange: &'a mut Exchange, _: &'a mut RequestHeader) -> Flow<'a> {
        if self.replace.rules_out(&exchange.path) || is_challenge(exchange) {
            return Flow::Next;
        }
        let reading = Reading::target(&exchange.path, exchange.query.as_deref());
        let target = match self.replace.apply(&reading, |_| Cow::Borrowed("")) {
            None => return Flow::Next,
            Some(Ok(target)) => target,
            Some(Err(TooLong)) => return refuse("the target of the redirect becomes too long"),
        };
        match self.leads.checked(&target, &exchange.path) {
            Some(target) => redirect(self.status, &target, exchange),
            None => refuse("the redirect would lead to another host than `replacement` names"),
        }
    }
}

/// Where a replacement may lead beside paths of this host.
enum Leads {
    /// Nowhere else.
    Here,
    /// To what begins like this.
    To(Regex),
    /// To any host: `pattern` decides.
    Anywhere,
}

impl Leads {
    fn of(pieces: &[Piece], pattern: &str, place: &Place) -> Result<Leads, Problem> {
        let written = match pieces.first() {
            Some(Piece::Text(text)) => text.as_str(),
            Some(Piece::Group(_)) if pattern.contains("://") => return Ok(Leads::Anywhere),
            _ => return Ok(Leads::Here),
        };
        let length = match scheme_of(written) {
            Some(scheme) => match written[scheme.len() + 1..].starts_with("//") {
                true => scheme.len() + 3,
                // As in `mailto:`: nothing of a host.
                false => return Ok(Leads::To(beginning(&regex::escape(&written[..=scheme.len()]), "", place)?)),
            },
            None if written.starts_with("//") => 2,
            None => return Ok(Leads::Here),
        };
        let host = host(pieces, length);
        if host.is_empty() {
            return Err(place.child("replacement").error("has no host behind `//`", "write `https://host/path`"));
        }
        let start = regex::escape(&written[..length]) + &host;
        Ok(Leads::To(beginning(&start, "(?:[/?#]|$)", place)?))
    }

    /// The target if it leads where it may, resolved on this path if it is one.
    fn checked<'t>(&self, target: &'t str, path: &str) -> Option<Cow<'t, str>> {
        let allowed = match self {
            Leads::Here => false,
            Leads::To(beginning) => beginning.is_match(target),
            Leads::Anywhere => matches!(scheme_of(target), Some("http" | "https")),
        };
        match allowed {
            true => Some(Cow::Borrowed(target)),
            false if scheme_of(target).is_some() || matches!(self, Leads::To(_)) && !is_path(target) => None,
            false => Some(Cow::Owned(resolved(target, path))),
        }
    }
}

fn is_path(target: &str) -> bool {
    target.starts_with('/') && !target.starts_with("//")
}

fn beginning(start: &str, end: &str, place: &Place) -> Result<Regex, Problem> {
    let compiled = Regex::new(&format!("^{start}{end}"));
    compiled.map_err(|_| place.child("replacement").error("is too long", "write a shorter one"))
}

/// The host that the pieces name, as an expression; a group may fill in a part of a name and nothing more. Empty without one.
fn host(pieces: &[Piece], mut skip: usize) -> String {
    let mut host = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => {
                let text = &text[skip..];
                let end = text.find(['/', '?', '#']).unwrap_or(text.len());
                host.push_str(&regex::escape(&text[..end]));
                if end < text.len() {
                    return host;
                }
            }
            Piece::Group(_) => host.push_str("[A-Za-z0-9._-]*"),
            _ => {}
        }
        skip = 0;
    }
    host
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_operator_names_a_host() {
        for (about, pattern, replacement, target, path, expected) in [
            ("as it is", "x", "https://n.example/$1", "https://n.example/a//b", "/", Some("https://n.example/a//b")),
            ("host alone", "x", "https://n.example", "https://n.example", "/", Some("https://n.example")),
            ("path behind", "x", "https://n.example", "https://n.example/x", "/", Some("https://n.example/x")),
            ("a longer host", "x", "https://n.example", "https://n.example.evil.test", "/", None),
            ("user and host", "x", "https://n.example", "https://n.example@evil.test/", "/", None),
            ("a port", "x", "https://n.example", "https://n.example:1/", "/", None),
            (
                "a part of the name",
                "(x)",
                "https://$1.n.example/",
                "https://a.b.n.example/",
                "/",
                Some("https://a.b.n.example/"),
            ),
            ("a part too many", "(x)", "https://$1.n.example/", "https://evil.test/.n.example/", "/", None),
            ("no scheme", "x", "//n.example/", "//n.example/x", "/", Some("//n.example/x")),
            ("another host", "x", "//n.example/", "//evil.test/x", "/", None),
            (
                "within the path",
                "x",
                "https://n.example/",
                "/a/https://n.example/",
                "/a/x",
                Some("/a/https:/n.example/"),
            ),
            ("a path", "x", "/new/$1", "/new/x?a=1", "/", Some("/new/x?a=1")),
            ("two slashes", "x", "/$1", "//evil.test/x", "/", Some("/evil.test/x")),
            ("a group in front", "(x)", "$1", "//evil.test/x", "/", Some("/evil.test/x")),
            ("a scheme of the client", "(x)", "$1", "https://evil.test/", "/", None),
            ("a script", "(x)", "$1", "javascript:alert(1)", "/", None),
            ("a scheme that is meant", "(https://.*)", "$1", "https://ok.test/", "/", Some("https://ok.test/")),
            ("never a script", "(https?://.*|.)", "$1", "javascript:x", "/", None),
            ("two slashes all the same", "(https?://.*|.)", "$1", "//evil.test", "/", Some("/evil.test")),
            ("relative", "x", "new", "new", "/a/b", Some("/a/new")),
            ("no host at all", "x", "mailto:$1", "mailto:x", "/", Some("mailto:x")),
        ] {
            let replace = Replace::new(pattern, replacement, &Place::default()).expect(pattern);
            let leads = Leads::of(replace.pieces(), pattern, &Place::default()).expect(replacement);
            assert_eq!(leads.checked(target, path).as_deref(), expected, "{about}");
        }
    }
}
