//! One shard: index, slab, eviction policy and timer wheel, changed together.
//!
//! A shard knows no lock, no clock and no callback. It is told the time, works under `&mut self` (reads under
//! `&self`), and returns what it removed, so that its owner can drop it and notify the listener outside the lock. The
//! only user code that runs in here is `Eq` of keys, and no method changes anything before the last such call.
//!
//! # Invariants
//! * Every entry in the slab is found by the index under its own hash, and the index holds nothing else.
//! * Every entry is in exactly one list of the policy: a live one in a queue, a cleared one (below the shard's
//!   minimum epoch) in the list of cleared entries.
//! * Every entry with a deadline is scheduled in the timer wheel, at the moment it can be reclaimed (its deadline, and
//!   the stale window after it) or earlier.
//! * `cleared` is the sum over all entries below the minimum epoch, and the policy's count the sum over the others.
//!   Both together stay within the capacity, except while a lowered capacity is being trimmed to.
//!
//! # Clearing
//! A `clear` raises the cache's minimum epoch. The next caller that locks the shard exclusively (at the latest the
//! `clear` itself) notices, takes a new epoch as the shard's minimum and turns everything that the shard holds into
//! cleared entries, in O(1). Until then the shard is read as empty. Cleared entries are reclaimed a batch at a time,
//! and before anything live is evicted.
//!
//! # Cost
//! Every operation is O(1) expected. A critical section reclaims at most [`MAINTENANCE_BATCH`] expired or cleared
//! entries, plus the evictions that its own weight needs.

mod compact;
mod deferred_free;
mod evict;
mod insert;
mod insert_fast;
mod lookup;
mod remove;
mod side_tables;
pub(crate) mod slab;
#[cfg(any(test, debug_assertions))]
mod validate;

use crate::ds::index::Index;
use crate::ds::timer_wheel::TimerWheel;
use crate::entry::Entry;
use crate::entry::freshness::{Early, OwnWindows, RefreshPlan, Stale, Windows};
use crate::entry::generation::{EpochCounter, Namespace, TagSet};
use crate::entry::removal::RemovalCause;
use crate::policy::any::AnyPolicy;
pub(crate) use crate::policy::usage::Usage;
use crate::policy::{MAX_HITS, Policy, QueueLens};
use crate::shard::slab::Slab;
use crate::util::clock::{Clock, NEVER, Now};
use deferred_free::DeferredFree;
pub(crate) use insert_fast::FastPath;
pub(crate) use lookup::Hit;
use side_tables::SideTables;

/// The most entries that one critical section reclaims beyond what its own weight needs.
pub(crate) const MAINTENANCE_BATCH: u32 = 64;
/// How many wheel steps one eviction spends on finding an expired entry before it asks the policy.
const STEPS_PER_EVICTION: u32 = 8;

/// What a shard may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShardCapacity {
    pub(crate) entries: u64,
    pub(crate) weight: u64,
}

/// Which entries a call may see: those of a namespace, from a minimum epoch on.
#[derive(Clone, Copy)]
pub(crate) struct LookupScope<'a> {
    pub(crate) namespace: u32,
    pub(crate) min_epoch: u64,
    /// The minimum epoch of the whole cache, for calls that lock the shard shared. A call that locks it exclusively
    /// goes by the minimum that the shard noticed as it was locked: a `clear` that rises meanwhile comes after it, and
    /// kills what it stores.
    pub(crate) cache_min_epoch: u64,
    pub(crate) epochs: &'a EpochCounter,
}

/// Who reads: what the scope and the time are found from.
#[derive(Clone, Copy)]
pub(crate) struct ReadContext<'a> {
    pub(crate) namespace: &'a Namespace,
    /// Whether that is the root.
    pub(crate) in_root: bool,
    pub(crate) epochs: &'a EpochCounter,
    pub(crate) clock: &'a Clock,
}

/// What a look-up found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Absent,
    /// A value that may be served.
    Live(u32),
    /// A value that may not, and why; it counts as absent.
    Dead(u32, RemovalCause),
}

/// A value on its way in, with everything the shard keeps about it.
pub(crate) struct NewEntry<K, V> {
    pub(crate) entry: Entry<K, V>,
    pub(crate) weight: u64,
    pub(crate) tags: Option<Box<TagSet>>,
    /// The deadline in its header is where the window of this begins.
    pub(crate) plan: RefreshPlan,
}

/// What became of an incoming value.
pub(crate) enum Outcome<K, V> {
    /// Stored. The value that it replaced leaves with the incoming key, which was not needed.
    Stored { replaced: Option<(K, V, u64)> },
    /// Not stored: every slot address is taken.
    Full(K, V),
}

/// How far the compaction has got.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    /// From this address on, the topmost block was looked at.
    looked_from: u32,
    /// Memory of the side tables may be freed.
    trims: bool,
}

/// Laid out by hand, for processors that take turns: one that comes after another has written here waits for each
/// line that was changed. Every write changes the lock's line and the next, where the policy begins, and the one
/// where the index begins. Reads look at none of these, but at those that follow.
#[repr(C)]
pub(crate) struct Shard<K, V> {
    policy: AnyPolicy,
    capacity: ShardCapacity,
    cleared: Usage,
    /// The capacity was lowered, and the shard may hold more than it.
    over_capacity: bool,
    compaction: Compaction,
    index: Index,
    slab: Slab<K, V>,
    side_tables: SideTables,
    /// Entries with an epoch below it are cleared.
    min_epoch: u64,
    /// The cache's minimum epoch that this shard has noticed.
    seen_min_epoch: u64,
    wheel: TimerWheel,
    /// Memory of the side tables from when the shard was emptied, which is not freed yet.
    deferred_free: Vec<DeferredFree>,
}

impl<K, V> Shard<K, V> {
    pub(crate) fn new(
        policy: AnyPolicy,
        capacity: ShardCapacity,
        weighted: bool,
        idle_after: Option<u64>,
        windows: Windows,
        now: u64,
    ) -> Self {
        Shard {
            slab: Slab::new(),
            index: Index::new(u32::try_from(capacity.entries).ok()),
            policy,
            wheel: TimerWheel::new(now),
            side_tables: SideTables::new(weighted, idle_after, windows),
            deferred_free: Vec::new(),
            compaction: Compaction::default(),
            capacity,
            cleared: Usage::default(),
            over_capacity: false,
            min_epoch: 0,
            seen_min_epoch: 0,
        }
    }

    /// Never takes the fast path of a write: for tests that compare the two.
    pub(crate) fn disable_fast_path(&mut self) {
        self.side_tables.record_every_entry();
    }

    #[inline]
    pub(crate) fn entry(&self, id: u32) -> Option<&Entry<K, V>> {
        self.slab.get(id)
    }

    /// The moment from which the entry may not be served.
    #[inline]
    pub(crate) fn expires_at(&self, id: u32, entry: &Entry<K, V>) -> u64 {
        self.side_tables.expires_at(id, entry.header.check_at())
    }

    /// The moment from which the entry is of no use to anybody.
    #[inline]
    fn reclaim_at(&self, id: u32, entry: &Entry<K, V>) -> u64 {
        self.side_tables.reclaim_at(id, entry.header.check_at())
    }

    /// What an entry that `lookup` called expired is still good for; `None` if for nothing.
    pub(crate) fn stale(&self, id: u32, now: &mut Now<'_>) -> Option<Stale> {
        let entry = self.slab.get(id)?;
        if now.has_reached(self.reclaim_at(id, entry)) {
            return None;
        }
        let by = now
            .precise()
            .checked_sub(self.expires_by_age_at(id, entry))?;
        let windows = self.side_tables.windows(id);
        Some(Stale { by, windows })
    }

    /// Its deadline by age alone, `NEVER` without one.
    #[inline]
    pub(crate) fn expires_by_age_at(&self, id: u32, entry: &Entry<K, V>) -> u64 {
        self.side_tables
            .expires_by_age_at(id, entry.header.check_at())
    }

    /// The one moment that the entry's header keeps: where its window begins, or else its deadline.
    pub(crate) fn check_at(&self, id: u32) -> u64 {
        self.slab
            .get(id)
            .map_or(NEVER, |entry| entry.header.check_at())
    }

    /// When the entry at `id` is to be loaded again.
    pub(crate) fn early(&self, id: u32) -> Early {
        self.side_tables.early(id)
    }

    /// For how long past its deadline the entry at `id` may be served.
    pub(crate) fn windows(&self, id: u32) -> Windows {
        self.side_tables.windows(id)
    }

    /// Whether the entry at `id` has a time to live of its own.
    pub(crate) fn has_own_ttl(&self, id: u32) -> bool {
        let entry = self.slab.get(id);
        entry.is_some_and(|entry| entry.header.has_own_ttl())
    }

    /// Says whether the entry at `id` has a time to live of its own.
    pub(crate) fn set_own_ttl(&mut self, id: u32, own: bool) {
        if let Some(entry) = self.slab.get_mut(id) {
            entry.header.set_own_ttl(own);
        }
    }

    /// What the entry at `id` says of its windows, if it does.
    pub(crate) fn own_windows(&self, id: u32) -> OwnWindows {
        self.side_tables.own_windows(id)
    }

    /// Takes the tags away from the entry at `id`, for the value that takes its place.
    pub(crate) fn take_tags(&mut self, id: u32) -> Option<Box<TagSet>> {
        self.side_tables.take_tags(id)
    }

    /// The namespace of the entry at `id`.
    #[inline]
    pub(crate) fn namespace(&self, id: u32) -> u32 {
        self.side_tables.namespace(id)
    }

    /// The version of the entry at `id`, by which one write of it is told from the next, if versions are
    /// kept.
    pub(crate) fn version(&self, id: u32) -> u32 {
        self.side_tables.version(id)
    }

    pub(crate) fn keeps_versions(&self) -> bool {
        self.side_tables.keeps_versions()
    }

    /// Begins to keep versions: 4 bytes an entry, from here on.
    pub(crate) fn keep_versions(&mut self) {
        self.side_tables.keep_versions();
    }

    /// Notes a read of the entry for the policy and for the time to idle.
    #[inline]
    pub(crate) fn note_hit(&self, id: u32, entry: &Entry<K, V>, now: &mut Now<'_>) {
        entry.header.hit(MAX_HITS);
        if !self.side_tables.none_in_use() {
            self.side_tables.note_read(id, now);
        }
    }

    /// Notes for the policy that a call has renewed the entry's life: as much of a use as a read.
    pub(crate) fn note_use(&mut self, id: u32) {
        if let Some(entry) = self.slab.get(id) {
            entry.header.hit(MAX_HITS);
            self.policy.hit(id);
        }
    }

    /// Notes a read for a policy that reorders its queue on every hit.
    pub(crate) fn reorder(&mut self, id: u32) {
        self.policy.hit(id);
    }

    pub(crate) fn weight_of(&self, id: u32) -> u64 {
        self.side_tables.weight(id)
    }

    /// What is alive, or may be: entries whose time is up or whose tag moved count until reclaimed.
    pub(crate) fn live(&self, epochs: &EpochCounter) -> Usage {
        if self.seen_min_epoch < epochs.min_epoch() {
            Usage::default()
        } else {
            self.policy.live()
        }
    }

    /// All that is in here.
    #[inline]
    fn usage(&self) -> Usage {
        let live = self.policy.live();
        Usage {
            entries: live.entries + self.cleared.entries,
            weight: live.weight + self.cleared.weight,
        }
    }

    /// The number below which everything in this shard is dead.
    pub(crate) fn min_epoch(&self) -> u64 {
        self.min_epoch
    }

    pub(crate) fn capacity(&self) -> ShardCapacity {
        self.capacity
    }

    /// One above the highest slot address that may hold an entry.
    pub(crate) fn end(&self) -> u32 {
        self.slab.end()
    }

    pub(crate) fn queues(&self) -> QueueLens {
        self.policy.queue_lens()
    }

    /// Whether maintenance would find something to reclaim.
    pub(crate) fn has_work(&self, now: u64, epochs: &EpochCounter) -> bool {
        self.seen_min_epoch < epochs.min_epoch()
            || self.cleared.entries > 0
            || self.index.has_work()
            || !self.deferred_free.is_empty()
            || self.over_capacity
            || (self.wheel.len() > 0 && !self.wheel.no_timer_due(now))
    }
}

#[cfg(all(test, target_pointer_width = "64", not(larder_shuttle)))]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn what_reads_look_at_lies_on_no_line_that_writes_change() {
        type Numbers = Shard<u64, u64>;
        // Seen from the stripe's start: the lock is a word, and the shard follows it.
        let seen = |offset: usize| offset + size_of::<usize>();
        let line = |offset: usize| seen(offset) / 64;
        assert_eq!(line(offset_of!(Numbers, policy)), 0);
        assert_eq!(seen(offset_of!(Numbers, index)) % 64, 0);
        // The index begins with what writes change; its table ends a line or more behind that.
        assert!(line(offset_of!(Numbers, slab)) > line(offset_of!(Numbers, index)));
        let min_epoch = line(offset_of!(Numbers, min_epoch));
        assert!(min_epoch > line(offset_of!(Numbers, slab)));
        assert_eq!(min_epoch, line(offset_of!(Numbers, wheel)));
    }
}
