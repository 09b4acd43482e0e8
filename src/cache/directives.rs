//! What `Cache-Control` says, in requests, in responses and to shared caches in particular. RFC 9111 §5.2, RFC 9213.
//!
//! Read leniently where that is safe and strictly where it is not: a number that is none makes a response stale, quoted text
//! never holds a directive, unknown directives are ignored.

use http::{HeaderMap, HeaderName, header};

use crate::fields::unquoted;

/// Delta-seconds above it are this. RFC 9111 §1.2.2.
const MOST: u64 = 1 << 31;

/// What a response says about its storage and reuse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseControl {
    /// `no-store`
    pub no_store: bool,
    /// `private`, for the response as a whole.
    pub private: bool,
    /// `public`
    pub public: bool,
    /// `no-cache`, for the response as a whole.
    pub no_cache: bool,
    /// Fields named by `private` and `no-cache`: they are not stored.
    pub fields: Vec<HeaderName>,
    /// `must-revalidate` or `proxy-revalidate`.
    pub must_revalidate: bool,
    /// `must-understand`
    pub must_understand: bool,
    /// `s-maxage`, seconds.
    pub s_maxage: Option<u64>,
    /// `max-age`, seconds.
    pub max_age: Option<u64>,
    /// `stale-while-revalidate`, seconds. RFC 5861.
    pub stale_while_revalidate: Option<u64>,
    /// `stale-if-error`, seconds. RFC 5861.
    pub stale_if_error: Option<u64>,
    /// It came in `CDN-Cache-Control`: then `Expires` does not count either. RFC 9213 §2.1.
    pub targeted: bool,
}

impl ResponseControl {
    /// What counts for this cache: `CDN-Cache-Control` where it is there and well-formed, else `Cache-Control`.
    pub fn of(headers: &HeaderMap) -> ResponseControl {
        if let Some(targeted) = super::targeted::read(headers) {
            return targeted;
        }
        let mut control = ResponseControl::default();
        each(headers, &header::CACHE_CONTROL, |name, value| control.add(name, value));
        control
    }

    /// Whether it says how long it is fresh.
    pub fn lifetime(&self) -> Option<u64> {
        self.s_maxage.or(self.max_age)
    }

    pub(super) fn add(&mut self, name: &str, value: Option<&str>) {
        match name {
            "no-store" => self.no_store = true,
            "public" => self.public = true,
            "must-revalidate" | "proxy-revalidate" => self.must_revalidate = true,
            "must-understand" => self.must_understand = true,
            "private" | "no-cache" => {
                let fields = value.map(names).unwrap_or_default();
                match (fields.is_empty(), name) {
                    (false, _) => self.fields.extend(fields),
                    (true, "private") => self.private = true,
                    (true, _) => self.no_cache = true,
                }
            }
            // The first one counts; one that is no number makes the response stale. RFC 9111 §4.2.1.
            "s-maxage" => _ = self.s_maxage.get_or_insert(seconds(value).unwrap_or(0)),
            "max-age" => _ = self.max_age.get_or_insert(seconds(value).unwrap_or(0)),
            "stale-while-revalidate" => {
                _ = self.stale_while_revalidate.get_or_insert(seconds(value).unwrap_or(0));
            }
            "stale-if-error" => _ = self.stale_if_error.get_or_insert(seconds(value).unwrap_or(0)),
            _ => {}
        }
    }
}

/// What a client asks of caches. RFC 9111 §5.2.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestControl {
    /// `no-cache`, or `Pragma: no-cache` without any `Cache-Control`.
    pub no_cache: bool,
    /// `no-store`
    pub no_store: bool,
    /// `only-if-cached`
    pub only_if_cached: bool,
    /// `max-age`: no older than this many seconds.
    pub max_age: Option<u64>,
    /// `min-fresh`: fresh for this many seconds more.
    pub min_fresh: Option<u64>,
    /// `max-stale`: stale by no more than this many seconds; `u64::MAX` without a number.
    pub max_stale: Option<u64>,
}

impl RequestControl {
    /// Reads a request.
    pub fn of(headers: &HeaderMap) -> RequestControl {
        let mut control = RequestControl::default();
        if !headers.contains_key(header::CACHE_CONTROL) {
            let pragma = headers.get_all(header::PRAGMA).iter();
            control.no_cache = pragma
                .filter_map(|value| value.to_str().ok())
                .any(|v| v.split(',').any(|word| word.trim().eq_ignore_ascii_case("no-cache")));
            return control;
        }
        each(headers, &header::CACHE_CONTROL, |name, value| match name {
            "no-cache" => control.no_cache = true,
            "no-store" => control.no_store = true,
            "only-if-cached" => control.only_if_cached = true,
            "max-age" => control.max_age = seconds(value).or(control.max_age),
            "min-fresh" => control.min_fresh = seconds(value).or(control.min_fresh),
            "max-stale" => control.max_stale = Some(value.map_or(u64::MAX, |_| seconds(value).unwrap_or(0))),
            _ => {}
        });
        control
    }
}

/// Calls `found` with each directive, its name in lower case.
fn each(headers: &HeaderMap, name: &HeaderName, mut found: impl FnMut(&str, Option<&str>)) {
    for line in headers.get_all(name) {
        // Bytes beyond ASCII are in no directive that counts.
        let line = String::from_utf8_lossy(line.as_bytes());
        for member in members(&line) {
            let (name, value) = match member.split_once('=') {
                Some((name, value)) => (name.trim(), Some(value.trim())),
                None => (member.trim(), None),
            };
            if !name.is_empty() {
                found(&name.to_ascii_lowercase(), value);
            }
        }
    }
}

/// Members of a list, split at commas outside of quotes.
pub(super) fn members(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut quoted, mut escaped) = (false, false);
        for (at, byte) in text.bytes().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b',' if !quoted => {
                    rest = Some(&text[at + 1..]);
                    return Some(&text[..at]);
                }
                _ => {}
            }
        }
        rest = None;
        Some(text)
    })
}

/// Delta-seconds, also in quotes. RFC 9111 §5.2: recipients accept both forms.
fn seconds(value: Option<&str>) -> Option<u64> {
    digits(unquoted(value?))
}

/// A number of digits only, capped.
pub(super) fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.bytes().fold(0u64, |sum, digit| (sum * 10 + u64::from(digit - b'0')).min(MOST)))
}

/// Field names of a qualified directive.
fn names(value: &str) -> Vec<HeaderName> {
    value.trim_matches('"').split(',').filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(lines: &[&str]) -> ResponseControl {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::CACHE_CONTROL, line.parse().unwrap());
        }
        ResponseControl::of(&headers)
    }

    #[test]
    fn lifetimes_are_read_as_they_are_meant() {
        for (lines, s_maxage, max_age, what) in [
            (&["max-age=60"][..], None, Some(60), "plain"),
            (&["Max-Age=60, S-MAXAGE=5"], Some(5), Some(60), "any case"),
            (&["max-age=60", "s-maxage=5"], Some(5), Some(60), "two lines"),
            (&["max-age=\"60\""], None, Some(60), "in quotes"),
            (&["max-age='60'"], None, Some(0), "in other quotes: stale"),
            (&["max-age=007"], None, Some(7), "leading zeros"),
            (&["max-age=-1"], None, Some(0), "negative: stale"),
            (&["max-age=1.5"], None, Some(0), "a fraction: stale"),
            (&["max-age="], None, Some(0), "empty: stale"),
            (&["max-age=1, max-age=60"], None, Some(1), "the first counts"),
            (&["x=\"max-age=60, s-maxage=5\", max-age=1"], None, Some(1), "quoted text is no directive"),
            (&["x=\"a\\\", max-age=60\", max-age=1"], None, Some(1), "nor behind an escaped quote"),
            (&["max-age=99999999999999999999999"], None, Some(MOST), "huge"),
            (&[", ,max-age=60,,"], None, Some(60), "empty members"),
            (&["\"unclosed, max-age=60"], None, None, "a quote that does not end"),
        ] {
            let control = response(lines);
            assert_eq!((control.s_maxage, control.max_age), (s_maxage, max_age), "{what}: {lines:?}");
        }
    }

    #[test]
    fn private_and_no_cache_may_be_about_fields() {
        let whole = response(&["private, no-cache"]);
        assert!(whole.private && whole.no_cache && whole.fields.is_empty());
        let fields = response(&["private=\"Set-Cookie, X-A\", no-cache=\"x-b\""]);
        assert!(!fields.private && !fields.no_cache);
        assert_eq!(fields.fields, ["set-cookie", "x-a", "x-b"]);
        assert!(response(&["private=\"\""]).private, "no field: all of it");
        assert!(response(&["NO-STORE"]).no_store && response(&["proxy-revalidate"]).must_revalidate);
    }

    #[test]
    fn requests_are_read_too() {
        let read =
            |name: HeaderName, line: &str| RequestControl::of(&HeaderMap::from_iter([(name, line.parse().unwrap())]));
        let control = read(header::CACHE_CONTROL, "max-age=5, min-fresh=7, max-stale, only-if-cached");
        assert_eq!((control.max_age, control.min_fresh, control.max_stale), (Some(5), Some(7), Some(u64::MAX)));
        assert!(control.only_if_cached && !control.no_cache);
        assert_eq!(read(header::CACHE_CONTROL, "max-stale=9").max_stale, Some(9));
        assert!(read(header::PRAGMA, "no-cache").no_cache);
        let mut both = HeaderMap::new();
        both.insert(header::PRAGMA, "no-cache".parse().unwrap());
        both.insert(header::CACHE_CONTROL, "max-age=5".parse().unwrap());
        assert!(!RequestControl::of(&both).no_cache, "Pragma counts alone only");
    }
}
