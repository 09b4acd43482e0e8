//! TLS on `webSecure`: which certificate a client sees, what it may speak, and that everything behind it is as without.

use bytes::Bytes;

use crate::world::*;

const ROUTE: &str = "- {name: r, path: /, target: ORIGIN}";

/// Keys of `gateway.tls` for a certificate in the files `one.crt` and `one.key`.
const ONE: &str = "tls: {certificates: [{cert: FOLDER/one.crt, key: FOLDER/one.key}]}";

/// A gateway with one certificate for these names, and who signed it.
async fn gateway(origin: &Origin, names: &[&str], keys: &str) -> (Gateway, Authority) {
    let authority = Authority::new();
    let identity = authority.certify(names);
    let gateway = Gateway::before(origin)
        .gateway(&format!("{ONE}\n{keys}"))
        .file("one.crt", &identity.certificate)
        .file("one.key", &identity.key)
        .routes(ROUTE)
        .await;
    (gateway, authority)
}

#[tokio::test]
async fn a_name_gets_its_certificate() {
    let (origin, authority) = (Origin::start().await, Authority::new());
    let identities = [
        ("exact", authority.certify(&["a.one.test", "second.test"])),
        ("wild", authority.certify(&["*.one.test"])),
        ("rest", authority.certify(&["default.test"])),
    ];
    let mut builder = Gateway::before(&origin).gateway(
        "tls:\n  certificates:\n  - {cert: FOLDER/wild.crt, key: FOLDER/wild.key}\n  - {cert: FOLDER/exact.crt, key: \
         FOLDER/exact.key}\n  default: {cert: FOLDER/rest.crt, key: FOLDER/rest.key}",
    );
    for (name, identity) in &identities {
        builder = builder.file(&format!("{name}.crt"), &identity.certificate);
        builder = builder.file(&format!("{name}.key"), &identity.key);
    }
    let gateway = builder.routes(ROUTE).await;
    for (asked, seen) in [
        ("a.one.test", "a.one.test"),
        ("A.ONE.test", "a.one.test"),
        ("second.test", "a.one.test"),
        ("b.one.test", "*.one.test"),
        ("one.test", "default.test"),
        ("deep.b.one.test", "default.test"),
        ("elsewhere.test", "default.test"),
        ("127.0.0.1", "default.test"),
    ] {
        let shaken = TlsClient::trusting(&authority).name(asked).shakes(gateway.secure_port()).await;
        assert_eq!(shaken.names[0], seen, "for {asked}");
        assert!(shaken.reply.starts_with("HTTP/1.1 200") && shaken.clean, "{shaken:?}");
    }
}

#[tokio::test]
async fn without_a_certificate_there_is_one_that_signed_itself() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let shaken = TlsClient::careless().shakes(gateway.secure_port()).await;
    assert!(shaken.names.is_empty() && shaken.reply.starts_with("HTTP/1.1 200"), "{shaken:?}");
}

#[tokio::test]
async fn a_name_may_have_a_certificate_for_each_kind_of_key() {
    let (origin, authority) = (Origin::start().await, Authority::new());
    let (rsa, ecdsa) = (authority.certify_rsa(&["a.test"]), authority.certify(&["a.test"]));
    let gateway = Gateway::before(&origin)
        .gateway("tls: {certificates: [{cert: FOLDER/rsa.crt, key: FOLDER/rsa.key}, {cert: FOLDER/ec.crt, key: FOLDER/ec.key}]}")
        .file("rsa.crt", &rsa.certificate)
        .file("rsa.key", &rsa.key)
        .file("ec.crt", &ecdsa.certificate)
        .file("ec.key", &ecdsa.key)
        .routes(ROUTE)
        .await;
    let client = TlsClient::trusting(&authority).name("a.test");
    assert!(!client.shakes(gateway.secure_port()).await.rsa, "the cheaper one is preferred");
    assert!(client.rsa_alone().shakes(gateway.secure_port()).await.rsa, "a client that takes RSA alone gets it");
}

#[tokio::test]
async fn both_versions_are_spoken_unless_told_otherwise() {
    let origin = Origin::start().await;
    for (keys, old) in [("", true), ("tls: {minVersion: 1.3}", false)] {
        let gateway = Gateway::before(&origin).gateway(keys).routes(ROUTE).await;
        let client = TlsClient::careless();
        let shaken = client.shakes(gateway.secure_port()).await;
        assert_eq!(format!("{:?} {:?}", shaken.version, shaken.suite), "TLSv1_3 TLS13_AES_128_GCM_SHA256");
        match old {
            true => {
                let shaken = client.old().shakes(gateway.secure_port()).await;
                assert_eq!(format!("{:?}", shaken.version), "TLSv1_2");
            }
            false => {
                let why = client.old().is_refused(gateway.secure_port()).await;
                assert!(why.contains("ProtocolVersion"), "{why}");
                gateway.counts(r#"goma_edge_tls_handshakes_total{result="failed"} 1"#).await;
            }
        }
    }
}

#[tokio::test]
async fn the_protocol_is_agreed_upon_in_the_handshake() {
    let origin = Origin::start().await;
    let both = &["h2", "http/1.1"][..];
    for (keys, offered, agreed) in [
        ("", both, Some("h2")),
        ("", &["http/1.1"], Some("http/1.1")),
        ("", &[], None),
        ("tls: {alpn: [http/1.1]}", both, Some("http/1.1")),
        ("tls: {alpn: []}", both, None),
    ] {
        let gateway = Gateway::before(&origin).gateway(keys).routes(ROUTE).await;
        let shaken = TlsClient::careless().offers(offered).shakes(gateway.secure_port()).await;
        assert_eq!(shaken.protocol.as_deref(), agreed, "{keys} {offered:?}");
    }
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let why = TlsClient::careless().offers(&["unheard/of"]).is_refused(gateway.secure_port()).await;
    assert!(why.contains("NoApplicationProtocol"), "{why}");
}

#[tokio::test]
async fn clients_come_back_without_a_whole_handshake() {
    let origin = Origin::start().await;
    let (gateway, authority) = gateway(&origin, &["gateway.test"], "").await;
    for client in [TlsClient::trusting(&authority), TlsClient::trusting(&authority).old()] {
        assert!(!client.shakes(gateway.secure_port()).await.resumed);
        assert!(client.shakes(gateway.secure_port()).await.resumed);
        assert_eq!(
            gateway.reload_with(&document(ONE, "- {name: r2, path: /, target: ORIGIN}", "")).await,
            Applied::New
        );
        assert!(client.shakes(gateway.secure_port()).await.resumed, "a reload costs no sessions");
        assert_eq!(gateway.reload_with(&document(ONE, ROUTE, "")).await, Applied::New);
    }
    gateway.counts(r#"goma_edge_tls_handshakes_total{result="full"} 2"#).await;
    gateway.counts(r#"goma_edge_tls_handshakes_total{result="resumed"} 4"#).await;
}

#[tokio::test]
async fn backends_hear_that_the_client_spoke_tls() {
    let origin = Origin::start().await;
    let (gateway, authority) = gateway(&origin, &["gateway.test"], "").await;
    let tunnel = gateway.through(&TlsClient::trusting(&authority)).await;
    let reply = tunnel.get("/a?b").header("X-Forwarded-Proto", "http").header("X-Client-Cert", "forged").await;
    assert_eq!(reply.status, 200);
    let seen = origin.last();
    assert_eq!(seen.target, "/a?b");
    assert_eq!(seen.headers.one("X-Forwarded-Proto"), Some("https"));
    assert_eq!(seen.headers.one("X-Forwarded-Host"), Some("gateway.test"));
    assert!(!seen.headers.has("X-Client-Cert"), "nobody proved anything");
    gateway.get("/").await;
    assert_eq!(origin.last().headers.one("X-Forwarded-Proto"), Some("http"));
}

#[tokio::test]
async fn a_connection_is_kept_and_requests_may_follow_at_once() {
    let origin = Origin::start().await;
    let (gateway, authority) = gateway(&origin, &["gateway.test"], "").await;
    let tunnel = gateway.through(&TlsClient::trusting(&authority)).await;
    let mut connection = tunnel.connect().await;
    for path in ["/1", "/2"] {
        assert_eq!(connection.send(tunnel.get(path)).await.status, 200);
    }
    // Pipelined: one record holds both.
    let request = |path: &str| tunnel.get(path).head();
    connection.write(format!("{}{}", request("/3"), request("/4")).as_bytes()).await;
    for path in ["/3", "/4"] {
        assert_eq!(connection.reply("GET").await.expect("a reply").status, 200, "{path}");
    }
    assert_eq!(origin.last().target, "/4");
    gateway.counts(r#"goma_edge_connections{entry_point="webSecure"} 1"#).await;
}

#[tokio::test]
async fn large_bodies_pass_both_ways() {
    let origin = Origin::start().await;
    let (gateway, authority) = gateway(&origin, &["gateway.test"], "").await;
    let tunnel = gateway.through(&TlsClient::trusting(&authority)).await;
    let body: Bytes = (0..3_000_000u32).map(|n| u8::try_from(n % 251).unwrap_or_default()).collect();
    origin.on("/large", Answer::status(200).body(body.clone()));
    assert_eq!(tunnel.get("/large").await.body, body);
    assert_eq!(tunnel.request("POST", "/up").body(body.clone()).await.status, 200);
    let seen = origin.last();
    assert!(seen.pattern && seen.length == 3_000_000, "{} bytes", seen.length);
}

#[tokio::test]
async fn websockets_and_http2_work_over_tls() {
    let origin = Origin::start().await;
    origin.on("/ws", Answer::websocket());
    let (gateway, authority) = gateway(&origin, &["gateway.test"], "").await;
    let client = TlsClient::trusting(&authority);
    gateway.through(&client).await.websocket("/ws").await.echoes("hello").await;
    let tunnel = gateway.through(&client.offers(&["h2"])).await;
    let http2 = tunnel.h2().await;
    let (one, two) = tokio::join!(http2.get("/one"), http2.get("/two"));
    assert_eq!((one.status, two.status), (200, 200));
    assert_eq!(origin.last().headers.one("X-Forwarded-Proto"), Some("https"));
}

#[tokio::test]
async fn grpc_works_over_tls() {
    let origin = Origin2::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let tunnel = gateway.through(&TlsClient::careless().offers(&["h2"])).await;
    let reply = tunnel.h2().await.unary("/pkg.Service/Call", "message").await;
    assert_eq!((reply.status, reply.text().as_str(), reply.trailer("grpc-status")), (200, "message", Some("0")));
}

#[tokio::test]
async fn http_without_tls_is_told_what_is_wrong() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let mut connection = Connection::open(gateway.secure_port()).await.expect("the gateway accepts");
    connection.write(b"GET / HTTP/1.1\r\nHost: gateway.test\r\n\r\n").await;
    let reply = connection.closed().await;
    assert_eq!(reply, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n");
    gateway.counts(r#"goma_edge_tls_handshakes_total{result="plain"} 1"#).await;
    assert!(origin.saw_nothing());
}

#[tokio::test]
async fn one_deadline_holds_for_handshake_and_head() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).gateway("limits: {headerTimeout: 1s}").routes(ROUTE).await;
    let mut silent = Connection::open(gateway.secure_port()).await.expect("the gateway accepts");
    assert_eq!(silent.closed().await, "", "a client that says nothing");
    gateway.counts(r#"goma_edge_tls_handshakes_total{result="overdue"} 1"#).await;
    for offers in [&["http/1.1"], &["h2"]] {
        let tunnel = gateway.through(&TlsClient::careless().offers(offers)).await;
        let mut shaken = tunnel.connect().await;
        shaken.closed().await;
    }
    let tunnel = gateway.through(&TlsClient::careless()).await;
    let mut begun = tunnel.connect().await;
    begun.write(b"GET / HTTP/1.1\r\nHost: gate").await;
    assert!(begun.closed().await.starts_with("HTTP/1.1 408 "), "a client that stops within its head");
}

#[tokio::test]
async fn an_end_is_announced() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).gateway("timeouts: {idle: 1}").routes(ROUTE).await;
    let shaken = TlsClient::careless().shakes(gateway.secure_port()).await;
    assert!(shaken.clean && shaken.reply.contains("Connection: close"), "{}", shaken.reply);
    let refused = TlsClient::careless().name("a.test").shakes(gateway.secure_port()).await;
    assert!(refused.clean, "the answer is whole and so is the connection");
    let tunnel = gateway.through(&TlsClient::careless()).await;
    let mut idle = tunnel.connect().await;
    assert_eq!(idle.send(tunnel.get("/")).await.status, 200);
    assert_eq!(idle.closed().await, "", "an idle one is let go");
}

#[tokio::test]
async fn a_request_under_tls_is_finished_while_draining() {
    let origin = Origin::start().await;
    origin.on("/slow", Answer::held(&["one", "two"]));
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let tunnel = gateway.through(&TlsClient::careless()).await;
    let slow = tokio::spawn(async move { tunnel.get("/slow").await });
    eventually("the request is there", async || (!origin.saw_nothing()).then_some(())).await;
    gateway.sigterm();
    origin.release();
    assert_eq!(slow.await.expect("a reply").text(), "onetwo");
    assert_eq!(gateway.wait_exit().await, Some(0));
}

#[tokio::test]
async fn bounds_on_connections_hold_for_each_entry_point() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).gateway("limits: {maxConnections: 1}").routes(ROUTE).await;
    let tunnel = gateway.through(&TlsClient::careless()).await;
    let mut held = tunnel.connect().await;
    assert_eq!(held.send(tunnel.get("/")).await.status, 200);
    TlsClient::careless().is_refused(gateway.secure_port()).await;
    assert_eq!(held.send(tunnel.get("/")).await.status, 200);
}

#[tokio::test]
async fn explain_says_which_certificate_a_name_gets() {
    let origin = Origin::start().await;
    let authority = Authority::new();
    let identity = authority.certify(&["a.test"]);
    let keys = "tls: {certificates: [{cert: FOLDER/one.crt, key: FOLDER/one.key}], clientAuth: {clientCA: FOLDER/ca.pem, \
                required: true, hosts: [b.test]}}";
    let gateway = Gateway::before(&origin)
        .gateway(keys)
        .file("one.crt", &identity.certificate)
        .file("one.key", &identity.key)
        .file("ca.pem", &authority.pem())
        .routes(ROUTE)
        .await;
    for (url, certificate, client) in [
        ("https://A.test:8443/", "the certificate is for a.test", "the client is asked for no certificate"),
        ("https://b.test/", "the certificate has no names", "the client has to show a certificate"),
    ] {
        let explained = goma_in(gateway.config_dir(), &[], &["config", "explain", "-c", "goma.yml", "GET", url]).await;
        let text = explained.all();
        assert!(text.contains(certificate) && text.contains(client), "{text}");
    }
}
