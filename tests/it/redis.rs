//! The shared Redis: in whatever form, it never holds up a start, and comes back by itself.

use std::time::Duration;

use goma_edge::config;
use goma_edge::redis::{Failure, News, Redis as Handle, Script, Settings, cmd};
use goma_edge::telemetry::metrics::Metrics;

use crate::world::{Authority, Cluster, Gateway, Redis, Sentinels, eventually};

const UP: &str = "goma_edge_redis_up 1";
const DOWN: &str = "goma_edge_redis_up 0";

/// A handle as middlewares get it, with patience for a busy machine.
fn handle(addr: &impl ToString) -> Handle {
    let mut gateway = config::Gateway::default();
    gateway.redis.addr = addr.to_string();
    gateway.redis.timeout = Duration::from_secs(5);
    let settings = Settings::of(&gateway).expect("sound settings").expect("an address");
    Handle::new(settings, Some(tokio::runtime::Handle::current()), Metrics::new().redis())
}

async fn started(addr: &impl ToString) -> Handle {
    let handle = handle(addr);
    handle.start(true);
    eventually("Redis is in use", async || handle.is_up().then_some(())).await;
    handle
}

#[tokio::test]
async fn it_comes_later_goes_and_comes_back_with_one_line_each() {
    let mut redis = Redis::start().await;
    redis.stop();
    let gateway = Gateway::builder().word("REDIS", &redis).gateway("redis: {addr: REDIS, timeout: 5s}").await;
    gateway.counts(DOWN).await;
    let told = gateway.logs("is not in use").await;
    assert!(told.contains(&redis.to_string()), "{told}");
    redis.run().await;
    gateway.counts(UP).await;
    gateway.logs("is in use again").await;
    redis.stop();
    gateway.counts("goma_edge_redis_changes_total{state=\"down\"} 2").await;
    redis.run().await;
    gateway.counts("goma_edge_redis_changes_total{state=\"up\"} 2").await;
    assert_eq!(gateway.log().matches("is not in use").count(), 2, "{}", gateway.log());
    assert_eq!(gateway.log().matches("is in use again").count(), 2);
}

#[tokio::test]
async fn a_server_that_hangs_costs_one_time_out_and_nothing_after_it() {
    let redis = Redis::start().await;
    let handle = started(&redis).await;
    redis.freeze();
    let slow = handle.within(Duration::from_secs(5)).call::<()>(&cmd("PING")).await;
    assert!(matches!(slow, Err(Failure::Slow(_))), "{slow:?}");
    let down = handle.call::<()>(&cmd("PING")).await;
    assert!(matches!(down, Err(Failure::Down)), "{down:?}");
    redis.resume();
    eventually("it is back", async || handle.call::<()>(&cmd("PING")).await.ok()).await;
}

#[tokio::test]
async fn tls_trusts_the_authority_that_is_named_and_no_other() {
    let authority = Authority::new();
    let redis = Redis::with_tls(&authority, true).await;
    let us = authority.certify(&["gateway"]);
    let before = |ca: &str| {
        let tls = "tls: {clientCa: FOLDER/ca.pem, clientCert: FOLDER/us.pem, clientKey: FOLDER/us.key}";
        let builder = Gateway::builder().word("REDIS", &redis).file("ca.pem", ca).file("us.pem", &us.certificate);
        builder.file("us.key", &us.key).gateway(&format!("redis: {{addr: REDIS, timeout: 5s, {tls}}}"))
    };
    before(&authority.pem()).await.counts(UP).await;
    let gateway = before(&Authority::new().pem()).await;
    let told = gateway.logs("is not in use").await;
    assert!(told.to_lowercase().contains("certificate"), "{told}");
    gateway.counts(DOWN).await;

    let open = Redis::with_tls(&authority, false).await;
    let tls = "redis: {addr: REDIS, timeout: 5s, tls: {clientCa: FOLDER/ca.pem}}";
    let gateway = Gateway::builder().word("REDIS", &open).file("ca.pem", &authority.pem()).gateway(tls).await;
    gateway.counts(UP).await;
}

#[tokio::test]
async fn variables_give_the_password_and_start_empties_the_database_where_asked() {
    let redis = Redis::with_password("s3cret").await;
    redis.ask::<()>(&["SET", "old", "1"]).await;
    let keys = "redis: {addr: '${WHERE}', password: '${PASS}', flushOnStartup: true, timeout: 5s}";
    let builder = Gateway::builder().gateway(keys).env("WHERE", &redis.to_string()).env("PASS", "s3cret");
    let gateway = builder.await;
    gateway.counts(UP).await;
    assert_eq!(redis.ask::<Option<String>>(&["GET", "old"]).await, None);
    redis.ask::<()>(&["SET", "new", "1"]).await;
    gateway.reload_with("gateway: {redis: {addr: 'x:1', flushOnStartup: true}}").await;
    assert_eq!(redis.ask::<Option<String>>(&["GET", "new"]).await.as_deref(), Some("1"));

    let wrong = Gateway::builder().word("REDIS", &redis).gateway("redis: {addr: REDIS, password: nope}").await;
    let told = wrong.logs("is not in use").await;
    assert!(!told.contains("nope"), "{told}");
}

#[tokio::test]
async fn the_master_is_the_one_that_sentinels_name_also_after_a_failover() {
    let mut sentinels = Sentinels::start().await;
    let keys = "redis: {addrs: [SENTINEL], sentinel: {master: main}, timeout: 5s, connectTimeout: 5s}";
    let gateway = Gateway::builder().word("SENTINEL", &sentinels.sentinel).gateway(keys).await;
    gateway.counts(UP).await;
    sentinels.master.stop();
    gateway.counts("goma_edge_redis_changes_total{state=\"up\"} 2").await;
    let role = sentinels.replica.ask::<String>(&["INFO", "replication"]).await;
    assert!(role.contains("role:master"), "{role}");
}

#[tokio::test]
async fn a_cluster_is_one_store() {
    let cluster = Cluster::start().await;
    let mut gateway = config::Gateway::default();
    gateway.redis.addrs = vec![cluster.0[1].to_string()];
    gateway.redis.mode = "cluster".to_owned();
    gateway.redis.timeout = Duration::from_secs(5);
    let settings = Settings::of(&gateway).expect("sound settings").expect("an address");
    let handle = Handle::new(settings, Some(tokio::runtime::Handle::current()), Metrics::new().redis());
    handle.start(true);
    eventually("Redis is in use", async || handle.is_up().then_some(())).await;
    for name in 0..20 {
        handle.call::<()>(cmd("SET").arg(name).arg(1)).await.expect("it is set");
    }
    assert_eq!(cluster.keys().await.len(), 20);
    let counts = Script::new("return redis.call('INCR', KEYS[1])");
    for name in 0..20 {
        let counted = handle.script::<u32>(&counts.key(name)).await;
        assert_eq!(counted.expect("it runs on every node"), 2);
    }
}

#[tokio::test]
async fn a_script_is_brought_along_and_messages_come_across_a_restart() {
    let mut redis = Redis::start().await;
    let handle = started(&redis).await;
    let script = Script::new("return ARGV[1] + 1");
    for round in 1..=3 {
        assert_eq!(handle.script::<i64>(&script.arg(round)).await.expect("it runs"), round + 1);
        redis.ask::<()>(&["SCRIPT", "FLUSH"]).await;
    }
    let mut news = handle.subscribe(vec!["purge".to_owned()]);
    let say = async |what: &str| handle.call::<u32>(cmd("PUBLISH").arg("purge").arg(what)).await;
    let message = |what: &str| News::Message { channel: "purge".to_owned(), payload: what.into() };
    assert_eq!(news.next().await, Some(News::Joined));
    say("one").await.expect("it is sent");
    assert_eq!(news.next().await, Some(message("one")));
    redis.stop();
    assert_eq!(news.next().await, Some(News::Lost));
    redis.run().await;
    assert_eq!(news.next().await, Some(News::Joined));
    eventually("it is sent", async || say("two").await.ok()).await;
    assert_eq!(news.next().await, Some(message("two")));
}
