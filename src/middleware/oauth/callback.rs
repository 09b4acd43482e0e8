//! The provider's answer to a login. Spec middlewares §5.8, RFC 6749 §4.1.2, RFC 9207.

use std::borrow::Cow;
use std::time::Instant;

use http::{HeaderValue, Method, StatusCode, header};
use pingora_http::RequestHeader;

use super::cookies::Attributes;
use super::flow::{OAuth, redirection, text, wrong_method};
use super::login::{self, Login};
use super::party::now;
use super::seal::same;
use super::session::Session;
use super::store::{Store, Ticket};
use super::tokens::{ERRORS, Fault};
use crate::exchange::Exchange;
use crate::fields;
use crate::middleware::auth::unavailable;
use crate::middleware::{Flow, Verdict};
use crate::reply::Reply;

/// What an answer says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer<'a> {
    state: Cow<'a, str>,
    code: Cow<'a, str>,
    issuer: Option<Cow<'a, str>>,
    error: Option<Cow<'a, str>>,
}

impl<'a> Answer<'a> {
    /// Reads the query; `None` when it says something twice (RFC 6749 §3.1).
    fn of(query: Option<&'a str>) -> Option<Answer<'a>> {
        let query = query.unwrap_or_default();
        let count = |wanted: &str| {
            let names = query.split('&').map(|pair| pair.split('=').next().unwrap_or_default());
            names.filter(|name| fields::decoded(name) == wanted).count()
        };
        let once = ["state", "code", "iss", "error"].iter().all(|name| count(name) <= 1);
        let parameter = |name| fields::parameter(query, name);
        once.then(|| Answer {
            state: parameter("state").unwrap_or_default(),
            code: parameter("code").unwrap_or_default(),
            issuer: parameter("iss"),
            error: parameter("error"),
        })
    }
}

impl OAuth {
    /// Takes the provider's answer. What can be decided without asking is decided at once.
    pub(super) fn callback<'a>(&'a self, exchange: &'a mut Exchange, head: &'a mut RequestHeader) -> Flow<'a> {
        if head.method != Method::GET {
            return Flow::Reply(self.guard.deny("method", wrong_method("GET")));
        }
        let invalid = || text(StatusCode::BAD_REQUEST, "Invalid state\n");
        let Some(answer) = Answer::of(head.uri.query()) else {
            return Flow::Reply(self.guard.deny("invalid_state", invalid()));
        };
        let now = now();
        let login = Login::of(&head.headers, &answer.state, &self.party.seal, now);
        let login = login.filter(|login| !self.party.spent.has(&login.state, now));
        if login.is_none() && (!same(&answer.state, &self.given_state) || !answer.code.is_empty()) {
            return Flow::Reply(self.guard.deny("invalid_state", invalid()));
        }
        let Some(login) = login.filter(|_| !answer.code.is_empty()) else {
            return Flow::Reply(self.no_code(&answer, exchange));
        };
        let (code, issuer) = (answer.code.into_owned(), answer.issuer.map(Cow::into_owned));
        Flow::Wait(Box::pin(async move { Flow::Reply(self.arrive(&login, &code, issuer, exchange, head).await) }))
    }

    /// The provider says no, or nothing.
    fn no_code(&self, answer: &Answer<'_>, exchange: &Exchange) -> Verdict {
        let reply = self.over(text(StatusCode::BAD_REQUEST, "Missing code\n"), &answer.state, exchange);
        let Some(error) = &answer.error else { return self.guard.deny("missing_code", reply) };
        let word = ERRORS.iter().find(|known| **known == *error).unwrap_or(&"another error");
        log::debug!(error = *word; "OAuth: the provider refuses a login");
        self.guard.deny("provider_refused", reply)
    }

    /// The login that a reply ends is forgotten by the browser.
    fn over(&self, reply: Reply, state: &str, exchange: &Exchange) -> Reply {
        match login::forget(state, &self.login_attributes(exchange, &self.callbacks[0])) {
            Some(cookie) => reply.header(header::SET_COOKIE, cookie),
            None => reply,
        }
    }

    async fn arrive(
        &self,
        login: &Login,
        code: &str,
        issuer: Option<String>,
        exchange: &Exchange,
        head: &RequestHeader,
    ) -> Verdict {
        let Ok(endpoints) = self.party.provider.endpoints().await else { return self.down() };
        // An answer of another provider is meant for another one's token endpoint (RFC 9207: mix-up).
        let other = match (&issuer, &endpoints.issuer) {
            (Some(issuer), Some(expected)) => issuer != expected,
            (None, Some(_)) => endpoints.says_issuer,
            (_, None) => false,
        };
        if other {
            let reply = self.over(text(StatusCode::BAD_REQUEST, "Invalid issuer\n"), &login.state, exchange);
            return self.guard.deny("invalid_issuer", reply);
        }
        if !self.party.spent.add(&login.state, login.born + login::PATIENCE_SECS, now()) {
            return self.guard.deny("invalid_state", text(StatusCode::BAD_REQUEST, "Invalid state\n"));
        }
        let earlier = match self.earlier(login, head).await {
            Ok(Some(earlier)) => earlier,
            Ok(None) => {
                return self.guard.deny("invalid_state", text(StatusCode::BAD_REQUEST, "Invalid state\n"));
            }
            Err(fault) => {
                self.party.spent.remove(&login.state);
                return self.store_down(&fault);
            }
        };
        let started = Instant::now();
        let wants = self.wants.beside(earlier.as_ref());
        let found = self.party.login(login, code, &wants).await;
        self.guard.called(started);
        let (session, refresh) = match found {
            Ok(found) => found,
            Err(fault) => {
                if let (Fault::Down(_), Some(store)) = (&fault, &self.store) {
                    store.may_come_again(&self.party.seal, &login.state).await;
                }
                return self.failed(&fault, login, exchange);
            }
        };
        if let Some(store) = &self.store {
            return match self.keep(store, session, refresh, earlier, login, exchange, head).await {
                Ok(cookies) => self.welcome(login, cookies, exchange),
                Err(fault) => self.store_down(&fault),
            };
        }
        match self.cookies(&session, refresh.as_deref(), exchange, &head.headers, &login.cookie_path) {
            Some(cookies) => self.welcome(login, cookies, exchange),
            None => {
                log::error!("OAuth: the tokens of a login are too large for cookies");
                let reply = text(StatusCode::INTERNAL_SERVER_ERROR, "Failed to exchange token\n");
                self.guard.fail("session_too_large", self.over(reply, &login.state, exchange))
            }
        }
    }

    /// The session that a login takes the place of, if there is one; `None` alone when the answer was taken before, by any
    /// instance.
    async fn earlier(&self, login: &Login, head: &RequestHeader) -> Result<Option<Option<Session>>, Fault> {
        let Some(store) = &self.store else {
            return Ok(Some(Session::of(&head.headers, &self.party.seal).ok().flatten()));
        };
        if !store.is_first(&self.party.seal, &login.state).await? {
            return Ok(None);
        }
        match Ticket::of(&head.headers, &self.party.seal).ok().flatten() {
            Some(ticket) => Ok(Some(store.load(&self.party.seal, &ticket).await?)),
            None => Ok(Some(None)),
        }
    }

    /// Puts a session into Redis and ends the one before it; the cookies of its ticket.
    #[allow(clippy::too_many_arguments, reason = "the facts of one login")]
    async fn keep(
        &self,
        store: &Store,
        mut session: Session,
        refresh: Option<String>,
        earlier: Option<Session>,
        login: &Login,
        exchange: &Exchange,
        head: &RequestHeader,
    ) -> Result<Vec<HeaderValue>, Fault> {
        let seal = &self.party.seal;
        session.refresh = refresh;
        store.begin(seal, &session).await?;
        if let Some(earlier) = earlier {
            store.end(seal, &Ticket::for_session(&earlier)).await?;
        }
        let attributes = Attributes { path: &login.cookie_path, ..self.attributes(exchange, &session) };
        let mut cookies = Ticket::cookies(&session, &head.headers, seal, &attributes);
        // As in Goma, both are there.
        cookies.extend(session.refresh_cookies(None, &head.headers, seal, &attributes).unwrap_or_default());
        Ok(cookies)
    }

    fn welcome(&self, login: &Login, cookies: Vec<HeaderValue>, exchange: &Exchange) -> Verdict {
        let mut reply = self.over(redirection(StatusCode::SEE_OTHER, &login.target), &login.state, exchange);
        for cookie in cookies {
            reply = reply.header(header::SET_COOKIE, cookie);
        }
        self.guard.answer("logged_in", reply)
    }

    fn failed(&self, fault: &Fault, login: &Login, exchange: &Exchange) -> Verdict {
        log::warn!(error = fault.text(); "OAuth: a login failed");
        let reply = text(StatusCode::INTERNAL_SERVER_ERROR, "Failed to exchange token\n");
        match fault {
            Fault::Down(_) => {
                // The code may still be good when the user tries again.
                self.party.spent.remove(&login.state);
                self.down()
            }
            Fault::Store(_) => self.store_down(fault),
            Fault::Broken(_) => self.guard.fail("provider_broken", self.over(reply, &login.state, exchange)),
            Fault::Refused(_) => self.guard.deny("login_refused", self.over(reply, &login.state, exchange)),
        }
    }

    fn down(&self) -> Verdict {
        self.guard.fail("provider_down", unavailable())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_everything_once() {
        let answer = Answer::of(Some("state=a%2Bb&code=c+d&iss=https%3A%2F%2Fop")).expect("once");
        assert_eq!((&*answer.state, &*answer.code, answer.issuer.as_deref()), ("a+b", "c d", Some("https://op")));
        assert_eq!(Answer::of(None), Some(Answer::default()));
        for twice in ["state=a&state=b", "code=a&c%6Fde=b", "iss=a&iss=a", "error=a&error"] {
            assert_eq!(Answer::of(Some(twice)), None, "{twice}");
        }
    }
}
