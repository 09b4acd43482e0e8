//! Fetching an entry anew beside the request that got it stale. RFC 5861 §3.
//!
//! A request of our own goes through Pingora's phases without a client: it takes the facts of the one that caused it, does not
//! walk the chain again, and is neither counted nor logged as a request.

use std::sync::Arc;

use pingora_proxy::Session;
use pingora_proxy::subrequest::Ctx as SubrequestCtx;

use super::cached::Cached;
use super::ctx::{Ctx, Plan};
use crate::cache::entry::Entry;
use crate::cache::status::Outcome;
use crate::exchange::{Exchange, Reason};
use crate::middleware::http_cache::Caching;
use crate::snapshot::Route;

/// What the second request takes from the first.
struct Errand {
    exchange: Exchange,
    route: Arc<Route>,
    rule: Arc<Caching>,
    key: u128,
    authorized: bool,
    entry: Arc<Entry>,
}

/// Has the entry fetched anew, unless somebody does already.
pub fn spawn(session: &mut Session, ctx: &Ctx, cached: &Cached, entry: &Arc<Entry>) {
    let (Plan::Route(route), Some(exchange)) = (&ctx.plan, &ctx.exchange) else { return };
    let Some(spawner) = &session.subrequest_spawner else { return };
    if !entry.begin_refresh() {
        return;
    }
    let errand = Errand {
        exchange: again(exchange),
        route: route.clone(),
        rule: cached.rule.clone(),
        key: cached.key,
        authorized: cached.authorized,
        entry: entry.clone(),
    };
    let context = SubrequestCtx::builder().user_ctx(Box::new(errand)).build();
    spawner.spawn_background_subrequest(session.as_downstream(), context);
}

/// The facts of a request that has just begun.
fn again(exchange: &Exchange) -> Exchange {
    Exchange {
        id: exchange.id.clone(),
        method: http::Method::GET,
        host: exchange.host.clone(),
        path: exchange.path.clone(),
        query: exchange.query.clone(),
        started: std::time::Instant::now(),
        upstream_time: None,
        attempts: 0,
        cookies: Vec::new(),
        reason: Reason::Ok,
        why: std::borrow::Cow::Borrowed(""),
        held: Vec::new(),
        claims: exchange.claims.clone(),
        limits: Vec::new(),
        ..*exchange
    }
}

/// Whether this is such a request; sets it up.
pub fn arrive(session: &mut Session, ctx: &mut Ctx) -> bool {
    let Some(errand) = session.subrequest_ctx.as_mut().and_then(|context| context.user_ctx_mut()) else {
        return false;
    };
    let Some(errand) = errand.downcast_mut::<Errand>() else { return false };
    let mut cached = Cached::new(errand.rule.clone(), errand.key, Default::default(), errand.authorized);
    cached.outcome = Outcome::Expired;
    cached.fills = true;
    cached.refresh = true;
    cached.entry = Some(errand.entry.clone());
    ctx.exchange = Some(again(&errand.exchange));
    ctx.plan = Plan::Route(errand.route.clone());
    ctx.cache = Some(Box::new(cached));
    session.req_header_mut().set_method(http::Method::GET);
    true
}

/// Whether this request is such a one.
pub fn is(ctx: &Ctx) -> bool {
    ctx.cache.as_ref().is_some_and(|cached| cached.refresh)
}
