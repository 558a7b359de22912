//! Making room and reclaiming: what every visit does in passing, in bounded slices.

use super::remove::Victim;
use super::side_tables::{Pockets, hash_of};
use super::slab::Slab;
use super::{Limits, STEPS_AN_EVICTION, Shard};
use crate::ds::index::Index;
use crate::entry::generation::Sequence;
use crate::entry::removal::{Batch, RemovalCause};
use crate::policy::Policy;
use crate::util::clock::{NEVER, Now};
use crate::util::cpu::prefetch_owned;

impl<K, V> Shard<K, V> {
    /// New limits. What is over them goes a slice a visit.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.evictor.resize(limits.entries, limits.weight);
        self.index
            .set_max_entries(u32::try_from(limits.entries).ok());
        self.surplus = self.is_over(0, 0);
    }

    /// Reclaims up to `budget` expired, doomed or surplus entries; returns what is left of the budget.
    #[inline]
    pub(crate) fn tend(
        &mut self,
        budget: u32,
        sequence: &Sequence,
        now: &mut Now<'_>,
        out: &mut Batch<K, V>,
    ) -> u32 {
        let tidy = !self.index.has_work() && self.rubble.is_empty();
        if self.doomed.entries == 0 && tidy && !self.surplus && self.is_quiet(now) {
            return budget;
        }
        self.reclaim(budget, sequence, now, out)
    }

    /// `tend`, once there is something to do.
    #[cold]
    fn reclaim(
        &mut self,
        mut budget: u32,
        sequence: &Sequence,
        now: &mut Now<'_>,
        out: &mut Batch<K, V>,
    ) -> u32 {
        let mut steps = budget.saturating_mul(2);
        let mut moved = false;
        while budget > 0 {
            let before = steps;
            if let Some(id) = self.pop_expired(now, &mut steps) {
                self.unlink(id, RemovalCause::Expired, out);
            } else if let Some(id) = self.evictor.pop_doomed() {
                if let Some(victim) = self.forget_doomed(id) {
                    self.vacate(victim, out);
                }
            } else if self.is_over(0, 0) {
                let Some(victim) = self.evict_surplus(sequence, now) else {
                    break;
                };
                self.vacate(victim, out);
            } else {
                moved |= steps < before;
                break;
            }
            moved = true;
            budget -= 1;
        }
        if moved || self.index.has_work() {
            let slab = &self.slab;
            self.index.step(|id| hash_of(slab, id));
            self.release_if_empty();
        }
        self.surplus = self.is_over(0, 0);
        if let Some(rubble) = self.rubble.last_mut() {
            if !rubble.shed() {
                self.rubble.pop();
            }
        }
        budget
    }

    #[inline]
    pub(super) fn is_over(&self, entries: u64, weight: u64) -> bool {
        // A sum beyond all numbers is over every limit.
        let exceeds = |sum: Option<u64>, limit| sum.is_none_or(|sum| sum > limit);
        let held = self.held();
        exceeds(held.entries.checked_add(entries), self.limits.entries)
            || exceeds(held.weight.checked_add(weight), self.limits.weight)
    }

    /// Evicts until `entries` more of `weight` fit; returns the last victim, whose slot is still taken.
    /// While lowered limits are trimmed to, it stops once the incoming weight is made up for: the surplus
    /// goes slice by slice.
    #[inline(always)]
    pub(super) fn make_room(
        &mut self,
        entries: u64,
        weight: u64,
        sequence: &Sequence,
        now: &mut Now<'_>,
        out: &mut Batch<K, V>,
    ) -> Option<Victim> {
        let (mut held, limits) = (self.held(), self.limits);
        let enough = Limits {
            entries: held.entries.max(limits.entries).saturating_sub(entries),
            weight: held.weight.max(limits.weight).saturating_sub(weight),
        };
        let mut last = None;
        while held.entries > enough.entries || held.weight > enough.weight {
            if let Some(victim) = last.take() {
                self.vacate(victim, out);
            }
            last = self.evict(sequence, now);
            match &last {
                Some(victim) => held.take(victim.weight()),
                None => break,
            }
        }
        last
    }

    #[inline(never)]
    fn evict_surplus(&mut self, sequence: &Sequence, now: &mut Now<'_>) -> Option<Victim> {
        self.evict(sequence, now)
    }

    /// Takes one entry out of everything but its slot: an expired entry if a few steps find one, else a
    /// doomed one, else the policy's victim.
    #[inline(always)]
    fn evict(&mut self, sequence: &Sequence, now: &mut Now<'_>) -> Option<Victim> {
        let quiet = self.is_quiet(now);
        if !quiet {
            let mut steps = STEPS_AN_EVICTION;
            if let Some(id) = self.pop_expired(now, &mut steps) {
                let victim = self.release(id, RemovalCause::Expired);
                return victim.map(Victim::off_the_wheel);
            }
        }
        if self.doomed.entries > 0 {
            if let Some(id) = self.evictor.pop_doomed() {
                return self.forget_doomed(id);
            }
        }
        let mut slots = Pockets {
            slab: &mut self.slab,
            beside: &self.beside,
        };
        let (id, seen) = self.evictor.victim(&mut slots)?;
        // Where no deadline has come and nothing is tagged, there is no other cause.
        let (cause, tagged) = if quiet && self.beside.is_plain() {
            (RemovalCause::Size, false)
        } else {
            self.cause_of(id, sequence, now)
        };
        let victim = self.forget_one(id, (seen.hash, tagged), cause, seen.weight);
        Some(victim)
    }

    /// What the policy's victim dies of, and whether it is tagged.
    #[inline(never)]
    fn cause_of(&self, id: u32, sequence: &Sequence, now: &mut Now<'_>) -> (RemovalCause, bool) {
        let Some(entry) = self.slab.get(id) else {
            return (RemovalCause::Size, false);
        };
        let tagged = entry.stamp.is_tagged();
        let cause = if now.has_reached(self.kept_until(id, entry)) {
            RemovalCause::Expired
        } else if tagged && self.is_dead_by_tag(id, entry, sequence) {
            RemovalCause::Invalidated
        } else {
            RemovalCause::Size
        };
        (cause, tagged)
    }

    /// Whether no deadline has come, and none is near enough to be looked for.
    #[inline(always)]
    pub(super) fn is_quiet(&self, now: &mut Now<'_>) -> bool {
        self.wheel.len() == 0 || self.wheel.is_quiet(now.coarse())
    }

    /// Asks for the memory that storing an entry of this hash will look at and looking it up will not.
    #[inline]
    pub(crate) fn prepare_to_store(&self, hash: u32) {
        self.evictor.prefetch(hash);
    }

    /// Takes an entry that has already left the doomed list out of everything but its slot.
    fn forget_doomed(&mut self, id: u32) -> Option<Victim> {
        let weight = self.weight_of(id);
        self.doomed.take(weight);
        self.forget(id, RemovalCause::Invalidated, weight)
    }

    fn pop_expired(&mut self, now: &mut Now<'_>, steps: &mut u32) -> Option<u32> {
        if self.wheel.len() == 0 {
            return None;
        }
        let (slab, beside) = (&self.slab, &self.beside);
        self.wheel.pop_expired(now.coarse(), steps, |id| {
            slab.get(id).map_or(NEVER, |entry| {
                beside.kept_until(id, entry.stamp.expires_at())
            })
        })
    }
}

/// Asks for the memory that the next eviction will look at: the victim's slot two turns ahead, and what its hash
/// leads to and what it owns one turn ahead, when the slot has arrived.
#[inline(always)]
pub(super) fn prepare_to_evict<K, V>(policy: &impl Policy, index: &Index, slab: &mut Slab<K, V>) {
    let outlook = policy.outlook();
    slab.prefetch(outlook.second);
    slab.prefetch(outlook.marked);
    if let Some(entry) = slab.get_mut(outlook.next) {
        let hash = entry.stamp.hash();
        index.prefetch(hash);
        policy.prefetch(hash);
        prefetch_owned(&mut entry.key);
        prefetch_owned(&mut entry.value);
    }
}
