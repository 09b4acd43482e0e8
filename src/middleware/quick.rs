//! What can be said of an expression without running it.
//!
//! Most expressions of gateways look like `^/old/(.*)$` or `^/users/([^/]+)`: a fixed beginning, and one run of characters
//! behind it. A comparison of the beginning tells whether such an expression matches; no engine has to be asked, which costs
//! ten times that. What it says is what the engine would have said.

use std::ops::Range;

use regex_syntax::hir::{Class, ClassUnicode, Hir, HirKind, Look};

/// An expression that matches at the beginning of a text only, and what it begins with.
#[derive(Debug, PartialEq, Eq)]
pub struct Quick {
    /// What each text begins with that it matches.
    starts: Box<str>,
    /// The rest of the expression, if it is one run of characters.
    run: Option<Run>,
}

/// A run of characters up to the end of a text.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    /// Characters that are not in it, all of them ASCII.
    without: Box<[u8]>,
    /// Whether it holds one character at least.
    filled: bool,
    /// Whether it is a group.
    is_group: bool,
    /// Whether the expression asks for the end of the text behind it.
    to_end: bool,
}

/// What is known of an expression and a text.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// It does not match.
    No,
    /// It matches the whole text, once; its only group, if it has one, is here.
    Whole(Option<Range<usize>>),
    /// The engine has to tell.
    Unclear,
}

impl Quick {
    /// What is known of an expression in the words of the `regex` crate; `None` when that is nothing.
    pub fn of(pattern: &str) -> Option<Quick> {
        let expression = regex_syntax::parse(pattern).ok()?;
        let HirKind::Concat(parts) = expression.kind() else { return None };
        let (HirKind::Look(Look::Start), rest) = parts.split_first().map(|(first, rest)| (first.kind(), rest))? else {
            return None;
        };
        let (starts, rest) = match rest.split_first().map(|(first, rest)| (first.kind(), rest)) {
            Some((HirKind::Literal(text), rest)) => (std::str::from_utf8(&text.0).ok()?, rest),
            _ => ("", rest),
        };
        let run = match rest {
            [run] => Run::of(run, false),
            [run, end] if *end.kind() == HirKind::Look(Look::End) => Run::of(run, true),
            _ => None,
        };
        (!starts.is_empty() || run.is_some()).then(|| Quick { starts: starts.into(), run })
    }

    /// Whether the expression matches.
    pub fn look(&self, text: &str) -> Seen {
        let Some(rest) = text.strip_prefix(&*self.starts) else { return Seen::No };
        let Some(run) = &self.run else { return Seen::Unclear };
        let is_run = !rest.bytes().any(|byte| run.without.contains(&byte));
        match is_run && !(run.filled && rest.is_empty()) {
            true => Seen::Whole(run.is_group.then_some(self.starts.len()..text.len())),
            false if run.to_end => Seen::No,
            false => Seen::Unclear,
        }
    }

    /// Whether no text that begins like this can match.
    pub fn rules_out(&self, beginning: &str) -> bool {
        beginning.bytes().zip(self.starts.bytes()).any(|(one, other)| one != other)
    }
}

impl Run {
    fn of(part: &Hir, to_end: bool) -> Option<Run> {
        let (run, is_group) = match part.kind() {
            HirKind::Capture(group) => (&*group.sub, true),
            _ => (part, false),
        };
        let HirKind::Repetition(repetition) = run.kind() else { return None };
        let HirKind::Class(Class::Unicode(class)) = repetition.sub.kind() else { return None };
        // A lazy run ends as early as it may, but has to go to the end if something asks for that.
        let is_plain = repetition.max.is_none() && repetition.min <= 1 && (repetition.greedy || to_end);
        let without = without(class)?;
        is_plain.then_some(Run { without, filled: repetition.min == 1, is_group, to_end })
    }
}

/// What is not in a class, if that is little and ASCII.
fn without(class: &ClassUnicode) -> Option<Box<[u8]>> {
    let mut others = class.clone();
    others.negate();
    let mut without = Vec::new();
    for range in others.ranges() {
        let range = u8::try_from(range.start()).ok()?..=u8::try_from(range.end()).ok()?;
        without.extend(range);
    }
    (without.len() <= MOST && without.is_ascii()).then(|| without.into())
}

/// Most characters that a run may be without.
const MOST: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    #[test]
    fn a_beginning_and_a_run_are_seen() {
        let quick = |pattern: &str| Quick::of(pattern);
        for pattern in ["/old/(.*)$", "old", "(?i)^old", "^(a|b)c", "", "^", "$", "(", "^.{3}$", "(?m)^/a(.*)$"] {
            assert_eq!(quick(pattern), None, "{pattern}");
        }
        for (pattern, text, seen) in [
            ("^/old/(.*)$", "/old/a/b", Seen::Whole(Some(5..8))),
            ("^/old/(.*)$", "/old/", Seen::Whole(Some(5..5))),
            ("^/old/(.*)$", "/other", Seen::No),
            ("^/old/(.*)$", "/old/a\nb", Seen::No),
            ("^/old/(.*?)$", "/old/a", Seen::Whole(Some(5..6))),
            ("^/old/(.*?)", "/old/a", Seen::Unclear),
            ("^/old/.*", "/old/a", Seen::Whole(None)),
            ("^/old/.+$", "/old/", Seen::No),
            ("^/u/([^/]+)", "/u/7", Seen::Whole(Some(3..4))),
            ("^/u/([^/]+)", "/u/7/x", Seen::Unclear),
            ("^/u/([^/]+)$", "/u/7/x", Seen::No),
            ("^/u/([^/]+)$", "/u/é", Seen::Whole(Some(3..5))),
            ("^(.*)$", "/a", Seen::Whole(Some(0..2))),
            ("^/a/(x)(.*)$", "/a/xy", Seen::Unclear),
            ("^/a(b)?", "/x", Seen::No),
        ] {
            assert_eq!(quick(pattern).map(|quick| quick.look(text)), Some(seen), "{pattern} on {text}");
        }
    }

    #[test]
    fn a_beginning_rules_out_what_begins_otherwise() {
        let quick = Quick::of("^/old/(.*)$").expect("a beginning");
        for (beginning, out) in [("/old/x", false), ("/old", false), ("/", false), ("/oLd/", true), ("/new", true)] {
            assert_eq!(quick.rules_out(beginning), out, "{beginning}");
        }
    }

    proptest! {
        #[test]
        fn it_says_what_the_engine_says(
            starts in prop::sample::select(vec!["", "/", "/a", "/a/", "/é", r"/a\.b"]),
            run in prop::sample::select(vec!["", ".*", "(.*)", "(.+)", ".+", "([^/]*)", "[^/]+", "(?s:(.*))", "(.*?)", "([^a]+?)", "(a)", "(b*)"]),
            end in prop::sample::select(vec!["", "$", "/"]),
            text in "/?[ab./é\n]{0,6}",
        ) {
            let pattern = format!("^{starts}{run}{end}");
            let expression = Regex::new(&pattern).expect("an expression");
            let found: Vec<_> = expression.captures_iter(&text).collect();
            match Quick::of(&pattern).map_or(Seen::Unclear, |quick| quick.look(&text)) {
                Seen::No => prop_assert!(found.is_empty(), "{pattern:?} on {text:?}"),
                Seen::Whole(group) => {
                    prop_assert_eq!(found.len(), 1, "{:?} on {:?}", pattern, text);
                    prop_assert_eq!(found[0].get(0).map(|whole| whole.range()), Some(0..text.len()));
                    prop_assert_eq!(found[0].get(1).map(|part| part.range()), group);
                }
                Seen::Unclear => {}
            }
        }
    }
}
