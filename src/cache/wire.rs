//! Entries and purges as bytes: what other gateways read from Redis. The format has a version in its key (`v1`); what does not
//! read as this version is not there.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use super::entry::{Body, Entry, Subject, of_map};
use super::freshness::Terms;
use super::vary::Selecting;
use super::zone::{Purge, What};

/// An entry without its body.
#[derive(Serialize, Deserialize)]
pub struct Meta {
    status: u16,
    /// Values as Latin-1, so that every byte has a character.
    headers: Vec<(String, String)>,
    born: u64,
    fresh_until: u64,
    swr: u64,
    sie: u64,
    must_revalidate: bool,
    no_cache: bool,
    place: String,
    tags: Vec<String>,
    /// When the backend was asked for it; later purges are about it.
    pub sent: u64,
    /// Length of the body.
    pub length: usize,
    /// Names the chunks of the body; 0 when it follows the meta data.
    pub chunks: u64,
}

impl Meta {
    /// What is to be written of an entry.
    pub fn of(entry: &Entry, sent: u64, chunks: u64) -> Meta {
        let value = |value: &HeaderValue| value.as_bytes().iter().map(|byte| char::from(*byte)).collect();
        let headers = entry.head.headers.iter().map(|(name, v)| (name.as_str().to_owned(), value(v))).collect();
        let terms = &entry.terms;
        Meta {
            status: entry.head.status.as_u16(),
            headers,
            born: terms.born,
            fresh_until: terms.fresh_until,
            swr: terms.stale_while_revalidate,
            sie: terms.stale_if_error,
            must_revalidate: terms.must_revalidate,
            no_cache: terms.no_cache,
            place: entry.subject.place.to_string(),
            tags: entry.subject.tags.iter().map(|tag| tag.to_string()).collect(),
            sent,
            length: entry.body.len(),
            chunks,
        }
    }

    /// The entry, with its body; `None` when it is none.
    pub fn entry(&self, body: Body, variant: u128, selecting: Arc<Selecting>) -> Option<Entry> {
        if body.len() != self.length {
            return None;
        }
        let mut map = HeaderMap::with_capacity(self.headers.len());
        for (name, value) in &self.headers {
            let bytes: Option<Vec<u8>> = value.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
            let value = HeaderValue::from_maybe_shared(Bytes::from(bytes?)).ok()?;
            map.append(HeaderName::from_bytes(name.as_bytes()).ok()?, value);
        }
        let terms = Terms {
            born: self.born,
            fresh_until: self.fresh_until,
            stale_while_revalidate: self.swr,
            stale_if_error: self.sie,
            must_revalidate: self.must_revalidate,
            no_cache: self.no_cache,
        };
        let head = of_map(StatusCode::from_u16(self.status).ok()?, map);
        Some(Entry::new(head, body, terms, variant, selecting, Arc::new(self.subject())))
    }

    /// What it is about.
    pub fn subject(&self) -> Subject {
        let tags = self.tags.iter().map(|tag| Box::from(tag.as_str())).collect();
        Subject { place: self.place.as_str().into(), tags }
    }

    /// As bytes, with a body that follows.
    pub fn write(&self, inline: &[Bytes]) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("texts and numbers always serialize");
        let mut bytes = Vec::with_capacity(4 + json.len() + inline.iter().map(Bytes::len).sum::<usize>());
        bytes.extend_from_slice(&u32::try_from(json.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(&json);
        inline.iter().for_each(|block| bytes.extend_from_slice(block));
        bytes
    }

    /// From bytes; what follows is the body, if there are no chunks.
    pub fn read(bytes: &Bytes) -> Option<(Meta, Bytes)> {
        let length = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let json = bytes.get(4..4usize.checked_add(length)?)?;
        Some((serde_json::from_slice(json).ok()?, bytes.slice(4 + length..)))
    }
}

/// A purge as applications publish it, too: `{"tag": "shoes"}`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Notice {
    #[serde(skip_serializing_if = "is_false")]
    all: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<String>,
    #[serde(skip_serializing_if = "is_false")]
    soft: bool,
    /// When it was, where a gateway says it; milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    /// Which gateway says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Notice {
    /// What is to be told of a purge.
    pub fn of(purge: &Purge, at: u64, from: &str) -> Notice {
        let mut notice = Notice {
            route: purge.route.clone(),
            soft: purge.soft,
            at: Some(at),
            from: Some(from.to_owned()),
            ..Notice::default()
        };
        match &purge.what {
            What::All => notice.all = true,
            What::Place(place) => notice.url = Some(place.clone()),
            What::Prefix(prefix) => notice.prefix = Some(prefix.clone()),
            What::Tag(tag) => notice.tag = Some(tag.clone()),
        }
        notice
    }

    /// Reads one.
    pub fn read(bytes: &[u8]) -> Option<Notice> {
        serde_json::from_slice(bytes).ok()
    }

    /// As bytes.
    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers always serialize")
    }

    /// What is to be purged; `None` when it names nothing, or several things.
    pub fn purge(&self) -> Option<Purge> {
        let mut named = [
            self.url.as_deref().map(What::place),
            self.prefix.as_deref().map(|prefix| What::place(&format!("{}*", prefix.trim_end_matches('*')))),
            self.tag.clone().map(What::Tag),
            self.all.then_some(What::All),
        ]
        .into_iter()
        .flatten();
        let what = match (named.next(), named.next()) {
            (Some(what), None) => what,
            (None, _) if self.route.is_some() => What::All,
            _ => return None,
        };
        Some(Purge { what, route: self.route.clone(), soft: self.soft })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_the_same_after_its_way_through_bytes() {
        let mut headers = HeaderMap::new();
        headers.append("x-a", HeaderValue::from_bytes(b"\xff\x80 a").unwrap());
        headers.append("x-a", HeaderValue::from_static("2"));
        let terms = Terms {
            born: 1,
            fresh_until: 2,
            stale_while_revalidate: 3,
            stale_if_error: 4,
            must_revalidate: true,
            no_cache: false,
        };
        let subject = Subject { place: "h/a".into(), tags: ["t".into()].into() };
        let body = Body::of(&[Bytes::from_static(b"body")]);
        let entry =
            Entry::new(of_map(StatusCode::NOT_FOUND, headers), body, terms, 7, Arc::default(), Arc::new(subject));
        let bytes = Bytes::from(Meta::of(&entry, 9, 0).write(entry.body.blocks()));
        let (meta, rest) = Meta::read(&bytes).unwrap();
        let read = meta.entry(Body::of(&[rest]), 7, Arc::default()).unwrap();
        assert_eq!((read.head.status, &read.head.headers), (entry.head.status, &entry.head.headers));
        assert_eq!((read.terms, &read.subject, meta.sent), (entry.terms, &entry.subject, 9));
        assert_eq!(read.body.blocks(), entry.body.blocks());
        for cut in 0..bytes.len() {
            let read = Meta::read(&bytes.slice(..cut));
            assert!(read.is_none_or(|(meta, rest)| meta.entry(Body::of(&[rest]), 7, Arc::default()).is_none()));
        }
    }

    #[test]
    fn what_applications_publish_is_a_purge_or_nothing() {
        for (text, what) in [
            (r#"{"tag": "shoes"}"#, Some(What::Tag("shoes".to_owned()))),
            (r#"{"url": "https://Shop/a?x=1", "soft": true}"#, Some(What::Place("shop/a".to_owned()))),
            (r#"{"prefix": "shop/a"}"#, Some(What::Prefix("shop/a".to_owned()))),
            (r#"{"route": "r"}"#, Some(What::All)),
            (r#"{"all": true}"#, Some(What::All)),
            (r#"{"all": true, "tag": "a"}"#, None),
            ("{}", None),
            ("tag", None),
        ] {
            let purge = Notice::read(text.as_bytes()).and_then(|notice| notice.purge());
            assert_eq!(purge.map(|purge| purge.what), what, "{text}");
        }
    }
}
