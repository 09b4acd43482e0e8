//! Who of the backends that may take a request takes it.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use rand::Rng;

use super::{Available, Mode, Tried, Upstream, takes_part};
use crate::upstream::matching::Facts;
use crate::upstream::settings::{Algorithm, HashKey};

impl Upstream {
    /// The choice for a request that was not tried anywhere yet.
    pub(super) fn first_choice(
        &self,
        facts: &dyn Facts,
        turn: usize,
        available: &Available,
        may: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let usable = |i: usize| available.usable[i] && may(i);
        if self.cookie.is_some() {
            let taken = self.mode == Mode::Canary && self.exclusive(facts, usable).is_some();
            if let Some(index) = (!taken).then(|| self.kept(facts, usable)).flatten() {
                return Some(index);
            }
        }
        if self.mode == Mode::Canary || self.balance.algorithm != Algorithm::Goma {
            return self.choose(facts, turn, usable);
        }
        let index = self.ready_choice(turn, available)?;
        // Refusals are rare, and bounded or watched backends have them only.
        if may(index) { Some(index) } else { self.choose(facts, turn, usable) }
    }

    /// By weight or turn, from what is kept ready.
    fn ready_choice(&self, turn: usize, available: &Available) -> Option<usize> {
        let place = match (self.mode, available.sums.last()) {
            (Mode::Weighted, sum) => {
                let point = rand::rng().random_range(0..*sum?);
                available.sums.partition_point(|sum| *sum <= point)
            }
            _ => turn % non_zero(available.indexes.len())?,
        };
        available.indexes.get(place).copied()
    }

    /// The choice among the `eligible`, who are up.
    pub(super) fn choose(&self, facts: &dyn Facts, turn: usize, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        if self.mode == Mode::Canary {
            let exclusive = self.exclusive(facts, &eligible);
            return exclusive.or_else(|| self.select(facts, turn, |i| eligible(i) && self.in_pool(i, facts)));
        }
        self.select(facts, turn, |i| eligible(i) && takes_part(&self.backends[i], self.mode))
    }

    /// The backend that the client's cookie names, if it may take the request.
    pub(super) fn kept(&self, facts: &dyn Facts, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        let cookie = self.cookie.as_ref()?;
        let index = cookie.backend(facts.cookie(cookie.name())?)?;
        let may = match self.mode {
            Mode::Canary => self.in_pool(index, facts),
            mode => takes_part(&self.backends[index], mode),
        };
        (may && eligible(index)).then_some(index)
    }

    /// The exclusive backend of the highest priority whose rules hold; the first of equals.
    pub(super) fn exclusive(&self, facts: &dyn Facts, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        let mut best: Option<(usize, i64)> = None;
        for (index, backend) in self.backends.iter().enumerate() {
            let better = best.is_none_or(|(_, priority)| backend.priority > priority);
            if backend.exclusive && backend.is_canary() && better && eligible(index) && backend.allows(facts) {
                best = Some((index, backend.priority));
            }
        }
        best.map(|(index, _)| index)
    }

    /// Stable backends, and canaries that share with them and whose rules hold.
    pub(super) fn in_pool(&self, index: usize, facts: &dyn Facts) -> bool {
        let backend = &self.backends[index];
        !backend.is_canary() || (!backend.exclusive && backend.allows(facts))
    }

    fn select(&self, facts: &dyn Facts, turn: usize, member: impl Fn(usize) -> bool) -> Option<usize> {
        match &self.balance.algorithm {
            Algorithm::Goma if self.mode == Mode::RoundRobin => self.in_turn(turn, member),
            Algorithm::Goma | Algorithm::Random => self.draw(member),
            Algorithm::RoundRobin => self.in_turn(turn, member),
            Algorithm::LeastRequests => self.less_busy(member),
            Algorithm::ConsistentHash(key) => self.hashed(key, facts, member),
        }
    }

    /// A random member, by weight; all are equal when none has a weight.
    ///
    /// One pass: each member replaces the choice so far with the probability that is its share of the sum so far.
    fn draw(&self, member: impl Fn(usize) -> bool) -> Option<usize> {
        let mut rng = rand::rng();
        let (mut sum, mut count) = (0_u64, 0_u64);
        let (mut by_weight, mut of_equals) = (None, None);
        for index in (0..self.backends.len()).filter(|index| member(*index)) {
            let weight = u64::from(self.backends[index].weight);
            sum += weight;
            count += 1;
            if weight > 0 && rng.random_range(0..sum) < weight {
                by_weight = Some(index);
            }
            if sum == 0 && rng.random_range(0..count) == 0 {
                of_equals = Some(index);
            }
        }
        by_weight.or(of_equals)
    }

    /// The member whose turn it is. Of unequal weights the turns are scattered, and exact over as many requests as their sum.
    fn in_turn(&self, turn: usize, member: impl Fn(usize) -> bool) -> Option<usize> {
        let members = || (0..self.backends.len()).filter(|index| member(*index));
        let weight = |index: usize| u64::from(self.backends[index].weight);
        let sum: u64 = members().map(weight).sum();
        let turn = turn as u64;
        if sum == 0 {
            let count = non_zero(members().count())?;
            return members().nth((turn % count as u64) as usize);
        }
        let mut point = scattered(turn % sum, sum);
        members().find(|index| match point.checked_sub(weight(*index)) {
            Some(rest) => {
                point = rest;
                false
            }
            None => true,
        })
    }

    /// Of two different random members the one with fewer requests in flight for its weight.
    fn less_busy(&self, member: impl Fn(usize) -> bool) -> Option<usize> {
        let one = self.draw(&member)?;
        let Some(other) = self.draw(|index| index != one && member(index)) else { return Some(one) };
        let load = |index: usize, weight_of: usize| {
            let weight = u64::from(self.backends[weight_of].weight.max(1));
            (self.backends[index].in_flight() as u64 + 1).saturating_mul(weight)
        };
        // A member without weight is drawn only where no other is left with one.
        let lighter = self.backends[other].weight == 0 && self.backends[one].weight > 0;
        Some(if !lighter && load(other, one) < load(one, other) { other } else { one })
    }

    fn hashed(&self, key: &HashKey, facts: &dyn Facts, member: impl Fn(usize) -> bool) -> Option<usize> {
        let ring = self.ring.as_ref()?;
        let text = match key {
            HashKey::Address => None,
            HashKey::Header(name) => facts.header(name),
            HashKey::Cookie(name) => facts.cookie(name),
        };
        let found = match (text.filter(|text| !text.is_empty()), facts.ip().to_canonical()) {
            (Some(text), _) => ring.find(text.as_bytes(), &member),
            (None, IpAddr::V4(ip)) => ring.find(&ip.octets(), &member),
            (None, IpAddr::V6(ip)) => ring.find(&ip.octets(), &member),
        };
        // Nobody on the ring: a pool of canaries without weights among others with some.
        found.or_else(|| self.draw(member))
    }

    /// The turn of a request. Only its first attempt takes one: else, of two backends, a request that fails at the one and goes
    /// on to the other would leave the next request to the first one again. Where it goes on to is chance, so that what one
    /// backend fails is not all left to its neighbour. The first request of a route takes the second
    /// backend, as in Goma.
    pub(super) fn turn(&self, tried: &Tried) -> usize {
        match (self.takes_turns, tried.is_empty()) {
            (true, true) => self.turn.fetch_add(1, Ordering::Relaxed).wrapping_add(1),
            (true, false) => rand::rng().random_range(0..usize::MAX),
            (false, _) => 0,
        }
    }
}

/// A permutation of the turns below `sum` that sets neighbours far apart: steps of about the golden ratio.
fn scattered(turn: u64, sum: u64) -> u64 {
    let mut step = (sum as f64 * 0.618_034) as u64;
    while step < sum && gcd(step, sum) != 1 {
        step += 1;
    }
    (u128::from(turn) * u128::from(step) % u128::from(sum)) as u64
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn non_zero(count: usize) -> Option<usize> {
    (count > 0).then_some(count)
}
