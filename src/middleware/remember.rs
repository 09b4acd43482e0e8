//! A bounded, expiring memory that is keyed by secrets without keeping them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A keyed hash of what tells entries apart.
pub type Digest = [u8; 32];

/// How many entries are kept at most.
const MOST: usize = 10_000;

/// Remembers values for a while.
pub struct Remember<T> {
    key: [u8; 32],
    ttl: Duration,
    entries: Mutex<HashMap<Digest, (Instant, T)>>,
}

impl<T: Clone> Remember<T> {
    /// A memory of its own secret key.
    pub fn new(ttl: Duration) -> Remember<T> {
        Remember { key: rand::random(), ttl, entries: Mutex::default() }
    }

    /// The digest of some parts. Parts are told apart, so that `ab`, `c` is not `a`, `bc`.
    pub fn digest<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        for part in parts {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// The value, if it was kept a short time ago.
    pub fn recall(&self, digest: &Digest) -> Option<T> {
        self.entries().get(digest).filter(|(until, _)| *until > Instant::now()).map(|(_, value)| value.clone())
    }

    /// Keeps a value. A full memory forgets what has expired, or else everything.
    pub fn keep(&self, digest: Digest, value: T) {
        let now = Instant::now();
        let mut entries = self.entries();
        if entries.len() >= MOST {
            entries.retain(|_, (until, _)| *until > now);
        }
        if entries.len() >= MOST {
            entries.clear();
        }
        entries.insert(digest, (now + self.ttl, value));
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Digest, (Instant, T)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_kept_for_a_while_and_by_all_their_parts() {
        let memory = Remember::new(Duration::from_millis(50));
        let digest = memory.digest([&b"ann"[..], b"pw"]);
        assert_ne!(digest, memory.digest([&b"annp"[..], b"w"]), "parts are told apart");
        assert_ne!(digest, Remember::<()>::new(Duration::ZERO).digest([&b"ann"[..], b"pw"]), "each has its own key");
        memory.keep(digest, 7);
        assert_eq!(memory.recall(&digest), Some(7));
        std::thread::sleep(Duration::from_millis(60));
        assert_eq!(memory.recall(&digest), None);
    }

    #[test]
    fn memory_is_bounded() {
        let memory = Remember::new(Duration::from_secs(60));
        for n in 0..=MOST as u64 {
            memory.keep(memory.digest([&n.to_le_bytes()[..]]), ());
        }
        assert!(memory.entries().len() <= MOST);
    }
}
