//! Least recently used: a list, read entries move to its front.
//!
//! # Invariants
//!
//! - `queue` holds the live ids, `cleared` the cleared ones; `live` is the sum over the former.
//!
//! # Cost
//!
//! Every call is a few links changed; `hit` needs the shard's write lock.

use crate::ds::list::{Links, List};
use crate::policy::usage::Usage;
use crate::policy::{EntryView, Policy, QueueLens, Slots};

/// The LRU policy.
#[derive(Debug)]
pub(crate) struct Lru {
    links: Links,
    queue: List,
    cleared: List,
    live: Usage,
}

impl Lru {
    /// Without entries; allocates nothing.
    pub(crate) fn new() -> Self {
        Self {
            links: Links::new(),
            queue: List::new(),
            cleared: List::new(),
            live: Usage::default(),
        }
    }
}

impl Policy for Lru {
    #[inline]
    fn admit(&mut self, _: u32) -> u8 {
        0
    }

    #[inline]
    fn insert(&mut self, id: u32, _: u8, weight: u64, _: &mut impl Slots) {
        self.links.reserve_for(id);
        self.queue.push_front(&mut self.links, id);
        self.live.add(weight);
    }

    #[inline]
    fn remove(&mut self, id: u32, slots: &impl Slots) {
        self.queue.unlink(&mut self.links, id);
        self.live.take(slots.weight(id));
    }

    #[inline]
    fn hit(&mut self, id: u32) {
        if self.queue.front() != Some(id) {
            self.queue.unlink(&mut self.links, id);
            self.queue.push_front(&mut self.links, id);
        }
    }

    #[inline]
    fn victim(&mut self, slots: &mut impl Slots) -> Option<(u32, EntryView)> {
        let id = self.queue.pop_back(&mut self.links)?;
        let seen = slots.view(id);
        self.live.take(seen.weight);
        Some((id, seen))
    }

    #[inline]
    fn reweigh(&mut self, _: u32, old: u64, new: u64, _: &impl Slots) {
        self.live.weight = self.live.weight - old + new;
    }

    fn relocate(&mut self, from: u32, to: u32, _: &impl Slots) {
        self.queue.relocate(&mut self.links, from, to);
    }

    fn clear_all(&mut self) {
        self.cleared.append(&mut self.links, &mut self.queue);
        self.live = Usage::default();
    }

    fn pop_cleared(&mut self) -> Option<u32> {
        self.cleared.pop_back(&mut self.links)
    }

    fn remove_cleared(&mut self, id: u32) {
        self.cleared.unlink(&mut self.links, id);
    }

    fn resize(&mut self, _: u64, _: u64) {}

    #[inline]
    fn is_small(&self) -> bool {
        self.links.is_small()
    }

    fn truncate(&mut self, len: u32, budget: &mut u32) {
        self.links.truncate(len, budget);
    }

    fn take_links(&mut self) -> Links {
        std::mem::replace(&mut self.links, Links::new())
    }

    #[inline]
    fn live(&self) -> Usage {
        self.live
    }

    fn queue_lens(&self) -> QueueLens {
        QueueLens {
            main: self.queue.len(),
            cleared: self.cleared.len(),
            ..QueueLens::default()
        }
    }

    #[cfg(any(test, debug_assertions))]
    fn validate(&self, _: &impl Slots, live: impl Iterator<Item = u32>) {
        self.links.validate();
        self.queue.validate(&self.links);
        self.cleared.validate(&self.links);
        let mut queued: Vec<u32> = self.queue.iter(&self.links).collect();
        let mut live: Vec<u32> = live.collect();
        queued.sort_unstable();
        live.sort_unstable();
        assert_eq!(queued, live, "lru: ids in the queue");
    }
}
