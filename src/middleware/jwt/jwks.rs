//! A set of keys as identity providers publish it (RFC 7517).

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::keys::{Algorithm, Key};

/// Keys by their id. Those that cannot verify tokens here were left out.
#[derive(Default)]
pub struct KeySet {
    named: Vec<(Box<str>, Key)>,
    /// Keys without an id: only for tokens that need none.
    nameless: Vec<Key>,
}

/// Why a text is no set of keys.
#[derive(Debug, Error)]
pub enum SetError {
    /// No JSON, or without the list `keys`.
    #[error("is no JSON Web Key Set: {0}")]
    Json(#[from] serde_json::Error),
    /// More than anybody needs.
    #[error("holds {0} keys; {MOST} are supported")]
    TooMany(usize),
}

/// Most keys in a set.
const MOST: usize = 128;

impl KeySet {
    /// Reads a set. A key that is not for signatures or is of an unknown kind is left out, as RFC 7517 §5 asks.
    ///
    /// # Errors
    /// When it is no set at all.
    pub fn parse(json: &[u8]) -> Result<KeySet, SetError> {
        let document: Document = serde_json::from_slice(json)?;
        if document.keys.len() > MOST {
            return Err(SetError::TooMany(document.keys.len()));
        }
        let mut set = KeySet::default();
        for (id, key) in document.keys.into_iter().filter_map(usable) {
            match id {
                Some(id) => set.named.push((id, key)),
                None => set.nameless.push(key),
            }
        }
        Ok(set)
    }

    /// Whether no token that names its key can be verified with it.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// How many keys with an id can be used.
    pub fn len(&self) -> usize {
        self.named.len()
    }

    /// The only key of the set for an algorithm, whether it has an id or not.
    pub fn only(&self, algorithm: Algorithm) -> Option<&Key> {
        let keys = self.named.iter().map(|(_, key)| key).chain(&self.nameless);
        let mut fitting = keys.filter(|key| key.algorithms().has(algorithm));
        fitting.next().filter(|_| fitting.next().is_none())
    }

    /// The keys of this id: usually one, but RFC 7517 §4.5 allows one of each kind.
    pub fn of<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a Key> {
        self.named.iter().filter(move |(own, _)| **own == *id).map(|(_, key)| key)
    }
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<Box<str>>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

fn usable(value: Value) -> Option<(Option<Box<str>>, Key)> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let signs = jwk.usage.as_deref().is_none_or(|usage| usage == "sig");
    let verifies =
        jwk.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|operation| operation == "verify"));
    if !signs || !verifies {
        return None;
    }
    let mut key = jwk.key()?;
    if let Some(name) = &jwk.alg {
        key = key.only(Algorithm::named(name)?);
    }
    (!key.algorithms().is_empty()).then_some((jwk.kid, key))
}

impl Jwk {
    /// Shared secrets (`oct`) are not for publishing, and are left out.
    fn key(&self) -> Option<Key> {
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => Key::rsa(&number(&self.n)?, &number(&self.e)?).ok(),
            ("EC", Some("P-256")) => self.point(Algorithm::Es256, 32),
            ("EC", Some("P-384")) => self.point(Algorithm::Es384, 48),
            ("EC", Some("P-521")) => self.point(Algorithm::Es512, 66),
            ("OKP", Some("Ed25519")) => Key::curve(Algorithm::EdDsa, &number(&self.x)?).ok(),
            _ => None,
        }
    }

    /// An uncompressed point (SEC 1 §2.3.3); coordinates without their leading zeros are accepted, as in Goma.
    fn point(&self, algorithm: Algorithm, size: usize) -> Option<Key> {
        let mut point = vec![4];
        for coordinate in [number(&self.x)?, number(&self.y)?] {
            point.resize(point.len() + size.checked_sub(coordinate.len())?, 0);
            point.extend_from_slice(&coordinate);
        }
        Key::curve(algorithm, &point).ok()
    }
}

/// Base64url; some publish it with padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn number(text: &Option<String>) -> Option<Vec<u8>> {
    LENIENT.decode(text.as_deref()?).ok().filter(|bytes| !bytes.is_empty())
}
