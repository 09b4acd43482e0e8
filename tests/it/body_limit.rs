//! `bodyLimit`: a body of the limit passes and one byte more does not, however it comes.

use bytes::Bytes;

use crate::world::*;

/// A gateway whose route takes 1 KiB.
async fn limited(origin: &impl std::fmt::Display) -> Gateway {
    Gateway::before(origin)
        .gateway("log: {format: json}")
        .env("GOMA_LOG_LEVEL", "info")
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [m, dress]}")
        .middlewares(
            "- {name: m, type: bodyLimit, rule: {limit: 1KiB}}
- {name: dress, type: responseHeaders, rule: {cacheControl: no-store}}",
        )
        .await
}

const MESSAGE: &str = "Request body too large (limit 1024 bytes)";

#[tokio::test]
async fn a_declared_length_above_the_limit_is_refused_at_once() {
    let origin = Origin::start().await;
    let gateway = limited(&origin).await;
    assert_eq!(gateway.post("/").body(vec![b'x'; 1024]).await.status, 200);
    assert_eq!(origin.last().length, 1024);
    origin.forget();
    for method in ["POST", "PUT", "DELETE", "GET"] {
        // Not a byte of the body is sent, and none is waited for.
        let mut connection = gateway.connect().await;
        let head = format!("{method} / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1025\r\n\r\n");
        connection.write(head.as_bytes()).await;
        let reply = connection.reply(method).await.expect("a reply");
        assert_eq!((reply.status, reply.text()), (413, format!("{MESSAGE}\n")), "{method}");
        assert!(reply.interim.is_empty(), "{method}: nobody was asked for the body");
        assert_eq!(reply.header("Connection"), Some("close"), "{method}");
        assert_eq!(reply.header("Cache-Control"), Some("no-store"), "{method}: dressed like any reply");
        assert_eq!(connection.closed().await, "", "{method}");
    }
    let reply = gateway.post("/").accept("application/json").body(vec![b'x'; 2000]).await;
    let json = format!("{{\"success\":false,\"statusCode\":413,\"error\":\"{MESSAGE}\"}}\n");
    assert_eq!((reply.status, reply.text()), (413, json));
    assert!(origin.saw_nothing());
    assert!(gateway.logs("denied:bodyLimit").await.contains("413"));
}

#[tokio::test]
async fn a_client_that_sends_a_large_body_anyway_gets_to_read_the_refusal() {
    let origin = Origin::start().await;
    let gateway = limited(&origin).await;
    for _ in 0..20 {
        let reply = gateway.post("/").body(vec![b'x'; 600_000]).await;
        assert_eq!((reply.status, reply.text()), (413, format!("{MESSAGE}\n")));
    }
    assert!(origin.saw_nothing());
}

#[tokio::test]
async fn a_body_of_unknown_length_is_counted_while_it_streams() {
    let origin = Origin::start().await;
    let gateway = limited(&origin).await;
    let chunk = "x".repeat(512);
    assert_eq!(gateway.post("/").chunks(&[&chunk, &chunk]).await.status, 200);
    assert_eq!((origin.last().length, origin.last().whole), (1024, true));
    origin.forget();
    let reply = gateway.post("/").chunks(&[&chunk, &chunk, "y"]).await;
    assert_eq!((reply.status, reply.text()), (413, format!("{MESSAGE}\n")));
    assert_eq!(reply.header("Connection"), Some("close"));
    let begun = origin.seen();
    assert!(begun.iter().all(|seen| !seen.whole && seen.length <= 1024), "the backend never gets the whole of it");
}

#[tokio::test]
async fn nothing_is_held_back_until_the_end_of_the_body() {
    let origin = Origin::start().await;
    let gateway = limited(&origin).await;
    let mut connection = gateway.connect().await;
    connection.write(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
    eventually("the backend has the first chunk", async || {
        origin.seen().pop().filter(|seen| seen.text() == "first").map(|_| ())
    })
    .await;
    connection.write(b"0\r\n\r\n").await;
    assert_eq!(connection.reply("POST").await.expect("a reply").status, 200);
}

#[tokio::test]
async fn http2_bodies_are_limited_too() {
    let origin = Origin::start().await;
    let gateway = limited(&origin).await;
    let client = gateway.h2().await;
    for (about, declared, sizes, status) in [
        ("declared", Some(1024), &[1024][..], 200),
        ("declared above", Some(1025), &[], 413),
        ("not declared", None, &[512, 512], 200),
        ("not declared above", None, &[512, 512, 1], 413),
    ] {
        let mut request = client.request("POST", "/");
        if let Some(length) = declared {
            request = request.header("content-length", length);
        }
        let mut call = client.call(request.body(()).expect("a request"), false).await;
        for (index, size) in sizes.iter().enumerate() {
            // The gateway may have answered by now.
            let _ = call.send.send_data(Bytes::from(vec![b'x'; *size]), index + 1 == sizes.len());
        }
        let mut answered = call.response().await.expect(about);
        assert_eq!(answered.status().as_u16(), status, "{about}");
        if status == 413 {
            assert_eq!(next(answered.body_mut()).await.expect("data").expect(about), format!("{MESSAGE}\n"), "{about}");
        }
    }
    let reply = client.get("/").await;
    assert_eq!(reply.status, 200, "the connection goes on");
}

#[tokio::test]
async fn another_attempt_is_counted_anew() {
    let origin = Origin::start().await;
    let dead = free_port();
    let gateway = Gateway::before(&origin)
        .routes(&format!(
            "- {{name: r, path: /, middlewares: [m], backends: [{{endpoint: 'http://127.0.0.1:{dead}'}}, {{endpoint: ORIGIN}}]}}"
        ))
        .middlewares("- {name: m, type: bodyLimit, rule: {limit: 1KiB}}")
        .await;
    let chunk = "x".repeat(512);
    for _ in 0..4 {
        assert_eq!(gateway.post("/").chunks(&[&chunk, &chunk]).await.status, 200);
        assert_eq!(origin.last().length, 1024);
    }
}

#[tokio::test]
async fn a_retry_over_a_dead_connection_is_counted_anew() {
    let origin = Origin::start().await;
    let gateway = limited(&origin).await;
    assert_eq!(gateway.get("/").await.status, 200);
    origin.restart_on_same_port().await;
    let chunk = "x".repeat(512);
    let reply = gateway.request("PUT", "/").chunks(&[&chunk, &chunk]).await;
    assert_eq!((reply.status, origin.last().length), (200, 1024));
}

#[tokio::test]
async fn requests_without_a_body_and_upgrades_pass() {
    let origin = Origin::start().await;
    origin.on("/socket", Answer::websocket());
    let gateway = limited(&origin).await;
    assert_eq!(gateway.get("/").await.status, 200);
    assert_eq!(gateway.post("/").body("").await.status, 200);
    let mut socket = gateway.websocket("/socket").await;
    for _ in 0..20 {
        socket.echoes(&"x".repeat(100)).await;
    }
}

#[tokio::test]
async fn a_limit_says_its_unit() {
    for (limit, bytes) in [("1Ki", 1024), ("1K", 1000), ("1KB", 1000), ("1MiB", 1 << 20), ("0K", 0)] {
        let origin = Origin::start().await;
        let gateway = Gateway::before(&origin)
            .routes("- {name: r, path: /, target: ORIGIN, middlewares: [m]}")
            .middlewares(&format!("- {{name: m, type: bodyLimit, rule: {{limit: {limit}}}}}"))
            .await;
        assert_eq!(gateway.post("/").body(vec![b'x'; bytes]).await.status, 200, "{limit}");
        assert_eq!(gateway.post("/").body(vec![b'x'; bytes + 1]).await.status, 413, "{limit}");
    }
}
