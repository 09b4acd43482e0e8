//! Which country an address is in: a MaxMind database, kept up to date while it is in use.
//!
//! There is one [`Database`] a file, whoever uses it. It lives as long as a snapshot does that asks it, and looks at its file
//! now and then ([`GeoIp::refresh`]): a new one takes its place whole, a broken one is told and the old one stays.

mod lands;
mod mmdb;

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;

pub use lands::Country;
use lands::Lands;

/// Where Goma looks for a database when none is named.
pub const USUAL: [&str; 2] = ["/etc/goma/country.mmdb", "/etc/goma/GeoLite2-Country.mmdb"];

/// All databases that are in use.
#[derive(Debug, Default)]
pub struct GeoIp {
    databases: Mutex<HashMap<PathBuf, Weak<Database>>>,
}

/// One database, or the lack of it.
#[derive(Debug)]
pub struct Database {
    path: PathBuf,
    lands: ArcSwapOption<Lands>,
    seen: Mutex<Seen>,
}

/// What is known of the file.
#[derive(Debug, Default)]
struct Seen {
    /// What was read last.
    read: Option<Stamp>,
    /// What the last look found; read when it looks the same twice.
    last: Option<Stamp>,
    /// Why there is no database; empty when there is one.
    trouble: String,
}

/// Changes with the file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl GeoIp {
    /// The database at this path, or at the first of the usual places that has one. Read when it is asked for first; a file
    /// that is missing or broken then can still come.
    pub fn database(&self, path: &str) -> Arc<Database> {
        let usual = || USUAL.iter().find(|path| Path::new(path).exists()).unwrap_or(&USUAL[0]);
        let path = PathBuf::from(if path.is_empty() { usual() } else { path });
        let mut databases = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = databases.get(&path).and_then(Weak::upgrade) {
            return known;
        }
        let database = Arc::new(Database::open(path.clone()));
        databases.insert(path, Arc::downgrade(&database));
        database
    }

    /// Looks whether files have changed, and reads those that have. Blocks; call it once in a while.
    pub fn refresh(&self) {
        let databases: Vec<Arc<Database>> = {
            let mut databases = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
            databases.retain(|_, database| database.strong_count() > 0);
            databases.values().filter_map(Weak::upgrade).collect()
        };
        databases.iter().for_each(|database| database.refresh());
    }
}

impl Database {
    fn open(path: PathBuf) -> Database {
        let stamp = Stamp::of(&path);
        let seen = Mutex::new(Seen { last: stamp.clone(), ..Seen::default() });
        let database = Database { path, lands: ArcSwapOption::empty(), seen };
        // What is wrong is kept for who asks.
        let _ = database.read(stamp);
        database
    }

    /// The country of an address; `None` when the database does not know it, or is not there. A binary search.
    pub fn country(&self, address: IpAddr) -> Option<Country> {
        self.lands.load().as_ref().and_then(|lands| lands.country(address))
    }

    /// Why there is no database, in words; `None` when there is one.
    pub fn trouble(&self) -> Option<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        self.lands.load().is_none().then(|| format!("{}: {}", self.path.display(), seen.trouble))
    }

    /// Reads the file if it is another one than before and stands still since the last look.
    fn refresh(&self) {
        let now = Stamp::of(&self.path);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let still = seen.last == now;
        seen.last = now.clone();
        if !still || now.is_none() || seen.read == now {
            return;
        }
        drop(seen);
        match self.read(now) {
            Ok(()) => log::info!(file:% = self.path.display(); "The country database was read"),
            Err(error) => {
                log::error!(file:% = self.path.display(); "The country database was not read, the old one stays: {error}")
            }
        }
    }

    fn read(&self, stamp: Option<Stamp>) -> Result<(), String> {
        let lands = fs::read(&self.path).map_err(|error| error.to_string());
        let lands = lands.and_then(|bytes| mmdb::read(&bytes).map_err(|error| error.to_string()));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.read = stamp;
        match lands {
            Ok(lands) => {
                self.lands.store(Some(Arc::new(lands)));
                Ok(())
            }
            Err(error) => {
                seen.trouble.clone_from(&error);
                Err(error)
            }
        }
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Stamp> {
        use std::os::unix::fs::MetadataExt;
        let found = fs::metadata(path).ok()?;
        Some(Stamp { inode: found.ino(), bytes: found.len(), modified: found.modified().ok() })
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
#[path = "../../tests/it/world/mmdb.rs"]
mod writer;
