//! Attacks on `oauth`: forged sessions, answers that belong to others, ways to other sites. RFC 6819, RFC 9700.

use serde_json::{Value, json};

use crate::oauth::{CUSTOM, SITE, Stage, opaque};
use crate::world::tokens::{Signer, coded, in_seconds, key_set};
use crate::world::*;

#[tokio::test]
async fn a_session_that_a_client_made_is_none() {
    for rule in [CUSTOM.to_owned(), CUSTOM.replace('}', ", jwksUrl: PROVIDER/jwks}")] {
        let stage = Stage::with(&rule).await;
        let claims = json!({"sub": "root", "exp": 9_999_999_999_u64});
        let unsigned = format!("{}.{}.", coded(r#"{"alg":"none"}"#), coded(&claims.to_string()));
        for (description, value) in [
            ("a JWT without a signature", unsigned),
            ("a JWT signed with the client's secret", Signer::secret("s3cret").token("HS256", &claims)),
            ("a JWT signed with any key", Signer::p256().named("ES256", "k", &claims)),
            ("an opaque token", "gho_0123456789".to_owned()),
            ("JSON", coded(&json!({"i": "x", "b": 0, "c": 0, "s": "root"}).to_string())),
            ("something in the form of a seal", format!("1.1{}", "A".repeat(200))),
            ("more pieces than there are", "9.1AAAA".to_owned()),
            ("a number too large", "99999999999999999999.1AAAA".to_owned()),
            ("quotes", "\"1.1AAAA\"".to_owned()),
        ] {
            let cookie = format!("goma_access_token={value}; goma_refresh_token={value}");
            assert_eq!(stage.gateway.get("/").header("Cookie", &cookie).await.status, 307, "{description}");
        }
        assert!(stage.origin.saw_nothing() && !stage.provider.seen().iter().any(|seen| seen.target == "/token"));
    }
}

#[tokio::test]
async fn a_session_is_worth_nothing_when_a_letter_changes_or_cookies_are_mixed() {
    let stage = Stage::with(CUSTOM).await;
    stage.grants(&json!({"access_token": "a", "refresh_token": "r", "expires_in": 3600}));
    let (ann, bob) = (stage.logged_in().await, stage.logged_in().await);
    let value = |browser: &Browser, name: &str| browser.cookie(name).expect(name).value;
    let session = value(&ann, "goma_access_token");
    let passes = async |session: &str| {
        let cookie = format!("goma_access_token={session}");
        stage.gateway.get("/").header("Cookie", &cookie).await.status == 200
    };
    assert!(passes(&session).await);
    for at in [0, 2, 3, 10, session.len() / 2, session.len() - 2] {
        let mut changed = session.clone().into_bytes();
        changed[at] = if changed[at] == b'x' { b'y' } else { b'x' };
        assert!(!passes(&String::from_utf8(changed).expect("letters")).await, "letter {at}");
    }
    assert!(!passes(&value(&ann, "goma_refresh_token")).await, "a refresh token is no session");
    assert!(!passes(&session[..session.len() - 4]).await, "cut");
    let half = session.len() / 2;
    let mixed = format!("{}{}", &session[..half], &value(&bob, "goma_access_token")[half..]);
    assert!(!passes(&mixed).await, "half of another session");
}

#[tokio::test]
async fn a_refresh_token_serves_its_own_session_only() {
    let stage = Stage::with(CUSTOM).await;
    stage.grants(&json!({"access_token": "a", "refresh_token": "r", "expires_in": 1}));
    let (ann, bob) = (stage.logged_in().await, stage.logged_in().await);
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    stage.provider.forget();
    bob.put(&[ann.cookie("goma_refresh_token").expect("a refresh token")]);
    assert_eq!(stage.get(&bob, "/").await.status, 307);
    assert!(stage.provider.saw_nothing());
}

#[tokio::test]
async fn an_answer_serves_the_browser_that_asked_and_only_once() {
    let stage = Stage::with(CUSTOM).await;
    stage.grants(&opaque());
    let (attacker, victim) = (stage.browser(), stage.browser());
    // Login CSRF: the attacker's answer in the victim's browser.
    let page = stage.sent_to_provider(&attacker, "/").await;
    assert_eq!(stage.comes_back(&victim, &page, "").await.status, 400);
    stage.sent_to_provider(&victim, "/").await;
    assert_eq!(stage.comes_back(&victim, &page, "").await.status, 400, "nor with a login of its own");
    assert!(stage.provider.saw_nothing());
    // Replay: the same answer again, with the cookies as they were.
    let before = attacker.cookies();
    assert_eq!(stage.comes_back(&attacker, &page, "").await.status, 303);
    attacker.put(&before);
    assert_eq!(stage.comes_back(&attacker, &page, "").await.status, 400);
    assert_eq!(stage.provider.seen().len(), 1, "the code was redeemed once");
}

#[tokio::test]
async fn two_answers_at_once_make_one_session() {
    let stage = Stage::with(CUSTOM).await;
    stage.provider.on("/token", Answer::ok(opaque().to_string()).delay(std::time::Duration::from_millis(200)));
    let browser = stage.browser();
    let page = stage.sent_to_provider(&browser, "/").await;
    let both =
        futures::future::join(stage.comes_back(&browser, &page, ""), stage.comes_back(&browser, &page, "")).await;
    let mut statuses = [both.0.status, both.1.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [303, 400]);
    assert_eq!(stage.provider.seen().len(), 1);
}

#[tokio::test]
async fn a_login_never_ends_on_another_site() {
    for (asked, target) in [
        ("//evil.example/x", "/evil.example/x"),
        ("///evil.example", "/evil.example"),
        ("/x?next=//evil.example", "/x?next=//evil.example"),
    ] {
        let stage = Stage::with(CUSTOM).await;
        stage.grants(&opaque());
        let browser = stage.browser();
        let reply = browser.fetch(stage.gateway.get(asked).host("gateway.test"), SITE).await;
        let location = reply.header("Location").unwrap_or_else(|| panic!("{asked}: {reply:?}")).to_owned();
        let page = Page { url: location, reply, way: Vec::new() };
        let reply = stage.comes_back(&browser, &page, "&redirect=//evil.example").await;
        assert_eq!((reply.status, reply.header("Location")), (303, Some(target)), "{asked}");
        assert_eq!(reply.headers.all("Set-Cookie").iter().filter(|cookie| cookie.starts_with("a=")).count(), 0);
    }
}

#[tokio::test]
async fn an_answer_of_another_provider_is_not_redeemed() {
    let stage = Stage::with("endpoint: {authUrl: PROVIDER/auth, tokenUrl: PROVIDER/token, issuer: PROVIDER}").await;
    let document = json!({
        "issuer": stage.provider.to_string(),
        "authorization_response_iss_parameter_supported": true,
    });
    stage.provider.on("/.well-known/openid-configuration", Answer::ok(document.to_string()));
    eventually("the provider is found", async || (stage.gateway.get("/").await.status == 307).then_some(())).await;
    stage.grants(&opaque());
    let own = format!("&iss={}", stage.provider);
    for (description, more, status) in
        [("another issuer", "&iss=https://evil.example", 400), ("no issuer", "", 400), ("its own", &*own, 303)]
    {
        stage.provider.forget();
        let browser = stage.browser();
        let page = stage.sent_to_provider(&browser, "/").await;
        assert_eq!(stage.comes_back(&browser, &page, more).await.status, status, "{description}");
        assert_eq!(stage.provider.saw_nothing(), status == 400, "{description}");
    }
}

/// What changes in an ID token that is good otherwise.
type Change = fn(&mut Value);

#[tokio::test]
async fn an_id_token_that_is_not_for_this_login_ends_it() {
    let stage = Stage::with(
        "endpoint: {authUrl: PROVIDER/auth, tokenUrl: PROVIDER/token, jwksUrl: PROVIDER/jwks}, scopes: [openid]",
    )
    .await;
    let (signer, other, rsa) = (Signer::p256(), Signer::p256(), Signer::rsa());
    stage.provider.on("/jwks", Answer::ok(key_set(&[signer.jwk("k1"), rsa.jwk("k2")])));
    let same: Change = |_| {};
    let rows: [(&str, &Signer, &str, &str, Change, u16); 11] = [
        ("good", &signer, "ES256", "k1", same, 303),
        ("of another key", &other, "ES256", "k1", same, 500),
        ("of an unknown key", &other, "ES256", "k9", same, 500),
        ("of the right key with another id", &signer, "ES256", "k2", same, 500),
        ("for somebody else", &signer, "ES256", "k1", |claims| claims["aud"] = json!("other"), 500),
        ("for several, given to another", &signer, "ES256", "k1", |claims| claims["azp"] = json!("other"), 500),
        ("of another login", &signer, "ES256", "k1", |claims| claims["nonce"] = json!("other"), 500),
        ("without a nonce", &signer, "ES256", "k1", |claims| claims["nonce"] = Value::Null, 500),
        ("that has ended", &signer, "ES256", "k1", |claims| claims["exp"] = json!(in_seconds(-120)), 500),
        ("without an end", &signer, "ES256", "k1", |claims| claims["exp"] = Value::Null, 500),
        ("of nobody", &signer, "ES256", "k1", |claims| claims["sub"] = Value::Null, 500),
    ];
    for (description, signer, algorithm, key, change, status) in rows {
        let browser = stage.browser();
        let page = stage.sent_to_provider(&browser, "/").await;
        let mut claims = json!({"sub": "ann", "aud": "id", "exp": in_seconds(60), "nonce": page.parameter("nonce")});
        change(&mut claims);
        let id_token = signer.named(algorithm, key, &claims);
        stage.grants(&json!({"access_token": "opaque", "id_token": id_token}));
        assert_eq!(stage.comes_back(&browser, &page, "").await.status, status, "{description}");
    }
}

/// OpenID Connect Core §10.1.
#[tokio::test]
async fn an_id_token_names_its_key_only_where_there_are_several() {
    let rule = "endpoint: {authUrl: PROVIDER/auth, tokenUrl: PROVIDER/token, jwksUrl: PROVIDER/jwks}, scopes: [openid]";
    let (signer, other, rsa) = (Signer::p256(), Signer::p256(), Signer::rsa());
    let nameless = |signer: &Signer| {
        let mut jwk = signer.jwk("");
        jwk.as_object_mut().expect("an object").remove("kid");
        jwk
    };
    for (description, keys, by, status) in [
        ("the only key for its algorithm", vec![signer.jwk("k1"), rsa.jwk("k2")], &signer, 303),
        ("the only key, without an id", vec![nameless(&signer)], &signer, 303),
        ("another key", vec![nameless(&signer)], &other, 500),
        ("one of two keys", vec![signer.jwk("k1"), other.jwk("k2")], &signer, 500),
        ("one of two keys, one without an id", vec![nameless(&signer), other.jwk("k2")], &signer, 500),
    ] {
        let stage = Stage::with(rule).await;
        stage.provider.on("/jwks", Answer::ok(key_set(&keys)));
        let browser = stage.browser();
        let page = stage.sent_to_provider(&browser, "/").await;
        let claims = json!({"sub": "ann", "aud": "id", "exp": in_seconds(60), "nonce": page.parameter("nonce")});
        stage.grants(&json!({"access_token": "opaque", "id_token": by.token("ES256", &claims)}));
        assert_eq!(stage.comes_back(&browser, &page, "").await.status, status, "{description}");
    }
}

#[tokio::test]
async fn a_token_signed_with_what_everybody_knows_ends_the_login() {
    let stage = Stage::with(
        "endpoint: {authUrl: PROVIDER/auth, tokenUrl: PROVIDER/token, jwksUrl: PROVIDER/jwks}, scopes: [openid]",
    )
    .await;
    let signer = Signer::p256();
    let published = key_set(&[signer.jwk("k1")]);
    stage.provider.on("/jwks", Answer::ok(published.clone()));
    for (description, header, secret) in [
        ("the published keys as a secret", json!({"alg": "HS256", "kid": "k1"}), &*published),
        ("the client's secret", json!({"alg": "HS256", "kid": "k1"}), "s3cret"),
        ("nothing", json!({"alg": "none", "kid": "k1"}), ""),
        ("a key in its own head", json!({"alg": "ES256", "kid": "k1", "jwk": signer.jwk("k1")}), "x"),
    ] {
        let browser = stage.browser();
        let page = stage.sent_to_provider(&browser, "/").await;
        let claims = json!({"sub": "root", "aud": "id", "exp": in_seconds(60), "nonce": page.parameter("nonce")});
        let token = Signer::secret(secret).token_of(&header, &claims);
        stage.grants(&json!({"access_token": token.clone(), "id_token": token}));
        assert_eq!(stage.comes_back(&browser, &page, "").await.status, 500, "{description}");
    }
    let browser = stage.browser();
    let page = stage.sent_to_provider(&browser, "/").await;
    stage.grants(&json!({"access_token": "opaque"}));
    assert_eq!(stage.comes_back(&browser, &page, "").await.status, 500, "nothing says who it is");
}

#[tokio::test]
async fn user_info_about_somebody_else_ends_the_login() {
    let rule = "endpoint: {authUrl: PROVIDER/auth, tokenUrl: PROVIDER/token, userInfoUrl: PROVIDER/me, jwksUrl: PROVIDER/jwks}, scopes: [openid]";
    let stage = Stage::with(rule).await;
    let signer = Signer::p256();
    stage.provider.on("/jwks", Answer::ok(key_set(&[signer.jwk("k1")])));
    for (sub, status) in [("eve", 500), ("ann", 303)] {
        stage.provider.on("/me", Answer::ok(json!({"sub": sub}).to_string()));
        let browser = stage.browser();
        let page = stage.sent_to_provider(&browser, "/").await;
        let claims = json!({"sub": "ann", "aud": "id", "exp": in_seconds(60), "nonce": page.parameter("nonce")});
        stage.grants(&json!({"access_token": "opaque", "id_token": signer.named("ES256", "k1", &claims)}));
        assert_eq!(stage.comes_back(&browser, &page, "").await.status, status, "{sub}");
    }
}

#[tokio::test]
async fn what_a_provider_sends_does_not_break_out_of_headers() {
    let endpoint = CUSTOM.replace('}', ", userInfoUrl: PROVIDER/me}");
    let stage = Stage::with(&format!("{endpoint}, forwardHeaders: {{X-User: sub, X-Name: name}}")).await;
    stage.provider.on("/me", Answer::ok(json!({"sub": "ann\r\nX-Admin: yes", "name": "Ann Ä"}).to_string()));
    stage.grants(&opaque());
    let browser = stage.logged_in().await;
    assert_eq!(stage.get(&browser, "/").await.status, 200);
    let seen = stage.origin.last();
    assert_eq!((seen.header("X-User"), seen.header("X-Admin")), (None, None));
    assert!(seen.header("X-Name").is_some());
    stage.grants(&json!({"access_token": "a\r\nX-Admin: yes"}));
    let browser = stage.browser();
    let page = stage.sent_to_provider(&browser, "/").await;
    assert_eq!(stage.comes_back(&browser, &page, "").await.status, 500);
}

#[tokio::test]
async fn a_session_that_somebody_planted_does_not_outlive_a_login() {
    let stage = Stage::with(&format!("{CUSTOM}, logoutPath: /logout")).await;
    stage.grants(&opaque());
    let (attacker, victim) = (stage.logged_in().await, stage.browser());
    let planted = attacker.cookies();
    victim.put(&planted);
    let url = format!("{SITE}/logout");
    victim.fetch(victim.request("POST", &url, "x=y"), &url).await;
    assert_eq!(stage.get(&attacker, "/").await.status, 307, "the planted one is over");
    let page = stage.sent_to_provider(&victim, "/").await;
    // It is planted again while the victim logs in.
    victim.put(&planted);
    assert_eq!(stage.comes_back(&victim, &page, "").await.status, 303);
    for name in ["goma_access_token", "goma_refresh_token"] {
        let old = planted.iter().find(|kept| kept.name == name).expect(name);
        assert_ne!(victim.cookie(name).expect(name).value, old.value, "{name} is new");
    }
    assert_eq!((stage.get(&victim, "/").await.status, stage.get(&attacker, "/").await.status), (200, 307));
}

#[tokio::test]
async fn upgrades_and_http2_need_a_session_too() {
    let stage = Stage::with(&format!("{CUSTOM}, forwardAccessToken: true")).await;
    stage.grants(&json!({"access_token": "t".repeat(9000), "refresh_token": "r", "expires_in": 3600}));
    stage.origin.on("/ws", Answer::websocket());
    let reply = WebSocket::open(stage.gateway.get("/ws"), "websocket").await.expect_err("no WebSocket");
    assert_eq!(reply.status, 401, "nobody can follow a redirect from there");
    let client = stage.gateway.h2().await;
    assert_eq!(client.get("/").await.status, 307);
    assert!(stage.origin.saw_nothing());
    let kept = stage.logged_in().await.cookies();
    let crumbs: Vec<String> = kept.iter().map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
    assert!(crumbs.len() > 3, "in several cookies");
    let request = stage.gateway.get("/ws").header("Cookie", &crumbs.join("; "));
    let mut socket = WebSocket::open(request, "websocket").await.unwrap_or_else(|reply| panic!("{reply:?}"));
    socket.echoes("hello").await;
    let mut request = client.request("GET", "/");
    for crumb in &crumbs {
        request = request.header("cookie", crumb);
    }
    let reply = client.call(request.body(()).expect("a request"), true).await.finish().await.expect("a response");
    assert_eq!(reply.status, 200, "a line for each cookie");
}

#[tokio::test]
async fn pieces_of_a_session_do_not_fit_anywhere_else() {
    let stage = Stage::with(&format!("{CUSTOM}, forwardAccessToken: true")).await;
    stage.grants(&json!({"access_token": "t".repeat(9000), "expires_in": 3600}));
    let (ann, bob) = (stage.logged_in().await, stage.logged_in().await);
    let value = |browser: &Browser, name: &str| browser.cookie(name).expect(name).value;
    let pieces = |browser: &Browser| {
        ["goma_access_token", "goma_access_token_1", "goma_access_token_2", "goma_access_token_3"]
            .map(|name| (name, value(browser, name)))
    };
    let (own, other) = (pieces(&ann), pieces(&bob));
    let ask = async |pairs: &[(&str, &str)]| {
        let line: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        stage.gateway.get("/").header("Cookie", &line.join("; ")).await.status
    };
    let pairs: Vec<(&str, &str)> = own.iter().map(|(name, value)| (*name, &**value)).collect();
    assert_eq!(ask(&pairs).await, 200);
    let mut turned = pairs.clone();
    turned.reverse();
    assert_eq!(ask(&turned).await, 200, "in another order");
    for place in 0..pairs.len() {
        let mut mixed = pairs.clone();
        mixed[place].1 = &other[place].1;
        assert_eq!(ask(&mixed).await, 307, "piece {place} of somebody else");
        let mut without = pairs.clone();
        without.remove(place);
        assert_eq!(ask(&without).await, 307, "without piece {place}");
    }
    let fewer = own[0].1.replacen("4.", "3.", 1);
    assert_eq!(ask(&[("goma_access_token", &fewer), pairs[1], pairs[2], pairs[3]]).await, 307, "another count");
}
