//! One request on an HTTP/2 connection, as Pingora sees it.
//!
//! Pingora's own session for HTTP/2 has no deadlines but one for each write, and drops interim responses. This one stands
//! in its place through Pingora's door for other protocols (`ServerSession::Custom`, which its documentation hides; a new
//! version of Pingora may move it).

use std::future::{Future, poll_fn};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{self, HeaderMap, HeaderName};
use http::{Request, Response};
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::body_buffer::FixedBuffer;
use pingora_core::protocols::http::custom::server::Session;
use pingora_core::protocols::http::date::get_cached_date;
use pingora_error::{Error, ErrorType, OrErr, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use tokio::time::{Instant, timeout_at};

use super::alike::alike;
use super::conn::LEFTOVER;
use super::info::Deadlines;
use super::overdue::Overdue;

/// A request and the way back to its client.
pub struct Http2Stream {
    head: RequestHeader,
    body: RecvStream,
    respond: SendResponse<Bytes>,
    /// There is one once the response has begun.
    sending: Option<SendStream<Bytes>>,
    written: Option<Box<ResponseHeader>>,
    ended: bool,
    bytes_read: usize,
    bytes_sent: usize,
    replay: Option<FixedBuffer>,
    digest: Arc<Digest>,
    read_by: Option<Instant>,
    write_by: Option<Instant>,
    /// When the rest of the body is of no interest any more; known once the response has ended.
    rest_by: Option<Instant>,
    stall: Option<Duration>,
    drain: Option<Duration>,
}

impl Http2Stream {
    /// A request that has just arrived; its deadlines begin now.
    pub fn new(
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        digest: Arc<Digest>,
        deadlines: Deadlines,
    ) -> Http2Stream {
        let (head, body) = request.into_parts();
        let after = |limit: Option<Duration>| limit.map(|limit| Instant::now() + limit);
        Http2Stream {
            head: head.into(),
            body,
            respond,
            sending: None,
            written: None,
            ended: false,
            bytes_read: 0,
            bytes_sent: 0,
            replay: None,
            digest,
            read_by: after(deadlines.read),
            write_by: after(deadlines.write),
            rest_by: None,
            stall: deadlines.stall,
            drain: None,
        }
    }

    /// No body, whether because none is announced or because the head was the end.
    fn no_body(&self) -> bool {
        let announced = self.head.headers.get(header::CONTENT_LENGTH);
        self.bytes_read == 0 && (self.body.is_end_stream() || announced.is_some_and(|length| length == "0"))
    }

    /// Never ends before the client gives the stream up or the response is overdue.
    async fn until_given_up(&mut self) -> Result<Reason> {
        let (sending, respond) = (&mut self.sending, &mut self.respond);
        let reset = poll_fn(|cx| match sending {
            Some(sending) => sending.poll_reset(cx),
            None => respond.poll_reset(cx),
        });
        match by(self.write_by, reset).await {
            Some(reset) => reset.or_err(ErrorType::H2Error, "waiting for the end of a stream"),
            None => {
                // What is left is to tell the client, which has its own limit.
                self.write_by = None;
                overdue(Overdue::Response)
            }
        }
    }

    /// Sends a head, interim or final.
    fn send_head(&mut self, mut head: Box<ResponseHeader>, end: bool) -> Result<()> {
        if self.ended || self.written.is_some() {
            return Ok(());
        }
        // Most heads have none, and looking is cheaper than removing.
        if head.headers.keys().any(|name| OF_THE_CONNECTION.contains(name)) {
            for name in &OF_THE_CONNECTION {
                head.remove_header(name);
            }
        }
        if head.status.is_informational() {
            let interim = Response::from_parts(head.as_owned_parts(), ());
            return self
                .respond
                .send_informational(interim)
                .or_err(ErrorType::WriteError, "sending an interim response");
        }
        head.insert_header(header::DATE, get_cached_date())?;
        let response = Response::from_parts(head.as_owned_parts(), ());
        let sending = self.respond.send_response(response, end).or_err(ErrorType::WriteError, "sending a head")?;
        self.sending = Some(sending);
        self.written = Some(head);
        self.ended = end;
        Ok(())
    }

    async fn send_body(&mut self, mut data: Bytes, end: bool) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        self.bytes_sent += data.len();
        while !data.is_empty() {
            let room = self.room(data.len()).await?;
            let piece = data.split_to(room.min(data.len()));
            self.send_data(piece, end && data.is_empty())?;
        }
        if end && !self.ended { self.send_data(Bytes::new(), true) } else { Ok(()) }
    }

    /// Waits until the client takes a part of so many bytes; returns how much.
    async fn room(&mut self, wanted: usize) -> Result<usize> {
        let sending = self.sending.as_mut().ok_or_else(no_head)?;
        sending.reserve_capacity(wanted);
        let mut capacity = poll_fn(|cx| sending.poll_capacity(cx));
        let room = match (&mut capacity).now_or_never() {
            Some(room) => Some(room),
            None => {
                let stalled = self.stall.map(|stall| Instant::now() + stall);
                by(earlier(stalled, self.write_by), capacity).await
            }
        };
        match room {
            Some(Some(room)) => room.or_err(ErrorType::WriteError, "waiting for room for a body"),
            Some(None) => Error::e_explain(ErrorType::ConnectionClosed, "the stream is closed"),
            None => overdue(Overdue::Reading),
        }
    }

    fn send_data(&mut self, data: Bytes, end: bool) -> Result<()> {
        let sending = self.sending.as_mut().ok_or_else(no_head)?;
        sending.send_data(data, end).or_err(ErrorType::WriteError, "sending a body")?;
        self.ended |= end;
        Ok(())
    }

    fn send_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        let sending = self.sending.as_mut().ok_or_else(no_head)?;
        sending.send_trailers(trailers).or_err(ErrorType::WriteError, "sending trailers")?;
        self.ended = true;
        Ok(())
    }

    /// Ends a response that has begun; without one, dropping the stream resets it.
    fn end(&mut self) -> Result<()> {
        if self.ended || self.sending.is_none() { Ok(()) } else { self.send_data(Bytes::new(), true) }
    }

    fn reset(&mut self, reason: Reason) {
        if !self.ended {
            self.respond.send_reset(reason);
        }
    }

    /// One step of a response; whether it was the last.
    async fn step(&mut self, task: HttpTask) -> Result<bool> {
        match task {
            HttpTask::Header(head, end) => self.send_head(head, end).map(|()| end),
            HttpTask::Body(data, end) => {
                if let Some(data) = data.filter(|data| !data.is_empty()) {
                    self.send_body(data, end).await?;
                }
                Ok(end)
            }
            HttpTask::Trailer(trailers) => {
                if let Some(trailers) = trailers {
                    self.send_trailers(*trailers)?;
                }
                Ok(true)
            }
            HttpTask::Done => Ok(true),
            HttpTask::UpgradedBody(..) => Error::e_explain(ErrorType::InternalError, "a tunnel on an HTTP/2 stream"),
            HttpTask::Failed(error) => Err(error),
        }
    }
}

/// What comes out before `due`, if anything.
async fn by<T>(due: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match due {
        Some(due) => timeout_at(due, work).await.ok(),
        None => Some(work.await),
    }
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    a.into_iter().chain(b).min()
}

fn overdue<T>(overdue: Overdue) -> Result<T> {
    Error::e_because(ErrorType::ReadTimedout, "HTTP/2 stream", io::Error::from(overdue))
        .map_err(|error| error.into_down())
}

fn no_head() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "a body before its head")
}

/// Fields that say something about an HTTP/1 connection. RFC 9113 §8.2.2.
const OF_THE_CONNECTION: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// How long the connection has to send what came before a failure; it has been woken for it.
const TO_LEAVE: Duration = Duration::from_millis(20);
/// How much of a body is kept for another attempt, as on HTTP/1.
const REPLAY: usize = 64 * 1024;

#[async_trait]
impl Session for Http2Stream {
    fn req_header(&self) -> &RequestHeader {
        &self.head
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.head
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        let due = match self.ended {
            true => Some(*self.rest_by.get_or_insert_with(|| Instant::now() + LEFTOVER)),
            false => earlier(self.read_by, self.write_by),
        };
        let Some(data) = by(due, self.body.data()).await else {
            (self.read_by, self.write_by) = (None, None);
            return overdue(if self.ended { Overdue::Leftover } else { Overdue::Request });
        };
        let data = data.transpose().or_err(ErrorType::ReadError, "reading a body")?;
        if let Some(data) = &data {
            self.bytes_read += data.len();
            if let Some(replay) = &mut self.replay {
                replay.write_to_buffer(data);
            }
            let _ = self.body.flow_control().release_capacity(data.len());
        }
        Ok(data)
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if !no_body_expected && !self.is_body_done() {
            return self.read_body_bytes().await;
        }
        let reason = self.until_given_up().await?;
        Error::e_explain(ErrorType::H2Error, format!("the client gave the stream up: {reason}"))
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        let until = self.drain.map(|drain| Instant::now() + drain);
        while !self.is_body_done() {
            match by(until, self.read_body_bytes()).await {
                Some(Ok(Some(_))) => {}
                Some(Ok(None)) => break,
                Some(Err(error)) => return Err(error),
                None => return overdue(Overdue::Request),
            }
        }
        Ok(())
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.send_head(head, end)
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.send_head(Box::new(head.clone()), end)
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.send_body(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.send_trailers(trailers)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut last = false;
        for task in tasks {
            // That is the backend's, not the client's.
            let HttpTask::Failed(error) = task else {
                last |= self.step(task).await.map_err(|error| error.into_down())?;
                continue;
            };
            // A reset takes with it what has not left yet, and nothing tells when it has. What arrived is the client's.
            if self.written.is_some() {
                tokio::time::sleep(TO_LEAVE).await;
            }
            return Err(error);
        }
        if last {
            self.end().map_err(|error| error.into_down())?;
        }
        // As on HTTP/1: a response may have ended before what the backend goes on to say.
        Ok(last || self.ended)
    }

    async fn finish(&mut self) -> Result<()> {
        self.end()
    }

    async fn shutdown(&mut self, code: u32, _: &str) {
        self.reset(code.into());
    }

    async fn abandon(&mut self, _: &str) {
        self.reset(Reason::INTERNAL_ERROR);
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.written.as_deref()
    }

    fn is_body_done(&mut self) -> bool {
        self.no_body() || self.body.is_end_stream()
    }

    fn is_body_empty(&mut self) -> bool {
        self.no_body()
    }

    fn body_bytes_sent(&self) -> usize {
        self.bytes_sent
    }

    fn body_bytes_read(&self) -> usize {
        self.bytes_read
    }

    fn enable_retry_buffering(&mut self) {
        self.replay.get_or_insert_with(|| FixedBuffer::new(REPLAY));
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.replay.as_ref().is_some_and(FixedBuffer::is_truncated)
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.replay.as_ref().filter(|replay| !replay.is_truncated())?.get_buffer()
    }

    /// The deadlines of a stream are those of its entry point.
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

    fn set_total_drain_timeout(&mut self, drain: Option<Duration>) {
        self.drain = drain;
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.drain
    }

    alike!();

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }
}
