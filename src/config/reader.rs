//! One file after the other: from bytes to a tree, from a tree to routes and middlewares; problems are gathered on the way.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::expand::{self, Env};
use super::legacy;
use super::lenient::{Typo, decode};
use super::middleware::Middleware;
use super::node::{Document, Node, Value};
use super::parse::parse;
use super::place::Place;
use super::problem::{Problem, Report};
use super::route::Route;
use super::scalar::Mode;
use super::secret::unseal_document;

/// What has been read so far, beside the configuration itself.
pub(super) struct Reader<'a> {
    pub(super) env: &'a Env,
    pub(super) report: Report,
    /// The files read so far: problems are told in this order.
    pub(super) files: Vec<String>,
}

/// Whether variables in a file's text are filled in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    Expanded,
    AsItIs,
}

impl<'a> Reader<'a> {
    /// Nothing has been read.
    pub(super) fn new(env: &'a Env) -> Reader<'a> {
        Reader { env, report: Report::default(), files: Vec::new() }
    }

    pub(super) fn misplaced(&mut self, top: &Place, section: &str, message: &str, remedy: &str) {
        let at = top.child(section);
        if at.is_present() {
            self.report.add(at.warning(message, remedy));
        }
    }

    /// A file as a tree in today's keys with nothing encrypted in it.
    pub(super) fn read(&mut self, path: &Path, how: Text) -> Option<Arc<Document>> {
        let name = path.display().to_string();
        self.files.push(name.clone());
        let text = match fs::read(path).map(String::from_utf8) {
            Ok(Ok(text)) => text,
            Ok(Err(_)) => {
                self.report.add(Problem::in_file(name, "is not UTF-8 text", "save it as UTF-8"));
                return None;
            }
            Err(error) => {
                let remedy = "check the path and who may read it";
                self.report.add(Problem::in_file(name, format!("cannot be read: {error}"), remedy));
                return None;
            }
        };
        let text = match how {
            Text::Expanded => {
                let (text, problems) = expand::file(&name, &text, self.env);
                self.report.extend(problems);
                text
            }
            Text::AsItIs => text,
        };
        let (mut document, problems) = parse(&name, &text);
        self.report.extend(problems);
        self.report.extend(legacy::modernise(&mut document));
        self.report.extend(unseal_document(&mut document, self.env));
        Some(Arc::new(document))
    }

    pub(super) fn decode<T: DeserializeOwned>(&mut self, node: &Node, at: &Place) -> Option<T> {
        let decoded = decode(node, at, Mode::Document, Typo::Warn);
        self.report.extend(decoded.problems);
        decoded.value
    }

    /// Each route is decoded by itself, so that a wrong value costs only its own route a second pass.
    pub(super) fn routes(&mut self, holder: Option<&Node>, at: &Place, into: &mut Vec<Route>) {
        let at = at.child("routes");
        for (index, node) in self.items(holder.and_then(|node| node.child("routes")), &at) {
            let place = at.item(index);
            if let Some(mut route) = self.decode::<Route>(node, &place) {
                route.settle(place);
                into.push(route);
            }
        }
    }

    pub(super) fn middlewares(&mut self, holder: &Node, at: &Place, into: &mut Vec<Middleware>) {
        let at = at.child("middlewares");
        for (index, node) in self.items(holder.child("middlewares"), &at) {
            let place = at.item(index);
            if let Some(mut middleware) = self.decode::<Middleware>(node, &place) {
                middleware.settle(place);
                into.push(middleware);
            }
        }
    }

    pub(super) fn items<'n>(
        &mut self,
        list: Option<&'n Node>,
        at: &Place,
    ) -> impl Iterator<Item = (usize, &'n Node)> + use<'n> {
        let items: &[Node] = match list.map(|node| &node.value) {
            None | Some(Value::Null) => &[],
            Some(Value::List(items)) => items,
            Some(_) => {
                self.report.add(at.error("expected a list", "begin each item with a dash"));
                &[]
            }
        };
        items.iter().enumerate()
    }

    /// The report in the order in which an operator would look: file by file, line by line.
    pub(super) fn finish(self) -> Report {
        let Reader { mut report, files, .. } = self;
        let rank = |problem: &Problem| {
            let file = files.iter().position(|file| *file == problem.file);
            (file.unwrap_or(files.len()), problem.line)
        };
        report.errors.sort_by_cached_key(rank);
        report.warnings.sort_by_cached_key(rank);
        report
    }
}
