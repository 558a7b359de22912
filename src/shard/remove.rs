//! Taking entries out. No user code runs in here.

use super::Shard;
use super::deferred_free::Rubble;
use super::side_tables::Pockets;
use crate::entry::Entry;
use crate::entry::removal::{Batch, Gone, RemovalCause};
use crate::policy::Policy;

/// An entry that stands in its slot and nowhere else any more: it must be vacated or replaced.
pub(super) struct Victim {
    pub(super) id: u32,
    cause: RemovalCause,
    weight: u64,
    namespace: u32,
    /// The slot still stands on the wheel, by the entry's deadline at the latest, if that has one.
    pub(super) scheduled: bool,
}

impl Victim {
    /// The same, after the wheel itself has handed it out.
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
    pub(super) fn gone<K, V>(&self, entry: Entry<K, V>) -> Gone<K, V> {
        Gone {
            key: entry.key,
            value: entry.value,
            cause: self.cause,
            weight: self.weight,
            namespace: self.namespace,
            born: entry.stamp.born(),
        }
    }
}

impl<K, V> Shard<K, V> {
    /// Takes an entry out and hands it over.
    pub(crate) fn take(&mut self, id: u32, cause: RemovalCause) -> Option<Gone<K, V>> {
        let victim = self.release(id, cause)?;
        let gone = victim.gone(self.slab.remove(id)?);
        // A cache that holds one entry now and then does not allocate at every turn.
        if self.slab.len() == 0 && !self.evictor.is_small() {
            self.release_if_empty();
        }
        Some(gone)
    }

    /// Takes an entry out into the batch.
    pub(crate) fn unlink(&mut self, id: u32, cause: RemovalCause, out: &mut Batch<K, V>) {
        out.extend(self.take(id, cause));
    }

    /// Takes an entry out of everything but its slot.
    pub(super) fn release(&mut self, id: u32, cause: RemovalCause) -> Option<Victim> {
        let doomed = self.slab.get(id)?.stamp.born() < self.mark;
        let weight = self.weight_of(id);
        if doomed {
            self.evictor.remove_doomed(id);
            self.doomed.take(weight);
        } else {
            let slots = Pockets {
                slab: &mut self.slab,
                beside: &self.beside,
            };
            self.evictor.remove(id, &slots);
        }
        self.forget(id, cause, weight)
    }

    /// The part of `release` that is the same whichever list the entry stood in.
    #[inline]
    pub(super) fn forget(&mut self, id: u32, cause: RemovalCause, weight: u64) -> Option<Victim> {
        let stamp = &self.slab.get(id)?.stamp;
        let known = (stamp.hash(), stamp.is_tagged());
        Some(self.forget_one(id, known, cause, weight))
    }

    /// The same where hash and tags are known. (The wheel notices by itself.)
    #[inline(always)]
    pub(super) fn forget_one(
        &mut self,
        id: u32,
        (hash, tagged): (u32, bool),
        cause: RemovalCause,
        weight: u64,
    ) -> Victim {
        // What the index has to do for it is done once a visit.
        self.index.take_out(hash, id);
        self.beside.forget(id, tagged);
        Victim {
            id,
            cause,
            weight,
            namespace: self.beside.namespace(id),
            scheduled: true,
        }
    }

    /// Frees a victim's slot.
    pub(super) fn vacate(&mut self, victim: Victim, out: &mut Batch<K, V>) {
        if let Some(entry) = self.slab.remove(victim.id) {
            out.push(victim.gone(entry));
        }
    }

    /// Sets the memory beside the slots aside once nothing needs it. If it is more than a little, visits
    /// give it back in slices.
    pub(super) fn release_if_empty(&mut self) {
        if self.slab.len() == 0 {
            let is_little = self.evictor.is_small();
            let rubble = Rubble {
                beside: self.beside.clear(),
                links: self.evictor.take_links(),
                wheel: self.wheel.clear(),
            };
            if !is_little {
                self.rubble.push(rubble);
            }
        }
    }
}
