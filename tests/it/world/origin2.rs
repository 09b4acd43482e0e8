//! An HTTP/2 origin with prior knowledge that behaves as a gRPC server does.
//!
//! | path | answer |
//! |---|---|
//! | `/plain` | 200 and a text, no trailers |
//! | `/refuse` | a gRPC error in the head alone: status 5 and no body |
//! | `/broken` | two messages, then trailers with status 13 |
//! | `/busy` | turned away twice before it is begun (REFUSED_STREAM), then as else |
//! | `/flood` | bytes without end, as fast as they are taken |
//! | else | every message back as it comes, then trailers with status 0 and `x-count`, the number of them |

use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::origin::lock;
use super::{http2, place};

/// One request as it came in.
#[derive(Clone, Debug)]
pub struct Seen2 {
    pub method: String,
    pub path: String,
    pub authority: String,
    pub headers: HeaderMap,
}

/// The origin; shows itself as `h2c://127.0.0.1:PORT`.
pub struct Origin2 {
    port: u16,
    seen: Arc<Mutex<Vec<Seen2>>>,
    flooded: Arc<AtomicU64>,
    running: JoinHandle<()>,
}

impl Origin2 {
    pub async fn start() -> Origin2 {
        let listener = place::listen();
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let seen = Arc::<Mutex<Vec<Seen2>>>::default();
        let flooded = Arc::<AtomicU64>::default();
        let (noted, counted) = (seen.clone(), flooded.clone());
        let running = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, noted.clone(), counted.clone()));
            }
        });
        Origin2 { port, seen, flooded, running }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn seen(&self) -> Vec<Seen2> {
        lock(&self.seen).clone()
    }

    /// How many bytes of floods were taken from it.
    pub fn flooded(&self) -> u64 {
        self.flooded.load(Ordering::Relaxed)
    }

    pub fn last(&self) -> Seen2 {
        self.seen().pop().expect("the origin has seen a request")
    }
}

impl Drop for Origin2 {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl fmt::Display for Origin2 {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "h2c://127.0.0.1:{}", self.port)
    }
}

async fn serve(stream: TcpStream, seen: Arc<Mutex<Vec<Seen2>>>, flooded: Arc<AtomicU64>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let path = request.uri().path().to_owned();
        let before = lock(&seen).iter().filter(|seen| seen.path == path).count();
        lock(&seen).push(Seen2 {
            method: request.method().to_string(),
            path: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
            authority: request.uri().authority().map(ToString::to_string).unwrap_or_default(),
            headers: request.headers().clone(),
        });
        if path == "/busy" && before < 2 {
            let mut respond = respond;
            respond.send_reset(h2::Reason::REFUSED_STREAM);
            continue;
        }
        // A client that goes away ends its stream; the story sees that on its own side.
        let flooded = flooded.clone();
        tokio::spawn(async move { answer(request, respond, &flooded).await.ok() });
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    flooded: &AtomicU64,
) -> Result<(), h2::Error> {
    let path = request.uri().path().to_owned();
    let mut body = request.into_body();
    match path.as_str() {
        "/plain" => {
            let mut send = respond.send_response(head("text/plain"), false)?;
            send.send_data(Bytes::from_static(b"plain"), true)
        }
        "/refuse" => {
            let mut refusal = head("application/grpc");
            refusal.headers_mut().insert("grpc-status", HeaderValue::from_static("5"));
            respond.send_response(refusal, true).map(drop)
        }
        "/broken" => {
            let mut send = respond.send_response(head("application/grpc"), false)?;
            send.send_data(Bytes::from_static(b"one"), false)?;
            send.send_data(Bytes::from_static(b"two"), false)?;
            send.send_trailers(status("13", 2))
        }
        "/flood" => {
            let mut send = respond.send_response(head("text/plain"), false)?;
            loop {
                send.reserve_capacity(BLOCK);
                let room = poll_fn(|cx| send.poll_capacity(cx)).await.ok_or(h2::Reason::CANCEL)??;
                send.send_data(Bytes::from_static(&[b'x'; BLOCK]).slice(..room.min(BLOCK)), false)?;
                flooded.fetch_add(room.min(BLOCK) as u64, Ordering::Relaxed);
            }
        }
        _ => {
            let send = respond.send_response(head("application/grpc"), false)?;
            echo(&mut body, send).await
        }
    }
}

/// Each message goes back before the next one is read.
async fn echo(body: &mut RecvStream, mut send: SendStream<Bytes>) -> Result<(), h2::Error> {
    let mut count = 0;
    while let Some(data) = http2::next(body).await {
        let data = data?;
        if !data.is_empty() {
            count += 1;
            send.send_data(data, false)?;
        }
    }
    send.send_trailers(status("0", count))
}

fn head(kind: &'static str) -> Response<()> {
    Response::builder().header("content-type", kind).body(()).expect("a response")
}

fn status(status: &'static str, count: u32) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    trailers.insert("x-count", HeaderValue::from(count));
    trailers
}

const BLOCK: usize = 16 * 1024;
