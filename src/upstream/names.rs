//! Names and their addresses, kept fresh in the background.
//!
//! Each name that a backend uses has one task: look up, publish, sleep until shortly before the answer expires,
//! again. A request that finds addresses never waits; when look-ups fail the last addresses go on. Only a request
//! that comes before the first answer waits, all such requests for the same look-up. The task ends with the last
//! backend of that name.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use super::lookup::{Lookup, LookupError};

/// The addresses of one name at one time; at least one, IPv4 first.
pub(super) type Addresses = Box<[IpAddr]>;

/// Why there is no address to connect to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// The name service did not answer in time: a gateway time-out.
    #[error("no answer in time for the name {host}")]
    TimedOut {
        /// The name.
        host: String,
    },
    /// The name service says that there is none: a bad gateway.
    #[error("no address for {host}: {reason}")]
    Failed {
        /// The name.
        host: String,
        /// Its words.
        reason: String,
    },
}

/// All names in use.
pub(super) struct Names {
    lookup: Arc<Lookup>,
    handle: Option<Handle>,
    known: Mutex<HashMap<String, Weak<Name>>>,
}

/// One name.
pub(super) struct Name {
    shared: Arc<Shared>,
    task: Option<AbortHandle>,
}

struct Shared {
    host: String,
    addresses: ArcSwapOption<Addresses>,
    state: watch::Sender<State>,
    refresh: Notify,
}

#[derive(Clone, Debug)]
enum State {
    Pending,
    Known,
    Missing(LookupError),
}

impl Names {
    /// Without a runtime nothing is looked up: good enough to check a configuration.
    pub fn new(lookup: Lookup, handle: Option<Handle>) -> Self {
        let lookup = Arc::new(lookup);
        let known = Mutex::default();
        Self { lookup, handle, known }
    }

    /// The name as it is known, or a new one whose first look-up starts now.
    pub fn name(&self, host: &str) -> Arc<Name> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = known.get(host).and_then(Weak::upgrade) {
            return name;
        }
        let name = Arc::new(Name::start(host, self.lookup.clone(), self.handle.as_ref()));
        if known.len() == known.capacity() {
            // Names of redirected health checks come and go between two sweeps.
            known.retain(|_, name| name.strong_count() > 0);
        }
        known.insert(host.to_owned(), Arc::downgrade(&name));
        name
    }

    /// Forgets names that nobody uses.
    pub fn sweep(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, name| name.strong_count() > 0);
    }

    /// Looks every resolved name up again now; the old addresses serve until the answer is here.
    pub fn refresh(&self) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for name in known.values().filter_map(Weak::upgrade) {
            if name.shared.addresses.load().is_some() {
                name.shared.refresh.notify_one();
            }
        }
    }
}

impl Name {
    fn start(host: &str, lookup: Arc<Lookup>, handle: Option<&Handle>) -> Self {
        let shared = Arc::new(Shared::new(host));
        let task = handle.map(|handle| {
            let shared = shared.clone();
            handle.spawn(keep_fresh(shared, lookup)).abort_handle()
        });
        Self { shared, task }
    }

    /// What is known now, without waiting.
    pub fn known(&self) -> Option<Arc<Addresses>> {
        self.shared.addresses.load_full()
    }

    /// As [`known`](Self::known), without a reference count: for the path of a request.
    pub fn with_known<T>(&self, use_them: impl FnOnce(&[IpAddr]) -> T) -> Option<T> {
        self.shared.addresses.load().as_ref().map(|ips| use_them(ips))
    }

    /// What is known, or will be within `limit`.
    pub async fn addresses(&self, limit: Duration) -> Result<Arc<Addresses>, Unresolved> {
        if let Some(addresses) = self.known() {
            return Ok(addresses);
        }
        let mut state = self.shared.state.subscribe();
        let decided = state.wait_for(|state| !matches!(state, State::Pending));
        let missing = match tokio::time::timeout(limit, decided).await {
            Ok(Ok(state)) => match &*state {
                State::Missing(error) => error.clone(),
                State::Pending | State::Known => LookupError::TimedOut,
            },
            _ => LookupError::TimedOut,
        };
        self.known().ok_or_else(|| self.unresolved(missing))
    }

    fn unresolved(&self, error: LookupError) -> Unresolved {
        let host = self.shared.host.clone();
        match error {
            LookupError::TimedOut => Unresolved::TimedOut { host },
            LookupError::Failed(reason) => Unresolved::Failed { host, reason },
        }
    }
}

#[cfg(test)]
impl Name {
    /// A name that nobody looks up.
    pub fn fixed(host: &str, ips: &[IpAddr]) -> Self {
        let shared = Shared::new(host);
        shared.publish(ips.into());
        Self { shared: Arc::new(shared), task: None }
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn keep_fresh(shared: Arc<Shared>, lookup: Arc<Lookup>) {
    let mut failures = 0;
    loop {
        let pause = match lookup.find(&shared.host).await {
            Ok(answer) => {
                failures = 0;
                shared.publish(answer.ips.into());
                // A tenth before the end, so that a look-up of ordinary length ends before the answer does.
                answer.ttl.mul_f64(0.9)
            }
            Err(error) => {
                failures += 1;
                shared.fail(error, failures);
                RETRY_STEP.saturating_mul(failures).min(RETRY_LONGEST)
            }
        };
        let _ = tokio::time::timeout(pause, shared.refresh.notified()).await;
    }
}

impl Shared {
    fn new(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            addresses: ArcSwapOption::empty(),
            state: watch::Sender::new(State::Pending),
            refresh: Notify::new(),
        }
    }

    fn publish(&self, addresses: Addresses) {
        self.addresses.store(Some(Arc::new(addresses)));
        self.state.send_replace(State::Known);
    }

    fn fail(&self, error: LookupError, failures: u32) {
        let stale = self.addresses.load().is_some();
        if failures == 1 {
            let serving = if stale { "; the last addresses go on" } else { "" };
            log::warn!(target: "dns", host = self.host.as_str(); "no addresses for {}: {}{serving}",
                self.host, reason(&error));
        }
        if !stale {
            self.state.send_replace(State::Missing(error));
        }
    }
}

fn reason(error: &LookupError) -> &str {
    match error {
        LookupError::TimedOut => "no answer in time",
        LookupError::Failed(reason) => reason,
    }
}

const RETRY_STEP: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::lookup::tests::Server;
    use super::super::testing::until;
    use super::*;

    fn names(server: &Server) -> Names {
        Names::new(Lookup::new(server.settings()), Some(Handle::current()))
    }

    #[tokio::test]
    async fn all_first_requests_share_one_look_up() {
        let server = Server::start(300, &[[10, 0, 0, 1]]).await;
        let names = names(&server);
        let name = names.name("app.test");
        let (a, b) = tokio::join!(name.addresses(Duration::from_secs(5)), name.addresses(Duration::from_secs(5)));
        assert_eq!(a.unwrap(), b.unwrap());
        assert!(Arc::ptr_eq(&name, &names.name("app.test")));
        // One question for IPv4, one for IPv6.
        assert_eq!(server.queries.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_changed_record_is_followed_and_a_vanished_one_is_kept() {
        let server = Server::start(0, &[[10, 0, 0, 1]]).await;
        let names = names(&server);
        let name = names.name("app.test");
        name.addresses(Duration::from_secs(5)).await.unwrap();
        server.change(&[[10, 0, 0, 2]]);
        until("the new address", || name.known().unwrap()[..] == [IpAddr::from([10, 0, 0, 2])]).await;
        server.change(&[]);
        let before = server.queries.load(Ordering::SeqCst);
        until("another look-up", || server.queries.load(Ordering::SeqCst) > before + 2).await;
        assert_eq!(name.known().unwrap()[..], [IpAddr::from([10, 0, 0, 2])]);
    }

    #[tokio::test]
    async fn a_reload_asks_again_when_told_to() {
        let server = Server::start(300, &[[10, 0, 0, 1]]).await;
        let names = names(&server);
        let name = names.name("app.test");
        name.addresses(Duration::from_secs(5)).await.unwrap();
        server.change(&[[10, 0, 0, 2]]);
        names.refresh();
        until("the new address", || name.known().unwrap()[..] == [IpAddr::from([10, 0, 0, 2])]).await;
    }

    #[tokio::test]
    async fn an_unknown_name_fails_at_once_and_a_silent_server_times_out() {
        let server = Server::start(300, &[]).await;
        let name = names(&server).name("app.test");
        let error = name.addresses(Duration::from_secs(60)).await.unwrap_err();
        assert!(matches!(error, Unresolved::Failed { .. }), "{error}");

        let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut settings = server.settings();
        settings.resolvers = vec![silent.local_addr().unwrap()];
        let names = Names::new(Lookup::new(settings), Some(Handle::current()));
        let name = names.name("app.test");
        let error = name.addresses(Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(error, Unresolved::TimedOut { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_name_that_nobody_uses_is_forgotten() {
        let server = Server::start(0, &[[10, 0, 0, 1]]).await;
        let names = names(&server);
        let name = names.name("app.test");
        name.addresses(Duration::from_secs(5)).await.unwrap();
        let shared = Arc::downgrade(&name.shared);
        drop(name);
        names.sweep();
        assert!(names.known.lock().unwrap().is_empty());
        until("the task to end", || shared.strong_count() == 0).await;
    }
}
