//! What becomes of a backend's response after a page of ours went out in its place.
//!
//! The client has its whole response as soon as the backend's head is there, so nothing that the backend does with its body
//! can harm it: Pingora sees that the response is complete, and ends the exchange. The connection to the backend is kept
//! when all of the body is there by then, and else given up.

use std::os::fd::RawFd;
use std::time::Duration;

use pingora_error::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use crate::middleware::error_interceptor::declared;
use crate::upstream::deadline::{Deadline, Limits};

/// A body that nobody wants.
pub struct Discard {
    /// Over a connection that this exchange has for itself: Pingora would wait for the next bytes of a body that stalls.
    deadline: Option<Deadline>,
}

impl Discard {
    /// Begins after the page has been written; `backend` is the descriptor of an HTTP/1 connection.
    pub fn new(backend: Option<RawFd>) -> Discard {
        let mut deadline =
            backend.and_then(|fd| Deadline::new(fd, None, Limits { header: Some(PATIENCE), ..Limits::default() }).ok());
        if let Some(deadline) = &mut deadline {
            deadline.start();
        }
        Discard { deadline }
    }

    /// The body has ended, or the exchange has.
    pub fn stop(&mut self) {
        self.deadline = None;
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

    /// Whether the exchange is given up with the page: an upload that is still under way would wait for Pingora to pass on
    /// the response, and that for the upload.
    pub fn ends_exchange(self, session: &mut Session) -> bool {
        self != Length::Small && !session.as_downstream_mut().is_body_done()
    }

    /// A chance for the body to arrive before Pingora sees that the client has all it was promised.
    pub async fn wait(self) {
        if self != Length::Large {
            for _ in 0..CHANCES {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Ends an exchange whose client has its response.
///
/// # Errors
/// Always; the context knows that it is none.
pub fn give_up() -> Result<()> {
    Error::e_explain(ErrorType::Custom("GivenUp"), "nobody wants the rest of the backend's response")
}

const MOST: u64 = 64 << 10;
/// So long the next request on a client's connection may have to wait for a body that nobody wants.
const PATIENCE: Duration = Duration::from_millis(250);
const CHANCES: usize = 3;
