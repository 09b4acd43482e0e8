//! What operators see of the gateway: `gateway.monitoring`, `gateway.log`, `gateway.analytics` (goma-core §2.1, §7).

use std::time::Duration;

use serde::Deserialize;
use serde::de::Deserializer;

use super::units;

/// Health endpoints and metrics. §7.1.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Monitoring {
    /// Collect and serve metrics. Default false.
    pub enable_metrics: bool,
    /// Path of the metrics. Default `/metrics`.
    pub metrics_path: String,
    /// Host pattern for metrics and route health; empty for any.
    pub host: String,
    /// How long a visitor counts as present, Go duration. Default 5 min, at least 30 s.
    #[serde(rename = "visitorTTL", deserialize_with = "units::go_duration")]
    pub visitor_ttl: Duration,
    /// Serve `/readyz`. Default true.
    pub enable_readiness: bool,
    /// Serve `/healthz`. Default true.
    pub enable_liveness: bool,
    /// Serve `/healthz/routes`. Default false.
    pub enable_route_health_check: bool,
    /// Inverted, as in Goma: true hides the error texts. Default false.
    pub include_route_health_errors: bool,
    /// Middlewares before these endpoints.
    #[serde(rename = "middleware")]
    pub middlewares: Guards,
}

/// Path of the metrics unless told otherwise.
pub const METRICS_PATH: &str = "/metrics";
/// Shortest time a visitor counts as present.
pub(super) const VISITOR_TTL_LEAST: Duration = Duration::from_secs(30);
pub(super) const VISITOR_TTL: Duration = Duration::from_secs(300);

impl Default for Monitoring {
    fn default() -> Monitoring {
        Monitoring {
            enable_metrics: false,
            metrics_path: METRICS_PATH.to_owned(),
            host: String::new(),
            visitor_ttl: VISITOR_TTL,
            enable_readiness: true,
            enable_liveness: true,
            enable_route_health_check: false,
            include_route_health_errors: false,
            middlewares: Guards::default(),
        }
    }
}

/// Names of middlewares before the gateway's own endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Guards {
    /// Before the metrics.
    pub metrics: Vec<String>,
    /// Before `/healthz/routes`.
    pub route_health_check: Vec<String>,
}

/// The log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Log {
    /// Default `error` when unset.
    #[serde(deserialize_with = "level")]
    pub level: Level,
    /// File to write to; empty for the console.
    pub file_path: String,
    /// Default text.
    #[serde(deserialize_with = "format")]
    pub format: Format,
    /// Days a rotated file is kept. Default 7.
    pub max_age_days: u32,
    /// Rotated files kept. Default 3.
    pub max_backups: u32,
    /// Size at which the file is rotated, in MB. Default 100.
    #[serde(rename = "maxSizeMB")]
    pub max_size_mb: u32,
}

impl Default for Log {
    fn default() -> Log {
        Log {
            level: Level::Error,
            file_path: String::new(),
            format: Format::Text,
            max_age_days: 7,
            max_backups: 3,
            max_size_mb: 100,
        }
    }
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Everything; the same as `Debug`, as in Goma.
    Trace,
    /// With detail for developers; also turns on `gateway.debug`.
    Debug,
    /// With every request.
    Info,
    /// What somebody should look at.
    Warn,
    /// What somebody must act on.
    Error,
    /// Nothing.
    Off,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `key=value`.
    Text,
    /// One object a line.
    Json,
}

impl Level {
    /// The level of that name in any case; nothing for an unknown word.
    pub fn named(word: &str) -> Option<Level> {
        Some(match word.trim().to_ascii_lowercase().as_str() {
            "trace" => Level::Trace,
            "debug" => Level::Debug,
            "info" => Level::Info,
            "warn" | "warning" => Level::Warn,
            "error" => Level::Error,
            "off" => Level::Off,
            _ => return None,
        })
    }

    /// The level a setting means: empty is `error`, an unknown word is `info`.
    pub(super) fn meant(word: &str) -> Level {
        if word.is_empty() { Level::Error } else { Level::named(word).unwrap_or(Level::Info) }
    }
}

impl Format {
    /// The format a setting means: everything but `json` is text.
    pub(super) fn meant(word: &str) -> Format {
        if word.trim().eq_ignore_ascii_case("json") { Format::Json } else { Format::Text }
    }
}

fn level<'de, D: Deserializer<'de>>(value: D) -> Result<Level, D::Error> {
    String::deserialize(value).map(|word| Level::meant(&word))
}

fn format<'de, D: Deserializer<'de>>(value: D) -> Result<Format, D::Error> {
    String::deserialize(value).map(|word| Format::meant(&word))
}

/// Request events in a Redis stream. §7.5.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Analytics {
    /// Default false.
    pub enabled: bool,
    /// Name of the stream. Default `goma:analytics`.
    pub stream: String,
    /// Share of requests, 0–1; outside of it everything. Default 1.
    pub sample: f64,
    /// Events kept. Default 1,000,000, also for 0 and less.
    pub max_len: i64,
    /// Name of this gateway in the events.
    pub gateway_id: String,
}

/// Name of the stream unless told otherwise.
pub(super) const ANALYTICS_STREAM: &str = "goma:analytics";
pub(super) const ANALYTICS_MAX_LEN: i64 = 1_000_000;

impl Default for Analytics {
    fn default() -> Analytics {
        Analytics {
            enabled: false,
            stream: ANALYTICS_STREAM.to_owned(),
            sample: 1.0,
            max_len: ANALYTICS_MAX_LEN,
            gateway_id: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_words_mean_what_goma_makes_of_them() {
        for (word, meant) in [
            ("", Level::Error),
            ("trace", Level::Trace),
            ("DEBUG", Level::Debug),
            ("info", Level::Info),
            ("warn", Level::Warn),
            ("error", Level::Error),
            ("off", Level::Off),
            ("loud", Level::Info),
        ] {
            assert_eq!(Level::meant(word), meant, "{word:?}");
        }
    }

    #[test]
    fn every_format_but_json_is_text() {
        assert_eq!(Format::meant("JSON"), Format::Json);
        assert_eq!(Format::meant("fancy"), Format::Text);
    }
}
