//! Slow password checks away from the threads that carry requests.
//!
//! A few threads of low priority check passwords, for clients in turns; a full queue is told at once, and a client that fills
//! it makes room for others. What was right is remembered for a while
//! under a keyed hash, so that neither password nor plain hash of it is kept; logins with the same credentials at the same
//! time are checked once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;

use super::line::{Full, Line};
use super::secret::Stored;
use crate::middleware::auth::network;
use crate::middleware::remember::{Digest, Remember};

/// How long a right password is remembered.
const REMEMBER: Duration = Duration::from_secs(300);
/// How many checks may wait.
const QUEUE: usize = 256;

/// Checks passwords; one a process.
pub struct Checker {
    right: Remember<()>,
    pending: Mutex<Pending>,
    queue: OnceLock<Arc<Line<Job>>>,
}

/// Checks under way, with those who wait for them.
type Pending = HashMap<Digest, watch::Receiver<Option<bool>>>;

struct Job {
    stored: Stored,
    password: String,
    digest: Digest,
    done: watch::Sender<Option<bool>>,
}

/// The queue is full, or others had more right to a place in it: nobody can say whether the password is right.
#[derive(Debug, PartialEq, Eq)]
pub struct Busy;

impl Default for Checker {
    fn default() -> Checker {
        Checker { right: Remember::new(REMEMBER), pending: Mutex::default(), queue: OnceLock::new() }
    }
}

impl Checker {
    /// Whether these credentials were right a short time ago.
    pub fn remembers(&self, user: &str, password: &str, stored: &Stored) -> bool {
        self.right.recall(&self.digest(user, password, stored)).is_some()
    }

    /// Checks a password on a thread of low priority, when it is this client's turn. A network of IPv6 is one client.
    ///
    /// # Errors
    /// When too many checks are waiting already.
    pub async fn check(
        self: &Arc<Self>,
        client: IpAddr,
        user: &str,
        password: &str,
        stored: &Stored,
    ) -> Result<bool, Busy> {
        let digest = self.digest(user, password, stored);
        let mut result = self.join(network(client), digest, password, stored)?;
        match result.wait_for(Option::is_some).await {
            Ok(right) => right.ok_or(Busy),
            Err(_) => Err(Busy),
        }
    }

    /// Joins a check of the same credentials that is under way, or begins one.
    fn join(
        self: &Arc<Self>,
        client: IpAddr,
        digest: Digest,
        password: &str,
        stored: &Stored,
    ) -> Result<watch::Receiver<Option<bool>>, Busy> {
        let mut pending = self.pending();
        if let Some(result) = pending.get(&digest) {
            return Ok(result.clone());
        }
        let (done, result) = watch::channel(None);
        let job = Job { stored: stored.clone(), password: password.to_owned(), digest, done };
        // Whoever waits for a check that makes room is told by its end.
        if let Some(left) = self.queue().push(client, job).map_err(|Full| Busy)? {
            pending.remove(&left.digest);
        }
        pending.insert(digest, result.clone());
        Ok(result)
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queue; its threads start with the first slow check.
    fn queue(self: &Arc<Self>) -> &Line<Job> {
        self.queue.get_or_init(|| {
            let line = Arc::new(Line::new(QUEUE));
            let threads = thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1));
            for _ in 0..threads {
                let (line, checker) = (line.clone(), Arc::downgrade(self));
                let work = move || {
                    lower_priority();
                    while let (Some(job), Some(checker)) = (line.next(), checker.upgrade()) {
                        checker.run(&job);
                    }
                };
                if let Err(error) = thread::Builder::new().name("passwords".into()).spawn(work) {
                    log::error!("No thread to check passwords on: {error}");
                }
            }
            line
        })
    }

    fn run(&self, job: &Job) {
        let right = job.stored.takes(&job.password);
        if right {
            self.right.keep(job.digest, ());
        }
        self.pending().remove(&job.digest);
        // Whoever asked may be gone.
        let _ = job.done.send(Some(right));
    }

    fn digest(&self, user: &str, password: &str, stored: &Stored) -> Digest {
        self.right.digest([user.as_bytes(), password.as_bytes(), stored.text()])
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        if let Some(line) = self.queue.get() {
            line.close();
        }
    }
}

/// Requests go first wherever both want the processor.
#[allow(unsafe_code, reason = "a plain number to libc; proven below")]
fn lower_priority() {
    // SAFETY: takes three numbers and no memory; 0 names the calling thread on Linux. A refusal changes nothing.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) };
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCRYPT: &str = "$2y$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu";

    const ANN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    #[tokio::test]
    async fn a_right_password_is_remembered_and_a_wrong_one_is_not() {
        let checker = Arc::new(Checker::default());
        let stored = Stored::read(BCRYPT).expect("a hash");
        assert!(!checker.remembers("ann", "password", &stored));
        assert_eq!(checker.check(ANN, "ann", "password", &stored).await, Ok(true));
        assert_eq!(checker.check(ANN, "ann", "wrong", &stored).await, Ok(false));
        assert!(checker.remembers("ann", "password", &stored));
        for (user, password) in [("ann", "wrong"), ("bob", "password"), ("annp", "assword")] {
            assert!(!checker.remembers(user, password, &stored), "{user}:{password}");
        }
        let other = Stored::read(&BCRYPT.replace("2y", "2b")).expect("a hash");
        assert!(!checker.remembers("ann", "password", &other), "a changed hash asks again");
    }

    #[tokio::test]
    async fn a_full_queue_is_told_at_once() {
        let checker = Arc::new(Checker::default());
        let stored = Stored::read(&BCRYPT.replace("$05$", "$12$")).expect("a hash");
        let logins = (0..QUEUE + 20).map(|n| {
            let (checker, stored) = (checker.clone(), stored.clone());
            async move {
                let password = n.to_string();
                checker.join(ANN, checker.digest("ann", &password, &stored), &password, &stored).err()
            }
        });
        let busy = futures::future::join_all(logins).await.into_iter().flatten().count();
        assert!((1..=20).contains(&busy), "{busy} told");
    }

    #[tokio::test]
    async fn a_client_that_fills_the_queue_keeps_nobody_out() {
        let checker = Arc::new(Checker::default());
        let slow = Stored::read(&BCRYPT.replace("$05$", "$12$")).expect("a hash");
        let stored = Stored::read(BCRYPT).expect("a hash");
        let mut flood = Vec::new();
        for n in 0..QUEUE + 20 {
            let password = n.to_string();
            flood.extend(checker.join(ANN, checker.digest("ann", &password, &slow), &password, &slow));
        }
        let bob = [10, 0, 0, 2].into();
        assert_eq!(checker.check(bob, "bob", "password", &stored).await, Ok(true), "behind at most a check a thread");
        let told = flood.iter_mut().filter(|result| result.has_changed().is_err()).count();
        assert!(told >= 1, "the one that made room is told");
        assert!(
            flood.iter().filter(|result| result.borrow().is_none()).count() > QUEUE / 2,
            "bob did not wait for them"
        );
    }
}
