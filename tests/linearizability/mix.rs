//! Rounds of everything at once: threads that draw calls at random, against small caches of several
//! shapes, and what must add up once they have come to rest.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use larder::{Cache, Compute, EvictionPolicy, RemovalCause};

use crate::caller::{Caller, PATIENCE, Rig};
use crate::history::{Act, History, Life, NAMESPACED, Recorder, VALUE_SHIFT};
use crate::rules::judge;

const MILLISECOND: u64 = 1_000_000;

/// The calls that a thread draws from.
#[derive(Clone, Copy, Debug)]
pub enum Call {
    Get,
    Peek,
    Contains,
    Insert,
    InsertPlain,
    Refuse,
    Add,
    Replace,
    Remove,
    Invalidate,
    Incr,
    Touch,
    Put,
    Keep,
    Delete,
    Load,
    LoadAsTask,
    Clear,
    ClearNamespace,
    InvalidateTag,
    Advance,
    RunPending,
}

/// What a round is like.
pub struct Shape {
    pub name: &'static str,
    pub rounds: u64,
    pub calls: u64,
    /// Keys in the root, and as many again in the namespace if `named`.
    pub keys: u32,
    pub named: bool,
    /// Half of the values carry tags.
    pub tagged: bool,
    pub capacity: u64,
    pub shards: usize,
    pub lru: bool,
    pub weighted: bool,
    pub ttl: Option<u64>,
    /// Each call with its weight.
    pub mix: &'static [(Call, u32)],
}

/// What was done in all rounds together.
#[derive(Debug, Default)]
pub struct Counts {
    pub operations: u64,
    pub evictions: u64,
    pub expiries: u64,
    pub invalidations: u64,
    pub loads: u64,
    pub waits: u64,
    pub kills: u64,
    pub unpublished: u64,
}

pub const THREADS: u64 = 4;

/// How many times as many rounds are asked for: `LARDER_MIX_TIMES=100` for a long run by hand.
fn times() -> u64 {
    let asked = std::env::var("LARDER_MIX_TIMES").ok();
    asked.and_then(|times| times.parse().ok()).unwrap_or(1)
}

impl Shape {
    pub fn rig(&self) -> Rig {
        let recorder = Recorder::new();
        let told = Arc::clone(&recorder);
        let mut builder = Cache::builder()
            .max_capacity(self.capacity)
            .shards(self.shards)
            .clock(recorder.clock())
            // The clock runs fast. Nobody is to be overtaken: two loaders at once would be no fault.
            .load_deadline(PATIENCE)
            .wait_deadline(PATIENCE)
            .__journal(move |key, cause| told.line(*key, cause));
        if let Some(ttl) = self.ttl {
            builder = builder.time_to_live(Duration::from_nanos(ttl));
        }
        if self.lru {
            builder = builder.eviction_policy(EvictionPolicy::Lru);
        }
        if self.weighted {
            builder = builder.weigher(|_key, value| weight_of(*value));
        }
        let root: Cache<u32, u64> = builder.build().expect("a legal configuration");
        Rig {
            named: root.namespace("named"),
            root,
            recorder,
            ttl: self.ttl,
        }
    }

    pub fn all_keys(&self) -> impl Iterator<Item = u32> {
        let named = if self.named { self.keys } else { 0 };
        (0..self.keys).chain(NAMESPACED..NAMESPACED + named)
    }

    /// Runs all rounds.
    ///
    /// # Errors
    /// What was wrong in the first bad one.
    pub fn run(&self, counts: &mut Counts) -> Result<(), String> {
        for round in 0..self.rounds * times() {
            self.round(round, counts)
                .map_err(|why| format!("{}, round {round}: {why}", self.name))?;
        }
        Ok(())
    }

    fn round(&self, round: u64, counts: &mut Counts) -> Result<(), String> {
        let rig = self.rig();
        let start = Barrier::new(THREADS as usize);
        let mut history = History::default();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let (rig, start) = (&rig, &start);
                    scope.spawn(move || {
                        let mut caller = Caller::new(rig, thread + 1);
                        let mut random = Random::new(round * THREADS + thread);
                        start.wait();
                        for _ in 0..self.calls {
                            self.call(&mut caller, &mut random);
                        }
                        (caller.history, caller.calls)
                    })
                })
                .collect();
            for thread in threads {
                let (own, calls) = thread.join().expect("a caller's thread panicked");
                history.absorb(own);
                counts.operations += calls;
            }
        });
        self.come_to_rest(&rig, &mut history)?;
        count(&history, &rig, counts);
        judge(&history)
    }

    /// One call drawn at random.
    fn call(&self, caller: &mut Caller, random: &mut Random) {
        let key = self.key(random);
        match self.draw(random) {
            Call::Get => drop(caller.get(key)),
            Call::Peek => drop(caller.peek(key)),
            Call::Contains => drop(caller.contains(key)),
            Call::Insert => drop(caller.insert(key, self.life(random))),
            Call::InsertPlain => drop(caller.insert_plain(key)),
            Call::Refuse => caller.refuse(key),
            Call::Add => drop(caller.add(key, self.life(random))),
            Call::Replace => drop(caller.replace(key)),
            Call::Remove => drop(caller.remove(key)),
            Call::Invalidate => drop(caller.invalidate(key)),
            Call::Incr => drop(caller.incr(key)),
            Call::Touch => drop(caller.touch(key, self.life(random).ttl)),
            Call::Put => caller.compute(key, Compute::Put(())),
            Call::Keep => caller.compute(key, Compute::Keep),
            Call::Delete => caller.compute(key, Compute::Remove),
            Call::Load => {
                let yields = random.below(3);
                let within = || (0..yields).for_each(|_| std::thread::yield_now());
                caller.load(key, self.life(random), within);
            }
            Call::LoadAsTask => {
                let yields = random.below(3);
                let within = || (0..yields).for_each(|_| std::thread::yield_now());
                caller.load_as_a_task(key, self.life(random), within);
            }
            Call::Clear => caller.clear(),
            Call::ClearNamespace => caller.clear_namespace(),
            Call::InvalidateTag => caller.invalidate_tag(random.below(2) as usize),
            Call::Advance => caller.rig.recorder.advance(MILLISECOND),
            Call::RunPending => drop(caller.rig.root.run_pending(8)),
        }
    }

    fn draw(&self, random: &mut Random) -> Call {
        let whole: u32 = self.mix.iter().map(|(_, weight)| weight).sum();
        let mut left = random.below(u64::from(whole)) as u32;
        for &(call, weight) in self.mix {
            if left < weight {
                return call;
            }
            left -= weight;
        }
        Call::Get
    }

    /// Low keys more often than high ones.
    fn key(&self, random: &mut Random) -> u32 {
        let keys = u64::from(self.keys);
        let key = random.below(keys).min(random.below(keys)) as u32;
        let named = self.named && random.below(3) == 0;
        if named { NAMESPACED + key } else { key }
    }

    fn life(&self, random: &mut Random) -> Life {
        let ttl = match (self.ttl, random.below(4)) {
            (None, _) | (_, 0) => None,
            (_, 1) => Some(2 * MILLISECOND),
            (_, 2) => Some(9 * MILLISECOND),
            (own, _) => own,
        };
        // Half are untagged, the others carry one tag or both.
        let tags = [0, 0, 0, 1, 2, 3][random.below(6) as usize];
        let tags = if self.tagged { tags } else { 0 };
        let own = true;
        Life { ttl, tags, own }
    }

    /// Reads every key once more, reclaims what is due, and checks that the books balance.
    fn come_to_rest(&self, rig: &Rig, history: &mut History) -> Result<(), String> {
        let mut last = Caller::new(rig, THREADS + 1);
        let live: Vec<u64> = self.all_keys().filter_map(|key| last.get(key)).collect();
        rig.root.run_pending(u32::MAX);
        history.absorb(last.history);
        let lines = rig.recorder.take_lines();
        history.events.extend(&lines);
        let stats = rig.root.stats();
        let (len, weight) = (rig.root.len(), rig.root.weight());
        balance(
            "inserts less removals",
            stats.inserts() - lines.len() as u64,
            len,
        )?;
        let live_weight: u64 = live.iter().map(|value| self.weight(*value)).sum();
        // Entries that a tag or a namespace's clear killed count until they are reclaimed.
        let exact = live.len() as u64 == len;
        if live.len() as u64 > len || live_weight > weight || (exact && live_weight != weight) {
            return Err(format!(
                "{} values of weight {live_weight} are live, and the cache says {len} of {weight}",
                live.len()
            ));
        }
        if weight > self.capacity {
            return Err(format!("{weight} in a capacity of {}", self.capacity));
        }
        self.check_causes(history, &stats)?;
        let puts = history.events.iter();
        let puts = puts
            .filter(|event| match event.act {
                Act::Put { .. } | Act::Compute { .. } => true,
                Act::Incr(Some(_)) => self.weighted,
                _ => false,
            })
            .count() as u64;
        let published = stats.loads() - stats.unpublished();
        balance(
            "writes and published loads",
            puts + published,
            stats.inserts(),
        )?;
        balance("loads", history.loads.len() as u64, stats.loads())?;
        balance("flights at rest", rig.root.__flights(), (0, 0))?;
        #[cfg(debug_assertions)]
        rig.root.__validate();
        rig.root.clear();
        balance(
            "len and weight after a clear",
            (rig.root.len(), rig.root.weight()),
            (0, 0),
        )
    }

    /// The removals that the cache counted are those that it journalled.
    fn check_causes(&self, history: &History, stats: &larder::Stats) -> Result<(), String> {
        balance(
            "explicit",
            history.lines(RemovalCause::Explicit),
            stats.explicit(),
        )?;
        balance(
            "replaced",
            history.lines(RemovalCause::Replaced),
            stats.replaced(),
        )?;
        // What a namespace's clear had killed is journalled as it was found, and counted as invalidated.
        let found = [
            RemovalCause::Size,
            RemovalCause::Expired,
            RemovalCause::Invalidated,
        ];
        let journalled = found.map(|cause| history.lines(cause)).iter().sum();
        let counted = stats.evicted() + stats.expired() + stats.invalidated();
        balance("reclaimed", journalled, counted)?;
        if !self.named {
            balance(
                "evicted",
                history.lines(RemovalCause::Size),
                stats.evicted(),
            )?;
            balance(
                "expired",
                history.lines(RemovalCause::Expired),
                stats.expired(),
            )?;
        }
        Ok(())
    }

    fn weight(&self, value: u64) -> u64 {
        if self.weighted { weight_of(value) } else { 1 }
    }
}

/// The weight of a value, which counting it up leaves as it is.
fn weight_of(value: u64) -> u64 {
    1 + (value >> VALUE_SHIFT) % 3
}

fn balance<T: PartialEq + std::fmt::Debug>(what: &str, ours: T, theirs: T) -> Result<(), String> {
    if ours == theirs {
        Ok(())
    } else {
        Err(format!(
            "{what}: {ours:?} by the history, {theirs:?} by the cache"
        ))
    }
}

fn count(history: &History, rig: &Rig, counts: &mut Counts) {
    counts.evictions += history.lines(RemovalCause::Size);
    counts.expiries += history.lines(RemovalCause::Expired);
    counts.invalidations += history.lines(RemovalCause::Invalidated);
    counts.loads += history.loads.len() as u64;
    counts.unpublished += rig.root.stats().unpublished();
    for event in &history.events {
        match event.act {
            Act::Discard(true) => counts.invalidations += 1,
            Act::Kill { .. } => counts.kills += 1,
            _ => {}
        }
    }
    counts.waits += rig.root.stats().joined();
}

/// A small generator, so that a round draws the same calls each time (its threads still interleave as
/// they like).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % bound
    }
}
