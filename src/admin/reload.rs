//! `POST /gateway/reload`: its answers, and who may ask. Core reference §8.1.

use std::time::Duration;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::Answer;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    duration_ms: u64,
    routes: usize,
    status: &'static str,
}

#[derive(Serialize)]
struct Failed<'a> {
    error: &'a str,
    status: &'static str,
}

/// The configuration was read and is in force, with so many routes.
pub fn reload_done(took: Duration, routes: usize) -> Answer {
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    Answer::json(200, &Done { duration_ms, routes, status: "ok" })
}

/// The token is missing or wrong.
pub fn reload_unauthorized() -> Answer {
    failure(401, "unauthorized")
}

/// The configuration was refused; the old one stays.
pub fn reload_failed(error: &str) -> Answer {
    failure(500, error)
}

fn failure(status: u16, error: &str) -> Answer {
    Answer::json(status, &Failed { error, status: "error" })
}

/// Does this `Authorization` header carry the token? Takes the same time wherever the two differ. Both are trimmed; an
/// empty token admits nobody.
pub fn bearer(header: Option<&[u8]>, token: &str) -> bool {
    let token = token.trim();
    let Some((scheme, given)) = header.and_then(|header| header.split_at_checked(BEARER.len())) else {
        return false;
    };
    // Digests have one length, so that neither length nor first difference shows in the time taken.
    let given = Sha256::digest(given.trim_ascii());
    let expected = Sha256::digest(token.as_bytes());
    let difference = given.iter().zip(expected).fold(0, |difference, (a, b)| difference | (a ^ b));
    scheme.eq_ignore_ascii_case(BEARER) && !token.is_empty() && std::hint::black_box(difference) == 0
}

const BEARER: &[u8] = b"Bearer ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_goma_s_bodies() {
        for (answer, status, body) in [
            (reload_done(Duration::from_millis(12), 3), 200, r#"{"durationMs":12,"routes":3,"status":"ok"}"#),
            (reload_unauthorized(), 401, r#"{"error":"unauthorized","status":"error"}"#),
            (reload_failed("routes[0].path: \"x\""), 500, r#"{"error":"routes[0].path: \"x\"","status":"error"}"#),
        ] {
            assert_eq!(
                (answer.status, answer.content_type, answer.body),
                (status, "application/json", format!("{body}\n"))
            );
        }
    }

    #[test]
    fn only_the_token_admits() {
        for (header, token, admitted, what) in [
            (Some("Bearer secret"), "secret", true, "the token"),
            (Some("bearer  secret "), " secret\n", true, "spaces and case of the scheme do not matter"),
            (Some("Bearer Secret"), "secret", false, "case of the token does"),
            (Some("Bearer secre"), "secret", false, "a part"),
            (Some("Bearer secrets"), "secret", false, "more than it"),
            (Some("Basic secret"), "secret", false, "another scheme"),
            (Some("secret"), "secret", false, "no scheme"),
            (Some("Bearer"), "secret", false, "no token"),
            (Some("Bearer "), "", false, "an empty token set"),
            (Some("Bearer "), "  ", false, "a blank token set"),
            (None, "secret", false, "no header"),
        ] {
            assert_eq!(bearer(header.map(str::as_bytes), token), admitted, "{what}");
        }
    }
}
