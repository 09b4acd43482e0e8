//! What the gateway answers itself: refusals, failures of a backend, maintenance.

use std::time::{Duration, Instant};

use crate::world::*;

const JSON: &str = "application/json";

#[tokio::test]
async fn a_method_that_the_route_does_not_list_is_405() {
    let origin = Origin::start().await;
    let routes = "- {name: post, path: /post, methods: [POST], target: ORIGIN}
                  - {name: get, path: /get, methods: [GET], target: ORIGIN}";
    let gateway = Gateway::before(&origin).routes(&routes.replace("                  ", "")).await;

    for (method, path) in [("GET", "/post"), ("OPTIONS", "/post"), ("post", "/post"), ("PUT", "/get")] {
        let reply = gateway.request(method, path).accept("application/json, */*").await;
        assert_eq!(reply.status, 405, "{method} {path}");
        assert_eq!(reply.text(), format!("405 {method} method not allowed\n"));
        assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(reply.header("Allow"), Some(if path == "/post" { "POST" } else { "GET" }), "RFC 9110 §15.5.6");
        assert_eq!(reply.header("Proxied-By"), Some("Goma Gateway"));
    }
    let head = gateway.request("HEAD", "/get").await;
    assert_eq!((head.status, head.body.len()), (405, 0), "HEAD is not implied by GET");
    assert!(origin.saw_nothing());
    assert_eq!(gateway.post("/post").body("x").await.status, 200);
}

#[tokio::test]
async fn the_form_of_a_refusal_follows_accept_and_then_content_type() {
    let gateway =
        Gateway::builder().routes("- {name: r, path: /, methods: [POST], target: 'http://127.0.0.1:1'}").await;
    let rows = [
        (Some(JSON), None, "application/json"),
        (None, Some(JSON), "application/json"),
        (Some("application/xml"), None, "application/xhtml+xml"),
        (Some("text/xml"), None, "application/xhtml+xml"),
        (Some("application/xhtml+xml"), None, "application/xhtml+xml"),
        (Some("*/*"), Some(JSON), "text/plain; charset=utf-8"),
        (Some("application/json, */*"), None, "text/plain; charset=utf-8"),
        (Some("application/json; charset=utf-8"), None, "text/plain; charset=utf-8"),
        (Some("text/html"), None, "text/plain; charset=utf-8"),
        (None, None, "text/plain; charset=utf-8"),
    ];
    for (accept, content_type, expected) in rows {
        let mut request = gateway.get("/");
        for (name, value) in [("Accept", accept), ("Content-Type", content_type)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let reply = request.await;
        let about = format!("Accept {accept:?}, Content-Type {content_type:?}: {}", reply.text());
        assert_eq!((reply.status, reply.header("content-type")), (405, Some(expected)), "{about}");
        assert_eq!(reply.header("x-content-type-options").is_some(), expected.starts_with("text"), "{about}");
        match expected {
            "application/json" => {
                let body = r#"{"success":false,"statusCode":405,"error":"405 GET method not allowed"}"#;
                assert_eq!(reply.text(), format!("{body}\n"), "{about}");
            }
            "application/xhtml+xml" => {
                let text = reply.text();
                assert!(text.starts_with("<?xml version=\"1.0\"") && text.ends_with("</error>"), "{about}");
                let squeezed: String = text.chars().filter(|c| !c.is_whitespace()).collect();
                let inner = "<success>false</success><statusCode>405</statusCode>\
                             <error>405GETmethodnotallowed</error>";
                assert!(squeezed.ends_with(&format!("<error>{inner}</error>")), "{about}");
            }
            _ => assert_eq!(reply.text(), "405 GET method not allowed\n", "{about}"),
        }
    }
}

#[tokio::test]
async fn a_backend_that_fails_before_it_answers_is_502() {
    let origin = Origin::start().await;
    origin.on("/close", Answer::close());
    origin.on("/reset", Answer::reset());
    origin.on("/garbage", Answer::raw("\0\0\0 what is this\r\n\r\n"));
    origin.on("/head-only", Answer::raw("HTTP/1.1 200 OK\r\nContent-Le"));
    let closed = free_port();
    let routes =
        "- {name: r, path: /, target: ORIGIN}\n- {name: closed, path: /closed, target: 'http://127.0.0.1:CLOSED'}";
    let gateway = Gateway::before(&origin).word("CLOSED", &closed).routes(routes).await;
    for path in ["/closed", "/close", "/reset", "/garbage", "/head-only"] {
        let reply = gateway.get(path).accept(JSON).await;
        let body = "{\"success\":false,\"statusCode\":502,\"error\":\"502 Bad Gateway \"}\n";
        assert_eq!((reply.status, reply.text().as_str()), (502, body), "{path}");
        assert_eq!(reply.header("Proxied-By"), Some("Goma Gateway"), "{path}");
        assert!(reply.headers.has("X-Goma-Request-ID"), "{path}");
        let reply = gateway.get(path).await;
        assert_eq!((reply.status, reply.text().as_str()), (502, "502 Bad Gateway \n"), "{path}");
    }
    let reply = gateway.post("/closed").body("x".repeat(100_000)).await;
    assert_eq!(reply.status, 502, "with a body as well");
}

#[tokio::test]
async fn a_failed_request_says_why_in_the_log_and_not_to_the_client() {
    let origin = Origin::start().await;
    origin.always(Answer::close());
    let gateway = Gateway::before(&origin).routes("- {name: shop, path: /, target: ORIGIN}").await;
    let reply = gateway.get("/cart?token=hidden").header("Authorization", "Bearer hidden").await;
    assert_eq!(reply.text(), "502 Bad Gateway \n");
    let line = gateway.logs("Failed to proxy request").await;
    for part in ["method=GET", "status=502", reply.header("X-Goma-Request-ID").expect("an id")] {
        assert!(line.contains(part), "{part} is missing in {line}");
    }
    assert!(!gateway.log().contains("hidden"), "a secret in the log: {}", gateway.log());
}

#[tokio::test]
async fn a_backend_that_does_not_answer_in_time_is_504() {
    let origin = Origin::start().await;
    origin.always(Answer::hang());
    let transport = "networking: {transport: {responseHeaderTimeout: 1}}";
    let gateway = Gateway::before(&origin).gateway(transport).routes("- {name: r, path: /, target: ORIGIN}").await;
    let begin = Instant::now();
    let reply = gateway.get("/").await;
    assert_eq!((reply.status, reply.text().as_str()), (504, "504 Gateway Timeout \n"));
    assert!(begin.elapsed() >= Duration::from_millis(900) && begin.elapsed() < Duration::from_secs(5));
    assert_eq!(origin.seen().len(), 1, "it is not tried again");
}

#[tokio::test]
async fn the_header_timeout_does_not_cut_a_slow_body() {
    let origin = Origin::start().await;
    let slow = [Piece::from("a"), Piece::Pause(Duration::from_millis(2500)), Piece::from("b")];
    origin.always(Answer::pieces(slow));
    let transport = "networking: {transport: {responseHeaderTimeout: 1}}";
    let gateway = Gateway::before(&origin).gateway(transport).routes("- {name: r, path: /, target: ORIGIN}").await;
    assert_eq!(gateway.get("/").await.text(), "ab");
}

#[tokio::test]
async fn a_backend_that_fails_in_the_middle_is_a_cut_for_the_client_too() {
    let origin = Origin::start().await;
    origin.on("/length", Answer::cut("0123456789".repeat(100), 15));
    origin.on("/chunks", Answer::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"));
    let gateway = Gateway::before(&origin).routes("- {name: r, path: /, target: ORIGIN}").await;
    for path in ["/length", "/chunks"] {
        let got = gateway.get(path).attempt().await;
        assert!(got.is_err(), "{path}: a cut answer looks whole: {got:?}");
    }
    for (path, piece) in [("/length", "012345678901234"), ("/chunks", "hello")] {
        let mut call = gateway.h2().await.try_get(path).await.expect("a stream");
        let mut body = call.response().await.expect("the head before the cut").into_body();
        let (first, second) = (next(&mut body).await, next(&mut body).await);
        assert!(matches!(&first, Some(Ok(first)) if first == piece), "{path}: {first:?}");
        assert!(matches!(second, Some(Err(_))), "{path}: a cut answer looks whole: {second:?}");
    }
    assert_eq!(gateway.get("/other").await.status, 200, "the gateway goes on");
}

#[tokio::test]
async fn a_route_in_maintenance_asks_nobody() {
    let origin = Origin::start().await;
    let rows = [
        ("enabled: true", 503, "503 Service temporarily unavailable"),
        ("enabled: true, statusCode: 418, message: back at noon", 418, "back at noon"),
    ];
    for (maintenance, status, message) in rows {
        let routes = format!("- {{name: r, path: /, target: ORIGIN, maintenance: {{{maintenance}}}}}");
        let gateway = Gateway::before(&origin).routes(&routes).await;
        let reply = gateway.get("/").await;
        assert_eq!((reply.status, reply.text()), (status, format!("{message}\n")), "{maintenance}");
        assert!(!reply.headers.has("Proxied-By") && !reply.headers.has("X-Goma-Request-ID"), "{maintenance}");
        let body = format!("{{\"success\":false,\"statusCode\":{status},\"error\":\"{message}\"}}\n");
        assert_eq!(gateway.get("/").accept(JSON).await.text(), body, "{maintenance}");
    }
    assert!(origin.saw_nothing());
}

#[tokio::test]
async fn a_refusal_to_head_has_no_body_and_keeps_the_connection_in_step() {
    let routes = "- {name: r, path: /, methods: [POST], target: 'http://127.0.0.1:1'}";
    let gateway = Gateway::builder().routes(routes).await;
    let mut connection = gateway.connect().await;
    for _ in 0..3 {
        for (method, text) in [("HEAD", ""), ("GET", "405 GET method not allowed\n")] {
            let reply = connection.send(gateway.request(method, "/")).await;
            assert_eq!((reply.status, reply.text().as_str(), reply.keeps_alive()), (405, text, true));
        }
    }
    let failed = connection.send(gateway.post("/")).await;
    assert_eq!((failed.status, failed.text().as_str()), (502, "502 Bad Gateway \n"));
}

#[tokio::test]
async fn a_response_that_parsers_would_disagree_on_is_502() {
    let rows = [
        ("another coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ("no coding at all", "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok"),
        (
            "chunked twice",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokx"),
        ("a tunnel that nobody asked for", "HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
    ];
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes("- {name: r, path: /, target: ORIGIN}").await;
    for (about, response) in rows {
        origin.always(Answer::raw(response));
        let reply = gateway.get("/").await;
        assert_eq!((reply.status, reply.text().as_str()), (502, "502 Bad Gateway \n"), "{about}");
    }
}

#[tokio::test]
async fn a_length_that_is_none_is_502_also_where_no_body_follows() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes("- {name: r, path: /, target: ORIGIN}").await;
    for fields in ["Content-Length: +2\r\n", "Content-Length: 2\r\nContent-Length: 3\r\n"] {
        for (method, status) in [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Not Modified")] {
            origin.always(Answer::raw(format!("HTTP/1.1 {status}\r\n{fields}\r\n")));
            assert_eq!(gateway.request(method, "/").await.status, 502, "{method} {status} {fields}");
        }
    }
}

#[tokio::test]
async fn a_length_is_said_once_and_only_where_there_is_content() {
    let rows = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", vec!["2"]),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", vec!["2"]),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n", vec![]),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", vec!["2"]),
    ];
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes("- {name: r, path: /, target: ORIGIN}").await;
    for (response, lengths) in rows {
        origin.always(Answer::raw(response));
        assert_eq!(gateway.get("/").await.headers.all("Content-Length"), lengths, "{response}");
    }
}
