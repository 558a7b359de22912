//! Side tables: what only some caches keep about an entry, by slot; and the slots as the policy sees them.

use crate::ds::chunked_vec::ChunkedVec;
use crate::entry::freshness::{Early, OwnWindows, RefreshPlan, Windows};
use crate::entry::generation::{Namespace, TagSet};
use crate::entry::header::EntryHeader;
use crate::policy::{EntryView, Slots};
use crate::shard::slab::Slab;
use crate::util::clock::{NEVER, Now};
use crate::util::sync::atomic::{AtomicU64, Ordering};

/// The side tables of a shard: one array each, by slot address, that exists once an entry needs it. In this
/// order: what every read looks at is last, next to what it looks at in the shard.
#[repr(C)]
pub(super) struct SideTables {
    /// Present where a weigher is; without one everything weighs 1.
    weights: Option<ChunkedVec<u64>>,
    idle: Option<Idle>,
    /// Grows with the first tagged entry.
    tags: ChunkedVec<Option<Box<TagSet>>>,
    /// Grows with the first entry outside the root namespace.
    namespaces: ChunkedVec<u32>,
    /// Present once a caller decides about entries without a lock and must recognise them afterwards.
    versions: Option<ChunkedVec<u32>>,
    /// The version drawn last.
    version: u32,
    /// Present once an entry is to be loaded again before its deadline.
    early: Option<ChunkedVec<Early>>,
    /// For how long entries are kept past their deadlines by age.
    windows: Windows,
    /// Present once an entry says otherwise of itself.
    own_windows: Option<ChunkedVec<OwnWindows>>,
    /// Whether entries may come due at another moment than their headers say.
    moves_deadlines: bool,
    /// Whether some table must record even an entry that has no options.
    records_every_entry: bool,
    /// Whether any of them, `early` aside, may matter to a read that finds an entry.
    in_use: bool,
}

/// What a new value has in the side tables.
pub(super) struct EntryMeta {
    pub(super) weight: u64,
    pub(super) tags: Option<Box<TagSet>>,
    pub(super) namespace: u32,
    pub(super) plan: RefreshPlan,
}

impl SideTables {
    pub(super) fn new(weighted: bool, idle_after: Option<u64>, windows: Windows) -> Self {
        SideTables {
            weights: weighted.then(ChunkedVec::new),
            idle: idle_after.map(|after| Idle {
                after,
                accessed: ChunkedVec::new(),
            }),
            tags: ChunkedVec::new(),
            namespaces: ChunkedVec::new(),
            versions: None,
            version: 0,
            early: None,
            windows,
            own_windows: None,
            moves_deadlines: idle_after.is_some(),
            records_every_entry: weighted || idle_after.is_some(),
            in_use: weighted || idle_after.is_some(),
        }
    }

    /// Whether no side table is in use that a read looks at: all entries weigh 1, are in the root
    /// namespace and untagged, and nobody asks when they were read.
    #[inline]
    pub(super) fn none_in_use(&self) -> bool {
        !self.in_use
    }

    /// Whether no side table is in use, and none would have to record a new entry without options.
    #[inline]
    pub(super) fn none_needed(&self) -> bool {
        // A table in use sets `records_every_entry`, too.
        !self.records_every_entry && !self.moves_deadlines
    }

    /// From now on new entries are noted, also those that say nothing.
    pub(super) fn record_every_entry(&mut self) {
        self.records_every_entry = true;
    }

    fn mark_in_use(&mut self) {
        (self.records_every_entry, self.in_use) = (true, true);
    }

    /// Writes down what a new value in slot `id` has; what another had there is forgotten.
    #[inline]
    pub(super) fn write(&mut self, id: u32, meta: EntryMeta, now: &mut Now<'_>) {
        let says = meta.tags.is_some()
            || meta.namespace != Namespace::ROOT
            || meta.plan != RefreshPlan::NONE;
        if self.records_every_entry || says {
            self.write_recorded(id, meta, now);
        }
    }

    #[inline(never)]
    fn write_recorded(&mut self, id: u32, meta: EntryMeta, now: &mut Now<'_>) {
        self.set_early(id, meta.plan.early);
        self.set_windows(id, meta.plan.windows);
        if let Some(weights) = &mut self.weights {
            weights.reserve_for(id);
            *weights.get_mut(id) = meta.weight;
        }
        if meta.namespace != Namespace::ROOT {
            self.namespaces.reserve_for(id);
            self.mark_in_use();
        }
        if self.namespaces.try_get(id).is_some() {
            *self.namespaces.get_mut(id) = meta.namespace;
        }
        self.set_tags(id, meta.tags);
        self.touch(id, now);
        self.renew_version(id);
    }

    /// Forgets what must not outlive the entry.
    #[inline]
    pub(super) fn clear_tags(&mut self, id: u32, tagged: bool) {
        if tagged {
            self.set_tags(id, None);
        }
    }

    fn set_tags(&mut self, id: u32, tags: Option<Box<TagSet>>) {
        if tags.is_some() {
            self.tags.reserve_for(id);
            self.mark_in_use();
        }
        // An id whose chunk was never reserved has no tags to take away.
        if self.tags.try_get(id).is_some() {
            *self.tags.get_mut(id) = tags;
        }
    }

    /// Takes the tags away from an entry, for the value that takes its place.
    pub(super) fn take_tags(&mut self, id: u32) -> Option<Box<TagSet>> {
        self.tags.try_get(id)?;
        self.tags.get_mut(id).take()
    }

    /// What the entry says of its windows.
    pub(super) fn own_windows(&self, id: u32) -> OwnWindows {
        let own = self.own_windows.as_ref().and_then(|own| own.try_get(id));
        own.copied().unwrap_or(OwnWindows::NONE)
    }

    #[inline]
    pub(super) fn tags(&self, id: u32) -> Option<&TagSet> {
        self.tags.try_get(id)?.as_deref()
    }

    #[inline]
    pub(super) fn weight(&self, id: u32) -> u64 {
        match &self.weights {
            None => 1,
            Some(weights) => weights.try_get(id).copied().unwrap_or(0),
        }
    }

    #[inline]
    pub(super) fn namespace(&self, id: u32) -> u32 {
        self.namespaces
            .try_get(id)
            .copied()
            .unwrap_or(Namespace::ROOT)
    }

    /// When the entry in slot `id` is to be loaded again.
    pub(super) fn early(&self, id: u32) -> Early {
        let early = self.early.as_ref().and_then(|early| early.try_get(id));
        early.copied().unwrap_or(Early::NEVER)
    }

    pub(super) fn set_early(&mut self, id: u32, new: Early) {
        if new != Early::NEVER {
            self.early
                .get_or_insert_with(ChunkedVec::new)
                .reserve_for(id);
            (self.records_every_entry, self.moves_deadlines) = (true, true);
        }
        if let Some(early) = &mut self.early {
            // An id whose chunk was never reserved is never early.
            if early.try_get(id).is_some() {
                *early.get_mut(id) = new;
            }
        }
    }

    fn set_windows(&mut self, id: u32, new: OwnWindows) {
        if new != OwnWindows::NONE {
            let windows = self.own_windows.get_or_insert_with(ChunkedVec::new);
            windows.reserve_for(id);
            (self.records_every_entry, self.moves_deadlines) = (true, true);
        }
        if let Some(windows) = &mut self.own_windows {
            // An id whose chunk was never reserved says nothing.
            if windows.try_get(id).is_some() {
                *windows.get_mut(id) = new;
            }
        }
    }

    /// For how long past its deadline the entry in slot `id` may be served.
    #[inline]
    pub(super) fn windows(&self, id: u32) -> Windows {
        let own = self.own_windows.as_ref().and_then(|own| own.try_get(id));
        own.map_or(self.windows, |own| own.or(self.windows))
    }

    /// The deadline by age of an entry whose header says `check_at`: there its window for an early load begins,
    /// if it has one.
    #[inline]
    pub(super) fn expires_by_age_at(&self, id: u32, check_at: u64) -> u64 {
        if self.early.is_none() || check_at == NEVER {
            check_at
        } else {
            check_at.saturating_add(self.early(id).window())
        }
    }

    /// The moment from which an entry may not be served: its deadline by age, or by having been idle too
    /// long.
    #[inline]
    pub(super) fn expires_at(&self, id: u32, check_at: u64) -> u64 {
        self.or_idle(id, self.expires_by_age_at(id, check_at))
    }

    /// The moment from which an entry is of no use to anybody.
    #[inline]
    pub(super) fn reclaim_at(&self, id: u32, check_at: u64) -> u64 {
        let by_age = self.expires_by_age_at(id, check_at);
        let kept = match by_age {
            NEVER => NEVER,
            // It has a deadline, however far its window reaches, and is on the timer wheel.
            _ => by_age
                .saturating_add(self.windows(id).longest())
                .min(NEVER - 1),
        };
        self.or_idle(id, kept)
    }

    #[inline]
    fn or_idle(&self, id: u32, by_age: u64) -> u64 {
        match &self.idle {
            Some(idle) if !self.none_in_use() => by_age.min(idle.expires_at(id)),
            _ => by_age,
        }
    }

    /// Whether entries may come due before their deadline by age.
    #[inline]
    pub(super) fn has_idle(&self) -> bool {
        self.idle.is_some()
    }

    /// Whether entries may come due at another moment than their headers say.
    #[inline]
    pub(super) fn moves_deadlines(&self) -> bool {
        self.moves_deadlines
    }

    /// Notes a read.
    #[inline]
    pub(super) fn note_read(&self, id: u32, now: &mut Now<'_>) {
        if let Some(idle) = &self.idle {
            idle.note(id, now.coarse());
        }
    }

    /// Notes a write.
    pub(super) fn touch(&mut self, id: u32, now: &mut Now<'_>) {
        if let Some(idle) = &mut self.idle {
            idle.accessed.reserve_for(id);
            *idle.accessed.get_mut(id) = AtomicU64::new(now.precise());
        }
    }

    /// Begins to tell one write of an entry from the next.
    pub(super) fn keep_versions(&mut self) {
        self.versions.get_or_insert_with(ChunkedVec::new);
        self.mark_in_use();
    }

    pub(super) fn keeps_versions(&self) -> bool {
        self.versions.is_some()
    }

    /// The version of the entry in slot `id`: another one after every write, from when versions were first
    /// kept.
    pub(super) fn version(&self, id: u32) -> u32 {
        let versions = self.versions.as_ref();
        versions.map_or(0, |versions| versions.try_get(id).copied().unwrap_or(0))
    }

    pub(super) fn renew_version(&mut self, id: u32) {
        if let Some(versions) = &mut self.versions {
            self.version = self.version.wrapping_add(1);
            versions.reserve_for(id);
            *versions.get_mut(id) = self.version;
        }
    }

    /// What `from` has is at `to` from now on.
    pub(super) fn relocate(&mut self, from: u32, to: u32) {
        self.tags.relocate(from, to);
        self.namespaces.relocate(from, to);
        if let Some(weights) = &mut self.weights {
            weights.relocate(from, to);
        }
        if let Some(idle) = &mut self.idle {
            idle.accessed.relocate(from, to);
        }
        if let Some(versions) = &mut self.versions {
            versions.relocate(from, to);
        }
        if let Some(early) = &mut self.early {
            early.relocate(from, to);
        }
        if let Some(windows) = &mut self.own_windows {
            windows.relocate(from, to);
        }
    }

    /// Forgets everything: no slot is taken. Returns the old tables, to be freed later. Versions start over, but
    /// from where they are: who judged one must not take another for it.
    pub(super) fn clear(&mut self) -> Self {
        let new = SideTables {
            versions: self.versions.as_ref().map(|_| ChunkedVec::new()),
            version: self.version,
            moves_deadlines: self.moves_deadlines,
            records_every_entry: self.records_every_entry,
            in_use: self.in_use,
            ..SideTables::new(
                self.weights.is_some(),
                self.idle.as_ref().map(|idle| idle.after),
                self.windows,
            )
        };
        std::mem::replace(self, new)
    }

    /// Gives back what is kept for slots from `len` on, which are not taken: at most `budget` chunks.
    pub(super) fn truncate(&mut self, len: u32, budget: &mut u32) {
        self.tags.truncate(len, budget);
        self.namespaces.truncate(len, budget);
        if let Some(weights) = &mut self.weights {
            weights.truncate(len, budget);
        }
        if let Some(idle) = &mut self.idle {
            idle.accessed.truncate(len, budget);
        }
        if let Some(versions) = &mut self.versions {
            versions.truncate(len, budget);
        }
        if let Some(early) = &mut self.early {
            early.truncate(len, budget);
        }
        if let Some(windows) = &mut self.own_windows {
            windows.truncate(len, budget);
        }
    }
}

/// The time to idle: each entry's last access is in a side table.
struct Idle {
    after: u64,
    accessed: ChunkedVec<AtomicU64>,
}

impl Idle {
    fn expires_at(&self, id: u32) -> u64 {
        // Relaxed: the shard's lock orders this with the write that set it; a concurrent reader's
        // store only moves it later, and missing that one costs precision, not safety.
        self.accessed.try_get(id).map_or(NEVER, |at| {
            at.load(Ordering::Relaxed).saturating_add(self.after)
        })
    }

    /// Notes an access if the last noted one is at least a hundredth of the time to idle ago, so that a
    /// hot entry's line is written seldom.
    fn note(&self, id: u32, now: u64) {
        let Some(accessed) = self.accessed.try_get(id) else {
            return;
        };
        let last = accessed.load(Ordering::Relaxed);
        if now > last && now - last >= self.after / 100 {
            // Relaxed, and a maximum: readers race, and the latest access counts. The slot cannot
            // change hands meanwhile: the reader holds the shard's lock, shared.
            accessed.fetch_max(now, Ordering::Relaxed);
        }
    }
}

/// The slab and its side tables, as the policy sees them.
pub(super) struct PolicyView<'a, K, V> {
    pub(super) slab: &'a mut Slab<K, V>,
    pub(super) side_tables: &'a SideTables,
}

impl<K, V> Slots for PolicyView<'_, K, V> {
    #[inline]
    fn queue(&self, id: u32) -> u8 {
        self.slab.get(id).map_or(0, |entry| entry.header.queue())
    }

    #[inline]
    fn set_queue(&mut self, id: u32, queue: u8, hits: u8) {
        if let Some(entry) = self.slab.get_mut(id) {
            entry.header.set_queue(queue, hits);
        }
    }

    #[inline]
    fn weight(&self, id: u32) -> u64 {
        self.side_tables.weight(id)
    }

    #[inline]
    fn view(&self, id: u32) -> EntryView {
        let header = self.slab.get(id).map(|entry| &entry.header);
        EntryView {
            hits: header.map_or(0, EntryHeader::hits),
            weight: self.side_tables.weight(id),
            hash: header.map_or(0, EntryHeader::hash),
        }
    }
}

#[inline]
pub(super) fn hash_of<K, V>(slab: &Slab<K, V>, id: u32) -> u32 {
    slab.get(id).map_or(0, |entry| entry.header.hash())
}
