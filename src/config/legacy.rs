//! Older keys → today's (goma-core §13), on the tree and before anything is decoded: nobody behind this page meets one.
//!
//! Goma accepts some older keys and silently ignores the others. Here the ones with an obvious equivalent are moved to
//! it, whether Goma still reads them or not; the rest is left out. Each is a warning with the key of today.

use super::node::{Document, Entry, Node, Step, Style, Value, key_text};
use super::problem::{Problem, Severity};
use super::scalar::{self, Mode, Number};

/// How an older key acts on the key of today.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    /// Stands in for it where it is absent.
    Fill,
    /// Takes its place when not empty.
    Replace,
    /// When true, sets it to true.
    Force,
    /// When true, sets it to false.
    Deny,
    /// Above 0, takes its place.
    Positive,
}

/// An older key, today's, and how one acts on the other; paths below their section.
type Old = (&'static str, &'static str, Act);

const TOP: [Old; 1] = [("certificateManager", "certManager", Act::Fill)];

const GATEWAY: [Old; 11] = [
    ("readTimeout", "timeouts.read", Act::Positive),
    ("writeTimeout", "timeouts.write", Act::Positive),
    ("idleTimeout", "timeouts.idle", Act::Positive),
    ("enableMetrics", "monitoring.enableMetrics", Act::Force),
    ("tls.keys", "tls.certificates", Act::Replace),
    ("logLevel", "log.level", Act::Fill),
    ("listenAddr", "entryPoints.web.address", Act::Fill),
    ("extraRoutes", "extraConfig", Act::Fill),
    ("enableStrictSlash", "strictSlash", Act::Fill),
    ("networking.proxy", "networking.transport", Act::Fill),
    ("monitoring.path", "monitoring.metricsPath", Act::Fill),
];

const ROUTE: [Old; 9] = [
    ("destination", "target", Act::Fill),
    ("disabled", "enabled", Act::Deny),
    ("blockCommonExploits", "security.enableExploitProtection", Act::Force),
    ("enableBotDetection", "security.enableBotDetection", Act::Force),
    ("insecureSkipVerify", "security.tls.insecureSkipVerify", Act::Force),
    ("security.tls.SkipVerification", "security.tls.insecureSkipVerify", Act::Force),
    ("disableHostForwarding", "security.forwardHostHeaders", Act::Deny),
    ("disableHostFording", "security.forwardHostHeaders", Act::Deny),
    ("disableHeaderXForward", "security.forwardHostHeaders", Act::Deny),
];

const BACKEND: [Old; 1] = [("endPoint", "endpoint", Act::Fill)];

/// A key without an obvious equivalent, and what to do instead.
type Gone = (&'static str, &'static str);

const GATEWAY_GONE: [Gone; 14] = [
    ("rateLimit", "define a rateLimit middleware and name it in gateway.defaults.middlewares"),
    ("accessLog", "see gateway.log.filePath"),
    ("errorLog", "see gateway.log.filePath"),
    ("jwtSecret", "define a jwtAuth middleware"),
    ("disableDisplayRouteOnStart", "remove it"),
    ("disableKeepAlive", "remove it"),
    ("disableHealthCheckStatus", "see gateway.monitoring.enableLiveness"),
    ("disableRouteHealthCheckError", "see gateway.monitoring.includeRouteHealthErrors"),
    ("interceptErrors", "list the statuses in gateway.errorInterceptor.errors"),
    ("blocklist", "define an access middleware"),
    ("disableHeaderXForward", "see security.forwardHostHeaders of the routes"),
    ("networking.dnsCache.enable", "remove it: names are always cached, for gateway.networking.dnsCache.ttl at most"),
    ("monitoring.healthCheck.enableHealthCheckStatus", "see gateway.monitoring.enableRouteHealthCheck"),
    ("monitoring.healthCheck.enableRouteHealthCheckError", "see gateway.monitoring.includeRouteHealthErrors"),
];

const ROUTE_GONE: [Gone; 3] = [
    ("interceptErrors", "list the statuses in errorInterceptor.errors"),
    ("blocklist", "define an access middleware"),
    // Honouring it would take away a check that Goma makes today.
    ("security.tls.skipVerification", "write security.tls.insecureSkipVerify if certificates must not be checked"),
];

/// Rewrites a document, the main file or one with routes and middlewares at its top.
pub fn modernise(document: &mut Document) -> Vec<Problem> {
    let mut change = Change { file: document.file.clone(), at: Vec::new(), problems: Vec::new() };
    let root = &mut document.root;
    change.section(root, &TOP, &[]);
    change.routes(root);
    if let Some(gateway) = root.child_mut("gateway") {
        change.at.push(Step::Key("gateway".to_owned()));
        change.gateway(gateway);
        change.routes(gateway);
    }
    change.problems
}

struct Change {
    file: String,
    at: Vec<Step>,
    problems: Vec<Problem>,
}

impl Change {
    fn gateway(&mut self, gateway: &mut Node) {
        self.section(gateway, &GATEWAY, &GATEWAY_GONE);
        self.certificate_files(gateway);
        let Some(monitoring) = gateway.child_mut("monitoring") else { return };
        // An empty left-over of keys that were taken out above.
        if monitoring.child("healthCheck").is_some_and(|check| check.entries().is_empty()) {
            monitoring.remove("healthCheck");
        }
        self.guards(monitoring);
    }

    fn routes(&mut self, holder: &mut Node) {
        let Some(routes) = holder.child_mut("routes") else { return };
        self.at.push(Step::Key("routes".to_owned()));
        for (index, route) in routes.items_mut().iter_mut().enumerate() {
            self.at.push(Step::Index(index));
            self.section(route, &ROUTE, &ROUTE_GONE);
            self.backends(route);
            self.at.pop();
        }
        self.at.pop();
    }

    /// Backends once were plain URLs.
    fn backends(&mut self, route: &mut Node) {
        let Some(backends) = route.child_mut("backends") else { return };
        self.at.push(Step::Key("backends".to_owned()));
        for (index, backend) in backends.items_mut().iter_mut().enumerate() {
            self.at.push(Step::Index(index));
            if backend.scalar().is_some() {
                let endpoint = std::mem::take(backend);
                *backend = endpoint.with(Value::Null);
                self.warn(endpoint.line, "", "is the older form of a backend", "write - endpoint: URL");
                backend.insert("endpoint", endpoint);
            }
            self.section(backend, &BACKEND, &[]);
            self.at.pop();
        }
        self.at.pop();
    }

    /// `monitoring.middleware` once was a name; it stood before both endpoints.
    fn guards(&mut self, monitoring: &mut Node) {
        let Some(old) = monitoring.child("middleware").filter(|node| node.entries().is_empty()) else { return };
        let names = match &old.value {
            Value::Scalar(_) => old.with(Value::List(vec![old.clone()])),
            Value::List(_) => old.clone(),
            Value::Null | Value::Map(_) => return,
        };
        let remedy = "write metrics: [NAME] and routeHealthCheck: [NAME] below it";
        self.warn(names.line, "monitoring.middleware", "is the older form of this section", remedy);
        let mut section = names.with(Value::Null);
        section.insert("metrics", names.clone());
        section.insert("routeHealthCheck", names);
        monitoring.insert("middleware", section);
    }

    /// The certificate once was a pair of files.
    fn certificate_files(&mut self, gateway: &mut Node) {
        for (cert, key) in [("sslCertFile", "sslKeyFile"), ("tlsCertFile", "tlsKeyFile")] {
            let (cert_file, key_file) = (gateway.remove(cert), gateway.remove(key));
            for old in [&cert_file, &key_file].into_iter().flatten() {
                self.warn(old.line, &old.key, "is an older key", "write gateway.tls.certificates");
            }
            let (Some(cert_file), Some(key_file)) = (cert_file, key_file) else { continue };
            let line = cert_file.line;
            let mut pair = cert_file.node.with(Value::Null);
            pair.insert("cert", cert_file.node);
            pair.insert("key", key_file.node);
            let Some(tls) = gateway.section("tls", line) else { continue };
            match tls.child_mut("certificates").map(|list| &mut list.value) {
                Some(Value::List(list)) => list.push(pair),
                _ => tls.insert("certificates", Node { line, column: 1, value: Value::List(vec![pair]) }),
            }
        }
    }

    fn section(&mut self, section: &mut Node, old: &[Old], gone: &[Gone]) {
        for &(from, to, act) in old {
            if let Some(entry) = take(section, from) {
                let mut today = self.at.clone();
                today.extend(to.split('.').map(|key| Step::Key(key.to_owned())));
                self.warn(entry.line, from, "is an older key", &format!("write {}", key_text(&today)));
                put(section, to, act, entry);
            }
        }
        for &(from, remedy) in gone {
            if let Some(entry) = take(section, from) {
                self.warn(entry.line, from, "is a key of the past and is ignored", remedy);
            }
        }
    }

    fn warn(&mut self, line: u32, key: &str, message: &str, remedy: &str) {
        let mut steps = self.at.clone();
        steps.extend(key.split('.').filter(|key| !key.is_empty()).map(|key| Step::Key(key.to_owned())));
        self.problems.push(Problem {
            severity: Severity::Warning,
            file: self.file.clone(),
            key: key_text(&steps),
            line: Some(line),
            message: message.to_owned(),
            remedy: remedy.to_owned(),
        });
    }
}

fn take(section: &mut Node, path: &str) -> Option<Entry> {
    match path.split_once('.') {
        Some((key, rest)) => take(section.child_mut(key)?, rest),
        None => section.remove(path),
    }
}

fn put(section: &mut Node, path: &str, act: Act, old: Entry) {
    let (mut node, scalar) = (old.node, old.line);
    let meant = node.scalar().and_then(scalar::boolean);
    let number = node.scalar().and_then(|text| scalar::whole(text, Mode::Document));
    match (act, meant, number) {
        (Act::Force, Some(true), _) => {}
        (Act::Deny, Some(true), _) => node = node.with_text("false", Style::Plain),
        (Act::Force | Act::Deny, Some(false), _) => return,
        (Act::Positive, _, Some(Number::Whole(number) | Number::Cut(number))) if number <= 0 => return,
        (Act::Replace, _, _) if node.items().is_empty() && matches!(node.value, Value::List(_)) => return,
        // What is neither true nor false, nor a number, is moved as it is, and is found wrong where it arrives.
        _ => {}
    }
    if !node.is_null() {
        place(section, path, scalar, node, act == Act::Fill);
    }
}

fn place(section: &mut Node, path: &str, line: u32, node: Node, only_absent: bool) {
    match path.split_once('.') {
        Some((key, rest)) => {
            if let Some(below) = section.section(key, line) {
                place(below, rest, line, node, only_absent);
            }
        }
        None if only_absent && section.child(path).is_some_and(|there| !there.is_null()) => {}
        None => section.insert(path, node),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;
    use super::*;

    fn text(node: Option<&Node>) -> String {
        match node.map(|node| &node.value) {
            Some(Value::Scalar(scalar)) => scalar.text.clone(),
            Some(Value::List(items)) => items.iter().map(|item| text(Some(item))).collect::<Vec<_>>().join(","),
            Some(Value::Map(entries)) => {
                entries.iter().map(|e| format!("{}={}", e.key, text(Some(&e.node)))).collect::<Vec<_>>().join(" ")
            }
            Some(Value::Null) => "null".to_owned(),
            None => "absent".to_owned(),
        }
    }

    fn at<'a>(root: &'a Node, path: &str) -> Option<&'a Node> {
        path.split('.').try_fold(root, |node, key| match key.parse::<usize>() {
            Ok(index) => node.items().get(index),
            Err(_) => node.child(key),
        })
    }

    #[test]
    fn older_keys_act_on_the_keys_of_today() {
        let table = [
            ("a timeout", "gateway: {readTimeout: 5}", "gateway.timeouts.read", "5"),
            ("a timeout wins", "gateway: {readTimeout: 5, timeouts: {read: 9}}", "gateway.timeouts.read", "5"),
            ("a timeout of 0", "gateway: {readTimeout: 0, timeouts: {read: 9}}", "gateway.timeouts.read", "9"),
            ("metrics", "gateway: {enableMetrics: true}", "gateway.monitoring.enableMetrics", "true"),
            ("metrics off changes nothing", "gateway: {enableMetrics: no}", "gateway.monitoring", "absent"),
            (
                "keys replace certificates",
                "gateway: {tls: {keys: [a], certificates: [b]}}",
                "gateway.tls.certificates",
                "a",
            ),
            ("no keys do not", "gateway: {tls: {keys: [], certificates: [b]}}", "gateway.tls.certificates", "b"),
            ("strict slash", "gateway: {enableStrictSlash: false}", "gateway.strictSlash", "false"),
            ("metrics path", "gateway: {monitoring: {path: /m}}", "gateway.monitoring.metricsPath", "/m"),
            (
                "transport",
                "gateway: {networking: {proxy: {maxIdleConns: 1}}}",
                "gateway.networking.transport",
                "maxIdleConns=1",
            ),
            (
                "certificate files",
                "gateway: {sslCertFile: c, sslKeyFile: k}",
                "gateway.tls.certificates",
                "cert=c key=k",
            ),
            ("certificate manager", "certificateManager: {provider: acme}", "certManager.provider", "acme"),
            (
                "one guard",
                "gateway: {monitoring: {middleware: m}}",
                "gateway.monitoring.middleware",
                "metrics=m routeHealthCheck=m",
            ),
            (
                "today's guards",
                "gateway: {monitoring: {middleware: {metrics: [m]}}}",
                "gateway.monitoring.middleware",
                "metrics=m",
            ),
            ("destination", "gateway: {routes: [{destination: d}]}", "gateway.routes.0.target", "d"),
            ("target wins", "gateway: {routes: [{destination: d, target: t}]}", "gateway.routes.0.target", "t"),
            ("disabled", "routes: [{disabled: true, enabled: true}]", "routes.0.enabled", "false"),
            ("not disabled", "routes: [{disabled: false, enabled: false}]", "routes.0.enabled", "false"),
            (
                "host forwarding",
                "routes: [{disableHostForwarding: true}]",
                "routes.0.security.forwardHostHeaders",
                "false",
            ),
            (
                "verification",
                "routes: [{insecureSkipVerify: true}]",
                "routes.0.security.tls.insecureSkipVerify",
                "true",
            ),
            (
                "lower-case verification",
                "routes: [{security: {tls: {skipVerification: true}}}]",
                "routes.0.security.tls.insecureSkipVerify",
                "absent",
            ),
            (
                "backends as texts",
                "routes: [{backends: [u, {endPoint: v}]}]",
                "routes.0.backends",
                "endpoint=u,endpoint=v",
            ),
            ("a wrong value is moved as it is", "routes: [{disabled: perhaps}]", "routes.0.enabled", "perhaps"),
        ];
        for (what, yaml, path, expected) in table {
            let (mut document, problems) = parse("t.yml", yaml);
            assert_eq!(problems, [], "{what}");
            let warnings = modernise(&mut document);
            assert_eq!(text(at(&document.root, path)), expected, "{what}");
            assert_eq!(warnings.is_empty(), what == "today's guards", "{what}: {warnings:?}");
        }
    }

    #[test]
    fn each_older_key_is_named_with_the_key_of_today() {
        let yaml = "gateway:\n  readTimeout: 5\n  rateLimit: 10\n  routes:\n    - destination: d\n";
        let (mut document, _) = parse("t.yml", yaml);
        let warnings: Vec<String> = modernise(&mut document).iter().map(ToString::to_string).collect();
        assert_eq!(
            warnings,
            [
                "warning: t.yml:2: gateway.readTimeout: is an older key; write gateway.timeouts.read",
                "warning: t.yml:3: gateway.rateLimit: is a key of the past and is ignored; \
                 define a rateLimit middleware and name it in gateway.defaults.middlewares",
                "warning: t.yml:5: gateway.routes[0].destination: is an older key; write gateway.routes[0].target",
            ]
        );
    }
}
