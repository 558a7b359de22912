//! One row of the race: the same work for every cache, in interleaved rounds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use crate::engines::{self, Bare, ByCoarseClock, ByHand, Dash, Engine};
use crate::report::{Cell, Row};
use crate::work::{Kind, Work};

const HOUR: Duration = Duration::from_secs(3600);
/// Calls a thread makes for each key before a cache that reads through is recorded.
const WARM_UP: u64 = 10;
/// Calls between two looks at the clock.
const BATCH: usize = 512;

/// The settings of a run.
#[derive(Clone, Debug)]
pub struct Settings {
    pub rounds: usize,
    pub slice: Duration,
    pub engines: Vec<String>,
}

/// Keys, values, and the order of asking, one for each thread.
pub struct Data<K: Kind> {
    keys: Vec<K::Key>,
    values: Vec<K::Value>,
}

impl<K: Kind> Data<K> {
    pub fn new() -> Self {
        Data {
            keys: (0..K::KEYS).map(K::key).collect(),
            values: (0..K::KEYS).map(K::value).collect(),
        }
    }
}

/// What a slice of work came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    calls: u64,
    reads: u64,
    hits: u64,
    seconds: f64,
}

/// A row's work, for one thread: where it has got to is kept from slice to slice.
#[derive(Clone)]
struct Walker {
    draws: Arc<[u32]>,
    at: usize,
}

/// The threads' walkers at their start, of one row; all caches walk the same draws.
fn walkers(work: Work, keys: usize, threads: usize) -> Vec<Walker> {
    (0..threads)
        .map(|seed| Walker {
            draws: work.draws(keys, seed as u64).into(),
            at: 0,
        })
        .collect()
}

impl Walker {
    /// Works until told to stop, or until `slice` is over.
    fn run<K: Kind, E: Engine<K::Key, K::Value>>(
        &mut self,
        work: Work,
        data: &Data<K>,
        engine: &E,
        until: impl Fn(u64) -> bool,
    ) -> Sample {
        let mut sample = Sample::default();
        while !until(sample.calls) {
            for _ in 0..BATCH {
                let n = self.draws[self.at] as usize;
                self.at = if self.at + 1 == self.draws.len() {
                    0
                } else {
                    self.at + 1
                };
                let key = &data.keys[n];
                let write = match work {
                    Work::Churn => true,
                    Work::Mixed => self.at % 10 == 0,
                    _ => {
                        sample.reads += 1;
                        let hit = std::hint::black_box(engine.get(key)).is_some();
                        sample.hits += u64::from(hit);
                        !hit && work == Work::ReadThrough
                    }
                };
                if write {
                    engine.put(key.clone(), data.values[n].clone());
                } else if work == Work::Mixed {
                    sample.reads += 1;
                    let hit = std::hint::black_box(engine.get(key)).is_some();
                    sample.hits += u64::from(hit);
                }
            }
            sample.calls += BATCH as u64;
        }
        sample
    }
}

type Slice<'a> = Box<dyn FnMut() -> Sample + 'a>;

/// A cache in the race: its name, and how it works for a slice.
struct Contestant<'a> {
    name: &'static str,
    slice: Slice<'a>,
    len: Box<dyn Fn() -> usize + 'a>,
    bounded: bool,
}

/// Runs one row.
pub fn row<K: Kind>(work: Work, threads: usize, data: &Data<K>, settings: &Settings) -> Row {
    let ttl = if work == Work::HitSecond {
        Duration::from_secs(1)
    } else {
        HOUR
    };
    let (_, capacity) = work.sizes(K::KEYS);
    // Left alone on purpose: each cache is built and filled just before its first slice.
    let larder_ttl = engines::larder(capacity, Some(ttl));
    let larder_ticking = engines::larder_ticking(capacity, ttl);
    let larder = engines::larder(capacity, None);
    let quick = engines::quick(capacity);
    let quick_by_hand = ByHand {
        cache: engines::quick(capacity),
        ttl,
    };
    let quick_by_coarse_clock = ByCoarseClock {
        cache: engines::quick(capacity),
        ttl,
    };
    let moka = engines::moka(capacity, ttl);
    let foyer = engines::foyer(capacity);
    let dash = ByHand {
        cache: Dash::with_hasher(ahash::RandomState::new()),
        ttl,
    };
    let bare = Bare::new();
    let walkers = walkers(work, K::KEYS, threads);
    let setup = Setup {
        work,
        data,
        settings,
        walkers: &walkers,
    };
    let mut contestants = vec![
        shared("larder-ttl", &larder_ttl, setup),
        shared("larder-ttl-ticking", &larder_ticking, setup),
        shared("larder", &larder, setup),
        shared("quick_cache", &quick, setup),
        shared("quick_cache+coarse", &quick_by_coarse_clock, setup),
        shared("quick_cache+instant", &quick_by_hand, setup),
        shared("moka-ttl", &moka, setup),
        shared("foyer-memory", &foyer, setup),
        unbounded(shared("dashmap+instant", &dash, setup)),
    ];
    if threads == 1 {
        contestants.push(unbounded(alone("hashbrown", &bare, setup)));
    }
    let chosen =
        |name: &str| settings.engines.is_empty() || settings.engines.iter().any(|e| e == name);
    contestants.retain(|contestant| chosen(contestant.name));
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); contestants.len()];
    for round in 0..settings.rounds + 1 {
        for turn in 0..contestants.len() {
            // Each round begins with another cache; the first, unrecorded one warms up.
            let at = (turn + round) % contestants.len();
            let sample = (contestants[at].slice)();
            let name = contestants[at].name;
            assert!(
                !work.only_hits() || sample.hits == sample.reads,
                "{name} lost keys that fit: {sample:?}"
            );
            if round > 0 {
                samples[at].push(sample);
            }
            if contestants[at].bounded {
                let len = (contestants[at].len)();
                assert!(len <= capacity, "{name} holds {len} of at most {capacity}");
            }
        }
    }
    let cells = contestants.iter().zip(samples);
    let cells = cells.map(|(contestant, samples)| cell(contestant.name, &samples));
    Row::new(work.name(), K::NAME, threads, cells.collect())
}

fn cell(name: &'static str, samples: &[Sample]) -> Cell {
    let (hits, reads) = samples
        .iter()
        .fold((0, 0), |(hits, reads), s| (hits + s.hits, reads + s.reads));
    Cell {
        name,
        speeds: samples
            .iter()
            .map(|s| s.calls as f64 / s.seconds / 1e6)
            .collect(),
        hit_ratio: (reads > 0).then(|| hits as f64 / reads as f64),
    }
}

fn unbounded(contestant: Contestant<'_>) -> Contestant<'_> {
    Contestant {
        bounded: false,
        ..contestant
    }
}

fn fill<K: Kind, E: Engine<K::Key, K::Value>>(work: Work, data: &Data<K>, engine: &E) {
    let (resident, _) = work.sizes(K::KEYS);
    for n in 0..resident {
        engine.put(data.keys[n].clone(), data.values[n].clone());
    }
    engine.len();
}

/// What all contestants of a row have in common.
struct Setup<'a, K: Kind> {
    work: Work,
    data: &'a Data<K>,
    settings: &'a Settings,
    walkers: &'a [Walker],
}

impl<K: Kind> Clone for Setup<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K: Kind> Copy for Setup<'_, K> {}

impl<K: Kind> Setup<'_, K> {
    /// Fills the cache before its first slice, and where time is short before each. The first slice of a
    /// cache that reads through is not recorded and goes on until the hit ratio has settled: returns how
    /// many calls that takes.
    fn begin<E: Engine<K::Key, K::Value>>(&self, engine: &E, first: &mut bool) -> u64 {
        if *first || self.work == Work::HitSecond {
            fill(self.work, self.data, engine);
        }
        let warms_up = std::mem::take(first) && self.work == Work::ReadThrough;
        if warms_up {
            WARM_UP * K::KEYS as u64
        } else {
            0
        }
    }
}

fn alone<'a, K: Kind, E: Engine<K::Key, K::Value>>(
    name: &'static str,
    engine: &'a E,
    setup: Setup<'a, K>,
) -> Contestant<'a> {
    let mut walker = setup.walkers[0].clone();
    let mut first = true;
    let slice = move || {
        let least = setup.begin(engine, &mut first);
        let start = Instant::now();
        let sample = walker.run(setup.work, setup.data, engine, |calls| {
            calls >= least && start.elapsed() >= setup.settings.slice
        });
        Sample {
            seconds: start.elapsed().as_secs_f64(),
            ..sample
        }
    };
    Contestant {
        name,
        slice: Box::new(slice),
        len: Box::new(|| engine.len()),
        bounded: true,
    }
}

fn shared<'a, K: Kind, E: Engine<K::Key, K::Value> + Sync>(
    name: &'static str,
    engine: &'a E,
    setup: Setup<'a, K>,
) -> Contestant<'a>
where
    Data<K>: Sync,
{
    if setup.walkers.len() == 1 {
        return alone(name, engine, setup);
    }
    let mut walkers = setup.walkers.to_vec();
    let mut first = true;
    let slice = move || {
        let least = setup.begin(engine, &mut first);
        together(setup, engine, &mut walkers, least)
    };
    Contestant {
        name,
        slice: Box::new(slice),
        len: Box::new(|| engine.len()),
        bounded: true,
    }
}

/// One slice on as many threads as there are walkers.
fn together<K: Kind, E: Engine<K::Key, K::Value> + Sync>(
    setup: Setup<'_, K>,
    engine: &E,
    walkers: &mut [Walker],
    least: u64,
) -> Sample
where
    Data<K>: Sync,
{
    let (stop, ready) = (AtomicBool::new(false), Barrier::new(walkers.len() + 1));
    let (work, data) = (setup.work, setup.data);
    std::thread::scope(|scope| {
        let running: Vec<_> = walkers
            .iter_mut()
            .map(|walker| {
                let (stop, ready) = (&stop, &ready);
                scope.spawn(move || {
                    ready.wait();
                    walker.run(work, data, engine, |calls| {
                        calls >= least && stop.load(Ordering::Relaxed)
                    })
                })
            })
            .collect();
        ready.wait();
        let start = Instant::now();
        std::thread::sleep(setup.settings.slice);
        stop.store(true, Ordering::Relaxed);
        let samples = running
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        let sum = samples.fold(Sample::default(), |sum, sample| Sample {
            calls: sum.calls + sample.calls,
            reads: sum.reads + sample.reads,
            hits: sum.hits + sample.hits,
            seconds: 0.0,
        });
        Sample {
            seconds: start.elapsed().as_secs_f64(),
            ..sum
        }
    })
}
