//! The HTTP request of a health check.
//!
//! `GET` on the text of the endpoint with the path appended, on a new connection each time (a kept one would hide a
//! listener that is gone), redirects followed as Go's client does, at most ten.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pingora_core::connectors::ConnectorOptions;
use pingora_core::connectors::http::Connector;
use pingora_error::{Error, ErrorType, OrErr, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_load_balancing::Backend as Target;
use pingora_load_balancing::health_check::HealthCheck;

use super::endpoint::{Endpoint, Host, Scheme};
use super::health::UNHEALTHY;
use super::names::Names;
use super::peer::{PeerKind, PeerTemplate};
use super::settings::{HealthSettings, Transport};
use super::tls::TlsIdentity;

/// What every probe of the process shares.
pub(super) struct Means {
    pub names: Arc<Names>,
    connector: OnceLock<Connector>,
}

impl Means {
    pub fn new(names: Arc<Names>) -> Self {
        let connector = OnceLock::new();
        Self { names, connector }
    }

    /// Made at the first check: it reads the system's certificates.
    fn connector(&self) -> &Connector {
        self.connector.get_or_init(|| Connector::new(Some(ConnectorOptions::new(1))))
    }
}

/// One check of one backend.
pub(super) struct Probe {
    pub url: Endpoint,
    pub settings: HealthSettings,
    /// Of the backend; a redirect to `https` uses it as well.
    pub tls: Arc<TlsIdentity>,
    pub http2: bool,
    pub means: Arc<Means>,
}

#[async_trait]
impl HealthCheck for Probe {
    async fn check(&self, target: &Target) -> Result<()> {
        let Some(address) = target.addr.as_inet() else {
            return Error::e_explain(ErrorType::ConnectError, "a backend is reached over TCP");
        };
        let mut url = self.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.get(&url, self.address(&url, *address).await?).await?;
            match next(&url, &response)? {
                Some(location) => url = location,
                None => return self.judge(response.status.as_u16()),
            }
        }
        unhealthy(format!("more than {MAX_REDIRECTS} redirects"))
    }

    fn health_threshold(&self, success: bool) -> usize {
        let count = match success {
            true => self.settings.rise,
            false => self.settings.fall,
        };
        count.max(1) as usize
    }
}

impl Probe {
    /// A redirect within the backend stays at the address under test.
    async fn address(&self, url: &Endpoint, tested: SocketAddr) -> Result<SocketAddr> {
        if url.host == self.url.host {
            return Ok(SocketAddr::new(tested.ip(), url.port));
        }
        let ip = match &url.host {
            Host::Ip(ip) => *ip,
            Host::Name(host) => {
                let name = self.means.names.name(host);
                let found = name.addresses(self.settings.timeout).await;
                found.or_err(ErrorType::ConnectNoRoute, "redirected elsewhere")?[0]
            }
        };
        Ok(SocketAddr::new(ip, url.port))
    }

    async fn get(&self, url: &Endpoint, address: SocketAddr) -> Result<ResponseHeader> {
        let limit = self.settings.timeout;
        let transport = Transport {
            connect_timeout: limit,
            tls_handshake_timeout: Some(limit),
            // The whole check has a limit; this only keeps HTTP/2 connections from being shared.
            one_stream: true,
            idle_timeout: Some(Duration::ZERO),
            http2: self.http2,
        };
        let tls = (url.scheme == Scheme::Https).then_some(&*self.tls);
        let template = PeerTemplate::new(url.scheme, &url.host, tls, &transport);
        let peer = template.at(address, PeerKind::Plain);
        let (mut session, _) = self.means.connector().get_http_session(&*peer).await?;
        session.write_request_header(Box::new(request(url)?)).await?;
        session.finish_request_body().await?;
        loop {
            session.read_response_header().await?;
            let Some(response) = session.response_header() else {
                return Error::e_explain(ErrorType::InvalidHTTPHeader, "no response");
            };
            if !response.status.is_informational() {
                return Ok(response.clone());
            }
        }
    }

    fn judge(&self, status: u16) -> Result<()> {
        let healthy = match &self.settings.healthy[..] {
            [] => status < 400,
            list => list.contains(&status),
        };
        match healthy {
            true => Ok(()),
            false => unhealthy(format!("status {status}")),
        }
    }
}

fn unhealthy<T>(reason: String) -> Result<T> {
    Error::e_explain(UNHEALTHY, reason)
}

fn request(url: &Endpoint) -> Result<RequestHeader> {
    let mut request = RequestHeader::build("GET", url.target().as_bytes(), Some(4))?;
    request.insert_header("Host", &url.authority)?;
    request.insert_header("User-Agent", USER_AGENT)?;
    if let Some(credentials) = &url.credentials {
        let decoded: Vec<u8> = percent_encoding::percent_decode_str(credentials).collect();
        let value = format!("Basic {}", STANDARD.encode(decoded));
        request.insert_header("Authorization", value)?;
    }
    Ok(request)
}

/// Where a redirect leads; `None` when this is the answer.
fn next(url: &Endpoint, response: &ResponseHeader) -> Result<Option<Endpoint>> {
    if !matches!(response.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = response.headers.get("location") else {
        return Ok(None);
    };
    match location.to_str().ok().and_then(|text| follow(url, text)) {
        Some(next) => Ok(Some(next)),
        None => unhealthy("a redirect to an address that cannot be read".to_owned()),
    }
}

/// RFC 3986 §5.2, for what health checks meet.
fn follow(base: &Endpoint, location: &str) -> Option<Endpoint> {
    let location = location.split('#').next().unwrap_or_default();
    let leads_away = location.find("://").is_some_and(|end| !location[..end].contains(['/', '?']));
    if leads_away {
        return Endpoint::parse(location).ok();
    }
    if let Some(rest) = location.strip_prefix("//") {
        return Endpoint::parse(&format!("{}://{rest}", base.scheme.as_str())).ok();
    }
    let (path, query) = match location.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (location, None),
    };
    let folder = base.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let path = match path {
        "" => base.path.clone(),
        path if path.starts_with('/') => without_dots(path),
        path => without_dots(&format!("{folder}/{path}")),
    };
    let kept = location.is_empty().then(|| base.query.clone()).flatten();
    Some(Endpoint { path, query: query.or(kept), ..base.clone() })
}

fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    if path.ends_with("/.") || path.ends_with("/..") {
        kept.push("");
    }
    format!("/{}", kept.join("/"))
}

const MAX_REDIRECTS: usize = 10;
const USER_AGENT: &str = concat!("goma-gateway/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests;
