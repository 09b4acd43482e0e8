//! The end of every exchange: one metric record, one access line, whatever happened before.

use std::time::Duration;

use http::header;
use http::{HeaderMap, HeaderValue, Version};
use pingora_error::Error;
use pingora_proxy::Session;

use super::Gateway;
use super::ctx::{Ctx, Plan};
use super::fail;
use crate::exchange::{Exchange, Reason};
use crate::telemetry::access::{self, AccessLine, Detail};
use crate::telemetry::route::End;

/// Records a request that has ended.
pub fn record(gateway: &Gateway, session: &Session, error: Option<&Error>, ctx: &mut Ctx) {
    // After a page of ours in place of the backend's, errors are nobody's: the client has its response.
    if let (Some(error), true) = (error, ctx.discard.is_none()) {
        settle(error, ctx);
    }
    match &ctx.plan {
        Plan::Route(_) => routed(gateway, session, ctx),
        Plan::Reply(_, reason) if *reason != Reason::Ok => gateway.metrics.refused(*reason),
        _ => {}
    }
}

/// An error after the response had begun has no reply; its word is found here.
fn settle(error: &Error, ctx: &mut Ctx) {
    ctx.ends(fail::judge(error, ctx).reason);
    if ctx.status == 0 {
        ctx.status = CLIENT_GONE;
    }
}

/// What Goma logs for a client that went away; nobody receives it.
const CLIENT_GONE: u16 = 499;

fn routed(gateway: &Gateway, session: &Session, ctx: &Ctx) {
    let (Some(route), Some(exchange)) = (ctx.route(), &ctx.exchange) else { return };
    if exchange.reason == Reason::Maintenance {
        return;
    }
    let status = if exchange.reason == Reason::ClientGone { CLIENT_GONE } else { ctx.status };
    let duration = exchange.started.elapsed();
    if let Some(metrics) = &route.metrics {
        metrics.end(&End {
            method: (&exchange.method).into(),
            status,
            duration,
            upstream: exchange.upstream_time,
            response_bytes: ctx.sent_bytes,
            reason: exchange.reason,
        });
        if ctx.snapshot.visitors {
            let agent = session.req_header().headers.get(header::USER_AGENT);
            gateway.metrics.visitors().saw(exchange.client, agent.map_or(&b""[..], HeaderValue::as_bytes));
        }
    }
    if access::enabled(status) {
        let mut line = line(session, exchange, status, duration);
        line.route = &route.name;
        line.url = ctx.sent_path.as_deref().unwrap_or(&exchange.path);
        line.bytes = ctx.sent_bytes;
        line.backend = ctx.pick.as_ref().map_or("", |pick| pick.backend.name());
        let extras = route.chain.shell.log_fields(session.req_header(), exchange.query.as_deref());
        line.extras = &extras;
        line.cache = ctx.cache.as_ref().map_or("", |cached| cached.outcome.word());
        let nothing = HeaderMap::new();
        if gateway.debug() {
            line.detail = Some(detail(session, exchange, &nothing));
        }
        if !route.forward_host
            && let Some(pick) = &ctx.pick
        {
            line.host = pick.backend.authority();
        }
        gateway.access.write(&line);
    }
}

fn detail<'a>(session: &'a Session, exchange: &'a Exchange, nothing: &'a HeaderMap) -> Detail<'a> {
    let headers = &session.req_header().headers;
    Detail {
        request_content_length: match headers.get(header::CONTENT_LENGTH) {
            Some(length) => length.to_str().ok().and_then(|length| length.parse().ok()),
            None if headers.contains_key(header::TRANSFER_ENCODING)
                || session.req_header().version == Version::HTTP_2 =>
            {
                None
            }
            None => Some(0),
        },
        request_headers: headers,
        query: exchange.query.as_deref().unwrap_or_default(),
        response_headers: session.response_written().map_or(nothing, |head| &head.headers),
    }
}

fn line<'a>(session: &'a Session, exchange: &'a Exchange, status: u16, duration: Duration) -> AccessLine<'a> {
    let head = session.req_header();
    let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    AccessLine {
        request_id: exchange.id.as_str(),
        method: exchange.method.as_str(),
        url: &exchange.path,
        http_version: version(head.version),
        host: &exchange.host,
        client_ip: exchange.client,
        referer: text(header::REFERER),
        status,
        duration,
        route: "",
        user_agent: text(header::USER_AGENT),
        extras: &[],
        detail: None,
        reason: exchange.reason,
        why: &exchange.why,
        bytes: 0,
        attempts: exchange.attempts,
        backend: "",
        cache: "",
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

/// Logs a request that could not be proxied, with the cause.
pub fn failed(failure: &fail::Failure, cause: &Error, session: &Session, ctx: &Ctx) {
    let Some(exchange) = &ctx.exchange else { return };
    let mut line = line(session, exchange, failure.status.as_u16(), exchange.started.elapsed());
    line.route = ctx.route().map_or("", |route| &route.name);
    line.backend = ctx.pick.as_ref().map_or("", |pick| pick.backend.name());
    line.reason = failure.reason;
    access::failed(&line, cause);
}
