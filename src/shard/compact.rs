//! Compaction: the entries of a shard that has lost many move together, and the blocks that become empty are freed.
//!
//! A block of slots is freed when its last entry leaves. Entries leave in no order, so a shard that has lost nine in
//! ten may hold all of its blocks for the tenth. While the slab is *fragmented* (its entries would fit its blocks but
//! the topmost with a quarter to spare), each critical section that has nothing else to do moves a few entries of the
//! topmost block to the lowest free slots. When that block is empty, its part of the side tables is freed, too.
//!
//! An entry that moves keeps all that it has but its address, which nobody remembers from one critical section to the
//! next, except a scan over all slots: while one is under way, the store does not call this.
//!
//! # Invariants
//! * Nothing but the timer wheel and the list of cleared entries refers to an address beyond the slab's end; the
//!   wheel's part is taken off it before the memory goes.
//! * Entries move downwards only, so the index has room for their addresses.
//!
//! # Cost
//! At most [`MOST_MOVES`] entries moved (fewer if they are large), [`LOOKS`] slots looked at and [`GIVES`] chunks freed
//! in a critical section. A fragmented shard has lost at least a quarter of a block's entries for each block that it
//! gives up.

use super::Shard;
use super::side_tables::PolicyView;
use crate::entry::Entry;
use crate::policy::Policy;

/// The most entries that one critical section moves, however small they are.
const MOST_MOVES: usize = 16;
/// The most bytes of entries that one critical section moves, unless a single one is larger.
const MOVED_BYTES: usize = 16 << 10;
/// The most slots and blocks that one critical section looks at for them.
const LOOKS: u32 = 128;
/// The most chunks that one critical section frees, and places on the timer wheel that it clears.
const GIVES: u32 = 32;

impl<K, V> Shard<K, V> {
    /// Whether `compact` could move entries together, or free memory of the side tables.
    #[inline]
    pub(crate) fn is_fragmented(&self) -> bool {
        self.slab.is_fragmented() || self.compaction.trims
    }

    /// Entries of this size that one critical section moves.
    const MOVES: u32 = match MOVED_BYTES / size_of::<Entry<K, V>>() {
        0 => 1,
        few if few < MOST_MOVES => few as u32,
        _ => MOST_MOVES as u32,
    };

    /// Moves a few entries out of the topmost block, and frees some of the side tables of blocks that have
    /// none. Returns how many it moved.
    #[cold]
    pub(crate) fn compact(&mut self) -> u32 {
        if self.cleared.entries > 0 {
            // They are swept first.
            return 0;
        }
        let (mut looks, mut moves) = (LOOKS, Self::MOVES);
        while looks > 0 && moves > 0 && self.slab.is_fragmented() {
            looks -= 1;
            if self.slab.lower() {
                self.compaction.trims = true;
                continue;
            }
            let block = self.slab.topmost();
            let from = match self.compaction.looked_from.checked_sub(1) {
                Some(from) if block.contains(&from) => from,
                _ => block.end - 1,
            };
            self.compaction.looked_from = from;
            moves -= u32::from(self.relocate(from));
        }
        if self.compaction.trims {
            let mut budget = GIVES;
            let end = self.slab.end();
            self.policy.truncate(end, &mut budget);
            self.wheel.truncate(end, &mut budget);
            self.side_tables.truncate(end, &mut budget);
            self.compaction.trims = budget == 0;
        }
        Self::MOVES - moves
    }

    /// Moves the entry at `from`, in the topmost block of a fragmented slab, downwards; whether there is one.
    fn relocate(&mut self, from: u32) -> bool {
        let Some(entry) = self.slab.get(from) else {
            return false;
        };
        let (hash, check_at) = (entry.header.hash(), entry.header.check_at());
        let Some(to) = self.slab.relocate(from) else {
            return false;
        };
        self.index.relocate(hash, from, to);
        self.side_tables.relocate(from, to);
        let slots = PolicyView {
            slab: &mut self.slab,
            side_tables: &self.side_tables,
        };
        self.policy.relocate(from, to, &slots);
        let due = self.side_tables.reclaim_at(to, check_at);
        self.wheel.relocate(from, to, due);
        true
    }
}
