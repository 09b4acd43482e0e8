//! Why a request goes where it goes.
//!
//! Written without the tree, pattern by pattern in the order of the table: slower, but nothing is left out, and a
//! test can hold the two against each other.

use std::fmt;

use crate::gate::CanonicalPath;

use super::Methods;
use super::host::Asked;
use super::table::{Entry, Table};

/// One pattern that was looked at, and what became of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Considered<'a, T> {
    /// What the pattern routes to.
    pub value: &'a T,
    /// Index of the pattern, counted as they were added.
    pub index: usize,
    /// Its path, as written.
    pub path: &'a str,
    /// The host of it that matches the request, else `None`; `*` for any.
    pub host: Option<String>,
    /// Did it take the request, and if not, why?
    pub outcome: Outcome,
}

/// What became of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It takes the request.
    Taken,
    /// It is bound to other methods.
    Method,
    /// Its path matches, none of its hosts does.
    Host,
    /// Its path does not match.
    Path,
    /// It matches with slashes merged or kept encoded, but the path as decoded matches no pattern at all.
    OtherForm,
    /// It matches, and another one comes before it.
    Outranked(Rank),
}

/// What decided between two patterns that both match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// The other one has a smaller priority number.
    Priority,
    /// The other one has a more specific path.
    Specificity,
    /// The other one has a more specific host.
    Host,
    /// The other one names the method.
    Method,
    /// The other one comes first.
    Order,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Taken => "takes the request",
            Self::Method => "is for other methods",
            Self::Host => "is for other hosts",
            Self::Path => "is for other paths",
            Self::OtherForm => "matches only when the path is read in another way",
            Self::Outranked(Rank::Priority) => "comes later by priority",
            Self::Outranked(Rank::Specificity) => "has a less specific path",
            Self::Outranked(Rank::Host) => "has a less specific host",
            Self::Outranked(Rank::Method) => "takes any method, another one names this method",
            Self::Outranked(Rank::Order) => "is declared later",
        })
    }
}

impl<T> Table<T> {
    /// Every pattern whose path matches in some reading, or that names the request's host, or whose path begins almost
    /// alike, in the order of the table, each with the reason why it takes the request or does not.
    ///
    /// Costs a pass over all patterns: for people who ask, not for requests.
    pub fn explain(&self, path: &CanonicalPath<'_>, host: &str, method: &str) -> Vec<Considered<'_, T>> {
        let asked = Asked::new(host);
        let matched: Vec<Matched<'_, T>> =
            self.entries.iter().map(|entry| Matched::new(entry, path, &asked, method)).collect();
        let some_decoded = matched.iter().any(|m| m.decoded && m.matches());
        let winner = matched.iter().filter(|m| some_decoded && m.matches()).min_by_key(|m| m.place());
        let mut considered: Vec<(u32, Considered<'_, T>)> = matched
            .iter()
            .enumerate()
            .filter(|(_, m)| m.is_of_interest(path))
            .map(|(index, m)| (m.place(), m.considered(index, winner)))
            .collect();
        considered.sort_by_key(|(place, _)| *place);
        considered.into_iter().map(|(_, one)| one).collect()
    }
}

/// How far one pattern agrees with the request.
struct Matched<'a, T> {
    entry: &'a Entry<T>,
    decoded: bool,
    other_form: bool,
    /// The first of its hosts, by place, that matches.
    host: Option<usize>,
    method: bool,
}

impl<'a, T> Matched<'a, T> {
    fn new(entry: &'a Entry<T>, path: &CanonicalPath<'_>, asked: &Asked<'_>, method: &str) -> Self {
        let hosts = entry.hosts.iter().enumerate();
        Self {
            entry,
            decoded: entry.covers(path.decoded()),
            other_form: path.others().any(|form| entry.covers(form)),
            host: hosts
                .filter(|(_, host)| host.accepts(asked))
                .map(|(index, _)| index)
                .min_by_key(|index| entry.places[*index]),
            method: entry.methods.accept(method),
        }
    }

    fn path(&self) -> bool {
        self.decoded || self.other_form
    }

    fn matches(&self) -> bool {
        self.path() && self.host.is_some() && self.method
    }

    fn place(&self) -> u32 {
        let places = &self.entry.places;
        match self.host {
            Some(host) => places[host],
            None => places.iter().copied().min().unwrap_or(u32::MAX),
        }
    }

    fn is_of_interest(&self, path: &CanonicalPath<'_>) -> bool {
        let host = self.host.map(|host| self.entry.hosts[host].kind);
        self.path()
            || host.is_some_and(|kind| kind != super::host::Kind::Any)
            || (host.is_some() && begin_alike(&self.entry.text, path.decoded()))
    }

    fn considered(&self, index: usize, winner: Option<&Matched<'_, T>>) -> Considered<'a, T> {
        let host = self.host.map(|host| self.entry.hosts[host].to_string());
        Considered { value: &self.entry.value, index, path: &self.entry.text, host, outcome: self.outcome(winner) }
    }

    fn outcome(&self, winner: Option<&Matched<'_, T>>) -> Outcome {
        match (self.path(), self.host, self.method, winner) {
            (false, ..) => Outcome::Path,
            (_, None, ..) => Outcome::Host,
            (_, _, false, _) => Outcome::Method,
            (.., None) => Outcome::OtherForm,
            (_, Some(host), _, Some(winner)) => match std::ptr::eq(self.entry, winner.entry) {
                true => Outcome::Taken,
                false => Outcome::Outranked(self.behind(host, winner)),
            },
        }
    }

    /// What puts this pattern behind the one that won.
    fn behind(&self, host: usize, winner: &Matched<'_, T>) -> Rank {
        let (own, other) = (self.entry, winner.entry);
        let winner_host = winner.host.unwrap_or_default();
        if own.priority != other.priority {
            Rank::Priority
        } else if own.specificity != other.specificity {
            Rank::Specificity
        } else if own.hosts[host].rank() != other.hosts[winner_host].rank() {
            Rank::Host
        } else if (own.methods == Methods::Any) != (other.methods == Methods::Any) {
            Rank::Method
        } else {
            Rank::Order
        }
    }
}

/// Near misses: `/apiary` and `/API` for a pattern `/api`.
fn begin_alike(pattern: &str, path: &str) -> bool {
    let first = |path: &str| {
        let path = path.trim_start_matches('/');
        path.split('/').next().unwrap_or("").to_lowercase()
    };
    let (pattern, path) = (first(pattern), first(path));
    !pattern.is_empty() && !path.is_empty() && (pattern.starts_with(&path) || path.starts_with(&pattern))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::gate;
    use crate::route::{Builder, Find, Pattern, Span};

    fn pattern(path: &str, hosts: &[&str], priority: i64) -> Pattern {
        Pattern {
            path: path.to_owned(),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            priority,
            methods: Methods::Any,
            span: Span::Prefix,
        }
    }

    fn table(patterns: Vec<Pattern>) -> Table<usize> {
        let mut builder = Builder::new(true);
        for (index, pattern) in patterns.into_iter().enumerate() {
            builder.add(pattern, index).unwrap();
        }
        builder.build().0
    }

    fn explained(table: &Table<usize>, host: &str, path: &str) -> Vec<(usize, Outcome)> {
        let path = gate::path(path).unwrap();
        let considered = table.explain(&path, host, "GET");
        considered.iter().map(|one| (one.index, one.outcome)).collect()
    }

    #[test]
    fn each_near_pattern_is_told_with_its_reason() {
        let table = table(vec![
            pattern("/", &[], 0),
            pattern("/api", &["a"], 0),
            pattern("/api/v1", &["b"], 0),
            pattern("/apiary", &[], 0),
            pattern("/api", &["*"], 0),
            pattern("/api", &[], 0),
            pattern("/api/x", &[], 9),
            pattern("/other", &["a"], 0),
            pattern("/unrelated", &[], 0),
            Pattern { methods: Methods::Only(vec!["POST"]), ..pattern("/api/x", &[], -1) },
        ]);
        assert_eq!(
            explained(&table, "a", "/api/x"),
            [
                (9, Outcome::Method),
                (1, Outcome::Taken),
                (7, Outcome::Path),
                (3, Outcome::Path),
                (4, Outcome::Outranked(Rank::Host)),
                (5, Outcome::Outranked(Rank::Host)),
                (0, Outcome::Outranked(Rank::Specificity)),
                (6, Outcome::Outranked(Rank::Priority)),
            ]
        );
        let elsewhere = explained(&table, "c", "/api/v1");
        assert!(elsewhere.contains(&(2, Outcome::Host)), "{elsewhere:?}");
        assert!(elsewhere.contains(&(5, Outcome::Outranked(Rank::Order))));
        assert!(!elsewhere.iter().any(|(index, _)| *index == 8), "unrelated");
    }

    #[test]
    fn a_match_of_another_reading_alone_is_told() {
        let table = table(vec![pattern("/api", &[], 0)]);
        assert_eq!(explained(&table, "a", "//api/x"), [(0, Outcome::OtherForm)]);
    }

    fn a_path() -> impl Strategy<Value = String> {
        let segment = prop_oneof![
            4 => Just("a"), 3 => Just("b"), 2 => Just("{x}"), 1 => Just("{x:a|c}"), 1 => Just("{y:[ab]}"), 1 => Just("a%2Fb"),
        ];
        vec(segment, 0..4).prop_map(|segments| format!("/{}", segments.join("/")))
    }

    fn a_host() -> impl Strategy<Value = String> {
        let hosts = ["*", "h.e", "h.e:1", "g.h.e", "{s}.e", "{s}.h.e:1", "*.e", "*.h.e", "*.e:1", "*:1"];
        proptest::sample::select(hosts.to_vec()).prop_map(str::to_owned)
    }

    fn a_pattern() -> impl Strategy<Value = Pattern> {
        let methods = prop_oneof![
            4 => Just(Methods::Any),
            1 => Just(Methods::Only(vec!["GET"])),
            1 => Just(Methods::Only(vec!["POST"])),
        ];
        let span = prop_oneof![4 => Just(Span::Prefix), 1 => Just(Span::Exact)];
        (a_path(), vec(a_host(), 0..3), -1..2_i64, methods, span)
            .prop_map(|(path, hosts, priority, methods, span)| Pattern { path, hosts, priority, methods, span })
    }

    fn a_request() -> impl Strategy<Value = (String, &'static str, &'static str)> {
        let segments = vec(prop_oneof!["a", "b", "c", "", "a%2Fb", "%2F", "[.]", "%61"], 0..5);
        let hosts = ["h.e", "H.e:1", "g.h.e", "g.h.e:1", "f.g.h.e", "x.e", "e", "other", ""];
        let path = segments.prop_map(|segments| format!("/{}", segments.join("/")));
        (path, proptest::sample::select(hosts.to_vec()), proptest::sample::select(vec!["GET", "HEAD", "POST", "PUT"]))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        #[test]
        fn the_tree_finds_what_a_look_at_every_pattern_finds(
            patterns in vec(a_pattern(), 0..12),
            requests in vec(a_request(), 1..20),
        ) {
            let table = table(patterns);
            for (path, host, method) in requests {
                let path = gate::path(&path).unwrap();
                let considered = table.explain(&path, host, method);
                let mut taken = considered.iter().filter(|one| one.outcome == Outcome::Taken);
                let taken = taken.next().map(|one| one.value);
                match table.find(&path, host, method) {
                    Find::Found(value) => prop_assert_eq!(Some(value), taken),
                    Find::MethodNotAllowed { .. } => {
                        prop_assert!(considered.iter().any(|one| one.outcome == Outcome::Method));
                        prop_assert_eq!(taken, None);
                    }
                    Find::Redirect { .. } | Find::Nothing => prop_assert_eq!(taken, None),
                }
            }
        }
    }
}
