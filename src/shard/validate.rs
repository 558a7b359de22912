//! The check of a shard: recomputes everything it believes from its slots.

use super::side_tables::hash_of;
use super::{Shard, Usage};
use crate::entry::header::EntryHeader;
use crate::policy::{EntryView, Policy, Slots};
use crate::util::clock::NEVER;

impl<K, V> Shard<K, V> {
    /// Recomputes everything from the slots and panics where a part disagrees.
    pub(crate) fn validate(&self) {
        self.slab.validate();
        self.index.validate(|id| hash_of(&self.slab, id));
        assert_eq!(self.index.len(), self.slab.len(), "index and slab disagree");
        let mut live = Usage::default();
        let mut cleared = Usage::default();
        let mut queued = Vec::new();
        for (id, entry) in self.slab.iter() {
            let weight = self.weight_of(id);
            if entry.header.epoch() < self.min_epoch {
                cleared.add(weight);
            } else {
                live.add(weight);
                queued.push(id);
            }
            let found = self.index.find(entry.header.hash(), |other| other == id);
            assert_eq!(found, Some(id), "entry {id} cannot be found");
            let due = self.reclaim_at(id, entry);
            // A slot whose entry has no deadline may still be on the timer wheel for an earlier one.
            let scheduled = due == NEVER || self.wheel.is_scheduled(id);
            let never = self.expires_at(id, entry) == NEVER;
            assert_eq!(due == NEVER, never, "entry {id} is kept for ever");
            assert!(scheduled, "entry {id} and the wheel");
            let tags = self.side_tables.tags(id).is_some();
            assert_eq!(tags, entry.header.is_tagged(), "tags of entry {id}");
        }
        assert_eq!(live, self.policy.live(), "live totals");
        assert_eq!(cleared, self.cleared, "cleared totals");
        assert!(self.over_capacity || !self.is_over(0, 0), "over the limits");
        self.wheel.validate(|id| match self.slab.get(id) {
            Some(entry) => self.reclaim_at(id, entry),
            None => NEVER,
        });
        let lens = self.policy.queue_lens();
        assert_eq!(
            u64::from(lens.cleared),
            cleared.entries,
            "the list of cleared entries"
        );
        let slots = Inspected(self);
        self.policy.validate(&slots, queued.into_iter());
    }
}

/// The slots as the policy's `validate` sees them.
struct Inspected<'a, K, V>(&'a Shard<K, V>);

impl<K, V> Slots for Inspected<'_, K, V> {
    fn view(&self, id: u32) -> EntryView {
        let header = self.0.slab.get(id).map(|entry| &entry.header);
        EntryView {
            hits: header.map_or(0, EntryHeader::hits),
            weight: self.0.weight_of(id),
            hash: header.map_or(0, EntryHeader::hash),
        }
    }

    fn queue(&self, id: u32) -> u8 {
        self.0.slab.get(id).map_or(0, |entry| entry.header.queue())
    }

    fn set_queue(&mut self, _id: u32, _place: u8, _hits: u8) {}

    fn weight(&self, id: u32) -> u64 {
        self.0.weight_of(id)
    }
}
