//! Stopping, and backends that come and go, under load: whoever was let in gets a whole answer.

use std::time::{Duration, Instant};

use crate::world::*;

const ROUTE: &str = "- {name: r, path: /, target: ORIGIN}";

#[tokio::test]
async fn a_request_in_flight_gets_its_whole_answer_after_sigterm() {
    let origin = Origin::start().await;
    origin.on("/slow", Answer::held(&["begin ", "end"]));
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let (reply, mut connection, left) = gateway.get("/slow").open().await;
    assert_eq!(reply.status, 200);
    gateway.sigterm();
    eventually("no new connection is accepted", async || (!gateway.accepts().await).then_some(())).await;
    assert!(gateway.runs(), "it waits for the request");
    origin.release();
    let (body, _) = connection.wire.body(left).await.expect("a whole body");
    assert_eq!(body, "begin end");
    assert_eq!(gateway.wait_exit().await, Some(0));
}

#[tokio::test]
async fn a_request_that_is_not_answered_yet_is_waited_for_too() {
    let origin = Origin::start().await;
    origin.on("/up", Answer::ok("taken").reading_on_release());
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let mut connection = gateway.connect().await;
    connection.write(b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").await;
    eventually("the backend has it", async || (!origin.saw_nothing()).then_some(())).await;
    gateway.sigterm();
    eventually("no new connection is accepted", async || (!gateway.accepts().await).then_some(())).await;
    connection.write(b"world").await;
    origin.release();
    let reply = connection.reply("POST").await.expect("a whole answer");
    assert_eq!((reply.text().as_str(), reply.keeps_alive()), ("taken", false), "and the connection is given up");
    assert_eq!(gateway.wait_exit().await, Some(0));
}

#[tokio::test]
async fn an_idle_gateway_stops_at_once() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let mut idle = gateway.connect().await;
    assert_eq!(idle.send(gateway.get("/")).await.status, 200);
    let begin = Instant::now();
    gateway.sigterm();
    assert_eq!(gateway.wait_exit().await, Some(0));
    assert!(begin.elapsed() < Duration::from_secs(10), "an idle connection is no reason to wait");
    assert_eq!(idle.closed().await, "");
}

#[tokio::test]
async fn sigterm_under_load_cuts_nobody() {
    let origin = Origin::named("whole").await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let load = Load::start(&gateway, 8, "/", "whole");
    load.goes_on(200).await;
    gateway.sigterm();
    assert_eq!(gateway.wait_exit().await, Some(0));
    let tally = load.stop().await;
    tally.is_clean(&[200]);
    assert!(tally.of(200) >= 200);
}

#[tokio::test]
async fn the_delay_is_served_but_not_ready() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).gateway("shutdown: {delay: 2s}").routes(ROUTE).await;
    assert_eq!(gateway.get("/readyz").await.status, 200);
    gateway.sigterm();
    let reply = eventually("it is not ready", async || {
        let reply = gateway.get("/readyz").await;
        (reply.status != 200).then_some(reply)
    })
    .await;
    let body = "{\"name\":\"Service Gateway\",\"status\":\"not ready\",\"error\":\"draining\"}\n";
    assert_eq!((reply.status, reply.text().as_str()), (503, body));
    assert_eq!(gateway.get("/healthz").await.status, 200, "it is alive");
    assert_eq!(gateway.get("/").await.status, 200, "and serves");
    assert_eq!(gateway.wait_exit().await, Some(0));
}

#[tokio::test]
async fn the_grace_has_an_end() {
    let origin = Origin::start().await;
    origin.always(Answer::hang());
    let gateway = Gateway::before(&origin).gateway("shutdown: {grace: 1s}").routes(ROUTE).await;
    let mut connection = gateway.connect().await;
    connection.write(gateway.get("/").head().as_bytes()).await;
    eventually("the backend has it", async || (!origin.saw_nothing()).then_some(())).await;
    let begin = Instant::now();
    gateway.sigterm();
    gateway.wait_exit().await;
    let took = begin.elapsed();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(8), "{took:?}");
}

#[tokio::test]
async fn sigquit_is_ignored_with_a_word() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    gateway.signal("QUIT");
    gateway.logs("SIGQUIT").await;
    assert_eq!(gateway.get("/").await.status, 200);
    assert!(gateway.runs());
}

#[tokio::test]
async fn http2_clients_are_told_to_go_and_finish_their_streams() {
    let origin = Origin2::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let client = gateway.h2().await;
    let mut call = client.grpc("/pkg.Service/Chat").await;
    call.send.send_data("one".into(), false).expect("open");
    let mut body = call.response().await.expect("a response").into_body();
    assert_eq!(next(&mut body).await.expect("data").expect("data"), "one");
    gateway.sigterm();
    client.is_told_to_go().await;
    call.send.send_data("two".into(), true).expect("open");
    assert_eq!(next(&mut body).await.expect("data").expect("data"), "two");
    assert!(next(&mut body).await.is_none());
    let trailers = body.trailers().await.expect("a proper end").expect("trailers");
    assert_eq!(trailers["grpc-status"].as_bytes(), b"0");
    assert_eq!(gateway.wait_exit().await, Some(0));
}

#[tokio::test]
async fn a_backend_killed_and_back_costs_no_client_an_answer() {
    let (one, two) = (Origin::named("whole").await, Origin::named("whole").await);
    let gateway = Gateway::builder()
        .word("ONE", &one)
        .word("TWO", &two)
        .env("GOMA_LOG_LEVEL", "off")
        .routes("- {name: r, path: /, backends: [{endpoint: ONE}, {endpoint: TWO}]}")
        .await;
    let load = Load::start(&gateway, 8, "/", "whole");
    for _ in 0..5 {
        load.goes_on(100).await;
        one.stop().await;
        load.goes_on(100).await;
        one.restart_on_same_port().await;
    }
    load.goes_on(100).await;
    let tally = load.stop().await;
    // A request that the backend had begun when it was killed may be answered 502: it cannot be sent twice for sure.
    tally.is_clean(&[200, 502]);
    assert!(tally.of(502) * 20 < tally.of(200), "{:?}", tally.answered);
}
