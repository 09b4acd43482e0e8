//! New tokens for old sessions: a refresh token is redeemed once, whatever number of requests, tabs and instances need it.
//!
//! Many providers take a refresh token only once and end the whole session when it comes a second time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::Histogram;
use serde_json::Value;

use super::claims::{Claims, claim};
use super::party::{Party, Tokened, Wants, now, settle};
use super::session::Session;
use super::store::{Store, Ticket};
use super::tokens::Fault;

impl Party {
    /// Redeems the refresh token of a session; once for all its requests.
    ///
    /// # Errors
    /// When the provider gives no new tokens.
    pub async fn renew(
        self: &Arc<Party>,
        session: &Session,
        token: &str,
        wants: &Wants,
        outside: &Histogram,
    ) -> Result<Arc<Tokened>, Fault> {
        let mut current = Arc::new((session.clone(), Some(token.to_owned())));
        // What was renewed for an earlier request may have ended meanwhile.
        for _ in 0..3 {
            let (old, Some(token)) = (&current.0, &current.1) else { break };
            let key = format!("{}/{}", old.id, old.expires.unwrap_or_default());
            let (party, old, token, wants) = (self.clone(), old.clone(), token.clone(), wants.clone());
            let outside = outside.clone();
            let call = async move {
                let started = Instant::now();
                let result = party.redeem(old, &token, &wants).await;
                outside.observe(started.elapsed().as_secs_f64());
                result.map(Arc::new)
            };
            let broke = || Err(Fault::Broken("the refresh broke off".to_owned()));
            current = self.renewals.join(&key, call).await.unwrap_or_else(broke)?;
            if current.0.expires.is_none_or(|end| end > now()) {
                return Ok(current);
            }
        }
        Err(Fault::Refused("the refreshed token has ended already".to_owned()))
    }

    /// The same for sessions in Redis: once for all requests of all instances.
    ///
    /// # Errors
    /// When the provider gives no new tokens, or Redis does not answer.
    pub async fn renew_stored(
        self: &Arc<Party>,
        store: &Store,
        session: &Session,
        wants: &Wants,
        outside: &Histogram,
    ) -> Result<Arc<Tokened>, Fault> {
        let (party, store, old, wants, outside) =
            (self.clone(), store.clone(), session.clone(), wants.clone(), outside.clone());
        let key = format!("{}/{}", old.id, old.expires.unwrap_or_default());
        let call = async move { party.renew_in_turn(&store, &old, &wants, &outside).await.map(Arc::new) };
        let broke = || Err(Fault::Broken("the refresh broke off".to_owned()));
        self.renewals.join(&key, call).await.unwrap_or_else(broke)
    }

    /// Refreshes a session when it is this instance's turn, or waits until another one has done it.
    async fn renew_in_turn(
        &self,
        store: &Store,
        old: &Session,
        wants: &Wants,
        outside: &Histogram,
    ) -> Result<Tokened, Fault> {
        let ended = || Fault::Refused("the session has ended".to_owned());
        let started = Instant::now();
        while started.elapsed() < TURNS {
            let turn = store.turn(&self.seal, old).await?;
            let current = store.load(&self.seal, &Ticket::for_session(old)).await;
            let done = match (current, &turn) {
                (Ok(None), _) => Some(Err(ended())),
                (Ok(Some(new)), _) if new.expires != old.expires => {
                    let refresh = new.refresh.clone();
                    Some(Ok((new, refresh)))
                }
                (Ok(Some(current)), Some(_)) => Some(self.renew_here(store, current, wants, outside).await),
                (Ok(Some(_)), None) => None,
                (Err(fault), _) => Some(Err(fault)),
            };
            if let Some(turn) = &turn {
                store.give_back(turn).await;
            }
            match done {
                Some(done) => return done,
                None => tokio::time::sleep(TURN_PAUSE).await,
            }
        }
        Err(Fault::Down("another instance takes too long to refresh a session".to_owned()))
    }

    async fn renew_here(
        &self,
        store: &Store,
        current: Session,
        wants: &Wants,
        outside: &Histogram,
    ) -> Result<Tokened, Fault> {
        let token = current.refresh.clone().ok_or_else(|| Fault::Refused("there is no refresh token".to_owned()))?;
        let started = Instant::now();
        let redeemed = self.redeem(current, &token, wants).await;
        outside.observe(started.elapsed().as_secs_f64());
        let (mut session, refresh) = redeemed?;
        session.refresh.clone_from(&refresh);
        if store.update(&self.seal, &session).await? {
            return Ok((session, refresh));
        }
        // It was logged out meanwhile: nobody is to have the new tokens.
        self.give_back(&session, refresh).await;
        Err(Fault::Refused("the session has ended".to_owned()))
    }

    async fn redeem(&self, old: Session, token: &str, wants: &Wants) -> Result<Tokened, Fault> {
        let endpoints = self.provider.endpoints().await?;
        let mut grant = self.tokens.refresh(&endpoints.token_at(), token).await?;
        let now = now();
        let access = self.access_claims(&endpoints, &grant, now).await?;
        let identity = self.identity(&endpoints, &grant, None, now).await?;
        let mut session = Session { expires: grant.ends(now), checked: now, ..old };
        if let Some(identity) = &identity
            && identity.get("sub").and_then(Value::as_str) != Some(&session.subject)
        {
            return Err(Fault::Refused("ID token: is about another user".to_owned()));
        }
        session.opaque = access.is_none() && endpoints.can_ask();
        let fresh: Claims = access.into_iter().chain(identity).flatten().collect();
        for (name, value) in &mut session.claims {
            if let Some(text) = claim(&fresh, name) {
                *value = text;
            }
        }
        // RFC 6749 §6: without a new one the old one stays.
        grant.refresh.get_or_insert_with(|| token.to_owned());
        let wants = Wants { token: wants.token || session.token.is_some(), ..wants.clone() };
        Ok(settle(session, grant, &wants))
    }
}

/// How long to wait for another instance that refreshes a session, and between two looks.
const TURNS: Duration = Duration::from_secs(25);
const TURN_PAUSE: Duration = Duration::from_millis(50);
