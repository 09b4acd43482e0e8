//! The reference page of a kind, made from its code: settings with their types, defaults and meaning, and an example.
//!
//! Types and sentences come from the settings struct and its doc comments, so that the page cannot say anything else than
//! the code does.

use std::fmt::Write;

use serde_json::Value;

use super::{KINDS, Kind};

/// All kinds with their first sentence, a line each.
pub fn list() -> String {
    let mut kinds: Vec<&Kind> = KINDS.iter().collect();
    kinds.sort_by_key(|kind| kind.names[0].to_ascii_lowercase());
    let names = |kind: &Kind| kind.names.join(", ");
    let width = kinds.iter().map(|kind| names(kind).len()).max().unwrap_or_default();
    let line = |kind: &&Kind| format!("{:width$}  {}\n", names(kind), summary(kind));
    kinds.iter().map(line).collect()
}

/// The page of one kind; `None` for a name that is none.
pub fn page(name: &str) -> Option<String> {
    let kind = KINDS.iter().find(|kind| kind.names.contains(&name))?;
    let schema = schema(kind);
    let mut page = format!("{}\n\n{}\n\n", kind.names.join(", "), text(&schema, "description"));
    page += "Settings (under `rule`):\n\n";
    let rows = rows(&schema, &schema, "", 0);
    if rows.is_empty() {
        page += "  none\n";
    }
    for Row { key, shape, default, about } in rows {
        let default = if default.is_empty() { default } else { format!(", default {default}") };
        // Writing to a string does not fail.
        let _ = write!(page, "  {key}: {shape}{default}\n{}", indented(&about));
    }
    let _ = write!(page, "\nExample:\n\n{}", kind.example);
    Some(page)
}

fn schema(kind: &Kind) -> Value {
    serde_json::to_value((kind.schema)()).unwrap_or_default()
}

fn summary(kind: &Kind) -> String {
    let about = text(&schema(kind), "description").replace('\n', " ");
    about.split_once(". ").map_or(about.clone(), |(first, _)| format!("{first}."))
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn indented(about: &str) -> String {
    about.lines().map(|line| format!("      {line}\n")).collect()
}

/// One setting.
struct Row {
    key: String,
    shape: String,
    default: String,
    about: String,
}

/// Deepest nesting of settings that a page shows.
const DEPTH: usize = 4;

/// The settings of an object, those of its inner objects behind them.
fn rows(root: &Value, object: &Value, prefix: &str, depth: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, property) in object["properties"].as_object().into_iter().flatten() {
        let key = format!("{prefix}{name}");
        let shape = shape(root, property);
        let default = default(property, &object["default"][name]);
        rows.push(Row { key: key.clone(), shape, default, about: about(root, property) });
        let (inner, mark) = inner(root, property);
        if let (Some(inner), true) = (inner, depth < DEPTH) {
            rows.extend(self::rows(root, inner, &format!("{key}{mark}."), depth + 1));
        }
    }
    rows
}

/// Follows a reference to a definition.
fn resolved<'a>(root: &'a Value, value: &'a Value) -> &'a Value {
    let target = value["$ref"].as_str().and_then(|path| root.pointer(path.trim_start_matches('#')));
    target.unwrap_or(value)
}

/// The alternatives of a value that may be absent, without the absence.
fn present<'a>(root: &'a Value, property: &'a Value) -> &'a Value {
    let some = property["anyOf"].as_array().into_iter().flatten().find(|value| value["type"] != "null");
    resolved(root, some.unwrap_or(property))
}

fn inner<'a>(root: &'a Value, property: &'a Value) -> (Option<&'a Value>, &'static str) {
    let value = present(root, property);
    if value["properties"].is_object() {
        return (Some(value), "");
    }
    let items = present(root, &value["items"]);
    (items["properties"].is_object().then_some(items), "[]")
}

/// The type of a setting in an operator's words.
fn shape(root: &Value, property: &Value) -> String {
    let value = present(root, property);
    if let Some(words) = words(value) {
        return words;
    }
    match kind_of(value) {
        "array" => format!("list of {}", shape(root, &value["items"])),
        "object" if value["additionalProperties"].is_object() => {
            format!("map of name to {}", shape(root, &value["additionalProperties"]))
        }
        "object" => "section".to_owned(),
        "boolean" => "true or false".to_owned(),
        "integer" => "whole number".to_owned(),
        "" => "any of several forms".to_owned(),
        other => other.to_owned(),
    }
}

/// The words that a setting is one of.
fn words(value: &Value) -> Option<String> {
    let plain = || value["enum"].as_array().map(|words| words.iter().filter_map(Value::as_str).collect::<Vec<_>>());
    let told = || {
        let words = value["oneOf"].as_array()?.iter().map(|word| word["const"].as_str());
        words.collect::<Option<Vec<_>>>()
    };
    plain().or_else(told).filter(|words| !words.is_empty()).map(|words| words.join(" | "))
}

fn kind_of(value: &Value) -> &str {
    match &value["type"] {
        Value::String(kind) => kind,
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or_default(),
        _ => "",
    }
}

/// A default worth telling: not the emptiness of a list, a map or a text.
fn default(property: &Value, of_object: &Value) -> String {
    let value = if property["default"].is_null() { of_object } else { &property["default"] };
    match value {
        Value::Null => String::new(),
        Value::String(text) => {
            if text.is_empty() {
                String::new()
            } else {
                text.clone()
            }
        }
        Value::Array(items) if items.is_empty() => String::new(),
        Value::Object(_) => String::new(),
        other => other.to_string(),
    }
}

fn about(root: &Value, property: &Value) -> String {
    let own = text(property, "description");
    if own.is_empty() { text(resolved(root, property), "description") } else { own }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_page_that_tells_each_setting() {
        for kind in KINDS {
            let page = page(kind.names[0]).expect("a page");
            assert!(!summary(kind).is_empty(), "{}: its settings struct has a doc comment", kind.names[0]);
            for Row { key, about, .. } in rows(&schema(kind), &schema(kind), "", 0) {
                assert!(!about.is_empty(), "{}: `{key}` has a doc comment", kind.names[0]);
            }
            assert!(kind.names.iter().any(|name| kind.example.contains(&format!("type: {name}"))), "{page}");
        }
    }

    #[test]
    fn a_page_says_type_default_and_meaning() {
        let page = page("access").expect("a page");
        assert!(page.contains("  statusCode: whole number, default 403\n      Status of the refusal"), "{page}");
        let headers = super::page("responseHeaders").expect("a page");
        for row in
            ["setHeaders: map of name to string", "setCookies[].attributes.secure: true or false", "cors.origins:"]
        {
            assert!(headers.contains(row), "{row} in {headers}");
        }
    }
}
