//! What the operator wrote, as plain data.
//!
//! [`load()`] reads the main file, the files beside it and the environment, and gives a [`Config`] or everything that is
//! wrong at once. On the way, in this order:
//!
//! | step | in |
//! |---|---|
//! | variables and functions in the text | [`expand`] |
//! | text → tree with lines | `parse`, [`node`] |
//! | older keys → today's | `legacy` |
//! | encrypted values opened | [`secret`] |
//! | tree → types, as laxly as Goma | `lenient` |
//! | environment variables over the file | `env` |
//! | extra files, then the file provider's, appended | [`load`](mod@load) |
//! | rules that hold across settings | `check`, `unsupported` |
//!
//! Goma's keys keep their spelling in the file; the types here carry our words. What a middleware's `rule` means is not
//! known here: its kind decodes it with [`Rule::decode`].

mod balancing;
mod certs;
mod check;
mod check_upstream;
mod document;
mod endpoint;
mod env;
pub mod expand;
mod fault;
mod folder;
mod gateway;
mod legacy;
mod lenient;
pub mod load;
mod material;
mod middleware;
mod moment;
mod monitoring;
mod nearest;
mod networking;
pub mod node;
mod parse;
mod place;
mod problem;
mod provider;
mod reader;
mod replies;
mod resilience;
mod route;
pub mod sample;
mod scalar;
pub mod secret;
#[cfg(test)]
mod testing;
pub mod units;
mod unsupported;

pub use balancing::{ALGORITHMS, HASH_SOURCES, HashOn, LoadBalancer, SAME_SITE, SECURE, Sticky};
pub use certs::{Acme, CertManager, CertProvider, CertificatePair, ClientAuth, Credentials, Tls, Vault};
pub use check_upstream::HEDGED;
pub use document::{Config, Loaded, Plugins, Source, Watch, Watched};
pub use endpoint::{SCHEMES, check_url, listen_address};
pub use expand::Env;
pub use gateway::{
    CacheEndpoint, Defaults, EntryPoint, EntryPoints, Forward, Gateway, GeoIp, Limits, PassThrough, Proxy, Redis,
    RedisTls, Reload, Sentinel, Shutdown, Timeouts, Upgrade, Workers,
};
pub use load::{DEFAULT_FILE, Examined, examine, load};
pub use material::{file as material_file, material};
pub use middleware::{Middleware, Rule};
pub use monitoring::{Analytics, Format, Guards, Level, Log, Monitoring};
pub use nearest::nearest;
pub use networking::{DnsCache, Transport};
pub use place::Place;
pub use problem::{Problem, Report, Severity};
pub use provider::{Directory, FileProvider, GitAuth, GitProvider, HttpProvider, Providers};
pub use replies::{Cors, ErrorInterceptor, InterceptedError};
pub use resilience::{Budget, CircuitBreaker, Hedge, HedgeBudget, Outlier, Queue, Retry, RouteTimeouts};
pub use route::{Backend, BackendTls, HealthCheck, Maintenance, Match, OPERATORS, Route, RouteTls, SOURCES, Security};
pub use secret::Secret;
