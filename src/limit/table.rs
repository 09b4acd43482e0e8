//! Exact buckets by key, in bounded memory.
//!
//! A bucket is 16 bytes: the number of its key and the moment at which it will be full. A full bucket is as good as none, so
//! room is only taken by keys that were seen lately: one request of a limit of 100 a minute is forgotten after 0.6 s. The table
//! grows with the buckets that are not full, up to [`MOST`], which is 32 MiB; where a key finds no room then, the bucket that
//! lacks least has to go, if the [`Sketch`] says that the newcomer lacks more. Whoever comes near a limit is kept exactly;
//! who is not in the table passes. The error with a million keys at once is in the tests below.

use std::sync::{Mutex, PoisonError};

use super::quota::{Quota, Taken};
use super::sketch::Sketch;

/// Buckets that the table of a process can hold.
pub const MOST: usize = 1 << 21;

const SHARDS: usize = 64;
/// Places that a key can be in.
const WAYS: usize = 16;
/// What a shard begins with.
const FIRST: usize = 64;

/// The table. Shards lock for a few nanoseconds each.
pub struct Table {
    shards: Box<[Mutex<Shard>]>,
    sketch: Sketch,
    /// Places that a shard may have.
    most: usize,
}

#[derive(Default)]
struct Shard {
    /// A power of two of sets of [`WAYS`].
    places: Box<[Bucket]>,
}

#[derive(Clone, Copy, Default)]
struct Bucket {
    key: u64,
    full_at: u64,
}

impl Default for Table {
    fn default() -> Table {
        Table::with_room(MOST)
    }
}

impl Table {
    /// A table for so many buckets at most, rounded up to a power of two.
    pub fn with_room(most: usize) -> Table {
        let most = (most.next_power_of_two() / SHARDS).max(WAYS);
        Table { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), sketch: Sketch::default(), most }
    }

    /// Takes tokens from the bucket of a key.
    pub fn take(&self, key: u64, quota: &Quota, now: u64, cost: u32) -> Taken {
        let shard = &self.shards[key as usize % SHARDS];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let set = shard.set(key);
        if let Some(bucket) = set.iter_mut().find(|bucket| bucket.key == key && bucket.full_at > now) {
            return quota.take(&mut bucket.full_at, now, cost);
        }
        if let Some(free) = set.iter_mut().find(|bucket| bucket.full_at <= now) {
            *free = Bucket { key, full_at: 0 };
            return quota.take(&mut free.full_at, now, cost);
        }
        if shard.places.len() < self.most {
            shard.grow(now);
            drop(shard);
            return self.take(key, quota, now, cost);
        }
        self.squeeze(set_of(&mut shard.places, key), key, quota, now, cost)
    }

    /// There is no room: the one that lacks least goes, or the newcomer is not kept.
    fn squeeze(&self, set: &mut [Bucket], key: u64, quota: &Quota, now: u64, cost: u32) -> Taken {
        let seen = self.sketch.add(key, cost, now).min(quota.capacity);
        let lacked = quota.interval().saturating_mul(u64::from(seen.saturating_sub(cost)));
        let mut full_at = now.saturating_add(lacked);
        let taken = quota.take(&mut full_at, now, cost);
        let least = set.iter_mut().min_by_key(|bucket| bucket.full_at);
        match least {
            Some(least) if least.full_at < full_at => {
                // So that it is not forgotten entirely, should it come again.
                let lacks = (least.full_at - now) / quota.interval();
                self.sketch.add(least.key, u32::try_from(lacks).unwrap_or(u32::MAX).min(quota.capacity), now);
                *least = Bucket { key, full_at };
            }
            _ => {}
        }
        taken
    }

    /// Bytes that its buckets take now.
    pub fn bytes(&self) -> usize {
        let size = |shard: &Mutex<Shard>| shard.lock().unwrap_or_else(PoisonError::into_inner).places.len();
        self.shards.iter().map(size).sum::<usize>() * size_of::<Bucket>()
    }

    /// Gives back room that nobody has needed lately.
    pub fn sweep(&self, now: u64) {
        for shard in &self.shards {
            shard.lock().unwrap_or_else(PoisonError::into_inner).shrink(now);
        }
    }
}

/// The set of a key. The low bits of the key have chosen the shard.
fn set_of(places: &mut [Bucket], key: u64) -> &mut [Bucket] {
    let sets = places.len() / WAYS;
    let at = (key >> 16) as usize & (sets - 1);
    &mut places[at * WAYS..(at + 1) * WAYS]
}

impl Shard {
    fn set(&mut self, key: u64) -> &mut [Bucket] {
        if self.places.is_empty() {
            self.places = vec![Bucket::default(); FIRST].into_boxed_slice();
        }
        set_of(&mut self.places, key)
    }

    /// Twice the room, without the buckets that are full.
    fn grow(&mut self, now: u64) {
        self.resize(self.places.len() * 2, now);
    }

    fn shrink(&mut self, now: u64) {
        let live = self.places.iter().filter(|bucket| bucket.full_at > now).count();
        let wanted = (live * 8).next_power_of_two().max(FIRST);
        if wanted < self.places.len() {
            self.resize(wanted, now);
        }
    }

    fn resize(&mut self, to: usize, now: u64) {
        let mut places = vec![Bucket::default(); to].into_boxed_slice();
        for bucket in self.places.iter().filter(|bucket| bucket.full_at > now) {
            let set = set_of(&mut places, bucket.key);
            if let Some(place) = set.iter_mut().min_by_key(|place| place.full_at)
                && place.full_at < bucket.full_at
            {
                *place = *bucket;
            }
        }
        self.places = places;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Keys as the hasher makes them.
    fn key(number: u64) -> u64 {
        let mut key = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
        key = (key ^ key >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        key = (key ^ key >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        key ^ key >> 31
    }

    /// Sends `each` requests of every key, round after round, a `gap` between rounds; returns the share by which the number
    /// that passed is wrong.
    fn error(table: &Table, keys: u64, each: u64, gap: u64, quota: &Quota) -> f64 {
        let (mut passed, mut right) = (0_u64, 0_u64);
        let mut exact = vec![0; keys as usize];
        for round in 0..each {
            let now = SECOND + round * gap;
            for number in 0..keys {
                passed += u64::from(table.take(key(number), quota, now, 1).allowed);
                right += u64::from(quota.take(&mut exact[number as usize], now, 1).allowed);
            }
        }
        (passed as f64 - right as f64).abs() / right as f64
    }

    #[test]
    fn the_error_is_below_one_percent_for_any_number_of_keys() {
        // Each key asks for twice what it may, over the time that a bucket takes to fill.
        for (keys, rate, burst, each) in [(10, 50, 20, 200), (1_000, 20, 5, 60), (1_000_000, 2, 1, 5)] {
            let table = Table::default();
            let quota = Quota::new(rate, Duration::from_secs(3600), burst);
            let error = error(&table, keys, each, 3600 * SECOND / each, &quota);
            println!("{keys} keys: error {:.4} %, {} KiB", error * 100.0, table.bytes() / 1024);
            assert!(error < if keys < 10_000 { 1e-9 } else { 0.01 }, "{keys} keys: {error}");
            assert!(table.bytes() <= MOST * 16);
        }
    }

    #[test]
    fn a_million_keys_that_come_once_do_not_grow_it() {
        let (table, quota) = (Table::default(), Quota::new(100, Duration::from_secs(60), 0));
        // 20,000 requests a second, each of another client.
        for number in 0..1_000_000 {
            assert!(table.take(key(number), &quota, SECOND + number * 50_000, 1).allowed);
        }
        assert!(table.bytes() <= 1 << 20, "{} KiB", table.bytes() / 1024);
        table.sweep(3600 * SECOND);
        assert_eq!(table.bytes(), SHARDS * FIRST * 16, "and what it took it gives back");
    }

    #[test]
    fn a_full_table_keeps_those_who_matter() {
        let (table, quota) = (Table::with_room(4096), Quota::new(10, Duration::from_secs(3600), 0));
        let busy = |passed: &mut [u32]| {
            for (number, passed) in passed.iter_mut().enumerate() {
                *passed += u32::from(table.take(key(number as u64), &quota, SECOND, 1).allowed);
            }
        };
        let mut passed = [0; 1000];
        // Between their requests come ever new clients, ten times as many as there is room for.
        for round in 0..20 {
            busy(&mut passed);
            for number in 0..2_000 {
                let once = table.take(key(10_000 + round * 2_000 + number), &quota, SECOND, 1);
                assert!(once.allowed, "who comes once always passes");
            }
        }
        let total: u32 = passed.iter().sum();
        assert!((9_900..=10_100).contains(&total), "{total} instead of 10,000");
        assert!(table.bytes() <= 4096 * 16);
    }
}
