//! One backend of a route.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pingora_core::upstreams::peer::HttpPeer;

use super::direct::Connection;
use super::endpoint::{Endpoint, Scheme};
use super::guard::Guard;
use super::health::Check;
use super::matching::{Facts, Match};
use super::names::Unresolved;
use super::origin::Origin;
use super::peer::{PeerKind, PeerTemplate};
use super::slots::Slots;

/// One backend of a route: an origin, and what the route says about it.
pub struct Backend {
    pub(super) name: String,
    pub(super) endpoint: Endpoint,
    pub(super) origin: Arc<Origin>,
    pub(super) template: Arc<PeerTemplate>,
    pub(super) connect_timeout: Duration,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) check: Option<Arc<Check>>,
    pub(super) guard: Option<Arc<Guard>>,
    /// Places that it shares with every route that uses the same origin.
    pub(super) shared: Option<Arc<Slots>>,
    pub(super) rules: Vec<Match>,
    pub(super) weight: u32,
    pub(super) exclusive: bool,
    pub(super) priority: i64,
}

/// How a connection attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is a connection.
    Connected,
    /// There is none.
    ConnectFailed,
}

impl Backend {
    /// The endpoint as configured, without credentials: for logs and explanations.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How to talk to it.
    pub fn scheme(&self) -> Scheme {
        self.endpoint.scheme
    }

    /// Whether it is spoken to in HTTP/2 without TLS.
    pub fn is_h2c(&self) -> bool {
        self.scheme() == Scheme::H2c
    }

    /// `host[:port]` as written in the endpoint: the `Host` field when the client's is not forwarded.
    pub fn authority(&self) -> &str {
        &self.endpoint.authority
    }

    /// Goes before the path of every request: empty, or starts with `/`. As written, encoded.
    pub fn base_path(&self) -> &str {
        &self.endpoint.path
    }

    /// Goes before the query of every request. As written, without the question mark.
    pub fn base_query(&self) -> Option<&str> {
        self.endpoint.query.as_deref()
    }

    /// Share of the requests, as configured.
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// Requests at this origin now, of all routes.
    pub fn in_flight(&self) -> usize {
        self.origin.in_flight.load(Ordering::Relaxed)
    }

    /// Connections to this origin that could not be made so far, by all routes.
    pub fn connect_failures(&self) -> u64 {
        self.origin.connect_failures.load(Ordering::Relaxed)
    }

    /// What health checks say: the route's own, or any of this origin when the route has none.
    ///
    /// A backend that was not checked yet is up.
    pub fn is_up(&self) -> bool {
        match &self.check {
            Some(check) => !check.is_down(),
            None => self.origin.failed_checks.load(Ordering::Acquire) == 0,
        }
    }

    /// The result of the route's own check; `None` without a check or before its first result.
    pub fn health(&self) -> Option<Result<(), String>> {
        self.check.as_ref()?.result()
    }

    /// Pingora's peer at one of its addresses.
    pub fn peer(&self, address: SocketAddr, kind: PeerKind) -> Box<HttpPeer> {
        self.template.at(address, kind)
    }

    /// Whether a request without a body goes to it without Pingora in between.
    pub fn is_direct(&self) -> bool {
        self.scheme() == Scheme::Http
    }

    /// The next address. Waits only for the first look-up of a name, no longer than the connect time-out.
    ///
    /// # Errors
    /// [`Unresolved`] when the name has no address.
    pub async fn address(&self) -> Result<SocketAddr, Unresolved> {
        self.origin.address(self.connect_timeout).await
    }

    /// A connection to this address that waits for a request.
    pub fn kept(&self, address: SocketAddr) -> Option<Connection> {
        self.origin.kept.take(address)
    }

    /// A new connection to this address, made before `end`.
    ///
    /// # Errors
    /// Pingora's errors for a connection that could not be made.
    pub async fn open(&self, address: SocketAddr, end: Option<Instant>) -> pingora_error::Result<Connection> {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let limit = left.map_or(self.connect_timeout, |left| left.min(self.connect_timeout));
        Connection::open(address, limit).await
    }

    /// Keeps a connection whose exchange is over for the next one.
    pub fn keep(&self, connection: Connection) {
        if connection.persists() {
            self.origin.kept.put(connection, self.idle_timeout);
        }
    }

    /// Tells how an attempt to connect to an address ended; one that failed is passed over for a while.
    pub fn report(&self, ip: IpAddr, outcome: Outcome) {
        match outcome {
            Outcome::Connected => self.origin.welcome(ip),
            Outcome::ConnectFailed => self.origin.avoid(ip),
        }
    }

    /// Whether its failures keep it out.
    pub fn is_ejected(&self) -> bool {
        self.guard.as_ref().is_some_and(|guard| guard.is_ejected())
    }

    /// Whether its breaker lets every request through.
    pub(super) fn is_closed(&self) -> bool {
        self.guard.as_ref().is_none_or(|guard| guard.is_closed())
    }

    /// The part of its share that it gets now, in percent.
    pub(super) fn pace(&self) -> u32 {
        self.guard.as_ref().map_or(100, |guard| guard.pace())
    }

    /// Whether its breaker is open.
    pub fn is_open(&self) -> bool {
        self.guard.as_ref().is_some_and(|guard| guard.is_open())
    }

    /// Whether it takes only requests for which its rules hold.
    pub(super) fn is_canary(&self) -> bool {
        !self.rules.is_empty()
    }

    pub(super) fn allows(&self, facts: &dyn Facts) -> bool {
        self.rules.iter().all(|rule| rule.holds(facts))
    }
}
