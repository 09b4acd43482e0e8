//! Settings of `jwt` and how they become the step.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::claims::ClaimPath;
use super::expression::Expression;
use super::jwks::KeySet;
use super::keys::{Algorithm, Algorithms, Key};
use super::seen::Seen;
use super::store::{Keys, Local};
use super::token::Demands;
use super::{Guard, Source, Step};
use crate::config::{Place, Problem, nearest, units};
use crate::middleware::auth::{is_of_connection, unset};
use crate::middleware::{Part, Scope, Settings};

/// Lets requests with a valid JSON Web Token (`Authorization: Bearer …`) pass, and tells the backend what it says. Without
/// `paths` the whole route is protected. Of several keys one counts: `jwksUrl`, else `secret`, else `jwksFile` if it holds
/// keys, else `publicKey`.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Jwt {
    /// Shared secret of HMAC tokens, as it is; at least as many bytes as the hash (32 for HS256).
    secret: String,
    /// Public key: PEM (`PUBLIC KEY`, `RSA PUBLIC KEY` or `CERTIFICATE`; RSA of 2048 bits and more, P-256, P-384, P-521 or
    /// Ed25519), base64 of it, or the path of a file, which is read again when it changes.
    public_key: String,
    /// URL of a JSON Web Key Set. It is fetched in the background, every ten minutes and when a token names a key that is not
    /// in it; while it cannot be fetched the last one counts, and 503 is the answer if there never was one. Tokens have to
    /// name their key (`kid`).
    jwks_url: String,
    /// A JSON Web Key Set: JSON, base64 of it, or the path of a file, which is read again when it changes.
    jwks_file: String,
    /// Algorithms that tokens may be signed with: HS256, HS384, HS512 with a secret; RS, PS and ES with 256, 384 or 512, and
    /// EdDSA with the others. Default: all that fit the key.
    algorithms: Vec<String>,
    /// Older key for one algorithm (also `algo`); counts if `algorithms` is empty.
    #[serde(alias = "algo")]
    alg: String,
    /// What `iss` has to be; not checked by default.
    issuer: String,
    /// What `aud` has to be, or to hold; not checked by default.
    audience: String,
    /// How far clocks may differ for `exp` and `nbf`: a duration such as `30s`, or seconds. Default: not at all.
    leeway: String,
    /// What else the claims have to say: ``Equals(`claim`, 'value')``, `Prefix`, `Contains` and `OneOf` (with several values),
    /// joined by `!`, `&&`, `||` and parentheses; claims in objects by `outer.inner`. A claim that is missing denies.
    claims_expression: String,
    /// Headers for the backend, each with the claim it gets. What clients send under these names never arrives.
    forward_headers: BTreeMap<String, String>,
    /// Whether the backend gets `Authorization` as well.
    forward_authorization: bool,
}

impl Settings for Jwt {
    const KIND: &'static [&'static str] = &["jwt", "jwtAuth"];
    const GUARDS: bool = true;
    const EXAMPLE: &'static str = include_str!("../../../conf/examples/middlewares/jwt.yml");

    fn doubts(&self, scope: &Scope<'_>) -> Vec<Problem> {
        let rule = scope.place.child("rule");
        let mut doubts = Vec::new();
        if let [used, others @ ..] = &*self.sources() {
            let unused = others.iter().map(|other| {
                rule.child(other)
                    .warning(format!("does not count: the keys are those of `{used}`"), "remove one of the two")
            });
            doubts.extend(unused.filter(|_| *used != "jwksFile"));
            if *used == "secret" && self.secret.len() < SECRET {
                let length = self.secret.len();
                let place = rule.child("secret");
                doubts
                    .push(place.warning(format!("has {length} bytes: short secrets can be guessed"), "use 32 or more"));
            }
        }
        doubts
    }

    fn build(self, scope: &Scope<'_>) -> Result<Part, Vec<Problem>> {
        let rule = scope.place.child("rule");
        let mut problems = Vec::new();
        let algorithms = noted(self.algorithms(&rule), &mut problems);
        let keys = noted(self.keys(scope, &rule), &mut problems);
        let demands = self.demands(&rule, &mut problems);
        let forward = self.forward(&rule, &mut problems);
        let (Some(algorithms), Some(keys), true) = (algorithms, keys, problems.is_empty()) else {
            return Err(problems);
        };
        let fitting = match &keys {
            Source::Local(local) => local.keys().algorithms(),
            Source::Remote(_) => Algorithms::public(),
        };
        let algorithms = algorithms.unwrap_or(fitting).and(fitting);
        if algorithms.is_empty() {
            let key = if self.algorithms.is_empty() { "alg" } else { "algorithms" };
            return Err(vec![rule.child(key).error(
                format!("none of them works with the keys of `{}`", self.sources()[0]),
                format!("use {}", named(fitting)),
            )]);
        }
        // Its own `Authorization` must arrive here; it is replaced afterwards.
        let names = forward.iter().map(|(name, _)| name.clone());
        let identity = names.filter(|name| name != header::AUTHORIZATION).collect();
        let forward = forward.into_iter().map(|(name, path)| (name.into(), path)).collect();
        let keep_authorization = self.forward_authorization;
        let guard = Guard::new(scope, "jwt");
        Ok(Part::Step(Arc::new(Step {
            guard,
            keys,
            algorithms,
            demands,
            forward,
            identity,
            keep_authorization,
            seen: Seen::default(),
        })))
    }
}

impl Jwt {
    /// Keys of the sources that are given, the one that counts first.
    fn sources(&self) -> Vec<&'static str> {
        let given = [
            ("jwksUrl", &self.jwks_url),
            ("secret", &self.secret),
            ("jwksFile", &self.jwks_file),
            ("publicKey", &self.public_key),
        ];
        given.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, _)| key).collect()
    }

    fn keys(&self, scope: &Scope<'_>, rule: &Place) -> Result<Source, Problem> {
        let handle = scope.tools.handle.as_ref();
        match self.sources()[..] {
            ["jwksUrl", ..] => {
                scope.tools.key_sets.at(self.jwks_url.trim(), handle).map(Source::Remote).map_err(|error| {
                    rule.child("jwksUrl").error(error, "write it like https://id.example.com/.well-known/jwks.json")
                })
            }
            ["secret", ..] if is_public(&self.secret) => {
                let message = "is a public key: everybody who has it could make tokens";
                Err(rule.child("secret").error(message, "write it as `publicKey`"))
            }
            ["secret", ..] if let Some(problem) = unset(&rule.child("secret"), &self.secret, "the secret itself") => {
                Err(problem)
            }
            ["secret", ..] => Ok(Source::Local(Local::fixed(Keys::One(Key::secret(self.secret.as_bytes()))))),
            ["jwksFile", ref others @ ..] => {
                let place = rule.child("jwksFile");
                let local = Local::of(&self.jwks_file, "{", key_set, handle);
                let local = local.map_err(|error| place.error(error, "give JSON, base64 of it, or a path"))?;
                match (local.keys().is_empty(), others) {
                    (true, []) => Err(place.error(
                        "holds no key that can verify tokens",
                        "give public keys (RSA, EC or Ed25519) with `kid`, not meant for encryption",
                    )),
                    (true, [..]) => self.public_key(scope, rule),
                    (false, _) => Ok(Source::Local(local.clone())),
                }
            }
            ["publicKey", ..] => self.public_key(scope, rule),
            _ => {
                Err(rule
                    .error("names no key: every token would be refused", "set jwksUrl, secret, jwksFile or publicKey"))
            }
        }
    }

    fn public_key(&self, scope: &Scope<'_>, rule: &Place) -> Result<Source, Problem> {
        let local = Local::of(&self.public_key, "-----BEGIN", public_key, scope.tools.handle.as_ref());
        let remedy = "give PEM, base64 of it, or a path";
        local.map(Source::Local).map_err(|error| rule.child("publicKey").error(error, remedy))
    }

    /// The algorithms that are asked for; `None` when nothing is.
    fn algorithms(&self, rule: &Place) -> Result<Option<Algorithms>, Problem> {
        let older = (!self.alg.is_empty()).then_some(&self.alg);
        let (names, place): (Vec<&String>, _) = match (self.algorithms.is_empty(), older) {
            (false, _) => (self.algorithms.iter().collect(), rule.child("algorithms")),
            (true, Some(older)) => (vec![older], rule.child("alg")),
            (true, None) => return Ok(None),
        };
        let algorithm = |name: &&String| Algorithm::named(name).ok_or_else(|| unknown_algorithm(name, &place));
        names.iter().map(algorithm).collect::<Result<_, _>>().map(Some)
    }

    fn demands(&self, rule: &Place, problems: &mut Vec<Problem>) -> Demands {
        let filled = |text: &String| (!text.is_empty()).then(|| text.clone());
        let leeway = leeway(&self.leeway).map_err(|error| {
            let (message, remedy) = error.split_once("; ").unwrap_or((&error, "write it like 30s"));
            rule.child("leeway").error(message, remedy)
        });
        let expression = filled(&self.claims_expression).map(|text| Expression::parse(&text)).transpose();
        let expression = expression.map_err(|error| {
            let remedy = "write it like Equals(`role`, 'admin') && !OneOf(`org.name`, 'a', 'b')";
            rule.child("claimsExpression").error(error.to_string(), remedy)
        });
        Demands {
            issuer: filled(&self.issuer),
            audience: filled(&self.audience),
            leeway_s: noted(leeway, problems).unwrap_or_default().as_secs_f64(),
            expression: noted(expression, problems).flatten(),
        }
    }

    fn forward(&self, rule: &Place, problems: &mut Vec<Problem>) -> Vec<(HeaderName, ClaimPath)> {
        let place = rule.child("forwardHeaders");
        let mut forward = Vec::new();
        for (name, path) in &self.forward_headers {
            let place = place.child(name);
            match (HeaderName::try_from(name.trim()), ClaimPath::new(path)) {
                (Err(_), _) => {
                    problems.push(place.error(format!("`{name}` is no header name"), "use letters, digits and dashes"));
                }
                (Ok(header), _) if is_of_connection(&header) => {
                    problems.push(place.error(format!("`{name}` belongs to the connection"), "use another name"));
                }
                (Ok(_), None) => {
                    problems.push(place.error("names no claim", "write the path of a claim such as `sub`"))
                }
                (Ok(header), Some(path)) => forward.push((header, path)),
            }
        }
        forward
    }
}

fn noted<T>(result: Result<T, Problem>, problems: &mut Vec<Problem>) -> Option<T> {
    result.map_err(|problem| problems.push(problem)).ok()
}

fn key_set(json: &[u8]) -> Result<Keys, String> {
    KeySet::parse(json).map(Keys::Named).map_err(|error| error.to_string())
}

fn public_key(pem: &[u8]) -> Result<Keys, String> {
    Key::pem(pem).map(Keys::One).map_err(|error| error.to_string())
}

fn is_public(secret: &str) -> bool {
    ["PUBLIC KEY", "CERTIFICATE"].iter().any(|label| secret.contains(&format!("{label}-----")))
}

fn leeway(text: &str) -> Result<Duration, String> {
    match text.trim() {
        "" => Ok(Duration::ZERO),
        seconds if seconds.bytes().all(|byte| byte.is_ascii_digit()) => units::duration(&format!("{seconds}s")),
        text => units::duration(text),
    }
}

fn unknown_algorithm(name: &str, place: &Place) -> Problem {
    let known: Vec<&str> = Algorithm::NAMES.iter().map(|(name, _)| *name).collect();
    let remedy = match nearest(name, &known) {
        Some((near, _)) if !name.eq_ignore_ascii_case("none") => format!("did you mean `{near}`?"),
        _ => format!("use some of {}", known.join(", ")),
    };
    place.error(format!("`{name}` is no algorithm that protects a token"), remedy)
}

fn named(algorithms: Algorithms) -> String {
    let names = Algorithm::NAMES.iter().filter(|(_, algorithm)| algorithms.has(*algorithm));
    names.map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// Fewest bytes of a good secret (RFC 7518 §3.2, for the shortest hash).
const SECRET: usize = 32;
