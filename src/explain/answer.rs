//! The explanation as data. The names of its fields and the words in them are what scripts may rely on.

use serde::Serialize;

/// What would become of a request.
#[derive(Debug, Default, Serialize)]
pub struct Explanation {
    /// The reason word of log and metric: `ok`, `no_route`, `method_not_allowed`, `denied:access`, `maintenance`, ...
    pub outcome: String,
    /// Status of the gateway's own reply; `null` when a backend answers.
    pub status: Option<u16>,
    /// One more sentence, where there is one to say.
    pub detail: Option<String>,
    /// Where a redirect leads.
    pub location: Option<String>,
    /// Name of the route that takes the request.
    pub route: Option<String>,
    /// The gateway's own endpoint that takes it: `health`, `ready`, `metrics`, `route_health`, `reload`,
    /// `cache`.
    pub endpoint: Option<&'static str>,
    /// The request's method.
    pub method: String,
    /// Methods that the route lets through; empty for all.
    pub allowed_methods: Vec<String>,
    /// The host as the client wrote it.
    pub host: String,
    /// Address of the client, behind trusted proxies as well.
    pub client: String,
    /// Address that the connection comes from.
    pub peer: String,
    /// Whether what this peer says about the client counts.
    pub peer_is_trusted: bool,
    /// `http` or `https` as the client sees it.
    pub scheme: &'static str,
    /// What the handshake comes to; `null` without TLS.
    pub tls: Option<Tls>,
    /// Whether the route is in maintenance.
    pub maintenance: bool,
    /// The chain, in its order.
    pub middlewares: Vec<Middleware>,
    /// The path that was matched, as the client sent it.
    pub path: String,
    /// The path after the chain; `null` when no chain was walked.
    pub path_after_middlewares: Option<String>,
    /// Path and query that the first of `backends` gets; `null` when none does.
    pub sent: Option<String>,
    /// What happens to the request's headers on the way to the first of `backends`.
    pub headers: Option<Headers>,
    /// Backends that may get it, in the order of the configuration.
    pub backends: Vec<Backend>,
    /// The other backends of the route, and why not.
    pub other_backends: Vec<Backend>,
    /// What the route says about backends that fail, a sentence each.
    pub policies: Vec<String>,
    /// Routes that come near, the best first, and what became of each.
    pub considered: Vec<Considered>,
}

/// What a handshake for the request's host comes to.
#[derive(Debug, Serialize)]
pub struct Tls {
    /// Names of the certificate that is shown, of one for each kind of key; no names for the one that signed itself.
    pub certificates: Vec<Vec<String>>,
    /// `required`, `checked` (when one is shown) or `not_asked`.
    pub client_certificate: &'static str,
}

/// A middleware of the chain.
#[derive(Debug, Serialize)]
pub struct Middleware {
    /// Its name.
    pub name: String,
    /// Its kind, as written.
    pub kind: String,
    /// What it does.
    pub verdict: Said,
    /// Status of its reply, when it ends the request.
    pub status: Option<u16>,
}

/// What a middleware does with the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// Lets it pass, maybe changed.
    Passes,
    /// Refuses it.
    Refuses,
    /// Answers it.
    Answers,
    /// Would ask another server or checks a slow hash; not tried here.
    MustAsk,
    /// Changes the response.
    Applies,
    /// Is for other paths.
    OtherPaths,
    /// Is not reached.
    NotReached,
}

/// Changes to the request's headers.
#[derive(Debug, Default, Serialize)]
pub struct Headers {
    /// Set or replaced.
    pub set: Vec<Header>,
    /// Names of those that do not reach the backend.
    pub removed: Vec<String>,
}

/// One header.
#[derive(Debug, Serialize)]
pub struct Header {
    /// Its name in lower case.
    pub name: String,
    /// Its value; secrets are replaced.
    pub value: String,
}

/// One backend of the route.
#[derive(Debug, Serialize)]
pub struct Backend {
    /// Its endpoint, without credentials.
    pub name: String,
    /// Its weight.
    pub weight: u32,
    /// Share of such requests that it gets, in percent; `null` when it gets none.
    pub share: Option<f64>,
    /// The `Host` field it gets.
    pub host: Option<String>,
    /// Path and query it gets; secrets in the query are replaced.
    pub sent: Option<String>,
    /// Why it may get the request, or why not.
    pub reason: String,
}

/// A route that comes near.
#[derive(Debug, Serialize)]
pub struct Considered {
    /// Its name; `gateway:...` for the gateway's own endpoints.
    pub route: String,
    /// Its path.
    pub path: String,
    /// The host pattern of it that matches; `*` for any, `null` for none.
    pub host: Option<String>,
    /// `taken`, `method`, `host`, `path`, `other_form`, `disabled`, `outranked:` and what decided.
    pub outcome: &'static str,
    /// The same as a sentence.
    #[serde(skip)]
    pub sentence: String,
}
