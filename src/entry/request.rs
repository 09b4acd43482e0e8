//! One HTTP/1.1 request without a body, as Pingora sees it.
//!
//! The commonest request ends with its head, which the entry point has read and judged. Pingora's own session would read it
//! once more; this one takes its place through the same door as a stream of HTTP/2 (see `stream`), and writes the response
//! straight into the buffer of the connection. Everything else (bodies, upgrades, `Expect`, HTTP/1.0) is Pingora's.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Version};
use pingora_core::protocols::Digest;
use pingora_core::protocols::Shutdown;
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::custom::server::Session;
use pingora_core::protocols::http::date::get_cached_date;
use pingora_error::{Error, ErrorType, OrErr, Result};
use pingora_http::{HeaderNameVariant, RequestHeader, ResponseHeader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::alike::alike;
use super::conn::Conn;
use super::sending::Sending;
use crate::gate;

/// Where a connection comes back to after its request.
#[derive(Default)]
pub struct Home(Mutex<Option<Box<Conn>>>);

impl Home {
    /// The connection, if it can carry another request.
    pub fn take(&self) -> Option<Conn> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().map(|conn| *conn)
    }

    fn put(&self, conn: Box<Conn>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(conn);
    }
}

/// Whether a head that passed the gate is such a request.
pub fn fits(head: &gate::Head) -> bool {
    matches!(head.body, gate::Body::None | gate::Body::Length(0))
        && !head.upgrade
        && !head.http10
        && !head.expect_continue
}

/// The request and the way back to its client.
pub struct Http1Request {
    /// There is one until the exchange has ended well.
    conn: Option<Box<Conn>>,
    home: Arc<Home>,
    head: RequestHeader,
    written: Option<Box<ResponseHeader>>,
    sending: Sending,
    bytes_sent: usize,
    stays: bool,
    stall: Option<Duration>,
    digest: Arc<Digest>,
}

impl Http1Request {
    /// The request whose head are the first `length` bytes that have arrived.
    ///
    /// # Errors
    /// The connection, when Pingora's types cannot hold what the gate let pass.
    pub fn new(
        mut conn: Conn,
        length: usize,
        judged: &gate::Head,
        home: &Arc<Home>,
        digest: &Arc<Digest>,
    ) -> std::result::Result<Http1Request, Box<Conn>> {
        let bytes = conn.begin(length, !judged.keep_alive).slice(judged.start..);
        let Ok(head) = head(&bytes) else { return Err(Box::new(conn)) };
        Ok(Http1Request {
            conn: Some(Box::new(conn)),
            home: home.clone(),
            head,
            written: None,
            sending: Sending::Nothing,
            bytes_sent: 0,
            stays: judged.keep_alive,
            stall: None,
            digest: digest.clone(),
        })
    }

    fn conn(&mut self) -> Result<&mut Conn> {
        self.conn.as_deref_mut().ok_or_else(|| Error::explain(ErrorType::InternalError, "a response that has ended"))
    }

    fn stays(&self) -> bool {
        self.stays && self.conn.as_ref().is_some_and(|conn| !conn.info().closes())
    }

    /// Sends a head, interim or final.
    async fn send_head(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        if self.written.is_some() {
            return Ok(());
        }
        let interim = head.status.is_informational();
        let stays = self.stays();
        if !interim {
            self.sending = Sending::of(&self.head.method, &head);
        }
        let chunked = self.sending == Sending::Chunks;
        let out = self.conn()?.gathered(HEAD_ROOM);
        put_head(&head, chunked, out)?;
        if interim {
            out.put_slice(b"\r\n");
            return self.flush().await;
        }
        out.put_slice(b"Date: ");
        out.put_slice(get_cached_date().as_bytes());
        out.put_slice(if stays { b"\r\nConnection: keep-alive\r\n\r\n" } else { b"\r\nConnection: close\r\n\r\n" });
        self.written = Some(head);
        if end { self.end().await } else { Ok(()) }
    }

    async fn send_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.bytes_sent += data.len();
        let data = self.sending.admit(data);
        if !data.is_empty() {
            let chunked = self.sending == Sending::Chunks;
            let conn = self.conn()?;
            if chunked {
                conn.gathered(CHUNK_ROOM).put_slice(format!("{:x}\r\n", data.len()).as_bytes());
            }
            conn.write_all(&data).await.or_err(ErrorType::WriteError, "sending a body")?;
            if chunked {
                conn.gathered(CHUNK_ROOM).put_slice(b"\r\n");
            }
        }
        if end { self.end().await } else { Ok(()) }
    }

    /// Ends a response; one that is shorter than its head said stays without an end.
    async fn end(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.sending, Sending::Nothing) {
            Sending::Chunks => self.conn()?.gathered(CHUNK_ROOM).put_slice(b"0\r\n\r\n"),
            Sending::Length(1..) => {
                self.stays = false;
                self.flush().await?;
                return Error::e_explain(ErrorType::WriteError, "a body shorter than its length");
            }
            Sending::Length(0) => {}
            Sending::Nothing => return Ok(()),
        }
        // On a connection that ends with it, it leaves with the end.
        if self.stays() { self.flush().await } else { Ok(()) }
    }

    /// Sends what was gathered of a response that grows. Whoever writes it piece by piece may wait for the next one without
    /// looking at the client, which is what else would send it.
    async fn show(&mut self, end: bool) -> Result<()> {
        if end || self.sending != Sending::Chunks { Ok(()) } else { self.flush().await }
    }

    async fn flush(&mut self) -> Result<()> {
        self.conn()?.flush().await.or_err(ErrorType::WriteError, "sending a response")
    }

    /// One step of a response; whether it was the last.
    async fn step(&mut self, task: HttpTask) -> Result<bool> {
        match task {
            HttpTask::Header(head, end) => self.send_head(head, end).await.map(|()| end),
            HttpTask::Body(data, end) => self.send_body(data.unwrap_or_default(), end).await.map(|()| end),
            // Trailers pass from HTTP/2 to HTTP/2 only.
            HttpTask::Trailer(_) | HttpTask::Done => Ok(true),
            HttpTask::UpgradedBody(..) => Error::e_explain(ErrorType::InternalError, "a tunnel that nobody asked for"),
            HttpTask::Failed(error) => Err(error),
        }
    }
}

/// The head in Pingora's form. The gate has seen that every part is well-formed.
fn head(bytes: &Bytes) -> Result<RequestHeader> {
    let parts = gate::parts(bytes);
    let mut head = RequestHeader::build(parts.method, parts.target, Some(USUAL_FIELDS))?;
    head.set_version(Version::HTTP_11);
    for (name, value) in parts.fields {
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(value));
        head.append_header(bytes.slice_ref(name), value.or_err(ErrorType::InvalidHTTPHeader, "the value of a field")?)?;
    }
    Ok(head)
}

/// Status line and fields, but for those that are said by the connection.
fn put_head(head: &ResponseHeader, chunked: bool, out: &mut BytesMut) -> Result<()> {
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(head.status.as_str().as_bytes());
    out.put_slice(b" ");
    out.put_slice(head.get_reason_phrase().unwrap_or_default().as_bytes());
    out.put_slice(b"\r\n");
    let mut coded = false;
    head.map(|name, value| {
        let name = match &name {
            HeaderNameVariant::Case(name) => name.as_slice(),
            HeaderNameVariant::Titled(name) => name.as_bytes(),
        };
        let same = |known: &[u8]| known.eq_ignore_ascii_case(name);
        let skipped = match name.len() {
            4 => same(b"date"),
            10 => same(b"connection"),
            14 => chunked && same(b"content-length"),
            17 => same(b"transfer-encoding") && (!chunked || std::mem::replace(&mut coded, true)),
            _ => false,
        };
        if !skipped {
            for part in [name, b": ", value.as_bytes(), b"\r\n"] {
                out.put_slice(part);
            }
        }
        Ok(())
    })?;
    if chunked && !coded {
        out.put_slice(b"Transfer-Encoding: chunked\r\n");
    }
    Ok(())
}

/// Fields of a usual request; more take more room.
const USUAL_FIELDS: usize = 8;
/// Room for a usual response head.
const HEAD_ROOM: usize = 512;
/// Room for what frames a chunk.
const CHUNK_ROOM: usize = 32;

#[async_trait]
impl Session for Http1Request {
    fn req_header(&self) -> &RequestHeader {
        &self.head
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.head
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        Ok(None)
    }

    /// Never ends before the client goes away or the response is overdue.
    async fn read_body_or_idle(&mut self, _: bool) -> Result<Option<Bytes>> {
        let mut nothing = [0; 1];
        self.conn()?.read(&mut nothing).await.or_err(ErrorType::ReadError, "waiting for the end of a connection")?;
        Error::e_explain(ErrorType::ConnectionClosed, "the client went away")
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        Ok(())
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.send_head(head, end).await?;
        self.show(end).await
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.write_response_header(Box::new(head.clone()), end).await
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.send_body(data, end).await?;
        self.show(end).await
    }

    async fn write_trailers(&mut self, _: HeaderMap) -> Result<()> {
        self.end().await
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut last = false;
        for task in tasks {
            let HttpTask::Failed(error) = task else {
                last |= self.step(task).await.map_err(|error| error.into_down())?;
                continue;
            };
            // What has arrived is the client's, whatever comes after it.
            self.flush().await.map_err(|error| error.into_down())?;
            return Err(error);
        }
        if last {
            self.end().await.map_err(|error| error.into_down())?;
        }
        // A response with a length is whole before anyone says so.
        Ok(last || self.written.is_some() && self.sending.is_over())
    }

    /// Ends the exchange: the connection goes home, or is closed.
    async fn finish(&mut self) -> Result<()> {
        self.end().await?;
        // A request without a response is not over for its client.
        let stays = self.written.is_some() && self.stays();
        if stays {
            // What a caller left unsaid, a head alone for instance.
            self.flush().await?;
        }
        let Some(mut conn) = self.conn.take() else { return Ok(()) };
        if stays {
            self.home.put(conn);
            return Ok(());
        }
        if conn.holds_back() {
            // The client gets the time that it has for any other part of a response.
            return AsyncWriteExt::shutdown(&mut *conn)
                .await
                .or_err(ErrorType::WriteError, "sending the end of a response");
        }
        Shutdown::shutdown(&mut *conn).await;
        Ok(())
    }

    async fn shutdown(&mut self, _: u32, _: &str) {
        self.stays = false;
        if let Some(conn) = &mut self.conn {
            Shutdown::shutdown(&mut **conn).await;
        }
    }

    /// A close without the end of the body is what the client can tell apart.
    async fn abandon(&mut self, _: &str) {
        self.conn = None;
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.written.as_deref()
    }

    fn is_body_done(&mut self) -> bool {
        true
    }

    fn is_body_empty(&mut self) -> bool {
        true
    }

    fn body_bytes_sent(&self) -> usize {
        self.bytes_sent
    }

    fn body_bytes_read(&self) -> usize {
        0
    }

    fn enable_retry_buffering(&mut self) {}

    fn retry_buffer_truncated(&self) -> bool {
        false
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        None
    }

    /// The deadlines of a request are those of its connection.
    fn set_read_timeout(&mut self, _: Option<Duration>) {}

    fn get_read_timeout(&self) -> Option<Duration> {
        None
    }

    fn set_write_timeout(&mut self, stall: Option<Duration>) {
        self.stall = stall;
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.stall
    }

    fn set_total_drain_timeout(&mut self, _: Option<Duration>) {}

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        None
    }

    alike!();

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
