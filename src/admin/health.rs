//! `/healthz`, `/readyz` and `/healthz/routes`. Core reference §7.2.

use serde::Serialize;

use super::Answer;

/// The body of `/healthz` and `/readyz`.
#[derive(Serialize)]
struct Status<'a> {
    name: &'static str,
    status: &'a str,
    error: &'a str,
}

/// `/healthz`: the process answers, so it lives.
pub fn health() -> Answer {
    status(200, "running", "")
}

/// `/readyz`: 200 while the gateway takes traffic, else 503.
pub fn ready(is_ready: bool) -> Answer {
    if is_ready { status(200, "running", "") } else { status(503, "not ready", "draining") }
}

fn status(code: u16, status: &str, error: &str) -> Answer {
    Answer::json(code, &Status { name: "Service Gateway", status, error })
}

/// Result of the last check of a backend.
#[derive(Clone, Debug)]
pub struct RouteHealth {
    /// Name of the route; with several backends `<route> - [<index>]`.
    pub name: String,
    /// Why the check failed, where it did.
    pub state: Result<(), String>,
}

#[derive(Serialize)]
struct Routes<'a> {
    status: &'static str,
    /// `null` when no route has a check, as in Goma.
    routes: Option<Vec<Route<'a>>>,
}

#[derive(Serialize)]
struct Route<'a> {
    name: &'a str,
    status: &'static str,
    error: String,
}

/// `/healthz/routes`: always 200, in the order given. Unlike Goma it starts no checks, and the status on top is `unhealthy`
/// as soon as one entry is. `hide_errors` is what the key `includeRouteHealthErrors` means, in Goma and here.
pub fn route_health(states: &[RouteHealth], hide_errors: bool) -> Answer {
    let all_healthy = states.iter().all(|entry| entry.state.is_ok());
    let shown = states.iter().map(|entry| Route {
        name: &entry.name,
        status: word(entry.state.is_ok()),
        error: match &entry.state {
            Ok(()) => String::new(),
            Err(_) if hide_errors => "Route healthcheck errors disabled".to_owned(),
            Err(error) => format!("Error: {error}"),
        },
    });
    let routes = (!states.is_empty()).then(|| shown.collect());
    Answer::json(200, &Routes { status: word(all_healthy), routes })
}

fn word(healthy: bool) -> &'static str {
    if healthy { "healthy" } else { "unhealthy" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn liveness_and_readiness_have_goma_s_body() {
        let running = "{\"name\":\"Service Gateway\",\"status\":\"running\",\"error\":\"\"}\n";
        for answer in [health(), ready(true)] {
            assert_eq!((answer.status, answer.content_type, &*answer.body), (200, "application/json", running));
        }
    }

    #[test]
    fn a_draining_gateway_is_not_ready() {
        let answer = ready(false);
        let body = "{\"name\":\"Service Gateway\",\"status\":\"not ready\",\"error\":\"draining\"}\n";
        assert_eq!((answer.status, &*answer.body), (503, body));
    }

    #[test]
    fn routes_are_listed_with_their_state() {
        let up = RouteHealth { name: "api".into(), state: Ok(()) };
        let down = RouteHealth { name: "shop - [1]".into(), state: Err("status <500>".into()) };
        for (states, hide_errors, body, what) in [
            (vec![], false, r#"{"status":"healthy","routes":null}"#, "no checks"),
            (
                vec![up.clone()],
                true,
                r#"{"status":"healthy","routes":[{"name":"api","status":"healthy","error":""}]}"#,
                "all healthy",
            ),
            (
                vec![up, down.clone()],
                false,
                r#"{"status":"unhealthy","routes":[{"name":"api","status":"healthy","error":""},{"name":"shop - [1]","status":"unhealthy","error":"Error: status \u003c500\u003e"}]}"#,
                "one down",
            ),
            (
                vec![down],
                true,
                r#"{"status":"unhealthy","routes":[{"name":"shop - [1]","status":"unhealthy","error":"Route healthcheck errors disabled"}]}"#,
                "cause hidden",
            ),
        ] {
            let answer = route_health(&states, hide_errors);
            assert_eq!((answer.status, answer.body), (200, format!("{body}\n")), "{what}");
        }
    }
}
