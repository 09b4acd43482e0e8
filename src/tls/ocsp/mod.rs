//! Whether a certificate was taken back: what its authority's responder says of it is sent along in the handshake (OCSP
//! stapling, RFC 6960 and RFC 6066 §8), so that clients need not ask.
//!
//! A response comes from a file or from the responder that the certificate names ([`keep`]). Either way it is checked first
//! ([`check`]): it is about this certificate, somebody who may has signed it, its time has come and is not over. Only a response
//! that says `good` is sent; one whose time is over is not sent any more.

mod der;
pub mod keep;
mod response;

use std::sync::{Mutex, PoisonError};

use rustls::pki_types::CertificateDer;
use sha1::{Digest, Sha1};
use x509_parser::prelude::{GeneralName, ParsedExtension};

pub use response::{Answer, Status, Unfit, check};

use super::pair::parse;
use keep::Plan;

/// A certificate as responders know it.
pub struct Subject {
    /// The certificate of its authority, DER.
    pub issuer: Vec<u8>,
    issuer_name: Vec<u8>,
    issuer_key: Vec<u8>,
    serial: Vec<u8>,
}

/// What is there for a certificate's chain to be asked about.
pub struct Revocation {
    /// `None` when the chain does not hold the authority, whose key is needed to ask and to check.
    pub subject: Option<Subject>,
    /// Where to ask: the first address with `http:` that the certificate names.
    pub responder: Option<String>,
    plan: Mutex<Plan>,
}

/// A response that may be sent along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staple {
    /// In DER form.
    pub response: Vec<u8>,
    /// From when on it may not, Unix time.
    pub until: i64,
    /// Whether the operator gave it.
    pub from_file: bool,
}

impl Revocation {
    /// Of a chain, the server's own certificate first.
    pub fn of(chain: &[CertificateDer<'_>]) -> Revocation {
        let leaf = chain.first().and_then(parse);
        let responder = leaf.as_ref().and_then(|leaf| {
            leaf.extensions().iter().find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::AuthorityInfoAccess(access) => access.iter().find_map(|description| {
                    match (&description.access_method, &description.access_location) {
                        (method, GeneralName::URI(uri)) if method.as_bytes() == OCSP && is_plain(uri) => {
                            Some((*uri).to_owned())
                        }
                        _ => None,
                    }
                }),
                _ => None,
            })
        });
        let subject = leaf.zip(chain.get(1)).and_then(|(leaf, der)| {
            let issuer = parse(der)?;
            Some(Subject {
                issuer_name: leaf.issuer().as_raw().to_vec(),
                issuer_key: issuer.public_key().subject_public_key.data.to_vec(),
                serial: leaf.raw_serial().to_vec(),
                issuer: der.to_vec(),
            })
        });
        Revocation { subject, responder, plan: Mutex::default() }
    }

    /// Whom to ask about what, where both are known.
    pub fn question(&self) -> Option<(&str, &Subject)> {
        Some((self.responder.as_deref()?, self.subject.as_ref()?))
    }

    fn plan(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subject {
    /// OCSPRequest, RFC 6960 §4.1.1: one certificate, named with SHA-1 as RFC 5019 wants it, no nonce, so that responders may
    /// answer from a cache.
    pub fn request(&self) -> Vec<u8> {
        let algorithm = der::value(der::SEQUENCE, &[&der::value(der::OID, &[response::SHA1]), &[5, 0]]);
        let name = der::value(der::OCTET_STRING, &[&Sha1::digest(&self.issuer_name)]);
        let key = der::value(der::OCTET_STRING, &[&Sha1::digest(&self.issuer_key)]);
        let serial = der::value(der::INTEGER, &[&self.serial]);
        let id = der::value(der::SEQUENCE, &[&algorithm, &name, &key, &serial]);
        // Request, requestList, TBSRequest, OCSPRequest.
        (0..4).fold(id, |inner, _| der::value(der::SEQUENCE, &[&inner]))
    }
}

fn is_plain(uri: &str) -> bool {
    uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"))
}

/// id-ad-ocsp, 1.3.6.1.5.5.7.48.1.
const OCSP: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1];
