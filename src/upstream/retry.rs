//! Another attempt after a failure, or not.
//!
//! Three failures lose nothing of a request. A connection that was never made has carried no byte: the next backend
//! (or the next address) may try. A kept connection that turns out dead before a byte of response may have carried
//! the request, so it is sent once more only when repeating it does no harm (RFC 9110 §9.2.2) and its body is
//! still at hand. And an HTTP/2 backend that says it has not begun (it is going away, or takes no more streams) has
//! lost nothing of any method, as long as the body is at hand; RFC 9113 §8.7.

/// What failed, and what is known of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Where the attempt ended.
    pub failure: Failure,
    /// Attempts to connect so far, this one included; a replay is none.
    pub attempts: usize,
    /// Most attempts for this request: see [`attempts_limit`](super::Upstream::attempts_limit).
    pub limit: usize,
    /// Something of a response has gone to the client.
    pub response_started: bool,
    /// The method is idempotent.
    pub idempotent: bool,
    /// No body, or all that was read of it is still buffered.
    pub replayable: bool,
    /// How often the request was sent again already.
    pub replays: usize,
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
    /// Anything else: a new connection broke, the response was cut or malformed, a limit passed.
    Exchange,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Choose again; the backend that failed goes into [`Tried`](super::Tried).
    NextBackend,
    /// The same backend again.
    SameBackend,
    /// Tell the client.
    GiveUp,
}

/// Most attempts for one request, connections to different backends and addresses counted alike.
pub const MAX_ATTEMPTS: usize = 3;

/// Most times that one request is sent again. A backend that restarts turns away one connection after the other.
pub const MAX_REPLAYS: usize = 3;

/// Decides after a failed attempt.
pub fn decide(facts: &Facts) -> Decision {
    if facts.response_started {
        return Decision::GiveUp;
    }
    match facts.failure {
        Failure::Connect if facts.attempts < facts.limit => Decision::NextBackend,
        Failure::Refused if facts.replayable && facts.replays < MAX_REPLAYS => Decision::SameBackend,
        Failure::DeadReused if facts.idempotent && facts.replayable && facts.replays == 0 => Decision::SameBackend,
        _ => Decision::GiveUp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAFE: Facts = Facts {
        failure: Failure::Connect,
        attempts: 1,
        limit: 2,
        response_started: false,
        idempotent: true,
        replayable: true,
        replays: 0,
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
}
