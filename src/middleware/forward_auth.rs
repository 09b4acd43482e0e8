//! Asks another server whether a request may pass. Spec middlewares §5.9.
//!
//! The server gets a `GET` without a body and with a fixed set of headers that tell about the request; redirects are not
//! followed, since a login page answers 200 to anybody. Headers that the server sets about the user are removed from the
//! client's request first. A server that cannot be reached means 503, never a pass.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::auth::{Guard, is_of_connection, unavailable};
use super::redirects::to;
use super::remember::{Digest, Remember};
use super::spelled::Spelled;
use super::{Flow, Middleware, Part, Scope, Settings, Verdict};
use crate::config::{Place, Problem, units};
use crate::exchange::Exchange;
use crate::fields;
use crate::outbound::{Asker, CallError, Verify};
use crate::reply::Reply;

/// Asks another server whether a request may pass: 200 lets it through. Without `paths` the whole route is protected.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ForwardAuth {
    /// URL that is asked, as it is: `http://auth:9000/verify`.
    auth_url: String,
    /// Where a browser goes when the server says 401; when it holds a `?`, the address that was asked for is appended,
    /// percent-encoded.
    auth_sign_in: String,
    /// Whether the server gets the client's `Host` instead of its own. Default false.
    #[serde(alias = "enableHostForwarding")]
    forward_host_headers: bool,
    /// Whether the server's certificate is taken without a look. Default false.
    #[serde(alias = "skipInsecureVerify")]
    insecure_skip_verify: bool,
    /// Further request headers for the server.
    auth_request_headers: Vec<String>,
    /// Headers of its answer that the backend gets: `Name`, or `Name:Other` to rename.
    auth_response_headers: Vec<String>,
    /// Headers of its answer that the backend gets as query parameters: `Name`, or `Name:parameter`.
    auth_response_headers_as_params: Vec<String>,
    /// Names of cookies of its answer that the client gets; empty: all.
    add_auth_cookies_to_response: Vec<String>,
    /// Whether any 2xx lets a request through. Default false: 200 alone.
    allow_any_success: bool,
    /// How long the server may take: `500ms`, `10s`. Default `10s`.
    timeout: String,
    /// How long a pass is remembered: `5s`. Default: not at all.
    cache_ttl: String,
    /// Headers that tell requests apart for that. Default `Authorization`, `Cookie` and those of `authRequestHeaders`; method,
    /// address with its query, and the client's IP always count.
    cache_headers: Vec<String>,
}

impl Default for ForwardAuth {
    fn default() -> ForwardAuth {
        ForwardAuth {
            auth_url: String::new(),
            auth_sign_in: String::new(),
            forward_host_headers: false,
            insecure_skip_verify: false,
            auth_request_headers: Vec::new(),
            auth_response_headers: Vec::new(),
            auth_response_headers_as_params: Vec::new(),
            add_auth_cookies_to_response: Vec::new(),
            allow_any_success: false,
            timeout: "10s".into(),
            cache_ttl: String::new(),
            cache_headers: Vec::new(),
        }
    }
}

impl Settings for ForwardAuth {
    const KIND: &'static [&'static str] = &["forwardAuth"];
    const GUARDS: bool = true;
    const EXAMPLE: &'static str = include_str!("../../conf/examples/middlewares/forwardAuth.yml");

    fn build(self, scope: &Scope<'_>) -> Result<Part, Vec<Problem>> {
        let place = scope.place.child("rule");
        let mut problems = Vec::new();
        let url = self.url(&place, &mut problems);
        let copied: Vec<(HeaderName, Spelled)> = pairs(&self.auth_response_headers)
            .enumerate()
            .filter_map(|(index, (from, to))| {
                let place = place.child("authResponseHeaders").item(index);
                Some((name(from, &place, &mut problems)?, name(to, &place, &mut problems)?.into()))
            })
            .collect();
        let params = pairs(&self.auth_response_headers_as_params)
            .enumerate()
            .filter_map(|(index, (from, to))| {
                let place = place.child("authResponseHeadersAsParams").item(index);
                Some((name(from, &place, &mut problems)?, to.into()))
            })
            .collect();
        for (index, (_, to)) in copied.iter().enumerate().filter(|(_, (_, to))| is_of_connection(&to.name)) {
            let message = format!("`{}` belongs to the connection", to.name);
            problems.push(place.child("authResponseHeaders").item(index).error(message, "use another name"));
        }
        let mut asked = names(&self.auth_request_headers, &place.child("authRequestHeaders"), &mut problems);
        asked.retain(|name| !is_of_connection(name));
        let mut keyed = names(&self.cache_headers, &place.child("cacheHeaders"), &mut problems);
        if keyed.is_empty() {
            keyed = [header::AUTHORIZATION, header::COOKIE].into_iter().chain(asked.iter().cloned()).collect();
        }
        let timeout = duration(&self.timeout, &place.child("timeout"), &mut problems);
        let ttl = duration(&self.cache_ttl, &place.child("cacheTtl"), &mut problems);
        let verify = if self.insecure_skip_verify { Verify::Nothing } else { Verify::System };
        let client = Asker::get(verify).map_err(|error| problems.push(place.error(error, "check the system's TLS")));
        if !self.auth_sign_in.is_empty() && HeaderValue::from_str(&self.auth_sign_in).is_err() {
            problems.push(place.child("authSignIn").error("holds control characters", "use one URL"));
        }
        let (Some((url, login)), Ok(client), true) = (url, client, problems.is_empty()) else { return Err(problems) };
        Ok(Part::Step(Arc::new(Ask {
            guard: Guard::new(scope, ForwardAuth::KIND[0]),
            identity: copied.iter().map(|(_, to)| to.name.clone()).collect(),
            url,
            login,
            client,
            sign_in: self.auth_sign_in,
            forward_host: self.forward_host_headers,
            any_success: self.allow_any_success,
            timeout: timeout.unwrap_or(Duration::from_secs(10)),
            memory: ttl.map(|ttl| Memory { keyed, passes: Remember::new(ttl) }),
            asked,
            copied,
            params,
            cookies: self.add_auth_cookies_to_response,
        })))
    }
}

impl ForwardAuth {
    /// What is asked, and the login that the URL carries, which counts where the client has none.
    fn url(&self, place: &Place, problems: &mut Vec<Problem>) -> Option<(Uri, Option<HeaderValue>)> {
        let place = place.child("authUrl");
        if self.auth_url.is_empty() {
            problems.push(place.error("is missing", "name the URL to ask"));
            return None;
        }
        let url = reqwest::Url::parse(&self.auth_url).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let asked = url.and_then(|mut url| {
            let login = login(&url);
            // Of such a URL neither fails.
            let _ = (url.set_username(""), url.set_password(None));
            url.set_fragment(None);
            Some((Uri::try_from(url.as_str()).ok()?, login))
        });
        if asked.is_none() {
            problems
                .push(place.error(format!("`{}` is no URL", self.auth_url), "write http:// or https:// and a host"));
        }
        asked
    }
}

/// `Authorization` of the user that a URL names.
fn login(url: &reqwest::Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let pair = format!("{}:{}", plain(url.username()), plain(url.password().unwrap_or_default()));
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// `Src` and `Src:Dst` entries; spaces do not count.
fn pairs(entries: &[String]) -> impl Iterator<Item = (String, String)> {
    entries.iter().map(|entry| {
        let entry = entry.replace(' ', "");
        match entry.split_once(':') {
            Some((from, to)) if !to.is_empty() => (from.to_owned(), to.to_owned()),
            _ => (entry.trim_end_matches(':').to_owned(), entry.trim_end_matches(':').to_owned()),
        }
    })
}

fn name(text: String, place: &Place, problems: &mut Vec<Problem>) -> Option<HeaderName> {
    let name = HeaderName::try_from(text.trim());
    name.map_err(|_| {
        problems.push(place.error(format!("`{text}` is no header name"), "use letters, digits and dashes"))
    })
    .ok()
}

fn names(texts: &[String], place: &Place, problems: &mut Vec<Problem>) -> Vec<HeaderName> {
    let name = |(index, text): (usize, &String)| name(text.clone(), &place.item(index), problems);
    texts.iter().enumerate().filter_map(name).collect()
}

fn duration(text: &str, place: &Place, problems: &mut Vec<Problem>) -> Option<Duration> {
    if text.is_empty() {
        return None;
    }
    match units::duration(text) {
        Ok(duration) if !duration.is_zero() => Some(duration),
        _ => {
            problems.push(place.error(format!("`{text}` is no duration"), "write 500ms, 10s or 1m"));
            None
        }
    }
}

/// The step.
struct Ask {
    guard: Guard,
    url: Uri,
    login: Option<HeaderValue>,
    client: Asker,
    sign_in: String,
    forward_host: bool,
    any_success: bool,
    timeout: Duration,
    asked: Vec<HeaderName>,
    copied: Vec<(HeaderName, Spelled)>,
    identity: Vec<HeaderName>,
    params: Vec<(HeaderName, Box<str>)>,
    cookies: Vec<String>,
    memory: Option<Memory>,
}

impl Middleware for Ask {
    fn request<'a>(&'a self, exchange: &'a mut Exchange, head: &'a mut RequestHeader) -> Flow<'a> {
        if !self.guard.takes(exchange) {
            return Flow::Next;
        }
        // Which of them would the backend believe?
        if head.headers.get_all(header::AUTHORIZATION).iter().nth(1).is_some() {
            return Flow::Reply(self.guard.deny("malformed", Reply::plain(StatusCode::UNAUTHORIZED)));
        }
        let key = self.memory.as_ref().map(|memory| memory.digest(exchange, head));
        if let (Some(memory), Some(key)) = (&self.memory, &key)
            && let Some(pass) = memory.passes.recall(key)
        {
            self.passes(&pass, exchange, head);
            return Flow::Next;
        }
        Flow::Wait(Box::pin(async move {
            let answer = match self.ask(exchange, head).await {
                Ok(answer) => answer,
                Err(error) => {
                    log::warn!(middleware = self.guard.name(); "Forward authentication failed: {error}");
                    return Flow::Reply(self.guard.fail("unreachable", unavailable()));
                }
            };
            if answer.status != StatusCode::OK && !(self.any_success && answer.status.is_success()) {
                return Flow::Reply(self.refuses(&answer, exchange));
            }
            let pass = Arc::new(self.pass(answer.headers));
            self.passes(&pass, exchange, head);
            if let (Some(memory), Some(key), true) = (&self.memory, key, pass.cookies.is_empty()) {
                memory.passes.keep(key, pass);
            }
            Flow::Next
        }))
    }

    fn identity(&self) -> &[HeaderName] {
        &self.identity
    }
}

/// What the server said.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
}

/// What of an answer that lets requests through is used.
struct Pass {
    headers: Vec<HeaderValue>,
    params: Vec<String>,
    cookies: Vec<HeaderValue>,
}

impl Ask {
    async fn ask(&self, exchange: &Exchange, head: &RequestHeader) -> Result<Answer, CallError> {
        let started = Instant::now();
        let answer = self.client.ask(&self.url, self.tells(exchange, head), self.timeout).await;
        self.guard.called(started);
        answer.map(|(status, headers)| Answer { status, headers })
    }

    /// The headers that tell the server about the request.
    fn tells(&self, exchange: &Exchange, head: &RequestHeader) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let url = address(exchange);
        let client = exchange.client.to_string();
        let host = exchange.host.clone();
        for (name, text) in [
            ("x-forwarded-host", &*host),
            ("x-forwarded-method", exchange.method.as_str()),
            ("x-forwarded-proto", exchange.scheme),
            ("x-forwarded-for", &*client),
            ("x-real-ip", &*client),
            ("x-forwarded-uri", &*url),
            ("x-original-url", &*url),
        ] {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        }
        let cookies: Vec<&[u8]> = head.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let (false, Ok(cookies)) = (cookies.is_empty(), HeaderValue::from_bytes(&cookies.join(&b"; "[..]))) {
            headers.insert(header::COOKIE, cookies);
        }
        for name in [header::USER_AGENT, header::AUTHORIZATION].iter().chain(&self.asked) {
            // What the gateway itself says counts, whatever the client says under that name.
            if headers.contains_key(name) {
                continue;
            }
            // Every line that the backend will get: the server must not judge by one and the backend act by another.
            for value in head.headers.get_all(name).iter().filter(|value| !value.is_empty()) {
                headers.append(name, value.clone());
            }
        }
        if let Some(login) = self.login.as_ref().filter(|_| !headers.contains_key(header::AUTHORIZATION)) {
            headers.insert(header::AUTHORIZATION, login.clone());
        }
        if self.forward_host
            && let Ok(host) = HeaderValue::from_str(&host)
        {
            headers.insert(header::HOST, host);
        }
        headers
    }

    fn refuses(&self, answer: &Answer, exchange: &Exchange) -> Verdict {
        let relayed = |reply: Reply| {
            let challenges = answer.headers.get_all(header::WWW_AUTHENTICATE).iter().cloned();
            challenges.fold(reply, |reply, challenge| reply.header(header::WWW_AUTHENTICATE, challenge))
        };
        match answer.status {
            StatusCode::UNAUTHORIZED if !self.sign_in.is_empty() => {
                self.guard.deny("sign_in", self.to_sign_in(exchange))
            }
            StatusCode::UNAUTHORIZED => self.guard.deny("unauthorized", relayed(Reply::plain(answer.status))),
            StatusCode::FORBIDDEN => self.guard.deny("forbidden", relayed(Reply::plain(answer.status))),
            StatusCode::INTERNAL_SERVER_ERROR => self.guard.fail("server_error", Reply::plain(answer.status)),
            status if status.is_redirection() => self.guard.deny("redirected", Reply::plain(StatusCode::UNAUTHORIZED)),
            _ => self.guard.deny("unexpected_status", Reply::plain(StatusCode::UNAUTHORIZED)),
        }
    }

    fn to_sign_in(&self, exchange: &Exchange) -> Reply {
        let mut location = self.sign_in.clone();
        if location.contains('?') {
            location.extend(utf8_percent_encode(&address(exchange), QUERY));
        }
        to(StatusCode::FOUND, &location, exchange).unwrap_or_else(|| Reply::plain(StatusCode::UNAUTHORIZED))
    }

    fn pass(&self, headers: HeaderMap) -> Pass {
        let value = |name: &HeaderName| headers.get(name).cloned().unwrap_or_else(|| HeaderValue::from_static(""));
        let text = |name| String::from_utf8_lossy(value(name).as_bytes()).into_owned();
        let wanted = |cookie: &&HeaderValue| {
            let name = cookie.as_bytes().split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
            self.cookies.is_empty() || self.cookies.iter().any(|listed| listed.as_bytes() == name)
        };
        Pass {
            headers: self.copied.iter().map(|(from, _)| value(from)).collect(),
            params: self.params.iter().map(|(from, _)| text(from)).collect(),
            cookies: headers.get_all(header::SET_COOKIE).iter().filter(wanted).cloned().collect(),
        }
    }

    fn passes(&self, pass: &Pass, exchange: &mut Exchange, head: &mut RequestHeader) {
        for ((_, to), value) in self.copied.iter().zip(&pass.headers) {
            to.ask(head, value.clone());
        }
        if !self.params.is_empty() {
            let added = self.params.iter().map(|(_, name)| &**name).zip(pass.params.iter().map(String::as_str));
            exchange.query = Some(with_parameters(exchange.query.as_deref().unwrap_or_default(), added));
        }
        exchange.cookies.extend(pass.cookies.iter().cloned());
        self.guard.allow();
    }
}

/// The address that the client asked for.
fn address(exchange: &Exchange) -> String {
    let mut url = format!("{}://{}{}", exchange.scheme, exchange.host, exchange.path);
    if let Some(query) = &exchange.query {
        url.push('?');
        url.push_str(query);
    }
    url
}

/// What a value of a query may hold as it is.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The query with parameters set, in Goma's form: sorted by name, encoded anew.
fn with_parameters<'a>(query: &str, added: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let added: Vec<(&str, &str)> = added.collect();
    let set: BTreeSet<&str> = added.iter().map(|(name, _)| *name).collect();
    let old = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let old = old.map(|(name, value)| (fields::decoded(name).into_owned(), fields::decoded(value).into_owned()));
    let mut pairs: Vec<(String, String)> = old.filter(|(name, _)| !set.contains(&**name)).collect();
    pairs.extend(added.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    let encode = |text: &str| utf8_percent_encode(text, QUERY).to_string().replace("%20", "+");
    pairs.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect::<Vec<_>>().join("&")
}

/// Passes that are remembered, and what tells requests apart for that.
struct Memory {
    keyed: Vec<HeaderName>,
    passes: Remember<Arc<Pass>>,
}

impl Memory {
    fn digest(&self, exchange: &Exchange, head: &RequestHeader) -> Digest {
        let query = exchange.query.as_deref();
        let client = exchange.client.to_string();
        let about = [
            exchange.method.as_str(),
            exchange.scheme,
            &exchange.host,
            &exchange.path,
            if query.is_some() { "?" } else { "" },
            query.unwrap_or_default(),
            &client,
        ];
        let mut parts: Vec<&[u8]> = about.iter().map(|part| part.as_bytes()).collect();
        for name in &self.keyed {
            // What ends a name's values is no value of a header, so that none reads as the next name.
            parts.push(b"\0");
            parts.extend(head.headers.get_all(name).iter().map(HeaderValue::as_bytes));
        }
        self.passes.digest(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_replace_those_of_the_client() {
        for (query, expected) in [
            ("", "user=ann+b"),
            ("user=root&b=2&a=1", "a=1&b=2&user=ann+b"),
            ("us%65r=root&flag&user=x", "flag=&user=ann+b"),
            ("q=a%26b", "q=a%26b&user=ann+b"),
        ] {
            assert_eq!(with_parameters(query, [("user", "ann b")].into_iter()), expected, "{query}");
        }
    }

    #[test]
    fn entries_may_rename() {
        let entries = ["X-User".to_owned(), "X-User : Remote-User".to_owned(), "X-A:".to_owned()];
        let found: Vec<_> = pairs(&entries).collect();
        let expected = [("X-User", "X-User"), ("X-User", "Remote-User"), ("X-A", "X-A")];
        assert_eq!(found, expected.map(|(from, to)| (from.to_owned(), to.to_owned())));
    }
}
