//! The keys of ours about the backends of a route, in the terms of `upstream`. What does not hold was reported when the
//! configuration was checked; a word that is unknown stands for the default here.

use std::fmt::Write;
use std::time::Duration;

use crate::config::{self, CircuitBreaker, LoadBalancer, Outlier, Retry, Route};
use crate::upstream::retry::Policy;
use crate::upstream::{
    Algorithm, Balance, BreakerSettings, Grant, GuardSettings, HashKey, Hedge, On, OutlierSettings, Queue, Secure,
    Sticky,
};

/// How the requests of a route are shared.
pub fn balance(route: &Route, bounded: bool) -> Balance {
    let ejected_percent = route.outlier.as_ref().map_or(0, |outlier| outlier.max_ejected_percent);
    let patient = bounded.then_some(PATIENT);
    let Some(balancer) = &route.load_balancer else {
        return Balance { ejected_percent, queue: patient, ..Balance::default() };
    };
    Balance {
        algorithm: algorithm(balancer),
        sticky: balancer.sticky.as_ref().map(sticky),
        panic_percent: balancer.panic_threshold,
        ejected_percent,
        queue: if balancer.max_in_flight > 0 { Some(queue(&balancer.queue)) } else { patient },
    }
}

/// Who waits for `maxConnsPerHost`: in Goma without end, here for as long as anybody would want to.
const PATIENT: Queue = Queue { size: 10_000, timeout: Duration::from_secs(60) };

/// A line of waiting requests.
fn queue(queue: &config::Queue) -> Queue {
    Queue { size: queue.size as usize, timeout: queue.timeout }
}

/// What is learned from the requests of a route about its backends.
pub fn guard(route: &Route) -> GuardSettings {
    let balancer = route.load_balancer.clone().unwrap_or_default();
    GuardSettings {
        outlier: route.outlier.as_ref().map(outlier),
        breaker: route.circuit_breaker.as_ref().map(breaker),
        slow_start: balancer.slow_start,
        max_in_flight: (balancer.max_in_flight > 0).then_some(balancer.max_in_flight as usize),
    }
}

fn outlier(outlier: &Outlier) -> OutlierSettings {
    let Outlier { failures, ejection, max_ejection, .. } = *outlier;
    OutlierSettings { failures, on: On::of(&outlier.on), ejection, max_ejection }
}

fn breaker(breaker: &CircuitBreaker) -> BreakerSettings {
    let CircuitBreaker { failure_percent, min_requests, window, open, probes, .. } = *breaker;
    BreakerSettings { failure_percent, min_requests, window, open, probes, on: On::of(&breaker.on) }
}

/// What a route tries again.
pub fn retry(route: &Route) -> Option<Policy> {
    let Retry { attempts, on, budget, per_try_timeout, backoff, methods } = route.retry.as_ref()?;
    Some(Policy {
        attempts: *attempts as usize,
        on: On::of(on),
        grant: Grant { percent: budget.percent, per_second: budget.per_second },
        per_try: *per_try_timeout,
        backoff: *backoff,
        methods: methods.clone(),
    })
}

/// When a route asks a second backend.
pub fn hedge(route: &Route) -> Option<Hedge> {
    let config::Hedge { after, max_extra, budget } = route.hedge.as_ref()?;
    let grant = Grant { percent: budget.percent, per_second: budget.per_second };
    Some(Hedge { after: *after, most: *max_extra, grant })
}

fn algorithm(balancer: &LoadBalancer) -> Algorithm {
    match balancer.algorithm.as_str() {
        "roundRobin" => Algorithm::RoundRobin,
        "random" => Algorithm::Random,
        "leastRequests" => Algorithm::LeastRequests,
        "consistentHash" => Algorithm::ConsistentHash(match balancer.hash.source.as_str() {
            "header" => HashKey::Header(balancer.hash.name.clone()),
            "cookie" => HashKey::Cookie(balancer.hash.name.clone()),
            _ => HashKey::Address,
        }),
        _ => Algorithm::Goma,
    }
}

fn sticky(sticky: &config::Sticky) -> Sticky {
    let mut attributes = format!("; Path={}", sticky.path);
    // Writing to a string does not fail.
    if !sticky.domain.is_empty() {
        let _ = write!(attributes, "; Domain={}", sticky.domain);
    }
    if !sticky.max_age.is_zero() {
        let _ = write!(attributes, "; Max-Age={}", sticky.max_age.as_secs().max(1));
    }
    attributes.push_str("; HttpOnly; SameSite=");
    attributes.push_str(match sticky.same_site.as_str() {
        "strict" => "Strict",
        "none" => "None",
        _ => "Lax",
    });
    Sticky {
        cookie: sticky.cookie.clone(),
        secret: Some(sticky.secret.as_bytes().to_vec()).filter(|secret| !secret.is_empty()),
        attributes,
        secure: match sticky.secure.as_str() {
            "always" => Secure::Always,
            "never" => Secure::Never,
            _ => Secure::Auto,
        },
    }
}
