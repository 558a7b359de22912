#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(unsafe_code)]

mod cache;
mod ds;
mod entry;
mod flight;
mod load;
mod policy;
mod shard;
mod store;
#[cfg(feature = "tiered")]
#[cfg_attr(docsrs, doc(cfg(feature = "tiered")))]
pub mod tier;
mod util;

pub use cache::{
    Added, Cache, CacheBuilder, Compute, ComputeError, Computed, EvictionPolicy, Integer, Iter,
};
pub use entry::expiry::Expiry;
pub use entry::freshness::Freshness;
pub use entry::hash::{DefaultHashBuilder, DefaultHasher};
pub use entry::removal::RemovalCause;
pub use entry::stats::Stats;
pub use entry::{EntryOptions, Loaded};
pub use equivalent::Equivalent;
pub use util::clock::{Clock, ManualClock};
pub use util::error::{BuildError, LoadError, RejectReason, Rejected, TryLoadError};

/// How many of the crate's locks the calling thread holds; 0 in release builds. For the tests.
#[doc(hidden)]
pub fn __lock_depth() -> usize {
    util::sync::lock_depth()
}

/// The most slots that the calling thread looked at under one lock since this was last asked; 0 in release
/// builds. For the tests.
#[doc(hidden)]
pub fn __longest_hold() -> u64 {
    util::sync::longest_hold()
}

/// How often the calling thread has read a clock precisely; 0 in release builds. For the tests.
#[doc(hidden)]
pub fn __precise_readings() -> u64 {
    util::clock::precise_readings()
}
