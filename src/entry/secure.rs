//! Ends TLS: the handshake, under the deadline that also holds for the first request's head.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use rustls::server::{Accepted, AcceptedAlert, Acceptor};
use rustls::{HandshakeKind, InvalidMessage, ServerConnection};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::conn::Conn;
use super::info::Handshake;
use super::tls::{Tls, poll_hello};
use super::wire::Wire;
use super::{App, Arrived, ConnInfo, Entry, http1, http2};
use crate::tls::{ClientCertificate, Keeper};

/// What an entry point needs to end TLS.
pub struct Secure {
    /// Certificates and settings in force.
    pub keeper: Arc<Keeper>,
    /// Hears how each handshake ended.
    pub ended: Arc<dyn Fn(Ended) + Send + Sync>,
}

/// How a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With a new session.
    Full,
    /// With one of before.
    Resumed,
    /// The client sent something that is no TLS.
    Plain,
    /// It took too long.
    Overdue,
    /// The client left.
    Left,
    /// The client was refused, or refused us.
    Failed,
}

/// Shakes hands, then serves requests until the connection ends.
pub async fn serve<A>(arrived: Arrived, entry: &Arc<Entry<A>>)
where
    A: App,
{
    let Some(secure) = &entry.secure else { return };
    let due = entry.settings.deadlines.head.map(|limit| Instant::now() + limit);
    let Arrived { stream, peer, counted } = arrived;
    // Boxed: the connection is held for long, what a handshake needs only now.
    let shaking = Box::pin(shake(stream, &secure.keeper));
    let shaken = match due {
        Some(due) => timeout_at(due, shaking).await.unwrap_or(Err(Failure::of(Ended::Overdue))),
        None => shaking.await,
    };
    let (stream, asked) = match shaken {
        Ok(shaken) => shaken,
        Err(failure) => {
            (secure.ended)(failure.ended);
            log::debug!(entry_point = &*entry.name, peer:% = peer; "TLS handshake failed: {}", failure.why);
            return;
        }
    };
    let session = stream.session();
    (secure.ended)(match session.handshake_kind() {
        Some(HandshakeKind::Resumed) => Ended::Resumed,
        _ => Ended::Full,
    });
    let speaks_http2 = session.alpn_protocol() == Some(b"h2");
    let handshake = Handshake { asked, client: client(session) };
    let info = ConnInfo::new(peer, entry.name.clone(), Some(handshake));
    let conn = Conn::new(Wire::Tls(stream), info, entry.settings.deadlines, counted);
    if speaks_http2 {
        Box::pin(http2::serve(conn, entry, due)).await;
    } else {
        Box::pin(http1::serve(conn, entry, due)).await;
    }
}

/// Why there is no connection.
struct Failure {
    ended: Ended,
    why: String,
}

impl Failure {
    fn of(ended: Ended) -> Failure {
        Failure { ended, why: format!("{ended:?}") }
    }

    fn read(error: &io::Error) -> Failure {
        let left = matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        );
        Failure { ended: if left { Ended::Left } else { Ended::Failed }, why: error.to_string() }
    }
}

/// The whole handshake; whether the client was asked for a certificate.
async fn shake(mut stream: TcpStream, keeper: &Keeper) -> Result<(Box<Tls>, bool), Failure> {
    let accepted = hello(&mut stream).await?;
    let table = keeper.table().ok_or_else(|| Failure::of(Ended::Failed))?;
    let (config, asked) = table.choose(&accepted.client_hello());
    drop(table);
    let session = match accepted.into_connection(config) {
        Ok(session) => session,
        Err((error, alert)) => return Err(refuse(&mut stream, &error, alert).await),
    };
    let mut stream = Box::new(Tls::new(stream, session));
    poll_fn(|cx| stream.poll_shake(cx)).await.map_err(|error| Failure::read(&error))?;
    Ok((stream, asked))
}

/// Reads the client's first message. To what is no TLS the answer is not TLS either.
async fn hello(stream: &mut TcpStream) -> Result<Accepted, Failure> {
    let mut acceptor = Acceptor::default();
    loop {
        match poll_fn(|cx| poll_hello(stream, &mut acceptor, cx)).await {
            Ok(0) => return Err(Failure::of(Ended::Left)),
            Ok(_) => {}
            Err(error) => return Err(Failure::read(&error)),
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(accepted),
            Ok(None) => {}
            Err((rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType), _)) => {
                let _ = stream.write_all(SPOKE_HTTP).await;
                let _ = stream.shutdown().await;
                return Err(Failure::of(Ended::Plain));
            }
            Err((error, alert)) => return Err(refuse(stream, &error, alert).await),
        }
    }
}

/// Tells the client why there is no connection.
async fn refuse(stream: &mut TcpStream, error: &rustls::Error, mut alert: AcceptedAlert) -> Failure {
    let mut bytes = Vec::new();
    let _ = alert.write_all(&mut bytes);
    let _ = stream.write_all(&bytes).await;
    Failure { ended: Ended::Failed, why: error.to_string() }
}

/// What Goma says to a client that speaks HTTP without TLS here.
const SPOKE_HTTP: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

fn client(session: &ServerConnection) -> Option<Box<ClientCertificate>> {
    let shown = session.peer_certificates()?.first()?;
    ClientCertificate::of(shown).map(Box::new)
}
