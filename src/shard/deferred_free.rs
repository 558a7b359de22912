//! What lay beside the slots of a shard that has become empty, on its way back to the allocator.
//!
//! A shard of 125 thousand entries with a time to live has some fifteen hundred chunks there. They are no
//! longer needed all at once, when its last entry goes; given back all at once, they would take one unlucky
//! call a hundred microseconds under the lock.

use super::side_tables::Beside;
use crate::ds::list::Links;
use crate::ds::timer_wheel::Wheel;

/// The most chunks that one visit gives back.
const CHUNKS: u32 = 64;

/// Memory that nothing points into.
pub(super) struct Rubble {
    pub(super) beside: Beside,
    pub(super) links: Links,
    pub(super) wheel: Wheel,
}

impl Rubble {
    /// Gives some of it back; whether there may be more.
    pub(super) fn shed(&mut self) -> bool {
        let mut budget = CHUNKS;
        self.beside.truncate(0, &mut budget);
        self.links.truncate(0, &mut budget);
        self.wheel.shed(&mut budget);
        budget == 0
    }
}
