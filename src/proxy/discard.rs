//! What becomes of a backend's response after a page of ours went out in its place.
//!
//! The client has its whole response as soon as the backend's head is there, so nothing that the backend does with its body
//! can harm it. The body is read on for the sake of the connection to the backend, which is kept when the body is at hand
//! and given up when it is not worth waiting for.

use std::time::{Duration, Instant};

use http::Version;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::middleware::error_interceptor::declared;

/// A body that nobody wants.
pub struct Discard {
    left: u64,
    since: Instant,
}

impl Discard {
    /// Begins after the page has been written.
    pub fn new() -> Discard {
        Discard { left: MOST, since: Instant::now() }
    }

    /// Waits a moment for a body that is worth it, so that Pingora sees its end before it sees that the client has all it was
    /// promised: then the connection to the backend is kept.
    ///
    /// # Errors
    /// When the rest of the exchange is to be given up at once.
    pub async fn wait(session: &mut Session, length: Length) -> Result<()> {
        match length {
            Length::Small => {
                for _ in 0..CHANCES {
                    tokio::task::yield_now().await;
                }
                Ok(())
            }
            // A stream of HTTP/2 would read on to the end. On HTTP/1 the exchange ends by itself.
            Length::Large if session.req_header().version == Version::HTTP_2 => Err(given_up()),
            _ if uploads(session) => Err(given_up()),
            _ => Ok(()),
        }
    }

    /// Takes a piece of the body.
    ///
    /// # Errors
    /// When the body is too long or takes too long.
    pub fn feed(&mut self, length: usize, end: bool) -> Result<()> {
        self.left = self.left.saturating_sub(length as u64);
        if !end && (self.left == 0 || self.since.elapsed() > LONGEST) {
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
const LONGEST: Duration = Duration::from_secs(1);
const CHANCES: usize = 3;
