//! Claims: found by a path, and written as text the way Goma writes them.
//!
//! Spec middlewares §5.7.2 and §5.7.3. Whole numbers keep all their digits where they are forwarded; Goma rounds those above
//! 2^53, which turns long user numbers into those of somebody else.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use super::claim::Claim;

/// Where a claim is: names from the outside in. A name that holds a dot cannot be reached.
#[derive(Debug)]
pub struct ClaimPath(Box<[Box<str>]>);

impl ClaimPath {
    /// The path that a text names, split at every dot; `None` for an empty one.
    pub fn new(text: &str) -> Option<ClaimPath> {
        (!text.is_empty()).then(|| ClaimPath(text.split('.').map(Box::from).collect()))
    }

    /// The claim, if the token has it.
    pub fn find<'c, 'a>(&self, claims: &'c Claim<'a>) -> Option<&'c Claim<'a>> {
        self.0.iter().try_fold(claims, |value, name| value.get(name))
    }
}

/// A claim as text for comparisons.
pub fn text<'c>(value: &'c Claim<'_>) -> Cow<'c, str> {
    match value {
        Claim::Text(text) => Cow::Borrowed(text),
        other => {
            let mut out = String::new();
            write_value(&mut out, other);
            Cow::Owned(out)
        }
    }
}

/// A claim as the value of a header; `None` when there is nothing to say.
pub fn forwarded<'c>(value: &'c Claim<'_>) -> Option<Cow<'c, str>> {
    let text = match value {
        Claim::Number(number) => Cow::Owned(rounded(number)),
        Claim::List(items) => Cow::Owned(joined(items)),
        other => text(other),
    };
    (!text.is_empty()).then_some(text)
}

fn joined(items: &[Claim<'_>]) -> String {
    let mut out = String::new();
    for (place, item) in items.iter().enumerate() {
        out.push_str(if place > 0 { "," } else { "" });
        write_value(&mut out, item);
    }
    out
}

fn write_value(out: &mut String, value: &Claim<'_>) {
    match value {
        Claim::Null => out.push_str("<nil>"),
        Claim::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Claim::Number(number) => out.push_str(&shortest(number.as_f64().unwrap_or(f64::NAN))),
        Claim::Text(text) => out.push_str(text),
        Claim::List(items) => write_list(out, "[", items.iter().map(|item| (None, item))),
        Claim::Object(members) => {
            let members: BTreeMap<&str, &Claim<'_>> = members.iter().map(|(name, value)| (&**name, value)).collect();
            write_list(out, "map[", members.into_iter().map(|(name, value)| (Some(name), value)));
        }
    }
}

fn write_list<'a>(out: &mut String, open: &str, items: impl Iterator<Item = (Option<&'a str>, &'a Claim<'a>)>) {
    out.push_str(open);
    for (place, (name, value)) in items.enumerate() {
        out.push_str(if place > 0 { " " } else { "" });
        if let Some(name) = name {
            out.push_str(name);
            out.push(':');
        }
        write_value(out, value);
    }
    out.push(']');
}

/// A number with the fewest digits that give it back: plain from 1e-4 up to 1e6, else with an exponent of two digits or more.
fn shortest(number: f64) -> String {
    if number == 0.0 || (1e-4..1e6).contains(&number.abs()) {
        return number.to_string();
    }
    let text = format!("{number:e}");
    let Some((digits, exponent)) = text.split_once('e') else {
        return text;
    };
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// A number without decimals.
fn rounded(number: &serde_json::Number) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = match number.as_f64() {
        Some(float) if number.is_f64() => write!(out, "{float:.0}"),
        _ => write!(out, "{number}"),
    };
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_are_found_by_their_path() {
        let value = json!({"a": {"b": {"c": 1}}, "d.e": 2, "f": null, "": {"x": 3}});
        let claims = Claim::from(&value);
        for (path, found) in [
            ("a.b.c", Some(json!(1))),
            ("a.b", Some(json!({"c": 1}))),
            ("a.x", None),
            ("a.b.c.d", None),
            ("d.e", None),
            ("f", Some(json!(null))),
            ("f.g", None),
            (".x", Some(json!(3))),
        ] {
            assert_eq!(
                ClaimPath::new(path).expect("a path").find(&claims),
                found.as_ref().map(Claim::from).as_ref(),
                "{path}"
            );
        }
        assert!(ClaimPath::new("").is_none());
    }

    #[test]
    fn numbers_read_as_goma_writes_them() {
        for (number, expected) in [
            (json!(0), "0"),
            (json!(1), "1"),
            (json!(-7), "-7"),
            (json!(999_999), "999999"),
            (json!(1_000_000), "1e+06"),
            (json!(1_234_567), "1.234567e+06"),
            (json!(-1_234_567), "-1.234567e+06"),
            (json!(123_456_789_012_i64), "1.23456789012e+11"),
            (json!(123_456.7), "123456.7"),
            (json!(0.0001), "0.0001"),
            (json!(0.00001), "1e-05"),
            (json!(1.5e-7), "1.5e-07"),
            (json!(1e21), "1e+21"),
            (json!(1e100), "1e+100"),
            (json!(3.0), "3"),
            (json!(2.5), "2.5"),
        ] {
            assert_eq!(text(&Claim::from(&number)), expected, "{number}");
        }
    }

    #[test]
    fn other_claims_read_as_goma_writes_them() {
        for (claim, expected) in [
            (json!("x"), "x"),
            (json!(true), "true"),
            (json!(null), "<nil>"),
            (json!({"k2": "v2", "k": "v"}), "map[k:v k2:v2]"),
            (json!({"a": [1, "x", null], "b": {}}), "map[a:[1 x <nil>] b:map[]]"),
        ] {
            assert_eq!(text(&Claim::from(&claim)), expected, "{claim}");
        }
    }

    #[test]
    fn forwarded_claims_have_a_form_of_their_own() {
        for (claim, expected) in [
            (json!("ann"), Some("ann")),
            (json!(""), None),
            (json!(3.7), Some("4")),
            (json!(2.5), Some("2")),
            (json!(1_234_567), Some("1234567")),
            (json!(9_007_199_254_740_993_i64), Some("9007199254740993")),
            (json!(1e6), Some("1000000")),
            (json!(true), Some("true")),
            (json!(["a", "b"]), Some("a,b")),
            (json!(["a", 1, true]), Some("a,1,true")),
            (json!([]), None),
            (json!(null), Some("<nil>")),
            (json!({"b": 1, "a": "x"}), Some("map[a:x b:1]")),
        ] {
            assert_eq!(forwarded(&Claim::from(&claim)).as_deref(), expected, "{claim}");
        }
    }
}
