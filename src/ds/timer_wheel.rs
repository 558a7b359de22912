//! A hierarchical timer wheel of ids.
//!
//! Time is cut into ticks of 2^23 ns (8.4 ms); 7 levels of 64 buckets cover all
//! of `u64`. An id lies at the level of the highest 6-bit group in which its due
//! tick differs from the wheel's tick, in the bucket of that group's value there.
//! When the wheel's tick reaches a bucket of a coarse level, the bucket is
//! *drained*: its ids are looked at one by one and, unless due, scheduled finer.
//!
//! The ids of the very tick that time is in are looked at, and those not due yet
//! set aside in a list of *waiting* ones with the earliest of their dues, before
//! which nobody looks at them again. So an id is reported by the first call at or
//! after its due that has the steps for it, and never before.
//!
//! Between two things to do the wheel is *quiet*: a call that comes before the next bucket's first tick
//! and before any due looks at one number and goes.
//!
//! The wheel is *lazy*: an id that is rescheduled to a later time stays where it is, and one whose
//! owner has no more use for it stays until its turn comes. Then its due is asked for, and it moves on or
//! leaves. So an id costs a look in its turn, and nothing at each write.
//!
//! Time only moves forward by [`TimerWheel::pop_expired`]; a smaller `now` than one
//! seen is taken for that one.
//!
//! # Invariants
//!
//! - `tick <= now`'s tick, and all ids due before `tick` are either in its bucket
//!   of level 0, in the bucket being drained, or in one of the two lists aside.
//! - Other ids lie at the place that their due, or some time before it, gives relative to
//!   `tick`: at level 0 in a bucket from `tick`'s on, at the other levels in one
//!   after `tick`'s. (Of two buckets, the one with the lower tag comes first.)
//! - An id's tag tells the list it is in: 0 none, `1 + level * 64 + slot` a bucket,
//!   then the two lists aside. `occupied` has a bit for each bucket not empty.
//! - `draining` is 0 or the tag of a coarse bucket that is not empty.
//! - `no_timer_before` is at most the earliest due of all ids.
//! - When the due of an id moves forward, the owner schedules it anew.
//!
//! # Cost
//!
//! `schedule`: O(1), at most an unlink and a link, and neither if the id is early enough. `pop_expired`: O(1) per
//! step; an id takes one step when reported and at most one per level before, plus
//! one each time a due id of its own tick makes the waiting ones looked at again.
//! 10 bytes per id, and 768 bytes for the buckets of each level up to the highest that was needed: three for a
//! time to live of some minutes, four for one of an hour.

use crate::ds::chunked_vec::ChunkedVec;
use crate::ds::list::{Links, List};

/// Nanoseconds in a tick, as a power of two.
const TICK_BITS: u32 = 23;

/// Bits of the tick a level tells apart.
const GROUP_BITS: u32 = 6;

/// Buckets in a level.
const GROUP: u16 = 1 << GROUP_BITS;

/// Levels: 7 groups of 6 bits hold the 41 bits of a tick.
const LEVELS: usize = 7;

/// The tags of the two lists aside; those below are buckets'.
const PENDING: [u16; 2] = [1 + LEVELS as u16 * GROUP, 2 + LEVELS as u16 * GROUP];

/// The due of an id that is never due.
const NEVER: u64 = u64::MAX;

/// A timer wheel of ids. In this order: what every call looks at comes first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct TimerWheel {
    len: u32,
    /// The tag of the coarse bucket being drained, or 0.
    draining: u16,
    /// The latest time seen.
    now: u64,
    /// Before this time there is nothing to do: no id is due, and no bucket reached.
    no_timer_before: u64,
    /// Everything before this tick was handled.
    tick: u64,
    links: Links,
    /// The list that each id is in.
    tags: ChunkedVec<u16>,
    /// The buckets by tag, for as many levels as were needed so far; empty until something is scheduled.
    buckets: Vec<List>,
    /// The two lists aside.
    pending: [List; 2],
    /// Per level, a bit for each bucket not empty.
    occupied: [u64; LEVELS],
    /// Which of the two lists aside is being looked through; the other waits.
    scanned: usize,
    /// No waiting id is due before this.
    waiting_for: u64,
}

#[inline]
fn tick_of(time: u64) -> u64 {
    time >> TICK_BITS
}

#[inline]
fn bucket_tag(level: usize, slot: u64) -> u16 {
    1 + level as u16 * GROUP + slot as u16
}

impl TimerWheel {
    /// An empty wheel at time `now`; allocates nothing.
    pub(crate) fn new(now: u64) -> Self {
        Self {
            links: Links::new(),
            tags: ChunkedVec::new(),
            buckets: Vec::new(),
            pending: [List::new(); 2],
            occupied: [0; LEVELS],
            tick: tick_of(now),
            now,
            draining: 0,
            scanned: 0,
            waiting_for: NEVER,
            no_timer_before: NEVER,
            len: 0,
        }
    }

    /// The number of ids scheduled.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    #[cfg(any(test, debug_assertions))]
    /// Whether the id is on the wheel.
    #[inline]
    pub(crate) fn is_scheduled(&self, id: u32) -> bool {
        self.tag(id) != 0
    }

    /// Sees to it that the id is looked at by `due` (`u64::MAX`: it need not be).
    #[inline]
    pub(crate) fn schedule(&mut self, id: u32, due: u64) {
        if due == NEVER {
            return;
        }
        self.no_timer_before = self.no_timer_before.min(due);
        let (stands, place) = (self.tag(id), self.place_of(due));
        // A bucket with a lower tag comes first. Ids aside are looked at by their dues.
        if stands == 0 || stands > place {
            self.move_to(id, stands, place);
        }
    }

    /// Takes an id off the wheel, if it is there.
    fn unschedule(&mut self, id: u32) {
        let tag = self.tag(id);
        if tag != 0 {
            self.unlink(id, tag);
            self.len -= 1;
        }
    }

    /// The entry at `from` is at `to` from now on: `from` is taken off the wheel, as is whatever `to` stood
    /// for before.
    pub(crate) fn relocate(&mut self, from: u32, to: u32, due: u64) {
        self.unschedule(from);
        self.unschedule(to);
        self.schedule(to, due);
    }

    /// Gives back what is kept for ids from `len` on, taking those off the wheel that are still on it and
    /// that nobody has a use for: at most `budget` ids and chunks.
    pub(crate) fn truncate(&mut self, len: u32, budget: &mut u32) {
        while *budget > 0 && self.tags.len() > 0 && self.tags.last_chunk() >= len {
            let first = self.tags.last_chunk();
            for id in first..self.tags.len() as u32 {
                if self.tag(id) == 0 {
                    continue;
                }
                if *budget == 0 {
                    return;
                }
                self.unschedule(id);
                *budget -= 1;
            }
            self.tags.truncate(first, budget);
        }
        // Links of ids that are still in a list stay.
        self.links.truncate(self.tags.len() as u32, budget);
    }

    fn move_to(&mut self, id: u32, stands: u16, place: u16) {
        if stands != 0 {
            self.unlink(id, stands);
        } else {
            self.links.reserve_for(id);
            self.tags.reserve_for(id);
            self.len += 1;
        }
        self.put(id, place);
    }

    /// Takes an id off the wheel that is due at `now`; `None` if there is none
    /// or `steps`, of which each id and each bucket looked at takes one, ran out.
    ///
    /// `due_of` tells the due an id has by now, which may be later than it was
    /// scheduled at (it is then scheduled at that) or `u64::MAX` (it is then taken
    /// off the wheel).
    #[inline]
    pub(crate) fn pop_expired(
        &mut self,
        now: u64,
        steps: &mut u32,
        due_of: impl Fn(u32) -> u64,
    ) -> Option<u32> {
        // An earlier `now` than one seen is taken for that one.
        self.now = self.now.max(now);
        if self.no_timer_due(now) {
            return None;
        }
        self.work(steps, due_of)
    }

    /// Whether there is nothing to do before `now` is past.
    #[inline]
    pub(crate) fn no_timer_due(&self, now: u64) -> bool {
        now.max(self.now) < self.no_timer_before
    }

    #[cold]
    fn work(&mut self, steps: &mut u32, due_of: impl Fn(u32) -> u64) -> Option<u32> {
        if self.len == 0 {
            self.tick = tick_of(self.now);
            self.no_timer_before = NEVER;
            return None;
        }
        while *steps > 0 {
            if let Some(id) = self.candidate() {
                *steps -= 1;
                if self.handle(id, &due_of) {
                    return Some(id);
                }
            } else if self.advance() {
                *steps -= 1;
            } else {
                self.no_timer_before = self.next_due().unwrap_or(NEVER);
                return None;
            }
        }
        None
    }

    #[inline]
    fn tag(&self, id: u32) -> u16 {
        self.tags.try_get(id).copied().unwrap_or(0)
    }

    /// A time before which [`TimerWheel::pop_expired`] finds nothing to do.
    pub(crate) fn next_due(&self) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        let current = self.occupied[0] >> (self.tick % u64::from(GROUP)) & 1 != 0;
        if current || self.draining != 0 || !self.pending[self.scanned].is_empty() {
            // Not looked at yet: maybe due at any moment.
            return Some(self.now);
        }
        if !self.pending[1 - self.scanned].is_empty() {
            return Some(self.waiting_for);
        }
        let (_, start) = self.first_bucket()?;
        Some(start << TICK_BITS)
    }

    /// Takes all ids off the wheel. Returns the memory that held them, to be freed later.
    pub(crate) fn clear(&mut self) -> Self {
        let new = Self::new(self.now);
        std::mem::replace(self, new)
    }

    /// Gives the memory of a wheel that was cleared away back, at most `budget` chunks of it.
    pub(crate) fn free_some(&mut self, budget: &mut u32) {
        self.buckets = Vec::new();
        self.links.truncate(0, budget);
        self.tags.truncate(0, budget);
    }

    /// Bytes allocated.
    #[cfg(test)]
    pub(crate) fn heap_bytes(&self) -> usize {
        self.links.heap_bytes()
            + self.tags.heap_bytes()
            + self.buckets.capacity() * size_of::<List>()
    }

    /// The list of a tag, and the links of all lists.
    #[inline]
    fn list_mut(&mut self, tag: u16) -> (&mut List, &mut Links) {
        if tag >= PENDING[0] {
            let list = &mut self.pending[usize::from(tag - PENDING[0])];
            return (list, &mut self.links);
        }
        if self.buckets.len() <= usize::from(tag) {
            self.add_level(tag);
        }
        (&mut self.buckets[usize::from(tag)], &mut self.links)
    }

    /// Makes buckets up to the level of this one.
    #[cold]
    fn add_level(&mut self, tag: u16) {
        let levels = usize::from((tag - 1) / GROUP) + 1;
        let len = 1 + levels * usize::from(GROUP);
        self.buckets.reserve_exact(len - self.buckets.len());
        self.buckets.resize(len, List::new());
    }

    /// The tag of the bucket for `due`, seen from `tick`.
    #[inline]
    fn place_of(&self, due: u64) -> u16 {
        // What is overdue goes to the bucket looked at next.
        let tick = tick_of(due).max(self.tick);
        let differ = tick ^ self.tick;
        let level = (63 - (differ | 1).leading_zeros()) / GROUP_BITS;
        let slot = tick >> (level * GROUP_BITS) & u64::from(GROUP - 1);
        bucket_tag(level as usize, slot)
    }

    #[inline]
    fn put(&mut self, id: u32, tag: u16) {
        *self.tags.get_mut(id) = tag;
        // At the end, so that ids of one tick come out as they went in.
        let (list, links) = self.list_mut(tag);
        list.push_back(links, id);
        if tag < PENDING[0] {
            let at = usize::from(tag - 1);
            self.occupied[at / GROUP as usize] |= 1 << (at % GROUP as usize);
        }
    }

    #[inline]
    fn unlink(&mut self, id: u32, tag: u16) {
        *self.tags.get_mut(id) = 0;
        let (list, links) = self.list_mut(tag);
        list.unlink(links, id);
        if list.is_empty() && tag < PENDING[0] {
            let at = usize::from(tag - 1);
            self.occupied[at / GROUP as usize] &= !(1 << (at % GROUP as usize));
            if self.draining == tag {
                self.draining = 0;
            }
        }
    }

    /// The next id to look at before the tick may move on.
    fn candidate(&mut self) -> Option<u32> {
        if self.draining != 0 {
            return self.buckets[self.draining as usize].front();
        }
        let current = bucket_tag(0, self.tick % u64::from(GROUP));
        if let Some(id) = self.buckets.get(usize::from(current)).and_then(List::front) {
            return Some(id);
        }
        if self.pending[self.scanned].is_empty() && self.waiting_for <= self.now {
            // One of the waiting may be due: look through them once more.
            self.scanned = 1 - self.scanned;
            self.waiting_for = NEVER;
        }
        self.pending[self.scanned].front()
    }

    /// Deals with an id in turn; whether it is due, and then off the wheel.
    fn handle(&mut self, id: u32, due_of: &impl Fn(u32) -> u64) -> bool {
        self.unlink(id, self.tag(id));
        let due = due_of(id);
        if due == NEVER || due <= self.now {
            self.len -= 1;
            return due != NEVER;
        }
        if tick_of(due) > self.tick {
            self.put(id, self.place_of(due));
        } else {
            self.waiting_for = self.waiting_for.min(due);
            self.put(id, PENDING[1 - self.scanned]);
        }
        false
    }

    /// With no candidate left, moves the tick on; whether a bucket was reached.
    fn advance(&mut self) -> bool {
        if !self.pending[1 - self.scanned].is_empty() {
            // They are not due: so time is still in this tick.
            debug_assert_eq!(self.tick, tick_of(self.now), "wheel: overdue ids wait");
            return false;
        }
        let reached = self
            .first_bucket()
            .filter(|&(_, start)| start <= tick_of(self.now));
        let Some((tag, start)) = reached else {
            // The places of all ids are the same seen from there.
            self.tick = tick_of(self.now);
            return false;
        };
        self.tick = start;
        if tag > GROUP {
            self.draining = tag;
        }
        true
    }

    /// The earliest bucket not empty, and its first tick. What lies at a level
    /// is always earlier than what lies at the coarser ones.
    fn first_bucket(&self) -> Option<(u16, u64)> {
        let level = self.occupied.iter().position(|&bits| bits != 0)?;
        let slot = u64::from(self.occupied[level].trailing_zeros());
        let bits = level as u32 * GROUP_BITS;
        let above = self.tick >> (bits + GROUP_BITS) << (bits + GROUP_BITS);
        Some((bucket_tag(level, slot), above | slot << bits))
    }

    /// Panics if an invariant is broken. `due_of` as for `pop_expired`.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn validate(&self, due_of: impl Fn(u32) -> u64) {
        self.links.validate();
        self.tags.validate();
        assert!(self.tick <= tick_of(self.now), "wheel: tick beyond now");
        let (mut count, mut occupied) = (0, [0; LEVELS]);
        let none = List::new();
        let tags = 0..=usize::from(PENDING[1]);
        let lists: Vec<&List> = tags
            .map(|tag| match tag.checked_sub(usize::from(PENDING[0])) {
                Some(which) => &self.pending[which],
                None => self.buckets.get(tag).unwrap_or(&none),
            })
            .collect();
        for (tag, list) in lists.iter().enumerate() {
            list.validate(&self.links);
            count += list.len();
            for id in list.iter(&self.links) {
                assert_eq!(self.tag(id) as usize, tag, "wheel: tag of {id}");
            }
            if list.is_empty() || tag >= PENDING[0] as usize {
                continue;
            }
            let (level, slot) = ((tag - 1) / GROUP as usize, (tag - 1) as u64 % 64);
            occupied[level] |= 1_u64 << slot;
            let bits = level as u32 * GROUP_BITS;
            let here = self.tick >> bits & 63;
            assert!(
                slot > here || (slot == here && (level == 0 || self.draining as usize == tag)),
                "wheel: a bucket left behind"
            );
            let start = ((self.tick >> bits & !63) | slot) << bits << TICK_BITS;
            for id in list.iter(&self.links) {
                // A first tick of the current level-0 bucket says nothing: what
                // was overdue is there as well.
                let late = due_of(id) >= start || (level == 0 && slot == here);
                assert!(late, "wheel: {id} lies too late");
            }
        }
        assert_eq!(count, self.len, "wheel: count of ids");
        for id in lists.iter().flat_map(|list| list.iter(&self.links)) {
            let due = due_of(id);
            assert!(
                due >= self.no_timer_before || due <= self.now,
                "wheel: {id} is slept over"
            );
        }
        assert_eq!(occupied, self.occupied, "wheel: occupied");
        if count > 0 {
            for id in self.pending[1 - self.scanned].iter(&self.links) {
                assert!(due_of(id) >= self.waiting_for, "wheel: {id} waits too long");
            }
        }
        if self.draining != 0 {
            let drained = &self.buckets[self.draining as usize];
            assert!(!drained.is_empty(), "wheel: drains an empty bucket");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const TICK: u64 = 1 << TICK_BITS;

    struct Rand(u64);

    impl Rand {
        fn next(&mut self, n: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 8) % n
        }

        /// A span of any magnitude up to `2^bits`.
        fn span(&mut self, bits: u64) -> u64 {
            let bits = self.next(bits);
            self.next(1 << bits)
        }
    }

    /// The due of an id that may have been given up.
    fn due_in(dues: &BTreeMap<u32, u64>, id: u32) -> u64 {
        dues.get(&id).copied().unwrap_or(NEVER)
    }

    fn drain(wheel: &mut TimerWheel, now: u64, dues: &BTreeMap<u32, u64>) -> Vec<u32> {
        let (mut out, mut steps) = (Vec::new(), u32::MAX);
        while let Some(id) = wheel.pop_expired(now, &mut steps, |id| due_in(dues, id)) {
            out.push(id);
        }
        out.sort_unstable();
        out
    }

    #[test]
    fn reports_exactly_what_is_due() {
        let mut rand = Rand(0xdead_beef_1234_5677);
        for round in 0..60 {
            // From the start, just before a wrap of each level, and anywhere.
            let mut now = match round % 10 {
                0 => 0,
                9 => rand.next(1 << 50),
                level => (1 << (TICK_BITS + 6 * (level as u32 - 1).min(6))) * 3 - 2 * TICK,
            };
            let mut wheel = TimerWheel::new(now);
            // Every id has its current due here, which may run ahead of the wheel.
            let mut dues: BTreeMap<u32, u64> = BTreeMap::new();
            let reach = [20, 26, 34, 50][round % 4];
            for _ in 0..1_500 {
                let id = rand.next(200) as u32;
                let due = (now + rand.span(reach)).saturating_sub(rand.next(TICK * 2));
                match rand.next(10) {
                    0..=4 => {
                        dues.insert(id, due);
                        wheel.schedule(id, due);
                        assert!(wheel.is_scheduled(id));
                    }
                    // Its owner has no more use for it.
                    5 => {
                        dues.remove(&id);
                    }
                    // Prolonged behind the wheel's back.
                    6 => {
                        if let Some(old) = dues.get_mut(&id) {
                            *old = (*old).max(due);
                        }
                    }
                    _ => {
                        now += rand.span(reach);
                        let wanted: Vec<u32> = dues
                            .iter()
                            .filter(|&(_, &due)| due <= now)
                            .map(|(&id, _)| id)
                            .collect();
                        let next = wheel.next_due();
                        assert_eq!(drain(&mut wheel, now, &dues), wanted, "at {now}");
                        if !wanted.is_empty() {
                            assert!(next.unwrap() <= now);
                        }
                        dues.retain(|_, due| *due > now);
                        let first = dues.values().min();
                        assert!(first.is_none_or(|&first| wheel.next_due().unwrap() <= first));
                    }
                }
                assert!(wheel.len() as usize >= dues.len());
                assert!(dues.keys().all(|&id| wheel.is_scheduled(id)));
                if rand.next(20) == 0 {
                    wheel.validate(|id| due_in(&dues, id));
                }
            }
        }
    }

    #[test]
    fn tiny_budgets_only_delay() {
        let mut rand = Rand(0x5555_1234_9876_4321);
        let mut now = 1_u64 << 40;
        let mut wheel = TimerWheel::new(now);
        let mut dues: BTreeMap<u32, u64> = BTreeMap::new();
        for turn in 0..60_000_u64 {
            if turn % 3 == 0 {
                let id = rand.next(2_000) as u32;
                let due = now + rand.span(32);
                wheel.schedule(id, due);
                dues.insert(id, due);
            }
            now += rand.next(TICK / 4);
            if rand.next(1_000) == 0 {
                now += rand.span(40);
            }
            let mut steps = rand.next(5) as u32;
            let given = steps;
            while let Some(id) = wheel.pop_expired(now, &mut steps, |id| dues[&id]) {
                assert!(dues.remove(&id).unwrap() <= now);
            }
            assert!(steps <= given);
            if rand.next(300) == 0 {
                wheel.validate(|id| dues[&id]);
            }
        }
        let left = drain(&mut wheel, u64::MAX - 1, &dues);
        assert!(left.iter().eq(dues.keys()));
        assert_eq!((wheel.len(), wheel.next_due()), (0, None));
    }

    #[test]
    fn a_later_due_moves_nothing_and_an_earlier_one_does() {
        let mut wheel = TimerWheel::new(0);
        wheel.schedule(1, TICK * 100);
        let stands = wheel.tag(1);
        wheel.schedule(1, TICK * 5_000);
        assert_eq!(wheel.tag(1), stands);
        wheel.schedule(1, TICK * 3);
        assert!(wheel.tag(1) < stands);
        // Found early in the bucket of its first due, it goes on to that of its last.
        let (mut steps, due_of) = (100, |_| TICK * 5_000);
        assert_eq!(wheel.pop_expired(TICK * 4, &mut steps, due_of), None);
        assert_eq!(steps, 98, "a bucket and an id");
        assert_eq!(wheel.pop_expired(TICK * 5_000, &mut steps, due_of), Some(1));
        assert_eq!(wheel.len(), 0);
    }

    #[test]
    fn a_crowded_tick_is_looked_through_in_turn() {
        let mut wheel = TimerWheel::new(0);
        let dues: BTreeMap<u32, u64> = (0..1_000).map(|id| (id, u64::from(id) * 8_000)).collect();
        dues.iter().for_each(|(&id, &due)| wheel.schedule(id, due));
        let mut reported = Vec::new();
        for now in (0..8_000_000).step_by(50_000) {
            let mut steps = 40;
            while let Some(id) = wheel.pop_expired(now, &mut steps, |id| dues[&id]) {
                assert!(dues[&id] <= now);
                reported.push(id);
            }
            wheel.validate(|id| dues[&id]);
        }
        assert!(reported.len() > 100);
        reported.extend(drain(&mut wheel, TICK, &dues));
        reported.sort_unstable();
        assert!(reported.iter().eq(dues.keys()));
    }

    #[test]
    fn a_jump_of_centuries_is_cheap() {
        let mut wheel = TimerWheel::new(5);
        let far = 1_u64 << 62;
        let dues = BTreeMap::from([(1, 10), (2, TICK * 500), (3, far), (4, far + 1)]);
        dues.iter().for_each(|(&id, &due)| wheel.schedule(id, due));
        let (mut steps, mut out) = (100, Vec::new());
        while let Some(id) = wheel.pop_expired(far, &mut steps, |id| dues[&id]) {
            out.push(id);
        }
        assert_eq!(out, [1, 2, 3]);
        assert!(steps > 70, "{steps} of 100 left");
        // Time going backwards is time standing still.
        assert_eq!(wheel.pop_expired(0, &mut steps, |id| dues[&id]), None);
        assert_eq!(wheel.next_due(), Some(far + 1));
        assert_eq!(
            wheel.pop_expired(far + 1, &mut steps, |id| dues[&id]),
            Some(4)
        );
    }

    #[test]
    fn never_and_dropped() {
        let mut wheel = TimerWheel::new(0);
        assert_eq!(wheel.heap_bytes(), 0);
        wheel.schedule(1, NEVER);
        assert!(!wheel.is_scheduled(1));
        assert_eq!(wheel.heap_bytes(), 0);
        wheel.schedule(1, 100);
        // That it need not be looked at is noticed when it is.
        wheel.schedule(1, NEVER);
        assert!(wheel.is_scheduled(1));
        wheel.schedule(1, 100);
        assert_eq!(wheel.len(), 1);
        wheel.schedule(2, NEVER - 1);
        let mut steps = 100;
        let due_of = |id| if id == 1 { NEVER } else { NEVER - 1 };
        assert_eq!(wheel.pop_expired(1_000, &mut steps, due_of), None);
        assert!(!wheel.is_scheduled(1) && wheel.is_scheduled(2));
        assert_eq!(wheel.pop_expired(NEVER - 2, &mut steps, due_of), None);
        assert_eq!(wheel.pop_expired(NEVER - 1, &mut steps, due_of), Some(2));
        wheel.schedule(2, NEVER - 1);
        wheel.clear();
        assert_eq!((wheel.len(), wheel.heap_bytes()), (0, 0));
        assert_eq!(wheel.next_due(), None);
    }
}
