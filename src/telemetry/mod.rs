//! What the gateway tells about itself: metrics, log, access log.
//!
//! * [`metrics`] counts; [`table`] declares every metric once, [`route`] holds the handles that a route resolves when it
//!   is compiled, so that a request looks nothing up by name.
//! * [`log`] sets up the process's log; one thread writes it, behind a bounded queue.
//! * [`access`] is the line that each routed request leaves.
//!
//! Nothing here makes a request wait: counting is a handful of atomic additions, logging is one push into the queue, and
//! a full queue drops lines and says how many.

pub mod access;
pub mod caches;
mod cells;
pub mod format;
pub mod log;
pub mod metrics;
mod page;
mod process;
mod queue;
pub mod redact;
mod rotate;
pub mod route;
pub mod table;
pub mod visitors;
mod writer;
