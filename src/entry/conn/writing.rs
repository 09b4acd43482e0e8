//! What leaves on a connection, with the clocks of a client that does not take it, and its end.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora_core::protocols::Shutdown;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};

use super::{Conn, SMALL_BODY};
use crate::entry::overdue::Overdue;
use crate::entry::wire::Wire;

impl Conn {
    /// Sends what was gathered; as the `last` of the stream, it may leave with its end. Ready when nothing is left.
    fn send_gathered(&mut self, cx: &mut Context<'_>, last: bool) -> Poll<io::Result<()>> {
        while !self.outbound.is_empty() {
            let sent = match last {
                true => self.stream.poll_write_last(cx, &self.outbound),
                false => Pin::new(&mut self.stream).poll_write(cx, &self.outbound),
            };
            let sent = ready!(self.progress(cx, sent))?;
            self.outbound.advance(sent);
            self.wrote(sent);
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, bytes: usize) {
        if let Some(guarded) = &mut self.http2 {
            guarded.floods.wrote(bytes);
        }
    }

    /// Keeps the clocks of the writing side.
    fn progress<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stall_timer = None;
            return outcome;
        }
        if self.stall_timer.is_none() {
            self.stall_timer = self.deadlines.stall.map(|d| Box::pin(sleep_until(Instant::now() + d)));
        }
        for timer in [&mut self.stall_timer, &mut self.write_timer].into_iter().flatten() {
            if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(Overdue::Reading.into()));
            }
        }
        Poll::Pending
    }
}

impl AsyncWrite for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        loop {
            if this.outbound.len() + data.len() <= GATHER {
                if this.outbound.capacity() == 0 {
                    this.outbound.reserve(data.len() + SMALL_BODY);
                }
                this.outbound.extend_from_slice(data);
                return Poll::Ready(Ok(data.len()));
            }
            let gathered = this.outbound.len();
            let parts = [IoSlice::new(&this.outbound), IoSlice::new(data)];
            let sent = Pin::new(&mut this.stream).poll_write_vectored(cx, &parts);
            let sent = ready!(this.progress(cx, sent))?;
            this.outbound.advance(sent.min(gathered));
            this.wrote(sent);
            if sent > gathered || data.is_empty() {
                return Poll::Ready(Ok(sent - gathered));
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Of HTTP/2, streams that are about to run get their turn first: what they say then goes out in the same write.
        let waiting = !self.outbound.is_empty();
        if let Some(guarded) = &mut self.http2 {
            guarded.gathers = !guarded.gathers && waiting;
            if guarded.gathers {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        ready!(self.send_gathered(cx, false))?;
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.progress(cx, flushed)
    }

    /// What waits leaves with the end of the stream, in one segment where it fits.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.send_gathered(cx, true))?;
        // Asked before the client can hear of it. The close, which follows, ends the stream as well.
        if self.lingers && self.has_read_all() {
            let sent = self.stream.poll_farewell(cx);
            self.lingers = !matches!(sent, Poll::Ready(Ok(())));
            return self.progress(cx, sent);
        }
        let closed = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.progress(cx, closed)
    }
}

#[async_trait]
impl Shutdown for Conn {
    async fn shutdown(&mut self) {
        let _ = tokio::time::timeout(LINGER, AsyncWriteExt::shutdown(self)).await;
    }
}

impl Drop for Conn {
    /// Bytes that nobody read would turn the close into a reset, and the reset could overtake the response on its way. So
    /// such a connection is read on for a moment.
    fn drop(&mut self) {
        let handle = match self.lingers && self.http2.is_none() {
            true => tokio::runtime::Handle::try_current().ok(),
            false => None,
        };
        let Some(handle) = handle else { return self.stream.farewell() };
        let stream = std::mem::replace(&mut self.stream, Wire::Gone);
        let rest = std::mem::take(&mut self.outbound);
        let counted = self.counted.take();
        handle.spawn(async move {
            let _ = tokio::time::timeout(LINGER, linger(stream, rest)).await;
            drop(counted);
        });
    }
}

async fn linger(mut stream: Wire, rest: BytesMut) -> io::Result<()> {
    stream.write_all(&rest).await?;
    stream.shutdown().await?;
    let Some(mut stream) = stream.into_tcp() else { return Ok(()) };
    let mut left = LINGER_BYTES;
    let mut sink = [0; 4096];
    while left > 0 {
        match stream.read(&mut sink).await? {
            0 => break,
            got => left = left.saturating_sub(got),
        }
    }
    Ok(())
}

/// Writes up to this size are gathered until a flush.
const GATHER: usize = 8 * 1024;
/// How long a closed connection is read on, so that the client sees the answer before a reset.
pub const LINGER: Duration = Duration::from_secs(2);
/// How much of it.
const LINGER_BYTES: usize = 1 << 20;
