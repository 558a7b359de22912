//! What an entry says about itself, in 16 bytes: its deadline, its epoch, its hash, its
//! hits, its queue, whether it is tagged, and whether it has a time to live of its own.
//!
//! | word | bits | what |
//! |---|---|---|
//! | `first` | 0..3 | hits since the policy last looked |
//! | | 3..5 | the policy's queue that the entry is in |
//! | | 5 | whether it carries tags |
//! | | 6..20 | the upper part of the hash |
//! | | 20..64 | the deadline, as below |
//! | `second` | 0..18 | the lower part of the hash, which is odd |
//! | | 18 | whether its time to live is its own, and not the cache's |
//! | | 19..64 | `epoch` |
//!
//! What a hit asks about is in the highest bits: that the deadline is later than some moment, or that `epoch` is not
//! below some minimum, is one comparison of a whole word.
//!
//! # The deadline
//! 44 bits hold a moment to 20 µs for the first 5.5 years of the clock, and to 2.1 ms after that, rounded
//! down: nothing is served late, and at most that much is lost of its life. All ones mean "never".
//!
//! # Who may write
//! `first` is written under the shard's exclusive lock, save that readers add hits to it under the shared
//! one. All they store is the word they have read with another count of hits: of two at once one hit is
//! lost, and nothing else can have changed meanwhile.

use std::num::NonZeroU64;

use crate::util::clock::NEVER;
use crate::util::sync::atomic::{AtomicU64, Ordering};

const HITS: u64 = 0b111;
const DEADLINE: u64 = (1 << 44) - 1;
const QUEUE: u64 = 0b11;
const QUEUE_AT: u32 = 3;
const TAGGED_AT: u32 = 5;
const UPPER_AT: u32 = 6;
const DEADLINE_AT: u32 = 20;
/// How many bits of the hash are in the second word.
const LOWER_BITS: u32 = 18;
const LOWER: u64 = (1 << LOWER_BITS) - 1;
const OWN_TTL_AT: u32 = 18;
const EPOCH_AT: u32 = 19;

/// The bit that says that a deadline counts in [`COARSE`] units.
const SCALE: u64 = 1 << 43;
/// Nanoseconds in a unit of a near deadline.
const FINE: u64 = 20_000;
/// Nanoseconds in a unit of a far one.
const COARSE: u64 = 1 << 21;

/// The last epoch that an entry can carry: 3.5 * 10^13. See
/// [`EpochCounter`](crate::entry::generation::EpochCounter).
pub(crate) const MAX_EPOCH: u64 = (1 << 45) - 2;

/// What an entry must be above to be served without a closer look: its words as a header lays them out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LivenessBound {
    /// No word of an entry with the least epoch allowed is below this.
    second: u64,
    /// The highest word of an entry whose deadline may have come.
    first: u64,
}

impl LivenessBound {
    /// For entries with an epoch of `min_epoch` or more, which is at most one above [`MAX_EPOCH`], whose deadlines are
    /// after `moment`.
    #[inline]
    pub(crate) fn new(min_epoch: u64, moment: u64) -> Self {
        LivenessBound {
            second: min_epoch << EPOCH_AT,
            first: compact(moment) << DEADLINE_AT | ((1 << DEADLINE_AT) - 1),
        }
    }
}

/// A deadline as a header keeps it; packed deadlines compare as their moments do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PackedDeadline(u64);

impl PackedDeadline {
    #[inline]
    pub(crate) fn moment(self) -> u64 {
        expand(self.0)
    }
}

/// What an entry says about itself.
pub(crate) struct EntryHeader {
    first: AtomicU64,
    second: NonZeroU64,
}

impl EntryHeader {
    /// The header of an entry that nobody has read yet. `hash` is odd, `epoch` at most [`MAX_EPOCH`].
    #[inline]
    pub(crate) fn new(hash: u32, epoch: u64, check_at: u64, tagged: bool) -> Self {
        debug_assert!(hash & 1 == 1 && epoch <= MAX_EPOCH);
        EntryHeader {
            first: AtomicU64::new(first_word(hash, check_at, tagged)),
            second: second_word(hash, epoch),
        }
    }

    /// Marks the time to live as the entry's own, or the cache's.
    #[inline]
    pub(crate) fn set_own_ttl(&mut self, own: bool) {
        let others = self.second.get() & !(1 << OWN_TTL_AT);
        // The hash is odd: the other branch is never taken.
        let second = NonZeroU64::new(others | u64::from(own) << OWN_TTL_AT);
        self.second = second.unwrap_or(self.second);
    }

    /// Whether its time to live was said by who wrote it, and is not the cache's.
    #[inline]
    pub(crate) fn has_own_ttl(&self) -> bool {
        self.second.get() >> OWN_TTL_AT & 1 != 0
    }

    /// The half of the key's hash that did not pick the shard.
    #[inline]
    pub(crate) fn hash(&self) -> u32 {
        let upper = self.first() >> UPPER_AT << LOWER_BITS;
        (self.second.get() & LOWER | upper) as u32
    }

    /// Whether the key's hash may be this one: says no to all but one in 130,000 of the others.
    #[inline]
    pub(crate) fn may_be_of(&self, hash: u32) -> bool {
        (self.second.get() ^ u64::from(hash)) & LOWER == 0
    }

    /// The epoch that the entry carries: it is dead once the minimum of one of its scopes is above it.
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.second.get() >> EPOCH_AT
    }

    /// The moment from which a hit must look closer: where the window for an early load begins, else the deadline by
    /// age; [`NEVER`] without either.
    #[inline]
    pub(crate) fn check_at(&self) -> u64 {
        self.packed_deadline().moment()
    }

    /// [`check_at`](Self::check_at) in its packed form, which compares without being unpacked.
    #[inline]
    pub(crate) fn packed_deadline(&self) -> PackedDeadline {
        PackedDeadline(self.first() >> DEADLINE_AT)
    }

    #[inline]
    pub(crate) fn is_tagged(&self) -> bool {
        self.first() >> TAGGED_AT & 1 != 0
    }

    /// Whether the entry is surely alive, as far as the bound tells: its tags are not looked at. If not, it may still
    /// be.
    #[inline]
    pub(crate) fn is_surely_live(&self, bound: LivenessBound) -> bool {
        self.second.get() >= bound.second && self.first() > bound.first
    }

    #[inline]
    pub(crate) fn hits(&self) -> u8 {
        (self.first() & HITS) as u8
    }

    /// Counts a hit, by at most one store to the entry's own line and none once there are `most`.
    #[inline]
    pub(crate) fn hit(&self, most: u8) {
        let first = self.first();
        if first & HITS < u64::from(most) {
            // Relaxed: the count only advises the policy, and the rest of the word is what it was.
            self.first.store(first + 1, Ordering::Relaxed);
        }
    }

    /// The policy's queue that the entry is in, 0 to 3; 0 in a new header.
    #[inline]
    pub(crate) fn queue(&self) -> u8 {
        (self.first() >> QUEUE_AT & QUEUE) as u8
    }

    /// Sets the queue of the entry, and its hits.
    #[inline]
    pub(crate) fn set_queue(&mut self, queue: u8, hits: u8) {
        let first = self.first.get_mut();
        let others = *first & !(HITS | QUEUE << QUEUE_AT);
        *first = others | (u64::from(queue) & QUEUE) << QUEUE_AT | u64::from(hits) & HITS;
    }

    #[inline]
    pub(crate) fn set_check_at(&mut self, check_at: u64) {
        let first = self.first.get_mut();
        *first = *first & !(DEADLINE << DEADLINE_AT) | compact(check_at) << DEADLINE_AT;
    }

    /// Takes over the header of a new value for the same key. Hits and queue stay, and so does the hash: by that
    /// the entry is found, also if the key's own `Hash` says another thing every time.
    #[inline]
    pub(crate) fn renew(&mut self, new: EntryHeader) {
        const STAYS: u64 =
            HITS | QUEUE << QUEUE_AT | ((1 << (DEADLINE_AT - UPPER_AT)) - 1) << UPPER_AT;
        *self.first.get_mut() = self.first() & STAYS | new.first() & !STAYS;
        let second = new.second.get() & !LOWER | self.second.get() & LOWER;
        // The hash is odd: the other branch is never taken.
        self.second = NonZeroU64::new(second).unwrap_or(new.second);
    }

    #[inline]
    fn first(&self) -> u64 {
        // Relaxed: the shard's lock orders all but the hits.
        self.first.load(Ordering::Relaxed)
    }
}

#[inline]
fn first_word(hash: u32, check_at: u64, tagged: bool) -> u64 {
    let upper = u64::from(hash) >> LOWER_BITS;
    compact(check_at) << DEADLINE_AT | upper << UPPER_AT | u64::from(tagged) << TAGGED_AT
}

#[inline]
fn second_word(hash: u32, epoch: u64) -> NonZeroU64 {
    // The hash is odd: the other branch is never taken.
    NonZeroU64::new(epoch << EPOCH_AT | u64::from(hash) & LOWER).unwrap_or(NonZeroU64::MIN)
}

/// A moment in 44 bits, never later than it is.
#[inline]
fn compact(moment: u64) -> u64 {
    let fine = moment / FINE;
    if fine < SCALE {
        fine
    } else if moment == NEVER {
        DEADLINE
    } else {
        SCALE | (moment / COARSE).min(SCALE - 2)
    }
}

#[inline]
fn expand(compact: u64) -> u64 {
    if compact < SCALE {
        compact * FINE
    } else if compact == DEADLINE {
        NEVER
    } else {
        (compact & (SCALE - 1)) * COARSE
    }
}

#[cfg(all(test, not(larder_shuttle)))]
mod tests {
    use super::*;

    const YEAR: u64 = 365 * 24 * 3600 * 1_000_000_000;

    #[test]
    fn says_what_it_was_told() {
        let mut header = EntryHeader::new(7, 3, 1_000_000_000, true);
        for n in 0..9 {
            assert_eq!(header.hits(), 5.min(n));
            header.hit(5);
        }
        assert_eq!((header.hash(), header.epoch()), (7, 3));
        assert_eq!(
            (header.check_at(), header.is_tagged()),
            (1_000_000_000, true)
        );
        assert_eq!(header.queue(), 0);
        header.set_queue(3, 2);
        assert_eq!((header.hash(), header.epoch()), (7, 3));
        header.renew(EntryHeader::new(u32::MAX, MAX_EPOCH, NEVER, false));
        assert_eq!(header.queue(), 3);
        assert_eq!(
            (header.hash(), header.epoch()),
            (7, MAX_EPOCH),
            "the hash stays"
        );
        assert_eq!((header.check_at(), header.is_tagged()), (NEVER, false));
        for own in [true, false] {
            header.set_own_ttl(own);
            assert_eq!(
                (header.has_own_ttl(), header.epoch(), header.hash()),
                (own, MAX_EPOCH, 7)
            );
        }
        header.set_check_at(20_000);
        assert_eq!((header.check_at(), header.hits()), (20_000, 2));
        assert_eq!(header.epoch(), MAX_EPOCH);
        assert_eq!(EntryHeader::new(u32::MAX, 0, 0, false).hash(), u32::MAX);
    }

    #[test]
    fn a_deadline_is_never_late_and_hardly_early() {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..100_000 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let moment = seed >> (seed % 50);
            let kept = expand(compact(moment));
            let lost = if moment < 5 * YEAR { FINE } else { COARSE };
            assert!(kept <= moment && moment - kept < lost, "{moment} {kept}");
        }
        assert_eq!(expand(compact(NEVER)), NEVER);
        // From the fine units to the coarse ones, too, a later moment is never kept as an earlier one.
        let edge = SCALE * FINE;
        let mut before = expand(compact(edge - 3 * FINE));
        for moment in (edge - 3 * FINE..edge + 3 * COARSE).step_by(FINE as usize / 7) {
            let kept = expand(compact(moment));
            assert!(kept >= before && kept <= moment, "{moment}");
            before = kept;
        }
        let last = expand(compact(NEVER - 1));
        assert!(last < NEVER && NEVER - last <= 2 * COARSE);
    }

    #[test]
    fn what_clears_the_bar_is_alive() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let mut cleared = 0;
        for _ in 0..100_000 {
            let moment = next() >> (next() % 50);
            let check_at = match next() % 4 {
                0 => NEVER,
                1 => moment.saturating_add(next() >> (next() % 63 + 1)),
                _ => moment
                    .saturating_add(next() % (3 * FINE))
                    .saturating_sub(FINE),
            };
            let (min_epoch, epoch) = (next() % 3, next() % 3);
            let mut header = EntryHeader::new(1, epoch, check_at, next() % 8 == 0);
            header.set_own_ttl(next() % 2 == 0);
            let is_surely_live = header.is_surely_live(LivenessBound::new(min_epoch, moment));
            let alive = epoch >= min_epoch && header.check_at() > moment;
            assert!(!is_surely_live || alive, "{moment} {check_at}");
            let far = check_at == NEVER || check_at / 2 > moment.saturating_add(COARSE);
            assert!(is_surely_live || !(alive && far), "{moment} {check_at}");
            cleared += u32::from(is_surely_live);
        }
        assert!(cleared > 20_000, "{cleared}");
    }

    #[test]
    fn leaves_room_for_a_mark_of_absence() {
        assert_eq!(size_of::<EntryHeader>(), 16);
        assert_eq!(size_of::<Option<EntryHeader>>(), 16);
    }
}
