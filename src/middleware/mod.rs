//! Middlewares: the trait, the list of kinds, and what a kind needs to be built.
//!
//! A middleware is a *step* (positional: request hooks run first to last, response hooks last to first, and only those whose
//! request hook ran) or part of the *shell* (not positional, folded when compiled, applied to every reply of the route).
//! A middleware returns a reply, it never writes to the socket. A new kind is one file and one line in [`KINDS`].

pub mod access;
pub mod access_log;
pub mod access_policy;
pub mod add_prefix;
pub mod auth;
pub mod basic;
pub mod body_limit;
pub mod bots;
pub mod chain;
pub mod compress;
pub mod compression;
pub mod cors;
pub mod encodings;
pub mod error_interceptor;
pub mod error_page;
pub mod exploit;
pub mod forward_auth;
pub mod geo_block;
mod goregex;
pub mod http_cache;
pub mod in_flight;
pub mod jwt;
pub mod ldap;
pub mod oauth;
pub mod paths;
mod quick;
mod ranges;
pub mod rate_limit;
mod reading;
pub mod redirects;
pub mod reference;
mod remember;
mod replace;
pub mod request_headers;
pub mod response_headers;
pub mod rewrite_regex;
mod shell;
mod spelled;
pub mod strip_query;
pub mod user_agent_block;

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::HeaderName;
use pingora_http::{RequestHeader, ResponseHeader};
use schemars::{JsonSchema, Schema, schema_for};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;

pub use chain::Chain;
pub use paths::{PathRules, Paths};
pub use shell::Answering;

use crate::cache::zone::Zones;
use crate::config::{Middleware as Definition, Place, Problem};
use crate::exchange::Exchange;
use crate::geoip::GeoIp;
use crate::limit::Limits;
use crate::redis::Redis;
use crate::reply::Reply;
use crate::telemetry::metrics::Metrics;

/// What a request hook decided.
pub enum Flow<'a> {
    /// Go on.
    Next,
    /// Stop here and answer.
    Reply(Verdict),
    /// The decision needs I/O.
    Wait(BoxFuture<'a, Flow<'a>>),
}

/// A reply with the reason that goes to log and metric.
pub struct Verdict {
    /// The response.
    pub reply: Reply,
    /// Whether the middleware refused the request or answered it.
    pub refused: bool,
    /// Why, for the access line; empty where the kind says it all. Never a secret, never what the client sent as it is.
    pub why: Cow<'static, str>,
}

impl Verdict {
    /// Refuses the request: `denied:<kind>`.
    pub fn refuse(reply: Reply, why: impl Into<Cow<'static, str>>) -> Verdict {
        Verdict { reply, refused: true, why: why.into() }
    }

    /// Answers the request: `answered:<kind>`.
    pub fn answer(reply: Reply) -> Verdict {
        Verdict { reply, refused: false, why: Cow::Borrowed("") }
    }
}

/// A step of the chain. Only the hooks it needs are written; an unused hook costs nothing.
pub trait Middleware: Send + Sync {
    /// Sees the request on its way to the backend. `head` is what the backend will get; the path is in the exchange.
    fn request<'a>(&'a self, _exchange: &'a mut Exchange, _head: &'a mut RequestHeader) -> Flow<'a> {
        Flow::Next
    }

    /// Whether [`watch`](Self::watch) may give anything; asked once, when the chain is compiled.
    fn watches_body(&self) -> bool {
        false
    }

    /// Who watches the body of this request; asked before the first byte of each attempt.
    fn watch(&self, _exchange: &Exchange, _head: &RequestHeader) -> Option<Box<dyn BodyWatch>> {
        None
    }

    /// Sees the head of the response on its way back, ours included.
    fn response(&self, _exchange: &Exchange, _head: &mut ResponseHeader) {}

    /// Paths beside those of the route on which answers to this step come in: the end of a login. The table leads them here.
    fn landings(&self) -> &[String] {
        &[]
    }

    /// Whether a request on such a path answers this very step; several routes may share the path.
    fn claims(&self, _exchange: &Exchange) -> bool {
        false
    }

    /// Headers it sets about who the client is: the client's own are removed before any middleware looks.
    fn identity(&self) -> &[HeaderName] {
        &[]
    }
}

/// Watches one request body on its way to the backend.
pub trait BodyWatch: Send + Sync {
    /// What goes on now: the chunk, nothing (held back), or more than it.
    ///
    /// # Errors
    /// The verdict that ends the request; the backend does not get the rest.
    fn chunk(&mut self, chunk: Bytes, end: bool) -> Result<Bytes, Verdict>;
}

/// What a kind turns its settings into.
pub enum Part {
    /// A positional step.
    Step(Arc<dyn Middleware>),
    /// Response header policy of the shell.
    Headers(Box<response_headers::Policy>),
    /// Fields of the access line.
    LogFields(access_log::Fields),
    /// Pages of the shell in place of error bodies.
    Errors(error_interceptor::Interceptor),
    /// Compression of the shell.
    Compress(compression::Compression),
    /// A cache behind the chain.
    Cache(Arc<http_cache::Caching>),
}

/// Settings of one kind: deserialized from `rule`, then built in one fallible step. Their doc comments are the kind's
/// reference page.
pub trait Settings: DeserializeOwned + Serialize + JsonSchema {
    /// Spellings of `type`, the current one first.
    const KIND: &'static [&'static str];
    /// Whether a mistake in it would weaken protection; such rules are read more strictly.
    const GUARDS: bool;
    /// Whether `paths` of the definition count.
    const PATHS: bool = true;
    /// A whole configuration with the kind in use, loaded by a test.
    const EXAMPLE: &'static str;

    /// Settings that work and probably are not what was meant, as warnings.
    fn doubts(&self, _scope: &Scope<'_>) -> Vec<Problem> {
        Vec::new()
    }

    /// The claim that its step reads from [`Exchange::claims`], so that who establishes them before it keeps that one.
    fn claim(&self) -> Option<&str> {
        None
    }

    /// Checks the settings and makes the working part.
    ///
    /// # Errors
    /// Everything that is wrong with them, each with the key and the remedy.
    fn build(self, scope: &Scope<'_>) -> Result<Part, Vec<Problem>>;
}

/// What the middlewares of all routes share; outlives a snapshot.
pub struct Tools {
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Files of error pages.
    pub files: error_page::Files,
    /// Country databases.
    pub geo: Arc<GeoIp>,
    /// Checks passwords.
    pub checker: Arc<basic::checker::Checker>,
    /// Requests under way, by definition.
    pub in_flight: in_flight::InFlights,
    /// Clients at OAuth providers.
    pub oauth: oauth::Parties,
    /// Where background work runs; `None` where a configuration is only checked.
    pub handle: Option<Handle>,
    /// Key sets by URL.
    pub key_sets: jwt::KeySets,
    /// What `httpCache` stores.
    pub caches: Zones,
    /// Buckets, refusals and bans of all limits.
    pub limits: Arc<Limits>,
    /// The shared Redis, if one is configured; whether it is in use now, it knows itself.
    pub redis: Option<Redis>,
}

/// Where a middleware is being built: the same definition on two routes makes two independent parts.
pub struct Scope<'a> {
    /// Place of the definition in its file; for problems.
    pub place: &'a Place,
    /// Name of the definition.
    pub name: &'a str,
    /// How often the chain has the same definition before.
    pub nth: usize,
    /// Name of the route; empty when a definition is only checked.
    pub route: &'a str,
    /// `path` of the route.
    pub route_path: &'a str,
    /// `target` of the route, if it has one.
    pub route_target: Option<&'a str>,
    /// The definition's `paths`, compiled.
    pub paths: Arc<PathRules>,
    /// Expands `${NAME}` and functions in a value. Spec core §1.5.
    pub expand: &'a dyn Fn(&str) -> String,
    /// Path of the country database; empty for the usual places.
    pub geo_database: &'a str,
    /// Claims that steps of the same chain read.
    pub claims: &'a [&'a str],
    /// What all middlewares share.
    pub tools: &'a Tools,
}

/// A part with its warnings, or everything that is wrong with its settings.
pub type Built = Result<(Part, Vec<Problem>), Vec<Problem>>;

/// One kind of middleware.
pub struct Kind {
    /// Spellings of `type`.
    pub names: &'static [&'static str],
    /// A whole configuration with the kind in use.
    pub example: &'static str,
    /// Its settings, as a JSON schema made from the code.
    pub schema: fn() -> Schema,
    build: fn(&Definition, &Scope<'_>) -> Built,
    claim: fn(&Definition) -> Option<String>,
}

impl Kind {
    const fn of<S: Settings>() -> Kind {
        Kind {
            names: S::KIND,
            example: S::EXAMPLE,
            schema: || schema_for!(S),
            build: |definition, scope| {
                let (settings, mut warnings) = definition.rule.decode::<S>(S::GUARDS)?;
                warnings.extend(settings.doubts(scope));
                warnings.extend(stray_paths::<S>(scope));
                Ok((settings.build(scope)?, warnings))
            },
            claim: |definition| {
                let (settings, _) = definition.rule.decode::<S>(S::GUARDS).ok()?;
                settings.claim().map(str::to_owned)
            },
        }
    }

    /// Builds the part that a definition of this kind asks for; warnings beside it.
    ///
    /// # Errors
    /// Everything that is wrong with the definition's `rule`.
    pub fn build(&self, definition: &Definition, scope: &Scope<'_>) -> Built {
        (self.build)(definition, scope)
    }

    /// The claim that a definition of this kind reads.
    pub fn claim(&self, definition: &Definition) -> Option<String> {
        (self.claim)(definition)
    }

    /// The kind that a `type` names.
    ///
    /// # Errors
    /// Says whether the kind is known and comes later, or unknown, with the nearest known one.
    pub fn named(name: &str, place: &Place) -> Result<&'static Kind, Problem> {
        if let Some(kind) = KINDS.iter().find(|kind| kind.names.contains(&name)) {
            return Ok(kind);
        }
        let place = place.child("type");
        if LATER.contains(&name) {
            return Err(place.error(
                format!("middleware type `{name}` is not supported yet"),
                "remove the middleware from the configuration, or keep this route on Goma",
            ));
        }
        let known = || KINDS.iter().flat_map(|kind| kind.names).chain(LATER).copied();
        let mut remedy = String::new();
        match known().find(|known| known.eq_ignore_ascii_case(name)) {
            Some(near) => write!(remedy, "write `{near}` (types are case-sensitive)"),
            None => match crate::config::nearest(name, &known().collect::<Vec<_>>()) {
                Some((near, _)) => write!(remedy, "did you mean `{near}`?"),
                None => write!(remedy, "use one of the known types; Go plugins cannot run here"),
            },
        }
        .expect("writing to a string does not fail");
        Err(place.error(format!("unknown middleware type `{name}`"), remedy))
    }
}

/// What definitions do to each other, as warnings; `tools` as they will be built with.
pub fn at_odds(definitions: &[Definition], tools: &Tools) -> Vec<Problem> {
    if tools.redis.is_some() { rate_limit::neighbours::at_odds(definitions) } else { Vec::new() }
}

/// `paths` of a kind that is for all requests, as in Goma.
fn stray_paths<S: Settings>(scope: &Scope<'_>) -> Option<Problem> {
    let paths = scope.place.child("paths");
    let stray = !S::PATHS && !scope.paths.is_empty();
    let message = format!("do not count for `{}`: it is for every request of a route", S::KIND[0]);
    stray.then(|| paths.warning(message, "remove them, or give those paths a route of their own"))
}

/// Every kind, a line each.
pub const KINDS: &[Kind] = &[
    Kind::of::<access::Access>(),
    Kind::of::<access_log::AccessLog>(),
    Kind::of::<access_policy::AccessPolicy>(),
    Kind::of::<add_prefix::AddPrefix>(),
    Kind::of::<body_limit::BodyLimit>(),
    Kind::of::<bots::BotDetection>(),
    Kind::of::<geo_block::GeoBlock>(),
    Kind::of::<in_flight::InFlight>(),
    Kind::of::<http_cache::HttpCache>(),
    Kind::of::<redirects::fixed::Redirect>(),
    Kind::of::<redirects::pattern::RedirectRegex>(),
    Kind::of::<redirects::scheme::RedirectScheme>(),
    Kind::of::<request_headers::RequestHeaders>(),
    Kind::of::<compress::Compress>(),
    Kind::of::<error_interceptor::ErrorInterceptor>(),
    Kind::of::<exploit::ExploitProtection>(),
    Kind::of::<basic::Basic>(),
    Kind::of::<forward_auth::ForwardAuth>(),
    Kind::of::<ldap::Ldap>(),
    Kind::of::<jwt::Jwt>(),
    Kind::of::<oauth::OAuth>(),
    Kind::of::<rate_limit::RateLimit>(),
    Kind::of::<response_headers::ResponseHeaders>(),
    Kind::of::<rewrite_regex::RewriteRegex>(),
    Kind::of::<strip_query::StripQuery>(),
    Kind::of::<user_agent_block::UserAgentBlock>(),
];

/// Goma's kinds that cannot run here yet: a configuration with one of them is refused, since the route would go without.
pub const LATER: &[&str] = &[];
