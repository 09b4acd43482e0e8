//! goma-edge: an edge proxy and API gateway on Pingora that runs Goma Gateway configuration unchanged.
//!
//! Three forms of one thing, never mixed: [`config`] (what the operator wrote: plain data) → [`snapshot`] (compiled, valid,
//! immutable, swapped whole) → [`exchange`] (the facts of one request).
//!
//! | module | what it does |
//! |---|---|
//! | [`server`] | assembles the process: configuration, entry points, signals, reload, drain, upgrade, service manager |
//! | [`entry`] | accepts connections, ends TLS, keep-alive and deadlines; hands requests to its `App`; knows no routes |
//! | [`tls`] | certificates by server name, certificates of clients, resumption, stapling |
//! | [`proxy`] | Pingora's phases: the life of a request, forward, reply, record; `door` leads the usual request without a body past Pingora's `HttpProxy`, `direct` to its backend |
//! | [`snapshot`] | compiles a configuration; the only place where names are looked up |
//! | [`explain`] | `config explain`: walks a request through the real functions and tells, instead of sending it |
//! | [`route`] | the table: a path tree with hosts at each node; also rewriting. Knows neither Pingora nor what it routes to |
//! | [`middleware`] | the trait, the chain, `KINDS` (one line a kind), one file each |
//! | [`limit`] | buckets, refusals and bans: in memory and in Redis, without HTTP |
//! | [`upstream`] | backends, balancing, health, resolution, retry, Pingora's peer, connections of our own |
//! | [`cache`] | stored responses: storage and arithmetic, without HTTP phases |
//! | [`telemetry`] | metrics in one table, log, access log |
//! | [`redis`] | one Redis client for all: TLS, Sentinel, Cluster, time-outs, a breaker, channels |
//! | [`outbound`] | one pooled HTTP client for calls beside the data path |
//! | [`provider`] | where dynamic configuration comes from: watched files |
//! | [`admin`] | bodies of health, readiness and reload |
//! | [`config`] | the Goma document as plain types: load, expansion, secrets, legacy keys, lenient scalars |
//! | [`geoip`] | which country an address is in: a database that is read again when its file changes |
//! | [`crypto`], [`exchange`], [`reply`], [`gate`], [`trust`], [`fields`] | leaves: the provider of cryptography, facts, replies, the framing gate and the canonical path, who the client is, cookies and query |
//!
//! The command line is `main.rs` with one file a command under `cli/`.
//!
//! Imports go one way: `main → {server, explain} → {entry, provider, proxy, admin} → snapshot → {route, middleware → cache, upstream,
//! tls, telemetry} → leaves`. Siblings do not import each other. Pingora's `Session` stays in `proxy` and `entry`.

pub mod admin;
pub mod cache;
pub mod config;
pub mod crypto;
pub mod entry;
pub mod exchange;
pub mod explain;
pub mod fields;
pub mod gate;
pub mod geoip;
pub mod limit;
pub mod middleware;
pub mod outbound;
pub mod provider;
pub mod proxy;
pub mod redis;
pub mod reply;
pub mod route;
pub mod server;
pub mod snapshot;
pub mod telemetry;
pub mod tls;
pub mod trust;
pub mod upstream;
