//! Least recently used, exactly: a doubly linked list threaded through arrays.

use super::Simulator;

/// The end of the list, where no key can be.
const NONE: u32 = u32::MAX;

/// Least recently used.
#[derive(Debug)]
pub struct Lru {
    /// The neighbour used less recently, and the one used more recently.
    older: Vec<u32>,
    newer: Vec<u32>,
    present: Vec<bool>,
    oldest: u32,
    newest: u32,
    len: u64,
    capacity: u64,
}

impl Lru {
    /// For keys below `distinct`; the capacity is 1 at least.
    #[must_use]
    pub fn new(distinct: u32, capacity: u64) -> Self {
        Self {
            older: vec![NONE; distinct as usize],
            newer: vec![NONE; distinct as usize],
            present: vec![false; distinct as usize],
            oldest: NONE,
            newest: NONE,
            len: 0,
            capacity,
        }
    }

    fn unlink(&mut self, id: u32) {
        let (older, newer) = (self.older[id as usize], self.newer[id as usize]);
        match older {
            NONE => self.oldest = newer,
            _ => self.newer[older as usize] = newer,
        }
        match newer {
            NONE => self.newest = older,
            _ => self.older[newer as usize] = older,
        }
    }

    fn push(&mut self, id: u32) {
        self.older[id as usize] = self.newest;
        self.newer[id as usize] = NONE;
        match self.newest {
            NONE => self.oldest = id,
            newest => self.newer[newest as usize] = id,
        }
        self.newest = id;
    }
}

impl Simulator for Lru {
    fn request(&mut self, id: u32) -> bool {
        let hit = self.present[id as usize];
        if hit {
            self.unlink(id);
        } else if self.len >= self.capacity {
            let oldest = self.oldest;
            self.unlink(oldest);
            self.present[oldest as usize] = false;
        } else {
            self.len += 1;
        }
        self.push(id);
        self.present[id as usize] = true;
        hit
    }

    fn contains(&self, id: u32) -> bool {
        self.present[id as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::hits;

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let mut lru = Lru::new(4, 2);
        let found = [0, 1, 0, 2, 0, 1].map(|id| lru.request(id));
        assert_eq!(found, [false, false, true, false, true, false]);
        assert_eq!([0, 1, 2].map(|id| lru.contains(id)), [true, true, false]);
    }

    #[test]
    fn one_entry_is_the_last_one() {
        assert_eq!(hits(&mut Lru::new(2, 1), &[0, 0, 1, 0, 0]), 2);
    }

    #[test]
    fn a_loop_one_wider_than_the_cache_never_hits() {
        let asked: Vec<u32> = (0..40).map(|n| n % 4).collect();
        assert_eq!(hits(&mut Lru::new(4, 3), &asked), 0);
        assert_eq!(hits(&mut Lru::new(4, 4), &asked), 36);
    }
}
