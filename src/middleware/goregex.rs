//! Go's regular expressions in the words of the `regex` crate.
//!
//! Both are RE2's children, but they differ where configurations live: Go's `\d \w \s \b` are ASCII, a `{` that begins no
//! repetition stands for itself, `[` and doubled operators have no meaning inside a class, `\Q..\E` quotes, a repetition of
//! a repetition and counts above 1000 are errors. Spec middlewares §2.

use regex::Regex;
use thiserror::Error;

/// Why Go would refuse an expression.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum GoRegexError {
    /// `a**`, `a+*`, `a{2}{3}`.
    #[error("doubled repetition operator")]
    Doubled,
    /// `a{1001}`.
    #[error("repetition count above 1000")]
    TooMany,
    /// Refused by the regex engine.
    #[error("{0}")]
    Syntax(String),
}

/// Compiles a Go expression.
///
/// # Errors
/// Where Go's compiler refuses it.
pub fn compile(pattern: &str) -> Result<Regex, GoRegexError> {
    Regex::new(&translate(pattern)?).map_err(|error| GoRegexError::Syntax(short(&error)))
}

/// Translates a Go expression into one for the `regex` crate that means the same.
///
/// # Errors
/// Where Go's compiler refuses it.
pub fn translate(pattern: &str) -> Result<String, GoRegexError> {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    let mut repeated = false;
    while let Some(next) = rest.chars().next() {
        let (taken, is_repetition) = match next {
            '\\' => (escape(rest, &mut out, false), false),
            '[' => (class(rest, &mut out), false),
            '*' | '+' | '?' => {
                if repeated {
                    return Err(GoRegexError::Doubled);
                }
                (operator(rest, 1, &mut out), true)
            }
            '{' => match counted(rest)? {
                Some(_) if repeated => return Err(GoRegexError::Doubled),
                Some(length) => (operator(rest, length, &mut out), true),
                None => (literal(rest, &mut out), false),
            },
            '}' => (literal(rest, &mut out), false),
            other => {
                out.push(other);
                (other.len_utf8(), false)
            }
        };
        repeated = is_repetition;
        rest = &rest[taken..];
    }
    regex::Regex::new(&out).map_err(|error| GoRegexError::Syntax(short(&error)))?;
    Ok(out)
}

/// Only the sentence: the crate's message draws the pattern over several lines.
fn short(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.trim_start_matches("error: ").to_owned()
}

fn literal(rest: &str, out: &mut String) -> usize {
    out.push('\\');
    out.push_str(&rest[..1]);
    1
}

/// Copies a repetition operator with the `?` that makes it lazy.
fn operator(rest: &str, length: usize, out: &mut String) -> usize {
    let length = length + usize::from(rest[length..].starts_with('?'));
    out.push_str(&rest[..length]);
    length
}

/// Length of `{n}`, `{n,}` or `{n,m}` at the start of `rest`.
fn counted(rest: &str) -> Result<Option<usize>, GoRegexError> {
    let Some(end) = rest.find('}') else { return Ok(None) };
    let inner = &rest[1..end];
    let (low, high) = inner.split_once(',').unwrap_or((inner, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if low.is_empty() || !digits(low) || !digits(high) {
        return Ok(None);
    }
    let above = |text: &str| !text.is_empty() && text.parse::<u32>().is_ok_and(|n| n > 1000) || text.len() > 9;
    if above(low) || above(high) { Err(GoRegexError::TooMany) } else { Ok(Some(end + 1)) }
}

/// Translates a backslash sequence; returns how many bytes it took.
fn escape(rest: &str, out: &mut String, in_class: bool) -> usize {
    let Some(name) = rest[1..].chars().next() else {
        out.push('\\');
        return 1;
    };
    let ascii = match name {
        'd' => "0-9",
        'w' => "0-9A-Za-z_",
        's' => r"\t\n\x0C\r ",
        _ => "",
    };
    match name {
        'd' | 'w' | 's' if in_class => out.push_str(ascii),
        'd' | 'w' | 's' => out.push_str(&format!("[{ascii}]")),
        'D' | 'W' | 'S' => out.push_str(&format!("[^{}]", inverse(name))),
        'b' | 'B' if !in_class => out.push_str(&format!("(?-u:\\{name})")),
        // Ends of words to the `regex` crate, signs that stand for themselves to Go.
        '<' | '>' => out.push(name),
        'Q' if !in_class => {
            let quoted = &rest[2..];
            let end = quoted.find("\\E").unwrap_or(quoted.len());
            out.push_str(&regex::escape(&quoted[..end]));
            return (2 + end + 2).min(rest.len());
        }
        other => {
            out.push('\\');
            out.push(other);
        }
    }
    1 + name.len_utf8()
}

fn inverse(name: char) -> &'static str {
    match name {
        'D' => "0-9",
        'W' => "0-9A-Za-z_",
        _ => r"\t\n\x0C\r ",
    }
}

/// Translates a bracket class; returns how many bytes it took.
fn class(rest: &str, out: &mut String) -> usize {
    let mut at = 1;
    out.push('[');
    if rest[at..].starts_with('^') {
        out.push('^');
        at += 1;
    }
    let mut first = true;
    while let Some(next) = rest[at..].chars().next() {
        match next {
            ']' if !first => {
                out.push(']');
                return at + 1;
            }
            '\\' => at += escape(&rest[at..], out, true),
            '[' if rest[at..].starts_with("[:") && rest[at..].contains(":]") => {
                let end = at + rest[at..].find(":]").unwrap_or_default() + 2;
                out.push_str(&rest[at..end]);
                at = end;
            }
            ']' | '[' | '&' | '~' => at += literal(&rest[at..], out),
            // Two of them would be a difference of sets; in Go one is the end of a range, or stands for itself.
            '-' if rest[at + 1..].starts_with('-') => {
                out.push_str(if first { "\\-" } else { "-\\-" });
                at += if first { 1 } else { 2 };
            }
            other => {
                out.push(other);
                at += other.len_utf8();
            }
        }
        first = false;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        regex::Regex::new(&translate(pattern).expect(pattern)).expect(pattern).is_match(text)
    }

    #[test]
    fn expressions_mean_what_they_mean_in_go() {
        for (pattern, text, hit) in [
            (r"^\d+$", "123", true),
            (r"^\d+$", "١٢", false),
            (r"^\w$", "é", false),
            (r"^[\w-]+$", "a-b", true),
            (r"a\sb", "a\u{b}b", false),
            (r"\bx\b", "a x b", true),
            (r"\Qa.b\E$", "a.b", true),
            (r"\Qa.b\E$", "axb", false),
            ("/users/{id}", "/users/{id}", true),
            ("a{2}$", "caa", true),
            ("[[]x", "[x", true),
            ("[]a]", "]", true),
            ("[[:alpha:]]+", "abc", true),
            ("a&&b", "a&&b", true),
            ("(?i)ADMIN", "admin", true),
            ("(?P<n>x)", "x", true),
            (r"\pL", "é", true),
            (r"a\<b\>$", "a<b>", true),
            (r"\<a", "a", false),
            ("^[+--]$", ",", true),
            ("^[--/]$", ".", true),
            ("^[--]$", "-", true),
            (r"^[\d--]$", "-", true),
            ("^[^--]$", "-", false),
            (r"^[^\D]$", "5", true),
            (r"^[\S]$", "\u{b}", true),
            ("/*", "", true),
        ] {
            assert_eq!(matches(pattern, text), hit, "{pattern} on {text}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for pattern in ["/**", "a+*", "a{2}{3}", "a**", "a{1001}", "(", "[a", r"(?<", "*.php", r"a\"] {
            assert!(translate(pattern).is_err(), "{pattern}");
        }
        assert_eq!(translate("a??b"), Ok("a??b".to_owned()), "a lazy operator is one operator");
    }
}
