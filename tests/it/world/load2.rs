//! Constant load over HTTP/2: clients that keep one connection until they are told to go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinSet;

use super::http2::{Call, Http2};
use super::load::Tally;

/// Clients at work, each with one stream at a time.
pub struct Load2 {
    clients: JoinSet<Tally>,
    stop: Arc<AtomicBool>,
}

impl Load2 {
    /// So many clients of this port that get this path and expect this body.
    pub fn start(port: u16, clients: usize, path: &str, body: &str) -> Load2 {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            tasks.spawn(client(port, path.to_owned(), body.to_owned(), stop.clone()));
        }
        Load2 { clients: tasks, stop }
    }

    /// Lets every client finish the request it is at.
    pub async fn stop(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Tally::default();
        while let Some(tally) = self.clients.join_next().await {
            total.add(tally.expect("a client does not panic"));
        }
        total
    }
}

async fn client(port: u16, path: String, body: String, stop: Arc<AtomicBool>) -> Tally {
    let mut tally = Tally::default();
    let mut kept: Option<Http2> = None;
    while !stop.load(Ordering::Relaxed) {
        let connection = match kept.take() {
            Some(connection) => connection,
            None => match Http2::try_connect(port).await {
                Ok(connection) => connection,
                Err(error) => {
                    tally.failures.push(format!("connecting: {error}"));
                    continue;
                }
            },
        };
        // A connection that takes no more streams has been told to go: nothing was sent.
        let Ok(call) = connection.try_get(&path).await else { continue };
        match Call::finish(call).await {
            Ok(reply) => {
                *tally.answered.entry(reply.status).or_default() += 1;
                if reply.status == 200 && reply.text() != body {
                    tally.wrong.push(reply.text());
                }
                kept = Some(connection);
            }
            Err(error) => tally.failures.push(format!("HTTP/2: {error}")),
        }
    }
    tally
}
