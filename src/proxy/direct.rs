//! The commonest exchange (no request body, a backend of HTTP/1 without TLS, no upgrade, no cache) without Pingora's way to
//! the backend: one future sends the request and passes the response on, through the same phases. See `upstream::direct`.
//!
//! Everything else, and what comes after a choice of another kind of backend, goes Pingora's way with what is known by then.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::header;
use pingora_core::protocols::http::HttpTask;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use tokio::time::{Instant, sleep_until, timeout};

use super::ctx::Ctx;
use super::{Gateway, attempt as attempts, fail, forward, hedge, is_interim};
use crate::upstream::direct::Connection;
use crate::upstream::{Backend, Outcome};

/// Serves a request that fits; whether it is still to be done, since the backend chosen takes none such.
///
/// # Errors
/// As Pingora's way: an error that is no reason for another attempt.
pub async fn serve(gateway: &Gateway, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
    loop {
        attempts::begin(session, ctx).await?;
        let Some(backend) = ctx.pick.as_ref().map(|pick| pick.backend.clone()).filter(|backend| backend.is_direct())
        else {
            return Ok(true);
        };
        let answer = match hedge::wanted(ctx) {
            // Boxed: other requests do not pay for its size.
            Some(wanted) => Box::pin(hedge::ask(gateway, session, ctx, wanted)).await,
            None => ask(gateway, session, ctx, backend).await,
        };
        let done = match answer {
            Ok(answer) => relay(gateway, session, ctx, answer).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => return Ok(false),
            Err(error) if error.retry() => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether a request may go without Pingora's way to the backend. Asked once, before middlewares change what it looks at.
pub fn fits(session: &mut Session, ctx: &Ctx) -> bool {
    ctx.route().is_some()
        && !session.cache.enabled()
        && !session.cache.bypassing()
        && session.as_downstream_mut().is_body_empty()
        && !session.is_upgrade_req()
        && !session.req_header().headers.contains_key(header::EXPECT)
}

/// The head of a response, and where its rest comes from.
pub struct Answer {
    /// Who gives it.
    pub backend: Arc<Backend>,
    /// The connection behind the head.
    pub connection: Connection,
    /// Whether that carried other exchanges before.
    pub reused: bool,
    /// The final head.
    pub head: Box<ResponseHeader>,
}

/// Asks one backend and waits for the head of its response.
async fn ask(gateway: &Gateway, session: &mut Session, ctx: &mut Ctx, backend: Arc<Backend>) -> Result<Answer> {
    let address = attempts::address(gateway, session, ctx).await?;
    // A request that is sent once more does not meet another connection that may be dead.
    let kept = if ctx.replays == 0 { backend.kept(address) } else { None };
    let reused = kept.is_some();
    let mut connection = match kept {
        Some(kept) => kept,
        None => match backend.open(address, ctx.end()).await {
            Ok(opened) => {
                backend.report(address.ip(), Outcome::Connected);
                opened
            }
            Err(error) => return Err(fail::connect(gateway, session, ctx, Some(address.ip()), error.into_up())),
        },
    };
    match head(gateway, session, ctx, &backend, &mut connection).await {
        Ok(head) => Ok(Answer { backend, connection, reused, head }),
        Err(error) => Err(fail::midway(gateway, session, ctx, error, reused)),
    }
}

/// Sends the request and waits for the head of the response.
async fn head(
    gateway: &Gateway,
    session: &mut Session,
    ctx: &mut Ctx,
    backend: &Backend,
    connection: &mut Connection,
) -> Result<Box<ResponseHeader>> {
    let request = request(session, ctx, backend)?;
    connection.send(&request).await?;
    response_head(gateway, session, ctx, connection).await
}

/// Passes a response on and keeps its connection.
async fn relay(gateway: &Gateway, session: &mut Session, ctx: &mut Ctx, answer: Answer) -> Result<()> {
    let reused = answer.reused;
    match pass(gateway, session, ctx, answer).await {
        Ok(()) => {
            ctx.stop_upstream_clock();
            Ok(())
        }
        Err(error) => Err(fail::midway(gateway, session, ctx, error, reused)),
    }
}

async fn pass(gateway: &Gateway, session: &mut Session, ctx: &mut Ctx, answer: Answer) -> Result<()> {
    let Answer { backend, connection, mut head, .. } = answer;
    ctx.deadline = attempts::deadline_of_rest(ctx, connection.descriptor());
    gateway.came(session, &head, ctx)?;
    gateway.dress(session, &mut head, ctx).await?;
    let mut done = connection.is_done();
    // A page of ours went out instead.
    if ctx.discard.is_some() && !done {
        ctx.deadline = None;
        tokio::spawn(discard(backend, connection));
        return Ok(());
    }
    // Kept before the client has the end of the response: its next request finds it there.
    let mut connection = Some(connection);
    let keep = |ctx: &mut Ctx, connection: Option<Connection>| {
        ctx.deadline = None;
        connection.into_iter().for_each(|connection| backend.keep(connection));
    };
    if done {
        keep(ctx, connection.take());
    }
    if ctx.discard.is_some() {
        return Ok(());
    }
    session.as_downstream_mut().response_duplex_vec(vec![HttpTask::Header(head, done)]).await?;
    while let (Some(open), false) = (&mut connection, done) {
        let piece = tokio::select! {
            biased;
            piece = open.piece() => piece,
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
        done = body.is_none() || open.is_done();
        gateway.pass(session, &mut body, done, ctx)?;
        if done {
            keep(ctx, connection.take());
        }
        done |= session.as_downstream_mut().response_duplex_vec(vec![HttpTask::Body(body, done)]).await?;
    }
    Ok(())
}

/// The request as this backend gets it.
pub fn request(session: &Session, ctx: &mut Ctx, backend: &Backend) -> Result<BytesMut> {
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
    let (method, client) = (session.req_header().method.clone(), session.req_header().version);
    let due = due(ctx);
    loop {
        let head = tokio::select! {
            biased;
            head = connection.head(&method, client) => head?,
            gone = gone(session) => return Err(gone),
            late = overdue(due) => return Err(late),
        };
        if !is_interim(&head) {
            return Ok(head);
        }
        interim(gateway, session, ctx, head).await?;
    }
}

/// Passes an interim head on.
pub async fn interim(
    gateway: &Gateway,
    session: &mut Session,
    ctx: &mut Ctx,
    mut head: Box<ResponseHeader>,
) -> Result<()> {
    gateway.came(session, &head, ctx)?;
    gateway.dress(session, &mut head, ctx).await?;
    session.as_downstream_mut().response_duplex_vec(vec![HttpTask::Header(head, false)]).await?;
    Ok(())
}

/// When the head of the response to a request that has just been sent is overdue.
pub fn due(ctx: &Ctx) -> Option<Instant> {
    let limit = attempts::header_limit(ctx).map(|limit| Instant::now() + limit);
    limit.into_iter().chain(ctx.end().map(Instant::from_std)).min()
}

/// Ends when the client goes away, or its request is overdue.
pub async fn gone(session: &mut Session) -> Box<Error> {
    match session.as_downstream_mut().read_body_or_idle(true).await {
        Err(error) => error.into_down(),
        Ok(_) => std::future::pending().await,
    }
}

/// Ends when a head is overdue.
pub async fn overdue(due: Option<Instant>) -> Box<Error> {
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
