//! S3-FIFO: three first-in-first-out queues and a memory of evicted hashes.
//!
//! A new entry enters `fresh`, from whose end it drops into `small` with its hits
//! forgotten, so that the reads of a burst right after insertion do not count. At
//! the end of `small` it moves to `main` if it was hit in there and is evicted
//! otherwise, its hash remembered as a ghost; an entry whose hash is a ghost enters
//! `main` at once. Where ghosts come back soon after their eviction, `fresh` and `small`
//! are longer than where they come back at any time alike. At the end of `main` an entry
//! that was hit goes round again with a hit less, else it is evicted. Reads only bump a
//! counter.
//!
//! # Invariants
//!
//! - `fresh` and `small` are the two ends of one list, `newer`, and `settles_next`
//!   marks where they meet: an entry drops from one into the other by standing still.
//! - A live id is in the queue its mark tells.
//! - Each of the `Totals` is the count of its queue's ids and the sum of their weights.
//! - `probation` and `skipped` follow from the settings, the limits, the number of
//!   entries estimated last, and how soon ghosts came back until then; only the choice
//!   of victims depends on them.
//!
//! # Cost
//!
//! `insert` settles at most [`SETTLE`] entries from `fresh` to `small`. `victim`
//! passes by at most [`HAND`] entries that were hit; then it takes the next one
//! regardless. 8 bytes per entry, and 2 per ghost.

mod evict_and_admit;
mod tuning;

use crate::ds::ghost::Ghost;
use crate::ds::list::{Links, List, NIL};
use crate::policy::settings::Settings;
use crate::policy::usage::{Quota, Totals};
use crate::policy::{Glance, Outlook, Policy, QueueLens, Slots};

/// Entries the hand passes by per victim at most.
const HAND: u32 = 32;

/// Entries moved from `fresh` to `small` at a time at most.
const SETTLE: u32 = 4;

/// Victims after which the number of entries is estimated anew.
const TUNE_EVERY: u32 = 64;

/// Where a live entry stands, as its mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Place {
    Fresh = 1,
    Small = 2,
    Main = 3,
}

impl Place {
    #[inline]
    fn of(id: u32, slots: &impl Slots) -> Self {
        match slots.place(id) {
            1 => Place::Fresh,
            2 => Place::Small,
            3 => Place::Main,
            _ => panic!("the entry is not live"),
        }
    }
}

/// The S3-FIFO policy. What every insertion changes comes first, in two cache lines with what it compares that
/// with: under two threads these lines go to and fro between processors, and the others do not.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct S3Fifo {
    /// `fresh` and `small` as one list: the newest first.
    newer: List,
    main: List,
    /// The oldest fresh entry, which is the next to settle; `NIL` if there is none.
    settles_next: u32,
    /// Victims until the next estimate, which the first one makes: before that
    /// the mean weight is unknown.
    tune_in: u32,
    /// What is fresh.
    fresh: Totals,
    /// What stands in `newer`, fresh or small.
    on_probation: Totals,
    /// What stands in `main`.
    proven: Totals,
    /// For `fresh` and `small` together.
    probation: Quota,
    /// For `fresh`.
    skipped: Quota,
    /// The whole.
    limits: Quota,
    links: Links,
    ghost: Ghost,
    doomed: List,
    settings: Settings,
}

impl S3Fifo {
    /// Without entries; allocates nothing.
    pub(crate) fn new(settings: Settings, max_entries: u64, max_weight: u64) -> Self {
        let limits = Quota {
            entries: max_entries,
            weight: max_weight,
        };
        let mut policy = Self {
            links: Links::new(),
            newer: List::new(),
            main: List::new(),
            doomed: List::new(),
            settles_next: NIL,
            fresh: Totals::default(),
            on_probation: Totals::default(),
            proven: Totals::default(),
            ghost: Ghost::new(),
            settings,
            limits,
            probation: limits,
            skipped: limits,
            tune_in: 0,
        };
        policy.tune();
        policy.tune_in = 1;
        policy
    }

    #[inline]
    fn enter_fresh(&mut self, id: u32, weight: u64) {
        self.newer.push_front(&mut self.links, id);
        if self.settles_next == NIL {
            self.settles_next = id;
        }
        self.fresh.add(weight);
        self.on_probation.add(weight);
    }

    #[inline]
    fn enter_main(&mut self, id: u32, weight: u64) {
        self.main.push_front(&mut self.links, id);
        self.proven.add(weight);
    }

    /// An entry is fresh no longer; it still stands in `newer`.
    #[inline]
    fn leave_fresh(&mut self, id: u32, weight: u64) {
        if self.settles_next == id {
            self.settles_next = self.newer.before(&self.links, id);
        }
        self.fresh.take(weight);
    }

    /// Takes the entry at the end of `newer` out.
    #[inline]
    fn pop_newer(&mut self, id: u32, weight: u64) {
        if self.settles_next == id {
            // All that is on probation is fresh.
            self.leave_fresh(id, weight);
        }
        self.newer.pop_back(&mut self.links);
        self.on_probation.take(weight);
    }

    /// Takes the entry at the end of `main` out.
    #[inline]
    fn pop_main(&mut self, weight: u64) {
        self.main.pop_back(&mut self.links);
        self.proven.take(weight);
    }

    /// Puts a new entry where `admit` said.
    #[inline(always)]
    fn enter(&mut self, id: u32, place: u8, weight: u64) {
        if place == Place::Main as u8 {
            self.enter_main(id, weight);
        } else {
            self.enter_fresh(id, weight);
        }
    }

    /// Moves what `fresh` holds too much to `small`.
    #[inline(always)]
    fn settle(&mut self, slots: &mut impl Slots) {
        if self.skipped.is_exceeded(self.fresh) {
            self.settle_some(SETTLE, slots);
        }
    }

    /// The same, so many at most.
    #[inline]
    fn settle_some(&mut self, most: u32, slots: &mut impl Slots) {
        for _ in 0..most {
            let id = self.settles_next;
            if !self.skipped.is_exceeded(self.fresh) || id == NIL {
                return;
            }
            self.leave_fresh(id, slots.weight(id));
            slots.mark(id, Place::Small as u8, 0);
        }
    }

    /// Whether the next to be judged is the one at the end of `newer`.
    #[inline]
    fn takes_newer(&self) -> bool {
        let over = self.probation.is_exceeded(self.on_probation) || self.main.is_empty();
        over && !self.newer.is_empty()
    }

    /// Takes the victim out of the end of `newer`, if it is one; what was hit goes to `main` instead.
    #[inline(always)]
    fn judge_newer(&mut self, id: u32, may_pass: bool, slots: &mut impl Slots) -> Option<Glance> {
        let seen = slots.glance(id);
        self.pop_newer(id, seen.weight);
        if seen.hits >= self.settings.promote_at && may_pass {
            slots.mark(id, Place::Main as u8, 0);
            self.enter_main(id, seen.weight);
            return None;
        }
        self.ghost.insert(seen.hash);
        Some(seen)
    }

    /// Takes the victim out of the end of `main`, if it is one; what was hit goes round again.
    #[inline]
    fn judge_main(&mut self, id: u32, may_pass: bool, slots: &mut impl Slots) -> Option<Glance> {
        let seen = slots.glance(id);
        if seen.hits > 0 && may_pass {
            slots.mark(id, Place::Main as u8, seen.hits - 1);
            self.main.rotate(&mut self.links);
            return None;
        }
        self.pop_main(seen.weight);
        Some(seen)
    }
}

impl Policy for S3Fifo {
    #[inline]
    fn admit(&mut self, hash: u32) -> u8 {
        if self.ghost.take(hash) {
            Place::Main as u8
        } else {
            Place::Fresh as u8
        }
    }

    #[inline(always)]
    fn insert(&mut self, id: u32, place: u8, weight: u64, slots: &mut impl Slots) {
        self.links.reserve_for(id);
        self.enter(id, place, weight);
        self.settle(slots);
    }

    #[inline]
    fn remove(&mut self, id: u32, slots: &impl Slots) {
        let weight = slots.weight(id);
        let place = Place::of(id, slots);
        if place == Place::Main {
            self.main.unlink(&mut self.links, id);
            self.proven.take(weight);
            return;
        }
        if place == Place::Fresh {
            self.leave_fresh(id, weight);
        }
        self.newer.unlink(&mut self.links, id);
        self.on_probation.take(weight);
    }

    /// Not needed: the owner counts hits.
    #[inline]
    fn hit(&mut self, _: u32) {}

    #[inline]
    fn prefetch(&self, hash: u32) {
        self.ghost.prefetch(hash);
    }

    #[inline(always)]
    fn outlook(&self) -> Outlook {
        // By entries alone: whoever is wrong asks for a line too many.
        let queue = if self.takes_newer_of_equals() {
            &self.newer
        } else {
            &self.main
        };
        let Some(next) = queue.back() else {
            return Outlook::default();
        };
        let second = queue.before(&self.links, next);
        self.links.prefetch(second);
        self.links.prefetch(self.settles_next);
        Outlook {
            next,
            second,
            marked: self.settles_next,
        }
    }

    #[inline(always)]
    fn victim(&mut self, slots: &mut impl Slots) -> Option<(u32, Glance)> {
        self.tune_if_due();
        let mut passes = HAND;
        loop {
            let may_pass = passes > 0;
            let (id, taken) = if self.takes_newer() {
                let id = self.newer.back()?;
                (id, self.judge_newer(id, may_pass, slots))
            } else {
                let id = self.main.back()?;
                (id, self.judge_main(id, may_pass, slots))
            };
            if let Some(seen) = taken {
                return Some((id, seen));
            }
            passes -= 1;
        }
    }

    #[inline]
    fn reweigh(&mut self, id: u32, old: u64, new: u64, slots: &impl Slots) {
        let place = Place::of(id, slots);
        let load = if place == Place::Main {
            &mut self.proven
        } else {
            &mut self.on_probation
        };
        load.weight = load.weight - old + new;
        if place == Place::Fresh {
            self.fresh.weight = self.fresh.weight - old + new;
        }
    }

    fn relocate(&mut self, from: u32, to: u32, slots: &impl Slots) {
        let queue = match Place::of(to, slots) {
            Place::Main => &mut self.main,
            Place::Fresh | Place::Small => &mut self.newer,
        };
        queue.relocate(&mut self.links, from, to);
        if self.settles_next == from {
            self.settles_next = to;
        }
    }

    fn doom_all(&mut self) {
        self.doomed.append(&mut self.links, &mut self.newer);
        self.doomed.append(&mut self.links, &mut self.main);
        self.settles_next = NIL;
        (self.fresh, self.on_probation) = Default::default();
        self.proven = Totals::default();
        self.ghost.clear();
    }

    fn pop_doomed(&mut self) -> Option<u32> {
        self.doomed.pop_back(&mut self.links)
    }

    fn remove_doomed(&mut self, id: u32) {
        self.doomed.unlink(&mut self.links, id);
    }

    fn resize(&mut self, max_entries: u64, max_weight: u64) {
        self.limits = Quota {
            entries: max_entries,
            weight: max_weight,
        };
        self.tune();
        self.tune_in = 1;
        let most = self.ghosts_for(max_entries);
        if u64::from(self.ghost.capacity()) > most {
            self.ghost.set_capacity(most as u32);
        }
    }

    #[inline]
    fn is_small(&self) -> bool {
        self.links.is_small()
    }

    fn truncate(&mut self, len: u32, budget: &mut u32) {
        self.links.truncate(len, budget);
    }

    fn take_links(&mut self) -> Links {
        std::mem::replace(&mut self.links, Links::new())
    }

    #[inline]
    fn live(&self) -> Totals {
        Totals {
            entries: self.on_probation.entries + self.proven.entries,
            weight: self.on_probation.weight + self.proven.weight,
        }
    }

    fn queue_lens(&self) -> QueueLens {
        QueueLens {
            fresh: self.fresh.entries as u32,
            small: (self.on_probation.entries - self.fresh.entries) as u32,
            main: self.main.len(),
            doomed: self.doomed.len(),
            ghosts: self.ghost.capacity(),
        }
    }

    #[cfg(any(test, debug_assertions))]
    fn validate(&self, slots: &impl Slots, live: impl Iterator<Item = u32>) {
        self.links.validate();
        self.ghost.validate();
        self.doomed.validate(&self.links);
        self.newer.validate(&self.links);
        self.main.validate(&self.links);
        let mut loads = [Totals::default(); 2];
        let (mut queued, mut settles_next) = (Vec::new(), NIL);
        for id in self.newer.iter(&self.links) {
            let place = Place::of(id, slots);
            loads[1].add(slots.weight(id));
            if place == Place::Fresh {
                loads[0].add(slots.weight(id));
                let newest = loads[0].entries == loads[1].entries;
                assert!(newest, "s3fifo: {id} is fresh behind one that is not");
                settles_next = id;
            } else {
                assert_eq!(place, Place::Small, "s3fifo: mark of {id}");
            }
            queued.push(id);
        }
        assert_eq!(
            settles_next, self.settles_next,
            "s3fifo: the next to settle"
        );
        assert_eq!(loads, [self.fresh, self.on_probation], "s3fifo: probation");
        let mut proven = Totals::default();
        for id in self.main.iter(&self.links) {
            assert_eq!(Place::of(id, slots), Place::Main, "s3fifo: mark of {id}");
            proven.add(slots.weight(id));
            queued.push(id);
        }
        assert_eq!(proven, self.proven, "s3fifo: main");
        let mut live: Vec<u32> = live.collect();
        queued.sort_unstable();
        live.sort_unstable();
        assert_eq!(queued, live, "s3fifo: ids in the queues");
    }
}
