//! First in, first out: a hit changes nothing.

use std::collections::VecDeque;

use super::Simulator;

/// First in, first out.
#[derive(Debug)]
pub struct Fifo {
    queue: VecDeque<u32>,
    present: Vec<bool>,
    capacity: u64,
}

impl Fifo {
    /// For keys below `distinct`; the capacity is 1 at least.
    #[must_use]
    pub fn new(distinct: u32, capacity: u64) -> Self {
        Self {
            queue: VecDeque::new(),
            present: vec![false; distinct as usize],
            capacity,
        }
    }
}

impl Simulator for Fifo {
    fn request(&mut self, id: u32) -> bool {
        if self.present[id as usize] {
            return true;
        }
        if self.queue.len() as u64 >= self.capacity {
            if let Some(first) = self.queue.pop_front() {
                self.present[first as usize] = false;
            }
        }
        self.queue.push_back(id);
        self.present[id as usize] = true;
        false
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
    fn what_came_first_goes_first_however_often_it_is_hit() {
        let mut fifo = Fifo::new(4, 2);
        let asked = [0, 1, 0, 0, 2, 0, 1];
        let found = asked.map(|id| fifo.request(id));
        assert_eq!(found, [false, false, true, true, false, false, false]);
        assert_eq!([0, 1, 2].map(|id| fifo.contains(id)), [true, true, false]);
    }

    #[test]
    fn more_room_may_mean_fewer_hits() {
        // Belady's own example of the anomaly: 9 misses with three frames, 10 with four.
        let asked = [1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5];
        assert_eq!(hits(&mut Fifo::new(6, 3), &asked), 12 - 9);
        assert_eq!(hits(&mut Fifo::new(6, 4), &asked), 12 - 10);
    }

    #[test]
    fn with_room_for_all_only_first_requests_miss() {
        assert_eq!(hits(&mut Fifo::new(3, u64::MAX), &[0, 1, 2, 0, 1, 2]), 3);
    }
}
