//! One attempt at a backend: who gets it, how long it may take, and what its backend is told of the outcome.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::Result;
use pingora_proxy::Session;

use super::arrive::Facts;
use super::ctx::{Ctx, Plan};
use super::fail;
use crate::snapshot::Route;
use crate::upstream::deadline::{Deadline, Limits};
use crate::upstream::{NoBackend, PeerKind, Pick};

/// Chooses the backend of the next attempt, unless that is done, and describes the connection to it.
pub async fn peer(session: &mut Session, ctx: &mut Ctx, route: &Route) -> Result<Option<Box<HttpPeer>>> {
    let Some(exchange) = &mut ctx.exchange else { return Ok(None) };
    exchange.attempts += 1;
    let attempt = exchange.attempts as usize - ctx.replays;
    if exchange.attempts == 1 {
        route.upstream.begin();
    }
    ctx.deadline = None;
    if ctx.overdue() {
        return Err(fail::overdue());
    }
    if let Some(pause) = route.upstream.policy().map(|policy| policy.pause(attempt)).filter(|pause| !pause.is_zero()) {
        tokio::time::sleep(pause).await;
    }
    choose(session, ctx).await?;
    let Some(pick) = &ctx.pick else { return Ok(None) };
    let kind = if session.is_upgrade_req() { PeerKind::Upgrade } else { PeerKind::Plain };
    ctx.asked = Some(Instant::now());
    let mut peer = match pick.backend.peer(kind).await {
        Ok(peer) => peer,
        Err(unresolved) => {
            ctx.unresolved = Some(unresolved);
            return Ok(None);
        }
    };
    if let Some(end) = ctx.end() {
        let left = end.saturating_duration_since(Instant::now());
        let limit = peer.options.connection_timeout.map_or(left, |limit| limit.min(left));
        peer.options.connection_timeout = Some(limit);
    }
    Ok(Some(peer))
}

/// Sees to it that there is a backend for the next attempt. One that is still there is to be asked: its kept connection was
/// dead, or it was chosen with care.
pub async fn choose(session: &Session, ctx: &mut Ctx) -> Result<()> {
    if let (Plan::Route(route), None) = (&ctx.plan, &ctx.pick) {
        let route = route.clone();
        ctx.pick = Some(pick(session, ctx, &route).await?);
    }
    Ok(())
}

/// Waits in the route's line while all backends have as many requests as they may.
async fn pick(session: &Session, ctx: &Ctx, route: &Route) -> Result<Pick> {
    let mut waiting = None;
    loop {
        let picked = {
            let Some(exchange) = &ctx.exchange else { return Err(fail::no_backend(NoBackend::Unavailable)) };
            let facts = Facts { head: session.req_header(), exchange };
            route.upstream.pick(&facts, &ctx.tried)
        };
        match picked {
            Ok(pick) => return Ok(pick),
            Err(NoBackend::Busy) => {
                if waiting.is_none() {
                    waiting = route.upstream.wait();
                }
                match &waiting {
                    Some(waiting) if waiting.vacancy().await => {}
                    _ => return Err(fail::no_backend(NoBackend::Busy)),
                }
            }
            Err(reason) => return Err(fail::no_backend(reason)),
        }
    }
}

/// The clocks that run over a fresh connection.
pub fn deadline(ctx: &Ctx, fd: RawFd, digest: Option<&Digest>) -> Option<Deadline> {
    let (Plan::Route(route), Some(exchange)) = (&ctx.plan, &ctx.exchange) else { return None };
    let policy = route.upstream.policy().filter(|policy| policy.allows(&exchange.method));
    let per_try = policy.and_then(|policy| policy.per_try);
    let header = route.limits.header.into_iter().chain(per_try).min();
    let limits = Limits { header, idle: route.limits.idle, end: ctx.end() };
    if limits.is_none() { None } else { Deadline::new(fd, digest, limits).ok() }
}

/// A backend that has just turned a request away may do so again, and Pingora 0.9.1 loses that word when it finds out while
/// it writes the buffered body: then it is an error like any other, and the request is lost. Who waits a moment before that
/// body hears the word first.
pub async fn settle(ctx: &mut Ctx) {
    if std::mem::take(&mut ctx.turned_away) {
        tokio::time::sleep(SETTLE).await;
    }
}

const SETTLE: Duration = Duration::from_millis(5);

/// The head of a response is here: tells the backend's guard, unless that is let go for another attempt.
pub fn answered(ctx: &mut Ctx, status: u16) {
    if let (Plan::Route(route), Some(pick)) = (&ctx.plan, &mut ctx.pick) {
        route.upstream.answered(pick, status);
    }
}

/// The exchange is over and the backend did its part.
pub fn succeeded(ctx: &mut Ctx) {
    if let (Plan::Route(route), Some(pick), true) = (&ctx.plan, &mut ctx.pick, ctx.answered) {
        route.upstream.succeeded(pick);
    }
}
