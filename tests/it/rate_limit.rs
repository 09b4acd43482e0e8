//! `rateLimit`: one table of cases for memory and for a real Redis, and what only one of them has.

use serde_json::json;

use crate::world::tokens::{Signer, in_seconds};
use crate::world::*;

/// The rule and what stands beside it, requests with the statuses that they get, keys that Redis then has.
struct Case(&'static str, &'static str, &'static [(&'static str, &'static str, u16)], &'static [&'static str]);

const CASES: &[Case] = &[
    Case(
        "quoted numbers count",
        "rule: {unit: hour, requestsPerUnit: '2'}",
        &[("/", "", 200), ("/", "", 200), ("/", "", 429)],
        &["rate:global:ip:127.0.0.1"],
    ),
    Case(
        "the burst is added",
        "rule: {unit: hour, requestsPerUnit: 1, burst: 2}",
        &[("/", "", 200), ("/a", "", 200), ("/b", "", 200), ("/", "", 429)],
        &["rate:global:ip:127.0.0.1"],
    ),
    Case(
        "each address",
        "rule: {unit: hour, requestsPerUnit: 1, keyStrategy: {source: IP}}",
        &[
            ("/", "", 200),
            ("/", "", 429),
            ("/", "X-Forwarded-For: 192.0.2.9", 200),
            ("/", "X-Forwarded-For: 192.0.2.9", 429),
        ],
        &["rate:ip:127.0.0.1", "rate:ip:192.0.2.9"],
    ),
    Case(
        "each value of a header, else the address",
        "rule: {unit: hour, requestsPerUnit: 1, keyStrategy: {source: header, name: X-Key}}",
        &[("/", "x-key: k1", 200), ("/", "X-Key: k1 ", 429), ("/", "X-Key: k2", 200), ("/", "", 200), ("/", "", 429)],
        &["rate:header:X-Key:value:k1", "rate:header:X-Key:value:k2", "rate:ip:127.0.0.1"],
    ),
    Case(
        "each value of a cookie",
        "rule: {unit: hour, requestsPerUnit: 1, keyStrategy: {source: cookie, name: sid}}",
        &[
            ("/", "Cookie: a=b; sid=s1", 200),
            ("/", "Cookie: sid=s1", 429),
            ("/", "Cookie: sid=s2", 200),
            ("/", "", 200),
        ],
        &["rate:cookie:sid:value:s1", "rate:cookie:sid:value:s2", "rate:ip:127.0.0.1"],
    ),
    Case(
        "an unknown source is the address",
        "rule: {unit: hour, requestsPerUnit: 1, keyStrategy: {source: planet}}",
        &[("/", "", 200), ("/", "", 429)],
        &["rate:ip:127.0.0.1"],
    ),
    Case(
        "its paths only",
        "paths: [/api], rule: {unit: hour, requestsPerUnit: 1}",
        &[("/api", "", 200), ("/api/x", "", 429), ("/%61pi", "", 429), ("/other", "", 200), ("/other", "", 200)],
        &["rate:route:my-route:ip:127.0.0.1"],
    ),
    Case(
        "a ban after the second refusal",
        "rule: {unit: hour, requestsPerUnit: 1, banAfter: 2, banDuration: 1h}",
        &[("/", "", 200), ("/", "", 429), ("/", "", 429), ("/", "", 403), ("/", "", 403)],
        &["rate:ban:global:ip:127.0.0.1", "rate:global:ip:127.0.0.1"],
    ),
    Case(
        "everybody together (ours)",
        "rule: {unit: hour, requestsPerUnit: 2, keyStrategy: {source: route}}",
        &[("/", "", 200), ("/", "X-Forwarded-For: 192.0.2.9", 200), ("/", "X-Forwarded-For: 192.0.2.8", 429)],
        &["rate:route:my-route"],
    ),
    Case(
        "a network of IPv6 (ours)",
        "rule: {unit: hour, requestsPerUnit: 1, keyStrategy: {source: ip, ipv6Prefix: 64}}",
        &[
            ("/", "X-Forwarded-For: 2001:db8::1", 200),
            ("/", "X-Forwarded-For: 2001:db8::2", 429),
            ("/", "X-Forwarded-For: 2001:db8:0:1::1", 200),
        ],
        &["rate:ip:2001:db8:0:1::/64", "rate:ip:2001:db8::/64"],
    ),
    Case(
        "whole addresses of IPv6 unless told otherwise",
        "rule: {unit: hour, requestsPerUnit: 1, keyStrategy: {source: ip}}",
        &[("/", "X-Forwarded-For: 2001:db8::1", 200), ("/", "X-Forwarded-For: 2001:db8::2", 200)],
        &["rate:ip:2001:db8::1", "rate:ip:2001:db8::2"],
    ),
];

/// A gateway that trusts us, with one middleware `m` of a kind on the route `My Route`.
fn limited(origin: &Origin, middleware: &str, redis: Option<&Redis>) -> Builder {
    let redis_keys = redis.map_or(String::new(), |redis| format!("redis: {{addr: '{redis}', timeout: 5s}}\n"));
    Gateway::before(origin)
        .gateway(&format!("{redis_keys}proxy: {{enabled: true, trustedProxies: [127.0.0.1]}}"))
        .routes("- {name: My Route, path: /, target: ORIGIN, middlewares: [m]}")
        .middlewares(&format!("- {{name: m, {middleware}}}"))
}

async fn runs(about: &str, gateway: &Gateway, requests: &[(&str, &str, u16)]) {
    for (at, (path, header, status)) in requests.iter().enumerate() {
        let mut request = gateway.get(path);
        if let Some((name, value)) = header.split_once(": ") {
            request = request.header(name, value);
        }
        assert_eq!(request.await.status, *status, "{about}: request {at} of {path} with `{header}`");
    }
}

/// Waits for Redis to be in use.
async fn connected(gateway: &Gateway) {
    gateway.counts("goma_edge_redis_up 1").await;
}

#[tokio::test]
async fn the_cases_hold_in_memory() {
    let origin = Origin::start().await;
    for Case(about, middleware, requests, _) in CASES {
        let gateway = limited(&origin, &format!("type: rateLimit, {middleware}"), None).await;
        runs(about, &gateway, requests).await;
    }
}

#[tokio::test]
async fn the_cases_hold_in_redis_under_gomas_names() {
    let (origin, redis) = (Origin::start().await, Redis::start().await);
    for Case(about, middleware, requests, keys) in CASES {
        redis.ask::<()>(&["FLUSHDB"]).await;
        let gateway = limited(&origin, &format!("type: ratelimit, {middleware}"), Some(&redis)).await;
        connected(&gateway).await;
        runs(about, &gateway, requests).await;
        let found = eventually("the keys are there", async || {
            let mut found = redis.ask::<Vec<String>>(&["KEYS", "rate:*"]).await;
            found.sort();
            (found == *keys).then_some(found)
        })
        .await;
        assert_eq!(found, *keys, "{about}");
    }
    assert_eq!(redis.ask::<()>(&["PING"]).await, ());
}

#[tokio::test]
async fn redis_holds_what_goma_reads_and_what_goma_wrote_counts() {
    let (origin, redis) = (Origin::start().await, Redis::start().await);
    let rule = "type: rateLimit, rule: {unit: minute, requestsPerUnit: 2, banAfter: 1, banDuration: 90s}";
    let gateway = limited(&origin, rule, Some(&redis)).await;
    connected(&gateway).await;
    assert_eq!(gateway.get("/").await.status, 200);
    let full_at: f64 = redis.ask(&["GET", "rate:global:ip:127.0.0.1"]).await;
    let seconds: (f64, f64) = redis.ask(&["TIME"]).await;
    let now = seconds.0 + seconds.1 / 1e6 - 1_483_228_800.0;
    assert!((20.0..=30.0).contains(&(full_at - now)), "a token takes 30 s: full in {}", full_at - now);
    let ttl: u64 = redis.ask(&["TTL", "rate:global:ip:127.0.0.1"]).await;
    assert!((20..=30).contains(&ttl), "{ttl}");

    // Goma, on another machine, has used up the rest.
    redis.ask::<()>(&["SET", "rate:global:ip:127.0.0.1", &format!("{}", now + 59.0)]).await;
    assert_eq!(gateway.get("/").await.status, 429);
    assert_eq!(redis.ask::<String>(&["GET", "rate:ban:global:ip:127.0.0.1"]).await, "banned");
    let ttl: u64 = redis.ask(&["TTL", "rate:ban:global:ip:127.0.0.1"]).await;
    assert!((80..=90).contains(&ttl), "{ttl}");
    assert_eq!(gateway.get("/").await.status, 403);

    // A ban that an operator lifts is over for us as well.
    redis.ask::<()>(&["FLUSHDB"]).await;
    eventually("the ban is lifted", async || (gateway.get("/").await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn a_refusal_says_when_to_come_back() {
    let origin = Origin::start().await;
    let rule = "type: rateLimit, rule: {unit: minute, requestsPerUnit: 2, banAfter: 2, banDuration: 90s}";
    let gateway = limited(&origin, rule, None).await;
    let passed = gateway.get("/").await;
    assert_eq!((passed.status, passed.header("RateLimit"), passed.header("Retry-After")), (200, None, None));
    gateway.get("/").await;
    let refused = gateway.get("/").await;
    assert_eq!((refused.status, refused.text().as_str()), (429, "429 Too many requests. Try again later.\n"));
    let seconds: u64 = refused.header("Retry-After").expect("when").parse().expect("seconds");
    assert!((1..=30).contains(&seconds), "{seconds}");
    assert_eq!(refused.header("RateLimit-Policy"), Some("\"m\";q=2;w=60"));
    assert_eq!(refused.header("RateLimit"), Some(format!("\"m\";r=0;t={seconds}").as_str()));
    let json = gateway.get("/").accept("application/json").await;
    let body = json!({"success": false, "statusCode": 429, "error": "429 Too many requests. Try again later."});
    assert_eq!((json.status, json.json()), (429, body));
    let banned = gateway.get("/").await;
    let text = "403 Forbidden: Client temporarily banned due to repeated abuse\n";
    assert_eq!((banned.status, banned.text().as_str()), (403, text));
    let seconds: u64 = banned.header("Retry-After").expect("when").parse().expect("seconds");
    assert!((60..=90).contains(&seconds), "{seconds}");
    gateway.counts("goma_edge_rate_limit_total{by=\"memory\",middleware=\"m\",result=\"limited\"} 2").await;
}

#[tokio::test]
async fn who_asks_for_it_is_always_told() {
    let origin = Origin::start().await;
    let rule = "type: rateLimit, rule: {unit: hour, requestsPerUnit: 3, headers: always}";
    let gateway = limited(&origin, rule, None).await;
    for (left, seconds) in [(2, 1200), (1, 2400)] {
        let reply = gateway.get("/").await;
        let (policy, told) = (reply.header("RateLimit-Policy"), reply.header("RateLimit").expect("what is left"));
        assert_eq!((reply.status, policy), (200, Some("\"m\";q=3;w=3600")));
        let start = format!("\"m\";r={left};t=");
        let reset: i64 = told.strip_prefix(&start).expect("tokens left").parse().expect("seconds");
        assert!((seconds - reset).abs() < 60, "{told}");
    }
}

#[tokio::test]
async fn buckets_in_memory_are_a_routes_own_and_survive_a_reload_that_leaves_them_alone() {
    let origin = Origin::start().await;
    let routes = |more: &str| {
        format!(
            "- {{name: a, path: /a, target: ORIGIN, middlewares: [m]}}\n- {{name: b, path: /b, target: ORIGIN, middlewares: [m, m]}}{more}"
        )
    };
    let middlewares = |rate: u32| {
        format!(
            "- {{name: m, type: rateLimit, rule: {{unit: hour, requestsPerUnit: {rate}}}}}
- {{name: all, type: rateLimit, rule: {{unit: hour, requestsPerUnit: 2, scope: middleware}}}}"
        )
    };
    let gateway = Gateway::before(&origin).routes(&routes("")).middlewares(&middlewares(1)).await;
    runs("a", &gateway, &[("/a", "", 200), ("/a", "", 429), ("/b", "", 200), ("/b", "", 429)]).await;
    let more = "\n- {name: c, path: /c, target: ORIGIN, middlewares: [all]}\n- {name: d, path: /d, target: ORIGIN, middlewares: [all]}";
    let document = |rate| document("", &routes(more), &middlewares(rate));
    assert_eq!(gateway.reload_with(&document(1)).await, Applied::New);
    runs("as before", &gateway, &[("/a", "", 429), ("/b", "", 429)]).await;
    runs("together", &gateway, &[("/c", "", 200), ("/d", "", 200), ("/c", "", 429), ("/d", "", 429)]).await;
    assert_eq!(gateway.reload_with(&document(2)).await, Applied::New);
    runs("a new limit", &gateway, &[("/a", "", 200), ("/a", "", 200), ("/a", "", 429), ("/d", "", 429)]).await;
}

#[tokio::test]
async fn a_claim_of_the_token_names_the_bucket() {
    let (origin, signer) = (Origin::start().await, Signer::secret("a secret of the gateway, long enough"));
    let gateway = Gateway::before(&origin)
        .routes("- {name: r, path: /, target: ORIGIN, middlewares: [who, m]}")
        .middlewares(
            "- {name: who, type: jwt, rule: {secret: 'a secret of the gateway, long enough'}}
- {name: m, type: rateLimit, rule: {unit: hour, requestsPerUnit: 1, keyStrategy: {source: claim, name: user.id}}}",
        )
        .await;
    let token = |id: u64| {
        let token =
            signer.token("HS256", &json!({"user": {"id": id}, "exp": in_seconds(600), "nonce": rand::random::<u64>()}));
        format!("Bearer {token}")
    };
    for (id, status) in [(1, 200), (1, 429), (2, 200), (2, 429), (1, 429)] {
        assert_eq!(gateway.get("/").header("Authorization", &token(id)).await.status, status, "user {id}");
    }
}

#[tokio::test]
async fn scope_gives_keys_of_their_own_and_long_values_are_hashed() {
    let (origin, redis) = (Origin::start().await, Redis::start().await);
    let rule = "type: rateLimit, rule: {unit: hour, requestsPerUnit: 1, scope: route, keyStrategy: {source: header, name: X-Key}}";
    let gateway = limited(&origin, rule, Some(&redis)).await;
    connected(&gateway).await;
    let long = "x".repeat(5000);
    for status in [200, 429] {
        assert_eq!(gateway.get("/").header("X-Key", &long).await.status, status);
    }
    let keys = redis.ask::<Vec<String>>(&["KEYS", "rate:*"]).await;
    assert!(keys[0].starts_with("rate:goma-edge:m:my-route:header:X-Key:value:sha256:"), "{keys:?}");
    assert!(keys.len() == 1 && keys[0].len() < 150, "{keys:?}");
}

#[tokio::test]
async fn limits_that_use_up_each_other_in_redis_are_named() {
    let origin = Origin::start().await;
    let middlewares = "- {name: wide, type: rateLimit, rule: {unit: minute, requestsPerUnit: 1000}}
- {name: narrow, type: rateLimit, rule: {unit: minute, requestsPerUnit: 10}}
- {name: own, type: rateLimit, rule: {unit: minute, requestsPerUnit: 10, scope: middleware}}
- {name: same, type: rateLimit, rule: {unit: minute, requestsPerUnit: 1000}}
- {name: login, type: rateLimit, paths: [/login], rule: {unit: minute, requestsPerUnit: 5}}";
    for (redis, warned) in [("redis: {addr: '127.0.0.1:1'}", 1), ("", 0)] {
        let gateway = Gateway::before(&origin).gateway(redis).middlewares(middlewares).await;
        let file = gateway.file("goma.yml").display().to_string();
        let output = goma(&["config", "check", "-c", &file]).await;
        let odd: Vec<&str> = output.stdout.lines().filter(|line| line.contains("another limit")).collect();
        assert_eq!(odd.len(), warned, "{}", output.all());
        assert!(odd.iter().all(|line| line.contains("middlewares[1].rule")), "{odd:?}");
    }
}

#[tokio::test]
async fn ever_new_clients_do_not_grow_the_gateway() {
    let origin = Origin::start().await;
    let gateway = limited(&origin, "type: rateLimit, rule: {unit: minute, requestsPerUnit: 100}", None).await;
    let mut connection = gateway.connect().await;
    let mut ask = async |from: u32, count: u32| {
        for block in (from..from + count).step_by(100) {
            let requests: String = (block..block + 100)
                .map(|client| {
                    let [a, b, c, d] = (client + (1 << 25)).to_be_bytes();
                    format!("HEAD / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {a}.{b}.{c}.{d}\r\n\r\n")
                })
                .collect();
            connection.write(requests.as_bytes()).await;
            for _ in 0..100 {
                assert_eq!(connection.reply("HEAD").await.expect("a reply").status, 200);
            }
        }
    };
    ask(0, 2_000).await;
    let before = gateway.rss_bytes();
    ask(2_000, 8_000).await;
    let grown = gateway.rss_bytes().saturating_sub(before);
    assert!(grown < 8 << 20, "grown by {} KiB", grown / 1024);
}
