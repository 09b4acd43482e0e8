//! A raw path as an expression sees it, with the way back to the bytes that were sent.
//!
//! Operators write expressions for the decoded path, and the backend is to get the bytes of the client (spec middlewares
//! W-36). So a match is looked for in the decoded text, and what it captured is taken from the raw one. `%2F` and `%25` stay
//! encoded, as decoding them would change where a segment ends; so does what is no UTF-8.

use std::borrow::Cow;
use std::ops::Range;

/// A raw path, maybe with its query, and its decoded text. Borrows unless something is encoded.
pub struct Reading<'a> {
    raw: Cow<'a, str>,
    text: Option<Decoded>,
}

struct Decoded {
    text: String,
    /// Where each byte of the text begins in the raw path, and where that ends.
    starts: Vec<u32>,
}

impl<'a> Reading<'a> {
    /// Reads a path.
    pub fn path(raw: &'a str) -> Reading<'a> {
        let text = raw.contains('%').then(|| decode(raw, raw.len()));
        Reading { raw: Cow::Borrowed(raw), text }
    }

    /// Reads a path with its query behind a `?`, which stays as it is.
    pub fn target(path: &'a str, query: Option<&str>) -> Reading<'a> {
        let Some(query) = query.filter(|query| !query.is_empty()) else { return Reading::path(path) };
        let raw = format!("{path}?{query}");
        let text = path.contains('%').then(|| decode(&raw, path.len()));
        Reading { raw: Cow::Owned(raw), text }
    }

    /// What expressions are held against.
    pub fn text(&self) -> &str {
        self.text.as_ref().map_or(&self.raw, |decoded| &decoded.text)
    }

    /// The raw bytes behind a part of the text.
    pub fn raw(&self, part: Range<usize>) -> &str {
        let part = match &self.text {
            Some(Decoded { starts, .. }) => starts[part.start] as usize..starts[part.end] as usize,
            None => part,
        };
        self.raw.get(part).unwrap_or_default()
    }
}

/// Decodes the first `end` bytes; the rest is taken over.
fn decode(raw: &str, end: usize) -> Decoded {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut places = Vec::with_capacity(raw.len() + 1);
    let mut at = 0;
    while at < raw.len() {
        let encoded = raw.as_bytes()[at..end.max(at)].strip_prefix(b"%").and_then(|rest| rest.first_chunk::<2>());
        match encoded.and_then(hex) {
            // Kept in one spelling, so that an expression may name it.
            Some(b'/' | b'%') => {
                bytes.extend(raw.as_bytes()[at..at + 3].to_ascii_uppercase());
                places.extend([at, at + 1, at + 2]);
                at += 3;
            }
            Some(byte) => {
                bytes.push(byte);
                places.push(at);
                at += 3;
            }
            None => {
                bytes.push(raw.as_bytes()[at]);
                places.push(at);
                at += 1;
            }
        }
    }
    places.push(raw.len());
    text(raw, &bytes, &places)
}

fn hex(digits: &[u8; 2]) -> Option<u8> {
    let value = |digit: u8| char::from(digit).to_digit(16);
    u8::try_from(value(digits[0])? << 4 | value(digits[1])?).ok()
}

/// Makes text of the bytes; those that are no UTF-8 come from an encoding and stay encoded.
fn text(raw: &str, bytes: &[u8], places: &[usize]) -> Decoded {
    let mut decoded = Decoded { text: String::with_capacity(bytes.len()), starts: Vec::with_capacity(places.len()) };
    // A target is bounded far below 4 GiB by the gate.
    let mut place = |at: usize| decoded.starts.push(u32::try_from(at).unwrap_or(u32::MAX));
    let mut done = 0;
    for chunk in bytes.utf8_chunks() {
        decoded.text.push_str(chunk.valid());
        places[done..done + chunk.valid().len()].iter().for_each(|at| place(*at));
        done += chunk.valid().len();
        for at in &places[done..done + chunk.invalid().len()] {
            let encoded = raw.get(*at..*at + 3).unwrap_or_default();
            decoded.text.push_str(encoded);
            (*at..*at + encoded.len()).for_each(&mut place);
        }
        done += chunk.invalid().len();
    }
    place(raw.len());
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_decoded_and_given_back_raw() {
        for (about, raw, text) in [
            ("plain", "/a/b", "/a/b"),
            ("letters", "/%61%2d", "/a-"),
            ("a slash stays", "/a%2fb", "/a%2Fb"),
            ("a percent sign stays", "/%2541", "/%2541"),
            ("UTF-8", "/%C3%A9x", "/éx"),
            ("UTF-8 as it is", "/é%C3%A9", "/éé"),
            ("no UTF-8", "/%ff%C3", "/%ff%C3"),
            ("half a sign before a whole one", "/%C3é", "/%C3é"),
            ("no encoding", "/%zz%4", "/%zz%4"),
        ] {
            let reading = Reading::path(raw);
            assert_eq!(reading.text(), text, "{about}");
            let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            let parts: Vec<usize> = ends.collect();
            let whole: String = parts.windows(2).map(|pair| reading.raw(pair[0]..pair[1])).collect();
            assert_eq!(whole, raw, "{about}");
        }
    }

    #[test]
    fn a_query_is_never_decoded() {
        let reading = Reading::target("/%61", Some("q=%61&x=?"));
        assert_eq!(reading.text(), "/a?q=%61&x=?");
        assert_eq!(reading.raw(1..reading.text().len()), "%61?q=%61&x=?");
        assert_eq!(Reading::target("/a", Some("")).text(), "/a");
    }
}
