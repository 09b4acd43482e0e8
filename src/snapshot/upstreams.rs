//! The backends of a route, in the terms of `upstream`.

use std::sync::Arc;
use std::time::Duration;

use super::policies;
use crate::config::{self, BackendTls, Config, OPERATORS, Place, Problem, Report, Route, SOURCES};
use crate::upstream::{
    BackendSettings, ClientCertificate, HealthSettings, Match, Registry, SettingError, Settings, Tls, Transport,
    Upstream,
};

/// Builds the upstream of a route, or reports why not.
pub fn upstream(route: &Route, config: &Config, registry: &Registry, report: &mut Report) -> Option<Arc<Upstream>> {
    let tls = tls(route, config, report)?;
    let settings = Settings {
        name: route.name.clone(),
        backends: backends(route, report),
        balance: policies::balance(route, origin_bound(config).is_some()),
        guard: policies::guard(route),
        retry: policies::retry(route),
        hedge: policies::hedge(route),
        origin_bound: origin_bound(config),
        health: route.health_check.as_ref().filter(|_| route.enabled).map(|check| HealthSettings {
            path: check.path.clone(),
            interval: check.interval,
            timeout: check.timeout,
            healthy: check.healthy_statuses.clone(),
            rise: check.rise,
            fall: check.fall,
        }),
        transport: transport(route, config),
        tls,
    };
    match registry.upstream(&settings) {
        Ok((upstream, warnings)) => {
            for warning in warnings {
                report.add(route.at.warning(warning, ""));
            }
            Some(upstream)
        }
        Err(errors) => {
            errors.iter().for_each(|error| report.add(problem(route, error)));
            None
        }
    }
}

fn problem(route: &Route, error: &SettingError) -> Problem {
    let place = match (error.backend, route.backends.is_empty()) {
        (Some(index), false) => route.at.child("backends").item(index).child(error.field),
        (Some(_), true) => route.at.child("target"),
        (None, _) if error.field.starts_with("healthCheck") => route.at.child("healthCheck").child("path"),
        (None, _) => route.at.child("security").child("tls").child(error.field),
    };
    place.error(error.message.clone(), error.remedy.clone())
}

fn backends(route: &Route, report: &mut Report) -> Vec<BackendSettings> {
    if route.backends.is_empty() {
        let endpoint = route.target.clone().unwrap_or_default();
        return vec![BackendSettings { endpoint, ..BackendSettings::default() }];
    }
    let mut settings = Vec::new();
    for backend in &route.backends {
        let mut matches = Vec::new();
        for (index, rule) in backend.matches.iter().enumerate() {
            let (parsed, warning) = Match::parse(&rule.source, &rule.name, &rule.operator, &rule.value);
            // Unknown words were told when the configuration was checked.
            let known = SOURCES.contains(&rule.source.as_str()) && OPERATORS.contains(&rule.operator.as_str());
            if let (Some(warning), true) = (warning, known) {
                report.add(backend.at.child("match").item(index).warning(warning, "correct or remove the rule"));
            }
            matches.push(parsed);
        }
        settings.push(BackendSettings {
            endpoint: backend.endpoint.clone(),
            weight: backend.weight,
            matches,
            exclusive: backend.exclusive,
            priority: backend.priority,
        });
    }
    settings
}

fn transport(route: &Route, config: &Config) -> Transport {
    let from = &config.gateway.transport;
    let limits = limits(route, config);
    let per_try = route.retry.as_ref().and_then(|retry| retry.per_try_timeout);
    let default = Transport::default();
    Transport {
        connect_timeout: route.timeouts.connect.unwrap_or(default.connect_timeout),
        tls_handshake_timeout: from.tls_handshake_timeout.or(default.tls_handshake_timeout),
        one_stream: limits != TimeLimits::default() || per_try.is_some(),
        idle_timeout: from.idle_conn_timeout,
        http2: from.force_attempt_http2,
    }
}

/// Goma's default would be a bound that nobody wrote; only what the file says counts.
fn origin_bound(config: &Config) -> Option<usize> {
    let place = config.gateway.at.child("networking").child("transport").child("maxConnsPerHost");
    let most = config.gateway.transport.max_conns_per_host as usize;
    (most > 0 && place.is_present()).then_some(most)
}

/// Deadlines of a route's requests towards its backends; `None` is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeLimits {
    /// From the end of the request to the head of the response, each attempt.
    pub header: Option<Duration>,
    /// Without a byte within the response.
    pub idle: Option<Duration>,
    /// From the request's head to the end of the response.
    pub total: Option<Duration>,
}

/// The deadlines of a route.
pub fn limits(route: &Route, config: &Config) -> TimeLimits {
    let header = route.timeouts.response_header.or(config.gateway.transport.response_header_timeout);
    TimeLimits { header, idle: route.timeouts.idle, total: route.timeouts.total }
}

fn tls(route: &Route, config: &Config, report: &mut Report) -> Option<Tls> {
    let BackendTls { insecure_skip_verify, root_cas, client_cert, client_key } = &route.security.tls;
    let place = route.at.child("security").child("tls");
    let mut load = |key: &str, text: &str| {
        if text.is_empty() {
            return Some(None);
        }
        let loaded = config::material(text);
        if let Err(error) = &loaded {
            report.add(unreadable(&place, key, error));
        }
        loaded.ok().map(Some)
    };
    let (roots, certificates, key) =
        (load("rootCAs", root_cas)?, load("clientCert", client_cert)?, load("clientKey", client_key.as_str())?);
    let client = match (certificates, key) {
        (Some(certificates), Some(key)) => Some(ClientCertificate { certificates, key }),
        (None, None) => None,
        (given, _) => {
            let (has, lacks) = if given.is_some() { ("clientCert", "clientKey") } else { ("clientKey", "clientCert") };
            report.add(
                place.child(has).error(format!("`{has}` is set without `{lacks}`"), format!("set `{lacks}` as well")),
            );
            return None;
        }
    };
    let insecure_skip_verify = *insecure_skip_verify || config.gateway.transport.insecure_skip_verify;
    Some(Tls { insecure_skip_verify, root_cas: roots, client })
}

fn unreadable(place: &Place, key: &str, error: &std::io::Error) -> Problem {
    place
        .child(key)
        .error(format!("cannot be read: {error}"), "give a file that exists, PEM text, or PEM text in base64")
}
