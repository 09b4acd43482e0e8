//! How `goma upgrade` and the running process find each other and talk.
//!
//! Each serving process listens on the abstract socket `goma-edge/PID`: no file that could be stale, and no folder to agree on.
//! `/proc/net/unix` lists them. The kernel tells both sides who the other is: the process answers root and its own user, and the
//! caller makes sure that the process has the number it was looked up by. What is asked is one line; answers are JSON lines.

use std::io::{self, BufRead, BufReader, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener, UnixStream as StdStream};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// What a caller hears.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "camelCase")]
pub enum Told {
    /// A successor is being started.
    Starting {
        /// The program.
        program: String,
    },
    /// It serves, and the old process drains.
    Ready {
        /// The successor.
        pid: u32,
        /// Its version.
        version: String,
        /// How long it took, in milliseconds.
        took_ms: u64,
        /// How long the old process may drain, in seconds.
        grace_s: u64,
    },
    /// The old process serves on.
    Refused {
        /// Why, in a sentence and the lines of a log.
        why: String,
    },
    /// The figures of a process.
    Tally(Tally),
}

/// Requests of one process since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Their heads were read and passed the gate.
    pub begun: u64,
    /// They have ended.
    pub finished: u64,
    /// Of those that have not: WebSockets and event streams.
    pub streams: u64,
}

impl Tally {
    /// Requests that are neither finished nor a stream without an end of its own.
    pub fn running(&self) -> u64 {
        self.begun.saturating_sub(self.finished).saturating_sub(self.streams)
    }
}

/// The socket of the running process.
pub struct Control(UnixListener);

/// Somebody who asked for an upgrade.
pub struct Caller(UnixStream);

impl Control {
    /// Opens it. From here on the process can be found.
    ///
    /// # Errors
    /// When there is such a socket already.
    pub fn open() -> io::Result<Control> {
        let listener = StdListener::bind_addr(&address(std::process::id())?)?;
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener).map(Control)
    }

    /// Serves callers until it is dropped.
    pub async fn serve(
        self,
        upgrades: mpsc::Sender<Caller>,
        tally: impl Fn() -> Tally + Send + Sync + Clone + 'static,
    ) {
        loop {
            let Ok((stream, _)) = self.0.accept().await else {
                tokio::time::sleep(PROMPT).await;
                continue;
            };
            let user = rustix::process::geteuid().as_raw();
            // The kernel says who it is; anybody on the machine can connect.
            if stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == user) {
                tokio::spawn(timeout(PROMPT, answer(stream, upgrades.clone(), tally.clone())));
            }
        }
    }
}

async fn answer(stream: UnixStream, upgrades: mpsc::Sender<Caller>, tally: impl Fn() -> Tally) -> io::Result<()> {
    let mut caller = tokio::io::BufReader::new(stream);
    let mut line = String::new();
    (&mut caller).take(LINE).read_line(&mut line).await?;
    let mut caller = Caller(caller.into_inner());
    match line.trim_end() {
        "upgrade" => {
            // At the end of the process nobody takes it.
            let _ = upgrades.send(caller).await;
        }
        "tally" => caller.tell(&Told::Tally(tally())).await,
        _ => caller.tell(&Told::Refused { why: "no such question".to_owned() }).await,
    }
    Ok(())
}

impl Caller {
    /// Tells it something; one that does not listen any more is left alone.
    pub async fn tell(&mut self, told: &Told) {
        let Ok(mut line) = serde_json::to_vec(told) else { return };
        line.push(b'\n');
        let _ = timeout(PROMPT, self.0.write_all(&line)).await;
    }
}

fn address(pid: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("{NAME}{pid}"))
}

const NAME: &str = "goma-edge/";
const LINE: u64 = 64;
const PROMPT: Duration = Duration::from_secs(5);

/// Processes that serve now, as far as this network namespace shows them.
///
/// # Errors
/// When `/proc` does not tell.
pub fn running() -> io::Result<Vec<u32>> {
    let table = std::fs::read_to_string("/proc/net/unix")?;
    let mut found: Vec<u32> = table.lines().filter_map(listed).collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// `Num RefCount Protocol Flags Type St Inode Path`; only listening sockets have the flag.
fn listed(line: &str) -> Option<u32> {
    let mut fields = line.split_whitespace();
    let flags = fields.nth(3)?;
    let path = fields.nth(3)?;
    (flags == LISTENING).then_some(())?;
    path.strip_prefix('@')?.strip_prefix(NAME)?.parse().ok()
}

/// `__SO_ACCEPTCON` of the kernel.
const LISTENING: &str = "00010000";

/// A line to a running process.
pub struct Line(BufReader<StdStream>);

impl Line {
    /// Asks a process one of `upgrade` and `tally`.
    ///
    /// # Errors
    /// When it is not there, or somebody else answers under its number.
    pub fn ask(pid: u32, question: &str) -> io::Result<Line> {
        let mut stream = StdStream::connect_addr(&address(pid)?)?;
        let peer = rustix::net::sockopt::socket_peercred(&stream)?;
        if peer.pid.as_raw_nonzero().get() != pid.cast_signed() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "another process answers in its place"));
        }
        stream.write_all(format!("{question}\n").as_bytes())?;
        Ok(Line(BufReader::new(stream)))
    }

    /// What it says next; `None` at the end.
    ///
    /// # Errors
    /// When it is no answer of such a process.
    pub fn hear(&mut self) -> io::Result<Option<Told>> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(0) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(error),
            Ok(_) => serde_json::from_str(&line).map(Some).map_err(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_of_ours_are_found_in_the_table() {
        for (line, expected) in [
            ("0000000000000000: 00000002 00000000 00010000 0001 01 17051 @goma-edge/4711", Some(4711)),
            ("0000000000000000: 00000003 00000000 00000000 0001 03 17051 @goma-edge/4711", None),
            ("0000000000000000: 00000002 00000000 00010000 0001 01 17051 /run/goma-edge/4711", None),
            ("0000000000000000: 00000002 00000000 00010000 0001 01 17051 @goma-edge/self", None),
            ("0000000000000000: 00000002 00000000 00010000 0001 01 17051", None),
            ("Num       RefCount Protocol Flags    Type St Inode Path", None),
        ] {
            assert_eq!(listed(line), expected, "{line}");
        }
    }

    #[tokio::test]
    async fn a_caller_is_answered_and_knows_who_answers() {
        let control = Control::open().expect("open");
        let (upgrades, mut asked) = mpsc::channel(1);
        let tally = Tally { begun: 7, finished: 4, streams: 1 };
        let serving = tokio::spawn(control.serve(upgrades, move || tally));
        let pid = std::process::id();
        let ask = |question: &'static str| {
            tokio::task::spawn_blocking(move || {
                let mut line = Line::ask(pid, question).expect("it is there");
                line.hear().expect("an answer")
            })
        };
        assert!(running().expect("a table").contains(&pid));
        assert_eq!(ask("tally").await.expect("asked"), Some(Told::Tally(tally)));
        assert_eq!(tally.running(), 2);
        assert!(matches!(ask("what").await.expect("asked"), Some(Told::Refused { .. })));
        let upgrade = ask("upgrade");
        let mut caller = asked.recv().await.expect("a caller");
        let ready = Told::Ready { pid: 1, version: "2".into(), took_ms: 3, grace_s: 4 };
        caller.tell(&ready).await;
        assert_eq!(upgrade.await.expect("asked"), Some(ready));
        serving.abort();
        let _ = serving.await;
        assert!(!running().expect("a table").contains(&pid));
    }
}
