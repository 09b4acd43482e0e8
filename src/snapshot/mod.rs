//! The compiled configuration: valid, immutable, swapped whole.
//!
//! [`compile`] is the only place where names are looked up. It composes: each module builds its own part from its own
//! settings, and what survives a reload (connections, health, counters) is found again by identity in [`Workshop`].

mod chains;
mod landings;
pub mod material;
mod patterns;
mod policies;
pub mod secure;
mod shadowed;
mod upstreams;

use std::collections::HashSet;
use std::sync::Arc;

use http::{HeaderName, StatusCode};
use tokio::runtime::Handle;

use crate::cache::zone::Zones;
use crate::config::{Config, Env, Examined, Loaded, Place, Problem, Report};
use crate::config::{Gateway as GatewayConfig, Route as RouteConfig};
use crate::gate::Limits;
use crate::middleware::in_flight::InFlights;
use crate::middleware::jwt::KeySets;
use crate::middleware::oauth::Parties;
use crate::middleware::{Chain, Tools};
use crate::redis::{self, Redis};
use crate::reply::Reply;
use crate::route::rewrite::Rewrite;
use crate::route::{Builder, Methods, Part as PatternPart, Pattern, Span, Table};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::route::RouteMetrics;
use crate::tls::{Keeper, Names, Table as TlsTable};
use crate::trust::Trust;
use crate::upstream::{Change, DnsSettings, Registry, Upstream, resolver_address};
use chains::Chains;
pub use landings::Landing;
pub use upstreams::TimeLimits;

/// Everything a request needs to know of the configuration.
pub struct Snapshot {
    /// Paths and hosts to what answers them.
    pub table: Table<Target>,
    /// Enabled routes, in the order of the configuration.
    pub routes: Vec<Arc<Route>>,
    /// Who may say who the client is.
    pub trust: Trust,
    /// Limits of a request head; HTTP/2 is checked against them.
    pub head_limits: Limits,
    /// Whether `/healthz/routes` keeps error texts to itself (Goma's key for it is inverted; spec core §7.1).
    pub hide_health_errors: bool,
    /// Certificates and settings of entry points with TLS; those in force may be newer, when files have changed.
    pub tls: Arc<TlsTable>,
    /// Server names on which clients are asked for certificates.
    pub client_names: Arc<Names>,
    /// Whether visitors are counted: where metrics are.
    pub visitors: bool,
    /// Whether access lines carry the details of `debug`.
    pub debug: bool,
    /// What `httpCache` stores.
    pub caches: Zones,
}

/// What backends hear of a client's certificate. Default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientHeaders {
    /// `X-Client-Cert-Subject`.
    pub subject: bool,
    /// `X-Client-Cert-Fingerprint`.
    pub fingerprint: bool,
    /// `X-Client-Cert`.
    pub certificate: bool,
}

impl ClientHeaders {
    /// As the words of the configuration say.
    fn of(words: &[String]) -> ClientHeaders {
        let says = |word: &str| words.iter().any(|said| said == word);
        ClientHeaders { subject: says("subject"), fingerprint: says("fingerprint"), certificate: says("certificate") }
    }

    /// Whether anything is said at all.
    pub fn any(self) -> bool {
        self != ClientHeaders::default()
    }
}

/// What a path and host lead to.
#[derive(Clone)]
pub enum Target {
    /// A route of the operator's.
    Route(Arc<Route>),
    /// A path on which answers to middlewares come in.
    Landing(Landing),
    /// An endpoint of the gateway.
    Own(Own),
}

/// The gateway's own endpoints.
#[derive(Clone)]
pub enum Own {
    /// `/healthz`.
    Health,
    /// `/readyz`.
    Ready,
    /// The metrics page, behind its middlewares.
    Metrics(Arc<Chain>),
    /// `/healthz/routes`, behind its middlewares.
    RouteHealth(Arc<Chain>),
    /// Reload, with the token that it asks for.
    Reload(Arc<str>),
    /// The HTTP caches, with the token that it asks for.
    Cache(Arc<str>),
}

/// A compiled route.
pub struct Route {
    /// Its name.
    pub name: Arc<str>,
    /// Its path as written.
    pub path: String,
    /// Methods that it takes; empty: all.
    pub methods: Vec<String>,
    /// The reply of a route in maintenance.
    pub maintenance: Option<Reply>,
    /// Its middlewares.
    pub chain: Chain,
    /// How its path is rewritten.
    pub rewrite: Option<Rewrite>,
    /// Its backends.
    pub upstream: Arc<Upstream>,
    /// Whether the backend sees the client's Host.
    pub forward_host: bool,
    /// Whether gzip is asked for on behalf of clients that do not, and unpacked again.
    pub unpack_gzip: bool,
    /// How long its backends may take.
    pub limits: TimeLimits,
    /// Headers that its middlewares set about who the client is; the client's own are removed.
    pub identity: Vec<HeaderName>,
    /// Headers that trusted proxies may use for the client's address; from others they are removed.
    pub address_headers: Vec<HeaderName>,
    /// What its backends hear of a client's certificate.
    pub client_headers: ClientHeaders,
    /// Its counters; `None` with `disableMetrics`.
    pub metrics: Option<Arc<RouteMetrics>>,
}

/// What outlives a snapshot and is found again by the next one.
pub struct Workshop {
    /// Backends, their health and their addresses.
    pub upstreams: Registry,
    /// What the middlewares of all routes share.
    pub tools: Tools,
    /// Certificates in force, and what the next ones take over from them.
    pub certificates: Arc<Keeper>,
    /// Environment for values that are expanded when used.
    pub env: Env,
}

/// Compiles a configuration.
///
/// # Errors
/// Everything that is wrong with it. Nothing has changed then, except that backends of the refused configuration may have
/// been looked up; [`Registry::sweep`] forgets them.
pub fn compile(config: &Config, workshop: &Workshop) -> Result<(Snapshot, Vec<Problem>), Report> {
    let mut report = Report::default();
    let trust = trust(&config.gateway, &mut report);
    let chains = Chains::new(config, &workshop.env, &workshop.tools, &mut report);
    let mut builder = Builder::new(config.gateway.strict_slash);
    let own = own_endpoints(&config.gateway, &chains, &mut builder, &mut report);
    resolvers(&config.gateway, &mut report);
    let tls = secure::table(config, &workshop.env, &workshop.certificates, &mut report);
    report.extend(redis::Settings::of(&config.gateway).err().unwrap_or_default());
    report.extend(redis::Settings::doubts(&config.gateway));
    let mut routes = Vec::new();
    let ordered = registration_order(config);
    for (index, route) in ordered.iter().enumerate() {
        let compiled = compile_route(route, config, &chains, &trust, workshop, &mut report).map(Arc::new);
        let (Some(compiled), true) = (compiled, route.enabled) else { continue };
        match builder.add(pattern(route), Target::Route(compiled.clone())) {
            Ok(()) => routes.push((index, compiled)),
            Err(error) => report.extend(patterns::wrong(route, &error)),
        }
    }
    let added: Vec<&RouteConfig> = routes.iter().map(|(index, _)| ordered[*index]).collect();
    report.extend(shadowed::warnings(&added));
    let landings = landings::add(&routes, &ordered, &mut builder);
    let (table, overlaps) = builder.build();
    for overlap in &overlaps {
        let routed = own.len() + added.len();
        match overlap.second.checked_sub(routed).or(overlap.first.checked_sub(routed)) {
            Some(index) => report.extend(landings::overlap(&landings, index)),
            None => report.add(patterns::overlap(overlap, &own, &added)),
        }
    }
    report.sort();
    let Some(tls) = tls.filter(|_| report.errors.is_empty()) else { return Err(report) };
    let snapshot = Snapshot {
        table,
        routes: in_file_order(config, routes),
        trust,
        head_limits: head_limits(&config.gateway),
        hide_health_errors: config.gateway.monitoring.include_route_health_errors,
        client_names: tls.names().clone(),
        tls,
        visitors: config.gateway.monitoring.enable_metrics,
        debug: config.gateway.debug,
        caches: workshop.tools.caches.clone(),
    };
    Ok((snapshot, report.warnings))
}

/// Compiles what was read, with the errors of both steps in one report.
///
/// # Errors
/// Everything that is wrong. Where reading already found something wrong with a key, what compiling says of it is left out.
pub fn build(examined: Examined, workshop: &Workshop) -> Result<(Snapshot, Loaded), Report> {
    let Examined { mut loaded, errors } = examined;
    let (compiled, later) = match compile(&loaded.config, workshop) {
        Ok((snapshot, warnings)) => (Some(snapshot), Report { warnings, ..Report::default() }),
        Err(report) => (None, report),
    };
    loaded.warnings.extend(later.warnings);
    match (compiled, errors.is_empty()) {
        (Some(snapshot), true) => Ok((snapshot, loaded)),
        _ => {
            let mut report = Report { errors, warnings: loaded.warnings };
            let known = |problem: &Problem| report.errors.iter().any(|known| same_key(known, problem));
            let new: Vec<Problem> = later.errors.into_iter().filter(|problem| !known(problem)).collect();
            report.extend(new);
            report.sort();
            Err(report)
        }
    }
}

/// Whether two problems are about the same key or one below the other.
fn same_key(one: &Problem, other: &Problem) -> bool {
    let below = |long: &str, short: &str| {
        long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    one.file == other.file && (below(&one.key, &other.key) || below(&other.key, &one.key))
}

/// Size limits of a request head.
pub fn head_limits(gateway: &GatewayConfig) -> Limits {
    let Limits { target_bytes, .. } = Limits::default();
    let head_bytes = gateway.limits.header_bytes;
    Limits { head_bytes, fields: gateway.limits.header_count, target_bytes: target_bytes.min(head_bytes) }
}

fn in_file_order(config: &Config, routes: Vec<(usize, Arc<Route>)>) -> Vec<Arc<Route>> {
    let by_name: std::collections::HashMap<String, Arc<Route>> =
        routes.into_iter().map(|(_, route)| (route.name.to_string(), route)).collect();
    config.routes.iter().filter_map(|route| by_name.get(&route.name).cloned()).collect()
}

fn trust(gateway: &GatewayConfig, report: &mut Report) -> Trust {
    let proxy = &gateway.proxy;
    let place = gateway.at.child("proxy");
    let mut headers = Vec::new();
    for (index, name) in proxy.ip_headers.iter().enumerate() {
        match HeaderName::try_from(name.trim()) {
            Ok(name) => headers.push(name),
            Err(_) => {
                let place = place.child("ipHeaders").item(index);
                report.add(place.error(format!("`{name}` is no header name"), "use a name such as X-Forwarded-For"));
            }
        }
    }
    Trust::new(proxy.enabled, proxy.trusted.clone(), headers)
}

/// A name server that cannot be asked is not left out quietly: the names would go to another one.
fn resolvers(gateway: &GatewayConfig, report: &mut Report) {
    let place = gateway.at.child("networking").child("dnsCache").child("resolver");
    for (index, text) in gateway.dns_cache.resolver.iter().enumerate() {
        if let Err(message) = resolver_address(text) {
            report.add(place.item(index).error(message, ""));
        }
    }
}

/// Goma's order of registration, its tie-breaker: by priority when any is positive, else the longer path text first.
/// Spec core §4.5; stable here.
fn registration_order(config: &Config) -> Vec<&RouteConfig> {
    let mut routes: Vec<&RouteConfig> = config.routes.iter().collect();
    if config.routes.iter().any(|route| route.priority > 0) {
        routes.sort_by_key(|route| route.priority);
    } else {
        routes.sort_by_key(|route| std::cmp::Reverse(route.path.len()));
    }
    routes
}

/// What a request must look like to reach a route.
pub(crate) fn pattern(route: &RouteConfig) -> Pattern {
    Pattern {
        path: route.path.clone(),
        hosts: route.hosts.clone(),
        priority: route.priority,
        methods: Methods::Any,
        span: Span::Prefix,
    }
}

/// Registered before the routes of the operator, in Goma's order; returns their paths and where those are set. Spec core §4.1.
fn own_endpoints(
    gateway: &GatewayConfig,
    chains: &Chains<'_>,
    builder: &mut Builder<Target>,
    report: &mut Report,
) -> Vec<(String, Place)> {
    let mut added = Vec::new();
    let monitoring = &gateway.monitoring;
    let place = gateway.at.child("monitoring");
    let metrics = chains.endpoint(&monitoring.middlewares.metrics, &place.child("middleware").child("metrics"), report);
    let guards = &monitoring.middlewares.route_health_check;
    let health = chains.endpoint(guards, &place.child("middleware").child("routeHealthCheck"), report);
    let get = || Methods::Only(vec!["GET"]);
    let mut add = |on: Option<(&Place, &str)>, path: &str, host: &str, methods: Methods, span: Span, own: Own| {
        let Some((section, key)) = on else { return };
        let hosts = if host.trim().is_empty() { Vec::new() } else { vec![host.to_owned()] };
        let pattern = Pattern { path: path.to_owned(), hosts, priority: 0, methods, span };
        match builder.add(pattern, Target::Own(own)) {
            Ok(()) => added.push((path.to_owned(), section.child(key))),
            Err(error) => {
                let key = if matches!(error.part, PatternPart::Host(_)) { "host" } else { key };
                report.add(section.child(key).error(error.problem, error.remedy));
            }
        }
    };
    let host = &monitoring.host;
    let on = |on: bool, key: &'static str| on.then_some((&place, key));
    let (shown, checks) = (monitoring.enable_metrics, monitoring.enable_route_health_check);
    add(on(shown, "metricsPath"), &monitoring.metrics_path, host, get(), Span::Prefix, Own::Metrics(metrics));
    let (ready, live) = (monitoring.enable_readiness, monitoring.enable_liveness);
    add(on(checks, "enableRouteHealthCheck"), "/healthz/routes", host, get(), Span::Prefix, Own::RouteHealth(health));
    let reload = &gateway.reload;
    let reload_place = gateway.at.child("reload");
    let token: Arc<str> = reload.token.as_str().trim().into();
    let reloads = (reload.enabled && !token.is_empty()).then_some((&reload_place, "path"));
    let post = Methods::Only(vec!["POST"]);
    add(reloads, &reload.path, &reload.host, post, Span::Exact, Own::Reload(token));
    let cache = &gateway.cache;
    let cache_place = gateway.at.child("cache");
    let token: Arc<str> = cache.token.as_str().trim().into();
    let asked = (cache.enabled && !token.is_empty()).then_some((&cache_place, "path"));
    let methods = Methods::Only(vec!["GET", "POST"]);
    add(asked, &cache.path, &cache.host, methods, Span::Exact, Own::Cache(token));
    add(on(ready, "enableReadiness"), "/readyz", "", get(), Span::Exact, Own::Ready);
    add(on(live, "enableLiveness"), "/healthz", "", get(), Span::Exact, Own::Health);
    added
}

fn compile_route(
    route: &RouteConfig,
    config: &Config,
    chains: &Chains<'_>,
    trust: &Trust,
    workshop: &Workshop,
    report: &mut Report,
) -> Option<Route> {
    let chain = chains.route(route, &config.gateway, report);
    let upstream = upstreams::upstream(route, config, &workshop.upstreams, report);
    let rewrite = rewrite(route, report);
    let name: Arc<str> = route.name.as_str().into();
    let transport = &config.gateway.transport;
    let chain = chain?;
    if route.hedge.is_some() && chain.shell.has_caches() {
        let message = "does nothing for requests that its httpCache looks for: those go to one backend";
        report.add(route.at.child("hedge").warning(message, "remove one of them, or give each a route of its own"));
    }
    Some(Route {
        path: route.path.clone(),
        methods: route.methods.clone(),
        maintenance: maintenance(route),
        rewrite,
        upstream: upstream?,
        forward_host: route.security.forward_host_headers,
        unpack_gzip: !transport.disable_compression,
        limits: upstreams::limits(route, config),
        identity: chain.identity().to_vec(),
        chain,
        address_headers: trust.headers().to_vec(),
        client_headers: ClientHeaders::of(&config.gateway.tls.client_auth.forward),
        metrics: (route.enabled && !route.disable_metrics).then(|| workshop.tools.metrics.route(&route.name)),
        name,
    })
}

fn maintenance(route: &RouteConfig) -> Option<Reply> {
    let maintenance = &route.maintenance;
    let status = StatusCode::from_u16(maintenance.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    maintenance.enabled.then(|| Reply::message(status, maintenance.message.clone()))
}

fn rewrite(route: &RouteConfig, report: &mut Report) -> Option<Rewrite> {
    let wanted = route.rewrite.as_deref()?;
    match Rewrite::new(&route.path, wanted) {
        Ok(rewrite) => Some(rewrite),
        Err(why) => {
            let remedy = "remove `rewrite`, or write the path so that it can be cut off";
            report.add(route.at.child("rewrite").warning(format!("is not applied: {why}"), remedy));
            None
        }
    }
}

impl Workshop {
    /// A workshop that looks nothing up and checks nothing: to compile without serving.
    pub fn detached(config: &Config, env: &Env) -> Workshop {
        Workshop::new(config, env, None)
    }

    /// A workshop whose look-ups and health checks run on `handle`.
    pub fn new(config: &Config, env: &Env, handle: Option<Handle>) -> Workshop {
        let dns = &config.gateway.dns_cache;
        // Those that do not parse refuse the configuration when it is compiled.
        let resolvers = dns.resolver.iter().filter_map(|text| resolver_address(text).ok()).collect();
        let (ttl, clear_on_reload) = (dns.ttl, dns.clear_on_reload);
        let dns = DnsSettings { ttl, clear_on_reload, resolvers, ..DnsSettings::default() };
        let metrics = Arc::new(Metrics::new());
        let caches = Zones::default();
        let shown = caches.clone();
        metrics.caches(move || shown.figures());
        // Settings that are wrong refuse the configuration when it is compiled.
        let redis = redis::Settings::of(&config.gateway).ok().flatten();
        let tools = Tools {
            redis: redis.map(|settings| Redis::new(settings, handle.clone(), metrics.redis())),
            metrics,
            limits: Arc::default(),
            files: Default::default(),
            geo: Arc::default(),
            checker: Arc::default(),
            in_flight: InFlights::default(),
            key_sets: KeySets::default(),
            oauth: Parties::default(),
            caches,
            handle: handle.clone(),
        };
        let metrics = tools.metrics.clone();
        let witness = Arc::new(move |route: &str, backend: &str, change: Change| match change {
            Change::Ejected(cause) => metrics.ejected(route, backend, &cause.word()),
            Change::Breaker(state) => metrics.breaker(route, backend, state.word()),
        });
        if let (Some(redis), Some(handle)) = (&tools.redis, &handle) {
            tools.caches.share(redis, handle);
        }
        let kept = crate::upstream::most_kept(config.gateway.transport.max_idle_conns);
        let certificates = Arc::default();
        let upstreams = Registry::new(dns, kept, handle).witnessed(witness);
        Workshop { upstreams, tools, certificates, env: env.clone() }
    }
}

impl Snapshot {
    /// Names of the routes in force.
    pub fn names(&self) -> HashSet<&str> {
        self.routes.iter().map(|route| &*route.name).collect()
    }
}
