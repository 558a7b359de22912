//! What an eviction policy does, and what it needs to know of the entries.
//!
//! # Invariants
//!
//! - The owner asks where a new entry goes (`admit`), notes the answer in its slot,
//!   and calls `insert` with it; until `remove`, `victim` or `clear_all` the entry is
//!   *live*. After `clear_all` it is *cleared* until
//!   `remove_cleared` or `pop_cleared`. The owner knows which it is, and calls
//!   nothing else for a cleared entry.
//! - `Slots::weight` of a live id is what it was at `insert`, or at the last
//!   `reweigh`, as `new`. (`reweigh` may come before or after the change.)
//! - The weights of all live entries add up to less than 2^64.
//!
//! # Cost
//!
//! Every call is O(1), with constants stated by the algorithms.

// The policies behind one type.
pub(crate) mod any;

// Recency alone; reads need the write lock.
pub(crate) mod lru;

// Queues and second chances; reads need no lock.
pub(crate) mod s3fifo;

// The shares of the queues of S3-FIFO.
pub(crate) mod settings;

// Counts and shares of queues.
pub(crate) mod usage;

use crate::ds::list::{Links, NIL};
use crate::policy::usage::Usage;

/// The most hits counted: a counter at this value stays.
pub(crate) const MAX_HITS: u8 = 5;

/// The owner's slots, by id.
pub(crate) trait Slots {
    /// What the policy goes by.
    fn view(&self, id: u32) -> EntryView;

    /// The policy's own note on the entry, 0 to 3.
    fn queue(&self, id: u32) -> u8;

    /// Sets the policy's note, and the hits.
    fn set_queue(&mut self, id: u32, queue: u8, hits: u8);

    /// What the entry takes of the shard's capacity.
    fn weight(&self, id: u32) -> u64;
}

/// Entries that will be looked at soon, if nothing else comes between: those who can should fetch them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PrefetchHint {
    /// What `victim` looks at next.
    pub(crate) next: u32,
    /// What it looks at after that.
    pub(crate) second: u32,
    /// The entry whose queue the next insertion changes.
    pub(crate) marked: u32,
}

impl Default for PrefetchHint {
    fn default() -> Self {
        Self {
            next: NIL,
            second: NIL,
            marked: NIL,
        }
    }
}

/// What a policy sees of an entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryView {
    /// Hits since they were last set, at most [`MAX_HITS`].
    pub(crate) hits: u8,
    pub(crate) weight: u64,
    /// The key's hash, as the index has it.
    pub(crate) hash: u32,
}

/// An eviction policy.
pub(crate) trait Policy {
    /// The note to put into the slot of a new entry with this hash.
    fn admit(&mut self, hash: u32) -> u8;

    /// A new entry came, without hits, with what `admit` just said noted in its slot.
    fn insert(&mut self, id: u32, queue: u8, weight: u64, slots: &mut impl Slots);

    /// A live entry goes for another reason than eviction. Its weight is still
    /// the one it has here.
    fn remove(&mut self, id: u32, slots: &impl Slots);

    /// A live entry was read. Only for policies that need telling.
    fn hit(&mut self, id: u32);

    /// Asks for the memory that `insert`, or `victim` when it takes such an entry, will look at.
    fn prefetch(&self, _hash: u32) {}

    /// The entries that the next calls may look at; `NIL` for none.
    fn prefetch_hint(&self) -> PrefetchHint {
        PrefetchHint::default()
    }

    /// Chooses the entry to evict and takes it out; `None` if there is none.
    fn victim(&mut self, slots: &mut impl Slots) -> Option<(u32, EntryView)>;

    /// A live entry's weight changes from `old` to `new`.
    fn reweigh(&mut self, id: u32, old: u64, new: u64, slots: &impl Slots);

    /// A live entry is at another id from now on, where its slot is already.
    fn relocate(&mut self, from: u32, to: u32, slots: &impl Slots);

    /// All live entries become cleared ones.
    fn clear_all(&mut self);

    /// Takes out some cleared entry.
    fn pop_cleared(&mut self) -> Option<u32>;

    /// Takes out this cleared entry.
    fn remove_cleared(&mut self, id: u32);

    /// The limits the owner keeps: entries and weight, [`usage::UNLIMITED`] if not kept.
    fn resize(&mut self, max_entries: u64, max_weight: u64);

    /// Whether it has little memory to give back.
    fn is_small(&self) -> bool;

    /// Gives back what is kept for ids from `len` on, none of which is in use: at most `budget` chunks.
    fn truncate(&mut self, len: u32, budget: &mut u32);

    /// Gives up the links: no id is in use.
    fn take_links(&mut self) -> Links;

    /// All live entries, and what they weigh together.
    fn live(&self) -> Usage;

    /// How full the queues are.
    fn queue_lens(&self) -> QueueLens;

    /// Panics if an invariant is broken; `live` are all live ids.
    #[cfg(any(test, debug_assertions))]
    fn validate(&self, slots: &impl Slots, live: impl Iterator<Item = u32>);
}

/// Entries per queue; those an algorithm does not have are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueLens {
    /// Newest entries, whose hits do not count yet.
    pub(crate) fresh: u32,
    /// Entries on probation.
    pub(crate) small: u32,
    /// Entries that proved themselves (LRU: all).
    pub(crate) main: u32,
    /// Entries cleared away but not yet taken out.
    pub(crate) cleared: u32,
    /// Evicted hashes remembered at most.
    pub(crate) ghosts: u32,
}
