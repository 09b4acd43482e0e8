//! One Redis client for the whole gateway: standalone, behind Sentinels or a Cluster, with or without TLS.
//!
//! Nothing here may hold up a start or a request. A [`Redis`] is a handle that knows at any moment whether Redis is in use:
//! a call while it is not fails at once with [`Failure::Down`], any other call fails after the answer time-out at the latest.
//! The first call that fails in a way that says something about Redis (no answer in time, connection lost, not the master any
//! more) takes it out of use for everybody; a task of its own then tries with growing pauses until a PING is
//! answered in time, and puts it back. Whoever calls decides what a request does meanwhile.
//!
//! ```yaml
//! gateway:
//!   redis:
//!     addr: redis.internal:6379
//!     password: ${REDIS_PASSWORD}
//!     tls: { clientCa: /etc/goma/redis-ca.pem }
//! ```

mod keeper;
mod link;
mod listen;
mod pause;
mod settings;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::redis::{ErrorKind, FromRedisValue, RedisError, ServerErrorKind};
use arc_swap::ArcSwapOption;
use prometheus::{IntCounterVec, IntGauge};
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

pub use ::redis::{Cmd, Pipeline, Script, ScriptInvocation, Value, cmd, pipe};
use link::Link;
pub use listen::{News, Subscription};
pub use settings::Settings;

/// The handle. Clones are cheap and share everything.
#[derive(Clone)]
pub struct Redis {
    shared: Arc<Shared>,
    limit: Duration,
}

/// Why a call came to nothing.
#[derive(Debug, Error)]
pub enum Failure {
    /// Redis is not in use at the moment; nothing was sent.
    #[error("Redis is not in use")]
    Down,
    /// There was no answer in time. Whether Redis did what it was asked is not known.
    #[error("no answer within {0:?}")]
    Slow(Duration),
    /// The connection was lost, or the server cannot serve now. Whether it did what it was asked is not known.
    #[error("{0}")]
    Broken(String),
    /// The server refuses this command.
    #[error("{0}")]
    Refused(String),
}

/// What is counted; made by the metrics of the process.
pub struct Meters {
    /// 1 while Redis is in use.
    pub up: IntGauge,
    /// Calls that failed, by reason: `down`, `slow`, `broken`, `refused`.
    pub failures: IntCounterVec,
    /// Changes of state, by the new one: `up`, `down`.
    pub changes: IntCounterVec,
}

struct Shared {
    settings: Settings,
    handle: Option<Handle>,
    /// The connection while Redis is in use.
    live: ArcSwapOption<Live>,
    trouble: mpsc::Sender<Failure>,
    /// Taken by the keeper.
    troubles: Mutex<Option<mpsc::Receiver<Failure>>>,
    meters: Meters,
    made: Instant,
    /// When a refusal was last told, in seconds since `made`, plus 1.
    told: AtomicU64,
}

/// A connection in use.
struct Live {
    link: Link,
    /// Somebody has found that it does not work.
    given_up: AtomicBool,
}

impl Redis {
    /// A handle that connects to nothing before [`start`](Self::start). Without a runtime it never does.
    pub fn new(settings: Settings, handle: Option<Handle>, meters: Meters) -> Redis {
        let (trouble, troubles) = mpsc::channel(1);
        let limit = settings.timeout;
        meters.up.set(0);
        let shared = Shared {
            settings,
            handle,
            live: ArcSwapOption::empty(),
            trouble,
            troubles: Mutex::new(Some(troubles)),
            meters,
            made: Instant::now(),
            told: AtomicU64::new(0),
        };
        Redis { shared: Arc::new(shared), limit }
    }

    /// Begins to connect, beside everything else. `flush` empties the database first where the settings ask for it: not when
    /// the process takes over from one that is being upgraded. Once a process; again is nothing.
    pub fn start(&self, flush: bool) {
        let troubles = self.shared.troubles.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(troubles), Some(handle)) = (troubles, &self.shared.handle) {
            handle.spawn(keeper::keep(Arc::downgrade(&self.shared), troubles, flush && self.shared.settings.flush));
        }
    }

    /// Whether Redis is in use now.
    pub fn is_up(&self) -> bool {
        self.shared.live.load().is_some()
    }

    /// Whether keys that one script or transaction touches have to share a hash tag.
    pub fn is_cluster(&self) -> bool {
        self.shared.settings.is_cluster()
    }

    /// The longest that a call of this handle takes.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// The same Redis with another limit for calls.
    pub fn within(&self, limit: Duration) -> Redis {
        Redis { shared: self.shared.clone(), limit }
    }

    /// Sends a command.
    ///
    /// # Errors
    /// At once when Redis is not in use, at the latest when the limit is over.
    pub async fn call<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Failure> {
        let live = self.live()?;
        let mut link = live.link.clone();
        self.bounded(&live, command.query_async(&mut link)).await
    }

    /// Sends several commands at once.
    ///
    /// # Errors
    /// Like [`call`](Self::call).
    pub async fn pipeline<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, Failure> {
        let live = self.live()?;
        let mut link = live.link.clone();
        self.bounded(&live, commands.query_async(&mut link)).await
    }

    /// Runs a script by its hash; a server that does not know it yet gets its text first.
    ///
    /// # Errors
    /// Like [`call`](Self::call).
    pub async fn script<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, Failure> {
        let live = self.live()?;
        let mut link = live.link.clone();
        self.bounded(&live, script.invoke_async(&mut link)).await
    }

    /// Follows channels, across lost connections. Needs a runtime; without one nothing ever comes.
    pub fn subscribe(&self, channels: Vec<String>) -> Subscription {
        listen::subscribe(self.shared.settings.clone(), self.shared.handle.as_ref(), channels)
    }

    fn live(&self) -> Result<Arc<Live>, Failure> {
        let live = self.shared.live.load_full();
        live.ok_or_else(|| self.shared.count(Failure::Down))
    }

    async fn bounded<T>(&self, live: &Live, answer: impl Future<Output = Result<T, RedisError>>) -> Result<T, Failure> {
        let failure = match tokio::time::timeout(self.limit, answer).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => Failure::of(&error),
            Err(_) => Failure::Slow(self.limit),
        };
        // One that waits shorter than the operator allows says nothing about Redis.
        let impatient = matches!(failure, Failure::Slow(limit) if limit < self.shared.settings.timeout);
        if !matches!(failure, Failure::Refused(_)) && !impatient {
            self.shared.give_up(live, failure.again());
        }
        Err(self.shared.count(failure))
    }
}

impl Shared {
    /// Takes Redis out of use; the keeper hears of it once.
    fn give_up(&self, live: &Live, failure: Failure) {
        if !live.given_up.swap(true, Ordering::AcqRel) {
            self.live.store(None);
            let _ = self.trouble.try_send(failure);
        }
    }

    fn count(&self, failure: Failure) -> Failure {
        self.meters.failures.with_label_values(&[failure.word()]).inc();
        if let Failure::Refused(why) = &failure {
            let now = self.made.elapsed().as_secs() + 1;
            let told = self.told.load(Ordering::Relaxed);
            if (told == 0 || now >= told + TELL_AGAIN) && self.told.swap(now, Ordering::Relaxed) == told {
                log::warn!("Redis refuses commands: {why}");
            }
        }
        failure
    }
}

/// Seconds between two lines about refused commands.
const TELL_AGAIN: u64 = 60;

impl Failure {
    fn of(error: &RedisError) -> Failure {
        match error.kind() {
            ErrorKind::Server(
                ServerErrorKind::BusyLoading
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::TryAgain
                | ServerErrorKind::Moved
                | ServerErrorKind::Ask,
            )
            | ErrorKind::Io
            | ErrorKind::Parse
            | ErrorKind::ClusterConnectionNotFound => Failure::Broken(error.to_string()),
            _ if error.is_unrecoverable_error() => Failure::Broken(error.to_string()),
            _ => Failure::Refused(error.to_string()),
        }
    }

    /// In one word, as the metric counts it.
    pub fn word(&self) -> &'static str {
        match self {
            Failure::Down => "down",
            Failure::Slow(_) => "slow",
            Failure::Broken(_) => "broken",
            Failure::Refused(_) => "refused",
        }
    }

    fn again(&self) -> Failure {
        match self {
            Failure::Down => Failure::Down,
            Failure::Slow(limit) => Failure::Slow(*limit),
            Failure::Broken(why) => Failure::Broken(why.clone()),
            Failure::Refused(why) => Failure::Refused(why.clone()),
        }
    }
}
