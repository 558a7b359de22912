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
//! - `fresh` and `small` are the two ends of one list, `newer`, and `next_to_demote`
//!   says where they meet: an entry passes from one into the other without being moved.
//! - A live id is in the queue that its slot names.
//! - Each of the `Usage` is the count of its queue's ids and the sum of their weights.
//! - `probation` and `skipped` follow from the settings, the limits, the number of
//!   entries estimated last, and how soon ghosts came back until then; only the choice
//!   of victims depends on them.
//!
//! # Cost
//!
//! `insert` demotes at most [`MAX_DEMOTIONS`] entries from `fresh` to `small`. `victim`
//! passes by at most [`MAX_SECOND_CHANCES`] entries that were hit; then it takes the next one
//! regardless. 8 bytes per entry, and 2 per ghost.

mod evict_and_admit;
mod tuning;

use crate::ds::ghost::Ghost;
use crate::ds::list::{Links, List, NIL};
use crate::policy::settings::Settings;
use crate::policy::usage::{Bound, Usage};
use crate::policy::{EntryView, Policy, PrefetchHint, QueueLens, Slots};

/// The most entries with hits that are passed by for one victim.
const MAX_SECOND_CHANCES: u32 = 32;

/// Entries moved from `fresh` to `small` at a time at most.
const MAX_DEMOTIONS: u32 = 4;

/// Victims after which the number of entries is estimated anew.
const TUNE_EVERY: u32 = 64;

/// The queue of a live entry, as its slot names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Queue {
    Fresh = 1,
    Small = 2,
    Main = 3,
}

impl Queue {
    #[inline]
    fn of(id: u32, slots: &impl Slots) -> Self {
        match slots.queue(id) {
            1 => Queue::Fresh,
            2 => Queue::Small,
            3 => Queue::Main,
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
    /// The oldest fresh entry, which is the next to demote; `NIL` if there is none.
    next_to_demote: u32,
    /// Victims until the next estimate, which the first one makes: before that
    /// the mean weight is unknown.
    tune_in: u32,
    /// What is fresh.
    fresh: Usage,
    /// Usage of the entries in `newer`, fresh or small.
    on_probation: Usage,
    /// Usage of the entries in `main`.
    main_usage: Usage,
    /// For `fresh` and `small` together.
    probation: Bound,
    /// For `fresh`.
    skipped: Bound,
    /// The whole.
    limits: Bound,
    links: Links,
    ghost: Ghost,
    cleared: List,
    settings: Settings,
}

impl S3Fifo {
    /// Without entries; allocates nothing.
    pub(crate) fn new(settings: Settings, max_entries: u64, max_weight: u64) -> Self {
        let limits = Bound {
            entries: max_entries,
            weight: max_weight,
        };
        let mut policy = Self {
            links: Links::new(),
            newer: List::new(),
            main: List::new(),
            cleared: List::new(),
            next_to_demote: NIL,
            fresh: Usage::default(),
            on_probation: Usage::default(),
            main_usage: Usage::default(),
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
        if self.next_to_demote == NIL {
            self.next_to_demote = id;
        }
        self.fresh.add(weight);
        self.on_probation.add(weight);
    }

    #[inline]
    fn enter_main(&mut self, id: u32, weight: u64) {
        self.main.push_front(&mut self.links, id);
        self.main_usage.add(weight);
    }

    /// An entry is fresh no longer; it is still in `newer`.
    #[inline]
    fn leave_fresh(&mut self, id: u32, weight: u64) {
        if self.next_to_demote == id {
            self.next_to_demote = self.newer.before(&self.links, id);
        }
        self.fresh.take(weight);
    }

    /// Takes the entry at the end of `newer` out.
    #[inline]
    fn pop_newer(&mut self, id: u32, weight: u64) {
        if self.next_to_demote == id {
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
        self.main_usage.take(weight);
    }

    /// Puts a new entry where `admit` said.
    #[inline(always)]
    fn enter(&mut self, id: u32, queue: u8, weight: u64) {
        if queue == Queue::Main as u8 {
            self.enter_main(id, weight);
        } else {
            self.enter_fresh(id, weight);
        }
    }

    /// Moves what `fresh` holds too much to `small`.
    #[inline(always)]
    fn demote_fresh(&mut self, slots: &mut impl Slots) {
        if self.skipped.is_exceeded(self.fresh) {
            self.demote_some_fresh(MAX_DEMOTIONS, slots);
        }
    }

    /// Moves at most `most` of the entries that `fresh` holds too many of to `small`.
    #[inline]
    fn demote_some_fresh(&mut self, most: u32, slots: &mut impl Slots) {
        for _ in 0..most {
            let id = self.next_to_demote;
            if !self.skipped.is_exceeded(self.fresh) || id == NIL {
                return;
            }
            self.leave_fresh(id, slots.weight(id));
            slots.set_queue(id, Queue::Small as u8, 0);
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
    fn evict_from_newer(
        &mut self,
        id: u32,
        may_pass: bool,
        slots: &mut impl Slots,
    ) -> Option<EntryView> {
        let seen = slots.view(id);
        self.pop_newer(id, seen.weight);
        if seen.hits >= self.settings.promote_at && may_pass {
            slots.set_queue(id, Queue::Main as u8, 0);
            self.enter_main(id, seen.weight);
            return None;
        }
        self.ghost.insert(seen.hash);
        Some(seen)
    }

    /// Takes the victim out of the end of `main`, if it is one; what was hit goes round again.
    #[inline]
    fn evict_from_main(
        &mut self,
        id: u32,
        may_pass: bool,
        slots: &mut impl Slots,
    ) -> Option<EntryView> {
        let seen = slots.view(id);
        if seen.hits > 0 && may_pass {
            slots.set_queue(id, Queue::Main as u8, seen.hits - 1);
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
            Queue::Main as u8
        } else {
            Queue::Fresh as u8
        }
    }

    #[inline(always)]
    fn insert(&mut self, id: u32, queue: u8, weight: u64, slots: &mut impl Slots) {
        self.links.reserve_for(id);
        self.enter(id, queue, weight);
        self.demote_fresh(slots);
    }

    #[inline]
    fn remove(&mut self, id: u32, slots: &impl Slots) {
        let weight = slots.weight(id);
        let queue = Queue::of(id, slots);
        if queue == Queue::Main {
            self.main.unlink(&mut self.links, id);
            self.main_usage.take(weight);
            return;
        }
        if queue == Queue::Fresh {
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
    fn prefetch_hint(&self) -> PrefetchHint {
        // By entries alone: whoever is wrong asks for a line too many.
        let queue = if self.takes_newer_of_equal_weight() {
            &self.newer
        } else {
            &self.main
        };
        let Some(next) = queue.back() else {
            return PrefetchHint::default();
        };
        let second = queue.before(&self.links, next);
        self.links.prefetch(second);
        self.links.prefetch(self.next_to_demote);
        PrefetchHint {
            next,
            second,
            marked: self.next_to_demote,
        }
    }

    #[inline(always)]
    fn victim(&mut self, slots: &mut impl Slots) -> Option<(u32, EntryView)> {
        self.tune_if_due();
        let mut passes = MAX_SECOND_CHANCES;
        loop {
            let may_pass = passes > 0;
            let (id, taken) = if self.takes_newer() {
                let id = self.newer.back()?;
                (id, self.evict_from_newer(id, may_pass, slots))
            } else {
                let id = self.main.back()?;
                (id, self.evict_from_main(id, may_pass, slots))
            };
            if let Some(seen) = taken {
                return Some((id, seen));
            }
            passes -= 1;
        }
    }

    #[inline]
    fn reweigh(&mut self, id: u32, old: u64, new: u64, slots: &impl Slots) {
        let queue = Queue::of(id, slots);
        let load = if queue == Queue::Main {
            &mut self.main_usage
        } else {
            &mut self.on_probation
        };
        load.weight = load.weight - old + new;
        if queue == Queue::Fresh {
            self.fresh.weight = self.fresh.weight - old + new;
        }
    }

    fn relocate(&mut self, from: u32, to: u32, slots: &impl Slots) {
        let queue = match Queue::of(to, slots) {
            Queue::Main => &mut self.main,
            Queue::Fresh | Queue::Small => &mut self.newer,
        };
        queue.relocate(&mut self.links, from, to);
        if self.next_to_demote == from {
            self.next_to_demote = to;
        }
    }

    fn clear_all(&mut self) {
        self.cleared.append(&mut self.links, &mut self.newer);
        self.cleared.append(&mut self.links, &mut self.main);
        self.next_to_demote = NIL;
        (self.fresh, self.on_probation) = Default::default();
        self.main_usage = Usage::default();
        self.ghost.clear();
    }

    fn pop_cleared(&mut self) -> Option<u32> {
        self.cleared.pop_back(&mut self.links)
    }

    fn remove_cleared(&mut self, id: u32) {
        self.cleared.unlink(&mut self.links, id);
    }

    fn resize(&mut self, max_entries: u64, max_weight: u64) {
        self.limits = Bound {
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
    fn live(&self) -> Usage {
        Usage {
            entries: self.on_probation.entries + self.main_usage.entries,
            weight: self.on_probation.weight + self.main_usage.weight,
        }
    }

    fn queue_lens(&self) -> QueueLens {
        QueueLens {
            fresh: self.fresh.entries as u32,
            small: (self.on_probation.entries - self.fresh.entries) as u32,
            main: self.main.len(),
            cleared: self.cleared.len(),
            ghosts: self.ghost.capacity(),
        }
    }

    #[cfg(any(test, debug_assertions))]
    fn validate(&self, slots: &impl Slots, live: impl Iterator<Item = u32>) {
        self.links.validate();
        self.ghost.validate();
        self.cleared.validate(&self.links);
        self.newer.validate(&self.links);
        self.main.validate(&self.links);
        let mut loads = [Usage::default(); 2];
        let (mut queued, mut next_to_demote) = (Vec::new(), NIL);
        for id in self.newer.iter(&self.links) {
            let queue = Queue::of(id, slots);
            loads[1].add(slots.weight(id));
            if queue == Queue::Fresh {
                loads[0].add(slots.weight(id));
                let newest = loads[0].entries == loads[1].entries;
                assert!(newest, "s3fifo: {id} is fresh behind one that is not");
                next_to_demote = id;
            } else {
                assert_eq!(queue, Queue::Small, "s3fifo: queue of {id}");
            }
            queued.push(id);
        }
        assert_eq!(
            next_to_demote, self.next_to_demote,
            "s3fifo: the next to settle"
        );
        assert_eq!(loads, [self.fresh, self.on_probation], "s3fifo: probation");
        let mut main_usage = Usage::default();
        for id in self.main.iter(&self.links) {
            assert_eq!(Queue::of(id, slots), Queue::Main, "s3fifo: queue of {id}");
            main_usage.add(slots.weight(id));
            queued.push(id);
        }
        assert_eq!(main_usage, self.main_usage, "s3fifo: main");
        let mut live: Vec<u32> = live.collect();
        queued.sort_unstable();
        live.sort_unstable();
        assert_eq!(queued, live, "s3fifo: ids in the queues");
    }
}
