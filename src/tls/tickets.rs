//! Keys of session tickets, with which clients come back without a whole handshake.
//!
//! One secret a process, a new one every six hours; the one before still opens what it sealed. Each policy for certificates of
//! clients has keys of its own, derived from the secret, so that a session of one is nothing to another. The process that takes
//! over from this one is given the secrets ([`TicketKeys::export`]): sessions outlive a swap of the binary.
//!
//! A ticket is the name of its secret, a nonce, and the state of the session under AES-256-GCM with the name as what is
//! authenticated beside it. The nonces are random: 2^32 tickets under one key would be too many, which in six hours are 200,000
//! a second. RFC 5077 §4, NIST SP 800-38D §8.3.

use std::fmt;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, rand};
use rustls::server::ProducesTickets;
use zeroize::Zeroizing;

/// The secrets of the process.
#[derive(Default)]
pub struct TicketKeys {
    secrets: ArcSwap<Secrets>,
    /// Whoever holds it makes the next one.
    turn: Mutex<()>,
}

/// The newest first; empty until the first is needed.
type Secrets = Vec<Arc<Secret>>;

struct Secret {
    name: [u8; NAME],
    key: Zeroizing<[u8; KEY]>,
    /// Unix time, seconds.
    born: u64,
}

impl Secret {
    fn make(now: u64) -> Option<Secret> {
        let (mut name, mut key) = ([0; NAME], Zeroizing::new([0; KEY]));
        rand::fill(&mut name).ok()?;
        rand::fill(&mut *key).ok()?;
        Some(Secret { name, key, born: now })
    }

    /// Whether it has served its time, or the clock was set back far.
    fn is_over(&self, now: u64) -> bool {
        now.abs_diff(self.born) >= LIFE
    }

    /// The key under a policy.
    fn derive(&self, policy: &[u8; 32]) -> Option<LessSafeKey> {
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, PURPOSE).extract(&*self.key);
        let policy = [policy.as_slice()];
        let key = UnboundKey::from(secret.expand(&policy, &AES_256_GCM).ok()?);
        Some(LessSafeKey::new(key))
    }
}

impl TicketKeys {
    /// The secrets at this time, the one to seal with first. Empty when the machine has no randomness.
    fn at(&self, now: u64) -> Arc<Secrets> {
        let secrets = self.secrets.load_full();
        if secrets.first().is_some_and(|newest| !newest.is_over(now)) {
            return secrets;
        }
        let _turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            // Somebody is at it; where there is one, the old one does until then.
            Err(TryLockError::WouldBlock) if !secrets.is_empty() => return secrets,
            Err(TryLockError::WouldBlock) => self.turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
        };
        let secrets = self.secrets.load_full();
        if secrets.first().is_some_and(|newest| !newest.is_over(now)) {
            return secrets;
        }
        let Some(next) = Secret::make(now) else {
            log::error!("No randomness for the key of session tickets");
            return secrets;
        };
        let next = [Arc::new(next)].into_iter().chain(secrets.first().cloned()).collect();
        self.secrets.store(Arc::new(next));
        self.secrets.load_full()
    }

    /// The secrets as bytes, for the process that takes over. They go nowhere else.
    pub fn export(&self) -> Zeroizing<Vec<u8>> {
        self.export_at(now())
    }

    fn export_at(&self, now: u64) -> Zeroizing<Vec<u8>> {
        // Where there is none yet there is one from now on: what is sealed until the other process serves is not lost.
        let secrets = self.at(now);
        let mut bytes = Zeroizing::new(Vec::with_capacity(1 + secrets.len() * RECORD));
        bytes.push(FORM);
        for secret in secrets.iter() {
            bytes.extend_from_slice(&secret.name);
            bytes.extend_from_slice(&*secret.key);
            bytes.extend_from_slice(&secret.born.to_be_bytes());
        }
        bytes
    }

    /// Takes the secrets of the process before this one in the place of its own; whether they were any.
    pub fn adopt(&self, bytes: &[u8]) -> bool {
        let Some((&FORM, records)) = bytes.split_first() else { return false };
        let (records, rest) = records.as_chunks::<RECORD>();
        if records.is_empty() || records.len() > MOST || !rest.is_empty() {
            return false;
        }
        let secrets = records.iter().map(|record| {
            let (name, rest) = record.split_at(NAME);
            let (secret, born) = rest.split_at(KEY);
            let mut key = Zeroizing::new([0; KEY]);
            key.copy_from_slice(secret);
            let name = name.try_into().expect("split at its length");
            let born = u64::from_be_bytes(born.try_into().expect("what is left of a record"));
            Arc::new(Secret { name, key, born })
        });
        self.secrets.store(Arc::new(secrets.collect()));
        true
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "TicketKeys({})", self.secrets.load().len())
    }
}

/// Seals and opens tickets under one policy.
#[derive(Debug)]
pub struct Ticketer {
    keys: Arc<TicketKeys>,
    policy: [u8; 32],
    derived: ArcSwap<Derived>,
}

/// Keys in the order of the secrets that they come from.
#[derive(Default)]
struct Derived {
    from: Arc<Secrets>,
    keys: Vec<Option<LessSafeKey>>,
}

impl fmt::Debug for Derived {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Derived({})", self.keys.len())
    }
}

impl Ticketer {
    /// For sessions under a policy.
    pub fn new(keys: Arc<TicketKeys>, policy: [u8; 32]) -> Ticketer {
        Ticketer { keys, policy, derived: ArcSwap::default() }
    }

    fn derived(&self, now: u64) -> Arc<Derived> {
        let secrets = self.keys.at(now);
        let derived = self.derived.load_full();
        if Arc::ptr_eq(&derived.from, &secrets) {
            return derived;
        }
        let keys = secrets.iter().map(|secret| secret.derive(&self.policy)).collect();
        let derived = Arc::new(Derived { from: secrets, keys });
        self.derived.store(derived.clone());
        derived
    }

    fn seal(&self, state: &[u8], now: u64) -> Option<Vec<u8>> {
        let derived = self.derived(now);
        let (secret, key) = derived.from.iter().zip(&derived.keys).next()?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(NAME + NONCE_LEN + state.len() + AES_256_GCM.tag_len());
        ticket.extend_from_slice(&secret.name);
        ticket.extend_from_slice(&nonce);
        ticket.extend_from_slice(state);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = &mut ticket[NAME + NONCE_LEN..];
        let tag = key.as_ref()?.seal_in_place_separate_tag(nonce, Aad::from(secret.name), sealed).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn open(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let derived = self.derived(now);
        let (secret, key) = derived.from.iter().zip(&derived.keys).find(|(secret, _)| secret.name == name)?;
        // One secret lives on after its time, and no longer than the next one.
        if now.abs_diff(secret.born) >= 2 * LIFE {
            return None;
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut state = sealed.to_vec();
        let length = key.as_ref()?.open_in_place(nonce, Aad::from(secret.name), &mut state).ok()?.len();
        state.truncate(length);
        Some(state)
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(2 * LIFE).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, now())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.open(ticket, now())
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// How long a secret seals, in seconds; it opens for as long again.
const LIFE: u64 = 6 * 60 * 60;
const NAME: usize = 16;
const KEY: usize = 32;
/// A secret among the bytes that are handed over.
const RECORD: usize = NAME + KEY + size_of::<u64>();
/// Secrets that are taken over: the newest and the one before.
const MOST: usize = 2;
/// Form of the bytes that are handed over. Another version's are not taken.
const FORM: u8 = 1;
/// Sets these keys apart from all others that could come from the same secret.
const PURPOSE: &[u8] = b"goma-edge session tickets 1";

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const POLICY: [u8; 32] = [0; 32];

    fn ticketer(keys: &Arc<TicketKeys>, policy: [u8; 32]) -> Ticketer {
        Ticketer::new(keys.clone(), policy)
    }

    #[test]
    fn a_ticket_opens_under_its_policy_and_unchanged() {
        let keys = Arc::<TicketKeys>::default();
        let one = ticketer(&keys, POLICY);
        let ticket = one.seal(b"state", NOW).expect("sealed");
        assert_eq!(one.open(&ticket, NOW).as_deref(), Some(&b"state"[..]));
        assert_ne!(one.seal(b"state", NOW), Some(ticket.clone()), "never the same twice");
        assert_eq!(ticketer(&keys, [1; 32]).open(&ticket, NOW), None, "another policy");
        assert_eq!(ticketer(&Arc::default(), POLICY).open(&ticket, NOW), None, "another process");
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(one.open(&changed, NOW), None, "byte {at}");
            assert_eq!(one.open(&ticket[..at], NOW), None, "the first {at} bytes");
        }
    }

    #[test]
    fn secrets_are_replaced_and_the_last_one_opens_still() {
        let keys = Arc::<TicketKeys>::default();
        let one = ticketer(&keys, POLICY);
        let first = one.seal(b"first", NOW).expect("sealed");
        assert_eq!(one.seal(b"", NOW + LIFE - 1).expect("sealed")[..NAME], first[..NAME]);
        let second = one.seal(b"second", NOW + LIFE).expect("sealed");
        assert_ne!(second[..NAME], first[..NAME]);
        assert!(one.open(&first, NOW + LIFE).is_some() && one.open(&second, NOW + LIFE).is_some());
        assert!(one.open(&first, NOW + 2 * LIFE).is_none());
        assert!(one.open(&second, NOW + 2 * LIFE).is_some());
        assert!(one.open(&second, NOW + 9 * LIFE).is_none(), "nobody came for long");
        let back = one.seal(b"", NOW - LIFE).expect("sealed");
        assert_ne!(back[..NAME], second[..NAME], "the clock was set back");
    }

    #[test]
    fn the_next_process_opens_what_this_one_sealed() {
        let keys = Arc::<TicketKeys>::default();
        let first = ticketer(&keys, POLICY).seal(b"first", NOW).expect("sealed");
        let second = ticketer(&keys, POLICY).seal(b"second", NOW + LIFE).expect("sealed");
        let next = Arc::<TicketKeys>::default();
        let _own = ticketer(&next, POLICY).seal(b"", NOW);
        assert!(next.adopt(&keys.export_at(NOW + LIFE)));
        let theirs = ticketer(&next, POLICY);
        assert_eq!(theirs.open(&first, NOW + LIFE).as_deref(), Some(&b"first"[..]));
        assert_eq!(theirs.open(&second, NOW + LIFE).as_deref(), Some(&b"second"[..]));
        assert_eq!(theirs.seal(b"", NOW + LIFE).expect("sealed")[..NAME], second[..NAME]);
    }

    #[test]
    fn bytes_that_are_no_secrets_are_not_taken() {
        let keys = TicketKeys::default();
        let sound = keys.export_at(NOW);
        for (bytes, what) in [
            (&[][..], "nothing"),
            (&[FORM], "no secret"),
            (&sound[..sound.len() - 1], "cut off"),
            (&[&[FORM + 1], &sound[1..]].concat(), "another form"),
            (&[&sound[..], &sound[1..], &sound[1..]].concat(), "too many"),
        ] {
            let next = TicketKeys::default();
            assert!(!next.adopt(bytes) && next.secrets.load().is_empty(), "{what}");
        }
        assert_eq!(format!("{keys:?}"), "TicketKeys(1)", "nothing of a secret is shown");
    }
}
