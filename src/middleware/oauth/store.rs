//! Sessions in Redis: the browser keeps a ticket, Redis the session itself, sealed as in a cookie.
//!
//! Who can read Redis learns nothing and can make nothing; who can write to it cannot move a session to another ticket. A
//! logout counts for all instances at once, a token is refreshed by one of them, and an answer of the provider is taken once.
//! While Redis cannot be asked nobody knows whether a session has ended, so requests that bring one get 503.
//!
//! | key behind `goma-edge:oauth:v1:` | holds |
//! |---|---|
//! | `session:` and a keyed hash | a sealed session, until its end |
//! | `refresh:` and a keyed hash | who is refreshing that session, for seconds |
//! | `answer:` and a keyed hash | that an answer to a login was taken, until it would be too old |

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};

use super::cookies::{self, Attributes};
use super::login::PATIENCE_SECS;
use super::party::now;
use super::seal::{self, Purpose, Seal};
use super::session::{Forged, SESSION, Session};
use super::tokens::Fault;
use crate::redis::{Failure, Redis, Script, cmd};

/// Where sessions are.
#[derive(Clone)]
pub struct Store {
    redis: Redis,
    /// How long a session lasts from its login on.
    lasts: Duration,
}

/// What the browser keeps in place of a session, sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    #[serde(rename = "i")]
    id: String,
}

/// An instance that refreshes a session, and nobody else meanwhile.
pub struct Turn {
    key: String,
    word: String,
}

/// How long a call takes at most, if not longer for all of Redis: without an answer there is no way round, unlike for limits.
const PATIENCE: Duration = Duration::from_secs(1);
const PREFIX: &str = "goma-edge:oauth:v1";
/// How long one instance may take to refresh: more than the provider's time-outs together.
const TURN: Duration = Duration::from_secs(20);

impl Ticket {
    /// The ticket of a request: `Err` when there is a cookie, and none that opens.
    pub fn of(request: &HeaderMap, seal: &Seal) -> Result<Option<Ticket>, Forged> {
        let open = |text: String| serde_json::from_slice(&seal.open(Purpose::Ticket, &text)?).ok();
        match cookies::values(request, SESSION).into_iter().find_map(open) {
            Some(ticket) => Ok(Some(ticket)),
            None if cookies::all(request, SESSION).iter().all(|value| value.is_empty()) => Ok(None),
            None => Err(Forged),
        }
    }

    /// The ticket of a session.
    pub fn for_session(session: &Session) -> Ticket {
        Ticket { id: session.id.clone() }
    }

    /// `Set-Cookie` values for the ticket of a session.
    pub fn cookies(
        session: &Session,
        request: &HeaderMap,
        seal: &Seal,
        attributes: &Attributes<'_>,
    ) -> Vec<HeaderValue> {
        let plain = serde_json::to_vec(&Ticket::for_session(session)).expect("a text");
        let sealed = seal.seal(Purpose::Ticket, &plain);
        cookies::set_long(request, SESSION, &sealed, attributes).expect("a short value")
    }
}

impl Store {
    /// Sessions in this Redis that last so long.
    pub fn new(redis: Redis, lasts: Duration) -> Store {
        let patience = redis.limit().max(PATIENCE);
        Store { redis: redis.within(patience), lasts }
    }

    /// The session of a ticket; `None` when it has ended.
    ///
    /// # Errors
    /// When Redis does not say.
    pub async fn load(&self, seal: &Seal, ticket: &Ticket) -> Result<Option<Session>, Fault> {
        let sealed: Option<String> = self.redis.call(cmd("GET").arg(key(seal, "session", &ticket.id))).await?;
        let open = |text: &String| serde_json::from_slice::<Session>(&seal.open(Purpose::Stored, text)?).ok();
        let session = sealed.as_ref().and_then(open).filter(|session| seal::same(&session.id, &ticket.id));
        if sealed.is_some() && session.is_none() {
            log::warn!("OAuth: Redis has something for a session that was not sealed for it");
        }
        Ok(session)
    }

    /// Keeps a new session.
    ///
    /// # Errors
    /// When Redis does not take it.
    pub async fn begin(&self, seal: &Seal, session: &Session) -> Result<(), Fault> {
        Ok(self.redis.call(&self.set(seal, session)).await?)
    }

    /// Keeps a session that has changed; whether it has not ended meanwhile. One that was logged out does not come back.
    ///
    /// # Errors
    /// When Redis does not say.
    pub async fn update(&self, seal: &Seal, session: &Session) -> Result<bool, Fault> {
        let mut set = self.set(seal, session);
        let answer: Option<String> = self.redis.call(set.arg("XX")).await?;
        Ok(answer.is_some())
    }

    /// Ends a session.
    ///
    /// # Errors
    /// When Redis does not do it: the session may go on.
    pub async fn end(&self, seal: &Seal, ticket: &Ticket) -> Result<(), Fault> {
        Ok(self.redis.call(cmd("DEL").arg(key(seal, "session", &ticket.id))).await?)
    }

    /// Whether an answer to a login comes for the first time.
    ///
    /// # Errors
    /// When Redis does not say.
    pub async fn is_first(&self, seal: &Seal, state: &str) -> Result<bool, Fault> {
        let mut set = cmd("SET");
        set.arg(key(seal, "answer", state)).arg("1").arg("NX").arg("EX").arg(PATIENCE_SECS);
        let answer: Option<String> = self.redis.call(&set).await?;
        Ok(answer.is_some())
    }

    /// An answer that was taken was no use, and may still be.
    pub async fn may_come_again(&self, seal: &Seal, state: &str) {
        // If Redis does not do it, the user begins anew.
        let _: Result<(), Failure> = self.redis.call(cmd("DEL").arg(key(seal, "answer", state))).await;
    }

    /// Takes the turn to refresh a session; `None` while another instance has it.
    ///
    /// # Errors
    /// When Redis does not say.
    pub async fn turn(&self, seal: &Seal, session: &Session) -> Result<Option<Turn>, Fault> {
        let turn = Turn { key: key(seal, "refresh", &session.id), word: seal::secret::<16>() };
        let mut set = cmd("SET");
        set.arg(&turn.key).arg(&turn.word).arg("NX").arg("PX").arg(TURN.as_millis() as u64);
        let answer: Option<String> = self.redis.call(&set).await?;
        Ok(answer.map(|_| turn))
    }

    /// Gives a turn back, if it is still ours.
    pub async fn give_back(&self, turn: &Turn) {
        let script =
            Script::new("if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0");
        // It ends by itself soon.
        let _: Result<i64, Failure> = self.redis.script(script.key(&turn.key).arg(&turn.word)).await;
    }

    fn set(&self, seal: &Seal, session: &Session) -> crate::redis::Cmd {
        let plain = serde_json::to_vec(session).expect("texts and numbers");
        let ends = session.born.saturating_add(self.lasts.as_secs());
        let mut set = cmd("SET");
        set.arg(key(seal, "session", &session.id)).arg(seal.seal(Purpose::Stored, &plain));
        set.arg("EX").arg(ends.saturating_sub(now()).max(1));
        set
    }
}

fn key(seal: &Seal, what: &str, id: &str) -> String {
    format!("{PREFIX}:{what}:{}", seal.name(what, id))
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Fault {
        Fault::Store(failure.to_string())
    }
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    #[test]
    fn a_ticket_is_the_gateways_and_says_nothing() {
        let seal = Seal::new("secret", &["client"]);
        let session = Session::begin(5);
        let attributes = Attributes { path: "/", secure: true, max_age_secs: 60 };
        let cookies = Ticket::cookies(&session, &HeaderMap::new(), &seal, &attributes);
        let text = cookies[0].to_str().expect("letters").to_owned();
        assert!(cookies.len() == 1 && !text.contains(&session.id), "{text}");
        let of = |cookie: &str, seal: &Seal| {
            let mut request = HeaderMap::new();
            request.insert(header::COOKIE, cookie.parse().expect("a value"));
            Ticket::of(&request, seal)
        };
        let pair = text.split(';').next().expect("a pair");
        assert_eq!(of(pair, &seal), Ok(Some(Ticket { id: session.id.clone() })));
        assert_eq!(of(pair, &Seal::new("other", &["client"])), Err(Forged));
        assert_eq!(of(&format!("{SESSION}="), &seal), Ok(None));
        let whole = session.cookies(&HeaderMap::new(), &seal, &attributes).expect("short");
        let whole = whole[0].to_str().expect("letters").split(';').next().expect("a pair").to_owned();
        assert_eq!(of(&whole, &seal), Err(Forged), "a session is no ticket");
        assert!(!key(&seal, "session", &session.id).contains(&session.id));
        assert_ne!(key(&seal, "session", "a"), key(&Seal::new("other", &["client"]), "session", "a"));
    }
}
