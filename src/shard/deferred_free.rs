//! The side tables of a shard that has become empty, on their way back to the allocator.
//!
//! A shard of 125 thousand entries with a time to live has some fifteen hundred chunks there. They are no
//! longer needed all at once, when its last entry goes; given back all at once, they would take one unlucky
//! call a hundred microseconds under the lock.

use super::side_tables::SideTables;
use crate::ds::list::Links;
use crate::ds::timer_wheel::TimerWheel;

/// The most chunks that one critical section frees.
const CHUNKS: u32 = 64;

/// Memory that nothing points into.
pub(super) struct DeferredFree {
    pub(super) side_tables: SideTables,
    pub(super) links: Links,
    pub(super) wheel: TimerWheel,
}

impl DeferredFree {
    /// Gives some of it back; whether there may be more.
    pub(super) fn free_some(&mut self) -> bool {
        let mut budget = CHUNKS;
        self.side_tables.truncate(0, &mut budget);
        self.links.truncate(0, &mut budget);
        self.wheel.free_some(&mut budget);
        budget == 0
    }
}
