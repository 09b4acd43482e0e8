//! The cryptography behind TLS, one and the same for clients, backends and calls beside the data path.
//!
//! AWS-LC: of the two that rustls knows, the faster one for handshakes and for bulk data, and the one with the hybrid
//! post-quantum key exchange (X25519MLKEM768).

use std::sync::{Arc, OnceLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{CipherSuite, SupportedCipherSuite};

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
    suites
}

/// Makes it the one that libraries find by themselves. Pingora would install another one; the first counts.
pub fn install() {
    let _ = CryptoProvider::install_default((*provider()).clone());
}
