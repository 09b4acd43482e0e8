//! `rewriteRegex`, `stripQuery` and `requestHeaders`: what of a request the backend gets to see.

use crate::world::*;

/// A gateway with one middleware `m` on all paths.
async fn with(origin: &impl std::fmt::Display, middleware: &str) -> Gateway {
    Gateway::before(origin)
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [m]}")
        .middlewares(&format!("- {{name: m, {middleware}}}"))
        .await
}

#[tokio::test]
async fn a_path_is_rewritten_by_an_expression() {
    for (pattern, replacement, asked, got) in [
        ("^/old/(.*)$", "/new/$1", "/old/a?x=/old/b", "/new/a?x=/old/b"),
        ("^/old/(.*)$", "/new/$1", "/other?a=%20", "/other?a=%20"),
        ("/u/([0-9]+)", "/user-${1}", "/u/7/u/8", "/user-7/user-8"),
        ("^/(?P<id>[^/]+)/x$", "/x/${id}", "/7/x", "/x/7"),
        ("^/v1", "", "/v1/a", "/a"),
        ("^/v1", "", "/v1", "/"),
        ("^/v1/", "v2/", "/v1/a", "/v2/a"),
        ("a b", "a-b", "/a%20b", "/a-b"),
        // What a group matched goes on as the client wrote it.
        ("^/old/(.*)$", "/new/$1", "/old/a%2Fb%20c%C3%A9", "/new/a%2Fb%20c%C3%A9"),
        ("^/%6Fld/(.*)$|^/old/(.*)$", "/new/$2", "/%6fld/%61", "/new/%61"),
        ("^/files/([^/]+)/meta$", "/meta/$1", "/files/a%2Fb/meta", "/meta/a%2Fb"),
        ("^/q$", "/a b?c%20d", "/q?x=1", "/a%20b%3Fc%20d?x=1"),
        // Without a match nothing changes, not even a doubtful byte.
        ("^/none$", "/x", "/%61//b/?c=%zz", "/%61//b/?c=%zz"),
    ] {
        let origin = Origin::start().await;
        let gateway =
            with(&origin, &format!("type: rewriteRegex, rule: {{pattern: '{pattern}', replacement: '{replacement}'}}"))
                .await;
        gateway.get(asked).await;
        assert_eq!(origin.last().target, got, "{pattern} by {replacement} in {asked}");
    }
}

#[tokio::test]
async fn placeholders_count_where_the_operator_wrote_them_and_are_escaped_once() {
    let origin = Origin::start().await;
    let replacement = "/t/{{goma.headers.X-Id}}/{{ goma.query.p }}/$1";
    let gateway =
        with(&origin, &format!("type: rewriteRegex, rule: {{pattern: '^/in/(.*)$', replacement: '{replacement}'}}"))
            .await;
    for (about, target, id, got) in [
        ("both", "/in/x?p=q", "7", "/t/7/q/x?p=q"),
        ("a slash in a value", "/in/x?p=q", "a/b c", "/t/a%2Fb%20c/q/x?p=q"),
        ("decoded first", "/in/x?p=a%2Bb%25", "7", "/t/7/a+b%25/x?p=a%2Bb%25"),
        ("an encoding in a value is text", "/in/x?p=q", "%2e%2e", "/t/%252e%252e/q/x?p=q"),
        ("typed by the client", "/in/{{goma.headers.X-Id}}?p=q", "7", "/t/7/q/{{goma.headers.X-Id}}?p=q"),
        ("typed by the client, no match", "/{{goma.headers.X-Id}}", "7", "/{{goma.headers.X-Id}}"),
        ("in a value", "/in/x?p=q", "{{goma.query.p}}", "/t/%7B%7Bgoma.query.p%7D%7D/q/x?p=q"),
    ] {
        gateway.get(target).header("X-Id", id).await;
        assert_eq!(origin.last().target, got, "{about}");
    }
    gateway.get("/in/x").await;
    assert_eq!(origin.last().target, "/t///x", "what is missing is empty");
}

#[tokio::test]
async fn a_rewritten_path_never_climbs() {
    let origin = Origin::start().await;
    let rule = "{pattern: '^/in/(.*)$', replacement: '/t/{{goma.headers.X-Id}}/$1'}";
    let gateway = with(&origin, &format!("type: rewriteRegex, rule: {rule}")).await;
    for id in ["..", "../a", "..;x", "a/../b", "..\\a"] {
        let reply = gateway.get("/in/x").header("X-Id", id).await;
        assert_eq!((reply.status, reply.text().as_str()), (400, "400 Bad Request\n"), "{id}");
        assert_eq!(reply.header("Proxied-By"), Some("Goma Gateway"), "as any reply of the route");
    }
    let rule = "{pattern: 'x', replacement: '..'}";
    let climbs = with(&origin, &format!("type: rewriteRegex, rule: {rule}")).await;
    assert_eq!(climbs.get("/a/x/b").await.status, 400);
    assert!(origin.saw_nothing());
}

#[tokio::test]
async fn a_rewritten_path_has_a_bound() {
    let origin = Origin::start().await;
    let rule = "{pattern: a, replacement: '{{goma.headers.X-Id}}'}";
    let gateway = with(&origin, &format!("type: rewriteRegex, rule: {rule}")).await;
    let reply = gateway.get(&format!("/{}", "a".repeat(2000))).header("X-Id", &"x".repeat(2000)).await;
    assert_eq!(reply.status, 414);
    assert!(origin.saw_nothing());
}

#[tokio::test]
async fn a_rewrite_comes_before_the_routes_own_and_before_later_middlewares() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin)
        .routes("- {name: r, path: /api, rewrite: /v2, target: ORIGIN, middlewares: [m, guard]}")
        .middlewares("- {name: m, type: rewriteRegex, rule: {pattern: '/old', replacement: '/new'}}\n- {name: guard, type: access, paths: ['^/api/new/secret']}")
        .await;
    gateway.get("/api/old/x").await;
    assert_eq!(origin.last().target, "/v2/new/x");
    assert_eq!(gateway.get("/api/old/secret").await.status, 403, "a guard sees the path as the chain has it");
    gateway.get("/api/new%2fold/x").await;
    assert_eq!(origin.last().target, "/v2/new%2fold/x", "an encoded slash is none");
}

#[tokio::test]
async fn named_parameters_go_and_the_rest_is_sorted() {
    let origin = Origin::start().await;
    let gateway = with(&origin, "type: stripQuery, rule: {params: [utm, 'a b', Z]}").await;
    for (asked, got) in [
        ("/?b=2&a=1&flag&c=%20", "/?b=2&a=1&flag&c=%20"),
        ("/?", "/?"),
        ("/?UTM=1&z=1", "/?UTM=1&z=1"),
        ("/?b=2&utm=1&a=1", "/?a=1&b=2"),
        ("/?b=2&utm=1&flag&a=x%20y&a=%2F", "/?a=x+y&a=%2F&b=2&flag="),
        ("/?utm=1", "/"),
        ("/?utm", "/"),
        ("/?ut%6D=1&a+b=2&Z&x=1", "/?x=1"),
        ("/?utm=1&k=100%&j=a;b", "/?j=a;b&k=100%"),
        ("/path%2Fx?utm=1&q=1", "/path%2Fx?q=1"),
    ] {
        gateway.get(asked).await;
        assert_eq!(origin.last().target, got, "{asked}");
    }
}

#[tokio::test]
async fn parameters_are_stripped_for_some_methods_and_paths_only() {
    let origin = Origin::start().await;
    let rule = "{params: [x], methods: [post, ' GET '], pathPattern: '^/(a|b c)/'}";
    let gateway = with(&origin, &format!("type: stripQuery, rule: {rule}")).await;
    for (method, asked, got) in [
        ("POST", "/a/?x=1", "/a/"),
        ("GET", "/b%20c/?x=1", "/b%20c/"),
        ("PATCH", "/a/?x=1", "/a/?x=1"),
        ("GET", "/c/a/?x=1", "/c/a/?x=1"),
    ] {
        gateway.request(method, asked).await;
        assert_eq!(origin.last().target, got, "{method} {asked}");
    }
}

#[tokio::test]
async fn a_stripped_parameter_does_not_choose_a_backend() {
    let (stable, beta) = (Origin::named("stable").await, Origin::named("beta").await);
    let gateway = Gateway::before(&stable)
        .word("BETA", &beta)
        .routes("- {name: r, path: /, middlewares: [m], backends: [{endpoint: ORIGIN, weight: 1}, {endpoint: BETA, exclusive: true, match: [{source: query, name: beta, operator: equals, value: '1'}]}]}")
        .middlewares("- {name: m, type: stripQuery, rule: {params: [beta], pathPattern: ^/strip}}")
        .await;
    assert_eq!(gateway.get("/?beta=1").await.text(), "beta");
    assert_eq!(gateway.get("/strip?beta=1").await.text(), "stable");
}

#[tokio::test]
async fn request_headers_are_removed_and_then_set() {
    let origin = Origin::start().await;
    let rule = "{setHeaders: {X-Forwarded-Proto: HTTPS, X-User-Id: 5, x-lower-case: 'a b', X-Both: set, X-Empty: ''}, removeHeaders: [authorization, X-Both]}";
    let gateway = with(&origin, &format!("type: requestHeaders, rule: {rule}")).await;
    let request =
        gateway.get("/").header("Authorization", "Bearer x").header("X-User-Id", "1").header("x-user-id", "2");
    let request = request.header("X-Both", "1").header("X-Empty", "1").header("X-Other", "kept");
    request.header("X-Forwarded-For", "192.0.2.7").await;
    let seen = origin.last();
    assert_eq!(seen.header("X-Forwarded-Proto"), Some("https"));
    assert_eq!(seen.headers.all("X-User-Id"), ["5"]);
    assert!(seen.headers.0.contains(&("X-Lower-Case".to_owned(), "a b".to_owned())), "{:?}", seen.headers);
    assert_eq!((seen.header("X-Both"), seen.header("X-Other")), (Some("set"), Some("kept")));
    assert!(!seen.headers.has("Authorization") && !seen.headers.has("X-Empty"));
    assert_eq!(seen.header("X-Forwarded-For"), Some("127.0.0.1, 127.0.0.1"));
}

#[tokio::test]
async fn request_headers_count_for_their_paths_only() {
    let origin = Origin::start().await;
    let gateway = with(&origin, "type: requestHeaders, paths: [/in/*], rule: {setHeaders: {X-A: b}}").await;
    for (path, set) in [("/in/x", true), ("/%69n/x", true), ("/out", false)] {
        gateway.get(path).await;
        assert_eq!(origin.last().headers.has("X-A"), set, "{path}");
    }
}

#[tokio::test]
async fn what_the_gateway_tells_the_backend_itself_is_not_for_request_headers() {
    let origin = Origin::start().await;
    let rule = "{setHeaders: {Host: evil.test, X-Real-IP: 192.0.2.7, X-Forwarded-For: 192.0.2.7, X-Forwarded-Host: evil.test}, removeHeaders: [host]}";
    let gateway = with(&origin, &format!("type: requestHeaders, rule: {rule}")).await;
    gateway.get("/").await;
    let seen = origin.last();
    assert_eq!(seen.headers.all("Host"), ["gateway.test"]);
    assert_eq!((seen.header("X-Real-IP"), seen.header("X-Forwarded-Host")), (Some("127.0.0.1"), Some("gateway.test")));
    let file = gateway.file("goma.yml").display().to_string();
    let output = goma(&["config", "check", "-c", &file]).await;
    assert_eq!(output.all().matches("the gateway itself says this to the backend").count(), 5, "{}", output.all());
}

#[tokio::test]
async fn a_header_of_the_gateway_survives_a_client_that_nominates_it() {
    let origin = Origin::start().await;
    let gateway = with(&origin, "type: requestHeaders, rule: {setHeaders: {X-Tenant: ann}}").await;
    assert_eq!(gateway.get("/").header("Connection", "X-Tenant").header("X-Tenant", "eve").await.status, 200);
    assert_eq!(origin.last().headers.all("X-Tenant"), ["ann"]);
}

const SHAPERS: &str =
    "- {name: path, type: rewriteRegex, rule: {pattern: '^/old', replacement: '/new/{{goma.headers.X-Id}}'}}
- {name: query, type: stripQuery, rule: {params: [x]}}
- {name: headers, type: requestHeaders, rule: {setHeaders: {X-Set: 'yes'}, removeHeaders: [X-Id]}}";
const SHAPED: &str = "- {name: r, path: /, middlewares: [path, query, headers], BACKENDS}";

#[tokio::test]
async fn every_attempt_gets_the_same_shape() {
    let dead = free_port();
    let origin = Origin::start().await;
    let backends = format!("backends: [{{endpoint: 'http://127.0.0.1:{dead}'}}, {{endpoint: ORIGIN}}]");
    let routes = SHAPED.replace("BACKENDS", &backends);
    let gateway = Gateway::before(&origin).routes(&routes).middlewares(SHAPERS).await;
    for _ in 0..2 {
        assert_eq!(gateway.get("/old/a?x=1&b=2").header("X-Id", "7").await.status, 200);
        let seen = origin.last();
        assert_eq!((seen.target.as_str(), seen.header("X-Set")), ("/new/7/a?b=2", Some("yes")));
    }
}

#[tokio::test]
async fn http2_requests_and_upgrades_are_shaped_too() {
    let origin = Origin::start().await;
    origin.on("/new/7/socket", Answer::websocket());
    let gateway =
        Gateway::before(&origin).routes(&SHAPED.replace("BACKENDS", "target: ORIGIN")).middlewares(SHAPERS).await;
    let client = gateway.h2().await;
    let request = client.request("GET", "/old/a?x=1").header("x-id", "7").body(()).expect("a request");
    let reply = client.call(request, true).await.finish().await.expect("a response");
    assert_eq!((reply.status, origin.last().target.as_str()), (200, "/new/7/a"));

    let upgrade = gateway.get("/old/socket?x=1&b=2").header("X-Id", "7");
    let mut socket = WebSocket::open(upgrade, "websocket").await.expect("a WebSocket");
    socket.echoes("hello").await;
    let seen = origin.last();
    assert_eq!((seen.target.as_str(), seen.header("X-Set")), ("/new/7/socket?b=2", Some("yes")));

    let grpc = Origin2::start().await;
    let gateway =
        Gateway::before(&grpc).routes(&SHAPED.replace("BACKENDS", "target: ORIGIN")).middlewares(SHAPERS).await;
    assert_eq!(gateway.h2().await.unary("/old/Call?x=1", "m").await.text(), "m");
    assert_eq!(grpc.last().path, "/new//Call");
}

#[tokio::test]
async fn explain_shows_the_path_that_the_chain_makes() {
    let origin = Origin::start().await;
    let gateway =
        Gateway::before(&origin).routes(&SHAPED.replace("BACKENDS", "target: ORIGIN")).middlewares(SHAPERS).await;
    let file = gateway.file("goma.yml").display().to_string();
    let output = goma(&["config", "explain", "-c", &file, "GET", "/old/a?x=1&b=2", "-H", "X-Id: 7", "--json"]).await;
    let said: serde_json::Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!(said["path_after_middlewares"], "/new/7/a", "{said:#}");
    assert_eq!(said["sent"], "/new/7/a?b=2", "{said:#}");
    assert_eq!(said["headers"]["removed"][0], "x-id", "{said:#}");
}
