//! Cookies and query parameters of a request, as browsers write them.

use std::borrow::Cow;

use http::{HeaderMap, header};
use percent_encoding::percent_decode_str;

/// The value of a cookie: of several with one name the first. Case counts (RFC 6265 §5.4); quotes around it do not, as in Goma.
pub fn cookie<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    cookies(headers, wanted).next().map(unquoted)
}

/// The values of all cookies of one name, as they stand there.
pub fn cookies<'a>(headers: &'a HeaderMap, wanted: &str) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(move |(name, _)| *name == wanted).map(|(_, value)| value)
}

/// A value without the quotes that may stand around it: a cookie's (RFC 6265 §4.1.1), a directive's (RFC 9111 §5.2).
pub fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value)
}

/// The decoded value of a query parameter: of several with one name the first. `query` is raw, without `?`.
pub fn parameter<'a>(query: &'a str, wanted: &str) -> Option<Cow<'a, str>> {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(name, _)| decoded(name) == wanted).map(|(_, value)| decoded(value))
}

/// A part of a query as forms write it: `+` is a space, `%XX` a byte.
pub fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_found_in_any_line() {
        let mut headers = HeaderMap::new();
        for line in ["a=1; theme=dark", "b=x=y;theme=light", "q=\"v w\"; half=\"v; empty=\"\""] {
            headers.append(header::COOKIE, line.parse().expect("a value"));
        }
        for (name, value) in [
            ("a", Some("1")),
            ("theme", Some("dark")),
            ("b", Some("x=y")),
            ("A", None),
            ("", None),
            ("q", Some("v w")),
            ("half", Some("\"v")),
            ("empty", Some("")),
        ] {
            assert_eq!(cookie(&headers, name), value, "{name}");
        }
    }

    #[test]
    fn parameters_are_decoded() {
        let query = "page=1%20a+b&page=2&flag&na%6De=n&bad=%zz";
        for (name, value) in
            [("page", Some("1 a b")), ("flag", Some("")), ("name", Some("n")), ("bad", Some("%zz")), ("none", None)]
        {
            assert_eq!(parameter(query, name).as_deref(), value, "{name}");
        }
    }
}
