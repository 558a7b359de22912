//! The hashes of the entries evicted last.
//!
//! A set with a bounded memory: `insert` a hash when its entry is evicted,
//! `take` it when the key comes back. It forgets a hash once `capacity` others
//! were inserted, and is approximate on purpose: a hash is kept as a 16-bit
//! fingerprint, so about one `take` in 8 000 is wrongly answered yes, and a
//! crowded bucket forgets its oldest hash early (some 5 %).
//!
//! # Invariants
//!
//! - A cell is 0 (empty) or `fingerprint << 16 | clock`, fingerprint not 0.
//! - `clock` is the low 16 bits of `inserted >> shift`, and `shift` is such that
//!   a capacity's worth of insertions is at most a quarter of the clock's circle:
//!   a cell is overwritten long before its age wraps round to look young.
//! - `old` is the table before the last change of capacity; it is only read, and
//!   dropped when its youngest cell is out of age.
//!
//! # Cost
//!
//! 32 bytes per 6 hashes, allocated by the first insertion as zeroed memory. Each
//! call touches one bucket (two just after a change of capacity). Clearing frees
//! the table.

use crate::prefetch::prefetch;

/// Cells in a bucket of 32 bytes.
const CELLS: usize = 8;

/// Hashes aimed at per bucket: the two spare cells absorb uneven buckets.
const FILL: u32 = 6;

/// The ages a capacity's worth of insertions spans at most: a quarter of 2^16.
const AGES: u32 = 1 << 14;

type Bucket = [u32; CELLS];

#[derive(Debug, Default)]
struct Table {
    // An array of integers and no struct: only for these does `vec!` ask the
    // allocator for zeroed memory instead of writing it.
    buckets: Vec<Bucket>,
    capacity: u32,
    shift: u32,
}

/// A bounded memory of hashes.
#[derive(Debug, Default)]
pub(crate) struct Ghost {
    table: Table,
    old: Option<Table>,
    /// Insertions so far.
    inserted: u64,
    /// `inserted` when `old` was set aside.
    retired: u64,
}

impl Table {
    fn new(capacity: u32) -> Self {
        let mut shift = 0;
        while (capacity >> shift) >= AGES {
            shift += 1;
        }
        Self {
            buckets: Vec::new(),
            capacity,
            shift,
        }
    }

    #[inline]
    fn at(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.buckets.len() as u64) >> 32) as usize
    }

    #[inline]
    fn age(&self, cell: u32, inserted: u64) -> u32 {
        u32::from(((inserted >> self.shift) as u16).wrapping_sub(cell as u16))
    }

    /// Whether a cell of this age is still within the capacity.
    #[inline]
    fn remembers(&self, age: u32) -> bool {
        (u64::from(age) << self.shift) < u64::from(self.capacity)
    }

    #[inline]
    fn bucket_mut(&mut self, hash: u32) -> Option<&mut Bucket> {
        let at = self.at(hash);
        self.buckets.get_mut(at)
    }

    #[inline]
    fn insert(&mut self, hash: u32, inserted: u64) {
        if self.buckets.is_empty() {
            let buckets = self.capacity.div_ceil(FILL) as usize;
            self.buckets = vec![[0; CELLS]; buckets];
        }
        let (print, clock) = (fingerprint(hash), (inserted >> self.shift) as u16);
        let Some(bucket) = self.bucket_mut(hash) else {
            return;
        };
        // The same fingerprint is renewed; else an empty cell; else the oldest. A rank is the cell's age
        // in the low half with these two above it, and its slot below: no branch, so that the cells
        // are ranked side by side.
        let mut best = 0;
        for (slot, &cell) in bucket.iter().enumerate() {
            let age = u32::from(clock.wrapping_sub(cell as u16));
            let same = u32::from(cell >> 16 == print);
            let empty = u32::from(cell == 0);
            let rank = (same << 17 | empty << 16 | age) << 3 | slot as u32;
            best = best.max(rank);
        }
        bucket[best as usize % CELLS] = print << 16 | u32::from(clock);
    }

    #[inline]
    fn take(&mut self, hash: u32, inserted: u64) -> bool {
        let print = fingerprint(hash);
        let Some(bucket) = self.bucket_mut(hash) else {
            return false;
        };
        // Side by side, as in `insert`: nearly always there is none. No print stands twice.
        let mut found = 0;
        for (slot, &cell) in bucket.iter().enumerate() {
            found |= u32::from(cell >> 16 == print) << slot;
        }
        if found == 0 {
            return false;
        }
        // Emptied even when out of age: it is no use any more.
        let cell = std::mem::take(&mut bucket[found.trailing_zeros() as usize % CELLS]);
        self.remembers(self.age(cell, inserted))
    }
}

/// The part of the hash a cell keeps: the low bits, as the high ones choose the
/// bucket; never 0, which marks an empty cell.
#[inline]
fn fingerprint(hash: u32) -> u32 {
    (hash & 0xffff).max(1)
}

impl Ghost {
    /// Remembers nothing; allocates nothing.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// How many insertions a hash is remembered for.
    pub(crate) fn capacity(&self) -> u32 {
        self.table.capacity
    }

    /// Changes the capacity. What is remembered stays so, for as many
    /// insertions as the lesser of both capacities.
    pub(crate) fn set_capacity(&mut self, capacity: u32) {
        if capacity == self.table.capacity {
            return;
        }
        let old = std::mem::replace(&mut self.table, Table::new(capacity));
        if !old.buckets.is_empty() && capacity > 0 {
            self.old = Some(old);
            self.retired = self.inserted;
        } else if capacity == 0 {
            self.old = None;
        }
    }

    /// Remembers a hash.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u32) {
        if self.table.capacity == 0 {
            return;
        }
        self.inserted += 1;
        self.table.insert(hash, self.inserted);
        if self.old.is_some() {
            self.forget_old();
        }
    }

    #[cold]
    fn forget_old(&mut self) {
        if let Some(old) = &self.old {
            let limit = old.capacity.min(self.table.capacity);
            if self.inserted - self.retired >= u64::from(limit) {
                self.old = None;
            }
        }
    }

    /// Asks for the memory that a call with this hash will look at.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u32) {
        if let Some(bucket) = self.table.buckets.get(self.table.at(hash)) {
            // A bucket may lie across two lines.
            prefetch(&bucket[0]);
            prefetch(&bucket[CELLS - 1]);
        }
    }

    /// Whether the hash was remembered; it no longer is.
    #[inline]
    pub(crate) fn take(&mut self, hash: u32) -> bool {
        let found = self.table.take(hash, self.inserted);
        match &mut self.old {
            // Both are asked: a hash may be in either, and must leave both.
            Some(old) => old.take(hash, self.inserted) | found,
            None => found,
        }
    }

    /// Forgets everything and frees the memory; the capacity stays.
    pub(crate) fn clear(&mut self) {
        self.table.buckets = Vec::new();
        self.old = None;
    }

    /// Bytes allocated.
    #[cfg(test)]
    pub(crate) fn heap_bytes(&self) -> usize {
        let old = self.old.as_ref().map_or(0, |old| old.buckets.capacity());
        (self.table.buckets.capacity() + old) * size_of::<Bucket>()
    }

    /// Hashes remembered, by a walk over the whole table.
    #[cfg(test)]
    pub(crate) fn count(&self) -> u64 {
        let tables = std::iter::once(&self.table).chain(&self.old);
        tables
            .map(|table| {
                let cells = table.buckets.iter().flatten();
                cells
                    .filter(|&&cell| cell != 0 && table.remembers(table.age(cell, self.inserted)))
                    .count() as u64
            })
            .sum()
    }

    /// Panics if an invariant is broken.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn validate(&self) {
        for table in std::iter::once(&self.table).chain(&self.old) {
            assert!(table.capacity >> table.shift < AGES, "ghost: shift");
            let wanted = table.capacity.div_ceil(FILL) as usize;
            assert!(
                table.buckets.is_empty() || table.buckets.len() == wanted,
                "ghost: count of buckets"
            );
            for bucket in &table.buckets {
                let mut seen: Vec<u32> = bucket.iter().map(|cell| cell >> 16).collect();
                for (&cell, &print) in bucket.iter().zip(&seen) {
                    assert!(cell == 0 || print != 0, "ghost: fingerprint 0");
                }
                seen.retain(|&print| print != 0);
                let cells = seen.len();
                seen.sort_unstable();
                seen.dedup();
                assert_eq!(seen.len(), cells, "ghost: a fingerprint twice in a bucket");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mix(number: u32) -> u32 {
        (u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24) as u32
    }

    #[test]
    fn remembers_a_capacity_and_no_more() {
        for capacity in [1_u32, 7, 100, 5_000, 60_000] {
            let mut ghost = Ghost::new();
            ghost.set_capacity(capacity);
            assert_eq!(ghost.heap_bytes(), 0);
            for number in 0..capacity * 3 {
                ghost.insert(mix(number));
            }
            ghost.validate();
            let recent = (capacity * 2..capacity * 3)
                .filter(|&number| ghost.take(mix(number)))
                .count();
            assert!(
                recent as f64 >= f64::from(capacity) * 0.93,
                "{recent} of {capacity}"
            );
            let again = (capacity * 2..capacity * 3)
                .filter(|&number| ghost.take(mix(number)))
                .count();
            assert!(
                again <= 1 + capacity as usize / 1_000,
                "taken twice: {again}"
            );
            let aged = (0..capacity * 2)
                .filter(|&number| ghost.take(mix(number)))
                .count();
            assert!(aged <= 2 + capacity as usize / 500, "aged but kept: {aged}");
            ghost.validate();
            assert!(ghost.count() <= 1 + u64::from(capacity) / 100);
        }
    }

    #[test]
    fn does_not_wake_up_when_the_clock_wraps() {
        let mut ghost = Ghost::new();
        ghost.set_capacity(64);
        for number in 0..64 {
            ghost.insert(mix(number));
        }
        for number in 0..65_536 {
            ghost.insert(mix(1_000 + number));
        }
        let woken = (0..64).filter(|&number| ghost.take(mix(number))).count();
        assert!(woken <= 1);
        ghost.validate();
    }

    #[test]
    fn a_change_of_capacity_keeps_what_is_known() {
        let mut ghost = Ghost::new();
        ghost.set_capacity(100);
        for number in 0..100 {
            ghost.insert(mix(number));
        }
        ghost.set_capacity(1_000);
        ghost.insert(mix(500));
        ghost.validate();
        let known = (50..100).filter(|&number| ghost.take(mix(number))).count();
        assert!(known > 45);
        assert!(ghost.take(mix(500)));
        for number in 600..800 {
            ghost.insert(mix(number));
        }
        assert!(ghost.old.is_none());
        ghost.set_capacity(0);
        assert_eq!(ghost.heap_bytes(), 0);
        ghost.insert(1);
        assert!(!ghost.take(1));
    }

    #[test]
    fn clear_forgets() {
        let mut ghost = Ghost::new();
        ghost.set_capacity(100);
        ghost.insert(5);
        ghost.clear();
        assert!(!ghost.take(5));
        assert_eq!((ghost.heap_bytes(), ghost.capacity()), (0, 100));
        ghost.insert(5);
        assert!(ghost.take(5));
    }
}
