//! Signals: SIGHUP reads the configuration again, SIGTERM and SIGINT stop, SIGQUIT and SIGUSR2 are said no to.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::process::Process;
use crate::entry::Count;

/// Serves signals until one of them says stop.
pub async fn until_told_to_stop(process: &Arc<Process>) {
    let mut hangup = on(SignalKind::hangup());
    let mut quit = on(SignalKind::quit());
    let mut upgrade = on(SignalKind::user_defined2());
    let mut terminate = on(SignalKind::terminate());
    let mut interrupt = on(SignalKind::interrupt());
    loop {
        tokio::select! {
            () = next(&mut hangup) => {
                log::info!("SIGHUP: reading the configuration");
                // What went wrong was logged.
                let _ = process.reload().await;
            }
            () = next(&mut quit) => log::warn!("SIGQUIT is ignored; use SIGTERM to stop"),
            () = next(&mut upgrade) => log::warn!("SIGUSR2 is ignored: upgrades are not supported yet"),
            () = next(&mut terminate) => return,
            () = next(&mut interrupt) => return,
        }
    }
}

/// Waits, unless a second signal says that there is no time.
pub async fn sleep_unless_hurried(delay: Duration) {
    if delay.is_zero() {
        return;
    }
    let mut interrupt = on(SignalKind::interrupt());
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        () = next(&mut interrupt) => {}
    }
}

/// Waits for the last connection, at most `grace`.
pub async fn drained(count: &Count, grace: Duration) {
    let mut interrupt = on(SignalKind::interrupt());
    tokio::select! {
        () = count.none_left() => log::info!("Stopped; every connection ended by itself"),
        () = tokio::time::sleep(grace) => {
            log::warn!(connections = count.open(); "Stopped; the grace period is over, open connections are cut");
        }
        () = next(&mut interrupt) => log::warn!(connections = count.open(); "Stopped at once"),
    }
}

fn on(kind: SignalKind) -> Option<Signal> {
    signal(kind).inspect_err(|error| log::error!("Cannot listen to signal {}: {error}", kind.as_raw_value())).ok()
}

async fn next(signal: &mut Option<Signal>) {
    let received = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if received.is_none() {
        std::future::pending().await
    }
}
