//! Request forms that parsers disagree about, each with the one reading that it has here.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::gate::ChunkScanner;

fn judged(bytes: &[u8]) -> Result<Head, Refusal> {
    head(bytes, &Limits::default())
}

fn status(bytes: &[u8]) -> u16 {
    judged(bytes).map_or_else(|refusal| refusal.status, |_| 200)
}

/// A sound request with these bytes in the place of its fields after `Host`.
fn with(fields: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
}

#[test]
fn a_request_line_has_one_form() {
    let rows: [(&str, &str, u16); 40] = [
        ("plain", "GET / HTTP/1.1\r\n", 200),
        ("HTTP/1.0", "GET / HTTP/1.0\r\n", 200),
        ("a method of its own", "PROPFIND /x HTTP/1.1\r\n", 200),
        ("one empty line before", "\r\nGET / HTTP/1.1\r\n", 200),
        ("two empty lines before", "\r\n\r\nGET / HTTP/1.1\r\n", 400),
        ("bare LF before", "\nGET / HTTP/1.1\r\n", 400),
        ("bare CR before", "\rGET / HTTP/1.1\r\n", 400),
        ("space before", " GET / HTTP/1.1\r\n", 400),
        ("two spaces after the method", "GET  / HTTP/1.1\r\n", 400),
        ("two spaces after the target", "GET /  HTTP/1.1\r\n", 400),
        ("space after the version", "GET / HTTP/1.1 \r\n", 400),
        ("tab as separator", "GET\t/ HTTP/1.1\r\n", 400),
        ("tab after the target", "GET /\tHTTP/1.1\r\n", 400),
        ("space in the target", "GET /a b HTTP/1.1\r\n", 400),
        ("NUL in the target", "GET /a\0b HTTP/1.1\r\n", 400),
        ("DEL in the target", "GET /a\x7f HTTP/1.1\r\n", 400),
        ("bare CR in the target", "GET /a\rb HTTP/1.1\r\n", 400),
        ("UTF-8 in the target", "GET /é HTTP/1.1\r\n", 400),
        ("fragment", "GET /a#b HTTP/1.1\r\n", 400),
        ("characters of the wild", "GET /a|{}\"<>\\^` HTTP/1.1\r\n", 200),
        ("no target", "GET HTTP/1.1\r\n", 400),
        ("HTTP/0.9", "GET /\r\n", 400),
        ("HTTP/0.9 by number", "GET / HTTP/0.9\r\n", 505),
        ("HTTP/1.2", "GET / HTTP/1.2\r\n", 505),
        ("HTTP/2.0 as text", "GET / HTTP/2.0\r\n", 505),
        ("the preface of HTTP/2", "PRI * HTTP/2.0\r\n", 505),
        ("lower-case version", "GET / http/1.1\r\n", 400),
        ("other protocol", "GET / ICAP/1.0\r\n", 400),
        ("version with two digits", "GET / HTTP/1.10\r\n", 400),
        ("no version number", "GET / HTTP/\r\n", 400),
        ("method that is no token", "G(T / HTTP/1.1\r\n", 400),
        ("no method", " / HTTP/1.1\r\n", 400),
        ("TRACE", "TRACE / HTTP/1.1\r\n", 405),
        ("CONNECT", "CONNECT a:443 HTTP/1.1\r\n", 405),
        ("OPTIONS *", "OPTIONS * HTTP/1.1\r\n", 200),
        ("GET *", "GET * HTTP/1.1\r\n", 400),
        ("asterisk and more", "OPTIONS *x HTTP/1.1\r\n", 400),
        ("path without a slash", "GET a HTTP/1.1\r\n", 400),
        ("query without a path", "GET ?a HTTP/1.1\r\n", 400),
        ("authority form", "GET a:80 HTTP/1.1\r\n", 400),
    ];
    for (what, line, expected) in rows {
        let bytes = format!("{line}Host: a\r\n\r\n");
        assert_eq!(status(bytes.as_bytes()), expected, "{what}");
    }
}

#[test]
fn an_absolute_target_agrees_with_host() {
    let rows = [
        ("the same", "http://a/x", "a", 200),
        ("without a path", "http://a", "a", 200),
        ("query only", "http://a?x", "a", 200),
        ("case of scheme and host", "HTTP://A/x", "a", 200),
        ("default port", "http://a:80/x", "a", 200),
        ("default port of https", "https://a:443/x", "a", 200),
        ("other port", "http://a:81/x", "a", 400),
        ("other host", "http://b/x", "a", 400),
        ("user information", "http://u@a/x", "a", 400),
        ("no host", "http:///x", "a", 400),
        ("backslash", "http://a\\b/x", "a", 400),
        ("other scheme", "ftp://a/x", "a", 400),
        ("scheme without slashes", "http:a", "a", 400),
        ("bad port", "http://a:x/", "a", 400),
    ];
    for (what, target, host, expected) in rows {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(status(bytes.as_bytes()), expected, "{what}");
    }
    let old = b"GET http://a/ HTTP/1.0\r\n\r\n";
    assert_eq!(status(old), 200, "HTTP/1.0 needs no Host beside it");
}

#[test]
fn host_is_there_once_and_sound() {
    let rows: [(&str, &str, u16); 12] = [
        ("one", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("any case", "GET / HTTP/1.1\r\nhOST:a:80\r\n\r\n", 200),
        ("none", "GET / HTTP/1.1\r\n\r\n", 400),
        ("none on HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", 200),
        ("two", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("two alike", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("empty", "GET / HTTP/1.1\r\nHost: \r\n\r\n", 400),
        ("empty on HTTP/1.0", "GET / HTTP/1.0\r\nHost:\r\n\r\n", 400),
        ("comma", "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400),
        ("path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        ("space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ];
    for (what, text, expected) in rows {
        assert_eq!(status(text.as_bytes()), expected, "{what}");
    }
}

#[test]
fn a_body_is_framed_in_one_way() {
    let rows: [(&str, &str, Result<Body, u16>); 29] = [
        ("nothing", "", Ok(Body::None)),
        ("length", "Content-Length: 5\r\n", Ok(Body::Length(5))),
        ("length zero", "Content-Length: 0\r\n", Ok(Body::Length(0))),
        ("blanks round it", "Content-Length: \t5 \r\n", Ok(Body::Length(5))),
        ("chunked", "Transfer-Encoding: chunked\r\n", Ok(Body::Chunked)),
        ("any case", "TRANSFER-ENCODING:CHUNKED\r\n", Ok(Body::Chunked)),
        ("both", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Err(400)),
        ("both, other order", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Err(400)),
        ("two lengths", "Content-Length: 5\r\nContent-Length: 6\r\n", Err(400)),
        ("two equal lengths", "Content-Length: 5\r\nContent-Length: 5\r\n", Err(400)),
        ("length list", "Content-Length: 5,5\r\n", Err(400)),
        ("length with a sign", "Content-Length: +5\r\n", Err(400)),
        ("negative length", "Content-Length: -5\r\n", Err(400)),
        ("empty length", "Content-Length:\r\n", Err(400)),
        ("hexadecimal length", "Content-Length: 0x5\r\n", Err(400)),
        ("length with text", "Content-Length: 5 5\r\n", Err(400)),
        ("overflow", "Content-Length: 18446744073709551621\r\n", Err(400)),
        ("underscore length", "Content_Length: 5\r\n", Err(400)),
        ("underscore coding", "transfer_encoding: chunked\r\n", Err(400)),
        ("two codings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Err(400)),
        ("chunked twice", "Transfer-Encoding: chunked, chunked\r\n", Err(400)),
        ("chunked not last", "Transfer-Encoding: chunked, gzip\r\n", Err(400)),
        ("empty coding", "Transfer-Encoding:\r\n", Err(400)),
        ("trailing comma", "Transfer-Encoding: chunked,\r\n", Err(400)),
        ("parameter", "Transfer-Encoding: chunked;q=1\r\n", Err(400)),
        ("quoted", "Transfer-Encoding: \"chunked\"\r\n", Err(400)),
        ("gzip first", "Transfer-Encoding: gzip, chunked\r\n", Err(501)),
        ("identity", "Transfer-Encoding: identity\r\n", Err(501)),
        ("almost chunked", "Transfer-Encoding: xchunked\r\n", Err(501)),
    ];
    for (what, fields, expected) in rows {
        let found = judged(&with(fields));
        let found = found.map(|head| head.body).map_err(|refusal| refusal.status);
        assert_eq!(found, expected, "{what}");
    }
}

#[test]
fn http_10_has_lengths_but_no_codings() {
    let length = b"POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(judged(length).unwrap().body, Body::Length(5));
    let coding = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(status(coding), 400);
}

#[test]
fn a_field_line_has_one_form() {
    let rows: [(&str, &[u8], u16); 20] = [
        ("plain", b"A: b\r\n", 200),
        ("empty value", b"A:\r\n", 200),
        ("tab in the value", b"A: b\tc\r\n", 200),
        ("bytes above 0x7F in the value", b"A: \xe9\r\n", 200),
        ("folded with a space", b"A: b\r\n c\r\n", 400),
        ("folded with a tab", b"A: b\r\n\tc\r\n", 400),
        ("space before the colon", b"A : b\r\n", 400),
        ("tab before the colon", b"A\t: b\r\n", 400),
        ("space inside the name", b"A B: c\r\n", 400),
        ("no name", b": b\r\n", 400),
        ("no colon", b"A\r\n", 400),
        ("bracket in the name", b"A(: b\r\n", 400),
        ("UTF-8 in the name", b"\xc3\xa9: b\r\n", 400),
        ("NUL in the name", b"A\0: b\r\n", 400),
        ("NUL in the value", b"A: b\0\r\n", 400),
        ("DEL in the value", b"A: b\x7f\r\n", 400),
        ("control character in the value", b"A: b\x01\r\n", 400),
        ("bare CR in the value", b"A: b\rc\r\n", 400),
        ("bare CR at the end", b"A: b\r\r\n", 400),
        ("bare LF", b"A: b\n", 400),
    ];
    for (what, fields, expected) in rows {
        let bytes = [b"GET / HTTP/1.1\r\nHost: a\r\n", fields, b"\r\n"].concat();
        assert_eq!(status(&bytes), expected, "{what}");
    }
    assert_eq!(status(b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"), 400, "folded at once");
    assert_eq!(status(b"GET / HTTP/1.1\r\nHost: a\r\n\n"), 400, "blank line of bare LF");
    assert_eq!(status(b"GET / HTTP/1.1\nHost: a\n\n"), 400, "bare LF everywhere");
    assert_eq!(status(b"GET / HTTP/1.1\r\nHost: a\r\n"), 400, "no blank line");
    assert_eq!(status(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nx"), 400, "more than a head");
    assert_eq!(status(b""), 400, "nothing at all");
}

#[test]
fn connection_steers_the_connection_and_nothing_else() {
    let rows = [
        ("nothing", "1.1", "", (true, false)),
        ("close", "1.1", "Connection: close\r\n", (false, false)),
        ("close in a list", "1.1", "Connection: TE , Close\r\n", (false, false)),
        ("close in a second line", "1.1", "Connection: te\r\nConnection: close\r\n", (false, false)),
        ("empty elements", "1.1", "Connection: ,, close,\r\n", (false, false)),
        ("old client", "1.0", "", (false, false)),
        ("old client that stays", "1.0", "Connection: keep-alive\r\n", (true, false)),
        ("both words", "1.0", "Connection: keep-alive, close\r\n", (false, false)),
        ("upgrade", "1.1", "Connection: Upgrade\r\nUpgrade: WebSocket\r\n", (true, true)),
        ("unnamed upgrade", "1.1", "Connection: upgrade\r\n", (true, false)),
        ("upgrade not asked of us", "1.1", "Upgrade: websocket\r\n", (true, false)),
        ("old client upgrades", "1.0", "Connection: upgrade\r\nUpgrade: websocket\r\n", (false, false)),
        ("h2c", "1.1", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n", (true, false)),
        ("TLS inside of HTTP", "1.1", "Connection: upgrade\r\nUpgrade: TLS/1.2\r\n", (true, false)),
        ("h2c and WebSocket", "1.1", "Connection: upgrade\r\nUpgrade: h2c, websocket\r\n", (true, true)),
        ("a field of the client's own", "1.1", "Connection: X-Mine\r\n", (true, false)),
    ];
    for (what, version, fields, expected) in rows {
        let bytes = format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
        let head = judged(bytes.as_bytes()).unwrap();
        assert_eq!((head.keep_alive, head.upgrade), expected, "{what}");
    }
}

#[test]
fn fields_that_frame_or_prove_cannot_be_nominated_away() {
    let names = "Host Content-Length transfer-encoding Content-Type Authorization Cookie Forwarded Via";
    for name in names.split_whitespace() {
        let fields = format!("Connection: close, {name}\r\n");
        assert_eq!(status(&with(&fields)), 400, "{name}");
    }
    for name in "X-Forwarded-For x-real-ip X-Auth-User Remote-User X-Client-Cert Username".split_whitespace() {
        let fields = format!("Connection: close, {name}\r\n");
        assert_eq!(status(&with(&fields)), 200, "{name}: the gateway sets its own afterwards");
    }
    assert_eq!(status(&with("Connection: a b\r\n")), 400, "not a token");
}

#[test]
fn an_upgrade_has_no_body_unless_it_is_ignored() {
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    let rows = [
        ("length", format!("{upgrade}Content-Length: 5\r\n"), 400),
        ("chunked", format!("{upgrade}Transfer-Encoding: chunked\r\n"), 400),
        ("length zero", format!("{upgrade}Content-Length: 0\r\n"), 200),
        ("malformed", "Upgrade: web socket\r\n".to_owned(), 400),
        ("h2c", "Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n".to_owned(), 200),
        ("TLS", "Connection: upgrade\r\nUpgrade: TLS/1.2\r\nTransfer-Encoding: chunked\r\n".to_owned(), 200),
    ];
    for (what, fields, expected) in rows {
        assert_eq!(status(&with(&fields)), expected, "{what}");
    }
}

#[test]
fn an_upgrade_that_says_it_has_no_body_is_an_upgrade() {
    let head = judged(&with("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n")).unwrap();
    assert_eq!((head.upgrade, head.body), (true, Body::None));
}

#[test]
fn only_100_continue_may_be_expected() {
    let expect = |version: &str, value: &str| {
        judged(format!("POST / HTTP/{version}\r\nHost: a\r\nExpect: {value}\r\n\r\n").as_bytes())
    };
    assert!(expect("1.1", "100-Continue").unwrap().expect_continue);
    assert!(!expect("1.0", "100-continue").unwrap().expect_continue);
    assert_eq!(expect("1.1", "200-ok").unwrap_err().status, 417);
    assert_eq!(expect("1.1", "100-continue, x").unwrap_err().status, 417);
    assert_eq!(expect("1.1", "").unwrap_err().status, 417);
    assert!(expect("1.0", "200-ok").is_ok());
}

#[test]
fn heads_are_bounded() {
    let limits = Limits { head_bytes: 200, fields: 3, target_bytes: 20 };
    let request = |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes();
    let rows = [
        ("just so", request("/2345678901234567890", "A:b\r\nB:c\r\n"), 200),
        ("target", request("/23456789012345678901", ""), 414),
        ("fields", request("/", "A:b\r\nB:c\r\nC:d\r\n"), 431),
        ("bytes", request("/", &format!("A: {}\r\n", "x".repeat(200))), 431),
        ("target before bytes", request(&"/".repeat(300), ""), 414),
    ];
    for (what, bytes, expected) in rows {
        let found = head(&bytes, &limits).map_or_else(|refusal| refusal.status, |_| 200);
        assert_eq!(found, expected, "{what}");
    }
    assert_eq!(too_large(b"\r\nGET /aaaa").status, 414);
    assert_eq!(too_large(b"GET / HTTP/1.1\r\nA: b").status, 431);
}

#[test]
fn a_head_is_found_however_it_arrives() {
    let rows: [(&str, &[u8], Option<usize>); 7] = [
        ("whole", b"GET / HTTP/1.1\r\nA: b\r\n\r\nbody", Some(24)),
        ("without fields", b"GET / HTTP/1.1\r\n\r\n", Some(18)),
        ("empty line before", b"\r\nGET / HTTP/1.1\r\n\r\n", Some(20)),
        ("bare LF", b"GET / HTTP/1.1\nA: b\n\n", Some(21)),
        ("mixed", b"GET / HTTP/1.1\n\r\n", Some(17)),
        ("unfinished", b"GET / HTTP/1.1\r\nA: b\r\n\r", None),
        ("nothing", b"", None),
    ];
    for (what, bytes, expected) in rows {
        assert_eq!(end_of_head(bytes, 0), expected, "{what}");
        let resumed = (0..=bytes.len()).find_map(|seen| {
            let from = seen.saturating_sub(1);
            end_of_head(&bytes[..seen], from)
        });
        assert_eq!(resumed, expected, "{what}, a byte at a time");
    }
}

#[test]
fn what_precedes_the_request_line_is_told() {
    assert_eq!(judged(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().start, 2);
    assert!(judged(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().asterisk);
}

/// What another parser makes of a head: method, target, version, fields.
type Reading = (String, String, u8, Vec<(String, Vec<u8>)>);

fn read_by_another(bytes: &[u8]) -> Option<(usize, Reading)> {
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        _ => return None,
    };
    let field = |field: &httparse::Header<'_>| (field.name.to_owned(), field.value.to_vec());
    let (method, target) = (request.method?.to_owned(), request.path?.to_owned());
    Some((length, (method, target, request.version?, request.headers.iter().map(field).collect())))
}

/// Pieces that, put together, make sound heads and nearly sound ones.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        4 => Just("Host: a\r\n"), 2 => Just("Content-Length: 5\r\n"), 1 => Just("Transfer-Encoding: chunked\r\n"),
        1 => Just("Connection: close\r\n"), 1 => Just("X: y\n"), 1 => Just("X : y\r\n"), 1 => Just(" x\r\n"),
        1 => Just("X: \0\r\n"), 1 => Just("X: \r y\r\n"), 1 => Just("\r\n"), 1 => Just("\n"), 1 => Just("X:\t\r\n"),
        1 => Just("Host: b\r\n"), 1 => Just("x\r\n"), 1 => Just(": y\r\n"), 2 => Just("X: y\r\n"),
    ];
    let start = prop_oneof![
        8 => Just("GET / HTTP/1.1\r\n"), 2 => Just("POST /a?b HTTP/1.0\r\n"), 1 => Just("\r\nGET / HTTP/1.1\r\n"),
        1 => Just("GET  / HTTP/1.1\r\n"), 1 => Just("GET /\t HTTP/1.1\r\n"), 1 => Just("GET / HTTP/1.1\n"),
    ];
    let noise = prop_oneof![3 => Just(None), 1 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(Some)];
    (start, vec(line, 0..6), noise).prop_map(|(start, lines, noise)| {
        let mut bytes = format!("{start}{}\r\n", lines.concat()).into_bytes();
        if let Some((at, byte)) = noise {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) })]

    #[test]
    fn what_passes_is_read_alike_by_another_parser(bytes in pieces()) {
        let Some(length) = end_of_head(&bytes, 0) else { return Ok(()) };
        if let Ok(head) = judged(&bytes[..length]) {
            let Some((theirs, (_, target, version, fields))) = read_by_another(&bytes) else {
                return Err(TestCaseError::fail("the other parser refuses it"));
            };
            prop_assert_eq!(theirs, length);
            prop_assert_eq!(version == 0, head.http10);
            prop_assert!(!target.contains(' '));
            let values = |name: &str| fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).count();
            prop_assert!(values("host") == 1 || (head.http10 && values("host") == 0));
            prop_assert_eq!(values("content-length"), usize::from(matches!(head.body, Body::Length(_))));
            prop_assert_eq!(values("transfer-encoding"), usize::from(head.body == Body::Chunked));
        }
    }

    #[test]
    fn no_input_makes_the_gate_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = judged(&bytes);
        let _ = end_of_head(&bytes, bytes.len() / 2);
        let _ = ChunkScanner::new(&Limits::default()).feed(&bytes);
        if let Ok(text) = str::from_utf8(&bytes) {
            let _ = authority(text);
            let _ = crate::gate::path(text);
        }
    }
}
