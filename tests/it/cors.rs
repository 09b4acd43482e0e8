//! Cross-origin sharing over real sockets: the `cors` object of `responseHeaders` and the older sections.

use crate::world::*;

/// A gateway whose route has a `responseHeaders` with this `cors` object, behind a guard of `/secret`.
async fn with(origin: &Origin, cors: &str, route: &str) -> Gateway {
    Gateway::before(origin)
        .routes(&format!("- {{name: r, path: /, target: ORIGIN, middlewares: [guard, sharing], {route}}}"))
        .middlewares(&format!(
            "- {{name: guard, type: access, paths: [/secret]}}
- {{name: sharing, type: responseHeaders, rule: {{setHeaders: {{X-Frame-Options: DENY}}, cacheControl: no-store, cors: {{enabled: true, {cors}}}}}}}"
        ))
        .await
}

/// A gateway with older sections of the gateway and the route.
async fn older(origin: &Origin, gateway: &str, route: &str) -> Gateway {
    Gateway::before(origin)
        .gateway(gateway)
        .routes(&format!("- {{name: r, path: /, target: ORIGIN, middlewares: [guard], {route}}}"))
        .middlewares("- {name: guard, type: access, paths: [/secret]}")
        .await
}

const FROM: &str = "https://a.example";

/// Values of the `Access-Control-` headers of a reply, by the rest of the name.
fn sharing(reply: &Reply) -> Vec<(String, String)> {
    let mut found: Vec<_> = reply
        .headers
        .0
        .iter()
        .filter_map(|(name, value)| {
            let name = name.to_ascii_lowercase();
            Some((name.strip_prefix("access-control-")?.to_owned(), value.clone()))
        })
        .collect();
    found.sort();
    found
}

fn shares(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn an_origin_of_the_list_may_read_and_others_may_not() {
    let origin = Origin::start().await;
    // Row 122.
    let gateway = with(&origin, "origins: ['https://*.b.example', 'https://a.example/']", "").await;
    for (from, may) in [
        ("https://z.b.example", true),
        ("https://Z.B.example", true),
        ("https://z.b.example:8443", true),
        ("https://b.example", false),
        ("http://z.b.example", false),
        ("https://evilb.example", false),
        ("https://a.example", true),
        ("https://a.example.evil", false),
        ("null", false),
    ] {
        for method in ["GET", "POST"] {
            let reply = gateway.request(method, "/").header("Origin", from).await;
            assert_eq!(reply.header("Access-Control-Allow-Origin"), may.then_some(from), "{from}");
            assert_eq!(reply.headers.all("Vary"), ["Origin"], "{from}");
        }
    }
    let reply = gateway.get("/").await;
    assert_eq!((sharing(&reply), reply.headers.all("Vary")), (vec![], vec!["Origin"]), "caches have to know");
}

#[tokio::test]
async fn a_preflight_is_answered_before_everything_that_would_refuse_it() {
    let origin = Origin::start().await;
    let cors = "origins: ['https://a.example'], allowMethods: [GET, PUT], allowedHeaders: [X-A, X-B], maxAge: 600, allowCredentials: true, exposeHeaders: [X-C]";
    // Row 124, corrected: the method filter does not see it.
    let gateway = with(&origin, cors, "methods: [GET]").await;
    for path in ["/", "/secret"] {
        let preflight = gateway.request("OPTIONS", path).header("Origin", FROM);
        let reply = preflight.header("Access-Control-Request-Method", "PUT").await;
        assert_eq!((reply.status, reply.text().as_str()), (204, ""), "{path}");
        let expected = [
            ("allow-credentials", "true"),
            ("allow-headers", "X-A, X-B"),
            ("allow-methods", "GET, PUT"),
            ("allow-origin", FROM),
            ("expose-headers", "X-C"),
            ("max-age", "600"),
        ];
        assert_eq!(sharing(&reply), shares(&expected), "{path}");
        assert_eq!(reply.headers.all("Vary"), ["Origin"], "{path}");
        assert!(!reply.headers.has("Content-Length"), "{path}: 204 has no length");
    }
    assert!(origin.saw_nothing());
    let refused = gateway.request("OPTIONS", "/").header("Origin", "https://evil.example").await;
    assert_eq!((refused.status, sharing(&refused)), (405, vec![]), "others go the way of any request");
    gateway.counts(r#"goma_edge_request_ends_total{name="r",reason="answered:cors"} 2"#).await;
}

#[tokio::test]
async fn what_is_not_listed_is_what_the_browser_asks_for() {
    let origin = Origin::start().await;
    let gateway = with(&origin, "origins: ['*']", "").await;
    let preflight = gateway.request("OPTIONS", "/").header("Origin", "https://any.example");
    let preflight = preflight.header("Access-Control-Request-Method", "PATCH");
    let reply = preflight.header("Access-Control-Request-Headers", "x-one, x-two").await;
    let expected =
        [("allow-headers", "x-one, x-two"), ("allow-methods", "PATCH"), ("allow-origin", "https://any.example")];
    assert_eq!((reply.status, sharing(&reply)), (204, shares(&expected)));
}

#[tokio::test]
async fn refusals_and_errors_carry_the_headers_too() {
    let origin = Origin::start().await;
    // Row 125, corrected: `OPTIONS` in the list does not switch the whole off.
    let gateway = with(&origin, "origins: ['https://a.example'], allowMethods: [GET, OPTIONS]", "methods: [GET]").await;
    origin.on("/close", Answer::close());
    for (method, path, status) in
        [("GET", "/", 200), ("GET", "/secret", 403), ("DELETE", "/", 405), ("GET", "/close", 502)]
    {
        let reply = gateway.request(method, path).header("Origin", FROM).await;
        assert_eq!((reply.status, reply.header("Access-Control-Allow-Origin")), (status, Some(FROM)), "{path}");
        assert_eq!(reply.header("Cache-Control"), Some("no-store"), "{path}");
        assert_eq!(reply.header("X-Frame-Options").is_some(), status == 200, "{path}");
    }
}

#[tokio::test]
async fn the_word_of_the_gateway_replaces_the_backends() {
    let origin = Origin::start().await;
    origin.always(
        Answer::ok("x")
            .header("Access-Control-Allow-Origin", "*")
            .header("Access-Control-Allow-Credentials", "true")
            .header("Access-Control-Allow-Methods", "DELETE")
            .header("Vary", "Accept"),
    );
    // Row 128, corrected: one value.
    let of_route = "cors: {origins: ['https://a.example'], allowMethods: [GET]}";
    for gateway in [
        with(&origin, "origins: ['https://a.example'], allowMethods: [GET]", "").await,
        older(&origin, "", of_route).await,
    ] {
        let reply = gateway.get("/").header("Origin", FROM).await;
        assert_eq!(sharing(&reply), shares(&[("allow-methods", "GET"), ("allow-origin", FROM)]));
        assert_eq!(reply.headers.all("Vary"), ["Accept", "Origin"]);
    }
}

#[tokio::test]
async fn the_older_section_of_a_route_or_else_the_gateways_counts() {
    let origin = Origin::start().await;
    let of_gateway = "cors: {origins: ['https://g.example'], headers: {X-G: '1'}, maxAge: 1728000}";
    let of_route =
        "methods: [GET, POST], cors: {origins: ['https://a.example'], allowMethods: [PUT], headers: {X-R: '1'}}";
    for (about, keys, route, a, g) in [
        ("the route's", of_gateway, of_route, true, false),
        ("the gateway's", of_gateway, "", false, true),
        ("the gateway's, for an empty one", of_gateway, "cors: {}", false, true),
        ("none, switched off", of_gateway, "cors: {enabled: false}", false, false),
        ("none", "", "", false, false),
        ("the gateway's is off", "cors: {enabled: false, origins: ['https://g.example']}", "", false, false),
    ] {
        let gateway = older(&origin, keys, route).await;
        for (from, may) in [(FROM, a), ("https://g.example", g)] {
            let reply = gateway.get("/").header("Origin", from).await;
            assert_eq!(reply.header("Access-Control-Allow-Origin"), may.then_some(from), "{about}: {from}");
            origin.forget();
            let reply = gateway.request("OPTIONS", "/secret").header("Origin", from).await;
            assert_eq!(reply.status, if may { 204 } else { 403 }, "{about}: {from}");
            assert!(origin.saw_nothing(), "{about}: {from}");
            if may && a {
                assert_eq!(reply.header("Access-Control-Allow-Methods"), Some("PUT, GET, POST"), "{about}");
            }
            if may && g {
                assert_eq!(reply.header("Access-Control-Max-Age"), Some("1728000"), "{about}");
            }
        }
        // Its further headers go on every proxied response, whoever asks.
        let reply = gateway.get("/").await;
        assert_eq!((reply.headers.has("X-R"), reply.headers.has("X-G")), (a, g), "{about}");
        assert_eq!(reply.header("Vary"), (a || g).then_some("Origin"), "{about}");
    }
}

#[tokio::test]
async fn any_origin_with_credentials_gets_no_credentials() {
    let origin = Origin::start().await;
    // Row 127, corrected.
    let gateway = older(&origin, "", "cors: {origins: ['*'], allowCredentials: true}").await;
    let reply = gateway.request("OPTIONS", "/").header("Origin", "https://evil.example").await;
    assert_eq!(reply.status, 204);
    assert_eq!(reply.header("Access-Control-Allow-Credentials"), None);
    let reply = gateway.get("/").header("Origin", "https://evil.example").await;
    assert_eq!(reply.header("Access-Control-Allow-Credentials"), None);
    let file = gateway.file("goma.yml").display().to_string();
    let output = goma(&["config", "check", "-c", &file]).await;
    assert!(output.stdout.contains("cors.allowCredentials"), "{}", output.all());
}

#[tokio::test]
async fn http2_clients_are_answered_alike() {
    let origin = Origin::start().await;
    let gateway = with(&origin, "origins: ['https://a.example']", "methods: [GET]").await;
    let client = gateway.h2().await;
    for (method, path, status) in [("OPTIONS", "/secret", 204), ("GET", "/", 200), ("GET", "/secret", 403)] {
        let request = client.request(method, path).header("origin", FROM).body(()).expect("a request");
        let reply = client.call(request, true).await.finish().await.expect("a whole response");
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (status, Some(FROM)), "{path}");
        assert_eq!(reply.header("vary"), Some("Origin"), "{path}");
    }
}

#[tokio::test]
async fn explain_says_that_the_gateway_answers_a_preflight() {
    let origin = Origin::start().await;
    let gateway = with(&origin, "origins: ['https://a.example']", "").await;
    let file = gateway.file("goma.yml").display().to_string();
    for (from, outcome) in [(FROM, "answered:cors"), ("https://evil.example", "denied:access")] {
        let from = format!("Origin: {from}");
        let output = goma(&["config", "explain", "-c", &file, "--json", "-H", &from, "OPTIONS", "/secret"]).await;
        let told: serde_json::Value =
            serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{}", output.all()));
        assert_eq!(told["outcome"], outcome, "{from}: {}", output.all());
    }
}
