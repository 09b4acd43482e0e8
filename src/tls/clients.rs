//! Certificates of clients: for which names one is asked for, who may have signed it, and what backends hear of it.

use std::collections::HashSet;
use std::sync::Arc;

use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use sha2::{Digest, Sha256};
use x509_parser::x509::X509Name;

use super::pair::{Fault, Part, chain, parse};
use crate::crypto;

/// What is asked of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    /// Authorities that sign their certificates, PEM.
    pub authorities: Vec<u8>,
    /// Refuse clients without one; otherwise one that is shown is checked.
    pub required: bool,
    /// Names on which it is asked for, exact or `*.` before one; empty for all.
    pub hosts: Vec<String>,
}

impl ClientAuth {
    /// Checks certificates as this says.
    ///
    /// # Errors
    /// When the authorities cannot be used.
    pub(super) fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, Fault> {
        let refuse = |message: String| Fault {
            part: Part::Certificate,
            message,
            remedy: "give the certificates of your authorities in PEM form",
        };
        let mut roots = RootCertStore::empty();
        for authority in chain(&self.authorities).map_err(|fault| refuse(fault.message))? {
            roots.add(authority).map_err(|_| refuse("holds a certificate that cannot be an authority".to_owned()))?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), crypto::provider());
        let builder = if self.required { builder } else { builder.allow_unauthenticated() };
        builder.build().map_err(|error| refuse(format!("cannot be used ({error})")))
    }

    /// What makes an old session worthless when it changes.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update([u8::from(self.required)]);
        hash.update(&self.authorities);
        hash.finalize().into()
    }
}

/// Server names for which clients are asked for certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// For none.
    #[default]
    None,
    /// For all.
    All,
    /// For these: exact ones, and those one label below.
    Some {
        /// In lower case.
        exact: HashSet<String>,
        /// What follows `*.`.
        wildcards: HashSet<String>,
    },
}

impl Names {
    /// The names of a policy.
    pub fn of(clients: Option<&ClientAuth>) -> Names {
        match clients {
            None => Names::None,
            Some(clients) if clients.hosts.is_empty() => Names::All,
            Some(clients) => {
                let lower: Vec<String> = clients.hosts.iter().map(|host| host.trim().to_ascii_lowercase()).collect();
                let (wild, exact): (Vec<_>, Vec<_>) = lower.into_iter().partition(|host| host.starts_with("*."));
                let wildcards = wild.into_iter().map(|host| host[2..].to_owned()).collect();
                Names::Some { exact: exact.into_iter().collect(), wildcards }
            }
        }
    }

    /// Whether a certificate is asked for on this name; none is a name as well.
    pub fn hold(&self, name: Option<&str>) -> bool {
        match (self, name) {
            (Names::None, _) | (Names::Some { .. }, None) => false,
            (Names::All, _) => true,
            (Names::Some { exact, wildcards }, Some(name)) => {
                let name = name.to_ascii_lowercase();
                exact.contains(&name) || name.split_once('.').is_some_and(|(_, parent)| wildcards.contains(parent))
            }
        }
    }

    /// Whether a request for this authority may come on a connection that was made for another name. A name under a policy
    /// wants a connection under the same one: its certificate was asked for in that handshake only. RFC 9110 §15.5.20.
    pub fn misdirected(&self, asked: bool, authority: &str) -> bool {
        match self {
            Names::None | Names::All => false,
            Names::Some { .. } => !asked && self.hold(Some(host(authority))),
        }
    }
}

/// An authority without its port and without the dot that may end a name.
fn host(authority: &str) -> &str {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    host.strip_suffix('.').unwrap_or(host)
}

/// What a client proved to be, as headers show it. Made once a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Its subject, RFC 4514: `CN=alice,O=Example`.
    pub subject: HeaderValue,
    /// SHA-256 of the certificate, 64 lower-case hexadecimal digits.
    pub fingerprint: HeaderValue,
    /// The certificate as PEM, percent-encoded.
    pub pem: HeaderValue,
}

impl ClientCertificate {
    /// Of a certificate that passed the check. `None` where it cannot be put into headers.
    pub fn of(der: &CertificateDer<'_>) -> Option<ClientCertificate> {
        let certificate = parse(der)?;
        let fingerprint: String = Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect();
        let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der);
        let lines: Vec<&str> = body.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
        let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"));
        Some(ClientCertificate {
            subject: HeaderValue::try_from(subject(certificate.subject())).ok()?,
            fingerprint: HeaderValue::try_from(fingerprint).ok()?,
            pem: HeaderValue::try_from(utf8_percent_encode(&pem, ESCAPED).to_string()).ok()?,
        })
    }
}

/// What a URL leaves as it is: RFC 3986's unreserved characters.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A name in the order and with the escapes of RFC 4514, in ASCII.
fn subject(name: &X509Name<'_>) -> String {
    let mut parts = Vec::new();
    for part in name.iter_rdn() {
        let attributes: Vec<String> = part
            .iter()
            .map(|attribute| {
                let id = attribute.attr_type().to_id_string();
                let kind = SHORT.iter().find(|(oid, _)| *oid == id).map_or(id.as_str(), |(_, short)| short);
                match attribute.as_str() {
                    Ok(value) => format!("{kind}={}", escaped(value)),
                    Err(_) => format!("{kind}=?"),
                }
            })
            .collect();
        parts.push(attributes.join("+"));
    }
    parts.reverse();
    parts.join(",")
}

/// RFC 4514 §2.4; what is not printable ASCII as hexadecimal pairs.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => text.extend(['\\', char::from(byte)]),
            b'#' | b' ' if at == 0 => text.extend(['\\', char::from(byte)]),
            b' ' if at == last => text.push_str("\\ "),
            0x20..=0x7e => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\{byte:02X}")),
        }
    }
    text
}

/// RFC 4514 §3, and the address that many certificates carry.
const SHORT: [(&str, &str); 11] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("2.5.4.5", "serialNumber"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;

    use super::*;

    fn names(hosts: &[&str]) -> Names {
        let hosts = hosts.iter().map(ToString::to_string).collect();
        Names::of(Some(&ClientAuth { authorities: Vec::new(), required: true, hosts }))
    }

    #[test]
    fn names_decide_who_is_asked() {
        let some = names(&["Admin.example.com", "*.internal.example.com"]);
        for (name, held) in [
            (Some("admin.example.com"), true),
            (Some("ADMIN.example.com"), true),
            (Some("a.internal.example.com"), true),
            (Some("internal.example.com"), false),
            (Some("a.b.internal.example.com"), false),
            (Some("www.example.com"), false),
            (None, false),
        ] {
            assert_eq!(some.hold(name), held, "{name:?}");
        }
        assert!(names(&[]).hold(None) && !Names::None.hold(Some("a")));
    }

    #[test]
    fn a_name_under_a_policy_wants_a_connection_under_it() {
        let some = names(&["admin.example.com"]);
        for (asked, authority, misdirected) in [
            (false, "admin.example.com", true),
            (false, "ADMIN.example.com:8443", true),
            (false, "admin.example.com.", true),
            (true, "admin.example.com", false),
            (false, "www.example.com", false),
            (true, "www.example.com", false),
        ] {
            assert_eq!(some.misdirected(asked, authority), misdirected, "{asked} {authority}");
        }
        assert!(!names(&[]).misdirected(true, "admin.example.com"));
    }

    #[test]
    fn a_subject_is_written_as_the_rfc_says() {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in [
            (rcgen::DnType::CountryName, "DE"),
            (rcgen::DnType::OrganizationName, "A, B \"C\""),
            (rcgen::DnType::CommonName, "#jürgen "),
        ] {
            params.distinguished_name.push(kind, value);
        }
        let pem = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let client = ClientCertificate::of(&der).unwrap();
        assert_eq!(client.subject, r#"CN=\#j\C3\BCrgen\ ,O=A\, B \"C\",C=DE"#);
        assert_eq!(client.fingerprint.len(), 64);
        let back = percent_encoding::percent_decode(client.pem.as_bytes()).collect::<Vec<u8>>();
        assert_eq!(CertificateDer::from_pem_slice(&back).unwrap(), der);
    }

    #[test]
    fn authorities_that_cannot_be_used_are_refused() {
        for (authorities, message) in [
            ("", "holds no certificate"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "holds a certificate that cannot be read",
            ),
        ] {
            let clients =
                ClientAuth { authorities: authorities.as_bytes().to_vec(), required: true, hosts: Vec::new() };
            assert_eq!(clients.verifier().err().map(|fault| fault.message).as_deref(), Some(message));
        }
    }
}
