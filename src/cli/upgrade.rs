//! `goma upgrade`: the running process is replaced by the program that stands in its place on disk by now.

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use goma_edge::server::control::{self, Line, Tally, Told};

use super::say;

/// Options of `upgrade`.
#[derive(clap::Args)]
pub struct Options {
    /// The process to replace; else the one that serves on this machine.
    #[arg(long)]
    pid: Option<u32>,
    /// Do not wait until the old process has drained.
    #[arg(long)]
    no_wait: bool,
}

/// Asks for it, and says what comes of it. Exit code 1 when the old process serves on.
pub fn run(options: &Options) -> Result<ExitCode> {
    let old = match options.pid {
        Some(pid) => pid,
        None => the_one(&find().context("looking for the gateway")?)?,
    };
    let mut line = Line::ask(old, "upgrade").with_context(|| format!("process {old} cannot be asked"))?;
    let (mut new, mut counted) = (None, false);
    while let Some(told) = line.hear().with_context(|| format!("process {old}"))? {
        match told {
            Told::Starting { program } => say(&format!("{old}: starting {program}\n")),
            Told::Refused { why } => bail!("{old} serves on: {why}"),
            Told::Ready { pid, version, took_ms, grace_s } => {
                new = Some(pid);
                let took = took_ms as f64 / 1000.0;
                say(&format!(
                    "{pid}: version {version} serves, after {took:.2} s; {old} drains, {grace_s} s at most\n"
                ));
                if options.no_wait {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            Told::Tally(tally) => {
                counted = true;
                say(&format!("{old}: {}\n", of_the_old(&tally)));
            }
        }
    }
    let Some(new) = new else { bail!("{old} has ended without an answer") };
    // It may have been replaced in turn by now.
    if let Ok(Some(Told::Tally(tally))) = ask_the_new(new).and_then(|mut line| line.hear()) {
        say(&format!("{new}: {}\n", of_the_new(&tally)));
    }
    if !counted {
        bail!("{old} has ended without its figures");
    }
    Ok(ExitCode::SUCCESS)
}

/// Gateways that serve. Between the one that is being replaced and the next there is a moment with none.
fn find() -> io::Result<Vec<u32>> {
    soon(control::running, |found| matches!(found, Ok(found) if found.is_empty()))
}

/// A new process can be asked a moment after the old one has nothing left to do.
fn ask_the_new(pid: u32) -> io::Result<Line> {
    let refused =
        |line: &io::Result<Line>| line.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    soon(|| Line::ask(pid, "tally"), refused)
}

/// Tries again for a second while it is `too_early`.
fn soon<T>(attempt: impl Fn() -> T, too_early: impl Fn(&T) -> bool) -> T {
    let until = Instant::now() + Duration::from_secs(1);
    loop {
        let outcome = attempt();
        if !too_early(&outcome) || Instant::now() > until {
            return outcome;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn the_one(running: &[u32]) -> Result<u32> {
    match running {
        [] => bail!("no gateway serves here; one in a container is asked in there"),
        [one] => Ok(*one),
        several => {
            let list: Vec<String> = several.iter().map(u32::to_string).collect();
            bail!("several gateways serve here ({}): name one with --pid", list.join(", "))
        }
    }
}

/// What a process that is over has done. What it had not finished then is lost, but for streams that had to be cut some day.
fn of_the_old(tally: &Tally) -> String {
    let cut = match tally.streams {
        0 => String::new(),
        cut => format!(", {cut} streams cut at the deadline"),
    };
    format!("{} requests begun, {} finished, {} lost{cut}", tally.begun, tally.finished, tally.running())
}

fn of_the_new(tally: &Tally) -> String {
    let Tally { begun, finished, streams } = tally;
    format!("{begun} requests begun, {finished} finished, 0 lost, {} running, {streams} streams", tally.running())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_one_is_meant() {
        assert_eq!(the_one(&[7]).expect("one"), 7);
        assert!(the_one(&[]).expect_err("none").to_string().contains("no gateway"));
        assert!(the_one(&[7, 8]).expect_err("two").to_string().contains("7, 8"));
    }

    #[test]
    fn a_receipt_tells_lost_requests_from_streams() {
        let tally = Tally { begun: 10, finished: 7, streams: 2 };
        assert_eq!(of_the_old(&tally), "10 requests begun, 7 finished, 1 lost, 2 streams cut at the deadline");
        assert_eq!(of_the_new(&tally), "10 requests begun, 7 finished, 0 lost, 1 running, 2 streams");
    }
}
