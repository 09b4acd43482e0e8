//! What the operator writes about a limit.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{Problem, units};
use crate::limit::Quota;
use crate::middleware::Scope;

/// Limits how often a client may ask: 429 beyond it, and 403 for a while for who goes on. Shared by all gateways through Redis
/// where `gateway.redis` is set.
#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct RateLimit {
    /// `second`, `minute` or `hour`. Default `second`, also for anything else, as in Goma.
    unit: String,
    /// Requests a unit. Required, more than 0.
    requests_per_unit: i64,
    /// How many more at once when there was none for a while. Default 0.
    burst: i64,
    /// Refusals after which a client is banned (403). Default 0: never.
    ban_after: i64,
    /// How long a ban lasts, Go duration. Default `10m`.
    ban_duration: String,
    /// Whom a bucket belongs to.
    key_strategy: KeyStrategy,
    /// `exact` asks Redis for each request, `leased` borrows tokens in advance (limits of 1,000 a unit and more; below that it is
    /// exact), `local` does without Redis. Default `exact`; without `gateway.redis` all are local. Ours.
    mode: String,
    /// `route`: buckets of its own for each route; `middleware`: one for all routes that name it. Default `route` without Redis;
    /// with Redis Goma's names, which all limits of the same `keyStrategy` share. Ours.
    scope: String,
    /// While Redis gives no answer: `local` goes on with buckets of this gateway, `open` lets pass, `closed` answers 503. Default
    /// `local`. Ours.
    on_store_failure: String,
    /// Who is told of the limit in `RateLimit` and `RateLimit-Policy`: `limited` (with the 429) or `always`. Default `limited`. Ours.
    headers: String,
}

/// Whom a bucket belongs to.
#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct KeyStrategy {
    /// `ip`, `header`, `cookie`; of ours `claim` (of the token that a `jwt` before it has checked, or of the session of an
    /// `oauth` before it, which keeps that claim then) and `route` (one bucket for everybody). Default: the address. Where a
    /// request has none of it, its address counts.
    source: String,
    /// Name of the header, the cookie or the claim (`realm.user` for one inside another).
    name: String,
    /// Bits of an IPv6 address that count: 64 for the network of a customer. Default 0: all of them. Ours.
    ipv6_prefix: u8,
}

/// Where the buckets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Exact,
    Leased,
    Local,
}

/// What a request gets while Redis gives no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnFailure {
    Local,
    Open,
    Closed,
}

/// Who has a bucket in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    Unsaid,
    Route,
    Middleware,
}

/// Where the name of a bucket comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Unsaid,
    Ip,
    Header,
    Cookie,
    Claim,
    Route,
}

/// The settings, understood.
pub(super) struct Read {
    pub quota: Quota,
    pub ban_after: u32,
    pub ban: Duration,
    pub source: Source,
    pub name: String,
    pub ipv6_prefix: u8,
    pub mode: Mode,
    pub reach: Reach,
    pub on_failure: OnFailure,
    pub always_told: bool,
}

const BAN: Duration = Duration::from_secs(600);
/// Words of `source`.
const SOURCES: [(&str, Source); 5] = [
    ("ip", Source::Ip),
    ("header", Source::Header),
    ("cookie", Source::Cookie),
    ("claim", Source::Claim),
    ("route", Source::Route),
];

impl RateLimit {
    /// What Goma takes without a word, and means something else than it says.
    pub(super) fn doubtful(&self, scope: &Scope<'_>) -> Vec<Problem> {
        let rule = scope.place.child("rule");
        let strategy = rule.child("keyStrategy");
        let mut doubts = Vec::new();
        if !matches!(self.unit.as_str(), "" | "second" | "minute" | "hour") {
            let message = format!("`{}` is none: second counts, as in Goma", self.unit);
            doubts.push(rule.child("unit").warning(message, "write second, minute or hour"));
        }
        if let (false, Err(why)) = (self.ban_duration.is_empty(), units::duration(self.ban_duration.trim())) {
            let message = format!("`{}` {why}; 10m counts, as in Goma", self.ban_duration);
            doubts.push(rule.child("banDuration").warning(message, ""));
        }
        let source = self.key_strategy.source.trim();
        match word(source, &SOURCES) {
            None if !source.is_empty() => {
                let message = format!("`{source}` is unknown: the address counts, as in Goma");
                doubts.push(strategy.child("source").warning(message, "write ip, header, cookie, claim or route"));
            }
            Some(Source::Header | Source::Cookie | Source::Claim) if self.key_strategy.name.trim().is_empty() => {
                doubts.push(strategy.child("name").warning("is missing: the address counts, as in Goma", ""));
            }
            _ => {}
        }
        doubts
    }

    /// Which buckets of Redis it has, as far as they may be those of another limit; `None` where they are its own.
    pub(super) fn bucket(&self, has_paths: bool) -> Option<String> {
        let (source, name) = (self.key_strategy.source.trim().to_lowercase(), self.key_strategy.name.trim());
        let shared = self.scope.trim().is_empty() && !self.mode.trim().eq_ignore_ascii_case("local");
        match source.as_str() {
            _ if !shared => None,
            // Named after the route.
            "route" => None,
            "" if has_paths => None,
            "" => Some("global".to_owned()),
            "header" | "cookie" | "claim" if !name.is_empty() => Some(format!("{source}:{name}")),
            _ => Some("ip".to_owned()),
        }
    }

    /// The claim that tells requests apart.
    pub(super) fn claim_name(&self) -> Option<&str> {
        let KeyStrategy { source, name, .. } = &self.key_strategy;
        let reads = matches!(word(source.trim(), &SOURCES), Some(Source::Claim));
        Some(name.trim()).filter(|name| reads && !name.is_empty())
    }

    /// How large it is.
    pub(super) fn size(&self) -> (String, i64, i64) {
        (self.unit.clone(), self.requests_per_unit, self.burst)
    }

    pub(super) fn read(self, scope: &Scope<'_>) -> Result<Read, Vec<Problem>> {
        let rule = scope.place.child("rule");
        let mut problems = Vec::new();
        let mut number = |key: &str, value: i64, least: i64| {
            let fits = u32::try_from(value).ok().filter(|_| value >= least && value <= MOST);
            if fits.is_none() {
                let message = format!("is {value}; it must be from {least} to {MOST}");
                problems.push(rule.child(key).error(message, ""));
            }
            fits.unwrap_or(1)
        };
        let rate = number("requestsPerUnit", self.requests_per_unit, 1);
        let burst = number("burst", self.burst, 0);
        let ban_after = number("banAfter", self.ban_after, 0);
        let mut choice = |key: &str, text: &str, words: &str| {
            let message = format!("`{text}` is unknown");
            problems.push(rule.child(key).error(message, format!("write {words}")));
        };
        let mode = word(
            &self.mode,
            &[("", Mode::Exact), ("exact", Mode::Exact), ("leased", Mode::Leased), ("local", Mode::Local)],
        );
        if mode.is_none() {
            choice("mode", &self.mode, "exact, leased or local");
        }
        let reach =
            word(&self.scope, &[("", Reach::Unsaid), ("route", Reach::Route), ("middleware", Reach::Middleware)]);
        if reach.is_none() {
            choice("scope", &self.scope, "route or middleware");
        }
        let failures = [
            ("", OnFailure::Local),
            ("local", OnFailure::Local),
            ("open", OnFailure::Open),
            ("closed", OnFailure::Closed),
        ];
        let on_failure = word(&self.on_store_failure, &failures);
        if on_failure.is_none() {
            choice("onStoreFailure", &self.on_store_failure, "local, open or closed");
        }
        let always_told = word(&self.headers, &[("", false), ("limited", false), ("always", true)]);
        if always_told.is_none() {
            choice("headers", &self.headers, "limited or always");
        }
        if self.key_strategy.ipv6_prefix > 128 {
            let place = rule.child("keyStrategy").child("ipv6Prefix");
            problems.push(place.error("is more than the 128 bits that there are", "64 is the network of a customer"));
        }
        let ban = units::duration(self.ban_duration.trim()).unwrap_or(BAN);
        if ban.is_zero() && ban_after > 0 {
            problems
                .push(rule.child("banDuration").error("is 0: nobody would be banned", "write a duration such as 10m"));
        }
        let window = Duration::from_secs(match self.unit.as_str() {
            "minute" => 60,
            "hour" => 3600,
            _ => 1,
        });
        match (mode, reach, on_failure, always_told) {
            (Some(mode), Some(reach), Some(on_failure), Some(always_told)) if problems.is_empty() => Ok(Read {
                quota: Quota::new(rate, window, burst),
                ban_after,
                ban,
                source: word(&self.key_strategy.source, &SOURCES)
                    .unwrap_or(Source::Unsaid.or_ip(&self.key_strategy.source)),
                name: self.key_strategy.name.trim().to_owned(),
                ipv6_prefix: self.key_strategy.ipv6_prefix,
                mode,
                reach,
                on_failure,
                always_told,
            }),
            _ => Err(problems),
        }
    }
}

/// Largest number that a setting may be: intervals stay far above a nanosecond, and sums in range.
const MOST: i64 = 100_000_000;

impl Source {
    /// What is no source is one all the same, unless there is nothing.
    fn or_ip(self, text: &str) -> Source {
        if text.trim().is_empty() { self } else { Source::Ip }
    }
}

/// The meaning of a word, in any case.
fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Option<T> {
    words.iter().find(|(word, _)| text.trim().eq_ignore_ascii_case(word)).map(|(_, meaning)| *meaning)
}
