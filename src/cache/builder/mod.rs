//! The configuration of a cache, checked once, in `build`.

mod build;
mod loading;

use crate::entry::expiry::Lifetime;
use std::fmt;
use std::hash::Hash;
use std::time::Duration;

use super::executor::{Job, Spawn};
use super::{Cache, CacheRules, Weigher};
use crate::entry::expiry::Expiry;
use crate::entry::hash::DefaultHashBuilder;
use crate::entry::removal::{Listener, RemovalCause};
use crate::store::{Journal, Timer};
use crate::util::clock::Clock;

const LOAD_DEADLINE: Duration = Duration::from_secs(30);
const WAIT_DEADLINE: Duration = Duration::from_secs(30);
const REFRESH_THREADS: usize = 2;

/// Which entry makes room when the cache is full.
///
/// ```
/// use larder::{Cache, EvictionPolicy};
///
/// let cache: Cache<u64, u64> =
///     Cache::builder().max_capacity(100).eviction_policy(EvictionPolicy::Lru).build()?;
/// # Ok::<(), larder::BuildError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum EvictionPolicy {
    /// Newcomers prove themselves in a small queue before they reach the main one; what is seen once
    /// pushes out nothing that is seen often. A hit writes at most one byte.
    #[default]
    S3Fifo,
    /// The entry whose last use is longest ago. Every hit takes its shard's lock exclusively.
    Lru,
}

/// Configures and builds a [`Cache`]. Everything but [`max_capacity`](Self::max_capacity) has a default.
///
/// ```
/// use larder::Cache;
/// use std::time::Duration;
///
/// let cache: Cache<String, Vec<u8>> = Cache::builder()
///     .name("thumbnails")
///     .max_capacity(64 << 20)
///     .weigher(|name: &String, image: &Vec<u8>| (name.len() + image.len()) as u64)
///     .time_to_live(Duration::from_secs(3600))
///     .jitter(0.1)
///     .build()?;
/// # Ok::<(), larder::BuildError>(())
/// ```
#[must_use = "a builder does nothing until `build` is called"]
pub struct CacheBuilder<K, V, S = DefaultHashBuilder> {
    hasher: S,
    max_capacity: Option<u64>,
    shards: Option<usize>,
    time_to_idle: Option<Duration>,
    eviction_policy: EvictionPolicy,
    clock: Clock,
    listener: Option<Listener<K, V>>,
    journal: Option<Journal<K>>,
    no_fast_path: bool,
    max_loads: Option<usize>,
    load_deadline: Duration,
    wait_deadline: Duration,
    error_time_to_live: Duration,
    negative_time_to_live: Duration,
    soft_timeout: Option<Duration>,
    hard_timeout: Option<Duration>,
    refresh_after: Option<Duration>,
    beta: f64,
    refresh_threads: usize,
    executor: Option<Box<dyn Fn(Job) + Send + Sync>>,
    spawner: Option<Spawn>,
    stale_while_revalidate: Duration,
    stale_if_error: (Duration, Duration),
    maintenance: Option<Duration>,
    timer: Option<Timer>,
    rules: CacheRules<K, V>,
}

impl<K, V> CacheBuilder<K, V> {
    pub(super) fn new() -> Self {
        CacheBuilder {
            hasher: DefaultHashBuilder::default(),
            max_capacity: None,
            shards: None,
            time_to_idle: None,
            eviction_policy: EvictionPolicy::S3Fifo,
            clock: Clock::system(),
            listener: None,
            journal: None,
            no_fast_path: false,
            max_loads: None,
            load_deadline: LOAD_DEADLINE,
            wait_deadline: WAIT_DEADLINE,
            error_time_to_live: Duration::ZERO,
            negative_time_to_live: Duration::ZERO,
            soft_timeout: None,
            hard_timeout: None,
            refresh_after: None,
            beta: 0.0,
            refresh_threads: REFRESH_THREADS,
            executor: None,
            spawner: None,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: (Duration::ZERO, Duration::ZERO),
            maintenance: None,
            timer: None,
            rules: CacheRules {
                name: None,
                time_to_live: None,
                jitter: 0.0,
                weigher: None,
                max_entries: None,
                expiry: None,
                loader: None,
                async_loader: None,
            },
        }
    }
}

impl<K, V> Cache<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Starts the configuration of a cache; [`max_capacity`](CacheBuilder::max_capacity) must be given.
    ///
    /// ```
    /// let cache = larder::Cache::<u64, u64>::builder().max_capacity(100).build()?;
    /// assert!(cache.is_empty());
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn builder() -> CacheBuilder<K, V> {
        CacheBuilder::new()
    }
}

impl<K, V, S> CacheBuilder<K, V, S> {
    /// A name, for `Debug` and [`inspect`](crate::Cache::inspect).
    ///
    /// ```
    /// let cache = larder::Cache::<u64, u64>::builder().name("users").max_capacity(9).build()?;
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn name(mut self, name: impl Into<Box<str>>) -> Self {
        self.rules.name = Some(name.into());
        self
    }

    /// The bound: on the number of entries or, with a [`weigher`](Self::weigher), on their total weight.
    /// Mandatory. Zero makes a cache that keeps nothing and still runs one loader a key.
    ///
    /// A cache of at least 2,048 entries is split into shards that each have their part of the bound;
    /// keys spread unevenly, so such a cache holds slightly fewer entries than its bound (at least
    /// 96 %). A smaller one holds exactly its bound.
    ///
    /// ```
    /// let cache = larder::Cache::<u64, u64>::builder().max_capacity(10_000).build()?;
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn max_capacity(mut self, capacity: u64) -> Self {
        self.max_capacity = Some(capacity);
        self
    }

    /// A bound on the number of entries, in addition to that on their weight. Entries of weight zero are bounded
    /// by nothing else. Default: the number that `max_capacity` is.
    ///
    /// ```
    /// let cache = larder::Cache::builder()
    ///     .max_capacity(1 << 20)
    ///     .weigher(|_key: &u64, text: &String| text.len() as u64)
    ///     .max_entries(1_000)
    ///     .build()?;
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn max_entries(mut self, entries: u64) -> Self {
        self.rules.max_entries = Some(entries);
        self
    }

    /// What an entry weighs, in a unit of your choice. Asked once, before the entry is stored, outside
    /// every lock; a value that changes its weight afterwards keeps the first one. If it panics, the
    /// write does not happen.
    ///
    /// ```
    /// let cache = larder::Cache::builder()
    ///     .max_capacity(1 << 20)
    ///     .weigher(|_key: &u64, text: &String| text.len() as u64)
    ///     .build()?;
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn weigher(mut self, weigher: impl Fn(&K, &V) -> u64 + Send + Sync + 'static) -> Self {
        let weigher: Weigher<K, V> = Box::new(weigher);
        self.rules.weigher = Some(weigher);
        self
    }

    /// How long an entry lives from its insertion or replacement on. From 1 ms to 584 years; longer is
    /// for ever, which is the default. Never late; early by at most 1 % or 1 ms, whichever is more.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let day = Duration::from_secs(86_400);
    /// let cache = larder::Cache::<u64, u64>::builder().max_capacity(9).time_to_live(day).build()?;
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn time_to_live(mut self, time: Duration) -> Self {
        self.rules.time_to_live = Some(Lifetime::from(time));
        self
    }

    /// How long an entry lives from its last read or write on. Reads note themselves only when the last
    /// note is 1 % of this time old, so an idle entry may go that much early. Default: for ever.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let hour = Duration::from_secs(3600);
    /// let cache = larder::Cache::<u64, u64>::builder().max_capacity(9).time_to_idle(hour).build()?;
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn time_to_idle(mut self, time: Duration) -> Self {
        self.time_to_idle = Some(time);
        self
    }

    /// A policy that decides each entry's life by itself, instead of [`time_to_live`](Self::time_to_live).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// struct ByLength;
    /// impl larder::Expiry<u64, String> for ByLength {
    ///     fn after_create(&self, _key: &u64, text: &String) -> Option<Duration> {
    ///         Some(Duration::from_secs(text.len() as u64))
    ///     }
    /// }
    /// let cache = larder::Cache::builder().max_capacity(9).expiry(ByLength).build()?;
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn expiry(mut self, expiry: impl Expiry<K, V>) -> Self {
        self.rules.expiry = Some(Box::new(expiry));
        self
    }

    /// The share of each time to live, from 0.0 to 1.0, that chance may take off, so that entries stored
    /// together do not expire together. It only shortens. Default: 0.0.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let minute = Duration::from_secs(60);
    /// let cache = larder::Cache::<u64, u64>::builder()
    ///     .max_capacity(9)
    ///     .time_to_live(minute)
    ///     .jitter(0.1) // 54 to 60 seconds
    ///     .build()?;
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn jitter(mut self, share: f64) -> Self {
        self.rules.jitter = share;
        self
    }

    /// At most so many shards, rounded up to a power of two. Default: four a core, or eight where each has
    /// 2,048 entries; with a weigher no more than 8, so that one shard's part holds an eighth of the weight.
    /// A cache uses fewer where a shard would have less than 1,024 entries, and 4,096 at most.
    ///
    /// ```
    /// let cache = larder::Cache::<u64, u64>::builder().max_capacity(1 << 20).shards(64).build()?;
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = Some(shards);
        self
    }

    /// Which entry makes room when the cache is full.
    ///
    /// ```
    /// let lru = larder::EvictionPolicy::Lru;
    /// let cache = larder::Cache::<u64, u64>::builder().max_capacity(9).eviction_policy(lru).build()?;
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn eviction_policy(mut self, policy: EvictionPolicy) -> Self {
        self.eviction_policy = policy;
        self
    }

    /// Where the cache reads the time.
    ///
    /// ```
    /// let time = larder::ManualClock::new();
    /// let cache = larder::Cache::<u64, u64>::builder().max_capacity(9).clock(time.clock()).build()?;
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// How keys are hashed. Default: [`DefaultHashBuilder`]. A hasher with fixed keys lets whoever
    /// chooses the cache's keys make them collide.
    ///
    /// ```
    /// use std::collections::hash_map::RandomState;
    ///
    /// let sip = RandomState::new();
    /// let cache = larder::Cache::<u64, u64>::builder().max_capacity(9).hasher(sip).build()?;
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn hasher<T>(self, hasher: T) -> CacheBuilder<K, V, T> {
        CacheBuilder {
            hasher,
            max_capacity: self.max_capacity,
            shards: self.shards,
            time_to_idle: self.time_to_idle,
            eviction_policy: self.eviction_policy,
            clock: self.clock,
            listener: self.listener,
            journal: self.journal,
            no_fast_path: self.no_fast_path,
            max_loads: self.max_loads,
            load_deadline: self.load_deadline,
            wait_deadline: self.wait_deadline,
            error_time_to_live: self.error_time_to_live,
            negative_time_to_live: self.negative_time_to_live,
            soft_timeout: self.soft_timeout,
            hard_timeout: self.hard_timeout,
            refresh_after: self.refresh_after,
            beta: self.beta,
            refresh_threads: self.refresh_threads,
            executor: self.executor,
            spawner: self.spawner,
            stale_while_revalidate: self.stale_while_revalidate,
            stale_if_error: self.stale_if_error,
            maintenance: self.maintenance,
            timer: self.timer,
            rules: self.rules,
        }
    }

    /// Is told of every value that leaves the cache, exactly once, with the cause, outside every lock,
    /// on the thread whose call removed it. Expired and invalidated values are told of when they are
    /// reclaimed. Events of different threads come in no order. Dropping the cache tells nobody.
    ///
    /// The listener may use the cache; what that removes is told of after it returns. If it panics, the
    /// panic ends there and the listener stays. A listener that owns a handle to the cache keeps the
    /// cache alive for ever.
    ///
    /// ```
    /// use std::sync::mpsc;
    ///
    /// let (told, heard) = mpsc::channel();
    /// let cache = larder::Cache::builder()
    ///     .max_capacity(9)
    ///     .removal_listener(move |key: &&str, value: &i32, cause| {
    ///         let _ = told.send((*key, *value, cause));
    ///     })
    ///     .build()?;
    /// cache.insert("a", 1);
    /// cache.remove("a");
    /// assert_eq!(heard.recv(), Ok(("a", 1, larder::RemovalCause::Explicit)));
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn removal_listener(
        mut self,
        listener: impl Fn(&K, &V, RemovalCause) + Send + Sync + 'static,
    ) -> Self
    where
        V: Clone,
    {
        self.listener = Some((Box::new(listener), V::clone));
        self
    }

    /// Starts a thread that reclaims what is past its date every so often, also when nobody uses the
    /// cache. It ends with the cache, at the latest one interval later; nobody waits for it. Default: no
    /// thread; writes and [`run_pending`](crate::Cache::run_pending) reclaim.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let second = Duration::from_secs(1);
    /// let cache = larder::Cache::<u64, u64>::builder().max_capacity(9).maintenance(second).build()?;
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn maintenance(mut self, every: Duration) -> Self {
        self.maintenance = Some(every);
        self
    }

    /// Is told of removals where they happen, under the lock. For the tests outside the crate.
    #[doc(hidden)]
    pub fn __journal(mut self, journal: impl Fn(&K, RemovalCause) + Send + Sync + 'static) -> Self {
        self.journal = Some(Box::new(journal));
        self
    }

    /// Has every write go the long way, also those for which there is a short one. For the tests outside the crate,
    /// which hold the one to the other.
    #[doc(hidden)]
    pub fn __without_fast_path(mut self) -> Self {
        self.no_fast_path = true;
        self
    }
}

/// Never prints a key or a value.
impl<K, V, S> fmt::Debug for CacheBuilder<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder")
            .field("name", &self.rules.name)
            .field("max_capacity", &self.max_capacity)
            .field("shards", &self.shards)
            .field("eviction_policy", &self.eviction_policy)
            .finish_non_exhaustive()
    }
}
