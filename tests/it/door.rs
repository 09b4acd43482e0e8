//! Requests that end with their head take a shorter way through the gateway than others. Nobody can tell.

use std::io::Read;

use flate2::read::GzDecoder;

use crate::world::{Answer, Gateway, Origin, Piece, free_port};

#[tokio::test]
async fn requests_of_both_ways_share_a_connection() {
    let origin = Origin::start().await;
    let routes = "- {name: plain, path: /, target: ORIGIN}
- {name: stored, path: /stored, target: ORIGIN, middlewares: [cache]}";
    let cache = "- {name: cache, type: httpCache, paths: ['/*'], rule: {maxTtl: 60}}";
    let gateway = Gateway::before(&origin).routes(routes).middlewares(cache).await;
    origin.on("/stored", Answer::ok("stored").header("Cache-Control", "max-age=60"));
    origin.on("/chunks", Answer::pieces([Piece::Data("one".into()), Piece::Data("two".into())]));
    origin.always(Answer::ok("plain"));
    let mut connection = gateway.connect().await;
    for round in 0..3 {
        for (method, path, text) in [
            ("GET", "/", "plain"),
            ("GET", "/stored", "stored"),
            ("HEAD", "/", ""),
            ("GET", "/chunks", "onetwo"),
            ("POST", "/", "plain"),
            ("HEAD", "/stored", ""),
            ("OPTIONS", "/", "plain"),
        ] {
            let body = if method == "POST" { "x".repeat(10_000) } else { String::new() };
            let mut request = gateway.request(method, path);
            if !body.is_empty() {
                request = request.body(body);
            }
            let reply = connection.send(request).await;
            assert_eq!((reply.status, reply.text().as_str()), (200, text), "{method} {path}, round {round}");
            assert!(reply.keeps_alive(), "{method} {path}");
            assert_eq!(reply.headers.all("Date").len(), 1, "{method} {path}");
            assert_eq!(reply.headers.all("Connection"), ["keep-alive"], "{method} {path}");
        }
    }
    let stored = origin.seen().iter().filter(|seen| seen.target == "/stored").count();
    assert_eq!(stored, 1, "the rest came from the cache");
    let parting = connection.send(gateway.get("/").header("Connection", "close")).await;
    assert_eq!(parting.headers.all("Connection"), ["close"]);
    assert_eq!(connection.closed().await, "", "and nothing behind it");
}

#[tokio::test]
async fn requests_that_come_at_once_are_answered_in_turn() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes("- {name: r, path: /, target: ORIGIN}").await;
    for path in ["/a", "/b", "/c", "/d"] {
        origin.on(path, Answer::ok(path));
    }
    let mut connection = gateway.connect().await;
    let requests = "GET /a HTTP/1.1\r\nHost: x\r\n\r\nPOST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello\
         GET /c HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\nGET /d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n\
         GET /e HTTP/1.1\r\nHost: x\r\n\r\n";
    connection.write(requests.as_bytes()).await;
    let answers = connection.closed().await;
    let places: Vec<_> = ["/a", "/b", "/c", "/d"].map(|path| answers.find(&format!("\r\n\r\n{path}"))).to_vec();
    assert!(places.is_sorted() && places.iter().all(Option::is_some), "{answers}");
    assert_eq!(origin.seen().len(), 4, "nothing behind the last one that the client wanted: {answers}");
}

#[tokio::test]
async fn a_refusal_takes_a_small_body_and_keeps_the_connection() {
    let origin = Origin::start().await;
    let routes = "- {name: r, path: /r, methods: [GET], target: ORIGIN}\n- {name: m, path: /m, maintenance: {enabled: true}, target: ORIGIN}";
    let gateway = Gateway::before(&origin).routes(routes).await;
    let mut connection = gateway.connect().await;
    for (path, status) in [("/nowhere", 404), ("/r", 405), ("/m", 503), ("/healthz", 405)] {
        let reply = connection.send(gateway.post(path).body("hello")).await;
        assert_eq!((reply.status, reply.keeps_alive()), (status, true), "{path}");
        let reply = connection.send(gateway.post(path).chunks(&["hel", "lo"])).await;
        assert_eq!((reply.status, reply.keeps_alive()), (status, true), "{path} in chunks");
    }
    assert_eq!(connection.send(gateway.get("/r")).await.status, 200);
    assert_eq!(origin.seen().len(), 1);

    for (about, body) in [("large", "Content-Length: 300000\r\n\r\n"), ("late", "Content-Length: 9\r\n\r\nhalf")] {
        let answer = gateway.raw(format!("POST /r HTTP/1.1\r\nHost: a\r\n{body}").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("Connection: close\r\n"), "{about}: {answer}");
    }
}

/// A request without a body has nothing to wait for.
#[tokio::test]
async fn an_expectation_that_a_middleware_sets_stays_here() {
    let origin = Origin::start().await;
    let rule = "- {name: expects, type: requestHeaders, rule: {setHeaders: {Expect: 100-continue, X-Set: y}}}";
    let routes = "- {name: r, path: /, target: ORIGIN, middlewares: [expects]}";
    let gateway = Gateway::before(&origin).routes(routes).middlewares(rule).await;
    let reply = gateway.get("/").await;
    assert_eq!((reply.status, reply.interim.len()), (200, 0));
    let seen = origin.last();
    assert_eq!((seen.header("X-Set"), seen.header("Expect")), (Some("y"), None));
}

#[tokio::test]
async fn an_error_in_answer_to_head_has_an_end_on_http2() {
    let origin = Origin::start().await;
    let closed = free_port();
    let routes = "- {name: r, path: /, target: 'http://127.0.0.1:CLOSED'}";
    let gateway = Gateway::before(&origin).word("CLOSED", &closed).routes(routes).await;
    let client = gateway.h2().await;
    let head = client.request("HEAD", "/").body(()).expect("a request");
    let reply = client.call(head, true).await.finish().await.expect("a whole response");
    assert_eq!((reply.status, reply.body.len()), (502, 0));
}

#[tokio::test]
async fn a_request_is_not_repeated_once_the_client_has_hints() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes("- {name: r, path: /, target: ORIGIN}").await;
    assert_eq!(gateway.get("/warm").await.status, 200);
    origin.on("/hints", Answer::raw("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").closing());
    let reply = gateway.get("/hints").await;
    assert_eq!((reply.status, reply.interim.len()), (502, 1));
    assert_eq!(origin.seen().iter().filter(|seen| seen.target == "/hints").count(), 1);
}

/// What a compressor lets out goes to the client, whoever else waits for the rest.
#[tokio::test]
async fn a_reader_of_a_growing_entry_gets_its_pieces_as_they_come() {
    let origin = Origin::start().await;
    let rules = "- {name: cache, type: httpCache, paths: ['/*'], rule: {maxTtl: 60}}
- {name: pack, type: compress, rule: {minSize: 1}}";
    let routes = "- {name: r, path: /, target: ORIGIN, middlewares: [pack, cache]}";
    let gateway = Gateway::before(&origin).routes(routes).middlewares(rules).await;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: max-age=60\r\nContent-Length: 9\r\n\r\n";
    origin.always(Answer::raw_held(&[&format!("{head}first"), "last"]));
    let asks = || gateway.get("/").header("Accept-Encoding", "gzip");
    let (first, mut one, left_one) = asks().open().await;
    let (second, mut two, left_two) = asks().open().await;
    assert_eq!((first.status, second.status), (200, 200), "both have a head while the page grows");
    origin.release();
    let ends = [one.wire.body(left_one).await, two.wire.body(left_two).await];
    let ends = ends.map(|body| body.expect("an end").0);
    assert_eq!(ends[0], ends[1]);
    let mut page = String::new();
    GzDecoder::new(&ends[0][..]).read_to_string(&mut page).expect("a whole page");
    assert_eq!(page, "firstlast");
    assert_eq!(origin.seen().len(), 1);
}
