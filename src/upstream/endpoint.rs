//! The text of an endpoint, parsed once.
//!
//! `https://user:word@Shop.example:8443/base?x=1`: the authority is kept as written (it becomes the `Host` field
//! when the client's is not forwarded), the host is lower-cased (it is what decides identity), credentials are
//! kept for health checks only and never printed.

use std::fmt;
use std::net::IpAddr;

/// How to talk to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HTTP/1.1 in cleartext.
    Http,
    /// HTTP/1.1 or HTTP/2 inside TLS.
    Https,
    /// HTTP/2 in cleartext, without negotiation.
    H2c,
}

impl Scheme {
    /// Port of an endpoint that names none.
    pub fn default_port(self) -> u16 {
        match self {
            Scheme::Http | Scheme::H2c => 80,
            Scheme::Https => 443,
        }
    }

    /// As written before `://`.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::H2c => "h2c",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Scheme::Http, Scheme::Https, Scheme::H2c].into_iter().find(|scheme| text.eq_ignore_ascii_case(scheme.as_str()))
    }
}

/// A literal address, or a name in lower case without the final dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Host {
    Ip(IpAddr),
    Name(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Ip(ip) => ip.fmt(f),
            Host::Name(name) => f.write_str(name),
        }
    }
}

/// A parsed endpoint.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Endpoint {
    pub scheme: Scheme,
    /// `host[:port]` as written, without credentials.
    pub authority: String,
    pub host: Host,
    pub port: u16,
    /// Empty, or starts with `/`.
    pub path: String,
    /// Without the question mark.
    pub query: Option<String>,
    /// `user:password`, percent-decoded by whoever uses it.
    pub credentials: Option<String>,
}

/// What is wrong with an endpoint, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadEndpoint {
    pub message: String,
    pub remedy: &'static str,
}

impl Endpoint {
    pub fn parse(text: &str) -> Result<Self, BadEndpoint> {
        let (scheme, rest) = split_scheme(text)?;
        let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (credentials, authority) = match authority.rsplit_once('@') {
            Some((user, authority)) => (Some(user.to_owned()), authority),
            None => (None, authority),
        };
        let (host, port) = split_port(authority)?;
        let (path, query) = split_query(tail)?;
        Ok(Self {
            scheme,
            authority: authority.to_owned(),
            host: parse_host(host)?,
            port: port.unwrap_or(scheme.default_port()),
            path,
            query,
            credentials,
        })
    }

    /// What goes into the request line: path and query, at least `/`.
    pub fn target(&self) -> String {
        let path = if self.path.is_empty() { "/" } else { &self.path };
        match &self.query {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        }
    }

    /// Whether both lead to the same place with the same protocol.
    pub fn same_place(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.host == other.host && self.port == other.port
    }
}

/// Without credentials: fit for logs.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.authority, self.path)?;
        match &self.query {
            Some(query) => write!(f, "?{query}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn split_scheme(text: &str) -> Result<(Scheme, &str), BadEndpoint> {
    if text.is_empty() {
        return Err(bad("is empty", EXAMPLE));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(bad("has no scheme", EXAMPLE));
    };
    match Scheme::parse(scheme) {
        Some(scheme) => Ok((scheme, rest)),
        None => Err(bad(format!("has the scheme {scheme:?}"), "use http, https or h2c")),
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), BadEndpoint> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(inner) => match inner.split_once(']') {
            Some((ip, "")) => (ip, ""),
            Some((ip, port)) if port.starts_with(':') => (ip, &port[1..]),
            _ => {
                return Err(bad("has a broken IPv6 address", "write http://[2001:db8::1]:8080"));
            }
        },
        None => match authority.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(bad("has an IPv6 address without brackets", "write http://[2001:db8::1]:8080"));
            }
            Some(pair) => pair,
            None => (authority, ""),
        },
    };
    if port.is_empty() {
        return Ok((host, None));
    }
    match port.parse::<u16>() {
        Ok(number) if number > 0 && port.bytes().all(|b| b.is_ascii_digit()) => Ok((host, Some(number))),
        _ => Err(bad(format!("has the port {port:?}"), "a port is a number from 1 to 65535")),
    }
}

fn parse_host(text: &str) -> Result<Host, BadEndpoint> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(Host::Ip(ip));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() {
        return Err(bad("has no host", EXAMPLE));
    }
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if name.len() > 253 || !name.split('.').all(label_ok) {
        return Err(bad(
            format!("has the host {text:?}"),
            "use letters, digits, hyphens and dots (international names in their xn-- form)",
        ));
    }
    Ok(Host::Name(name.to_ascii_lowercase()))
}

fn split_query(tail: &str) -> Result<(String, Option<String>), BadEndpoint> {
    let tail = tail.split('#').next().unwrap_or_default();
    if !tail.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(bad("has a space, a control character or a letter beyond ASCII in its path", "percent-encode it"));
    }
    let (path, query) = match tail.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (tail, None),
    };
    let mut encoded = path.split('%').skip(1);
    if !encoded.all(|part| part.len() >= 2 && part.bytes().take(2).all(|b| b.is_ascii_hexdigit())) {
        return Err(bad("has a % that begins no encoding in its path", "write %25 for it"));
    }
    Ok((path.to_owned(), query))
}

fn bad(message: impl Into<String>, remedy: &'static str) -> BadEndpoint {
    BadEndpoint { message: message.into(), remedy }
}

const EXAMPLE: &str = "write it like http://app:8080";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_split_into_its_parts() {
        // text, scheme, authority, host, port, target, shown
        let rows = [
            ("http://app", "http", "app", "app", 80, "/", "http://app"),
            (
                "HTTPS://Shop.Example.:8443/base",
                "https",
                "Shop.Example.:8443",
                "shop.example",
                8443,
                "/base",
                "https://Shop.Example.:8443/base",
            ),
            ("h2c://grpc_1:50051", "h2c", "grpc_1:50051", "grpc_1", 50051, "/", "h2c://grpc_1:50051"),
            (
                "http://[2001:DB8::1]:81/a?x=1",
                "http",
                "[2001:DB8::1]:81",
                "2001:db8::1",
                81,
                "/a?x=1",
                "http://[2001:DB8::1]:81/a?x=1",
            ),
            ("https://[::1]?x", "https", "[::1]", "::1", 443, "/?x", "https://[::1]?x"),
            ("http://bob:word@app/x#frag", "http", "app", "app", 80, "/x", "http://app/x"),
            ("http://10.0.0.1:", "http", "10.0.0.1:", "10.0.0.1", 80, "/", "http://10.0.0.1:"),
        ];
        for (text, scheme, authority, host, port, target, shown) in rows {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(endpoint.scheme.as_str(), scheme, "{text}");
            assert_eq!(endpoint.authority, authority, "{text}");
            assert_eq!(endpoint.host.to_string(), host, "{text}");
            assert_eq!(endpoint.port, port, "{text}");
            assert_eq!(endpoint.target(), target, "{text}");
            assert_eq!(endpoint.to_string(), shown, "{text}");
        }
    }

    #[test]
    fn a_broken_endpoint_is_refused_with_a_reason() {
        let rows = [
            ("", "is empty"),
            ("app:8080", "has no scheme"),
            ("ftp://app", "has the scheme \"ftp\""),
            ("http://", "has no host"),
            ("http://:8080", "has no host"),
            ("http://app:x", "has the port \"x\""),
            ("http://app:0", "has the port \"0\""),
            ("http://app:70000", "has the port \"70000\""),
            ("http://app:+80", "has the port \"+80\""),
            ("http://::1", "has an IPv6 address without brackets"),
            ("http://[::1", "has a broken IPv6 address"),
            ("http://a..b", "has the host \"a..b\""),
            ("http://-a", "has the host \"-a\""),
            ("http://müller", "has the host \"müller\""),
            ("http://a b", "has the host \"a b\""),
            ("http://a/b c", "has a space, a control character or a letter beyond ASCII in its path"),
        ];
        for (text, message) in rows {
            assert_eq!(Endpoint::parse(text).unwrap_err().message, message, "{text}");
        }
    }

    #[test]
    fn credentials_are_never_shown() {
        let endpoint = Endpoint::parse("http://bob:secret@app").unwrap();
        assert!(!format!("{endpoint} {endpoint:?}").contains("secret"));
        assert_eq!(endpoint.credentials.as_deref(), Some("bob:secret"));
    }
}
