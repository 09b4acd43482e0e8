//! Errors: another attempt, or a reply. The one place that turns an error into a status. Spec core §5.9.

use std::net::IpAddr;

use http::StatusCode;
use pingora_error::{Error, ErrorSource, ErrorType, RetryType};
use pingora_proxy::{FailToProxy, Session};

use super::ctx::Ctx;
use super::is_interim;
use super::respond::{self, Form};
use crate::entry::Overdue;
use crate::exchange::Reason;
use crate::middleware::Verdict;
use crate::upstream::deadline::HeaderDeadline;
use crate::upstream::retry::{self, Decision, Failure as Failed};
use crate::upstream::{Outcome, Unresolved};

/// What a failed exchange comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Status of the reply.
    pub status: StatusCode,
    /// Its message: Goma's texts, with their trailing space.
    pub message: &'static str,
    /// The word for log and metric.
    pub reason: Reason,
}

/// No backend is there to ask.
pub fn no_backend() -> Box<Error> {
    Error::explain(ErrorType::Custom(NO_BACKEND), "every backend is down or does not take this request")
}

/// The backend's name has no address.
pub fn unresolved(cause: &Unresolved) -> Box<Error> {
    let kind = match cause {
        Unresolved::TimedOut { .. } => ErrorType::ConnectTimedout,
        Unresolved::Failed { .. } => ErrorType::ConnectError,
    };
    Error::explain(kind, cause.to_string()).into_up()
}

const NO_BACKEND: &str = "NoBackend";

/// No connection: the next backend, if there is one to try.
///
/// `address` is `None` when not even that was found.
pub fn connect(session: &Session, ctx: &mut Ctx, address: Option<IpAddr>, mut error: Box<Error>) -> Box<Error> {
    let earlier = judge(&error, ctx);
    ctx.failure = Some(earlier);
    let again = another(session, ctx, address, Failed::Connect);
    error.set_retry(again);
    error
}

/// The connection broke under way.
pub fn midway(session: &Session, ctx: &mut Ctx, mut error: Box<Error>, reused: bool) -> Box<Error> {
    let from_backend = *error.esource() == ErrorSource::Upstream;
    let late = ctx.deadline.as_ref().is_some_and(HeaderDeadline::expired);
    let failed = if ctx.answered || late { Failed::Exchange } else { broken(&error, reused) };
    let again = from_backend && another(session, ctx, None, failed);
    error.set_retry(again);
    error
}

/// How a connection broke before it gave a response.
fn broken(error: &Error, reused: bool) -> Failed {
    match (&error.etype, &error.retry) {
        // Pingora marks what an HTTP/2 backend says it has not begun: GOAWAY without error, REFUSED_STREAM.
        (ErrorType::H2Error, RetryType::Decided(true)) => Failed::Refused,
        // And it marks what a kept connection may have died of; a failed write it does not.
        (_, RetryType::ReusedOnly) | (ErrorType::WriteError, _) if reused => Failed::DeadReused,
        _ => Failed::Exchange,
    }
}

/// Reports to the backend, and decides whether to go on.
fn another(session: &Session, ctx: &mut Ctx, address: Option<IpAddr>, failure: Failed) -> bool {
    ctx.stop_upstream_clock();
    let (Some(pick), Some(exchange)) = (&ctx.pick, &ctx.exchange) else { return false };
    let limit = ctx.route().map_or(1, |route| route.upstream.attempts_limit());
    let decision = retry::decide(&retry::Facts {
        failure,
        attempts: exchange.attempts as usize - ctx.replays,
        limit,
        response_started: ctx.answered || session.response_written().is_some() && !ctx.continued,
        idempotent: exchange.method.is_idempotent(),
        replayable: !session.as_downstream().retry_buffer_truncated(),
        replays: ctx.replays,
    });
    if let (Failed::Connect, Some(address)) = (failure, address) {
        pick.backend.report(address, Outcome::ConnectFailed);
    }
    match decision {
        Decision::NextBackend => {
            if let Some(pick) = ctx.pick.take() {
                ctx.tried.add(pick.index);
            }
        }
        Decision::SameBackend => ctx.replays += 1,
        Decision::GiveUp => {}
    }
    decision != Decision::GiveUp
}

/// What an error means for the client.
pub fn judge(error: &Error, ctx: &Ctx) -> Failure {
    if let (ErrorType::Custom(NO_BACKEND), Some(earlier)) = (&error.etype, ctx.failure) {
        return earlier;
    }
    let conn = ctx.conn.as_deref();
    if conn.is_some_and(|conn| conn.framing_broken()) {
        return failure(400, "400 Bad Request", Reason::BadRequest);
    }
    if ctx.deadline.as_ref().is_some_and(HeaderDeadline::expired) {
        return failure(504, TIMEOUT, Reason::BackendTimeout);
    }
    match Overdue::of(error) {
        Some(Overdue::Response) => return failure(504, TIMEOUT, Reason::BackendTimeout),
        Some(Overdue::Request | Overdue::Reading) => return failure(408, "408 Request Timeout", Reason::ClientTimeout),
        // Nothing failed: the client has all of its response.
        Some(Overdue::Leftover) => return failure(200, "", Reason::Ok),
        None => {}
    }
    match (error.esource(), &error.etype) {
        (_, ErrorType::Custom(NO_BACKEND)) => failure(503, "503 service unavailable", Reason::NoBackend),
        (ErrorSource::Downstream, ErrorType::ReadTimedout) => {
            failure(408, "408 Request Timeout", Reason::ClientTimeout)
        }
        // The second is Pingora's word for a client that talks in a tunnel before there is one.
        (ErrorSource::Downstream, ErrorType::InvalidHTTPHeader | ErrorType::ConnectError) => {
            failure(400, "400 Bad Request", Reason::BadRequest)
        }
        (ErrorSource::Downstream, _) => failure(499, "499  ", Reason::ClientGone),
        (ErrorSource::Upstream, _) if ctx.answered => failure(502, BAD_GATEWAY, Reason::BackendCut),
        (ErrorSource::Upstream, ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout) => {
            failure(504, TIMEOUT, Reason::ConnectTimeout)
        }
        (ErrorSource::Upstream, ErrorType::ReadTimedout | ErrorType::WriteTimedout) => {
            failure(504, TIMEOUT, Reason::BackendTimeout)
        }
        (ErrorSource::Upstream, ErrorType::TLSHandshakeFailure | ErrorType::InvalidCert) => {
            failure(502, BAD_GATEWAY, Reason::BackendTls)
        }
        (
            ErrorSource::Upstream,
            ErrorType::ConnectRefused | ErrorType::ConnectNoRoute | ErrorType::ConnectError | ErrorType::SocketError,
        ) => failure(502, BAD_GATEWAY, Reason::ConnectFailed),
        (ErrorSource::Upstream, _) => failure(502, BAD_GATEWAY, Reason::BackendFailed),
        (_, _) => failure(500, "500 Internal Server Error ", Reason::Internal),
    }
}

const BAD_GATEWAY: &str = "502 Bad Gateway ";
const TIMEOUT: &str = "504 Gateway Timeout ";

fn failure(status: u16, message: &'static str, reason: Reason) -> Failure {
    Failure { status: StatusCode::from_u16(status).expect("every status above is three digits"), message, reason }
}

/// Answers a request whose body a middleware refused under way.
pub async fn refuse(session: &mut Session, ctx: &mut Ctx, verdict: Verdict) -> FailToProxy {
    let status = verdict.reply.status.as_u16();
    if let Some(exchange) = &mut ctx.exchange {
        exchange.why = verdict.why;
    }
    if session.response_written().is_none_or(is_interim) {
        session.set_keepalive(None);
        // The client may be gone by now; then there is nobody to tell.
        let _ = respond::reply(session, ctx, &verdict.reply, Form::Routed).await;
    }
    FailToProxy { error_code: status, can_reuse_downstream: false }
}

/// The error line of a failed request. A client that went away is no error of ours.
pub fn log(failure: &Failure, error: &Error, session: &Session, ctx: &Ctx) {
    match failure.reason {
        Reason::ClientGone | Reason::ClientTimeout | Reason::BadRequest => {
            log::debug!(reason:% = failure.reason; "Request ended early: {error}");
        }
        _ => super::record::failed(failure, error, session, ctx),
    }
}
