//! The language of `claimsExpression`: parsed when a configuration is loaded, evaluated against the claims of a token.
//!
//! ```text
//! expr  = and , { "||" , and } ;
//! and   = unary , { "&&" , unary } ;
//! unary = "!" , unary | "(" , expr , ")" | call ;
//! call  = ( "Equals" | "Prefix" ) , "(" , text , "," , value , ")"
//!       | ( "Contains" | "OneOf" ) , "(" , text , "," , value , { "," , value } , ")" ;
//! value = text | number | "true" | "false" ;        text: in back-ticks, single or double quotes, without escapes
//! ```
//!
//! Beyond Goma: both kinds of quotes, literals, `)` inside a value; and text behind the expression is an error, where Goma
//! ignores it and what it would have asked for. Kept: a claim that is missing denies, even under `!`, unless the answer was
//! clear before it was looked at. Spec middlewares §5.7.2, §10.

use std::fmt;

use serde_json::Number;

use super::claim::Claim;
use super::claims::{self, ClaimPath};

/// An expression about claims.
#[derive(Debug)]
pub struct Expression(Node);

/// A claim that the expression needs is not in the token.
#[derive(Debug, PartialEq, Eq)]
pub struct Missing;

/// What is wrong with an expression, and at which character of it (from 1).
#[derive(Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The character.
    pub at: usize,
    /// What is wrong there.
    pub message: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} at character {}", self.message, self.at)
    }
}

#[derive(Debug)]
enum Node {
    Any(Vec<Node>),
    All(Vec<Node>),
    Not(Box<Node>),
    Test(Function, ClaimPath, Vec<Operand>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Equals,
    Prefix,
    Contains,
    OneOf,
}

/// A value to compare with.
#[derive(Debug)]
struct Operand {
    /// As written, without quotes.
    text: Box<str>,
    /// What it stands for when it has no quotes.
    literal: Option<Literal>,
}

/// What a value without quotes is. The text of a truth says which.
#[derive(Debug)]
enum Literal {
    Bool,
    Number(Number),
}

impl Expression {
    /// Parses an expression.
    ///
    /// # Errors
    /// Anything that does not fit the grammar, text behind it included, and one that is nested too deep.
    pub fn parse(text: &str) -> Result<Expression, ParseError> {
        let mut parser = Parser { text, at: 0, depth: 0 };
        let node = parser.any()?;
        parser.space();
        if parser.at < text.len() {
            return Err(parser.error("expected `&&`, `||` or the end"));
        }
        Ok(Expression(node))
    }

    /// Whether the claims fit.
    ///
    /// # Errors
    /// When a claim is missing before the answer is clear.
    pub fn fits(&self, claims: &Claim<'_>) -> Result<bool, Missing> {
        self.0.fits(claims)
    }
}

impl Node {
    fn fits(&self, claims: &Claim<'_>) -> Result<bool, Missing> {
        match self {
            Node::Any(nodes) => any(nodes, |node| node.fits(claims)),
            Node::All(nodes) => any(nodes, |node| node.fits(claims).map(|fits| !fits)).map(|fails| !fails),
            Node::Not(node) => node.fits(claims).map(|fits| !fits),
            Node::Test(function, path, operands) => {
                let claim = path.find(claims).ok_or(Missing)?;
                Ok(operands.iter().any(|operand| function.holds(operands.len(), claim, operand)))
            }
        }
    }
}

/// From the left, up to the first that says so.
fn any(nodes: &[Node], mut says: impl FnMut(&Node) -> Result<bool, Missing>) -> Result<bool, Missing> {
    for node in nodes {
        if says(node)? {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Function {
    fn named(name: &str) -> Option<Function> {
        match name {
            "Equals" => Some(Function::Equals),
            "Prefix" => Some(Function::Prefix),
            "Contains" => Some(Function::Contains),
            "OneOf" => Some(Function::OneOf),
            _ => None,
        }
    }

    /// Whether it takes more than one value.
    fn takes_many(self) -> bool {
        matches!(self, Function::Contains | Function::OneOf)
    }

    /// `Contains` looks for a substring when it has one value only, in each item of a list as well.
    fn holds(self, operands: usize, claim: &Claim<'_>, operand: &Operand) -> bool {
        let compare = |value: &Claim<'_>| match self {
            Function::Prefix => claims::text(value).starts_with(&*operand.text),
            Function::Contains if operands == 1 => {
                operand.equals(value) || claims::text(value).contains(&*operand.text)
            }
            Function::Equals | Function::OneOf | Function::Contains => operand.equals(value),
        };
        match claim {
            Claim::List(items) => items.iter().any(|item| operand.minds(item) && compare(item)),
            other => compare(other),
        }
    }
}

impl Operand {
    /// Of a list, texts count; for a literal also items of its own kind.
    fn minds(&self, item: &Claim<'_>) -> bool {
        matches!(
            (item, &self.literal),
            (Claim::Text(_), _) | (Claim::Number(_), Some(Literal::Number(_))) | (Claim::Bool(_), Some(Literal::Bool))
        )
    }

    fn equals(&self, value: &Claim<'_>) -> bool {
        match (&self.literal, value) {
            (Some(Literal::Number(wanted)), Claim::Number(found)) => same(wanted, found),
            _ => claims::text(value) == *self.text,
        }
    }
}

fn same(one: &Number, other: &Number) -> bool {
    match (one.is_f64() || other.is_f64(), one.as_f64(), other.as_f64()) {
        (true, Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

/// Deepest nesting of parentheses and `!`.
const DEPTH: usize = 64;

struct Parser<'a> {
    text: &'a str,
    /// Next byte, always at the start of a character.
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn any(&mut self) -> Result<Node, ParseError> {
        let mut nodes = vec![self.all()?];
        while self.take("||") {
            nodes.push(self.all()?);
        }
        Ok(single(nodes, Node::Any))
    }

    fn all(&mut self) -> Result<Node, ParseError> {
        let mut nodes = vec![self.unary()?];
        while self.take("&&") {
            nodes.push(self.unary()?);
        }
        Ok(single(nodes, Node::All))
    }

    fn unary(&mut self) -> Result<Node, ParseError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self.error(&format!("more than {DEPTH} levels of nesting")));
        }
        let node = if self.take("!") {
            Node::Not(Box::new(self.unary()?))
        } else if self.take("(") {
            let node = self.any()?;
            self.expect(")")?;
            node
        } else {
            self.call()?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn call(&mut self) -> Result<Node, ParseError> {
        self.space();
        let start = self.at;
        let name = self.word();
        let Some(function) = Function::named(name) else {
            self.at = start;
            return Err(self.error(&match name {
                "" => "expected a function, `!` or `(`".to_owned(),
                name => format!("`{name}` is no function; there are `Equals`, `Prefix`, `Contains` and `OneOf`,"),
            }));
        };
        self.expect("(")?;
        let path = self.path()?;
        let mut operands = Vec::new();
        while operands.is_empty() || (function.takes_many() && !self.peek(")")) {
            self.expect(",")?;
            operands.push(self.operand()?);
        }
        self.expect(")")?;
        Ok(Node::Test(function, path, operands))
    }

    fn path(&mut self) -> Result<ClaimPath, ParseError> {
        self.space();
        let start = self.at;
        let path = self.quoted()?.and_then(ClaimPath::new);
        path.ok_or_else(|| {
            self.at = start;
            self.error("expected the path of a claim in quotes")
        })
    }

    fn operand(&mut self) -> Result<Operand, ParseError> {
        self.space();
        if let Some(text) = self.quoted()? {
            return Ok(Operand { text: text.into(), literal: None });
        }
        let start = self.at;
        let text = self.word();
        let literal = match text {
            "true" | "false" => Some(Literal::Bool),
            number => serde_json::from_str::<Number>(number).ok().map(Literal::Number),
        };
        if literal.is_none() {
            self.at = start;
            return Err(self.error("expected a value: a text in quotes, a number, `true` or `false`,"));
        }
        Ok(Operand { text: text.into(), literal })
    }

    /// A text in quotes, if one begins here.
    fn quoted(&mut self) -> Result<Option<&'a str>, ParseError> {
        let rest = &self.text[self.at..];
        let Some(quote) = rest.chars().next().filter(|first| matches!(first, '`' | '\'' | '"')) else {
            return Ok(None);
        };
        let Some(length) = rest[1..].find(quote) else {
            return Err(self.error(&format!("the text that begins with {quote} does not end")));
        };
        self.at += length + 2;
        Ok(Some(&rest[1..=length]))
    }

    /// A name or a number.
    fn word(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
        let word = &rest[..rest.find(|c| !inside(c)).unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    fn space(&mut self) {
        let rest = &self.text[self.at..];
        self.at = self.text.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    fn peek(&mut self, token: &str) -> bool {
        self.space();
        self.text[self.at..].starts_with(token)
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.peek(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), ParseError> {
        if self.take(token) { Ok(()) } else { Err(self.error(&format!("expected `{token}`"))) }
    }

    fn error(&self, message: &str) -> ParseError {
        ParseError { at: self.text[..self.at].chars().count() + 1, message: message.to_owned() }
    }
}

fn single(mut nodes: Vec<Node>, many: fn(Vec<Node>) -> Node) -> Node {
    if nodes.len() == 1 { nodes.remove(0) } else { many(nodes) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn says(text: &str, claims: &Value) -> Result<bool, Missing> {
        Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).fits(&claims.into())
    }

    #[test]
    fn functions_compare_as_in_goma() {
        let claims = json!({
            "a": "b", "e": "", "r": ["superadmin", 7, "user"], "n": 1_234_567, "small": 42, "t": true, "z": null,
            "o": {"k": "v"}, "m": {"k": "v", "k2": "v2"}, "five": "5",
        });
        for (text, expected) in [
            ("Equals(`a`,`b`)", true),
            ("Equals(`a`,`B`)", false),
            ("Equals (`o.k`,`v`)", true),
            ("Equals(`e`,``)", true),
            ("Equals(`r`,`user`)", true),
            ("Equals(`r`,`7`)", false),
            ("Equals(`n`,`1.234567e+06`)", true),
            ("Equals(`n`,`1234567`)", false),
            ("Equals(`t`,`true`)", true),
            ("Equals(`z`,`<nil>`)", true),
            ("Equals(`m`,`map[k:v k2:v2]`)", true),
            ("Prefix(`a`,``)", true),
            ("Prefix(`r`,`super`)", true),
            ("Prefix(`r`,`admin`)", false),
            ("Prefix(`n`,`1.2`)", true),
            ("Contains(`r`,`adm`)", true),
            ("Contains(`r`,`adm`,`x`)", false),
            ("Contains(`r`,`x`,`user`)", true),
            ("Contains(`a`,`b`,`c`)", true),
            ("Contains(`small`,`2`)", true),
            ("OneOf(`a`,`x`,`b`)", true),
            ("OneOf(`r`,`x`,`user`)", true),
            ("OneOf(`small`,`42`)", true),
            ("OneOf(`a`,`x`)", false),
            ("Equals(`a`,`b`)||Equals(`a`,`x`)&&Equals(`a`,`y`)", true),
            ("(Equals(`a`,`b`)||Equals(`a`,`x`))&&Equals(`a`,`y`)", false),
            ("!Equals(`a`,`x`)&&Equals(`a`,`b`)", true),
            ("!(Equals(`a`,`x`)||Equals(`a`,`b`))", false),
            ("!!Equals(`a`,`b`)", true),
            (" \t\r\n( Equals\n(\t`a` , `b` ) ) ", true),
        ] {
            assert_eq!(says(text, &claims), Ok(expected), "{text}");
        }
    }

    #[test]
    fn quotes_and_literals_count_too() {
        let claims =
            json!({"a": "b", "t": true, "n": 1_234_567, "s": "true", "five": "5", "p": "x)y", "ns": [1, 2.5, "3"]});
        for (text, expected) in [
            ("Equals('a','b')", true),
            ("Equals(\"a\",\"b\")", true),
            ("Equals(`a`,'`')", false),
            ("Equals(`t`,true)", true),
            ("Equals(`t`,false)", false),
            ("Equals(`s`,true)", true),
            ("Equals(`n`,1234567)", true),
            ("Equals(`n`,1234567.0)", true),
            ("Equals(`n`,1.234567e6)", true),
            ("Equals(`n`,-1)", false),
            ("Equals(`five`,5)", true),
            ("OneOf(`n`,1,1234567)", true),
            ("OneOf(`p`,`z`,`x)y`)", true),
            ("OneOf(`a`,'q',`b`)", true),
            ("Equals(`ns`,1)", true),
            ("Equals(`ns`,2.5)", true),
            ("Equals(`ns`,3)", true),
            ("Equals(`ns`,4)", false),
        ] {
            assert_eq!(says(text, &claims), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_missing_claim_denies_unless_the_answer_was_clear_before() {
        let claims = json!({"a": "b"});
        for (text, expected) in [
            ("Equals(`zz`,`b`)", Err(Missing)),
            ("!Equals(`zz`,`b`)", Err(Missing)),
            ("Equals(`zz`,`1`) || Equals(`a`,`b`)", Err(Missing)),
            ("Equals(`a`,`b`) || Equals(`zz`,`1`)", Ok(true)),
            ("Equals(`a`,`x`) && Equals(`zz`,`1`)", Ok(false)),
            ("Equals(`a`,`b`) && Equals(`zz`,`1`)", Err(Missing)),
            ("Equals(`a.b`,`x`)", Err(Missing)),
        ] {
            assert_eq!(says(text, &claims), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_expression_is_refused_with_its_place() {
        let deep = "!".repeat(1_000_000) + "Equals(`a`,`b`)";
        let nested = "(".repeat(100_000);
        for (text, at, part) in [
            ("", 1, "expected a function"),
            ("   ", 4, "expected a function"),
            ("Equals(`a`,`b`) and Equals(`a`,`c`)", 17, "or the end"),
            ("Equals(`a`,`b`) & Equals(`a`,`c`)", 17, "or the end"),
            ("Equals(`a`,`b`) |", 17, "or the end"),
            ("Equals(`a`,`b`))", 16, "or the end"),
            ("Equals(`a`,`b`", 15, "expected `)`"),
            ("(Equals(`a`,`b`)", 17, "expected `)`"),
            ("Equals(`a`)", 11, "expected `,`"),
            ("Equals(`a`,`b`,`c`)", 15, "expected `)`"),
            ("OneOf(`a`)", 10, "expected `,`"),
            ("OneOf(`a`,)", 11, "expected a value"),
            ("Contains(`a`,`b` `c`)", 18, "expected `,`"),
            ("Equals(``,`b`)", 8, "path of a claim"),
            ("Equals(a,`b`)", 8, "path of a claim"),
            ("Equals(`a`,b)", 12, "expected a value"),
            ("Equals(`a`,01)", 12, "expected a value"),
            ("Equals(`é`,`b)", 12, "does not end"),
            ("equals(`a`,`b`)", 1, "`equals` is no function"),
            ("Equals(`a`,`b`) && ", 20, "expected a function"),
            (&deep, 65, "levels of nesting"),
            (&nested, 65, "levels of nesting"),
        ] {
            let error = Expression::parse(text).expect_err(&text[..text.len().min(40)]);
            assert!(error.at == at && error.message.contains(part), "{}: {error}", &text[..text.len().min(40)]);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = Expression::parse(&text);
        }

        #[test]
        fn no_mixture_of_its_tokens_panics(
            tokens in prop::collection::vec(
                prop::sample::select(vec![
                    "Equals", "Prefix", "Contains", "OneOf", "(", ")", ",", "`a`", "'b'", "\"é\"", "!", "&&", "||", "true", "1", "`",
                    " ",
                ]),
                0..24,
            )
        ) {
            if let Ok(expression) = Expression::parse(&tokens.concat()) {
                let _ = expression.fits(&(&json!({"a": ["b", 1, null], "b": {"c": 1}})).into());
            }
        }
    }
}
