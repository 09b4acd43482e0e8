//! HTTP/1.1 on a TCP stream, byte for byte: what both the client and the origin of the world lean on.
//!
//! Deliberately small and strict: a message it does not understand fails the test that received it.

use std::io::{self, ErrorKind};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

/// Header fields in the order and spelling of the wire; each byte of a value is one `char`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The first value of this name, in any case.
    pub fn one(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// All values of this name, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.0.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    /// Whether a comma list under this name holds this token, in any case.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        let mut items = self.all(name).into_iter().flat_map(|value| value.split(','));
        items.any(|item| item.trim().eq_ignore_ascii_case(token))
    }
}

/// A start line and its header fields.
#[derive(Clone, Debug)]
pub struct Head {
    pub line: String,
    pub headers: Headers,
}

/// How much body is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    Nothing,
    Length(u64),
    Chunks,
    /// The rest of this chunk, then more chunks.
    Chunk(u64),
    UntilClose,
}

/// A stream with what was read of it and not yet used.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Wire {
    pub async fn connect(port: u16) -> io::Result<Wire> {
        let stream = timeout(PATIENCE, TcpStream::connect(("127.0.0.1", port))).await??;
        Ok(Wire::over(stream))
    }

    pub fn over(stream: TcpStream) -> Wire {
        // Without it the small writes of a story would wait for each other's acknowledgement.
        let _ = stream.set_nodelay(true);
        Wire { stream, buffer: BytesMut::with_capacity(16 * 1024) }
    }

    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// # Errors
    /// Whatever the stream says, and `TimedOut` when the peer takes nothing for as long as [`PATIENCE`].
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(PATIENCE, self.stream.write_all(bytes)).await?
    }

    /// Says that nothing more will be sent; reading goes on.
    pub async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Reads once; `false` at the end of the stream.
    pub async fn fill(&mut self) -> io::Result<bool> {
        self.buffer.reserve(64 * 1024);
        Ok(timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await?? > 0)
    }

    /// Waits for as long as it takes until there is a byte; `false` at the end of the stream.
    pub async fn wait(&mut self) -> io::Result<bool> {
        Ok(!self.buffer.is_empty() || self.wait_for_more().await?)
    }

    /// Whether something is there to be read now, be it the end of the stream.
    pub async fn has_come(&mut self) -> bool {
        !self.buffer.is_empty() || timeout(Duration::from_millis(1), self.stream.peek(&mut [0])).await.is_ok()
    }

    /// Reads once, for as long as it takes; `false` at the end of the stream.
    pub async fn wait_for_more(&mut self) -> io::Result<bool> {
        self.buffer.reserve(64 * 1024);
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    /// Everything until the peer closes; a reset after the last byte counts as a close.
    pub async fn rest(&mut self) -> io::Result<Bytes> {
        loop {
            match self.fill().await {
                Ok(true) => {}
                Ok(false) => return Ok(self.buffer.split().freeze()),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return Ok(self.buffer.split().freeze());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The next message head, or `None` when the peer closed before its first byte.
    pub async fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let head = latin1(&self.buffer.split_to(end));
                self.buffer.advance(4);
                return parse(&head).map(Some);
            }
            if !self.fill().await? {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(cut("inside a message head")),
                };
            }
        }
    }

    /// Exactly this many bytes.
    pub async fn exactly(&mut self, count: usize) -> io::Result<Bytes> {
        while self.buffer.len() < count {
            if !self.fill().await? {
                return Err(cut("inside a frame"));
            }
        }
        Ok(self.buffer.split_to(count).freeze())
    }

    /// The next piece of a body, `None` at its end; trailers are added to the given ones.
    pub async fn piece(&mut self, left: &mut Left, trailers: &mut Headers) -> io::Result<Option<Bytes>> {
        loop {
            match *left {
                Left::Nothing | Left::Length(0) => return Ok(None),
                Left::Length(count) => {
                    let bytes = self.some(count).await?;
                    *left = Left::Length(count - bytes.len() as u64);
                    return Ok(Some(bytes));
                }
                Left::UntilClose => {
                    if self.buffer.is_empty() && !self.fill().await? {
                        return Ok(None);
                    }
                    return Ok(Some(self.buffer.split().freeze()));
                }
                Left::Chunks => *left = self.chunk_head(trailers).await?,
                Left::Chunk(count) => {
                    let bytes = self.some(count).await?;
                    let rest = count - bytes.len() as u64;
                    if rest == 0 && &self.exactly(2).await?[..] != b"\r\n" {
                        return Err(broken("a chunk without its CRLF"));
                    }
                    *left = if rest == 0 { Left::Chunks } else { Left::Chunk(rest) };
                    return Ok(Some(bytes));
                }
            }
        }
    }

    /// A whole body and its trailers.
    pub async fn body(&mut self, mut left: Left) -> io::Result<(Bytes, Headers)> {
        let (mut body, mut trailers) = (BytesMut::new(), Headers::default());
        while let Some(piece) = self.piece(&mut left, &mut trailers).await? {
            body.extend_from_slice(&piece);
        }
        Ok((body.freeze(), trailers))
    }

    async fn some(&mut self, most: u64) -> io::Result<Bytes> {
        if self.buffer.is_empty() && !self.fill().await? {
            return Err(cut("inside a body"));
        }
        let take = usize::try_from(most).unwrap_or(usize::MAX).min(self.buffer.len());
        Ok(self.buffer.split_to(take).freeze())
    }

    async fn chunk_head(&mut self, trailers: &mut Headers) -> io::Result<Left> {
        let line = self.line().await?;
        let size = line.split(';').next().unwrap_or_default();
        let size = u64::from_str_radix(size, 16).map_err(|_| broken("a chunk size"))?;
        if size > 0 {
            return Ok(Left::Chunk(size));
        }
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(Left::Nothing);
            }
            trailers.0.push(field(&line)?);
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line = latin1(&self.buffer.split_to(end));
                self.buffer.advance(2);
                return Ok(line);
            }
            if !self.fill().await? {
                return Err(cut("inside chunk framing"));
            }
        }
    }
}

/// A body too large to keep: the byte at position `n` is `n % 251`, so that each end can check what came.
pub struct Pattern {
    block: Bytes,
}

impl Pattern {
    pub fn new() -> Pattern {
        let block = (0..251 * 512usize).map(|n| u8::try_from(n % 251).unwrap_or_default());
        Pattern { block: block.collect() }
    }

    /// As many bytes as fit one write, from this position of the body on.
    pub fn from(&self, position: u64, most: u64) -> Bytes {
        let start = usize::try_from(position % 251).unwrap_or_default();
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        self.block.slice(start..self.block.len().min(start.saturating_add(most)))
    }

    pub fn continues(&self, position: u64, bytes: &[u8]) -> bool {
        let (mut position, mut bytes) = (position, bytes);
        while !bytes.is_empty() {
            let expected = self.from(position, bytes.len() as u64);
            if bytes[..expected.len()] != expected[..] {
                return false;
            }
            position += expected.len() as u64;
            bytes = &bytes[expected.len()..];
        }
        true
    }
}

fn parse(head: &str) -> io::Result<Head> {
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default().to_owned();
    let headers = lines.map(field).collect::<io::Result<Vec<_>>>()?;
    Ok(Head { line, headers: Headers(headers) })
}

fn field(line: &str) -> io::Result<(String, String)> {
    let (name, value) = line.split_once(':').ok_or_else(|| broken(&format!("a field line {line:?}")))?;
    Ok((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
}

pub fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn find(buffer: &[u8], what: &[u8]) -> Option<usize> {
    buffer.windows(what.len()).position(|window| window == what)
}

fn cut(at: &str) -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, format!("closed {at}"))
}

pub fn broken(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("not understood: {what}"))
}
