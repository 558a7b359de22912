//! Taking entries out. No user code runs in here.

use super::Shard;
use super::deferred_free::DeferredFree;
use super::side_tables::PolicyView;
use crate::entry::Entry;
use crate::entry::removal::{RemovalCause, RemovedBatch, RemovedEntry};
use crate::policy::Policy;

/// An entry that is in its slot and in no other table any more: its slot must be freed or reused.
pub(super) struct Victim {
    pub(super) id: u32,
    cause: RemovalCause,
    weight: u64,
    namespace: u32,
    /// The slot is still on the timer wheel, by the entry's deadline at the latest, if that has one.
    pub(super) scheduled: bool,
}

impl Victim {
    /// Notes that the timer wheel has handed this entry out: it is no longer scheduled.
    pub(super) fn off_the_wheel(self) -> Self {
        Victim {
            scheduled: false,
            ..self
        }
    }

    #[inline]
    pub(super) fn weight(&self) -> u64 {
        self.weight
    }

    #[inline]
    pub(super) fn gone<K, V>(&self, entry: Entry<K, V>) -> RemovedEntry<K, V> {
        RemovedEntry {
            key: entry.key,
            value: entry.value,
            cause: self.cause,
            weight: self.weight,
            namespace: self.namespace,
            epoch: entry.header.epoch(),
        }
    }
}

impl<K, V> Shard<K, V> {
    /// Takes an entry out and hands it over.
    pub(crate) fn remove(&mut self, id: u32, cause: RemovalCause) -> Option<RemovedEntry<K, V>> {
        let victim = self.unlink(id, cause)?;
        let gone = victim.gone(self.slab.remove(id)?);
        // A cache that holds one entry now and then does not allocate at every turn.
        if self.slab.len() == 0 && !self.policy.is_small() {
            self.free_if_empty();
        }
        Some(gone)
    }

    /// Takes an entry out into the batch.
    pub(crate) fn remove_into(
        &mut self,
        id: u32,
        cause: RemovalCause,
        out: &mut RemovedBatch<K, V>,
    ) {
        out.extend(self.remove(id, cause));
    }

    /// Takes an entry out of everything but its slot.
    pub(super) fn unlink(&mut self, id: u32, cause: RemovalCause) -> Option<Victim> {
        let cleared = self.slab.get(id)?.header.epoch() < self.min_epoch;
        let weight = self.weight_of(id);
        if cleared {
            self.policy.remove_cleared(id);
            self.cleared.take(weight);
        } else {
            let slots = PolicyView {
                slab: &mut self.slab,
                side_tables: &self.side_tables,
            };
            self.policy.remove(id, &slots);
        }
        self.unlink_entry(id, cause, weight)
    }

    /// Unlinks an entry that its policy list has given up already.
    #[inline]
    pub(super) fn unlink_entry(
        &mut self,
        id: u32,
        cause: RemovalCause,
        weight: u64,
    ) -> Option<Victim> {
        let header = &self.slab.get(id)?.header;
        let known = (header.hash(), header.is_tagged());
        Some(self.unlink_from_tables(id, known, cause, weight))
    }

    /// Removes an entry, whose hash and tags are known, from the index and the side tables. (The timer wheel notices by
    /// itself.)
    #[inline(always)]
    pub(super) fn unlink_from_tables(
        &mut self,
        id: u32,
        (hash, tagged): (u32, bool),
        cause: RemovalCause,
        weight: u64,
    ) -> Victim {
        // The index migrates once a critical section, not here.
        self.index.remove_only(hash, id);
        self.side_tables.clear_tags(id, tagged);
        Victim {
            id,
            cause,
            weight,
            namespace: self.side_tables.namespace(id),
            scheduled: true,
        }
    }

    /// Frees a victim's slot.
    pub(super) fn free_slot(&mut self, victim: Victim, out: &mut RemovedBatch<K, V>) {
        if let Some(entry) = self.slab.remove(victim.id) {
            out.push(victim.gone(entry));
        }
    }

    /// Takes the side tables away once no entry needs them. If they are large, later critical sections free them a
    /// batch at a time.
    pub(super) fn free_if_empty(&mut self) {
        if self.slab.len() == 0 {
            let is_little = self.policy.is_small();
            let deferred_free = DeferredFree {
                side_tables: self.side_tables.clear(),
                links: self.policy.take_links(),
                wheel: self.wheel.clear(),
            };
            if !is_little {
                self.deferred_free.push(deferred_free);
            }
        }
    }
}
