//! Another attempt after a failure, or not.
//!
//! Three failures lose nothing of a request. A connection that was never made has carried no byte: the next backend
//! (or the next address) may try. A kept connection that turns out dead before a byte of response may have carried
//! the request, so it is sent once more only when repeating it does no harm (RFC 9110 §9.2.2) and its body is
//! still at hand. And an HTTP/2 backend that says it has not begun (it is going away, or takes no more streams) has
//! lost nothing of any method, as long as the body is at hand; RFC 9113 §8.7.
//!
//! A route may allow more with a [`Policy`]: then what failed otherwise is tried at another backend as well, where the
//! request may be repeated, within the route's budget.

use std::time::Duration;

use super::budget::Grant;
use super::cause::{Cause, On};

/// What failed, and what is known of the request.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Where the attempt ended.
    pub failure: Failure,
    /// Attempts to connect so far, this one included; a replay is none.
    pub attempts: usize,
    /// Most attempts for this request: see [`attempts_limit`](super::Upstream::attempts_limit).
    pub limit: usize,
    /// Something of a response has gone to the client.
    pub response_started: bool,
    /// Repeating it does no harm: by its method, or by the route's word.
    pub repeatable: bool,
    /// The method is idempotent.
    pub idempotent: bool,
    /// No body, or all that was read of it is still buffered.
    pub replayable: bool,
    /// How often the request was sent again already.
    pub replays: usize,
    /// What the route allows beyond.
    pub policy: Option<&'a Policy>,
}

/// What a route allows to be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Most attempts, the first included; at most [`MOST_ATTEMPTS`].
    pub attempts: usize,
    /// After what.
    pub on: On,
    /// Retries in all.
    pub grant: Grant,
    /// Limit for the head of a response in one attempt of a request that may be repeated.
    pub per_try: Option<Duration>,
    /// Pause before the second attempt; doubled for each further one.
    pub backoff: Duration,
    /// Methods beside the idempotent ones that may be repeated.
    pub methods: Vec<String>,
}

impl Policy {
    /// Whether requests of this method may be repeated.
    pub fn allows(&self, method: &http::Method) -> bool {
        method.is_idempotent() || self.methods.iter().any(|allowed| allowed == method.as_str())
    }

    /// The pause before an attempt, the first one being 1.
    pub fn pause(&self, attempt: usize) -> Duration {
        match attempt.checked_sub(2) {
            Some(doubled) => self.backoff.saturating_mul(1 << doubled.min(16)).min(LONGEST_PAUSE),
            None => Duration::ZERO,
        }
    }
}

/// Where an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection: refused, timed out, no address, TLS handshake failed.
    Connect,
    /// A connection kept from an earlier request closed before it gave any byte of response.
    DeadReused,
    /// An HTTP/2 backend says that it has done nothing for the request.
    Refused,
    /// The backend took too long to its response head.
    Late,
    /// A response whose status the route does not want to pass on.
    Status(u16),
    /// Anything else: a new connection broke, the response was cut or malformed.
    Exchange,
}

impl Failure {
    /// The same in the words of the configuration.
    pub fn cause(self) -> Cause {
        match self {
            Failure::Connect => Cause::Connect,
            Failure::Late => Cause::Timeout,
            Failure::Status(status) => Cause::Status(status),
            Failure::DeadReused | Failure::Refused | Failure::Exchange => Cause::Reset,
        }
    }
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Choose again; the backend that failed goes into [`Tried`](super::Tried).
    NextBackend,
    /// The same, if the route's budget has a retry left.
    Retry,
    /// The same backend again.
    SameBackend,
    /// Tell the client.
    GiveUp,
}

/// Most attempts for one request without a policy, connections to different backends and addresses counted alike.
pub const MAX_ATTEMPTS: usize = 3;

/// Most attempts that a policy may allow.
pub const MOST_ATTEMPTS: usize = 10;

/// Most times that one request is sent again. A backend that restarts turns away one connection after the other.
pub const MAX_REPLAYS: usize = 3;

const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Decides after a failed attempt.
pub fn decide(facts: &Facts<'_>) -> Decision {
    if facts.response_started {
        return Decision::GiveUp;
    }
    match facts.failure {
        Failure::Connect if facts.policy.is_none() && facts.attempts < facts.limit => Decision::NextBackend,
        Failure::Refused if facts.replayable && facts.replays < MAX_REPLAYS => Decision::SameBackend,
        Failure::DeadReused if facts.idempotent && facts.replayable && facts.replays == 0 => Decision::SameBackend,
        _ => beyond(facts),
    }
}

/// What the policy says.
fn beyond(facts: &Facts<'_>) -> Decision {
    let Some(policy) = facts.policy else { return Decision::GiveUp };
    let wanted = policy.on.holds(facts.failure.cause()) && facts.attempts < policy.attempts;
    // A connection that was not made has carried nothing.
    let harmless = facts.failure == Failure::Connect || facts.repeatable && facts.replayable;
    if wanted && harmless { Decision::Retry } else { Decision::GiveUp }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAFE: Facts<'_> = Facts {
        failure: Failure::Connect,
        attempts: 1,
        limit: 2,
        response_started: false,
        repeatable: true,
        idempotent: true,
        replayable: true,
        replays: 0,
        policy: None,
    };

    #[test]
    fn a_request_is_repeated_only_when_nothing_is_lost() {
        let connect = SAFE;
        let dead = Facts { failure: Failure::DeadReused, ..SAFE };
        let refused = Facts { failure: Failure::Refused, idempotent: false, ..SAFE };
        #[rustfmt::skip]
        let rows = [
            ("no connection", connect, Decision::NextBackend),
            ("no connection, a POST", Facts { idempotent: false, ..connect }, Decision::NextBackend),
            ("no connection, a body that is gone is still unread", Facts { replayable: false, ..connect }, Decision::NextBackend),
            ("no connection, last attempt", Facts { attempts: 2, ..connect }, Decision::GiveUp),
            ("no connection, one backend", Facts { limit: 1, ..connect }, Decision::GiveUp),
            ("dead kept connection", dead, Decision::SameBackend),
            ("dead kept connection, one backend", Facts { limit: 1, ..dead }, Decision::SameBackend),
            ("dead kept connection, second time", Facts { replays: 1, ..dead }, Decision::GiveUp),
            ("dead kept connection, a POST", Facts { idempotent: false, ..dead }, Decision::GiveUp),
            ("dead kept connection, body gone", Facts { replayable: false, ..dead }, Decision::GiveUp),
            ("refused, a POST", refused, Decision::SameBackend),
            ("refused, third time", Facts { replays: 2, ..refused }, Decision::SameBackend),
            ("refused, too often", Facts { replays: 3, ..refused }, Decision::GiveUp),
            ("refused, body gone", Facts { replayable: false, ..refused }, Decision::GiveUp),
            ("response begun", Facts { response_started: true, ..dead }, Decision::GiveUp),
            ("failure on a new connection", Facts { failure: Failure::Exchange, ..SAFE }, Decision::GiveUp),
        ];
        for (what, facts, expected) in rows {
            assert_eq!(decide(&facts), expected, "{what}");
        }
    }

    #[test]
    fn a_policy_allows_more_where_a_request_may_be_repeated() {
        let policy = Policy {
            attempts: 3,
            on: On::of(&["connect", "reset", "timeout", "503"].map(str::to_owned)),
            grant: Grant { percent: 20, per_second: 10 },
            per_try: None,
            backoff: Duration::from_millis(300),
            methods: vec!["POST".to_owned()],
        };
        let ours = Facts { policy: Some(&policy), limit: 1, ..SAFE };
        let with = |failure| Facts { failure, ..ours };
        let unsafe_one = Facts { repeatable: false, idempotent: false, ..ours };
        let rows = [
            ("no connection", ours, Decision::Retry),
            ("no connection, not repeatable", unsafe_one, Decision::Retry),
            ("no connection, third attempt", Facts { attempts: 3, ..ours }, Decision::GiveUp),
            ("broken", with(Failure::Exchange), Decision::Retry),
            ("late", with(Failure::Late), Decision::Retry),
            ("a status", with(Failure::Status(503)), Decision::Retry),
            ("another status", with(Failure::Status(500)), Decision::GiveUp),
            ("a status, not repeatable", Facts { failure: Failure::Status(503), ..unsafe_one }, Decision::GiveUp),
            ("late, body gone", Facts { replayable: false, ..with(Failure::Late) }, Decision::GiveUp),
            ("response begun", Facts { response_started: true, ..with(Failure::Exchange) }, Decision::GiveUp),
            ("dead, as without", with(Failure::DeadReused), Decision::SameBackend),
            ("dead again", Facts { replays: 1, ..with(Failure::DeadReused) }, Decision::Retry),
        ];
        for (what, facts, expected) in rows {
            assert_eq!(decide(&facts), expected, "{what}");
        }
        assert!(policy.allows(&http::Method::POST) && policy.allows(&http::Method::PUT));
        assert!(!policy.allows(&http::Method::PATCH));
        let pauses: Vec<_> = (1..=5).map(|attempt| policy.pause(attempt).as_millis()).collect();
        assert_eq!(pauses, [0, 300, 600, 1000, 1000]);
    }
}
