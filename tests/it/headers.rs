//! What headers the backend and the client get, and whose word on addresses counts.

use crate::world::*;

const PLAIN: &str = "- {name: r, path: /, target: ORIGIN}";

#[tokio::test]
async fn forwarded_headers_are_ours_whatever_the_client_says() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes(PLAIN).await;
    let claims = [
        ("X-Forwarded-For", "9.9.9.9"),
        ("X-Real-IP", "9.9.9.9"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil.test"),
        ("X-Forwarded-Port", "9999"),
        ("Forwarded", "for=9.9.9.9;proto=https;host=evil.test"),
        ("X_Forwarded_For", "9.9.9.9"),
        ("x_real_ip", "9.9.9.9"),
        ("X-Forwarded_For", "9.9.9.9"),
        ("X_Forwarded-Proto", "https"),
    ];
    let request = claims.iter().fold(gateway.get("/"), |request, (name, value)| request.header(name, value));
    request.host("Api.Example.com").await;

    let seen = origin.last();
    assert_eq!(seen.headers.all("X-Real-IP"), ["127.0.0.1"]);
    assert_eq!(seen.headers.all("X-Forwarded-For"), ["127.0.0.1, 127.0.0.1"]);
    assert_eq!(seen.headers.all("X-Forwarded-Proto"), ["http"]);
    assert_eq!(seen.headers.all("X-Forwarded-Host"), ["Api.Example.com"]);
    for (name, value) in &seen.headers.0 {
        for claim in ["9.9.9.9", "evil.test", "9999", "https"] {
            assert!(!value.contains(claim), "the client's claim reached the backend: {name}: {value}");
        }
    }
}

#[tokio::test]
async fn the_host_is_forwarded_unless_turned_off() {
    for (route, ours) in [
        ("", false),
        ("security: {forwardHostHeaders: true}", false),
        ("security: {tls: {insecureSkipVerify: false}}", false),
        ("security: {forwardHostHeaders: false}", true),
        ("disableHostForwarding: true", true),
    ] {
        let origin = Origin::start().await;
        let routes = format!("- {{name: r, path: /, target: ORIGIN, {route}}}");
        let gateway = Gateway::before(&origin).routes(&routes).await;
        gateway.get("/").host("Api.Example.com").await;
        let host = if ours { origin.authority() } else { "Api.Example.com".to_owned() };
        assert_eq!(origin.last().headers.all("Host"), [host], "{route}");
        assert_eq!(origin.last().header("X-Forwarded-Host"), Some("Api.Example.com"), "{route}");
    }
}

#[tokio::test]
async fn the_client_address_is_the_first_that_no_trusted_proxy_wrote() {
    const LOCAL: &str = "enabled: true, trustedProxies: [127.0.0.0/8, 10.0.0.0/8]";
    let rows = [
        ("proxy off", "enabled: false", ("X-Forwarded-For", "1.2.3.4"), "127.0.0.1"),
        (
            "the first header that is there counts",
            "enabled: true, trustedProxies: [127.0.0.0/8], ipHeaders: [CF-Connecting-IP, X-Forwarded-For]",
            ("CF-Connecting-IP", "203.0.113.5"),
            "203.0.113.5",
        ),
        (
            "an untrusted peer is the client",
            "enabled: true, trustedProxies: [10.0.0.0/8]",
            ("X-Forwarded-For", "1.2.3.4"),
            "127.0.0.1",
        ),
        ("trusted hops are skipped", LOCAL, ("X-Forwarded-For", "6.6.6.6, 1.2.3.4, 10.0.0.9"), "1.2.3.4"),
        ("what the client wrote itself does not count", LOCAL, ("X-Forwarded-For", "6.6.6.6, 1.2.3.4"), "1.2.3.4"),
        ("X-Real-IP is asked as well", LOCAL, ("X-Real-IP", "1.2.3.4"), "1.2.3.4"),
        ("no list trusts one hop", "enabled: true", ("X-Forwarded-For", "6.6.6.6, 1.2.3.4"), "1.2.3.4"),
        ("what is no address is no client", LOCAL, ("X-Forwarded-For", "junk"), "127.0.0.1"),
        ("IPv6 as well", LOCAL, ("X-Forwarded-For", "2001:db8::7"), "2001:db8::7"),
        ("without the header the peer is the client", LOCAL, ("X-Other", "1"), "127.0.0.1"),
    ];
    for (about, proxy, (name, value), client) in rows {
        let origin = Origin::start().await;
        let gateway = Gateway::before(&origin).gateway(&format!("proxy: {{{proxy}}}")).routes(PLAIN).await;
        gateway.get("/").header(name, value).await;
        let seen = origin.last();
        assert_eq!(seen.headers.all("X-Real-IP"), [client], "{about}");
        assert_eq!(seen.headers.all("X-Forwarded-For"), [format!("{client}, 127.0.0.1")], "{about}");
    }
}

#[tokio::test]
async fn a_trusted_proxy_may_say_the_scheme() {
    let origin = Origin::start().await;
    let proxy = "proxy: {enabled: true, trustedProxies: [127.0.0.1]}";
    let gateway = Gateway::before(&origin).gateway(proxy).routes(PLAIN).await;
    gateway.get("/").header("X-Forwarded-Proto", "HTTPS").await;
    assert_eq!(origin.last().headers.all("X-Forwarded-Proto"), ["https"]);
}

#[tokio::test]
async fn hop_by_hop_headers_end_here_in_both_directions() {
    let origin = Origin::start().await;
    let answer = Answer::ok("x").header("Connection", "X-Hop").header("X-Hop", "1").header("Keep-Alive", "timeout=5");
    origin.on("/reply", answer.header("Proxy-Authenticate", "Basic").header("X-End", "1"));
    let gateway = Gateway::before(&origin).routes(PLAIN).await;

    let request = gateway.get("/").header("Connection", "keep-alive, X-Secret").header("X-Secret", "1");
    let request = request.header("Keep-Alive", "5").header("Proxy-Connection", "x").header("Proxy-Authorization", "x");
    request.header("TE", "trailers, deflate").header("X-Public", "1").await;
    let seen = origin.last();
    for name in ["X-Secret", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Upgrade", "Trailer"] {
        assert!(!seen.headers.has(name), "{name} reached the backend");
    }
    assert_eq!(seen.header("X-Public"), Some("1"));
    assert_eq!(seen.headers.all("TE"), ["trailers"]);

    let reply = gateway.get("/reply").await;
    for name in ["X-Hop", "Keep-Alive", "Proxy-Authenticate"] {
        assert!(!reply.headers.has(name), "{name} reached the client");
    }
    assert_eq!(reply.header("X-End"), Some("1"));
}

#[tokio::test]
async fn other_headers_pass_untouched_in_their_order() {
    let origin = Origin::start().await;
    origin.on("/cookies", Answer::ok("x").header("Set-Cookie", "a=1").header("Set-Cookie", "b=2"));
    let gateway = Gateway::before(&origin).routes(PLAIN).await;
    let request = gateway.get("/").header("X-A", "1").header("X-A", "2").header("Cookie", "a=b; c=\u{fc}");
    request.header("X-Request-ID", "mine").header("X-Empty", "").await;
    let seen = origin.last();
    assert_eq!(seen.headers.all("X-A"), ["1", "2"]);
    assert_eq!(seen.header("X-Request-ID"), Some("mine"));
    assert_eq!(seen.header("X-Empty"), Some(""));
    assert!(!seen.headers.has("User-Agent"), "no User-Agent is invented");
    assert!(!seen.headers.has("X-Goma-Request-ID"), "the request id stays here");
    assert_eq!(gateway.get("/cookies").await.headers.all("Set-Cookie"), ["a=1", "b=2"]);
}

#[tokio::test]
async fn an_old_client_that_names_no_host_asks_for_that_of_the_backend() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes(PLAIN).await;
    for request in ["GET / HTTP/1.0\r\n\r\n", "POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi"] {
        gateway.raw(request.as_bytes()).await;
        let seen = origin.last();
        assert_eq!(seen.headers.all("Host"), [origin.authority()], "{request}");
        assert!(!seen.headers.has("X-Forwarded-Host"), "{request}");
    }
}

#[tokio::test]
async fn every_routed_answer_names_the_gateway_and_the_request() {
    let origin = Origin::start().await;
    origin.always(Answer::ok("x").header("Server", "nginx").header("Proxied-By", "someone"));
    let gateway = Gateway::before(&origin).routes(PLAIN).await;

    let reply = gateway.get("/").await;
    assert!(!reply.headers.has("Server"));
    assert_eq!(reply.headers.all("Proxied-By"), ["Goma Gateway"]);
    let id = reply.header("X-Goma-Request-ID").expect("a request id");
    let hex = id.len() == 32 && id.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
    assert!(hex, "32 lower-case hex digits, not {id}");
    let reply = gateway.get("/").header("X-Request-ID", "abc-123").await;
    assert_eq!(reply.header("X-Goma-Request-ID"), Some("abc-123"));
}

#[tokio::test]
async fn a_request_id_that_is_no_id_is_replaced() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes(PLAIN).await;
    for bad in ["x".repeat(5000), "a b\"c".to_owned(), "\u{e9}\u{e9}".to_owned()] {
        let reply = gateway.get("/").header("X-Request-ID", &bad).await;
        let id = reply.header("X-Goma-Request-ID").expect("a request id");
        assert!(reply.status == 200 && id != bad && id.len() == 32, "{id}");
    }
}
