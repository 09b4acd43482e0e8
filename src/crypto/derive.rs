//! HMAC-SHA256 for the key schedule of TLS 1.3. RFC 2104, RFC 8446 §7.1.
//!
//! A handshake that resumes a session derives some twenty keys. AWS-LC begins each of them with what the secret was made of;
//! here a key is hashed once, however much is derived from it, which takes a third of the work. Keys are wiped when dropped.

use hmac::{Hmac, KeyInit, Mac};
use rustls::crypto::hmac::{self as shape, Key, Tag};
use rustls::crypto::tls13::HkdfUsingHmac;
use sha2::Sha256;

/// Derives keys by HMAC-SHA256.
pub static HKDF_SHA256: HkdfUsingHmac<'static> = HkdfUsingHmac(&HmacSha256);

struct HmacSha256;

impl shape::Hmac for HmacSha256 {
    fn with_key(&self, key: &[u8]) -> Box<dyn Key> {
        Box::new(Keyed(Hmac::new_from_slice(key).expect("HMAC takes keys of any length")))
    }

    fn hash_output_len(&self) -> usize {
        LENGTH
    }
}

/// What hashing a key leaves, from which every tag begins.
struct Keyed(Hmac<Sha256>);

impl Key for Keyed {
    fn sign_concat(&self, first: &[u8], middle: &[&[u8]], last: &[u8]) -> Tag {
        let mut hash = self.0.clone();
        hash.update(first);
        for part in middle {
            hash.update(part);
        }
        hash.update(last);
        Tag::new(&hash.finalize().into_bytes())
    }

    fn tag_len(&self) -> usize {
        LENGTH
    }
}

/// Bytes of a tag.
const LENGTH: usize = 32;

#[cfg(test)]
mod tests {
    use rustls::crypto::tls13::{Hkdf, expand};

    use super::*;

    fn bytes(range: std::ops::RangeInclusive<u8>) -> Vec<u8> {
        range.collect()
    }

    /// RFC 5869, appendix A.1 to A.3.
    #[test]
    fn the_test_vectors_of_the_standard_come_out() {
        let rows = [
            (
                vec![0x0b; 22],
                bytes(0..=0x0c),
                bytes(0xf0..=0xf9),
                "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
            ),
            (
                bytes(0..=0x4f),
                bytes(0x60..=0xaf),
                bytes(0xb0..=0xff),
                "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09da3275600c2f09b8",
            ),
            (
                vec![0x0b; 22],
                Vec::new(),
                Vec::new(),
                "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
            ),
        ];
        for (secret, salt, info, expected) in rows {
            let mut made = vec![0; expected.len() / 2];
            let expander = HKDF_SHA256.extract_from_secret(Some(&salt), &secret);
            expander.expand_slice(&[&info], &mut made).unwrap();
            let made: String = made.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(made, expected);
        }
    }

    /// What AWS-LC derives, in every way that the key schedule asks.
    #[test]
    fn it_derives_what_the_provider_would() {
        let theirs = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().unwrap().hkdf_provider;
        let ours: &dyn Hkdf = &HKDF_SHA256;
        for (salt, secret) in [(None, &b"a secret"[..]), (Some(&[7; 32][..]), &[9; 100]), (Some(b""), b"")] {
            let made = |hkdf: &dyn Hkdf| {
                let expander = hkdf.extract_from_secret(salt, secret);
                let block = expander.expand_block(&[b"tls13 ", b"derived"]);
                let zero = hkdf.extract_from_zero_ikm(salt).expand_block(&[b"zero"]);
                let next: [u8; 16] = expand(&*hkdf.expander_for_okm(&block), &[b"key"]);
                let tag = hkdf.hmac_sign(&block, b"finished").as_ref().to_vec();
                (block.as_ref().to_vec(), zero.as_ref().to_vec(), next, tag)
            };
            assert_eq!(made(ours), made(theirs), "{salt:?}");
        }
    }
}
