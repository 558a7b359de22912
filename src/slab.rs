//! The entries of one shard, addressed by `u32`: boxed blocks of slots, each block with a free list of
//! its own.
//!
//! # Invariants
//! * A block's free list links exactly its vacant slots; `live` counts the others.
//! * A block stands in `partial` once, and only while it has a vacant slot (a block without memory has
//!   nothing but vacant ones).
//! * An address stays an entry's own until the entry is removed; then it may be given out again.
//!
//! # Cost
//! Insertion and removal touch one block. Growing allocates one block of 64 slots; a block whose last
//! entry left is freed, except that one empty block is kept so that a cache which hovers around a
//! block's edge does not allocate at every turn.

use crate::entry::Entry;
use crate::removal::contain_drop;

const BLOCK: usize = 64;
/// The end of a free list.
const END: u8 = BLOCK as u8;

/// The slab is full: every 32-bit address is taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

enum Slot<K, V> {
    Vacant { next: u8 },
    Taken(Entry<K, V>),
}

struct Block<K, V> {
    slots: Option<Box<[Slot<K, V>]>>,
    free: u8,
    live: u8,
}

pub(crate) struct Slab<K, V> {
    blocks: Vec<Block<K, V>>,
    partial: Vec<u32>,
    len: u32,
    /// Blocks that have memory and no entry.
    empty: u32,
}

impl<K, V> Slab<K, V> {
    pub(crate) fn new() -> Self {
        Slab {
            blocks: Vec::new(),
            partial: Vec::new(),
            len: 0,
            empty: 0,
        }
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// One above the highest address that may hold an entry.
    pub(crate) fn end(&self) -> u32 {
        (self.blocks.len() * BLOCK) as u32
    }

    #[inline]
    pub(crate) fn get(&self, id: u32) -> Option<&Entry<K, V>> {
        let block = self.blocks.get(id as usize / BLOCK)?;
        match &block.slots.as_ref()?[id as usize % BLOCK] {
            Slot::Taken(entry) => Some(entry),
            Slot::Vacant { .. } => None,
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut Entry<K, V>> {
        let block = self.blocks.get_mut(id as usize / BLOCK)?;
        match &mut block.slots.as_mut()?[id as usize % BLOCK] {
            Slot::Taken(entry) => Some(entry),
            Slot::Vacant { .. } => None,
        }
    }

    /// Makes sure that the next insertion succeeds.
    pub(crate) fn reserve(&mut self) -> Result<(), Full> {
        if self.partial.is_empty() {
            // u32::MAX is not an address: lists end with it.
            if self.blocks.len() >= (u32::MAX as usize) / BLOCK {
                return Err(Full);
            }
            self.partial.push(self.blocks.len() as u32);
            self.blocks.push(Block {
                slots: None,
                free: 0,
                live: 0,
            });
        }
        Ok(())
    }

    /// Stores an entry, or hands it back if the slab is full.
    pub(crate) fn insert(&mut self, entry: Entry<K, V>) -> Result<u32, Entry<K, V>> {
        if self.reserve() == Err(Full) {
            return Err(entry);
        }
        let Some(&number) = self.partial.last() else {
            return Err(entry);
        };
        let block = &mut self.blocks[number as usize];
        if block.slots.is_none() {
            self.empty += 1;
            block.free = 0;
        }
        let slots = block.slots.get_or_insert_with(new_slots);
        let place = block.free as usize;
        if let Slot::Vacant { next } = slots[place] {
            block.free = next;
        }
        slots[place] = Slot::Taken(entry);
        if block.live == 0 {
            self.empty -= 1;
        }
        block.live += 1;
        if block.free == END {
            self.partial.pop();
        }
        self.len += 1;
        Ok(number * BLOCK as u32 + place as u32)
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, id: u32) -> Option<Entry<K, V>> {
        let number = id as usize / BLOCK;
        let block = self.blocks.get_mut(number)?;
        let slot = &mut block.slots.as_mut()?[id as usize % BLOCK];
        if matches!(slot, Slot::Vacant { .. }) {
            return None;
        }
        let was_full = block.free == END;
        let vacant = Slot::Vacant { next: block.free };
        let Slot::Taken(entry) = std::mem::replace(slot, vacant) else {
            return None;
        };
        block.free = (id as usize % BLOCK) as u8;
        block.live -= 1;
        self.len -= 1;
        if block.live == 0 {
            if self.empty == 0 {
                self.empty = 1;
            } else {
                block.slots = None;
                block.free = 0;
            }
        }
        if was_full {
            self.partial.push(number as u32);
        }
        Some(entry)
    }

    #[cfg(any(test, debug_assertions))]
    /// Every entry with its address, in order of address.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Entry<K, V>)> {
        (0..self.end()).filter_map(|id| Some((id, self.get(id)?)))
    }
}

/// Drops the entries one by one: were two of them to panic in one go, the process would end.
impl<K, V> Drop for Slab<K, V> {
    fn drop(&mut self) {
        if !std::mem::needs_drop::<(K, V)>() {
            return;
        }
        for block in self.blocks.drain(..) {
            for slot in block.slots.into_iter().flatten() {
                if let Slot::Taken(entry) = slot {
                    contain_drop(entry.key);
                    contain_drop(entry.value);
                }
            }
        }
    }
}

fn new_slots<K, V>() -> Box<[Slot<K, V>]> {
    (1..=BLOCK)
        .map(|next| Slot::Vacant { next: next as u8 })
        .collect()
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
                .filter(|&&p| p as usize == number)
                .count();
            let Some(slots) = &block.slots else {
                assert_eq!(
                    (block.live, block.free, partial),
                    (0, 0, 1),
                    "block {number}"
                );
                continue;
            };
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
                    free <= BLOCK,
                    "block {number} has a circle in its free list"
                );
                at = next;
            }
            assert_eq!(live + free, BLOCK, "block {number} lost a slot");
            assert_eq!(live, block.live as usize, "block {number} miscounts");
            assert_eq!(partial, usize::from(free > 0), "block {number} in partial");
            empty += u32::from(live == 0);
            len += live as u32;
        }
        assert_eq!((len, empty), (self.len, self.empty), "totals");
        assert!(empty <= 1, "{empty} empty blocks kept");
    }
}

#[cfg(all(test, not(larder_shuttle)))]
mod tests {
    use super::*;
    use crate::sync::atomic::AtomicU8;
    use std::collections::HashMap;

    fn entry(value: u64) -> Entry<u64, u64> {
        Entry {
            key: value,
            value,
            expires_at: 0,
            born: 0,
            hash: 0,
            namespace: 0,
            version: 0,
            hits: AtomicU8::new(0),
            tagged: false,
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
                assert_eq!(slab.remove(id).map(|entry| entry.value), model.remove(&id));
                assert!(slab.remove(id).is_none());
            }
            if step % 64 == 0 {
                slab.validate();
            }
        }
        for (&id, &value) in &model {
            assert_eq!(slab.get(id).map(|entry| entry.value), Some(value));
        }
        assert_eq!(slab.iter().count(), model.len());
        for id in model.into_keys() {
            assert!(slab.remove(id).is_some());
        }
        slab.validate();
        assert_eq!(
            slab.blocks
                .iter()
                .filter(|block| block.slots.is_some())
                .count(),
            1
        );
    }
}
