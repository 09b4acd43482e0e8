//! The path towards the backend: a route's `rewrite`, and joining with the backend's own path and query.
//!
//! With `path: /api` and `rewrite: /v2`, `/api/users/1` becomes `/v2/users/1`. The rest is taken over segment by
//! segment in the encoding that the client chose, so `%2F` stays inside its segment; empty and `.` segments go, and
//! `..` never climbs above what `rewrite` says. Goma works on the decoded path instead, where an encoded slash becomes
//! a real one and `..` escapes.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// A compiled `rewrite`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// The path of the route, as written: a prefix of the decoded request path.
    prefix: Box<str>,
    /// What replaces it: encoded, with a slash before each segment and none at the end.
    base: Box<str>,
}

/// Why a `rewrite` does nothing, as in Goma.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRewrite {
    /// It is empty.
    Unset,
    /// The route's path has placeholders.
    Placeholder,
    /// The route's path does not start with a slash.
    NoLeadingSlash,
}

impl fmt::Display for NoRewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unset => "it is empty",
            Self::Placeholder => "a path with {placeholders} is not rewritten",
            Self::NoLeadingSlash => "a path without a leading slash is not rewritten",
        })
    }
}

impl std::error::Error for NoRewrite {}

impl Rewrite {
    /// Compiles the `path` and the `rewrite` of a route. Both are plain text: a `%` in them is a percent sign.
    ///
    /// # Errors
    /// [`NoRewrite`] when requests keep their path; all but [`NoRewrite::Unset`] are worth a warning.
    pub fn new(path: &str, rewrite: &str) -> Result<Self, NoRewrite> {
        if rewrite.is_empty() {
            return Err(NoRewrite::Unset);
        }
        if path.contains('{') {
            return Err(NoRewrite::Placeholder);
        }
        if !path.is_empty() && !path.starts_with('/') {
            return Err(NoRewrite::NoLeadingSlash);
        }
        let encoded = utf8_percent_encode(rewrite, ENCODED).to_string();
        let mut base = String::new();
        append_clean(&mut base, &encoded);
        Ok(Self { prefix: path.into(), base: base.into() })
    }

    /// The new path for a request path, both percent-encoded and without query.
    ///
    /// `None` when the decoded path does not start with the route's path: then nothing changes. Borrows when the new
    /// path is the end of the old one, as with `rewrite: /`.
    pub fn apply<'a>(&self, raw: &'a str) -> Option<Cow<'a, str>> {
        let rest = self.cut(raw)?;
        if self.base.is_empty() && is_clean(rest) {
            return Some(Cow::Borrowed(rest));
        }
        // The slash after the prefix separates, encoded or not.
        let inner = strip_encoded_slash(rest).unwrap_or(rest);
        let ends_with_slash = raw.ends_with('/') || (inner.is_empty() && !rest.is_empty());
        let mut path = String::with_capacity(self.base.len() + inner.len() + 2);
        path.push_str(&self.base);
        append_clean(&mut path, inner);
        if path.is_empty() || ends_with_slash {
            path.push('/');
        }
        Some(Cow::Owned(path))
    }

    /// What follows the prefix, still encoded. The prefix ends where a segment ends.
    fn cut<'a>(&self, raw: &'a str) -> Option<&'a str> {
        let mut rest = raw;
        for wanted in self.prefix.bytes() {
            let (byte, after) = first_decoded(rest)?;
            if byte != wanted {
                return None;
            }
            rest = after;
        }
        let whole = rest.is_empty() || rest.starts_with('/') || strip_encoded_slash(rest).is_some();
        (whole || self.prefix.is_empty() || self.prefix.ends_with('/')).then_some(rest)
    }
}

/// Appends `path`, in which there is exactly one slash between the two, to the path of a backend.
pub fn join(out: &mut String, base: &str, path: &str) {
    out.push_str(base.strip_suffix('/').unwrap_or(base));
    if !path.starts_with('/') {
        out.push('/');
    }
    out.push_str(path);
}

/// Appends the backend's query and the client's, byte for byte, with `&` between them if both hold something.
pub fn join_query(out: &mut String, base: Option<&str>, query: Option<&str>) {
    let (base, query) = (base.unwrap_or(""), query.unwrap_or(""));
    out.push_str(base);
    if !base.is_empty() && !query.is_empty() {
        out.push('&');
    }
    out.push_str(query);
}

/// The first byte after decoding, and what follows it. `None` at the end.
fn first_decoded(raw: &str) -> Option<(u8, &str)> {
    let encoded = raw.strip_prefix('%').and_then(|raw| raw.split_at_checked(2));
    if let Some((digits, after)) = encoded
        && let Ok(byte) = u8::from_str_radix(digits, 16)
    {
        return Some((byte, after));
    }
    // Targets are ASCII; anything else is not the start of a prefix.
    let byte = *raw.as_bytes().first()?;
    raw.split_at_checked(1).map(|(_, after)| (byte, after))
}

fn strip_encoded_slash(raw: &str) -> Option<&str> {
    raw.strip_prefix("%2F").or_else(|| raw.strip_prefix("%2f"))
}

/// Appends the segments of a path, each behind a slash, and resolves the special ones. What is in `out` stays.
fn append_clean(out: &mut String, path: &str) {
    let floor = out.len();
    for segment in path.split('/') {
        match Segment::of(segment) {
            Segment::Plain => {
                out.push('/');
                out.push_str(segment);
            }
            Segment::Up => {
                let parent = out[floor..].rfind('/').unwrap_or(0);
                out.truncate(floor + parent);
            }
            Segment::Void => {}
        }
    }
}

/// Can `path` stay as it is? Says no too often rather than too rarely.
fn is_clean(path: &str) -> bool {
    let Some(inner) = path.strip_prefix('/') else {
        return false;
    };
    let (inner, plain) = (inner.strip_suffix('/').unwrap_or(inner), |c: char| !matches!(c, '.' | '%'));
    path == "/" || inner.split('/').all(|segment| segment.starts_with(plain))
}

/// What a segment does to the path before it.
enum Segment {
    Plain,
    /// `..`
    Up,
    /// `.`, nothing at all, or a `..` between encoded slashes, which the gate refuses long before.
    Void,
}

impl Segment {
    fn of(segment: &str) -> Self {
        if segment.is_empty() {
            return Self::Void;
        }
        if !segment.contains(['.', '%']) {
            return Self::Plain;
        }
        let decoded: Cow<'_, [u8]> = percent_decode_str(segment).into();
        match &*decoded {
            b"." => Self::Void,
            b".." => Self::Up,
            path if path.split(|byte| b"/\\".contains(byte)).any(climbs) => Self::Void,
            _ => Self::Plain,
        }
    }
}

/// `..`, also with parameters as in `..;x`.
fn climbs(segment: &[u8]) -> bool {
    segment == b".." || segment.starts_with(b"..;")
}

/// What Go encodes in a path, so that a rewrite looks the same as Goma's.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b'/')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

#[cfg(test)]
mod tests {
    use super::*;

    /// The path that the backend sees.
    fn sent(path: &str, rewrite: &str, base: &str, request: &str) -> String {
        let rewrite = Rewrite::new(path, rewrite).ok();
        let rewritten = rewrite.as_ref().and_then(|rewrite| rewrite.apply(request));
        let mut out = String::new();
        join(&mut out, base, rewritten.as_deref().unwrap_or(request));
        out
    }

    #[test]
    fn a_rewrite_replaces_the_path_of_the_route() {
        let rows = [
            ("/api", "/", "/api", "/"),
            ("/api", "/", "/api/", "/"),
            ("/api", "/", "/api/users/1", "/users/1"),
            ("/api", "/", "/api/users/1/", "/users/1/"),
            ("/api", "/", "/api//users", "/users"),
            ("/api", "/v2", "/api", "/v2"),
            ("/api", "/v2", "/api/", "/v2/"),
            ("/api", "/v2", "/api/users", "/v2/users"),
            ("/api", "/v2/", "/api", "/v2"),
            ("/api", "v2", "/api/users", "/v2/users"),
            ("/api", "//v2//x/", "/api/users", "/v2/x/users"),
            ("/api/", "/", "/api/users", "/users"),
            ("/api/", "/", "/api", "/api"),
            ("/api/", "/v2", "/api/", "/v2/"),
            ("/", "/", "/a//b/../c", "/a/c"),
            ("/", "/v1", "/a/b", "/v1/a/b"),
            ("/", "/v1", "/", "/v1/"),
            ("", "/v1", "/a", "/v1/a"),
            ("/", "", "/a//b/../c", "/a//b/../c"),
            ("/api", "/", "/api/a%20b", "/a%20b"),
            ("/api", "/", "/%61pi/x", "/x"),
            ("/a b", "/c d", "/a%20b/x", "/c%20d/x"),
            ("/api", "/100%", "/api/x", "/100%25/x"),
            ("/api", "/é?", "/api/x", "/%C3%A9%3F/x"),
            ("/users/{id}", "/", "/users/42/posts", "/users/42/posts"),
            ("api", "/", "/api/x", "/api/x"),
            ("/api", "/", "/other", "/other"),
            ("/api", "/", "/apiary", "/apiary"),
            ("/api", "/", "//api/x", "//api/x"),
            ("/api", "/", "/api/.hidden/x.y", "/.hidden/x.y"),
            ("/api", "/", "/api/./x/.", "/x"),
        ];
        for (path, rewrite, request, expected) in rows {
            let found = sent(path, rewrite, "", request);
            assert_eq!(found, expected, "{request} with {path} -> {rewrite}");
        }
    }

    #[test]
    fn an_encoded_slash_stays_in_its_segment() {
        let rows = [
            ("inside", "/api/a%2Fb", "/v/a%2Fb"),
            ("lower case", "/api/a%2fb/c", "/v/a%2fb/c"),
            ("a segment of its own", "/api/%2F/c", "/v/%2F/c"),
            ("at the end", "/api/a%2F", "/v/a%2F"),
            ("in the place of the separator", "/api%2Fx", "/v/x"),
            ("in its place, and nothing else", "/api%2F", "/v/"),
        ];
        for (what, request, expected) in rows {
            assert_eq!(sent("/api", "/v", "", request), expected, "{what}");
        }
    }

    #[test]
    fn no_request_leaves_the_base_of_a_rewrite() {
        let rows = [
            ("plain", "/api/../admin", "/base/admin"),
            ("encoded", "/api/%2e%2e/admin", "/base/admin"),
            ("half encoded", "/api/.%2E/admin", "/base/admin"),
            ("far up", "/api/x/../../../../admin", "/base/admin"),
            ("inside is fine", "/api/x/../y", "/base/y"),
            ("between encoded slashes", "/api/x%2F..%2F..%2Fadmin", "/base"),
            ("behind a backslash", "/api/x%5C..%5Cadmin", "/base"),
            ("with parameters", "/api/..;x/admin", "/base/admin"),
        ];
        for (what, request, expected) in rows {
            assert_eq!(sent("/api", "/base", "", request), expected, "{what}");
        }
        assert_eq!(sent("/api", "/a/../../b", "", "/api/x"), "/b/x", "nor does its own text");
    }

    #[test]
    fn a_rewrite_that_does_nothing_says_why() {
        let rows = [
            ("/api", "", NoRewrite::Unset),
            ("/users/{id}", "/", NoRewrite::Placeholder),
            ("/users/{id:[0-9]+}", "/", NoRewrite::Placeholder),
            ("api", "/", NoRewrite::NoLeadingSlash),
        ];
        for (path, rewrite, expected) in rows {
            assert_eq!(Rewrite::new(path, rewrite), Err(expected), "{path} -> {rewrite}");
        }
    }

    #[test]
    fn cutting_a_prefix_costs_no_allocation() {
        let rewrite = Rewrite::new("/api", "/").unwrap();
        assert!(matches!(rewrite.apply("/api/users/1/"), Some(Cow::Borrowed("/users/1/"))));
    }

    #[test]
    fn the_path_of_the_backend_comes_first() {
        let rows = [
            ("/base", "/users", "/base/users"),
            ("/base/", "/users", "/base/users"),
            ("/base", "/", "/base/"),
            ("/", "/users", "/users"),
            ("", "/users", "/users"),
            ("/base", "users", "/base/users"),
        ];
        for (base, path, expected) in rows {
            let mut out = String::new();
            join(&mut out, base, path);
            assert_eq!(out, expected, "{base} and {path}");
        }
        assert_eq!(sent("/api", "/", "/base", "/api/users"), "/base/users");
        assert_eq!(sent("/q", "", "/p", "/q/z"), "/p/q/z");
    }

    #[test]
    fn queries_are_joined_byte_for_byte() {
        let rows = [
            (Some("t=1"), Some("u=2"), "t=1&u=2"),
            (Some("t=1"), None, "t=1"),
            (Some("t=1"), Some(""), "t=1"),
            (None, Some("a;b=%zz&&"), "a;b=%zz&&"),
            (None, Some(""), ""),
        ];
        for (base, query, expected) in rows {
            let mut out = String::new();
            join_query(&mut out, base, query);
            assert_eq!(out, expected, "{base:?} and {query:?}");
        }
    }
}
