//! WebSockets pass, however the token is spelled, and end when either side says so.

use std::time::Duration;

use crate::world::*;

const ROUTE: &str = "- {name: chat, path: /, target: ORIGIN}";

async fn chat() -> (Origin, Gateway) {
    let origin = Origin::start().await;
    origin.on("/ws", Answer::websocket());
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    (origin, gateway)
}

#[tokio::test]
async fn the_upgrade_token_may_be_spelled_in_any_case() {
    let (origin, gateway) = chat().await;
    for token in ["websocket", "WebSocket", "WEBSOCKET"] {
        let mut socket = WebSocket::open(gateway.get("/ws"), token).await.expect("an open WebSocket");
        socket.echoes(token).await;
        assert_eq!(socket.reply.header("Upgrade").map(str::to_lowercase).as_deref(), Some("websocket"));
        let seen = origin.last();
        assert!(seen.headers.lists("Connection", "upgrade") && seen.headers.lists("Upgrade", "websocket"));
        assert_eq!(seen.header("X-Real-IP"), Some("127.0.0.1"));
    }
}

#[tokio::test]
async fn an_upgrade_is_asked_for_in_connection_as_well() {
    let (origin, gateway) = chat().await;
    for (about, head) in [
        ("not for us", "Upgrade: websocket\r\n"),
        ("h2c, which is no more", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"),
    ] {
        let mut connection = gateway.connect().await;
        for _ in 0..2 {
            connection.write(format!("GET /other HTTP/1.1\r\nHost: a\r\n{head}\r\n").as_bytes()).await;
            let reply = connection.reply("GET").await.expect("a reply");
            assert!(reply.status == 200 && reply.keeps_alive(), "{about}: {reply:?}");
            let seen = origin.last();
            assert!(!seen.headers.has("Upgrade") && !seen.headers.lists("Connection", "upgrade"), "{about}: {seen:?}");
        }
    }
}

#[tokio::test]
async fn a_client_that_talks_before_the_tunnel_is_there_is_told_so() {
    let (_origin, gateway) = chat().await;
    let early = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET /x HTTP/1.1\r\n";
    let answer = gateway.raw(early).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn upgrades_in_a_row_all_talk() {
    let (_origin, gateway) = chat().await;
    for round in 0..64 {
        let mut socket = gateway.websocket("/ws").await;
        socket.echoes(&format!("round {round}")).await;
    }
}

#[tokio::test]
async fn either_side_may_close() {
    let (_origin, gateway) = chat().await;
    let mut socket = gateway.websocket("/ws").await;
    socket.close(1000).await;
    assert_eq!((socket.hear().await, socket.hear().await), (Frame::Close(1000), Frame::End));

    let mut socket = gateway.websocket("/ws").await;
    socket.say("bye").await;
    assert_eq!(socket.hear().await, Frame::Close(4000));
    socket.close(4000).await;
    assert_eq!(socket.hear().await, Frame::Close(4000));
    assert_eq!(socket.hear().await, Frame::End);
}

#[tokio::test]
async fn control_frames_and_long_messages_pass_as_they_are() {
    let (_origin, gateway) = chat().await;
    let mut socket = gateway.websocket("/ws").await;
    socket.ping("are you there").await;
    assert_eq!(socket.hear().await, Frame::Pong(b"are you there".to_vec()));
    socket.echoes(&"x".repeat(60_000)).await;
}

#[tokio::test]
async fn a_quiet_websocket_outlives_every_request_timeout() {
    let origin = Origin::start().await;
    origin.on("/ws", Answer::websocket());
    let timeouts = "timeouts: {read: 1, write: 1, idle: 1}
networking: {transport: {responseHeaderTimeout: 1}}
limits: {headerTimeout: 1s}";
    let gateway = Gateway::before(&origin).gateway(timeouts).routes(ROUTE).await;
    let mut socket = gateway.websocket("/ws").await;
    socket.echoes("before").await;
    // The passing of time is what this is about.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    socket.echoes("after").await;
}

#[tokio::test]
async fn an_upgrade_that_the_backend_never_answers_is_504() {
    let origin = Origin::start().await;
    origin.on("/ws", Answer::hang());
    let limit = "networking: {transport: {responseHeaderTimeout: 1}}";
    let gateway = Gateway::before(&origin).gateway(limit).routes(ROUTE).await;
    let reply = WebSocket::open(gateway.get("/ws"), "websocket").await.expect_err("no WebSocket");
    assert_eq!(reply.status, 504);
    gateway.counts(r#"goma_edge_request_ends_total{name="chat",reason="backend_timeout"} 1"#).await;
    assert_eq!(origin.seen().len(), 1, "it is not sent again");
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_answer() {
    let origin = Origin::start().await;
    origin.always(Answer::status(401).body("who are you").header("X-Why", "no token"));
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let reply = WebSocket::open(gateway.get("/ws"), "websocket").await.expect_err("no WebSocket");
    assert_eq!((reply.status, reply.text().as_str(), reply.header("X-Why")), (401, "who are you", Some("no token")));
    assert_eq!(reply.header("Connection"), Some("close"), "what the client sent for the tunnel is no request");
}

#[tokio::test]
async fn an_offer_of_another_protocol_is_ignored_and_the_connection_stays() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let offer = "Host: a\r\nConnection: Upgrade\r\nUpgrade: TLS/1.2\r\n";
    let bytes = format!(
        "GET /1 HTTP/1.1\r\n{offer}\r\nPOST /2 HTTP/1.1\r\n{offer}Content-Length: 3\r\n\r\nabc\
         GET /3 HTTP/1.1\r\n{offer}Connection: close\r\n\r\n"
    );
    let said = gateway.raw(bytes.as_bytes()).await;
    assert_eq!(said.matches("HTTP/1.1 200").count(), 3, "{said}");
    assert!(origin.seen().iter().all(|seen| !seen.headers.has("Upgrade")), "{:?}", origin.seen());
    assert_eq!(origin.seen()[1].text(), "abc");
}

#[tokio::test]
async fn a_websocket_may_be_one_offer_of_several() {
    let (origin, gateway) = chat().await;
    WebSocket::open(gateway.get("/ws"), "h2c, websocket").await.expect("an open WebSocket").echoes("hello").await;
    assert_eq!(origin.last().headers.all("Upgrade"), ["websocket"]);
}

#[tokio::test]
async fn a_websocket_is_counted_and_logged_like_any_request() {
    let origin = Origin::start().await;
    origin.on("/ws", Answer::websocket());
    let gateway = Gateway::before(&origin).env("GOMA_LOG_LEVEL", "info").routes(ROUTE).await;
    let mut socket = gateway.websocket("/ws").await;
    socket.echoes("hello").await;
    assert!(socket.reply.headers.has("X-Goma-Request-ID"));
    socket.close(1000).await;
    assert_eq!(socket.hear().await, Frame::Close(1000));
    drop(socket);
    gateway.counts(r#"gateway_response_status_total{method="GET",name="chat",status="101"} 1"#).await;
    assert!(gateway.logs("Proxied request").await.contains("status=101"));
}

#[tokio::test]
async fn middlewares_guard_upgrades() {
    let origin = Origin::start().await;
    origin.on("/ws", Answer::websocket());
    let gateway = Gateway::before(&origin)
        .routes("- {name: chat, path: /, target: ORIGIN, middlewares: [closed]}")
        .middlewares("- {name: closed, type: access, paths: [/ws]}")
        .await;
    let reply = WebSocket::open(gateway.get("/ws"), "websocket").await.expect_err("no WebSocket");
    assert_eq!(reply.status, 403);
    assert!(origin.saw_nothing());
}
