//! The counters behind the metrics of a route: plain atomics, filled in where first used.
//!
//! Every addition is relaxed: the figures need no order among themselves, only that none is lost.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus::proto;

use super::table::BUCKETS;
use crate::exchange::Reason;

/// Durations by bucket, with their sum.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// One per bound, then the rest; not cumulative.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    sum_ns: AtomicU64,
}

impl Histogram {
    pub fn observe(&self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_NS.iter().take_while(|bound| ns > **bound).count();
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(ns, Relaxed);
    }

    /// What is to be shown, or `None` when nothing was observed yet.
    pub fn sample(&self) -> Option<proto::Histogram> {
        let mut count = 0;
        let mut shown = Vec::with_capacity(BUCKETS.len());
        for (cell, bound) in self.buckets.iter().zip(BUCKETS) {
            count += cell.load(Relaxed);
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            shown.push(bucket);
        }
        count += self.buckets[BUCKETS.len()].load(Relaxed);
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(shown);
        histogram.set_sample_count(count);
        histogram.set_sample_sum(self.sum_ns.load(Relaxed) as f64 / 1e9);
        (count > 0).then_some(histogram)
    }
}

/// [`BUCKETS`] in nanoseconds.
const BOUNDS_NS: [u64; BUCKETS.len()] = {
    let mut bounds = [0; BUCKETS.len()];
    let mut at = 0;
    while at < bounds.len() {
        // Rounded: 0.005 is a little more than five thousandths as a binary fraction.
        bounds[at] = (BUCKETS[at] * 1e9 + 0.5) as u64;
        at += 1;
    }
    bounds
};

/// Counts by HTTP status. A group of statuses takes room only once one of them is seen: most routes use three or four.
#[derive(Debug)]
pub(super) struct Statuses([OnceLock<Box<[AtomicU64; GROUP]>>; 900 / GROUP]);

const GROUP: usize = 20;

impl Default for Statuses {
    fn default() -> Statuses {
        Statuses([const { OnceLock::new() }; 900 / GROUP])
    }
}

impl Statuses {
    /// Counts `status`; one that no HTTP response can have (below 100, above 999) is counted as the nearest.
    pub fn add(&self, status: u16) {
        let place = usize::from(status.clamp(100, 999)) - 100;
        let group = self.0[place / GROUP].get_or_init(Default::default);
        group[place % GROUP].fetch_add(1, Relaxed);
    }

    /// Every status seen, with its count.
    pub fn seen(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let filled = self.0.iter().enumerate().filter_map(|(at, group)| Some((at, group.get()?)));
        filled
            .flat_map(|(at, group)| {
                let counts = group.iter().enumerate();
                counts.map(move |(place, count)| (100 + at * GROUP + place, count.load(Relaxed)))
            })
            .filter(|(_, count)| *count > 0)
    }
}

/// Counts by the reason for which a request ended.
#[derive(Debug, Default)]
pub(super) struct Reasons {
    /// By far the most frequent one, found without a search.
    ok: AtomicU64,
    /// The others, in the order in which they came first; takes room only once there is one.
    rest: OnceLock<Box<Slots>>,
    /// Those for which `rest` had no place left; the list of reasons is closed and far shorter.
    overflow: AtomicU64,
}

type Slots = [OnceLock<(Reason, AtomicU64)>; 48];

impl Reasons {
    pub fn add(&self, reason: Reason) {
        self.cell(reason).fetch_add(1, Relaxed);
    }

    fn cell(&self, reason: Reason) -> &AtomicU64 {
        if reason == Reason::Ok {
            return &self.ok;
        }
        for slot in self.rest.get_or_init(|| Box::new([const { OnceLock::new() }; 48])).iter() {
            let (taken, count) = slot.get_or_init(|| (reason, AtomicU64::new(0)));
            if *taken == reason {
                return count;
            }
        }
        &self.overflow
    }

    /// Every reason seen, with its count.
    pub fn seen(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        let rest = self.rest.get().into_iter().flat_map(|slots| slots.iter());
        let rest = rest.map_while(OnceLock::get);
        let rest = rest.map(|cell| (cell.0.to_string(), cell.1.load(Relaxed)));
        let known = [("ok".to_owned(), self.ok.load(Relaxed)), ("other".to_owned(), self.overflow.load(Relaxed))];
        rest.chain(known).filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        for (duration, below, what) in [
            (Duration::ZERO, 0, "nothing"),
            (Duration::from_millis(5), 0, "a bound belongs to its bucket"),
            (Duration::from_nanos(5_000_001), 1, "just above a bound"),
            (Duration::from_millis(99), 4, "between bounds"),
            (Duration::from_secs(10), 10, "the last bound"),
            (Duration::from_secs(11), 11, "above all bounds"),
            (Duration::MAX, 11, "beyond what is counted"),
        ] {
            let histogram = Histogram::default();
            histogram.observe(duration);
            let shown = histogram.sample().unwrap();
            let empty = shown.get_bucket().iter().filter(|b| b.cumulative_count() == 0).count();
            assert_eq!((empty, shown.get_sample_count()), (below, 1), "{what}");
        }
        assert!(Histogram::default().sample().is_none());
    }

    #[test]
    fn statuses_are_counted_each_on_its_own() {
        let statuses = Statuses::default();
        for status in [200, 204, 200, 404, 599, 999, 7, u16::MAX] {
            statuses.add(status);
        }
        let seen: Vec<_> = statuses.seen().collect();
        assert_eq!(seen, [(100, 1), (200, 2), (204, 1), (404, 1), (599, 1), (999, 2)]);
    }

    #[test]
    fn reasons_are_counted_each_on_its_own() {
        let reasons = Reasons::default();
        for reason in [Reason::Ok, Reason::Denied("jwt"), Reason::Ok, Reason::Denied("access"), Reason::NoBackend] {
            reasons.add(reason);
        }
        let mut seen: Vec<_> = reasons.seen().collect();
        seen.sort();
        let expected = [("denied:access", 1), ("denied:jwt", 1), ("no_backend", 1), ("ok", 2)];
        assert_eq!(seen, expected.map(|(word, count)| (word.to_owned(), count)));
    }
}
