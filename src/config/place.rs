//! A position in a document, kept by the settings made from it, so that a later finding can name file, key and line.

use std::fmt;
use std::sync::Arc;

use super::node::{Document, Node, Step, key_text};
use super::problem::{Problem, Severity};

/// A key of a document. Cheap to clone; equal to any other place, as where a setting stands is no part of what it says.
#[derive(Clone, Default)]
pub struct Place {
    document: Arc<Document>,
    steps: Vec<Step>,
}

impl Place {
    /// The top of a document.
    pub fn root(document: &Arc<Document>) -> Place {
        Place { document: Arc::clone(document), steps: Vec::new() }
    }

    /// A key below this one; it need not be there.
    pub fn child(&self, key: &str) -> Place {
        self.down(Step::Key(key.to_owned()))
    }

    /// An item of the list here.
    pub fn item(&self, index: usize) -> Place {
        self.down(Step::Index(index))
    }

    /// The item of the list here that reads so, if the file has one.
    pub fn item_reading(&self, text: &str) -> Option<Place> {
        let reads = |node: &Node| node.scalar().is_some_and(|scalar| scalar.text == text);
        self.node()?.items().iter().position(reads).map(|index| self.item(index))
    }

    pub(super) fn down(&self, step: Step) -> Place {
        let mut place = self.clone();
        place.steps.push(step);
        place
    }

    /// An error at this key. Where the key is not in the file, the line is that of the nearest section which is.
    pub fn error(&self, message: impl Into<String>, remedy: impl Into<String>) -> Problem {
        Problem {
            severity: Severity::Error,
            file: self.document.file.clone(),
            key: self.key(),
            line: self.line(),
            message: message.into(),
            remedy: remedy.into(),
        }
    }

    /// A warning at this key.
    pub fn warning(&self, message: impl Into<String>, remedy: impl Into<String>) -> Problem {
        self.error(message, remedy).as_warning()
    }

    /// The file as problems name it.
    pub fn file(&self) -> &str {
        &self.document.file
    }

    /// The key as text, like `gateway.routes[2].target`.
    pub fn key(&self) -> String {
        key_text(&self.steps)
    }

    /// The line, from 1, where the document has one.
    pub fn line(&self) -> Option<u32> {
        let (_, line) = self.walk();
        (line > 0).then_some(line)
    }

    /// Whether the file has this key.
    pub fn is_present(&self) -> bool {
        self.walk().0.is_some()
    }

    pub(super) fn node(&self) -> Option<&Node> {
        self.walk().0
    }

    fn walk(&self) -> (Option<&Node>, u32) {
        let mut node = &self.document.root;
        let mut line = node.line;
        for step in &self.steps {
            match node.step(step) {
                Some((below, at)) => (node, line) = (below, at),
                None => return (None, line),
            }
        }
        (Some(node), line)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.file(), self.key())
    }
}

impl PartialEq for Place {
    fn eq(&self, _: &Place) -> bool {
        true
    }
}

impl Eq for Place {}
