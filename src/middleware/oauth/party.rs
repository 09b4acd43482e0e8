//! The relying party: one client at one provider, shared by all routes with the same settings and kept across reloads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use prometheus::Histogram;
use serde_json::Value;
use tokio::runtime::Handle;

use super::claims::{Claims, claim, subject, wanted};
use super::flights::{Flights, Keep};
use super::id_token::{self, Expected};
use super::keys::Keys;
use super::login::Login;
use super::memory::Memory;
use super::provider::{Down, Endpoints, Provider};
use super::seal::{Seal, digest};
use super::session::{Session, State};
use super::tokens::{At, Fault, Grant, Tokens};
use crate::middleware::jwt::KeySets;
use crate::outbound::Client;

/// One client at one provider.
pub struct Party {
    /// Seals its cookies.
    pub seal: Seal,
    /// Where the provider is.
    pub provider: Arc<Provider>,
    /// Answers of logins that were used.
    pub spent: Memory,
    /// Sessions that were logged out.
    pub ended: Memory,
    facts: Facts,
    pub(super) tokens: Tokens,
    keys: Keys,
    pub(super) renewals: Flights<Renewal>,
    checks: Flights<Check>,
}

/// What makes two parties the same.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `clientId`.
    pub client_id: String,
    /// `clientSecret`.
    pub secret: String,
    /// `redirectUrl`.
    pub redirect_url: String,
    /// Whether `openid` is among the scopes: there will be ID tokens.
    pub openid: bool,
    /// Whether access tokens are JWTs that keys of the settings verify (`endpoint.jwksUrl`).
    pub verifies_access: bool,
    /// What the settings say of the endpoints, as text.
    pub endpoints: String,
    /// What tells the provider apart from others; sessions last when other settings change.
    pub home: String,
}

/// What a party calls with.
pub struct Calls<'a> {
    /// The client.
    pub http: &'a Client,
    /// Key sets by address.
    pub sets: &'a KeySets,
    /// Where background work runs.
    pub handle: Option<&'a Handle>,
}

/// What a middleware wants to know of a session.
#[derive(Clone, Debug, Default)]
pub struct Wants {
    /// Claims for the backend.
    pub claims: Vec<String>,
    /// The access token itself.
    pub token: bool,
    /// The ID token, for logging out.
    pub id_token: bool,
}

impl Wants {
    /// The same, and what the session knows that comes before: definitions that share a client and cookies but not their
    /// wishes would send users to log in by turns.
    pub fn beside(&self, earlier: Option<&Session>) -> Wants {
        let mut wants = self.clone();
        if let Some(earlier) = earlier {
            let new = earlier.claims.keys().filter(|name| !self.claims.contains(name));
            wants.claims.extend(new.cloned());
            wants.token |= earlier.token.is_some();
            wants.id_token |= earlier.id_token.is_some();
        }
        wants
    }
}

/// A session with its refresh token.
pub type Tokened = (Session, Option<String>);

type Renewal = Result<Arc<Tokened>, Fault>;
type Check = Result<(), Fault>;

/// All parties in use, by what makes them the same.
#[derive(Default)]
pub struct Parties(Mutex<HashMap<[u8; 32], Weak<Party>>>);

/// Logins and sessions that one party remembers to refuse.
const REMEMBERED: usize = 100_000;
/// Calls of one party at once.
const CALLS: usize = 10_000;

impl Parties {
    /// The party with these facts; a new one calls the provider that is made for it.
    pub fn party(&self, facts: Facts, calls: &Calls<'_>, provider: impl FnOnce() -> Arc<Provider>) -> Arc<Party> {
        let key = facts.key();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(party) = known.get(&key).and_then(Weak::upgrade) {
            return party;
        }
        known.retain(|_, party| party.strong_count() > 0);
        let party = Arc::new(Party::new(facts, calls, provider()));
        known.insert(key, Arc::downgrade(&party));
        party
    }
}

impl Facts {
    fn key(&self) -> [u8; 32] {
        let Facts { client_id, secret, redirect_url, openid, verifies_access, endpoints, home: _ } = self;
        let word = |on: bool| if on { "1" } else { "0" };
        digest(&[client_id, secret, redirect_url, word(*openid), word(*verifies_access), endpoints])
    }
}

impl Party {
    fn new(facts: Facts, calls: &Calls<'_>, provider: Arc<Provider>) -> Party {
        Party {
            seal: Seal::new(&facts.secret, &[&facts.client_id, &facts.home]),
            provider,
            spent: Memory::new(REMEMBERED),
            ended: Memory::new(REMEMBERED),
            tokens: Tokens::new(calls.http.clone(), &facts.client_id, &facts.secret),
            keys: Keys::new(calls.sets.clone(), calls.handle.cloned()),
            facts,
            renewals: Flights::new(CALLS),
            checks: Flights::new(CALLS),
        }
    }

    /// Redeems the code of a login and finds out who has logged in.
    ///
    /// # Errors
    /// When the provider does not say so beyond doubt.
    pub async fn login(&self, login: &Login, code: &str, wants: &Wants) -> Result<Tokened, Fault> {
        let endpoints = self.provider.endpoints().await?;
        let redirect = &self.facts.redirect_url;
        let grant = self.tokens.redeem(&endpoints.token_at(), code, &login.verifier, redirect).await?;
        let nonce = self.facts.openid.then_some(&*login.nonce);
        let now = now();
        let found = self.identify(&endpoints, &grant, nonce, wants, now).await?;
        let mut session = Session { opaque: found.opaque && endpoints.can_ask(), ..Session::begin(now) };
        session.subject = subject(&found.claims);
        session.expires = grant.ends(now).or(found.ends);
        session.claims = wanted(&found.claims, &wants.claims);
        Ok(settle(session, grant, wants))
    }

    /// Who the tokens are about, as far as anything can be known. The ID token has the last word.
    async fn identify(
        &self,
        endpoints: &Endpoints,
        grant: &Grant,
        nonce: Option<&str>,
        wants: &Wants,
        now: u64,
    ) -> Result<Found, Fault> {
        let verified = self.access_claims(endpoints, grant, now).await?;
        let identity = self.identity(endpoints, grant, nonce, now).await?;
        let opaque = verified.is_none();
        let mut claims: Claims = verified.into_iter().flatten().collect();
        let lacks = |name: &String| claim(&claims, name).or_else(|| claim(identity.as_ref()?, name)).is_none();
        let asked = match opaque || wants.claims.iter().any(lacks) {
            true => self.ask(endpoints, &grant.access).await?,
            false => None,
        };
        if opaque && self.facts.verifies_access && identity.is_none() && asked.is_none() {
            return Err(Fault::Refused("nothing verifies the access token".to_owned()));
        }
        let other =
            |asked: &Claims, identity: &Claims| asked.get("sub").is_some_and(|sub| Some(sub) != identity.get("sub"));
        if asked.as_ref().zip(identity.as_ref()).is_some_and(|(asked, identity)| other(asked, identity)) {
            return Err(Fault::Refused("user info: is about another user".to_owned()));
        }
        let introspected = asked.as_ref().filter(|asked| asked.contains_key("active"));
        let ends = introspected.and_then(|asked| id_token::seconds(asked.get("exp")?));
        claims.extend(asked.into_iter().chain(identity).flatten());
        Ok(Found { claims, opaque, ends })
    }

    /// The claims of an access token that the keys of the settings verify; `None` for one that no keys are for.
    pub(super) async fn access_claims(
        &self,
        endpoints: &Endpoints,
        grant: &Grant,
        now: u64,
    ) -> Result<Option<Claims>, Fault> {
        if !self.facts.verifies_access || !id_token::is_jwt(&grant.access) {
            return Ok(None);
        }
        let claims = self.signed(endpoints, &grant.access).await?;
        let in_time = id_token::in_time(&claims, now);
        in_time.map_err(|why| Fault::Refused(format!("access token: {why}")))?;
        Ok(claims.as_object().cloned())
    }

    /// The claims of the ID token; `None` when there is none and none was to be expected.
    pub(super) async fn identity(
        &self,
        endpoints: &Endpoints,
        grant: &Grant,
        nonce: Option<&str>,
        now: u64,
    ) -> Result<Option<Claims>, Fault> {
        let refused = |why: &str| Fault::Refused(format!("ID token: {why}"));
        let token = match &grant.id_token {
            _ if !self.facts.openid => return Ok(None),
            Some(token) => token,
            None if endpoints.issuer.is_some() && nonce.is_some() => return Err(refused("is missing")),
            None => return Ok(None),
        };
        // Without keys the connection says who made it (OpenID Connect Core §3.1.3.7, item 6).
        let claims = match &endpoints.jwks {
            Some(_) => self.signed(endpoints, token).await?,
            None => id_token::unsigned(token).ok_or_else(|| refused("is no JWT"))?,
        };
        let (issuer, client_id) = (endpoints.issuer.as_deref(), &*self.facts.client_id);
        id_token::check(&claims, &Expected { issuer, client_id, nonce, now }).map_err(refused)?;
        Ok(claims.as_object().cloned())
    }

    async fn signed(&self, endpoints: &Endpoints, token: &str) -> Result<Value, Fault> {
        match &endpoints.jwks {
            Some(url) => self.keys.claims(url, token).await,
            None => Err(Fault::Refused("there are no keys to verify a token with".to_owned())),
        }
    }

    /// Asks the provider about an access token; `None` when there is nobody to ask.
    async fn ask(&self, endpoints: &Endpoints, token: &str) -> Result<Option<Claims>, Fault> {
        if let Some(url) = &endpoints.introspection {
            let at = At { url, credentials_in_body: endpoints.credentials_in_body };
            return self.tokens.introspect(&at, token).await.map(Some);
        }
        match &endpoints.user_info {
            Some(url) => self.tokens.user_info(url, token).await.map(Some),
            None => Ok(None),
        }
    }

    /// Asks whether the access token of a session is still good; once for all its requests.
    ///
    /// # Errors
    /// When it is not, or the provider does not say.
    pub async fn check(self: &Arc<Party>, session: &Session, outside: &Histogram) -> Result<(), Fault> {
        let Some(token) = session.token.clone() else { return Ok(()) };
        let (party, outside) = (self.clone(), outside.clone());
        let call = async move {
            let started = Instant::now();
            let endpoints = party.provider.endpoints().await?;
            let result = party.ask(&endpoints, &token).await.map(drop);
            outside.observe(started.elapsed().as_secs_f64());
            result
        };
        let broke = || Err(Fault::Broken("the check broke off".to_owned()));
        self.checks.join(&format!("{}/{}", session.id, session.checked), call).await.unwrap_or_else(broke)
    }

    /// Gives the tokens of a session back to the provider, if that takes them.
    pub async fn give_back(&self, session: &Session, refresh: Option<String>) {
        let Ok(endpoints) = self.provider.endpoints().await else { return };
        let (Some(url), Some(token)) = (&endpoints.revocation, refresh.or_else(|| session.token.clone())) else {
            return;
        };
        let at = At { url, credentials_in_body: endpoints.credentials_in_body };
        if let Err(fault) = self.tokens.revoke(&at, &token).await {
            log::warn!(error = fault.text(); "OAuth: tokens of a session that was logged out are not revoked");
        }
    }

    /// Whether a session is good for a middleware, has to be looked after, or is over.
    pub fn state(&self, session: &Session, wants: &Wants, lifetimes: &super::session::Lifetimes) -> State {
        let now = now();
        let known = wants.claims.iter().all(|name| session.claims.contains_key(name));
        let whole = known && (session.token.is_some() || !wants.token);
        if !whole || self.ended.has(&session.id, now) {
            return State::Over;
        }
        session.state(now, lifetimes)
    }
}

/// What is known of a user.
struct Found {
    claims: Claims,
    /// Whether nothing but asking again tells if the access token is still good.
    opaque: bool,
    /// When it ends, as introspection says.
    ends: Option<u64>,
}

impl Endpoints {
    pub(super) fn token_at(&self) -> At<'_> {
        At { url: &self.token, credentials_in_body: self.credentials_in_body }
    }

    /// Whether there is somebody to ask about an access token.
    pub(super) fn can_ask(&self) -> bool {
        self.introspection.is_some() || self.user_info.is_some()
    }
}

impl Grant {
    /// When the access token ends, as the provider says or the token itself.
    pub(super) fn ends(&self, now: u64) -> Option<u64> {
        let said = self.expires_in_secs.map(|seconds| now.saturating_add(seconds));
        said.or_else(|| id_token::seconds(&id_token::unsigned(&self.access)?["exp"]))
    }
}

/// Puts the tokens of a grant into a session, as far as they will be needed.
pub(super) fn settle(mut session: Session, grant: Grant, wants: &Wants) -> Tokened {
    session.renewable = grant.refresh.is_some();
    session.token = (wants.token || session.opaque).then_some(grant.access);
    if wants.id_token {
        session.id_token = grant.id_token.or(session.id_token);
    }
    (session, grant.refresh)
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl From<Down> for Fault {
    fn from(Down(why): Down) -> Fault {
        Fault::Down(why)
    }
}

impl Fault {
    /// What is to be told in the log.
    pub fn text(&self) -> &str {
        let (Fault::Down(text) | Fault::Broken(text) | Fault::Refused(text) | Fault::Store(text)) = self;
        text
    }
}

/// Requests that were sent with the old cookies come in for about as long.
const LATE: Duration = Duration::from_secs(60);
/// A provider that does not answer is not asked by every request.
const PAUSE: Duration = Duration::from_secs(5);

impl<T> Keep for Result<T, Fault> {
    fn keep(&self) -> Duration {
        match self {
            Ok(_) | Err(Fault::Refused(_)) => LATE,
            Err(_) => PAUSE,
        }
    }
}
