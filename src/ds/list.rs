//! Doubly linked lists of ids over one shared set of links.
//!
//! An id is in at most one list at a time; the lists share [`Links`] and are
//! themselves three integers.
//!
//! # Invariants
//!
//! - An empty list has both ends [`NIL`].
//! - Walking a list from `head` meets `len` ids and ends at `tail`; each id's
//!   `prev` is the one met before.
//! - The `prev` of the head, the `next` of the tail, and the links of an id in no
//!   list mean nothing: an id leaves an end without a look at its neighbour.
//!
//! # Cost
//!
//! Every operation is O(1), 8 bytes per id; see [`crate::ds::chunked_vec`].

use crate::ds::chunked_vec::ChunkedVec;

/// No id.
pub(crate) const NIL: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    prev: u32,
    next: u32,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            prev: NIL,
            next: NIL,
        }
    }
}

/// The links of all ids, shared by several lists.
#[derive(Debug)]
pub(crate) struct Links {
    nodes: ChunkedVec<Node>,
}

impl Links {
    /// No links; allocates nothing.
    pub(crate) const fn new() -> Self {
        Self {
            nodes: ChunkedVec::new(),
        }
    }

    /// Makes links for `id` exist.
    #[inline]
    pub(crate) fn reserve_for(&mut self, id: u32) {
        self.nodes.reserve_for(id);
    }

    /// Asks for the memory of an id's links.
    #[inline]
    pub(crate) fn prefetch(&self, id: u32) {
        self.nodes.prefetch(id);
    }

    /// Whether they take the least memory that links of any id take.
    #[inline]
    pub(crate) fn is_small(&self) -> bool {
        self.nodes.is_small()
    }

    /// Gives back links of ids from `len` on, which are in no list: at most `budget` chunks of them.
    pub(crate) fn truncate(&mut self, len: u32, budget: &mut u32) {
        self.nodes.truncate(len, budget);
    }

    /// Bytes allocated.
    #[cfg(test)]
    pub(crate) fn heap_bytes(&self) -> usize {
        self.nodes.heap_bytes()
    }

    /// Panics if an invariant is broken.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn validate(&self) {
        self.nodes.validate();
    }
}

/// A list of ids, linked through [`Links`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    head: u32,
    tail: u32,
    len: u32,
}

impl Default for List {
    fn default() -> Self {
        Self::new()
    }
}

impl List {
    /// An empty list.
    pub(crate) const fn new() -> Self {
        Self {
            head: NIL,
            tail: NIL,
            len: 0,
        }
    }

    /// The number of ids.
    #[inline]
    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is no id.
    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.head == NIL
    }

    /// The first id.
    #[inline]
    pub(crate) fn front(&self) -> Option<u32> {
        (self.head != NIL).then_some(self.head)
    }

    /// The last id.
    #[inline]
    pub(crate) fn back(&self) -> Option<u32> {
        (self.tail != NIL).then_some(self.tail)
    }

    /// Puts a reserved id that is in no list first.
    #[inline(always)]
    pub(crate) fn push_front(&mut self, links: &mut Links, id: u32) {
        links.nodes.get_mut(id).next = self.head;
        if self.head == NIL {
            self.tail = id;
        } else {
            links.nodes.get_mut(self.head).prev = id;
        }
        self.head = id;
        self.len += 1;
    }

    /// Puts a reserved id that is in no list last.
    #[inline]
    pub(crate) fn push_back(&mut self, links: &mut Links, id: u32) {
        links.nodes.get_mut(id).prev = self.tail;
        if self.tail == NIL {
            self.head = id;
        } else {
            links.nodes.get_mut(self.tail).next = id;
        }
        self.tail = id;
        self.len += 1;
    }

    /// Takes the last id out.
    #[inline]
    pub(crate) fn pop_back(&mut self, links: &mut Links) -> Option<u32> {
        let id = self.back()?;
        if id == self.head {
            (self.head, self.tail) = (NIL, NIL);
        } else {
            self.tail = links.nodes.get(id).prev;
        }
        self.len -= 1;
        Some(id)
    }

    /// Makes the last id the first; `false` if there is no other.
    #[inline(always)]
    pub(crate) fn rotate(&mut self, links: &mut Links) -> bool {
        let id = self.tail;
        if id == self.head {
            return false;
        }
        let node = links.nodes.get_mut(id);
        node.next = self.head;
        self.tail = node.prev;
        links.nodes.get_mut(self.head).prev = id;
        self.head = id;
        true
    }

    /// Takes out `id`, which must be in this list.
    #[inline]
    pub(crate) fn unlink(&mut self, links: &mut Links, id: u32) {
        if id == self.tail {
            self.pop_back(links);
            return;
        }
        let Node { prev, next } = *links.nodes.get(id);
        if id == self.head {
            self.head = next;
        } else {
            links.nodes.get_mut(prev).next = next;
            links.nodes.get_mut(next).prev = prev;
        }
        self.len -= 1;
    }

    /// Puts `to`, which is in no list, in the place of `from`, which must be in this one.
    pub(crate) fn relocate(&mut self, links: &mut Links, from: u32, to: u32) {
        links.reserve_for(to);
        let node = *links.nodes.get(from);
        *links.nodes.get_mut(to) = node;
        if self.head == from {
            self.head = to;
        } else {
            links.nodes.get_mut(node.prev).next = to;
        }
        if self.tail == from {
            self.tail = to;
        } else {
            links.nodes.get_mut(node.next).prev = to;
        }
    }

    /// The id before `id`, which must be in this list; [`NIL`] if it is the first.
    #[inline]
    pub(crate) fn before(&self, links: &Links, id: u32) -> u32 {
        if id == self.head {
            NIL
        } else {
            links.nodes.get(id).prev
        }
    }

    /// Moves all of `other` behind this list's last id, leaving it empty.
    pub(crate) fn append(&mut self, links: &mut Links, other: &mut List) {
        if other.is_empty() {
            return;
        }
        if self.is_empty() {
            *self = *other;
        } else {
            links.nodes.get_mut(self.tail).next = other.head;
            links.nodes.get_mut(other.head).prev = self.tail;
            self.tail = other.tail;
            self.len += other.len;
        }
        *other = List::new();
    }

    /// The ids from first to last.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn iter<'a>(&self, links: &'a Links) -> impl Iterator<Item = u32> + 'a {
        let (mut at, tail) = (self.head, self.tail);
        std::iter::from_fn(move || {
            let id = (at != NIL).then_some(at)?;
            at = if id == tail {
                NIL
            } else {
                links.nodes.get(id).next
            };
            Some(id)
        })
    }

    /// Panics if an invariant is broken.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn validate(&self, links: &Links) {
        let (mut before, mut count) = (NIL, 0);
        // Bounded, so that a ring is reported instead of walked forever.
        for id in self.iter(links).take(self.len as usize + 1) {
            assert_eq!(self.before(links, id), before, "list: prev of {id}");
            before = id;
            count += 1;
        }
        assert_eq!(count, self.len, "list: count of ids");
        assert_eq!(before, self.tail, "list: tail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    #[test]
    fn behaves_as_deques_do() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut rand = move |n: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 20) % n
        };
        let mut links = Links::new();
        let mut lists = [List::new(), List::new()];
        let mut model = [VecDeque::new(), VecDeque::new()];
        for _ in 0..50_000 {
            let id = rand(600) as u32;
            let which = rand(2) as usize;
            let holder = (0..2).find(|&list| model[list].contains(&id));
            match (rand(8), holder) {
                (0..=2, None) => {
                    links.reserve_for(id);
                    lists[which].push_front(&mut links, id);
                    model[which].push_front(id);
                }
                (3..=4, None) => {
                    links.reserve_for(id);
                    lists[which].push_back(&mut links, id);
                    model[which].push_back(id);
                }
                (0..=4, Some(list)) => {
                    lists[list].unlink(&mut links, id);
                    model[list].retain(|&other| other != id);
                }
                (5, _) => {
                    assert_eq!(lists[which].pop_back(&mut links), model[which].pop_back());
                }
                (6, _) => {
                    let rotated = lists[which].rotate(&mut links);
                    assert_eq!(rotated, model[which].len() > 1);
                    model[which].rotate_right(usize::from(rotated));
                }
                (_, Some(list)) if rand(4) == 0 => {
                    let to = 600 + rand(8) as u32;
                    lists[list].relocate(&mut links, id, to);
                    // The node moves back once its neighbours know the new place.
                    lists[list].validate(&links);
                    let there = lists[list].iter(&links).position(|other| other == to);
                    assert_eq!(there, model[list].iter().position(|&other| other == id));
                    lists[list].relocate(&mut links, to, id);
                }
                _ if rand(50) == 0 => {
                    let (first, rest) = lists.split_at_mut(1);
                    first[0].append(&mut links, &mut rest[0]);
                    let moved = std::mem::take(&mut model[1]);
                    model[0].extend(moved);
                }
                _ => {}
            }
            for (list, model) in lists.iter().zip(&model) {
                assert_eq!(list.len() as usize, model.len());
                assert_eq!(list.front(), model.front().copied());
                assert_eq!(list.back(), model.back().copied());
            }
            if rand(40) == 0 {
                for (list, model) in lists.iter().zip(&model) {
                    list.validate(&links);
                    assert!(list.iter(&links).eq(model.iter().copied()));
                }
                links.validate();
            }
        }
    }
}
