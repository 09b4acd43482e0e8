//! Lets requests with a valid JSON Web Token pass, and tells the backend what the token says.
//!
//! Keys: a secret, a public key, or a set of keys by file or URL. A key decides which algorithms it serves, whatever a token
//! says; `none` is none of them. Spec middlewares §5.7 with the corrections of its §10; challenges by RFC 6750 §3.
//!
//! ```yaml
//! - name: tokens
//!   type: jwt
//!   rule:
//!     jwksUrl: https://id.example.com/.well-known/jwks.json
//!     issuer: https://id.example.com/
//!     forwardHeaders: { X-User-ID: sub }
//! ```

pub mod claim;
pub mod claims;
pub mod expression;
pub mod jwks;
pub mod keys;
mod remote;
pub mod seen;
mod settings;
mod store;
#[cfg(test)]
mod tests;
pub mod token;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora_http::RequestHeader;

pub use remote::{KeySets, Remote};
pub use settings::Jwt;
pub use store::Keys;

use super::auth::{Guard, unavailable};
use super::spelled::Spelled;
use super::{Flow, Middleware, Verdict};
use crate::exchange::Exchange;
use crate::reply::Reply;
use claim::Claim;
use claims::ClaimPath;
use keys::Algorithms;
use seen::Seen;
use store::Local;
use token::{Demands, Fault, Token};

/// The step of one definition on one route.
struct Step {
    guard: Guard,
    keys: Source,
    /// Algorithms that the operator allows; a key may serve fewer.
    algorithms: Algorithms,
    demands: Demands,
    forward: Vec<(Spelled, ClaimPath)>,
    identity: Vec<HeaderName>,
    keep_authorization: bool,
    /// Headers of good tokens.
    seen: Seen,
}

enum Source {
    Local(Arc<Local>),
    Remote(Arc<Remote>),
}

/// Why a request does not pass.
enum Stop {
    NoCredentials,
    NoBearer,
    Fault(Fault),
    /// No key has been had yet.
    NoKeys,
}

impl Middleware for Step {
    fn request<'a>(&'a self, exchange: &'a mut Exchange, head: &'a mut RequestHeader) -> Flow<'a> {
        if !self.guard.takes(exchange) {
            return Flow::Next;
        }
        match (self.examine(head), &self.keys) {
            (Err(Stop::NoKeys | Stop::Fault(Fault::UnknownKey)), Source::Remote(remote)) => {
                Flow::Wait(Box::pin(self.ask(remote, exchange, head)))
            }
            (examined, _) => self.decide(examined, exchange, head),
        }
    }

    fn identity(&self) -> &[HeaderName] {
        &self.identity
    }
}

impl Step {
    /// The claims of the request's token, if its signature is good; nothing in them is looked at before.
    fn examine(&self, head: &RequestHeader) -> Result<String, Stop> {
        let token = Token::read_seen(bearer(head)?, &self.seen).map_err(Stop::Fault)?;
        if !self.algorithms.has(token.header.algorithm) {
            return Err(Stop::Fault(Fault::WrongAlgorithm));
        }
        match &self.keys {
            Source::Local(local) => local.keys().verify(&token),
            Source::Remote(_) if token.header.key_id.is_none() => Err(Fault::NoKeyId),
            Source::Remote(remote) => match remote.keys().as_deref() {
                Some(keys) if !keys.is_empty() => keys.verify(&token),
                _ => return Err(Stop::NoKeys),
            },
        }
        .map_err(Stop::Fault)?;
        token.remember(&self.seen);
        token.claims_text().map_err(Stop::Fault)
    }

    /// Looks again when the keys were fetched again.
    async fn ask<'a>(
        &'a self,
        remote: &'a Arc<Remote>,
        exchange: &'a mut Exchange,
        head: &'a mut RequestHeader,
    ) -> Flow<'a> {
        let since = Instant::now();
        if remote.refresh().await {
            self.guard.called(since);
        }
        self.decide(self.examine(head), exchange, head)
    }

    fn decide<'a>(
        &'a self,
        examined: Result<String, Stop>,
        exchange: &mut Exchange,
        head: &mut RequestHeader,
    ) -> Flow<'a> {
        match examined.and_then(|claims| self.check(&claims, head).map_err(Stop::Fault).map(|()| claims)) {
            Ok(claims) => {
                self.guard.allow();
                exchange.claims = Some(claims);
                Flow::Next
            }
            Err(stop) => Flow::Reply(self.refuse(&stop)),
        }
    }

    /// Holds the claims against the demands, and tells the backend if they meet them.
    fn check(&self, claims: &str, head: &mut RequestHeader) -> Result<(), Fault> {
        let claims = claim::read(claims).ok_or(Fault::Malformed)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.demands.check(&claims, now.as_secs_f64())?;
        self.tell(&claims, head);
        Ok(())
    }

    /// Tells the backend. What the client itself sent under these names has been removed before.
    fn tell(&self, claims: &Claim<'_>, head: &mut RequestHeader) {
        if !self.keep_authorization {
            head.remove_header(&header::AUTHORIZATION);
        }
        for (name, path) in &self.forward {
            let value = path.find(claims).and_then(claims::forwarded).map(|text| match text {
                Cow::Borrowed(text) => HeaderValue::from_str(text),
                Cow::Owned(text) => HeaderValue::try_from(text),
            });
            // A claim with control characters is none that a header can hold.
            if let Some(Ok(value)) = value {
                name.ask(head, value);
            }
        }
    }

    fn refuse(&self, stop: &Stop) -> Verdict {
        match stop {
            Stop::NoCredentials => {
                let reply = Reply::plain(StatusCode::UNAUTHORIZED);
                self.guard.deny("no_credentials", reply.header(header::WWW_AUTHENTICATE, CHALLENGE))
            }
            Stop::NoBearer => {
                let reply = Reply::message(StatusCode::UNAUTHORIZED, "Missing Bearer prefix");
                self.guard.deny("malformed", reply.header(header::WWW_AUTHENTICATE, CHALLENGE))
            }
            Stop::Fault(fault) => {
                let reply = Reply::message(StatusCode::UNAUTHORIZED, "Unauthorized");
                self.guard.deny(fault.word(), reply.header(header::WWW_AUTHENTICATE, invalid(*fault)))
            }
            Stop::NoKeys => self.guard.fail("keys_unavailable", unavailable()),
        }
    }
}

/// What follows `Bearer` in the one `Authorization` header. The scheme counts in any case (RFC 9110 §11.1), but only before
/// something that looks like a token: Goma's message for `bearer x` stays what it is.
fn bearer(head: &RequestHeader) -> Result<&str, Stop> {
    let mut lines = head.headers.get_all(header::AUTHORIZATION).iter();
    let line = lines.next().ok_or(Stop::NoCredentials)?;
    if lines.next().is_some() {
        return Err(Stop::Fault(Fault::Malformed));
    }
    let (scheme, rest) = line.to_str().ok().and_then(|line| line.split_once(' ')).ok_or(Stop::NoBearer)?;
    let token = rest.trim_matches(' ');
    let spelled = scheme == "Bearer" || scheme.eq_ignore_ascii_case("bearer") && Token::looks_like(token);
    if spelled { Ok(token) } else { Err(Stop::NoBearer) }
}

/// The challenge where no token was sent: without error attributes, as RFC 6750 §3.1 asks.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"Restricted\"");

/// The challenge for a token that will not do. It says no more than a client can act on.
fn invalid(fault: Fault) -> HeaderValue {
    HeaderValue::from_static(match fault {
        Fault::Expired => {
            "Bearer realm=\"Restricted\", error=\"invalid_token\", error_description=\"The token has expired\""
        }
        Fault::NotYetValid => {
            "Bearer realm=\"Restricted\", error=\"invalid_token\", error_description=\"The token is not valid yet\""
        }
        _ => "Bearer realm=\"Restricted\", error=\"invalid_token\"",
    })
}
