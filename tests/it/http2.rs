//! HTTP/2 with prior knowledge on the entry point, and gRPC through it.

use bytes::Bytes;

use crate::world::*;

const ROUTE: &str = "- {name: r, path: /, target: ORIGIN}";

#[tokio::test]
async fn a_unary_call_ends_with_the_backends_trailers() {
    let origin = Origin2::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let client = gateway.h2().await.host("grpc.example.com");
    let reply = client.unary("/pkg.Service/Call", "message").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "message"));
    assert_eq!((reply.trailer("grpc-status"), reply.trailer("x-count")), (Some("0"), Some("1")));
    assert_eq!(reply.header("proxied-by"), Some("Goma Gateway"));

    let seen = origin.last();
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/pkg.Service/Call"));
    assert_eq!(seen.authority, "grpc.example.com", "the client's host is forwarded");
    assert_eq!(seen.headers.get("te").map(|te| te.as_bytes()), Some(&b"trailers"[..]), "gRPC servers ask for it");
}

#[tokio::test]
async fn an_error_of_a_call_reaches_the_client() {
    let origin = Origin2::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let client = gateway.h2().await;
    let refused = client.unary("/refuse", "x").await;
    assert_eq!((refused.header("grpc-status"), refused.body.len()), (Some("5"), 0), "in the head alone");
    let broken = client.unary("/broken", "x").await;
    assert_eq!((broken.text().as_str(), broken.trailer("grpc-status")), ("onetwo", Some("13")), "after messages");
}

#[tokio::test]
async fn a_stream_talks_both_ways_at_once() {
    let origin = Origin2::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let client = gateway.h2().await;
    let mut call = client.grpc("/pkg.Service/Chat").await;
    call.send.send_data(Bytes::from_static(b"m0"), false).expect("open");
    let response = call.response().await.expect("a response while the request goes on");
    let mut body = response.into_body();
    assert_eq!(next(&mut body).await.expect("data").expect("data"), "m0");
    for message in ["m1", "m2", "m3"] {
        call.send.send_data(Bytes::from_static(message.as_bytes()), false).expect("open");
        assert_eq!(next(&mut body).await.expect("data").expect("data"), message);
    }
    call.send.send_data(Bytes::new(), true).expect("open");
    assert!(next(&mut body).await.is_none());
    let trailers = body.trailers().await.expect("an end").expect("trailers");
    assert_eq!((trailers["grpc-status"].as_bytes(), trailers["x-count"].as_bytes()), (&b"0"[..], &b"4"[..]));
}

#[tokio::test]
async fn many_streams_share_a_connection() {
    let origin = Origin2::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let client = gateway.h2().await;
    let calls = (0..50).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { client.unary("/pkg.Service/Call", "message").await.text() })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.expect("no panic"), "message");
    }
    assert_eq!(origin.seen().len(), 50);
}

#[tokio::test]
async fn http2_clients_reach_http1_backends() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let client = gateway.h2().await.host("api.example.com");
    assert_eq!(client.get("/a?b=1").await.status, 200);
    let seen = origin.last();
    assert_eq!((seen.target.as_str(), seen.version.as_str()), ("/a?b=1", "HTTP/1.1"));
    assert_eq!(seen.headers.all("Host"), ["api.example.com"]);
    assert_eq!(seen.header("X-Forwarded-Host"), Some("api.example.com"));
}

#[tokio::test]
async fn a_body_without_length_is_ended_once_on_the_backends_connection() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let client = gateway.h2().await;
    for round in 0..10 {
        let request = client.request("POST", "/up").body(()).expect("a request");
        let mut call = client.call(request, false).await;
        call.send.send_data(Bytes::from_static(b"hello"), false).expect("open");
        // The end comes as an empty frame of its own, which Pingora 0.9.1 alone would send on as a second terminator.
        call.send.send_data(Bytes::new(), true).expect("open");
        assert_eq!(call.finish().await.expect("a response").status, 200, "round {round}");
        assert_eq!(origin.last().text(), "hello");
    }
    assert_eq!(origin.seen().len(), 10, "nothing else was read from the connection");
}

#[tokio::test]
async fn http1_clients_reach_h2c_backends() {
    let origin = Origin2::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let reply = gateway.get("/plain").host("api.example.com").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "plain"));
    let reply = gateway.post("/echo").body("hello").await;
    assert_eq!((reply.text().as_str(), reply.header("Trailer")), ("hello", None));
}

#[tokio::test]
async fn the_gate_holds_for_http2_as_well() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let client = gateway.h2().await;
    for (about, name, value) in [
        ("a host that is not the authority", "host", "other.test"),
        ("a connection header", "connection", "close"),
        ("another te", "te", "gzip"),
        ("a transfer coding", "transfer-encoding", "chunked"),
    ] {
        let request = client.request("GET", "/").header(name, value).body(()).expect("a request");
        let refused = client.call(request, true).await.finish().await;
        // A malformed request may be answered 400 or have its stream reset (RFC 9113 §8.1.1).
        assert!(refused.is_err() || refused.is_ok_and(|reply| reply.status == 400), "{about}");
        assert!(origin.saw_nothing(), "{about}");
    }
}
