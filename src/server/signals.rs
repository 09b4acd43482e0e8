//! Signals: SIGHUP reads the configuration again, SIGTERM and SIGINT stop, SIGQUIT and SIGUSR2 are said no to.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::points::Points;
use super::process::Process;

/// The signals of the process; installed before anything is served, since their default action would end it.
pub struct Signals {
    hangup: Option<Signal>,
    quit: Option<Signal>,
    upgrade: Option<Signal>,
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
}

impl Signals {
    /// From here on the process hears its signals.
    pub fn install() -> Signals {
        Signals {
            hangup: on(SignalKind::hangup()),
            quit: on(SignalKind::quit()),
            upgrade: on(SignalKind::user_defined2()),
            terminate: on(SignalKind::terminate()),
            interrupt: on(SignalKind::interrupt()),
        }
    }

    /// Serves signals until one of them says stop. A reload under way does not hold that up.
    pub async fn until_told_to_stop(&mut self, process: &Arc<Process>) {
        loop {
            tokio::select! {
                () = next(&mut self.hangup) => {
                    log::info!("SIGHUP: reading the configuration");
                    let process = process.clone();
                    // What went wrong is logged there.
                    tokio::spawn(async move { process.reload().await });
                }
                () = next(&mut self.quit) => log::warn!("SIGQUIT is ignored; use SIGTERM to stop"),
                () = next(&mut self.upgrade) => log::warn!("SIGUSR2 is ignored: upgrades are not supported yet"),
                () = next(&mut self.terminate) => return,
                () = next(&mut self.interrupt) => return,
            }
        }
    }

    /// Waits, unless a SIGINT says that there is no time.
    pub async fn sleep_unless_hurried(&mut self, delay: Duration) {
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = next(&mut self.interrupt) => {}
        }
    }

    /// Waits for the last connection, at most `grace`, and not at all after a SIGINT.
    pub async fn drained(&mut self, points: &Points, grace: Duration) {
        tokio::select! {
            () = points.none_left() => log::info!("Stopped; every connection ended by itself"),
            () = tokio::time::sleep(grace) => {
                log::warn!(connections = points.open(); "Stopped; the grace period is over, open connections are cut");
            }
            () = next(&mut self.interrupt) => log::warn!(connections = points.open(); "Stopped at once"),
        }
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
