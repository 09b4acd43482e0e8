//! Reads a MaxMind database (format 2.0) for the country of each network, and nothing else.
//!
//! The whole file is walked once and turned into [`Lands`], so that a broken one is found when it is read and not by a
//! request, and a look-up decodes nothing. That is why this is no crate: the ones there are decode at each look-up, and stop
//! the thread at a truncated file. <https://maxmind.github.io/MaxMind-DB/>

use std::collections::HashMap;

use thiserror::Error;

use super::lands::{Borders, Country, Land, Lands};

/// What is wrong with a database.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Broken {
    /// There is no description at its end.
    #[error("is no MaxMind database, or cut off")]
    Metadata,
    /// The description asks for something else than version 2 of the format.
    #[error("is of a format that is not known here")]
    Format,
    /// A record leads out of the file.
    #[error("is damaged: a record leads out of the file")]
    Record,
    /// The tree is none.
    #[error("is damaged: the tree of networks has a loop")]
    Loop,
    /// A piece of data cannot be read.
    #[error("is damaged: data cannot be read")]
    Data,
    /// No network has a country.
    #[error("has no countries")]
    NoCountry,
}

const MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";
/// The description is within so many bytes of the end.
const METADATA_BYTES: usize = 128 << 10;
/// Zero bytes between tree and data.
const GAP: usize = 16;
/// Deepest nesting of data that is followed.
const DEPTH: usize = 32;

/// Reads a database.
///
/// # Errors
/// What is wrong with it, wherever that is.
pub fn read(file: &[u8]) -> Result<Lands, Broken> {
    let tail = file.len().saturating_sub(METADATA_BYTES);
    let marker = memchr::memmem::rfind(&file[tail..], MARKER).ok_or(Broken::Metadata)? + tail;
    let about = Data(&file[marker + MARKER.len()..]);
    let number = |key| about.number(0, &[key]).ok().flatten().ok_or(Broken::Metadata);
    let (nodes, bits, family) = (number("node_count")?, number("record_size")?, number("ip_version")?);
    let format = number("binary_format_major_version")?;
    if format != 2 || !matches!(bits, 24 | 28 | 32) || !matches!(family, 4 | 6) {
        return Err(Broken::Format);
    }
    let (nodes, node_bytes) = (usize::try_from(nodes).map_err(|_| Broken::Record)?, bits as usize / 4);
    let tree_bytes = nodes.checked_mul(node_bytes).filter(|bytes| bytes + GAP <= marker).ok_or(Broken::Record)?;
    let mut walk = Walk {
        tree: &file[..tree_bytes],
        node_bytes,
        nodes,
        data: Data(&file[tree_bytes + GAP..marker]),
        known: HashMap::new(),
        left: 4 * nodes + 1024,
    };
    let lands = if family == 4 { walk.v4(0)? } else { walk.both()? };
    if walk.known.values().all(Option::is_none) { Err(Broken::NoCountry) } else { Ok(lands) }
}

/// A walk through the tree of networks, in the order of addresses.
struct Walk<'a> {
    tree: &'a [u8],
    node_bytes: usize,
    nodes: usize,
    data: Data<'a>,
    /// Countries by where their data stands.
    known: HashMap<usize, Option<Country>>,
    /// Nodes that may still be visited: each is one network, but those that embed IPv4 are reached in several ways.
    left: usize,
}

impl Walk<'_> {
    fn v4(&mut self, root: usize) -> Result<Lands, Broken> {
        let mut borders = Borders::default();
        self.each(root, 32, None, &mut |start, land| borders.push(start as u32, land))?;
        Ok(Lands::new(borders, Borders::default()))
    }

    /// A tree of IPv6 holds the IPv4 addresses below 96 zero bits, and leads there from the networks that embed them.
    fn both(&mut self) -> Result<Lands, Broken> {
        let mut root = 0;
        for _ in 0..96 {
            if root < self.nodes {
                root = self.record(root, 0)?;
            }
        }
        let mut v4 = Borders::default();
        self.each(root, 32, None, &mut |start, land| v4.push(start as u32, land))?;
        let mut v6 = Borders::default();
        let embedded = (root < self.nodes).then_some(root);
        self.each(0, 128, embedded, &mut |start, land| v6.push(start, land))?;
        Ok(Lands::new(v4, v6))
    }

    /// Tells the networks below a node, from the first address to the last; where IPv4 begins it goes no further.
    fn each(
        &mut self,
        root: usize,
        bits: u8,
        embedded: Option<usize>,
        tell: &mut dyn FnMut(u128, Land),
    ) -> Result<(), Broken> {
        let mut waiting = vec![(root, 0u128, 0u8)];
        while let Some((node, start, depth)) = waiting.pop() {
            if embedded == Some(node) && depth <= 96 {
                tell(start, Land::Embedded(depth));
                continue;
            }
            if node >= self.nodes {
                let country = self.country(node)?;
                tell(start, country.map_or(Land::Nowhere, Land::In));
                continue;
            }
            self.left = self.left.checked_sub(1).filter(|_| depth < bits).ok_or(Broken::Loop)?;
            let middle = start | 1u128 << (bits - 1 - depth);
            waiting.push((self.record(node, 1)?, middle, depth + 1));
            waiting.push((self.record(node, 0)?, start, depth + 1));
        }
        Ok(())
    }

    /// One side of a node.
    fn record(&self, node: usize, side: usize) -> Result<usize, Broken> {
        let at = node * self.node_bytes;
        let node = self.tree.get(at..at + self.node_bytes).ok_or(Broken::Record)?;
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte));
        Ok(match (self.node_bytes, side) {
            (6, 0) => number(&node[..3]),
            (6, _) => number(&node[3..]),
            // Four bits of each side share the byte between them.
            (7, 0) => usize::from(node[3] >> 4) << 24 | number(&node[..3]),
            (7, _) => usize::from(node[3] & 15) << 24 | number(&node[4..]),
            (_, 0) => number(&node[..4]),
            (_, _) => number(&node[4..]),
        })
    }

    /// What a record beyond the nodes leads to.
    fn country(&mut self, record: usize) -> Result<Option<Country>, Broken> {
        if record == self.nodes {
            return Ok(None);
        }
        let at = record.checked_sub(self.nodes + GAP).filter(|at| *at < self.data.0.len()).ok_or(Broken::Record)?;
        if let Some(known) = self.known.get(&at) {
            return Ok(*known);
        }
        let mut code = self.data.text(at, &["country", "iso_code"])?;
        // Databases of others than MaxMind have it flat.
        for flat in ["country_code", "country"] {
            code = code.map_or_else(|| self.data.text(at, &[flat]), |code| Ok(Some(code)))?;
        }
        let country = code.and_then(Country::parse);
        self.known.insert(at, country);
        Ok(country)
    }
}

/// A section of data; offsets of pointers count from its start.
#[derive(Clone, Copy)]
struct Data<'a>(&'a [u8]);

/// The head of a value: its type, its size (or where a pointer leads), and where its content begins.
struct Head {
    kind: u8,
    size: usize,
    content: usize,
}

const POINTER: u8 = 1;
const TEXT: u8 = 2;
const MAP: u8 = 7;
const ARRAY: u8 = 11;
const END: u8 = 13;
const BOOLEAN: u8 = 14;

impl<'a> Data<'a> {
    /// The text at the end of a path of keys.
    fn text(self, at: usize, path: &[&str]) -> Result<Option<&'a str>, Broken> {
        let Some(head) = self.follow(at, path)? else { return Ok(None) };
        let text = (head.kind == TEXT).then(|| self.bytes(&head)).transpose()?;
        text.map(|text| std::str::from_utf8(text).map_err(|_| Broken::Data)).transpose()
    }

    /// The whole number at the end of a path of keys.
    fn number(self, at: usize, path: &[&str]) -> Result<Option<u64>, Broken> {
        let Some(head) = self.follow(at, path)? else { return Ok(None) };
        let number = matches!(head.kind, 5 | 6 | 9) && head.size <= 8;
        let fold = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        number.then(|| self.bytes(&head).map(fold)).transpose()
    }

    fn follow(self, at: usize, path: &[&str]) -> Result<Option<Head>, Broken> {
        let mut head = self.head(at)?;
        for key in path {
            if head.kind != MAP {
                return Ok(None);
            }
            match self.value(&head, key)? {
                Some(at) => head = self.head(at)?,
                None => return Ok(None),
            }
        }
        Ok(Some(head))
    }

    /// Where the value of a key begins.
    fn value(self, map: &Head, wanted: &str) -> Result<Option<usize>, Broken> {
        let mut at = map.content;
        for _ in 0..map.size {
            let key = self.head(at)?;
            let value = self.behind(at, 0)?;
            if key.kind == TEXT && self.bytes(&key)? == wanted.as_bytes() {
                return Ok(Some(value));
            }
            at = self.behind(value, 0)?;
        }
        Ok(None)
    }

    /// The head of a value, behind the pointer if there is one.
    fn head(self, at: usize) -> Result<Head, Broken> {
        let head = self.bare(at)?;
        if head.kind != POINTER {
            return Ok(head);
        }
        // A pointer to a pointer is not allowed.
        self.bare(head.size).ok().filter(|head| head.kind != POINTER).ok_or(Broken::Data)
    }

    fn bare(self, at: usize) -> Result<Head, Broken> {
        let (control, mut content) = (self.byte(at)?, at + 1);
        let mut kind = control >> 5;
        if kind == POINTER {
            let width = usize::from(control >> 3 & 3) + 1;
            let high = if width == 4 { 0 } else { usize::from(control & 7) };
            let offset = [0, 0, 2048, 526_336, 0][width];
            return Ok(Head { kind, size: self.number_at(content, width, high)? + offset, content: content + width });
        }
        if kind == 0 {
            kind = self.byte(content)?.checked_add(7).ok_or(Broken::Data)?;
            content += 1;
        }
        let (width, least) = match control & 31 {
            29 => (1, 29),
            30 => (2, 285),
            31 => (3, 65_821),
            size => return Ok(Head { kind, size: usize::from(size), content }),
        };
        Ok(Head { kind, size: least + self.number_at(content, width, 0)?, content: content + width })
    }

    /// Where the value that begins here ends.
    fn behind(self, at: usize, depth: usize) -> Result<usize, Broken> {
        let head = self.bare(at)?;
        let inner = match head.kind {
            POINTER | BOOLEAN | END => return Ok(head.content),
            MAP => 2 * head.size,
            ARRAY => head.size,
            _ => return head.content.checked_add(head.size).filter(|end| *end <= self.0.len()).ok_or(Broken::Data),
        };
        if depth == DEPTH {
            return Err(Broken::Data);
        }
        (0..inner).try_fold(head.content, |at, _| self.behind(at, depth + 1))
    }

    fn bytes(self, head: &Head) -> Result<&'a [u8], Broken> {
        head.content.checked_add(head.size).and_then(|end| self.0.get(head.content..end)).ok_or(Broken::Data)
    }

    fn byte(self, at: usize) -> Result<u8, Broken> {
        self.0.get(at).copied().ok_or(Broken::Data)
    }

    fn number_at(self, at: usize, width: usize, high: usize) -> Result<usize, Broken> {
        let bytes = self.0.get(at..at + width).ok_or(Broken::Data)?;
        Ok(bytes.iter().fold(high, |number, byte| number << 8 | usize::from(*byte)))
    }
}

#[cfg(test)]
mod tests;
