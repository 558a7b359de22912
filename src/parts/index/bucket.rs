//! A bucket of the index: one cache line of 15 words, each an id below a tag.
//!
//! # Invariants
//!
//! - A word of 0 marks an empty slot; the words of entries are never 0.
//! - `passed` is the table's, which see; no operation here touches it.
//!
//! # Cost
//!
//! 64 bytes. All words are compared at once.

use crate::cpu::equal_words;

/// Entries in a bucket.
pub(super) const SLOTS: usize = 15;

#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Bucket {
    /// The slots, and last how many entries went further on because this bucket was full.
    words: [u32; SLOTS + 1],
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// How a table divides a word: the id in the low bits, the tag above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Split {
    /// One above the ids that a word has room for; a power of two, and the lowest bit of the tag.
    unit: u32,
}

impl Split {
    /// The one that leaves most to the tag, for ids up to `most`, which is below half of all.
    pub(super) fn for_ids_to(most: u32) -> Self {
        Self {
            unit: 1 << (u32::BITS - most.leading_zeros()),
        }
    }

    /// Whether words have room for this id.
    #[inline]
    pub(super) fn fits(self, id: u32) -> bool {
        id < self.unit
    }

    /// The low bits of the hash, as the high ones choose the bucket. The last of them is set, so that no
    /// entry's word is 0.
    #[inline]
    pub(super) fn tag(self, hash: u32) -> u32 {
        hash.wrapping_mul(self.unit) | self.unit
    }

    /// The bits of a word that are the tag's.
    #[inline]
    pub(super) fn mask(self) -> u32 {
        self.unit.wrapping_neg()
    }

    #[inline]
    pub(super) fn word(self, hash: u32, id: u32) -> u32 {
        self.tag(hash) | id
    }

    #[inline]
    pub(super) fn id(self, word: u32) -> u32 {
        word & (self.unit - 1)
    }
}

/// For a table without buckets.
impl Default for Split {
    fn default() -> Self {
        Self { unit: 1 }
    }
}

/// Slots, as a set of bits.
#[derive(Clone, Copy)]
pub(super) struct Matches(u32);

impl Iterator for Matches {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let slot = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(slot)
    }
}

impl Bucket {
    pub(super) const EMPTY: Self = Self {
        words: [0; SLOTS + 1],
    };

    /// The slots whose words have this tag.
    #[inline]
    pub(super) fn matches(&self, tag: u32, mask: u32) -> Matches {
        Matches(equal_words(&self.words, mask, tag) & ((1 << SLOTS) - 1))
    }

    #[inline]
    pub(super) fn vacant(&self) -> Option<usize> {
        self.slot_of(0)
    }

    /// The slot with this word.
    #[inline]
    pub(super) fn slot_of(&self, word: u32) -> Option<usize> {
        self.matches(word, !0).next()
    }

    /// The word in a slot; 0 in an empty one.
    #[inline]
    pub(super) fn word(&self, slot: usize) -> u32 {
        self.words[slot % (SLOTS + 1)]
    }

    #[inline]
    pub(super) fn set_word(&mut self, slot: usize, word: u32) {
        self.words[slot % (SLOTS + 1)] = word;
    }

    /// Entries whose way from home leads beyond this bucket.
    #[inline]
    pub(super) fn passed(&self) -> u32 {
        self.words[SLOTS]
    }

    #[inline]
    pub(super) fn passed_mut(&mut self) -> &mut u32 {
        &mut self.words[SLOTS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_all_matches_and_nothing_else() {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        for most in [1, 255, 256, 70_000, u32::MAX >> 2] {
            let split = Split::for_ids_to(most);
            assert!(split.fits(most) && !split.fits(most.next_power_of_two() << 1));
            for _ in 0..2_000 {
                let (mut bucket, mut held) = (Bucket::default(), [None; SLOTS]);
                *bucket.passed_mut() = 7;
                for (slot, held) in held.iter_mut().enumerate() {
                    seed ^= seed << 13;
                    seed ^= seed >> 7;
                    seed ^= seed << 17;
                    // Few values, so that they match and differ by a bit.
                    let hash = [0, 1, 3, 0x8000, u32::MAX][(seed >> 20) as usize % 5];
                    let id = (seed >> 32) as u32 % most.saturating_add(1);
                    if (seed >> 40) % 4 > 0 {
                        *held = Some((hash, id));
                        bucket.set_word(slot, split.word(hash, id));
                    }
                }
                let vacant = held.iter().position(Option::is_none);
                assert_eq!(bucket.vacant(), vacant);
                for hash in [0, 1, 3, 0x8000, u32::MAX] {
                    let tag = split.tag(hash);
                    let shown: Vec<usize> = bucket.matches(tag, split.mask()).collect();
                    for (slot, held) in held.iter().enumerate() {
                        let same = held.is_some_and(|(hash, _)| split.tag(hash) == tag);
                        assert_eq!(shown.contains(&slot), same);
                        if let Some((hash, id)) = held {
                            assert_eq!(split.id(bucket.word(slot)), *id);
                            assert!(bucket.slot_of(split.word(*hash, *id)).is_some());
                        }
                    }
                }
                assert_eq!(bucket.passed(), 7);
            }
        }
    }
}
