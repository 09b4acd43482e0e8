//! Limits that have a bucket in common in Redis and are not the same: each counts what the others let pass.
//!
//! Goma's names do not say which limit a bucket belongs to (spec middlewares W-17), so that a limit of 10 a minute on one route
//! is used up by requests of a route with 1,000. That is kept, for gateways that run side by side, and said.

use std::collections::HashMap;

use super::RateLimit;
use crate::config::{Middleware as Definition, Problem};
use crate::middleware::Settings;

/// A warning at each definition that shares buckets with an earlier one of other size.
pub(in crate::middleware) fn at_odds(definitions: &[Definition]) -> Vec<Problem> {
    let mut first: HashMap<String, (&str, (String, i64, i64))> = HashMap::new();
    let mut odd = Vec::new();
    for definition in definitions.iter().filter(|definition| RateLimit::KIND.contains(&definition.kind.as_str())) {
        // One that cannot be read is an error elsewhere.
        let Ok((limit, _)) = definition.rule.decode::<RateLimit>(RateLimit::GUARDS) else { continue };
        let Some(bucket) = limit.bucket(!definition.paths.is_empty()) else { continue };
        let size = limit.size();
        match first.get(&bucket) {
            None => drop(first.insert(bucket, (&definition.name, size))),
            Some((_, same)) if *same == size => {}
            Some((name, _)) => odd.push(definition.at.child("rule").warning(
                format!(
                    "counts in Redis what `{name}`, another limit, lets pass: their buckets have one name, as in Goma"
                ),
                "set `scope: middleware`",
            )),
        }
    }
    odd
}
