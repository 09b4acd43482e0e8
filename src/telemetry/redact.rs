//! Keeps secrets out of the log.

use std::borrow::Cow;

use http::HeaderMap;
use percent_encoding::percent_decode_str;

/// What stands in place of a secret.
pub const REDACTED: &str = "[REDACTED]";

/// Is a header, query parameter or field of this name likely to hold a secret? Case, `-` and `_` do not matter.
pub fn is_secret(name: &str) -> bool {
    let name: String = name.chars().filter(|c| !"-_ ".contains(*c)).flat_map(char::to_lowercase).collect();
    WORDS.contains(&&*name) || PARTS.iter().any(|part| name.contains(part))
}

/// Names that are secret as a whole; inside longer ones they would be too common (`country_code`).
const WORDS: &[&str] = &["code", "key", "sig", "auth", "jwt", "pwd", "pass", "sid", "otp", "pin", "state", "assertion"];
/// Parts that make any name secret.
const PARTS: &[&str] = &[
    "authorization",
    "authtoken",
    "cookie",
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "apikey",
    "accesskey",
    "privatekey",
    "signature",
    "credential",
    "session",
];

/// Headers whose value is an address, which may have secrets in its query: a login's `state`, a link to reset a password.
const ADDRESSES: &[&str] = &["content-location", "location", "referer", "refresh"];

/// A query with the values of secret parameters replaced; everything else stays as it was written.
pub fn query(query: &str) -> Cow<'_, str> {
    let is_secret_pair = |pair: &str| {
        let name = pair.split('=').next().unwrap_or_default();
        pair.contains('=') && is_secret(&percent_decode_str(name).decode_utf8_lossy())
    };
    if !query.split('&').any(is_secret_pair) {
        return Cow::Borrowed(query);
    }
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if is_secret_pair(pair) => format!("{name}={REDACTED}"),
        _ => pair.to_owned(),
    });
    Cow::Owned(pairs.collect::<Vec<_>>().join("&"))
}

/// A URL with the secrets in its query and fragment, its user name and its password replaced.
pub fn url(url: &str) -> Cow<'_, str> {
    let Cow::Owned(url) = userinfo(url) else {
        return parameters(url);
    };
    Cow::Owned(parameters(&url).into_owned())
}

fn userinfo(url: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Cow::Borrowed(url);
    };
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    match authority.rfind('@') {
        Some(at) => Cow::Owned(format!("{scheme}://{REDACTED}{}", &rest[at..])),
        None => Cow::Borrowed(url),
    }
}

fn parameters(url: &str) -> Cow<'_, str> {
    let Some(start) = url.find(['?', '#']) else {
        return Cow::Borrowed(url);
    };
    let (before, rest) = url.split_at(start + 1);
    match query(rest) {
        Cow::Borrowed(_) => Cow::Borrowed(url),
        Cow::Owned(rest) => Cow::Owned(format!("{before}{rest}")),
    }
}

/// Headers as name and value, sorted by name, secrets replaced; repeated ones are joined by a comma and a space.
pub(super) fn headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut names: Vec<_> = headers.keys().collect();
    names.sort_by_key(|name| name.as_str());
    let shown = names.into_iter().map(|name| {
        let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        let value = match name.as_str() {
            name if is_secret(name) => REDACTED.to_owned(),
            name if ADDRESSES.contains(&name) => url(&values.collect::<Vec<_>>().join(", ")).into_owned(),
            _ => values.collect::<Vec<_>>().join(", "),
        };
        (name.as_str().to_owned(), value)
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_a_query_are_replaced() {
        for (given, shown) in [
            ("a=1&b=2", "a=1&b=2"),
            ("access_token=abc&a=1", "access_token=[REDACTED]&a=1"),
            ("a=1&PASSWORD=x&Api-Key=y", "a=1&PASSWORD=[REDACTED]&Api-Key=[REDACTED]"),
            ("%74oken=x", "%74oken=[REDACTED]"),
            ("code=4/x=y&state=s", "code=[REDACTED]&state=[REDACTED]"),
            ("client_secret=x", "client_secret=[REDACTED]"),
            ("country_code=fr", "country_code=fr"),
            ("token", "token"),
            ("", ""),
        ] {
            assert_eq!(query(given), shown, "{given}");
        }
    }

    #[test]
    fn secrets_in_a_url_are_replaced() {
        for (given, shown) in [
            ("https://a.example/p?x=1", "https://a.example/p?x=1"),
            ("https://a.example/p?x=1&token=t", "https://a.example/p?x=1&token=[REDACTED]"),
            ("https://a.example/cb#access_token=t", "https://a.example/cb#access_token=[REDACTED]"),
            ("https://user:pw@a.example/p", "https://[REDACTED]@a.example/p"),
            ("https://a.example/@me", "https://a.example/@me"),
            ("/only/a/path", "/only/a/path"),
            ("", ""),
        ] {
            assert_eq!(url(given), shown, "{given}");
        }
    }

    #[test]
    fn secret_headers_are_replaced_whatever_their_case() {
        let mut given = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Basic x"),
            ("x-api-key", "k"),
            ("x-auth-token", "t"),
            ("accept", "a"),
            ("location", "https://op.example/auth?scope=email&state=s3cret"),
        ] {
            given.insert(name, value.parse().unwrap());
        }
        for value in ["s=1", "t=2"] {
            given.append("set-cookie", value.parse().unwrap());
            given.append("via", value.parse().unwrap());
        }
        let shown = headers(&given);
        let expected = [
            ("accept", "a"),
            ("authorization", REDACTED),
            ("location", "https://op.example/auth?scope=email&state=[REDACTED]"),
            ("set-cookie", REDACTED),
            ("via", "s=1, t=2"),
            ("x-api-key", REDACTED),
            ("x-auth-token", REDACTED),
        ];
        assert_eq!(shown, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
