//! The cryptography behind TLS, one and the same for clients, backends and calls beside the data path.
//!
//! AWS-LC: of the two that rustls knows, the faster one for handshakes and for bulk data, and the one with the hybrid
//! post-quantum key exchange (X25519MLKEM768). Keys of TLS 1.3 are derived by [`derive`].

mod derive;

use std::sync::{Arc, OnceLock};

use rustls::crypto::hash::HashAlgorithm;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{CipherSuite, CipherSuiteCommon, SupportedCipherSuite, Tls13CipherSuite};

/// The provider.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER
        .get_or_init(|| Arc::new(CryptoProvider { cipher_suites: suites(), ..aws_lc_rs::default_provider() }))
        .clone()
}

/// rustls' suites, those with AES-128 first in their version: browsers and the large sites prefer it as well. SHA-256, which
/// comes with it, has instructions of its own in today's processors, SHA-384 has not: a handshake costs a fifth less.
fn suites() -> Vec<SupportedCipherSuite> {
    let mut suites = aws_lc_rs::DEFAULT_CIPHER_SUITES.to_vec();
    let is_aes128 = |suite: &SupportedCipherSuite| {
        matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    };
    suites.sort_by_key(|suite| (suite.tls13().is_none(), !is_aes128(suite)));
    suites.into_iter().map(deriving).collect()
}

/// The same suite; of TLS 1.3 with SHA-256, with our way to derive keys.
fn deriving(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    let SupportedCipherSuite::Tls13(whole) = suite else { return suite };
    if whole.common.hash_provider.algorithm() != HashAlgorithm::SHA256 {
        return suite;
    }
    let common = CipherSuiteCommon {
        suite: whole.common.suite,
        hash_provider: whole.common.hash_provider,
        confidentiality_limit: whole.common.confidentiality_limit,
    };
    let hkdf_provider = &derive::HKDF_SHA256;
    // Two of them, once in the life of a process.
    let suite =
        Box::leak(Box::new(Tls13CipherSuite { common, hkdf_provider, aead_alg: whole.aead_alg, quic: whole.quic }));
    SupportedCipherSuite::Tls13(suite)
}

/// Makes it the one that libraries find by themselves. Pingora would install another one; the first counts.
pub fn install() {
    let _ = CryptoProvider::install_default((*provider()).clone());
}
