//! The older `cors` and `errorInterceptor` sections of the gateway and of routes (goma-core §5.6, §5.7).

use std::collections::BTreeMap;

use serde::Deserialize;

/// Older CORS. §5.6.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Cors {
    /// Default true.
    pub enabled: bool,
    /// Origins that may read.
    pub origins: Vec<String>,
    /// Empty: what the browser asks for.
    pub allowed_headers: Vec<String>,
    /// Empty: what the browser asks for. The route's methods are added.
    pub allow_methods: Vec<String>,
    /// Response headers scripts may see.
    pub expose_headers: Vec<String>,
    /// Sent with every response.
    pub headers: BTreeMap<String, String>,
    /// How long a browser may remember a preflight, seconds. Default 0: not sent.
    pub max_age: i64,
    /// Default false.
    pub allow_credentials: bool,
}

impl Default for Cors {
    fn default() -> Cors {
        Cors {
            enabled: true,
            origins: Vec::new(),
            allowed_headers: Vec::new(),
            allow_methods: Vec::new(),
            expose_headers: Vec::new(),
            headers: BTreeMap::new(),
            max_age: 0,
            allow_credentials: false,
        }
    }
}

impl Cors {
    /// Whether it says nothing besides `enabled`; such a section of a route takes the gateway's.
    pub fn is_empty(&self) -> bool {
        *self == Cors { enabled: self.enabled, ..Cors::default() }
    }
}

/// Older error interceptor. §5.7.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ErrorInterceptor {
    /// Default false.
    pub enabled: bool,
    /// Empty: chosen from the request.
    pub content_type: String,
    /// What to replace; the first that fits.
    pub errors: Vec<InterceptedError>,
}

/// One status to replace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct InterceptedError {
    /// The status it is for.
    pub status_code: u16,
    /// An older name of it; where both are there, both count.
    pub status: u16,
    /// Another one.
    pub code: u16,
    /// The body to send; empty for the file, or else the status as text.
    pub body: String,
    /// A file to send.
    pub file: String,
}
