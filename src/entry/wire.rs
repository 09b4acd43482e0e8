//! The bytes of a connection: plain, or under TLS.
//!
//! TLS is ended here, below everything that knows HTTP; a plain connection pays one comparison for it.

use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::tls::{Last, Tls};

/// A stream to a client.
pub enum Wire {
    /// As it is.
    Plain(TcpStream),
    /// Under TLS; the handshake is done.
    Tls(Box<Tls>),
    /// Taken out of a connection that ends.
    Gone,
}

impl Wire {
    /// The socket.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Wire::Plain(stream) => Some(stream),
            Wire::Tls(stream) => Some(stream.socket()),
            Wire::Gone => None,
        }
    }

    /// Its number.
    pub fn fd(&self) -> RawFd {
        self.tcp().map_or(-1, TcpStream::as_raw_fd)
    }

    /// Whether this is TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self, Wire::Tls(_))
    }

    /// Waits until something can be read, without a buffer. Under TLS that may be a message without data.
    pub async fn readable(&self) -> io::Result<()> {
        match self.tcp() {
            Some(stream) => stream.readable().await,
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Whether the client has sent nothing that the kernel still holds: such bytes would turn a close into a reset.
    pub fn is_read_empty(&self) -> bool {
        let Some(stream) = self.tcp() else { return true };
        let peeked = SockRef::from(stream).recv_with_flags(&mut [MaybeUninit::uninit()], libc::MSG_PEEK);
        !matches!(peeked, Ok(1..))
    }

    /// Reads to hear of the end, while something else is waited for: what is in no hurry to be sent is not sent for it.
    pub fn poll_watch(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Wire::Tls(stream) => silent_end(stream.poll_watch(cx, buf)),
            stream => Pin::new(stream).poll_read(cx, buf),
        }
    }

    /// Whether something that was written waits for the socket.
    pub fn holds_back(&self) -> bool {
        matches!(self, Wire::Tls(stream) if stream.holds_back())
    }

    /// Takes the last bytes of the stream, which may stay here or in the kernel until its end.
    pub fn poll_write_last(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Wire::Tls(stream) => stream.poll_seal(cx, data),
            Wire::Plain(stream) => loop {
                ready!(stream.poll_write_ready(cx))?;
                match Last(stream).write(data) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    written => return Poll::Ready(written),
                }
            },
            Wire::Gone => gone(),
        }
    }

    /// Sends what such a write left here. Only the closing of the socket may follow.
    pub fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Wire::Tls(stream) => stream.poll_farewell(cx),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Says at once that nothing more will come, as far as the socket takes it now. Without this a client of TLS cannot tell
    /// the end from an attack. RFC 8446 §6.1.
    pub fn farewell(&mut self) {
        if let Wire::Tls(stream) = self {
            stream.farewell();
        }
    }

    /// The socket, for what is to be read without looking at it.
    pub fn into_tcp(self) -> Option<TcpStream> {
        match self {
            Wire::Plain(stream) => Some(stream),
            Wire::Tls(stream) => Some(stream.into_socket()),
            Wire::Gone => None,
        }
    }
}

/// Many clients close without a word; what HTTP was told to expect says whether something is missing.
fn silent_end(read: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
    match read {
        Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
        read => read,
    }
}

impl AsyncRead for Wire {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Tls(stream) => silent_end(Pin::new(stream).poll_read(cx, buf)),
            Wire::Gone => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Wire {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_write(cx, data),
            Wire::Tls(stream) => Pin::new(stream).poll_write(cx, data),
            Wire::Gone => gone(),
        }
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Wire::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Wire::Gone => gone(),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Gone => gone(),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Gone => Poll::Ready(Ok(())),
        }
    }
}

fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}
