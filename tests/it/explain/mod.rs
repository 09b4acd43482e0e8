//! What `goma config explain` says: its words and reasons in rows, and, for random configurations and requests, every part
//! of the way (route, middlewares, path, headers, backend, reason) held against what the running gateway then does.

mod dice;

use std::collections::BTreeMap;
use std::fmt::{Debug, Write};
use std::path::PathBuf;

use clap::Parser;
use goma_edge::config::{Env, Source};
use goma_edge::explain;
use serde_json::Value;

use crate::world::*;
use dice::Dice;

/// The command's arguments, read as the command line reads them.
#[derive(Parser)]
struct Question {
    #[command(flatten)]
    options: explain::Options,
}

/// Asks in this process: the same as the command, without starting it.
fn ask(file: PathBuf, env: &Env, arguments: &[String]) -> String {
    let name = file.display().to_string();
    let fixed = ["explain", "-c", &name].map(str::to_owned);
    let question = Question::try_parse_from(fixed.iter().chain(arguments)).expect("valid arguments");
    let source = |path| Source { path, env: env.clone() };
    explain::run(&question.options, source).unwrap_or_else(|error| panic!("{arguments:?}: {error:#}"))
}

fn ask_json(file: PathBuf, env: &Env, mut arguments: Vec<String>) -> Value {
    arguments.push("--json".to_owned());
    serde_json::from_str(&ask(file, env, &arguments)).expect("one JSON object")
}

/// A folder with the story's configuration as `goma.yml`.
fn story() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("goma.yml"), STORY).expect("a writable file");
    folder
}

const STORY: &str = "
gateway:
  monitoring: {enableMetrics: true, middleware: {metrics: [guard]}}
  reload: {enabled: true, token: t0ken}
  proxy: {enabled: true, trustedProxies: [10.0.0.0/8]}
  routes:
    - {name: shop, path: /shop, hosts: [www.test], methods: [GET], rewrite: /v2, target: 'http://shop:1/base?k=1&token=hidden', middlewares: [guard, prefix, dress]}
    - {name: other, path: /shop, hosts: [other.test], target: 'http://other:1'}
    - {name: gone, path: /shop/gone, enabled: false, target: 'http://gone:1'}
    - {name: closed, path: /closed, target: 'http://closed:1', maintenance: {enabled: true, statusCode: 500}, middlewares: [guard]}
    - name: tests
      path: /tests
      backends:
        - {endpoint: 'http://b:1', exclusive: true, match: [{source: header, name: X-Beta, operator: equals, value: 'yes'}]}
        - {endpoint: 'http://c:1', exclusive: true, match: [{source: query, name: c, operator: equals, value: '1'}]}
    - name: heavy
      path: /heavy
      backends: [{endpoint: 'http://d:1', weight: 3}, {endpoint: 'http://e:1', weight: 1}, {endpoint: 'http://f:1'}]
    - name: hashed
      path: /hashed
      backends: [{endpoint: 'http://g:1'}, {endpoint: 'http://h:1'}]
      loadBalancer: {algorithm: consistentHash, hash: {source: header, name: X-Tenant}, maxInFlight: 9}
    - name: even
      path: /even
      backends: [{endpoint: 'http://i:1'}, {endpoint: 'http://j:1'}]
      loadBalancer: {algorithm: leastRequests}
      retry: {attempts: 2}
      timeouts: {total: 3s}
middlewares:
  - {name: guard, type: access, paths: [/admin, /metrics/x], rule: {statusCode: 404}}
  - {name: prefix, type: addPrefix, rule: {prefix: /p}}
  - {name: dress, type: responseHeaders, paths: [/shop/*], rule: {setHeaders: {X-A: b}}}
";

#[test]
fn the_outcome_is_the_word_that_log_and_metric_would_say() {
    let folder = story();
    let long = format!("GET /{}", "x".repeat(20_000));
    for (about, arguments, outcome, status, taker) in [
        ("proxied", "GET http://www.test/shop/x", "ok", 0, "shop"),
        ("other host", "GET http://nowhere.test/shop", "no_route", 404, ""),
        ("only a disabled route", "GET /shop/gone", "no_route", 404, ""),
        ("a guard", "GET http://www.test/shop/admin", "denied:access", 404, "shop"),
        ("a method", "POST http://www.test/shop", "method_not_allowed", 405, "shop"),
        ("maintenance", "GET /closed/x", "maintenance", 500, "closed"),
        ("no rule holds", "GET /tests", "no_backend", 503, "tests"),
        ("a rule holds", "GET /tests?c=1", "ok", 0, "tests"),
        ("a dot segment", "GET /shop/%2e%2e/x", "bad_request", 400, ""),
        ("an encoding", "GET /shop/%zz", "bad_request", 400, ""),
        ("no method", "TRACE /shop", "method_not_allowed", 405, ""),
        ("a long target", &long, "header_too_large", 414, ""),
        ("the gateway itself", "OPTIONS *", "ok", 200, ""),
        ("health", "GET /healthz", "ok", 200, "gateway:health"),
        ("a slash too many", "GET /healthz/?a=b", "ok", 301, ""),
        ("another method", "POST /healthz", "method_not_allowed", 405, ""),
        ("metrics", "GET /metrics", "ok", 200, "gateway:metrics"),
        ("guarded metrics", "GET /metrics/x", "denied:access", 404, "gateway:metrics"),
        ("reload", "POST /gateway/reload", "ok", 401, "gateway:reload"),
        ("with the token", "POST /gateway/reload -HAuthorization:Bearer_t0ken", "ok", 200, "gateway:reload"),
    ] {
        let words = arguments.split(' ').map(|word| word.replace('_', " ")).collect();
        let answer = ask_json(folder.path().join("goma.yml"), &Env::default(), words);
        let found = match (answer["route"].as_str(), answer["endpoint"].as_str()) {
            (Some(route), _) => route.to_owned(),
            (None, Some(endpoint)) => format!("gateway:{endpoint}"),
            (None, None) => String::new(),
        };
        let found = (answer["outcome"].as_str(), answer["status"].as_u64().unwrap_or(0), found);
        assert_eq!(found, (Some(outcome), status, taker.to_owned()), "{about}: {answer:#}");
    }
}

#[test]
fn the_page_gives_the_verdict_first_and_then_the_reasons() {
    let folder = story();
    let text = |arguments: &[&str]| {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        ask(folder.path().join("goma.yml"), &Env::default(), &arguments)
    };
    let shop = text(&["GET", "http://www.test/shop/gone", "--from", "10.1.1.1", "-H", "X-Forwarded-For: 192.0.2.7"]);
    let mut rest = shop.as_str();
    for part in [
        "route `shop` sends it to http://shop:1/base",
        "is for other hosts",
        "would match, but is disabled",
        "192.0.2.7, http",
        "a trusted proxy",
        "GET is allowed (GET)",
        "lets it pass",
        "changes the response",
        "/p/shop/gone",
        "/base/p/shop/gone?k=1&token=[REDACTED]",
        "x-forwarded-for: 192.0.2.7, 10.1.1.1",
        "the only backend",
    ] {
        let found = rest.find(part).unwrap_or_else(|| panic!("{part:?}, in its place, in {shop}"));
        rest = &rest[found + part.len()..];
    }
    assert!(!shop.contains("hidden"), "{shop}");
    let heavy = text(&["GET", "/heavy", "-H", "X_Real_IP: 192.0.2.7", "-H", "Forwarded: for=192.0.2.7"]);
    let tests = text(&["GET", "/tests", "-H", "X-Beta: yes"]);
    let hashed = text(&["GET", "/hashed", "-H", "X-Tenant: a"]);
    let even = text(&["GET", "/even"]);
    let posted = text(&["POST", "/even"]);
    for (page, part) in [
        (&hashed, "the hash of header X-Tenant (or else the address) leads to it"),
        (&hashed, "the hash of header X-Tenant (or else the address) leads to another one"),
        (&hashed, "at most 9 requests at a time at a backend, 100 more wait up to 1s"),
        (&even, "one of 2 by fewer requests of two at random"),
        (&even, "time limits: in all 3s"),
        (&even, "up to 2 attempts, after connect, reset, timeout, 502, 503, 504"),
        (&posted, "POST is not repeated"),
        (&heavy, "one of 2 backends"),
        (&heavy, "75 %"),
        (&heavy, "weight 3 of 4"),
        (&heavy, "has no weight, others have one"),
        (&heavy, "removed  forwarded"),
        (&heavy, "removed  x_real_ip"),
        (&tests, "exclusive, and its rules hold"),
        (&tests, "its rule does not hold: query c equals \"1\""),
    ] {
        assert!(page.contains(part), "{part:?} in {page}");
    }
}

#[tokio::test]
async fn the_command_says_what_is_said_here() {
    let folder = story();
    let arguments = ["GET", "http://www.test/shop/x", "-HX-Beta: yes", "--from", "10.1.1.1"];
    let here = ask(folder.path().join("goma.yml"), &Env::default(), &arguments.map(str::to_owned));
    let command = [&["config", "explain", "-c", "goma.yml"], &arguments[..]].concat();
    let end = goma_in(folder.path(), &[], &command).await;
    assert_eq!((end.code, end.stdout.trim()), (Some(0), here.trim()), "{}", end.all());
}

#[tokio::test]
async fn a_question_that_makes_no_sense_and_a_refused_file_exit_with_1() {
    let folder = story();
    std::fs::write(folder.path().join("bad.yml"), STORY.replace("addPrefix", "nothing")).expect("a writable file");
    for (arguments, named) in [
        (&["-c", "bad.yml", "GET", "/"][..], "nothing"),
        (&["-c", "none.yml", "GET", "/"], "none.yml"),
        (&["-c", "goma.yml", "GET"], "<URL>"),
        (&["-c", "goma.yml", "GET", "ftp://x/"], "ftp"),
        (&["-c", "goma.yml", "GET", "/", "-H", "X"], "Name: value"),
        (&["-c", "goma.yml", "GET", "/", "--from", "here"], "here"),
    ] {
        let arguments: Vec<&str> = ["config", "explain"].iter().chain(arguments).copied().collect();
        let end = goma_in(folder.path(), &[], &arguments).await;
        assert_eq!(end.code, Some(1), "{arguments:?}: {}", end.all());
        assert!(end.all().contains(named), "{arguments:?}: {}", end.all());
    }
}

/// Configurations of the comparison, and requests to each.
const ROUNDS: u64 = 40;
const REQUESTS: usize = 25;

#[tokio::test]
async fn the_running_gateway_does_what_was_explained() {
    let (one, two) = (Origin::named("one").await, Origin::named("two").await);
    let gateway = Gateway::builder().word("ONE", &one).word("TWO", &two).env("GOMA_LOG_LEVEL", "info").await;
    let env: Env = [("GOMA_ENABLE_METRICS", "true"), ("GOMA_LOG_LEVEL", "warn")].into_iter().collect();
    let mut outcomes: BTreeMap<String, u32> = BTreeMap::new();
    for round in 0..ROUNDS {
        let mut dice = Dice::of(round);
        let config = dice.config();
        assert_ne!(gateway.reload_with(&config).await, Applied::Old, "round {round}: {config}");
        for _ in 0..REQUESTS {
            one.forget();
            two.forget();
            let asked = dice.request();
            let said = ask_json(gateway.file("goma.yml"), &env, asked.arguments());
            let reply = asked.send(&gateway).await;
            let wrong =
                Compared { said: &said, reply: &reply, one: &one, two: &two, wrong: String::new() }.differences();
            assert_eq!(wrong, "", "round {round}: {asked:?}\n{config}\n{said:#}\n{reply:?}");
            // Neither a request without a route nor one to a route in maintenance has a line.
            if !said["route"].is_null() && said["maintenance"] != true {
                let line: Value = serde_json::from_str(&gateway.logs(&asked.id).await).expect("a line of JSON");
                assert_eq!(
                    [&line["route"], &line["reason"]],
                    [&said["route"], &said["outcome"]],
                    "{asked:?}\n{config}"
                );
            }
            *outcomes.entry(said["outcome"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    let words = ["ok", "no_route", "method_not_allowed", "maintenance", "no_backend", "bad_request"];
    for outcome in words.iter().chain(&["denied:access", "answered:redirectRegex", "answered:redirectScheme"]) {
        assert!(
            outcomes.get(*outcome).is_some_and(|count| *count >= 5),
            "the dice rarely show {outcome}: {outcomes:?}"
        );
    }
}

/// What was said and what was done.
struct Compared<'a> {
    said: &'a Value,
    reply: &'a Reply,
    one: &'a Origin,
    two: &'a Origin,
    wrong: String,
}

impl Compared<'_> {
    fn same<T: PartialEq + Debug>(&mut self, what: &str, said: T, done: T) {
        if said != done {
            let _ = writeln!(self.wrong, "{what}: said {said:?}, done {done:?}");
        }
    }

    /// Empty when there are none.
    fn differences(mut self) -> String {
        let (said, reply) = (self.said, self.reply);
        let closed = said["maintenance"] == true;
        self.same("status", said["status"].as_u64().unwrap_or(200), reply.status.into());
        self.same("route", said["route"].as_str().filter(|_| !closed), reply.header("X-Route"));
        self.same("location", said["location"].as_str(), reply.header("Location"));
        for middleware in items(&said["middlewares"]).filter(|middleware| middleware["kind"] == "responseHeaders") {
            let name = middleware["name"].as_str().unwrap_or_default();
            let header = if name == "who" { "X-Route".to_owned() } else { format!("X-{name}") };
            self.same(name, middleware["verdict"] == "applies", reply.header(&header).is_some());
        }
        if closed && reply.header("Content-Length") != Some("0") && !reply.body.is_empty() {
            self.same("closed", true, reply.text().starts_with(said["route"].as_str().unwrap_or("?")));
        }
        self.upstream();
        self.wrong
    }

    fn upstream(&mut self) {
        let mut seen = Vec::new();
        for origin in [self.one, self.two] {
            seen.extend(origin.seen().into_iter().map(|seen| (origin.authority(), seen)));
        }
        let said = self.said;
        self.same("requests", usize::from(!said["sent"].is_null()), seen.len());
        let [(authority, seen)] = seen.as_slice() else { return };
        let fits = |backend: &&Value| {
            backend["name"].as_str().is_some_and(|name| name.contains(authority))
                && backend["sent"].as_str() == Some(&seen.target)
                && backend["host"].as_str() == seen.header("Host")
        };
        if items(&said["backends"]).find(fits).is_none() {
            let done = (authority, &seen.target, seen.header("Host"));
            let _ = writeln!(self.wrong, "backend: said {:?}, done {done:?}", said["backends"]);
        }
        for header in items(&said["headers"]["set"]).filter(|header| header["name"] != "host") {
            let name = header["name"].as_str().unwrap_or_default();
            self.same(name, header["value"].as_str(), seen.header(name));
        }
        for name in items(&said["headers"]["removed"]).filter_map(Value::as_str) {
            self.same(name, None, seen.header(name));
        }
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}
