//! One call for all who need its result: concurrent requests of a session refresh its tokens once, and requests that were on
//! their way with the old cookies get the new session as well. A refresh token that is sent twice ends a session at careful
//! providers (RFC 9700 §4.14).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::oneshot;

/// The calls under way and those that have just ended.
pub struct Flights<T: Clone> {
    most: usize,
    flights: Mutex<HashMap<String, Flight<T>>>,
}

struct Flight<T: Clone> {
    result: Shared<BoxFuture<'static, Option<T>>>,
    since: Instant,
}

/// How long a result may serve those who come later.
pub trait Keep {
    /// Counted from the beginning of the call.
    fn keep(&self) -> Duration;
}

impl<T: Clone + Keep + Send + Sync + 'static> Flights<T> {
    /// At most so many at once.
    pub fn new(most: usize) -> Flights<T> {
        Flights { most, flights: Mutex::default() }
    }

    /// Joins the call with this key, or begins it. It goes on when the one who began it goes away. `None` when it broke.
    pub async fn join(&self, key: &str, call: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let result = self.flight(key, call);
        result.await
    }

    fn flight(
        &self,
        key: &str,
        call: impl Future<Output = T> + Send + 'static,
    ) -> Shared<BoxFuture<'static, Option<T>>> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(key).filter(|flight| flight.serves()) {
            return flight.result.clone();
        }
        if flights.len() >= self.most {
            flights.retain(|_, flight| flight.serves());
        }
        let (done, result) = oneshot::channel();
        tokio::spawn(async move {
            let _ = done.send(call.await);
        });
        let result = result.map(Result::ok).boxed().shared();
        if flights.len() < self.most {
            flights.insert(key.to_owned(), Flight { result: result.clone(), since: Instant::now() });
        }
        result
    }
}

impl<T: Clone + Keep> Flight<T> {
    fn serves(&self) -> bool {
        match self.result.peek() {
            None => self.since.elapsed() < STUCK,
            Some(None) => false,
            Some(Some(result)) => self.since.elapsed() < result.keep(),
        }
    }
}

/// Calls have time-outs of their own far below this.
const STUCK: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Kept(usize, Duration);

    impl Keep for Kept {
        fn keep(&self) -> Duration {
            self.1
        }
    }

    #[tokio::test]
    async fn concurrent_callers_share_one_call_and_late_ones_its_result() {
        let (flights, calls) = (Flights::new(10), Arc::new(AtomicUsize::new(0)));
        let call = |keep| {
            let calls = calls.clone();
            async move {
                tokio::task::yield_now().await;
                Kept(calls.fetch_add(1, Ordering::SeqCst) + 1, keep)
            }
        };
        let long = Duration::from_secs(60);
        let joined = futures::future::join_all((0..20).map(|_| flights.join("a", call(long)))).await;
        assert!(joined.iter().all(|result| *result == Some(Kept(1, long))), "{joined:?}");
        assert_eq!(flights.join("a", call(long)).await, Some(Kept(1, long)), "a late one");
        assert_eq!(flights.join("b", call(Duration::ZERO)).await, Some(Kept(2, Duration::ZERO)), "another key");
        assert_eq!(flights.join("b", call(long)).await, Some(Kept(3, long)), "what is not kept is asked again");
    }

    #[tokio::test]
    async fn a_call_goes_on_when_the_one_who_began_it_goes_away() {
        let flights = Flights::new(10);
        let long = Duration::from_secs(60);
        let (leave, wait) = oneshot::channel::<()>();
        let first = flights.flight("a", async move {
            let _ = wait.await;
            Kept(1, long)
        });
        drop(first);
        leave.send(()).expect("it waits");
        assert_eq!(flights.join("a", async move { Kept(2, long) }).await, Some(Kept(1, long)));
    }
}
