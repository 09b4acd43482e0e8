//! Seals what the gateway leaves with the browser, so that only the gateway can read or make it.
//!
//! AES-256-GCM under a key of its own for every seal, derived (HKDF-SHA256, RFC 5869) from `clientSecret`, what the seal is
//! for, the client it belongs to, and fresh randomness. All replicas with the same secret read the same seals, before and
//! after a restart; a seal made for one client or purpose does not open for another.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::{Rng, random};

/// What a seal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A session: `goma_access_token`.
    Session,
    /// A refresh token: `goma_refresh_token`.
    Refresh,
    /// A login under way.
    Login,
    /// What stands for a session in Redis: `goma_access_token`.
    Ticket,
    /// A session in Redis.
    Stored,
}

impl Purpose {
    fn word(self) -> &'static [u8] {
        match self {
            Purpose::Session => b"session",
            Purpose::Refresh => b"refresh",
            Purpose::Login => b"login",
            Purpose::Ticket => b"ticket",
            Purpose::Stored => b"stored",
        }
    }
}

/// Makes and opens the seals of one client.
pub struct Seal {
    root: Prk,
    /// Tells the client apart from others with the same secret.
    client: [u8; 32],
}

/// First letter of a sealed text: how it is made.
const VERSION: char = '1';
/// Fresh bytes before the sealed ones.
const SALT: usize = 16;
/// Key and nonce.
const DERIVED: usize = 32 + 12;

impl Seal {
    /// The seals of a client; `client` are the texts that make it this client.
    pub fn new(secret: &str, client: &[&str]) -> Seal {
        let root = Salt::new(HKDF_SHA256, b"goma-edge oauth 1").extract(secret.as_bytes());
        Seal { root, client: digest(client) }
    }

    /// Seals bytes into a text of letters, digits, `-` and `_`.
    pub fn seal(&self, purpose: Purpose, plain: &[u8]) -> String {
        let salt: [u8; SALT] = random();
        let (key, nonce) = self.key(purpose, &salt);
        let mut sealed = plain.to_vec();
        key.seal_in_place_append_tag(nonce, Aad::empty(), &mut sealed).expect("far below the limit of a key");
        let mut text = String::with_capacity(1 + (SALT + sealed.len()) * 4 / 3 + 4);
        text.push(VERSION);
        URL_SAFE_NO_PAD.encode_string([&salt[..], &sealed].concat(), &mut text);
        text
    }

    /// The bytes of a sealed text; `None` for anything that these seals did not make for this purpose.
    pub fn open(&self, purpose: Purpose, text: &str) -> Option<Vec<u8>> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(VERSION)?).ok()?;
        let (salt, sealed) = bytes.split_first_chunk::<SALT>()?;
        let (key, nonce) = self.key(purpose, salt);
        let mut sealed = sealed.to_vec();
        let length = key.open_in_place(nonce, Aad::empty(), &mut sealed).ok()?.len();
        sealed.truncate(length);
        Some(sealed)
    }

    /// A name for something that nobody else can make, and that says nothing about it.
    pub fn name(&self, what: &str, id: &str) -> String {
        let info = [b"name/", what.as_bytes(), b"/", &self.client, id.as_bytes()];
        let mut name = [0; DERIVED];
        let output = self.root.expand(&info, Length).expect("shorter than 255 hashes");
        output.fill(&mut name).expect("as long as asked for");
        URL_SAFE_NO_PAD.encode(&name[..32])
    }

    /// The key is used for one seal only, so that its nonce need not be random as well.
    fn key(&self, purpose: Purpose, salt: &[u8; SALT]) -> (LessSafeKey, Nonce) {
        let info = [purpose.word(), b"/", &self.client, salt];
        let mut derived = [0; DERIVED];
        let output = self.root.expand(&info, Length).expect("shorter than 255 hashes");
        output.fill(&mut derived).expect("as long as asked for");
        let (key, nonce) = derived.split_at(32);
        let key = UnboundKey::new(&AES_256_GCM, key).expect("32 bytes");
        (LessSafeKey::new(key), Nonce::try_assume_unique_for_key(nonce).expect("12 bytes"))
    }
}

struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        DERIVED
    }
}

/// SHA-256 over texts, each with its length, so that none runs into the next.
pub fn digest(texts: &[&str]) -> [u8; 32] {
    let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for text in texts {
        hash.update(&(text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    hash.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// So many random bytes as base64url; nobody guesses 16 of them.
pub fn secret<const BYTES: usize>() -> String {
    let mut bytes = [0u8; BYTES];
    rand::rng().fill(&mut bytes[..]);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Compares without telling by the time taken where two texts differ.
pub fn same(one: &str, other: &str) -> bool {
    subtle::ConstantTimeEq::ct_eq(one.as_bytes(), other.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seals() -> Seal {
        Seal::new("s3cret", &["id", "https://op/token"])
    }

    #[test]
    fn a_seal_opens_for_those_who_share_the_secret() {
        let text = seals().seal(Purpose::Session, b"hello");
        assert_eq!(seals().open(Purpose::Session, &text).as_deref(), Some(&b"hello"[..]), "another replica");
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        assert_ne!(text, seals().seal(Purpose::Session, b"hello"), "two seals of one thing differ");
    }

    #[test]
    fn a_seal_of_somebody_else_does_not_open() {
        let text = seals().seal(Purpose::Session, b"hello");
        for (description, seal, purpose) in [
            ("another purpose", seals(), Purpose::Refresh),
            ("another secret", Seal::new("s3cre7", &["id", "https://op/token"]), Purpose::Session),
            ("another client", Seal::new("s3cret", &["i", "dhttps://op/token"]), Purpose::Session),
        ] {
            assert_eq!(seal.open(purpose, &text), None, "{description}");
        }
    }

    #[test]
    fn a_changed_seal_does_not_open() {
        let text = seals().seal(Purpose::Session, b"hello");
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            // The last letter may hold bits that stand for nothing; strict base64 refuses those.
            assert_eq!(seals().open(Purpose::Session, &changed), None, "letter {at}");
        }
        for forged in ["", "1", "2", "1AAAA", "not sealed", "eyJhbGciOiJub25lIn0.eyJleHAiOjk5OTk5OTk5OTl9."] {
            assert_eq!(seals().open(Purpose::Session, forged), None, "{forged}");
        }
    }
}
