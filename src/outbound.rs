//! Calls beside the data path: key sets, discovery documents, user directories, forward authentication.
//!
//! One pooled HTTP client a set of TLS options. Redirects are never followed, answers are bounded, and TLS runs on the
//! provider that the data path uses, whatever other libraries bring along.

mod asker;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use pingora_core::tls::RootCertStore;
use pingora_core::tls::load_platform_certs_incl_env_into_store;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use thiserror::Error;

pub use asker::Asker;

/// How servers are verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verify {
    /// By the system's authorities.
    System,
    /// Not at all (`insecureSkipVerify`).
    Nothing,
}

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// Default limit of a whole call.
pub const CALL: Duration = Duration::from_secs(10);
/// Longest body that is read only to keep the connection, in bytes.
const FORGOTTEN: usize = 64 * 1024;
/// Idle connections kept to one server.
const IDLE: usize = 32;

/// One client of a kind for each way to verify servers, made when it is first asked for.
struct EachOnce<T> {
    system: OnceLock<Result<T, String>>,
    nothing: OnceLock<Result<T, String>>,
}

impl<T: Clone> EachOnce<T> {
    const fn new() -> EachOnce<T> {
        EachOnce { system: OnceLock::new(), nothing: OnceLock::new() }
    }

    fn get(&self, verify: Verify, make: fn(Verify) -> Result<T, String>) -> Result<T, String> {
        let one = match verify {
            Verify::System => &self.system,
            Verify::Nothing => &self.nothing,
        };
        one.get_or_init(|| make(verify)).clone()
    }
}

/// A pooled client. Clones share the pool.
#[derive(Clone, Debug)]
pub struct Client(reqwest::Client);

/// Why a call came to nothing.
#[derive(Debug, Error)]
pub enum CallError {
    /// No connection, no answer in time, a broken answer. Says nothing of the URL's query.
    #[error("{0}")]
    Failed(String),
    /// The answer was longer than allowed.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// The answer had another status than hoped for.
    #[error("the answer has status {0}")]
    Status(u16),
}

impl Client {
    /// The client for servers that are verified so; the process has one of each.
    ///
    /// # Errors
    /// When the TLS library refuses its own settings.
    pub fn get(verify: Verify) -> Result<Client, String> {
        static CLIENTS: EachOnce<Client> = EachOnce::new();
        CLIENTS.get(verify, Client::new)
    }

    fn new(verify: Verify) -> Result<Client, String> {
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(verify)?)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .timeout(CALL)
            .pool_max_idle_per_host(IDLE)
            .tcp_nodelay(true)
            .user_agent(concat!("goma-edge/", env!("CARGO_PKG_VERSION")));
        builder.build().map(Client).map_err(|error| error.to_string())
    }

    /// The library's client, to build a request with.
    pub fn http(&self) -> &reqwest::Client {
        &self.0
    }

    /// Sends a request and reads the whole answer, at most `limit` bytes of it. Any status is an answer.
    ///
    /// # Errors
    /// When there was no answer, or too long a one.
    pub async fn call(&self, request: reqwest::RequestBuilder, limit: usize) -> Result<Answer, CallError> {
        let mut response = request.send().await.map_err(failed)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > limit {
                return Err(CallError::TooLong(limit));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, headers, body: body.freeze() })
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// The answer, if its status is 200.
    ///
    /// # Errors
    /// With the other status.
    pub fn ok(self) -> Result<Answer, CallError> {
        if self.status == StatusCode::OK { Ok(self) } else { Err(CallError::Status(self.status.as_u16())) }
    }
}

/// The cause without the URL, whose query may hold secrets.
fn failed(error: reqwest::Error) -> CallError {
    told(&error.without_url())
}

/// An error with all its causes.
fn told(error: &dyn std::error::Error) -> CallError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    CallError::Failed(text)
}

/// TLS options of a client connection beside the data path.
///
/// # Errors
/// When the TLS library refuses them.
pub fn tls(verify: Verify) -> Result<ClientConfig, String> {
    let provider = crate::crypto::provider();
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let config = match verify {
        Verify::System => builder.with_root_certificates(system_roots()).with_no_client_auth(),
        Verify::Nothing => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))).with_no_client_auth()
        }
    };
    Ok(config)
}

/// TLS options for servers that authorities of these PEM certificates vouch for.
///
/// # Errors
/// When there is no certificate in it, or one that cannot be an authority.
pub fn tls_trusting(pem: &[u8]) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("holds no certificates: {error}"))?;
        roots.add(certificate).map_err(|error| format!("holds a certificate that is no authority: {error}"))?;
    }
    if roots.is_empty() {
        return Err("holds no certificate".to_owned());
    }
    let builder = ClientConfig::builder_with_provider(crate::crypto::provider());
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// The system's authorities; none where the machine has none, so that calls without TLS still work.
fn system_roots() -> RootCertStore {
    let mut store = RootCertStore::empty();
    if let Err(error) = load_platform_certs_incl_env_into_store(&mut store) {
        log::warn!("No certificate authorities of the system: {error}");
    }
    store
}

/// Takes every server for what it says it is.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_fails_says_why_and_hides_the_url() {
        let client = Client::get(Verify::System).expect("valid settings");
        let request = client.http().get("http://127.0.0.1:1/x?secret=s3");
        let error = client.call(request, 10).await.expect_err("nobody listens").to_string();
        assert!(error.contains("refused") && !error.contains("s3"), "{error}");
    }
}
