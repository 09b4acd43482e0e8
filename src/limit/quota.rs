//! So many in so long: a token bucket in one number.
//!
//! The generic cell rate algorithm: a bucket is the moment at which it will be full again (`full_at`). A token costs one
//! interval; a request passes when the bucket is full again within `capacity` intervals after it. A bucket that is full now
//! need not be kept. This is a token bucket of `capacity` that starts full and gains a token an interval, to the nanosecond.

use std::time::Duration;

/// How many requests in how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    /// Requests a window.
    pub rate: u32,
    /// Length of the window.
    pub window: Duration,
    /// Most requests at once: `rate` and the burst.
    pub capacity: u32,
    interval: u64,
}

/// What came of asking for tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Whether the tokens were there.
    pub allowed: bool,
    /// Tokens left.
    pub remaining: u32,
    /// Nanoseconds until enough tokens are there; 0 when they were.
    pub retry: u64,
    /// Nanoseconds until the bucket is full.
    pub reset: u64,
}

impl Quota {
    /// `rate` requests a `window` and `burst` more at once. Neither `rate` nor `window` may be zero.
    pub fn new(rate: u32, window: Duration, burst: u32) -> Quota {
        let window_ns = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        let interval = (window_ns / u64::from(rate.max(1))).max(1);
        Quota { rate, window, capacity: rate.saturating_add(burst), interval }
    }

    /// Nanoseconds that a token takes.
    pub fn interval(&self) -> u64 {
        self.interval
    }

    /// Nanoseconds from empty to full.
    pub fn span(&self) -> u64 {
        self.interval.saturating_mul(u64::from(self.capacity))
    }

    /// Tokens that are borrowed from a shared bucket at once, so that with four gateways what they hold stays within 2 % of a
    /// window; 0 for a limit that is too small for that.
    pub fn lease(&self) -> u32 {
        if self.rate < 1000 { 0 } else { (self.rate / 250).min(1000) }
    }

    /// Takes `cost` tokens from a bucket, or leaves it as it is.
    pub fn take(&self, full_at: &mut u64, now: u64, cost: u32) -> Taken {
        let from = (*full_at).max(now);
        let next = from.saturating_add(self.interval.saturating_mul(u64::from(cost)));
        let latest = now.saturating_add(self.span());
        let allowed = next <= latest;
        if allowed {
            *full_at = next;
        }
        let reset = if allowed { next - now } else { from - now };
        let remaining = self.span().saturating_sub(reset) / self.interval;
        Taken {
            allowed,
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            retry: next.saturating_sub(latest),
            reset,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_bucket_starts_full_and_fills_steadily() {
        let quota = Quota::new(60, Duration::from_secs(60), 100);
        let mut bucket = 0;
        let passed = (0..200).filter(|_| quota.take(&mut bucket, SECOND, 1).allowed).count();
        assert_eq!(passed, 160, "rate and burst at once");
        for second in 2..10 {
            assert!(quota.take(&mut bucket, second * SECOND, 1).allowed, "then one a second");
            let refused = quota.take(&mut bucket, second * SECOND, 1);
            assert!(!refused.allowed && refused.remaining == 0 && refused.retry == SECOND, "{refused:?}");
        }
    }

    #[test]
    fn the_answer_says_what_is_left() {
        let quota = Quota::new(3, Duration::from_secs(3600), 0);
        let mut bucket = 0;
        let hour = 3600 * SECOND;
        for (remaining, reset) in [(2, hour / 3), (1, 2 * hour / 3), (0, hour)] {
            let taken = quota.take(&mut bucket, 1, 1);
            assert_eq!(taken, Taken { allowed: true, remaining, retry: 0, reset });
        }
        assert_eq!(quota.take(&mut bucket, 1, 1), Taken { allowed: false, remaining: 0, retry: hour / 3, reset: hour });
        assert_eq!(quota.take(&mut bucket, 1 + hour, 3).remaining, 0, "three at once");
        assert!(!quota.take(&mut bucket, 1 + 2 * hour, 4).allowed, "never more than there can be");
    }
}
