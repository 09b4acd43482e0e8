//! A client of TLS: what a handshake came to, and a way for every other client of the world to go through one.
//!
//! ```ignore
//! let client = TlsClient::trusting(&authority).name("a.test");
//! assert_eq!(client.shake(gateway.secure_port()).await.expect("a handshake").names, ["a.test"]);
//! let tunnel = gateway.through(&client).await;
//! assert_eq!(tunnel.get("/").await.status, 200);
//! ```

use std::io;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::ClientConfig;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    self, CipherSuite, DigitallySignedStruct, HandshakeKind, ProtocolVersion, SignatureScheme, version,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::client::{Connection, Request};
use super::http2::Http2;
use super::origin::lock;
use super::tls::{Authority, Identity};
use super::websocket::WebSocket;
use super::{PATIENCE, place};

/// How a client shakes hands; remembers its sessions.
#[derive(Clone)]
pub struct TlsClient {
    roots: Option<String>,
    name: String,
    protocols: Vec<Vec<u8>>,
    identity: Option<Identity>,
    versions: Vec<&'static rustls::SupportedProtocolVersion>,
    rsa_alone: bool,
    built: Arc<Mutex<Option<Arc<ClientConfig>>>>,
    staples: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// What a handshake and a request after it came to.
#[derive(Clone, Debug)]
pub struct Shaken {
    /// DNS names of the server's certificate.
    pub names: Vec<String>,
    /// Certificates that the server sent.
    pub chain: usize,
    /// Whether its key is RSA.
    pub rsa: bool,
    pub protocol: Option<String>,
    pub version: ProtocolVersion,
    pub suite: CipherSuite,
    pub resumed: bool,
    /// The OCSP response that came with it; empty for none.
    pub staple: Vec<u8>,
    /// Everything that came back on `GET /`.
    pub reply: String,
    /// Whether the server said that it would close.
    pub clean: bool,
}

impl TlsClient {
    /// Trusts this authority alone and asks for `gateway.test`.
    pub fn trusting(authority: &Authority) -> TlsClient {
        TlsClient { roots: Some(authority.pem()), ..TlsClient::careless() }
    }

    /// Takes every certificate.
    pub fn careless() -> TlsClient {
        TlsClient {
            roots: None,
            name: "gateway.test".to_owned(),
            protocols: Vec::new(),
            identity: None,
            versions: vec![&version::TLS13, &version::TLS12],
            rsa_alone: false,
            built: Arc::default(),
            staples: Arc::default(),
        }
    }

    /// Asks for this name; an address asks for none.
    pub fn name(self, name: &str) -> TlsClient {
        TlsClient { name: name.to_owned(), ..self.changed() }
    }

    /// Protocols for ALPN.
    pub fn offers(self, protocols: &[&str]) -> TlsClient {
        TlsClient { protocols: protocols.iter().map(|name| name.as_bytes().to_vec()).collect(), ..self.changed() }
    }

    /// Shows this certificate when asked.
    pub fn shows(self, identity: &Identity) -> TlsClient {
        TlsClient { identity: Some(identity.clone()), ..self.changed() }
    }

    /// Speaks TLS 1.2 and nothing else.
    pub fn old(self) -> TlsClient {
        TlsClient { versions: vec![&version::TLS12], ..self.changed() }
    }

    /// Takes RSA signatures alone; TLS 1.2.
    pub fn rsa_alone(self) -> TlsClient {
        TlsClient { rsa_alone: true, ..self.old() }
    }

    /// Other settings make another client, with sessions of its own.
    fn changed(self) -> TlsClient {
        TlsClient { built: Arc::default(), ..self }
    }

    fn config(&self) -> Arc<ClientConfig> {
        lock(&self.built).get_or_insert_with(|| Arc::new(self.build())).clone()
    }

    fn build(&self) -> ClientConfig {
        let mut provider = aws_lc_rs::default_provider();
        if self.rsa_alone {
            let rsa = |suite: CipherSuite| format!("{suite:?}").contains("_RSA_");
            provider.cipher_suites.retain(|suite| rsa(suite.suite()));
        }
        let provider = Arc::new(provider);
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(&self.versions);
        let verifier = Checks { roots: self.roots.clone(), provider, staples: self.staples.clone() };
        let builder = builder.expect("known versions").dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
                let chain = chain.collect::<Result<_, _>>().expect("certificates");
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("a key that goes with its certificate")
            }
        };
        config.alpn_protocols = self.protocols.clone();
        config
    }

    async fn connect(&self, port: u16) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(self.name.clone()).expect("a name or an address");
        timeout(PATIENCE, TlsConnector::from(self.config()).connect(name, stream)).await?
    }

    /// Shakes hands and asks for `/` on the connection, which is then closed.
    ///
    /// # Errors
    /// What the other side, or this one, found wrong.
    pub async fn shake(&self, port: u16) -> io::Result<Shaken> {
        let mut stream = self.connect(port).await?;
        let session = stream.get_ref().1;
        let chain: Vec<CertificateDer<'static>> = session.peer_certificates().unwrap_or_default().to_vec();
        let protocol = session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
        let version = session.protocol_version().expect("shaken");
        let suite = session.negotiated_cipher_suite().expect("shaken").suite();
        let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        let (mut reply, mut clean) = (Vec::new(), true);
        if protocol.as_deref() != Some("h2") {
            let request = format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.name);
            stream.write_all(request.as_bytes()).await?;
            match timeout(PATIENCE, stream.read_to_end(&mut reply)).await? {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => clean = false,
                Err(error) => return Err(error),
            }
        }
        let (names, rsa) = chain.first().map(facts).unwrap_or_default();
        let staple = lock(&self.staples).last().cloned().unwrap_or_default();
        let reply = String::from_utf8_lossy(&reply).into_owned();
        Ok(Shaken { names, chain: chain.len(), rsa, protocol, version, suite, resumed, staple, reply, clean })
    }

    /// Like [`TlsClient::shake`], where it has to work.
    pub async fn shakes(&self, port: u16) -> Shaken {
        self.shake(port).await.unwrap_or_else(|error| panic!("no handshake for {}: {error}", self.name))
    }

    /// Like [`TlsClient::shake`], where it must not work; why it did not.
    pub async fn is_refused(&self, port: u16) -> String {
        match self.shake(port).await {
            Ok(shaken) => panic!("a handshake for {}: {shaken:?}", self.name),
            Err(error) => error.to_string(),
        }
    }
}

/// DNS names of a certificate, and whether its key is RSA.
fn facts(der: &CertificateDer<'static>) -> (Vec<String>, bool) {
    let (_, certificate) = X509Certificate::from_der(der).expect("a certificate");
    let names = certificate.subject_alternative_name().ok().flatten();
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    };
    let names = names.map(|names| names.value.general_names.iter().filter_map(dns).collect()).unwrap_or_default();
    let rsa =
        certificate.public_key().parsed().is_ok_and(|key| matches!(key, x509_parser::public_key::PublicKey::RSA(_)));
    (names, rsa)
}

/// Trusts one authority for every name, or everybody; keeps the staples it was shown.
#[derive(Debug)]
struct Checks {
    roots: Option<String>,
    provider: Arc<rustls::crypto::CryptoProvider>,
    staples: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl ServerCertVerifier for Checks {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        staple: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        lock(&self.staples).push(staple.to_vec());
        let Some(roots) = &self.roots else { return Ok(ServerCertVerified::assertion()) };
        // Whether names match is what the stories are about; here it counts who signed.
        let root = CertificateDer::from_pem_slice(roots.as_bytes()).expect("an authority");
        let (_, root) = X509Certificate::from_der(&root).expect("an authority");
        let (_, leaf) = X509Certificate::from_der(leaf).expect("a certificate");
        match leaf.issuer() == root.subject() {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(rustls::CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A port on which plain bytes go through TLS to a gateway: every connection here is one there.
pub struct Tunnel {
    port: u16,
    name: String,
    running: JoinHandle<()>,
}

impl Tunnel {
    pub(super) async fn start(client: &TlsClient, to: u16) -> Tunnel {
        let listener = place::listen();
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let (client, name) = (client.clone(), client.name.clone());
        let running = tokio::spawn(async move {
            while let Ok((mut inside, _)) = listener.accept().await {
                let client = client.clone();
                tokio::spawn(async move {
                    let _ = inside.set_nodelay(true);
                    if let Ok(mut outside) = client.connect(to).await {
                        let _ = copy_bidirectional(&mut inside, &mut outside).await;
                    }
                });
            }
        });
        Tunnel { port, name, running }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn get(&self, target: &str) -> Request {
        self.request("GET", target)
    }

    pub fn request(&self, method: &str, target: &str) -> Request {
        Request::new(self.port, method, target).host(&self.name)
    }

    /// A keep-alive connection.
    pub async fn connect(&self) -> Connection {
        Connection::open(self.port).await.expect("the tunnel accepts")
    }

    /// HTTP/2; the client must offer it.
    pub async fn h2(&self) -> Http2 {
        Http2::connect(self.port).await.host(&self.name)
    }

    pub async fn websocket(&self, target: &str) -> WebSocket {
        let opened = WebSocket::open(self.get(target), "websocket").await;
        opened.unwrap_or_else(|reply| panic!("no WebSocket: {reply:?}"))
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.running.abort();
    }
}
