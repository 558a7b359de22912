//! larder's modules once more, under this crate's root, so that fuzz targets reach what is private.
//!
//! The list is that of `../src/lib.rs`, by path: `crate::` means the same in both, and no module over
//! there has to know of fuzzing. Public names stay public, so that none of them is dead here.

#![deny(unsafe_code)]

#[path = "../../src/cache/mod.rs"]
mod cache;
#[path = "../../src/ds/mod.rs"]
mod ds;
#[path = "../../src/entry/mod.rs"]
mod entry;
#[path = "../../src/flight/mod.rs"]
mod flight;
#[path = "../../src/load/mod.rs"]
mod load;
#[path = "../../src/policy/mod.rs"]
mod policy;
#[path = "../../src/shard/mod.rs"]
mod shard;
#[path = "../../src/store/mod.rs"]
mod store;
#[path = "../../src/util/mod.rs"]
mod util;

pub mod targets;

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

#[doc(hidden)]
pub fn __lock_depth() -> usize {
    util::sync::lock_depth()
}

#[doc(hidden)]
pub fn __precise_readings() -> u64 {
    util::clock::precise_readings()
}

#[doc(hidden)]
pub fn __longest_hold() -> u64 {
    util::sync::longest_hold()
}

#[cfg(fuzzing)]
#[doc(hidden)]
pub use libfuzzer_sys;

/// The `main` of a target: libFuzzer's under `cargo fuzz`, else a replay of the files in the arguments.
#[macro_export]
macro_rules! main_of {
    ($run:path) => {
        #[cfg(fuzzing)]
        $crate::libfuzzer_sys::fuzz_target!(|data: &[u8]| $run(data));

        #[cfg(not(fuzzing))]
        fn main() -> std::io::Result<()> {
            std::env::args_os()
                .skip(1)
                .try_for_each(|path| std::fs::read(path).map(|data| $run(&data)))
        }
    };
}
