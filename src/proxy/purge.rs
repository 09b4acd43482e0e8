//! `PURGE`: a client that may do so has responses removed from the cache of the route, or made stale.
//!
//! The URL is what is purged, with all its queries and variants; a `*` at the end of the path makes it all below. With a
//! `Cache-Tag` or `Surrogate-Key` header it is all responses with one of these tags instead.

use http::{HeaderMap, StatusCode, header};
use serde_json::json;

use crate::cache::entry;
use crate::cache::zone::{Purge, What};
use crate::exchange::Exchange;
use crate::middleware::http_cache::Caching;
use crate::reply::Reply;

/// Purges, if the client may.
pub fn answer(rule: &Caching, exchange: &Exchange, headers: &HeaderMap) -> Reply {
    let (Some(purging), Some(zone)) = (&rule.purge, &rule.zone) else {
        return Reply::plain(StatusCode::METHOD_NOT_ALLOWED);
    };
    let token = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
    if !purging.admits(exchange.client, token) {
        return Reply::plain(StatusCode::FORBIDDEN);
    }
    let soft = match headers.get("cache-purge").map(|value| value.as_bytes()) {
        Some(b"soft") => true,
        Some(b"hard") => false,
        _ => purging.soft,
    };
    let tags = entry::tags(headers);
    let targets = match tags.is_empty() {
        true => vec![What::place(&format!("{}{}", exchange.host, exchange.path))],
        false => tags.iter().map(|tag| What::Tag(tag.to_string())).collect(),
    };
    let route = Some(zone.route.clone());
    let purged: usize = targets.into_iter().map(|what| zone.purge(&Purge { what, route: route.clone(), soft })).sum();
    let body = json!({ "purged": purged, "status": "ok" }).to_string();
    Reply::exact(StatusCode::OK, "application/json", format!("{body}\n"))
}
