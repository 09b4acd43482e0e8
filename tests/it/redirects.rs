//! `redirect`, `redirectScheme` and `redirectRegex`: where clients are sent, and where never.

use crate::world::*;

/// A gateway with one middleware `m` on all paths.
async fn with(origin: &Origin, middleware: &str) -> Gateway {
    Gateway::before(origin)
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [m]}")
        .middlewares(&format!("- {{name: m, {middleware}}}"))
        .await
}

#[tokio::test]
async fn a_redirect_says_where_to_in_a_form_for_each_method() {
    let origin = Origin::start().await;
    let gateway = with(&origin, "type: redirectScheme, rule: {scheme: https}").await;
    let location = format!("https://shop.test:{}/p?a=1&b='2'", gateway.port());
    let host = format!("shop.test:{}", gateway.port());
    for method in ["GET", "HEAD", "POST", "PUT", "OPTIONS"] {
        let reply = gateway.request(method, "/p?a=1&b='2'").host(&host).await;
        assert_eq!((reply.status, reply.header("Location")), (302, Some(location.as_str())), "{method}");
        assert_eq!(reply.header("Proxied-By"), Some("Goma Gateway"), "{method}");
        let page = format!("<a href=\"https://shop.test:{}/p?a=1&amp;b=&#39;2&#39;\">Found</a>.\n\n", gateway.port());
        let (content_type, body) = match method {
            "GET" => (Some("text/html; charset=utf-8"), page.as_str()),
            "HEAD" => (Some("text/html; charset=utf-8"), ""),
            _ => (None, ""),
        };
        assert_eq!((reply.header("Content-Type"), reply.text().as_str()), (content_type, body), "{method}");
    }
    assert!(origin.saw_nothing());
}

#[tokio::test]
async fn permanence_and_method_choose_the_status() {
    for (rule, status, reason) in [
        ("", 302, "Found"),
        (", permanent: true", 301, "Moved Permanently"),
        (", keepMethod: true", 307, "Temporary Redirect"),
        (", permanent: true, keepMethod: true", 308, "Permanent Redirect"),
    ] {
        let origin = Origin::start().await;
        let middlewares = format!(
            "- {{name: a, type: redirect, rule: {{url: /x{rule}}}}}
- {{name: b, type: redirectScheme, rule: {{scheme: https{rule}}}}}
- {{name: c, type: redirectRegex, rule: {{pattern: ^/, replacement: /x/{rule}}}}}"
        );
        let routes = "- {name: a, path: /a, target: ORIGIN, middlewares: [a]}
- {name: b, path: /b, target: ORIGIN, middlewares: [b]}
- {name: c, path: /c, target: ORIGIN, middlewares: [c]}";
        let gateway = Gateway::before(&origin).routes(routes).middlewares(&middlewares).await;
        for path in ["/a", "/b", "/c"] {
            let reply = gateway.get(path).await;
            assert_eq!((reply.status, reply.reason.as_str()), (status, reason), "{path}{rule}");
            assert!(reply.text().contains(&format!(">{reason}</a>.\n\n")), "{path}{rule}: {}", reply.text());
        }
    }
}

#[tokio::test]
async fn redirect_scheme_keeps_host_path_and_query_as_they_were_sent() {
    for (rule, host, target, location) in [
        ("scheme: https", "ex.com:8080", "/p", "https://ex.com:8080/p"),
        ("scheme: https", "ex.com", "/a%20b%2Fc%3Fd?x=%20&", "https://ex.com/a%20b%2Fc%3Fd?x=%20&"),
        ("scheme: https", "ex.com", "/p?", "https://ex.com/p"),
        ("scheme: https", "ex.com", "//evil.test/..a", "https://ex.com//evil.test/..a"),
        ("scheme: https, port: 8443", "ex.com:8080", "/p", "https://ex.com:8443/p"),
        ("scheme: https, port: 443", "ex.com:8080", "/p", "https://ex.com/p"),
        ("scheme: https, port: 80", "ex.com", "/p", "https://ex.com:80/p"),
        ("scheme: https, port: 8443", "[::1]:80", "/p", "https://[::1]:8443/p"),
        ("scheme: https, port: 443", "[::1]", "/p", "https://[::1]/p"),
        ("scheme: HTTPS", "ex.com", "/p", "https://ex.com/p"),
    ] {
        let origin = Origin::start().await;
        let gateway = with(&origin, &format!("type: redirectScheme, rule: {{{rule}}}")).await;
        let reply = gateway.get(target).host(host).await;
        assert_eq!((reply.status, reply.header("Location")), (302, Some(location)), "{rule}: {target} of {host}");
        assert!(origin.saw_nothing());
    }
}

#[tokio::test]
async fn only_a_trusted_proxy_says_that_the_client_came_over_tls() {
    let origin = Origin::start().await;
    let gateway = with(&origin, "type: redirectScheme, rule: {scheme: https}").await;
    let reply = gateway.get("/p").header("X-Forwarded-Proto", "https").header("X-Forwarded-Scheme", "https").await;
    assert_eq!(reply.status, 302, "anybody could say so");
    let trusting = Gateway::before(&origin)
        .gateway("proxy: {enabled: true, trustedProxies: [127.0.0.1]}")
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [m]}")
        .middlewares("- {name: m, type: redirectScheme, rule: {scheme: https}}")
        .await;
    for (proto, status) in [("https", 200), ("HTTPS", 200), ("http", 302)] {
        assert_eq!(trusting.get("/p").header("X-Forwarded-Proto", proto).await.status, status, "{proto}");
    }
}

#[tokio::test]
async fn what_comes_by_the_right_scheme_passes() {
    let origin = Origin::start().await;
    let gateway = with(&origin, "type: redirectScheme, rule: {scheme: http}").await;
    assert_eq!(gateway.get("/p").await.status, 200);
}

#[tokio::test]
async fn challenges_of_certificate_authorities_pass() {
    for middleware in [
        "type: redirectScheme, rule: {scheme: https}",
        "type: redirect, rule: {url: 'https://n.example'}",
        "type: redirectRegex, rule: {pattern: '^/(.*)', replacement: 'https://n.example/$1'}",
    ] {
        let origin = Origin::start().await;
        let gateway = with(&origin, middleware).await;
        assert_eq!(gateway.get("/.well-known/acme-challenge/x").await.status, 200, "{middleware}");
        assert_eq!(origin.last().target, "/.well-known/acme-challenge/x");
        assert_eq!(gateway.get("/.well-known/other").await.status, 302, "{middleware}");
    }
}

#[tokio::test]
async fn a_fixed_target_is_sent_as_it_is_and_a_relative_one_resolved() {
    for (url, asked, location) in [
        ("https://n.example", "/p?x=1", "https://n.example"),
        ("https://n.example/a b'", "/p", ""),
        ("https://n.example/é?q#f", "/p?x=1", "https://n.example/%c3%a9?q#f"),
        ("//n.example/x", "/p", "//n.example/x"),
        ("new/place", "/a/b?x=1", "/a/new/place?x=1"),
        ("new/place?y=2", "/a/b?x=1", "/a/new/place?y=2"),
        ("/new/", "/a/b?x=1", "/new/?x=1"),
        ("/new#top", "/a?x=1", "/new?x=1#top"),
        ("../up", "/a/b/c", "/a/up"),
        ("/a//b/./c/../d", "/", "/a/b/d"),
        ("new", "//evil.test/x", "/evil.test/new"),
        ("new", "/%5Cevil.test/x", "/%5Cevil.test/new"),
        ("new", "/a%2Fb/c", "/a%2Fb/new"),
    ] {
        let origin = Origin::start().await;
        let builder = Gateway::before(&origin)
            .routes("- {name: r, path: /, target: ORIGIN, middlewares: [m]}")
            .middlewares(&format!("- {{name: m, type: redirect, rule: {{url: \"{url}\"}}}}"));
        if location.is_empty() {
            let end = builder.start_fails().await;
            assert!(end.code == Some(1) && end.all().contains("white space"), "{url}: {}", end.all());
            continue;
        }
        let reply = builder.await.get(asked).await;
        assert_eq!((reply.status, reply.header("Location")), (302, Some(location)), "{url} for {asked}");
        assert!(origin.saw_nothing());
    }
}

#[tokio::test]
async fn an_expression_redirects_what_it_matches_and_nothing_else() {
    for (pattern, replacement, asked, location) in [
        ("^/old/(.*)$", "https://n.example/$1", "/old/a?x=1", Some("https://n.example/a?x=1")),
        ("^/old/(.*)$", "https://n.example/$1", "/other", None),
        ("^/old/([^?]*).*$", "/new/$1", "/old/a?x=1", Some("/new/a")),
        ("^/old", "new", "/old/a", Some("/old/new/a")),
        ("[?]id=([0-9]+)$", "/$1", "/item?id=7", Some("/item/7")),
        ("^/a b$", "/c", "/a%20b", Some("/c")),
        ("^/old/(.*)$", "/new/$1", "/old/a%20b%2Fc%C3%A9", Some("/new/a%20b%2Fc%C3%A9")),
        ("^/old/(.*)$", "https://n.example/$1", "/old//x", Some("https://n.example//x")),
    ] {
        let origin = Origin::start().await;
        let rule = format!("{{pattern: '{pattern}', replacement: '{replacement}'}}");
        let gateway = with(&origin, &format!("type: redirectRegex, rule: {rule}")).await;
        let reply = gateway.get(asked).await;
        assert_eq!(reply.header("Location"), location, "{rule}: {asked}");
        assert_eq!(reply.status, if location.is_some() { 302 } else { 200 }, "{rule}: {asked}");
        assert_eq!(origin.saw_nothing(), location.is_some(), "{rule}: {asked}");
    }
}

#[tokio::test]
async fn no_client_chooses_the_host_that_a_redirect_leads_to() {
    for (pattern, replacement, asked, expected) in [
        ("^/go/(.*)$", "/$1", "/go//evil.test", Ok("/evil.test")),
        ("^/go/(.*)$", "/$1", "/go/%2Fevil.test", Ok("/%2Fevil.test")),
        ("^/go/(.*)$", "/$1", "/go/\\evil.test", Ok("/%5Cevil.test")),
        ("^/go/(.*)$", "$1", "/go//evil.test", Ok("/evil.test")),
        ("^/go/(.*)$", "$1", "/go/https://evil.test", Err(400)),
        ("^/go/(.*)$", "$1", "/go/javascript:alert(1)", Err(400)),
        ("^/go", "https://n.example", "/go.evil.test/", Err(400)),
        ("^/go", "https://n.example", "/go@evil.test/", Err(400)),
        ("^/go", "https://n.example", "/go:1@evil.test/", Err(400)),
        ("^/go", "https://n.example", "/go/x", Ok("https://n.example/x")),
        ("^/go/(.*)$", "https://$1.n.example/", "/go/evil.test/", Err(400)),
        ("^/go/(.*)$", "https://$1.n.example/", "/go/shop", Ok("https://shop.n.example/")),
        // Spelled out, so it is meant.
        ("^/go/(https://ok[.]test/.*)$", "$1", "/go/https://ok.test/x", Ok("https://ok.test/x")),
    ] {
        let origin = Origin::start().await;
        let rule = format!("{{pattern: '{pattern}', replacement: '{replacement}'}}");
        let gateway = with(&origin, &format!("type: redirectRegex, rule: {rule}")).await;
        let reply = gateway.get(asked).await;
        match expected {
            Ok(location) => {
                assert_eq!((reply.status, reply.header("Location")), (302, Some(location)), "{rule}: {asked}")
            }
            Err(status) => assert_eq!((reply.status, reply.header("Location")), (status, None), "{rule}: {asked}"),
        }
        assert!(origin.saw_nothing(), "{rule}: {asked}");
    }
}

#[tokio::test]
async fn a_redirect_is_dressed_like_any_reply_and_told_like_any_end() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin)
        .gateway("log: {format: json}")
        .env("GOMA_LOG_LEVEL", "info")
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [m, dress, after]}")
        .middlewares(
            "- {name: m, type: redirect, rule: {url: 'https://n.example', permanent: true}}
- {name: dress, type: responseHeaders, rule: {cacheControl: no-store}}
- {name: after, type: access, paths: [/]}",
        )
        .await;
    let reply = gateway.post("/p").body("a body that nobody reads").await;
    assert_eq!((reply.status, reply.header("Cache-Control")), (301, Some("no-store")));
    assert!(gateway.get("/p").await.keeps_alive());
    let line = gateway.logs("answered:redirect").await;
    assert!(line.contains("301"), "{line}");
    let file = gateway.file("goma.yml").display().to_string();
    let output = goma(&["config", "explain", "-c", &file, "GET", "/p", "--json"]).await;
    let said: serde_json::Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!((said["outcome"].as_str(), said["status"].as_u64()), (Some("answered:redirect"), Some(301)), "{said:#}");
    assert_eq!(said["location"], "https://n.example", "{said:#}");
    assert_eq!(said["middlewares"][0]["status"], 301, "{said:#}");
    assert_eq!(said["middlewares"][2]["verdict"], "not_reached", "{said:#}");
}

#[tokio::test]
async fn http2_requests_and_upgrades_are_redirected_too() {
    let origin = Origin::start().await;
    let gateway = with(&origin, "type: redirectScheme, rule: {scheme: https, port: 443}").await;
    let reply = gateway.h2().await.host("shop.test:80").get("/p?x=1").await;
    assert_eq!((reply.status, reply.header("location")), (302, Some("https://shop.test/p?x=1")));
    assert_eq!(reply.text(), "<a href=\"https://shop.test/p?x=1\">Found</a>.\n\n");
    let refused = WebSocket::open(gateway.get("/socket"), "websocket").await.expect_err("no upgrade");
    assert_eq!((refused.status, refused.header("Location")), (302, Some("https://gateway.test/socket")));
    let old = gateway.raw(b"GET /p HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.1 400 "), "no host to redirect to: {old}");
    assert!(origin.saw_nothing());
}
