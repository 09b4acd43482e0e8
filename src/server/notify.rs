//! What the service manager is told: sd_notify(3), a datagram with a few lines, written by ourselves.
//!
//! Without `NOTIFY_SOCKET` nobody listens and nothing is sent. Nothing here waits: a manager that does not read loses the
//! message. Only the main process speaks (`NotifyAccess=main`); after an upgrade the old one has said which process that is,
//! and says no more.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The way to the service manager, if there is one.
pub struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    silent: AtomicBool,
}

impl Notify {
    /// As `NOTIFY_SOCKET` and `WATCHDOG_USEC` say.
    pub fn of_process() -> Notify {
        Notify::of(|name| std::env::var_os(name))
    }

    fn of(env: impl Fn(&str) -> Option<OsString>) -> Notify {
        let to = env("NOTIFY_SOCKET").filter(|name| !name.is_empty()).and_then(|name| {
            let opened = open(name.as_bytes());
            opened.inspect_err(|error| log::error!("NOTIFY_SOCKET {}: {error}", name.display())).ok()
        });
        let micros = env("WATCHDOG_USEC").and_then(|text| text.to_str()?.parse().ok()).filter(|micros| *micros > 0);
        // It counts for the process that it names. A successor inherits it without the name.
        let ours = env("WATCHDOG_PID").is_none_or(|pid| pid.to_str() == Some(&std::process::id().to_string()));
        let watchdog = micros.filter(|_| ours && to.is_some()).map(Duration::from_micros);
        Notify { to, watchdog, silent: AtomicBool::new(false) }
    }

    /// Every listener is open and requests are answered.
    pub fn ready(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={status}\n"));
    }

    /// The configuration is being read again; [`Notify::ready`] ends that.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\n"));
    }

    /// The process stops, which may take so long.
    pub fn stopping(&self, longest: Duration) {
        let micros = (longest + SPARE).as_micros();
        self.say(&format!("STOPPING=1\nSTATUS=Draining\nEXTEND_TIMEOUT_USEC={micros}\n"));
    }

    /// Another process is the main one from now on; this one says no more.
    pub fn hands_over_to(&self, pid: u32) {
        self.say(&format!("MAINPID={pid}\n"));
        self.silent.store(true, Ordering::Release);
    }

    /// Says that the process is alive, twice as often as the manager asks for; for ever. A process whose threads are all stuck
    /// does not come here.
    pub async fn keep_alive(&self) {
        let Some(watchdog) = self.watchdog else { return std::future::pending().await };
        let mut every = tokio::time::interval(watchdog / 2);
        loop {
            every.tick().await;
            self.say("WATCHDOG=1\n");
        }
    }

    fn say(&self, text: &str) {
        let Some((socket, address)) = &self.to else { return };
        if self.silent.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = socket.send_to_addr(text.as_bytes(), address) {
            log::warn!(error:% = error; "The service manager did not take a message");
        }
    }
}

/// `@name` is an abstract socket, `/path` one in the file system.
fn open(name: &[u8]) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// Beyond the time that draining may take.
const SPARE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut text = [0; 512];
        let length = socket.recv(&mut text).expect("a message");
        String::from_utf8_lossy(&text[..length]).into_owned()
    }

    #[test]
    fn messages_reach_sockets_with_a_path_and_abstract_ones() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let name = format!("goma-test-notify-{}", std::process::id());
        let abstracted = SocketAddr::from_abstract_name(&name).expect("a name");
        let by_path = UnixDatagram::bind(&path).expect("bound");
        let by_name = UnixDatagram::bind_addr(&abstracted).expect("bound");
        for (socket, at) in [(by_path, path.into_os_string()), (by_name, format!("@{name}").into())] {
            socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
            let notify = Notify::of(|asked| (asked == "NOTIFY_SOCKET").then(|| at.clone()));
            notify.ready("Serving");
            assert_eq!(heard(&socket), "READY=1\nSTATUS=Serving\n");
            notify.reloading();
            assert!(heard(&socket).starts_with("RELOADING=1\nMONOTONIC_USEC="));
            notify.stopping(Duration::from_secs(1));
            assert_eq!(heard(&socket), "STOPPING=1\nSTATUS=Draining\nEXTEND_TIMEOUT_USEC=6000000\n");
            notify.hands_over_to(7);
            assert_eq!(heard(&socket), "MAINPID=7\n");
            notify.stopping(Duration::ZERO);
            socket.set_nonblocking(true).expect("set");
            assert!(socket.recv(&mut [0]).is_err(), "the old process says no more");
        }
    }

    #[test]
    fn the_watchdog_is_that_of_this_process() {
        for (pid, expected) in [
            (None, Some(Duration::from_secs(3))),
            (Some(std::process::id().to_string()), Some(Duration::from_secs(3))),
            (Some("1".to_owned()), None),
        ] {
            let notify = Notify::of(|name| match name {
                "NOTIFY_SOCKET" => Some("@goma-test-nobody".into()),
                "WATCHDOG_USEC" => Some("3000000".into()),
                _ => pid.clone().map(Into::into),
            });
            assert_eq!(notify.watchdog, expected, "{pid:?}");
        }
        assert_eq!(Notify::of(|_| None).watchdog, None);
    }
}
