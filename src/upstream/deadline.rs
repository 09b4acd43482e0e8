//! The limit on the wait for a response header.
//!
//! Pingora 0.9.1 has one read time-out for header and body; it cannot be lifted once the header is there, so it
//! would cut a slow download or an event stream. Instead a timer of ours shuts the connection down: the pending
//! read ends with an error, and [`HeaderDeadline::expired`] tells why.
//!
//! Use: [`new`](HeaderDeadline::new) in `connected_to_upstream` (a new one each attempt);
//! [`start`](HeaderDeadline::start) in `upstream_request_filter` for a request without body (Pingora calls no body
//! filter for it towards HTTP/2, and for an upgrade none before the answer) and else when the body has ended; [`stop`](HeaderDeadline::stop) with the response
//! header. It costs two system calls and a task a request, on routes that set `responseHeaderTimeout` only.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use pingora_core::protocols::Digest;
use tokio::task::AbortHandle;

use super::dial::descriptor;

/// A timer over one connection to a backend; dropping it disarms it.
pub struct HeaderDeadline {
    limit: Duration,
    shared: Arc<Shared>,
    timer: Option<AbortHandle>,
}

struct Shared {
    connection: TcpStream,
    state: AtomicU8,
}

const WAITING: u8 = 0;
const IN_TIME: u8 = 1;
const EXPIRED: u8 = 2;

impl HeaderDeadline {
    /// Both are what Pingora passes to `connected_to_upstream`.
    ///
    /// The timer gets a descriptor of its own, so it can never hit another connection that took the number over.
    ///
    /// # Errors
    /// When the descriptor cannot be duplicated: none is left.
    pub fn new(fd: RawFd, digest: Option<&Digest>, limit: Duration) -> io::Result<Self> {
        let fd = descriptor(fd, digest);
        Ok(Self {
            limit,
            shared: Arc::new(Shared { connection: TcpStream::from(duplicate(fd)?), state: AtomicU8::new(WAITING) }),
            timer: None,
        })
    }

    /// The request is sent: time runs. A second call changes nothing.
    pub fn start(&mut self) {
        if self.timer.is_some() {
            return;
        }
        let (limit, shared) = (self.limit, self.shared.clone());
        let timer = tokio::spawn(async move {
            tokio::time::sleep(limit).await;
            if shared.decide(EXPIRED) {
                // An error means that the connection is gone already.
                let _ = shared.connection.shutdown(Shutdown::Both);
            }
        });
        self.timer = Some(timer.abort_handle());
    }

    /// The response header is here; `false` when it came too late and the connection is shut down.
    pub fn stop(&mut self) -> bool {
        let in_time = self.shared.decide(IN_TIME) || !self.expired();
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
        in_time
    }

    /// Whether the limit passed without a response header.
    pub fn expired(&self) -> bool {
        self.shared.state.load(Ordering::Acquire) == EXPIRED
    }
}

impl Drop for HeaderDeadline {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    /// Whether this call was the one that decided.
    fn decide(&self, outcome: u8) -> bool {
        self.state.compare_exchange(WAITING, outcome, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
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

    #[tokio::test]
    async fn a_header_that_does_not_come_ends_the_wait() {
        let (mut client, _silent) = pair().await;
        let mut deadline = HeaderDeadline::new(client.as_raw_fd(), None, Duration::from_millis(10)).unwrap();
        deadline.start();
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(deadline.expired());
        assert!(!deadline.stop());
    }

    #[tokio::test]
    async fn after_the_header_the_body_may_take_its_time() {
        let (mut client, mut server) = pair().await;
        let limit = Duration::from_millis(10);
        let mut deadline = HeaderDeadline::new(client.as_raw_fd(), None, limit).unwrap();
        deadline.start();
        assert!(deadline.stop());
        tokio::time::sleep(limit * 5).await;
        server.write_all(b"late body").await.unwrap();
        let mut bytes = [0; 9];
        client.read_exact(&mut bytes).await.unwrap();
        assert!(!deadline.expired());
    }

    #[tokio::test]
    async fn a_connection_without_descriptor_has_no_deadline() {
        assert!(HeaderDeadline::new(-1, None, Duration::from_secs(1)).is_err());
    }
}
