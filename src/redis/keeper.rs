//! The task that connects to Redis, notices when it is gone, and brings it back.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Receiver;
use tokio::time::{sleep, timeout};

use super::link::{self, Link};
use super::pause::Pause;
use super::{Failure, Live, Settings, Shared};

/// How often a connection in use is asked whether it is still there.
const ASK: Duration = Duration::from_secs(5);
/// Later than this after the start, others may already rely on what is in the database.
const FLUSH_WITHIN: Duration = Duration::from_secs(30);

/// Keeps Redis in use as long as somebody has a handle.
pub async fn keep(shared: Weak<Shared>, mut troubles: Receiver<Failure>, mut flush: bool) {
    let Some(settings) = shared.upgrade().map(|shared| shared.settings.clone()) else { return };
    let mut state = State { name: settings.to_string(), down: None, started: Instant::now() };
    let mut pause = Pause::new();
    let mut kept = None;
    loop {
        sleep(pause.next()).await;
        let attempt = attempt(&settings, kept.take()).await;
        let Some(alive) = shared.upgrade() else { return };
        let link = match attempt {
            Ok(link) => link,
            Err(why) => {
                state.down(&alive, &why);
                continue;
            }
        };
        if std::mem::take(&mut flush) && !flushed(&settings, link.clone(), &state).await {
            flush = true;
            continue;
        }
        pause.connected();
        state.up(&alive);
        alive.live.store(Some(Arc::new(Live { link: link.clone(), given_up: AtomicBool::new(false) })));
        drop(alive);
        let Some(failure) = trouble(&shared, &settings, &mut troubles, &link).await else { return };
        let Some(alive) = shared.upgrade() else { return };
        state.down(&alive, &failure.to_string());
        // It may only have been slow once.
        kept = matches!(failure, Failure::Slow(_)).then_some(link);
    }
}

/// A connection on which a PING was answered in time: the one there was, or a new one.
async fn attempt(settings: &Settings, kept: Option<Link>) -> Result<Link, String> {
    if let Some(mut link) = kept
        && asked(&mut link, settings.timeout).await.is_ok()
    {
        return Ok(link);
    }
    let connected = timeout(settings.connect_timeout, link::connect(settings)).await;
    let mut link = connected.unwrap_or_else(|_| Err(format!("no connection within {:?}", settings.connect_timeout)))?;
    asked(&mut link, settings.timeout).await.map_err(|failure| failure.to_string())?;
    Ok(link)
}

async fn asked(link: &mut Link, limit: Duration) -> Result<(), Failure> {
    match timeout(limit, ::redis::cmd("PING").query_async::<()>(link)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::of(&error)),
        Err(_) => Err(Failure::Slow(limit)),
    }
}

/// Waits until the connection does not work any more; nothing when nobody needs it.
async fn trouble(
    shared: &Weak<Shared>,
    settings: &Settings,
    troubles: &mut Receiver<Failure>,
    link: &Link,
) -> Option<Failure> {
    loop {
        let quiet = match timeout(ASK, troubles.recv()).await {
            Ok(failure) => return failure,
            Err(_) => link.clone(),
        };
        let patience = settings.timeout.max(settings.connect_timeout);
        if let Err(failure) = asked(&mut quiet.clone(), patience).await {
            let alive = shared.upgrade()?;
            if let Some(live) = alive.live.load_full() {
                alive.give_up(&live, failure);
            }
        }
    }
}

/// Empties the database, as `flushOnStartup` asks.
async fn flushed(settings: &Settings, mut link: Link, state: &State) -> bool {
    if state.started.elapsed() > FLUSH_WITHIN {
        log::warn!("Redis at {} came too late for flushOnStartup: its database stays as it is", state.name);
        return true;
    }
    let flush = timeout(settings.connect_timeout, ::redis::cmd("FLUSHDB").query_async::<()>(&mut link)).await;
    match flush {
        Ok(Ok(())) => log::info!("The database in Redis at {} was emptied, as flushOnStartup asks", state.name),
        Ok(Err(error)) => log::warn!("Redis at {} refuses flushOnStartup: {error}", state.name),
        Err(_) => return false,
    }
    true
}

/// What was last told.
struct State {
    name: String,
    /// Since when it is down, once that was told.
    down: Option<Instant>,
    started: Instant,
}

impl State {
    fn down(&mut self, shared: &Shared, why: &str) {
        if self.down.is_none() {
            self.down = Some(Instant::now());
            shared.meters.up.set(0);
            shared.meters.changes.with_label_values(&["down"]).inc();
            log::warn!("Redis at {} is not in use: {why}", self.name);
        }
    }

    fn up(&mut self, shared: &Shared) {
        shared.meters.up.set(1);
        shared.meters.changes.with_label_values(&["up"]).inc();
        match self.down.take() {
            Some(since) => log::warn!("Redis at {} is in use again after {:.1?}", self.name, since.elapsed()),
            None => log::info!("Redis at {} is in use", self.name),
        }
    }
}
