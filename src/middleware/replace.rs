//! An expression with what replaces its matches, both as Go writes them, compiled once.
//!
//! In the replacement `$1`, `${1}` and `${name}` stand for what a group matched; a name is as long as it can be, so `$1x` is
//! the group `1x`, and a group that is not there is empty. `$$` is a dollar sign.

use std::borrow::Cow;
use std::ops::Range;

use http::HeaderName;
use regex::Regex;

use super::goregex;
use super::quick::{Quick, Seen};
use super::reading::Reading;
use crate::config::{Place, Problem};

/// A part of a replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Stands for itself.
    Text(String),
    /// What a group matched.
    Group(usize),
    /// Nothing: the group is not there. Its name, for the operator.
    Nothing(String),
    /// The value of a request header.
    Header(HeaderName),
    /// The value of a query parameter.
    Parameter(String),
}

/// A compiled expression with its replacement.
#[derive(Debug)]
pub struct Replace {
    pattern: Regex,
    quick: Option<Quick>,
    pieces: Vec<Piece>,
}

/// The result would be longer than any request target may be.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLong;

impl Replace {
    /// Compiles both; `place` is the `rule` with the keys `pattern` and `replacement`.
    ///
    /// # Errors
    /// An expression that Go would refuse.
    pub fn new(pattern: &str, replacement: &str, place: &Place) -> Result<Replace, Problem> {
        let pattern = compile(pattern, &place.child("pattern"))?;
        let pieces = pieces(replacement, &pattern);
        Ok(Replace { quick: Quick::of(pattern.as_str()), pattern, pieces })
    }

    /// The replacement.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The same with other pieces.
    pub fn with(self, pieces: Vec<Piece>) -> Replace {
        Replace { pieces, ..self }
    }

    /// Replaces every match; `None` without one. `value` gives what the request says, already encoded.
    ///
    /// # Errors
    /// When the result becomes too long.
    pub fn apply<'v>(
        &self,
        subject: &Reading<'_>,
        value: impl Fn(&Piece) -> Cow<'v, str>,
    ) -> Option<Result<String, TooLong>> {
        let text = subject.text();
        let seen = self.quick.as_ref().map_or(Seen::Unclear, |quick| quick.look(text));
        // Most requests match nothing, and this search needs no room for groups.
        if seen == Seen::No || seen == Seen::Unclear && !self.pattern.is_match(text) {
            return None;
        }
        let out = String::with_capacity(text.len() + 64);
        let mut out = Writer { pieces: &self.pieces, subject, value: &value, out, done: 0 };
        if let Seen::Whole(group) = seen {
            let group = |number| if number == 0 { Some(0..text.len()) } else { group.clone() };
            return Some(out.replace(0..text.len(), group).map(|()| out.end()));
        }
        for found in self.pattern.captures_iter(text) {
            let group = |number| found.get(number).map(|group| group.range());
            let Some(whole) = group(0) else { continue };
            if let Err(error) = out.replace(whole, group) {
                return Some(Err(error));
            }
        }
        Some(Ok(out.end()))
    }

    /// Whether no path that begins with these raw bytes can match, however it goes on.
    pub fn rules_out(&self, beginning: &str) -> bool {
        !beginning.contains('%') && self.quick.as_ref().is_some_and(|quick| quick.rules_out(beginning))
    }
}

/// Writes a subject with something in place of the matches.
struct Writer<'a, F> {
    pieces: &'a [Piece],
    subject: &'a Reading<'a>,
    value: &'a F,
    out: String,
    /// Bytes of the subject's text that are done.
    done: usize,
}

impl<'v, F: Fn(&Piece) -> Cow<'v, str>> Writer<'_, F> {
    fn replace(&mut self, whole: Range<usize>, group: impl Fn(usize) -> Option<Range<usize>>) -> Result<(), TooLong> {
        self.out.push_str(self.subject.raw(self.done..whole.start));
        self.done = whole.end;
        for piece in self.pieces {
            match piece {
                Piece::Text(text) => self.out.push_str(text),
                Piece::Group(number) => {
                    if let Some(group) = group(*number) {
                        self.out.push_str(self.subject.raw(group));
                    }
                }
                Piece::Nothing(_) => {}
                Piece::Header(_) | Piece::Parameter(_) => self.out.push_str(&(self.value)(piece)),
            }
            if self.out.len() > LONGEST {
                return Err(TooLong);
            }
        }
        Ok(())
    }

    fn end(mut self) -> String {
        self.out.push_str(self.subject.raw(self.done..self.subject.text().len()));
        self.out
    }
}

/// Bytes of the longest result: four times the longest request target.
const LONGEST: usize = 64 << 10;

/// Compiles an expression of a setting.
///
/// # Errors
/// One that Go would refuse.
pub fn compile(pattern: &str, place: &Place) -> Result<Regex, Problem> {
    goregex::compile(pattern).map_err(|error| {
        place.error(format!("`{pattern}` is no regular expression: {error}"), "write it in Go's syntax (RE2)")
    })
}

/// Warnings about groups that the expression does not have.
pub fn doubts(pattern: &str, replacement: &str, place: &Place) -> Vec<Problem> {
    let Ok(pattern) = goregex::compile(pattern) else { return Vec::new() };
    let doubt = |piece: Piece| match piece {
        Piece::Nothing(name) => {
            let message = format!("names the group `{name}`, which `pattern` does not have: it stands for nothing");
            let digits = name.len() - name.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let remedy = match name.split_at(digits) {
                ("", _) | (_, "") => "name one that is there".to_owned(),
                (number, rest) => format!("write `${{{number}}}{rest}` if the group {number} is meant"),
            };
            Some(place.child("replacement").warning(message, remedy))
        }
        _ => None,
    };
    pieces(replacement, &pattern).into_iter().filter_map(doubt).collect()
}

/// Splits a replacement as Go does.
fn pieces(replacement: &str, pattern: &Regex) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = replacement;
    while let Some((before, after)) = rest.split_once('$') {
        text.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            text.push('$');
            rest = after;
        } else if let Some((name, after)) = name(after) {
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut text)));
            }
            pieces.push(group(name, pattern));
            rest = after;
        } else {
            // No name: the dollar sign stands for itself.
            text.push('$');
            rest = after;
        }
    }
    text.push_str(rest);
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    pieces
}

/// The name behind a dollar sign, and what follows it.
fn name(text: &str) -> Option<(&str, &str)> {
    let braced = text.strip_prefix('{');
    let inner = braced.unwrap_or(text);
    let end = inner.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(inner.len());
    let (name, after) = inner.split_at(end);
    let after = if braced.is_some() { after.strip_prefix('}')? } else { after };
    (!name.is_empty()).then_some((name, after))
}

fn group(name: &str, pattern: &Regex) -> Piece {
    let number = if name.starts_with('0') && name.len() > 1 { None } else { name.parse::<usize>().ok() };
    let place = match number {
        Some(number) => (number < pattern.captures_len()).then_some(number),
        None => pattern.capture_names().position(|known| known == Some(name)),
    };
    place.map_or_else(|| Piece::Nothing(name.to_owned()), Piece::Group)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(pattern: &str, replacement: &str, path: &str) -> Option<Result<String, TooLong>> {
        let replace = Replace::new(pattern, replacement, &Place::default()).expect(pattern);
        replace.apply(&Reading::path(path), |_| Cow::Borrowed(""))
    }

    #[test]
    fn replacements_mean_what_they_mean_in_go() {
        for (pattern, replacement, path, expected) in [
            ("^/old/(.*)$", "/new/$1", "/old/x", Some("/new/x")),
            ("^/old/(.*)$", "/new/$1", "/other", None),
            ("/u/(\\d+)", "/user-${1}x", "/u/7", Some("/user-7x")),
            ("/u/(\\d+)", "/user-$1x", "/u/7", Some("/user-")),
            ("/u/(?P<id>\\d+)", "/user/${id}", "/u/7/u/8", Some("/user/7/user/8")),
            ("/u/(?P<id>\\d+)", "/user/$id/e", "/u/7", Some("/user/7/e")),
            ("a", "$$1", "/a", Some("/$1")),
            ("a", "$/${/$-", "/a", Some("/$/${/$-")),
            ("(a)(b)?", "[$2$0$1]", "/a", Some("/[aa]")),
            ("(a)", "$01", "/a", Some("/")),
            ("a*", "x", "/baac", Some("x/xbxcx")),
            (".*", "/y", "/abc", Some("/y")),
        ] {
            let found = replaced(pattern, replacement, path);
            assert_eq!(found, expected.map(|text| Ok(text.to_owned())), "{pattern} by {replacement} in {path}");
        }
    }

    #[test]
    fn what_a_group_matched_keeps_its_encoding() {
        for (path, expected) in [
            ("/old/a%2Fb", "/new/a%2Fb"),
            ("/%6fld/%C3%A9%20x", "/new/%C3%A9%20x"),
            ("/old/%ff", "/new/%ff"),
            ("/old/%252e", "/new/%252e"),
        ] {
            assert_eq!(replaced("^/old/(.+)$", "/new/$1", path), Some(Ok(expected.to_owned())), "{path}");
        }
    }

    #[test]
    fn a_result_has_a_bound() {
        let path = format!("/{}", "a".repeat(16_000));
        assert_eq!(replaced("a", &"x".repeat(100), &path), Some(Err(TooLong)));
    }

    #[test]
    fn a_group_that_is_not_there_is_told() {
        for (replacement, remedy) in [("/$1x/y", "${1}x"), ("/$2", "name one"), ("/$name", "name one")] {
            let doubts = doubts("^/(a)", replacement, &Place::default());
            assert!(doubts.len() == 1 && doubts[0].remedy.contains(remedy), "{replacement}: {doubts:?}");
        }
        assert!(doubts("^/(a)", "/$1", &Place::default()).is_empty());
    }
}
