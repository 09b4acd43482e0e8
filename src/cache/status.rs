//! What the cache did for a request: in the words of its headers, of the log and of the metrics.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Served from the store.
    Hit,
    /// Fetched: there was nothing for it.
    Miss,
    /// Fetched anew: what there was could not be used any more.
    Expired,
    /// What there was is still good, the backend said.
    Revalidated,
    /// Served stale, as the client asked or while it is fetched anew.
    Stale,
    /// Served stale, since the backend failed.
    StaleError,
    /// Not looked for, with the reason.
    Bypass(&'static str),
}

impl Outcome {
    /// Every outcome, with an empty reason.
    pub const ALL: [Outcome; 7] = [
        Outcome::Hit,
        Outcome::Miss,
        Outcome::Expired,
        Outcome::Revalidated,
        Outcome::Stale,
        Outcome::StaleError,
        Outcome::Bypass(""),
    ];

    /// The word for log and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Hit => "hit",
            Outcome::Miss => "miss",
            Outcome::Expired => "expired",
            Outcome::Revalidated => "revalidated",
            Outcome::Stale => "stale",
            Outcome::StaleError => "stale_error",
            Outcome::Bypass(_) => "bypass",
        }
    }

    /// The word of `X-Cache-Status`.
    pub fn title(self) -> &'static str {
        match self {
            Outcome::Hit => "HIT",
            Outcome::Miss => "MISS",
            Outcome::Expired => "EXPIRED",
            Outcome::Revalidated => "REVALIDATED",
            Outcome::Stale | Outcome::StaleError => "STALE",
            Outcome::Bypass(_) => "BYPASS",
        }
    }

    /// The word of `X-Goma-Cache`: Goma knows hit and miss.
    pub fn goma(self) -> &'static str {
        match self {
            Outcome::Hit | Outcome::Revalidated => "HIT",
            Outcome::Miss | Outcome::Expired => "MISS",
            Outcome::Stale | Outcome::StaleError => "STALE",
            Outcome::Bypass(_) => "BYPASS",
        }
    }

    fn index(self) -> usize {
        Outcome::ALL.iter().position(|one| one.word() == self.word()).unwrap_or_default()
    }
}

/// A member of `Cache-Status`. RFC 9211.
pub struct CacheStatus {
    /// What became of the request.
    pub outcome: Outcome,
    /// Seconds for which the response is fresh; negative when it is stale.
    pub ttl: Option<i64>,
    /// Whether it was stored.
    pub stored: bool,
    /// Why it was not.
    pub why: &'static str,
}

impl fmt::Display for CacheStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("goma-edge; ")?;
        match self.outcome {
            Outcome::Hit | Outcome::Stale => f.write_str("hit")?,
            Outcome::Miss => f.write_str("fwd=miss")?,
            Outcome::Expired => f.write_str("fwd=stale")?,
            Outcome::Revalidated => f.write_str("fwd=stale; fwd-status=304")?,
            Outcome::StaleError => f.write_str("hit; fwd=stale; detail=error")?,
            Outcome::Bypass(why) => write!(f, "fwd=bypass; detail={why}")?,
        }
        if self.stored {
            f.write_str("; stored")?;
        }
        if let Some(ttl) = self.ttl {
            write!(f, "; ttl={ttl}")?;
        }
        if !self.why.is_empty() {
            write!(f, "; detail={}", self.why)?;
        }
        Ok(())
    }
}

/// Counters of one cache.
#[derive(Default)]
pub struct Tally {
    outcomes: [AtomicU64; Outcome::ALL.len()],
    bypasses: [AtomicU64; BYPASSES.len()],
    collapsed: AtomicU64,
    purged: AtomicU64,
    saved: AtomicU64,
}

/// Reasons not to look in the cache, and not to store.
pub const BYPASSES: [&str; 5] = ["no-store", "body", "precondition", "override", "other"];

impl Tally {
    /// A request has ended so, with so many bytes of body from the store.
    pub fn count(&self, outcome: Outcome, bytes: u64) {
        self.outcomes[outcome.index()].fetch_add(1, Relaxed);
        match outcome {
            Outcome::Bypass(why) => {
                let at = BYPASSES.iter().position(|known| *known == why).unwrap_or(BYPASSES.len() - 1);
                self.bypasses[at].fetch_add(1, Relaxed);
            }
            Outcome::Miss | Outcome::Expired => {}
            _ => _ = self.saved.fetch_add(bytes, Relaxed),
        }
    }

    /// A request waited for another one's response, or read along.
    pub fn collapsed(&self) {
        self.collapsed.fetch_add(1, Relaxed);
    }

    /// So many entries were purged.
    pub fn purged(&self, count: usize) {
        self.purged.fetch_add(count as u64, Relaxed);
    }

    /// Requests by outcome.
    pub fn outcomes(&self) -> impl Iterator<Item = (Outcome, u64)> {
        Outcome::ALL.into_iter().zip(self.outcomes.iter().map(|count| count.load(Relaxed)))
    }

    /// Bypasses by reason.
    pub fn bypasses(&self) -> impl Iterator<Item = (&'static str, u64)> {
        BYPASSES.into_iter().zip(self.bypasses.iter().map(|count| count.load(Relaxed)))
    }

    /// Collapsed fills, purged entries, and bytes served from the store.
    pub fn others(&self) -> (u64, u64, u64) {
        (self.collapsed.load(Relaxed), self.purged.load(Relaxed), self.saved.load(Relaxed))
    }
}
