//! `inFlight` and the bounds on connections: so many at a time, and no more.

use std::time::{Duration, Instant};

use crate::world::*;

async fn with(origin: &Origin, rule: &str) -> Gateway {
    let routes = "- {name: r, path: /, target: ORIGIN, middlewares: [few]}";
    let few = format!("- {{name: few, type: inFlight, rule: {rule}}}");
    Gateway::before(origin).routes(routes).middlewares(&few).await
}

async fn slow_origin() -> Origin {
    let origin = Origin::named("quick").await;
    origin.on("/slow", Answer::held(&["begun", "done"]));
    origin
}

#[tokio::test]
async fn above_the_limit_a_request_waits_and_a_longer_line_is_refused() {
    let origin = slow_origin().await;
    let gateway = with(&origin, "{limit: 1, queue: {size: 1, timeout: 20s}}").await;
    let (_, mut first, left) = gateway.get("/slow").open().await;
    let (waiting, refused) = all_but_one_refused(&gateway, 3).await;
    for reply in refused {
        assert_eq!((reply.status, reply.header("Retry-After")), (503, Some("20")));
    }
    origin.release();
    first.wire.body(left).await.expect("the rest");
    assert_eq!(waiting.await.expect("no panic").text(), "quick", "its turn has come");
    gateway.counts(r#"goma_edge_request_ends_total{name="r",reason="denied:inFlight"} 2"#).await;
    assert_eq!(gateway.get("/").await.status, 200, "all places are free again");
}

#[tokio::test]
async fn who_waits_too_long_is_refused() {
    let origin = slow_origin().await;
    let gateway = with(&origin, "{limit: 1, queue: {timeout: 300ms}, statusCode: 429}").await;
    let (_, first, _) = gateway.get("/slow").open().await;
    let begin = Instant::now();
    let reply = gateway.get("/").await;
    assert_eq!((reply.status, reply.header("Retry-After")), (429, Some("1")));
    assert!(begin.elapsed() >= Duration::from_millis(300));
    gateway.logs("no place became free in time").await;
    // A client that goes away leaves its place.
    drop(first);
    eventually("the place is free", async || (gateway.get("/").await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn places_are_counted_by_header_cookie_or_address() {
    for (key, held, free) in [
        ("{source: header, name: X-Tenant}", ("X-Tenant", "a"), Some(("X-Tenant", "b"))),
        ("{source: cookie, name: user}", ("Cookie", "user=a"), Some(("Cookie", "user=b"))),
        ("{source: header, name: X-Tenant}", ("X-Other", "a"), None),
        ("{source: address}", ("X-Tenant", "a"), None),
    ] {
        let origin = slow_origin().await;
        let gateway = with(&origin, &format!("{{limit: 1, key: {key}, queue: {{size: 0}}}}")).await;
        let (_, first, _) = gateway.get("/slow").header(held.0, held.1).open().await;
        assert_eq!(gateway.get("/").header(held.0, held.1).await.status, 429, "{key}: the same");
        match free {
            Some((name, value)) => assert_eq!(gateway.get("/").header(name, value).await.status, 200, "{key}: another"),
            None => assert_eq!(gateway.get("/").await.status, 429, "{key}: the same address"),
        }
        drop(first);
    }
}

#[tokio::test]
async fn places_stay_taken_over_a_reload() {
    let origin = slow_origin().await;
    let gateway = with(&origin, "{limit: 1, queue: {size: 0}}").await;
    let (_, first, _) = gateway.get("/slow").open().await;
    let routes = "- {name: r, path: /, target: ORIGIN, methods: [GET], middlewares: [few]}";
    let few = "- {name: few, type: inFlight, rule: {limit: 1, queue: {size: 0}}}";
    assert_eq!(gateway.reload_with(&document("", routes, few)).await, Applied::New);
    assert_eq!(gateway.get("/").await.status, 503);
    drop(first);
}

#[tokio::test]
async fn an_entry_point_bounds_its_connections() {
    let origin = Origin::start().await;
    for (about, gateway, bound) in [
        ("for all", "limits: {maxConnections: 3}", 3),
        ("for an address", "limits: {maxConnectionsPerAddress: 3}", 3),
        ("its own", "limits: {maxConnections: 9}\nentryPoints: {web: {maxConnections: 3}}", 3),
        (
            "its own for an address",
            "limits: {maxConnectionsPerAddress: 2}\nentryPoints: {web: {maxConnectionsPerAddress: 5}}",
            5,
        ),
    ] {
        let gateway = Gateway::before(&origin).gateway(gateway).routes("- {name: r, path: /, target: ORIGIN}").await;
        let mut held = Vec::new();
        eventually(&format!("{about}: so many are accepted"), async || {
            // What the gateway was asked when it started may still be open for a moment.
            let mut connection = gateway.connect().await;
            let answered = connection.attempt(&gateway.get("/")).await.is_ok();
            held.extend(answered.then_some(connection));
            (held.len() == bound).then_some(())
        })
        .await;
        for _ in 0..3 {
            let mut one_more = gateway.connect().await;
            assert!(one_more.attempt(&gateway.get("/")).await.is_err(), "{about}: closed at once");
        }
        held.pop();
        eventually(&format!("{about}: a place is free"), async || {
            gateway.connect().await.attempt(&gateway.get("/")).await.ok().map(drop)
        })
        .await;
    }
}

#[tokio::test]
async fn a_backend_has_no_more_connections_than_allowed_and_requests_wait_for_one() {
    let origin = Origin::start().await;
    origin.always(Answer::ok("done").delay(Duration::from_millis(20)));
    let routes = "- {name: one, path: /one, target: ORIGIN}\n- {name: two, path: /two, target: ORIGIN}";
    let gateway =
        Gateway::before(&origin).gateway("networking: {transport: {maxConnsPerHost: 2}}").routes(routes).await;
    let requests = (0..20).map(|n| tokio::spawn(gateway.get(if n % 2 == 0 { "/one" } else { "/two" }).into_future()));
    for request in requests.collect::<Vec<_>>() {
        assert_eq!(request.await.expect("no panic").status, 200);
    }
    assert!(origin.connections() <= 2, "{} connections", origin.connections());
}
