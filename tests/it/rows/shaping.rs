//! Rows 101 to 116: prefixes, rewrites, parameters, redirects, request headers.

use super::{PLAIN, Row, play};

const HTML: &str = "text/html; charset=utf-8";

#[tokio::test]
async fn paths_and_queries() {
    let by_tenant = "type: rewriteRegex, rule: {pattern: '^/in/(.*)$', replacement: '/t/{{goma.headers.X-Tenant}}/$1'}";
    let strip = "type: stripQuery, rule: {params: [x, y], methods: [POST]}";
    play([
        Row::new("101", "type: addPrefix, rule: {prefix: /prefix}")
            .ask("GET /api/x?b=2&a=1")
            .up("/prefix/api/x?b=2&a=1")
            .ask("GET /")
            .up("/prefix/")
            .ask("GET /a%2Fb/?")
            .up("/prefix/a%2Fb/?"),
        Row::new("101", "type: addPrefix, rule: {prefix: /prefix/}")
            .ask("GET /api/x?b=2&a=1")
            .up("/prefix/api/x?b=2&a=1"),
        Row::new("before the route's own rewrite", "type: addPrefix, rule: {prefix: /v1}")
            .route("path: /api, rewrite: /")
            .ask("GET /api/x")
            .up("/v1/api/x"),
        Row::new("102", by_tenant)
            .ask("GET /in/a?q=1")
            .with("X-Tenant", "../a")
            .refused(400)
            .ask("GET /in/a?q=1")
            .with("X-Tenant", "a/b c")
            .up("/t/a%2Fb%20c/a?q=1")
            .ask("GET /in/a")
            .up("/t//a")
            // Row 103.
            .ask("GET /in/{{goma.headers.X-Tenant}}")
            .with("X-Tenant", "acme")
            .up("/t/acme/{{goma.headers.X-Tenant}}")
            .ask("GET /other")
            .up("/other"),
        Row::new(
            "groups as in Go",
            "type: rewriteRegex, rule: {pattern: '/(?P<a>\\w+)/(\\w+)', replacement: '/$2-${a}$$$3x'}",
        )
        .ask("GET /one/two?x=$1")
        .up("/two-one$?x=$1"),
        Row::new("105", "type: stripQuery, rule: {params: [x]}")
            .ask("GET /?b=2&x=1&a=%20&flag")
            .up("/?a=+&b=2&flag=")
            .ask("GET /?b=2&a=%20&flag")
            .up("/?b=2&a=%20&flag")
            .ask("GET /?x&x=1&x=")
            .up("/")
            .ask("GET /")
            .up("/")
            .ask("GET /?X=1")
            .up("/?X=1")
            .ask("GET /?%78=1&a=1")
            .up("/?a=1"),
        Row::new("106", strip).ask("PATCH /?x=1").up("/?x=1").ask("POST /?x=1&z=1").up("/?z=1"),
    ])
    .await;
}

#[tokio::test]
async fn redirects() {
    let scheme = "type: redirectScheme, rule: {scheme: https}";
    let port = "type: redirectScheme, rule: {scheme: https, port: 8443, permanent: true}";
    play([
        Row::new("107", scheme)
            .ask("GET /p")
            .host("ex.test:8080")
            .refused(302)
            .field("Location", &["https://ex.test:8080/p"])
            .field("Content-Type", &[HTML])
            .text("<a href=\"https://ex.test:8080/p\">Found</a>.\n\n")
            .ask("POST /p")
            .host("ex.test:8080")
            .refused(302)
            .field("Location", &["https://ex.test:8080/p"])
            .field("Content-Type", &[])
            .text("")
            .ask("HEAD /p")
            .refused(302)
            .field("Content-Type", &[HTML])
            .text("")
            // Row 108, corrected: nobody believes a client about its scheme.
            .ask("GET /p")
            .with("X-Forwarded-Proto", "https")
            .with("X-Forwarded-Scheme", "https")
            .refused(302)
            // Row 109.
            .ask("GET /.well-known/acme-challenge/x")
            .up("/.well-known/acme-challenge/x")
            .ask("GET /a%20b/%2F?q=a%20b&c=<d>")
            .host("ex.test")
            .refused(302)
            .field("Location", &["https://ex.test/a%20b/%2F?q=a%20b&c=%3Cd%3E"]),
        Row::new("108, from a trusted proxy", scheme)
            .gateway("proxy: {enabled: true, trustedProxies: [127.0.0.0/8]}")
            .ask("GET /p")
            .with("X-Forwarded-Proto", "https")
            .up("/p")
            .saw("X-Forwarded-Proto", &["https"]),
        Row::new("110", port)
            .ask("GET /p")
            .host("ex.com:8080")
            .refused(301)
            .field("Location", &["https://ex.com:8443/p"])
            .ask("GET /p")
            .host("[::1]:8080")
            .refused(301)
            .field("Location", &["https://[::1]:8443/p"]),
        Row::new("111", "type: redirectScheme, rule: {scheme: https, port: 443}")
            .ask("GET /?")
            .host("ex.com:8080")
            .refused(302)
            .field("Location", &["https://ex.com/"]),
        Row::new("112", "type: redirect, rule: {url: 'https://n.example'}")
            .ask("GET /p?x=1")
            .refused(302)
            .field("Location", &["https://n.example"])
            .ask("GET /.well-known/acme-challenge/x")
            .gets(200),
        Row::new("113", "type: redirect, rule: {url: new/place}")
            .ask("GET /a/b?x=1")
            .refused(302)
            .field("Location", &["/a/new/place?x=1"])
            .ask("GET //evil.test/b?x=1")
            .refused(302)
            .field("Location", &["/evil.test/new/place?x=1"]),
        Row::new("a query of its own", "type: redirect, rule: {url: '/new?y=2', permanent: true}")
            .ask("GET /a?x=1")
            .refused(301)
            .field("Location", &["/new?y=2"]),
        Row::new(
            "114",
            "type: redirectRegex, rule: {pattern: '^/old/(.*)\\?id=(\\d+)$', replacement: 'https://n.example/$1/$2'}",
        )
        .ask("GET /old/a?id=7")
        .refused(302)
        .field("Location", &["https://n.example/a/7"])
        .ask("GET /old/a?id=x")
        .up("/old/a?id=x"),
    ])
    .await;
}

#[tokio::test]
async fn request_headers() {
    let rule = "type: requestHeaders, rule: {setHeaders: {X-Forwarded-Proto: HTTPS, X-User-Id: '5'}, removeHeaders: [authorization]}";
    play([
        Row::new("116", rule)
            .ask("GET /")
            .with("Authorization", "Bearer x")
            .with("X-User-Id", "1")
            .with("x-user-id", "2")
            .with("X-Forwarded-For", "192.0.2.1")
            .with("X-Forwarded-Proto", "ftp")
            .saw("X-Forwarded-Proto", &["https"])
            .saw("X-User-Id", &["5"])
            .saw("Authorization", &[])
            .saw("X-Forwarded-For", &["127.0.0.1, 127.0.0.1"]),
        Row::new("an empty value removes", "type: requestHeaders, rule: {setHeaders: {X-A: '', Cookie: ''}}")
            .ask("GET /")
            .with("X-A", "1")
            .with("Cookie", "a=1")
            .with("x-a", "2")
            .saw("X-A", &[])
            .saw("Cookie", &[]),
        Row::new("the list order is the order", "type: requestHeaders, rule: {setHeaders: {X-A: one}}")
            .and("type: requestHeaders, rule: {setHeaders: {X-A: two}}")
            .and("type: requestHeaders, paths: ['^/no$'], rule: {setHeaders: {X-A: three}}")
            .ask("GET /")
            .saw("X-A", &["two"])
            .ask("GET /no")
            .saw("X-A", &["three"]),
        Row::new("a later guard is asked before a later header", "type: access, paths: [/no]")
            .and("type: requestHeaders, rule: {setHeaders: {X-A: one}}")
            .ask("GET /no")
            .refused(403)
            .field("Content-Type", &[PLAIN]),
    ])
    .await;
}
