//! The writes that a cache sees most, in a shard that has nothing else to do: a new key takes the place, and the
//! slot, of the policy's victim in a full shard (a *turnover*), or a live value is overwritten.
//!
//! They do what [`Shard::store`] does, in the same order, and nothing that it does not. But where all entries weigh
//! 1, nothing lies beside the slots and nothing is to be reclaimed, most of that is known to come to nothing. Said
//! once, at the beginning, it need not be asked at every step: that is a third to a half of the instructions of
//! such a write.

use super::evict::prepare_to_evict;
use super::{Incoming, Shard};
use crate::entry::Entry;
use crate::entry::expiry::Life;
use crate::entry::freshness::Plan;
use crate::entry::generation::Namespace;
use crate::entry::header::Stamp;
use crate::policy::any::Evictor;
use crate::policy::{Glance, MAX_HITS, Policy, Slots};
use crate::shard::slab::Slab;
use crate::util::clock::{Clock, Now};

/// What a write of a value that has nothing to say of itself comes to.
#[derive(Clone, Copy)]
pub(crate) enum Ordinary {
    /// Its key has no entry, and it takes a victim's place.
    Turnover,
    /// It is written over the live entry with this address.
    Overwrite(u32),
}

impl<K, V> Shard<K, V> {
    /// Whether the write of an entry of weight 1 in the root, without tags, that lives so long (not nothing) from now
    /// on, is an ordinary one; with its deadline. Runs `Eq`, and changes nothing.
    #[inline(always)]
    pub(crate) fn expects(
        &self,
        hash: u32,
        key: &K,
        life: Life,
        clock: &Clock,
    ) -> Option<(Ordinary, u64)>
    where
        K: Eq,
    {
        if !self.is_tidy() {
            return None;
        }
        let home = self.index.home(hash);
        self.prepare_to_store(hash);
        // While the bucket is on its way, as in a read.
        let mut now = Now::new(clock);
        let expires_at = life.deadline(&mut now);
        if !self.is_quiet(&mut now) {
            return None;
        }
        let ordinary = match self.find_plain(home, hash, key) {
            None if self.is_full() => Ordinary::Turnover,
            // Nothing in here is below the mark, as nothing is doomed.
            Some((id, entry)) if !now.has_reached(self.deadline(id, entry)) => {
                Ordinary::Overwrite(id)
            }
            _ => return None,
        };
        Some((ordinary, expires_at))
    }

    /// Overwrites the value of a live entry for which this was expected, and returns it; hands the new one back if
    /// there is no entry.
    #[inline(always)]
    pub(crate) fn overwrite_plain(&mut self, id: u32, value: V, stamp: Stamp) -> Result<V, V> {
        let Some(entry) = self.slab.get_mut(id) else {
            return Err(value);
        };
        let old = std::mem::replace(&mut entry.value, value);
        let (was, due) = (entry.stamp.due(), stamp.due());
        entry.stamp.renew(stamp);
        entry.stamp.hit(MAX_HITS);
        if due < was {
            self.schedule(id, due.moment());
        }
        Ok(old)
    }

    /// The same for a value that any write brings, whose key is known to have no entry.
    pub(super) fn turn_over_incoming(
        &mut self,
        incoming: Incoming<K, V>,
        namespace: u32,
        now: &mut Now<'_>,
    ) -> Result<Entry<K, V>, Incoming<K, V>> {
        let says_nothing = incoming.weight == 1
            && incoming.tags.is_none()
            && incoming.plan == Plan::NONE
            && namespace == Namespace::ROOT;
        if !says_nothing || !self.is_full() || !self.is_tidy() || !self.is_quiet(now) {
            return Err(incoming);
        }
        self.turn_over(incoming.entry)
            .map_err(|entry| Incoming { entry, ..incoming })
    }

    /// Whether an entry of weight 1 can come only by the eviction of another, and there is one.
    #[inline(always)]
    fn is_full(&self) -> bool {
        let entries = self.evictor.live().entries;
        entries >= self.limits.entries.min(self.limits.weight) && entries > 0
    }

    /// Whether nothing lies beside the slots, and nothing is to be done but what the time may bring; and the policy
    /// is the one that this is for.
    #[inline(always)]
    fn is_tidy(&self) -> bool {
        matches!(self.evictor, Evictor::S3Fifo(_))
            && self.doomed.entries == 0
            && self.beside.is_blank()
            && !self.surplus
            && !self.index.has_work()
            && self.rubble.is_empty()
            && !self.is_loose()
    }

    /// Stores an entry in the place of the policy's victim, and hands that over; hands the entry back if there is
    /// no victim. For a write of which this was expected.
    #[inline(always)]
    pub(crate) fn turn_over(&mut self, mut entry: Entry<K, V>) -> Result<Entry<K, V>, Entry<K, V>> {
        let Evictor::S3Fifo(policy) = &mut self.evictor else {
            return Err(entry);
        };
        let mut slots = Alike(&mut self.slab);
        let (hash, due) = (entry.stamp.hash(), entry.stamp.due());
        let Some((id, seen, place)) = policy.exchange(hash, &mut slots) else {
            return Err(entry);
        };
        entry.stamp.mark(place, 0);
        // What stands in a queue has a slot.
        let old = slots.0.replace(id, entry)?;
        self.index.exchange(seen.hash, hash, id);
        policy.settle_of_equals(&mut slots);
        prepare_to_evict(policy, &self.index, &mut self.slab);
        // The slot stands on the wheel by the victim's deadline at the latest, if that had one.
        if old.stamp.due() > due {
            self.schedule(id, due.moment());
        }
        Ok(old)
    }
}

/// The slots of a shard in which all entries weigh 1.
struct Alike<'a, K, V>(&'a mut Slab<K, V>);

impl<K, V> Slots for Alike<'_, K, V> {
    #[inline(always)]
    fn glance(&self, id: u32) -> Glance {
        let stamp = self.0.get(id).map(|entry| &entry.stamp);
        Glance {
            hits: stamp.map_or(0, Stamp::hits),
            weight: 1,
            hash: stamp.map_or(0, Stamp::hash),
        }
    }

    #[inline]
    fn place(&self, id: u32) -> u8 {
        self.0.get(id).map_or(0, |entry| entry.stamp.place())
    }

    #[inline(always)]
    fn mark(&mut self, id: u32, place: u8, hits: u8) {
        if let Some(entry) = self.0.get_mut(id) {
            entry.stamp.mark(place, hits);
        }
    }

    #[inline]
    fn weight(&self, _: u32) -> u64 {
        1
    }
}
