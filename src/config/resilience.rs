//! What becomes of requests and backends when a backend fails (ours).

use std::time::Duration;

use serde::Deserialize;

use super::units;

/// The `timeouts` of a route: deadlines towards its backends, Go durations. 0 or absent: what holds for the gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RouteTimeouts {
    /// For the TCP connection to one address, and the first look-up of a name. Default 5 s.
    #[serde(deserialize_with = "limit")]
    pub connect: Option<Duration>,
    /// From the end of the request to the head of the response, each attempt. Default `networking.transport.responseHeaderTimeout`.
    #[serde(deserialize_with = "limit")]
    pub response_header: Option<Duration>,
    /// Longest silence of a backend within its response. Default none.
    #[serde(deserialize_with = "limit")]
    pub idle: Option<Duration>,
    /// From the end of the request's head to the end of the response, all attempts together. Default none.
    #[serde(deserialize_with = "limit")]
    pub total: Option<Duration>,
}

fn limit<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Duration>, D::Error> {
    Ok(units::filled_duration(value)?.filter(|limit| !limit.is_zero()))
}

/// The `retry` of a route. Without it only what cannot have had an effect is sent again.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Retry {
    /// Most attempts for a request, the first included: 1 to 10. Default 3.
    pub attempts: u32,
    /// What is tried again: `connect`, `reset`, `timeout`, `5xx`, or single statuses. Default connect, reset, timeout, 502, 503, 504.
    pub on: Vec<String>,
    /// How many retries there may be in all.
    pub budget: Budget,
    /// Longest wait for the head of a response in one attempt, where the request may be tried again. Default none.
    #[serde(deserialize_with = "limit")]
    pub per_try_timeout: Option<Duration>,
    /// Pause before the second attempt, doubled for each further one, up to a second. Default 0 s.
    #[serde(deserialize_with = "units::go_duration")]
    pub backoff: Duration,
    /// Methods beside the idempotent ones that may be tried again although a backend may have acted on them. Default none.
    pub methods: Vec<String>,
}

impl Default for Retry {
    fn default() -> Retry {
        let on = ["connect", "reset", "timeout", "502", "503", "504"];
        Retry {
            attempts: 3,
            on: on.map(str::to_owned).to_vec(),
            budget: Budget::default(),
            per_try_timeout: None,
            backoff: Duration::ZERO,
            methods: Vec::new(),
        }
    }
}

/// How many retries a route may make: a share of its requests of the last ten seconds, and some more.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Budget {
    /// In percent of the requests. Default 20.
    pub percent: u32,
    /// A second, beside the share. Default 10.
    pub per_second: u32,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { percent: 20, per_second: 10 }
    }
}

/// The `hedge` of a route: a request that waits goes to a second backend as well, and the first good answer counts. Requests
/// without a body of the methods GET, HEAD and OPTIONS only.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Hedge {
    /// How long the first backend has for the head of its response; the same again before each further one. Has to be set:
    /// about what nine in ten requests, or more, need anyway.
    #[serde(deserialize_with = "units::go_duration")]
    pub after: Duration,
    /// How many more backends than one a request may go to: 1 to 3. Default 1.
    pub max_extra: u32,
    /// How many requests it may be done for.
    pub budget: HedgeBudget,
}

impl Default for Hedge {
    fn default() -> Hedge {
        Hedge { after: Duration::ZERO, max_extra: 1, budget: HedgeBudget::default() }
    }
}

/// How often a route may ask one backend more: for a share of its requests of the last ten seconds, and some more.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HedgeBudget {
    /// In percent of the requests. Default 10.
    pub percent: u32,
    /// A second, beside the share. Default 1.
    pub per_second: u32,
}

impl Default for HedgeBudget {
    fn default() -> HedgeBudget {
        HedgeBudget { percent: 10, per_second: 1 }
    }
}

/// The `outlier` of a route: backends that fail requests are left out for a while.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Outlier {
    /// Failures in a row that take a backend out. Default 5.
    pub failures: u32,
    /// What is a failure: as in `retry.on`. Default connect, reset, timeout, 5xx.
    pub on: Vec<String>,
    /// How long the first time; each further time in a row twice as long. Default 10 s.
    #[serde(deserialize_with = "units::go_duration")]
    pub ejection: Duration,
    /// How long at most. Default 5 m.
    #[serde(deserialize_with = "units::go_duration")]
    pub max_ejection: Duration,
    /// How many of the backends may be out, in percent; of several always one. Default 50.
    pub max_ejected_percent: u32,
}

impl Default for Outlier {
    fn default() -> Outlier {
        let on = ["connect", "reset", "timeout", "5xx"];
        Outlier {
            failures: 5,
            on: on.map(str::to_owned).to_vec(),
            ejection: Duration::from_secs(10),
            max_ejection: Duration::from_secs(300),
            max_ejected_percent: 50,
        }
    }
}

/// The `circuitBreaker` of a route: a backend that fails too large a share of its requests gets none for a while.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// Share of failed requests that opens it, in percent. Default 50.
    pub failure_percent: u32,
    /// Fewer requests than so many within the window open nothing. Default 20.
    pub min_requests: u32,
    /// How far back requests count, whole seconds. Default 10 s.
    #[serde(deserialize_with = "units::go_duration")]
    pub window: Duration,
    /// How long it stays open before requests try the backend again. Default 5 s.
    #[serde(deserialize_with = "units::go_duration")]
    pub open: Duration,
    /// So many requests at a time try it then; as many good ones close it. Default 3.
    pub probes: u32,
    /// What is a failure: as in `retry.on`. Default connect, reset, timeout, 5xx.
    pub on: Vec<String>,
}

impl Default for CircuitBreaker {
    fn default() -> CircuitBreaker {
        CircuitBreaker {
            failure_percent: 50,
            min_requests: 20,
            window: Duration::from_secs(10),
            open: Duration::from_secs(5),
            probes: 3,
            on: Outlier::default().on,
        }
    }
}

/// The `queue` of a bound: who waits for a free place, and how long.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Queue {
    /// Requests that may wait; 0 for none. Default 100.
    pub size: u32,
    /// How long each. Default 1 s.
    #[serde(deserialize_with = "units::go_duration")]
    pub timeout: Duration,
}

impl Default for Queue {
    fn default() -> Queue {
        Queue { size: 100, timeout: Duration::from_secs(1) }
    }
}
