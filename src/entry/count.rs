//! Counts open connections and says no above the limits.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// Open connections of one entry point, and its requests.
#[derive(Default)]
pub struct Count {
    open: AtomicUsize,
    begun: AtomicU64,
    finished: AtomicU64,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    closed: Notify,
}

/// Bounds on open connections; `None` is no bound.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    /// On the entry point.
    pub total: Option<usize>,
    /// From one client address.
    pub by_address: Option<usize>,
}

/// Keeps a connection counted as long as it lives.
pub struct Counted {
    count: Arc<Count>,
    address: Option<IpAddr>,
}

/// Counts a request as begun, and as finished when it is dropped.
pub struct Asked<'a>(&'a Count);

impl Count {
    /// A request has passed the gate.
    pub fn begins(&self) -> Asked<'_> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Asked(self)
    }

    /// Requests since the start: begun, and finished. In this order, so that more have never finished than begun.
    pub fn requests(&self) -> (u64, u64) {
        let finished = self.finished.load(Ordering::Acquire);
        (self.begun.load(Ordering::Acquire), finished)
    }

    /// Counts a new connection, or `None` when a bound is reached.
    pub fn admit(self: &Arc<Self>, address: IpAddr, bounds: Bounds) -> Option<Counted> {
        if bounds.total.is_some_and(|most| self.open() >= most) {
            return None;
        }
        let address = match bounds.by_address {
            None => None,
            Some(most) => {
                let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
                let open = by_address.entry(address).or_default();
                if *open >= most {
                    return None;
                }
                *open += 1;
                Some(address)
            }
        };
        self.open.fetch_add(1, Ordering::AcqRel);
        Some(Counted { count: self.clone(), address })
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Resolves when no connection is open.
    pub async fn none_left(&self) {
        loop {
            let closed = self.closed.notified();
            if self.open() == 0 {
                return;
            }
            closed.await;
        }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.finished.fetch_add(1, Ordering::Release);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(address) = self.address {
            let mut by_address = self.count.by_address.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(open) = by_address.get_mut(&address) {
                *open -= 1;
                if *open == 0 {
                    by_address.remove(&address);
                }
            }
        }
        if self.count.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.count.closed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_and_places_come_back() {
        let count = Arc::new(Count::default());
        let bounds = Bounds { total: Some(3), by_address: Some(2) };
        let [a, b] = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2])];
        let first = count.admit(a, bounds).expect("room");
        let _second = count.admit(a, bounds).expect("room");
        assert!(count.admit(a, bounds).is_none(), "a third from one address");
        let _third = count.admit(b, bounds).expect("another address has room");
        assert!(count.admit(b, bounds).is_none(), "a fourth in all");
        drop(first);
        assert!(count.admit(a, bounds).is_some());
        assert_eq!(count.open(), 2);
        assert_eq!(count.by_address.lock().unwrap().len(), 2);
    }

    #[test]
    fn a_request_is_finished_when_it_is_let_go() {
        let count = Count::default();
        let (one, two) = (count.begins(), count.begins());
        assert_eq!(count.requests(), (2, 0));
        drop(one);
        assert_eq!(count.requests(), (2, 1));
        drop(two);
        assert_eq!(count.requests(), (2, 2));
    }

    #[tokio::test]
    async fn waiting_for_the_last_one_ends() {
        let count = Arc::new(Count::default());
        let held = count.admit(IpAddr::from([127, 0, 0, 1]), Bounds::default());
        let waiting = tokio::spawn({
            let count = count.clone();
            async move { count.none_left().await }
        });
        tokio::task::yield_now().await;
        drop(held);
        waiting.await.expect("ends");
    }
}
