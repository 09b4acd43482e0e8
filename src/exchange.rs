//! The facts of one request and its response: plain data, no handles.
//!
//! An [`Exchange`] is made when a request head has passed the gate and is filled in as the request travels. Middlewares read
//! and change it; the log, the metrics and `config explain` read it. What the proxy needs to *act* (the snapshot, the route,
//! the attempts) lives in the proxy's own context.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, Method};

/// Everything known about one request and its response.
pub struct Exchange {
    /// Request id: the client's `X-Request-ID` if it is harmless, else 32 lower-case hex digits.
    pub id: RequestId,
    /// Address of the client, behind trusted proxies as well. Spec core §5.2 with the design's ruling.
    pub client: IpAddr,
    /// Address of the TCP peer.
    pub peer: IpAddr,
    /// `http` or `https` as the client sees it.
    pub scheme: &'static str,
    /// Request method.
    pub method: Method,
    /// Authority that the client asked for, as it wrote it.
    pub host: String,
    /// Raw path as the chain has it at this point: middlewares may have changed it.
    pub path: String,
    /// Raw query without `?`, or `None` when there was none. Never altered on the way unless a middleware asks for it.
    pub query: Option<String>,
    /// When the request head was complete.
    pub started: Instant,
    /// Time spent in the upstream: from the choice of a backend to the end of its response.
    pub upstream_time: Option<Duration>,
    /// How many backends were tried.
    pub attempts: u32,
    /// What middlewares hold until the exchange is over.
    pub held: Vec<Held>,
    /// What a checked token says of who asks: an object of JSON.
    pub claims: Option<String>,
    /// What limits tell of themselves on the response: by the number of the limit.
    pub limits: Vec<(u64, Vec<(HeaderName, HeaderValue)>)>,
    /// Cookies that middlewares set on the response.
    pub cookies: Vec<HeaderValue>,
    /// How it ended.
    pub reason: Reason,
    /// Why a middleware refused it; empty where the reason says it all.
    pub why: Cow<'static, str>,
}

/// Something that is given back when the exchange is over: a place in a bound.
pub struct Held(#[expect(dead_code, reason = "held for its end")] Box<dyn Any + Send + Sync>);

impl Held {
    /// Keeps it.
    pub fn new(thing: impl Any + Send + Sync) -> Held {
        Held(Box::new(thing))
    }
}

/// Identifies one request in logs and in the `X-Goma-Request-ID` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestId {
    /// Made here: 32 lower-case hexadecimal digits.
    Made([u8; 32]),
    /// Taken from the client.
    Given(String),
}

impl RequestId {
    /// Takes the client's id if it is 1 to 128 visible ASCII characters, else makes one.
    pub fn take(given: Option<&[u8]>) -> RequestId {
        match given.and_then(|bytes| std::str::from_utf8(bytes).ok()) {
            Some(text) if !text.is_empty() && text.len() <= 128 && text.bytes().all(|b| b.is_ascii_graphic()) => {
                RequestId::Given(text.to_owned())
            }
            _ => RequestId::made(rand::random()),
        }
    }

    fn made(random: u128) -> RequestId {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 32];
        for (place, digit) in text.iter_mut().enumerate() {
            *digit = DIGITS[(random >> (4 * place)) as usize & 15];
        }
        RequestId::Made(text)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        match self {
            RequestId::Made(text) => std::str::from_utf8(text).expect("made of ASCII digits above"),
            RequestId::Given(text) => text,
        }
    }
}

/// How an exchange ended: one word of a closed list, the same in log, metric and `config explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The response of a backend (or of the gateway itself, where that is the purpose) was delivered whole.
    Ok,
    /// The client went away before the end.
    ClientGone,
    /// The client was too slow: to send its head or body, or to take its response.
    ClientTimeout,
    /// The request is malformed or ambiguous; refused by the gate.
    BadRequest,
    /// Head too large or with too many fields.
    HeaderTooLarge,
    /// No route takes this path and host.
    NoRoute,
    /// The route does not allow the method.
    MethodNotAllowed,
    /// The name wants a connection of its own, on which a client certificate was asked for.
    Misdirected,
    /// The route is in maintenance.
    Maintenance,
    /// A middleware of this kind refused the request.
    Denied(&'static str),
    /// A middleware of this kind answered by itself (redirect, preflight, cache).
    Answered(&'static str),
    /// No backend is available.
    NoBackend,
    /// Every backend that is up has as many requests as it may, and nobody could wait any longer.
    BackendBusy,
    /// The circuit breakers of all backends that are up are open.
    CircuitOpen,
    /// No connection to a backend: refused, unreachable, name not found.
    ConnectFailed,
    /// A backend did not accept the connection in time.
    ConnectTimeout,
    /// TLS with the backend failed.
    BackendTls,
    /// The backend accepted the request and did not answer in time.
    BackendTimeout,
    /// The backend broke the protocol or the connection before a response.
    BackendFailed,
    /// The backend's response broke off midway.
    BackendCut,
    /// The gateway's own mistake.
    Internal,
    /// Stopped at the end of the grace period.
    Shutdown,
}

impl Reason {
    /// Every reason that names no middleware kind, in the order of declaration.
    pub const PLAIN: &'static [Reason] = &[
        Reason::Ok,
        Reason::ClientGone,
        Reason::ClientTimeout,
        Reason::BadRequest,
        Reason::HeaderTooLarge,
        Reason::NoRoute,
        Reason::MethodNotAllowed,
        Reason::Misdirected,
        Reason::Maintenance,
        Reason::NoBackend,
        Reason::BackendBusy,
        Reason::CircuitOpen,
        Reason::ConnectFailed,
        Reason::ConnectTimeout,
        Reason::BackendTls,
        Reason::BackendTimeout,
        Reason::BackendFailed,
        Reason::BackendCut,
        Reason::Internal,
        Reason::Shutdown,
    ];

    /// The word, without the middleware kind: `denied` for `denied:access`.
    pub fn word(self) -> &'static str {
        match self {
            Reason::Ok => "ok",
            Reason::ClientGone => "client_gone",
            Reason::ClientTimeout => "client_timeout",
            Reason::BadRequest => "bad_request",
            Reason::HeaderTooLarge => "header_too_large",
            Reason::NoRoute => "no_route",
            Reason::MethodNotAllowed => "method_not_allowed",
            Reason::Misdirected => "misdirected",
            Reason::Maintenance => "maintenance",
            Reason::Denied(_) => "denied",
            Reason::Answered(_) => "answered",
            Reason::NoBackend => "no_backend",
            Reason::BackendBusy => "backend_busy",
            Reason::CircuitOpen => "circuit_open",
            Reason::ConnectFailed => "connect_failed",
            Reason::ConnectTimeout => "connect_timeout",
            Reason::BackendTls => "backend_tls",
            Reason::BackendTimeout => "backend_timeout",
            Reason::BackendFailed => "backend_failed",
            Reason::BackendCut => "backend_cut",
            Reason::Internal => "internal",
            Reason::Shutdown => "shutdown",
        }
    }

    /// The reason for a refusal of the gate, by its status.
    pub fn of_refusal(status: u16) -> Reason {
        match status {
            405 => Reason::MethodNotAllowed,
            408 => Reason::ClientTimeout,
            414 | 431 => Reason::HeaderTooLarge,
            _ => Reason::BadRequest,
        }
    }

    /// Kind of the middleware that ended the exchange, where one did.
    pub fn kind(self) -> Option<&'static str> {
        match self {
            Reason::Denied(kind) | Reason::Answered(kind) => Some(kind),
            _ => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            Some(kind) => write!(f, "{}:{kind}", self.word()),
            None => f.write_str(self.word()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_the_clients_only_if_harmless() {
        for (given, kept) in [
            (Some(&b"abc-1"[..]), true),
            (Some(&b""[..]), false),
            (Some(&b"a b"[..]), false),
            (Some(&b"a\nb"[..]), false),
            (Some(&[0xff][..]), false),
            (Some(&[b'a'; 129][..]), false),
            (None, false),
        ] {
            let id = RequestId::take(given);
            assert_eq!(matches!(id, RequestId::Given(_)), kept, "{given:?}");
            if !kept {
                assert!(id.as_str().len() == 32 && id.as_str().bytes().all(|b| b.is_ascii_hexdigit()));
            }
        }
    }

    #[test]
    fn made_ids_differ_and_use_all_digits() {
        assert_ne!(RequestId::take(None), RequestId::take(None));
        assert_eq!(RequestId::made(0xf0).as_str(), format!("0f{}", "0".repeat(30)));
    }

    #[test]
    fn a_reason_names_the_kind_that_decided() {
        assert_eq!(Reason::Denied("access").to_string(), "denied:access");
        assert_eq!(Reason::ConnectTimeout.to_string(), "connect_timeout");
    }
}
