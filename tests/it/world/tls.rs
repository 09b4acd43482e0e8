//! TLS: an authority that certifies whatever a story needs, and a front that ends TLS before any origin.
//!
//! ```ignore
//! let (ca, origin) = (Authority::new(), Origin::start().await);
//! let front = TlsFront::before(origin.port(), ca.certify(&["127.0.0.1"])).start().await;
//! let gateway = Gateway::before(&front).file("ca.pem", &ca.pem()).routes("…").await;
//! ```

use std::fmt;
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::origin::lock;
use super::place;

/// Signs certificates that nobody else trusts.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM texts.
#[derive(Clone, Debug)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = params(&[]);
        params.distinguished_name.push(rcgen::DnType::CommonName, "an authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, pair()).expect("a sound authority"))
    }

    /// Its own certificate: what has to be trusted.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Its key, PEM.
    pub fn key(&self) -> String {
        self.0.key().serialize_pem()
    }

    /// A certificate with this number that says who is to be asked about it, with the authority's own behind it.
    pub fn certify_asking(&self, names: &[&str], serial: u8, responder: &str) -> Identity {
        let (key, mut params) = (pair(), params(names));
        params.distinguished_name.push(DnType::CommonName, "somebody");
        params.serial_number = Some(vec![serial].into());
        // AuthorityInfoAccess with one OCSP address. RFC 5280 §4.2.2.1.
        let url = [&[0x86, responder.len() as u8], responder.as_bytes()].concat();
        let method = [6, 8, 0x2b, 6, 1, 5, 5, 7, 0x30, 1];
        let access = [&[0x30, (method.len() + url.len()) as u8], &method[..], &url].concat();
        let content = [&[0x30, access.len() as u8], &access[..]].concat();
        params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], content)];
        let certificate = params.signed_by(&key, &self.0).expect("a sound certificate");
        Identity { certificate: certificate.pem() + &self.pem(), key: key.serialize_pem() }
    }

    /// A certificate that allows its owner to say which of the authority's certificates count.
    pub fn certify_responder(&self) -> Identity {
        let (key, mut params) = (pair(), params(&[]));
        params.distinguished_name.push(DnType::CommonName, "a responder");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning];
        let certificate = params.signed_by(&key, &self.0).expect("a sound certificate");
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// Like [`Authority::certify`], with an RSA key, which takes too long to make: it is kept with the tests.
    pub fn certify_rsa(&self, names: &[&str]) -> Identity {
        let key = KeyPair::from_pem(include_str!("../../keys/rsa-2048.pem")).expect("a key");
        let certificate = params(names).signed_by(&key, &self.0).expect("a sound certificate");
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// A certificate with this common name and validity, years first and last.
    pub fn certify_from_to(&self, names: &[&str], common: &str, (from, to): (i32, i32)) -> Identity {
        let (key, mut params) = (pair(), params(names));
        params.distinguished_name.push(rcgen::DnType::CommonName, common);
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(from, 1, 1), rcgen::date_time_ymd(to, 1, 1));
        let certificate = params.signed_by(&key, &self.0).expect("a sound certificate");
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// A certificate for these names and addresses, good for servers and clients.
    pub fn certify(&self, names: &[&str]) -> Identity {
        let key = pair();
        let mut params = params(names);
        // OpenSSL takes a certificate that has the name of its issuer for its own issuer.
        params.distinguished_name.push(DnType::CommonName, "somebody");
        let certificate = params.signed_by(&key, &self.0).expect("a sound certificate");
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

impl Identity {
    /// Nobody but itself vouches for it.
    pub fn self_signed(names: &[&str]) -> Identity {
        let key = pair();
        let certificate = params(names).self_signed(&key).expect("a sound certificate");
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

fn pair() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn params(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).expect("names and addresses")
}

/// What a client said of itself in a handshake that came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The name that was asked for; none for an address.
    pub name: Option<String>,
    /// The protocol that was agreed upon.
    pub protocol: Option<String>,
    /// Whether the client proved who it is.
    pub certified: bool,
}

/// Ends TLS in front of an origin; shows itself as `https://127.0.0.1:PORT`.
pub struct TlsFront {
    port: u16,
    hellos: Arc<Mutex<Vec<Hello>>>,
    running: JoinHandle<()>,
}

/// A front to be started.
pub struct TlsFrontBuilder {
    to: u16,
    identity: Identity,
    protocols: Vec<Vec<u8>>,
    clients: Option<String>,
}

impl TlsFront {
    /// Before an origin on this port, as whom.
    pub fn before(port: u16, identity: Identity) -> TlsFrontBuilder {
        TlsFrontBuilder { to: port, identity, protocols: Vec::new(), clients: None }
    }

    /// The handshakes so far.
    pub fn hellos(&self) -> Vec<Hello> {
        lock(&self.hellos).clone()
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl TlsFrontBuilder {
    /// Protocols for ALPN, the most wanted first: `h2`, `http/1.1`. None until then.
    pub fn offers(self, protocols: &[&str]) -> TlsFrontBuilder {
        TlsFrontBuilder { protocols: protocols.iter().map(|name| name.as_bytes().to_vec()).collect(), ..self }
    }

    /// Demands a certificate of this authority from clients.
    pub fn clients_of(self, authority: &Authority) -> TlsFrontBuilder {
        TlsFrontBuilder { clients: Some(authority.pem()), ..self }
    }

    pub async fn start(self) -> TlsFront {
        let (listener, to) = (place::listen(), self.to);
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let hellos = Arc::<Mutex<Vec<Hello>>>::default();
        let (acceptor, noted) = (TlsAcceptor::from(Arc::new(self.settings())), hellos.clone());
        let running = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pass(acceptor.clone(), stream, to, noted.clone()));
            }
        });
        TlsFront { port, hellos, running }
    }

    fn settings(self) -> ServerConfig {
        let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let builder = builder.expect("the provider knows the default versions");
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(certificate(authority)).expect("an authority");
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
                builder.with_client_cert_verifier(verifier.expect("a verifier"))
            }
        };
        let key = PrivateKeyDer::from_pem_slice(self.identity.key.as_bytes()).expect("a key");
        let chain = vec![certificate(&self.identity.certificate)];
        let mut settings = builder.with_single_cert(chain, key).expect("a key that goes with its certificate");
        settings.alpn_protocols = self.protocols;
        settings
    }
}

fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
}

/// One connection. What goes wrong on it the gateway has to tell.
async fn pass(acceptor: TlsAcceptor, stream: TcpStream, to: u16, hellos: Arc<Mutex<Vec<Hello>>>) {
    let Ok(mut outside) = acceptor.accept(stream).await else { return };
    let (_, session) = outside.get_ref();
    lock(&hellos).push(Hello {
        name: session.server_name().map(str::to_owned),
        protocol: session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
        certified: session.peer_certificates().is_some(),
    });
    if let Ok(mut inside) = TcpStream::connect(("127.0.0.1", to)).await {
        let _ = copy_bidirectional(&mut outside, &mut inside).await;
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl fmt::Display for TlsFront {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "https://127.0.0.1:{}", self.port)
    }
}
