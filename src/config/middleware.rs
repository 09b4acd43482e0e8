//! A middleware as written; what its `rule` means is the business of its kind.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::lenient::{Typo, decode};
use super::node::{Node, Value};
use super::place::Place;
use super::problem::Problem;
use super::scalar::Mode;

/// One definition of `middlewares`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Middleware {
    /// Unique.
    pub name: String,
    /// Its kind, with its case.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it applies; what an empty list means is the business of its kind.
    pub paths: Vec<String>,
    /// Its settings.
    #[serde(skip)]
    pub rule: Rule,
    /// Where it stands.
    #[serde(skip)]
    pub at: Place,
    #[serde(rename = "rule")]
    unread: IgnoredAny,
}

impl Middleware {
    /// Fills in where it stands.
    pub(super) fn settle(&mut self, at: Place) {
        self.rule = Rule { at: at.child("rule") };
        self.at = at;
    }
}

/// The settings of a middleware, not yet decoded. Equal when they say the same, wherever they stand.
#[derive(Clone, Default)]
pub struct Rule {
    at: Place,
}

impl Rule {
    /// Where it stands.
    pub fn at(&self) -> &Place {
        &self.at
    }

    /// Decodes the settings by the laxness that holds for rules: keys in any case, quoted whole numbers, numbers and
    /// booleans as texts. A rule that is absent reads as an empty map. Gives the warnings along with the settings.
    ///
    /// With `guard` an unknown key within two letters of a known one is an error.
    ///
    /// # Errors
    /// All errors with the warnings among them.
    pub fn decode<T: DeserializeOwned>(&self, guard: bool) -> Result<(T, Vec<Problem>), Vec<Problem>> {
        let absent = Node::default();
        let node = self.at.node().unwrap_or(&absent);
        let typo = if guard { Typo::Refuse } else { Typo::Warn };
        let decoded = decode(node, &self.at, Mode::Rules, typo);
        match decoded.value {
            Some(value) if !decoded.problems.iter().any(Problem::is_error) => Ok((value, decoded.problems)),
            _ => Err(decoded.problems),
        }
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Rule) -> bool {
        match (self.at.node(), other.at.node()) {
            (Some(one), Some(other)) => same(one, other),
            (one, other) => one.is_none_or(Node::is_null) && other.is_none_or(Node::is_null),
        }
    }
}

fn same(one: &Node, other: &Node) -> bool {
    match (&one.value, &other.value) {
        (Value::Null, Value::Null) => true,
        (Value::Scalar(one), Value::Scalar(other)) => one.text == other.text && one.style == other.style,
        (Value::List(one), Value::List(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Map(one), Value::Map(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|(one, other)| one.key == other.key && same(&one.node, &other.node))
        }
        _ => false,
    }
}

/// Settings may hold secrets: only the place is shown.
impl fmt::Debug for Rule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Rule({:?})", self.at)
    }
}
