//! What makes two requests the same to the cache. RFC 9111 §2.

use http::{HeaderMap, HeaderName};
use sha2::{Digest as _, Sha256};

use crate::exchange::Exchange;
use crate::fields;

/// The parts of a request that count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyParts {
    /// `http` or `https`.
    pub scheme: bool,
    /// The authority that the client asked for, in lower case.
    pub host: bool,
    /// The query: none of it, all of it, or some parameters.
    pub query: QueryPart,
    /// Values of these headers.
    pub headers: Vec<HeaderName>,
    /// Values of these cookies.
    pub cookies: Vec<String>,
}

/// How much of the query counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryPart {
    /// Pages that differ by their query are one.
    None,
    /// Byte for byte.
    All,
    /// These parameters, in this order.
    Only(Vec<String>),
}

impl Default for KeyParts {
    fn default() -> Self {
        KeyParts { scheme: true, host: true, query: QueryPart::All, headers: Vec::new(), cookies: Vec::new() }
    }
}

impl KeyParts {
    /// The key of a request; the path is the one that the chain made of it.
    pub fn of(&self, exchange: &Exchange, headers: &HeaderMap) -> u128 {
        let mut digest = self.url_of(exchange.scheme, &exchange.host, &exchange.path, exchange.query.as_deref());
        for name in &self.headers {
            for value in headers.get_all(name) {
                digest.part(value.as_bytes());
            }
            digest.part(name.as_str().as_bytes());
        }
        for name in &self.cookies {
            for value in fields::cookies(headers, name) {
                digest.part(value.as_bytes());
            }
            digest.part(b"\0");
        }
        digest.finish()
    }

    /// The key of a URL, where it needs nothing else of a request.
    pub fn of_url(&self, scheme: &str, host: &str, path: &str, query: Option<&str>) -> Option<u128> {
        (self.headers.is_empty() && self.cookies.is_empty()).then(|| self.url_of(scheme, host, path, query).finish())
    }

    fn url_of(&self, scheme: &str, host: &str, path: &str, query: Option<&str>) -> Digest {
        let mut digest = Digest::new();
        if self.scheme {
            digest.part(scheme.as_bytes());
        }
        if self.host {
            digest.lower_part(host);
        }
        digest.part(path.as_bytes());
        match &self.query {
            QueryPart::None => {}
            QueryPart::All => match query {
                Some(query) => digest.part(query.as_bytes()),
                None => digest.part(b"\0"),
            },
            QueryPart::Only(names) => {
                for name in names {
                    // All of one name count: backends differ in which they take.
                    let pairs = query.into_iter().flat_map(|query| query.split('&'));
                    for pair in pairs.filter(|pair| fields::decoded(pair.split('=').next().unwrap_or(pair)) == **name) {
                        digest.part(pair.as_bytes());
                    }
                    digest.part(b"\0");
                }
            }
        }
        digest
    }
}

/// Hashes parts with their lengths, so that no two lists of parts run into each other: half of a SHA-256, the same in every
/// gateway, and nobody can make two requests meet.
pub struct Digest(Sha256);

impl Digest {
    /// An empty one.
    #[expect(clippy::new_without_default, reason = "there is no empty hash that means anything")]
    pub fn new() -> Digest {
        Digest(Sha256::new())
    }

    /// Adds a part.
    pub fn part(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    /// Adds a part in lower case.
    pub fn lower_part(&mut self, text: &str) {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            self.part(text.to_ascii_lowercase().as_bytes());
        } else {
            self.part(text.as_bytes());
        }
    }

    /// The hash.
    pub fn finish(self) -> u128 {
        let hash = self.0.finalize();
        hash[..16].iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_same_has_another_key() {
        let all = KeyParts::default();
        let some = KeyParts { query: QueryPart::Only(vec!["a".to_owned()]), ..KeyParts::default() };
        let none = KeyParts { query: QueryPart::None, ..KeyParts::default() };
        let url = |parts: &KeyParts, host: &str, path: &str, query| parts.of_url("http", host, path, query).unwrap();
        for (parts, one, other, same, what) in [
            (&all, ("h", "/a", Some("x=1")), ("h", "/a", Some("x=2")), false, "queries"),
            (&all, ("h", "/a", None), ("h", "/a", Some("")), false, "a query that is empty"),
            (&all, ("h", "/a", None), ("H", "/a", None), true, "case of the host"),
            (&all, ("h", "/a", None), ("h", "/A", None), false, "case of the path"),
            (&all, ("h", "/a%2Fb", None), ("h", "/a/b", None), false, "encoding"),
            (&all, ("h:80", "/a", None), ("h", ":80/a", None), false, "where a part ends"),
            (&some, ("h", "/a", Some("a=1&b=2")), ("h", "/a", Some("b=3&a=1")), true, "other parameters"),
            (&some, ("h", "/a", Some("a=1")), ("h", "/a", Some("a=2")), false, "the parameter"),
            (&some, ("h", "/a", Some("a=")), ("h", "/a", None), false, "an empty parameter"),
            (&none, ("h", "/a", Some("a=1")), ("h", "/a", None), true, "no query at all"),
        ] {
            let keys = [one, other].map(|(host, path, query)| url(parts, host, path, query));
            assert_eq!(keys[0] == keys[1], same, "{what}");
        }
    }
}
