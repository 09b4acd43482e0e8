//! Sets of addresses: single ones, CIDR blocks and ranges, of both families.
//!
//! Compiled to sorted ranges that do not touch, so that a look-up is one binary search however long the list is. An
//! IPv4-mapped IPv6 address is the IPv4 address, in the list as well as in the look-up. Spec middlewares §5.2, W-35.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// A set of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

/// First and last address of an entry, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    first: IpAddr,
    last: IpAddr,
}

impl Range {
    /// Reads an entry: `192.0.2.7`, `192.0.2.0/24` (bits behind the prefix do not matter), `192.0.2.7-192.0.3.9`, or the
    /// same with IPv6 addresses.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(entry: &str) -> Result<Range, &'static str> {
        let entry = entry.trim();
        if let Some((first, last)) = entry.split_once('-') {
            return Range::between(address(first)?, address(last)?);
        }
        match entry.contains('/') {
            true => entry.parse().map(block).map_err(|_| "is no CIDR block"),
            false => address(entry).map(|one| Range { first: one, last: one }),
        }
    }

    fn between(first: IpAddr, last: IpAddr) -> Result<Range, &'static str> {
        match (first.is_ipv4() == last.is_ipv4(), first <= last) {
            (false, _) => Err("mixes IPv4 and IPv6"),
            (true, false) => Err("ends before it begins"),
            (true, true) => Ok(Range { first, last }),
        }
    }
}

fn address(text: &str) -> Result<IpAddr, &'static str> {
    text.trim().parse::<IpAddr>().map(|address| address.to_canonical()).map_err(|_| "is no IP address")
}

/// A block of mapped addresses is one of IPv4; one that is wider than all mapped ones stays IPv6.
fn block(net: IpNet) -> Range {
    let (first, last) = (net.network(), net.broadcast());
    let (v4_first, v4_last) = (first.to_canonical(), last.to_canonical());
    match v4_first.is_ipv4() && v4_last.is_ipv4() {
        true => Range { first: v4_first, last: v4_last },
        false => Range { first, last },
    }
}

impl Ranges {
    /// Whether an address is in the set. O(log n), allocates nothing.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => within(&self.v4, u32::from(address)),
            IpAddr::V6(address) => within(&self.v6, u128::from(address)),
        }
    }
}

impl FromIterator<Range> for Ranges {
    fn from_iter<I: IntoIterator<Item = Range>>(entries: I) -> Ranges {
        let mut ranges = Ranges::default();
        for Range { first, last } in entries {
            match (first, last) {
                (IpAddr::V4(first), IpAddr::V4(last)) => ranges.v4.push((number(first), number(last))),
                (first, last) => ranges.v6.push((number6(first), number6(last))),
            }
        }
        ranges.v4 = joined(ranges.v4, |end| end.checked_add(1));
        ranges.v6 = joined(ranges.v6, |end| end.checked_add(1));
        ranges
    }
}

fn number(address: Ipv4Addr) -> u32 {
    address.into()
}

fn number6(address: IpAddr) -> u128 {
    let address: Ipv6Addr = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    address.into()
}

fn within<N: Ord + Copy>(ranges: &[(N, N)], number: N) -> bool {
    let behind = ranges.partition_point(|(first, _)| *first <= number);
    behind.checked_sub(1).is_some_and(|index| number <= ranges[index].1)
}

/// Sorts ranges, and makes one of those that overlap or touch.
fn joined<N: Ord + Copy>(mut ranges: Vec<(N, N)>, next: impl Fn(N) -> Option<N>) -> Vec<(N, N)> {
    ranges.sort_unstable();
    let mut joined: Vec<(N, N)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, end)) if next(*end).is_none_or(|next| first <= next) => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    joined.shrink_to_fit();
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(entries: &[&str]) -> Ranges {
        entries.iter().map(|entry| Range::parse(entry).expect("valid")).collect()
    }

    #[test]
    fn entries_hold_the_addresses_between_their_ends() {
        for (about, entries, inside, outside) in [
            ("one address", &["192.0.2.7"][..], &["192.0.2.7"][..], &["192.0.2.6", "192.0.2.8", "::7"][..]),
            ("a block", &["10.0.0.0/8"], &["10.0.0.0", "10.255.255.255"], &["9.255.255.255", "11.0.0.0"]),
            ("a block with host bits", &["192.0.2.77/24"], &["192.0.2.0", "192.0.2.255"], &["192.0.3.0"]),
            (
                "a range over an octet",
                &["192.168.1.250-192.168.2.10"],
                &["192.168.1.255", "192.168.2.0"],
                &["192.168.2.11"],
            ),
            ("blanks", &[" 192.0.2.1 - 192.0.2.3 "], &["192.0.2.2"], &["192.0.2.4"]),
            ("everything", &["0.0.0.0/0"], &["0.0.0.0", "255.255.255.255"], &["::1"]),
            ("IPv6 in another spelling", &["2001:DB8:0:0::1"], &["2001:db8::1"], &["2001:db8::2"]),
            ("an IPv6 block", &["2001:db8::/32"], &["2001:db8:ffff::"], &["2001:db9::", "32.1.13.184"]),
            ("an IPv6 range", &["2001:db8::f-2001:db8::1:0"], &["2001:db8::10"], &["2001:db8::e", "2001:db8::1:1"]),
            ("all of IPv6", &["::/0"], &["::", "ffff::"], &["10.0.0.1"]),
            ("mapped in the list", &["::ffff:10.0.0.0/104"], &["10.200.0.1"], &["11.0.0.1"]),
            ("mapped in the request", &["10.0.0.0/8"], &["::ffff:10.0.0.1"], &["::ffff:11.0.0.1"]),
            (
                "overlapping",
                &["10.0.0.0/9", "10.64.0.0/10", "10.128.0.0/9"],
                &["10.0.0.1", "10.200.0.1"],
                &["11.0.0.0"],
            ),
        ] {
            let ranges = ranges(entries);
            let contains = |address: &&str| ranges.contains(address.parse().expect("an address"));
            assert!(inside.iter().all(contains), "{about}");
            assert!(!outside.iter().any(contains), "{about}");
        }
    }

    #[test]
    fn ranges_that_touch_become_one() {
        assert_eq!(ranges(&["10.0.0.128/25", "10.0.0.0/25", "10.0.0.7"]).v4, [(0x0a00_0000, 0x0a00_00ff)]);
        assert_eq!(ranges(&["255.255.255.0/24", "255.255.255.255"]).v4, [(0xffff_ff00, u32::MAX)]);
    }

    #[test]
    fn entries_that_mean_nothing_are_errors() {
        for (entry, message) in [
            ("", "is no IP address"),
            ("10.0.0", "is no IP address"),
            ("10.0.0.256", "is no IP address"),
            ("localhost", "is no IP address"),
            ("fe80::1%eth0", "is no IP address"),
            ("10.0.0.0/33", "is no CIDR block"),
            ("10.0.0.0/255.0.0.0", "is no CIDR block"),
            ("10.0.0.9-10.0.0.1", "ends before it begins"),
            ("10.0.0.1-::1", "mixes IPv4 and IPv6"),
            ("10.0.0.1-9", "is no IP address"),
        ] {
            assert_eq!(Range::parse(entry), Err(message), "{entry}");
        }
    }

    #[test]
    fn a_look_up_in_a_hundred_thousand_entries_takes_as_long_as_in_a_few() {
        let entries = |count: u32| -> Ranges {
            let entry = |i: u32| Range::parse(&format!("{}/31", Ipv4Addr::from(i * 40_000))).expect("valid");
            (0..count).map(entry).collect()
        };
        let (few, many) = (entries(10), entries(100_000));
        assert_eq!(many.v4.len(), 100_000);
        let took = |ranges: &Ranges| {
            let start = std::time::Instant::now();
            let hits =
                (0..100_000u32).filter(|i| ranges.contains(Ipv4Addr::from(i.wrapping_mul(2_654_435_761)).into()));
            std::hint::black_box(hits.count());
            start.elapsed()
        };
        let fastest = |ranges: &Ranges| (0..5).map(|_| took(ranges)).min().expect("five runs");
        // log₂ says five times as many steps; a list would take ten thousand times as long.
        assert!(fastest(&many) < fastest(&few) * 50, "{:?} against {:?}", fastest(&many), fastest(&few));
    }
}
