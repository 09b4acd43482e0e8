//! Whom a request's bucket belongs to.

use std::borrow::Cow;
use std::fmt::Write;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};

use http::HeaderName;
use pingora_http::RequestHeader;
use sha2::{Digest, Sha256};

use super::settings::{Reach, Read, Source};
use crate::exchange::Exchange;
use crate::fields;
use crate::middleware::Scope;
use crate::middleware::jwt::claim;
use crate::middleware::jwt::claims::{self, ClaimPath};

/// How requests are told apart.
pub(super) struct Key {
    how: How,
    /// Bits of an IPv6 address that count; 0 for all.
    pub prefix: u8,
    /// Before the identifier in Redis; empty for Goma's names.
    space: String,
    /// Which buckets these are, in memory.
    pub whose: String,
}

enum How {
    /// `global:ip:…`, or the route's where the limit has paths.
    Address(String),
    Header(HeaderName, String),
    Cookie(String),
    Claim(ClaimPath, String),
    Route(String),
}

/// Who asks.
#[derive(Hash, PartialEq, Eq, Debug)]
pub(super) enum Who<'a> {
    /// An address, behind the words of the strategy.
    Address(&'a str, IpAddr),
    /// A value, behind them.
    Value(&'a str, Cow<'a, str>),
    /// Everybody.
    All(&'a str),
}

/// Longer values are named by their hash, so that nobody fills Redis with them.
const LONGEST: usize = 128;

impl Key {
    pub(super) fn new(read: &Read, scope: &Scope<'_>) -> Key {
        let slug = slug(scope.route);
        let named = |words: &str| format!("{words}:{}:value:", read.name);
        let address = || {
            How::Address(match (read.source, scope.paths.is_empty()) {
                (Source::Unsaid, true) => "global:ip:".to_owned(),
                (Source::Unsaid, false) => format!("route:{slug}:ip:"),
                _ => "ip:".to_owned(),
            })
        };
        let how = match read.source {
            Source::Header => HeaderName::try_from(&read.name).ok().map(|name| How::Header(name, named("header"))),
            Source::Cookie if !read.name.is_empty() => Some(How::Cookie(named("cookie"))),
            Source::Claim => ClaimPath::new(&read.name).map(|path| How::Claim(path, named("claim"))),
            Source::Route => Some(How::Route(format!("route:{slug}"))),
            _ => None,
        };
        let space = match read.reach {
            Reach::Unsaid => String::new(),
            Reach::Middleware => format!("goma-edge:{}:", scope.name),
            Reach::Route => format!("goma-edge:{}:{slug}:", scope.name),
        };
        let whose = if read.reach == Reach::Middleware { String::new() } else { format!("route {}", scope.route) };
        Key { how: how.unwrap_or_else(address), prefix: read.ipv6_prefix, space, whose }
    }

    /// Who asks. A request without what is asked for goes by its address.
    pub(super) fn who<'a>(&'a self, exchange: &'a Exchange, head: &'a RequestHeader) -> Who<'a> {
        let value = match &self.how {
            How::Address(words) => return Who::Address(words, self.address(exchange)),
            How::Route(words) => return Who::All(words),
            How::Header(name, words) => {
                let value = head.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
                value.map(|value| (words, trimmed(value)))
            }
            How::Cookie(words) => {
                let name = words.strip_prefix("cookie:").and_then(|rest| rest.strip_suffix(":value:")).unwrap_or("");
                fields::cookie(&head.headers, name).map(|value| (words, trimmed(Cow::Borrowed(value))))
            }
            How::Claim(path, words) => {
                let claims = exchange.claims.as_deref().and_then(claim::read);
                let claim = claims.as_ref().and_then(|claims| path.find(claims)).and_then(claims::forwarded);
                claim.map(|value| (words, Cow::Owned(value.into_owned())))
            }
        };
        match value.filter(|(_, value)| !value.is_empty()) {
            Some((words, value)) => Who::Value(words, value),
            None => Who::Address("ip:", self.address(exchange)),
        }
    }

    fn address(&self, exchange: &Exchange) -> IpAddr {
        match (exchange.client, self.prefix) {
            (IpAddr::V6(address), 1..=127) => {
                let mask = u128::MAX << (128 - u32::from(self.prefix));
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
            }
            (address, _) => address,
        }
    }

    /// The name in Redis, without `rate:`.
    pub(super) fn identifier(&self, who: &Who<'_>) -> String {
        let mut text = self.space.clone();
        // Writing to a string does not fail.
        let _ = match who {
            Who::Address(words, address @ IpAddr::V6(_)) if (1..=127).contains(&self.prefix) => {
                write!(text, "{words}{address}/{}", self.prefix)
            }
            Who::Address(words, address) => write!(text, "{words}{address}"),
            Who::Value(words, value) if value.len() > LONGEST => {
                let hash = Sha256::digest(value.as_bytes());
                let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
                write!(text, "{words}sha256:{digits}")
            }
            Who::Value(words, value) => write!(text, "{words}{value}"),
            Who::All(words) => write!(text, "{words}"),
        };
        text
    }
}

fn trimmed(value: Cow<'_, str>) -> Cow<'_, str> {
    match value {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
        Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
    }
}

/// A name in lower case, each run of other ASCII than letters, digits and `_` as one dash, none at the ends (spec §4.7).
pub(super) fn slug(name: &str) -> String {
    let mut slug = String::new();
    for part in name.to_lowercase().split(|at: char| !at.is_ascii_alphanumeric() && at != '_') {
        if !part.is_empty() {
            if !slug.is_empty() {
                slug.push('-');
            }
            slug.push_str(part);
        }
    }
    slug
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_is_what_goma_makes_of_a_name() {
        for (name, expected) in
            [("Shop", "shop"), ("My Route", "my-route"), (" a__b!!c ", "a__b-c"), ("über", "ber"), ("日本", "")]
        {
            assert_eq!(slug(name), expected, "{name}");
        }
    }
}
