//! A token as it came, and what is asked of its claims (RFC 7515, RFC 7519).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::expression::Expression;
use super::keys::Algorithm;

/// Why a token is refused; one of a closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words say it")]
pub enum Fault {
    Malformed,
    WrongAlgorithm,
    NoKeyId,
    UnknownKey,
    BadSignature,
    Expired,
    NotYetValid,
    WrongIssuer,
    WrongAudience,
    ClaimsDenied,
}

impl Fault {
    /// The word for metric and access line.
    pub fn word(self) -> &'static str {
        match self {
            Fault::Malformed => "malformed",
            Fault::WrongAlgorithm => "wrong_algorithm",
            Fault::NoKeyId | Fault::UnknownKey => "unknown_key",
            Fault::BadSignature => "bad_signature",
            Fault::Expired => "expired",
            Fault::NotYetValid => "not_yet_valid",
            Fault::WrongIssuer => "wrong_issuer",
            Fault::WrongAudience => "wrong_audience",
            Fault::ClaimsDenied => "claims_denied",
        }
    }
}

/// A token whose header was read; nothing of it is trusted yet.
pub struct Token<'a> {
    /// What it says it is signed with.
    pub algorithm: Algorithm,
    /// The id of the key, if it names one. Other hints at keys (`jku`, `jwk`, `x5u`, `x5c`) are not looked at.
    pub key_id: Option<String>,
    /// What the signature is over.
    pub signed: &'a [u8],
    /// The signature.
    pub signature: Vec<u8>,
    claims: &'a str,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

impl<'a> Token<'a> {
    /// Whether a text has the three parts of a token.
    pub fn looks_like(text: &str) -> bool {
        text.bytes().filter(|byte| *byte == b'.').count() == 2
    }

    /// Reads the header: exactly three parts in unpadded base64url.
    ///
    /// # Errors
    /// When it is none, has extensions that must be understood (RFC 7515 §4.1.11), or names an algorithm unknown here.
    pub fn read(text: &'a str) -> Result<Token<'a>, Fault> {
        if !Token::looks_like(text) {
            return Err(Fault::Malformed);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Fault::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Fault::Malformed)?;
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| Fault::Malformed)?;
        if header.crit.is_some() {
            return Err(Fault::Malformed);
        }
        let algorithm = Algorithm::named(&header.alg).ok_or(Fault::WrongAlgorithm)?;
        let signature = decode(signature)?;
        Ok(Token { algorithm, key_id: header.kid, signed: signed.as_bytes(), signature, claims })
    }

    /// The claims. Only to be asked when the signature was verified.
    ///
    /// # Errors
    /// When they are no JSON object.
    pub fn claims(&self) -> Result<Value, Fault> {
        let claims: Value = serde_json::from_slice(&decode(self.claims)?).map_err(|_| Fault::Malformed)?;
        if claims.is_object() { Ok(claims) } else { Err(Fault::Malformed) }
    }
}

fn decode(part: &str) -> Result<Vec<u8>, Fault> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Fault::Malformed)
}

/// What claims have to say.
#[derive(Debug, Default)]
pub struct Demands {
    /// `iss` has to be this.
    pub issuer: Option<String>,
    /// `aud` has to be or to hold this.
    pub audience: Option<String>,
    /// How far clocks may differ, in seconds.
    pub leeway_s: f64,
    /// What else has to hold.
    pub expression: Option<Expression>,
}

impl Demands {
    /// Checks claims at a moment, in seconds since 1970. `exp` and `nbf` count when they are there; `iat` does not.
    ///
    /// # Errors
    /// The first that is not met.
    pub fn check(&self, claims: &Value, now_s: f64) -> Result<(), Fault> {
        if time(claims, "exp")?.is_some_and(|end| now_s >= end + self.leeway_s) {
            return Err(Fault::Expired);
        }
        if time(claims, "nbf")?.is_some_and(|start| now_s < start - self.leeway_s) {
            return Err(Fault::NotYetValid);
        }
        if self.issuer.as_ref().is_some_and(|issuer| claims["iss"] != **issuer) {
            return Err(Fault::WrongIssuer);
        }
        if self.audience.as_ref().is_some_and(|audience| !names(&claims["aud"], audience)) {
            return Err(Fault::WrongAudience);
        }
        if self.expression.as_ref().is_some_and(|expression| expression.fits(claims) != Ok(true)) {
            return Err(Fault::ClaimsDenied);
        }
        Ok(())
    }
}

fn time(claims: &Value, name: &str) -> Result<Option<f64>, Fault> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or(Fault::Malformed),
    }
}

fn names(claim: &Value, audience: &str) -> bool {
    match claim {
        Value::Array(audiences) => audiences.iter().any(|one| one == audience),
        one => one == audience,
    }
}
