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
    if length.is_none_or(|length: usize| length <= SMALL) {
        // Whether it came is what the session knows by itself.
        forget(session, SMALL, Duration::from_millis(250)).await;
    }
}

/// Reads a little of a body that is on its way when the reply goes out. On HTTP/2 the stream is reset as soon as nobody reads
/// it, which a client may take for a failure although it has its whole response (RFC 9113 §8.1 lets us, curl 7.88 does).
pub async fn hear_out(session: &mut Session) {
    if session.req_header().version == Version::HTTP_2 {
        forget(session, 16 << 20, Duration::from_millis(500)).await;
    }
}

/// Reads so many bytes of the body, for so long.
async fn forget(session: &mut Session, most: usize, patience: Duration) {
    let downstream = session.as_downstream_mut();
    if downstream.is_body_done() {
        return;
    }
    let read = async {
        let mut left = most;
        while let Ok(Some(piece)) = downstream.read_request_body().await {
            match left.checked_sub(piece.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    let _ = timeout(patience, read).await;
}

/// Largest body that is taken, as Go's.
const SMALL: usize = 256 * 1024;
