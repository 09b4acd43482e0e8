//! `goma config explain` says what the running gateway then does: for random configurations and requests.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, TestRunner};

use crate::world::*;

/// A configuration as text, and requests as method, host and target.
type Scene = (String, Vec<(&'static str, &'static str, &'static str)>);

#[test]
fn explain_names_the_route_the_middlewares_and_the_path_that_the_proxy_takes() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (origin, gateway) = runtime.block_on(async {
        let origin = Origin::start().await;
        let gateway = Gateway::before(&origin).env("GOMA_LOG_LEVEL", "info").config(&config("")).await;
        (origin, gateway)
    });
    let mut runner =
        TestRunner::new(Config { cases: 24, max_shrink_iters: 30, failure_persistence: None, ..Config::default() });
    let played = runner.run(&scene(), |(text, requests)| {
        runtime.block_on(plays(&origin, &gateway, &text, &requests)).map_err(TestCaseError::fail)
    });
    // The gateway's parts live on the runtime.
    let _guard = runtime.enter();
    played.unwrap_or_else(|error| panic!("{error}"));
}

/// Brings a configuration into force and compares what is said with what is done.
async fn plays(origin: &Origin, gateway: &Gateway, text: &str, requests: &[(&str, &str, &str)]) -> Result<(), String> {
    if gateway.reload_with(text).await == Applied::Old {
        return Err(format!("refused: {}", gateway.log().lines().last().unwrap_or_default()));
    }
    for (method, host, target) in requests {
        let said = explained(gateway, method, host, target).await;
        origin.forget();
        let id = format!("{:032x}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let reply = gateway.request(method, target).host(host).header("X-Request-ID", &id).await;
        let done = serde_json::json!({
            "status": origin.saw_nothing().then_some(reply.status),
            "sent": origin.seen().pop().map(|seen| seen.target),
        });
        let differs = |key: &str, done: &serde_json::Value| {
            (said[key] != *done).then(|| format!("{method} {host}{target}: {key} is {done}, not {}; {said}", said[key]))
        };
        for key in ["status", "sent"] {
            if let Some(difference) = differs(key, &done[key]) {
                return Err(difference);
            }
        }
        // Neither a request without a route nor one to a route in maintenance has a line.
        if said["route"].is_null() || said["maintenance"] == true {
            continue;
        }
        let line = gateway.logs(&id).await;
        let line: serde_json::Value = serde_json::from_str(&line).map_err(|error| error.to_string())?;
        for (key, field) in [("route", "route"), ("outcome", "reason")] {
            if let Some(difference) = differs(key, &line[field]) {
                return Err(difference);
            }
        }
        if let Some(difference) = walked(&said, &reply) {
            return Err(format!("{method} {host}{target}: {difference}; {said}"));
        }
    }
    Ok(())
}

/// Whether the chain that is told is the one that was walked: each middleware has its own mark.
fn walked(said: &serde_json::Value, reply: &Reply) -> Option<String> {
    let chain: Vec<_> = said["middlewares"].as_array()?.iter().collect();
    let refused = chain.iter().find(|middleware| middleware["verdict"] == "refuses");
    if let Some(status) = refused.map(|middleware| &middleware["status"])
        && *status != reply.status
    {
        return Some(format!("refused with {}, not {status}", reply.status));
    }
    let shell = chain.iter().any(|middleware| middleware["name"] == "shell");
    (shell != (reply.header("Cache-Control") == Some("no-store")))
        .then(|| format!("the shell was {}, not {shell}", !shell))
}

async fn explained(gateway: &Gateway, method: &str, host: &str, target: &str) -> serde_json::Value {
    let url = format!("http://{host}{target}");
    let arguments = ["config", "explain", method, &url, "-c", "goma.yml", "--json"];
    let output = goma_in(gateway.config_dir(), &[], &arguments).await;
    serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("no explanation of {url}: {}", output.all()))
}

fn scene() -> impl Strategy<Value = Scene> {
    let target = select(vec![
        "/",
        "/a",
        "/a/",
        "/a/b",
        "/a/b/c?x=1;y",
        "/b/x",
        "/ab",
        "/A/b",
        "//a",
        "/a%2Fb",
        "/b/%61",
        "/c",
        "/a/../b",
        "/%2e%2e/a",
    ]);
    let method = select(vec!["GET", "POST"]);
    let request = (method, select(vec!["one.test", "x.one.test", "ONE.test:81", "two.test"]), target);
    (prop::collection::vec(route(), 1..7), prop::collection::vec(request, 8)).prop_map(|(routes, requests)| {
        let routes =
            routes.iter().enumerate().map(|(at, keys)| format!("{{name: r{at}, target: ORIGIN/r{at}, {keys}}}"));
        (config(&routes.collect::<Vec<_>>().join(",\n    ")), requests)
    })
}

/// The keys of a route.
fn route() -> impl Strategy<Value = String> {
    let path = select(vec!["/", "/a", "/a/", "/a/b", "/b", "'/{x}'", "'/a/{y}'", "'/{x:[a-b]}/b'"]);
    let hosts = select(vec!["", "one.test", "'*.one.test'", "'{s}.one.test'", "'one.test:81'", "two.test, one.test"]);
    let middlewares = subsequence(vec!["closed", "gone", "prefix", "shell"], 0..=4).prop_shuffle();
    let rewrite = select(vec!["", "", "rewrite: /", "rewrite: /new"]);
    let methods = select(vec!["", "", "", "methods: [GET]"]);
    let rest = select(vec!["", "", "", "priority: 1", "priority: 2", "enabled: false", "maintenance: {enabled: true}"]);
    (path, hosts, middlewares, rewrite, methods, rest).prop_map(|(path, hosts, middlewares, rewrite, methods, rest)| {
        let lists = format!("path: {path}, hosts: [{hosts}], middlewares: [{}]", middlewares.join(", "));
        let keys = [lists.as_str(), rewrite, methods, rest].into_iter().filter(|keys| !keys.is_empty());
        keys.collect::<Vec<_>>().join(", ")
    })
}

fn config(routes: &str) -> String {
    format!(
        "gateway:
  log: {{format: json}}
  routes: [
    {routes}
  ]
middlewares:
  - {{name: closed, type: access, paths: ['/b/x', '^/new/c$'], rule: {{statusCode: 451}}}}
  - {{name: gone, type: access, paths: [/a/b], rule: {{statusCode: 410}}}}
  - {{name: prefix, type: addPrefix, rule: {{prefix: /p/b}}}}
  - {{name: shell, type: responseHeaders, rule: {{cacheControl: no-store}}}}
"
    )
}

static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
