//! The state of a health check.
//!
//! One task a check: at once, then after each interval, never two runs at a time. Routes with the same check of the
//! same origin share it, and it survives a reload; it ends with the last route that uses it. The HTTP request
//! itself is `probe`'s.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use pingora_error::{Error, ErrorType, ImmutStr};
use pingora_load_balancing::health_check::HealthCheck;
use pingora_load_balancing::{Backend as Target, Extensions};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior};

use super::origin::Origin;

/// A check that runs until it is dropped.
pub(super) struct Check {
    state: Arc<State>,
    task: Option<AbortHandle>,
}

/// How often and how long.
#[derive(Clone, Copy)]
pub(super) struct Schedule {
    pub interval: Duration,
    /// Limit for one run, all addresses together.
    pub timeout: Duration,
}

/// What the task and the routes share.
struct State {
    name: String,
    origin: Arc<Origin>,
    verdict: AtomicU8,
    result: ArcSwapOption<Result<(), String>>,
    epoch: Arc<AtomicU64>,
}

const UP: u8 = 0;
const DOWN: u8 = 1;
/// Nobody asks any more; a run that is just ending changes nothing.
const RETIRED: u8 = 2;

impl Check {
    /// Without a runtime it never runs and the backend counts as up: good enough to check a configuration.
    ///
    /// `epoch` is advanced at every change of state, `permits` bounds the checks that run at one time.
    pub fn start(
        name: String,
        origin: Arc<Origin>,
        check: Box<dyn HealthCheck + Send + Sync>,
        schedule: Schedule,
        epoch: Arc<AtomicU64>,
        runtime: Option<(&Handle, Arc<Semaphore>)>,
    ) -> Self {
        let state = Arc::new(State { name, origin, verdict: AtomicU8::new(UP), result: ArcSwapOption::empty(), epoch });
        let task = runtime.map(|(handle, permits)| {
            let state = state.clone();
            let task = handle.spawn(run(state, check, schedule, permits));
            task.abort_handle()
        });
        Self { state, task }
    }

    /// Whether the last runs say that the backend must not be used.
    pub fn is_down(&self) -> bool {
        self.state.verdict.load(Ordering::Acquire) == DOWN
    }

    /// The last run; `None` before the first.
    pub fn result(&self) -> Option<Result<(), String>> {
        self.state.result.load().as_deref().cloned()
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        if self.state.verdict.swap(RETIRED, Ordering::AcqRel) == DOWN {
            self.state.origin.failed_checks.fetch_sub(1, Ordering::AcqRel);
            self.state.epoch.fetch_add(1, Ordering::AcqRel);
        }
    }
}

async fn run(
    state: Arc<State>,
    check: Box<dyn HealthCheck + Send + Sync>,
    schedule: Schedule,
    permits: Arc<Semaphore>,
) {
    let mut clock = tokio::time::interval(schedule.interval);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut opposite = 0;
    loop {
        clock.tick().await;
        let Ok(permit) = permits.acquire().await else {
            return;
        };
        let result = once(&state.origin, &*check, schedule.timeout).await;
        drop(permit);
        state.observe(result, &*check, &mut opposite);
    }
}

impl State {
    /// `opposite` counts the results in a row that contradict the verdict.
    fn observe(&self, result: Result<(), String>, check: &dyn HealthCheck, opposite: &mut usize) {
        let healthy = result.is_ok();
        let reason = result.as_ref().err().cloned();
        self.result.store(Some(Arc::new(result)));
        if healthy == (self.verdict.load(Ordering::Acquire) == UP) {
            *opposite = 0;
            return;
        }
        *opposite += 1;
        if *opposite >= check.health_threshold(healthy) && self.turn(healthy) {
            *opposite = 0;
            self.log(reason);
        }
    }

    fn turn(&self, healthy: bool) -> bool {
        let (from, to) = if healthy { (DOWN, UP) } else { (UP, DOWN) };
        let turned = self.verdict.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if turned {
            let failed = &self.origin.failed_checks;
            match healthy {
                true => failed.fetch_sub(1, Ordering::AcqRel),
                false => failed.fetch_add(1, Ordering::AcqRel),
            };
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
        turned
    }

    fn log(&self, reason: Option<String>) {
        let backend = self.name.as_str();
        match reason {
            Some(reason) => {
                log::error!(target: "health", backend; "backend {backend} is down: {reason}");
            }
            None => log::info!(target: "health", backend; "backend {backend} is up again"),
        }
    }
}

/// Healthy when any address of the origin is: requests find that one too.
async fn once(origin: &Origin, check: &(dyn HealthCheck + Send + Sync), limit: Duration) -> Result<(), String> {
    let deadline = Instant::now() + limit;
    let addresses = origin.addresses(limit).await.map_err(|e| e.to_string())?;
    let mut failure = String::new();
    for (done, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - done).unwrap_or(1);
        let target = target(*address);
        match tokio::time::timeout(share, check.check(&target)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if *error.etype() == UNHEALTHY => return Err(reason(&error)),
            Ok(Err(error)) => failure = reason(&error),
            Err(_) => failure = format!("no answer within {limit:?}"),
        }
    }
    Err(failure)
}

fn target(address: SocketAddr) -> Target {
    Target { addr: address.into(), weight: 1, ext: Extensions::new() }
}

/// The kind of error of a backend that answers, but not as it should.
pub(super) const UNHEALTHY: ErrorType = ErrorType::Custom("Unhealthy");

fn reason(error: &Error) -> String {
    let context = error.context.as_ref().map(ImmutStr::as_str);
    match (error.etype(), context) {
        (etype, Some(text)) if *etype == UNHEALTHY => text.to_owned(),
        (etype, _) => match &error.cause {
            Some(_) => format!("{} ({})", etype.as_str(), error.root_cause()),
            None => etype.as_str().to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;

    use async_trait::async_trait;
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

    use super::super::origin::tests::literal;
    use super::super::testing::until;
    use super::*;

    /// A check whose results the test hands out one by one, and which tells when it wants the next.
    struct Script {
        started: Arc<AtomicUsize>,
        results: Mutex<Option<UnboundedReceiver<bool>>>,
        rise: usize,
        fall: usize,
    }

    #[async_trait]
    impl HealthCheck for Script {
        async fn check(&self, _: &Target) -> pingora_error::Result<()> {
            self.started.fetch_add(1, Ordering::SeqCst);
            let mut results = self.results.lock().unwrap().take().unwrap();
            let healthy = results.recv().await;
            *self.results.lock().unwrap() = Some(results);
            match healthy {
                Some(true) => Ok(()),
                _ => Error::e_explain(UNHEALTHY, "status 503"),
            }
        }

        fn health_threshold(&self, success: bool) -> usize {
            if success { self.rise } else { self.fall }
        }
    }

    struct Scripted {
        check: Check,
        results: UnboundedSender<bool>,
        started: Arc<AtomicUsize>,
        epoch: Arc<AtomicU64>,
    }

    impl Scripted {
        /// Hands results out and waits until all are counted: the check wants the next one.
        async fn give(&self, results: &[bool]) {
            let target = self.started.load(Ordering::SeqCst).max(1) + results.len();
            for healthy in results {
                self.results.send(*healthy).unwrap();
            }
            until("the results to count", || self.started.load(Ordering::SeqCst) == target).await;
        }
    }

    fn scripted(rise: usize, fall: usize) -> Scripted {
        let (sender, receiver) = unbounded_channel();
        let started = Arc::new(AtomicUsize::new(0));
        let script = Script { started: started.clone(), results: Mutex::new(Some(receiver)), rise, fall };
        let schedule = Schedule { interval: Duration::from_millis(1), timeout: Duration::from_secs(60) };
        let epoch = Arc::new(AtomicU64::new(0));
        let origin = Arc::new(literal(([127, 0, 0, 1], 1).into()));
        let runtime = Handle::current();
        let check = Check::start(
            "http://app".into(),
            origin,
            Box::new(script),
            schedule,
            epoch.clone(),
            Some((&runtime, Arc::new(Semaphore::new(1)))),
        );
        Scripted { check, results: sender, started, epoch }
    }

    #[tokio::test]
    async fn a_backend_is_up_until_the_first_result() {
        let script = scripted(1, 1);
        assert!(!script.check.is_down() && script.check.result().is_none());
        script.give(&[true]).await;
        assert_eq!(script.check.result(), Some(Ok(())));
        assert!(!script.check.is_down());
    }

    #[tokio::test]
    async fn one_failure_takes_a_backend_out_and_one_success_brings_it_back() {
        let script = scripted(1, 1);
        let failed = || script.check.state.origin.failed_checks.load(Ordering::SeqCst);
        script.give(&[false]).await;
        assert!(script.check.is_down());
        assert_eq!(script.check.result(), Some(Err("status 503".into())));
        assert_eq!(failed(), 1);
        script.give(&[true]).await;
        assert!(!script.check.is_down());
        assert_eq!(failed(), 0);
        assert_eq!(script.epoch.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn only_results_in_a_row_count() {
        let script = scripted(2, 3);
        let rows: [(&[bool], bool); 4] = [
            (&[false, false, true, false, false], false),
            (&[false], true),
            (&[true, false, true], true),
            (&[true], false),
        ];
        for (results, down) in rows {
            script.give(results).await;
            assert_eq!(script.check.is_down(), down, "{results:?}");
        }
    }

    #[tokio::test]
    async fn a_check_that_ends_takes_its_verdict_with_it() {
        let script = scripted(1, 1);
        script.give(&[false]).await;
        let state = script.check.state.clone();
        drop(script.check);
        assert_eq!(state.origin.failed_checks.load(Ordering::SeqCst), 0);
        assert_eq!(script.epoch.load(Ordering::SeqCst), 2);
        assert!(!state.turn(false), "a run that ends late changes nothing");
    }
}
