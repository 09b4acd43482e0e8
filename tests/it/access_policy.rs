//! `accessPolicy`: who gets in by the address.

use crate::world::*;

/// A gateway that believes what the test says of the client, with one policy.
async fn with(origin: &Origin, rule: &str) -> Gateway {
    Gateway::before(origin)
        .gateway("proxy: {enabled: true, trustedProxies: [127.0.0.0/8]}")
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [policy]}")
        .middlewares(&format!("- {{name: policy, type: accessPolicy, rule: {rule}}}"))
        .await
}

#[tokio::test]
async fn clients_get_in_or_stay_out_by_their_address() {
    let mixed = "[203.0.113.0/24, 198.51.100.250-198.51.101.9, 192.0.2.7, 2001:db8::/32]";
    let rows = [
        ("in a block", "ALLOW", "203.0.113.77", 200),
        ("in a range over an octet", "ALLOW", "198.51.101.1", 200),
        ("the address itself", "ALLOW", "192.0.2.7", 200),
        ("IPv6", "ALLOW", "2001:db8:1::9", 200),
        ("a mapped address", "ALLOW", "::ffff:192.0.2.7", 200),
        ("nobody of them", "ALLOW", "192.0.2.8", 403),
        ("nobody of them, IPv6", "ALLOW", "2001:db9::", 403),
        ("the proxy itself is not the client", "ALLOW", "127.0.0.1", 403),
        ("denied", "DENY", "203.0.113.77", 403),
        ("row 71: denied in lower case", "deny", "203.0.113.77", 403),
        ("row 71: others pass", "deny", "192.0.2.8", 200),
        ("allowed in lower case", "allow", "192.0.2.8", 403),
    ];
    let origin = Origin::start().await;
    for action in ["ALLOW", "DENY", "deny", "allow"] {
        let gateway = with(&origin, &format!("{{action: {action}, sourceRanges: {mixed}}}")).await;
        for (about, _, client, status) in rows.iter().filter(|row| row.1 == action) {
            origin.forget();
            let reply = gateway.get("/").header("X-Forwarded-For", client).await;
            assert_eq!(reply.status, *status, "{about}");
            assert_eq!(origin.saw_nothing(), *status == 403, "{about}");
            assert!(reply.status == 200 || reply.text() == "403 Forbidden\n", "{about}");
        }
    }
}

#[tokio::test]
async fn row_73_an_address_that_the_client_made_up_lets_nobody_in() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin)
        .gateway("proxy: {enabled: true}")
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [policy]}")
        .middlewares("- {name: policy, type: accessPolicy, rule: {action: ALLOW, sourceRanges: [10.0.0.1]}}")
        .await;
    let reply = gateway.get("/").header("X-Forwarded-For", "10.0.0.1, 6.6.6.6").await;
    assert_eq!(reply.status, 403, "the right-most address is the client");
    assert!(origin.saw_nothing());
    assert_eq!(gateway.get("/").header("X-Forwarded-For", "6.6.6.6, 10.0.0.1").await.status, 200);
}

#[tokio::test]
async fn without_trusted_proxies_the_peer_is_the_client() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin)
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [policy]}")
        .middlewares("- {name: policy, type: accessPolicy, rule: {action: deny, sourceRanges: [10.0.0.0/8]}}")
        .await;
    assert_eq!(gateway.get("/").header("X-Forwarded-For", "10.1.1.1").await.status, 200);
    let h2 = gateway.h2().await;
    assert_eq!(h2.get("/").await.status, 200);
}

#[tokio::test]
async fn a_refusal_is_the_same_on_http2_and_is_told_in_the_log() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin)
        .env("GOMA_LOG_LEVEL", "info")
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [policy]}")
        .middlewares(
            "- {name: policy, type: accessPolicy, paths: [/x], rule: {action: DENY, sourceRanges: [127.0.0.0/8]}}",
        )
        .await;
    let reply = gateway.h2().await.get("/").await;
    assert_eq!((reply.status, reply.text().as_str()), (403, "403 Forbidden\n"), "whatever `paths` say, as in Goma");
    let line = gateway.logs("denied:accessPolicy").await;
    assert!(line.contains("the address is listed"), "{line}");
    gateway.counts(r#"goma_edge_request_ends_total{name="r",reason="denied:accessPolicy"} 1"#).await;
}

#[tokio::test]
async fn a_hundred_thousand_entries_load_and_are_looked_up() {
    let origin = Origin::start().await;
    let entries: Vec<String> =
        (0..100_000).map(|i| format!("{}.{}.{}.0/25", 11 + i / 65_536, i / 256 % 256, i % 256)).collect();
    let gateway = with(&origin, &format!("{{action: DENY, sourceRanges: [{}]}}", entries.join(", "))).await;
    for (client, status) in [("11.0.0.127", 403), ("11.0.0.128", 200), ("12.134.159.1", 403), ("12.134.160.1", 200)] {
        assert_eq!(gateway.get("/").header("X-Forwarded-For", client).await.status, status, "{client}");
    }
}
