//! Cookies of the gateway: attributes, and long values in several of them.
//!
//! A browser keeps about 4 kB a cookie. A longer value goes on in `name_1`, `name_2`, ...; the first one says of how many
//! cookies the value consists: `3.…`.

use std::fmt::Write;

use http::{HeaderMap, HeaderValue, header};

/// Most characters of a value in one cookie.
const PIECE: usize = 3800;
/// Most cookies for one value; more would run into the limits that servers have for a request head.
const PIECES: usize = 6;
/// Most cookies of one name that are tried: a browser sends one for every path that fits.
const CANDIDATES: usize = 4;

/// How cookies are set.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// Paths that get it.
    pub path: &'a str,
    /// Whether it travels over TLS only.
    pub secure: bool,
    /// How long the browser keeps it; zero deletes it.
    pub max_age_secs: u64,
}

/// The value was longer than cookies may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// A `Set-Cookie` value. `name` and `value` are made of cookie characters.
pub fn set(name: &str, value: &str, attributes: &Attributes<'_>) -> HeaderValue {
    let Attributes { path, secure, max_age_secs } = attributes;
    let secure = if *secure { "; Secure" } else { "" };
    let text = format!("{name}={value}; Path={path}; Max-Age={max_age_secs}; HttpOnly{secure}; SameSite=Lax");
    HeaderValue::try_from(text).expect("cookie characters and a path that was checked when the settings were")
}

/// A `Set-Cookie` value that makes the browser forget.
pub fn delete(name: &str, attributes: &Attributes<'_>) -> HeaderValue {
    set(name, "", &Attributes { max_age_secs: 0, ..*attributes })
}

/// Sets a value, in several cookies if need be, and deletes pieces of an earlier and longer one that `request` still has.
///
/// # Errors
/// When the value is too long for cookies.
pub fn set_long(
    request: &HeaderMap,
    name: &str,
    value: &str,
    attributes: &Attributes<'_>,
) -> Result<Vec<HeaderValue>, TooLong> {
    let count = value.len().div_ceil(PIECE).max(1);
    if count > PIECES {
        return Err(TooLong);
    }
    let mut cookies = Vec::with_capacity(count);
    for place in 0..count {
        let piece = &value[place * PIECE..value.len().min((place + 1) * PIECE)];
        let first = format!("{count}.{piece}");
        let piece = if place == 0 { &first } else { piece };
        cookies.push(set(&piece_name(name, place), piece, attributes));
    }
    cookies.extend(delete_pieces(request, name, count, attributes));
    Ok(cookies)
}

/// Deletes a value with all of its pieces that `request` has.
pub fn delete_long(request: &HeaderMap, name: &str, attributes: &Attributes<'_>) -> Vec<HeaderValue> {
    let mut cookies = vec![delete(name, attributes)];
    cookies.extend(delete_pieces(request, name, 1, attributes));
    cookies
}

fn delete_pieces(request: &HeaderMap, name: &str, from: usize, attributes: &Attributes<'_>) -> Vec<HeaderValue> {
    let names = (from.max(1)..PIECES).map(|place| piece_name(name, place));
    names.filter(|name| !all(request, name).is_empty()).map(|name| delete(&name, attributes)).collect()
}

fn piece_name(name: &str, place: usize) -> String {
    let mut text = name.to_owned();
    if place > 0 {
        let _ = write!(text, "_{place}");
    }
    text
}

/// The values that a request may mean by this name, in the browser's order: the one for the longest path first.
pub fn values(request: &HeaderMap, name: &str) -> Vec<String> {
    let firsts = all(request, name);
    firsts.iter().enumerate().filter_map(|(rank, first)| whole(request, name, rank, first)).collect()
}

/// Puts the pieces of one value together; of several with one name those of the same rank.
fn whole(request: &HeaderMap, name: &str, rank: usize, first: &str) -> Option<String> {
    let (count, piece) = first.split_once('.')?;
    let count: usize = count.parse().ok().filter(|count| (1..=PIECES).contains(count))?;
    let mut value = piece.to_owned();
    for place in 1..count {
        let pieces = all(request, &piece_name(name, place));
        value.push_str(pieces.get(rank).or_else(|| pieces.last())?);
    }
    Some(value)
}

/// The cookies of this name, as they came.
pub fn all<'a>(request: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    pairs(request).filter(|(found, _)| *found == name).map(|(_, value)| value).take(CANDIDATES).collect()
}

fn pairs(request: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let lines = request.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Attributes<'_> = Attributes { path: "/", secure: false, max_age_secs: 60 };

    fn request(cookies: &[HeaderValue]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            let pair = cookie.to_str().unwrap().split(';').next().unwrap();
            headers.append(header::COOKIE, pair.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_cookie_has_its_attributes() {
        assert_eq!(set("a", "b", &PLAIN), "a=b; Path=/; Max-Age=60; HttpOnly; SameSite=Lax");
        let secure = Attributes { path: "/x", secure: true, max_age_secs: 0 };
        assert_eq!(set("a", "", &secure), "a=; Path=/x; Max-Age=0; HttpOnly; Secure; SameSite=Lax");
    }

    #[test]
    fn a_long_value_comes_back_whole() {
        let none = HeaderMap::new();
        for length in [0, 1, PIECE, PIECE + 1, PIECE * PIECES] {
            let value = "x".repeat(length);
            let cookies = set_long(&none, "name", &value, &PLAIN).expect("short enough");
            assert!(cookies.iter().all(|cookie| cookie.len() < 4096), "{length}");
            assert_eq!(values(&request(&cookies), "name"), [value], "{length}");
        }
        let value = "x".repeat(PIECE * PIECES + 1);
        assert_eq!(set_long(&none, "name", &value, &PLAIN).map(|c| c.len()), Err(TooLong));
    }

    #[test]
    fn a_shorter_value_deletes_the_pieces_of_a_longer_one() {
        let long = set_long(&HeaderMap::new(), "n", &"x".repeat(PIECE * 3), &PLAIN).expect("short enough");
        let short = set_long(&request(&long), "n", "y", &PLAIN).expect("short enough");
        let texts: Vec<&str> = short.iter().map(|cookie| cookie.to_str().unwrap()).collect();
        assert!(texts[0].starts_with("n=1.y;") && texts.len() == 3, "{texts:?}");
        assert!(texts[1].starts_with("n_1=;") && texts[2].starts_with("n_2=;") && texts[2].contains("Max-Age=0"));
    }

    #[test]
    fn several_cookies_of_one_name_are_all_looked_at() {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, "n=2.a; n=2.c; n_1=b; n_1=d; n=9.x; n=nothing; m=1".parse().unwrap());
        assert_eq!(values(&headers, "n"), ["ab", "cd"]);
    }
}
