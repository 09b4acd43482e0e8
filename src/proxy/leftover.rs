//! The body of a request that is answered without it.

use std::time::Duration;

use http::{Version, header};
use pingora_proxy::Session;
use tokio::time::timeout;

/// Takes what a client sends of a small body before our own reply goes out, so that its connection carries the next request:
/// a refusal should not cost a handshake. As Go's server does, but not for long. HTTP/1 only.
///
/// A body that is larger, late or broken is left to the end of the connection, which the reply then announces.
pub async fn take(session: &mut Session) {
    let head = session.req_header();
    if head.version == Version::HTTP_2 || session.is_upgrade_req() || head.headers.contains_key(header::EXPECT) {
        return;
    }
    let length = head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let downstream = session.as_downstream_mut();
    if length.is_some_and(|length: usize| length > MOST) || downstream.is_body_done() {
        return;
    }
    let read = async {
        let mut left = MOST;
        while let Ok(Some(piece)) = downstream.read_request_body().await {
            match left.checked_sub(piece.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // Whether it came is what the session knows by itself.
    let _ = timeout(PATIENCE, read).await;
}

/// Largest body that is taken, as Go's.
const MOST: usize = 256 * 1024;
/// How long its sender may take.
const PATIENCE: Duration = Duration::from_millis(250);
