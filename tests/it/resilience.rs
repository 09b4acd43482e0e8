//! What becomes of requests when backends fail: retries, ejection, breakers, time limits, bounds.

use std::time::{Duration, Instant};

use crate::world::*;

#[tokio::test]
async fn what_may_be_repeated_is_tried_at_another_backend() {
    let rows = [
        ("a status", Answer::status(503)),
        ("closed", Answer::close()),
        ("reset", Answer::reset()),
        ("no HTTP", Answer::raw("what?\r\n\r\n")),
        ("silence", Answer::hang()),
    ];
    for (about, failing) in rows {
        let (one, two) = two().await;
        one.always(failing);
        let gateway = before("retry: {perTryTimeout: 500ms}", &[&one, &two]).await;
        assert_eq!(statuses(&gateway, gateway.get("/"), 6, 200).await, 6, "{about}");
        let put = gateway.request("PUT", "/").body("x".repeat(20_000));
        assert_eq!(statuses(&gateway, put, 4, 200).await, 4, "{about}, PUT");
        assert!(two.seen().iter().all(|seen| seen.whole && (seen.length == 0 || seen.length == 20_000)), "{about}");
        assert!(!one.saw_nothing(), "{about}");
    }
}

#[tokio::test]
async fn what_may_have_had_an_effect_is_not_repeated_unless_asked() {
    for (keys, times) in [("retry: {attempts: 3}", 1), ("retry: {attempts: 3, methods: [POST]}", 3)] {
        let (one, two) = two().await;
        one.always(Answer::close());
        two.always(Answer::status(503));
        let gateway = before(keys, &[&one, &two]).await;
        let status = gateway.post("/").body("pay").await.status;
        assert!(matches!(status, 502 | 503), "{keys}");
        assert_eq!(requests(&[&one, &two]), times, "{keys}");
    }
    let (one, two) = two().await;
    one.always(Answer::status(503));
    two.always(Answer::status(503));
    let gateway = before("retry: {attempts: 3}", &[&one, &two]).await;
    let large = gateway.request("PUT", "/").body("x".repeat(200_000));
    assert_eq!(large.await.status, 503);
    assert_eq!(requests(&[&one, &two]), 1, "a body that is not at hand any more");
}

#[tokio::test]
async fn the_last_response_is_passed_on_when_nothing_better_is_to_be_had() {
    let (one, two) = two().await;
    for origin in [&one, &two] {
        origin.always(Answer::status(503).body("sorry"));
    }
    let gateway = before("retry: {attempts: 3}", &[&one, &two]).await;
    let reply = gateway.get("/").await;
    assert_eq!((reply.status, reply.text().as_str()), (503, "sorry"));
    assert_eq!(requests(&[&one, &two]), 3, "both, and one of them again");
    gateway.counts(r#"goma_edge_retries_total{cause="503",name="r"} 2"#).await;
    // A status that is not on the list is a response like any other.
    one.always(Answer::status(500));
    two.always(Answer::status(500));
    assert_eq!(gateway.get("/").await.status, 500);
    assert_eq!(requests(&[&one, &two]), 4);
}

#[tokio::test]
async fn a_single_backend_is_asked_again() {
    let one = Origin::named("one").await;
    one.on("/flaky", Answer::status(502));
    let gateway = before("retry: {attempts: 4, backoff: 1ms}", &[&one]).await;
    assert_eq!(gateway.get("/flaky").await.status, 502);
    assert_eq!(one.seen().len(), 4);
}

#[tokio::test]
async fn retries_have_a_budget() {
    let (one, two) = two().await;
    for origin in [&one, &two] {
        origin.always(Answer::status(503));
    }
    let keys = "retry: {attempts: 2, budget: {percent: 10, perSecond: 0}}";
    let gateway = before(keys, &[&one, &two]).await;
    assert_eq!(statuses(&gateway, gateway.get("/"), 50, 503).await, 50);
    let retries = requests(&[&one, &two]) - 50;
    assert!((1..=5).contains(&retries), "a tenth of 50 at most, not {retries}");
    assert!(gateway.metrics().await.contains(r#"goma_edge_retries_denied_total{name="r"} 4"#));
}

#[tokio::test]
async fn a_backend_that_fails_in_a_row_is_left_out_and_comes_back() {
    for (about, failing) in [("5xx", Answer::status(500)), ("cut", Answer::cut("x".repeat(1000), 10))] {
        let (one, two) = two().await;
        one.always(failing);
        let gateway = before("outlier: {failures: 3, ejection: 1s}", &[&one, &two]).await;
        for _ in 0..20 {
            let _ = gateway.get("/").attempt().await;
        }
        assert_eq!(one.seen().len(), 3, "{about}: the third failure takes it out");
        gateway.logs("is left out for 1s").await;
        let cause = if about == "5xx" { "500" } else { "reset" };
        let line = format!(r#"goma_edge_ejections_total{{backend="{one}",cause="{cause}",name="r"}} 1"#);
        gateway.counts(&line).await;
        one.always(Answer::ok("one"));
        eventually("it is back", async || (gateway.get("/").await.text() == "one").then_some(())).await;
    }
}

#[tokio::test]
async fn never_are_all_backends_left_out() {
    let (one, two) = two().await;
    for origin in [&one, &two] {
        origin.always(Answer::status(500));
    }
    let gateway = before("outlier: {failures: 1, ejection: 60s, maxEjectedPercent: 100}", &[&one, &two]).await;
    assert_eq!(statuses(&gateway, gateway.get("/"), 10, 500).await, 10, "one goes on, however bad");
    let mut seen = [one.seen().len(), two.seen().len()];
    seen.sort();
    assert_eq!(seen, [1, 9]);
}

#[tokio::test]
async fn an_ejection_outlives_a_reload_that_does_not_concern_it() {
    let (one, two) = two().await;
    one.always(Answer::status(500));
    let keys = "outlier: {failures: 1, ejection: 60s}";
    let gateway = before(keys, &[&one, &two]).await;
    assert_eq!(statuses(&gateway, gateway.get("/"), 6, 500).await, 1);
    let routes = |methods: &str| {
        format!(
            "- name: r\n  path: /\n  {keys}\n  methods: {methods}\n  backends: [{{endpoint: ONE}}, {{endpoint: TWO}}]"
        )
    };
    assert_eq!(gateway.reload_routes(&routes("[GET, HEAD]")).await, Applied::New);
    assert_eq!(statuses(&gateway, gateway.get("/"), 6, 200).await, 6);
}

#[tokio::test]
async fn a_breaker_opens_and_closes_by_the_share_of_failures() {
    let one = Origin::named("one").await;
    one.always(Answer::status(500));
    let keys = "circuitBreaker: {minRequests: 4, open: 2s, probes: 1}";
    let gateway = before(keys, &[&one]).await;
    assert_eq!(statuses(&gateway, gateway.get("/"), 4, 500).await, 4);
    let reply = gateway.get("/").await;
    assert_eq!((reply.status, reply.header("Retry-After")), (503, Some("2")));
    assert_eq!(one.seen().len(), 4, "the backend has its peace");
    gateway.counts(r#"goma_edge_request_ends_total{name="r",reason="circuit_open"} 1"#).await;
    one.always(Answer::ok("one"));
    eventually("it closes", async || (gateway.get("/").await.status == 200).then_some(())).await;
    for state in ["open", "half_open", "closed"] {
        let line = format!(r#"goma_edge_breaker_changes_total{{backend="{one}",name="r",state="{state}"}} 1"#);
        gateway.counts(&line).await;
    }
}

#[tokio::test]
async fn requests_go_elsewhere_while_a_breaker_is_open() {
    let (one, two) = two().await;
    one.always(Answer::status(500));
    let gateway = before("circuitBreaker: {minRequests: 2, open: 60s}", &[&one, &two]).await;
    statuses(&gateway, gateway.get("/"), 6, 500).await;
    one.forget();
    assert_eq!(statuses(&gateway, gateway.get("/"), 6, 200).await, 6);
    assert!(one.saw_nothing());
}

#[tokio::test]
async fn a_route_has_its_own_limits_on_waiting() {
    let one = Origin::named("one").await;
    let whole = |seconds: u64| Duration::from_secs(seconds);
    one.on("/silent", Answer::hang());
    one.on("/stalls", Answer::held(&["begun", "never"]));
    one.on(
        "/drips",
        Answer::pieces((0..40).flat_map(|_| [Piece::from("x"), Piece::Pause(Duration::from_millis(100))])),
    );
    let gateway = before("timeouts: {responseHeader: 500ms, idle: 700ms, total: 2s}", &[&one]).await;
    let begin = Instant::now();
    assert_eq!(gateway.get("/silent").await.status, 504);
    assert!(begin.elapsed() >= Duration::from_millis(500) && begin.elapsed() < whole(15));
    assert!(gateway.get("/stalls").attempt().await.is_err(), "cut in silence");
    let begin = Instant::now();
    assert!(gateway.get("/drips").attempt().await.is_err(), "cut when its time is over");
    assert!(begin.elapsed() >= Duration::from_millis(1900));
    gateway.counts(r#"goma_edge_request_ends_total{name="r",reason="backend_timeout"} 3"#).await;
    assert_eq!(gateway.get("/").await.text(), "one");

    let slow = Origin::start().await;
    slow.always(Answer::ok("late").delay(Duration::from_millis(600)));
    let gateway =
        before("timeouts: {total: 1s}\nretry: {attempts: 9, on: [timeout], perTryTimeout: 300ms}", &[&slow]).await;
    let begin = Instant::now();
    assert_eq!(gateway.get("/").await.status, 504);
    assert!(begin.elapsed() < whole(15), "no attempt begins after the end");
    assert!((2..=4).contains(&slow.seen().len()), "{}", slow.seen().len());
}

#[tokio::test]
async fn time_limits_hold_for_http2_backends_and_not_for_tunnels() {
    let origin = Origin2::start().await;
    let routes = "- {name: r, path: /, target: ORIGIN, timeouts: {idle: 500ms, total: 1s}}";
    let gateway = Gateway::before(&origin).routes(routes).await;
    assert_eq!(gateway.get("/plain").await.text(), "plain");
    let (_, mut connection, mut left) = gateway.get("/flood").open().await;
    while let Ok(piece) = connection.wire.piece(&mut left, &mut Headers::default()).await {
        assert!(piece.is_some(), "cut at the end of its time, not ended as if it were whole");
    }
    assert_eq!(gateway.get("/plain").await.text(), "plain");

    let origin = Origin::start().await;
    origin.always(Answer::websocket());
    let gateway = Gateway::before(&origin).routes(routes).await;
    let mut socket = gateway.websocket("/").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    socket.echoes("still there?").await;
}

#[tokio::test]
async fn a_backend_gets_so_many_requests_at_a_time_and_the_others_wait_for_a_moment() {
    let one = Origin::named("one").await;
    one.on("/slow", Answer::held(&["begun", "done"]));
    let gateway = before("loadBalancer: {maxInFlight: 1, queue: {size: 1, timeout: 20s}}", &[&one]).await;
    let (reply, mut first, left) = gateway.get("/slow").open().await;
    assert_eq!(reply.status, 200);
    // The line holds one: whichever come later are refused at once.
    let (waiting, refused) = all_but_one_refused(&gateway, 3).await;
    for reply in refused {
        assert_eq!((reply.status, reply.header("Retry-After")), (503, Some("1")));
    }
    one.release();
    first.wire.body(left).await.expect("the rest");
    assert_eq!(waiting.await.expect("no panic").text(), "one", "its turn has come");
    gateway.counts(r#"goma_edge_request_ends_total{name="r",reason="backend_busy"} 2"#).await;
}

#[tokio::test]
async fn who_waits_too_long_for_a_busy_backend_is_refused() {
    let (one, two) = two().await;
    for origin in [&one, &two] {
        origin.on("/slow", Answer::hang());
    }
    let gateway = before("loadBalancer: {maxInFlight: 1, queue: {timeout: 300ms}}", &[&one, &two]).await;
    let held: Vec<_> = (0..2).map(|_| tokio::spawn(gateway.get("/slow").into_future())).collect();
    eventually("both are busy", async || (requests(&[&one, &two]) == 2).then_some(())).await;
    assert_eq!(one.seen().len(), 1, "the second one went where there was a place");
    let begin = Instant::now();
    assert_eq!(gateway.get("/").await.status, 503);
    assert!(begin.elapsed() >= Duration::from_millis(300));
    held.into_iter().for_each(|held| held.abort());
}

#[tokio::test]
async fn a_backend_that_appears_gets_its_share_little_by_little() {
    let (one, two) = two().await;
    let routes =
        |backends: &str| format!("- name: r\n  path: /\n  loadBalancer: {{slowStart: 1h}}\n  backends: [{backends}]");
    let gateway = before("loadBalancer: {slowStart: 1h}", &[&one]).word("TWO", &two).await;
    assert_eq!(gateway.reload_routes(&routes("{endpoint: ONE}, {endpoint: TWO}")).await, Applied::New);
    assert_eq!(statuses(&gateway, gateway.get("/"), 200, 200).await, 200);
    let share = two.seen().len();
    assert!((1..=40).contains(&share), "a tenth of its half, not {share} of 200");
}

#[tokio::test]
async fn with_too_few_backends_up_all_of_them_count() {
    let (one, two) = two().await;
    one.on("/health", Answer::status(500));
    two.on("/health", Answer::status(500));
    let keys = "loadBalancer: {panicThreshold: 50}\nhealthCheck: {path: /health, interval: 1s}";
    let gateway = before(keys, &[&one, &two]).await;
    eventually("too few are up", async || {
        let _ = gateway.get("/").await;
        gateway.log().contains("all of them get requests").then_some(())
    })
    .await;
    assert_eq!(statuses(&gateway, gateway.get("/"), 6, 200).await, 6);
}
