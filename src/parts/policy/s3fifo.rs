//! S3-FIFO: three first-in-first-out queues and a memory of evicted hashes.
//!
//! A new entry enters `fresh`, from whose end it drops into `small` with its hits
//! forgotten, so that the reads of a burst right after insertion do not count. At
//! the end of `small` it moves to `main` if it was hit in there and is evicted
//! otherwise, its hash remembered as a ghost; an entry whose hash is a ghost enters
//! `main` at once. At the end of `main` an entry that was hit goes round again with
//! a hit less, else it is evicted. Reads only bump a counter.
//!
//! # Invariants
//!
//! - A live id is in the queue its tag tells; a doomed one in `doomed`, its tag
//!   out of date.
//! - A queue's `weight` is the sum of its ids' weights.
//! - `probation` and `skipped` follow from the settings, the limits, and the
//!   number of entries estimated last; only the choice of victims depends on them.
//!
//! # Cost
//!
//! `insert` settles at most [`SETTLE`] entries from `fresh` to `small`. `victim`
//! passes by at most [`HAND`] entries that were hit; then it takes the next one
//! regardless. 12 bytes per entry, and 5.3 per ghost.

use crate::parts::ghost::Ghost;
use crate::parts::list::{Links, List};
use crate::parts::policy::contract::{Policy, QueueLens, Slots, UNLIMITED};

/// Entries the hand passes by per victim at most.
const HAND: u32 = 32;

/// Entries moved from `fresh` to `small` at a time at most.
const SETTLE: u32 = 4;

/// Victims after which the number of entries is estimated anew.
const TUNE_EVERY: u32 = 64;

/// The ratios of the policy, in thousandths where a share is meant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Share of the capacity for `fresh` and `small` together.
    pub(crate) probation: u64,
    /// But at least this many entries' worth of it: a short queue would evict
    /// before a second read can come.
    pub(crate) probation_min: u64,
    /// Caches below this many entries are tiny...
    pub(crate) tiny: u64,
    /// ...and have this share for `fresh` and `small`.
    pub(crate) probation_tiny: u64,
    /// Share of those two for `fresh`.
    pub(crate) skipped: u64,
    /// Hits in `small` that earn a place in `main`.
    pub(crate) promote_at: u8,
    /// Ghosts, as a share of the entries.
    pub(crate) ghosts: u64,
}

impl Settings {
    /// `probation` and `ghosts`, together with `MAX_HITS`, were tuned on six real traces and
    /// on a Zipf stream: the paper's 10 % suit the traces as well, but let a steady Zipf
    /// stream displace too much. The rest is chosen for small caches.
    pub(crate) const DEFAULT: Self = Self {
        probation: 70,
        probation_min: 77,
        tiny: 128,
        probation_tiny: 600,
        skipped: 300,
        promote_at: 1,
        ghosts: 850,
    };
}

/// A queue, its index in `S3Fifo::queues` one below its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
enum Place {
    Fresh = 1,
    Small = 2,
    Main = 3,
}

#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    list: List,
    weight: u64,
}

/// How much some queues may hold; either bound may be [`UNLIMITED`].
#[derive(Clone, Copy, Debug)]
struct Quota {
    entries: u64,
    weight: u64,
}

impl Quota {
    #[inline]
    fn is_exceeded(self, entries: u64, weight: u64) -> bool {
        entries > self.entries || weight > self.weight
    }

    fn share(self, thousandths: u64) -> Self {
        let part = |limit: u64| {
            if limit == UNLIMITED {
                UNLIMITED
            } else {
                (u128::from(limit) * u128::from(thousandths) / 1_000) as u64
            }
        };
        Self {
            entries: part(self.entries),
            weight: part(self.weight),
        }
    }
}

/// The S3-FIFO policy.
#[derive(Debug)]
pub(crate) struct S3Fifo {
    links: Links,
    queues: [Queue; 3],
    doomed: List,
    ghost: Ghost,
    settings: Settings,
    /// The whole.
    limits: Quota,
    /// For `fresh` and `small` together.
    probation: Quota,
    /// For `fresh`.
    skipped: Quota,
    /// Victims until the next estimate, which the first one makes: before that
    /// the mean weight is unknown.
    tune_in: u32,
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
            queues: [Queue::default(); 3],
            doomed: List::new(),
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
    fn queue(&self, place: Place) -> &Queue {
        &self.queues[place as usize - 1]
    }

    #[inline]
    fn push(&mut self, place: Place, id: u32, weight: u64) {
        self.links.set_tag(id, place as u16);
        let queue = &mut self.queues[place as usize - 1];
        queue.list.push_front(&mut self.links, id);
        queue.weight += weight;
    }

    #[inline]
    fn unlink(&mut self, place: Place, id: u32, weight: u64) {
        let queue = &mut self.queues[place as usize - 1];
        queue.list.unlink(&mut self.links, id);
        queue.weight -= weight;
    }

    #[inline]
    fn place_of(&self, id: u32) -> Place {
        match self.links.tag(id) {
            1 => Place::Fresh,
            2 => Place::Small,
            3 => Place::Main,
            _ => panic!("the entry is not live"),
        }
    }

    fn entries(&self) -> u64 {
        self.queues
            .iter()
            .map(|queue| u64::from(queue.list.len()))
            .sum()
    }

    /// Entries that fit the limits: exactly, or going by their mean weight.
    fn entries_fitting(&self) -> u64 {
        let total: u64 = self.queues.iter().map(|queue| queue.weight).sum();
        let fitting = if self.limits.weight == UNLIMITED {
            UNLIMITED
        } else {
            let mean = total.checked_div(self.entries()).unwrap_or(1);
            self.limits.weight / mean.max(1)
        };
        fitting.min(self.limits.entries)
    }

    /// Sets the shares of the queues by the size of the cache in entries.
    fn tune(&mut self) {
        self.tune_in = TUNE_EVERY;
        let (entries, set) = (self.entries_fitting(), self.settings);
        let share = if entries < set.tiny {
            set.probation_tiny
        } else {
            (set.probation_min * 1_000 / entries).max(set.probation)
        };
        self.probation = self.limits.share(share);
        self.skipped = self.probation.share(set.skipped);
    }

    /// The ghosts for so many entries, at least one for any.
    fn ghosts_for(&self, entries: u64) -> u64 {
        let share = u128::from(entries) * u128::from(self.settings.ghosts);
        share.div_ceil(1_000) as u64
    }

    /// Follows the number of entries with the ghost's capacity: by powers of two,
    /// as each change starts a new table.
    fn tune_ghost(&mut self) {
        let ghosts = self.ghosts_for(self.entries()).min(1 << 31);
        let capacity = u64::from(self.ghost.capacity());
        if ghosts > capacity || ghosts < capacity / 4 {
            let most = self.ghosts_for(self.limits.entries);
            let wanted = ghosts.next_power_of_two().min(most);
            self.ghost.set_capacity(wanted as u32);
        }
    }

    /// Moves what `fresh` holds too much to `small`.
    #[inline]
    fn settle(&mut self, slots: &mut impl Slots) {
        for _ in 0..SETTLE {
            let fresh = self.queue(Place::Fresh);
            if !self
                .skipped
                .is_exceeded(u64::from(fresh.list.len()), fresh.weight)
            {
                return;
            }
            let Some(id) = fresh.list.back() else { return };
            let weight = slots.weight(id);
            self.unlink(Place::Fresh, id, weight);
            self.push(Place::Small, id, weight);
            slots.set_hits(id, 0);
        }
    }

    /// The queue to take from next.
    #[inline]
    fn victims_place(&self) -> Option<Place> {
        let [fresh, small, main] = &self.queues;
        let entries = u64::from(fresh.list.len()) + u64::from(small.list.len());
        let over = self
            .probation
            .is_exceeded(entries, fresh.weight + small.weight);
        if main.list.is_empty() || (over && entries > 0) {
            if !small.list.is_empty() {
                Some(Place::Small)
            } else if !fresh.list.is_empty() {
                Some(Place::Fresh)
            } else {
                None
            }
        } else {
            Some(Place::Main)
        }
    }
}

impl Policy for S3Fifo {
    #[inline]
    fn insert(&mut self, id: u32, slots: &mut impl Slots) {
        self.links.reserve_for(id);
        let known = self.ghost.take(slots.hash(id));
        let place = if known { Place::Main } else { Place::Fresh };
        self.push(place, id, slots.weight(id));
        self.settle(slots);
    }

    #[inline]
    fn remove(&mut self, id: u32, slots: &impl Slots) {
        self.unlink(self.place_of(id), id, slots.weight(id));
        self.links.set_tag(id, 0);
    }

    /// Not needed: the owner counts hits.
    #[inline]
    fn hit(&mut self, _: u32) {}

    #[inline]
    fn prefetch(&self, hash: u32) {
        self.ghost.prefetch(hash);
    }

    #[inline]
    fn likely_victim(&self) -> Option<u32> {
        self.queue(Place::Small).list.back()
    }

    fn victim(&mut self, slots: &mut impl Slots) -> Option<u32> {
        self.tune_in -= 1;
        if self.tune_in == 0 {
            self.tune();
        }
        self.settle(slots);
        let mut passes = HAND;
        loop {
            let place = self.victims_place()?;
            let id = self.queue(place).list.back()?;
            let (weight, hits) = (slots.weight(id), slots.hits(id));
            self.unlink(place, id, weight);
            let (stays, hits_left) = match place {
                Place::Main => (hits > 0, hits.saturating_sub(1)),
                _ => (hits >= self.settings.promote_at, 0),
            };
            if stays && passes > 0 {
                passes -= 1;
                slots.set_hits(id, hits_left);
                self.push(Place::Main, id, weight);
                continue;
            }
            self.links.set_tag(id, 0);
            if place != Place::Main {
                self.tune_ghost();
                self.ghost.insert(slots.hash(id));
            }
            return Some(id);
        }
    }

    #[inline]
    fn reweigh(&mut self, id: u32, old: u64, new: u64) {
        let place = self.place_of(id);
        let queue = &mut self.queues[place as usize - 1];
        queue.weight = queue.weight - old + new;
    }

    fn doom_all(&mut self) {
        for queue in &mut self.queues {
            self.doomed.append(&mut self.links, &mut queue.list);
            queue.weight = 0;
        }
        self.ghost.clear();
    }

    fn pop_doomed(&mut self) -> Option<u32> {
        let id = self.doomed.pop_back(&mut self.links)?;
        self.links.set_tag(id, 0);
        Some(id)
    }

    fn remove_doomed(&mut self, id: u32) {
        self.doomed.unlink(&mut self.links, id);
        self.links.set_tag(id, 0);
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

    fn truncate(&mut self, len: u32) {
        self.links.truncate(len);
    }

    fn queue_lens(&self) -> QueueLens {
        QueueLens {
            fresh: self.queue(Place::Fresh).list.len(),
            small: self.queue(Place::Small).list.len(),
            main: self.queue(Place::Main).list.len(),
            doomed: self.doomed.len(),
            ghosts: self.ghost.capacity(),
        }
    }

    #[cfg(any(test, debug_assertions))]
    fn validate(&self, slots: &impl Slots, live: impl Iterator<Item = u32>) {
        self.links.validate();
        self.ghost.validate();
        self.doomed.validate(&self.links);
        let mut queued = Vec::new();
        for place in [Place::Fresh, Place::Small, Place::Main] {
            let queue = self.queue(place);
            queue.list.validate(&self.links);
            let mut weight = 0;
            for id in queue.list.iter(&self.links) {
                assert_eq!(self.place_of(id), place, "s3fifo: tag of {id}");
                weight += slots.weight(id);
                queued.push(id);
            }
            assert_eq!(weight, queue.weight, "s3fifo: weight of {place:?}");
        }
        let mut live: Vec<u32> = live.collect();
        queued.sort_unstable();
        live.sort_unstable();
        assert_eq!(queued, live, "s3fifo: ids in the queues");
    }
}
