//! The ring of a consistent hash: Ketama, as nginx and memcached clients draw it.
//!
//! Each backend has 160 points a unit of weight on a ring of 32-bit numbers; a key goes to the backend of the next point. A
//! backend that comes or goes moves only the keys between its points and the ones before them. Where its points lie hangs on
//! the text of its endpoint alone, not on its position, its addresses or its neighbours.

use std::net::{Ipv6Addr, SocketAddr};

use pingora_ketama::{Bucket, Continuum};
use sha2::{Digest, Sha256};

/// The ring of one route.
pub(super) struct Ring {
    continuum: Continuum,
    /// The backend of each point.
    points: Box<[u16]>,
}

impl Ring {
    /// Places backends: each with the text that tells it apart and its share, 0 for none.
    pub fn new<'a>(backends: impl Iterator<Item = (&'a str, u32)>) -> Ring {
        let shares: Vec<(SocketAddr, u32)> = backends.map(|(name, share)| (place(name), share)).collect();
        let scale = Scale::of(shares.iter().map(|(_, share)| *share));
        let placed = || shares.iter().enumerate().filter(|(_, (_, share))| *share > 0);
        let buckets: Vec<Bucket> =
            placed().map(|(_, (place, share))| Bucket::new(*place, scale.points(*share))).collect();
        let continuum = Continuum::new(&buckets);
        let mut points = Vec::new();
        let mut at = 0;
        while let Some(found) = continuum.get_addr(&mut at) {
            let index = placed().find(|(_, (place, _))| place == found).map_or(0, |(index, _)| index);
            points.push(u16::try_from(index).unwrap_or(u16::MAX));
            if at == 0 {
                break;
            }
        }
        Ring { continuum, points: points.into() }
    }

    /// The first backend from a key on that may take it.
    pub fn find(&self, key: &[u8], may: impl Fn(usize) -> bool) -> Option<usize> {
        let start = self.continuum.node_idx(key).min(self.points.len().checked_sub(1)?);
        let (before, after) = self.points.split_at(start);
        let mut asked = usize::MAX;
        for index in after.iter().chain(before).map(|index| usize::from(*index)) {
            // Neighbouring points are often of one backend, which has been asked then.
            if index != asked && may(index) {
                return Some(index);
            }
            asked = index;
        }
        None
    }
}

/// The library places addresses; what stands for a backend here is an address made of its name.
fn place(name: &str) -> SocketAddr {
    let digest = Sha256::digest(name.as_bytes());
    let mut address = [0; 16];
    address.copy_from_slice(&digest[..16]);
    SocketAddr::new(Ipv6Addr::from(address).into(), u16::from_be_bytes([digest[16], digest[17]]))
}

/// Brings weights down to numbers that keep the ring small.
struct Scale {
    divisor: u32,
    largest: u32,
}

impl Scale {
    fn of(shares: impl Iterator<Item = u32>) -> Scale {
        let (divisor, largest) =
            shares.fold((0, 0), |(divisor, largest), share| (gcd(divisor, share), largest.max(share)));
        let divisor = divisor.max(1);
        Scale { divisor, largest: largest / divisor }
    }

    fn points(&self, share: u32) -> u32 {
        let share = share / self.divisor;
        match self.largest {
            0..=MOST_UNITS => share.max(1),
            largest => ((u64::from(share) * u64::from(MOST_UNITS)).div_ceil(u64::from(largest)) as u32).max(1),
        }
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Weight units of the heaviest backend, 160 points each.
const MOST_UNITS: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(backends: &[(&str, u32)]) -> Ring {
        Ring::new(backends.iter().copied())
    }

    fn keys() -> impl Iterator<Item = String> {
        (0..10_000).map(|key| format!("key-{key}"))
    }

    fn homes(backends: &[(&str, u32)]) -> Vec<String> {
        let ring = ring(backends);
        keys().map(|key| backends[ring.find(key.as_bytes(), |_| true).unwrap()].0.to_owned()).collect()
    }

    #[test]
    fn keys_are_spread_by_weight() {
        let backends = [("http://a", 100), ("http://b", 200), ("http://c", 100), ("http://none", 0)];
        let homes = homes(&backends);
        for (name, percent) in [("http://a", 25), ("http://b", 50), ("http://c", 25), ("http://none", 0)] {
            let share = homes.iter().filter(|home| *home == name).count() / 100;
            assert!(share.abs_diff(percent) <= 6, "{name}: {share} %");
        }
    }

    #[test]
    fn a_backend_that_comes_or_goes_moves_its_own_keys_only() {
        let three = [("http://a", 1), ("http://b", 1), ("http://c", 1)];
        let four = [("http://new", 1), ("http://c", 1), ("http://a", 1), ("http://b", 1)];
        let moved: Vec<_> =
            homes(&three).into_iter().zip(homes(&four)).filter(|(before, after)| before != after).collect();
        assert!(moved.iter().all(|(_, after)| after == "http://new"), "to the new one, whatever the order");
        assert!((1_500..=3_500).contains(&moved.len()), "about a quarter, not {}", moved.len());
    }

    #[test]
    fn a_backend_that_is_down_sends_its_keys_to_the_others_and_no_other_moves() {
        let backends = [("http://a", 1), ("http://b", 1), ("http://c", 1)];
        let ring = ring(&backends);
        let mut heirs = [0; 3];
        for key in keys() {
            let home = ring.find(key.as_bytes(), |_| true).unwrap();
            let now = ring.find(key.as_bytes(), |index| index != 1).unwrap();
            assert!(home == 1 || home == now);
            heirs[now] += usize::from(home == 1);
        }
        assert!(heirs[0] > 800 && heirs[2] > 800 && heirs[1] == 0, "{heirs:?}");
        assert_eq!(ring.find(b"key", |_| false), None);
    }

    #[test]
    fn a_ring_stays_small() {
        for (weights, points) in [([1, 1, 1], 480), ([50, 25, 25], 640), ([4_000_000_000, 1, 7], 18 * 160)] {
            let found = ring(&[("http://a", weights[0]), ("http://b", weights[1]), ("http://c", weights[2])]);
            assert!(found.points.len() <= points && found.points.len() > points - 8, "{}", found.points.len());
        }
        assert_eq!(ring(&[]).find(b"key", |_| true), None);
    }
}
