//! A hash map for keys that only the operator writes.
//!
//! The standard map defends itself against an attacker who chooses keys to be stored. Here clients only ask, and what
//! is stored was in the configuration, so a plain multiply-and-rotate will do at a fraction of the cost.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

pub(super) type Map<V> = HashMap<Box<str>, V, BuildHasherDefault<Mixer>>;

#[derive(Default)]
pub(super) struct Mixer(u64);

impl Mixer {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(ODD);
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.mix(u64::from_le_bytes(last));
    }

    fn write_u8(&mut self, byte: u8) {
        self.mix(u64::from(byte));
    }

    /// The map takes its bits from both ends; multiplication leaves the good ones at the top.
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

/// 2⁶⁴ divided by the golden ratio: odd, with its bits well spread.
const ODD: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::Hash;

    use super::*;

    #[test]
    fn names_that_differ_in_one_place_spread_over_the_map() {
        let hash = |name: &str| {
            let mut mixer = Mixer::default();
            name.hash(&mut mixer);
            mixer.finish()
        };
        let names: Vec<String> = (0..4096).map(|i| format!("host-{i}.example.com")).collect();
        let low: HashSet<u64> = names.iter().map(|name| hash(name) & 4095).collect();
        let high: HashSet<u64> = names.iter().map(|name| hash(name) >> 52).collect();
        // An ideal hash fills about 63 % of as many buckets.
        assert!(low.len() > 2400 && high.len() > 2400, "{} {}", low.len(), high.len());
    }
}
