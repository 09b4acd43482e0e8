//! The provider's keys: fetched when first needed, kept for an hour, fetched again for a key that is not among them.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use tokio::sync::Mutex;

use super::provider::{ANSWER, Down, LONGEST};
use crate::outbound::{Answer, Client};

/// How long keys are taken for fresh.
const FRESH: Duration = Duration::from_secs(3600);
/// Pause between two fetches, whatever tokens come in.
const PAUSE: Duration = Duration::from_secs(5);

/// The keys of one provider.
pub struct Keys {
    http: Client,
    kept: RwLock<Option<Kept>>,
    /// Address and time of the last attempt; held while fetching, so that one fetches for all.
    tried: Mutex<Option<(String, Instant)>>,
}

#[derive(Clone)]
struct Kept {
    url: String,
    keys: Arc<Vec<Jwk>>,
    at: Instant,
}

impl Keys {
    /// No keys yet.
    pub fn new(http: Client) -> Keys {
        Keys { http, kept: RwLock::new(None), tried: Mutex::new(None) }
    }

    /// Keys of this address that may have signed with this id. Empty when there are none.
    ///
    /// # Errors
    /// When no keys can be had at all.
    pub async fn find(&self, url: &str, id: Option<&str>) -> Result<Vec<Jwk>, Down> {
        if let Some(kept) = self.kept(url).filter(|kept| kept.at.elapsed() < FRESH) {
            let found = matching(&kept.keys, id);
            if !found.is_empty() {
                return Ok(found);
            }
        }
        let fetched = self.fetch(url).await;
        match (self.kept(url), fetched) {
            (Some(kept), _) => Ok(matching(&kept.keys, id)),
            (None, Err(down)) => Err(down),
            (None, Ok(())) => Err(Down("keys: fetched a moment ago, without success".to_owned())),
        }
    }

    fn kept(&self, url: &str) -> Option<Kept> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().filter(|kept| kept.url == url).cloned()
    }

    async fn fetch(&self, url: &str) -> Result<(), Down> {
        let mut tried = self.tried.lock().await;
        if tried.as_ref().is_some_and(|(of, at)| of == url && at.elapsed() < PAUSE) {
            return Ok(());
        }
        *tried = Some((url.to_owned(), Instant::now()));
        let request = self.http.http().get(url).timeout(ANSWER);
        let answer = self.http.call(request, LONGEST).await.and_then(Answer::ok);
        let answer = answer.map_err(|error| Down(format!("keys: {error}")))?;
        let keys = read(&answer.body).ok_or_else(|| Down("keys: the answer is no set of keys".to_owned()))?;
        let kept = Kept { url: url.to_owned(), keys: Arc::new(keys), at: Instant::now() };
        *self.kept.write().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        Ok(())
    }
}

/// The keys of a set that can be used; unknown kinds among them are left out (RFC 7517 §5).
fn read(body: &[u8]) -> Option<Vec<Jwk>> {
    if let Ok(set) = serde_json::from_slice::<JwkSet>(body) {
        return Some(set.keys.into_iter().filter(signs).collect());
    }
    let set: serde_json::Value = serde_json::from_slice(body).ok()?;
    let keys = set["keys"].as_array()?.iter().filter_map(|key| serde_json::from_value(key.clone()).ok());
    Some(keys.filter(signs).collect())
}

fn signs(key: &Jwk) -> bool {
    !matches!(key.common.public_key_use, Some(PublicKeyUse::Encryption))
}

/// With an id the keys of that id; without one any may be meant.
fn matching(keys: &[Jwk], id: Option<&str>) -> Vec<Jwk> {
    let named = |key: &&Jwk| id.is_none() || key.common.key_id.as_deref() == id;
    keys.iter().filter(named).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_not_understood_do_not_spoil_the_set() {
        let rsa = r#"{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB"}"#;
        let encrypts = r#"{"kty":"RSA","kid":"b","use":"enc","n":"AQAB","e":"AQAB"}"#;
        let strange = r#"{"kty":"XYZ","kid":"c"}"#;
        let set = format!(r#"{{"keys":[{rsa},{encrypts},{strange}]}}"#);
        let keys = read(set.as_bytes()).expect("a set");
        assert_eq!(matching(&keys, Some("a")).len(), 1);
        assert_eq!((matching(&keys, Some("b")).len(), matching(&keys, None).len()), (0, 1));
        assert!(read(b"<html>").is_none() && read(b"{}").is_none());
    }
}
