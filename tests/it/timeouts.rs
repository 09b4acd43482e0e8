//! `gateway.timeouts.read` and `write` bound every request, whichever HTTP it came with.

use bytes::Bytes;

use crate::world::*;

const ROUTE: &str = "- {name: r, path: /, target: ORIGIN}";
const LATE: &str = "408 Request Timeout";

async fn gateway(origin: &Origin, timeouts: &str) -> Gateway {
    Gateway::before(origin).gateway(&format!("timeouts: {timeouts}")).routes(ROUTE).await
}

/// The metric of what ended a request of the route.
async fn ended(gateway: &Gateway, reason: &str) {
    gateway.counts(&format!(r#"goma_edge_request_ends_total{{name="r",reason="{reason}"}} 1"#)).await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_408() {
    let origin = Origin::start().await;
    let http1 = gateway(&origin, "{read: 1}").await;
    let mut connection = http1.connect().await;
    connection.write(b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").await;
    let reply = connection.reply("POST").await.expect("a reply");
    assert_eq!((reply.status, reply.text().trim_end(), reply.keeps_alive()), (408, LATE, false));
    ended(&http1, "client_timeout").await;

    let http2 = gateway(&origin, "{read: 1}").await;
    let client = http2.h2().await;
    let mut call = client.call(client.request("POST", "/up").body(()).expect("a request"), false).await;
    call.send.send_data(Bytes::from_static(b"hello"), false).expect("open");
    let reply = call.finish().await.expect("a reply");
    assert_eq!((reply.status, reply.text().trim_end()), (408, LATE));
    ended(&http2, "client_timeout").await;
    assert_eq!(client.get("/").await.status, 200, "other streams of the connection go on");
}

#[tokio::test]
async fn a_body_that_trickles_is_408_as_well() {
    let origin = Origin::start().await;
    let gateway = gateway(&origin, "{read: 1}").await;
    let client = gateway.h2().await;
    let mut call = client.call(client.request("POST", "/up").body(()).expect("a request"), false).await;
    let trickle = async {
        while call.send.send_data(Bytes::from_static(b"x"), false).is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    // It is the whole request that has a deadline, not a read of it.
    tokio::time::timeout(PATIENCE, trickle).await.expect("cut in time");
    ended(&gateway, "client_timeout").await;
}

#[tokio::test]
async fn a_response_that_does_not_begin_in_time_is_504() {
    let origin = Origin::start().await;
    origin.always(Answer::hang());
    let http1 = gateway(&origin, "{write: 1}").await;
    assert_eq!(http1.get("/").await.status, 504);
    ended(&http1, "backend_timeout").await;

    let http2 = gateway(&origin, "{write: 1}").await;
    assert_eq!(http2.h2().await.get("/").await.status, 504);
    ended(&http2, "backend_timeout").await;
}

#[tokio::test]
async fn a_response_that_does_not_end_in_time_is_cut() {
    let origin = Origin::start().await;
    origin.always(Answer::events(&["one", "two"]));
    let http1 = gateway(&origin, "{write: 1}").await;
    let mut events = Events::open(http1.get("/")).await;
    assert_eq!(events.next().await.expect("an event").0, "one");
    events.breaks_off().await;
    ended(&http1, "backend_timeout").await;

    let http2 = gateway(&origin, "{write: 1}").await;
    let client = http2.h2().await;
    let mut call = client.call(client.request("GET", "/").body(()).expect("a request"), true).await;
    let mut body = call.response().await.expect("a response").into_body();
    assert_eq!(next(&mut body).await.expect("data").expect("data"), "data: one\n\n");
    assert!(next(&mut body).await.expect("an end").is_err(), "a reset, not an end that looks whole");
    ended(&http2, "backend_timeout").await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_response_is_let_go() {
    let origin = Origin::start().await;
    origin.always(Answer::flood(64 << 20));
    let http1 = gateway(&origin, "{write: 1}").await;
    let (_, _unread, _) = http1.get("/").open().await;
    ended(&http1, "client_timeout").await;

    let http2 = gateway(&origin, "{write: 1}").await;
    let client = http2.h2().await;
    let mut call = client.call(client.request("GET", "/").body(()).expect("a request"), true).await;
    let _unread = call.response().await.expect("a response");
    ended(&http2, "client_timeout").await;
}

#[tokio::test]
async fn requests_in_time_are_left_alone() {
    let origin = Origin::start().await;
    let gateway = gateway(&origin, "{read: 2, write: 2}").await;
    let client = gateway.h2().await;
    let mut connection = gateway.connect().await;
    for _ in 0..5 {
        assert_eq!(connection.send(gateway.post("/").body("hello")).await.status, 200);
        assert_eq!(client.unary("/", "hello").await.status, 200);
        // Longer in all than the deadline of one.
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}
