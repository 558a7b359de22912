//! One shard: index, slab, eviction policy and timer wheel, changed together.
//!
//! A shard knows no lock, no clock and no callback. It is told the time, works under `&mut self` (reads
//! under `&self`), and returns what it removed, so that its owner can drop and tell of it outside the
//! lock. The only user code that runs in here is `Eq` of keys, and no method changes anything before
//! the last such call.
//!
//! # Invariants
//! * Every entry in the slab is found by the index under its own hash, and the index holds nothing else.
//! * Every entry stands in exactly one list of the evictor: a live one in a queue, a doomed one (below
//!   the shard's mark) in the doomed list.
//! * Every entry with a deadline is scheduled in the wheel, at its deadline or earlier.
//! * `live` and `doomed` are the sums over the entries above and below the mark. Together they keep the
//!   limits, save while lowered limits are being trimmed to.
//!
//! # Clearing
//! A `clear` raises the cache's floor. The next exclusive visit to the shard (at the latest the clear's
//! own) notices, draws a number for its mark and dooms everything it holds, in O(1). Until then the
//! shard is read as empty. Doomed entries are swept a slice a visit, and before anything live is
//! evicted.
//!
//! # Cost
//! Every operation is O(1) expected. A visit reclaims at most [`SLICE`] expired or doomed entries, plus
//! the evictions that its own weight needs.

use equivalent::Equivalent;

use crate::entry::Entry;
use crate::generation::{Sequence, TagSet};
use crate::parts::index::Index;
use crate::parts::policy::Evictor;
use crate::parts::policy::contract::{MAX_HITS, Policy, QueueLens, Slots};
use crate::parts::steps::Steps;
use crate::parts::wheel::Wheel;
use crate::removal::{Batch, Gone, RemovalCause};
use crate::slab::Slab;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::time::{NEVER, Now};

/// The most entries that one visit reclaims beyond what its own weight needs.
pub(crate) const SLICE: u32 = 64;
/// How many wheel steps one eviction spends on finding an expired entry before it asks the policy.
const STEPS_AN_EVICTION: u32 = 8;

/// What a shard may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) entries: u64,
    pub(crate) weight: u64,
}

/// How many entries, and what they weigh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) entries: u64,
    pub(crate) weight: u64,
}

impl Totals {
    fn add(&mut self, weight: u64) {
        self.entries += 1;
        self.weight += weight;
    }

    fn take(&mut self, weight: u64) {
        self.entries -= 1;
        self.weight -= weight;
    }
}

/// Whose entries a call may see: a namespace, and the floor below which it is dead.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) namespace: u32,
    pub(crate) floor: u64,
    pub(crate) sequence: &'a Sequence,
}

/// What a look-up found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Absent,
    /// A value that may be served.
    Live(u32),
    /// A value that may not, and why; it counts as absent.
    Past(u32, RemovalCause),
}

/// A value on its way in, with everything the shard keeps about it.
pub(crate) struct Incoming<K, V> {
    pub(crate) key: K,
    pub(crate) value: V,
    pub(crate) expires_at: u64,
    pub(crate) born: u64,
    pub(crate) weight: u64,
    pub(crate) tags: Option<Box<TagSet>>,
}

/// What became of an incoming value.
pub(crate) enum Outcome<K, V> {
    /// Stored. The value that it replaced leaves with the incoming key, which was not needed.
    Stored { replaced: Option<(K, V, u64)> },
    /// Not stored: every slot address is taken.
    Full(K, V),
}

/// The time to idle: each entry's last access lies beside the slots.
struct Idle {
    after: u64,
    accessed: Steps<AtomicU64>,
}

pub(crate) struct Shard<K, V> {
    slab: Slab<K, V>,
    index: Index,
    evictor: Evictor,
    wheel: Wheel,
    /// Present where a weigher is; without one everything weighs 1.
    weights: Option<Steps<u64>>,
    idle: Option<Idle>,
    /// Grows with the first tagged entry.
    tags: Steps<Option<Box<TagSet>>>,
    limits: Limits,
    live: Totals,
    doomed: Totals,
    /// Entries born below it are doomed.
    mark: u64,
    /// The cache-wide floor that the mark stands for.
    floor: u64,
    version: u32,
}

impl<K, V> Shard<K, V> {
    pub(crate) fn new(
        evictor: Evictor,
        limits: Limits,
        weighted: bool,
        idle_after: Option<u64>,
        now: u64,
    ) -> Self {
        Shard {
            slab: Slab::new(),
            index: Index::new(u32::try_from(limits.entries).ok()),
            evictor,
            wheel: Wheel::new(now),
            weights: weighted.then(Steps::new),
            idle: idle_after.map(|after| Idle {
                after,
                accessed: Steps::new(),
            }),
            tags: Steps::new(),
            limits,
            live: Totals::default(),
            doomed: Totals::default(),
            mark: 0,
            floor: 0,
            version: 0,
        }
    }

    // ---- reading ----

    /// Finds what `key` stands for. Runs `Eq` and changes nothing.
    #[inline]
    pub(crate) fn look<Q>(&self, hash: u32, key: &Q, scope: Scope<'_>, now: &mut Now<'_>) -> Found
    where
        Q: Equivalent<K> + ?Sized,
    {
        let same = |id| {
            self.slab.get(id).is_some_and(|entry| {
                entry.hash == hash
                    && entry.namespace == scope.namespace
                    && key.equivalent(&entry.key)
            })
        };
        match self.index.find(hash, same) {
            Some(id) => self.judge(id, scope, now),
            None => Found::Absent,
        }
    }

    /// Whether the entry at `id` may be served.
    #[inline]
    pub(crate) fn judge(&self, id: u32, scope: Scope<'_>, now: &mut Now<'_>) -> Found {
        let Some(entry) = self.slab.get(id) else {
            return Found::Absent;
        };
        if self.is_dead(id, entry, scope) {
            Found::Past(id, RemovalCause::Invalidated)
        } else if now.has_reached(self.deadline(id, entry)) {
            Found::Past(id, RemovalCause::Expired)
        } else {
            Found::Live(id)
        }
    }

    #[inline]
    fn is_dead(&self, id: u32, entry: &Entry<K, V>, scope: Scope<'_>) -> bool {
        // A floor this shard has not seen yet kills all it holds.
        self.floor < scope.sequence.floor()
            || entry.born < self.mark
            || entry.born < scope.floor
            || (entry.tagged && !self.tags_admit(id, entry.born, scope.sequence))
    }

    fn tags_admit(&self, id: u32, born: u64, sequence: &Sequence) -> bool {
        match self.tags.try_get(id) {
            Some(Some(set)) => set.admits(born, sequence),
            _ => true,
        }
    }

    /// Whether the entry at `id` is dead by one of its tags.
    fn is_dead_by_tag(&self, id: u32, sequence: &Sequence) -> bool {
        self.slab
            .get(id)
            .is_some_and(|entry| entry.tagged && !self.tags_admit(id, entry.born, sequence))
    }

    #[inline]
    pub(crate) fn entry(&self, id: u32) -> Option<&Entry<K, V>> {
        self.slab.get(id)
    }

    /// The moment from which the entry may not be served.
    #[inline]
    pub(crate) fn deadline(&self, id: u32, entry: &Entry<K, V>) -> u64 {
        match &self.idle {
            None => entry.expires_at,
            Some(idle) => entry.expires_at.min(idle.deadline(id)),
        }
    }

    /// Notes a read of the entry for the policy and for the time to idle.
    #[inline]
    pub(crate) fn note_hit(&self, id: u32, entry: &Entry<K, V>, now: &mut Now<'_>) {
        entry.hit(MAX_HITS);
        if let Some(idle) = &self.idle {
            idle.note(id, now);
        }
    }

    /// Notes a read for a policy that reorders its queue on every hit.
    pub(crate) fn reorder(&mut self, id: u32) {
        self.evictor.hit(id);
    }

    pub(crate) fn weight_of(&self, id: u32) -> u64 {
        weight_of(self.weights.as_ref(), id)
    }

    /// What is alive, or may be: entries whose time is up or whose tag moved count until reclaimed.
    pub(crate) fn live(&self, sequence: &Sequence) -> Totals {
        if self.floor < sequence.floor() {
            Totals::default()
        } else {
            self.live
        }
    }

    /// The number below which everything in this shard is dead.
    pub(crate) fn mark(&self) -> u64 {
        self.mark
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// One above the highest slot address that may hold an entry.
    pub(crate) fn end(&self) -> u32 {
        self.slab.end()
    }

    pub(crate) fn queues(&self) -> QueueLens {
        self.evictor.queue_lens()
    }

    /// Whether a visit would find something to reclaim.
    pub(crate) fn has_work(&self, now: u64, sequence: &Sequence) -> bool {
        self.floor < sequence.floor()
            || self.doomed.entries > 0
            || self.is_over(0, 0)
            || self.wheel.next_due().is_some_and(|due| due <= now)
    }

    // ---- writing ----

    /// Takes notice of a `clear`. Every exclusive visit begins with it.
    pub(crate) fn notice_clear(&mut self, sequence: &Sequence) {
        let floor = sequence.floor();
        if self.floor >= floor {
            return;
        }
        self.evictor.doom_all();
        self.doomed.entries += self.live.entries;
        self.doomed.weight += self.live.weight;
        self.live = Totals::default();
        // Above every number that an entry in here was born with, and at most what later ones get.
        self.mark = sequence.draw();
        self.floor = floor;
    }

    /// Stores a value where `look` found room for it, evicting as far as its weight needs.
    pub(crate) fn store(
        &mut self,
        hash: u32,
        incoming: Incoming<K, V>,
        found: Found,
        scope: Scope<'_>,
        now: &mut Now<'_>,
        out: &mut Batch<K, V>,
    ) -> Outcome<K, V> {
        match found {
            Found::Live(id) => {
                let grown = incoming.weight.saturating_sub(self.weight_of(id));
                let version = self.slab.get(id).map(|entry| entry.version);
                self.make_room(0, grown, scope.sequence, now, out);
                // Making room may have taken the very entry that was to be overwritten.
                if self.slab.get(id).map(|entry| entry.version) == version {
                    return self.overwrite(id, incoming, now);
                }
                self.store_new(hash, incoming, scope, now, out)
            }
            Found::Past(id, cause) => {
                self.unlink(id, cause, out);
                self.store_new(hash, incoming, scope, now, out)
            }
            Found::Absent => self.store_new(hash, incoming, scope, now, out),
        }
    }

    fn store_new(
        &mut self,
        hash: u32,
        incoming: Incoming<K, V>,
        scope: Scope<'_>,
        now: &mut Now<'_>,
        out: &mut Batch<K, V>,
    ) -> Outcome<K, V> {
        self.make_room(1, incoming.weight, scope.sequence, now, out);
        let entry = Entry {
            key: incoming.key,
            value: incoming.value,
            expires_at: incoming.expires_at,
            born: incoming.born,
            hash,
            namespace: scope.namespace,
            version: self.next_version(),
            hits: Default::default(),
            tagged: incoming.tags.is_some(),
        };
        let id = match self.slab.insert(entry) {
            Ok(id) => id,
            Err(entry) => return Outcome::Full(entry.key, entry.value),
        };
        self.set_weight(id, incoming.weight);
        self.set_tags(id, incoming.tags);
        self.touch_idle(id, now);
        let slab = &self.slab;
        self.index.insert(hash, id, |id| hash_of(slab, id));
        let mut slots = Pockets {
            slab: &mut self.slab,
            weights: self.weights.as_ref(),
        };
        self.evictor.insert(id, &mut slots);
        self.live.add(incoming.weight);
        self.schedule(id);
        Outcome::Stored { replaced: None }
    }

    fn overwrite(&mut self, id: u32, incoming: Incoming<K, V>, now: &mut Now<'_>) -> Outcome<K, V> {
        let old_weight = self.weight_of(id);
        let version = self.next_version();
        let Some(entry) = self.slab.get_mut(id) else {
            return Outcome::Full(incoming.key, incoming.value);
        };
        let value = std::mem::replace(&mut entry.value, incoming.value);
        entry.expires_at = incoming.expires_at;
        entry.born = incoming.born;
        entry.version = version;
        entry.tagged = incoming.tags.is_some();
        entry.hit(MAX_HITS);
        self.set_weight(id, incoming.weight);
        self.set_tags(id, incoming.tags);
        self.touch_idle(id, now);
        self.evictor.reweigh(id, old_weight, incoming.weight);
        self.evictor.hit(id);
        self.live.weight = self.live.weight - old_weight + incoming.weight;
        self.schedule(id);
        Outcome::Stored {
            replaced: Some((incoming.key, value, old_weight)),
        }
    }

    /// Takes an entry out and hands it over.
    pub(crate) fn take(&mut self, id: u32, cause: RemovalCause) -> Option<Gone<K, V>> {
        let mark = self.mark;
        let doomed = self.slab.get(id)?.born < mark;
        let weight = self.weight_of(id);
        if doomed {
            self.evictor.remove_doomed(id);
            self.doomed.take(weight);
        } else {
            let slots = Pockets {
                slab: &mut self.slab,
                weights: self.weights.as_ref(),
            };
            self.evictor.remove(id, &slots);
            self.live.take(weight);
        }
        self.detach(id, cause, weight)
    }

    /// Takes an entry out into the batch.
    pub(crate) fn unlink(&mut self, id: u32, cause: RemovalCause, out: &mut Batch<K, V>) {
        if let Some(gone) = self.take(id, cause) {
            out.push(gone);
        }
    }

    /// The part of a removal that is the same whichever list the entry stood in.
    fn detach(&mut self, id: u32, cause: RemovalCause, weight: u64) -> Option<Gone<K, V>> {
        self.wheel.deschedule(id);
        let slab = &self.slab;
        let hash = slab.get(id)?.hash;
        self.index.remove(hash, id, |id| hash_of(slab, id));
        self.set_tags(id, None);
        let entry = self.slab.remove(id)?;
        Some(Gone {
            key: entry.key,
            value: entry.value,
            cause,
            weight,
            namespace: entry.namespace,
            born: entry.born,
        })
    }

    /// Gives an entry a new deadline by age.
    pub(crate) fn set_deadline(&mut self, id: u32, expires_at: u64, now: &mut Now<'_>) {
        if let Some(entry) = self.slab.get_mut(id) {
            entry.expires_at = expires_at;
            self.touch_idle(id, now);
            self.schedule(id);
        }
    }

    /// Changes a value in place, keeping its deadline: for counters, whose arithmetic is not user code.
    pub(crate) fn update(&mut self, id: u32, update: impl FnOnce(&mut V)) {
        let version = self.next_version();
        if let Some(entry) = self.slab.get_mut(id) {
            update(&mut entry.value);
            entry.version = version;
        }
    }

    /// New limits. What is over them goes a slice a visit.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.evictor.resize(limits.entries, limits.weight);
        self.index
            .set_max_entries(u32::try_from(limits.entries).ok());
    }

    /// Reclaims up to `budget` expired, doomed or surplus entries; returns what is left of the budget.
    pub(crate) fn tend(
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

    fn is_over(&self, entries: u64, weight: u64) -> bool {
        let held = self.live.entries + self.doomed.entries;
        let weighs = self.live.weight + self.doomed.weight;
        held.saturating_add(entries) > self.limits.entries
            || weighs.saturating_add(weight) > self.limits.weight
    }

    /// Evicts until `entries` more of `weight` fit. While lowered limits are trimmed to, it stops once
    /// the incoming weight is made up for: the surplus goes slice by slice.
    fn make_room(
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
        true
    }

    /// Takes out an entry that has already left the doomed list.
    fn finish_doomed(&mut self, id: u32, out: &mut Batch<K, V>) {
        let weight = self.weight_of(id);
        self.doomed.take(weight);
        if let Some(gone) = self.detach(id, RemovalCause::Invalidated, weight) {
            out.push(gone);
        }
    }

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

    fn schedule(&mut self, id: u32) {
        let due = match self.slab.get(id) {
            Some(entry) => self.deadline(id, entry),
            None => NEVER,
        };
        if due != NEVER {
            self.wheel.schedule(id, due);
        } else if self.wheel.len() > 0 {
            self.wheel.deschedule(id);
        }
    }

    fn touch_idle(&mut self, id: u32, now: &mut Now<'_>) {
        if let Some(idle) = &mut self.idle {
            idle.accessed.reserve_for(id);
            *idle.accessed.get_mut(id) = AtomicU64::new(now.precise());
        }
    }

    fn set_weight(&mut self, id: u32, weight: u64) {
        if let Some(weights) = &mut self.weights {
            weights.reserve_for(id);
            *weights.get_mut(id) = weight;
        }
    }

    fn set_tags(&mut self, id: u32, tags: Option<Box<TagSet>>) {
        if tags.is_some() {
            self.tags.reserve_for(id);
        }
        if u64::from(id) < self.tags.len() {
            *self.tags.get_mut(id) = tags;
        }
    }

    fn next_version(&mut self) -> u32 {
        self.version = self.version.wrapping_add(1);
        self.version
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

impl Idle {
    fn deadline(&self, id: u32) -> u64 {
        // Relaxed: the shard's lock orders this with the write that set it; a concurrent reader's
        // store only moves it later, and missing that one costs precision, not safety.
        self.accessed.try_get(id).map_or(NEVER, |at| {
            at.load(Ordering::Relaxed).saturating_add(self.after)
        })
    }

    /// Notes an access if the last noted one is at least a hundredth of the time to idle ago, so that a
    /// hot entry's line is written seldom.
    fn note(&self, id: u32, now: &mut Now<'_>) {
        let Some(accessed) = self.accessed.try_get(id) else {
            return;
        };
        let now = now.coarse();
        let last = accessed.load(Ordering::Relaxed);
        if now > last && now - last >= self.after / 100 {
            // Relaxed, and a maximum: readers race, and the latest access counts. The slot cannot
            // change hands meanwhile: the reader holds the shard's lock, shared.
            accessed.fetch_max(now, Ordering::Relaxed);
        }
    }
}

/// The slab with its weights, as the evictor sees them.
struct Pockets<'a, K, V> {
    slab: &'a mut Slab<K, V>,
    weights: Option<&'a Steps<u64>>,
}

impl<K, V> Slots for Pockets<'_, K, V> {
    #[inline]
    fn hits(&self, id: u32) -> u8 {
        self.slab
            .get(id)
            .map_or(0, |entry| entry.hits.load(Ordering::Relaxed))
    }

    #[inline]
    fn set_hits(&mut self, id: u32, hits: u8) {
        if let Some(entry) = self.slab.get_mut(id) {
            *entry.hits.get_mut() = hits;
        }
    }

    #[inline]
    fn weight(&self, id: u32) -> u64 {
        weight_of(self.weights, id)
    }

    #[inline]
    fn hash(&self, id: u32) -> u32 {
        hash_of(self.slab, id)
    }
}

fn weight_of(weights: Option<&Steps<u64>>, id: u32) -> u64 {
    match weights {
        None => 1,
        Some(weights) => weights.try_get(id).copied().unwrap_or(0),
    }
}

fn hash_of<K, V>(slab: &Slab<K, V>, id: u32) -> u32 {
    slab.get(id).map_or(0, |entry| entry.hash)
}

#[cfg(any(test, debug_assertions))]
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
#[cfg(any(test, debug_assertions))]
struct Inspected<'a, K, V>(&'a Shard<K, V>);

#[cfg(any(test, debug_assertions))]
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
