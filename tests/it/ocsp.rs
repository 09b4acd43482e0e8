//! What authorities say of certificates by now: asked, checked, and sent along in the handshake.

use goma_edge::tls::ocsp::{Answer, Revocation, Status, Unfit, check};
use goma_edge::tls::unix_now;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use crate::world::*;

const ROUTE: &str = "- {name: r, path: /, target: ORIGIN}";
const ONE: &str = "tls: {certificates: [{cert: FOLDER/one.crt, key: FOLDER/one.key}]}";

fn before(origin: &Origin, it: &Identity) -> Builder {
    Gateway::before(origin).gateway(ONE).file("one.crt", &it.certificate).file("one.key", &it.key)
}

async fn staple(gateway: &Gateway) -> Vec<u8> {
    TlsClient::careless().name("a.test").shakes(gateway.secure_port()).await.staple
}

/// Until the responder was asked as often as this, with this answer.
async fn heard(gateway: &Gateway, result: &str) {
    gateway.counts(&format!("goma_edge_ocsp_requests_total{{result=\"{result}\"}} 1")).await;
}

#[tokio::test]
async fn a_good_answer_is_fetched_and_sent_along() {
    let (origin, authority) = (Origin::start().await, Authority::new());
    let allowed = authority.certify_responder();
    for (about, responder) in
        [("the authority", Responder::of(&authority)), ("whom it allowed to", Responder::signing(&authority, &allowed))]
    {
        let responder = responder.knows(1).start().await;
        let it = authority.certify_asking(&["a.test"], 1, &responder.url());
        let gateway = before(&origin, &it).routes(ROUTE).await;
        heard(&gateway, "good").await;
        assert!(!staple(&gateway).await.is_empty(), "{about}");
        let shown = s_client(gateway.secure_port(), "a.test").await;
        assert!(shown.contains("OCSP Response Status: successful") && shown.contains("Cert Status: good"), "{shown}");
        gateway.reload_with(&document(ONE, "- {name: r2, path: /, target: ORIGIN}", "")).await;
        assert!(!staple(&gateway).await.is_empty(), "a reload keeps it");
    }
}

#[tokio::test]
async fn nothing_but_a_good_answer_is_sent_along_and_nobody_waits_for_one() {
    let (origin, authority) = (Origin::start().await, Authority::new());
    let revoked = Responder::of(&authority).revoked(1).start().await;
    let unknown = Responder::of(&authority).knows(2).start().await;
    let stranger = Responder::signing(&authority, &Identity::self_signed(&["a.test"])).knows(1).start().await;
    let not_allowed = Responder::signing(&authority, &authority.certify(&["b.test"])).knows(1).start().await;
    let silent = listen();
    let silent_at = format!("http://{}/", silent.local_addr().expect("bound"));
    for (url, result, line) in [
        (revoked.url(), "revoked", "THE CERTIFICATE WAS REVOKED"),
        (unknown.url(), "unknown", "the responder does not know the certificate"),
        (stranger.url(), "failed", "is signed by nobody who may"),
        (not_allowed.url(), "failed", "is signed by nobody who may"),
        (format!("http://127.0.0.1:{}/", free_port()), "failed", "Connection refused"),
        (format!("http://127.0.0.1:{}/", origin.port()), "failed", "is no OCSP response"),
        (silent_at, "", ""),
    ] {
        let it = authority.certify_asking(&["a.test"], 1, &url);
        let gateway = before(&origin, &it).env("GOMA_LOG_LEVEL", "info").routes(ROUTE).await;
        assert!(staple(&gateway).await.is_empty(), "{url}");
        if !line.is_empty() {
            gateway.logs(line).await;
            heard(&gateway, result).await;
            assert!(staple(&gateway).await.is_empty(), "{line}");
        }
    }
}

#[tokio::test]
async fn who_is_asked_is_told_by_a_check_and_can_be_turned_off() {
    let (origin, authority) = (Origin::start().await, Authority::new());
    let responder = Responder::of(&authority).knows(1).start().await;
    let it = authority.certify_asking(&["a.test"], 1, &responder.url());
    let leaf = it.certificate.split_inclusive("-----END CERTIFICATE-----\n").next().expect("one").to_owned();
    let off = "tls: {askOcsp: false, certificates: [{cert: FOLDER/one.crt, key: FOLDER/one.key}]}";
    for (keys, certificate, line) in [
        (ONE, &it.certificate, format!("Certificate a.test: OCSP asked of {} and stapled", responder.url())),
        (off, &it.certificate, "Certificate a.test: OCSP not asked for (gateway.tls.askOcsp)".to_owned()),
        (ONE, &leaf, "Certificate a.test: OCSP not asked for: the chain lacks".to_owned()),
    ] {
        let gateway = before(&origin, &it).gateway(keys).file("one.crt", certificate).routes(ROUTE).await;
        let output = goma(&["config", "check", "-c", &gateway.file("goma.yml").display().to_string()]).await;
        assert!(output.succeeded() && output.stdout.contains(&line), "{}", output.all());
        if line.contains("not asked") {
            assert!(staple(&gateway).await.is_empty());
        }
    }
}

#[tokio::test]
async fn a_file_is_checked_like_an_answer() {
    let (origin, authority) = (Origin::start().await, Authority::new());
    let it = authority.certify_asking(&["a.test"], 1, "ldap://nowhere");
    let gateway = before(&origin, &it).env("GOMA_LOG_LEVEL", "info").routes(ROUTE).await;
    let (good, revoked) = (Responder::of(&authority).knows(1).knows(2), Responder::of(&authority).revoked(1));
    let other = authority.certify_asking(&["b.test"], 2, "ldap://nowhere");
    for (said, line) in [
        (b"no response".to_vec(), "one.crt.ocsp is no OCSP response in DER form"),
        (good.says_of(&other), "one.crt.ocsp is about another certificate"),
        (revoked.says_of(&it), "one.crt.ocsp says that the certificate was revoked"),
    ] {
        std::fs::write(gateway.file("one.crt.ocsp"), said).expect("a writable folder");
        gateway.logs(line).await;
        assert!(staple(&gateway).await.is_empty(), "{line}");
    }
    let said = good.says_of(&it);
    std::fs::write(gateway.file("one.crt.ocsp"), &said).expect("a writable folder");
    eventually("the staple", async || (staple(&gateway).await == said).then_some(())).await;
    let output = goma(&["config", "check", "-c", &gateway.file("goma.yml").display().to_string()]).await;
    assert!(output.stdout.contains("Certificate a.test: OCSP stapled from a file until "), "{}", output.all());
}

#[tokio::test]
async fn an_answer_is_believed_only_in_its_time_and_as_it_was_signed() {
    let authority = Authority::new();
    let it = authority.certify_asking(&["a.test"], 1, "http://nowhere/");
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(it.certificate.as_bytes()).collect();
    let subject = Revocation::of(&chain.expect("certificates")).subject.expect("a chain with its authority");
    for responder in [Responder::of(&authority), Responder::signing(&authority, &authority.certify_responder())] {
        let said = responder.knows(1).says_of(&it);
        let now = unix_now();
        let Answer { status, from, until } = check(&said, &subject, now).expect("a good answer");
        assert_eq!((status, until - from), (Status::Good, 3600));
        assert_eq!(check(&said, &subject, until), Err(Unfit::Late));
        assert!(
            matches!(check(&said, &subject, from - 301), Err(Unfit::Early | Unfit::Signer)),
            "the responder's own time"
        );
        for at in 0..said.len() {
            let mut changed = said.clone();
            changed[at] ^= 1;
            // A bit of what is enclosed and not signed may say the same.
            let believed = check(&changed, &subject, now);
            assert!(believed.is_err() || believed == Ok(Answer { status, from, until }), "byte {at}");
            assert!(check(&said[..at], &subject, now).is_err(), "the first {at} bytes");
        }
    }
}
