//! The cookie that keeps a client at its backend.
//!
//! Its value is a code of the backend: HMAC-SHA256 over the route's name and the text of the endpoint, cut to 128 bits. Only
//! who has the key can make one, it says nothing about the backend to anybody else, and it stays valid as long as the route,
//! the endpoint and the key do: over reloads, over changes of the list, and with a configured key over restarts and on every
//! instance.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::settings::{Secure, Sticky};

/// The cookie of one route.
pub(super) struct Cookie {
    name: String,
    /// By position in the configuration.
    codes: Box<[String]>,
    attributes: String,
    secure: Secure,
}

impl Cookie {
    /// `key` counts where the settings have none.
    pub fn new<'a>(settings: &Sticky, key: &[u8], route: &str, endpoints: impl Iterator<Item = &'a str>) -> Cookie {
        let key = settings.secret.as_deref().unwrap_or(key);
        Cookie {
            name: settings.cookie.clone(),
            codes: endpoints.map(|endpoint| code(key, route, endpoint)).collect(),
            attributes: settings.attributes.clone(),
            secure: settings.secure,
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The backend that a cookie's value names; the first of equal endpoints.
    pub fn backend(&self, value: &str) -> Option<usize> {
        self.codes.iter().position(|code| bool::from(code.as_bytes().ct_eq(value.as_bytes())))
    }

    /// The `Set-Cookie` value for a client that was served by this backend; `None` when it has that cookie already.
    pub fn set(&self, index: usize, has: Option<&str>, over_tls: bool) -> Option<String> {
        let code = self.codes.get(index).filter(|code| has != Some(code.as_str()))?;
        let secure = match self.secure {
            Secure::Always => true,
            Secure::Never => false,
            Secure::Auto => over_tls,
        };
        Some(format!("{}={code}{}{}", self.name, self.attributes, if secure { "; Secure" } else { "" }))
    }
}

fn code(key: &[u8], route: &str, endpoint: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length is taken");
    mac.update(b"goma-edge sticky 1\0");
    mac.update(route.as_bytes());
    mac.update(b"\0");
    mac.update(endpoint.as_bytes());
    URL_SAFE_NO_PAD.encode(&mac.finalize().into_bytes()[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"the key of a process";

    fn cookie(route: &str, endpoints: &[&str], secret: Option<&[u8]>, secure: Secure) -> Cookie {
        let attributes = "; Path=/; HttpOnly; SameSite=Lax".to_owned();
        let settings = Sticky { cookie: "stick".to_owned(), secret: secret.map(<[u8]>::to_vec), attributes, secure };
        Cookie::new(&settings, KEY, route, endpoints.iter().copied())
    }

    fn value(set: &str) -> String {
        set.split(['=', ';']).nth(1).unwrap().to_owned()
    }

    #[test]
    fn a_code_finds_its_backend_in_another_list() {
        let before = cookie("r", &["http://a", "http://b"], None, Secure::Auto);
        let after = cookie("r", &["http://new", "http://b", "http://c"], None, Secure::Auto);
        let set = before.set(1, None, false).unwrap();
        assert_eq!(set, format!("stick={}; Path=/; HttpOnly; SameSite=Lax", value(&set)));
        assert_eq!(after.backend(&value(&set)), Some(1));
        assert_eq!(after.backend(&value(&before.set(0, None, false).unwrap())), None, "it is gone");
        assert_eq!(before.set(1, Some(&value(&set)), false), None, "the client has it");
    }

    #[test]
    fn a_code_is_good_for_one_route_and_key() {
        let endpoints = ["http://a", "http://b"];
        let ours = value(&cookie("r", &endpoints, None, Secure::Auto).set(0, None, false).unwrap());
        assert_eq!(cookie("other", &endpoints, None, Secure::Auto).backend(&ours), None);
        assert_eq!(cookie("r", &endpoints, Some(b"another key"), Secure::Auto).backend(&ours), None);
        for forged in ["", "http://a", "0", &ours[1..], &format!("{ours}A"), &ours.to_ascii_lowercase()] {
            assert_eq!(cookie("r", &endpoints, None, Secure::Auto).backend(forged), None, "{forged}");
        }
    }

    #[test]
    fn it_is_for_tls_where_that_is_asked_for() {
        for (secure, over_tls, expected) in [
            (Secure::Auto, true, true),
            (Secure::Auto, false, false),
            (Secure::Always, false, true),
            (Secure::Never, true, false),
        ] {
            let set = cookie("r", &["http://a"], None, secure).set(0, None, over_tls).unwrap();
            assert_eq!(set.ends_with("; Secure"), expected, "{secure:?}");
        }
    }
}
