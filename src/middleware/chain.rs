//! The chain of one route: its steps in order, and its shell.

use std::sync::Arc;

use pingora_http::{RequestHeader, ResponseHeader};

use super::response_headers::Policy;
use super::{Flow, Middleware, Part, Verdict};
use crate::exchange::{Exchange, Reason};

/// A compiled chain.
#[derive(Default)]
pub struct Chain {
    steps: Vec<Step>,
    policies: Vec<Policy>,
    policies_ask_paths: bool,
}

struct Step {
    kind: &'static str,
    middleware: Arc<dyn Middleware>,
}

impl Chain {
    /// Puts parts together, in their order; each with the name of its kind.
    pub fn new(parts: impl IntoIterator<Item = (&'static str, Part)>) -> Chain {
        let mut chain = Chain::default();
        for (kind, part) in parts {
            match part {
                Part::Step(middleware) => chain.steps.push(Step { kind, middleware }),
                Part::Headers(policy) => chain.policies.push(policy),
            }
        }
        chain.policies.sort_by_key(Policy::order);
        chain.policies_ask_paths = chain.policies.iter().any(Policy::has_paths);
        chain
    }

    /// Walks the request hooks. Returns how many ran, and the verdict of the one that ended the walk.
    pub async fn request(&self, exchange: &mut Exchange, head: &mut RequestHeader) -> (usize, Option<(Reason, Verdict)>) {
        for (place, step) in self.steps.iter().enumerate() {
            let mut flow = step.middleware.request(exchange, head);
            let verdict = loop {
                match flow {
                    Flow::Next => break None,
                    Flow::Reply(verdict) => break Some(verdict),
                    Flow::Wait(later) => flow = later.await,
                }
            };
            if let Some(verdict) = verdict {
                let reason = if verdict.refused { Reason::Denied(step.kind) } else { Reason::Answered(step.kind) };
                return (place + 1, Some((reason, verdict)));
            }
        }
        (self.steps.len(), None)
    }

    /// Walks the response hooks of the first `ran` steps backwards.
    pub fn response(&self, ran: usize, exchange: &Exchange, head: &mut ResponseHeader) {
        for step in self.steps[..ran.min(self.steps.len())].iter().rev() {
            step.middleware.response(exchange, head);
        }
    }

    /// Applies the shell to a response head. `asked` is the raw path that the client sent, `sent` the one for the backend.
    pub fn shell(&self, asked: &str, sent: &str, head: &mut ResponseHeader) {
        for policy in &self.policies {
            if !self.policies_ask_paths || policy.takes(asked) || policy.takes(sent) {
                policy.apply(head);
            }
        }
    }

    /// Whether the route has any policy of the shell.
    pub fn has_shell(&self) -> bool {
        !self.policies.is_empty()
    }
}
