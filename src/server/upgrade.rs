//! A newer program takes the place of the running one: starting it, handing the sockets over, and deciding what came of it.
//!
//! The program is started from where this one was started, with the same arguments and environment, so that whatever stands there
//! by now counts. Nothing changes for clients until it says that it could serve ([`super::channel`]); if it crashes, refuses its
//! configuration or is too late, it is ended and this process serves on, with the reason and the last lines of its standard
//! error. From the moment that both accept from the same sockets this process stops accepting, and drains.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::birth::{HANDOVER, OF_THE_FIRST};
use super::channel::{Channel, Thing, Word, unexpected};
use super::notify::Notify;

/// The program as it was started.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// Asked when the process starts: later the file may be another one.
    ///
    /// # Errors
    /// When the kernel does not say which file the process runs.
    pub fn of_process() -> io::Result<Program> {
        let real = std::env::current_exe()?;
        let mut arguments = std::env::args_os();
        let name = arguments.next().unwrap_or_default();
        let path = as_named(Path::new(&name), &real).unwrap_or(real);
        Ok(Program { path, arguments: arguments.collect() })
    }

    /// Where it stands.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The path by which the program was called, if it leads to the file that runs: where that is a link to the current version,
/// the link counts, not the version that it led to.
fn as_named(name: &Path, real: &Path) -> Option<PathBuf> {
    let candidates: Vec<PathBuf> = if name.components().count() > 1 {
        vec![std::env::current_dir().ok()?.join(name)]
    } else {
        std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(name)).collect()
    };
    candidates.into_iter().find(|path| path.is_absolute() && path.canonicalize().is_ok_and(|at| at == real))
}

/// One try to start a successor; clones are the same one.
#[derive(Clone, Default)]
pub struct Attempt(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    child: Option<u32>,
    given_up: bool,
}

/// The process that took over.
pub struct Successor {
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// From its start until it served.
    pub took: Duration,
    /// As long as this is open, it knows that we drain.
    _line: Channel,
}

/// Why there is no successor.
#[derive(Debug)]
pub struct Failure {
    /// In one sentence.
    pub why: String,
    /// The end of its standard error; may be empty.
    pub tail: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.why)?;
        self.tail.lines().try_for_each(|line| write!(out, "\n  | {line}"))
    }
}

impl From<String> for Failure {
    fn from(why: String) -> Failure {
        Failure { why, tail: String::new() }
    }
}

/// Descriptors for a successor.
pub type Estate = Vec<(Thing, OwnedFd)>;

impl Attempt {
    /// Gives the attempt up: the new process is killed. Once it may serve, it is too late for that.
    pub fn give_up(&self) {
        let mut state = self.state();
        state.given_up = true;
        if let Some(child) = state.child.and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            // It may be gone already.
            let _ = kill_process(child, Signal::KILL);
        }
    }

    /// Starts the program and hands everything over. Blocks until it serves, or will not.
    ///
    /// # Errors
    /// When this process has to serve on.
    pub fn run(
        &self,
        program: &Program,
        estate: &Estate,
        limit: Duration,
        notify: &Notify,
    ) -> Result<Successor, Failure> {
        let begun = Instant::now();
        let (line, theirs) = Channel::pair().map_err(|error| format!("no line to a new process: {error}"))?;
        let mut child = start(program, theirs).map_err(|error| format!("{}: {error}", program.path.display()))?;
        let heard = Tail::follow(child.stderr.take());
        self.note(Some(child.id()));
        let outcome = self.negotiate(&line, estate, begun + limit, limit, notify);
        match outcome {
            Ok((pid, version)) => {
                reap(child);
                Ok(Successor { pid, version, took: begun.elapsed(), _line: line })
            }
            Err(why) => {
                // Only now may its number become another process's.
                let status = end(&mut child, || self.note(None));
                let why = if self.state().given_up { "it was given up".to_owned() } else { why };
                Err(Failure { why: format!("{why} ({status})"), tail: heard.end() })
            }
        }
    }

    fn note(&self, child: Option<u32>) {
        self.state().child = child;
        if child.is_some() && self.state().given_up {
            self.give_up();
        }
    }

    /// The talk with the new process, as the table in [`super::channel`] has it; its process and version.
    fn negotiate(
        &self,
        line: &Channel,
        estate: &Estate,
        due: Instant,
        limit: Duration,
        notify: &Notify,
    ) -> Result<(u32, String), String> {
        let said = |error: io::Error| match error.kind() {
            io::ErrorKind::TimedOut => format!("the new process was not ready within {limit:?}"),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => GONE.to_owned(),
            _ => format!("the new process does not know how to take over: {error}"),
        };
        let hear = || {
            let left = due.saturating_duration_since(Instant::now());
            line.hear(left).map_err(said)?.ok_or_else(|| GONE.to_owned())
        };
        let (pid, version) = match hear()? {
            Word::Hello { pid, version } => (pid, version),
            word => return Err(said(unexpected(&word))),
        };
        let stderr = std::io::stderr();
        let mut things: Vec<(Thing, BorrowedFd<'_>)> =
            estate.iter().map(|(thing, fd)| (thing.clone(), fd.as_fd())).collect();
        things.push((Thing::Stderr, stderr.as_fd()));
        line.hand_over(&things).map_err(said)?;
        for (awaited, answer) in [(Word::Prepared, Word::Serve), (Word::Serving, Word::Main)] {
            match hear()? {
                word if word == awaited => {}
                word => return Err(said(unexpected(&word))),
            }
            if answer == Word::Main {
                notify.hands_over_to(pid);
            }
            if answer == Word::Serve {
                self.commit()?;
            }
            // A successor that dies after it served is no reason to serve on: it has our sockets, and clients.
            line.say(&answer).or_else(|error| if answer == Word::Main { Ok(()) } else { Err(said(error)) })?;
        }
        Ok((pid, version))
    }

    /// From here on the new process serves, or has failed to by itself.
    fn commit(&self) -> Result<(), String> {
        let mut state = self.state();
        state.child = None;
        if state.given_up { Err(GONE.to_owned()) } else { Ok(()) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start(program: &Program, line: OwnedFd) -> io::Result<Child> {
    let mut command = Command::new(&program.path);
    command.arg0(&program.path).args(&program.arguments).env(HANDOVER, "1");
    for name in OF_THE_FIRST {
        command.env_remove(name);
    }
    command.stdin(Stdio::from(line)).stderr(Stdio::piped()).spawn()
}

const GONE: &str = "the new process ended before it was ready";

/// How a child ended that is not wanted any more, or has ended by itself.
fn end(child: &mut Child, ended: impl FnOnce()) -> String {
    // One that ends by itself gets a moment for its own exit code.
    let until = Instant::now() + Duration::from_millis(200);
    let mut status = child.try_wait();
    while matches!(status, Ok(None)) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
        status = child.try_wait();
    }
    ended();
    match status {
        Ok(Some(status)) => status.to_string(),
        _ => {
            // It cannot be gone: nobody else has waited for it.
            let _ = child.kill();
            let _ = child.wait();
            "killed".to_owned()
        }
    }
}

/// Takes the child's exit status when it comes, which is when we still drain.
fn reap(mut child: Child) {
    let waiting = std::thread::Builder::new().name("successor".into()).spawn(move || {
        match child.wait() {
            // It was replaced itself, or told to stop.
            Ok(status) if status.success() => log::info!("The process that took over has ended by itself"),
            Ok(status) => log::error!(status:% = status; "The process that took over has ended while this one drains"),
            Err(_) => {}
        }
    });
    if let Err(error) = waiting {
        log::warn!(error:% = error; "No thread that waits for the successor");
    }
}

/// Passes the standard error of a child on and remembers its end.
struct Tail {
    text: Arc<Mutex<Vec<u8>>>,
    ended: std::sync::mpsc::Receiver<()>,
}

impl Tail {
    fn follow(stream: Option<impl Read + Send + 'static>) -> Tail {
        let text = Arc::new(Mutex::new(Vec::new()));
        let (end, ended) = std::sync::mpsc::channel();
        let grows = text.clone();
        std::thread::spawn(move || {
            let mut block = [0; 4096];
            let mut stream = stream;
            while let Some(Ok(count @ 1..)) = stream.as_mut().map(|stream| stream.read(&mut block)) {
                // Nobody may be reading our own.
                let _ = std::io::stderr().write_all(&block[..count]);
                let mut text = grows.lock().unwrap_or_else(PoisonError::into_inner);
                text.extend_from_slice(&block[..count]);
                let surplus = text.len().saturating_sub(TAIL_BYTES);
                text.drain(..surplus);
            }
            drop(end);
        });
        Tail { text, ended }
    }

    /// The last lines. A grandchild may hold the stream open, so the wait for its end has one.
    fn end(self) -> String {
        let _ = self.ended.recv_timeout(Duration::from_secs(1));
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

const TAIL_BYTES: usize = 8 * 1024;
const TAIL_LINES: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(script: &str, limit: Duration) -> Failure {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("goma");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
        let program = Program { path, arguments: Vec::new() };
        // A parallel test may have forked while the script was open for writing.
        loop {
            let tried = Attempt::default().run(&program, &Vec::new(), limit, &Notify::of_process());
            match tried.err().expect("no successor") {
                busy if busy.why.contains("busy") => std::thread::yield_now(),
                failure => return failure,
            }
        }
    }

    #[test]
    fn a_program_that_is_no_successor_is_named_with_its_last_words() {
        let long = Duration::from_secs(20);
        let failure = tried("echo no such thing >&2; exit 3", long);
        assert_eq!(failure.why, format!("{GONE} (exit status: 3)"));
        assert_eq!(failure.tail, "no such thing");
        assert_eq!(failure.to_string(), format!("{}\n  | no such thing", failure.why));
        let failure = tried("kill -SEGV $$", long);
        assert!(failure.why.contains("signal: 11"), "{failure}");
        let failure = tried("exec sleep 60", Duration::from_millis(50));
        assert_eq!(failure.why, "the new process was not ready within 50ms (killed)");
        let missing = Program { path: "/nowhere/goma".into(), arguments: Vec::new() };
        let tried = Attempt::default().run(&missing, &Vec::new(), long, &Notify::of_process());
        assert!(tried.err().expect("none").why.starts_with("/nowhere/goma: "));
    }

    #[test]
    fn an_attempt_that_is_given_up_ends_its_process() {
        let attempt = Attempt::default();
        attempt.give_up();
        let program = Program { path: "/bin/sleep".into(), arguments: vec!["60".into()] };
        let tried = attempt.run(&program, &Vec::new(), Duration::from_secs(20), &Notify::of_process());
        assert!(tried.err().expect("none").why.starts_with("it was given up"));
    }

    #[test]
    fn a_link_to_the_program_counts_rather_than_where_it_led() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().canonicalize().expect("there").join(name);
        std::fs::write(at("goma-1"), "").expect("written");
        std::os::unix::fs::symlink(at("goma-1"), at("goma")).expect("linked");
        assert_eq!(as_named(&at("goma"), &at("goma-1")), Some(at("goma")));
        assert_eq!(as_named(Path::new("/bin/sh"), &at("goma-1")), None, "it was called by another name");
    }
}
