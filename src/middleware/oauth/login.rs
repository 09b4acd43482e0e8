//! A login under way: what is sent to the provider, and what has to come back with the answer.
//!
//! Each login has its own `state`, `nonce` and PKCE verifier (RFC 6749 §10.12, RFC 7636, RFC 9700 §2.1), sealed in a cookie
//! of its own, so that several tabs can log in at once and an answer that another browser asked for is refused.

use http::{HeaderMap, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::cookies::{self, Attributes};
use super::seal::{self, Purpose, Seal};

/// Start of the names of login cookies; a part of `state` follows.
const COOKIE: &str = "goma_oauth_login_";
/// How long a user may take to log in.
pub const PATIENCE_SECS: u64 = 600;
/// Letters of the tag at the start of `state`.
pub const TAG: usize = 8;
/// Longest address that is restored after a login; a longer one gives way to the fallback.
const LONGEST_TARGET: usize = 2000;

/// A login under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// Comes back from the provider as it was sent: a tag that says which middleware asked, then randomness.
    #[serde(rename = "s")]
    pub state: String,
    /// Is to stand in the ID token.
    #[serde(rename = "n")]
    pub nonce: String,
    /// Proves to the token endpoint that the one who asked redeems the code.
    #[serde(rename = "v")]
    pub verifier: String,
    /// Where the user wanted to go.
    #[serde(rename = "t")]
    pub target: String,
    /// Path of the session's cookies.
    #[serde(rename = "p")]
    pub cookie_path: String,
    /// When it began, in seconds since 1970.
    #[serde(rename = "b")]
    pub born: u64,
}

impl Login {
    /// Begins a login of the middleware with this tag.
    pub fn begin(tag: &str, target: String, cookie_path: &str, now: u64) -> Login {
        Login {
            state: format!("{tag}{}", seal::secret::<16>()),
            nonce: seal::secret::<16>(),
            verifier: seal::secret::<32>(),
            target,
            cookie_path: cookie_path.to_owned(),
            born: now,
        }
    }

    /// The login that this `state` belongs to, if this browser began it and it is not too old.
    pub fn of(request: &HeaderMap, state: &str, seal: &Seal, now: u64) -> Option<Login> {
        let open = |value: &str| serde_json::from_slice::<Login>(&seal.open(Purpose::Login, value)?).ok();
        let mut logins = cookies::all(request, &cookie_name(state)?).into_iter().filter_map(open);
        logins.find(|login| seal::same(&login.state, state) && now.saturating_sub(login.born) < PATIENCE_SECS)
    }

    /// The `Set-Cookie` value that keeps it.
    pub fn cookie(&self, seal: &Seal, attributes: &Attributes<'_>) -> HeaderValue {
        let plain = serde_json::to_vec(self).expect("texts and a number");
        let name = cookie_name(&self.state).expect("made long enough");
        let attributes = Attributes { max_age_secs: PATIENCE_SECS, ..*attributes };
        cookies::set(&name, &seal.seal(Purpose::Login, &plain), &attributes)
    }

    /// The parameters of the authorization request, in the order of their names as Goma has it.
    pub fn parameters<'a>(&'a self, ask: &'a Ask<'_>) -> Vec<(&'a str, String)> {
        let mut parameters = vec![
            ("client_id", ask.client_id.to_owned()),
            ("code_challenge", self.challenge()),
            ("code_challenge_method", "S256".to_owned()),
            ("redirect_uri", ask.redirect_url.to_owned()),
            ("response_type", "code".to_owned()),
            ("state", self.state.clone()),
        ];
        if !ask.scope.is_empty() {
            parameters.push(("scope", ask.scope.to_owned()));
        }
        if ask.scope.split(' ').any(|scope| scope == "openid") {
            parameters.push(("nonce", self.nonce.clone()));
        }
        parameters.extend(ask.further.iter().map(|(name, value)| (name.as_str(), value.clone())));
        parameters.sort_by(|one, other| one.0.cmp(other.0));
        parameters
    }

    fn challenge(&self) -> String {
        use base64::Engine;
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.verifier.as_bytes());
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(hash)
    }
}

/// What every login of a middleware asks for.
pub struct Ask<'a> {
    /// The client.
    pub client_id: &'a str,
    /// Where the answer goes.
    pub redirect_url: &'a str,
    /// Scopes with a space between them.
    pub scope: &'a str,
    /// Parameters that the operator adds.
    pub further: &'a [(String, String)],
}

/// Makes the browser forget the login of this `state`.
pub fn forget(state: &str, attributes: &Attributes<'_>) -> Option<HeaderValue> {
    Some(cookies::delete(&cookie_name(state)?, attributes))
}

fn cookie_name(state: &str) -> Option<String> {
    let part = state.get(TAG..TAG + 10).filter(|part| is_token(part))?;
    Some(format!("{COOKIE}{part}"))
}

fn is_token(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// An address of this site to come back to, never of another one: `//other` and `/\other` are other sites to a browser.
/// `None` when it is too long to keep.
pub fn local(path: &str, query: Option<&str>) -> Option<String> {
    let path = path.trim_start_matches(['/', '\\']).replace('\\', "%5C");
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let target = format!("/{path}{query}");
    let plain = target.bytes().all(|byte| byte.is_ascii_graphic());
    (plain && target.len() <= LONGEST_TARGET).then_some(target)
}

/// Adds parameters to a URL that may have some.
pub fn with_parameters<N: AsRef<str>>(url: &str, parameters: &[(N, String)]) -> String {
    let mut text = url.to_owned();
    for (name, value) in parameters {
        text.push(if text.contains('?') { '&' } else { '?' });
        text.push_str(&encoded(name.as_ref()));
        text.push('=');
        text.push_str(&encoded(value));
    }
    text
}

/// A text as forms and Go's library write it.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, FORM).to_string().replace("%20", "+")
}

const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    const ATTRIBUTES: Attributes<'_> = Attributes { path: "/callback", secure: false, max_age_secs: 0 };

    fn seal() -> Seal {
        Seal::new("secret", &["client"])
    }

    fn begin() -> Login {
        Login::begin("tagtagta", "/x?y=1".into(), "/", 1000)
    }

    fn request(logins: &[&Login]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for login in logins {
            let cookie = login.cookie(&seal(), &ATTRIBUTES);
            let pair = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
            headers.append(header::COOKIE, pair.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_login_is_found_by_its_state_in_the_browser_that_began_it() {
        let (one, two) = (begin(), begin());
        let both = request(&[&one, &two]);
        for login in [&one, &two] {
            assert_eq!(Login::of(&both, &login.state, &seal(), 1000).as_ref(), Some(login));
        }
        let other = Seal::new("other", &["client"]);
        let forged = format!("{}x", &one.state[..one.state.len() - 1]);
        for (description, cookies, state, seal, now) in [
            ("another browser", request(&[&two]), &*one.state, seal(), 1000),
            ("no cookie", request(&[]), &*one.state, seal(), 1000),
            ("another client", request(&[&one]), &*one.state, other, 1000),
            ("a state that begins alike", request(&[&one]), &*forged, seal(), 1000),
            ("too late", request(&[&one]), &*one.state, seal(), 1600),
            ("a short state", request(&[&one]), "st", seal(), 1000),
            ("no state", request(&[&one]), "", seal(), 1000),
            ("a state of other letters", request(&[&one]), "tagtagta;;;; Path=/x", seal(), 1000),
        ] {
            assert_eq!(Login::of(&cookies, state, &seal, now), None, "{description}");
        }
    }

    #[test]
    fn no_two_logins_are_alike() {
        let (one, two) = (begin(), begin());
        assert!(one.state != two.state && one.nonce != two.nonce && one.verifier != two.verifier);
        assert!(one.state.starts_with("tagtagta") && one.verifier.len() >= 43);
    }

    #[test]
    fn the_authorization_request_is_gomas_with_pkce() {
        let login = Login {
            state: "st".into(),
            nonce: "no".into(),
            verifier: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".into(),
            target: "/".into(),
            cookie_path: "/".into(),
            born: 0,
        };
        let ask = Ask { client_id: "id", redirect_url: "http://h/callback", scope: "openid e m", further: &[] };
        assert_eq!(
            with_parameters("https://op/auth?a=b", &login.parameters(&ask)),
            "https://op/auth?a=b&client_id=id&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM\
             &code_challenge_method=S256&nonce=no&redirect_uri=http%3A%2F%2Fh%2Fcallback&response_type=code\
             &scope=openid+e+m&state=st",
            "the challenge is the example of RFC 7636"
        );
        let further = [("prompt".to_owned(), "login".to_owned())];
        let ask = Ask { scope: "", further: &further, ..ask };
        let parameters = login.parameters(&ask);
        let names: Vec<&str> = parameters.iter().map(|(name, _)| *name).collect();
        assert!(names.is_sorted() && names.contains(&"prompt"), "{names:?}");
        assert!(!names.contains(&"nonce") && !names.contains(&"scope"), "{names:?}");
    }

    #[test]
    fn the_way_back_leads_to_this_site() {
        for (path, query, target) in [
            ("/a/b", Some("x=1&y"), Some("/a/b?x=1&y")),
            ("/", None, Some("/")),
            ("//evil.example/x", None, Some("/evil.example/x")),
            ("///evil.example", None, Some("/evil.example")),
            ("/\\evil.example", None, Some("/evil.example")),
            ("/a\\b", None, Some("/a%5Cb")),
            ("/a b", None, None),
            ("/a\r\nSet-Cookie: x=y", None, None),
        ] {
            assert_eq!(local(path, query).as_deref(), target, "{path}");
        }
        assert_eq!(local(&"/x".repeat(1001), None), None, "too long");
    }
}
