//! Closing a listening socket without resetting anybody.
//!
//! The kernel completes handshakes in the name of a listener, and closing it resets the connections that wait to be accepted: their
//! clients believe that they are connected and may have sent a request. Accepting all of them and closing then is not enough, since
//! more come in between. So the socket first stops taking new handshakes, by a filter that drops their first segment; those under
//! way get a moment to be completed and are served; then nothing is left to reset. A client whose first segment was dropped repeats
//! it a second later and is refused, as by any closed port.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockFilter, SockRef};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

use super::{App, Entry, admit};

/// Closes a listener that nobody else accepts from: no other task, and no other process, which would lose the socket with it.
pub async fn last_call<A>(listener: TcpListener, entry: &Arc<Entry<A>>)
where
    A: App,
{
    // The runtime may not have heard yet of a connection that waits, so the kernel is asked itself.
    let listener = match listener.into_std() {
        Ok(listener) => listener,
        Err(error) => return log::warn!(error:% = error; "Closed a listener without a last look"),
    };
    if let Err(error) = SockRef::from(&listener).attach_filter(&NO_MORE) {
        log::debug!(error:% = error; "No filter on a closing listener; a connection made right now may be reset");
    }
    let until = Instant::now() + HANDSHAKE;
    loop {
        let last = Instant::now() >= until;
        while let Ok((stream, peer)) = listener.accept() {
            if let Ok(stream) = taken(stream) {
                admit(stream, peer, entry);
            }
        }
        if last {
            return;
        }
        sleep(LOOK).await;
    }
}

fn taken(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

/// Drops a segment that opens a connection: of SYN and ACK it has the first alone. The program sees the TCP header, whose byte 13
/// are the flags (RFC 9293 §3.1). Classic BPF: load a byte, mask it, compare, return how much to keep.
const NO_MORE: [SockFilter; 5] = [
    SockFilter::new(0x30, 0, 0, 13),
    SockFilter::new(0x54, 0, 0, 0x12),
    SockFilter::new(0x15, 0, 1, 0x02),
    SockFilter::new(0x06, 0, 0, 0),
    SockFilter::new(0x06, 0, 0, u32::MAX),
];

/// How long a handshake under way may take: a round trip around the world.
const HANDSHAKE: Duration = Duration::from_millis(250);
/// How often is looked for one that has ended.
const LOOK: Duration = Duration::from_millis(10);
