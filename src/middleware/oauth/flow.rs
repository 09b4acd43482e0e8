//! What happens to a request: pass, log in, or come back from a login.
//!
//! | request | answer |
//! |---|---|
//! | with a session | goes on |
//! | of a browser that opens a page, without one | 307 to the provider |
//! | of a program (another method than GET and HEAD, `X-Requested-With`, asks for JSON, ...) | 401 |
//! | the provider's answer, on the path of `redirectUrl` | 303 to where the user wanted to go |
//! | on `logoutPath` | the session ends |

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use pingora_http::{RequestHeader, ResponseHeader};
use prometheus::Histogram;

use super::claims::tree;
use super::cookies::Attributes;
use super::login::{Ask, Login, local, with_parameters};
use super::party::{Party, Wants, now};
use super::provider::Endpoints;
use super::session::{Forged, Lifetimes, SESSION, Session, State};
use super::store::{Store, Ticket};
use super::tokens::Fault;
use crate::exchange::Exchange;
use crate::fields;
use crate::gate;
use crate::middleware::auth::{Guard, unavailable};
use crate::middleware::spelled::Spelled;
use crate::middleware::{Flow, Middleware, Verdict};
use crate::reply::Reply;

/// The step of one route.
pub(super) struct OAuth {
    pub guard: Guard,
    /// Time of calls to the provider.
    pub outside: Histogram,
    pub party: Arc<Party>,
    /// Says in `state` which middleware asked.
    pub tag: String,
    pub client_id: String,
    pub redirect_url: String,
    pub scope: String,
    pub further: Vec<(String, String)>,
    /// `state` of the settings: decides no more than a text.
    pub given_state: String,
    /// Paths on which answers of the provider come in: that of `redirectUrl`, and the same behind the route's path.
    pub callbacks: Vec<String>,
    pub logout: Option<String>,
    pub after_logout: Option<String>,
    pub cookie_path: String,
    /// Where users go after a login, whatever they wanted.
    pub redirect_path: Option<String>,
    /// Where they go when it is not known what they wanted.
    pub fallback: String,
    pub lifetimes: Lifetimes,
    /// Where sessions are when browsers do not keep them.
    pub store: Option<Store>,
    pub wants: Wants,
    /// Headers for the backend, with the claim that each takes.
    pub headers: Vec<(Spelled, String)>,
    /// The same, for those of the client.
    pub names: Vec<HeaderName>,
    pub forwards_token: bool,
    /// Whether a step behind it reads claims.
    pub tells_claims: bool,
    /// Paths that answers of the provider and log-outs come in on.
    pub landings: Vec<String>,
}

impl Middleware for OAuth {
    fn request<'a>(&'a self, exchange: &'a mut Exchange, head: &'a mut RequestHeader) -> Flow<'a> {
        if self.callbacks.iter().any(|path| is_path(head, path)) {
            return self.callback(exchange, head);
        }
        if self.logout.as_ref().is_some_and(|path| is_path(head, path)) {
            return self.log_out(exchange, head);
        }
        if !self.guard.takes(exchange) {
            return Flow::Next;
        }
        self.enter(exchange, head)
    }

    /// A response that brings a session is for one user only.
    fn response(&self, exchange: &Exchange, head: &mut ResponseHeader) {
        let ours = |cookie: &HeaderValue| cookie.as_bytes().starts_with(SESSION.as_bytes());
        let said = |value: &HeaderValue| {
            value.to_str().is_ok_and(|text| text.contains("private") || text.contains("no-store"))
        };
        if exchange.cookies.iter().any(ours) && !head.headers.get_all(header::CACHE_CONTROL).iter().any(said) {
            let _ = head.insert_header(header::CACHE_CONTROL, HeaderValue::from_static("private"));
        }
    }

    fn identity(&self) -> &[HeaderName] {
        &self.names
    }

    fn landings(&self) -> &[String] {
        &self.landings
    }

    fn claims(&self, exchange: &Exchange) -> bool {
        let state = exchange.query.as_deref().and_then(|query| fields::parameter(query, "state"));
        state.is_some_and(|state| state.starts_with(&*self.tag))
    }
}

impl OAuth {
    fn enter<'a>(&'a self, exchange: &'a mut Exchange, head: &'a mut RequestHeader) -> Flow<'a> {
        if let Some(store) = &self.store {
            return match Ticket::of(&head.headers, &self.party.seal) {
                Ok(Some(ticket)) => Flow::Wait(Box::pin(self.fetch(store, ticket, exchange, head))),
                Ok(None) => self.log_in(exchange, head, "no_session"),
                Err(Forged) => self.log_in(exchange, head, "bad_session"),
            };
        }
        match Session::of(&head.headers, &self.party.seal) {
            Ok(Some(session)) => self.go_on(session, exchange, head),
            Ok(None) => self.log_in(exchange, head, "no_session"),
            Err(Forged) => self.log_in(exchange, head, "bad_session"),
        }
    }

    /// Fetches the session of a ticket.
    async fn fetch<'a>(
        &'a self,
        store: &'a Store,
        ticket: Ticket,
        exchange: &'a mut Exchange,
        head: &'a mut RequestHeader,
    ) -> Flow<'a> {
        match store.load(&self.party.seal, &ticket).await {
            Ok(Some(session)) => self.go_on(session, exchange, head),
            Ok(None) => self.log_in(exchange, head, "session_over"),
            Err(fault) => Flow::Reply(self.store_down(&fault)),
        }
    }

    /// Nobody knows whether a session has ended, or a new one cannot be kept.
    pub(super) fn store_down(&self, fault: &Fault) -> Verdict {
        log::warn!(error = fault.text(); "OAuth: sessions cannot be had from Redis");
        self.guard.fail("store_down", unavailable())
    }

    fn go_on<'a>(&'a self, session: Session, exchange: &'a mut Exchange, head: &'a mut RequestHeader) -> Flow<'a> {
        match self.party.state(&session, &self.wants, &self.lifetimes) {
            State::Good => self.pass(&session, exchange, head),
            State::Over => self.log_in(exchange, head, "session_over"),
            State::Unchecked => Flow::Wait(Box::pin(self.check(session, exchange, head))),
            State::Expired => Flow::Wait(Box::pin(self.renew(session, exchange, head, "expired"))),
        }
    }

    fn pass<'a>(&self, session: &Session, exchange: &mut Exchange, head: &mut RequestHeader) -> Flow<'a> {
        if self.tells_claims {
            exchange.claims.get_or_insert_with(|| tree(&session.subject, &session.claims).to_string());
        }
        for (name, claim) in &self.headers {
            let value = session.claims.get(claim).filter(|value| !value.is_empty());
            // A value that no header can carry is left out: the client's own was removed before.
            if let Some(value) = value.and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok()) {
                name.ask(head, value);
            }
        }
        let token = session.token.as_deref().filter(|_| self.forwards_token);
        if let Some(value) = token.and_then(|token| HeaderValue::try_from(format!("Bearer {token}")).ok()) {
            let _ = head.insert_header("Authorization", value);
        }
        self.guard.allow();
        Flow::Next
    }

    /// Asks the provider whether a token is still good. While it does not say, it is, for a while.
    async fn check<'a>(
        &'a self,
        mut session: Session,
        exchange: &'a mut Exchange,
        head: &'a mut RequestHeader,
    ) -> Flow<'a> {
        match self.party.check(&session, &self.outside).await {
            Ok(()) => {
                session.checked = now();
                match &self.store {
                    Some(store) => match store.update(&self.party.seal, &session).await {
                        Ok(false) => return self.log_in(exchange, head, "session_over"),
                        Ok(true) => {}
                        Err(fault) => return Flow::Reply(self.store_down(&fault)),
                    },
                    None => {
                        let attributes = self.attributes(exchange, &session);
                        let cookies = session.cookies(&head.headers, &self.party.seal, &attributes);
                        exchange.cookies.extend(cookies.unwrap_or_default());
                    }
                }
                self.pass(&session, exchange, head)
            }
            Err(Fault::Refused(_)) => self.renew(session, exchange, head, "revoked").await,
            Err(fault) if !session.bears_silence(now(), &self.lifetimes) => {
                log::warn!(error = fault.text(); "OAuth: a session cannot be checked");
                Flow::Reply(self.guard.fail("provider_down", unavailable()))
            }
            Err(fault) => {
                log::warn!(error = fault.text(); "OAuth: a session goes on unchecked");
                self.pass(&session, exchange, head)
            }
        }
    }

    /// Brings a new access token, or sends the user to the provider.
    async fn renew<'a>(
        &'a self,
        session: Session,
        exchange: &'a mut Exchange,
        head: &'a mut RequestHeader,
        why: &'static str,
    ) -> Flow<'a> {
        let Some(token) = session.refresh_token(&head.headers, &self.party.seal) else {
            return self.log_in(exchange, head, why);
        };
        let renewed = match &self.store {
            Some(store) => self.party.renew_stored(store, &session, &self.wants, &self.outside).await,
            None => self.party.renew(&session, &token, &self.wants, &self.outside).await,
        };
        match renewed {
            Ok(renewed) if self.store.is_some() => self.pass(&renewed.0, exchange, head),
            Ok(renewed) => {
                let (session, refresh) = &*renewed;
                let cookies = self.cookies(session, refresh.as_deref(), exchange, &head.headers, &self.cookie_path);
                let Some(cookies) = cookies else { return self.log_in(exchange, head, "session_too_large") };
                exchange.cookies.extend(cookies);
                self.pass(session, exchange, head)
            }
            Err(Fault::Refused(error)) => {
                log::debug!(error = error.as_str(); "OAuth: no new token for a session");
                self.log_in(exchange, head, why)
            }
            Err(fault @ Fault::Store(_)) => Flow::Reply(self.store_down(&fault)),
            Err(fault) => {
                log::warn!(error = fault.text(); "OAuth: a token cannot be refreshed");
                Flow::Reply(self.guard.fail("provider_down", unavailable()))
            }
        }
    }

    /// Both cookies of a session; `None` when they would be too large.
    pub(super) fn cookies(
        &self,
        session: &Session,
        refresh: Option<&str>,
        exchange: &Exchange,
        request: &HeaderMap,
        path: &str,
    ) -> Option<Vec<HeaderValue>> {
        let attributes = Attributes { path, ..self.attributes(exchange, session) };
        let mut cookies = session.cookies(request, &self.party.seal, &attributes).ok()?;
        cookies.extend(session.refresh_cookies(refresh, request, &self.party.seal, &attributes).ok()?);
        Some(cookies)
    }

    pub(super) fn attributes(&self, exchange: &Exchange, session: &Session) -> Attributes<'_> {
        let lasts = (session.born + self.lifetimes.session.as_secs()).saturating_sub(now());
        Attributes { path: &self.cookie_path, secure: self.secure(exchange), max_age_secs: lasts }
    }

    /// Whether the site is one of TLS, as far as can be seen, or as the operator says.
    pub(super) fn secure(&self, exchange: &Exchange) -> bool {
        exchange.scheme == "https" || self.redirect_url.starts_with("https:")
    }

    /// Sends a browser to the provider, and tells a program that it has no session.
    fn log_in<'a>(&'a self, exchange: &'a mut Exchange, head: &'a mut RequestHeader, why: &'static str) -> Flow<'a> {
        if !opens_page(head) {
            return Flow::Reply(self.guard.deny(why, unauthorized()));
        }
        match self.party.provider.known() {
            Some(endpoints) => Flow::Reply(self.redirect(&endpoints, exchange, head, why)),
            None => Flow::Wait(Box::pin(async move {
                let started = Instant::now();
                let endpoints = self.party.provider.endpoints().await;
                self.guard.called(started);
                match endpoints {
                    Ok(endpoints) => Flow::Reply(self.redirect(&endpoints, exchange, head, why)),
                    Err(_) => Flow::Reply(self.guard.fail("provider_down", unavailable())),
                }
            })),
        }
    }

    fn redirect(&self, endpoints: &Endpoints, exchange: &Exchange, head: &RequestHeader, why: &'static str) -> Verdict {
        let wanted = || local(head.uri.path(), head.uri.query());
        let target = self.redirect_path.clone().or_else(wanted).unwrap_or_else(|| self.fallback.clone());
        let login = Login::begin(&self.tag, target, &self.cookie_path, now());
        let ask = Ask {
            client_id: &self.client_id,
            redirect_url: &self.redirect_url,
            scope: &self.scope,
            further: &self.further,
        };
        let url = with_parameters(&endpoints.auth, &login.parameters(&ask));
        let cookie = login.cookie(&self.party.seal, &self.login_attributes(exchange, &self.callbacks[0]));
        let reply = redirection(StatusCode::TEMPORARY_REDIRECT, &url).header(header::SET_COOKIE, cookie);
        self.guard.answer(why, reply)
    }

    pub(super) fn login_attributes<'a>(&self, exchange: &Exchange, path: &'a str) -> Attributes<'a> {
        Attributes { path, secure: self.secure(exchange), max_age_secs: 0 }
    }
}

/// Whether a request is for this path, however it is spelled.
fn is_path(head: &RequestHeader, path: &str) -> bool {
    let raw = head.uri.path();
    let plain = || !raw.contains('%') && !raw.contains("//");
    raw == path || !plain() && gate::path(raw).is_ok_and(|read| read.forms().any(|form| form == path))
}

/// Whether somebody looks at a page who can be sent elsewhere to log in. What a script of a page fetches, what asks for
/// data only, and what has a body cannot.
fn opens_page(head: &RequestHeader) -> bool {
    let text =
        |name: &str| head.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).to_lowercase());
    let accept = text("accept").unwrap_or_default();
    let data = accept.contains("json") || accept.contains("text/event-stream");
    matches!(head.method, Method::GET | Method::HEAD)
        && !head.headers.contains_key("x-requested-with")
        && !head.headers.contains_key(header::UPGRADE)
        && text("sec-fetch-mode").is_none_or(|mode| mode == "navigate")
        && (!data || accept.contains("html"))
}

/// 401 with a challenge that tells a program what it lacks (RFC 9110 §15.5.2 asks for one).
fn unauthorized() -> Reply {
    const CHALLENGE: HeaderValue = HeaderValue::from_static("Cookie cookie-name=\"goma_access_token\"");
    Reply::plain(StatusCode::UNAUTHORIZED).header(header::WWW_AUTHENTICATE, CHALLENGE)
}

/// 405 on a path that the gateway answers itself.
pub(super) fn wrong_method(allow: &'static str) -> Reply {
    Reply::plain(StatusCode::METHOD_NOT_ALLOWED).header(header::ALLOW, HeaderValue::from_static(allow))
}

/// A text that is not negotiated, as in Goma.
pub(super) fn text(status: StatusCode, text: &'static str) -> Reply {
    no_store(Reply::exact(status, "text/plain; charset=utf-8", text))
}

/// A redirect with the body of Go's library; nobody may keep it, and the next site does not learn the address of this one,
/// which may hold a code.
pub(super) fn redirection(status: StatusCode, url: &str) -> Reply {
    let phrase = status.canonical_reason().unwrap_or_default();
    let shown = url
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
        .replace('\'', "&#39;");
    let body = format!("<a href=\"{shown}\">{phrase}</a>.\n\n");
    let reply = no_store(Reply::exact(status, "text/html; charset=utf-8", body));
    let reply = reply.header(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    match HeaderValue::try_from(url) {
        Ok(url) => reply.header(header::LOCATION, url),
        Err(_) => Reply::plain(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn no_store(reply: Reply) -> Reply {
    reply.header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))
}
