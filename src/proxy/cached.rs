//! A request meets the cache: what is decided before the backend is asked, in Pingora's cache phases, and what is said of it.
//! What becomes of the backend's response is `keeping`'s.
//!
//! The usual hit is answered at once, behind the chain and without Pingora's cache machine; that one does the rest: filling,
//! waiting for another request's response, validation, stale responses, ranges. RFC 9111 decides, in `cache`.

use std::sync::Arc;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use pingora_cache::key::HashBinary;
use pingora_cache::{CacheKey, CacheMeta, CacheOptionOverrides, CachePhase, ForcedFreshness};
use pingora_error::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::ctx::{Ctx, Plan};
use super::{refresh, respond, stored};
use crate::cache::directives::RequestControl;
use crate::cache::entry::Entry;
use crate::cache::freshness::{self, Use};
use crate::cache::prepared::Carried;
use crate::cache::shared::Asking;
use crate::cache::status::Outcome;
use crate::cache::storage::pingora_key;
use crate::cache::store::Found;
use crate::exchange::Reason;
use crate::middleware::http_cache::{self, Caching};
use crate::reply::Reply;

/// What one request has to do with the cache.
pub struct Cached {
    /// The cache.
    pub rule: Arc<Caching>,
    /// Its key.
    pub key: u128,
    /// What the client asks of caches.
    pub control: RequestControl,
    /// What became of it.
    pub outcome: Outcome,
    /// Whether Pingora's cache takes part.
    pub fills: bool,
    /// What there is for it, when that is not new enough.
    pub entry: Option<Arc<Entry>>,
    /// Whether an error of the backend may be answered with that.
    pub stale_if_error: bool,
    /// It says who the client is.
    pub authorized: bool,
    /// Nobody waits for it: it fetches an entry anew.
    pub refresh: bool,
    /// When it went to the backend.
    pub sent: u64,
    /// Fields of a 304, until they are stored.
    pub news: Option<HeaderMap>,
    /// Fields of the backend's response that are not stored: they are for this client alone.
    pub own: Vec<(HeaderName, HeaderValue)>,
    /// When what is served was of age 0.
    pub born: Option<u64>,
    /// Seconds for which what is stored of its response is fresh.
    pub ttl: Option<i64>,
    /// Whether its response is stored.
    pub stored: bool,
    /// Why it is not.
    pub why: &'static str,
}

impl Cached {
    /// At the beginning.
    pub fn new(rule: Arc<Caching>, key: u128, control: RequestControl, authorized: bool) -> Cached {
        Cached {
            rule,
            key,
            control,
            outcome: Outcome::Miss,
            fills: false,
            entry: None,
            stale_if_error: false,
            authorized,
            refresh: false,
            sent: 0,
            news: None,
            own: Vec::new(),
            born: None,
            ttl: None,
            stored: false,
            why: "",
        }
    }

    fn bypass(mut self, why: &'static str) -> Cached {
        self.outcome = Outcome::Bypass(why);
        self
    }
}

/// Looks for a response. `true`: the client has it, or another answer.
pub async fn answer(session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
    let (Plan::Route(route), Some(exchange)) = (&ctx.plan, &ctx.exchange) else { return Ok(false) };
    let Some(rule) = route.chain.shell.cache(&exchange.path).filter(|rule| rule.zone.is_some()).cloned() else {
        return Ok(false);
    };
    let no_body = session.as_downstream_mut().is_body_empty();
    let head = session.req_header();
    if exchange.method.as_str() == "PURGE" && rule.purge.is_some() {
        let reply = super::purge::answer(&rule, exchange, &head.headers);
        respond::reply(session, ctx, &reply, respond::Form::Routed).await?;
        return Ok(true);
    }
    let is_get = exchange.method == Method::GET;
    if session.is_upgrade_req() {
        return Ok(false);
    }
    let key = rule.parts.of(exchange, &head.headers);
    let control = RequestControl::of(&head.headers);
    let authorized = ctx.authorized || http_cache::authorized(&head.headers, &route.identity);
    let mut cached = Cached::new(rule.clone(), key, control, authorized);
    if !is_get && exchange.method != Method::HEAD {
        // The response may make entries useless.
        cached.outcome = Outcome::Bypass("method");
        ctx.cache = Some(Box::new(cached));
        return Ok(false);
    }
    if let Some(why) = bypass(head, &control, no_body) {
        ctx.cache = Some(Box::new(cached.bypass(why)));
        return Ok(false);
    }
    let now = freshness::now();
    let Some(zone) = &rule.zone else { return Ok(false) };
    if let Found::Entry(entry) = zone.store.find(key, |selecting| selecting.variant(&head.headers)) {
        let may = rule.policy.judge(&entry.terms, &control, now);
        if let Use::Revalidate { stale_if_error } = may {
            cached.stale_if_error = stale_if_error;
            cached.outcome = Outcome::Expired;
            cached.entry = Some(entry);
        } else if !is_get || !head.headers.contains_key(header::RANGE) {
            cached.outcome = if may == Use::Fresh { Outcome::Hit } else { Outcome::Stale };
            if may == Use::StaleWhileRevalidate {
                refresh::spawn(session, ctx, &cached, &entry);
            }
            ctx.cache = Some(Box::new(cached));
            stored::send(session, ctx, &entry, now).await?;
            return Ok(true);
        }
    }
    if control.only_if_cached {
        cached.outcome = Outcome::Miss;
        ctx.cache = Some(Box::new(cached));
        ctx.ends(Reason::Answered("httpCache"));
        let reply = Reply::plain(StatusCode::GATEWAY_TIMEOUT);
        respond::reply(session, ctx, &reply, respond::Form::Routed).await?;
        return Ok(true);
    }
    let overrides = OVERRIDES.iter().any(|name| head.headers.contains_key(*name));
    cached = match overrides {
        true => cached.bypass("override"),
        // What is asked for its head alone is not worth the whole.
        false => Cached { fills: is_get, ..cached },
    };
    ctx.cache = Some(Box::new(cached));
    Ok(false)
}

/// Why a request is not looked for in the cache, if it is not.
fn bypass(head: &RequestHeader, control: &RequestControl, no_body: bool) -> Option<&'static str> {
    let has = |name: HeaderName| head.headers.contains_key(name);
    match () {
        () if control.no_store => Some("no-store"),
        // A backend may look at what the key does not know.
        () if !no_body => Some("body"),
        // These are for the backend to decide. RFC 9111 §4.3.2.
        () if has(header::IF_MATCH) || has(header::IF_UNMODIFIED_SINCE) => Some("precondition"),
        () => None,
    }
}

/// With these a client tells some backends that it wants something else than the URL says: such a response is nobody else's.
const OVERRIDES: [&str; 9] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
    "x-original-host",
    "x-host",
    "x-forwarded-server",
    "x-forwarded-scheme",
];

/// Hands the request to Pingora's cache.
pub fn enable(session: &mut Session, ctx: &mut Ctx) {
    let Some(cached) = ctx.cache.as_ref().filter(|cached| cached.fills) else { return };
    let Some(zone) = &cached.rule.zone else { return };
    let patience = (!cached.rule.patience.is_zero() && !cached.refresh).then_some(cached.rule.patience);
    // What is to be validated is known to be storable.
    let predictor = (cached.entry.is_none() && !cached.refresh).then_some(zone.predictor as _);
    let overrides = patience.map(|wait| {
        let mut overrides = CacheOptionOverrides::default();
        overrides.wait_timeout = Some(wait);
        overrides
    });
    session.cache.enable(zone.streaming, None, predictor, patience.map(|_| zone.lock as _), overrides);
}

/// The key in Pingora's form.
pub fn key(session: &Session, ctx: &Ctx) -> Result<CacheKey> {
    match &ctx.cache {
        Some(cached) => {
            let mut key = pingora_key(cached.key);
            if cached.rule.zone.as_ref().is_some_and(|zone| zone.shared.load().is_some()) {
                key.extensions.insert(Asking(Arc::new(session.req_header().headers.clone())));
            }
            Ok(key)
        }
        None => Error::e_explain(ErrorType::InternalError, "a cache key without a cache"),
    }
}

/// The variant that a request asks for, given what was found.
pub fn variant(meta: &CacheMeta, request: &RequestHeader) -> Option<HashBinary> {
    let selecting = Carried::of(meta)?.selecting();
    (!selecting.is_empty()).then(|| selecting.variant(&request.headers).to_be_bytes())
}

/// What Pingora found is judged: by now another request may have brought it.
pub fn found(session: &Session, meta: &CacheMeta, ctx: &mut Ctx) -> Option<ForcedFreshness> {
    let (Some(cached), Some(carried)) = (&mut ctx.cache, Carried::of(meta)) else {
        return Some(ForcedFreshness::ForceMiss);
    };
    let now = freshness::now();
    let entry = match carried {
        Carried::Entry(entry) => Some(entry.clone()),
        _ => None,
    };
    let terms = carried.terms();
    let expired = Some(ForcedFreshness::ForceExpiredServeStale { expired_at: None });
    if cached.refresh {
        cached.outcome = Outcome::Expired;
        cached.entry = entry;
        return expired;
    }
    cached.ttl = Some(ttl(terms.fresh_until, now));
    cached.born = Some(terms.born);
    match cached.rule.policy.judge(terms, &cached.control, now) {
        Use::Revalidate { stale_if_error } => {
            cached.stale_if_error = stale_if_error;
            cached.outcome = Outcome::Expired;
            cached.entry = entry;
            return expired;
        }
        Use::Fresh => cached.outcome = Outcome::Hit,
        Use::Stale | Use::StaleWhileRevalidate => cached.outcome = Outcome::Stale,
    }
    if let Some(zone) = &cached.rule.zone
        && (entry.is_none() || session.cache.lock_duration().is_some())
    {
        zone.tally.collapsed();
    }
    cached.entry = entry;
    Some(ForcedFreshness::ForceFresh)
}

/// Whether a stale response goes out in place of an error.
pub fn serves_stale(session: &mut Session, ctx: &mut Ctx, error: Option<&Error>) -> bool {
    let (Some(cached), Some(error)) = (&mut ctx.cache, error) else { return false };
    let failed = match (error.esource(), &error.etype) {
        (_, ErrorType::HTTPStatus(status)) => matches!(status, 500 | 502 | 503 | 504),
        (ErrorSource::Downstream, _) => false,
        (_, ErrorType::Custom(what)) => *what != "Refused",
        _ => true,
    };
    let serves = failed && cached.stale_if_error && cached.entry.is_some() && !cached.refresh;
    if serves {
        cached.outcome = Outcome::StaleError;
        // After an error Pingora closes the connection; the client has to know.
        if !matches!(error.etype, ErrorType::HTTPStatus(_)) {
            super::close(session, ctx);
        }
    }
    serves
}

/// Says in the head of a response what the cache did.
pub fn dress(session: &Session, ctx: &mut Ctx, head: &mut ResponseHeader) -> Result<()> {
    let Some(cached) = &mut ctx.cache else { return Ok(()) };
    let looked = match session.req_header().method {
        Method::GET => true,
        Method::HEAD => cached.outcome == Outcome::Hit || cached.outcome == Outcome::Stale,
        _ => false,
    };
    if !looked {
        return Ok(());
    }
    match session.cache.phase() {
        CachePhase::Hit | CachePhase::Stale | CachePhase::StaleUpdating => {
            let age = cached.born.map_or(0, |born| freshness::now().saturating_sub(born) / 1000);
            head.insert_header(header::AGE, age)?;
        }
        // Written and read from the store at once, the head lacks what is not for others.
        CachePhase::Miss | CachePhase::Expired | CachePhase::Revalidated => {
            let absent: Vec<_> = cached.own.drain(..).filter(|(name, _)| !head.headers.contains_key(name)).collect();
            for (name, value) in absent {
                head.append_header(name, value)?;
            }
        }
        _ => {}
    }
    stored::say(cached, head)
}

/// Seconds for which something is fresh; negative when it is stale.
pub fn ttl(fresh_until: u64, now: u64) -> i64 {
    let seconds = |ms: u64| i64::try_from(ms.div_ceil(1000)).unwrap_or(i64::MAX);
    if fresh_until >= now { seconds(fresh_until - now) } else { -seconds(now - fresh_until) }
}

/// The request has ended: counts it.
pub fn ended(ctx: &Ctx) {
    let Some(cached) = &ctx.cache else { return };
    if let Some(zone) = &cached.rule.zone
        && !cached.refresh
        && ctx.exchange.as_ref().is_some_and(|exchange| exchange.method == Method::GET)
    {
        zone.tally.count(cached.outcome, ctx.sent_bytes);
    }
    if let (true, Some(entry)) = (cached.refresh, &cached.entry) {
        entry.end_refresh();
    }
}
