//! The store as Pingora's cache wants to see it.
//!
//! Two tiers of one store. In the *streaming* one a response is shown to others as soon as its head is there, and the client
//! that asked for it reads it from there like all others: a slow client holds nobody up. It needs a length that is declared
//! and fits. The *plain* one takes responses of unknown length: they are shown when they are whole, and one that grows too
//! large is not stored while its client gets it all the same.

use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use bytes::Bytes;
use pingora_cache::key::{CacheHashKey, HashBinary};
use pingora_cache::storage::{
    HandleHit, HandleMiss, HitHandler, MissFinishType, MissHandler, PurgeOutcome, PurgeTarget, PurgeType, Storage,
};
use pingora_cache::trace::SpanHandle;
use pingora_cache::{CacheKey, CacheMeta};
use pingora_error::{Error, ErrorType, Result};

use super::entry::{Body, Entry};
use super::fill::{Cursor, End, Fill};
use super::freshness::now;
use super::prepared::{Carried, Prepared};
use super::shared::{Asking, Shared};
use super::store::Store;

/// One way of writing to a store.
pub struct Tier {
    store: &'static Store,
    shared: &'static ArcSwapOption<Shared>,
    streaming: bool,
    /// Responses under way, for the client that each was asked for by.
    under_way: Mutex<HashMap<u64, Arc<Fill>>>,
    next: AtomicU64,
}

impl Tier {
    /// A tier of a store.
    pub fn new(store: &'static Store, shared: &'static ArcSwapOption<Shared>, streaming: bool) -> Tier {
        Tier { store, shared, streaming, under_way: Mutex::default(), next: AtomicU64::new(1) }
    }

    fn show(&self, fill: &Arc<Fill>) -> u64 {
        let tag = self.next.fetch_add(1, Relaxed);
        if self.streaming {
            self.under_way.lock().unwrap_or_else(PoisonError::into_inner).insert(tag, fill.clone());
        }
        self.store.begin(fill.prepared.key, fill.prepared.variant, fill.clone());
        tag
    }

    fn hide(&self, tag: u64, fill: &Arc<Fill>) {
        if self.streaming {
            self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&tag);
        }
        self.store.end(fill.prepared.key, fill.prepared.variant, fill);
    }
}

/// The key of a request as Pingora has it: ours, and the variant where it is known.
fn key_of(key: &impl CacheHashKey) -> (u128, Option<u128>) {
    let number = |bin: HashBinary| u128::from_be_bytes(bin);
    (number(key.primary_bin()), key.variance_bin().map(number))
}

/// A key in Pingora's form.
pub fn pingora_key(key: u128) -> CacheKey {
    let mut made = CacheKey::new(Vec::new(), String::new());
    made.set_primary_bin_override(key.to_be_bytes());
    made
}

#[async_trait]
impl Storage for Tier {
    async fn lookup(&'static self, asked: &CacheKey, _: &SpanHandle) -> Result<Option<(CacheMeta, HitHandler)>> {
        let (key, variant) = key_of(asked);
        let entry = self.store.get(key, variant);
        let at = now();
        if entry.as_ref().is_none_or(|entry| entry.terms.fresh_until <= at)
            && let Some(fill) = self.store.fill(key, variant)
            && fill.prepared.declared.is_some()
            && !fill.is_forgotten()
            && fill.prepared.terms.fresh_until > at
            && !fill.prepared.terms.no_cache
        {
            let hit: HitHandler = Box::new(Reading { fill: fill.clone(), cursor: Cursor::default(), to: usize::MAX });
            return Ok(Some((Carried::Fill(fill).meta(), hit)));
        }
        if entry.as_ref().is_none_or(|entry| entry.terms.fresh_until <= at)
            && let Some(shared) = self.shared.load_full()
            && let Some(Asking(request)) = asked.extensions.get::<Asking>()
            && let Some(found) = shared.fetch(key, request).await
        {
            return Ok(Some(hit(self.store.put(key, found))));
        }
        Ok(entry.map(hit))
    }

    async fn lookup_streaming_write(
        &'static self,
        _: &CacheKey,
        tag: Option<&[u8]>,
        _: &SpanHandle,
    ) -> Result<Option<(CacheMeta, HitHandler)>> {
        let tag = tag.and_then(|tag| tag.try_into().ok()).map(u64::from_be_bytes);
        let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(tag.and_then(|tag| under_way.get(&tag).cloned()).map(|fill| {
            let hit: HitHandler = Box::new(Reading { fill: fill.clone(), cursor: Cursor::default(), to: usize::MAX });
            (Carried::Fill(fill).meta(), hit)
        }))
    }

    async fn get_miss_handler(&'static self, _: &CacheKey, meta: &CacheMeta, _: &SpanHandle) -> Result<MissHandler> {
        let Some(Carried::Prepared(prepared)) = Carried::of(meta) else {
            return Error::e_explain(ErrorType::InternalError, "a response to store that nobody prepared");
        };
        let fill = Arc::new(Fill::new(prepared.clone()));
        let tag = self.show(&fill);
        Ok(Box::new(Writing { tier: self, tag: tag.to_be_bytes(), fill }))
    }

    async fn purge(&'static self, target: PurgeTarget<'_>, _: PurgeType, _: &SpanHandle) -> Result<PurgeOutcome> {
        let (key, variant) = key_of(target.key());
        Ok(match self.store.remove(key, variant) {
            0 => PurgeOutcome::NotFound,
            _ => PurgeOutcome::Purged(None),
        })
    }

    async fn update_meta(&'static self, _: &CacheKey, meta: &CacheMeta, _: &SpanHandle) -> Result<bool> {
        let Some(Carried::Prepared(prepared)) = Carried::of(meta) else { return Ok(false) };
        Ok(renew(self.store, self.shared, prepared))
    }

    fn support_streaming_partial_write(&self) -> bool {
        self.streaming
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync + 'static) {
        self
    }
}

fn hit(entry: Arc<Entry>) -> (CacheMeta, HitHandler) {
    let hit: HitHandler = Box::new(Hit { entry: entry.clone(), from: 0, to: usize::MAX });
    (Carried::Entry(entry).meta(), hit)
}

/// Stores what the backend said of an entry that is still good. `false`: it is in the store no more.
pub fn renew(store: &Store, shared: &ArcSwapOption<Shared>, prepared: &Prepared) -> bool {
    let Some(old) = &prepared.renews else { return false };
    if store.purged_since(prepared.sent) {
        return false;
    }
    let renewed = store.replace(prepared.key, old, old.renewed(prepared.head.clone(), prepared.terms));
    if let (Some(entry), Some(shared)) = (&renewed, shared.load_full()) {
        shared.save(prepared.key, entry.clone(), prepared.sent);
    }
    renewed.is_some()
}

/// Reads an entry.
struct Hit {
    entry: Arc<Entry>,
    from: usize,
    to: usize,
}

#[async_trait]
impl HandleHit for Hit {
    async fn read_body(&mut self) -> Result<Option<Bytes>> {
        Ok(self.entry.body.read(&mut self.from, self.to))
    }

    async fn finish(self: Box<Self>, _: &'static (dyn Storage + Sync), _: &CacheKey, _: &SpanHandle) -> Result<()> {
        Ok(())
    }

    fn can_seek(&self) -> bool {
        true
    }

    fn seek(&mut self, start: usize, end: Option<usize>) -> Result<()> {
        (self.from, self.to) = (start, end.unwrap_or(usize::MAX));
        Ok(())
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }

    fn as_any_mut(&mut self) -> &mut (dyn Any + Send + Sync) {
        self
    }
}

/// Reads a response under way.
struct Reading {
    fill: Arc<Fill>,
    cursor: Cursor,
    to: usize,
}

#[async_trait]
impl HandleHit for Reading {
    async fn read_body(&mut self) -> Result<Option<Bytes>> {
        let read = self.fill.read(&mut self.cursor, self.to).await;
        read.map_err(|broken| Error::because(ErrorType::ReadError, "reading along", broken).into_up())
    }

    async fn finish(self: Box<Self>, _: &'static (dyn Storage + Sync), _: &CacheKey, _: &SpanHandle) -> Result<()> {
        Ok(())
    }

    fn can_seek(&self) -> bool {
        true
    }

    fn seek(&mut self, start: usize, end: Option<usize>) -> Result<()> {
        self.cursor = Cursor::to(start);
        self.to = end.unwrap_or(usize::MAX);
        Ok(())
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }

    fn as_any_mut(&mut self) -> &mut (dyn Any + Send + Sync) {
        self
    }
}

/// Writes a response. Dropped before its end, the response broke off and is not stored.
struct Writing {
    tier: &'static Tier,
    tag: [u8; 8],
    fill: Arc<Fill>,
}

#[async_trait]
impl HandleMiss for Writing {
    async fn write_body(&mut self, data: Bytes, _: bool) -> Result<()> {
        let most = self.fill.prepared.declared.unwrap_or(self.fill.prepared.most);
        if self.fill.add(&data) > most {
            return Error::e_explain(ErrorType::InternalError, "the response is too large to be stored");
        }
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<MissFinishType> {
        let prepared = &self.fill.prepared;
        let pieces = self.fill.end(End::Whole);
        let body = Body::of(&pieces);
        let length = body.len();
        if prepared.declared.is_some_and(|declared| declared != length) {
            return Error::e_explain(ErrorType::InternalError, "the response is not as long as it says");
        }
        if !self.fill.is_forgotten() && !self.tier.store.purged_since(prepared.sent) {
            let entry = self.tier.store.put(prepared.key, prepared.entry(body));
            if let Some(shared) = self.tier.shared.load_full() {
                shared.save(prepared.key, entry, prepared.sent);
            }
        }
        Ok(MissFinishType::Created(length))
    }

    fn streaming_write_tag(&self) -> Option<&[u8]> {
        Some(&self.tag)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.fill.end(End::Broken);
        self.tier.hide(u64::from_be_bytes(self.tag), &self.fill);
    }
}
