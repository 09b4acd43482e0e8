//! What goes back to the client: the head of a backend's response, and replies of our own.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version};
use pingora_error::{Error, ErrorType, OrErr, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::ctx::{Ctx, Plan};
use super::decode::Gunzip;
use crate::exchange::RequestId;
use crate::middleware::Answering;
use crate::reply::{self, Reply};

/// Refuses a response that parsers would disagree on, or that nobody asked for.
///
/// # Errors
/// For a transfer coding other than `chunked` (RFC 9112 §6.1: we offered none), and for 101 without an upgrade.
pub fn check(session: &Session, head: &ResponseHeader) -> Result<()> {
    let mut codings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
    let plain = codings.next().is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if !plain || codings.next().is_some() {
        return Error::e_explain(ErrorType::InvalidHTTPHeader, "a transfer coding that nobody asked for");
    }
    if head.status == StatusCode::SWITCHING_PROTOCOLS && !session.is_upgrade_req() {
        return Error::e_explain(ErrorType::InvalidHTTPHeader, "101 without a request to switch protocols");
    }
    Ok(())
}

/// Finishes the head of a backend's response. Interim responses (1xx) pass as they are.
pub fn head(session: &mut Session, ctx: &mut Ctx, head: &mut ResponseHeader) -> Result<()> {
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        strip_hop_by_hop(head);
        if session.req_header().version != Version::HTTP_2 || head.version != Version::HTTP_2 {
            head.remove_header(&header::TRAILER);
        }
    }
    one_length(head)?;
    unpack(session, ctx, head)?;
    match session.req_header().version {
        // The end of a body of unknown length is the end of the connection for such a client.
        Version::HTTP_10 if head.headers.contains_key(header::TRANSFER_ENCODING) => {
            head.remove_header(&header::TRANSFER_ENCODING);
            session.set_keepalive(None);
        }
        _ => {}
    }
    if head.version < Version::HTTP_11 {
        head.set_version(Version::HTTP_11);
    }
    finish(session.req_header(), ctx, head)
}

/// Removes what concerns the connection to the backend only. Spec core §5.3, RFC 9110 §7.6.1.
///
/// Framing stays: Pingora has read it and writes its own. Trailers pass from HTTP/2 to HTTP/2 only, so nothing
/// announces them elsewhere.
fn strip_hop_by_hop(head: &mut ResponseHeader) {
    if !head.headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        return;
    }
    let nominated: Vec<HeaderName> = head
        .headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|b| *b == b','))
        .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
        .filter(|name| !FRAMING.contains(name))
        .collect();
    for name in nominated.iter().chain(&HOP_BY_HOP) {
        head.remove_header(name);
    }
}

/// Says the length once, and not at all where there is no content (RFC 9110 §8.6). Pingora saw that several lengths agree.
fn one_length(head: &mut ResponseHeader) -> Result<()> {
    if head.status == StatusCode::NO_CONTENT {
        head.remove_header(&header::CONTENT_LENGTH);
        head.remove_header(&header::TRANSFER_ENCODING);
        return Ok(());
    }
    let mut lines = head.headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lines.next() else { return Ok(()) };
    let length = first.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
    if lines.next().is_some() || length.len() != first.len() {
        let length = HeaderValue::from_bytes(length).or_err(ErrorType::InvalidHTTPHeader, "digits of a length")?;
        head.insert_header(header::CONTENT_LENGTH, length)?;
    }
    Ok(())
}

const FRAMING: [HeaderName; 3] = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONTENT_TYPE];
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::UPGRADE,
];

/// The part that backend's responses and our own replies share: Goma's headers, the chain backwards, the shell.
fn finish(request: &RequestHeader, ctx: &Ctx, head: &mut ResponseHeader) -> Result<()> {
    let (Plan::Route(route), Some(exchange)) = (&ctx.plan, &ctx.exchange) else { return Ok(()) };
    head.insert_header("X-Goma-Request-ID", id(&exchange.id))?;
    for (name, value) in &exchange.response_headers {
        head.append_header(titled(name), value.clone())?;
    }
    route.chain.response(ctx.ran, exchange, head);
    if route.chain.shell.changes_heads() {
        let answering = Answering {
            asked: request.uri.path(),
            sent: ctx.sent_path.as_deref().unwrap_or(&exchange.path),
            origin: ctx.origin.as_deref(),
            proxied: exchange.attempts > 0,
        };
        route.chain.shell.apply(&answering, head);
    }
    // Last, as in Goma: no policy brings these back. Spec middlewares §3.
    head.remove_header(&header::SERVER);
    head.insert_header("Proxied-By", HeaderValue::from_static("Goma Gateway"))?;
    Ok(())
}

fn id(id: &RequestId) -> HeaderValue {
    HeaderValue::from_str(id.as_str()).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

/// Arranges that a gzip body that only we asked for is unpacked.
fn unpack(session: &Session, ctx: &mut Ctx, head: &mut ResponseHeader) -> Result<()> {
    let packed = head.headers.get(header::CONTENT_ENCODING).is_some_and(|e| e.as_bytes().eq_ignore_ascii_case(b"gzip"));
    let has_body =
        !matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::SWITCHING_PROTOCOLS);
    if !ctx.asked_gzip || !packed || !has_body {
        return Ok(());
    }
    head.remove_header(&header::CONTENT_ENCODING);
    head.remove_header(&header::CONTENT_LENGTH);
    if session.req_header().version == Version::HTTP_11 {
        head.insert_header(header::TRANSFER_ENCODING, "chunked")?;
    }
    ctx.gunzip = Some(Gunzip::new());
    Ok(())
}

/// Writes a reply of our own. Behind a route it passes the chain backwards; maintenance and replies without a route do not.
pub async fn reply(session: &mut Session, ctx: &mut Ctx, reply: &Reply, form: Form) -> Result<()> {
    let (content_type, body) = reply.content(&session.req_header().headers);
    let mut head = ResponseHeader::build(reply.status, Some(8))?;
    if let Some(content_type) = content_type {
        head.insert_header(header::CONTENT_TYPE, content_type)?;
        if reply::is_plain_text(content_type) {
            head.insert_header("X-Content-Type-Options", HeaderValue::from_static("nosniff"))?;
        }
    }
    if reply.status != StatusCode::NO_CONTENT {
        head.insert_header(header::CONTENT_LENGTH, body.len())?;
    }
    for (name, value) in &reply.headers {
        head.append_header(titled(name), value.clone())?;
    }
    if matches!(form, Form::Routed) {
        finish(session.req_header(), ctx, &mut head)?;
    }
    write(session, ctx, head, body).await
}

/// How much of a route's dress a reply wears.
pub enum Form {
    /// Goma's headers, response hooks and shell.
    Routed,
    /// Bare.
    Bare,
}

async fn write(session: &mut Session, ctx: &mut Ctx, head: ResponseHeader, body: Bytes) -> Result<()> {
    let empty = body.is_empty() || session.req_header().method == Method::HEAD;
    ctx.status = head.status.as_u16();
    session.write_response_header(Box::new(head), empty).await?;
    if !empty {
        ctx.sent_bytes = body.len() as u64;
        session.write_response_body(Some(body), true).await?;
    }
    Ok(())
}

/// Names of replies in their usual spelling.
fn titled(name: &HeaderName) -> String {
    let mut upper = true;
    let spell = |c: char| {
        let spelled = if upper { c.to_ascii_uppercase() } else { c };
        upper = c == '-';
        spelled
    };
    match name.as_str() {
        "www-authenticate" => "WWW-Authenticate".to_owned(),
        name => name.chars().map(spell).collect(),
    }
}
