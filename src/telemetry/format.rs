//! The three forms of a log line: Go's default, `key=value` text, JSON. Core reference §7.6.
//!
//! ```text
//! 2026/11/22 10:00:00 INFO Proxied request method=GET url=/ ...
//! time=2026-11-22T10:00:00.000Z level=INFO msg="Proxied request" method=GET url=/ ...
//! {"time":"2026-11-22T10:00:00.000Z","level":"INFO","msg":"Proxied request","method":"GET","url":"/"}
//! ```
//! Whatever a value holds, one record stays one line.

use std::fmt::{Display, Write};
use std::time::SystemTime;

use chrono::{DateTime, Local, SecondsFormat};
use log::Level;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As Go's `log` package writes structured records when nothing was set up.
    GoDefault,
    /// `time=… level=… msg=…`, then the fields.
    Text,
    /// One object a line.
    Json,
}

/// What comes before the fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    pub at: SystemTime,
    pub level: Level,
    pub source: Option<Source<'a>>,
    pub message: &'a str,
}

/// Where a record was written in our code.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub module: &'a str,
    pub file: &'a str,
    pub line: u32,
}

/// A field's value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Text(&'a str),
    Int(i64),
    Uint(u64),
    Float(f64),
    Bool(bool),
    /// Names with values, such as headers.
    Map(&'a [(String, String)]),
}

/// A line being written to the end of a buffer.
pub(super) struct Line<'o> {
    out: &'o mut String,
    form: Form,
}

impl<'o> Line<'o> {
    pub fn open(out: &'o mut String, form: Form, head: &Head) -> Line<'o> {
        let at: DateTime<Local> = head.at.into();
        let mut line = Line { out, form };
        match form {
            Form::GoDefault => {
                let time = at.format("%Y/%m/%d %H:%M:%S");
                line.push(format_args!("{time} {} ", head.level));
                plain(line.out, head.message);
            }
            Form::Text => {
                let time = at.to_rfc3339_opts(SecondsFormat::Millis, true);
                line.push(format_args!("time={time} level={}", head.level));
                line.source(head);
                line.add("msg", Value::Text(head.message));
            }
            Form::Json => {
                let time = at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
                line.push(format_args!(r#"{{"time":"{time}","level":"{}""#, head.level));
                line.source(head);
                line.add("msg", Value::Text(head.message));
            }
        }
        line
    }

    fn source(&mut self, head: &Head) {
        let Some(Source { module, file, line }) = head.source else {
            return;
        };
        if self.form == Form::Json {
            self.out.push_str(r#","source":{"function":"#);
            json(self.out, module);
            self.out.push_str(r#","file":"#);
            json(self.out, file);
            self.push(format_args!(r#","line":{line}}}"#));
        } else {
            self.add("source", Value::Text(&format!("{file}:{line}")));
        }
    }

    /// Adds a field at the end.
    pub fn add(&mut self, key: &str, value: Value) {
        if self.form == Form::Json {
            self.out.push(',');
            json(self.out, key);
            self.out.push(':');
            self.json_value(value);
        } else {
            self.out.push(' ');
            text(self.out, key);
            self.out.push('=');
            self.text_value(value);
        }
    }

    fn json_value(&mut self, value: Value) {
        match value {
            Value::Text(value) => json(self.out, value),
            Value::Int(value) => self.push(value),
            Value::Uint(value) => self.push(value),
            Value::Float(value) if value.is_finite() => self.push(value),
            Value::Float(value) => json(self.out, &value.to_string()),
            Value::Bool(value) => self.push(value),
            Value::Map(pairs) => {
                let mut before = '{';
                for (name, value) in pairs {
                    self.out.push(before);
                    json(self.out, name);
                    self.out.push(':');
                    json(self.out, value);
                    before = ',';
                }
                self.out.push_str(if pairs.is_empty() { "{}" } else { "}" });
            }
        }
    }

    fn text_value(&mut self, value: Value) {
        match value {
            Value::Text(value) => text(self.out, value),
            Value::Int(value) => self.push(value),
            Value::Uint(value) => self.push(value),
            Value::Float(value) => self.push(value),
            Value::Bool(value) => self.push(value),
            Value::Map(pairs) => {
                let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}:{value}")).collect();
                text(self.out, &format!("map[{}]", pairs.join(" ")));
            }
        }
    }

    /// Ends the line.
    pub fn close(self) {
        self.out.push_str(if self.form == Form::Json { "}\n" } else { "\n" });
    }

    fn push(&mut self, value: impl Display) {
        // Writing to a string fails only if the value's own `Display` does; the line then misses it and is still a line.
        let _ = write!(self.out, "{value}");
    }
}

/// A value in text form: quoted as Go's text handler does, when it is empty or holds a space, `=`, `"` or anything unprintable.
fn text(out: &mut String, value: &str) {
    let bare = |c: char| !matches!(c, ' ' | '=' | '"') && is_printable(c);
    if !value.is_empty() && value.chars().all(bare) {
        out.push_str(value);
        return;
    }
    out.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c => escaped(out, c),
        }
    }
    out.push('"');
}

/// A message without quotes; only what could break the line or deceive the reader is escaped.
fn plain(out: &mut String, message: &str) {
    message.chars().for_each(|c| escaped(out, c));
}

/// `c`, or its escape as Go's `strconv.Quote` writes it.
fn escaped(out: &mut String, c: char) {
    let short = match c {
        '\x07' => "\\a",
        '\x08' => "\\b",
        '\x0c' => "\\f",
        '\n' => "\\n",
        '\r' => "\\r",
        '\t' => "\\t",
        '\x0b' => "\\v",
        c if is_printable(c) => return out.push(c),
        c => {
            let _ = match u32::from(c) {
                code @ ..0x80 => write!(out, "\\x{code:02x}"),
                code @ ..0x1_0000 => write!(out, "\\u{code:04x}"),
                code => write!(out, "\\U{code:08x}"),
            };
            return;
        }
    };
    out.push_str(short);
}

/// Neither a control or format character nor a space other than the plain one.
fn is_printable(c: char) -> bool {
    match c {
        ' '..='~' => true,
        c if c.is_ascii() || c.is_whitespace() => false,
        c => c.escape_debug().len() == 1,
    }
}

/// A JSON string.
fn json(out: &mut String, value: &str) {
    out.push_str(&serde_json::Value::from(value).to_string());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn line(form: Form, message: &str, source: Option<Source>, fields: &[(&str, Value)]) -> String {
        let mut out = String::new();
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_341_600_120);
        let mut line = Line::open(&mut out, form, &Head { at, level: Level::Info, source, message });
        fields.iter().for_each(|(key, value)| line.add(key, *value));
        line.close();
        out
    }

    #[test]
    fn text_values_are_quoted_as_go_does() {
        for (value, written, what) in [
            ("/a/b?c", "/a/b?c", "plain"),
            ("", r#""""#, "empty"),
            ("a b", r#""a b""#, "space"),
            ("a=b", r#""a=b""#, "equals sign"),
            (r#"say "hi""#, r#""say \"hi\"""#, "quotes"),
            (r"a\b", r"a\b", "a backslash alone needs no quotes"),
            (r"a\ b", r#""a\\ b""#, "but is escaped inside them"),
            ("a\nlevel=ERROR", r#""a\nlevel=ERROR""#, "line feed"),
            ("\x1b[31m", r#""\x1b[31m""#, "terminal escape"),
            ("a\u{7f}", r#""a\x7f""#, "delete"),
            ("a\u{2028}b", r#""a\u2028b""#, "line separator"),
            ("\u{202e}abc", r#""\u202eabc""#, "direction override"),
            ("grüße", "grüße", "letters of any script"),
        ] {
            let mut out = String::new();
            text(&mut out, value);
            assert_eq!(out, written, "{what}");
        }
    }

    #[test]
    fn each_form_writes_one_line() {
        let fields = [("status", Value::Uint(502)), ("url", Value::Text("/a b")), ("ok", Value::Bool(false))];
        let go = line(Form::GoDefault, "bad\nnews", None, &fields);
        assert!(go.ends_with("INFO bad\\nnews status=502 url=\"/a b\" ok=false\n"), "{go}");
        assert_eq!(go.find(' '), Some("2026/11/22".len()), "{go}");
        let text = line(Form::Text, "bad\nnews", None, &fields);
        assert!(text.ends_with("level=INFO msg=\"bad\\nnews\" status=502 url=\"/a b\" ok=false\n"), "{text}");
        assert!(text.starts_with("time=2026-11-2") && text.contains(".120"), "{text}");
        let json = line(Form::Json, "bad\nnews", None, &fields);
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&read["msg"], &read["status"], &read["ok"]), (&"bad\nnews".into(), &502.into(), &false.into()));
        for line in [go, text, json] {
            assert_eq!(line.matches('\n').count(), 1, "{line}");
        }
    }

    #[test]
    fn the_source_stands_before_the_message() {
        let source = Some(Source { module: "m", file: "src/a.rs", line: 7 });
        let text = line(Form::Text, "x", source, &[]);
        assert!(text.ends_with(" level=INFO source=src/a.rs:7 msg=x\n"), "{text}");
        let json = line(Form::Json, "x", source, &[]);
        let source = r#""source":{"function":"m","file":"src/a.rs","line":7},"msg":"x"}"#;
        assert!(json.trim_end().ends_with(source), "{json}");
    }

    #[test]
    fn maps_are_objects_in_json() {
        let pairs = [("Accept".to_owned(), "*/*".to_owned()), ("X".to_owned(), "1".to_owned())];
        let json = line(Form::Json, "x", None, &[("h", Value::Map(&pairs)), ("none", Value::Map(&[]))]);
        assert!(json.ends_with("\"h\":{\"Accept\":\"*/*\",\"X\":\"1\"},\"none\":{}}\n"), "{json}");
        let text = line(Form::Text, "x", None, &[("h", Value::Map(&pairs))]);
        assert!(text.ends_with(" h=\"map[Accept:*/* X:1]\"\n"), "{text}");
    }
}
