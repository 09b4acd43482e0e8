//! YAML text → [`Document`], with the grammar Goma's parser has.
//!
//! Only the first document of a file counts. Aliases and merge keys (`<<`) are resolved here, within bounds, so that
//! nobody behind this page meets them. JSON is YAML.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use libyaml_safer::{EventData, Mark, Parser, ScalarStyle};

use super::node::{Document, Entry, Node, Scalar, Step, Style, Value, key_text};
use super::problem::{Problem, Severity};

/// Nesting beyond which a file is refused.
const MAX_DEPTH: usize = 100;
/// Steps of a key that a message shows.
const MAX_STEPS: usize = 12;
/// Nodes that aliases may add to a file: far above any use, far below what would hurt.
const MAX_ALIAS_NODES: usize = 500_000;

/// Parses a text. A syntax error leaves the document empty; a repeated key leaves the first one standing.
pub fn parse(file: &str, text: &str) -> (Document, Vec<Problem>) {
    // The library panics on some texts that break off in the middle, and on a tag before a comma: a line break at the
    // end prevents the former; the latter ends here as any other error, so that a reload survives it.
    let whole = if text.ends_with('\n') { Cow::Borrowed(text) } else { Cow::Owned(format!("{text}\n")) };
    let whole = pair_surrogates(whole);
    std::panic::catch_unwind(|| build(file, &whole)).unwrap_or_else(|_| {
        let problem = Problem::in_file(file, "is not valid YAML: a tag stands where none can", "look for !");
        (Document { file: file.to_owned(), root: Node::default() }, vec![problem])
    })
}

/// JSON writes characters beyond U+FFFF as two escapes (RFC 8259 §7), which YAML does not know: they become one character.
fn pair_surrogates(text: Cow<'_, str>) -> Cow<'_, str> {
    if !text.trim_start().starts_with(['{', '[']) || !text.contains("\\u") {
        return text;
    }
    let mut paired = String::with_capacity(text.len());
    let mut rest = &*text;
    while let Some(at) = rest.find('\\') {
        paired.push_str(&rest[..at]);
        rest = &rest[at..];
        let half = |from: usize| u16::from_str_radix(rest.get(from..from + 6)?.strip_prefix("\\u")?, 16).ok();
        let pair = half(0).zip(half(6)).and_then(|(high, low)| String::from_utf16(&[high, low]).ok());
        match pair.filter(|pair| pair.chars().count() == 1) {
            Some(character) => {
                paired.push_str(&character);
                rest = &rest[12..];
            }
            None => {
                // A backslash goes with what it escapes, which may be another one.
                let escape = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
                paired.push_str(&rest[..escape]);
                rest = &rest[escape..];
            }
        }
    }
    Cow::Owned(paired + rest)
}

fn build(file: &str, text: &str) -> (Document, Vec<Problem>) {
    let mut bytes = text.as_bytes();
    let mut parser = Parser::new();
    parser.set_input_string(&mut bytes);
    let mut builder = Builder {
        parser,
        anchors: HashMap::new(),
        open: Vec::new(),
        alias_nodes: 0,
        steps: Vec::new(),
        problems: Vec::new(),
        file: file.to_owned(),
    };
    let root = builder.document().unwrap_or_else(|fault| {
        builder.problem(&fault);
        Node::default()
    });
    (Document { file: file.to_owned(), root }, builder.problems)
}

/// Why a text cannot be read on.
struct Fault {
    line: Option<u32>,
    message: String,
    remedy: &'static str,
}

impl From<libyaml_safer::Error> for Fault {
    fn from(error: libyaml_safer::Error) -> Fault {
        let context = error.context().map(|context| format!(" {context}")).unwrap_or_default();
        Fault {
            line: error.problem_mark().map(line_of),
            message: format!("is not valid YAML: {}{context}", error.problem()),
            remedy: "",
        }
    }
}

/// A finished node under an anchor, with what a copy of it costs.
struct Anchor {
    node: Node,
    size: usize,
    depth: usize,
}

/// What a collection or an item is made from.
struct Event {
    data: EventData,
    mark: Mark,
}

struct Builder<'b, 'r> {
    parser: Parser<&'b mut &'r [u8]>,
    anchors: HashMap<String, Anchor>,
    open: Vec<String>,
    alias_nodes: usize,
    steps: Vec<Step>,
    problems: Vec<Problem>,
    file: String,
}

impl Builder<'_, '_> {
    fn next(&mut self) -> Result<Event, Fault> {
        let event = self.parser.parse()?;
        Ok(Event { data: event.data, mark: event.start_mark })
    }

    fn document(&mut self) -> Result<Node, Fault> {
        loop {
            let event = self.next()?;
            match event.data {
                EventData::StreamStart { .. } => {}
                EventData::DocumentStart { .. } => {
                    let event = self.next()?;
                    return self.node(event, 0);
                }
                _ => return Ok(Node::default()),
            }
        }
    }

    fn node(&mut self, event: Event, depth: usize) -> Result<Node, Fault> {
        if depth > MAX_DEPTH {
            return Err(fault(event.mark, format!("is nested more than {MAX_DEPTH} levels deep"), ""));
        }
        let Event { data, mark } = event;
        let (anchor, value) = match data {
            EventData::Alias { anchor } => return self.alias(&anchor, mark, depth),
            EventData::Scalar { anchor, tag, value, style, .. } => (anchor, scalar(tag.as_deref(), value, style)),
            EventData::SequenceStart { anchor, .. } => {
                self.open.extend(anchor.clone());
                let items = self.list(depth)?;
                (anchor, Value::List(items))
            }
            EventData::MappingStart { anchor, .. } => {
                self.open.extend(anchor.clone());
                let entries = self.map(depth)?;
                (anchor, Value::Map(entries))
            }
            _ => return Err(fault(mark, "is not valid YAML: a value is missing".to_owned(), "")),
        };
        let node = Node { line: line_of(mark), column: column_of(mark), value };
        if let Some(anchor) = anchor {
            self.remember(anchor, &node, mark)?;
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Fault> {
        let mut items = Vec::new();
        loop {
            let event = self.next()?;
            if matches!(event.data, EventData::SequenceEnd) {
                return Ok(items);
            }
            self.steps.push(Step::Index(items.len()));
            items.push(self.node(event, depth + 1)?);
            self.steps.pop();
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<Entry>, Fault> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut lines: HashMap<String, u32> = HashMap::new();
        let mut merged = Vec::new();
        loop {
            let event = self.next()?;
            if matches!(event.data, EventData::MappingEnd) {
                add_missing(&mut entries, merged);
                return Ok(entries);
            }
            let mark = event.mark;
            let (key, merges) = self.key(event, depth)?;
            let event = self.next()?;
            self.steps.push(Step::Key(key.clone()));
            let node = self.node(event, depth + 1)?;
            if let Some(first) = lines.get(&key) {
                let message = format!("is given twice (first in line {first})");
                self.problem(&fault(mark, message, "remove one of them"));
            } else if merges {
                merge(node, mark, &mut merged)?;
                lines.insert(key, line_of(mark));
            } else {
                lines.insert(key.clone(), line_of(mark));
                entries.push(Entry { key, line: line_of(mark), node });
            }
            self.steps.pop();
        }
    }

    /// A key's text, and whether it is the merge key.
    fn key(&mut self, event: Event, depth: usize) -> Result<(String, bool), Fault> {
        let mark = event.mark;
        let node = self.node(event, depth + 1)?;
        match node.value {
            Value::Null => Ok(("null".to_owned(), false)),
            Value::Scalar(Scalar { text, style }) => {
                let merges = text == "<<" && style == Style::Plain;
                Ok((text, merges))
            }
            // What an unquoted {NAME} looks like to YAML.
            _ => Err(fault(mark, "has a list or a map as a key".to_owned(), "put quotes around text with braces")),
        }
    }

    fn alias(&mut self, name: &str, mark: Mark, depth: usize) -> Result<Node, Fault> {
        if self.open.iter().any(|open| open == name) {
            return Err(fault(mark, format!("the anchor {name} contains itself"), ""));
        }
        let Some(anchor) = self.anchors.get(name) else {
            return Err(fault(mark, format!("the alias *{name} has no anchor before it"), "define &anchors first"));
        };
        self.alias_nodes += anchor.size;
        if self.alias_nodes > MAX_ALIAS_NODES || depth + anchor.depth > MAX_DEPTH {
            return Err(fault(mark, "aliases unfold to an absurd size".to_owned(), "use fewer nested aliases"));
        }
        Ok(anchor.node.clone())
    }

    fn remember(&mut self, name: String, node: &Node, mark: Mark) -> Result<(), Fault> {
        if let Some(at) = self.open.iter().rposition(|open| *open == name) {
            self.open.remove(at);
        }
        let (size, depth) = measure(node);
        self.alias_nodes += size;
        if self.alias_nodes > MAX_ALIAS_NODES {
            return Err(fault(mark, "aliases unfold to an absurd size".to_owned(), "use fewer nested aliases"));
        }
        self.anchors.insert(name, Anchor { node: node.clone(), size, depth });
        Ok(())
    }

    fn problem(&mut self, fault: &Fault) {
        self.problems.push(Problem {
            severity: Severity::Error,
            file: self.file.clone(),
            key: key_text(&self.steps[..self.steps.len().min(MAX_STEPS)]),
            line: fault.line,
            message: fault.message.clone(),
            remedy: fault.remedy.to_owned(),
        });
    }
}

fn fault(mark: Mark, message: String, remedy: &'static str) -> Fault {
    Fault { line: Some(line_of(mark)), message, remedy }
}

fn scalar(tag: Option<&str>, text: String, style: ScalarStyle) -> Value {
    let plain = match tag.map(|tag| tag.trim_start_matches("tag:yaml.org,2002:")) {
        None | Some("") => style == ScalarStyle::Plain,
        Some("null" | "bool" | "int" | "float") => true,
        Some(_) => false,
    };
    if plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") {
        return Value::Null;
    }
    Value::Scalar(Scalar { text, style: if plain { Style::Plain } else { Style::Quoted } })
}

/// Collects what a merge key brings: the entries of a map, or of several in falling precedence.
fn merge(node: Node, mark: Mark, into: &mut Vec<Entry>) -> Result<(), Fault> {
    match node.value {
        Value::Map(entries) => {
            into.extend(entries);
            Ok(())
        }
        Value::List(items) => items.into_iter().try_for_each(|item| match item.value {
            Value::Map(entries) => {
                into.extend(entries);
                Ok(())
            }
            _ => Err(fault(mark, "<< wants a map or a list of maps".to_owned(), "")),
        }),
        Value::Null => Ok(()),
        Value::Scalar(_) => Err(fault(mark, "<< wants a map or a list of maps".to_owned(), "")),
    }
}

/// Adds merged entries whose keys are not there yet; what is written out wins, then what was merged first.
fn add_missing(entries: &mut Vec<Entry>, merged: Vec<Entry>) {
    if merged.is_empty() {
        return;
    }
    let mut known: HashSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
    entries.extend(merged.into_iter().filter(|entry| known.insert(entry.key.clone())));
}

/// Number of nodes, and levels below the top one.
fn measure(node: &Node) -> (usize, usize) {
    let below: Vec<(usize, usize)> = match &node.value {
        Value::List(items) => items.iter().map(measure).collect(),
        Value::Map(entries) => entries.iter().map(|entry| measure(&entry.node)).collect(),
        Value::Null | Value::Scalar(_) => return (1, 0),
    };
    let size = below.iter().map(|(size, _)| size).sum::<usize>() + 1;
    let depth = below.iter().map(|(_, depth)| depth + 1).max().unwrap_or(0);
    (size, depth)
}

fn line_of(mark: Mark) -> u32 {
    u32::try_from(mark.line).unwrap_or(u32::MAX).saturating_add(1)
}

fn column_of(mark: Mark) -> u32 {
    u32::try_from(mark.column).unwrap_or(u32::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(node: &Node) -> String {
        match &node.value {
            Value::Null => "null".into(),
            Value::Scalar(scalar) if scalar.style == Style::Plain => scalar.text.clone(),
            Value::Scalar(scalar) => format!("{:?}", scalar.text),
            Value::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
            Value::Map(entries) => {
                let inner: Vec<_> = entries.iter().map(|e| format!("{}={}", e.key, show(&e.node))).collect();
                format!("{{{}}}", inner.join(" "))
            }
        }
    }

    #[test]
    fn yaml_is_read_as_written() {
        let table = [
            ("nothing", "", "null"),
            ("only a comment", "# nothing\n", "null"),
            ("plain and quoted", "a: 1\nb: '1'\nc: yes", "{a=1 b=\"1\" c=yes}"),
            ("kinds of null", "a:\nb: ~\nc: null\nd: 'null'\ne: ''", "{a=null b=null c=null d=\"null\" e=\"\"}"),
            ("a tag makes a string", "a: !!str 5\nb: !!int '5'", "{a=\"5\" b=5}"),
            ("JSON", "{\"a\": [1, \"x\", true, null]}", "{a=[1 \"x\" true null]}"),
            ("the first document only", "a: 1\n---\na: 2\n", "{a=1}"),
            ("keys of any type", "1: x\ntrue: y", "{1=\"x\" true=\"y\"}".replace('"', "").as_str()),
            ("anchor and alias", "a: &x [1]\nb: *x", "{a=[1] b=[1]}"),
            ("merge: written keys win", "b: &b {x: 1, y: 2}\nr: {y: 3, <<: *b}", "{b={x=1 y=2} r={y=3 x=1}}"),
            (
                "merge of several: the first wins",
                "a: &a {x: 1}\nb: &b {x: 2, y: 2}\nr:\n  <<: [*a, *b]",
                "{a={x=1} b={x=2 y=2} r={x=1 y=2}}",
            ),
            ("a quoted << is a key", "'<<': {a: 1}", "{<<={a=1}}"),
            ("block text", "a: |\n  x\n  y\n", "{a=\"x\\ny\\n\"}"),
            ("no line break at the end of a block", "a: |\n  x", "{a=\"x\\n\"}"),
            ("a byte order mark", "\u{feff}a: 1", "{a=1}"),
        ]
        .map(|(what, text, tree)| (what, text, tree.to_owned()));
        for (what, text, tree) in table {
            let (document, problems) = parse("t.yml", text);
            assert_eq!(problems, [], "{what}");
            assert_eq!(show(&document.root), tree, "{what}");
        }
    }

    #[test]
    fn a_broken_text_says_where_and_why() {
        let bomb = (0..12).fold("a0: &a0 [x, x, x, x, x, x]\n".to_owned(), |text, i| {
            let alias = format!("*a{i}, ");
            format!("{text}a{}: &a{} [{}]\n", i + 1, i + 1, alias.repeat(6).trim_end_matches(", "))
        });
        let deep = "[".repeat(150);
        let table = [
            (
                "a key twice",
                "a: 1\nb: 2\na: 3",
                "error: t.yml:3: a: is given twice (first in line 1); remove one of them",
            ),
            (
                "in depth",
                "r:\n  - x: 1\n    x: 2",
                "error: t.yml:3: r[0].x: is given twice (first in line 2); remove one of them",
            ),
            ("no anchor", "a: *x", "error: t.yml:1: a: the alias *x has no anchor before it; define &anchors first"),
            ("a loop", "a: &x [*x]", "error: t.yml:1: a[0]: the anchor x contains itself"),
            ("an alias bomb", &bomb, "aliases unfold to an absurd size; use fewer nested aliases"),
            ("too deep", &deep, "is nested more than 100 levels deep"),
            (
                "a bare brace as a key",
                "a: {{X}: 1}",
                "has a list or a map as a key; put quotes around text with braces",
            ),
            (
                "syntax",
                "a: 1\n b: 2\n",
                "error: t.yml:2: is not valid YAML: mapping values are not allowed in this context",
            ),
            (
                "a tab",
                "a:\n\tb: 1\n",
                "error: t.yml:2: is not valid YAML: found character that cannot start any token while scanning for the next token",
            ),
            ("a text that breaks off", "a: \"\\", "found unexpected end of stream while scanning a quoted scalar"),
            (
                "a tag before a comma",
                "a: [!, b]",
                "error: t.yml: is not valid YAML: a tag stands where none can; look for !",
            ),
            ("merge of a scalar", "a: {<<: 1}", "error: t.yml:1: a.<<: << wants a map or a list of maps"),
        ];
        for (what, text, ending) in table {
            let (_, problems) = parse("t.yml", text);
            assert_eq!(problems.len(), 1, "{what}: {problems:?}");
            let line = problems[0].to_string();
            assert!(line.ends_with(ending), "{what}: {line}");
        }
    }

    #[test]
    fn every_value_knows_its_line() {
        let (document, _) = parse("t.yml", "a:\n  - b: 1\n  - c:\n      d: 2\n");
        let c = &document.root.child("a").unwrap().items()[1];
        assert_eq!((c.line, c.column), (3, 5));
        assert_eq!(c.child("c").unwrap().child("d").unwrap().line, 4);
    }

    proptest::proptest! {
        #[test]
        fn no_text_whatever_makes_the_parser_panic(text in "[-a-c:{}\\[\\]&*!|>'\"%@`?#,<~ \n\t\\\\0-9\u{feff}é]{0,60}") {
            let (document, problems) = parse("t.yml", &text);
            proptest::prop_assert!(problems.is_empty() || !document.file.is_empty());
        }
    }

    #[test]
    fn json_may_write_a_character_in_two_escapes() {
        for (json, expected) in [
            (r#"{"a": "\ud83d\ude00"}"#, Some("\u{1f600}")),
            (r#"{"a": "x\uD83D\uDE00y\u00e9"}"#, Some("x\u{1f600}y\u{e9}")),
            (r#"{"a": "\\ud83d\\ude00"}"#, Some(r"\ud83d\ude00")),
            (r#"{"a": "\u0041\u0042"}"#, Some("AB")),
            (r#"{"a": "\ud83d"}"#, None),
            (r#"{"a": "\ude00\ud83d"}"#, None),
        ] {
            let (document, problems) = parse("t.json", json);
            let text = document.root.child("a").and_then(Node::scalar).map(|scalar| scalar.text.as_str());
            assert_eq!(text, expected, "{json}: {problems:?}");
            assert_eq!(problems.is_empty(), expected.is_some(), "{json}");
        }
    }
}
