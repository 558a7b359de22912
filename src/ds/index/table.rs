//! A table of buckets that does not resize itself, but can be moved out of.
//!
//! # Invariants
//!
//! - An entry is in a bucket reached from its home bucket by going forward
//!   (and round) through buckets that were full when it was put there.
//! - `passed` of a bucket is the number of entries whose way from home leads beyond
//!   it (exactly, unless it was ever [`MANY`]), and has a bit for each of their
//!   hashes. `wrapped` is that number for the last bucket, once that was moved out.
//! - Buckets from `live` on are empty and no longer looked at: an entry at home
//!   there can only be found at the front, if it wrapped.
//!
//! # Cost
//!
//! See [`crate::ds::index`]. A chunk of 32 KiB is filled (16 us with its page faults) when
//! one of its buckets is first written.

use crate::ds::index::bucket::{Bucket, MANY, SLOTS, Split};

/// Buckets in a chunk: 32 KiB, so large that the directory of chunks stays in the nearest cache.
const CHUNK: usize = 512;

/// How far from home a table that is moved out of still takes entries.
const NEAR: u32 = 8;

/// A table that does not resize itself.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Table {
    /// An absent chunk, one of no length, means empty buckets.
    chunks: Vec<Box<[Bucket]>>,
    /// Buckets hashes are spread over.
    pub(super) n: u32,
    pub(super) split: Split,
    /// Buckets still looked at: `n`, or fewer while being moved out of.
    pub(super) live: u32,
    /// See the module's invariants; 0 while `live == n`.
    wrapped: u32,
    /// Buckets allocated.
    allocated: usize,
}

impl Table {
    pub(super) fn new(n: u32, split: Split) -> Self {
        Self {
            chunks: vec![Box::default(); (n as usize).div_ceil(CHUNK)],
            n,
            live: n,
            wrapped: 0,
            allocated: 0,
            split,
        }
    }

    #[inline]
    pub(super) fn home(&self, hash: u32) -> u32 {
        ((u64::from(hash) * u64::from(self.n)) >> 32) as u32
    }

    #[inline]
    pub(super) fn bucket(&self, at: u32) -> Option<&Bucket> {
        let at = at as usize;
        self.chunks.get(at / CHUNK)?.get(at % CHUNK)
    }

    /// The bucket, or another in the place of one that was never written. (Not an option's `unwrap_or_else`, which
    /// compilers make two questions of.)
    #[inline(always)]
    pub(super) fn bucket_or_else<'a>(&'a self, at: u32, other: fn() -> &'a Bucket) -> &'a Bucket {
        let at = at as usize;
        match self.chunks.get(at / CHUNK) {
            Some(chunk) if at % CHUNK < chunk.len() => &chunk[at % CHUNK],
            _ => other(),
        }
    }

    /// The bucket, if its chunk was ever written to.
    #[inline]
    fn written_mut(&mut self, at: u32) -> Option<&mut Bucket> {
        let at = at as usize;
        self.chunks.get_mut(at / CHUNK)?.get_mut(at % CHUNK)
    }

    #[inline]
    fn bucket_mut(&mut self, at: u32) -> &mut Bucket {
        let (at, n) = (at as usize, self.n as usize);
        let chunk = &mut self.chunks[at / CHUNK];
        if chunk.is_empty() {
            let len = CHUNK.min(n - at / CHUNK * CHUNK);
            self.allocated += len;
            *chunk = vec![Bucket::default(); len].into_boxed_slice();
        }
        &mut chunk[at % CHUNK]
    }

    /// The first bucket to look at, if any.
    #[inline]
    fn enter(&self, hash: u32) -> Option<u32> {
        let home = self.home(hash);
        if home < self.live {
            Some(home)
        } else {
            (self.wrapped > 0).then_some(0)
        }
    }

    /// The bucket after `at` in a table that is not moved out of.
    #[inline]
    pub(super) fn next(&self, at: u32) -> u32 {
        if at + 1 < self.n { at + 1 } else { 0 }
    }

    /// The bucket after `at`, if an entry may have been put there.
    #[inline]
    pub(super) fn after(&self, at: u32) -> Option<u32> {
        if at + 1 < self.live {
            Some(at + 1)
        } else {
            (self.live == self.n || self.wrapped > 0).then_some(0)
        }
    }

    /// The bucket and slot of the entry for which `eq` holds.
    pub(super) fn locate(
        &self,
        hash: u32,
        eq: &mut impl FnMut(u32) -> bool,
    ) -> Option<(u32, usize)> {
        self.locate_from(self.enter(hash)?, hash, eq)
    }

    /// The bucket and slot of the entry for which `eq` holds, from the bucket after home on: the caller has looked at
    /// home, and the table is not being moved out of.
    pub(super) fn locate_beyond_home(
        &self,
        hash: u32,
        eq: &mut impl FnMut(u32) -> bool,
    ) -> Option<(u32, usize)> {
        let home = self.home(hash);
        if !self.bucket(home)?.may_have_passed(hash) {
            return None;
        }
        self.locate_from(self.next(home), hash, eq)
    }

    #[inline]
    fn locate_from(
        &self,
        mut at: u32,
        hash: u32,
        eq: &mut impl FnMut(u32) -> bool,
    ) -> Option<(u32, usize)> {
        let (tag, mask) = (self.split.tag(hash), self.split.mask());
        // Bounded: with long runs every bucket may have been passed by some.
        for _ in 0..self.live {
            let bucket = self.bucket(at)?;
            for slot in bucket.matches(tag, mask) {
                if eq(self.split.id(bucket.word(slot))) {
                    return Some((at, slot));
                }
            }
            if !bucket.may_have_passed(hash) {
                return None;
            }
            at = self.after(at)?;
        }
        None
    }

    /// Puts an entry into the first bucket with room. There must be one, and room for the id.
    #[inline]
    pub(super) fn place(&mut self, hash: u32, id: u32) {
        debug_assert_eq!(self.live, self.n, "placed into a table moved out of");
        debug_assert!(self.split.fits(id), "an id that its word has no room for");
        if !self.place_at_home(hash, id) {
            self.place_far(hash, id);
        }
    }

    /// Puts an entry into the first bucket with room, where home is full or was never written.
    #[inline(never)]
    fn place_far(&mut self, hash: u32, id: u32) {
        let (word, mut at) = (self.split.word(hash, id), self.home(hash));
        loop {
            let bucket = self.bucket_mut(at);
            if let Some(slot) = bucket.vacant() {
                bucket.set_word(slot, word);
                return;
            }
            bucket.pass(hash);
            at = self.next(at);
        }
    }

    /// Puts an entry into its home bucket or one soon after it, if they are live and written to before;
    /// whether it did. The only insertion a table being moved out of bears: there is no way beyond
    /// `live` to go.
    pub(super) fn place_near(&mut self, hash: u32, id: u32) -> bool {
        let (home, word) = (self.home(hash), self.split.word(hash, id));
        if !self.split.fits(id) {
            return false;
        }
        for at in home..self.live.min(home.saturating_add(NEAR)) {
            let Some(bucket) = self.written_mut(at) else {
                return false;
            };
            if let Some(slot) = bucket.vacant() {
                bucket.set_word(slot, word);
                (home..at).for_each(|passed| self.bucket_mut(passed).pass(hash));
                return true;
            }
        }
        false
    }

    /// Puts an entry into its home bucket, if that was written to before and has room; whether it did.
    #[inline]
    fn place_at_home(&mut self, hash: u32, id: u32) -> bool {
        let (home, word) = (self.home(hash), self.split.word(hash, id));
        let Some(bucket) = self.written_mut(home) else {
            return false;
        };
        let Some(slot) = bucket.vacant() else {
            return false;
        };
        bucket.set_word(slot, word);
        true
    }

    /// Undoes the counts on an entry's way from home to bucket `to`.
    fn retrace(&mut self, hash: u32, to: u32) {
        let home = self.home(hash);
        if home <= to {
            (home..to).for_each(|at| self.bucket_mut(at).unpass());
            return;
        }
        // It wrapped. Beyond `live` only the last bucket's count was kept.
        (home..self.live).for_each(|at| self.bucket_mut(at).unpass());
        self.wrapped -= u32::from(self.live < self.n && self.wrapped < MANY);
        (0..to).for_each(|at| self.bucket_mut(at).unpass());
    }

    #[inline]
    pub(super) fn remove(&mut self, hash: u32, id: u32) -> bool {
        let (home, word) = (self.home(hash), self.split.word(hash, id));
        if home < self.live {
            if let Some(bucket) = self.written_mut(home) {
                if let Some(slot) = bucket.slot_of(word) {
                    bucket.set_word(slot, 0);
                    return true;
                }
                if !bucket.may_have_passed(hash) {
                    return false;
                }
            }
        }
        self.remove_far(hash, id)
    }

    /// Removes an entry that is not in its home bucket; returns whether it was there.
    #[inline(never)]
    fn remove_far(&mut self, hash: u32, id: u32) -> bool {
        let Some((at, slot)) = self.locate(hash, &mut |other| other == id) else {
            return false;
        };
        self.bucket_mut(at).set_word(slot, 0);
        self.retrace(hash, at);
        true
    }

    /// Writes another id, which fits, over an entry's; whether it was there.
    pub(super) fn relocate(&mut self, hash: u32, from: u32, to: u32) -> bool {
        let Some((at, slot)) = self.locate(hash, &mut |other| other == from) else {
            return false;
        };
        let word = self.split.word(hash, to);
        self.bucket_mut(at).set_word(slot, word);
        true
    }

    /// Moves the entries of the last live bucket into `to`; false once none
    /// is left.
    pub(super) fn move_bucket(&mut self, to: &mut Table, hash_of: &impl Fn(u32) -> u32) -> bool {
        let Some(at) = self.live.checked_sub(1) else {
            return false;
        };
        let chunk = at as usize / CHUNK;
        if self.chunks[chunk].is_empty() {
            // Never written: all its buckets are empty, and unpassed.
            self.live = (chunk * CHUNK) as u32;
            self.chunks.pop();
            return self.live > 0;
        }
        let bucket = *self.bucket_mut(at);
        for slot in 0..SLOTS {
            if bucket.word(slot) != 0 {
                let id = self.split.id(bucket.word(slot));
                let hash = hash_of(id);
                self.retrace(hash, at);
                to.place(hash, id);
            }
        }
        let passed = self.bucket_mut(at).passed();
        if self.live == self.n {
            self.wrapped = passed;
        }
        self.live = at;
        if at as usize % CHUNK == 0 {
            let freed = self.chunks.pop();
            self.allocated -= freed.map_or(0, |chunk| chunk.len());
        }
        self.live > 0
    }

    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        self.allocated * size_of::<Bucket>() + self.chunks.capacity() * size_of::<Box<[Bucket]>>()
    }

    /// Panics if an invariant is broken; returns the ids.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn validate(&self, hash_of: &impl Fn(u32) -> u32) -> Vec<u32> {
        let (mut ids, mut passed) = (Vec::new(), vec![0_u32; self.n as usize]);
        for at in 0..self.live {
            let Some(bucket) = self.bucket(at) else {
                continue;
            };
            for slot in (0..SLOTS).filter(|&slot| bucket.word(slot) != 0) {
                let id = self.split.id(bucket.word(slot));
                let hash = hash_of(id);
                assert_eq!(bucket.word(slot), self.split.word(hash, id), "index: tag");
                ids.push(id);
                let mut way = self.home(hash);
                while way != at {
                    let known = self.bucket(way).is_none_or(|b| b.may_have_passed(hash));
                    assert!(known, "index: {way} does not know that {id} passed");
                    passed[way as usize] += 1;
                    way = (way + 1) % self.n;
                }
            }
        }
        for at in 0..self.live {
            let counted = self.bucket(at).map_or(0, Bucket::passed);
            let exact = counted == passed[at as usize] || counted == MANY;
            assert!(exact, "index: passed of {at}");
        }
        if self.live < self.n {
            let wrapped = passed[self.n as usize - 1];
            let exact = self.wrapped == wrapped || self.wrapped == MANY;
            assert!(exact, "index: wrapped");
        }
        let allocated: usize = self.chunks.iter().map(|chunk| chunk.len()).sum();
        assert_eq!(allocated, self.allocated, "index: buckets allocated");
        ids
    }
}
