//! A certificate and its key, checked when loaded and ready to be served.
//!
//! Whatever would surprise at a handshake is found here: a key that belongs to another certificate, a chain in the wrong
//! order, an expired certificate, an encrypted key.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::SignatureAlgorithm;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::ocsp::{Revocation, Staple};
use crate::crypto;

/// A certificate with its chain and key.
pub struct Certificate {
    /// DNS names that it is for, in lower case: those of its extension, and its common name if that is one.
    pub names: Vec<String>,
    /// Preferred first where a client takes several kinds.
    pub kind: Kind,
    /// First second of its validity, Unix time.
    pub not_before: i64,
    /// Last second of its validity, Unix time.
    pub not_after: i64,
    /// SHA-256 over chain and key.
    pub digest: [u8; 32],
    /// Whom to ask whether it still counts.
    pub revocation: Revocation,
    served: ArcSwap<CertifiedKey>,
    /// The end of what is stapled, Unix time, and whether a file says so; 0 for nothing.
    stapled: Mutex<(i64, bool)>,
}

/// Kind of a key; the order is that of preference: the cheapest handshake first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// ECDSA.
    Ecdsa,
    /// Ed25519; few clients take it.
    Ed25519,
    /// RSA.
    Rsa,
}

/// What is wrong with a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// With which half of it.
    pub part: Part,
    /// What, as the end of a sentence that begins with the part.
    pub message: String,
    /// What to do about it.
    pub remedy: &'static str,
}

/// Half of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The certificate with its chain.
    Certificate,
    /// Its key.
    Key,
}

impl Certificate {
    /// Reads a pair of PEM texts. What is odd but can be served is told in sentences beside it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn load(certificates: &[u8], key: &[u8], now: i64) -> Result<(Certificate, Vec<String>), Fault> {
        let mut notes = Vec::new();
        let key = private_key(key)?;
        let chain = order(chain(certificates)?, &*key, &mut notes)?;
        let (names, not_before, not_after) = facts(&chain[0])?;
        validity(not_before, not_after, now, &mut notes);
        let kind = match key.algorithm() {
            SignatureAlgorithm::ECDSA => Kind::Ecdsa,
            SignatureAlgorithm::ED25519 => Kind::Ed25519,
            _ => Kind::Rsa,
        };
        let digest = digest(certificates, key.public_key().as_deref());
        let revocation = Revocation::of(&chain);
        let served = ArcSwap::from_pointee(CertifiedKey::new(chain, key));
        let stapled = Mutex::default();
        Ok((Certificate { names, kind, not_before, not_after, digest, revocation, served, stapled }, notes))
    }

    /// As rustls takes it, with the staple of the moment.
    pub fn served(&self) -> Arc<CertifiedKey> {
        self.served.load_full()
    }

    /// Sends this OCSP response along from the next handshake on, or none.
    pub fn staple(&self, staple: Option<Staple>) {
        let mut stapled = self.stapled.lock().unwrap_or_else(PoisonError::into_inner);
        *stapled = staple.as_ref().map_or((0, false), |staple| (staple.until, staple.from_file));
        let response = staple.map(|staple| staple.response);
        let served = self.served.load();
        if served.ocsp != response {
            self.served.store(Arc::new(CertifiedKey { ocsp: response, ..(**served).clone() }));
        }
    }

    /// Until when the OCSP response may be sent along, Unix time; `None` when there is none.
    pub fn stapled_until(&self) -> Option<i64> {
        let (until, _) = *self.stapled.lock().unwrap_or_else(PoisonError::into_inner);
        (until != 0).then_some(until)
    }

    /// The same of a response that a file gave.
    pub fn filed_until(&self) -> Option<i64> {
        let (until, filed) = *self.stapled.lock().unwrap_or_else(PoisonError::into_inner);
        filed.then_some(until)
    }

    /// How it is called in a log.
    pub fn name(&self) -> &str {
        self.names.first().map_or("default", String::as_str)
    }

    /// Whether it counts at this time.
    pub fn is_valid_at(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Whether it can sign for a client that takes these schemes.
    pub fn suits(&self, offered: &[rustls::SignatureScheme]) -> bool {
        self.served.load().key.choose_scheme(offered).is_some()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Certificate").field("names", &self.names).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// What tells pairs apart: the text of the certificates, and the public half of the key.
fn digest(certificates: &[u8], key: Option<&[u8]>) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update((certificates.len() as u64).to_le_bytes());
    hash.update(certificates);
    hash.update(key.unwrap_or_default());
    hash.finalize().into()
}

/// The certificates of a PEM text, at least one.
pub(super) fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let fault = |message: &str| Fault {
        part: Part::Certificate,
        message: message.to_owned(),
        remedy: "give the certificate and its chain in PEM form",
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|error| fault(&format!("is no sound PEM text ({error})")))?;
    if chain.is_empty() {
        return Err(fault("holds no certificate"));
    }
    if chain.iter().any(|der| parse(der).is_none()) {
        return Err(fault("holds a certificate that cannot be read"));
    }
    Ok(chain)
}

fn private_key(pem: &[u8]) -> Result<Arc<dyn SigningKey>, Fault> {
    let fault = |message: String| Fault { part: Part::Key, message, remedy: "give an unencrypted key in PEM form" };
    let holds = |text: &[u8]| memchr::memmem::find(pem, text).is_some();
    if holds(b"BEGIN ENCRYPTED PRIVATE KEY") || holds(b"Proc-Type: 4,ENCRYPTED") {
        return Err(fault("is encrypted with a password".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => fault("holds no private key".to_owned()),
        error => fault(format!("is no sound PEM text ({error})")),
    })?;
    let loaded = crypto::provider().key_provider.load_private_key(key);
    loaded.map_err(|error| fault(format!("cannot be used ({error})")))
}

/// The certificate of the key first, then the one that signed it, and so on.
fn order(
    mut given: Vec<CertificateDer<'static>>,
    key: &dyn SigningKey,
    notes: &mut Vec<String>,
) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let public = key.public_key();
    let own = |der: &CertificateDer<'_>| {
        let certificate = parse(der);
        public.as_ref().is_none_or(|public| certificate.is_some_and(|it| it.public_key().raw == public.as_ref()))
    };
    let Some(leaf) = given.iter().position(own) else {
        let message = "belongs to another certificate".to_owned();
        return Err(Fault { part: Part::Key, message, remedy: "give the key that the certificate was made for" });
    };
    let mut chain = vec![given.remove(leaf)];
    let mut moved = leaf > 0;
    while let Some(next) = issuer(&chain[chain.len() - 1], &given) {
        moved |= next > 0;
        chain.push(given.remove(next));
    }
    if moved {
        notes.push("does not have its certificates in order, which was put right: the server's own comes first".into());
    }
    if !given.is_empty() {
        notes.push(format!("holds {} certificates that are not part of the chain and are left out", given.len()));
    }
    Ok(chain)
}

/// Which of these signed a certificate, by name. Nobody signs a root but itself.
fn issuer(der: &CertificateDer<'_>, among: &[CertificateDer<'_>]) -> Option<usize> {
    let certificate = parse(der)?;
    if certificate.issuer().as_raw() == certificate.subject().as_raw() {
        return None;
    }
    let signed = |other: &CertificateDer<'_>| {
        parse(other).is_some_and(|other| other.subject().as_raw() == certificate.issuer().as_raw())
    };
    among.iter().position(signed)
}

fn facts(der: &CertificateDer<'_>) -> Result<(Vec<String>, i64, i64), Fault> {
    let unreadable = || Fault {
        part: Part::Certificate,
        message: "cannot be read".to_owned(),
        remedy: "give a certificate of version 3",
    };
    let certificate = parse(der).ok_or_else(unreadable)?;
    let mut names = Vec::new();
    let mut add = |name: &str| {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if is_dns(&name) && !names.contains(&name) {
            names.push(name);
        }
    };
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    for name in alternatives.iter().flat_map(|it| &it.value.general_names) {
        if let GeneralName::DNSName(name) = name {
            add(name);
        }
    }
    certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()).for_each(&mut add);
    let validity = certificate.validity();
    Ok((names, validity.not_before.timestamp(), validity.not_after.timestamp()))
}

/// A name that a client may ask for, or `*.` before one. Not a bare label with spaces, as common names may be.
fn is_dns(name: &str) -> bool {
    let name = name.strip_prefix("*.").unwrap_or(name);
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    name.parse::<std::net::IpAddr>().is_err() && name.split('.').all(label)
}

fn validity(not_before: i64, not_after: i64, now: i64, notes: &mut Vec<String>) {
    let day = |seconds: i64| {
        let moment = chrono::DateTime::from_timestamp(seconds, 0);
        moment.map(|moment| moment.format("%Y-%m-%d %H:%M UTC").to_string()).unwrap_or_default()
    };
    if now > not_after {
        notes.push(format!("expired on {}: clients refuse it", day(not_after)));
    } else if now < not_before {
        notes.push(format!("is not valid before {}: clients refuse it until then", day(not_before)));
    }
}

pub(super) fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(der).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, certificate)| certificate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::self_signed::testing::{Issuer, leaf};

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn a_pair_says_what_it_is_for() {
        let (pem, key) = leaf(&["A.example.com", "*.b.example.com", "10.0.0.1"]);
        let (certificate, notes) = Certificate::load(pem.as_bytes(), key.as_bytes(), NOW).expect("a sound pair");
        assert_eq!(certificate.names, ["a.example.com", "*.b.example.com"]);
        assert_eq!((certificate.kind, notes), (Kind::Ecdsa, vec![]));
    }

    #[test]
    fn a_chain_is_put_in_order() {
        let issuer = Issuer::new("an authority");
        let (pem, key) = issuer.sign(&["a.example.com"]);
        let (stranger, _) = leaf(&["elsewhere.test"]);
        let text = format!("{}{stranger}{pem}", issuer.pem());
        let (certificate, notes) = Certificate::load(text.as_bytes(), key.as_bytes(), NOW).expect("a sound pair");
        assert_eq!(certificate.served().cert.len(), 2);
        assert_eq!(certificate.names, ["a.example.com"]);
        assert!(notes[0].contains("in order") && notes[1].contains("1 certificates"), "{notes:?}");
        let (_, notes) = Certificate::load(format!("{pem}{}", issuer.pem()).as_bytes(), key.as_bytes(), NOW).unwrap();
        assert_eq!(notes, [""; 0]);
    }

    #[test]
    fn what_cannot_be_served_says_why() {
        let (pem, key) = leaf(&["a"]);
        let (_, other) = leaf(&["a"]);
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let sealed = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        for (pem, key, part, message) in [
            ("", &*key, Part::Certificate, "holds no certificate"),
            (broken, &key, Part::Certificate, "holds a certificate that cannot be read"),
            (&pem, &pem, Part::Key, "holds no private key"),
            (&pem, sealed, Part::Key, "is encrypted with a password"),
            (&pem, &other, Part::Key, "belongs to another certificate"),
        ] {
            let fault = Certificate::load(pem.as_bytes(), key.as_bytes(), NOW).expect_err(message);
            assert_eq!((fault.part, fault.message.as_str()), (part, message));
        }
    }

    #[test]
    fn an_expired_certificate_is_served_and_told() {
        let (pem, key) = leaf(&["a.test"]);
        let (certificate, notes) = Certificate::load(pem.as_bytes(), key.as_bytes(), i64::MAX / 4).expect("served");
        assert!(notes[0].starts_with("expired on "), "{notes:?}");
        assert!(!certificate.is_valid_at(i64::MAX / 4) && certificate.is_valid_at(NOW));
        let (_, notes) = Certificate::load(pem.as_bytes(), key.as_bytes(), 0).expect("served");
        assert!(notes[0].starts_with("is not valid before "), "{notes:?}");
    }

    #[test]
    fn a_staple_replaces_the_one_before() {
        let (pem, key) = leaf(&["a.test"]);
        let (certificate, _) = Certificate::load(pem.as_bytes(), key.as_bytes(), NOW).expect("a sound pair");
        certificate.staple(Some(Staple { response: vec![1], until: NOW, from_file: true }));
        assert_eq!(certificate.served().ocsp.as_deref(), Some(&[1][..]));
        assert_eq!((certificate.stapled_until(), certificate.filed_until()), (Some(NOW), Some(NOW)));
        certificate.staple(Some(Staple { response: vec![2], until: NOW + 1, from_file: false }));
        assert_eq!((certificate.stapled_until(), certificate.filed_until()), (Some(NOW + 1), None));
        certificate.staple(None);
        assert_eq!((certificate.served().ocsp.clone(), certificate.stapled_until()), (None, None));
    }
}
