//! Where `jwt` has its keys from: the configuration, files that change, and sets that an identity provider publishes.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::world::tokens::{Signer, in_seconds, key_set};
use crate::world::*;

fn route(origin: &Origin, rule: &str) -> Builder {
    Gateway::before(origin)
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [m]}")
        .middlewares(&format!("- {{name: m, type: jwtAuth, rule: {{{rule}}}}}"))
}

/// An identity provider with this answer for its keys.
async fn provider(answer: Answer) -> Origin {
    let provider = Origin::start().await;
    provider.on("/keys", answer);
    provider
}

async fn trusting(origin: &Origin, provider: &Origin) -> Gateway {
    route(origin, "jwksUrl: PROVIDER/keys").word("PROVIDER", provider).await
}

fn set(signers: &[(&str, &Signer)]) -> Answer {
    let keys: Vec<_> = signers.iter().map(|(id, signer)| signer.jwk(id)).collect();
    Answer::ok(key_set(&keys)).header("Content-Type", "application/json")
}

/// The status of a request with a token of this key.
async fn status(gateway: &Gateway, signer: &Signer, id: &str) -> u16 {
    let algorithm = match signer {
        Signer::Rsa(_) => "RS256",
        _ => "ES256",
    };
    let token = signer.named(algorithm, id, &json!({"exp": in_seconds(600)}));
    gateway.get("/").header("Authorization", &format!("Bearer {token}")).await.status
}

#[tokio::test]
async fn keys_come_in_every_form() {
    let origin = Origin::start().await;
    let (rsa, ec, ed) = (Signer::rsa(), Signer::p384(), Signer::ed25519());
    let json = key_set(&[rsa.jwk("a"), ec.jwk("b"), ed.jwk("c")]);
    let quoted = |text: &str| json!(text).to_string();
    let tokens =
        [rsa.named("PS384", "a", &json!({})), ec.named("ES384", "b", &json!({})), ed.named("EdDSA", "c", &json!({}))];
    let all = [200, 200, 200];
    for (about, rule, expected) in [
        ("PEM", format!("publicKey: {}", quoted(&rsa.pem())), [200, 401, 401]),
        ("PEM in base64", format!("publicKey: {}", STANDARD.encode(ec.pem())), [401, 200, 401]),
        ("PEM in a file", "publicKey: FOLDER/key.pem".to_owned(), [401, 401, 200]),
        ("a set", format!("jwksFile: {}", quoted(&json)), all),
        ("a set in base64", format!("jwksFile: {}", STANDARD.encode(&json)), all),
        ("a set in a file", "jwksFile: FOLDER/keys.json".to_owned(), all),
        ("a set in a file, relative", "jwksFile: keys.json".to_owned(), all),
        ("a set before a key", "jwksFile: keys.json, publicKey: key.pem".to_owned(), all),
        ("an empty set, and a key", "jwksFile: '{\"keys\":[]}', publicKey: key.pem".to_owned(), [401, 401, 200]),
        ("a secret before a set", "secret: sek, jwksFile: keys.json".to_owned(), [401, 401, 401]),
        ("a set with fewer algorithms", "jwksFile: keys.json, algorithms: [ES384, EdDSA]".to_owned(), [401, 200, 200]),
    ] {
        let gateway = route(&origin, &rule).file("key.pem", &ed.pem()).file("keys.json", &json).await;
        for (token, status) in tokens.iter().zip(expected) {
            let reply = gateway.get("/").header("Authorization", &format!("Bearer {token}")).await;
            assert_eq!(reply.status, status, "{about}: {token}");
        }
    }
}

#[tokio::test]
async fn a_published_set_is_fetched_once_for_many_requests() {
    let (origin, signer) = (Origin::start().await, Signer::p256());
    let provider = provider(set(&[("a", &signer)])).await;
    let gateway = trusting(&origin, &provider).await;
    for _ in 0..50 {
        assert_eq!(status(&gateway, &signer, "a").await, 200);
    }
    assert_eq!(provider.seen().len(), 1);
    assert_eq!(provider.last().target, "/keys");
    let secret = Signer::secret("sek").named("HS256", "a", &json!({}));
    let unnamed = signer.token("ES256", &json!({}));
    for token in [secret, unnamed] {
        assert_eq!(gateway.get("/").header("Authorization", &format!("Bearer {token}")).await.status, 401);
    }
    assert_eq!(provider.seen().len(), 1, "tokens that no fetch could help cause none");
}

#[tokio::test]
async fn a_rotated_key_is_found_at_once() {
    let (origin, old, new) = (Origin::start().await, Signer::p256(), Signer::rsa());
    let provider = provider(set(&[("a", &old)])).await;
    let gateway = trusting(&origin, &provider).await;
    assert_eq!(status(&gateway, &old, "a").await, 200);
    provider.on("/keys", set(&[("b", &new)]));
    assert_eq!(status(&gateway, &old, "a").await, 200, "until the set is fetched again");
    assert_eq!(status(&gateway, &new, "b").await, 200);
    assert_eq!(provider.seen().len(), 2);
    assert_eq!(status(&gateway, &old, "a").await, 401, "and not with the new set");
}

#[tokio::test]
async fn made_up_key_ids_do_not_become_load_on_the_provider() {
    let (origin, signer, attacker) = (Origin::start().await, Signer::p256(), Signer::p256());
    let provider = provider(set(&[("a", &signer)]).delay(Duration::from_millis(100))).await;
    let gateway = trusting(&origin, &provider).await;
    assert_eq!(status(&gateway, &signer, "a").await, 200);
    let started = Instant::now();
    let requests = (0..200).map(|number| {
        let token = attacker.named("ES256", &format!("made-up-{number}"), &json!({}));
        gateway.get("/").header("Authorization", &format!("Bearer {token}"))
    });
    for reply in futures::future::join_all(requests.map(|request| async move { request.await.status })).await {
        assert_eq!(reply, 401);
    }
    let granted = 3 + started.elapsed().as_secs() as usize / 5;
    assert!(provider.seen().len() <= granted, "{} fetches", provider.seen().len());
    assert_eq!(status(&gateway, &signer, "a").await, 200);
    gateway
        .counts("goma_edge_auth_total{kind=\"jwt\",middleware=\"m\",reason=\"unknown_key\",result=\"denied\"} 200")
        .await;
}

#[tokio::test]
async fn many_first_requests_wait_for_one_fetch() {
    let (origin, signer) = (Origin::start().await, Signer::p256());
    let held = set(&[("a", &signer)]).reading_on_release();
    let provider = provider(held).await;
    let gateway = trusting(&origin, &provider).await;
    let requests = futures::future::join_all((0..50).map(|_| status(&gateway, &signer, "a")));
    let release = async {
        eventually("the fetch is under way", async || (!provider.saw_nothing()).then_some(())).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        provider.release();
    };
    let (statuses, ()) = tokio::join!(requests, release);
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!(provider.seen().len(), 1);
    let metrics = gateway.metrics().await;
    assert!(metrics.contains("goma_edge_auth_call_duration_seconds_count{kind=\"jwt\",middleware=\"m\"}"), "{metrics}");
}

#[tokio::test]
async fn without_any_key_it_is_the_gateway_that_fails_and_a_stale_set_is_better_than_none() {
    let (origin, signer) = (Origin::start().await, Signer::p256());
    let provider = provider(set(&[("a", &signer)])).await;
    provider.stop().await;
    let gateway = trusting(&origin, &provider).await;
    let token = signer.named("ES256", "a", &json!({}));
    let reply = gateway.get("/").header("Authorization", &format!("Bearer {token}")).await;
    assert_eq!((reply.status, reply.header("Retry-After")), (503, Some("5")));
    assert_eq!(gateway.get("/").await.status, 401, "who sends no token is asked for one all the same");
    assert!(origin.saw_nothing());
    let line = gateway.logs("No keys fetched").await;
    assert!(line.contains("/keys"), "{line}");
    let metrics = gateway.metrics().await;
    let error = "goma_edge_auth_total{kind=\"jwt\",middleware=\"m\",reason=\"keys_unavailable\",result=\"error\"}";
    assert!(metrics.contains(error), "{metrics}");
    provider.restart_on_same_port().await;
    eventually("keys are had again", async || (status(&gateway, &signer, "a").await == 200).then_some(())).await;
    for answer in [
        Answer::status(500),
        Answer::ok("<html>"),
        Answer::ok("{}"),
        Answer::ok("x".repeat(3 << 20)),
        Answer::status(302).header("Location", "/elsewhere"),
        Answer::close(),
    ] {
        provider.on("/keys", answer);
        assert_eq!(status(&gateway, &signer, "b").await, 401, "an unknown key asks for a fetch, which may fail");
        assert_eq!(status(&gateway, &signer, "a").await, 200);
    }
    assert!(provider.seen().iter().all(|seen| seen.target == "/keys"), "redirects are not followed");
    provider.stop().await;
    assert_eq!(status(&gateway, &signer, "a").await, 200);
}

#[tokio::test]
async fn a_slow_provider_delays_nobody_whose_key_is_known() {
    let (origin, signer) = (Origin::start().await, Signer::p256());
    let provider = provider(set(&[("a", &signer)])).await;
    let gateway = trusting(&origin, &provider).await;
    assert_eq!(status(&gateway, &signer, "a").await, 200);
    provider.on("/keys", Answer::hang());
    let unknown = status(&gateway, &signer, "b");
    let known = async {
        eventually("the fetch is under way", async || (provider.seen().len() == 2).then_some(())).await;
        let started = Instant::now();
        assert_eq!(status(&gateway, &signer, "a").await, 200);
        started.elapsed()
    };
    let started = Instant::now();
    let (unknown, known) = tokio::join!(unknown, known);
    assert_eq!(unknown, 401);
    assert!(known < Duration::from_secs(2), "{known:?}");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_reload_keeps_the_fetched_keys() {
    let (origin, signer) = (Origin::start().await, Signer::p256());
    let provider = provider(set(&[("a", &signer)])).await;
    let gateway = trusting(&origin, &provider).await;
    assert_eq!(status(&gateway, &signer, "a").await, 200);
    provider.stop().await;
    let routes = "- {name: r, path: /, target: ORIGIN, middlewares: [m]}\n- {name: s, path: /s, target: ORIGIN, middlewares: [m]}";
    let middlewares = "- {name: m, type: jwt, rule: {jwksUrl: PROVIDER/keys, leeway: 1s}}";
    assert_eq!(gateway.reload_with(&document("", routes, middlewares)).await, Applied::New);
    assert_eq!(status(&gateway, &signer, "a").await, 200);
}

#[tokio::test]
async fn key_files_are_read_again_when_they_change() {
    let (origin, one, two) = (Origin::start().await, Signer::p256(), Signer::p256());
    let files = [
        ("jwksFile: FOLDER/file", key_set(&[one.jwk("a")]), key_set(&[two.jwk("a")])),
        ("publicKey: FOLDER/file", one.pem(), two.pem()),
    ];
    for (rule, before, after) in files {
        let gateway = route(&origin, rule).file("file", &before).await;
        assert_eq!((status(&gateway, &one, "a").await, status(&gateway, &two, "a").await), (200, 401), "{rule}");
        gateway.write("file", "garbage");
        gateway.logs("Keys stay as they were").await;
        assert_eq!(status(&gateway, &one, "a").await, 200, "{rule}");
        gateway.write("file", &after);
        eventually("the new key counts", async || (status(&gateway, &two, "a").await == 200).then_some(())).await;
        assert_eq!(status(&gateway, &one, "a").await, 401, "{rule}");
    }
}
