//! Making room and reclaiming: what every critical section does in passing, in bounded batches.

use super::remove::Victim;
use super::side_tables::{PolicyView, hash_of};
use super::slab::Slab;
use super::{STEPS_PER_EVICTION, Shard, ShardCapacity};
use crate::ds::index::Index;
use crate::entry::generation::EpochCounter;
use crate::entry::removal::{RemovalCause, RemovedBatch};
use crate::policy::Policy;
use crate::util::clock::{NEVER, Now};
use crate::util::cpu::prefetch_owned;

impl<K, V> Shard<K, V> {
    /// Sets a new capacity. What is over it is evicted a batch at a time.
    pub(crate) fn set_capacity(&mut self, capacity: ShardCapacity) {
        self.capacity = capacity;
        self.policy.resize(capacity.entries, capacity.weight);
        self.index
            .set_max_entries(u32::try_from(capacity.entries).ok());
        self.over_capacity = self.is_over(0, 0);
    }

    /// Reclaims up to `budget` expired or cleared entries, and entries over the capacity; returns what is left of the
    /// budget.
    #[inline]
    pub(crate) fn run_maintenance(
        &mut self,
        budget: u32,
        epochs: &EpochCounter,
        now: &mut Now<'_>,
        out: &mut RemovedBatch<K, V>,
    ) -> u32 {
        let tidy = !self.index.has_work() && self.deferred_free.is_empty();
        if self.cleared.entries == 0 && tidy && !self.over_capacity && self.no_timer_due(now) {
            return budget;
        }
        self.reclaim(budget, epochs, now, out)
    }

    /// `run_maintenance`, once there is something to do.
    #[cold]
    fn reclaim(
        &mut self,
        mut budget: u32,
        epochs: &EpochCounter,
        now: &mut Now<'_>,
        out: &mut RemovedBatch<K, V>,
    ) -> u32 {
        let mut steps = budget.saturating_mul(2);
        let mut moved = false;
        while budget > 0 {
            let before = steps;
            if let Some(id) = self.pop_expired(now, &mut steps) {
                self.remove_into(id, RemovalCause::Expired, out);
            } else if let Some(id) = self.policy.pop_cleared() {
                if let Some(victim) = self.unlink_cleared(id) {
                    self.free_slot(victim, out);
                }
            } else if self.is_over(0, 0) {
                let Some(victim) = self.evict_over_capacity(epochs, now) else {
                    break;
                };
                self.free_slot(victim, out);
            } else {
                moved |= steps < before;
                break;
            }
            moved = true;
            budget -= 1;
        }
        if moved || self.index.has_work() {
            let slab = &self.slab;
            self.index.migrate_some(|id| hash_of(slab, id));
            self.free_if_empty();
        }
        self.over_capacity = self.is_over(0, 0);
        if let Some(deferred_free) = self.deferred_free.last_mut() {
            if !deferred_free.free_some() {
                self.deferred_free.pop();
            }
        }
        budget
    }

    #[inline]
    pub(super) fn is_over(&self, entries: u64, weight: u64) -> bool {
        // A sum beyond all numbers is over every limit.
        let exceeds = |sum: Option<u64>, limit| sum.is_none_or(|sum| sum > limit);
        let usage = self.usage();
        exceeds(usage.entries.checked_add(entries), self.capacity.entries)
            || exceeds(usage.weight.checked_add(weight), self.capacity.weight)
    }

    /// Evicts until `entries` more of `weight` fit; returns the last victim, whose slot is still taken.
    /// While a lowered capacity is being trimmed to, it stops once the new weight is made up for: the rest is evicted a
    /// batch at a time.
    #[inline(always)]
    pub(super) fn make_room(
        &mut self,
        entries: u64,
        weight: u64,
        epochs: &EpochCounter,
        now: &mut Now<'_>,
        out: &mut RemovedBatch<K, V>,
    ) -> Option<Victim> {
        let (mut usage, capacity) = (self.usage(), self.capacity);
        let enough = ShardCapacity {
            entries: usage.entries.max(capacity.entries).saturating_sub(entries),
            weight: usage.weight.max(capacity.weight).saturating_sub(weight),
        };
        let mut last = None;
        while usage.entries > enough.entries || usage.weight > enough.weight {
            if let Some(victim) = last.take() {
                self.free_slot(victim, out);
            }
            last = self.evict(epochs, now);
            match &last {
                Some(victim) => usage.take(victim.weight()),
                None => break,
            }
        }
        last
    }

    #[inline(never)]
    fn evict_over_capacity(&mut self, epochs: &EpochCounter, now: &mut Now<'_>) -> Option<Victim> {
        self.evict(epochs, now)
    }

    /// Takes one entry out of everything but its slot: an expired entry if a few steps find one, else a
    /// cleared one, else the policy's victim.
    #[inline(always)]
    fn evict(&mut self, epochs: &EpochCounter, now: &mut Now<'_>) -> Option<Victim> {
        let quiet = self.no_timer_due(now);
        if !quiet {
            let mut steps = STEPS_PER_EVICTION;
            if let Some(id) = self.pop_expired(now, &mut steps) {
                let victim = self.unlink(id, RemovalCause::Expired);
                return victim.map(Victim::off_the_wheel);
            }
        }
        if self.cleared.entries > 0 {
            if let Some(id) = self.policy.pop_cleared() {
                return self.unlink_cleared(id);
            }
        }
        let mut slots = PolicyView {
            slab: &mut self.slab,
            side_tables: &self.side_tables,
        };
        let (id, seen) = self.policy.victim(&mut slots)?;
        // Where no deadline has come and nothing is tagged, there is no other cause.
        let (cause, tagged) = if quiet && self.side_tables.none_in_use() {
            (RemovalCause::Size, false)
        } else {
            self.cause_of(id, epochs, now)
        };
        let victim = self.unlink_from_tables(id, (seen.hash, tagged), cause, seen.weight);
        Some(victim)
    }

    /// What the policy's victim dies of, and whether it is tagged.
    #[inline(never)]
    fn cause_of(&self, id: u32, epochs: &EpochCounter, now: &mut Now<'_>) -> (RemovalCause, bool) {
        let Some(entry) = self.slab.get(id) else {
            return (RemovalCause::Size, false);
        };
        let tagged = entry.header.is_tagged();
        let cause = if now.has_reached(self.reclaim_at(id, entry)) {
            RemovalCause::Expired
        } else if tagged && self.is_dead_by_tag(id, entry, epochs) {
            RemovalCause::Invalidated
        } else {
            RemovalCause::Size
        };
        (cause, tagged)
    }

    /// Whether no deadline has come, and none is near enough to be looked for.
    #[inline(always)]
    pub(super) fn no_timer_due(&self, now: &mut Now<'_>) -> bool {
        self.wheel.len() == 0 || self.wheel.no_timer_due(now.coarse())
    }

    /// Asks for the memory that storing an entry of this hash will look at and looking it up will not.
    #[inline]
    pub(crate) fn prepare_to_store(&self, hash: u32) {
        self.policy.prefetch(hash);
    }

    /// Takes an entry that has already left the list of cleared entries out of everything but its slot.
    fn unlink_cleared(&mut self, id: u32) -> Option<Victim> {
        let weight = self.weight_of(id);
        self.cleared.take(weight);
        self.unlink_entry(id, RemovalCause::Invalidated, weight)
    }

    fn pop_expired(&mut self, now: &mut Now<'_>, steps: &mut u32) -> Option<u32> {
        if self.wheel.len() == 0 {
            return None;
        }
        let (slab, side_tables) = (&self.slab, &self.side_tables);
        self.wheel.pop_expired(now.coarse(), steps, |id| {
            slab.get(id).map_or(NEVER, |entry| {
                side_tables.reclaim_at(id, entry.header.check_at())
            })
        })
    }
}

/// Asks for the memory that the next eviction will look at: the victim's slot two turns ahead, and what its hash
/// leads to and what it owns one turn ahead, when the slot has arrived.
#[inline(always)]
pub(super) fn prepare_to_evict<K, V>(policy: &impl Policy, index: &Index, slab: &mut Slab<K, V>) {
    let prefetch_hint = policy.prefetch_hint();
    slab.prefetch(prefetch_hint.second);
    slab.prefetch(prefetch_hint.marked);
    if let Some(entry) = slab.get_mut(prefetch_hint.next) {
        let hash = entry.header.hash();
        index.prefetch(hash);
        policy.prefetch(hash);
        prefetch_owned(&mut entry.key);
        prefetch_owned(&mut entry.value);
    }
}
