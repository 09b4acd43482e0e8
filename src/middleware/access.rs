//! Blocks the listed paths.
//!
//! Nothing else is looked at: neither method nor address. Without `paths` it blocks nothing. Spec middlewares §5.1.
//!
//! ```yaml
//! - name: no-admin
//!   type: access
//!   paths: [/admin, /internal/*]
//!   rule: { statusCode: 404 }
//! ```

use std::sync::Arc;

use http::StatusCode;
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Flow, Middleware, Part, Paths, Scope, Settings, Verdict};
use crate::config::Problem;
use crate::exchange::Exchange;
use crate::reply::Reply;

/// Blocks the listed paths for everybody. Without `paths` it blocks nothing.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Access {
    /// Status of the refusal; zero and below mean the default, 403.
    status_code: i64,
}

impl Default for Access {
    fn default() -> Self {
        Access { status_code: 403 }
    }
}

impl Settings for Access {
    const KIND: &'static [&'static str] = &["access"];
    const GUARDS: bool = true;
    const EXAMPLE: &'static str = include_str!("../../conf/examples/middlewares/access.yml");

    fn doubts(&self, scope: &Scope<'_>) -> Vec<Problem> {
        let paths = scope.place.child("paths");
        let none =
            (!paths.is_present()).then(|| paths.warning("are missing: nothing is blocked", "list what to block"));
        none.into_iter().collect()
    }

    fn build(self, scope: &Scope<'_>) -> Result<Part, Vec<Problem>> {
        let status = match self.status_code {
            ..=0 => Ok(StatusCode::FORBIDDEN),
            code @ 200..=599 => StatusCode::from_u16(code as u16),
            _ => return Err(vec![wrong_status(scope, self.status_code)]),
        };
        let status = status.map_err(|_| vec![wrong_status(scope, self.status_code)])?;
        Ok(Part::Step(Arc::new(Blocked { paths: Paths::of(scope), status })))
    }
}

fn wrong_status(scope: &Scope<'_>, code: i64) -> Problem {
    scope.place.child("rule").child("statusCode").error(format!("{code} is no status of a response"), "use 200 to 599")
}

struct Blocked {
    paths: Paths,
    status: StatusCode,
}

impl Middleware for Blocked {
    fn request<'a>(&'a self, exchange: &'a mut Exchange, _: &'a mut RequestHeader) -> Flow<'a> {
        if self.paths.guard(&exchange.path) {
            return Flow::Reply(Verdict::refuse(Reply::plain(self.status), ""));
        }
        Flow::Next
    }
}
