//! Certificates: `gateway.tls` (goma-core §6.1) and `certManager` (§6.3).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::secret::Secret;

/// Certificates we serve and client certificates we ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Tls {
    /// Certificates chosen by the name the client asks for.
    pub certificates: Vec<CertificatePair>,
    /// Folder of further ones; empty for `/etc/goma/certs`, which need not exist.
    pub certs_dir: String,
    /// The certificate when no other fits; none for a self-signed one.
    pub default: Option<CertificatePair>,
    /// Certificates of clients.
    pub client_auth: ClientAuth,
    /// The oldest version of TLS spoken (ours): `1.2`, the default when empty, or `1.3`.
    pub min_version: String,
    /// Protocols offered by ALPN (ours), the most wanted first: `h2` and `http/1.1`, the default when absent.
    pub alpn: Option<Vec<String>>,
    /// Ask the OCSP responders that certificates name, and staple what they say (ours). Default true; a certificate that names
    /// none, or whose chain lacks its authority, asks nobody.
    pub ask_ocsp: Option<bool>,
}

/// A certificate with its key; each a path, PEM, or base64 of PEM. Variables in both are expanded a second time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CertificatePair {
    /// The certificate with its chain.
    pub cert: String,
    /// Its key.
    pub key: Secret,
}

/// Certificates of clients.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ClientAuth {
    /// Authorities that sign them: path, PEM, or base64 of PEM; empty for no such check.
    #[serde(rename = "clientCA")]
    pub client_ca: String,
    /// Refuse clients without one. Default false: check one that is shown.
    pub required: bool,
    /// Names on which certificates are asked for (ours), exact or `*.` before one; empty for all.
    pub hosts: Vec<String>,
    /// What backends hear of the certificate (ours): `subject`, `fingerprint`, `certificate`. Default nothing.
    pub forward: Vec<String>,
}

/// The `certManager` section: who issues certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CertManager {
    /// Provider of routes that name none. After loading: the only provider's name when there is exactly one.
    pub default_provider: String,
    /// The providers by name. After loading the older single provider is here as `default`.
    pub providers: BTreeMap<String, CertProvider>,
    /// Older single provider: its kind.
    pub(super) provider: String,
    /// Older single provider.
    pub(super) acme: Acme,
    /// Older single provider.
    pub(super) vault: Vault,
}

impl CertManager {
    /// Moves the older single provider to where the current ones are, and settles the default.
    pub(super) fn settle(&mut self) {
        let legacy = [&self.provider, &self.acme.email, &self.acme.challenge_type, &self.acme.directory_url];
        let configured = legacy.iter().any(|text| !text.is_empty()) || !self.vault.address.is_empty();
        if self.providers.is_empty() && configured {
            let provider = CertProvider {
                kind: std::mem::take(&mut self.provider),
                acme: std::mem::take(&mut self.acme),
                vault: std::mem::take(&mut self.vault),
            };
            self.providers.insert("default".to_owned(), provider);
            self.default_provider = "default".to_owned();
        }
        if let (1, true) = (self.providers.len(), self.default_provider.is_empty()) {
            self.default_provider = self.providers.keys().next().cloned().unwrap_or_default();
        }
    }
}

/// One issuer of certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CertProvider {
    /// `vault`; anything else is ACME.
    #[serde(rename = "type")]
    pub kind: String,
    /// Settings of an ACME issuer.
    pub acme: Acme,
    /// Settings of a Vault issuer.
    pub vault: Vault,
}

impl CertProvider {
    /// Whether it is Vault.
    pub fn is_vault(&self) -> bool {
        self.kind == "vault"
    }

    /// Whether it says enough to issue anything; Goma's sample has an ACME issuer without an account's address.
    pub fn is_set_up(&self) -> bool {
        if self.is_vault() { !self.vault.address.is_empty() } else { !self.acme.email.is_empty() }
    }
}

/// An ACME issuer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Acme {
    /// Account's address; required.
    pub email: String,
    /// Empty for Let's Encrypt.
    pub directory_url: String,
    /// Where account and certificates are kept; empty for the usual place.
    pub storage_file: String,
    /// Accepted and not used: the terms are always agreed to.
    pub terms_accepted: bool,
    /// `dns-01`; anything else is `http-01`.
    pub challenge_type: String,
    /// `cloudflare`.
    pub dns_provider: String,
    /// For the DNS provider.
    pub credentials: Credentials,
}

/// For a DNS provider.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Credentials {
    /// Required for `cloudflare`.
    pub api_token: Secret,
}

/// A Vault issuer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Vault {
    /// URL; required. `VAULT_ADDR` wins.
    pub address: String,
    /// Required. `VAULT_TOKEN` wins.
    pub token: Secret,
    /// Required.
    pub role: String,
    /// Default `pki`.
    pub mount: String,
    /// Empty for none. `VAULT_NAMESPACE` wins.
    pub namespace: String,
    /// Lifetime to ask for; empty for the role's default.
    pub ttl: String,
    /// Where certificates are kept; empty for the usual place.
    pub storage_file: String,
}

impl Default for Vault {
    fn default() -> Vault {
        Vault {
            address: String::new(),
            token: Secret::default(),
            role: String::new(),
            mount: "pki".to_owned(),
            namespace: String::new(),
            ttl: String::new(),
            storage_file: String::new(),
        }
    }
}
