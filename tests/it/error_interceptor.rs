//! `errorInterceptor`: pages in place of error bodies, decided on the head, for every way that a body may come.

use crate::world::*;

/// A gateway whose route has the interceptor with these keys.
async fn with(origin: &impl std::fmt::Display, rule: &str) -> Gateway {
    Gateway::before(origin)
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [pages]}")
        .middlewares(&format!("- {{name: pages, type: errorInterceptor, rule: {{enabled: true, {rule}}}}}"))
        .await
}

/// A request by its `Accept`, and what comes: status, content type, body.
type Row = (&'static str, &'static str, &'static str, &'static str);

#[tokio::test]
async fn a_page_has_the_form_that_goma_gives_it() {
    let json = "{\"success\":false,\"statusCode\":404,\"error\":\"404 Not Found\"}\n";
    let escaped = "{\"success\":false,\"statusCode\":404,\"error\":\"\\u003cb\\u003e\"}\n";
    let plain = "text/plain; charset=utf-8";
    let html = "text/html; charset=utf-8";
    let rows: [Row; 14] = [
        // Row 130.
        ("errors: [{statusCode: 404}]", "", plain, "404 Not Found\n"),
        ("errors: [{statusCode: 404}]", "application/json", "application/json", json),
        // The older keys, and quoted numbers.
        ("errors: [{status: '404'}]", "", plain, "404 Not Found\n"),
        ("errors: [{code: 404, body: gone}]", "*/*", plain, "gone\n"),
        // Row 133, corrected.
        ("contentType: text/html, errors: [{statusCode: 404, body: <b>x</b>}]", "application/json", html, "<b>x</b>"),
        ("contentType: Text/HTML; charset=utf-8, errors: [{statusCode: 404, body: <b>x</b>}]", "", html, "<b>x</b>"),
        ("contentType: text/html, errors: [{statusCode: 404}]", "", html, "<h1>404 Not Found</h1>"),
        // Row 134.
        ("contentType: application/json, errors: [{statusCode: 404, body: <b>}]", "", "application/json", escaped),
        (
            "contentType: application/json, errors: [{statusCode: 404, body: '{\"x\":true}'}]",
            "",
            "application/json",
            "{\"x\":true}",
        ),
        // The first entry of a status counts.
        (
            "errors: [{statusCode: 500, body: no}, {statusCode: 404, body: a}, {statusCode: 404, body: b}]",
            "",
            plain,
            "a\n",
        ),
        // Files; one that is not there as in Goma.
        ("errors: [{statusCode: 404, file: FOLDER/none.json}]", "application/json", html, "<h1>404 Not Found</h1>"),
        ("errors: [{statusCode: 404, file: FOLDER/404.html}]", "application/json", html, "<h1>gone</h1>"),
        ("errors: [{statusCode: 404, file: FOLDER/404.json}]", "", "application/json", "{\"gone\":1}"),
        (
            "contentType: application/problem+json, errors: [{statusCode: 404, file: FOLDER/404.html}]",
            "",
            "application/problem+json",
            "<h1>gone</h1>",
        ),
    ];
    let origin = Origin::start().await;
    origin.always(Answer::status(404).body("the backend's words").header("Content-Type", "text/html"));
    for (rule, accept, content_type, body) in rows {
        let gateway = Gateway::before(&origin)
            .file("404.html", "<h1>gone</h1>")
            .file("404.json", "{\"gone\":1}")
            .routes("- {name: r, path: /, target: ORIGIN, middlewares: [pages]}")
            .middlewares(&format!("- {{name: pages, type: errorInterceptor, rule: {{enabled: true, {rule}}}}}"))
            .await;
        let mut request = gateway.get("/");
        if !accept.is_empty() {
            request = request.accept(accept);
        }
        let reply = request.await;
        assert_eq!((reply.status, reply.text().as_str()), (404, body), "{rule}");
        assert_eq!(reply.headers.all("Content-Type"), [content_type], "{rule}");
        assert_eq!(reply.header("Content-Length"), Some(&*body.len().to_string()), "{rule}");
        assert_eq!(reply.header("X-Content-Type-Options").is_some(), content_type == plain, "{rule}");
        assert_eq!(reply.header("Proxied-By"), Some("Goma Gateway"), "{rule}");
        gateway.counts(r#"gateway_total_errors_intercepted{name="r",status="404"} 1"#).await;
    }
}

#[tokio::test]
async fn what_describes_the_old_body_goes_with_it_and_the_rest_stays() {
    let origin = Origin::start().await;
    let old = [
        ("ETag", "\"v1\""),
        ("Last-Modified", "Sat, 22 Nov 2025 00:00:00 GMT"),
        ("Accept-Ranges", "bytes"),
        ("Content-MD5", "x"),
        ("Digest", "sha-256=x"),
        ("Content-Language", "de"),
        ("Content-Disposition", "inline"),
        ("Content-Location", "/x"),
        ("Content-Range", "bytes */9"),
    ];
    let kept = [
        ("Set-Cookie", "a=1"),
        ("Location", "/other"),
        ("WWW-Authenticate", "Basic realm=\"x\""),
        ("Retry-After", "5"),
        ("Cache-Control", "no-store"),
        ("X-Own", "1"),
    ];
    let mut answer = Answer::gzip("the backend's words").with_status(401);
    for (name, value) in old.iter().chain(&kept) {
        answer = answer.header(name, value);
    }
    origin.always(answer);
    let gateway = with(&origin, "errors: [{statusCode: 401, body: no entry}]").await;
    // Row 137, corrected: with and without a coding that the client asked for.
    for request in [gateway.get("/").header("Accept-Encoding", "gzip"), gateway.get("/")] {
        let reply = request.await;
        assert_eq!((reply.status, reply.text().as_str()), (401, "no entry\n"));
        for (name, _) in old.iter().chain(&[("Content-Encoding", "")]) {
            assert_eq!(reply.header(name), None, "{name}");
        }
        for (name, value) in kept {
            assert_eq!(reply.headers.all(name), [value], "{name}");
        }
    }
}

#[tokio::test]
async fn downloads_media_and_large_bodies_pass() {
    let origin = Origin::start().await;
    let gateway = with(&origin, "errors: [{statusCode: 404, body: page}]").await;
    let typed = |kind: &str| Answer::status(404).body("old").header("Content-Type", kind);
    let rows = [
        // Row 136.
        (typed("application/octet-stream"), false),
        (typed("application/grpc"), false),
        (typed("video/mp4"), false),
        (typed("audio/mpeg"), false),
        (typed("text/csv").header("Content-Disposition", "Attachment; filename=x"), false),
        (typed("application/problem+json"), true),
        (typed("application/xhtml+xml"), true),
        (typed("image/png"), true),
        (Answer::status(404).body("old"), true),
        (Answer::status(404), true),
        (Answer::status(500).body("old"), false),
        (Answer::ok("old"), false),
    ];
    for (number, (answer, replaced)) in rows.into_iter().enumerate() {
        origin.always(answer);
        let reply = gateway.get("/").await;
        assert_eq!(reply.text(), if replaced { "page\n" } else { "old" }, "row {number}");
    }
    origin.always(Answer::flood((10 << 20) + 1).with_status(404));
    assert_eq!(gateway.get("/").await.body.len(), (10 << 20) + 1);
}

#[tokio::test]
async fn the_gateways_own_replies_get_pages_too() {
    let gateway = Gateway::builder()
        .routes(
            "- {name: r, path: /, target: 'http://127.0.0.1:1', methods: [GET], middlewares: [guard, pages, shell]}
- {name: m, path: /m, target: 'http://127.0.0.1:1', maintenance: {enabled: true}, middlewares: [pages]}",
        )
        .middlewares(
            "- {name: guard, type: access, paths: [/secret]}
- {name: shell, type: responseHeaders, rule: {cacheControl: no-store}}
- name: pages
  type: errorInterceptor
  rule: {enabled: true, errors: [{code: 403, body: '{\"code\":\"no\"}'}, {code: 405, body: not so}, {code: 502, body: soon}, {code: 503, body: no}]}",
        )
        .await;
    // Row 131.
    let reply = gateway.get("/secret").accept("application/json").await;
    assert_eq!((reply.status, reply.text().as_str()), (403, "{\"code\":\"no\"}"));
    assert_eq!(reply.header("Content-Type"), Some("application/json"));
    let reply = gateway.post("/").await;
    assert_eq!((reply.status, reply.text().as_str()), (405, "not so\n"));
    assert_eq!(reply.header("Allow"), Some("GET"));
    let reply = gateway.get("/").await;
    assert_eq!((reply.status, reply.text().as_str()), (502, "soon\n"));
    assert_eq!(reply.header("Cache-Control"), Some("no-store"), "the header policies come behind");
    let reply = gateway.get("/m").await;
    assert_eq!(
        (reply.status, reply.text().as_str()),
        (503, "503 Service temporarily unavailable\n"),
        "maintenance is above"
    );
    gateway.counts(r#"gateway_total_errors_intercepted{name="r",status="502"} 1"#).await;
}

#[tokio::test]
async fn a_page_has_its_head_alone_where_only_that_was_asked_for() {
    let origin = Origin::start().await;
    origin.always(Answer::status(404).body("the backend's words"));
    let gateway = with(&origin, "errors: [{statusCode: 404, body: page}]").await;
    let mut connection = gateway.connect().await;
    for _ in 0..2 {
        let reply = connection.send(gateway.request("HEAD", "/")).await;
        assert_eq!((reply.status, reply.header("Content-Length"), reply.body.len()), (404, Some("5"), 0));
        assert_eq!(connection.send(gateway.get("/")).await.text(), "page\n");
    }
}

/// Ways for a backend to send an error body.
fn bodies() -> Vec<(&'static str, Answer)> {
    let text = "0123456789".repeat(300);
    vec![
        ("with a length", Answer::status(404).body(text.clone())),
        ("in one chunk", Answer::pieces([text.as_str().into()]).with_status(404)),
        ("in two chunks", Answer::pieces([text.as_str().into(), "end".into()]).with_status(404)),
        ("until the end", Answer::until_close(text).with_status(404)),
        ("empty", Answer::status(404)),
        ("no chunks", Answer::pieces([]).with_status(404)),
        ("packed", Answer::gzip("words").with_status(404)),
        ("much", Answer::flood(9 << 20).with_status(404)),
        ("after hints", Answer::status(404).body("x").interim(103, &[("Link", "</a>")])),
    ]
}

#[tokio::test]
async fn the_clients_connection_goes_on_whatever_the_backends_body() {
    let origin = Origin::start().await;
    origin.on("/ok", Answer::ok("fine"));
    let gateway = with(&origin, "errors: [{statusCode: 404, body: page}]").await;
    let mut connection = gateway.connect().await;
    for (about, answer) in bodies() {
        origin.on("/no", answer);
        for _ in 0..2 {
            let reply = connection.send(gateway.get("/no")).await;
            assert_eq!((reply.status, reply.text().as_str()), (404, "page\n"), "{about}");
            assert!(reply.keeps_alive(), "{about}");
            let next = connection.attempt(&gateway.get("/ok")).await;
            assert_eq!(next.map(|reply| reply.text()).ok().as_deref(), Some("fine"), "{about}");
        }
    }
    gateway.counts(r#"goma_edge_request_ends_total{name="r",reason="ok"} 36"#).await;
    assert!(!gateway.log().contains("already sent"), "Pingora has nothing to warn of");
}

#[tokio::test]
async fn a_page_is_whole_where_the_backends_body_is_cut() {
    let origin = Origin::start().await;
    origin.always(Answer::cut("0123456789", 3).with_status(404));
    let gateway = with(&origin, "errors: [{statusCode: 404, body: page}]").await;
    for _ in 0..5 {
        assert_eq!(gateway.get("/").await.text(), "page\n");
        assert_eq!(gateway.h2().await.get("/").await.text(), "page\n");
    }
    gateway.counts(r#"goma_edge_request_ends_total{name="r",reason="ok"} 10"#).await;
}

#[tokio::test]
async fn http2_clients_get_pages_whatever_the_backends_body() {
    let origin = Origin::start().await;
    origin.on("/ok", Answer::ok("fine"));
    let gateway = with(&origin, "errors: [{statusCode: 404, body: page}]").await;
    let client = gateway.h2().await;
    for (about, answer) in bodies() {
        origin.on("/no", answer);
        let reply = client.get("/no").await;
        assert_eq!((reply.status, reply.text().as_str()), (404, "page\n"), "{about}");
        assert_eq!(reply.header("content-length"), Some("5"), "{about}");
        assert_eq!(client.get("/ok").await.text(), "fine", "{about}");
    }
    gateway.counts(r#"goma_edge_request_ends_total{name="r",reason="ok"} 18"#).await;
}

#[tokio::test]
async fn http2_backends_get_pages_over_their_bodies() {
    let origin = Origin2::start().await;
    let gateway = with(&origin, "errors: [{statusCode: 200, body: page}]").await;
    let mut connection = gateway.connect().await;
    let client = gateway.h2().await;
    for path in ["/plain", "/flood", "/plain"] {
        let reply = connection.send(gateway.get(path)).await;
        assert_eq!((reply.status, reply.text().as_str(), reply.keeps_alive()), (200, "page\n", true), "{path}");
        assert_eq!(client.get(path).await.text(), "page\n", "{path}");
    }
    let called = client.unary("/echo", "words").await;
    assert_eq!((called.text().as_str(), called.trailer("grpc-status")), ("words", Some("0")), "gRPC is left alone");
}

#[tokio::test]
async fn a_backend_that_stalls_or_never_ends_does_not_hold_the_page() {
    let origin = Origin::start().await;
    let gateway = with(&origin, "errors: [{statusCode: 500, body: page}]").await;
    let stalls = Answer::pieces([Piece::Hold, "x".into()]).with_status(500);
    let trickles =
        Answer::pieces((0..200).flat_map(|_| ["x".into(), Piece::Pause(std::time::Duration::from_millis(50))]))
            .with_status(500);
    for answer in [stalls, trickles] {
        origin.always(answer);
        let mut connection = gateway.connect().await;
        for _ in 0..2 {
            let reply = connection.send(gateway.get("/")).await;
            assert_eq!((reply.status, reply.text().as_str()), (500, "page\n"));
        }
        assert_eq!(gateway.h2().await.get("/").await.text(), "page\n");
    }
}

#[tokio::test]
async fn the_connection_to_the_backend_is_kept_over_small_bodies() {
    let origin = Origin::start().await;
    let text = "0123456789".repeat(300);
    // Chunks and their end come in writes of their own: they may be on their way when the client has its page.
    for (about, answer, most) in [
        ("with a length", Answer::status(404).body(text.clone()), 5),
        ("in chunks", Answer::pieces([text.as_str().into()]).with_status(404), 40),
        ("empty", Answer::status(404), 5),
    ] {
        origin.always(answer);
        let gateway = with(&origin, "errors: [{statusCode: 404, body: page}]").await;
        let before = origin.connections();
        let mut connection = gateway.connect().await;
        for _ in 0..50 {
            assert_eq!(connection.send(gateway.get("/")).await.text(), "page\n", "{about}");
        }
        let made = origin.connections() - before;
        assert!(made <= most, "{about}: {made} connections for 50 requests");
    }
}

#[tokio::test]
async fn a_page_goes_out_under_an_upload() {
    let origin = Origin::start().await;
    let gateway = with(&origin, "errors: [{statusCode: 413, body: too much}]").await;
    let body = "x".repeat(1 << 20);
    for answer in [
        Answer::status(413).body("words").ignoring_the_body(),
        Answer::flood(9 << 20).with_status(413).ignoring_the_body(),
        Answer::pieces(["words".into()]).with_status(413).ignoring_the_body(),
    ] {
        origin.always(answer);
        let mut connection = gateway.connect().await;
        connection.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n0123").await;
        let reply = connection.reply("POST").await.expect("a reply while the upload is under way");
        assert_eq!((reply.status, reply.text().as_str()), (413, "too much\n"));
        let reply = gateway.post("/").body(body.clone()).await;
        assert_eq!((reply.status, reply.text().as_str()), (413, "too much\n"));
    }
}

#[tokio::test]
async fn a_retried_request_gets_one_page() {
    let origin = Origin::start().await;
    origin.always(Answer::status(500).body("words"));
    let gateway = Gateway::before(&origin)
        .routes("- {name: r, path: /, backends: [{endpoint: 'http://127.0.0.1:1'}, {endpoint: ORIGIN}], middlewares: [pages]}")
        .middlewares("- {name: pages, type: errorInterceptor, rule: {enabled: true, errors: [{statusCode: 500, body: page}]}}")
        .await;
    for _ in 0..4 {
        let reply = gateway.get("/").await;
        assert_eq!((reply.status, reply.text().as_str()), (500, "page\n"));
    }
    gateway.counts(r#"gateway_total_errors_intercepted{name="r",status="500"} 4"#).await;
}

#[tokio::test]
async fn a_refused_websocket_gets_a_page_and_an_accepted_one_is_left_alone() {
    let origin = Origin::start().await;
    origin.on("/no", Answer::status(404).body("words"));
    origin.on("/ws", Answer::websocket());
    let gateway = with(&origin, "errors: [{statusCode: 404, body: page}]").await;
    let request = |path| {
        gateway
            .get(path)
            .header("Upgrade", "websocket")
            .header("Connection", "Upgrade")
            .header("Sec-WebSocket-Version", "13")
    };
    let reply = request("/no").header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==").await;
    assert_eq!((reply.status, reply.text().as_str()), (404, "page\n"));
    let _open = gateway.websocket("/ws").await;
}

#[tokio::test]
async fn a_changed_file_is_sent_without_a_reload() {
    let origin = Origin::start().await;
    origin.always(Answer::status(404));
    let gateway = Gateway::before(&origin)
        .file("404.html", "one")
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [pages]}")
        .middlewares("- {name: pages, type: errorInterceptor, rule: {enabled: true, errors: [{statusCode: 404, file: FOLDER/404.html}]}}")
        .await;
    assert_eq!(gateway.get("/").await.text(), "one");
    gateway.write("404.html", "another");
    eventually("the new page", async || (gateway.get("/").await.text() == "another").then_some(())).await;
    std::fs::remove_file(gateway.file("404.html")).expect("it was there");
    let told = async || {
        assert_eq!(gateway.get("/").await.text(), "another");
        gateway.log().contains("cannot be read, its last content is sent").then_some(())
    };
    eventually("the log says that the file is gone", told).await;
}

#[tokio::test]
async fn the_older_sections_count_where_no_middleware_does() {
    let origin = Origin::start().await;
    for status in [403, 404, 500] {
        origin.on(&format!("/{status}"), Answer::status(status).body("old"));
    }
    let of_gateway =
        "errorInterceptor: {enabled: true, errors: [{code: 404, body: gateway}, {code: 500, body: gateway}]}";
    let of_route = "errorInterceptor: {errors: [{code: 404, body: route}]}";
    let on = "errorInterceptor: {enabled: true, errors: [{code: 404, body: route}]}";
    for (about, gateway_keys, route_keys, bodies) in [
        (
            "the gateway's switches the route's on and counts behind it",
            of_gateway,
            of_route,
            ["old", "route\n", "gateway\n"],
        ),
        ("the gateway's alone", of_gateway, "", ["old", "gateway\n", "gateway\n"]),
        ("the route's alone", "", on, ["old", "route\n", "old"]),
        ("the route's is not on", "", of_route, ["old", "old", "old"]),
        (
            "a middleware replaces both",
            of_gateway,
            "middlewares: [pages], errorInterceptor: {enabled: true, errors: [{code: 404}]}",
            ["middleware\n", "old", "old"],
        ),
        ("a middleware that is off replaces both", of_gateway, "middlewares: [off]", ["old", "old", "old"]),
        (
            "of several middlewares the last one counts",
            "",
            "middlewares: [other, pages]",
            ["middleware\n", "old", "old"],
        ),
    ] {
        let gateway = Gateway::before(&origin)
            .gateway(gateway_keys)
            .routes(&format!("- {{name: r, path: /, target: ORIGIN, {route_keys}}}"))
            .middlewares(
                "- {name: pages, type: errorInterceptor, rule: {enabled: true, errors: [{code: 403, body: middleware}]}}
- {name: other, type: errorInterceptor, rule: {enabled: true, errors: [{code: 404, body: other}]}}
- {name: off, type: errorInterceptor, rule: {errors: [{code: 404}]}}",
            )
            .await;
        for (status, body) in [403, 404, 500].into_iter().zip(bodies) {
            let reply = gateway.get(&format!("/{status}")).await;
            assert_eq!((reply.status, reply.text().as_str()), (status, body), "{about}: {status}");
        }
    }
}
