//! Connections to a directory: one that searches as the service account, and a few that users are bound on.
//!
//! Operations of several requests share the searching connection; a bind changes who a connection speaks for, so each
//! binding connection serves one login at a time. A kept connection that turns out dead is replaced once.

use std::sync::Arc;
use std::time::Duration;

use ldap3::{
    DerefAliases, Ldap, LdapConnAsync, LdapConnSettings, LdapError, Scope, SearchEntry, SearchOptions, ldap_escape,
};
use rustls::ClientConfig;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

/// How to reach and ask a directory.
pub struct Settings {
    /// `ldap://` or `ldaps://`.
    pub url: String,
    /// Where users are searched.
    pub base: String,
    /// The filter before and behind the name.
    pub filter: (String, String),
    /// Who searches; empty: anonymous.
    pub bind_dn: String,
    /// Its password.
    pub bind_pass: String,
    /// Whether to encrypt before anything is said.
    pub start_tls: bool,
    /// How to encrypt.
    pub tls: Arc<ClientConfig>,
    /// How long each operation may take.
    pub timeout: Duration,
}

/// A directory with its connections.
pub struct Directory {
    settings: Settings,
    search: Mutex<Option<Ldap>>,
    binding: std::sync::Mutex<Vec<Ldap>>,
    /// Logins that may be under way at once.
    permits: Semaphore,
}

/// What came of a login.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// The user is known and the password is right.
    Right,
    /// The password is wrong, or the directory does not let this user in.
    Wrong,
    /// No such user.
    Nobody,
    /// The filter does not tell users apart.
    Several,
}

/// The directory could not be asked, and why: for the log.
#[derive(Debug)]
pub struct Unreachable(pub String);

impl From<LdapError> for Unreachable {
    fn from(error: LdapError) -> Unreachable {
        Unreachable(error.to_string())
    }
}

/// Result code of a bind with a wrong password. RFC 4511 appendix A.
const INVALID_CREDENTIALS: u32 = 49;
/// Codes of a bind that fails for other reasons than the credentials: busy, unavailable, unwilling for now.
const NOT_NOW: [u32; 3] = [51, 52, 80];
/// Most connections for binding.
const MOST: u32 = 64;

/// Whether a text is a search filter.
pub fn is_filter(text: &str) -> bool {
    ldap3::parse_filter(text).is_ok()
}

impl Directory {
    /// A directory that nobody has asked yet; `logins` may be under way at once.
    pub fn new(settings: Settings, logins: u32) -> Directory {
        let logins = logins.clamp(1, MOST) as usize;
        Directory {
            settings,
            search: Mutex::default(),
            binding: std::sync::Mutex::default(),
            permits: Semaphore::new(logins),
        }
    }

    /// Searches the user and binds as it.
    ///
    /// # Errors
    /// When the directory cannot be asked, or does not answer in time.
    pub async fn login(&self, user: &str, password: &str) -> Result<Found, Unreachable> {
        let permit = timeout(self.settings.timeout, self.permits.acquire()).await;
        let _permit = permit.map_err(|_| Unreachable("too many logins are under way".into()))?;
        let mut users = match self.search(user).await {
            // The connection that was kept may have died of age.
            Err(Failed::Kept(_)) => self.search(user).await.map_err(Failed::into_inner)?,
            other => other.map_err(Failed::into_inner)?,
        };
        match (users.pop(), users.is_empty()) {
            (Some(dn), true) => self.bind(&dn, password).await,
            (Some(_), false) => Ok(Found::Several),
            (None, _) => {
                // As many questions as for a user who is there: the time that passes does not tell who is.
                self.bind(&self.settings.base, password).await?;
                Ok(Found::Nobody)
            }
        }
    }

    /// Names of the entries that the filter finds: two at most.
    async fn search(&self, user: &str) -> Result<Vec<String>, Failed> {
        let (mut ldap, kept) = self.searcher().await.map_err(Failed::New)?;
        let (before, after) = &self.settings.filter;
        let filter = format!("{before}{}{after}", ldap_escape(user));
        let options = SearchOptions::new().deref(DerefAliases::Never).sizelimit(2);
        ldap.with_search_options(options).with_timeout(self.settings.timeout);
        let found = ldap.search(&self.settings.base, Scope::Subtree, &filter, ["1.1"]).await;
        match found {
            // 4: the size limit; more than one is all that counts.
            Ok(found) if [0, 4].contains(&found.1.rc) => {
                Ok(found.0.into_iter().map(|entry| SearchEntry::construct(entry).dn).collect())
            }
            Ok(found) if found.1.rc == 32 => Ok(Vec::new()),
            Ok(found) => {
                self.search.lock().await.take();
                Err(Failed::New(Unreachable(format!("the search was refused with code {}", found.1.rc))))
            }
            Err(error) => {
                self.search.lock().await.take();
                let error = error.into();
                Err(if kept { Failed::Kept(error) } else { Failed::New(error) })
            }
        }
    }

    /// The connection that searches, and whether it was kept.
    async fn searcher(&self) -> Result<(Ldap, bool), Unreachable> {
        let mut place = self.search.lock().await;
        if let Some(ldap) = place.as_mut()
            && !ldap.is_closed()
        {
            return Ok((ldap.clone(), true));
        }
        let mut ldap = self.connect().await?;
        if !self.settings.bind_dn.is_empty() && !self.settings.bind_pass.is_empty() {
            ldap.with_timeout(self.settings.timeout);
            let bound = ldap.simple_bind(&self.settings.bind_dn, &self.settings.bind_pass).await?;
            if bound.rc != 0 {
                return Err(Unreachable(format!("bindDN was refused with code {}", bound.rc)));
            }
        }
        *place = Some(ldap.clone());
        Ok((ldap, false))
    }

    async fn bind(&self, dn: &str, password: &str) -> Result<Found, Unreachable> {
        let kept = self.binding().pop();
        if let Some(mut ldap) = kept
            && !ldap.is_closed()
            && let Ok(found) = self.bind_on(&mut ldap, dn, password).await
        {
            self.binding().push(ldap);
            return Ok(found);
        }
        let mut ldap = self.connect().await?;
        let found = self.bind_on(&mut ldap, dn, password).await?;
        self.binding().push(ldap);
        Ok(found)
    }

    async fn bind_on(&self, ldap: &mut Ldap, dn: &str, password: &str) -> Result<Found, Unreachable> {
        ldap.with_timeout(self.settings.timeout);
        match ldap.simple_bind(dn, password).await?.rc {
            0 => Ok(Found::Right),
            code if NOT_NOW.contains(&code) => Err(Unreachable(format!("the bind was put off with code {code}"))),
            code => {
                if code != INVALID_CREDENTIALS {
                    log::debug!("The directory refused a user's bind with code {code}");
                }
                Ok(Found::Wrong)
            }
        }
    }

    fn binding(&self) -> std::sync::MutexGuard<'_, Vec<Ldap>> {
        self.binding.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn connect(&self) -> Result<Ldap, Unreachable> {
        let settings = LdapConnSettings::new()
            .set_conn_timeout(self.settings.timeout)
            .set_starttls(self.settings.start_tls)
            .set_config(self.settings.tls.clone());
        let connecting = LdapConnAsync::with_settings(settings, &self.settings.url);
        let connected = timeout(self.settings.timeout, connecting).await;
        let (connection, ldap) = connected.map_err(|_| Unreachable("no connection in time".into()))??;
        tokio::spawn(async move {
            if let Err(error) = connection.drive().await {
                log::debug!("A connection to the directory ended: {error}");
            }
        });
        Ok(ldap)
    }
}

/// A search that failed, on a connection that was kept or on a new one.
enum Failed {
    Kept(Unreachable),
    New(Unreachable),
}

impl Failed {
    fn into_inner(self) -> Unreachable {
        let (Failed::Kept(inner) | Failed::New(inner)) = self;
        inner
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_told_from_other_texts() {
        for (text, is) in [
            ("(uid=x)", true),
            ("(&(uid=x)(objectClass=person))", true),
            ("uid=x", true),
            ("(uid=x", false),
            ("", false),
        ] {
            assert_eq!(is_filter(text), is, "{text}");
        }
    }
}
