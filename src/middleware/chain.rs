//! The chain of one route: its steps in order, and its shell.

use std::sync::Arc;

use http::HeaderName;
use pingora_http::{RequestHeader, ResponseHeader};

use super::shell::{Answering, Shell};
use super::{BodyWatch, Flow, Middleware, Part, Verdict};
use crate::exchange::{Exchange, Reason};

/// A compiled chain.
#[derive(Default)]
pub struct Chain {
    steps: Vec<Step>,
    /// What counts for every reply.
    pub shell: Shell,
    listed: Vec<Listed>,
    identity: Vec<HeaderName>,
    landings: Vec<String>,
    watches_body: bool,
}

/// A part of the chain as the configuration lists it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Name of the definition.
    pub name: String,
    /// Its `type`, as written.
    pub kind: String,
}

struct Step {
    kind: &'static str,
    /// Which part of the chain it is, as the configuration lists them.
    place: usize,
    middleware: Arc<dyn Middleware>,
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

/// Watchers of one request body, each with the kind that it belongs to.
pub type Watches = Vec<(&'static str, Box<dyn BodyWatch>)>;

impl Chain {
    /// Puts parts together, in their order; each with the current name of its kind.
    pub fn new(parts: impl IntoIterator<Item = (Listed, &'static str, Part)>) -> Chain {
        let mut chain = Chain::default();
        for (place, (listed, kind, part)) in parts.into_iter().enumerate() {
            chain.listed.push(listed);
            match part {
                Part::Step(middleware) => {
                    chain.watches_body |= middleware.watches_body();
                    chain.identity.extend(middleware.identity().iter().filter_map(dashed));
                    chain.landings.extend_from_slice(middleware.landings());
                    chain.steps.push(Step { kind, place, middleware });
                }
                Part::Headers(policy) => chain.shell.add_policy(place, *policy),
                Part::LogFields(fields) => chain.shell.set_fields(place, fields),
                Part::Errors(errors) => chain.shell.set_errors(place, errors),
                Part::Compress(compression) => chain.shell.add_compression(place, compression),
                Part::Cache(cache) => chain.shell.add_cache(place, cache),
            }
        }
        chain
    }

    /// Its parts as the configuration lists them.
    pub fn listed(&self) -> &[Listed] {
        &self.listed
    }

    /// Headers that its steps set about who the client is, with `-` for `_`: each stands for all of its spellings.
    pub fn identity(&self) -> &[HeaderName] {
        &self.identity
    }

    /// Paths on which answers to its steps come in.
    pub fn landings(&self) -> &[String] {
        &self.landings
    }

    /// Whether a request on such a path answers one of its steps.
    pub fn claims(&self, exchange: &Exchange) -> bool {
        self.steps.iter().any(|step| step.middleware.claims(exchange))
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
                return (place + 1, Some((reason(step.kind, &verdict), verdict)));
            }
        }
        (self.steps.len(), None)
    }

    /// Who watches the body of this request. Allocates for those only.
    pub fn watches(&self, exchange: &Exchange, head: &RequestHeader) -> Watches {
        if !self.watches_body {
            return Watches::new();
        }
        let watch = |step: &Step| Some((step.kind, step.middleware.watch(exchange, head)?));
        self.steps.iter().filter_map(watch).collect()
    }

    /// Walks the response hooks of the first `ran` steps backwards.
    pub fn response(&self, ran: usize, exchange: &Exchange, head: &mut ResponseHeader) {
        for step in self.steps[..ran.min(self.steps.len())].iter().rev() {
            step.middleware.response(exchange, head);
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
                    said.push((step.place, Said::Ends(reason(step.kind, &verdict), verdict)));
                    break;
                }
            }
        }
        said
    }

    /// Which parts of the shell count for a request.
    pub fn rehearse_shell(&self, answering: &Answering<'_>) -> Vec<(usize, Said)> {
        let said = |(place, applies)| (place, if applies { Said::Applies } else { Said::OtherPaths });
        self.shell.rehearse(answering).into_iter().map(said).collect()
    }
}

/// Lets a chunk of the body pass all watchers, first to last.
///
/// # Errors
/// The verdict of the one that ends the request, with its reason.
pub fn watch(
    watches: &mut Watches,
    mut chunk: bytes::Bytes,
    end: bool,
) -> Result<bytes::Bytes, Box<(Reason, Verdict)>> {
    for (kind, watch) in watches {
        chunk = watch.chunk(chunk, end).map_err(|verdict| Box::new((reason(kind, &verdict), verdict)))?;
    }
    Ok(chunk)
}

/// Many backends read `X_User` and `X-User` as one variable.
fn dashed(name: &HeaderName) -> Option<HeaderName> {
    HeaderName::try_from(name.as_str().replace('_', "-")).ok()
}

fn reason(kind: &'static str, verdict: &Verdict) -> Reason {
    if verdict.refused { Reason::Denied(kind) } else { Reason::Answered(kind) }
}
