//! The world that the stories play in: a scripted origin, the real `goma` binary, and clients.
//!
//! ```ignore
//! let origin = Origin::start().await;
//! let gateway = Gateway::before(&origin).routes("- {name: api, path: /api, rewrite: /, target: ORIGIN}").await;
//! let reply = gateway.get("/api/users/1?x=1").await;
//! assert_eq!(reply.status, 200);
//! assert_eq!(origin.last().target, "/users/1?x=1");
//! ```
//!
//! Everything is on loopback, every test has its own gateway process, ports are found when needed, and every
//! wait has an end: [`eventually`] waits for a condition, a read waits [`PATIENCE`] at most.

#![allow(dead_code, unused_imports, reason = "it has more to offer than the stories of one day use")]

mod answer;
mod browser;
mod builder;
mod cli;
mod client;
mod echo;
mod events;
mod frames;
mod gateway;
mod http2;
mod load;
mod load2;
mod mmdb;
mod ocsp;
mod openid;
mod origin;
mod origin2;
mod place;
mod redis;
mod several;
mod slapd;
mod tls;
mod tls_client;
pub mod tokens;
mod upgrade;
mod websocket;
mod wire;

use std::time::{Duration, Instant};

pub use answer::{Answer, Piece};
pub use browser::{Browser, Kept, Page, parameter};
pub use builder::{Builder, document};
pub use cli::{Output, goma, goma_in};
pub use client::{Connection, Reply, Request};
pub use events::Events;
pub use frames::{Fields, Outcome, exchange};
pub use gateway::{Applied, Gateway, Reloads};
pub use http2::{Call, Http2, next};
pub use load::{Load, Tally};
pub use load2::Load2;
pub use mmdb::mmdb;
pub use ocsp::{Responder, s_client};
pub use openid::OpenId;
pub use origin::{Origin, Seen};
pub use origin2::Origin2;
pub use place::{free_port, listen};
pub use redis::{Cluster, Redis, Sentinels};
pub use several::{all_but_one_refused, before, requests, statuses, two};
pub use slapd::Slapd;
pub use tls::{Authority, Hello, Identity, TlsFront};
pub use tls_client::{Shaken, TlsClient, Tunnel};
pub use websocket::{Frame, WebSocket};
pub use wire::{Headers, Left, Pattern, Wire};

/// The longest that anything here waits for a byte, an exit or a condition.
///
/// A test never needs it: it only turns a hang into a failure.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until a number stands still, and returns it: for what only ends by being held back.
pub async fn settled(mut number: impl FnMut() -> u64) -> u64 {
    let (mut last, mut since) = (number(), Instant::now());
    while since.elapsed() < Duration::from_millis(400) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = number();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

/// Waits until the condition holds and returns what it found.
///
/// # Panics
/// When it does not hold within [`PATIENCE`].
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
