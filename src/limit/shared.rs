//! Buckets and bans in Redis, exactly as Goma keeps them, so that both can run side by side.
//!
//! A bucket is the moment at which it will be full, in seconds since the start of 2017 by the clock of Redis, under
//! `rate:<identifier>`; it goes when it is full. Strikes are a counter under `rate:strikes:<identifier>`, a ban the word `banned`
//! under `rate:ban:<identifier>`. Goma asks up to four times a request; here one script does all of it. In a Cluster, where Goma
//! cannot run, the identifier is a hash tag, so that the three keys are on one node.

use std::sync::LazyLock;
use std::time::Duration;

use super::quota::Quota;
use super::strikes::Bans;
use crate::redis::{Failure, Redis, Script};

/// `KEYS`: bucket, ban, strikes. `ARGV`: seconds a token takes, capacity, tokens wanted, strikes before a ban (0: none), how long
/// one lasts in milliseconds, strikes to add without asking for tokens.
/// Returns what became of it (0 granted, 1 refused, 2 banned), the tokens granted, those left, and microseconds: until the
/// bucket is full, until a token comes or the ban ends; then the strikes.
static SCRIPT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local interval, capacity, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local ban_after, ban_ms, offences = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local micros = function(seconds) return math.ceil(seconds * 1000000) end

if ban_after > 0 then
    local left = redis.call('PTTL', KEYS[2])
    if left ~= -2 then
        if left == -1 then left = ban_ms end
        return {2, 0, 0, 0, left * 1000, 0}
    end
end

local strike = function(count)
    if ban_after <= 0 then return 0 end
    local strikes = redis.call('INCRBY', KEYS[3], count)
    redis.call('PEXPIRE', KEYS[3], ban_ms)
    if strikes >= ban_after then
        redis.call('SET', KEYS[2], 'banned', 'PX', ban_ms)
        redis.call('DEL', KEYS[3])
    end
    return strikes
end

if offences > 0 then return {1, 0, 0, 0, 0, strike(offences)} end

local clock = redis.call('TIME')
local now = (clock[1] - 1483228800) + clock[2] / 1000000
local full_at = tonumber(redis.call('GET', KEYS[1]) or now)
if full_at < now then full_at = now end
local next_full = full_at + interval * wanted
local over = (now - (next_full - interval * capacity)) / interval
if over < 0 and wanted > 1 then
    wanted = math.max(1, wanted + math.floor(over))
    next_full = full_at + interval * wanted
    over = (now - (next_full - interval * capacity)) / interval
end
if over < 0 then
    return {1, 0, 0, micros(full_at - now), micros(-over * interval), strike(1)}
end
local reset = next_full - now
if reset > 0 then
    redis.call('SET', KEYS[1], next_full, 'EX', math.ceil(reset))
end
return {0, wanted, math.floor(over), micros(reset), 0, 0}
",
    )
});

/// What Redis says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// Tokens were there.
    Granted {
        /// How many, one at least.
        tokens: u32,
        /// How many are left.
        remaining: u32,
        /// Nanoseconds until the bucket is full.
        reset: u64,
    },
    /// No token was there.
    Refused {
        /// Nanoseconds until one is.
        retry: u64,
        /// Refusals so far, this one included; 0 where nobody is banned.
        strikes: u32,
    },
    /// The key is banned for so many nanoseconds yet.
    Banned(u64),
}

/// A limit as Redis is asked about it.
pub struct Shared {
    redis: Redis,
    interval: String,
    capacity: u32,
    ban_after: u32,
    ban_ms: u64,
    cluster: bool,
}

impl Shared {
    /// A limit in this Redis.
    pub fn new(redis: Redis, quota: &Quota, bans: &Bans) -> Shared {
        // As many digits as it takes to be the number that Goma has.
        let interval = quota.window.as_secs_f64() / f64::from(quota.rate);
        let cluster = redis.is_cluster();
        let ban_ms = u64::try_from(Duration::from_nanos(bans.lasts).as_millis()).unwrap_or(u64::MAX).max(1);
        Shared {
            redis,
            interval: format!("{interval:?}"),
            capacity: quota.capacity,
            ban_after: bans.after,
            ban_ms,
            cluster,
        }
    }

    /// Whether Redis is in use now.
    pub fn is_up(&self) -> bool {
        self.redis.is_up()
    }

    /// Asks for up to so many tokens for an identifier; a refusal counts as a strike.
    ///
    /// # Errors
    /// When Redis gave no answer.
    pub async fn ask(&self, identifier: &str, tokens: u32) -> Result<Ruling, Failure> {
        self.run(identifier, tokens, 0).await
    }

    /// Tells of a refusal that was decided here.
    ///
    /// # Errors
    /// When Redis gave no answer.
    pub async fn strike(&self, identifier: &str) -> Result<Ruling, Failure> {
        self.run(identifier, 0, 1).await
    }

    async fn run(&self, identifier: &str, tokens: u32, strikes: u32) -> Result<Ruling, Failure> {
        let (open, close) = if self.cluster { ("{", "}") } else { ("", "") };
        let mut call = SCRIPT.prepare_invoke();
        call.key(format!("rate:{open}{identifier}{close}"));
        if self.ban_after > 0 {
            call.key(format!("rate:ban:{open}{identifier}{close}"));
            call.key(format!("rate:strikes:{open}{identifier}{close}"));
        }
        call.arg(self.interval.as_str())
            .arg(self.capacity)
            .arg(tokens)
            .arg(self.ban_after)
            .arg(self.ban_ms)
            .arg(strikes);
        let answer: (u8, u32, u32, u64, u64, u32) = self.redis.script(&call).await?;
        let (what, tokens, remaining, reset, wait, strikes) = answer;
        let nanos = |micros: u64| micros.saturating_mul(1000);
        Ok(match what {
            0 => Ruling::Granted { tokens, remaining, reset: nanos(reset) },
            2 => Ruling::Banned(nanos(wait)),
            _ => Ruling::Refused { retry: nanos(wait), strikes },
        })
    }
}
