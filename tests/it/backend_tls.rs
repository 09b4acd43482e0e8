//! `https` backends: who is trusted, who we are to them, and which HTTP is spoken.

use crate::world::*;

const HERE: [&str; 2] = ["127.0.0.1", "localhost"];

/// A route to the front with these keys of `security.tls`.
fn route(tls: &str) -> String {
    format!("- {{name: r, path: /, target: ORIGIN, security: {{tls: {{{tls}}}}}}}")
}

#[tokio::test]
async fn a_backend_that_nobody_vouches_for_is_502() {
    let origin = Origin::start().await;
    let (known, unknown) = (Authority::new(), Authority::new());
    for (about, identity, tls) in [
        ("self-signed", Identity::self_signed(&HERE), ""),
        ("of an authority that nobody named", unknown.certify(&HERE), ""),
        ("of another authority than the one that was named", unknown.certify(&HERE), "rootCAs: FOLDER/ca.pem"),
        ("for another name", known.certify(&["elsewhere.test"]), "rootCAs: FOLDER/ca.pem"),
    ] {
        let front = TlsFront::before(origin.port(), identity).start().await;
        let gateway = Gateway::before(&front).file("ca.pem", &known.pem()).routes(&route(tls)).await;
        let reply = gateway.get("/").await;
        assert_eq!((reply.status, reply.text().as_str()), (502, "502 Bad Gateway \n"), "{about}");
        gateway.counts(r#"goma_edge_request_ends_total{name="r",reason="backend_tls"} 1"#).await;
    }
    assert!(origin.saw_nothing());
}

#[tokio::test]
async fn a_certificate_that_is_not_to_be_checked_is_not() {
    let origin = Origin::start().await;
    let front = TlsFront::before(origin.port(), Identity::self_signed(&["elsewhere.test"])).start().await;
    let plain = "- {name: r, path: /, target: ORIGIN}";
    for (about, keys, routes) in [
        ("the route", "", &*route("insecureSkipVerify: true")),
        ("its older key", "", "- {name: r, path: /, target: ORIGIN, insecureSkipVerify: true}"),
        ("the gateway", "networking: {transport: {insecureSkipVerify: true}}", plain),
    ] {
        let gateway = Gateway::before(&front).gateway(keys).routes(routes).await;
        assert_eq!(gateway.get("/").await.status, 200, "{about}");
    }
}

#[tokio::test]
async fn an_authority_that_was_named_is_trusted() {
    let origin = Origin::start().await;
    let authority = Authority::new();
    let front = TlsFront::before(origin.port(), authority.certify(&HERE)).start().await;
    let text = format!("rootCAs: \"{}\"", authority.pem().replace('\n', "\\n"));
    for (about, tls) in [("a file", "rootCAs: FOLDER/ca.pem"), ("a text", &text)] {
        let gateway = Gateway::before(&front).file("ca.pem", &authority.pem()).routes(&route(tls)).await;
        assert_eq!(gateway.get("/a").await.status, 200, "{about}");
        assert_eq!(origin.last().target, "/a");
    }
    assert!(front.hellos().iter().all(|hello| !hello.certified));
}

#[tokio::test]
async fn a_backend_hears_its_name_and_sees_our_certificate() {
    let origin = Origin::start().await;
    let authority = Authority::new();
    let front = TlsFront::before(origin.port(), authority.certify(&HERE)).clients_of(&authority).start().await;
    let us = authority.certify(&["gateway.test"]);
    let gateway = |tls: &str| {
        let named = format!("https://localhost:{}", front.port());
        Gateway::before(&named)
            .file("ca.pem", &authority.pem())
            .file("us.pem", &us.certificate)
            .file("us.key", &us.key)
            .routes(&route(tls))
    };
    let with = "rootCAs: FOLDER/ca.pem, clientCert: FOLDER/us.pem, clientKey: FOLDER/us.key";
    assert_eq!(gateway(with).await.get("/").await.status, 200);
    let heard = Hello { name: Some("localhost".to_owned()), protocol: None, certified: true };
    assert_eq!(front.hellos(), [heard]);
    assert_eq!(gateway("rootCAs: FOLDER/ca.pem").await.get("/").await.status, 502, "it wants to know us");
}

#[tokio::test]
async fn new_files_count_for_backends_too() {
    let origin = Origin::start().await;
    let (old, new) = (Authority::new(), Authority::new());
    let front = TlsFront::before(origin.port(), new.certify(&HERE)).clients_of(&new).start().await;
    let us = old.certify(&["gateway.test"]);
    let gateway = Gateway::before(&front)
        .file("ca.pem", &old.pem())
        .file("us.pem", &us.certificate)
        .file("us.key", &us.key)
        .routes(&route("rootCAs: FOLDER/ca.pem, clientCert: FOLDER/us.pem, clientKey: FOLDER/us.key"))
        .await;
    assert_eq!(gateway.reload().await, Applied::Same);
    assert_eq!(gateway.get("/").await.status, 502, "the backend is not trusted, and does not trust us");
    let us = new.certify(&["gateway.test"]);
    gateway.write("ca.pem", &new.pem());
    gateway.write("us.key", &us.key);
    gateway.logs("be consistent: KeyMismatch").await;
    gateway.write("us.pem", &us.certificate);
    eventually("the backend", async || (gateway.get("/").await.status == 200).then_some(())).await;
    assert_eq!(gateway.reload().await, Applied::Same);
}

#[tokio::test]
async fn http2_is_spoken_with_backends_that_offer_it() {
    let (origin, origin2) = (Origin::start().await, Origin2::start().await);
    let authority = Authority::new();
    for (about, to, offers, keys, spoken) in [
        ("HTTP/2", origin2.port(), &["h2", "http/1.1"][..], "", Some("h2")),
        ("HTTP/1.1", origin.port(), &["http/1.1"], "", Some("http/1.1")),
        ("nothing", origin.port(), &[], "", None),
        (
            "HTTP/2, but it is not wanted",
            origin.port(),
            &["h2", "http/1.1"],
            "networking: {transport: {forceAttemptHTTP2: false}}",
            Some("http/1.1"),
        ),
    ] {
        let front = TlsFront::before(to, authority.certify(&HERE)).offers(offers).start().await;
        let gateway = Gateway::before(&front).gateway(keys).file("ca.pem", &authority.pem());
        let gateway = gateway.routes(&route("rootCAs: FOLDER/ca.pem")).await;
        assert_eq!(gateway.get("/plain").await.status, 200, "{about}");
        assert_eq!(front.hellos()[0].protocol.as_deref(), spoken, "{about}");
    }
}

#[tokio::test]
async fn a_websocket_and_its_limit_work_behind_tls() {
    let origin = Origin::start().await;
    origin.on("/ws", Answer::websocket());
    origin.on("/silent", Answer::hang());
    let authority = Authority::new();
    let front = TlsFront::before(origin.port(), authority.certify(&HERE)).offers(&["h2", "http/1.1"]).start().await;
    let gateway = Gateway::before(&front)
        .gateway("networking: {transport: {responseHeaderTimeout: 1}}")
        .file("ca.pem", &authority.pem())
        .routes(&route("rootCAs: FOLDER/ca.pem"))
        .await;
    gateway.websocket("/ws").await.echoes("hello").await;
    let reply = WebSocket::open(gateway.get("/silent"), "websocket").await.expect_err("no WebSocket");
    assert_eq!(reply.status, 504);
}
