//! The written contracts of the public interface, one small test each, named after what it proves.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests measure real time; where a test unwraps, the failure is the message"
)]

mod bounds;
mod capacity;
mod compaction;
mod compute;
mod edges;
mod expiry;
mod fast_insert;
mod fast_path;
mod listener;
mod loads;
mod scans;
mod scopes;
mod shape;
#[path = "../support/mod.rs"]
mod support;
mod threads;
mod writes;

use std::time::Duration;

use larder::{Cache, CacheBuilder, ManualClock};

pub(crate) const MILLI: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// A cache of numbers with a clock to turn by hand.
pub(crate) fn timed(
    configure: impl FnOnce(CacheBuilder<u64, u64>) -> CacheBuilder<u64, u64>,
) -> (Cache<u64, u64>, ManualClock) {
    let time = ManualClock::new();
    let builder = Cache::builder().max_capacity(1000).clock(time.clock());
    let cache = configure(builder).build().expect("a valid configuration");
    (cache, time)
}

/// A cache of numbers that holds `capacity`.
pub(crate) fn sized(capacity: u64) -> Cache<u64, u64> {
    let builder = Cache::builder().max_capacity(capacity);
    builder.build().expect("a valid configuration")
}

/// A cache in which a value is its own weight.
pub(crate) fn weighted(capacity: u64) -> CacheBuilder<u64, u64> {
    Cache::builder()
        .max_capacity(capacity)
        .weigher(|_, weight| *weight)
}

/// Drops an answer that the test does not ask about, whatever its type.
pub(crate) fn ignore<T>(_: T) {}
