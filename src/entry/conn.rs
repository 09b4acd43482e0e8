//! One client connection as Pingora sees it.
//!
//! [`Conn`] stands between the socket and Pingora's HTTP session. It hands on exactly the bytes of one request (head, then
//! body by its framing) and keeps what follows, so that pipelined requests neither get lost nor leak into a body; it checks
//! chunked framing as the bytes pass; it gathers small writes until a flush; and it holds the deadlines that Pingora has no
//! place for. While a connection is idle it owns no buffer.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use pingora_http::ResponseHeader;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::count::Counted;
use super::floods::{Alarm, Floods};
use super::info::{ConnInfo, Deadlines};
use super::overdue::Overdue;
use super::wire::Wire;
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
enum Phase {
    /// Nothing until the next head was admitted.
    Between,
    /// So many bytes of the head.
    Head(usize),
    /// The body.
    Body,
}

/// Watches over the frames of HTTP/2.
struct Guarded {
    floods: Floods,
    alarm: Arc<Alarm>,
    raised: bool,
    /// Whether a flush waits for what other streams have to say.
    gathers: bool,
}

/// The connection.
pub struct Conn {
    stream: Wire,
    inbound: BytesMut,
    outbound: BytesMut,
    phase: Phase,
    framing: Framing,
    deadlines: Deadlines,
    read_timer: Option<Pin<Box<Sleep>>>,
    write_timer: Option<Pin<Box<Sleep>>>,
    stall_timer: Option<Pin<Box<Sleep>>>,
    leftover_timer: Option<Pin<Box<Sleep>>>,
    http2: Option<Box<Guarded>>,
    /// The client said that this request is its last one.
    parting: bool,
    lingers: bool,
    info: Arc<ConnInfo>,
    digest: Arc<ProxyDigest>,
    socket: Arc<SocketDigest>,
    counted: Option<Counted>,
}

impl Conn {
    /// Wraps an accepted socket; under TLS, with the handshake done.
    pub fn new(stream: Wire, info: ConnInfo, deadlines: Deadlines, counted: Counted) -> Conn {
        let info = Arc::new(info);
        let head = ResponseHeader::build_no_case(200, Some(0)).expect("200 is a status code");
        let socket = SocketDigest::from_raw_fd(stream.fd());
        let _ = socket.peer_addr.set(Some(info.peer.into()));
        Conn {
            stream,
            inbound: BytesMut::new(),
            outbound: BytesMut::new(),
            phase: Phase::Between,
            framing: Framing::Length(0),
            deadlines,
            read_timer: None,
            write_timer: None,
            stall_timer: None,
            leftover_timer: None,
            http2: None,
            parting: false,
            lingers: false,
            digest: Arc::new(ProxyDigest::new(Box::new(head), Some(Box::new(info.clone())))),
            info,
            socket: Arc::new(socket),
            counted: Some(counted),
        }
    }

    /// The facts that are the same for all requests of this connection.
    pub fn info(&self) -> &Arc<ConnInfo> {
        &self.info
    }

    /// The deadlines in force.
    pub fn deadlines(&self) -> Deadlines {
        self.deadlines
    }

    /// Bytes that have arrived and were not handed on.
    pub fn pending(&self) -> &[u8] {
        &self.inbound
    }

    /// Waits for more bytes; returns how many, zero at the end of the stream.
    ///
    /// Cancel-safe: nothing is lost when the future is dropped. A short read tells that the socket is empty, which saves
    /// asking it again.
    pub async fn fill(&mut self) -> io::Result<usize> {
        self.inbound.reserve(HEAD_ROOM);
        self.stream.read_buf(&mut self.inbound).await
    }

    /// Whether bytes of TLS may arrive that are no data.
    pub fn is_tls(&self) -> bool {
        self.stream.is_tls()
    }

    /// Waits until something can be read, without a buffer. Under TLS that may turn out to be nothing; then what was read
    /// before and not handed on is not waited for here.
    pub async fn readable(&self) -> io::Result<()> {
        self.stream.readable().await
    }

    /// Gives back the buffer, where it is empty.
    pub fn rests(&mut self) {
        self.give_back_empty();
    }

    /// Puts other bytes in the place of the first `length` of what has arrived.
    pub fn replace(&mut self, length: usize, bytes: &[u8]) {
        let rest = self.inbound.split_off(length);
        self.inbound = BytesMut::with_capacity(bytes.len() + rest.len());
        self.inbound.extend_from_slice(bytes);
        self.inbound.extend_from_slice(&rest);
    }

    /// Admits the request whose head are the first `head` bytes of what has arrived; `parting` when the client said that it is
    /// its last one.
    pub fn admit(&mut self, head: usize, framing: Framing, parting: bool) {
        self.parting = parting;
        self.phase = Phase::Head(head);
        let endless = matches!(framing, Framing::Tunnel);
        self.framing = framing;
        let timer = |d: Option<Duration>| d.map(|d| Box::pin(sleep_until(Instant::now() + d)));
        self.read_timer = timer(self.deadlines.read.filter(|_| !endless));
        self.write_timer = timer(self.deadlines.write.filter(|_| !endless));
        self.leftover_timer = None;
        self.info.begin();
        self.lingers = true;
    }

    /// Admits a request that ends with its head, the first `head` bytes of what has arrived, and hands that out.
    pub fn begin(&mut self, head: usize, parting: bool) -> Bytes {
        self.admit(0, Framing::Length(0), parting);
        self.phase = Phase::Body;
        let head = self.inbound.split_to(head).freeze();
        self.give_back_empty();
        head
    }

    /// What waits to be sent, with room for so much more of it and a small body.
    pub fn gathered(&mut self, room: usize) -> &mut BytesMut {
        if self.outbound.capacity() == 0 {
            self.outbound.reserve(room + SMALL_BODY);
        }
        &mut self.outbound
    }

    /// Whether something that was written is still here.
    pub fn holds_back(&self) -> bool {
        !self.outbound.is_empty() || self.stream.holds_back()
    }

    /// Closes the books on a request: whether the connection can carry another one.
    pub fn finish(&mut self) -> bool {
        let whole = matches!(self.phase, Phase::Body) && self.body_done();
        self.phase = Phase::Between;
        self.read_timer = None;
        self.write_timer = None;
        self.outbound = BytesMut::new();
        self.give_back_empty();
        self.lingers = !whole;
        whole
    }

    /// From here on the connection speaks HTTP/2: all bytes pass, and floods of frames are noticed.
    pub fn speak_http2(&mut self) -> Arc<Alarm> {
        let alarm = Arc::<Alarm>::default();
        let floods = Floods::new(std::time::Instant::now());
        self.http2 = Some(Box::new(Guarded { floods, alarm: alarm.clone(), raised: false, gathers: false }));
        self.phase = Phase::Body;
        self.framing = Framing::Tunnel;
        alarm
    }

    /// Answers outside of Pingora and closes, without a reset that could overtake the answer.
    pub async fn refuse(mut self, response: &[u8]) {
        self.lingers = true;
        let written = tokio::time::timeout(LINGER, self.stream.write_all(response)).await;
        if matches!(written, Ok(Ok(()))) {
            let _ = self.stream.shutdown().await;
        }
    }

    fn give_back_empty(&mut self) {
        if self.inbound.is_empty() {
            self.inbound = BytesMut::new();
        }
    }

    /// Whether nothing is or will be there to be read. What a client sends after its last request is its own loss.
    fn has_read_all(&self) -> bool {
        let whole = matches!(self.phase, Phase::Body) && self.body_done();
        self.parting && whole && self.inbound.is_empty() && self.stream.is_read_empty()
    }

    fn body_done(&self) -> bool {
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

    /// Sends what was gathered. Ready when nothing is left.
    fn send_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbound.is_empty() {
            let sent = Pin::new(&mut self.stream).poll_write(cx, &self.outbound);
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

/// How long the rest of a body is passed on once the response has ended.
pub const LEFTOVER: Duration = Duration::from_secs(5);
/// How much is read at a time while a head is awaited.
const HEAD_ROOM: usize = 4096;
/// How much of later requests is kept while one is being answered.
const PIPELINED: usize = 64 * 1024;
/// Writes up to this size are gathered until a flush.
const GATHER: usize = 8 * 1024;
/// Room that is left for a body behind a head.
const SMALL_BODY: usize = 1024;
/// How long a closed connection is read on, so that the client sees the answer before a reset.
const LINGER: Duration = Duration::from_secs(2);
/// How much of it.
const LINGER_BYTES: usize = 1 << 20;

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
        ready!(self.send_gathered(cx))?;
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.progress(cx, flushed)
    }

    /// What waits leaves with the end of the stream, in one segment where it fits.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbound.is_empty() {
            let this = &mut *self;
            let sent = this.stream.poll_write_last(cx, &this.outbound);
            let sent = ready!(self.progress(cx, sent))?;
            self.outbound.advance(sent);
            self.wrote(sent);
        }
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

impl UniqueID for Conn {
    fn id(&self) -> UniqueIDType {
        self.stream.fd()
    }
}

impl Ssl for Conn {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.http2.is_some().then_some(ALPN::H2)
    }
}

impl GetTimingDigest for Conn {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Conn {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(self.digest.clone())
    }
}

impl GetSocketDigest for Conn {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(self.socket.clone())
    }
}

impl Peek for Conn {}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn")
            .field("peer", &self.info.peer)
            .field("http2", &self.http2.is_some())
            .finish_non_exhaustive()
    }
}
