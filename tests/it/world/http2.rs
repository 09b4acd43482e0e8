//! An HTTP/2 client with prior knowledge, streams and trailers at hand.

use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

/// One connection; every call is a stream of it.
#[derive(Clone)]
pub struct Http2 {
    send: SendRequest<Bytes>,
    authority: String,
}

/// A stream on its way.
pub struct Call {
    pub send: SendStream<Bytes>,
    response: Option<ResponseFuture>,
}

/// The whole of a response.
#[derive(Debug)]
pub struct Reply2 {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Reply2 {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The first value of this trailer.
    pub fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.as_ref()?.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Http2 {
    pub async fn connect(port: u16) -> Http2 {
        Http2::try_connect(port).await.expect("the gateway accepts and speaks HTTP/2")
    }

    pub async fn try_connect(port: u16) -> std::io::Result<Http2> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let (send, connection) = h2::client::handshake(stream).await.map_err(std::io::Error::other)?;
        tokio::spawn(async move {
            // How it ended is what the streams say.
            let _ = connection.await;
        });
        Ok(Http2 { send, authority: "gateway.test".to_owned() })
    }

    /// The `:authority` of the requests to come.
    pub fn host(self, authority: &str) -> Http2 {
        Http2 { authority: authority.to_owned(), ..self }
    }

    /// A request to be filled in, with scheme and authority.
    pub fn request(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(format!("http://{}{path}", self.authority))
    }

    pub async fn get(&self, path: &str) -> Reply2 {
        let request = self.request("GET", path).body(()).expect("a request");
        self.call(request, true).await.finish().await.expect("a whole response")
    }

    /// Opens a stream, unless the connection takes none any more.
    pub async fn try_get(&self, path: &str) -> Result<Call, h2::Error> {
        let request = self.request("GET", path).body(()).expect("a request");
        let mut ready = timeout(PATIENCE, self.send.clone().ready()).await.expect("in time")?;
        let (response, send) = ready.send_request(request, true)?;
        Ok(Call { send, response: Some(response) })
    }

    /// A unary call as gRPC makes it.
    pub async fn unary(&self, path: &str, message: &'static str) -> Reply2 {
        let mut call = self.grpc(path).await;
        call.send.send_data(Bytes::from(message), true).expect("the stream is open");
        call.finish().await.expect("a whole response")
    }

    /// Opens a streaming call as gRPC makes it.
    pub async fn grpc(&self, path: &str) -> Call {
        let request = self.request("POST", path).header("content-type", "application/grpc").header("te", "trailers");
        self.call(request.body(()).expect("a request"), false).await
    }

    /// Opens a stream; `end` when no body follows.
    pub async fn call(&self, request: Request<()>, end: bool) -> Call {
        let ready = timeout(PATIENCE, self.send.clone().ready()).await.expect("in time");
        let mut ready = ready.expect("the connection takes streams");
        let (response, send) = ready.send_request(request, end).expect("the connection takes streams");
        Call { send, response: Some(response) }
    }

    /// Waits until the gateway takes no more streams on this connection.
    pub async fn is_told_to_go(&self) {
        super::eventually("GOAWAY", async || self.send.clone().ready().await.is_err().then_some(())).await;
    }
}

impl Call {
    /// The head of the response; the body is read from what it carries.
    pub async fn response(&mut self) -> Result<Response<RecvStream>, h2::Error> {
        let response = self.response.take().expect("asked for once");
        timeout(PATIENCE, response).await.expect("a response in time")
    }

    /// The next interim response; `None` when the final one is there first.
    pub async fn interim(&mut self) -> Option<Response<()>> {
        let response = self.response.as_mut().expect("not asked for yet");
        let interim = std::future::poll_fn(|cx| response.poll_informational(cx));
        timeout(PATIENCE, interim).await.expect("an answer in time").map(|interim| interim.expect("a sound one"))
    }

    /// The rest of it.
    pub async fn finish(mut self) -> Result<Reply2, h2::Error> {
        let (head, mut body) = self.response().await?.into_parts();
        let mut whole = BytesMut::new();
        while let Some(data) = next(&mut body).await {
            whole.extend_from_slice(&data?);
        }
        let trailers = timeout(PATIENCE, body.trailers()).await.expect("an end in time")?;
        Ok(Reply2 { status: head.status.as_u16(), headers: head.headers, body: whole.freeze(), trailers })
    }
}

/// The next piece of a body; makes room for more of it.
pub async fn next(body: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let data = timeout(PATIENCE, body.data()).await.expect("data in time")?;
    if let Ok(data) = &data {
        let _ = body.flow_control().release_capacity(data.len());
    }
    Some(data)
}
