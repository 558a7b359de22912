//! The whole cache through its public names, under a clock turned by hand.
//!
//! The reference is small: values that no other write ever had, and for each what may still be served.
//! It knows what was written last under a key, until when it lives, and what has killed it. So a value
//! older than a write, a removal or an invalidation is never taken for a fresh one, nor one past its
//! deadline. The bound has to hold after every call, and `__validate` has to agree.
//!
//! What is evicted it does not predict. With a listener (every other input) it is told, once for each
//! value, and then nothing may go in silence and the count of entries has to be exact; without one, a
//! value that was found missing must stay so.

mod steps;

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::{Bug, Counts, GRAIN, Input, Story, Target};
use crate::cache::{Cache, EvictionPolicy};
use crate::entry::removal::RemovalCause;
use crate::util::clock::ManualClock;

pub const TARGET: Target = Target {
    name: "cache",
    drive,
    bugs: &[
        "cache-stale",
        "cache-late",
        "cache-bound",
        "cache-mute",
        "cache-tag",
        "cache-space",
        "cache-swap",
    ],
    needs: &[
        "operations",
        "written",
        "refused",
        "hit",
        "miss",
        "past",
        "removed",
        "loaded",
        "told",
        "in silence",
        "killed",
    ],
};

const SPACES: usize = 2;
const TAGS: u8 = 3;
const NEVER: u64 = u64::MAX;

pub fn run(data: &[u8]) {
    drive(data, Bug::from_environment(TARGET.bugs));
}

/// A namespace and a key.
type Slot = (usize, u32);

#[derive(Clone, Copy, Debug)]
struct Setup {
    lru: bool,
    weigher: bool,
    ttl: Option<u64>,
    tti: Option<u64>,
    shards: u64,
    listener: bool,
    capacity: u64,
}

#[derive(Clone, Copy, Debug)]
enum Write {
    Insert,
    With,
    Add,
    Replace,
    Compute,
    Load,
    LoadWith,
}

#[derive(Clone, Debug)]
#[allow(dead_code, reason = "a story prints all of it")]
enum Op {
    Setup(Setup),
    Get(Slot),
    Peek(Slot),
    Contains(Slot),
    /// The time in nanoseconds counts for the two that take options.
    Write(Write, Slot, Option<u64>, u8),
    Remove(Slot),
    RemoveIf(Slot, bool),
    ComputeRemove(Slot),
    LoadNothing(Slot),
    Incr(Slot),
    Touch(Slot, Option<u64>),
    Retain(usize, i64),
    Clear(usize),
    InvalidateTag(u8),
    Advance(u64),
    /// Time moves to the next deadline, or to the moment before, and the key is read.
    Meet {
        early: bool,
    },
    RunPending(u32),
    SetCapacity(u64),
    Iterate(usize),
}

/// A value that was stored and has not left, as far as is known.
#[derive(Clone, Debug)]
struct Held {
    slot: Slot,
    weight: u64,
    expires_at: u64,
    accessed: u64,
    /// Its life was said by who wrote it.
    own_ttl: bool,
    tags: u8,
    dead: bool,
    cleared: bool,
}

struct Run {
    setup: Setup,
    spaces: [Cache<u32, i64>; SPACES],
    time: ManualClock,
    heard: Receiver<(u32, i64, RemovalCause)>,
    now: u64,
    capacity: u64,
    held: BTreeMap<i64, Held>,
    next: i64,
    bug: Bug,
    counts: Counts,
    story: Story<Op>,
}

/// Mostly light, sometimes nothing, seldom too much. The low half counts.
fn weight(value: i64) -> u64 {
    match (value >> 32) % 41 {
        40 => 1 << 40,
        n => n as u64 % 5,
    }
}

/// Performs the operations in `data`.
pub fn drive(data: &[u8], bug: Bug) -> Counts {
    let mut input = Input::new(data);
    let mut run = Run::new(&mut input, bug);
    while !input.is_empty() {
        run.counts.add("operations", 1);
        let op = run.draw(&mut input);
        run.story.then(op.clone());
        run.step(&op);
        run.hear();
        run.check();
    }
    std::mem::take(&mut run.counts)
}

impl Run {
    fn new(input: &mut Input<'_>, bug: Bug) -> Run {
        let shards = input.pick(&[1, 1, 1, 8]);
        let setup = Setup {
            lru: input.flag(),
            weigher: input.flag(),
            ttl: input.flag().then(|| 1_000_000 + input.span(30)),
            tti: input.flag().then(|| 1_000_000 + input.span(30)),
            shards,
            listener: input.flag(),
            capacity: shards * input.pick(&[3, 8, 1, 20]),
        };
        let time = ManualClock::new();
        let (tell, heard) = channel();
        // The number of shards follows from the capacity the cache is built for, and stays.
        let built_for = if shards == 1 { setup.capacity } else { 8_192 };
        let policy = [EvictionPolicy::S3Fifo, EvictionPolicy::Lru][usize::from(setup.lru)];
        let mut builder = Cache::builder()
            .max_capacity(built_for)
            .shards(shards as usize)
            .eviction_policy(policy)
            .clock(time.clock());
        if setup.weigher {
            builder = builder.weigher(|_, value| weight(*value));
        }
        if let Some(ttl) = setup.ttl {
            builder = builder.time_to_live(Duration::from_nanos(ttl));
        }
        if let Some(tti) = setup.tti {
            builder = builder.time_to_idle(Duration::from_nanos(tti));
        }
        if setup.listener {
            builder = builder.removal_listener(move |key, value, cause| {
                let _ = tell.send((*key, *value, cause));
            });
        }
        let root = builder.build().expect("the settings are valid");
        root.set_capacity(setup.capacity);
        let mut story = Story::new();
        story.then(Op::Setup(setup));
        Run {
            setup,
            spaces: [root.clone(), root.namespace("a")],
            time,
            heard,
            now: 0,
            capacity: setup.capacity,
            held: BTreeMap::new(),
            next: 0,
            bug,
            counts: Counts::default(),
            story,
        }
    }

    fn draw(&self, input: &mut Input<'_>) -> Op {
        let slot = (
            usize::from(input.below(3) == 0),
            u32::from(input.byte()) % 12,
        );
        let time = match input.below(4) {
            0 => None,
            1 => Some(0),
            // Shorter than that may be over at once.
            _ => Some(GRAIN + input.span(32)),
        };
        let write = match input.below(32) {
            0..=5 => Write::Insert,
            6..=8 => Write::With,
            9 => Write::Add,
            10 => Write::Replace,
            11 => Write::Compute,
            12 => Write::Load,
            13 => Write::LoadWith,
            14..=18 => return Op::Get(slot),
            19 => return [Op::Peek(slot), Op::Contains(slot)][usize::from(input.flag())].clone(),
            20 => return Op::Remove(slot),
            21 => return Op::RemoveIf(slot, input.flag()),
            22 => {
                return [Op::ComputeRemove(slot), Op::LoadNothing(slot)][usize::from(input.flag())]
                    .clone();
            }
            23 => return Op::Incr(slot),
            24 => return Op::Touch(slot, time),
            25 => return Op::Retain(slot.0, i64::from(input.byte() % 3)),
            26 => {
                return if input.flag() {
                    Op::Clear(slot.0)
                } else {
                    Op::InvalidateTag(input.byte() % TAGS)
                };
            }
            27 => return Op::RunPending(input.pick(&[0, 1, 5, 10_000])),
            28 => return Op::SetCapacity(self.setup.shards * input.pick(&[8, 3, 20, 1, 0])),
            29 => return Op::Iterate(slot.0),
            30 => {
                let early = input.flag();
                return Op::Meet { early };
            }
            _ => return Op::Advance(self.draw_step(input)),
        };
        let tags = if input.below(3) == 0 {
            input.byte() % (1 << TAGS)
        } else {
            0
        };
        Op::Write(write, slot, time, tags)
    }

    /// Often to the very edge of a deadline.
    fn draw_step(&self, input: &mut Input<'_>) -> u64 {
        let deadlines = self.held.values().map(|held| self.expires_at(held));
        let next = deadlines.filter(|at| *at > self.now && *at < NEVER).min();
        match (input.below(4), next) {
            (0, Some(at)) => at - self.now,
            (1, Some(at)) => at - self.now - 1,
            _ => input.span(32),
        }
    }

    // ---- the reference ----

    fn expires_at(&self, held: &Held) -> u64 {
        let idle = self
            .setup
            .tti
            .map_or(NEVER, |tti| held.accessed.saturating_add(tti));
        held.expires_at.min(idle)
    }

    /// The only value that may be served for a key.
    fn live(&self, slot: Slot) -> Option<i64> {
        let mut all = self
            .held
            .iter()
            .filter(|(_, held)| held.slot == slot && self.is_live(held));
        let value = all.next().map(|(value, _)| *value);
        assert!(all.next().is_none(), "{slot:?} has two values alive");
        value
    }

    fn is_live(&self, held: &Held) -> bool {
        !held.dead && !held.cleared && self.now < self.expires_at(held)
    }

    /// What a call said of a key against what was alive as it began.
    fn observe(&mut self, got: Option<i64>, live: Option<i64>) {
        self.hear();
        match (got, live) {
            (Some(got), live) => assert_eq!(Some(got), live, "a value that may not be served"),
            (None, Some(live)) => self.missing(live),
            (None, None) => {}
        }
    }

    /// A value that was alive is not there: it was told of, or there is no listener to tell.
    fn missing(&mut self, value: i64) {
        let held = self.held.remove(&value);
        assert!(
            held.is_none() || !self.setup.listener,
            "{held:?} went in silence"
        );
        self.counts.add("in silence", u64::from(held.is_some()));
    }

    /// What the listener was told: of each value once, and with a true cause.
    fn hear(&mut self) {
        let told: Vec<_> = self.heard.try_iter().collect();
        for (key, value, cause) in told {
            if self.bug.is("cache-mute") && value >> 32 & 7 == 5 {
                continue;
            }
            let held = self.held.remove(&value);
            let held = held.unwrap_or_else(|| panic!("told of {value:#x} twice, or for nothing"));
            assert_eq!(held.slot.1, key, "the key of {value:#x}");
            let past = self.now >= self.expires_at(&held);
            let legal = match cause {
                RemovalCause::Expired => past,
                RemovalCause::Invalidated => held.dead || held.cleared,
                RemovalCause::Size => !past && !held.dead && !held.cleared,
                RemovalCause::Explicit | RemovalCause::Replaced => !past && !held.cleared,
            };
            assert!(legal, "{cause:?} is no cause for {held:?} at {}", self.now);
            self.counts.add("told", 1);
        }
    }

    fn note_use(&mut self, value: Option<i64>) {
        let (now, tti) = (self.now, self.setup.tti.unwrap_or(0));
        self.counts
            .add(if value.is_some() { "hit" } else { "miss" }, 1);
        if let Some(held) = value.and_then(|value| self.held.get_mut(&value)) {
            if now - held.accessed >= tti / 100 {
                held.accessed = now;
            }
        }
    }

    fn check(&mut self) {
        let cache = &self.spaces[0];
        cache.__validate();
        assert_eq!(cache.__flights().1, 0, "loads in flight");
        let (entries, weight) = (cache.len(), cache.weight());
        // So few entries are trimmed to a lowered capacity at once.
        if self.setup.weigher {
            assert!(weight <= self.capacity, "a weight of {weight}");
        }
        assert!(entries <= self.capacity, "{entries} entries");
        if self.setup.listener {
            let all = self.held.values().filter(|held| !held.cleared);
            let all = all.fold((0, 0), |sum, held| (sum.0 + 1, sum.1 + held.weight));
            assert_eq!((entries, weight), all, "entries and weight");
        } else {
            // Dead ones are never served again, and nobody tells when they go.
            let (now, tti) = (self.now, self.setup.tti);
            self.held.retain(|_, held| {
                let idle = tti.map_or(NEVER, |tti| held.accessed.saturating_add(tti));
                !held.dead && !held.cleared && now < held.expires_at.min(idle)
            });
        }
    }
}
