//! What the requests of a route tell about one of its backends: whether it is left out, slowed, or full.
//!
//! Health checks ask a backend on purpose; a guard learns from the requests themselves. Too many failures in a row *eject* a
//! backend for a while, longer each time; too large a share of failures opens its *breaker*; one that comes back, or appears,
//! gets its share of the requests little by little (*slow start*); and it holds so many requests at a time and no more.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::breaker::{Breaker, BreakerSettings, BreakerState, Says};
use super::cause::{Cause, On};
use super::slots::{Slot, Slots};

/// What is watched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GuardSettings {
    /// Failures in a row.
    pub outlier: Option<OutlierSettings>,
    /// The share of failures.
    pub breaker: Option<BreakerSettings>,
    /// How long a backend takes to its full share; zero for at once.
    pub slow_start: Duration,
    /// Requests at a time.
    pub max_in_flight: Option<usize>,
}

impl GuardSettings {
    /// Whether there is nothing to watch.
    pub fn is_idle(&self) -> bool {
        *self == GuardSettings::default()
    }
}

/// When a backend is left out for failing, and how long.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OutlierSettings {
    /// Failures in a row.
    pub failures: u32,
    /// What is a failure.
    pub on: On,
    /// The first time; doubled each further time.
    pub ejection: Duration,
    /// At most.
    pub max_ejection: Duration,
}

/// A change in what a guard thinks of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is left out.
    Ejected(Cause),
    /// Its breaker turned.
    Breaker(BreakerState),
}

/// Hears of changes: route, backend, change. For metrics.
pub type Witness = Arc<dyn Fn(&str, &str, Change) + Send + Sync>;

/// What a guard needs of the process.
#[derive(Clone)]
pub(super) struct Means {
    /// Advanced at each change of who is available.
    pub epoch: Arc<AtomicU64>,
    pub witness: Witness,
    pub handle: Option<Handle>,
}

/// One backend of a route, as its requests see it.
pub(super) struct Guard {
    route: String,
    backend: String,
    settings: GuardSettings,
    failures: AtomicU32,
    ejected: AtomicBool,
    /// It came back and has not proved itself: one request at a time tries it.
    probation: AtomicBool,
    trying: AtomicU32,
    history: Mutex<History>,
    breaker: Option<Breaker>,
    slots: Option<Arc<Slots>>,
    started: Instant,
    /// When slow start began, in milliseconds from `started` and one more; 0 when it has ended.
    ramp: AtomicU64,
    means: Means,
}

/// Ejections so far.
#[derive(Default)]
struct History {
    in_a_row: u32,
    last: Duration,
    back: Option<Instant>,
}

/// Leave to send a request; given back when it is dropped.
pub(super) struct Leave {
    /// Whose breaker counts the request as one that tries.
    breaker: Option<Arc<Guard>>,
    /// Who is on probation with it.
    probation: Option<Arc<Guard>>,
    _slots: [Option<Slot>; 2],
}

/// Why a backend takes no request now although it is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refuses {
    /// Its breaker is open, or half open and enough are trying.
    Open,
    /// It has as many requests as it may.
    Full,
}

impl Guard {
    /// `fresh`: the backend has just appeared on a route that was there before.
    pub fn new(route: &str, backend: &str, settings: GuardSettings, fresh: bool, means: Means) -> Guard {
        let guard = Guard {
            route: route.to_owned(),
            backend: backend.to_owned(),
            failures: AtomicU32::new(0),
            ejected: AtomicBool::new(false),
            probation: AtomicBool::new(false),
            trying: AtomicU32::new(0),
            history: Mutex::default(),
            breaker: settings.breaker.clone().map(Breaker::new),
            slots: settings.max_in_flight.map(|limit| Arc::new(Slots::new(limit))),
            started: Instant::now(),
            ramp: AtomicU64::new(0),
            settings,
            means,
        };
        if fresh {
            guard.begin_slowly();
        }
        guard
    }

    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Acquire)
    }

    pub fn is_open(&self) -> bool {
        self.breaker.as_ref().is_some_and(|breaker| breaker.state() == BreakerState::Open)
    }

    pub fn is_closed(&self) -> bool {
        self.breaker.as_ref().is_none_or(|breaker| breaker.state() == BreakerState::Closed)
    }

    /// How long an open breaker stays so, in all.
    pub fn open_for(&self) -> Option<Duration> {
        self.breaker.as_ref().map(|breaker| breaker.settings.open)
    }

    pub fn slots(&self) -> Option<&Arc<Slots>> {
        self.slots.as_ref()
    }

    /// Leave for a request, if the backend takes one now. `shared` are places that it shares with other routes.
    pub fn leave(guard: Option<&Arc<Guard>>, shared: Option<&Arc<Slots>>) -> Result<Leave, Refuses> {
        let place = |slots: Option<&Arc<Slots>>| slots.map(|slots| slots.take().ok_or(Refuses::Full)).transpose();
        let slots = [place(guard.and_then(|guard| guard.slots.as_ref()))?, place(shared)?];
        let says = guard.and_then(|guard| guard.breaker.as_ref()).map_or(Says::Pass, Breaker::asks);
        let breaker = match says {
            Says::Stop => return Err(Refuses::Open),
            Says::Pass => None,
            Says::Try => guard.cloned(),
        };
        let probation = guard.filter(|guard| guard.probation.load(Ordering::Acquire)).cloned();
        if let Some(guard) = &probation {
            guard.trying.fetch_add(1, Ordering::AcqRel);
        }
        Ok(Leave { breaker, probation, _slots: slots })
    }

    /// A slow start begins, where the route wants one.
    pub fn begin_slowly(&self) {
        if !self.settings.slow_start.is_zero() {
            let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
            self.ramp.store(now + 1, Ordering::Release);
        }
    }

    /// The part of its share that it gets now, in percent; 0 while a request finds out whether it is well again.
    pub fn pace(&self) -> u32 {
        if self.probation.load(Ordering::Acquire) && self.trying.load(Ordering::Acquire) > 0 {
            return 0;
        }
        let Some(begun) = self.ramp.load(Ordering::Acquire).checked_sub(1) else { return 100 };
        let passed = self.started.elapsed().saturating_sub(Duration::from_millis(begun));
        if passed >= self.settings.slow_start {
            self.ramp.store(0, Ordering::Release);
            return 100;
        }
        let percent = passed.as_millis() * 100 / self.settings.slow_start.as_millis().max(1);
        u32::try_from(percent).unwrap_or(100).max(LEAST_PACE)
    }

    /// Whether this is a failure to it.
    pub fn counts(&self, cause: Cause) -> bool {
        let outlier = self.settings.outlier.as_ref().is_some_and(|outlier| outlier.on.holds(cause));
        outlier || self.settings.breaker.as_ref().is_some_and(|breaker| breaker.on.holds(cause))
    }

    /// A response began that is no failure.
    pub fn answered(self: &Arc<Self>) {
        self.count(false);
    }

    /// A response came to its end.
    pub fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if self.probation.load(Ordering::Relaxed) {
            self.probation.store(false, Ordering::Release);
        }
    }

    /// An attempt failed. `may_eject` says whether one more backend of the route may be out.
    pub fn failed(self: &Arc<Self>, cause: Cause, may_eject: impl FnOnce() -> bool) {
        if self.settings.breaker.as_ref().is_some_and(|breaker| breaker.on.holds(cause)) {
            self.count(true);
        }
        let Some(outlier) = self.settings.outlier.as_ref().filter(|outlier| outlier.on.holds(cause)) else { return };
        let in_a_row = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if in_a_row >= outlier.failures && !self.is_ejected() && may_eject() {
            self.eject(outlier, cause, in_a_row);
        }
    }

    fn eject(self: &Arc<Self>, outlier: &OutlierSettings, cause: Cause, in_a_row: u32) {
        let time = self.history.lock().unwrap_or_else(PoisonError::into_inner).next(outlier);
        if self.ejected.swap(true, Ordering::AcqRel) {
            return;
        }
        self.means.epoch.fetch_add(1, Ordering::AcqRel);
        (self.means.witness)(&self.route, &self.backend, Change::Ejected(cause));
        let (route, backend) = (self.route.as_str(), self.backend.as_str());
        log::warn!(target: "health", route, backend; "backend {backend} is left out for {time:?}: {in_a_row} failures in a row, the last by {}", cause.word());
        self.later(time, Guard::readmit);
    }

    /// It may try again. The next failure ejects it again, the first success makes it as good as any.
    fn readmit(self: &Arc<Self>) {
        let failures = self.settings.outlier.as_ref().map_or(0, |outlier| outlier.failures.saturating_sub(1));
        self.failures.store(failures, Ordering::Relaxed);
        self.history.lock().unwrap_or_else(PoisonError::into_inner).back = Some(Instant::now());
        self.probation.store(true, Ordering::Release);
        self.ejected.store(false, Ordering::Release);
        self.means.epoch.fetch_add(1, Ordering::AcqRel);
        let (route, backend) = (self.route.as_str(), self.backend.as_str());
        log::info!(target: "health", route, backend; "backend {backend} gets requests again");
    }

    fn count(self: &Arc<Self>, failed: bool) {
        let Some(breaker) = &self.breaker else { return };
        let Some(state) = breaker.outcome(failed) else { return };
        self.turned(state);
        if state == BreakerState::Open {
            self.later(breaker.settings.open, |guard| {
                if guard.breaker.as_ref().is_some_and(Breaker::half_open) {
                    guard.turned(BreakerState::HalfOpen);
                }
            });
        }
    }

    fn turned(&self, state: BreakerState) {
        self.means.epoch.fetch_add(1, Ordering::AcqRel);
        (self.means.witness)(&self.route, &self.backend, Change::Breaker(state));
        let (route, backend) = (self.route.as_str(), self.backend.as_str());
        let word = state.word();
        match state {
            BreakerState::Open => {
                log::warn!(target: "health", route, backend; "the breaker of backend {backend} is {word}")
            }
            _ => log::info!(target: "health", route, backend; "the breaker of backend {backend} is {word}"),
        }
    }

    /// Does something after a while, if the guard is still there.
    fn later(self: &Arc<Self>, time: Duration, then: impl FnOnce(&Arc<Guard>) + Send + 'static) {
        let guard = Arc::downgrade(self);
        if let Some(handle) = &self.means.handle {
            handle.spawn(async move {
                tokio::time::sleep(time).await;
                if let Some(guard) = guard.upgrade() {
                    then(&guard);
                }
            });
        }
    }
}

impl History {
    /// How long the next ejection takes: twice the last one, unless the backend was well for longer than that.
    fn next(&mut self, outlier: &OutlierSettings) -> Duration {
        if self.back.is_some_and(|back| back.elapsed() > self.last) {
            self.in_a_row = 0;
        }
        self.last = outlier.ejection.saturating_mul(1 << self.in_a_row.min(16)).min(outlier.max_ejection);
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.last
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        if let Some(breaker) = self.breaker.as_ref().and_then(|guard| guard.breaker.as_ref()) {
            breaker.tried();
        }
        if let Some(guard) = &self.probation {
            guard.trying.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// At the beginning of a slow start, in percent.
const LEAST_PACE: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn outlier(failures: u32, milliseconds: u64) -> OutlierSettings {
        OutlierSettings {
            failures,
            on: On::of(&["reset".to_owned(), "5xx".to_owned()]),
            ejection: Duration::from_millis(milliseconds),
            max_ejection: Duration::from_millis(4 * milliseconds),
        }
    }

    fn guard(settings: GuardSettings, handle: Option<Handle>) -> Arc<Guard> {
        let means = Means { epoch: Arc::default(), witness: Arc::new(|_, _, _| {}), handle };
        Arc::new(Guard::new("r", "http://a", settings, false, means))
    }

    #[test]
    fn failures_in_a_row_eject_and_others_do_not() {
        let guard = guard(GuardSettings { outlier: Some(outlier(3, 1000)), ..GuardSettings::default() }, None);
        let fail = |cause| guard.failed(cause, || true);
        fail(Cause::Reset);
        fail(Cause::Status(503));
        guard.succeeded();
        fail(Cause::Reset);
        fail(Cause::Reset);
        fail(Cause::Connect);
        assert!(!guard.is_ejected(), "a success between, and a cause that does not count");
        guard.failed(Cause::Reset, || false);
        assert!(!guard.is_ejected(), "too many are out");
        fail(Cause::Reset);
        assert!(guard.is_ejected());
        guard.readmit();
        assert!(!guard.is_ejected());
        fail(Cause::Reset);
        assert!(guard.is_ejected(), "on probation one failure is enough");
        guard.readmit();
        assert_eq!(guard.pace(), 100);
        let Ok(trying) = Guard::leave(Some(&guard), None) else { panic!("it takes requests") };
        assert_eq!(guard.pace(), 0, "one at a time");
        guard.succeeded();
        assert_eq!(guard.pace(), 100, "it is well");
        drop(trying);
        fail(Cause::Reset);
        assert!(!guard.is_ejected(), "and may fail as often as any");
    }

    #[test]
    fn ejections_in_a_row_take_longer_up_to_a_bound() {
        let outlier = outlier(1, 100);
        let mut history = History::default();
        let mut next = |back: Option<Duration>| {
            history.back = back.map(|ago| Instant::now().checked_sub(ago).expect("a moment ago"));
            history.next(&outlier).as_millis()
        };
        assert_eq!([next(None), next(None), next(None), next(None)], [100, 200, 400, 400]);
        assert_eq!(next(Some(Duration::from_secs(5))), 100, "it was well for longer than it was out");
        assert_eq!(next(Some(Duration::ZERO)), 200);
    }

    #[tokio::test]
    async fn an_ejected_backend_comes_back_by_itself() {
        let settings = GuardSettings { outlier: Some(outlier(1, 10)), ..GuardSettings::default() };
        let guard = guard(settings, Some(Handle::current()));
        guard.failed(Cause::Reset, || true);
        assert!(guard.is_ejected());
        super::super::testing::until("it is back", || !guard.is_ejected()).await;
    }

    #[test]
    fn a_slow_start_grows_to_the_full_share() {
        let settings = GuardSettings { slow_start: Duration::from_secs(3600), ..GuardSettings::default() };
        let guard = guard(settings, None);
        assert_eq!(guard.pace(), 100);
        guard.begin_slowly();
        assert_eq!(guard.pace(), LEAST_PACE);
        let quick = self::guard(GuardSettings::default(), None);
        quick.begin_slowly();
        assert_eq!(quick.pace(), 100, "no slow start is wanted");
    }

    #[test]
    fn a_full_backend_refuses_until_a_request_ends() {
        let guard = guard(GuardSettings { max_in_flight: Some(1), ..GuardSettings::default() }, None);
        let shared = Arc::new(Slots::new(1));
        let Ok(leave) = Guard::leave(Some(&guard), Some(&shared)) else { panic!("a place is free") };
        assert_eq!(Guard::leave(Some(&guard), None).err(), Some(Refuses::Full));
        assert_eq!(Guard::leave(None, Some(&shared)).err(), Some(Refuses::Full));
        drop(leave);
        assert!(Guard::leave(Some(&guard), Some(&shared)).is_ok());
    }
}
