//! Headers of tokens (RFC 7515 §4), and those that were read before.
//!
//! An identity provider gives all its tokens the same header until it changes its key. So the headers of tokens whose signature
//! was good are kept as they were written, and are not read again. What a header says does not depend on anything else, so a
//! kept one is never out of date.

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::keys::Algorithm;
use super::token::Fault;

/// What a token says of its signature.
#[derive(Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is signed with.
    pub algorithm: Algorithm,
    /// The id of the key, if it names one. Other hints at keys (`jku`, `jwk`, `x5u`, `x5c`) are not looked at.
    pub key_id: Option<Box<str>>,
}

#[derive(Deserialize)]
struct Written {
    alg: String,
    kid: Option<Box<str>>,
    crit: Option<IgnoredAny>,
}

impl Header {
    /// Reads the decoded header.
    ///
    /// # Errors
    /// When it is none, has extensions that must be understood (RFC 7515 §4.1.11), or names an algorithm unknown here.
    pub fn read(json: &[u8]) -> Result<Header, Fault> {
        let written: Written = serde_json::from_slice(json).map_err(|_| Fault::Malformed)?;
        if written.crit.is_some() {
            return Err(Fault::Malformed);
        }
        let algorithm = Algorithm::named(&written.alg).ok_or(Fault::WrongAlgorithm)?;
        Ok(Header { algorithm, key_id: written.kid })
    }
}

/// Headers of good tokens, each with the text that it was read from.
#[derive(Default)]
pub struct Seen(ArcSwap<Vec<Kept>>);

type Kept = (Box<[u8]>, Arc<Header>);

impl Seen {
    /// The header of this text.
    pub fn find(&self, text: &[u8]) -> Option<Arc<Header>> {
        self.0.load().iter().find(|(known, _)| **known == *text).map(|(_, header)| header.clone())
    }

    /// Keeps a header of a token whose signature was good. The oldest makes room.
    pub fn remember(&self, text: &[u8], header: &Arc<Header>) {
        if text.len() > LONGEST || self.find(text).is_some() {
            return;
        }
        let kept = self.0.load();
        let newer = kept.iter().skip((kept.len() + 1).saturating_sub(MOST)).cloned();
        // Of two that come at once one is kept; the other has its chance with the next token.
        self.0.store(Arc::new(newer.chain([(text.into(), header.clone())]).collect()));
    }
}

/// Headers that are kept: keys of a provider, old and new, in several algorithms.
const MOST: usize = 8;
/// Bytes of the longest that is kept.
const LONGEST: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_headers_are_kept() {
        let seen = Seen::default();
        let header = |number: usize| {
            let json = format!("{{\"alg\":\"ES256\",\"kid\":\"{number}\"}}");
            Arc::new(Header::read(json.as_bytes()).expect("a header"))
        };
        for number in (0..20).chain([19]) {
            seen.remember(format!("text {number}").as_bytes(), &header(number));
        }
        for (number, kept) in [(0, false), (11, false), (12, true), (19, true)] {
            let found = seen.find(format!("text {number}").as_bytes());
            assert_eq!(found, kept.then(|| header(number)), "{number}");
        }
        seen.remember(&[b'a'; LONGEST + 1], &header(1));
        assert!(seen.find(&[b'a'; LONGEST + 1]).is_none());
        assert_eq!(seen.0.load().len(), MOST);
    }
}
