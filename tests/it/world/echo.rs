//! One connection of an origin: reads requests, plays the scripted answers.

use std::io;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use tokio::time::sleep;

use super::answer::{Answer, Body, Intake, Piece};
use super::origin::{Script, Seen};
use super::websocket;
use super::wire::{Head, Headers, Left, Pattern, Wire, broken};

/// Serves until either side has enough.
pub(super) async fn serve(mut wire: Wire, script: &Script, connection: usize) -> io::Result<()> {
    while wire.wait().await? {
        let Some(head) = wire.head().await? else {
            return Ok(());
        };
        let seen = request(&head, connection)?;
        let number = script.note(seen.clone());
        let left = framing(&head.headers)?;
        script.amend(number, |seen| seen.whole = left == Left::Nothing);
        let answer = script.answer(&seen.target);
        let mut turn = Turn { wire: &mut wire, script, number, seen, left };
        if !turn.play(&answer).await? {
            wire.finish().await;
            return Ok(());
        }
    }
    Ok(())
}

/// One request and its answer.
struct Turn<'a> {
    wire: &'a mut Wire,
    script: &'a Script,
    number: usize,
    seen: Seen,
    left: Left,
}

impl Turn<'_> {
    /// Returns whether the connection may carry another request.
    async fn play(&mut self, answer: &Answer) -> io::Result<bool> {
        match answer.intake {
            Intake::Whole => self.intake().await?,
            Intake::Held => {
                self.hold().await;
                self.intake().await?;
            }
            Intake::Ignore => {}
        }
        if !answer.delay.is_zero() {
            sleep(answer.delay).await;
        }
        for (status, headers) in &answer.interim {
            self.wire.send(head(*status, headers).as_bytes()).await?;
        }
        let goes_on = self.answer(answer).await?;
        Ok(goes_on && !answer.close && !self.seen.headers.lists("Connection", "close"))
    }

    async fn answer(&mut self, answer: &Answer) -> io::Result<bool> {
        match &answer.body {
            Body::Close => return Ok(false),
            Body::Reset => {
                let _ = self.wire.stream().set_zero_linger();
                return Err(broken("a wish to reset is no error"));
            }
            Body::Hang => {
                // Until the client has gone.
                while self.wire.wait_for_more().await? {}
                return Ok(false);
            }
            Body::Raw(pieces) => {
                self.pieces(pieces, |data| data.clone()).await?;
                return Ok(false);
            }
            Body::WebSocket => {
                websocket::serve(self.wire, &self.seen.headers, &answer.headers).await?;
                return Ok(false);
            }
            _ => {}
        }
        let echoed = echo(&self.seen);
        let (framing, length) = match &answer.body {
            Body::Echo => ("Content-Length", echoed.len().to_string()),
            Body::Whole(body) | Body::Cut(body, _) => ("Content-Length", body.len().to_string()),
            Body::Flood(length) => ("Content-Length", length.to_string()),
            Body::Pieces(_) => ("Transfer-Encoding", "chunked".to_owned()),
            _ => ("", String::new()),
        };
        let mut headers = answer.headers.clone();
        if !framing.is_empty() && !answer.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(framing)) {
            headers.push((framing.to_owned(), length));
        }
        let names: Vec<&str> = answer.trailers.iter().map(|(name, _)| name.as_str()).collect();
        if !names.is_empty() {
            headers.push(("Trailer".to_owned(), names.join(", ")));
        }
        let mut start = BytesMut::from(head(answer.status, &headers).as_bytes());
        if self.seen.method == "HEAD" {
            self.wire.send(&start).await?;
            return Ok(true);
        }
        // A whole answer leaves in one write, so that an origin killed between two requests cuts none.
        match &answer.body {
            Body::Echo => start.extend_from_slice(&echoed),
            Body::Whole(body) => start.extend_from_slice(body),
            Body::Cut(body, after) => start.extend_from_slice(&body[..*after]),
            _ => {}
        }
        self.wire.send(&start).await?;
        self.stream(answer).await?;
        Ok(!matches!(answer.body, Body::Cut(..) | Body::UntilClose(_)))
    }

    async fn stream(&mut self, answer: &Answer) -> io::Result<()> {
        match &answer.body {
            Body::UntilClose(pieces) => self.pieces(pieces, |data| data.clone()).await,
            Body::Pieces(pieces) => {
                self.pieces(pieces, chunk).await?;
                let mut end = String::from("0\r\n");
                for (name, value) in &answer.trailers {
                    end.push_str(&format!("{name}: {value}\r\n"));
                }
                self.wire.send(format!("{end}\r\n").as_bytes()).await
            }
            Body::Flood(length) => {
                let (pattern, mut position) = (Pattern::new(), 0);
                while position < *length {
                    let block = pattern.from(position, length - position);
                    self.wire.send(&block).await?;
                    position += block.len() as u64;
                    self.script.sent.store(position, Ordering::Relaxed);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn pieces(&mut self, pieces: &[Piece], form: impl Fn(&Bytes) -> Bytes) -> io::Result<()> {
        for piece in pieces {
            match piece {
                Piece::Data(data) => self.wire.send(&form(data)).await?,
                Piece::Pause(pause) => sleep(*pause).await,
                Piece::Hold => self.hold().await,
            }
        }
        Ok(())
    }

    async fn hold(&self) {
        self.script.leave.acquire().await.expect("never closed").forget();
    }

    /// Reads the body to its end, remembering it as it comes.
    async fn intake(&mut self) -> io::Result<()> {
        if self.seen.headers.lists("Expect", "100-continue") {
            self.wire.send(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        if self.left == Left::Nothing {
            return Ok(());
        }
        let (pattern, mut trailers) = (Pattern::new(), Headers::default());
        let seen = &mut self.seen;
        seen.pattern = true;
        let mut kept = BytesMut::new();
        while let Some(piece) = self.wire.piece(&mut self.left, &mut trailers).await? {
            seen.pattern &= pattern.continues(seen.length, &piece);
            seen.length += piece.len() as u64;
            let keep = piece.len().min(MOST_KEPT - kept.len());
            kept.extend_from_slice(&piece[..keep]);
            let (length, intact) = (seen.length, seen.pattern);
            let body = (keep > 0).then(|| Bytes::copy_from_slice(&kept));
            self.script.amend(self.number, |seen| {
                (seen.length, seen.pattern) = (length, intact);
                if let Some(body) = body {
                    seen.body = body;
                }
            });
        }
        (seen.body, seen.trailers, seen.whole) = (kept.freeze(), trailers, true);
        let whole = seen.clone();
        self.script.amend(self.number, |seen| *seen = whole);
        Ok(())
    }
}

fn request(head: &Head, connection: usize) -> io::Result<Seen> {
    let mut parts = head.line.split(' ').map(str::to_owned);
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(broken(&format!("a request line {:?}", head.line)));
    };
    Ok(Seen { method, target, version, headers: head.headers.clone(), connection, ..Seen::default() })
}

fn framing(headers: &Headers) -> io::Result<Left> {
    match (headers.all("Transfer-Encoding").as_slice(), headers.all("Content-Length").as_slice()) {
        ([], []) => Ok(Left::Nothing),
        (["chunked"], []) => Ok(Left::Chunks),
        ([], [length]) => match length.parse() {
            Ok(0) => Ok(Left::Nothing),
            Ok(length) => Ok(Left::Length(length)),
            Err(_) => Err(broken("a length")),
        },
        // Two framings: a gateway that lets this through fails its story here.
        _ => Err(broken("the framing of a request")),
    }
}

fn head(status: u16, headers: &[(String, String)]) -> String {
    let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let mut head = format!("HTTP/1.1 {status} {}\r\n", reason.unwrap_or("Whatever"));
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head + "\r\n"
}

fn chunk(data: &Bytes) -> Bytes {
    let mut chunk = BytesMut::from(format!("{:x}\r\n", data.len()).as_bytes());
    chunk.extend_from_slice(data);
    chunk.extend_from_slice(b"\r\n");
    chunk.freeze()
}

fn echo(seen: &Seen) -> Bytes {
    let json = serde_json::json!({
        "method": seen.method, "target": seen.target, "version": seen.version,
        "headers": seen.headers.0, "body": seen.text(), "length": seen.length,
    });
    Bytes::from(json.to_string())
}

const MOST_KEPT: usize = 1 << 20;
