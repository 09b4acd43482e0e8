//! Another attempt after a failure, or not.
//!
//! Two failures lose nothing of a request. A connection that was never made has carried no byte: the next backend
//! (or the next address) may try. A kept connection that turns out dead before a byte of response may have carried
//! the request, so it is sent once more only when repeating it does no harm (RFC 9110 §9.2.2) and its body is
//! still at hand.

/// What failed, and what is known of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Where the attempt ended.
    pub failure: Failure,
    /// Attempts so far, this one included.
    pub attempts: usize,
    /// Most attempts for this request: see [`attempts_limit`](super::Upstream::attempts_limit).
    pub limit: usize,
    /// Something of a response has gone to the client.
    pub response_started: bool,
    /// The method is idempotent, or the client vouches for it (`Idempotency-Key`).
    pub idempotent: bool,
    /// No body, or all that was read of it is still buffered.
    pub replayable: bool,
    /// A request was sent again already.
    pub replayed: bool,
}

/// Where an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection: refused, timed out, no address, TLS handshake failed.
    Connect,
    /// A connection kept from an earlier request closed before it gave any byte of response.
    DeadReused,
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

/// Decides after a failed attempt.
pub fn decide(facts: &Facts) -> Decision {
    if facts.response_started {
        return Decision::GiveUp;
    }
    match facts.failure {
        Failure::Connect if facts.attempts < facts.limit => Decision::NextBackend,
        Failure::DeadReused if facts.idempotent && facts.replayable && !facts.replayed => Decision::SameBackend,
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
        replayed: false,
    };

    #[test]
    fn a_request_is_repeated_only_when_nothing_is_lost() {
        let connect = SAFE;
        let dead = Facts { failure: Failure::DeadReused, ..SAFE };
        #[rustfmt::skip]
        let rows = [
            ("no connection", connect, Decision::NextBackend),
            ("no connection, a POST", Facts { idempotent: false, ..connect }, Decision::NextBackend),
            ("no connection, a body that is gone is still unread", Facts { replayable: false, ..connect }, Decision::NextBackend),
            ("no connection, last attempt", Facts { attempts: 2, ..connect }, Decision::GiveUp),
            ("no connection, one backend", Facts { limit: 1, ..connect }, Decision::GiveUp),
            ("dead kept connection", dead, Decision::SameBackend),
            ("dead kept connection, one backend", Facts { limit: 1, ..dead }, Decision::SameBackend),
            ("dead kept connection, second time", Facts { replayed: true, ..dead }, Decision::GiveUp),
            ("dead kept connection, a POST", Facts { idempotent: false, ..dead }, Decision::GiveUp),
            ("dead kept connection, body gone", Facts { replayable: false, ..dead }, Decision::GiveUp),
            ("response begun", Facts { response_started: true, ..dead }, Decision::GiveUp),
            ("failure on a new connection", Facts { failure: Failure::Exchange, ..SAFE }, Decision::GiveUp),
        ];
        for (what, facts, expected) in rows {
            assert_eq!(decide(&facts), expected, "{what}");
        }
    }
}
