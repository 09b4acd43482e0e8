//! The first three kinds: `access` as a guard, `addPrefix` as a step, `responseHeaders` as the shell of a route.

use crate::world::*;

/// A gateway with one middleware `m` on a route of this path.
async fn with(origin: &Origin, path: &str, middleware: &str) -> Gateway {
    Gateway::before(origin)
        .routes(&format!("- {{name: r, path: {path}, target: ORIGIN, middlewares: [m]}}"))
        .middlewares(&format!("- {{name: m, {middleware}}}"))
        .await
}

/// Paths that are refused, and paths that reach the backend.
struct Guard(&'static str, &'static str, &'static [&'static str], &'static [&'static str]);

#[tokio::test]
async fn access_refuses_what_its_paths_name() {
    let rows = [
        Guard("/", "[/admin]", &["/admin", "/admin/x", "/administrator", "/v1/admin", "/ADMIN"], &["/", "/other"]),
        Guard("/", "['/admin/*']", &["/admin", "/admin/x", "/administrator"], &["/other"]),
        Guard("/", "[/Admin]", &["/admin", "/ADMIN"], &["/admin/x"]),
        Guard("/", "['/*']", &["/", "/any", "/any/other"], &[]),
        Guard("/", "[/]", &["/", "/any"], &[]),
        Guard("/", "['^/x$']", &["/x"], &["/x.php", "/v/x"]),
        Guard("/", "['/docs/.*']", &["/docs/", "/docs/a", "/v2/docs/a"], &["/docs"]),
        Guard("/api", "[/admin]", &["/api/admin", "/api/x/admin/y", "/api/ADMIN"], &["/api/ADMIN/x", "/api"]),
        // However the path is written: whatever a backend may read as the guarded path is guarded.
        Guard("/", "[/admin]", &["/%61dmin", "/%2Fadmin", "//admin", "/x%2fadmin", "/a//admin"], &["/other"]),
        Guard("/", "['^/admin$']", &["/admin", "//admin", "/%61dmin"], &["/x/admin"]),
    ];
    for Guard(route, paths, refused, passed) in rows {
        let origin = Origin::start().await;
        let gateway = with(&origin, route, &format!("type: access, paths: {paths}")).await;
        for path in refused {
            let reply = gateway.get(path).await;
            assert_eq!((reply.status, reply.text().as_str()), (403, "403 Forbidden\n"), "{paths}: {path}");
            assert!(origin.saw_nothing(), "{paths}: {path} reached the backend");
        }
        for path in passed {
            assert_eq!(gateway.get(path).await.status, 200, "{paths}: {path}");
        }
    }
}

#[tokio::test]
async fn access_without_paths_refuses_nothing() {
    let origin = Origin::start().await;
    let gateway = with(&origin, "/", "type: access").await;
    assert_eq!(gateway.get("/any").await.status, 200);
}

#[tokio::test]
async fn access_without_paths_is_warned_of() {
    let origin = Origin::start().await;
    let gateway = with(&origin, "/", "type: access").await;
    let file = gateway.file("goma.yml").display().to_string();
    let output = goma(&["config", "check", "-c", &file]).await;
    assert!(output.stdout.contains("middlewares[0].paths: are missing: nothing is blocked"), "{}", output.all());
}

#[tokio::test]
async fn paths_of_a_kind_that_is_for_every_request_are_warned_of() {
    let origin = Origin::start().await;
    for (kind, warned) in [
        ("bodyLimit, rule: {limit: 1K}", true),
        ("redirectScheme, rule: {scheme: http}", true),
        ("requestHeaders, rule: {removeHeaders: [a]}", false),
    ] {
        let gateway = with(&origin, "/", &format!("paths: [/only], type: {kind}")).await;
        let file = gateway.file("goma.yml").display().to_string();
        let output = goma(&["config", "check", "-c", &file]).await.all();
        assert_eq!(output.contains("middlewares[0].paths: do not count"), warned, "{kind}: {output}");
    }
}

#[tokio::test]
async fn a_refusal_of_access_has_its_status_and_the_form_that_was_asked_for() {
    let origin = Origin::start().await;
    let gateway = with(&origin, "/", "type: access, paths: [/secret], rule: {statusCode: 404}").await;
    let reply = gateway.get("/secret").accept("application/json").await;
    let body = "{\"success\":false,\"statusCode\":404,\"error\":\"404 Not Found\"}\n";
    assert_eq!((reply.status, reply.text().as_str()), (404, body));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let reply = gateway.get("/secret").accept("application/json, text/plain, */*").await;
    assert_eq!((reply.status, reply.header("content-type")), (404, Some("text/plain; charset=utf-8")));
    assert_eq!(reply.text(), "404 Not Found\n");
    assert_eq!(reply.header("Proxied-By"), Some("Goma Gateway"));
}

#[tokio::test]
async fn defaults_of_the_gateway_come_first_unless_the_route_names_them() {
    let middlewares = "- {name: d, type: access, paths: [/p], rule: {statusCode: 418}}
- {name: x, type: access, paths: [/p], rule: {statusCode: 410}}";
    for (listed, status) in [("x", 418), ("x, d", 410), ("", 418)] {
        let gateway = Gateway::builder()
            .gateway("defaults: {middlewares: [d]}")
            .routes(&format!("- {{name: r, path: /, target: 'http://127.0.0.1:1', middlewares: [{listed}]}}"))
            .middlewares(middlewares)
            .await;
        assert_eq!(gateway.get("/p").await.status, status, "[{listed}]");
    }
}

#[tokio::test]
async fn a_prefix_is_added_before_the_path_of_the_request() {
    for (prefix, request, expected) in [
        ("/prefix", "/api/x?b=2&a=1", "/prefix/api/x?b=2&a=1"),
        ("/prefix/", "/api/x?b=2&a=1", "/prefix/api/x?b=2&a=1"),
        ("prefix", "/x", "/prefix/x"),
        ("/v1", "/", "/v1/"),
        ("/v1", "/a%2Fb", "/v1/a%2Fb"),
        ("''", "/x", "/x"),
    ] {
        let origin = Origin::start().await;
        let gateway = with(&origin, "/", &format!("type: addPrefix, rule: {{prefix: {prefix}}}")).await;
        gateway.get(request).await;
        assert_eq!(origin.last().target, expected, "{prefix} and {request}");
    }
}

#[tokio::test]
async fn a_guard_sees_the_path_as_the_chain_has_it() {
    let middlewares = "- {name: prefix, type: addPrefix, rule: {prefix: /v1}}
- {name: guard, type: access, paths: ['^/v1/']}";
    for (order, status) in [("prefix, guard", 403), ("guard, prefix", 200)] {
        let origin = Origin::start().await;
        let routes = format!("- {{name: r, path: /, target: ORIGIN, middlewares: [{order}]}}");
        let gateway = Gateway::before(&origin).routes(&routes).middlewares(middlewares).await;
        assert_eq!(gateway.get("/x").await.status, status, "{order}");
    }
}

#[tokio::test]
async fn response_headers_are_set_on_success_and_cache_control_always() {
    let origin = Origin::start().await;
    origin.on("/none", Answer::status(404).header("X-Tech", "php"));
    origin.on("/made", Answer::status(201).header("X-Tech", "php"));
    origin.always(Answer::ok("x").header("X-R", "backend").header("X-Tech", "php"));
    let rule = "{X-R: '{route.name} {route.path}', X-Tech: '', Cache-Control: no-store}";
    let gateway = with(&origin, "/", &format!("type: responseHeaders, rule: {{setHeaders: {rule}}}")).await;
    for (path, x_r) in [("/", Some("r /")), ("/none", None), ("/made", None)] {
        let reply = gateway.get(path).await;
        assert_eq!(reply.headers.all("X-R"), Vec::from_iter(x_r), "{path}");
        assert_eq!((reply.header("X-Tech"), reply.header("Cache-Control")), (None, Some("no-store")), "{path}");
    }
}

#[tokio::test]
async fn cookies_and_cache_control_of_a_route_reach_every_status() {
    let origin = Origin::start().await;
    origin.on("/none", Answer::status(404).header("Cache-Control", "public"));
    let rule = "setCookies: [{name: a, value: b, attrs: {path: /x, secure: true, httpOnly: true, sameSite: strict}}, {name: old, value: ''}]";
    let gateway = with(&origin, "/", &format!("type: responseHeaders, rule: {{{rule}}}")).await;
    for path in ["/", "/none"] {
        let reply = gateway.get(path).await;
        let cookies = reply.headers.all("Set-Cookie");
        assert_eq!(cookies.len(), 2, "{path}: {cookies:?}");
        for part in ["a=b", "Path=/x", "Secure", "HttpOnly", "SameSite=Strict"] {
            assert!(cookies[0].contains(part), "{path}: {part} in {}", cookies[0]);
        }
        assert!(cookies[1].contains("Expires=Thu, 01 Jan 1970") && cookies[1].contains("Max-Age=0"), "{}", cookies[1]);
    }
    let rule = "cacheControl: 'max-age=60', cacheStatuses: [200]";
    let gateway = with(&origin, "/", &format!("type: responseHeaders, rule: {{{rule}}}")).await;
    assert_eq!(gateway.get("/").await.headers.all("Cache-Control"), ["max-age=60"]);
    assert_eq!(gateway.get("/none").await.headers.all("Cache-Control"), ["public"]);
}

#[tokio::test]
async fn the_shell_of_a_route_covers_the_gateways_own_replies() {
    let gateway = Gateway::builder()
        .routes("- {name: r, path: /, target: 'http://127.0.0.1:1', middlewares: [no, shell]}")
        .middlewares("- {name: no, type: access, paths: [/no]}\n- {name: shell, type: responseHeaders, rule: {cacheControl: no-store}}")
        .await;
    for (path, status) in [("/no", 403), ("/dead", 502)] {
        let reply = gateway.get(path).await;
        assert_eq!((reply.status, reply.header("Cache-Control")), (status, Some("no-store")), "{path}");
    }
}

#[tokio::test]
async fn a_middleware_that_would_not_work_refuses_to_start() {
    let rows = [
        ("undefined", "", "m"),
        ("an unknown kind", "- {name: m, type: acces, paths: [/a]}", "acces"),
        ("a kind in another case", "- {name: m, type: Access, paths: [/a]}", "Access"),
        ("two of one name", "- {name: m, type: access}\n- {name: m, type: access}", "m"),
        ("paths that are neither pattern nor path", "- {name: m, type: access, paths: ['*.php']}", "*.php"),
        ("a path with two stars", "- {name: m, type: access, paths: ['/**']}", "/**"),
        ("a misspelt key of a guard", "- {name: m, type: access, paths: [/a], rule: {statusCod: 404}}", "statusCode"),
        ("a status that is none", "- {name: m, type: access, paths: [/a], rule: {statusCode: 99999}}", "99999"),
        ("a prefix of the wrong type", "- {name: m, type: addPrefix, rule: {prefix: [a]}}", "prefix"),
        ("nothing to do", "- {name: m, type: responseHeaders, rule: {}}", "m"),
        (
            "a header that frames",
            "- {name: m, type: responseHeaders, rule: {setHeaders: {Content-Length: '1'}}}",
            "Content-Length",
        ),
        (
            "SameSite=None without Secure",
            "- {name: m, type: responseHeaders, rule: {setCookies: [{name: a, value: b, attrs: {sameSite: none}}]}}",
            "sameSite",
        ),
    ];
    for (about, middlewares, named) in rows {
        let end = Gateway::builder()
            .routes("- {name: r, path: /, target: 'http://127.0.0.1:1', middlewares: [m]}")
            .middlewares(middlewares)
            .start_fails()
            .await;
        assert_eq!(end.code, Some(1), "{about}: {}", end.all());
        assert!(end.all().contains(named), "{about}: {}", end.all());
    }
    let end = Gateway::builder().gateway("defaults: {middlewares: [nope]}").start_fails().await;
    assert!(end.code == Some(1) && end.all().contains("nope"), "{}", end.all());
}
