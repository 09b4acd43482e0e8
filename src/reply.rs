//! A response of our own as a value; `proxy` and `entry` only write it.
//!
//! The body's form follows Goma: the request's `Accept` (or `Content-Type` when there is none) is compared as a whole string.
//! Spec core §5.9, middlewares §4.3.

use std::borrow::Cow;
use std::fmt::Write;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

/// A response that the gateway makes itself.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status line.
    pub status: StatusCode,
    /// What it says.
    pub body: Body,
    /// Further headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether the connection ends with it: nobody is going to read the rest of the request.
    pub closes: bool,
}

/// Content of a reply.
#[derive(Clone, Debug)]
pub enum Body {
    /// A message whose form is negotiated with the client: text, JSON or XML.
    Message(Cow<'static, str>),
    /// Given bytes with their content type.
    Exact {
        /// Value of `Content-Type`.
        content_type: &'static str,
        /// The content.
        bytes: Bytes,
    },
    /// No content at all.
    Empty,
}

impl Reply {
    /// A negotiated message.
    pub fn message(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Reply {
        Reply { status, body: Body::Message(message.into()), headers: Vec::new(), closes: false }
    }

    /// A negotiated message that repeats the status: `403 Forbidden`.
    pub fn plain(status: StatusCode) -> Reply {
        Reply::message(status, plain_message(status))
    }

    /// Given bytes.
    pub fn exact(status: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Reply {
        Reply { status, body: Body::Exact { content_type, bytes: bytes.into() }, headers: Vec::new(), closes: false }
    }

    /// A head without content.
    pub fn empty(status: StatusCode) -> Reply {
        Reply { status, body: Body::Empty, headers: Vec::new(), closes: false }
    }

    /// Adds a header.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Reply {
        self.headers.push((name, value));
        self
    }

    /// Ends the connection behind it. HTTP/2 has nothing to end: there, only the stream is over.
    pub fn closing(self) -> Reply {
        Reply { closes: true, ..self }
    }

    /// The content in the form that this client asked for, with its `Content-Type`.
    pub fn content(&self, request: &HeaderMap) -> (Option<&'static str>, Bytes) {
        match &self.body {
            Body::Empty => (None, Bytes::new()),
            Body::Exact { content_type, bytes } => (Some(content_type), bytes.clone()),
            Body::Message(message) => {
                let (content_type, bytes) = write(Form::asked(request), self.status, message);
                (Some(content_type), bytes)
            }
        }
    }
}

/// Content types that browsers must not guess about.
pub fn is_plain_text(content_type: &str) -> bool {
    content_type == TEXT
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const XML: &str = "application/xhtml+xml";

/// The message that repeats a status: `403 Forbidden`.
pub fn plain_message(status: StatusCode) -> String {
    format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or_default())
}

/// How a message is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The message and a line end.
    Text,
    /// An object with status and message; a message that is JSON stays as it is.
    Json,
    /// An element with status and message.
    Xml,
}

impl Form {
    /// The form that a request asks for.
    pub fn asked(request: &HeaderMap) -> Form {
        let value = |name| request.get(name).map(HeaderValue::as_bytes).filter(|v: &&[u8]| !v.is_empty());
        let selector = value(header::ACCEPT).or_else(|| value(header::CONTENT_TYPE)).unwrap_or_default();
        Form::of(selector).unwrap_or(Form::Text)
    }

    /// The form that goes by this name.
    pub fn of(selector: &[u8]) -> Option<Form> {
        match selector {
            b"application/json" => Some(Form::Json),
            b"application/xml" | b"text/xml" | b"application/xhtml+xml" => Some(Form::Xml),
            _ => None,
        }
    }
}

/// A message in a form, with its content type.
pub fn write(form: Form, status: StatusCode, message: &str) -> (&'static str, Bytes) {
    let code = status.as_u16();
    match form {
        Form::Json => (JSON, json(code, message).into()),
        Form::Xml => (XML, xml(code, message).into()),
        Form::Text => (TEXT, format!("{message}\n").into()),
    }
}

fn json(code: u16, message: &str) -> String {
    if serde_json::from_str::<serde::de::IgnoredAny>(message).is_ok() {
        return message.to_owned();
    }
    let mut text = format!("{{\"success\":false,\"statusCode\":{code},\"error\":");
    // Goma's encoder escapes for HTML as well.
    for part in serde_json::Value::from(message).to_string().chars() {
        match part {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(text, "\\u{:04x}", u32::from(part));
            }
            other => text.push(other),
        }
    }
    text.push_str("}\n");
    text
}

fn xml(code: u16, message: &str) -> String {
    let mut escaped = String::with_capacity(message.len());
    for part in message.chars() {
        match part {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\t\t\t<error>\n\t\t\t\t<success>false</success>\n\t\t\t\t<statusCode>{code}</statusCode>\n\t\t\t\t<error>{escaped}</error>\n\t\t\t</error>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(accept: &str, status: u16, message: &'static str) -> (Option<&'static str>, String) {
        let mut request = HeaderMap::new();
        if !accept.is_empty() {
            request.insert(header::ACCEPT, accept.parse().unwrap());
        }
        let reply = Reply::message(StatusCode::from_u16(status).unwrap(), message);
        let (kind, bytes) = reply.content(&request);
        (kind, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[test]
    fn a_message_takes_the_form_that_the_client_asked_for() {
        let json = "{\"success\":false,\"statusCode\":502,\"error\":\"502 Bad Gateway \"}\n";
        for (accept, kind, body) in [
            ("application/json", "application/json", json),
            ("application/json, */*", TEXT, "502 Bad Gateway \n"),
            ("application/json; charset=utf-8", TEXT, "502 Bad Gateway \n"),
            ("*/*", TEXT, "502 Bad Gateway \n"),
            ("", TEXT, "502 Bad Gateway \n"),
        ] {
            assert_eq!(content(accept, 502, "502 Bad Gateway "), (Some(kind), body.to_owned()), "{accept}");
        }
    }

    #[test]
    fn json_escapes_markup_and_passes_json_through() {
        assert!(content("application/json", 403, "<b>&").1.contains(r"\u003cb\u003e\u0026"));
        assert_eq!(content("application/json", 403, r#"{"x":1}"#).1, r#"{"x":1}"#);
    }

    #[test]
    fn xml_is_escaped_and_has_no_last_newline() {
        let (kind, body) = content("text/xml", 403, "a<b");
        assert_eq!(kind, Some(XML));
        assert!(body.contains("\t\t\t\t<error>a&lt;b</error>\n\t\t\t</error>") && !body.ends_with('\n'), "{body}");
    }

    #[test]
    fn content_type_counts_when_there_is_no_accept() {
        let mut request = HeaderMap::new();
        request.insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
        assert_eq!(Reply::plain(StatusCode::FORBIDDEN).content(&request).0, Some(JSON));
    }
}
