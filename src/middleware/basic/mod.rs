//! Basic authentication against users in the configuration. RFC 7617, spec middlewares §5.5.
//!
//! The first user of that name decides. `Authorization` goes on to the backend, as in Goma, unless that is switched off. Slow hashes are checked away
//! from the threads that carry requests; when too many wait the answer is 503, and a client
//! with many of them leaves room for others. An unknown user costs as much time as a
//! wrong password.
//!
//! | file | holds |
//! |---|---|
//! | `secret` | the forms of stored passwords |
//! | `md5crypt` | one of them |
//! | `checker` | slow checks on threads of their own, and the memory of right ones |
//! | `line` | where they wait, each client for its turn |

pub mod checker;
mod line;
mod md5crypt;
mod secret;

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora_http::RequestHeader;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize};

use super::auth::{BasicCredentials, Guard, IDENTITY, USERNAME, basic_challenge, unauthorized, unset};
use super::spelled::Spelled;
use super::{Flow, Middleware, Part, Scope, Settings, Verdict};
use crate::config::Problem;
use crate::exchange::Exchange;
use crate::reply::Reply;
use checker::{Busy, Checker};
use secret::Stored;

/// Asks for a user name and a password and holds them against users of the configuration. Without `paths` the whole route
/// is protected.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Basic {
    /// What the browser shows when it asks. Default `Restricted`.
    realm: String,
    /// Whether the backend gets the user's name in the header `Username`. Default false.
    forward_username: bool,
    /// Whether the backend gets `Authorization` as well. Default true.
    forward_authorization: bool,
    /// Who may pass; of several with one name the first. Also as text: `name:password`.
    users: Vec<User>,
}

impl Default for Basic {
    fn default() -> Basic {
        Basic { realm: "Restricted".into(), forward_username: false, forward_authorization: true, users: Vec::new() }
    }
}

/// A user.
#[derive(Default, Serialize)]
struct User {
    username: String,
    password: String,
}

/// A user as a map.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", default)]
struct UserSettings {
    /// Name of the user; `${NAME}` is expanded.
    username: String,
    /// Hash of the password: bcrypt, argon2, SHA-crypt, MD5-crypt, `{SHA}`, `{SSHA}`; or the password. `${NAME}` is expanded.
    password: String,
}

impl JsonSchema for User {
    fn schema_name() -> Cow<'static, str> {
        UserSettings::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        UserSettings::json_schema(generator)
    }
}

impl<'de> Deserialize<'de> for User {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<User, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = User;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map with `username` and `password`, or a text `name:password`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<User, E> {
                let (username, password) =
                    text.split_once(':').ok_or_else(|| E::custom("no `:` between name and password"))?;
                Ok(User { username: username.to_owned(), password: password.to_owned() })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<User, A::Error> {
                let UserSettings { username, password } = Deserialize::deserialize(MapAccessDeserializer::new(map))?;
                Ok(User { username, password })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Settings for Basic {
    const KIND: &'static [&'static str] = &["basic", "basicAuth"];
    const GUARDS: bool = true;
    const EXAMPLE: &'static str = include_str!("../../../conf/examples/middlewares/basic.yml");

    fn build(self, scope: &Scope<'_>) -> Result<Part, Vec<Problem>> {
        let place = scope.place.child("rule");
        let mut problems = Vec::new();
        let challenge = basic_challenge(&self.realm).unwrap_or_else(|_| {
            problems.push(place.child("realm").error("holds control characters", "use one plain line"));
            HeaderValue::from_static("Basic")
        });
        if self.users.is_empty() {
            problems
                .push(place.child("users").error("are missing", "list who may pass, each with username and password"));
        }
        let mut users: Vec<(Box<str>, Stored)> = Vec::new();
        for (index, user) in self.users.iter().enumerate() {
            let place = place.child("users").item(index);
            let (name, password) = ((scope.expand)(&user.username), (scope.expand)(&user.password));
            if name.is_empty() {
                problems.push(place.child("username").error("is empty", "give every user a name"));
            }
            if password.is_empty() {
                problems.push(place.child("password").error("is empty", "give every user a password, best as a hash"));
                continue;
            }
            if let Some(problem) = unset(&place.child("password"), &password, "the hash itself") {
                problems.push(problem);
                continue;
            }
            match Stored::read(&password) {
                Ok(stored) => users.push((name.into(), stored)),
                Err(why) => {
                    let remedy = "use bcrypt, argon2, SHA-crypt, MD5-crypt, {SHA} or {SSHA}";
                    problems.push(place.child("password").error(why, remedy));
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Part::Step(Arc::new(Login {
            guard: Guard::new(scope, Basic::KIND[0]),
            challenge,
            forward: self.forward_username,
            keep_authorization: self.forward_authorization,
            username: USERNAME.into(),
            stand_in: users
                .iter()
                .find(|(_, stored)| stored.is_slow())
                .or(users.first())
                .map(|(_, stored)| stored.clone()),
            users,
            checker: scope.tools.checker.clone(),
        })))
    }
}

/// The step.
struct Login {
    guard: Guard,
    challenge: HeaderValue,
    users: Vec<(Box<str>, Stored)>,
    /// What an unknown user's password is held against, so that it takes as long as a known one's.
    stand_in: Option<Stored>,
    forward: bool,
    keep_authorization: bool,
    username: Spelled,
    checker: Arc<Checker>,
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
        let known = self.users.iter().find(|(name, _)| **name == *credentials.user).map(|(_, stored)| stored);
        let held = known.or(self.stand_in.as_ref());
        let quick = held.filter(|stored| !stored.is_slow());
        let right = quick.is_some_and(|stored| stored.takes(&credentials.password)) && known.is_some();
        let slow = held.into_iter().chain(self.stand_in.as_ref()).find(|stored| stored.is_slow());
        // Where some are slow, whoever is wrong waits as long: time shows neither who is there nor in which form.
        let (Some(slow), false) = (slow, right) else {
            return self.decide(known.is_some(), right, &credentials, head);
        };
        let own = known.is_some() && quick.is_none();
        if own && self.checker.remembers(&credentials.user, &credentials.password, slow) {
            return self.decide(true, true, &credentials, head);
        }
        Flow::Wait(Box::pin(async move {
            match self.checker.check(exchange.client, &credentials.user, &credentials.password, slow).await {
                Ok(right) => self.decide(known.is_some(), right && own, &credentials, head),
                Err(Busy) => Flow::Reply(self.guard.fail("busy", busy())),
            }
        }))
    }

    fn identity(&self) -> &[HeaderName] {
        &IDENTITY
    }
}

impl Login {
    fn decide<'a>(
        &self,
        known: bool,
        right: bool,
        credentials: &BasicCredentials,
        head: &mut RequestHeader,
    ) -> Flow<'a> {
        if !known || !right {
            return Flow::Reply(self.deny(if known { "wrong_password" } else { "unknown_user" }));
        }
        if !self.keep_authorization {
            head.remove_header(&header::AUTHORIZATION);
        }
        if self.forward {
            match HeaderValue::from_str(&credentials.user) {
                Ok(name) => self.username.ask(head, name),
                Err(_) => return Flow::Reply(self.deny("malformed")),
            }
        }
        self.guard.allow();
        Flow::Next
    }

    fn deny(&self, reason: &'static str) -> Verdict {
        self.guard.deny(reason, unauthorized(&self.challenge))
    }
}

fn busy() -> Reply {
    Reply::plain(StatusCode::SERVICE_UNAVAILABLE).header(header::RETRY_AFTER, HeaderValue::from_static("1"))
}
