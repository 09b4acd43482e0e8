//! The provider: where its endpoints are, from the settings, from the list of known ones, or by discovery.
//!
//! OpenID Connect Discovery 1.0, RFC 8414. What was discovered is kept and refreshed in the background; when that fails the
//! old knowledge goes on. What the operator writes wins over what is discovered.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use crate::outbound::{CallError, Client};

/// A provider that Goma knows by name, with the endpoints of that spelling. Spec middlewares §5.8.
pub struct Known {
    /// Value of `provider`.
    pub name: &'static str,
    auth: &'static str,
    token: &'static str,
    issuer: Option<&'static str>,
    jwks: Option<&'static str>,
    user_info: &'static str,
    revocation: Option<&'static str>,
    /// Scopes of which one is needed to ask `user_info`; none: any token may.
    user_info_scopes: &'static [&'static str],
}

/// The providers that Goma knows.
pub const KNOWN: &[Known] = &[
    Known {
        name: "google",
        auth: "https://accounts.google.com/o/oauth2/auth",
        token: "https://oauth2.googleapis.com/token",
        issuer: Some("https://accounts.google.com"),
        jwks: Some("https://www.googleapis.com/oauth2/v3/certs"),
        user_info: "https://openidconnect.googleapis.com/v1/userinfo",
        revocation: Some("https://oauth2.googleapis.com/revoke"),
        user_info_scopes: &["openid", "email", "profile"],
    },
    Known {
        name: "github",
        auth: "https://github.com/login/oauth/authorize",
        token: "https://github.com/login/oauth/access_token",
        issuer: None,
        jwks: None,
        user_info: "https://api.github.com/user",
        revocation: None,
        user_info_scopes: &[],
    },
    Known {
        name: "gitlab",
        auth: "https://gitlab.com/oauth/authorize",
        token: "https://gitlab.com/oauth/token",
        issuer: Some("https://gitlab.com"),
        jwks: Some("https://gitlab.com/oauth/discovery/keys"),
        user_info: "https://gitlab.com/oauth/userinfo",
        revocation: Some("https://gitlab.com/oauth/revoke"),
        user_info_scopes: &["openid"],
    },
    Known {
        name: "amazon",
        auth: "https://www.amazon.com/ap/oa",
        token: "https://api.amazon.com/auth/o2/token",
        issuer: None,
        jwks: None,
        user_info: "https://api.amazon.com/user/profile",
        revocation: None,
        user_info_scopes: &["profile"],
    },
    Known {
        name: "facebook",
        auth: "https://www.facebook.com/v3.2/dialog/oauth",
        token: "https://graph.facebook.com/v3.2/oauth/access_token",
        issuer: None,
        jwks: None,
        user_info: "https://graph.facebook.com/v3.2/me",
        revocation: None,
        user_info_scopes: &[],
    },
];

/// Where the provider is asked for what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Where users log in.
    pub auth: String,
    /// Where codes and refresh tokens are redeemed.
    pub token: String,
    /// The keys of ID tokens.
    pub jwks: Option<String>,
    /// Who the bearer of an access token is.
    pub user_info: Option<String>,
    /// Whether a token is active (RFC 7662). Never discovered: not every client may ask.
    pub introspection: Option<String>,
    /// Where users log out (OpenID Connect RP-Initiated Logout).
    pub end_session: Option<String>,
    /// Where tokens are given back (RFC 7009).
    pub revocation: Option<String>,
    /// What `iss` has to be.
    pub issuer: Option<String>,
    /// Whether answers to logins always say their issuer (RFC 9207).
    pub says_issuer: bool,
    /// Whether the token endpoint wants the client's credentials in the body; `None` when it is not known.
    pub credentials_in_body: Option<bool>,
}

impl Known {
    /// The provider of this name.
    pub fn named(name: &str) -> Option<&'static Known> {
        KNOWN.iter().find(|known| known.name == name)
    }

    /// Its endpoints for logins with these scopes.
    pub fn endpoints(&self, scopes: &[&str]) -> Endpoints {
        let asks = self.user_info_scopes;
        let may_ask = asks.is_empty() || asks.iter().any(|scope| scopes.contains(scope));
        Endpoints {
            auth: self.auth.to_owned(),
            token: self.token.to_owned(),
            jwks: self.jwks.map(str::to_owned),
            user_info: may_ask.then(|| self.user_info.to_owned()),
            revocation: self.revocation.map(str::to_owned),
            issuer: self.issuer.map(str::to_owned),
            ..Endpoints::default()
        }
    }
}

/// How long an answer may take.
pub const ANSWER: Duration = Duration::from_secs(5);
/// Longest answer that is read.
pub const LONGEST: usize = 256 << 10;
/// How long what was discovered is taken for fresh.
const FRESH: Duration = Duration::from_secs(3600);
/// How soon after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(2);
/// The same in the background, growing up to this.
const SELDOM: Duration = Duration::from_secs(60);

/// The provider does not answer, or not as it should; for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Down(pub String);

/// The endpoints as they are known by now.
pub struct Provider {
    http: Client,
    /// What the settings say; empty texts where they say nothing.
    written: Endpoints,
    /// What is discovered is asked of this one.
    discover: Option<Discover>,
    found: ArcSwapOption<Endpoints>,
    /// When the last attempt failed.
    failed: Mutex<Option<Instant>>,
}

/// Whom to ask for the endpoints.
#[derive(Clone, Debug)]
pub struct Discover {
    /// The issuer.
    pub issuer: String,
    /// Whether access tokens will do for the user info endpoint: `openid` is asked for.
    pub openid: bool,
}

impl Provider {
    /// A provider with these endpoints, completed by discovery where asked for.
    pub fn new(http: Client, written: Endpoints, discover: Option<Discover>) -> Provider {
        let known = discover.is_none().then(|| Arc::new(written.clone()));
        Provider { http, written, discover, found: ArcSwapOption::new(known), failed: Mutex::new(None) }
    }

    /// The endpoints, if they are known without asking.
    pub fn known(&self) -> Option<Arc<Endpoints>> {
        self.found.load_full()
    }

    /// The endpoints; asks for them if need be, once for all who wait.
    ///
    /// # Errors
    /// When they cannot be had.
    pub async fn endpoints(&self) -> Result<Arc<Endpoints>, Down> {
        if let Some(known) = self.known() {
            return Ok(known);
        }
        let mut failed = self.failed.lock().await;
        if let Some(known) = self.known() {
            return Ok(known);
        }
        if failed.is_some_and(|then| then.elapsed() < AGAIN) {
            return Err(Down("discovery has just failed".to_owned()));
        }
        let result = self.discover().await;
        *failed = result.is_err().then(Instant::now);
        result
    }

    async fn discover(&self) -> Result<Arc<Endpoints>, Down> {
        let Some(discover) = &self.discover else { return Err(Down("nothing to discover".to_owned())) };
        let url = format!("{}/.well-known/openid-configuration", discover.issuer.trim_end_matches('/'));
        let request = self.http.http().get(url).timeout(ANSWER);
        let answer = self.http.call(request, LONGEST).await.and_then(crate::outbound::Answer::ok);
        let answer = answer.map_err(|error: CallError| Down(format!("discovery: {error}")))?;
        let document = serde_json::from_slice(&answer.body).map_err(|error| Down(format!("discovery: {error}")))?;
        let found = Arc::new(self.written.clone().completed(discover, document)?);
        self.found.store(Some(found.clone()));
        Ok(found)
    }

    /// Asks in the background, now and again and again, for as long as somebody uses the provider.
    pub fn keep_fresh(self: &Arc<Provider>, handle: Option<&Handle>) {
        if let (Some(handle), Some(_)) = (handle, &self.discover) {
            handle.spawn(refresh(Arc::downgrade(self)));
        }
    }
}

async fn refresh(provider: Weak<Provider>) {
    let mut pause = AGAIN;
    loop {
        let Some(provider) = provider.upgrade() else { return };
        let result = provider.discover().await;
        drop(provider);
        match result {
            Ok(_) => {
                pause = AGAIN;
                tokio::time::sleep(FRESH).await;
            }
            Err(Down(error)) => {
                log::warn!(error = error.as_str(); "OAuth provider");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(SELDOM);
            }
        }
    }
}

/// What of a discovery document is looked at.
#[derive(Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: Option<String>,
    token_endpoint: Option<String>,
    jwks_uri: Option<String>,
    userinfo_endpoint: Option<String>,
    end_session_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

impl Endpoints {
    fn completed(self, discover: &Discover, document: Document) -> Result<Endpoints, Down> {
        // Operators leave out the slash that some issuers end in.
        if document.issuer.trim_end_matches('/') != discover.issuer.trim_end_matches('/') {
            return Err(Down("discovery: the document is of another issuer".to_owned()));
        }
        let one = |written: String, found: Option<String>, what: &str| match (written.is_empty(), found) {
            (false, _) => Ok(written),
            (true, Some(found)) => Ok(found),
            (true, None) => Err(Down(format!("discovery: no {what}"))),
        };
        let endpoints = Endpoints {
            auth: one(self.auth, document.authorization_endpoint, "authorization_endpoint")?,
            token: one(self.token, document.token_endpoint, "token_endpoint")?,
            jwks: self.jwks.or(document.jwks_uri),
            user_info: self.user_info.or(document.userinfo_endpoint.filter(|_| discover.openid)),
            end_session: self.end_session.or(document.end_session_endpoint),
            revocation: self.revocation.or(document.revocation_endpoint),
            issuer: Some(document.issuer),
            says_issuer: document.authorization_response_iss_parameter_supported,
            credentials_in_body: document.token_endpoint_auth_methods_supported.and_then(|m| credentials(&m)),
            ..self
        };
        endpoints.checked(&discover.issuer)
    }

    /// A document may not lead to other kinds of addresses, nor from TLS to none.
    fn checked(self, issuer: &str) -> Result<Endpoints, Down> {
        let further = [&self.jwks, &self.user_info, &self.end_session, &self.revocation];
        let urls = [&self.auth, &self.token].into_iter().chain(further.into_iter().flatten());
        let start = if issuer.starts_with("https:") { &["https://"][..] } else { &["https://", "http://"] };
        let wrong = |url: &String| !start.iter().any(|start| url.starts_with(start));
        let found = urls.into_iter().any(wrong);
        if found {
            return Err(Down("discovery: an endpoint is no https address".to_owned()));
        }
        Ok(self)
    }
}

/// Basic is what Goma tries first, and what providers must support (RFC 6749 §2.3.1).
fn credentials(methods: &[String]) -> Option<bool> {
    let has = |method: &str| methods.iter().any(|known| known == method);
    match (has("client_secret_basic"), has("client_secret_post")) {
        (true, _) => Some(false),
        (false, true) => Some(true),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ISSUER: &str = "https://op.example/realm";

    fn completed(written: Endpoints, change: impl FnOnce(&mut Value)) -> Result<Endpoints, Down> {
        let mut document = json!({
            "issuer": ISSUER,
            "authorization_endpoint": "https://op.example/auth",
            "token_endpoint": "https://op.example/token",
            "jwks_uri": "https://op.example/jwks",
            "userinfo_endpoint": "https://op.example/me",
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
        });
        change(&mut document);
        let discover = Discover { issuer: ISSUER.to_owned(), openid: true };
        written.completed(&discover, serde_json::from_value(document).map_err(|error| Down(error.to_string()))?)
    }

    #[test]
    fn what_is_written_wins_over_what_is_discovered() {
        let written = Endpoints { token: "https://internal/token".to_owned(), ..Endpoints::default() };
        let found = completed(written, |_| {}).expect("a whole document");
        assert_eq!(found.auth, "https://op.example/auth");
        assert_eq!(found.token, "https://internal/token");
        assert_eq!(found.issuer.as_deref(), Some(ISSUER));
        assert_eq!(found.credentials_in_body, Some(true));
    }

    #[test]
    fn an_issuer_is_the_same_with_a_slash_at_its_end_and_tokens_have_to_say_it_as_the_document_does() {
        let issuer = format!("{ISSUER}/");
        let found = completed(Endpoints::default(), |document| document["issuer"] = json!(issuer));
        assert_eq!(found.expect("a whole document").issuer, Some(issuer));
    }

    #[test]
    fn a_document_that_cannot_be_trusted_is_refused() {
        type Change = fn(&mut Value);
        let rows: [(&str, Change); 4] = [
            ("another issuer", |document| document["issuer"] = json!("https://evil.example")),
            ("no TLS", |document| document["token_endpoint"] = json!("http://op.example/token")),
            ("another scheme", |document| document["jwks_uri"] = json!("file:///etc/passwd")),
            ("no token endpoint", |document| document["token_endpoint"] = Value::Null),
        ];
        for (description, change) in rows {
            assert!(completed(Endpoints::default(), change).is_err(), "{description}");
        }
    }

    #[test]
    fn a_known_provider_is_asked_about_its_users_if_the_scopes_allow_it() {
        let google = Known::named("google").expect("known");
        assert!(google.endpoints(&["openid"]).user_info.is_some());
        assert!(google.endpoints(&["https://www.googleapis.com/auth/drive"]).user_info.is_none());
        assert!(Known::named("github").expect("known").endpoints(&[]).user_info.is_some());
        assert!(Known::named("Google").is_none() && Known::named("custom").is_none());
    }
}
