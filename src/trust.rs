//! Who the client is, behind proxies that may be trusted.
//!
//! Goma took the left-most address of the first configured header from any peer; a client could write it. Here the walk goes
//! from the right, skips hops that are trusted, and takes valid addresses only. `proxy.enabled` with an empty list trusts one
//! hop: the right-most address. Spec core §5.2 with the design's ruling.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

/// The rule of one configuration.
#[derive(Debug, Default)]
pub struct Trust {
    enabled: bool,
    trusted: Vec<IpNet>,
    headers: Vec<HeaderName>,
}

impl Trust {
    /// `headers` are asked in order; the first that is present decides.
    pub fn new(enabled: bool, trusted: Vec<IpNet>, headers: Vec<HeaderName>) -> Trust {
        Trust { enabled, trusted, headers }
    }

    /// Whether what this peer says about the client counts.
    pub fn peer(&self, peer: IpAddr) -> bool {
        self.enabled && (self.trusted.is_empty() || self.hop(peer))
    }

    /// Headers that may carry the client's address; from others than trusted peers they are removed.
    pub fn headers(&self) -> &[HeaderName] {
        &self.headers
    }

    /// The client's address.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.peer(peer) {
            return peer;
        }
        self.headers.iter().find(|name| headers.contains_key(*name)).map_or(peer, |name| {
            let forwarded = name == http::header::FORWARDED;
            let values = headers.get_all(name).iter().rev().filter_map(|value| value.to_str().ok());
            self.walk(peer, values.flat_map(|line| line.rsplit(',')).map(|item| address(item, forwarded)))
        })
    }

    /// From the right: the first address that is not a trusted hop, or the last valid one before rubbish.
    fn walk(&self, peer: IpAddr, items: impl Iterator<Item = Option<IpAddr>>) -> IpAddr {
        let mut nearest = peer;
        for item in items {
            let Some(address) = item else { break };
            nearest = address;
            if self.trusted.is_empty() || !self.hop(address) {
                break;
            }
        }
        nearest
    }

    fn hop(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|net| net.contains(&address))
    }
}

/// The scheme that a trusted peer reports, `http` or `https`.
pub fn scheme(headers: &HeaderMap) -> Option<&'static str> {
    let said = headers.get("x-forwarded-proto").map(HeaderValue::as_bytes)?;
    let first = said.split(|b| *b == b',').next().unwrap_or_default().trim_ascii();
    [("https", &b"https"[..]), ("http", b"http"), ("https", b"wss"), ("http", b"ws")]
        .into_iter()
        .find_map(|(scheme, word)| first.eq_ignore_ascii_case(word).then_some(scheme))
}

/// An address as proxies write it: bare, with a port, in brackets, or as `for=` of RFC 7239.
fn address(item: &str, forwarded: bool) -> Option<IpAddr> {
    let mut text = item.trim();
    if forwarded {
        text = text.split(';').map(str::trim).find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            key.trim().eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"'))
        })?;
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    IpAddr::from_str(bare).ok().or_else(|| SocketAddr::from_str(text).ok().map(|a| a.ip())).map(|a| a.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &[&str], enabled: bool, peer: &str, headers: &[(&str, &str)]) -> String {
        let nets = trusted.iter().map(|net| net.parse().unwrap()).collect();
        let names = ["cf-connecting-ip", "x-forwarded-for", "x-real-ip", "forwarded"];
        let trust = Trust::new(enabled, nets, names.iter().map(|n| n.parse().unwrap()).collect());
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_str(name).unwrap(), value.parse().unwrap());
        }
        trust.client(peer.parse().unwrap(), &map).to_string()
    }

    #[test]
    fn the_client_is_the_nearest_address_that_is_not_ours() {
        let ours = &["10.0.0.0/8", "127.0.0.0/8", "fd00::/8"][..];
        for (what, trusted, enabled, peer, headers, client_is) in [
            ("proxy off", ours, false, "127.0.0.1", &[("x-forwarded-for", "9.9.9.9")][..], "127.0.0.1"),
            ("untrusted peer", ours, true, "8.8.8.8", &[("x-forwarded-for", "9.9.9.9")], "8.8.8.8"),
            ("one hop", ours, true, "127.0.0.1", &[("x-forwarded-for", "9.9.9.9")], "9.9.9.9"),
            ("spoofed left", ours, true, "127.0.0.1", &[("x-forwarded-for", "1.1.1.1, 9.9.9.9")], "9.9.9.9"),
            ("own hops", ours, true, "127.0.0.1", &[("x-forwarded-for", "1.1.1.1, 9.9.9.9, 10.1.1.1")], "9.9.9.9"),
            ("all ours", ours, true, "127.0.0.1", &[("x-forwarded-for", "10.2.2.2, 10.1.1.1")], "10.2.2.2"),
            ("rubbish", ours, true, "127.0.0.1", &[("x-forwarded-for", "1.1.1.1, evil, 10.1.1.1")], "10.1.1.1"),
            (
                "two lines",
                ours,
                true,
                "127.0.0.1",
                &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2")],
                "2.2.2.2",
            ),
            (
                "first header",
                ours,
                true,
                "127.0.0.1",
                &[("x-forwarded-for", "1.1.1.1"), ("cf-connecting-ip", "203.0.113.5")],
                "203.0.113.5",
            ),
            ("with port", ours, true, "127.0.0.1", &[("x-real-ip", "9.9.9.9:443")], "9.9.9.9"),
            ("IPv6", ours, true, "fd00::1", &[("x-real-ip", "[2001:db8::1]:443")], "2001:db8::1"),
            (
                "RFC 7239",
                ours,
                true,
                "127.0.0.1",
                &[("forwarded", "for=1.1.1.1, for=\"[2001:db8::2]\";proto=https")],
                "2001:db8::2",
            ),
            ("empty list", &[], true, "8.8.8.8", &[("x-forwarded-for", "1.1.1.1, 9.9.9.9")], "9.9.9.9"),
            ("nothing said", ours, true, "127.0.0.1", &[], "127.0.0.1"),
        ] {
            assert_eq!(client(trusted, enabled, peer, headers), client_is, "{what}");
        }
    }

    #[test]
    fn the_scheme_is_one_of_two() {
        let said = |text: &str| {
            let mut map = HeaderMap::new();
            map.insert("x-forwarded-proto", text.parse().unwrap());
            scheme(&map)
        };
        assert_eq!(
            [said("HTTPS"), said("http, https"), said("wss"), said("gopher")],
            [Some("https"), Some("http"), Some("https"), None]
        );
    }
}
