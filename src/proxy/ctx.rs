//! What one request holds while it travels: handles, where the exchange holds facts.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cached::Cached;
use super::decode::Gunzip;
use super::discard::Discard;
use super::encode::Encoder;
use crate::entry::ConnInfo;
use crate::exchange::{Exchange, Reason};
use crate::middleware::Verdict;
use crate::middleware::chain::Watches;
use crate::middleware::cors::Asked;
use crate::middleware::encodings::Accepted;
use crate::reply::Reply;
use crate::snapshot::{Own, Route, Snapshot};
use crate::upstream::deadline::Deadline;
use crate::upstream::{Pick, Tried};

/// The context of one request.
pub struct Ctx {
    /// The configuration that this request sees from beginning to end.
    pub snapshot: Arc<Snapshot>,
    /// The connection it came on.
    pub conn: Option<Arc<ConnInfo>>,
    /// Its facts; `None` until the head was read.
    pub exchange: Option<Exchange>,
    /// What is to be done with it.
    pub plan: Plan,
    /// How many steps of the chain saw the request; their response hooks will run.
    pub ran: usize,
    /// Path after the route's `rewrite`, where that changed it; for log and header policies.
    pub sent_path: Option<String>,
    /// The backend of the current attempt.
    pub pick: Option<Pick>,
    /// Backends that failed.
    pub tried: Tried,
    /// When the current attempt began to wait for its backend; `None` between attempts.
    pub asked: Option<Instant>,
    /// Whether this attempt told the backend that gzip is welcome when the client did not.
    pub asked_gzip: bool,
    /// Unpacks the response.
    pub gunzip: Option<Gunzip>,
    /// Packs the response.
    pub encoder: Option<Box<Encoder>>,
    /// What is left of a backend's response that a page of ours replaced: the client has all it gets.
    pub discard: Option<Discard>,
    /// The descriptor of the connection to the backend of the current attempt.
    pub backend_fd: Option<RawFd>,
    /// Status sent to the client; 0 when none was.
    pub status: u16,
    /// Whether a response head of a backend arrived.
    pub answered: bool,
    /// Body bytes sent to the client.
    pub sent_bytes: u64,
    /// Limits the wait for the backend of the current attempt, where the configuration asks for it.
    pub deadline: Option<Deadline>,
    /// How often the request was sent again to the same backend.
    pub replays: usize,
    /// How often it was sent to another backend before the one before had answered.
    pub hedges: u32,
    /// Whether the backend turned the request away before it began; the next try is not to be hasty.
    pub turned_away: bool,
    /// Whether the response at hand is let go for another attempt, whose backend is chosen.
    pub let_go: bool,
    /// Whether the client was told to go on with its body by us, not by a backend.
    pub continued: bool,
    /// Whether an interim response of a backend went to the client.
    pub hinted: bool,
    /// Where the client comes from, when the route shares across origins.
    pub origin: Option<Box<Asked>>,
    /// What codings the client takes, as it said before any middleware changed it; nothing where the route packs nothing.
    pub accepted: Accepted,
    /// Who watches the body of this attempt; `None` until its first byte.
    pub watches: Option<Watches>,
    /// The verdict of a watcher that ended the request.
    pub refusal: Option<Verdict>,
    /// Whether the client said who it is.
    pub authorized: bool,
    /// What the cache has to do with it.
    pub cache: Option<Box<Cached>>,
    /// Counted as long as it is open, where the response has no end of its own.
    pub stream: Option<super::streams::Stream>,
    /// What the last failed attempt would have come to.
    pub failure: Option<super::fail::Failure>,
}

/// What is to be done with a request.
pub enum Plan {
    /// Not decided yet.
    Unknown,
    /// Serve it from a route.
    Route(Arc<Route>),
    /// One of the gateway's own endpoints.
    Own(Own),
    /// Answer without a route: no Goma headers, no access log.
    Reply(Reply, Reason),
}

impl Ctx {
    /// The context of a fresh request.
    pub fn new(snapshot: Arc<Snapshot>) -> Ctx {
        Ctx {
            snapshot,
            conn: None,
            exchange: None,
            plan: Plan::Unknown,
            ran: 0,
            sent_path: None,
            pick: None,
            tried: Tried::default(),
            asked: None,
            asked_gzip: false,
            gunzip: None,
            encoder: None,
            discard: None,
            backend_fd: None,
            status: 0,
            answered: false,
            sent_bytes: 0,
            deadline: None,
            replays: 0,
            hedges: 0,
            turned_away: false,
            let_go: false,
            continued: false,
            hinted: false,
            origin: None,
            accepted: Accepted::default(),
            watches: None,
            refusal: None,
            authorized: false,
            cache: None,
            stream: None,
            failure: None,
        }
    }

    /// The route, when one was found.
    pub fn route(&self) -> Option<&Arc<Route>> {
        match &self.plan {
            Plan::Route(route) => Some(route),
            _ => None,
        }
    }

    /// When the response has to be over, where the route says so.
    pub fn end(&self) -> Option<Instant> {
        Some(self.exchange.as_ref()?.started + self.route()?.limits.total?)
    }

    /// Whether that has passed.
    pub fn overdue(&self) -> bool {
        self.end().is_some_and(|end| Instant::now() >= end)
    }

    /// Notes how the exchange ended; the first word counts.
    pub fn ends(&mut self, reason: Reason) {
        if let Some(exchange) = &mut self.exchange
            && exchange.reason == Reason::Ok
        {
            exchange.reason = reason;
        }
    }

    /// Adds the time since the backend was asked to the time spent upstream.
    pub fn stop_upstream_clock(&mut self) {
        if let (Some(asked), Some(exchange)) = (self.asked.take(), &mut self.exchange) {
            *exchange.upstream_time.get_or_insert(Duration::ZERO) += asked.elapsed();
        }
    }
}
