//! The second tier: what gateways share in Redis, behind the memory of each.
//!
//! Keys, all of one URL in one slot of a Cluster:
//!
//! | key | holds |
//! |---|---|
//! | `goma-edge:cache:v1:ZONE:{KEY}` | names of the headers that select among the variants |
//! | `goma-edge:cache:v1:ZONE:{KEY}:VARIANT` | meta data, written last; a small body follows it |
//! | `goma-edge:cache:v1:ZONE:{KEY}:VARIANT:N:I` | chunk I of a larger body |
//!
//! They expire when the response may not be used any more. A request waits for Redis only for a moment, and not at all while
//! it is out of use; writing happens beside the requests, by a few at once, and what finds no place is not written.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::entry::{BLOCK, Body, Entry};
use super::freshness::now;
use super::purges::Purges;
use super::vary::Selecting;
use super::wire::Meta;
use crate::redis::{Redis, cmd, pipe};

/// What one cache keeps in Redis.
pub struct Shared {
    redis: Redis,
    handle: Handle,
    prefix: String,
    route: String,
    purges: Arc<Purges>,
    places: Arc<Semaphore>,
}

/// What Redis is asked with: the request's headers, to know the variant.
#[derive(Clone)]
pub struct Asking(pub Arc<HeaderMap>);

/// Beginning of every key of ours.
pub const PREFIX: &str = "goma-edge:cache:v1:";
/// The longest that a request waits for one answer of Redis.
const PATIENCE: Duration = Duration::from_millis(50);
/// The longest that it waits for a large body.
const LONGEST: Duration = Duration::from_millis(500);
/// Bodies up to this stand behind their meta data.
const INLINE: usize = 64 * 1024;
/// Responses that are written at once.
const WRITERS: usize = 16;

impl Shared {
    /// What the cache of a definition on a route keeps there.
    pub fn new(redis: &Redis, handle: &Handle, name: &str, route: &str, purges: Arc<Purges>) -> Shared {
        let mut zone = super::key::Digest::new();
        zone.part(name.as_bytes());
        zone.part(route.as_bytes());
        Shared {
            redis: redis.within(PATIENCE),
            handle: handle.clone(),
            prefix: format!("{PREFIX}{:016x}", (zone.finish() >> 64) as u64),
            route: route.to_owned(),
            purges,
            places: Arc::new(Semaphore::new(WRITERS)),
        }
    }

    fn url_key(&self, key: u128) -> String {
        format!("{}:{{{key:032x}}}", self.prefix)
    }

    /// The entry for a request, if it is there and fresh.
    pub async fn fetch(&self, key: u128, request: &HeaderMap) -> Option<Entry> {
        if !self.redis.is_up() {
            return None;
        }
        tokio::time::timeout(LONGEST, self.read(key, request)).await.ok()?
    }

    async fn read(&self, key: u128, request: &HeaderMap) -> Option<Entry> {
        let url = self.url_key(key);
        let mut both = pipe();
        both.cmd("GET").arg(&url).cmd("GET").arg(format!("{url}:0"));
        let (names, plain): (Option<String>, Option<Vec<u8>>) = self.redis.pipeline(&both).await.ok()?;
        let vary = HeaderMap::from_iter([(header::VARY, HeaderValue::from_str(&names?).ok()?)]);
        let selecting = Selecting::of(&vary, &[])?;
        let variant = selecting.variant(request);
        let found = match variant {
            0 => plain,
            _ => self.redis.call(cmd("GET").arg(format!("{url}:{variant:x}"))).await.ok()?,
        };
        let (meta, inline) = Meta::read(&Bytes::from(found?))?;
        let body = match meta.chunks {
            0 => Body::of(&[inline]),
            chunks => self.chunks(&format!("{url}:{variant:x}:{chunks:x}"), meta.length).await?,
        };
        let purged = self.purges.covers(&meta.subject(), &self.route, meta.sent);
        meta.entry(body, variant, Arc::new(selecting)).filter(|entry| !purged && entry.terms.fresh_until > now())
    }

    async fn chunks(&self, base: &str, length: usize) -> Option<Body> {
        let mut pieces = Vec::new();
        for chunk in 0..length.div_ceil(BLOCK) {
            let piece: Option<Vec<u8>> = self.redis.call(cmd("GET").arg(format!("{base}:{chunk}"))).await.ok()?;
            pieces.push(Bytes::from(piece?));
        }
        Some(Body::of(&pieces))
    }

    /// Writes an entry, beside everything else.
    pub fn save(self: &Arc<Self>, key: u128, entry: Arc<Entry>, sent: u64) {
        let left = entry.left(now());
        if left < 1000 || entry.terms.no_cache || !self.redis.is_up() {
            return;
        }
        let Ok(place) = self.places.clone().try_acquire_owned() else { return };
        let shared = self.clone();
        self.handle.spawn(async move {
            if shared.write(key, &entry, sent, left).await.is_none() {
                log::debug!(route = shared.route.as_str(); "A response was not written to Redis");
            }
            drop(place);
        });
    }

    async fn write(&self, key: u128, entry: &Entry, sent: u64, left: u64) -> Option<()> {
        let url = self.url_key(key);
        let own = format!("{url}:{:x}", entry.variant);
        let redis = self.redis.within(Duration::from_secs(2));
        let mut generation = 0;
        if entry.body.len() > INLINE {
            generation = rand::random::<u64>().max(1);
            for (number, block) in entry.body.blocks().iter().enumerate() {
                // They go a little later than what names them.
                let mut set = cmd("SET");
                set.arg(format!("{own}:{generation:x}:{number}")).arg(&block[..]).arg("PX").arg(left + 5000);
                redis.call::<()>(&set).await.ok()?;
            }
        }
        let inline = if generation == 0 { entry.body.blocks() } else { &[] };
        let names: Vec<&str> = entry.selecting.names().iter().map(http::HeaderName::as_str).collect();
        let mut last = pipe();
        last.cmd("SET").arg(&own).arg(Meta::of(entry, sent, generation).write(inline)).arg("PX").arg(left).ignore();
        last.cmd("SET").arg(&url).arg(names.join(",")).arg("PX").arg(left + 5000).ignore();
        redis.pipeline::<()>(&last).await.ok()
    }

    /// Forgets a URL, beside everything else.
    pub fn forget(self: &Arc<Self>, key: u128) {
        let shared = self.clone();
        self.handle.spawn(async move {
            let _ = shared.redis.call::<()>(cmd("DEL").arg(shared.url_key(key))).await;
        });
    }
}
