//! A vector of fixed-size chunks, addressed by id.
//!
//! Growing adds a chunk and shrinking frees chunks; elements never move, so no
//! call copies more than the directory of chunk pointers (8 bytes for every
//! 256 elements). Chunks come into being only where an id was reserved: a hole
//! in the ids in use costs one null pointer per chunk.
//!
//! # Invariants
//!
//! - The last directory entry is always an allocated chunk, so `len` is the end
//!   of the highest chunk in use.
//! - `chunks_live` is the number of allocated chunks.
//!
//! # Cost
//!
//! `get`: the chunk's pointer, then the element. `reserve_for`: at most one
//! allocation of 256 elements, plus the directory when it has to grow.
//! `truncate`: one deallocation per chunk freed, of which the caller says how many
//! it can bear.

/// Elements in a chunk. Large enough for the directory to stay in cache
/// (4 KiB per 131 072 elements), small enough to fill at once.
const CHUNK: usize = 256;

/// A chunk whose length the compiler knows: no second bounds check.
type Chunk<T> = Box<[T; CHUNK]>;

/// A growable array of `T` that never moves its elements.
#[derive(Debug)]
pub(crate) struct ChunkedVec<T> {
    chunks: Vec<Option<Chunk<T>>>,
    chunks_live: usize,
}

impl<T: Default> ChunkedVec<T> {
    /// An empty array; allocates nothing.
    pub(crate) const fn new() -> Self {
        Self {
            chunks: Vec::new(),
            chunks_live: 0,
        }
    }

    /// The end of the highest chunk in use: ids from here on are absent.
    pub(crate) fn len(&self) -> u64 {
        (self.chunks.len() * CHUNK) as u64
    }

    /// The first id of the highest chunk in use.
    pub(crate) fn last_chunk(&self) -> u32 {
        (self.chunks.len().saturating_sub(1) * CHUNK) as u32
    }

    /// Takes the element of `from` over to `to`: the default, if it is absent.
    pub(crate) fn relocate(&mut self, from: u32, to: u32) {
        if self.try_get(from).is_some() {
            self.reserve_for(to);
            *self.get_mut(to) = std::mem::take(self.get_mut(from));
        } else if self.try_get(to).is_some() {
            *self.get_mut(to) = T::default();
        }
    }

    /// The element of a reserved id.
    #[inline]
    pub(crate) fn get(&self, id: u32) -> &T {
        self.try_get(id).expect("id was never reserved")
    }

    /// The element, if the id's chunk exists.
    #[inline]
    pub(crate) fn try_get(&self, id: u32) -> Option<&T> {
        let (chunk, at) = split(id);
        match self.chunks.get(chunk) {
            Some(Some(chunk)) => Some(&chunk[at]),
            _ => None,
        }
    }

    /// The element of a reserved id, to change.
    #[inline]
    pub(crate) fn get_mut(&mut self, id: u32) -> &mut T {
        let (chunk, at) = split(id);
        match self.chunks.get_mut(chunk) {
            Some(Some(chunk)) => &mut chunk[at],
            _ => panic!("id was never reserved"),
        }
    }

    /// Asks for the memory of the element.
    #[inline]
    pub(crate) fn prefetch(&self, id: u32) {
        if let Some(element) = self.try_get(id) {
            crate::util::cpu::prefetch(element);
        }
    }

    /// Makes the id's element exist; a new chunk is filled with defaults.
    #[inline]
    pub(crate) fn reserve_for(&mut self, id: u32) {
        let (chunk, _) = split(id);
        if !matches!(self.chunks.get(chunk), Some(Some(_))) {
            self.add_chunk(chunk);
        }
    }

    #[cold]
    fn add_chunk(&mut self, chunk: usize) {
        // Made before the directory changes: should it panic, nothing did.
        let new = new_chunk();
        if self.chunks.len() <= chunk {
            self.chunks.resize_with(chunk + 1, || None);
        }
        self.chunks[chunk] = Some(new);
        self.chunks_live += 1;
    }

    /// Whether there is one chunk at most.
    #[inline]
    pub(crate) fn is_small(&self) -> bool {
        self.chunks_live <= 1
    }

    /// Frees chunks that hold only ids of `len` and above, at most `budget` of them, from which they are
    /// taken. Elements kept in the last chunk keep their values.
    pub(crate) fn truncate(&mut self, len: u32, budget: &mut u32) {
        let keep = (len as usize).div_ceil(CHUNK);
        loop {
            match self.chunks.last() {
                Some(Some(_)) if self.chunks.len() > keep && *budget > 0 => {
                    self.chunks_live -= 1;
                    *budget -= 1;
                }
                Some(None) => {}
                _ => break,
            }
            self.chunks.pop();
        }
        if self.chunks.capacity() > 8 && self.chunks.len() * 4 < self.chunks.capacity() {
            self.chunks.shrink_to(self.chunks.len() * 2);
        }
    }

    /// Bytes allocated, without what the elements own themselves.
    #[cfg(test)]
    pub(crate) fn heap_bytes(&self) -> usize {
        self.chunks_live * size_of::<[T; CHUNK]>()
            + self.chunks.capacity() * size_of::<Option<Chunk<T>>>()
    }

    /// Panics if an invariant is broken.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn validate(&self) {
        let live = self.chunks.iter().flatten().count();
        assert_eq!(live, self.chunks_live, "steps: count of chunks");
        assert!(
            !matches!(self.chunks.last(), Some(None)),
            "steps: the last chunk is absent"
        );
    }
}

#[inline]
fn split(id: u32) -> (usize, usize) {
    (id as usize / CHUNK, id as usize % CHUNK)
}

/// Built on the heap, as an array literal would go through the stack.
fn new_chunk<T: Default>() -> Chunk<T> {
    let chunk: Box<[T]> = (0..CHUNK).map(|_| T::default()).collect();
    match chunk.try_into() {
        Ok(chunk) => chunk,
        Err(_) => unreachable!("collected exactly CHUNK elements"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_keeps_and_gives_back() {
        let mut steps: ChunkedVec<u64> = ChunkedVec::new();
        assert_eq!(steps.heap_bytes(), 0);
        assert!(steps.try_get(0).is_none());
        for id in 0..10_000 {
            steps.reserve_for(id);
            *steps.get_mut(id) = u64::from(id) * 3;
        }
        steps.validate();
        assert!((0..10_000).all(|id| *steps.get(id) == u64::from(id) * 3));
        let full = steps.heap_bytes();
        // A few chunks a call: 40 are there, and 2 stay.
        let mut calls = 0;
        while steps.len() > 512 {
            let (mut budget, before) = (8, steps.len());
            steps.truncate(300, &mut budget);
            steps.validate();
            assert_eq!(before - steps.len(), 256 * u64::from(8 - budget));
            calls += 1;
        }
        assert_eq!(calls, 5);
        assert_eq!(steps.len(), 512);
        assert_eq!(*steps.get(299), 897);
        steps.relocate(299, 100);
        assert_eq!((*steps.get(100), *steps.get(299)), (897, 0));
        // What is absent is the default, and nothing is made for it.
        steps.relocate(5_000, 100);
        assert_eq!((*steps.get(100), steps.len()), (0, 512));
        assert!(steps.try_get(512).is_none());
        assert!(steps.heap_bytes() * 10 < full);
        let mut budget = 5;
        steps.truncate(0, &mut budget);
        steps.validate();
        assert_eq!(budget, 3);
        assert_eq!(steps.len(), 0);
    }

    #[test]
    fn a_hole_costs_no_chunk() {
        let mut steps: ChunkedVec<u32> = ChunkedVec::new();
        steps.reserve_for(100_000);
        steps.reserve_for(5);
        steps.validate();
        assert!(steps.heap_bytes() < 8_000);
        assert!(steps.try_get(50_000).is_none());
        assert_eq!(*steps.get(100_000), 0);
        // The chunk below the one freed is a hole: it goes as well.
        let mut budget = 1;
        steps.truncate(100_000 - 256, &mut budget);
        steps.validate();
        assert_eq!(steps.len(), 256);
    }
}
