//! Making room and reclaiming: what every visit does in passing, in bounded slices.

use super::beside::{Pockets, hash_of};
use super::{Limits, STEPS_AN_EVICTION, Shard};
use crate::generation::Sequence;
use crate::parts::policy::contract::Policy;
use crate::removal::{Batch, RemovalCause};
use crate::time::{NEVER, Now};

impl<K, V> Shard<K, V> {
    /// New limits. What is over them goes a slice a visit.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.evictor.resize(limits.entries, limits.weight);
        self.index
            .set_max_entries(u32::try_from(limits.entries).ok());
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
        let quiet = self.wheel.len() == 0 || self.wheel.is_quiet(now.coarse());
        if quiet && self.doomed.entries == 0 && !self.is_over(0, 0) {
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
                self.finish_doomed(id, out);
            } else if self.is_over(0, 0) {
                if !self.evict(sequence, now, out) {
                    break;
                }
            } else {
                moved |= steps < before;
                break;
            }
            moved = true;
            budget -= 1;
        }
        if moved {
            let slab = &self.slab;
            self.index.step(|id| hash_of(slab, id));
            self.release_if_empty();
        }
        budget
    }

    #[inline]
    pub(super) fn is_over(&self, entries: u64, weight: u64) -> bool {
        let held = self.live.entries + self.doomed.entries;
        let weighs = self.live.weight + self.doomed.weight;
        // A sum beyond all numbers is over every limit.
        let exceeds = |sum: Option<u64>, limit| sum.is_none_or(|sum| sum > limit);
        exceeds(held.checked_add(entries), self.limits.entries)
            || exceeds(weighs.checked_add(weight), self.limits.weight)
    }

    /// Evicts until `entries` more of `weight` fit. While lowered limits are trimmed to, it stops once
    /// the incoming weight is made up for: the surplus goes slice by slice.
    pub(super) fn make_room(
        &mut self,
        entries: u64,
        weight: u64,
        sequence: &Sequence,
        now: &mut Now<'_>,
        out: &mut Batch<K, V>,
    ) {
        let held = self.live.entries + self.doomed.entries;
        let weighs = self.live.weight + self.doomed.weight;
        let enough_entries = held
            .saturating_sub(entries)
            .max(self.limits.entries.saturating_sub(entries));
        let enough_weight = weighs
            .saturating_sub(weight)
            .max(self.limits.weight.saturating_sub(weight));
        while self.live.entries + self.doomed.entries > enough_entries
            || self.live.weight + self.doomed.weight > enough_weight
        {
            if !self.evict(sequence, now, out) {
                break;
            }
        }
    }

    /// Frees one slot: an expired entry if a few steps find one, else a doomed one, else the policy's
    /// victim.
    fn evict(&mut self, sequence: &Sequence, now: &mut Now<'_>, out: &mut Batch<K, V>) -> bool {
        let mut steps = STEPS_AN_EVICTION;
        if let Some(id) = self.pop_expired(now, &mut steps) {
            self.unlink(id, RemovalCause::Expired, out);
            return true;
        }
        if let Some(id) = self.evictor.pop_doomed() {
            self.finish_doomed(id, out);
            return true;
        }
        let mut slots = Pockets {
            slab: &mut self.slab,
            weights: self.weights.as_ref(),
        };
        let Some(id) = self.evictor.victim(&mut slots) else {
            return false;
        };
        let cause = match self.slab.get(id) {
            Some(entry) if now.has_reached(self.deadline(id, entry)) => RemovalCause::Expired,
            _ if self.is_dead_by_tag(id, sequence) => RemovalCause::Invalidated,
            _ => RemovalCause::Size,
        };
        let weight = self.weight_of(id);
        self.live.take(weight);
        if let Some(gone) = self.detach(id, cause, weight) {
            out.push(gone);
        }
        if let Some(next) = self.evictor.likely_victim() {
            // Its slot lies near this one's; what its hash leads to does not.
            self.prefetch(hash_of(&self.slab, next));
        }
        true
    }

    /// Asks for the memory that storing or evicting an entry of this hash will look at.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u32) {
        self.index.prefetch(hash);
        self.evictor.prefetch(hash);
    }

    /// Takes out an entry that has already left the doomed list.
    fn finish_doomed(&mut self, id: u32, out: &mut Batch<K, V>) {
        let weight = self.weight_of(id);
        self.doomed.take(weight);
        if let Some(gone) = self.detach(id, RemovalCause::Invalidated, weight) {
            out.push(gone);
        }
    }

    #[inline]
    fn pop_expired(&mut self, now: &mut Now<'_>, steps: &mut u32) -> Option<u32> {
        if self.wheel.len() == 0 {
            return None;
        }
        let (slab, idle) = (&self.slab, &self.idle);
        self.wheel.pop_expired(now.coarse(), steps, |id| {
            let Some(entry) = slab.get(id) else {
                return NEVER;
            };
            match idle {
                None => entry.expires_at,
                Some(idle) => entry.expires_at.min(idle.deadline(id)),
            }
        })
    }

    /// Gives back the memory beside the slots once nothing needs it.
    fn release_if_empty(&mut self) {
        if self.slab.len() == 0 {
            self.tags.truncate(0);
            if let Some(weights) = &mut self.weights {
                weights.truncate(0);
            }
            if let Some(idle) = &mut self.idle {
                idle.accessed.truncate(0);
            }
            self.evictor.truncate(0);
            self.wheel.truncate(0);
        }
    }
}
