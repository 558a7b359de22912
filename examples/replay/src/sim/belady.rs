//! Belady's optimum: out goes what is used again last. It sees the future, so it is a bound, no policy.
//!
//! With bypass: a newcomer that is used again later than everything present is not stored at all.
//! For entries of one size no policy, storing what it likes, has more hits.

use std::collections::BTreeMap;

use super::Simulator;

/// No later request is for the key.
const NEVER: u32 = u32::MAX;

/// Belady's optimum with bypass.
#[derive(Debug)]
pub struct Belady {
    /// For each request, the next one for the same key.
    next: Vec<u32>,
    /// What is present, by the request that will hit it: no two share one.
    present: BTreeMap<u32, u32>,
    /// For each key, the request that will hit it if it is present.
    due: Vec<u32>,
    now: u32,
    capacity: u64,
}

impl Belady {
    /// For these requests, which then have to be made in this order; the capacity is 1 at least.
    #[must_use]
    pub fn new(ids: &[u32], distinct: u32, capacity: u64) -> Self {
        let mut due = vec![NEVER; distinct as usize];
        let mut next = vec![NEVER; ids.len()];
        for (at, &id) in ids.iter().enumerate().rev() {
            next[at] = std::mem::replace(&mut due[id as usize], at as u32);
        }
        due.fill(NEVER);
        Self {
            next,
            present: BTreeMap::new(),
            due,
            now: 0,
            capacity,
        }
    }
}

impl Simulator for Belady {
    fn request(&mut self, id: u32) -> bool {
        let next = self.next[self.now as usize];
        let hit = self.present.remove(&self.now).is_some();
        self.now += 1;
        self.due[id as usize] = NEVER;
        // What is never used again takes no room, hit or not.
        if next == NEVER {
            return hit;
        }
        if self.present.len() as u64 >= self.capacity {
            match self.present.last_entry() {
                Some(last) if *last.key() > next => {
                    self.due[last.remove() as usize] = NEVER;
                }
                _ => return hit,
            }
        }
        self.present.insert(next, id);
        self.due[id as usize] = next;
        hit
    }

    fn contains(&self, id: u32) -> bool {
        self.due[id as usize] != NEVER
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::hits;

    fn optimum(ids: &[u32], capacity: u64) -> u64 {
        hits(&mut Belady::new(ids, 10, capacity), ids)
    }

    #[test]
    fn the_one_used_last_goes() {
        let asked = [0, 1, 2, 0, 1, 0, 1, 2];
        let mut belady = Belady::new(&asked, 3, 2);
        let found = asked.map(|id| belady.request(id));
        // 2 is used after 0 and 1: it is not stored, and misses twice.
        assert_eq!(found, [false, false, false, true, true, true, true, false]);
    }

    #[test]
    fn a_newcomer_used_last_is_not_stored() {
        let asked = [0, 1, 0, 1, 0];
        let mut belady = Belady::new(&asked, 2, 1);
        assert!(!belady.request(0));
        assert!(!belady.request(1));
        assert!(belady.contains(0) && !belady.contains(1));
        assert!(belady.request(0));
        assert_eq!(optimum(&asked, 1), 2, "without bypass it would be none");
    }

    #[test]
    fn a_loop_wider_than_the_cache_hits_all_that_fits() {
        let asked: Vec<u32> = (0..100).map(|n| n % 10).collect();
        assert_eq!(optimum(&asked, 4), 4 * 9);
        assert_eq!(optimum(&asked, 10), 90);
        assert_eq!(optimum(&asked, u64::MAX), 90);
    }

    #[test]
    fn the_textbook_example() {
        // Seven misses with three frames if everything has to be stored; bypass saves none here.
        let asked = [1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5];
        assert_eq!(optimum(&asked, 3), 12 - 7);
    }
}
