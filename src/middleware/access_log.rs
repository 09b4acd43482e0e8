//! Adds fields to the access line of each request.
//!
//! Part of the shell: where it stands among the middlewares does not matter, and of several the last one counts. A header
//! goes under its name in lower case, a query parameter and a cookie under their own; what is absent or empty leaves no
//! field. Values of headers, parameters and cookies that hold secrets are replaced. Spec middlewares §5.21, W-42.

use std::borrow::Cow;

use http::HeaderName;
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Part, Scope, Settings};
use crate::config::Problem;
use crate::fields;
use crate::telemetry::redact;

/// Adds headers, query parameters and cookies of the request to its access line. Secrets are replaced.
#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessLog {
    /// Names of request headers to log.
    headers: Vec<String>,
    /// Names of query parameters to log; of several with one name the first.
    query: Vec<String>,
    /// Names of cookies to log.
    cookies: Vec<String>,
}

impl Settings for AccessLog {
    const KIND: &'static [&'static str] = &["accessLog"];
    const GUARDS: bool = false;
    const PATHS: bool = false;
    const EXAMPLE: &'static str = include_str!("../../conf/examples/middlewares/accessLog.yml");

    fn build(self, scope: &Scope<'_>) -> Result<Part, Vec<Problem>> {
        let place = scope.place.child("rule");
        if self.headers.is_empty() && self.query.is_empty() && self.cookies.is_empty() {
            return Err(vec![place.error("nothing to log", "list `headers`, `query` or `cookies`")]);
        }
        let mut problems = Vec::new();
        let mut headers = Vec::new();
        for (index, name) in self.headers.iter().enumerate() {
            match HeaderName::try_from(name.trim()) {
                Ok(name) => headers.push(name),
                Err(_) => {
                    let place = place.child("headers").item(index);
                    problems.push(place.error(format!("`{name}` is no header name"), "use letters, digits and dashes"));
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Part::LogFields(Fields { headers, query: self.query, cookies: self.cookies }))
    }
}

/// Fields to add to the access line.
#[derive(Debug)]
pub struct Fields {
    headers: Vec<HeaderName>,
    query: Vec<String>,
    cookies: Vec<String>,
}

impl Fields {
    /// Names and values for one request; `query` is the raw one.
    pub fn of(&self, head: &RequestHeader, query: Option<&str>) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        let mut add = |name: &str, value: Cow<'_, str>| {
            if !value.is_empty() {
                let value = if redact::is_secret(name) { redact::REDACTED.to_owned() } else { value.into_owned() };
                fields.push((name.to_owned(), value));
            }
        };
        for name in &self.headers {
            if let Some(value) = head.headers.get(name) {
                add(name.as_str(), String::from_utf8_lossy(value.as_bytes()));
            }
        }
        for name in &self.query {
            add(name, fields::parameter(query.unwrap_or_default(), name).unwrap_or_default());
        }
        for name in &self.cookies {
            add(name, fields::cookie(&head.headers, name).unwrap_or_default().into());
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_take_the_values_that_are_there_and_hide_secrets() {
        let mut head = RequestHeader::build("GET", b"/", None).expect("a head");
        for (name, value) in [("X-Tenant", "acme"), ("Authorization", "Bearer s3"), ("Cookie", "a=1; theme=dark")] {
            head.append_header(name, value).expect("a header");
        }
        let fields = Fields {
            headers: ["x-tenant", "authorization", "x-none"].map(HeaderName::from_static).to_vec(),
            query: vec!["page".into(), "none".into(), "token".into()],
            cookies: vec!["theme".into()],
        };
        let found = fields.of(&head, Some("page=1%20a&page=2&token=s3"));
        let expected = [
            ("x-tenant", "acme"),
            ("authorization", redact::REDACTED),
            ("page", "1 a"),
            ("token", redact::REDACTED),
            ("theme", "dark"),
        ];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
