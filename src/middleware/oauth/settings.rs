//! The settings, and what is wrong with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Url;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Checked, is_here, is_plain};
use super::flow;
use super::login::TAG;
use super::party::{Calls, Facts, Party, Wants};
use super::provider::{Discover, Endpoints, Known, Provider};
use super::seal::digest;
use super::store::Store;
use crate::config::Problem;
use crate::middleware::auth::Guard;
use crate::middleware::spelled::Spelled;
use crate::middleware::{Part, Scope, Settings};
use crate::outbound::Client;

/// Lets users log in at an OAuth 2.0 or OpenID Connect provider. Without `paths` the whole route is protected.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OAuth {
    /// Id of the gateway at the provider; required.
    pub(super) client_id: String,
    /// Secret of the gateway at the provider; required. Sessions are sealed with a key made of it.
    pub(super) client_secret: String,
    /// Address that the provider sends users back to, as it is registered there; required. Its path leads to this route.
    pub(super) redirect_url: String,
    /// `google`, `gitlab`, `github`, `amazon`, `facebook` or `custom`; a named one brings its own endpoints.
    pub(super) provider: String,
    /// Where a custom provider is.
    pub(super) endpoint: Endpoint,
    /// Where users go after a login; by default where they wanted to go.
    pub(super) redirect_path: String,
    /// Path of the session's cookies; by default that of the route.
    pub(super) cookie_path: String,
    /// Scopes to ask for; with `openid` the provider has to say who the user is.
    pub(super) scopes: Vec<String>,
    /// Taken from older configurations and not used: every login gets a state of its own.
    pub(super) state: String,
    /// Further parameters of the authorization request, by name.
    pub(super) auth_params: BTreeMap<String, String>,
    /// Path that ends the session; none by default.
    pub(super) logout_path: String,
    /// Where users go after it: a path, or an address that the provider knows.
    pub(super) logout_redirect_url: String,
    /// Headers for the backend, each with the claim that it takes; those of the client are removed.
    pub(super) forward_headers: BTreeMap<String, String>,
    /// Whether the backend gets the access token as `Authorization: Bearer`. Default false.
    pub(super) forward_access_token: bool,
    /// How long a session lasts from the login on, whatever is refreshed. A duration, default 168h.
    pub(super) session_ttl: String,
    /// How often the provider is asked whether an opaque access token is still good; 0 asks at the login only. A duration,
    /// default 5m.
    pub(super) check_interval: String,
    /// Where sessions are: `cookie` seals them into the browser's cookies, `redis` into the Redis of `gateway.redis`, where the
    /// browser keeps a ticket only and a logout counts for all instances at once. Default `cookie`.
    pub(super) session_store: SessionStore,
}

/// Where sessions are.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum SessionStore {
    /// Sealed in cookies.
    #[default]
    Cookie,
    /// Sealed in Redis.
    Redis,
}

/// Addresses of a provider. What is written wins over what `issuer` leads to.
#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Where users log in.
    pub(super) auth_url: String,
    /// Where codes become tokens.
    pub(super) token_url: String,
    /// Keys that access tokens and ID tokens have to be signed with.
    pub(super) jwks_url: String,
    /// Tells who the bearer of an access token is; opaque tokens are checked there.
    pub(super) user_info_url: String,
    /// The issuer of OpenID Connect: the other addresses are discovered from it.
    pub(super) issuer: String,
    /// Tells whether a token is active (RFC 7662); asked instead of `userInfoUrl`.
    pub(super) introspection_url: String,
    /// Where users log out of the provider.
    pub(super) end_session_url: String,
    /// Where tokens are given back when users log out (RFC 7009).
    pub(super) revocation_url: String,
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
            session_store: SessionStore::Cookie,
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

impl OAuth {
    fn step(self, checked: Checked, scope: &Scope<'_>) -> flow::OAuth {
        let Checked { http, callback, lifetimes, headers, redis } = checked;
        let route = literal(scope.route_path);
        let party = self.party(&http, scope);
        let filled = |text: String| Some(text).filter(|text| !text.is_empty());
        let callbacks = behind(route, callback);
        let logout = filled(self.logout_path);
        let landings = callbacks.iter().cloned().chain(logout.clone()).collect();
        let mut claims: Vec<String> = headers.iter().map(|(_, claim)| claim.clone()).collect();
        claims.extend(scope.claims.iter().map(|claim| (*claim).to_owned()));
        claims.sort();
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
            store: redis.map(|redis| Store::new(redis, lifetimes.session)),
            lifetimes,
            names: headers.iter().map(|(name, _)| name.clone()).collect(),
            headers: headers.into_iter().map(|(name, claim)| (Spelled::from(name), claim)).collect(),
            forwards_token: self.forward_access_token,
            tells_claims: !scope.claims.is_empty(),
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
}
