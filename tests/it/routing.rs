//! Which route takes a request: paths, hosts, priorities, and what is said when none does.

use crate::world::*;

/// A route is its name and its keys; its backend sees the name as first path segment.
type Routes = &'static [(&'static str, &'static str)];

/// A request as `METHOD host path`, and the route that takes it or the status of the refusal.
type Requests = &'static [(&'static str, &'static str)];

#[tokio::test]
async fn the_path_decides_by_whole_segments() {
    plays(&[
        (
            "a path covers itself and what is below",
            &[("api", "path: /api")],
            &[
                ("GET h /api", "api"),
                ("GET h /api/", "api"),
                ("GET h /api/x/y", "api"),
                ("GET h /api%2Fx", "api"),
                ("GET h /apiary", "404"),
                ("GET h /API/users", "404"),
                ("GET h //api/x", "404"),
                ("GET h /", "404"),
            ],
        ),
        (
            "a trailing slash in the path changes nothing",
            &[("api", "path: /api/")],
            &[("GET h /api", "api"), ("GET h /api/", "api"), ("GET h /api/x", "api"), ("GET h /apiary", "404")],
        ),
        ("the root takes everything", &[("root", "path: /")], &[("GET h /", "root"), ("GET h /a/b", "root")]),
        (
            "a placeholder is one segment that is not empty",
            &[("user", "path: '/users/{id}'")],
            &[
                ("GET h /users/1", "user"),
                ("GET h /users/1/posts", "user"),
                ("GET h /users", "404"),
                ("GET h /users/", "404"),
            ],
        ),
        (
            "a literal beats a placeholder",
            &[("user", "path: '/users/{id}'"), ("me", "path: /users/me")],
            &[("GET h /users/me/x", "me"), ("GET h /users/you/x", "user")],
        ),
        (
            "a placeholder of older Goma may have a pattern",
            &[("user", "path: '/users/{id:[0-9]+}'")],
            &[("GET h /users/12", "user"), ("GET h /users/12/x", "user"), ("GET h /users/me", "404")],
        ),
        (
            "a star is a segment like any other",
            &[("files", "path: '/files/*'")],
            &[("GET h /files/*", "files"), ("GET h /files/x", "404")],
        ),
        (
            "the more specific path wins in any order of the file",
            &[("v1", "path: /api/v1"), ("root", "path: /"), ("api", "path: /api")],
            &[("GET h /api/v1/x", "v1"), ("GET h /api/v2", "api"), ("GET h /x", "root")],
        ),
        ("any method is proxied", &[("dav", "path: /")], &[("PROPFIND h /x", "dav"), ("PURGE h /x", "dav")]),
    ])
    .await;
}

#[tokio::test]
async fn the_host_decides_within_a_path() {
    plays(&[
        (
            "the more exact host pattern wins",
            &[
                ("any", "path: /"),
                ("below", "path: /, hosts: ['*.example.com']"),
                ("label", "path: /, hosts: ['{sub}.example.com']"),
                ("exact", "path: /, hosts: [api.example.com]"),
                ("port", "path: /, hosts: ['api.example.com:8443']"),
            ],
            &[
                ("GET api.example.com:8443 /", "port"),
                ("GET api.example.com /", "exact"),
                ("GET api.example.com:9000 /", "exact"),
                ("GET API.Example.Com /", "exact"),
                ("GET api.example.com. /", "exact"),
                ("GET x.example.com /", "label"),
                ("GET y.x.example.com /", "below"),
                ("GET example.com /", "any"),
                ("GET [::1]:80 /", "any"),
            ],
        ),
        (
            "among wildcards: with port, then the longer one",
            &[
                ("short", "path: /, hosts: ['*.example.com']"),
                ("long", "path: /, hosts: ['*.eu.example.com']"),
                ("port", "path: /, hosts: ['*.example.com:81']"),
            ],
            &[
                ("GET a.example.com /", "short"),
                ("GET a.eu.example.com /", "long"),
                ("GET a.example.com:81 /", "port"),
                ("GET example.com /", "404"),
            ],
        ),
        (
            "a path without a variant for the host leaves it to the next one",
            &[("api", "path: /api, hosts: [a]"), ("root", "path: /, hosts: [b]"), ("v1", "path: /api/v1")],
            &[("GET a /api/x", "api"), ("GET b /api/x", "root"), ("GET b /api/v1/q", "v1"), ("GET c /api/x", "404")],
        ),
        (
            "the same path for overlapping hosts: the first wins, the later keeps its others",
            &[("first", "path: /d, hosts: [a]"), ("later", "path: /d, hosts: [a, b]")],
            &[("GET a /d", "first"), ("GET b /d", "later"), ("GET c /d", "404")],
        ),
        ("the same path twice: the first wins", &[("one", "path: /d"), ("two", "path: /d")], &[("GET h /d", "one")]),
    ])
    .await;
}

#[tokio::test]
async fn a_lower_priority_number_wins_before_the_path_is_looked_at() {
    plays(&[
        (
            "no priority is priority 0",
            &[("root", "path: /"), ("api", "path: /api, priority: 1")],
            &[("GET h /api/x", "root")],
        ),
        (
            "the smaller number wins",
            &[("root", "path: /, priority: 2"), ("api", "path: /api, priority: 3")],
            &[("GET h /api/x", "root")],
        ),
        (
            "a negative one shadows the gateway's own endpoints",
            &[("root", "path: /, priority: -1")],
            &[("GET h /healthz", "root"), ("GET h /metrics", "root")],
        ),
        (
            "it belongs to the route, not to the path",
            &[("root", "path: /"), ("late", "path: /p, hosts: [a], priority: 1"), ("plain", "path: /p, hosts: [b]")],
            &[("GET a /p", "root"), ("GET b /p", "plain")],
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_route_that_is_off_takes_nothing() {
    plays(&[
        ("enabled: false", &[("off", "path: /, enabled: false")], &[("GET h /", "404")]),
        ("disabled: true", &[("off", "path: /, disabled: true")], &[("GET h /", "404")]),
    ])
    .await;
}

#[tokio::test]
async fn no_route_is_answered_as_goma_does() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes("- {name: a, path: /, hosts: [a], target: ORIGIN}").await;

    let reply = gateway.get("/nope").host("zzz").accept("application/json").await;
    assert_eq!((reply.status, reply.text().as_str()), (404, "404 page not found\n"));
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    assert!(!reply.headers.has("Proxied-By") && !reply.headers.has("X-Goma-Request-ID"));

    let reply = gateway.post("/healthz").host("zzz").await;
    assert_eq!((reply.status, reply.text().as_str()), (405, "Method Not Allowed\n"));
    assert_eq!(reply.header("allow"), Some("GET, HEAD"));
    assert!(origin.saw_nothing());
}

#[tokio::test]
async fn the_other_slash_form_of_an_endpoint_is_a_redirect_unless_turned_off() {
    for (strict, expected) in [("strictSlash: true", 301), ("strictSlash: false", 404), ("", 301)] {
        let gateway = Gateway::builder().gateway(strict).await;
        let reply = gateway.get("/healthz/?a=1").await;
        assert_eq!(reply.status, expected, "{strict}");
        assert_eq!(reply.header("location"), (expected == 301).then_some("/healthz?a=1"), "{strict}");
    }
}

#[tokio::test]
async fn a_user_route_on_healthz_gets_what_the_endpoint_does_not_take() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes("- {name: mine, path: /healthz, target: ORIGIN}").await;
    assert_eq!(gateway.get("/healthz").await.json()["name"], "Service Gateway");
    assert!(origin.saw_nothing());
    gateway.post("/healthz").await;
    gateway.get("/healthz/x").await;
    let targets: Vec<_> = origin.seen().into_iter().map(|seen| format!("{} {}", seen.method, seen.target)).collect();
    assert_eq!(targets, ["POST /healthz", "GET /healthz/x"]);
}

#[tokio::test]
async fn a_pattern_that_cannot_be_routed_refuses_to_start() {
    for (about, route, named) in [
        ("a star inside a host", "path: /, hosts: ['foo.*.com']", "foo.*.com"),
        ("an empty label", "path: /, hosts: ['a..b']", "a..b"),
        ("a space in a host", "path: /, hosts: ['a b']", "a b"),
        ("a bare placeholder as host", "path: /, hosts: ['{sub}']", "{sub}"),
        ("a catch-all path", "path: '/files/{rest...}'", "{rest...}"),
        ("a broken pattern in a path", "path: '/users/{id:[}'", "{id:[}"),
    ] {
        let routes = format!("- {{name: r, target: 'http://127.0.0.1:1', {route}}}");
        let end = Gateway::builder().routes(&routes).start_fails().await;
        assert_eq!(end.code, Some(1), "{about}: {}", end.all());
        assert!(end.all().contains(named), "{about}: {}", end.all());
    }
}

/// Starts a gateway with the routes and sends it the requests.
async fn plays(scenes: &[(&str, Routes, Requests)]) {
    for (about, routes, requests) in scenes {
        let origin = Origin::start().await;
        let routes = routes.iter().map(|(name, keys)| format!("- {{name: {name}, target: ORIGIN/{name}, {keys}}}\n"));
        let gateway = Gateway::before(&origin).routes(&routes.collect::<String>()).await;
        for (request, expected) in *requests {
            let parts: Vec<&str> = request.split(' ').collect();
            let reply = gateway.request(parts[0], parts[2]).host(parts[1]).await;
            let taken = match reply.status {
                200 => origin.last().target.split('/').nth(1).unwrap_or_default().to_owned(),
                status => status.to_string(),
            };
            assert_eq!(taken, *expected, "{about}: {request}");
        }
    }
}
