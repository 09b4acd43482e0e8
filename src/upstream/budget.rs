//! How many retries a route may make, so that they do not become the load that keeps a backend down.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Requests and retries of the last ten seconds.
///
/// Counts are kept by second in a ring. A second that begins while another thread counts in it may lose a few counts: an
/// estimate is enough here, a lock on every request is not worth more.
pub(super) struct Budget {
    started: Instant,
    seconds: [Second; SECONDS],
}

/// What a route grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    /// Retries in percent of the requests.
    pub percent: u32,
    /// Retries a second beside that.
    pub per_second: u32,
}

#[derive(Default)]
struct Second {
    /// Which second it is, from the start, and one more: 0 is none.
    which: AtomicU64,
    requests: AtomicU64,
    retries: AtomicU64,
}

impl Budget {
    pub fn new() -> Budget {
        Budget { started: Instant::now(), seconds: Default::default() }
    }

    /// A request begins.
    pub fn request(&self) {
        self.now().requests.fetch_add(1, Relaxed);
    }

    /// Takes a retry, if one is left.
    pub fn retry(&self, grant: Grant) -> bool {
        let now = self.now();
        let which = now.which.load(Relaxed);
        let current = |second: &&Second| {
            let second = second.which.load(Relaxed);
            second > 0 && which - second.min(which) < SECONDS as u64
        };
        let sum = |of: fn(&Second) -> &AtomicU64| -> u64 {
            self.seconds.iter().filter(current).map(|second| of(second).load(Relaxed)).sum()
        };
        let (requests, retries) = (sum(|second| &second.requests), sum(|second| &second.retries));
        let share = requests.saturating_mul(grant.percent.into()) / 100;
        let allowed = retries < share + u64::from(grant.per_second) * SECONDS as u64;
        if allowed {
            now.retries.fetch_add(1, Relaxed);
        }
        allowed
    }

    fn now(&self) -> &Second {
        self.at(self.started.elapsed().as_secs())
    }

    fn at(&self, second: u64) -> &Second {
        let cell = &self.seconds[(second % SECONDS as u64) as usize];
        let known = cell.which.load(Relaxed);
        if known != second + 1 && cell.which.compare_exchange(known, second + 1, Relaxed, Relaxed).is_ok() {
            cell.requests.store(0, Relaxed);
            cell.retries.store(0, Relaxed);
        }
        cell
    }
}

const SECONDS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_the_requests_and_some_more() {
        for (percent, per_second, requests, expected) in
            [(20, 0, 100, 20), (0, 1, 100, 10), (20, 1, 100, 30), (0, 0, 9, 0)]
        {
            let budget = Budget::new();
            (0..requests).for_each(|_| budget.request());
            let grant = Grant { percent, per_second };
            let granted = (0..100).take_while(|_| budget.retry(grant)).count();
            assert_eq!(granted, expected, "{percent} % and {per_second} a second");
        }
    }

    #[test]
    fn a_second_that_comes_again_starts_from_nothing() {
        let budget = Budget::new();
        budget.at(3).requests.fetch_add(7, Relaxed);
        assert_eq!(budget.at(3).requests.load(Relaxed), 7);
        assert_eq!(budget.at(13).requests.load(Relaxed), 0);
    }
}
