//! HTTP/2 on one connection: streams that pass the gate become requests, each a task of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response, StatusCode, header};
use pingora_core::protocols::Digest;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::conn::Conn;
use super::count::{Bounds, Count};
use super::floods::Alarm;
use super::info::ConnInfo;
use super::stream::Http2Stream;
use super::{ALLOW, App, Entry, Refused, http1};
use crate::gate::{self, Refusal};
use crate::reply::Reply;

/// Serves streams until the connection ends. The client's preface has not been read yet; `due` is when it has to be here, if
/// a clock runs already.
pub async fn serve<A>(mut conn: Conn, entry: &Arc<Entry<A>>, due: Option<Instant>)
where
    A: App,
{
    let alarm = conn.speak_http2();
    let streams = Streams {
        entry: entry.clone(),
        info: conn.info().clone(),
        digest: Arc::new(http1::digest(&conn)),
        open: Arc::default(),
        refused: 0,
    };
    let due = due.unwrap_or_else(|| Instant::now() + entry.settings.deadlines.head.unwrap_or(FAR));
    if let Ok(Ok(connection)) = timeout_at(due, entry.http2.handshake(conn)).await {
        streams.serve(connection, &alarm).await;
    }
}

/// What the streams of a connection share.
struct Streams<A> {
    entry: Arc<Entry<A>>,
    info: Arc<ConnInfo>,
    digest: Arc<Digest>,
    open: Arc<Count>,
    refused: usize,
}

impl<A> Streams<A>
where
    A: App,
{
    /// Accepting is what drives the connection, so it goes on until the last stream has ended.
    async fn serve(mut self, mut connection: Connection<Conn, Bytes>, alarm: &Alarm) {
        let mut draining = self.entry.shutdown.clone();
        let mut pause = self.entry.settings.deadlines.idle.unwrap_or(FAR);
        let (mut leaving, mut flooded) = (false, false);
        loop {
            let quiet = async {
                self.open.none_left().await;
                sleep(pause).await;
            };
            let leave = tokio::select! {
                biased;
                accepted = connection.accept() => match accepted {
                    Some(Ok((request, respond))) => !self.take(request, respond),
                    Some(Err(_)) | None => return,
                },
                () = alarm.notified() => {
                    flooded = true;
                    false
                }
                _ = draining.wait_for(|draining| *draining), if !leaving => true,
                () = quiet => match leaving {
                    true => return,
                    false => true,
                },
            };
            if flooded {
                return self.calm(connection).await;
            }
            if leave && !leaving {
                // Says first that it will go, and takes what is on its way by then.
                connection.graceful_shutdown();
                (leaving, pause) = (true, PARTING);
            }
        }
    }

    /// Tells a client that floods us why it has to go.
    async fn calm(self, mut connection: Connection<Conn, Bytes>) {
        let (peer, entry_point) = (self.info.peer, &*self.info.entry_point);
        (self.entry.refused)(&Refused { peer, entry_point, refusal: &FLOOD });
        log::warn!(entry_point, peer:% = peer; "HTTP/2 flood: the connection is closed");
        connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        let _ = timeout(PARTING, connection.accept()).await;
    }

    /// Begins to answer a request; whether the connection can stay.
    fn take(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> bool {
        let bounds = Bounds { total: Some(MAX_OPEN), by_address: None };
        let Some(counted) = self.open.admit(self.info.peer.ip(), bounds) else {
            respond.send_reset(Reason::REFUSED_STREAM);
            return true;
        };
        let (head, body) = request.into_parts();
        if let Err(refusal) = gate::semantics(&head, &self.entry.settings.head) {
            return self.refuse(&refusal, &head.headers, respond);
        }
        let request = Request::from_parts(head, body);
        let stream = Http2Stream::new(request, respond, self.digest.clone(), self.entry.settings.deadlines);
        let entry = self.entry.clone();
        // Boxed: a task is moved about before it runs.
        tokio::spawn(Box::pin(async move {
            let (_counted, _asked) = (counted, entry.count.begins());
            entry.app.answer(Box::new(stream), &entry.shutdown).await;
        }));
        true
    }

    fn refuse(&mut self, refusal: &Refusal, asked: &HeaderMap, mut respond: SendResponse<Bytes>) -> bool {
        (self.entry.refused)(&Refused { peer: self.info.peer, entry_point: &self.info.entry_point, refusal });
        // The client may be gone by now.
        let _ = answer(refusal, asked, &mut respond);
        self.refused += 1;
        self.refused < MAX_REFUSED
    }
}

fn answer(refusal: &Refusal, asked: &HeaderMap, respond: &mut SendResponse<Bytes>) -> Result<(), h2::Error> {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
    let (content_type, body) = Reply::plain(status).content(asked);
    let mut response = Response::new(());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.extend(content_type.and_then(|kind| Some((header::CONTENT_TYPE, kind.parse().ok()?))));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_LENGTH, body.len().into());
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, header::HeaderValue::from_static(ALLOW));
    }
    respond.send_response(response, false)?.send_data(body, true)
}

const FLOOD: Refusal =
    Refusal { status: 400, reason: "bad_request", detail: "a flood of HTTP/2 frames that ask for work and bring none" };
/// Requests of one connection that are being answered. Those that the client gave up count until they have noticed, so it is
/// more than the streams that a client may hold open.
const MAX_OPEN: usize = 250;
/// Requests that the gate may refuse before the client has to connect anew, as on HTTP/1 after each.
const MAX_REFUSED: usize = 32;
/// How long a client may take to leave.
const PARTING: Duration = Duration::from_secs(2);
/// Far enough for a timer that means never.
const FAR: Duration = Duration::from_secs(86_400);
