//! Memory by count: what an entry costs with each feature, that memory stays flat under churn and comes
//! back when entries leave, and what happens when a million entries expire at once.
//!
//! ```text
//! cargo test --test memory -- --nocapture             the counts that only debug builds keep
//! cargo test --release --test memory -- --nocapture   ten times the churn
//! ```
//!
//! Lines that begin with `figures` are for the README. Bytes are those that were asked for: the machine's
//! allocator adds its own to each block. The counts are of the whole process, so the tests of this file
//! run one at a time; the harness itself allocates a few kilobytes meanwhile.

#![allow(
    unsafe_code,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "an allocator is unsafe; a test measures real time, and its failure is the message"
)]

mod back;
mod burst;
mod churn;
mod entry;
mod heap;
mod hits;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The most bytes of heap that one `u64 → u64` entry may cost, at the worst of the four sizes: in a cache
/// that is full, before and after its ghosts are, and in one with room for more. Measured, plus 3 %, or
/// what was promised.
#[rustfmt::skip]
pub(crate) const BOUNDS: &[(&str, f64, f64)] = &[
    // feature                       full   roomy
    ("plain",                       50.0,  50.0),
    ("plain, LRU",                  48.4,  49.4),
    ("ttl",                         60.0,  60.0),
    ("ttl and tti",                 69.0,  69.0),
    ("weigher",                     58.5,  58.5),
    ("one of 100 tags each",        91.5,  91.5),
    ("a tag of its own each",      267.8, 178.4),
    ("ttl, stored by compute",      64.5,  64.5),
    ("ttl, loaded, early expiration", 69.0, 69.0),
    ("ttl, stale windows of its own", 69.0, 69.0),
    ("namespace",                   54.4,  54.4),
    ("ttl, tti, weigher, one tag", 119.3, 119.3),
];

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// Counts that only debug builds keep are asserted there; long runs belong to release builds.
pub(crate) const DEBUG: bool = cfg!(debug_assertions);

/// Held by each test of this file from end to end.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Drops an answer that the test does not ask about.
pub(crate) fn ignore<T>(_: T) {}
