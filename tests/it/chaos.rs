//! Backends that go bad under constant load: clients hardly notice, and everything is as before when they are well again.

use crate::world::*;

const ROUTE: &str = "
- name: r
  path: /
  backends: [{endpoint: ONE}, {endpoint: TWO}, {endpoint: THREE}]
  timeouts: {connect: 1s}
  retry: {attempts: 3, perTryTimeout: 1s, budget: {percent: 50, perSecond: 50}}
  outlier: {failures: 2, ejection: 1s, maxEjection: 2s}";

const CLIENTS: usize = 4;
/// Requests while a backend is bad, each time.
const WHILE_BAD: u64 = 1_500;

/// Waits until an origin gets its share again.
async fn recovers(origin: &Origin, load: &Load, about: &str) {
    eventually(&format!("{about}: it gets its share again"), async || {
        origin.forget();
        load.goes_on(60).await;
        // Its share is 20; who is on probation gets one or two.
        (origin.seen().len() >= 12).then_some(())
    })
    .await;
}

#[tokio::test]
async fn one_bad_backend_of_three_is_hardly_noticed() {
    let fine = || Answer::ok("fine");
    let (one, two, three) = (Origin::named("fine").await, Origin::named("fine").await, Origin::named("fine").await);
    // A process of its own before the third, since a process can be stopped for real.
    let front = Gateway::before(&three).routes("- {name: f, path: /, target: ORIGIN}").await;
    let gateway =
        Gateway::builder().word("ONE", &one).word("TWO", &two).word("THREE", &front.url()).routes(ROUTE).await;
    let load = Load::start(&gateway, CLIENTS, "/", "fine");
    load.goes_on(300).await;

    one.stop().await;
    load.goes_on(WHILE_BAD).await;
    one.restart_on_same_port().await;
    recovers(&one, &load, "refused").await;
    two.forget();

    front.signal("STOP");
    load.goes_on(WHILE_BAD).await;
    front.signal("CONT");
    recovers(&three, &load, "stopped").await;
    two.forget();

    for (about, failing) in [
        ("reset in the middle of its body", Answer::cut("x".repeat(1000), 10)),
        ("reset", Answer::reset()),
        ("slow", fine().delay(std::time::Duration::from_secs(3))),
        ("failing", Answer::status(503)),
    ] {
        one.always(failing);
        load.goes_on(WHILE_BAD).await;
        one.always(fine());
        recovers(&one, &load, about).await;
        two.forget();
        three.forget();
    }

    for _ in 0..4 {
        one.stop().await;
        load.goes_on(WHILE_BAD / 10).await;
        one.restart_on_same_port().await;
        load.goes_on(WHILE_BAD / 10).await;
    }
    recovers(&one, &load, "flapping").await;

    let tally = load.stop().await;
    let good = tally.of(200);
    let all = tally.answered.values().sum::<u64>() + tally.failures.len() as u64;
    assert!((all - good) * 1000 < all, "{} of {all} failed: {:?} {:?}", all - good, tally.answered, tally.failures);
    assert!(tally.wrong.is_empty(), "{:?}", tally.wrong);
}
