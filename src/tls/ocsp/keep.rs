//! Keeps staples fresh: asks the responders that certificates name, beside all handshakes, and takes back what is out of date.
//!
//! A response is asked for again halfway through its time; one that could not be had after a minute, then twice as long each
//! time, at most an hour. At most four responders are asked at a time.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rand::Rng;
use tokio::time::{Instant, sleep};

use super::{Answer, Staple, Status, Unfit, check};
use crate::outbound::{CallError, Client, Verify};
use crate::tls::pair::Certificate;
use crate::tls::{Keeper, unix_now};

/// When a certificate's responder is asked.
#[derive(Debug, Default)]
pub struct Plan {
    /// `None` before the first time.
    due: Option<Instant>,
    asking: bool,
    failures: u32,
}

/// How asking ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The certificate counts.
    Good,
    /// It was taken back.
    Revoked,
    /// The responder does not know it.
    Unknown,
    /// There was no answer that can be believed.
    Failed,
}

/// Runs as long as the process.
pub async fn run(keeper: Arc<Keeper>, heard: impl Fn(Heard)) {
    let client = match Client::get(Verify::System) {
        Ok(client) => client,
        Err(error) => return log::error!(error:% = error; "No client to ask OCSP responders with"),
    };
    let mut asked = FuturesUnordered::new();
    loop {
        let mut pause = LONGEST_PAUSE;
        if let Some(table) = keeper.table() {
            let now = unix_now();
            for certificate in table.certificates() {
                pause = pause.min(tidy(certificate, now));
                if !table.asks_responders() {
                    continue;
                }
                match wait(certificate, now) {
                    Some(Duration::ZERO) if asked.len() < AT_A_TIME => {
                        certificate.revocation.plan().asking = true;
                        asked.push(ask(certificate.clone(), client.clone()));
                    }
                    Some(Duration::ZERO) | None => {}
                    Some(left) => pause = pause.min(left),
                }
            }
        }
        tokio::select! {
            Some(outcome) = asked.next(), if !asked.is_empty() => heard(outcome),
            () = sleep(pause.max(SHORTEST_PAUSE)) => {}
            () = keeper.changed() => {}
        }
    }
}

/// Takes a staple back whose time is over; how long the present one may stay.
fn tidy(certificate: &Certificate, now: i64) -> Duration {
    let Some(until) = certificate.stapled_until() else { return LONGEST_PAUSE };
    if until <= now {
        certificate.staple(None);
        log::warn!(certificate = certificate.name(); "The OCSP response is out of date and is not sent along any more");
        return LONGEST_PAUSE;
    }
    Duration::from_secs((until - now).unsigned_abs())
}

/// How long until a certificate's responder is to be asked; `None` for never, or while it is being asked.
fn wait(certificate: &Certificate, now: i64) -> Option<Duration> {
    certificate.revocation.question()?;
    let plan = certificate.revocation.plan();
    if plan.asking || !certificate.is_valid_at(now) {
        return None;
    }
    // Whoever writes files is expected to go on doing so.
    if let Some(left) = certificate.filed_until().map(|until| until - now - FILE_MARGIN).filter(|left| *left > 0) {
        return Some(Duration::from_secs(left.unsigned_abs()));
    }
    Some(plan.due.map_or(Duration::ZERO, |due| due.saturating_duration_since(Instant::now())))
}

/// Asks, and staples what was heard if that is good.
async fn ask(certificate: Arc<Certificate>, client: Client) -> Heard {
    let outcome = fetch(&certificate, &client).await;
    let now = unix_now();
    let mut plan = certificate.revocation.plan();
    plan.asking = false;
    let name = certificate.name();
    let (heard, pause) = match outcome {
        Ok((answer, response)) => {
            plan.failures = 0;
            let heard = match answer.status {
                Status::Good => {
                    certificate.staple(Some(Staple { response, until: answer.until, from_file: false }));
                    log::debug!(certificate = name; "OCSP: the certificate is good");
                    Heard::Good
                }
                Status::Revoked(_) => {
                    certificate.staple(None);
                    log::error!(certificate = name; "OCSP: THE CERTIFICATE WAS REVOKED by its authority; clients will refuse it: replace it");
                    Heard::Revoked
                }
                Status::Unknown => {
                    log::warn!(certificate = name; "OCSP: the responder does not know the certificate; nothing is stapled");
                    Heard::Unknown
                }
            };
            (heard, refresh(&answer, now))
        }
        Err(why) => {
            plan.failures += 1;
            let pause = back_off(plan.failures);
            log::warn!(certificate = name, again:? = pause; "OCSP: no response to staple: {why}");
            (Heard::Failed, pause)
        }
    };
    plan.due = Some(Instant::now() + pause.mul_f64(rand::rng().random_range(0.95..1.0)));
    heard
}

/// Why there is nothing to staple.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Call(#[from] CallError),
    #[error("the response {0}")]
    Unfit(#[from] Unfit),
    #[error("the certificate names no responder")]
    Nobody,
}

async fn fetch(certificate: &Certificate, client: &Client) -> Result<(Answer, Vec<u8>), Failure> {
    let (responder, subject) = certificate.revocation.question().ok_or(Failure::Nobody)?;
    let request = client.http().post(responder);
    let request = request.header("content-type", "application/ocsp-request").body(subject.request());
    let response = client.call(request, LONGEST).await?.ok()?.body.to_vec();
    let answer = check(&response, subject, unix_now())?;
    Ok((answer, response))
}

/// How long a response is good for until a newer one is asked for: half of its time, then half of what is left.
fn refresh(answer: &Answer, now: i64) -> Duration {
    let middle = answer.from + (answer.until - answer.from) / 2;
    let left = if middle > now { middle - now } else { (answer.until - now) / 2 };
    Duration::from_secs(left.unsigned_abs()).max(SOONEST)
}

/// How long after so many failures in a row it is tried again.
fn back_off(failures: u32) -> Duration {
    let doubled = SOONEST.saturating_mul(1 << failures.saturating_sub(1).min(8));
    doubled.min(LATEST)
}

const AT_A_TIME: usize = 4;
/// The longest response that is read, in bytes. Usual are 500 to 2,000.
const LONGEST: usize = 64 * 1024;
const SOONEST: Duration = Duration::from_secs(60);
const LATEST: Duration = Duration::from_secs(3600);
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// How long before the end of what a file says the responder is asked after all, in seconds.
const FILE_MARGIN: i64 = 3600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_refreshed_halfway_and_failures_back_off() {
        let answer = |from, until| Answer { status: Status::Good, from, until };
        for (answer, now, seconds, about) in [
            (answer(0, 7200), 0, 3600, "halfway"),
            (answer(0, 7200), 3000, 600, "halfway through its time, whenever it came"),
            (answer(0, 7200), 4000, 1600, "an old one: half of what is left"),
            (answer(0, 7200), 7199, 60, "not at once"),
        ] {
            assert_eq!(refresh(&answer, now), Duration::from_secs(seconds), "{about}");
        }
        let waits: Vec<u64> = (1..=9).map(|failures| back_off(failures).as_secs()).collect();
        assert_eq!(waits, [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]);
        assert_eq!(back_off(u32::MAX), LATEST);
    }
}
