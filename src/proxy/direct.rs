//! The commonest exchange (no request body, a backend of HTTP/1 without TLS, no upgrade, no cache) without Pingora's way to
//! the backend: one future sends the request and passes the response on, through the same phases. See `upstream::direct`.
//!
//! Everything else, and what comes after a choice of another kind of backend, goes Pingora's way with what is known by then.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::{StatusCode, header};
use pingora_core::protocols::http::HttpTask;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use tokio::time::{Instant, sleep_until, timeout};

use super::ctx::Ctx;
use super::{Gateway, attempt as attempts, fail, forward, is_interim};
use crate::upstream::direct::Connection;
use crate::upstream::{Backend, Outcome};

/// Serves the request when it fits; whether it is still to be done.
///
/// # Errors
/// As Pingora's way: an error that is no reason for another attempt.
pub async fn serve(gateway: &Gateway, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
    if !fits(session, ctx) {
        return Ok(true);
    }
    loop {
        attempts::choose(session, ctx).await?;
        let Some(backend) = ctx.pick.as_ref().map(|pick| pick.backend.clone()).filter(|backend| backend.is_direct())
        else {
            return Ok(true);
        };
        ctx.attempt();
        match attempt(gateway, session, ctx, backend).await {
            Ok(()) => return Ok(false),
            Err(error) if error.retry() => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether a request may go without Pingora's way to the backend.
pub fn fits(session: &mut Session, ctx: &Ctx) -> bool {
    // What a route says about failing backends is done on Pingora's way.
    ctx.route().is_some_and(|route| route.limits.is_plain() && route.upstream.is_plain())
        && !session.cache.enabled()
        && !session.cache.bypassing()
        && session.as_downstream_mut().is_body_empty()
        && !session.is_upgrade_req()
        && !session.req_header().headers.contains_key(header::EXPECT)
}

async fn attempt(gateway: &Gateway, session: &mut Session, ctx: &mut Ctx, backend: Arc<Backend>) -> Result<()> {
    let address = match backend.address().await {
        Ok(address) => address,
        Err(unresolved) => return Err(fail::connect(gateway, session, ctx, None, fail::unresolved(&unresolved))),
    };
    // A request that is sent once more does not meet another connection that may be dead.
    let kept = if ctx.replays == 0 { backend.kept(address) } else { None };
    let reused = kept.is_some();
    let mut connection = match kept {
        Some(kept) => kept,
        None => match backend.open(address).await {
            Ok(opened) => {
                backend.report(address.ip(), Outcome::Connected);
                opened
            }
            Err(error) => return Err(fail::connect(gateway, session, ctx, Some(address.ip()), error.into_up())),
        },
    };
    match exchange(gateway, session, ctx, &backend, &mut connection).await {
        Ok(()) => {
            ctx.stop_upstream_clock();
            if ctx.discard.is_some() && !connection.is_done() {
                tokio::spawn(discard(backend, connection));
            } else {
                backend.keep(connection);
            }
            Ok(())
        }
        Err(error) => Err(fail::midway(gateway, session, ctx, error, reused)),
    }
}

/// One request and its response.
async fn exchange(
    gateway: &Gateway,
    session: &mut Session,
    ctx: &mut Ctx,
    backend: &Backend,
    connection: &mut Connection,
) -> Result<()> {
    let request = request(session, ctx, backend)?;
    connection.send(&request).await?;
    let mut head = response_head(gateway, session, ctx, connection).await?;
    gateway.came(session, &head, ctx)?;
    gateway.dress(session, &mut head, ctx).await?;
    // A page of ours went out instead.
    if ctx.discard.is_some() {
        return Ok(());
    }
    let mut done = connection.is_done();
    session.as_downstream_mut().response_duplex_vec(vec![HttpTask::Header(head, done)]).await?;
    while !done {
        let piece = tokio::select! {
            biased;
            piece = connection.piece() => piece,
            gone = gone(session) => return Err(gone),
        };
        let mut body = match piece {
            Ok(piece) => piece,
            // What has arrived goes out before the end of the connection tells that it is not all.
            Err(error) => {
                let failed = session
                    .as_downstream_mut()
                    .response_duplex_vec(vec![HttpTask::Body(None, false), HttpTask::Failed(error)])
                    .await;
                return failed.map(|_| ());
            }
        };
        done = body.is_none() || connection.is_done();
        gateway.pass(session, &mut body, done, ctx)?;
        done |= session.as_downstream_mut().response_duplex_vec(vec![HttpTask::Body(body, done)]).await?;
    }
    Ok(())
}

fn request(session: &Session, ctx: &mut Ctx, backend: &Backend) -> Result<BytesMut> {
    let (Some(route), Some(exchange)) = (ctx.route(), &ctx.exchange) else {
        return Error::e_explain(ErrorType::InternalError, "no route to forward for");
    };
    let client = session.req_header();
    let forward = forward::Forward { route, backend, client, conn: ctx.conn.as_deref(), unpacks: route.unpack_gzip };
    let mut changes = forward::changes(&forward, exchange, client)?;
    let mut wire = BytesMut::with_capacity(HEAD_ROOM);
    changes.write(client, &mut wire)?;
    ctx.sent_path = changes.path.take();
    ctx.asked_gzip = changes.asked_gzip;
    Ok(wire)
}

/// Waits for the final head of the response; interim ones pass to the client.
async fn response_head(
    gateway: &Gateway,
    session: &mut Session,
    ctx: &mut Ctx,
    connection: &mut Connection,
) -> Result<Box<ResponseHeader>> {
    let method = session.req_header().method.clone();
    let limit = ctx.route().and_then(|route| route.limits.header);
    let due = limit.map(|limit| Instant::now() + limit);
    loop {
        let mut head = tokio::select! {
            biased;
            head = connection.head(&method) => head?,
            gone = gone(session) => return Err(gone),
            late = overdue(due) => return Err(late),
        };
        if !is_interim(&head) || head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(head);
        }
        gateway.came(session, &head, ctx)?;
        gateway.dress(session, &mut head, ctx).await?;
        session.as_downstream_mut().response_duplex_vec(vec![HttpTask::Header(head, false)]).await?;
    }
}

/// Ends when the client goes away, or its request is overdue.
async fn gone(session: &mut Session) -> Box<Error> {
    match session.as_downstream_mut().read_body_or_idle(true).await {
        Err(error) => error.into_down(),
        Ok(_) => std::future::pending().await,
    }
}

async fn overdue(due: Option<Instant>) -> Box<Error> {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
    Error::explain(ErrorType::ReadTimedout, "the response head came too late").into_up()
}

/// Reads what is left of a small body that nobody wants, so that the connection can be kept.
async fn discard(backend: Arc<Backend>, mut connection: Connection) {
    let read = async {
        let mut left = MOST_DISCARDED;
        while let Ok(Some(piece)) = connection.piece().await {
            left = left.checked_sub(piece.len())?;
        }
        Some(())
    };
    if matches!(timeout(PATIENCE, read).await, Ok(Some(()))) {
        backend.keep(connection);
    }
}

/// Room for the head of a request; larger ones take more.
const HEAD_ROOM: usize = 1024;
const MOST_DISCARDED: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_millis(250);
