//! The S3-FIFO policy of a full cache whose entries all weigh 1: a victim goes, and a newcomer gets its id.
//!
//! Who goes from the end of a queue and who comes at its beginning has one id then: so the queue is turned, and
//! what it holds stays the same. The choice of victims is that of [`Policy::victim`], as a test says.

use super::{HAND, Place, S3Fifo, SETTLE};
use crate::ds::list::NIL;
use crate::policy::{Glance, Policy, Slots};

impl S3Fifo {
    /// What `victim`, `admit` and `insert` do together, where the newcomer gets the victim's id and all entries
    /// weigh the same 1: the victim, and where the newcomer stands, which the owner has yet to note in its slot.
    #[inline(always)]
    pub(crate) fn exchange(
        &mut self,
        hash: u32,
        slots: &mut impl Slots,
    ) -> Option<(u32, Glance, u8)> {
        self.tune_if_due();
        let mut passes = HAND;
        loop {
            let may_pass = passes > 0;
            let (id, taken) = if self.takes_newer_of_equals() {
                let id = self.newer.back()?;
                let seen = slots.glance(id);
                if seen.hits < self.settings.promote_at && self.settles_next != id {
                    return Some((id, seen, self.turn_newer(id, seen.hash, hash)));
                }
                (id, self.judge_newer(id, may_pass, slots))
            } else {
                let id = self.main.back()?;
                (id, self.judge_main(id, may_pass, slots))
            };
            if let Some(seen) = taken {
                let place = self.admit(hash);
                self.enter(id, place, 1);
                return Some((id, seen, place));
            }
            passes -= 1;
        }
    }

    /// The victim at the end of `newer`, which is not fresh any more, goes, and a newcomer gets its id.
    #[inline(always)]
    fn turn_newer(&mut self, id: u32, goes: u32, comes: u32) -> u8 {
        self.ghost.insert(goes);
        let place = self.admit(comes);
        if place == Place::Fresh as u8 && self.newer.rotate(&mut self.links) {
            if self.settles_next == NIL {
                self.settles_next = id;
            }
            self.fresh.add(1);
        } else {
            self.pop_newer(id, 1);
            self.enter(id, place, 1);
        }
        place
    }

    /// What `insert` does after the newcomer has entered, where all entries weigh 1, one of which has come.
    #[inline(always)]
    pub(crate) fn settle_of_equals(&mut self, slots: &mut impl Slots) {
        let id = self.settles_next;
        if self.skipped.is_exceeded_by(self.fresh.entries) && id != NIL {
            self.leave_fresh(id, 1);
            slots.mark(id, Place::Small as u8, 0);
            if self.skipped.is_exceeded_by(self.fresh.entries) {
                self.settle_some(SETTLE - 1, slots);
            }
        }
    }

    /// Whether the next to be judged is the one at the end of `newer`, where all entries weigh 1.
    #[inline(always)]
    pub(super) fn takes_newer_of_equals(&self) -> bool {
        if self.probation.is_exceeded_by(self.on_probation.entries) {
            return !self.newer.is_empty();
        }
        self.main.is_empty() && !self.newer.is_empty()
    }
}
