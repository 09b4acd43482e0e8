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
    policies: Vec<Placed>,
    policies_ask_paths: bool,
}

struct Step {
    kind: &'static str,
    /// Which part of the chain it is, as the configuration lists them.
    place: usize,
    middleware: Arc<dyn Middleware>,
}

/// A policy of the shell, and which part of the chain it is.
struct Placed {
    place: usize,
    policy: Policy,
}

/// What a part of the chain would do with a request.
pub enum Said {
    /// A step lets it pass, and may have changed it.
    Passes,
    /// A step ends the walk; those behind it say nothing.
    Ends(Reason, Verdict),
    /// A step would have to ask somebody.
    MustAsk,
    /// A part of the shell changes the response.
    Applies,
    /// A part of the shell is for other paths.
    OtherPaths,
}

impl Chain {
    /// Puts parts together, in their order; each with the name of its kind.
    pub fn new(parts: impl IntoIterator<Item = (&'static str, Part)>) -> Chain {
        let mut chain = Chain::default();
        for (place, (kind, part)) in parts.into_iter().enumerate() {
            match part {
                Part::Step(middleware) => chain.steps.push(Step { kind, place, middleware }),
                Part::Headers(policy) => chain.policies.push(Placed { place, policy }),
            }
        }
        chain.policies.sort_by_key(|placed| placed.policy.order());
        chain.policies_ask_paths = chain.policies.iter().any(|placed| placed.policy.has_paths());
        chain
    }

    /// Walks the request hooks. Returns how many ran, and the verdict of the one that ended the walk.
    pub async fn request(
        &self,
        exchange: &mut Exchange,
        head: &mut RequestHeader,
    ) -> (usize, Option<(Reason, Verdict)>) {
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
                return (place + 1, Some((step.reason(&verdict), verdict)));
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
        for Placed { policy, .. } in &self.policies {
            if !self.policies_ask_paths || policy.takes(asked) || policy.takes(sent) {
                policy.apply(head);
            }
        }
    }

    /// Walks the request hooks like [`request`](Self::request), but waits for nothing: for `config explain`. By place in
    /// the chain; the last one may have ended the walk.
    pub fn rehearse(&self, exchange: &mut Exchange, head: &mut RequestHeader) -> Vec<(usize, Said)> {
        let mut said = Vec::new();
        for step in &self.steps {
            match step.middleware.request(exchange, head) {
                Flow::Next => said.push((step.place, Said::Passes)),
                Flow::Wait(_) => said.push((step.place, Said::MustAsk)),
                Flow::Reply(verdict) => {
                    said.push((step.place, Said::Ends(step.reason(&verdict), verdict)));
                    break;
                }
            }
        }
        said
    }

    /// Which parts of the shell count for a request, as [`shell`](Self::shell) decides it.
    pub fn rehearse_shell(&self, asked: &str, sent: &str) -> Vec<(usize, Said)> {
        let said = |policy: &Policy| match policy.takes(asked) || policy.takes(sent) {
            true => Said::Applies,
            false => Said::OtherPaths,
        };
        self.policies.iter().map(|Placed { place, policy }| (*place, said(policy))).collect()
    }

    /// Whether the route has any policy of the shell.
    pub fn has_shell(&self) -> bool {
        !self.policies.is_empty()
    }
}

impl Step {
    fn reason(&self, verdict: &Verdict) -> Reason {
        if verdict.refused { Reason::Denied(self.kind) } else { Reason::Answered(self.kind) }
    }
}
