//! The hosts of a pattern, and the host of a request.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::fmt;
use std::net::Ipv6Addr;

use super::{Part, PatternError};

/// One host of a pattern, in lower case and without a trailing dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostPattern {
    pub(super) kind: Kind,
    /// The whole name, what follows the wildcard's dot, or nothing.
    pub(super) name: Box<str>,
    pub(super) port: Option<u16>,
}

/// The more specific first, so that the order of variants is the order of look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Named,
    /// `{sub}.name`
    OneLabel,
    /// `*.name`, `{sub...}.name`
    Labels,
    Any,
}

/// Sorts host patterns, the most specific first: kind, with a port, length of the fixed part.
pub(super) type HostRank = (Kind, bool, Reverse<usize>);

impl HostPattern {
    fn any() -> Self {
        Self { kind: Kind::Any, name: "".into(), port: None }
    }

    /// The length counts for wildcards only.
    pub(super) fn rank(&self) -> HostRank {
        let fixed = match self.kind {
            Kind::Named | Kind::Any => 0,
            Kind::OneLabel | Kind::Labels => self.name.len(),
        };
        (self.kind, self.port.is_none(), Reverse(fixed))
    }

    pub(super) fn accepts(&self, asked: &Asked<'_>) -> bool {
        let name = &*self.name;
        (self.port.is_none() || self.port == asked.port)
            && match self.kind {
                Kind::Any => true,
                Kind::Named => name == &*asked.name,
                Kind::OneLabel => asked.suffixes().next() == Some(name),
                Kind::Labels => asked.suffixes().any(|suffix| suffix == name),
            }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Named => f.write_str(&self.name)?,
            Kind::OneLabel => write!(f, "{{sub}}.{}", self.name)?,
            Kind::Labels => write!(f, "*.{}", self.name)?,
            Kind::Any => f.write_str("*")?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// Reads the hosts of a pattern; none is any host.
///
/// # Errors
/// The first host that is not of the form described at [`super::Pattern::hosts`], or that captures another name than
/// one before it.
pub(super) fn parse(hosts: &[String]) -> Result<Vec<HostPattern>, PatternError> {
    if hosts.is_empty() {
        return Ok(vec![HostPattern::any()]);
    }
    let mut captured: Option<&str> = None;
    let mut patterns: Vec<HostPattern> = Vec::with_capacity(hosts.len());
    for (index, text) in hosts.iter().enumerate() {
        let (pattern, name) =
            parse_one(text).map_err(|(problem, remedy)| PatternError { part: Part::Host(index), problem, remedy })?;
        if name.is_some() && captured.is_some() && name != captured {
            return Err(PatternError {
                part: Part::Host(index),
                problem: format!("{text} captures another name than the hosts before it"),
                remedy: "use one name in all hosts of a route",
            });
        }
        captured = captured.or(name);
        patterns.push(pattern);
    }
    Ok(patterns)
}

type Wrong = (String, &'static str);

/// The pattern, and the name its wildcard captures.
fn parse_one(text: &str) -> Result<(HostPattern, Option<&str>), Wrong> {
    if text.contains(char::is_whitespace) {
        return Err((format!("{text:?} holds a space"), "write one host an entry"));
    }
    let (host, port) = split_port(text)?;
    let (kind, capture, fixed) = split_wildcard(host)?;
    if kind != Kind::Any {
        check_name(text, fixed, kind)?;
    }
    let pattern = HostPattern { kind, name: fixed.to_lowercase().into(), port };
    Ok((pattern, capture))
}

fn split_port(text: &str) -> Result<(&str, Option<u16>), Wrong> {
    let start = match text.rfind(']') {
        Some(bracket) => bracket + 1,
        None => text.find(':').unwrap_or(text.len()),
    };
    // A colon inside braces is the mark of an expression, which only paths may have.
    if text[..start].contains('{') && !text[..start].contains('}') {
        return Err((format!("{text} holds an expression"), "write {name} or * as the first label"));
    }
    match text.split_at(start) {
        (host, "") => Ok((host, None)),
        (host, rest) => rest
            .strip_prefix(':')
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .map(|port| (host, Some(port)))
            .ok_or_else(|| {
                (
                    format!("{text} has no valid port"),
                    "write host:port with a number up to 65535, and an IPv6 address in brackets",
                )
            }),
    }
}

/// Kind, captured name, and the part without wildcard and trailing dot.
fn split_wildcard(host: &str) -> Result<(Kind, Option<&str>, &str), Wrong> {
    let fixed = |host: &'_ str| host.len() - usize::from(host.ends_with('.'));
    if host == "*" {
        return Ok((Kind::Any, None, ""));
    }
    if let Some(rest) = host.strip_prefix("*.") {
        return Ok((Kind::Labels, None, &rest[..fixed(rest)]));
    }
    let Some((name, rest)) = host.strip_prefix('{').and_then(|h| h.split_once('}')) else {
        return Ok((Kind::Named, None, &host[..fixed(host)]));
    };
    let (kind, name) = match name.strip_suffix("...") {
        Some(name) => (Kind::Labels, name),
        None => (Kind::OneLabel, name),
    };
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    match (rest.strip_prefix('.'), kind) {
        _ if !is_name => Err((format!("{host} has no valid name in its braces"), LABEL)),
        (Some(rest), _) => Ok((kind, Some(name), &rest[..fixed(rest)])),
        (None, Kind::Labels) if rest.is_empty() => Ok((Kind::Any, Some(name), "")),
        (None, _) if rest.is_empty() => {
            Err((format!("{host} stands for a host of one label"), "write * for any host, or {name}.example.com"))
        }
        (None, _) => Err((format!("{host} mixes a placeholder with other text"), LABEL)),
    }
}

/// `fixed` holds labels of letters, digits, `-` and `_`, or is an address.
fn check_name(text: &str, fixed: &str, kind: Kind) -> Result<(), Wrong> {
    if let Some(inner) = fixed.strip_prefix('[') {
        let address = inner.strip_suffix(']').map(str::parse::<Ipv6Addr>);
        return match (address, kind) {
            (Some(Ok(_)), Kind::Named) => Ok(()),
            _ => Err((format!("{text} is not an IPv6 address"), "write it as in [::1]")),
        };
    }
    if fixed.contains(['*', '{', '}']) {
        return Err((format!("{text} has a wildcard in the middle"), LABEL));
    }
    if fixed.split('.').any(str::is_empty) {
        return Err((format!("{text:?} has an empty label"), "write a name like api.example.com"));
    }
    match fixed.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c)) {
        true => Ok(()),
        false => Err((
            format!("{text} holds a character that no host name has"),
            "write the name alone, without scheme or path",
        )),
    }
}

const LABEL: &str = "write a wildcard as the whole first label, as in *.example.com";

/// The host of a request in the form that patterns have.
pub(super) struct Asked<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) port: Option<u16>,
}

impl<'a> Asked<'a> {
    /// Reads `Host` or `:authority`, which the gate has checked. Allocates for capital letters only.
    pub(super) fn new(host: &'a str) -> Self {
        let end = match host.find(']') {
            Some(bracket) => bracket + 1,
            None => host.find(':').unwrap_or(host.len()),
        };
        let (name, rest) = host.split_at(end);
        let name = name.strip_suffix('.').unwrap_or(name);
        Self {
            name: match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
                true => Cow::Owned(name.to_ascii_lowercase()),
                false => Cow::Borrowed(name),
            },
            port: rest.strip_prefix(':').and_then(|port| port.parse().ok()),
        }
    }

    /// What is left without the first label, without the first two, and so on. Nothing for an IPv6 address.
    pub(super) fn suffixes(&self) -> impl Iterator<Item = &str> {
        let name = match self.name.starts_with('[') || self.name.len() > MAX_NAME_BYTES {
            true => "",
            false => &*self.name,
        };
        let dots = name.bytes().enumerate().filter(|(_, byte)| *byte == b'.');
        dots.map(move |(at, _)| &name[at + 1..]).filter(move |suffix| suffix.len() + 1 < name.len())
    }
}

/// Longest name that DNS can carry; bounds how many labels are looked up.
const MAX_NAME_BYTES: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_pattern_takes_the_hosts_it_describes() {
        let rows = [
            ("name", "api.example.com", "api.example.com", true),
            ("any port", "api.example.com", "api.example.com:8443", true),
            ("case of the pattern", "API.example.com", "api.example.com", true),
            ("case of the request", "api.example.com", "API.Example.COM", true),
            ("trailing dot of the pattern", "a.b.", "a.b", true),
            ("trailing dot of the request", "a.b", "a.b.:80", true),
            ("another name", "a.b", "a.c", false),
            ("its port", "a.b:8443", "a.b:8443", true),
            ("another port", "a.b:8443", "a.b:443", false),
            ("no port", "a.b:8443", "a.b", false),
            ("one label", "{sub}.b.c", "a.b.c", true),
            ("one label is not two", "{sub}.b.c", "x.a.b.c", false),
            ("one label is not none", "{sub}.b.c", "b.c", false),
            ("labels", "*.b.c", "a.b.c", true),
            ("two labels", "*.b.c", "x.a.b.c", true),
            ("never the apex", "*.b.c", "b.c", false),
            ("not a part of a label", "*.b.c", "ab.c", false),
            ("labels by name", "{sub...}.b.c", "x.a.b.c", true),
            ("wildcard with port", "*.b.c:81", "a.b.c:81", true),
            ("wildcard with another port", "*.b.c:81", "a.b.c", false),
            ("any", "*", "a.b.c", true),
            ("any by name", "{host...}", "a.b.c", true),
            ("any, request without host", "*", "", true),
            ("any with port", "*:81", "a:81", true),
            ("any with another port", "*:81", "a:82", false),
            ("IPv6", "[::1]", "[::1]:80", true),
            ("IPv6 with port", "[::1]:80", "[::1]:80", true),
            ("other IPv6", "[::1]", "[::2]", false),
            ("empty first label", "*.b.c", ".b.c", false),
        ];
        for (what, pattern, host, expected) in rows {
            let patterns = parse(&[pattern.to_owned()]).unwrap();
            assert_eq!(patterns[0].accepts(&Asked::new(host)), expected, "{what}");
        }
    }

    #[test]
    fn a_host_that_cannot_match_as_meant_is_refused() {
        let rows = [
            ("wildcard in the middle", "foo.*.com"),
            ("wildcard at the end", "foo.*"),
            ("part of a label", "a*.com"),
            ("placeholder in the middle", "foo.{sub}.com"),
            ("two placeholders", "{a}.{b}.com"),
            ("placeholder and text", "{a}b.com"),
            ("bare placeholder", "{sub}"),
            ("no name", "{}.com"),
            ("expression", "{sub:[a-z]+}.com"),
            ("open brace", "{sub.com"),
            ("empty", ""),
            ("empty label", "a..b"),
            ("leading dot", ".a"),
            ("only a dot", "."),
            ("wildcard without a name", "*."),
            ("space", "a b"),
            ("space at the end", "a "),
            ("path", "a/b"),
            ("scheme", "http://a"),
            ("several colons", "a:1:2"),
            ("bare IPv6", "::1"),
            ("no port after the colon", "a:"),
            ("port with a sign", "a:+80"),
            ("port too large", "a:65536"),
            ("bad IPv6", "[::x]"),
            ("wildcard and IPv6", "*.[::1]"),
        ];
        for (what, host) in rows {
            let error = parse(&["ok".to_owned(), host.to_owned()]).expect_err(what);
            assert_eq!(error.part, Part::Host(1), "{what}");
        }
    }

    #[test]
    fn the_hosts_of_a_route_capture_one_name_or_none() {
        let hosts = |texts: [&str; 2]| parse(&texts.map(str::to_owned));
        assert!(hosts(["{a}.x", "{a}.y"]).is_ok());
        assert!(hosts(["{a}.x", "y"]).is_ok());
        assert!(hosts(["{a}.x", "{b}.y"]).is_err());
    }

    #[test]
    fn host_patterns_have_a_rank() {
        let ranked = [
            "a.example.com:8443",
            "a.example.com",
            "{sub}.example.com:8443",
            "{sub}.example.com",
            "{sub}.com",
            "*.example.com:8443",
            "*.example.com",
            "*.com",
            "*:8443",
            "*",
        ];
        let patterns = parse(&ranked.map(str::to_owned)).unwrap();
        assert!(patterns.is_sorted_by(|one, other| one.rank() < other.rank()));
        assert_eq!(patterns[2].to_string(), "{sub}.example.com:8443");
    }
}
