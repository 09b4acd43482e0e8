//! Every kind that guards or shapes, in one chain: on HTTP/1.1 and HTTP/2, for upgrades, for another attempt, for a backend that
//! fails, it does the same and does it once.

use crate::world::*;

const MIDDLEWARES: &str = "- {name: closed, type: access, paths: ['^/v1/closed']}
- {name: prefix, type: addPrefix, rule: {prefix: /v1}}
- {name: rewrite, type: rewriteRegex, rule: {pattern: '^/v1/old', replacement: /v1/new}}
- {name: strip, type: stripQuery, rule: {params: [x]}}
- {name: scheme, type: redirectScheme, rule: {scheme: http}}
- {name: moved, type: redirectRegex, rule: {pattern: '^/v1/moved$', replacement: /here}}
- {name: policy, type: accessPolicy, rule: {action: DENY, sourceRanges: [10.0.0.0/8]}}
- {name: agents, type: userAgentBlock, rule: {userAgents: [evil]}}
- {name: bots, type: botDetection}
- {name: limit, type: bodyLimit, rule: {limit: 1K}}
- {name: shield, type: exploitProtection}
- {name: tell, type: requestHeaders, rule: {setHeaders: {X-Set: 'yes'}, removeHeaders: [X-Gone]}}
- {name: dress, type: responseHeaders, rule: {setCookies: [{name: seen, value: '1'}], cacheControl: no-store, cors: {enabled: true, origins: ['https://a.example']}}}
- {name: pages, type: errorInterceptor, rule: {enabled: true, errors: [{statusCode: 404, body: nothing here}]}}
- {name: log, type: accessLog, rule: {headers: [X-Tenant]}}
- {name: small, type: compress}";
const NAMES: &str = "prefix, closed, rewrite, strip, scheme, moved, policy, agents, bots, limit, shield, tell, dress, pages, log, small";

async fn with(origin: &Origin, backends: &str) -> Gateway {
    Gateway::before(origin)
        .routes(&format!("- {{name: r, path: /, middlewares: [{NAMES}], {backends}}}"))
        .middlewares(MIDDLEWARES)
        .await
}

/// Target, `User-Agent`, status, and what the backend gets.
const ROWS: &[(&str, &str, u16, Option<&str>)] = &[
    ("/a?x=1&b=2", "", 200, Some("/v1/a?b=2")),
    ("/old/a", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", 200, Some("/v1/new/a")),
    ("/none", "", 404, Some("/v1/none")),
    ("/closed", "", 403, None),
    ("/moved", "", 302, None),
    ("/a", "an Evil one", 403, None),
    ("/a", "python-requests/2.31", 403, None),
    ("/a?q=1%27%20or%201=1--", "", 403, None),
];

fn dressed(about: &str, status: u16, field: impl Fn(&str) -> Option<String>, cookies: usize) {
    assert_eq!(field("Cache-Control").as_deref(), Some("no-store"), "{about}: {status}");
    assert_eq!(field("Access-Control-Allow-Origin").as_deref(), Some("https://a.example"), "{about}: {status}");
    assert_eq!(field("Proxied-By").as_deref(), Some("Goma Gateway"), "{about}: {status}");
    assert_eq!(cookies, 1, "{about}: {status}: set once");
}

#[tokio::test]
async fn both_versions_of_http_pass_the_same_chain() {
    let origin = Origin::start().await;
    origin.on("/v1/none", Answer::status(404).body("theirs").header("Content-Type", "text/html"));
    let gateway = with(&origin, "target: ORIGIN").await;
    let client = gateway.h2().await;
    for (target, agent, status, up) in ROWS {
        for h2 in [false, true] {
            let about = format!("{target}, HTTP/2: {h2}");
            origin.forget();
            let text = if h2 {
                let request = client.request("GET", target).header("origin", "https://a.example").header("x-gone", "1");
                let request = request.header("user-agent", *agent).body(()).expect("a request");
                let reply = client.call(request, true).await.finish().await.expect("an answer");
                assert_eq!(reply.status, *status, "{about}");
                let cookies = usize::from(reply.header("set-cookie") == Some("seen=1; Path=/; SameSite=Lax"));
                dressed(&about, *status, |name| reply.header(&name.to_lowercase()).map(str::to_owned), cookies);
                reply.text()
            } else {
                let request = gateway.get(target).header("Origin", "https://a.example").header("X-Gone", "1");
                let reply = request.header("User-Agent", agent).await;
                assert_eq!(reply.status, *status, "{about}");
                let cookies = reply.headers.all("Set-Cookie").len();
                dressed(&about, *status, |name| reply.header(name).map(str::to_owned), cookies);
                reply.text()
            };
            match up {
                None => assert!(origin.saw_nothing(), "{about}"),
                Some(up) => {
                    let seen = origin.last();
                    assert_eq!((seen.target.as_str(), seen.headers.all("X-Set")), (*up, vec!["yes"]), "{about}");
                    assert!(!seen.headers.has("X-Gone"), "{about}");
                }
            }
            assert!(*status != 404 || text == "nothing here\n", "{about}: {text}");
        }
    }
}

#[tokio::test]
async fn an_upgrade_passes_it_and_is_refused_by_it() {
    let origin = Origin::start().await;
    origin.on("/v1/new/socket", Answer::websocket());
    let gateway = with(&origin, "target: ORIGIN").await;
    let upgrade = gateway.get("/old/socket?x=1&b=2").header("X-Gone", "1");
    let mut socket = WebSocket::open(upgrade, "websocket").await.expect("a WebSocket");
    socket.echoes(&"1' or 1=1-- ".repeat(200)).await;
    let seen = origin.last();
    assert_eq!((seen.target.as_str(), seen.headers.all("X-Set")), ("/v1/new/socket?b=2", vec!["yes"]));
    for (target, agent, status, up) in ROWS.iter().filter(|row| row.3.is_none()) {
        origin.forget();
        let request = gateway.get(target).header("User-Agent", agent);
        let refused = WebSocket::open(request, "websocket").await.expect_err("no WebSocket");
        assert_eq!((refused.status, refused.header("Cache-Control")), (*status, Some("no-store")), "{target}");
        assert!(up.is_none() && origin.saw_nothing(), "{target}");
    }
}

#[tokio::test]
async fn another_attempt_gets_the_same_and_the_client_one_answer() {
    let origin = Origin::start().await;
    let dead = free_port();
    let gateway =
        with(&origin, &format!("backends: [{{endpoint: 'http://127.0.0.1:{dead}'}}, {{endpoint: ORIGIN}}]")).await;
    for _ in 0..4 {
        let reply = gateway.get("/old/a?x=1&b=2").header("Origin", "https://a.example").header("X-Gone", "1").await;
        assert_eq!(reply.status, 200);
        dressed("retry", 200, |name| reply.header(name).map(str::to_owned), reply.headers.all("Set-Cookie").len());
        let seen = origin.last();
        assert_eq!((seen.target.as_str(), seen.headers.all("X-Set")), ("/v1/new/a?b=2", vec!["yes"]));
        assert!(!seen.headers.has("X-Gone"));
    }
    let gateway = with(&origin, &format!("target: 'http://127.0.0.1:{dead}'")).await;
    let reply = gateway.get("/a").header("Origin", "https://a.example").await;
    assert_eq!(reply.status, 502);
    dressed("no backend", 502, |name| reply.header(name).map(str::to_owned), reply.headers.all("Set-Cookie").len());
}
