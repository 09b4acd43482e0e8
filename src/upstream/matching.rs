//! Canary rules: which requests a backend takes.
//!
//! A rule compares one fact of the request with a text, case-sensitively. A fact that is missing is the empty
//! text, so the negative operators hold for it.

use std::borrow::Cow;
use std::net::IpAddr;

use regex::Regex;

/// What rules may ask about a request.
pub trait Facts {
    /// The first value of a header field; `name` in any case.
    fn header(&self, name: &str) -> Option<&str>;
    /// The value of a cookie as sent.
    fn cookie(&self, name: &str) -> Option<&str>;
    /// The first value of a query parameter, decoded.
    fn query(&self, name: &str) -> Option<Cow<'_, str>>;
    /// The client's address.
    fn ip(&self) -> IpAddr;
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Match {
    source: Source,
    test: Test,
}

#[derive(Clone, Debug)]
enum Source {
    Header(String),
    Cookie(String),
    Query(String),
    Ip,
}

#[derive(Clone, Debug)]
enum Test {
    Equals(String),
    NotEquals(String),
    Contains(String),
    NotContains(String),
    StartsWith(String),
    EndsWith(String),
    Regex(Regex),
    In(Vec<String>),
    Never,
}

impl Match {
    /// Compiles a rule from the texts of the configuration.
    ///
    /// A rule that cannot be understood never holds, and the second value says why.
    pub fn parse(source: &str, name: &str, operator: &str, value: &str) -> (Self, Option<String>) {
        let mut warning = None;
        let mut test = Test::parse(operator, value).unwrap_or_else(|reason| {
            warning = Some(reason);
            Test::Never
        });
        let source = Source::parse(source, name).unwrap_or_else(|reason| {
            warning = Some(reason);
            test = Test::Never;
            Source::Ip
        });
        let warning = warning.map(|reason| format!("{reason}: the rule never holds"));
        (Self { source, test }, warning)
    }

    /// Whether the rule holds for a request.
    pub fn holds(&self, facts: &(impl Facts + ?Sized)) -> bool {
        let value = match &self.source {
            Source::Header(name) => Cow::Borrowed(facts.header(name).unwrap_or_default()),
            Source::Cookie(name) => Cow::Borrowed(facts.cookie(name).unwrap_or_default()),
            Source::Query(name) => facts.query(name).unwrap_or_default(),
            Source::Ip => Cow::Owned(facts.ip().to_string()),
        };
        self.test.holds(&value)
    }
}

impl Source {
    fn parse(source: &str, name: &str) -> Result<Self, String> {
        let name = name.to_owned();
        match source {
            "header" => Ok(Source::Header(name)),
            "cookie" => Ok(Source::Cookie(name)),
            "query" => Ok(Source::Query(name)),
            "ip" => Ok(Source::Ip),
            _ => Err(format!("unknown source {source:?} (header, cookie, query, ip)")),
        }
    }
}

impl Test {
    fn parse(operator: &str, value: &str) -> Result<Self, String> {
        let text = value.to_owned();
        Ok(match operator {
            "equals" => Test::Equals(text),
            "not_equals" => Test::NotEquals(text),
            "contains" => Test::Contains(text),
            "not_contains" => Test::NotContains(text),
            "starts_with" => Test::StartsWith(text),
            "ends_with" => Test::EndsWith(text),
            "in" => Test::In(value.split(',').map(|item| item.trim().to_owned()).collect()),
            "regex" => Test::Regex(Regex::new(value).map_err(|_| format!("{value:?} is not a regular expression"))?),
            _ => {
                return Err(format!(
                    "unknown operator {operator:?} (equals, not_equals, contains, not_contains, \
                     starts_with, ends_with, regex, in)"
                ));
            }
        })
    }

    fn holds(&self, value: &str) -> bool {
        match self {
            Test::Equals(text) => value == text,
            Test::NotEquals(text) => value != text,
            Test::Contains(text) => value.contains(text.as_str()),
            Test::NotContains(text) => !value.contains(text.as_str()),
            Test::StartsWith(text) => value.starts_with(text.as_str()),
            Test::EndsWith(text) => value.ends_with(text.as_str()),
            Test::Regex(regex) => regex.is_match(value),
            Test::In(items) => items.iter().any(|item| item == value),
            Test::Never => false,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A request with one header, one cookie, one query parameter.
    #[derive(Default)]
    pub struct Request {
        pub header: Option<(&'static str, &'static str)>,
        pub cookie: Option<(&'static str, &'static str)>,
        pub query: Option<(&'static str, &'static str)>,
    }

    fn value(pair: Option<(&'static str, &'static str)>, name: &str) -> Option<&'static str> {
        pair.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    impl Facts for Request {
        fn header(&self, name: &str) -> Option<&str> {
            value(self.header, name)
        }
        fn cookie(&self, name: &str) -> Option<&str> {
            value(self.cookie, name)
        }
        fn query(&self, name: &str) -> Option<Cow<'_, str>> {
            value(self.query, name).map(Cow::Borrowed)
        }
        fn ip(&self) -> IpAddr {
            IpAddr::from([203, 0, 113, 7])
        }
    }

    #[test]
    fn operators_compare_as_documented() {
        let request =
            Request { header: Some(("X-Group", "beta-2")), cookie: Some(("plan", "gold")), query: Some(("v", "a b")) };
        let rows = [
            ("header", "x-group", "equals", "beta-2", true),
            ("header", "x-group", "equals", "Beta-2", false),
            ("header", "x-none", "equals", "", true),
            ("header", "x-none", "not_equals", "x", true),
            ("header", "x-none", "not_contains", "x", true),
            ("header", "x-group", "contains", "ta-", true),
            ("header", "x-group", "not_contains", "ta-", false),
            ("header", "x-group", "starts_with", "beta", true),
            ("header", "x-group", "ends_with", "-2", true),
            ("header", "x-group", "regex", "ta-[0-9]", true),
            ("header", "x-group", "regex", "^ta", false),
            ("cookie", "plan", "in", "silver, gold ,", true),
            ("cookie", "plan", "in", "silver", false),
            ("cookie", "none", "in", "a,,b", true),
            ("query", "v", "equals", "a b", true),
            ("ip", "ignored", "starts_with", "203.0.113.", true),
        ];
        for (source, name, operator, text, expected) in rows {
            let (rule, warning) = Match::parse(source, name, operator, text);
            assert_eq!(warning, None);
            assert_eq!(rule.holds(&request), expected, "{source} {name} {operator} {text}");
        }
    }

    #[test]
    fn a_rule_that_is_not_understood_never_holds_and_says_so() {
        let rows = [
            ("body", "equals", "", "unknown source \"body\""),
            ("header", "like", "", "unknown operator \"like\""),
            ("Header", "equals", "", "unknown source \"Header\""),
            ("header", "regex", "(", "\"(\" is not a regular expression"),
        ];
        for (source, operator, text, message) in rows {
            let (rule, warning) = Match::parse(source, "x", operator, text);
            assert!(!rule.holds(&Request::default()), "{source} {operator}");
            assert!(warning.unwrap().starts_with(message), "{source} {operator}");
        }
    }
}
