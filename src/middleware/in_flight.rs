//! Bounds the requests that are under way at a time.
//!
//! A request takes a place until its response has ended; above the limit it waits in a short line, and is refused when the line
//! is full or its time is over. Places are counted for the whole route or by a fact of the request. Counts survive a reload of
//! the same definition. Keys take memory only while one of their requests is under way.
//!
//! ```yaml
//! - name: few
//!   type: inFlight
//!   rule: { limit: 100, key: { source: address }, queue: { size: 50, timeout: 1s } }
//! ```

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::{Flow, Middleware, Part, Scope, Settings, Verdict};
use crate::config::{Problem, units};
use crate::exchange::{Exchange, Held};
use crate::fields;
use crate::reply::Reply;

/// Bounds the requests that are under way at a time, of the whole route or by client; more wait for a moment, then get 503 or
/// 429 with `Retry-After`.
#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct InFlight {
    /// Requests at a time for one key. Required.
    limit: u32,
    /// What requests are counted by. Default: the whole route.
    key: Key,
    /// Who waits for a place.
    queue: Queue,
    /// Status of the refusal: 429 or 503. Default 503 for a route, 429 for other keys.
    status_code: u16,
}

/// What requests are counted by. A request that lacks the header or cookie is counted by the client's address.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
struct Key {
    /// `route`, `address`, `header` or `cookie`.
    source: String,
    /// Name of the header or cookie.
    name: String,
    /// Bits of an IPv6 address that count, 1 to 128: a household has a whole /64. Default 64.
    ipv6_prefix: u8,
}

/// Who waits for a place.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
struct Queue {
    /// Requests that may wait for one key; 0 for none. Default 10.
    size: u32,
    /// How long each. Default `1s`.
    timeout: String,
}

impl Default for Key {
    fn default() -> Key {
        Key { source: "route".to_owned(), name: String::new(), ipv6_prefix: 64 }
    }
}

impl Default for Queue {
    fn default() -> Queue {
        Queue { size: 10, timeout: "1s".to_owned() }
    }
}

impl Settings for InFlight {
    const KIND: &'static [&'static str] = &["inFlight"];
    const GUARDS: bool = true;
    const PATHS: bool = false;
    const EXAMPLE: &'static str = include_str!("../../conf/examples/middlewares/inFlight.yml");

    fn build(self, scope: &Scope<'_>) -> Result<Part, Vec<Problem>> {
        let rule = scope.place.child("rule");
        let mut problems = Vec::new();
        if self.limit == 0 {
            problems
                .push(rule.child("limit").error("is missing", "write how many requests may be under way at a time"));
        }
        let by = By::of(&self.key).map_err(|(key, message, remedy)| {
            problems.push(rule.child("key").child(key).error(message, remedy));
        });
        let wait = match units::duration(&self.queue.timeout) {
            Ok(time) if time.is_zero() && self.queue.size > 0 => {
                Err("is 0: nobody would wait; set a time, or size: 0".to_owned())
            }
            other => other,
        };
        let wait = wait.map_err(|message| {
            let (message, remedy) = message.split_once("; ").unwrap_or((&message, ""));
            problems.push(rule.child("queue").child("timeout").error(message, remedy));
        });
        let status = match self.status_code {
            0 if self.key.source == "route" => Ok(StatusCode::SERVICE_UNAVAILABLE),
            0 | 429 => Ok(StatusCode::TOO_MANY_REQUESTS),
            503 => Ok(StatusCode::SERVICE_UNAVAILABLE),
            _ => {
                problems.push(rule.child("statusCode").error("is neither 429 nor 503", "write one of them"));
                Err(())
            }
        };
        let (Ok(by), Ok(wait), Ok(status), true) = (by, wait, status, problems.is_empty()) else {
            return Err(problems);
        };
        let bound = Bound { limit: self.limit, waiting: self.queue.size };
        let counts = scope.tools.in_flight.counts(scope.route, scope.name, bound);
        Ok(Part::Step(Arc::new(Gate { by, wait, status, counts })))
    }
}

/// The working part.
struct Gate {
    by: By,
    wait: Duration,
    status: StatusCode,
    counts: Arc<Counts>,
}

impl Middleware for Gate {
    fn request<'a>(&'a self, exchange: &'a mut Exchange, head: &'a mut RequestHeader) -> Flow<'a> {
        let entry = self.counts.entry(self.by.key(exchange, head));
        if let Ok(permit) = entry.places.clone().try_acquire_owned() {
            exchange.held.push(Held::new(Place {
                permit: Some(permit),
                line: None,
                entry,
                counts: self.counts.clone(),
            }));
            return Flow::Next;
        }
        let line = entry.join(self.counts.bound.waiting);
        let mut place = Place { permit: None, line, entry, counts: self.counts.clone() };
        if place.line.is_none() {
            return Flow::Reply(self.refusal("too many requests are under way"));
        }
        Flow::Wait(Box::pin(async move {
            let permit = timeout(self.wait, place.entry.places.clone().acquire_owned()).await;
            place.line = None;
            let Ok(Ok(permit)) = permit else {
                return Flow::Reply(self.refusal("no place became free in time"));
            };
            place.permit = Some(permit);
            exchange.held.push(Held::new(place));
            Flow::Next
        }))
    }
}

impl Gate {
    fn refusal(&self, why: &'static str) -> Verdict {
        let seconds = self.wait.as_secs().max(1);
        Verdict::refuse(Reply::plain(self.status).header(header::RETRY_AFTER, HeaderValue::from(seconds)), why)
    }
}

/// What requests are counted by.
enum By {
    Route,
    Address { ipv6_prefix: u8 },
    Header { name: HeaderName, ipv6_prefix: u8 },
    Cookie { name: String, ipv6_prefix: u8 },
}

/// A key that is wrong: which part, what, and the remedy.
type Wrong = (&'static str, &'static str, &'static str);

impl By {
    fn of(key: &Key) -> Result<By, Wrong> {
        let ipv6_prefix = key.ipv6_prefix;
        if !(1..=128).contains(&ipv6_prefix) {
            return Err(("ipv6Prefix", "is no length of a prefix", "write 1 to 128"));
        }
        match (key.source.as_str(), key.name.as_str()) {
            ("route", _) => Ok(By::Route),
            ("address", _) => Ok(By::Address { ipv6_prefix }),
            ("header" | "cookie", "") => Err(("name", "is missing", "name the header or cookie")),
            ("header", name) => match name.parse() {
                Ok(name) => Ok(By::Header { name, ipv6_prefix }),
                Err(_) => Err(("name", "is no header name", "write a name such as X-Tenant")),
            },
            ("cookie", name) => Ok(By::Cookie { name: name.to_owned(), ipv6_prefix }),
            _ => Err(("source", "is none of route, address, header, cookie", "write one of them")),
        }
    }

    fn key(&self, exchange: &Exchange, head: &RequestHeader) -> Counted {
        let (text, ipv6_prefix) = match self {
            By::Route => return Counted::All,
            By::Address { ipv6_prefix } => (None, *ipv6_prefix),
            By::Header { name, ipv6_prefix } => (head.headers.get(name).map(HeaderValue::as_bytes), *ipv6_prefix),
            By::Cookie { name, ipv6_prefix } => (fields::cookie(&head.headers, name).map(str::as_bytes), *ipv6_prefix),
        };
        match text.filter(|text| !text.is_empty()) {
            Some(text) => Counted::Text(text.into()),
            None => Counted::Address(network(exchange.client, ipv6_prefix)),
        }
    }
}

/// The part of an address that counts.
fn network(address: IpAddr, ipv6_prefix: u8) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let mask = u128::MAX << (128 - u32::from(ipv6_prefix.clamp(1, 128)));
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
        address => address,
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Counted {
    All,
    Address(IpAddr),
    Text(Box<[u8]>),
}

/// How many, and how many wait.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Bound {
    limit: u32,
    waiting: u32,
}

/// The requests of one definition on one route, by key.
struct Counts {
    bound: Bound,
    entries: Mutex<HashMap<Counted, Arc<Entry>>>,
}

struct Entry {
    key: Counted,
    places: Arc<Semaphore>,
    waiting: AtomicU32,
}

/// A place in the line; given up when it is dropped.
struct Line(Arc<Entry>);

/// A place, or the wait for one: the entry goes with the last of them.
struct Place {
    permit: Option<OwnedSemaphorePermit>,
    line: Option<Line>,
    entry: Arc<Entry>,
    counts: Arc<Counts>,
}

impl Counts {
    fn entry(&self, key: Counted) -> Arc<Entry> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(&key) {
            return entry.clone();
        }
        let places = Arc::new(Semaphore::new(self.bound.limit as usize));
        let entry = Arc::new(Entry { key: key.clone(), places, waiting: AtomicU32::new(0) });
        entries.insert(key, entry.clone());
        entry
    }
}

impl Entry {
    fn join(self: &Arc<Self>, most: u32) -> Option<Line> {
        let one_more = |waiting| (waiting < most).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        Some(Line(self.clone()))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        (self.permit, self.line) = (None, None);
        let mut entries = self.counts.entries.lock().unwrap_or_else(PoisonError::into_inner);
        // This one and the map's own: nobody else is at it, and nobody can come while the map is locked.
        if Arc::strong_count(&self.entry) <= 2 {
            entries.remove(&self.entry.key);
        }
    }
}

/// The counts of all definitions; outlives a snapshot.
#[derive(Default)]
pub struct InFlights(Mutex<HashMap<(String, String, Bound), Weak<Counts>>>);

impl InFlights {
    fn counts(&self, route: &str, name: &str, bound: Bound) -> Arc<Counts> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (route.to_owned(), name.to_owned(), bound);
        if let Some(counts) = known.get(&key).and_then(Weak::upgrade) {
            return counts;
        }
        known.retain(|_, counts| counts.strong_count() > 0);
        let counts = Arc::new(Counts { bound, entries: Mutex::default() });
        known.insert(key, Arc::downgrade(&counts));
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(limit: u32) -> Arc<Counts> {
        InFlights::default().counts("r", "few", Bound { limit, waiting: 1 })
    }

    fn place(counts: &Arc<Counts>, key: &Counted) -> Option<Place> {
        let entry = counts.entry(key.clone());
        let permit = entry.places.clone().try_acquire_owned().ok();
        let place = Place { permit, line: None, entry, counts: counts.clone() };
        place.permit.is_some().then_some(place)
    }

    #[test]
    fn places_are_counted_by_key_and_leave_nothing_behind() {
        let counts = counts(2);
        let [a, b] = ["a", "b"].map(|text| Counted::Text(text.as_bytes().into()));
        let held: Vec<_> = (0..3).filter_map(|_| place(&counts, &a)).collect();
        assert_eq!(held.len(), 2);
        assert!(place(&counts, &b).is_some(), "another key");
        assert_eq!(counts.entries.lock().unwrap().len(), 1, "whose request has ended");
        drop(held);
        assert!(counts.entries.lock().unwrap().is_empty());
        assert!(place(&counts, &a).is_some());
    }

    #[test]
    fn the_same_definition_is_counted_on_after_a_reload() {
        let all = InFlights::default();
        let bound = Bound { limit: 1, waiting: 0 };
        let before = all.counts("r", "few", bound);
        let held = place(&before, &Counted::All);
        assert!(place(&all.counts("r", "few", bound), &Counted::All).is_none());
        assert!(place(&all.counts("other", "few", bound), &Counted::All).is_some());
        drop(held);
        assert!(place(&all.counts("r", "few", bound), &Counted::All).is_some());
    }

    #[test]
    fn a_household_is_one_client() {
        for (address, prefix, network_of) in [
            ("2001:db8:1:2:3:4:5:6", 64, "2001:db8:1:2::"),
            ("2001:db8:1:2:3:4:5:6", 128, "2001:db8:1:2:3:4:5:6"),
            ("192.0.2.7", 64, "192.0.2.7"),
            ("::ffff:192.0.2.7", 64, "192.0.2.7"),
        ] {
            let found = network(address.parse().unwrap(), prefix);
            assert_eq!(found, network_of.parse::<IpAddr>().unwrap(), "{address}/{prefix}");
        }
    }
}
