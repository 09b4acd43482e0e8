//! Bodies pass as they come, in both directions and in every framing.

use std::time::{Duration, Instant};

use crate::world::*;

const ROUTE: &str = "- {name: r, path: /, target: ORIGIN}";

#[tokio::test]
async fn an_event_is_with_the_client_before_the_next_one_exists() {
    let origin = Origin::start().await;
    origin.on("/events", Answer::events(&["one", "two", "three"]));
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    for accept in ["text/event-stream", "text/event-stream, */*", "*/*", "application/json"] {
        let mut events = Events::open(gateway.get("/events").accept(accept)).await;
        assert_eq!(events.reply.header("content-type"), Some("text/event-stream"), "{accept}");
        assert_eq!(events.reply.header("Proxied-By"), Some("Goma Gateway"), "nothing bypasses the gateway's headers");
        for expected in ["one", "two", "three"] {
            assert_eq!(events.next().await.expect("an event").0, expected, "{accept}");
            if expected != "three" {
                origin.release();
            }
        }
        assert!(events.next().await.is_none(), "{accept}");
    }
    gateway.counts(r#"gateway_response_status_total{method="GET",name="r",status="200"} 4"#).await;
}

#[tokio::test]
async fn a_piece_of_a_response_with_a_length_does_not_wait_for_the_rest() {
    let listener = listen();
    let target = format!("http://{}", listener.local_addr().expect("a bound listener has an address"));
    let gateway = Gateway::before(&target).routes(ROUTE).await;
    let mut connection = gateway.connect().await;
    connection.write(gateway.get("/").head().as_bytes()).await;
    let mut backend = Wire::over(listener.accept().await.expect("a connection").0);
    backend.head().await.expect("a request");
    backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n").await.expect("sent");
    let (reply, _) = connection.head("GET").await.expect("the head before there is a body");
    assert_eq!(reply.header("Content-Length"), Some("10"));
    for piece in ["hello", "world"] {
        backend.send(piece.as_bytes()).await.expect("sent");
        assert_eq!(connection.wire.exactly(5).await.expect("the piece"), piece);
    }
}

#[tokio::test]
async fn an_upload_is_with_the_backend_before_the_client_has_finished_it() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let mut connection = gateway.connect().await;
    connection.write(b"POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    eventually("the first part has arrived", async || (origin.seen().first()?.text() == "hello").then_some(())).await;
    connection.write(b"6;ext=1\r\n world\r\n0\r\n\r\n").await;
    assert_eq!(connection.reply("POST").await.expect("a reply").status, 200);
    assert_eq!((origin.last().text().as_str(), origin.last().whole), ("hello world", true));
}

#[tokio::test]
async fn each_framing_of_a_response_arrives_whole() {
    let origin = Origin::start().await;
    let text = "0123456789".repeat(20_000);
    origin.on("/length", Answer::ok(text.clone()));
    origin.on("/chunks", Answer::pieces([text[..7].into(), text[7..].into()]));
    origin.on("/close", Answer::until_close(text.clone()));
    origin.on("/empty", Answer::pieces([]));
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let mut connection = gateway.connect().await;
    for path in ["/length", "/chunks", "/close", "/empty", "/length"] {
        let reply = connection.send(gateway.get(path)).await;
        assert_eq!(reply.text(), if path == "/empty" { "" } else { &text }, "{path}");
        assert!(reply.keeps_alive(), "{path}: the client's connection is kept");
    }
    let old = gateway.raw(b"GET /chunks HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert!(old.ends_with(&text), "HTTP/1.0 gets no chunks");
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let origin = Origin::start().await;
    origin.on("/head", Answer::ok("0123456789"));
    origin.on("/204", Answer::status(204));
    origin.on("/304", Answer::status(304).header("ETag", "\"v1\""));
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let mut connection = gateway.connect().await;
    let head = connection.send(gateway.request("HEAD", "/head")).await;
    assert_eq!((head.status, head.header("Content-Length"), head.body.len()), (200, Some("10"), 0));
    assert_eq!(connection.send(gateway.get("/204")).await.status, 204);
    let reply = connection.send(gateway.get("/304").header("If-None-Match", "\"v1\"")).await;
    assert_eq!((reply.status, reply.header("ETag")), (304, Some("\"v1\"")));
    assert_eq!(connection.send(gateway.get("/head")).await.text(), "0123456789", "the connection is in step");
}

#[tokio::test]
async fn continue_comes_before_the_body_and_a_refusal_instead_of_it() {
    let origin = Origin::start().await;
    origin.on("/refuse", Answer::status(404).body("no such").ignoring_the_body().closing());
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let head =
        |path: &str| format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");

    let mut connection = gateway.connect().await;
    connection.write(head("/take").as_bytes()).await;
    let interim = connection.wire.head().await.expect("an answer").expect("an answer");
    assert!(interim.line.starts_with("HTTP/1.1 100 "), "{}", interim.line);
    connection.write(b"hello").await;
    let reply = connection.reply("POST").await.expect("a reply");
    assert_eq!((reply.status, origin.last().text().as_str()), (200, "hello"));
    assert_eq!(connection.send(gateway.get("/")).await.status, 200, "the connection stays");

    let mut connection = gateway.connect().await;
    connection.write(head("/refuse").as_bytes()).await;
    let (reply, left) = connection.head("POST").await.expect("a reply");
    assert_eq!(reply.status, 404, "the refusal is final, whatever came before it");
    assert_eq!(connection.wire.body(left).await.expect("a body").0, "no such");
    assert_eq!(reply.header("Connection"), Some("close"), "nobody knows whether the body comes");
}

#[tokio::test]
async fn an_interim_response_leaves_the_final_one_as_it_is() {
    let origin = Origin::start().await;
    origin.always(
        Answer::status(404).body("gone").header("X-End", "1").interim(103, &[("Link", "</a.css>; rel=preload")]),
    );
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let reply = gateway.get("/").await;
    assert_eq!((reply.status, reply.text().as_str(), reply.header("X-End")), (404, "gone", Some("1")));
    assert_eq!(reply.interim.len(), 1);
    assert_eq!((reply.interim[0].0, reply.interim[0].1.one("Link")), (103, Some("</a.css>; rel=preload")));
}

#[tokio::test]
async fn an_http10_client_gets_the_final_response_only() {
    let origin = Origin::start().await;
    origin.always(Answer::ok("fin").interim(103, &[("Link", "</a.css>")]));
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    for head in ["", "Expect: 100-continue\r\n"] {
        let request = format!("POST / HTTP/1.0\r\nHost: a\r\n{head}Content-Length: 2\r\n\r\nok");
        let answer = gateway.raw(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("fin"), "{head}: {answer}");
        assert!(!origin.last().headers.has("Expect"), "HTTP/1.0 has no expectations");
    }
}

#[tokio::test]
async fn a_client_without_gzip_gets_the_text_that_the_backend_packed() {
    let origin = Origin::start().await;
    origin.on("/zip", Answer::gzip("hello hello hello"));
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let plain = gateway.get("/zip").await;
    assert_eq!((plain.text().as_str(), plain.header("Content-Encoding")), ("hello hello hello", None));
    assert_eq!(origin.last().header("Accept-Encoding"), Some("gzip"));

    let packed = gateway.get("/zip").header("Accept-Encoding", "gzip, br").await;
    assert_eq!(packed.header("Content-Encoding"), Some("gzip"));
    assert_eq!(&packed.body[..2], b"\x1f\x8b");
    assert_eq!(origin.last().header("Accept-Encoding"), Some("gzip, br"));

    for (about, request) in
        [("a range", gateway.get("/zip").header("Range", "bytes=0-3")), ("HEAD", gateway.request("HEAD", "/zip"))]
    {
        request.await;
        assert!(!origin.last().headers.has("Accept-Encoding"), "{about}");
    }
    let off = "networking: {transport: {disableCompression: true}}";
    let gateway = Gateway::before(&origin).gateway(off).routes(ROUTE).await;
    gateway.get("/").await;
    assert!(!origin.last().headers.has("Accept-Encoding"), "compression is off");
}

#[tokio::test]
async fn trailers_of_http1_are_left_out_and_not_announced() {
    let origin = Origin::start().await;
    origin.always(Answer::pieces(["data".into()]).trailer("X-Sum", "4"));
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let reply = gateway.get("/").await;
    assert_eq!((reply.text().as_str(), reply.header("Trailer")), ("data", None));
    let mut connection = gateway.connect().await;
    connection
        .write(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-T: 1\r\n\r\n")
        .await;
    assert_eq!(connection.reply("POST").await.expect("a reply").status, 200);
    assert_eq!(origin.last().text(), "x");
}

#[tokio::test]
async fn a_gibibyte_each_way_stays_out_of_memory() {
    let origin = Origin::start().await;
    origin.on("/down", Answer::flood(GIB));
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    gateway.get("/").await;
    let before = gateway.rss_bytes();

    let (reply, mut connection, mut left) = gateway.get("/down").open().await;
    assert_eq!(reply.header("Content-Length"), Some("1073741824"));
    let sent = settled(|| origin.sent()).await;
    assert!(sent < 64 * MIB, "{sent} bytes left the backend although the client reads nothing");
    let (pattern, mut position) = (Pattern::new(), 0);
    while let Some(piece) = connection.wire.piece(&mut left, &mut Headers::default()).await.expect("no cut") {
        assert!(pattern.continues(position, &piece), "wrong bytes after {position}");
        position += piece.len() as u64;
    }
    assert_eq!(position, GIB);
    grew_little(&gateway, before, "down");

    let mut connection = gateway.connect().await;
    connection.write(format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {GIB}\r\n\r\n").as_bytes()).await;
    let mut position = 0;
    while position < GIB {
        let block = pattern.from(position, GIB - position);
        connection.write(&block).await;
        position += block.len() as u64;
    }
    assert_eq!(connection.reply("POST").await.expect("a reply").status, 200);
    let seen = origin.last();
    assert_eq!((seen.length, seen.pattern, seen.whole), (GIB, true, true));
    grew_little(&gateway, before, "up");
}

#[tokio::test]
async fn a_backend_that_does_not_read_holds_the_client_back() {
    let origin = Origin::start().await;
    origin.on("/slow", Answer::ok("done").reading_on_release());
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let mut connection = gateway.connect().await;
    let length = 256 * MIB;
    connection.write(format!("POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n").as_bytes()).await;
    let pattern = Pattern::new();
    let mut position: u64 = 0;
    // Writes until nothing is taken any more.
    let stuck = std::time::Duration::from_millis(500);
    while position < length {
        let block = pattern.from(position, (length - position).min(64 * 1024));
        use tokio::io::AsyncWriteExt;
        match tokio::time::timeout(stuck, connection.wire.stream().write(&block)).await {
            Ok(taken) => position += taken.expect("the connection stays") as u64,
            Err(_) => break,
        }
    }
    assert!(position < 64 * MIB, "{position} bytes were taken although the backend reads nothing");
    origin.release();
    while position < length {
        let block = pattern.from(position, length - position);
        connection.write(&block).await;
        position += block.len() as u64;
    }
    assert_eq!(connection.reply("POST").await.expect("a reply").text(), "done");
    assert!(origin.last().pattern && origin.last().length == length);
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_backend_request_with_it() {
    let origin = Origin::start().await;
    origin.on("/down", Answer::flood(GIB));
    origin.on("/hang", Answer::hang());
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    for path in ["/down", "/hang"] {
        let mut connection = gateway.connect().await;
        connection.write(gateway.get(path).head().as_bytes()).await;
        eventually("the backend is at it", async || (origin.open() == 1).then_some(())).await;
        drop(connection);
        eventually(&format!("{path}: the backend is free"), async || (origin.open() == 0).then_some(())).await;
    }
    gateway.counts(r#"goma_edge_request_ends_total{name="r",reason="client_gone"} 2"#).await;
}

fn grew_little(gateway: &Gateway, before: u64, way: &str) {
    let growth = gateway.rss_bytes().saturating_sub(before);
    assert!(growth < 64 * MIB, "{way}: the gateway grew by {} MiB", growth / MIB);
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

#[tokio::test]
async fn an_answer_before_the_body_ends_the_connection_soon() {
    let origin = Origin2::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let answers = ["/plain", "/refuse", "/broken"].map(async |path| {
        let mut connection = gateway.connect().await;
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhello");
        connection.write(head.as_bytes()).await;
        let since = Instant::now();
        assert_eq!(connection.reply("POST").await.expect("a reply").status, 200, "{path}: the answer is whole");
        assert_eq!(connection.closed().await, "", "{path}");
        assert!(since.elapsed() < Duration::from_secs(10), "{path}");
    });
    futures::future::join_all(answers).await;
    gateway.counts(r#"goma_edge_request_ends_total{name="r",reason="ok"} 3"#).await;
}

#[tokio::test]
async fn an_answer_before_the_body_ends_the_stream_soon() {
    let origin = Origin2::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let client = gateway.h2().await;
    let mut call = client.call(client.request("POST", "/plain").body(()).expect("a request"), false).await;
    call.send.send_data("hello".into(), false).expect("open");
    let reset = std::future::poll_fn(|cx| call.send.poll_reset(cx));
    tokio::time::timeout(PATIENCE, reset).await.expect("in time").expect("told to send no more");
    assert_eq!(call.finish().await.expect("a whole response").text(), "plain");
    gateway.counts(r#"goma_edge_request_ends_total{name="r",reason="ok"} 1"#).await;
}

#[tokio::test]
async fn an_answer_that_goes_on_leaves_the_body_its_time() {
    let origin = Origin2::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let mut connection = gateway.connect().await;
    connection.write(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").await;
    let (_, left) = connection.head("POST").await.expect("the head of a reply");
    // Longer than a body may go on after its answer.
    tokio::time::sleep(Duration::from_secs(6)).await;
    connection.write(b"world").await;
    assert_eq!(connection.wire.body(left).await.expect("a body").0, "helloworld");
}
