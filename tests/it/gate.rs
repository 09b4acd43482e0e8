//! The framing gate on the wire: a request form that parsers disagree about is refused, or reaches the backend
//! as exactly one request in its one reading. What a refused client smuggled along is never looked at.

use std::time::{Duration, Instant};

use crate::world::*;

/// What becomes of the bytes.
enum Fate {
    /// One of our own answers with this status, and the backend sees nothing.
    Refused(u16),
    /// The backend sees exactly one request: method, target, body.
    Read(&'static str, &'static str, &'static str),
}

use Fate::{Read, Refused};

/// A request that must not be reached from inside of another one.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn a_request_line_has_one_form() {
    let line = |line: &str| format!("{line}\r\nHost: a\r\nConnection: close\r\n\r\n");
    plays([
        ("plain", line("GET /x?y HTTP/1.1"), Read("GET", "/x?y", "")),
        ("one empty line before", line("\r\nGET /x HTTP/1.1"), Read("GET", "/x", "")),
        ("a method of its own", line("PROPFIND /x HTTP/1.1"), Read("PROPFIND", "/x", "")),
        ("characters of the wild", line("GET /a|{}\"<>^` HTTP/1.1"), Read("GET", "/a|{}%22%3C%3E^%60", "")),
        ("absolute form", line("GET http://a/x?y HTTP/1.1"), Read("GET", "/x?y", "")),
        ("absolute form, other case", line("GET HTTP://A/x HTTP/1.1"), Read("GET", "/x", "")),
        ("absolute form of another host", line("GET http://b/x HTTP/1.1"), Refused(400)),
        ("absolute form with a user", line("GET http://u@a/x HTTP/1.1"), Refused(400)),
        ("absolute form of another scheme", line("GET ftp://a/x HTTP/1.1"), Refused(400)),
        ("two empty lines before", line("\r\n\r\nGET /x HTTP/1.1"), Refused(400)),
        ("two spaces", line("GET  /x HTTP/1.1"), Refused(400)),
        ("tab as separator", line("GET\t/x HTTP/1.1"), Refused(400)),
        ("space in the target", line("GET /a b HTTP/1.1"), Refused(400)),
        ("NUL in the target", line("GET /a\0b HTTP/1.1"), Refused(400)),
        ("DEL in the target", line("GET /a\x7f HTTP/1.1"), Refused(400)),
        ("bytes above 0x7F in the target", line("GET /\u{e9} HTTP/1.1"), Refused(400)),
        ("fragment", line("GET /a#b HTTP/1.1"), Refused(400)),
        ("a percent sign alone", line("GET /a%2 HTTP/1.1"), Refused(400)),
        ("an encoded NUL", line("GET /a%00b HTTP/1.1"), Refused(400)),
        ("GET *", line("GET * HTTP/1.1"), Refused(400)),
        ("authority form", line("GET a:80 HTTP/1.1"), Refused(400)),
        ("CONNECT", line("CONNECT a:443 HTTP/1.1"), Refused(405)),
        ("TRACE", line("TRACE /x HTTP/1.1"), Refused(405)),
        ("HTTP/1.2", line("GET /x HTTP/1.2"), Refused(505)),
        ("HTTP/2.0 as text", line("GET /x HTTP/2.0"), Refused(505)),
        ("lower-case version", line("GET /x http/1.1"), Refused(400)),
        ("HTTP/0.9", "GET /x\r\n\r\n".to_owned(), Refused(400)),
        ("a handshake of TLS", "\x16\x03\x01\x02\0\x01".to_owned(), Refused(400)),
    ])
    .await;
}

#[tokio::test]
async fn host_is_there_once_and_sound() {
    let hosts = |fields: &str| format!("GET /x HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
    plays([
        ("none", hosts(""), Refused(400)),
        ("none on HTTP/1.0", "GET http://a/x HTTP/1.0\r\n\r\n".to_owned(), Read("GET", "/x", "")),
        ("two", hosts("Host: a\r\nHost: b\r\n"), Refused(400)),
        ("two alike", hosts("Host: a\r\nHost: a\r\n"), Refused(400)),
        ("empty", hosts("Host:\r\n"), Refused(400)),
        ("a comma", hosts("Host: a,b\r\n"), Refused(400)),
        ("a path", hosts("Host: a/b\r\n"), Refused(400)),
        ("a user", hosts("Host: u@a\r\n"), Refused(400)),
        ("a space", hosts("Host: a b\r\n"), Refused(400)),
        ("nominated away", hosts("Host: a\r\nConnection: Host\r\n"), Refused(400)),
    ])
    .await;
}

#[tokio::test]
async fn a_body_is_framed_in_one_way() {
    let post =
        |fields: &str, body: &str| format!("POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n{body}");
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    let sneaky = format!("0\r\n\r\n{SMUGGLED}");
    plays([
        ("a length", post("Content-Length: 5\r\n", "hello"), Read("POST", "/x", "hello")),
        ("chunks", chunked("2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"), Read("POST", "/x", "hello")),
        ("CHUNKED", post("Transfer-Encoding: CHUNKED\r\n", "0\r\n\r\n"), Read("POST", "/x", "")),
        ("both", post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", &sneaky), Refused(400)),
        ("both, other order", post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", &sneaky), Refused(400)),
        ("two lengths", post("Content-Length: 0\r\nContent-Length: 40\r\n", SMUGGLED), Refused(400)),
        ("two equal lengths", post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"), Refused(400)),
        ("a list of lengths", post("Content-Length: 5, 5\r\n", "hello"), Refused(400)),
        ("a signed length", post("Content-Length: +5\r\n", "hello"), Refused(400)),
        ("a hexadecimal length", post("Content-Length: 0x5\r\n", "hello"), Refused(400)),
        ("an empty length", post("Content-Length:\r\n", SMUGGLED), Refused(400)),
        ("a length beyond all", post("Content-Length: 18446744073709551621\r\n", "hello"), Refused(400)),
        ("Content_Length", post("Content_Length: 40\r\n", SMUGGLED), Refused(400)),
        ("another coding", post("Transfer-Encoding: gzip, chunked\r\n", &sneaky), Refused(501)),
        ("almost chunked", post("Transfer-Encoding: xchunked\r\n", &sneaky), Refused(501)),
        ("chunked twice", post("Transfer-Encoding: chunked, chunked\r\n", &sneaky), Refused(400)),
        ("chunked in two lines", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", &sneaky), Refused(400)),
        ("chunked with VT", post("Transfer-Encoding: \x0bchunked\r\n", &sneaky), Refused(400)),
        (
            "HTTP/1.0 with a coding",
            format!("POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{sneaky}"),
            Refused(400),
        ),
        (
            "HTTP/1.0 with a length",
            "POST /x HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
            Read("POST", "/x", "hello"),
        ),
        (
            "an upgrade with a body",
            post("Upgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 5\r\n", "hello"),
            Refused(400),
        ),
        ("an unknown expectation", post("Expect: 200-ok\r\nContent-Length: 5\r\n", "hello"), Refused(417)),
    ])
    .await;
}

#[tokio::test]
async fn a_field_line_has_one_form() {
    let field = |field: &str| format!("GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{field}\r\n");
    plays([
        ("an empty value", field("A:\r\n"), Read("GET", "/x", "")),
        ("a tab in the value", field("A: b\tc\r\n"), Read("GET", "/x", "")),
        ("folded", field("A: b\r\n c\r\n"), Refused(400)),
        ("space before the colon", field("Content-Length : 5\r\n"), Refused(400)),
        ("space before the name", format!("GET /x HTTP/1.1\r\n Host: a\r\n\r\n{SMUGGLED}"), Refused(400)),
        ("no name", field(": b\r\n"), Refused(400)),
        ("no colon", field("A\r\n"), Refused(400)),
        ("NUL", field("A: b\0c\r\n"), Refused(400)),
        ("a control character", field("A: b\x01c\r\n"), Refused(400)),
        ("bare CR", field("A: b\rB: c\r\n"), Refused(400)),
        ("bare LF", field("A: b\nContent-Length: 5\r\n"), Refused(400)),
        ("bare LF everywhere", "GET /x HTTP/1.1\nHost: a\n\n".to_owned(), Refused(400)),
        ("more fields than 100", field(&"A: b\r\n".repeat(101)), Refused(431)),
        ("a head beyond 64 KiB", field(&format!("A: {}\r\n", "x".repeat(70_000))), Refused(431)),
    ])
    .await;
}

#[tokio::test]
async fn broken_chunks_never_become_a_whole_request() {
    let sneaky = format!("0\r\n\r\n{SMUGGLED}");
    let rows = [
        ("bare LF after the size", format!("5\nhello\r\n{sneaky}")),
        ("a signed size", format!("+5\r\nhello\r\n{sneaky}")),
        ("0x", format!("0x5\r\nhello\r\n{sneaky}")),
        ("space before the size", format!(" 5\r\nhello\r\n{sneaky}")),
        ("space after the size", format!("5 \r\nhello\r\n{sneaky}")),
        ("a size beyond all", format!("10000000000000005\r\nhello\r\n{sneaky}")),
        ("an empty size", format!("\r\nhello\r\n{sneaky}")),
        ("a control character in an extension", format!("5;a=\x01\r\nhello\r\n{sneaky}")),
        ("a bare CR in an extension", format!("5;a=\rb\r\nhello\r\n{sneaky}")),
        ("a bare LF in an extension", format!("5;a=\nb\r\nhello\r\n{sneaky}")),
        ("an endless extension", format!("5;{}\r\nhello\r\n{sneaky}", "x".repeat(20_000))),
        ("no CRLF after the data", format!("5\r\nhello{sneaky}")),
        ("more data than its size", format!("5\r\nhello world\r\n{sneaky}")),
        ("a trailer that frames", "5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n".to_owned()),
        ("a trailer with bare LF", "5\r\nhello\r\n0\r\nA: b\n\r\n".to_owned()),
    ];
    let (origin, gateway) = front().await;
    for (row, (about, body)) in rows.iter().enumerate() {
        let head = format!("POST /{row} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        let answer = gateway.raw(format!("{head}{body}").as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{about}: {answer}");
    }
    // A head may have gone on before its body turned out broken: the backend then sees it cut.
    for seen in origin.seen() {
        let row = seen.target.trim_start_matches('/').parse::<usize>();
        let about = row.ok().and_then(|row| rows.get(row)).map_or("no row", |row| row.0);
        assert!(!seen.whole && about != "no row", "{about}: {seen:?}");
    }
    let good = "5;name=\"a value\";b\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n";
    let head = "POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    origin.forget();
    gateway.raw(format!("{head}{good}").as_bytes()).await;
    assert_eq!(origin.last().text(), "hello", "extensions and trailers are no reason to refuse");
}

#[tokio::test]
async fn pipelined_requests_are_answered_one_after_the_other() {
    let (origin, gateway) = front().await;
    let two = "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\noneGET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = gateway.raw(two.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
    let targets: Vec<_> = origin.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets, ["/1", "/2"]);
}

#[tokio::test]
async fn options_of_the_server_itself_are_answered_here() {
    let (origin, gateway) = front().await;
    let answer = gateway.raw(b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(origin.saw_nothing());
}

#[tokio::test]
async fn a_head_that_takes_too_long_is_cut_at_the_deadline() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin)
        .gateway("limits: {headerTimeout: 1s}")
        .routes("- {name: r, path: /, target: ORIGIN}")
        .await;
    for (about, first) in
        [("byte by byte from the start", ""), ("after a first request", "GET / HTTP/1.1\r\nHost: a\r\n\r\n")]
    {
        let mut connection = gateway.connect().await;
        if !first.is_empty() {
            connection.write(first.as_bytes()).await;
            assert_eq!(connection.reply("GET").await.expect("a reply").status, 200);
        }
        let begin = Instant::now();
        let head = "GET /slow HTTP/1.1\r\nHost: a\r\nX-Long: ".bytes().chain(std::iter::repeat(b'x'));
        for byte in head {
            // The pace of the client is what this is about: it never pauses long enough for a time-out of a read.
            tokio::time::sleep(Duration::from_millis(50)).await;
            if connection.wire.send(&[byte]).await.is_err() || connection.wire.has_come().await {
                break;
            }
            assert!(begin.elapsed() < PATIENCE, "{about}: never cut");
        }
        let took = begin.elapsed();
        assert!(took > Duration::from_millis(900) && took < Duration::from_secs(4), "{about}: cut after {took:?}");
        let answer = connection.wire.rest().await.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let answer = answer.unwrap_or_default();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{about}: {answer}");
    }
    assert!(!origin.seen().iter().any(|seen| seen.target == "/slow"));
}

#[tokio::test]
async fn heads_and_connections_have_limits() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin)
        .gateway("limits: {headerBytes: 2048, headerCount: 10, maxConnections: 4}")
        .routes("- {name: r, path: /, target: ORIGIN}")
        .await;
    assert_eq!(gateway.get("/").header("A", &"x".repeat(3000)).await.status, 431);
    let many = (0..12).fold(gateway.get("/"), |request, _| request.header("A", "b"));
    assert_eq!(many.await.status, 431);
    assert!(origin.saw_nothing());

    let mut held = Vec::new();
    for _ in 0..4 {
        let connection = eventually("a free place", async || {
            let mut connection = gateway.connect().await;
            connection.attempt(&gateway.get("/")).await.is_ok_and(|reply| reply.status == 200).then_some(connection)
        });
        held.push(connection.await);
    }
    let fifth = gateway.get("/").attempt().await;
    assert!(fifth.is_err() || fifth.is_ok_and(|reply| reply.status == 503), "four connections are all");
    held.pop();
    eventually("a place is free again", async || {
        gateway.get("/").attempt().await.is_ok_and(|reply| reply.status == 200).then_some(())
    })
    .await;
}

async fn front() -> (Origin, Gateway) {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes("- {name: r, path: /, target: ORIGIN}").await;
    (origin, gateway)
}

/// Sends each form on a connection of its own, and looks at both sides.
async fn plays<const N: usize>(rows: [(&str, String, Fate); N]) {
    let (origin, gateway) = front().await;
    let mut wrong = Vec::new();
    for (about, bytes, fate) in rows {
        origin.forget();
        let answer = gateway.raw(&wire(&bytes)).await;
        let seen: Vec<_> =
            origin.seen().iter().map(|seen| (seen.method.clone(), seen.target.clone(), seen.text())).collect();
        let (status, expected) = match fate {
            Refused(status) => (status, vec![]),
            Read(method, target, body) => (200, vec![(method.to_owned(), target.to_owned(), body.to_owned())]),
        };
        let answers = answer.matches("HTTP/1.1 ").count() + answer.matches("HTTP/1.0 ").count();
        let got: &str = answer.split(' ').nth(1).unwrap_or_default();
        if got != status.to_string() || answers != 1 || seen != expected {
            wrong.push(format!("{about}: expected {status} and {expected:?}, got {answer:?} and {seen:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each character is one byte.
fn wire(text: &str) -> Vec<u8> {
    text.chars().map(|char| u8::try_from(u32::from(char)).expect("a byte")).collect()
}
