//! A shared tier (an L2, such as Redis) behind the caches of several processes, kept coherent.
//!
//! [`Tiered`] is what a program uses: a bounded cache of its own, ahead of a [`Tier`], ahead of a loader. What one
//! process writes or invalidates, the others stop serving as soon as the tier's message has reached them.
//!
//! ```
//! use larder::tier::{MemoryServer, Tiered};
//! use std::time::Duration;
//!
//! // With the feature `redis`: let tier = Redis::connect("redis://127.0.0.1")?;
//! let tier = MemoryServer::new().tier();
//! let prices: Tiered<String, u64> = Tiered::builder(tier)
//!     .max_capacity(10_000)
//!     .time_to_live(Duration::from_secs(3600))
//!     .build()?;
//! let price = prices.get_or_load("price:7", || 10)?; // L1, shared tier, loader
//! prices.invalidate("price:7")?; // everywhere
//! # assert_eq!(price, 10);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod async_util;
mod codec;
mod content_id;
mod contract;
mod counters;
mod envelope;
mod key;
mod lock;
mod memory;
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub mod redis;
mod sleep;
mod tiered;

#[cfg(feature = "json")]
pub use codec::Json;
pub use codec::{Codec, CodecError, Postcard, RawBytes};
pub use contract::{
    AddReply, Change, FlushCause, ServerErrorKind, Tier, TierError, TierFuture, TierListener,
};
pub use counters::TieredStats;
pub use envelope::{ContentId, EnvelopeError};
pub use key::{FromTierKey, TierKey};
pub use lock::{LockGuard, LockManager};
pub use memory::{MemoryServer, MemoryTier};
pub use tiered::{Scope, Tiered, TieredBuildError, TieredBuilder};
