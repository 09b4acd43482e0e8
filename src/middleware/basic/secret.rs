//! Stored passwords: what forms there are, and how a password is held against one.
//!
//! | form | made by | cost |
//! |---|---|---|
//! | `$2a$`, `$2b$`, `$2y$` | bcrypt, `htpasswd -B` | slow |
//! | `$argon2id$`, `$argon2i$`, `$argon2d$` | argon2 | slow |
//! | `$5$`, `$6$` | SHA-crypt, `openssl passwd -6` | slow |
//! | `$apr1$`, `$1$` | `htpasswd -m`, `openssl passwd -1` | a thousand rounds |
//! | `{SHA}`, `{SSHA}` | `htpasswd -s`, directories | fast |
//! | anything else | the password itself | fast |
//!
//! A form that looks like a hash and is none of these refuses the configuration: in Goma the text of such a hash was itself
//! the password. Spec middlewares §5.5.

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordVerifier};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::md5crypt;

/// A stored password in one of the known forms.
#[derive(Clone)]
pub enum Stored {
    /// bcrypt.
    Bcrypt(Box<str>),
    /// Argon2 in its PHC string.
    Argon2(Box<str>),
    /// SHA-256-crypt or SHA-512-crypt.
    ShaCrypt(Box<str>),
    /// MD5-crypt, also as Apache writes it.
    Md5Crypt(Box<str>),
    /// SHA-1 of password and salt; the salt may be empty.
    Sha1 {
        /// The hash.
        hash: [u8; 20],
        /// What was hashed behind the password.
        salt: Box<[u8]>,
    },
    /// The password itself.
    Plain(Box<str>),
}

impl Stored {
    /// Reads a stored password.
    ///
    /// # Errors
    /// What is wrong with it, in words that do not repeat it.
    pub fn read(text: &str) -> Result<Stored, &'static str> {
        match form(text) {
            Some("2a" | "2b" | "2y") => {
                valid_bcrypt(text).then(|| Stored::Bcrypt(text.into())).ok_or("is no whole bcrypt hash")
            }
            Some("argon2id" | "argon2i" | "argon2d") => match PasswordHash::new(text) {
                Ok(hash) if hash.hash.is_some() => Ok(Stored::Argon2(text.into())),
                _ => Err("is no whole argon2 hash"),
            },
            Some("5" | "6") => match sha_crypt::PasswordHash::new(text) {
                Ok(_) if text.split('$').count() >= 4 => Ok(Stored::ShaCrypt(text.into())),
                _ => Err("is no whole SHA-crypt hash"),
            },
            Some("apr1" | "1") => {
                md5crypt::is_whole(text).then(|| Stored::Md5Crypt(text.into())).ok_or("is no whole MD5-crypt hash")
            }
            Some("{SHA}") => sha1(text, 5, true).ok_or("is no whole {SHA} hash"),
            Some("{SSHA}") => sha1(text, 6, false).ok_or("is no whole {SSHA} hash"),
            Some(_) => Err("looks like a hash of a form that is not known"),
            None => Ok(Stored::Plain(text.into())),
        }
    }

    /// Whether a check costs so much that it must not run on a thread that carries requests.
    pub fn is_slow(&self) -> bool {
        !matches!(self, Stored::Sha1 { .. } | Stored::Plain(_))
    }

    /// Holds a password against it, in a time that does not depend on how much of it is right. One of more than
    /// [`LONGEST`] bytes is nobody's.
    pub fn takes(&self, password: &str) -> bool {
        if password.len() > LONGEST {
            return false;
        }
        match self {
            Stored::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Stored::Argon2(hash) => PasswordHash::new(hash)
                .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()),
            Stored::ShaCrypt(hash) => {
                use sha_crypt::PasswordVerifier;
                sha_crypt::ShaCrypt::default().verify_password(password.as_bytes(), &**hash).is_ok()
            }
            Stored::Md5Crypt(hash) => md5crypt::takes(hash, password),
            Stored::Sha1 { hash, salt } => {
                let found = Sha1::new().chain_update(password).chain_update(salt).finalize();
                found.as_slice().ct_eq(hash).into()
            }
            // Hashed first, so that the length is no hint either.
            Stored::Plain(plain) => Sha256::digest(password).ct_eq(&Sha256::digest(plain.as_bytes())).into(),
        }
    }

    /// Bytes that differ for every stored password: part of a cache key.
    pub fn text(&self) -> &[u8] {
        match self {
            Stored::Bcrypt(text)
            | Stored::Argon2(text)
            | Stored::ShaCrypt(text)
            | Stored::Md5Crypt(text)
            | Stored::Plain(text) => text.as_bytes(),
            Stored::Sha1 { hash, .. } => hash,
        }
    }
}

/// Longest password, in bytes. The time that SHA-crypt takes grows with the square of it.
const LONGEST: usize = 1024;

/// The name of the form that a text claims to have: `2y` of `$2y$…`, `{SHA}` of `{SHA}…`.
fn form(text: &str) -> Option<&str> {
    if let Some(rest) = text.strip_prefix('$') {
        let name = rest.split_once('$')?.0;
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        return is_name.then_some(name);
    }
    let end = text.strip_prefix('{')?.find('}')? + 2;
    let name = &text[1..end - 1];
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-');
    (is_name && text.len() > end).then(|| &text[..end])
}

/// `$2y$10$` and 53 characters.
fn valid_bcrypt(text: &str) -> bool {
    let rest = text.get(4..).unwrap_or_default();
    let (cost, hash) = rest.split_once('$').unwrap_or_default();
    cost.len() == 2
        && cost.parse::<u32>().is_ok_and(|cost| (4..=31).contains(&cost))
        && hash.len() == 53
        && hash.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'/')
}

fn sha1(text: &str, prefix: usize, bare: bool) -> Option<Stored> {
    let bytes = STANDARD.decode(&text[prefix..]).ok()?;
    let (hash, salt) = bytes.split_first_chunk::<20>()?;
    (salt.is_empty() == bare).then(|| Stored::Sha1 { hash: *hash, salt: salt.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SSHA: &str = "{SSHA}yI6cZwQadOA1e+/f+T+H3eCQQhRzYWx0";
    const ARGON2: &str =
        "$argon2id$v=19$m=64,t=1,p=1$vYfrxgTV6aG/tD61+IyJHQ$FGKSO2OVMeyU+qGcgUpBVuwHkMJxeZO391z/ShJWM7Q";
    const SHA512: &str =
        "$6$saltstringsaltst$6JOgtRfhXqEisnc/Nr64lml/zPnCnvtLyMVxFEVg0sI2Ph9URAKlnVjjIHOFI2r8ATszyoPTXlBwcJIQYQ0QN0";
    const ROUNDS: &str = "$6$rounds=5000$saltstring$adDbXsJjcDlq2662QPgd.tkSOVmnG9Tt3oXl4HR60SusC3AGjirnDenVZp3DGwLwqy6iYKCzannhaX9DR72nN1";

    #[test]
    fn every_form_takes_its_password_and_no_other() {
        let bcrypt = "$2y$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu";
        for (form, stored, slow) in [
            ("bcrypt 2y", bcrypt, true),
            ("bcrypt 2b", &bcrypt.replace("2y", "2b"), true),
            ("bcrypt 2a", &bcrypt.replace("2y", "2a"), true),
            ("argon2id", ARGON2, true),
            ("SHA-256-crypt", "$5$saltstringsaltst$Ekah6lEFydzYloW2P/P45IGa7Yv0vGRQi.McSitgqd9", true),
            ("SHA-512-crypt", SHA512, true),
            ("SHA-512-crypt with rounds", ROUNDS, true),
            ("Apache MD5", "$apr1$xxxxxxxx$dxHfLAsjHkDRmG83UXe8K0", true),
            ("MD5-crypt", "$1$xxxxxxxx$UYCIxa628.9qXjpQCjM4a.", true),
            ("SHA, row 28", "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", false),
            ("salted SHA", SSHA, false),
            ("the password itself", "password", false),
        ] {
            let read = Stored::read(stored).unwrap_or_else(|why| panic!("{form}: {why}"));
            assert!(read.takes("password"), "{form} takes its password");
            assert_eq!(read.is_slow(), slow, "{form}");
            for other in ["Password", "passwor", "password ", "", stored] {
                assert!(!read.takes(other) || other == "password", "{form} refuses `{other}`");
            }
        }
    }

    #[test]
    fn what_looks_like_a_hash_is_never_a_password() {
        for stored in [
            "$2b$05$short",
            "$2x$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu",
            "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ",
            "$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD",
            "$6$salt",
            "$apr1$salt$short",
            "{SHA}abc",
            "{SSHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
            "{CRYPT}ab",
            "{MD5}X03MO1qnZdYdgyfeuILPmQ==",
        ] {
            assert!(Stored::read(stored).is_err(), "{stored}");
        }
        for plain in ["$money$", "$", "$$", "pa$$word", "{curly}brace", "{", "{}", "100$"] {
            let read = Stored::read(plain);
            assert!(read.is_ok_and(|read| matches!(read, Stored::Plain(_))) || plain == "$money$", "{plain}");
        }
    }
}
