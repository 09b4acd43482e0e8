//! Limits how often a client may ask, and keeps out for a while who does not mind.
//!
//! A bucket of `requestsPerUnit` and `burst` tokens that fills steadily over a `unit`. Without Redis each route has buckets of its
//! own for each client, in bounded memory, and they survive a reload that leaves the limit as it is. With Redis
//! (`gateway.redis`) all gateways share them under Goma's names, one round trip a request and none for a bucket that is known to be
//! empty; while Redis gives no answer the limit goes on here. `mode: leased` borrows tokens in advance, so that most requests cost
//! no round trip. Spec middlewares §5.10.
//!
//! ```yaml
//! - name: per-client
//!   type: rateLimit
//!   rule: { unit: minute, requestsPerUnit: 120, burst: 30 }
//! ```

mod key;
pub(super) mod neighbours;
mod settings;
mod step;
mod told;

use std::sync::Arc;

pub use settings::{KeyStrategy, RateLimit};

use super::{Part, Scope, Settings};
use crate::config::Problem;
use crate::limit::shared::Shared;
use crate::limit::strikes::Bans;
use key::Key;
use settings::Mode;
use step::{Meters, Step};
use told::Told;

impl Settings for RateLimit {
    const KIND: &'static [&'static str] = &["rateLimit", "ratelimit"];
    const GUARDS: bool = true;
    const EXAMPLE: &'static str = include_str!("../../../conf/examples/middlewares/rateLimit.yml");

    fn doubts(&self, scope: &Scope<'_>) -> Vec<Problem> {
        self.doubtful(scope)
    }

    fn claim(&self) -> Option<&str> {
        self.claim_name()
    }

    fn build(self, scope: &Scope<'_>) -> Result<Part, Vec<Problem>> {
        let read = self.read(scope)?;
        let tools = scope.tools;
        let bans = Bans { after: read.ban_after, lasts: u64::try_from(read.ban.as_nanos()).unwrap_or(u64::MAX) };
        let shared = match (&tools.redis, read.mode) {
            (Some(redis), Mode::Exact | Mode::Leased) => Some(Shared::new(redis.clone(), &read.quota, &bans)),
            _ => None,
        };
        let key = Key::new(&read, scope);
        // Whose settings change gets new buckets; all others find theirs again.
        let seed = tools.limits.key((&key.whose, read.quota, bans, key.prefix, scope.name, scope.nth));
        Ok(Part::Step(Arc::new(Step {
            paths: (!scope.paths.is_empty()).then(|| super::Paths::of(scope)),
            key,
            seed,
            quota: read.quota,
            bans,
            lease: if read.mode == Mode::Leased { read.quota.lease() } else { 0 },
            on_failure: read.on_failure,
            always_told: read.always_told,
            told: Told::new(scope.name, &read.quota),
            limits: tools.limits.clone(),
            shared: shared.map(Arc::new),
            handle: tools.handle.clone(),
            meters: Meters::new(&tools.metrics, scope.name),
        })))
    }
}
