//! Calls to the provider: codes and refresh tokens for access tokens, who the bearer is, giving tokens back.
//!
//! RFC 6749 §4.1.3, §5 and §6, RFC 7662, RFC 7009, OpenID Connect Core §5.3.

use std::sync::atomic::{AtomicU8, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{StatusCode, header};
use serde_json::{Map, Value};

use super::login::encoded;
use super::provider::{ANSWER, LONGEST};
use crate::fields;
use crate::outbound::{Answer, Client};

/// Who we are to the provider, and how it wants to hear that.
pub struct Tokens {
    http: Client,
    id: String,
    secret: String,
    /// [`UNKNOWN`], [`HEADER`] or [`BODY`]: what has worked.
    credentials: AtomicU8,
}

const UNKNOWN: u8 = 0;
const HEADER: u8 = 1;
const BODY: u8 = 2;

/// Tokens for one user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// The access token.
    pub access: String,
    /// The next refresh token; without one the old one stays good.
    pub refresh: Option<String>,
    /// The ID token.
    pub id_token: Option<String>,
    /// How long the access token is good, as far as the provider says.
    pub expires_in_secs: Option<u64>,
}

/// Why there is no answer to use. The texts are for the log and hold no secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The provider cannot be reached, or takes too long.
    Down(String),
    /// It answers, and not as it should.
    Broken(String),
    /// It says no.
    Refused(String),
    /// Sessions are in Redis, and that does not answer.
    Store(String),
}

type Form<'a> = Vec<(&'static str, &'a str)>;

impl Tokens {
    /// A client with these credentials.
    pub fn new(http: Client, id: &str, secret: &str) -> Tokens {
        Tokens { http, id: id.to_owned(), secret: secret.to_owned(), credentials: AtomicU8::new(UNKNOWN) }
    }

    /// Redeems the code of a login.
    ///
    /// # Errors
    /// When the provider does not give tokens for it.
    pub async fn redeem(&self, at: &At<'_>, code: &str, verifier: &str, redirect: &str) -> Result<Grant, Fault> {
        let form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect),
            ("code_verifier", verifier),
        ];
        grant(self.post(at, form).await?)
    }

    /// Redeems a refresh token.
    ///
    /// # Errors
    /// When the provider does not give tokens for it.
    pub async fn refresh(&self, at: &At<'_>, token: &str) -> Result<Grant, Fault> {
        grant(self.post(at, vec![("grant_type", "refresh_token"), ("refresh_token", token)]).await?)
    }

    /// Asks whether a token is active, and what is known of it.
    ///
    /// # Errors
    /// When it is not, or the answer cannot be had.
    pub async fn introspect(&self, at: &At<'_>, token: &str) -> Result<Map<String, Value>, Fault> {
        let answer = self.post(at, vec![("token", token), ("token_type_hint", "access_token")]).await?;
        let found = object(&answer)?;
        match found.get("active") {
            Some(Value::Bool(true)) => Ok(found),
            Some(Value::Bool(false)) => Err(Fault::Refused("the token is not active".to_owned())),
            _ => Err(Fault::Broken("introspection: no word on `active`".to_owned())),
        }
    }

    /// Gives a token back.
    ///
    /// # Errors
    /// When the provider does not take it.
    pub async fn revoke(&self, at: &At<'_>, token: &str) -> Result<(), Fault> {
        self.post(at, vec![("token", token)]).await.map(drop)
    }

    /// Asks who the bearer of an access token is.
    ///
    /// # Errors
    /// When the token is not good, or the answer cannot be had.
    pub async fn user_info(&self, url: &str, token: &str) -> Result<Map<String, Value>, Fault> {
        let request = self.http.http().get(url).bearer_auth(token).header(header::ACCEPT, "application/json");
        let answer = self.http.call(request.timeout(ANSWER), LONGEST).await;
        let answer = answer.map_err(|error| Fault::Down(format!("user info: {error}")))?;
        match answer.status {
            StatusCode::OK => object(&answer),
            // Some say 400 to a token that is no more.
            StatusCode::UNAUTHORIZED | StatusCode::BAD_REQUEST => {
                Err(Fault::Refused(format!("user info: status {}", answer.status.as_u16())))
            }
            status => Err(Fault::Broken(format!("user info: status {}", status.as_u16()))),
        }
    }

    /// Posts a form with the client's credentials: in a header, and when that does not work in the body, as Goma does. What
    /// has worked once is kept to.
    async fn post(&self, at: &At<'_>, form: Form<'_>) -> Result<Answer, Fault> {
        let known = match (self.credentials.load(Ordering::Relaxed), at.credentials_in_body) {
            (UNKNOWN, Some(true)) => BODY,
            (UNKNOWN, Some(false)) => HEADER,
            (known, _) => known,
        };
        let first = if known == BODY { BODY } else { HEADER };
        let answer = self.send(at.url, &form, first).await?;
        match judge(answer) {
            Err(Fault::Refused(why)) if known == UNKNOWN && !why.ends_with("invalid_grant") => {
                let answer = judge(self.send(at.url, &form, BODY).await?)?;
                self.credentials.store(BODY, Ordering::Relaxed);
                Ok(answer)
            }
            Ok(answer) => {
                self.credentials.store(first, Ordering::Relaxed);
                Ok(answer)
            }
            Err(fault) => Err(fault),
        }
    }

    async fn send(&self, url: &str, form: &Form<'_>, credentials: u8) -> Result<Answer, Fault> {
        let mut form = form.clone();
        let mut request = self.http.http().post(url).timeout(ANSWER).header(header::ACCEPT, "application/json");
        if credentials == BODY {
            form.extend([("client_id", &*self.id), ("client_secret", &*self.secret)]);
        } else {
            let pair = format!("{}:{}", encoded(&self.id), encoded(&self.secret));
            request = request.header(header::AUTHORIZATION, format!("Basic {}", STANDARD.encode(pair)));
        }
        let pairs: Vec<String> = form.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(pairs.join("&"));
        self.http.call(request, LONGEST).await.map_err(|error| Fault::Down(error.to_string()))
    }
}

/// An endpoint that wants to know who asks.
pub struct At<'a> {
    /// Its address.
    pub url: &'a str,
    /// Where it wants the client's credentials, if it has said so.
    pub credentials_in_body: Option<bool>,
}

fn judge(answer: Answer) -> Result<Answer, Fault> {
    let status = answer.status;
    if status.is_success() {
        // GitHub says no with status 200.
        return match error_word(&answer) {
            None => Ok(answer),
            Some(word) => Err(Fault::Refused(format!("status {}, {word}", status.as_u16()))),
        };
    }
    let why = format!("status {}, {}", status.as_u16(), error_word(&answer).unwrap_or("no word"));
    Err(if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
        Fault::Refused(why)
    } else {
        Fault::Broken(why)
    })
}

/// The `error` of an answer, if it is one that the standards know: what else a provider writes stays out of the log.
fn error_word(answer: &Answer) -> Option<&'static str> {
    let error = object(answer).ok()?.get("error")?.as_str()?.to_owned();
    Some(ERRORS.iter().copied().find(|known| *known == error).unwrap_or("another error"))
}

/// Words of RFC 6749 §4.1.2.1 and §5.2, OpenID Connect Core §3.1.2.6.
pub const ERRORS: &[&str] = &[
    "access_denied",
    "account_selection_required",
    "consent_required",
    "interaction_required",
    "invalid_client",
    "invalid_grant",
    "invalid_request",
    "invalid_scope",
    "invalid_token",
    "login_required",
    "server_error",
    "temporarily_unavailable",
    "unauthorized_client",
    "unsupported_grant_type",
    "unsupported_response_type",
];

fn grant(answer: Answer) -> Result<Grant, Fault> {
    let found = object(&answer)?;
    let text = |name: &str| found.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    // Only tokens that a header can carry, and only those that are used so (RFC 6749 §7.1).
    let usable = |token: &String| token.bytes().all(|byte| byte.is_ascii_graphic());
    let access = text("access_token").filter(usable);
    let access = access.ok_or_else(|| Fault::Broken("the answer has no access token".to_owned()))?;
    let expires_in_secs = found.get("expires_in").and_then(|value| match value {
        Value::String(text) => text.parse().ok(),
        value => super::id_token::seconds(value),
    });
    let expires_in_secs = expires_in_secs.filter(|seconds| *seconds > 0);
    Ok(Grant { access, refresh: text("refresh_token"), id_token: text("id_token"), expires_in_secs })
}

/// The answer as an object: JSON, or a form as older providers have it.
fn object(answer: &Answer) -> Result<Map<String, Value>, Fault> {
    let kind = answer.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let form = ["application/x-www-form-urlencoded", "text/plain"].iter().any(|form| kind.starts_with(form));
    if let Ok(Value::Object(object)) = serde_json::from_slice(&answer.body) {
        return Ok(object);
    }
    match std::str::from_utf8(&answer.body) {
        Ok(text) if form => {
            let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
            Ok(pairs.map(|(name, value)| (name.to_owned(), fields::decoded(value).into())).collect())
        }
        _ => Err(Fault::Broken("the answer is no JSON object".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn answer(status: u16, kind: &str, body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, kind.parse().expect("a value"));
        let status = StatusCode::from_u16(status).expect("a status");
        Answer { status, headers, body: body.to_owned().into() }
    }

    fn read(status: u16, kind: &str, body: &str) -> Result<Grant, Fault> {
        grant(judge(answer(status, kind, body))?)
    }

    #[test]
    fn answers_of_token_endpoints_are_read_as_they_come() {
        let json = "application/json;charset=UTF-8";
        let whole = Grant {
            access: "at".into(),
            refresh: Some("rt".into()),
            id_token: Some("a.b.c".into()),
            expires_in_secs: Some(60),
        };
        let body = r#"{"access_token":"at","refresh_token":"rt","id_token":"a.b.c","expires_in":60,"scope":"x"}"#;
        assert_eq!(read(200, json, body), Ok(whole));
        let bare = Grant { access: "at".into(), ..Grant::default() };
        for (description, kind, body) in [
            ("no more than a token", json, r#"{"access_token":"at","refresh_token":"","expires_in":null}"#),
            ("no end", json, r#"{"access_token":"at","expires_in":0}"#),
            ("a form", "application/x-www-form-urlencoded", "access_token=at&scope=user%3Aemail&token_type=bearer"),
            ("a form that says text", "text/plain; charset=utf-8", "access_token=at"),
        ] {
            assert_eq!(read(200, kind, body), Ok(bare.clone()), "{description}");
        }
        let text = r#"{"access_token":"at","expires_in":"3600"}"#;
        assert_eq!(read(200, json, text).map(|grant| grant.expires_in_secs), Ok(Some(3600)));
    }

    #[test]
    fn what_is_no_grant_says_whose_fault_it_is() {
        let json = "application/json";
        let refused = |why: &str| Err(Fault::Refused(why.to_owned()));
        let broken = |why: &str| Err(Fault::Broken(why.to_owned()));
        for (description, status, body, result) in [
            ("a used code", 400, r#"{"error":"invalid_grant"}"#, refused("status 400, invalid_grant")),
            ("GitHub", 200, r#"{"error":"bad_code"}"#, refused("status 200, another error")),
            ("unknown", 401, "<html>secret</html>", refused("status 401, no word")),
            ("a broken provider", 502, "<html>", broken("status 502, no word")),
            ("too many", 429, "{}", broken("status 429, no word")),
            ("no token", 200, "{}", broken("the answer has no access token")),
            ("a token for no header", 200, r#"{"access_token":"a\r\nb"}"#, broken("the answer has no access token")),
            ("no JSON", 200, "<html>", broken("the answer is no JSON object")),
        ] {
            assert_eq!(read(status, json, body), result, "{description}");
        }
    }
}
