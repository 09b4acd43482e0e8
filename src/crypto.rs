//! The cryptography behind TLS, one and the same for clients, backends and calls beside the data path.
//!
//! AWS-LC: of the two that rustls knows, the faster one for handshakes and for bulk data, and the one with the hybrid
//! post-quantum key exchange (X25519MLKEM768).

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;

/// The provider.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())).clone()
}

/// Makes it the one that libraries find by themselves. Pingora would install another one; the first counts.
pub fn install() {
    let _ = CryptoProvider::install_default((*provider()).clone());
}
