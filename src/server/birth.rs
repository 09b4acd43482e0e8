//! How the process came to its sockets: from the one before it, from the service manager, or not yet at all.
//!
//! A successor is started by the running process with [`HANDOVER`] set and the line to it ([`super::channel`]) as standard input.
//! Socket activation is that of sd_listen_fds(3): `LISTEN_FDS` descriptors from 3 on, meant for the process `LISTEN_PID`, with
//! names in `LISTEN_FDNAMES`. Such a socket belongs to the entry point whose name it has, or whose address.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use socket2::SockRef;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::channel::{Channel, Thing, Word};

/// Set for a process that takes over from another.
pub const HANDOVER: &str = "GOMA_HANDOVER";
/// What a service manager says to the first process only.
pub const OF_THE_FIRST: [&str; 4] = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID"];

/// What the process was born with.
#[derive(Default)]
pub struct Birth {
    line: Option<Arc<Channel>>,
    given: Vec<Given>,
    elders: Vec<Arc<Channel>>,
    stderr: Option<OwnedFd>,
    tickets: Option<Zeroizing<Vec<u8>>>,
}

/// A listening socket that was there before the process.
struct Given {
    name: String,
    /// As a configuration says it, or where the socket listens.
    address: String,
    listener: TcpListener,
    shared: bool,
}

impl Birth {
    /// Takes what is there for this process.
    ///
    /// # Errors
    /// When it was to take over and the other process is not there, or what it was given are no listening sockets.
    pub fn take() -> Result<Birth> {
        match std::env::var_os(HANDOVER) {
            Some(_) => Birth::of_predecessor().context("taking over from the running process"),
            None => Birth::of_service_manager().context("sockets of the service manager (LISTEN_FDS)"),
        }
    }

    fn of_predecessor() -> Result<Birth> {
        let line = Channel::from(std::io::stdin().as_fd().try_clone_to_owned()?)
            .with_context(|| format!("{HANDOVER} is set, but standard input is not the line to that process"))?;
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        line.say(&Word::Hello { pid: std::process::id(), version: env!("CARGO_PKG_VERSION").to_owned() })?;
        let mut birth = Birth::default();
        for (thing, fd) in line.take(PROMPT)? {
            match thing {
                Thing::Listener { name, address, shared } => birth.given.push(Given::new(name, address, fd, shared)?),
                Thing::Elder => birth.elders.push(Arc::new(Channel::from(fd)?)),
                Thing::Tickets => birth.tickets = Some(secrets(fd)?),
                Thing::Stderr => birth.stderr = Some(fd),
            }
        }
        birth.line = Some(Arc::new(line));
        Ok(birth)
    }

    fn of_service_manager() -> Result<Birth> {
        let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
        let count = match (number("LISTEN_PID"), number("LISTEN_FDS")) {
            (Some(pid), Some(count)) if pid == std::process::id() => count,
            _ => return Ok(Birth::default()),
        };
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut birth = Birth::default();
        for number in FIRST_FD..FIRST_FD + i32::try_from(count).unwrap_or(0) {
            let fd = passed(number).with_context(|| format!("descriptor {number}"))?;
            let name = names.next().unwrap_or_default().to_owned();
            let address = SockRef::from(&fd).local_addr()?.as_socket();
            let Some(address) = address else { bail!("descriptor {number} ({name}) is no TCP socket") };
            birth.given.push(Given::new(name, address.to_string(), fd, true)?);
        }
        Ok(birth)
    }

    /// The socket of this entry point, if it was handed over, and whether the service manager has it too.
    pub fn socket(&mut self, name: &str, address: &str) -> Option<(TcpListener, bool)> {
        let wanted: Option<SocketAddr> = address.parse().ok();
        let same = |given: &Given| given.name == name && (given.shared || given.address == address);
        let there = |given: &Given| given.shared && wanted.is_some() && given.address.parse().ok() == wanted;
        let found = self.given.iter().position(same).or_else(|| self.given.iter().position(there))?;
        let given = self.given.swap_remove(found);
        Some((given.listener, given.shared))
    }

    /// Names and addresses of sockets that no entry point wanted; they are closed here.
    pub fn unused(&mut self) -> Vec<String> {
        self.given.drain(..).map(|given| format!("{} ({})", given.name, given.address)).collect()
    }

    /// The secrets of session tickets of the process before this one, as it wrote them.
    pub fn tickets(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        self.tickets.take()
    }

    /// Whether it takes over from another process.
    pub fn succeeds(&self) -> bool {
        self.line.is_some()
    }

    /// Says that it could serve, and waits until it may. One that succeeds nobody may at once.
    ///
    /// # Errors
    /// When the other process decided otherwise. If that one is gone, somebody has to serve.
    pub async fn may_serve(&self) -> Result<()> {
        let Some(line) = self.line.clone() else { return Ok(()) };
        let told = spawn_blocking(move || {
            // A line that is cut is found out by listening.
            let _ = line.say(&Word::Prepared);
            line.hear(PROMPT)
        });
        match told.await?.context("waiting until it may serve")? {
            Some(Word::Serve) => Ok(()),
            Some(word) => Err(super::channel::unexpected(&word).into()),
            None => {
                log::warn!("The process before this one is gone; taking its place");
                Ok(())
            }
        }
    }

    /// Says that it accepts connections, and waits until it is the main process. Standard error is its own from here on.
    pub async fn serves(&mut self) -> io::Result<()> {
        if let Some(stderr) = self.stderr.take() {
            rustix::stdio::dup2_stderr(stderr)?;
        }
        let Some(line) = self.line.clone() else { return Ok(()) };
        let told = spawn_blocking(move || {
            let _ = line.say(&Word::Serving);
            line.hear(PROMPT)
        });
        // Whatever it said: this process serves.
        let _ = told.await;
        Ok(())
    }

    /// Lines to the generations before this one that are there still.
    pub fn elders(&self) -> Vec<Arc<Channel>> {
        self.elders.iter().chain(&self.line).filter(|line| !line.is_over()).cloned().collect()
    }
}

impl Given {
    fn new(name: String, address: String, fd: OwnedFd, shared: bool) -> Result<Given> {
        let socket = SockRef::from(&fd);
        if !socket.is_listener().unwrap_or(false) || socket.r#type()? != socket2::Type::STREAM {
            bail!("the socket \"{name}\" ({address}) is none that listens for connections");
        }
        socket.set_nonblocking(true)?;
        Ok(Given { name, address, listener: TcpListener::from(fd), shared })
    }
}

/// Reads the pipe with the secrets of session tickets.
fn secrets(pipe: OwnedFd) -> io::Result<Zeroizing<Vec<u8>>> {
    // Of its full size from the start: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MOST_SECRETS));
    std::fs::File::from(pipe).take(MOST_SECRETS as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Takes a descriptor that the service manager has passed.
fn passed(number: i32) -> Result<OwnedFd> {
    let there = std::fs::symlink_metadata(format!("/proc/self/fd/{number}"));
    there.context("is not open")?;
    #[allow(unsafe_code, reason = "the protocol names descriptors by number")]
    // SAFETY: it is open, as was just seen, and by the protocol it was passed for this process to own; nothing else in the
    // program knows it, since this is read once, before any other descriptor is opened that could have this number.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// Where the service manager's descriptors begin. sd_listen_fds(3).
const FIRST_FD: i32 = 3;
/// More than the secrets of session tickets take, and what a pipe holds without somebody who reads it.
const MOST_SECRETS: usize = 4096;
/// How long the other process may take for an answer that needs no work.
const PROMPT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn given(name: &str, shared: bool) -> (Given, String) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("bound").to_string();
        (Given::new(name.into(), address.clone(), listener.into(), shared).expect("listens"), address)
    }

    #[test]
    fn an_entry_point_gets_its_socket_and_no_other() {
        let (web, at) = given("web", false);
        let (named, _) = given("webSecure", true);
        let (unit, unit_at) = given("goma.socket", true);
        let mut birth = Birth { given: vec![web, named, unit], ..Birth::default() };
        assert!(birth.socket("web", "127.0.0.1:1").is_none(), "the configuration has another address by now");
        assert!(birth.socket("other", &at).is_none(), "a predecessor's socket goes by name and address");
        assert!(birth.socket("web", &at).is_some_and(|(_, shared)| !shared));
        assert!(birth.socket("web", &at).is_none(), "only once");
        assert!(birth.socket("webSecure", "[::]:8443").is_some_and(|(_, shared)| shared), "by its name");
        assert!(birth.socket("third", &unit_at).is_some(), "by its address");
        assert_eq!(birth.unused(), [""; 0]);
    }

    #[test]
    fn what_does_not_listen_is_refused() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
        assert!(Given::new("web".into(), "x".into(), socket.into(), false).is_err());
    }
}
