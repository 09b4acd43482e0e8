//! Limits: their storage and arithmetic, without HTTP.
//!
//! | module | what it does |
//! |---|---|
//! | [`quota`] | so many in so long: the arithmetic of a token bucket in one number (GCRA) |
//! | [`table`] | exact buckets by key, in bounded memory, for the whole process |
//! | [`sketch`] | who matters among the keys that the table has no room for |
//! | [`strikes`] | who was refused how often, and who is banned until when |
//! | [`shared`] | the same buckets and bans in Redis, one round trip a question |
//! | [`lease`] | tokens borrowed from there in advance, and keys that are known to be exhausted |
//!
//! Time is a number of nanoseconds that the caller brings, so that a test can hold the clock.

pub mod lease;
pub mod quota;
pub mod shared;
pub mod sketch;
pub mod strikes;
pub mod table;

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

pub use quota::{Quota, Taken};

/// What all limits of the process share: it outlives a reload, and a limit whose settings did not change finds its buckets
/// again.
pub struct Limits {
    /// Buckets.
    pub table: table::Table,
    /// Refusals and bans.
    pub strikes: strikes::Strikes,
    /// Borrowed tokens, exhausted keys.
    pub leases: lease::Leases,
    hasher: RandomState,
    started: Instant,
    swept: AtomicU64,
}

/// Nanoseconds between two sweeps.
const SWEEP: u64 = 60_000_000_000;

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            table: table::Table::default(),
            strikes: strikes::Strikes::default(),
            leases: lease::Leases::default(),
            hasher: RandomState::new(),
            started: Instant::now(),
            swept: AtomicU64::new(0),
        }
    }
}

impl Limits {
    /// Nanoseconds since the start, never 0.
    pub fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX - 1) + 1
    }

    /// Gives back room that is not needed any more; now and then, beside requests.
    pub fn sweep(&self) {
        let (now, swept) = (self.now(), self.swept.load(Ordering::Relaxed));
        if now >= swept.saturating_add(SWEEP) {
            self.swept.store(now, Ordering::Relaxed);
            self.table.sweep(now);
        }
    }

    /// The number by which a key is kept; nobody outside can find two keys with the same one.
    pub fn key(&self, of: impl Hash) -> u64 {
        self.hasher.hash_one(of)
    }
}
