//! Unpacks a gzip response for a client that did not ask for one.
//!
//! As Goma does, a request without `Accept-Encoding` goes upstream with `gzip`, which saves bandwidth to the backend; the
//! client gets the plain body. Spec core §5.1.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;

/// Decoder of one response, fed as the body streams by.
pub struct Gunzip {
    decoder: MultiGzDecoder<Vec<u8>>,
    begun: bool,
}

impl Gunzip {
    /// A decoder at the start of a body.
    pub fn new() -> Gunzip {
        Gunzip { decoder: MultiGzDecoder::new(Vec::new()), begun: false }
    }

    /// Takes a piece of the packed body, returns all that it unpacks to: an event must not wait for the next one.
    ///
    /// No body at all unpacks to none, whatever its coding is called.
    ///
    /// # Errors
    /// When the body is not gzip, ends midway, or is made to fill the memory: one piece may unpack to 16 MiB.
    pub fn feed(&mut self, packed: &[u8], end: bool) -> io::Result<Bytes> {
        self.begun |= !packed.is_empty();
        for part in packed.chunks(PART) {
            self.decoder.write_all(part)?;
            if self.decoder.get_ref().len() > MOST {
                return Err(io::Error::other("a piece of the response unpacks to more than 16 MiB"));
            }
        }
        self.decoder.flush()?;
        if end && self.begun {
            self.decoder.try_finish()?;
        }
        Ok(std::mem::take(self.decoder.get_mut()).into())
    }
}

/// So much is unpacked between two looks at the size of the result; deflate grows at most 1,032 times.
const PART: usize = 4096;
const MOST: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_in_pieces_comes_out_whole_and_a_cut_one_is_an_error() {
        let text: Vec<u8> = (0..100_000u32).flat_map(|n| n.to_string().into_bytes()).collect();
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packer.write_all(&text).unwrap();
        let packed = packer.finish().unwrap();
        let mut gunzip = Gunzip::new();
        let mut out = Vec::new();
        for piece in packed.chunks(1000) {
            out.extend_from_slice(&gunzip.feed(piece, false).unwrap());
        }
        out.extend_from_slice(&gunzip.feed(&[], true).unwrap());
        assert!(out == text);
        let mut cut = Gunzip::new();
        cut.feed(&packed[..packed.len() / 2], false).unwrap();
        assert!(cut.feed(&[], true).is_err());
        assert!(Gunzip::new().feed(b"plain text", false).is_err());
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let bomb = packed(&"0".repeat(40 << 20));
        assert!(bomb.len() < 64 << 10, "fits into one piece");
        assert!(Gunzip::new().feed(&bomb, true).is_err());
    }

    fn packed(text: &str) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packer.write_all(text.as_bytes()).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn an_event_comes_out_with_the_piece_that_holds_it() {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        let mut gunzip = Gunzip::new();
        for event in ["data: 0\n\n", "data: 1\n\n"] {
            packer.write_all(event.as_bytes()).unwrap();
            packer.flush().unwrap();
            let piece = std::mem::take(packer.get_mut());
            assert_eq!(gunzip.feed(&piece, false).unwrap(), event);
        }
    }

    #[test]
    fn members_in_a_row_are_one_body_and_no_member_is_none() {
        let two = [packed("one "), packed("two")].concat();
        assert_eq!(Gunzip::new().feed(&two, true).unwrap(), "one two");
        assert_eq!(Gunzip::new().feed(&[], true).unwrap(), "");
    }
}
