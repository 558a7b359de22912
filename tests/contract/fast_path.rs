//! The short way of an ordinary write and the long way of all others, side by side: the same calls, drawn at random,
//! on two caches that differ in that alone. Whatever can be seen of them must be the same after every call: answers,
//! events, the journal, counts, and (from time to time) the lengths of the policy's queues.

use std::fmt::Write;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use larder::{Cache, CacheBuilder, EntryOptions, EvictionPolicy, ManualClock};
use parking_lot::Mutex;

use crate::{SECOND, ignore};

/// Hashes of which only so many differ: full buckets, and entries far from home.
#[derive(Clone, Copy)]
struct Few(u64);

struct FewHasher(u64, u64);

impl BuildHasher for Few {
    type Hasher = FewHasher;

    fn build_hasher(&self) -> FewHasher {
        FewHasher(self.0, 0)
    }
}

impl Hasher for FewHasher {
    fn finish(&self) -> u64 {
        self.1 % self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are numbers");
    }

    fn write_u64(&mut self, n: u64) {
        self.1 = n;
    }
}

struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Random((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    fn one_of<const N: usize>(&mut self, choices: [u64; N]) -> u64 {
        choices[self.below(N as u64) as usize]
    }
}

type Log = Arc<Mutex<String>>;

/// One of the two caches, and what was seen of it.
struct Way {
    cache: Cache<u64, u64, Few>,
    named: Cache<u64, u64, Few>,
    time: ManualClock,
    log: Log,
}

/// What both caches have in common.
struct Run {
    random: Random,
    capacity: u64,
    keys: u64,
    /// What times are counted in.
    unit: Duration,
    /// Loads are not ended by a draw of their own.
    loads: bool,
    /// In its second half some entries say something of themselves.
    exotic: bool,
    resizes: bool,
}

/// The settings of this seed, as often as they are asked for.
fn settings(seed: u64) -> (Run, CacheBuilder<u64, u64, Few>, ManualClock, Log) {
    let mut random = Random::new(seed);
    let time = ManualClock::new();
    if random.below(8) == 0 {
        time.advance(SECOND * 86_400 * 365 * random.one_of([5, 30]) as u32);
    }
    let capacity = random.one_of([0, 1, 2, 3, 5, 15, 16, 40, 200, 700]);
    let unit = Duration::from_millis(random.one_of([1, 1_000, 3_600_000, 86_400_000]));
    let mut builder = Cache::<u64, u64>::builder()
        .max_capacity(capacity)
        .clock(time.clock())
        .shards(1 + usize::from(random.below(3) == 0));
    if random.below(3) > 0 {
        builder = builder.time_to_live(10 * unit);
    }
    let kind = random.below(12);
    builder = match kind {
        0 => builder.stale_while_revalidate(5 * unit),
        1 => builder.stale_if_error(7 * unit, unit),
        2 => builder.refresh_after(4 * unit),
        3 => builder.early_expiration(1.0),
        4 => builder.time_to_idle(3 * unit),
        5 => builder.error_time_to_live(unit),
        6 => builder.max_entries(capacity / 2 + 1),
        7 => builder.max_entries(capacity * 2 + 1),
        8 => builder.eviction_policy(EvictionPolicy::Lru),
        _ => builder,
    };
    let log = Log::default();
    if random.below(2) == 0 {
        let heard = Arc::clone(&log);
        builder = builder.removal_listener(move |key, value, cause| {
            ignore(writeln!(heard.lock(), "heard {key} {value} {cause:?}"));
        });
    }
    if random.below(2) == 0 {
        let noted = Arc::clone(&log);
        builder = builder.__journal(move |key, cause| {
            ignore(writeln!(noted.lock(), "noted {key} {cause:?}"));
        });
    }
    let builder = builder.hasher(Few(random.one_of([7, 60, u64::MAX, u64::MAX])));
    let run = Run {
        capacity,
        keys: capacity * random.one_of([1, 2, 4]) + 3,
        unit,
        loads: !(2..=3).contains(&kind),
        exotic: random.below(4) == 0,
        resizes: random.below(3) == 0,
        random,
    };
    (run, builder, time, log)
}

fn set_up(seed: u64) -> (Run, [Way; 2]) {
    let ways = [false, true].map(|long| {
        let (_, builder, time, log) = settings(seed);
        let builder = if long {
            builder.__without_fast_path()
        } else {
            builder
        };
        let cache = builder.build().unwrap();
        let named = cache.namespace("named");
        Way {
            cache,
            named,
            time,
            log,
        }
    });
    (settings(seed).0, ways)
}

impl Run {
    /// One call, on a cache that has seen the same calls as the other one.
    fn call(&mut self, way: &Way, step: u64, late: bool) -> String {
        let cache = &way.cache;
        let random = &mut self.random;
        let key = if random.below(3) == 0 {
            random.below(self.keys / 4 + 1)
        } else {
            random.below(self.keys)
        };
        match random.below(100) {
            0..=54 => format!("insert {key} {:?}", cache.insert(key, step)),
            55..=72 => format!("get {key} {:?}", cache.get(&key)),
            73..=74 => format!("peek {key} {:?}", cache.peek(&key)),
            75..=76 => format!("remove {key} {:?}", cache.remove(&key)),
            77..=78 => format!("add {key} {}", cache.add(key, step).is_stored()),
            79 => format!("replace {key} {:?}", cache.replace(key, step)),
            80..=82 => self.written(way, key, step, 3),
            83..=84 => {
                let life = random.below(20) as u32 * self.unit;
                format!("touch {key} {}", cache.touch(&key, Some(life)))
            }
            85 => format!("invalidate {key} {}", cache.invalidate(&key)),
            86..=87 if self.loads => format!("load {key} {}", cache.get_or_load(&key, || step)),
            88 if self.loads => {
                let failed = cache.try_get_or_load(&key, || Err::<u64, _>("no"));
                format!("fail {key} {:?}", failed.map_err(|e| e.to_string()))
            }
            89 => self.swept(way, key, step),
            90 if self.exotic && late => self.written(way, key, step, 9),
            91 if self.resizes => {
                let capacity = random.below(2 * self.capacity + 1);
                cache.set_capacity(capacity);
                format!("capacity {capacity}")
            }
            92 => format!("pending {}", cache.run_pending(random.below(100) as u32)),
            _ => {
                let times = random.below(1_000) * random.one_of([1, 1, 1, 8]);
                let by = times as u32 * (self.unit / 4_000);
                way.time.advance(by);
                format!("time {by:?}")
            }
        }
    }

    /// A write that says something of its entry: of its time to live alone, or more.
    fn written(&mut self, way: &Way, key: u64, step: u64, kinds: u64) -> String {
        let Way { cache, named, .. } = way;
        let new = EntryOptions::new;
        let options = match self.random.below(kinds) {
            0 => new().no_expiry(),
            1 => new().time_to_live(50 * self.unit),
            2 => new().time_to_live(self.unit),
            3 => new().tag("t"),
            4 => new().load_time(self.unit),
            5 => new().stale_while_revalidate(2 * self.unit),
            6 => return format!("named {:?} {:?}", named.insert(key, step), named.get(&key)),
            7 => return format!("retain {}", cache.retain(|key, _| key % 5 != 0)),
            _ => {
                cache.invalidate_tag("t");
                return "tag".to_owned();
            }
        };
        let stored = cache.insert_with(key, step, options.clone());
        format!("{key} {options:?} {:?}", stored.map_err(|e| e.to_string()))
    }

    /// What concerns many entries, now and then.
    fn swept(&mut self, way: &Way, key: u64, step: u64) -> String {
        let cache = &way.cache;
        match self.random.below(12) {
            0 => {
                cache.clear();
                "clear".to_owned()
            }
            1 => {
                let even = (0..self.keys).filter(|key| key % 2 == 0);
                even.for_each(|key| ignore(cache.remove(&key)));
                "cull".to_owned()
            }
            2 => {
                let mut walk = cache.iter();
                let mut seen: Vec<_> = walk.by_ref().take(20).collect();
                (0..20).for_each(|n| ignore(cache.insert(key + n, step)));
                seen.extend(walk);
                format!("walk {seen:?}")
            }
            _ => String::new(),
        }
    }
}

/// Runs both, and compares them after every call.
fn compare(seed: u64) {
    let (mut run, ways) = set_up(seed);
    let steps = 600 + run.capacity * 4;
    for step in 0..steps {
        let state = run.random.0;
        let [short, long] = ways.each_ref().map(|way| {
            run.random.0 = state;
            let answer = run.call(way, step, step > steps / 2);
            let Way { cache, log, .. } = way;
            let log = std::mem::take(&mut *log.lock());
            let counts = format!("{} of {}, {:?}", cache.len(), cache.weight(), cache.stats());
            let queues = (step % 50 == 0).then(|| {
                #[cfg(debug_assertions)]
                cache.__validate();
                cache.inspect()
            });
            (answer, log, counts, queues)
        });
        assert_eq!(short, long, "seed {seed}, step {step}");
    }
    let [short, long] = ways.map(|way| way.cache.iter().collect::<Vec<_>>());
    assert_eq!(short, long, "seed {seed}: what is left");
}

#[test]
fn both_ways_of_a_write_come_to_the_same() {
    (0..200).for_each(compare);
}
