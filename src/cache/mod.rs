//! The handle that callers hold, and what it knows that the store does not: the user's own functions, which
//! are called here, outside every lock.

mod attached;
mod background;
mod builder;
mod bulk;
mod compute;
mod counters;
mod executor;
mod iter;
mod load;
mod load_async;
mod maintenance;
mod observe;
mod predicate;
mod read;
mod step;
mod timeout;
mod write;

pub use builder::{CacheBuilder, EvictionPolicy};
pub use compute::{Compute, ComputeError, Computed};
pub use counters::Integer;
pub use iter::Iter;
pub use write::Added;

use std::fmt;
use std::hash::{BuildHasher, Hash};

use attached::{AsyncLoader, Attached, BlockingLoader};
use executor::{Executor, Spawn};

use crate::entry::expiry::{Expiry, Lifetime};
use crate::entry::freshness::{Early, RefreshPlan};
use crate::entry::generation::{Namespace, TagSet};
use crate::entry::hash::{DefaultHashBuilder, KeyHash};
use crate::entry::stats::Stats;
use crate::entry::{EntryOptions, Ttl};
use crate::store::{Capacity, Inherits, MAX_ENTRIES_A_SHARD, Store, WriteRequest};
use crate::util::clock::nanos;
use crate::util::sync::{Arc, Mutex};

/// A bounded, sharded, concurrent cache. A handle: clones are cheap and share one cache.
///
/// Every operation on one key is linearizable, also under eviction and expiry, which are removals with
/// a cause. Operations on many keys are so key by key, and not as a whole.
///
/// Operations are synchronous and take one shard's lock for O(1) work. Only the loading calls
/// ([`get_or_load`](Self::get_or_load) and its kin), and those that change a value by what it is while a
/// [`compute`](Self::compute) of the key has its turn, wait for other callers.
///
/// `K: Hash + Eq + Send + Sync + 'static`, `V: Send + Sync + 'static`; a method says what it needs
/// beyond that. Values come out as clones: keep large ones in an `Arc`.
///
/// ```
/// use larder::Cache;
/// use std::time::Duration;
///
/// let cache: Cache<String, u64> = Cache::builder()
///     .max_capacity(10_000)
///     .time_to_live(Duration::from_secs(60))
///     .build()?;
/// cache.insert("answer".to_owned(), 42);
/// assert_eq!(cache.get("answer"), Some(42));
/// # Ok::<(), larder::BuildError>(())
/// ```
pub struct Cache<K, V, S = DefaultHashBuilder> {
    inner: Arc<CacheInner<K, V, S>>,
    namespace: Arc<Namespace>,
    /// A hit has no more to write down than that it happened, and this is the root: nearly always.
    is_ordinary: bool,
}

struct CacheInner<K, V, S> {
    store: Arc<Store<K, V>>,
    hasher: S,
    rules: CacheRules<K, V>,
    /// The policy reorders its queue on a hit, or there is an expiry policy, which may hear of hits.
    hits_may_write: bool,
    /// How long a value lives whose writer says nothing of it, if nobody has to be asked, and it weighs 1.
    plain_lifetime: Option<Lifetime>,
    /// Who loads values again; without one the call that is elected does.
    executor: Option<Executor>,
    spawner: Option<Spawn>,
    capacity: Mutex<Capacity>,
}

type Weigher<K, V> = Box<dyn Fn(&K, &V) -> u64 + Send + Sync>;

/// What the builder was told about entries.
struct CacheRules<K, V> {
    name: Option<Box<str>>,
    time_to_live: Option<Lifetime>,
    jitter: f64,
    weigher: Option<Weigher<K, V>>,
    /// The entry bound follows the weight bound unless it was set by itself.
    max_entries: Option<u64>,
    expiry: Option<Box<dyn Expiry<K, V>>>,
    loader: Option<Attached<BlockingLoader<K, V>>>,
    async_loader: Option<Attached<AsyncLoader<K, V>>>,
}

impl<K, V, S> Cache<K, V, S> {
    fn of(inner: Arc<CacheInner<K, V, S>>, namespace: Arc<Namespace>) -> Self {
        Cache {
            is_ordinary: !inner.hits_may_write && namespace.id == Namespace::ROOT,
            inner,
            namespace,
        }
    }
}

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// A view of this cache under a name: the same capacity and rules, keys of its own. The same name
    /// gives the same namespace; every method works on a view, within the namespace; views do not nest,
    /// so that a view's `namespace` names a sibling.
    ///
    /// [`clear`](Self::clear) on a view is O(1) and kills this namespace alone. A namespace costs memory
    /// while it has a handle or an entry. O(1).
    ///
    /// ```
    /// let cache = larder::Cache::builder().max_capacity(100).build()?;
    /// let (prices, names) = (cache.namespace("prices"), cache.namespace("names"));
    /// prices.insert(7, "9.99");
    /// names.insert(7, "chair");
    /// prices.clear();
    /// assert_eq!((prices.get(&7), names.get(&7), cache.get(&7)), (None, Some("chair"), None));
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    #[must_use]
    pub fn namespace(&self, name: &str) -> Self {
        let store = &self.inner.store;
        let namespace = store.namespaces.open(name, &store.epochs);
        Cache::of(Arc::clone(&self.inner), namespace)
    }

    /// How many entries the cache holds, over all namespaces.
    ///
    /// Exact after [`clear`](Self::clear). Entries whose time is up, or whose tag or namespace was
    /// invalidated, count until they are reclaimed, so this is an upper bound of those that `get` would
    /// find. O(shards).
    ///
    /// ```
    /// let cache = larder::Cache::builder().max_capacity(100).build()?;
    /// cache.insert("a", 1);
    /// assert_eq!(cache.len(), 1);
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn len(&self) -> u64 {
        self.inner.store.totals().entries
    }

    /// Whether [`len`](Self::len) is 0. O(shards).
    ///
    /// ```
    /// let cache = larder::Cache::<u64, u64>::builder().max_capacity(100).build()?;
    /// assert!(cache.is_empty());
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the entries weigh together; as many as they are, without a weigher. Counts like
    /// [`len`](Self::len). O(shards).
    ///
    /// ```
    /// let cache = larder::Cache::builder().max_capacity(100)
    ///     .weigher(|_key: &u64, text: &&str| text.len() as u64)
    ///     .build()?;
    /// cache.insert(1, "four");
    /// assert_eq!(cache.weight(), 4);
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn weight(&self) -> u64 {
        self.inner.store.totals().weight
    }

    /// The bound: on entries, or on their weight where there is a weigher. O(1).
    ///
    /// ```
    /// let cache = larder::Cache::<u64, u64>::builder().max_capacity(100).build()?;
    /// assert_eq!(cache.capacity(), 100);
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn capacity(&self) -> u64 {
        self.inner.capacity.lock().weight
    }

    /// The heaviest entry that this cache keeps, whatever its key: one shard's part of the capacity. At
    /// least an eighth of the capacity, rounded down, unless the builder was told to use more shards.
    /// O(shards).
    ///
    /// ```
    /// let cache = larder::Cache::<u64, u64>::builder().max_capacity(100).build()?;
    /// assert_eq!(cache.max_entry_weight(), 100);
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn max_entry_weight(&self) -> u64 {
        self.inner.store.smallest_slice()
    }

    /// Sets a new capacity. What is over it is evicted batch by batch: at most 64 entries a shard now,
    /// and so many with each later write to the shard or [`run_pending`](Self::run_pending). The number
    /// of shards stays as built. A separate `max_entries` stays, too. O(shards).
    ///
    /// ```
    /// let cache = larder::Cache::builder().max_capacity(100).build()?;
    /// (0..100).for_each(|n| drop(cache.insert(n, n)));
    /// cache.set_capacity(40);
    /// assert!(cache.len() <= 40);
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn set_capacity(&self, capacity: u64) {
        let rules = &self.inner.rules;
        // Slot numbers are 32 bits wide; the builder refuses more, and here the excess has no effect.
        let most = MAX_ENTRIES_A_SHARD.saturating_mul(self.inner.store.shards() as u64);
        *self.inner.capacity.lock() = Capacity {
            weight: capacity,
            entries: rules.max_entries.unwrap_or(capacity).min(most),
        };
        // Each shard is given the capacity that is set when it is locked: of two calls at once, the one whose
        // capacity was set last locks all its shards after that.
        self.inner
            .store
            .set_capacity(|| *self.inner.capacity.lock());
    }

    /// Reclaims up to `budget` entries that are past their date, dead or over the capacity, and returns
    /// how many it did. Writes do this in passing; call it where a cache is only read, or build with
    /// [`maintenance`](CacheBuilder::maintenance). Locks are held for at most 64 entries at a time.
    ///
    /// ```
    /// use larder::{Cache, ManualClock};
    /// use std::time::Duration;
    ///
    /// let time = ManualClock::new();
    /// let ttl = Duration::from_secs(1);
    /// let cache = Cache::builder().max_capacity(100).time_to_live(ttl).clock(time.clock()).build()?;
    /// cache.insert("a", 1);
    /// time.advance(2 * ttl);
    /// assert_eq!(cache.run_pending(1000), 1);
    /// assert_eq!(cache.len(), 0);
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn run_pending(&self, budget: u32) -> u32 {
        self.inner.store.run_pending(budget)
    }

    /// A snapshot of the cache's counters, over all namespaces. O(shards).
    ///
    /// ```
    /// let cache = larder::Cache::builder().max_capacity(100).build()?;
    /// cache.insert("a", 1);
    /// cache.get("a");
    /// assert_eq!(cache.stats().hits(), 1);
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn stats(&self) -> Stats {
        let totals = self.inner.store.totals();
        self.inner.store.counters.snapshot(
            totals.entries,
            totals.weight,
            self.inner.store.listener_panics(),
        )
    }

    /// The name that the builder gave.
    ///
    /// ```
    /// let cache = larder::Cache::<u64, u64>::builder().name("users").max_capacity(9).build()?;
    /// assert_eq!(cache.name(), Some("users"));
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn name(&self) -> Option<&str> {
        self.inner.rules.name.as_deref()
    }

    /// What the cache looks like inside, for debugging and for dashboards: the shards, the policy's
    /// queues, the loads in flight. The text may change with any release. It holds no key and no value.
    /// O(shards).
    ///
    /// ```
    /// let cache = larder::Cache::<u64, u64>::builder().max_capacity(100).build()?;
    /// assert!(cache.inspect().contains("shards"));
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn inspect(&self) -> String {
        use fmt::Write;
        let store = &self.inner.store;
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "shards {}, entries {}, weight {} of {}, flights {}, loads running {}, tags {}, \
             forgotten tags {}, namespaces {}, listener panics {}",
            store.shards(),
            self.len(),
            self.weight(),
            self.capacity(),
            store.flights(),
            store.loads_in_flight(),
            store.tags.len(),
            store.tags.forgotten(),
            store.namespaces.len(),
            store.listener_panics(),
        );
        for (number, queues) in store.queues().iter().enumerate() {
            let _ = writeln!(text, "shard {number}: {queues:?}");
        }
        text
    }

    #[inline]
    fn hash<Q: Hash + ?Sized>(&self, key: &Q) -> KeyHash {
        KeyHash::of(&self.inner.hasher, self.namespace.id, key)
    }

    /// The weight of an entry, by the user's weigher.
    #[inline]
    fn weigh(&self, key: &K, value: &V, own: Option<u64>) -> u64 {
        match (&self.inner.rules.weigher, own) {
            (None, _) => 1,
            (Some(_), Some(own)) => own,
            (Some(weigher), None) => weigher(key, value),
        }
    }

    /// What it is called where others see it.
    fn label(&self) -> &str {
        self.inner.rules.name.as_deref().unwrap_or("unnamed")
    }

    /// These tags, and how many they are if they are too many.
    #[inline]
    fn tags(&self, names: &[Box<str>]) -> (Option<Box<TagSet>>, usize) {
        let store = &self.inner.store;
        match names.len() {
            0 => (None, 0),
            tags if tags > EntryOptions::MAX_TAGS => (None, tags),
            _ => (store.tag_set(names), 0),
        }
    }

    /// How long a new entry lives. Asks the user's policy.
    #[inline]
    fn lifetime_of_new(&self, ttl: Ttl, key: &K, value: &V) -> Lifetime {
        let rules = &self.inner.rules;
        match (&rules.expiry, ttl) {
            (Some(expiry), Ttl::Default) => {
                Lifetime::from_policy(expiry.after_create(key, value), rules.jitter)
            }
            _ => Lifetime::resolve(ttl, rules.time_to_live, rules.jitter),
        }
    }

    /// Makes an entry ready for the store: everything that runs user code or takes other locks.
    #[inline(always)]
    fn request(
        &self,
        key: K,
        value: V,
        options: &EntryOptions,
        lifetime: Lifetime,
    ) -> WriteRequest<K, V> {
        let weight = self.weigh(&key, &value, options.weight);
        let (tags, excess_tags) = self.tags(&options.tags);
        WriteRequest {
            key,
            value,
            lifetime,
            weight,
            tags,
            excess_tags,
            plan: RefreshPlan {
                early: options
                    .load_time
                    .map_or(Early::NEVER, |time| Early::measured(nanos(time))),
                windows: options.windows,
            },
            own_ttl: options.ttl != Ttl::Default,
            inherits: Inherits::Nothing,
        }
    }
}

/// Internals for the tests outside the crate. Not part of the public interface.
#[doc(hidden)]
impl<K, V, S> Cache<K, V, S> {
    #[doc(hidden)]
    #[cfg(any(test, debug_assertions))]
    pub fn __validate(&self) {
        self.inner.store.validate();
    }

    #[doc(hidden)]
    pub fn __flights(&self) -> (usize, usize) {
        (
            self.inner.store.flights(),
            self.inner.store.loads_in_flight(),
        )
    }

    #[doc(hidden)]
    pub fn __waiting(&self) -> usize {
        self.inner.store.followers()
    }

    #[doc(hidden)]
    pub fn __names(&self) -> (usize, usize) {
        let store = &self.inner.store;
        (store.tags.len(), store.namespaces.len())
    }
}

/// A second handle to the same cache and namespace. O(1).
impl<K, V, S> Clone for Cache<K, V, S> {
    fn clone(&self) -> Self {
        Cache {
            inner: Arc::clone(&self.inner),
            namespace: Arc::clone(&self.namespace),
            is_ordinary: self.is_ordinary,
        }
    }
}

/// Never prints a key or a value.
impl<K, V, S> fmt::Debug for Cache<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let totals = self.inner.store.totals();
        f.debug_struct("Cache")
            .field("name", &self.inner.rules.name)
            .field("len", &totals.entries)
            .field("weight", &totals.weight)
            .field("shards", &self.inner.store.shards())
            .finish_non_exhaustive()
    }
}
