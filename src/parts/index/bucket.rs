//! A bucket of the index: one cache line of 12 tags and 12 ids.
//!
//! # Invariants
//!
//! - A tag of 0 marks an empty slot, whose id means nothing; others are at least 2.
//! - `passed` is the table's, which see; no operation here touches it.
//!
//! # Cost
//!
//! 64 bytes. Comparing all tags takes a dozen instructions on two words.

/// Entries in a bucket.
pub(super) const SLOTS: usize = 12;

#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Bucket {
    /// Tags of slots 0 to 7, from the low byte; 0: empty.
    low: u64,
    /// Tags of slots 8 to 11.
    high: u32,
    /// Entries whose way from home leads beyond this bucket.
    pub(super) passed: u32,
    pub(super) ids: [u32; SLOTS],
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// A one in each byte.
const LOW_ONES: u64 = 0x0101_0101_0101_0101;
const HIGH_ONES: u32 = LOW_ONES as u32;

/// Slots, as a set of bits: slot `s < 8` is bit `8 s`, slot `s >= 8` is bit
/// `8 (s - 8) + 1`.
#[derive(Clone, Copy)]
pub(super) struct Matches(u64);

impl Iterator for Matches {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some((bit >> 3) + ((bit & 1) << 3))
    }
}

impl Bucket {
    pub(super) const EMPTY: Self = Self {
        low: 0,
        high: 0,
        passed: 0,
        ids: [0; SLOTS],
    };

    /// The slots with this tag, and perhaps some more full ones.
    ///
    /// A borrow runs from a matching byte into the next, which then matches as
    /// well if it differs in the lowest bit alone. As tags are at least 2, no
    /// empty slot (whose id is stale) passes for a full one so, nor the reverse.
    #[inline]
    pub(super) fn matches(&self, tag: u8) -> Matches {
        let tags = u64::from(tag) * LOW_ONES;
        let (low, high) = (self.low ^ tags, self.high ^ tags as u32);
        let low = low.wrapping_sub(LOW_ONES) & !low & (LOW_ONES << 7);
        let high = high.wrapping_sub(HIGH_ONES) & !high & (HIGH_ONES << 7);
        Matches(low >> 7 | u64::from(high) >> 6)
    }

    #[inline]
    pub(super) fn vacant(&self) -> Option<usize> {
        self.matches(0).next()
    }

    /// The full slot with this id.
    #[inline]
    pub(super) fn slot_of(&self, tag: u8, id: u32) -> Option<usize> {
        self.matches(tag).find(|&slot| self.ids[slot] == id)
    }

    #[inline]
    pub(super) fn tag(&self, slot: usize) -> u8 {
        if slot < 8 {
            (self.low >> (slot * 8)) as u8
        } else {
            (self.high >> ((slot - 8) * 8)) as u8
        }
    }

    #[inline]
    pub(super) fn set_tag(&mut self, slot: usize, tag: u8) {
        if slot < 8 {
            let at = slot * 8;
            self.low = self.low & !(0xff << at) | u64::from(tag) << at;
        } else {
            let at = (slot - 8) * 8;
            self.high = self.high & !(0xff << at) | u32::from(tag) << at;
        }
    }
}

/// The low byte of the hash; never 0, which marks an empty slot, nor 1, which
/// [`Bucket::matches`] could not tell from it.
#[inline]
pub(super) fn tag_of(hash: u32) -> u8 {
    (hash as u8).max(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_all_matches_and_no_empty_slot() {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..20_000 {
            let (mut bucket, mut tags) = (Bucket::default(), [0; SLOTS]);
            for (slot, tag) in tags.iter_mut().enumerate() {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                // Few values, so that they match and differ by a bit.
                *tag = tag_of([0, 2, 3, 0xfe, 0xff][(seed >> 20) as usize % 5]);
                if (seed >> 40) % 4 == 0 {
                    *tag = 0;
                }
                bucket.set_tag(slot, 0x55);
                bucket.set_tag(slot, *tag);
            }
            assert!((0..SLOTS).all(|slot| bucket.tag(slot) == tags[slot]));
            assert_eq!(bucket.vacant().is_some(), tags.contains(&0));
            assert!(bucket.vacant().is_none_or(|slot| tags[slot] == 0));
            for tag in [2, 3, 0xfe, 0xff] {
                let shown: Vec<usize> = bucket.matches(tag).collect();
                assert!(shown.iter().all(|&slot| tags[slot] != 0));
                assert!((0..SLOTS).all(|slot| tags[slot] != tag || shown.contains(&slot)));
            }
        }
    }
}
