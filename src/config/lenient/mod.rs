//! Decodes nodes into types as laxly as Goma does, and reports all that is wrong at once.
//!
//! This is the one place that knows Goma's lax scalars and key case. What it adds: unknown keys are findings (with the
//! nearest known key), and decoding goes on after a wrong value. For the latter the value at fault is left out and the
//! whole is decoded again, until it works: every field has a default, so it does.

mod access;
mod deserializer;

use std::cell::RefCell;
use std::collections::HashSet;

use serde::de::DeserializeOwned;

use super::fault::{At, Fault};
use super::nearest::nearest;
use super::node::{Node, Scalar, Step, Style, Value};
use super::place::Place;
use super::problem::Problem;
use super::scalar::{self, Mode, Number, Whole};
use access::{Fields, Items};

/// What a nearly known key means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Typo {
    /// A warning.
    Warn,
    /// An error: a guard with a mistyped setting would protect less than its author thinks.
    Refuse,
}

/// What came out of a node.
#[derive(Debug)]
pub struct Decoded<T> {
    /// The value, with its defaults in place of what was wrong; none when nothing could be made of it.
    pub value: Option<T>,
    /// Everything found on the way, errors and warnings.
    pub problems: Vec<Problem>,
}

/// Errors after which decoding of one node gives up.
const MAX_ERRORS: usize = 200;
/// Letters by which a guard's key may differ from a known one and still be taken for a typing error.
const GUARD_TYPO: usize = 2;

/// Decodes the node at a place.
pub fn decode<T: DeserializeOwned>(node: &Node, place: &Place, mode: Mode, typo: Typo) -> Decoded<T> {
    let mut dropped = Dropped::default();
    let mut errors = Vec::new();
    loop {
        let pass = Pass { place, mode, typo, dropped: &dropped, problems: RefCell::default() };
        let root = Reader { pass: &pass, node, trail: None };
        let fault = match T::deserialize(root) {
            Ok(value) => {
                errors.extend(pass.problems.into_inner());
                return Decoded { value: Some(value), problems: errors };
            }
            Err(fault) => root.locate(fault),
        };
        let at = fault.at.unwrap_or(At { steps: Vec::new(), node });
        let place = at.steps.iter().cloned().fold(place.clone(), |place, step| place.down(step));
        // What fails even when blank has been told already.
        if !dropped.once.contains(&at.node) {
            errors.push(place.error(fault.message, fault.remedy));
        }
        if std::ptr::eq(at.node, node) || errors.len() >= MAX_ERRORS || !dropped.add(at.node) {
            return Decoded { value: None, problems: errors };
        }
    }
}

/// Values at fault: left out of maps, and blanked in lists, so that what follows keeps its number.
#[derive(Default)]
struct Dropped {
    once: HashSet<*const Node>,
    /// Those that are at fault even when blank: left out of lists too.
    twice: HashSet<*const Node>,
}

impl Dropped {
    /// Says whether that can make a difference.
    fn add(&mut self, node: *const Node) -> bool {
        self.once.insert(node) || self.twice.insert(node)
    }
}

/// What a blanked item reads as.
static BLANK: Node = Node { line: 0, column: 0, value: Value::Null };

/// One try at the whole node.
struct Pass<'a> {
    place: &'a Place,
    mode: Mode,
    typo: Typo,
    dropped: &'a Dropped,
    problems: RefCell<Vec<Problem>>,
}

/// The way from the top to a value, on the stack.
#[derive(Clone, Copy)]
struct Trail<'a> {
    above: Option<&'a Trail<'a>>,
    step: Part<'a>,
}

#[derive(Clone, Copy)]
enum Part<'a> {
    Key(&'a str),
    Index(usize),
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    pass: &'a Pass<'a>,
    node: &'a Node,
    trail: Option<&'a Trail<'a>>,
}

impl<'a> Reader<'a> {
    fn steps(self) -> Vec<Step> {
        let mut steps: Vec<Step> = std::iter::successors(self.trail, |trail| trail.above)
            .map(|trail| match trail.step {
                Part::Key(key) => Step::Key(key.to_owned()),
                Part::Index(index) => Step::Index(index),
            })
            .collect();
        steps.reverse();
        steps
    }

    fn place(self) -> Place {
        self.steps().into_iter().fold(self.pass.place.clone(), |place, step| place.down(step))
    }

    /// Notes where a fault happened, unless something further down already did.
    fn locate(self, mut fault: Fault) -> Fault {
        fault.at.get_or_insert_with(|| At { steps: self.steps(), node: self.node });
        fault
    }

    fn report(self, problem: Problem) {
        self.pass.problems.borrow_mut().push(problem);
    }

    fn wanted(self, what: &str) -> Fault {
        let remedy = match self.node.scalar() {
            Some(scalar) if scalar.style == Style::Quoted => {
                let bare = Scalar { style: Style::Plain, ..scalar.clone() };
                let fits = scalar::boolean(&bare).is_some() || scalar::float(&bare, self.pass.mode).is_some();
                if fits { "remove the quotes" } else { "" }
            }
            None if what == "a string" && is_braced_name(self.node) => "put quotes around text with braces",
            _ => "",
        };
        self.locate(Fault::new(format!("expected {what}, found {}", scalar::describe(self.node)), remedy))
    }

    fn text(self) -> Result<&'a str, Fault> {
        match &self.node.value {
            Value::Null => Ok(""),
            Value::Scalar(scalar) => Ok(&scalar.text),
            Value::List(_) | Value::Map(_) => Err(self.wanted("a string")),
        }
    }

    fn boolean(self) -> Result<bool, Fault> {
        match &self.node.value {
            Value::Null => Ok(false),
            Value::Scalar(scalar) => scalar::boolean(scalar).ok_or_else(|| self.wanted("true or false")),
            Value::List(_) | Value::Map(_) => Err(self.wanted("true or false")),
        }
    }

    fn whole(self, lowest: Whole, highest: Whole) -> Result<Whole, Fault> {
        let number = match &self.node.value {
            Value::Null => Number::Whole(0),
            Value::Scalar(scalar) => {
                scalar::whole(scalar, self.pass.mode).ok_or_else(|| self.wanted("a whole number"))?
            }
            Value::List(_) | Value::Map(_) => return Err(self.wanted("a whole number")),
        };
        let number = match number {
            Number::Whole(number) => number,
            Number::Cut(number) => {
                let place = self.place();
                self.report(place.warning(format!("is not a whole number; it is read as {number}"), ""));
                number
            }
        };
        if number < lowest {
            let least = if lowest == 0 { "must not be negative".to_owned() } else { format!("is below {lowest}") };
            return Err(self.locate(Fault::new(least, "")));
        }
        if number > highest {
            return Err(self.locate(Fault::new(format!("is above {highest}"), "")));
        }
        Ok(number)
    }

    fn float(self) -> Result<f64, Fault> {
        match &self.node.value {
            Value::Null => Ok(0.0),
            Value::Scalar(scalar) => {
                scalar::float(scalar, self.pass.mode)
                    .or_else(|| match scalar::whole(scalar, self.pass.mode)? {
                        // Only sizes no setting has would lose digits here.
                        Number::Whole(number) | Number::Cut(number) => Some(number as f64),
                    })
                    .ok_or_else(|| self.wanted("a number"))
            }
            Value::List(_) | Value::Map(_) => Err(self.wanted("a number")),
        }
    }

    fn items(self) -> Result<Items<'a>, Fault> {
        match &self.node.value {
            Value::Null => Ok(Items { reader: self, rest: [].iter().enumerate() }),
            Value::List(items) => Ok(Items { reader: self, rest: items.iter().enumerate() }),
            Value::Scalar(_) | Value::Map(_) => Err(self.wanted("a list")),
        }
    }

    fn fields(self, known: Option<&'static [&'static str]>) -> Result<Fields<'a>, Fault> {
        let entries = match &self.node.value {
            Value::Null => [].iter(),
            Value::Map(entries) => entries.iter(),
            Value::Scalar(_) | Value::List(_) => return Err(self.wanted("a map")),
        };
        Ok(Fields { reader: self, known, rest: entries, value: None })
    }

    fn is_dropped(self, node: &Node) -> bool {
        self.pass.dropped.once.contains(&std::ptr::from_ref(node))
    }

    fn is_dropped_twice(self, node: &Node) -> bool {
        self.pass.dropped.twice.contains(&std::ptr::from_ref(node))
    }

    /// The spelling of a key that a struct knows; reports a key that it does not.
    fn known_key(self, key: &str, known: &'static [&'static str]) -> Option<&'static str> {
        if let Some(exact) = known.iter().find(|name| **name == key) {
            return Some(exact);
        }
        let folded = known.iter().find(|name| name.eq_ignore_ascii_case(key));
        if let (Mode::Rules, Some(name)) = (self.pass.mode, folded) {
            return Some(name);
        }
        let place = self.place().child(key);
        let near = nearest(key, known);
        let remedy = near.map(|(name, _)| format!("did you mean \"{name}\"?")).unwrap_or_default();
        let refused = self.pass.typo == Typo::Refuse && near.is_some_and(|(_, edits)| edits <= GUARD_TYPO);
        self.report(if refused {
            place.error("is not a known key", remedy)
        } else {
            place.warning("is not a known key and is ignored", remedy)
        });
        None
    }
}

/// What an unquoted `{name}` looks like: a map with a key and nothing else.
fn is_braced_name(node: &Node) -> bool {
    matches!(node.entries(), [only] if only.node.is_null())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use serde::Deserialize;

    use super::*;
    use crate::config::parse::parse;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Sample {
        text: String,
        flag: bool,
        count: u16,
        signed: i64,
        share: f64,
        list: Vec<u8>,
        map: BTreeMap<String, String>,
        maybe: Option<String>,
        inner: Inner,
        inners: Vec<Inner>,
        mode: Colour,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Inner {
        status_code: u16,
    }

    impl Default for Inner {
        fn default() -> Inner {
            Inner { status_code: 403 }
        }
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "camelCase")]
    enum Colour {
        #[default]
        Red,
        Green,
        Mixed(u8),
    }

    fn read(yaml: &str, mode: Mode, typo: Typo) -> (Option<Sample>, Vec<String>) {
        let (document, problems) = parse("t.yml", yaml);
        assert_eq!(problems, [], "{yaml}");
        let document = Arc::new(document);
        let decoded = decode(&document.root, &Place::root(&document), mode, typo);
        (decoded.value, decoded.problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn scalars_become_what_is_wanted() {
        let inner = |status_code| Inner { status_code };
        let table = [
            ("a number as a text, as written", "text: 2.0", Sample { text: "2.0".into(), ..Sample::default() }),
            ("a boolean as a text", "text: true", Sample { text: "true".into(), ..Sample::default() }),
            ("a word as a boolean", "flag: yes", Sample { flag: true, ..Sample::default() }),
            ("hexadecimal", "count: 0x1F4", Sample { count: 500, ..Sample::default() }),
            ("a whole number as a share", "share: 1", Sample { share: 1.0, ..Sample::default() }),
            ("nothing keeps the default", "inner:\n  statusCode:\ntext: ~", Sample::default()),
            ("an empty section keeps its defaults", "inner: {}", Sample::default()),
            (
                "nothing inside a map is an empty text",
                "map: {a: }",
                Sample { map: [("a".to_owned(), String::new())].into(), ..Sample::default() },
            ),
            (
                "a list of maps",
                "inners: [{statusCode: 1}, {}]",
                Sample { inners: vec![inner(1), inner(403)], ..Sample::default() },
            ),
            ("a word of a list", "mode: green", Sample { mode: Colour::Green, ..Sample::default() }),
            ("a word with content", "mode: {mixed: 3}", Sample { mode: Colour::Mixed(3), ..Sample::default() }),
            ("an empty file", "", Sample::default()),
        ];
        for (what, yaml, sample) in table {
            assert_eq!(read(yaml, Mode::Document, Typo::Warn), (Some(sample), vec![]), "{what}");
        }
    }

    #[test]
    fn a_rule_is_read_more_laxly_than_the_document() {
        let yaml = "COUNT: '7'\nINNER: {statuscode: '404'}\nText: 5";
        let sample = Sample { count: 7, text: "5".into(), inner: Inner { status_code: 404 }, ..Sample::default() };
        assert_eq!(read(yaml, Mode::Rules, Typo::Warn), (Some(sample), vec![]));
        let (_, problems) = read("count: '7'\nCount: 1", Mode::Document, Typo::Warn);
        assert_eq!(
            problems,
            [
                "error: t.yml:1: count: expected a whole number, found the quoted \"7\"; remove the quotes",
                "warning: t.yml:2: Count: is not a known key and is ignored; did you mean \"count\"?",
            ]
        );
    }

    #[test]
    fn everything_wrong_is_told_at_once_and_the_rest_is_read() {
        let yaml = "\
text: [a]
flag: maybe
count: 70000
signed: ten
list: [1, x, 300]
map: {a: {b: c}}
inners:
  - statusCode: -1
  - statusCode: 200
mode: blue
maybe: kept
other: 1
";
        let (sample, problems) = read(yaml, Mode::Document, Typo::Warn);
        assert_eq!(
            problems,
            [
                "error: t.yml:1: text: expected a string, found a list",
                "error: t.yml:2: flag: expected true or false, found \"maybe\"",
                "error: t.yml:3: count: is above 65535",
                "error: t.yml:4: signed: expected a whole number, found \"ten\"",
                "error: t.yml:5: list[1]: expected a whole number, found \"x\"",
                "error: t.yml:5: list[2]: is above 255",
                "error: t.yml:6: map.a: expected a string, found a map",
                "error: t.yml:8: inners[0].statusCode: must not be negative",
                "error: t.yml:10: mode: \"blue\" is not a known value; write one of red, green, mixed",
                "warning: t.yml:12: other: is not a known key and is ignored",
            ]
        );
        let inners = vec![Inner::default(), Inner { status_code: 200 }];
        let rest = Sample { list: vec![1, 0, 0], inners, maybe: Some("kept".into()), ..Sample::default() };
        assert_eq!(sample, Some(rest));
    }

    #[test]
    fn a_wrong_item_does_not_shift_the_numbers_of_the_others() {
        #[derive(Debug, Default, PartialEq, Deserialize)]
        #[serde(default)]
        struct Colours {
            list: Vec<Colour>,
            words: Vec<String>,
            grey: Word,
        }
        #[derive(Debug, Default, PartialEq, Deserialize)]
        enum Word {
            #[default]
            Only,
        }
        let (document, _) = parse("t.yml", "list: [pink, red, blue]\nwords: [[a], {b: }, c]\ngrey: {x}");
        let document = Arc::new(document);
        let decoded: Decoded<Colours> = decode(&document.root, &Place::root(&document), Mode::Document, Typo::Warn);
        let lines: Vec<String> = decoded.problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "error: t.yml:1: list[0]: \"pink\" is not a known value; write one of red, green, mixed",
                "error: t.yml:1: list[2]: \"blue\" is not a known value; write one of red, green, mixed",
                "error: t.yml:2: words[0]: expected a string, found a list",
                "error: t.yml:2: words[1]: expected a string, found a map; put quotes around text with braces",
                "error: t.yml:3: grey: \"x\" is not a known value; write one of Only",
            ]
        );
        let words = vec![String::new(), String::new(), "c".to_owned()];
        assert_eq!(decoded.value, Some(Colours { list: vec![Colour::Red], words, grey: Word::Only }));
    }

    #[test]
    fn a_nearly_known_key_refuses_a_guard() {
        let yaml = "inner: {statsCode: 404}\nwholly: 1";
        let error = "error: t.yml:1: inner.statsCode: is not a known key; did you mean \"statusCode\"?";
        let warning = "warning: t.yml:2: wholly: is not a known key and is ignored";
        let (_, problems) = read(yaml, Mode::Rules, Typo::Refuse);
        assert_eq!(problems, [error, warning]);
    }

    #[test]
    fn a_fraction_is_cut_off_aloud() {
        let (sample, problems) = read("count: 1.9", Mode::Document, Typo::Warn);
        assert_eq!(sample.map(|sample| sample.count), Some(1));
        assert_eq!(problems, ["warning: t.yml:1: count: is not a whole number; it is read as 1"]);
        let (_, problems) = read("count: 1.9", Mode::Rules, Typo::Warn);
        assert_eq!(problems, ["error: t.yml:1: count: expected a whole number, found \"1.9\""]);
    }

    #[test]
    fn what_is_no_map_at_all_is_one_error() {
        let (sample, problems) = read("just text", Mode::Document, Typo::Warn);
        assert_eq!(sample, None);
        assert_eq!(problems, ["error: t.yml:1: expected a map, found \"just text\""]);
    }
}
