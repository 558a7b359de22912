//! Writes, removals and maintenance: each called on the cache and on the reference, and compared.

use std::time::Duration;

use larder::{Added, Compute, EntryOptions, RejectReason, Rejected, RemovalCause};

use crate::config::Key;
use crate::ops::Op;
use crate::reference::{Effect, Life, Slot, Ttl, until};
use crate::run::Run;

pub(crate) fn tag_name(tag: u8) -> String {
    format!("tag {tag}")
}

pub(crate) fn options(ttl: Ttl, tags: &[u8]) -> EntryOptions {
    let options = EntryOptions::new().tags(tags.iter().map(|&tag| tag_name(tag)));
    match ttl {
        Ttl::Default => options,
        Ttl::For(time) => options.time_to_live(time),
        Ttl::Forever => options.no_expiry(),
    }
}

pub(crate) fn key_of(slot: Slot) -> Key {
    Key {
        id: slot.1,
        space: slot.0,
    }
}

/// Compares refusals field by field.
pub(crate) fn same<T: std::fmt::Debug + PartialEq>(
    got: Result<T, Rejected<i64>>,
    want: Result<T, (i64, RejectReason)>,
) {
    assert_eq!(
        got.map_err(|rejected| (rejected.value, rejected.reason)),
        want
    );
}

impl Run {
    pub(crate) fn count_read(&mut self, hit: bool) {
        self.tally.hits += u64::from(hit);
        self.tally.misses += u64::from(!hit);
    }

    pub(crate) fn count_write(&mut self, refused: bool) {
        self.tally.inserts += u64::from(!refused);
        self.tally.rejections += u64::from(refused);
    }

    pub(crate) fn insert(
        &mut self,
        slot: Slot,
        value: i64,
        ttl: Ttl,
        tags: &[u8],
        tag_count: usize,
    ) {
        let life = self.reference.life_of_write(slot, ttl, value);
        let (mut effect, refused) = self.reference.write(slot, value, life, tags, tag_count);
        effect.own_ttl(ttl);
        let (cache, key) = self.at(slot);
        let plain = ttl == Ttl::Default && tags.is_empty();
        let got = if tag_count > tags.len() {
            let names = (0..tag_count).map(|n| n.to_string());
            cache.insert_with(key, value, EntryOptions::new().tags(names))
        } else if plain && value % 2 == 0 {
            cache.try_insert(key, value)
        } else if plain {
            // `insert` itself cannot say that it refused.
            let old = cache.insert(key, value);
            match &refused {
                Some(reason) => {
                    assert_eq!(old, None, "refused, and yet it replaced something");
                    self.settle(&effect);
                    self.count_write(true);
                    drop(reason.to_string());
                    return;
                }
                None => Ok(old),
            }
        } else {
            cache.insert_with(key, value, options(ttl, tags))
        };
        self.count_write(refused.is_some());
        match refused {
            Some(reason) => {
                self.settle(&effect);
                same(got, Err((value, reason)));
            }
            None => same(got, Ok(self.settle_write(&effect))),
        }
    }

    pub(crate) fn add(&mut self, slot: Slot, value: i64, with: Option<(Ttl, &Vec<u8>)>) {
        let (ttl, tags) = with.map_or((Ttl::Default, &[][..]), |(ttl, tags)| (ttl, &tags[..]));
        let present = self.reference.value(slot);
        let (cache, key) = self.at(slot);
        let got = match with {
            None => Ok(cache.add(key, value)),
            Some(_) => cache.add_with(key, value, options(ttl, tags)),
        };
        if let Some(present) = present {
            same(got, Ok(Added::Present { present, value }));
            self.settle(&Effect::default());
            return;
        }
        let life = self.reference.life_of_new(ttl, value);
        let (mut effect, refused) = self.reference.write(slot, value, life, tags, tags.len());
        effect.own_ttl(ttl);
        self.count_write(refused.is_some());
        self.settle(&effect);
        match refused {
            Some(reason) if with.is_some() => same(got, Err((value, reason))),
            _ => same(got, Ok(Added::Stored)),
        }
    }

    pub(crate) fn replace(&mut self, slot: Slot, value: i64) {
        let (cache, key) = self.at(slot);
        let got = cache.replace(key, value);
        let Some(old) = self.reference.value(slot) else {
            assert_eq!(got, Err(value));
            self.settle(&Effect::default());
            return;
        };
        let life = self.reference.life_of_write(slot, Ttl::Default, value);
        let (effect, refused) = self.reference.write(slot, value, life, &[], 0);
        self.count_write(refused.is_some());
        self.settle(&effect);
        assert_eq!(
            got,
            if refused.is_some() {
                Err(value)
            } else {
                Ok(old)
            }
        );
    }

    pub(crate) fn compute(&mut self, op: &Op) {
        let (slot, decision) = match *op {
            Op::ComputeKeep(slot) => (slot, Compute::Keep),
            Op::ComputePut(slot, value) => (slot, Compute::Put(value)),
            Op::ComputeRemove(slot) => (slot, Compute::Remove),
            _ => unreachable!("not a computation"),
        };
        let old = self.reference.value(slot);
        let (cache, key) = self.at(slot);
        let mut asked = Vec::new();
        let got = cache.compute(&key, |seen| {
            asked.push(seen.copied());
            decision
        });
        assert_eq!(asked, [old], "what the closure saw");
        let mut new = None;
        let mut effect = Effect::default();
        match decision {
            Compute::Put(value) => {
                let (write, refused) = self.reference.write_computed(slot, value, false);
                self.count_write(refused.is_some());
                new = refused.is_none().then_some(value);
                effect = write;
            }
            Compute::Remove if old.is_some() => effect.explicit.push(slot),
            // Where there is nothing to remove, nothing is forgotten either.
            Compute::Remove if self.reference.stale(slot).is_some() => {
                effect.met.push(slot);
                self.reference.failures.remove(&slot);
            }
            Compute::Remove => {}
            _ => new = old,
        }
        self.settle(&effect);
        assert_eq!((got.old, got.new), (old, new));
    }

    pub(crate) fn count(&mut self, slot: Slot, by: i64) {
        let (cache, key) = self.at(slot);
        let got = if by < 0 {
            cache.decr(&key, -by)
        } else {
            cache.incr(&key, by)
        };
        let old = self.reference.value(slot);
        let config = self.reference.config;
        let Some(sum) = old.map(|value| value + by) else {
            assert_eq!(got, None);
            self.settle(&Effect::default());
            return;
        };
        if config.weigher || config.expiry {
            // Written like what is computed, since the user's code has to be asked.
            let (effect, refused) = self.reference.write_computed(slot, sum, true);
            self.count_write(refused.is_some());
            self.settle(&effect);
            assert_eq!(got, refused.is_none().then_some(sum));
            return;
        }
        assert_eq!(got, Some(sum));
        let now = self.reference.now;
        let held = self.reference.held.get_mut(&slot).expect("it is live");
        // The deadline by age stays; the idle time begins anew, as by any write.
        held.value = sum;
        held.accessed = now;
        self.settle(&Effect::default());
    }

    pub(crate) fn touch(&mut self, slot: Slot, time: Option<Duration>) {
        let (cache, key) = self.at(slot);
        let live = self.reference.value(slot).is_some();
        assert_eq!(cache.touch(&key, time), live);
        let now = self.reference.now;
        let mut effect = Effect::default();
        if live {
            match until(now, time) {
                Life::Nothing => effect.explicit.push(slot),
                Life::Until(at) => {
                    let held = self.reference.held.get_mut(&slot).expect("it is live");
                    held.expires_at = at;
                    held.own_ttl = true;
                    held.accessed = now;
                }
            }
        }
        self.settle(&effect);
    }

    pub(crate) fn step_remove(&mut self, op: &Op) {
        let mut effect = Effect::default();
        let slot = match *op {
            Op::Remove(slot) | Op::Invalidate(slot) | Op::RemoveIf(slot, _) => slot,
            _ => unreachable!("not a removal"),
        };
        let (cache, key) = self.at(slot);
        let old = self.reference.value(slot);
        let mut removed = old;
        match *op {
            Op::Remove(_) => assert_eq!(cache.remove(&key), old),
            Op::Invalidate(_) => assert_eq!(cache.invalidate(&key), old.is_some()),
            Op::RemoveIf(_, remainder) => {
                removed = old.filter(|value| value % 3 == remainder);
                let got = cache.remove_if(&key, |value| value % 3 == remainder);
                assert_eq!(got, removed);
            }
            _ => {}
        }
        match old {
            // Past its time, it goes whatever a closure would say of it.
            None => effect.met.push(slot),
            Some(_) if removed.is_some() => effect.explicit.push(slot),
            Some(_) => {}
        }
        self.settle(&effect);
        self.reference.failures.remove(&slot);
    }

    pub(crate) fn retain(&mut self, space: u8, remainder: i64) {
        let condemned = |value: i64| value % 3 == remainder;
        let explicit = self.reference.live_in(space, condemned);
        let met = self.reference.stale_in(space, condemned);
        let all = |_| true;
        let asked =
            self.reference.live_in(space, all).len() + self.reference.stale_in(space, all).len();
        // A closure that was asked and condemned nothing says nothing of what it could not be asked about.
        let doubtful = asked == 0 || explicit.len() + met.len() > 0;
        let removed = self.spaces[space as usize].retain(|_, value| value % 3 != remainder);
        let journal = self.settle(&Effect {
            explicit,
            met,
            ..Effect::default()
        });
        // Trimming may take a condemned entry first; that one was not removed by this call.
        let ordered = journal
            .iter()
            .filter(|(_, cause)| *cause == RemovalCause::Explicit);
        assert_eq!(removed, ordered.count());
        if doubtful {
            self.reference.failures.retain(|slot, _| slot.0 != space);
        }
    }

    pub(crate) fn clear(&mut self, space: u8) {
        for (slot, held) in &mut self.reference.held {
            held.dead.cleared |= space == 0;
            held.dead.space |= space != 0 && slot.0 == space;
        }
        let failures = &mut self.reference.failures;
        failures.retain(|slot, _| space != 0 && slot.0 != space);
        self.spaces[space as usize].clear();
        self.settle(&Effect::default());
        if space == 0 {
            assert_eq!(self.subject.cache.len(), 0);
        }
    }

    pub(crate) fn invalidate_tag(&mut self, tag: u8) {
        for held in self.reference.held.values_mut() {
            held.dead.tag |= held.tags.contains(&tag);
        }
        self.subject.cache.invalidate_tag(&tag_name(tag));
        self.settle(&Effect::default());
    }

    pub(crate) fn run_pending(&mut self, budget: u32) {
        let done = self.subject.cache.run_pending(budget);
        let journal = self.settle(&Effect::default());
        assert_eq!(done as usize, journal.len());
        assert!(done <= budget);
        if budget >= 10_000 {
            self.reference.trimming = false;
            let reference = &self.reference;
            let waste = |held: &&_| {
                let held: &crate::reference::Held = held;
                held.dead.cleared || reference.now >= reference.kept_until(held)
            };
            assert_eq!(reference.held.values().find(waste).map(|_| ()), None);
        }
    }

    pub(crate) fn set_capacity(&mut self, capacity: u64) {
        let reference = &mut self.reference;
        let (entries, weight) = reference.totals(|_| true);
        // With shards, one of them may have to be trimmed where the whole would fit.
        let over = entries.max(weight) > capacity;
        reference.trimming |=
            over || (reference.config.shards > 1 && capacity < reference.capacity);
        reference.capacity = capacity;
        self.subject.cache.set_capacity(capacity);
        self.settle(&Effect::default());
        assert_eq!(self.subject.cache.capacity(), capacity);
        let heaviest = self.subject.cache.max_entry_weight();
        assert_eq!(heaviest, capacity / self.reference.config.shards);
    }
}
