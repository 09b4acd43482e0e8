//! The choice of a backend for a request.
//!
//! One backend takes everything. Of several, only those that are up count, and the first of these applies: canary
//! when any backend has rules, weighted when any has a weight, round robin. Choosing by weight or turn costs two
//! atomic loads and no allocation: the list of available backends is kept until the health of some backend changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use rand::Rng;

use super::backend::Backend;
use super::matching::Facts;
use super::retry::MAX_ATTEMPTS;

/// The backends of one route, compiled.
pub struct Upstream {
    backends: Box<[Arc<Backend>]>,
    mode: Mode,
    turn: Arc<AtomicUsize>,
    epoch: Arc<AtomicU64>,
    available: ArcSwap<Available>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Canary,
    Weighted,
    RoundRobin,
}

/// The backends that are up, as of an epoch of health.
struct Available {
    epoch: u64,
    indexes: Box<[usize]>,
    /// Sum of the weights up to and with each of `indexes`; empty unless weighted.
    sums: Box<[u64]>,
}

/// A backend chosen for one attempt; counts as a request in flight until it is dropped.
pub struct Pick {
    /// The backend.
    pub backend: Arc<Backend>,
    /// Its position in the configuration.
    pub index: usize,
}

/// Why no backend was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoBackend {
    /// No backend is up, or none takes this request: service unavailable.
    #[error("no backend is available")]
    Unavailable,
    /// All that are up were tried: the failure of the last attempt stands.
    #[error("every available backend was tried")]
    Tried,
}

/// The backends that this request has tried.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    indexes: [usize; MAX_ATTEMPTS],
    count: usize,
}

impl Tried {
    /// The attempt at a backend failed. More than [`MAX_ATTEMPTS`] are not kept.
    pub fn add(&mut self, index: usize) {
        if let Some(slot) = self.indexes.get_mut(self.count) {
            *slot = index;
            self.count += 1;
        }
    }

    fn times(&self, index: usize) -> usize {
        let tried = &self.indexes[..self.count];
        tried.iter().filter(|tried| **tried == index).count()
    }
}

impl Upstream {
    /// `turn` counts the requests of the route, `epoch` the changes of health of all backends.
    pub(super) fn new(backends: Vec<Arc<Backend>>, turn: Arc<AtomicUsize>, epoch: Arc<AtomicU64>) -> Self {
        let mode = if backends.iter().any(|backend| backend.is_canary()) {
            Mode::Canary
        } else if backends.iter().any(|backend| backend.weight > 0) {
            Mode::Weighted
        } else {
            Mode::RoundRobin
        };
        let available = Available::of(&backends, mode, epoch.load(Ordering::Acquire));
        Self { backends: backends.into(), mode, turn, epoch, available: ArcSwap::from_pointee(available) }
    }

    /// In the order of the configuration.
    pub fn backends(&self) -> &[Arc<Backend>] {
        &self.backends
    }

    /// Chooses a backend for the next attempt.
    ///
    /// Backends that were tried are passed over; when only such are left, one with an address that was not tried.
    ///
    /// # Errors
    /// [`NoBackend`] when there is none.
    pub fn pick(&self, facts: &dyn Facts, tried: &Tried) -> Result<Pick, NoBackend> {
        let index = if self.backends.len() == 1 {
            (tried.times(0) < self.backends[0].origin.breadth()).then_some(0)
        } else if tried.count == 0 {
            self.first_choice(facts)
        } else {
            self.choose(facts, |i| tried.times(i) == 0)
                .or_else(|| self.choose(facts, |i| tried.times(i) < self.backends[i].origin.breadth()))
        };
        match index {
            Some(index) => Ok(Pick::new(self.backends[index].clone(), index)),
            None if tried.count == 0 => Err(NoBackend::Unavailable),
            None => Err(NoBackend::Tried),
        }
    }

    /// Most attempts for one request: as many as there are addresses, within [`MAX_ATTEMPTS`].
    pub fn attempts_limit(&self) -> usize {
        let addresses = self.backends.iter().map(|b| b.origin.breadth());
        addresses.sum::<usize>().clamp(1, MAX_ATTEMPTS)
    }

    /// Every backend that may get such a request now: an explanation, not a choice.
    pub fn candidates(&self, facts: &dyn Facts) -> Vec<usize> {
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

    /// The results of the route's own checks; empty when it has none. `None` before the first result.
    pub fn health(&self) -> Vec<(usize, Option<Result<(), String>>)> {
        let checked = self.backends.iter().enumerate();
        checked.filter_map(|(index, backend)| Some((index, backend.check.as_ref()?.result()))).collect()
    }

    fn first_choice(&self, facts: &dyn Facts) -> Option<usize> {
        if self.mode == Mode::Canary {
            return self.choose(facts, |_| true);
        }
        let mut available = self.available.load();
        let epoch = self.epoch.load(Ordering::Acquire);
        if available.epoch != epoch {
            self.available.store(Arc::new(Available::of(&self.backends, self.mode, epoch)));
            available = self.available.load();
        }
        let place = match (self.mode, available.sums.last()) {
            (Mode::Weighted, sum) => {
                let point = rand::rng().random_range(0..*sum?);
                available.sums.partition_point(|sum| *sum <= point)
            }
            _ => self.next_turn() % non_zero(available.indexes.len())?,
        };
        available.indexes.get(place).copied()
    }

    /// As [`first_choice`](Self::first_choice), among the available backends that are `eligible`.
    fn choose(&self, facts: &dyn Facts, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        if self.mode == Mode::Canary {
            let exclusive = self.exclusive(facts, &eligible);
            return exclusive.or_else(|| self.draw(|i| eligible(i) && self.in_pool(i, facts)));
        }
        let candidate = |i: &usize| takes_part(&self.backends[*i], self.mode) && eligible(*i);
        if self.mode == Mode::Weighted {
            return self.draw(|i| candidate(&i));
        }
        let all = 0..self.backends.len();
        let count = non_zero(all.clone().filter(candidate).count())?;
        all.filter(candidate).nth(self.next_turn() % count)
    }

    /// The exclusive backend of the highest priority whose rules hold; the first of equals.
    fn exclusive(&self, facts: &dyn Facts, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        let mut best: Option<(usize, i64)> = None;
        for (index, backend) in self.backends.iter().enumerate() {
            let better = best.is_none_or(|(_, priority)| backend.priority > priority);
            if backend.exclusive
                && backend.is_canary()
                && better
                && eligible(index)
                && backend.is_up()
                && backend.allows(facts)
            {
                best = Some((index, backend.priority));
            }
        }
        best.map(|(index, _)| index)
    }

    /// Stable backends, and canaries that share with them and whose rules hold.
    fn in_pool(&self, index: usize, facts: &dyn Facts) -> bool {
        let backend = &self.backends[index];
        let may = !backend.is_canary() || (!backend.exclusive && backend.allows(facts));
        may && backend.is_up()
    }

    /// A random member, by weight; all are equal when none has a weight.
    ///
    /// One pass: each member replaces the choice so far with the probability that is its share of the sum so far.
    fn draw(&self, member: impl Fn(usize) -> bool) -> Option<usize> {
        let mut rng = rand::rng();
        let (mut sum, mut count) = (0_u64, 0_u64);
        let (mut by_weight, mut of_equals) = (None, None);
        for index in (0..self.backends.len()).filter(|index| member(*index)) {
            let weight = u64::from(self.backends[index].weight);
            sum += weight;
            count += 1;
            if weight > 0 && rng.random_range(0..sum) < weight {
                by_weight = Some(index);
            }
            if sum == 0 && rng.random_range(0..count) == 0 {
                of_equals = Some(index);
            }
        }
        by_weight.or(of_equals)
    }

    /// The first request of a route takes the second backend, as in Goma.
    fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }
}

impl Available {
    fn of(backends: &[Arc<Backend>], mode: Mode, epoch: u64) -> Self {
        let indexes: Box<[usize]> = (0..backends.len()).filter(|i| takes_part(&backends[*i], mode)).collect();
        let mut sum = 0;
        let mut add = |i: &usize| {
            sum += u64::from(backends[*i].weight);
            sum
        };
        let sums = match mode {
            Mode::Weighted => indexes.iter().map(&mut add).collect(),
            _ => Box::default(),
        };
        Self { epoch, indexes, sums }
    }
}

/// Up, and not left out by its weight.
fn takes_part(backend: &Backend, mode: Mode) -> bool {
    backend.is_up() && (mode != Mode::Weighted || backend.weight > 0)
}

fn non_zero(count: usize) -> Option<usize> {
    (count > 0).then_some(count)
}

impl Pick {
    fn new(backend: Arc<Backend>, index: usize) -> Self {
        backend.origin.in_flight.fetch_add(1, Ordering::Relaxed);
        Self { backend, index }
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.backend.origin.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
