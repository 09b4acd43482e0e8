//! From the name that a client asks for to certificates: exact name, wildcard of one label, default.
//!
//! Two look-ups in a hash table, however many certificates there are.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::pair::Certificate;

/// Certificates by name.
pub struct Index {
    exact: HashMap<Box<str>, Choice>,
    /// By what follows the first label and its dot.
    wildcards: HashMap<Box<str>, Choice>,
    fallback: Choice,
}

/// The certificates for one name, one a kind of key, the preferred kind first. Never empty.
#[derive(Default)]
struct Choice(Vec<Arc<Certificate>>);

/// An index in the making: what is added first is preferred.
pub struct IndexBuilder {
    index: Index,
    now: i64,
}

impl IndexBuilder {
    /// An index whose default is this. Certificates that are not valid at `now` stand behind those that are.
    pub fn new(fallback: Arc<Certificate>, now: i64) -> IndexBuilder {
        let index = Index { exact: HashMap::new(), wildcards: HashMap::new(), fallback: Choice(vec![fallback]) };
        IndexBuilder { index, now }
    }

    /// Adds a certificate under all of its names.
    pub fn add(&mut self, certificate: &Arc<Certificate>) {
        for name in &certificate.names {
            let (names, name) = match name.strip_prefix("*.") {
                Some(parent) => (&mut self.index.wildcards, parent),
                None => (&mut self.index.exact, name.as_str()),
            };
            match names.entry(name.into()) {
                Entry::Vacant(free) => {
                    free.insert(Choice(vec![certificate.clone()]));
                }
                Entry::Occupied(mut taken) => taken.get_mut().add(certificate, self.now),
            }
        }
    }

    /// Done.
    pub fn build(self) -> Index {
        self.index
    }
}

impl Choice {
    fn add(&mut self, certificate: &Arc<Certificate>, now: i64) {
        match self.0.iter_mut().find(|known| known.kind == certificate.kind) {
            Some(known) if !known.is_valid_at(now) && certificate.is_valid_at(now) => *known = certificate.clone(),
            Some(_) => {}
            None => {
                self.0.push(certificate.clone());
                self.0.sort_by_key(|certificate| certificate.kind);
            }
        }
    }

    /// The first kind that the client takes; the last one where it takes none, so that the handshake says so.
    fn pick(&self, offered: &[rustls::SignatureScheme]) -> Option<&Arc<Certificate>> {
        let (last, others) = self.0.split_last()?;
        Some(others.iter().find(|certificate| certificate.suits(offered)).unwrap_or(last))
    }
}

impl Index {
    fn find(&self, name: Option<&str>) -> &Choice {
        let Some(name) = name else { return &self.fallback };
        let wildcard = || self.wildcards.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(wildcard).unwrap_or(&self.fallback)
    }

    /// The certificate for a client that asks for this name, in lower case, and takes these signatures.
    pub fn certificate(&self, name: Option<&str>, offered: &[rustls::SignatureScheme]) -> Option<&Arc<Certificate>> {
        self.find(name).pick(offered)
    }

    /// What may be served for this name, one a kind of key; for explanations.
    pub fn choice(&self, name: Option<&str>) -> &[Arc<Certificate>] {
        &self.find(name).0
    }
}

impl ResolvesServerCert for Index {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.certificate(hello.server_name(), hello.signature_schemes())?.served())
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Index({} names, {} wildcards)", self.exact.len(), self.wildcards.len())
    }
}

#[cfg(test)]
mod tests {
    use rustls::SignatureScheme;

    use super::*;
    use crate::tls::self_signed::testing::leaf;

    const NOW: i64 = 1_800_000_000;
    const ALL: [SignatureScheme; 2] = [SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256];

    fn certificate(names: &[&str]) -> Arc<Certificate> {
        let (pem, key) = leaf(names);
        Arc::new(Certificate::load(pem.as_bytes(), key.as_bytes(), NOW).expect("a sound pair").0)
    }

    #[test]
    fn names_lead_to_certificates() {
        let fallback = certificate(&["default.test"]);
        let (exact, wild, deep) =
            (certificate(&["a.b.test"]), certificate(&["*.b.test"]), certificate(&["*.a.b.test"]));
        let mut builder = IndexBuilder::new(fallback.clone(), NOW);
        [&exact, &wild, &deep].into_iter().for_each(|it| builder.add(it));
        let index = builder.build();
        for (name, expected) in [
            (None, &fallback),
            (Some("a.b.test"), &exact),
            (Some("c.b.test"), &wild),
            (Some("x.a.b.test"), &deep),
            (Some("b.test"), &fallback),
            (Some("x.c.b.test"), &fallback),
            (Some("elsewhere"), &fallback),
        ] {
            let found = index.certificate(name, &ALL).expect("one");
            assert!(Arc::ptr_eq(found, expected), "{name:?}");
        }
    }

    #[test]
    fn the_first_one_for_a_name_counts_unless_it_is_not_valid() {
        let fallback = certificate(&["default.test"]);
        let (first, second) = (certificate(&["a.test"]), certificate(&["a.test"]));
        let mut builder = IndexBuilder::new(fallback.clone(), NOW);
        builder.add(&first);
        builder.add(&second);
        assert!(Arc::ptr_eq(builder.build().certificate(Some("a.test"), &ALL).expect("one"), &first));
        let (pem, key) = leaf(&["a.test"]);
        let (mut expired, _) = Certificate::load(pem.as_bytes(), key.as_bytes(), NOW).expect("a sound pair");
        expired.not_after = NOW - 1;
        let mut builder = IndexBuilder::new(fallback, NOW);
        builder.add(&Arc::new(expired));
        builder.add(&second);
        assert!(Arc::ptr_eq(builder.build().certificate(Some("a.test"), &ALL).expect("one"), &second));
    }
}
