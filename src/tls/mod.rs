//! Ending TLS: certificates by server name, certificates of clients, resumption, stapling.
//!
//! A [`Table`] is compiled from settings, immutable, and swapped whole in the [`Keeper`], which also holds what outlives a
//! table: ticket keys, certificates that are the same as before, the self-signed default. A connection keeps the table
//! that it began with; a swap touches none.
//!
//! | page | what |
//! |---|---|
//! | [`pair`] | a certificate and its key, checked when loaded |
//! | [`folder`] | which files of a folder belong together |
//! | [`index`] | from the name that a client asks for to certificates |
//! | [`clients`] | who must show a certificate, who may have signed it, what backends hear of it |
//! | [`tickets`] | keys of session tickets, rotated and handed to the next process |
//! | [`ocsp`] | what authorities say of certificates by now: asked, checked, sent along |
//! | [`table`] | the whole, as rustls takes it |
//! | [`keeper`] | the table in force and what it hands to the next |

pub mod clients;
pub mod folder;
pub mod index;
pub mod keeper;
pub mod ocsp;
pub mod pair;
pub mod self_signed;
pub mod table;
pub mod tickets;

pub use clients::{ClientAuth, ClientCertificate, Names};
pub use index::{Index, IndexBuilder};
pub use keeper::Keeper;
pub use pair::{Certificate, Fault, Part};
pub use table::{Least, Settings, Table};
pub use tickets::TicketKeys;

/// Seconds since 1970.
pub fn unix_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
