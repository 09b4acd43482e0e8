//! A request arrives: who asks, which route takes it, may it pass.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, Version, header};
use pingora_error::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::ctx::{Ctx, Plan};
use super::forward;
use super::respond::Form;
use crate::entry::ConnInfo;
use crate::exchange::{Exchange, Reason, RequestId};
use crate::fields;
use crate::gate::{self, Refusal};
use crate::middleware::chain::{self, Watches};
use crate::reply::Reply;
use crate::route::Find;
use crate::snapshot::{Landing, Route, Snapshot, Target};
use crate::trust;

/// Reads the facts of the request and decides what is to be done with it.
pub fn arrive(session: &mut Session, ctx: &mut Ctx) {
    ctx.conn = conn(session);
    tidy(session.req_header_mut());
    let tls = ctx.conn.as_ref().and_then(|conn| conn.tls.as_ref());
    let peer = ctx.conn.as_ref().map_or(UNKNOWN, |conn| conn.peer.ip());
    let exchange = exchange(session.req_header(), &ctx.snapshot, peer, tls.is_some());
    let misdirected = tls.is_some_and(|tls| ctx.snapshot.client_names.misdirected(tls.asked, &exchange.host));
    ctx.plan = if misdirected { self::misdirected() } else { plan(&exchange, &ctx.snapshot) };
    ctx.exchange = Some(exchange);
}

/// Gives the head one form for all that look at it.
pub(crate) fn tidy(head: &mut RequestHeader) {
    match head.version {
        Version::HTTP_2 => forward::join_cookies(head),
        // What is no upgrade to the gate must not be one to Pingora, which looks at the one header only, and at no list in it.
        _ if head.headers.contains_key(header::UPGRADE) => {
            let asks = forward::asks_upgrade(head);
            head.remove_header(&header::UPGRADE);
            if asks {
                let _ = head.insert_header(header::UPGRADE, "websocket");
            }
        }
        _ => {}
    }
}

fn conn(session: &Session) -> Option<Arc<ConnInfo>> {
    let digest = session.digest()?.proxy_digest.as_ref()?;
    digest.user_data.as_ref()?.downcast_ref::<Arc<ConnInfo>>().cloned()
}

/// On this connection nobody asked for the certificate that the name wants to see.
fn misdirected() -> Plan {
    Plan::Reply(Reply::plain(StatusCode::MISDIRECTED_REQUEST), Reason::Misdirected)
}

fn refused(refusal: &Refusal) -> Plan {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
    Plan::Reply(Reply::plain(status), Reason::of_refusal(refusal.status))
}

/// The facts of a request that this peer sent, over TLS or not.
pub(crate) fn exchange(head: &RequestHeader, snapshot: &Snapshot, peer: IpAddr, tls: bool) -> Exchange {
    let trust = &snapshot.trust;
    let reported = trust.peer(peer).then(|| trust::scheme(&head.headers)).flatten();
    Exchange {
        id: RequestId::take(head.headers.get("x-request-id").map(|id| id.as_bytes())),
        client: trust.client(peer, &head.headers),
        peer,
        scheme: reported.unwrap_or(if tls { "https" } else { "http" }),
        method: head.method.clone(),
        host: host(head).to_owned(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        started: Instant::now(),
        upstream_time: None,
        attempts: 0,
        held: Vec::new(),
        claims: None,
        limits: Vec::new(),
        cookies: Vec::new(),
        reason: Reason::Ok,
        why: Cow::Borrowed(""),
    }
}

/// A connection of ours always says who its peer is; this stands for one that does not.
const UNKNOWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

/// The authority that the client asked for: of an absolute target, `:authority`, or `Host`. The gate saw that they agree.
fn host(head: &RequestHeader) -> &str {
    match head.uri.authority() {
        Some(authority) => authority.as_str(),
        None => head.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
    }
}

/// What is to be done with a request.
pub(crate) fn plan(exchange: &Exchange, snapshot: &Snapshot) -> Plan {
    if exchange.path == "*" {
        return Plan::Reply(Reply::empty(StatusCode::OK), Reason::Ok);
    }
    let path = match gate::path(&exchange.path) {
        Ok(path) => path,
        Err(refusal) => return refused(&refusal),
    };
    match snapshot.table.find(&path, &exchange.host, exchange.method.as_str()) {
        Find::Found(Target::Route(route)) => Plan::Route(route.clone()),
        Find::Found(Target::Landing(routes)) => Plan::Route(landing(routes, exchange).clone()),
        Find::Found(Target::Own(own)) => Plan::Own(own.clone()),
        Find::MethodNotAllowed { allow } => wrong_method(allow),
        Find::Redirect { path } => redirect(path, exchange.query.as_deref()),
        Find::Nothing => not_found(),
    }
}

/// Of several routes that share a landing the one whose middleware asked for this.
fn landing<'a>(routes: &'a Landing, exchange: &Exchange) -> &'a Arc<Route> {
    routes.others.iter().find(|route| route.chain.claims(exchange)).unwrap_or(&routes.first)
}

/// Spec core §4.4: bytes of Go's library, whatever the client accepts.
fn not_found() -> Plan {
    let text = "text/plain; charset=utf-8";
    Plan::Reply(Reply::exact(StatusCode::NOT_FOUND, text, "404 page not found\n"), Reason::NoRoute)
}

fn wrong_method(allow: &str) -> Plan {
    let text = "text/plain; charset=utf-8";
    let mut reply = Reply::exact(StatusCode::METHOD_NOT_ALLOWED, text, "Method Not Allowed\n");
    if let Ok(allow) = allow.parse() {
        reply = reply.header(header::ALLOW, allow);
    }
    Plan::Reply(reply, Reason::MethodNotAllowed)
}

fn redirect(path: String, query: Option<&str>) -> Plan {
    let location = query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
    match location.parse() {
        Ok(location) => {
            Plan::Reply(Reply::empty(StatusCode::MOVED_PERMANENTLY).header(header::LOCATION, location), Reason::Ok)
        }
        Err(_) => not_found(),
    }
}

/// Walks the chain of a route forwards. `None`: on to the backend.
pub async fn admit(session: &mut Session, ctx: &mut Ctx, route: &Route) -> Option<(Reply, Reason, Form)> {
    if let Some(maintenance) = &route.maintenance {
        log::warn!(target: "access", route = &*route.name; "Route is in maintenance mode");
        let reply = match route.chain.shell.reader(session.req_header()) {
            // Nothing else dresses it, but scripts of the page are to read it. Spec middlewares §6.1.
            Some(origin) => maintenance
                .clone()
                .header(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin)
                .header(header::VARY, HeaderValue::from_static("Origin")),
            None => maintenance.clone(),
        };
        return Some((reply, Reason::Maintenance, Form::Bare));
    }
    let exchange = ctx.exchange.as_mut()?;
    if let Some(metrics) = &route.metrics {
        let length = session.get_header(header::CONTENT_LENGTH).and_then(|l| l.to_str().ok()?.parse().ok());
        metrics.begin((&exchange.method).into(), length);
    }
    if session.is_upgrade_req() {
        // A tunnel may be silent for as long as it likes.
        session.set_read_timeout(None);
    }
    let trusted = ctx.snapshot.trust.peer(exchange.peer);
    let head = session.req_header_mut();
    // Middlewares may take it off.
    ctx.authorized = head.headers.contains_key(header::AUTHORIZATION);
    clean(head, route, trusted);
    ctx.origin = route.chain.shell.origin(head);
    ctx.accepted = route.chain.shell.accepted(head);
    if route.chain.shell.answers_preflight(&exchange.method, ctx.origin.as_deref()) {
        return Some((Reply::empty(StatusCode::NO_CONTENT), PREFLIGHT, Form::Routed));
    }
    let (ran, verdict) = route.chain.request(exchange, head).await;
    ctx.ran = ran;
    if let Some((reason, verdict)) = verdict {
        exchange.why = verdict.why;
        return Some((verdict.reply, reason, Form::Routed));
    }
    method_refusal(route, exchange).map(|reply| (reply, Reason::MethodNotAllowed, Form::Routed))
}

/// Lets the middlewares of the route watch the request body. Tunnels have no body.
///
/// # Errors
/// When one of them ends the request; its verdict waits in the context.
pub fn watch(session: &Session, body: &mut Option<Bytes>, end: bool, ctx: &mut Ctx) -> Result<()> {
    if ctx.watches.is_none() {
        let (Plan::Route(route), Some(exchange)) = (&ctx.plan, &ctx.exchange) else { return Ok(()) };
        let no_body = end && body.as_ref().is_none_or(Bytes::is_empty) || session.is_upgrade_req();
        let watches = if no_body { Watches::new() } else { route.chain.watches(exchange, session.req_header()) };
        ctx.watches = Some(watches);
    }
    let Some(watches) = ctx.watches.as_mut().filter(|watches| !watches.is_empty()) else { return Ok(()) };
    match chain::watch(watches, body.take().unwrap_or_default(), end) {
        // An empty chunk means that nothing goes on yet; to Pingora, none would mean the end.
        Ok(chunk) => *body = Some(chunk),
        Err(refused) => {
            let (reason, verdict) = *refused;
            ctx.ends(reason);
            ctx.refusal = Some(verdict);
            return Error::e_explain(ErrorType::Custom("Refused"), "a middleware refused the request body");
        }
    }
    Ok(())
}

/// How a preflight ends that the gateway answers by itself.
pub(crate) const PREFLIGHT: Reason = Reason::Answered("cors");

/// Takes off the request what the client may not say, before any middleware looks.
pub(crate) fn clean(head: &mut RequestHeader, route: &Route, trusted_peer: bool) {
    forward::strip_nominated(head);
    forward::strip_identity(head, route, trusted_peer);
}

/// The reply to a method that the route does not let through.
pub(crate) fn method_refusal(route: &Route, exchange: &Exchange) -> Option<Reply> {
    let passes = route.methods.is_empty() || route.methods.iter().any(|allowed| allowed == exchange.method.as_str());
    let message = || format!("405 {} method not allowed", exchange.method);
    let reply = || Reply::message(StatusCode::METHOD_NOT_ALLOWED, message());
    let allow = || HeaderValue::try_from(route.methods.join(", ")).ok();
    (!passes).then(|| match allow() {
        Some(allow) => reply().header(header::ALLOW, allow),
        None => reply(),
    })
}

/// What canary rules may look at.
pub struct Facts<'a> {
    /// The client's request.
    pub head: &'a RequestHeader,
    /// Its facts.
    pub exchange: &'a Exchange,
}

impl crate::upstream::Facts for Facts<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    fn cookie(&self, name: &str) -> Option<&str> {
        fields::cookie(&self.head.headers, name)
    }

    fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        fields::parameter(self.exchange.query.as_deref()?, name)
    }

    fn ip(&self) -> IpAddr {
        self.exchange.client
    }
}
