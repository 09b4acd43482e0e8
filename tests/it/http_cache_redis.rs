//! `httpCache` with Redis behind: gateways share what is stored, and purges reach all of them.

use std::time::{Duration, Instant};

use crate::world::*;

async fn sharing(origin: &Origin, redis: &Redis) -> Gateway {
    Gateway::before(origin)
        .word("REDIS", redis)
        .gateway("redis: {addr: REDIS}\ncache: {enabled: true, token: secret}")
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [cache]}")
        .middlewares("- {name: cache, type: httpCache, paths: ['/*'], rule: {maxTtl: 3600, lock: 20s}}")
        .await
}

fn fresh(body: &str) -> Answer {
    Answer::ok(body.to_owned()).header("Cache-Control", "max-age=60").header("Cache-Tag", "red")
}

fn status(reply: &Reply) -> &str {
    reply.header("X-Cache-Status").unwrap_or("none")
}

/// Asks again and again until the gateway has it, while the backend is asked no more.
async fn has(gateway: &Gateway, path: &str, kind: &str) -> Reply {
    eventually("it is served from Redis", async || {
        let reply = gateway.get(path).header("X-Kind", kind).header("Cache-Control", "only-if-cached").await;
        let reply = if reply.status == 504 { gateway.get(path).header("X-Kind", kind).await } else { reply };
        (status(&reply) == "HIT").then_some(reply)
    })
    .await
}

#[tokio::test]
async fn two_gateways_fetch_once_and_hear_of_purges() {
    let (origin, redis) = (Origin::start().await, Redis::start().await);
    let large = "0123456789abcdef".repeat(40_000);
    origin.on("/small", fresh("small"));
    origin.on("/large", fresh(&large).header("ETag", "\"v1\""));
    origin.on("/kinds", fresh("kinds").header("Vary", "X-Kind"));
    let (one, two) = (sharing(&origin, &redis).await, sharing(&origin, &redis).await);
    for gateway in [&one, &two] {
        gateway.counts("goma_edge_redis_up 1").await;
    }
    for (path, body) in [("/small", "small"), ("/large", large.as_str()), ("/kinds", "kinds")] {
        assert_eq!(one.get(path).header("X-Kind", "a").await.text(), body);
        let expected = match path {
            "/small" => 2,
            "/large" => 7,
            _ => 9,
        };
        eventually("it is written", async || {
            let keys: Vec<String> = redis.ask(&["KEYS", "goma-edge:cache:v1:*"]).await;
            (keys.len() >= expected).then_some(())
        })
        .await;
        origin.forget();
        let reply = has(&two, path, "a").await;
        assert_eq!((reply.text().as_str(), origin.saw_nothing()), (body, true), "{path}");
    }
    let mut soonest = Duration::MAX;
    for _ in 0..5 {
        has(&two, "/small", "a").await;
        let began = Instant::now();
        let purge = one.request("POST", "/gateway/cache?tag=red").header("Authorization", "Bearer secret").await;
        assert_eq!(purge.status, 200);
        while two.get("/small").header("Cache-Control", "only-if-cached").await.status != 504 {
            assert!(began.elapsed() < PATIENCE, "the other gateway never hears of it");
        }
        soonest = soonest.min(began.elapsed());
    }
    assert!(soonest < Duration::from_millis(100), "the other gateway heard of a purge within {soonest:?}");
    assert_eq!(status(&two.get("/large").await), "MISS", "nor is it taken from Redis again");
    let three = sharing(&origin, &redis).await;
    three.counts("goma_edge_redis_up 1").await;
    origin.forget();
    eventually("one that comes later hears of it, too", async || {
        let reply = three.get("/kinds").header("X-Kind", "a").await;
        (status(&reply) == "MISS" && !origin.saw_nothing()).then_some(())
    })
    .await;
    origin.on("/small", fresh("new"));
    two.get("/small").await;
    one.get("/small").await;
    let published: i64 = redis.ask(&["PUBLISH", "goma-edge:cache:v1:purge", "{\"url\": \"gateway.test/small\"}"]).await;
    assert!(published >= 2);
    for gateway in [&one, &two] {
        eventually("what an application publishes is heard", async || {
            let reply = gateway.get("/small").header("Cache-Control", "only-if-cached").await;
            (reply.status == 504).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn redis_may_go_at_any_time_and_no_request_fails() {
    let (origin, mut redis) = (Origin::start().await, Redis::start().await);
    origin.always(fresh("here"));
    let gateway = sharing(&origin, &redis).await;
    let mut connection = gateway.connect().await;
    for number in 0..300 {
        if number == 100 {
            redis.stop();
        }
        let began = Instant::now();
        let reply = connection.send(gateway.get(&format!("/{number}"))).await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "here"), "{number}");
        assert!(began.elapsed() < Duration::from_secs(5), "{number}: nobody waits for Redis");
        assert_eq!(status(&connection.send(gateway.get(&format!("/{number}"))).await), "HIT");
    }
}
