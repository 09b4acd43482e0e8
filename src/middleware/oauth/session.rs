//! A session: what the gateway knows of a user who has logged in, sealed into the browser's cookies.
//!
//! | cookie | holds, sealed |
//! |---|---|
//! | `goma_access_token` | the [`Session`], with the access token where a later step needs it |
//! | `goma_refresh_token` | the refresh token, bound to the session; empty when the provider gave none |
//!
//! With `sessionStore: redis` the first is a ticket, and the second stays empty: see `store`.
//!
//! Goma keeps the bare tokens under these names; here nothing that a client writes counts unless its seal opens.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};

use super::cookies::{self, Attributes, TooLong};
use super::seal::{self, Purpose, Seal};

/// Name of the session's cookie.
pub const SESSION: &str = "goma_access_token";
/// Name of the refresh token's cookie.
pub const REFRESH: &str = "goma_refresh_token";

/// One user's session. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Tells it apart from all others.
    #[serde(rename = "i")]
    pub id: String,
    /// When the user logged in.
    #[serde(rename = "b")]
    pub born: u64,
    /// When its access token ends; `None` when the provider did not say.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// When the provider last said that the token is good.
    #[serde(rename = "c")]
    pub checked: u64,
    /// Whether nothing but asking the provider tells if the token is still good.
    #[serde(rename = "o", default)]
    pub opaque: bool,
    /// Whether there is a refresh token.
    #[serde(rename = "r", default)]
    pub renewable: bool,
    /// The access token, where checks or the backend need it.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The ID token, where logging out needs it.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub id_token: Option<String>,
    /// The refresh token, where the session is kept by the gateway and not by the browser.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<String>,
    /// Who the user is at the provider; empty where it did not say.
    #[serde(rename = "s", default)]
    pub subject: String,
    /// Claims for the backend, as text.
    #[serde(rename = "f", default)]
    pub claims: BTreeMap<String, String>,
}

/// How long a provider that does not answer is borne with at least.
const SILENCE: Duration = Duration::from_secs(60);

/// How long things last.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// A session from the login on.
    pub session: Duration,
    /// Between two checks of an opaque token; `None` when it is not checked again.
    pub check: Option<Duration>,
}

/// What a session is good for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The request may pass.
    Good,
    /// The provider is to be asked first.
    Unchecked,
    /// The access token has ended; a refresh token may bring another one.
    Expired,
    /// The user has to log in again.
    Over,
}

impl Session {
    /// A session that begins now.
    pub fn begin(now: u64) -> Session {
        Session {
            id: seal::secret::<16>(),
            born: now,
            expires: None,
            checked: now,
            opaque: false,
            renewable: false,
            token: None,
            id_token: None,
            refresh: None,
            subject: String::new(),
            claims: BTreeMap::new(),
        }
    }

    /// What it is good for.
    pub fn state(&self, now: u64, lifetimes: &Lifetimes) -> State {
        let since = |then: u64| now.saturating_sub(then);
        if since(self.born) >= lifetimes.session.as_secs() {
            return State::Over;
        }
        if self.expires.is_some_and(|end| end <= now) {
            return if self.renewable { State::Expired } else { State::Over };
        }
        match lifetimes.check {
            Some(interval) if self.opaque && since(self.checked) >= interval.as_secs() => State::Unchecked,
            _ => State::Good,
        }
    }

    /// Whether it may go on when the provider does not say if its token is still good: for one more interval, and a minute at
    /// least. Then nobody can say that it has not been revoked.
    pub fn bears_silence(&self, now: u64, lifetimes: &Lifetimes) -> bool {
        let interval = lifetimes.check.unwrap_or_default();
        now.saturating_sub(self.checked) < (interval + interval.max(SILENCE)).as_secs()
    }

    /// The session of a request: `Err` when there is a cookie, and none that opens.
    pub fn of(request: &HeaderMap, seal: &Seal) -> Result<Option<Session>, Forged> {
        let open = |text: String| serde_json::from_slice(&seal.open(Purpose::Session, &text)?).ok();
        match cookies::values(request, SESSION).into_iter().find_map(open) {
            Some(session) => Ok(Some(session)),
            // An empty one is what logging out leaves with clients that ignore Max-Age.
            None if cookies::all(request, SESSION).iter().all(|value| value.is_empty()) => Ok(None),
            None => Err(Forged),
        }
    }

    /// The refresh token that belongs to this session.
    pub fn refresh_token(&self, request: &HeaderMap, seal: &Seal) -> Option<String> {
        if self.refresh.is_some() {
            return self.refresh.clone();
        }
        let open = |text: String| serde_json::from_slice(&seal.open(Purpose::Refresh, &text)?).ok();
        let mut tokens = cookies::values(request, REFRESH).into_iter().filter_map(open);
        tokens.find(|bound: &Bound| seal::same(&bound.session, &self.id)).map(|bound| bound.token)
    }

    /// `Set-Cookie` values for this session, without its refresh token.
    ///
    /// # Errors
    /// When it is too long for cookies.
    pub fn cookies(
        &self,
        request: &HeaderMap,
        seal: &Seal,
        attributes: &Attributes<'_>,
    ) -> Result<Vec<HeaderValue>, TooLong> {
        let plain = serde_json::to_vec(self).expect("texts and numbers");
        cookies::set_long(request, SESSION, &seal.seal(Purpose::Session, &plain), attributes)
    }

    /// `Set-Cookie` values for its refresh token; an empty cookie for none, as in Goma.
    ///
    /// # Errors
    /// When it is too long for cookies.
    pub fn refresh_cookies(
        &self,
        token: Option<&str>,
        request: &HeaderMap,
        seal: &Seal,
        attributes: &Attributes<'_>,
    ) -> Result<Vec<HeaderValue>, TooLong> {
        let Some(token) = token else {
            let mut cookies = cookies::delete_long(request, REFRESH, attributes);
            cookies[0] = cookies::set(REFRESH, "", attributes);
            return Ok(cookies);
        };
        let bound = Bound { session: self.id.clone(), token: token.to_owned() };
        let plain = serde_json::to_vec(&bound).expect("two texts");
        cookies::set_long(request, REFRESH, &seal.seal(Purpose::Refresh, &plain), attributes)
    }
}

/// There is a session cookie, and the gateway did not make it, or not for this client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forged;

/// Deletes both cookies.
pub fn forget(request: &HeaderMap, attributes: &Attributes<'_>) -> Vec<HeaderValue> {
    let mut cookies = cookies::delete_long(request, SESSION, attributes);
    cookies.extend(cookies::delete_long(request, REFRESH, attributes));
    cookies
}

/// A refresh token with the session that it belongs to.
#[derive(Serialize, Deserialize)]
struct Bound {
    #[serde(rename = "i")]
    session: String,
    #[serde(rename = "t")]
    token: String,
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    const PATH: Attributes<'_> = Attributes { path: "/", secure: true, max_age_secs: 60 };

    fn seal() -> Seal {
        Seal::new("secret", &["client"])
    }

    fn request(cookies: &[HeaderValue]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            let pair = cookie.to_str().unwrap().split(';').next().unwrap();
            headers.append(header::COOKIE, pair.parse().unwrap());
        }
        headers
    }

    fn typed(cookies: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, cookies.parse().unwrap());
        headers
    }

    #[test]
    fn a_session_travels_in_cookies_and_comes_back() {
        let mut session = Session { expires: Some(9), subject: "ann".into(), ..Session::begin(5) };
        session.claims.insert("groups".into(), "a,b".into());
        for length in [0, 10_000] {
            session.token = Some("t".repeat(length));
            let mut cookies = session.cookies(&HeaderMap::new(), &seal(), &PATH).expect("short enough");
            cookies.extend(session.refresh_cookies(Some("r"), &HeaderMap::new(), &seal(), &PATH).expect("short"));
            let request = request(&cookies);
            assert_eq!(Session::of(&request, &seal()), Ok(Some(session.clone())));
            assert_eq!(session.refresh_token(&request, &seal()).as_deref(), Some("r"));
            assert_eq!(Session::begin(5).refresh_token(&request, &seal()), None, "of another session");
        }
    }

    #[test]
    fn what_a_client_writes_itself_is_no_session() {
        let jwt = "eyJhbGciOiJub25lIn0.eyJleHAiOjk5OTk5OTk5OTl9.";
        let good = Session::begin(5).refresh_cookies(Some("r"), &HeaderMap::new(), &seal(), &PATH).expect("short");
        let moved = good[0].to_str().unwrap().replace(REFRESH, SESSION);
        for (description, cookies, found) in [
            ("none", String::new(), Ok(None)),
            ("an empty one", format!("{SESSION}="), Ok(None)),
            ("a JWT", format!("{SESSION}={jwt}"), Err(Forged)),
            ("an opaque token", format!("{SESSION}=gho_abc"), Err(Forged)),
            ("JSON", format!("{SESSION}=1.{{}}"), Err(Forged)),
            ("a refresh token in its place", moved.split(';').next().unwrap().to_owned(), Err(Forged)),
        ] {
            assert_eq!(Session::of(&typed(&cookies), &seal()), found, "{description}");
        }
    }

    #[test]
    fn a_session_ends_in_its_time() {
        let lifetimes = Lifetimes { session: Duration::from_secs(100), check: Some(Duration::from_secs(30)) };
        let plain = Session { opaque: true, ..Session::begin(1000) };
        let session = |expires, renewable| Session { expires, renewable, ..plain.clone() };
        for (description, session, now, state) in [
            ("fresh", session(Some(1060), true), 1001, State::Good),
            ("a clock that went back", session(Some(1060), true), 990, State::Good),
            ("to be checked", session(Some(1060), true), 1030, State::Unchecked),
            ("expired", session(Some(1060), true), 1060, State::Expired),
            ("expired without a refresh token", session(Some(1060), false), 1060, State::Over),
            ("without an end", session(None, false), 1029, State::Good),
            ("at the end of all sessions", session(None, true), 1100, State::Over),
        ] {
            assert_eq!(session.state(now, &lifetimes), state, "{description}");
        }
        let verified = Session { opaque: false, ..plain.clone() };
        assert_eq!(verified.state(1099, &lifetimes), State::Good);
        for (checked, interval, now, bears) in
            [(1000, 30, 1089, true), (1000, 30, 1090, false), (1000, 300, 1599, true), (1000, 300, 1600, false)]
        {
            let lifetimes = Lifetimes { check: Some(Duration::from_secs(interval)), ..lifetimes };
            let session = Session { checked, ..plain.clone() };
            assert_eq!(session.bears_silence(now, &lifetimes), bears, "checked every {interval} s, {now}");
        }
        let unchecked = Lifetimes { check: None, ..lifetimes };
        assert_eq!(plain.state(1099, &unchecked), State::Good);
    }
}
