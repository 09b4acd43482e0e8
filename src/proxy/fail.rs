//! Errors: another attempt, or a reply. The one place that turns an error into a status. Spec core §5.9.

use std::net::IpAddr;

use http::{HeaderValue, StatusCode, header};
use pingora_error::{Error, ErrorSource, ErrorType, RetryType};
use pingora_proxy::{FailToProxy, Session};

use super::ctx::{Ctx, Plan};
use super::respond::{self, Form};
use super::{Gateway, arrive, is_interim};
use crate::entry::Overdue;
use crate::exchange::Reason;
use crate::middleware::Verdict;
use crate::reply::Reply;
use crate::upstream::deadline::Deadline;
use crate::upstream::retry::{self, Decision, Failure as Failed};
use crate::upstream::{Cause, NoBackend, Outcome, Unresolved};

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
pub fn no_backend(reason: NoBackend) -> Box<Error> {
    let kind = match reason {
        NoBackend::Busy => BUSY,
        NoBackend::Open => OPEN,
        NoBackend::Unavailable | NoBackend::Tried => NO_BACKEND,
    };
    Error::explain(ErrorType::Custom(kind), reason.to_string())
}

/// The time that the route gives a request was over before the next attempt.
pub fn overdue() -> Box<Error> {
    Error::explain(ErrorType::Custom(OVERDUE), "the time for the request is over")
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
const BUSY: &str = "BackendBusy";
const OPEN: &str = "CircuitOpen";
const OVERDUE: &str = "Overdue";

/// No connection: the next backend, if there is one to try.
///
/// `address` is `None` when not even that was found.
pub fn connect(
    gateway: &Gateway,
    session: &Session,
    ctx: &mut Ctx,
    address: Option<IpAddr>,
    mut error: Box<Error>,
) -> Box<Error> {
    let earlier = judge(&error, ctx);
    ctx.failure = Some(earlier);
    if let (Some(address), Some(pick)) = (address, &ctx.pick) {
        pick.backend.report(address, Outcome::ConnectFailed);
    }
    let again = another(gateway, session, ctx, Failed::Connect);
    error.set_retry(again);
    error
}

/// The connection broke under way.
pub fn midway(gateway: &Gateway, session: &Session, ctx: &mut Ctx, mut error: Box<Error>, reused: bool) -> Box<Error> {
    if std::mem::take(&mut ctx.let_go) {
        error.set_retry(true);
        return error;
    }
    let from_backend = *error.esource() == ErrorSource::Upstream;
    let late = ctx.deadline.as_ref().is_some_and(Deadline::expired) || from_backend && is_late(&error);
    let failed = match (late, ctx.answered) {
        (true, _) => Failed::Late,
        (false, true) => Failed::Exchange,
        (false, false) => broken(&error, reused),
    };
    let earlier = judge(&error, ctx);
    let again = (from_backend || late) && another(gateway, session, ctx, failed);
    if again {
        ctx.failure = Some(earlier);
    }
    error.set_retry(again);
    error
}

/// Whether the head of the response did not come in time.
fn is_late(error: &Error) -> bool {
    error.etype == ErrorType::ReadTimedout
}

/// What an attempt that nobody waits for any more came to.
pub fn cause(error: &Error) -> Cause {
    if is_late(error) { Cause::Timeout } else { Cause::Reset }
}

/// Whether a request that got no response may have met a kept connection that was dead.
pub fn is_dead(error: &Error, reused: bool) -> bool {
    broken(error, reused) == Failed::DeadReused
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

/// Tells the backend's guard, and decides whether to go on.
fn another(gateway: &Gateway, session: &Session, ctx: &mut Ctx, failure: Failed) -> bool {
    ctx.stop_upstream_clock();
    // A kept connection dies of age, and a request that was turned away is no failure either.
    if let (Plan::Route(route), Some(pick), false) =
        (&ctx.plan, &mut ctx.pick, matches!(failure, Failed::DeadReused | Failed::Refused))
    {
        route.upstream.failed(pick, failure.cause());
    }
    match decide(session, ctx, failure) {
        Decision::Retry if !granted(gateway, ctx) => false,
        Decision::Retry | Decision::NextBackend => {
            count(gateway, ctx, failure);
            if let Some(pick) = ctx.pick.take() {
                ctx.tried.add(pick.index);
            }
            true
        }
        Decision::SameBackend => {
            ctx.replays += 1;
            ctx.turned_away = failure == Failed::Refused;
            true
        }
        Decision::GiveUp => false,
    }
}

fn decide(session: &Session, ctx: &Ctx, failure: Failed) -> Decision {
    let (Plan::Route(route), Some(exchange), Some(_)) = (&ctx.plan, &ctx.exchange, &ctx.pick) else {
        return Decision::GiveUp;
    };
    if ctx.overdue() {
        return Decision::GiveUp;
    }
    let policy = route.upstream.policy();
    let idempotent = exchange.method.is_idempotent();
    retry::decide(&retry::Facts {
        failure,
        attempts: exchange.attempts as usize - ctx.replays,
        limit: route.upstream.attempts_limit(),
        response_started: ctx.answered || ctx.hinted || session.response_written().is_some() && !ctx.continued,
        repeatable: policy.map_or(idempotent, |policy| policy.allows(&exchange.method)),
        idempotent,
        replayable: !session.as_downstream().retry_buffer_truncated(),
        replays: ctx.replays,
        policy,
    })
}

/// Whether the route's budget has a retry left; takes it.
fn granted(gateway: &Gateway, ctx: &Ctx) -> bool {
    let Some(route) = ctx.route() else { return false };
    let granted = route.upstream.may_retry();
    if !granted {
        gateway.metrics.retry_denied(&route.name);
    }
    granted
}

fn count(gateway: &Gateway, ctx: &Ctx, failure: Failed) {
    if let Some(route) = ctx.route() {
        gateway.metrics.retried(&route.name, &failure.cause().word());
    }
}

/// Whether a response of this status is let go for an attempt at another backend, which is chosen then: what there is to give
/// is given up only for what may be better.
pub fn lets_go(gateway: &Gateway, session: &Session, ctx: &mut Ctx, status: u16) -> bool {
    let failure = Failed::Status(status);
    if status < 400 || decide(session, ctx, failure) != Decision::Retry {
        return false;
    }
    let (Plan::Route(route), Some(pick), Some(exchange)) = (&ctx.plan, &ctx.pick, &ctx.exchange) else { return false };
    let mut tried = ctx.tried;
    tried.add(pick.index);
    let facts = arrive::Facts { head: session.req_header(), exchange };
    let Ok(next) = route.upstream.pick(&facts, &tried) else { return false };
    if !granted(gateway, ctx) {
        return false;
    }
    count(gateway, ctx, failure);
    ctx.stop_upstream_clock();
    (ctx.tried, ctx.pick, ctx.let_go) = (tried, Some(next), true);
    true
}

/// The reply to a request that failed.
pub fn reply(failure: &Failure, ctx: &Ctx) -> Reply {
    let reply = Reply::message(failure.status, failure.message);
    let seconds = match failure.reason {
        Reason::BackendBusy => 1,
        Reason::CircuitOpen => ctx.route().map_or(1, |route| route.upstream.opens_after().as_secs().max(1)),
        _ => return reply,
    };
    reply.header(header::RETRY_AFTER, HeaderValue::from(seconds))
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
    if ctx.deadline.as_ref().is_some_and(Deadline::expired) {
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
        (_, ErrorType::Custom(BUSY)) => failure(503, UNAVAILABLE, Reason::BackendBusy),
        (_, ErrorType::Custom(OPEN)) => failure(503, UNAVAILABLE, Reason::CircuitOpen),
        (_, ErrorType::Custom(OVERDUE)) => failure(504, TIMEOUT, Reason::BackendTimeout),
        (_, ErrorType::Custom(NO_BACKEND)) => failure(503, UNAVAILABLE, Reason::NoBackend),
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

const UNAVAILABLE: &str = "503 service unavailable";
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
        super::close(session, ctx);
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
