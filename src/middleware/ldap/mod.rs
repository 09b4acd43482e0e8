//! Basic authentication against an LDAP directory. RFC 4513, spec middlewares §5.6.
//!
//! A user is searched under the base and then bound with the password that the client sent. Connections are pooled, logins
//! that were right are remembered for a short while, and each client has an allowance of logins. A directory that cannot be
//! reached means 503.
//!
//! | file | holds |
//! |---|---|
//! | `directory` | connections to the server: search, bind |
//! | `allowance` | how many logins a client may try |

mod allowance;
mod directory;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::auth::{
    BasicCredentials, Guard, IDENTITY, USERNAME, basic_challenge, unauthorized, unavailable, unset_variable,
};
use super::remember::Remember;
use super::spelled::Spelled;
use super::{Flow, Middleware, Part, Scope, Settings, Verdict};
use crate::config::{self, Place, Problem, units};
use crate::exchange::Exchange;
use crate::outbound::{self, Verify};
use crate::reply::Reply;
use allowance::Allowance;
use directory::{Directory, Found, Unreachable};

/// Asks for a user name and a password and holds them against an LDAP directory: searches the user, then binds as it.
/// Without `paths` the whole route is protected.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Ldap {
    /// Address of the directory: `ldap://host:389` or `ldaps://host:636`; `${NAME}` is expanded.
    url: String,
    /// Where users are searched, with all that is below; `${NAME}` is expanded.
    #[serde(rename = "baseDN")]
    base_dn: String,
    /// Who searches; empty: nobody in particular (anonymous). `${NAME}` is expanded.
    #[serde(rename = "bindDN")]
    bind_dn: String,
    /// Its password; `${NAME}` is expanded.
    bind_pass: String,
    /// Filter that finds the user, with one `%s` for the name: `(uid=%s)`.
    user_filter: String,
    /// Whether an `ldap://` connection is encrypted before anything is said. Default false.
    #[serde(rename = "startTLS")]
    start_tls: bool,
    /// Whether the server's certificate is taken without a look. Default false.
    insecure_skip_verify: bool,
    /// Authorities that the server's certificate must come from: PEM text, base64 of it or a file. Empty: the system's.
    #[serde(rename = "rootCAs")]
    root_cas: String,
    /// What the browser shows when it asks. Default `Restricted`.
    realm: String,
    /// Whether the backend gets the user's name in the header `Username`. Default false.
    forward_username: bool,
    /// Whether the backend gets `Authorization` as well. Default true.
    forward_authorization: bool,
    /// How many logins a client may try. When it is given, remembered logins count as well.
    conn_pool: Option<ConnPool>,
    /// How long connecting, a search or a bind may take. Default `5s`.
    timeout: String,
    /// How long a right login is remembered; `0s`: not at all. Default `30s`.
    cache_ttl: String,
}

/// An allowance of logins for each client address.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
struct ConnPool {
    /// Logins per `ttl` that a client may go on with; also the most connections for binding. Default 10.
    size: u32,
    /// Logins that a client may try at once. Default 20.
    burst: u32,
    /// The time that `size` is for. Default `1m`.
    ttl: String,
}

impl Default for Ldap {
    fn default() -> Ldap {
        Ldap {
            url: String::new(),
            base_dn: String::new(),
            bind_dn: String::new(),
            bind_pass: String::new(),
            user_filter: String::new(),
            start_tls: false,
            insecure_skip_verify: false,
            root_cas: String::new(),
            realm: "Restricted".into(),
            forward_username: false,
            forward_authorization: true,
            conn_pool: None,
            timeout: "5s".into(),
            cache_ttl: "30s".into(),
        }
    }
}

impl Default for ConnPool {
    fn default() -> ConnPool {
        ConnPool { size: 10, burst: 20, ttl: "1m".into() }
    }
}

impl Settings for Ldap {
    const KIND: &'static [&'static str] = &["ldap", "ldapAuth"];
    const GUARDS: bool = true;
    const EXAMPLE: &'static str = include_str!("../../../conf/examples/middlewares/ldap.yml");

    fn doubts(&self, scope: &Scope<'_>) -> Vec<Problem> {
        let place = scope.place.child("rule");
        let clear = (scope.expand)(&self.url).starts_with("ldap://") && !self.start_tls;
        let remedy = "use ldaps://, or set `startTLS`";
        let clear = clear.then(|| place.child("url").warning("passwords go to the directory unencrypted", remedy));
        let ttl = self.conn_pool.as_ref().map(|pool| &*pool.ttl).filter(|ttl| units::duration(ttl).is_err());
        let ttl = ttl.map(|ttl| {
            let message = format!("`{ttl}` is no duration: 1m counts, as in Goma");
            place.child("connPool").child("ttl").warning(message, "write 30s, 1m or 1m30s")
        });
        let unset =
            [("bindDN", &self.bind_dn), ("bindPass", &self.bind_pass)].into_iter().filter_map(|(key, value)| {
                let value = (scope.expand)(value);
                let message = format!(
                    "names the variable `{}`, which is not set: no login can be checked",
                    unset_variable(&value)?
                );
                Some(place.child(key).warning(message, "set it"))
            });
        clear.into_iter().chain(ttl).chain(unset).collect()
    }

    fn build(self, scope: &Scope<'_>) -> Result<Part, Vec<Problem>> {
        let place = scope.place.child("rule");
        let mut problems = Vec::new();
        let challenge = basic_challenge(&self.realm).unwrap_or_else(|_| {
            problems.push(place.child("realm").error("holds control characters", "use one plain line"));
            HeaderValue::from_static("Basic")
        });
        let pool = self.conn_pool.as_ref();
        let defaults = ConnPool::default();
        let limits = pool.unwrap_or(&defaults);
        // As in Goma, what is no duration means the default.
        let ttl = units::duration(&limits.ttl).ok().filter(|ttl| !ttl.is_zero()).unwrap_or(Duration::from_secs(60));
        let timeout = duration(&self.timeout, &place.child("timeout"), &mut problems);
        let remember = duration(&self.cache_ttl, &place.child("cacheTtl"), &mut problems);
        let directory = self.directory(scope, timeout, &mut problems);
        let (Some(directory), true) = (directory, problems.is_empty()) else { return Err(problems) };
        Ok(Part::Step(Arc::new(Login {
            guard: Guard::new(scope, Ldap::KIND[0]),
            directory: Directory::new(directory, limits.size),
            allowance: Allowance::new(limits.size, limits.burst, ttl),
            strict: pool.is_some(),
            right: (!remember.is_zero()).then(|| Remember::new(remember)),
            forward: self.forward_username,
            keep_authorization: self.forward_authorization,
            username: USERNAME.into(),
            challenge,
        })))
    }
}

impl Ldap {
    fn directory(
        &self,
        scope: &Scope<'_>,
        timeout: Duration,
        problems: &mut Vec<Problem>,
    ) -> Option<directory::Settings> {
        let place = scope.place.child("rule");
        let url = (scope.expand)(&self.url);
        if !["ldap://", "ldaps://"].iter().any(|scheme| url.strip_prefix(scheme).is_some_and(|host| !host.is_empty())) {
            problems.push(
                place.child("url").error(format!("`{url}` is no directory"), "write ldap://host or ldaps://host"),
            );
        }
        let base = (scope.expand)(&self.base_dn);
        if base.is_empty() {
            problems.push(
                place.child("baseDN").error("is missing", "name where users are, such as ou=people,dc=example,dc=com"),
            );
        }
        let filter = (scope.expand)(&self.user_filter);
        let parts = filter.split_once("%s").filter(|(_, rest)| !rest.contains("%s"));
        let probe = parts.map(|(before, after)| format!("{before}x{after}"));
        if !probe.is_some_and(|probe| directory::is_filter(&probe)) {
            let message = format!("`{filter}` finds no user");
            problems.push(place.child("userFilter").error(message, "write a filter with one %s, such as (uid=%s)"));
        }
        let tls = self.tls(&place).map_err(|problem| problems.push(problem)).ok()?;
        let (before, after) = parts?;
        Some(directory::Settings {
            base,
            filter: (before.to_owned(), after.to_owned()),
            bind_dn: (scope.expand)(&self.bind_dn),
            bind_pass: (scope.expand)(&self.bind_pass),
            start_tls: self.start_tls && !url.starts_with("ldaps://"),
            tls: Arc::new(tls),
            timeout,
            url,
        })
    }

    fn tls(&self, place: &Place) -> Result<rustls::ClientConfig, Problem> {
        let verify = if self.insecure_skip_verify { Verify::Nothing } else { Verify::System };
        if self.root_cas.is_empty() || self.insecure_skip_verify {
            return outbound::tls(verify).map_err(|error| place.error(error, "check the system's TLS"));
        }
        let place = place.child("rootCAs");
        let pem = config::material(&self.root_cas).map_err(|error| {
            place.error(format!("cannot be read: {error}"), "give PEM text, base64 of it, or a file")
        })?;
        outbound::tls_trusting(&pem).map_err(|error| place.error(error, "give CA certificates in PEM form"))
    }
}

fn duration(text: &str, place: &Place, problems: &mut Vec<Problem>) -> Duration {
    units::duration(text).unwrap_or_else(|_| {
        problems.push(place.error(format!("`{text}` is no duration"), "write 500ms, 10s or 1m"));
        Duration::ZERO
    })
}

/// The step.
struct Login {
    guard: Guard,
    directory: Directory,
    allowance: Allowance,
    /// Whether remembered logins take from the allowance as well.
    strict: bool,
    right: Option<Remember<()>>,
    forward: bool,
    keep_authorization: bool,
    username: Spelled,
    challenge: HeaderValue,
}

impl Middleware for Login {
    fn request<'a>(&'a self, exchange: &'a mut Exchange, head: &'a mut RequestHeader) -> Flow<'a> {
        if !self.guard.takes(exchange) {
            return Flow::Next;
        }
        let credentials = match BasicCredentials::of(head) {
            Ok(credentials) => credentials,
            Err(reason) => return Flow::Reply(self.deny(reason)),
        };
        let Ok(name) = HeaderValue::from_str(&credentials.user) else {
            return Flow::Reply(self.deny("malformed"));
        };
        let digest = self
            .right
            .as_ref()
            .map(|right| right.digest([credentials.user.as_bytes(), credentials.password.as_bytes()]));
        let known = self.right.as_ref().zip(digest).is_some_and(|(right, digest)| right.recall(&digest).is_some());
        if (self.strict || !known) && !self.allowance.take(exchange.client) {
            return Flow::Reply(self.guard.deny("too_many_logins", self.too_many()));
        }
        if known {
            return self.passes(name, head);
        }
        Flow::Wait(Box::pin(async move {
            let started = Instant::now();
            let found = self.directory.login(&credentials.user, &credentials.password).await;
            self.guard.called(started);
            match found {
                Ok(Found::Right) => {
                    if let (Some(right), Some(digest)) = (&self.right, digest) {
                        right.keep(digest, ());
                    }
                    self.passes(name, head)
                }
                Ok(Found::Wrong) => Flow::Reply(self.deny("wrong_password")),
                Ok(Found::Nobody) => Flow::Reply(self.deny("unknown_user")),
                Ok(Found::Several) => Flow::Reply(self.deny("ambiguous_user")),
                Err(Unreachable(why)) => {
                    log::warn!(middleware = self.guard.name(); "The directory cannot be asked: {why}");
                    Flow::Reply(self.guard.fail("unreachable", unavailable()))
                }
            }
        }))
    }

    fn identity(&self) -> &[HeaderName] {
        &IDENTITY
    }
}

impl Login {
    fn passes<'a>(&self, name: HeaderValue, head: &mut RequestHeader) -> Flow<'a> {
        if !self.keep_authorization {
            head.remove_header(&header::AUTHORIZATION);
        }
        if self.forward {
            self.username.ask(head, name);
        }
        self.guard.allow();
        Flow::Next
    }

    fn deny(&self, reason: &'static str) -> Verdict {
        self.guard.deny(reason, unauthorized(&self.challenge))
    }

    fn too_many(&self) -> Reply {
        Reply::plain(StatusCode::TOO_MANY_REQUESTS)
            .header(header::WWW_AUTHENTICATE, self.challenge.clone())
            .header(header::RETRY_AFTER, HeaderValue::from(self.allowance.seconds()))
    }
}
