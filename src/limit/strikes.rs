//! Who was refused how often, and who is banned until when; bounded.
//!
//! A strike is forgotten when no other has followed for as long as a ban would last, as in Redis; so is a ban that is over.
//! Beyond [`MOST`] keys those with the fewest strikes are forgotten first, and bans only for other bans.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Keys that are remembered at most.
pub const MOST: usize = 1 << 16;
const SHARDS: usize = 16;

/// After how many refusals a key is banned, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bans {
    /// Refusals before a ban; 0 for none ever.
    pub after: u32,
    /// Nanoseconds that a ban lasts.
    pub lasts: u64,
}

/// A ban that is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Nanoseconds that it lasts yet.
    pub left: u64,
    /// Whether Redis said so just now.
    pub sure: bool,
}

/// Refusals by key.
#[derive(Default)]
pub struct Strikes([Mutex<HashMap<u64, Record>>; SHARDS]);

#[derive(Clone, Copy, Default)]
struct Record {
    strikes: u32,
    /// When the strikes are forgotten.
    lapse: u64,
    /// When the ban ends; 0 without one.
    banned: u64,
    /// Until when nobody else has to be asked about the ban.
    trusted: u64,
}

impl Strikes {
    /// Whether a key is banned.
    pub fn ban(&self, key: u64, now: u64) -> Option<Ban> {
        let shard = self.shard(key).lock().unwrap_or_else(PoisonError::into_inner);
        let record = shard.get(&key)?;
        let left = record.banned.checked_sub(now).filter(|left| *left > 0)?;
        Some(Ban { left, sure: record.trusted > now })
    }

    /// A request was refused: whether that was one too many.
    pub fn strike(&self, key: u64, bans: &Bans, now: u64) -> bool {
        self.change(key, now, |record| {
            let counted = if record.lapse > now { record.strikes } else { 0 };
            record.strikes = counted.saturating_add(1);
            record.lapse = now.saturating_add(bans.lasts);
            let banned = record.strikes >= bans.after;
            if banned {
                *record = Record { banned: record.lapse, ..Record::default() };
            }
            banned
        })
    }

    /// What Redis says of a ban: `left` nanoseconds, to be believed for `trust`.
    pub fn told_banned(&self, key: u64, left: u64, trust: u64, now: u64) {
        self.change(key, now, |record| {
            *record =
                Record { banned: now.saturating_add(left), trusted: now.saturating_add(trust), ..Record::default() }
        });
    }

    /// What Redis says of the number of strikes; those counted here since may be more.
    pub fn told_strikes(&self, key: u64, strikes: u32, bans: &Bans, now: u64) {
        self.change(key, now, |record| {
            let counted = if record.lapse > now { record.strikes } else { 0 };
            *record =
                Record { strikes: counted.max(strikes), lapse: now.saturating_add(bans.lasts), ..Record::default() };
        });
    }

    /// Redis knows of no ban.
    pub fn told_free(&self, key: u64, now: u64) {
        let mut shard = self.shard(key).lock().unwrap_or_else(PoisonError::into_inner);
        if shard.get(&key).is_some_and(|record| record.banned > now) {
            shard.remove(&key);
        }
    }

    /// Keys that are remembered.
    pub fn len(&self) -> usize {
        self.0.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Whether nobody was refused lately.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, key: u64) -> &Mutex<HashMap<u64, Record>> {
        &self.0[key as usize % SHARDS]
    }

    fn change<T>(&self, key: u64, now: u64, change: impl FnOnce(&mut Record) -> T) -> T {
        let mut shard = self.shard(key).lock().unwrap_or_else(PoisonError::into_inner);
        if shard.len() >= MOST / SHARDS && !shard.contains_key(&key) {
            make_room(&mut shard, now);
        }
        change(shard.entry(key).or_default())
    }
}

/// Forgets what is over, else a quarter of those who did least.
fn make_room(shard: &mut HashMap<u64, Record>, now: u64) {
    shard.retain(|_, record| record.lapse > now || record.banned > now);
    if shard.len() < MOST / SHARDS {
        return;
    }
    let weight = |record: &Record| (record.banned, record.strikes, record.lapse);
    let mut weights: Vec<_> = shard.values().map(weight).collect();
    let quarter = weights.len() / 4;
    let (_, least, _) = weights.select_nth_unstable(quarter);
    let least = *least;
    let mut left = quarter + 1;
    shard.retain(|_, record| {
        let goes = left > 0 && weight(record) <= least;
        left -= usize::from(goes);
        !goes
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const BANS: Bans = Bans { after: 3, lasts: 100 };

    #[test]
    fn the_third_strike_bans_for_a_while() {
        let strikes = Strikes::default();
        assert!(!strikes.strike(1, &BANS, 10) && !strikes.strike(1, &BANS, 20));
        assert_eq!(strikes.ban(1, 20), None);
        assert!(strikes.strike(1, &BANS, 30));
        assert_eq!(strikes.ban(1, 40), Some(Ban { left: 90, sure: false }));
        assert_eq!(strikes.ban(2, 40), None);
        assert_eq!(strikes.ban(1, 130), None, "it is over");
        assert!(!strikes.strike(1, &BANS, 140), "and counting starts over");
    }

    #[test]
    fn strikes_that_are_long_ago_do_not_count() {
        let strikes = Strikes::default();
        assert!(!strikes.strike(1, &BANS, 10) && !strikes.strike(1, &BANS, 109));
        assert!(!strikes.strike(1, &BANS, 300) && !strikes.strike(1, &BANS, 310) && strikes.strike(1, &BANS, 320));
    }

    #[test]
    fn a_million_offenders_are_bounded_and_the_worst_stay() {
        let strikes = Strikes::default();
        for _ in 0..3 {
            strikes.strike(u64::MAX, &BANS, 10);
        }
        for key in 0..1_000_000 {
            strikes.strike(key, &BANS, 20);
        }
        assert!(strikes.len() <= MOST, "{}", strikes.len());
        assert!(strikes.ban(u64::MAX, 20).is_some(), "a ban is kept");
    }
}
