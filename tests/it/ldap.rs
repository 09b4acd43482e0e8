//! Authentication against a real directory. Spec middlewares §5.6, rows 31 and 32.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::world::*;

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// How the directory is asked, unless a test says otherwise.
const PEOPLE: &str = "baseDN: 'ou=people,dc=example,dc=com', userFilter: (uid=%s), bindDN: 'cn=admin,dc=example,dc=com', bindPass: admin-pw";

async fn with(origin: &Origin, url: &str, rule: &str) -> Gateway {
    Gateway::before(origin)
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [m]}")
        .middlewares(&format!("- {{name: m, type: ldapAuth, rule: {{url: '{url}', {rule}}}}}"))
        .await
}

async fn login(gateway: &Gateway, user: &str, password: &str) -> u16 {
    gateway.get("/x").header("Authorization", &basic(user, password)).await.status
}

#[tokio::test]
async fn users_of_the_directory_pass_with_their_password() {
    let (origin, slapd) = (Origin::start().await, Slapd::start().await);
    let gateway = with(&origin, &slapd.url(), &format!("{PEOPLE}, forwardUsername: true")).await;
    for (description, user, password, status) in [
        ("right", "ann", "ann-pw", 200),
        ("right, remembered", "ann", "ann-pw", 200),
        ("another user", "bob", "bob-pw", 200),
        ("wrong password", "ann", "bob-pw", 401),
        ("unknown user", "eve", "ann-pw", 401),
        ("empty password: no unauthenticated bind (RFC 4513 §5.1.2)", "ann", "", 401),
        ("injection: any user", "*", "ann-pw", 401),
        ("injection: closes the filter", "ann)(uid=*", "ann-pw", 401),
        ("injection: or", "x)(|(uid=ann", "ann-pw", 401),
        ("injection: NUL", "ann\0", "ann-pw", 401),
        ("injection: a DN", "uid=ann,ou=people,dc=example,dc=com", "ann-pw", 401),
    ] {
        origin.forget();
        let reply = gateway.get("/x").header("Authorization", &basic(user, password)).header("Username", "root").await;
        assert_eq!(reply.status, status, "{description}");
        match status {
            200 => assert_eq!(origin.last().headers.all("Username"), [user], "{description}"),
            _ => {
                assert!(origin.saw_nothing(), "{description}");
                assert_eq!(reply.header("WWW-Authenticate"), Some("Basic realm=\"Restricted\""), "{description}");
            }
        }
    }
    gateway.counts(r#"goma_edge_auth_total{kind="ldap",middleware="m",reason="ok",result="allowed"} 3"#).await;
    gateway.counts(r#"goma_edge_auth_call_duration_seconds_count{kind="ldap",middleware="m"} 8"#).await;
    let log = gateway.log();
    assert!(!log.contains("ann-pw") && !log.contains("admin-pw"), "no password in the log");
}

#[tokio::test]
async fn a_filter_that_does_not_tell_users_apart_lets_nobody_in() {
    let (origin, slapd) = (Origin::start().await, Slapd::start().await);
    let whole = PEOPLE.replace("ou=people,", "");
    let gateway = with(&origin, &slapd.url(), &whole).await;
    assert_eq!(login(&gateway, "ann", "ann-pw").await, 401);
    assert_eq!(login(&gateway, "bob", "bob-pw").await, 200);
    gateway.logs("why=ambiguous_user").await;
}

#[tokio::test]
async fn anonymous_search_works_where_the_directory_lets_it() {
    let (origin, slapd) = (Origin::start().await, Slapd::start().await);
    let gateway = with(&origin, &slapd.url(), "baseDN: 'ou=people,dc=example,dc=com', userFilter: (uid=%s)").await;
    assert_eq!(login(&gateway, "ann", "ann-pw").await, 200);
    assert_eq!(login(&gateway, "ann", "wrong").await, 401);
}

#[tokio::test]
async fn tls_is_verified_as_configured() {
    let (origin, slapd) = (Origin::start().await, Slapd::start().await);
    let (plain, tls, ca) = (slapd.url(), slapd.tls_url(), slapd.ca());
    for (description, url, rule, status) in [
        ("StartTLS with its authority", &plain, format!("startTLS: true, rootCAs: {ca}"), 200),
        ("StartTLS with the system's", &plain, "startTLS: true".to_owned(), 503),
        ("StartTLS without a look", &plain, "startTLS: true, insecureSkipVerify: true".to_owned(), 200),
        ("LDAPS with its authority", &tls, format!("rootCAs: {ca}"), 200),
        ("LDAPS with the system's", &tls, "timeout: 5s".to_owned(), 503),
        ("LDAPS without a look", &tls, "insecureSkipVerify: true".to_owned(), 200),
    ] {
        let gateway = with(&origin, url, &format!("{PEOPLE}, {rule}")).await;
        assert_eq!(login(&gateway, "ann", "ann-pw").await, status, "{description}: {}", gateway.log());
    }
}

#[tokio::test]
async fn a_directory_that_is_down_means_503_and_comes_back_by_itself() {
    let (origin, mut slapd) = (Origin::start().await, Slapd::start().await);
    let gateway = with(&origin, &slapd.url(), &format!("{PEOPLE}, cacheTtl: 0s, timeout: 2s")).await;
    assert_eq!(login(&gateway, "ann", "ann-pw").await, 200);
    slapd.stop();
    let reply = gateway.get("/x").header("Authorization", &basic("ann", "ann-pw")).await;
    assert_eq!((reply.status, reply.header("Retry-After")), (503, Some("5")), "row 32");
    slapd.run().await;
    assert_eq!(login(&gateway, "ann", "ann-pw").await, 200);
    assert_eq!(login(&gateway, "ann", "wrong").await, 401);
}

#[tokio::test]
async fn a_directory_that_is_silent_means_503_in_time() {
    let origin = Origin::start().await;
    let silent = listen();
    let url = format!("ldap://{}", silent.local_addr().expect("an address"));
    let gateway = with(&origin, &url, &format!("{PEOPLE}, timeout: 300ms")).await;
    let started = std::time::Instant::now();
    assert_eq!(login(&gateway, "ann", "ann-pw").await, 503);
    assert!(started.elapsed() < std::time::Duration::from_secs(3), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_allowance_that_is_given_counts_every_login() {
    let (origin, slapd) = (Origin::start().await, Slapd::start().await);
    let rule = format!("{PEOPLE}, realm: Staff, connPool: {{size: 1, burst: 1, ttl: 60s}}");
    let gateway = with(&origin, &slapd.url(), &rule).await;
    assert_eq!(login(&gateway, "ann", "ann-pw").await, 200);
    let reply = gateway.get("/").header("Authorization", &basic("ann", "ann-pw")).await;
    assert_eq!((reply.status, reply.text().as_str()), (429, "429 Too Many Requests\n"), "row 31");
    assert_eq!(reply.header("Retry-After"), Some("60"));
    assert_eq!(reply.header("WWW-Authenticate"), Some("Basic realm=\"Staff\""));
}

#[tokio::test]
async fn many_logins_share_a_few_connections() {
    let (origin, slapd) = (Origin::start().await, Slapd::start().await);
    let rule = format!("{PEOPLE}, cacheTtl: 0s, connPool: {{size: 4, burst: 1000}}");
    let gateway = with(&origin, &slapd.url(), &rule).await;
    let mut logins = tokio::task::JoinSet::new();
    for n in 0..60 {
        let (user, password) = if n % 2 == 0 { ("ann", "ann-pw") } else { ("bob", "wrong") };
        let request = gateway.get("/x").header("Authorization", &basic(user, password));
        logins.spawn(async move { (n, request.await.status) });
    }
    while let Some(Ok((n, status))) = logins.join_next().await {
        assert_eq!(status, if n % 2 == 0 { 200 } else { 401 }, "login {n}: nobody gets another's answer");
    }
}

#[tokio::test]
async fn settings_that_find_nobody_are_refused() {
    for (rule, message) in [
        ("{url: 'http://x', baseDN: b, userFilter: (uid=%s)}", "rule.url: `http://x` is no directory"),
        ("{url: 'ldap://x', userFilter: (uid=%s)}", "rule.baseDN: is missing"),
        ("{url: 'ldap://x', baseDN: b}", "rule.userFilter: `` finds no user"),
        ("{url: 'ldap://x', baseDN: b, userFilter: (uid=ann)}", "rule.userFilter: `(uid=ann)` finds no user"),
        ("{url: 'ldap://x', baseDN: b, userFilter: '(uid=%s'}", "rule.userFilter: `(uid=%s` finds no user"),
        ("{url: 'ldaps://x', baseDN: b, userFilter: (uid=%s), rootCAs: /none}", "rule.rootCAs: cannot be read"),
    ] {
        let output = Gateway::builder()
            .routes("- {name: r, path: /, target: 'http://127.0.0.1:9', middlewares: [m]}")
            .middlewares(&format!("- {{name: m, type: ldap, rule: {rule}}}"))
            .start_fails()
            .await;
        assert!(output.all().contains(message), "{rule}: {}", output.all());
    }
}
