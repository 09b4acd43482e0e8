//! ID tokens and signed access tokens: who signed them, and are they for us. OpenID Connect Core §3.1.3.7.

use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, decode_header};
use serde_json::Value;

use super::seal::same;

/// What an ID token has to say.
pub struct Expected<'a> {
    /// Who made it; `None` when the settings do not tell.
    pub issuer: Option<&'a str>,
    /// For whom.
    pub client_id: &'a str,
    /// The nonce of the login; `None` for tokens that came by a refresh.
    pub nonce: Option<&'a str>,
    /// The time, in seconds since 1970.
    pub now: u64,
}

/// How far clocks may differ.
const LEEWAY_SECS: u64 = 60;

/// Algorithms of signatures that only the provider can make. With a shared secret or `none` anybody could.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// The head of a JWT; `None` when it is none, or signed in a way that nobody should trust.
pub fn head(token: &str) -> Option<Header> {
    decode_header(token).ok().filter(|head| ALGORITHMS.contains(&head.alg))
}

/// Whether a token has the form of a JWT.
pub fn is_jwt(token: &str) -> bool {
    token.split('.').count() == 3 && decode_header(token).is_ok()
}

/// The claims, if one of the keys signed them. Nothing is said about what they claim.
pub fn signed(token: &str, head: &Header, keys: &[Jwk]) -> Option<Value> {
    let mut validation = Validation::new(head.alg);
    validation.required_spec_claims.clear();
    (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
    keys.iter().filter(|key| suits(key, head)).find_map(|key| {
        let key = DecodingKey::from_jwk(key).ok()?;
        decode::<Value>(token, &key, &validation).ok().map(|token| token.claims)
    })
}

/// A key that says for which algorithm it is serves no other. That its kind fits the library checks.
fn suits(key: &Jwk, head: &Header) -> bool {
    let meant = key.common.key_algorithm.and_then(|algorithm| algorithm.to_string().parse::<Algorithm>().ok());
    meant.is_none_or(|meant| meant == head.alg)
}

/// The claims of a token that came over a connection where its sender is known; no signature is looked at.
pub fn unsigned(token: &str) -> Option<Value> {
    insecure_decode_claims(token).ok()
}

/// Whether an ID token is for this client and this login.
///
/// # Errors
/// With the word for the log.
pub fn check(claims: &Value, expected: &Expected<'_>) -> Result<(), &'static str> {
    if expected.issuer.is_some_and(|issuer| claims["iss"].as_str() != Some(issuer)) {
        return Err("issuer");
    }
    let client = Some(expected.client_id);
    let for_us = match &claims["aud"] {
        Value::Array(all) => all.iter().any(|one| one.as_str() == client),
        one => one.as_str() == client,
    };
    if !for_us || !claims["azp"].is_null() && claims["azp"].as_str() != client {
        return Err("audience");
    }
    in_time(claims, expected.now)?;
    match expected.nonce {
        Some(nonce) if !claims["nonce"].as_str().is_some_and(|found| same(found, nonce)) => Err("nonce"),
        _ if claims["sub"].as_str().is_none_or(str::is_empty) => Err("subject"),
        _ => Ok(()),
    }
}

/// Whether a token has an end and it is to come, and has begun.
///
/// # Errors
/// With the word for the log.
pub fn in_time(claims: &Value, now: u64) -> Result<(), &'static str> {
    let ends = seconds(&claims["exp"]).ok_or("expiry")?;
    if ends.saturating_add(LEEWAY_SECS) <= now {
        return Err("expired");
    }
    match seconds(&claims["nbf"]) {
        Some(begins) if begins > now.saturating_add(LEEWAY_SECS) => Err("not_yet_valid"),
        _ => Ok(()),
    }
}

/// A time of a claim; fractions are cut off.
pub fn seconds(claim: &Value) -> Option<u64> {
    claim.as_u64().or_else(|| claim.as_f64().filter(|seconds| *seconds >= 0.0).map(|seconds| seconds as u64))
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::{EncodingKey, encode};
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use serde_json::json;

    use super::*;

    const EXPECTED: Expected<'_> =
        Expected { issuer: Some("https://op"), client_id: "me", nonce: Some("n0nce"), now: 1000 };

    fn claims() -> Value {
        json!({"iss": "https://op", "aud": "me", "sub": "ann", "exp": 1010, "nonce": "n0nce"})
    }

    #[test]
    fn an_id_token_is_for_this_client_and_this_login() {
        assert_eq!(check(&claims(), &EXPECTED), Ok(()));
        for (key, value, word) in [
            ("iss", json!("https://evil"), "issuer"),
            ("iss", Value::Null, "issuer"),
            ("aud", json!("you"), "audience"),
            ("aud", json!(["you", "them"]), "audience"),
            ("azp", json!("you"), "audience"),
            ("exp", json!(940), "expired"),
            ("exp", json!("never"), "expiry"),
            ("exp", Value::Null, "expiry"),
            ("nbf", json!(1061), "not_yet_valid"),
            ("nonce", json!("other"), "nonce"),
            ("nonce", Value::Null, "nonce"),
            ("sub", Value::Null, "subject"),
        ] {
            let mut claims = claims();
            claims[key] = value.clone();
            assert_eq!(check(&claims, &EXPECTED), Err(word), "{key}: {value}");
        }
        let mut several = claims();
        (several["aud"], several["azp"], several["exp"]) = (json!(["you", "me"]), json!("me"), json!(941.7));
        assert_eq!(check(&several, &EXPECTED), Ok(()), "a list with us in it, within the leeway");
        let renewed = Expected { nonce: None, ..EXPECTED };
        assert_eq!(check(&json!({"iss": "https://op", "aud": "me", "sub": "a", "exp": 1010}), &renewed), Ok(()));
    }

    /// A key of the provider, as it signs and as it shows.
    fn key(id: &str) -> (EncodingKey, Jwk) {
        let random = ring::rand::SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random);
        let point = pair.expect("the key").public_key().as_ref().to_vec();
        let coordinate = |from: usize| URL_SAFE_NO_PAD.encode(&point[from..from + 32]);
        let shown = json!({"kty": "EC", "crv": "P-256", "kid": id, "x": coordinate(1), "y": coordinate(33)});
        (EncodingKey::from_ec_der(document.as_ref()), serde_json::from_value(shown).expect("a key"))
    }

    fn token(key: &EncodingKey, algorithm: Algorithm) -> String {
        encode(&Header::new(algorithm), &claims(), key).expect("a token")
    }

    #[test]
    fn only_the_providers_key_signs() {
        let ((private, public), (other, _)) = (key("a"), key("a"));
        let keys = [public];
        let verified = |token: &str| head(token).and_then(|head| signed(token, &head, &keys));
        let good = token(&private, Algorithm::ES256);
        assert_eq!(verified(&good), Some(claims()));
        assert_eq!(unsigned(&good), Some(claims()));
        let parts: Vec<&str> = good.split('.').collect();
        let with_head = |head: Value| format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(head.to_string()), parts[1], parts[2]);
        let more = URL_SAFE_NO_PAD.encode(json!({"sub": "root", "exp": 9_999_999_999_u64}).to_string());
        for (description, token) in [
            ("another key", token(&other, Algorithm::ES256)),
            ("no signature", with_head(json!({"alg": "none"}))),
            ("no signature, empty", format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), parts[1])),
            ("the public key as a secret", token(&EncodingKey::from_secret(b"public"), Algorithm::HS256)),
            ("another algorithm", with_head(json!({"alg": "RS256"}))),
            ("a key of its own", with_head(json!({"alg": "ES256", "jwk": {"kty": "EC"}}))),
            ("other claims", format!("{}.{more}.{}", parts[0], parts[2])),
            ("no token", "opaque".to_owned()),
        ] {
            assert_eq!(verified(&token), None, "{description}");
        }
    }

    #[test]
    fn a_key_that_names_its_algorithm_serves_no_other() {
        let (private, mut public) = key("a");
        public.common.key_algorithm = Some("ES384".parse().expect("an algorithm"));
        let token = token(&private, Algorithm::ES256);
        let head = head(&token).expect("a head");
        assert_eq!(signed(&token, &head, &[public]), None);
    }
}
