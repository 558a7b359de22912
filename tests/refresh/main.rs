//! Refreshes with an attached loader: nobody waits for them, and what becomes of them where nobody can run them.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "where a test unwraps, the failure is the message; threads take real time, and locks of std"
)]

#[path = "../support/executor.rs"]
#[allow(dead_code, reason = "each test crate uses its part")]
mod executor;
mod handed;
mod run;
mod timeouts;
mod trouble;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use executor::Gate;
use larder::{Cache, CacheBuilder, EntryOptions, Loaded, ManualClock, Stats};

const KEY: u64 = 7;
const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// Inside the window a draw always says "early".
const ALWAYS: f64 = 1e9;

type Numbers = Cache<u64, u64>;

/// The source behind an attached loader: counts, waits at a gate, fails or panics as it is told.
#[derive(Clone, Default)]
struct Source {
    asked: Arc<AtomicU64>,
    gate: Gate,
    mood: Arc<AtomicU64>,
}

const WELL: u64 = 0;
const DOWN: u64 = 1;
const ANGRY: u64 = 2;

impl Source {
    fn answer(&self) -> Result<Loaded<u64>, &'static str> {
        self.gate.block();
        let n = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        match self.mood.load(Ordering::SeqCst) {
            WELL => Ok(Loaded::new(100 * n)),
            DOWN => Err("the source is down"),
            _ => panic!("the source is angry"),
        }
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    fn is(&self, mood: u64) {
        self.mood.store(mood, Ordering::SeqCst);
    }
}

/// A cache with an attached loader, and a value of 1 in the middle of its window.
fn in_the_window(
    set: impl FnOnce(CacheBuilder<u64, u64>) -> CacheBuilder<u64, u64>,
) -> (Numbers, ManualClock, Source) {
    let (time, source) = (ManualClock::new(), Source::default());
    let asked = source.clone();
    let builder = Cache::builder()
        .max_capacity(100)
        .time_to_live(SECOND)
        .early_expiration(ALWAYS)
        .loader(move |_: &u64| asked.answer())
        .clock(time.clock());
    let cache = set(builder).build().unwrap();
    put(&cache, &time);
    (cache, time, source)
}

/// Writes 1 and waits for its window.
fn put(cache: &Numbers, time: &ManualClock) {
    let options = EntryOptions::new().load_time(10 * MILLI);
    cache.insert_with(KEY, 1, options).unwrap();
    time.advance(750 * MILLI);
}

/// Waits until another thread has brought this about.
#[track_caller]
fn until(cache: &Numbers, holds: impl Fn(&Stats) -> bool) {
    let begun = std::time::Instant::now();
    while !holds(&cache.stats()) {
        assert!(begun.elapsed() < 20 * SECOND, "{:?}", cache.stats());
        std::thread::yield_now();
    }
}

/// Nobody loads any more, and the shards are whole.
#[track_caller]
fn at_rest(cache: &Numbers) {
    let begun = std::time::Instant::now();
    while cache.__flights() != (0, 0) {
        assert!(begun.elapsed() < 20 * SECOND, "{:?}", cache.__flights());
        std::thread::yield_now();
    }
    #[cfg(debug_assertions)]
    cache.__validate();
}
