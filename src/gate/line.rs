//! What a field line and a target may hold, byte by byte.
//!
//! Shared by heads, trailers and HTTP/2 semantics, so that the three cannot drift apart.

use super::Refusal;

/// A character of a token (RFC 9110 §5.6.2): method, field name, connection option, transfer coding.
pub(super) fn is_token_byte(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// A non-empty run of token characters.
pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().copied().all(is_token_byte)
}

/// A byte that a field value may hold: visible, space, tab, or above 0x7F (`obs-text`, forwarded untouched).
pub(super) fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7F)
}

/// Value without the optional spaces and tabs around it.
pub(super) fn trim(value: &[u8]) -> &[u8] {
    let start = value.iter().position(|byte| !is_blank(*byte));
    let end = value.iter().rposition(|byte| !is_blank(*byte));
    match (start, end) {
        (Some(start), Some(end)) => &value[start..=end],
        _ => &[],
    }
}

/// The elements of a comma-separated list, trimmed; empty ones are kept, the caller decides about them.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim)
}

pub(super) fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Checks every byte of a request target, and that it has no fragment.
///
/// Control characters, spaces and bytes above 0x7F are refused. Other characters that RFC 3986 wants encoded
/// (`"<>\^{|}` and the backquote) are let through as they are: browsers and many clients send them, and all parsers agree
/// where such a target ends.
///
/// # Errors
/// 400 on the first byte that does not belong.
pub(super) fn check_target(target: &[u8]) -> Result<(), Refusal> {
    for byte in target {
        match byte {
            b'#' => return Err(Refusal::bad_request("fragment in the request target")),
            0x21..=0x7E => {}
            0x80.. => {
                return Err(Refusal::bad_request("byte above 0x7F in the request target"));
            }
            _ => {
                return Err(Refusal::bad_request("space or control character in the request target"));
            }
        }
    }
    Ok(())
}

/// Content-Length as a number: digits only, no sign, no list, no leading zero, at most 2⁶³ − 1.
///
/// A leading zero is legal, but some parsers take it for octal; nobody sends it in good faith.
///
/// # Errors
/// 400 for anything else.
pub(super) fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    let malformed = Refusal::bad_request("Content-Length is not a plain decimal number");
    if value.is_empty() || value.len() > 19 || (value[0] == b'0' && value.len() > 1) {
        return Err(malformed);
    }
    let mut length = 0_u64;
    for byte in value {
        if !byte.is_ascii_digit() {
            return Err(malformed);
        }
        // Nineteen nines are below 2⁶⁴, so this cannot overflow.
        length = length * 10 + u64::from(byte - b'0');
    }
    match i64::try_from(length) {
        Ok(_) => Ok(length),
        Err(_) => Err(malformed),
    }
}

/// A framing field spelled with an underscore, which CGI-like backends read as the real one.
pub(super) fn is_disguised_framing(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"content_length") || name.eq_ignore_ascii_case(b"transfer_encoding")
}

/// Fields that say where a message ends, whom it is for or how the connection goes on: never in a trailer.
pub(super) fn is_forbidden_in_trailer(name: &[u8]) -> bool {
    const FORBIDDEN: [&[u8]; 12] = [
        b"connection",
        b"content-length",
        b"content-encoding",
        b"content_length",
        b"expect",
        b"host",
        b"keep-alive",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"transfer_encoding",
        b"upgrade",
    ];
    FORBIDDEN.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden))
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let punctuation = b"!#$%&'*+-.^_`|~";
    let mut i = 0;
    while i < punctuation.len() {
        table[punctuation[i] as usize] = true;
        i += 1;
    }
    let mut byte = 0;
    while byte < 128 {
        if (byte as u8).is_ascii_alphanumeric() {
            table[byte] = true;
        }
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_length_has_one_reading() {
        let rows: [(&str, &[u8], Option<u64>); 11] = [
            ("zero", b"0", Some(0)),
            ("plain", b"1234", Some(1234)),
            ("the largest", b"9223372036854775807", Some(i64::MAX.cast_unsigned())),
            ("one more than that", b"9223372036854775808", None),
            ("overflow", b"18446744073709551616", None),
            ("empty", b"", None),
            ("sign", b"+5", None),
            ("minus", b"-5", None),
            ("list", b"5,5", None),
            ("hexadecimal", b"0x5", None),
            ("leading zero", b"05", None),
        ];
        for (what, value, expected) in rows {
            assert_eq!(content_length(value).ok(), expected, "{what}");
        }
    }

    #[test]
    fn a_target_holds_visible_ascii_only() {
        let rows: [(&str, &[u8], bool); 8] = [
            ("plain", b"/a?b=c", true),
            ("characters clients forget to encode", b"/a\"<>\\^`{|}", true),
            ("space", b"/a b", false),
            ("tab", b"/a\tb", false),
            ("NUL", b"/a\0b", false),
            ("DEL", b"/a\x7fb", false),
            ("UTF-8", "/é".as_bytes(), false),
            ("fragment", b"/a#b", false),
        ];
        for (what, target, expected) in rows {
            assert_eq!(check_target(target).is_ok(), expected, "{what}");
        }
    }

    #[test]
    fn optional_blanks_are_not_part_of_a_value() {
        assert_eq!(trim(b" \ta b\t "), b"a b");
        assert_eq!(trim(b" \t "), b"");
        let parts: Vec<&[u8]> = list(b"a, b ,,c").collect();
        assert_eq!(parts, [&b"a"[..], b"b", b"", b"c"]);
    }
}
