//! The request that is asked about.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use http::HeaderName;
use pingora_http::RequestHeader;

use super::Options;

/// A request as a client would write it.
#[derive(Debug)]
pub struct Ask {
    /// As given; the gate judges it.
    pub method: String,
    /// Path and query, byte for byte.
    pub target: String,
    /// The `Host` field.
    pub host: String,
    /// Whether it would come over TLS.
    pub tls: bool,
    /// Further fields, in their order.
    pub headers: Vec<(String, String)>,
    /// Who would open the connection.
    pub from: IpAddr,
}

impl Ask {
    /// Reads the command line.
    ///
    /// # Errors
    /// When it does not describe one request.
    pub fn new(options: &Options) -> Result<Ask> {
        let (tls, host, target) = split(&options.url)?;
        let mut ask = Ask {
            method: options.method.clone(),
            target: target.to_owned(),
            host: host.unwrap_or(DEFAULT_HOST).to_owned(),
            tls,
            headers: Vec::new(),
            from: options.from,
        };
        for text in &options.headers {
            let (name, value) = field(text)?;
            if name.eq_ignore_ascii_case("host") {
                value.clone_into(&mut ask.host);
            } else {
                ask.headers.push((name.to_owned(), value.to_owned()));
            }
        }
        Ok(ask)
    }

    /// The head as it would stand on an HTTP/1.1 connection.
    pub fn wire(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target, self.host);
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        text.into_bytes()
    }

    /// The head as the proxy gets it.
    ///
    /// # Errors
    /// When it cannot be one; the gate refuses such heads before.
    pub fn head(&self) -> pingora_error::Result<RequestHeader> {
        let mut head = RequestHeader::build(self.method.as_str(), self.target.as_bytes(), None)?;
        head.append_header("Host", self.host.as_bytes())?;
        for (name, value) in &self.headers {
            head.append_header(name.clone(), value.as_bytes())?;
        }
        Ok(head)
    }

    /// The URL as a person would write it.
    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.host, self.target)
    }
}

/// What stands in `Host` when nothing was said.
const DEFAULT_HOST: &str = "localhost";

/// TLS or not, host, target. A fragment stays with the client.
fn split(url: &str) -> Result<(bool, Option<&str>, &str)> {
    let url = url.split('#').next().unwrap_or_default();
    if url.starts_with('/') || url == "*" {
        return Ok((false, None, url));
    }
    let (tls, rest) = match url.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
        Some((scheme, _)) if !scheme.contains(['/', '?']) => bail!("{url}: the scheme is http or https, not {scheme}"),
        _ => (false, url),
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, target) = rest.split_at(end);
    if host.contains('@') {
        bail!("credentials belong into -H 'Authorization: ...', not into the URL");
    }
    if target.starts_with('?') {
        bail!("{url}: write a slash before the question mark");
    }
    Ok((tls, Some(host), if target.is_empty() { "/" } else { target }))
}

fn field(text: &str) -> Result<(&str, &str)> {
    let (name, value) = text.split_once(':').context("a header is written as 'Name: value'")?;
    let name = name.trim();
    HeaderName::try_from(name).with_context(|| format!("`{name}` is no header name"))?;
    if value.contains(['\r', '\n']) {
        bail!("the value of `{name}` is more than one line");
    }
    Ok((name, value.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_nothing_in_it_is_changed() {
        for (url, expected) in [
            ("http://a.test/x?y=1", (false, Some("a.test"), "/x?y=1")),
            ("https://a.test:8443", (true, Some("a.test:8443"), "/")),
            ("HTTP://a.test/%2e%2E//b#c", (false, Some("a.test"), "/%2e%2E//b")),
            ("/x?u=http://b", (false, None, "/x?u=http://b")),
            ("a.test/x", (false, Some("a.test"), "/x")),
            ("a.test/x?u=http://b", (false, Some("a.test"), "/x?u=http://b")),
            ("[::1]:8080/", (false, Some("[::1]:8080"), "/")),
            ("*", (false, None, "*")),
        ] {
            assert_eq!(split(url).unwrap(), expected, "{url}");
        }
        for wrong in ["ftp://a.test/", "http://me:pw@a.test/", "http://a.test?x"] {
            assert!(split(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_header_is_one_line() {
        assert_eq!(field("X-Canary:  yes ").unwrap(), ("X-Canary", "yes"));
        assert_eq!(field("X: a:b").unwrap(), ("X", "a:b"));
        for wrong in ["X-Canary", "a b: c", ": c", "X: a\r\nY: b"] {
            assert!(field(wrong).is_err(), "{wrong}");
        }
    }
}
