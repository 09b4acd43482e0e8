//! Rules for the keys of ours about backends: how requests are shared among them and what becomes of those that fail.

use http::HeaderName;

use super::balancing::{ALGORITHMS, HASH_SOURCES, HashOn, LoadBalancer, SAME_SITE, SECURE, Sticky};
use super::check::has_error;
use super::nearest::nearest;
use super::place::Place;
use super::problem::Report;
use super::resilience::{CircuitBreaker, Hedge, Outlier, Queue, Retry, RouteTimeouts};
use super::route::Route;

/// Reports what does not hold in the keys of ours of a route.
pub fn check(route: &Route, report: &mut Report) {
    if let Some(balancer) = &route.load_balancer {
        load_balancer(balancer, &route.at.child("loadBalancer"), report);
    }
    timeouts(&route.timeouts, &route.at.child("timeouts"), report);
    if let Some(retry) = &route.retry {
        self::retry(retry, route, &route.at.child("retry"), report);
    }
    if let Some(hedge) = &route.hedge {
        self::hedge(hedge, route, &route.at.child("hedge"), report);
    }
    if let Some(outlier) = &route.outlier {
        self::outlier(outlier, route, &route.at.child("outlier"), report);
    }
    if let Some(breaker) = &route.circuit_breaker {
        self::breaker(breaker, &route.at.child("circuitBreaker"), report);
    }
}

fn timeouts(timeouts: &RouteTimeouts, at: &Place, report: &mut Report) {
    let RouteTimeouts { connect, response_header, total, .. } = timeouts;
    for (key, shorter) in [("connect", connect), ("responseHeader", response_header)] {
        if let (Some(part), Some(total)) = (shorter, total)
            && part > total
        {
            report.add(at.child(key).warning("is longer than `total`, which comes first", "shorten it, or remove it"));
        }
    }
}

fn retry(retry: &Retry, route: &Route, at: &Place, report: &mut Report) {
    if !(1..=MOST_ATTEMPTS).contains(&retry.attempts) {
        news(report, &at.child("attempts"), "is no number of attempts", "write 1 to 10; the first one counts");
    }
    causes(&retry.on, &at.child("on"), report);
    if retry.budget.percent > 100 {
        news(report, &at.child("budget").child("percent"), "is more than 100", "write a share in percent");
    }
    if retry.budget.percent == 0 && retry.budget.per_second == 0 {
        news(report, &at.child("budget"), "leaves no retry at all", "remove it, or set attempts: 1");
    }
    for (index, method) in retry.methods.iter().enumerate() {
        let at = at.child("methods").item(index);
        if method.is_empty() || !is_token(method) || method.bytes().any(|byte| byte.is_ascii_lowercase()) {
            news(report, &at, "is no method", "write it in capitals, such as POST");
        } else {
            let message = format!("a {method} may be carried out more than once");
            report.add(at.warning(message, "make sure that your backends recognise a repetition"));
        }
    }
    let late = retry.on.iter().any(|word| word == "timeout");
    if late && retry.per_try_timeout.is_none() && route.timeouts.response_header.is_none() {
        let message = "holds `timeout`, and the route has none of its own that would pass";
        if at.child("on").is_present() {
            report.add(at.child("on").warning(message, "set retry.perTryTimeout or timeouts.responseHeader"));
        }
    }
}

fn hedge(hedge: &Hedge, route: &Route, at: &Place, report: &mut Report) {
    if hedge.after.is_zero() {
        let remedy = "write a time such as 100ms, which nine in ten requests need at most";
        news(report, &at.child("after"), "is missing", remedy);
    }
    if !(1..=MOST_EXTRA).contains(&hedge.max_extra) {
        news(report, &at.child("maxExtra"), "is out of range", "write 1 to 3; the first backend does not count");
    }
    percent(hedge.budget.percent, &at.child("budget").child("percent"), report);
    if hedge.budget.percent == 0 && hedge.budget.per_second == 0 {
        news(report, &at.child("budget"), "leaves nothing at all", "raise percent or perSecond, or remove `hedge`");
    }
    let per_try = route.retry.as_ref().and_then(|retry| retry.per_try_timeout);
    let limits = [
        ("timeouts.responseHeader", route.timeouts.response_header),
        ("timeouts.total", route.timeouts.total),
        ("retry.perTryTimeout", per_try),
    ];
    for (key, limit) in limits {
        if limit.is_some_and(|limit| limit <= hedge.after) {
            let message = format!("has no effect: {key} ends the wait before");
            report.add(at.child("after").warning(message, format!("make it shorter than {key}")));
        }
    }
    let plain = route.backends.iter().filter(|backend| backend.endpoint.starts_with("http://")).count();
    if route.backends.len() < 2 {
        report.add(at.warning("has no effect: there is one backend", "remove it, or add backends"));
    } else if plain < 2 {
        let message = "has no effect: only backends of HTTP/1 without TLS are asked at the same time";
        report.add(at.warning(message, "use http:// endpoints, or `retry` with perTryTimeout instead"));
    } else if plain < route.backends.len() {
        let message = "does nothing for requests that a backend of https or h2c gets first";
        report.add(at.warning(message, "use http:// endpoints only, or `retry` with perTryTimeout beside it"));
    }
    if !route.methods.is_empty() && !route.methods.iter().any(|method| HEDGED.contains(&method.as_str())) {
        let message = "has no effect: the route takes no GET, HEAD or OPTIONS";
        report.add(at.warning(message, "remove it"));
    }
}

/// Methods that may go to two backends at a time.
pub const HEDGED: [&str; 3] = ["GET", "HEAD", "OPTIONS"];
const MOST_EXTRA: u32 = 3;

fn outlier(outlier: &Outlier, route: &Route, at: &Place, report: &mut Report) {
    causes(&outlier.on, &at.child("on"), report);
    for (key, zero) in [("failures", outlier.failures == 0), ("ejection", outlier.ejection.is_zero())] {
        if zero {
            news(report, &at.child(key), "is 0", "remove it for the default");
        }
    }
    if outlier.max_ejection < outlier.ejection {
        news(report, &at.child("maxEjection"), "is shorter than `ejection`", "make it longer");
    }
    percent(outlier.max_ejected_percent, &at.child("maxEjectedPercent"), report);
    if route.backends.len() < 2 {
        report.add(at.warning("has no effect: the only backend is never left out", "remove it, or add backends"));
    }
}

fn breaker(breaker: &CircuitBreaker, at: &Place, report: &mut Report) {
    causes(&breaker.on, &at.child("on"), report);
    for (key, zero) in [
        ("failurePercent", breaker.failure_percent == 0),
        ("minRequests", breaker.min_requests == 0),
        ("open", breaker.open.is_zero()),
        ("probes", breaker.probes == 0),
    ] {
        if zero {
            news(report, &at.child(key), "is 0", "remove it for the default");
        }
    }
    percent(breaker.failure_percent, &at.child("failurePercent"), report);
    if !(1..=600).contains(&breaker.window.as_secs()) {
        news(report, &at.child("window"), "is out of range", "write 1s to 10m");
    }
}

/// Words of `on`.
fn causes(words: &[String], at: &Place, report: &mut Report) {
    if words.is_empty() {
        news(report, at, "is empty", "remove it for the default");
    }
    for (index, text) in words.iter().enumerate() {
        let is_status = text.parse::<u16>().is_ok_and(|status| (400..=599).contains(&status));
        if !is_status && !CAUSES.contains(&text.as_str()) {
            let remedy = match nearest(text, &CAUSES) {
                Some((near, _)) => format!("did you mean \"{near}\"?"),
                None => "write a status from 400 to 599, or one of these words".to_owned(),
            };
            news(report, &at.item(index), &format!("is none of {}, and no status", CAUSES.join(", ")), &remedy);
        }
    }
}

const CAUSES: [&str; 4] = ["connect", "reset", "timeout", "5xx"];
/// As in `upstream::retry`.
const MOST_ATTEMPTS: u32 = 10;

fn percent(percent: u32, at: &Place, report: &mut Report) {
    if percent > 100 {
        news(report, at, "is more than 100", "write a share in percent");
    }
}

/// A line of requests that wait; shared with the middleware `inFlight`.
fn queue(queue: &Queue, bounded: bool, at: &Place, report: &mut Report) {
    if !bounded && *queue != Queue::default() {
        report.add(at.warning("has no effect", "set maxInFlight, or remove it"));
    }
    if queue.size > 0 && queue.timeout.is_zero() {
        news(report, &at.child("timeout"), "is 0: nobody would wait", "set a time such as 1s, or size: 0");
    }
}

fn load_balancer(balancer: &LoadBalancer, at: &Place, report: &mut Report) {
    if !balancer.algorithm.is_empty() {
        word(&balancer.algorithm, &ALGORITHMS, &at.child("algorithm"), report);
    }
    hash(&balancer.hash, balancer.algorithm == "consistentHash", &at.child("hash"), report);
    percent(balancer.panic_threshold, &at.child("panicThreshold"), report);
    queue(&balancer.queue, balancer.max_in_flight > 0, &at.child("queue"), report);
    if let Some(sticky) = &balancer.sticky {
        self::sticky(sticky, &at.child("sticky"), report);
    }
}

fn hash(hash: &HashOn, used: bool, at: &Place, report: &mut Report) {
    if !used && *hash != HashOn::default() {
        report.add(at.warning("has no effect", "set algorithm: consistentHash, or remove it"));
    }
    if !hash.source.is_empty() {
        word(&hash.source, &HASH_SOURCES, &at.child("source"), report);
    }
    let name = at.child("name");
    match (hash.source.as_str(), hash.name.as_str()) {
        ("header" | "cookie", "") => news(report, &name, "is missing", "name the header or cookie to hash"),
        ("header", text) if text.parse::<HeaderName>().is_err() => {
            news(report, &name, "is no header name", "write a name such as X-Tenant");
        }
        ("cookie", text) if !is_token(text) => news(report, &name, "is no cookie name", "write a name such as tenant"),
        ("" | "address", text) if !text.is_empty() => {
            report.add(name.warning("has no effect: an address has no name", "remove it"));
        }
        _ => {}
    }
}

fn sticky(sticky: &Sticky, at: &Place, report: &mut Report) {
    if !is_token(&sticky.cookie) {
        news(report, &at.child("cookie"), "is no cookie name", "write a name such as goma_backend");
    }
    let secret = sticky.secret.as_str();
    if !secret.is_empty() && secret.len() < LEAST_SECRET {
        let remedy = "write at least 16 random characters, for instance from `openssl rand -base64 24`";
        news(report, &at.child("secret"), "is too short to be a key", remedy);
    }
    word(&sticky.same_site, &SAME_SITE, &at.child("sameSite"), report);
    word(&sticky.secure, &SECURE, &at.child("secure"), report);
    if sticky.same_site == "none" && sticky.secure == "never" {
        let message = "is `none` without `secure`, which browsers refuse";
        report.add(at.child("sameSite").warning(message, "set secure: always"));
    }
    if !sticky.path.starts_with('/') || !is_attribute(&sticky.path) {
        news(report, &at.child("path"), "is no path of a cookie", "begin it with /, without white space or semicolon");
    }
    if !is_attribute(&sticky.domain) {
        news(report, &at.child("domain"), "is no domain of a cookie", "write a name such as example.com");
    }
    let prefixed = sticky.cookie.starts_with("__Host-") || sticky.cookie.starts_with("__Secure-");
    if prefixed && sticky.secure != "always" {
        let message = "begins with a prefix that browsers take over TLS only";
        report.add(at.child("cookie").warning(message, "set secure: always"));
    }
}

/// Shorter keys can be guessed.
const LEAST_SECRET: usize = 16;

/// A token of RFC 9110 §5.6.2, which cookie names are (RFC 6265 §4.1.1).
fn is_token(text: &str) -> bool {
    let symbol = |byte: u8| b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || symbol(byte))
}

/// What can stand behind an attribute of a cookie without ending it.
fn is_attribute(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';')
}

fn word(text: &str, known: &[&str], at: &Place, report: &mut Report) {
    if !known.contains(&text) {
        let remedy = match nearest(text, known) {
            Some((near, _)) => format!("did you mean \"{near}\"?"),
            None => format!("write {}", known[0]),
        };
        news(report, at, &format!("is none of {}", known.join(", ")), &remedy);
    }
}

/// An error, unless the value there was already found wrong.
fn news(report: &mut Report, at: &Place, message: &str, remedy: &str) {
    if !has_error(report, at) {
        report.add(at.error(message, remedy));
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::findings;

    #[test]
    fn what_cannot_be_meant_is_refused_with_a_remedy() {
        let table = [
            ("loadBalancer: {algorithm: leastRequests}", ""),
            ("loadBalancer: {algorithm: consistentHash, hash: {source: header, name: X-T}}", ""),
            ("loadBalancer: {sticky: {secret: 0123456789abcdef, maxAge: 1h}}", ""),
            (
                "hedge: {}",
                "error: goma.yml:3: gateway.routes[0].hedge.after: is missing; write a time such as 100ms, which nine in ten requests need at most\nwarning: goma.yml:3: gateway.routes[0].hedge: has no effect: there is one backend; remove it, or add backends",
            ),
            (
                "loadBalancer: {algorithm: leastRequest}",
                "error: goma.yml:3: gateway.routes[0].loadBalancer.algorithm: is none of roundRobin, random, leastRequests, consistentHash; did you mean \"leastRequests\"?",
            ),
            (
                "loadBalancer: {algorithm: consistentHash, hash: {source: header}}",
                "error: goma.yml:3: gateway.routes[0].loadBalancer.hash.name: is missing; name the header or cookie to hash",
            ),
            (
                "loadBalancer: {hash: {source: address}}",
                "warning: goma.yml:3: gateway.routes[0].loadBalancer.hash: has no effect; set algorithm: consistentHash, or remove it",
            ),
            (
                "loadBalancer: {sticky: {secret: short}}",
                "error: goma.yml:3: gateway.routes[0].loadBalancer.sticky.secret: is too short to be a key; write at least 16 random characters, for instance from `openssl rand -base64 24`",
            ),
            (
                "loadBalancer: {sticky: {cookie: 'a b'}}",
                "error: goma.yml:3: gateway.routes[0].loadBalancer.sticky.cookie: is no cookie name; write a name such as goma_backend",
            ),
            (
                "loadBalancer: {sticky: {sameSite: Lax}}",
                "error: goma.yml:3: gateway.routes[0].loadBalancer.sticky.sameSite: is none of lax, strict, none; did you mean \"lax\"?",
            ),
        ];
        for (keys, expected) in table {
            let yaml = format!(
                "gateway:\n  routes:\n    - {{name: a, path: /, backends: [{{endpoint: 'http://a'}}], {keys}}}\n"
            );
            assert_eq!(findings(&yaml), expected, "{keys}");
        }
    }

    #[test]
    fn a_hedge_that_does_nothing_is_told() {
        let warning = |text: &str| format!("warning: goma.yml:3: gateway.routes[0].hedge{text}");
        let [http, https, h2c] = ["http://a", "https://b", "h2c://c"];
        let rows = [
            ([http, http], "", String::new()),
            (
                [https, h2c],
                "",
                warning(
                    ": has no effect: only backends of HTTP/1 without TLS are asked at the same time; use http:// endpoints, or `retry` with perTryTimeout instead",
                ),
            ),
            (
                [http, http],
                "timeouts: {responseHeader: 50ms}",
                warning(
                    ".after: has no effect: timeouts.responseHeader ends the wait before; make it shorter than timeouts.responseHeader",
                ),
            ),
            (
                [http, http],
                "methods: [POST]",
                warning(": has no effect: the route takes no GET, HEAD or OPTIONS; remove it"),
            ),
        ];
        for (endpoints, keys, expected) in rows {
            let backends = endpoints.map(|endpoint| format!("{{endpoint: '{endpoint}'}}")).join(", ");
            let keys = if keys.is_empty() { String::new() } else { format!(", {keys}") };
            let yaml = format!(
                "gateway:\n  routes:\n    - {{name: a, path: /, backends: [{backends}], hedge: {{after: 100ms}}{keys}}}\n"
            );
            assert_eq!(findings(&yaml), expected, "{backends}{keys}");
        }
    }
}
