//! What is known of a connection, and how long it may take.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::HeaderValue;

use crate::tls::ClientCertificate;

/// What is known of a connection; travels to the request through Pingora's proxy digest.
pub struct ConnInfo {
    /// Address of the TCP peer, IPv4-mapped addresses as IPv4.
    pub peer: SocketAddr,
    /// Address of the TCP peer as `X-Real-IP` shows it; written once a connection.
    pub peer_text: HeaderValue,
    /// `X-Forwarded-For` of a client that no proxy stands before: its address twice.
    pub peer_twice: HeaderValue,
    /// Name of the entry point: `web` or `webSecure`.
    pub entry_point: Arc<str>,
    /// What the handshake came to; `None` without TLS.
    pub tls: Option<Handshake>,
    /// Whether the body's framing was found broken.
    framing_broken: AtomicBool,
    /// Whether the response to the request at hand has ended. HTTP/1 only.
    answered: AtomicBool,
}

impl ConnInfo {
    /// Facts of a fresh connection.
    pub fn new(peer: SocketAddr, entry_point: Arc<str>, tls: Option<Handshake>) -> ConnInfo {
        let ip = peer.ip().to_canonical();
        let text = |text: String| HeaderValue::try_from(text).expect("addresses are plain ASCII");
        ConnInfo {
            peer: SocketAddr::new(ip, peer.port()),
            peer_text: text(ip.to_string()),
            peer_twice: text(format!("{ip}, {ip}")),
            entry_point,
            tls,
            framing_broken: AtomicBool::new(false),
            answered: AtomicBool::new(false),
        }
    }

    /// Notes that a body's framing is broken.
    pub fn break_framing(&self) {
        self.framing_broken.store(true, Ordering::Release);
    }

    /// Whether the request was cut because its body's framing is broken.
    pub fn framing_broken(&self) -> bool {
        self.framing_broken.load(Ordering::Acquire)
    }

    /// Notes whether the response to the request at hand has ended; what is left of the request then has little time.
    pub fn set_answered(&self, answered: bool) {
        self.answered.store(answered, Ordering::Relaxed);
    }

    /// Whether the response to the request at hand has ended.
    pub fn answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }
}

/// What a TLS handshake came to.
#[derive(Clone, Debug, Default)]
pub struct Handshake {
    /// Whether the client was asked for a certificate.
    pub asked: bool,
    /// The certificate that it proved to own.
    pub client: Option<Box<ClientCertificate>>,
}

/// Deadlines of a connection. `None` means never.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// From the first byte of a request (or from accept) to the end of its head.
    pub head: Option<Duration>,
    /// Between two requests.
    pub idle: Option<Duration>,
    /// From the end of the head to the end of the request's body.
    pub read: Option<Duration>,
    /// From the end of the head to the end of the response; not for upgraded connections.
    pub write: Option<Duration>,
    /// Without any progress while a response waits to be written.
    pub stall: Option<Duration>,
}
