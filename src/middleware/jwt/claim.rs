//! The values of a token's claims. Texts are borrowed from what was decoded: most claims are looked at once and forgotten.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Claim<'a> {
    /// Nothing.
    Null,
    /// A truth.
    Bool(bool),
    /// A number, whole ones with all their digits.
    Number(Number),
    /// A text.
    Text(Cow<'a, str>),
    /// A list.
    List(Vec<Claim<'a>>),
    /// An object; of several members with one name the last counts.
    Object(Vec<(Cow<'a, str>, Claim<'a>)>),
}

impl<'a> Claim<'a> {
    /// The member of an object.
    pub fn get(&self, name: &str) -> Option<&Claim<'a>> {
        match self {
            Claim::Object(members) => members.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// Whether it is this text.
    pub fn is(&self, text: &str) -> bool {
        matches!(self, Claim::Text(own) if own == text)
    }

    /// A number, with the digits that a float has.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Claim::Number(number) => number.as_f64(),
            _ => None,
        }
    }
}

/// Reads what a token claims; `None` when it is no object of JSON.
pub fn read(text: &str) -> Option<Claim<'_>> {
    serde_json::from_str(text).ok().filter(|claims| matches!(claims, Claim::Object(_)))
}

impl<'a> From<&'a Value> for Claim<'a> {
    fn from(value: &'a Value) -> Claim<'a> {
        match value {
            Value::Null => Claim::Null,
            Value::Bool(truth) => Claim::Bool(*truth),
            Value::Number(number) => Claim::Number(number.clone()),
            Value::String(text) => Claim::Text(Cow::Borrowed(text)),
            Value::Array(items) => Claim::List(items.iter().map(Claim::from).collect()),
            Value::Object(members) => {
                Claim::Object(members.iter().map(|(name, value)| (Cow::Borrowed(&**name), value.into())).collect())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Claim<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Claim<'de>, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Claim<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a value of JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Claim<'de>, E> {
        Ok(Claim::Null)
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Claim<'de>, E> {
        Ok(Claim::Bool(truth))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Claim<'de>, E> {
        Ok(Claim::Number(number.into()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Claim<'de>, E> {
        Ok(Claim::Number(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Claim<'de>, E> {
        Ok(Number::from_f64(number).map_or(Claim::Null, Claim::Number))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Claim<'de>, E> {
        Ok(Claim::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Claim<'de>, E> {
        Ok(Claim::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Claim<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Claim::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Claim<'de>, A::Error> {
        let mut members = Vec::with_capacity(USUAL);
        while let Some(name) = access.next_key_seed(Name)? {
            members.push((name, access.next_value()?));
        }
        Ok(Claim::Object(members))
    }
}

/// Members that an object has room for at first.
const USUAL: usize = 8;

/// Reads the name of a member.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a name")
    }

    fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn any(text: &str) -> Result<Claim<'_>, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn values_are_read_as_they_are() {
        for value in [
            json!({"a": [1, -2, 2.5, "x", null, true, {"b": {}}], "é\n": "\u{1F600}\"\\", "n": 18_446_744_073_709_551_615_u64}),
            json!(null),
            json!([[], {}]),
        ] {
            let text = value.to_string();
            assert_eq!(any(&text).expect("JSON"), Claim::from(&value), "{text}");
        }
        let twice = any("{\"a\": 1, \"b\": 2, \"a\": 3}").expect("JSON");
        assert_eq!(twice.get("a"), Some(&Claim::Number(3.into())), "the last counts");
        assert_eq!((twice.get("c"), any("7").expect("JSON").get("a")), (None, None));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["", "[]", "1", "\"x\"", "{", "{}x", "{\"a\":1,}", "{a:1}", "{\"a\":1e999}", "{\"a\":\"\u{1}\"}"] {
            assert_eq!(read(text), None, "{text}");
        }
        let deep = format!("{{\"a\":{}", "[".repeat(100_000));
        assert_eq!(read(&deep), None);
        assert_eq!(read(" {} "), Some(Claim::Object(Vec::new())));
    }

    proptest! {
        #[test]
        fn it_takes_what_serde_takes(text in r#"[{}\[\]",:0-9a-z\\ .-]{0,30}"#) {
            let value = serde_json::from_str::<Value>(&text);
            prop_assert_eq!(value.is_ok(), any(&text).is_ok(), "{}", text);
        }
    }
}
