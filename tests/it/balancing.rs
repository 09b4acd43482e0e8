//! Which backend of a route gets a request.

use std::collections::BTreeMap;

use crate::world::*;

/// Origins that answer with their names, each under its upper-case name in the configuration.
struct Group(Vec<(String, Origin)>);

impl Group {
    async fn of(names: &[&str]) -> Group {
        let mut group = Vec::new();
        for name in names {
            group.push(((*name).to_owned(), Origin::named(name).await));
        }
        Group(group)
    }

    fn gateway(&self, backends: &str) -> Builder {
        let route = format!("- name: r\n  path: /\n  backends:\n{}", indent(backends));
        let builder = Gateway::builder().routes(&route);
        self.0.iter().fold(builder, |builder, (name, origin)| builder.word(&name.to_uppercase(), origin))
    }

    fn get(&self, name: &str) -> &Origin {
        self.0.iter().find(|(other, _)| other == name).map(|(_, origin)| origin).expect("an origin of the group")
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {}\n", line.trim_start())).collect()
}

/// Sends the request so many times on one connection; who answered how often.
async fn shares(gateway: &Gateway, request: Request, times: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    let mut connection = gateway.connect().await;
    for _ in 0..times {
        let reply = connection.send(request.clone()).await;
        let by = if reply.status == 200 { reply.text() } else { reply.status.to_string() };
        *shares.entry(by).or_default() += 1;
    }
    shares
}

fn counts<const N: usize>(shares: [(&str, usize); N]) -> BTreeMap<String, usize> {
    shares.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

#[tokio::test]
async fn backends_without_weights_take_turns() {
    let group = Group::of(&["one", "two", "three"]).await;
    let gateway = group.gateway("- {endpoint: ONE}\n- {endpoint: TWO}\n- {endpoint: THREE}").await;
    let shares = shares(&gateway, gateway.get("/"), 12).await;
    assert_eq!(shares, counts([("one", 4), ("two", 4), ("three", 4)]));
}

#[tokio::test]
async fn weights_are_shares_and_zero_is_none() {
    let group = Group::of(&["one", "two"]).await;
    let gateway = group.gateway("- {endpoint: ONE, weight: 5}\n- {endpoint: TWO, weight: 0}").await;
    assert_eq!(shares(&gateway, gateway.get("/"), 100).await, counts([("one", 100)]));
    let gateway = group.gateway("- {endpoint: ONE, weight: 80}\n- {endpoint: TWO, weight: 20}").await;
    let two = shares(&gateway, gateway.get("/"), 1000).await["two"];
    assert!((140..=260).contains(&two), "about 200 of 1000, not {two}");
}

#[tokio::test]
async fn an_exclusive_canary_takes_all_that_match_and_nothing_else() {
    let group = Group::of(&["stable", "canary"]).await;
    let backends = "- {endpoint: STABLE, weight: 1}
                    - {endpoint: CANARY, exclusive: true, match: [{source: header, name: X-B, operator: equals, value: '1'}]}";
    let gateway = group.gateway(backends).await;
    assert_eq!(shares(&gateway, gateway.get("/").header("X-B", "1"), 10).await, counts([("canary", 10)]));
    assert_eq!(shares(&gateway, gateway.get("/").header("X-B", "2"), 10).await, counts([("stable", 10)]));
    assert_eq!(shares(&gateway, gateway.get("/"), 10).await, counts([("stable", 10)]));
}

#[tokio::test]
async fn of_two_exclusive_canaries_the_higher_priority_wins() {
    let group = Group::of(&["stable", "low", "high"]).await;
    let rule = "exclusive: true, match: [{source: header, name: X-B, operator: equals, value: '1'}]";
    let backends = format!(
        "- {{endpoint: STABLE, weight: 1}}\n- {{endpoint: LOW, priority: 1, {rule}}}\n- {{endpoint: HIGH, priority: 10, {rule}}}"
    );
    let gateway = group.gateway(&backends).await;
    assert_eq!(shares(&gateway, gateway.get("/").header("X-B", "1"), 10).await, counts([("high", 10)]));
}

#[tokio::test]
async fn a_canary_shares_the_matching_requests_by_weight() {
    let group = Group::of(&["stable", "canary"]).await;
    let backends = "- {endpoint: STABLE, weight: 90}
                    - {endpoint: CANARY, weight: 10, match: [{source: query, name: beta, operator: equals, value: 'yes'}]}";
    let gateway = group.gateway(backends).await;
    let canary = shares(&gateway, gateway.get("/?beta=yes"), 1000).await["canary"];
    assert!((50..=160).contains(&canary), "about 100 of 1000, not {canary}");
    assert_eq!(shares(&gateway, gateway.get("/"), 50).await, counts([("stable", 50)]));
}

#[tokio::test]
async fn stable_backends_serve_without_any_weight() {
    let group = Group::of(&["one", "two", "canary"]).await;
    let backends = "- {endpoint: ONE}
                    - {endpoint: TWO}
                    - {endpoint: CANARY, exclusive: true, match: [{source: header, name: X-B, operator: equals, value: '1'}]}";
    let gateway = group.gateway(backends).await;
    let shares = shares(&gateway, gateway.get("/"), 200).await;
    assert!(shares["one"] > 50 && shares["two"] > 50 && shares.len() == 2, "{shares:?}");
}

#[tokio::test]
async fn a_match_rule_means_what_it_says() {
    let rows = [
        ("source: cookie, name: v, operator: equals, value: b", "/", ("Cookie", "a=1; v=b"), true),
        ("source: cookie, name: v, operator: equals, value: b", "/", ("Cookie", "v=B"), false),
        ("source: query, name: v, operator: equals, value: 'a b'", "/?v=a%20b&v=c", ("X", "1"), true),
        ("source: query, name: v, operator: contains, value: b", "/?v=abc", ("X", "1"), true),
        ("source: header, name: x-v, operator: not_equals, value: b", "/", ("X", "1"), true),
        ("source: header, name: x-v, operator: not_contains, value: b", "/", ("X-V", "abc"), false),
        ("source: header, name: x-v, operator: starts_with, value: ab", "/", ("X-V", "abc"), true),
        ("source: header, name: x-v, operator: ends_with, value: ab", "/", ("X-V", "abc"), false),
        ("source: header, name: x-v, operator: regex, value: '^a.c$'", "/", ("X-V", "abc"), true),
        ("source: header, name: x-v, operator: regex, value: 'b'", "/", ("X-V", "abc"), true),
        ("source: header, name: x-v, operator: in, value: 'a, b , c'", "/", ("X-V", "b"), true),
        ("source: header, name: x-v, operator: in, value: 'a, b , c'", "/", ("X-V", "d"), false),
        ("source: ip, operator: equals, value: 127.0.0.1", "/", ("X", "1"), true),
        ("source: ip, operator: starts_with, value: '10.'", "/", ("X", "1"), false),
        ("source: moon, name: x, operator: equals, value: full", "/", ("X", "full"), false),
        ("source: header, name: x, operator: resembles, value: full", "/", ("X", "full"), false),
    ];
    let group = Group::of(&["stable", "canary"]).await;
    for (rule, target, (name, value), hit) in rows {
        let backends =
            format!("- {{endpoint: STABLE, weight: 1}}\n- {{endpoint: CANARY, exclusive: true, match: [{{{rule}}}]}}");
        let gateway = group.gateway(&backends).await;
        let by = gateway.get(target).header(name, value).await.text();
        assert_eq!(by, if hit { "canary" } else { "stable" }, "{rule} against {target} with {name}: {value}");
    }
}

#[tokio::test]
async fn all_rules_of_a_canary_have_to_hold() {
    let group = Group::of(&["stable", "canary"]).await;
    let both = "match: [{source: header, name: A, operator: equals, value: '1'}, {source: header, name: B, operator: equals, value: '1'}]";
    let backends = format!("- {{endpoint: STABLE, weight: 1}}\n- {{endpoint: CANARY, exclusive: true, {both}}}");
    let gateway = group.gateway(&backends).await;
    assert_eq!(gateway.get("/").header("A", "1").await.text(), "stable");
    assert_eq!(gateway.get("/").header("A", "1").header("B", "1").await.text(), "canary");
}

#[tokio::test]
async fn a_single_backend_is_used_whatever_its_weight_and_rules() {
    let group = Group::of(&["only"]).await;
    let rule = "weight: 0, match: [{source: header, name: A, operator: equals, value: '1'}]";
    let gateway = group.gateway(&format!("- {{endpoint: ONLY, {rule}}}")).await;
    assert_eq!(gateway.get("/").await.text(), "only");
}

#[tokio::test]
async fn a_backend_that_does_not_accept_is_passed_over_without_the_client_noticing() {
    for weight in ["", ", weight: 1"] {
        let group = Group::of(&["one", "two"]).await;
        let backends = format!("- {{endpoint: ONE{weight}}}\n- {{endpoint: TWO{weight}}}");
        let gateway = group.gateway(&backends).await;
        group.get("one").stop().await;
        assert_eq!(shares(&gateway, gateway.get("/"), 20).await, counts([("two", 20)]), "GET {weight}");
        let large = gateway.post("/").body("x".repeat(300_000));
        assert_eq!(shares(&gateway, large, 6).await, counts([("two", 6)]), "POST {weight}");
        assert!(group.get("two").seen().iter().all(|seen| seen.whole), "each body arrived to its end");
    }
}

#[tokio::test]
async fn a_request_that_a_backend_may_have_begun_is_not_sent_to_another() {
    let group = Group::of(&["one", "two"]).await;
    let gateway = group.gateway("- {endpoint: ONE}\n- {endpoint: TWO}").await;
    group.get("one").always(Answer::close());
    group.get("two").always(Answer::close());
    let before = group.get("one").seen().len() + group.get("two").seen().len();
    assert_eq!(gateway.post("/").body("pay").await.status, 502);
    assert_eq!(group.get("one").seen().len() + group.get("two").seen().len(), before + 1);
}

#[tokio::test]
async fn a_backend_whose_name_nobody_knows_is_passed_over() {
    let origin = Origin::named("known").await;
    let names = "networking: {dnsCache: {resolver: ['127.0.0.1:1']}}";
    let routes = "- {name: r, path: /, backends: [{endpoint: ORIGIN}, {endpoint: 'http://unknown.test'}]}";
    let gateway = Gateway::before(&origin).gateway(names).routes(routes).await;
    assert_eq!(shares(&gateway, gateway.get("/"), 6).await, counts([("known", 6)]));
    assert_eq!(shares(&gateway, gateway.post("/").body("x"), 6).await, counts([("known", 6)]));
}

#[tokio::test]
async fn a_backend_that_died_between_two_requests_is_passed_over() {
    let origin = Origin::named("alive").await;
    let listener = listen();
    let dying = format!("http://{}", listener.local_addr().expect("a bound listener has an address"));
    let routes = "- {name: r, path: /, backends: [{endpoint: ORIGIN}, {endpoint: DYING}]}";
    let gateway = Gateway::before(&origin).word("DYING", &dying).routes(routes).await;
    // Its connection stays until it is used again; a new one is not to be had.
    let served = tokio::spawn(async move {
        let mut wire = Wire::over(listener.accept().await.expect("a connection").0);
        drop(listener);
        wire.head().await.expect("a request");
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ndying").await.expect("a connection");
        wire.head().await.expect("a second request");
    });
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(gateway.get("/").await.text());
    }
    answers.sort();
    assert_eq!(answers, ["alive", "alive", "alive", "dying"]);
    served.await.expect("the second request came");
}

fn balanced(group: &Group, balancer: &str, backends: &str) -> Builder {
    let route = format!("- name: r\n  path: /\n  loadBalancer: {balancer}\n  backends:\n{}", indent(backends));
    group
        .0
        .iter()
        .fold(Gateway::builder().routes(&route), |builder, (name, origin)| builder.word(&name.to_uppercase(), origin))
}

const THREE: &str = "- {endpoint: ONE}\n- {endpoint: TWO}\n- {endpoint: THREE}";

#[tokio::test]
async fn round_robin_keeps_to_weights_exactly() {
    let group = Group::of(&["one", "two"]).await;
    let backends = "- {endpoint: ONE, weight: 3}\n- {endpoint: TWO, weight: 1}";
    let gateway = balanced(&group, "{algorithm: roundRobin}", backends).await;
    assert_eq!(shares(&gateway, gateway.get("/"), 40).await, counts([("one", 30), ("two", 10)]));
}

#[tokio::test]
async fn the_backend_with_fewer_requests_takes_the_next() {
    let group = Group::of(&["one", "two"]).await;
    let gateway = balanced(&group, "{algorithm: leastRequests}", "- {endpoint: ONE}\n- {endpoint: TWO}").await;
    group.get("one").on("/slow", Answer::held(&["one", "."]));
    group.get("two").on("/slow", Answer::held(&["two", "."]));
    let (_, first, _) = gateway.get("/slow").open().await;
    let busy = if group.get("one").seen().is_empty() { "two" } else { "one" };
    let idle = if busy == "one" { "two" } else { "one" };
    assert_eq!(shares(&gateway, gateway.get("/"), 20).await, counts([(idle, 20)]));
    drop(first);
}

#[tokio::test]
async fn equal_headers_come_to_the_same_backend_and_few_move_when_one_comes() {
    let group = Group::of(&["one", "two", "three", "four"]).await;
    let balancer = "{algorithm: consistentHash, hash: {source: header, name: X-Tenant}}";
    let routes =
        |backends: &str| format!("- name: r\n  path: /\n  loadBalancer: {balancer}\n  backends:\n{}", indent(backends));
    let gateway = balanced(&group, balancer, THREE).await;
    let homes = async || {
        let mut homes = Vec::new();
        let mut connection = gateway.connect().await;
        for tenant in 0..100 {
            homes.push(connection.send(gateway.get("/").header("X-Tenant", &format!("t{tenant}"))).await.text());
        }
        homes
    };
    let before = homes().await;
    assert_eq!(homes().await, before, "equal headers, equal backends");
    for name in ["one", "two", "three"] {
        let share = before.iter().filter(|home| *home == name).count();
        assert!((12..=60).contains(&share), "{name} has {share} of 100");
    }
    assert_eq!(gateway.reload_routes(&routes(&format!("- {{endpoint: FOUR}}\n{THREE}"))).await, Applied::New);
    let after = homes().await;
    let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
    assert!(!moved.is_empty() && moved.len() < 50, "about a quarter, not {}", moved.len());
    assert!(moved.iter().all(|(_, after)| *after == "four"), "only to the new one: {moved:?}");
}

/// The sticky cookie of a reply, as a browser would send it back.
fn cookie(reply: &Reply) -> Option<String> {
    let line = reply.header("Set-Cookie")?;
    Some(line.split(';').next().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_cookie_keeps_a_client_at_its_backend_over_reloads_and_changes_of_the_list() {
    let group = Group::of(&["one", "two", "three"]).await;
    let gateway = balanced(&group, "{sticky: {}}", THREE).await;
    let first = gateway.get("/").await;
    let line = first.header("Set-Cookie").expect("a cookie").to_owned();
    assert!(line.starts_with("goma_backend=") && line.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{line}");
    let (home, cookie) = (first.text(), cookie(&first).expect("a cookie"));
    let mine = || gateway.get("/").header("Cookie", &cookie);
    assert_eq!(shares(&gateway, mine(), 12).await, counts([(&home, 12)]));
    assert_eq!(mine().await.header("Set-Cookie"), None, "the client has it");

    let others = if home == "one" { "- {endpoint: TWO}" } else { "- {endpoint: ONE}" };
    let list = format!("{others}\n- {{endpoint: {}}}", home.to_uppercase());
    let routes = format!("- name: r\n  path: /\n  loadBalancer: {{sticky: {{}}}}\n  backends:\n{}", indent(&list));
    assert_eq!(gateway.reload_routes(&routes).await, Applied::New);
    assert_eq!(shares(&gateway, mine(), 6).await, counts([(&home, 6)]), "another list, another position");
}

#[tokio::test]
async fn a_client_whose_backend_is_down_gets_another_one_and_its_cookie() {
    let group = Group::of(&["one", "two"]).await;
    let sticky = "{sticky: {cookie: at, secret: 0123456789abcdef, maxAge: 1h, secure: always, sameSite: strict}}";
    let gateway = balanced(&group, sticky, "- {endpoint: ONE}\n- {endpoint: TWO}").await;
    let first = gateway.get("/").await;
    let line = first.header("Set-Cookie").expect("a cookie");
    assert!(line.ends_with("; Path=/; Max-Age=3600; HttpOnly; SameSite=Strict; Secure"), "{line}");
    let (home, old) = (first.text(), cookie(&first).expect("a cookie"));
    group.get(&home).stop().await;
    let moved = gateway.get("/").header("Cookie", &old).await;
    assert!(moved.status == 200 && moved.text() != home, "{moved:?}");
    let new = cookie(&moved).expect("a cookie of the other one");
    assert_eq!(shares(&gateway, gateway.get("/").header("Cookie", &new), 6).await, counts([(&moved.text(), 6)]));

    // A gateway with the same key knows the cookie; made-up ones count for nothing.
    let other = balanced(&group, sticky, "- {endpoint: TWO}\n- {endpoint: ONE}").await;
    group.get(&home).restart_on_same_port().await;
    assert_eq!(shares(&other, other.get("/").header("Cookie", &old), 6).await, counts([(&home, 6)]));
    for forged in ["at=1", "at=", "at=AAAAAAAAAAAAAAAAAAAAAA", &old[..old.len() - 1]] {
        let reply = other.get("/").header("Cookie", forged).await;
        assert!(reply.status == 200 && reply.header("Set-Cookie").is_some(), "{forged}");
    }
}
