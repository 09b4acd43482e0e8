//! `rateLimit` over several gateways with one Redis: exact, leased, and while Redis is gone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::world::*;

/// A gateway with this rule, whose buckets are told apart by the header `X-Key`.
async fn gateway(origin: &Origin, redis: &impl ToString, rule: &str) -> Gateway {
    let gateway = Gateway::before(origin)
        .gateway(&format!("redis: {{{}}}", redis.to_string()))
        .routes(
            "- {name: tight, path: /tight, target: ORIGIN, middlewares: [m]}
- {name: free, path: /free, target: ORIGIN, middlewares: [wide]}",
        )
        .middlewares(&format!(
            "- {{name: m, type: rateLimit, rule: {{{rule}, keyStrategy: {{source: header, name: X-Key}}}}}}
- {{name: wide, type: rateLimit, rule: {{unit: second, requestsPerUnit: 1000000, keyStrategy: {{source: ip}}}}}}"
        ))
        .await;
    gateway.counts("goma_edge_redis_up 1").await;
    gateway
}

/// Where Redis is, with patience for a busy machine.
fn patient(redis: &Redis) -> String {
    format!("addr: '{redis}', timeout: 10s")
}

/// Every gateway gets so many requests for each of these keys, all at once; how many passed, by key.
async fn passed(gateways: &[Gateway], keys: usize, each: usize) -> BTreeMap<usize, usize> {
    let mut clients = JoinSet::new();
    for gateway in gateways {
        let mut connection = gateway.connect().await;
        let requests: Vec<_> = (0..keys).map(|key| gateway.get("/tight").header("X-Key", &format!("k{key}"))).collect();
        clients.spawn(async move {
            let mut passed = BTreeMap::new();
            for _ in 0..each {
                for (key, request) in requests.iter().enumerate() {
                    let reply = connection.attempt(request).await.expect("a whole answer");
                    assert!(matches!(reply.status, 200 | 429), "{}", reply.status);
                    *passed.entry(key).or_insert(0) += usize::from(reply.status == 200);
                }
            }
            passed
        });
    }
    let mut total = BTreeMap::new();
    while let Some(passed) = clients.join_next().await {
        for (key, count) in passed.expect("a client does not panic") {
            *total.entry(key).or_insert(0) += count;
        }
    }
    total
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_gateways_together_allow_what_the_limit_says() {
    let (origin, redis) = (Origin::start().await, Redis::start().await);
    // (keys, limit, requests of each gateway for each key)
    for (keys, limit, each) in [(10, 50, 30), (1_000, 2, 1)] {
        redis.ask::<()>(&["FLUSHDB"]).await;
        let rule = format!("unit: hour, requestsPerUnit: {limit}");
        let mut gateways = Vec::new();
        for _ in 0..3 {
            gateways.push(gateway(&origin, &patient(&redis), &rule).await);
        }
        let passed = passed(&gateways, keys, each).await;
        assert!(passed.len() == keys && passed.values().all(|passed| *passed == limit), "{keys} keys: {passed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_gateways_that_borrow_stay_within_two_percent() {
    let (origin, redis) = (Origin::start().await, Redis::start().await);
    let mut gateways = Vec::new();
    for _ in 0..4 {
        gateways.push(gateway(&origin, &patient(&redis), "unit: hour, requestsPerUnit: 1000, mode: leased").await);
    }
    let before = redis.ask::<String>(&["INFO", "commandstats"]).await;
    assert!(!before.contains("evalsha"), "{before}");
    let passed = passed(&gateways, 2, 400).await;
    assert!(passed.values().all(|passed| (980..=1020).contains(passed)), "{passed:?}");
    let stats = redis.ask::<String>(&["INFO", "commandstats"]).await;
    let calls =
        stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next()?.parse().ok());
    let calls: u64 = calls.expect("scripts ran");
    assert!(calls < 1_000, "{calls} round trips for 3,200 requests");
}

/// The value of this line of the metrics; 0 while there is none.
async fn figure(gateway: &Gateway, name: &str) -> usize {
    let page = gateway.metrics().await;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_default()
}

/// Gets it and says how long that took.
async fn timed(request: Request) -> Duration {
    let since = Instant::now();
    assert_eq!(request.await.status, 200);
    since.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hangs_costs_who_asks_it_then_one_delay_and_nobody_after() {
    const BOUND: Duration = Duration::from_secs(1);
    const SLOW: &str = r#"goma_edge_redis_failures_total{reason="slow"}"#;
    let (origin, redis) = (Origin::start().await, Redis::start().await);
    let gateway = gateway(&origin, &format!("addr: '{redis}', timeout: 1s"), "unit: hour, requestsPerUnit: 5").await;
    timed(gateway.get("/free")).await;
    redis.freeze();
    let together: JoinSet<Duration> = (0..20).map(|_| timed(gateway.get("/free"))).collect();
    let mut together = together.join_all().await;
    together.sort();
    assert!(together[19] >= BOUND, "somebody asked: {together:?}");
    assert!(together[19] < 2 * BOUND, "nobody waits for another one's delay: {together:?}");
    let delayed = together.iter().filter(|time| **time >= BOUND).count();
    // Who counts visitors asks as well, beside the requests.
    let told = delayed..=delayed + 1;
    assert!(told.contains(&figure(&gateway, SLOW).await), "a delay each: {together:?}");

    let mut after = Vec::new();
    for _ in 0..100 {
        after.push(timed(gateway.get("/free")).await);
    }
    after.sort();
    assert!(after[98] < BOUND / 2 && after[50] < BOUND / 10, "p99 {:?}, median {:?}", after[98], after[50]);
    assert!(told.contains(&figure(&gateway, SLOW).await), "nobody asked it again");
    gateway.logs("is not in use").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_default_a_redis_that_hangs_delays_one_of_many_by_50_ms() {
    const SLOW: &str = r#"goma_edge_redis_failures_total{reason="slow"}"#;
    let (origin, redis) = (Origin::start().await, Redis::start().await);
    let gateway = gateway(&origin, &format!("addr: '{redis}'"), "unit: hour, requestsPerUnit: 5").await;
    timed(gateway.get("/free")).await;
    let before = figure(&gateway, SLOW).await;
    redis.freeze();
    let mut times = Vec::new();
    for _ in 0..100 {
        times.push(timed(gateway.get("/free")).await);
    }
    let delayed = figure(&gateway, SLOW).await - before;
    assert!((1..=2).contains(&delayed), "it, and who counts visitors: {delayed}, {times:?}");
    assert!(times[0] < Duration::from_secs(1), "{:?}", times[0]);
    times.sort();
    assert!(times[99] >= Duration::from_millis(50), "{:?}", times[99]);
    assert!(times[50] < Duration::from_millis(50), "the others go on at once: {:?}", times[50]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_fails_while_redis_hangs_dies_and_comes_back() {
    let (origin, mut redis) = (Origin::start().await, Redis::start().await);
    origin.always(Answer::ok("fine"));
    let keys = format!("addr: '{redis}', timeout: 250ms");
    let mut gateways = Vec::new();
    for _ in 0..3 {
        gateways.push(gateway(&origin, &keys, "unit: hour, requestsPerUnit: 5").await);
    }
    let gateway = &gateways[0];
    let key = |name: &str| gateway.get("/tight").header("X-Key", name);
    let loads: Vec<Load> = gateways.iter().map(|gateway| Load::start(gateway, 2, "/free", "fine")).collect();
    let go_on = async |more: u64| {
        for load in &loads {
            load.goes_on(more).await;
        }
    };
    go_on(50).await;
    for _ in 0..3 {
        assert_eq!(key("before").await.status, 200);
    }

    redis.freeze();
    gateway.counts("goma_edge_redis_up 0").await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(key("before").await.status);
    }
    assert_eq!(statuses, [200, 200, 429, 429], "what passed before counts");
    go_on(200).await;

    redis.resume();
    gateway.counts("goma_edge_redis_up 1").await;
    go_on(50).await;
    redis.stop();
    go_on(50).await;
    gateway.counts("goma_edge_redis_up 0").await;
    let mut passed = 0;
    for _ in 0..8 {
        passed += u32::from(key("while it is gone").await.status == 200);
    }
    assert_eq!(passed, 5, "limits count without Redis");
    redis.run().await;
    for gateway in &gateways {
        gateway.counts("goma_edge_redis_up 1").await;
    }
    go_on(50).await;
    eventually("Redis is asked again", async || {
        key("after").await;
        (!redis.ask::<Vec<String>>(&["KEYS", "rate:header:X-Key:value:after"]).await.is_empty()).then_some(())
    })
    .await;
    for load in loads {
        load.stop().await.is_clean(&[200]);
    }
    let lines = |text: &str| gateway.log().matches(text).count();
    assert!(lines("is not in use") - lines("is in use again") <= 1, "a line a change: {}", gateway.log());
}

#[tokio::test]
async fn the_operator_may_have_it_open_or_closed() {
    let (origin, mut redis) = (Origin::start().await, Redis::start().await);
    let keys = patient(&redis);
    let rule = |word: &str| format!("unit: hour, requestsPerUnit: 1, onStoreFailure: {word}");
    let open = gateway(&origin, &keys, &rule("open")).await;
    let closed = gateway(&origin, &keys, &rule("closed")).await;
    redis.stop();
    for gateway in [&open, &closed] {
        gateway.counts("goma_edge_redis_up 0").await;
    }
    for _ in 0..3 {
        assert_eq!(open.get("/tight").await.status, 200);
        let reply = closed.get("/tight").await;
        assert_eq!((reply.status, reply.header("Retry-After")), (503, Some("1")));
    }
}

#[tokio::test]
async fn a_cluster_limits_and_bans_too() {
    let (origin, cluster) = (Origin::start().await, Cluster::start().await);
    let keys = format!("addrs: {}, mode: cluster, timeout: 10s", cluster.list());
    let gateway = gateway(&origin, &keys, "unit: hour, requestsPerUnit: 1, banAfter: 2").await;
    for key in ["one", "two", "three", "four"] {
        for status in [200, 429, 429, 403] {
            assert_eq!(gateway.get("/tight").header("X-Key", key).await.status, status, "{key}");
        }
    }
    eventually("a bucket and a ban for each", async || {
        let mut keys = cluster.keys().await;
        keys.retain(|key| key.starts_with("rate:"));
        (keys.len() == 8 && keys.contains(&"rate:ban:{header:X-Key:value:three}".to_owned())).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_exhausted_bucket_costs_no_round_trip() {
    let (origin, redis) = (Origin::start().await, Redis::start().await);
    let gateway = gateway(&origin, &patient(&redis), "unit: hour, requestsPerUnit: 1").await;
    for status in [200, 429, 429, 429, 429] {
        assert_eq!(gateway.get("/tight").await.status, status);
    }
    gateway.counts("goma_edge_rate_limit_total{by=\"lease\",middleware=\"m\",result=\"limited\"} 3").await;
    gateway.counts("goma_edge_rate_limit_total{by=\"redis\",middleware=\"m\",result=\"limited\"} 1").await;
}

#[tokio::test]
async fn visitors_are_counted_by_all_gateways_together() {
    let (origin, redis) = (Origin::start().await, Redis::start().await);
    let (one, two) = (
        gateway(&origin, &patient(&redis), "requestsPerUnit: 100").await,
        gateway(&origin, &patient(&redis), "requestsPerUnit: 100").await,
    );
    for (gateway, agent) in [(&one, "Firefox"), (&one, "Firefox"), (&one, "curl"), (&two, "curl"), (&two, "Safari")] {
        assert_eq!(gateway.get("/free").header("User-Agent", agent).await.status, 200);
    }
    for gateway in [&one, &two] {
        gateway.counts("gateway_realtime_visitors_count 3").await;
    }
    assert_eq!(redis.ask::<u64>(&["ZCARD", "goma:visitors:active"]).await, 3);
    assert_eq!(redis.ask::<Vec<String>>(&["KEYS", "goma:analytics:salt:*"]).await.len(), 1);
}
