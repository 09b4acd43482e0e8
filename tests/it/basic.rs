//! Basic authentication: who passes, who does not, and what nobody learns from it. Spec middlewares §5.5, rows 21 to 29.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::world::*;

/// The hash of `password`, at bcrypt's least cost but one.
const BCRYPT: &str = "$2y$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu";

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A gateway with one `basicAuth` on the route `/`.
async fn with(origin: &Origin, paths: &str, rule: &str) -> Gateway {
    Gateway::before(origin)
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [m]}\n- {name: open, path: /open, target: ORIGIN}")
        .middlewares(&format!("- {{name: m, type: basicAuth, {paths} rule: {rule}}}"))
        .await
}

#[tokio::test]
async fn a_user_of_the_list_passes_and_nobody_else() {
    let origin = Origin::start().await;
    let users = format!(
        "users: [{{username: admin, password: pw}}, {{username: ann, password: '{BCRYPT}'}}, 'old:{{SHA}}W6ph5Mm5Pz8GgiULbPgzG37mj9g=']"
    );
    let gateway = with(&origin, "", &format!("{{realm: Staff, {users}}}")).await;
    for (description, header, status) in [
        ("row 22: plain text", basic("admin", "pw"), 200),
        ("bcrypt", basic("ann", "password"), 200),
        ("row 28: SHA, written the older way", basic("old", "password"), 200),
        ("scheme in another case (RFC 9110 §11.1)", basic("admin", "pw").replace("Basic", "BASIC"), 200),
        ("row 25: empty password", basic("admin", ""), 401),
        ("wrong password", basic("admin", "pw2"), 401),
        ("unknown user", basic("eve", "pw"), 401),
        ("another user's password", basic("ann", "pw"), 401),
        ("row 26: the hash is no password", basic("ann", BCRYPT), 401),
        ("another scheme", "Bearer abc".to_owned(), 401),
        ("no base64", "Basic %%%".to_owned(), 401),
    ] {
        origin.forget();
        let reply = gateway.get("/x").header("Authorization", &header).await;
        assert_eq!(reply.status, status, "{description}");
        assert_eq!(origin.saw_nothing(), status == 401, "{description}");
        if status == 401 {
            assert_eq!(reply.header("WWW-Authenticate"), Some("Basic realm=\"Staff\""), "{description}");
            assert_eq!(reply.text(), "401 Unauthorized\n", "{description}");
        }
    }
    let reply = gateway.get("/x").await;
    assert_eq!(reply.status, 401, "row 21: nothing sent");
    gateway
        .counts(r#"goma_edge_auth_total{kind="basic",middleware="m",reason="no_credentials",result="denied"} 1"#)
        .await;
    gateway.counts(r#"goma_edge_request_ends_total{name="r",reason="denied:basic"} 8"#).await;
}

#[tokio::test]
async fn paths_say_what_is_protected_and_without_them_all_is() {
    let origin = Origin::start().await;
    let gateway = with(&origin, "paths: [/admin],", "{users: [{username: a, password: b}]}").await;
    for (path, status) in [("/", 200), ("/admin", 401), ("/ADMIN", 401), ("/%61dmin/x", 401), ("//admin", 401)] {
        assert_eq!(gateway.get(path).await.status, status, "{path}");
    }
    let gateway = with(&origin, "", "{users: [{username: a, password: b}]}").await;
    for (path, status) in [("/", 401), ("/any", 401), ("/open", 200)] {
        assert_eq!(gateway.get(path).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn the_backend_learns_the_user_from_the_gateway_alone() {
    let origin = Origin::start().await;
    let gateway =
        with(&origin, "paths: [/in],", "{forwardUsername: true, users: [{username: admin, password: pw}]}").await;
    let login = basic("admin", "pw");
    let request =
        gateway.get("/in").header("Authorization", &login).header("username", "root").header("Connection", "Username");
    assert_eq!(request.await.status, 200, "row 23");
    let seen = origin.last();
    assert_eq!(seen.headers.all("username"), ["admin"], "row 22: set once, and `Connection` cannot remove it");
    assert_eq!(seen.header("Authorization"), Some(&*login), "row 22: goes on");
    for spelling in ["Username", "USERNAME"] {
        assert_eq!(gateway.get("/out").header(spelling, "root").await.status, 200);
        assert!(!origin.last().headers.has("username"), "{spelling} is the client's word alone");
    }
}

#[tokio::test]
async fn it_works_over_http2_and_before_upgrades() {
    let origin = Origin::start().await;
    origin.on("/ws", Answer::websocket());
    let gateway = with(&origin, "", "{users: [{username: a, password: b}]}").await;
    let client = gateway.h2().await;
    assert_eq!(client.get("/x").await.status, 401);
    let upgrade = "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let reply = gateway.raw(upgrade.as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 401"), "{reply}");
    assert!(origin.saw_nothing());
}

#[tokio::test]
async fn a_list_that_lets_nobody_or_anybody_in_refuses_the_configuration() {
    for (description, rule, message) in [
        ("no users", "{}", "rule.users: are missing; list who may pass, each with username and password"),
        ("row 29: no colon", "{users: [noColon]}", "no `:` between name and password"),
        ("empty password", "{users: [{username: a}]}", "rule.users[0].password: is empty"),
        ("empty name", "{users: [{password: a}]}", "rule.users[0].username: is empty"),
        (
            "unknown form",
            "{users: [{username: a, password: '$scrypt$x$y'}]}",
            "looks like a hash of a form that is not known",
        ),
        ("unset variable", "{users: [{username: a, password: '${NO_SUCH_NAME}'}]}", "NO_SUCH_NAME"),
        ("a typo", "{user: [{username: a, password: b}]}", "did you mean \"users\"?"),
    ] {
        let output = Gateway::builder()
            .routes("- {name: r, path: /, target: 'http://127.0.0.1:9', middlewares: [m]}")
            .middlewares(&format!("- {{name: m, type: basic, rule: {rule}}}"))
            .start_fails()
            .await;
        assert!(output.all().contains(message), "{description}: {}", output.all());
    }
}

#[tokio::test]
async fn no_password_is_ever_logged() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin)
        .gateway("log: {level: trace}\ndebug: true")
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [m]}")
        .middlewares("- {name: m, type: basicAuth, rule: {users: [{username: ann, password: s3cr3t-pw}]}}")
        .await;
    let (right, wrong) = (basic("ann", "s3cr3t-pw"), basic("ann", "wr0ng-pw"));
    assert_eq!(gateway.get("/").header("Authorization", &right).await.status, 200);
    assert_eq!(gateway.get("/").header("Authorization", &wrong).await.status, 401);
    let log = gateway.logs("wrong_password").await;
    for secret in ["s3cr3t-pw", "wr0ng-pw", &right[6..], &wrong[6..]] {
        assert!(!log.contains(secret), "{secret} in the log");
    }
}

#[tokio::test]
async fn an_unknown_user_takes_as_long_as_a_wrong_password() {
    let origin = Origin::start().await;
    let costly = BCRYPT.replace("$05$", "$10$");
    let rule = format!("{{users: [{{username: plain, password: x}}, {{username: ann, password: '{costly}'}}]}}");
    let gateway = with(&origin, "", &rule).await;
    // The least of some tries is what each costs; a busy machine needs more of them.
    let mut took = [f64::MAX; 3];
    let near =
        |[wrong, unknown, plain]: [f64; 3]| unknown > wrong * 0.5 && unknown < wrong * 2.0 && plain > wrong * 0.5;
    for round in 0..60 {
        for (place, user) in ["ann", "nobody", "plain"].into_iter().enumerate() {
            let (status, elapsed) = login(&gateway, user, &format!("wrong{round}")).await;
            assert_eq!(status, 401);
            took[place] = took[place].min(elapsed);
        }
        if round >= 5 && near(took) {
            break;
        }
    }
    assert!(near(took), "wrong password, unknown user, user with a quick form: {took:?} s");
    let mut right = f64::MAX;
    for _ in 0..10 {
        let (status, elapsed) = login(&gateway, "plain", "x").await;
        assert_eq!(status, 200);
        right = right.min(elapsed);
    }
    assert!(right < took[0], "who is right does not wait");
}

/// Status and seconds of a login.
async fn login(gateway: &Gateway, user: &str, password: &str) -> (u16, f64) {
    let started = Instant::now();
    let status = gateway.get("/").header("Authorization", &basic(user, password)).await.status;
    (status, started.elapsed().as_secs_f64())
}

#[tokio::test]
async fn a_thousand_slow_logins_do_not_delay_other_routes() {
    let origin = Origin::start().await;
    let gateway = with(&origin, "", &format!("{{users: [{{username: ann, password: '{BCRYPT}'}}]}}")).await;
    let quiet = slowest_but_one_percent(&gateway, 300).await;
    let mut logins = tokio::task::JoinSet::new();
    for n in 0..1000 {
        let request = gateway.get("/").header("Authorization", &basic("ann", &format!("wrong{n}")));
        logins.spawn(async move { request.await });
    }
    let busy = slowest_but_one_percent(&gateway, 300).await;
    let mut statuses = std::collections::BTreeMap::new();
    while let Some(Ok(reply)) = logins.join_next().await {
        if reply.status == 503 {
            assert_eq!(reply.header("Retry-After"), Some("1"));
        }
        *statuses.entry(reply.status).or_insert(0) += 1;
    }
    let busy_line = r#"goma_edge_auth_total{kind="basic",middleware="m",reason="busy",result="error"}"#;
    if let Some(refused) = statuses.get(&503) {
        gateway.counts(&format!("{busy_line} {refused}")).await;
    }
    println!("p99 of a plain route: {quiet:?} alone, {busy:?} beside 1,000 logins ({statuses:?})");
    assert_eq!(statuses.values().sum::<i32>(), 1000);
    assert!(statuses.keys().all(|status| [401, 503].contains(status)) && statuses[&401] >= 256, "{statuses:?}");
    // The clients of this test share the processors with the gateway; the figure itself is for a quiet machine.
    assert!(busy < quiet * 2 + Duration::from_millis(150), "{quiet:?} alone, {busy:?} beside the logins");
}

async fn slowest_but_one_percent(gateway: &Gateway, requests: usize) -> Duration {
    let mut connection = gateway.connect().await;
    let mut took = Vec::new();
    for _ in 0..requests {
        let started = Instant::now();
        assert_eq!(connection.send(gateway.get("/open")).await.status, 200);
        took.push(started.elapsed());
    }
    took.sort();
    took[requests * 99 / 100]
}
