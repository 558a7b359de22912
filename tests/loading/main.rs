//! Single-flight loading: who runs a loader, who waits, what each is given, and what the cache keeps.
//!
//! Most tests poll futures by hand, so that each step happens where the test says; time is turned by
//! hand too. `tests/race` runs the same protocol through chosen interleavings of threads.

mod answers;
mod cancel;
mod crowd;
mod deadlines;
#[path = "../support/executor.rs"]
mod executor;
mod outcomes;
mod recursion;
mod revoke;
mod scopes;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use executor::{Gate, Hand, Steps};
use larder::{Cache, CacheBuilder, ManualClock};

/// The key that everybody wants.
const KEY: u64 = 7;
const SECOND: Duration = Duration::from_secs(1);

type Numbers = Cache<u64, u64>;

/// How often the loader of `slow` is pending.
const POLLS: u32 = 5;

/// A load whose loader is pending `POLLS` times.
async fn slow(cache: &Numbers, value: u64) -> u64 {
    cache
        .get_or_load_async(&KEY, || async {
            Steps(POLLS).await;
            value
        })
        .await
}

/// Polls a `slow` load until its loader's waits are over.
#[track_caller]
fn run_out(hand: &mut Hand<'_, u64>) -> u64 {
    for _ in 0..=POLLS {
        if let Poll::Ready(value) = hand.poll() {
            return value;
        }
    }
    panic!("it waits for more than its loader");
}

/// A cache of numbers with a clock to turn by hand.
fn timed(set: impl FnOnce(CacheBuilder<u64, u64>) -> CacheBuilder<u64, u64>) -> (Numbers, Time) {
    let time = Time(ManualClock::new());
    let builder = Cache::builder().max_capacity(100).clock(time.0.clock());
    let cache = set(builder).build().expect("a valid configuration");
    (cache, time)
}

fn numbers() -> Numbers {
    timed(|builder| builder).0
}

/// The clock of a cache.
struct Time(ManualClock);

impl Time {
    fn pass(&self, time: Duration) {
        self.0.advance(time);
    }
}

/// A load by a task whose loader waits at the gate, polled once.
fn held<'a>(cache: &'a Numbers, gate: &'a Gate, value: u64) -> Hand<'a, u64> {
    Hand::pending(cache.get_or_load_async(&KEY, move || async move {
        gate.opened().await;
        value
    }))
}

/// A task that waits for another's load; its own loader would answer `value` at once.
fn waiting(cache: &Numbers, value: u64) -> Hand<'_, u64> {
    Hand::pending(cache.get_or_load_async(&KEY, move || async move { value }))
}

/// Waits until so many callers have joined another's load.
fn until_joined(cache: &Numbers, callers: u64) {
    while cache.stats().joined() < callers {
        std::thread::yield_now();
    }
}

/// Nobody loads and nobody waits: no flight stands, no permit is held, and the shards are whole.
#[track_caller]
fn at_rest(cache: &Numbers) {
    assert_eq!(cache.__flights(), (0, 0), "flights, loads running");
    #[cfg(debug_assertions)]
    cache.__validate();
    assert_eq!(larder::__lock_depth(), 0);
}

/// Counts the runs of a loader.
#[derive(Default)]
struct Runs(AtomicUsize);

impl Runs {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Counts one, and returns its number, from 1 on.
    fn next(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }
}
