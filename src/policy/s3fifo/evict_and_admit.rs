//! The S3-FIFO policy of a full cache whose entries all weigh 1: a victim goes, and a newcomer gets its id.
//!
//! Who goes from the end of a queue and who comes at its beginning has one id then: so the queue is turned, and
//! what it holds stays the same. The choice of victims is that of [`Policy::victim`], as a test says.

use super::{MAX_DEMOTIONS, MAX_SECOND_CHANCES, Queue, S3Fifo};
use crate::ds::list::NIL;
use crate::policy::{EntryView, Policy, Slots};

impl S3Fifo {
    /// What `victim`, `admit` and `insert` do together, where the newcomer gets the victim's id and all entries
    /// weigh the same 1: the victim, and the queue of the new entry, which the owner has yet to note in its slot.
    #[inline(always)]
    pub(crate) fn evict_and_admit(
        &mut self,
        hash: u32,
        slots: &mut impl Slots,
    ) -> Option<(u32, EntryView, u8)> {
        self.tune_if_due();
        let mut passes = MAX_SECOND_CHANCES;
        loop {
            let may_pass = passes > 0;
            let (id, taken) = if self.takes_newer_of_equal_weight() {
                let id = self.newer.back()?;
                let seen = slots.view(id);
                if seen.hits < self.settings.promote_at && self.next_to_demote != id {
                    return Some((id, seen, self.replace_last_of_newer(id, seen.hash, hash)));
                }
                (id, self.evict_from_newer(id, may_pass, slots))
            } else {
                let id = self.main.back()?;
                (id, self.evict_from_main(id, may_pass, slots))
            };
            if let Some(seen) = taken {
                let queue = self.admit(hash);
                self.enter(id, queue, 1);
                return Some((id, seen, queue));
            }
            passes -= 1;
        }
    }

    /// The victim at the end of `newer`, which is not fresh any more, goes, and a newcomer gets its id.
    #[inline(always)]
    fn replace_last_of_newer(&mut self, id: u32, goes: u32, comes: u32) -> u8 {
        self.ghost.insert(goes);
        let queue = self.admit(comes);
        if queue == Queue::Fresh as u8 && self.newer.rotate(&mut self.links) {
            if self.next_to_demote == NIL {
                self.next_to_demote = id;
            }
            self.fresh.add(1);
        } else {
            self.pop_newer(id, 1);
            self.enter(id, queue, 1);
        }
        queue
    }

    /// What `insert` does after the newcomer has entered, where all entries weigh 1, one of which has come.
    #[inline(always)]
    pub(crate) fn demote_fresh_of_equal_weight(&mut self, slots: &mut impl Slots) {
        let id = self.next_to_demote;
        if self.skipped.is_exceeded_by(self.fresh.entries) && id != NIL {
            self.leave_fresh(id, 1);
            slots.set_queue(id, Queue::Small as u8, 0);
            if self.skipped.is_exceeded_by(self.fresh.entries) {
                self.demote_some_fresh(MAX_DEMOTIONS - 1, slots);
            }
        }
    }

    /// Whether the next to be judged is the one at the end of `newer`, where all entries weigh 1.
    #[inline(always)]
    pub(super) fn takes_newer_of_equal_weight(&self) -> bool {
        if self.probation.is_exceeded_by(self.on_probation.entries) {
            return !self.newer.is_empty();
        }
        self.main.is_empty() && !self.newer.is_empty()
    }
}
