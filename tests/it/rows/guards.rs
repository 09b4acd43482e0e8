//! Rows 1 to 20 (paths, order), 71 to 86 (addresses, countries, user agents, bodies) and 139 to 143 (exploits).

use super::{JSON, PLAIN, Row, play};
use crate::world::*;

const REFUSAL: &str = "403 Forbidden\n";

#[tokio::test]
async fn paths_and_order() {
    play([
        Row::new("1", "type: access, paths: [/admin]")
            .ask("GET /admin/x")
            .refused(403)
            .text(REFUSAL)
            .field("Content-Type", &[PLAIN])
            .field("X-Content-Type-Options", &["nosniff"])
            // Row 2.
            .ask("GET /administrator")
            .refused(403)
            .ask("GET /v1/admin")
            .refused(403)
            .ask("GET /ADMIN")
            .refused(403)
            .ask("GET /other")
            .up("/other"),
        Row::new("3", "type: access, paths: ['/admin/*']")
            .ask("GET /admin")
            .refused(403)
            .ask("GET /administrator")
            .refused(403)
            .ask("GET /ADMIN/x")
            .refused(403)
            .ask("GET /other")
            .gets(200),
        Row::new("4", "type: access, paths: [/Admin]").ask("GET /admin").refused(403).ask("GET /admin/x").gets(200),
        Row::new("5", "type: access, paths: ['/*']").ask("GET /").refused(403).ask("GET /a/b").refused(403),
        Row::new("6", "type: access, paths: ['/.*']").ask("GET /any").refused(403),
        Row::new("8", "type: access, paths: ['^/x$']").ask("GET /x").refused(403).ask("GET /x.php").gets(200),
        Row::new("9", "type: access, paths: ['/a(b']").ask("GET /a(b").refused(403).ask("GET /ab").gets(200),
        Row::new("10", "type: access").ask("GET /any").gets(200),
        Row::new("11", "type: access, paths: [/secret], rule: {statusCode: 404}")
            .ask("GET /secret")
            .with("Accept", JSON)
            .refused(404)
            .text("{\"success\":false,\"statusCode\":404,\"error\":\"404 Not Found\"}\n")
            .field("Content-Type", &[JSON])
            .field("X-Content-Type-Options", &[])
            // Row 12.
            .ask("GET /secret")
            .with("Accept", "text/xml")
            .refused(404)
            .field("Content-Type", &["application/xhtml+xml"])
            // Row 13.
            .ask("GET /secret")
            .with("Accept", "application/json, text/plain, */*")
            .refused(404)
            .text("404 Not Found\n")
            .field("Content-Type", &[PLAIN])
            .ask("GET /secret")
            .with("Accept", "application/json;q=0.9")
            .text("404 Not Found\n")
            .refused(404)
            .ask("POST /secret")
            .with("Content-Type", JSON)
            .body("{}")
            .refused(404)
            .field("Content-Type", &[JSON])
            .ask("HEAD /secret")
            .refused(404)
            .text(""),
        Row::new("14", "type: access, paths: [/p], rule: {statusCode: 418}")
            .and("type: access, paths: [/p], rule: {statusCode: 410}")
            .gateway("defaults: {middlewares: [m0]}")
            .route("path: /, middlewares: [m1]")
            .ask("GET /p")
            .refused(418),
        Row::new("15", "type: access, paths: [/p], rule: {statusCode: 418}")
            .and("type: access, paths: [/p], rule: {statusCode: 410}")
            .gateway("defaults: {middlewares: [m0]}")
            .route("path: /, middlewares: [m1, m0]")
            .ask("GET /p")
            .refused(410),
        Row::new("19", "type: access, paths: [/]")
            .and("type: responseHeaders, rule: {cacheControl: no-store}")
            .route("path: /, middlewares: [m0, m1], maintenance: {enabled: true}")
            .ask("GET /")
            .refused(503)
            .text("503 Service temporarily unavailable\n")
            .field("Proxied-By", &[])
            .field("Cache-Control", &[])
            .field("Access-Control-Allow-Origin", &[]),
        Row::bare("maintenance lets an origin of the older section read it")
            .route("path: /, maintenance: {enabled: true}, cors: {origins: ['https://a.example']}")
            .ask("GET /")
            .with("Origin", "https://a.example")
            .refused(503)
            .field("Access-Control-Allow-Origin", &["https://a.example"])
            .field("Vary", &["Origin"])
            .ask("GET /")
            .with("Origin", "https://b.example")
            .refused(503)
            .field("Access-Control-Allow-Origin", &[])
            .field("Proxied-By", &[]),
        Row::new("20", "type: access, paths: [/admin]")
            .route("path: /api")
            .ask("GET /api/ADMIN")
            .refused(403)
            .ask("GET /api/ADMIN/x")
            .gets(200),
        Row::new(
            "expressions and plain paths beside each other",
            "type: access, paths: ['\\.php$', /plain, '(?i)^/any(/|$)', '^/u/\\d+$']",
        )
        .ask("GET /a.php")
        .refused(403)
        .ask("GET /a.phps")
        .gets(200)
        .ask("GET /plain")
        .refused(403)
        .ask("GET /ANY/x")
        .refused(403)
        .ask("GET /u/7")
        .refused(403)
        .ask("GET /u/%D9%A7")
        .gets(200),
        Row::new("behind what does not compile, entries are texts", "type: access, paths: ['/a(b', '^/x$', '/y/*']")
            .ask("GET /x")
            .gets(200)
            .ask("GET /y/z")
            .refused(403)
            .ask("GET /v/y/z")
            .gets(200),
        Row::new("the query is never part of it", "type: access, paths: [/admin]").ask("GET /x?/admin").gets(200),
        Row::new("however it is encoded", "type: access, paths: ['^/a b$', '^/\u{e9}$']")
            .ask("GET /a%20b")
            .refused(403)
            .ask("GET /%C3%A9")
            .refused(403)
            .ask("GET /%c3%a9")
            .refused(403)
            .ask("GET //a%20b")
            .refused(403),
    ])
    .await;
}

#[tokio::test]
async fn addresses_user_agents_and_bodies() {
    let proxied = "proxy: {enabled: true, trustedProxies: [127.0.0.0/8]}";
    let agents = "type: userAgentBlock, rule: {userAgents: [Googlebot, 'evil bot']}";
    play([
        Row::new("71", "type: accessPolicy, rule: {action: deny, sourceRanges: [10.0.0.0/8]}").ask("GET /").gets(200),
        Row::new("72", "type: accessPolicy, rule: {action: ALLOW, sourceRanges: [192.168.1.250-192.168.2.10]}")
            .gateway(proxied)
            .ask("GET /")
            .with("X-Forwarded-For", "192.168.2.1")
            .gets(200)
            .ask("GET /")
            .with("X-Forwarded-For", "192.168.2.11")
            .refused(403)
            .text(REFUSAL),
        Row::new("73", "type: accessPolicy, rule: {action: ALLOW, sourceRanges: [10.0.0.1]}")
            .gateway("proxy: {enabled: true}")
            .ask("GET /")
            .with("X-Forwarded-For", "10.0.0.1, 6.6.6.6")
            .refused(403),
        Row::new("mapped addresses, other spellings", "type: accessPolicy, rule: {action: DENY, sourceRanges: ['::ffff:10.0.0.0/104', '2001:DB8:0::/48', '::ffff:192.0.2.1']}")
            .gateway(proxied)
            .ask("GET /")
            .with("X-Forwarded-For", "10.9.9.9")
            .refused(403)
            .ask("GET /")
            .with("X-Forwarded-For", "::ffff:10.9.9.9")
            .refused(403)
            .ask("GET /")
            .with("X-Forwarded-For", "192.0.2.1")
            .refused(403)
            .ask("GET /")
            .with("X-Forwarded-For", "2001:0db8:0000::9")
            .refused(403)
            .ask("GET /")
            .with("X-Forwarded-For", "[2001:db8::9]:443")
            .refused(403)
            .ask("GET /")
            .with("X-Forwarded-For", "2001:db9::9")
            .gets(200),
        Row::new("74", "type: geoBlock, rule: {action: ALLOW, countries: [us], allowUnknown: false}").ask("GET /").gets(200),
        Row::new("77", agents)
            .ask("GET /")
            .with("User-Agent", "x Googlebot/2")
            .refused(403)
            .text("User agent not allowed\n")
            .ask("GET /")
            .with("User-Agent", "x googlebot/2")
            .refused(403)
            .ask("GET /")
            .with("User-Agent", "an EVIL BOT")
            .refused(403)
            // Row 78.
            .ask("GET /")
            .gets(200)
            .ask("GET /")
            .with("User-Agent", "Mozilla/5.0")
            .with("User-Agent", "Googlebot")
            .refused(403)
            .ask("GET /")
            .with("User-Agent", "Mozilla/5.0")
            .gets(200),
        Row::new("two lines hide no bot", "type: botDetection")
            .ask("GET /")
            .with("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
            .with("User-Agent", "python-requests/2.31")
            .refused(403)
            .ask("GET /")
            .with("User-Agent", "")
            .with("User-Agent", "curl/8.5.0")
            .refused(403)
            .ask("GET /")
            .with("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
            .gets(200),
        Row::new("85", "type: bodyLimit, rule: {limit: 1KiB}")
            .ask("POST /")
            .body("x".repeat(1024))
            .gets(200)
            .ask("POST /")
            .body("x".repeat(1025))
            .refused(413)
            .text("Request body too large (limit 1024 bytes)\n")
            .ask("GET /")
            .body("x".repeat(1025))
            .refused(413)
            .ask("POST /")
            .with("Accept", JSON)
            .body("x".repeat(1025))
            .refused(413)
            .text("{\"success\":false,\"statusCode\":413,\"error\":\"Request body too large (limit 1024 bytes)\"}\n"),
    ])
    .await;
}

/// Countries and the header that tells them need a database.
#[tokio::test]
async fn countries() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("country.mmdb");
    std::fs::write(&file, mmdb(&[("203.0.113.0/24", "US"), ("198.51.100.0/24", "DE")])).expect("writable");
    let proxied = "proxy: {enabled: true, trustedProxies: [127.0.0.0/8]}";
    let row = |id, keys| Row::new(id, keys).gateway(proxied).env("GOMA_GEOIP_DB", file.display().to_string());
    play([
        row("75", "type: geoBlock, rule: {action: deny, countries: [' us ']}")
            .ask("GET /")
            .with("X-Forwarded-For", "203.0.113.1")
            .refused(403)
            .text("Access denied from your region\n")
            .ask("GET /")
            .with("X-Forwarded-For", "192.0.2.1")
            .gets(200),
        row("76", "type: geoBlock, rule: {action: DENY, countries: [ZZ], addCountryHeader: X-C}")
            .ask("GET /")
            .with("X-Forwarded-For", "203.0.113.1")
            .with("X-C", "XX")
            .with("x_c", "YY")
            .saw("X-C", &["US"])
            .saw("x_c", &[])
            .ask("GET /")
            .with("X-Forwarded-For", "10.0.0.1")
            .with("X-C", "XX")
            .saw("X-C", &[])
            .ask("GET /")
            .with("X-Forwarded-For", "192.0.2.1")
            .with("X-C", "XX")
            .saw("X-C", &[]),
    ])
    .await;
}

#[tokio::test]
async fn exploits() {
    let shield = "path: /, security: {enableExploitProtection: true}";
    play([
        Row::bare("139")
            .route(shield)
            .ask("GET /?q=please+select+one")
            .up("/?q=please+select+one")
            .ask("GET /?select=1")
            .gets(200)
            // Row 140, by the ruling: a semicolon alone refuses nobody.
            .ask("GET /?q=a;b")
            .gets(200)
            .ask("GET /?q=a%3Bb")
            .gets(200)
            // Row 141.
            .ask("GET /?f=..%2F..%2Fetc%2Fpasswd")
            .refused(403)
            .text(REFUSAL)
            .ask("GET /?f=%252e%252e%252fetc%252fpasswd")
            .refused(403)
            .ask("GET /?q=%3Cscript%3Ealert(1)%3C/script%3E")
            .refused(403)
            .ask("GET /?q=1%20UNION%20SELECT%20name,password%20FROM%20users")
            .refused(403)
            .ask("HEAD /?q=1%27%20OR%20%271%27=%271")
            .refused(403)
            .text("")
            .ask("GET /?q=1&q=2&q=1%27%20OR%20%271%27=%271")
            .refused(403)
            .ask("GET /?&&=&a==&%&%zz=%")
            .gets(200),
        Row::bare("142")
            .route(shield)
            .ask("POST /")
            .with("Content-Type", "text/xml")
            .body("<a")
            .with("Accept", "*/*")
            .gets(400)
            .text("400 Bad Request\n")
            // Row 143.
            .ask("POST /")
            .with("Content-Type", "application/xml; charset=utf-8")
            .body("<!DOCTYPE a [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><a>&x;</a>")
            .gets(400)
            .ask("POST /")
            .with("Content-Type", "text/xml")
            .body("<a b='c'>fine</a>")
            .gets(200)
            .ask("POST /")
            .with("Content-Type", "text/xml")
            .body("")
            .gets(200),
    ])
    .await;
}
