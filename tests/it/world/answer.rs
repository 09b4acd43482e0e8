//! What an origin answers: data, so that a story can say it in one line.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;

/// One answer of an [`Origin`](super::Origin); start from a constructor, refine with the methods.
#[derive(Clone, Debug)]
pub struct Answer {
    pub(super) delay: Duration,
    pub(super) interim: Vec<(u16, Vec<(String, String)>)>,
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Body,
    pub(super) trailers: Vec<(String, String)>,
    pub(super) intake: Intake,
    pub(super) close: bool,
}

/// A part of a body that is sent piece by piece.
#[derive(Clone, Debug)]
pub enum Piece {
    Data(Bytes),
    Pause(Duration),
    /// Waits for [`Origin::release`](super::Origin::release): what comes after it needs the story's leave.
    Hold,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    /// JSON that says what the origin saw.
    Echo,
    /// With a length.
    Whole(Bytes),
    /// With a length, of which only so many bytes are sent before the connection closes.
    Cut(Bytes, usize),
    /// In chunks.
    Pieces(Vec<Piece>),
    /// Without length or chunks: ends with the connection.
    UntilClose(Vec<Piece>),
    /// No body and no length at all, as in 204 and 304.
    Absent,
    /// So many bytes of the pattern, with a length.
    Flood(u64),
    /// Not HTTP as anyone knows it: these bytes are all that is sent, then the connection closes.
    Raw(Vec<Piece>),
    /// The connection becomes a WebSocket that says everything back.
    WebSocket,
    Close,
    Reset,
    Hang,
}

/// What happens to the request's body before the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intake {
    /// Read to its end; `100 Continue` is sent first when the client waits for it.
    Whole,
    /// Left where it is: the answer comes at once.
    Ignore,
    /// Read to its end after leave was given with [`Origin::release`](super::Origin::release).
    Held,
}

impl Answer {
    /// 200 with this body.
    pub fn ok(body: impl Into<Bytes>) -> Answer {
        Answer::status(200).body(body)
    }

    /// This status and an empty body.
    pub fn status(status: u16) -> Answer {
        let body = if matches!(status, 204 | 304) { Body::Absent } else { Body::Whole(Bytes::new()) };
        Answer::of(status, body)
    }

    /// What the origin does when the story says nothing: 200 and JSON of what it saw.
    pub fn echo() -> Answer {
        Answer::of(200, Body::Echo).header("Content-Type", "application/json")
    }

    /// A chunked body of these pieces.
    pub fn pieces(pieces: impl IntoIterator<Item = Piece>) -> Answer {
        Answer::of(200, Body::Pieces(pieces.into_iter().collect()))
    }

    /// Chunks of these texts, each after the first only with the story's leave.
    pub fn held(texts: &[&str]) -> Answer {
        let mut pieces = Vec::new();
        for text in texts {
            pieces.extend([Piece::Data(Bytes::copy_from_slice(text.as_bytes())), Piece::Hold]);
        }
        pieces.pop();
        Answer::pieces(pieces)
    }

    /// An event stream of these events, each after the first only with the story's leave.
    pub fn events(data: &[&str]) -> Answer {
        let events: Vec<String> = data.iter().map(|data| format!("data: {data}\n\n")).collect();
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        Answer::held(&events).header("Content-Type", "text/event-stream")
    }

    /// A body that ends with the connection.
    pub fn until_close(body: impl Into<Bytes>) -> Answer {
        Answer::of(200, Body::UntilClose(vec![Piece::Data(body.into())]))
    }

    /// So many bytes of [`Pattern`](super::Pattern).
    pub fn flood(length: u64) -> Answer {
        Answer::of(200, Body::Flood(length))
    }

    /// This text, gzip-encoded.
    pub fn gzip(text: &str) -> Answer {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text.as_bytes()).expect("a vector takes everything");
        Answer::ok(encoder.finish().expect("a vector takes everything")).header("Content-Encoding", "gzip")
    }

    /// A body announced in full, of which only so many bytes come before the connection closes.
    pub fn cut(body: impl Into<Bytes>, after: usize) -> Answer {
        Answer::of(200, Body::Cut(body.into(), after))
    }

    /// Exactly these bytes, then the connection closes.
    pub fn raw(bytes: impl Into<Bytes>) -> Answer {
        Answer::of(0, Body::Raw(vec![Piece::Data(bytes.into())]))
    }

    /// Exactly these texts, each after the first only with the story's leave; then the connection closes.
    pub fn raw_held(texts: &[&str]) -> Answer {
        match Answer::held(texts).body {
            Body::Pieces(pieces) => Answer::of(0, Body::Raw(pieces)),
            body => Answer::of(0, body),
        }
    }

    pub fn websocket() -> Answer {
        Answer::of(101, Body::WebSocket)
    }

    /// Closes without a byte.
    pub fn close() -> Answer {
        Answer::of(0, Body::Close)
    }

    /// Resets the connection without a byte.
    pub fn reset() -> Answer {
        Answer::of(0, Body::Reset)
    }

    /// Never answers.
    pub fn hang() -> Answer {
        Answer::of(0, Body::Hang)
    }

    pub fn body(self, body: impl Into<Bytes>) -> Answer {
        Answer { body: Body::Whole(body.into()), ..self }
    }

    pub fn with_status(self, status: u16) -> Answer {
        Answer { status, ..self }
    }

    pub fn header(mut self, name: &str, value: &str) -> Answer {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sent after the last chunk; announced in `Trailer`.
    pub fn trailer(mut self, name: &str, value: &str) -> Answer {
        self.trailers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// An interim response that goes first.
    pub fn interim(mut self, status: u16, headers: &[(&str, &str)]) -> Answer {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.interim.push((status, headers.collect()));
        self
    }

    /// Thinks for a while before the first byte.
    pub fn delay(self, delay: Duration) -> Answer {
        Answer { delay, ..self }
    }

    /// Answers without reading the request's body, and without `100 Continue`.
    pub fn ignoring_the_body(self) -> Answer {
        Answer { intake: Intake::Ignore, ..self }
    }

    /// Reads the request's body only with the story's leave.
    pub fn reading_on_release(self) -> Answer {
        Answer { intake: Intake::Held, ..self }
    }

    /// Says `Connection: close` and means it.
    pub fn closing(mut self) -> Answer {
        self.close = true;
        self.header("Connection", "close")
    }

    fn of(status: u16, body: Body) -> Answer {
        Answer {
            delay: Duration::ZERO,
            interim: Vec::new(),
            status,
            headers: Vec::new(),
            body,
            trailers: Vec::new(),
            intake: Intake::Whole,
            close: false,
        }
    }
}

impl From<&str> for Piece {
    fn from(text: &str) -> Piece {
        Piece::Data(Bytes::copy_from_slice(text.as_bytes()))
    }
}
