//! What path the backend gets.

use crate::world::*;

/// Path, rewrite, suffix of the target, request, and what the backend sees or the status of the refusal.
const ROWS: &[(&str, &str, &str, &str, &str)] = &[
    ("/api", "/", "", "/api", "/"),
    ("/api", "/", "", "/api/", "/"),
    ("/api", "/", "", "/api/users/1", "/users/1"),
    ("/api", "/", "", "/api/users/1?x=1", "/users/1?x=1"),
    ("/api", "/", "", "/api/users/1/", "/users/1/"),
    ("/api", "/", "", "/api//users", "/users"),
    ("/api", "/v2", "", "/api", "/v2"),
    ("/api", "/v2", "", "/api/users?x=1&y=2", "/v2/users?x=1&y=2"),
    ("/api", "/v2/", "", "/api", "/v2"),
    ("/api", "v2", "", "/api/users", "/v2/users"),
    ("/api/", "/", "", "/api/users", "/users"),
    ("/api/", "/", "", "/api", "/api"),
    ("/api/", "/v2", "", "/api/", "/v2/"),
    ("/", "/", "", "/a//b/c", "/a/b/c"),
    ("/", "/v1", "", "/a/b", "/v1/a/b"),
    ("/", "", "", "/a//b/c", "/a//b/c"),
    ("/api", "/", "", "/api/a%20b", "/a%20b"),
    ("/api", "", "", "/api/a%2Fb", "/api/a%2Fb"),
    ("/api", "/", "/base", "/api/users", "/base/users"),
    ("/api", "/", "/base", "/api/x", "/base/x"),
    ("/api", "", "/base", "/api/users", "/base/api/users"),
    ("/q", "", "/p?t=1", "/q/z?u=2", "/p/q/z?t=1&u=2"),
    ("/users/{id}", "/", "", "/users/42/posts", "/users/42/posts"),
    ("api", "/", "", "/api/x", "/api/x"),
    // Where we differ from Goma: an encoded slash stays one, and nothing climbs out of the rewrite base.
    ("/api", "/", "", "/api/a%2Fb", "/a%2Fb"),
    ("/api", "/", "", "/api/a%2fb/c%2Fd?e=%2F", "/a%2fb/c%2Fd?e=%2F"),
    ("/api", "/base", "", "/api/../admin", "400"),
    ("/api", "/base", "", "/api/%2e%2e/admin", "400"),
    ("/api", "/base", "", "/api/%2E./admin", "400"),
    ("/api", "/base", "", "/api/x%2f..%2f..%2fadmin", "400"),
    ("/api", "", "", "/api/../admin", "400"),
    ("/", "/", "", "/a//b/../c", "400"),
    ("/", "", "", "/a//b/../c", "400"),
    ("/", "", "", "/..", "400"),
    ("/", "", "", "/a/..", "400"),
    // No dot segment at all.
    ("/", "", "", "/a..b/..c/d../...", "/a..b/..c/d../..."),
    // A query is nobody's business.
    ("/api", "/", "", "/api/x?a=1;b=%zz&c=%2F..%2F&&", "/x?a=1;b=%zz&c=%2F..%2F&&"),
    ("/api", "", "", "/api/x?", "/api/x?"),
    ("/api", "", "", "/api/x?../..", "/api/x?../.."),
];

#[tokio::test]
async fn the_backend_gets_the_path_that_the_route_says() {
    let origin = Origin::start().await;
    let routes = ROWS.iter().enumerate().map(|(row, (path, rewrite, suffix, ..))| {
        format!(
            "- {{name: r{row}, hosts: [r{row}.test], path: '{path}', rewrite: '{rewrite}', target: 'ORIGIN{suffix}'}}\n"
        )
    });
    let gateway = Gateway::before(&origin).routes(&routes.collect::<String>()).await;
    let mut wrong = Vec::new();
    for (row, (path, rewrite, suffix, request, expected)) in ROWS.iter().enumerate() {
        origin.forget();
        let reply = gateway.get(request).host(&format!("r{row}.test")).await;
        let got = origin.seen().pop().map_or(reply.status.to_string(), |seen| seen.target);
        if got != *expected {
            wrong
                .push(format!("{path} rewritten to {rewrite:?} at {suffix:?}: {request} became {got}, not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_rewritten_path_is_that_of_every_protocol() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes("- {name: api, path: /api, rewrite: /v2, target: ORIGIN}").await;
    let client = gateway.h2().await;
    assert_eq!(client.get("/api/a%2Fb?x=1").await.status, 200);
    assert_eq!(origin.last().target, "/v2/a%2Fb?x=1");
    assert_eq!(client.get("/api/%2e%2e/admin").await.status, 400);
    assert_eq!(origin.seen().len(), 1);
}
