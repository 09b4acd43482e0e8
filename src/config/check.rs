//! Rules that hold across settings (goma-core §2.3), and the defaults that need the whole to be known.

use std::collections::HashMap;

use super::check_upstream;
use super::document::Config;
use super::endpoint::{check_url, listen_address};
use super::gateway::{
    CACHE_PATH, Gateway, MOST_ACCEPTORS, MOST_THREADS, Proxy, RELOAD_PATH, WEB_ADDRESS, WEB_SECURE_ADDRESS,
};
use super::monitoring::{Level, METRICS_PATH, VISITOR_TTL, VISITOR_TTL_LEAST};
use super::nearest::nearest;
use super::place::Place;
use super::problem::Report;
use super::route::{Backend, HealthCheck, OPERATORS, Route, SOURCES};

/// Settles what depends on the whole configuration, and reports what does not hold.
pub fn check(config: &mut Config, report: &mut Report) {
    settle_gateway(&mut config.gateway, report);
    gateway(&config.gateway, report);
    let names = middleware_names(config, report);
    default_middlewares(config, &names, report);
    routes(config, report);
    prepend_defaults(config);
}

fn settle_gateway(gateway: &mut Gateway, report: &mut Report) {
    let points = &mut gateway.entry_points;
    for (point, name, default) in
        [(&mut points.web, "web", WEB_ADDRESS), (&mut points.web_secure, "webSecure", WEB_SECURE_ADDRESS)]
    {
        fill(&mut point.address, default);
        match listen_address(&point.address) {
            Ok(address) => point.address = address,
            Err(message) => error(report, &gateway.at.child("entryPoints").child(name).child("address"), &message),
        }
    }
    fill(&mut gateway.monitoring.metrics_path, METRICS_PATH);
    fill(&mut gateway.reload.path, RELOAD_PATH);
    fill(&mut gateway.cache.path, CACHE_PATH);
    if gateway.proxy.ip_headers.is_empty() {
        gateway.proxy.ip_headers = Proxy::default().ip_headers;
    }
    if gateway.monitoring.visitor_ttl.is_zero() {
        gateway.monitoring.visitor_ttl = VISITOR_TTL;
    }
    gateway.monitoring.visitor_ttl = gateway.monitoring.visitor_ttl.max(VISITOR_TTL_LEAST);
    gateway.debug |= matches!(gateway.log.level, Level::Debug | Level::Trace);
}

/// Puts the default where a text was left empty.
fn fill(text: &mut String, default: &str) {
    if text.is_empty() {
        default.clone_into(text);
    }
}

fn gateway(gateway: &Gateway, report: &mut Report) {
    let at = &gateway.at;
    let log = at.child("log");
    word(report, &log.child("level"), &["trace", "debug", "info", "warn", "error", "off"], "info is used");
    word(report, &log.child("format"), &["text", "json"], "text is used");
    reload(gateway, report);
    cache(gateway, report);
    if gateway.proxy.enabled && gateway.proxy.trusted.is_empty() {
        let message = "is empty: the nearest hop is trusted, whoever it is";
        report.add(at.child("proxy").child("trustedProxies").warning(message, "list the addresses of your proxies"));
    }
    absolute(report, &at.child("monitoring").child("metricsPath"), &gateway.monitoring.metrics_path);
    if gateway.monitoring.include_route_health_errors {
        let place = at.child("monitoring").child("includeRouteHealthErrors");
        report.add(place.warning("hides the errors, in spite of its name, as in Goma", "leave it out to show them"));
    }
    absolute(report, &at.child("reload").child("path"), &gateway.reload.path);
    absolute(report, &at.child("cache").child("path"), &gateway.cache.path);
    let shutdown = at.child("shutdown");
    if gateway.shutdown.grace.is_zero() {
        report.add(shutdown.child("grace").warning("is 0: running requests are cut off at once", ""));
    }
    life(gateway, report);
    for (name, zero) in [
        ("headerBytes", gateway.limits.header_bytes == 0),
        ("headerCount", gateway.limits.header_count == 0),
        ("headerTimeout", gateway.limits.header_timeout.is_zero()),
    ] {
        if zero {
            let place = at.child("limits").child(name);
            report.add(place.error("is 0, which would refuse every request", "remove it for the default"));
        }
    }
}

/// Swapping the program, and threads.
fn life(gateway: &Gateway, report: &mut Report) {
    let (upgrade, workers) = (gateway.at.child("upgrade"), gateway.at.child("workers"));
    if gateway.upgrade.timeout.is_zero() {
        report
            .add(upgrade.child("timeout").error("is 0: no successor could ever be ready", "remove it for the default"));
    }
    if gateway.upgrade.grace.is_zero() {
        report.add(upgrade.child("grace").warning("is 0: an upgrade cuts running requests off at once", ""));
    }
    for (name, asked, most) in
        [("threads", gateway.workers.threads, MOST_THREADS), ("acceptors", gateway.workers.acceptors, MOST_ACCEPTORS)]
    {
        if asked > most {
            let remedy = format!("write at most {most}, or 0 for what fits the machine");
            report.add(workers.child(name).error(format!("is {asked}"), remedy));
        }
    }
}

fn reload(gateway: &Gateway, report: &mut Report) {
    if gateway.reload.enabled && gateway.reload.token.as_str().is_empty() {
        let at = gateway.at.child("reload").child("token");
        let remedy = "set gateway.reload.token or GOMA_RELOAD_TOKEN";
        report.add(at.warning("is empty, so the reload endpoint stays off", remedy));
    }
}

fn cache(gateway: &Gateway, report: &mut Report) {
    if gateway.cache.enabled && gateway.cache.token.as_str().trim().is_empty() {
        let at = gateway.at.child("cache").child("token");
        report.add(at.warning("is empty, so the endpoint of the caches stays off", "set gateway.cache.token"));
    }
}

fn absolute(report: &mut Report, at: &Place, path: &str) {
    if !path.starts_with('/') {
        report.add(at.error("does not begin with \"/\"", "write a path"));
    }
}

/// A word of a closed list that Goma quietly replaces when it is none of them.
fn word(report: &mut Report, at: &Place, known: &[&str], instead: &str) {
    let Some(text) = at.node().and_then(|node| node.scalar()).map(|scalar| scalar.text.trim()) else { return };
    if !text.is_empty() && !known.iter().any(|word| word.eq_ignore_ascii_case(text)) && text != "warning" {
        let message = format!("is none of {}; {instead}", known.join(", "));
        report.add(at.warning(message, ""));
    }
}

/// Names of all middlewares with where each is defined.
fn middleware_names(config: &Config, report: &mut Report) -> HashMap<String, Place> {
    let mut names: HashMap<String, Place> = HashMap::new();
    for middleware in &config.middlewares {
        let name = &middleware.name;
        if name.is_empty() {
            news(report, &middleware.at.child("name"), "is missing", "give the middleware a name");
            continue;
        }
        if name.contains(char::is_whitespace) {
            report.add(middleware.at.child("name").warning("holds white space", "write the name without"));
        }
        if middleware.kind.is_empty() {
            news(report, &middleware.at.child("type"), "is missing", "name the kind of middleware");
        }
        unique(report, &mut names, name, &middleware.at, "middleware");
    }
    names
}

fn default_middlewares(config: &Config, names: &HashMap<String, Place>, report: &mut Report) {
    let at = config.gateway.at.child("defaults").child("middlewares");
    for (index, name) in config.gateway.defaults.middlewares.iter().enumerate() {
        if !names.contains_key(name) && !has_error(report, &at.item(index)) {
            let known: Vec<&str> = names.keys().map(String::as_str).collect();
            let remedy = match nearest(name, &known) {
                Some((near, _)) => format!("did you mean \"{near}\"?"),
                None => "define it under middlewares".to_owned(),
            };
            report.add(at.item(index).error(format!("no middleware is named \"{name}\""), remedy));
        }
    }
}

fn unique(report: &mut Report, names: &mut HashMap<String, Place>, name: &str, at: &Place, what: &str) {
    match names.get(name) {
        Some(first) => {
            let line = first.line().map(|line| format!(":{line}")).unwrap_or_default();
            let message = format!("there is another {what} \"{name}\" ({}{line})", first.file());
            report.add(at.child("name").error(message, "rename one of them"));
        }
        None => {
            names.insert(name.to_owned(), at.clone());
        }
    }
}

/// The defaults stand before a route's own middlewares, except those it names itself, which keep their position.
fn prepend_defaults(config: &mut Config) {
    let defaults = &config.gateway.defaults.middlewares;
    for route in &mut config.routes {
        let mut chain: Vec<String> = Vec::with_capacity(defaults.len() + route.middlewares.len());
        for name in defaults {
            if !route.middlewares.contains(name) && !chain.contains(name) {
                chain.push(name.clone());
            }
        }
        chain.append(&mut route.middlewares);
        route.middlewares = chain;
    }
}

fn routes(config: &Config, report: &mut Report) {
    if config.routes.is_empty() && report.errors.is_empty() {
        let at = config.gateway.at.child("routes");
        report.add(at.warning("there are no routes", "every request gets 404"));
    }
    let mut names = HashMap::new();
    for route in &config.routes {
        if route.name.is_empty() {
            news(report, &route.at.child("name"), "is missing", "give the route a name");
        } else {
            unique(report, &mut names, &route.name, &route.at, "route");
        }
        if route.path.is_empty() {
            news(report, &route.at.child("path"), "is missing", "write / for every path");
        }
        upstream(route, report);
        check_upstream::check(route, report);
        if let Some(check) = &route.health_check {
            health_check(check, &route.at.child("healthCheck"), report);
        }
        let maintenance = &route.maintenance;
        // An interim status would leave the client waiting for the response.
        status(report, maintenance.status, 200, || route.at.child("maintenance").child("statusCode"));
        methods(route, report);
        backend_tls(route, report);
    }
}

fn upstream(route: &Route, report: &mut Report) {
    let (target, backends) = (route.at.child("target"), route.at.child("backends"));
    if route.target.is_none() && route.backends.is_empty() {
        if !has_error(report, &backends) {
            news(report, &target, "there is neither a target nor a backend", "write target: URL");
        }
        return;
    }
    if let Some(Err(message)) = route.target.as_deref().map(check_url) {
        error(report, &target, &message);
    }
    for backend in &route.backends {
        self::backend(backend, report);
    }
    let canary = route.backends.iter().any(|backend| !backend.matches.is_empty());
    let weighted = route.backends.iter().any(|backend| backend.weight > 0);
    if weighted && !canary && route.backends.len() > 1 {
        for backend in route.backends.iter().filter(|backend| backend.weight == 0) {
            let message = "is 0 while others have one: this backend gets no requests";
            report.add(backend.at.child("weight").warning(message, "give it a weight, or remove it"));
        }
    }
}

fn backend(backend: &Backend, report: &mut Report) {
    if let Err(message) = check_url(&backend.endpoint) {
        let at = backend.at.child("endpoint");
        if !has_error(report, &at) {
            error(report, &at, &message);
        }
    }
    for (index, rule) in backend.matches.iter().enumerate() {
        let at = || backend.at.child("match").item(index);
        for (key, value, known) in [("source", &rule.source, &SOURCES[..]), ("operator", &rule.operator, &OPERATORS)] {
            if !known.contains(&value.as_str()) && !has_error(report, &at().child(key)) {
                let message = format!("is none of {}, so that it never matches", known.join(", "));
                let remedy = nearest(value, known).map(|(near, _)| format!("did you mean \"{near}\"?"));
                report.add(at().child(key).warning(message, remedy.unwrap_or_default()));
            }
        }
        if rule.name.is_empty() && rule.source != "ip" && SOURCES.contains(&rule.source.as_str()) {
            let message = format!("is missing: a {} without a name is always empty", rule.source);
            report.add(at().child("name").warning(message, ""));
        }
    }
}

fn health_check(check: &HealthCheck, at: &Place, report: &mut Report) {
    if !check.path.starts_with('/') {
        let message = "does not begin with \"/\", and none is put between it and the backend's URL";
        report.add(at.child("path").warning(message, "begin it with /"));
    }
    for (index, code) in check.healthy_statuses.iter().enumerate() {
        status(report, *code, 100, || at.child("healthyStatuses").item(index));
    }
    for (key, count) in [("rise", check.rise), ("fall", check.fall)] {
        if count == 0 {
            report.add(at.child(key).error("is 0", "write 1 or more"));
        }
    }
}

fn status(report: &mut Report, code: u16, least: u16, at: impl FnOnce() -> Place) {
    if !(least..=599).contains(&code) {
        let remedy = format!("write a number from {least} to 599");
        news(report, &at(), &format!("{code} is not an HTTP status"), &remedy);
    }
}

fn methods(route: &Route, report: &mut Report) {
    for (index, method) in route.methods.iter().enumerate() {
        let at = || route.at.child("methods").item(index);
        let blank = |byte: u8| byte.is_ascii_whitespace();
        let message = if method.bytes().all(blank) {
            report.add(at().warning("is empty and matches no request", "remove it"));
            continue;
        } else if method.bytes().any(blank) {
            "holds a space, so that it matches no request"
        } else if method.bytes().any(|byte| byte.is_ascii_lowercase()) {
            "matches no request: methods are compared with their case"
        } else {
            continue;
        };
        let place = at();
        if !has_error(report, &place) {
            let remedy = format!("write {}", method.trim().to_ascii_uppercase());
            report.add(place.warning(format!("\"{method}\" {message}"), remedy));
        }
    }
}

fn backend_tls(route: &Route, report: &mut Report) {
    let tls = &route.security.tls;
    let given = [&*tls.root_cas, &*tls.client_cert, &*tls.client_key].iter().filter(|text| !text.is_empty()).count();
    if matches!(given, 1 | 2) {
        let message = "what is given of rootCAs, clientCert and clientKey counts (in Goma only all three together)";
        let at = route.at.child("security").child("tls");
        report.add(at.warning(message, "remove what the backend does not need"));
    }
}

fn error(report: &mut Report, at: &Place, sentence: &str) {
    let (message, remedy) = sentence.split_once("; ").unwrap_or((sentence, ""));
    report.add(at.error(message, remedy));
}

/// An error, unless the value there was already found wrong: what follows from that is no news.
fn news(report: &mut Report, at: &Place, message: &str, remedy: &str) {
    if !has_error(report, at) {
        report.add(at.error(message, remedy));
    }
}

/// Whether something at or below a key was already found wrong, so that what follows from it is no news.
pub(super) fn has_error(report: &Report, at: &Place) -> bool {
    let key = at.key();
    report.errors.iter().any(|problem| {
        let below = problem.key.strip_prefix(&key);
        problem.file == at.file() && below.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    })
}

#[cfg(test)]
mod tests {
    use crate::config::testing::findings;

    #[test]
    fn a_route_says_what_it_lacks() {
        let table = [
            ("name: a, path: /, target: 'http://a'", ""),
            ("name: a, path: /, backends: [{endpoint: 'http://a'}]", ""),
            (
                "path: /, target: 'http://a'",
                "error: goma.yml:3: gateway.routes[0].name: is missing; give the route a name",
            ),
            (
                "name: a, target: 'http://a'",
                "error: goma.yml:3: gateway.routes[0].path: is missing; write / for every path",
            ),
            (
                "name: a, path: [/], target: 'http://a'",
                "error: goma.yml:3: gateway.routes[0].path: expected a string, found a list",
            ),
            (
                "name: a, path: /",
                "error: goma.yml:3: gateway.routes[0].target: there is neither a target nor a backend; write target: URL",
            ),
            (
                "name: a, path: /, enabled: false",
                "error: goma.yml:3: gateway.routes[0].target: there is neither a target nor a backend; write target: URL",
            ),
            (
                "name: a, path: /, backends: http://a",
                "error: goma.yml:3: gateway.routes[0].backends: expected a list, found \"http://a\"",
            ),
            (
                "name: a, path: /, target: 'http://a', methods: [Get]",
                "warning: goma.yml:3: gateway.routes[0].methods[0]: \"Get\" matches no request: methods are compared with their case; write GET",
            ),
            (
                "name: a, path: /, target: 'http://a', security: {tls: {rootCAs: /ca}}",
                "warning: goma.yml:3: gateway.routes[0].security.tls: what is given of rootCAs, clientCert and clientKey counts (in Goma only all three together); remove what the backend does not need",
            ),
            (
                "name: a, path: /, target: 'http://a', healthCheck: {path: h}",
                "warning: goma.yml:3: gateway.routes[0].healthCheck.path: does not begin with \"/\", and none is put between it and the backend's URL; begin it with /",
            ),
        ];
        for (route, expected) in table {
            assert_eq!(findings(&format!("gateway:\n  routes:\n  - {{{route}}}\n")), expected, "{route}");
        }
    }

    #[test]
    fn the_gateway_says_what_will_not_happen() {
        let table = [
            (
                "log: {level: loud}",
                "warning: goma.yml:2: gateway.log.level: is none of trace, debug, info, warn, error, off; info is used",
            ),
            ("log: {level: WARN, format: json}", ""),
            (
                "reload: {enabled: true}",
                "warning: goma.yml:2: gateway.reload.token: is empty, so the reload endpoint stays off; set gateway.reload.token or GOMA_RELOAD_TOKEN",
            ),
            (
                "reload: {enabled: true, token: '${T}'}",
                "warning: goma.yml:2: ${T} stays as it is: there is no environment variable of that name; set T where the gateway starts",
            ),
            (
                "proxy: {enabled: true}",
                "warning: goma.yml:2: gateway.proxy.trustedProxies: is empty: the nearest hop is trusted, whoever it is; list the addresses of your proxies",
            ),
            ("entryPoints: {web: {}}", ""),
            (
                "monitoring: {metricsPath: metrics}",
                "error: goma.yml:2: gateway.monitoring.metricsPath: does not begin with \"/\"; write a path",
            ),
        ];
        for (section, expected) in table {
            let yaml = format!("gateway:\n  {section}\n  routes: [{{name: a, path: /, target: 'http://a'}}]\n");
            assert_eq!(findings(&yaml), expected, "{section}");
        }
        assert_eq!(findings(""), "warning: goma.yml: gateway.routes: there are no routes; every request gets 404");
    }
}
