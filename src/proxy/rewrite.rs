//! The path towards the backend: a route's `rewrite`, and joining with the target's own path and query.
//!
//! `path: /api`, `rewrite: /v2` turns `/api/users/1` into `/v2/users/1`. The rest is taken over segment by segment in
//! the encoding that the client chose, so `%2F` stays inside its segment; empty and `.` segments go, and `..` never
//! climbs above what `rewrite` says. Goma works on the decoded path instead, where an encoded slash becomes a real one
//! and `..` escapes.

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
            Self::Unset => "no rewrite is set",
            Self::Placeholder => "a path with {placeholders} is not rewritten",
            Self::NoLeadingSlash => "a path without a leading slash is not rewritten",
        })
    }
}

impl std::error::Error for NoRewrite {}

impl Rewrite {
    /// Compiles the `path` and the `rewrite` of a route, both as the operator wrote them.
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
        let mut base = String::new();
        for segment in clean(rewrite) {
            base.push('/');
            base.extend(utf8_percent_encode(segment, ENCODED));
        }
        Ok(Self {
            prefix: path.into(),
            base: base.into(),
        })
    }

    /// The new path for a request path, both percent-encoded and without query.
    ///
    /// `None` when the decoded path does not start with the route's path text: then nothing changes. Borrows when the
    /// new path is a piece of the old one.
    pub fn apply<'a>(&self, raw: &'a str) -> Option<Cow<'a, str>> {
        let rest = self.cut(raw)?;
        // The slash after the prefix may be encoded; it separates all the same.
        let inner = match rest.get(..3) {
            Some("%2F" | "%2f") if !self.prefix.ends_with('/') => &rest[3..],
            _ => rest,
        };
        let ends_with_slash = raw.ends_with('/') || (inner.is_empty() && !rest.is_empty());
        if self.base.is_empty() && rest.starts_with('/') && !clean(rest).any(|_| false) && is_clean(rest) {
            return Some(Cow::Borrowed(rest));
        }
        let mut path = String::with_capacity(self.base.len() + inner.len() + 2);
        path.push_str(&self.base);
        for segment in clean(inner) {
            path.push('/');
            path.push_str(segment);
        }
        if path.is_empty() || (ends_with_slash && !path.ends_with('/')) {
            path.push('/');
        }
        Some(Cow::Owned(path))
    }
}
