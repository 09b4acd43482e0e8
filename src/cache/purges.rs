//! Purges reach every gateway: through a channel of Redis at once, and through a list there when a gateway was away.
//!
//! Applications may publish to the channel as well: `PUBLISH goma-edge:cache:v1:purge '{"tag": "shoes"}'`, with one of `all`,
//! `url`, `prefix`, `tag`, `route`, and `soft`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use super::entry::Subject;
use super::freshness::now;
use super::shared::PREFIX;
use super::wire::Notice;
use super::zone::{Purge, WeakZones, Zones};
use crate::redis::{News, Redis, cmd, pipe};

/// The purges of late.
pub struct Purges {
    /// Names this gateway.
    own: String,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    purges: VecDeque<(u64, Purge)>,
    /// Everything that was asked for before counts as purged.
    floor: u64,
}

/// Purges that are remembered. What is older than all of them counts as purged.
const REMEMBERED: usize = 1024;
/// Clocks of gateways may differ by this much, in milliseconds.
const SKEW: u64 = 1000;

impl Default for Purges {
    fn default() -> Self {
        Purges { own: format!("{:016x}", rand::random::<u64>()), log: Mutex::default() }
    }
}

impl Purges {
    /// Whether something that was asked for then has been purged since.
    pub fn covers(&self, subject: &Subject, route: &str, sent: u64) -> bool {
        let log = self.lock();
        let about = |purge: &Purge| purge.route.as_ref().is_none_or(|of| of == route) && purge.what.is_about(subject);
        sent <= log.floor || log.purges.iter().any(|(at, purge)| sent <= at + SKEW && about(purge))
    }

    /// Remembers a purge. `false`: it is known.
    fn remember(&self, at: u64, purge: &Purge) -> bool {
        let mut log = self.lock();
        if at <= log.floor || log.purges.iter().any(|known| known.0 == at && known.1 == *purge) {
            return false;
        }
        log.purges.push_back((at, purge.clone()));
        if log.purges.len() > REMEMBERED
            && let Some((at, _)) = log.purges.pop_front()
        {
            log.floor = log.floor.max(at);
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the other gateways of a purge.
    pub fn tell(&self, redis: &Redis, handle: &Handle, purge: &Purge) {
        let at = now();
        self.remember(at, purge);
        let (redis, notice) = (redis.clone(), Notice::of(purge, at, &self.own).write());
        handle.spawn(async move {
            let mut told = record(at, &notice);
            told.cmd("PUBLISH").arg(format!("{PREFIX}purge")).arg(&notice[..]).ignore();
            if let Err(error) = redis.pipeline::<()>(&told).await {
                log::warn!("A purge of the HTTP cache did not reach the other gateways: {error}");
            }
        });
    }
}

/// Puts a purge in the list.
fn record(at: u64, notice: &[u8]) -> crate::redis::Pipeline {
    let list = format!("{PREFIX}purges");
    let mut commands = pipe();
    commands.cmd("ZADD").arg(&list).arg(at).arg(notice).ignore();
    commands.cmd("ZREMRANGEBYRANK").arg(&list).arg(0).arg(-1 - i64::try_from(REMEMBERED).unwrap_or(i64::MAX)).ignore();
    commands.cmd("EXPIRE").arg(&list).arg(7 * 24 * 3600).ignore();
    commands
}

/// Follows the channel for as long as the caches are there.
pub fn follow(zones: WeakZones, purges: Arc<Purges>, redis: Redis, handle: &Handle) {
    let mut news = redis.subscribe(vec![format!("{PREFIX}purge")]);
    handle.spawn(async move {
        while let Some(news) = news.next().await {
            let Some(zones) = zones.upgrade() else { return };
            match news {
                News::Message { payload, .. } => heard(&zones, &purges, &redis, &payload),
                News::Joined => catch_up(&zones, &purges, &redis).await,
                News::Lost => {}
            }
        }
    });
}

fn heard(zones: &Zones, purges: &Purges, redis: &Redis, payload: &[u8]) {
    let Some((notice, purge)) = Notice::read(payload).and_then(|notice| Some((notice.clone(), notice.purge()?))) else {
        log::warn!("What was published as a purge of the HTTP cache is none");
        return;
    };
    if notice.from.as_deref() == Some(&purges.own) {
        return;
    }
    let at = notice.at.unwrap_or_else(now);
    if purges.remember(at, &purge) {
        zones.purge_here(&purge);
    }
    // An application does not keep the list: whoever hears it does.
    if notice.at.is_none() {
        let (redis, notice) = (redis.clone(), Notice::of(&purge, at, &purges.own).write());
        tokio::spawn(async move {
            let _ = redis.pipeline::<()>(&record(at, &notice)).await;
        });
    }
}

/// What was purged while this gateway did not listen.
async fn catch_up(zones: &Zones, purges: &Purges, redis: &Redis) {
    // The client of the calls may find Redis a little later than that of the channel.
    for _ in 0..100 {
        if redis.is_up() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let list = cmd("ZRANGE").arg(format!("{PREFIX}purges")).arg(0).arg(-1).to_owned();
    let Ok(notices) = redis.call::<Vec<Vec<u8>>>(&list).await else { return };
    for notice in notices.iter().filter_map(|bytes| Notice::read(bytes)) {
        if let (Some(purge), Some(at)) = (notice.purge(), notice.at)
            && purges.remember(at, &purge)
        {
            zones.purge_here(&purge);
        }
    }
}
