//! How many logins a client may try: a token bucket for each address, where Goma has one for all clients together (W-25).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::middleware::auth::network;

/// Allowances by client address.
pub struct Allowance {
    burst: f64,
    /// Time that one login takes to come back.
    each: Duration,
    ttl: Duration,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

#[derive(Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// How many addresses are known at most.
const MOST: usize = 10_000;

impl Allowance {
    /// `size` logins per `ttl`, at most `burst` at once.
    pub fn new(size: u32, burst: u32, ttl: Duration) -> Allowance {
        Allowance { burst: burst.max(1).into(), each: ttl / size.max(1), ttl, buckets: Mutex::default() }
    }

    /// Takes one login from a client's allowance; whether there was one. A client of IPv6 has a whole network of addresses,
    /// so all of its /64 share an allowance.
    pub fn take(&self, client: IpAddr) -> bool {
        self.take_at(client, Instant::now())
    }

    fn take_at(&self, client: IpAddr, now: Instant) -> bool {
        let client = network(client);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MOST && !buckets.contains_key(&client) {
            // Those that are full again say nothing.
            buckets.retain(|_, bucket| self.refilled(bucket, now) < self.burst);
            if buckets.len() >= MOST {
                return false;
            }
        }
        let bucket = buckets.entry(client).or_insert(Bucket { left: self.burst, at: now });
        *bucket = Bucket { left: self.refilled(bucket, now), at: now };
        let passes = bucket.left >= 1.0;
        if passes {
            bucket.left -= 1.0;
        }
        passes
    }

    fn refilled(&self, bucket: &Bucket, now: Instant) -> f64 {
        let back = now.saturating_duration_since(bucket.at).as_secs_f64() / self.each.as_secs_f64().max(1e-9);
        (bucket.left + back).min(self.burst)
    }

    /// What `Retry-After` says: the whole time of the allowance, in seconds.
    pub fn seconds(&self) -> u64 {
        self.ttl.as_secs().max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let allowance = Allowance::new(1, 1, Duration::from_secs(60));
        let (now, of) = (Instant::now(), |text: &str| text.parse::<IpAddr>().expect("an address"));
        for (client, passes) in [
            ("2001:db8::1", true),
            ("2001:db8::ffff:1", false),
            ("2001:db8:0:1::1", true),
            ("10.0.0.1", true),
            ("::ffff:10.0.0.1", false),
            ("::ffff:10.0.0.2", true),
        ] {
            assert_eq!(allowance.take_at(of(client), now), passes, "{client}");
        }
    }

    #[test]
    fn each_client_has_its_own_allowance() {
        let allowance = Allowance::new(1, 1, Duration::from_secs(60));
        let (now, ann, bob) = (Instant::now(), [127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        assert!(allowance.take_at(ann, now), "row 31");
        assert!(!allowance.take_at(ann, now) && !allowance.take_at(ann, now + Duration::from_secs(59)));
        assert!(allowance.take_at(bob, now), "one client does not lock out the others");
        assert!(allowance.take_at(ann, now + Duration::from_secs(61)));
        assert_eq!(allowance.seconds(), 60);
    }

    #[test]
    fn memory_is_bounded_and_a_flood_of_addresses_is_refused() {
        let allowance = Allowance::new(1, 1, Duration::from_secs(60));
        let now = Instant::now();
        let passed = (0..MOST as u32 + 100).filter(|n| allowance.take_at(IpAddr::V4((*n).into()), now)).count();
        assert_eq!(passed, MOST);
        assert!(allowance.take_at([10, 0, 0, 1].into(), now + Duration::from_secs(61)), "and forgotten in time");
    }
}
