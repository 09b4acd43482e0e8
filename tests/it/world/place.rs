//! Ports on loopback that no one else takes.
//!
//! They lie below the range from which the system draws the source ports of outgoing connections, so that the
//! traffic of a parallel test cannot sit on a port between the moment it was found and the moment it is bound.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::{TcpListener, TcpSocket};

/// A port that was free just now, and that this process hands out only once.
pub fn free_port() -> u16 {
    loop {
        let port = next();
        if std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// A listener on a port of its own.
pub fn listen() -> TcpListener {
    loop {
        if let Ok(listener) = listen_on(next()) {
            return listener;
        }
    }
}

/// A listener on this port; also when connections of its predecessor still linger.
pub fn listen_on(port: u16) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port).into())?;
    socket.listen(1024)
}

fn next() -> u16 {
    let step = STEP.fetch_add(1, Ordering::Relaxed);
    let start = std::process::id().wrapping_mul(97);
    FIRST + u16::try_from(start.wrapping_add(step) % u32::from(COUNT)).expect("a remainder below COUNT")
}

static STEP: AtomicU32 = AtomicU32::new(0);

const FIRST: u16 = 10_000;
const COUNT: u16 = 22_000;
