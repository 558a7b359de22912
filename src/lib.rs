#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(unsafe_code)]

mod cache;
#[allow(
    unsafe_code,
    reason = "what the processor can do is reached by intrinsics"
)]
mod cpu;
mod entry;
mod error;
mod expiry;
mod flight;
mod freshness;
mod generation;
mod hash;
mod parts;
mod rand;
mod removal;
mod shard;
mod slab;
mod stamp;
mod stats;
mod store;
mod stripe;
mod sync;
#[cfg(feature = "tiered")]
#[cfg_attr(docsrs, doc(cfg(feature = "tiered")))]
pub mod tier;
#[allow(
    unsafe_code,
    reason = "the kernel's coarse clock is a foreign function"
)]
mod time;

pub use cache::{Added, Cache, CacheBuilder, Compute, Computed, Counter, EvictionPolicy, Iter};
pub use entry::{EntryOptions, Loaded};
pub use equivalent::Equivalent;
pub use error::{BuildError, LoadError, RejectReason, Rejected, TryLoadError};
pub use expiry::Expiry;
pub use freshness::Freshness;
pub use hash::{DefaultHashBuilder, DefaultHasher};
pub use removal::RemovalCause;
pub use stats::Stats;
pub use time::{Clock, ManualClock};

/// How many of the crate's locks the calling thread holds; 0 in release builds. For the tests.
#[doc(hidden)]
pub fn __lock_depth() -> usize {
    sync::lock_depth()
}

/// The most slots that the calling thread looked at under one lock since this was last asked; 0 in release
/// builds. For the tests.
#[doc(hidden)]
pub fn __longest_hold() -> u64 {
    sync::longest_hold()
}

/// How often the calling thread has read a clock precisely; 0 in release builds. For the tests.
#[doc(hidden)]
pub fn __precise_readings() -> u64 {
    time::precise_readings()
}
