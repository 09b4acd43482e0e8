//! Certificates and TLS settings of the configuration, in the terms of `tls`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{self, CertificatePair, ClientAuth as ClientAuthConfig, Config, Env, Place, Report, expand};
use crate::config::{Gateway, material_file};
use crate::tls::ocsp::{self, Answer, Staple, Status};
use crate::tls::{self, Certificate, ClientAuth, Fault, IndexBuilder, Keeper, Least, Part, Settings, Table};

/// Where further certificates are looked for unless told otherwise; it need not exist.
pub const CERTS_DIR: &str = "/etc/goma/certs";

/// Compiles what an entry point with TLS needs, or reports why not.
pub fn table(config: &Config, env: &Env, keeper: &Keeper, report: &mut Report) -> Option<Arc<Table>> {
    let before = report.errors.len();
    let mut work = Work { env, keeper, now: tls::unix_now(), report };
    let settings = work.settings(&config.gateway);
    let certificates = work.certificates(config);
    let fallback = work.fallback(&config.gateway);
    let (settings, fallback) = (settings?, fallback?);
    if work.report.errors.len() > before {
        return None;
    }
    let mut index = IndexBuilder::new(fallback.clone(), work.now);
    certificates.iter().for_each(|certificate| index.add(certificate));
    let all = [fallback].into_iter().chain(certificates).collect();
    let built = Table::build(&settings, index.build(), all, keeper);
    built.map(Arc::new).map_err(|fault| work.clients(&config.gateway, &fault)).ok()
}

/// Files and folders that [`table`] reads.
pub fn files(config: &Config, env: &Env) -> Vec<PathBuf> {
    let tls = &config.gateway.tls;
    let routes = config.routes.iter().filter_map(|route| route.tls.certificate.as_ref());
    let pairs = routes.chain(&tls.certificates).chain(&tls.default);
    let mut texts: Vec<String> = Vec::new();
    for pair in pairs {
        texts.extend([expand::value(&pair.cert, env), expand::value(&pair.key, env)]);
    }
    texts.push(tls.client_auth.client_ca.clone());
    let mut files: Vec<PathBuf> = texts.iter().filter_map(|text| material_file(text)).map(Path::to_owned).collect();
    let staples: Vec<PathBuf> = files.iter().map(|file| staple(file)).collect();
    files.extend(staples);
    files.sort();
    files.dedup();
    files
}

/// The folder that [`table`] looks into, if there is one.
pub fn folder(config: &Config) -> Option<PathBuf> {
    let named = &config.gateway.tls.certs_dir;
    let path = PathBuf::from(if named.is_empty() { CERTS_DIR } else { named });
    (!named.is_empty() || path.is_dir()).then_some(path)
}

/// The OCSP response that stands beside a certificate.
fn staple(certificate: &Path) -> PathBuf {
    let mut name = certificate.as_os_str().to_owned();
    name.push(".ocsp");
    name.into()
}

struct Work<'a> {
    env: &'a Env,
    keeper: &'a Keeper,
    now: i64,
    report: &'a mut Report,
}

impl Work<'_> {
    fn settings(&mut self, gateway: &Gateway) -> Option<Settings> {
        let at = gateway.at.child("tls");
        let least = self.least(&gateway.tls.min_version, &at.child("minVersion"));
        let alpn = self.alpn(gateway.tls.alpn.as_deref(), &at.child("alpn"));
        let clients = self.client_auth(&gateway.tls.client_auth, &at.child("clientAuth"));
        let ask_responders = gateway.tls.ask_ocsp.unwrap_or(true);
        Some(Settings { least: least?, alpn: alpn?, clients: clients?, ask_responders })
    }

    fn least(&mut self, text: &str, at: &Place) -> Option<Least> {
        match text {
            "" | "1.2" => Some(Least::Tls12),
            "1.3" => Some(Least::Tls13),
            other => {
                self.report
                    .add(at.error(format!("\"{other}\" is no version that is spoken"), "write \"1.2\" or \"1.3\""));
                None
            }
        }
    }

    fn alpn(&mut self, names: Option<&[String]>, at: &Place) -> Option<Vec<String>> {
        let Some(names) = names else { return Some(PROTOCOLS.map(str::to_owned).to_vec()) };
        let mut sound = true;
        for (index, name) in names.iter().enumerate().filter(|(_, name)| !PROTOCOLS.contains(&name.as_str())) {
            let message = format!("\"{name}\" is no protocol that is spoken");
            self.report.add(at.item(index).error(message, "write h2 or http/1.1"));
            sound = false;
        }
        sound.then(|| names.to_vec())
    }

    /// What is asked of clients: `Some(None)` for nothing.
    fn client_auth(&mut self, auth: &ClientAuthConfig, at: &Place) -> Option<Option<ClientAuth>> {
        for (index, word) in auth.forward.iter().enumerate().filter(|(_, word)| !FORWARD.contains(&word.as_str())) {
            let message = format!("\"{word}\" is none of {}", FORWARD.join(", "));
            self.report.add(at.child("forward").item(index).error(message, "remove it"));
        }
        if auth.client_ca.is_empty() {
            for (key, set) in [("required", auth.required), ("hosts", !auth.hosts.is_empty())] {
                if set {
                    let message = "is set without `clientCA`, so that no certificate could be checked";
                    self.report.add(at.child(key).error(message, "set clientCA as well"));
                }
            }
            return Some(None);
        }
        let mut sound = true;
        for (index, host) in auth.hosts.iter().enumerate().filter(|(_, host)| !is_name(host)) {
            let message = format!("\"{host}\" is no name that a client can ask for");
            self.report
                .add(at.child("hosts").item(index).error(message, "write it like a.example.com or *.example.com"));
            sound = false;
        }
        let authorities = config::material(&auth.client_ca);
        let authorities = authorities.map_err(|error| self.unreadable(&at.child("clientCA"), &error)).ok()?;
        let (required, hosts) = (auth.required, auth.hosts.clone());
        sound.then_some(Some(ClientAuth { authorities, required, hosts }))
    }

    fn clients(&mut self, gateway: &Gateway, fault: &Fault) {
        let at = gateway.at.child("tls").child("clientAuth").child("clientCA");
        self.report.add(at.error(fault.message.clone(), fault.remedy));
    }

    /// Those of routes before those of the gateway, and those before the folder's: the first one for a name counts.
    fn certificates(&mut self, config: &Config) -> Vec<Arc<Certificate>> {
        let mut certificates = Vec::new();
        for route in &config.routes {
            let Some(pair) = &route.tls.certificate else { continue };
            let loaded = self.pair(pair, &route.at.child("tls").child("certificate"));
            certificates.extend(loaded.filter(|_| route.enabled));
        }
        let at = config.gateway.at.child("tls").child("certificates");
        for (index, pair) in config.gateway.tls.certificates.iter().enumerate() {
            certificates.extend(self.pair(pair, &at.item(index)));
        }
        certificates.extend(self.folder(config));
        certificates
    }

    fn fallback(&mut self, gateway: &Gateway) -> Option<Arc<Certificate>> {
        let at = gateway.at.child("tls").child("default");
        if let Some(pair) = gateway.tls.default.as_ref().filter(|pair| !is_blank(pair)) {
            return self.pair(pair, &at);
        }
        let made = self.keeper.self_signed(self.now);
        made.map_err(|fault| self.report.add(at.error(fault.message, fault.remedy))).ok()
    }

    fn pair(&mut self, pair: &CertificatePair, at: &Place) -> Option<Arc<Certificate>> {
        if is_blank(pair) {
            return None;
        }
        let (cert, key) = (expand::value(&pair.cert, self.env), expand::value(&pair.key, self.env));
        let chain = self.half(&cert, &at.child("cert"));
        let private = self.half(&key, &at.child("key"));
        let (chain, private) = (chain?, private?);
        match self.keeper.load(&chain, &private, self.now) {
            Ok((certificate, notes)) => {
                for note in notes {
                    self.report.add(at.child("cert").warning(note, ""));
                }
                if let Some(path) = material_file(&cert) {
                    self.staple(path, &certificate, &at.child("cert"));
                }
                Some(certificate)
            }
            Err(fault) => {
                let half = if fault.part == Part::Certificate { "cert" } else { "key" };
                self.report.add(at.child(half).error(fault.message, fault.remedy));
                None
            }
        }
    }

    fn half(&mut self, text: &str, at: &Place) -> Option<Vec<u8>> {
        if text.is_empty() {
            self.report.add(at.error("is missing", "give both the certificate and its key"));
            return None;
        }
        config::material(text).map_err(|error| self.unreadable(at, &error)).ok()
    }

    fn unreadable(&mut self, at: &Place, error: &std::io::Error) {
        let remedy = "give a file that exists, PEM text, or PEM text in base64";
        self.report.add(at.error(format!("cannot be read: {error}"), remedy));
    }

    /// What others put there does not stop the gateway: what cannot be served is told and left out, as in Goma.
    fn folder(&mut self, config: &Config) -> Vec<Arc<Certificate>> {
        let at = config.gateway.at.child("tls").child("certsDir");
        let Some(folder) = folder(config) else { return Vec::new() };
        let found = match tls::folder::look(&folder) {
            Ok(found) => found,
            Err(error) => {
                let message = format!("{} cannot be read: {error}", folder.display());
                self.report.add(at.warning(message, "make the folder, or remove this key"));
                return Vec::new();
            }
        };
        for lonely in &found.alone {
            let message = format!("{} has no key beside it and is left out", lonely.display());
            self.report.add(at.warning(message, "put its key there, with the same name and the ending .key"));
        }
        let mut certificates = Vec::new();
        for (cert, key) in &found.pairs {
            match self.file_pair(cert, key) {
                Ok((certificate, notes)) => {
                    for note in notes {
                        self.report.add(at.warning(format!("{} {note}", cert.display()), ""));
                    }
                    self.staple(cert, &certificate, &at);
                    certificates.push(certificate);
                }
                Err((file, message, remedy)) => {
                    self.report.add(at.warning(format!("{} {message}; it is left out", file.display()), remedy));
                }
            }
        }
        certificates
    }

    fn file_pair<'p>(&self, cert: &'p Path, key: &'p Path) -> Result<(Arc<Certificate>, Vec<String>), Left<'p>> {
        let read = |path: &'p Path| {
            std::fs::read(path).map_err(|error| (path, format!("cannot be read: {error}"), "make it readable"))
        };
        let (chain, private) = (read(cert)?, read(key)?);
        self.keeper
            .load(&chain, &private, self.now)
            .map_err(|fault| (if fault.part == Part::Certificate { cert } else { key }, fault.message, fault.remedy))
    }

    /// Sends along what a file beside the certificate says, if that can be believed.
    fn staple(&mut self, certificate: &Path, of: &Certificate, at: &Place) {
        let path = staple(certificate);
        let Ok(response) = std::fs::read(&path) else { return };
        let Some(subject) = &of.revocation.subject else {
            let message = format!("{} cannot be checked and is not sent along", path.display());
            let remedy = "put the certificate of its authority behind the server's own";
            return self.report.add(at.warning(message, remedy));
        };
        let unfit = match ocsp::check(&response, subject, self.now) {
            Ok(Answer { status: Status::Good, until, .. }) => {
                return of.staple(Some(Staple { response, until, from_file: true }));
            }
            Ok(Answer { status: Status::Revoked(_), .. }) => "says that the certificate was revoked".to_owned(),
            Ok(Answer { status: Status::Unknown, .. }) => "says that the certificate is not known".to_owned(),
            Err(unfit) => unfit.to_string(),
        };
        let message = format!("{} {unfit} and is not sent along", path.display());
        self.report.add(at.warning(message, "write what the authority's responder says now, in DER form"));
    }
}

/// A file that is left out, why, and what to do.
type Left<'p> = (&'p Path, String, &'static str);

/// Protocols that are spoken under TLS, the most wanted first.
const PROTOCOLS: [&str; 2] = ["h2", "http/1.1"];

/// What backends may hear of a client's certificate.
pub const FORWARD: [&str; 3] = ["subject", "fingerprint", "certificate"];

fn is_blank(pair: &CertificatePair) -> bool {
    pair.cert.is_empty() && pair.key.is_empty()
}

/// Whether clients can ask for this name: no address, no port, a wildcard in the first label alone.
fn is_name(host: &str) -> bool {
    let host = host.trim();
    let name = host.strip_prefix("*.").unwrap_or(host);
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    name.parse::<std::net::IpAddr>().is_err() && name.split('.').all(label)
}
