//! One case: a cache, its reference, and operations until they disagree.

use std::collections::HashMap;
use std::time::Duration;

use larder::{Freshness, RemovalCause, Stats};

use crate::config::{Config, Key, Subject, Watched};
use crate::ops::{Op, SPACES, Source};
use crate::reference::{Effect, Reference, Slot, Ttl};
use crate::steps::key_of;

/// What the cache's counters must say.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) inserts: u64,
    pub(crate) rejections: u64,
    pub(crate) loads: u64,
    pub(crate) load_failures: u64,
    pub(crate) unpublished: u64,
    /// Nothing is served while another call loads: there is none.
    pub(crate) stale_on_error: u64,
}

pub(crate) struct Run {
    pub(crate) subject: Watched,
    pub(crate) spaces: Vec<Subject>,
    pub(crate) reference: Reference,
    pub(crate) tally: Tally,
}

/// Runs one case; panics where cache and reference part.
pub(crate) fn case(config: Config, seed: u64, steps: u32) {
    let mut source = Source::new(seed, config.shards);
    let capacity = source.capacity();
    let subject = config.build(capacity);
    let cache = &subject.cache;
    let spaces = (0..SPACES)
        .map(|space| match space {
            0 => cache.clone(),
            _ => cache.namespace(&format!("space {space}")),
        })
        .collect();
    let mut run = Run {
        subject,
        spaces,
        reference: Reference::new(config, capacity),
        tally: Tally::default(),
    };
    let mut story = Story::new(config, seed);
    for _ in 0..steps {
        let op = source.draw(&run.reference);
        story.then(&op);
        run.step(&op);
        run.check();
    }
    run.check_counters();
    run.check_listener();
}

/// Tells, should the test fail, how to run the case again and what led there.
struct Story {
    config: Config,
    seed: u64,
    step: u32,
    last: Vec<String>,
}

impl Story {
    pub(crate) fn new(config: Config, seed: u64) -> Self {
        Story {
            config,
            seed,
            step: 0,
            last: Vec::new(),
        }
    }

    pub(crate) fn then(&mut self, op: &Op) {
        self.step += 1;
        if self.last.len() == 25 {
            self.last.remove(0);
        }
        self.last.push(format!("{op:?}"));
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "seed {}, step {}, {:?}; the last steps:\n  {}",
                self.seed,
                self.step,
                self.config,
                self.last.join("\n  ")
            );
        }
    }
}

impl Run {
    pub(crate) fn at(&self, slot: Slot) -> (&Subject, Key) {
        (&self.spaces[slot.0 as usize], key_of(slot))
    }

    /// Applies an effect to the reference, with what the journal says.
    pub(crate) fn settle(&mut self, effect: &Effect) -> Vec<(Slot, RemovalCause)> {
        let journal: Vec<(Slot, RemovalCause)> = self
            .subject
            .journal
            .try_iter()
            .map(|(key, cause)| ((key.space, key.id), cause))
            .collect();
        self.reference.settle(effect, &journal);
        journal
    }

    /// What a write over `slot` gives back: the old value, unless that one was evicted to make room for
    /// the new one, which is then stored over nothing.
    pub(crate) fn settle_write(&mut self, effect: &Effect) -> Option<i64> {
        let slot = effect.stored.as_ref().map(|(slot, _)| *slot)?;
        let old = self.reference.value(slot);
        let journal = self.settle(effect);
        let first = journal.iter().find(|(gone, _)| *gone == slot);
        old.filter(|_| matches!(first, Some((_, RemovalCause::Replaced))))
    }

    pub(crate) fn step(&mut self, op: &Op) {
        match op {
            Op::Get(_) | Op::Lookup(_) | Op::Peek(_) | Op::Contains(_) | Op::Iterate(_) => {
                self.step_read(op);
            }
            Op::Insert(slot, value) => self.insert(*slot, *value, Ttl::Default, &[], 0),
            Op::InsertWith(slot, value, ttl, tags) => {
                self.insert(*slot, *value, *ttl, tags, tags.len());
            }
            Op::InsertOverTagged(slot, value) => {
                self.insert(*slot, *value, Ttl::Default, &[], 129);
            }
            Op::Add(slot, value) => self.add(*slot, *value, None),
            Op::AddWith(slot, value, ttl, tags) => self.add(*slot, *value, Some((*ttl, tags))),
            Op::Replace(slot, value) => self.replace(*slot, *value),
            Op::ComputeKeep(_) | Op::ComputePut(..) | Op::ComputeRemove(_) => self.compute(op),
            Op::Incr(slot, by) => self.count(*slot, *by),
            Op::Decr(slot, by) => self.count(*slot, -*by),
            Op::Touch(slot, time) => self.touch(*slot, *time),
            Op::Remove(_) | Op::Invalidate(_) | Op::RemoveIf(..) => self.step_remove(op),
            Op::Retain(space, remainder) => self.retain(*space, *remainder),
            Op::Clear(space) => self.clear(*space),
            Op::InvalidateTag(tag) => self.invalidate_tag(*tag),
            Op::Load(slot, load) => self.load(*slot, load),
            Op::Advance(by) => {
                self.subject.time.advance(Duration::from_nanos(*by));
                self.reference.now += by;
            }
            Op::RunPending(budget) => self.run_pending(*budget),
            Op::SetCapacity(capacity) => self.set_capacity(*capacity),
        }
    }

    pub(crate) fn step_read(&mut self, op: &Op) {
        let mut effect = Effect::default();
        match *op {
            Op::Get(slot) => {
                let (want, ended) = self.reference.read(slot);
                let (cache, key) = self.at(slot);
                assert_eq!(cache.get(&key), want);
                self.count_read(want.is_some());
                effect.ended = ended;
            }
            Op::Lookup(slot) => {
                let (live, ended) = self.reference.read(slot);
                let live = live.map(|value| (value, Freshness::Fresh));
                let stale = self.reference.stale(slot);
                let stale = stale.map(|(value, by)| (value, Freshness::Stale { by }));
                let (cache, key) = self.at(slot);
                assert_eq!(cache.get_with_freshness(&key), live.or(stale));
                self.count_read(live.is_some());
                effect.ended = ended;
            }
            Op::Peek(slot) => {
                let (cache, key) = self.at(slot);
                assert_eq!(cache.peek(&key), self.reference.value(slot));
            }
            Op::Contains(slot) => {
                let (cache, key) = self.at(slot);
                assert_eq!(
                    cache.contains_key(&key),
                    self.reference.value(slot).is_some()
                );
            }
            Op::Iterate(space) => {
                let cache = &self.spaces[space as usize];
                let mut got: Vec<_> = cache.iter().map(|(key, value)| (key.id, value)).collect();
                got.sort_unstable();
                let live = self.reference.live_in(space, |_| true);
                let want: Vec<_> = live
                    .iter()
                    .map(|&slot| (slot.1, self.reference.value(slot).expect("it is live")))
                    .collect();
                assert_eq!(got, want, "namespace {space}");
            }
            _ => unreachable!("not a read"),
        }
        self.settle(&effect);
    }

    // ---- what must hold after every step ----

    pub(crate) fn check(&self) {
        let cache = &self.subject.cache;
        #[cfg(debug_assertions)]
        cache.__validate();
        // A cleared entry no longer counts; one that is past its date does until it is reclaimed.
        let want = self.reference.totals(|held| !held.dead.cleared);
        assert_eq!((cache.len(), cache.weight()), want, "entries and weight");
        let live = self.reference.held.values();
        let live = live.filter(|held| self.reference.is_live(held)).count() as u64;
        assert!(cache.len() >= live);
        assert_eq!(cache.__flights().1, 0, "loads still in flight");
    }

    pub(crate) fn check_counters(&self) {
        let stats = self.subject.cache.stats();
        let mut causes: HashMap<RemovalCause, u64> = HashMap::new();
        for (_, _, cause) in &self.reference.told {
            *causes.entry(*cause).or_default() += 1;
        }
        let of = |cause| causes.get(&cause).copied().unwrap_or(0);
        let tally = &self.tally;
        type Counted = (&'static str, fn(&Stats) -> u64, u64);
        let pairs: [Counted; 14] = [
            ("hits", Stats::hits, tally.hits),
            ("misses", Stats::misses, tally.misses),
            ("inserts", Stats::inserts, tally.inserts),
            ("rejections", Stats::rejections, tally.rejections),
            ("loads", Stats::loads, tally.loads),
            ("failures", Stats::load_failures, tally.load_failures),
            ("unpublished", Stats::unpublished, tally.unpublished),
            ("on error", Stats::stale_on_error, tally.stale_on_error),
            ("while loading", Stats::stale_while_loading, 0),
            ("explicit", Stats::explicit, of(RemovalCause::Explicit)),
            ("replaced", Stats::replaced, of(RemovalCause::Replaced)),
            ("expired", Stats::expired, of(RemovalCause::Expired)),
            ("evicted", Stats::evicted, of(RemovalCause::Size)),
            (
                "invalidated",
                Stats::invalidated,
                of(RemovalCause::Invalidated),
            ),
        ];
        for (name, got, want) in pairs {
            assert_eq!(got(&stats), want, "the counter of {name}");
        }
        assert_eq!(
            stats.inserts(),
            stats.replaced() + self.left(&stats),
            "conservation"
        );
    }

    /// Where the values that were stored have gone, or are.
    pub(crate) fn left(&self, stats: &Stats) -> u64 {
        let gone = stats.explicit() + stats.expired() + stats.evicted() + stats.invalidated();
        gone + self.reference.held.len() as u64
    }

    /// The listener heard every removal once, in whatever order.
    pub(crate) fn check_listener(&self) {
        if !self.reference.config.listener {
            return;
        }
        let heard = self.subject.heard.try_iter();
        let mut heard: Vec<_> = heard
            .map(|(key, value, cause)| ((key.space, key.id), value, format!("{cause:?}")))
            .collect();
        let told = self.reference.told.iter();
        let mut told: Vec<_> = told
            .map(|(slot, value, cause)| (*slot, *value, format!("{cause:?}")))
            .collect();
        heard.sort_unstable();
        told.sort_unstable();
        assert_eq!(heard, told, "what the listener heard");
    }
}
