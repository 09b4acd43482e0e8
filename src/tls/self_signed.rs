//! The certificate of last resort: nobody but itself vouches for it.

use chrono::{DateTime, Datelike, Duration, Utc};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};

/// A certificate and its key as PEM texts, made anew: P-256, valid for a year, with Goma's name and no host's.
///
/// # Errors
/// When the machine has no randomness.
pub fn make() -> Result<(String, String), rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "GOMA DEFAULT CERT");
    let midnight = |day: DateTime<Utc>| {
        let small = |number: u32| u8::try_from(number).unwrap_or(1);
        date_time_ymd(day.year(), small(day.month()), small(day.day()))
    };
    let yesterday = Utc::now() - Duration::days(1);
    params.not_before = midnight(yesterday);
    params.not_after = midnight(yesterday + Duration::days(366));
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

#[cfg(test)]
pub(crate) mod testing {
    //! Certificates for unit tests.

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

    /// An authority.
    pub struct Issuer(CertifiedIssuer<'static, KeyPair>);

    impl Issuer {
        pub fn new(name: &str) -> Issuer {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            Issuer(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
        }

        pub fn pem(&self) -> String {
            self.0.pem()
        }

        pub fn sign(&self, names: &[&str]) -> (String, String) {
            let key = KeyPair::generate().unwrap();
            (params(names).signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
        }
    }

    /// A certificate that signed itself, with its key.
    pub fn leaf(names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        (params(names).self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn params(names: &[&str]) -> CertificateParams {
        CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
    }
}
