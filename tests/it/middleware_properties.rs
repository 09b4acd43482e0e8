//! Whatever a client and a backend send: no middleware panics, loops, or makes much out of little.
//!
//! Every kind takes part, with the configuration of its example and with what [`MORE`] says.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use goma_edge::config::{self, Env, Source};
use goma_edge::exchange::{Exchange, Reason, RequestId};
use goma_edge::gate;
use goma_edge::middleware::chain::{self, Chain, Said};
use goma_edge::middleware::cors::Asked;
use goma_edge::middleware::{Answering, KINDS};
use goma_edge::snapshot::{Snapshot, Workshop, build};
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora_http::{RequestHeader, ResponseHeader};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

/// Settings that are worth a try beside the example of a kind: type and rule.
const MORE: &[(&str, &str)] = &[
    ("rewriteRegex", "{pattern: '', replacement: 'x'}"),
    ("rewriteRegex", "{pattern: '[a-z]', replacement: '{{goma.headers.X-A}}$0{{goma.query.a}}'}"),
    ("rewriteRegex", "{pattern: '(?:(/)|(.))*', replacement: '$2$1/'}"),
    ("redirectRegex", "{pattern: '(.*)', replacement: '$1$1'}"),
    ("redirectRegex", "{pattern: '.', replacement: 'https://$0.n.example/$0'}"),
    ("redirect", "{url: '../a/./b'}"),
    ("redirectScheme", "{scheme: https, port: 8443}"),
    ("stripQuery", "{params: [a, ''], pathPattern: '/(a|%2F)'}"),
    ("bodyLimit", "{limit: 0K}"),
    ("bodyLimit", "{limit: 100K}"),
    ("requestHeaders", "{setHeaders: {X-A: b, Cookie: '', X-Forwarded-Proto: https}, removeHeaders: [Accept]}"),
    ("responseHeaders", "{setHeaders: {X-A: '{route.path}', Vary: ''}, cors: {enabled: true, origins: ['*']}}"),
    ("accessLog", "{headers: [X-A, Cookie], query: [a, b], cookies: [a]}"),
    ("addPrefix", "{prefix: /a%2Fb}"),
];

/// A request with its body, and a backend's response to it.
#[derive(Clone, Debug)]
struct Scene {
    method: &'static str,
    path: String,
    query: Option<String>,
    host: &'static str,
    headers: Vec<(&'static str, Vec<u8>)>,
    body: Vec<Vec<u8>>,
    status: u16,
    answered: Vec<(&'static str, Vec<u8>)>,
}

#[test]
fn no_middleware_panics_loops_or_makes_much_out_of_little() {
    let examples = KINDS.iter().map(|kind| (kind.names[0].to_owned(), kind.example.to_owned()));
    let more = MORE.iter().map(|(kind, rule)| (format!("{kind} {rule}"), document(kind, rule)));
    for (about, text) in examples.chain(more) {
        // A pattern that finds nothing to look for is refused.
        let Some(snapshot) = compiled(&about, &text) else { continue };
        let mut runner = TestRunner::new(Config { cases: 96, failure_persistence: None, ..Config::default() });
        let played = runner.run(&scene(), |scene| {
            for route in &snapshot.routes {
                play(&route.chain, &scene).map_err(TestCaseError::fail)?;
            }
            Ok(())
        });
        played.unwrap_or_else(|error| panic!("{about}: {error}"));
    }
}

fn document(kind: &str, rule: &str) -> String {
    format!(
        "gateway:\n  routes:\n    - {{name: r, path: /, target: 'http://127.0.0.1:9', middlewares: [m]}}\n\
         middlewares:\n  - {{name: m, type: {kind}, paths: [/a, '^/[^/]*b'], rule: {rule}}}\n"
    )
}

/// `None` for what is refused.
fn compiled(about: &str, text: &str) -> Option<Snapshot> {
    let folder = tempfile::tempdir().expect("a folder");
    let path: PathBuf = folder.path().join("goma.yml");
    let text = text.replace("${BOB_PASSWORD_HASH}", "pw");
    std::fs::write(&path, text).expect("a writable file");
    let source = Source { path: Some(path), env: Env::default() };
    let examined = config::examine(&source);
    let workshop = Workshop::detached(&examined.loaded.config, &source.env);
    match build(examined, &workshop) {
        Ok((snapshot, _)) => Some(snapshot),
        Err(report) => {
            assert!(about.contains("pattern: ''"), "{about}: {report}");
            None
        }
    }
}

fn asks_somebody(chain: &Chain, scene: &Scene) -> bool {
    let (Some(mut exchange), Some(mut head)) = (exchange(scene), head(scene)) else { return false };
    chain.rehearse(&mut exchange, &mut head).iter().any(|(_, said)| matches!(said, Said::MustAsk))
}

fn play(chain: &Chain, scene: &Scene) -> Result<(), String> {
    let (Some(mut exchange), Some(mut head)) = (exchange(scene), head(scene)) else { return Ok(()) };
    let asked = exchange.path.clone();
    let begun = Instant::now();
    if asks_somebody(chain, scene) {
        // What another server would say is the story of the kind itself.
        return Ok(());
    }
    let (ran, verdict) = futures::executor::block_on(chain.request(&mut exchange, &mut head));
    within("path", exchange.path.len(), scene)?;
    within("query", exchange.query.as_ref().map_or(0, String::len), scene)?;
    within("request head", size(&head.headers), scene)?;
    if let Some((_, verdict)) = &verdict {
        within("reply", verdict.reply.content(&head.headers).1.len(), scene)?;
        if verdict.reply.headers.iter().any(|(_, value)| value.as_bytes().iter().any(u8::is_ascii_control)) {
            return Err("a control character in a header of the reply".to_owned());
        }
    } else if gate::path(&exchange.path).is_err() {
        return Err(format!("the path {:?} would not pass the gate", exchange.path));
    }
    body(chain, &exchange, &head, scene)?;
    let mut answer = ResponseHeader::build(scene.status, None).map_err(|error| error.to_string())?;
    for (name, value) in &scene.answered {
        let _ = answer.append_header(*name, HeaderValue::from_bytes(value).map_err(|error| error.to_string())?);
    }
    chain.response(ran, &exchange, &mut answer);
    let origin = Asked::of(&head);
    let answering =
        Answering { asked: &asked, sent: &exchange.path, origin: origin.as_deref(), proxied: verdict.is_none() };
    chain.shell.apply(&answering, &mut answer);
    within("response head", size(&answer.headers), scene)?;
    let fields = chain.shell.log_fields(&head, exchange.query.as_deref());
    within("log fields", fields.iter().map(|(name, value)| name.len() + value.len()).sum(), scene)?;
    match begun.elapsed() {
        elapsed if elapsed > LONGEST => Err(format!("took {elapsed:?}")),
        _ => Ok(()),
    }
}

fn body(chain: &Chain, exchange: &Exchange, head: &RequestHeader, scene: &Scene) -> Result<(), String> {
    let mut watches = chain.watches(exchange, head);
    let mut sent = 0;
    for (index, chunk) in scene.body.iter().enumerate() {
        match chain::watch(&mut watches, Bytes::from(chunk.clone()), index + 1 == scene.body.len()) {
            Ok(chunk) => sent += chunk.len(),
            Err(_) => return Ok(()),
        }
    }
    let length = scene.body.iter().map(Vec::len).sum::<usize>();
    match sent == length {
        true => Ok(()),
        false => Err(format!("{sent} bytes of a body of {length} went on")),
    }
}

/// Debug builds on a busy machine are slow; what loops takes longer still.
const LONGEST: Duration = Duration::from_secs(5);

/// No more than what came in, twice over, and the bound of a rewritten path.
fn within(what: &str, length: usize, scene: &Scene) -> Result<(), String> {
    let came = |fields: &[(&str, Vec<u8>)]| fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    let query = scene.query.as_ref().map_or(0, String::len);
    let came = came(&scene.headers) + came(&scene.answered) + scene.path.len() + 3 * query;
    match length <= 2 * came + (80 << 10) {
        true => Ok(()),
        false => Err(format!("{what}: {length} bytes out of {came}")),
    }
}

fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// `None` for a path that the gate refuses.
fn exchange(scene: &Scene) -> Option<Exchange> {
    gate::path(&scene.path).ok()?;
    Some(Exchange {
        id: RequestId::take(None),
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        scheme: "http",
        method: scene.method.parse().ok()?,
        host: scene.host.to_owned(),
        path: scene.path.clone(),
        query: scene.query.clone(),
        started: Instant::now(),
        upstream_time: None,
        attempts: 0,
        held: Vec::new(),
        claims: None,
        limits: Vec::new(),
        cookies: Vec::new(),
        reason: Reason::Ok,
        why: Cow::Borrowed(""),
    })
}

fn head(scene: &Scene) -> Option<RequestHeader> {
    let target = scene.query.as_ref().map_or_else(|| scene.path.clone(), |query| format!("{}?{query}", scene.path));
    let mut head = RequestHeader::build(scene.method, target.as_bytes(), None).ok()?;
    head.append_header("Host", scene.host).ok()?;
    for (name, value) in &scene.headers {
        head.append_header(HeaderName::from_static(name), HeaderValue::from_bytes(value).ok()?).ok()?;
    }
    Some(head)
}

fn scene() -> impl Strategy<Value = Scene> {
    let method = select(&["GET", "HEAD", "POST", "OPTIONS", "PATCH", "PURGE"][..]);
    let host = select(&["a.test", "a.test:8080", "[::1]:80", "", "127.0.0.1"][..]);
    let request = (method, path(), proptest::option::of(query()), host, fields(REQUEST), chunks());
    let response = (select(&[200, 204, 206, 301, 304, 404, 500, 503][..]), fields(RESPONSE));
    (request, response).prop_map(|((method, path, query, host, headers, body), (status, answered))| Scene {
        method,
        path,
        query,
        host,
        headers,
        body,
        status,
        answered,
    })
}

fn path() -> impl Strategy<Value = String> {
    let pieces = select(
        &[
            "/",
            "//",
            "a",
            "b",
            "A",
            "admin",
            "v1",
            ".",
            "%2F",
            "%2f",
            "%61",
            "%25",
            "%ff",
            "%C3%A9",
            "é",
            "\\",
            ":",
            "@",
            ";",
            "x.php",
            "{{goma.headers.X-A}}",
            "$1",
            "http://",
            "evil.test",
            ".well-known",
            "\u{2028}",
        ][..],
    );
    let made = vec(pieces, 0..24).prop_map(|pieces| format!("/{}", pieces.concat()));
    let long = (select(&["a", "/a", "%61", "é", "/", "%C3%A9"][..]), 0_usize..4000);
    prop_oneof![made, long.prop_map(|(piece, times)| format!("/{}", piece.repeat(times))), "/[!-~]{0,60}"]
}

fn query() -> impl Strategy<Value = String> {
    let pieces = select(
        &["a", "b", "utm_source", "=", "=", "&", "&", "+", "%20", "%", "%ff", ";", "?", "é", "<script>", "'or 1=1--"][..],
    );
    prop_oneof![vec(pieces, 0..40).prop_map(|pieces| pieces.concat()), "[!-~]{0,80}"]
}

const REQUEST: &[&str] = &[
    "x-a",
    "x-tenant",
    "x-debug",
    "cookie",
    "accept",
    "accept-encoding",
    "content-type",
    "content-length",
    "origin",
    "access-control-request-method",
    "access-control-request-headers",
    "user-agent",
    "authorization",
    "x-forwarded-proto",
    "x-forwarded-for",
    "referer",
    "range",
    "if-none-match",
    "upgrade",
];

const RESPONSE: &[&str] = &[
    "content-type",
    "content-length",
    "content-encoding",
    "vary",
    "etag",
    "cache-control",
    "set-cookie",
    "location",
    "access-control-allow-origin",
    "x-a",
    "content-range",
];

fn fields(names: &'static [&'static str]) -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    let value = prop_oneof![
        "[ -~]{0,40}".prop_map(String::into_bytes),
        vec(prop_oneof![Just(b'\t'), 0x20_u8..0x7f, 0x80_u8..=0xff], 0..40),
        select(
            &[
                "gzip, br;q=0.5",
                "text/html",
                "application/json",
                "application/x-www-form-urlencoded",
                "https://app.example.com",
                "null",
                "5",
                "a=1; theme=dark",
                "websocket",
                "Googlebot/2.1",
                "curl/8",
                "..",
                "../../x",
                "W/\"x\"",
                "bytes=0-1",
            ][..]
        )
        .prop_map(|text| text.as_bytes().to_vec()),
        (select(&["x", "%", "a=1;", ",", "é", "<"][..]), 0_usize..3000)
            .prop_map(|(piece, times)| piece.repeat(times).into_bytes()),
    ];
    vec((select(names), value), 0..10)
}

fn chunks() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let text = select(&["a=1&b=<script>", "{\"a\": [1, \"'or 1=1--\"", "<a><b>", "[[[[[[[[", "%%%%", "\0\u{ff}"][..]);
    let chunk = prop_oneof![
        vec(any::<u8>(), 0..200),
        (text, 0_usize..2000).prop_map(|(text, times)| text.repeat(times).into_bytes()),
    ];
    vec(chunk, 0..6)
}
