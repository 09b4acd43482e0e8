//! How often keys were seen for which the table has no room: an estimate, never too low, in fixed memory.
//!
//! Two count-min sketches of pingora-limits, this interval's and the last one's. Nobody is refused by what they say; they only
//! decide who gets a place in the table.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use pingora_limits::estimator::Estimator;

/// Counters a row; 4 rows of 8 bytes: 512 KiB an estimator.
const COLUMNS: usize = 1 << 14;
const ROWS: usize = 4;
/// How long an interval is, in nanoseconds.
const INTERVAL: u64 = 60_000_000_000;

/// The sketch; takes no memory before it is needed.
#[derive(Default)]
pub struct Sketch {
    pair: OnceLock<[Estimator; 2]>,
    /// Number of the interval that counts now.
    current: AtomicU64,
}

impl Sketch {
    /// Counts a key, and says how often it was seen in this interval and the last.
    pub fn add(&self, key: u64, times: u32, now: u64) -> u32 {
        let pair = self.pair.get_or_init(|| [Estimator::new(ROWS, COLUMNS), Estimator::new(ROWS, COLUMNS)]);
        let interval = now / INTERVAL;
        let before = self.current.fetch_max(interval, Ordering::AcqRel);
        if interval > before {
            pair[interval as usize % 2].reset();
            if interval > before + 1 {
                pair[(interval as usize + 1) % 2].reset();
            }
        }
        let counted = pair[interval as usize % 2].incr(key, times as isize);
        let last = pair[(interval as usize + 1) % 2].get(key);
        u32::try_from(counted.saturating_add(last)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_this_interval_and_the_last() {
        let sketch = Sketch::default();
        assert_eq!(sketch.add(7, 2, 5), 2);
        assert_eq!(sketch.add(7, 1, INTERVAL), 3);
        assert_eq!(sketch.add(8, 1, INTERVAL), 1);
        assert_eq!(sketch.add(7, 1, 2 * INTERVAL), 2, "what was before is forgotten");
        assert_eq!(sketch.add(7, 1, 9 * INTERVAL), 1);
    }
}
