//! Packs the body of a response, piece by piece as it streams by.

use std::io::{self, Write};

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use zstd::stream::write::Encoder as ZstdEncoder;

use crate::middleware::compression::Recipe;
use crate::middleware::encodings::Coding;

/// Encoder of one response. Its memory is bounded, whatever the body: some hundred KiB.
pub struct Encoder {
    packer: Packer,
    /// Whether each piece has to be with the client before the next one is there.
    flushes: bool,
    /// What is missing of a body of known length.
    missing: Option<u64>,
    ended: bool,
}

enum Packer {
    Gzip(GzEncoder<Vec<u8>>),
    /// `None` when it has ended.
    Brotli(Option<Box<CompressorWriter<Vec<u8>>>>),
    Zstd(ZstdEncoder<'static, Vec<u8>>),
}

impl Encoder {
    /// An encoder at the start of a body; of a body of known length, what is packed goes out when there is enough of it.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new(recipe: Recipe, length: Option<u64>) -> io::Result<Encoder> {
        let level = recipe.level;
        let packer = match recipe.coding {
            Coding::Gzip => Packer::Gzip(GzEncoder::new(Vec::new(), Compression::new(level.unsigned_abs()))),
            Coding::Br => {
                let params = BrotliEncoderParams {
                    quality: level,
                    lgwin: window(length).max(BROTLI_NARROWEST),
                    size_hint: length.and_then(|length| usize::try_from(length).ok()).unwrap_or(0),
                    ..BrotliEncoderParams::default()
                };
                Packer::Brotli(Some(Box::new(CompressorWriter::with_params(Vec::new(), 4096, &params))))
            }
            Coding::Zstd => {
                let mut encoder = ZstdEncoder::new(Vec::new(), level)?;
                encoder.window_log(window(length).unsigned_abs())?;
                Packer::Zstd(encoder)
            }
        };
        Ok(Encoder { packer, flushes: length.is_none(), missing: length, ended: false })
    }

    /// Takes a piece of the body, returns what is to be sent now: maybe nothing. A body of known length ends with its last byte,
    /// since Pingora does not tell the end of one that it reads from the cache.
    ///
    /// # Errors
    /// When a coder fails, which is a mistake of ours.
    pub fn feed(&mut self, piece: &[u8], end: bool) -> io::Result<Bytes> {
        if self.ended {
            return Ok(Bytes::new());
        }
        if let Some(missing) = &mut self.missing {
            *missing = missing.saturating_sub(piece.len() as u64);
        }
        self.ended = end || self.missing == Some(0);
        self.pack(piece, self.ended)
    }

    fn pack(&mut self, piece: &[u8], end: bool) -> io::Result<Bytes> {
        match &mut self.packer {
            Packer::Gzip(gzip) => {
                gzip.write_all(piece)?;
                match (end, self.flushes && !piece.is_empty()) {
                    (true, _) => gzip.try_finish()?,
                    (false, true) => gzip.flush()?,
                    (false, false) => {}
                }
                Ok(std::mem::take(gzip.get_mut()).into())
            }
            Packer::Zstd(zstd) => {
                zstd.write_all(piece)?;
                match (end, self.flushes && !piece.is_empty()) {
                    (true, _) => zstd.do_finish()?,
                    (false, true) => zstd.flush()?,
                    (false, false) => {}
                }
                Ok(std::mem::take(zstd.get_mut()).into())
            }
            Packer::Brotli(brotli) => {
                let Some(writer) = brotli else { return Ok(Bytes::new()) };
                writer.write_all(piece)?;
                if end {
                    return Ok(brotli.take().map_or_else(Bytes::new, |writer| writer.into_inner().into()));
                }
                if self.flushes && !piece.is_empty() {
                    writer.flush()?;
                }
                Ok(std::mem::take(writer.get_mut()).into())
            }
        }
    }

    /// Packs a whole body.
    ///
    /// # Errors
    /// When a coder fails, which is a mistake of ours.
    pub fn whole(recipe: Recipe, body: &[u8]) -> io::Result<Bytes> {
        Encoder::new(recipe, Some(body.len() as u64))?.feed(body, true)
    }
}

/// How far back a coder looks, as a power of two: no further than the body is long, and at most 512 KiB, which bounds its
/// memory and that of the client.
fn window(length: Option<u64>) -> i32 {
    let needed = length.map_or(WIDEST, |length| u64::BITS - length.leading_zeros());
    needed.clamp(NARROWEST, WIDEST).cast_signed()
}

const NARROWEST: u32 = 14;
const WIDEST: u32 = 19;
/// With a smaller window, this coder takes another way that costs ten times as much from level 5 on.
const BROTLI_NARROWEST: i32 = 17;

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    const CODINGS: [Coding; 3] = [Coding::Zstd, Coding::Br, Coding::Gzip];

    pub(crate) fn unpacked(coding: Coding, packed: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(packed).read_to_end(&mut plain).map(drop),
            Coding::Br => brotli::Decompressor::new(packed, 4096).read_to_end(&mut plain).map(drop),
            Coding::Zstd => zstd::stream::copy_decode(packed, &mut plain),
        }
        .expect("a whole body");
        plain
    }

    #[test]
    fn a_body_of_known_length_ends_with_its_last_byte() {
        for coding in CODINGS {
            let mut encoder = Encoder::new(Recipe { coding, level: 3 }, Some(9)).unwrap();
            let packed = [encoder.feed(b"first", false).unwrap(), encoder.feed(b"last", false).unwrap()].concat();
            assert_eq!(unpacked(coding, &packed), b"firstlast", "{coding:?}");
            assert!(encoder.feed(&[], true).unwrap().is_empty(), "{coding:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_body_in_any_pieces_comes_out_as_it_went_in(
            pieces in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..2000),
                    ("[a-c ]{0,20}", 0usize..500).prop_map(|(text, times)| text.repeat(times).into_bytes()),
                ],
                0..12,
            ),
            level in 1i32..=9,
            known in any::<bool>(),
            end_alone in any::<bool>(),
        ) {
            let body = pieces.concat();
            for coding in CODINGS {
                let length = known.then_some(body.len() as u64);
                let mut encoder = Encoder::new(Recipe { coding, level }, length).unwrap();
                let mut packed = Vec::new();
                for (index, piece) in pieces.iter().enumerate() {
                    packed.extend_from_slice(&encoder.feed(piece, !end_alone && index + 1 == pieces.len()).unwrap());
                }
                if end_alone || pieces.is_empty() {
                    packed.extend_from_slice(&encoder.feed(&[], true).unwrap());
                }
                prop_assert_eq!(unpacked(coding, &packed), body.clone());
                prop_assert_eq!(unpacked(coding, &Encoder::whole(Recipe { coding, level }, &body).unwrap()), body.clone());
            }
        }
    }

    #[test]
    fn a_piece_of_unknown_length_can_be_read_before_the_next_one() {
        for coding in CODINGS {
            let mut encoder = Encoder::new(Recipe { coding, level: 4 }, None).unwrap();
            let mut packed = Vec::new();
            for (index, piece) in ["{\"a\":1}\n", "{\"b\":2}\n"].into_iter().enumerate() {
                packed.extend_from_slice(&encoder.feed(piece.as_bytes(), false).unwrap());
                let mut readable = [0; 16];
                let expected = &b"{\"a\":1}\n{\"b\":2}\n"[..8 * (index + 1)];
                let readable = &mut readable[..expected.len()];
                let read = match coding {
                    Coding::Gzip => flate2::read::GzDecoder::new(&packed[..]).read_exact(readable),
                    Coding::Br => brotli::Decompressor::new(&packed[..], 4096).read_exact(readable),
                    Coding::Zstd => zstd::stream::read::Decoder::new(&packed[..]).unwrap().read_exact(readable),
                };
                assert!(read.is_ok() && readable == expected, "{coding:?}");
            }
        }
    }

    #[test]
    fn a_body_of_known_length_is_packed_better_than_piece_by_piece() {
        let line = b"the same words again and again, and some others\n";
        for coding in CODINGS {
            let size = |length| {
                let mut encoder = Encoder::new(Recipe { coding, level: 4 }, length).unwrap();
                let pieces: usize = (0..200).map(|_| encoder.feed(line, false).unwrap().len()).sum();
                pieces + encoder.feed(&[], true).unwrap().len()
            };
            assert!(size(Some(200 * line.len() as u64)) * 2 < size(None), "{coding:?}");
        }
    }
}
