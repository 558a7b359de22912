//! larder's modules once more, under this crate's root, so that fuzz targets reach what is private.
//!
//! The list is that of `../src/lib.rs`, by path: `crate::` means the same in both, and no module over
//! there has to know of fuzzing. Public names stay public, so that none of them is dead here.

#![deny(unsafe_code)]

#[path = "../../src/cache/mod.rs"]
mod cache;
#[allow(
    unsafe_code,
    reason = "what the processor can do is reached by intrinsics"
)]
#[path = "../../src/cpu.rs"]
mod cpu;
#[path = "../../src/entry.rs"]
mod entry;
#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/expiry.rs"]
mod expiry;
#[path = "../../src/flight/mod.rs"]
mod flight;
#[path = "../../src/freshness.rs"]
mod freshness;
#[path = "../../src/generation.rs"]
mod generation;
#[path = "../../src/hash.rs"]
mod hash;
#[path = "../../src/parts/mod.rs"]
mod parts;
#[path = "../../src/rand.rs"]
mod rand;
#[path = "../../src/removal.rs"]
mod removal;
#[path = "../../src/shard/mod.rs"]
mod shard;
#[path = "../../src/slab.rs"]
mod slab;
#[path = "../../src/stamp.rs"]
mod stamp;
#[path = "../../src/stats.rs"]
mod stats;
#[path = "../../src/store/mod.rs"]
mod store;
#[path = "../../src/stripe.rs"]
mod stripe;
#[path = "../../src/sync.rs"]
mod sync;
#[allow(
    unsafe_code,
    reason = "the kernel's coarse clock is a foreign function"
)]
#[path = "../../src/time.rs"]
mod time;

pub mod targets;

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

#[doc(hidden)]
pub fn __lock_depth() -> usize {
    sync::lock_depth()
}

#[doc(hidden)]
pub fn __precise_readings() -> u64 {
    time::precise_readings()
}

#[doc(hidden)]
pub fn __longest_hold() -> u64 {
    sync::longest_hold()
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
