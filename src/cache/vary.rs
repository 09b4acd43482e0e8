//! Which request headers a response depends on, and the variant that a request asks for. RFC 9111 §4.1.

use std::fmt::Write;

use http::{HeaderMap, HeaderName, header};

use super::directives;
use super::key::Digest;

/// The headers that select among the variants of one URL: sorted, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selecting(Box<[HeaderName]>);

/// More names than this in one `Vary` is nothing to cache by.
const MOST_NAMES: usize = 16;

impl Selecting {
    /// What a response says, and what the operator adds. `None` when no request can match: `Vary: *`, or an unreadable one.
    pub fn of(response: &HeaderMap, always: &[HeaderName]) -> Option<Selecting> {
        let mut names: Vec<HeaderName> = always.to_vec();
        for line in response.get_all(header::VARY) {
            for name in line.to_str().ok()?.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                names.push(HeaderName::from_bytes(name.as_bytes()).ok().filter(|name| name != "*")?);
            }
        }
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        (names.len() <= MOST_NAMES).then(|| Selecting(names.into()))
    }

    /// Whether every request gets the same.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names.
    pub fn names(&self) -> &[HeaderName] {
        &self.0
    }

    /// Room that it takes, in bytes.
    pub fn size(&self) -> usize {
        self.0.len() * size_of::<HeaderName>()
    }

    /// The variant that a request asks for; 0 when there is one only.
    pub fn variant(&self, request: &HeaderMap) -> u128 {
        if self.is_empty() {
            return 0;
        }
        let mut digest = Digest::new();
        for name in &self.0 {
            digest.part(name.as_str().as_bytes());
            let mut value = String::new();
            match *name {
                header::ACCEPT_ENCODING => codings(request, &mut value),
                header::ACCEPT_LANGUAGE => languages(request, &mut value),
                _ => plain(request, name, &mut value),
            }
            // Absent and empty are not the same.
            digest.part(&[u8::from(request.contains_key(name))]);
            digest.part(value.as_bytes());
        }
        digest.finish().max(1)
    }
}

/// All lines as one, without the blanks around commas.
fn plain(request: &HeaderMap, name: &HeaderName, out: &mut String) {
    for line in request.get_all(name) {
        // Latin-1, so that different bytes stay different.
        let line: String = line.as_bytes().iter().map(|byte| char::from(*byte)).collect();
        for member in directives::members(&line) {
            if !out.is_empty() {
                out.push(',');
            }
            out.push_str(member.trim());
        }
    }
}

/// The codings that a client takes, whatever its words: those that origins use, in a fixed order.
fn codings(request: &HeaderMap, out: &mut String) {
    let mut accepted: Vec<String> = weighed(request, &header::ACCEPT_ENCODING)
        .filter(|(_, weight)| *weight > 0)
        .map(|(coding, _)| if coding == "x-gzip" { "gzip".to_owned() } else { coding })
        .collect();
    accepted.sort_unstable();
    accepted.dedup();
    accepted.truncate(MOST_MEMBERS);
    for coding in accepted {
        _ = write!(out, "{coding},");
    }
}

/// Languages with their weights, in a fixed order and case.
fn languages(request: &HeaderMap, out: &mut String) {
    let mut languages: Vec<(String, u16)> = weighed(request, &header::ACCEPT_LANGUAGE).collect();
    languages.sort_unstable();
    languages.dedup();
    for (language, weight) in languages {
        _ = write!(out, "{language};{weight},");
    }
}

const MOST_MEMBERS: usize = 16;

/// Members of a list in lower case with their weight in thousandths.
fn weighed(request: &HeaderMap, name: &HeaderName) -> impl Iterator<Item = (String, u16)> {
    let lines = request.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).filter_map(|member| {
        let mut parts = member.split(';').map(str::trim);
        let name = parts.next().filter(|name| !name.is_empty())?.to_ascii_lowercase();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        let weight = weight.map_or(1.0, |weight| weight.trim().parse::<f32>().unwrap_or(1.0).clamp(0.0, 1.0));
        Some((name, (weight * 1000.0) as u16))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let line = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        let mut map = HeaderMap::new();
        lines.iter().map(line).for_each(|(name, value)| _ = map.append(name, value));
        map
    }

    fn selecting(vary: &[&str]) -> Option<Selecting> {
        let lines: Vec<_> = vary.iter().map(|value| ("vary", *value)).collect();
        Selecting::of(&headers(&lines), &[])
    }

    #[test]
    fn a_star_in_any_place_matches_nothing() {
        for vary in [&["*"][..], &["*, *"], &["a", "*"], &[" , *"], &["*, a"], &["a,*"]] {
            assert!(selecting(vary).is_none(), "{vary:?}");
        }
        assert_eq!(selecting(&["b, A", "a"]).unwrap().names(), ["a", "b"]);
        assert!(selecting(&[]).unwrap().is_empty());
        assert!(selecting(&[&(0..20).map(|i| format!("x-{i},")).collect::<String>()]).is_none(), "too many");
    }

    #[test]
    fn requests_that_mean_the_same_share_a_variant() {
        for (vary, one, other, same) in [
            ("foo", &[("foo", "1, 2")][..], &[("foo", "1"), ("foo", "2")][..], true),
            ("foo", &[("foo", "1")], &[("foo", " 1")], true),
            ("foo", &[("foo", "1")], &[("foo", "2")], false),
            ("foo", &[("foo", "1")], &[("foo", "1"), ("bar", "2")], true),
            ("foo", &[("foo", "")], &[], false),
            ("foo, bar", &[("foo", "1"), ("bar", "")], &[("foo", "1")], false),
            ("foo, bar", &[("foo", "ab"), ("bar", "c")], &[("foo", "a"), ("bar", "bc")], false),
            ("accept-encoding", &[("accept-encoding", "gzip, br;q=0.5")], &[("accept-encoding", "BR,gzip")], true),
            ("accept-encoding", &[("accept-encoding", "gzip")], &[("accept-encoding", "gzip;q=0")], false),
            ("accept-language", &[("accept-language", "en, de")], &[("accept-language", " De ,en")], true),
            ("accept-language", &[("accept-language", "en;q=0.5, de")], &[("accept-language", "en, de")], false),
            ("foo", &[("foo", "A")], &[("foo", "a")], false),
        ] {
            let selecting = selecting(&[vary]).unwrap();
            let variants = [one, other].map(|lines| selecting.variant(&headers(lines)));
            assert_eq!(variants[0] == variants[1], same, "{vary}: {one:?} and {other:?}");
        }
    }
}
