//! The decision on one request.

use std::sync::{Arc, OnceLock};

use pingora_http::{RequestHeader, ResponseHeader};
use prometheus::{IntCounter, IntCounterVec};
use tokio::runtime::Handle;

use super::key::{Key, Who};
use super::settings::OnFailure;
use super::told::Told;
use crate::exchange::Exchange;
use crate::limit::lease::Hold;
use crate::limit::shared::{Ruling, Shared};
use crate::limit::strikes::{Ban, Bans};
use crate::limit::{Limits, Quota};
use crate::middleware::{Flow, Middleware, Paths, Verdict};
use crate::telemetry::metrics::Metrics;

/// One limit on one route.
pub(super) struct Step {
    pub paths: Option<Paths>,
    pub key: Key,
    /// Tells its buckets in memory from those of others.
    pub seed: u64,
    pub quota: Quota,
    pub bans: Bans,
    /// Tokens that are borrowed at once; 0 for none.
    pub lease: u32,
    pub on_failure: OnFailure,
    pub always_told: bool,
    pub told: Told,
    pub limits: Arc<Limits>,
    /// The buckets in Redis, where there is one.
    pub shared: Option<Arc<Shared>>,
    pub handle: Option<Handle>,
    pub meters: Meters,
}

/// Decisions of one definition, by where they were made.
pub(super) struct Meters {
    counters: IntCounterVec,
    name: Box<str>,
    cells: [[OnceLock<IntCounter>; BY.len()]; RESULTS.len()],
}

/// What came of a request; the place is that in [`RESULTS`].
#[derive(Clone, Copy)]
enum End {
    Allowed,
    Limited,
    Banned,
    Refused,
}

const RESULTS: [&str; 4] = ["allowed", "limited", "banned", "refused"];
const BY: [&str; 4] = ["memory", "redis", "lease", "fallback"];

/// Where a decision was made; the place is that in [`BY`].
#[derive(Clone, Copy)]
enum By {
    /// In memory, as there is no Redis.
    Memory,
    /// In Redis.
    Redis,
    /// Here, by what Redis said before.
    Lease,
    /// In memory, as Redis gives no answer.
    Fallback,
}

/// How long a ban that Redis told of is not asked for again: one that an operator lifts ends soon.
const TRUST: u64 = 1_000_000_000;

impl Middleware for Step {
    fn request<'a>(&'a self, exchange: &'a mut Exchange, head: &'a mut RequestHeader) -> Flow<'a> {
        if self.paths.as_ref().is_some_and(|paths| !paths.guard(&exchange.path)) {
            return Flow::Next;
        }
        let who = self.key.who(exchange, head);
        let (key, now) = (self.limits.key((self.seed, &who)), self.limits.now());
        let Some(shared) = &self.shared else {
            let flow = self.here(key, now, By::Memory);
            return self.done(flow, exchange);
        };
        let ban = if self.bans.after > 0 { self.limits.strikes.ban(key, now) } else { None };
        if let Some(Ban { left, sure: true }) = ban {
            return self.banned(left, By::Lease);
        }
        if !shared.is_up() {
            let flow = self.failed(key, now);
            return self.done(flow, exchange);
        }
        let hold = match ban {
            Some(_) => Hold::Ask { borrow: false },
            None => self.limits.leases.hold(key, self.lease, now),
        };
        match hold {
            Hold::Token { refill } => {
                if refill {
                    self.refill(shared, &who, key);
                }
                self.limits.table.take(key, &self.quota, now, 1);
                self.meters.add(End::Allowed, By::Lease);
                Flow::Next
            }
            Hold::Empty(retry) => {
                if self.bans.after > 0 {
                    self.offend(shared, &who, key, now);
                }
                self.limited(retry, By::Lease)
            }
            Hold::Ask { borrow } => {
                let identifier = self.key.identifier(&who);
                Flow::Wait(Box::pin(self.ask(shared, identifier, key, borrow, exchange)))
            }
        }
    }

    fn response(&self, exchange: &Exchange, head: &mut ResponseHeader) {
        if self.always_told {
            for (name, value) in
                exchange.limits.iter().filter(|(place, ..)| *place == self.seed).flat_map(|(_, told)| told)
            {
                // A head that cannot take more goes without.
                let _ = head.append_header(name.clone(), value.clone());
            }
        }
    }
}

impl Step {
    /// Decides by the buckets in memory.
    fn here(&self, key: u64, now: u64, by: By) -> Result<(u32, u64), Verdict> {
        let strikes = &self.limits.strikes;
        if self.bans.after > 0
            && let Some(Ban { left, .. }) = strikes.ban(key, now)
        {
            self.meters.add(End::Banned, by);
            return Err(self.told.banned(left));
        }
        let taken = self.limits.table.take(key, &self.quota, now, 1);
        if taken.allowed {
            self.meters.add(End::Allowed, by);
            return Ok((taken.remaining, taken.reset));
        }
        if self.bans.after > 0 {
            strikes.strike(key, &self.bans, now);
        }
        self.meters.add(End::Limited, by);
        Err(self.told.limited(taken.retry))
    }

    /// Decides while Redis gives no answer.
    fn failed(&self, key: u64, now: u64) -> Result<(u32, u64), Verdict> {
        match self.on_failure {
            OnFailure::Local => self.here(key, now, By::Fallback),
            OnFailure::Open => {
                self.meters.add(End::Allowed, By::Fallback);
                Ok((self.quota.capacity, 0))
            }
            OnFailure::Closed => {
                self.meters.add(End::Refused, By::Fallback);
                Err(self.told.unknown())
            }
        }
    }

    fn done<'f>(&self, decided: Result<(u32, u64), Verdict>, exchange: &mut Exchange) -> Flow<'f> {
        match decided {
            Ok((remaining, reset)) => {
                if self.always_told {
                    exchange.limits.push((self.seed, self.told.fields(remaining, reset)));
                }
                Flow::Next
            }
            Err(verdict) => Flow::Reply(verdict),
        }
    }

    fn limited<'f>(&self, retry: u64, by: By) -> Flow<'f> {
        self.meters.add(End::Limited, by);
        Flow::Reply(self.told.limited(retry))
    }

    fn banned<'f>(&self, left: u64, by: By) -> Flow<'f> {
        self.meters.add(End::Banned, by);
        Flow::Reply(self.told.banned(left))
    }

    async fn ask<'a>(
        &'a self,
        shared: &'a Shared,
        identifier: String,
        key: u64,
        borrow: bool,
        exchange: &'a mut Exchange,
    ) -> Flow<'a> {
        let wanted = if borrow { self.lease } else { 1 };
        let ruling = shared.ask(&identifier, wanted).await;
        let now = self.limits.now();
        let ruling = match ruling {
            Ok(ruling) => ruling,
            Err(_) => {
                if borrow {
                    self.limits.leases.borrowed(key, 0, 0, now);
                }
                let flow = self.failed(key, now);
                return self.done(flow, exchange);
            }
        };
        self.learn(&ruling, key, borrow, 1, now);
        match ruling {
            Ruling::Granted { remaining, reset, .. } => {
                // What passes counts here as well, so that the limit goes on from there when Redis is lost.
                self.limits.table.take(key, &self.quota, now, 1);
                self.meters.add(End::Allowed, By::Redis);
                self.done(Ok((remaining, reset)), exchange)
            }
            Ruling::Refused { retry, .. } => self.limited(retry, By::Redis),
            Ruling::Banned(left) => self.banned(left, By::Redis),
        }
    }

    /// Remembers what Redis said. `used`: tokens that were spent at once.
    fn learn(&self, ruling: &Ruling, key: u64, borrow: bool, used: u32, now: u64) {
        let Limits { leases, strikes, .. } = &*self.limits;
        match *ruling {
            Ruling::Granted { tokens, .. } => {
                if borrow {
                    let lasts = u64::try_from(self.quota.window.as_nanos()).unwrap_or(u64::MAX);
                    leases.borrowed(key, tokens.saturating_sub(used), lasts, now);
                }
                leases.refilled(key);
                if self.bans.after > 0 {
                    strikes.told_free(key, now);
                }
            }
            Ruling::Refused { retry, strikes: counted } => {
                leases.emptied(key, retry, now);
                if self.bans.after > 0 && counted >= self.bans.after {
                    strikes.told_banned(key, self.bans.lasts, TRUST, now);
                } else if self.bans.after > 0 {
                    strikes.told_strikes(key, counted, &self.bans, now);
                }
            }
            Ruling::Banned(left) => {
                strikes.told_banned(key, left, TRUST, now);
                if borrow {
                    leases.borrowed(key, 0, 0, now);
                }
            }
        }
    }

    /// Borrows more beside the request.
    fn refill(&self, shared: &Arc<Shared>, who: &Who<'_>, key: u64) {
        let (identifier, wanted) = (self.key.identifier(who), self.lease);
        let (shared, limits) = (shared.clone(), self.limits.clone());
        let lasts = u64::try_from(self.quota.window.as_nanos()).unwrap_or(u64::MAX);
        let borrow = async move {
            let ruling = shared.ask(&identifier, wanted).await;
            let now = limits.now();
            match ruling {
                Ok(Ruling::Granted { tokens, .. }) => limits.leases.borrowed(key, tokens, lasts, now),
                Ok(Ruling::Refused { retry, .. }) => limits.leases.emptied(key, retry, now),
                Ok(Ruling::Banned(left)) => {
                    limits.strikes.told_banned(key, left, TRUST, now);
                    limits.leases.borrowed(key, 0, lasts, now);
                }
                Err(_) => limits.leases.borrowed(key, 0, lasts, now),
            }
        };
        if let Some(handle) = &self.handle {
            handle.spawn(borrow);
        }
    }

    /// A refusal that was decided here is a strike in Redis too; it is told beside the request.
    fn offend(&self, shared: &Arc<Shared>, who: &Who<'_>, key: u64, now: u64) {
        if self.limits.strikes.strike(key, &self.bans, now) {
            self.limits.strikes.told_banned(key, self.bans.lasts, TRUST, now);
        }
        let (identifier, shared) = (self.key.identifier(who), shared.clone());
        if let Some(handle) = &self.handle {
            handle.spawn(async move {
                let _ = shared.strike(&identifier).await;
            });
        }
    }
}

impl Meters {
    pub(super) fn new(metrics: &Metrics, name: &str) -> Meters {
        Meters { counters: metrics.rate_limits().clone(), name: name.into(), cells: Default::default() }
    }

    /// Counts a decision. A series appears with its first one.
    fn add(&self, what: End, by: By) {
        let cell = &self.cells[what as usize][by as usize];
        let made = || self.counters.with_label_values(&[BY[by as usize], &self.name, RESULTS[what as usize]]);
        cell.get_or_init(made).inc();
    }
}
