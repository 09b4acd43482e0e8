//! A gateway whose program can be swapped: it is started by a link in its folder, and whatever that leads to is the next one.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::cli::{self, Output};
use super::gateway::Gateway;
use super::{eventually, goma};

/// The name of that link.
pub const PROGRAM: &str = "goma";

impl Gateway {
    /// Runs `goma upgrade` for the process that serves. If it succeeds, the new one is the gateway's process from then on.
    pub async fn upgrade(&self) -> Output {
        self.upgrade_with(&[]).await
    }

    /// The same with further arguments.
    pub async fn upgrade_with(&self, more: &[&str]) -> Output {
        let pid = self.pid().to_string();
        let output = goma(&[&["upgrade", "--pid", &pid], more].concat()).await;
        if let Some(pid) = successor(&output.stdout) {
            self.is_now(pid);
        }
        output
    }

    /// Puts a shell script in the place of the program.
    pub fn program_is(&self, script: &str) {
        let new = self.file("new");
        fs::write(&new, format!("#!/bin/sh\n{script}\n")).expect("a writable folder");
        fs::set_permissions(&new, PermissionsExt::from_mode(0o755)).expect("ours");
        fs::rename(new, self.file(PROGRAM)).expect("a writable folder");
    }

    /// Puts the real program there again, as another file.
    pub fn program_is_real(&self) {
        link(self.config_dir());
    }

    /// Waits until this process is gone, whoever started it.
    pub async fn ends(&self, pid: u32) {
        let gone = async || {
            self.exited();
            // One that has ended and was not asked for its exit code yet is gone, too.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            (stat.is_empty() || stat.contains(") Z ")).then_some(())
        };
        eventually(&format!("process {pid} ends"), gone).await;
    }
}

/// `PID: version … serves`
fn successor(text: &str) -> Option<u32> {
    let line = text.lines().find(|line| line.contains(" serves, "))?;
    line.split(':').next()?.parse().ok()
}

/// Makes the link that the gateway is started by.
pub(super) fn link(folder: &Path) {
    let new = folder.join("new");
    // For a run with an optimised one.
    let program = std::env::var("GOMA_TEST_PROGRAM").unwrap_or_else(|_| cli::PROGRAM.to_owned());
    symlink(program, &new).expect("a writable folder");
    fs::rename(new, folder.join(PROGRAM)).expect("a writable folder");
}

/// Ends every process that was started in this folder.
pub(super) fn end_all(folder: &Path) {
    let Ok(folder) = folder.canonicalize() else { return };
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if fs::read_link(process.path().join("cwd")).is_ok_and(|at| at == folder)
            && let Some(pid) = process.file_name().to_str()
        {
            let _ = std::process::Command::new("sh").args(["-c", &format!("kill -KILL {pid} 2>/dev/null")]).status();
        }
    }
}
