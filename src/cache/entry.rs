//! One stored response, and what it costs to keep.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use pingora_http::ResponseHeader;

use super::freshness::Terms;
use super::vary::Selecting;

/// A response as it is stored. Never changed: what is freshened is replaced, and shares its body.
pub struct Entry {
    /// Its head: no field of a connection, none that the response keeps to one client.
    pub head: ResponseHeader,
    /// Its body, whole.
    pub body: Body,
    /// When it may be used.
    pub terms: Terms,
    /// Which of the variants of its URL it is.
    pub variant: u128,
    /// Headers that select among them.
    pub selecting: Arc<Selecting>,
    /// What it is about, for purges.
    pub subject: Arc<Subject>,
    /// Its place in the queues of the store.
    pub(super) node: Arc<Node>,
    /// Whether somebody fetches it anew.
    refreshing: AtomicBool,
}

/// A whole body: stored once, served without copying.
#[derive(Clone, Debug, Default)]
pub struct Body {
    blocks: Arc<[Bytes]>,
    length: usize,
}

/// What a purge may go by.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Host and path: `shop.example/a/b`. Without the query.
    pub place: Box<str>,
    /// Values of `Cache-Tag` and `Surrogate-Key`.
    pub tags: Box<[Box<str>]>,
}

/// Where an entry is in the queues of the store. Outlives its entry there, so it is small.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub key: u128,
    pub variant: u128,
    /// Uses since it was last looked at, up to 3.
    pub uses: AtomicU8,
    /// Bytes that count for it.
    pub weight: AtomicU32,
    /// It is in the store no more.
    pub gone: AtomicBool,
}

impl Entry {
    /// An entry that is not yet in a store.
    pub fn new(
        head: ResponseHeader,
        body: Body,
        terms: Terms,
        variant: u128,
        selecting: Arc<Selecting>,
        subject: Arc<Subject>,
    ) -> Entry {
        let refreshing = AtomicBool::new(false);
        Entry { head, body, terms, variant, selecting, subject, node: Arc::default(), refreshing }
    }

    /// The same with another head and terms.
    pub fn renewed(&self, head: ResponseHeader, terms: Terms) -> Entry {
        let subject = Arc::new(Subject { place: self.subject.place.clone(), tags: tags(&head.headers) });
        Entry::new(head, self.body.clone(), terms, self.variant, self.selecting.clone(), subject)
    }

    /// The same, stale from now on.
    pub fn expired(&self, now: u64) -> Entry {
        let terms = Terms { fresh_until: self.terms.fresh_until.min(now), ..self.terms };
        let (selecting, subject) = (self.selecting.clone(), self.subject.clone());
        Entry::new(self.head.clone(), self.body.clone(), terms, self.variant, selecting, subject)
    }

    /// Whether the caller is the one that fetches it anew.
    pub fn begin_refresh(&self) -> bool {
        !self.refreshing.swap(true, Relaxed)
    }

    /// The refresh has come to nothing: another one may try.
    pub fn end_refresh(&self) {
        self.refreshing.store(false, Relaxed);
    }

    /// Age in milliseconds.
    pub fn age(&self, now: u64) -> u64 {
        now.saturating_sub(self.terms.born)
    }

    /// How long it is fresh from now on, in milliseconds.
    pub fn left(&self, now: u64) -> u64 {
        self.terms.fresh_until.saturating_sub(now)
    }

    /// Bytes that it takes: body, head and what it costs to keep them.
    pub fn weight(&self) -> usize {
        let tags: usize = self.subject.tags.iter().map(|tag| class(tag.len()) + 16).sum();
        self.body.weight() + head_weight(&self.head) + class(self.subject.place.len()) + tags + OVERHEAD
    }
}

/// Entry, node, subject, their places in the index and in a queue. Measured with a million small entries.
const OVERHEAD: usize = 640;

/// Bytes of a head: its table, which grows by doubling, and one block with all values.
fn head_weight(head: &ResponseHeader) -> usize {
    let fields = head.headers.len();
    let custom: usize =
        head.headers.keys().map(|name| if is_custom(name) { class(name.as_str().len()) + 32 } else { 0 }).sum();
    let values: usize = head.headers.values().map(HeaderValue::len).sum();
    let slots = (fields.max(4) * 4 / 3 + 1).next_power_of_two();
    class(slots * 4) + class(fields * 104) + class(values) + custom + 32
}

fn is_custom(name: &HeaderName) -> bool {
    name.as_str().starts_with("x-") || name.as_str().len() > 20
}

/// What the allocator gives for a size: four classes in each doubling.
fn class(size: usize) -> usize {
    if size <= 128 {
        return size.next_multiple_of(16);
    }
    let step = size.next_power_of_two() / 8;
    size.next_multiple_of(step.max(16))
}

impl Body {
    /// Puts pieces together in blocks of at most [`BLOCK`].
    pub fn of(pieces: &[Bytes]) -> Body {
        let length = pieces.iter().map(Bytes::len).sum();
        if let ([piece], true) = (pieces, length <= BLOCK) {
            return Body { blocks: [piece.clone()].into(), length };
        }
        let mut blocks = Vec::with_capacity(length / BLOCK + 1);
        let mut left: usize = length;
        let mut block = BytesMut::with_capacity(left.min(BLOCK));
        for piece in pieces {
            let mut piece = &piece[..];
            while !piece.is_empty() {
                let (part, rest) = piece.split_at(piece.len().min(BLOCK - block.len()));
                block.put_slice(part);
                piece = rest;
                left -= part.len();
                if block.len() == BLOCK {
                    let next = BytesMut::with_capacity(left.min(BLOCK));
                    blocks.push(std::mem::replace(&mut block, next).freeze());
                }
            }
        }
        if !block.is_empty() {
            blocks.push(block.freeze());
        }
        Body { blocks: blocks.into(), length }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has no byte.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Its blocks.
    pub fn blocks(&self) -> &[Bytes] {
        &self.blocks
    }

    /// The next block of a range, cut to it; moves `from`.
    pub fn read(&self, from: &mut usize, to: usize) -> Option<Bytes> {
        let to = to.min(self.length);
        if *from >= to {
            return None;
        }
        let block = self.blocks.get(*from / BLOCK)?;
        let start = *from % BLOCK;
        let end = block.len().min(start + (to - *from));
        *from += end - start;
        Some(block.slice(start..end))
    }

    fn weight(&self) -> usize {
        self.blocks.iter().map(|block| class(block.len()) + 64).sum()
    }
}

/// Size of a block of a body. Each goes to the client in one write.
pub const BLOCK: usize = 256 * 1024;

/// What is stored of a head: without the fields of the connection, those that the response keeps to one client, and its age,
/// with a date. Values are copied, so that no read buffer stays for their sake.
pub fn head(status: StatusCode, headers: &HeaderMap, private: &[HeaderName], came: u64) -> ResponseHeader {
    let nominated: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    let stays = |name: &HeaderName| !dropped(name) && !nominated.contains(name) && !private.contains(name);
    let kept = || headers.iter().filter(|(name, _)| stays(name));
    let mut values = BytesMut::with_capacity(kept().map(|(_, value)| value.len()).sum());
    kept().for_each(|(_, value)| values.put_slice(value.as_bytes()));
    let mut values = values.freeze();
    let mut map = HeaderMap::with_capacity(kept().count() + 1);
    for (name, value) in kept() {
        // These bytes were a header value before.
        let Ok(copy) = HeaderValue::from_maybe_shared(values.split_to(value.len())) else { continue };
        map.append(name.clone(), copy);
    }
    if !map.contains_key(header::DATE) {
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(came);
        if let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(at)) {
            map.insert(header::DATE, date);
        }
    }
    of_map(status, map)
}

/// A head of these fields.
pub fn of_map(status: StatusCode, map: HeaderMap) -> ResponseHeader {
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = status;
    parts.headers = map;
    parts.into()
}

/// Fields of the connection (RFC 9110 §7.6.1, RFC 9111 §3.1), and those that are made for each response.
fn dropped(name: &HeaderName) -> bool {
    const OF_THE_CONNECTION: [&str; 5] =
        ["keep-alive", "proxy-connection", "proxy-authentication-info", "proxy-authorization", "trailer"];
    matches!(
        *name,
        header::CONNECTION
            | header::TRANSFER_ENCODING
            | header::TE
            | header::UPGRADE
            | header::PROXY_AUTHENTICATE
            | header::AGE
    ) || OF_THE_CONNECTION.contains(&name.as_str())
        || OURS.contains(&name.as_str())
}

/// Fields that say what this cache did.
const OURS: [&str; 4] = ["x-goma-cache", "x-goma-cache-max-age", "x-cache-status", "x-goma-request-id"];

/// The stored head with what a 304 or the response to a HEAD says. RFC 9111 §3.2.
pub fn updated(stored: &ResponseHeader, news: &HeaderMap, private: &[HeaderName], came: u64) -> ResponseHeader {
    let mut map = stored.headers.clone();
    let fresh = head(stored.status, news, private, came);
    for name in fresh.headers.keys() {
        if !KEPT.contains(name) {
            map.remove(name);
        }
    }
    for (name, value) in &fresh.headers {
        if !KEPT.contains(name) {
            map.append(name.clone(), value.clone());
        }
    }
    head(stored.status, &map, &[], came)
}

/// What describes the stored bytes: a 304 does not change it. RFC 9111 §3.2, RFC 9110 §15.4.5.
const KEPT: [HeaderName; 6] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    HeaderName::from_static("content-md5"),
    header::ETAG,
    // What is for one client is not for the others.
    header::SET_COOKIE,
];

/// The tags of a response: words of `Surrogate-Key`, members of `Cache-Tag`.
pub fn tags(headers: &HeaderMap) -> Box<[Box<str>]> {
    let mut tags: Vec<Box<str>> = Vec::new();
    for name in ["cache-tag", "surrogate-key"] {
        for line in headers.get_all(name).iter().filter_map(|line| line.to_str().ok()) {
            let words = line.split([',', ' ']).filter(|word| !word.is_empty() && word.len() <= 1024);
            tags.extend(words.map(Box::from));
        }
    }
    tags.sort_unstable();
    tags.dedup();
    tags.truncate(MOST_TAGS);
    tags.into()
}

/// More tags than these of one response do not count.
const MOST_TAGS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_read_in_blocks_from_anywhere() {
        let whole: Vec<u8> = (0..BLOCK * 2 + 77).map(|i| (i % 251) as u8).collect();
        let pieces: Vec<Bytes> = whole.chunks(100_003).map(Bytes::copy_from_slice).collect();
        let body = Body::of(&pieces);
        assert_eq!((body.len(), body.blocks().len()), (whole.len(), 3));
        for (from, to) in [(0, whole.len()), (0, 1), (BLOCK - 1, BLOCK + 1), (BLOCK, BLOCK * 2), (5, usize::MAX)] {
            let (mut at, mut read) = (from, Vec::new());
            while let Some(block) = body.read(&mut at, to) {
                read.extend_from_slice(&block);
            }
            assert_eq!(read, whole[from..to.min(whole.len())], "{from}..{to}");
        }
        assert!(Body::of(&[]).is_empty() && Body::of(&[]).read(&mut 0, 5).is_none());
    }

    /// RFC 9111 §3.1, §3.2.
    #[test]
    fn connection_fields_are_not_stored_and_updates_leave_the_body_s_description() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "x-hop, close"),
            ("x-hop", "1"),
            ("keep-alive", "5"),
            ("age", "3"),
            ("x-private", "p"),
            ("x-a", "1"),
            ("x-a", "2"),
            ("content-length", "3"),
        ] {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        let stored = head(StatusCode::OK, &headers, &["x-private".parse().unwrap()], 0);
        let names: Vec<&str> = stored.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-a", "content-length", "date"]);
        let news = HeaderMap::from_iter([
            ("x-a".parse::<HeaderName>().unwrap(), "9".parse().unwrap()),
            (header::CONTENT_LENGTH, "0".parse().unwrap()),
            (header::EXPIRES, "never".parse().unwrap()),
        ]);
        let updated = updated(&stored, &news, &[], 1);
        assert_eq!(updated.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["9"]);
        assert_eq!(updated.headers["content-length"], "3");
        assert_eq!(updated.headers["expires"], "never");
    }

    #[test]
    fn tags_come_from_both_headers() {
        let headers = HeaderMap::from_iter([
            ("cache-tag".parse::<HeaderName>().unwrap(), "a, b".parse().unwrap()),
            ("surrogate-key".parse().unwrap(), "b c".parse().unwrap()),
        ]);
        assert_eq!(tags(&headers).iter().map(|tag| &**tag).collect::<Vec<_>>(), ["a", "b", "c"]);
    }

    #[test]
    fn sizes_are_those_of_the_allocator() {
        for (size, class_of_it) in
            [(1, 16), (100, 112), (129, 160), (1025, 1280), (100_000, 114_688), (262_144, 262_144)]
        {
            assert_eq!(class(size), class_of_it, "{size}");
        }
    }
}
