//! TLS over a socket: a session of rustls and the socket that it speaks on.
//!
//! Written for few segments and system calls a connection. Session tickets, which a client can use for its next connection
//! only, wait for the first response and leave in its segment; the farewell travels in the segment that ends the stream; a
//! socket that was just read empty is not asked again.

use std::io::{self, BufRead, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::server::Acceptor;
use rustls::{ProtocolVersion, ServerConnection};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// A stream under TLS.
pub struct Tls {
    socket: TcpStream,
    session: ServerConnection,
    /// All that waits to be written is tickets.
    only_tickets: bool,
}

impl Tls {
    /// A session that has read the client's first message.
    pub fn new(socket: TcpStream, session: ServerConnection) -> Tls {
        Tls { socket, session, only_tickets: false }
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// The session.
    pub fn session(&self) -> &ServerConnection {
        &self.session
    }

    /// The socket alone.
    pub fn into_socket(self) -> TcpStream {
        self.socket
    }

    /// The rest of the handshake.
    pub fn poll_shake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            // In TLS 1.2 the client waits for the last message of the handshake, in 1.3 it has sent that itself.
            if self.session.is_handshaking() || self.session.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
                ready!(self.poll_send(cx))?;
            }
            if !self.session.is_handshaking() {
                self.only_tickets = self.session.wants_write();
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_receive(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Reads without sending what waits, for a task that only wants to hear of the end.
    pub fn poll_watch(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.session.reader().into_first_chunk() {
                Ok(chunk) => {
                    let taken = chunk.len().min(buf.remaining());
                    buf.put_slice(&chunk[..taken]);
                    self.session.reader().consume(taken);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            ready!(self.poll_receive(cx))?;
        }
    }

    /// Whether more than tickets waits for the socket.
    pub fn holds_back(&self) -> bool {
        self.session.wants_write() && !self.only_tickets
    }

    /// Seals data that is to leave with the end of the stream; nothing is sent before unless the session is full.
    pub fn poll_seal(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.session.writer().write(data)? {
                0 if !data.is_empty() => ready!(self.poll_send(cx))?,
                taken => return Poll::Ready(Ok(taken)),
            }
        }
    }

    /// Sends what waits and says that nothing more will come, all of it in the segment of the end that follows.
    pub fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.farewell();
        self.poll_send(cx)
    }

    /// The same as far as the socket takes it now. The closing of the socket is expected to follow.
    pub fn farewell(&mut self) {
        self.session.send_close_notify();
        while self.session.wants_write() {
            match self.session.write_tls(&mut Last(&self.socket)) {
                Ok(sent) if sent > 0 => {}
                _ => break,
            }
        }
    }

    /// Takes what has arrived into the session: how many bytes, none at the end of the stream.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let received = ready!(blocking(self.session.read_tls(&mut Incoming { socket: &mut self.socket, cx })))?;
        if let Err(error) = self.session.process_new_packets() {
            // The client hears why, if the socket takes it now.
            let _ = self.poll_send(cx);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        Poll::Ready(Ok(received))
    }

    /// Sends all that waits.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            if ready!(self.poll_send_some(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send_some(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.only_tickets = false;
        blocking(self.session.write_tls(&mut Outgoing { socket: &mut self.socket, cx }))
    }

    /// Seals data with `seal`, and sends it as far as the socket takes it.
    fn poll_write_with(
        &mut self,
        cx: &mut Context<'_>,
        seal: impl Fn(&mut rustls::Writer<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let taken = seal(&mut self.session.writer())?;
            let sent = self.poll_send(cx)?;
            match (taken, sent) {
                // The session is full: once there is room, it takes more.
                (0, Poll::Ready(())) => {}
                (0, Poll::Pending) => return Poll::Pending,
                (taken, _) => return Poll::Ready(Ok(taken)),
            }
        }
    }
}

/// Reads the client's first message into the acceptor.
pub fn poll_hello(socket: &mut TcpStream, acceptor: &mut Acceptor, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    blocking(acceptor.read_tls(&mut Incoming { socket, cx }))
}

fn blocking<T>(outcome: io::Result<T>) -> Poll<io::Result<T>> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        outcome => Poll::Ready(outcome),
    }
}

fn now<T>(outcome: Poll<io::Result<T>>) -> io::Result<T> {
    match outcome {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// What arrives, for a reader that cannot wait: the task is woken when there is more.
struct Incoming<'a, 'b> {
    socket: &'a mut TcpStream,
    cx: &'a mut Context<'b>,
}

impl Read for Incoming<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut buf = ReadBuf::new(into);
        now(Pin::new(&mut *self.socket).poll_read(self.cx, &mut buf))?;
        Ok(buf.filled().len())
    }
}

/// What leaves, for a writer that cannot wait.
struct Outgoing<'a, 'b> {
    socket: &'a mut TcpStream,
    cx: &'a mut Context<'b>,
}

impl Write for Outgoing<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        now(Pin::new(&mut *self.socket).poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        now(Pin::new(&mut *self.socket).poll_write_vectored(self.cx, parts))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The last bytes of a stream: the kernel keeps what fills no segment for the end of the stream, which follows.
pub struct Last<'a>(pub &'a TcpStream);

impl Write for Last<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = libc::MSG_MORE | libc::MSG_NOSIGNAL;
        self.0.try_io(Interest::WRITABLE, || SockRef::from(self.0).send_vectored_with_flags(parts, flags))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Tls {
    /// While nothing is here to be read, nothing else is kept from being sent.
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = self.poll_watch(cx, buf);
        if read.is_pending() && self.session.wants_write() {
            // A failure is told to the next write.
            let _ = self.poll_send(cx);
        }
        read
    }
}

impl AsyncWrite for Tls {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.poll_write_with(cx, |writer| writer.write(data))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if parts.iter().all(|part| part.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        self.poll_write_with(cx, |writer| writer.write_vectored(parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_farewell(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
