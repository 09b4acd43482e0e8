//! The duty of process number 1, in a container: orphans become its children, and stay zombies until it has asked for their ends.
//!
//! Started children of ours are not taken away from anybody: number 1 starts none, as it cannot be replaced.

use rustix::process::{WaitOptions, wait};
use tokio::signal::unix::{SignalKind, signal};

/// Takes the ends of orphans, for ever, if this process is number 1.
pub async fn orphans() {
    if std::process::id() != 1 {
        return std::future::pending().await;
    }
    let mut children = match signal(SignalKind::child()) {
        Ok(children) => children,
        Err(error) => {
            log::error!(error:% = error; "Cannot hear of orphans that end");
            return std::future::pending().await;
        }
    };
    loop {
        while let Ok(Some((pid, _))) = wait(WaitOptions::NOHANG) {
            log::debug!(pid = pid.as_raw_nonzero().get(); "An orphan has ended");
        }
        if children.recv().await.is_none() {
            return std::future::pending().await;
        }
    }
}
