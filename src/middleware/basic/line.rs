//! A bounded waiting line that is fair to clients: they take turns, and when it is full, whoever has most in it makes room.
//!
//! So a client that asks for a thousand things at once waits for its own, and everybody else for one of its at most.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Work that waits, by client.
pub struct Line<T> {
    inner: Mutex<Inner<T>>,
    changed: Condvar,
    most: usize,
}

struct Inner<T> {
    clients: HashMap<IpAddr, VecDeque<T>>,
    /// Whose turn it is, and then whose: each client with work once.
    turns: VecDeque<IpAddr>,
    waiting: usize,
    closed: bool,
}

/// There is no room for more of this client.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl<T> Line<T> {
    /// An empty line with room for this much.
    pub fn new(most: usize) -> Line<T> {
        let inner = Inner { clients: HashMap::new(), turns: VecDeque::new(), waiting: 0, closed: false };
        Line { inner: Mutex::new(inner), changed: Condvar::new(), most }
    }

    /// Lines up work of a client. What has to leave for it, the latest of whoever has most, is returned.
    ///
    /// # Errors
    /// When the line is full and nobody has clearly more in it than this client.
    pub fn push(&self, client: IpAddr, work: T) -> Result<Option<T>, Full> {
        let mut inner = self.inner();
        let own = inner.clients.get(&client).map_or(0, VecDeque::len);
        let mut left = None;
        if inner.waiting >= self.most {
            let longest =
                inner.clients.values_mut().max_by_key(|works| works.len()).filter(|works| works.len() > own + 1);
            left = Some(longest.and_then(VecDeque::pop_back).ok_or(Full)?);
            inner.waiting -= 1;
        }
        if own == 0 {
            inner.turns.push_back(client);
        }
        inner.clients.entry(client).or_default().push_back(work);
        inner.waiting += 1;
        drop(inner);
        self.changed.notify_one();
        Ok(left)
    }

    /// Waits for work; `None` when the line is closed.
    pub fn next(&self) -> Option<T> {
        let inner = self.inner();
        let idle = |inner: &mut Inner<T>| inner.waiting == 0 && !inner.closed;
        let mut inner = self.changed.wait_while(inner, idle).unwrap_or_else(PoisonError::into_inner);
        if inner.closed {
            return None;
        }
        let client = inner.turns.pop_front()?;
        let works = inner.clients.get_mut(&client)?;
        let work = works.pop_front();
        let more = !works.is_empty();
        if more {
            inner.turns.push_back(client);
        } else {
            inner.clients.remove(&client);
        }
        inner.waiting -= 1;
        work
    }

    /// Closes the line: who waits for work gets none any more.
    pub fn close(&self) {
        self.inner().closed = true;
        self.changed.notify_all();
    }

    fn inner(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(number: u8) -> IpAddr {
        [10, 0, 0, number].into()
    }

    #[test]
    fn clients_take_turns() {
        let line = Line::new(10);
        for (number, work) in [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1"), (3, "c1"), (2, "b2")] {
            assert_eq!(line.push(client(number), work), Ok(None));
        }
        let order: Vec<_> = (0..6).map(|_| line.next().expect("open")).collect();
        assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "a3"]);
    }

    #[test]
    fn whoever_has_most_makes_room() {
        let line = Line::new(4);
        for work in 1..=4 {
            assert_eq!(line.push(client(1), work), Ok(None));
        }
        for (number, work, left) in [(1, 5, Err(Full)), (2, 6, Ok(Some(4))), (2, 7, Ok(Some(3))), (2, 8, Err(Full))] {
            assert_eq!(line.push(client(number), work), left, "{work} of {number}");
        }
        let left = line.push(client(3), 9);
        assert!(matches!(left, Ok(Some(2 | 7))), "of two with as much either makes room: {left:?}");
    }

    #[test]
    fn a_closed_line_lets_everybody_go() {
        let line = Line::<u8>::new(1);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| line.next());
            line.close();
            assert_eq!(waits.join().expect("no panic"), None);
        });
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_the_bound_holds(steps in prop::collection::vec(prop::option::weighted(0.7, 0_u8..5), 0..200)) {
            let line = Line::new(8);
            let (mut entered, mut ended) = (0, 0);
            for step in steps {
                match step {
                    Some(number) => match line.push(client(number), ()) {
                        Ok(left) => {
                            entered += 1;
                            ended += usize::from(left.is_some());
                        }
                        Err(Full) => prop_assert_eq!(line.inner().waiting, 8),
                    },
                    None if entered == ended => {}
                    None => {
                        prop_assert!(line.next().is_some());
                        ended += 1;
                    }
                }
                let inner = line.inner();
                prop_assert_eq!(inner.waiting, entered - ended);
                prop_assert_eq!(inner.waiting, inner.clients.values().map(VecDeque::len).sum::<usize>());
                prop_assert!(inner.waiting <= 8 && inner.turns.len() == inner.clients.len());
            }
        }
    }
}
