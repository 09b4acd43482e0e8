//! Where dynamic configuration comes from. So far: files that change.
//!
//! [`Watch`] says *that* something changed; reading and comparing it is `config`'s and the server's.

mod scan;
mod watch;

pub use watch::{Depth, Watch, Watched};
