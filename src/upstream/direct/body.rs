//! The framing of a response body. RFC 9112 §6.3, §7.1.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

/// How the rest of a response body is found.
#[derive(Debug, PartialEq, Eq)]
pub enum Body {
    /// All of it was read, or there is none.
    Done,
    /// So many bytes are missing.
    Length(u64),
    /// Chunked coding.
    Chunked(Chunked),
    /// It ends with the connection.
    UntilClose,
}

/// Where in the chunked coding the next byte is.
#[derive(Debug, PartialEq, Eq)]
pub enum Chunked {
    /// In the line with the size of a chunk.
    Size,
    /// In the data of a chunk: so many bytes of it are missing.
    Data(u64),
    /// Before the line end behind the data of a chunk.
    DataEnd,
    /// In the trailers, of which so many bytes were skipped.
    Trailers(usize),
}

/// What a step of reading gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A piece of the body.
    Piece(Bytes),
    /// More bytes are needed.
    More,
    /// The end of the body.
    End,
}

/// A body that cannot be read; the words are for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub &'static str);

impl Body {
    /// The body behind a final response head.
    ///
    /// # Errors
    /// When the lengths disagree, or the transfer coding is another than `chunked`.
    pub fn of(method: &Method, status: StatusCode, headers: &HeaderMap) -> Result<Body, Broken> {
        let length = length(headers)?;
        if method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            return Ok(Body::Done);
        }
        let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
        match (codings.next(), codings.next()) {
            (None, _) => {}
            (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
                return Ok(Body::Chunked(Chunked::Size));
            }
            _ => return Err(Broken("a transfer coding that nobody asked for")),
        }
        match length {
            Some(0) => Ok(Body::Done),
            Some(length) => Ok(Body::Length(length)),
            None => Ok(Body::UntilClose),
        }
    }

    /// Takes the next piece of the body off what has arrived.
    ///
    /// # Errors
    /// When the framing is broken.
    pub fn step(&mut self, inbound: &mut BytesMut) -> Result<Step, Broken> {
        match self {
            Body::Done => Ok(Step::End),
            Body::UntilClose if inbound.is_empty() => Ok(Step::More),
            Body::UntilClose => Ok(Step::Piece(inbound.split().freeze())),
            Body::Length(_) if inbound.is_empty() => Ok(Step::More),
            Body::Length(missing) => {
                let piece = piece(inbound, missing);
                if *missing == 0 {
                    *self = Body::Done;
                }
                Ok(Step::Piece(piece))
            }
            Body::Chunked(_) => self.chunk(inbound),
        }
    }

    fn chunk(&mut self, inbound: &mut BytesMut) -> Result<Step, Broken> {
        while let Body::Chunked(place) = self {
            match place {
                Chunked::Size => {
                    let Some(line) = line(inbound, MOST_LINE)? else { return Ok(Step::More) };
                    *place = match size(&line)? {
                        0 => Chunked::Trailers(0),
                        size => Chunked::Data(size),
                    };
                }
                Chunked::Data(_) if inbound.is_empty() => return Ok(Step::More),
                Chunked::Data(missing) => {
                    let piece = piece(inbound, missing);
                    if *missing == 0 {
                        *place = Chunked::DataEnd;
                    }
                    return Ok(Step::Piece(piece));
                }
                Chunked::DataEnd => {
                    let Some(line) = line(inbound, 2)? else { return Ok(Step::More) };
                    if !line.is_empty() {
                        return Err(Broken("a chunk is longer than its size says"));
                    }
                    *place = Chunked::Size;
                }
                // Trailers pass from HTTP/2 to HTTP/2 only.
                Chunked::Trailers(skipped) => {
                    let Some(line) = line(inbound, MOST_TRAILERS - *skipped)? else { return Ok(Step::More) };
                    *skipped += line.len();
                    if line.is_empty() {
                        *self = Body::Done;
                    }
                }
            }
        }
        Ok(Step::End)
    }
}

/// As much of what is missing as has arrived.
fn piece(inbound: &mut BytesMut, missing: &mut u64) -> Bytes {
    let take = usize::try_from(*missing).map_or(inbound.len(), |missing| missing.min(inbound.len()));
    *missing -= take as u64;
    inbound.split_to(take).freeze()
}

/// A whole line without its end, when it has arrived.
fn line(inbound: &mut BytesMut, most: usize) -> Result<Option<Bytes>, Broken> {
    let Some(end) = memchr::memchr(b'\n', &inbound[..inbound.len().min(most)]) else {
        return if inbound.len() < most { Ok(None) } else { Err(Broken("a line of the chunked coding is too long")) };
    };
    let mut line = inbound.split_to(end).freeze();
    inbound.advance(1);
    if line.last() == Some(&b'\r') {
        line.truncate(line.len() - 1);
    }
    Ok(Some(line))
}

/// `chunk-size [ chunk-ext ]`, at most 15 digits.
fn size(line: &[u8]) -> Result<u64, Broken> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let rest = line[digits..].trim_ascii_start();
    if digits == 0 || digits > 15 || !(rest.is_empty() || rest[0] == b';') {
        return Err(Broken("the size of a chunk cannot be read"));
    }
    let value = |size: u64, digit: &u8| size << 4 | u64::from((*digit as char).to_digit(16).unwrap_or_default());
    Ok(line[..digits].iter().fold(0, value))
}

/// What all lines and lists of `Content-Length` agree on. RFC 9110 §8.6.
fn length(headers: &HeaderMap) -> Result<Option<u64>, Broken> {
    let mut agreed = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        for text in HeaderValue::as_bytes(value).split(|byte| *byte == b',') {
            let length = digits(text.trim_ascii()).ok_or(Broken("a length that is no number"))?;
            if agreed.is_some_and(|agreed| agreed != length) {
                return Err(Broken("lengths that contradict each other"));
            }
            agreed = Some(length);
        }
    }
    Ok(agreed)
}

fn digits(text: &[u8]) -> Option<u64> {
    let all = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| all)?.parse().ok()
}

/// Longest line with the size of a chunk, extensions included.
const MOST_LINE: usize = 4096;
/// Most bytes of trailers.
const MOST_TRAILERS: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut body: Body, pieces: &[&[u8]]) -> (Result<Vec<u8>, Broken>, Body, usize) {
        let (mut inbound, mut read) = (BytesMut::new(), Vec::new());
        for piece in pieces {
            inbound.extend_from_slice(piece);
            loop {
                match body.step(&mut inbound) {
                    Ok(Step::Piece(bytes)) => read.extend_from_slice(&bytes),
                    Ok(Step::More) => break,
                    Ok(Step::End) => return (Ok(read), body, inbound.len()),
                    Err(broken) => return (Err(broken), body, inbound.len()),
                }
            }
        }
        (Ok(read), body, inbound.len())
    }

    #[test]
    fn a_chunked_body_is_the_same_however_it_is_cut() {
        let wire = b"4;name=value\r\nWiki\r\n6 \r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\nTrailer: x\r\n\r\nnext";
        for cut in 0..wire.len() - b"next".len() {
            let (read, body, left) = read(Body::Chunked(Chunked::Size), &[&wire[..cut], &wire[cut..]]);
            assert_eq!(read.unwrap(), b"Wikipedia in \r\n\r\nchunks.", "cut at {cut}");
            assert_eq!((body, left), (Body::Done, 4), "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = wire.chunks(1).collect();
        assert_eq!(read(Body::Chunked(Chunked::Size), &bytes).0.unwrap(), b"Wikipedia in \r\n\r\nchunks.");
    }

    #[test]
    fn broken_chunks_are_no_body() {
        let long = [b'1'; 5000];
        #[rustfmt::skip]
        let rows: [(&str, &[u8]); 8] = [
            ("no size", b"\r\n"),
            ("no digits", b"xyz\r\n"),
            ("a sign", b"+4\r\nWiki\r\n"),
            ("text behind the size", b"4 x\r\nWiki\r\n"),
            ("too many digits", b"1000000000000000\r\n"),
            ("more data than said", b"4\r\nWikipedia\r\n"),
            ("no end of a line", b"4\r\nWikiXX"),
            ("a line without end", &long),
        ];
        for (what, wire) in rows {
            assert!(read(Body::Chunked(Chunked::Size), &[wire]).0.is_err(), "{what}");
        }
    }

    #[test]
    fn a_length_takes_what_is_its_own() {
        let (body, left, rest) = read(Body::Length(5), &[b"he", b"llo, world"]);
        assert_eq!((body.unwrap(), left, rest), (b"hello".to_vec(), Body::Done, 7));
        let (body, left, _) = read(Body::Length(5), &[b"he"]);
        assert_eq!((body.unwrap(), left), (b"he".to_vec(), Body::Length(3)));
        assert_eq!(read(Body::UntilClose, &[b"he", b"llo"]).0.unwrap(), b"hello");
    }

    #[test]
    fn the_head_says_how_the_body_ends() {
        let length = |text: &str| vec![("content-length", text.to_owned())];
        let coding = |text: &str| vec![("transfer-encoding", text.to_owned())];
        let both = [length("5"), coding("chunked")].concat();
        let twice = |a, b| [length(a), length(b)].concat();
        let chunked = || Some(Body::Chunked(Chunked::Size));
        #[rustfmt::skip]
        let rows = [
            ("a length", Method::GET, 200, length("5"), Some(Body::Length(5))),
            ("nothing", Method::GET, 200, length("0"), Some(Body::Done)),
            ("no length", Method::GET, 200, vec![], Some(Body::UntilClose)),
            ("HEAD", Method::HEAD, 200, length("5"), Some(Body::Done)),
            ("no content", Method::GET, 204, length("5"), Some(Body::Done)),
            ("not modified", Method::GET, 304, length("5"), Some(Body::Done)),
            ("chunked", Method::GET, 200, coding("Chunked"), chunked()),
            ("chunked beats a length", Method::GET, 200, both, chunked()),
            ("another coding", Method::GET, 200, coding("gzip, chunked"), None),
            ("the same length twice", Method::GET, 200, twice("5", "5"), Some(Body::Length(5))),
            ("a list of one length", Method::GET, 200, length("5, 5"), Some(Body::Length(5))),
            ("two lengths", Method::GET, 200, twice("5", "6"), None),
            ("a sign", Method::GET, 200, length("+5"), None),
            ("no number", Method::GET, 200, length("five"), None),
            ("too large a number", Method::GET, 200, length("99999999999999999999"), None),
        ];
        for (what, method, status, lines, expected) in rows {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(name, value.parse().unwrap());
            }
            let body = Body::of(&method, StatusCode::from_u16(status).unwrap(), &headers);
            assert_eq!(body.ok(), expected, "{what}");
        }
    }
}
