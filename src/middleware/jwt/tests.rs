//! Tokens against keys: what verifies, and what must not.

use serde_json::{Value, json};

use super::jwks::KeySet;
use super::keys::{Algorithm, Key, KeyError};
use super::token::{Demands, Fault, Token};
use tokens::{Signer, coded, key_set};

#[allow(dead_code, missing_docs, reason = "shared with the integration tests")]
#[path = "../../../tests/it/world/tokens.rs"]
mod tokens;

/// Signers with the algorithms that are theirs.
fn signers() -> Vec<(Signer, &'static [&'static str])> {
    vec![
        (Signer::secret("sek"), &["HS256", "HS384", "HS512"]),
        (Signer::rsa(), &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]),
        (Signer::p256(), &["ES256"]),
        (Signer::p384(), &["ES384"]),
        (Signer::p521(), &["ES512"]),
        (Signer::ed25519(), &["EdDSA"]),
    ]
}

fn key(signer: &Signer) -> Key {
    match signer {
        Signer::Secret(secret) => Key::secret(secret),
        public => Key::pem(public.pem().as_bytes()).expect("a key"),
    }
}

/// Whether a key takes a token; `None` when the algorithm is not the key's.
fn takes(key: &Key, token: &str) -> Option<bool> {
    let token = Token::read(token).ok()?;
    key.verify(token.header.algorithm, token.signed, &token.signature)
}

#[test]
fn each_key_verifies_by_its_own_algorithms_and_no_other() {
    let signers = signers();
    for (signer, algorithms) in &signers {
        let key = key(signer);
        for (other, theirs) in &signers {
            for algorithm in *theirs {
                let token = other.token(algorithm, &json!({"sub": "ann"}));
                let expected = algorithms.contains(algorithm).then_some(true);
                assert_eq!(takes(&key, &token), expected, "{algorithm} by a key of {algorithms:?}");
            }
        }
    }
}

#[test]
fn a_set_finds_keys_by_id_and_verifies_as_pem_does() {
    for (signer, algorithms) in signers().iter().skip(1) {
        let set = KeySet::parse(key_set(&[signer.jwk("a"), Signer::p256().jwk("b")]).as_bytes()).expect("a set");
        for algorithm in *algorithms {
            let token = signer.token(algorithm, &json!({}));
            assert_eq!(set.of("a").filter_map(|key| takes(key, &token)).collect::<Vec<_>>(), [true], "{algorithm}");
            assert!(set.of("b").all(|key| takes(key, &token) != Some(true)), "{algorithm}");
            assert_eq!(set.of("c").count(), 0);
        }
    }
}

#[test]
fn a_tampered_token_does_not_verify() {
    for (signer, algorithms) in signers() {
        let key = key(&signer);
        let token = signer.token(algorithms[0], &json!({"sub": "ann"}));
        let parts: Vec<&str> = token.split('.').collect();
        let other = signer.token(algorithms[0], &json!({"sub": "eve"}));
        let other: Vec<&str> = other.split('.').collect();
        let header = coded(&format!("{{\"alg\":\"{}\",\"typ\":\"JOSE\"}}", algorithms[0]));
        let half = &parts[2][..parts[2].len() / 4 * 2];
        for (about, changed) in [
            ("other claims", [parts[0], other[1], parts[2]].join(".")),
            ("the signature of another", [parts[0], parts[1], other[2]].join(".")),
            ("another header", [&header, parts[1], parts[2]].join(".")),
            ("no signature", [parts[0], parts[1], ""].join(".")),
            ("half a signature", [parts[0], parts[1], half].join(".")),
            ("a longer signature", format!("{token}AAAA")),
        ] {
            assert_ne!(takes(&key, &changed), Some(true), "{}: {about}", algorithms[0]);
        }
    }
}

#[test]
fn a_public_key_is_never_a_secret() {
    let signer = Signer::rsa();
    let (pem, jwk) = (signer.pem(), signer.jwk("a"));
    let set = KeySet::parse(key_set(std::slice::from_ref(&jwk)).as_bytes()).expect("a set");
    for secret in [pem.as_str(), pem.trim_end(), &jwk.to_string(), jwk["n"].as_str().expect("a number")] {
        for algorithm in ["HS256", "HS384", "HS512"] {
            let forged = Signer::secret(secret).named(algorithm, "a", &json!({"sub": "admin"}));
            assert_eq!(takes(&key(&signer), &forged), None);
            assert!(set.of("a").all(|key| takes(key, &forged).is_none()));
        }
    }
}

#[test]
fn what_is_no_token_is_malformed() {
    let signer = Signer::secret("sek");
    let good = signer.token("HS256", &json!({"sub": "ann"}));
    let of = |header: &str| signer.signed("HS256", header, "{}");
    for (about, token, fault) in [
        ("nothing", String::new(), Fault::Malformed),
        ("one part", "abc".to_owned(), Fault::Malformed),
        ("two parts", good.rsplit_once('.').expect("parts").0.to_owned(), Fault::Malformed),
        ("four parts", format!("{good}.x"), Fault::Malformed),
        ("five parts, as encrypted ones have", format!("{good}.x.y"), Fault::Malformed),
        ("padding", format!("{good}="), Fault::Malformed),
        ("the other alphabet", good.replacen("ey", "+/", 1), Fault::Malformed),
        ("white space inside", good.replacen('.', " .", 1), Fault::Malformed),
        ("no JSON", of("alg"), Fault::Malformed),
        ("no object", of("[\"HS256\"]"), Fault::Malformed),
        ("no alg", of("{}"), Fault::Malformed),
        ("two algs", of("{\"alg\":\"none\",\"alg\":\"HS256\"}"), Fault::Malformed),
        ("an alg of another type", of("{\"alg\":1}"), Fault::Malformed),
        ("a kid of another type", of("{\"alg\":\"HS256\",\"kid\":{}}"), Fault::Malformed),
        ("critical extensions", of("{\"alg\":\"HS256\",\"crit\":[\"b64\"],\"b64\":false}"), Fault::Malformed),
        ("none", of("{\"alg\":\"none\"}"), Fault::WrongAlgorithm),
        ("none in another case", of("{\"alg\":\"nOnE\"}"), Fault::WrongAlgorithm),
        ("an algorithm in another case", of("{\"alg\":\"hs256\"}"), Fault::WrongAlgorithm),
        ("an unknown algorithm", of("{\"alg\":\"ES256K\"}"), Fault::WrongAlgorithm),
    ] {
        assert_eq!(Token::read(&token).map(|_| ()), Err(fault), "{about}");
    }
    for claims in ["", "[]", "1", "\"x\"", "{", &"[".repeat(100_000), &format!("{{\"a\":{}}}", "[".repeat(100_000))] {
        let token = signer.signed("HS256", "{\"alg\":\"HS256\"}", claims);
        let token = Token::read(&token).expect("a token");
        assert_eq!(token.claims(), Err(Fault::Malformed), "{}", &claims[..claims.len().min(10)]);
    }
}

#[test]
fn examples_of_the_rfcs_verify() {
    let claims = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let p256 = json!({"kty": "EC", "kid": "1", "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"});
    let ed25519 =
        json!({"kty": "OKP", "kid": "1", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    for (about, jwk, token) in [
        (
            "RFC 7515 A.3",
            p256,
            format!(
                "eyJhbGciOiJFUzI1NiJ9.{claims}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
            ),
        ),
        (
            "RFC 8037 A.4",
            ed25519,
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg".to_owned(),
        ),
    ] {
        let set = KeySet::parse(key_set(&[jwk]).as_bytes()).expect("a set");
        assert_eq!(set.of("1").map(|key| takes(key, &token)).collect::<Vec<_>>(), [Some(true)], "{about}");
    }
}

#[test]
fn a_certificate_holds_a_key() {
    let key = Key::pem(include_bytes!("../../../tests/keys/rsa-certificate.pem")).expect("a key");
    assert_eq!(takes(&key, include_str!("../../../tests/keys/rsa-certificate.jwt").trim()), Some(true));
}

#[test]
fn a_key_that_will_not_do_is_refused_with_the_reason() {
    let pem = |label: &str, text: &str| format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n");
    let cut = Signer::rsa().pem().replacen("\nM", "\n", 1);
    for (about, text, error) in [
        ("nothing", "", KeyError::NoBlock),
        ("no PEM", "hello", KeyError::NoBlock),
        ("another block", &pem("X509 CRL", "AAAA"), KeyError::NoBlock),
        ("a private key", &pem("PRIVATE KEY", "AAAA"), KeyError::Private),
        ("an older private key", &pem("RSA PRIVATE KEY", "AAAA"), KeyError::Private),
        ("a broken key", &pem("PUBLIC KEY", "AAAA"), KeyError::Broken),
        ("a broken certificate", &pem("CERTIFICATE", "AAAA"), KeyError::Broken),
        ("a damaged key", &cut, KeyError::Broken),
        ("a short key", include_str!("../../../tests/keys/rsa-1024.pem"), KeyError::RsaSize(1024)),
        ("another curve", include_str!("../../../tests/keys/secp256k1.pem"), KeyError::Unsupported),
        ("another Edwards curve", include_str!("../../../tests/keys/ed448.pem"), KeyError::Unsupported),
    ] {
        assert_eq!(Key::pem(text.as_bytes()).map(|_| ()), Err(error), "{about}");
    }
}

#[test]
fn a_set_leaves_out_what_cannot_verify() {
    let jwk = Signer::rsa().jwk("a");
    let point = Signer::p256().jwk("a");
    let with = |of: &Value, name: &str, value: Value| {
        let mut jwk = of.clone();
        jwk[name] = value;
        jwk
    };
    for (about, jwk, count) in [
        ("a key", jwk.clone(), 1),
        ("for signatures", with(&jwk, "use", json!("sig")), 1),
        ("for verifying", with(&jwk, "key_ops", json!(["verify"])), 1),
        ("for one algorithm", with(&jwk, "alg", json!("PS256")), 1),
        ("for encryption", with(&jwk, "use", json!("enc")), 0),
        ("for signing only", with(&jwk, "key_ops", json!(["sign"])), 0),
        ("for an algorithm of encryption", with(&jwk, "alg", json!("RSA-OAEP")), 0),
        ("for an algorithm of another kind", with(&jwk, "alg", json!("ES256")), 0),
        ("for none", with(&jwk, "alg", json!("none")), 0),
        ("of no kind", with(&jwk, "kty", json!("XYZ")), 0),
        ("without an id", with(&jwk, "kid", json!(null)), 0),
        ("an id of another type", with(&jwk, "kid", json!(7)), 0),
        ("a short number", with(&jwk, "n", json!("AQAB")), 0),
        ("no number", with(&jwk, "n", json!("")), 0),
        ("a broken number", with(&jwk, "n", json!("?")), 0),
        ("a point that is not on its curve", with(&point, "x", json!("AQ")), 0),
        ("a point that is too long", with(&point, "x", json!("AAAA".repeat(100))), 0),
        ("a point of another curve", with(&point, "crv", json!("P-384")), 0),
        ("a secret", Signer::secret("sek").jwk("a"), 0),
        ("no object", json!(7), 0),
    ] {
        let set = KeySet::parse(key_set(&[jwk]).as_bytes()).expect("a set");
        assert_eq!((set.len(), set.is_empty()), (count, count == 0), "{about}");
    }
    let set = KeySet::parse(key_set(&[with(&jwk, "alg", json!("PS256"))]).as_bytes()).expect("a set");
    let algorithms = set.of("a").next().expect("a key").algorithms();
    assert!(algorithms.has(Algorithm::Ps256) && !algorithms.has(Algorithm::Rs256));
}

#[test]
fn what_is_no_set_is_an_error() {
    for text in ["", "x", "[]", "{}", "{\"keys\": 1}", "{\"keys\": {}}", "<html>", "{\"keys\":["] {
        assert!(KeySet::parse(text.as_bytes()).is_err(), "{text}");
    }
    let key = Signer::ed25519().jwk("a");
    assert!(KeySet::parse(key_set(&vec![key.clone(); 128]).as_bytes()).is_ok());
    assert!(KeySet::parse(key_set(&vec![key; 129]).as_bytes()).is_err());
}

#[test]
fn claims_have_to_meet_the_demands() {
    let demands = |issuer: &str, audience: &str, leeway_s: f64| {
        let filled = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Demands { issuer: filled(issuer), audience: filled(audience), leeway_s, expression: None }
    };
    let (none, x, iss) = (demands("", "", 0.0), demands("", "x", 0.0), demands("me", "", 0.0));
    let late = demands("", "", 30.0);
    for (about, demands, claims, expected) in [
        ("nothing asked", &none, json!({}), Ok(())),
        ("valid", &none, json!({"exp": 1001, "nbf": 1000}), Ok(())),
        ("ends now", &none, json!({"exp": 1000}), Err(Fault::Expired)),
        ("ended", &none, json!({"exp": 1}), Err(Fault::Expired)),
        ("ended in 1970", &none, json!({"exp": 0}), Err(Fault::Expired)),
        ("ended before 1970", &none, json!({"exp": -1}), Err(Fault::Expired)),
        ("ends within a second", &none, json!({"exp": 1000.5}), Ok(())),
        ("begins soon", &none, json!({"nbf": 1001}), Err(Fault::NotYetValid)),
        ("begins never", &none, json!({"nbf": 1e300}), Err(Fault::NotYetValid)),
        ("ends never", &none, json!({"exp": 1e300}), Ok(())),
        ("an end of another type", &none, json!({"exp": "9999999999"}), Err(Fault::Malformed)),
        ("an end that is null", &none, json!({"exp": null}), Err(Fault::Malformed)),
        ("a begin of another type", &none, json!({"nbf": [0]}), Err(Fault::Malformed)),
        ("issued in the future", &none, json!({"iat": 5000}), Ok(())),
        ("ended, within the leeway", &late, json!({"exp": 971}), Ok(())),
        ("ended, behind the leeway", &late, json!({"exp": 970}), Err(Fault::Expired)),
        ("begins within the leeway", &late, json!({"nbf": 1030}), Ok(())),
        ("begins behind the leeway", &late, json!({"nbf": 1031}), Err(Fault::NotYetValid)),
        ("the audience", &x, json!({"aud": "x"}), Ok(())),
        ("one of the audiences", &x, json!({"aud": ["y", "x"]}), Ok(())),
        ("another audience", &x, json!({"aud": "xx"}), Err(Fault::WrongAudience)),
        ("other audiences", &x, json!({"aud": ["y", ["x"]]}), Err(Fault::WrongAudience)),
        ("no audience", &x, json!({}), Err(Fault::WrongAudience)),
        ("the issuer", &iss, json!({"iss": "me"}), Ok(())),
        ("another issuer", &iss, json!({"iss": "ME"}), Err(Fault::WrongIssuer)),
        ("a list of issuers", &iss, json!({"iss": ["me"]}), Err(Fault::WrongIssuer)),
        ("no issuer", &iss, json!({}), Err(Fault::WrongIssuer)),
    ] {
        assert_eq!(demands.check(&(&claims).into(), 1000.0), expected, "{about}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_panics_as_a_token(text in "[A-Za-z0-9_.=-]{0,80}") {
        if let Ok(token) = Token::read(&text) {
            let _ = token.claims();
        }
    }
}
