//! The canonical path: what routes and guards look at, while the backend gets the original bytes.
//!
//! Percent-encoding is taken off once. Where that leaves room for two readings, all of them are kept as *forms*:
//!
//! | form | `/a%2Fb//c/./d` | there when |
//! |---|---|---|
//! | decoded | `/a/b//c/./d` | always |
//! | encoded | `/a%2Fb//c/./d` | an encoded slash was sent |
//! | merged | `/a/b/c/d` | a run of slashes or a `.` segment is in the decoded form |
//! | encoded and merged | `/a%2Fb/c/d` | both |
//!
//! A guard tests every form and any hit guards; see `route` for what the router does with them. There is no form for
//! `..`: such a segment, plain or encoded, is refused, since no two parsers agree what it means after `%2F`.

use std::borrow::Cow;

use super::Refusal;

/// A checked path in all its readings. Borrows, and allocates nothing, unless something is encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanonicalPath<'a> {
    raw: Cow<'a, str>,
    decoded: Cow<'a, str>,
    others: Vec<String>,
}

impl CanonicalPath<'_> {
    /// The path as it was sent.
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// The path with percent-encoding taken off once. Bytes that are not UTF-8 are U+FFFD here.
    pub fn decoded(&self) -> &str {
        &self.decoded
    }

    /// All readings, the decoded one first. One for nearly every request.
    pub fn forms(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.decoded()).chain(self.others())
    }

    /// The readings beside the decoded one.
    pub fn others(&self) -> impl Iterator<Item = &str> {
        self.others.iter().map(String::as_str)
    }

    /// The same without a borrow.
    pub fn into_owned(self) -> CanonicalPath<'static> {
        CanonicalPath {
            raw: Cow::Owned(self.raw.into_owned()),
            decoded: Cow::Owned(self.decoded.into_owned()),
            others: self.others,
        }
    }
}

/// Reads the path of a request target, without its query. An empty one, as in `http://host`, is `/`.
///
/// # Errors
/// 400 when it does not start with a slash, its percent-encoding is invalid, or it holds, plain or encoded, a control
/// character, an overlong UTF-8 sequence or a `..` segment. As `..` counts what some backend takes for it: behind or
/// before `\`, and with parameters (`..;x`).
pub fn path(raw: &str) -> Result<CanonicalPath<'_>, Refusal> {
    let raw = if raw.is_empty() { "/" } else { raw };
    if !raw.starts_with('/') {
        return Err(Refusal::bad_request("the path does not start with a slash"));
    }
    let unusual = Unusual::in_path(raw.as_bytes());
    let decoded = match unusual.percent {
        true => decode(raw)?,
        false => Cow::Borrowed(raw),
    };
    if unusual.percent || unusual.other {
        check(&decoded)?;
    }
    let others = match unusual.percent || unusual.other {
        true => other_forms(raw, &decoded),
        false => Vec::new(),
    };
    Ok(CanonicalPath { raw: Cow::Borrowed(raw), decoded, others })
}

/// What keeps a path from being its own only form.
struct Unusual {
    percent: bool,
    /// A control character, `//`, or a `.` or `\` where it could begin a segment.
    other: bool,
}

impl Unusual {
    /// Without early exits, so that the compiler can look at many bytes at once.
    fn in_path(path: &[u8]) -> Self {
        let odd = |byte: u8| (byte < b' ') | (byte == 0x7F) | (byte == b'\\');
        let pairs = path.iter().zip(path.get(1..).unwrap_or_default());
        let odd_pairs =
            pairs.fold(false, |found, (one, next)| found | ((*one == b'/') & ((*next == b'/') | (*next == b'.'))));
        Self {
            percent: path.iter().fold(false, |found, byte| found | (*byte == b'%')),
            other: path.iter().fold(odd_pairs, |found, byte| found | odd(*byte)),
        }
    }
}

fn decode(raw: &str) -> Result<Cow<'static, str>, Refusal> {
    let bytes = decode_bytes(raw.as_bytes(), Slash::Decode)?;
    let overlong = bytes.windows(2).any(|pair| matches!(pair, [0xC0 | 0xC1, 0x80..=0xBF]));
    if overlong {
        return Err(Refusal::bad_request("overlong UTF-8 in the path"));
    }
    Ok(Cow::Owned(lossy(bytes)))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Slash {
    Decode,
    Keep,
}

fn decode_bytes(raw: &[u8], slash: Slash) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let Some(([high, low], after)) = after.split_first_chunk::<2>().map(|(a, b)| (*a, b)) else {
            return Err(BAD_ENCODING);
        };
        let byte = hex(high)? << 4 | hex(low)?;
        match byte {
            b'/' if slash == Slash::Keep => bytes.extend_from_slice(b"%2F"),
            _ => bytes.push(byte),
        }
        rest = after;
    }
    Ok(bytes)
}

const BAD_ENCODING: Refusal = Refusal::bad_request("invalid percent-encoding in the path");

fn hex(digit: u8) -> Result<u8, Refusal> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(BAD_ENCODING),
    }
}

fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn check(decoded: &str) -> Result<(), Refusal> {
    if decoded.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(Refusal::bad_request("control character in the path"));
    }
    match decoded.split(['/', '\\']).any(|segment| without_parameters(segment) == "..") {
        true => Err(Refusal::bad_request("a .. segment in the path")),
        false => Ok(()),
    }
}

/// Java servers read `/..;x/` as `/../`.
fn without_parameters(segment: &str) -> &str {
    segment.split_once(';').map_or(segment, |(name, _)| name)
}

fn other_forms(raw: &str, decoded: &str) -> Vec<String> {
    let mut forms = Vec::new();
    // Cannot fail: the same encoding was just decoded.
    let encoded = decode_bytes(raw.as_bytes(), Slash::Keep).map(lossy).ok().filter(|encoded| encoded != decoded);
    forms.extend(merge(decoded));
    forms.extend(encoded.as_deref().and_then(merge));
    forms.extend(encoded);
    forms
}

/// Takes out empty and `.` segments; a slash at the end stays. `None` when there is nothing to take out.
fn merge(path: &str) -> Option<String> {
    let is_void = |segment: &str| segment.is_empty() || without_parameters(segment) == ".";
    let (_, inner) = path.split_once('/')?;
    let last = inner.split('/').count() - 1;
    let has_void =
        inner.split('/').enumerate().any(|(at, segment)| is_void(segment) && (at < last || !segment.is_empty()));
    if !has_void {
        return None;
    }
    let mut merged = String::with_capacity(path.len());
    for segment in inner.split('/').filter(|segment| !is_void(segment)) {
        merged.push('/');
        merged.push_str(segment);
    }
    if merged.is_empty() || inner.rsplit('/').next().is_some_and(is_void) {
        merged.push('/');
    }
    Some(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_in_every_way_a_backend_may_read_it() {
        let rows: [(&str, &str, &[&str]); 26] = [
            ("plain", "/api/users", &["/api/users"]),
            ("root", "/", &["/"]),
            ("empty", "", &["/"]),
            ("slash at the end", "/api/", &["/api/"]),
            ("encoded space", "/a%20b", &["/a b"]),
            ("encoded letter", "/%61dmin", &["/admin"]),
            ("UTF-8", "/%C3%A9", &["/é"]),
            ("not UTF-8", "/%ff", &["/\u{FFFD}"]),
            ("encoded percent sign, once", "/%2541", &["/%41"]),
            ("encoded slash", "/a%2fb", &["/a/b", "/a%2Fb"]),
            ("encoded slash beside a letter", "/%61%2Fb", &["/a/b", "/a%2Fb"]),
            ("two slashes", "//a", &["//a", "/a"]),
            ("many slashes", "/a///b//", &["/a///b//", "/a/b/"]),
            ("only slashes", "//", &["//", "/"]),
            ("encoded slash beside a slash", "/a/%2Fb", &["/a//b", "/a/b", "/a/%2Fb"]),
            ("both", "//a%2Fb", &["//a/b", "/a/b", "/a%2Fb", "//a%2Fb"]),
            ("dot segment", "/./a", &["/./a", "/a"]),
            ("encoded dot segment", "/%2e/a", &["/./a", "/a"]),
            ("dot segment at the end", "/a/.", &["/a/.", "/a/"]),
            ("dot segment with parameters", "/.;x/a", &["/.;x/a", "/a"]),
            ("only a dot", "/.", &["/.", "/"]),
            ("hidden file", "/.well-known/x", &["/.well-known/x"]),
            ("three dots", "/...", &["/..."]),
            ("dots inside", "/a..b/..c/d..", &["/a..b/..c/d.."]),
            ("backslash is data", "/a\\b", &["/a\\b"]),
            ("twice encoded dots are data", "/%252e%252e", &["/%2e%2e"]),
        ];
        for (what, raw, expected) in rows {
            let path = path(raw).unwrap();
            assert_eq!(path.forms().collect::<Vec<_>>(), expected, "{what}");
        }
    }

    #[test]
    fn a_path_that_climbs_or_hides_something_is_refused() {
        let rows = [
            ("no slash", "a"),
            ("asterisk", "*"),
            ("two dots", "/a/../b"),
            ("two dots at the end", "/a/.."),
            ("only two dots", "/.."),
            ("encoded dots", "/%2e%2e/a"),
            ("one encoded dot", "/.%2E/a"),
            ("behind an encoded slash", "/a%2f..%2fb"),
            ("behind an encoded slash at the end", "/a%2F.."),
            ("before a backslash", "/..\\a"),
            ("behind a backslash", "/a\\.."),
            ("behind an encoded backslash", "/a%5c..%5cb"),
            ("with parameters", "/a/..;x/b"),
            ("with an encoded semicolon", "/a/..%3bx/b"),
            ("NUL", "/a%00"),
            ("line feed", "/a%0ab"),
            ("raw control character", "/a\u{1}b"),
            ("DEL", "/a%7F"),
            ("no digits", "/a%"),
            ("one digit", "/a%2"),
            ("not digits", "/a%zz"),
            ("sign in place of a digit", "/a%+1"),
            ("%u encoding", "/%u002e%u002e/"),
            ("overlong slash", "/a%c0%afb"),
            ("overlong dots", "/%c0%ae%c0%ae/"),
        ];
        for (what, raw) in rows {
            assert_eq!(path(raw).map_err(|refusal| refusal.status), Err(400), "{what}");
        }
    }

    #[test]
    fn a_plain_path_costs_no_allocation() {
        let plain = path("/api/users/42").unwrap();
        assert!(matches!(plain.decoded, Cow::Borrowed(_)));
        assert_eq!(plain.others.capacity(), 0);
        assert_eq!(plain.clone().into_owned(), plain);
    }
}
