//! A parsed document as a tree in which every value knows its line.

/// One file's content.
#[derive(Debug, Default)]
pub struct Document {
    /// The file as problems name it.
    pub file: String,
    /// Its root; `Null` for an empty file.
    pub root: Node,
}

/// A value and where it stands.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// Line, from 1; 0 when it does not come from a file.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// What stands there.
    pub value: Value,
}

/// What a node holds.
#[derive(Debug, Clone, Default)]
pub enum Value {
    /// Nothing, `~`, `null`.
    #[default]
    Null,
    /// Any single value.
    Scalar(Scalar),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in file order; keys are unique.
    Map(Vec<Entry>),
}

/// A scalar as it was written; what it means depends on what is wanted (see `scalar.rs`).
#[derive(Debug, Clone)]
pub struct Scalar {
    /// The text after YAML's own unquoting.
    pub text: String,
    /// How it was written.
    pub style: Style,
}

/// How a scalar was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Bare: may be read as number or boolean.
    Plain,
    /// In quotes or as a block: a string.
    Quoted,
    /// Decrypted: a plain value that no message may show.
    Sealed,
}

/// A key of a mapping with its value.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key's text, whatever its type was.
    pub key: String,
    /// Line of the key, from 1.
    pub line: u32,
    /// Its value.
    pub node: Node,
}

/// One step down the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Into a mapping.
    Key(String),
    /// Into a list.
    Index(usize),
}

impl Node {
    /// A node for a value that stands where `self` stands.
    pub fn with(&self, value: Value) -> Node {
        Node { line: self.line, column: self.column, value }
    }

    /// A scalar that stands where `self` stands.
    pub fn with_text(&self, text: &str, style: Style) -> Node {
        self.with(Value::Scalar(Scalar { text: text.to_owned(), style }))
    }

    /// Whether nothing is there.
    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// Entries of a mapping; none for anything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// Items of a list; none for anything else.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// Items of a list to change; none for anything else.
    pub fn items_mut(&mut self) -> &mut [Node] {
        match &mut self.value {
            Value::List(items) => items,
            _ => &mut [],
        }
    }

    /// The scalar, if it is one.
    pub fn scalar(&self) -> Option<&Scalar> {
        match &self.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// The value of a key.
    pub fn child(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// The value of a key to change.
    pub fn child_mut(&mut self, key: &str) -> Option<&mut Node> {
        match &mut self.value {
            Value::Map(entries) => entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.node),
            _ => None,
        }
    }

    /// Takes a key out of a mapping.
    pub fn remove(&mut self, key: &str) -> Option<Entry> {
        match &mut self.value {
            Value::Map(entries) => {
                let at = entries.iter().position(|entry| entry.key == key)?;
                Some(entries.remove(at))
            }
            _ => None,
        }
    }

    /// Puts a value under a key, in place of what was there. Turns `Null` into a mapping; leaves other values alone.
    pub fn insert(&mut self, key: &str, node: Node) {
        if self.is_null() {
            self.value = Value::Map(Vec::new());
        }
        if let Value::Map(entries) = &mut self.value {
            entries.retain(|entry| entry.key != key);
            entries.push(Entry { key: key.to_owned(), line: node.line, node });
        }
    }

    /// The mapping under a key, made when it is not there; it then stands at `line`.
    pub fn section(&mut self, key: &str, line: u32) -> Option<&mut Node> {
        if self.child(key).is_none() {
            self.insert(key, Node { line, column: 1, value: Value::Map(Vec::new()) });
        }
        self.child_mut(key)
    }

    /// The node one step down, and the line of the step: a key's own line, an item's first line.
    pub fn step(&self, step: &Step) -> Option<(&Node, u32)> {
        match step {
            Step::Key(key) => {
                let entry = self.entries().iter().find(|entry| entry.key == *key)?;
                Some((&entry.node, entry.line))
            }
            Step::Index(index) => self.items().get(*index).map(|node| (node, node.line)),
        }
    }
}

/// The steps as text: `gateway.routes[2].target`.
pub fn key_text(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => {
                text.push('.');
                text.push_str(key);
            }
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}
