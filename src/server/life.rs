//! What the process does between its first request and its end: it hears signals and callers until it is to stop, or until another
//! process has taken its place.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use super::channel::{Channel, Thing};
use super::control::{Caller, Told};
use super::notify::Notify;
use super::process::Process;
use super::signals::{Heard, Signals};
use super::upgrade::{Attempt, Estate, Failure, Program, Successor};
use crate::telemetry::metrics::Upgraded;

/// Why the process ends.
pub enum End {
    /// It was told to.
    Stop,
    /// Another one serves in its place. Whoever asked for that hears the figures.
    Replaced(Box<Successor>, Option<Caller>),
}

/// What it takes to live.
pub struct Life {
    /// The configuration in force.
    pub process: Arc<Process>,
    /// The service manager.
    pub notify: Arc<Notify>,
    /// What a successor is started from.
    pub program: io::Result<Program>,
    /// Lines to generations that may still drain.
    pub elders: Vec<Arc<Channel>>,
    /// Where callers come in.
    pub callers: mpsc::Receiver<Caller>,
    /// What stands behind `STATUS=`.
    pub status: String,
}

/// An attempt under way.
struct Running {
    attempt: Attempt,
    outcome: JoinHandle<Result<Successor, Failure>>,
    caller: Option<Caller>,
}

impl Life {
    /// Serves signals and callers. A reload under way does not hold anything up; an attempt to be replaced ends when the process is
    /// told to stop.
    pub async fn live(&mut self, signals: &mut Signals, estate: impl Fn() -> io::Result<Estate>) -> End {
        let mut running: Option<Running> = None;
        loop {
            let asked = tokio::select! {
                heard = signals.next() => match heard {
                    Heard::Reload => {
                        log::info!("SIGHUP: reading the configuration");
                        self.reload();
                        continue;
                    }
                    Heard::Quit => {
                        log::warn!("SIGQUIT is ignored; use SIGTERM to stop");
                        continue;
                    }
                    Heard::Upgrade => None,
                    Heard::Stop => {
                        let Some(running) = running else { return End::Stop };
                        running.attempt.give_up();
                        match running.outcome.await.unwrap_or_else(lost_thread) {
                            // Too late to be given up: the sockets are another process's, too.
                            Ok(successor) => return End::Replaced(Box::new(successor), running.caller),
                            Err(failure) => refuse(running.caller, &failure).await,
                        }
                        return End::Stop;
                    }
                },
                Some(caller) = self.callers.recv() => Some(caller),
                outcome = outcome(&mut running) => {
                    let caller = running.take().and_then(|running| running.caller);
                    match outcome {
                        Ok(successor) => return End::Replaced(Box::new(successor), caller),
                        Err(failure) => {
                            self.process.metrics().upgraded(Upgraded::Failed);
                            log::error!("The upgrade failed, this process serves on: {failure}");
                            refuse(caller, &failure).await;
                        }
                    }
                    continue;
                }
            };
            match self.begin(running.is_some(), &estate) {
                Ok((attempt, outcome)) => {
                    let mut caller = asked;
                    if let (Some(caller), Ok(program)) = (&mut caller, &self.program) {
                        caller.tell(&Told::Starting { program: program.path().display().to_string() }).await;
                    }
                    running = Some(Running { attempt, outcome, caller });
                }
                Err(failure) => {
                    self.process.metrics().upgraded(Upgraded::Refused);
                    log::error!("No upgrade: {failure}");
                    refuse(asked, &failure).await;
                }
            }
        }
    }

    fn reload(&self) {
        let (process, notify, status) = (self.process.clone(), self.notify.clone(), self.status.clone());
        tokio::spawn(async move {
            notify.reloading();
            // What went wrong is logged there.
            let _ = process.reload().await;
            notify.ready(&status);
        });
    }

    fn begin(
        &mut self,
        running: bool,
        estate: &impl Fn() -> io::Result<Estate>,
    ) -> Result<(Attempt, JoinHandle<Result<Successor, Failure>>), Failure> {
        if running {
            return Err("another upgrade is under way".to_owned().into());
        }
        if std::process::id() == 1 {
            let why = "this process is number 1 of its container, which ends with it; roll a new image out instead";
            return Err(why.to_owned().into());
        }
        self.elders.retain(|line| !line.is_over());
        if self.elders.len() >= MOST_ELDERS {
            let why = format!("{MOST_ELDERS} older processes still drain; try again when one of them has ended");
            return Err(why.into());
        }
        let program = self.program.as_ref().map_err(|error| format!("the program is not known: {error}"))?.clone();
        let cannot = |error: io::Error| Failure::from(format!("the sockets cannot be handed over: {error}"));
        let mut estate = estate().map_err(cannot)?;
        for elder in &self.elders {
            let line = std::os::fd::AsFd::as_fd(&**elder).try_clone_to_owned().map_err(cannot)?;
            estate.push((Thing::Elder, line));
        }
        match secrets(&self.process) {
            Ok(pipe) => estate.push((Thing::Tickets, pipe)),
            Err(error) => log::warn!(error:% = error; "Sessions of TLS will not be resumed after the upgrade"),
        }
        let limit = self.process.config().gateway.upgrade.timeout;
        log::info!(program:% = program.path().display(); "Starting a successor");
        let (attempt, notify) = (Attempt::default(), self.notify.clone());
        let tried = attempt.clone();
        let outcome = spawn_blocking(move || tried.run(&program, &estate, limit, &notify));
        Ok((attempt, outcome))
    }
}

/// The secrets of session tickets, in a pipe: memory of the kernel's that is gone once it was read, or once both ends are closed.
fn secrets(process: &Process) -> io::Result<OwnedFd> {
    let (reading, mut writing) = io::pipe()?;
    writing.write_all(&process.certificates().tickets().export())?;
    Ok(reading.into())
}

/// Generations that may drain at a time, this one not counted.
const MOST_ELDERS: usize = 4;

async fn outcome(running: &mut Option<Running>) -> Result<Successor, Failure> {
    match running {
        Some(running) => (&mut running.outcome).await.unwrap_or_else(lost_thread),
        None => std::future::pending().await,
    }
}

fn lost_thread(error: tokio::task::JoinError) -> Result<Successor, Failure> {
    Err(format!("the upgrade ended by a mistake of ours: {error}").into())
}

async fn refuse(caller: Option<Caller>, failure: &Failure) {
    if let Some(mut caller) = caller {
        caller.tell(&Told::Refused { why: failure.to_string() }).await;
    }
}
