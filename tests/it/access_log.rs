//! `accessLog`: what the access line of a route tells beyond its usual fields.

use crate::world::*;

/// The access line of the request that this one is.
async fn line(gateway: &Gateway, request: Request, id: &str) -> serde_json::Value {
    request.header("X-Request-ID", id).await;
    line_of(gateway, id).await
}

/// An error has a line of its own beside it.
async fn line_of(gateway: &Gateway, id: &str) -> serde_json::Value {
    let is_it = |line: &&str| line.contains(id) && line.contains("Proxied request");
    let line = async || gateway.log().lines().find(is_it).map(str::to_owned);
    serde_json::from_str(&eventually("the access line", line).await).expect("a line of JSON")
}

fn gateway(origin: &Origin, middlewares: &str, listed: &str) -> Builder {
    Gateway::before(origin)
        .gateway("log: {format: json}")
        .env("GOMA_LOG_LEVEL", "info")
        .routes(&format!(
            "- {{name: r, path: /r, target: ORIGIN, middlewares: [{listed}]}}\n- {{name: other, path: /other, target: ORIGIN}}"
        ))
        .middlewares(middlewares)
}

const FIELDS: &str =
    "- {name: m, type: accessLog, rule: {headers: [X-Tenant, Authorization], query: [page, token], cookies: [theme, sid]}}
- {name: no, type: access, paths: [/r/no]}";

#[tokio::test]
async fn listed_headers_parameters_and_cookies_are_in_the_line() {
    let origin = Origin::start().await;
    let gateway = gateway(&origin, FIELDS, "m, no").await;
    let request = gateway.get("/r/x?page=1%202&page=3").header("X-Tenant", "acme").header("Cookie", "a=1; theme=dark");
    let said = line(&gateway, request, "first").await;
    assert_eq!(
        (said["x-tenant"].as_str(), said["page"].as_str(), said["theme"].as_str()),
        (Some("acme"), Some("1 2"), Some("dark")),
        "{said:#}"
    );
    assert!(said.get("sid").is_none() && said.get("authorization").is_none(), "what is absent is no field: {said:#}");
    assert_eq!(said["status"], 200, "{said:#}");

    let refused = line(&gateway, gateway.get("/r/no").header("X-Tenant", "b"), "second").await;
    assert_eq!((refused["x-tenant"].as_str(), refused["status"].as_u64()), (Some("b"), Some(403)), "{refused:#}");
    let other = line(&gateway, gateway.get("/other?page=1").header("X-Tenant", "c"), "third").await;
    assert!(other.get("x-tenant").is_none() && other.get("page").is_none(), "another route's: {other:#}");
}

#[tokio::test]
async fn secrets_are_not_in_the_line() {
    let origin = Origin::start().await;
    let gateway = gateway(&origin, FIELDS, "m").await;
    let request =
        gateway.get("/r/x?token=hidden1").header("Authorization", "Bearer hidden2").header("Cookie", "sid=hidden3");
    let said = line(&gateway, request, "first").await;
    assert_eq!(said["authorization"], "[REDACTED]", "{said:#}");
    assert_eq!(said["token"], "[REDACTED]", "{said:#}");
    for secret in ["hidden1", "hidden2"] {
        assert!(!gateway.log().contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn of_several_the_last_counts_and_no_value_breaks_the_line() {
    let origin = Origin::start().await;
    let middlewares =
        "- {name: a, type: accessLog, rule: {headers: [X-A]}}\n- {name: b, type: accessLog, rule: {headers: [X-B]}}";
    let gateway = gateway(&origin, middlewares, "a, b").await;
    let said = line(&gateway, gateway.get("/r").header("X-A", "1").header("X-B", "a\"b\\c\t\u{e9}"), "first").await;
    assert!(said.get("x-a").is_none(), "{said:#}");
    assert!(said["x-b"].as_str().is_some_and(|value| value.starts_with("a\"b\\c\t")), "{said:#}");
}

#[tokio::test]
async fn http2_requests_upgrades_and_failures_tell_them_too() {
    let origin = Origin::start().await;
    origin.on("/r/socket", Answer::websocket());
    origin.on("/r/gone", Answer::close());
    let gateway = gateway(&origin, FIELDS, "m").await;
    let client = gateway.h2().await;
    let request = client.request("GET", "/r/x").header("x-tenant", "two").header("x-request-id", "second");
    let request = request.header("cookie", "a=1").header("cookie", "theme=dark").body(()).expect("a request");
    client.call(request, true).await.finish().await.expect("a response");
    let said = line_of(&gateway, "second").await;
    assert_eq!((said["x-tenant"].as_str(), said["theme"].as_str()), (Some("two"), Some("dark")), "{said:#}");

    let failed = line(&gateway, gateway.get("/r/gone").header("X-Tenant", "gone"), "third").await;
    assert_eq!((failed["x-tenant"].as_str(), failed["status"].as_u64()), (Some("gone"), Some(502)), "{failed:#}");

    let upgrade = gateway.get("/r/socket").header("X-Tenant", "socket").header("X-Request-ID", "fourth");
    let mut socket = WebSocket::open(upgrade, "websocket").await.expect("a WebSocket");
    socket.echoes("x").await;
    socket.close(1000).await;
    drop(socket);
    let said = line_of(&gateway, "fourth").await;
    assert_eq!((said["x-tenant"].as_str(), said["status"].as_u64()), (Some("socket"), Some(101)), "{said:#}");
}

#[tokio::test]
async fn explain_says_that_it_applies() {
    let origin = Origin::start().await;
    let gateway = gateway(&origin, FIELDS, "m").await;
    let file = gateway.file("goma.yml").display().to_string();
    let output = goma(&["config", "explain", "-c", &file, "GET", "/r", "--json"]).await;
    let said: serde_json::Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!(said["middlewares"][0]["verdict"], "applies", "{said:#}");
}
