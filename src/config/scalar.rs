//! What a scalar means where a boolean, a number or a string is wanted.
//!
//! The document follows Goma's YAML library: a bare `yes` is a boolean where one is wanted, `0x1f`, `0o17`, `017` and
//! `1_000` are whole numbers, and a quoted number is not a number. The `rule` of a middleware follows the rulings for
//! rules: quoted whole numbers count.

use super::node::{Node, Scalar, Style, Value};

/// Which laxness applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The document itself.
    Document,
    /// The `rule` of a middleware.
    Rules,
}

/// A whole number, as wide as both readings.
pub type Whole = i128;

/// A number read for a whole-number field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// As written.
    Whole(Whole),
    /// Written with a fraction; Goma cuts it off.
    Cut(Whole),
}

/// What can be said of a node when something else was wanted. Shows short values, never sealed ones.
pub fn describe(node: &Node) -> String {
    match &node.value {
        Value::Null => "nothing".to_owned(),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a map".to_owned(),
        Value::Scalar(Scalar { text, style }) => match style {
            Style::Sealed => "an encrypted value".to_owned(),
            _ if text.chars().count() > 40 || text.contains('\n') => "a long text".to_owned(),
            Style::Quoted => format!("the quoted \"{text}\""),
            Style::Plain => format!("\"{text}\""),
        },
    }
}

/// A boolean. Goma's library reads the old words quoted or not, but `true` and `false` only without quotes.
pub fn boolean(scalar: &Scalar) -> Option<bool> {
    match scalar.text.as_str() {
        "true" | "True" | "TRUE" if scalar.style != Style::Quoted => Some(true),
        "false" | "False" | "FALSE" if scalar.style != Style::Quoted => Some(false),
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// A whole number.
pub fn whole(scalar: &Scalar, mode: Mode) -> Option<Number> {
    if scalar.style == Style::Quoted && mode == Mode::Document {
        return None;
    }
    if let Some(number) = integer(&scalar.text) {
        return Some(Number::Whole(number));
    }
    let number = float(scalar, mode)?;
    // Beyond 2⁵³ a float no longer says which whole number is meant.
    if !number.is_finite() || number.abs() > 9_007_199_254_740_992.0 {
        return None;
    }
    #[allow(clippy::cast_possible_truncation)] // In range: checked above.
    let cut = number.trunc() as Whole;
    match mode {
        _ if number.fract() == 0.0 => Some(Number::Whole(cut)),
        Mode::Document => Some(Number::Cut(cut)),
        Mode::Rules => None,
    }
}

/// A number that may have a fraction.
pub fn float(scalar: &Scalar, mode: Mode) -> Option<f64> {
    if scalar.style == Style::Quoted && mode == Mode::Document {
        return None;
    }
    let text = scalar.text.replace('_', "");
    match text.as_str() {
        ".inf" | ".Inf" | ".INF" | "+.inf" => return Some(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Some(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        _ => {}
    }
    // Rust also reads words such as "infinity"; YAML does not.
    let numeric = text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first))
        && text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    if numeric { text.parse().ok() } else { None }
}

fn integer(text: &str) -> Option<Whole> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let digits = digits.replace('_', "").to_ascii_lowercase();
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x', ..] => (16, &digits[2..]),
        [b'0', b'o', ..] => (8, &digits[2..]),
        [b'0', b'b', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits.as_str()),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let number = i64::from_str_radix(digits, radix).map(Whole::from);
    let number = number.or_else(|_| u64::from_str_radix(digits, radix).map(Whole::from)).ok()?;
    Some(if negative { -number } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Scalar {
        Scalar { text: text.into(), style: Style::Plain }
    }

    fn quoted(text: &str) -> Scalar {
        Scalar { text: text.into(), style: Style::Quoted }
    }

    #[test]
    fn whole_numbers_are_read_as_goma_reads_them() {
        use Number::{Cut, Whole};
        let table = [
            ("decimal", plain("42"), Some(Whole(42))),
            ("negative", plain("-1"), Some(Whole(-1))),
            ("sign", plain("+7"), Some(Whole(7))),
            ("hexadecimal", plain("0x1F"), Some(Whole(31))),
            ("octal", plain("0o17"), Some(Whole(15))),
            ("old octal", plain("017"), Some(Whole(15))),
            ("binary", plain("0b101"), Some(Whole(5))),
            ("underscores", plain("1_000_000"), Some(Whole(1_000_000))),
            ("a whole float", plain("1e3"), Some(Whole(1000))),
            ("the largest", plain("18446744073709551615"), Some(Whole(18_446_744_073_709_551_615))),
            ("a fraction", plain("1.5"), Some(Cut(1))),
            ("quoted", quoted("42"), None),
            ("a word", plain("ten"), None),
            ("a unit", plain("10s"), None),
            ("two signs", plain("0x-1"), None),
            ("zero", plain("0"), Some(Whole(0))),
            ("nine is no octal digit", plain("09"), Some(Whole(9))),
        ];
        for (what, scalar, number) in table {
            assert_eq!(whole(&scalar, Mode::Document), number, "{what}");
        }
        assert_eq!(whole(&quoted("42"), Mode::Rules), Some(Whole(42)), "rules take quoted numbers");
        assert_eq!(whole(&plain("1.5"), Mode::Rules), None, "rules take no fraction");
    }

    #[test]
    fn booleans_are_read_as_goma_reads_them() {
        for (text, value) in [("true", true), ("yes", true), ("On", true), ("y", true), ("off", false), ("N", false)] {
            assert_eq!(boolean(&plain(text)), Some(value), "{text}");
        }
        for scalar in [plain("1"), plain("ja"), plain("tRue"), quoted("true")] {
            assert_eq!(boolean(&scalar), None, "{scalar:?}");
        }
        assert_eq!(boolean(&quoted("yes")), Some(true), "quoted old words count in Goma");
    }
}
