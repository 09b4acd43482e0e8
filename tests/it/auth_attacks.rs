//! What attackers try on `basic`, `ldap`, `jwt` and `forwardAuth` alike: headers in other spellings, credentials said twice,
//! names and passwords of unusual letters, servers that misbehave, protocols beside plain HTTP/1.1.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::world::tokens::{Signer, coded};
use crate::world::*;

/// The hash of `password`, at bcrypt's least cost but one.
const BCRYPT: &str = "$2y$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu";
/// The hash of `password`, by SHA-512-crypt.
const SHA512: &str =
    "$6$saltstringsaltst$6JOgtRfhXqEisnc/Nr64lml/zPnCnvtLyMVxFEVg0sI2Ph9URAKlnVjjIHOFI2r8ATszyoPTXlBwcJIQYQ0QN0";

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn bearer(claims: &serde_json::Value) -> String {
    format!("Bearer {}", Signer::secret("sek").token("HS256", claims))
}

/// A gateway whose route `/` has one middleware `m`.
fn before(origin: &Origin, kind: &str, rule: &str) -> Builder {
    Gateway::before(origin)
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [m]}")
        .middlewares(&format!("- {{name: m, type: {kind}, rule: {{{rule}}}}}"))
}

async fn asking(origin: &Origin, auth: &Origin, rule: &str) -> Gateway {
    before(origin, "forwardAuth", &format!("authUrl: AUTH/verify, {rule}")).word("AUTH", auth).await
}

#[tokio::test]
async fn a_user_name_that_nobody_forwards_is_not_the_clients_to_say() {
    let (origin, slapd) = (Origin::start().await, Slapd::start().await);
    let directory = format!("url: '{}', baseDN: 'ou=people,dc=example,dc=com', userFilter: (uid=%s)", slapd.url());
    for (kind, rule, login) in [
        ("basic", "users: ['ann:ann-pw']".to_owned(), basic("ann", "ann-pw")),
        ("ldap", directory, basic("ann", "ann-pw")),
    ] {
        let gateway = before(&origin, kind, &rule).await;
        for spelling in ["Username", "username", "USERNAME"] {
            let request = gateway.get("/").header("Authorization", &login).header(spelling, "root");
            assert_eq!(request.await.status, 200, "{kind}");
            assert!(!origin.last().headers.has("Username"), "{kind}: {spelling} (W-11)");
        }
    }
}

#[tokio::test]
async fn identity_headers_with_underscores_are_set_by_the_gateway_alone() {
    let (origin, auth) = (Origin::start().await, Origin::start().await);
    let spellings = ["X_User_Id", "X-User-Id", "x-user_id", "X_USER-ID"];
    let jwt = before(&origin, "jwt", "secret: sek, forwardHeaders: {X_User_Id: sub, X_Org: org}").await;
    let authorization = bearer(&json!({"sub": "ann"}));
    let asks = asking(&origin, &auth, "authResponseHeaders: [X_User_Id, X_Org]").await;
    auth.always(Answer::ok("").header("X_User_Id", "ann"));
    for (kind, gateway, organization) in [("jwt", jwt, None), ("forwardAuth", asks, Some(""))] {
        for spelling in spellings {
            let request = gateway.get("/").header("Authorization", &authorization).header(spelling, "root");
            let request = request.header("X-Org", "evil").header("X_Org", "evil").header("x_ORG", "evil");
            assert_eq!(request.await.status, 200, "{kind}: {spelling}");
            let seen = origin.last();
            assert_eq!(seen.headers.all("X_User_Id"), ["ann"], "{kind}: {spelling}");
            assert_eq!(seen.header("X_Org"), organization, "{kind}: {spelling}");
            for other in ["X-User-Id", "x-user_id", "X_USER-ID", "X-Org"] {
                assert!(!seen.headers.has(other), "{kind}: {spelling} left {other}");
            }
        }
    }
}

#[tokio::test]
async fn credentials_that_are_said_twice_are_none() {
    let (origin, slapd, auth) = (Origin::start().await, Slapd::start().await, Origin::start().await);
    let directory = format!("url: '{}', baseDN: 'ou=people,dc=example,dc=com', userFilter: (uid=%s)", slapd.url());
    let (ann, token) = (basic("ann", "ann-pw"), bearer(&json!({"sub": "ann"})));
    auth.always(Answer::ok(""));
    for (kind, gateway, good) in [
        ("basic", before(&origin, "basic", "users: ['ann:ann-pw']").await, &ann),
        ("ldap", before(&origin, "ldap", &directory).await, &ann),
        ("jwt", before(&origin, "jwt", "secret: sek").await, &token),
        ("forwardAuth", asking(&origin, &auth, "timeout: 5s").await, &token),
    ] {
        assert_eq!(gateway.get("/").header("Authorization", good).await.status, 200, "{kind}");
        origin.forget();
        auth.forget();
        for (first, second) in [(&**good, "Bearer admin"), ("Basic YTpi", &**good), (&**good, &**good), (&**good, "")] {
            let request = gateway.get("/").header("Authorization", first).header("AUTHORIZATION", second);
            assert_eq!(request.await.status, 401, "{kind}: {first} and {second}");
        }
        assert!(origin.saw_nothing() && auth.saw_nothing(), "{kind}");
    }
}

#[tokio::test]
async fn malformed_credentials_are_refused_and_harm_nobody() {
    let origin = Origin::start().await;
    let gateway = before(&origin, "basic", "users: ['ann:ann-pw', 'ann:other']").await;
    let coded = |bytes: &[u8]| format!("Basic {}", STANDARD.encode(bytes));
    for (about, value, status) in [
        ("empty", String::new(), 401),
        ("a scheme alone", "Basic".to_owned(), 401),
        ("a scheme and blanks", "Basic   ".to_owned(), 401),
        ("a tab behind the scheme", format!("Basic\t{}", STANDARD.encode("ann:ann-pw")), 401),
        ("no padding", coded(b"ann:ann-pw").trim_end_matches('=').to_owned(), 401),
        ("the other alphabet", coded(&[0xfb, 0xff, b':', b'x']).replace('+', "-").replace('/', "_"), 401),
        ("two values in one line", format!("{}, {}", coded(b"ann:ann-pw"), coded(b"ann:ann-pw")), 401),
        ("another scheme's name before it", format!("NotBasic {}", STANDARD.encode("ann:ann-pw")), 401),
        ("no UTF-8", coded(b"ann\xff:ann-pw"), 401),
        ("a NUL behind the name", coded(b"ann\0:ann-pw"), 401),
        ("a NUL behind the password", coded(b"ann:ann-pw\0"), 401),
        ("a line end behind the password", coded(b"ann:ann-pw\n"), 401),
        ("the name in another case", coded(b"ANN:ann-pw"), 401),
        ("a blank behind the name", coded(b"ann :ann-pw"), 401),
        ("the second of two users with one name", coded(b"ann:other"), 401),
        ("nothing but a colon", coded(b":"), 401),
        ("a long password", coded(format!("ann:{}", "x".repeat(12_000)).as_bytes()), 401),
        ("a long name", coded(format!("{}:x", "x".repeat(12_000)).as_bytes()), 401),
        ("the scheme in capitals, more than one blank", coded(b"ann:ann-pw").replace("Basic ", "BASIC  "), 200),
    ] {
        origin.forget();
        assert_eq!(gateway.get("/").header("Authorization", &value).await.status, status, "{about}");
        assert_eq!(origin.saw_nothing(), status == 401, "{about}");
    }
}

#[tokio::test]
async fn authorization_goes_on_unless_it_is_switched_off() {
    let (origin, slapd) = (Origin::start().await, Slapd::start().await);
    let directory = format!("url: '{}', baseDN: 'ou=people,dc=example,dc=com', userFilter: (uid=%s)", slapd.url());
    for (kind, rule) in [("basic", "users: ['ann:ann-pw']".to_owned()), ("ldap", directory)] {
        let login = basic("ann", "ann-pw");
        for (more, expected) in [("", Some(&*login)), (", forwardAuthorization: false", None)] {
            let gateway = before(&origin, kind, &format!("{rule}{more}")).await;
            assert_eq!(gateway.get("/").header("Authorization", &login).await.status, 200, "{kind}{more}");
            assert_eq!(origin.last().header("Authorization"), expected, "{kind}{more}");
        }
    }
}

#[tokio::test]
async fn names_beyond_ascii_log_in_and_reach_the_backend() {
    let (origin, slapd) = (Origin::start().await, Slapd::start().await);
    let directory = format!("url: '{}', baseDN: 'ou=people,dc=example,dc=com', userFilter: (uid=%s)", slapd.url());
    for (kind, rule) in [("basic", "users: ['jörg:pä55']".to_owned()), ("ldap", directory)] {
        for forward in ["false", "true"] {
            let gateway = before(&origin, kind, &format!("{rule}, forwardUsername: {forward}")).await;
            let reply = gateway.get("/").header("Authorization", &basic("jörg", "pä55")).await;
            assert_eq!(reply.status, 200, "{kind}, forwardUsername: {forward}");
            // The wire of this world is Latin-1: the bytes of UTF-8, one letter each.
            let expected = (forward == "true").then_some("jÃ¶rg");
            assert_eq!(origin.last().header("Username"), expected, "{kind}");
        }
    }
    let gateway = before(&origin, "basic", "users: [\"a\\nb:pw\"], forwardUsername: true").await;
    assert_eq!(
        gateway.get("/").header("Authorization", &basic("a\nb", "pw")).await.status,
        401,
        "a header cannot hold it"
    );
}

#[tokio::test]
async fn a_long_password_does_not_keep_the_hashing_threads_busy() {
    let origin = Origin::start().await;
    let gateway = before(&origin, "basic", &format!("users: ['ann:{SHA512}', 'bob:{BCRYPT}']")).await;
    let long = basic("ann", &"x".repeat(40_000));
    let started = Instant::now();
    let many = (0..3).map(|n| gateway.get(&format!("/{n}")).header("Authorization", &long).into_future());
    for reply in futures::future::join_all(many).await {
        assert_eq!(reply.status, 401);
    }
    assert_eq!(gateway.get("/").header("Authorization", &basic("ann", "password")).await.status, 200);
    // SHA-crypt hashes a password as many times as it has bytes: without a limit this takes minutes.
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_public_key_is_no_secret_of_an_operator_either() {
    let (rsa, ec) = (Signer::rsa().pem(), Signer::p256().pem());
    let certificate = include_str!("../keys/rsa-certificate.pem");
    for pem in [&rsa, &ec, certificate] {
        let output = before(&Origin::start().await, "jwt", &format!("secret: {}", json!(pem))).start_fails().await;
        let expected = "rule.secret: is a public key: everybody who has it could make tokens; write it as `publicKey`";
        assert!(output.all().contains(expected), "{}", output.all());
    }
}

#[tokio::test]
async fn a_remembered_pass_is_for_the_same_question_only() {
    let (origin, auth) = (Origin::start().await, Origin::start().await);
    let gateway = asking(&origin, &auth, "cacheTtl: 1m, authRequestHeaders: [X-Tenant]").await;
    auth.always(Answer::ok(""));
    let ask = |target: &str| gateway.get(target).header("Authorization", "t").header("X-Tenant", "acme");
    for (about, request, asked) in [
        ("first", ask("/doc?id=1"), 1),
        ("the same", ask("/doc?id=1"), 1),
        ("another query", ask("/doc?id=2"), 2),
        ("no query", ask("/doc"), 3),
        ("an empty query", ask("/doc?"), 4),
        (
            "another header that the server is told",
            gateway.get("/doc").header("Authorization", "t").header("X-Tenant", "x"),
            5,
        ),
        ("without it", gateway.get("/doc").header("Authorization", "t"), 6),
        ("another method", gateway.request("DELETE", "/doc").header("Authorization", "t"), 7),
        ("another host", gateway.get("/doc").header("Authorization", "t").host("other.test"), 8),
        ("a cookie", gateway.get("/doc").header("Authorization", "t").header("Cookie", "a=1"), 9),
        ("the token as a cookie", gateway.get("/doc").header("Cookie", "t"), 10),
        ("nothing", gateway.get("/doc"), 11),
        ("nothing, with a token that reads like a name", gateway.get("/doc").header("Authorization", "cookie"), 12),
        ("the name as a cookie", gateway.get("/doc").header("Cookie", "cookie"), 13),
    ] {
        assert_eq!(request.await.status, 200, "{about}");
        assert_eq!(auth.seen().len(), asked, "{about}");
    }
}

#[tokio::test]
async fn the_server_is_told_every_cookie_and_every_line_that_the_backend_gets() {
    let (origin, auth) = (Origin::start().await, Origin::start().await);
    let gateway = asking(&origin, &auth, "authRequestHeaders: [X-Key, X-Empty]").await;
    auth.always(Answer::ok(""));
    let request = gateway.get("/").header("Cookie", "a=1").header("cookie", "session=evil").header("X-Empty", "");
    assert_eq!(request.header("X-Key", "one").header("x-key", "two").await.status, 200);
    let told = auth.last();
    assert_eq!(told.headers.all("Cookie"), ["a=1; session=evil"]);
    assert_eq!(told.headers.all("X-Key"), ["one", "two"]);
    assert!(!told.headers.has("X-Empty"));
    // What the gateway says of a request is not the client's to say, listed or not.
    let gateway = asking(&origin, &auth, "authRequestHeaders: [X-Original-URL, X-Forwarded-Method, X-Real-IP]").await;
    let request = gateway.request("DELETE", "/admin").header("X-Original-URL", "http://gateway.test/public");
    assert_eq!(request.header("X-Forwarded-Method", "GET").header("X-Real-IP", "10.0.0.1").await.status, 200);
    let told = auth.last();
    assert_eq!(told.headers.all("X-Original-URL"), ["http://gateway.test/admin"]);
    assert_eq!(told.headers.all("X-Forwarded-Method"), ["DELETE"]);
    assert_eq!(told.headers.all("X-Real-IP"), ["127.0.0.1"]);
}

#[tokio::test]
async fn a_server_that_talks_without_end_holds_nobody_up() {
    let (origin, auth) = (Origin::start().await, Origin::start().await);
    let gateway = asking(&origin, &auth, "timeout: 5s").await;
    let drip: Vec<Piece> =
        (0..2000).flat_map(|_| [Piece::from("x"), Piece::Pause(Duration::from_millis(50))]).collect();
    let large = "x".repeat(2 << 20);
    for (about, answer, status) in [
        ("a large body", Answer::flood(1 << 30), 200),
        ("a body without end", Answer::pieces(drip), 200),
        ("a body that is cut", Answer::cut("x".repeat(1000), 10), 200),
        ("a large header", Answer::ok("").header("X-Large", &large), 503),
        ("no HTTP at all", Answer::raw("SSH-2.0-OpenSSH_9.6\r\n"), 503),
        ("an answer of nothing but interim ones", Answer::raw("HTTP/1.1 100 Continue\r\n\r\n"), 503),
        (
            "a switch of protocols",
            Answer::raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
            401,
        ),
        ("a status that is none", Answer::raw("HTTP/1.1 99 Hm\r\n\r\n"), 503),
        ("two lengths", Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"), 503),
    ] {
        auth.on("/verify", answer);
        let started = Instant::now();
        let reply = gateway.get("/").await;
        assert_eq!(reply.status, status, "{about}: {}", reply.text());
        assert!(started.elapsed() < Duration::from_secs(4), "{about}: {:?}", started.elapsed());
    }
    assert!(gateway.rss_bytes() < 300 << 20, "{} bytes", gateway.rss_bytes());
}

#[tokio::test]
async fn redirects_of_the_server_are_never_followed_and_never_a_pass() {
    let (origin, auth) = (Origin::start().await, Origin::start().await);
    let gateway = asking(&origin, &auth, "allowAnySuccess: true").await;
    auth.on("/login", Answer::ok("welcome"));
    for status in [300, 301, 302, 303, 304, 307, 308] {
        auth.on("/verify", Answer::status(status).header("Location", "/login").header("Set-Cookie", "s=1"));
        let reply = gateway.get("/").await;
        assert_eq!((reply.status, reply.header("Set-Cookie"), reply.header("Location")), (401, None, None), "{status}");
    }
    for (status, passes) in
        [(200, 200), (204, 200), (206, 200), (299, 200), (400, 401), (407, 401), (429, 401), (502, 401)]
    {
        auth.on("/verify", Answer::status(status));
        assert_eq!(gateway.get("/").await.status, passes, "{status}");
    }
    assert!(auth.seen().iter().all(|seen| seen.target == "/verify"));
}

#[tokio::test]
async fn headers_of_the_connection_are_not_copied_from_the_server() {
    for name in ["Content-Length", "transfer-encoding", "X-User:Connection", "Host", "Upgrade", "TE", "X:Keep_Alive"] {
        let rule = format!("authUrl: 'http://127.0.0.1:9/', authResponseHeaders: ['{name}']");
        let output = before(&Origin::start().await, "forwardAuth", &rule).start_fails().await;
        assert!(output.all().contains("belongs to the connection"), "{name}: {}", output.all());
    }
    let (origin, auth) = (Origin::start().await, Origin::start().await);
    let gateway = asking(&origin, &auth, "authRequestHeaders: [Content-Length, Content-Type, Host]").await;
    auth.always(Answer::ok(""));
    let reply = gateway.post("/").header("Content-Type", "text/x").body("four").await;
    assert_eq!((reply.status, origin.last().text().as_str()), (200, "four"));
    assert_eq!((auth.last().header("Content-Length"), auth.last().header("Content-Type")), (None, Some("text/x")));
}

#[tokio::test]
async fn upgrades_are_guarded_like_any_request() {
    let (origin, auth) = (Origin::start().await, Origin::start().await);
    origin.always(Answer::websocket());
    let token = bearer(&json!({"sub": "ann"}));
    for (kind, gateway, refused) in [
        ("basic", before(&origin, "basic", "users: ['ann:ann-pw'], forwardUsername: true").await, 401),
        ("jwt", before(&origin, "jwt", "secret: sek, forwardHeaders: {Username: sub}").await, 401),
        ("forwardAuth", asking(&origin, &auth, "authResponseHeaders: [Username]").await, 403),
    ] {
        auth.always(Answer::status(403));
        let reply = WebSocket::open(gateway.get("/ws"), "websocket").await.expect_err("no WebSocket");
        assert_eq!(reply.status, refused, "{kind}");
        assert!(origin.saw_nothing(), "{kind}");
        auth.always(Answer::ok("").header("Username", "ann"));
        let login = if kind == "basic" { basic("ann", "ann-pw") } else { token.clone() };
        let request = gateway.get("/ws").header("Authorization", &login).header("Username", "root");
        let mut socket =
            WebSocket::open(request, "websocket").await.unwrap_or_else(|reply| panic!("{kind}: {reply:?}"));
        socket.echoes("hello").await;
        assert_eq!(origin.last().headers.all("Username"), ["ann"], "{kind}");
        origin.forget();
    }
}

#[tokio::test]
async fn http2_says_the_same() {
    let (origin, auth) = (Origin::start().await, Origin::start().await);
    auth.always(Answer::ok("").header("Username", "ann"));
    let token = bearer(&json!({"sub": "ann"}));
    for (kind, gateway) in [
        ("basic", before(&origin, "basic", "users: ['ann:ann-pw'], forwardUsername: true").await),
        ("jwt", before(&origin, "jwt", "secret: sek, forwardHeaders: {Username: sub}").await),
        ("forwardAuth", asking(&origin, &auth, "authResponseHeaders: [Username]").await),
    ] {
        let client = gateway.h2().await;
        let login = if kind == "basic" { basic("ann", "ann-pw") } else { token.clone() };
        let request = client.request("GET", "/x").header("authorization", &login).header("username", "root");
        let request = request.header("cookie", "a=1").header("cookie", "b=2").body(()).expect("a request");
        let reply = client.call(request, true).await.finish().await.expect("a whole response");
        assert_eq!(reply.status, 200, "{kind}");
        assert_eq!(origin.last().headers.all("Username"), ["ann"], "{kind}");
        let twice = client.request("GET", "/x").header("authorization", &login).header("authorization", &login);
        let twice = twice.body(()).expect("a request");
        let reply = client.call(twice, true).await.finish().await.expect("a whole response");
        assert_eq!(reply.status, 401, "{kind}");
    }
    assert_eq!(auth.last().header("Cookie"), Some("a=1; b=2"));
}

#[tokio::test]
async fn a_key_set_with_oddities_serves_what_is_good_in_it() {
    let origin = Origin::start().await;
    let (rsa, ec, twin, ed) = (Signer::rsa(), Signer::p256(), Signer::p256(), Signer::ed25519());
    let mut padded = ec.jwk("padded");
    for part in ["x", "y"] {
        padded[part] = json!(format!("{}=", padded[part].as_str().expect("a text")));
    }
    let mut wide = rsa.jwk("wide");
    wide["x5c"] = json!(["no certificate"]);
    wide["x5t"] = json!(7);
    let mut named = ed.jwk("ed");
    named["alg"] = json!("Ed25519");
    let set = json!({
        "issuer": "somebody", "keys": [
            null, "text", [], {}, {"kty": "RSA"}, {"kty": "oct", "kid": "a", "k": coded("sek")},
            rsa.jwk("same"), ec.jwk("same"), twin.jwk("same"), padded, wide, named, ec.jwk("schlüssel"), ec.jwk(""),
        ],
    });
    let gateway = before(&origin, "jwt", "jwksFile: FOLDER/keys.json").file("keys.json", &set.to_string()).await;
    let claims = json!({"sub": "ann"});
    for (about, token, status) in [
        ("a secret that was published", Signer::secret("sek").named("HS256", "a", &claims), 401),
        ("one of three with one id", rsa.named("RS256", "same", &claims), 200),
        ("another kind with that id", ec.named("ES256", "same", &claims), 200),
        ("the second of one kind with that id", twin.named("ES256", "same", &claims), 200),
        ("none of them", Signer::p256().named("ES256", "same", &claims), 401),
        ("padding", ec.named("ES256", "padded", &claims), 200),
        ("members that do not count", rsa.named("PS512", "wide", &claims), 200),
        ("the name of RFC 9864", ed.named("Ed25519", "ed", &claims), 200),
        ("its older name", ed.named("EdDSA", "ed", &claims), 200),
        ("an id beyond ASCII", ec.named("ES256", "schlüssel", &claims), 200),
        ("an id that looks alike", ec.named("ES256", "schlu\u{308}ssel", &claims), 401),
        ("an empty id", ec.named("ES256", "", &claims), 200),
        ("no id", ec.token("ES256", &claims), 401),
        ("an id in another case", ec.named("ES256", "Padded", &claims), 401),
    ] {
        let reply = gateway.get("/").header("Authorization", &format!("Bearer {token}")).await;
        assert_eq!(reply.status, status, "{about}");
    }
}
