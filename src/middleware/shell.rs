//! The shell of a chain: what counts for every reply of the route, the gateway's own included, wherever it stands in the
//! list. Spec middlewares §3, §5.20, §5.21, §5.22.

use std::sync::Arc;

use http::{HeaderValue, Method};
use pingora_http::{RequestHeader, ResponseHeader};

use super::access_log::Fields;
use super::compression::Compression;
use super::cors::{self, Asked, Cors};
use super::encodings::Accepted;
use super::error_interceptor::Interceptor;
use super::http_cache::Caching;
use super::response_headers::Policy;

/// The compiled shell.
#[derive(Default)]
pub struct Shell {
    policies: Vec<Placed<Policy>>,
    policies_ask_paths: bool,
    cors: Option<Cors>,
    fields: Option<Placed<Fields>>,
    errors: Option<Placed<Interceptor>>,
    older_errors: Option<Interceptor>,
    compressions: Vec<Placed<Compression>>,
    caches: Vec<Placed<Arc<Caching>>>,
}

/// A part, and its place in the list of the configuration.
struct Placed<T> {
    place: usize,
    part: T,
}

/// What the shell may look at when a response goes back.
pub struct Answering<'a> {
    /// The raw path that the client sent.
    pub asked: &'a str,
    /// The raw path that the backend got, or would have got.
    pub sent: &'a str,
    /// Where the client comes from.
    pub origin: Option<&'a Asked>,
    /// Whether the request passed the chain.
    pub proxied: bool,
}

impl Shell {
    /// Adds a header policy; they are kept in the order of their first path's length.
    pub(super) fn add_policy(&mut self, place: usize, policy: Policy) {
        self.policies_ask_paths |= policy.has_paths();
        self.policies.push(Placed { place, part: policy });
        self.policies.sort_by_key(|placed| placed.part.order());
    }

    /// Sets the further fields of the access line; the last ones count.
    pub(super) fn set_fields(&mut self, place: usize, fields: Fields) {
        self.fields = Some(Placed { place, part: fields });
    }

    /// Sets the pages in place of error bodies; the last ones count.
    pub(super) fn set_errors(&mut self, place: usize, errors: Interceptor) {
        self.errors = Some(Placed { place, part: errors });
    }

    /// Sets the older `errorInterceptor` section of the route: counts where no middleware does.
    pub fn set_older_errors(&mut self, errors: Option<Interceptor>) {
        self.older_errors = errors;
    }

    /// Adds a compression; the last one that takes a path counts.
    pub(super) fn add_compression(&mut self, place: usize, compression: Compression) {
        self.compressions.push(Placed { place, part: compression });
    }

    /// Adds a cache; the last one that takes a path counts.
    pub(super) fn add_cache(&mut self, place: usize, cache: Arc<Caching>) {
        self.caches.push(Placed { place, part: cache });
    }

    /// Whether anything here is stored.
    pub fn has_caches(&self) -> bool {
        !self.caches.is_empty()
    }

    /// The cache for a raw path as the chain left it.
    pub fn cache(&self, path: &str) -> Option<&Arc<Caching>> {
        self.caches.iter().rev().map(|placed| &placed.part).find(|cache| cache.takes(path))
    }

    /// The caches of the route.
    pub fn caches(&self) -> impl Iterator<Item = &Arc<Caching>> {
        self.caches.iter().map(|placed| &placed.part)
    }

    /// Sets the older `cors` section of the route.
    pub fn set_cors(&mut self, cors: Option<Cors>) {
        self.cors = cors;
    }

    /// What the client says about its origin, if anything here asks.
    pub fn origin(&self, head: &RequestHeader) -> Option<Box<Asked>> {
        self.sharing().next().and_then(|_| Asked::of(head))
    }

    /// The client's origin if the older `cors` section lets it read: for replies that the shell does not dress.
    pub fn reader(&self, head: &RequestHeader) -> Option<HeaderValue> {
        let cors = self.cors.as_ref()?;
        Asked::of(head).filter(|asked| cors.lets_in(asked)).map(|asked| asked.origin().clone())
    }

    /// What the client says about codings, if anything here asks.
    pub fn accepted(&self, head: &RequestHeader) -> Accepted {
        if self.compressions.is_empty() { Accepted::default() } else { Accepted::of(&head.headers) }
    }

    /// The pages in place of error bodies.
    pub fn errors(&self) -> Option<&Interceptor> {
        self.errors.as_ref().map(|placed| &placed.part).or(self.older_errors.as_ref())
    }

    /// How the body of a response may be packed.
    pub fn compression(&self, answering: &Answering<'_>) -> Option<&Compression> {
        let takes = |part: &&Compression| part.takes(answering.asked) || part.takes(answering.sent);
        self.compressions.iter().rev().map(|placed| &placed.part).find(takes)
    }

    /// Whether this is a preflight that the gateway answers by itself.
    pub fn answers_preflight(&self, method: &Method, origin: Option<&Asked>) -> bool {
        let lets_in = |asked: &Asked| self.sharing().any(|cors| cors.lets_in(asked));
        cors::is_preflight(method) && origin.is_some_and(lets_in)
    }

    fn sharing(&self) -> impl Iterator<Item = &Cors> {
        self.cors.iter().chain(self.policies.iter().filter_map(|placed| placed.part.cors()))
    }

    /// Changes the head of a response.
    pub fn apply(&self, answering: &Answering<'_>, head: &mut ResponseHeader) {
        if let Some(cors) = &self.cors {
            cors.apply(answering.origin, answering.proxied, head);
        }
        for Placed { part: policy, .. } in &self.policies {
            if self.takes(policy, answering) {
                policy.apply(answering, head);
            }
        }
    }

    fn takes(&self, policy: &Policy, answering: &Answering<'_>) -> bool {
        !self.policies_ask_paths || policy.takes(answering.asked) || policy.takes(answering.sent)
    }

    /// Further fields of the access line.
    pub fn log_fields(&self, head: &RequestHeader, query: Option<&str>) -> Vec<(String, String)> {
        self.fields.as_ref().map_or_else(Vec::new, |placed| placed.part.of(head, query))
    }

    /// Which parts count for a response, by their place in the list: for `config explain`.
    pub fn rehearse(&self, answering: &Answering<'_>) -> Vec<(usize, bool)> {
        let policies = self.policies.iter().map(|placed| (placed.place, self.takes(&placed.part, answering)));
        let fields = self.fields.iter().map(|placed| (placed.place, true));
        let errors = self.errors.iter().map(|placed| (placed.place, true));
        let counts = self.compression(answering).map(std::ptr::from_ref);
        let compressions =
            self.compressions.iter().map(|placed| (placed.place, counts == Some(&raw const placed.part)));
        let caching = self.cache(answering.sent).map(Arc::as_ptr);
        let caches = self.caches.iter().map(|placed| (placed.place, caching == Some(Arc::as_ptr(&placed.part))));
        policies.chain(fields).chain(errors).chain(compressions).chain(caches).collect()
    }
}
