//! Reading: `get`, `peek`, `contains_key`, `get_many`.

use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use equivalent::Equivalent;

use super::Cache;
use crate::entry::freshness::Freshness;
use crate::entry::hash::KeyHash;
use crate::entry::stats::Count;

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// A clone of the live value, or `None`. Never loads, never allocates (beyond what `V::clone` does),
    /// and never returns a value at or after its deadline. Counts as a hit or a miss, and as a use for
    /// the eviction policy and the time to idle.
    ///
    /// O(1), under a shard's shared lock. With [`EvictionPolicy::Lru`](crate::EvictionPolicy::Lru), or
    /// an [`Expiry`](crate::Expiry) that hears of reads, a hit takes that lock exclusively, too.
    ///
    /// ```
    /// let cache = larder::Cache::builder().max_capacity(100).build()?;
    /// cache.insert("a".to_owned(), 1);
    /// assert_eq!(cache.get("a"), Some(1)); // a borrowed key will do
    /// assert_eq!(cache.get("b"), None);
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    #[inline]
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
        V: Clone,
    {
        let store = &self.inner.store;
        store.counters.bump(Count::Reads);
        let value = self.get_uncounted(key);
        if value.is_none() {
            store.counters.bump(Count::Misses);
        }
        value
    }

    /// The value with its [`Freshness`]: for who loads by other means than the loading calls. With
    /// [`early_expiration`](crate::CacheBuilder::early_expiration), each call inside an entry's window draws
    /// whether it is the one to load it. A stale value, which [`get`](Self::get) never returns, comes with how long
    /// its time has been up; it counts as a miss. O(1).
    ///
    /// ```
    /// use larder::{Cache, EntryOptions, Freshness, ManualClock};
    /// use std::time::Duration;
    ///
    /// let time = ManualClock::new();
    /// let second = Duration::from_secs(1);
    /// let cache = Cache::builder()
    ///     .max_capacity(100)
    ///     .clock(time.clock())
    ///     .early_expiration(1.0)
    ///     .build()?;
    /// cache.insert_with("a", 1, EntryOptions::new().time_to_live(60 * second).load_time(second))?;
    /// assert_eq!(cache.get_with_freshness("a"), Some((1, Freshness::Fresh)));
    /// time.advance(Duration::from_micros(59_999_950)); // 50 µs before its time is up, a load takes a second
    /// assert_eq!(cache.get_with_freshness("a"), Some((1, Freshness::Early)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_with_freshness<Q>(&self, key: &Q) -> Option<(V, Freshness)>
    where
        Q: Hash + Equivalent<K> + ?Sized,
        V: Clone,
    {
        if let Some((value, early)) = self.look_up(key) {
            let freshness = if early {
                Freshness::Early
            } else {
                Freshness::Fresh
            };
            return Some((value, freshness));
        }
        let store = &self.inner.store;
        let (value, by) = store.peek_stale(self.hash(key), &self.namespace, key)?;
        let by = Duration::from_nanos(by);
        Some((value, Freshness::Stale { by }))
    }

    /// The live value, and whether it is to be loaded again. Counts the read.
    #[inline]
    pub(super) fn look_up<Q>(&self, key: &Q) -> Option<(V, bool)>
    where
        Q: Hash + Equivalent<K> + ?Sized,
        V: Clone,
    {
        let store = &self.inner.store;
        store.counters.bump(Count::Reads);
        let hash = self.hash(key);
        let found = if self.inner.hits_may_write {
            self.get_and_write(hash, key)
                .map(|value| (value, store.peek_early(hash, &self.namespace, key)))
        } else {
            store.get_to_load(hash, &self.namespace, key)
        };
        if found.is_none() {
            store.counters.bump(Count::Misses);
        }
        found
    }

    /// A clone of the live value, leaving no trace: no count, no use noted, no renewed idle time. O(1).
    ///
    /// ```
    /// let cache = larder::Cache::builder().max_capacity(100).build()?;
    /// cache.insert("a", 1);
    /// assert_eq!(cache.peek("a"), Some(1));
    /// assert_eq!(cache.stats().hits(), 0);
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn peek<Q>(&self, key: &Q) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
        V: Clone,
    {
        let hash = self.hash(key);
        self.inner.store.peek(hash, &self.namespace, key, V::clone)
    }

    /// Whether there is a live value; leaves no trace, like [`peek`](Self::peek). What it says may be
    /// out of date by the time it is acted on: to store only if absent, use [`add`](Self::add). O(1).
    ///
    /// ```
    /// let cache = larder::Cache::builder().max_capacity(100).build()?;
    /// cache.insert("a", 1);
    /// assert!(cache.contains_key("a") && !cache.contains_key("b"));
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let hash = self.hash(key);
        self.inner
            .store
            .peek(hash, &self.namespace, key, |_| ())
            .is_some()
    }

    /// [`get`](Self::get) for each key, in order. Not atomic: each key is read at its own moment.
    ///
    /// ```
    /// let cache = larder::Cache::builder().max_capacity(100).build()?;
    /// cache.insert("a", 1);
    /// assert_eq!(cache.get_many(["a", "b"]), [Some(1), None]);
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn get_many<'q, Q>(&self, keys: impl IntoIterator<Item = &'q Q>) -> Vec<Option<V>>
    where
        Q: Hash + Equivalent<K> + ?Sized + 'q,
        V: Clone,
    {
        keys.into_iter().map(|key| self.get(key)).collect()
    }

    /// `get` without the counts.
    #[inline]
    pub(super) fn get_uncounted<Q>(&self, key: &Q) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
        V: Clone,
    {
        if !self.is_ordinary {
            return self.get_otherwise(key);
        }
        let hash = KeyHash::of_root(&self.inner.hasher, key);
        self.inner.store.get_in_root(hash, &self.namespace, key)
    }

    /// `get` without the counts, for a namespace, or for a cache in which a hit may write (an LRU queue, or an expiry
    /// policy that hears of reads).
    #[inline(never)]
    fn get_otherwise<Q>(&self, key: &Q) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
        V: Clone,
    {
        self.get_and_write(self.hash(key), key)
    }

    /// `get` without the counts, for a cache in which a hit may write.
    fn get_and_write<Q>(&self, hash: KeyHash, key: &Q) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
        V: Clone,
    {
        let store = &self.inner.store;
        match &self.inner.rules.expiry {
            Some(expiry) if expiry.reads() => {
                store.get_and_renew(hash, &self.namespace, key, &**expiry)
            }
            _ if store.hit_needs_lock => store.get_and_reorder(hash, &self.namespace, key),
            _ => store.get(hash, &self.namespace, key),
        }
    }
}
