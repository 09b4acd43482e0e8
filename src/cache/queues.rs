//! Which entries stay when there is room for some: three queues of the order in which they came (S3-FIFO).
//!
//! A newcomer waits in a small queue. What is used again while it waits moves on to the main queue, what is not goes and is
//! remembered by name alone; if it comes back soon, it goes to the main queue at once. In the main queue, use gives a further
//! round. So one look-through of everything does not wash out what is asked for all the time, and a hit changes one byte:
//! no lock, no list. Measured beside LRU in `benches/cache.rs`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::entry::Node;

/// The queues of one shard.
#[derive(Default)]
pub(super) struct Queues {
    small: Queue,
    main: Queue,
    ghosts: Ghosts,
    /// Nodes in the queues that have left the store.
    gone: usize,
}

#[derive(Default)]
struct Queue {
    nodes: VecDeque<Arc<Node>>,
    bytes: usize,
}

/// Part of the bytes that newcomers may hold.
const SMALL_PART: usize = 10;

impl Queues {
    /// Takes in a node that came to the store.
    pub fn admit(&mut self, node: Arc<Node>) {
        let known = self.ghosts.knows(node.key ^ node.variant);
        let queue = if known { &mut self.main } else { &mut self.small };
        queue.bytes += weight(&node);
        queue.nodes.push_back(node);
        self.tidy();
    }

    /// A node left the store otherwise than by [`evict`](Self::evict).
    pub fn left(&mut self, node: &Node) {
        if !node.gone.swap(true, Relaxed) {
            self.gone += 1;
            // Its bytes leave its queue when it is met there.
        }
        self.tidy();
    }

    /// The next node that has to go. It has left the queues.
    pub fn evict(&mut self) -> Option<Arc<Node>> {
        loop {
            let crowded = self.small.bytes * SMALL_PART >= self.small.bytes + self.main.bytes;
            let from_small = crowded && !self.small.nodes.is_empty() || self.main.nodes.is_empty();
            if from_small {
                let node = self.small.pop()?;
                if node.gone.load(Relaxed) {
                    self.gone = self.gone.saturating_sub(1);
                } else if node.uses.load(Relaxed) > 0 {
                    node.uses.store(0, Relaxed);
                    self.main.push(node);
                } else {
                    self.ghosts.put(node.key ^ node.variant, self.main.nodes.len() + self.small.nodes.len());
                    return Some(node);
                }
            } else {
                let node = self.main.pop()?;
                let uses = node.uses.load(Relaxed);
                if node.gone.load(Relaxed) {
                    self.gone = self.gone.saturating_sub(1);
                } else if uses > 0 {
                    node.uses.store(uses - 1, Relaxed);
                    self.main.push(node);
                } else {
                    return Some(node);
                }
            }
        }
    }

    /// Nodes that left must not pile up where nothing is ever evicted.
    fn tidy(&mut self) {
        let all = self.small.nodes.len() + self.main.nodes.len();
        if self.gone > 1024 && self.gone > all / 2 {
            for queue in [&mut self.small, &mut self.main] {
                queue.nodes.retain(|node| !node.gone.load(Relaxed));
                queue.bytes = queue.nodes.iter().map(|node| weight(node)).sum();
            }
            self.gone = 0;
        }
    }
}

impl Queue {
    fn push(&mut self, node: Arc<Node>) {
        self.bytes += weight(&node);
        self.nodes.push_back(node);
    }

    fn pop(&mut self) -> Option<Arc<Node>> {
        let node = self.nodes.pop_front()?;
        self.bytes = self.bytes.saturating_sub(weight(&node));
        Some(node)
    }
}

fn weight(node: &Node) -> usize {
    node.weight.load(Relaxed) as usize
}

/// Names of what left the small queue lately: as many as there are entries.
#[derive(Default)]
struct Ghosts {
    order: VecDeque<u64>,
    known: HashMap<u64, u32>,
}

impl Ghosts {
    fn put(&mut self, key: u128, room: usize) {
        let name = name(key);
        self.order.push_back(name);
        *self.known.entry(name).or_default() += 1;
        while self.order.len() > room.max(16) {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(count) = self.known.get_mut(&oldest) {
                *count -= 1;
                if *count == 0 {
                    self.known.remove(&oldest);
                }
            }
        }
    }

    fn knows(&self, key: u128) -> bool {
        self.known.contains_key(&name(key))
    }
}

/// Half of a name is enough to be remembered by.
fn name(key: u128) -> u64 {
    (key >> 64) as u64 ^ key as u64
}
