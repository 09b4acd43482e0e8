//! A backend's response meets the cache: whether it is kept and how, and what it says of what is stored already.

use std::sync::Arc;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use pingora_cache::{NoCacheReason, RespCacheable};
use pingora_error::Result;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::cached::{Cached, ttl};
use super::ctx::Ctx;
use crate::cache::directives::ResponseControl;
use crate::cache::entry::{self, Entry, Subject};
use crate::cache::freshness::{self, Asked};
use crate::cache::prepared::{Carried, Prepared};
use crate::cache::status::Outcome;
use crate::cache::storage::renew;
use crate::cache::store::Found;
use crate::cache::vary::Selecting;
use crate::exchange::Exchange;
use crate::middleware::http_cache::Caching;

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
