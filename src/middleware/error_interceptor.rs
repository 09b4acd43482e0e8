//! Replaces the body of responses by their status.
//!
//! Decided on the head of the response and never buffered: the page is sent at once and the backend's body is discarded.
//! Part of the shell: it counts for the gateway's own refusals and errors as well, and of several the last one counts.
//! What describes the old body (coding, validators, range) goes with it; downloads, media and bodies of more than 10 MiB
//! pass as they are. Spec middlewares §5.22, §6.5, W-29, W-30.
//!
//! ```yaml
//! - name: pages
//!   type: errorInterceptor
//!   rule:
//!     enabled: true
//!     errors:
//!       - { statusCode: 404, file: /etc/goma/404.html }
//!       - { statusCode: 502, body: We are back in a minute. }
//! ```

use std::path::Path;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use pingora_http::ResponseHeader;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error_page::{self, Files, Page};
use super::{Part, Scope, Settings};
use crate::config::{ErrorInterceptor as Older, Place, Problem};
use crate::reply::{Form, plain_message};

/// Replaces the body of responses by their status, those of backends and the gateway's own. The status stays.
#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ErrorInterceptor {
    /// Whether the rest counts. Default false.
    enabled: bool,
    /// Form of every `body`: `application/json`, `application/xml`, `text/html` or `text/plain`; the type of every `file`.
    /// Empty: a `body` takes the form that the client asks for, a `file` the type that its name says.
    content_type: String,
    /// What to replace; the first entry of a status counts.
    errors: Vec<ErrorSettings>,
}

#[derive(Clone, Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", default)]
struct ErrorSettings {
    /// The status it is for, 200 to 599.
    status_code: u16,
    /// An older name of `statusCode`; where both are there, both count.
    status: u16,
    /// Another older name of it.
    code: u16,
    /// The text to send. JSON goes to clients of JSON as it is, other text inside an object.
    body: String,
    /// A file to send, when there is no `body`: read with the configuration, and again when it changes; one that cannot be read
    /// then is replaced by a page with the status. Without either,
    /// the status is sent as text: `404 Not Found`.
    file: String,
}

impl ErrorSettings {
    /// What it is for, by key: each status once.
    fn statuses(&self) -> impl Iterator<Item = (&'static str, u16)> + '_ {
        let listed = [("statusCode", self.status_code), ("status", self.status), ("code", self.code)];
        let first = move |index: usize| !listed[..index].iter().any(|(_, earlier)| *earlier == listed[index].1);
        (0..listed.len()).filter(move |index| listed[*index].1 > 0 && first(*index)).map(move |index| listed[index])
    }
}

impl Settings for ErrorInterceptor {
    const KIND: &'static [&'static str] = &["errorInterceptor"];
    const GUARDS: bool = false;
    const EXAMPLE: &'static str = include_str!("../../conf/examples/middlewares/errorInterceptor.yml");
    const PATHS: bool = false;

    fn doubts(&self, scope: &Scope<'_>) -> Vec<Problem> {
        self.doubts_at(&scope.place.child("rule"))
    }

    fn build(self, scope: &Scope<'_>) -> Result<Part, Vec<Problem>> {
        let place = scope.place.child("rule");
        if self.enabled && self.errors.is_empty() {
            return Err(vec![place.child("errors").error("are missing", "list what to replace")]);
        }
        self.compile(&place, &scope.tools.files).map(Part::Errors)
    }
}

impl ErrorInterceptor {
    /// What works and probably was not meant.
    fn doubts_at(&self, place: &Place) -> Vec<Problem> {
        let mut doubts = Vec::new();
        if !self.enabled && !self.errors.is_empty() {
            doubts.push(place.child("enabled").warning("is not true: nothing is replaced", "set `enabled: true`"));
        }
        if !self.content_type.is_empty() && form(&self.content_type).is_none() {
            let unknown = self.errors.iter().any(|error| !error.body.is_empty() || error.file.is_empty());
            let message = format!("bodies cannot be written as `{}`: they go out as plain text", self.content_type);
            let remedy = "use application/json, application/xml, text/html or text/plain";
            doubts.extend(unknown.then(|| place.child("contentType").warning(message, remedy)));
        }
        for (index, error) in self.errors.iter().enumerate() {
            let place = place.child("errors").item(index);
            for (key, status) in error.statuses() {
                if BODILESS.contains(&status) {
                    let message = format!("a response {status} cannot carry a body: it stays as it is");
                    doubts.push(place.child(key).warning(message, "remove the entry"));
                }
                let mut earlier = self.errors[..index].iter().flat_map(ErrorSettings::statuses);
                if earlier.any(|(_, earlier)| earlier == status) {
                    let message = format!("an earlier entry is for {status} as well, and counts");
                    doubts.push(place.child(key).warning(message, "keep one of them"));
                }
            }
            match (&*error.file, error.body.is_empty()) {
                ("", _) => {}
                (_, false) => {
                    doubts.push(place.child("file").warning("is not sent, since there is a `body`", "keep one of them"))
                }
                (file, true) if self.enabled => {
                    let unreadable = |cause| {
                        let message = format!("`{file}` cannot be read: {cause}; a page with the status goes out");
                        place.child("file").warning(message, "give a file that is there, or a `body`")
                    };
                    doubts.extend(error_page::readable(Path::new(file)).err().map(unreadable));
                }
                _ => {}
            }
        }
        doubts
    }

    fn compile(&self, place: &Place, files: &Files) -> Result<Interceptor, Vec<Problem>> {
        let (mut problems, mut pages) = (Vec::new(), Vec::new());
        if !self.enabled {
            return Ok(Interceptor { pages });
        }
        let content_type = HeaderValue::from_str(self.content_type.trim()).unwrap_or_else(|_| {
            problems.push(place.child("contentType").error("holds control characters", "use one plain line"));
            HeaderValue::from_static("")
        });
        for (index, error) in self.errors.iter().enumerate() {
            let place = place.child("errors").item(index);
            if error.statuses().next().is_none() {
                problems.push(place.child("statusCode").error("is missing", "use 200 to 599"));
            }
            for (key, status) in error.statuses() {
                match self.page(error, (key, status), &content_type, &place, files) {
                    Ok(page) => pages.push((status, page)),
                    Err(problem) => problems.push(problem),
                }
            }
        }
        pages.retain(|(status, _)| !BODILESS.contains(status));
        if problems.is_empty() { Ok(Interceptor { pages }) } else { Err(problems) }
    }

    fn page(
        &self,
        error: &ErrorSettings,
        (key, code): (&str, u16),
        content_type: &HeaderValue,
        place: &Place,
        files: &Files,
    ) -> Result<Page, Problem> {
        let Some(status) = StatusCode::from_u16(code).ok().filter(|_| (200..=599).contains(&code)) else {
            return Err(place.child(key).error(format!("{code} is no status of a response"), "use 200 to 599"));
        };
        if error.body.is_empty() && !error.file.is_empty() {
            let path = Path::new(&error.file);
            // As in Goma; the doubts say so.
            let stand_in = |_| Page::Fixed(HTML, heading(status));
            let file = files.open(path).map(|file| Page::File(type_of(path, content_type), file));
            return Ok(file.unwrap_or_else(stand_in));
        }
        Ok(match (form(&self.content_type), error.body.as_str()) {
            (Some(Written::Html), "") => Page::Fixed(HTML, heading(status)),
            (Some(Written::Html), body) => Page::Fixed(HTML, body.to_owned().into()),
            (None, body) if self.content_type.is_empty() => Page::negotiated(status, or_status(body, status).as_ref()),
            (None, body) => Page::fixed(status, or_status(body, status).as_ref(), Form::Text),
            (Some(Written::As(form)), body) => Page::fixed(status, or_status(body, status).as_ref(), form),
        })
    }

    /// The older section of a route, joined with the gateway's, which counts behind it and switches it on. `None`: nothing
    /// to replace.
    ///
    /// # Errors
    /// Everything that is wrong with the route's; the gateway's is judged once, by [`older`](Self::older).
    pub fn joined(
        route: &Older,
        at: &Place,
        gateway: &Older,
        files: &Files,
    ) -> Result<Option<Interceptor>, Vec<Problem>> {
        let of_route = ErrorInterceptor { enabled: route.enabled || gateway.enabled, ..ErrorInterceptor::of(route) };
        let mut joined = of_route.compile(at, files)?;
        if gateway.enabled {
            let more = ErrorInterceptor {
                content_type: if route.content_type.is_empty() { &gateway.content_type } else { &route.content_type }
                    .clone(),
                ..ErrorInterceptor::of(gateway)
            };
            // What is wrong with it has been reported where it stands.
            joined.pages.extend(more.compile(&Place::default(), files).map(|more| more.pages).unwrap_or_default());
        }
        Ok((!joined.pages.is_empty()).then_some(joined))
    }

    /// Judges the gateway's older section: what is wrong with it, and what may not be meant.
    pub fn older(section: &Older, at: &Place, files: &Files) -> Vec<Problem> {
        let settings = ErrorInterceptor::of(section);
        let mut problems = settings.doubts_at(at);
        problems.extend(settings.compile(at, files).err().unwrap_or_default());
        problems
    }

    /// What may not be meant in the older section of a route.
    pub fn older_doubts(route: &Older, at: &Place, gateway: &Older) -> Vec<Problem> {
        ErrorInterceptor { enabled: route.enabled || gateway.enabled, ..ErrorInterceptor::of(route) }.doubts_at(at)
    }

    fn of(section: &Older) -> ErrorInterceptor {
        let errors = section.errors.iter().map(|error| ErrorSettings {
            status_code: error.status_code,
            status: error.status,
            code: error.code,
            body: error.body.clone(),
            file: error.file.clone(),
        });
        ErrorInterceptor {
            enabled: section.enabled,
            content_type: section.content_type.clone(),
            errors: errors.collect(),
        }
    }
}

/// How a `body` is written.
enum Written {
    Html,
    As(Form),
}

/// The form of a configured content type; parameters do not count.
fn form(content_type: &str) -> Option<Written> {
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match &*media {
        "text/html" => Some(Written::Html),
        "text/plain" => Some(Written::As(Form::Text)),
        media => Form::of(media.as_bytes()).map(Written::As),
    }
}

fn or_status(body: &str, status: StatusCode) -> std::borrow::Cow<'_, str> {
    if body.is_empty() { plain_message(status).into() } else { body.into() }
}

/// The page of a status without a text of its own, in HTML.
fn heading(status: StatusCode) -> Bytes {
    format!("<h1>{}</h1>", plain_message(status)).into()
}

/// The type of a file: what is configured, else what its name says, else HTML as in Goma.
fn type_of(path: &Path, configured: &HeaderValue) -> HeaderValue {
    if !configured.is_empty() {
        let html = form(configured.to_str().unwrap_or_default()).is_some_and(|form| matches!(form, Written::Html));
        return if html { HTML } else { configured.clone() };
    }
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    match &*ending {
        "json" => HeaderValue::from_static("application/json"),
        "xml" => HeaderValue::from_static("application/xml"),
        "txt" => HeaderValue::from_static("text/plain; charset=utf-8"),
        _ => HTML,
    }
}

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// Statuses whose responses have no content. RFC 9110 §15.3.5, §15.3.6, §15.4.5.
const BODILESS: [u16; 3] = [204, 205, 304];

/// Pages by status.
#[derive(Debug)]
pub struct Interceptor {
    pages: Vec<(u16, Page)>,
}

impl Interceptor {
    /// What to send instead of the body of a response with this head; `None` to leave it alone.
    pub fn page(&self, head: &ResponseHeader, request: &HeaderMap) -> Option<(HeaderValue, Bytes)> {
        let status = head.status.as_u16();
        let (_, page) = self.pages.iter().find(|(listed, _)| *listed == status)?;
        (!is_spared(&head.headers)).then(|| page.content(request))
    }
}

/// Whether a body is worth more than a page: a download, media, or much.
fn is_spared(headers: &HeaderMap) -> bool {
    let lower = |name| {
        let value = headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
        String::from_utf8_lossy(value).to_ascii_lowercase()
    };
    let content_type = lower(header::CONTENT_TYPE);
    let is_text = || ["json", "xml", "text"].iter().any(|word| content_type.contains(word));
    content_type.starts_with("application/") && !is_text()
        || content_type.starts_with("video/")
        || content_type.starts_with("audio/")
        || lower(header::CONTENT_DISPOSITION).contains("attachment")
        || declared(headers).is_some_and(|length| length > LARGEST)
}

/// The length that a head announces.
pub fn declared(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

const LARGEST: u64 = 10 << 20;

/// Takes off a head what describes a body that is not sent.
pub fn undress(head: &mut ResponseHeader) {
    for name in &REPRESENTATION {
        head.remove_header(name);
    }
}

const REPRESENTATION: [HeaderName; 16] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_RANGE,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LOCATION,
    header::CONTENT_DISPOSITION,
    header::ETAG,
    header::LAST_MODIFIED,
    header::ACCEPT_RANGES,
    header::TRANSFER_ENCODING,
    header::TRAILER,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];
