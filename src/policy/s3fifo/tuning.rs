//! How long the queues are, and how many ghosts there are: set anew after every so many victims.

use super::{S3Fifo, TUNE_EVERY};
use crate::policy::Policy;
use crate::policy::usage::UNLIMITED;

impl S3Fifo {
    /// Entries that fit the limits: exactly, or going by their mean weight.
    fn entries_fitting(&self) -> u64 {
        let live = self.live();
        let fitting = if self.limits.weight == UNLIMITED {
            UNLIMITED
        } else {
            let mean = live.weight.checked_div(live.entries).unwrap_or(1);
            self.limits.weight / mean.max(1)
        };
        fitting.min(self.limits.entries)
    }

    /// Sets the shares of the queues by the size of the cache in entries.
    pub(super) fn tune(&mut self) {
        self.tune_in = TUNE_EVERY;
        let (entries, set) = (self.entries_fitting(), self.settings);
        let share = if entries < set.tiny {
            set.probation_tiny
        } else {
            (set.probation_min * 1_000 / entries).max(self.probation_share())
        };
        self.probation = self.limits.share(share);
        self.skipped = self.probation.share(set.skipped);
    }

    /// The share for `fresh` and `small`: less where those evicted from them come back no sooner than later,
    /// as a longer queue would catch none of them.
    fn probation_share(&self) -> u64 {
        let (least, most) = self.settings.probation;
        let (calm, hasty) = self.settings.return_rate;
        match self.ghost.return_rate() {
            Some(return_rate) => {
                let above = return_rate.clamp(calm, hasty) - calm;
                least + (most - least) * u64::from(above) / u64::from(hasty - calm)
            }
            None => most,
        }
    }

    /// The ghosts for so many entries, at least one for any.
    pub(super) fn ghosts_for(&self, entries: u64) -> u64 {
        let share = u128::from(entries) * u128::from(self.settings.ghosts);
        share.div_ceil(1_000) as u64
    }

    /// Follows the number of entries with the ghost's capacity: by powers of two,
    /// as each change starts a new table.
    pub(super) fn tune_ghost(&mut self) {
        let ghosts = self.ghosts_for(self.live().entries).min(1 << 31);
        let capacity = u64::from(self.ghost.capacity());
        if ghosts > capacity || ghosts < capacity / 4 {
            let most = self.ghosts_for(self.limits.entries);
            let wanted = ghosts.next_power_of_two().min(most);
            self.ghost.set_capacity(wanted as u32);
        }
    }

    /// Counts a victim, and now and then sets the shares of the queues anew.
    #[inline(always)]
    pub(super) fn tune_if_due(&mut self) {
        self.tune_in -= 1;
        if self.tune_in == 0 {
            self.tune_all();
        }
    }

    #[cold]
    #[inline(never)]
    fn tune_all(&mut self) {
        self.tune();
        self.tune_ghost();
    }
}
