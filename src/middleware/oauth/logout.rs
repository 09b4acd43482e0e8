//! The end of a session: cookies, the provider's tokens, the provider's own session. OpenID Connect RP-Initiated Logout 1.0,
//! RFC 7009.

use http::{Method, StatusCode, header};
use pingora_http::RequestHeader;

use super::cookies::Attributes;
use super::flow::{OAuth, redirection, text, wrong_method};
use super::login::with_parameters;
use super::party::now;
use super::session::{self, Session};
use super::store::Ticket;
use super::tokens::Fault;
use crate::exchange::Exchange;
use crate::middleware::Flow;
use crate::reply::Reply;

impl OAuth {
    /// Ends the session, here and at the provider.
    pub(super) fn log_out<'a>(&'a self, exchange: &'a mut Exchange, head: &'a mut RequestHeader) -> Flow<'a> {
        if !matches!(head.method, Method::GET | Method::POST) {
            return Flow::Reply(self.guard.deny("method", wrong_method("GET, POST")));
        }
        // Nobody else's page logs users out.
        if head.headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site") {
            return Flow::Reply(self.guard.deny("cross_site", Reply::plain(StatusCode::FORBIDDEN)));
        }
        Flow::Wait(Box::pin(async move {
            let session = match self.last_session(head).await {
                Ok(session) => session,
                // It goes on, and the user should know.
                Err(fault) => return Flow::Reply(self.store_down(&fault)),
            };
            let mut id_token = None;
            if let Some(session) = session {
                let refresh = session.refresh_token(&head.headers, &self.party.seal);
                id_token.clone_from(&session.id_token);
                let until = session.born + self.lifetimes.session.as_secs();
                let party = self.party.clone();
                // Nobody waits for the provider to take its tokens back.
                party.ended.add(&session.id, until, now());
                tokio::spawn(async move { party.give_back(&session, refresh).await });
            }
            let attributes = Attributes { path: &self.cookie_path, secure: self.secure(exchange), max_age_secs: 0 };
            let mut reply = self.farewell(id_token);
            for cookie in session::forget(&head.headers, &attributes) {
                reply = reply.header(header::SET_COOKIE, cookie);
            }
            Flow::Reply(self.guard.answer("logged_out", reply))
        }))
    }

    /// The session that is to end; in Redis it has ended already.
    async fn last_session(&self, head: &RequestHeader) -> Result<Option<Session>, Fault> {
        let Some(store) = &self.store else {
            return Ok(Session::of(&head.headers, &self.party.seal).ok().flatten());
        };
        let Some(ticket) = Ticket::of(&head.headers, &self.party.seal).ok().flatten() else { return Ok(None) };
        let session = store.load(&self.party.seal, &ticket).await?;
        store.end(&self.party.seal, &ticket).await?;
        Ok(session)
    }

    fn farewell(&self, id_token: Option<String>) -> Reply {
        let known = self.party.provider.known();
        match (known.as_ref().and_then(|endpoints| endpoints.end_session.as_deref()), &self.after_logout) {
            (Some(url), after) => {
                let mut parameters = vec![("client_id", self.client_id.clone())];
                parameters.extend(id_token.map(|token| ("id_token_hint", token)));
                let absolute = after.clone().filter(|after| !after.starts_with('/'));
                parameters.extend(absolute.map(|after| ("post_logout_redirect_uri", after)));
                redirection(StatusCode::SEE_OTHER, &with_parameters(url, &parameters))
            }
            (None, Some(after)) => redirection(StatusCode::SEE_OTHER, after),
            (None, None) => text(StatusCode::OK, "Logged out\n"),
        }
    }
}
