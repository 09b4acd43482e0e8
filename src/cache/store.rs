//! The memory store: entries by key and variant, in shards, within a number of bytes that counts everything.

use std::collections::HashMap;
use std::collections::hash_map;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::entry::{Entry, Node};
use super::fill::Fill;
use super::freshness::now;
use super::queues::Queues;
use super::vary::Selecting;

/// Entries within a limit.
pub struct Store {
    shards: Box<[RwLock<Shard>]>,
    limit: AtomicUsize,
    used: AtomicUsize,
    entries: AtomicUsize,
    evicted: AtomicU64,
    /// When the last purge of many was; milliseconds since 1970.
    purged: AtomicU64,
}

#[derive(Default)]
struct Shard {
    index: HashMap<u128, Resource, NoHash>,
    queues: Queues,
    fills: HashMap<(u128, u128), Arc<Fill>>,
}

/// What is stored of one URL.
struct Resource {
    /// By what its variants are selected; that of the latest response counts. RFC 9111 §4.1.
    selecting: Arc<Selecting>,
    variants: Vec<Arc<Entry>>,
}

/// Keys are hashes already.
type NoHash = std::hash::BuildHasherDefault<Taken>;

/// Takes the key as its hash.
#[derive(Default)]
struct Taken(u64);

impl std::hash::Hasher for Taken {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = (key >> 64) as u64;
    }
}

/// Shards, a power of two.
const SHARDS: usize = 32;

/// Variants of one URL beyond this push out the oldest: what a client sends must not fill the store.
pub const MOST_VARIANTS: usize = 64;

/// What an entry is looked for by.
pub enum Found {
    /// The entry for this request.
    Entry(Arc<Entry>),
    /// There are entries of this URL, but not for this request.
    OtherVariants,
    /// Nothing.
    Nothing,
}

impl Store {
    /// An empty store that holds so many bytes.
    pub fn new(limit: usize) -> Store {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        let (used, entries, evicted, purged) = Default::default();
        Store { shards, limit: limit.into(), used, entries, evicted, purged }
    }

    /// The number of bytes that it may hold.
    pub fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    /// Changes how many bytes it may hold.
    pub fn resize(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
        self.shrink(0);
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// Number of entries.
    pub fn entries(&self) -> usize {
        self.entries.load(Relaxed)
    }

    /// How many entries had to go for others.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Relaxed)
    }

    /// The entry for a request: `variant` says which one it asks for, given the headers that select.
    pub fn find(&self, key: u128, variant: impl FnOnce(&Selecting) -> u128) -> Found {
        let shard = self.read(key);
        let Some(resource) = shard.index.get(&key) else { return Found::Nothing };
        let wanted = if resource.selecting.is_empty() { 0 } else { variant(&resource.selecting) };
        match resource.variants.iter().find(|entry| entry.variant == wanted) {
            Some(entry) => {
                let uses = entry.node.uses.load(Relaxed);
                if uses < MOST_USES {
                    entry.node.uses.store(uses + 1, Relaxed);
                }
                Found::Entry(entry.clone())
            }
            None => Found::OtherVariants,
        }
    }

    /// The entry of a known variant, or any of the URL.
    pub fn get(&self, key: u128, variant: Option<u128>) -> Option<Arc<Entry>> {
        let shard = self.read(key);
        let resource = shard.index.get(&key)?;
        match variant {
            Some(variant) => resource.variants.iter().find(|entry| entry.variant == variant).cloned(),
            None => resource.variants.last().cloned(),
        }
    }

    /// Puts an entry in, in place of the one of the same variant. One that is larger than the store is not put in.
    pub fn put(&self, key: u128, mut entry: Entry) -> Arc<Entry> {
        let weight = entry.weight();
        if weight > self.limit() {
            self.remove(key, Some(entry.variant));
            return Arc::new(entry);
        }
        let node = Arc::new(Node {
            key,
            variant: entry.variant,
            weight: u32::try_from(weight).unwrap_or(u32::MAX).into(),
            ..Node::default()
        });
        entry.node = node.clone();
        let entry = Arc::new(entry);
        let mut shard = self.write(key);
        let (mut freed, mut replaced) = (0, Vec::new());
        match shard.index.entry(key) {
            hash_map::Entry::Vacant(place) => {
                place.insert(Resource { selecting: entry.selecting.clone(), variants: vec![entry.clone()] });
            }
            hash_map::Entry::Occupied(mut place) => {
                let resource = place.get_mut();
                // Variants by other headers cannot be asked for any more.
                if resource.selecting != entry.selecting {
                    resource.selecting = entry.selecting.clone();
                    replaced.append(&mut resource.variants);
                }
                let same = resource.variants.iter().position(|known| known.variant == entry.variant);
                replaced.extend(same.map(|at| resource.variants.remove(at)));
                if resource.variants.len() >= MOST_VARIANTS {
                    replaced.push(resource.variants.remove(0));
                }
                resource.variants.push(entry.clone());
            }
        }
        for old in &replaced {
            // Whoever renews an entry does not make it a newcomer.
            if old.variant == node.variant {
                node.uses.store(old.node.uses.load(Relaxed).max(1), Relaxed);
            }
            freed += old.node.weight.load(Relaxed) as usize;
            shard.queues.left(&old.node);
        }
        shard.queues.admit(node);
        drop(shard);
        self.entries.fetch_add(1, Relaxed);
        self.entries.fetch_sub(replaced.len(), Relaxed);
        self.used.fetch_add(weight, Relaxed);
        self.used.fetch_sub(freed, Relaxed);
        self.shrink(shard_of(key));
        entry
    }

    /// Replaces an entry by another one if it is still the one in the store.
    pub fn replace(&self, key: u128, old: &Arc<Entry>, new: Entry) -> Option<Arc<Entry>> {
        let there = self.get(key, Some(old.variant)).is_some_and(|known| Arc::ptr_eq(&known, old));
        there.then(|| self.put(key, new))
    }

    /// Removes a variant, or all of the URL. Returns how many.
    pub fn remove(&self, key: u128, variant: Option<u128>) -> usize {
        let mut shard = self.write(key);
        for fill in shard.fills.iter().filter(|((of, _), _)| *of == key).map(|(_, fill)| fill) {
            fill.forget();
        }
        let removed = shard.remove(key, |entry| variant.is_none_or(|variant| entry.variant == variant));
        drop(shard);
        self.account(&removed);
        removed.len()
    }

    /// Removes, or makes stale, all entries of which this holds. Returns how many. Looks at every entry: one shard at a time.
    pub fn purge(&self, soft: Option<u64>, holds: impl Fn(&Entry) -> bool) -> usize {
        self.purged.store(now(), Relaxed);
        let mut count = 0;
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            let keys: Vec<u128> = shard
                .index
                .iter()
                .filter(|(_, resource)| resource.variants.iter().any(|entry| holds(entry)))
                .map(|(key, _)| *key)
                .collect();
            shard.fills.values().for_each(|fill| fill.forget());
            let mut removed = Vec::new();
            let mut expired = Vec::new();
            for key in keys {
                match soft {
                    None => removed.append(&mut shard.remove(key, &holds)),
                    Some(now) => {
                        let resource = shard.index.get(&key).into_iter().flat_map(|resource| &resource.variants);
                        expired.extend(resource.filter(|entry| holds(entry)).map(|entry| (key, entry.expired(now))));
                    }
                }
            }
            drop(shard);
            count += removed.len() + expired.len();
            self.account(&removed);
            for (key, entry) in expired {
                self.put(key, entry);
            }
        }
        count
    }

    /// A response under way that others may read along; `None` when there is none or it may not be shared.
    pub fn fill(&self, key: u128, variant: Option<u128>) -> Option<Arc<Fill>> {
        let shard = self.read(key);
        if shard.fills.is_empty() {
            return None;
        }
        let fill = match variant {
            Some(variant) => shard.fills.get(&(key, variant))?,
            None => shard.fills.iter().find(|((of, _), _)| *of == key)?.1,
        };
        Some(fill.clone())
    }

    /// Shows a response under way to others.
    pub fn begin(&self, key: u128, variant: u128, fill: Arc<Fill>) {
        self.write(key).fills.insert((key, variant), fill);
    }

    /// It is under way no more.
    pub fn end(&self, key: u128, variant: u128, fill: &Arc<Fill>) {
        let mut shard = self.write(key);
        if shard.fills.get(&(key, variant)).is_some_and(|known| Arc::ptr_eq(known, fill)) {
            shard.fills.remove(&(key, variant));
        }
    }

    /// Whether there was a purge since then: what was asked for before may be what it was about.
    pub fn purged_since(&self, at: u64) -> bool {
        self.purged.load(Relaxed) >= at.max(1)
    }

    /// Removes everything.
    pub fn clear(&self) -> usize {
        self.purge(None, |_| true)
    }

    /// Lets entries go until the rest fits; those of this shard first.
    fn shrink(&self, first: usize) {
        let mut at = first;
        while self.used() > self.limit() && self.entries() > 0 {
            let mut shard = self.shards[at % SHARDS].write().unwrap_or_else(PoisonError::into_inner);
            let mut gone = Vec::new();
            let mut freed = 0;
            while self.used().saturating_sub(freed) > self.limit()
                && let Some(node) = shard.queues.evict()
            {
                freed += node.weight.load(Relaxed) as usize;
                node.gone.store(true, Relaxed);
                gone.extend(shard.take(&node));
            }
            drop(shard);
            self.evicted.fetch_add(gone.len() as u64, Relaxed);
            self.account(&gone);
            at += 1;
        }
    }

    fn account(&self, removed: &[Arc<Entry>]) {
        let freed = removed.iter().map(|entry| entry.node.weight.load(Relaxed) as usize).sum();
        self.used.fetch_sub(freed, Relaxed);
        self.entries.fetch_sub(removed.len(), Relaxed);
    }

    fn read(&self, key: u128) -> RwLockReadGuard<'_, Shard> {
        self.shards[shard_of(key)].read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, key: u128) -> RwLockWriteGuard<'_, Shard> {
        self.shards[shard_of(key)].write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Uses beyond this do not count.
const MOST_USES: u8 = 3;

fn shard_of(key: u128) -> usize {
    key as usize % SHARDS
}

impl Shard {
    /// Takes entries of a URL out of index and queues.
    fn remove(&mut self, key: u128, holds: impl Fn(&Entry) -> bool) -> Vec<Arc<Entry>> {
        let Some(resource) = self.index.get_mut(&key) else { return Vec::new() };
        let (removed, stay) = std::mem::take(&mut resource.variants).into_iter().partition(|entry| holds(entry));
        resource.variants = stay;
        if resource.variants.is_empty() {
            self.index.remove(&key);
        }
        let removed: Vec<Arc<Entry>> = removed;
        removed.iter().for_each(|entry| self.queues.left(&entry.node));
        removed
    }

    /// Takes the entry of a node that left the queues out of the index.
    fn take(&mut self, node: &Arc<Node>) -> Option<Arc<Entry>> {
        let resource = self.index.get_mut(&node.key)?;
        let at = resource.variants.iter().position(|entry| Arc::ptr_eq(&entry.node, node))?;
        let entry = resource.variants.remove(at);
        if resource.variants.is_empty() {
            self.index.remove(&node.key);
        }
        Some(entry)
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
