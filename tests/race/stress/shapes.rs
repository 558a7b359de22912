//! The caches that are stressed, and what must hold once the threads have come to rest.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder::{Cache, CacheBuilder, EvictionPolicy, Loaded};

use crate::calls::{Caller, Chance, Strings};
use crate::payload::Payload;

const THREADS: u64 = 4;
/// A shape is run so many times, each time with a new cache: building and dropping race as well.
const ROUNDS: u64 = 4;

type Builder = CacheBuilder<String, Arc<Payload>>;

/// What a stressed cache is like.
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    capacity: u64,
    shards: usize,
    keys: u64,
    lru: bool,
    weighted: bool,
    timed: bool,
    maintained: bool,
    tagged: bool,
    /// It has a loader of its own, timeouts, early loads and stale windows.
    attached: bool,
}

pub(crate) const SHAPES: [Shape; 5] = [
    Shape {
        name: "plain, small",
        capacity: 16,
        shards: 1,
        keys: 40,
        lru: false,
        weighted: false,
        timed: false,
        maintained: false,
        tagged: true,
        attached: false,
    },
    Shape {
        name: "lru, timed",
        capacity: 200,
        shards: 1,
        keys: 400,
        lru: true,
        weighted: false,
        timed: true,
        maintained: false,
        tagged: true,
        attached: false,
    },
    Shape {
        name: "timed, maintained, sharded",
        capacity: 2048,
        shards: 2,
        keys: 20_000,
        lru: false,
        weighted: false,
        timed: true,
        maintained: true,
        tagged: true,
        attached: false,
    },
    Shape {
        name: "weighed, timed, maintained",
        capacity: 3000,
        shards: 2,
        keys: 300,
        lru: false,
        weighted: true,
        timed: true,
        maintained: true,
        tagged: true,
        attached: false,
    },
    Shape {
        name: "timed, loaded elsewhere",
        capacity: 200,
        shards: 1,
        keys: 60,
        lru: false,
        weighted: false,
        timed: true,
        maintained: false,
        tagged: true,
        attached: true,
    },
];

/// What was done.
#[derive(Default)]
pub(crate) struct Done {
    calls: u64,
    hits: u64,
    loads: u64,
    evicted: u64,
    expired: u64,
    invalidated: u64,
    told: u64,
}

impl fmt::Display for Done {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} calls, {} hits, {} loads, {} evicted, {} expired, {} invalidated, {} told",
            self.calls,
            self.hits,
            self.loads,
            self.evicted,
            self.expired,
            self.invalidated,
            self.told
        )
    }
}

impl Shape {
    fn build(&self, told: &Arc<AtomicU64>) -> Strings {
        let told = Arc::clone(told);
        let mut builder = Cache::builder()
            .max_capacity(self.capacity)
            .shards(self.shards)
            .removal_listener(move |key: &String, value: &Arc<Payload>, _cause| {
                assert_eq!(key, value.key(), "told of another key's value");
                told.fetch_add(1, Ordering::Relaxed);
            });
        if self.lru {
            // A remembered failure stands among the flights, so one shape does without that check.
            builder = builder
                .eviction_policy(EvictionPolicy::Lru)
                .error_time_to_live(Duration::from_millis(1));
        }
        if self.weighted {
            builder = builder
                .weigher(|_, value: &Arc<Payload>| value.weight())
                .max_entries(4096);
        }
        if self.timed {
            builder = builder
                .time_to_live(Duration::from_millis(40))
                .time_to_idle(Duration::from_millis(30))
                .jitter(0.2);
        }
        if self.maintained {
            builder = builder.maintenance(Duration::from_millis(1));
        }
        if self.attached {
            builder = elsewhere(builder);
        }
        builder.build().expect("a legal configuration")
    }

    /// Runs all rounds.
    pub(crate) fn run(&self, calls: u64, seed: u64) -> Done {
        let mut done = Done::default();
        for round in 0..ROUNDS {
            self.round(calls / ROUNDS, seed * ROUNDS + round, &mut done);
        }
        done
    }

    fn round(&self, calls: u64, seed: u64, done: &mut Done) {
        let told = Arc::new(AtomicU64::new(0));
        let root = self.build(&told);
        let ready = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                // Each thread has its own handle, so that they are cloned and dropped by many.
                let (root, ready) = (root.clone(), Arc::clone(&ready));
                let (keys, capacity, tagged) = (self.keys, self.capacity, self.tagged);
                std::thread::spawn(move || {
                    let named = root.namespace("named");
                    ready.fetch_add(1, Ordering::AcqRel);
                    while ready.load(Ordering::Acquire) < THREADS {
                        std::thread::yield_now();
                    }
                    let mut caller = Caller {
                        cache: if number % 3 == 2 { &named } else { &root },
                        chance: Chance::new(seed * THREADS + number + 1),
                        keys,
                        capacity,
                        tagged,
                    };
                    // Together they fill it twice.
                    (0..capacity / 2).for_each(|_| caller.fill());
                    (0..calls).for_each(|_| caller.call());
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("a thread panicked");
        }
        if self.attached {
            // Those that nobody waited for.
            wait_for("loads", || root.__flights().1 as u64);
        }
        let (flights, permits) = root.__flights();
        assert_eq!(permits, 0, "a load is still counted as running");
        let remembers = self.lru || self.attached;
        assert!(remembers || flights == 0, "{flights} flights were left");
        #[cfg(debug_assertions)]
        root.__validate();
        let stats = root.stats();
        done.calls += calls * THREADS;
        done.hits += stats.hits();
        done.loads += stats.loads();
        done.evicted += stats.evicted();
        done.expired += stats.expired();
        done.invalidated += stats.invalidated();
        drop(root);
        all_gone();
        done.told += told.load(Ordering::Relaxed);
    }
}

/// Loads on two threads of the cache's own, by a loader that is slow, finds nothing, fails or panics now and then.
fn elsewhere(builder: Builder) -> Builder {
    let turn = AtomicU64::new(0);
    builder
        .early_expiration(4.0)
        .refresh_after(Duration::from_millis(20))
        .stale_while_revalidate(Duration::from_millis(2))
        .stale_if_error(Duration::from_millis(20), Duration::from_millis(1))
        .negative_time_to_live(Duration::from_millis(1))
        .soft_timeout(Duration::from_micros(200))
        .hard_timeout(Duration::from_millis(5))
        .loader_with_previous(move |key: &String, previous: Option<&Arc<Payload>>| {
            // Relaxed: only that it differs matters.
            match (turn.fetch_add(1, Ordering::Relaxed) % 16, previous) {
                (0, _) => Err("planned"),
                (1, _) => Ok(Loaded::absent().tag("tag 1")),
                (2, _) => std::panic::resume_unwind(Box::new(())),
                (3..8, Some(_)) => Ok(Loaded::unchanged()),
                (8, _) => {
                    std::thread::park_timeout(Duration::from_millis(1));
                    Ok(Loaded::new(Payload::new(key, 9)))
                }
                _ => Ok(Loaded::new(Payload::new(key, 9)).stale_if_error(Duration::from_millis(3))),
            }
        })
}

/// Every payload is dropped soon after the last handle: the maintenance thread may hold one for a moment.
fn all_gone() {
    if cfg!(larder_plant = "leak") {
        // Left to the sanitizer.
        return;
    }
    wait_for("values", || Payload::live() as u64);
}

fn wait_for(what: &str, left: impl Fn() -> u64) {
    for _ in 0..20_000 {
        if left() == 0 {
            return;
        }
        #[allow(
            clippy::disallowed_methods,
            reason = "waits for a thread, and says so in vain"
        )]
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("{} {what} were left", left());
}
