//! `geoBlock`: who gets in by the country of the address.

use tempfile::TempDir;

use crate::world::*;

const PROXY: &str = "proxy: {enabled: true, trustedProxies: [127.0.0.0/8]}";
const ROUTE: &str = "- {name: r, path: /, target: ORIGIN, middlewares: [geo]}";
const WORLD: &[(&str, &str)] = &[("203.0.113.0/24", "US"), ("198.51.100.0/24", "DE"), ("2001:db8::/32", "FR")];
const REFUSAL: &str = "Access denied from your region\n";

/// A folder with a database of the test's own world.
fn world(networks: &[(&str, &str)]) -> (TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("country.mmdb");
    std::fs::write(&file, mmdb(networks)).expect("a writable folder");
    (folder, file.display().to_string())
}

/// A gateway that believes what the test says of the client.
async fn with(origin: &Origin, database: &str, rule: &str) -> Gateway {
    Gateway::before(origin)
        .env("GOMA_LOG_LEVEL", "info")
        .gateway(&format!("{PROXY}\ngeoip: {{database: {database}}}"))
        .routes(ROUTE)
        .middlewares(&format!("- {{name: geo, type: geoBlock, rule: {rule}}}"))
        .await
}

#[tokio::test]
async fn clients_get_in_or_stay_out_by_their_country() {
    let rows = [
        ("{action: ALLOW, countries: [us]}", "203.0.113.9", 200),
        ("{action: ALLOW, countries: [us]}", "198.51.100.1", 403),
        ("{action: allow, countries: [de, Fr]}", "2001:db8::9", 200),
        ("{action: DENY, countries: [US]}", "203.0.113.9", 403),
        ("{action: DENY, countries: [US]}", "198.51.100.1", 200),
        ("{action: DENY, countries: [US]}", "::ffff:203.0.113.9", 403),
        ("{action: ALLOW, countries: [US]}", "192.0.2.1", 200),
        ("{action: ALLOW, countries: [US], allowUnknown: false}", "192.0.2.1", 403),
        ("{action: DENY, countries: [US], allowUnknown: false}", "192.0.2.1", 403),
        ("{action: ALLOW, countries: [us], allowUnknown: false}", "127.0.0.1", 200),
        ("{action: ALLOW, countries: [us], allowUnknown: false}", "10.1.2.3", 200),
        ("{action: ALLOW, countries: [us], allowUnknown: false}", "fd00::1", 200),
    ];
    let origin = Origin::start().await;
    let (_folder, database) = world(WORLD);
    for (rule, client, status) in rows {
        let gateway = with(&origin, &database, rule).await;
        origin.forget();
        let reply = gateway.get("/").header("X-Forwarded-For", client).await;
        assert_eq!(reply.status, status, "{rule}: {client}");
        assert_eq!(origin.saw_nothing(), status == 403, "{rule}: {client}");
        assert!(status == 200 || reply.text() == REFUSAL, "{rule}: {client}");
    }
}

#[tokio::test]
async fn row_74_a_client_on_this_machine_passes_unasked() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin)
        .routes(ROUTE)
        .middlewares("- {name: geo, type: geoBlock, rule: {action: ALLOW, countries: [us], allowUnknown: false}}")
        .await;
    assert_eq!(gateway.get("/").await.status, 200);
}

#[tokio::test]
async fn row_76_the_backend_learns_the_country_from_us_and_never_from_the_client() {
    let origin = Origin::start().await;
    let (_folder, database) = world(WORLD);
    let gateway = with(&origin, &database, "{action: DENY, countries: [ZZ], addCountryHeader: X-C}").await;
    for (about, client, country) in [
        ("a known country", "203.0.113.9", Some("US")),
        ("an unknown country", "192.0.2.1", None),
        ("a private address", "10.0.0.1", None),
    ] {
        let request = gateway.get("/").header("X-Forwarded-For", client);
        request.header("X-C", "XX").header("x_c", "YY").await;
        let seen = origin.last();
        assert_eq!((seen.headers.all("X-C"), seen.header("x_c")), (Vec::from_iter(country), None), "{about}");
    }
    let gateway = with(&origin, &database, "{action: DENY, countries: [ZZ], addCountryHeader: Geo_Country}").await;
    gateway
        .get("/")
        .header("X-Forwarded-For", "10.0.0.1")
        .header("Geo-Country", "XX")
        .header("Geo_Country", "XX")
        .await;
    let seen = origin.last();
    assert!(!seen.headers.has("Geo-Country") && !seen.headers.has("Geo_Country"), "whichever way it is written");
}

#[tokio::test]
async fn a_refusal_says_what_it_is_told_to_say_and_is_counted() {
    let origin = Origin::start().await;
    let (_folder, database) = world(WORLD);
    let rule = "{action: DENY, countries: [DE], statusCode: 451, message: Not here, allowUnknown: false}";
    let gateway = with(&origin, &database, rule).await;
    let request = |client| gateway.get("/").header("X-Forwarded-For", client).accept("application/json");
    let reply = request("198.51.100.1").await;
    let body = "{\"success\":false,\"statusCode\":451,\"error\":\"Not here\"}\n";
    assert_eq!((reply.status, reply.text().as_str()), (451, body));
    assert_eq!(request("192.0.2.1").await.status, 451);
    assert!(gateway.logs("country: DE").await.contains("denied:geoBlock"));
    gateway.counts(r#"gateway_geoblock_denied_total{country="DE",name="geo"} 1"#).await;
    gateway.counts(r#"gateway_geoblock_denied_total{country="unknown",name="geo"} 1"#).await;
    gateway.counts(r#"goma_edge_geoblock_unknown_total{name="geo"} 1"#).await;
    let h2 = gateway.h2().await;
    let head = h2.request("GET", "/").header("x-forwarded-for", "198.51.100.1").body(()).expect("a request");
    assert_eq!(h2.call(head, true).await.finish().await.expect("an answer").status, 451);
}

#[tokio::test]
async fn a_new_database_counts_without_a_reload_and_a_broken_one_does_not() {
    let origin = Origin::start().await;
    let (folder, database) = world(WORLD);
    let gateway = with(&origin, &database, "{action: DENY, countries: [US]}").await;
    let status = async || gateway.get("/").header("X-Forwarded-For", "203.0.113.9").await.status;
    assert_eq!(status().await, 403);
    std::fs::write(&database, "half a file").expect("writable");
    gateway.logs("the old one stays").await;
    assert_eq!(status().await, 403);
    let next = folder.path().join("next");
    std::fs::write(&next, mmdb(&[("203.0.113.0/24", "CA")])).expect("writable");
    std::fs::rename(&next, &database).expect("a rename");
    eventually("the new database counts", async || (status().await == 200).then_some(())).await;
}

#[tokio::test]
async fn a_database_that_is_missing_is_warned_of_and_can_come_later() {
    let origin = Origin::start().await;
    let (folder, database) = world(WORLD);
    std::fs::remove_file(&database).expect("removed");
    let gateway = with(&origin, &database, "{action: ALLOW, countries: [US], allowUnknown: false}").await;
    let output = goma_in(gateway.config_dir(), &[], &["config", "check", "-c", "goma.yml"]).await;
    assert!(output.succeeded() && output.stdout.contains("has no country database"), "{}", output.all());
    let status = async || gateway.get("/").header("X-Forwarded-For", "203.0.113.9").await.status;
    assert_eq!(status().await, 403, "not known is not allowed");
    std::fs::write(folder.path().join("country.mmdb"), mmdb(WORLD)).expect("writable");
    eventually("the database counts", async || (status().await == 200).then_some(())).await;
}

#[tokio::test]
async fn the_environment_names_the_database_before_the_file_does() {
    let origin = Origin::start().await;
    let (_folder, database) = world(WORLD);
    let gateway = Gateway::before(&origin)
        .env("GOMA_GEOIP_DB", &database)
        .gateway(&format!("{PROXY}\ngeoip: {{database: /nowhere/country.mmdb}}"))
        .routes(ROUTE)
        .middlewares("- {name: geo, type: geoBlock, rule: {action: ALLOW, countries: [US], allowUnknown: false}}")
        .await;
    assert_eq!(gateway.get("/").header("X-Forwarded-For", "203.0.113.9").await.status, 200);
}
