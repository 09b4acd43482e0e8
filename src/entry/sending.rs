//! How the body of a response to an HTTP/1.1 client is framed. RFC 9112 §6.

use bytes::Bytes;
use http::{Method, StatusCode, header};
use pingora_http::ResponseHeader;

/// What is still to be sent of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Sending {
    /// Nothing: there is no body, or it has ended.
    Nothing,
    /// So many bytes, as the head said.
    Length(u64),
    /// Chunks, until the last one.
    Chunks,
}

impl Sending {
    /// The body behind a final head, in answer to this method. A body of unknown length goes in chunks.
    pub fn of(method: &Method, head: &ResponseHeader) -> Sending {
        let bare = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if bare || method == Method::HEAD {
            // Nothing follows, and the end of the head still has to be told.
            return Sending::Length(0);
        }
        let length = match head.headers.contains_key(header::TRANSFER_ENCODING) {
            true => None,
            false => head.headers.get(header::CONTENT_LENGTH),
        };
        match length.and_then(|length| length.to_str().ok()?.parse().ok()) {
            Some(length) => Sending::Length(length),
            None => Sending::Chunks,
        }
    }

    /// What of this may go out: no more than was promised.
    pub fn admit(&mut self, mut data: Bytes) -> Bytes {
        match self {
            Sending::Nothing => Bytes::new(),
            Sending::Chunks => data,
            Sending::Length(left) => {
                data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= data.len() as u64;
                data
            }
        }
    }

    /// Whether nothing is missing.
    pub fn is_over(&self) -> bool {
        matches!(self, Sending::Nothing | Sending::Length(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Fields = &'static [(&'static str, &'static str)];

    fn head(status: u16, fields: Fields) -> ResponseHeader {
        let mut head = ResponseHeader::build(status, None).unwrap();
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    #[test]
    fn the_head_and_the_method_say_how_a_body_is_framed() {
        #[rustfmt::skip]
        let rows: [(&str, Method, u16, Fields, Sending); 8] = [
            ("a length", Method::GET, 200, &[("Content-Length", "5")], Sending::Length(5)),
            ("no length", Method::GET, 200, &[], Sending::Chunks),
            ("chunks", Method::GET, 200, &[("Transfer-Encoding", "chunked")], Sending::Chunks),
            ("chunks and a length", Method::GET, 200, &[("Transfer-Encoding", "chunked"), ("Content-Length", "5")], Sending::Chunks),
            ("a length that is none", Method::GET, 200, &[("Content-Length", "five")], Sending::Chunks),
            ("an answer to HEAD", Method::HEAD, 200, &[("Content-Length", "5")], Sending::Length(0)),
            ("no content", Method::GET, 204, &[], Sending::Length(0)),
            ("not modified", Method::GET, 304, &[("Content-Length", "5")], Sending::Length(0)),
        ];
        for (what, method, status, fields, expected) in rows {
            assert_eq!(Sending::of(&method, &head(status, fields)), expected, "{what}");
        }
    }

    #[test]
    fn no_more_is_sent_than_was_promised() {
        let mut sending = Sending::Length(5);
        assert_eq!(sending.admit(Bytes::from_static(b"abc")), "abc");
        assert!(!sending.is_over());
        assert_eq!(sending.admit(Bytes::from_static(b"defg")), "de");
        assert!(sending.is_over());
        assert_eq!(sending.admit(Bytes::from_static(b"h")), "");
        assert_eq!(Sending::Nothing.admit(Bytes::from_static(b"a")), "");
        assert_eq!(Sending::Chunks.admit(Bytes::from_static(b"a")), "a");
    }
}
