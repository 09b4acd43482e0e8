//! The way of a request through the gateway, step by step with the proxy's own functions.

use http::{HeaderMap, HeaderValue, header};
use pingora_http::RequestHeader;

use super::answer::{Backend, Considered, Explanation, Header, Headers, Middleware, Said, Tls};
use super::ask::Ask;
use super::{backends, policies};
use crate::admin;
use crate::config::Config;
use crate::exchange::{Exchange, Reason};
use crate::gate::{self, CanonicalPath, Refusal};
use crate::middleware::Answering;
use crate::middleware::chain::{self, Chain, Listed};
use crate::middleware::cors::Asked;
use crate::proxy::Plan;
use crate::proxy::arrive::{self, Facts};
use crate::proxy::forward::{self, Forward};
use crate::reply::Reply;
use crate::route::{Builder, Outcome, Rank};
use crate::snapshot::{Own, Route, Snapshot, Target, pattern};
use crate::telemetry::redact;

/// Explains one request under one configuration.
pub fn explain(ask: &Ask, config: &Config, snapshot: &Snapshot) -> Explanation {
    if let Err(refusal) = gate::head(&ask.wire(), &snapshot.head_limits) {
        return refused(ask, &refusal);
    }
    let Ok(mut head) = ask.head() else {
        return refused(ask, &Refusal { status: 400, reason: "bad_request", detail: "this is no request" });
    };
    arrive::tidy(&mut head);
    let exchange = arrive::exchange(&head, snapshot, ask.from.to_canonical(), ask.tls);
    let mut walk = Walk { config, snapshot, answer: facts(&exchange, snapshot), exchange, head };
    walk.answer.tls = ask.tls.then(|| tls(config, snapshot, &walk.exchange.host));
    walk.considered();
    walk.go();
    walk.answer
}

/// The client asks for the host that its request is for.
fn tls(config: &Config, snapshot: &Snapshot, authority: &str) -> Tls {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host).to_ascii_lowercase();
    // An address is no name to ask for.
    let name = host.parse::<std::net::IpAddr>().is_err().then_some(&*host);
    let certificates = snapshot.tls.index().choice(name).iter().map(|certificate| certificate.names.clone());
    let client_certificate = match (snapshot.client_names.hold(name), config.gateway.tls.client_auth.required) {
        (false, _) => "not_asked",
        (true, false) => "checked",
        (true, true) => "required",
    };
    Tls { certificates: certificates.collect(), client_certificate }
}

/// The gate stops a request before anybody asks who sent it.
fn refused(ask: &Ask, refusal: &Refusal) -> Explanation {
    Explanation {
        outcome: Reason::of_refusal(refusal.status).to_string(),
        status: Some(refusal.status),
        detail: Some(refusal.detail.to_owned()),
        method: ask.method.clone(),
        host: ask.host.clone(),
        client: ask.from.to_string(),
        peer: ask.from.to_string(),
        scheme: if ask.tls { "https" } else { "http" },
        path: ask.target.split('?').next().unwrap_or_default().to_owned(),
        ..Explanation::default()
    }
}

fn facts(exchange: &Exchange, snapshot: &Snapshot) -> Explanation {
    Explanation {
        outcome: Reason::Ok.to_string(),
        method: exchange.method.to_string(),
        host: exchange.host.clone(),
        client: exchange.client.to_string(),
        peer: exchange.peer.to_string(),
        peer_is_trusted: snapshot.trust.peer(exchange.peer),
        scheme: exchange.scheme,
        path: exchange.path.clone(),
        ..Explanation::default()
    }
}

struct Walk<'a> {
    config: &'a Config,
    snapshot: &'a Snapshot,
    exchange: Exchange,
    /// What the backend will get.
    head: RequestHeader,
    answer: Explanation,
}

impl Walk<'_> {
    fn go(&mut self) {
        match arrive::plan(&self.exchange, self.snapshot) {
            Plan::Route(route) => self.route(&route),
            Plan::Own(own) => self.own(&own),
            Plan::Reply(reply, reason) => self.reply(&reply, reason),
            Plan::Unknown => {}
        }
    }

    fn ends(&mut self, reason: Reason, status: u16) {
        self.answer.outcome = reason.to_string();
        self.answer.status = Some(status);
    }

    /// An answer without a route.
    fn reply(&mut self, reply: &Reply, reason: Reason) {
        self.ends(reason, reply.status.as_u16());
        self.answer.location = location(reply);
        if let Err(refusal) = gate::path(&self.exchange.path) {
            self.answer.detail = Some(refusal.detail.to_owned());
        }
    }

    fn own(&mut self, own: &Own) {
        self.answer.endpoint = Some(endpoint(own));
        self.ends(Reason::Ok, 200);
        let chain = match own {
            Own::Health => return,
            Own::Ready => {
                self.answer.detail = Some("503 while the gateway starts or stops".to_owned());
                return;
            }
            Own::Reload(token) | Own::Cache(token) => {
                let given = self.head.headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
                let status = if admin::bearer(given, token) { 200 } else { 401 };
                return self.ends(Reason::Ok, status);
            }
            Own::Metrics(chain) => chain,
            Own::RouteHealth(chain) => chain,
        };
        self.walk_chain(chain);
    }

    fn route(&mut self, route: &Route) {
        self.answer.route = Some(route.name.to_string());
        self.answer.allowed_methods = route.methods.clone();
        self.answer.middlewares = not_reached(route.chain.listed());
        if let Some(maintenance) = &route.maintenance {
            self.answer.maintenance = true;
            return self.ends(Reason::Maintenance, maintenance.status.as_u16());
        }
        let client = self.head.clone();
        arrive::clean(&mut self.head, route, self.snapshot.trust.peer(self.exchange.peer));
        let origin = route.chain.shell.origin(&self.head);
        if route.chain.shell.answers_preflight(&self.exchange.method, origin.as_deref()) {
            self.ends(arrive::PREFLIGHT, 204);
            return self.shell(&route.chain, client.uri.path(), &self.exchange.path.clone(), origin.as_deref());
        }
        let passed = self.walk_chain(&route.chain);
        self.answer.path_after_middlewares = Some(self.exchange.path.clone());
        let mut sent = self.exchange.path.clone();
        if passed {
            match arrive::method_refusal(route, &self.exchange) {
                Some(reply) => self.ends(Reason::MethodNotAllowed, reply.status.as_u16()),
                None => sent = self.backends(route, &client).unwrap_or(sent),
            }
        }
        self.shell(&route.chain, client.uri.path(), &sent, origin.as_deref());
    }

    /// Walks the request hooks; whether the request passed them all.
    fn walk_chain(&mut self, chain: &Chain) -> bool {
        self.answer.middlewares = not_reached(chain.listed());
        for (place, said) in chain.rehearse(&mut self.exchange, &mut self.head) {
            let (verdict, status) = said_of(&said);
            if let chain::Said::Ends(reason, verdict) = &said {
                self.ends(*reason, verdict.reply.status.as_u16());
                self.answer.location = location(&verdict.reply);
            }
            if let Some(middleware) = self.answer.middlewares.get_mut(place) {
                (middleware.verdict, middleware.status) = (verdict, status);
            }
        }
        self.answer.outcome == Reason::Ok.to_string()
    }

    /// Parts of the shell count for replies of our own as well.
    fn shell(&mut self, chain: &Chain, asked: &str, sent: &str, origin: Option<&Asked>) {
        let answering = Answering { asked, sent, origin, proxied: !self.answer.backends.is_empty() };
        for (place, said) in chain.rehearse_shell(&answering) {
            if let Some(middleware) = self.answer.middlewares.get_mut(place) {
                (middleware.verdict, middleware.status) = said_of(&said);
            }
        }
    }

    /// Fills in the backends; the path after the rewrite, if that changed it.
    fn backends(&mut self, route: &Route, client: &RequestHeader) -> Option<String> {
        let written = self.config.routes.iter().find(|written| *written.name == *route.name);
        if let Some(written) = written {
            let method = &self.exchange.method;
            let repeats = route.upstream.policy().is_some_and(|policy| policy.allows(method));
            self.answer.policies = policies::sentences(written, method.as_str(), repeats);
        }
        let written = written.map_or(&[][..], |written| &written.backends);
        let facts = Facts { head: &self.head, exchange: &self.exchange };
        let verdicts = backends::verdicts(&route.upstream, written, &facts);
        let mut path = None;
        for verdict in verdicts {
            let backend = &route.upstream.backends()[verdict.index];
            let (name, weight) = (redact::url(backend.name()).into_owned(), backend.weight());
            let mut told =
                Backend { name, weight, share: verdict.share, host: None, sent: None, reason: verdict.reason };
            if verdict.share.is_none() {
                self.answer.other_backends.push(told);
                continue;
            }
            let mut head = self.head.clone();
            let forward = Forward { route, backend, client: &self.head, conn: None, unpacks: route.unpack_gzip };
            let prepared = forward::changes(&forward, &self.exchange, &head).and_then(|mut changes| {
                let rewritten = changes.path.take();
                changes.apply(self.head.version, &mut head).map(|()| rewritten)
            });
            let Ok(rewritten) = prepared else {
                self.ends(Reason::Internal, 500);
                return None;
            };
            path = path.or(rewritten);
            told.host = head.headers.get(header::HOST).map(text);
            told.sent = Some(target(&head));
            if self.answer.headers.is_none() {
                self.answer.headers = Some(changes(client, &head));
                self.answer.sent = told.sent.clone();
            }
            self.answer.backends.push(told);
        }
        if self.answer.backends.is_empty() {
            self.ends(Reason::NoBackend, 503);
        }
        path
    }

    /// Routes that come near, and those that would if they were enabled.
    fn considered(&mut self) {
        let Ok(path) = gate::path(&self.exchange.path) else { return };
        let (host, method) = (&self.exchange.host, self.exchange.method.as_str());
        let near = self.snapshot.table.explain(&path, host, method).into_iter();
        let mut considered: Vec<Considered> = near
            .map(|one| Considered {
                route: label(one.value),
                path: one.path.to_owned(),
                host: one.host.clone(),
                outcome: word(one.outcome),
                sentence: one.outcome.to_string(),
            })
            .collect();
        considered.extend(self.disabled(&path));
        self.answer.considered = considered;
    }

    fn disabled(&self, path: &CanonicalPath<'_>) -> Vec<Considered> {
        let mut builder = Builder::new(self.config.gateway.strict_slash);
        for route in self.config.routes.iter().filter(|route| !route.enabled) {
            // A wrong pattern was refused before.
            let _ = builder.add(pattern(route), route.name.clone());
        }
        let (table, _) = builder.build();
        let matches = |outcome| matches!(outcome, Outcome::Taken | Outcome::Outranked(_));
        let near = table.explain(path, &self.exchange.host, self.exchange.method.as_str()).into_iter();
        near.filter(|one| matches(one.outcome))
            .map(|one| Considered {
                route: one.value.clone(),
                path: one.path.to_owned(),
                host: one.host.clone(),
                outcome: "disabled",
                sentence: "would match, but is disabled".to_owned(),
            })
            .collect()
    }
}

fn location(reply: &Reply) -> Option<String> {
    let (_, value) = reply.headers.iter().find(|(name, _)| name == header::LOCATION)?;
    Some(value.to_str().ok()?.to_owned())
}

fn not_reached(listed: &[Listed]) -> Vec<Middleware> {
    let middleware = |listed: &Listed| Middleware {
        name: listed.name.clone(),
        kind: listed.kind.clone(),
        verdict: Said::NotReached,
        status: None,
    };
    listed.iter().map(middleware).collect()
}

fn said_of(said: &chain::Said) -> (Said, Option<u16>) {
    match said {
        chain::Said::Passes => (Said::Passes, None),
        chain::Said::Ends(_, verdict) => {
            let said = if verdict.refused { Said::Refuses } else { Said::Answers };
            (said, Some(verdict.reply.status.as_u16()))
        }
        chain::Said::MustAsk => (Said::MustAsk, None),
        chain::Said::Applies => (Said::Applies, None),
        chain::Said::OtherPaths => (Said::OtherPaths, None),
    }
}

fn label(target: &Target) -> String {
    match target {
        Target::Route(route) => route.name.to_string(),
        Target::Landing(landing) => landing.first.name.to_string(),
        Target::Own(own) => format!("gateway:{}", endpoint(own)),
    }
}

fn endpoint(own: &Own) -> &'static str {
    match own {
        Own::Health => "health",
        Own::Ready => "ready",
        Own::Metrics(_) => "metrics",
        Own::RouteHealth(_) => "route_health",
        Own::Reload(_) => "reload",
        Own::Cache(_) => "cache",
    }
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Taken => "taken",
        Outcome::Method => "method",
        Outcome::Host => "host",
        Outcome::Path => "path",
        Outcome::OtherForm => "other_form",
        Outcome::Outranked(Rank::Priority) => "outranked:priority",
        Outcome::Outranked(Rank::Specificity) => "outranked:path",
        Outcome::Outranked(Rank::Host) => "outranked:host",
        Outcome::Outranked(Rank::Method) => "outranked:method",
        Outcome::Outranked(Rank::Order) => "outranked:order",
    }
}

/// Path and query of an upstream request, for the eyes of people.
fn target(head: &RequestHeader) -> String {
    let raw = String::from_utf8_lossy(head.raw_path()).into_owned();
    match raw.split_once('?') {
        Some((path, query)) => format!("{path}?{}", redact::query(query)),
        None => raw,
    }
}

fn changes(client: &RequestHeader, sent: &RequestHeader) -> Headers {
    let mut changes = Headers::default();
    for name in sent.headers.keys() {
        if values(&client.headers, name.as_str()) != values(&sent.headers, name.as_str()) {
            let value = match redact::is_secret(name.as_str()) {
                true => redact::REDACTED.to_owned(),
                false => values(&sent.headers, name.as_str()).join(", "),
            };
            changes.set.push(Header { name: name.to_string(), value });
        }
    }
    let gone = client.headers.keys().filter(|name| !sent.headers.contains_key(*name));
    changes.removed = gone.map(ToString::to_string).collect();
    changes.set.sort_by(|a, b| a.name.cmp(&b.name));
    changes.removed.sort();
    changes
}

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().map(text).collect()
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}
