//! The provider's keys, by way of the key sets that JWTs are verified with: fetched in the background, refreshed for a key id
//! that is not among them, kept while the provider is down.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::runtime::Handle;

use super::tokens::Fault;
use crate::middleware::jwt::token::{self, Token};
use crate::middleware::jwt::{KeySets, Remote};

/// The keys of one provider.
pub struct Keys {
    sets: KeySets,
    handle: Option<Handle>,
    /// The set in use, with its address.
    current: Mutex<Option<(String, Arc<Remote>)>>,
}

impl Keys {
    /// Keys out of these sets.
    pub fn new(sets: KeySets, handle: Option<Handle>) -> Keys {
        Keys { sets, handle, current: Mutex::new(None) }
    }

    /// The claims of a token that a key of this address has signed. Nothing is said about what they claim.
    ///
    /// # Errors
    /// When it is no such token, or the keys cannot be had.
    pub async fn claims(&self, url: &str, text: &str) -> Result<Value, Fault> {
        let refused = |fault: token::Fault| Fault::Refused(format!("a token is not the provider's: {}", fault.word()));
        let token = Token::read(text).map_err(refused)?;
        // With a shared secret anybody who knows it could sign.
        if token.header.algorithm.is_secret() {
            return Err(refused(token::Fault::WrongAlgorithm));
        }
        let remote = self.remote(url)?;
        let verify = || remote.keys().as_deref().map(|keys| keys.verify_id_token(&token));
        let mut verified = verify();
        let may_be_new = match verified {
            None | Some(Err(token::Fault::UnknownKey)) => true,
            // A new key in place of the only one shows in nothing else.
            Some(Err(token::Fault::BadSignature | token::Fault::NoKeyId)) => token.header.key_id.is_none(),
            Some(_) => false,
        };
        if may_be_new && remote.refresh().await {
            verified = verify();
        }
        verified.ok_or_else(|| Fault::Down("the keys of the provider cannot be had".to_owned()))?.map_err(refused)?;
        token.claims().map_err(refused)
    }

    fn remote(&self, url: &str) -> Result<Arc<Remote>, Fault> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, remote)) = current.as_ref().filter(|(known, _)| known == url) {
            return Ok(remote.clone());
        }
        let remote = self.sets.at(url, self.handle.as_ref());
        let remote = remote.map_err(|why| Fault::Broken(format!("the address of the keys {why}")))?;
        *current = Some((url.to_owned(), remote.clone()));
        Ok(remote)
    }
}
