//! How long to wait between attempts to reach Redis.

use std::time::{Duration, Instant};

/// Growing pauses; they start over when a connection has lasted.
pub struct Pause {
    failed: u32,
    since: Option<Instant>,
}

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);
/// A connection that worked so long was a good one.
const LASTED: Duration = Duration::from_secs(10);

impl Pause {
    /// Nothing has failed yet.
    pub fn new() -> Pause {
        Pause { failed: 0, since: None }
    }

    /// A connection was made.
    pub fn connected(&mut self) {
        self.since = Some(Instant::now());
    }

    /// It failed, or none was made: how long to wait before the next attempt. None the first time.
    pub fn next(&mut self) -> Duration {
        if self.since.take().is_some_and(|since| since.elapsed() >= LASTED) {
            self.failed = 0;
        }
        let pause = match self.failed {
            0 => Duration::ZERO,
            failed => LONGEST.min(FIRST * 2u32.pow((failed - 1).min(10))),
        };
        self.failed += 1;
        // So that gateways that lost Redis together do not come back together.
        pause.mul_f64(rand::random_range(0.75..1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_go_on_growing_after_a_short_success() {
        let mut pause = Pause::new();
        assert_eq!(pause.next(), Duration::ZERO);
        for most in [50, 100, 200, 400] {
            let waited = pause.next();
            assert!(waited <= Duration::from_millis(most) && waited >= Duration::from_millis(most * 3 / 4), "{most}");
        }
        pause.connected();
        assert!(pause.next() >= Duration::from_millis(600), "it did not last");
        for _ in 0..40 {
            assert!(pause.next() <= LONGEST);
        }
        pause.since = Instant::now().checked_sub(LASTED);
        assert_eq!(pause.next(), Duration::ZERO, "it lasted");
    }
}
