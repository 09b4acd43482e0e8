//! Knows bots by their user agent, and keeps them out or counts them.
//!
//! A bot is who carries a name of a public list, a word of the trade (`crawler`, an address for complaints), or nothing of
//! what browsers and devices say of themselves. What a client says of itself can be a lie: this keeps out those who say what
//! they are, and lets in by name those who claim it. The kind is ours; Goma once had the route flag `enableBotDetection`,
//! which is the same guard with nothing allowed.
//!
//! ```yaml
//! - name: no-bots
//!   type: botDetection
//!   rule: { allow: [Googlebot, Bingbot, monitoring], deny: [GPTBot] }
//! ```

mod detect;
mod known;
mod signs;
mod tally;

use std::borrow::Cow;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder};
use http::{HeaderValue, StatusCode, header};
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use detect::Sight;
use detect::{DETECTOR, Detector};

use super::{Flow, Middleware, Part, Paths, Scope, Settings, Tools, Verdict};
use crate::config::{Place, Problem, nearest};
use crate::exchange::Exchange;
use crate::reply::Reply;
use known::{CATEGORIES, Categories};
use tally::{Outcome, Tally};

/// Looks at a user agent: whether it is a bot's.
pub fn look(agent: &[u8]) -> Sight {
    DETECTOR.look(agent)
}

/// Keeps bots out by what they say of themselves, or counts them. Search engines can be let in by name.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BotDetection {
    /// What happens to a bot: `block` (403) or `detect` (it passes; log and metric tell). Default `block`.
    mode: String,
    /// Bots that get in: names such as `Googlebot`, which are looked for at the start of a word of the user agent in any
    /// case; categories of the list (`search-engine`, `ai-crawler`, `seo`, `monitoring`, `social-preview`, `feed-reader`,
    /// `http-library`, `scanner`, `advertising`, `archiver`, `academic`, `browser-automation`); `*` for all.
    allow: Vec<String>,
    /// Who stays out in any case, written as in `allow`: also what would not be taken for a bot. Wins over `allow`.
    deny: Vec<String>,
    /// Whether a request without a user agent passes. Default true.
    allow_empty_user_agent: bool,
}

impl Default for BotDetection {
    fn default() -> Self {
        BotDetection { mode: "block".to_owned(), allow: Vec::new(), deny: Vec::new(), allow_empty_user_agent: true }
    }
}

impl Settings for BotDetection {
    const KIND: &'static [&'static str] = &["botDetection"];
    const GUARDS: bool = true;
    const EXAMPLE: &'static str = include_str!("../../../conf/examples/middlewares/botDetection.yml");

    fn doubts(&self, scope: &Scope<'_>) -> Vec<Problem> {
        let rule = scope.place.child("rule");
        let of = |key, names: &[String]| misspelt(&rule.child(key), names);
        [of("allow", &self.allow), of("deny", &self.deny)].concat()
    }

    fn build(self, scope: &Scope<'_>) -> Result<Part, Vec<Problem>> {
        let rule = scope.place.child("rule");
        let no_mode = || rule.child("mode").error(format!("`{}` is no mode", self.mode), "use `block` or `detect`");
        let mode = Mode::read(&self.mode).ok_or_else(|| vec![no_mode()]);
        let allow = Names::read(&self.allow, &rule.child("allow"));
        let deny = Names::read(&self.deny, &rule.child("deny"));
        match (mode, allow, deny) {
            (Ok(mode), Ok(allow), Ok(deny)) => Ok(Part::Step(Arc::new(Guard {
                mode,
                allow,
                deny,
                empty_passes: self.allow_empty_user_agent,
                paths: (!scope.paths.is_empty()).then(|| Paths::of(scope)),
                detector: &DETECTOR,
                tally: Tally::new(&scope.tools.metrics, scope.name),
            }))),
            (mode, allow, deny) => Err([mode.err(), allow.err(), deny.err()].into_iter().flatten().flatten().collect()),
        }
    }
}

/// The guard of a route with `enableBotDetection`: it blocks every bot, and counts under the name of the route.
pub fn route_guard(tools: &Tools, route: &str) -> Arc<dyn Middleware> {
    Arc::new(Guard {
        mode: Mode::Block,
        allow: Names::default(),
        deny: Names::default(),
        empty_passes: true,
        paths: None,
        detector: &DETECTOR,
        tally: Tally::new(&tools.metrics, route),
    })
}

/// What happens to bots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// They get 403.
    Block,
    /// They pass; log and metric tell.
    Detect,
}

impl Mode {
    fn read(text: &str) -> Option<Mode> {
        let modes = [("block", Mode::Block), ("detect", Mode::Detect)];
        modes.into_iter().find(|(word, _)| text.trim().eq_ignore_ascii_case(word)).map(|(_, mode)| mode)
    }
}

/// Names and categories of `allow` or `deny`.
#[derive(Default)]
struct Names {
    all: bool,
    categories: Categories,
    texts: Option<AhoCorasick>,
}

impl Names {
    fn read(entries: &[String], place: &Place) -> Result<Names, Vec<Problem>> {
        let mut names = Names::default();
        let mut texts = Vec::new();
        let mut problems = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            match (entry.trim(), Categories::named(entry.trim())) {
                ("", _) => problems.push(place.item(index).error("is empty", "remove it")),
                ("*", _) => names.all = true,
                (_, Some(category)) => names.categories = names.categories.with(category),
                (text, None) => texts.push(text.to_owned()),
            }
        }
        if !texts.is_empty() {
            match AhoCorasickBuilder::new().ascii_case_insensitive(true).build(&texts) {
                Ok(automaton) => names.texts = Some(automaton),
                Err(error) => problems.push(place.error(format!("is too long: {error}"), "shorten it")),
            }
        }
        if problems.is_empty() { Ok(names) } else { Err(problems) }
    }

    /// Whether a user agent carries one of the names, or what was seen in it is of one of the categories.
    fn name(&self, agent: &[u8], sight: &Sight) -> bool {
        let begins = |at: usize| at == 0 || !agent[at - 1].is_ascii_alphanumeric();
        let named = |texts: &AhoCorasick| texts.find_overlapping_iter(agent).any(|found| begins(found.start()));
        self.all && sight.is_bot() || self.categories.meet(sight.categories()) || self.texts.as_ref().is_some_and(named)
    }
}

/// Names that nearly are those of categories or bots.
fn misspelt(place: &Place, names: &[String]) -> Vec<Problem> {
    let known: Vec<&str> = CATEGORIES.into_iter().chain(known::bots().map(|bot| bot.name)).collect();
    let is_known = |name: &str| {
        let name = name.to_ascii_lowercase();
        known.iter().any(|known| known.to_ascii_lowercase().contains(&name))
    };
    let doubt = |(index, name): (usize, &String)| {
        let near = nearest(name, &known).filter(|(_, letters)| *letters <= 2)?.0;
        let message = format!("`{name}` is no name of the list");
        Some(place.item(index).warning(message, format!("did you mean `{near}`?")))
    };
    let odd = names.iter().enumerate().filter(|(_, name)| name.len() > 3 && *name != "*" && !is_known(name));
    odd.filter_map(doubt).collect()
}

struct Guard {
    mode: Mode,
    allow: Names,
    deny: Names,
    empty_passes: bool,
    /// None: all.
    paths: Option<Paths>,
    /// Made by now, and not by the first request.
    detector: &'static Detector,
    tally: Tally,
}

impl Middleware for Guard {
    fn request<'a>(&'a self, exchange: &'a mut Exchange, head: &'a mut RequestHeader) -> Flow<'a> {
        if self.paths.as_ref().is_some_and(|paths| !paths.guard(&exchange.path)) {
            return Flow::Next;
        }
        // Of several lines a backend may read any one: none of them is to be a bot's.
        let mut lines = head.headers.get_all(header::USER_AGENT).iter().map(HeaderValue::as_bytes).peekable();
        if lines.peek().is_none() {
            return self.judge(b"", exchange).map_or(Flow::Next, Flow::Reply);
        }
        lines.find_map(|agent| self.judge(agent, exchange)).map_or(Flow::Next, Flow::Reply)
    }
}

impl Guard {
    /// The refusal of who says this of itself, if it is one; counts bots.
    fn judge(&self, agent: &[u8], exchange: &mut Exchange) -> Option<Verdict> {
        if agent.is_empty() && self.empty_passes {
            return None;
        }
        let sight = self.detector.look(agent);
        let denied = self.deny.name(agent, &sight);
        if !denied && !sight.is_bot() {
            return None;
        }
        let outcome = match self.mode {
            _ if !denied && self.allow.name(agent, &sight) => Outcome::Allowed,
            Mode::Block => Outcome::Blocked,
            Mode::Detect => Outcome::Detected,
        };
        self.tally.count(&sight, outcome);
        match outcome {
            Outcome::Allowed => None,
            Outcome::Detected => {
                exchange.why = why(&sight);
                None
            }
            Outcome::Blocked => {
                let reply = Reply::message(StatusCode::FORBIDDEN, "Automated clients are not allowed here");
                Some(Verdict::refuse(reply, why(&sight)))
            }
        }
    }
}

/// For the access line: nothing of what the client sent.
fn why(sight: &Sight) -> Cow<'static, str> {
    let (what, which) = sight.tells();
    Cow::Owned(format!("{what}: {which}"))
}

#[cfg(test)]
mod tests;
