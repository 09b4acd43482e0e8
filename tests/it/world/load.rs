//! Constant load: clients that keep their connections and expect every answer whole.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::task::JoinSet;

use super::client::{Connection, Request};
use super::{Gateway, eventually};

/// Clients at work, each sending its next request as soon as the last was answered.
pub struct Load {
    clients: JoinSet<Tally>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
}

/// What the clients met.
#[derive(Debug, Default)]
pub struct Tally {
    /// Whole answers, by status.
    pub answered: BTreeMap<u16, u64>,
    /// Requests on an accepted connection that got no whole answer: what they got instead.
    pub failures: Vec<String>,
    /// Whole answers with another body than expected.
    pub wrong: Vec<String>,
    /// Connections that were not accepted.
    pub refused: u64,
}

impl Tally {
    pub fn of(&self, status: u16) -> u64 {
        self.answered.get(&status).copied().unwrap_or(0)
    }

    /// # Panics
    /// Unless every answer was whole, as expected, and had one of these statuses.
    pub fn is_clean(&self, statuses: &[u16]) {
        assert!(self.failures.is_empty(), "{} requests got no whole answer: {:?}", self.failures.len(), self.some());
        assert!(self.wrong.is_empty(), "wrong answers: {:?}", &self.wrong[..self.wrong.len().min(5)]);
        let other = self.answered.keys().find(|status| !statuses.contains(status));
        assert!(other.is_none(), "unexpected statuses: {:?}", self.answered);
    }

    fn some(&self) -> &[String] {
        &self.failures[..self.failures.len().min(5)]
    }

    pub(super) fn add(&mut self, other: Tally) {
        for (status, count) in other.answered {
            *self.answered.entry(status).or_default() += count;
        }
        self.failures.extend(other.failures);
        self.wrong.extend(other.wrong);
        self.refused += other.refused;
    }
}

impl Load {
    /// So many clients of the gateway that get this target and, with status 200, expect this body.
    pub fn start(gateway: &Gateway, clients: usize, target: &str, body: &str) -> Load {
        Load::of(clients, &gateway.get(target), body)
    }

    /// The same with any request; one with `Connection: close` needs a new connection each time.
    pub fn of(clients: usize, request: &Request, body: &str) -> Load {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            tasks.spawn(client(request.port(), request.clone(), body.to_owned(), stop.clone(), answered.clone()));
        }
        Load { clients: tasks, stop, answered }
    }

    /// Whole answers so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until so many more requests are answered.
    pub async fn goes_on(&self, more: u64) {
        let goal = self.answered() + more;
        eventually("the load goes on", async || (self.answered() >= goal).then_some(())).await;
    }

    /// Lets every client finish the request it is at.
    pub async fn stop(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Tally::default();
        while let Some(tally) = self.clients.join_next().await {
            total.add(tally.expect("a client does not panic"));
        }
        total
    }
}

async fn client(port: u16, request: Request, body: String, stop: Arc<AtomicBool>, answered: Arc<AtomicU64>) -> Tally {
    let mut tally = Tally::default();
    let mut kept = None;
    while !stop.load(Ordering::Relaxed) {
        let (mut connection, fresh) = match kept.take() {
            Some(connection) => (connection, false),
            None => match Connection::open(port).await {
                Ok(connection) => (connection, true),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    tally.refused += 1;
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                    continue;
                }
                Err(error) => {
                    tally.failures.push(format!("connecting: {error}"));
                    continue;
                }
            },
        };
        match connection.attempt(&request).await {
            Ok(reply) => {
                *tally.answered.entry(reply.status).or_default() += 1;
                answered.fetch_add(1, Ordering::Relaxed);
                if reply.status == 200 && reply.text() != body {
                    tally.wrong.push(reply.text());
                }
                kept = reply.keeps_alive().then_some(connection);
            }
            Err(error) => {
                tally.failures.push(format!("{}: {error}", if fresh { "a new connection" } else { "a kept one" }))
            }
        }
    }
    tally
}
