//! A gateway before several origins, and requests that come at once.

use std::future::IntoFuture;

use tokio::task::JoinHandle;

use super::{Builder, Gateway, Origin, Reply, Request, eventually};

/// A gateway whose route `r` has these keys, before these origins: `ONE`, `TWO`, `THREE` in the configuration.
pub fn before(keys: &str, origins: &[&Origin]) -> Builder {
    let words = ["ONE", "TWO", "THREE"];
    let backends: String = words[..origins.len()].iter().map(|word| format!("\n    - {{endpoint: {word}}}")).collect();
    let keys: String = keys.lines().map(|line| format!("  {}\n", line.trim_start())).collect();
    let route = format!("- name: r\n  path: /\n{keys}  backends:{backends}");
    let builder = Gateway::builder().routes(&route);
    words.iter().zip(origins).fold(builder, |builder, (word, origin)| builder.word(word, origin))
}

/// Two origins that answer `one` and `two`.
pub async fn two() -> (Origin, Origin) {
    (Origin::named("one").await, Origin::named("two").await)
}

/// How many requests these have seen.
pub fn requests(origins: &[&Origin]) -> usize {
    origins.iter().map(|origin| origin.seen().len()).sum()
}

/// How many of so many requests, one after the other, had which status.
pub async fn statuses(gateway: &Gateway, request: Request, times: usize, status: u16) -> usize {
    let mut connection = gateway.connect().await;
    let mut found = 0;
    for _ in 0..times {
        let reply = connection.send(request.clone()).await;
        found += usize::from(reply.status == status);
        if !reply.keeps_alive() {
            connection = gateway.connect().await;
        }
    }
    found
}

/// So many requests at once, of which one has to wait and the others are refused: the first, and the refusals.
pub async fn all_but_one_refused(gateway: &Gateway, times: usize) -> (JoinHandle<Reply>, Vec<Reply>) {
    let mut requests: Vec<_> = (0..times).map(|_| tokio::spawn(gateway.get("/").into_future())).collect();
    let others = async || (requests.iter().filter(|one| one.is_finished()).count() == times - 1).then_some(());
    eventually("all but one are refused", others).await;
    let waiting = requests.iter().position(|one| !one.is_finished()).expect("one waits");
    let waiting = requests.swap_remove(waiting);
    let mut refused = Vec::new();
    for request in requests {
        refused.push(request.await.expect("no panic"));
    }
    (waiting, refused)
}
