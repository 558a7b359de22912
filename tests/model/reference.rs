//! The reference: what a cache is, without shards, queues, wheels or locks.
//!
//! It holds every entry that has not left yet, alive or not, and decides what is alive by the rules of
//! the documentation alone. Which entry makes room it cannot know: it is told by the journal, and judges
//! whether that removal was legal.

use std::collections::HashMap;
use std::time::Duration;

use larder::{RejectReason, RemovalCause};

use crate::config::{Config, TTI, TTL, policy};

/// A namespace and a key.
pub(crate) type Slot = (u8, u32);

pub(crate) const NEVER: u64 = u64::MAX;

/// How long an operation says that its entry lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ttl {
    Default,
    For(Duration),
    Forever,
}

/// The life of a value about to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Nothing,
    Until(u64),
}

/// What has killed an entry that may still take room.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Dead {
    pub(crate) tag: bool,
    pub(crate) space: bool,
    pub(crate) cleared: bool,
}

impl Dead {
    fn is_dead(self) -> bool {
        self.tag || self.space || self.cleared
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) value: i64,
    pub(crate) weight: u64,
    pub(crate) expires_at: u64,
    /// The time to live was said by who wrote it, and is not the cache's.
    pub(crate) own_ttl: bool,
    pub(crate) accessed: u64,
    pub(crate) tags: Vec<u8>,
    pub(crate) dead: Dead,
}

/// What an operation does beside reclaiming.
#[derive(Debug, Default)]
pub(crate) struct Effect {
    pub(crate) stored: Option<(Slot, Held)>,
    /// Live entries that may leave by this call's order.
    pub(crate) explicit: Vec<Slot>,
    /// A live entry whose time the expiry policy ends, because it was read.
    pub(crate) ended: Option<Slot>,
    /// Entries that are past and are met by the operation, so that they have to leave. Stale ones may.
    pub(crate) met: Vec<Slot>,
}

impl Effect {
    /// Whoever stores the entry says this of its time to live.
    pub(crate) fn own_ttl(&mut self, ttl: Ttl) {
        if let Some((_, held)) = &mut self.stored {
            held.own_ttl = ttl != Ttl::Default;
        }
    }
}

/// Until when a failed load is remembered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    /// As the answer to fallible calls.
    pub(crate) by_all: u64,
    /// As a reason to serve what is stale.
    pub(crate) by_served: u64,
}

impl Failure {
    pub(crate) fn until(self) -> u64 {
        self.by_all.max(self.by_served)
    }
}

#[derive(Debug)]
pub(crate) struct Reference {
    pub(crate) config: Config,
    pub(crate) now: u64,
    pub(crate) capacity: u64,
    /// The capacity was lowered, and not everything is trimmed yet.
    pub(crate) trimming: bool,
    pub(crate) held: HashMap<Slot, Held>,
    pub(crate) failures: HashMap<Slot, Failure>,
    pub(crate) uncacheable: HashMap<Slot, u64>,
    /// What the listener must have heard.
    pub(crate) told: Vec<(Slot, i64, RemovalCause)>,
}

impl Reference {
    pub(crate) fn new(config: Config, capacity: u64) -> Self {
        Reference {
            config,
            now: 0,
            capacity,
            trimming: false,
            held: HashMap::new(),
            failures: HashMap::new(),
            uncacheable: HashMap::new(),
            told: Vec::new(),
        }
    }

    pub(crate) fn deadline(&self, held: &Held) -> u64 {
        held.expires_at.min(self.idle_at(held))
    }

    pub(crate) fn is_live(&self, held: &Held) -> bool {
        !held.dead.is_dead() && self.now < self.deadline(held)
    }

    /// When nobody has a use for it any more: idle for too long, it is not even stale.
    pub(crate) fn kept_until(&self, held: &Held) -> u64 {
        let windows = self.config.windows;
        let stale = nanos(windows.revalidate.max(windows.error));
        let by_age = match held.expires_at {
            NEVER => NEVER,
            // However long the window: what has a deadline does not live for ever.
            at => at.saturating_add(stale).min(NEVER - 1),
        };
        by_age.min(self.idle_at(held))
    }

    fn idle_at(&self, held: &Held) -> u64 {
        if self.config.tti {
            held.accessed + nanos(TTI)
        } else {
            NEVER
        }
    }

    /// The value of an entry that is stale, and for how long it has been.
    fn stale_value(&self, held: &Held) -> Option<(i64, u64)> {
        let kept = !held.dead.is_dead() && self.now < self.kept_until(held);
        let by = self.now.checked_sub(held.expires_at)?;
        kept.then_some((held.value, by))
    }

    pub(crate) fn stale(&self, slot: Slot) -> Option<(i64, Duration)> {
        let (value, by) = self.stale_value(self.held.get(&slot)?)?;
        Some((value, Duration::from_nanos(by)))
    }

    /// What a loading call is served that would get an error.
    pub(crate) fn instead_of_error(&self, slot: Slot) -> Option<i64> {
        let (value, by) = self.stale(slot)?;
        (by < self.config.windows.error).then_some(value)
    }

    pub(crate) fn live(&self, slot: Slot) -> Option<&Held> {
        self.held.get(&slot).filter(|held| self.is_live(held))
    }

    pub(crate) fn value(&self, slot: Slot) -> Option<i64> {
        self.live(slot).map(|held| held.value)
    }

    /// Slots of a namespace with live entries whose values are `wanted`, in order.
    pub(crate) fn live_in(&self, space: u8, wanted: impl Fn(i64) -> bool) -> Vec<Slot> {
        self.those_in(space, |held| self.is_live(held) && wanted(held.value))
    }

    /// Slots of a namespace with stale entries whose values are `wanted`, in order.
    pub(crate) fn stale_in(&self, space: u8, wanted: impl Fn(i64) -> bool) -> Vec<Slot> {
        self.those_in(space, |held| {
            self.stale_value(held)
                .is_some_and(|(value, _)| wanted(value))
        })
    }

    /// Slots with a stale value or a remembered failure, in order.
    pub(crate) fn passing(&self) -> Vec<Slot> {
        let stale = self.held.keys().filter(|slot| self.stale(**slot).is_some());
        let failed = self.failures.iter();
        let failed = failed.filter(|(_, failure)| self.now < failure.until());
        let mut slots: Vec<Slot> = stale.chain(failed.map(|(slot, _)| slot)).copied().collect();
        slots.sort_unstable();
        slots
    }

    fn those_in(&self, space: u8, wanted: impl Fn(&Held) -> bool) -> Vec<Slot> {
        let held = self.held.iter();
        let mut slots: Vec<Slot> = held
            .filter(|(slot, held)| slot.0 == space && wanted(held))
            .map(|(slot, _)| *slot)
            .collect();
        slots.sort_unstable();
        slots
    }

    /// The next moment after now at which something expires, leaves a stale window, or is no longer
    /// remembered.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let error = nanos(self.config.windows.error);
        let entries = self.held.values().flat_map(|held| {
            let no_error = held.expires_at.saturating_add(error);
            [self.deadline(held), no_error, self.kept_until(held)]
        });
        let failures = self.failures.values();
        let failures = failures.flat_map(|failure| [failure.by_all, failure.by_served]);
        let all = entries
            .chain(failures)
            .chain(self.uncacheable.values().copied());
        // No step of time leads to the end of a window without an end.
        all.filter(|&at| at > self.now && at < NEVER - 1).min()
    }

    /// A read that counts: what it finds, noted as a use. The slot comes back if the expiry policy ends
    /// its entry with this read.
    pub(crate) fn read(&mut self, slot: Slot) -> (Option<i64>, Option<Slot>) {
        let Some(value) = self.value(slot) else {
            return (None, None);
        };
        let (config, now) = (self.config, self.now);
        let held = self.held.get_mut(&slot).expect("it is live");
        if now - held.accessed >= nanos(TTI) / 100 {
            held.accessed = now;
        }
        if !(config.expiry && config.reads) {
            return (Some(value), None);
        }
        let before = remaining(held.expires_at, now);
        let after = policy::read(value, before);
        if after == before {
            return (Some(value), None);
        }
        match until(now, after) {
            Life::Nothing => (Some(value), Some(slot)),
            Life::Until(at) => {
                held.expires_at = at;
                held.accessed = now;
                (Some(value), None)
            }
        }
    }

    pub(crate) fn life_of_new(&self, ttl: Ttl, value: i64) -> Life {
        match ttl {
            Ttl::Default if self.config.expiry => until(self.now, policy::create(value)),
            Ttl::Default => until(self.now, self.config.ttl.then_some(TTL)),
            Ttl::For(time) => until(self.now, Some(time)),
            Ttl::Forever => Life::Until(NEVER),
        }
    }

    /// The life of a value that is written over whatever lives in the slot.
    pub(crate) fn life_of_write(&self, slot: Slot, ttl: Ttl, value: i64) -> Life {
        match self.live(slot) {
            Some(old) if self.config.expiry && ttl == Ttl::Default => {
                let left = remaining(old.expires_at, self.now);
                until(self.now, policy::update(value, left))
            }
            _ => self.life_of_new(ttl, value),
        }
    }

    /// Why a value cannot be kept, if it cannot.
    pub(crate) fn refusal(&self, value: i64, life: Life, tags: usize) -> Option<RejectReason> {
        let weight = self.config.weight(value);
        // Capacities are multiples of the shards here, so every shard has the same part.
        let limit = self.capacity / self.config.shards;
        if tags > larder::EntryOptions::MAX_TAGS {
            let limit = larder::EntryOptions::MAX_TAGS;
            Some(RejectReason::TooManyTags { tags, limit })
        } else if limit == 0 {
            Some(RejectReason::NoCapacity)
        } else if weight > limit {
            Some(RejectReason::TooHeavy { weight, limit })
        } else if life == Life::Nothing {
            Some(RejectReason::ZeroTimeToLive)
        } else {
            None
        }
    }

    /// The effect of a write whose condition holds, or the reason for which it is refused.
    pub(crate) fn write(
        &mut self,
        slot: Slot,
        value: i64,
        life: Life,
        tags: &[u8],
        tag_count: usize,
    ) -> (Effect, Option<RejectReason>) {
        self.failures.remove(&slot);
        let refused = self.refusal(value, life, tag_count);
        let mut effect = Effect::default();
        match (&refused, life) {
            (None, Life::Until(expires_at)) => {
                self.uncacheable.remove(&slot);
                let held = self.new_entry(value, expires_at, tags);
                effect.stored = Some((slot, held));
            }
            _ if self.live(slot).is_some() => effect.explicit.push(slot),
            _ => effect.met.push(slot),
        }
        (effect, refused)
    }

    /// The effect of a value that was made of the live one, if there is one: it has its tags, and its deadline if that
    /// is its own, or if it `keeps` it in any case. What is its own no policy is asked about.
    pub(crate) fn write_computed(
        &mut self,
        slot: Slot,
        value: i64,
        keeps: bool,
    ) -> (Effect, Option<RejectReason>) {
        let old = self.live(slot).cloned();
        let own_ttl = old.as_ref().is_some_and(|old| old.own_ttl);
        let life = match &old {
            Some(old) if own_ttl || (keeps && !self.config.expiry) => Life::Until(old.expires_at),
            _ => self.life_of_write(slot, Ttl::Default, value),
        };
        let tags = old.map(|old| old.tags).unwrap_or_default();
        let (mut effect, refused) = self.write(slot, value, life, &tags, 0);
        if let Some((_, held)) = &mut effect.stored {
            held.own_ttl = own_ttl;
        }
        (effect, refused)
    }

    pub(crate) fn new_entry(&self, value: i64, expires_at: u64, tags: &[u8]) -> Held {
        Held {
            value,
            weight: self.config.weight(value),
            expires_at,
            own_ttl: false,
            accessed: self.now,
            tags: tags.to_vec(),
            dead: Dead::default(),
        }
    }

    // ---- what leaves ----

    /// Applies an operation: checks that each journalled removal is legal, and that what had to leave
    /// has left.
    pub(crate) fn settle(&mut self, effect: &Effect, journal: &[(Slot, RemovalCause)]) {
        let mut events = journal.to_vec();
        if let Some((slot, held)) = &effect.stored {
            if self.held.contains_key(slot) {
                // Whatever was there has left, and before anything that is told of the new entry.
                let first = events.iter().position(|(gone, _)| gone == slot);
                let first = first.unwrap_or_else(|| panic!("{slot:?} was overwritten in silence"));
                let (_, cause) = events.remove(first);
                self.leave(*slot, cause, effect, held.weight);
            }
        }
        // Entries still to come count against the bounds beside those that are there.
        for &(slot, cause) in &events {
            match &effect.stored {
                Some((stored, held)) if *stored == slot => {
                    let past = self.now >= self.kept_until(held);
                    let legal = match cause {
                        RemovalCause::Size => self.trimming,
                        // A life too short to be told from none.
                        RemovalCause::Expired => past,
                        _ => false,
                    };
                    assert!(legal, "the new {slot:?} left at once: {cause:?}");
                    let cause = (slot, held.value, cause);
                    self.told.push(cause);
                }
                stored => {
                    let coming = stored.as_ref().map_or(0, |(_, held)| held.weight);
                    self.leave(slot, cause, effect, coming);
                }
            }
        }
        if let Some((slot, held)) = &effect.stored {
            if !events.iter().any(|(gone, _)| gone == slot) {
                self.held.insert(*slot, held.clone());
            }
        }
        for slot in effect
            .explicit
            .iter()
            .chain(&effect.ended)
            .chain(&effect.met)
        {
            assert!(!self.held.contains_key(slot), "{slot:?} had to leave");
        }
        let (entries, weight) = self.totals(|_| true);
        if self.trimming && self.config.shards == 1 {
            self.trimming = entries.max(weight) > self.capacity;
        }
        if !self.trimming {
            assert!(entries <= self.capacity, "{entries} entries");
            assert!(weight <= self.capacity, "a weight of {weight}");
        }
    }

    /// One removal. `coming` is the weight of the entry that is being stored.
    fn leave(&mut self, slot: Slot, cause: RemovalCause, effect: &Effect, coming: u64) {
        let held = self.held.get(&slot);
        let held = held.unwrap_or_else(|| panic!("{slot:?} left ({cause:?}) and was not there"));
        let live = self.is_live(held);
        let dead = held.dead;
        let past = self.now >= self.kept_until(held);
        let stored = effect.stored.as_ref().is_some_and(|(at, _)| *at == slot);
        // A stale one leaves only by order, and for a new one.
        let ends = self.now >= self.deadline(held) && (stored || effect.met.contains(&slot));
        let legal = match cause {
            RemovalCause::Explicit => live && effect.explicit.contains(&slot),
            RemovalCause::Replaced => live && stored,
            RemovalCause::Expired => past || ends || effect.ended == Some(slot),
            RemovalCause::Invalidated => dead.tag || dead.space || dead.cleared,
            RemovalCause::Size => {
                let full = self.is_full(effect.stored.is_some(), coming);
                !past && !dead.tag && !dead.cleared && full
            }
            _ => false,
        };
        assert!(legal, "{slot:?} must not leave as {cause:?}: {held:?}");
        let told = match cause {
            // The journal is written before anybody looks at the namespace.
            RemovalCause::Size | RemovalCause::Expired if slot.0 != 0 && dead.space => {
                RemovalCause::Invalidated
            }
            cause => cause,
        };
        let gone = self.held.remove(&slot).expect("looked at above");
        self.told.push((slot, gone.value, told));
    }

    /// Whether something has to make room for what is being stored, or for lowered limits.
    fn is_full(&self, stored: bool, coming: u64) -> bool {
        let (entries, weight) = self.totals(|_| true);
        let limit = self.capacity / self.config.shards;
        let full = entries + u64::from(stored) > limit || weight + coming > limit;
        if self.config.shards > 1 {
            // Which shard an entry is in, the reference does not know.
            return full || self.trimming;
        }
        // Nothing live is evicted while there is something dead to sweep.
        let swept = !self.held.values().any(|held| held.dead.cleared);
        full && swept
    }

    /// Entries and weight of those held entries that `counts`.
    pub(crate) fn totals(&self, counts: impl Fn(&Held) -> bool) -> (u64, u64) {
        let counted = self.held.values().filter(|held| counts(held));
        counted.fold((0, 0), |(entries, weight), held| {
            (entries + 1, weight + held.weight)
        })
    }
}

/// Nanoseconds to which a deadline is kept.
const GRAIN: u64 = 20_000;

/// What is left of a life at `now`.
fn remaining(expires_at: u64, now: u64) -> Option<Duration> {
    (expires_at != NEVER).then(|| Duration::from_nanos(expires_at - now))
}

/// The life that an answer of an expiry policy means.
pub(crate) fn until(now: u64, answer: Option<Duration>) -> Life {
    match answer {
        None => Life::Until(NEVER),
        Some(Duration::ZERO) => Life::Nothing,
        Some(time) => Life::Until(kept(now.saturating_add(nanos(time)))),
    }
}

/// A deadline as an entry keeps it: to 20 µs, rounded down.
fn kept(deadline: u64) -> u64 {
    if deadline == NEVER {
        NEVER
    } else {
        deadline - deadline % GRAIN
    }
}

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
