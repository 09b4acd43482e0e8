//! Keeps clients out by a text in their user agent.
//!
//! The texts are searched for in any case, as Goma documents (its code does not; W-39), by one automaton. A request without
//! `User-Agent` passes; `paths` do not count. Spec middlewares §5.4. To know bots by name, see `botDetection`.
//!
//! ```yaml
//! - name: no-scripts
//!   type: userAgentBlock
//!   rule: { userAgents: [python-requests, curl] }
//! ```

use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder};
use http::{StatusCode, header};
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Flow, Middleware, Part, Scope, Settings, Verdict, paths};
use crate::config::Problem;
use crate::exchange::Exchange;
use crate::reply::Reply;

/// Keeps clients out by a text in their `User-Agent`; they get 403. A request without one passes.
#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct UserAgentBlock {
    /// Texts to look for, anywhere in the header and in any case. Required, none empty.
    user_agents: Vec<String>,
}

impl Settings for UserAgentBlock {
    const KIND: &'static [&'static str] = &["userAgentBlock"];
    const GUARDS: bool = true;
    const EXAMPLE: &'static str = include_str!("../../conf/examples/middlewares/userAgentBlock.yml");

    fn doubts(&self, scope: &Scope<'_>) -> Vec<Problem> {
        paths::ignored(scope).into_iter().collect()
    }

    fn build(self, scope: &Scope<'_>) -> Result<Part, Vec<Problem>> {
        let listed = scope.place.child("rule").child("userAgents");
        if self.user_agents.is_empty() {
            return Err(vec![listed.error("is missing", "list texts such as `curl`")]);
        }
        let empty = |(index, _): (usize, &String)| {
            listed.item(index).error("is empty: it would keep everybody out", "remove it")
        };
        let blank = self.user_agents.iter().enumerate().filter(|(_, text)| text.trim().is_empty());
        let problems: Vec<Problem> = blank.map(empty).collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        let texts = AhoCorasickBuilder::new().ascii_case_insensitive(true).build(&self.user_agents);
        let texts = texts.map_err(|error| vec![listed.error(format!("are too many: {error}"), "shorten the list")])?;
        Ok(Part::Step(Arc::new(Blocked { texts, listed: self.user_agents })))
    }
}

struct Blocked {
    texts: AhoCorasick,
    listed: Vec<String>,
}

impl Middleware for Blocked {
    fn request<'a>(&'a self, _: &'a mut Exchange, head: &'a mut RequestHeader) -> Flow<'a> {
        let agents = head.headers.get_all(header::USER_AGENT);
        let Some(found) = agents.iter().find_map(|agent| self.texts.find(agent.as_bytes())) else { return Flow::Next };
        let reply = Reply::message(StatusCode::FORBIDDEN, "User agent not allowed");
        Flow::Reply(Verdict::refuse(reply, format!("user agent: {}", self.listed[found.pattern().as_usize()])))
    }
}
