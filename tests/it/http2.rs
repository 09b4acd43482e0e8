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
    const METHOD: (&str, &str) = (":method", "GET");
    const SCHEME: (&str, &str) = (":scheme", "http");
    const HOST: (&str, &str) = (":authority", "a.test");
    const PATH: (&str, &str) = (":path", "/x");
    let sound = [METHOD, SCHEME, HOST, PATH];
    let with = |name: &'static str, value: &'static str| [METHOD, SCHEME, HOST, PATH, (name, value)];
    let path = |path: &'static str| [METHOD, SCHEME, HOST, (":path", path)];
    let rows: [(&str, Fields<'_>, Option<&str>); 21] = [
        ("a host that is not the authority", &with("host", "b.test"), None),
        ("connection", &with("connection", "close"), None),
        ("keep-alive", &with("keep-alive", "5"), None),
        ("transfer-encoding", &with("transfer-encoding", "chunked"), Some("x")),
        ("upgrade", &with("upgrade", "websocket"), None),
        ("another te", &with("te", "gzip"), None),
        ("an upper-case name", &with("X-Upper", "1"), None),
        ("a space in a name", &with("x y", "1"), None),
        ("a line end in a value", &with("x", "1\r\ny: 2"), None),
        ("NUL in a value", &with("x", "1\0"), None),
        ("a length that is none", &with("content-length", "+1"), Some("x")),
        ("a length that is not the body's", &with("content-length", "5"), Some("x")),
        ("content_length", &with("content_length", "5"), Some("x")),
        ("no path", &[METHOD, SCHEME, HOST], None),
        ("an empty path", &path(""), None),
        ("a path without a slash", &path("x"), None),
        ("a space in the path", &path("/a b"), None),
        ("a dot segment", &path("/a/../b"), None),
        ("an encoded dot segment", &path("/a/%2e%2E/b"), None),
        ("no host at all", &[METHOD, SCHEME, PATH], None),
        ("a host with a user", &[METHOD, SCHEME, (":authority", "u@a.test"), PATH], None),
    ];
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let port = gateway.port();
    assert_eq!(exchange(port, &sound, None).await.expect("an answer"), Outcome::Answered);
    assert_eq!(exchange(port, &with("host", "a.test"), None).await.expect("an answer"), Outcome::Answered);
    origin.forget();
    for (about, fields, body) in rows {
        let outcome = exchange(port, fields, body).await.expect("an answer");
        assert_ne!(outcome, Outcome::Answered, "{about}");
        // Of a body that turns out to be too short the head may have gone on.
        assert!(!origin.seen().iter().any(|seen| seen.whole), "{about}: {:?}", origin.seen());
    }
}

#[tokio::test]
async fn a_call_that_the_backend_has_not_begun_is_sent_again() {
    let origin = Origin2::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let reply = gateway.h2().await.unary("/busy", "message").await;
    assert_eq!((reply.status, reply.text().as_str(), reply.trailer("grpc-status")), (200, "message", Some("0")));
    assert_eq!(origin.seen().len(), 3);
}

#[tokio::test]
async fn a_client_that_waits_for_continue_need_not_wait_for_an_http2_backend() {
    let origin = Origin2::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let mut connection = gateway.connect().await;
    connection.write(b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    let interim = connection.wire.head().await.expect("an answer").expect("an answer");
    assert!(interim.line.starts_with("HTTP/1.1 100 "), "{}", interim.line);
    connection.write(b"hello").await;
    assert_eq!(connection.reply("POST").await.expect("a reply").text(), "hello");
    assert!(!origin.last().headers.contains_key("expect"), "its expectation is met");
}

#[tokio::test]
async fn cookies_in_lines_of_their_own_are_one_line_for_the_backend() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let client = gateway.h2().await;
    let request = client.request("GET", "/").header("cookie", "a=1").header("cookie", "b=2");
    let call = client.call(request.body(()).expect("a request"), true).await;
    assert_eq!(call.finish().await.expect("a response").status, 200);
    assert_eq!(origin.last().headers.all("Cookie"), ["a=1; b=2"]);
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_no_other() {
    let origin = Origin2::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let (_, _unread, _) = gateway.get("/flood").open().await;
    let ahead = settled(|| origin.flooded()).await;
    assert!(ahead < 16 << 20, "{ahead} bytes were taken from the backend for a client that reads nothing");
    for _ in 0..3 {
        assert_eq!(gateway.get("/plain").await.text(), "plain", "on the same connection to the backend");
    }
}

#[tokio::test]
async fn interim_responses_reach_http2_clients() {
    let origin = Origin::start().await;
    let hint = Answer::ok("page").interim(103, &[("Link", "</a.css>; rel=preload"), ("Connection", "close")]);
    origin.on("/hint", hint);
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let client = gateway.h2().await;
    let mut call = client.call(client.request("GET", "/hint").body(()).expect("a request"), true).await;
    let interim = call.interim().await.expect("an interim response");
    assert_eq!(
        (interim.status().as_u16(), &interim.headers()["link"]),
        (103, &"</a.css>; rel=preload".parse().unwrap())
    );
    assert!(!interim.headers().contains_key("connection"), "the backend's connection is no business of the client");
    assert_eq!(call.finish().await.expect("a response").text(), "page");
}

#[tokio::test]
async fn an_http2_client_may_wait_for_continue() {
    let (origin, origin2) = (Origin::start().await, Origin2::start().await);
    let routes = "- {name: one, path: /one, target: ORIGIN}\n- {name: two, path: /two, target: TWO}";
    let gateway = Gateway::before(&origin).word("TWO", &origin2).routes(routes).await;
    let client = gateway.h2().await;
    for (path, expected) in [("/one", 200), ("/two", 200)] {
        let request = client.request("POST", path).header("expect", "100-continue");
        let mut call = client.call(request.body(()).expect("a request"), false).await;
        assert_eq!(call.interim().await.expect("leave to go on").status().as_u16(), 100, "{path}");
        call.send.send_data(Bytes::from_static(b"hello"), true).expect("open");
        assert_eq!(call.finish().await.expect("a response").status, expected, "{path}");
    }
    assert_eq!(origin.last().text(), "hello");
}

#[tokio::test]
async fn what_the_gate_refuses_is_counted_and_the_connection_goes_on() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let client = gateway.h2().await;
    let connect = http::Request::builder().method("CONNECT").uri("a.test:443").body(()).expect("a request");
    let reply = client.call(connect, true).await.finish().await.expect("a response");
    assert_eq!(reply.status, 405);
    assert!(reply.header("allow").is_some_and(|allow| allow.contains("GET")));
    let trace = client.request("TRACE", "/").header("accept", "application/json");
    let reply = client.call(trace.body(()).expect("a request"), true).await.finish().await.expect("a response");
    assert_eq!((reply.status, reply.header("content-type")), (405, Some("application/json")));
    gateway.counts(r#"goma_edge_refused_requests_total{reason="method_not_allowed"} 2"#).await;
    assert!(origin.saw_nothing());
    assert_eq!(client.get("/").await.status, 200);
}

/// curl 7.88 takes a stream that is reset behind its whole response for a failure, when it is still sending.
#[tokio::test]
async fn a_body_that_is_on_its_way_is_heard_out_after_the_refusal() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes("- {name: r, path: /, methods: [GET], target: ORIGIN}").await;
    let client = gateway.h2().await;
    let request = client.request("POST", "/").body(()).expect("a request");
    let mut call = client.call(request, false).await;
    let (head, mut body) = call.response().await.expect("a response").into_parts();
    assert_eq!(head.status, 405);
    while next(&mut body).await.is_some() {}
    // More than what may be sent without being read.
    let mut left = 300_000;
    while left > 0 {
        call.send.reserve_capacity(left);
        let room = std::future::poll_fn(|cx| call.send.poll_capacity(cx)).await.expect("an open stream");
        let room = room.expect("an open stream").min(left);
        left -= room;
        call.send.send_data(Bytes::from(vec![b'x'; room]), left == 0).expect("an open stream");
    }
    assert!(origin.saw_nothing());
}

#[tokio::test]
async fn a_connection_that_is_refused_over_and_over_has_to_be_made_anew() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let client = gateway.h2().await;
    for _ in 0..32 {
        let request = client.request("TRACE", "/").body(()).expect("a request");
        assert_eq!(client.call(request, true).await.finish().await.expect("a response").status, 405);
    }
    client.is_told_to_go().await;
}

#[tokio::test]
async fn an_idle_connection_is_told_to_go() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).gateway("timeouts: {idle: 1}").routes(ROUTE).await;
    let client = gateway.h2().await;
    assert_eq!(client.get("/").await.status, 200);
    client.is_told_to_go().await;
}
