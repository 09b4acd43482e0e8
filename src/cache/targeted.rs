//! `CDN-Cache-Control`: what a response says to shared caches in front of it only. RFC 9213.
//!
//! It is a Structured Fields dictionary; one that does not parse is ignored as a whole, and `Cache-Control` counts.

use http::HeaderMap;

use super::directives::ResponseControl;

/// The targeted directives, when the field is there, well-formed and not empty.
pub fn read(headers: &HeaderMap) -> Option<ResponseControl> {
    let mut lines = headers.get_all("cdn-cache-control").iter().peekable();
    lines.peek()?;
    let mut control = ResponseControl { targeted: true, ..ResponseControl::default() };
    let mut empty = true;
    for line in lines {
        let mut rest = line.to_str().ok()?.trim_matches(' ');
        while !rest.is_empty() {
            rest = member(rest, &mut control)?;
            empty = false;
            rest = rest.trim_start_matches([' ', '\t']);
            if rest.is_empty() {
                break;
            }
            rest = rest.strip_prefix(',')?.trim_start_matches([' ', '\t']);
            // A comma at the end is a mistake. RFC 9651 §4.2.2.
            if rest.is_empty() {
                return None;
            }
        }
    }
    (!empty).then_some(control)
}

/// Reads one member and adds it. Numbers count where a number is wanted, and bare keys where not; anything else well-formed is
/// a directive that nobody knows.
fn member<'a>(text: &'a str, control: &mut ResponseControl) -> Option<&'a str> {
    let (key, rest) = key(text)?;
    let numeric = matches!(key, "max-age" | "s-maxage" | "stale-while-revalidate" | "stale-if-error");
    let (value, rest) = match rest.strip_prefix('=') {
        Some(rest) if rest.starts_with('(') => (Value::Other, inner_list(rest)?),
        Some(rest) => item(rest)?,
        None => (Value::True, rest),
    };
    match value {
        Value::Number(number) if numeric => control.add(key, Some(number)),
        Value::True if !numeric => control.add(key, None),
        Value::Text(text) if matches!(key, "private" | "no-cache") => control.add(key, Some(text)),
        _ => {}
    }
    parameters(rest)
}

enum Value<'a> {
    Number(&'a str),
    Text(&'a str),
    True,
    Other,
}

fn key(text: &str) -> Option<(&str, &str)> {
    if !text.starts_with(|c: char| c.is_ascii_lowercase() || c == '*') {
        return None;
    }
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '.' | '*');
    Some(text.split_at(text.find(|c| !known(c)).unwrap_or(text.len())))
}

fn item(text: &str) -> Option<(Value<'_>, &str)> {
    let upto = |text: &'_ str, stops: fn(char) -> bool| text.find(stops).unwrap_or(text.len());
    match text.chars().next()? {
        '"' => {
            let mut escaped = false;
            for (at, c) in text.char_indices().skip(1) {
                match c {
                    _ if escaped => escaped = false,
                    '\\' => escaped = true,
                    '"' => return Some((Value::Text(&text[..=at]), &text[at + 1..])),
                    _ => {}
                }
            }
            None
        }
        '?' if text.starts_with("?1") => Some((Value::True, &text[2..])),
        '?' if text.starts_with("?0") => Some((Value::Other, &text[2..])),
        ':' => {
            let end = text[1..].find(':')? + 2;
            Some((Value::Other, &text[end..]))
        }
        '-' | '0'..='9' => {
            let (number, rest) = text.split_at(upto(text, |c| !c.is_ascii_digit() && c != '-' && c != '.'));
            let whole = number.strip_prefix('-').unwrap_or(number);
            if whole.is_empty() || whole.contains('-') || whole.split('.').any(str::is_empty) || whole.len() > 16 {
                return None;
            }
            match number.bytes().all(|b| b.is_ascii_digit()) {
                true => Some((Value::Number(number), rest)),
                false => Some((Value::Other, rest)),
            }
        }
        c if c.is_ascii_alphabetic() || c == '*' => {
            let (_, rest) = text.split_at(upto(text, |c| matches!(c, ',' | ';' | ' ' | '\t' | '(' | ')' | '"' | '=')));
            Some((Value::Other, rest))
        }
        _ => None,
    }
}

fn inner_list(text: &str) -> Option<&str> {
    let mut rest = text.strip_prefix('(')?;
    loop {
        rest = rest.trim_start_matches(' ');
        if let Some(rest) = rest.strip_prefix(')') {
            return Some(rest);
        }
        rest = parameters(item(rest)?.1)?;
        if !rest.starts_with([' ', ')']) {
            return None;
        }
    }
}

fn parameters(mut text: &str) -> Option<&str> {
    while let Some(rest) = text.strip_prefix(';') {
        let (_, rest) = key(rest.trim_start_matches(' '))?;
        text = match rest.strip_prefix('=') {
            Some(rest) => item(rest)?.1,
            None => rest,
        };
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_well_formed_field_counts_and_another_does_not() {
        for (line, max_age, what) in [
            ("max-age=60", Some(Some(60)), "a number"),
            ("max-age=60;x=1, no-cache", Some(Some(60)), "with parameters"),
            ("a=(1 \"b\" c);d, max-age=60", Some(Some(60)), "among other things"),
            ("max-age=\"60\"", Some(None), "a text is no number"),
            ("no-store", Some(None), "a bare key"),
            ("Max-Age=60", None, "keys are in lower case"),
            ("max-age=60,", None, "a comma at the end"),
            ("max-age=-", None, "no number"),
            ("max-age 60", None, "no dictionary"),
            ("x=\"unclosed", None, "a text that does not end"),
            ("", None, "empty"),
        ] {
            let headers = HeaderMap::from_iter([("cdn-cache-control".parse().unwrap(), line.parse().unwrap())]);
            assert_eq!(read(&headers).map(|control| control.max_age), max_age, "{what}: {line}");
        }
    }
}
