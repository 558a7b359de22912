//! The fast path of the two writes that a cache sees most: in a full shard, a new key takes the slot of the policy's
//! victim; or a live value is overwritten.
//!
//! The fast path does what [`Shard::store`] does, in the same order, and nothing that it does not. Where all entries
//! weigh 1, no side table is in use and nothing is to be reclaimed, most of the checks of `store` are known to find
//! nothing. They are made once, at the beginning, which saves a third to a half of the instructions of such a write.

use super::evict::prepare_to_evict;
use super::{NewEntry, Shard};
use crate::entry::Entry;
use crate::entry::expiry::Lifetime;
use crate::entry::freshness::RefreshPlan;
use crate::entry::generation::Namespace;
use crate::entry::header::EntryHeader;
use crate::policy::any::AnyPolicy;
use crate::policy::{EntryView, MAX_HITS, Policy, Slots};
use crate::shard::slab::Slab;
use crate::util::clock::{Clock, Now};

/// What a write of a value that has nothing to say of itself comes to.
#[derive(Clone, Copy)]
pub(crate) enum FastPath {
    /// Its key has no entry, and it takes a victim's place.
    EvictAndInsert,
    /// It is written over the live entry with this address.
    Overwrite(u32),
}

impl<K, V> Shard<K, V> {
    /// Whether the write of an entry of weight 1 in the root, without tags, that lives so long (not nothing) from now
    /// on, is an ordinary one; with its deadline. Runs `Eq`, and changes nothing.
    #[inline(always)]
    pub(crate) fn fast_path_for(
        &self,
        hash: u32,
        key: &K,
        lifetime: Lifetime,
        clock: &Clock,
    ) -> Option<(FastPath, u64)>
    where
        K: Eq,
    {
        if !self.fast_path_ok() {
            return None;
        }
        let home = self.index.home(hash);
        self.prepare_to_store(hash);
        // While the bucket is on its way, as in a read.
        let mut now = Now::new(clock);
        let expires_at = lifetime.deadline(&mut now);
        if !self.no_timer_due(&mut now) {
            return None;
        }
        let fast_path = match self.find_in_root(home, hash, key) {
            None if self.is_full() => FastPath::EvictAndInsert,
            // Nothing in here is below the minimum epoch, as nothing is cleared.
            Some((id, entry)) if !now.has_reached(self.expires_at(id, entry)) => {
                FastPath::Overwrite(id)
            }
            _ => return None,
        };
        Some((fast_path, expires_at))
    }

    /// Overwrites the value of a live entry for which this was expected, and returns it; hands the new one back if
    /// there is no entry.
    #[inline(always)]
    pub(crate) fn overwrite_fast(
        &mut self,
        id: u32,
        value: V,
        header: EntryHeader,
    ) -> Result<V, V> {
        let Some(entry) = self.slab.get_mut(id) else {
            return Err(value);
        };
        let old = std::mem::replace(&mut entry.value, value);
        let (was, due) = (entry.header.packed_deadline(), header.packed_deadline());
        entry.header.renew(header);
        entry.header.hit(MAX_HITS);
        if due < was {
            self.schedule(id, due.moment());
        }
        Ok(old)
    }

    /// Inserts the entry of any write, whose key is known to be absent, in the place of a victim. Hands the entry back
    /// if the fast path does not apply.
    pub(super) fn insert_evicting_new(
        &mut self,
        new_entry: NewEntry<K, V>,
        namespace: u32,
        now: &mut Now<'_>,
    ) -> Result<Entry<K, V>, NewEntry<K, V>> {
        let says_nothing = new_entry.weight == 1
            && new_entry.tags.is_none()
            && new_entry.plan == RefreshPlan::NONE
            && namespace == Namespace::ROOT;
        if !says_nothing || !self.is_full() || !self.fast_path_ok() || !self.no_timer_due(now) {
            return Err(new_entry);
        }
        self.insert_evicting(new_entry.entry)
            .map_err(|entry| NewEntry { entry, ..new_entry })
    }

    /// Whether an entry of weight 1 can come only by the eviction of another, and there is one.
    #[inline(always)]
    fn is_full(&self) -> bool {
        let entries = self.policy.live().entries;
        entries >= self.capacity.entries.min(self.capacity.weight) && entries > 0
    }

    /// Whether no side table is in use, nothing is to be done but what the time may bring, and the policy is the one
    /// that the fast path is for.
    #[inline(always)]
    fn fast_path_ok(&self) -> bool {
        matches!(self.policy, AnyPolicy::S3Fifo(_))
            && self.cleared.entries == 0
            && self.side_tables.none_needed()
            && !self.over_capacity
            && !self.index.has_work()
            && self.deferred_free.is_empty()
            && !self.is_fragmented()
    }

    /// Stores an entry in the place of the policy's victim, and hands that over; hands the entry back if there is
    /// no victim. For a write of which this was expected.
    #[inline(always)]
    pub(crate) fn insert_evicting(
        &mut self,
        mut entry: Entry<K, V>,
    ) -> Result<Entry<K, V>, Entry<K, V>> {
        let AnyPolicy::S3Fifo(policy) = &mut self.policy else {
            return Err(entry);
        };
        let mut slots = UnitWeightView(&mut self.slab);
        let (hash, due) = (entry.header.hash(), entry.header.packed_deadline());
        let Some((id, seen, queue)) = policy.evict_and_admit(hash, &mut slots) else {
            return Err(entry);
        };
        entry.header.set_queue(queue, 0);
        // An entry in a queue has a slot.
        let old = slots.0.replace(id, entry)?;
        self.index.replace(seen.hash, hash, id);
        policy.demote_fresh_of_equal_weight(&mut slots);
        prepare_to_evict(policy, &self.index, &mut self.slab);
        // The slot is on the timer wheel by the victim's deadline at the latest, if that had one.
        if old.header.packed_deadline() > due {
            self.schedule(id, due.moment());
        }
        Ok(old)
    }
}

/// The slots of a shard in which all entries weigh 1.
struct UnitWeightView<'a, K, V>(&'a mut Slab<K, V>);

impl<K, V> Slots for UnitWeightView<'_, K, V> {
    #[inline(always)]
    fn view(&self, id: u32) -> EntryView {
        let header = self.0.get(id).map(|entry| &entry.header);
        EntryView {
            hits: header.map_or(0, EntryHeader::hits),
            weight: 1,
            hash: header.map_or(0, EntryHeader::hash),
        }
    }

    #[inline]
    fn queue(&self, id: u32) -> u8 {
        self.0.get(id).map_or(0, |entry| entry.header.queue())
    }

    #[inline(always)]
    fn set_queue(&mut self, id: u32, queue: u8, hits: u8) {
        if let Some(entry) = self.0.get_mut(id) {
            entry.header.set_queue(queue, hits);
        }
    }

    #[inline]
    fn weight(&self, _: u32) -> u64 {
        1
    }
}
