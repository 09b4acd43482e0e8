//! Active health checks: who is taken out, who comes back, and what is said about it.

use std::time::{Duration, Instant};

use crate::world::*;

const CHECK: &str = "healthCheck: {path: /health, interval: 1s, timeout: 1s}";

fn two(check: &str) -> String {
    format!("- {{name: r, path: /, {check}, backends: [{{endpoint: ONE}}, {{endpoint: TWO}}]}}")
}

/// Waits until this many requests in a row were all answered so.
async fn all_go_to(gateway: &Gateway, name: &str) {
    eventually(&format!("all traffic goes to {name}"), async || {
        for _ in 0..6 {
            let reply = gateway.get("/").await;
            if reply.text() != name {
                return None;
            }
        }
        Some(())
    })
    .await;
}

#[tokio::test]
async fn a_failing_backend_is_left_out_until_it_succeeds_again() {
    let (one, two_) = (Origin::named("one").await, Origin::named("two").await);
    one.on("/health", Answer::status(500));
    let gateway = Gateway::builder().word("ONE", &one).word("TWO", &two_).routes(&two(CHECK)).await;
    all_go_to(&gateway, "two").await;
    one.on("/health", Answer::ok("fine"));
    eventually("it comes back", async || (gateway.get("/").await.text() == "one").then_some(())).await;

    let probe = one.seen().into_iter().find(|seen| seen.target == "/health").expect("a probe");
    let agent = probe.header("User-Agent").unwrap_or_default();
    assert!(probe.method == "GET" && agent.starts_with("goma-gateway/"), "{probe:?}");
    assert_eq!(probe.header("Host"), Some(one.authority().as_str()));
}

#[tokio::test]
async fn the_first_check_comes_at_once() {
    let (one, two_) = (Origin::named("one").await, Origin::named("two").await);
    one.on("/health", Answer::status(503));
    let check = "healthCheck: {path: /health, interval: 60s}";
    let begin = Instant::now();
    let gateway = Gateway::builder().word("ONE", &one).word("TWO", &two_).routes(&two(check)).await;
    all_go_to(&gateway, "two").await;
    assert!(begin.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn a_status_is_healthy_below_400_or_when_it_is_listed() {
    let rows = [
        ("", 204, true),
        ("", 399, true),
        ("", 400, false),
        (", healthyStatuses: [200, 404]", 404, true),
        (", healthyStatuses: [200, 404]", 204, false),
    ];
    for (statuses, status, healthy) in rows {
        let (one, two_) = (Origin::named("one").await, Origin::named("two").await);
        one.on("/health", Answer::status(status));
        two_.on("/health", Answer::status(if statuses.is_empty() { 200 } else { 404 }));
        let check = format!("healthCheck: {{path: /health, interval: 1s{statuses}}}");
        let gateway = Gateway::builder()
            .word("ONE", &one)
            .word("TWO", &two_)
            .gateway("monitoring: {enableRouteHealthCheck: true}")
            .routes(&two(&check))
            .await;
        let expected = if healthy { "healthy" } else { "unhealthy" };
        eventually(&format!("{status} {statuses} is {expected}"), async || {
            let routes = gateway.get("/healthz/routes").await.json()["routes"].clone();
            let first = routes.as_array()?.iter().find(|route| route["name"] == "r - [0]")?.clone();
            (one.seen().iter().any(|seen| seen.target == "/health") && first["status"] == expected).then_some(())
        })
        .await;
        if !healthy {
            all_go_to(&gateway, "two").await;
        }
    }
}

#[tokio::test]
async fn with_all_backends_down_the_answer_is_503() {
    for (about, weight) in [("round robin", ""), ("weighted", ", weight: 1")] {
        let (one, two_) = (Origin::named("one").await, Origin::named("two").await);
        one.on("/health", Answer::status(500));
        two_.on("/health", Answer::hang());
        let backends = format!("[{{endpoint: ONE{weight}}}, {{endpoint: TWO{weight}}}]");
        let routes = format!("- {{name: r, path: /, {CHECK}, backends: {backends}}}");
        let gateway = Gateway::builder().word("ONE", &one).word("TWO", &two_).routes(&routes).await;
        let reply = eventually(&format!("{about}: 503"), async || {
            let reply = gateway.get("/").await;
            (reply.status == 503).then_some(reply)
        })
        .await;
        assert_eq!(reply.text(), "503 service unavailable\n", "{about}");
        assert_eq!(reply.header("Proxied-By"), Some("Goma Gateway"), "{about}");
    }
}

#[tokio::test]
async fn a_single_backend_keeps_its_traffic_when_its_check_fails() {
    let origin = Origin::named("only").await;
    origin.on("/health", Answer::status(500));
    let routes = format!("- {{name: r, path: /, {CHECK}, target: ORIGIN}}");
    let gateway = Gateway::before(&origin).routes(&routes).await;
    let probes = async || (origin.seen().iter().filter(|seen| seen.target == "/health").count() >= 2).then_some(());
    eventually("two checks have failed", probes).await;
    assert_eq!(gateway.get("/").await.text(), "only");
}

#[tokio::test]
async fn an_endpoint_with_a_path_is_checked_and_taken_out_like_any_other() {
    let (one, two_) = (Origin::named("one").await, Origin::named("two").await);
    one.on("/base/health", Answer::status(500));
    let routes = format!("- {{name: r, path: /, {CHECK}, backends: [{{endpoint: ONE/base}}, {{endpoint: TWO/base}}]}}");
    let gateway = Gateway::builder().word("ONE", &one).word("TWO", &two_).routes(&routes).await;
    all_go_to(&gateway, "two").await;
}

#[tokio::test]
async fn healthz_routes_tells_the_state_of_every_check() {
    let origin = Origin::start().await;
    origin.on("/bad", Answer::status(500));
    let routes = "- {name: good, path: /g, target: ORIGIN, healthCheck: {path: /fine}}
- {name: bad, path: /b, target: ORIGIN, healthCheck: {path: /bad}}
- {name: none, path: /n, target: ORIGIN}";
    for (keys, error) in [
        ("enableRouteHealthCheck: true", "Error: "),
        ("enableRouteHealthCheck: true, includeRouteHealthErrors: true", "Route healthcheck errors disabled"),
    ] {
        let gateway = Gateway::before(&origin).gateway(&format!("monitoring: {{{keys}}}")).routes(routes).await;
        let bad = eventually(keys, async || {
            let body = gateway.get("/healthz/routes").await.json();
            let routes = body["routes"].as_array()?.clone();
            let count = routes.len();
            let bad = routes.into_iter().find(|route| route["name"] == "bad" && route["status"] == "unhealthy")?;
            (count == 2 && body["status"] == "unhealthy").then_some(bad)
        })
        .await;
        assert!(bad["error"].as_str().is_some_and(|text| text.starts_with(error)), "{keys}: {bad}");
        let good = gateway.get("/healthz/routes/any").await.json()["routes"].to_string();
        assert!(good.contains(r#""name":"good""#), "{good}");
    }
    let gateway = Gateway::before(&origin).routes(routes).await;
    assert_eq!(gateway.get("/healthz/routes").await.status, 404, "off by default");
}
