//! Connections that wait for their next request.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::connection::Connection;

/// All kept connections of the process: their bound, and who closes those that nobody needs any more.
pub struct Store {
    most: usize,
    count: AtomicUsize,
    places: Mutex<Vec<Weak<Kept>>>,
}

/// The kept connections of one origin. The one that was used last is taken first, so that the others age.
pub struct Kept {
    store: Arc<Store>,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    connection: Connection,
    until: Option<Instant>,
}

impl Store {
    /// Keeps `most` connections in all. With `handle`, those that are too old or that their backend closed are let go
    /// in the background, every few seconds.
    pub fn new(most: usize, handle: Option<&Handle>) -> Arc<Store> {
        let store = Arc::new(Store { most, count: AtomicUsize::new(0), places: Mutex::default() });
        if let Some(handle) = handle {
            let store = Arc::downgrade(&store);
            handle.spawn(async move {
                loop {
                    tokio::time::sleep(SWEEP).await;
                    match store.upgrade() {
                        Some(store) => store.sweep(),
                        None => return,
                    }
                }
            });
        }
        store
    }

    /// A place for the connections of one origin.
    pub fn place(self: &Arc<Store>) -> Arc<Kept> {
        let kept = Arc::new(Kept { store: self.clone(), idle: Mutex::default() });
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|place| place.strong_count() > 0);
        places.push(Arc::downgrade(&kept));
        kept
    }

    fn sweep(&self) {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let now = Instant::now();
        for place in places.iter().filter_map(Weak::upgrade) {
            place.let_go(|idle| !idle.is_old(now) && idle.connection.is_alive());
        }
    }
}

impl Kept {
    /// The connection to `address` that was used last and still lives.
    pub fn take(&self, address: SocketAddr) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let place = idle.iter().rposition(|idle| idle.connection.address() == address)?;
            let found = idle.remove(place);
            self.store.count.fetch_sub(1, Ordering::Relaxed);
            if found.connection.is_alive() && found.until.is_none_or(|until| Instant::now() < until) {
                return Some(found.connection);
            }
        }
    }

    /// Keeps a connection for at most `limit`. Where the store is full, the one that has waited longest makes room, or
    /// this one is closed.
    pub fn put(&self, mut connection: Connection, limit: Option<Duration>) {
        connection.rest();
        let until = limit.map(|limit| Instant::now() + limit);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if self.store.count.fetch_add(1, Ordering::Relaxed) >= self.store.most {
            self.store.count.fetch_sub(1, Ordering::Relaxed);
            if idle.is_empty() {
                return;
            }
            idle.remove(0);
        }
        idle.push(Idle { connection, until });
    }

    fn let_go(&self, stays: impl Fn(&Idle) -> bool) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let before = idle.len();
        idle.retain(stays);
        self.store.count.fetch_sub(before - idle.len(), Ordering::Relaxed);
        if idle.is_empty() {
            idle.shrink_to_fit();
        }
    }
}

impl Idle {
    fn is_old(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.let_go(|_| false);
    }
}

const SWEEP: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn connect(listener: &TcpListener) -> (Connection, TcpStream) {
        let address = listener.local_addr().unwrap();
        let opened = Connection::open(address, Duration::from_secs(5));
        let (opened, accepted) = tokio::join!(opened, listener.accept());
        (opened.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn the_last_one_used_is_taken_first_and_dead_ones_never() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let kept = Store::new(10, None).place();
        let mut peers = Vec::new();
        for _ in 0..3 {
            let (connection, peer) = connect(&listener).await;
            peers.push(peer);
            kept.put(connection, Some(Duration::from_secs(60)));
        }
        let dead = peers.pop().unwrap();
        drop(dead);
        let gone = tokio::time::timeout(Duration::from_secs(5), async {
            while kept.idle.lock().unwrap()[2].connection.is_alive() {
                tokio::task::yield_now().await;
            }
        });
        gone.await.unwrap();
        let taken = kept.take(address).unwrap();
        let port = |peer: &TcpStream| peer.peer_addr().unwrap().port();
        assert_eq!(taken.local_port(), port(&peers[1]), "the dead one was passed over");
        assert!(kept.take(([127, 0, 0, 1], 1).into()).is_none(), "another address");
        assert_eq!(kept.take(address).unwrap().local_port(), port(&peers[0]));
        assert!(kept.take(address).is_none());
        assert_eq!(kept.store.count.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn no_more_are_kept_than_the_store_takes_nor_longer_than_their_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let store = Store::new(2, None);
        let (one, other) = (store.place(), store.place());
        let mut peers = Vec::new();
        for _ in 0..3 {
            let (connection, peer) = connect(&listener).await;
            peers.push(peer);
            one.put(connection, None);
        }
        assert_eq!(one.idle.lock().unwrap().len(), 2);
        let (connection, _peer) = connect(&listener).await;
        other.put(connection, None);
        assert!(other.take(address).is_none(), "no room");
        drop(one);
        assert_eq!(store.count.load(Ordering::Relaxed), 0);
        let (connection, _peer) = connect(&listener).await;
        other.put(connection, Some(Duration::ZERO));
        store.sweep();
        assert!(other.idle.lock().unwrap().is_empty());
    }
}
