//! What is known here of keys whose buckets are in Redis: tokens borrowed in advance, and until when a bucket is empty.
//!
//! Bounded: beyond [`MOST`] keys that still mean something, further ones just ask Redis each time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Keys that are known at most.
pub const MOST: usize = 1 << 16;
const SHARDS: usize = 16;

/// What is known, by key.
#[derive(Default)]
pub struct Leases([Mutex<Shard>; SHARDS]);

#[derive(Default)]
struct Shard {
    keys: HashMap<u64, Known>,
    /// When it was last tidied, and found full all the same.
    full: u64,
}

/// Nanoseconds before a full shard is tidied again.
const TIDY: u64 = 1_000_000_000;

#[derive(Clone, Copy, Default)]
struct Known {
    /// Tokens left of those borrowed.
    tokens: u32,
    /// When they are worth nothing any more.
    expires: u64,
    /// Until when there are no tokens in Redis.
    empty_until: u64,
    /// Until when somebody is thought to be on the way to borrow: whoever asked may have gone.
    borrowing: u64,
}

/// Longest time that somebody is waited for, in nanoseconds.
const ERRAND: u64 = 1_000_000_000;

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It passes: a token was here. `refill`: few are left, and who asked is to borrow more beside the request.
    Token {
        /// Whether to borrow now.
        refill: bool,
    },
    /// It does not pass: nothing comes for so many nanoseconds.
    Empty(u64),
    /// Redis has to be asked. `borrow`: for a whole lease, as nobody else is doing that.
    Ask {
        /// Whether to ask for more than the one.
        borrow: bool,
    },
}

impl Leases {
    /// Looks for a token. `size` is that of a lease: 0 where nothing is borrowed.
    pub fn hold(&self, key: u64, size: u32, now: u64) -> Hold {
        let mut shard = self.shard(key).lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = shard.keys.get_mut(&key) else {
            let borrow = size > 1 && shard.has_room(now);
            if borrow {
                shard.keys.insert(key, Known { borrowing: now + ERRAND, ..Known::default() });
            }
            return Hold::Ask { borrow };
        };
        if known.tokens > 0 && known.expires > now {
            known.tokens -= 1;
            let refill = known.tokens <= size / 4 && known.borrowing <= now && known.empty_until <= now;
            if refill {
                known.borrowing = now + ERRAND;
            }
            return Hold::Token { refill };
        }
        if known.empty_until > now {
            return Hold::Empty(known.empty_until - now);
        }
        let borrow = size > 1 && known.borrowing <= now;
        if borrow {
            known.borrowing = now + ERRAND;
        }
        Hold::Ask { borrow }
    }

    /// Tokens were borrowed, or none were to be had; they count for `lasts` nanoseconds.
    pub fn borrowed(&self, key: u64, tokens: u32, lasts: u64, now: u64) {
        let mut shard = self.shard(key).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = shard.keys.get_mut(&key) {
            let left = if known.expires > now { known.tokens } else { 0 };
            known.tokens = left.saturating_add(tokens);
            known.expires = now.saturating_add(lasts);
            known.borrowing = 0;
        }
    }

    /// There was a token in Redis after all.
    pub fn refilled(&self, key: u64) {
        if let Some(known) = self.shard(key).lock().unwrap_or_else(PoisonError::into_inner).keys.get_mut(&key) {
            known.empty_until = 0;
        }
    }

    /// The bucket in Redis is empty for so long.
    pub fn emptied(&self, key: u64, retry: u64, now: u64) {
        let mut shard = self.shard(key).lock().unwrap_or_else(PoisonError::into_inner);
        if shard.keys.contains_key(&key) || shard.has_room(now) {
            let known = shard.keys.entry(key).or_default();
            known.empty_until = now.saturating_add(retry);
            known.borrowing = 0;
        }
    }

    /// Keys that are known.
    pub fn len(&self) -> usize {
        self.0.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).keys.len()).sum()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, key: u64) -> &Mutex<Shard> {
        &self.0[key as usize % SHARDS]
    }
}

impl Shard {
    fn has_room(&mut self, now: u64) -> bool {
        if self.keys.len() >= MOST / SHARDS && now >= self.full.saturating_add(TIDY) {
            self.full = now;
            self.keys.retain(|_, known| known.expires > now && known.tokens > 0 || known.empty_until > now);
        }
        self.keys.len() < MOST / SHARDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_borrows_while_others_ask_and_then_tokens_are_here() {
        let leases = Leases::default();
        assert_eq!(leases.hold(1, 8, 10), Hold::Ask { borrow: true });
        assert_eq!(leases.hold(1, 8, 10), Hold::Ask { borrow: false }, "somebody is on the way");
        leases.borrowed(1, 7, 100, 10);
        let held: Vec<Hold> = (0..7).map(|_| leases.hold(1, 8, 20)).collect();
        let refill: Vec<bool> = held.iter().map(|hold| *hold == Hold::Token { refill: true }).collect();
        assert_eq!(refill, [false, false, false, false, true, false, false], "more is fetched before it is used up");
        assert_eq!(leases.hold(1, 8, 20), Hold::Ask { borrow: false });
        leases.emptied(1, 50, 20);
        assert_eq!(leases.hold(1, 8, 30), Hold::Empty(40));
        assert_eq!(leases.hold(1, 8, 70), Hold::Ask { borrow: true });
    }

    #[test]
    fn borrowed_tokens_do_not_last() {
        let leases = Leases::default();
        leases.hold(1, 8, 10);
        leases.borrowed(1, 7, 100, 10);
        assert_eq!(leases.hold(1, 8, 110), Hold::Ask { borrow: true });
    }

    #[test]
    fn nothing_is_kept_for_exact_limits_but_that_they_are_exhausted() {
        let leases = Leases::default();
        assert_eq!(leases.hold(1, 0, 10), Hold::Ask { borrow: false });
        assert!(leases.is_empty());
        leases.emptied(1, 5, 10);
        assert_eq!(leases.hold(1, 0, 12), Hold::Empty(3));
        for key in 0..1_000_000 {
            leases.emptied(key, 5, 10);
        }
        assert!(leases.len() <= MOST);
    }
}
