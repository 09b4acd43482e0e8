//! MD5-crypt, as crypt(3) writes it (`$1$`) and as Apache's htpasswd does (`$apr1$`): the same but for the name that is
//! hashed in.

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Longest salt; the rest is ignored by every implementation.
const SALT: usize = 8;
const ROUNDS: usize = 1000;

/// `$name$salt$` and 22 characters.
pub fn is_whole(text: &str) -> bool {
    parts(text).is_some_and(|(_, salt, hash)| {
        !salt.is_empty() && hash.len() == 22 && hash.bytes().all(|b| DIGITS.contains(&b))
    })
}

/// Holds a password against a whole hash.
pub fn takes(text: &str, password: &str) -> bool {
    parts(text).is_some_and(|(magic, salt, hash)| {
        let salt = &salt.as_bytes()[..salt.len().min(SALT)];
        encoded(&digest(password.as_bytes(), salt, magic.as_bytes())).as_bytes().ct_eq(hash.as_bytes()).into()
    })
}

/// `$apr1$`, the salt, the hash.
fn parts(text: &str) -> Option<(&str, &str, &str)> {
    let end = text.get(1..)?.find('$')? + 2;
    let (magic, rest) = text.split_at(end);
    let (salt, hash) = rest.split_once('$')?;
    Some((magic, salt, hash))
}

fn digest(password: &[u8], salt: &[u8], magic: &[u8]) -> [u8; 16] {
    let alternate = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut hash = Md5::new().chain_update(password).chain_update(magic).chain_update(salt);
    for chunk in password.chunks(16) {
        hash.update(&alternate[..chunk.len()]);
    }
    let mut bits = password.len();
    while bits > 0 {
        hash.update(if bits & 1 == 1 { &[0][..] } else { &password[..1] });
        bits >>= 1;
    }
    let mut found: [u8; 16] = hash.finalize().into();
    for round in 0..ROUNDS {
        let mut hash = Md5::new();
        hash.update(if round & 1 == 1 { password } else { &found });
        if round % 3 != 0 {
            hash.update(salt);
        }
        if round % 7 != 0 {
            hash.update(password);
        }
        hash.update(if round & 1 == 1 { &found[..] } else { password });
        found = hash.finalize().into();
    }
    found
}

/// The sixteen bytes in crypt's order and digits, six bits each, least significant first.
fn encoded(hash: &[u8; 16]) -> String {
    let mut text = String::with_capacity(22);
    let mut push = |value: u32, digits: usize| {
        for digit in 0..digits {
            text.push(char::from(DIGITS[(value >> (6 * digit)) as usize & 63]));
        }
    };
    for (a, b, c) in [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)] {
        push(u32::from(hash[a]) << 16 | u32::from(hash[b]) << 8 | u32::from(hash[c]), 4);
    }
    push(hash[11].into(), 2);
    text
}
