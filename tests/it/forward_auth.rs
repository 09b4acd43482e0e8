//! Forward authentication: what the other server is told, and what its answers mean. Spec middlewares §5.9, rows 63 to 70.

use std::time::Duration;

use crate::world::*;

/// A gateway whose route `/` asks the server `auth`.
async fn with(origin: &Origin, auth: &Origin, rule: &str) -> Gateway {
    Gateway::before(origin)
        .word("AUTH", auth)
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [m]}")
        .middlewares(&format!("- {{name: m, type: forwardAuth, rule: {{authUrl: AUTH/verify, {rule}}}}}"))
        .await
}

#[tokio::test]
async fn the_server_is_told_who_asks_for_what() {
    let (origin, auth) = (Origin::start().await, Origin::start().await);
    let gateway = with(&origin, &auth, "authRequestHeaders: [X-Tenant, X-None]").await;
    let request = gateway.post("/p%2Fq?b=2&a=1").host("app.example").body("secret body");
    let request = request.header("Authorization", "Bearer t").header("Cookie", "s=1; t=2").header("X-Tenant", "acme");
    let request =
        request.header("Accept", "text/html").header("User-Agent", "ua/1").header("X-Forwarded-For", "6.6.6.6");
    assert_eq!(request.await.status, 200);
    let seen = auth.last();
    assert_eq!((seen.method.as_str(), seen.target.as_str(), seen.text().as_str()), ("GET", "/verify", ""));
    let url = "http://app.example/p%2Fq?b=2&a=1";
    for (name, value) in [
        ("X-Forwarded-Host", Some("app.example")),
        ("X-Forwarded-Method", Some("POST")),
        ("X-Forwarded-Proto", Some("http")),
        ("X-Forwarded-For", Some("127.0.0.1")),
        ("X-Real-IP", Some("127.0.0.1")),
        ("X-Forwarded-URI", Some(url)),
        ("X-Original-URL", Some(url)),
        ("User-Agent", Some("ua/1")),
        ("Authorization", Some("Bearer t")),
        ("Cookie", Some("s=1; t=2")),
        ("X-Tenant", Some("acme")),
        ("X-None", None),
        ("Content-Length", None),
        ("Accept", None),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
    assert_eq!(seen.header("Host"), Some(&*auth.authority()), "its own, unless asked otherwise");
    let sent = origin.last();
    assert_eq!((sent.target.as_str(), sent.text().as_str()), ("/p%2Fq?b=2&a=1", "secret body"), "byte for byte");
    let gateway = with(&origin, &auth, "enableHostForwarding: true").await;
    assert_eq!(gateway.get("/").host("app.example").await.status, 200);
    assert_eq!(auth.last().header("Host"), Some("app.example"));
    assert_eq!(auth.last().header("User-Agent"), None, "nothing that the client did not say");
}

#[tokio::test]
async fn only_200_lets_a_request_through() {
    let (origin, auth) = (Origin::start().await, Origin::start().await);
    let gateway = with(&origin, &auth, "timeout: 5s").await;
    auth.on("/login", Answer::ok("please log in"));
    for (description, answer, status, reason) in [
        ("200", Answer::ok("fine"), 200, ""),
        (
            "401",
            Answer::status(401).header("WWW-Authenticate", "Negotiate").header("WWW-Authenticate", "Basic"),
            401,
            "unauthorized",
        ),
        ("row 67: 403", Answer::status(403), 403, "forbidden"),
        ("row 67: 500", Answer::status(500), 500, "server_error"),
        ("row 65: 204", Answer::status(204), 401, "unexpected_status"),
        ("row 65: 503", Answer::status(503), 401, "unexpected_status"),
        ("404", Answer::status(404), 401, "unexpected_status"),
        ("row 64: a redirect is not followed", Answer::status(302).header("Location", "/login"), 401, "redirected"),
        ("no answer", Answer::close(), 503, "unreachable"),
    ] {
        auth.on("/verify", answer);
        origin.forget();
        let reply = gateway.get("/p").await;
        assert_eq!(reply.status, status, "{description}: {}", reply.text());
        assert_eq!(origin.saw_nothing(), status != 200, "{description}");
        if description == "401" {
            assert_eq!(reply.headers.all("WWW-Authenticate"), ["Negotiate", "Basic"]);
            assert_eq!(reply.text(), "401 Unauthorized\n", "the server's body stays with us");
        }
        if !reason.is_empty() {
            gateway.logs(&format!("why={reason}")).await;
        }
    }
}

#[tokio::test]
async fn a_server_that_is_down_or_silent_means_503() {
    let (origin, auth) = (Origin::start().await, Origin::start().await);
    let gateway = with(&origin, &auth, "timeout: 300ms").await;
    auth.always(Answer::hang());
    let reply = gateway.get("/").await;
    assert_eq!((reply.status, reply.header("Retry-After")), (503, Some("5")));
    auth.stop().await;
    assert_eq!(gateway.get("/").await.status, 503);
    assert!(origin.saw_nothing());
    gateway
        .counts(r#"goma_edge_auth_total{kind="forwardAuth",middleware="m",reason="unreachable",result="error"} 2"#)
        .await;
}

#[tokio::test]
async fn a_browser_is_sent_to_sign_in_with_the_way_back() {
    let (origin, auth) = (Origin::start().await, Origin::start().await);
    auth.always(Answer::status(401));
    for (sign_in, location) in [
        ("https://l.example/start?rd=", "https://l.example/start?rd=http%3A%2F%2Fapp.example%2Fp%3Fb%3D2%26a%3D1"),
        ("https://l.example/start", "https://l.example/start"),
    ] {
        let gateway = with(&origin, &auth, &format!("authSignIn: '{sign_in}'")).await;
        let reply = gateway.get("/p?b=2&a=1").host("app.example").await;
        assert_eq!((reply.status, reply.header("Location")), (302, Some(location)), "row 68");
        let page = format!("<a href=\"{location}\">Found</a>.\n\n");
        assert_eq!((reply.header("Content-Type"), reply.text()), (Some("text/html; charset=utf-8"), page));
    }
}

#[tokio::test]
async fn the_backend_learns_about_the_user_from_the_server_alone() {
    let (origin, auth) = (Origin::start().await, Origin::start().await);
    let rule = "authResponseHeaders: [X-User, 'X-Mail : Remote-Mail', X-Absent], authResponseHeadersAsParams: ['X-User:user'], addAuthCookiesToResponse: [b]";
    let gateway = with(&origin, &auth, rule).await;
    auth.always(
        Answer::ok("")
            .header("X-User", "ann b")
            .header("X-Mail", "ann@x")
            .header("Set-Cookie", "a=1")
            .header("Set-Cookie", "b=2; Path=/"),
    );
    let request = gateway.get("/p?user=root&z=1&flag").header("X-User", "root").header("X_User", "root");
    let request = request.header("Remote-Mail", "root@x").header("X-Absent", "root").header("Connection", "X-Absent");
    let reply = request.await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.headers.all("Set-Cookie"), ["b=2; Path=/"], "row 70: only the listed one");
    let seen = origin.last();
    assert_eq!(seen.headers.all("X-User"), ["ann b"]);
    assert_eq!(seen.headers.all("Remote-Mail"), ["ann@x"]);
    assert_eq!(seen.header("X-Absent"), Some(""), "wiped where the server says nothing");
    assert!(!seen.headers.has("X_User"));
    assert_eq!(seen.target, "/p?flag=&user=ann+b&z=1");
}

#[tokio::test]
async fn all_cookies_are_passed_on_unless_some_are_listed() {
    let (origin, auth) = (Origin::start().await, Origin::start().await);
    origin.always(Answer::ok("").header("Set-Cookie", "own=1"));
    auth.always(Answer::ok("").header("Set-Cookie", "a=1").header("Set-Cookie", "b=2"));
    let gateway = with(&origin, &auth, "").await;
    assert_eq!(gateway.get("/").await.headers.all("Set-Cookie"), ["own=1", "a=1", "b=2"]);
}

#[tokio::test]
async fn a_pass_is_remembered_for_the_same_credentials_and_path_only() {
    let (origin, auth) = (Origin::start().await, Origin::start().await);
    let gateway = with(&origin, &auth, "cacheTtl: 1s, authResponseHeaders: [X-User]").await;
    auth.always(Answer::ok("").header("X-User", "ann"));
    let ask = |path: &str, token: &str| gateway.get(path).header("Authorization", token);
    for (path, token, asked) in [("/a", "1", 1), ("/a", "1", 1), ("/a", "2", 2), ("/b", "1", 3), ("/b", "1", 3)] {
        assert_eq!(ask(path, token).await.status, 200);
        assert_eq!(auth.seen().len(), asked, "{path} {token}");
        assert_eq!(origin.last().header("X-User"), Some("ann"));
    }
    auth.always(Answer::status(401));
    assert_eq!(ask("/a", "3").await.status, 401, "a refusal is never remembered");
    assert_eq!(ask("/a", "3").await.status, 401);
    assert_eq!(auth.seen().len(), 5);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(ask("/a", "1").await.status, 401, "and a pass not for ever");
}

#[tokio::test]
async fn connections_to_the_server_are_kept() {
    let (origin, auth) = (Origin::start().await, Origin::start().await);
    let gateway = with(&origin, &auth, "").await;
    auth.always(Answer::ok("a short body"));
    for _ in 0..20 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert!(auth.connections() <= 2, "{} connections for 20 requests", auth.connections());
}

#[tokio::test]
async fn settings_that_protect_nothing_are_refused() {
    for (rule, message) in [
        ("{}", "rule.authUrl: is missing"),
        ("{authUrl: 'auth:9000'}", "rule.authUrl: `auth:9000` is no URL"),
        ("{authUrl: 'http://a/', authResponseHeaders: ['X(Y']}", "rule.authResponseHeaders[0]"),
        ("{authUrl: 'http://a/', timeout: soon}", "rule.timeout: `soon` is no duration"),
        ("{authUrI: 'http://a/'}", "did you mean \"authUrl\"?"),
    ] {
        let output = Gateway::builder()
            .routes("- {name: r, path: /, target: 'http://127.0.0.1:9', middlewares: [m]}")
            .middlewares(&format!("- {{name: m, type: forwardAuth, rule: {rule}}}"))
            .start_fails()
            .await;
        assert!(output.all().contains(message), "{rule}: {}", output.all());
    }
}
