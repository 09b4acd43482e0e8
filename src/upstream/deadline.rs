//! The limits on what a backend may take of our time: to the head of its response, in silence, in all.
//!
//! Pingora 0.9.1 has one read time-out for header and body; it cannot be lifted once the header is there, so it
//! would cut a slow download or an event stream. Instead a timer of ours shuts the connection down: the pending
//! read ends with an error, and [`Deadline::expired`] tells why.
//!
//! Use: [`new`](Deadline::new) in `connected_to_upstream` (a new one each attempt);
//! [`start`](Deadline::start) in `upstream_request_filter` for a request without body (Pingora calls no body
//! filter for it towards HTTP/2, and for an upgrade none before the answer) and else when the body has ended; [`answered`](Deadline::answered) with the response
//! header, [`moved`](Deadline::moved) with each piece of its body. It costs two system calls and a task a request, on routes
//! that set a limit only.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pingora_core::protocols::Digest;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::dial::descriptor;

/// Limits of one attempt; `None` is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// From the end of the request to the head of the response.
    pub header: Option<Duration>,
    /// Without a byte within the response.
    pub idle: Option<Duration>,
    /// When the response has to be over.
    pub end: Option<Instant>,
}

impl Limits {
    /// Whether there is nothing to watch.
    pub fn is_none(&self) -> bool {
        *self == Limits::default()
    }
}

/// A timer over one connection to a backend; dropping it disarms it.
pub struct Deadline {
    shared: Arc<Shared>,
    timer: Option<AbortHandle>,
}

struct Shared {
    limits: Limits,
    connection: TcpStream,
    state: AtomicU8,
    /// When the state began or the last byte came, in milliseconds from `born`.
    since: AtomicU64,
    born: Instant,
    changed: Notify,
}

/// The request is being sent.
const SENDING: u8 = 0;
/// The request is sent, its answer has not begun.
const WAITING: u8 = 1;
/// The answer comes.
const COMING: u8 = 2;
const IN_TIME: u8 = 3;
const EXPIRED: u8 = 4;

impl Deadline {
    /// The first two are what Pingora passes to `connected_to_upstream`.
    ///
    /// The timer gets a descriptor of its own, so it can never hit another connection that took the number over.
    ///
    /// # Errors
    /// When the descriptor cannot be duplicated: none is left.
    pub fn new(fd: RawFd, digest: Option<&Digest>, limits: Limits) -> io::Result<Self> {
        let fd = descriptor(fd, digest);
        let connection = TcpStream::from(duplicate(fd)?);
        let (state, since) = (AtomicU8::new(SENDING), AtomicU64::new(0));
        let changed = Notify::new();
        let shared = Arc::new(Shared { limits, connection, state, since, born: Instant::now(), changed });
        let timer = limits.end.map(|_| watch(&shared));
        Ok(Self { shared, timer })
    }

    /// The request is sent. A second call changes nothing.
    pub fn start(&mut self) {
        if self.shared.turn(SENDING, WAITING) {
            match &self.timer {
                Some(_) => self.shared.changed.notify_one(),
                None => self.timer = Some(watch(&self.shared)),
            }
        }
    }

    /// The response header is here; `false` when it came too late and the connection is shut down.
    pub fn answered(&mut self) -> bool {
        let Limits { idle, end, .. } = self.shared.limits;
        let goes_on = idle.is_some() || end.is_some();
        let next = if goes_on { COMING } else { IN_TIME };
        let in_time = self.shared.turn(WAITING, next) || self.shared.turn(SENDING, next) || !self.expired();
        match &self.timer {
            Some(_) if goes_on => self.shared.changed.notify_one(),
            None if goes_on => self.timer = Some(watch(&self.shared)),
            _ => self.disarm(),
        }
        in_time
    }

    /// A piece of the response is here.
    pub fn moved(&self) {
        self.shared.touch();
    }

    /// Nothing more is limited: the response is over, or has become a tunnel.
    pub fn stop(&mut self) {
        for state in [SENDING, WAITING, COMING] {
            self.shared.turn(state, IN_TIME);
        }
        self.disarm();
    }

    /// Whether a limit passed.
    pub fn expired(&self) -> bool {
        self.shared.state.load(Ordering::Acquire) == EXPIRED
    }

    fn disarm(&mut self) {
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    /// Whether this call was the one that turned it.
    fn turn(&self, from: u8, to: u8) -> bool {
        let turned = self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if turned {
            self.touch();
        }
        turned
    }

    fn touch(&self) {
        let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.since.store(now, Ordering::Release);
    }

    /// When the next limit passes in this state; `None` for never.
    fn due(&self, state: u8) -> Option<Instant> {
        let since = self.born + Duration::from_millis(self.since.load(Ordering::Acquire));
        let limit = match state {
            WAITING => self.limits.header,
            COMING => self.limits.idle,
            _ => None,
        };
        let own = limit.map(|limit| since + limit);
        own.into_iter().chain(self.limits.end).min()
    }

    /// Whether the silence is ours: bytes of the backend wait to be read, because the client takes none.
    fn is_behind(&self) -> bool {
        matches!(self.connection.peek(&mut [0]), Ok(count) if count > 0)
    }
}

fn watch(shared: &Arc<Shared>) -> AbortHandle {
    let shared = shared.clone();
    tokio::spawn(async move {
        loop {
            let changed = shared.changed.notified();
            let state = shared.state.load(Ordering::Acquire);
            if matches!(state, IN_TIME | EXPIRED) {
                return;
            }
            let Some(due) = shared.due(state) else {
                changed.await;
                continue;
            };
            let now = Instant::now();
            if now < due {
                let _ = tokio::time::timeout(due - now, changed).await;
            } else if state == COMING && shared.limits.end.is_none_or(|end| now < end) && shared.is_behind() {
                shared.touch();
            } else if shared.turn(state, EXPIRED) {
                // An error means that the connection is gone already.
                let _ = shared.connection.shutdown(Shutdown::Both);
            }
        }
    })
    .abort_handle()
}

#[allow(unsafe_code, reason = "a descriptor is a number to libc; both calls are proven below")]
fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl touches no memory of ours; any number may be passed, a wrong one is an error.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `copy` is a descriptor that the call above has just opened for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
        (client.unwrap(), server.unwrap().0)
    }

    fn header(milliseconds: u64) -> Limits {
        Limits { header: Some(Duration::from_millis(milliseconds)), ..Limits::default() }
    }

    #[tokio::test]
    async fn a_header_that_does_not_come_ends_the_wait() {
        let (mut client, _silent) = pair().await;
        let mut deadline = Deadline::new(client.as_raw_fd(), None, header(10)).unwrap();
        deadline.start();
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(deadline.expired());
        assert!(!deadline.answered());
    }

    #[tokio::test]
    async fn after_the_header_the_body_may_take_its_time() {
        let (mut client, mut server) = pair().await;
        let mut deadline = Deadline::new(client.as_raw_fd(), None, header(10)).unwrap();
        deadline.start();
        assert!(deadline.answered());
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.write_all(b"late body").await.unwrap();
        let mut bytes = [0; 9];
        client.read_exact(&mut bytes).await.unwrap();
        assert!(!deadline.expired());
    }

    #[tokio::test]
    async fn silence_within_a_response_ends_it_and_bytes_that_we_leave_unread_are_no_silence() {
        let (mut client, mut server) = pair().await;
        let idle = Some(Duration::from_millis(20));
        let mut deadline = Deadline::new(client.as_raw_fd(), None, Limits { idle, ..Limits::default() }).unwrap();
        deadline.start();
        assert!(deadline.answered());
        server.write_all(b"unread").await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!deadline.expired(), "the client is slow, not the backend");
        client.read_exact(&mut [0; 6]).await.unwrap();
        deadline.moved();
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(deadline.expired());
    }

    #[tokio::test]
    async fn the_end_holds_in_every_state() {
        for state in [SENDING, WAITING, COMING] {
            let (mut client, _silent) = pair().await;
            let end = Some(Instant::now() + Duration::from_millis(10));
            let mut deadline = Deadline::new(client.as_raw_fd(), None, Limits { end, ..Limits::default() }).unwrap();
            if state >= WAITING {
                deadline.start();
            }
            if state >= COMING {
                assert!(deadline.answered() || deadline.expired());
            }
            assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
            assert!(deadline.expired(), "{state}");
        }
    }

    #[tokio::test]
    async fn what_was_stopped_is_never_cut() {
        let (client, _silent) = pair().await;
        let limits = Limits { end: Some(Instant::now() + Duration::from_millis(10)), ..header(10) };
        let mut deadline = Deadline::new(client.as_raw_fd(), None, limits).unwrap();
        deadline.start();
        deadline.stop();
        let read = tokio::time::timeout(Duration::from_millis(50), client.readable()).await;
        assert!(read.is_err() && !deadline.expired());
    }

    #[tokio::test]
    async fn a_connection_without_descriptor_has_no_deadline() {
        assert!(Deadline::new(-1, None, header(1000)).is_err());
    }
}
