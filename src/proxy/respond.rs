//! What goes back to the client: the head of a backend's response, and replies of our own.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version};
use pingora_error::{Error, ErrorType, OrErr, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::ctx::{Ctx, Plan};
use super::decode::Gunzip;
use super::discard::{self, Discard, Length};
use super::encode::Encoder;
use super::leftover;
use super::phases::before_body;
use crate::exchange::RequestId;
use crate::middleware::compression::Recipe;
use crate::middleware::{Answering, error_interceptor};
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

/// Whether the head says that no body follows. Of HTTP/2 that is not always known yet.
pub fn is_all(session: &Session, head: &ResponseHeader) -> bool {
    let never = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let empty = head.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length == "0");
    let trailers_only = head.headers.contains_key("grpc-status");
    never || empty || trailers_only || session.req_header().method == Method::HEAD
}

/// Finishes the head of a backend's response. Interim responses (1xx) pass as they are.
pub async fn head(session: &mut Session, ctx: &mut Ctx, head: &mut ResponseHeader) -> Result<()> {
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        strip_hop_by_hop(head);
        if session.req_header().version != Version::HTTP_2 || head.version != Version::HTTP_2 {
            head.remove_header(&header::TRAILER);
        }
    }
    one_length(head)?;
    if let Some(page) = page(session, ctx, head) {
        return replace(session, ctx, head, page).await;
    }
    unpack(ctx, head);
    if head.version < Version::HTTP_11 {
        head.set_version(Version::HTTP_11);
    }
    if let Some(recipe) = finish(session.req_header(), ctx, head)? {
        let length = head.remove_header(&header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        // No body follows a head that was asked for alone.
        if session.req_header().method != Method::HEAD {
            let encoder = Encoder::new(recipe, length).or_err(ErrorType::InternalError, "packing the response")?;
            ctx.encoder = Some(Box::new(encoder));
        }
    }
    frame(session, head)
}

/// Sees to it that the client finds the end of a body that lost its length here, or never had one.
fn frame(session: &mut Session, head: &mut ResponseHeader) -> Result<()> {
    let without_body = session.req_header().method == Method::HEAD
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::SWITCHING_PROTOCOLS);
    if without_body || head.headers.contains_key(header::CONTENT_LENGTH) {
        return Ok(());
    }
    match session.req_header().version {
        Version::HTTP_11 => head.insert_header(header::TRANSFER_ENCODING, "chunked")?,
        // The end of such a body is the end of the connection for such a client.
        Version::HTTP_10 => {
            head.remove_header(&header::TRANSFER_ENCODING);
            session.set_keepalive(None);
        }
        _ => {}
    }
    Ok(())
}

/// What the route sends instead of the body of this response, if anything; counts it.
fn page(session: &Session, ctx: &Ctx, head: &ResponseHeader) -> Option<(HeaderValue, Bytes)> {
    let route = ctx.route()?;
    let page = route.chain.shell.errors()?.page(head, &session.req_header().headers)?;
    if let Some(metrics) = &route.metrics {
        metrics.intercepted(head.status.as_u16());
    }
    Some(page)
}

/// Sends a page in place of a backend's response, at once. Pingora then has nothing to write: it gets an interim head, and
/// is told to ignore such.
async fn replace(
    session: &mut Session,
    ctx: &mut Ctx,
    head: &mut ResponseHeader,
    (content_type, body): (HeaderValue, Bytes),
) -> Result<()> {
    let mut own = head.clone();
    error_interceptor::undress(&mut own);
    own.set_version(Version::HTTP_11);
    describe(&mut own, content_type, body.len())?;
    let length = Length::of(head);
    let given_up = length.ends_exchange(session);
    if given_up {
        super::close(session, ctx);
    }
    write(session, ctx, own, body, Form::Routed).await.map_err(Error::into_down)?;
    // A connection of HTTP/2 is shared with others.
    let backend = ctx.backend_fd.filter(|_| head.version != Version::HTTP_2);
    ctx.discard = Some(Discard::new(backend));
    if given_up {
        return discard::give_up();
    }
    length.wait().await;
    session.set_ignore_info_resp(true);
    head.set_status(StatusCode::EARLY_HINTS)
}

/// Removes what concerns the connection to the backend only. Spec core §5.3, RFC 9110 §7.6.1.
///
/// Framing stays: Pingora has read it and writes its own. Trailers pass from HTTP/2 to HTTP/2 only, so nothing
/// announces them elsewhere.
fn strip_hop_by_hop(head: &mut ResponseHeader) {
    let mut there = 0u8;
    for name in head.headers.keys() {
        if let Some(at) = HOP_BY_HOP.iter().position(|known| known == name) {
            there |= 1 << at;
        }
    }
    if there == 0 {
        return;
    }
    let nominated: Vec<HeaderName> = nominated(head).filter(|name| !FRAMING.contains(name)).collect();
    for name in &nominated {
        head.remove_header(name);
    }
    for (at, name) in HOP_BY_HOP.iter().enumerate() {
        if there & (1 << at) != 0 {
            head.remove_header(name);
        }
    }
}

/// The fields that the backend's `Connection` names; what the usual one says is none.
fn nominated(head: &ResponseHeader) -> impl Iterator<Item = HeaderName> {
    let lines = head.headers.get_all(header::CONNECTION).iter();
    let tokens = lines.flat_map(|line| line.as_bytes().split(|b| *b == b',')).map(<[u8]>::trim_ascii);
    let usual = |token: &&[u8]| token.eq_ignore_ascii_case(b"keep-alive") || token.eq_ignore_ascii_case(b"close");
    tokens.filter(move |token| !usual(token)).filter_map(|token| HeaderName::from_bytes(token).ok())
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

/// The part that backend's responses and our own replies share: Goma's headers, the chain backwards, the shell. Returns how
/// the body is to be packed, if it is.
fn finish(request: &RequestHeader, ctx: &Ctx, head: &mut ResponseHeader) -> Result<Option<Recipe>> {
    let (Plan::Route(route), Some(exchange)) = (&ctx.plan, &ctx.exchange) else { return Ok(None) };
    head.insert_header("X-Goma-Request-ID", id(&exchange.id))?;
    route.chain.response(ctx.ran, exchange, head);
    for cookie in &exchange.cookies {
        head.append_header("Set-Cookie", cookie.clone())?;
    }
    let shell = &route.chain.shell;
    let answering = Answering {
        asked: request.uri.path(),
        sent: ctx.sent_path.as_deref().unwrap_or(&exchange.path),
        origin: ctx.origin.as_deref(),
        proxied: exchange.attempts > 0,
    };
    shell.apply(&answering, head);
    let recipe = shell.compression(&answering).and_then(|compression| compression.dress(&ctx.accepted, head));
    // Last, as in Goma: no policy brings these back. Spec middlewares §3.
    head.remove_header(&header::SERVER);
    head.insert_header("Proxied-By", HeaderValue::from_static("Goma Gateway"))?;
    Ok(recipe)
}

fn id(id: &RequestId) -> HeaderValue {
    HeaderValue::from_str(id.as_str()).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

/// Arranges that a gzip body that only we asked for is unpacked.
fn unpack(ctx: &mut Ctx, head: &mut ResponseHeader) {
    let packed = head.headers.get(header::CONTENT_ENCODING).is_some_and(|e| e.as_bytes().eq_ignore_ascii_case(b"gzip"));
    let has_body =
        !matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::SWITCHING_PROTOCOLS);
    if ctx.asked_gzip && packed && has_body {
        head.remove_header(&header::CONTENT_ENCODING);
        head.remove_header(&header::CONTENT_LENGTH);
        ctx.gunzip = Some(Gunzip::new());
    }
}

/// Writes a reply of our own. Behind a route it passes the chain backwards; maintenance and replies without a route do not.
pub async fn reply(session: &mut Session, ctx: &mut Ctx, reply: &Reply, form: Form) -> Result<()> {
    let (content_type, body) = reply.content(&session.req_header().headers);
    if reply.closes || session.is_upgrade_req() {
        super::close(session, ctx);
    }
    let mut head = ResponseHeader::build(reply.status, Some(8))?;
    for (name, value) in &reply.headers {
        head.append_header(titled(name), value.clone())?;
    }
    let page = if matches!(form, Form::Routed) { page(session, ctx, &head) } else { None };
    let own = || (content_type.map(HeaderValue::from_static), body);
    let (content_type, body) = page.map_or_else(own, |(content_type, body)| (Some(content_type), body));
    match content_type {
        Some(content_type) => describe(&mut head, content_type, body.len())?,
        None if reply.status != StatusCode::NO_CONTENT => head.insert_header(header::CONTENT_LENGTH, body.len())?,
        None => {}
    }
    write(session, ctx, head, body, form).await?;
    leftover::hear_out(session).await;
    Ok(())
}

/// Says what a body of ours is.
fn describe(head: &mut ResponseHeader, content_type: HeaderValue, length: usize) -> Result<()> {
    if content_type.to_str().is_ok_and(reply::is_plain_text) {
        head.insert_header("X-Content-Type-Options", HeaderValue::from_static("nosniff"))?;
    }
    head.insert_header(header::CONTENT_TYPE, content_type)?;
    head.insert_header(header::CONTENT_LENGTH, length)
}

/// How much of a route's dress a reply wears.
pub enum Form {
    /// Goma's headers, response hooks and shell.
    Routed,
    /// Bare.
    Bare,
}

async fn write(
    session: &mut Session,
    ctx: &mut Ctx,
    mut head: ResponseHeader,
    mut body: Bytes,
    form: Form,
) -> Result<()> {
    if let Form::Routed = form
        && let Some(recipe) = finish(session.req_header(), ctx, &mut head)?
    {
        body = Encoder::whole(recipe, &body).or_err(ErrorType::InternalError, "packing a page")?;
        head.insert_header(header::CONTENT_LENGTH, body.len())?;
    }
    let empty = body.is_empty() || session.req_header().method == Method::HEAD;
    ctx.status = head.status.as_u16();
    before_body(session, false);
    session.write_response_header(Box::new(head), empty).await?;
    if empty {
        body.clear();
    }
    ctx.sent_bytes = body.len() as u64;
    // An empty one as well, since the head does not say everywhere that it is the end.
    session.write_response_body(Some(body), true).await
}

/// Writes a response that is there already, its body in blocks. Like a backend's, it passes the chain backwards.
pub async fn blocks(session: &mut Session, ctx: &mut Ctx, mut head: ResponseHeader, blocks: &[Bytes]) -> Result<()> {
    if let Some((content_type, body)) = page(session, ctx, &head) {
        error_interceptor::undress(&mut head);
        describe(&mut head, content_type, body.len())?;
        return write(session, ctx, head, body, Form::Routed).await;
    }
    let mut encoder = None;
    if let Some(recipe) = finish(session.req_header(), ctx, &mut head)? {
        let length = head.remove_header(&header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        encoder = Some(Encoder::new(recipe, length).or_err(ErrorType::InternalError, "packing a stored response")?);
        frame(session, &mut head)?;
    }
    ctx.status = head.status.as_u16();
    before_body(session, false);
    session.write_response_header(Box::new(head), blocks.is_empty()).await?;
    for (index, block) in blocks.iter().enumerate() {
        let last = index + 1 == blocks.len();
        let part = match &mut encoder {
            Some(encoder) => encoder.feed(block, last).or_err(ErrorType::InternalError, "packing a stored response")?,
            None => block.clone(),
        };
        ctx.sent_bytes += part.len() as u64;
        if last || !part.is_empty() {
            session.write_response_body(Some(part), last).await?;
        }
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
