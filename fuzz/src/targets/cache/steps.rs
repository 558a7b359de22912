//! The operations: each called on the cache, and what it said compared with the reference.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Held, NEVER, Op, Run, Slot, TAGS, Write, weight};
use crate::cache::{Added, Compute};
use crate::entry::{EntryOptions, Loaded};
use crate::targets::{GRAIN, kept};
use crate::util::error::TryLoadError;

impl Run {
    pub(super) fn step(&mut self, op: &Op) {
        match *op {
            Op::Setup(_) => {}
            Op::Get(slot) => {
                let live = self.live(slot);
                let past = self.held.values().any(|held| held.slot == slot);
                self.counts.add("past", u64::from(past && live.is_none()));
                let got = self.spaces[slot.0].get(&slot.1);
                self.observe(got, live);
                self.note_use(got);
            }
            Op::Peek(slot) => {
                let live = self.live(slot);
                self.observe(self.spaces[slot.0].peek(&slot.1), live);
            }
            Op::Contains(slot) => {
                let live = self.live(slot);
                let there = self.spaces[slot.0].contains_key(&slot.1);
                assert!(!there || live.is_some(), "contains what may not be served");
                self.observe(live.filter(|_| there), live);
            }
            Op::Write(write, slot, time, tags) => self.write(write, slot, time, tags),
            Op::Remove(_) | Op::RemoveIf(..) | Op::ComputeRemove(_) => self.remove(op),
            Op::LoadNothing(slot) => {
                let live = self.live(slot);
                let got = self.spaces[slot.0].get_or_load_optional(&slot.1, || None);
                self.observe(got, live);
                self.note_use(got);
            }
            Op::Incr(slot) => self.incr(slot),
            Op::Touch(slot, time) => self.touch(slot, time),
            Op::Retain(space, remainder) => self.retain(space, remainder),
            Op::Clear(_) | Op::InvalidateTag(_) => self.kill(op),
            Op::Advance(by) => {
                self.time.advance(Duration::from_nanos(by));
                self.now += by;
            }
            Op::Meet { early } => self.meet(early),
            Op::RunPending(budget) => self.run_pending(budget),
            Op::SetCapacity(capacity) => {
                self.capacity = capacity;
                let more = if self.bug.is("cache-bound") {
                    self.setup.shards
                } else {
                    0
                };
                self.spaces[0].set_capacity(capacity + more);
            }
            Op::Iterate(space) => self.iterate(space),
        }
    }

    fn meet(&mut self, early: bool) {
        let deadlines = self
            .held
            .values()
            .map(|held| (self.expires_at(held), held.slot));
        let next = deadlines
            .filter(|(at, _)| *at > self.now && *at < NEVER)
            .min();
        if let Some((at, slot)) = next {
            self.step(&Op::Advance(at - self.now - u64::from(early)));
            self.step(&Op::Get(slot));
        }
    }

    /// Until when a write by these means lives; `None` if for no time at all.
    fn lifetime(&self, time: Option<u64>, by_options: bool) -> Option<u64> {
        let time = match by_options {
            true => time,
            false => self.setup.ttl,
        };
        match time {
            None => Some(NEVER),
            Some(0) => None,
            Some(time) => Some(kept(self.now.saturating_add(time))),
        }
    }

    fn write(&mut self, write: Write, slot: Slot, time: Option<u64>, tags: u8) {
        self.next += 1;
        let value = self.next << 32;
        let by_options = matches!(write, Write::With | Write::LoadWith);
        let lifetime = self.lifetime(time, by_options);
        let live = self.live(slot);
        let before = live.and_then(|old| self.held.get(&old).cloned());
        let (seen, applied) = self.call_write(write, slot, value, time, tags);
        // A computed value inherits from the one that it saw.
        let computed = matches!(write, Write::Compute) && matches!(seen, Some(Some(_)));
        let inherited = before.filter(|_| computed);
        let own = inherited.as_ref().filter(|old| old.own_ttl);
        let lifetime = own.map_or(lifetime, |old| Some(old.expires_at));
        let own_ttl = by_options || own.is_some();
        if matches!(write, Write::Load | Write::LoadWith) {
            self.note_use(live.filter(|_| !applied));
            self.counts.add("loaded", u64::from(applied));
        }
        self.hear();
        let weight = if self.setup.weigher { weight(value) } else { 1 };
        let room = self.capacity / self.setup.shards;
        let refused = lifetime.is_none() || room == 0 || weight > room;
        let there = self.spaces[slot.0].peek(&slot.1);
        if !applied {
            self.observe(there, live);
            return;
        }
        // What it says was there before, if it says so.
        if let Some(Some(old)) = seen {
            assert_eq!(Some(old), live, "it replaced what may not be served");
        }
        if let Some(old) = live {
            // Told, where somebody listens.
            let left = self.held.remove(&old);
            assert!(
                left.is_none() || !self.setup.listener,
                "{old:#x} was overwritten in silence"
            );
        }
        assert_eq!(
            there,
            (!refused).then_some(value),
            "what is there after {write:?}"
        );
        self.counts
            .add(if refused { "refused" } else { "written" }, 1);
        if let (false, Some(expires_at)) = (refused, lifetime) {
            let tags = match inherited {
                Some(old) => old.tags,
                None if by_options => tags,
                None => 0,
            };
            let (accessed, dead, cleared) = (self.now, false, false);
            self.held.insert(
                value,
                Held {
                    slot,
                    weight,
                    expires_at,
                    accessed,
                    own_ttl,
                    tags,
                    dead,
                    cleared,
                },
            );
        }
    }

    /// Calls the method. What it says was there before, if it says, and whether it applied.
    fn call_write(
        &self,
        write: Write,
        slot: Slot,
        value: i64,
        time: Option<u64>,
        tags: u8,
    ) -> (Option<Option<i64>>, bool) {
        let (cache, key) = (&self.spaces[slot.0], slot.1);
        let live = self.live(slot);
        let late = if self.bug.is("cache-late") {
            2 * GRAIN
        } else {
            0
        };
        let time = time.map(|time| Duration::from_nanos(if time > 0 { time + late } else { 0 }));
        let names = (0..TAGS).filter(|tag| tags >> tag & 1 != 0);
        let options = EntryOptions::new().tags(names.map(|tag| tag.to_string()));
        let options = match time {
            Some(time) => options.time_to_live(time),
            None => options.no_expiry(),
        };
        let swapped = self.bug.is("cache-swap") && value >> 32 & 15 == 9;
        let key = if swapped { key ^ 1 } else { key };
        match write {
            Write::Insert if self.next % 2 == 0 => (Some(cache.insert(key, value)), true),
            Write::Insert => (cache.try_insert(key, value).ok(), true),
            Write::With => (cache.insert_with(key, value, options).ok(), true),
            Write::Add => match cache.add(key, value) {
                Added::Stored => (None, true),
                Added::Present {
                    present,
                    value: back,
                } => {
                    assert_eq!((Some(present), back), (live, value), "what add found");
                    (None, false)
                }
            },
            Write::Replace => {
                // Not kept is not told from not there by the answer; by what was alive it is, unless
                // that was evicted, and then nothing is written.
                let there = cache.peek(&key).is_some();
                let got = cache.replace(key, value);
                assert!(there || got == Err(value), "replaced nothing");
                (got.ok().map(Some), there)
            }
            Write::Compute => {
                let done = cache.compute(&key, |_| Compute::Put(value));
                (Some(done.old), true)
            }
            Write::Load | Write::LoadWith => {
                let ran = self.call_load(matches!(write, Write::Load), slot, value, options);
                (None, ran)
            }
        }
    }

    /// Calls a load, which gives what is alive or else runs its loader; whether it did.
    fn call_load(&self, plain: bool, slot: Slot, value: i64, options: EntryOptions) -> bool {
        let (cache, key) = (&self.spaces[slot.0], slot.1);
        let live = self.live(slot);
        let mut ran = false;
        let got = if plain {
            cache.get_or_load(&key, || {
                ran = true;
                value
            })
        } else {
            let got: Result<i64, TryLoadError<&str>> = cache.get_or_load_with(&key, || {
                ran = true;
                let loaded = Loaded::new(value);
                Ok(Loaded { options, ..loaded })
            });
            got.expect("the loader does not fail")
        };
        let want = if ran { Some(value) } else { live };
        assert_eq!(Some(got), want, "what a load gave");
        ran
    }

    fn remove(&mut self, op: &Op) {
        let (Op::Remove(slot) | Op::RemoveIf(slot, _) | Op::ComputeRemove(slot)) = *op else {
            unreachable!("not a removal");
        };
        let live = self.live(slot);
        let (cache, key) = (&self.spaces[slot.0], &slot.1);
        let (got, goes) = match *op {
            Op::RemoveIf(_, goes) => (cache.remove_if(key, |_| goes), goes),
            Op::ComputeRemove(_) => (cache.compute(key, |_| Compute::Remove).old, true),
            _ if self.bug.is("cache-stale") => (None, true),
            _ => (cache.remove(key), true),
        };
        if !goes {
            assert_eq!(got, None, "removed what was to stay");
            return;
        }
        self.observe(got, live);
        self.counts.add("removed", u64::from(got.is_some()));
        if let Some(value) = got {
            // Told of already, where somebody listens.
            self.missing(value);
        }
    }

    fn incr(&mut self, slot: Slot) {
        let live = self.live(slot);
        let before = live.and_then(|old| self.held.get(&old).cloned());
        let got = self.spaces[slot.0].incr(&slot.1, 1);
        self.observe(got.map(|sum| sum - 1), live);
        if let (Some(sum), Some(mut held)) = (got, before) {
            // Where a weigher is asked, it is told as replaced.
            if self.setup.weigher {
                self.hear();
            }
            self.held.remove(&(sum - 1));
            held.accessed = self.now;
            self.held.insert(sum, held);
        }
    }

    fn touch(&mut self, slot: Slot, time: Option<u64>) {
        let live = self.live(slot);
        let there = self.spaces[slot.0].touch(&slot.1, time.map(Duration::from_nanos));
        assert!(!there || live.is_some(), "touched what may not be served");
        let Some(value) = live.filter(|_| there) else {
            self.observe(None, live);
            return;
        };
        let (now, lifetime) = (self.now, self.lifetime(time, true));
        match lifetime {
            // A time of zero removes.
            None => self.observe(None, live),
            Some(expires_at) => {
                let held = self.held.get_mut(&value).expect("it is alive");
                (held.expires_at, held.accessed) = (expires_at, now);
                held.own_ttl = true;
            }
        }
    }

    fn alive_in(&self, space: usize) -> BTreeMap<i64, u32> {
        let alive = self
            .held
            .iter()
            .filter(|(_, held)| held.slot.0 == space && self.is_live(held));
        alive.map(|(value, held)| (*value, held.slot.1)).collect()
    }

    fn retain(&mut self, space: usize, remainder: i64) {
        let condemned = |value: i64| (value >> 32) % 3 == remainder;
        let alive = self.alive_in(space);
        let mut seen = Vec::new();
        let removed = self.spaces[space].retain(|key, value| {
            seen.push((*value, *key));
            !condemned(*value)
        });
        for (value, key) in &seen {
            assert_eq!(
                alive.get(value),
                Some(key),
                "retain saw what may not be served"
            );
        }
        assert_eq!(
            removed,
            seen.iter().filter(|(value, _)| condemned(*value)).count()
        );
        self.hear();
        for value in alive.into_keys() {
            let was_seen = seen.iter().any(|(other, _)| *other == value);
            if condemned(value) || !was_seen {
                self.missing(value);
            }
        }
    }

    fn iterate(&mut self, space: usize) {
        let mut alive = self.alive_in(space);
        let seen: Vec<_> = self.spaces[space].iter().collect();
        for (key, value) in seen {
            assert_eq!(
                alive.remove(&value),
                Some(key),
                "a walk met what may not be served, or twice"
            );
        }
        self.hear();
        alive.into_keys().for_each(|value| self.missing(value));
    }

    fn kill(&mut self, op: &Op) {
        let before = self.held.values().filter(|held| self.is_live(held)).count();
        for held in self.held.values_mut() {
            match *op {
                Op::Clear(0) => held.cleared = true,
                Op::Clear(space) => held.dead |= held.slot.0 == space,
                Op::InvalidateTag(tag) => held.dead |= held.tags >> tag & 1 != 0,
                _ => unreachable!("kills nothing"),
            }
        }
        match *op {
            Op::Clear(1) if self.bug.is("cache-space") => {}
            Op::Clear(space) => self.spaces[space].clear(),
            Op::InvalidateTag(tag) if !self.bug.is("cache-tag") => {
                self.spaces[0].invalidate_tag(&tag.to_string());
            }
            _ => {}
        }
        let after = self.held.values().filter(|held| self.is_live(held)).count();
        self.counts.add("killed", (before - after) as u64);
        if matches!(op, Op::Clear(0)) {
            assert_eq!(self.spaces[0].len(), 0, "entries after a clear");
        }
    }

    fn run_pending(&mut self, budget: u32) {
        let done = self.spaces[0].run_pending(budget);
        assert!(done <= budget);
        self.hear();
        if budget >= 10_000 && self.setup.listener {
            let waste = |held: &&Held| held.cleared || self.now >= self.expires_at(held);
            let left = self.held.values().find(waste);
            assert!(left.is_none(), "not reclaimed: {left:?}");
        }
    }
}
