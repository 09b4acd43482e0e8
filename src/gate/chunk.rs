//! The framing of a chunked body, followed while the bytes stream by.
//!
//! RFC 9112 §7.1 without its tolerances: no bare LF, no blanks round the size, no control characters in extensions.
//! The scanner changes nothing and keeps nothing but counters; it says where the message ends, and refuses what
//! another parser might end elsewhere.

use super::line::{is_forbidden_in_trailer, is_token_byte, is_value_byte};
use super::{Limits, Refusal};

/// Follows one chunked body. Make a new one for each message.
#[derive(Debug, Clone)]
pub struct ChunkScanner {
    state: State,
    /// Size of the current chunk while it is read, then how much of it is still to come.
    left: u64,
    digits: u8,
    data_bytes: u64,
    extension_bytes: u64,
    trailer_bytes: usize,
    trailer_fields: usize,
    name: Name,
    limits: Limits,
}

/// How far a call of [`ChunkScanner::feed`] got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the input that belong to this message: all of them unless it is done.
    pub consumed: usize,
    /// The message is complete. What follows is the next request.
    pub done: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a line after the last chunk: a trailer field or the end.
    Line,
    Name,
    Value,
    ValueLf,
    EndLf,
    Done,
}

/// The start of a trailer's name: long enough to tell the forbidden ones from all others.
#[derive(Debug, Clone, Default)]
struct Name {
    bytes: [u8; 24],
    len: usize,
}

impl Name {
    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
        }
        self.len += 1;
    }

    fn is_forbidden(&self) -> bool {
        self.bytes.get(..self.len).is_some_and(is_forbidden_in_trailer)
    }
}

impl ChunkScanner {
    /// A scanner at the first byte of a body. Trailers count against the limits of a head.
    pub fn new(limits: &Limits) -> Self {
        Self {
            state: State::Size,
            left: 0,
            digits: 0,
            data_bytes: 0,
            extension_bytes: 0,
            trailer_bytes: 0,
            trailer_fields: 0,
            name: Name::default(),
            limits: *limits,
        }
    }

    /// Looks at the next bytes of the body, in pieces of any size. Data is skipped, not read.
    ///
    /// # Errors
    /// 400 when the framing is not strict, 431 when trailers are over the limits. The scanner is of no use afterwards.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Progress, Refusal> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::Done {
            if self.state == State::Data {
                at += self.skip(bytes.len() - at);
            } else {
                self.step(bytes[at])?;
                at += 1;
            }
        }
        Ok(Progress { consumed: at, done: self.state == State::Done })
    }

    /// Passes over data, at most `available` bytes of it.
    fn skip(&mut self, available: usize) -> usize {
        let take = usize::try_from(self.left).map_or(available, |left| left.min(available));
        // `take` is at most `left`, and a usize fits into a u64 on every target we build for.
        self.left -= take as u64;
        self.data_bytes = self.data_bytes.saturating_add(take as u64);
        if self.left == 0 {
            self.state = State::DataCr;
        }
        take
    }

    fn step(&mut self, byte: u8) -> Result<(), Refusal> {
        self.state = match (self.state, byte) {
            (State::Size, _) => self.size(byte)?,
            (State::Extension, b'\r') => State::SizeLf,
            (State::Extension, _) => self.extension(byte)?,
            (State::SizeLf, b'\n') if self.left == 0 => State::Line,
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => self.next_chunk(),
            (State::Line, b'\r') => State::EndLf,
            (State::Line, _) => self.next_trailer(byte)?,
            (State::Name, b':') => self.end_of_name()?,
            (State::Name, _) => self.name_byte(byte)?,
            (State::Value, b'\r') => State::ValueLf,
            (State::Value, _) => self.value_byte(byte)?,
            (State::ValueLf, b'\n') => State::Line,
            (State::EndLf, b'\n') => State::Done,
            (State::DataCr | State::DataLf, _) => {
                return Err(Refusal::bad_request("a chunk is longer than its size"));
            }
            // Data is skipped, and nothing is read after the end.
            (State::SizeLf | State::ValueLf | State::EndLf | State::Data | State::Done, _) => {
                return Err(Refusal::bad_request("a bare CR in the chunk framing"));
            }
        };
        Ok(())
    }

    fn size(&mut self, byte: u8) -> Result<State, Refusal> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' if self.digits > 0 => return Ok(State::SizeLf),
            b';' if self.digits > 0 => return self.extension(byte),
            _ => {
                return Err(Refusal::bad_request("a chunk size is not a plain hexadecimal number"));
            }
        };
        self.digits += 1;
        if self.digits > MAX_DIGITS {
            return Err(Refusal::bad_request("a chunk size has too many digits"));
        }
        self.left = self.left << 4 | u64::from(digit);
        match i64::try_from(self.left) {
            Ok(_) => Ok(State::Size),
            Err(_) => Err(Refusal::bad_request("a chunk is too large")),
        }
    }

    /// Extensions are allowed and ignored, but a body of extensions with hardly any data is an attack.
    fn extension(&mut self, byte: u8) -> Result<State, Refusal> {
        if !is_value_byte(byte) {
            return Err(Refusal::bad_request("control character in a chunk extension"));
        }
        self.extension_bytes += 1;
        let allowance = MAX_EXTENSION_BYTES + self.data_bytes / 16;
        match self.extension_bytes > allowance {
            true => Err(Refusal::bad_request("the chunk extensions are too long")),
            false => Ok(State::Extension),
        }
    }

    fn next_chunk(&mut self) -> State {
        self.digits = 0;
        State::Size
    }

    fn next_trailer(&mut self, byte: u8) -> Result<State, Refusal> {
        self.trailer_fields += 1;
        if self.trailer_fields > self.limits.fields {
            return Err(Refusal::header_too_large("too many trailer fields"));
        }
        self.name = Name::default();
        self.name_byte(byte)
    }

    fn name_byte(&mut self, byte: u8) -> Result<State, Refusal> {
        if !is_token_byte(byte) {
            return Err(Refusal::bad_request("bad character in a trailer name"));
        }
        self.name.push(byte);
        self.count_trailer()?;
        Ok(State::Name)
    }

    fn end_of_name(&mut self) -> Result<State, Refusal> {
        match self.name.is_forbidden() {
            true => Err(Refusal::bad_request("a framing field in the trailers")),
            false => Ok(State::Value),
        }
    }

    fn value_byte(&mut self, byte: u8) -> Result<State, Refusal> {
        if !is_value_byte(byte) {
            return Err(Refusal::bad_request("control character in a trailer"));
        }
        self.count_trailer()?;
        Ok(State::Value)
    }

    fn count_trailer(&mut self) -> Result<(), Refusal> {
        self.trailer_bytes += 1;
        match self.trailer_bytes > self.limits.head_bytes {
            true => Err(Refusal::header_too_large("the trailers are too large")),
            false => Ok(()),
        }
    }
}

/// As many as 64 bits need.
const MAX_DIGITS: u8 = 16;

/// Extensions of a whole body that carries no data; each 16 bytes of data allow one more.
const MAX_EXTENSION_BYTES: u64 = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// Status and consumed bytes when the input comes in pieces of `piece` bytes.
    fn fed(bytes: &[u8], piece: usize) -> Result<(usize, bool), u16> {
        let mut scanner = ChunkScanner::new(&Limits::default());
        let mut consumed = 0;
        for part in bytes.chunks(piece) {
            let progress = scanner.feed(part).map_err(|refusal| refusal.status)?;
            consumed += progress.consumed;
            if progress.done {
                return Ok((consumed, true));
            }
        }
        Ok((consumed, false))
    }

    #[test]
    fn a_chunked_body_has_one_end() {
        type Row<'a> = (&'a str, &'a [u8], Result<(usize, bool), u16>);
        let rows: [Row<'_>; 43] = [
            ("empty", b"0\r\n\r\n", Ok((5, true))),
            ("one chunk", b"3\r\nabc\r\n0\r\n\r\n", Ok((13, true))),
            ("capitals", b"A\r\n0123456789\r\n0\r\n\r\n", Ok((20, true))),
            ("leading zeros", b"003\r\nabc\r\n000\r\n\r\n", Ok((17, true))),
            ("data like framing", b"5\r\n\r\n0\r\n\r\n0\r\n\r\n", Ok((15, true))),
            ("the next request follows", b"0\r\n\r\nGET /", Ok((5, true))),
            ("unfinished", b"3\r\nab", Ok((5, false))),
            ("extension", b"3;a=b\r\nabc\r\n0;x\r\n\r\n", Ok((19, true))),
            ("quoted extension", b"0;a=\"b;c\"\r\n\r\n", Ok((13, true))),
            ("trailers", b"0\r\nA: b\r\nC:\r\n\r\n", Ok((15, true))),
            ("no size", b"\r\n0\r\n\r\n", Err(400)),
            ("bare LF after the size", b"3\nabc\r\n0\r\n\r\n", Err(400)),
            ("bare CR after the size", b"3\rabc\r\n0\r\n\r\n", Err(400)),
            ("bare LF after the data", b"3\r\nabc\n0\r\n\r\n", Err(400)),
            ("nothing after the data", b"3\r\nabc0\r\n\r\n", Err(400)),
            ("too much data", b"3\r\nabcd\r\n0\r\n\r\n", Err(400)),
            ("CR and no LF after the data", b"3\r\nabc\rX0\r\n\r\n", Err(400)),
            ("bare LF at the end", b"0\r\n\n", Err(400)),
            ("bare CR at the end", b"0\r\n\rX", Err(400)),
            ("bare LF after the last size", b"0\n\r\n", Err(400)),
            ("space before the size", b" 3\r\nabc\r\n0\r\n\r\n", Err(400)),
            ("space after the size", b"3 \r\nabc\r\n0\r\n\r\n", Err(400)),
            ("space before the extension", b"3 ;a\r\nabc\r\n0\r\n\r\n", Err(400)),
            ("tab after the size", b"3\t\r\nabc\r\n0\r\n\r\n", Err(400)),
            ("sign", b"+3\r\nabc\r\n0\r\n\r\n", Err(400)),
            ("minus", b"-3\r\nabc\r\n0\r\n\r\n", Err(400)),
            ("0x", b"0x3\r\nabc\r\n0\r\n\r\n", Err(400)),
            ("underscore", b"1_0\r\n", Err(400)),
            ("not a digit", b"g\r\n", Err(400)),
            ("seventeen digits", b"00000000000000003\r\nabc\r\n", Err(400)),
            ("overflow of 64 bits", b"10000000000000000\r\n", Err(400)),
            ("overflow of signed 64 bits", b"8000000000000000\r\n", Err(400)),
            ("NUL in an extension", b"0;a\0\r\n\r\n", Err(400)),
            ("LF in an extension", b"0;a\nGET / HTTP/1.1\r\n\r\n", Err(400)),
            ("CR in an extension", b"0;a\rb\r\n\r\n", Err(400)),
            ("LF in a quoted extension", b"0;a=\"\n\"\r\n\r\n", Err(400)),
            ("length in the trailers", b"0\r\nContent-Length: 5\r\n\r\n", Err(400)),
            ("coding in the trailers", b"0\r\nTRANSFER-encoding: x\r\n\r\n", Err(400)),
            ("host in the trailers", b"0\r\nHost: b\r\n\r\n", Err(400)),
            ("folded trailer", b"0\r\nA: b\r\n c\r\n\r\n", Err(400)),
            ("space before the trailer's colon", b"0\r\nA : b\r\n\r\n", Err(400)),
            ("trailer without a name", b"0\r\n: b\r\n\r\n", Err(400)),
            ("bare LF in the trailers", b"0\r\nA: b\n\r\n", Err(400)),
        ];
        for (what, bytes, expected) in rows {
            for piece in [1, 2, 3, 7, bytes.len()] {
                assert_eq!(fed(bytes, piece), expected, "{what}, {piece} at a time");
            }
        }
    }

    #[test]
    fn extensions_are_bounded_over_the_whole_body() {
        let one = format!("1;{}\r\na\r\n", "x".repeat(4 << 10));
        assert_eq!(fed(one.as_bytes(), one.len()), Err(400), "one long extension");
        let many = format!("1;{}\r\na\r\n", "x".repeat(100)).repeat(50);
        assert_eq!(fed(many.as_bytes(), many.len()), Err(400), "many short ones");
        let real = format!("1000;{}\r\n{}\r\n", "x".repeat(90), "a".repeat(4096)).repeat(500);
        assert!(fed(real.as_bytes(), real.len()).is_ok(), "a signature for each 4 KiB");
    }

    #[test]
    fn trailers_are_bounded_like_a_head() {
        let many = format!("0\r\n{}\r\n", "A: b\r\n".repeat(101));
        assert_eq!(fed(many.as_bytes(), many.len()), Err(431), "fields");
        let large = format!("0\r\nA: {}\r\n\r\n", "b".repeat(65 << 10));
        assert_eq!(fed(large.as_bytes(), large.len()), Err(431), "bytes");
    }

    #[test]
    fn nothing_is_read_after_the_end() {
        let mut scanner = ChunkScanner::new(&Limits::default());
        assert!(scanner.feed(b"0\r\n\r\n").unwrap().done);
        let after = scanner.feed(b"GET / HTTP/1.1").unwrap();
        assert_eq!(after, Progress { consumed: 0, done: true });
    }
}
