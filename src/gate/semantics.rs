//! The same rules for a head that came as HTTP/2.
//!
//! The frames are the HTTP/2 library's business; what is left are the fields that would mean something else once they
//! are written as HTTP/1.1 towards a backend (RFC 9113 §8.2 and §8.3, §10.3).

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Uri};

use super::head::check_method;
use super::line::{check_target, content_length, is_blank, is_disguised_framing};
use super::{Authority, Limits, Refusal, authority};

/// Judges a parsed HTTP/2 request head.
///
/// # Errors
/// The first thing that is wrong with it, as [`Refusal`]; only the stream is affected, not the connection.
pub fn semantics(parts: &Parts, limits: &Limits) -> Result<(), Refusal> {
    check_method(parts.method.as_str().as_bytes())?;
    target(&parts.method, &parts.uri, limits)?;
    host(&parts.uri, &parts.headers)?;
    size(&parts.headers, limits)?;
    connection_fields(&parts.headers)?;
    values(&parts.headers)?;
    match parts.headers.get_all(EXPECT).iter().all(is_continue) {
        true => Ok(()),
        false => Err(Refusal::expectation_failed()),
    }
}

fn is_continue(value: &http::HeaderValue) -> bool {
    value.as_bytes().eq_ignore_ascii_case(b"100-continue")
}

fn target(method: &Method, uri: &Uri, limits: &Limits) -> Result<(), Refusal> {
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    if target.len() > limits.target_bytes {
        return Err(Refusal::target_too_long());
    }
    check_target(target.as_bytes())?;
    match target {
        "*" if *method == Method::OPTIONS => {}
        _ if target.starts_with('/') => {}
        _ => return Err(Refusal::bad_request("the path does not start with a slash")),
    }
    match uri.scheme_str() {
        None | Some("http" | "https") => Ok(()),
        Some(_) => Err(Refusal::bad_request("the scheme is neither http nor https")),
    }
}

/// `:authority`, `Host` or both; when both, they agree.
fn host(uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let mut fields = headers.get_all(HOST).iter();
    let field = match fields.next().map(|value| value.to_str()) {
        None => None,
        Some(Ok(text)) => Some(authority(text)?),
        Some(Err(_)) => return Err(Refusal::bad_request("the host is not ASCII")),
    };
    if fields.next().is_some() {
        return Err(Refusal::bad_request("more than one Host"));
    }
    let pseudo = match uri.authority() {
        None => None,
        Some(text) => Some(authority(text.as_str())?),
    };
    let default_port = match uri.scheme_str() {
        Some("https") => 443,
        _ => 80,
    };
    agree(field, pseudo, default_port)
}

fn agree(field: Option<Authority<'_>>, pseudo: Option<Authority<'_>>, default_port: u16) -> Result<(), Refusal> {
    match (field, pseudo) {
        (None, None) => Err(Refusal::bad_request("no Host")),
        (Some(field), Some(pseudo)) if !field.same(&pseudo, default_port) => {
            Err(Refusal::bad_request("Host differs from :authority"))
        }
        _ => Ok(()),
    }
}

/// Cookies may come in many crumbs (RFC 9113 §8.2.3), which count as one field.
fn size(headers: &HeaderMap, limits: &Limits) -> Result<(), Refusal> {
    let mut bytes = 0;
    let mut fields = usize::from(headers.contains_key(COOKIE));
    for (name, value) in headers {
        // As a line of HTTP/1.1: name, colon, space, value, CRLF.
        bytes += name.as_str().len() + value.len() + 4;
        fields += usize::from(name != COOKIE);
    }
    if bytes > limits.head_bytes {
        return Err(Refusal::header_too_large("the head is too large"));
    }
    if fields > limits.fields {
        return Err(Refusal::header_too_large("too many fields"));
    }
    Ok(())
}

/// HTTP/2 has no fields about the connection (RFC 9113 §8.2.2); on HTTP/1.1 they would frame or steer.
fn connection_fields(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.keys().any(|name| FORBIDDEN.contains(name)) {
        return Err(Refusal::bad_request("connection field on HTTP/2"));
    }
    let mut te = headers.get_all(TE).iter();
    match te.all(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers")) {
        true => Ok(()),
        false => Err(Refusal::bad_request("TE other than trailers on HTTP/2")),
    }
}

const FORBIDDEN: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

fn values(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next() {
        content_length(length.as_bytes())?;
    }
    if lengths.next().is_some() {
        return Err(Refusal::bad_request("more than one Content-Length"));
    }
    for (name, value) in headers {
        if is_disguised_framing(name.as_str().as_bytes()) {
            return Err(Refusal::bad_request("framing field spelled with an underscore"));
        }
        let value = value.as_bytes();
        let edge = |byte: Option<&u8>| byte.is_some_and(|byte| is_blank(*byte));
        if edge(value.first()) || edge(value.last()) {
            return Err(Refusal::bad_request("blank at the edge of a field value"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(method: &str, uri: &str, fields: &[(&'static str, &str)]) -> u16 {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        semantics(&parts, &Limits::default()).map_or_else(|refusal| refusal.status, |()| 200)
    }

    #[test]
    fn an_http2_head_must_mean_the_same_as_http1() {
        type Fields<'a> = &'a [(&'static str, &'a str)];
        let rows: [(&str, &str, &str, Fields<'_>, u16); 25] = [
            ("plain", "GET", "http://a/x?y", &[], 200),
            ("only Host", "GET", "/x", &[("host", "a")], 200),
            ("neither", "GET", "/x", &[], 400),
            ("both agree", "GET", "http://a/", &[("host", "A:80")], 200),
            ("both differ", "GET", "http://a/", &[("host", "b")], 400),
            ("two Hosts", "GET", "/", &[("host", "a"), ("host", "a")], 400),
            ("empty Host", "GET", "/", &[("host", "")], 400),
            ("user information", "GET", "http://u@a/", &[], 400),
            ("other scheme", "GET", "ftp://a/", &[], 400),
            ("TRACE", "TRACE", "http://a/", &[], 405),
            ("CONNECT", "CONNECT", "a:443", &[], 405),
            ("GET *", "GET", "*", &[("host", "a")], 400),
            ("OPTIONS *", "OPTIONS", "*", &[("host", "a")], 200),
            ("connection", "GET", "http://a/", &[("connection", "close")], 400),
            ("upgrade", "GET", "http://a/", &[("upgrade", "websocket")], 400),
            ("chunked", "POST", "http://a/", &[("transfer-encoding", "chunked")], 400),
            ("keep-alive", "GET", "http://a/", &[("keep-alive", "1")], 400),
            ("proxy-connection", "GET", "http://a/", &[("proxy-connection", "x")], 400),
            ("TE: trailers", "POST", "http://a/", &[("te", "trailers")], 200),
            ("other TE", "POST", "http://a/", &[("te", "gzip")], 400),
            ("bad length", "POST", "http://a/", &[("content-length", "+5")], 400),
            ("two lengths", "POST", "http://a/", &[("content-length", "5"), ("content-length", "5")], 400),
            ("underscore", "POST", "http://a/", &[("content_length", "5")], 400),
            ("blank at the edge", "GET", "http://a/", &[("x", " a")], 400),
            ("expectation", "POST", "http://a/", &[("expect", "x")], 417),
        ];
        for (what, method, uri, fields, expected) in rows {
            assert_eq!(judged(method, uri, fields), expected, "{what}");
        }
    }

    #[test]
    fn http2_heads_are_bounded() {
        let many = vec![("x", "y"); 101];
        assert_eq!(judged("GET", "http://a/", &many), 431, "fields");
        let crumbs = vec![("cookie", "y"); 101];
        assert_eq!(judged("GET", "http://a/", &crumbs), 200, "cookie crumbs");
        let large = "y".repeat(65 << 10);
        assert_eq!(judged("GET", "http://a/", &[("x", &large)]), 431, "bytes");
        let target = format!("http://a/{}", "y".repeat(17 << 10));
        assert_eq!(judged("GET", &target, &[]), 414, "target");
    }
}
