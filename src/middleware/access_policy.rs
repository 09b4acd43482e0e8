//! Lets clients in or keeps them out by their address.
//!
//! Nothing else is looked at; `paths` do not count. The client is who the trusted proxies say it is. Spec middlewares §5.2.
//! In Goma every `action` but the exact `DENY` allows; here it is read in any case and anything else is an error (W-35).
//!
//! ```yaml
//! - name: office-only
//!   type: accessPolicy
//!   rule: { action: ALLOW, sourceRanges: [203.0.113.0/24, 2001:db8::/32, 192.0.2.7-192.0.2.90] }
//! ```

use std::sync::Arc;

use http::StatusCode;
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ranges::{Range, Ranges};
use super::{Flow, Middleware, Part, Scope, Settings, Verdict, paths};
use crate::config::Problem;
use crate::exchange::Exchange;
use crate::reply::Reply;

/// Lets clients in or keeps them out by their address; others get 403.
#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessPolicy {
    /// `ALLOW` lets in who is listed, and nobody else; `DENY` keeps out who is listed. In any case; empty means `ALLOW`.
    action: String,
    /// Addresses, CIDR blocks and ranges `first-last`, of IPv4 and IPv6. Required.
    source_ranges: Vec<String>,
}

impl Settings for AccessPolicy {
    const KIND: &'static [&'static str] = &["accessPolicy"];
    const GUARDS: bool = true;
    const EXAMPLE: &'static str = include_str!("../../conf/examples/middlewares/accessPolicy.yml");

    fn doubts(&self, scope: &Scope<'_>) -> Vec<Problem> {
        let action = scope.place.child("rule").child("action");
        let missing = || action.warning("is missing: only who is listed gets in", "say ALLOW or DENY");
        paths::ignored(scope).into_iter().chain(self.action.trim().is_empty().then(missing)).collect()
    }

    fn build(self, scope: &Scope<'_>) -> Result<Part, Vec<Problem>> {
        let place = scope.place.child("rule");
        let mut problems = Vec::new();
        let action = Action::read(&self.action);
        if action.is_none() {
            let message = format!("`{}` is no action", self.action);
            problems.push(place.child("action").error(message, "use ALLOW or DENY"));
        }
        let listed = place.child("sourceRanges");
        if self.source_ranges.is_empty() {
            problems.push(listed.error("is missing", "list addresses, CIDR blocks or ranges `first-last`"));
        }
        let mut ranges = Vec::with_capacity(self.source_ranges.len());
        for (index, entry) in self.source_ranges.iter().enumerate() {
            match Range::parse(entry) {
                Ok(range) => ranges.push(range),
                Err(message) => problems.push(listed.item(index).error(format!("`{entry}` {message}"), REMEDY)),
            }
        }
        match (action, problems.is_empty()) {
            (Some(action), true) => Ok(Part::Step(Arc::new(Policy { action, listed: ranges.into_iter().collect() }))),
            _ => Err(problems),
        }
    }
}

const REMEDY: &str = "use an address, a block such as 192.0.2.0/24, or a range such as 192.0.2.1-192.0.2.9";

/// What happens to those who are listed; `ALLOW` or `DENY` in any case, empty for the former.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Only they get in.
    Allow,
    /// They stay out.
    Deny,
}

impl Action {
    pub(super) fn read(text: &str) -> Option<Action> {
        match text.trim() {
            word if word.is_empty() || word.eq_ignore_ascii_case("allow") => Some(Action::Allow),
            word if word.eq_ignore_ascii_case("deny") => Some(Action::Deny),
            _ => None,
        }
    }

    /// Whether somebody gets in.
    pub(super) fn admits(self, listed: bool) -> bool {
        listed == (self == Action::Allow)
    }
}

struct Policy {
    action: Action,
    listed: Ranges,
}

impl Middleware for Policy {
    fn request<'a>(&'a self, exchange: &'a mut Exchange, _: &'a mut RequestHeader) -> Flow<'a> {
        if self.action.admits(self.listed.contains(exchange.client)) {
            return Flow::Next;
        }
        let why = match self.action {
            Action::Allow => "the address is not listed",
            Action::Deny => "the address is listed",
        };
        Flow::Reply(Verdict::refuse(Reply::plain(StatusCode::FORBIDDEN), why))
    }
}
