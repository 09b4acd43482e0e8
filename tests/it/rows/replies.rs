//! Rows 117 to 137: response headers, cookies, sharing across origins, pages in place of errors.

use super::{JSON, PLAIN, Row, play};
use crate::world::*;

const HTML: &str = "text/html; charset=utf-8";

#[tokio::test]
async fn headers_and_cookies() {
    let cookie = "type: responseHeaders, rule: {setCookies: [{name: a, value: b, attributes: {path: /x, domain: a.example, maxAge: 60, secure: true, httpOnly: true, sameSite: strict}}]}";
    play([
        Row::new("118", "type: responseHeaders, rule: {setHeaders: {X-R: '{route.name}', X-P: '{route.path}', X-N: '{none}'}}")
            .ask("GET /")
            .field("X-R", &["r"])
            .field("X-P", &["/"])
            .field("X-N", &["{none}"])
            .ask("GET /")
            .backend(Answer::status(404))
            .gets(404)
            .field("X-R", &[])
            .ask("GET /")
            .backend(Answer::status(204))
            .gets(204)
            .field("X-R", &[])
            .ask("HEAD /")
            .field("X-R", &["r"]),
        Row::new("119", "type: responseHeaders, rule: {setHeaders: {Cache-Control: no-store, Server: mine, X-Gone: ''}}")
            .ask("GET /")
            .backend(Answer::status(404).header("Cache-Control", "public").header("X-Gone", "1").header("x-gone", "2"))
            .gets(404)
            .field("Cache-Control", &["no-store"])
            .field("X-Gone", &[])
            .ask("GET /")
            .backend(Answer::ok("x").header("Server", "theirs"))
            .field("Server", &[]),
        Row::new("statuses", "type: responseHeaders, rule: {setHeaders: {X-A: b}, statuses: [404, 201]}")
            .ask("GET /")
            .field("X-A", &[])
            .ask("GET /")
            .backend(Answer::status(404))
            .gets(404)
            .field("X-A", &["b"]),
        Row::new("121", "type: responseHeaders, rule: {setCookies: [{name: a, value: ''}, {name: b, value: x, attrs: {maxAge: -1, path: /p}}]}")
            .ask("GET /")
            .backend(Answer::status(302).header("Set-Cookie", "theirs=1"))
            .gets(302)
            .field(
                "Set-Cookie",
                &[
                    "theirs=1",
                    "a=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; SameSite=Lax",
                    "b=; Path=/p; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; SameSite=Lax",
                ],
            ),
        Row::new("a longer first path wins", "type: responseHeaders, paths: ['/a/b/*'], rule: {setHeaders: {X-A: long}}")
            .and("type: responseHeaders, rule: {setHeaders: {X-A: none, X-B: none}}")
            .and("type: responseHeaders, paths: [/a], rule: {setHeaders: {X-A: short}}")
            .ask("GET /a/b/c")
            .field("X-A", &["long"])
            .field("X-B", &["none"])
            .ask("GET /a/c")
            .field("X-A", &["short"])
            .ask("GET /c")
            .field("X-A", &["none"]),
        Row::new("paths as asked and as sent", "type: responseHeaders, paths: ['^/api/v1'], rule: {setHeaders: {X-A: asked}}")
            .and("type: responseHeaders, paths: ['^/v1'], rule: {setHeaders: {X-B: sent}}")
            .route("path: /api, rewrite: /")
            .ask("GET /api/v1")
            .field("X-A", &["asked"])
            .field("X-B", &["sent"]),
    ])
    .await;
    // Row 120: the documented key counts.
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin)
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [m]}")
        .middlewares(&format!("- {{name: m, {cookie}}}"))
        .await;
    let reply = gateway.get("/").await;
    let cookie = reply.header("Set-Cookie").unwrap_or_default();
    for part in
        ["a=b; ", "Path=/x; ", "Domain=a.example; ", "Max-Age=60; ", "HttpOnly; ", "Secure; ", "SameSite=Strict"]
    {
        assert!(cookie.contains(part), "{part}: {cookie}");
    }
}

#[tokio::test]
async fn sharing_across_origins() {
    let subdomains = "type: responseHeaders, rule: {cors: {enabled: true, origins: ['https://*.b.example']}}";
    let plain =
        "type: responseHeaders, rule: {cors: {enabled: true, origins: ['https://a.example'], allowMethods: [GET]}}";
    let from = "https://a.example";
    play([
        Row::new("122", subdomains)
            .ask("GET /")
            .with("Origin", "https://z.b.example")
            .field("Access-Control-Allow-Origin", &["https://z.b.example"])
            .ask("GET /")
            .with("Origin", "https://b.example")
            .field("Access-Control-Allow-Origin", &[])
            .ask("GET /")
            .with("Origin", "null")
            .field("Access-Control-Allow-Origin", &[])
            .ask("GET /")
            .with("Origin", "")
            .field("Access-Control-Allow-Origin", &[]),
        // Row 123, corrected: before authentication.
        Row::new("123", plain)
            .and("type: basicAuth, paths: ['/*'], rule: {users: [{username: ann, password: pw}]}")
            .ask("OPTIONS /")
            .with("Origin", from)
            .with("Access-Control-Request-Method", "GET")
            .refused(204)
            .text("")
            .field("Access-Control-Allow-Origin", &[from])
            .ask("OPTIONS /")
            .with("Origin", from)
            .refused(204)
            .ask("OPTIONS /")
            .with("Origin", "https://evil.example")
            .with("Access-Control-Request-Method", "GET")
            .refused(401)
            .field("Access-Control-Allow-Origin", &[])
            .ask("GET /")
            .with("Origin", from)
            .refused(401)
            .field("Access-Control-Allow-Origin", &[from]),
        Row::new("124", plain)
            .route("path: /, methods: [GET]")
            .ask("OPTIONS /")
            .with("Origin", from)
            .refused(204)
            .ask("PUT /")
            .with("Origin", from)
            .refused(405)
            .text("405 PUT method not allowed\n")
            .field("Allow", &["GET"])
            .field("Access-Control-Allow-Origin", &[from]),
        Row::bare("126")
            .route("path: /, methods: [GET], cors: {origins: ['https://a.example']}")
            .ask("OPTIONS /")
            .with("Origin", from)
            .refused(204)
            .text("")
            .field("Access-Control-Allow-Origin", &[from])
            .field("Access-Control-Allow-Methods", &["GET"])
            .ask("OPTIONS /")
            .refused(405),
        Row::bare("127")
            .route("path: /, cors: {origins: ['*'], allowCredentials: true}")
            .ask("OPTIONS /")
            .with("Origin", "https://evil.example")
            .refused(204)
            .field("Access-Control-Allow-Credentials", &[])
            .ask("GET /")
            .with("Origin", "null")
            .field("Access-Control-Allow-Credentials", &[]),
        Row::bare("128")
            .route("path: /, cors: {origins: ['https://a.example'], exposeHeaders: [X-A]}")
            .ask("GET /")
            .with("Origin", from)
            .backend(Answer::ok("x").header("Access-Control-Allow-Origin", "*").header("Vary", "Accept, origin"))
            .field("Access-Control-Allow-Origin", &[from])
            .field("Access-Control-Expose-Headers", &["X-A"])
            .field("Vary", &["Accept, origin"]),
        Row::bare("129")
            .route("path: /, cors: {origins: ['https://a.example'], headers: {X-G: '1', X-Gone: ''}}")
            .ask("GET /")
            .backend(Answer::ok("x").header("X-Gone", "1"))
            .field("X-G", &["1"])
            .field("X-Gone", &[])
            .ask("GET /")
            .with("Origin", "https://evil.example")
            .field("X-G", &["1"])
            .field("Access-Control-Allow-Origin", &[]),
        Row::new("a credential is for listed origins only", "type: responseHeaders, rule: {cors: {enabled: true, origins: ['https://*.b.example'], allowCredentials: true}}")
            .ask("GET /")
            .with("Origin", "https://x.b.example:8443")
            .field("Access-Control-Allow-Credentials", &["true"])
            .field("Access-Control-Allow-Origin", &["https://x.b.example:8443"])
            .ask("GET /")
            .with("Origin", "https://b.example")
            .field("Access-Control-Allow-Credentials", &[]),
    ])
    .await;
}

#[tokio::test]
async fn pages() {
    let found = |kind: &str| Answer::status(404).body("theirs").header("Content-Type", kind);
    let verbatim = "type: errorInterceptor, rule: {enabled: true, errors: [{code: 403, body: '{\"error\":\"no\"}'}]}";
    play([
        Row::new("130", "type: errorInterceptor, rule: {enabled: true, errors: [{statusCode: 404}]}")
            .ask("GET /")
            .backend(found("text/html"))
            .gets(404)
            .text("404 Not Found\n")
            .field("Content-Type", &[PLAIN])
            .ask("GET /")
            .with("Accept", JSON)
            .backend(found("text/html"))
            .gets(404)
            .text("{\"success\":false,\"statusCode\":404,\"error\":\"404 Not Found\"}\n")
            // Row 135.
            .ask("GET /")
            .backend(found("text/html").header("Content-Disposition", "attachment; filename=x"))
            .gets(404)
            .text("theirs")
            // Row 136.
            .ask("GET /")
            .backend(found("application/octet-stream"))
            .gets(404)
            .text("theirs")
            .ask("GET /")
            .backend(found("application/problem+json"))
            .gets(404)
            .text("404 Not Found\n")
            .ask("HEAD /")
            .backend(found("text/html"))
            .gets(404)
            .text("")
            .ask("GET /")
            .backend(Answer::ok("theirs"))
            .text("theirs")
            // Row 137, corrected.
            .ask("GET /")
            .with("Accept-Encoding", "gzip")
            .backend(Answer::gzip("theirs").with_status(404).header("Content-Type", "text/html"))
            .gets(404)
            .text("404 Not Found\n")
            .field("Content-Encoding", &[]),
        Row::new("131", verbatim)
            .and("type: access, paths: [/secret]")
            .ask("GET /secret")
            .with("Accept", JSON)
            .refused(403)
            .text("{\"error\":\"no\"}")
            .field("Content-Type", &[JSON]),
        Row::new("133", "type: errorInterceptor, rule: {enabled: true, contentType: text/html, errors: [{statusCode: 404, body: <b>x</b>}]}")
            .ask("GET /")
            .backend(found("text/plain"))
            .gets(404)
            .text("<b>x</b>")
            .field("Content-Type", &[HTML]),
        Row::new("134", "type: errorInterceptor, rule: {enabled: true, contentType: application/json, errors: [{statusCode: 404, body: <b>}]}")
            .ask("GET /")
            .backend(found("text/plain"))
            .gets(404)
            .text("{\"success\":false,\"statusCode\":404,\"error\":\"\\u003cb\\u003e\"}\n"),
        // Row 138: any status, and the gateway's own.
        Row::new("138", "type: errorInterceptor, rule: {enabled: true, errors: [{status: 200, body: always}, {statusCode: 405, body: no}]}")
            .route("path: /, methods: [GET]")
            .ask("GET /")
            .text("always\n")
            .ask("PUT /")
            .refused(405)
            .text("no\n")
            .field("Allow", &["GET"]),
        Row::new("switched off", "type: errorInterceptor, rule: {errors: [{statusCode: 404, body: page}]}")
            .ask("GET /")
            .backend(found("text/html"))
            .gets(404)
            .text("theirs"),
        Row::new("the last of several", "type: errorInterceptor, rule: {enabled: true, errors: [{statusCode: 404, body: a}]}")
            .and("type: errorInterceptor, rule: {enabled: true, errors: [{statusCode: 500, body: b}]}")
            .ask("GET /")
            .backend(found("text/html"))
            .gets(404)
            .text("theirs"),
    ])
    .await;
}
