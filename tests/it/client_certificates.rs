//! Certificates of clients: who must show one, who is believed, and what backends hear of it.

use crate::world::*;

const ROUTE: &str = "- {name: r, path: /, target: ORIGIN}";

/// A gateway that asks clients for certificates of this authority, with further keys of `clientAuth`.
async fn gateway(origin: &Origin, clients: &Authority, keys: &str) -> Gateway {
    Gateway::before(origin)
        .gateway(&format!("tls: {{clientAuth: {{clientCA: FOLDER/clients.pem, {keys}}}}}"))
        .file("clients.pem", &clients.pem())
        .routes(ROUTE)
        .await
}

fn anonymous() -> TlsClient {
    TlsClient::careless()
}

fn shows(identity: &Identity) -> TlsClient {
    TlsClient::careless().shows(identity)
}

#[tokio::test]
async fn a_certificate_that_is_required_is_required() {
    let (origin, ours, theirs) = (Origin::start().await, Authority::new(), Authority::new());
    let server = ours.certify(&["gateway.test"]);
    // In Goma the check is off as soon as there is a certificate of the server's own.
    for certificates in ["", "certificates: [{cert: FOLDER/s.crt, key: FOLDER/s.key}], "] {
        let gateway = Gateway::before(&origin)
            .gateway(&format!("tls: {{{certificates}clientAuth: {{clientCA: FOLDER/clients.pem, required: true}}}}"))
            .file("clients.pem", &ours.pem())
            .file("s.crt", &server.certificate)
            .file("s.key", &server.key)
            .routes(ROUTE)
            .await;
        let port = gateway.secure_port();
        for (about, client, old) in [
            ("none", anonymous(), false),
            ("of another authority", shows(&theirs.certify(&["alice"])), false),
            ("nobody's", shows(&Identity::self_signed(&["alice"])), false),
            ("expired", shows(&ours.certify_from_to(&["alice"], "alice", (2001, 2002))), false),
            ("none, TLS 1.2", anonymous(), true),
        ] {
            let client = if old { client.old() } else { client };
            let why = client.is_refused(port).await;
            assert!(why.contains("alert"), "{about}: {why}");
        }
        assert!(origin.saw_nothing());
        let good = shows(&ours.certify(&["alice"]));
        assert!(good.shakes(port).await.reply.starts_with("HTTP/1.1 200"));
        assert!(good.old().shakes(port).await.reply.starts_with("HTTP/1.1 200"));
        gateway.counts(r#"goma_edge_tls_handshakes_total{result="failed"} 5"#).await;
        origin.forget();
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_required_is_checked_when_shown() {
    let (origin, ours, theirs) = (Origin::start().await, Authority::new(), Authority::new());
    let gateway = gateway(&origin, &ours, "").await;
    assert!(anonymous().shakes(gateway.secure_port()).await.reply.starts_with("HTTP/1.1 200"));
    assert!(shows(&ours.certify(&["alice"])).shakes(gateway.secure_port()).await.reply.starts_with("HTTP/1.1 200"));
    shows(&theirs.certify(&["alice"])).is_refused(gateway.secure_port()).await;
}

#[tokio::test]
async fn a_new_authority_ends_what_the_old_one_allowed() {
    let (origin, old, new) = (Origin::start().await, Authority::new(), Authority::new());
    let gateway = gateway(&origin, &old, "required: true").await;
    let (before, after) = (shows(&old.certify(&["alice"])), shows(&new.certify(&["bob"])));
    for client in [before.clone(), before.clone().old()] {
        client.shakes(gateway.secure_port()).await;
        assert!(client.shakes(gateway.secure_port()).await.resumed);
        after.is_refused(gateway.secure_port()).await;
    }
    let tunnel = gateway.through(&before).await;
    let mut kept = tunnel.connect().await;
    assert_eq!(kept.send(tunnel.get("/")).await.status, 200);
    let resumes = before.clone();
    resumes.shakes(gateway.secure_port()).await;
    gateway.write("clients.pem", &new.pem());
    eventually("the new authority", async || after.shake(gateway.secure_port()).await.ok()).await;
    before.is_refused(gateway.secure_port()).await;
    resumes.is_refused(gateway.secure_port()).await;
    assert_eq!(kept.send(tunnel.get("/")).await.status, 200, "connections live on");
}

#[tokio::test]
async fn backends_hear_who_the_client_is_where_that_is_asked_for() {
    let (origin, ours) = (Origin::start().await, Authority::new());
    let alice = ours.certify_from_to(&["alice.test"], "alice", (2020, 2050));
    let gateway = gateway(&origin, &ours, "forward: [subject, fingerprint, certificate]").await;
    let tunnel = gateway.through(&shows(&alice)).await;
    tunnel.get("/").header("X-Client-Cert-Subject", "CN=root").await;
    let seen = origin.last().headers;
    assert!(seen.one("X-Client-Cert-Subject").is_some_and(|subject| subject.contains("CN=alice")), "{seen:?}");
    assert_eq!(seen.all("X-Client-Cert-Subject").len(), 1);
    assert_eq!(seen.one("X-Client-Cert-Fingerprint").map(str::len), Some(64));
    let pem = seen.one("X-Client-Cert").expect("the certificate").replace("%0A", "\n").replace("%20", " ");
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----\n"), "{pem}");
    // Who shows none cannot say that he did, on either entry point.
    let names = ["X-Client-Cert", "x_client_cert_subject", "X-Client-Cert-Fingerprint"];
    let tunnel = gateway.through(&anonymous()).await;
    for request in [tunnel.get("/"), gateway.get("/")] {
        names.iter().fold(request, |request, name| request.header(name, "forged")).await;
        let seen = origin.last().headers;
        assert!(seen.0.iter().all(|(_, value)| value != "forged"), "{seen:?}");
    }
}

#[tokio::test]
async fn names_with_a_policy_want_connections_of_their_own() {
    let (origin, ours) = (Origin::start().await, Authority::new());
    let gateway = gateway(&origin, &ours, "required: true, hosts: [admin.test, '*.in.test']").await;
    let port = gateway.secure_port();
    assert!(anonymous().name("www.test").shakes(port).await.reply.starts_with("HTTP/1.1 200"), "nobody asks there");
    for name in ["admin.test", "a.in.test"] {
        anonymous().name(name).is_refused(port).await;
    }
    let alice = shows(&ours.certify(&["alice"]));
    assert!(alice.clone().name("admin.test").shakes(port).await.reply.starts_with("HTTP/1.1 200"));
    origin.forget();
    // By the front door of another name: refused, whatever the protocol and the spelling.
    let tunnel = gateway.through(&anonymous().name("www.test")).await;
    for host in ["admin.test", "ADMIN.test:443", "x.in.test", "admin.test."] {
        let reply = tunnel.get("/").host(host).await;
        assert_eq!(reply.status, 421, "{host}");
    }
    let tunnel = gateway.through(&anonymous().name("www.test").offers(&["h2"])).await;
    let http2 = tunnel.h2().await;
    assert_eq!(http2.clone().host("admin.test").get("/").await.status, 421);
    assert!(origin.saw_nothing());
    assert_eq!(http2.host("www.test").get("/").await.status, 200, "the connection itself is fine");
    let tunnel = gateway.through(&alice.name("admin.test")).await;
    assert_eq!(tunnel.get("/").host("www.test").await.status, 200, "more proof than needed");
}
