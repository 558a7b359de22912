//! The oracle: recomputes everything a shard believes from its slots.

use super::side_tables::hash_of;
use super::{Shard, Totals};
use crate::entry::header::Stamp;
use crate::policy::{Glance, Policy, Slots};
use crate::util::clock::NEVER;

impl<K, V> Shard<K, V> {
    /// Recomputes everything from the slots and panics where a part disagrees.
    pub(crate) fn validate(&self) {
        self.slab.validate();
        self.index.validate(|id| hash_of(&self.slab, id));
        assert_eq!(self.index.len(), self.slab.len(), "index and slab disagree");
        let mut live = Totals::default();
        let mut doomed = Totals::default();
        let mut queued = Vec::new();
        for (id, entry) in self.slab.iter() {
            let weight = self.weight_of(id);
            if entry.stamp.born() < self.mark {
                doomed.add(weight);
            } else {
                live.add(weight);
                queued.push(id);
            }
            let found = self.index.find(entry.stamp.hash(), |other| other == id);
            assert_eq!(found, Some(id), "entry {id} cannot be found");
            let due = self.kept_until(id, entry);
            // A slot whose entry has no deadline may still stand on the wheel for an earlier one.
            let scheduled = due == NEVER || self.wheel.is_scheduled(id);
            let never = self.deadline(id, entry) == NEVER;
            assert_eq!(due == NEVER, never, "entry {id} is kept for ever");
            assert!(scheduled, "entry {id} and the wheel");
            let tags = self.beside.tags(id).is_some();
            assert_eq!(tags, entry.stamp.is_tagged(), "tags of entry {id}");
        }
        assert_eq!(live, self.evictor.live(), "live totals");
        assert_eq!(doomed, self.doomed, "doomed totals");
        assert!(self.surplus || !self.is_over(0, 0), "over the limits");
        self.wheel.validate(|id| match self.slab.get(id) {
            Some(entry) => self.kept_until(id, entry),
            None => NEVER,
        });
        let lens = self.evictor.queue_lens();
        assert_eq!(u64::from(lens.doomed), doomed.entries, "the doomed list");
        let slots = Inspected(self);
        self.evictor.validate(&slots, queued.into_iter());
    }
}

/// The slots as the evictor's oracle sees them.
struct Inspected<'a, K, V>(&'a Shard<K, V>);

impl<K, V> Slots for Inspected<'_, K, V> {
    fn glance(&self, id: u32) -> Glance {
        let stamp = self.0.slab.get(id).map(|entry| &entry.stamp);
        Glance {
            hits: stamp.map_or(0, Stamp::hits),
            weight: self.0.weight_of(id),
            hash: stamp.map_or(0, Stamp::hash),
        }
    }

    fn place(&self, id: u32) -> u8 {
        self.0.slab.get(id).map_or(0, |entry| entry.stamp.place())
    }

    fn mark(&mut self, _id: u32, _place: u8, _hits: u8) {}

    fn weight(&self, id: u32) -> u64 {
        self.0.weight_of(id)
    }
}
