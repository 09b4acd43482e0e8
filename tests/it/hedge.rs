//! `hedge`: a request that a slow backend keeps waiting goes to a second one as well, and the first good answer counts.

use std::future::IntoFuture;
use std::time::Duration;

use crate::world::*;

const MILLI: Duration = Duration::from_millis(1);
/// Nothing but the backends decides.
const FREELY: &str = "hedge: {after: 100ms, budget: {percent: 100, perSecond: 1000}}";

fn after(milliseconds: u32, text: &str) -> Answer {
    Answer::ok(text.to_owned()).delay(milliseconds * MILLI)
}

/// The figures of `goma_edge_hedges_total`, once they are these.
async fn counted(gateway: &Gateway, figures: &[(&str, usize)]) {
    for (result, count) in figures {
        gateway.counts(&format!(r#"goma_edge_hedges_total{{name="r",result="{result}"}} {count}"#)).await;
    }
}

#[tokio::test]
async fn a_slow_backend_is_helped_by_another_one() {
    let (one, two) = two().await;
    one.always(Answer::hang());
    let gateway = before(FREELY, &[&one, &two]).await;
    for method in ["GET", "HEAD", "OPTIONS"] {
        for _ in 0..2 {
            let reply = gateway.request(method, "/").await;
            assert_eq!((reply.status, reply.text().as_str()), (200, if method == "HEAD" { "" } else { "two" }));
        }
    }
    assert_eq!((one.seen().len(), two.seen().len()), (3, 6), "every second request met the slow one first");
    counted(&gateway, &[("sent", 3), ("won", 3)]).await;
    eventually("what the slow one owes is given up", async || (one.open() == 0).then_some(())).await;
    assert_eq!(two.connections(), 1, "the other one's connection is kept");
}

#[tokio::test]
async fn the_first_backend_may_win_as_well() {
    let (one, two) = two().await;
    one.always(after(400, "one"));
    two.always(Answer::hang());
    let gateway = before(FREELY, &[&one, &two]).await;
    for _ in 0..2 {
        assert_eq!(gateway.get("/").await.text(), "one");
    }
    counted(&gateway, &[("sent", 2), ("won", 1), ("lost", 1)]).await;
    eventually("the other one is given up", async || (two.open() == 0).then_some(())).await;
    assert_eq!((one.seen().len(), two.seen().len(), one.connections()), (2, 2, 1));
}

#[tokio::test]
async fn nothing_goes_to_two_backends_unless_asked_and_never_what_may_have_an_effect() {
    let (one, two) = two().await;
    for origin in [&one, &two] {
        origin.always(after(300, "slow"));
    }
    let plain = before("methods: []", &[&one, &two]).await;
    assert_eq!(plain.get("/").await.text(), "slow");
    assert_eq!(requests(&[&one, &two]), 1, "off by default");
    let gateway = before(FREELY, &[&one, &two]).await;
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        assert_eq!(gateway.request(method, "/").await.text(), "slow", "{method}");
    }
    assert_eq!(gateway.request("GET", "/").body("a body").await.text(), "slow");
    assert_eq!(requests(&[&one, &two]), 6);
    assert!(!gateway.metrics().await.contains("goma_edge_hedges_total{"));
}

#[tokio::test]
async fn a_route_has_a_budget_for_it() {
    let (one, two) = two().await;
    for origin in [&one, &two] {
        origin.always(after(80, "slow"));
    }
    let keys = "hedge: {after: 5ms, budget: {percent: 10, perSecond: 0}}";
    let gateway = before(keys, &[&one, &two]).await;
    assert_eq!(statuses(&gateway, gateway.get("/"), 50, 200).await, 50);
    let more = requests(&[&one, &two]) - 50;
    assert!((1..=5).contains(&more), "a tenth of 50 at most, not {more}");
    counted(&gateway, &[("sent", more), ("over_budget", 50 - more)]).await;
}

#[tokio::test]
async fn it_goes_to_as_many_as_the_route_says_and_to_none_twice() {
    let origins = (Origin::named("one").await, Origin::named("two").await, Origin::named("three").await);
    let (one, two, three) = (&origins.0, &origins.1, &origins.2);
    for origin in [one, two, three] {
        origin.always(Answer::hang());
    }
    for (extra, expected) in [(1, 2), (2, 3), (3, 3)] {
        let keys = format!(
            "hedge: {{after: 50ms, maxExtra: {extra}, budget: {{percent: 100, perSecond: 9}}}}\ntimeouts: {{total: 1s}}"
        );
        let gateway = before(&keys, &[one, two, three]).await;
        assert_eq!(gateway.get("/").await.status, 504, "{extra}");
        let seen = [one, two, three].map(|origin| origin.seen().len());
        assert_eq!((seen.iter().sum::<usize>(), seen.iter().max()), (expected, Some(&1)), "{extra}: {seen:?}");
        counted(&gateway, &[("sent", expected - 1), ("lost", expected - 1)]).await;
        [one, two, three].iter().for_each(|origin| origin.forget());
    }
}

#[tokio::test]
async fn a_failure_is_no_answer_while_another_one_may_come() {
    let rows = [
        ("a status", Answer::status(503).delay(300 * MILLI), "503"),
        ("reset", Answer::reset().delay(300 * MILLI), "reset"),
    ];
    for (about, failing, cause) in rows {
        let (one, two) = two().await;
        one.always(failing.clone());
        two.always(after(600, "two"));
        let keys = format!("{FREELY}\noutlier: {{failures: 2, ejection: 60s}}");
        let gateway = before(&keys, &[&one, &two]).await;
        assert_eq!(statuses(&gateway, gateway.get("/"), 4, 200).await, 4, "{about}");
        assert_eq!((one.seen().len(), two.seen().len()), (2, 4), "{about}: it is out after two failures");
        let line = format!(r#"goma_edge_ejections_total{{backend="{one}",cause="{cause}",name="r"}} 1"#);
        gateway.counts(&line).await;
        counted(&gateway, &[("nowhere", 2)]).await;
    }
    let (one, two) = two().await;
    for (origin, delay) in [(&one, 300), (&two, 600)] {
        origin.always(Answer::status(503).delay(delay * MILLI).body("sorry"));
    }
    let gateway = before(FREELY, &[&one, &two]).await;
    let reply = gateway.get("/").await;
    assert_eq!((reply.status, reply.text().as_str()), (503, "sorry"), "there is no better one");
}

#[tokio::test]
async fn places_at_backends_are_free_again_at_once() {
    let (one, two) = two().await;
    one.always(Answer::hang());
    let keys = format!("{FREELY}\nloadBalancer: {{maxInFlight: 1, queue: {{size: 0}}}}\ncircuitBreaker: {{}}");
    let gateway = before(&keys, &[&one, &two]).await;
    assert_eq!(statuses(&gateway, gateway.get("/"), 8, 200).await, 8);
    assert_eq!((one.seen().len(), two.seen().len()), (4, 8));
}

#[tokio::test]
async fn when_all_attempts_fail_the_policy_decides_and_each_attempt_counts() {
    let (one, two) = two().await;
    for origin in [&one, &two] {
        origin.always(Answer::hang());
    }
    let keys = format!("{FREELY}\nretry: {{attempts: 3, perTryTimeout: 400ms}}");
    let gateway = before(&keys, &[&one, &two]).await;
    assert_eq!(gateway.get("/").await.status, 504);
    assert_eq!(requests(&[&one, &two]), 3);
    gateway.counts(r#"goma_edge_retries_total{cause="timeout",name="r"} 1"#).await;
}

#[tokio::test]
async fn who_is_kept_at_a_backend_by_a_cookie_stays_there() {
    let (one, two) = two().await;
    for (origin, name) in [(&one, "one"), (&two, "two")] {
        origin.always(after(300, name));
    }
    let gateway = before(&format!("{FREELY}\nloadBalancer: {{sticky: {{}}}}"), &[&one, &two]).await;
    let first = gateway.get("/").await;
    assert_eq!(requests(&[&one, &two]), 2, "nobody was kept yet");
    let cookie = first.header("Set-Cookie").and_then(|cookie| cookie.split(';').next()).expect("a cookie").to_owned();
    for _ in 0..3 {
        assert_eq!(gateway.get("/").header("Cookie", &cookie).await.text(), first.text());
    }
    assert_eq!(requests(&[&one, &two]), 5);
}

#[tokio::test]
async fn early_hints_are_those_of_the_backend_that_answers() {
    let (one, two) = two().await;
    let hints = |text: &str| [("Link", format!("</{text}.css>; rel=preload"))];
    for (origin, name, delay) in [(&one, "one", 30_000), (&two, "two", 300)] {
        let hints = hints(name);
        let link = hints.each_ref().map(|(key, value)| (*key, value.as_str()));
        origin.always(after(delay, name).interim(103, &link));
    }
    let gateway = before(FREELY, &[&one, &two]).await;
    for _ in 0..2 {
        let reply = gateway.get("/").await;
        let hints: Vec<_> = reply.interim.iter().filter_map(|(_, headers)| headers.one("Link")).collect();
        assert!(hints.contains(&"</two.css>; rel=preload"), "{hints:?}");
        assert_eq!(reply.text(), "two");
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_waited_for_by_nobody() {
    let (one, two) = two().await;
    for origin in [&one, &two] {
        origin.always(Answer::hang());
    }
    let gateway = before(FREELY, &[&one, &two]).await;
    let request = tokio::spawn(gateway.get("/").into_future());
    eventually("both are asked", async || (requests(&[&one, &two]) == 2).then_some(())).await;
    request.abort();
    eventually("both are given up", async || (one.open() + two.open() == 0).then_some(())).await;
    gateway.counts(r#"goma_edge_request_ends_total{name="r",reason="client_gone"} 1"#).await;
}
