//! One connection of HTTP/1 to a backend.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, Version, header};
use pingora_core::protocols::l4::ext::set_tcp_keepalive;
use pingora_error::{Error, ErrorType, OrErr, Result, RetryType};
use pingora_http::{ResponseHeader, header_value_from_raw};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::dial;
use super::super::peer::KEEPALIVE;
use super::body::{Body, Step};

/// A connection that carries one exchange after the other.
pub struct Connection {
    stream: TcpStream,
    inbound: BytesMut,
    body: Body,
    persists: bool,
    address: SocketAddr,
}

impl Connection {
    /// Connects within `limit`.
    ///
    /// # Errors
    /// Pingora's errors for a connection that could not be made.
    pub async fn open(address: SocketAddr, limit: Duration) -> Result<Connection> {
        let stream = dial::within(limit, &address).await?;
        // Without them a connection works as well.
        let _ = stream.set_nodelay(true);
        let _ = set_tcp_keepalive(&stream, &KEEPALIVE);
        Ok(Connection { stream, inbound: BytesMut::new(), body: Body::Done, persists: true, address })
    }

    /// Its descriptor, for as long as it is there.
    pub fn descriptor(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Where it leads.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends the head of a request that has no body.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn send(&mut self, head: &[u8]) -> Result<()> {
        let sent = self.stream.write_all(head).await;
        sent.or_err(ErrorType::WriteError, "sending a request").map_err(|error| error.into_up())
    }

    /// The next head of the response, for a client of this version; interim heads are followed by another one.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// When the connection ends, which a kept one may have done before, or what comes is no response.
    pub async fn head(&mut self, method: &Method, client: Version) -> Result<Box<ResponseHeader>> {
        loop {
            if !self.inbound.is_empty()
                && let Some(head) = take_head(&mut self.inbound, client)?
            {
                self.frame(method, &head)?;
                return Ok(head);
            }
            if self.inbound.len() > MOST_HEAD {
                return invalid("a response head larger than 1 MiB");
            }
            self.inbound.reserve(HEAD_ROOM);
            match self.stream.read_buf(&mut self.inbound).await {
                Ok(0) => return Err(self.ended(Error::explain(ErrorType::ConnectionClosed, "no response"))),
                Ok(_) => {}
                Err(error) => return Err(self.ended(because(error, "reading a response"))),
            }
        }
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// When the connection ends too early or the framing is broken.
    pub async fn piece(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.body.step(&mut self.inbound) {
                Ok(Step::Piece(piece)) => return Ok(Some(piece)),
                Ok(Step::End) => return Ok(None),
                Ok(Step::More) => {}
                Err(broken) => return invalid(broken.to_string()),
            }
            self.inbound.reserve(self.room());
            match self.stream.read_buf(&mut self.inbound).await {
                Ok(0) if self.body == Body::UntilClose => self.body = Body::Done,
                Ok(0) => {
                    let cut = Error::explain(ErrorType::ConnectionClosed, "a response that ends too early");
                    return Err(cut.into_up());
                }
                Ok(_) => {}
                Err(error) => return Err(because(error, "reading a response").into_up()),
            }
        }
    }

    /// Whether all of the response was read.
    pub fn is_done(&self) -> bool {
        self.body == Body::Done
    }

    /// Whether it can carry another exchange: the last one is over, and nothing came behind it.
    pub fn persists(&self) -> bool {
        self.persists && self.is_done() && self.inbound.is_empty()
    }

    /// Whether the backend has neither closed it nor sent anything while it waited. Asks the system only when something
    /// has happened.
    pub fn is_alive(&self) -> bool {
        matches!(self.stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    #[cfg(test)]
    pub(super) fn local_port(&self) -> u16 {
        self.stream.local_addr().unwrap().port()
    }

    /// Gives up the room for what arrives.
    pub fn rest(&mut self) {
        self.inbound = BytesMut::new();
    }

    fn frame(&mut self, method: &Method, head: &ResponseHeader) -> Result<()> {
        if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        match Body::of(method, head.status, &head.headers) {
            Ok(body) => self.body = body,
            Err(broken) => return invalid(broken.to_string()),
        }
        self.persists = self.body != Body::UntilClose && stays_open(head);
        Ok(())
    }

    /// Room for the next read: as much as is to come, within bounds.
    fn room(&self) -> usize {
        match &self.body {
            Body::Length(missing) => usize::try_from(*missing).unwrap_or(MOST_ROOM).clamp(HEAD_ROOM, MOST_ROOM),
            _ => BODY_ROOM,
        }
    }

    /// An error before any byte of a response: on a kept connection the backend may have seen nothing of the request.
    fn ended(&self, mut error: Box<Error>) -> Box<Error> {
        if self.inbound.is_empty() {
            error.retry = RetryType::ReusedOnly;
        }
        error.into_up()
    }
}

/// Takes a head off what has arrived when it is whole. As lenient as Pingora's own reader.
fn take_head(inbound: &mut BytesMut, client: Version) -> Result<Option<Box<ResponseHeader>>> {
    let mut space = [const { std::mem::MaybeUninit::uninit() }; MOST_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let mut parser = httparse::ParserConfig::default();
    parser.allow_spaces_after_header_name_in_responses(true);
    parser.allow_obsolete_multiline_headers_in_responses(true);
    let length = match parser.parse_response_with_uninit_headers(&mut response, inbound, &mut space) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return invalid(format!("a response head that cannot be read: {error}")),
    };
    let start = inbound.as_ptr() as usize;
    let range = |part: &[u8]| {
        let from = part.as_ptr() as usize - start;
        from..from + part.len()
    };
    let (status, room) = (response.code.unwrap_or_default(), Some(response.headers.len() + ADDED));
    let head = match client {
        // There the spelling of names is gone.
        Version::HTTP_2 => ResponseHeader::build_no_case(status, room),
        _ => ResponseHeader::build(status, room),
    };
    let mut head = head.map_err(|error| error.into_up())?;
    head.set_version(if response.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 });
    head.set_reason_phrase(response.reason).map_err(|error| error.into_up())?;
    let fields: Vec<(Range<usize>, Range<usize>)> =
        response.headers.iter().map(|field| (range(field.name.as_bytes()), range(field.value))).collect();
    let bytes = inbound.split_to(length).freeze();
    for (name, value) in fields {
        let value = header_value_from_raw(bytes.slice(value));
        head.append_header(bytes.slice(name), value).map_err(|error| error.into_up())?;
    }
    // The coding counts. RFC 9112 §6.3.
    if head.headers.contains_key(header::TRANSFER_ENCODING) {
        head.remove_header(&header::CONTENT_LENGTH);
    }
    Ok(Some(Box::new(head)))
}

/// RFC 9112 §9.3.
fn stays_open(head: &ResponseHeader) -> bool {
    let mut options =
        head.headers.get_all(header::CONNECTION).iter().flat_map(|line| line.as_bytes().split(|b| *b == b','));
    let mut says = |option: &[u8]| options.any(|said| said.trim_ascii().eq_ignore_ascii_case(option));
    if head.version == Version::HTTP_10 { says(b"keep-alive") } else { !says(b"close") }
}

fn invalid<T>(context: impl Into<pingora_error::ImmutStr>) -> Result<T> {
    Error::e_explain(ErrorType::InvalidHTTPHeader, context).map_err(|error: Box<Error>| error.into_up())
}

fn because(error: io::Error, context: &'static str) -> Box<Error> {
    Error::because(ErrorType::ReadError, context, error)
}

/// How much is read at a time while a head is awaited; small responses come with it whole.
const HEAD_ROOM: usize = 4096;
/// How much of a body of unknown length is read at a time.
const BODY_ROOM: usize = 16 * 1024;
/// How much of a body is read at a time at most.
const MOST_ROOM: usize = 64 * 1024;
/// Largest head, as Pingora's.
const MOST_HEAD: usize = 1 << 20;
/// Fields that the gateway adds to a response at most without the map of fields growing.
const ADDED: usize = 12;
/// Most fields of a head, as Pingora's.
const MOST_FIELDS: usize = 256;
