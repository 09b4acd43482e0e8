//! What must not be used twice: answers of logins, and sessions that were logged out. Bounded, in this process only.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::seal::digest;

/// A bounded memory of texts, each until some time.
pub struct Memory {
    most: usize,
    known: Mutex<HashMap<[u8; 32], u64>>,
}

impl Memory {
    /// A memory of so many texts.
    pub fn new(most: usize) -> Memory {
        Memory { most, known: Mutex::default() }
    }

    /// Remembers a text until then; whether it is new. Times are seconds since 1970.
    pub fn add(&self, text: &str, until: u64, now: u64) -> bool {
        let key = digest(&[text]);
        let mut known = self.lock();
        if known.len() >= self.most {
            known.retain(|_, end| *end > now);
        }
        if known.len() >= self.most {
            // Many thousands within their time: the one that would go first has to go now.
            let first = known.iter().min_by_key(|(_, end)| **end).map(|(key, _)| *key);
            first.map(|key| known.remove(&key));
        }
        known.insert(key, until).is_none_or(|end| end <= now)
    }

    /// Whether a text is remembered.
    pub fn has(&self, text: &str, now: u64) -> bool {
        // Most of the time nothing is remembered, and nobody waits for a hash.
        if self.lock().is_empty() {
            return false;
        }
        let key = digest(&[text]);
        self.lock().get(&key).is_some_and(|end| *end > now)
    }

    /// Forgets a text.
    pub fn remove(&self, text: &str) {
        let key = digest(&[text]);
        self.lock().remove(&key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], u64>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_new_once_until_its_time_is_over() {
        let memory = Memory::new(10);
        assert!(memory.add("a", 100, 50));
        assert!(memory.has("a", 99) && !memory.has("a", 100) && !memory.has("b", 50));
        assert!(!memory.add("a", 100, 51));
        assert!(memory.add("a", 200, 100), "its time was over");
        memory.remove("a");
        assert!(!memory.has("a", 100));
    }

    #[test]
    fn a_memory_does_not_grow_beyond_its_bound() {
        let memory = Memory::new(100);
        for number in 0..1000 {
            memory.add(&number.to_string(), 1000 + number, 0);
        }
        assert!(memory.lock().len() <= 100);
        assert!(memory.has("999", 0) && !memory.has("0", 0));
    }
}
