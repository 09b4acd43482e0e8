//! As much of DER as OCSP needs. X.690 §8 and §10: definite lengths, tags of one byte.

/// Reads values one after the other.
#[derive(Clone, Copy)]
pub struct Reader<'a>(&'a [u8]);

/// A value.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    /// Its tag.
    pub tag: u8,
    /// What is in it.
    pub content: &'a [u8],
    /// With tag and length.
    pub whole: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Of these values.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    /// Whether there is no further one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next value; `None` at the end, and where there is none that can be read.
    pub fn next(&mut self) -> Option<Value<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x83 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
            }
            _ => return None,
        };
        let (content, after) = rest.split_at_checked(length)?;
        // A tag of several bytes; OCSP has none.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let whole = &self.0[..self.0.len() - after.len()];
        self.0 = after;
        Some(Value { tag, content, whole })
    }

    /// The content of the next value, which has to have this tag.
    pub fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|value| value.tag == tag).map(|value| value.content)
    }

    /// The content of the next value if it has this tag; otherwise it stays the next one.
    pub fn optional(&mut self, tag: u8) -> Option<&'a [u8]> {
        if self.0.first() == Some(&tag) { self.take(tag) } else { None }
    }
}

/// The values in a sequence that is all there is.
pub fn sequence(bytes: &[u8]) -> Option<Reader<'_>> {
    let mut reader = Reader(bytes);
    let content = reader.take(SEQUENCE)?;
    reader.is_empty().then_some(Reader(content))
}

/// A value of these parts.
pub fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = vec![tag];
    match length {
        0..=0x7f => bytes.push(length as u8),
        0x80..=0xff => bytes.extend([0x81, length as u8]),
        _ => bytes.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// INTEGER.
pub const INTEGER: u8 = 0x02;
/// BIT STRING.
pub const BIT_STRING: u8 = 0x03;
/// OCTET STRING.
pub const OCTET_STRING: u8 = 0x04;
/// OBJECT IDENTIFIER.
pub const OID: u8 = 0x06;
/// ENUMERATED.
pub const ENUMERATED: u8 = 0x0a;
/// BOOLEAN.
pub const BOOLEAN: u8 = 0x01;
/// GeneralizedTime.
pub const TIME: u8 = 0x18;
/// SEQUENCE.
pub const SEQUENCE: u8 = 0x30;

/// `[number]` around something.
pub const fn explicit(number: u8) -> u8 {
    0xa0 | number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff] {
            let written = value(OCTET_STRING, &[&vec![7; length]]);
            let mut reader = Reader::new(&written);
            let read = reader.next().expect("a value");
            assert_eq!((read.tag, read.content.len(), read.whole.len()), (OCTET_STRING, length, written.len()));
            assert!(reader.is_empty() && reader.next().is_none());
        }
    }

    #[test]
    fn what_is_cut_off_or_odd_is_no_value() {
        for bytes in
            [&[][..], &[0x30], &[0x30, 1], &[0x30, 0x80, 0, 0], &[0x30, 0x82, 1], &[0x1f, 1, 0], &[4, 0x84, 0, 0, 0, 0]]
        {
            assert!(Reader::new(bytes).next().is_none(), "{bytes:?}");
        }
        assert!(sequence(&[0x30, 0, 0]).is_none(), "something follows");
        let mut reader = Reader::new(&[2, 1, 5, 4, 0]);
        assert!(reader.optional(OCTET_STRING).is_none());
        assert_eq!(reader.take(INTEGER), Some(&[5][..]));
        assert_eq!(reader.optional(OCTET_STRING), Some(&[][..]));
    }
}
