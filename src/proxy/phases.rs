//! What the phases do, whichever way a request goes: Pingora's (`ProxyHttp`) or the short one (`door`, `direct`).

use bytes::Bytes;
use http::{HeaderValue, StatusCode, Version};
use pingora_error::{Error, ErrorType, OrErr, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::{FailToProxy, Session};

use super::respond::{self, Form};
use super::{Ctx, Gateway, Plan, arrive, attempt, cached, fail, keeping, leftover, own, record, refresh, streams};
use crate::exchange::Reason;
use crate::reply::Reply;
use crate::upstream::deadline::Deadline;

impl Gateway {
    /// A request has arrived: what is it, and what is to be done with it?
    pub(super) fn begin(&self, session: &mut Session, ctx: &mut Ctx) {
        // Interim responses came with HTTP/1.1. RFC 9110 §15.2.
        if session.req_header().version == Version::HTTP_10 {
            session.set_ignore_info_resp(true);
        }
        arrive::arrive(session, ctx);
        if self.control.draining() {
            close(session, ctx);
        }
    }

    /// Lets a request pass, or answers it; whether it was answered.
    pub(super) async fn admit(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        match &ctx.plan {
            Plan::Route(_) if refresh::is(ctx) => return Ok(false),
            Plan::Route(route) => {
                let route = route.clone();
                let Some((reply, reason, form)) = arrive::admit(session, ctx, &route).await else {
                    return if route.chain.shell.has_caches() { cached::answer(session, ctx).await } else { Ok(false) };
                };
                ctx.ends(reason);
                answer(session, ctx, &reply, form).await?;
            }
            Plan::Own(own) => {
                let own = own.clone();
                let reply = own::answer(self, &own, session, ctx).await;
                answer(session, ctx, &reply, Form::Bare).await?;
            }
            Plan::Reply(reply, reason) => {
                let (reply, reason) = (reply.clone(), *reason);
                ctx.ends(reason);
                answer(session, ctx, &reply, Form::Bare).await?;
            }
            Plan::Unknown => return Error::e_explain(ErrorType::InternalError, "a request without a plan"),
        }
        Ok(true)
    }

    /// The head of a backend's response is there, and may be let go for another attempt.
    pub(super) fn came(&self, session: &mut Session, head: &ResponseHeader, ctx: &mut Ctx) -> Result<()> {
        if is_interim(head) {
            return Ok(());
        }
        respond::check(session, head).map_err(Error::into_up)?;
        if ctx.deadline.as_mut().is_some_and(|deadline| !deadline.answered()) {
            return Error::e_explain(ErrorType::ReadTimedout, "the response head came too late")
                .map_err(|e| e.into_up());
        }
        attempt::answered(ctx, head.status.as_u16());
        if fail::lets_go(self, session, ctx, head.status.as_u16()) {
            return Error::e_explain(ErrorType::Custom("LetGo"), "the response is not wanted").map_err(|e| e.into_up());
        }
        ctx.answered = true;
        keeping::came(session, ctx, head);
        if let (StatusCode::SWITCHING_PROTOCOLS, Some(deadline)) = (head.status, &mut ctx.deadline) {
            deadline.stop();
        }
        Ok(())
    }

    /// The head of a response goes to the client.
    pub(super) async fn dress(&self, session: &mut Session, head: &mut ResponseHeader, ctx: &mut Ctx) -> Result<()> {
        before_body(session, is_interim(head));
        if is_interim(head) {
            ctx.hinted = true;
            return Ok(());
        }
        if self.control.draining() {
            close(session, ctx);
        }
        if session.is_upgrade_req() && head.status != StatusCode::SWITCHING_PROTOCOLS {
            // What may have been sent for the tunnel is no request.
            close(session, ctx);
        }
        ctx.status = head.status.as_u16();
        ctx.stream = streams::Stream::of(head, &self.metrics);
        if respond::is_all(session, head) {
            answered(session, ctx);
        }
        keep_client(session, ctx);
        cached::dress(session, ctx, head)?;
        respond::head(session, ctx, head).await?;
        if ctx.discard.is_some() {
            answered(session, ctx);
        }
        Ok(())
    }

    /// A piece of a response's body goes to the client.
    pub(super) fn pass(&self, session: &Session, body: &mut Option<Bytes>, end: bool, ctx: &mut Ctx) -> Result<()> {
        if let Some(discard) = &mut ctx.discard {
            *body = None;
            if end {
                discard.stop();
            }
        }
        if let Some(gunzip) = &mut ctx.gunzip {
            let plain = gunzip.feed(body.as_deref().unwrap_or_default(), end);
            let plain = plain.or_err(ErrorType::ReadError, "unpacking the response").map_err(|e| e.into_up())?;
            *body = (!plain.is_empty()).then_some(plain);
        }
        if let Some(encoder) = &mut ctx.encoder {
            let packed = encoder.feed(body.as_deref().unwrap_or_default(), end);
            let packed = packed.or_err(ErrorType::InternalError, "packing the response")?;
            *body = (!packed.is_empty()).then_some(packed);
        }
        ctx.sent_bytes += body.as_ref().map_or(0, |b| b.len() as u64);
        if let Some(deadline) = &mut ctx.deadline {
            deadline.moved();
        }
        if end {
            // A connection that a limit closed ends like one whose end is that of the body.
            if ctx.deadline.as_ref().is_some_and(Deadline::expired) {
                return Error::e_explain(ErrorType::ReadTimedout, "the response took too long")
                    .map_err(|e| e.into_up());
            }
            ctx.deadline = None;
            ctx.stop_upstream_clock();
            answered(session, ctx);
        }
        Ok(())
    }

    /// Answers a request that came to nothing, where no answer has begun. The connection ends with it.
    pub(super) async fn fail(&self, session: &mut Session, error: &Error, ctx: &mut Ctx) -> FailToProxy {
        if ctx.discard.is_some() {
            return FailToProxy { error_code: ctx.status, can_reuse_downstream: false };
        }
        if let Some(verdict) = ctx.refusal.take() {
            return fail::refuse(session, ctx, verdict).await;
        }
        let failure = fail::judge(error, ctx);
        ctx.ends(failure.reason);
        if session.response_written().is_some_and(|head| !is_interim(head)) {
            return FailToProxy { error_code: ctx.status, can_reuse_downstream: false };
        }
        ctx.status = failure.status.as_u16();
        fail::log(&failure, error, session, ctx);
        if failure.reason != Reason::ClientGone {
            close(session, ctx);
            let reply = fail::reply(&failure, ctx);
            // The client may be gone by now; then there is nobody to tell.
            let _ = respond::reply(session, ctx, &reply, Form::Routed).await;
        }
        FailToProxy { error_code: failure.status.as_u16(), can_reuse_downstream: false }
    }

    /// The exchange is over, whatever it came to.
    pub(super) fn ended(&self, session: &Session, error: Option<&Error>, ctx: &mut Ctx) {
        ctx.stop_upstream_clock();
        cached::ended(ctx);
        if refresh::is(ctx) {
            return;
        }
        if let Some(discard) = &mut ctx.discard {
            discard.stop();
        }
        if error.is_none() {
            attempt::succeeded(ctx);
        }
        record::record(self, session, error, ctx);
    }
}

/// Answers a request that goes to no backend.
async fn answer(session: &mut Session, ctx: &mut Ctx, reply: &Reply, form: Form) -> Result<()> {
    if !reply.closes && ctx.conn.as_ref().is_some_and(|conn| !conn.closes()) {
        leftover::take(session).await;
    }
    respond::reply(session, ctx, reply, form).await
}

/// The response has ended: on HTTP/1 the entry point then waits for the rest of the request for a moment only, as Pingora goes on
/// as long as an HTTP/2 backend might want it. A stream of HTTP/2 knows by itself.
pub(super) fn answered(session: &Session, ctx: &Ctx) {
    if let (Some(conn), true) = (&ctx.conn, session.req_header().version != Version::HTTP_2) {
        conn.set_answered();
    }
}

/// Has the client's connection closed after this response. HTTP/1 only.
pub(super) fn close(session: &mut Session, ctx: &Ctx) {
    session.set_keepalive(None);
    if let Some(conn) = &ctx.conn {
        conn.close();
    }
}

/// Gives the client the cookie that keeps it at its backend, where the route wants that.
fn keep_client(session: &Session, ctx: &mut Ctx) {
    let (Plan::Route(route), Some(pick), Some(exchange)) = (&ctx.plan, &ctx.pick, &mut ctx.exchange) else { return };
    let facts = arrive::Facts { head: session.req_header(), exchange };
    let cookie = route.upstream.keep(pick.index, &facts, exchange.scheme == "https");
    exchange.cookies.extend(cookie.and_then(|cookie| HeaderValue::try_from(cookie).ok()));
}

/// Says of a response that may come before the end of the request's body whether the connection outlives that. One does that asks
/// for the body, or hints at what follows; Pingora closes after all.
pub(super) fn before_body(session: &mut Session, stays: bool) {
    session.as_downstream_mut().set_close_on_response_before_downstream_finish(!stays);
}

/// A response that another one follows: 1xx, but not 101.
pub(super) fn is_interim(head: &ResponseHeader) -> bool {
    head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS
}
