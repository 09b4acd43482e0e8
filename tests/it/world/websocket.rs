//! WebSockets, both ends: a client for the stories and the echo of the origin. RFC 6455, small frames only.

use std::io;

use super::client::{Connection, Reply, Request};
use super::wire::{Headers, Wire};

/// What arrives on a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// With its code; 1005 when it carried none.
    Close(u16),
    /// The connection ended without a close frame.
    End,
}

/// A client's open WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    /// The `101` that opened it.
    pub reply: Reply,
    connection: Connection,
}

impl WebSocket {
    /// Opens one, spelling the upgrade token so; whatever else the gateway answers is the error.
    pub async fn open(request: Request, token: &str) -> Result<WebSocket, Box<Reply>> {
        let request = request
            .header("Connection", "Upgrade")
            .header("Upgrade", token)
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", KEY);
        let (reply, mut connection, left) = request.open().await;
        if reply.status == 101 {
            return Ok(WebSocket { reply, connection });
        }
        let (body, trailers) = connection.wire.body(left).await.expect("a whole reply");
        Err(Box::new(Reply { body, trailers, ..reply }))
    }

    pub async fn say(&mut self, text: &str) {
        send(&mut self.connection.wire, TEXT, text.as_bytes(), Side::Client).await.expect("the WebSocket is open");
    }

    pub async fn ping(&mut self, data: &str) {
        send(&mut self.connection.wire, PING, data.as_bytes(), Side::Client).await.expect("the WebSocket is open");
    }

    pub async fn close(&mut self, code: u16) {
        send(&mut self.connection.wire, CLOSE, &code.to_be_bytes(), Side::Client).await.expect("the WebSocket is open");
    }

    pub async fn hear(&mut self) -> Frame {
        receive(&mut self.connection.wire).await.unwrap_or(Frame::End)
    }

    /// Says it and hears it back.
    ///
    /// # Panics
    /// When anything else comes back.
    pub async fn echoes(&mut self, text: &str) {
        self.say(text).await;
        assert_eq!(self.hear().await, Frame::Text(text.to_owned()), "the echo of {text}");
    }
}

/// The origin's end: shakes hands, then says every text back until the client closes.
///
/// The text `bye` makes the origin close first, with code 4000.
pub async fn serve(wire: &mut Wire, headers: &Headers, extra: &[(String, String)]) -> io::Result<()> {
    let proper = headers.one("Sec-WebSocket-Key") == Some(KEY)
        && headers.lists("Upgrade", "websocket")
        && headers.lists("Connection", "upgrade");
    if !proper {
        return wire.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    }
    let extra: String = extra.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
    wire.send(format!("{head}Sec-WebSocket-Accept: {ACCEPT}\r\n{extra}\r\n").as_bytes()).await?;
    while wire.wait().await? {
        match receive(wire).await? {
            Frame::Text(text) if text == "bye" => send(wire, CLOSE, &4000u16.to_be_bytes(), Side::Server).await?,
            Frame::Text(text) => send(wire, TEXT, text.as_bytes(), Side::Server).await?,
            Frame::Ping(data) => send(wire, PONG, &data, Side::Server).await?,
            Frame::Pong(_) => {}
            Frame::Close(code) => {
                return send(wire, CLOSE, &code.to_be_bytes(), Side::Server).await;
            }
            Frame::End => return Ok(()),
        }
    }
    Ok(())
}

/// Clients mask their frames, servers do not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

async fn send(wire: &mut Wire, opcode: u8, data: &[u8], side: Side) -> io::Result<()> {
    let mask = if side == Side::Client { 0x80 } else { 0 };
    let mut frame = vec![0x80 | opcode];
    match u8::try_from(data.len()) {
        Ok(length) if length < 126 => frame.push(mask | length),
        _ => {
            frame.push(mask | 126);
            frame.extend(u16::try_from(data.len()).expect("the stories' frames are small").to_be_bytes());
        }
    }
    if side == Side::Client {
        frame.extend(MASK);
    }
    let masked_byte = |(at, byte): (usize, &u8)| {
        if side == Side::Client { byte ^ MASK[at % 4] } else { *byte }
    };
    frame.extend(data.iter().enumerate().map(masked_byte));
    wire.send(&frame).await
}

async fn receive(wire: &mut Wire) -> io::Result<Frame> {
    let head = wire.exactly(2).await?;
    let mut length = usize::from(head[1] & 0x7F);
    if length == 126 {
        let long = wire.exactly(2).await?;
        length = usize::from(u16::from_be_bytes([long[0], long[1]]));
    }
    let mask = if head[1] & 0x80 == 0 { [0; 4] } else { <[u8; 4]>::try_from(&wire.exactly(4).await?[..]).expect("4") };
    let data = wire.exactly(length).await?;
    let data: Vec<u8> = data.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
    Ok(match head[0] & 0x0F {
        TEXT => Frame::Text(String::from_utf8_lossy(&data).into_owned()),
        PING => Frame::Ping(data),
        PONG => Frame::Pong(data),
        CLOSE => Frame::Close(data.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]))),
        other => return Err(super::wire::broken(&format!("a frame of kind {other}"))),
    })
}

/// The sample nonce of RFC 6455 §1.3, whose answer is printed there: no SHA-1 is needed.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
