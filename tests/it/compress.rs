//! `compress`: bodies are packed for clients that unpack them, say so, and stream as they did.

use std::io::Read;
use std::process::Command;

use crate::world::*;

/// A gateway whose route packs, with these settings.
async fn with(origin: &impl std::fmt::Display, rule: &str) -> Gateway {
    Gateway::before(origin)
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [small]}")
        .middlewares(&format!("- {{name: small, type: compress, rule: {{{rule}}}}}"))
        .await
}

fn text() -> String {
    "The quick brown fox jumps over the lazy dog. ".repeat(200)
}

fn page() -> Answer {
    Answer::ok(text()).header("Content-Type", "text/html")
}

fn pieces() -> Answer {
    let text = text();
    let (first, last) = text.split_at(1000);
    Answer::pieces([first.into(), last.into()]).header("Content-Type", "text/html")
}

fn unpacked(coding: Option<&str>, body: &[u8]) -> String {
    let mut plain = Vec::new();
    let read = match coding {
        Some("gzip") => flate2::read::GzDecoder::new(body).read_to_end(&mut plain),
        Some("br") => brotli::Decompressor::new(body, 4096).read_to_end(&mut plain),
        Some("zstd") => zstd::stream::read::Decoder::new(body).and_then(|mut read| read.read_to_end(&mut plain)),
        None => {
            plain.extend_from_slice(body);
            Ok(0)
        }
        Some(other) => panic!("an unknown coding {other}"),
    };
    read.expect("a whole body");
    String::from_utf8(plain).expect("text")
}

#[tokio::test]
async fn each_client_gets_the_coding_that_it_likes_best() {
    let origin = Origin::start().await;
    origin.on("/length", page().header("ETag", "\"v1\"").header("Accept-Ranges", "bytes"));
    origin.on("/chunks", pieces());
    origin.on("/close", Answer::until_close(text()).header("Content-Type", "text/html"));
    let gateway = with(&origin, "").await;
    let mut connection = gateway.connect().await;
    for (accepts, coding) in [
        ("gzip, deflate, br, zstd", Some("zstd")),
        ("gzip, br", Some("br")),
        ("gzip;q=1, br;q=0.5", Some("gzip")),
        ("identity", None),
        ("*;q=0", None),
    ] {
        for path in ["/length", "/chunks", "/close"] {
            let reply = connection.send(gateway.get(path).header("Accept-Encoding", accepts)).await;
            assert_eq!(reply.header("Content-Encoding"), coding, "{accepts}: {path}");
            assert_eq!(unpacked(coding, &reply.body), text(), "{accepts}: {path}");
            assert_eq!(reply.headers.all("Vary"), ["Accept-Encoding"], "{accepts}: {path}");
            assert_eq!(origin.last().header("Accept-Encoding"), Some(accepts), "it goes on as it is");
            assert!(reply.keeps_alive() && (coding.is_none() || reply.body.len() < 1000), "{accepts}: {path}");
            if path == "/length" {
                assert_eq!(reply.header("ETag"), Some(if coding.is_some() { "W/\"v1\"" } else { "\"v1\"" }));
                assert_eq!(reply.headers.has("Content-Length"), coding.is_none());
                assert_eq!(reply.headers.has("Accept-Ranges"), coding.is_none());
            }
        }
    }
    let silent = connection.send(gateway.get("/length")).await;
    assert_eq!((silent.text(), silent.header("Vary")), (text(), Some("Accept-Encoding")));
}

#[tokio::test]
async fn other_clients_read_it_too() {
    let origin = Origin::start().await;
    origin.always(page());
    for coding in ["gzip", "br", "zstd"] {
        let gateway = with(&origin, &format!("encodings: [{coding}]")).await;
        for version in ["--http1.1", "--http2-prior-knowledge", "--http1.0"] {
            let mut curl = Command::new("curl");
            curl.args(["-sS", "-m", "10", "--compressed", version, "-D", "-", &format!("{}/", gateway.url())]);
            let output = tokio::task::spawn_blocking(move || curl.output()).await.expect("no panic");
            // Not every machine has it, or one that knows every coding.
            let Ok(output) = output else { return };
            let answer = String::from_utf8_lossy(&output.stdout);
            let asked = origin.last().header("Accept-Encoding").is_some_and(|accepts| accepts.contains(coding));
            assert!(answer.ends_with(&text()), "{coding} {version}: {answer}");
            assert_eq!(answer.to_lowercase().contains(&format!("content-encoding: {coding}")), asked, "{version}");
        }
    }
}

#[tokio::test]
async fn what_must_not_be_packed_is_not() {
    let origin = Origin::start().await;
    let gateway = with(&origin, "").await;
    let rows = [
        ("a picture", page().header("Content-Type", "image/png")),
        ("no type", Answer::ok(text())),
        ("small", Answer::ok("small").header("Content-Type", "text/html")),
        ("packed already", Answer::gzip(&text()).header("Content-Type", "text/html")),
        ("a part", page().with_status(206).header("Content-Range", "bytes 0-8999/9999")),
        ("not to be changed", page().header("Cache-Control", "no-transform")),
        ("events", Answer::pieces(["data: 1\n\n".into()]).header("Content-Type", "text/event-stream")),
        ("with trailers", Answer::ok(text()).header("Content-Type", "application/grpc")),
    ];
    for (about, answer) in rows {
        let answer = match about {
            // The first line of a name counts.
            "a picture" => Answer::ok(text()).header("Content-Type", "image/png"),
            _ => answer,
        };
        origin.always(answer.header("ETag", "\"v\""));
        let direct = Request::new(origin.port(), "GET", "/").header("Accept-Encoding", "br").await;
        let reply = gateway.get("/").header("Accept-Encoding", "br").await;
        assert_eq!(reply.body, direct.body, "{about}");
        assert_eq!((reply.header("ETag"), reply.header("Vary")), (Some("\"v\""), None), "{about}");
    }
}

#[tokio::test]
async fn heads_say_what_the_whole_response_would() {
    let origin = Origin::start().await;
    origin.on("/page", page().header("ETag", "\"v\""));
    origin.on("/304", Answer::status(304).header("ETag", "\"v\""));
    origin.on("/204", Answer::status(204));
    let gateway = with(&origin, "").await;
    let mut connection = gateway.connect().await;
    let named = |reply: &Reply| {
        ["Content-Encoding", "Vary", "ETag", "Content-Length"]
            .map(|name| reply.header(name).unwrap_or_default().to_owned())
    };
    for accepts in ["gzip", "identity"] {
        let get = connection.send(gateway.get("/page").header("Accept-Encoding", accepts)).await;
        let head = connection.send(gateway.request("HEAD", "/page").header("Accept-Encoding", accepts)).await;
        assert_eq!((named(&head), head.body.len()), (named(&get), 0), "{accepts}");
    }
    let reply = connection.send(gateway.get("/304").header("Accept-Encoding", "gzip")).await;
    assert_eq!(
        (reply.status, reply.header("ETag"), reply.header("Vary")),
        (304, Some("W/\"v\""), Some("Accept-Encoding"))
    );
    assert_eq!(reply.header("Content-Encoding"), None);
    let reply = connection.send(gateway.get("/204").header("Accept-Encoding", "gzip")).await;
    assert_eq!((reply.status, reply.header("Vary")), (204, None));
    assert_eq!(connection.send(gateway.get("/page")).await.text(), text(), "the connection goes on");
}

#[tokio::test]
async fn an_old_client_finds_the_end_of_the_body() {
    let origin = Origin::start().await;
    origin.on("/page", page());
    origin.on("/zip", Answer::gzip(&text()));
    let gateway = with(&origin, "encodings: [gzip]").await;
    let request = b"GET /page HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nAccept-Encoding: gzip\r\n\r\n";
    let mut connection = gateway.connect().await;
    connection.write(request).await;
    let (reply, _) = connection.head("GET").await.expect("a reply");
    assert_eq!((reply.header("Content-Encoding"), reply.header("Transfer-Encoding")), (Some("gzip"), None));
    let body = connection.wire.rest().await.expect("closed at the end");
    assert_eq!(unpacked(Some("gzip"), &body), text());
    // What is unpacked for a client that takes no codings has no length either.
    let answer = gateway.raw(b"GET /zip HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").await;
    assert!(answer.ends_with(&text()) && !answer.to_lowercase().contains("chunked"), "{answer}");
}

#[tokio::test]
async fn http2_streams_are_packed_on_both_sides() {
    let origin = Origin::start().await;
    origin.on("/page", page());
    origin.on("/chunks", pieces());
    let gateway = with(&origin, "").await;
    let client = gateway.h2().await;
    for (path, coding) in [("/page", "gzip"), ("/chunks", "zstd"), ("/page", "br")] {
        let request = client.request("GET", path).header("accept-encoding", coding).body(()).expect("a request");
        let reply = client.call(request, true).await.finish().await.expect("a whole response");
        assert_eq!((reply.header("content-encoding"), reply.header("content-length")), (Some(coding), None));
        assert_eq!(unpacked(Some(coding), &reply.body), text());
    }
    let backend = Origin2::start().await;
    let gateway = with(&backend, "minSize: 0").await;
    let reply = gateway.get("/plain").header("Accept-Encoding", "br").await;
    assert_eq!((reply.header("Content-Encoding"), unpacked(Some("br"), &reply.body)), (Some("br"), "plain".to_owned()));
    let request =
        gateway.h2().await.request("GET", "/plain").header("accept-encoding", "gzip").body(()).expect("a request");
    let reply = gateway.h2().await.call(request, true).await.finish().await.expect("a whole response");
    assert_eq!(unpacked(reply.header("content-encoding"), &reply.body), "plain");
    let called = gateway.h2().await.unary("/echo", "words").await;
    assert_eq!((called.text().as_str(), called.trailer("grpc-status")), ("words", Some("0")), "gRPC is left alone");
}

/// Reads a packed body as it comes.
struct Opened {
    connection: Connection,
    left: Left,
    packed: Vec<u8>,
}

impl Opened {
    async fn at(gateway: &Gateway, path: &str, coding: &str) -> Opened {
        let (reply, connection, left) = gateway.get(path).header("Accept-Encoding", coding).open().await;
        assert_eq!(reply.header("Content-Encoding"), Some(coding));
        Opened { connection, left, packed: Vec::new() }
    }

    /// Waits until all that came unpacks to this.
    async fn reads(&mut self, coding: &str, expected: &str) {
        loop {
            let mut plain = vec![0; expected.len()];
            let read = match coding {
                "gzip" => flate2::read::GzDecoder::new(&self.packed[..]).read_exact(&mut plain),
                "br" => brotli::Decompressor::new(&self.packed[..], 4096).read_exact(&mut plain),
                _ => {
                    zstd::stream::read::Decoder::new(&self.packed[..]).and_then(|mut read| read.read_exact(&mut plain))
                }
            };
            if read.is_ok() {
                assert_eq!(String::from_utf8_lossy(&plain), expected);
                return;
            }
            let piece = self.connection.wire.piece(&mut self.left, &mut Headers::default()).await.expect("a piece");
            self.packed.extend_from_slice(&piece.expect("more of the body"));
        }
    }
}

#[tokio::test]
async fn a_line_is_with_the_client_before_the_next_one_exists() {
    let origin = Origin::start().await;
    let lines = ["{\"n\":1}\n", "{\"n\":2}\n", "{\"n\":3}\n"];
    origin.on("/lines", Answer::held(&lines).header("Content-Type", "application/x-ndjson"));
    origin.on("/events", Answer::events(&["one", "two"]));
    let gateway = with(&origin, "sse: true").await;
    for coding in ["gzip", "br", "zstd"] {
        let mut opened = Opened::at(&gateway, "/lines", coding).await;
        for (index, _) in lines.iter().enumerate() {
            opened.reads(coding, &lines[..=index].concat()).await;
            origin.release();
        }
        let mut opened = Opened::at(&gateway, "/events", coding).await;
        opened.reads(coding, "data: one\n\n").await;
        origin.release();
        opened.reads(coding, "data: one\n\ndata: two\n\n").await;
    }
}

#[tokio::test]
async fn events_are_left_alone_and_come_at_once() {
    let origin = Origin::start().await;
    origin.on("/events", Answer::events(&["one", "two"]));
    let gateway = with(&origin, "types: ['*/*', text/event-stream]").await;
    let request = gateway.get("/events").accept("text/event-stream").header("Accept-Encoding", "gzip, br");
    let mut events = Events::open(request).await;
    assert_eq!((events.reply.header("Content-Encoding"), events.reply.header("Vary")), (None, None));
    assert_eq!(events.next().await.expect("an event").0, "one");
    origin.release();
    assert_eq!(events.next().await.expect("an event").0, "two");
}

#[tokio::test]
async fn pages_of_our_own_are_packed_too() {
    let body = "We do not have that. ".repeat(100);
    let origin = Origin::start().await;
    origin.always(Answer::gzip("their words").with_status(404).header("ETag", "\"v\""));
    let gateway = Gateway::before(&origin)
        .routes(
            "- {name: r, path: /, target: ORIGIN, middlewares: [small, pages]}
- {name: d, path: /dead, target: 'http://127.0.0.1:1', middlewares: [small, pages]}",
        )
        .middlewares(&format!(
            "- {{name: small, type: compress}}
- {{name: pages, type: errorInterceptor, rule: {{enabled: true, errors: [{{code: 404, body: '{body}'}}, {{code: 502, body: '{body}'}}]}}}}"
        ))
        .await;
    let mut connection = gateway.connect().await;
    for (path, status) in [("/", 404), ("/dead", 502)] {
        for coding in ["gzip", "br", "zstd"] {
            let reply = gateway.get(path).header("Accept-Encoding", coding).await;
            assert_eq!((reply.status, reply.header("Content-Encoding")), (status, Some(coding)), "{path}");
            assert_eq!(reply.header("Content-Length"), Some(&*reply.body.len().to_string()), "{path}");
            assert_eq!(unpacked(Some(coding), &reply.body), format!("{body}\n"), "{path}");
            assert_eq!(reply.headers.all("Vary"), ["Accept-Encoding"], "{path}");
        }
        assert_eq!(gateway.get(path).await.text(), format!("{body}\n"), "{path}");
    }
    let get = connection.send(gateway.get("/").header("Accept-Encoding", "br")).await;
    let head = connection.send(gateway.request("HEAD", "/").header("Accept-Encoding", "br")).await;
    assert_eq!((head.header("Content-Length"), head.body.len()), (get.header("Content-Length"), 0));
}

#[tokio::test]
async fn settings_choose_paths_types_and_sizes() {
    let origin = Origin::start().await;
    origin.always(page());
    let gateway = Gateway::before(&origin)
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [small, best]}")
        .middlewares(
            "- {name: small, type: compress, paths: [/a], rule: {encodings: [gzip], level: '1', minSize: 9000}}
- {name: best, type: compress, paths: ['^/a/b'], rule: {encodings: [br], level: {br: 9}, types: [text/*]}}",
        )
        .await;
    for (path, coding) in [("/a", Some("gzip")), ("/a/b", Some("br")), ("/c", None)] {
        let reply = gateway.get(path).header("Accept-Encoding", "gzip, br").await;
        assert_eq!(
            (reply.header("Content-Encoding"), reply.header("Vary").is_some()),
            (coding, coding.is_some()),
            "{path}"
        );
        assert_eq!(unpacked(coding, &reply.body), text(), "{path}");
    }
    origin.always(Answer::ok("x".repeat(8999)).header("Content-Type", "text/html"));
    assert_eq!(gateway.get("/a").header("Accept-Encoding", "gzip").await.header("Content-Encoding"), None);
}

#[tokio::test]
async fn explain_tells_which_parts_of_the_shell_count() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin)
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [small, best, pages]}")
        .middlewares(
            "- {name: small, type: compress}
- {name: best, type: compress, paths: ['^/a/b'], rule: {level: 9}}
- {name: pages, type: errorInterceptor, rule: {enabled: true, errors: [{code: 404}]}}",
        )
        .await;
    let file = gateway.file("goma.yml").display().to_string();
    for (path, expected) in
        [("/", ["applies", "other_paths", "applies"]), ("/a/b", ["other_paths", "applies", "applies"])]
    {
        let output = goma(&["config", "explain", "-c", &file, "--json", "GET", path]).await;
        let told: serde_json::Value =
            serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{}", output.all()));
        let verdicts: Vec<_> = (0..3).map(|place| &told["middlewares"][place]["verdict"]).collect();
        assert_eq!(verdicts, expected, "{path}");
    }
}

#[tokio::test]
async fn policies_come_before_and_may_say_no() {
    let origin = Origin::start().await;
    origin.always(page());
    let gateway = Gateway::before(&origin)
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [small, headers]}")
        .middlewares(
            "- {name: small, type: compress}
- {name: headers, type: responseHeaders, paths: [/raw], rule: {cacheControl: no-transform, setHeaders: {Vary: Origin}}}",
        )
        .await;
    let reply = gateway.get("/raw").header("Accept-Encoding", "gzip").await;
    assert_eq!((reply.text(), reply.headers.all("Vary")), (text(), vec!["Origin"]));
    let reply = gateway.get("/").header("Accept-Encoding", "gzip").await;
    assert_eq!(reply.header("Content-Encoding"), Some("gzip"));
}

#[tokio::test]
async fn a_large_body_streams_through_little_memory() {
    let origin = Origin::start().await;
    origin.on("/down", Answer::flood(100 * MIB).header("Content-Type", "text/plain"));
    let gateway = with(&origin, "level: 1").await;
    gateway.get("/").await;
    let before = gateway.rss_bytes();
    for coding in ["gzip", "zstd"] {
        let (reply, mut connection, mut left) = gateway.get("/down").header("Accept-Encoding", coding).open().await;
        assert_eq!(reply.header("Content-Encoding"), Some(coding));
        let (sender, receiver) = std::sync::mpsc::sync_channel::<Vec<u8>>(4);
        let check = tokio::task::spawn_blocking(move || {
            let packed = Packed { pieces: receiver, piece: Vec::new(), at: 0 };
            match coding {
                "gzip" => count(flate2::read::GzDecoder::new(packed)),
                _ => count(zstd::stream::read::Decoder::new(packed).expect("a decoder")),
            }
        });
        while let Some(piece) = connection.wire.piece(&mut left, &mut Headers::default()).await.expect("no cut") {
            sender.send(piece.to_vec()).expect("the other side reads");
        }
        drop(sender);
        assert_eq!(check.await.expect("it unpacks"), 100 * MIB, "{coding}");
    }
    let growth = gateway.rss_bytes().saturating_sub(before);
    assert!(growth < 32 * MIB, "the gateway grew by {} KiB", growth >> 10);
}

/// The pieces of a body, as a reader.
struct Packed {
    pieces: std::sync::mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Packed {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.at == self.piece.len() {
            let Ok(piece) = self.pieces.recv() else { return Ok(0) };
            (self.piece, self.at) = (piece, 0);
        }
        let count = buffer.len().min(self.piece.len() - self.at);
        buffer[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// How many bytes of the pattern come out.
fn count(mut body: impl Read) -> u64 {
    let (pattern, mut position, mut block) = (Pattern::new(), 0, vec![0; 64 * 1024]);
    loop {
        match body.read(&mut block).expect("a whole body") {
            0 => return position,
            count => {
                assert!(pattern.continues(position, &block[..count]), "wrong bytes after {position}");
                position += count as u64;
            }
        }
    }
}

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn a_body_that_the_backend_cuts_is_cut() {
    let origin = Origin::start().await;
    origin.always(Answer::cut(text(), 5000).header("Content-Type", "text/html"));
    let gateway = with(&origin, "").await;
    for coding in ["gzip", "br", "zstd"] {
        let answered = gateway.get("/").header("Accept-Encoding", coding).attempt().await;
        assert!(answered.is_err(), "{coding}: nobody may take it for whole");
    }
}
