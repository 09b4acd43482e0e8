//! The line that each routed request leaves: `Proxied request`. Core reference §7.6.
//!
//! The proxy fills in an [`AccessLine`] of borrowed facts; they are packed into one allocation and put into form on the
//! writer's thread. [`enabled`] is asked before any of that.
//!
//! Goma's fields come first, in Goma's order; then those that a middleware added; then, in debug, the details; then ours:
//! `reason`, `bytes`, and where they say something `why`, `attempts` and `backend`.

use std::fmt::{self, Display};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use log::Log;

use super::format::{Form, Head, Line, Value};
use super::log::level_of_status;
use super::queue::{Message, Queue, Record};
use super::redact;
use crate::exchange::Reason;

/// Would a line for this status be logged at all? One comparison.
pub fn enabled(status: u16) -> bool {
    level_of_status(status) <= log::max_level()
}

/// The facts of one request, as its access line shows them.
#[derive(Clone, Copy, Debug)]
pub struct AccessLine<'a> {
    /// Request id.
    pub request_id: &'a str,
    /// Method as the client sent it.
    pub method: &'a str,
    /// Path only, after the gateway's rewrite.
    pub url: &'a str,
    /// `HTTP/1.1`, `HTTP/2.0`.
    pub http_version: &'a str,
    /// Host that the backend was asked for.
    pub host: &'a str,
    /// The client, behind trusted proxies as well.
    pub client_ip: IpAddr,
    /// The client's `Referer`, or empty. Secrets in its query are replaced.
    pub referer: &'a str,
    /// Status that the client got.
    pub status: u16,
    /// From the request head to the end of the response.
    pub duration: Duration,
    /// Name of the route.
    pub route: &'a str,
    /// The client's `User-Agent`, or empty.
    pub user_agent: &'a str,
    /// Fields that the accessLog middleware adds.
    pub extras: &'a [(String, String)],
    /// Only with `debug`.
    pub detail: Option<Detail<'a>>,
    /// How the request ended.
    pub reason: Reason,
    /// Why a middleware refused it, or empty.
    pub why: &'a str,
    /// Bytes of the response body that were sent.
    pub bytes: u64,
    /// How many backends were tried.
    pub attempts: u32,
    /// The backend asked last, or empty; shown only when the reason is not `ok`.
    pub backend: &'a str,
    /// What the cache did, or empty where there is none.
    pub cache: &'static str,
}

/// What `debug` adds to the line. Secrets are replaced.
#[derive(Clone, Copy, Debug)]
pub struct Detail<'a> {
    /// `Content-Length` of the request; −1 is shown where unknown.
    pub request_content_length: Option<u64>,
    /// Headers as the client sent them.
    pub request_headers: &'a HeaderMap,
    /// The query without `?`, or empty.
    pub query: &'a str,
    /// Headers as the client got them.
    pub response_headers: &'a HeaderMap,
}

/// Where access lines go. Clones are the same log.
#[derive(Clone)]
pub struct AccessLog(Arc<Queue>);

impl AccessLog {
    pub(super) fn new(queue: Arc<Queue>) -> AccessLog {
        AccessLog(queue)
    }

    /// Hands the line to the writer. Never waits; ask [`enabled`] first.
    pub fn write(&self, line: &AccessLine) {
        self.0.push(Message::Record(Box::new(Packed::new(line))));
    }
}

/// Logs a request that could not be proxied, with its cause: `Failed to proxy request`. Core reference §5.9.
pub fn failed(line: &AccessLine, cause: &dyn Display) {
    failed_to(log::logger(), line, cause);
}

fn failed_to(log: &dyn Log, line: &AccessLine, cause: &dyn Display) {
    log::error!(
        logger: log,
        target: "goma_edge",
        method = line.method,
        url:% = redact::url(line.url),
        status = line.status,
        host = line.host,
        referer:% = redact::url(line.referer),
        duration:% = Took(line.duration),
        client_ip:% = line.client_ip,
        request_id = line.request_id,
        user_agent = line.user_agent,
        route = line.route,
        reason:% = line.reason,
        backend = line.backend,
        error:% = cause;
        "Failed to proxy request"
    );
}

/// An [`AccessLine`] that owns its facts, with all texts in one string.
struct Packed {
    at: SystemTime,
    client_ip: IpAddr,
    status: u16,
    duration: Duration,
    reason: Reason,
    bytes: u64,
    attempts: u32,
    cache: &'static str,
    text: String,
    /// Where each text ends: those of [`TEXTS`], then names and values of the extras.
    ends: Vec<u32>,
    detail: Option<Box<PackedDetail>>,
}

struct PackedDetail {
    request_content_length: i64,
    request_headers: Vec<(String, String)>,
    query: String,
    response_headers: Vec<(String, String)>,
}

/// How many texts every line has.
const TEXTS: usize = 10;
/// Longest text that is kept, in bytes.
const MAX_TEXT: usize = 8 * 1024;

impl Packed {
    fn new(line: &AccessLine) -> Packed {
        let texts: [&str; TEXTS] = [
            line.request_id,
            line.method,
            line.url,
            line.http_version,
            line.host,
            line.referer,
            line.route,
            line.user_agent,
            if line.reason == Reason::Ok { "" } else { line.backend },
            line.why,
        ];
        let extras = || line.extras.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
        let mut text =
            String::with_capacity(texts.iter().copied().chain(extras()).map(|t| t.len().min(MAX_TEXT)).sum());
        let mut ends = Vec::with_capacity(TEXTS + 2 * line.extras.len());
        for part in texts.into_iter().chain(extras()) {
            text.push_str(cut(part));
            ends.push(u32::try_from(text.len()).unwrap_or(u32::MAX));
        }
        Packed {
            at: SystemTime::now(),
            client_ip: line.client_ip,
            status: line.status,
            duration: line.duration,
            reason: line.reason,
            bytes: line.bytes,
            attempts: line.attempts,
            cache: line.cache,
            text,
            ends,
            detail: line.detail.as_ref().map(|detail| Box::new(PackedDetail::new(detail))),
        }
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let from = std::mem::replace(&mut start, *end as usize);
            self.text.get(from..start).unwrap_or_default()
        })
    }
}

fn cut(text: &str) -> &str {
    if text.len() <= MAX_TEXT {
        return text;
    }
    let end = (0..=MAX_TEXT).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

impl PackedDetail {
    fn new(detail: &Detail) -> PackedDetail {
        PackedDetail {
            request_content_length: detail
                .request_content_length
                .map_or(-1, |length| length.try_into().unwrap_or(i64::MAX)),
            request_headers: redact::headers(detail.request_headers),
            query: redact::query(detail.query).into_owned(),
            response_headers: redact::headers(detail.response_headers),
        }
    }
}

impl Record for Packed {
    fn write(&self, out: &mut String, form: Form) {
        let level = level_of_status(self.status);
        let mut line = Line::open(out, form, &Head { at: self.at, level, source: None, message: "Proxied request" });
        let mut texts = self.texts();
        let mut text = || texts.next().unwrap_or_default();
        line.add("request_id", Value::Text(text()));
        line.add("method", Value::Text(text()));
        line.add("url", Value::Text(&redact::url(text())));
        line.add("http_version", Value::Text(text()));
        line.add("host", Value::Text(text()));
        line.add("client_ip", Value::Text(&self.client_ip.to_string()));
        line.add("referer", Value::Text(&redact::url(text())));
        line.add("status", Value::Uint(self.status.into()));
        line.add("duration", Value::Text(&Took(self.duration).to_string()));
        line.add("route", Value::Text(text()));
        line.add("user_agent", Value::Text(text()));
        let (backend, why) = (text(), text());
        while let Some(name) = texts.next() {
            line.add(name, Value::Text(texts.next().unwrap_or_default()));
        }
        self.details(&mut line);
        line.add("reason", Value::Text(&self.reason.to_string()));
        if !why.is_empty() {
            line.add("why", Value::Text(why));
        }
        line.add("bytes", Value::Uint(self.bytes));
        if !self.cache.is_empty() {
            line.add("cache", Value::Text(self.cache));
        }
        if self.attempts > 1 {
            line.add("attempts", Value::Uint(self.attempts.into()));
        }
        if !backend.is_empty() {
            line.add("backend", Value::Text(backend));
        }
        line.close();
    }

    fn size(&self) -> usize {
        let pairs =
            |pairs: &[(String, String)]| pairs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let detail = self.detail.as_ref();
        let detail = detail.map_or(0, |d| pairs(&d.request_headers) + d.query.len() + pairs(&d.response_headers));
        size_of::<Packed>() + self.text.len() + 4 * self.ends.len() + detail
    }
}

impl Packed {
    fn details(&self, line: &mut Line) {
        if let Some(detail) = &self.detail {
            line.add("request_content_length", Value::Int(detail.request_content_length));
            line.add("response_body_size", Value::Uint(self.bytes));
            line.add("request_headers", Value::Map(&detail.request_headers));
            line.add("query_params", Value::Text(&detail.query));
            line.add("response_headers", Value::Map(&detail.response_headers));
        }
    }
}

/// A duration as Goma writes it: `123456ns`, `12.34ms`, `1.23s`, `1.20m`, `1.00h`.
struct Took(Duration);

impl Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        match seconds {
            ..0.001 => write!(f, "{}ns", self.0.as_nanos()),
            ..1.0 => write!(f, "{:.2}ms", seconds * 1e3),
            ..60.0 => write!(f, "{seconds:.2}s"),
            ..3600.0 => write!(f, "{:.2}m", seconds / 60.0),
            _ => write!(f, "{:.2}h", seconds / 3600.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use log::LevelFilter;

    use super::*;
    use crate::telemetry::log::{Format, Settings, tests::captured};

    const PLAIN: AccessLine = AccessLine {
        request_id: "abc",
        method: "GET",
        url: "/v1/x",
        http_version: "HTTP/1.1",
        host: "example.com",
        client_ip: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)),
        referer: "",
        status: 200,
        duration: Duration::from_micros(12_340),
        route: "api",
        user_agent: "curl/8 x",
        extras: &[],
        detail: None,
        reason: Reason::Ok,
        why: "",
        bytes: 12,
        attempts: 1,
        backend: "http://b:1",
        cache: "",
    };

    fn written(line: &AccessLine, format: Format) -> String {
        let (_front, handle, kept) = captured(&Settings { level: LevelFilter::Warn, format, file: None });
        handle.access().write(line);
        assert!(handle.flush());
        let kept = kept.lock().unwrap().clone();
        assert_eq!(kept.matches('\n').count(), 1, "{kept}");
        kept
    }

    #[test]
    fn goma_s_fields_come_first_and_in_goma_s_order() {
        let line = written(&PLAIN, Format::Text);
        let fields = "level=INFO msg=\"Proxied request\" request_id=abc method=GET url=/v1/x http_version=HTTP/1.1 \
                      host=example.com client_ip=192.0.2.7 referer=\"\" status=200 duration=12.34ms route=api \
                      user_agent=\"curl/8 x\" reason=ok bytes=12\n";
        assert!(line.ends_with(fields), "{line}");
    }

    #[test]
    fn a_failure_names_reason_attempts_and_backend() {
        let line = AccessLine { status: 503, reason: Reason::Denied("jwt"), attempts: 2, ..PLAIN };
        let line = written(&line, Format::Text);
        assert!(line.contains("level=ERROR"), "{line}");
        assert!(line.ends_with(" reason=denied:jwt bytes=12 attempts=2 backend=http://b:1\n"), "{line}");
    }

    #[test]
    fn extras_and_details_stand_between_and_hide_secrets() {
        let mut headers = HeaderMap::new();
        headers.insert("cookie", "s=secret".parse().unwrap());
        headers.insert("accept", "*/*".parse().unwrap());
        let extras = [("X-Team".to_owned(), "a\nb".to_owned())];
        let detail = Detail {
            request_content_length: None,
            request_headers: &headers,
            query: "a=1&token=secret",
            response_headers: &HeaderMap::new(),
        };
        let referer = "https://r.example/?code=secret";
        let line = AccessLine { extras: &extras, detail: Some(detail), status: 404, referer, ..PLAIN };
        let json = written(&line, Format::Json);
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        for (key, value) in [
            ("level", serde_json::json!("WARN")),
            ("status", serde_json::json!(404)),
            ("X-Team", serde_json::json!("a\nb")),
            ("referer", serde_json::json!("https://r.example/?code=[REDACTED]")),
            ("request_content_length", serde_json::json!(-1)),
            ("response_body_size", serde_json::json!(12)),
            ("request_headers", serde_json::json!({"accept": "*/*", "cookie": "[REDACTED]"})),
            ("query_params", serde_json::json!("a=1&token=[REDACTED]")),
            ("response_headers", serde_json::json!({})),
        ] {
            assert_eq!(read[key], value, "{key} in {json}");
        }
        assert!(json.find("X-Team") < json.find("request_content_length"));
        assert!(!json.contains("secret"), "{json}");
        assert!(written(&line, Format::Text).contains(" X-Team=\"a\\nb\" "));
    }

    #[test]
    fn a_proxy_failure_names_its_cause() {
        let (front, handle, kept) = captured(&Settings::default());
        log::set_max_level(LevelFilter::Error);
        let line = AccessLine { status: 502, reason: Reason::ConnectFailed, ..PLAIN };
        failed_to(&front, &line, &"connection refused");
        assert!(handle.flush());
        let fields = "level=ERROR msg=\"Failed to proxy request\" method=GET url=/v1/x status=502 host=example.com \
                      referer=\"\" duration=12.34ms client_ip=192.0.2.7 request_id=abc user_agent=\"curl/8 x\" route=api \
                      reason=connect_failed backend=http://b:1 error=\"connection refused\"\n";
        let kept = kept.lock().unwrap();
        assert!(kept.ends_with(fields), "{kept}");
    }

    #[test]
    fn a_very_long_text_is_cut() {
        let url = "/ä".repeat(10_000);
        let line = written(&AccessLine { url: &url, ..PLAIN }, Format::Text);
        assert!(line.len() < 2 * MAX_TEXT && line.contains(" reason=ok "), "{}", line.len());
    }

    #[test]
    fn durations_read_as_in_goma() {
        for (duration, text) in [
            (Duration::from_nanos(123_456), "123456ns"),
            (Duration::from_micros(12_340), "12.34ms"),
            (Duration::from_millis(1230), "1.23s"),
            (Duration::from_secs(72), "1.20m"),
            (Duration::from_secs(3600), "1.00h"),
        ] {
            assert_eq!(Took(duration).to_string(), text);
        }
    }

    #[test]
    fn the_level_follows_the_status() {
        for (status, level) in
            [(200, "INFO"), (304, "INFO"), (400, "WARN"), (499, "WARN"), (500, "ERROR"), (504, "ERROR")]
        {
            assert_eq!(level_of_status(status).as_str(), level, "{status}");
        }
    }
}
