//! Cross-origin resource sharing: which origins may read responses, and what a preflight may be told.
//!
//! Serves the `cors` object of `responseHeaders` and the older `cors` sections of routes and gateway. A preflight is
//! answered before any other middleware looks at the request, since browsers send it without credentials. The gateway's
//! word replaces the backend's, and `Vary: Origin` keeps caches from mixing origins (Fetch standard, "CORS protocol and
//! HTTP caches"). Spec middlewares §4.6, §5.20.1, §6.3, W-33.

use std::collections::{BTreeMap, HashSet};

use http::{HeaderName, HeaderValue, Method, header};
use pingora_http::{RequestHeader, ResponseHeader};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::spelled::Spelled;
use crate::config::{Cors as Older, Place, Problem};

/// Cross-origin sharing of one `responseHeaders`.
#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct CorsSettings {
    /// Whether the rest counts. Default false.
    enabled: bool,
    /// Origins that may read: `https://app.example.com`, `https://*.example.com` (not the bare domain), or `*` alone.
    origins: Vec<String>,
    /// Request headers that scripts may set; empty: those that the browser asks for.
    allowed_headers: Vec<String>,
    /// Methods that scripts may use; empty: the one that the browser asks for.
    allow_methods: Vec<String>,
    /// Response headers that scripts may see.
    expose_headers: Vec<String>,
    /// Further headers for responses to these origins; an empty value removes one.
    headers: BTreeMap<String, String>,
    /// How long a browser may remember a preflight, in seconds, 0 to 86400. Default 0: not sent.
    max_age: i64,
    /// Whether cookies and other credentials may be sent along. Default false; not with the origin `*`.
    allow_credentials: bool,
}

/// What a client says about where it comes from: read before any middleware may change it.
#[derive(Clone, Debug)]
pub struct Asked {
    origin: HeaderValue,
    headers: Option<HeaderValue>,
    method: Option<HeaderValue>,
}

impl Asked {
    /// Reads it; `None` for a request that says nothing.
    pub fn of(head: &RequestHeader) -> Option<Box<Asked>> {
        let origin = head.headers.get(header::ORIGIN).filter(|origin| !origin.is_empty())?.clone();
        let headers = head.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
        let method = head.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD).cloned();
        Some(Box::new(Asked { origin, headers, method }))
    }

    /// Where it comes from, as it says.
    pub fn origin(&self) -> &HeaderValue {
        &self.origin
    }
}

/// Compiled rules of sharing.
#[derive(Debug)]
pub struct Cors {
    origins: Vec<Origin>,
    credentials: bool,
    allow_headers: Option<HeaderValue>,
    allow_methods: Option<HeaderValue>,
    expose_headers: Option<HeaderValue>,
    max_age: Option<HeaderValue>,
    headers: Vec<(Spelled, Option<HeaderValue>)>,
    /// Whether `headers` go on every proxied response, whoever asked: so in the older sections.
    for_all: bool,
}

/// An origin of the list.
#[derive(Debug, PartialEq, Eq)]
enum Origin {
    Any,
    Exact(String),
    /// Sub-domains of a domain (in lower case, with its dot), with one scheme or any.
    Under(Option<String>, String),
}

impl Origin {
    fn new(text: &str) -> Origin {
        let text = text.trim().trim_end_matches('/').to_ascii_lowercase();
        let (scheme, host) = text.split_once("://").map_or((None, &*text), |(scheme, host)| (Some(scheme), host));
        match host.strip_prefix('*') {
            Some("") if scheme.is_none() => Origin::Any,
            Some(domain) if domain.starts_with('.') => {
                Origin::Under(scheme.map(str::to_owned), without_port(domain).to_owned())
            }
            _ => Origin::Exact(text),
        }
    }

    /// `asked` is in lower case.
    fn takes(&self, asked: &str) -> bool {
        match self {
            Origin::Any => true,
            Origin::Exact(origin) => asked == origin,
            Origin::Under(scheme, domain) => asked.split_once("://").is_some_and(|(given, host)| {
                let host = without_port(host);
                scheme.as_ref().is_none_or(|scheme| scheme == given)
                    && host.ends_with(&**domain)
                    && host.len() > domain.len()
            }),
        }
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => host,
    }
}

impl Cors {
    /// Compiles the older section of a route, with the methods that the route lists. `None` when it is off or empty.
    pub fn older(cors: &Older, methods: &[String], place: &Place) -> Result<Option<Cors>, Vec<Problem>> {
        if !cors.enabled || cors.is_empty() {
            return Ok(None);
        }
        let mut problems = Vec::new();
        let mut allow_methods = cors.allow_methods.clone();
        for method in methods {
            if !allow_methods.contains(method) {
                allow_methods.push(method.clone());
            }
        }
        let built = Cors {
            origins: cors.origins.iter().map(|origin| Origin::new(origin)).collect(),
            credentials: cors.allow_credentials,
            allow_headers: joined(&cors.allowed_headers, &place.child("allowedHeaders"), &mut problems),
            allow_methods: joined(&allow_methods, &place.child("allowMethods"), &mut problems),
            expose_headers: joined(&cors.expose_headers, &place.child("exposeHeaders"), &mut problems),
            max_age: (cors.max_age > 0).then(|| HeaderValue::from(cors.max_age)),
            headers: fixed(&cors.headers, &place.child("headers"), &mut problems),
            for_all: true,
        };
        if problems.is_empty() { Ok(Some(built)) } else { Err(problems) }
    }

    /// What older sections let through and browsers refuse, as warnings.
    pub fn doubts(cors: &Older, place: &Place) -> Vec<Problem> {
        let any = cors.origins.iter().any(|origin| Origin::new(origin) == Origin::Any);
        let doubt = || {
            let message =
                "with the origin `*` would open the users' sessions to every site: credentials are not allowed";
            place.child("allowCredentials").warning(message, "list the origins that need them")
        };
        (cors.enabled && cors.allow_credentials && any).then(doubt).into_iter().collect()
    }

    /// Whether this client's origin may read.
    pub fn lets_in(&self, asked: &Asked) -> bool {
        let Ok(origin) = asked.origin.to_str() else { return false };
        let origin = origin.to_ascii_lowercase();
        self.origins.iter().any(|known| known.takes(&origin))
    }

    /// Sets the headers on a response. `proxied`: the request passed the chain.
    pub fn apply(&self, asked: Option<&Asked>, proxied: bool, head: &mut ResponseHeader) {
        vary(head);
        let Some(asked) = asked.filter(|asked| self.lets_in(asked)) else {
            if self.for_all && proxied {
                self.further(head);
            }
            return;
        };
        set(head, header::ACCESS_CONTROL_ALLOW_ORIGIN, "Access-Control-Allow-Origin", Some(&asked.origin));
        let credentials = (self.credentials && !self.by_wildcard(asked)).then(|| HeaderValue::from_static("true"));
        set(head, header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "Access-Control-Allow-Credentials", credentials.as_ref());
        let headers = self.allow_headers.as_ref().or(asked.headers.as_ref());
        set(head, header::ACCESS_CONTROL_ALLOW_HEADERS, "Access-Control-Allow-Headers", headers);
        let methods = self.allow_methods.as_ref().or(asked.method.as_ref());
        set(head, header::ACCESS_CONTROL_ALLOW_METHODS, "Access-Control-Allow-Methods", methods);
        let expose = self.expose_headers.as_ref();
        set(head, header::ACCESS_CONTROL_EXPOSE_HEADERS, "Access-Control-Expose-Headers", expose);
        set(head, header::ACCESS_CONTROL_MAX_AGE, "Access-Control-Max-Age", self.max_age.as_ref());
        if !self.for_all || proxied {
            self.further(head);
        }
    }

    /// Whether only `*` lets the origin in; then it gets no credentials.
    fn by_wildcard(&self, asked: &Asked) -> bool {
        let origin = asked.origin.to_str().unwrap_or_default().to_ascii_lowercase();
        !self.origins.iter().any(|known| *known != Origin::Any && known.takes(&origin))
    }

    fn further(&self, head: &mut ResponseHeader) {
        for (name, value) in &self.headers {
            match value {
                Some(value) => name.set(head, value.clone()),
                None => drop(head.remove_header(&name.name)),
            }
        }
    }
}

/// The gateway's value takes the place of the backend's; none removes it.
fn set(head: &mut ResponseHeader, name: HeaderName, spelled: &'static str, value: Option<&HeaderValue>) {
    match value {
        Some(value) => drop(head.insert_header(spelled, value.clone())),
        None => drop(head.remove_header(&name)),
    }
}

/// Says that the response differs by origin.
fn vary(head: &mut ResponseHeader) {
    let lines = head.headers.get_all(header::VARY).iter().filter_map(|line| line.to_str().ok());
    let mut fields = lines.flat_map(|line| line.split(',')).map(str::trim);
    if !fields.any(|field| field == "*" || field.eq_ignore_ascii_case("origin")) {
        let _ = head.append_header("Vary", HeaderValue::from_static("Origin"));
    }
}

fn joined(values: &[String], place: &Place, problems: &mut Vec<Problem>) -> Option<HeaderValue> {
    if values.is_empty() {
        return None;
    }
    let value = HeaderValue::try_from(values.join(", "));
    value.map_err(|_| problems.push(place.error("holds control characters", "use plain names"))).ok()
}

fn fixed(
    headers: &BTreeMap<String, String>,
    place: &Place,
    problems: &mut Vec<Problem>,
) -> Vec<(Spelled, Option<HeaderValue>)> {
    let mut fixed = Vec::new();
    for (name, value) in headers {
        match (HeaderName::try_from(name.trim()), HeaderValue::from_str(value)) {
            (Ok(name), Ok(value)) => fixed.push((name.into(), (!value.is_empty()).then_some(value))),
            (Err(_), _) => problems
                .push(place.child(name).error(format!("`{name}` is no header name"), "use letters, digits and dashes")),
            _ => problems.push(place.child(name).error("the value holds control characters", "use one plain line")),
        }
    }
    fixed
}

impl CorsSettings {
    /// Whether there are origins that nobody switched on.
    pub fn is_idle(&self) -> bool {
        !self.enabled && !self.origins.is_empty()
    }

    /// Checks the settings and compiles them; `None` when they are switched off.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn build(&self, place: &Place) -> Result<Option<Cors>, Vec<Problem>> {
        if !self.enabled {
            return Ok(None);
        }
        let mut problems = Vec::new();
        let origins = self.origins(place, &mut problems);
        let methods = self.methods(place, &mut problems);
        for (key, names) in [("allowedHeaders", &self.allowed_headers), ("exposeHeaders", &self.expose_headers)] {
            unique_names(names, &place.child(key), &mut problems);
        }
        if self.allow_credentials && self.expose_headers.iter().any(|name| name == "*") {
            let place = place.child("exposeHeaders");
            problems.push(place.error("`*` has no effect with `allowCredentials`", "list the headers"));
        }
        if self.allow_credentials && origins.contains(&Origin::Any) {
            let message = "every site could read with the users' credentials";
            problems.push(place.child("origins").error(message, "list the origins, or drop `allowCredentials`"));
        }
        if !(0..=86_400).contains(&self.max_age) {
            let message = format!("{} is out of range", self.max_age);
            problems.push(place.child("maxAge").error(message, "use 0 to 86400 seconds"));
        }
        let mut headers = self.headers.clone();
        headers.retain(|name, _| !name.trim().eq_ignore_ascii_case("access-control-allow-origin"));
        let built = Cors {
            origins,
            credentials: self.allow_credentials,
            allow_headers: joined(&self.allowed_headers, &place.child("allowedHeaders"), &mut problems),
            allow_methods: joined(&methods, &place.child("allowMethods"), &mut problems),
            expose_headers: joined(&self.expose_headers, &place.child("exposeHeaders"), &mut problems),
            max_age: (self.max_age > 0).then(|| HeaderValue::from(self.max_age)),
            headers: fixed(&headers, &place.child("headers"), &mut problems),
            for_all: false,
        };
        if problems.is_empty() { Ok(Some(built)) } else { Err(problems) }
    }

    fn origins(&self, place: &Place, problems: &mut Vec<Problem>) -> Vec<Origin> {
        let place = place.child("origins");
        if self.origins.is_empty() {
            problems
                .push(place.error("are missing", "list the origins that may read, such as https://app.example.com"));
        }
        let mut seen = HashSet::new();
        let mut origins = Vec::new();
        for (index, text) in self.origins.iter().enumerate() {
            let origin = Origin::new(text);
            let cleaned = text.trim().trim_end_matches('/').to_ascii_lowercase();
            if !is_origin(&cleaned) {
                let remedy = "write scheme://host or scheme://host:port, or `*` alone";
                problems.push(place.item(index).error(format!("`{text}` is no origin"), remedy));
            } else if !seen.insert(cleaned) {
                problems.push(place.item(index).error(format!("`{text}` is listed twice"), "keep one of them"));
            } else {
                origins.push(origin);
            }
        }
        if origins.contains(&Origin::Any) && origins.len() > 1 {
            problems.push(place.error("`*` stands with others", "keep `*` alone, or list origins"));
        }
        origins
    }

    /// `OPTIONS` needs no mention: preflights are always answered.
    fn methods(&self, place: &Place, problems: &mut Vec<Problem>) -> Vec<String> {
        let place = place.child("allowMethods");
        let mut methods: Vec<String> = Vec::new();
        for (index, text) in self.allow_methods.iter().enumerate() {
            let method = text.trim().to_ascii_uppercase();
            if !METHODS.contains(&&*method) {
                problems
                    .push(place.item(index).error(format!("unknown method `{text}`"), "use GET, POST and the like"));
            } else if methods.contains(&method) {
                problems.push(place.item(index).error(format!("`{method}` is listed twice"), "keep one of them"));
            } else {
                methods.push(method);
            }
        }
        methods
    }
}

const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"];

fn unique_names(names: &[String], place: &Place, problems: &mut Vec<Problem>) {
    let mut seen = HashSet::new();
    for (index, name) in names.iter().enumerate() {
        let place = place.item(index);
        if name != "*" && HeaderName::try_from(name.trim()).is_err() {
            problems.push(place.error(format!("`{name}` is no header name"), "use letters, digits and dashes"));
        } else if !seen.insert(name.trim().to_ascii_lowercase()) {
            problems.push(place.error(format!("`{name}` is listed twice"), "keep one of them"));
        }
    }
}

/// Whether a text in lower case is `*` or scheme and authority without anything behind.
fn is_origin(text: &str) -> bool {
    let authority = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let plain = |host: &str| !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ', '*', ',']);
    text == "*" || authority.is_some_and(|host| plain(host.strip_prefix("*.").unwrap_or(host)))
}

/// Whether a request is one that browsers send before another: spec middlewares §5.20.1 asks for no more than this.
pub fn is_preflight(method: &Method) -> bool {
    method == Method::OPTIONS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_match_on_label_boundaries() {
        for (listed, asked, hit) in [
            ("*", "https://x.example", true),
            ("*", "null", true),
            ("https://*.b.example", "null", false),
            ("https://A.example", "https://a.example", true),
            ("https://a.example/", "https://a.example", true),
            ("https://a.example", "http://a.example", false),
            ("https://a.example", "https://a.example:8443", false),
            ("https://*.b.example", "https://z.b.example", true),
            ("https://*.b.example", "https://y.z.b.example:8443", true),
            ("https://*.b.example", "https://b.example", false),
            ("https://*.b.example", "https://evilb.example", false),
            ("https://*.b.example", "http://z.b.example", false),
            ("*.b.example", "http://z.b.example", true),
            ("*.b.example", "https://b.example", false),
            ("https://b.example", "https://b.example.evil", false),
        ] {
            assert_eq!(Origin::new(listed).takes(&asked.to_ascii_lowercase()), hit, "{listed} and {asked}");
        }
    }

    fn asked(origin: &str) -> Asked {
        Asked { origin: origin.parse().expect("a value"), headers: None, method: None }
    }

    fn response(cors: &Cors, origin: &str) -> ResponseHeader {
        let mut head = ResponseHeader::build(200, None).expect("a head");
        head.append_header("Access-Control-Allow-Origin", "https://backend.example").expect("a header");
        head.append_header("Access-Control-Allow-Credentials", "true").expect("a header");
        cors.apply(Some(&asked(origin)), true, &mut head);
        head
    }

    #[test]
    fn a_wildcard_gives_no_credentials() {
        let older = Older { origins: vec!["*".into()], allow_credentials: true, ..Older::default() };
        let cors = Cors::older(&older, &[], &Place::default()).expect("valid").expect("on");
        let head = response(&cors, "https://evil.example");
        assert_eq!(head.headers["access-control-allow-origin"], "https://evil.example");
        assert!(!head.headers.contains_key("access-control-allow-credentials"));
        assert_eq!(Cors::doubts(&older, &Place::default()).len(), 1);
    }

    #[test]
    fn the_gateways_word_replaces_the_backends() {
        let older = Older { origins: vec!["https://a.example".into()], ..Older::default() };
        let cors = Cors::older(&older, &[], &Place::default()).expect("valid").expect("on");
        let head = response(&cors, "https://a.example");
        let origins: Vec<_> = head.headers.get_all("access-control-allow-origin").iter().collect();
        assert_eq!(origins, ["https://a.example"]);
        assert_eq!(head.headers["vary"], "Origin");
    }

    #[test]
    fn settings_that_browsers_would_refuse_are_refused() {
        let good = || CorsSettings { enabled: true, origins: vec!["https://a.example".into()], ..Default::default() };
        let with = |change: fn(&mut CorsSettings)| {
            let mut settings = good();
            change(&mut settings);
            settings.build(&Place::default()).map_err(|problems| problems.len())
        };
        assert!(with(|_| {}).expect("valid").is_some());
        for (description, change) in [
            ("no origins", (|s| s.origins.clear()) as fn(&mut CorsSettings)),
            ("a bare domain", |s| s.origins = vec!["*.a.example".into()]),
            ("a path", |s| s.origins = vec!["https://a.example/x".into()]),
            ("twice", |s| s.origins.push("https://A.example/".into())),
            ("any with others", |s| s.origins.push("*".into())),
            ("any with credentials", |s| {
                s.origins = vec!["*".into()];
                s.allow_credentials = true;
            }),
            ("an unknown method", |s| s.allow_methods = vec!["FETCH".into()]),
            ("no header name", |s| s.allowed_headers = vec!["a b".into()]),
            ("too long", |s| s.max_age = 86_401),
        ] {
            assert_eq!(with(change).map(|_| ()), Err(1), "{description}");
        }
    }
}
