//! The world keeps its own promises: origin and clients talk to each other without a gateway between.

use crate::world::*;

#[tokio::test]
async fn an_origin_says_what_it_saw() {
    let origin = Origin::start().await;
    let reply = Request::new(origin.port(), "POST", "/a?b=1").header("X-One", "1").chunks(&["he", "llo"]).await;
    assert_eq!((reply.status, &reply.json()["body"]), (200, &"hello".into()));
    let seen = origin.last();
    assert_eq!((seen.method.as_str(), seen.target.as_str(), seen.text().as_str()), ("POST", "/a?b=1", "hello"));
    assert_eq!((seen.header("x-one"), seen.whole, seen.connection), (Some("1"), true, 0));
}

#[tokio::test]
async fn an_answer_is_what_the_script_says() {
    let origin = Origin::start().await;
    origin.on("/early", Answer::status(404).interim(103, &[("Link", "</a>")]).header("X", "y"));
    origin.on("/pieces", Answer::pieces(["a".into(), "b".into()]).trailer("Sum", "2"));
    origin.on("/none", Answer::status(204));
    origin.on("/open", Answer::until_close("to the end"));
    let get = |path: &str| Request::new(origin.port(), "GET", path);

    let early = get("/early").await;
    assert_eq!((early.status, early.interim[0].0, early.header("x")), (404, 103, Some("y")));
    let pieces = get("/pieces").await;
    assert_eq!((pieces.text().as_str(), pieces.trailers.one("sum")), ("ab", Some("2")));
    assert_eq!((get("/none").await.status, get("/open").await.text().as_str()), (204, "to the end"));
}

#[tokio::test]
async fn an_origin_fails_on_demand() {
    let origin = Origin::start().await;
    for (path, answer) in
        [("/close", Answer::close()), ("/reset", Answer::reset()), ("/cut", Answer::cut("0123456789", 3))]
    {
        origin.on(path, answer);
        assert!(Request::new(origin.port(), "GET", path).attempt().await.is_err(), "{path}");
    }
    origin.stop().await;
    assert!(Request::new(origin.port(), "GET", "/").attempt().await.is_err(), "a stopped origin accepts nothing");
    origin.restart_on_same_port().await;
    assert_eq!(Request::new(origin.port(), "GET", "/").await.status, 200);
}

#[tokio::test]
async fn a_held_piece_waits_for_leave() {
    let origin = Origin::start().await;
    origin.on("/events", Answer::events(&["one", "two"]));
    let mut events = Events::open(Request::new(origin.port(), "GET", "/events")).await;
    assert_eq!(events.next().await.expect("an event").0, "one");
    origin.release();
    assert_eq!(events.next().await.expect("an event").0, "two");
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_flood_arrives_as_the_pattern() {
    let origin = Origin::start().await;
    origin.on("/flood", Answer::flood(1_000_000));
    let reply = Request::new(origin.port(), "GET", "/flood").await;
    assert!(reply.body.len() == 1_000_000 && Pattern::new().continues(0, &reply.body));
    Request::new(origin.port(), "POST", "/up").body(reply.body).await;
    assert!(origin.last().pattern);
}

#[tokio::test]
async fn a_websocket_echoes_and_closes_from_both_sides() {
    let origin = Origin::start().await;
    origin.always(Answer::websocket());
    let open = async || WebSocket::open(Request::new(origin.port(), "GET", "/ws"), "WebSocket").await.expect("101");
    let mut socket = open().await;
    socket.echoes("hello").await;
    socket.echoes(&"long ".repeat(200)).await;
    socket.close(1000).await;
    assert_eq!((socket.hear().await, socket.hear().await), (Frame::Close(1000), Frame::End));
    let mut socket = open().await;
    socket.say("bye").await;
    assert_eq!(socket.hear().await, Frame::Close(4000));
}

#[tokio::test]
async fn an_h2_origin_streams_both_ways_and_ends_with_trailers() {
    let origin = Origin2::start().await;
    let client = Http2::connect(origin.port()).await;
    let reply = client.unary("/pkg.Service/Call", "message").await;
    assert_eq!((reply.text().as_str(), reply.trailer("grpc-status")), ("message", Some("0")));
    assert_eq!(client.get("/plain").await.text(), "plain");
    let refused = client.unary("/refuse", "x").await;
    assert_eq!((refused.header("grpc-status"), refused.body.len()), (Some("5"), 0));
    assert_eq!(origin.last().path, "/refuse");
}
