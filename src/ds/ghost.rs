//! The hashes of the entries evicted last.
//!
//! A set with a bounded memory: `insert` a hash when its entry is evicted,
//! `take` it when the key comes back. It is approximate on purpose: a hash is kept
//! as a 16-bit fingerprint, so about one `take` in 8 000 is wrongly answered yes,
//! and a hash is forgotten once eight others came to its bucket, which is after a
//! capacity's worth of insertions on the average, and mostly between half and one
//! and a half of it.
//!
//! # Invariants
//!
//! - A bucket is a queue of eight fingerprints, the youngest in the low bits; 0
//!   marks an empty place, and no fingerprint is 0. Empty places are the oldest.
//! - `old` is the table before the last change of capacity; it is only read, and
//!   dropped after as many insertions as the lesser of both capacities.
//!
//! # Cost
//!
//! 2 bytes per hash, allocated by the first insertion as zeroed memory. Each call
//! touches one bucket (two just after a change of capacity): an insertion is a
//! shift. Clearing frees the table.

use crate::util::cpu::{equal_parts, prefetch};

/// Fingerprints in a bucket of 16 bytes.
const PLACES: u32 = 8;

/// Bits of a fingerprint.
const PRINT: u32 = 16;

/// So many hashes that came back tell something...
const TELLING: u32 = 64;

/// ...and of so many, half is forgotten, so that the last ones count most.
const PLENTY: u32 = 1024;

type FingerprintBucket = u128;

#[derive(Debug, Default)]
struct FingerprintTable {
    buckets: Vec<FingerprintBucket>,
    capacity: u32,
}

/// A bounded memory of hashes.
#[derive(Debug, Default)]
pub(crate) struct Ghost {
    table: FingerprintTable,
    old: Option<FingerprintTable>,
    /// Insertions since `old` was set aside.
    since: u32,
    returns: Returns,
}

/// How old the hashes were that came back of late.
#[derive(Clone, Copy, Debug, Default)]
struct Returns {
    /// From the youngest quarter of the places.
    young: u32,
    /// From the older half of them.
    old: u32,
}

impl Returns {
    #[inline]
    fn note(&mut self, place: u32) {
        self.young += u32::from(place < PLACES / 4);
        self.old += u32::from(place >= PLACES / 2);
        if self.young + self.old >= PLENTY {
            self.young /= 2;
            self.old /= 2;
        }
    }
}

impl FingerprintTable {
    fn new(capacity: u32) -> Self {
        Self {
            buckets: Vec::new(),
            capacity,
        }
    }

    #[inline]
    fn at(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.buckets.len() as u64) >> 32) as usize
    }

    #[inline]
    fn insert(&mut self, hash: u32) {
        let at = self.at(hash);
        match self.buckets.get_mut(at) {
            Some(bucket) => *bucket = *bucket << PRINT | u128::from(fingerprint(hash)),
            None => self.insert_first(hash),
        }
    }

    #[cold]
    fn insert_first(&mut self, hash: u32) {
        let buckets = self.capacity.div_ceil(PLACES) as usize;
        self.buckets = vec![0; buckets];
        let at = self.at(hash);
        if let Some(bucket) = self.buckets.get_mut(at) {
            *bucket = u128::from(fingerprint(hash));
        }
    }

    /// Takes a hash out and tells its place: the youngest is 0.
    #[inline]
    fn take(&mut self, hash: u32) -> Option<u32> {
        let at = self.at(hash);
        let bucket = self.buckets.get_mut(at)?;
        let place = place_of(*bucket, fingerprint(hash));
        if place == PLACES {
            return None;
        }
        // The older ones move up, so that the empty place is the oldest.
        let younger = *bucket & ((1 << (place * PRINT)) - 1);
        let older = (*bucket >> (place * PRINT)) >> PRINT << (place * PRINT);
        *bucket = younger | older;
        Some(place)
    }
}

/// The youngest place with this fingerprint; `PLACES` if there is none.
#[inline]
fn place_of(bucket: FingerprintBucket, print: u16) -> u32 {
    // A bit beyond the last place means none.
    (equal_parts(bucket, print) | 1 << PLACES).trailing_zeros()
}

/// The part of the hash a place keeps: low bits, as the high ones choose the
/// bucket (the lowest of all may be the same in all hashes); never 0, which marks an
/// empty place.
#[inline]
fn fingerprint(hash: u32) -> u16 {
    ((hash >> 1) as u16).max(1)
}

impl Ghost {
    /// Remembers nothing; allocates nothing.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// How many insertions a hash is remembered for, on the average.
    pub(crate) fn capacity(&self) -> u32 {
        self.table.capacity
    }

    /// Changes the capacity. What is remembered stays so, for at most as many
    /// insertions as the lesser of both capacities.
    pub(crate) fn set_capacity(&mut self, capacity: u32) {
        if capacity == self.table.capacity {
            return;
        }
        let old = std::mem::replace(&mut self.table, FingerprintTable::new(capacity));
        if !old.buckets.is_empty() && capacity > 0 {
            self.old = Some(old);
            self.since = 0;
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
        self.table.insert(hash);
        if self.old.is_some() {
            self.forget_old();
        }
    }

    #[cold]
    fn forget_old(&mut self) {
        self.since += 1;
        if let Some(old) = &self.old {
            if self.since >= old.capacity.min(self.table.capacity) {
                self.old = None;
            }
        }
    }

    /// Asks for the memory that a call with this hash will look at.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u32) {
        if let Some(bucket) = self.table.buckets.get(self.table.at(hash)) {
            prefetch(bucket);
        }
    }

    /// Whether the hash was remembered; it no longer is.
    #[inline]
    pub(crate) fn take(&mut self, hash: u32) -> bool {
        let place = self.table.take(hash);
        if let Some(place) = place {
            self.returns.note(place);
        }
        if self.old.is_some() {
            // Both are asked: a hash may be in either, and must leave both.
            return self.take_old(hash) | place.is_some();
        }
        place.is_some()
    }

    /// How much sooner than later hashes come back, in thousandths: 1,000 if those evicted just now are as
    /// likely to as those evicted long ago; `None` while too few came back to tell.
    pub(crate) fn return_rate(&self) -> Option<u32> {
        let Returns { young, old } = self.returns;
        (young + old >= TELLING).then(|| 2_000 * young / old.max(1))
    }

    #[cold]
    fn take_old(&mut self, hash: u32) -> bool {
        self.old
            .as_mut()
            .is_some_and(|old| old.take(hash).is_some())
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
        (self.table.buckets.capacity() + old) * size_of::<FingerprintBucket>()
    }

    /// Hashes remembered, by a walk over the whole table.
    #[cfg(test)]
    pub(crate) fn count(&self) -> u64 {
        let tables = std::iter::once(&self.table).chain(&self.old);
        tables
            .flat_map(|table| &table.buckets)
            .map(|bucket| u64::from(128_u32.div_ceil(PRINT) - bucket.leading_zeros() / PRINT))
            .sum()
    }

    /// Panics if an invariant is broken.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn validate(&self) {
        for table in std::iter::once(&self.table).chain(&self.old) {
            let wanted = table.capacity.div_ceil(PLACES) as usize;
            assert!(
                table.buckets.is_empty() || table.buckets.len() == wanted,
                "ghost: count of buckets"
            );
            for bucket in &table.buckets {
                let prints = (0..PLACES).map(|place| (bucket >> (place * PRINT)) as u16);
                let ends = prints.clone().position(|print| print == 0);
                let full = prints.filter(|&print| print != 0).count();
                assert!(
                    ends.is_none_or(|end| end == full),
                    "ghost: an empty place among the younger ones"
                );
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
    fn remembers_about_a_capacity() {
        for capacity in [800_u32, 5_000, 60_000] {
            let mut ghost = Ghost::new();
            ghost.set_capacity(capacity);
            assert_eq!(ghost.heap_bytes(), 0);
            for number in 0..capacity * 4 {
                ghost.insert(mix(number));
            }
            ghost.validate();
            assert!(ghost.count() <= u64::from(capacity) + 7);
            let mut share = |from: u32, to: u32| {
                let asked = capacity * from / 4..capacity * to / 4;
                let known = asked.clone().filter(|&number| ghost.take(mix(number)));
                known.count() as f64 / asked.len() as f64
            };
            let (newest, new) = (share(15, 16), share(14, 15));
            assert!(newest > 0.99 && new > 0.9, "{newest} {new}");
            let (old, oldest) = (share(8, 9), share(0, 8));
            assert!(old < 0.1 && oldest < 0.01, "{old} {oldest}");
            let again = share(12, 16);
            assert!(again < 0.5, "{again}");
            assert!(share(12, 16) < 0.001, "taken twice");
            ghost.validate();
        }
    }

    #[test]
    fn a_small_one_remembers_what_came_last() {
        for capacity in [1_u32, 7, 100] {
            let mut ghost = Ghost::new();
            ghost.set_capacity(capacity);
            for number in 0..1_000 {
                ghost.insert(mix(number));
                assert!(number % 3 > 0 || ghost.take(mix(number)));
            }
            ghost.validate();
            assert!(ghost.count() <= u64::from(capacity) + 7);
        }
    }

    #[test]
    fn the_youngest_match_is_one() {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..50_000 {
            let mut bucket = 0_u128;
            let mut model = Vec::new();
            for _ in 0..8 {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                // Few values, so that they match and differ by a bit.
                let print = [1, 2, 3, 0x8000, 0x8001, 0xffff][(seed >> 20) as usize % 6];
                bucket = bucket << PRINT | u128::from(print);
                model.insert(0, print);
            }
            for print in [1, 2, 3, 4, 0x8000, 0x8001, 0xffff] {
                let place = model.iter().position(|&other| other == print);
                assert_eq!(place_of(bucket, print), place.map_or(PLACES, |p| p as u32));
            }
        }
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
        let known = (60..100).filter(|&number| ghost.take(mix(number))).count();
        assert!(known > 35, "{known}");
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
    fn tells_how_soon_hashes_come_back() {
        let mut ghost = Ghost::new();
        ghost.set_capacity(10_000);
        let mut number = 0;
        // Each hash comes back after `after` others were evicted.
        let mut come_back = |ghost: &mut Ghost, after, times| {
            for _ in 0..times {
                ghost.insert(mix(number));
                if number >= after {
                    ghost.take(mix(number - after));
                }
                number += 1;
            }
        };
        come_back(&mut ghost, 1, 10);
        assert_eq!(ghost.return_rate(), None, "ten tell nothing");
        come_back(&mut ghost, 500, 2_000);
        assert!(
            ghost.return_rate() > Some(3_000),
            "{:?}",
            ghost.return_rate()
        );
        come_back(&mut ghost, 8_000, 20_000);
        assert!(ghost.return_rate() < Some(300), "{:?}", ghost.return_rate());
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
