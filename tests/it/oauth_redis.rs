//! `oauth` with its sessions in Redis: what the browser and Redis hold, several instances, and what happens without Redis.

use std::time::Duration;

use serde_json::json;

use crate::oauth::{CLIENT, CUSTOM, SITE, opaque};
use crate::world::*;

/// Several instances before one origin, with one provider and one Redis.
struct Fleet {
    origin: Origin,
    provider: Origin,
    redis: Redis,
    instances: Vec<Gateway>,
}

impl Fleet {
    async fn of(count: usize, more: &str) -> Fleet {
        let (origin, provider, redis) = (Origin::start().await, Origin::start().await, Redis::start().await);
        let endpoint = CUSTOM.replace('}', ", revocationUrl: PROVIDER/revoke}");
        let rule = format!("{CLIENT}, {endpoint}, sessionStore: redis, logoutPath: /logout{more}");
        let mut instances = Vec::new();
        for _ in 0..count {
            let gateway = Gateway::before(&origin)
                .word("PROVIDER", &provider)
                .word("REDIS", &redis)
                .gateway("redis: {addr: REDIS, timeout: 5s}")
                .routes("- {name: r, path: /, target: ORIGIN, middlewares: [m]}")
                .middlewares(&format!("- {{name: m, type: oauth, rule: {{{rule}}}}}"))
                .await;
            gateway.counts("goma_edge_redis_up 1").await;
            instances.push(gateway);
        }
        provider.on("/token", Answer::ok(opaque().to_string()));
        provider.on("/revoke", Answer::ok("{}"));
        Fleet { origin, provider, redis, instances }
    }

    /// A browser that finds the site on the first instance.
    fn browser(&self) -> Browser {
        Browser::knowing("gateway.test", self.instances[0].port())
    }

    async fn sent_to_provider(&self, browser: &Browser) -> String {
        let page = browser.open_until(&format!("{SITE}/"), &self.provider.to_string()).await;
        page.parameter("state").expect("a state")
    }

    async fn logged_in(&self) -> Browser {
        let browser = self.browser();
        let state = self.sent_to_provider(&browser).await;
        assert_eq!(comes_back(&browser, &state).await.status, 303);
        browser
    }

    async fn keys(&self, what: &str) -> Vec<String> {
        self.redis.ask(&["KEYS", &format!("goma-edge:oauth:v1:{what}:*")]).await
    }
}

async fn comes_back(browser: &Browser, state: &str) -> Reply {
    let url = format!("{SITE}/callback?state={state}&code=c0de");
    browser.fetch(browser.request("GET", &url, ""), &url).await
}

fn cookies(browser: &Browser) -> String {
    let pairs = browser.cookies().into_iter().map(|cookie| format!("{}={}", cookie.name, cookie.value));
    pairs.collect::<Vec<_>>().join("; ")
}

/// A request of this browser to any instance.
async fn get(instance: &Gateway, browser: &Browser, path: &str) -> Reply {
    instance.get(path).header("Cookie", &cookies(browser)).await
}

#[tokio::test]
async fn the_browser_has_a_ticket_and_redis_the_sealed_session() {
    let fleet = Fleet::of(2, ", forwardAccessToken: true, sessionTtl: 2h").await;
    let token = "t".repeat(60_000);
    fleet
        .provider
        .on("/token", Answer::ok(json!({"access_token": token, "refresh_token": "refresh-token-1"}).to_string()));
    let browser = fleet.logged_in().await;
    let ticket = browser.cookie("goma_access_token").expect("a ticket");
    assert!(ticket.line.len() < 300, "{}", ticket.line);
    // A second may have passed since the login.
    let ends = |age| ticket.line.ends_with(&format!("; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax"));
    assert!((7_190..=7_200).any(ends), "{}", ticket.line);
    assert_eq!(browser.cookie("goma_refresh_token").map(|cookie| cookie.value).as_deref(), Some(""));
    for instance in &fleet.instances {
        assert_eq!(get(instance, &browser, "/x").await.status, 200);
        assert_eq!(
            fleet.origin.last().header("Authorization"),
            Some(&*format!("Bearer {token}")),
            "too long for cookies"
        );
    }
    let keys = fleet.keys("session").await;
    assert_eq!(keys.len(), 1, "{keys:?}");
    let (value, ttl) =
        (fleet.redis.ask::<String>(&["GET", &keys[0]]).await, fleet.redis.ask::<u64>(&["TTL", &keys[0]]).await);
    assert!(!value.contains("tttttttttt") && !value.contains("refresh-token"), "sealed");
    assert!((7100..=7200).contains(&ttl), "{ttl}");
    assert!(!keys[0].contains(&ticket.value[5..15]), "nobody finds a session by its ticket, or the other way round");
}

#[tokio::test]
async fn a_logout_counts_for_every_instance_at_once() {
    let fleet = Fleet::of(2, "").await;
    let (browser, other) = (fleet.logged_in().await, fleet.logged_in().await);
    let stolen = fleet.browser();
    stolen.put(&browser.cookies());
    let url = format!("{SITE}/logout");
    assert_eq!(browser.fetch(browser.request("GET", &url, ""), &url).await.status, 200);
    for instance in &fleet.instances {
        assert_eq!(get(instance, &stolen, "/").await.status, 307, "a copy is worth nothing");
        assert_eq!(get(instance, &other, "/").await.status, 200, "others go on");
    }
    assert_eq!(fleet.keys("session").await.len(), 1);
    let revoked = || fleet.provider.seen().iter().any(|seen| seen.text() == "token=r1");
    eventually("the refresh token is revoked", async || revoked().then_some(())).await;
}

#[tokio::test]
async fn a_token_is_refreshed_once_by_all_instances() {
    let fleet = Fleet::of(3, "").await;
    let short = |name: &str| json!({"access_token": name, "refresh_token": format!("r-{name}"), "expires_in": 1});
    fleet.provider.on("/token", Answer::ok(short("a1").to_string()));
    let browser = fleet.logged_in().await;
    tokio::time::sleep(Duration::from_millis(2100)).await;
    fleet.provider.forget();
    let next = json!({"access_token": "a2", "refresh_token": "r-a2", "expires_in": 3600});
    fleet.provider.on("/token", Answer::ok(next.to_string()).delay(Duration::from_millis(300)));
    let requests = (0..30).map(|n| get(&fleet.instances[n % 3], &browser, "/"));
    for reply in futures::future::join_all(requests).await {
        assert_eq!(reply.status, 200);
        assert!(reply.headers.all("Set-Cookie").is_empty(), "the ticket stays the same");
    }
    let seen = fleet.provider.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0].text(), "grant_type=refresh_token&refresh_token=r-a1");
    assert!(fleet.keys("refresh").await.is_empty(), "whoever had the turn gave it back");
}

#[tokio::test]
async fn a_refresh_that_fails_ends_as_without_redis() {
    for (description, answer, status) in
        [("refused", Answer::status(400).body(r#"{"error":"invalid_grant"}"#), 307), ("down", Answer::close(), 503)]
    {
        let fleet = Fleet::of(1, "").await;
        fleet
            .provider
            .on("/token", Answer::ok(json!({"access_token": "a", "refresh_token": "r", "expires_in": 1}).to_string()));
        let browser = fleet.logged_in().await;
        tokio::time::sleep(Duration::from_millis(2100)).await;
        fleet.provider.on("/token", answer);
        assert_eq!(get(&fleet.instances[0], &browser, "/").await.status, status, "{description}");
        assert!(fleet.origin.saw_nothing() && fleet.keys("refresh").await.is_empty(), "{description}");
    }
}

#[tokio::test]
async fn a_session_that_is_logged_out_during_its_refresh_does_not_come_back() {
    let fleet = Fleet::of(2, "").await;
    fleet
        .provider
        .on("/token", Answer::ok(json!({"access_token": "a", "refresh_token": "r", "expires_in": 1}).to_string()));
    let browser = fleet.logged_in().await;
    tokio::time::sleep(Duration::from_millis(2100)).await;
    fleet.provider.forget();
    let next = json!({"access_token": "a2", "refresh_token": "r2", "expires_in": 3600});
    fleet.provider.on("/token", Answer::ok(next.to_string()).reading_on_release());
    let under_way = get(&fleet.instances[0], &browser, "/");
    let log_out = async {
        eventually("the refresh is under way", async || (!fleet.provider.saw_nothing()).then_some(())).await;
        assert_eq!(get(&fleet.instances[1], &browser, "/logout").await.status, 200);
        fleet.provider.release();
    };
    let (reply, ()) = tokio::join!(under_way, log_out);
    assert_eq!(reply.status, 307);
    assert!(fleet.origin.saw_nothing() && fleet.keys("session").await.is_empty());
    let revoked = || fleet.provider.seen().iter().any(|seen| seen.text() == "token=r2");
    eventually("the new refresh token is given back", async || revoked().then_some(())).await;
}

#[tokio::test]
async fn without_redis_nobody_passes_and_nobody_is_sent_round() {
    let fleet = Fleet::of(1, "").await;
    let (browser, gateway) = (fleet.logged_in().await, &fleet.instances[0]);
    let waiting = fleet.browser();
    let state = fleet.sent_to_provider(&waiting).await;
    fleet.redis.freeze();
    fleet.provider.forget();
    let reply = get(gateway, &browser, "/").await;
    assert_eq!((reply.status, reply.header("Retry-After")), (503, Some("5")), "nobody knows whether it was logged out");
    assert_eq!(get(gateway, &browser, "/logout").await.status, 503, "nor is it said to be over");
    assert_eq!(comes_back(&waiting, &state).await.status, 503);
    assert!(fleet.provider.saw_nothing() && fleet.origin.saw_nothing(), "the code is still good");
    assert_eq!(gateway.get("/").await.status, 307, "who has no session can log in meanwhile");
    assert_eq!(gateway.get("/").accept("application/json").await.status, 401);
    gateway
        .counts("goma_edge_auth_total{kind=\"oauth\",middleware=\"m\",reason=\"store_down\",result=\"error\"} 3")
        .await;
    gateway.logs("sessions cannot be had from Redis").await;
    fleet.redis.resume();
    eventually("Redis is back", async || (get(gateway, &browser, "/").await.status == 200).then_some(())).await;
    assert_eq!(comes_back(&waiting, &state).await.status, 303, "with the same answer of the provider");
}

#[tokio::test]
async fn what_is_lost_or_changed_in_redis_is_no_session() {
    let fleet = Fleet::of(1, "").await;
    let (ann, bob, gateway) = (fleet.logged_in().await, fleet.logged_in().await, &fleet.instances[0]);
    let keys = fleet.keys("session").await;
    let values =
        [fleet.redis.ask::<String>(&["GET", &keys[0]]).await, fleet.redis.ask::<String>(&["GET", &keys[1]]).await];
    let forged = json!({"i": "x", "b": 0, "c": 0, "s": "root"}).to_string();
    for (description, one, two) in [
        ("moved to another ticket", &values[1], &values[0]),
        ("not sealed", &forged, &forged),
        ("the ticket itself", &ann.cookie("goma_access_token").expect("a ticket").value, &forged),
    ] {
        fleet.redis.ask::<()>(&["SET", &keys[0], one]).await;
        fleet.redis.ask::<()>(&["SET", &keys[1], two]).await;
        assert_eq!(
            (get(gateway, &ann, "/").await.status, get(gateway, &bob, "/").await.status),
            (307, 307),
            "{description}"
        );
    }
    fleet.redis.ask::<()>(&["SET", &keys[0], &values[0]]).await;
    fleet.redis.ask::<()>(&["SET", &keys[1], &values[1]]).await;
    assert_eq!((get(gateway, &ann, "/").await.status, get(gateway, &bob, "/").await.status), (200, 200));
    fleet.redis.ask::<()>(&["FLUSHALL"]).await;
    assert_eq!(get(gateway, &ann, "/").await.status, 307, "lost");
    for cookie in ["1.1AAAA", "gho_token", "9.1AAAA", "eyJhbGciOiJub25lIn0.eyJleHAiOjk5OTk5OTk5OTl9."] {
        let reply = gateway.get("/").header("Cookie", &format!("goma_access_token={cookie}")).await;
        assert_eq!(reply.status, 307, "{cookie}");
    }
}

#[tokio::test]
async fn an_answer_is_taken_once_by_all_instances_and_a_login_ends_the_session_before_it() {
    let fleet = Fleet::of(2, "").await;
    let browser = fleet.logged_in().await;
    let before = fleet.keys("session").await;
    let first = browser.cookies();
    let login = fleet.browser();
    let state = fleet.sent_to_provider(&login).await;
    // It is planted, or that of another user of this browser.
    login.put(&first);
    let answer = format!("/callback?state={state}&code=c0de");
    let line = cookies(&login);
    fleet.provider.on("/token", Answer::close());
    assert_eq!(fleet.instances[1].get(&answer).header("Cookie", &line).await.status, 503, "may come again");
    fleet.provider.on("/token", Answer::ok(opaque().to_string()));
    assert_eq!(fleet.instances[0].get(&answer).header("Cookie", &line).await.status, 303);
    let after = fleet.keys("session").await;
    assert!(after.len() == 1 && after != before, "the session before it is over: {before:?} {after:?}");
    for instance in &fleet.instances {
        assert_eq!(instance.get(&answer).header("Cookie", &line).await.status, 400, "and the answer taken");
    }
}

#[tokio::test]
async fn sessions_in_a_redis_that_is_not_there_refuse_the_configuration() {
    let rule = format!("{CLIENT}, {CUSTOM}, sessionStore: redis").replace("PROVIDER", "http://127.0.0.1:9");
    for (rule, message) in [
        (rule.clone(), "rule.sessionStore: is `redis`, and there is none; give `gateway.redis.addr`"),
        (rule.replace("sessionStore: redis", "sessionStore: memory"), "sessionStore"),
    ] {
        let output = Gateway::builder()
            .routes("- {name: r, path: /, target: 'http://127.0.0.1:9', middlewares: [m]}")
            .middlewares(&format!("- {{name: m, type: oauth, rule: {{{rule}}}}}"))
            .start_fails()
            .await;
        assert!(output.all().contains(message), "{}", output.all());
    }
}
