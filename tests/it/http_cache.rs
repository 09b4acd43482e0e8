//! `httpCache`: what is stored, what is served from it, and what never is. RFC 9111.

use std::future::IntoFuture;

use crate::world::*;

/// A gateway that caches everything that it may, with these settings.
pub async fn caching(origin: &impl std::fmt::Display, rule: &str) -> Gateway {
    Gateway::before(origin)
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [cache]}")
        .middlewares(&format!("- {{name: cache, type: httpCache, paths: ['/*'], rule: {{{rule}}}}}"))
        .await
}

fn fresh(body: &str) -> Answer {
    Answer::ok(body.to_owned()).header("Cache-Control", "max-age=60")
}

/// Stored, and stale from the beginning.
fn stale(body: &str) -> Answer {
    Answer::ok(body.to_owned()).header("Age", "61").header("ETag", "\"v1\"")
}

fn status(reply: &Reply) -> &str {
    reply.header("X-Cache-Status").unwrap_or("none")
}

#[tokio::test]
async fn a_response_is_fetched_once_and_served_with_its_age() {
    let origin = Origin::start().await;
    origin.on("/a", fresh("hello").header("ETag", "\"v1\"").header("Content-Type", "text/css").header("X-Own", "1"));
    let gateway = caching(&origin, "maxTtl: 3600").await;
    let miss = gateway.get("/a").await;
    assert_eq!((status(&miss), miss.header("X-Goma-Cache"), miss.text().as_str()), ("MISS", Some("MISS"), "hello"));
    assert_eq!(miss.header("X-Goma-Cache-Max-Age"), Some("60"));
    let hit = gateway.get("/a").await;
    assert_eq!((hit.status, status(&hit), hit.header("X-Goma-Cache")), (200, "HIT", Some("HIT")));
    assert_eq!(
        (hit.text().as_str(), hit.header("Content-Type"), hit.header("X-Own")),
        ("hello", Some("text/css"), Some("1"))
    );
    assert!(hit.header("Age").is_some() && hit.header("Date").is_some() && hit.header("Proxied-By").is_some());
    assert_eq!(hit.headers.all("Cache-Control"), ["max-age=60"], "the backend's, and once");
    assert!(hit.header("Cache-Status").is_some_and(|status| status.starts_with("goma-edge; hit; ttl=")));
    assert_eq!(origin.seen().len(), 1);
    let page = gateway.get("/metrics").await.text();
    assert!(page.contains("goma_edge_cache_requests_total{name=\"cache\",outcome=\"hit\",route=\"r\"} 1"), "{page}");
    assert!(page.contains("goma_edge_cache_entries{name=\"cache\",route=\"r\"} 1"));
}

/// RFC 9111 §3: responses that MUST NOT be stored.
#[tokio::test]
async fn what_must_not_be_stored_is_fetched_every_time() {
    let origin = Origin::start().await;
    let gateway = caching(&origin, "maxTtl: 3600").await;
    for (path, answer, what) in [
        ("/no-store", fresh("x").header("Cache-Control", "no-store"), "no-store"),
        ("/private", fresh("x").header("Cache-Control", "private"), "private"),
        ("/nothing", Answer::ok("x"), "no word about freshness"),
        ("/cookie", fresh("x").header("Set-Cookie", "a=b"), "a cookie"),
        (
            "/public-cookie",
            fresh("x").header("Cache-Control", "public").header("Set-Cookie", "a=b"),
            "a cookie, public",
        ),
        ("/star", fresh("x").header("Vary", "*"), "Vary: *"),
        ("/partial", fresh("x").with_status(206).header("Content-Range", "bytes 0-0/5"), "a part"),
        ("/404", fresh("x").with_status(404), "an excluded status"),
        ("/close", Answer::until_close("x").header("Cache-Control", "max-age=60"), "a body without length"),
        ("/understand", fresh("x").with_status(299).header("Cache-Control", "must-understand"), "an unknown status"),
    ] {
        origin.on(path, answer);
        for _ in 0..2 {
            let reply = gateway.get(path).await;
            assert_eq!((reply.text().as_str(), status(&reply)), ("x", "MISS"), "{what}");
        }
        assert_eq!(origin.seen().len(), 2, "{what}");
        origin.forget();
    }
}

/// RFC 9111 §3.5.
#[tokio::test]
async fn what_was_said_to_one_client_is_not_said_to_another() {
    let origin = Origin::start().await;
    origin.on("/mine", fresh("mine"));
    origin.on("/shared", fresh("shared").header("Cache-Control", "public"));
    let gateway = caching(&origin, "maxTtl: 3600").await;
    for (path, first, second) in [("/mine", "MISS", "MISS"), ("/shared", "MISS", "HIT")] {
        let reply = gateway.get(path).header("Authorization", "Basic YTpi").await;
        assert_eq!(status(&reply), first, "{path}");
        assert_eq!(status(&gateway.get(path).await), second, "{path}");
    }
}

#[tokio::test]
async fn nobody_gets_around_a_login_and_users_of_it_do_not_share() {
    let origin = Origin::start().await;
    origin.always(fresh("secret"));
    let gateway = Gateway::before(&origin)
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [cache, login]}")
        .middlewares(
            "- {name: cache, type: httpCache, rule: {}}\n\
             - {name: login, type: basic, paths: ['/*'], rule: {users: ['joe:pass'], forwardUsername: true}}",
        )
        .await;
    let joe = || gateway.get("/").header("Authorization", "Basic am9lOnBhc3M=");
    for _ in 0..2 {
        assert_eq!((joe().await.text().as_str(), gateway.get("/").await.status), ("secret", 401));
    }
    assert_eq!(origin.seen().len(), 2);
    origin.always(fresh("for all").header("Cache-Control", "public"));
    joe().await;
    assert_eq!((status(&joe().await), gateway.get("/").await.status), ("HIT", 401));
}

/// RFC 9111 §4.1.
#[tokio::test]
async fn variants_are_kept_apart_and_their_number_is_bounded() {
    let origin = Origin::start().await;
    origin.always(Answer::echo().header("Cache-Control", "max-age=60").header("Vary", "X-Kind"));
    let gateway = caching(&origin, "maxTtl: 3600").await;
    for (kind, expected) in [("a", "MISS"), ("b", "MISS"), ("a", "HIT"), ("b", "HIT"), (" a ", "HIT")] {
        let reply = gateway.get("/v").header("X-Kind", kind).await;
        assert_eq!(
            (status(&reply), reply.text().contains(&format!("\"{}\"", kind.trim()))),
            (expected, true),
            "{kind}"
        );
    }
    assert_eq!(status(&gateway.get("/v").await), "MISS", "without the header");
    let mut connection = gateway.connect().await;
    for kind in 0..200 {
        connection.send(gateway.get("/v").header("X-Kind", &kind.to_string())).await;
    }
    let page = gateway.get("/metrics").await.text();
    assert!(page.contains("goma_edge_cache_entries{name=\"cache\",route=\"r\"} 64\n"), "{page}");
}

/// RFC 9111 §4.3: a stored response is validated, and freshened by what the backend says.
#[tokio::test]
async fn a_stale_response_is_validated_and_its_head_updated() {
    let origin = Origin::start().await;
    origin.on("/a", stale("body").header("Cache-Control", "max-age=60").header("X-Own", "1"));
    let gateway = caching(&origin, "maxTtl: 3600").await;
    assert_eq!(status(&gateway.get("/a").await), "MISS");
    origin.on(
        "/a",
        Answer::status(304).header("ETag", "\"v1\"").header("Cache-Control", "max-age=50").header("X-Own", "2"),
    );
    let validated = gateway.get("/a").await;
    assert_eq!((validated.status, status(&validated), validated.text().as_str()), (200, "REVALIDATED", "body"));
    assert_eq!(validated.header("X-Own"), Some("2"));
    assert_eq!(origin.last().header("If-None-Match"), Some("\"v1\""));
    let hit = gateway.get("/a").await;
    assert_eq!((status(&hit), hit.text().as_str(), hit.header("X-Own")), ("HIT", "body", Some("2")));
    assert_eq!(hit.header("Cache-Control"), Some("max-age=50"));
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn a_new_response_takes_the_place_of_a_stale_one() {
    let origin = Origin::start().await;
    origin.on("/a", stale("old").header("Cache-Control", "max-age=60"));
    let gateway = caching(&origin, "maxTtl: 3600").await;
    gateway.get("/a").await;
    origin.on("/a", fresh("new"));
    let reply = gateway.get("/a").await;
    assert_eq!((status(&reply), reply.text().as_str()), ("EXPIRED", "new"));
    let hit = gateway.get("/a").await;
    assert_eq!((status(&hit), hit.text().as_str()), ("HIT", "new"));
    origin.on("/a", fresh("secret").header("Cache-Control", "private"));
    gateway.get("/a").header("Cache-Control", "no-cache").await;
    assert_eq!(status(&gateway.get("/a").await), "MISS", "what became private is not served any more");
}

/// RFC 9111 §4.3.2.
#[tokio::test]
async fn a_client_that_has_it_is_told_so_from_the_store() {
    let origin = Origin::start().await;
    origin.on("/a", fresh("body").header("ETag", "\"v1\"").header("Last-Modified", "Fri, 27 Nov 2026 08:00:00 GMT"));
    let gateway = caching(&origin, "maxTtl: 3600").await;
    gateway.get("/a").await;
    for (name, value, expected) in [
        ("If-None-Match", "\"v1\"", 304),
        ("If-None-Match", "W/\"v1\"", 304),
        ("If-None-Match", "\"v2\"", 200),
        ("If-Modified-Since", "Fri, 27 Nov 2026 08:00:00 GMT", 304),
        ("If-Modified-Since", "Fri, 27 Nov 2026 07:00:00 GMT", 200),
    ] {
        let reply = gateway.get("/a").header(name, value).await;
        assert_eq!((reply.status, status(&reply)), (expected, "HIT"), "{name}: {value}");
        assert_eq!(reply.header("ETag"), Some("\"v1\""));
        assert_eq!(reply.body.is_empty(), expected == 304);
    }
    assert_eq!(origin.seen().len(), 1);
}

/// W-03: what one client asks for must not become what others get.
#[tokio::test]
async fn conditions_and_ranges_of_one_client_poison_nothing() {
    let origin = Origin::start().await;
    origin.always(fresh("0123456789").header("ETag", "\"v1\""));
    let gateway = caching(&origin, "maxTtl: 3600").await;
    for (path, name, value, expected, body) in [
        ("/inm", "If-None-Match", "\"v1\"", 304, ""),
        ("/range", "Range", "bytes=2-3", 206, "23"),
        ("/suffix", "Range", "bytes=-2", 206, "89"),
        ("/beyond", "Range", "bytes=50-", 416, ""),
        ("/if-range", "Range", "bytes=0-0", 206, "0"),
    ] {
        let first = gateway.get(path).header(name, value).await;
        assert_eq!((first.status, first.text().as_str()), (expected, body), "{path}");
        assert!(origin.last().header(name).is_none(), "{path}: the backend is asked for the whole");
        let other = gateway.get(path).await;
        assert_eq!((other.status, other.text().as_str(), status(&other)), (200, "0123456789", "HIT"), "{path}");
        let again = gateway.get(path).header(name, value).await;
        assert_eq!((again.status, again.text().as_str()), (expected, body), "{path}");
    }
    let parts = gateway.get("/range").header("Range", "bytes=0-1,4-5").await;
    assert!(parts.status == 206 && parts.header("Content-Type").is_some_and(|t| t.starts_with("multipart/byteranges")));
    let whole = gateway.get("/range").header("Range", "bytes=2-3").header("If-Range", "W/\"v1\"").await;
    assert_eq!((whole.status, whole.text().as_str()), (200, "0123456789"), "a weak tag matches nothing");
}

#[tokio::test]
async fn head_is_answered_from_what_get_stored_and_fetches_nothing_itself() {
    let origin = Origin::start().await;
    origin.on("/a", fresh("hello"));
    let gateway = caching(&origin, "maxTtl: 3600").await;
    let first = gateway.request("HEAD", "/a").await;
    assert_eq!((status(&first), origin.last().method.as_str()), ("none", "HEAD"), "no word of the cache");
    gateway.get("/a").await;
    let head = gateway.request("HEAD", "/a").await;
    assert_eq!((status(&head), head.header("Content-Length"), head.body.is_empty()), ("HIT", Some("5"), true));
    assert_eq!(origin.seen().len(), 2);
}

/// RFC 9111 §4.4.
#[tokio::test]
async fn unsafe_methods_make_what_is_stored_useless() {
    let origin = Origin::start().await;
    origin.always(fresh("x").header("Content-Location", "/other"));
    let gateway = caching(&origin, "maxTtl: 3600").await;
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        for path in ["/a", "/other"] {
            gateway.get(path).await;
            assert_eq!(status(&gateway.get(path).await), "HIT");
        }
        gateway.request(method, "/a").await;
        for path in ["/a", "/other"] {
            assert_eq!(status(&gateway.get(path).await), "MISS", "{method} {path}");
        }
        origin.always(Answer::status(500));
        gateway.request(method, "/a").await;
        assert_eq!(status(&gateway.get("/a").await), "HIT", "a failed {method} changes nothing");
        origin.always(fresh("x").header("Content-Location", "/other"));
    }
    origin.on("/far", fresh("x").header("Location", "http://else.where/a"));
    gateway.request("POST", "/far").await;
    assert_eq!(status(&gateway.get("/a").await), "HIT", "not the responses of another host");
}

/// RFC 9111 §5.2.1.
#[tokio::test]
async fn clients_may_ask_for_more_or_less_than_fresh() {
    let origin = Origin::start().await;
    origin.on("/a", fresh("x").header("Age", "20"));
    origin.on("/stale", stale("x").header("Cache-Control", "max-age=60"));
    origin.on("/strict", stale("x").header("Cache-Control", "max-age=60, must-revalidate"));
    let gateway = caching(&origin, "maxTtl: 3600, maxStale: 10").await;
    for (path, control, expected) in [
        ("/a", "max-age=10", "EXPIRED"),
        ("/a", "min-fresh=50", "EXPIRED"),
        ("/a", "no-cache", "EXPIRED"),
        ("/a", "no-store", "BYPASS"),
        ("/a", "only-if-cached", "HIT"),
        ("/stale", "max-stale=5", "STALE"),
        ("/stale", "max-stale", "STALE"),
        ("/stale", "max-stale=0", "EXPIRED"),
        ("/strict", "max-stale=5", "EXPIRED"),
    ] {
        gateway.get(path).await;
        let reply = gateway.get(path).header("Cache-Control", control).await;
        assert_eq!(status(&reply), expected, "{path} {control}");
    }
    origin.forget();
    assert_eq!(gateway.get("/none").header("Cache-Control", "only-if-cached").await.status, 504);
    assert!(origin.saw_nothing());
}

/// RFC 5861.
#[tokio::test]
async fn a_backend_that_fails_is_covered_for_as_long_as_it_allowed() {
    let origin = Origin::start().await;
    let gateway = caching(&origin, "maxTtl: 3600").await;
    for (path, failure) in [("/500", Answer::status(500)), ("/503", Answer::status(503)), ("/close", Answer::close())] {
        origin.on(path, stale("kept").header("Cache-Control", "max-age=60, stale-if-error=600"));
        gateway.get(path).await;
        origin.on(path, failure.clone());
        for _ in 0..2 {
            let reply = gateway.get(path).await;
            assert_eq!((reply.status, status(&reply), reply.text().as_str()), (200, "STALE", "kept"), "{path}");
        }
        assert_ne!(
            gateway.get(path).header("Cache-Control", "no-cache").await.status,
            200,
            "{path}: it must be validated"
        );
        origin.on(path, stale("kept").header("Cache-Control", "max-age=60, stale-if-error=600, must-revalidate"));
        gateway.get(path).await;
        origin.on(path, failure);
        assert_ne!(gateway.get(path).await.status, 200, "{path}: must-revalidate");
    }
}

/// RFC 5861 §3.
#[tokio::test]
async fn a_stale_response_goes_out_while_it_is_fetched_anew() {
    let origin = Origin::start().await;
    origin.on("/a", stale("old").header("Cache-Control", "max-age=60, stale-while-revalidate=600"));
    let gateway = caching(&origin, "maxTtl: 3600").await;
    gateway.get("/a").await;
    origin.on("/a", fresh("new"));
    let reply = gateway.get("/a").await;
    assert_eq!((status(&reply), reply.text().as_str()), ("STALE", "old"));
    eventually("it is fetched anew", async || {
        let reply = gateway.get("/a").await;
        (status(&reply) == "HIT" && reply.text() == "new").then_some(())
    })
    .await;
    assert_eq!(origin.seen().len(), 2);
    let page = gateway.get("/metrics").await.text();
    assert!(!page.contains("outcome=\"expired\""), "nobody waited: {page}");
}

#[tokio::test]
async fn many_requests_at_once_are_one_for_the_backend() {
    let origin = Origin::start().await;
    origin.on("/slow", fresh("shared").delay(std::time::Duration::from_millis(500)));
    let gateway = caching(&origin, "maxTtl: 3600, lock: 20s").await;
    let asked = (0..1000).map(|_| gateway.get("/slow").into_future());
    for reply in futures::future::join_all(asked).await {
        assert_eq!(reply.text(), "shared");
    }
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn others_read_along_while_a_response_comes() {
    let origin = Origin::start().await;
    let (one, two) = ("1".repeat(40_000), "2".repeat(40_000));
    let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 80000\r\n\r\n";
    origin.on("/long", Answer::raw_held(&[&format!("{head}{one}"), &two]));
    let gateway = caching(&origin, "maxTtl: 3600, lock: 20s").await;
    let (_, mut first, _) = gateway.get("/long").open().await;
    let (reply, mut second, _) = gateway.get("/long").open().await;
    assert_eq!((reply.status, status(&reply)), (200, "HIT"));
    // Pingora holds back what is smaller than a packet.
    assert_eq!(second.wire.exactly(30_000).await.unwrap(), one[..30_000], "before it is whole");
    origin.release();
    for (client, left) in [(&mut second, 50_000), (&mut first, 80_000)] {
        assert!(client.wire.exactly(left).await.unwrap().ends_with(two.as_bytes()));
    }
    assert_eq!((origin.seen().len(), status(&gateway.get("/long").await)), (1, "HIT"));
}

#[tokio::test]
async fn a_body_that_is_cut_off_or_too_large_is_not_stored() {
    let origin = Origin::start().await;
    origin.on("/cut", Answer::cut("0123456789", 5).header("Cache-Control", "max-age=60"));
    let gateway = caching(&origin, "maxTtl: 3600, maxObjectSize: 64Ki").await;
    let cut = gateway.get("/cut").attempt().await;
    assert!(cut.is_err() || cut.is_ok_and(|reply| reply.status == 502));
    origin.on("/cut", fresh("whole"));
    let reply = gateway.get("/cut").await;
    assert_eq!((status(&reply), reply.text().as_str()), ("MISS", "whole"));
    let large = "x".repeat(65 * 1024);
    let pieces = large.as_bytes().chunks(8192).map(|piece| Piece::Data(piece.to_vec().into()));
    for (path, answer) in [("/large", Answer::ok(large.clone())), ("/chunks", Answer::pieces(pieces))] {
        origin.on(path, answer.header("Cache-Control", "max-age=60"));
        for _ in 0..2 {
            let reply = gateway.get(path).await;
            assert_eq!((status(&reply), reply.body.len()), ("MISS", large.len()), "{path}");
        }
    }
    origin.on(
        "/small-chunks",
        Answer::pieces([Piece::Data("ab".into()), Piece::Data("cd".into())]).header("Cache-Control", "max-age=60"),
    );
    gateway.get("/small-chunks").await;
    let hit = gateway.get("/small-chunks").await;
    assert_eq!((status(&hit), hit.text().as_str(), hit.header("Content-Length")), ("HIT", "abcd", Some("4")));
}

#[tokio::test]
async fn what_the_key_does_not_know_does_not_get_into_the_store() {
    let origin = Origin::start().await;
    origin.always(fresh("x"));
    let gateway = caching(&origin, "maxTtl: 3600").await;
    for (name, value) in [
        ("X-HTTP-Method-Override", "POST"),
        ("X-Original-URL", "/admin"),
        ("X-Rewrite-URL", "/admin"),
        ("X-Host", "evil.example"),
    ] {
        let reply = gateway.get("/poison").header(name, value).await;
        assert_eq!(status(&reply), "BYPASS", "{name}");
    }
    let fat = gateway.request("GET", "/poison").body("x=1").await;
    assert_eq!(status(&fat), "BYPASS", "a GET with a body");
    assert_eq!(status(&gateway.get("/poison").await), "MISS", "none of them left anything");
    for (path, host) in [
        ("/poison?x=1", "gateway.test"),
        ("/poison", "other.test"),
        ("/Poison", "gateway.test"),
        ("/poison%2F", "gateway.test"),
        ("//poison", "gateway.test"),
    ] {
        assert_eq!(status(&gateway.get(path).host(host).await), "MISS", "{host}{path}");
    }
    assert_eq!(status(&gateway.get("/poison").host("GATEWAY.test").await), "HIT", "hosts have no case");
    for (name, value) in
        [("X-Forwarded-Host", "evil.example"), ("X-Forwarded-Proto", "https"), ("Forwarded", "host=evil")]
    {
        let reply = gateway.get("/forwarded").header(name, value).await;
        assert!(!origin.last().headers.all(name).contains(&value), "{name} does not reach the backend");
        assert_eq!(reply.status, 200);
    }
    assert_eq!(gateway.get("/a/..%2fposon").await.status, 400);
}

#[tokio::test]
async fn a_private_page_with_the_name_of_an_asset_is_not_stored() {
    let origin = Origin::start().await;
    origin.always(Answer::ok("your account").header("Content-Type", "text/html"));
    let gateway = caching(&origin, "maxTtl: 3600, defaultTtl: 60s").await;
    for path in ["/account/x.css", "/account/%2e%2e%2fx.js", "/account;x.png", "/account%00.css"] {
        let first = gateway.get(path).header("Cookie", "session=1").await;
        assert!(first.status == 400 || status(&first) == "MISS", "{path}");
        let other = gateway.get(path).header("Cookie", "session=2").await;
        assert!(other.status == 400 || status(&other) == "MISS", "{path}: {}", status(&other));
    }
}

/// Rows of the compatibility list.
#[tokio::test]
async fn goma_s_settings_work() {
    let origin = Origin::start().await;
    let gateway =
        caching(&origin, "maxTtl: 5, defaultTtl: 60s, disableCacheStatusHeader: true, includeQueryInKey: true").await;
    origin.on("/c", Answer::ok("x"));
    gateway.get("/c?x=1").await;
    let other = gateway.get("/c?x=2").await;
    assert_eq!(other.header("X-Goma-Cache"), Some("MISS"), "another query");
    let hit = gateway.get("/c?x=2").await;
    assert_eq!(
        (hit.header("X-Goma-Cache"), hit.header("X-Cache-Status"), hit.header("Cache-Control")),
        (Some("HIT"), None, None)
    );
    assert!(hit.header("X-Goma-Cache-Max-Age").is_some_and(|left| left == "4" || left == "5"), "maxTtl caps");
    gateway.request("DELETE", "/c?x=2").await;
    assert_eq!(gateway.get("/c?x=2").await.header("X-Goma-Cache"), Some("MISS"));
    origin.on("/see-other", Answer::status(303).header("Location", "/x").header("Cache-Control", "max-age=9"));
    for expected in ["MISS", "HIT"] {
        let reply = gateway.get("/see-other").await;
        assert_eq!(
            (reply.status, reply.header("Location"), reply.header("X-Goma-Cache")),
            (303, Some("/x"), Some(expected))
        );
    }
    origin.on("/gone", Answer::status(404));
    gateway.get("/gone").await;
    origin.on("/gone", Answer::ok("back"));
    assert_eq!(gateway.get("/gone").await.text(), "back");
}

#[tokio::test]
async fn responses_go_when_there_is_no_room() {
    let origin = Origin::start().await;
    origin.always(fresh(&"x".repeat(30_000)));
    let gateway = caching(&origin, "maxTtl: 60, memoryLimit: 256Ki, maxObjectSize: 64Ki").await;
    let mut connection = gateway.connect().await;
    for path in 0..40 {
        assert_eq!(connection.send(gateway.get(&format!("/{path}"))).await.body.len(), 30_000);
    }
    let page = gateway.get("/metrics").await.text();
    let value = |name: &str| -> f64 {
        let line = page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in\n{page}"));
        line.rsplit(' ').next().expect("a value").parse().expect("a number")
    };
    assert!(value("goma_edge_cache_bytes{") <= 262_144.0 && value("goma_edge_cache_evicted_total{") >= 30.0);
}

#[tokio::test]
async fn what_is_stored_survives_a_reload_and_goes_with_its_route() {
    let origin = Origin::start().await;
    origin.always(fresh("x"));
    let gateway = caching(&origin, "maxTtl: 60").await;
    gateway.get("/a").await;
    let (routes, other) =
        ("- {name: r, path: /, target: ORIGIN, middlewares: [cache]}", "- {name: s, path: /s, target: ORIGIN}");
    let rule = |ttl: u32| format!("- {{name: cache, type: httpCache, paths: ['/*'], rule: {{maxTtl: {ttl}}}}}");
    gateway.reload_with(&document("", &format!("{routes}\n{other}"), &rule(61))).await;
    assert_eq!(status(&gateway.get("/a").await), "HIT");
    gateway.reload_with(&document("", other, &rule(61))).await;
    gateway.reload_with(&document("", routes, &rule(61))).await;
    assert_eq!(status(&gateway.get("/a").await), "MISS");
}

#[tokio::test]
async fn purges_reach_what_they_name_and_nobody_else_may() {
    let origin = Origin::start().await;
    origin.always(fresh("x").header("Cache-Tag", "red, round").header("ETag", "\"v1\""));
    let gateway = caching(&origin, "maxTtl: 60, purge: {allowed: [127.0.0.1], token: secret}").await;
    let purge = |path: &str| gateway.request("PURGE", path).header("Authorization", "Bearer secret");
    let fill = async || {
        for path in ["/a", "/a?x=1", "/b/1", "/b/2"] {
            gateway.get(path).await;
        }
    };
    fill().await;
    assert_eq!(gateway.request("PURGE", "/a").await.status, 403, "no token");
    for (request, purged, misses, hits) in [
        (purge("/a"), 2, &["/a", "/a?x=1"][..], &["/b/1", "/b/2"][..]),
        (purge("/b/*"), 2, &["/b/1", "/b/2"], &["/a", "/a?x=1"]),
        (purge("/").header("Surrogate-Key", "round"), 4, &["/a", "/b/1"], &[]),
        (purge("/").header("Cache-Tag", "blue"), 0, &[], &["/a", "/b/1"]),
    ] {
        let reply = request.await;
        assert_eq!((reply.status, reply.json()["purged"].as_u64()), (200, Some(purged)));
        for (paths, expected) in [(misses, "MISS"), (hits, "HIT")] {
            for path in paths {
                assert_eq!(status(&gateway.get(path).await), expected, "{path}");
            }
        }
        fill().await;
    }
    purge("/a").header("Cache-Purge", "soft").await;
    origin.always(Answer::status(304).header("ETag", "\"v1\"").header("Cache-Control", "max-age=60"));
    assert_eq!(status(&gateway.get("/a").await), "REVALIDATED", "it stayed, stale");
}

#[tokio::test]
async fn the_command_line_tells_what_is_stored_and_purges() {
    let origin = Origin::start().await;
    origin.always(fresh("x"));
    let gateway = Gateway::before(&origin)
        .gateway("cache: {enabled: true, token: secret}")
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [cache]}")
        .middlewares("- {name: cache, type: httpCache, paths: ['/*'], rule: {maxTtl: 60}}")
        .await;
    for path in ["/a", "/b"] {
        gateway.get(path).await;
    }
    let address = format!("127.0.0.1:{}", gateway.port());
    let ask = async |words: &[&str], token: &str| {
        let at = ["--address", &address, "--token", token];
        goma(&[&["cache"], words, &at].concat()).await
    };
    let told = ask(&["status"], "secret").await;
    assert!(told.succeeded() && told.stdout.contains("entries"), "{}", told.all());
    let purged = ask(&["purge", "--url", "gateway.test/a"], "secret").await;
    assert!(purged.succeeded() && purged.stdout.contains("\"purged\":1"), "{}", purged.all());
    assert_eq!((status(&gateway.get("/a").await), status(&gateway.get("/b").await)), ("MISS", "HIT"));
    let refused = ask(&["purge", "--all"], "guess").await;
    assert_eq!((refused.code, status(&gateway.get("/b").await)), (Some(1), "HIT"), "{}", refused.all());
}
