//! Unpacks a gzip response for a client that did not ask for one.
//!
//! As Goma does, a request without `Accept-Encoding` goes upstream with `gzip`, which saves bandwidth to the backend; the
//! client gets the plain body. Spec core §5.1.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::GzDecoder;

/// Decoder of one response, fed as the body streams by.
pub struct Gunzip(GzDecoder<Vec<u8>>);

impl Gunzip {
    /// A decoder at the start of a body.
    pub fn new() -> Gunzip {
        Gunzip(GzDecoder::new(Vec::new()))
    }

    /// Takes a piece of the packed body, returns what it unpacks to.
    ///
    /// # Errors
    /// When the body is not gzip or ends midway.
    pub fn feed(&mut self, packed: &[u8], end: bool) -> io::Result<Bytes> {
        self.0.write_all(packed)?;
        if end {
            self.0.try_finish()?;
        }
        Ok(std::mem::take(self.0.get_mut()).into())
    }
}

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
}
