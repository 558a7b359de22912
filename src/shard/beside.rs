//! What lies beside the slots, for those caches that need it, and the slots as the evictor sees them.

use crate::parts::policy::contract::Slots;
use crate::parts::steps::Steps;
use crate::slab::Slab;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::time::NEVER;

/// The time to idle: each entry's last access lies beside the slots.
pub(super) struct Idle {
    pub(super) after: u64,
    pub(super) accessed: Steps<AtomicU64>,
}

impl Idle {
    pub(super) fn deadline(&self, id: u32) -> u64 {
        // Relaxed: the shard's lock orders this with the write that set it; a concurrent reader's
        // store only moves it later, and missing that one costs precision, not safety.
        self.accessed.try_get(id).map_or(NEVER, |at| {
            at.load(Ordering::Relaxed).saturating_add(self.after)
        })
    }

    /// Notes an access if the last noted one is at least a hundredth of the time to idle ago, so that a
    /// hot entry's line is written seldom.
    pub(super) fn note(&self, id: u32, now: u64) {
        let Some(accessed) = self.accessed.try_get(id) else {
            return;
        };
        let last = accessed.load(Ordering::Relaxed);
        if now > last && now - last >= self.after / 100 {
            // Relaxed, and a maximum: readers race, and the latest access counts. The slot cannot
            // change hands meanwhile: the reader holds the shard's lock, shared.
            accessed.fetch_max(now, Ordering::Relaxed);
        }
    }
}

/// The slab with its weights, as the evictor sees them.
pub(super) struct Pockets<'a, K, V> {
    pub(super) slab: &'a mut Slab<K, V>,
    pub(super) weights: Option<&'a Steps<u64>>,
}

impl<K, V> Slots for Pockets<'_, K, V> {
    #[inline]
    fn hits(&self, id: u32) -> u8 {
        self.slab
            .get(id)
            .map_or(0, |entry| entry.hits.load(Ordering::Relaxed))
    }

    #[inline]
    fn set_hits(&mut self, id: u32, hits: u8) {
        if let Some(entry) = self.slab.get_mut(id) {
            *entry.hits.get_mut() = hits;
        }
    }

    #[inline]
    fn weight(&self, id: u32) -> u64 {
        weight_of(self.weights, id)
    }

    #[inline]
    fn hash(&self, id: u32) -> u32 {
        hash_of(self.slab, id)
    }
}

pub(super) fn weight_of(weights: Option<&Steps<u64>>, id: u32) -> u64 {
    match weights {
        None => 1,
        Some(weights) => weights.try_get(id).copied().unwrap_or(0),
    }
}

pub(super) fn hash_of<K, V>(slab: &Slab<K, V>, id: u32) -> u32 {
    slab.get(id).map_or(0, |entry| entry.hash)
}
