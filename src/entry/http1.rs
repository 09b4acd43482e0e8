//! HTTP/1 on one connection: the keep-alive loop.
//!
//! Between requests a connection is this small future and nothing else; what answers a request, with its buffers and its large
//! futures, lives only while the request does. The head is awaited here, under one deadline and one size limit, passes the
//! gate, and only then becomes a request (`request`), or a session of Pingora's when it does not end with its head.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::{Digest, GetProxyDigest, GetSocketDigest};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep, timeout_at};

use super::conn::{Conn, Framing};
use super::request::{self, Home, Http1Request};
use super::{ALLOW, App, Entry, Refused, http2, target};
use crate::gate::{self, Body, ChunkScanner, Refusal};
use crate::reply::Reply;

/// Serves requests until the connection ends. `due` is when the first head has to be here, if a clock runs already.
pub async fn serve<A>(mut conn: Conn, entry: &Arc<Entry<A>>, mut due: Option<Instant>)
where
    A: App,
{
    let mut first = true;
    let rest = Rest::new(entry);
    tokio::pin!(rest);
    let (home, digest) = (Arc::<Home>::default(), Arc::new(digest(&conn)));
    while let Some(head) = next_head(&mut conn, entry, rest.as_mut(), first, due.take()).await {
        let (mut length, head) = match head {
            Arrival::Request(length, head) => (length, head),
            // Boxed, as everything that most connections do not need for long: each holds room for the largest.
            Arrival::Http2 => return Box::pin(http2::serve(conn, entry, None)).await,
            Arrival::Refused(refusal) => return Box::pin(refuse(conn, entry, &refusal)).await,
        };
        if let Some(plain) = target::plain(&conn.pending()[..length]) {
            conn.replace(length, &plain);
            length = plain.len();
        }
        let asked = entry.count.begins();
        let back = if request::fits(&head) {
            match Http1Request::new(conn, length, &head, &home, &digest) {
                Ok(request) => Box::pin(entry.app.answer(Box::new(request), &entry.shutdown)).await,
                Err(conn) => return Box::pin(refuse(*conn, entry, &UNREADABLE)).await,
            }
            home.take()
        } else {
            conn.admit(length, framing(&head, &entry.settings.head), !head.keep_alive);
            let session = ServerSession::new_http1(Box::new(conn));
            let reused = Box::pin(entry.app.take(session, &entry.shutdown)).await;
            reused.and_then(|reused| reused.consume().0.into_any().downcast::<Conn>().ok()).map(|conn| *conn)
        };
        drop(asked);
        conn = match back {
            Some(conn) => conn,
            None => return,
        };
        if !conn.finish() {
            return;
        }
        first = false;
    }
}

/// What Pingora's types say of a connection.
pub(super) fn digest(conn: &Conn) -> Digest {
    Digest { proxy_digest: conn.get_proxy_digest(), socket_digest: conn.get_socket_digest(), ..Digest::default() }
}

/// What the first bytes of a request turned out to be.
enum Arrival {
    Request(usize, gate::Head),
    Http2,
    Refused(Refusal),
}

/// Waits for a whole head; `None` when the connection ended, idled out or is not needed any more.
async fn next_head<A>(
    conn: &mut Conn,
    entry: &Entry<A>,
    rest: Pin<&mut Rest>,
    first: bool,
    mut due: Option<Instant>,
) -> Option<Arrival> {
    let deadlines = conn.deadlines();
    if !first && conn.pending().is_empty() {
        match conn.is_tls() {
            true => rest.until_data(conn).await?,
            false => rest.until_readable(conn).await?,
        }
    }
    // Under TLS the handshake says which protocol follows.
    let may_be_http2 = first && !conn.is_tls();
    let mut searched = 0;
    loop {
        if may_be_http2 && PREFACE.starts_with(&conn.pending()[..conn.pending().len().min(PREFACE.len())]) {
            if conn.pending().len() >= PREFACE.len() {
                return Some(Arrival::Http2);
            }
        } else if let Some(length) = gate::end_of_head(conn.pending(), searched) {
            return Some(match gate::head(&conn.pending()[..length], &entry.settings.head) {
                Ok(head) => Arrival::Request(length, head),
                Err(refusal) => Arrival::Refused(refusal),
            });
        }
        if let (0, Some(refusal)) = (searched, gate::no_request(conn.pending())) {
            return Some(Arrival::Refused(refusal));
        }
        searched = conn.pending().len();
        if searched > entry.settings.head.head_bytes {
            return Some(Arrival::Refused(gate::too_large(conn.pending())));
        }
        // The clock is asked only when the head is not here at once.
        let read = match (conn.fill().now_or_never(), deadlines.head) {
            (Some(read), _) => read,
            (None, None) => conn.fill().await,
            (None, Some(limit)) => {
                let due = *due.get_or_insert_with(|| Instant::now() + limit);
                match timeout_at(due, conn.fill()).await {
                    Ok(read) => read,
                    Err(_) if conn.pending().is_empty() => return None,
                    Err(_) => return Some(Arrival::Refused(TOO_SLOW)),
                }
            }
        };
        match read {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

fn framing(head: &gate::Head, limits: &gate::Limits) -> Framing {
    match head.body {
        Body::None if head.upgrade => Framing::Tunnel,
        Body::None => Framing::Length(0),
        Body::Length(length) => Framing::Length(length),
        Body::Chunked => Framing::Chunked(Box::new(ChunkScanner::new(limits))),
    }
}

/// What may end a connection between two requests. Lives as long as the connection, so that its timer and its place in the
/// list of those who hear of a drain are not made anew for each request.
#[pin_project::pin_project]
struct Rest {
    idle: Option<Duration>,
    shutdown: watch::Receiver<bool>,
    /// Whether timer and drain have been told whom to wake.
    armed: bool,
    #[pin]
    timer: Sleep,
    #[pin]
    drained: BoxFuture<'static, ()>,
}

impl Rest {
    /// While draining, an idle connection is not closed at once: a request may be on its way, and closing would lose it. It
    /// gets a moment, in which a request is still answered (with `Connection: close`).
    fn new<A>(entry: &Entry<A>) -> Rest {
        let mut shutdown = entry.shutdown.clone();
        let moment = entry.drain_idle.clone();
        let idle = entry.settings.deadlines.idle;
        let drained = async move {
            if shutdown.wait_for(|down| *down).await.is_err() {
                std::future::pending().await
            }
            tokio::time::sleep(moment.get()).await;
        };
        let shutdown = entry.shutdown.clone();
        Rest { idle, shutdown, armed: false, timer: sleep(idle.unwrap_or(FAR)), drained: Box::pin(drained) }
    }

    /// Under TLS: waits for the first data of a further request, which may have been decrypted along with the one before.
    /// Other messages do not end the pause.
    async fn until_data(mut self: Pin<&mut Self>, conn: &mut Conn) -> Option<()> {
        loop {
            match conn.fill().now_or_never() {
                Some(Ok(1..)) => return Some(()),
                Some(Ok(0) | Err(_)) => return None,
                None => conn.rests(),
            }
            self.as_mut().until_readable(conn).await?;
        }
    }

    /// Waits for the first byte of a further request; `None` when there will be none.
    async fn until_readable(mut self: Pin<&mut Self>, conn: &Conn) -> Option<()> {
        let until = self.idle.map(|idle| Instant::now() + idle);
        let readable = conn.readable();
        tokio::pin!(readable);
        let mut woken = false;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(arrived) = readable.as_mut().poll(cx) {
                return Poll::Ready(arrived.ok());
            }
            // Both keep this task's waker from an earlier pause, and a wake-up leads to a second round here.
            let quiet = self.armed && !woken && !self.timer.is_elapsed() && !*self.shutdown.borrow();
            woken = true;
            if quiet { Poll::Pending } else { self.as_mut().poll_end(cx, until) }
        })
        .await
    }

    /// Ready when the pause, or the time that a drain leaves, is over.
    fn poll_end(self: Pin<&mut Self>, cx: &mut Context<'_>, until: Option<Instant>) -> Poll<Option<()>> {
        let mut this = self.project();
        *this.armed = true;
        while this.timer.as_mut().poll(cx).is_ready() {
            // The timer may stem from an earlier pause; moving it only when it fires spares the usual request.
            let now = Instant::now();
            match until {
                Some(until) if now >= until => return Poll::Ready(None),
                Some(until) => this.timer.as_mut().reset(until),
                None => this.timer.as_mut().reset(now + FAR),
            }
        }
        this.drained.as_mut().poll(cx).map(|()| None)
    }
}

/// Far enough for a timer that means never.
const FAR: Duration = Duration::from_secs(86_400);

async fn refuse<A>(conn: Conn, entry: &Entry<A>, refusal: &Refusal) {
    (entry.refused)(&Refused { peer: conn.info().peer, entry_point: &conn.info().entry_point, refusal });
    conn.refuse(&wire(refusal)).await;
}

/// The refusal as bytes: no request exists that could be asked for the form it wants.
fn wire(refusal: &Refusal) -> Vec<u8> {
    let status = http::StatusCode::from_u16(refusal.status).unwrap_or(http::StatusCode::BAD_REQUEST);
    let (content_type, body) = Reply::plain(status).content(&http::HeaderMap::new());
    let allow = if refusal.status == 405 { format!("Allow: {ALLOW}\r\n") } else { String::new() };
    let mut text = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nX-Content-Type-Options: nosniff\r\n{allow}Content-Length: {}\r\nConnection: close\r\n\r\n",
        status.as_u16(),
        status.canonical_reason().unwrap_or("Refused"),
        content_type.unwrap_or("text/plain"),
        body.len(),
    )
    .into_bytes();
    text.extend_from_slice(&body);
    text
}

/// Client connection preface. RFC 9113 §3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const UNREADABLE: Refusal = Refusal { status: 400, reason: "bad_request", detail: "the head cannot be read" };

const TOO_SLOW: Refusal =
    Refusal { status: 408, reason: "client_timeout", detail: "the request head did not arrive in time" };
