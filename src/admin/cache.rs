//! `/gateway/cache`: what the caches hold, and purging in them. Ours; the token is asked for as for a reload.
//!
//! `GET` says what is there. `POST` purges what its query names: `all=true`, `url=`, `prefix=` or `tag=`, in all routes or in
//! `route=`; `soft=true` leaves responses there, stale.

use serde::Serialize;
use serde_json::{Value, json};

use super::Answer;
use crate::cache::zone::{Purge, What, Zones};
use crate::fields;

#[derive(Serialize)]
struct Purged {
    purged: usize,
    status: &'static str,
}

#[derive(Serialize)]
struct Refused<'a> {
    error: &'a str,
    status: &'static str,
}

/// What the caches hold.
pub fn cache_status(zones: &Zones) -> Answer {
    let caches: Vec<Value> = zones
        .figures()
        .into_iter()
        .map(|cache| {
            let counts =
                |pairs: Vec<(&'static str, u64)>| pairs.into_iter().collect::<std::collections::BTreeMap<_, _>>();
            json!({
                "name": cache.name,
                "route": cache.route,
                "bytes": cache.used,
                "limit": cache.limit,
                "entries": cache.entries,
                "evicted": cache.evicted,
                "purged": cache.purged,
                "collapsed": cache.collapsed,
                "servedBytes": cache.served,
                "requests": counts(cache.outcomes),
                "bypasses": counts(cache.bypasses),
            })
        })
        .collect();
    Answer::json(200, &json!({ "caches": caches, "status": "ok" }))
}

/// What a query asks to purge.
///
/// # Errors
/// When it says nothing, or more than one thing.
pub fn purge_of(query: Option<&str>) -> Result<Purge, &'static str> {
    let value = |name| query.and_then(|query| fields::parameter(query, name)).map(String::from);
    let said = |name| value(name).is_some_and(|value| matches!(value.as_str(), "true" | "1" | ""));
    let route = value("route");
    let mut named = [
        value("url").map(|url| What::place(&url)),
        value("prefix").map(|prefix| What::place(&format!("{}*", prefix.trim_end_matches('*')))),
        value("tag").map(What::Tag),
        said("all").then_some(What::All),
    ]
    .into_iter()
    .flatten();
    let what = match (named.next(), named.next()) {
        (Some(what), None) => what,
        (None, _) if route.is_some() => What::All,
        (None, _) => return Err("name what to purge: all, url, prefix, tag or route"),
        _ => return Err("name one of all, url, prefix and tag"),
    };
    Ok(Purge { what, route, soft: said("soft") })
}

/// So many entries were purged.
pub fn cache_purged(purged: usize) -> Answer {
    Answer::json(200, &Purged { purged, status: "ok" })
}

/// The request was refused.
pub fn cache_refused(status: u16, error: &str) -> Answer {
    Answer::json(status, &Refused { error, status: "error" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_one_thing_to_purge() {
        for (query, what, soft) in [
            ("all=true", Some(What::All), false),
            ("route=r", Some(What::All), false),
            ("tag=a+b&soft=true", Some(What::Tag("a b".to_owned())), true),
            ("url=http%3A%2F%2FShop%2Fa%3Fx", Some(What::Place("shop/a".to_owned())), false),
            ("url=shop/a*", Some(What::Prefix("shop/a".to_owned())), false),
            ("prefix=shop/a", Some(What::Prefix("shop/a".to_owned())), false),
            ("tag=a&all=true", None, false),
            ("all=false", None, false),
            ("", None, false),
        ] {
            let purge = purge_of(Some(query)).ok();
            assert_eq!(purge.as_ref().map(|purge| &purge.what), what.as_ref(), "{query}");
            assert_eq!(purge.is_some_and(|purge| purge.soft), soft, "{query}");
        }
    }
}
