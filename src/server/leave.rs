//! The last words of the process: who takes over, and a receipt of what became of its requests.

use std::time::Duration;

use super::control::{Caller, Tally, Told};
use super::life::End;
use super::upgrade::Successor;

/// What is given at the very end.
pub struct Receipt {
    caller: Option<Caller>,
    /// It knows by its line to us that this process is there; so the line is open until the end.
    successor: Option<Box<Successor>>,
}

/// Says who serves from now on.
pub async fn announce(end: End, grace: Duration) -> Receipt {
    let End::Replaced(successor, mut caller) = end else { return Receipt { caller: None, successor: None } };
    log::info!(
        successor = successor.pid, version = successor.version.as_str(), took:? = successor.took, grace:? = grace;
        "Replaced; draining"
    );
    if let Some(caller) = &mut caller {
        let told = Told::Ready {
            pid: successor.pid,
            version: successor.version.clone(),
            took_ms: u64::try_from(successor.took.as_millis()).unwrap_or(u64::MAX),
            grace_s: grace.as_secs(),
        };
        caller.tell(&told).await;
    }
    Receipt { caller, successor: Some(successor) }
}

impl Receipt {
    /// Gives it.
    pub async fn give(self, tally: Tally) {
        let Tally { begun, finished, streams } = tally;
        let level = if tally.running() > 0 { log::Level::Error } else { log::Level::Info };
        log::log!(
            level, begun = begun, finished = finished, lost = tally.running(), streams = streams;
            "Requests of this process"
        );
        if let Some(mut caller) = self.caller {
            caller.tell(&Told::Tally(tally)).await;
        }
        drop(self.successor);
    }
}
