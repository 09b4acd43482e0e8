//! The gateway's own endpoints: health, readiness, metrics.

use crate::world::*;

const ROUTE: &str = "- {name: r, path: /, target: ORIGIN}";
const HEALTHY: &str = "{\"name\":\"Service Gateway\",\"status\":\"running\",\"error\":\"\"}\n";

#[tokio::test]
async fn healthz_and_readyz_say_what_goma_says() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    for path in ["/healthz", "/readyz"] {
        let reply = gateway.get(path).host("any.test").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, HEALTHY), "{path}");
        assert_eq!(reply.header("content-type"), Some("application/json"), "{path}");
        assert!(!reply.headers.has("Proxied-By"), "{path}");
        let head = gateway.request("HEAD", path).await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
    }
    assert!(origin.saw_nothing());
}

#[tokio::test]
async fn an_endpoint_that_is_off_is_not_there() {
    let rows = [
        ("monitoring: {enableLiveness: false}", ("X", "y"), "/healthz"),
        ("monitoring: {enableReadiness: false}", ("X", "y"), "/readyz"),
        ("monitoring: {enableLiveness: true}", ("GOMA_ENABLE_LIVENESS", "false"), "/healthz"),
        ("monitoring: {enableReadiness: true}", ("GOMA_ENABLE_READINESS", "0"), "/readyz"),
        ("monitoring: {enableMetrics: true}", ("GOMA_ENABLE_METRICS", "false"), "/metrics"),
    ];
    for (keys, (name, value), path) in rows {
        let gateway = Gateway::builder().gateway(keys).env(name, value).await;
        let reply = gateway.get(path).await;
        assert_eq!((reply.status, reply.text().as_str()), (404, "404 page not found\n"), "{keys} {name}={value}");
    }
}

#[tokio::test]
async fn requests_are_counted_under_the_name_of_their_route() {
    let origin = Origin::start().await;
    origin.on("/r/none", Answer::status(404));
    let routes = "- {name: r, path: /r, target: ORIGIN}
- {name: silent, path: /silent, target: ORIGIN, disableMetrics: true}";
    let gateway = Gateway::before(&origin).routes(routes).await;
    for _ in 0..3 {
        gateway.get("/r").await;
    }
    gateway.get("/r/none").await;
    gateway.post("/r").body("hello").await;
    gateway.request("BREW", "/r").await;
    gateway.get("/silent").await;
    gateway.get("/nowhere").await;
    for line in [
        r#"gateway_requests_total{method="GET",name="r"} 4"#,
        r#"http_requests_total{method="GET",name="r"} 4"#,
        r#"gateway_requests_total{method="OTHER",name="r"} 1"#,
        r#"gateway_response_status_total{method="GET",name="r",status="200"} 3"#,
        r#"http_response_status_total{method="GET",name="r",status="200"} 3"#,
        r#"gateway_response_status_total{method="GET",name="r",status="404"} 1"#,
        r#"gateway_request_bytes_total{method="POST",name="r"} 5"#,
        r#"gateway_request_duration_seconds_count{method="GET",name="r"} 4"#,
        r#"http_request_duration_seconds_count{method="GET",name="r"} 4"#,
        r#"gateway_request_duration_seconds_bucket{method="GET",name="r",le="10"} 4"#,
        r#"gateway_upstream_duration_seconds_count{name="r"} 6"#,
        "gateway_routes_count 2",
        "gateway_middlewares_count 0",
    ] {
        gateway.counts(line).await;
    }
    let metrics = gateway.metrics().await;
    assert!(!metrics.contains("silent"), "a route without metrics has no series");
    for name in ["gateway_uptime_seconds ", "process_resident_memory_bytes ", "gateway_response_bytes_total{"] {
        assert!(metrics.contains(name), "{name} is missing");
    }
}

#[tokio::test]
async fn a_failed_request_is_counted_with_its_reason() {
    let origin = Origin::start().await;
    let routes = "- {name: gone, path: /gone, target: 'http://127.0.0.1:CLOSED'}
- {name: guarded, path: /guarded, target: ORIGIN, middlewares: [no]}
- {name: off, path: /off, target: ORIGIN, maintenance: {enabled: true}}";
    let gateway = Gateway::before(&origin)
        .word("CLOSED", &free_port())
        .routes(routes)
        .middlewares("- {name: no, type: access, paths: [/]}")
        .await;
    for path in ["/gone", "/guarded", "/off"] {
        gateway.get(path).await;
    }
    gateway.raw(b"GET / HTTP/1.1\r\n\r\n").await;
    for line in [
        r#"goma_edge_request_ends_total{name="gone",reason="connect_failed"} 1"#,
        r#"goma_edge_request_ends_total{name="guarded",reason="denied:access"} 1"#,
        r#"gateway_response_status_total{method="GET",name="gone",status="502"} 1"#,
        r#"gateway_response_status_total{method="GET",name="guarded",status="403"} 1"#,
        r#"goma_edge_refused_requests_total{reason="bad_request"} 1"#,
    ] {
        gateway.counts(line).await;
    }
    assert!(!gateway.metrics().await.contains(r#"status_total{method="GET",name="off""#), "maintenance is not counted");
}

#[tokio::test]
async fn metrics_can_move_to_another_path_and_host_and_behind_a_guard() {
    let gateway = Gateway::builder().gateway("monitoring: {metricsPath: /stats, host: ops.test}").await;
    assert_eq!(gateway.get("/stats").host("ops.test").await.status, 200);
    assert_eq!(gateway.get("/stats/below").host("ops.test").await.status, 200);
    assert_eq!(gateway.get("/stats").host("www.test").await.status, 404);
    assert_eq!(gateway.get("/metrics").host("ops.test").await.status, 404);
    assert_eq!(gateway.get("/healthz").host("www.test").await.status, 200, "health is not bound to the host");
    let reply = gateway.post("/stats").host("ops.test").await;
    assert_eq!((reply.status, reply.header("Allow")), (405, Some("GET, HEAD")));

    let guarded = Gateway::builder()
        .gateway("monitoring: {middleware: {metrics: [closed]}}")
        .middlewares("- {name: closed, type: access, paths: [/metrics]}")
        .await;
    assert_eq!(guarded.get("/metrics").await.status, 403);
}

#[tokio::test]
async fn of_two_endpoints_on_one_path_the_first_answers() {
    let gateway = Gateway::builder().gateway("monitoring: {enableMetrics: true, metricsPath: /healthz}").await;
    assert!(gateway.get("/healthz").await.text().contains("gateway_routes_count"));
    let file = gateway.file("goma.yml").display().to_string();
    let output = goma(&["config", "check", "-c", &file]).await;
    assert!(output.succeeded(), "{}", output.all());
    assert!(output.stdout.contains("gateway.monitoring.enableLiveness: `/healthz` for any host is already taken"));
}

#[tokio::test]
async fn a_guard_of_an_endpoint_that_is_not_defined_refuses_to_start() {
    let end = Gateway::builder().gateway("monitoring: {middleware: {metrics: [nope]}}").start_fails().await;
    assert_eq!(end.code, Some(1));
    assert!(end.all().contains("nope"), "{}", end.all());
}

#[tokio::test]
async fn the_access_log_has_one_line_for_each_request() {
    let origin = Origin::start().await;
    origin.on("/v2/x", Answer::status(404));
    let gateway = Gateway::before(&origin)
        .gateway("log: {format: json}")
        .env("GOMA_LOG_LEVEL", "info")
        .routes("- {name: api, path: /api, rewrite: /v2, target: ORIGIN}")
        .await;
    let request = gateway.get("/api/x?secret=1").host("api.test").header("User-Agent", "me \"quoted\"");
    let reply = request.header("Referer", "https://from.test/").await;
    let line = gateway.logs("Proxied request").await;
    let line: serde_json::Value = serde_json::from_str(&line).expect("a JSON line");
    let id = reply.header("X-Goma-Request-ID").expect("an id");
    for (key, value) in [
        ("level", "WARN"),
        ("msg", "Proxied request"),
        ("request_id", id),
        ("method", "GET"),
        ("url", "/v2/x"),
        ("http_version", "HTTP/1.1"),
        ("host", "api.test"),
        ("client_ip", "127.0.0.1"),
        ("referer", "https://from.test/"),
        ("route", "api"),
        ("user_agent", "me \"quoted\""),
    ] {
        assert_eq!(line[key], value, "{key} of {line}");
    }
    assert_eq!(line["status"].to_string().trim_matches('"'), "404");
    assert!(line["duration"].is_string(), "{line}");
    assert_eq!(gateway.log().matches("Proxied request").count(), 1);
}
