//! Keys that tokens are verified with. A key knows which algorithms are its own: nothing in a token can make a public key
//! serve as a secret, or one curve as another.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents, VerificationAlgorithm,
};
use thiserror::Error;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::{PublicKey, RSAPublicKey};
use x509_parser::x509::SubjectPublicKeyInfo;

/// How a token is signed: the names of RFC 7518 §3.1 and RFC 8037 §3.1, without `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

use Algorithm::{EdDsa, Es256, Es384, Es512, Hs256, Hs384, Hs512, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};

impl Algorithm {
    /// All of them, as tokens and settings name them.
    pub const NAMES: [(&'static str, Algorithm); 13] = [
        ("HS256", Hs256),
        ("HS384", Hs384),
        ("HS512", Hs512),
        ("RS256", Rs256),
        ("RS384", Rs384),
        ("RS512", Rs512),
        ("PS256", Ps256),
        ("PS384", Ps384),
        ("PS512", Ps512),
        ("ES256", Es256),
        ("ES384", Es384),
        ("ES512", Es512),
        ("EdDSA", EdDsa),
    ];

    /// The algorithm of this name; names are case-sensitive. `Ed25519` is what RFC 9864 calls the one curve of `EdDSA` that is
    /// supported.
    pub fn named(name: &str) -> Option<Algorithm> {
        if name == "Ed25519" {
            return Some(EdDsa);
        }
        Algorithm::NAMES.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }

    /// Whether it works with a shared secret.
    pub fn is_secret(self) -> bool {
        matches!(self, Hs256 | Hs384 | Hs512)
    }
}

/// A set of algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Algorithms(u16);

impl Algorithms {
    /// Whether the algorithm is one of them.
    pub fn has(self, algorithm: Algorithm) -> bool {
        self.0 & 1 << algorithm as u16 != 0
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those that a key of public cryptography may serve.
    pub fn public() -> Algorithms {
        Algorithm::NAMES.iter().map(|(_, algorithm)| *algorithm).filter(|algorithm| !algorithm.is_secret()).collect()
    }

    /// Those of both sets.
    pub fn and(self, other: Algorithms) -> Algorithms {
        Algorithms(self.0 & other.0)
    }
}

impl FromIterator<Algorithm> for Algorithms {
    fn from_iter<I: IntoIterator<Item = Algorithm>>(algorithms: I) -> Algorithms {
        Algorithms(algorithms.into_iter().fold(0, |set, algorithm| set | 1 << algorithm as u16))
    }
}

/// A key, ready to verify with each of its algorithms.
#[derive(Clone)]
pub struct Key(Vec<(Algorithm, Verifier)>);

#[derive(Clone)]
enum Verifier {
    Mac(Box<hmac::Key>),
    Signature(ParsedPublicKey),
}

/// What is wrong with a key. Never holds a part of it.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum KeyError {
    /// No PEM, or none that holds a key.
    #[error("holds no PEM block `PUBLIC KEY`, `RSA PUBLIC KEY` or `CERTIFICATE`")]
    NoBlock,
    /// A key that must not be here.
    #[error("holds a private key; tokens are verified with the public one")]
    Private,
    /// The block does not say what it should.
    #[error("holds a PEM block that cannot be read")]
    Broken,
    /// RSA that is too short or too long.
    #[error("is an RSA key of {0} bits; 2048 to 8192 are supported")]
    RsaSize(usize),
    /// Something else than RSA, P-256, P-384, P-521 and Ed25519.
    #[error("is no valid key of a supported kind: RSA, EC (P-256, P-384, P-521) or Ed25519")]
    Unsupported,
}

impl Key {
    /// A shared secret, as raw bytes.
    pub fn secret(secret: &[u8]) -> Key {
        let algorithms = [(Hs256, hmac::HMAC_SHA256), (Hs384, hmac::HMAC_SHA384), (Hs512, hmac::HMAC_SHA512)];
        Key(algorithms
            .map(|(name, algorithm)| (name, Verifier::Mac(Box::new(hmac::Key::new(algorithm, secret)))))
            .into())
    }

    /// The public key in a PEM text: the first of its blocks that holds one.
    ///
    /// # Errors
    /// When there is none, or none that can be used.
    pub fn pem(text: &[u8]) -> Result<Key, KeyError> {
        let mut error = KeyError::NoBlock;
        for block in Pem::iter_from_buffer(text) {
            let Pem { label, contents } = block.map_err(|_| KeyError::Broken)?;
            match label.as_str() {
                "PUBLIC KEY" => return Key::spki(&contents),
                "CERTIFICATE" => {
                    let (_, certificate) = X509Certificate::from_der(&contents).map_err(|_| KeyError::Broken)?;
                    return Key::spki(certificate.tbs_certificate.subject_pki.raw);
                }
                "RSA PUBLIC KEY" => {
                    let (_, key) = RSAPublicKey::from_der(&contents).map_err(|_| KeyError::Broken)?;
                    return Key::rsa(key.modulus, key.exponent);
                }
                label if label.ends_with("PRIVATE KEY") => error = KeyError::Private,
                _ => {}
            }
        }
        Err(error)
    }

    /// A key with its kind, as PEM and certificates have it (RFC 5280 §4.1.2.7).
    fn spki(der: &[u8]) -> Result<Key, KeyError> {
        let (_, info) = SubjectPublicKeyInfo::from_der(der).map_err(|_| KeyError::Broken)?;
        if let Ok(PublicKey::RSA(key)) = info.parsed() {
            return Key::rsa(key.modulus, key.exponent);
        }
        let others = [Es256, Es384, Es512, EdDsa].into_iter();
        others.map(|algorithm| Key::curve(algorithm, der)).find_map(Result::ok).ok_or(KeyError::Unsupported)
    }

    /// An RSA key of its numbers, in any of its six algorithms.
    ///
    /// # Errors
    /// When they are no key that is safe to use.
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Key, KeyError> {
        let (n, e) = (without_zeros(modulus), without_zeros(exponent));
        let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
        if !(2048..=8192).contains(&bits) {
            return Err(KeyError::RsaSize(bits));
        }
        let key = RsaPublicKeyComponents { n, e };
        let verifier = |(name, parameters)| {
            let key = key.to_parsed_public_key(parameters).map_err(|_| KeyError::Unsupported)?;
            Ok((name, Verifier::Signature(key)))
        };
        RSA.into_iter().map(verifier).collect::<Result<_, _>>().map(Key)
    }

    /// A key on the curve of an algorithm: a point, or a key with its kind.
    ///
    /// # Errors
    /// When it is none.
    pub fn curve(algorithm: Algorithm, key: &[u8]) -> Result<Key, KeyError> {
        let verification: &'static dyn VerificationAlgorithm = match algorithm {
            Es256 => &ECDSA_P256_SHA256_FIXED,
            Es384 => &ECDSA_P384_SHA384_FIXED,
            Es512 => &ECDSA_P521_SHA512_FIXED,
            EdDsa => &ED25519,
            _ => return Err(KeyError::Unsupported),
        };
        let key = ParsedPublicKey::new(verification, key).map_err(|_| KeyError::Unsupported)?;
        Ok(Key(vec![(algorithm, Verifier::Signature(key))]))
    }

    /// The key for one of its algorithms only.
    pub fn only(mut self, algorithm: Algorithm) -> Key {
        self.0.retain(|(own, _)| *own == algorithm);
        self
    }

    /// What it may verify.
    pub fn algorithms(&self) -> Algorithms {
        self.0.iter().map(|(algorithm, _)| *algorithm).collect()
    }

    /// Whether the signature is the key's; `None` when the algorithm is not.
    ///
    /// Secrets are compared in constant time.
    pub fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> Option<bool> {
        let (_, verifier) = self.0.iter().find(|(own, _)| *own == algorithm)?;
        Some(match verifier {
            Verifier::Mac(key) => hmac::verify(key, message, signature).is_ok(),
            Verifier::Signature(key) => key.verify_sig(message, signature).is_ok(),
        })
    }
}

const RSA: [(Algorithm, &RsaParameters); 6] = [
    (Rs256, &RSA_PKCS1_2048_8192_SHA256),
    (Rs384, &RSA_PKCS1_2048_8192_SHA384),
    (Rs512, &RSA_PKCS1_2048_8192_SHA512),
    (Ps256, &RSA_PSS_2048_8192_SHA256),
    (Ps384, &RSA_PSS_2048_8192_SHA384),
    (Ps512, &RSA_PSS_2048_8192_SHA512),
];

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}
