//! The demo's backends: each answers with its name and with what it saw. Good enough for a demo, not for more.

use std::io;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Starts a thread that serves them for as long as the process lives.
pub fn start(listeners: Vec<(&'static str, TcpListener)>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = move || {
        runtime.block_on(async {
            let backends = listeners.into_iter().map(|(name, listener)| accept(name, listener));
            for ended in futures::future::join_all(backends).await {
                if let Err(error) = ended {
                    eprintln!("a backend of the demo ended: {error}");
                }
            }
        });
    };
    thread::Builder::new().name("backends".to_owned()).spawn(serve).context("a thread for the backends")?;
    Ok(())
}

async fn accept(name: &'static str, listener: TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        // A connection that breaks is the other side's business.
        tokio::spawn(async move { serve(name, stream).await.ok() });
    }
}

async fn serve(name: &str, mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(request) = next(&mut stream, &mut buffer).await? {
        if request.path().starts_with("/events") {
            events(name, &mut stream).await?;
            continue;
        }
        let body = request.told_by(name);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len());
        let body = if request.method == "HEAD" { "" } else { &body };
        stream.write_all(format!("{head}{body}").as_bytes()).await?;
    }
    Ok(())
}

/// Five events, one a second.
async fn events(name: &str, stream: &mut TcpStream) -> io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    for number in 1..=EVENTS {
        let event = format!("data: event {number} of {EVENTS} from {name}\n\n");
        stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    stream.write_all(b"0\r\n\r\n").await
}

const EVENTS: u32 = 5;

struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
}

impl Request {
    fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    fn told_by(&self, name: &str) -> String {
        let headers: String = self.headers.iter().map(|(name, value)| format!("  {name}: {value}\n")).collect();
        format!("{name} got {} {}\n{headers}", self.method, self.target)
    }
}

/// The next request, its body read and forgotten; `None` at the end of the connection.
async fn next(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let (request, length) = loop {
        if let Some(head) = parse(buffer)? {
            break head;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    buffer.drain(..length);
    let chunked = request.header("transfer-encoding").is_some();
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let whole = |buffer: &Vec<u8>| if chunked { buffer.ends_with(b"0\r\n\r\n") } else { buffer.len() >= length };
    while !whole(buffer) {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    buffer.drain(..if chunked { buffer.len() } else { length });
    Ok(Some(request))
}

fn parse(buffer: &[u8]) -> io::Result<Option<(Request, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut head = httparse::Request::new(&mut fields);
    let parsed = head.parse(buffer).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let httparse::Status::Complete(length) = parsed else { return Ok(None) };
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let headers = head.headers.iter().map(|field| {
        let value = String::from_utf8_lossy(field.value).into_owned();
        (field.name.to_owned(), value)
    });
    let headers = headers.collect();
    Ok(Some((Request { method: text(head.method), target: text(head.path), headers }, length)))
}
