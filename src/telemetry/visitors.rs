//! How many visitors there are now: addresses with their user agents that were seen lately. Spec core §7.4.
//!
//! A request costs a hash and a look at a table; only a visitor that was not seen for a while is put into a queue, which a task
//! of its own works off: it makes the visitor's number (a hash with a salt that changes each day, so that nobody can be followed)
//! and counts it, in memory and, where there is a Redis, in the set that all gateways share under Goma's name. What does not fit
//! into the queue or the bounds is not counted.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Utc};
use prometheus::IntGauge;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::redis::{Redis, cmd, pipe};

/// Visitors that wait to be counted.
const QUEUE: usize = 4096;
/// Visitors counted at once.
const BATCH: usize = 512;
/// Places of the table of those seen just now.
const RECENT: usize = 8192;
/// Visitors that are kept in memory, and in Redis.
const MOST: usize = 100_000;
const MOST_SHARED: isize = 1_000_000;
/// Longest user agent that tells visitors apart, in bytes.
const AGENT: usize = 256;
/// How often the gauge is brought up to date, and how often the same visitor is counted again at most.
const EVERY: Duration = Duration::from_secs(5);
/// Goma's names.
const SET: &str = "goma:visitors:active";
const SALT: &str = "goma:analytics:salt:";

/// An address and its user agent.
type Seen = (IpAddr, Box<str>);

/// Who was seen.
pub struct Visitors {
    recent: Box<[AtomicU64]>,
    hasher: RandomState,
    started: Instant,
    queue: mpsc::Sender<Seen>,
    /// Taken by the task that counts.
    waiting: Mutex<Option<mpsc::Receiver<Seen>>>,
    ttl_s: AtomicU64,
    gauge: IntGauge,
}

impl Visitors {
    /// Counts nothing before [`start`](Self::start).
    pub(super) fn new(gauge: IntGauge) -> Visitors {
        let (queue, waiting) = mpsc::channel(QUEUE);
        Visitors {
            recent: (0..RECENT).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
            started: Instant::now(),
            queue,
            waiting: Mutex::new(Some(waiting)),
            ttl_s: AtomicU64::new(300),
            gauge,
        }
    }

    /// How long a visitor counts as present.
    pub fn present_for(&self, ttl: Duration) {
        self.ttl_s.store(ttl.as_secs().max(1), Relaxed);
    }

    /// Begins to count, beside requests. Once a process; again is nothing.
    pub fn start(self: &Arc<Visitors>, handle: &Handle, redis: Option<Redis>) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waiting) = waiting {
            handle.spawn(Tally::new(self.clone(), redis).run(waiting));
        }
    }

    /// A request came from here.
    pub fn saw(&self, client: IpAddr, agent: &[u8]) {
        let agent = &agent[..agent.len().min(AGENT)];
        let period = self.started.elapsed().as_secs() / EVERY.as_secs();
        // The period is part of it, so that who stays is counted again.
        let mark = self.hasher.hash_one((client, agent, period)) | 1;
        let place = &self.recent[(self.hasher.hash_one((client, agent)) as usize) % RECENT];
        if place.load(Relaxed) != mark {
            place.store(mark, Relaxed);
            let _ = self.queue.try_send((client, String::from_utf8_lossy(agent).into()));
        }
    }
}

/// The task that counts.
struct Tally {
    visitors: Arc<Visitors>,
    redis: Option<Redis>,
    /// When each was last seen, in seconds since 1970.
    seen: HashMap<u64, u64>,
    /// When those who are gone were last forgotten.
    tidied: u64,
    salt: Salt,
}

/// The salt of a day.
struct Salt {
    day: String,
    text: String,
    shared: bool,
}

impl Tally {
    fn new(visitors: Arc<Visitors>, redis: Option<Redis>) -> Tally {
        // Nobody waits for these answers.
        let redis = redis.map(|redis| redis.within(Duration::from_secs(2).max(redis.limit())));
        let salt = Salt { day: String::new(), text: String::new(), shared: false };
        Tally { visitors, redis, seen: HashMap::new(), tidied: 0, salt }
    }

    async fn run(mut self, mut waiting: mpsc::Receiver<Seen>) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            // Ends with a batch, or when it is time to look at the clock.
            let _ = timeout(EVERY, waiting.recv_many(&mut batch, BATCH)).await;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            self.season(now).await;
            let ids: Vec<u64> = batch.drain(..).map(|(client, agent)| self.id(client, &agent)).collect();
            self.count(ids, now).await;
            // A crowd is counted in batches, not one by one.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// First 8 bytes of the hash of salt, address and user agent.
    fn id(&self, client: IpAddr, agent: &str) -> u64 {
        let hash = Sha256::digest(format!("{}|{client}|{agent}", self.salt.text));
        u64::from_be_bytes(hash[..8].try_into().expect("a hash has more than 8 bytes"))
    }

    /// Takes the salt of the day: the one that all gateways share, where that can be had.
    async fn season(&mut self, now: u64) {
        let moment = i64::try_from(now).ok().and_then(|now| DateTime::<Utc>::from_timestamp(now, 0));
        let day = moment.unwrap_or_default().format("%Y-%m-%d").to_string();
        if self.salt.day != day {
            self.salt = Salt { text: format!("{:032x}", rand::random::<u128>()), day, shared: false };
        }
        let Some(redis) = self.redis.as_ref().filter(|redis| redis.is_up() && !self.salt.shared) else { return };
        let key = format!("{SALT}{}", self.salt.day);
        let mut ask = pipe();
        ask.cmd("SET").arg(&key).arg(&self.salt.text).arg("NX").arg("EX").arg(48 * 3600).ignore();
        ask.cmd("GET").arg(&key);
        if let Ok((text,)) = redis.pipeline::<(String,)>(&ask).await {
            self.salt.text = text;
            self.salt.shared = true;
        }
    }

    async fn count(&mut self, ids: Vec<u64>, now: u64) {
        let since = now.saturating_sub(self.visitors.ttl_s.load(Relaxed));
        if now >= self.tidied + EVERY.as_secs() {
            self.tidied = now;
            self.seen.retain(|_, seen| *seen > since);
        }
        for id in &ids {
            if self.seen.len() < MOST || self.seen.contains_key(id) {
                self.seen.insert(*id, now);
            }
        }
        let here = i64::try_from(self.seen.len()).unwrap_or(i64::MAX);
        self.visitors.gauge.set(self.everywhere(&ids, now, since).await.unwrap_or(here));
    }

    /// The number that all gateways have seen; `None` without Redis.
    async fn everywhere(&self, ids: &[u64], now: u64, since: u64) -> Option<i64> {
        let redis = self.redis.as_ref().filter(|redis| redis.is_up())?;
        if !ids.is_empty() {
            let mut add = cmd("ZADD");
            add.arg(SET);
            for id in ids {
                add.arg(now).arg(format!("{id:016x}"));
            }
            redis.call::<()>(&add).await.ok()?;
        }
        let mut tidy = pipe();
        tidy.cmd("ZREMRANGEBYSCORE").arg(SET).arg("-inf").arg(since).ignore();
        tidy.cmd("ZREMRANGEBYRANK").arg(SET).arg(0).arg(-MOST_SHARED - 1).ignore();
        tidy.cmd("EXPIRE").arg(SET).arg(3600).ignore();
        tidy.cmd("ZCARD").arg(SET);
        redis.pipeline::<(i64,)>(&tidy).await.ok().map(|(count,)| count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn visitors_are_counted_once_and_bounded() {
        let gauge = IntGauge::new("visitors", "x").expect("a gauge");
        let visitors = Arc::new(Visitors::new(gauge.clone()));
        let client = |last: u8| IpAddr::from([192, 0, 2, last]);
        for _ in 0..100 {
            visitors.saw(client(1), b"Firefox");
            visitors.saw(client(1), b"curl");
            visitors.saw(client(2), b"curl");
        }
        visitors.start(&Handle::current(), None);
        let deadline = Instant::now() + Duration::from_secs(20);
        while gauge.get() != 3 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(gauge.get(), 3);

        let mut tally = Tally::new(visitors, None);
        tally.count((0..300_000).collect(), 1_000).await;
        assert_eq!(tally.seen.len(), MOST);
        tally.count(vec![1], 2_000).await;
        assert_eq!(tally.seen.len(), 1, "the others are gone");
    }
}
