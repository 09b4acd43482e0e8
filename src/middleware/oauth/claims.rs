//! What providers say of a user: who it is, and what the backend is to know.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::middleware::jwt::claims::forwarded;

/// Claims by name.
pub type Claims = Map<String, Value>;

/// Who it is: `sub`, or what older providers have instead.
pub fn subject(claims: &Claims) -> String {
    let text = |name: &str| match claims.get(name)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    ["sub", "id", "user_id"].iter().find_map(|name| text(name)).unwrap_or_default()
}

/// Claims by name, as text; empty for those that are not there, so that it is known that they were looked for.
pub fn wanted(claims: &Claims, names: &[String]) -> BTreeMap<String, String> {
    names.iter().map(|name| (name.clone(), claim(claims, name).unwrap_or_default())).collect()
}

/// A claim as the text of a header. Dots lead into objects, unless a claim has the whole name.
pub fn claim(claims: &Claims, name: &str) -> Option<String> {
    let found = claims.get(name).or_else(|| {
        let mut steps = name.split('.');
        let first = claims.get(steps.next()?)?;
        steps.try_fold(first, |value, step| value.get(step))
    });
    forwarded(&found.filter(|value| !value.is_null())?.into()).map(Cow::into_owned)
}

/// What a session knows, as if it were the claims of a token: for the steps behind.
pub fn tree(subject: &str, claims: &BTreeMap<String, String>) -> Value {
    let mut tree = Claims::new();
    let text = |text: &str| Value::String(text.to_owned());
    for (name, value) in claims.iter().filter(|(_, value)| !value.is_empty()) {
        let (way, last) = name.rsplit_once('.').unwrap_or(("", name));
        let mut at = Some(&mut tree);
        for step in way.split('.').filter(|step| !step.is_empty()) {
            let inner =
                at.and_then(|at| at.entry(step).or_insert_with(|| Value::Object(Claims::new())).as_object_mut());
            at = inner;
        }
        if let Some(at) = at {
            at.insert(last.to_owned(), text(value));
        }
    }
    if !subject.is_empty() {
        tree.entry("sub").or_insert_with(|| text(subject));
    }
    Value::Object(tree)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_session_knows_is_found_as_in_a_token() {
        let known = [("email", "a@x"), ("realm.user", "ann"), ("realm.role", "dev"), ("gone", ""), ("email.x", "?")];
        let known = known.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
        let expected = json!({"email": "a@x", "realm": {"user": "ann", "role": "dev"}, "sub": "7"});
        assert_eq!(tree("7", &known), expected);
    }

    #[test]
    fn claims_become_texts() {
        let claims = json!({
            "sub": "ann", "groups": ["a", "b", 3], "admin": true, "n": 3.7, "age": 42, "none": null,
            "realm": {"roles": ["x"], "name": "r"}, "a.b": "dotted", "a": {"b": "inner"},
        });
        for (name, found) in [
            ("sub", Some("ann")),
            ("groups", Some("a,b,3")),
            ("admin", Some("true")),
            ("n", Some("4")),
            ("age", Some("42")),
            ("none", None),
            ("realm", Some("map[name:r roles:[x]]")),
            ("realm.roles", Some("x")),
            ("realm.name", Some("r")),
            ("realm.nothing", None),
            ("a.b", Some("dotted")),
            ("", None),
        ] {
            assert_eq!(claim(claims.as_object().expect("an object"), name).as_deref(), found, "{name}");
        }
    }

    #[test]
    fn a_user_has_a_subject_whatever_the_provider_calls_it() {
        for (claims, found) in [
            (json!({"sub": "ann", "id": 7}), "ann"),
            (json!({"id": 7, "login": "ann"}), "7"),
            (json!({"user_id": "amzn1"}), "amzn1"),
            (json!({}), ""),
        ] {
            assert_eq!(subject(claims.as_object().expect("an object")), found);
        }
    }
}
