//! What a connection hands on of what has arrived: exactly the bytes of one request.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::Conn;
use crate::entry::overdue::Overdue;
use crate::gate::{ChunkScanner, Progress};

/// How the bytes after a request's head are to be read.
pub enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunked coding, checked as it passes.
    Chunked(Box<ChunkScanner>),
    /// No end: an upgrade was asked for.
    Tunnel,
}

/// Part of a request that is next to be handed on.
pub(super) enum Phase {
    /// Nothing until the next head was admitted.
    Between,
    /// So many bytes of the head.
    Head(usize),
    /// The body.
    Body,
}

impl Conn {
    pub(super) fn body_done(&self) -> bool {
        match &self.framing {
            Framing::Length(left) => *left == 0,
            Framing::Chunked(_) | Framing::Tunnel => false,
        }
    }

    /// Hands on arrived bytes that belong to the body.
    fn take_body(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        let offered = self.inbound.len().min(buf.remaining());
        let taken = match &mut self.framing {
            Framing::Tunnel => offered,
            Framing::Length(left) => {
                let taken = usize::try_from(*left).map_or(offered, |left| left.min(offered));
                *left -= taken as u64;
                taken
            }
            Framing::Chunked(scanner) => match scanner.feed(&self.inbound[..offered]) {
                Ok(progress) => self.chunked(progress),
                Err(_) => return Err(self.broken()),
            },
        };
        buf.put_slice(&self.inbound[..taken]);
        self.inbound.advance(taken);
        self.give_back_empty();
        Ok(())
    }

    /// Reads body bytes straight into the caller's buffer; only a tail that belongs to the next request is moved.
    fn read_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let start = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let fresh = &buf.filled()[start..];
        let kept = match &mut self.framing {
            Framing::Tunnel => fresh.len(),
            Framing::Length(left) => {
                let kept = usize::try_from(*left).map_or(fresh.len(), |left| left.min(fresh.len()));
                *left -= kept as u64;
                kept
            }
            Framing::Chunked(scanner) => match scanner.feed(fresh) {
                Ok(progress) => self.chunked(progress),
                Err(_) => return Poll::Ready(Err(self.broken())),
            },
        };
        self.inbound.extend_from_slice(&fresh[kept..]);
        buf.set_filled(start + kept);
        Poll::Ready(Ok(()))
    }

    /// Hands on what comes next: the head, then the body, then nothing but the end of the connection.
    fn read_next(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Phase::Head(left) = &mut self.phase {
            let taken = (*left).min(buf.remaining());
            buf.put_slice(&self.inbound[..taken]);
            self.inbound.advance(taken);
            *left -= taken;
            if *left == 0 {
                self.phase = Phase::Body;
                self.give_back_empty();
            }
            return Poll::Ready(Ok(()));
        }
        if matches!(self.phase, Phase::Between) || self.body_done() {
            return self.watch_for_end(cx);
        }
        if self.is_overdue(cx, Overdue::Request) {
            return Poll::Ready(Err(Overdue::Request.into()));
        }
        if self.info.answered() && !matches!(self.framing, Framing::Tunnel) {
            let timer = self.leftover_timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + LEFTOVER)));
            if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(Overdue::Leftover.into()));
            }
        }
        if !self.inbound.is_empty() {
            return Poll::Ready(self.take_body(buf));
        }
        self.read_body(cx, buf)
    }

    /// Bytes of HTTP/2. What a client sends once it floods us is not read any more.
    fn read_http2(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.http2.as_ref().is_some_and(|guarded| guarded.raised) {
            return Poll::Pending;
        }
        let start = buf.filled().len();
        ready!(self.read_next(cx, buf))?;
        if let Some(guarded) = &mut self.http2
            && guarded.floods.read(&buf.filled()[start..], std::time::Instant::now).is_err()
        {
            guarded.raised = true;
            guarded.alarm.notify_one();
            buf.set_filled(start);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// After the body: notices that the client went away, keeps pipelined bytes for the next request.
    fn watch_for_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut space = [0; 1024];
        while self.inbound.len() < PIPELINED {
            let mut buf = ReadBuf::new(&mut space);
            match self.stream.poll_watch(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => self.inbound.extend_from_slice(buf.filled()),
                Poll::Pending => break,
                ended => return ended,
            }
        }
        // Where enough is waiting, the end is noticed when the next request is read.
        if self.is_overdue(cx, Overdue::Response) {
            return Poll::Ready(Err(Overdue::Response.into()));
        }
        Poll::Pending
    }

    /// Whether a deadline of the request passed while that was waited for. It is told once: the client may then be told as well,
    /// for which there is the limit on stalled writes.
    fn is_overdue(&mut self, cx: &mut Context<'_>, awaited: Overdue) -> bool {
        let mut passed = |timer: &mut Option<Pin<Box<Sleep>>>| {
            timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready())
        };
        let passed = awaited == Overdue::Request && passed(&mut self.read_timer) || passed(&mut self.write_timer);
        if passed {
            (self.read_timer, self.write_timer) = (None, None);
        }
        passed
    }

    /// Notes the end of a chunked body; returns how many bytes belong to it.
    fn chunked(&mut self, progress: Progress) -> usize {
        if progress.done {
            self.framing = Framing::Length(0);
        }
        progress.consumed
    }

    fn broken(&mut self) -> io::Error {
        self.info.break_framing();
        io::Error::new(io::ErrorKind::InvalidData, "broken chunked framing")
    }
}

impl AsyncRead for Conn {
    /// A task that waits for more has nothing to add to what was gathered. Pingora flushes a response with a length at its end
    /// only, and a client would wait that long for a piece that is here.
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = if self.http2.is_some() { self.read_http2(cx, buf) } else { self.read_next(cx, buf) };
        if read.is_pending() && self.http2.is_none() && self.holds_back() {
            // A failure is told to the next write.
            let _ = self.as_mut().poll_flush(cx);
        }
        read
    }
}

/// How long the rest of a body is passed on once the response has ended.
pub const LEFTOVER: Duration = Duration::from_secs(5);
/// How much of later requests is kept while one is being answered.
const PIPELINED: usize = 64 * 1024;
