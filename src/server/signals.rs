//! Signals: SIGHUP reads the configuration again, SIGUSR2 has the process replaced by the program on disk, SIGTERM and SIGINT
//! stop it, SIGQUIT is said no to.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::points::Closed;

/// The signals of the process; installed before anything is served, since their default action would end it.
pub struct Signals {
    hangup: Option<Signal>,
    quit: Option<Signal>,
    upgrade: Option<Signal>,
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// To read the configuration again.
    Reload,
    /// Nothing that is done here.
    Quit,
    /// To be replaced.
    Upgrade,
    /// To stop.
    Stop,
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

    /// What is asked next.
    pub async fn next(&mut self) -> Heard {
        tokio::select! {
            () = next(&mut self.hangup) => Heard::Reload,
            () = next(&mut self.quit) => Heard::Quit,
            () = next(&mut self.upgrade) => Heard::Upgrade,
            () = next(&mut self.terminate) => Heard::Stop,
            () = next(&mut self.interrupt) => Heard::Stop,
        }
    }

    /// Waits, unless a SIGINT says that there is no time.
    pub async fn sleep_unless_hurried(&mut self, delay: Duration) {
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = next(&mut self.interrupt) => {}
        }
    }

    /// Waits for the last connection, at most `grace`, and not at all after a SIGINT. A SIGTERM leaves `shorter`.
    pub async fn drained(&mut self, points: &Closed, grace: Duration, shorter: Duration) {
        let mut until = Instant::now() + grace;
        loop {
            tokio::select! {
                () = points.none_left() => return log::info!("Stopped; every connection ended by itself"),
                () = tokio::time::sleep_until(until) => {
                    let open = points.open();
                    return log::warn!(connections = open; "Stopped; the grace period is over, open connections are cut");
                }
                () = next(&mut self.interrupt) => return log::warn!(connections = points.open(); "Stopped at once"),
                () = next(&mut self.terminate) => until = until.min(Instant::now() + shorter),
            }
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
