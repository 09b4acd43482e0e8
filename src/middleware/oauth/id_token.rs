//! What ID tokens claim, and whether that is for us. OpenID Connect Core §3.1.3.7.

use serde_json::Value;

use super::seal::same;
use crate::middleware::jwt::token::{Fault, Token};

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

/// Whether a token is a JWT, whatever it is signed with.
pub fn is_jwt(token: &str) -> bool {
    !matches!(Token::read(token), Err(Fault::Malformed))
}

/// The claims of a token that came over a connection where its sender is known; no signature is looked at.
pub fn unsigned(token: &str) -> Option<Value> {
    Token::read(token).ok()?.claims().ok()
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

    #[test]
    fn a_token_is_told_from_an_opaque_one() {
        let jwt = |head: &str| format!("{}.e30.AAAA", URL_SAFE_NO_PAD.encode(head));
        for (token, is) in [
            (jwt(r#"{"alg":"RS256","kid":"a"}"#), true),
            (jwt(r#"{"alg":"none"}"#), true),
            (jwt(r#"{"alg":"XX"}"#), true),
            (jwt("opaque"), false),
            ("a.b.c".to_owned(), false),
            ("gho_abc".to_owned(), false),
        ] {
            assert_eq!(is_jwt(&token), is, "{token}");
        }
        assert_eq!(unsigned(&jwt(r#"{"alg":"RS256"}"#)), Some(json!({})));
        assert_eq!(unsigned(&jwt(r#"{"alg":"none"}"#)), None);
    }
}
