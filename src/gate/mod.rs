//! The gate: what a request must look like before anything else reads it.
//!
//! Parsers disagree about malformed requests, and every disagreement between us and a backend is a way to smuggle a
//! second request or to walk round a guard. So each form is either refused here or has exactly one meaning. Where
//! RFC 9112 lets a recipient repair a message (bare LF, folded lines, doubled Content-Length) we refuse instead:
//! a repaired message is one that the next hop may read in another way.
//!
//! | function | looks at | used for |
//! |---|---|---|
//! | [`end_of_head`], [`head()`] | the bytes of an HTTP/1 head | the entry point |
//! | [`parts`] | a head that passed | the entry point |
//! | [`ChunkScanner`] | the bytes of a chunked body, as they stream | the entry point |
//! | [`semantics()`] | a parsed HTTP/2 head | the entry point |
//! | [`authority`] | `Host` and `:authority` | both |
//! | [`path()`] | the path of the target, without query | routing and guards |
//!
//! Everything here is pure: no I/O, no clock, no allocation on the usual way.

mod chunk;
mod head;
mod host;
mod line;
mod path;
mod semantics;

use std::fmt;

pub use chunk::{ChunkScanner, Progress};
pub use head::{Body, Head, Parts, end_of_head, head, no_request, parts, too_large};
pub use host::{Authority, authority};
pub use path::{CanonicalPath, path};
pub use semantics::semantics;

/// Upper bounds of a request head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole head, from the request line to the blank line. Default 64 KiB.
    pub head_bytes: usize,
    /// Number of field lines. Default 100.
    pub fields: usize,
    /// Bytes of the request target, query included. Default 16 KiB.
    pub target_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { head_bytes: 64 << 10, fields: 100, target_bytes: 16 << 10 }
    }
}

/// Why a request does not pass. The connection ends after the reply: where the next request starts is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Status of the reply: 400, 405, 414, 417, 431, 501 or 505.
    pub status: u16,
    /// The word for log and metric; one of a closed list, given by the status.
    pub reason: &'static str,
    /// What was wrong, for the log. Never holds anything the client sent.
    pub detail: &'static str,
}

impl Refusal {
    const fn new(status: u16, reason: &'static str, detail: &'static str) -> Self {
        Self { status, reason, detail }
    }

    /// 400: malformed or ambiguous.
    pub(crate) const fn bad_request(detail: &'static str) -> Self {
        Self::new(400, "bad_request", detail)
    }

    /// 405: a method that no route may have.
    pub(crate) const fn method_not_allowed(detail: &'static str) -> Self {
        Self::new(405, "method_not_allowed", detail)
    }

    /// 414: the target is too long.
    pub(crate) const fn target_too_long() -> Self {
        Self::new(414, "target_too_long", "the request target is too long")
    }

    /// 417: an expectation that we cannot meet.
    pub(crate) const fn expectation_failed() -> Self {
        Self::new(417, "expectation_failed", "Expect is not 100-continue")
    }

    /// 431: too many or too large fields.
    pub(crate) const fn header_too_large(detail: &'static str) -> Self {
        Self::new(431, "header_too_large", detail)
    }

    /// 501: a transfer coding that we do not speak.
    pub(crate) const fn not_implemented(detail: &'static str) -> Self {
        Self::new(501, "not_implemented", detail)
    }

    /// 505: an HTTP version that we do not speak.
    pub(crate) const fn version_not_supported() -> Self {
        Self::new(505, "version_not_supported", "the HTTP version is not 1.0 or 1.1")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status, self.reason, self.detail)
    }
}

impl std::error::Error for Refusal {}
