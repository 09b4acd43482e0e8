//! A circuit breaker: closed, it counts; open, it lets nothing through; half open, a few requests try the backend.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::cause::On;

/// When it opens and closes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BreakerSettings {
    /// Share of failures that opens it, in percent.
    pub failure_percent: u32,
    /// Least requests within the window.
    pub min_requests: u32,
    /// How far back requests count; at least one second.
    pub window: Duration,
    /// How long it is open.
    pub open: Duration,
    /// Requests at a time while half open; as many good ones close it.
    pub probes: u32,
    /// What is a failure.
    pub on: On,
}

/// The breaker of one backend of a route.
pub(super) struct Breaker {
    pub settings: BreakerSettings,
    state: AtomicU8,
    counts: Mutex<Counts>,
    started: Instant,
    probing: AtomicU32,
    good: AtomicU32,
}

/// Where a breaker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BreakerState {
    /// Requests pass.
    Closed,
    /// None passes.
    Open,
    /// A few try.
    HalfOpen,
}

impl BreakerState {
    /// The word for log and metric.
    pub fn word(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half_open",
        }
    }
}

/// Requests by second: which, all, failed.
#[derive(Default)]
struct Counts(VecDeque<(u64, u32, u32)>);

/// What a breaker says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    Pass,
    /// It passes as one of the few that try; [`Breaker::tried`] has to be told when it ends.
    Try,
    Stop,
}

impl Breaker {
    pub fn new(settings: BreakerSettings) -> Breaker {
        Breaker {
            settings,
            state: AtomicU8::new(BreakerState::Closed as u8),
            counts: Mutex::default(),
            started: Instant::now(),
            probing: AtomicU32::new(0),
            good: AtomicU32::new(0),
        }
    }

    pub fn state(&self) -> BreakerState {
        match self.state.load(Ordering::Acquire) {
            OPEN => BreakerState::Open,
            HALF_OPEN => BreakerState::HalfOpen,
            _ => BreakerState::Closed,
        }
    }

    pub fn asks(&self) -> Says {
        match self.state() {
            BreakerState::Closed => Says::Pass,
            BreakerState::Open => Says::Stop,
            BreakerState::HalfOpen => {
                let one_more = |probing| (probing < self.settings.probes).then_some(probing + 1);
                match self.probing.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more) {
                    Ok(_) => Says::Try,
                    Err(_) => Says::Stop,
                }
            }
        }
    }

    /// One of those that try has ended, whatever came of it.
    pub fn tried(&self) {
        self.probing.fetch_sub(1, Ordering::AcqRel);
    }

    /// Counts the outcome of a request; the new state where it changes one.
    pub fn outcome(&self, failed: bool) -> Option<BreakerState> {
        match (self.state(), failed) {
            (BreakerState::Closed, _) => {
                let opens = self.count(self.started.elapsed().as_secs(), failed) && failed;
                (opens && self.turn(BreakerState::Closed, BreakerState::Open)).then_some(BreakerState::Open)
            }
            (BreakerState::Open, _) => None,
            (BreakerState::HalfOpen, true) => {
                self.turn(BreakerState::HalfOpen, BreakerState::Open).then_some(BreakerState::Open)
            }
            (BreakerState::HalfOpen, false) => {
                let enough = self.good.fetch_add(1, Ordering::AcqRel) + 1 >= self.settings.probes;
                (enough && self.turn(BreakerState::HalfOpen, BreakerState::Closed)).then_some(BreakerState::Closed)
            }
        }
    }

    /// It was open for long enough; whether it was.
    pub fn half_open(&self) -> bool {
        self.good.store(0, Ordering::Release);
        self.turn(BreakerState::Open, BreakerState::HalfOpen)
    }

    fn turn(&self, from: BreakerState, to: BreakerState) -> bool {
        let turned = self.state.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if turned && to == BreakerState::Closed {
            self.counts.lock().unwrap_or_else(PoisonError::into_inner).0.clear();
        }
        turned
    }

    /// Whether the share of failures is too large now.
    fn count(&self, second: u64, failed: bool) -> bool {
        let window = self.settings.window.as_secs().max(1);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = &mut counts.0;
        while seconds.front().is_some_and(|(which, ..)| which + window <= second) {
            seconds.pop_front();
        }
        match seconds.back_mut() {
            Some((which, all, bad)) if *which >= second => (*all, *bad) = (*all + 1, *bad + u32::from(failed)),
            _ => seconds.push_back((second, 1, u32::from(failed))),
        }
        let (all, bad) = seconds
            .iter()
            .fold((0_u64, 0_u64), |(all, bad), (_, more, worse)| (all + u64::from(*more), bad + u64::from(*worse)));
        all >= u64::from(self.settings.min_requests) && bad * 100 >= all * u64::from(self.settings.failure_percent)
    }
}

const OPEN: u8 = BreakerState::Open as u8;
const HALF_OPEN: u8 = BreakerState::HalfOpen as u8;

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(BreakerSettings {
            failure_percent: 50,
            min_requests: 4,
            window: Duration::from_secs(10),
            open: Duration::from_secs(1),
            probes: 2,
            on: On::default(),
        })
    }

    #[test]
    fn it_opens_at_the_share_of_failures_and_not_before_enough_requests() {
        let breaker = breaker();
        assert!((0..3).all(|_| breaker.outcome(true).is_none()), "three of three are too few to judge");
        assert_eq!(breaker.outcome(false), None, "a good one does not open it");
        assert_eq!(breaker.outcome(true), Some(BreakerState::Open));
        assert_eq!(breaker.asks(), Says::Stop);
        assert_eq!(breaker.outcome(true), None, "the last ones under way change nothing");
    }

    #[test]
    fn a_few_try_and_as_many_good_ones_close_it() {
        let breaker = breaker();
        (0..4).for_each(|_| assert!(breaker.outcome(true).is_none_or(|state| state == BreakerState::Open)));
        assert!(breaker.half_open());
        assert_eq!([breaker.asks(), breaker.asks(), breaker.asks()], [Says::Try, Says::Try, Says::Stop]);
        breaker.tried();
        assert_eq!(breaker.asks(), Says::Try, "one has ended");
        assert_eq!(breaker.outcome(false), None);
        assert_eq!(breaker.outcome(false), Some(BreakerState::Closed));
        assert_eq!(breaker.asks(), Says::Pass);
        assert_eq!(breaker.outcome(true), None, "what was counted before is forgotten");
    }

    #[test]
    fn a_bad_one_opens_it_again() {
        let breaker = breaker();
        (0..4).for_each(|_| assert!(breaker.outcome(true).is_none_or(|state| state == BreakerState::Open)));
        assert!(breaker.half_open() && !breaker.half_open());
        assert_eq!(breaker.outcome(true), Some(BreakerState::Open));
    }

    #[test]
    fn old_requests_do_not_count() {
        let breaker = breaker();
        assert!((0..3).all(|_| !breaker.count(1, true)));
        assert!(!breaker.count(11, true), "the first three are ten seconds old");
        assert!((0..2).all(|_| !breaker.count(12, true)));
        assert!(breaker.count(20, true));
    }
}
