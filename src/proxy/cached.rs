//! A request meets the cache: what is decided before the backend is asked, in Pingora's cache phases, and what is said of it.
//!
//! The usual hit is answered at once, behind the chain and without Pingora's cache machine; that one does the rest: filling,
//! waiting for another request's response, validation, stale responses, ranges. RFC 9111 decides, in `cache`.

use std::sync::Arc;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use pingora_cache::key::HashBinary;
use pingora_cache::{
    CacheKey, CacheMeta, CacheOptionOverrides, CachePhase, ForcedFreshness, NoCacheReason, RespCacheable,
};
use pingora_error::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::ctx::{Ctx, Plan};
use super::{refresh, respond, stored};
use crate::cache::directives::{RequestControl, ResponseControl};
use crate::cache::entry::{self, Entry, Subject};
use crate::cache::freshness::{self, Asked, Use};
use crate::cache::prepared::{Carried, Prepared};
use crate::cache::shared::Asking;
use crate::cache::status::Outcome;
use crate::cache::storage::{pingora_key, renew};
use crate::cache::store::Found;
use crate::cache::vary::Selecting;
use crate::exchange::{Exchange, Reason};
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

/// The backend's response head is there: what it means for the cache beside being stored.
pub fn came(session: &mut Session, ctx: &mut Ctx, head: &ResponseHeader) {
    let Some(exchange) = &ctx.exchange else { return };
    let Some(cached) = &mut ctx.cache else { return };
    let Some(zone) = cached.rule.zone.clone() else { return };
    if head.status == StatusCode::NOT_MODIFIED && session.cache.maybe_cache_meta().is_some() {
        cached.news = Some(head.headers.clone());
        return;
    }
    match exchange.method {
        Method::GET => length_unknown(session, cached, head),
        Method::HEAD => freshen(session.req_header(), exchange, cached, head),
        _ if exchange.method.is_safe() => {}
        // RFC 9111 §4.4.
        _ if head.status.is_success() || head.status.is_redirection() => {
            let place = |path: &str| format!("{}{path}", exchange.host.to_ascii_lowercase());
            zone.invalidate(cached.key, place(&exchange.path));
            for name in [header::LOCATION, header::CONTENT_LOCATION] {
                let target = head.headers.get(name).and_then(|value| value.to_str().ok());
                if let Some((key, path)) = target.and_then(|target| elsewhere(exchange, &cached.rule, target)) {
                    zone.invalidate(key, place(&path));
                }
            }
        }
        _ => {}
    }
}

/// A response of unknown length cannot be shown to others before its end, and may turn out to be too large.
fn length_unknown(session: &mut Session, cached: &Cached, head: &ResponseHeader) {
    let cache = &mut session.cache;
    if !(cache.enabled() || cache.bypassing()) || declared(&head.headers).is_some() {
        return;
    }
    let Some(zone) = &cached.rule.zone else { return };
    let Some(key) = cache.maybe_cache_key().cloned() else { return };
    let bypasses = cache.bypassing();
    let lock = (!bypasses && cache.is_cache_lock_writer()).then(|| cache.take_write_lock());
    cache.disable(NoCacheReason::Deferred);
    cache.enable(zone.plain, None, Some(zone.predictor), lock.as_ref().map(|(_, lock)| *lock), None);
    cache.set_cache_key(key);
    if let Some((permit, _)) = lock {
        cache.set_write_lock(permit);
    }
    match bypasses {
        true => cache.bypass(),
        false => cache.cache_miss(),
    }
}

/// The length that a response says.
fn declared(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.split(',').next()?.trim().parse().ok()
}

/// The response to a HEAD freshens what is stored, or shows that it is something else by now. RFC 9111 §4.3.5.
fn freshen(request: &RequestHeader, exchange: &Exchange, cached: &Cached, head: &ResponseHeader) {
    let Some(zone) = &cached.rule.zone else { return };
    if head.status != StatusCode::OK || matches!(cached.outcome, Outcome::Bypass(_)) {
        return;
    }
    let found = zone.store.find(cached.key, |selecting| selecting.variant(&request.headers));
    let Found::Entry(entry) = found else { return };
    if entry.head.status != StatusCode::OK {
        return;
    }
    let same = |name: HeaderName| match (entry.head.headers.get(&name), head.headers.get(&name)) {
        (Some(stored), Some(new)) => stored == new,
        _ => true,
    };
    if !(same(header::ETAG) && same(header::LAST_MODIFIED) && same(header::CONTENT_LENGTH)) {
        zone.store.replace(cached.key, &entry, entry.expired(freshness::now()));
        return;
    }
    if let Ok(prepared) = prepare(request, exchange, cached, StatusCode::OK, &head.headers, Some(&entry)) {
        renew(zone.store, zone.shared, &prepared);
    }
}

/// The key of a URL that a response names, where it is of the same origin. RFC 9111 §4.4.
fn elsewhere(exchange: &Exchange, rule: &Caching, target: &str) -> Option<(u128, String)> {
    let target = target.split('#').next()?;
    let (path, host) = match target.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let same = scheme.eq_ignore_ascii_case(exchange.scheme) && host.eq_ignore_ascii_case(&exchange.host);
            same.then_some((path, host))?
        }
        None if target.starts_with("//") => return None,
        None => (target, exchange.host.as_str()),
    };
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let path = match path {
        "" if target.contains("://") => "/".to_owned(),
        "" => exchange.path.clone(),
        path if path.starts_with('/') => path.to_owned(),
        path => {
            let folder = exchange.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{folder}/{path}")
        }
    };
    Some((rule.parts.of_url(exchange.scheme, host, &path, query)?, path))
}

/// Decides whether a response is stored, and how.
pub fn storable(session: &Session, head: &ResponseHeader, ctx: &mut Ctx) -> Result<RespCacheable> {
    let no = |why| Ok(RespCacheable::Uncacheable(NoCacheReason::Custom(why)));
    let (Some(exchange), Some(cached)) = (&ctx.exchange, &mut ctx.cache) else { return no("no cache") };
    let news = cached.news.take();
    let (status, headers, old) = match (&news, &cached.entry) {
        (Some(news), Some(entry)) => {
            cached.outcome = Outcome::Revalidated;
            (entry.head.status, news, Some(entry.clone()))
        }
        _ => (head.status, &head.headers, None),
    };
    // Without a length or chunks nobody can tell a whole body from one that was cut off.
    let framed = old.is_some()
        || head.version == http::Version::HTTP_2
        || status == StatusCode::NO_CONTENT
        || headers.contains_key(header::TRANSFER_ENCODING)
        || declared(headers).is_some();
    if !framed {
        cached.why = "length";
        return no("length");
    }
    match prepare(session.req_header(), exchange, cached, status, headers, old.as_ref()) {
        Ok(prepared) if old.is_none() && prepared.declared.is_some_and(|length| length > prepared.most) => {
            cached.why = "size";
            Ok(RespCacheable::Uncacheable(NoCacheReason::ResponseTooLarge))
        }
        Ok(prepared) => {
            cached.own = own(headers, &prepared, old.is_some());
            cached.stored = true;
            cached.why = "";
            cached.ttl = Some(ttl(prepared.terms.fresh_until, freshness::now()));
            Ok(RespCacheable::Cacheable(Carried::Prepared(Arc::new(prepared)).meta()))
        }
        Err(why) => {
            // What is stored must not be used once more in place of what may not be.
            if let (Some(zone), Some(entry)) = (&cached.rule.zone, &cached.entry)
                && status.is_success()
            {
                zone.store.remove(cached.key, Some(entry.variant));
            }
            cached.why = why;
            no(why)
        }
    }
}

/// Fields of a response that its own client gets and the store does not.
fn own(headers: &HeaderMap, prepared: &Prepared, validated: bool) -> Vec<(HeaderName, HeaderValue)> {
    let mut names = ResponseControl::of(headers).fields;
    names.push(header::AGE);
    if validated {
        names.push(header::SET_COOKIE);
    }
    names.retain(|name| validated || !prepared.head.headers.contains_key(name));
    let values = |name: &HeaderName| headers.get_all(name).iter().map(|value| (name.clone(), value.clone())).collect();
    names.iter().flat_map(|name| -> Vec<_> { values(name) }).collect()
}

fn prepare(
    request: &RequestHeader,
    exchange: &Exchange,
    cached: &Cached,
    status: StatusCode,
    headers: &HeaderMap,
    old: Option<&Arc<Entry>>,
) -> std::result::Result<Prepared, &'static str> {
    let came = freshness::now();
    let sent = if cached.sent == 0 { came } else { cached.sent.min(came) };
    let rule = &cached.rule;
    let merged = old.map(|old| {
        let control = ResponseControl::of(headers);
        entry::updated(&old.head, headers, &control.fields, came)
    });
    // Terms go by the response as it is stored, with the age that the news has.
    let mut whole = merged.as_ref().map_or_else(|| headers.clone(), |merged| merged.headers.clone());
    if old.is_some() {
        for age in headers.get_all(header::AGE) {
            whole.append(header::AGE, age.clone());
        }
    }
    let control = ResponseControl::of(&whole);
    let cookies = request.headers.contains_key(header::COOKIE) && rule.parts.cookies.is_empty();
    let asked = Asked { authorized: cached.authorized, cookies, times: (sent, came) };
    let terms = rule.policy.terms(status, &whole, &control, &asked)?;
    let selecting = Selecting::of(&whole, &rule.vary).ok_or("vary")?;
    let variant = selecting.variant(&request.headers);
    // A validated entry stays where it is, even if it says another `Vary` now.
    let (selecting, variant) = match old {
        Some(old) => (old.selecting.clone(), old.variant),
        None => (Arc::new(selecting), variant),
    };
    let place = format!("{}{}", exchange.host.to_ascii_lowercase(), exchange.path);
    let subject = Arc::new(Subject { place: place.into(), tags: entry::tags(&whole) });
    let declared = if status == StatusCode::NO_CONTENT { Some(0) } else { declared(headers) };
    Ok(Prepared {
        key: cached.key,
        variant,
        selecting,
        head: merged.unwrap_or_else(|| entry::head(status, headers, &control.fields, came)),
        terms,
        subject,
        declared,
        most: rule.most,
        renews: old.cloned(),
        sent,
    })
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
