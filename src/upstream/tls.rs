//! The TLS identity of a connection to a backend: whom we trust and who we say we are.
//!
//! Everything that could fail at the first connection is tried here, when a configuration is compiled: Pingora
//! panics on certificates and keys that it cannot read.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pingora_core::protocols::tls::CaType;
use pingora_core::tls::{CertificateDer, ClientConfig, PrivateKeyDer, RootCertStore};
use pingora_core::utils::tls::{CertKey, WrappedX509};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::settings::{ClientCertificate, SettingError, Tls};
use crate::crypto;

/// SHA-256 over every setting of an identity.
pub(super) type TlsDigest = [u8; 32];

/// Certificates in the form that Pingora takes.
pub(super) struct TlsIdentity {
    pub digest: TlsDigest,
    pub verify: bool,
    pub roots: Option<Arc<CaType>>,
    pub client: Option<Arc<CertKey>>,
}

impl TlsIdentity {
    /// Costs a parse of every certificate; the registry calls it once a digest.
    pub fn build(tls: &Tls) -> Result<Self, Vec<SettingError>> {
        let mut errors = Vec::new();
        let mut keep = |error: Option<SettingError>| errors.extend(error);
        let roots = tls.root_cas.as_deref().map(roots).transpose();
        let client = tls.client.as_ref().map(client).transpose();
        keep(roots.as_ref().err().cloned());
        keep(client.as_ref().err().cloned());
        match (roots, client) {
            (Ok(roots), Ok(client)) => {
                Ok(Self { digest: digest(tls), verify: !tls.insecure_skip_verify, roots, client: client.map(Arc::new) })
            }
            _ => Err(errors),
        }
    }
}

/// What decides whether two routes may share a connection.
pub(super) fn digest(tls: &Tls) -> TlsDigest {
    let mut hash = Sha256::new();
    let mut add = |part: Option<&[u8]>| match part {
        Some(bytes) => {
            hash.update([1]);
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        None => hash.update([0]),
    };
    add(tls.insecure_skip_verify.then_some(&[]));
    add(tls.root_cas.as_deref());
    add(tls.client.as_ref().map(|client| &client.certificates[..]));
    add(tls.client.as_ref().map(|client| &client.key[..]));
    hash.finalize().into()
}

fn roots(pem: &[u8]) -> Result<Arc<CaType>, SettingError> {
    let refuse = |message: &str| refuse("rootCAs", message, "give CA certificates in PEM form");
    let mut store = RootCertStore::empty();
    let mut roots = Vec::new();
    for (_, der) in blocks(pem, |label| label == "CERTIFICATE").map_err(|text| refuse(&text))? {
        store
            .add(CertificateDer::from(der.clone()))
            .map_err(|_| refuse("holds a certificate that cannot be an authority"))?;
        roots.push(wrap(der).ok_or_else(|| refuse("holds a certificate that cannot be read"))?);
    }
    if roots.is_empty() {
        return Err(refuse("holds no certificate"));
    }
    Ok(roots.into())
}

fn client(client: &ClientCertificate) -> Result<CertKey, SettingError> {
    let chain = chain(&client.certificates)?;
    let key = key(&client.key)?;
    let certificates = chain.iter().cloned().map(CertificateDer::from).collect();
    let private = PrivateKeyDer::try_from(key.clone())
        .map_err(|_| refuse("clientKey", "holds a key of an unknown kind", KEY_REMEDY))?;
    crypto::install();
    ClientConfig::builder()
        .with_root_certificates(RootCertStore::empty())
        .with_client_auth_cert(certificates, private)
        .map_err(|error| {
            refuse(
                "clientKey",
                &format!("does not go with clientCert ({error})"),
                "give the key of the first certificate",
            )
        })?;
    Ok(CertKey::new(chain, key))
}

fn chain(pem: &[u8]) -> Result<Vec<Vec<u8>>, SettingError> {
    let refuse = |message: &str| refuse("clientCert", message, "give a certificate chain in PEM form");
    let chain = blocks(pem, |label| label == "CERTIFICATE").map_err(|text| refuse(&text))?;
    if chain.is_empty() {
        return Err(refuse("holds no certificate"));
    }
    let chain: Vec<_> = chain.into_iter().map(|(_, der)| der).collect();
    if !chain.iter().all(|der| wrap(der.clone()).is_some()) {
        return Err(refuse("holds a certificate that cannot be read"));
    }
    Ok(chain)
}

fn key(pem: &[u8]) -> Result<Vec<u8>, SettingError> {
    let refuse = |message: &str| refuse("clientKey", message, KEY_REMEDY);
    let keys = blocks(pem, |label| label.ends_with("PRIVATE KEY")).map_err(|text| refuse(&text))?;
    match keys.into_iter().next() {
        None => Err(refuse("holds no private key")),
        Some((label, _)) if label.starts_with("ENCRYPTED") => {
            Err(refuse("holds an encrypted key, which needs a password"))
        }
        Some((_, der)) => Ok(der),
    }
}

const KEY_REMEDY: &str = "give an unencrypted private key in PEM form";

fn refuse(field: &'static str, message: &str, remedy: &str) -> SettingError {
    SettingError { backend: None, field, message: message.to_owned(), remedy: remedy.to_owned() }
}

/// `None` where Pingora's own parse would panic.
fn wrap(der: Vec<u8>) -> Option<WrappedX509> {
    WrappedX509::try_new(der, |der| X509Certificate::from_der(der).map(|(_, certificate)| certificate)).ok()
}

/// The PEM blocks whose label is wanted, with their label, decoded.
fn blocks(pem: &[u8], wanted: impl Fn(&str) -> bool) -> Result<Vec<(String, Vec<u8>)>, String> {
    let text = std::str::from_utf8(pem).map_err(|_| "is not text".to_owned())?;
    let mut found = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines().map(str::trim) {
        if let Some(label) = label(line, "-----BEGIN ") {
            open = Some((label.to_owned(), String::new()));
        } else if label(line, "-----END ").is_some() {
            let Some((label, body)) = open.take() else {
                continue;
            };
            if wanted(&label) {
                found.push((label, decode(&body)?));
            }
        } else if let Some((_, body)) = &mut open {
            body.push_str(line);
        }
    }
    if open.is_some() {
        return Err("holds a PEM block without end".to_owned());
    }
    Ok(found)
}

fn label<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    line.strip_prefix(start)?.strip_suffix("-----")
}

/// An encrypted key in the old form has header lines in its body; it fails here, as it must.
fn decode(body: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(body).map_err(|_| "holds a PEM block that is not base64".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: &str = include_str!("testdata/ca.pem");
    const CERTIFICATE: &str = include_str!("testdata/leaf.pem");
    const KEY: &str = include_str!("testdata/leaf.key");
    const OTHER_KEY: &str = include_str!("testdata/other.key");

    fn tls(roots: Option<&str>, certificate: &str, key: &str) -> Tls {
        Tls {
            insecure_skip_verify: false,
            root_cas: roots.map(|pem| pem.as_bytes().to_vec()),
            client: Some(ClientCertificate {
                certificates: certificate.as_bytes().to_vec(),
                key: key.as_bytes().to_vec(),
            }),
        }
    }

    #[test]
    fn certificates_become_an_identity() {
        let identity = TlsIdentity::build(&tls(Some(CA), CERTIFICATE, KEY)).unwrap();
        assert!(identity.verify);
        assert_eq!(identity.roots.unwrap().len(), 1);
        assert!(identity.client.is_some());
    }

    #[test]
    fn unusable_certificates_are_refused_when_compiled() {
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let rows = [
            (Some(""), CERTIFICATE, KEY, "rootCAs", "holds no certificate"),
            (Some(broken), CERTIFICATE, KEY, "rootCAs", "holds a certificate that cannot be an authority"),
            (Some("-----BEGIN CERTIFICATE-----\nAAAA\n"), CERTIFICATE, KEY, "rootCAs", "holds a PEM block without end"),
            (None, "", KEY, "clientCert", "holds no certificate"),
            (None, broken, KEY, "clientCert", "holds a certificate that cannot be read"),
            (None, CERTIFICATE, CERTIFICATE, "clientKey", "holds no private key"),
            (
                None,
                CERTIFICATE,
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----",
                "clientKey",
                "holds an encrypted key, which needs a password",
            ),
            (
                None,
                CERTIFICATE,
                "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
                "clientKey",
                "holds a key of an unknown kind",
            ),
        ];
        for (roots, certificate, key, field, message) in rows {
            let errors = TlsIdentity::build(&tls(roots, certificate, key)).err().unwrap();
            assert_eq!((errors[0].field, errors[0].message.as_str()), (field, message));
        }
        let errors = TlsIdentity::build(&tls(None, CERTIFICATE, OTHER_KEY)).err().unwrap();
        assert!(errors[0].message.starts_with("does not go with clientCert"), "{errors:?}");
    }

    #[test]
    fn every_setting_changes_the_digest() {
        let base = tls(Some(CA), CERTIFICATE, KEY);
        let mut loose = base.clone();
        loose.insecure_skip_verify = true;
        let mut rootless = base.clone();
        rootless.root_cas = None;
        let mut anonymous = base.clone();
        anonymous.client = None;
        let others = [loose, rootless, anonymous, tls(Some(CA), CERTIFICATE, CA)];
        assert_eq!(digest(&base), digest(&base.clone()));
        for other in others {
            assert_ne!(digest(&base), digest(&other));
        }
    }
}
