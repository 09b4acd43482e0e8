//! The table in force, and what outlives it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwapOption;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use super::pair::{Certificate, Fault, Part};
use super::self_signed;
use super::table::{Sessions, Table};
use super::tickets::TicketKeys;

/// One a process.
#[derive(Default)]
pub struct Keeper {
    table: ArcSwapOption<Table>,
    /// Certificates by the digest of what they were read from, with what was said of them.
    known: Mutex<HashMap<[u8; 32], Known>>,
    own: Mutex<Option<Arc<Certificate>>>,
    tickets: Arc<TicketKeys>,
    changed: Notify,
}

struct Known {
    held: Weak<Certificate>,
    /// Whether it was valid then: what is said of it changes with that.
    valid: bool,
    notes: Vec<String>,
}

impl Keeper {
    /// The table in force.
    pub fn table(&self) -> Option<Arc<Table>> {
        self.table.load_full()
    }

    /// Puts a table in force for connections to come; whether that changes anything.
    pub fn store(&self, table: Arc<Table>) -> bool {
        let changes = self.table.load().as_ref().is_none_or(|old| !old.is_like(&table));
        if changes {
            self.table.store(Some(table));
            self.changed.notify_one();
            self.known.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, known| known.held.strong_count() > 0);
        }
        changes
    }

    /// Reads a pair, or finds the one that was read from the same bytes before: with its staple, and for little work.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn load(&self, certificates: &[u8], key: &[u8], now: i64) -> Result<(Arc<Certificate>, Vec<String>), Fault> {
        let mut hash = Sha256::new();
        hash.update((certificates.len() as u64).to_le_bytes());
        hash.update(certificates);
        hash.update(key);
        let read_from: [u8; 32] = hash.finalize().into();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Known { held, valid, notes }) = known.get(&read_from)
            && let Some(same) = held.upgrade().filter(|same| same.is_valid_at(now) == *valid)
        {
            return Ok((same, notes.clone()));
        }
        let (loaded, notes) = Certificate::load(certificates, key, now)?;
        let loaded = Arc::new(loaded);
        let valid = loaded.is_valid_at(now);
        known.insert(read_from, Known { held: Arc::downgrade(&loaded), valid, notes: notes.clone() });
        Ok((loaded, notes))
    }

    /// The self-signed certificate of this process, made anew when it has expired.
    ///
    /// # Errors
    /// When none can be made.
    pub fn self_signed(&self, now: i64) -> Result<Arc<Certificate>, Fault> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = own.as_ref().filter(|own| own.is_valid_at(now)) {
            return Ok(own.clone());
        }
        let fault = |error: rcgen::Error| Fault {
            part: Part::Certificate,
            message: format!("cannot be made ({error})"),
            remedy: "set gateway.tls.default",
        };
        let (pem, key) = self_signed::make().map_err(fault)?;
        let made = Arc::new(Certificate::load(pem.as_bytes(), key.as_bytes(), now)?.0);
        *own = Some(made.clone());
        Ok(made)
    }

    /// Resolves once when another table is in force.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Keys of session tickets.
    pub fn tickets(&self) -> &Arc<TicketKeys> {
        &self.tickets
    }

    /// The sessions of the table in force under this policy.
    pub(super) fn sessions(&self, policy: [u8; 32]) -> Option<Arc<Sessions>> {
        self.table.load().as_ref()?.sessions(policy).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::self_signed::testing::{Issuer, leaf};
    use crate::tls::{ClientAuth, IndexBuilder, Least, Settings};

    const NOW: i64 = 1_800_000_000;

    fn settings(clients: Option<ClientAuth>) -> Settings {
        Settings { least: Least::Tls12, alpn: vec!["h2".into(), "http/1.1".into()], clients, ask_responders: true }
    }

    fn table(keeper: &Keeper, settings: &Settings) -> Arc<Table> {
        let own = keeper.self_signed(NOW).expect("one");
        let index = IndexBuilder::new(own.clone(), NOW).build();
        Arc::new(Table::build(settings, index, vec![own], keeper).expect("sound settings"))
    }

    #[test]
    fn what_did_not_change_is_found_again() {
        let keeper = Keeper::default();
        let (pem, key) = leaf(&["a.test"]);
        let read = || keeper.load(pem.as_bytes(), key.as_bytes(), NOW).expect("a sound pair").0;
        let first = read();
        assert!(Arc::ptr_eq(&first, &read()));
        assert!(Arc::ptr_eq(&keeper.self_signed(NOW).unwrap(), &keeper.self_signed(NOW).unwrap()));
        assert!(keeper.store(table(&keeper, &settings(None))));
        assert!(!keeper.store(table(&keeper, &settings(None))), "the same again is no change");
    }

    #[test]
    fn sessions_end_with_the_policy_that_they_were_made_under() {
        let keeper = Keeper::default();
        let clients = |issuer: &Issuer, required| {
            let authorities = issuer.pem().into_bytes();
            Some(ClientAuth { authorities, required, hosts: vec!["a.test".into()] })
        };
        let (one, two) = (Issuer::new("one"), Issuer::new("two"));
        let sessions = |clients: Option<ClientAuth>| {
            let policy = clients.as_ref().map(ClientAuth::digest).unwrap_or([0; 32]);
            keeper.store(table(&keeper, &settings(clients)));
            keeper.sessions(policy).expect("some")
        };
        let first = sessions(clients(&one, true));
        assert!(Arc::ptr_eq(&first, &sessions(clients(&one, true))));
        assert!(!Arc::ptr_eq(&first, &sessions(clients(&two, true))), "another authority");
        assert!(!Arc::ptr_eq(&first, &sessions(clients(&one, false))), "required or not");
        assert!(Arc::ptr_eq(&sessions(None), &sessions(None)));
    }
}
