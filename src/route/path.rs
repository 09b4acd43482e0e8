//! The path of a pattern: a list of segments.

use regex::{Regex, RegexBuilder};

use super::{Part, PatternError};

/// One segment of a pattern.
#[derive(Debug)]
pub(super) enum Segment {
    Literal(Box<str>),
    /// `{name}`
    Placeholder(Box<str>),
    /// `{name:regex}`; the text tells equal ones apart from others.
    Matching {
        text: Box<str>,
        regex: Regex,
    },
}

impl Segment {
    pub(super) fn accepts(&self, segment: &str) -> bool {
        match self {
            Self::Literal(literal) => **literal == *segment,
            Self::Placeholder(_) => !segment.is_empty(),
            Self::Matching { regex, .. } => !segment.is_empty() && regex.is_match(segment),
        }
    }
}

/// Splits the path of a pattern into segments.
///
/// # Errors
/// A placeholder that is not a whole segment, has no valid name or expression, or would cover more than one segment.
pub(super) fn parse(path: &str) -> Result<Vec<Segment>, PatternError> {
    let inner = path.strip_prefix('/').unwrap_or(path);
    let inner = inner.trim_end_matches('/');
    if inner.is_empty() {
        return Ok(Vec::new());
    }
    let segments = split(inner)?;
    if segments.len() > MAX_SEGMENTS {
        return Err(error(format!("{} segments", segments.len()), "use at most 128"));
    }
    segments.into_iter().map(segment).collect()
}

/// The segments of a request path below the root, in the way patterns count them: none for `/`.
pub(super) fn inside(path: &str) -> Option<&str> {
    path.strip_prefix('/').filter(|inner| !inner.is_empty())
}

/// Slashes inside braces belong to an expression.
fn split(path: &str) -> Result<Vec<&str>, PatternError> {
    let mut segments = Vec::new();
    let (mut start, mut depth) = (0, 0_usize);
    for (at, byte) in path.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 0 => return Err(unbalanced(path)),
            b'}' => depth -= 1,
            b'/' if depth == 0 => {
                segments.push(&path[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    segments.push(&path[start..]);
    match depth {
        0 => Ok(segments),
        _ => Err(unbalanced(path)),
    }
}

fn segment(text: &str) -> Result<Segment, PatternError> {
    let Some(inner) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) else {
        return match text.contains(['{', '}']) {
            true => Err(not_whole(text)),
            false => Ok(Segment::Literal(text.into())),
        };
    };
    let (name, regex) = match inner.split_once(':') {
        Some((name, regex)) => (name, Some(regex)),
        None => (inner, None),
    };
    if name.contains(['{', '}']) {
        return Err(not_whole(text));
    }
    if name.ends_with("...") {
        return Err(error(
            format!("{text} would cover several segments"),
            "leave it out: a route covers everything below its path",
        ));
    }
    if !is_name(name) {
        return Err(error(
            format!("{text} has no valid name"),
            "name it with letters, digits and underscores, as in {id}",
        ));
    }
    match regex {
        None => Ok(Segment::Placeholder(name.into())),
        Some(regex) => matching(text, regex),
    }
}

fn matching(text: &str, regex: &str) -> Result<Segment, PatternError> {
    if regex.contains('/') {
        return Err(error(format!("{text} would cover several segments"), "write an expression without a slash"));
    }
    RegexBuilder::new(&format!("^(?:{regex})$"))
        .size_limit(MAX_REGEX_BYTES)
        .build()
        .map(|regex| Segment::Matching { text: text.into(), regex })
        .map_err(|_| error(format!("{text} holds an invalid regular expression"), "write it as in {id:[0-9]+}"))
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes.next();
    first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

fn unbalanced(path: &str) -> PatternError {
    error(format!("unbalanced braces in {path}"), "close each { with a } in the same segment")
}

fn not_whole(text: &str) -> PatternError {
    error(
        format!("{text} mixes a placeholder with other text"),
        "let a placeholder be a whole segment, as in /users/{id}",
    )
}

fn error(problem: String, remedy: &'static str) -> PatternError {
    PatternError { part: Part::Path, problem, remedy }
}

/// Bounds how deep a look-up may recurse.
const MAX_SEGMENTS: usize = 128;

/// Memory of one compiled expression.
const MAX_REGEX_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(path: &str) -> Result<String, PatternError> {
        let segments = parse(path)?;
        let shown: Vec<String> = segments
            .iter()
            .map(|segment| match segment {
                Segment::Literal(text) => format!("={text}"),
                Segment::Placeholder(name) => format!("?{name}"),
                Segment::Matching { regex, .. } => format!("~{regex}"),
            })
            .collect();
        Ok(shown.join(" "))
    }

    #[test]
    fn a_path_is_a_list_of_segments() {
        let rows = [
            ("root", "/", ""),
            ("empty", "", ""),
            ("plain", "/api/v1", "=api =v1"),
            ("slashes at the end", "/api//", "=api"),
            ("no slash at the start", "api", "=api"),
            ("empty segment inside", "/a//b", "=a = =b"),
            ("placeholder", "/users/{id}/posts", "=users ?id =posts"),
            ("asterisk is a literal", "/files/*", "=files =*"),
            ("expression", "/{id:[0-9]+}", "~^(?:[0-9]+)$"),
            ("expression with braces", "/{id:[0-9]{3}}", "~^(?:[0-9]{3})$"),
            ("expression with a colon", "/{id:a:b}", "~^(?:a:b)$"),
            ("percent sign is a literal", "/a%20b", "=a%20b"),
        ];
        for (what, path, expected) in rows {
            assert_eq!(shown(path).as_deref(), Ok(expected), "{what}");
        }
    }

    #[test]
    fn a_path_that_cannot_match_as_meant_is_refused() {
        let rows = [
            ("catch-all", "/files/{rest...}", "covers everything below"),
            ("part of a segment", "/a{id}", "whole segment"),
            ("two in one segment", "/{a}{b}", "whole segment"),
            ("no name", "/{}", "name it"),
            ("bad name", "/{a b}", "name it"),
            ("open brace", "/{a", "close each"),
            ("closing brace", "/a}", "close each"),
            ("expression over segments", "/{a:b/c}", "without a slash"),
            ("bad expression", "/{a:[}", "write it as"),
        ];
        for (what, path, remedy) in rows {
            let error = shown(path).expect_err(what);
            assert_eq!(error.part, Part::Path, "{what}");
            assert!(error.to_string().contains(remedy), "{what}: {error}");
        }
        assert!(parse(&"/a".repeat(128)).is_ok());
        assert!(parse(&"/a".repeat(129)).is_err(), "too deep");
    }
}
