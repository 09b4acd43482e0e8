//! The index of a table: a tree over path segments with a host table at each node.
//!
//! Nodes hold *slots*: a pattern under one of its hosts, with its place in the order of all slots. A search looks for
//! the slot with the smallest place that matches. It goes to the more specific branch first and leaves out every
//! branch whose smallest place is not smaller than what it has; without priorities the first hit ends it.

use regex::Regex;

use super::hash::Map;
use super::host::{Asked, HostPattern, Kind};
use super::path::Segment;

#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    /// Smallest place of any slot at this node or below.
    least: u32,
    literals: Map<u32>,
    placeholder: Option<u32>,
    matching: Vec<Matching>,
    hosts: Hosts,
    /// Name of the placeholder, to notice a second one.
    name: Box<str>,
}

#[derive(Debug)]
struct Matching {
    text: Box<str>,
    regex: Regex,
    node: u32,
}

/// The slots of one node by their host, each list in order.
#[derive(Debug, Default)]
struct Hosts {
    named: Map<Vec<Slot>>,
    wildcards: Map<Vec<Slot>>,
    any: Vec<Slot>,
}

/// A pattern under one of its hosts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    /// Place in the order of all slots.
    pub(super) place: u32,
    /// Index of the pattern.
    pub(super) entry: u32,
    pub(super) port: Option<u16>,
    pub(super) one_label: bool,
    pub(super) exact: bool,
    pub(super) any_method: bool,
}

/// One look-up. `accepts` answers for slots that are bound to certain methods.
pub(super) struct Search<'a, F> {
    pub(super) host: &'a Asked<'a>,
    pub(super) accepts: F,
    /// The best slot so far that takes the request.
    pub(super) best: Option<Slot>,
    /// The best slot so far that would, had the request another method.
    pub(super) refused: Option<Slot>,
}

impl Tree {
    pub(super) fn new() -> Self {
        Self { nodes: vec![Node::new()] }
    }

    /// Finds or makes the node of a path.
    ///
    /// # Errors
    /// The name that an earlier path gave to the placeholder at the same position.
    pub(super) fn node(&mut self, segments: &[Segment]) -> Result<u32, String> {
        let mut at = 0;
        for segment in segments {
            let new = index(self.nodes.len());
            let node = &mut self.nodes[at as usize];
            let next = node.child(segment, new)?;
            if next == new {
                self.nodes.push(Node::new());
            }
            at = next;
        }
        Ok(at)
    }

    /// Puts a slot under a node. Slots must come in the order of their places.
    ///
    /// Gives the first pattern with exactly the same host that `hides` this one, if there is one.
    pub(super) fn insert(
        &mut self,
        node: u32,
        host: &HostPattern,
        slot: Slot,
        hides: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let hosts = &mut self.nodes[node as usize].hosts;
        let list = match host.kind {
            Kind::Named => hosts.named.entry(host.name.clone()).or_default(),
            Kind::OneLabel | Kind::Labels => hosts.wildcards.entry(host.name.clone()).or_default(),
            Kind::Any => &mut hosts.any,
        };
        let same = |other: &&Slot| other.port == slot.port && other.one_label == slot.one_label;
        let first = list.iter().filter(same).find(|other| hides(other.entry));
        let first = first.copied();
        // What is hidden for every method can never answer; the list stays short however often a path repeats.
        if !first.is_some_and(|first| first.any_method) {
            list.push(slot);
        }
        first.map(|first| first.entry)
    }

    /// Notes at each node the smallest place below it. To be called once, after the last slot.
    pub(super) fn seal(&mut self) {
        // A child is always made after its parent, so going backwards sees children first.
        for at in (0..self.nodes.len()).rev() {
            let node = &self.nodes[at];
            let below = node.children().map(|child| self.nodes[child as usize].least);
            let least = below.chain(node.hosts.places()).min();
            self.nodes[at].least = least.unwrap_or(u32::MAX);
        }
    }

    /// Looks for a path: `None` for `/`, else what follows its first slash.
    pub(super) fn search<F: Fn(u32) -> bool>(&self, path: Option<&str>, search: &mut Search<'_, F>) {
        self.walk(0, path, search);
    }

    fn walk<F: Fn(u32) -> bool>(&self, at: u32, path: Option<&str>, search: &mut Search<'_, F>) {
        let node = &self.nodes[at as usize];
        if search.is_settled(node.least) {
            return;
        }
        if let Some(path) = path {
            let (segment, rest) = first_segment(path);
            if let Some(child) = node.literals.get(segment) {
                self.walk(*child, rest, search);
            }
            if !segment.is_empty() {
                for matching in &node.matching {
                    let child = &self.nodes[matching.node as usize];
                    if !search.is_settled(child.least) && matching.regex.is_match(segment) {
                        self.walk(matching.node, rest, search);
                    }
                }
                if let Some(child) = node.placeholder {
                    self.walk(child, rest, search);
                }
            }
        }
        node.hosts.look_up(path.is_none(), search);
    }
}

impl Node {
    fn new() -> Self {
        Self {
            least: u32::MAX,
            literals: Map::default(),
            placeholder: None,
            matching: Vec::new(),
            hosts: Hosts::default(),
            name: "".into(),
        }
    }

    /// The child for a segment, which is `new` if there was none.
    fn child(&mut self, segment: &Segment, new: u32) -> Result<u32, String> {
        match segment {
            Segment::Literal(text) => Ok(*self.literals.entry(text.clone()).or_insert(new)),
            Segment::Placeholder(name) if self.placeholder.is_none() => {
                self.name = name.clone();
                Ok(*self.placeholder.insert(new))
            }
            Segment::Placeholder(name) if *name != self.name => Err(self.name.to_string()),
            Segment::Placeholder(_) => Ok(self.placeholder.unwrap_or(new)),
            Segment::Matching { text, regex } => Ok(self.matching_child(text, regex, new)),
        }
    }

    fn matching_child(&mut self, text: &str, regex: &Regex, new: u32) -> u32 {
        if let Some(known) = self.matching.iter().find(|known| *known.text == *text) {
            return known.node;
        }
        self.matching.push(Matching { text: text.into(), regex: regex.clone(), node: new });
        new
    }

    fn children(&self) -> impl Iterator<Item = u32> {
        let literals = self.literals.values().copied();
        let matching = self.matching.iter().map(|matching| matching.node);
        literals.chain(matching).chain(self.placeholder)
    }
}

impl Hosts {
    fn places(&self) -> impl Iterator<Item = u32> {
        let lists = self.named.values().chain(self.wildcards.values());
        let firsts = lists.filter_map(|list| list.first());
        firsts.chain(self.any.first()).map(|slot| slot.place)
    }

    fn look_up<F: Fn(u32) -> bool>(&self, at_end: bool, search: &mut Search<'_, F>) {
        if !self.named.is_empty()
            && let Some(slots) = self.named.get(&*search.host.name)
        {
            search.offer(slots, at_end, false);
        }
        if !self.wildcards.is_empty() {
            let host = search.host;
            for (depth, suffix) in host.suffixes().enumerate() {
                if let Some(slots) = self.wildcards.get(suffix) {
                    search.offer(slots, at_end, depth > 0);
                }
            }
        }
        search.offer(&self.any, at_end, false);
    }
}

impl<F: Fn(u32) -> bool> Search<'_, F> {
    /// Can nothing from this place on be better?
    fn is_settled(&self, least: u32) -> bool {
        self.best.is_some_and(|best| best.place <= least)
    }

    /// Takes the first slot that matches, if it is better than what is known. `deep`: the wildcard stands for more
    /// than one label.
    fn offer(&mut self, slots: &[Slot], at_end: bool, deep: bool) {
        for slot in slots {
            if self.is_settled(slot.place) {
                return;
            }
            let matches = (!slot.exact || at_end)
                && (!slot.one_label || !deep)
                && (slot.port.is_none() || slot.port == self.host.port);
            if matches && (slot.any_method || (self.accepts)(slot.entry)) {
                self.best = Some(*slot);
                return;
            }
            if matches && self.refused.is_none_or(|known| slot.place < known.place) {
                self.refused = Some(*slot);
            }
        }
    }
}

/// The first segment of a path without its slash at the start, and what follows the slash after it.
pub(super) fn first_segment(path: &str) -> (&str, Option<&str>) {
    match memchr::memchr(b'/', path.as_bytes()) {
        Some(at) => (&path[..at], Some(&path[at + 1..])),
        None => (path, None),
    }
}

/// Nodes and patterns are counted in 32 bits.
fn index(len: usize) -> u32 {
    u32::try_from(len).expect("a table of four thousand million nodes does not fit into memory")
}
