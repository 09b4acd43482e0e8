//! Where certificates come from, what is wrong with them, and how new ones take the place of old ones.

use crate::world::*;

const ROUTE: &str = "- {name: r, path: /, target: ORIGIN}";
const ONE: &str = "tls: {certificates: [{cert: FOLDER/one.crt, key: FOLDER/one.key}]}";

/// A text on one line of YAML.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\n', "\\n"))
}

fn base64(text: &str) -> String {
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text)
}

async fn names(gateway: &Gateway, name: &str) -> Vec<String> {
    TlsClient::careless().name(name).shakes(gateway.secure_port()).await.names
}

#[tokio::test]
async fn a_certificate_may_be_a_file_a_text_base64_or_a_variable() {
    let (origin, authority) = (Origin::start().await, Authority::new());
    let it = authority.certify(&["a.test"]);
    let (pem, key) = (quoted(&it.certificate), quoted(&it.key));
    let (pem64, key64) = (base64(&it.certificate), base64(&it.key));
    for (about, tls) in [
        ("files", "certificates: [{cert: FOLDER/a.crt, key: FOLDER/a.key}]".to_owned()),
        ("texts", format!("certificates: [{{cert: {pem}, key: {key}}}]")),
        ("base64", format!("certificates: [{{cert: {pem64}, key: {key64}}}]")),
        ("variables", "certificates: [{cert: \"${CERT}\", key: \"${KEY}\"}]".to_owned()),
        ("the older key", "keys: [{cert: FOLDER/a.crt, key: FOLDER/a.key}]".to_owned()),
        ("one file", "certificates: [{cert: FOLDER/both.pem, key: FOLDER/both.pem}]".to_owned()),
        ("a folder", "certsDir: FOLDER/certs".to_owned()),
    ] {
        let gateway = Gateway::before(&origin)
            .gateway(&format!("tls: {{{tls}}}"))
            .file("a.crt", &it.certificate)
            .file("a.key", &it.key)
            .file("both.pem", &format!("{}{}", it.key, it.certificate))
            .file("certs/a.crt", &it.certificate)
            .file("certs/a.key", &it.key)
            .env("CERT", &pem64)
            .env("KEY", &key64)
            .routes(ROUTE)
            .await;
        assert_eq!(names(&gateway, "a.test").await, ["a.test"], "{about}");
    }
}

#[tokio::test]
async fn a_routes_certificate_stands_before_the_gateways_and_the_folders() {
    let (origin, authority) = (Origin::start().await, Authority::new());
    let identity = |mark: &str, names: &[&str]| authority.certify(&[&[mark], names].concat());
    let (route, list, folder) = (
        identity("route.mark", &["a.test"]),
        identity("list.mark", &["a.test", "b.test"]),
        identity("folder.mark", &["a.test", "b.test", "c.test"]),
    );
    let gateway = Gateway::before(&origin)
        .gateway("tls: {certsDir: FOLDER/certs, certificates: [{cert: FOLDER/l.crt, key: FOLDER/l.key}]}")
        .routes("- {name: r, path: /, target: ORIGIN, tls: {certificate: {cert: FOLDER/r.crt, key: FOLDER/r.key}}}")
        .file("r.crt", &route.certificate)
        .file("r.key", &route.key)
        .file("l.crt", &list.certificate)
        .file("l.key", &list.key)
        .file("certs/f.pem", &folder.certificate)
        .file("certs/f.key", &folder.key)
        .await;
    for (name, mark) in [("a.test", "route.mark"), ("b.test", "list.mark"), ("c.test", "folder.mark")] {
        assert_eq!(names(&gateway, name).await[0], mark, "{name}");
    }
}

#[tokio::test]
async fn what_cannot_be_served_refuses_to_start_and_says_why() {
    let authority = Authority::new();
    let (it, other) = (authority.certify(&["a.test"]), authority.certify(&["a.test"]));
    for (tls, words) in [
        ("certificates: [{cert: FOLDER/none, key: FOLDER/a.key}]", "gateway.tls.certificates[0].cert: cannot be read"),
        ("certificates: [{cert: FOLDER/a.crt}]", "gateway.tls.certificates[0].key: is missing"),
        (
            "certificates: [{cert: FOLDER/a.crt, key: FOLDER/b.key}]",
            "certificates[0].key: belongs to another certificate",
        ),
        ("default: {cert: FOLDER/a.key, key: FOLDER/a.key}", "gateway.tls.default.cert: holds no certificate"),
        ("minVersion: 1.1", "gateway.tls.minVersion: \"1.1\" is no version that is spoken"),
        ("alpn: [h3]", "gateway.tls.alpn[0]: \"h3\" is no protocol that is spoken"),
        ("clientAuth: {clientCA: FOLDER/a.key}", "gateway.tls.clientAuth.clientCA: holds no certificate"),
        ("clientAuth: {clientCA: FOLDER/none}", "gateway.tls.clientAuth.clientCA: cannot be read"),
        ("clientAuth: {required: true}", "gateway.tls.clientAuth.required: is set without `clientCA`"),
    ] {
        let builder =
            Gateway::builder().gateway(&format!("tls: {{{tls}}}")).routes("- {name: r, path: /, target: 'http://o'}");
        let builder = builder.file("a.crt", &it.certificate).file("a.key", &it.key).file("b.key", &other.key);
        let output = builder.start_fails().await;
        assert!(output.code == Some(1) && output.all().contains(words), "{tls}: {}", output.all());
    }
}

#[tokio::test]
async fn what_is_odd_is_told_and_served() {
    let (origin, authority) = (Origin::start().await, Authority::new());
    let expired = authority.certify_from_to(&["a.test"], "a.test", (2001, 2002));
    let turned = authority.certify(&["b.test"]);
    let gateway = Gateway::before(&origin)
        .gateway("tls: {certsDir: FOLDER/certs, certificates: [{cert: FOLDER/a.crt, key: FOLDER/a.key}, {cert: FOLDER/b.crt, key: FOLDER/b.key}]}")
        .file("a.crt", &expired.certificate)
        .file("a.key", &expired.key)
        .file("b.crt", &format!("{}{}", authority.pem(), turned.certificate))
        .file("b.key", &turned.key)
        .file("certs/lonely.crt", &expired.certificate)
        .file("certs/broken.crt", "no certificate")
        .file("certs/broken.key", &expired.key)
        .routes(ROUTE)
        .await;
    gateway.logs("certificates[0].cert: expired on 2002-01-01").await;
    gateway.logs("certificates[1].cert: does not have its certificates in order").await;
    gateway.logs("lonely.crt has no key beside it").await;
    gateway.logs("broken.crt holds no certificate; it is left out").await;
    assert_eq!(names(&gateway, "a.test").await, ["a.test"]);
    let shaken = TlsClient::trusting(&authority).name("b.test").shakes(gateway.secure_port()).await;
    assert_eq!((shaken.names.as_slice(), shaken.chain), (&["b.test".to_owned()][..], 2));
    gateway.counts(r#"goma_edge_certificate_expiry_timestamp_seconds{certificate="a.test"} 1009843200"#).await;
}

#[tokio::test]
async fn a_valid_certificate_stands_before_an_expired_one() {
    let (origin, authority) = (Origin::start().await, Authority::new());
    let expired = authority.certify_from_to(&["old.mark", "a.test"], "x", (2001, 2002));
    let valid = authority.certify(&["new.mark", "a.test"]);
    let gateway = Gateway::before(&origin)
        .gateway(
            "tls: {certificates: [{cert: FOLDER/a.crt, key: FOLDER/a.key}, {cert: FOLDER/b.crt, key: FOLDER/b.key}]}",
        )
        .file("a.crt", &expired.certificate)
        .file("a.key", &expired.key)
        .file("b.crt", &valid.certificate)
        .file("b.key", &valid.key)
        .routes(ROUTE)
        .await;
    assert_eq!(names(&gateway, "a.test").await[0], "new.mark");
}

#[tokio::test]
async fn new_files_take_the_place_of_old_ones_without_a_word() {
    let (origin, authority) = (Origin::start().await, Authority::new());
    let old = authority.certify(&["old.test"]);
    let gateway = Gateway::before(&origin)
        .gateway("tls: {default: {cert: FOLDER/one.crt, key: FOLDER/one.key}, certsDir: FOLDER/certs}")
        .file("one.crt", &old.certificate)
        .file("one.key", &old.key)
        .file("certs/readme.txt", "certificates")
        .routes(ROUTE)
        .await;
    let tunnel = gateway.through(&TlsClient::trusting(&authority)).await;
    let mut kept = tunnel.connect().await;
    assert_eq!(kept.send(tunnel.get("/")).await.status, 200);
    let new = authority.certify(&["new.test"]);
    gateway.write("one.crt", &new.certificate);
    gateway.write("one.key", &new.key);
    eventually("the new certificate", async || (names(&gateway, "x").await == ["new.test"]).then_some(())).await;
    let further = authority.certify(&["further.test"]);
    gateway.write("certs/further.key", &further.key);
    gateway.write("certs/further.crt", &further.certificate);
    let there = async || (names(&gateway, "further.test").await == ["further.test"]).then_some(());
    eventually("a further certificate", there).await;
    assert_eq!(kept.send(tunnel.get("/")).await.status, 200, "connections live on");
}

#[tokio::test]
async fn a_signal_reads_certificates_again_and_broken_ones_change_nothing() {
    let (origin, authority) = (Origin::start().await, Authority::new());
    let old = authority.certify(&["old.test"]);
    let gateway = Gateway::before(&origin).gateway(ONE).file("one.crt", &old.certificate).file("one.key", &old.key);
    let gateway = gateway.routes(ROUTE).await;
    assert_eq!(gateway.reload().await, Applied::Same);
    let new = authority.certify(&["old.test", "new.test"]);
    let before = gateway.reloads().await;
    gateway.write("one.key", &new.key);
    gateway.sighup();
    eventually("a refusal", async || (gateway.reloads().await.failed > before.failed).then_some(())).await;
    gateway.logs("certificates[0].key: belongs to another certificate").await;
    assert_eq!(names(&gateway, "old.test").await, ["old.test"]);
    gateway.write("one.crt", &new.certificate);
    gateway.sighup();
    let there = async || (names(&gateway, "new.test").await == ["old.test", "new.test"]).then_some(());
    eventually("the new certificate", there).await;
}
