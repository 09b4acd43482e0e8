//! Where keys come from: the configuration, a file that is read again when it changes, or a URL.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::runtime::Handle;

use super::jwks::KeySet;
use super::keys::{Algorithms, Key};
use super::token::{Fault, Token};

/// What a token may be verified with.
pub enum Keys {
    /// One key, whatever id the token names.
    One(Key),
    /// The keys of the id that the token names.
    Named(KeySet),
}

impl Keys {
    /// Verifies the signature of a token.
    ///
    /// # Errors
    /// The fault of the token.
    pub fn verify(&self, token: &Token<'_>) -> Result<(), Fault> {
        let set = match self {
            Keys::One(key) => return outcome(key.verify(token.header.algorithm, token.signed, &token.signature)),
            Keys::Named(set) => set,
        };
        let id = token.header.key_id.as_deref().ok_or(Fault::NoKeyId)?;
        let mut fault = Fault::UnknownKey;
        for key in set.of(id) {
            match outcome(key.verify(token.header.algorithm, token.signed, &token.signature)) {
                Err(Fault::WrongAlgorithm) if fault == Fault::BadSignature => {}
                Err(found) => fault = found,
                Ok(()) => return Ok(()),
            }
        }
        Err(fault)
    }

    /// The same for an ID token, which has to name its key only where there are several (OpenID Connect Core §10.1).
    ///
    /// # Errors
    /// The fault of the token.
    pub fn verify_id_token(&self, token: &Token<'_>) -> Result<(), Fault> {
        match self {
            Keys::Named(set) if token.header.key_id.is_none() => {
                let key = set.only(token.header.algorithm).ok_or(Fault::NoKeyId)?;
                outcome(key.verify(token.header.algorithm, token.signed, &token.signature))
            }
            _ => self.verify(token),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        matches!(self, Keys::Named(set) if set.is_empty())
    }

    /// What a single key may verify; for a set anything, since it changes.
    pub fn algorithms(&self) -> Algorithms {
        match self {
            Keys::One(key) => key.algorithms(),
            Keys::Named(_) => Algorithms::public(),
        }
    }
}

fn outcome(verified: Option<bool>) -> Result<(), Fault> {
    match verified {
        Some(true) => Ok(()),
        Some(false) => Err(Fault::BadSignature),
        None => Err(Fault::WrongAlgorithm),
    }
}

/// How the content of a setting or a file becomes keys; the error is for the operator.
pub type Parse = fn(&[u8]) -> Result<Keys, String>;

/// Keys of this machine.
pub struct Local(ArcSwap<Keys>);

impl Local {
    /// Keys that do not change.
    pub fn fixed(keys: Keys) -> Arc<Local> {
        Arc::new(Local(ArcSwap::from_pointee(keys)))
    }

    /// Keys that a setting holds as they are (they start with `mark`), in base64, or by the path of a file. With a handle the
    /// file is read again when it changes; what cannot be read then leaves the keys as they are.
    ///
    /// # Errors
    /// A sentence on what is wrong with it, without a word of it.
    pub fn of(setting: &str, mark: &str, parse: Parse, handle: Option<&Handle>) -> Result<Arc<Local>, String> {
        let setting = setting.trim();
        if setting.contains(mark) {
            return parse(setting.as_bytes()).map(Local::fixed);
        }
        // A path may look like base64; what comes out of it does not look like keys.
        let decoded = STANDARD.decode(setting).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        if let Some(text) = decoded.filter(|text| text.contains(mark)) {
            return parse(text.as_bytes()).map(Local::fixed);
        }
        let path = PathBuf::from(setting);
        let stamp = stamp(&path);
        let content = fs::read(&path).map_err(|error| format!("names a file that cannot be read: {error}"))?;
        let local = Local::fixed(parse(&content)?);
        if let Some(handle) = handle {
            handle.spawn(watch(Arc::downgrade(&local), path, stamp, parse));
        }
        Ok(local)
    }

    /// The keys as they are now.
    pub fn keys(&self) -> arc_swap::Guard<Arc<Keys>> {
        self.0.load()
    }
}

/// How often a file is looked at. Polling sees through every way of replacing one: renames, links, network file systems.
const LOOK: Duration = Duration::from_secs(2);

/// What tells one version of a file from another.
type Stamp = Option<(u64, u64, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let found = fs::metadata(path).ok()?;
    Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
}

/// Follows a file for as long as somebody uses its keys.
async fn watch(local: Weak<Local>, path: PathBuf, mut read: Stamp, parse: Parse) {
    let mut complained = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(local) = local.upgrade() else { return };
        let (from, before) = (path.clone(), read);
        let look = move || {
            let now = stamp(&from);
            (now != before)
                .then(|| (now, fs::read(&from).map_err(|error| error.to_string()).and_then(|text| parse(&text))))
        };
        let Ok(Some((now, keys))) = tokio::task::spawn_blocking(look).await else { continue };
        match keys {
            Ok(keys) => {
                local.0.store(Arc::new(keys));
                (read, complained) = (now, None);
                log::info!(target: "jwt", file:% = path.display(); "Keys read again");
            }
            Err(error) if complained.as_ref() != Some(&error) => {
                log::warn!(target: "jwt", file:% = path.display(); "Keys stay as they were: the file {error}");
                complained = Some(error);
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> Result<Keys, String> {
        if text.starts_with(b"KEY") { Ok(Keys::One(Key::secret(text))) } else { Err("holds no key".to_owned()) }
    }

    fn is(local: &Local, secret: &[u8]) -> bool {
        let tag = aws_lc_rs::hmac::sign(&aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret), b"m");
        matches!(&**local.keys(), Keys::One(key) if key.verify(super::super::keys::Algorithm::Hs256, b"m", tag.as_ref()) == Some(true))
    }

    #[test]
    fn keys_are_given_as_they_are_in_base64_or_by_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        fs::write(&path, "KEY of a file").expect("a writable folder");
        for (setting, secret) in [
            (" KEY here\n".to_owned(), "KEY here"),
            (STANDARD.encode("KEY coded"), "KEY coded"),
            (path.display().to_string(), "KEY of a file"),
        ] {
            let local = Local::of(&setting, "KEY", parse, None).expect(secret);
            assert!(is(&local, secret.as_bytes()), "{secret}");
        }
        fs::write(&path, "other").expect("a writable folder");
        for (setting, error) in [
            (path.display().to_string(), "holds no key"),
            ("c2VjcmV0".to_owned(), "names a file that cannot be read: No such file or directory (os error 2)"),
        ] {
            assert_eq!(Local::of(&setting, "KEY", parse, None).map(|_| ()).unwrap_err(), error);
        }
    }
}
