//! The oracle: recomputes everything a shard believes from its slots.

use super::beside::hash_of;
use super::{Shard, Totals};
use crate::parts::policy::contract::{Policy, Slots};
use crate::sync::atomic::Ordering;
use crate::time::NEVER;

impl<K, V> Shard<K, V> {
    /// Recomputes everything from the slots and panics where a part disagrees.
    pub(crate) fn validate(&self) {
        self.slab.validate();
        self.index.validate(|id| hash_of(&self.slab, id));
        assert_eq!(self.index.len(), self.slab.len(), "index and slab disagree");
        let mut live = Totals::default();
        let mut doomed = Totals::default();
        let mut queued = Vec::new();
        let mut scheduled = 0;
        for (id, entry) in self.slab.iter() {
            let weight = self.weight_of(id);
            if entry.born < self.mark {
                doomed.add(weight);
            } else {
                live.add(weight);
                queued.push(id);
            }
            let found = self.index.find(entry.hash, |other| other == id);
            assert_eq!(found, Some(id), "entry {id} cannot be found");
            let due = self.deadline(id, entry);
            assert_eq!(
                self.wheel.is_scheduled(id),
                due != NEVER,
                "entry {id} and the wheel"
            );
            scheduled += u32::from(due != NEVER);
            let tags = self.tags.try_get(id).is_some_and(Option::is_some);
            assert_eq!(tags, entry.tagged, "tags of entry {id}");
        }
        assert_eq!(live, self.live, "live totals");
        assert_eq!(doomed, self.doomed, "doomed totals");
        assert_eq!(self.wheel.len(), scheduled, "the wheel holds strangers");
        self.wheel.validate(|id| match self.slab.get(id) {
            Some(entry) => self.deadline(id, entry),
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
    fn hits(&self, id: u32) -> u8 {
        self.0
            .slab
            .get(id)
            .map_or(0, |entry| entry.hits.load(Ordering::Relaxed))
    }

    fn set_hits(&mut self, _id: u32, _hits: u8) {}

    fn weight(&self, id: u32) -> u64 {
        self.0.weight_of(id)
    }

    fn hash(&self, id: u32) -> u32 {
        hash_of(&self.0.slab, id)
    }
}
