//! The choice of a backend for a request.
//!
//! One backend takes everything. Of several, only those that are up count, and the first of these applies: an exclusive canary
//! whose rules hold, the backend that the client's cookie names, the algorithm. Canaries take part in the latter two when their
//! rules hold. Choosing costs two atomic loads and no allocation: who is available is kept until the health of some backend
//! changes.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rand::Rng;

use super::backend::Backend;
use super::budget::Budget;
use super::cause::Cause;
use super::guard::{Guard, Leave, Refuses};
use super::matching::Facts;
use super::retry::{MAX_ATTEMPTS, MOST_ATTEMPTS, Policy};
use super::ring::Ring;
use super::settings::{Algorithm, Balance};
use super::slots::{Line, Slots, Waiting};
use super::sticky::Cookie;

mod choose;
mod hedge;

pub(super) use hedge::Hedges;
pub use hedge::{Hedge, NoHedge};

/// The backends of one route, compiled.
pub struct Upstream {
    name: String,
    backends: Box<[Arc<Backend>]>,
    mode: Mode,
    balance: Balance,
    /// For [`Algorithm::ConsistentHash`].
    ring: Option<Ring>,
    cookie: Option<Cookie>,
    turn: Arc<AtomicUsize>,
    /// Whether anybody has a turn.
    takes_turns: bool,
    epoch: Arc<AtomicU64>,
    available: ArcSwap<Available>,
    retry: Option<Retries>,
    hedge: Option<Hedges>,
    line: Arc<Line>,
    /// Whether any backend is watched or bounded.
    guarded: bool,
    ejecting: Mutex<()>,
}

/// Who takes part, as the configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Canary,
    Weighted,
    RoundRobin,
}

/// The backends that are up, as of an epoch of health.
struct Available {
    epoch: u64,
    /// By position.
    usable: Box<[bool]>,
    /// Too few are up: all count.
    panic: bool,
    /// Positions of those that are usable and not left out by their weight.
    indexes: Box<[usize]>,
    /// Sum of the weights up to and with each of `indexes`; empty unless weighted.
    sums: Box<[u64]>,
}

/// What a compiled upstream holds beside its backends.
pub(super) struct Parts {
    /// The route's name, for log lines.
    pub name: String,
    /// How it chooses beyond weights and rules.
    pub balance: Balance,
    pub cookie: Option<Cookie>,
    /// What it tries again beyond what loses nothing.
    pub retry: Option<Retries>,
    /// When it asks a second backend.
    pub hedge: Option<Hedges>,
    /// Counts the requests of the route.
    pub turn: Arc<AtomicUsize>,
    /// Counts the changes of health of all backends.
    pub epoch: Arc<AtomicU64>,
}

/// A policy with what was used of it.
pub(super) struct Retries {
    pub policy: Policy,
    pub budget: Arc<Budget>,
}

/// A backend chosen for one attempt; counts as a request in flight until it is dropped.
pub struct Pick {
    /// The backend.
    pub backend: Arc<Backend>,
    /// Its position in the configuration.
    pub index: usize,
    /// Whether its guard heard how the attempt went.
    judged: bool,
    _leave: Leave,
}

/// Why no backend was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoBackend {
    /// No backend is up, or none takes this request: service unavailable.
    #[error("no backend is available")]
    Unavailable,
    /// The breaker of every backend that is up is open.
    #[error("the circuit breakers of all available backends are open")]
    Open,
    /// Every backend that is up has as many requests as it may.
    #[error("every available backend is busy")]
    Busy,
    /// All that are up were tried: the failure of the last attempt stands.
    #[error("every available backend was tried")]
    Tried,
}

/// What leads a request to one backend whatever the others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leads {
    /// Its cookie names the backend.
    Cookie,
    /// The hash of a fact of it.
    Hash,
}

/// The backends that this request has tried.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    indexes: [usize; MOST_ATTEMPTS],
    count: usize,
}

impl Tried {
    /// The attempt at a backend failed. More than [`MOST_ATTEMPTS`] are not kept.
    pub fn add(&mut self, index: usize) {
        if let Some(slot) = self.indexes.get_mut(self.count) {
            *slot = index;
            self.count += 1;
        }
    }

    /// Whether there was no attempt.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn times(&self, index: usize) -> usize {
        let tried = &self.indexes[..self.count];
        tried.iter().filter(|tried| **tried == index).count()
    }
}

impl Upstream {
    pub(super) fn new(backends: Vec<Arc<Backend>>, parts: Parts) -> Self {
        let mode = if backends.iter().any(|backend| backend.is_canary()) {
            Mode::Canary
        } else if backends.iter().any(|backend| backend.weight > 0) {
            Mode::Weighted
        } else {
            Mode::RoundRobin
        };
        let Parts { name, balance, cookie, retry, hedge, turn, epoch } = parts;
        let available = Available::of(&backends, mode, balance.panic_percent, epoch.load(Ordering::Acquire));
        let ring = matches!(balance.algorithm, Algorithm::ConsistentHash(_)).then(|| {
            let equal = backends.iter().all(|backend| backend.weight == 0);
            Ring::new(backends.iter().map(|backend| (backend.name(), if equal { 1 } else { backend.weight })))
        });
        Self {
            takes_turns: match balance.algorithm {
                Algorithm::Goma => mode == Mode::RoundRobin,
                Algorithm::RoundRobin => true,
                _ => false,
            },
            guarded: backends.iter().any(|backend| backend.guard.is_some() || backend.shared.is_some()),
            name,
            backends: backends.into(),
            mode,
            balance,
            ring,
            cookie,
            turn,
            epoch,
            available: ArcSwap::from_pointee(available),
            retry,
            hedge,
            line: Arc::default(),
            ejecting: Mutex::default(),
        }
    }

    /// In the order of the configuration.
    pub fn backends(&self) -> &[Arc<Backend>] {
        &self.backends
    }

    /// How it chooses among those that may take a request.
    pub fn algorithm(&self) -> &Algorithm {
        &self.balance.algorithm
    }

    /// Chooses a backend for the next attempt.
    ///
    /// Backends that were tried are passed over; when only such are left, one with an address that was not tried; with a retry
    /// policy, then any.
    ///
    /// # Errors
    /// [`NoBackend`] when there is none.
    pub fn pick(&self, facts: &dyn Facts, tried: &Tried) -> Result<Pick, NoBackend> {
        let available = self.available();
        let turn = self.turn(tried);
        // Allocates only when some backend refuses.
        let mut refused: Vec<usize> = Vec::new();
        let mut refusal = None;
        loop {
            let may = |index: usize| !refused.contains(&index);
            let Some(index) = self.index(facts, tried, turn, &available, may) else { break };
            let index = if self.guarded { self.paced(index, facts, tried, turn, &available, may) } else { index };
            let backend = &self.backends[index];
            match Guard::leave(backend.guard.as_ref(), backend.shared.as_ref()) {
                Ok(leave) => return Ok(Pick::new(backend.clone(), index, leave)),
                Err(refuses) => {
                    refused.push(index);
                    // A busy backend may have a place in a moment; that is worth more than an open breaker.
                    refusal = Some(if refusal == Some(Refuses::Full) { Refuses::Full } else { refuses });
                }
            }
        }
        Err(match refusal {
            _ if tried.count > 0 => NoBackend::Tried,
            Some(Refuses::Full) => NoBackend::Busy,
            Some(Refuses::Open) => NoBackend::Open,
            None if self.backends.iter().any(|backend| backend.is_up() && backend.is_open()) => NoBackend::Open,
            None => NoBackend::Unavailable,
        })
    }

    fn index(
        &self,
        facts: &dyn Facts,
        tried: &Tried,
        turn: usize,
        available: &Available,
        may: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let again = |i: usize| self.retry.is_some() && may(i);
        let elsewhere = |i: usize| tried.times(i) < self.backends[i].origin.breadth();
        if self.backends.len() == 1 {
            return (may(0) && (elsewhere(0) || again(0))).then_some(0);
        }
        let usable = |i: usize| available.usable[i] && may(i);
        if tried.count == 0 {
            return self.first_choice(facts, turn, available, may);
        }
        self.choose(facts, turn, |i| usable(i) && tried.times(i) == 0)
            .or_else(|| self.choose(facts, turn, |i| usable(i) && elsewhere(i)))
            .or_else(|| self.choose(facts, turn, |i| usable(i) && again(i)))
    }

    /// The choice, or another one when that has only begun to take requests. Who was led there by cookie or hash stays, but not
    /// on probation.
    fn paced(
        &self,
        index: usize,
        facts: &dyn Facts,
        tried: &Tried,
        turn: usize,
        available: &Available,
        may: impl Fn(usize) -> bool,
    ) -> usize {
        let pace = |index: usize| self.backends[index].pace();
        let now = pace(index);
        let stays = || self.leads(facts).is_some() || rand::rng().random_range(0..100) < now;
        if now >= 100 || now > 0 && stays() {
            return index;
        }
        let other = |i: usize| available.usable[i] && may(i) && tried.times(i) == 0 && pace(i) >= 100;
        self.choose(facts, turn, other).unwrap_or(index)
    }

    /// A place in the line of those that wait for a busy backend; `None` when the line is full.
    pub fn wait(&self) -> Option<Waiting> {
        let places = self.backends.iter().flat_map(|backend| {
            let own = backend.guard.as_ref().and_then(|guard| guard.slots());
            own.into_iter().chain(&backend.shared).cloned()
        });
        let mut places: Vec<Arc<Slots>> = places.collect();
        places.sort_by_key(Arc::as_ptr);
        places.dedup_by(|a, b| Arc::ptr_eq(a, b));
        self.line.join(self.balance.queue?, places)
    }

    /// Most attempts for one request: what the policy says, else as many as there are addresses, within [`MAX_ATTEMPTS`].
    pub fn attempts_limit(&self) -> usize {
        if let Some(retry) = &self.retry {
            return retry.policy.attempts;
        }
        let addresses = self.backends.iter().map(|b| b.origin.breadth());
        addresses.sum::<usize>().clamp(1, MAX_ATTEMPTS)
    }

    /// What is tried again beyond what loses nothing.
    pub fn policy(&self) -> Option<&Policy> {
        self.retry.as_ref().map(|retry| &retry.policy)
    }

    /// A request begins: it adds to the budgets.
    pub fn begin(&self) {
        if let Some(retry) = &self.retry {
            retry.budget.request();
        }
        if let Some(hedge) = &self.hedge {
            hedge.budget.request();
        }
    }

    /// Takes a retry from the budget, if one is left.
    pub fn may_retry(&self) -> bool {
        self.retry.as_ref().is_none_or(|retry| retry.budget.retry(retry.policy.grant))
    }

    /// The attempt failed.
    pub fn failed(&self, pick: &mut Pick, cause: Cause) {
        let Some(guard) = &pick.backend.guard else { return };
        if !std::mem::replace(&mut pick.judged, true) {
            let _one_at_a_time = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
            guard.failed(cause, || self.may_eject());
        }
    }

    /// The head of a response arrived: a failure or not, by its status.
    pub fn answered(&self, pick: &mut Pick, status: u16) {
        if status >= 400 && pick.backend.guard.as_ref().is_some_and(|guard| guard.counts(Cause::Status(status))) {
            self.failed(pick, Cause::Status(status));
        } else if let Some(guard) = &pick.backend.guard {
            guard.answered();
        }
    }

    /// The response came to its end.
    pub fn succeeded(&self, pick: &mut Pick) {
        if let (Some(guard), false) = (&pick.backend.guard, std::mem::replace(&mut pick.judged, true)) {
            guard.succeeded();
        }
    }

    /// When an open breaker lets requests try again, at the latest.
    pub fn opens_after(&self) -> Duration {
        let times = self.backends.iter().filter_map(|backend| backend.guard.as_ref()?.open_for());
        times.min().unwrap_or_default()
    }

    /// Whether one more backend may be out for failing.
    fn may_eject(&self) -> bool {
        let out = self.backends.iter().filter(|backend| backend.is_ejected()).count();
        let most = self.backends.len() * self.balance.ejected_percent as usize / 100;
        let most = if self.balance.ejected_percent > 0 { most.max(1) } else { 0 };
        self.backends.len() > 1 && out < most.min(self.backends.len() - 1)
    }

    /// Every backend that may get such a request now: an explanation, not a choice.
    pub fn candidates(&self, facts: &dyn Facts) -> Vec<usize> {
        if let Some((index, _)) = self.leads(facts) {
            return vec![index];
        }
        let all = 0..self.backends.len();
        if self.backends.len() == 1 {
            return all.collect();
        }
        match self.mode {
            Mode::Canary => match self.exclusive(facts, |_| true) {
                Some(index) => vec![index],
                None => {
                    let pool: Vec<_> = all.filter(|i| self.in_pool(*i, facts)).collect();
                    let weighted = pool.iter().any(|i| self.backends[*i].weight > 0);
                    let gets_some = |i: &usize| !weighted || self.backends[*i].weight > 0;
                    pool.into_iter().filter(gets_some).collect()
                }
            },
            mode => all.filter(|i| takes_part(&self.backends[*i], mode)).collect(),
        }
    }

    /// What leads such a request to one backend as long as that is up: an explanation.
    pub fn leads(&self, facts: &dyn Facts) -> Option<(usize, Leads)> {
        if self.backends.len() == 1 || self.mode == Mode::Canary && self.exclusive(facts, |_| true).is_some() {
            return None;
        }
        let cookie = self.kept(facts, |_| true).map(|index| (index, Leads::Cookie));
        let hash = || self.choose(facts, 0, |_| true).map(|index| (index, Leads::Hash));
        cookie.or_else(|| self.ring.is_some().then(hash).flatten())
    }

    /// The `Set-Cookie` value that keeps a client at this backend, where the route wants that and the client has none such.
    pub fn keep(&self, index: usize, facts: &dyn Facts, over_tls: bool) -> Option<String> {
        let cookie = self.cookie.as_ref()?;
        cookie.set(index, facts.cookie(cookie.name()), over_tls)
    }

    /// The results of the route's own checks; empty when it has none. `None` before the first result.
    pub fn health(&self) -> Vec<(usize, Option<Result<(), String>>)> {
        let checked = self.backends.iter().enumerate();
        checked.filter_map(|(index, backend)| Some((index, backend.check.as_ref()?.result()))).collect()
    }

    /// Who is available now.
    fn available(&self) -> arc_swap::Guard<Arc<Available>> {
        let before = self.available.load();
        let epoch = self.epoch.load(Ordering::Acquire);
        if before.epoch == epoch {
            return before;
        }
        let now = Available::of(&self.backends, self.mode, self.balance.panic_percent, epoch);
        for (backend, (was, is)) in self.backends.iter().zip(before.usable.iter().zip(&now.usable)) {
            if let (false, true, Some(guard)) = (*was, *is, &backend.guard) {
                guard.begin_slowly();
            }
        }
        if now.panic && !before.panic {
            let route = self.name.as_str();
            log::error!(target: "health", route; "too few backends of route {route} are up: all of them get requests");
        }
        self.available.store(Arc::new(now));
        self.available.load()
    }
}

impl Available {
    fn of(backends: &[Arc<Backend>], mode: Mode, panic_percent: u32, epoch: u64) -> Self {
        let takes_part = |i: &usize| takes_part(&backends[*i], mode);
        let is_in = |backend: &Arc<Backend>| backend.is_up() && !backend.is_ejected();
        let members = (0..backends.len()).filter(takes_part);
        let (all, up) = members.fold((0, 0), |(all, up), i| (all + 1, up + usize::from(is_in(&backends[i]))));
        let panic = up * 100 < all * panic_percent as usize;
        let usable: Box<[bool]> =
            backends.iter().map(|backend| (panic || is_in(backend)) && !backend.is_open()).collect();
        let indexes: Box<[usize]> = (0..backends.len()).filter(|i| usable[*i] && takes_part(i)).collect();
        let mut sum = 0;
        let mut add = |i: &usize| {
            sum += u64::from(backends[*i].weight);
            sum
        };
        let sums = match mode {
            Mode::Weighted => indexes.iter().map(&mut add).collect(),
            _ => Box::default(),
        };
        Self { epoch, usable, panic, indexes, sums }
    }
}

/// Whether it is not left out by its weight.
fn takes_part(backend: &Backend, mode: Mode) -> bool {
    mode != Mode::Weighted || backend.weight > 0
}

impl Pick {
    fn new(backend: Arc<Backend>, index: usize, leave: Leave) -> Self {
        backend.origin.in_flight.fetch_add(1, Ordering::Relaxed);
        Self { backend, index, judged: false, _leave: leave }
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.backend.origin.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
