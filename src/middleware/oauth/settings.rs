//! The settings, and what is wrong with them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderName;
use reqwest::Url;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::flow;
use super::login::TAG;
use super::party::{Calls, Facts, Party, Wants};
use super::provider::{Discover, Endpoints, KNOWN, Known, Provider};
use super::seal::digest;
use super::session::Lifetimes;
use crate::config::{Place, Problem, units};
use crate::middleware::auth::Guard;
use crate::middleware::{Part, Scope, Settings};
use crate::outbound::{Client, Verify};

/// Lets users log in at an OAuth 2.0 or OpenID Connect provider. Without `paths` the whole route is protected.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OAuth {
    /// Id of the gateway at the provider; required.
    client_id: String,
    /// Secret of the gateway at the provider; required. Sessions are sealed with a key made of it.
    client_secret: String,
    /// Address that the provider sends users back to, as it is registered there; required. Its path leads to this route.
    redirect_url: String,
    /// `google`, `gitlab`, `github`, `amazon`, `facebook` or `custom`; a named one brings its own endpoints.
    provider: String,
    /// Where a custom provider is.
    endpoint: Endpoint,
    /// Where users go after a login; by default where they wanted to go.
    redirect_path: String,
    /// Path of the session's cookies; by default that of the route.
    cookie_path: String,
    /// Scopes to ask for; with `openid` the provider has to say who the user is.
    scopes: Vec<String>,
    /// Taken from older configurations and not used: every login gets a state of its own.
    state: String,
    /// Further parameters of the authorization request, by name.
    auth_params: BTreeMap<String, String>,
    /// Path that ends the session; none by default.
    logout_path: String,
    /// Where users go after it: a path, or an address that the provider knows.
    logout_redirect_url: String,
    /// Headers for the backend, each with the claim that it takes; those of the client are removed.
    forward_headers: BTreeMap<String, String>,
    /// Whether the backend gets the access token as `Authorization: Bearer`. Default false.
    forward_access_token: bool,
    /// How long a session lasts from the login on, whatever is refreshed. A duration, default 168h.
    session_ttl: String,
    /// How often the provider is asked whether an opaque access token is still good; 0 asks at the login only. A duration,
    /// default 5m.
    check_interval: String,
}

/// Addresses of a provider. What is written wins over what `issuer` leads to.
#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Where users log in.
    auth_url: String,
    /// Where codes become tokens.
    token_url: String,
    /// Keys that access tokens and ID tokens have to be signed with.
    jwks_url: String,
    /// Tells who the bearer of an access token is; opaque tokens are checked there.
    user_info_url: String,
    /// The issuer of OpenID Connect: the other addresses are discovered from it.
    issuer: String,
    /// Tells whether a token is active (RFC 7662); asked instead of `userInfoUrl`.
    introspection_url: String,
    /// Where users log out of the provider.
    end_session_url: String,
    /// Where tokens are given back when users log out (RFC 7009).
    revocation_url: String,
}

impl Default for OAuth {
    fn default() -> OAuth {
        OAuth {
            client_id: String::new(),
            client_secret: String::new(),
            redirect_url: String::new(),
            provider: String::new(),
            endpoint: Endpoint::default(),
            redirect_path: String::new(),
            cookie_path: String::new(),
            scopes: Vec::new(),
            state: String::new(),
            auth_params: BTreeMap::new(),
            logout_path: String::new(),
            logout_redirect_url: String::new(),
            forward_headers: BTreeMap::new(),
            forward_access_token: false,
            session_ttl: "168h".to_owned(),
            check_interval: "5m".to_owned(),
        }
    }
}

impl Settings for OAuth {
    const KIND: &'static [&'static str] = &["oauth", "oauth2"];
    const GUARDS: bool = true;
    const EXAMPLE: &'static str = include_str!("../../../conf/examples/middlewares/oauth.yml");

    fn doubts(&self, scope: &Scope<'_>) -> Vec<Problem> {
        let rule = scope.place.child("rule");
        let mut doubts = self.strange_provider(&rule);
        if !self.state.is_empty() {
            let place = rule.child("state");
            doubts.push(place.warning("is not used: every login gets a state of its own", "remove it"));
        }
        for (key, url) in self.urls(&rule) {
            if Url::parse(url).is_ok_and(|url| url.scheme() == "http" && !is_here(&url)) {
                doubts.push(key.warning("has no TLS: secrets travel in clear", "use https"));
            }
        }
        doubts
    }

    fn build(self, scope: &Scope<'_>) -> Result<Part, Vec<Problem>> {
        let rule = scope.place.child("rule");
        let mut problems = Vec::new();
        let checked = self.check(&rule, scope, &mut problems);
        match checked.filter(|_| problems.is_empty()) {
            Some(checked) => Ok(Part::Step(Arc::new(self.step(checked, scope)))),
            None => Err(problems),
        }
    }
}

/// What was read from texts.
struct Checked {
    http: Client,
    callback: String,
    lifetimes: Lifetimes,
    headers: Vec<(HeaderName, String)>,
}

impl OAuth {
    fn strange_provider(&self, rule: &Place) -> Vec<Problem> {
        let mut doubts = Vec::new();
        match Known::named(&self.provider) {
            Some(_) => {
                for (key, url) in [("authUrl", &self.endpoint.auth_url), ("tokenUrl", &self.endpoint.token_url)] {
                    if !url.is_empty() {
                        let place = rule.child("endpoint").child(key);
                        let remedy = "remove it, or write `provider: custom`";
                        doubts.push(place.warning(format!("is not used: `{}` has its own", self.provider), remedy));
                    }
                }
            }
            None if !matches!(&*self.provider, "" | "custom") => {
                let known: Vec<&str> = KNOWN.iter().map(|known| known.name).collect();
                let message = format!("`{}` is no known provider; the endpoints count", self.provider);
                doubts.push(rule.child("provider").warning(message, format!("use custom, {}", known.join(", "))));
            }
            None => {}
        }
        doubts
    }

    /// Addresses that secrets travel to, with their places.
    fn urls(&self, rule: &Place) -> Vec<(Place, &str)> {
        let place = rule.child("endpoint");
        let Endpoint { auth_url, token_url, jwks_url, user_info_url, .. } = &self.endpoint;
        let Endpoint { issuer, introspection_url, end_session_url, revocation_url, .. } = &self.endpoint;
        let all = [
            ("authUrl", auth_url),
            ("tokenUrl", token_url),
            ("jwksUrl", jwks_url),
            ("userInfoUrl", user_info_url),
            ("issuer", issuer),
            ("introspectionUrl", introspection_url),
            ("endSessionUrl", end_session_url),
            ("revocationUrl", revocation_url),
        ];
        all.into_iter().filter(|(_, url)| !url.is_empty()).map(|(key, url)| (place.child(key), &**url)).collect()
    }

    fn check(&self, rule: &Place, scope: &Scope<'_>, problems: &mut Vec<Problem>) -> Option<Checked> {
        self.required(rule, problems);
        for (place, url) in self.urls(rule) {
            if !is_web(url) {
                problems.push(place.error("is no http or https address", "write it like https://provider.example/x"));
            }
        }
        self.plain(rule, problems);
        let callback = self.callback(rule, problems);
        let headers = self.headers(rule, problems);
        let session = duration(&self.session_ttl, &rule.child("sessionTtl"), problems);
        let check = duration(&self.check_interval, &rule.child("checkInterval"), problems);
        if session == Some(Duration::ZERO) {
            problems.push(rule.child("sessionTtl").error("is zero: nobody could log in", "write it like 24h"));
        }
        let http = Client::get(Verify::System).map_err(|error| problems.push(scope.place.error(error, "")));
        let check = check.map(|check| Some(check).filter(|check| !check.is_zero()));
        let lifetimes = Lifetimes { session: session?, check: check? };
        Some(Checked { http: http.ok()?, callback: callback?, lifetimes, headers })
    }

    fn required(&self, rule: &Place, problems: &mut Vec<Problem>) {
        let given = [("clientId", &self.client_id), ("clientSecret", &self.client_secret)];
        for (key, _) in given.iter().filter(|(_, text)| text.trim().is_empty()) {
            problems.push(rule.child(key).error("is missing", "give what the provider gave you"));
        }
        let Endpoint { auth_url, token_url, issuer, .. } = &self.endpoint;
        if Known::named(&self.provider).is_none() && issuer.is_empty() {
            let endpoint = rule.child("endpoint");
            for (key, _) in [("authUrl", auth_url), ("tokenUrl", token_url)].iter().filter(|(_, url)| url.is_empty()) {
                let remedy = "give it, or `issuer`, or name a known `provider`";
                problems.push(endpoint.child(key).error("is missing", remedy));
            }
        }
    }

    /// The path of `redirectUrl`.
    fn callback(&self, rule: &Place, problems: &mut Vec<Problem>) -> Option<String> {
        let place = rule.child("redirectUrl");
        let remedy = "write it as the provider knows it, like https://shop.example/callback";
        let url = Url::parse(&self.redirect_url).ok().filter(|_| is_web(&self.redirect_url));
        let problem = match &url {
            _ if self.redirect_url.is_empty() => "is missing",
            None => "is no http or https address",
            Some(url) if url.fragment().is_some() => "has a fragment, which providers refuse",
            Some(url) if url.path().trim_matches('/').is_empty() => "needs a path of its own",
            Some(url) if url.path().contains(['%', ';', ',']) || url.path().contains("//") => {
                "has a path of other than plain letters"
            }
            Some(url) => return Some(url.path().trim_end_matches('/').to_owned()),
        };
        problems.push(place.error(problem, remedy));
        None
    }

    /// Texts that go into headers and cookies.
    fn plain(&self, rule: &Place, problems: &mut Vec<Problem>) {
        let path = |text: &str| text.is_empty() || text.starts_with('/') && !text.starts_with("//") && is_plain(text);
        let local = "write a path like /app";
        for (key, text) in [("cookiePath", &self.cookie_path), ("logoutPath", &self.logout_path)] {
            if !path(text) || text.contains([';', ',', '?', '#']) {
                problems.push(rule.child(key).error("is no path", local));
            }
        }
        for (key, text) in [("redirectPath", &self.redirect_path), ("logoutRedirectUrl", &self.logout_redirect_url)] {
            if !path(text) && !is_web(text) {
                problems.push(rule.child(key).error("is neither a path nor an http or https address", local));
            }
        }
        if self.logout_path == "/" {
            problems.push(rule.child("logoutPath").error("needs a path of its own", "write it like /logout"));
        }
        for (index, scope) in self.scopes.iter().enumerate().filter(|(_, scope)| !is_plain(&scope.replace(' ', ""))) {
            let place = rule.child("scopes").item(index);
            problems.push(place.error(format!("{scope:?} is no scope"), "write it like email"));
        }
        let ours = ["client_id", "code_challenge", "code_challenge_method", "nonce", "redirect_uri", "response_type"];
        for name in self.auth_params.keys() {
            if ours.contains(&&**name)
                || ["scope", "state", "response_mode", "request", "request_uri"].contains(&&**name)
            {
                let place = rule.child("authParams").child(name);
                problems.push(place.error("is set by the gateway", "remove it"));
            }
        }
    }

    fn headers(&self, rule: &Place, problems: &mut Vec<Problem>) -> Vec<(HeaderName, String)> {
        const TAKEN: [&str; 8] =
            ["authorization", "connection", "content-length", "cookie", "host", "te", "transfer-encoding", "upgrade"];
        let mut headers = Vec::new();
        for (name, claim) in &self.forward_headers {
            let place = rule.child("forwardHeaders").child(name);
            match HeaderName::try_from(name) {
                Ok(header) if TAKEN.contains(&header.as_str()) => {
                    problems.push(place.error("cannot be set to a claim", "use another header"));
                }
                Ok(_) if claim.is_empty() => problems.push(place.error("names no claim", "write it like sub")),
                Ok(header) => headers.push((header, claim.clone())),
                Err(_) => problems.push(place.error(format!("`{name}` is no header name"), "use a name like X-User")),
            }
        }
        headers
    }

    fn step(self, checked: Checked, scope: &Scope<'_>) -> flow::OAuth {
        let Checked { http, callback, lifetimes, headers } = checked;
        let route = literal(scope.route_path);
        let party = self.party(&http, scope);
        let filled = |text: String| Some(text).filter(|text| !text.is_empty());
        let callbacks = behind(route, callback);
        let logout = filled(self.logout_path);
        let landings = callbacks.iter().cloned().chain(logout.clone()).collect();
        let mut claims: Vec<String> = headers.iter().map(|(_, claim)| claim.clone()).collect();
        claims.dedup();
        flow::OAuth {
            guard: Guard::new(scope, Self::KIND[0]),
            outside: scope.tools.metrics.auth_outside(Self::KIND[0], scope.name),
            party,
            tag: tag(scope),
            client_id: self.client_id,
            redirect_url: self.redirect_url,
            scope: self.scopes.join(" "),
            further: self.auth_params.into_iter().collect(),
            given_state: self.state,
            callbacks,
            wants: Wants { claims, token: self.forward_access_token, id_token: logout.is_some() },
            logout,
            after_logout: filled(self.logout_redirect_url),
            cookie_path: filled(self.cookie_path).unwrap_or_else(|| route.to_owned()),
            redirect_path: filled(self.redirect_path),
            fallback: fallback(route, scope.paths.first()),
            lifetimes,
            names: headers.iter().map(|(name, _)| name.clone()).collect(),
            headers,
            forwards_token: self.forward_access_token,
            landings,
        }
    }

    fn party(&self, http: &Client, scope: &Scope<'_>) -> Arc<Party> {
        let scopes: Vec<&str> = self.scopes.iter().flat_map(|scope| scope.split(' ')).collect();
        let written = self.endpoints(&scopes);
        let openid = scopes.contains(&"openid");
        let issuer = &self.endpoint.issuer;
        let discover = (Known::named(&self.provider).is_none() && !issuer.is_empty())
            .then(|| Discover { issuer: issuer.clone(), openid });
        let facts = Facts {
            client_id: self.client_id.clone(),
            secret: self.client_secret.clone(),
            redirect_url: self.redirect_url.clone(),
            openid,
            verifies_access: !self.endpoint.jwks_url.is_empty(),
            endpoints: format!("{written:?} {discover:?}"),
            home: format!("{} {} {issuer}", self.provider, written.token),
        };
        let handle = scope.tools.handle.as_ref();
        let calls = Calls { http, sets: &scope.tools.key_sets, handle };
        scope.tools.oauth.party(facts, &calls, || {
            let provider = Arc::new(Provider::new(http.clone(), written, discover));
            provider.keep_fresh(handle);
            provider
        })
    }

    /// What the settings say of the endpoints. A named provider has its own places for logins and tokens, as in Goma.
    fn endpoints(&self, scopes: &[&str]) -> Endpoints {
        let known = Known::named(&self.provider).map(|known| known.endpoints(scopes));
        let named = known.is_some();
        let known = known.unwrap_or_default();
        let own = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let Endpoint { auth_url, token_url, jwks_url, user_info_url, issuer, .. } = &self.endpoint;
        Endpoints {
            auth: if named { known.auth } else { auth_url.clone() },
            token: if named { known.token } else { token_url.clone() },
            jwks: own(jwks_url).or(known.jwks),
            user_info: own(user_info_url).or(known.user_info),
            introspection: own(&self.endpoint.introspection_url),
            end_session: own(&self.endpoint.end_session_url),
            revocation: own(&self.endpoint.revocation_url).or(known.revocation),
            issuer: own(issuer).or(known.issuer),
            ..Endpoints::default()
        }
    }
}

/// A short word for this definition on this route, the same in every replica.
fn tag(scope: &Scope<'_>) -> String {
    let mut tag = URL_SAFE_NO_PAD.encode(digest(&[scope.name, scope.route]));
    tag.truncate(TAG);
    tag
}

/// The part of a route's path before its first placeholder.
fn literal(route: &str) -> &str {
    let plain = &route[..route.find(['{', ';', ' ']).unwrap_or(route.len())];
    let whole = plain.len() == route.len();
    let end = if whole { plain.trim_end_matches('/') } else { &plain[..plain.rfind('/').unwrap_or(0)] };
    if end.is_empty() || !end.starts_with('/') { "/" } else { end }
}

/// The path of `redirectUrl`, and the same behind the route's path, which is where Goma has it.
fn behind(route: &str, callback: String) -> Vec<String> {
    let joined = (route != "/").then(|| format!("{route}{callback}"));
    std::iter::once(callback).chain(joined).collect()
}

/// Where Goma sends users after a login: the route's path and the first of `paths`, without what stands for anything.
fn fallback(route: &str, first: Option<&str>) -> String {
    let plain =
        |text: &&str| text.starts_with('/') && is_plain(text) && !text.contains(['^', '$', '(', '[', '\\', '+', '?']);
    let first = first.map(|first| first.trim_end_matches('*').trim_end_matches('/'));
    let first = first.filter(plain).filter(|first| !first.contains(['*', '.']));
    let path = format!("{}{}", route.trim_end_matches('/'), first.unwrap_or_default());
    if path.is_empty() { "/".to_owned() } else { path }
}

fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\' && byte != b'"')
}

fn is_web(text: &str) -> bool {
    let web = |url: Url| matches!(url.scheme(), "http" | "https") && url.has_host() && url.username().is_empty();
    is_plain(text) && text.contains("://") && Url::parse(text).is_ok_and(web)
}

/// Whether an address is one of this machine.
fn is_here(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn duration(text: &str, place: &Place, problems: &mut Vec<Problem>) -> Option<Duration> {
    units::duration(text).map_err(|why| problems.push(place.error(why, ""))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callbacks_lie_where_redirect_url_says_and_where_goma_has_them() {
        for (route, path, both) in [
            ("/", "/callback", &["/callback"][..]),
            ("/prot", "/callback", &["/callback", "/prot/callback"]),
            ("/prot/", "/prot/callback", &["/prot/callback", "/prot/prot/callback"]),
            ("/t/{tenant}/x", "/callback", &["/callback", "/t/callback"]),
            ("/{tenant}", "/callback", &["/callback"]),
            ("", "/callback", &["/callback"]),
        ] {
            assert_eq!(behind(literal(route), path.to_owned()), both, "{route}");
        }
    }

    #[test]
    fn the_way_back_without_a_wish_is_gomas_and_never_another_site() {
        for (route, first, target) in [
            ("/", None, "/"),
            ("/", Some("/x"), "/x"),
            ("/", Some("/*"), "/"),
            ("/", Some("/admin/*"), "/admin"),
            ("/app", Some("/admin*"), "/app/admin"),
            ("/app", Some("^/x$"), "/app"),
            ("/app", None, "/app"),
            ("/app", Some("/.*"), "/app"),
        ] {
            assert_eq!(fallback(literal(route), first), target, "{route} {first:?}");
        }
    }

    #[test]
    fn addresses_are_of_the_web() {
        for (text, web) in [
            ("https://op.example/x?y=1", true),
            ("http://127.0.0.1:8080", true),
            ("ftp://op.example", false),
            ("//op.example", false),
            ("/path", false),
            ("https://", false),
            ("https://user@op.example", false),
            ("https://op.example/a b", false),
            ("https://op.example/\r\nX: y", false),
            ("javascript://x/%0aalert(1)", false),
        ] {
            assert_eq!(is_web(text), web, "{text}");
        }
    }
}
