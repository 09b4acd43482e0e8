//! `jwt`: who passes with a token, who does not, and what the backend learns.

use serde_json::{Value, json};

use crate::world::tokens::{Signer, coded, in_seconds, key_set};
use crate::world::*;

/// A gateway whose whole root is guarded by one `jwt` with this rule.
async fn guarded(origin: &Origin, rule: &str) -> Gateway {
    with(origin, &format!("rule: {{{rule}}}")).await
}

async fn with(origin: &Origin, middleware: &str) -> Gateway {
    Gateway::before(origin)
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [m]}")
        .middlewares(&format!("- {{name: m, type: jwt, {middleware}}}"))
        .await
}

fn sek() -> Signer {
    Signer::secret("sek")
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// A rule beside the secret, claims, and the status that a token of them gets.
struct Row(&'static str, Value, u16);

#[tokio::test]
async fn tokens_are_judged_by_their_claims() {
    let rows = [
        Row("audience: x", json!({"aud": "x"}), 200),
        Row("audience: x", json!({"aud": ["y", "x"]}), 200),
        Row("audience: x", json!({"aud": "y"}), 401),
        Row("audience: x", json!({}), 401),
        Row("", json!({"aud": "any"}), 200),
        Row("", json!({}), 200),
        Row("issuer: me", json!({"iss": "me"}), 200),
        Row("issuer: me", json!({"iss": "you"}), 401),
        Row("issuer: me", json!({}), 401),
        Row("", json!({"exp": in_seconds(60)}), 200),
        Row("", json!({"exp": in_seconds(-1)}), 401),
        Row("", json!({"nbf": in_seconds(-1)}), 200),
        Row("", json!({"nbf": in_seconds(60)}), 401),
        Row("", json!({"iat": in_seconds(600)}), 200),
        Row("", json!({"exp": "tomorrow"}), 401),
        Row("leeway: 30s", json!({"exp": in_seconds(-10)}), 200),
        Row("leeway: 30", json!({"exp": in_seconds(-10)}), 200),
        Row("leeway: 30s", json!({"exp": in_seconds(-40)}), 401),
        Row("leeway: 30s", json!({"nbf": in_seconds(10)}), 200),
        Row("algorithms: [HS512]", json!({}), 401),
        Row("algorithms: [HS512, HS256]", json!({}), 200),
        Row("alg: HS256", json!({}), 200),
        Row("algo: HS512", json!({}), 401),
        Row("claimsExpression: \"Equals('a','b')\"", json!({"a": "b"}), 200),
        Row("claimsExpression: '!Equals(`zz`,`b`)'", json!({"a": "b"}), 401),
        Row("claimsExpression: 'Contains(`r`,`adm`)'", json!({"r": ["superadmin"]}), 200),
        Row("claimsExpression: 'Contains(`r`,`adm`,`x`)'", json!({"r": ["superadmin"]}), 401),
        Row("claimsExpression: 'Equals (`o.k`,`v`)'", json!({"o": {"k": "v"}}), 200),
        Row("claimsExpression: 'Equals(`t`, true)'", json!({"t": true}), 200),
    ];
    let origin = Origin::start().await;
    for Row(rule, claims, status) in rows {
        let gateway = guarded(&origin, &format!("secret: sek, {rule}")).await;
        origin.forget();
        let reply = gateway.get("/").header("Authorization", &bearer(&sek().token("HS256", &claims))).await;
        assert_eq!(reply.status, status, "{rule} and {claims}: {}", reply.text());
        assert_eq!(origin.saw_nothing(), status != 200, "{rule} and {claims}");
    }
}

#[tokio::test]
async fn a_refusal_says_what_is_asked_for_and_no_more() {
    let origin = Origin::start().await;
    let gateway = guarded(&origin, "secret: sek, issuer: me, claimsExpression: 'Equals(`a`,`b`)'").await;
    let asks = "Bearer realm=\"Restricted\"";
    let invalid = "Bearer realm=\"Restricted\", error=\"invalid_token\"";
    let expired = format!("{invalid}, error_description=\"The token has expired\"");
    let early = format!("{invalid}, error_description=\"The token is not valid yet\"");
    let of = |claims: Value| bearer(&sek().token("HS256", &claims));
    let forged = bearer(&Signer::secret("other").token("HS256", &json!({"iss": "me", "a": "b"})));
    for (about, authorization, message, challenge, reason) in [
        ("nothing", None, "401 Unauthorized", asks, "no_credentials"),
        ("another scheme", Some("Basic YTpi".to_owned()), "Missing Bearer prefix", asks, "malformed"),
        ("a bare word", Some("Bearer".to_owned()), "Missing Bearer prefix", asks, "malformed"),
        (
            "a lower-case scheme without a token",
            Some("bearer x".to_owned()),
            "Missing Bearer prefix",
            asks,
            "malformed",
        ),
        ("no token", Some("Bearer x".to_owned()), "Unauthorized", invalid, "malformed"),
        (
            "an algorithm of another key",
            Some(bearer(&Signer::p256().token("ES256", &json!({})))),
            "Unauthorized",
            invalid,
            "wrong_algorithm",
        ),
        ("a forged signature", Some(forged), "Unauthorized", invalid, "bad_signature"),
        ("expired", Some(of(json!({"exp": 1}))), "Unauthorized", &expired, "expired"),
        ("too early", Some(of(json!({"nbf": in_seconds(99)}))), "Unauthorized", &early, "not_yet_valid"),
        ("another issuer", Some(of(json!({"iss": "you"}))), "Unauthorized", invalid, "wrong_issuer"),
        ("claims that do not fit", Some(of(json!({"iss": "me"}))), "Unauthorized", invalid, "claims_denied"),
    ] {
        let mut request = gateway.get("/");
        if let Some(value) = &authorization {
            request = request.header("Authorization", value);
        }
        let reply = request.await;
        assert_eq!((reply.status, reply.text()), (401, format!("{message}\n")), "{about}");
        assert_eq!(reply.headers.all("WWW-Authenticate"), [challenge], "{about}");
        let metrics = gateway.metrics().await;
        let line =
            format!("goma_edge_auth_total{{kind=\"jwt\",middleware=\"m\",reason=\"{reason}\",result=\"denied\"}}");
        assert!(metrics.contains(&line), "{about}: {line}");
    }
    assert!(origin.saw_nothing());
    let reply = gateway.get("/").accept("application/json").await;
    assert_eq!(reply.text(), "{\"success\":false,\"statusCode\":401,\"error\":\"401 Unauthorized\"}\n");
    let reply = gateway.get("/").header("Authorization", &of(json!({"iss": "me", "a": "b"}))).await;
    assert_eq!(reply.status, 200);
    let allowed = "goma_edge_auth_total{kind=\"jwt\",middleware=\"m\",reason=\"ok\",result=\"allowed\"} 1";
    gateway.counts(allowed).await;
    gateway.counts("goma_edge_request_ends_total{name=\"r\",reason=\"denied:jwt\"} 12").await;
}

#[tokio::test]
async fn the_scheme_counts_in_any_case_and_two_credentials_are_none() {
    let origin = Origin::start().await;
    let gateway = guarded(&origin, "secret: sek").await;
    let token = sek().token("HS256", &json!({}));
    for scheme in ["Bearer ", "bearer ", "BEARER ", "Bearer   "] {
        let reply = gateway.get("/").header("Authorization", &format!("{scheme}{token}")).await;
        assert_eq!(reply.status, 200, "{scheme}");
    }
    let twice =
        gateway.get("/").header("Authorization", &bearer(&token)).header("authorization", &bearer(&token)).await;
    assert_eq!(twice.status, 401);
    for target in [format!("/?access_token={token}"), format!("/?token={token}")] {
        let reply = gateway.get(&target).header("Cookie", &format!("token={token}; jwt={token}")).await;
        assert_eq!(reply.status, 401, "a token is read from one place only");
    }
}

#[tokio::test]
async fn paths_say_what_is_guarded_and_without_them_all_is() {
    let origin = Origin::start().await;
    let some = with(&origin, "paths: [/admin], rule: {secret: sek}").await;
    for (path, status) in [("/admin", 401), ("//admin", 401), ("/%61dmin/x", 401), ("/public", 200)] {
        assert_eq!(some.get(path).await.status, status, "{path}");
    }
    let all = guarded(&origin, "secret: sek").await;
    for path in ["/", "/any", "/admin"] {
        assert_eq!(all.get(path).await.status, 401, "{path}");
    }
}

#[tokio::test]
async fn authorization_stays_here_unless_it_is_to_be_forwarded() {
    let origin = Origin::start().await;
    let value = bearer(&sek().token("HS256", &json!({"sub": "ann"})));
    for (rule, header, expected) in [
        ("", "Authorization", vec![]),
        ("forwardAuthorization: false", "authorization", vec![]),
        ("forwardAuthorization: true", "Authorization", vec![value.as_str()]),
        ("forwardHeaders: {Authorization: sub}", "Authorization", vec!["ann"]),
    ] {
        let gateway = guarded(&origin, &format!("secret: sek, {rule}")).await;
        assert_eq!(gateway.get("/").header(header, &value).await.status, 200, "{rule}");
        assert_eq!(origin.last().headers.all("Authorization"), expected, "{rule}");
    }
}

#[tokio::test]
async fn the_backend_learns_claims_in_their_text_form() {
    let origin = Origin::start().await;
    let headers = "X-User-ID: sub, X-R: roles, X-N: n, X-Big: big, X-T: t, X-O: o, X-In: o.k, X-None: zz, X-Empty: e, X-Null: z, X-Bad: bad, X-Name: name";
    let gateway = guarded(&origin, &format!("secret: sek, forwardHeaders: {{{headers}}}")).await;
    let claims = json!({
        "sub": "u", "roles": ["a", "b"], "n": 3.7, "big": 1_234_567, "t": true, "o": {"k": "v", "a": 1}, "e": "", "z": null,
        "bad": "a\r\nX-Admin: 1", "name": "Zoë",
    });
    assert_eq!(gateway.get("/").header("Authorization", &bearer(&sek().token("HS256", &claims))).await.status, 200);
    let seen = origin.last();
    for (name, value) in [
        ("X-User-ID", Some("u")),
        ("X-R", Some("a,b")),
        ("X-N", Some("4")),
        ("X-Big", Some("1234567")),
        ("X-T", Some("true")),
        ("X-O", Some("map[a:1 k:v]")),
        ("X-In", Some("v")),
        ("X-None", None),
        ("X-Empty", None),
        ("X-Null", Some("<nil>")),
        ("X-Bad", None),
        ("X-Admin", None),
    ] {
        assert_eq!(seen.headers.all(name), Vec::from_iter(value), "{name}");
    }
    assert!(seen.headers.has("X-Name"), "text beyond ASCII goes as UTF-8");
}

#[tokio::test]
async fn a_client_cannot_pretend_to_be_somebody() {
    let origin = Origin::start().await;
    let middleware = "paths: [/in], rule: {secret: sek, forwardHeaders: {X-User-ID: sub, X-Org: org, X-Role: role}}";
    let gateway = with(&origin, middleware).await;
    let value = bearer(&sek().token("HS256", &json!({"sub": "u", "org": "o"})));
    for spelling in ["X-User-ID", "X-User-Id", "x-user-id", "X_User_ID", "x_user-id", "X-USER_ID"] {
        for connection in ["keep-alive", "X-Org", "close, x-org, X_User_ID", "X-User-ID", "x-user-id, X-Role"] {
            let request = gateway.get("/in").header("Authorization", &value).header("Connection", connection);
            let request = request.header(spelling, "evil").header("x_org", "evil").header("X-Org", "evil");
            let reply = request.header("X-Role", "admin").header("x_role", "admin").await;
            assert_eq!(reply.status, 200, "{spelling}, {connection}");
            let seen = origin.last();
            assert_eq!(seen.headers.all("X-User-ID"), ["u"], "{spelling}, {connection}");
            assert_eq!(seen.headers.all("X-Org"), ["o"], "{spelling}, {connection}");
            for stripped in ["X_User_ID", "x_user-id", "X-USER_ID", "x_org", "X-Role", "x_role"] {
                assert!(!seen.headers.has(stripped), "{spelling}, {connection}: {stripped}");
            }
        }
        gateway.get("/out").header(spelling, "evil").await;
        assert!(!origin.last().headers.has(spelling), "{spelling} where no token is asked for");
    }
    origin.forget();
    let reply = gateway.get("/in").header("Authorization", &value).header("Connection", "Authorization").await;
    assert_eq!(reply.status, 400, "the gate knows this name");
    assert!(origin.saw_nothing());
}

#[tokio::test]
async fn a_header_is_written_once_and_the_way_goma_writes_it() {
    let origin = Origin::start().await;
    let gateway = guarded(&origin, "secret: sek, forwardHeaders: {x-user-ID: sub}").await;
    let token = sek().token("HS256", &json!({"sub": "u"}));
    let echo = gateway.get("/").header("Authorization", &bearer(&token)).await.json().to_string();
    assert!(echo.contains("X-User-Id"), "{echo}");
}

#[tokio::test]
async fn no_trick_with_algorithm_or_key_makes_a_token_good() {
    let origin = Origin::start().await;
    let evil = Origin::start().await;
    let (rsa, ec, attacker) = (Signer::rsa(), Signer::p256(), Signer::rsa());
    evil.always(Answer::ok(key_set(&[attacker.jwk("a")])));
    let set = key_set(&[rsa.jwk("a"), ec.jwk("b")]);
    let by_set = Gateway::before(&origin)
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [m]}")
        .middlewares("- {name: m, type: jwt, rule: {jwksFile: FOLDER/keys.json}}")
        .file("keys.json", &set);
    let by_pem = Gateway::before(&origin)
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [m]}")
        .middlewares("- {name: m, type: jwt, rule: {publicKey: FOLDER/key.pem}}")
        .file("key.pem", &rsa.pem());
    let admin = json!({"sub": "admin"});
    let pem = rsa.pem();
    let jwk = rsa.jwk("a").to_string();
    let hs = |secret: &str, id: &str| Signer::secret(secret).named("HS256", id, &admin);
    let url = evil.to_string();
    let hints = json!({"alg": "RS256", "kid": "a", "jku": url, "x5u": url, "jwk": attacker.jwk("a"), "x5c": ["AAAA"]});
    let unsigned =
        |alg: &str| format!("{}.{}.", coded(&json!({"alg": alg, "kid": "a"}).to_string()), coded(&admin.to_string()));
    let good = rsa.named("RS256", "a", &json!({"sub": "ann"}));
    let parts: Vec<&str> = good.split('.').collect();
    let mut forged = vec![
        ("the public key as secret", hs(&pem, "a")),
        ("the public key without its last line end", hs(pem.trim_end(), "a")),
        ("the key as published", hs(&jwk, "a")),
        ("the whole set", hs(&set, "a")),
        ("an empty secret", hs("", "a")),
        ("keys of the attacker's in the header", attacker.token_of(&hints, &admin)),
        ("other claims", [parts[0], &coded(&admin.to_string()), parts[2]].join(".")),
        ("no signature", [parts[0], parts[1], ""].join(".")),
        ("an elliptic signature by the attacker", Signer::p256().named("ES256", "b", &admin)),
        (
            "another algorithm for the same key",
            [&coded("{\"alg\":\"ES256\",\"kid\":\"a\"}"), parts[1], parts[2]].join("."),
        ),
        (
            "zeros as a signature",
            format!("{}.{}.{}", coded("{\"alg\":\"ES256\",\"kid\":\"b\"}"), parts[1], "A".repeat(86)),
        ),
    ];
    forged.extend(["none", "None", "NONE", "nOnE", ""].map(|alg| ("none", unsigned(alg))));
    let ids =
        ["../../../../dev/null", "/dev/null", "file:///dev/null", "a' OR '1'='1", "a\0", "A", "", "a ", "*", "a\nb"];
    for id in ids {
        forged.push(("a key id with a trick", attacker.named("RS256", id, &admin)));
        forged.push(("a key id with a trick, and an empty secret", hs("", id)));
    }
    for gateway in [by_set.await, by_pem.await] {
        assert_eq!(gateway.get("/").header("Authorization", &bearer(&good)).await.status, 200);
        origin.forget();
        for (about, token) in &forged {
            let reply = gateway.get("/").header("Authorization", &bearer(token)).await;
            assert_eq!((reply.status, reply.text().as_str()), (401, "Unauthorized\n"), "{about}: {token}");
        }
        assert!(origin.saw_nothing() && evil.saw_nothing());
    }
}

#[tokio::test]
async fn huge_tokens_do_no_harm() {
    let origin = Origin::start().await;
    let gateway = guarded(&origin, "secret: sek").await;
    let deep = format!("{{\"a\":{}", "[".repeat(9000));
    for token in [
        "a".repeat(20_000),
        ".".repeat(20_000),
        sek().signed("HS256", &deep, "{}"),
        sek().signed("HS256", "{\"alg\":\"HS256\"}", &deep),
        sek().signed("HS256", &format!("{{\"alg\":\"HS256\",\"kid\":\"{}\"}}", "k".repeat(9000)), "[]"),
    ] {
        let status = gateway.get("/").header("Authorization", &bearer(&token)).await.status;
        assert!(matches!(status, 401 | 431), "{status} for {} bytes", token.len());
    }
    let large = sek().token("HS256", &json!({"groups": vec!["a-group-of-some-length"; 250]}));
    assert_eq!(gateway.get("/").header("Authorization", &bearer(&large)).await.status, 200, "{} bytes", large.len());
}

#[tokio::test]
async fn the_access_line_says_why_and_never_the_token() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin)
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [m]}")
        .middlewares("- {name: m, type: jwt, rule: {secret: sek-that-nobody-must-see-in-a-log, issuer: me}}")
        .env("GOMA_LOG_LEVEL", "debug")
        .await;
    let token = Signer::secret("sek-that-nobody-must-see-in-a-log").token("HS256", &json!({"iss": "you"}));
    gateway.get("/denied").header("Authorization", &bearer(&token)).await;
    let line = gateway.logs("/denied").await;
    assert!(line.contains("denied:jwt") && line.contains("wrong_issuer"), "{line}");
    let log = gateway.log();
    assert!(!log.contains("nobody-must-see") && token.split('.').all(|part| !log.contains(part)), "{log}");
}

#[tokio::test]
async fn explain_verifies_a_token_like_the_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = "gateway: {routes: [{name: r, path: /, target: 'http://127.0.0.1:1', middlewares: [m]}]}\nmiddlewares: [{name: m, type: jwt, rule: {secret: sek, issuer: me}}]\n";
    std::fs::write(folder.path().join("goma.yml"), config).expect("a writable folder");
    for (claims, expected) in [(json!({"iss": "me"}), "lets it pass"), (json!({"iss": "you"}), "refuses it with 401")] {
        let header = format!("Authorization: {}", bearer(&sek().token("HS256", &claims)));
        let arguments = ["config", "explain", "-c", "goma.yml", "GET", "/", "-H", &header];
        let output = goma_in(folder.path(), &[], &arguments).await;
        assert!(output.succeeded() && output.all().contains(expected), "{claims}: {}", output.all());
    }
}
