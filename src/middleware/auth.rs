//! What the kinds that authenticate share: which requests they guard, how they refuse, what they count.
//!
//! Without `paths` the whole route is protected (design ruling; in Goma nothing is). Everything unclear is a refusal.
//! Headers that say who the client is are removed from its request before the chain looks at it; a kind names them in
//! [`Middleware::identity`](super::Middleware::identity).

use std::net::IpAddr;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora_http::RequestHeader;
use prometheus::{Histogram, IntCounter, IntCounterVec};

use super::{Paths, Scope, Verdict};
use crate::config::{Place, Problem};
use crate::exchange::Exchange;
use crate::reply::Reply;

/// The problem of a secret that still names a variable after its expansion: the text of that is known to everybody who sees
/// the configuration. `instead` says what to write in its place.
pub fn unset(place: &Place, value: &str, instead: &str) -> Option<Problem> {
    let name = unset_variable(value)?;
    Some(place.error(format!("names the variable `{name}`, which is not set"), format!("set it, or write {instead}")))
}

/// The variable that a value still names after its expansion.
pub fn unset_variable(value: &str) -> Option<&str> {
    let name = value.trim().strip_prefix("${")?.strip_suffix('}')?;
    let named = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    named.then_some(name)
}

/// Guards the paths of one definition on one route, and counts what it decided.
pub struct Guard {
    paths: Paths,
    kind: &'static str,
    name: Box<str>,
    ends: IntCounterVec,
    allowed: IntCounter,
    outside: Histogram,
}

impl Guard {
    /// The guard of a definition; `kind` is the current name of its type.
    pub fn new(scope: &Scope<'_>, kind: &'static str) -> Guard {
        let ends = scope.tools.metrics.auth();
        let allowed = ends.with_label_values(&[kind, scope.name, "ok", "allowed"]);
        let outside = scope.tools.metrics.auth_outside(kind, scope.name);
        Guard { paths: Paths::of(scope), kind, name: scope.name.into(), ends, allowed, outside }
    }

    /// Whether a request has to prove who it is.
    pub fn takes(&self, exchange: &Exchange) -> bool {
        self.paths.is_empty() || self.paths.guard(&exchange.path)
    }

    /// Name of the definition, for the log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Counts a request that may pass.
    pub fn allow(&self) {
        self.allowed.inc();
    }

    /// Refuses a request; `reason` is a word of a closed list, for metric and access line.
    pub fn deny(&self, reason: &'static str, reply: Reply) -> Verdict {
        self.ends.with_label_values(&[self.kind, &self.name, reason, "denied"]).inc();
        Verdict::refuse(reply, reason)
    }

    /// Refuses a request because the answer cannot be had: a server is down, a queue is full.
    pub fn fail(&self, reason: &'static str, reply: Reply) -> Verdict {
        self.ends.with_label_values(&[self.kind, &self.name, reason, "error"]).inc();
        Verdict::refuse(reply, reason)
    }

    /// Answers a request itself: a redirect on the way to a login or back.
    pub fn answer(&self, reason: &'static str, reply: Reply) -> Verdict {
        self.ends.with_label_values(&[self.kind, &self.name, reason, "answered"]).inc();
        Verdict { why: reason.into(), ..Verdict::answer(reply) }
    }

    /// Notes how long a call to another server took.
    pub fn called(&self, since: Instant) {
        self.outside.observe(since.elapsed().as_secs_f64());
    }
}

/// 401 with a challenge (RFC 9110 §11.6.1).
pub fn unauthorized(challenge: &HeaderValue) -> Reply {
    Reply::plain(StatusCode::UNAUTHORIZED).header(header::WWW_AUTHENTICATE, challenge.clone())
}

/// 503 for as long as a server that must be asked is down.
pub fn unavailable() -> Reply {
    Reply::plain(StatusCode::SERVICE_UNAVAILABLE).header(header::RETRY_AFTER, HeaderValue::from_static("5"))
}

/// The challenge of Basic authentication; the realm is quoted as RFC 9110 §5.6.4 asks.
pub fn basic_challenge(realm: &str) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    let quoted = realm.replace('\\', "\\\\").replace('"', "\\\"");
    HeaderValue::try_from(format!("Basic realm=\"{quoted}\""))
}

/// A user name and a password as a client sent them.
pub struct BasicCredentials {
    /// The name, up to the first colon.
    pub user: String,
    /// The rest.
    pub password: String,
}

impl BasicCredentials {
    /// Reads the one `Authorization` header: the scheme in any case, padded base64, UTF-8, neither part empty.
    ///
    /// # Errors
    /// With the word for metric and log: `no_credentials`, `malformed`.
    pub fn of(head: &RequestHeader) -> Result<BasicCredentials, &'static str> {
        let mut lines = head.headers.get_all(header::AUTHORIZATION).iter();
        let line = lines.next().ok_or("no_credentials")?;
        let (scheme, text) = line.to_str().ok().and_then(|line| line.split_once(' ')).ok_or("malformed")?;
        if lines.next().is_some() || !scheme.eq_ignore_ascii_case("basic") {
            return Err("malformed");
        }
        let decoded = STANDARD.decode(text.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let decoded = decoded.ok_or("malformed")?;
        match decoded.split_once(':') {
            Some((user, password)) if !user.is_empty() && !password.is_empty() => {
                Ok(BasicCredentials { user: user.to_owned(), password: password.to_owned() })
            }
            _ => Err("malformed"),
        }
    }
}

/// Who counts as one client where something is shared out: an address, or the /64 that a household has of IPv6.
pub fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        address => address,
    }
}

/// Whether a header is about the connection or the framing of a message, and not about a user: nothing that another server
/// or a token says may become one of these.
pub fn is_of_connection(name: &HeaderName) -> bool {
    const NAMES: [&str; 9] = [
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    NAMES.contains(&name.as_str().replace('_', "-").as_str())
}

/// The header that Basic and LDAP forward a user name in (spec middlewares §5.5). What a client says under this name never
/// arrives, forwarded or not.
pub const USERNAME: HeaderName = HeaderName::from_static("username");

/// The same, as the list that [`Middleware::identity`](super::Middleware::identity) asks for.
pub static IDENTITY: [HeaderName; 1] = [USERNAME];

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(lines: &[&str]) -> Result<(String, String), &'static str> {
        let mut head = RequestHeader::build("GET", b"/", None).expect("a head");
        for line in lines {
            head.append_header("Authorization", *line).expect("a header");
        }
        BasicCredentials::of(&head).map(|found| (found.user, found.password))
    }

    #[test]
    fn credentials_are_read_strictly() {
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        let ok = |user: &str, password: &str| Ok((user.to_owned(), password.to_owned()));
        assert_eq!(credentials(&[&basic("ann:a:b")]), ok("ann", "a:b"));
        assert_eq!(credentials(&[&basic("ann:pw").replace("Basic", "basic")]), ok("ann", "pw"), "RFC 9110 §11.1");
        for (description, lines, reason) in [
            ("none", vec![], "no_credentials"),
            ("another scheme", vec!["Bearer abc".to_owned()], "malformed"),
            ("no base64", vec!["Basic ???".to_owned()], "malformed"),
            ("no colon", vec![basic("ann")], "malformed"),
            ("empty password", vec![basic("ann:")], "malformed"),
            ("empty user", vec![basic(":pw")], "malformed"),
            ("two headers", vec![basic("ann:pw"), basic("bob:pw")], "malformed"),
        ] {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            assert_eq!(credentials(&lines), Err(reason), "{description}");
        }
    }

    #[test]
    fn a_realm_cannot_break_out_of_its_quotes() {
        assert_eq!(basic_challenge("a\"b\\").expect("a header"), "Basic realm=\"a\\\"b\\\\\"");
        assert!(basic_challenge("a\r\nb").is_err());
    }
}
