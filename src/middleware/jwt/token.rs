//! A token as it came, and what is asked of its claims (RFC 7515, RFC 7519).

use std::sync::Arc;

use base64_simd::URL_SAFE_NO_PAD;
use memchr::memchr_iter;
use serde_json::Value;

use super::claim::Claim;
use super::expression::Expression;
use super::seen::{Header, Seen};

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
    pub header: Arc<Header>,
    /// What the signature is over.
    pub signed: &'a [u8],
    /// The signature.
    pub signature: Vec<u8>,
    parts: Parts<'a>,
}

/// The parts of a token as they are written.
#[derive(Clone, Copy)]
struct Parts<'a> {
    header: &'a [u8],
    claims: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Option<Parts<'a>> {
        let text = text.as_bytes();
        let mut dots = memchr_iter(b'.', text);
        match (dots.next(), dots.next(), dots.next()) {
            (Some(one), Some(two), None) => {
                Some(Parts { header: &text[..one], claims: &text[one + 1..two], signature: &text[two + 1..] })
            }
            _ => None,
        }
    }
}

impl<'a> Token<'a> {
    /// Whether a text has the three parts of a token.
    pub fn looks_like(text: &str) -> bool {
        Parts::of(text).is_some()
    }

    /// Reads the header: exactly three parts in unpadded base64url.
    ///
    /// # Errors
    /// When it is none, has extensions that must be understood (RFC 7515 §4.1.11), or names an algorithm unknown here.
    pub fn read(text: &'a str) -> Result<Token<'a>, Fault> {
        Token::read_as(text, |_| None)
    }

    /// The same, where the header may be one that was read before.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_seen(text: &'a str, seen: &Seen) -> Result<Token<'a>, Fault> {
        Token::read_as(text, |header| seen.find(header))
    }

    fn read_as(text: &'a str, known: impl FnOnce(&[u8]) -> Option<Arc<Header>>) -> Result<Token<'a>, Fault> {
        let parts = Parts::of(text).ok_or(Fault::Malformed)?;
        let header = match known(parts.header) {
            Some(header) => header,
            None => Arc::new(Header::read(&decode(parts.header)?)?),
        };
        let signed = &text.as_bytes()[..parts.header.len() + 1 + parts.claims.len()];
        Ok(Token { header, signed, signature: decode(parts.signature)?, parts })
    }

    /// Keeps the header for tokens that have the same. Only to be asked when the signature was verified.
    pub fn remember(&self, seen: &Seen) {
        seen.remember(self.parts.header, &self.header);
    }

    /// The claims. Only to be asked when the signature was verified.
    ///
    /// # Errors
    /// When they are no JSON object.
    pub fn claims(&self) -> Result<Value, Fault> {
        let claims: Value = serde_json::from_slice(&decode(self.parts.claims)?).map_err(|_| Fault::Malformed)?;
        if claims.is_object() { Ok(claims) } else { Err(Fault::Malformed) }
    }

    /// The same as text: whether it is a JSON object shows when it is read.
    ///
    /// # Errors
    /// When they are no text.
    pub fn claims_text(&self) -> Result<String, Fault> {
        String::from_utf8(decode(self.parts.claims)?).map_err(|_| Fault::Malformed)
    }
}

/// Base64url without padding, in its one spelling (RFC 7515 §2).
fn decode(part: &[u8]) -> Result<Vec<u8>, Fault> {
    URL_SAFE_NO_PAD.decode_to_vec(part).map_err(|_| Fault::Malformed)
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
    pub fn check(&self, claims: &Claim<'_>, now_s: f64) -> Result<(), Fault> {
        if time(claims, "exp")?.is_some_and(|end| now_s >= end + self.leeway_s) {
            return Err(Fault::Expired);
        }
        if time(claims, "nbf")?.is_some_and(|start| now_s < start - self.leeway_s) {
            return Err(Fault::NotYetValid);
        }
        if self.issuer.as_ref().is_some_and(|issuer| !claims.get("iss").is_some_and(|iss| iss.is(issuer))) {
            return Err(Fault::WrongIssuer);
        }
        if self.audience.as_ref().is_some_and(|audience| !claims.get("aud").is_some_and(|aud| names(aud, audience))) {
            return Err(Fault::WrongAudience);
        }
        if self.expression.as_ref().is_some_and(|expression| expression.fits(claims) != Ok(true)) {
            return Err(Fault::ClaimsDenied);
        }
        Ok(())
    }
}

fn time(claims: &Claim<'_>, name: &str) -> Result<Option<f64>, Fault> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or(Fault::Malformed),
    }
}

fn names(claim: &Claim<'_>, audience: &str) -> bool {
    match claim {
        Claim::List(audiences) => audiences.iter().any(|one| one.is(audience)),
        one => one.is(audience),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn base64_has_one_spelling(part in "[A-Za-z0-9_=+/ -]{0,70}") {
            let expected = general_purpose::URL_SAFE_NO_PAD.decode(&part).map_err(|_| Fault::Malformed);
            prop_assert_eq!(decode(part.as_bytes()), expected);
        }

        #[test]
        fn what_was_encoded_is_decoded(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let part = general_purpose::URL_SAFE_NO_PAD.encode(&bytes);
            prop_assert_eq!(decode(part.as_bytes()), Ok(bytes));
        }
    }
}
