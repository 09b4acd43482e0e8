//! What is decided of a response when its head is there: it will be stored, under this key, on these terms.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderValue, header};
use pingora_cache::CacheMeta;
use pingora_http::ResponseHeader;

use super::entry::{Body, Entry, Subject};
use super::fill::Fill;
use super::freshness::Terms;
use super::vary::Selecting;

/// A response that is to be stored.
pub struct Prepared {
    /// Its key.
    pub key: u128,
    /// Which variant it is.
    pub variant: u128,
    /// Headers that select.
    pub selecting: Arc<Selecting>,
    /// What is stored of its head.
    pub head: ResponseHeader,
    /// When it may be used.
    pub terms: Terms,
    /// What it is about.
    pub subject: Arc<Subject>,
    /// The length that it says.
    pub declared: Option<usize>,
    /// The largest body that is stored.
    pub most: usize,
    /// The entry that the backend said is still good; its body stays.
    pub renews: Option<Arc<Entry>>,
    /// When it was asked for; a purge that came later is about it as well.
    pub sent: u64,
}

impl Prepared {
    /// The entry, with its body.
    pub fn entry(&self, body: Body) -> Entry {
        let mut map = self.head.headers.clone();
        // Without it, no part of it could be served.
        if !map.contains_key(header::CONTENT_LENGTH) && self.head.status != http::StatusCode::NO_CONTENT {
            map.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        let head = super::entry::of_map(self.head.status, map);
        Entry::new(head, body, self.terms, self.variant, self.selecting.clone(), self.subject.clone())
    }
}

/// What Pingora's meta data carries along for us.
#[derive(Clone)]
pub enum Carried {
    /// A response that is to be stored.
    Prepared(Arc<Prepared>),
    /// One that is stored.
    Entry(Arc<Entry>),
    /// One that is on its way.
    Fill(Arc<Fill>),
}

impl Carried {
    /// What a meta data carries.
    pub fn of(meta: &CacheMeta) -> Option<&Carried> {
        meta.extensions().get::<Carried>()
    }

    /// Headers that select among the variants.
    pub fn selecting(&self) -> &Arc<Selecting> {
        match self {
            Carried::Prepared(prepared) => &prepared.selecting,
            Carried::Entry(entry) => &entry.selecting,
            Carried::Fill(fill) => &fill.prepared.selecting,
        }
    }

    /// When it may be used.
    pub fn terms(&self) -> &Terms {
        match self {
            Carried::Prepared(prepared) => &prepared.terms,
            Carried::Entry(entry) => &entry.terms,
            Carried::Fill(fill) => &fill.prepared.terms,
        }
    }

    /// In the form that Pingora wants.
    ///
    /// Freshness is decided by us, request by request (`cache_hit_filter`, `should_serve_stale`); Pingora is told what lets it
    /// ask. All variants of a URL count as made at one time to it: purges know them all.
    pub fn meta(self) -> CacheMeta {
        let (head, variant) = match &self {
            Carried::Prepared(prepared) => (&prepared.head, prepared.variant),
            Carried::Entry(entry) => (&entry.head, entry.variant),
            Carried::Fill(fill) => (&fill.prepared.head, fill.prepared.variant),
        };
        let until = at(self.terms().fresh_until);
        let mut meta = CacheMeta::new(until, at(MADE), 0, FOR_EVER, head.clone());
        if !self.selecting().is_empty() {
            meta.set_variance(variant.to_be_bytes());
        }
        meta.extensions_mut().insert(self);
        meta
    }
}

fn at(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}

const MADE: u64 = 1000;
const FOR_EVER: u32 = 1 << 31;
