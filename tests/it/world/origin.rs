//! A scripted HTTP/1.1 origin that remembers what it saw.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use super::answer::Answer;
use super::echo;
use super::place;
use super::wire::{Headers, Wire};

/// One request as it came in. A body grows while it arrives.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub method: String,
    /// The request target, byte for byte.
    pub target: String,
    pub version: String,
    pub headers: Headers,
    /// The first MiB of the body.
    pub body: Bytes,
    /// All of the body, in bytes.
    pub length: u64,
    /// Whether the body, from its first byte, is that of [`Pattern`](super::Pattern).
    pub pattern: bool,
    pub trailers: Headers,
    /// Whether the request arrived to its end.
    pub whole: bool,
    /// Counted from 0 in the order in which the origin accepted them.
    pub connection: usize,
}

impl Seen {
    /// The first value of this header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.one(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// An origin on a port of its own. Shows itself as `http://127.0.0.1:PORT`.
pub struct Origin {
    port: u16,
    script: Arc<Script>,
    running: Mutex<Option<JoinHandle<()>>>,
}

/// What connections share.
pub(super) struct Script {
    answers: Mutex<HashMap<String, Answer>>,
    default: Mutex<Answer>,
    seen: Mutex<Vec<Seen>>,
    connections: Mutex<usize>,
    open: Mutex<usize>,
    pub(super) sent: AtomicU64,
    /// Leaves that were given and not yet taken.
    pub(super) leave: Semaphore,
}

impl Origin {
    pub async fn start() -> Origin {
        let listener = place::listen();
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let script = Arc::new(Script::new());
        let running = Mutex::new(Some(tokio::spawn(accept(listener, script.clone()))));
        Origin { port, script, running }
    }

    /// An origin that answers everything with this text: to tell several apart.
    pub async fn named(name: &str) -> Origin {
        let origin = Origin::start().await;
        origin.always(Answer::ok(name.to_owned()));
        origin
    }

    /// Answers requests of this path (without query) so.
    pub fn on(&self, path: &str, answer: Answer) {
        lock(&self.script.answers).insert(path.to_owned(), answer);
    }

    /// Answers everything else so; [`Answer::echo`] until then.
    pub fn always(&self, answer: Answer) {
        *lock(&self.script.default) = answer;
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`
    pub fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// All requests so far, in the order in which their heads arrived.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.script.seen).clone()
    }

    /// The latest request.
    pub fn last(&self) -> Seen {
        self.seen().pop().expect("the origin has seen a request")
    }

    pub fn saw_nothing(&self) -> bool {
        lock(&self.script.seen).is_empty()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        lock(&self.script.seen).clear();
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> usize {
        *lock(&self.script.connections)
    }

    /// How many of them are open.
    pub fn open(&self) -> usize {
        *lock(&self.script.open)
    }

    /// How many bytes of floods it could hand to the system.
    pub fn sent(&self) -> u64 {
        self.script.sent.load(Ordering::Relaxed)
    }

    /// Gives leave for what waits on a [`Piece::Hold`](super::Piece::Hold), now or later.
    pub fn release(&self) {
        self.script.leave.add_permits(1);
    }

    /// Closes its port and all of its connections, whatever they are doing.
    pub async fn stop(&self) {
        let running = lock(&self.running).take();
        if let Some(running) = running {
            running.abort();
            let _ = running.await;
        }
    }

    /// Comes back on the same port.
    pub async fn restart_on_same_port(&self) {
        self.stop().await;
        let listener = super::eventually("the origin's port is free again", async || place::listen_on(self.port).ok());
        *lock(&self.running) = Some(tokio::spawn(accept(listener.await, self.script.clone())));
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        if let Some(running) = lock(&self.running).take() {
            running.abort();
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "http://127.0.0.1:{}", self.port)
    }
}

impl Script {
    fn new() -> Script {
        Script {
            answers: Mutex::default(),
            default: Mutex::new(Answer::echo()),
            seen: Mutex::default(),
            connections: Mutex::default(),
            open: Mutex::default(),
            sent: AtomicU64::new(0),
            leave: Semaphore::new(0),
        }
    }

    pub(super) fn answer(&self, target: &str) -> Answer {
        let path = target.split('?').next().unwrap_or(target);
        let scripted = lock(&self.answers).get(path).cloned();
        scripted.unwrap_or_else(|| lock(&self.default).clone())
    }

    /// Remembers a request and says under which number.
    pub(super) fn note(&self, seen: Seen) -> usize {
        let mut all = lock(&self.seen);
        all.push(seen);
        all.len() - 1
    }

    /// Adds to a remembered request, unless it was forgotten meanwhile.
    pub(super) fn amend(&self, number: usize, amend: impl FnOnce(&mut Seen)) {
        if let Some(seen) = lock(&self.seen).get_mut(number) {
            amend(seen);
        }
    }

    fn opened(&self) -> usize {
        *lock(&self.open) += 1;
        let mut connections = lock(&self.connections);
        *connections += 1;
        *connections - 1
    }
}

/// Counts a connection out when its task ends or is dropped.
struct Open(Arc<Script>);

impl Drop for Open {
    fn drop(&mut self) {
        *lock(&self.0.open) -= 1;
    }
}

/// Owns its connections: they end with it.
async fn accept(listener: TcpListener, script: Arc<Script>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (number, open) = (script.opened(), Open(script.clone()));
        let script = script.clone();
        connections.spawn(async move {
            let _open = open;
            // How a connection ends is the business of the story, which looks at the other side.
            let _ = echo::serve(Wire::over(stream), &script, number).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
