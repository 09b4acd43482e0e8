//! What a responder said of a certificate, checked before it is believed. RFC 6960 §3.2 and §4.2.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use chrono::NaiveDateTime;
use sha1::{Digest, Sha1};
use sha2::Sha256;
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

use super::Subject;
use super::der::{self, BIT_STRING, BOOLEAN, ENUMERATED, INTEGER, OCTET_STRING, OID, Reader, SEQUENCE, TIME, explicit};

/// What a response says, once it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Of the certificate.
    pub status: Status,
    /// Since when it is right, Unix time.
    pub from: i64,
    /// From when on there will be something newer, Unix time.
    pub until: i64,
}

/// Whether a certificate still counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It does.
    Good,
    /// Its authority has taken it back, at this Unix time.
    Revoked(i64),
    /// The responder has never heard of it.
    Unknown,
}

/// Why a response is not believed; ends a sentence that begins with the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unfit {
    /// No such thing as a response.
    #[error("is no OCSP response in DER form")]
    Unreadable,
    /// The responder gave no answer.
    #[error("is a refusal of the responder ({0})")]
    Refused(&'static str),
    /// It is about something else.
    #[error("is about another certificate")]
    Another,
    /// Whoever signed it may not.
    #[error("is signed by nobody who may: neither the certificate's authority nor whom that authority allowed to")]
    Signer,
    /// It was changed, or signed with something that is not known here.
    #[error("has no sound signature")]
    Signature,
    /// It demands what is not known here.
    #[error("holds a critical extension that is not known")]
    Critical,
    /// Its time is yet to come.
    #[error("does not count yet")]
    Early,
    /// Its time is over.
    #[error("is out of date")]
    Late,
}

/// Reads what is said of a certificate, if it can be believed at this time.
///
/// # Errors
/// Why it cannot.
pub fn check(response: &[u8], subject: &Subject, now: i64) -> Result<Answer, Unfit> {
    let basic = basic(response)?;
    let mut parts = der::sequence(basic).ok_or(Unfit::Unreadable)?;
    let data = parts.next().filter(|data| data.tag == SEQUENCE).ok_or(Unfit::Unreadable)?;
    let algorithm = parts.take(SEQUENCE).and_then(|it| Reader::new(it).take(OID)).ok_or(Unfit::Unreadable)?;
    let signature = parts.take(BIT_STRING).and_then(bits).ok_or(Unfit::Unreadable)?;
    let enclosed = parts.optional(explicit(0)).and_then(der::sequence);
    let said = Said::read(data.content).ok_or(Unfit::Unreadable)?;
    let issuer = parse(&subject.issuer).ok_or(Unfit::Signer)?;
    if said.by.is(&issuer) {
        verify(issuer.public_key(), algorithm, data.whole, signature)?;
    } else {
        let delegate = delegate(&said.by, enclosed, &issuer, now).ok_or(Unfit::Signer)?;
        verify(delegate.public_key(), algorithm, data.whole, signature)?;
    }
    if said.critical {
        return Err(Unfit::Critical);
    }
    let answer = said.about(subject)?;
    if answer.from > now + SKEW {
        return Err(Unfit::Early);
    }
    if answer.until <= now {
        return Err(Unfit::Late);
    }
    Ok(answer)
}

/// The part that is signed, of a response that is one.
fn basic(response: &[u8]) -> Result<&[u8], Unfit> {
    let mut parts = der::sequence(response).ok_or(Unfit::Unreadable)?;
    match parts.take(ENUMERATED).ok_or(Unfit::Unreadable)? {
        [0] => {}
        [1] => return Err(Unfit::Refused("malformedRequest")),
        [2] => return Err(Unfit::Refused("internalError")),
        [3] => return Err(Unfit::Refused("tryLater")),
        [5] => return Err(Unfit::Refused("sigRequired")),
        [6] => return Err(Unfit::Refused("unauthorized")),
        _ => return Err(Unfit::Unreadable),
    }
    let mut bytes = parts.take(explicit(0)).and_then(der::sequence).ok_or(Unfit::Unreadable)?;
    if bytes.take(OID) != Some(BASIC) {
        return Err(Unfit::Unreadable);
    }
    bytes.take(OCTET_STRING).ok_or(Unfit::Unreadable)
}

/// ResponseData.
struct Said<'a> {
    by: Responder<'a>,
    responses: Reader<'a>,
    critical: bool,
}

enum Responder<'a> {
    Name(&'a [u8]),
    /// SHA-1 of its key.
    Key(&'a [u8]),
}

impl Responder<'_> {
    fn is(&self, certificate: &X509Certificate<'_>) -> bool {
        match self {
            Responder::Name(name) => certificate.subject().as_raw() == *name,
            Responder::Key(hash) => Sha1::digest(&certificate.public_key().subject_public_key.data)[..] == **hash,
        }
    }
}

impl<'a> Said<'a> {
    fn read(data: &'a [u8]) -> Option<Said<'a>> {
        let mut parts = Reader::new(data);
        // Version 1 is the only one, and is left out.
        let _version = parts.optional(explicit(0));
        let by = parts.next()?;
        let by = match by.tag {
            tag if tag == explicit(1) => Responder::Name(by.content),
            tag if tag == explicit(2) => Responder::Key(Reader::new(by.content).take(OCTET_STRING)?),
            _ => return None,
        };
        let _produced = parts.take(TIME)?;
        let responses = Reader::new(parts.take(SEQUENCE)?);
        let critical = parts.optional(explicit(1)).is_some_and(has_critical);
        Some(Said { by, responses, critical })
    }

    /// What is said of this certificate.
    fn about(mut self, subject: &Subject) -> Result<Answer, Unfit> {
        while let Some(single) = self.responses.take(SEQUENCE) {
            let mut parts = Reader::new(single);
            let id = parts.take(SEQUENCE).ok_or(Unfit::Unreadable)?;
            if !matches(id, subject).ok_or(Unfit::Unreadable)? {
                continue;
            }
            let (answer, critical) = answer(&mut parts).ok_or(Unfit::Unreadable)?;
            return if critical { Err(Unfit::Critical) } else { Ok(answer) };
        }
        Err(Unfit::Another)
    }
}

/// Whether a CertID is this certificate's.
fn matches(id: &[u8], subject: &Subject) -> Option<bool> {
    let mut parts = Reader::new(id);
    let hash = Reader::new(parts.take(SEQUENCE)?).take(OID)?;
    let (name, key) = (parts.take(OCTET_STRING)?, parts.take(OCTET_STRING)?);
    let serial = parts.take(INTEGER)?;
    let issuer = (&subject.issuer_name, &subject.issuer_key);
    Some(match hash {
        _ if serial != subject.serial => false,
        SHA1 => Sha1::digest(issuer.0)[..] == *name && Sha1::digest(issuer.1)[..] == *key,
        SHA256 => Sha256::digest(issuer.0)[..] == *name && Sha256::digest(issuer.1)[..] == *key,
        _ => false,
    })
}

/// The rest of a SingleResponse, and whether it holds a critical extension.
fn answer(parts: &mut Reader<'_>) -> Option<(Answer, bool)> {
    let status = parts.next()?;
    let status = match status.tag {
        0x80 => Status::Good,
        0xa1 => Status::Revoked(Reader::new(status.content).take(TIME).and_then(time)?),
        0x82 => Status::Unknown,
        _ => return None,
    };
    let from = time(parts.take(TIME)?)?;
    let until = match parts.optional(explicit(0)) {
        Some(next) => time(Reader::new(next).take(TIME)?)?,
        // There is always something newer; then a day is as long as it is believed.
        None => from + DAY,
    };
    let critical = parts.optional(explicit(1)).is_some_and(has_critical);
    Some((Answer { status, from, until }, critical))
}

/// Whether one of the extensions has to be understood.
fn has_critical(extensions: &[u8]) -> bool {
    let Some(mut extensions) = der::sequence(extensions) else { return true };
    let mut critical = false;
    while let Some(extension) = extensions.next() {
        let mut parts = Reader::new(extension.content);
        critical |= parts.take(OID).is_none() || parts.optional(BOOLEAN).is_some_and(|flag| flag != [0]);
    }
    critical
}

/// Among the enclosed certificates the one of the responder, if the authority has allowed it to speak. RFC 6960 §4.2.2.2.
fn delegate<'a>(
    by: &Responder<'_>,
    enclosed: Option<Reader<'a>>,
    issuer: &X509Certificate<'_>,
    now: i64,
) -> Option<X509Certificate<'a>> {
    let mut enclosed = enclosed?;
    while let Some(value) = enclosed.next() {
        let Some(certificate) = parse(value.whole) else { continue };
        let usage = certificate.extended_key_usage().ok().flatten();
        let validity = certificate.validity();
        let valid = validity.not_before.timestamp() <= now && now <= validity.not_after.timestamp();
        let signed = || {
            let algorithm = certificate.signature_algorithm.algorithm.as_bytes();
            let signature = &certificate.signature_value.data;
            verify(issuer.public_key(), algorithm, certificate.tbs_certificate.as_ref(), signature).is_ok()
        };
        if by.is(&certificate)
            && certificate.issuer().as_raw() == issuer.subject().as_raw()
            && usage.is_some_and(|usage| usage.value.ocsp_signing)
            && valid
            && signed()
        {
            return Some(certificate);
        }
    }
    None
}

/// Checks a signature with a key, by the algorithms that authorities use today: no MD5, no SHA-1.
fn verify(key: &SubjectPublicKeyInfo<'_>, algorithm: &[u8], message: &[u8], signature: &[u8]) -> Result<(), Unfit> {
    let curve = key.algorithm.parameters.as_ref().and_then(|it| it.as_oid().ok());
    let curve = curve.as_ref().map(|oid| oid.as_bytes());
    let algorithm: &'static dyn VerificationAlgorithm = match (algorithm, curve) {
        (RSA_SHA256, _) => &signature::RSA_PKCS1_2048_8192_SHA256,
        (RSA_SHA384, _) => &signature::RSA_PKCS1_2048_8192_SHA384,
        (RSA_SHA512, _) => &signature::RSA_PKCS1_2048_8192_SHA512,
        (ECDSA_SHA256, Some(P256)) => &signature::ECDSA_P256_SHA256_ASN1,
        (ECDSA_SHA256, Some(P384)) => &signature::ECDSA_P384_SHA256_ASN1,
        (ECDSA_SHA384, Some(P256)) => &signature::ECDSA_P256_SHA384_ASN1,
        (ECDSA_SHA384, Some(P384)) => &signature::ECDSA_P384_SHA384_ASN1,
        (ED25519, _) => &signature::ED25519,
        _ => return Err(Unfit::Signature),
    };
    let key = UnparsedPublicKey::new(algorithm, &key.subject_public_key.data);
    key.verify(message, signature).map_err(|_| Unfit::Signature)
}

fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate)
}

/// The bytes of a BIT STRING that has no odd bits.
fn bits(content: &[u8]) -> Option<&[u8]> {
    content.split_first().filter(|(unused, _)| **unused == 0).map(|(_, bytes)| bytes)
}

/// `20260102030405Z`. RFC 5280 §4.1.2.5.2.
fn time(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    Some(NaiveDateTime::parse_from_str(text, "%Y%m%d%H%M%SZ").ok()?.and_utc().timestamp())
}

/// id-pkix-ocsp-basic, 1.3.6.1.5.5.7.48.1.1.
const BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
/// 1.3.14.3.2.26.
pub(super) const SHA1: &[u8] = &[0x2b, 0x0e, 3, 2, 0x1a];
/// 2.16.840.1.101.3.4.2.1.
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
/// 1.2.840.113549.1.1.11 to .13.
const RSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0b];
const RSA_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0c];
const RSA_SHA512: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0d];
/// 1.2.840.10045.4.3.2 and .3.
const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
const ECDSA_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
/// 1.3.101.112.
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
/// 1.2.840.10045.3.1.7.
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
/// 1.3.132.0.34.
const P384: &[u8] = &[0x2b, 0x81, 4, 0, 0x22];

/// How far a responder's clock may be ahead, in seconds.
const SKEW: i64 = 300;
const DAY: i64 = 24 * 60 * 60;
