//! Keys of an identity provider and the tokens it signs. Also used by unit tests and a bench, so it needs nothing else of the
//! world.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
    RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// Who signs tokens.
pub enum Signer {
    Secret(Vec<u8>),
    Rsa(Box<RsaKeyPair>),
    /// With the name of its curve.
    Ec(EcdsaKeyPair, &'static str),
    Ed(Ed25519KeyPair),
}

impl Signer {
    pub fn secret(secret: impl AsRef<[u8]>) -> Signer {
        Signer::Secret(secret.as_ref().to_vec())
    }

    pub fn rsa() -> Signer {
        Signer::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key")))
    }

    pub fn p256() -> Signer {
        Signer::ec(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256")
    }

    pub fn p384() -> Signer {
        Signer::ec(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384")
    }

    pub fn p521() -> Signer {
        Signer::ec(&ECDSA_P521_SHA512_FIXED_SIGNING, "P-521")
    }

    pub fn ed25519() -> Signer {
        Signer::Ed(Ed25519KeyPair::generate().expect("a key"))
    }

    fn ec(algorithm: &'static EcdsaSigningAlgorithm, curve: &'static str) -> Signer {
        Signer::Ec(EcdsaKeyPair::generate(algorithm).expect("a key"), curve)
    }

    /// A token of these claims without a key id.
    pub fn token(&self, algorithm: &str, claims: &Value) -> String {
        self.token_of(&json!({"alg": algorithm, "typ": "JWT"}), claims)
    }

    /// A token of these claims that names its key.
    pub fn named(&self, algorithm: &str, key_id: &str, claims: &Value) -> String {
        self.token_of(&json!({"alg": algorithm, "kid": key_id}), claims)
    }

    /// A token of this header; its `alg` decides how it is signed.
    pub fn token_of(&self, header: &Value, claims: &Value) -> String {
        let algorithm = header["alg"].as_str().unwrap_or_default();
        self.signed(algorithm, &header.to_string(), &claims.to_string())
    }

    /// A token of these texts, signed by this algorithm.
    pub fn signed(&self, algorithm: &str, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", coded(header), coded(claims));
        let signature = self.sign(algorithm, message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Signer::Secret(secret) => {
                let algorithm = match algorithm {
                    "HS384" => hmac::HMAC_SHA384,
                    "HS512" => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(algorithm, secret), message).as_ref().to_vec()
            }
            Signer::Rsa(key) => {
                let encoding: &dyn RsaEncoding = match algorithm {
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    "PS512" => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(encoding, &random, message, &mut signature).expect("a signature");
                signature
            }
            Signer::Ec(key, _) => key.sign(&random, message).expect("a signature").as_ref().to_vec(),
            Signer::Ed(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    /// The public key as identity providers publish it.
    pub fn jwk(&self, key_id: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Signer::Secret(secret) => json!({"kty": "oct", "kid": key_id, "k": text(secret)}),
            Signer::Rsa(key) => {
                let key = key.public_key();
                let n = text(key.modulus().big_endian_without_leading_zero());
                let e = text(key.exponent().big_endian_without_leading_zero());
                json!({"kty": "RSA", "kid": key_id, "n": n, "e": e})
            }
            Signer::Ec(key, curve) => {
                let point = &key.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "kid": key_id, "crv": curve, "x": text(x), "y": text(y)})
            }
            Signer::Ed(key) => {
                json!({"kty": "OKP", "kid": key_id, "crv": "Ed25519", "x": text(key.public_key().as_ref())})
            }
        }
    }

    /// The public key as PEM.
    pub fn pem(&self) -> String {
        let der: PublicKeyX509Der<'_> = match self {
            Signer::Secret(_) => panic!("a secret has no public key"),
            Signer::Rsa(key) => key.public_key().as_der().expect("a key"),
            Signer::Ec(key, _) => key.public_key().as_der().expect("a key"),
            Signer::Ed(key) => key.public_key().as_der().expect("a key"),
        };
        let text = STANDARD.encode(der.as_ref());
        let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }
}

/// A set of keys.
pub fn key_set(keys: &[Value]) -> String {
    json!({"keys": keys}).to_string()
}

/// A part of a token.
pub fn coded(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// Seconds since 1970, this much from now.
pub fn in_seconds(seconds: i64) -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_secs()).expect("before the end of time") + seconds
}
