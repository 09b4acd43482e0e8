//! Sets, removes and adds response headers, cookies and `Cache-Control`.
//!
//! Part of the shell: it applies to every response of the route, the gateway's own included (maintenance excepted). Policies
//! are ordered by the length of their first `paths` entry; later ones override earlier ones. `paths` are tested on the path
//! as the client asked for it and as the backend got it. Spec middlewares §5.20.
//!
//! ```yaml
//! - name: security-headers
//!   type: responseHeaders
//!   rule:
//!     setHeaders: { X-Frame-Options: DENY, X-Powered-By: "" }
//!     cacheControl: no-store
//! ```

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use http::{HeaderName, HeaderValue, header};
use pingora_http::ResponseHeader;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cors::{Cors, CorsSettings};
use super::shell::Answering;
use super::spelled::Spelled;
use super::{Part, Paths, Scope, Settings};
use crate::config::{Place, Problem};

/// Sets, removes and adds response headers, cookies and `Cache-Control`, and shares responses across origins. It counts for
/// every response of the route, the gateway's own included, wherever it stands in the list.
#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ResponseHeaders {
    /// Header values by name. An empty value removes the header; others are set on status 200 only (`Cache-Control`: always),
    /// or on `statuses`.
    set_headers: BTreeMap<String, String>,
    /// Statuses on which `setHeaders` counts (ours); empty: 200.
    statuses: Vec<u16>,
    /// Cookies to add, on every status.
    set_cookies: Vec<CookieSettings>,
    /// Replaces `Cache-Control`.
    cache_control: String,
    /// Statuses on which `cacheControl` counts; empty: all.
    cache_statuses: Vec<u16>,
    /// Cross-origin sharing for browsers.
    cors: Option<CorsSettings>,
}

#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", default)]
struct CookieSettings {
    /// Name of the cookie.
    name: String,
    /// Its value; empty removes the cookie.
    value: String,
    /// Where and how long it counts.
    attributes: Option<CookieAttributes>,
    /// Goma's own name of `attributes`; counts before it.
    attrs: Option<CookieAttributes>,
}

#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", default)]
struct CookieAttributes {
    /// Path that it is sent to. Empty: `/`.
    path: String,
    /// Domain that it is sent to. Empty: the host that set it.
    domain: String,
    /// Life in seconds; 0 until the browser closes, -1 removes the cookie.
    max_age: i64,
    /// Over TLS only.
    secure: bool,
    /// Hidden from scripts.
    http_only: bool,
    /// `strict`, `lax` (default) or `none`, which needs `secure`.
    same_site: String,
}

/// A built policy.
#[derive(Debug)]
pub struct Policy {
    paths: Paths,
    order: usize,
    headers: Vec<(Spelled, Option<HeaderValue>)>,
    statuses: Vec<u16>,
    cookies: Vec<Cookie>,
    cache_control: Option<HeaderValue>,
    cache_statuses: Vec<u16>,
    cors: Option<Cors>,
}

#[derive(Debug)]
struct Cookie {
    head: String,
    tail: String,
    lives: Option<Duration>,
}

impl Settings for ResponseHeaders {
    const KIND: &'static [&'static str] = &["responseHeaders"];
    const GUARDS: bool = false;
    const EXAMPLE: &'static str = include_str!("../../conf/examples/middlewares/responseHeaders.yml");

    fn doubts(&self, scope: &Scope<'_>) -> Vec<Problem> {
        let place = scope.place.child("rule").child("cors").child("enabled");
        let off = self.cors.as_ref().is_some_and(CorsSettings::is_idle);
        let doubt = || place.warning("is not true: nothing is shared across origins", "set `enabled: true`");
        off.then(doubt).into_iter().collect()
    }

    fn build(self, scope: &Scope<'_>) -> Result<Part, Vec<Problem>> {
        let place = scope.place.child("rule");
        let mut problems = Vec::new();
        let cors = self.cors.as_ref().map_or(Ok(None), |cors| cors.build(&place.child("cors")));
        let cors = cors.unwrap_or_else(|found| {
            problems.extend(found);
            None
        });
        if self.cors.is_none()
            && self.set_headers.is_empty()
            && self.set_cookies.is_empty()
            && self.cache_control.is_empty()
        {
            problems.push(place.error("nothing to do", "give `setHeaders`, `setCookies`, `cacheControl` or `cors`"));
        }
        let headers = self.headers(scope, &place, &mut problems);
        let cookies = cookies(&self.set_cookies, scope, &place, &mut problems);
        let cache_control = (scope.expand)(&self.cache_control);
        let cache_control = match HeaderValue::from_str(&cache_control) {
            Ok(value) => (!value.is_empty()).then_some(value),
            Err(_) => {
                problems.push(place.child("cacheControl").error("holds control characters", "use one plain line"));
                None
            }
        };
        for (key, statuses) in [("statuses", &self.statuses), ("cacheStatuses", &self.cache_statuses)] {
            for (index, status) in statuses.iter().enumerate().filter(|(_, s)| !(100..=599).contains(*s)) {
                let place = place.child(key).item(index);
                problems.push(place.error(format!("{status} is no HTTP status"), "use 100 to 599"));
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Part::Headers(Box::new(Policy {
            order: scope.paths.first_len(),
            paths: Paths::new(scope.paths.clone(), ""),
            headers,
            statuses: self.statuses,
            cookies,
            cache_control,
            cache_statuses: self.cache_statuses,
            cors,
        })))
    }
}

impl ResponseHeaders {
    fn headers(
        &self,
        scope: &Scope<'_>,
        place: &Place,
        problems: &mut Vec<Problem>,
    ) -> Vec<(Spelled, Option<HeaderValue>)> {
        let mut headers = Vec::new();
        for (name, value) in &self.set_headers {
            let place = place.child("setHeaders").child(name);
            let Ok(name) = HeaderName::try_from(name.trim()) else {
                problems.push(place.error(format!("`{name}` is no header name"), "use letters, digits and dashes"));
                continue;
            };
            if FRAMING.contains(&name) {
                problems.push(place.error(format!("`{name}` belongs to the connection"), "remove it"));
                continue;
            }
            match HeaderValue::from_str(&(scope.expand)(&route_values(value, scope))) {
                Ok(value) => headers.push((name.into(), (!value.is_empty()).then_some(value))),
                Err(_) => problems.push(place.error("the value holds control characters", "use one plain line")),
            }
        }
        headers
    }
}

/// Replaces `{route.name}` and its like; a target that the route does not have stays as written, as in Goma.
fn route_values(value: &str, scope: &Scope<'_>) -> String {
    let mut value = value
        .replace("{route.name}", scope.route)
        .replace("{route.path}", scope.route_path)
        .replace("{gateway.version}", env!("CARGO_PKG_VERSION"));
    if let Some(target) = scope.route_target {
        value = value.replace("{route.target}", target);
    }
    value
}

fn cookies(settings: &[CookieSettings], scope: &Scope<'_>, place: &Place, problems: &mut Vec<Problem>) -> Vec<Cookie> {
    let mut cookies = Vec::new();
    for (index, cookie) in settings.iter().enumerate() {
        let place = place.child("setCookies").item(index);
        let twice = settings[..index].iter().any(|earlier| earlier.name == cookie.name);
        match cookie.build((scope.expand)(&cookie.value)) {
            Ok(_) if twice => {
                let message = format!("the cookie `{}` is set twice", cookie.name);
                problems.push(place.child("name").error(message, "keep one of them"));
            }
            Ok(built) => cookies.push(built),
            Err((key, message, remedy)) => problems.push(place.child(key).error(message, remedy)),
        }
    }
    cookies
}

type CookieError = (&'static str, String, &'static str);

impl CookieSettings {
    fn build(&self, value: String) -> Result<Cookie, CookieError> {
        let none = CookieAttributes::default();
        let attributes = self.attrs.as_ref().or(self.attributes.as_ref()).unwrap_or(&none);
        let CookieAttributes { path, domain, max_age, secure, http_only, same_site } = attributes;
        if self.name.is_empty() || self.name.contains([' ', ',', ';', '\\', '\t', '\r', '\n', '=']) {
            return Err(("name", format!("`{}` is no cookie name", self.name), "use letters, digits and dashes"));
        }
        if value.contains(['\r', '\n', ';', ',']) || HeaderValue::from_str(&value).is_err() {
            return Err(("value", "holds characters that end a cookie".into(), "encode the value"));
        }
        if *max_age < -1 {
            return Err(("attributes.maxAge", format!("{max_age} is below -1"), "use -1 to remove the cookie"));
        }
        if !path.is_empty() && !path.starts_with('/') {
            return Err(("attributes.path", format!("`{path}` does not start with `/`"), "put a `/` in front"));
        }
        if domain.contains("://") || domain.contains('/') {
            return Err(("attributes.domain", format!("`{domain}` is no host name"), "give the bare host name"));
        }
        let same_site = match same_site.to_ascii_lowercase().as_str() {
            "" | "lax" => "Lax",
            "strict" => "Strict",
            "none" if *secure => "None",
            "none" => return Err(("attributes.sameSite", "`none` needs `secure`".into(), "set `secure: true`")),
            other => {
                return Err(("attributes.sameSite", format!("unknown value `{other}`"), "use strict, lax or none"));
            }
        };
        let gone = value.is_empty() || *max_age == -1;
        let value = if gone { String::new() } else { value };
        // A value with a space goes in quotes, as Goma writes it.
        let quote = if value.contains(' ') { "\"" } else { "" };
        let mut head = format!("{}={quote}{value}{quote}", self.name);
        head += &format!("; Path={}", if path.is_empty() { "/" } else { path });
        if !domain.is_empty() {
            head += &format!("; Domain={domain}");
        }
        let mut tail = String::new();
        if gone {
            tail += "; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0";
        } else if *max_age > 0 {
            tail += &format!("; Max-Age={max_age}");
        }
        tail += if *http_only { "; HttpOnly" } else { "" };
        tail += if *secure { "; Secure" } else { "" };
        tail += &format!("; SameSite={same_site}");
        let lives = (!gone && *max_age > 0).then(|| Duration::from_secs(max_age.unsigned_abs()));
        Ok(Cookie { head, tail, lives })
    }
}

impl Cookie {
    fn value(&self) -> Option<HeaderValue> {
        let text = match self.lives.and_then(|lives| SystemTime::now().checked_add(lives)) {
            Some(end) => format!("{}; Expires={}{}", self.head, httpdate::fmt_http_date(end), self.tail),
            None => format!("{}{}", self.head, self.tail),
        };
        HeaderValue::from_str(&text).ok()
    }
}

impl Policy {
    /// Where it stands among the policies of a route.
    pub fn order(&self) -> usize {
        self.order
    }

    /// Whether it depends on the path.
    pub fn has_paths(&self) -> bool {
        !self.paths.is_empty()
    }

    /// Whether it counts for a raw path.
    pub fn takes(&self, raw: &str) -> bool {
        self.paths.take(raw)
    }

    /// Its rules of cross-origin sharing.
    pub fn cors(&self) -> Option<&Cors> {
        self.cors.as_ref()
    }

    /// Changes the head of a response.
    pub fn apply(&self, answering: &Answering<'_>, head: &mut ResponseHeader) {
        if let Some(cors) = &self.cors {
            cors.apply(answering.origin, answering.proxied, head);
        }
        let status = head.status.as_u16();
        let counts = if self.statuses.is_empty() { status == 200 } else { self.statuses.contains(&status) };
        for (name, value) in &self.headers {
            match value {
                None => {
                    head.remove_header(&name.name);
                }
                Some(value) if counts || name.name == header::CACHE_CONTROL => {
                    name.set(head, value.clone());
                }
                Some(_) => {}
            }
        }
        for value in self.cookies.iter().filter_map(Cookie::value) {
            let _ = head.append_header(header::SET_COOKIE, value);
        }
        if let Some(value) = &self.cache_control
            && (self.cache_statuses.is_empty() || self.cache_statuses.contains(&status))
        {
            let _ = head.insert_header(header::CACHE_CONTROL, value.clone());
        }
    }
}

/// Headers that frame a message: not for configuration.
const FRAMING: [HeaderName; 5] =
    [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::TRAILER, header::CONNECTION, header::UPGRADE];

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(value: &str, attributes: CookieAttributes) -> Result<String, CookieError> {
        let attributes = Some(attributes);
        let settings = CookieSettings { name: "c".into(), value: value.into(), attributes, attrs: None };
        let built = settings.build(value.to_owned())?;
        Ok(built.value().expect("plain text").to_str().expect("plain text").to_owned())
    }

    #[test]
    fn cookies_are_written_as_browsers_expect() {
        let plain = cookie("v", CookieAttributes::default()).expect("valid");
        assert_eq!(plain, "c=v; Path=/; SameSite=Lax");
        assert!(cookie("a b", CookieAttributes::default()).expect("valid").starts_with("c=\"a b\"; "));
        let gone = cookie("", CookieAttributes::default()).expect("valid");
        assert_eq!(gone, "c=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; SameSite=Lax");
        let lives = CookieAttributes { max_age: 60, secure: true, same_site: "None".into(), ..Default::default() };
        let lives = cookie("v", lives).expect("valid");
        assert!(lives.contains("; Expires=") && lives.ends_with("; Max-Age=60; Secure; SameSite=None"), "{lives}");
    }

    #[test]
    fn cookies_that_browsers_would_misread_are_refused() {
        for (value, attributes, key) in [
            ("a;b", CookieAttributes::default(), "value"),
            ("v", CookieAttributes { same_site: "none".into(), ..Default::default() }, "attributes.sameSite"),
            ("v", CookieAttributes { path: "x".into(), ..Default::default() }, "attributes.path"),
            ("v", CookieAttributes { max_age: -2, ..Default::default() }, "attributes.maxAge"),
        ] {
            assert_eq!(cookie(value, attributes).map_err(|e| e.0), Err(key));
        }
    }
}
