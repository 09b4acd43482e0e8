//! The authority of a request: `Host`, `:authority` and the one in an absolute target.
//!
//! Stricter than RFC 3986: letters, digits, `-`, `.`, `_` and `~` only. Percent-encoding, commas and the other
//! sub-delimiters have no use in a host name, and backends differ in what they make of them.

use std::fmt;
use std::net::Ipv6Addr;

use super::Refusal;

/// A valid authority, split. Compare with [`Authority::same`], the text keeps the client's case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority<'a> {
    /// Name or address as it was sent; an IPv6 address keeps its brackets, a name its trailing dot.
    pub host: &'a str,
    /// The port that was named, if any.
    pub port: Option<u16>,
}

impl Authority<'_> {
    /// Do both name the same host and port? Case and one trailing dot do not count.
    pub fn same(&self, other: &Authority<'_>, default_port: u16) -> bool {
        bare(self.host).eq_ignore_ascii_case(bare(other.host))
            && self.port.unwrap_or(default_port) == other.port.unwrap_or(default_port)
    }
}

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(self.host),
        }
    }
}

/// Reads an authority: a name, an IPv4 address or an IPv6 address in brackets, and an optional port.
///
/// # Errors
/// 400 when it is empty, has user information, a path, a comma, a space, an empty label or a bad port, or is longer
/// than any DNS name.
pub fn authority(text: &str) -> Result<Authority<'_>, Refusal> {
    if text.is_empty() {
        return Err(Refusal::bad_request("the host is empty"));
    }
    let (host, port) = split_port(text)?;
    match host.strip_prefix('[') {
        Some(inner) => check_ipv6(inner)?,
        None => check_name(host)?,
    }
    Ok(Authority { host, port })
}

/// One trailing dot names the same host.
fn bare(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

fn split_port(text: &str) -> Result<(&str, Option<u16>), Refusal> {
    let after_host = match text.find(']') {
        Some(bracket) => bracket + 1,
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at(after_host);
    if rest.is_empty() {
        return Ok((host, None));
    }
    let digits = rest.strip_prefix(':').unwrap_or("");
    let plausible = (1..=5).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    match digits.parse::<u16>() {
        Ok(port) if plausible => Ok((host, Some(port))),
        _ => Err(Refusal::bad_request("the port of the host is not a number up to 65535")),
    }
}

fn check_ipv6(inner: &str) -> Result<(), Refusal> {
    inner
        .strip_suffix(']')
        .and_then(|address| address.parse::<Ipv6Addr>().ok())
        .map(drop)
        .ok_or(Refusal::bad_request("the host is not an IPv6 address in brackets"))
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let name = bare(name);
    if name.len() > MAX_NAME_BYTES {
        return Err(Refusal::bad_request("the host name is too long"));
    }
    let mut before = b'.';
    for byte in name.bytes() {
        if byte == b'.' && before == b'.' {
            return Err(Refusal::bad_request("empty label in the host name"));
        }
        if !(byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)) {
            return Err(Refusal::bad_request("character that no host name has in the host"));
        }
        before = byte;
    }
    match before {
        b'.' => Err(Refusal::bad_request("empty label in the host name")),
        _ => Ok(()),
    }
}

/// Longest name that DNS can carry (RFC 1035 §2.3.4), without the trailing dot.
const MAX_NAME_BYTES: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_a_host_and_an_optional_port() {
        let rows = [
            ("name", "example.com", Some(("example.com", None))),
            ("name and port", "Example.com:8080", Some(("Example.com", Some(8080)))),
            ("trailing dot", "example.com.", Some(("example.com.", None))),
            ("one label", "localhost:1", Some(("localhost", Some(1)))),
            ("IPv4", "127.0.0.1:80", Some(("127.0.0.1", Some(80)))),
            ("IPv6", "[::1]", Some(("[::1]", None))),
            ("IPv6 and port", "[::1]:80", Some(("[::1]", Some(80)))),
            ("underscore", "my_service", Some(("my_service", None))),
            ("empty", "", None),
            ("port only", ":80", None),
            ("empty port", "a:", None),
            ("port with a sign", "a:+80", None),
            ("port too large", "a:65536", None),
            ("port that is no number", "a:8o", None),
            ("two ports", "a:80:80", None),
            ("comma", "a,b", None),
            ("two hosts in one", "a, b", None),
            ("space", "a b", None),
            ("path", "a/b", None),
            ("query", "a?b", None),
            ("user information", "u@a", None),
            ("user and password", "u:p@a", None),
            ("empty label", "a..b", None),
            ("only a dot", ".", None),
            ("leading dot", ".a", None),
            ("two trailing dots", "a..", None),
            ("percent-encoding", "a%2eb", None),
            ("UTF-8", "é.example", None),
            ("bare IPv6", "::1", None),
            ("open bracket", "[::1", None),
            ("text after the bracket", "[::1]x", None),
            ("zone", "[fe80::1%25eth0]", None),
            ("future address", "[v1.a]", None),
            ("brackets round a name", "[a]", None),
            ("backslash", "a\\b", None),
        ];
        for (what, text, expected) in rows {
            let found = authority(text).ok().map(|a| (a.host, a.port));
            assert_eq!(found, expected, "{what}: {text}");
        }
        assert!(authority(&"a.".repeat(127)).is_ok(), "as long as DNS allows");
        assert!(authority(&"a.".repeat(128)).is_err(), "longer than DNS allows");
    }

    #[test]
    fn the_same_host_may_be_written_in_several_ways() {
        let rows = [
            ("case", "A.example", "a.EXAMPLE", true),
            ("default port", "a:80", "a", true),
            ("trailing dot", "a.", "a:80", true),
            ("other port", "a:81", "a", false),
            ("other host", "a", "b", false),
        ];
        for (what, one, other, expected) in rows {
            let (one, other) = (authority(one).unwrap(), authority(other).unwrap());
            assert_eq!(one.same(&other, 80), expected, "{what}");
        }
    }
}
