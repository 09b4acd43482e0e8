//! Environment variables that stand above the file (goma-core §1.4).
//!
//! A variable that is set counts even when it is empty; one that cannot be read is a warning, and the file's value holds.

use std::time::Duration;

use super::certs::CertManager;
use super::endpoint::listen_address;
use super::expand::{self, Env};
use super::gateway::{Gateway, WEB_ADDRESS, WEB_SECURE_ADDRESS};
use super::monitoring::{ANALYTICS_MAX_LEN, ANALYTICS_STREAM, Format, Level};
use super::problem::{Problem, Severity};
use super::provider::FileProvider;
use super::secret::Secret;
use super::units;

/// Puts the variables over the settings of the main file.
pub fn apply(gateway: &mut Gateway, certs: &mut CertManager, env: &Env) -> Vec<Problem> {
    let mut reader = Reader { env, problems: Vec::new() };
    reader.log(gateway);
    reader.timeouts(gateway);
    reader.shutdown(gateway);
    reader.entry_points(gateway);
    reader.monitoring(gateway);
    reader.sources(gateway);
    reader.redis(gateway);
    reader.analytics(gateway);
    reader.vault(certs);
    reader.problems
}

struct Reader<'a> {
    env: &'a Env,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn log(&mut self, gateway: &mut Gateway) {
        let log = &mut gateway.log;
        if let Some(word) = self.env.get("GOMA_LOG_LEVEL") {
            log.level = Level::meant(word);
            if !word.is_empty() && Level::named(word).is_none() {
                self.warn("GOMA_LOG_LEVEL", "is not a known level", "info is used");
            }
        }
        if let (true, Some(path)) = (log.file_path.is_empty(), self.env.get("GOMA_LOG_FILE")) {
            path.clone_into(&mut log.file_path);
        }
        let written = gateway.at.child("log").child("format");
        let in_file = written.node().and_then(|node| node.scalar()).is_some_and(|scalar| !scalar.text.is_empty());
        if let (false, Some(word)) = (in_file, self.env.get("GOMA_LOG_FORMAT")) {
            log.format = Format::meant(word);
        }
    }

    fn timeouts(&mut self, gateway: &mut Gateway) {
        let timeouts = &mut gateway.timeouts;
        let seconds = |number: u32| Some(Duration::from_secs(number.into())).filter(|time| !time.is_zero());
        for (name, field) in [
            ("GOMA_TIMEOUT_READ", &mut timeouts.read),
            ("GOMA_TIMEOUT_WRITE", &mut timeouts.write),
            ("GOMA_TIMEOUT_IDLE", &mut timeouts.idle),
        ] {
            if let Some(number) = self.number(name) {
                *field = seconds(number);
            }
        }
    }

    /// The image's default, so the file stands above it.
    fn shutdown(&mut self, gateway: &mut Gateway) {
        let Some(text) = self.env.get("GOMA_SHUTDOWN_DELAY").filter(|text| !text.is_empty()) else { return };
        let at = &gateway.at;
        let written = [at.child("shutdown").child("delay"), at.child("shutdownDelay")];
        if written.iter().any(|place| place.node().is_some()) {
            return;
        }
        match units::duration(text) {
            Ok(delay) => gateway.shutdown.delay = delay,
            Err(message) => self.error("GOMA_SHUTDOWN_DELAY", message),
        }
    }

    fn entry_points(&mut self, gateway: &mut Gateway) {
        let points = &mut gateway.entry_points;
        for (name, point, default) in [
            ("GOMA_ENTRYPOINT_WEB_ADDRESS", &mut points.web, WEB_ADDRESS),
            ("GOMA_ENTRYPOINT_WEB_SECURE_ADDRESS", &mut points.web_secure, WEB_SECURE_ADDRESS),
        ] {
            let Some(text) = self.env.get(name) else { continue };
            match listen_address(if text.is_empty() { default } else { text }) {
                Ok(address) => point.address = address,
                Err(message) => self.error(name, message),
            }
        }
    }

    fn monitoring(&mut self, gateway: &mut Gateway) {
        let monitoring = &mut gateway.monitoring;
        self.switch("GOMA_ENABLE_METRICS", &mut monitoring.enable_metrics);
        self.switch("GOMA_ENABLE_READINESS", &mut monitoring.enable_readiness);
        self.switch("GOMA_ENABLE_LIVENESS", &mut monitoring.enable_liveness);
        if let Some(path) = self.env.get("GOMA_GEOIP_DB") {
            path.trim().clone_into(&mut gateway.geoip.database);
        }
        if let Some(token) = self.env.get("GOMA_RELOAD_TOKEN") {
            gateway.reload.token = Secret::from(token.to_owned());
        }
    }

    fn sources(&mut self, gateway: &mut Gateway) {
        if let Some(directory) = self.env.get("GOMA_EXTRA_CONFIG_DIR") {
            directory.clone_into(&mut gateway.extra_config.directory);
        }
        self.switch("GOMA_EXTRA_CONFIG_WATCH", &mut gateway.extra_config.watch);
        let directory = self.env.get("GOMA_FILE_PROVIDER_DIRECTORY").unwrap_or_default();
        if gateway.providers.file.is_none() && !directory.is_empty() {
            let mut provider = FileProvider { enabled: false, directory: directory.to_owned(), watch: true };
            self.switch("GOMA_FILE_PROVIDER_ENABLED", &mut provider.enabled);
            self.switch("GOMA_FILE_PROVIDER_WATCH", &mut provider.watch);
            gateway.providers.file = Some(provider);
        }
    }

    fn redis(&mut self, gateway: &mut Gateway) {
        let redis = &mut gateway.redis;
        if let Some(addr) = self.env.get("GOMA_REDIS_ADDR") {
            addr.clone_into(&mut redis.addr);
            if addr.is_empty() {
                redis.addrs.clear();
            }
        }
        if let Some(password) = self.env.get("GOMA_REDIS_PASSWORD") {
            redis.password = Secret::from(password.to_owned());
        }
        if let Some(number) = self.number("GOMA_REDIS_DB") {
            redis.db = number;
        }
        redis.addr = expand::value(&redis.addr, self.env);
        redis.password = Secret::from(expand::value(&redis.password, self.env));
        for text in redis.addrs.iter_mut().chain([&mut redis.username, &mut redis.sentinel.username]) {
            *text = expand::value(text, self.env);
        }
        redis.sentinel.password = Secret::from(expand::value(&redis.sentinel.password, self.env));
    }

    fn analytics(&mut self, gateway: &mut Gateway) {
        let analytics = &mut gateway.analytics;
        self.switch("GOMA_ANALYTICS_ENABLED", &mut analytics.enabled);
        if let Some(stream) = self.env.get("GOMA_ANALYTICS_STREAM") {
            stream.clone_into(&mut analytics.stream);
        }
        if let Some(sample) = self.number("GOMA_ANALYTICS_SAMPLE") {
            analytics.sample = sample;
        }
        if let Some(length) = self.number("GOMA_ANALYTICS_MAXLEN") {
            analytics.max_len = length;
        }
        if let Some(id) = self.env.get("GOMA_GATEWAY_ID") {
            id.clone_into(&mut analytics.gateway_id);
        }
        if analytics.stream.is_empty() {
            ANALYTICS_STREAM.clone_into(&mut analytics.stream);
        }
        if analytics.max_len <= 0 {
            analytics.max_len = ANALYTICS_MAX_LEN;
        }
    }

    fn vault(&mut self, certs: &mut CertManager) {
        for vault in certs.providers.values_mut().filter(|provider| provider.is_vault()).map(|it| &mut it.vault) {
            if let Some(address) = self.filled("VAULT_ADDR") {
                vault.address = address;
            }
            if let Some(token) = self.filled("VAULT_TOKEN") {
                vault.token = Secret::from(token);
            }
            if let Some(namespace) = self.filled("VAULT_NAMESPACE") {
                vault.namespace = namespace;
            }
        }
    }

    fn filled(&self, name: &str) -> Option<String> {
        self.env.get(name).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    fn number<T: std::str::FromStr>(&mut self, name: &str) -> Option<T> {
        let text = self.env.get(name)?;
        let number = text.trim().parse().ok();
        if number.is_none() {
            self.warn(name, "is not a number that fits here", "the value of the file is used");
        }
        number
    }

    fn switch(&mut self, name: &str, field: &mut bool) {
        match self.env.get(name) {
            None => {}
            Some("1" | "t" | "T" | "TRUE" | "true" | "True") => *field = true,
            Some("0" | "f" | "F" | "FALSE" | "false" | "False") => *field = false,
            Some(_) => self.warn(name, "is neither true nor false", "the value of the file is used"),
        }
    }

    fn warn(&mut self, name: &str, message: &str, remedy: &str) {
        self.problems.push(Problem::in_environment(name, message, remedy));
    }

    fn error(&mut self, name: &str, message: String) {
        let (message, remedy) = message.split_once("; ").unwrap_or((&message, ""));
        let problem = Problem::in_environment(name, message, remedy);
        self.problems.push(Problem { severity: Severity::Error, ..problem });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(variables: &[(&str, &str)], before: impl FnOnce(&mut Gateway)) -> (Gateway, Vec<String>) {
        let mut gateway = Gateway::default();
        before(&mut gateway);
        let env: Env = variables.iter().copied().collect();
        let problems = apply(&mut gateway, &mut CertManager::default(), &env);
        (gateway, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_variable_that_is_set_stands_above_the_file() {
        type Test = (&'static str, &'static [(&'static str, &'static str)], fn(&Gateway) -> bool);
        let table: [Test; 15] = [
            ("the image's delay", &[("GOMA_SHUTDOWN_DELAY", "5s")], |g| g.shutdown.delay == Duration::from_secs(5)),
            ("the address", &[("GOMA_ENTRYPOINT_WEB_ADDRESS", ":9000")], |g| g.entry_points.web.address == "[::]:9000"),
            ("an empty address is the default", &[("GOMA_ENTRYPOINT_WEB_ADDRESS", "")], |g| {
                g.entry_points.web.address == WEB_ADDRESS
            }),
            ("an empty Redis address switches it off", &[("GOMA_REDIS_ADDR", "")], |g| {
                g.redis.addr.is_empty() && g.redis.addrs.is_empty()
            }),
            ("a timeout", &[("GOMA_TIMEOUT_READ", "7")], |g| g.timeouts.read == Some(Duration::from_secs(7))),
            ("a timeout of 0 is none", &[("GOMA_TIMEOUT_WRITE", "0")], |g| g.timeouts.write.is_none()),
            ("liveness", &[("GOMA_ENABLE_LIVENESS", "F")], |g| !g.monitoring.enable_liveness),
            ("the log level", &[("GOMA_LOG_LEVEL", "info")], |g| g.log.level == Level::Info),
            ("the log file fills a gap only", &[("GOMA_LOG_FILE", "/env")], |g| g.log.file_path == "/file"),
            ("the log format", &[("GOMA_LOG_FORMAT", "json")], |g| g.log.format == Format::Json),
            (
                "a file provider",
                &[("GOMA_FILE_PROVIDER_ENABLED", "true"), ("GOMA_FILE_PROVIDER_DIRECTORY", "/d")],
                |g| g.providers.file == Some(FileProvider { enabled: true, directory: "/d".to_owned(), watch: true }),
            ),
            ("no file provider without a folder", &[("GOMA_FILE_PROVIDER_ENABLED", "true")], |g| {
                g.providers.file.is_none()
            }),
            ("the reload token", &[("GOMA_RELOAD_TOKEN", "t")], |g| &*g.reload.token == "t"),
            ("the stream", &[("GOMA_ANALYTICS_STREAM", "")], |g| g.analytics.stream == ANALYTICS_STREAM),
            ("a second expansion", &[("GOMA_REDIS_PASSWORD", "${X}"), ("X", "y")], |g| &*g.redis.password == "y"),
        ];
        for (what, variables, holds) in table {
            let (gateway, problems) = applied(variables, |gateway| {
                gateway.redis.addr = "redis:6379".to_owned();
                gateway.redis.addrs = vec!["redis:6380".to_owned()];
                gateway.log.file_path = "/file".to_owned();
                gateway.timeouts.write = Some(Duration::from_secs(1));
            });
            assert!(holds(&gateway), "{what}: {gateway:?}");
            assert!(problems.is_empty(), "{what}: {problems:?}");
        }
    }

    #[test]
    fn a_variable_that_cannot_be_read_leaves_the_file_alone() {
        let table = [
            (
                "GOMA_TIMEOUT_READ",
                "soon",
                "warning: environment: GOMA_TIMEOUT_READ: is not a number that fits here; the value of the file is used",
            ),
            (
                "GOMA_TIMEOUT_READ",
                "",
                "warning: environment: GOMA_TIMEOUT_READ: is not a number that fits here; the value of the file is used",
            ),
            (
                "GOMA_ENABLE_METRICS",
                "yes",
                "warning: environment: GOMA_ENABLE_METRICS: is neither true nor false; the value of the file is used",
            ),
            (
                "GOMA_ENTRYPOINT_WEB_ADDRESS",
                "localhost:80",
                "error: environment: GOMA_ENTRYPOINT_WEB_ADDRESS: \"localhost\" is not an IP address; write host:port with an IP address or no host",
            ),
        ];
        for (name, value, line) in table {
            let (gateway, problems) = applied(&[(name, value)], |_| {});
            assert_eq!(problems, [line]);
            assert_eq!(gateway, Gateway::default(), "{name}");
        }
    }
}
