//! An HTTP/1.1 client that sends exactly what it was told and hides nothing of what came back.

use std::future::{Future, IntoFuture};
use std::io;
use std::pin::Pin;

use bytes::{BufMut, Bytes, BytesMut};

use super::wire::{Head, Headers, Left, Wire, broken, latin1};

/// A request to be sent; awaiting it sends it on a connection of its own and reads the reply.
#[derive(Clone, Debug)]
pub struct Request {
    port: u16,
    method: String,
    target: String,
    host: String,
    headers: Vec<(String, String)>,
    body: Content,
}

#[derive(Clone, Debug)]
enum Content {
    None,
    Whole(Bytes),
    Chunks(Vec<Bytes>),
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub reason: String,
    pub version: String,
    pub headers: Headers,
    pub body: Bytes,
    pub trailers: Headers,
    /// The interim responses before it.
    pub interim: Vec<(u16, Headers)>,
}

impl Reply {
    /// The first value of this header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.one(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    /// Whether the connection may carry another request.
    pub fn keeps_alive(&self) -> bool {
        !self.headers.lists("Connection", "close") && self.version == "HTTP/1.1"
    }
}

impl Request {
    pub fn new(port: u16, method: &str, target: &str) -> Request {
        Request {
            port,
            method: method.to_owned(),
            target: target.to_owned(),
            host: "gateway.test".to_owned(),
            headers: Vec::new(),
            body: Content::None,
        }
    }

    /// Where it is sent.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The `Host` header; `gateway.test` until then.
    pub fn host(self, host: &str) -> Request {
        Request { host: host.to_owned(), ..self }
    }

    pub fn header(mut self, name: &str, value: &str) -> Request {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn accept(self, value: &str) -> Request {
        self.header("Accept", value)
    }

    /// A body with its length.
    pub fn body(self, body: impl Into<Bytes>) -> Request {
        Request { body: Content::Whole(body.into()), ..self }
    }

    /// A body in these chunks.
    pub fn chunks(self, chunks: &[&str]) -> Request {
        let chunks = chunks.iter().map(|chunk| Bytes::copy_from_slice(chunk.as_bytes()));
        Request { body: Content::Chunks(chunks.collect()), ..self }
    }

    /// The request line and the header fields, with the blank line.
    pub fn head(&self) -> String {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", self.method, self.target, self.host);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match &self.body {
            Content::None => {}
            Content::Whole(body) => head.push_str(&format!("Content-Length: {}\r\n", body.len())),
            Content::Chunks(_) => head.push_str("Transfer-Encoding: chunked\r\n"),
        }
        head + "\r\n"
    }

    fn bytes(&self) -> Bytes {
        let mut bytes = BytesMut::from(self.head().as_bytes());
        match &self.body {
            Content::None => {}
            Content::Whole(body) => bytes.put_slice(body),
            Content::Chunks(chunks) => {
                for chunk in chunks {
                    bytes.put_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.put_slice(chunk);
                    bytes.put_slice(b"\r\n");
                }
                bytes.put_slice(b"0\r\n\r\n");
            }
        }
        bytes.freeze()
    }

    /// Like awaiting it, for a story in which the connection may fail.
    pub async fn attempt(&self) -> io::Result<Reply> {
        Connection::open(self.port).await?.attempt(self).await
    }

    /// Sends it and reads the head of the reply only; the body stays on the connection.
    pub async fn open(self) -> (Reply, Connection, Left) {
        let mut connection = Connection::open(self.port).await.expect("the gateway accepts");
        connection.write(&self.bytes()).await;
        let (reply, left) = connection.head(&self.method).await.expect("a reply");
        (reply, connection, left)
    }
}

impl IntoFuture for Request {
    type Output = Reply;
    type IntoFuture = Pin<Box<dyn Future<Output = Reply> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let reply = self.attempt().await;
            reply.unwrap_or_else(|error| panic!("no reply to {} {}: {error}", self.method, self.target))
        })
    }
}

/// A connection that is kept.
#[derive(Debug)]
pub struct Connection {
    pub wire: Wire,
}

impl Connection {
    pub async fn open(port: u16) -> io::Result<Connection> {
        Ok(Connection { wire: Wire::connect(port).await? })
    }

    /// Sends the request here and reads the whole reply.
    pub async fn send(&mut self, request: Request) -> Reply {
        self.attempt(&request).await.unwrap_or_else(|error| panic!("no reply to {}: {error}", request.head()))
    }

    pub async fn attempt(&mut self, request: &Request) -> io::Result<Reply> {
        self.wire.send(&request.bytes()).await?;
        self.reply(&request.method).await
    }

    /// Exactly these bytes.
    pub async fn write(&mut self, bytes: &[u8]) {
        self.wire.send(bytes).await.expect("the gateway takes bytes");
    }

    /// The reply to a request of this method, to its end.
    pub async fn reply(&mut self, method: &str) -> io::Result<Reply> {
        let (reply, left) = self.head(method).await?;
        let (body, trailers) = self.wire.body(left).await?;
        Ok(Reply { body, trailers, ..reply })
    }

    /// The head of the reply, interim ones included, and how much body follows.
    pub async fn head(&mut self, method: &str) -> io::Result<(Reply, Left)> {
        let mut interim = Vec::new();
        loop {
            let head = self.wire.head().await?.ok_or_else(|| broken("closed without a reply"))?;
            let reply = status(&head)?;
            if (100..200).contains(&reply.status) && reply.status != 101 {
                interim.push((reply.status, reply.headers));
                continue;
            }
            let left = framing(method, &reply)?;
            return Ok((Reply { interim, ..reply }, left));
        }
    }

    /// Waits until the gateway closes; everything that it still sent.
    pub async fn closed(&mut self) -> String {
        latin1(&self.wire.rest().await.expect("the gateway closes the connection"))
    }
}

fn status(head: &Head) -> io::Result<Reply> {
    let mut parts = head.line.splitn(3, ' ');
    let version = parts.next().unwrap_or_default().to_owned();
    let status = parts.next().and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| broken(&format!("a status line {:?}", head.line)))?;
    let reason = parts.next().unwrap_or_default().to_owned();
    Ok(Reply { status, reason, version, headers: head.headers.clone(), ..Reply::default() })
}

fn framing(method: &str, reply: &Reply) -> io::Result<Left> {
    if method == "HEAD" || matches!(reply.status, 101 | 204 | 304) {
        return Ok(Left::Nothing);
    }
    let lengths = reply.headers.all("Content-Length");
    match (reply.headers.all("Transfer-Encoding").as_slice(), lengths.as_slice()) {
        ([], [length]) => Ok(Left::Length(length.parse().map_err(|_| broken("a length"))?)),
        (["chunked"], []) => Ok(Left::Chunks),
        ([], []) => Ok(Left::UntilClose),
        framing => Err(broken(&format!("the framing of a reply {framing:?}"))),
    }
}
