//! The route table: path, host and method in, a value out.
//!
//! A [`Table`] knows nothing of what it routes to. It is built once from [`Pattern`]s and never changes; looking up
//! allocates nothing and costs the same with ten thousand routes as with one.
//!
//! Several patterns may match a request. The first in this order takes it:
//!
//! 1. priority, the smallest number first;
//! 2. the more specific path, segment by segment from the left: literal, then placeholder, then end of the pattern;
//! 3. the more specific host: named with port, named, `{sub}.`, `*.`, any;
//! 4. patterns for certain methods before those for any;
//! 5. the order in which they were added.
//!
//! Since all of it is known beforehand, every pair of pattern and host gets its place in that order when the table is
//! built, and a look-up is a search for the smallest place that matches: a tree over path segments, a hash table of
//! hosts at its nodes, and at each node the smallest place below it, which tells when to stop.
//!
//! A path may have more than one reading ([`crate::gate::CanonicalPath`]). The decoded one must match some pattern,
//! else nothing does; among the patterns that any reading matches, the order above decides. So `//admin/x` goes to
//! `/admin` when the other choice is `/`, and `//api/x` goes nowhere when there is only `/api`.

mod explain;
mod hash;
mod host;
mod path;
pub mod rewrite;
mod table;
mod tree;

use std::fmt;

pub use explain::{Considered, Outcome, Rank};
pub use table::{Builder, Table};

/// What a request must look like, as the operator wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// Segments of the percent-decoded path, case-sensitive. `{name}` stands for one non-empty segment, `{name:regex}`
    /// for one that the expression matches in full, `*` for itself. A missing slash at the start is added, slashes at
    /// the end do not count; empty is `/`.
    pub path: String,
    /// `name`, `name:port`, `{sub}.name` (one label), `*.name` or `{sub...}.name` (one or more), `*`; none is any host.
    /// Case and one trailing dot do not count.
    pub hosts: Vec<String>,
    /// The smallest wins, before anything else is looked at.
    pub priority: i64,
    /// The methods that reach it.
    pub methods: Methods,
    /// Does it cover what is below its path?
    pub span: Span,
}

/// The methods of a [`Pattern`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Methods {
    /// Every method.
    Any,
    /// These alone; `GET` implies `HEAD`.
    Only(Vec<&'static str>),
}

impl Methods {
    /// Does a request with this method (case-sensitive) reach the pattern?
    pub fn accept(&self, method: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(methods) => {
                let asked = |wanted| methods.contains(&wanted);
                asked(method) || (method == "HEAD" && asked("GET"))
            }
        }
    }

    /// The value of an `Allow` field; empty for [`Methods::Any`].
    fn allow(&self) -> String {
        let Self::Only(methods) = self else {
            return String::new();
        };
        let mut allow: Vec<&str> = Vec::new();
        for method in methods {
            allow.push(method);
            if *method == "GET" {
                allow.push("HEAD");
            }
        }
        let mut seen = Vec::new();
        allow.retain(|method| {
            let first = !seen.contains(method);
            seen.push(*method);
            first
        });
        allow.join(", ")
    }
}

/// How far down a [`Pattern`] reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// Its path and everything below.
    Prefix,
    /// Its path alone, without a slash at the end.
    Exact,
}

/// What [`Table::find`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Find<'a, T> {
    /// The value of the pattern that takes the request.
    Found(&'a T),
    /// Path and host match, but only patterns for other methods: 405 with this `Allow`.
    MethodNotAllowed {
        /// The value of the `Allow` field.
        allow: &'a str,
    },
    /// Nothing matches, but without its last slash the path would: 301 to this path, query kept.
    Redirect {
        /// The path as it was sent, percent-encoding included, without the last slash.
        path: String,
    },
    /// No pattern matches: 404.
    Nothing,
}

/// Two patterns with the same path and host: the second never answers there, and keeps its other hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// The pattern that answers, counted as they were added.
    pub first: usize,
    /// The pattern that does not.
    pub second: usize,
    /// The host pattern both have; `*` for any.
    pub host: String,
}

/// Why a [`Pattern`] is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternError {
    /// The part that is wrong.
    pub part: Part,
    /// What is wrong with it.
    pub problem: String,
    /// What to write instead.
    pub remedy: &'static str,
}

/// A part of a [`Pattern`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// [`Pattern::path`].
    Path,
    /// The entry of [`Pattern::hosts`] with this index.
    Host(usize),
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            Part::Path => write!(f, "path: {}; {}", self.problem, self.remedy),
            Part::Host(index) => write!(f, "hosts[{index}]: {}; {}", self.problem, self.remedy),
        }
    }
}

impl std::error::Error for PatternError {}
