//! Durations, sizes and other texts with a unit, as the configuration writes them.

use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error};

/// Longest duration a setting may name: a hundred years, so that sums of instants cannot overflow.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A Go duration: `30s`, `1m30s`, `1.5h`, `250ms`; units ns, us, µs, ms, s, m, h. Not negative.
///
/// # Errors
/// A sentence for the operator, with the remedy behind a semicolon.
pub fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" || text == "+0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err("is empty; write a duration like 30s".to_owned());
    }
    if text.starts_with('-') {
        return Err("must not be negative".to_owned());
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("\"{text}\" is a duration without a unit; write {text}s for seconds"));
    }
    nanoseconds(text.strip_prefix('+').unwrap_or(text))
        .map(|nanos| Duration::from_nanos(nanos).min(LONGEST))
        .ok_or_else(|| "is not a duration; write it like 30s, 1m30s or 250ms".to_owned())
}

fn nanoseconds(mut text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    if text.is_empty() {
        return None;
    }
    while !text.is_empty() {
        let end = text.find(|at: char| !at.is_ascii_digit() && at != '.')?;
        let (number, rest) = text.split_at(end);
        let end = rest.find(|at: char| at.is_ascii_digit() || at == '.').unwrap_or(rest.len());
        let (unit, rest) = rest.split_at(end);
        let scale: u64 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        total = total.checked_add(scaled(number, scale)?)?;
        text = rest;
    }
    (total < i64::MAX as u64).then_some(total)
}

/// A decimal number times a scale, fractions of a nanosecond cut off.
fn scaled(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let mut value = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()?.checked_mul(scale)? };
    let mut scale = scale;
    for digit in fraction.bytes().map(|digit| u64::from(digit - b'0')) {
        // Twelve digits behind the point still matter for hours; then the scale is used up.
        value = value.checked_add(digit * scale / 10)?;
        scale /= 10;
    }
    Some(value)
}

/// A size in bytes: a bare number, or one with `Ki`, `Mi`, `Gi` and so on to `Ei` (1024), or `K`, `M`, `G` and so on to `E`
/// (1000), each also with a `B`.
///
/// # Errors
/// A sentence for the operator, with the remedy behind a semicolon.
pub fn bytes(text: &str) -> Result<u64, String> {
    let end = text.find(|at: char| !at.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let scale: u64 = match unit.strip_suffix('B').unwrap_or(unit) {
        "" if unit.is_empty() => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        "Ei" => 1 << 60,
        "K" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "E" => 1_000_000_000_000_000_000,
        _ => 0,
    };
    let size = number.parse::<u64>().ok().filter(|_| scale > 0).and_then(|number| number.checked_mul(scale));
    size.ok_or_else(|| "is not a size; write it like 64Ki or 1Mi".to_owned())
}

/// A size in bytes that has to say its unit: in Goma, a middleware with a bare number had no limit.
///
/// # Errors
/// A sentence for the operator, with the remedy behind a semicolon.
pub fn size_with_unit(text: &str) -> Result<u64, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("is a size without a unit; write it like 64Ki or 1Mi".to_owned());
    }
    bytes(text)
}

/// For fields in whole seconds where 0 means "none".
pub(super) fn seconds<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Duration>, D::Error> {
    let seconds = u64::deserialize(value)?;
    Ok(Some(Duration::from_secs(seconds).min(LONGEST)).filter(|time| !time.is_zero()))
}

/// For fields that hold a Go duration.
pub(super) fn go_duration<'de, D: Deserializer<'de>>(value: D) -> Result<Duration, D::Error> {
    duration(&String::deserialize(value)?).map_err(Error::custom)
}

/// For fields that hold a Go duration and where an empty text means the default.
pub(super) fn filled_duration<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Duration>, D::Error> {
    match filled(value)? {
        Some(text) => duration(&text).map(Some).map_err(Error::custom),
        None => Ok(None),
    }
}

/// For fields that hold a size in bytes.
pub(super) fn size<'de, D: Deserializer<'de>>(value: D) -> Result<usize, D::Error> {
    let size = bytes(&String::deserialize(value)?).map_err(Error::custom)?;
    usize::try_from(size).map_err(|_| Error::custom("is too large for this machine"))
}

/// For texts where empty means absent.
pub(super) fn filled<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    Ok(Some(String::deserialize(value)?).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let table = [
            ("30s", Some(Duration::from_secs(30))),
            ("1m30s", Some(Duration::from_secs(90))),
            ("1.5h", Some(Duration::from_secs(5400))),
            ("250ms", Some(Duration::from_millis(250))),
            (".5s", Some(Duration::from_millis(500))),
            ("1h15m30.918273645s", Some(Duration::from_nanos(4_530_918_273_645))),
            ("5µs", Some(Duration::from_micros(5))),
            ("0", Some(Duration::ZERO)),
            ("0s", Some(Duration::ZERO)),
            ("30", None),
            ("", None),
            ("-1s", None),
            ("s", None),
            (".s", None),
            ("1d", None),
            ("1.2.3s", None),
            ("99999999999h", None),
        ];
        for (text, value) in table {
            assert_eq!(duration(text).ok(), value, "{text:?}");
        }
        assert_eq!(duration("30").unwrap_err(), "\"30\" is a duration without a unit; write 30s for seconds");
    }

    #[test]
    fn sizes_carry_their_unit() {
        let table = [
            ("65536", Some(65536)),
            ("64Ki", Some(65536)),
            ("64KiB", Some(65536)),
            ("1M", Some(1_000_000)),
            ("1MB", Some(1_000_000)),
            ("2Gi", Some(2 << 30)),
            ("3TiB", Some(3 << 40)),
            ("1PB", Some(1_000_000_000_000_000)),
            ("15Ei", Some(15 << 60)),
            ("16Ei", None),
            ("1B", None),
            ("64k", None),
            ("1.5Mi", None),
            ("-1", None),
            ("", None),
            ("99999999999999Gi", None),
        ];
        for (text, value) in table {
            assert_eq!(bytes(text).ok(), value, "{text:?}");
        }
    }
}
