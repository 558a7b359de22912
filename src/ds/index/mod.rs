//! The lookup table: 32-bit hash to id.
//!
//! A bucket is one cache line: 15 words of an id and a tag, and how many entries
//! were put further on because this bucket was full, with a bit for the hash of
//! each. A lookup compares all the tags at once, asks the caller about the ids whose
//! tag matches, and goes on to the next bucket only if some entry like it did. There are no tombstones: taking an
//! entry out undoes the counts on its way.
//!
//! The bucket is chosen by the hash's high bits (multiply and shift, so the
//! number of buckets is free), the tag is its low bits: as many as the ids leave,
//! more than a dozen in a shard of a hundred thousand. Buckets are aimed to
//! hold 10.7 of 15: 6 bytes per entry when full.
//!
//! The table is resized by moving the entries of a few old buckets per call, from
//! the last bucket down, into a second table whose chunks of 512 buckets are
//! made when first written and, in the old one, freed when passed. Until its home
//! bucket is moved, a new entry still goes there if there is room.
//!
//! # Invariants
//!
//! - Each id occurs once, in the table or in `old`.
//! - A resize goes at most to twice or to half the buckets (rounded up) and ends
//!   before the new table can fill up: at `n` old buckets it takes at most `n` calls.
//! - Those of the tables, see [`table`].
//!
//! # Cost
//!
//! `find`: the chunk's pointer and one cache line, rarely the next one too; while
//! resizing, both tables. `insert` and `remove`: the same, plus while resizing 4
//! buckets (at most 60 ids, whose hashes are asked for) moved. `migrate_some`: 64 ids and a
//! bucket's worth more, or 128 buckets. Worst case: a chunk
//! or two of 32 KiB filled, and at the start of a resize a zeroed directory of 16
//! bytes per 512 buckets.

mod bucket;
mod table;

use std::cell::Cell;

use crate::ds::index::bucket::{Bucket, SLOTS, Split};
use crate::ds::index::table::Table;
use crate::util::cpu::prefetch;

/// Thirds of an entry per bucket at which the table grows: at 10.7 of 15, one bucket in 13 was passed.
const TARGET: u32 = 32;

/// Entries per bucket a table at its limit bears before growing regardless.
const LIMIT: u32 = 12;

/// Entries per bucket below which the table shrinks.
const SPARSE: u32 = 3;

/// A table grows by this part of itself: little, so that a cache that is not full holds
/// little that it does not need.
const GROWTH: u32 = 4;

/// The highest id that an index takes: two bits of a word are left for the tag.
pub(crate) const MOST_ID: u32 = u32::MAX >> 2;

/// Buckets moved at a time: so many that a resize is over soon, as readers look twice until then.
const MOVES: u32 = 4;

/// Buckets looked at by a step at most, and ids after which it ends: sparse buckets, as in a shard
/// that is being emptied, are moved as fast as their entries go.
const STEP_BUCKETS: u32 = 128;
const STEP_IDS: u32 = 64;

/// Ids may run this far ahead of the entries that a table was made for.
const AHEAD: u32 = 1 << 10;

/// Stands for a bucket that was never written.
#[cold]
#[inline(never)]
fn unwritten() -> &'static Bucket {
    static EMPTY: Bucket = Bucket::EMPTY;
    &EMPTY
}

/// The shard's lookup table. Laid out by hand: the count that a write changes is a line away from what reads look
/// at.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Index {
    len: u32,
    /// The number of entries at which the next one calls for more buckets.
    grows_at: u32,
    /// The number of entries below which there are too many buckets.
    shrinks_at: u32,
    /// `max_entries` was lowered: shrink to its size once that is enough.
    trim: bool,
    max_entries: Option<u32>,
    /// The table being moved out of.
    old: Option<Table>,
    table: Table,
}

impl Index {
    /// An empty index; allocates nothing. It is made for at most `max_entries`,
    /// and bears more.
    pub(crate) fn new(max_entries: Option<u32>) -> Self {
        Self {
            table: Table::default(),
            old: None,
            len: 0,
            grows_at: 0,
            shrinks_at: 0,
            max_entries,
            trim: false,
        }
    }

    /// The number of entries.
    #[inline]
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// The id with this hash for which `eq` holds. Should `eq` panic, nothing
    /// was changed.
    #[inline]
    pub(crate) fn find(&self, hash: u32, mut eq: impl FnMut(u32) -> bool) -> Option<u32> {
        let home = self.home(hash);
        let found = home.ids().find(|&id| eq(id));
        if found.is_none() && home.has_overflow(self) {
            return self.find_further(hash, &mut eq);
        }
        found
    }

    /// Where to look first, which nearly always suffices. The memory is asked for and not
    /// looked at, so that the caller may do something else until it comes.
    #[inline]
    pub(crate) fn home(&self, hash: u32) -> BucketProbe<'_> {
        let bucket = self.table.bucket_or_else(self.table.home(hash), unwritten);
        prefetch(bucket);
        BucketProbe {
            bucket,
            split: self.table.split,
            hash,
        }
    }

    /// Looks wherever [`Index::home`] did not.
    #[inline(never)]
    pub(crate) fn find_further(&self, hash: u32, eq: &mut impl FnMut(u32) -> bool) -> Option<u32> {
        let mut found = None;
        let mut ask = |id| {
            found = eq(id).then_some(id);
            found.is_some()
        };
        let here = self.table.locate_beyond_home(hash, &mut ask);
        if here.is_none() {
            self.old.as_ref()?.locate(hash, &mut ask);
        }
        found
    }

    /// Asks for the line that a call with this hash will look at first.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u32) {
        if let Some(bucket) = self.table.bucket(self.table.home(hash)) {
            prefetch(bucket);
        }
    }

    /// Adds an id that is not in the index. `hash_of` tells the hash of the ids
    /// that are.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u32, id: u32, hash_of: impl Fn(u32) -> u32) {
        if self.old.is_some() || self.len >= self.grows_at || !self.table.split.fits(id) {
            self.make_room(id, &hash_of);
        }
        // What is not moved yet still goes to the old table: so the new one is
        // written, and its chunks made, at the pace of the migration.
        let old = self.old.as_mut();
        if !old.is_some_and(|old| old.place_near(hash, id)) {
            self.table.place(hash, id);
        }
        self.len += 1;
    }

    /// Takes an id out, and does a little of the resizing under way or due; whether
    /// it was there.
    #[inline]
    pub(crate) fn remove(&mut self, hash: u32, id: u32, hash_of: impl Fn(u32) -> u32) -> bool {
        let found = self.remove_only(hash, id);
        if self.has_work() {
            self.shrink();
            self.migrate(MOVES, &hash_of);
        }
        found
    }

    /// Takes an id out; whether it was there. For callers who take many out at once
    /// and [`migrate_some`](Index::migrate_some) afterwards.
    #[inline(always)]
    pub(crate) fn remove_only(&mut self, hash: u32, id: u32) -> bool {
        let found = self.table.remove(hash, id)
            || self.old.as_mut().is_some_and(|old| old.remove(hash, id));
        self.len -= u32::from(found);
        found
    }

    /// Gives an id that is in the index to an entry of another hash. Only while there is no resizing to do.
    #[inline(always)]
    pub(crate) fn replace(&mut self, hash: u32, by: u32, id: u32) {
        debug_assert!(!self.has_work());
        let found = self.table.remove(hash, id);
        debug_assert!(found, "index: no such id to exchange");
        self.table.place(by, id);
    }

    /// An entry is at another id from now on, a lower one.
    pub(crate) fn relocate(&mut self, hash: u32, from: u32, to: u32) {
        debug_assert!(to < from, "words are sure to have room for lower ids only");
        if !self.table.relocate(hash, from, to) {
            if let Some(old) = &mut self.old {
                old.relocate(hash, from, to);
            }
        }
    }

    /// Whether a resize is under way or due.
    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        self.old.is_some() || self.trim || self.len < self.shrinks_at
    }

    /// Does a little of the resizing under way or due; whether more is left.
    pub(crate) fn migrate_some(&mut self, hash_of: impl Fn(u32) -> u32) -> bool {
        let asked = Cell::new(0);
        let hash_of = |id| {
            asked.set(asked.get() + 1);
            hash_of(id)
        };
        self.shrink();
        for _ in 0..STEP_BUCKETS {
            if self.old.is_none() || asked.get() >= STEP_IDS {
                break;
            }
            self.migrate(1, &hash_of);
        }
        self.old.is_some()
    }

    /// Changes how many entries the index is made for.
    pub(crate) fn set_max_entries(&mut self, max_entries: Option<u32>) {
        self.max_entries = max_entries;
        self.trim = self.table.n > self.most_buckets();
    }

    /// Bytes allocated.
    #[cfg(test)]
    pub(crate) fn heap_bytes(&self) -> usize {
        self.table.heap_bytes() + self.old.as_ref().map_or(0, Table::heap_bytes)
    }

    /// Buckets for the most entries expected.
    fn most_buckets(&self) -> u32 {
        match self.max_entries {
            Some(max) => buckets_for(max),
            None => buckets_for(u32::MAX),
        }
    }

    /// Before an insertion: starts growing if due, and migrates.
    #[inline(never)]
    fn make_room(&mut self, id: u32, hash_of: &impl Fn(u32) -> u32) {
        if self.table.n == 0 {
            self.resize(1, id);
            self.old = None;
        }
        if !self.table.split.fits(id) {
            // Ids hardly ever run so far ahead. What is being moved must have arrived before.
            while self.old.is_some() {
                self.migrate(MOVES, hash_of);
            }
            self.resize(self.table.n, id);
        }
        let (n, most) = (self.table.n, self.most_buckets());
        if self.old.is_none() && self.len >= self.grows_at {
            let more = n + (n / GROWTH).max(1);
            if n < most {
                // The last step is a longer one: what is moved has arrived before the index is full.
                let last = more + more / GROWTH >= most;
                self.resize(if last { most } else { more }, id);
            } else if n == 1 || self.len >= n.saturating_mul(LIMIT) {
                // More entries than announced.
                self.resize(more, id);
            }
        }
        self.migrate(MOVES, hash_of);
    }

    /// Starts shrinking if due.
    fn shrink(&mut self) {
        let (n, most) = (self.table.n, self.most_buckets());
        if self.old.is_some() {
            return;
        }
        if self.len < self.shrinks_at {
            self.resize(n.div_ceil(2), 0);
        } else if self.trim && n > most && buckets_for(self.len) <= most {
            self.resize(most.max(n.div_ceil(2)), 0);
        }
        self.trim &= self.table.n > most;
    }

    /// Begins to move to a table that takes `id`, and all ids that this one took.
    fn resize(&mut self, buckets: u32, id: u32) {
        let entries = buckets.saturating_mul(SLOTS as u32);
        let ahead = entries.saturating_mul(4).saturating_add(AHEAD);
        let split = Split::for_ids_to(ahead.max(id).min(MOST_ID)).max(self.table.split);
        let table = Table::new(buckets, split);
        self.old = Some(std::mem::replace(&mut self.table, table));
        (self.shrinks_at, self.grows_at) = match buckets {
            // Probing is no matter with one bucket: it can be full.
            1 => (0, SLOTS as u32),
            n => {
                let most = u64::from(n) * u64::from(TARGET) / 3;
                (n.saturating_mul(SPARSE), most as u32)
            }
        };
    }

    /// Moves some old buckets.
    fn migrate(&mut self, buckets: u32, hash_of: &impl Fn(u32) -> u32) {
        for _ in 0..buckets {
            let Some(old) = &mut self.old else { return };
            if !old.move_bucket(&mut self.table, hash_of) {
                self.old = None;
            }
        }
    }

    /// Panics if an invariant is broken.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn validate(&self, hash_of: impl Fn(u32) -> u32) {
        let mut ids = self.table.validate(&hash_of);
        assert_eq!(self.table.live, self.table.n, "index: live buckets");
        if let Some(old) = &self.old {
            assert!(old.live > 0, "index: an old table with nothing left");
            ids.extend(old.validate(&hash_of));
        }
        let count = ids.len();
        assert_eq!(count, self.len as usize, "index: count of entries");
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "index: an id occurs twice");
    }
}

/// The bucket where an entry of some hash belongs.
#[derive(Clone, Copy)]
pub(crate) struct BucketProbe<'a> {
    bucket: &'a Bucket,
    split: Split,
    hash: u32,
}

impl<'a> BucketProbe<'a> {
    /// The ids in here to ask about. For callers who keep their question out of memory until it
    /// has to be asked further on.
    #[inline(always)]
    pub(crate) fn ids(self) -> impl Iterator<Item = u32> + 'a {
        self.bucket
            .matches(self.split.tag(self.hash), self.split.mask())
            .map(move |slot| self.split.id(self.bucket.word(slot)))
    }

    /// Whether the id may also be where only [`Index::find_further`] looks.
    #[inline(always)]
    pub(crate) fn has_overflow(self, index: &Index) -> bool {
        self.bucket.may_have_passed(self.hash) || index.old.is_some()
    }
}

/// Buckets that hold so many entries well.
fn buckets_for(entries: u32) -> u32 {
    if entries as usize <= SLOTS {
        // All of them fit one bucket exactly.
        return 1;
    }
    (u64::from(entries) * 3).div_ceil(u64::from(TARGET)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    struct Rand(u64);

    impl Rand {
        fn next(&mut self, n: u32) -> u32 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            ((self.0 >> 16) % u64::from(n)) as u32
        }
    }

    /// Hashes of ids under test: well mixed, or squeezed to provoke collisions.
    fn hash(id: u32, squeeze: u32) -> u32 {
        let mixed = (u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24) as u32;
        match squeeze {
            0 => mixed,
            1 => mixed | 0xfff0_0000,
            2 => mixed % 7,
            _ => u32::MAX,
        }
    }

    fn check(index: &Index, model: &HashMap<u32, ()>, squeeze: u32, ids: u32) {
        index.validate(|id| hash(id, squeeze));
        assert_eq!(index.len() as usize, model.len());
        for id in 0..ids {
            let found = index.find(hash(id, squeeze), |other| {
                assert!(model.contains_key(&other), "shown an id that is gone");
                other == id
            });
            assert_eq!(found, model.contains_key(&id).then_some(id));
        }
    }

    #[test]
    fn an_exchanged_id_is_found_by_its_new_hash_and_not_by_the_old() {
        let mut rand = Rand(0x1234_5678_9abc_def1);
        for (ids, squeeze) in [(5, 0), (15, 3), (40, 2), (700, 1), (5_000, 0)] {
            let mut hashes: Vec<u32> = (0..ids).map(|id| hash(id, squeeze)).collect();
            let mut index = Index::new(Some(ids));
            for id in 0..ids {
                index.insert(hashes[id as usize], id, |id| hashes[id as usize]);
            }
            while index.migrate_some(|id| hashes[id as usize]) {}
            for turn in 0..ids * 6 {
                let id = rand.next(ids);
                let (old, new) = (hashes[id as usize], hash(turn + ids, squeeze));
                index.replace(old, new, id);
                hashes[id as usize] = new;
                assert_eq!(index.find(new, |other| other == id), Some(id));
                assert!(
                    old == new || index.find(old, |other| other == id).is_none() || squeeze > 0
                );
                if rand.next(ids) < 8 {
                    index.validate(|id| hashes[id as usize]);
                }
            }
            assert_eq!(index.len(), ids);
        }
    }

    #[test]
    fn behaves_as_a_map_does() {
        let mut rand = Rand(0x1234_5678_9abc_def1);
        for round in 0..48 {
            let squeeze = round % 4;
            let ids = [5, 40, 700, 5_000][round as usize / 4 % 4].min(4_000 >> (squeeze * 2));
            let max = [None, Some(ids), Some(ids / 3)][round as usize / 16];
            let hash_of = |id| hash(id, squeeze);
            let (mut index, mut model) = (Index::new(max), HashMap::new());
            for turn in 0..ids * 8 {
                // The tide: insertions prevail, then removals.
                let inserts = if turn / (ids * 2) % 2 == 0 { 3 } else { 1 };
                let id = rand.next(ids);
                if rand.next(4) < inserts {
                    if model.insert(id, ()).is_none() {
                        index.insert(hash_of(id), id, hash_of);
                    }
                } else {
                    let had = model.remove(&id).is_some();
                    assert_eq!(index.remove(hash_of(id), id, hash_of), had);
                }
                if rand.next(ids) < 4 {
                    check(&index, &model, squeeze, ids);
                }
                if rand.next(ids) == 0 {
                    index.set_max_entries((rand.next(2) == 0).then(|| rand.next(ids)));
                }
            }
            check(&index, &model, squeeze, ids);
        }
    }

    #[test]
    fn gives_memory_back() {
        let hash_of = |id| hash(id, 0);
        let mut index = Index::new(None);
        assert_eq!(index.heap_bytes(), 0);
        for id in 0..100_000 {
            index.insert(hash_of(id), id, hash_of);
        }
        let full = index.heap_bytes();
        assert!(full < 100_000 * 25, "{full}");
        for id in 0..100_000 {
            assert!(index.remove(hash_of(id), id, hash_of));
        }
        while index.migrate_some(hash_of) {}
        index.validate(hash_of);
        assert!(index.heap_bytes() < 2_000, "{}", index.heap_bytes());
    }

    #[test]
    fn a_known_size_is_met_exactly() {
        let hash_of = |id| hash(id, 0);
        let mut index = Index::new(Some(50_000));
        for id in 0..50_000 {
            index.insert(hash_of(id), id, hash_of);
        }
        while index.migrate_some(hash_of) {}
        assert_eq!(index.table.n, 4_688);
        // As a full cache goes on: an insertion too many, then an eviction.
        for id in 50_000..150_000 {
            index.insert(hash_of(id), id, hash_of);
            assert!(index.remove(hash_of(id - 50_000), id - 50_000, hash_of));
        }
        index.validate(hash_of);
        assert_eq!(index.table.n, 4_688);
        index.set_max_entries(Some(10_000));
        for id in 100_000..140_000 {
            assert!(index.remove(hash_of(id), id, hash_of));
        }
        for _ in 0..10_000 {
            index.migrate_some(hash_of);
        }
        assert_eq!((index.len(), index.table.n), (10_000, 938));
        index.validate(hash_of);
    }

    #[test]
    fn a_lowered_size_is_met_and_then_there_is_no_work() {
        let hash_of = |id| hash(id, 0);
        for max in [1, 5, 10, 11, 12, 15, 16, 20, 21, 22, 100] {
            let mut index = Index::new(Some(200));
            (0..200).for_each(|id| index.insert(hash_of(id), id, hash_of));
            index.set_max_entries(Some(max));
            (max..200).for_each(|id| assert!(index.remove_only(hash_of(id), id)));
            let mut steps = 0;
            while index.has_work() {
                index.migrate_some(hash_of);
                steps += 1;
                assert!(steps < 50, "{max}: work without an end");
            }
            index.validate(hash_of);
            assert_eq!(index.table.n, buckets_for(max), "{max}");
        }
    }

    #[test]
    fn fifteen_entries_take_one_bucket() {
        let hash_of = |id| hash(id, 0);
        let mut index = Index::new(Some(15));
        for id in 0..15 {
            index.insert(hash_of(id), id, hash_of);
        }
        assert_eq!(index.heap_bytes(), 64 + 16);
        index.insert(hash_of(15), 15, hash_of);
        index.validate(hash_of);
        assert_eq!(index.find(hash_of(15), |id| id == 15), Some(15));
    }

    #[test]
    fn ids_far_ahead_of_the_entries_find_room() {
        let hash_of = |id| hash(id, 0);
        let mut index = Index::new(None);
        let ids = (0..200).map(|n| n * 977).chain([MOST_ID, 5, 1 << 24]);
        for (count, id) in ids.clone().enumerate() {
            index.insert(hash_of(id), id, hash_of);
            index.validate(hash_of);
            assert_eq!(index.len() as usize, count + 1);
        }
        for id in ids {
            assert_eq!(index.find(hash_of(id), |other| other == id), Some(id));
            assert!(index.remove(hash_of(id), id, hash_of));
        }
        index.validate(hash_of);
    }
}
