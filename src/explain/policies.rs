//! What a route says about failing backends, in sentences.

use std::time::Duration;

use crate::config::{HEDGED, Route};

/// One sentence for each key of ours that the route has; `repeats`: a request of this method may be sent again.
pub fn sentences(route: &Route, method: &str, repeats: bool) -> Vec<String> {
    let mut told = Vec::new();
    let limits = &route.timeouts;
    let limit = |name: &str, limit: Option<Duration>| limit.map(|limit| format!("{name} {limit:?}"));
    let limits: Vec<String> = [
        limit("connect", limits.connect),
        limit("response head", limits.response_header),
        limit("silence", limits.idle),
        limit("in all", limits.total),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !limits.is_empty() {
        told.push(format!("time limits: {}", limits.join(", ")));
    }
    if let Some(retry) = &route.retry {
        told.push(match repeats {
            true => format!("up to {} attempts, after {}", retry.attempts, retry.on.join(", ")),
            false => format!("{method} is not repeated, but up to {} attempts to connect are made", retry.attempts),
        });
    }
    if let Some(hedge) = &route.hedge {
        let budget = &hedge.budget;
        told.push(match HEDGED.contains(&method) {
            true => format!(
                "when a backend gives no head within {:?}, another one is asked as well (up to {} more; for {} % of the requests and {} a second), if there is no body",
                hedge.after, hedge.max_extra, budget.percent, budget.per_second
            ),
            false => format!("{method} never goes to two backends at a time"),
        });
    }
    if let Some(outlier) = &route.outlier {
        told.push(format!(
            "a backend is left out for {:?} after {} failures in a row",
            outlier.ejection, outlier.failures
        ));
    }
    if let Some(breaker) = &route.circuit_breaker {
        told.push(format!(
            "a backend gets nothing for {:?} when {} % of at least {} requests fail",
            breaker.open, breaker.failure_percent, breaker.min_requests
        ));
    }
    if let Some(balancer) = route.load_balancer.as_ref().filter(|balancer| balancer.max_in_flight > 0) {
        told.push(format!(
            "at most {} requests at a time at a backend, {} more wait up to {:?}",
            balancer.max_in_flight, balancer.queue.size, balancer.queue.timeout
        ));
    }
    told
}
