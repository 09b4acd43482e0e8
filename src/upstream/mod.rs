//! Backends: which one takes a request, whether it is alive, where it is, how to connect to it.
//!
//! [`Registry`] lives as long as the process. A configuration is compiled into one [`Upstream`] a route; what
//! costs time or holds state (connections, addresses, health, counters) is shared by identity and so survives a
//! reload. A request asks [`Upstream::pick`] for a backend and [`Backend::peer`] for Pingora's description of the
//! connection; [`retry::decide`] says what happens when that failed.
//!
//! | file | holds |
//! |---|---|
//! | `settings` | what the configuration says, as plain data |
//! | `endpoint` | the text of an endpoint, parsed once |
//! | `matching` | canary rules and the facts of a request that they look at |
//! | `registry` | what is shared, by identity |
//! | `origin` | one address with its TLS identity: counters and the choice of an address |
//! | `backend` | one entry of a route's list: origin, base path, weight, rules |
//! | `balance`, `ring`, `sticky` | the choice of a backend: by algorithm, by hash, by cookie |
//! | `health`, `probe` | the state of a check, and its HTTP request |
//! | `names`, `lookup` | names to addresses, kept fresh in the background |
//! | `peer`, `dial`, `tls` | Pingora's peer, its TCP connection, its certificates |
//! | `direct` | HTTP/1 without Pingora in between, for exchanges without a request body |
//! | `deadline` | the limits on the wait for a response |
//! | `retry`, `budget` | another attempt, or not |
//! | `balance/hedge` | another attempt before the first one has failed |
//! | `guard`, `breaker`, `slots`, `cause` | what the requests themselves tell of a backend |

mod backend;
mod balance;
mod breaker;
mod budget;
mod cause;
pub mod deadline;
mod dial;
pub mod direct;
mod endpoint;
mod guard;
mod health;
mod lookup;
mod matching;
mod names;
mod origin;
mod peer;
mod probe;
mod registry;
pub mod retry;
mod ring;
mod settings;
mod slots;
mod sticky;
#[cfg(test)]
mod testing;
mod tls;

pub use backend::{Backend, Outcome};
pub use balance::{Hedge, Leads, NoBackend, NoHedge, Pick, Tried, Upstream};
pub use breaker::{BreakerSettings, BreakerState};
pub use budget::Grant;
pub use cause::{Cause, On};
pub use endpoint::Scheme;
pub use guard::{Change, GuardSettings, OutlierSettings, Witness};
pub use lookup::{DnsSettings, resolver_address};
pub use matching::{Facts, Match};
pub use names::Unresolved;
pub use peer::PeerKind;
pub use registry::Registry;
pub use settings::{
    Algorithm, BackendSettings, Balance, ClientCertificate, HashKey, HealthSettings, Secure, SettingError, Settings,
    Sticky, Tls, Transport, most_kept,
};
pub use slots::{Queue, Waiting};
