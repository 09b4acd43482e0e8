//! What becomes of a backend's response after a page of ours went out in its place.
//!
//! The client has its whole response as soon as the backend's head is there, so nothing that the backend does with its body
//! can harm it. The body is read on for the sake of the connection to the backend, which is kept when the body is at hand
//! and given up when it is not worth waiting for.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use http::Version;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::middleware::error_interceptor::declared;
use crate::upstream::deadline::HeaderDeadline;

/// A body that nobody wants.
pub struct Discard {
    left: u64,
    since: Instant,
    /// Over a connection that this exchange has for itself.
    deadline: Option<HeaderDeadline>,
}

impl Discard {
    /// Begins after the page has been written; `backend` is the descriptor of an HTTP/1 connection.
    pub fn new(backend: Option<RawFd>) -> Discard {
        let mut deadline = backend.and_then(|fd| HeaderDeadline::new(fd, PATIENCE).ok());
        if let Some(deadline) = &mut deadline {
            deadline.start();
        }
        Discard { left: MOST, since: Instant::now(), deadline }
    }

    /// Waits a moment for a body that is worth it, so that Pingora sees its end before it sees that the client has all it was
    /// promised: then the connection to the backend is kept.
    ///
    /// # Errors
    /// When the rest of the exchange is to be given up at once.
    pub async fn wait(session: &mut Session, length: Length) -> Result<()> {
        match length {
            // A stream of HTTP/2 would read on to the end. On HTTP/1 the exchange ends by itself.
            Length::Large if session.req_header().version == Version::HTTP_2 => return Err(given_up()),
            Length::Large | Length::Unknown if uploads(session) => return Err(given_up()),
            Length::Large => return Ok(()),
            Length::Small | Length::Unknown => {}
        }
        for _ in 0..CHANCES {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// The exchange is over: nobody waits for the backend any more.
    pub fn stop(&mut self) {
        self.deadline = None;
    }

    /// Takes a piece of the body.
    ///
    /// # Errors
    /// When the body is too long or takes too long.
    pub fn feed(&mut self, length: usize, end: bool) -> Result<()> {
        self.left = self.left.saturating_sub(length as u64);
        if end {
            self.stop();
        } else if self.left == 0 || self.since.elapsed() > PATIENCE {
            return Err(given_up());
        }
        Ok(())
    }
}

/// How much of a body is to come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Little enough to be waited for.
    Small,
    /// Too much.
    Large,
    /// The backend does not say.
    Unknown,
}

impl Length {
    /// What a backend's head says.
    pub fn of(head: &ResponseHeader) -> Length {
        match declared(&head.headers) {
            Some(..=MOST) => Length::Small,
            Some(_) => Length::Large,
            None => Length::Unknown,
        }
    }

    /// Whether the client's connection ends with this exchange: an upload that is still under way would wait for Pingora to
    /// pass on the response, and that for the upload.
    pub fn ends_connection(self, session: &mut Session) -> bool {
        self != Length::Small && uploads(session)
    }
}

/// Whether an HTTP/1 client is still sending its request.
fn uploads(session: &mut Session) -> bool {
    session.req_header().version != Version::HTTP_2 && !session.as_downstream_mut().is_body_done()
}

/// The mark of an exchange that was given up after the client had its response.
fn given_up() -> Box<Error> {
    Error::explain(ErrorType::Custom("GivenUp"), "nobody wants the rest of the backend's response")
}

const MOST: u64 = 64 << 10;
/// So long the next request on a client's connection may have to wait for a body that nobody wants.
const PATIENCE: Duration = Duration::from_millis(250);
const CHANCES: usize = 3;
