//! What `jwt` costs a request with its key at hand, next to the signature alone.
//!
//! Goal: at most 3 µs more than the signature. `cargo bench --bench jwt`

// The macro of criterion makes public functions without a doc.
#![allow(missing_docs)]

use std::borrow::Cow;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use criterion::{Criterion, criterion_group, criterion_main};
use futures::executor::block_on;
use goma_edge::config::{self, Env, Source};
use goma_edge::exchange::{Exchange, Reason, RequestId};
use goma_edge::middleware::Chain;
use goma_edge::snapshot::{Snapshot, Workshop, build};
use http::Method;
use pingora_http::RequestHeader;
use serde_json::json;

use tokens::{Signer, in_seconds, key_set};

#[allow(dead_code, reason = "shared with the integration tests")]
#[path = "../tests/it/world/tokens.rs"]
mod tokens;

/// The gateway's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn jwt(c: &mut Criterion) {
    let mut group = c.benchmark_group("jwt");
    let signers: [(&str, Signer, &'static dyn VerificationAlgorithm); 2] =
        [("ES256", Signer::p256(), &ECDSA_P256_SHA256_FIXED), ("RS256", Signer::rsa(), &RSA_PKCS1_2048_8192_SHA256)];
    for (algorithm, signer, verification) in signers {
        let claims = json!({
            "iss": "https://id.example.com/", "aud": ["api", "account"], "sub": "2f1c9a3e-8a0b-4b7e-9f0d-1f7f3f1f2a11",
            "exp": in_seconds(3600), "nbf": in_seconds(-60), "iat": in_seconds(-60), "email": "ann@example.com",
            "realm_access": {"roles": ["user", "admin"]},
        });
        let token = signer.named(algorithm, "key-1", &claims);
        let (message, signature) = token.rsplit_once('.').expect("three parts");
        let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
        let der: String = signer.pem().lines().filter(|line| !line.starts_with('-')).collect();
        let key = ParsedPublicKey::new(verification, STANDARD.decode(der).expect("base64")).expect("a key");
        let snapshot = guarded(&key_set(&[signer.jwk("key-0"), signer.jwk("key-1")]));
        let chain = &snapshot.routes[0].chain;
        let mut head = RequestHeader::build(Method::GET, b"/", None).expect("a head");
        head.append_header("authorization", format!("Bearer {token}")).expect("a header");
        // Both make the request that the step needs, so that the difference is the step's.
        group.bench_function(format!("{algorithm}, a request and the signature alone"), |b| {
            b.iter(|| {
                key.verify_sig(black_box(message.as_bytes()), black_box(&signature)).expect("a good signature");
                (exchange(), head.clone())
            });
        });
        group.bench_function(format!("{algorithm}, a request and the whole step"), |b| {
            b.iter(|| {
                let (mut exchange, mut head) = (exchange(), head.clone());
                walk(chain, &mut exchange, &mut head);
                (exchange, head)
            });
        });
    }
    group.finish();
}

/// A route whose chain is one `jwt` with all that operators usually ask for.
fn guarded(keys: &str) -> Snapshot {
    let rule = json!({
        "jwksFile": keys, "issuer": "https://id.example.com/", "audience": "api",
        "claimsExpression": "OneOf(`realm_access.roles`, `admin`, `owner`)",
        "forwardHeaders": {"X-User-ID": "sub", "X-Email": "email", "X-Roles": "realm_access.roles"},
    });
    let document = json!({
        "gateway": {"routes": [{"name": "r", "path": "/", "target": "http://127.0.0.1:9", "middlewares": ["m"]}]},
        "middlewares": [{"name": "m", "type": "jwt", "rule": rule}],
    });
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("goma.yml");
    std::fs::write(&path, document.to_string()).expect("a file");
    let source = Source { path: Some(path), env: Env::default() };
    let examined = config::examine(&source);
    let workshop = Workshop::detached(&examined.loaded.config, &source.env);
    build(examined, &workshop).expect("valid").0
}

fn walk(chain: &Chain, exchange: &mut Exchange, head: &mut RequestHeader) {
    let (ran, verdict) = block_on(chain.request(exchange, head));
    assert!(ran == 1 && verdict.is_none() && head.headers.contains_key("x-user-id"));
}

fn exchange() -> Exchange {
    Exchange {
        id: RequestId::take(None),
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        scheme: "http",
        method: Method::GET,
        host: "localhost".to_owned(),
        path: "/".to_owned(),
        query: None,
        started: Instant::now(),
        upstream_time: None,
        attempts: 0,
        held: Vec::new(),
        claims: None,
        limits: Vec::new(),
        cookies: Vec::new(),
        reason: Reason::Ok,
        why: Cow::Borrowed(""),
    }
}

criterion_group!(benches, jwt);
criterion_main!(benches);
