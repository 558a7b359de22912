//! Freshness: values that are loaded again before their time is up, who does it, and what never happens.
//!
//! Time is turned by hand, and so are futures. How often a draw says "early" is a matter of the pure function in
//! `src/entry/freshness.rs`, which has its own tests; here β is so large that it always does, save in the long run.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "where a test unwraps, the failure is the message; counts are printed; loaders take real time"
)]

mod absent;
mod answers;
#[path = "../support/executor.rs"]
#[allow(dead_code, reason = "each test crate uses its part")]
mod executor;
mod hot;
mod outcomes;
mod previous;
mod revoke;
mod stale;
mod trouble;
mod windows;

use std::time::Duration;

use executor::{Gate, Hand};
use larder::{Cache, CacheBuilder, ManualClock};

/// The key that everybody wants.
const KEY: u64 = 7;
const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// So large that inside the window a draw always says "early" (once in 10^7 it would not).
const ALWAYS: f64 = 1e9;

type Numbers = Cache<u64, u64>;

/// A cache whose values live a second, with a clock to turn by hand.
fn timed(
    beta: f64,
    set: impl FnOnce(CacheBuilder<u64, u64>) -> CacheBuilder<u64, u64>,
) -> (Numbers, ManualClock) {
    let time = ManualClock::new();
    let builder = Cache::builder()
        .max_capacity(100)
        .time_to_live(SECOND)
        .early_expiration(beta)
        .clock(time.clock());
    (set(builder).build().unwrap(), time)
}

/// Loads `value` for the key, which takes ten milliseconds of the clock.
fn load(cache: &Numbers, time: &ManualClock, value: u64) -> u64 {
    cache.get_or_load(&KEY, || {
        time.advance(10 * MILLI);
        value
    })
}

/// A cache that holds 1 under the key, and the clock, in the middle of that value's window.
fn in_the_window() -> (Numbers, ManualClock) {
    let (cache, time) = timed(ALWAYS, |builder| builder);
    assert_eq!(load(&cache, &time, 1), 1);
    time.advance(750 * MILLI);
    (cache, time)
}

/// A load by a task whose loader waits at the gate, polled once.
fn held<'a>(cache: &'a Numbers, gate: &'a Gate, value: u64) -> Hand<'a, u64> {
    Hand::pending(cache.get_or_load_async(&KEY, move || async move {
        gate.opened().await;
        value
    }))
}

/// A load that must be answered without a loader.
#[track_caller]
fn served(cache: &Numbers) -> u64 {
    let mut task = Hand::new(cache.get_or_load_async(&KEY, || async { panic!("a second loader") }));
    task.ready()
}

/// Nobody loads and nobody waits, and the shards are whole.
#[track_caller]
fn at_rest(cache: &Numbers) {
    assert_eq!(cache.__flights(), (0, 0), "flights, loads running");
    #[cfg(debug_assertions)]
    cache.__validate();
    assert_eq!(larder::__lock_depth(), 0);
}
