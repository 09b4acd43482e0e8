//! HTTP/2 by hand: for requests that no client library would send. RFC 9113 §4, RFC 7541 §6.2.

use std::io;

use super::wire::Wire;

/// Header fields in the order in which they are sent, pseudo-headers among them.
pub type Fields<'a> = &'a [(&'a str, &'a str)];

/// What came of a hand-made request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The stream was answered 200.
    Answered,
    /// The stream was answered with another status.
    Refused,
    /// The stream or the connection was given up with an error, as for malformed requests (RFC 9113 §8.1.1).
    Reset,
}

/// Sends one request of exactly these fields, and this body if any, on a connection of its own.
pub async fn exchange(port: u16, fields: Fields<'_>, body: Option<&str>) -> io::Result<Outcome> {
    let mut wire = Wire::connect(port).await?;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    let end = if body.is_none() { END_STREAM } else { 0 };
    bytes.extend(frame(HEADERS, END_HEADERS | end, 1, &block(fields)));
    if let Some(body) = body {
        bytes.extend(frame(DATA, END_STREAM, 1, body.as_bytes()));
    }
    wire.send(&bytes).await?;
    loop {
        let head = match wire.exactly(9).await {
            Ok(head) => head,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(error),
            Err(_) => return Ok(Outcome::Reset),
        };
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let payload = wire.exactly(usize::try_from(length).unwrap_or(usize::MAX)).await?;
        match head[3] {
            HEADERS if payload.first() == Some(&STATUS_200) => return Ok(Outcome::Answered),
            HEADERS => return Ok(Outcome::Refused),
            RST_STREAM | GOAWAY => return Ok(Outcome::Reset),
            _ => {}
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Each field as a literal with its own name, not indexed and not compressed.
fn block(fields: Fields<'_>) -> Vec<u8> {
    let text = |text: &str| {
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short text");
        [&[length], text.as_bytes()].concat()
    };
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        block.extend(text(name));
        block.extend(text(value));
    }
    block
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:status 200` of the static table.
const STATUS_200: u8 = 0x88;
