//! What can be wrong with the settings, and what is only strange.

use std::net::IpAddr;
use std::time::Duration;

use http::HeaderName;
use reqwest::Url;

use super::provider::{KNOWN, Known};
use super::session::Lifetimes;
use super::settings::{Endpoint, OAuth, SessionStore};
use crate::config::{Place, Problem, units};
use crate::middleware::Scope;
use crate::middleware::auth::unset;
use crate::outbound::{Client, Verify};
use crate::redis::Redis;

/// What was read from texts.
pub(super) struct Checked {
    pub http: Client,
    pub callback: String,
    pub lifetimes: Lifetimes,
    pub headers: Vec<(HeaderName, String)>,
    /// Where sessions are, if not with the browsers.
    pub redis: Option<Redis>,
}

impl OAuth {
    pub(super) fn strange_provider(&self, rule: &Place) -> Vec<Problem> {
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
    pub(super) fn urls(&self, rule: &Place) -> Vec<(Place, &str)> {
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

    pub(super) fn check(&self, rule: &Place, scope: &Scope<'_>, problems: &mut Vec<Problem>) -> Option<Checked> {
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
        let redis = scope.tools.redis.clone().filter(|_| self.session_store == SessionStore::Redis);
        if self.session_store == SessionStore::Redis && redis.is_none() {
            let remedy = "give `gateway.redis.addr`, or remove it: sessions are sealed in cookies then";
            problems.push(rule.child("sessionStore").error("is `redis`, and there is none", remedy));
        }
        let http = Client::get(Verify::System).map_err(|error| problems.push(scope.place.error(error, "")));
        let check = check.map(|check| Some(check).filter(|check| !check.is_zero()));
        let lifetimes = Lifetimes { session: session?, check: check? };
        Some(Checked { http: http.ok()?, callback: callback?, lifetimes, headers, redis })
    }

    fn required(&self, rule: &Place, problems: &mut Vec<Problem>) {
        let given = [("clientId", &self.client_id), ("clientSecret", &self.client_secret)];
        for (key, _) in given.iter().filter(|(_, text)| text.trim().is_empty()) {
            problems.push(rule.child(key).error("is missing", "give what the provider gave you"));
        }
        // Sessions are sealed with a key made of the secret.
        let instead = "what the provider gave you";
        problems.extend(given.iter().filter_map(|(key, text)| unset(&rule.child(key), text, instead)));
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
                Ok(header) if TAKEN.contains(&&*header.as_str().replace('_', "-")) => {
                    problems.push(place.error("cannot be set to a claim", "use another header"));
                }
                Ok(_) if claim.is_empty() => problems.push(place.error("names no claim", "write it like sub")),
                Ok(header) => headers.push((header, claim.clone())),
                Err(_) => problems.push(place.error(format!("`{name}` is no header name"), "use a name like X-User")),
            }
        }
        headers
    }
}

pub(super) fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\' && byte != b'"')
}

fn is_web(text: &str) -> bool {
    let web = |url: Url| matches!(url.scheme(), "http" | "https") && url.has_host() && url.username().is_empty();
    is_plain(text) && text.contains("://") && Url::parse(text).is_ok_and(web)
}

/// Whether an address is one of this machine.
pub(super) fn is_here(url: &Url) -> bool {
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
