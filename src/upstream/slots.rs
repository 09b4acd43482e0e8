//! Places for requests at a backend, and the wait for one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::select_all;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// So many requests at a time, no more.
pub(super) struct Slots {
    limit: usize,
    used: AtomicUsize,
    freed: Notify,
}

impl Slots {
    pub fn new(limit: usize) -> Slots {
        Slots { limit, used: AtomicUsize::new(0), freed: Notify::new() }
    }

    /// Takes a place, if one is free.
    pub fn take(self: &Arc<Self>) -> Option<Slot> {
        let one_more = |used| (used < self.limit).then_some(used + 1);
        let taken = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        taken.ok().map(|_| Slot(self.clone()))
    }
}

/// A place that is taken until it is dropped.
pub(super) struct Slot(Arc<Slots>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::AcqRel);
        self.0.freed.notify_one();
    }
}

/// Who waits for a place at one of a route's backends.
#[derive(Default)]
pub(super) struct Line {
    waiting: AtomicUsize,
}

/// How many may wait, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Queue {
    /// Requests; 0 for none.
    pub size: usize,
    /// How long each.
    pub timeout: Duration,
}

/// A request that waits; it leaves the line when it is dropped.
pub struct Waiting {
    line: Arc<Line>,
    places: Vec<Arc<Slots>>,
    until: Instant,
}

impl Line {
    /// Joins the line, unless it is too long.
    pub fn join(self: &Arc<Self>, queue: Queue, places: Vec<Arc<Slots>>) -> Option<Waiting> {
        let one_more = |waiting| (waiting < queue.size).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        Some(Waiting { line: self.clone(), places, until: Instant::now() + queue.timeout })
    }
}

impl Waiting {
    /// Waits until there may be a place; `false` when the time is over. Who waits longest at a backend is woken first.
    pub async fn vacancy(&self) -> bool {
        let now = Instant::now();
        if now >= self.until || self.places.is_empty() {
            return false;
        }
        // A backend that comes back has free places of which nobody was told: hence a look now and then.
        let look = (now + LOOK).min(self.until);
        let freed = self.places.iter().map(|slots| Box::pin(slots.freed.notified()));
        let _ = timeout_at(look, select_all(freed)).await;
        true
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.line.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

const LOOK: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let slots = Arc::new(Slots::new(2));
        let one = slots.take().expect("a place");
        let _two = slots.take().expect("a place");
        assert!(slots.take().is_none());
        drop(one);
        assert!(slots.take().is_some());
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_a_free_place_and_the_line_is_bounded() {
        let slots = Arc::new(Slots::new(1));
        let held = slots.take().expect("a place");
        let line = Arc::new(Line::default());
        let queue = Queue { size: 1, timeout: Duration::from_secs(20) };
        let waiting = line.join(queue, vec![slots.clone()]).expect("a place in the line");
        assert!(line.join(queue, vec![slots.clone()]).is_none(), "the line is full");
        let waiter = tokio::spawn(async move {
            while waiting.vacancy().await {
                if slots.take().is_some() {
                    return true;
                }
            }
            false
        });
        tokio::task::yield_now().await;
        drop(held);
        assert!(waiter.await.expect("no panic"));
        assert_eq!(line.waiting.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn waiting_ends_in_time() {
        let slots = Arc::new(Slots::new(1));
        let _held = slots.take();
        let queue = Queue { size: 1, timeout: Duration::from_millis(20) };
        let waiting = Arc::new(Line::default()).join(queue, vec![slots]).expect("a place in the line");
        while waiting.vacancy().await {}
        assert!(Instant::now() >= waiting.until);
    }
}
