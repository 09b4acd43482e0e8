//! Key sets by URL, shared by everybody who names the same URL and kept across reloads.
//!
//! A set is fetched in the background: when it is first named, every [`REFRESH`], and when a token names a key that is not in
//! it. One fetch at a time, as many tokens as may ask for it; and only so often, so that made-up key ids do not become load on
//! the identity provider. A fetch that fails leaves the set as it was.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwapOption, Guard};
use http::header;
use reqwest::Url;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::jwks::KeySet;
use super::store::Keys;
use crate::outbound::{Answer, Client, Verify};

/// How often a set is fetched without being asked for.
const REFRESH: Duration = Duration::from_secs(600);
/// The longest time between two tries while they fail; the first is a second.
const RETRY: Duration = Duration::from_secs(30);
/// Fetches that unknown key ids may cause at once.
const ASKS: f64 = 2.0;
/// Time in which one more of them is granted.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// Limit of a fetch.
const FETCH: Duration = Duration::from_secs(5);
/// Largest answer, in bytes.
const LARGEST: usize = 512 * 1024;

/// The sets that are in use.
#[derive(Clone, Default)]
pub struct KeySets(Arc<Mutex<HashMap<String, Weak<Remote>>>>);

impl KeySets {
    /// The set at a URL. Without a handle nothing is fetched, and there are no keys.
    ///
    /// # Errors
    /// A sentence on what is wrong with the URL.
    pub fn at(&self, url: &str, handle: Option<&Handle>) -> Result<Arc<Remote>, String> {
        let mut sets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(remote) = sets.get(url).and_then(Weak::upgrade) {
            return Ok(remote);
        }
        let remote = Arc::new(Remote::new(url, handle)?);
        remote.start();
        sets.retain(|_, remote| remote.strong_count() > 0);
        sets.insert(url.to_owned(), Arc::downgrade(&remote));
        Ok(remote)
    }
}

/// A set at a URL.
pub struct Remote {
    url: Url,
    /// The URL without what may be secret in it.
    shown: String,
    client: Client,
    handle: Option<Handle>,
    keys: ArcSwapOption<Keys>,
    state: Mutex<State>,
    /// Counts fetches that ended.
    ended: watch::Sender<u64>,
}

struct State {
    flying: bool,
    /// Fetches that key ids may still cause, and since when that is so.
    asks: f64,
    counted: Instant,
    /// Fetches that failed in a row.
    failures: u32,
}

impl Remote {
    fn new(url: &str, handle: Option<&Handle>) -> Result<Remote, String> {
        let url = Url::parse(url).map_err(|error| format!("is no URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("is no URL of HTTP".to_owned());
        }
        let shown = format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path());
        let state = State { flying: false, asks: ASKS, counted: Instant::now(), failures: 0 };
        Ok(Remote {
            url,
            shown,
            client: Client::get(Verify::System)?,
            handle: handle.cloned(),
            keys: ArcSwapOption::empty(),
            state: Mutex::new(state),
            ended: watch::Sender::new(0),
        })
    }

    /// The keys, if there ever were any.
    pub fn keys(&self) -> Guard<Option<Arc<Keys>>> {
        self.keys.load()
    }

    /// Waits for the fetch that is under way, or for a new one if it is time for one; whether there was one.
    pub async fn refresh(self: &Arc<Self>) -> bool {
        let mut ended = self.ended.subscribe();
        {
            let mut state = self.state();
            let coming = state.flying || state.may_ask() && self.fly(&mut state);
            if !coming {
                return false;
            }
        }
        // The fetch has a limit of its own; this one is for a runtime that ends.
        let _ = tokio::time::timeout(FETCH * 2, ended.changed()).await;
        true
    }

    fn start(self: &Arc<Self>) {
        self.fly(&mut self.state());
        if let Some(handle) = &self.handle {
            handle.spawn(keep(Arc::downgrade(self), self.ended.subscribe()));
        }
    }

    /// Starts a fetch; whether it could. It goes on when whoever asked for it has gone.
    fn fly(self: &Arc<Self>, state: &mut State) -> bool {
        let Some(handle) = &self.handle else { return false };
        state.flying = true;
        let remote = self.clone();
        handle.spawn(async move {
            let landing = Landing(&remote);
            let fetched = remote.fetch().await;
            remote.take(fetched);
            drop(landing);
        });
        true
    }

    async fn fetch(&self) -> Result<KeySet, String> {
        let request = self.client.http().get(self.url.clone()).timeout(FETCH);
        let request = request.header(header::ACCEPT, "application/jwk-set+json, application/json");
        let answer = self.client.call(request, LARGEST).await.and_then(Answer::ok);
        let answer = answer.map_err(|error| error.to_string())?;
        KeySet::parse(&answer.body).map_err(|error| format!("the answer {error}"))
    }

    fn take(&self, fetched: Result<KeySet, String>) {
        let mut state = self.state();
        match fetched {
            Ok(set) => {
                // What the provider says counts, even this: it may be how it takes its keys back.
                if set.is_empty() {
                    log::warn!(target: "jwt", url = self.shown.as_str(); "The set of keys holds none for tokens");
                }
                log::debug!(target: "jwt", url = self.shown.as_str(), keys = set.len(); "Keys fetched");
                self.keys.store(Some(Arc::new(Keys::Named(set))));
                state.failures = 0;
            }
            Err(error) => {
                let stale = if self.keys.load().is_some() { "the ones at hand stay in use" } else { "there are none" };
                log::warn!(target: "jwt", url = self.shown.as_str(); "No keys fetched, {stale}: {error}");
                state.failures = state.failures.saturating_add(1);
            }
        }
    }

    /// How long to wait until the next fetch.
    fn pause(&self) -> Duration {
        match self.state().failures {
            0 => REFRESH,
            failures => RETRY.min(Duration::from_secs(1 << (failures - 1).min(6))),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes one of the fetches that key ids may cause.
    fn may_ask(&mut self) -> bool {
        let now = Instant::now();
        let earned = now.duration_since(self.counted).as_secs_f64() / ASK_EVERY.as_secs_f64();
        (self.asks, self.counted) = (ASKS.min(self.asks + earned), now);
        let granted = self.asks >= 1.0;
        self.asks -= if granted { 1.0 } else { 0.0 };
        granted
    }
}

/// Says that a fetch ended, however it ended.
struct Landing<'a>(&'a Remote);

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.0.state().flying = false;
        self.0.ended.send_modify(|count| *count += 1);
    }
}

/// Keeps a set fresh for as long as somebody uses it.
async fn keep(remote: Weak<Remote>, mut ended: watch::Receiver<u64>) {
    loop {
        let Some(pause) = remote.upgrade().map(|remote| remote.pause()) else { return };
        tokio::select! {
            // Another fetch ended, so the wait begins anew; or the set is gone.
            changed = ended.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {
                let Some(remote) = remote.upgrade() else { return };
                let mut state = remote.state();
                if !state.flying {
                    remote.fly(&mut state);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_cause_a_fetch_only_so_often() {
        let mut state = State { flying: false, asks: ASKS, counted: Instant::now(), failures: 0 };
        for (passed, granted) in [(0, 2), (3, 0), (3, 1), (3, 0), (600, 2)] {
            state.counted -= Duration::from_secs(passed);
            assert_eq!((0..100).filter(|_| state.may_ask()).count(), granted, "after {passed} seconds");
        }
    }

    #[test]
    fn waits_grow_while_fetches_fail() {
        let remote = Remote::new("http://127.0.0.1:1/", None).expect("a URL");
        let mut pauses = Vec::new();
        for failures in [0, 1, 2, 3, 5, 6, u32::MAX] {
            remote.state().failures = failures;
            pauses.push(remote.pause().as_secs());
        }
        assert_eq!(pauses, [600, 1, 2, 4, 16, 30, 30]);
    }

    #[test]
    fn a_set_is_shared_by_url_and_gone_with_its_last_user() {
        let sets = KeySets::default();
        let one = sets.at("http://127.0.0.1:1/a", None).expect("a URL");
        assert!(Arc::ptr_eq(&one, &sets.at("http://127.0.0.1:1/a", None).expect("a URL")));
        drop(one);
        let _other = sets.at("http://127.0.0.1:1/b", None).expect("a URL");
        assert_eq!(sets.0.lock().expect("not poisoned").len(), 1);
        for wrong in ["", "/keys", "ftp://127.0.0.1/", "file:///etc/passwd"] {
            assert!(sets.at(wrong, None).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_set_that_is_only_checked_fetches_nothing() {
        let remote = KeySets::default().at("http://127.0.0.1:1/", None).expect("a URL");
        assert!(!remote.refresh().await);
        assert!(remote.keys().is_none());
    }
}
