//! The entry points of the process: bound together or not at all, served, handed over, and drained.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use anyhow::{Context, Result};
use pingora_proxy::HttpProxy;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::birth::Birth;
use super::channel::Thing;
use super::control::Tally;
use super::upgrade::Estate;
use crate::config::EntryPoints;
use crate::entry::{self, Count, Entry};
use crate::proxy::Gateway;

/// An entry point whose address is ours.
pub struct Bound {
    /// As the configuration and the metrics call it.
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    socket: Socket,
}

impl Bound {
    /// Whether it speaks TLS.
    pub fn is_secure(&self) -> bool {
        self.name == "webSecure"
    }
}

/// A listening socket and what a successor has to know of it.
struct Socket {
    listener: Arc<TcpListener>,
    /// As the configuration has the address.
    configured: String,
    /// Whether the service manager has it too.
    shared: bool,
}

/// Binds every entry point, or takes the socket that was handed over for it.
///
/// # Errors
/// When one of the addresses cannot be bound; the others are free again then.
pub fn bind(points: &EntryPoints, birth: &mut Birth) -> Result<Vec<Bound>> {
    let both = [("web", &points.web), ("webSecure", &points.web_secure)];
    both.into_iter().map(|(name, point)| bound(name, &point.address, birth)).collect()
}

fn bound(name: &'static str, text: &str, birth: &mut Birth) -> Result<Bound> {
    let (listener, shared) = match birth.socket(name, text) {
        Some((listener, shared)) => (TcpListener::from_std(listener)?, shared),
        None => {
            let address: SocketAddr = text.parse().with_context(|| format!("entry point {name}: {text}"))?;
            let listener = entry::bind(address);
            (listener.with_context(|| format!("entry point {name}: cannot listen on {text}"))?, false)
        }
    };
    entry::prepare(&listener);
    let address = listener.local_addr().context("asking for the bound address")?;
    Ok(Bound { name, address, socket: Socket { listener: Arc::new(listener), configured: text.to_owned(), shared } })
}

/// The entry points that serve.
#[derive(Default)]
pub struct Points(Vec<Point>);

struct Point {
    name: &'static str,
    entry: Arc<Entry<HttpProxy<Gateway>>>,
    socket: Socket,
    accepting: Vec<JoinHandle<()>>,
}

/// What becomes of the listening sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// Nobody accepts from them any more.
    Nobody,
    /// A successor does.
    Successor,
}

impl Points {
    /// Begins to accept connections, with so many tasks, until told to stop.
    pub fn open(
        &mut self,
        bound: Bound,
        entry: Entry<HttpProxy<Gateway>>,
        acceptors: usize,
        stop: &watch::Receiver<bool>,
    ) {
        let (entry, listener) = (Arc::new(entry), &bound.socket.listener);
        let accept = |_| tokio::spawn(entry::run(listener.clone(), entry.clone(), stop.clone()));
        let accepting = (0..acceptors).map(accept).collect();
        self.0.push(Point { name: bound.name, entry, socket: bound.socket, accepting });
    }

    /// Names and open connections of each.
    pub fn counts(&self) -> Vec<(&'static str, Arc<Count>)> {
        self.0.iter().map(|point| (point.name, point.entry.count.clone())).collect()
    }

    /// The listening sockets, for a successor.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn estate(&self) -> io::Result<Estate> {
        let handed = |point: &Point| {
            let Socket { listener, configured, shared } = &point.socket;
            let label = Thing::Listener { name: point.name.to_owned(), address: configured.clone(), shared: *shared };
            Ok((label, listener.as_fd().try_clone_to_owned()?))
        };
        self.0.iter().map(handed).collect()
    }

    /// Resolves when none accepts any more, which they were told before, and the sockets are closed. Where nobody else accepts from
    /// one, what the kernel has accepted in our name is taken first.
    pub async fn close(&mut self, leaving: Leaving) -> Closed {
        let mut closed = Closed(Vec::new());
        let mut last = Vec::new();
        for point in self.0.drain(..) {
            for accepting in point.accepting {
                let _ = accepting.await;
            }
            closed.0.push((point.name, point.entry.count.clone()));
            let Socket { listener, shared, .. } = point.socket;
            if let (Leaving::Nobody, false, Some(listener)) = (leaving, shared, Arc::into_inner(listener)) {
                last.push(async move { entry::last_call(listener, &point.entry).await });
            }
        }
        futures::future::join_all(last).await;
        closed
    }
}

/// Entry points that accept no more: what is open there.
pub struct Closed(Vec<(&'static str, Arc<Count>)>);

impl Closed {
    /// Open connections of all.
    pub fn open(&self) -> usize {
        self.0.iter().map(|(_, count)| count.open()).sum()
    }

    /// Resolves when no connection is open; none is added.
    pub async fn none_left(&self) {
        for (_, count) in &self.0 {
            count.none_left().await;
        }
    }

    /// Requests of all, with so many open streams among them.
    pub fn tally(&self, streams: u64) -> Tally {
        tally(&self.0, streams)
    }
}

/// Requests of these entry points, with so many open streams among them.
pub fn tally(counts: &[(&'static str, Arc<Count>)], streams: u64) -> Tally {
    let requests = counts.iter().map(|(_, count)| count.requests());
    let (begun, finished) = requests.fold((0, 0), |sum, each| (sum.0 + each.0, sum.1 + each.1));
    Tally { begun, finished, streams }
}
