//! The front door: an entry point accepts connections and hands requests that passed the gate to Pingora's HTTP proxy.
//!
//! Accepting, keep-alive, deadlines and counting are ours (Pingora's listeners, signal handling and idle closing are not
//! used), because losing no request while draining hangs on them. `entry` knows no routes.

mod alike;
mod app;
mod conn;
mod count;
mod floods;
mod http1;
mod http2;
mod info;
mod last_call;
mod overdue;
mod request;
mod secure;
mod sending;
mod stream;
mod target;
mod tls;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub use app::App;
pub use count::{Bounds, Count};
pub use info::{ConnInfo, Deadlines, Handshake};
pub use last_call::last_call;
pub use overdue::Overdue;
pub use secure::{Ended, Secure};

use crate::gate::{Limits, Refusal};
use conn::Conn;
use count::Counted;
use wire::Wire;

/// One entry point with everything that a connection on it needs.
pub struct Entry<A> {
    /// `web` or `webSecure`.
    pub name: Arc<str>,
    /// What answers requests.
    pub app: Arc<A>,
    /// Limits and deadlines.
    pub settings: Settings,
    /// Ends TLS; `None` for an entry point without.
    pub secure: Option<Secure>,
    /// HTTP/2's own settings.
    pub http2: h2::server::Builder,
    /// Turns true when the process drains.
    pub shutdown: watch::Receiver<bool>,
    /// While draining: how long an idle connection may still bring a request.
    pub drain_idle: Moment,
    /// Open connections.
    pub count: Arc<Count>,
    /// Hears of requests that never became one.
    pub refused: Arc<dyn Fn(&Refused<'_>) + Send + Sync>,
}

/// Limits and deadlines of an entry point. Read once at start.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Size limits of a request head.
    pub head: Limits,
    /// Deadlines of a connection.
    pub deadlines: Deadlines,
    /// Bounds on open connections.
    pub bounds: Bounds,
}

/// A span of time that is decided on later than those who wait for it are told of it. Clones are the same one.
#[derive(Clone, Default)]
pub struct Moment(Arc<AtomicU64>);

impl Moment {
    /// Decides on it.
    pub fn set(&self, length: Duration) {
        self.0.store(u64::try_from(length.as_millis()).unwrap_or(u64::MAX), Ordering::Release);
    }

    fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Acquire))
    }
}

/// A request that was refused before it could reach a route.
pub struct Refused<'a> {
    /// Who sent it.
    pub peer: SocketAddr,
    /// Where it arrived.
    pub entry_point: &'a str,
    /// What was wrong with it.
    pub refusal: &'a Refusal,
}

/// Binds an address. `[::]` takes IPv4 as well.
///
/// # Errors
/// When the address is taken or not ours; the caller names the entry point.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Makes the connections of a listener what they have to be, which spares asking for it with each: Linux gives those that are
/// accepted from it the same options.
pub fn prepare(listener: &TcpListener) {
    let socket = SockRef::from(listener);
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
}

/// Accepts until `stop` turns true; what was accepted lives on. Several may accept from one socket.
pub async fn run<A>(listener: Arc<TcpListener>, entry: Arc<Entry<A>>, mut stop: watch::Receiver<bool>)
where
    A: App,
{
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => admit(stream, peer, &entry),
            Err(error) => {
                log::warn!(entry_point = &*entry.name, error:% = error; "Could not accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn admit<A>(stream: TcpStream, peer: SocketAddr, entry: &Arc<Entry<A>>)
where
    A: App,
{
    let Some(counted) = entry.count.admit(peer.ip().to_canonical(), entry.settings.bounds) else {
        log::debug!(entry_point = &*entry.name, peer:% = peer; "Too many connections, closed a new one");
        return;
    };
    let arrived = Arrived { stream, peer, counted };
    let entry = entry.clone();
    if entry.secure.is_some() {
        tokio::spawn(async move { secure::serve(arrived, &entry).await });
    } else {
        let conn = arrived.conn(&entry);
        tokio::spawn(async move { http1::serve(conn, &entry, None).await });
    }
}

/// A connection that was accepted and counted.
struct Arrived {
    stream: TcpStream,
    peer: SocketAddr,
    counted: Counted,
}

impl Arrived {
    fn conn<A>(self, entry: &Entry<A>) -> Conn {
        let info = ConnInfo::new(self.peer, entry.name.clone(), None);
        Conn::new(Wire::Plain(self.stream), info, entry.settings.deadlines, self.counted)
    }
}

/// Methods that a refused one could have been.
const ALLOW: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
/// How long a client may take no part of a response, on HTTP/1 and HTTP/2.
pub const STALL: Duration = Duration::from_secs(60);
/// Connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// After a failed accept (out of file descriptors, mostly).
const PAUSE: Duration = Duration::from_millis(50);
/// Silence after which the kernel asks whether a peer is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);
