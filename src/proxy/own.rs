//! The gateway's own endpoints: metrics, health, readiness, reload. Entries of the same route table as users' routes.

use std::sync::Arc;

use http::{StatusCode, header};
use pingora_proxy::Session;

use super::Gateway;
use super::ctx::Ctx;
use crate::admin;
use crate::middleware::Chain;
use crate::reply::Reply;
use crate::snapshot::{Own, Snapshot};

/// Answers one of the gateway's endpoints.
pub async fn answer(gateway: &Gateway, own: &Own, session: &mut Session, ctx: &mut Ctx) -> Reply {
    match own {
        Own::Health => reply(admin::health()),
        Own::Ready => reply(admin::ready(gateway.control.ready())),
        Own::Metrics(chain) => match guard(chain, session, ctx).await {
            Some(refusal) => refusal,
            None => metrics(gateway).await,
        },
        Own::RouteHealth(chain) => match guard(chain, session, ctx).await {
            Some(refusal) => refusal,
            None => routes(&ctx.snapshot),
        },
        Own::Reload(token) => reload(gateway, token, session).await,
        Own::Cache(token) => cache(token, session, ctx),
    }
}

/// Middlewares of `monitoring.middleware` guard their endpoint as they would guard a route.
async fn guard(chain: &Arc<Chain>, session: &mut Session, ctx: &mut Ctx) -> Option<Reply> {
    let exchange = ctx.exchange.as_mut()?;
    let (_, verdict) = chain.request(exchange, session.req_header_mut()).await;
    let (reason, verdict) = verdict?;
    ctx.ends(reason);
    Some(verdict.reply)
}

/// The page of a large configuration takes a while to write; requests are not to wait for it.
async fn metrics(gateway: &Gateway) -> Reply {
    let metrics = gateway.metrics.clone();
    match tokio::task::spawn_blocking(move || metrics.render()).await {
        Ok((content_type, page)) => Reply::exact(StatusCode::OK, content_type, page),
        Err(_) => Reply::plain(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn routes(snapshot: &Snapshot) -> Reply {
    let mut states = Vec::new();
    for route in &snapshot.routes {
        let health = route.upstream.health();
        let single = health.len() == 1;
        for (index, state) in health {
            let name = if single { route.name.to_string() } else { format!("{} - [{index}]", route.name) };
            states.extend(state.map(|state| admin::RouteHealth { name, state }));
        }
    }
    reply(admin::route_health(&states, snapshot.hide_health_errors))
}

async fn reload(gateway: &Gateway, token: &str, session: &Session) -> Reply {
    let given = session.get_header(header::AUTHORIZATION).map(|value| value.as_bytes());
    if !admin::bearer(given, token) {
        return reply(admin::reload_unauthorized());
    }
    let started = std::time::Instant::now();
    match gateway.control.reload().await {
        Ok(routes) => reply(admin::reload_done(started.elapsed(), routes)),
        Err(error) => reply(admin::reload_failed(&error)),
    }
}

fn cache(token: &str, session: &Session, ctx: &Ctx) -> Reply {
    let given = session.get_header(header::AUTHORIZATION).map(|value| value.as_bytes());
    if !admin::bearer(given, token) {
        return reply(admin::cache_refused(401, "unauthorized"));
    }
    let zones = &ctx.snapshot.caches;
    if session.req_header().method == http::Method::GET {
        return reply(admin::cache_status(zones));
    }
    let query = ctx.exchange.as_ref().and_then(|exchange| exchange.query.as_deref());
    reply(match admin::purge_of(query) {
        Ok(purge) => admin::cache_purged(zones.purge(&purge)),
        Err(error) => admin::cache_refused(400, error),
    })
}

fn reply(answer: admin::Answer) -> Reply {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Reply::exact(status, answer.content_type, answer.body)
}
