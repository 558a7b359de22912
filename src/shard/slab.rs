//! The entries of one shard, addressed by `u32`: blocks of slots, each block with a free list of its own.
//!
//! # Invariants
//! * A block's free list links exactly its vacant slots; there are none beyond its length. `live` counts the
//!   taken ones.
//! * A block is in `partial` once, and only while it has a vacant or an unused slot (a block without
//!   memory has nothing but unused ones).
//! * An address stays an entry's own until the entry is removed; then it may be given out again. Of all blocks
//!   with room, the lowest one gets a new entry.
//! * Every entry is in a block below `top`.
//!
//! # Cost
//! Insertion and removal touch one block. A block is up to 64 KiB of slots, so large that the directory of
//! blocks stays in the nearest cache; it grows by eighths (the first one of a shard by doubling before, so
//! that a small cache stays small), which moves at most 56 KiB of entries. A block whose last entry left is
//! freed, except that one empty block keeps an eighth so that a cache which hovers around a block's edge does
//! not allocate at every turn.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use crate::ds::index::MOST_ID;
use crate::entry::Entry;
use crate::entry::removal::drop_catching;
use crate::util::cpu::prefetch;
use crate::util::sync::note_slot;

/// The bytes that a block aims at.
const BLOCK_BYTES: usize = 64 << 10;
/// The most slots of a block, of however few bytes each.
const MOST_SLOTS: usize = 2048;
/// The least, of however many.
const LEAST_SLOTS: usize = 64;
/// Slots that the first block starts with.
const FIRST: usize = 8;
/// The end of a free list.
const END: u16 = u16::MAX;

/// The slab is full: every address that the index can hold is taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

enum Slot<K, V> {
    Vacant { next: u16 },
    Taken(Entry<K, V>),
}

struct Block<K, V> {
    slots: Vec<Slot<K, V>>,
    free: u16,
    live: u16,
}

impl<K, V> Block<K, V> {
    const EMPTY: Self = Block {
        slots: Vec::new(),
        free: END,
        live: 0,
    };

    fn is_full(&self) -> bool {
        self.live as usize == Slab::<K, V>::BLOCK
    }
}

pub(crate) struct Slab<K, V> {
    blocks: Vec<Block<K, V>>,
    /// The lowest first.
    partial: BinaryHeap<Reverse<u32>>,
    len: u32,
    /// One above the highest block that may hold an entry.
    top: u32,
    /// The slab is loose while it has fewer entries than this.
    fragmented_below: u32,
    /// Blocks that have memory and no entry.
    empty: u32,
}

impl<K, V> Slab<K, V> {
    /// How many slots a block has: a power of two.
    pub(crate) const BLOCK: usize = {
        let fitting = BLOCK_BYTES / size_of::<Slot<K, V>>();
        if fitting > MOST_SLOTS {
            MOST_SLOTS
        } else if fitting < LEAST_SLOTS {
            LEAST_SLOTS
        } else {
            1 << fitting.ilog2()
        }
    };

    /// How many it grows by.
    const PART: usize = Self::BLOCK / 8;

    pub(crate) fn new() -> Self {
        Slab {
            blocks: Vec::new(),
            partial: BinaryHeap::new(),
            len: 0,
            top: 0,
            fragmented_below: 0,
            empty: 0,
        }
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// One above the highest address that may hold an entry.
    pub(crate) fn end(&self) -> u32 {
        self.top * Self::BLOCK as u32
    }

    /// Whether the entries would fit the blocks but the topmost, and leave a quarter of them free.
    #[inline]
    pub(crate) fn is_fragmented(&self) -> bool {
        self.len < self.fragmented_below
    }

    /// The addresses of the topmost block that may hold an entry.
    pub(crate) fn topmost(&self) -> Range<u32> {
        let end = self.end();
        end.saturating_sub(Self::BLOCK as u32)..end
    }

    /// Lets go of the topmost block if it has no entry; whether it has none.
    pub(crate) fn lower(&mut self) -> bool {
        let below = self.top.saturating_sub(1);
        let empty = self
            .blocks
            .get(below as usize)
            .is_some_and(|block| block.live == 0);
        if empty {
            self.set_top(below);
        }
        empty
    }

    fn set_top(&mut self, top: u32) {
        self.top = top;
        self.fragmented_below = top.saturating_sub(1) * (Self::BLOCK / 4 * 3) as u32;
    }

    /// Moves an entry of a fragmented slab to the lowest block with room, and returns its new address, which is
    /// below all of the topmost block; `None` if there is no entry.
    pub(crate) fn relocate(&mut self, id: u32) -> Option<u32> {
        let entry = self.remove(id)?;
        // As it has just given up a place, there is one.
        self.insert(entry).ok()
    }

    #[inline]
    pub(crate) fn get(&self, id: u32) -> Option<&Entry<K, V>> {
        note_slot();
        let block = self.blocks.get(id as usize / Self::BLOCK)?;
        match block.slots.get(id as usize % Self::BLOCK)? {
            Slot::Taken(entry) => Some(entry),
            Slot::Vacant { .. } => None,
        }
    }

    /// Asks for the memory of a slot.
    #[inline]
    pub(crate) fn prefetch(&self, id: u32) {
        let block = self.blocks.get(id as usize / Self::BLOCK);
        if let Some(slot) = block.and_then(|block| block.slots.get(id as usize % Self::BLOCK)) {
            prefetch(slot);
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut Entry<K, V>> {
        note_slot();
        let block = self.blocks.get_mut(id as usize / Self::BLOCK)?;
        match block.slots.get_mut(id as usize % Self::BLOCK)? {
            Slot::Taken(entry) => Some(entry),
            Slot::Vacant { .. } => None,
        }
    }

    /// Makes sure that the next insertion finds a block.
    #[cold]
    fn add_block(&mut self) -> Result<(), Full> {
        if self.blocks.len() > (MOST_ID as usize - Self::BLOCK) / Self::BLOCK {
            return Err(Full);
        }
        self.partial.push(Reverse(self.blocks.len() as u32));
        self.blocks.push(Block::EMPTY);
        Ok(())
    }

    /// Stores an entry, or hands it back if the slab is full.
    #[inline]
    pub(crate) fn insert(&mut self, entry: Entry<K, V>) -> Result<u32, Entry<K, V>> {
        note_slot();
        if self.partial.is_empty() && self.add_block() == Err(Full) {
            return Err(entry);
        }
        let Some(&Reverse(number)) = self.partial.peek() else {
            return Err(entry);
        };
        let block = &mut self.blocks[number as usize];
        let place = match block.slots.get_mut(block.free as usize) {
            Some(slot) => {
                let place = block.free;
                if let Slot::Vacant { next } = *slot {
                    block.free = next;
                }
                *slot = Slot::Taken(entry);
                place
            }
            None => {
                if block.slots.len() == block.slots.capacity() {
                    self.empty += u32::from(block.slots.is_empty());
                    grow(&mut block.slots, number);
                }
                block.slots.push(Slot::Taken(entry));
                (block.slots.len() - 1) as u16
            }
        };
        let first = block.live == 0;
        block.live += 1;
        if block.is_full() {
            self.partial.pop();
        }
        if first {
            self.empty -= 1;
            if number >= self.top {
                self.set_top(number + 1);
            }
        }
        self.len += 1;
        Ok(number * Self::BLOCK as u32 + u32::from(place))
    }

    /// Puts an entry in the place of another, which it returns.
    #[inline]
    pub(crate) fn replace(
        &mut self,
        id: u32,
        entry: Entry<K, V>,
    ) -> Result<Entry<K, V>, Entry<K, V>> {
        match self.get_mut(id) {
            Some(old) => Ok(std::mem::replace(old, entry)),
            None => Err(entry),
        }
    }

    /// Takes an entry out.
    #[inline]
    pub(crate) fn remove(&mut self, id: u32) -> Option<Entry<K, V>> {
        note_slot();
        let number = id as usize / Self::BLOCK;
        let block = self.blocks.get_mut(number)?;
        let was_full = block.is_full();
        let slot = block.slots.get_mut(id as usize % Self::BLOCK)?;
        if matches!(slot, Slot::Vacant { .. }) {
            return None;
        }
        let vacant = Slot::Vacant { next: block.free };
        let Slot::Taken(entry) = std::mem::replace(slot, vacant) else {
            return None;
        };
        block.free = (id as usize % Self::BLOCK) as u16;
        block.live -= 1;
        self.len -= 1;
        if was_full {
            self.partial.push(Reverse(number as u32));
        }
        if block.live == 0 {
            self.emptied(number);
        }
        Some(entry)
    }

    /// A block has no entry any more: keeps a part of its memory if it is the only one such.
    #[cold]
    fn emptied(&mut self, number: usize) {
        let block = &mut self.blocks[number];
        let mut slots = std::mem::replace(block, Block::EMPTY).slots;
        if self.empty == 0 {
            self.empty = 1;
            slots.clear();
            slots.shrink_to(Self::PART);
            block.slots = slots;
        }
    }

    #[cfg(any(test, debug_assertions))]
    /// Every entry with its address, in order of address.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Entry<K, V>)> {
        (0..self.end()).filter_map(|id| Some((id, self.get(id)?)))
    }
}

/// Room for more slots, never for more than a block's worth.
#[cold]
fn grow<K, V>(slots: &mut Vec<Slot<K, V>>, number: u32) {
    let part = Slab::<K, V>::PART;
    let more = if number == 0 && slots.len() < part {
        slots.len().max(FIRST)
    } else {
        part
    };
    slots.reserve_exact(more);
}

/// Drops the entries one by one: were two of them to panic in one go, the process would end.
impl<K, V> Drop for Slab<K, V> {
    fn drop(&mut self) {
        if !std::mem::needs_drop::<(K, V)>() {
            return;
        }
        for block in self.blocks.drain(..) {
            for slot in block.slots {
                if let Slot::Taken(entry) = slot {
                    drop_catching(entry.key);
                    drop_catching(entry.value);
                }
            }
        }
    }
}

#[cfg(any(test, debug_assertions))]
impl<K, V> Slab<K, V> {
    /// Recounts everything from the slots. Panics where a count or a list disagrees.
    pub(crate) fn validate(&self) {
        let mut len = 0;
        let mut empty = 0;
        for (number, block) in self.blocks.iter().enumerate() {
            let partial = self
                .partial
                .iter()
                .filter(|&&Reverse(partial)| partial as usize == number)
                .count();
            let slots = &block.slots;
            if slots.capacity() == 0 {
                assert_eq!(
                    (block.live, block.free, partial),
                    (0, END, 1),
                    "block {number}"
                );
                continue;
            }
            let live = slots
                .iter()
                .filter(|slot| matches!(slot, Slot::Taken(_)))
                .count();
            let mut free = 0;
            let mut at = block.free;
            while at != END {
                let Slot::Vacant { next } = slots[at as usize] else {
                    panic!("block {number} lists a taken slot as free");
                };
                free += 1;
                assert!(
                    free <= slots.len(),
                    "block {number} has a circle in its free list"
                );
                at = next;
            }
            assert_eq!(live + free, slots.len(), "block {number} lost a slot");
            assert_eq!(live, block.live as usize, "block {number} miscounts");
            assert_eq!(
                partial,
                usize::from(live < Self::BLOCK),
                "block {number} in partial"
            );
            empty += u32::from(live == 0);
            len += live as u32;
        }
        assert_eq!((len, empty), (self.len, self.empty), "totals");
        let highest = self.blocks.iter().rposition(|block| block.live > 0);
        let least = highest.map_or(0, |number| number + 1);
        assert!(least <= self.top as usize, "an entry above the top");
        let below = (self.top as usize).saturating_sub(1);
        assert_eq!(
            self.fragmented_below as usize,
            below * Self::BLOCK * 3 / 4,
            "when it is loose"
        );
        assert!(empty <= 1, "{empty} empty blocks kept");
    }
}

#[cfg(all(test, not(larder_shuttle)))]
mod tests {
    use super::*;
    use crate::entry::header::EntryHeader;
    use std::collections::HashMap;

    /// So large that a block has 256 of them.
    type Large = [u64; 24];

    fn entry(value: u64) -> Entry<u64, Large> {
        Entry {
            key: value,
            value: [value; 24],
            header: EntryHeader::new(1, 0, 0, false),
        }
    }

    #[test]
    fn agrees_with_a_map_and_gives_its_memory_back() {
        let mut slab = Slab::new();
        let mut model = HashMap::new();
        let mut random = 0x2545_F491u64;
        for step in 0..20_000u64 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // Long phases of growth and of shrinking.
            let grow = (step / 2_500) % 2 == 0;
            if random % 4 < if grow { 3 } else { 1 } {
                let id = slab.insert(entry(step)).unwrap_or_else(|_| panic!("full"));
                assert_eq!(model.insert(id, step), None, "address given out twice");
            } else if let Some(&id) = model.keys().next() {
                assert_eq!(slab.remove(id).map(|entry| entry.key), model.remove(&id));
                assert!(slab.remove(id).is_none());
            }
            if step % 64 == 0 {
                slab.validate();
            }
        }
        for (&id, &value) in &model {
            assert_eq!(slab.get(id).map(|entry| entry.key), Some(value));
        }
        assert_eq!(slab.iter().count(), model.len());
        for id in model.into_keys() {
            assert!(slab.remove(id).is_some());
        }
        slab.validate();
        let kept: Vec<usize> = slab
            .blocks
            .iter()
            .map(|block| block.slots.capacity())
            .filter(|&slots| slots > 0)
            .collect();
        assert_eq!(kept, [Slab::<u64, Large>::PART]);
    }
}
