//! One client connection as Pingora sees it.
//!
//! [`Conn`] stands between the socket and Pingora's HTTP session. It hands on exactly the bytes of one request (head, then
//! body by its framing) and keeps what follows, so that pipelined requests neither get lost nor leak into a body; it checks
//! chunked framing as the bytes pass; it gathers small writes until a flush; and it holds the deadlines that Pingora has no
//! place for. While a connection is idle it owns no buffer.

mod reading;
mod writing;

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use pingora_http::ResponseHeader;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, Sleep, sleep_until};

use super::count::Counted;
use super::floods::{Alarm, Floods};
use super::info::{ConnInfo, Deadlines};
use super::wire::Wire;
use reading::Phase;
pub use reading::{Framing, LEFTOVER};
use writing::LINGER;

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
        let whole = self.has_request();
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

    /// Whether all of the request has been handed on.
    fn has_request(&self) -> bool {
        matches!(self.phase, Phase::Body) && self.body_done()
    }

    /// Whether nothing is or will be there to be read. What a client sends after its last request is its own loss.
    fn has_read_all(&self) -> bool {
        self.parting && self.has_request() && self.inbound.is_empty() && self.stream.is_read_empty()
    }
}

/// How much is read at a time while a head is awaited.
const HEAD_ROOM: usize = 4096;
/// Room that is left for a body behind a head.
const SMALL_BODY: usize = 1024;

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
