//! One attempt at a backend: who gets it, how long it may take, and what its backend is told of the outcome.

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use pingora_core::protocols::Digest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::arrive::Facts;
use super::ctx::{Ctx, Plan};
use super::{Gateway, fail};
use crate::snapshot::Route;
use crate::upstream::deadline::{Deadline, Limits};
use crate::upstream::{NoBackend, PeerKind, Pick};

/// Begins the next attempt, unless it has begun: waits as long as the route says, sees to it that there is a backend, counts
/// the attempt and starts its clock.
pub async fn begin(session: &Session, ctx: &mut Ctx) -> Result<()> {
    if ctx.asked.is_some() {
        return Ok(());
    }
    ctx.deadline = None;
    if ctx.overdue() {
        return Err(fail::overdue());
    }
    if let (Some(route), Some(exchange)) = (ctx.route(), &ctx.exchange) {
        let next = exchange.attempts as usize + 1 - ctx.replays;
        let pause = route.upstream.policy().map(|policy| policy.pause(next));
        match exchange.attempts {
            0 => route.upstream.begin(),
            _ => tokio::time::sleep(pause.unwrap_or_default()).await,
        }
    }
    choose(session, ctx).await?;
    if let Some(exchange) = &mut ctx.exchange {
        exchange.attempts += 1;
    }
    ctx.asked = Some(Instant::now());
    Ok(())
}

/// Sees to it that there is a backend for the next attempt. One that is still there is to be asked: its kept connection was
/// dead, or it was chosen with care.
async fn choose(session: &Session, ctx: &mut Ctx) -> Result<()> {
    if let (Plan::Route(route), None) = (&ctx.plan, &ctx.pick) {
        let route = route.clone();
        ctx.pick = Some(pick(session, ctx, &route).await?);
    }
    Ok(())
}

/// Where the backend of this attempt is.
///
/// # Errors
/// When its name has no address; whether there is to be another attempt is decided.
pub async fn address(gateway: &Gateway, session: &Session, ctx: &mut Ctx) -> Result<SocketAddr> {
    let Some(pick) = &ctx.pick else {
        return Error::e_explain(ErrorType::InternalError, "no backend to look up");
    };
    match pick.backend.address().await {
        Ok(address) => Ok(address),
        Err(unresolved) => Err(fail::connect(gateway, session, ctx, None, fail::unresolved(&unresolved))),
    }
}

/// Begins the next attempt and describes the connection to its backend.
pub async fn peer(gateway: &Gateway, session: &Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
    begin(session, ctx).await?;
    let address = address(gateway, session, ctx).await?;
    let Some(pick) = &ctx.pick else {
        return Error::e_explain(ErrorType::InternalError, "no backend to connect to");
    };
    let kind = if session.is_upgrade_req() { PeerKind::Upgrade } else { PeerKind::Plain };
    let mut peer = pick.backend.peer(address, kind);
    if let Some(end) = ctx.end() {
        let left = end.saturating_duration_since(Instant::now());
        let limit = peer.options.connection_timeout.map_or(left, |limit| limit.min(left));
        peer.options.connection_timeout = Some(limit);
    }
    Ok(peer)
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

/// How long this attempt may wait for the head of its response.
pub fn header_limit(ctx: &Ctx) -> Option<Duration> {
    let (Plan::Route(route), Some(exchange)) = (&ctx.plan, &ctx.exchange) else { return None };
    let policy = route.upstream.policy().filter(|policy| policy.allows(&exchange.method));
    let per_try = policy.and_then(|policy| policy.per_try);
    route.limits.header.into_iter().chain(per_try).min()
}

/// The clocks that run over a fresh connection of Pingora's.
pub fn deadline(ctx: &Ctx, fd: RawFd, digest: Option<&Digest>) -> Option<Deadline> {
    let limits = Limits { header: header_limit(ctx), ..rest(ctx) };
    if limits.is_none() { None } else { Deadline::new(fd, digest, limits).ok() }
}

/// The clocks that run over the rest of a response, on a connection of ours.
pub fn deadline_of_rest(ctx: &Ctx, fd: RawFd) -> Option<Deadline> {
    let limits = rest(ctx);
    if limits.is_none() { None } else { Deadline::new(fd, None, limits).ok() }
}

fn rest(ctx: &Ctx) -> Limits {
    Limits { header: None, idle: ctx.route().and_then(|route| route.limits.idle), end: ctx.end() }
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
