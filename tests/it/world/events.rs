//! A client of an event stream.

use std::time::Instant;

use super::client::Request;
use super::client::{Connection, Reply};
use super::wire::{Headers, Left};

/// An open event stream.
pub struct Events {
    /// The head of the response.
    pub reply: Reply,
    connection: Connection,
    left: Left,
    text: String,
}

impl Events {
    pub async fn open(request: Request) -> Events {
        let (reply, connection, left) = request.open().await;
        Events { reply, connection, left, text: String::new() }
    }

    /// The data of the next event and when it was here; `None` at the proper end of the stream.
    pub async fn next(&mut self) -> Option<(String, Instant)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let data = event.trim_start_matches("data: ").to_owned();
                self.text = rest.to_owned();
                return Some((data, Instant::now()));
            }
            let mut trailers = Headers::default();
            let piece = self.connection.wire.piece(&mut self.left, &mut trailers).await;
            let piece = piece.expect("the event stream is not cut")?;
            self.text.push_str(&String::from_utf8_lossy(&piece));
        }
    }

    /// Waits until the stream breaks off without a proper end.
    pub async fn breaks_off(&mut self) {
        let piece = self.connection.wire.piece(&mut self.left, &mut Headers::default()).await;
        assert!(piece.is_err(), "the stream goes on or ends as if it were whole: {piece:?}");
    }
}
