//! Random configurations and requests that meet each other often.

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use crate::world::*;

/// A request that can be asked about and sent.
#[derive(Debug)]
pub struct Asked {
    method: &'static str,
    target: String,
    host: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    /// Finds its line in the log.
    pub id: String,
}

impl Asked {
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![self.method.to_owned(), self.target.clone(), format!("-HHost: {}", self.host)];
        arguments.extend(self.headers.iter().map(|(name, value)| format!("-H{name}: {value}")));
        arguments
    }

    pub async fn send(&self, gateway: &Gateway) -> Reply {
        let mut request = gateway.request(self.method, &self.target).host(self.host).header("X-Request-ID", &self.id);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.await
    }
}

/// What is thrown.
pub struct Dice(StdRng);

impl Dice {
    pub fn of(seed: u64) -> Dice {
        Dice(StdRng::seed_from_u64(seed))
    }

    fn one_in(&mut self, sides: u32) -> bool {
        self.0.random_range(0..sides) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        *of.choose(&mut self.0).expect("there is something to choose from")
    }

    fn some<T: Copy>(&mut self, of: &[T]) -> Vec<T> {
        of.iter().copied().filter(|_| self.one_in(3)).collect()
    }

    pub fn config(&mut self) -> String {
        let count = self.0.random_range(1..9);
        let routes: String = (0..count).map(|number| self.route(number)).collect();
        let (slash, proxy) = (self.one_in(2), self.one_in(2));
        let trusted = self.pick(&["[127.0.0.0/8]", "[10.0.0.0/8]", "[]"]);
        format!(
            "gateway:\n  log: {{format: json}}\n  strictSlash: {slash}\n  proxy: {{enabled: {proxy}, trustedProxies: {trusted}}}\n  \
             defaults: {{middlewares: [who]}}\n  routes:\n{routes}{MIDDLEWARES}"
        )
    }

    fn route(&mut self, number: usize) -> String {
        let path = self.path(&["a", "b", "api", "{id}", "{id:[a-f]+}", "healthz"]);
        // The gateway's metrics, by which the test sees reloads, must stay within reach.
        let may_shadow = !path.starts_with("/{") && path != "/";
        let priority = if may_shadow { self.pick(&[0, 0, 0, -1, 1, 2]) } else { self.pick(&[0, 0, 1]) };
        let hosts = self.pick(&[
            "[]",
            "[]",
            "[a.example]",
            "['*.example']",
            "['{sub}.a.example']",
            "['b.example:8080']",
            "[a.example, b.example]",
        ]);
        let methods = self.pick(&["[]", "[]", "[GET]", "[GET, POST, HEAD]"]);
        let rewrite = self.pick(&["''", "''", "/", "/v2", "/v2/x/"]);
        let (enabled, closed, forward) = (!self.one_in(10), self.one_in(10), self.one_in(2));
        let mut middlewares = self
            .some(&["guard", "ends", "one", "two", "all", "some", "regex", "strip", "tell", "away", "tls", "small"]);
        middlewares.shuffle(&mut self.0);
        let middlewares = middlewares.join(", ");
        let backends = self.backends();
        format!(
            "  - {{name: r{number}, path: '{path}', priority: {priority}, hosts: {hosts}, methods: {methods}, \
             rewrite: {rewrite}, enabled: {enabled}, security: {{forwardHostHeaders: {forward}}}, \
             maintenance: {{enabled: {closed}, message: 'r{number} is closed'}}, middlewares: [{middlewares}], \
             backends: [{backends}]}}\n"
        )
    }

    fn backends(&mut self) -> String {
        // Where all have rules, they may all say no.
        let rules = if self.one_in(4) { &RULES[3..] } else { &RULES[..] };
        let count = self.0.random_range(1..4);
        let mut backends = Vec::new();
        for _ in 0..count {
            let (origin, base) = (self.pick(&["ONE", "TWO"]), self.pick(&["", "", "/base", "/base?t=1"]));
            let (weight, rule) = (self.pick(&[0, 0, 0, 1, 3]), self.pick(rules));
            backends.push(format!("{{endpoint: '{origin}{base}', weight: {weight}{rule}}}"));
        }
        backends.join(", ")
    }

    fn path(&mut self, segments: &[&str]) -> String {
        let count = self.0.random_range(0..4);
        let mut path: String = (0..count).map(|_| format!("/{}", self.pick(segments))).collect();
        if path.is_empty() || self.one_in(6) {
            path.push('/');
        }
        path
    }

    pub fn request(&mut self) -> Asked {
        let mut target = self.path(&[
            "a", "a", "b", "b", "api", "api", "7", "x", "%61", "a%2Fb", "", "healthz", "metrics", "A", "a.b", "%20",
        ]);
        if self.one_in(30) {
            target += self.pick(&["/..", "/%2e%2E/a", "/%zz", "/a%00", "/..%2fb"]);
        }
        target += self.pick(&["", "", "?x=1", "?y=%2F&x=2", "?"]);
        let headers = self.some(&[
            ("X-Canary", "yes"),
            ("Cookie", "a=b; beta=12"),
            ("X-Forwarded-For", "192.0.2.7, 10.0.0.9"),
            ("X-Forwarded-Proto", "https"),
            ("X-Real-IP", "192.0.2.8"),
            ("X_Real_IP", "192.0.2.9"),
            ("Forwarded", "for=192.0.2.10"),
            ("Accept-Encoding", "br"),
            ("X-Own", "mine"),
        ]);
        let method = self.pick(&["GET", "GET", "GET", "HEAD", "POST", "DELETE"]);
        let host = self.pick(&["a.example", "A.example:80", "b.example:8080", "b.example", "c.a.example", "other"]);
        let id = format!("{:032x}", self.0.random::<u128>());
        Asked { method, target, host, headers, id }
    }
}

/// The first three are none.
const RULES: [&str; 6] = [
    "",
    "",
    "",
    ", match: [{source: header, name: X-Canary, operator: equals, value: 'yes'}]",
    ", exclusive: true, match: [{source: cookie, name: beta, operator: starts_with, value: '1'}]",
    ", exclusive: true, priority: 2, match: [{source: query, name: x, operator: equals, value: '1'}, \
     {source: ip, operator: in, value: '127.0.0.1, 192.0.2.7'}]",
];

/// Each policy sets a header with its name; `who` tells the route.
const MIDDLEWARES: &str = "
middlewares:
- {name: who, type: responseHeaders, rule: {statuses: [200, 302, 307, 400, 403, 405, 410, 503], setHeaders: {X-Route: '{route.name}'}}}
- {name: all, type: responseHeaders, rule: {statuses: [200, 302, 307, 400, 403, 405, 410, 503], setHeaders: {X-all: '1'}}}
- {name: some, type: responseHeaders, paths: [/a/*, /p1/*], rule: {statuses: [200, 302, 307, 400, 403, 405, 410, 503], setHeaders: {X-some: '1'}}}
- {name: guard, type: access, paths: [/b, /a/b/*]}
- {name: ends, type: access, paths: ['x$'], rule: {statusCode: 410}}
- {name: one, type: addPrefix, rule: {prefix: /p1}}
- {name: two, type: addPrefix, rule: {prefix: /p2/q/}}
- {name: regex, type: rewriteRegex, rule: {pattern: '/(a|b)(/|$)', replacement: '/$1-{{goma.headers.X-Own}}{{goma.query.y}}$2'}}
- {name: strip, type: stripQuery, rule: {params: [x], methods: [GET, POST]}}
- {name: tell, type: requestHeaders, paths: [/a/*, /p1/*], rule: {setHeaders: {X-Told: '1', X-Forwarded-Proto: https}, removeHeaders: [X-Own]}}
- {name: away, type: redirectRegex, rule: {pattern: '^/([^?]*)[?]x=1$', replacement: '/gone/$1', keepMethod: true}}
- {name: tls, type: redirectScheme, rule: {scheme: http, port: 8080}}
- {name: small, type: bodyLimit, rule: {limit: 1K}}
";
