//! Header names as HTTP/1.1 clients and backends see them: each word with a capital, as Goma writes them.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use pingora_http::{RequestHeader, ResponseHeader};

/// A header name with its spelling.
#[derive(Clone, Debug)]
pub struct Spelled {
    /// The name.
    pub name: HeaderName,
    spelled: Bytes,
}

impl From<HeaderName> for Spelled {
    fn from(name: HeaderName) -> Spelled {
        let mut spelled = name.as_str().as_bytes().to_vec();
        spelled
            .split_mut(|byte| *byte == b'-')
            .filter_map(<[u8]>::first_mut)
            .for_each(|first| first.make_ascii_uppercase());
        Spelled { name, spelled: spelled.into() }
    }
}

impl Spelled {
    /// Sets the header; several lines of that name become one.
    pub fn set(&self, head: &mut ResponseHeader, value: HeaderValue) {
        // Fails for a head with more fields than any parser lets through.
        let _ = head.insert_header(self.spelled.clone(), value);
    }

    /// Sets the header of a request.
    pub fn ask(&self, head: &mut RequestHeader, value: HeaderValue) {
        let _ = head.insert_header(self.spelled.clone(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_spelled_as_goma_spells_them() {
        for (written, spelled) in
            [("x-frame-options", "X-Frame-Options"), ("X-XSS-Protection", "X-Xss-Protection"), ("dnt", "Dnt")]
        {
            let name = HeaderName::try_from(written).expect("a header name");
            assert_eq!(Spelled::from(name).spelled, spelled, "{written}");
        }
    }
}
