//! A cache of this process over a shared tier over a loader.
//!
//! `miss.rs` is the protocol of a miss, what is asked of the shared tier before a loader runs; `publish.rs` what is
//! done with what it brought. `load.rs` and `bulk.rs` are the calls that begin it, `write.rs` those that change things,
//! `invalidation.rs` what is done about changes. `own_writes.rs` knows this process's writes again; `versions.rs` keeps
//! the versions of tags, `namespace.rs` has namespaces.
//!
//! # Why nothing stale stays in the cache of this process
//! Whatever enters it does so as the answer of a load of its own (`Cache`'s promise 4: a load in flight loses its right
//! to publish when its key, its tags or everything is invalidated), and holds what a tracked read of that load brought,
//! or what a fenced write of it wrote and read back. A change that follows the read is told by the tier (its promise
//! 1), and invalidates; a change before it was in what was read. What this process writes itself is told in the same
//! way before the write is answered (promise 2): a load's own fenced write detaches every load of the key but the one
//! that made it, which is known by the content id (`own_writes.rs`). When the tier cannot promise to tell any more, it
//! flushes first, and nothing that is read after a flush was answered before it (promise 4).
//!
//! # Why nothing stale stays in the shared tier
//! A value is stored only over a content that was there when it was made: the placeholder that was put there, or the
//! older content that was read. Writers remove it, or take its place, and no content id is used twice. That holds for
//! what a caller inserts, too: it takes the key's place by a placeholder and, once that is answered, stores over it. So
//! no command that arrives late can bring a value back. A tag that moved while the loader ran has a version above the
//! sequence's number when it began, and the value is not stored; one that moves later has another version than the
//! value lists.

mod builder;
mod bulk;
mod invalidation;
mod load;
mod miss;
mod namespace;
mod own_writes;
mod publish;
mod versions;
mod write;

pub use builder::{TieredBuildError, TieredBuilder};
#[cfg(feature = "redis")]
pub(super) use versions::EVERYTHING;

use std::error::Error;
use std::fmt;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::async_util::Waiters;
use super::codec::Codec;
use super::content_id::ContentIds;
use super::contract::Tier;
use super::counters::{TieredCounters, TieredStats};
use super::envelope::{ContentId, EnvelopeLimits};
use super::key::FromTierKey;
use crate::cache::Cache;
use crate::entry::Loaded;
use crate::entry::stats::Stats;
use crate::util::clock::Clock;
use crate::util::sync::Arc;
use own_writes::{LoaderDemand, Writes};

/// A bounded cache of this process (the L1) ahead of a [`Tier`](super::Tier) that is shared with others. A handle:
/// clones are cheap and share one cache.
///
/// A hit in the L1 costs what a hit of a [`Cache`] costs. A miss asks the tier, and if that has nothing, the
/// loader; one call a key does so, the others wait for it. What another process changes through its `Tiered` is not
/// served here once the tier's message about it has come.
///
/// The tier may be down or slow: then loading calls ask their loaders, and nothing is kept that could not be kept
/// coherent (or, if [`serve_while_down`](TieredBuilder::serve_while_down) says so, for a short time).
///
/// Every call that may wait comes in two forms, one for threads and one for tasks (`_async`) on any runtime; but
/// [`load`](Self::load), whose loader blocks a thread in any case.
///
/// ```
/// use larder::tier::{MemoryServer, Tiered};
///
/// let server = MemoryServer::new(); // or a `Redis`
/// let here: Tiered<String, u64> = Tiered::builder(server.tier()).max_capacity(100).build()?;
/// let there: Tiered<String, u64> = Tiered::builder(server.tier()).max_capacity(100).build()?;
///
/// assert_eq!(here.get_or_load("price:7", || 10)?, 10);
/// assert_eq!(there.get("price:7")?, Some(10)); // from the shared tier
/// there.invalidate("price:7")?;
/// assert_eq!(here.get_or_load("price:7", || 12)?, 12);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Tiered<K, V> {
    inner: Arc<TieredInner<K, V>>,
    scope: Scope,
    /// The L1, in the namespace.
    l1: Cache<K, L1Value<V>>,
    namespace: Option<Arc<str>>,
}

/// How far a change reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// This process's L1 alone. What is inserted so is not coherent: it lives for the L1's time to
    /// live at most.
    Local,
    /// The shared tier. The L1 loses its copy when the tier has answered, as every other process's does.
    Shared,
    /// Both: the own copy goes before the tier is asked, also if the tier then fails.
    #[default]
    Both,
}

struct TieredInner<K, V> {
    l1: Cache<K, L1Value<V>>,
    /// The versions of tags that tracked reads have brought.
    versions: Cache<Box<str>, u64>,
    tier: Arc<dyn Tier>,
    codec: Box<dyn Codec<V>>,
    rules: TieredRules,
    content_ids: ContentIds,
    writes: Writes,
    demand: LoaderDemand,
    nothings: AtomicU64,
    waiters: Waiters,
    loader: Option<TieredLoader<K, V>>,
    connected: AtomicBool,
    clock: Clock,
    counters: TieredCounters,
}

/// The loader that the builder was given.
type TieredLoader<K, V> =
    Arc<dyn Fn(&K) -> Result<Loaded<V>, Box<dyn Error + Send + Sync>> + Send + Sync>;

/// What the builder was told.
struct TieredRules {
    schema: u32,
    limits: EnvelopeLimits,
    time_to_live: Duration,
    l1_time_to_live: Duration,
    stale: Duration,
    lease: Duration,
    /// How long to wait for another process's load; zero for not at all.
    max_wait: Duration,
    serve_while_down: Duration,
    budget: Option<Duration>,
}

/// A value in the L1; `None` is a remembered absence.
#[derive(Clone)]
struct L1Value<V> {
    value: Option<V>,
    /// Which content of the shared tier this is; `None` for what never was there.
    content_id: Option<ContentId>,
    /// When that was made, in milliseconds since 1970.
    created: u64,
    /// Until when this copy is served without a look, by the own clock.
    fresh_until: u64,
    /// Its tags, for a loader that says that nothing has changed.
    tags: Option<Arc<[Box<str>]>>,
}

impl<K, V> Tiered<K, V>
where
    K: Hash + Eq + Clone + FromTierKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Starts the configuration of a cache over this tier; [`max_capacity`](TieredBuilder::max_capacity) must be given.
    ///
    /// ```
    /// use larder::tier::{MemoryServer, Tiered};
    ///
    /// let cache: Tiered<u64, String> = Tiered::builder(MemoryServer::new().tier())
    ///     .max_capacity(1_000)
    ///     .build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder(tier: impl Tier) -> TieredBuilder<K, V> {
        TieredBuilder::new(Box::new(tier))
    }

    /// A handle to this cache whose changes reach as far as `scope` says.
    ///
    /// ```
    /// # use larder::tier::{MemoryServer, Scope, Tiered};
    /// # let cache: Tiered<String, u64> = Tiered::builder(MemoryServer::new().tier()).max_capacity(9).build()?;
    /// cache.insert("a".to_owned(), 1)?;
    /// cache.with_scope(Scope::Local).invalidate("a")?; // the own copy; the next read asks the shared tier
    /// assert_eq!(cache.get("a")?, Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_scope(&self, scope: Scope) -> Self {
        Tiered {
            scope,
            ..self.clone()
        }
    }

    /// Whether the tier tells of changes now.
    ///
    /// ```
    /// # use larder::tier::{MemoryServer, Tiered};
    /// # let cache: Tiered<String, u64> = Tiered::builder(MemoryServer::new().tier()).max_capacity(9).build()?;
    /// assert!(cache.is_connected());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn is_connected(&self) -> bool {
        // Relaxed: a report, not a permission.
        self.inner.connected.load(Ordering::Relaxed)
    }

    /// How many entries the L1 holds. O(shards).
    ///
    /// ```
    /// # use larder::tier::{MemoryServer, Tiered};
    /// # let cache: Tiered<String, u64> = Tiered::builder(MemoryServer::new().tier()).max_capacity(9).build()?;
    /// assert!(cache.is_empty() && cache.len() == 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn len(&self) -> u64 {
        self.inner.l1.len()
    }

    /// Whether the L1 holds nothing. O(shards).
    ///
    /// ```
    /// # use larder::tier::{MemoryServer, Tiered};
    /// # let cache: Tiered<String, u64> = Tiered::builder(MemoryServer::new().tier()).max_capacity(9).build()?;
    /// assert!(cache.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.l1.is_empty()
    }

    /// The counters of the L1.
    ///
    /// ```
    /// # use larder::tier::{MemoryServer, Tiered};
    /// # let cache: Tiered<String, u64> = Tiered::builder(MemoryServer::new().tier()).max_capacity(9).build()?;
    /// assert_eq!(cache.stats().hits(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.l1.stats()
    }

    /// What the shared tier was asked, and what came of it.
    ///
    /// ```
    /// # use larder::tier::{MemoryServer, Tiered};
    /// # let cache: Tiered<String, u64> = Tiered::builder(MemoryServer::new().tier()).max_capacity(9).build()?;
    /// cache.get("nothing")?;
    /// assert_eq!(cache.tiered_stats().l2_misses, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn tiered_stats(&self) -> TieredStats {
        self.inner.counters.snapshot()
    }
}

impl<K, V> Clone for Tiered<K, V> {
    fn clone(&self) -> Self {
        Tiered {
            inner: self.inner.clone(),
            scope: self.scope,
            l1: self.l1.clone(),
            namespace: self.namespace.clone(),
        }
    }
}

impl<K, V> fmt::Debug for Tiered<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tiered")
            .field("scope", &self.scope)
            .field("namespace", &self.namespace)
            .field("connected", &self.inner.connected)
            .finish_non_exhaustive()
    }
}
