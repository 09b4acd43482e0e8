//! What goes to the backend: path, Host, forwarded headers. Repeatable, since every attempt starts from a fresh copy of the
//! client's head. Spec core §5.1 with the design's rulings on who may say what about the client.

use std::net::IpAddr;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Version};
use pingora_error::{ErrorType, OrErr, Result};
use pingora_http::RequestHeader;

use crate::entry::ConnInfo;
use crate::exchange::Exchange;
use crate::route::rewrite;
use crate::snapshot::Route;
use crate::upstream::Backend;

/// Takes off the client's request what only the gateway may say, before any middleware looks.
///
/// Goes through the headers once. Names are compared in any case and with `_` for `-`, since many backends read
/// `X_Real_IP` and `X-Real-IP` as one variable.
pub fn strip_identity(head: &mut RequestHeader, route: &Route, trusted_peer: bool) {
    let mut doomed: Vec<HeaderName> = Vec::new();
    for name in head.headers.keys() {
        if is_identity(name.as_str(), route, trusted_peer) {
            doomed.push(name.clone());
        }
    }
    for name in &doomed {
        head.remove_header(name);
    }
}

fn is_identity(name: &str, route: &Route, trusted_peer: bool) -> bool {
    // Every name below starts so; this keeps the usual request at one comparison a header.
    let dashed = name.contains('_').then(|| name.replace('_', "-"));
    let spelled = dashed.is_some();
    let name = dashed.as_deref().unwrap_or(name);
    if name.starts_with("x-forwarded-") || matches!(name, "x-real-ip" | "forwarded") {
        return !trusted_peer || spelled;
    }
    let listed = |names: &[HeaderName]| names.iter().any(|known| known.as_str() == name);
    listed(&route.identity) || (!trusted_peer || spelled) && listed(&route.address_headers)
}

/// Removes what the client's `Connection` nominates, before middlewares set headers of their own: a client must not be able
/// to delete an identity header by naming it. Framing stays as it is; the gate refused nominations of framing fields.
pub fn strip_nominated(head: &mut RequestHeader) {
    let mut nominated: Vec<HeaderName> = Vec::new();
    let mut upgrade = false;
    for token in tokens(&head.headers, &header::CONNECTION) {
        match token {
            b"" => {}
            token if token.eq_ignore_ascii_case(b"upgrade") => upgrade = true,
            token if KEPT.iter().any(|kept| token.eq_ignore_ascii_case(kept)) => {}
            token => nominated.extend(HeaderName::from_bytes(token)),
        }
    }
    for name in &nominated {
        head.remove_header(name);
    }
    if !nominated.is_empty() {
        head.remove_header(&header::CONNECTION);
        if upgrade {
            let _ = head.insert_header(header::CONNECTION, "upgrade");
        }
    }
}

/// Words of `Connection` that name no header to remove here: Pingora handles them.
const KEPT: [&[u8]; 4] = [b"close", b"keep-alive", b"te", b"upgrade"];

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).into_iter().flat_map(|line| line.as_bytes().split(|b| *b == b',')).map(<[u8]>::trim_ascii)
}

/// Whether a client asks for another protocol, by the rules of the gate: `Connection` has to say so as well, and h2c by upgrade
/// is no more (RFC 9113 §3.1).
pub fn asks_upgrade(head: &RequestHeader) -> bool {
    let mut offers = tokens(&head.headers, &header::UPGRADE).filter(|offer| !offer.is_empty());
    let mut options = tokens(&head.headers, &header::CONNECTION);
    head.version == Version::HTTP_11
        && offers.any(|offer| !offer.eq_ignore_ascii_case(b"h2c"))
        && options.any(|option| option.eq_ignore_ascii_case(b"upgrade"))
}

/// Clients of HTTP/2 may send each cookie in a line of its own; elsewhere they are one line. RFC 9113 §8.2.3.
pub fn join_cookies(head: &mut RequestHeader) {
    let lines: Vec<&[u8]> = head.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let (true, Ok(joined)) = (lines.len() > 1, HeaderValue::from_bytes(&lines.join(&b"; "[..]))) {
        let _ = head.insert_header(header::COOKIE, joined);
    }
}

/// Whether the client waits for a `100 Continue` that no backend will bring it; then the backend hears nothing of it.
///
/// `head` is what goes upstream, in the backend's version of HTTP.
pub fn waits_for_continue(forward: &Forward<'_>, head: &mut RequestHeader) -> bool {
    let expects = |_| forward.client.version != Version::HTTP_10;
    match head.version {
        Version::HTTP_2 => head.remove_header(&header::EXPECT).is_some_and(expects),
        _ => false,
    }
}

/// What [`prepare`] needs to know beside the exchange.
pub struct Forward<'a> {
    /// The route.
    pub route: &'a Route,
    /// The backend of this attempt.
    pub backend: &'a Backend,
    /// The client's request, untouched.
    pub client: &'a RequestHeader,
    /// The connection it came on, which has the usual addresses in text.
    pub conn: Option<&'a ConnInfo>,
    /// Whether gzip may be asked for on behalf of a client that does not.
    pub unpacks: bool,
}

/// Writes the head of the upstream request. Returns the path sent where `rewrite` changed it, and whether gzip was asked for
/// on the client's behalf.
///
/// # Errors
/// When a middleware made something of the path that is no request target.
pub fn prepare(forward: &Forward<'_>, exchange: &Exchange, head: &mut RequestHeader) -> Result<(Option<String>, bool)> {
    let Forward { route, backend, client, conn, unpacks } = forward;
    let path = target(forward, exchange, head)?;
    if !route.forward_host {
        head.insert_header(header::HOST, value(backend.authority())?)?;
    } else if !head.headers.contains_key(header::HOST) {
        head.insert_header(header::HOST, value(&exchange.host)?)?;
    }
    head.insert_header("X-Forwarded-Host", value(&exchange.host)?)?;
    let (real_ip, forwarded_for) = match conn {
        Some(conn) if exchange.client == conn.peer.ip() => (conn.peer_text.clone(), conn.peer_twice.clone()),
        _ => (address(exchange.client)?, forwarded_for(exchange)?),
    };
    head.insert_header("X-Real-IP", real_ip)?;
    head.insert_header("X-Forwarded-For", forwarded_for)?;
    head.insert_header("X-Forwarded-Proto", HeaderValue::from_static(exchange.scheme))?;
    if tokens(&client.headers, &header::TE).any(|t| t.eq_ignore_ascii_case(b"trailers")) {
        head.insert_header(header::TE, "trailers")?;
    }
    collapse(head, &header::CONTENT_LENGTH);
    if client.version == Version::HTTP_10 {
        head.remove_header(&header::EXPECT);
    }
    let ask_gzip = *unpacks
        && !head.headers.contains_key(header::ACCEPT_ENCODING)
        && !head.headers.contains_key(header::RANGE)
        && head.method != Method::HEAD;
    if ask_gzip {
        head.insert_header("Accept-Encoding", HeaderValue::from_static("gzip"))?;
    }
    Ok((path, ask_gzip))
}

/// Rewrites the path, joins it with the backend's, and puts both queries together.
fn target(forward: &Forward<'_>, exchange: &Exchange, head: &mut RequestHeader) -> Result<Option<String>> {
    let rewritten = forward.route.rewrite.as_ref().and_then(|rewrite| rewrite.apply(&exchange.path));
    let path = rewritten.as_deref().unwrap_or(&exchange.path);
    let (base, base_query) = (forward.backend.base_path(), forward.backend.base_query());
    let as_asked =
        path == head.uri.path() && exchange.query.as_deref() == head.uri.query() && head.uri.authority().is_none();
    if as_asked && matches!(base, "" | "/") && base_query.is_none() {
        return Ok(None);
    }
    let mut sent = String::with_capacity(base.len() + path.len() + 64);
    rewrite::join(&mut sent, base, path);
    if base_query.is_some() || exchange.query.is_some() {
        sent.push('?');
        rewrite::join_query(&mut sent, base_query, exchange.query.as_deref());
    }
    // The URI keeps the bytes as they are; an absolute form of the client's becomes a plain path.
    head.set_raw_path(sent.as_bytes())?;
    Ok((path != exchange.path).then(|| path.to_owned()))
}

fn forwarded_for(exchange: &Exchange) -> Result<HeaderValue> {
    use std::fmt::Write;
    let mut text = String::with_capacity(40);
    let written = write!(text, "{}, {}", exchange.client, exchange.peer);
    written.or_err(ErrorType::InternalError, "writing an address")?;
    value(&text)
}

fn address(address: IpAddr) -> Result<HeaderValue> {
    value(&address.to_string())
}

fn value(text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text).or_err(ErrorType::InvalidHTTPHeader, "header value from request facts")
}

/// Several identical lines become one.
fn collapse(head: &mut RequestHeader, name: &'static HeaderName) {
    let mut lines = head.headers.get_all(name).iter();
    if let (Some(first), Some(_)) = (lines.next().cloned(), lines.next()) {
        let _ = head.insert_header(name, first);
    }
}
