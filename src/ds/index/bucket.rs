//! A bucket of the index: one cache line of 15 words, each an id below a tag.
//!
//! # Invariants
//!
//! - A word of 0 marks an empty slot; the words of entries are never 0.
//! - The last word counts the entries that went further on because the bucket was full, in its lower half,
//!   and has a bit for each of their hashes in its upper half. A bit may outlive its entry: a bucket that
//!   was once full would otherwise send every stranger on for as long as one entry stays away from home.
//!   The bits go with the last of the entries.
//!
//! # Cost
//!
//! 64 bytes. All words are compared at once.

use crate::util::cpu::equal_words;

/// Entries in a bucket.
pub(super) const SLOTS: usize = 15;

/// The most that the count of entries gone further on can say.
pub(super) const MANY: u32 = 0xffff;

#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Bucket {
    /// The slots, and last what went further on because this bucket was full.
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

    /// Entries whose way from home leads beyond this bucket; [`MANY`] means so many or more.
    #[inline]
    pub(super) fn passed(&self) -> u32 {
        self.words[SLOTS] & MANY
    }

    /// Whether an entry of this hash may have gone further on.
    #[inline]
    pub(super) fn may_have_passed(&self, hash: u32) -> bool {
        self.words[SLOTS] & passed_bit(hash) != 0
    }

    /// Notes that an entry goes further on.
    #[inline]
    pub(super) fn pass(&mut self, hash: u32) {
        let more = u32::from(self.passed() < MANY);
        self.words[SLOTS] = (self.words[SLOTS] + more) | passed_bit(hash);
    }

    /// Undoes one `pass`. What has been counted to the end is not counted down again.
    #[inline]
    pub(super) fn unpass(&mut self) {
        match self.passed() {
            MANY => {}
            0 | 1 => self.words[SLOTS] = 0,
            _ => self.words[SLOTS] -= 1,
        }
    }
}

/// The bit that stands for a hash among those that passed: by low bits, as the
/// high ones choose the bucket.
#[inline]
fn passed_bit(hash: u32) -> u32 {
    1 << (16 + (hash >> 1 & 15))
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
                (0..7).for_each(|_| bucket.pass(5));
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

    #[test]
    fn knows_who_may_have_passed() {
        let mut bucket = Bucket::default();
        assert!((0..32).all(|hash| !bucket.may_have_passed(hash)));
        bucket.pass(8);
        bucket.pass(10);
        let may = |bucket: &Bucket| {
            (0..32)
                .filter(|&hash| bucket.may_have_passed(hash))
                .collect()
        };
        let seen: Vec<u32> = may(&bucket);
        assert_eq!(seen, [8, 9, 10, 11]);
        bucket.unpass();
        // Which of them left is not known.
        assert_eq!((bucket.passed(), may(&bucket)), (1, seen));
        bucket.unpass();
        assert_eq!((bucket.passed(), may(&bucket)), (0, vec![]));
    }

    #[test]
    fn a_count_that_has_reached_its_end_stays() {
        let mut bucket = Bucket::default();
        (0..MANY + 10).for_each(|_| bucket.pass(1));
        (0..MANY + 10).for_each(|_| bucket.unpass());
        assert!(bucket.passed() == MANY && bucket.may_have_passed(1) && !bucket.may_have_passed(4));
        let words: Vec<u32> = (0..SLOTS).map(|slot| bucket.word(slot)).collect();
        assert_eq!(words, [0; SLOTS]);
    }
}
