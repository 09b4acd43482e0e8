//! What goes to the backend: path, Host, forwarded headers. Repeatable, since every attempt starts from a fresh copy of the
//! client's head. Spec core §5.1 with the design's rulings on who may say what about the client.

use std::net::IpAddr;

use bytes::BytesMut;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Version};
use pingora_error::{ErrorType, OrErr, Result};
use pingora_http::{HeaderNameVariant, RequestHeader};

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
    if name.starts_with("x-client-cert") && CLIENT_CERTIFICATE.iter().any(|ours| ours.eq_ignore_ascii_case(name)) {
        return !trusted_peer || spelled || route.client_headers.any();
    }
    let listed = |names: &[HeaderName]| names.iter().any(|known| known.as_str() == name);
    listed(&route.identity) || (!trusted_peer || spelled) && listed(&route.address_headers)
}

/// What backends hear of a client's certificate: its subject, its fingerprint, itself.
const CLIENT_CERTIFICATE: [&str; 3] = ["X-Client-Cert-Subject", "X-Client-Cert-Fingerprint", "X-Client-Cert"];

/// Says who the client proved to be, where the configuration asks for it.
fn client_certificate(forward: &Forward<'_>, fields: &mut Vec<(&'static str, HeaderValue)>) {
    let shown = forward.conn.and_then(|conn| conn.tls.as_ref()?.client.as_deref());
    let Some(shown) = shown else { return };
    let say = forward.route.client_headers;
    let wanted = [(say.subject, &shown.subject), (say.fingerprint, &shown.fingerprint), (say.certificate, &shown.pem)];
    for (name, (_, value)) in CLIENT_CERTIFICATE.into_iter().zip(wanted).filter(|(_, (wanted, _))| *wanted) {
        fields.push((name, value.clone()));
    }
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

/// Whether a client asks for a WebSocket, by the rules of the gate: `Connection` has to say so as well.
pub fn asks_upgrade(head: &RequestHeader) -> bool {
    let mut offers = tokens(&head.headers, &header::UPGRADE);
    let mut options = tokens(&head.headers, &header::CONNECTION);
    head.version == Version::HTTP_11
        && offers.any(|offer| offer.eq_ignore_ascii_case(b"websocket"))
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

/// What [`changes`] needs to know beside the exchange.
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

/// What the head of the upstream request says otherwise than the one it is made of.
pub struct Changes {
    /// The request target, where it is another.
    target: Option<String>,
    /// Fields that take the place of those of the same name, in their usual spelling.
    fields: Vec<(&'static str, HeaderValue)>,
    /// The path sent, where `rewrite` changed it.
    pub path: Option<String>,
    /// Whether gzip is asked for on the client's behalf.
    pub asked_gzip: bool,
}

/// What is to be changed. `head` is the client's request, or what a cache made of it.
///
/// # Errors
/// When a fact of the request does not fit into a header.
pub fn changes(forward: &Forward<'_>, exchange: &Exchange, head: &RequestHeader) -> Result<Changes> {
    let Forward { route, backend, client, conn, unpacks } = forward;
    let (target, path) = target(forward, exchange, head);
    let mut fields = Vec::with_capacity(MOST_FIELDS);
    if !route.forward_host {
        fields.push(("Host", value(backend.authority())?));
    } else if exchange.host.is_empty() {
        // An old client that names none, which a backend of HTTP/1.1 would refuse.
        fields.push(("Host", value(backend.authority())?));
    } else if !head.headers.contains_key(header::HOST) {
        fields.push(("Host", value(&exchange.host)?));
    }
    if !exchange.host.is_empty() {
        fields.push(("X-Forwarded-Host", value(&exchange.host)?));
    }
    let (real_ip, forwarded_for) = match conn {
        Some(conn) if exchange.client == conn.peer.ip() => (conn.peer_text.clone(), conn.peer_twice.clone()),
        _ => (address(exchange.client)?, forwarded_for(exchange)?),
    };
    fields.push(("X-Real-IP", real_ip));
    fields.push(("X-Forwarded-For", forwarded_for));
    fields.push(("X-Forwarded-Proto", HeaderValue::from_static(exchange.scheme)));
    if route.client_headers.any() {
        client_certificate(forward, &mut fields);
    }
    if tokens(&client.headers, &header::TE).any(|t| t.eq_ignore_ascii_case(b"trailers")) {
        fields.push(("TE", HeaderValue::from_static("trailers")));
    }
    let asked_gzip = *unpacks
        && !head.headers.contains_key(header::ACCEPT_ENCODING)
        && !head.headers.contains_key(header::RANGE)
        && head.method != Method::HEAD;
    if asked_gzip {
        fields.push(("Accept-Encoding", HeaderValue::from_static("gzip")));
    }
    Ok(Changes { target, fields, path, asked_gzip })
}

impl Changes {
    /// Changes the head that Pingora sends.
    ///
    /// # Errors
    /// When a middleware made something of the path that is no request target.
    pub fn apply(self, client: Version, head: &mut RequestHeader) -> Result<()> {
        if let Some(target) = self.target {
            // The URI keeps the bytes as they are; an absolute form of the client's becomes a plain path.
            head.set_raw_path(target.as_bytes())?;
        }
        for (name, value) in self.fields {
            head.insert_header(name, value)?;
        }
        collapse(head, &header::CONTENT_LENGTH);
        if client == Version::HTTP_10 {
            head.remove_header(&header::EXPECT);
        }
        Ok(())
    }

    /// Writes the head of a request without a body that goes without Pingora: `client` with the changes.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn write(&self, client: &RequestHeader, out: &mut BytesMut) -> Result<()> {
        let target = match &self.target {
            Some(target) => {
                let checked: std::result::Result<PathAndQuery, _> = target.as_str().try_into();
                checked.or_err(ErrorType::InvalidHTTPHeader, "the target of an upstream request")?;
                target.as_bytes()
            }
            None => client.raw_path(),
        };
        for part in [client.method.as_str().as_bytes(), b" ", target, b" HTTP/1.1\r\n"] {
            out.extend_from_slice(part);
        }
        let mut field = |name: &[u8], value: &HeaderValue| {
            for part in [name, b": ", value.as_bytes(), b"\r\n"] {
                out.extend_from_slice(part);
            }
        };
        let mut has_length = false;
        client.map(|name, value| {
            let name = match &name {
                HeaderNameVariant::Case(name) => name.as_slice(),
                HeaderNameVariant::Titled(name) => name.as_bytes(),
            };
            let same = |known: &[u8]| known.eq_ignore_ascii_case(name);
            let replaced = self.fields.iter().any(|(known, _)| same(known.as_bytes()));
            let repeated = same(b"content-length") && std::mem::replace(&mut has_length, true);
            if !replaced && !repeated && !OF_THE_CONNECTION.into_iter().any(same) {
                field(name, value);
            }
            Ok(())
        })?;
        for (name, value) in &self.fields {
            field(name.as_bytes(), value);
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }
}

/// Most fields that are changed.
const MOST_FIELDS: usize = 7;

/// Fields of a request that end at the gateway, as Pingora has them. RFC 9110 §7.6.1.
const OF_THE_CONNECTION: [&[u8]; 11] = [
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"http2-settings",
    // Of a request without a body it says nothing (RFC 9110 §10.1.1), whichever middleware set it.
    b"expect",
];

/// Rewrites the path, joins it with the backend's, and puts both queries together. Returns the target where it is another,
/// and the path where `rewrite` changed it.
fn target(forward: &Forward<'_>, exchange: &Exchange, head: &RequestHeader) -> (Option<String>, Option<String>) {
    let rewritten = forward.route.rewrite.as_ref().and_then(|rewrite| rewrite.apply(&exchange.path));
    let path = rewritten.as_deref().unwrap_or(&exchange.path);
    let (base, base_query) = (forward.backend.base_path(), forward.backend.base_query());
    let as_asked =
        path == head.uri.path() && exchange.query.as_deref() == head.uri.query() && head.uri.authority().is_none();
    if as_asked && matches!(base, "" | "/") && base_query.is_none() {
        return (None, None);
    }
    let mut sent = String::with_capacity(base.len() + path.len() + 64);
    rewrite::join(&mut sent, base, path);
    if base_query.is_some() || exchange.query.is_some() {
        sent.push('?');
        rewrite::join_query(&mut sent, base_query, exchange.query.as_deref());
    }
    let changed = (path != exchange.path).then(|| path.to_owned());
    (Some(sent), changed)
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
