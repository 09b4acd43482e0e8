//! Which backends may get a request, and why the others may not. Spec core §5.5.

use crate::config::{Backend as Written, Match as Rule};
use crate::proxy::arrive::Facts;
use crate::telemetry::redact;
use crate::upstream::{Algorithm, HashKey, Leads, Match, Upstream};

/// Why a backend gets a request or not.
pub struct Verdict {
    /// Position in the configuration.
    pub index: usize,
    /// Share of such requests in percent; `None` when it gets none.
    pub share: Option<f64>,
    /// One sentence.
    pub reason: String,
}

/// Every backend of a route, with every one of them up. `written` is empty for a route with a `target`.
pub fn verdicts(upstream: &Upstream, written: &[Written], facts: &Facts<'_>) -> Vec<Verdict> {
    let candidates = upstream.candidates(facts);
    let leads = upstream.leads(facts);
    let choice = Choice { upstream, written, facts, candidates: &candidates, leads };
    (0..upstream.backends().len()).map(|index| choice.verdict(index)).collect()
}

struct Choice<'a> {
    upstream: &'a Upstream,
    written: &'a [Written],
    facts: &'a Facts<'a>,
    candidates: &'a [usize],
    /// What leads the request to one of them.
    leads: Option<(usize, Leads)>,
}

impl Choice<'_> {
    fn verdict(&self, index: usize) -> Verdict {
        let taken = self.candidates.contains(&index);
        Verdict {
            index,
            share: taken.then(|| self.share(index)),
            reason: if taken { self.why(index) } else { self.why_not(index) },
        }
    }

    fn share(&self, index: usize) -> f64 {
        let sum = self.weights();
        let (part, whole) = match sum {
            0 => (1, self.candidates.len() as u64),
            sum => (self.weight(index), sum),
        };
        // One digit behind the point is all that anybody wants to see.
        (part as f64 * 1000.0 / whole.max(1) as f64).round() / 10.0
    }

    fn weight(&self, index: usize) -> u64 {
        u64::from(self.upstream.backends()[index].weight())
    }

    fn weights(&self) -> u64 {
        self.candidates.iter().map(|index| self.weight(*index)).sum()
    }

    fn why(&self, index: usize) -> String {
        let Some(backend) = self.written.get(index).filter(|_| self.written.len() > 1) else {
            return "the only backend".to_owned();
        };
        match self.leads {
            Some((_, Leads::Cookie)) => return "its cookie names it, as long as it is up".to_owned(),
            Some((_, Leads::Hash)) => return format!("the hash of {} leads to it, as long as it is up", self.hashed()),
            None => {}
        }
        let part = match (self.candidates.len(), self.weights()) {
            (1, _) => String::new(),
            (count, 0) => format!(", one of {count} {}", self.way()),
            (_, sum) if self.upstream.algorithm() == &Algorithm::Goma => {
                format!(", weight {} of {sum}", self.weight(index))
            }
            (_, sum) => format!(", weight {} of {sum}, {}", self.weight(index), self.way()),
        };
        match backend {
            _ if !self.is_canary() && self.candidates.len() == 1 => "the only one with a weight".to_owned(),
            _ if !self.is_canary() => part.trim_start_matches(", ").to_owned(),
            Written { matches, .. } if matches.is_empty() => format!("takes any request{part}"),
            Written { exclusive: true, .. } => format!("exclusive, and its rules hold{part}"),
            _ => format!("its rules hold{part}"),
        }
    }

    fn why_not(&self, index: usize) -> String {
        let Some(backend) = self.written.get(index) else {
            return "is not asked".to_owned();
        };
        if let Some(rule) = backend.matches.iter().find(|rule| !self.holds(rule)) {
            return format!("its rule does not hold: {}", describe(rule));
        }
        match self.leads {
            Some((_, Leads::Cookie)) => return "the client's cookie names another one".to_owned(),
            Some((_, Leads::Hash)) => return format!("the hash of {} leads to another one", self.hashed()),
            None => {}
        }
        match self.candidates {
            [other] if self.written.get(*other).is_some_and(|other| other.exclusive && !other.matches.is_empty()) => {
                "an exclusive backend takes the request".to_owned()
            }
            _ => "has no weight, others have one".to_owned(),
        }
    }

    /// How one of several is chosen.
    fn way(&self) -> &'static str {
        match self.upstream.algorithm() {
            Algorithm::Goma if self.is_canary() => "at random",
            Algorithm::Goma | Algorithm::RoundRobin => "in turn",
            Algorithm::Random => "at random",
            Algorithm::LeastRequests => "by fewer requests of two at random",
            Algorithm::ConsistentHash(_) => "by hash",
        }
    }

    /// What is hashed.
    fn hashed(&self) -> String {
        match self.upstream.algorithm() {
            Algorithm::ConsistentHash(HashKey::Header(name)) => format!("header {name} (or else the address)"),
            Algorithm::ConsistentHash(HashKey::Cookie(name)) => format!("cookie {name} (or else the address)"),
            _ => "the client's address".to_owned(),
        }
    }

    fn is_canary(&self) -> bool {
        self.written.iter().any(|backend| !backend.matches.is_empty())
    }

    fn holds(&self, rule: &Rule) -> bool {
        Match::parse(&rule.source, &rule.name, &rule.operator, &rule.value).0.holds(self.facts)
    }
}

fn describe(Rule { source, name, operator, value }: &Rule) -> String {
    let value = if redact::is_secret(name) { redact::REDACTED } else { value };
    let subject = if name.is_empty() { source.clone() } else { format!("{source} {name}") };
    format!("{subject} {operator} \"{value}\"")
}
