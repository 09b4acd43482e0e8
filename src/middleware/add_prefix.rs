//! Adds a fixed prefix to the request path.
//!
//! `/b` becomes `/a/b`; the query is kept. Routing already happened; the route's own `rewrite` comes later and does not see
//! the route's path as a prefix any more. One slash joins the two, whether the prefix ends with one or not (Goma joined
//! `/prefix` and `/api` to `/prefixapi`; design ruling on its weak point W-37).
//!
//! ```yaml
//! - name: v1
//!   type: addPrefix
//!   rule: { prefix: /v1 }
//! ```

use std::sync::Arc;

use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Flow, Middleware, Part, Scope, Settings};
use crate::config::Problem;
use crate::exchange::Exchange;
use crate::gate;

/// Adds a fixed prefix to the request path, joined with one slash; the query is kept.
#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct AddPrefix {
    /// Path to put in front; empty does nothing.
    prefix: String,
}

impl Settings for AddPrefix {
    const KIND: &'static [&'static str] = &["addPrefix"];
    const GUARDS: bool = false;
    const PATHS: bool = false;
    const EXAMPLE: &'static str = include_str!("../../conf/examples/middlewares/addPrefix.yml");

    fn build(self, scope: &Scope<'_>) -> Result<Part, Vec<Problem>> {
        let trimmed = self.prefix.trim_matches('/');
        let prefix = if trimmed.is_empty() { String::new() } else { format!("/{trimmed}") };
        if gate::path(&prefix).is_err() || prefix.contains(['?', '#', ' ']) {
            let place = scope.place.child("rule").child("prefix");
            let message = format!("`{}` is no path", self.prefix);
            return Err(vec![place.error(message, "use a path such as `/v1`, percent-encoded where needed")]);
        }
        Ok(Part::Step(Arc::new(Prefix(prefix))))
    }
}

struct Prefix(String);

impl Middleware for Prefix {
    fn request<'a>(&'a self, exchange: &'a mut Exchange, _: &'a mut RequestHeader) -> Flow<'a> {
        let mut path = String::with_capacity(self.0.len() + exchange.path.len());
        path.push_str(&self.0);
        path.push_str(&exchange.path);
        exchange.path = path;
        Flow::Next
    }
}
