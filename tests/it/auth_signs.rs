//! What operators see of authentication: counters of what was allowed, denied and failed, how long other servers took, a log
//! line that says why and holds no secret, and what `config explain` says, for each of the five kinds.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::oauth::{CLIENT, CUSTOM, SITE, opaque};
use crate::world::tokens::{Signer, key_set};
use crate::world::*;

const BCRYPT: &str = "$2y$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu";

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn before(origin: &Origin, kind: &str, rule: &str) -> Builder {
    Gateway::before(origin)
        .gateway("log: {level: trace}\ndebug: true")
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [m]}")
        .middlewares(&format!("- {{name: m, type: {kind}, rule: {{{rule}}}}}"))
        .env("GOMA_LOG_LEVEL", "trace")
}

async fn status(gateway: &Gateway, authorization: &str) -> u16 {
    gateway.get("/").accept("application/json").header("Authorization", authorization).await.status
}

/// Waits for the counter and for the access line that says the same, and looks for secrets in everything that was logged.
async fn shows(gateway: &Gateway, kind: &str, reason: &str, result: &str, secrets: &[&str]) {
    let labels = format!("kind=\"{kind}\",middleware=\"m\",reason=\"{reason}\",result=\"{result}\"");
    gateway.counts(&format!("goma_edge_auth_total{{{labels}}} 1")).await;
    if result != "allowed" {
        let line = gateway.logs(&format!("why={reason}")).await;
        let word = if result == "answered" { "answered" } else { "denied" };
        assert!(line.contains(&format!("{word}:{kind}")), "{line}");
    }
    let log = gateway.log();
    for secret in secrets {
        assert!(!log.contains(secret), "{secret} is in the log of {kind}: {log}");
    }
}

async fn waited(gateway: &Gateway, kind: &str, calls: u32) {
    let count = format!("goma_edge_auth_call_duration_seconds_count{{kind=\"{kind}\",middleware=\"m\"}} {calls}");
    gateway.counts(&count).await;
}

#[tokio::test]
async fn basic_says_what_it_decided() {
    let origin = Origin::start().await;
    let gateway = before(&origin, "basicAuth", "users: ['ann:s3cr3t-pw']").await;
    let (right, wrong, nobody) = (basic("ann", "s3cr3t-pw"), basic("ann", "wr0ng-pw"), basic("eve-who", "x0x0"));
    let secrets = ["s3cr3t-pw", "wr0ng-pw", "x0x0", &right[6..], &wrong[6..], &nobody[6..]];
    assert_eq!((status(&gateway, &right).await, status(&gateway, &wrong).await), (200, 401));
    assert_eq!((status(&gateway, &nobody).await, status(&gateway, "Basic ???").await), (401, 401));
    for (reason, result) in
        [("ok", "allowed"), ("wrong_password", "denied"), ("unknown_user", "denied"), ("malformed", "denied")]
    {
        shows(&gateway, "basic", reason, result, &secrets).await;
    }
}

#[tokio::test]
async fn ldap_says_what_it_decided() {
    let (origin, mut slapd) = (Origin::start().await, Slapd::start().await);
    let rule = format!(
        "url: '{}', baseDN: 'ou=people,dc=example,dc=com', userFilter: (uid=%s), bindDN: 'cn=admin,dc=example,dc=com', bindPass: admin-pw, timeout: 2s, connPool: {{burst: 4}}",
        slapd.url()
    );
    let gateway = before(&origin, "ldapAuth", &rule).await;
    let (right, wrong, nobody) = (basic("ann", "ann-pw"), basic("ann", "wr0ng-pw"), basic("eve", "x0x0"));
    let secrets = ["ann-pw", "wr0ng-pw", "admin-pw", "x0x0", &right[6..], &wrong[6..], &nobody[6..]];
    assert_eq!((status(&gateway, &right).await, status(&gateway, &wrong).await), (200, 401));
    assert_eq!(status(&gateway, &nobody).await, 401);
    waited(&gateway, "ldap", 3).await;
    slapd.stop();
    assert_eq!(status(&gateway, &basic("bob", "x0x0")).await, 503);
    waited(&gateway, "ldap", 4).await;
    assert_eq!(status(&gateway, &right).await, 429, "its four logins are used up");
    for (reason, result) in [
        ("ok", "allowed"),
        ("wrong_password", "denied"),
        ("unknown_user", "denied"),
        ("unreachable", "error"),
        ("too_many_logins", "denied"),
    ] {
        shows(&gateway, "ldap", reason, result, &secrets).await;
    }
    gateway.logs("The directory cannot be asked").await;
}

#[tokio::test]
async fn jwt_says_what_it_decided() {
    let (origin, provider) = (Origin::start().await, Origin::start().await);
    let (signer, other) = (Signer::p256(), Signer::p256());
    provider.always(Answer::ok(key_set(&[signer.jwk("a")])));
    let gateway = before(&origin, "jwtAuth", "jwksUrl: PROVIDER/keys").word("PROVIDER", &provider).await;
    let (right, forged) = (signer.named("ES256", "a", &json!({})), other.named("ES256", "a", &json!({"x": 1})));
    let unknown = other.named("ES256", "b", &json!({"x": 2}));
    let secrets: Vec<&str> = [&right, &forged, &unknown].iter().filter_map(|token| token.split('.').nth(2)).collect();
    for (token, expected) in [(&right, 200), (&forged, 401), (&unknown, 401)] {
        assert_eq!(status(&gateway, &format!("Bearer {token}")).await, expected);
    }
    waited(&gateway, "jwt", 1).await;
    for (reason, result) in [("ok", "allowed"), ("bad_signature", "denied"), ("unknown_key", "denied")] {
        shows(&gateway, "jwt", reason, result, &secrets).await;
    }
}

#[tokio::test]
async fn oauth_says_what_it_decided() {
    let (origin, provider) = (Origin::start().await, Origin::start().await);
    provider.on("/token", Answer::ok(opaque().to_string()));
    let gateway = before(&origin, "oauth2", &format!("{CLIENT}, {CUSTOM}")).word("PROVIDER", &provider).await;
    let browser = Browser::knowing("gateway.test", gateway.port());
    let page = browser.open_until(&format!("{SITE}/"), &provider.to_string()).await;
    let state = page.parameter("state").expect("a state");
    let back = browser.open(&format!("{SITE}/callback?state={state}&code=c0de")).await;
    assert_eq!(back.status(), 200);
    let session = browser.cookie("goma_access_token").expect("a session").value;
    let forged = gateway.get("/").accept("application/json").header("Cookie", "goma_access_token=1.f0rged");
    assert_eq!(forged.await.status, 401);
    waited(&gateway, "oauth", 1).await;
    provider.on("/token", Answer::close());
    let another = Browser::knowing("gateway.test", gateway.port());
    let page = another.open_until(&format!("{SITE}/"), &provider.to_string()).await;
    let next = page.parameter("state").expect("a state");
    let back = another.open(&format!("{SITE}/callback?state={next}&code=c0de")).await;
    assert_eq!(back.status(), 503);
    waited(&gateway, "oauth", 2).await;
    let secrets = ["s3cret", "code=c0de", "f0rged", "\"opaque\"", &*state, &*next, &*session];
    for (reason, result) in
        [("ok", "allowed"), ("logged_in", "answered"), ("bad_session", "denied"), ("provider_down", "error")]
    {
        shows(&gateway, "oauth", reason, result, &secrets).await;
    }
    let sent = "goma_edge_auth_total{kind=\"oauth\",middleware=\"m\",reason=\"no_session\",result=\"answered\"} 2";
    gateway.counts(sent).await;
}

#[tokio::test]
async fn forward_auth_says_what_it_decided() {
    let (origin, auth) = (Origin::start().await, Origin::start().await);
    let gateway = before(&origin, "forwardAuth", "authUrl: AUTH/verify?key=s3cr3t-key").word("AUTH", &auth).await;
    auth.always(Answer::ok("").header("Set-Cookie", "sid=c00kie"));
    assert_eq!(status(&gateway, "Bearer t0ken-of-ann").await, 200);
    auth.always(Answer::status(401).body("b0dy of the server"));
    assert_eq!(status(&gateway, "Bearer t0ken-of-eve").await, 401);
    auth.always(Answer::status(500));
    assert_eq!(status(&gateway, "Bearer t0ken-of-eve").await, 500);
    auth.stop().await;
    assert_eq!(status(&gateway, "Bearer t0ken-of-bob").await, 503);
    waited(&gateway, "forwardAuth", 4).await;
    let secrets = ["t0ken", "s3cr3t-key", "c00kie", "b0dy"];
    for (reason, result) in
        [("ok", "allowed"), ("unauthorized", "denied"), ("server_error", "error"), ("unreachable", "error")]
    {
        shows(&gateway, "forwardAuth", reason, result, &secrets).await;
    }
    let line = gateway.logs("Forward authentication failed").await;
    assert!(line.contains("refused"), "{line}");
}

/// A kind with its rule, a request's header, and what `config explain` says of it: verdict and status.
struct Explained<'a>(&'a str, String, Option<String>, &'a str, Value);

#[tokio::test]
async fn explain_says_what_each_kind_would_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let token = Signer::secret("sek").token("HS256", &json!({"sub": "ann"}));
    let directory = "url: 'ldap://127.0.0.1:9', baseDN: b, userFilter: (uid=%s)".to_owned();
    let asks = "authUrl: 'http://127.0.0.1:9/verify'".to_owned();
    let login = format!("{CLIENT}, {CUSTOM}").replace("PROVIDER", "http://127.0.0.1:9");
    let (right, wrong) = (basic("ann", "s3cr3t-pw"), basic("ann", "wr0ng-pw"));
    let plain = "users: ['ann:s3cr3t-pw']".to_owned();
    let authorized = |value: &str| Some(format!("Authorization: {value}"));
    for Explained(kind, rule, header, verdict, status) in [
        Explained("basic", plain.clone(), None, "refuses", json!(401)),
        Explained("basic", plain.clone(), authorized(&wrong), "refuses", json!(401)),
        Explained("basic", plain, authorized(&right), "passes", Value::Null),
        Explained("basic", format!("users: ['ann:{BCRYPT}']"), authorized(&right), "must_ask", Value::Null),
        Explained("ldap", directory.clone(), None, "refuses", json!(401)),
        Explained("ldap", directory, authorized(&right), "must_ask", Value::Null),
        Explained("jwt", "secret: sek".to_owned(), None, "refuses", json!(401)),
        Explained("jwt", "secret: sek".to_owned(), authorized(&format!("Bearer {token}")), "passes", Value::Null),
        Explained("oauth", login.clone(), None, "answers", json!(307)),
        Explained("oauth", login, Some("Accept: application/json".to_owned()), "refuses", json!(401)),
        Explained("forwardAuth", asks.clone(), None, "must_ask", Value::Null),
        Explained("forwardAuth", asks, authorized(&right), "must_ask", Value::Null),
    ] {
        let routes = "- {name: r, path: /, target: 'http://127.0.0.1:9', middlewares: [m]}";
        let config = document("", routes, &format!("- {{name: m, type: {kind}, rule: {{{rule}}}}}"));
        std::fs::write(folder.path().join("goma.yml"), config).expect("a writable folder");
        let mut arguments = vec!["config", "explain", "-c", "goma.yml", "GET", "/x"];
        arguments.extend(header.iter().flat_map(|header| ["-H", header]));
        let text = goma_in(folder.path(), &[], &arguments).await;
        arguments.push("--json");
        let output = goma_in(folder.path(), &[], &arguments).await;
        let said: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{kind}: {}", output.all()));
        let said = &said["middlewares"][0];
        assert_eq!(
            (&said["verdict"], &said["status"]),
            (&json!(verdict), &status),
            "{kind} {header:?}: {}",
            output.all()
        );
        let words = match verdict {
            "must_ask" if kind == "basic" => "checks a slow hash",
            "must_ask" => "would ask another server",
            "passes" => "lets it pass",
            "answers" => "answers it with 307",
            _ => "refuses it with 401",
        };
        assert!(text.stdout.contains(words), "{kind} {header:?}: {}", text.all());
        for secret in ["s3cr3t", "wr0ng", "s3cret", &right[6..], &*token] {
            assert!(!text.all().contains(secret) && !output.all().contains(secret), "{secret}: {}", text.all());
        }
    }
}
