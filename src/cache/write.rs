//! Writing: `insert` and its kin, `add`, `replace`, `touch`, `remove`, invalidation.

use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use equivalent::Equivalent;

use super::Cache;
use crate::entry::expiry::Lifetime;
use crate::entry::hash::KeyHash;
use crate::entry::removal::drop_catching;
use crate::entry::{EntryOptions, Ttl};
use crate::flight::WriteTurn;
use crate::store::{Precondition, PutOutcome, Snapshot};
use crate::util::error::Rejected;

/// What [`Cache::add`] did.
///
/// ```
/// use larder::{Added, Cache};
///
/// let locks = Cache::builder().max_capacity(100).build()?;
/// assert_eq!(locks.add("job 7", "worker 1"), Added::Stored);
/// let lost = Added::Present { present: "worker 1", value: "worker 2" };
/// assert_eq!(locks.add("job 7", "worker 2"), lost);
/// # Ok::<(), larder::BuildError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use = "whether this caller won is what `add` is for"]
#[non_exhaustive]
pub enum Added<V> {
    /// Nothing live was there: this call won. Its value is stored; if it could not be kept (too heavy,
    /// no capacity, a time to live of zero), the call has won all the same and left nothing behind.
    Stored,
    /// Something live was there, and stays.
    Present {
        /// A clone of what is there.
        present: V,
        /// The value that was not stored.
        value: V,
    },
}

impl<V> Added<V> {
    /// Whether this call won.
    ///
    /// ```
    /// let cache = larder::Cache::builder().max_capacity(100).build()?;
    /// assert!(cache.add("a", 1).is_stored());
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn is_stored(&self) -> bool {
        matches!(self, Added::Stored)
    }
}

/// Never prints a value.
impl<V> std::fmt::Debug for Added<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_stored() {
            "Stored"
        } else {
            "Present { .. }"
        })
    }
}

/// When a write of this layer applies.
enum Mode<V> {
    Insert,
    Add(fn(&V) -> V),
    Replace,
}

impl<V> Mode<V> {
    fn precondition(&self) -> Precondition<V> {
        match self {
            Mode::Insert => Precondition::Always,
            Mode::Add(copy) => Precondition::Absent(*copy),
            Mode::Replace => Precondition::Present,
        }
    }
}

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Stores a value and returns the live one that it replaced. Revokes the load in flight of the key:
    /// its result will not be stored, and who waits for it gets this value.
    ///
    /// A value that cannot be kept (heavier than [`max_entry_weight`](Self::max_entry_weight), a
    /// capacity of zero, a time to live of zero) is dropped and counted; the older value is gone all the
    /// same. [`try_insert`](Self::try_insert) hands it back instead. O(1), plus the evictions that make
    /// room for it.
    ///
    /// ```
    /// let cache = larder::Cache::builder().max_capacity(100).build()?;
    /// assert_eq!(cache.insert("a", 1), None);
    /// assert_eq!(cache.insert("a", 2), Some(1));
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn insert(&self, key: K, value: V) -> Option<V> {
        self.try_insert(key, value).unwrap_or(None)
    }

    /// Stores a value, replacing what is there, and returns the value that was live. A value that cannot be kept comes
    /// back in the error. O(1), plus the evictions that its weight needs.
    ///
    /// # Errors
    /// [`Rejected`], with the value and the reason.
    ///
    /// ```
    /// let nothing = larder::Cache::builder().max_capacity(0).build()?;
    /// assert_eq!(nothing.try_insert("a", 1).unwrap_err().value, 1);
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn try_insert(&self, key: K, value: V) -> Result<Option<V>, Rejected<V>> {
        if let (true, Some(lifetime)) = (self.is_ordinary, self.inner.plain_lifetime) {
            let hash = KeyHash::of_root(&self.inner.hasher, &key);
            let store = &self.inner.store;
            return inserted(store.put_fast(hash, &self.namespace, key, value, lifetime));
        }
        inserted(self.write(key, value, EntryOptions::new(), Mode::Insert))
    }

    /// Stores a value with options of its own (time to live, tags, weight, windows), replacing what is there, and
    /// returns the value that was live. A value that cannot be kept comes back in the error.
    ///
    /// # Errors
    /// [`Rejected`], with the value and the reason; naming too many tags is one.
    ///
    /// ```
    /// use larder::{Cache, EntryOptions};
    ///
    /// let cache = Cache::builder().max_capacity(100).build()?;
    /// cache.insert_with("cart", 3, EntryOptions::new().tag("user:7"))?;
    /// cache.invalidate_tag("user:7");
    /// assert!(!cache.contains_key("cart"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn insert_with(
        &self,
        key: K,
        value: V,
        options: EntryOptions,
    ) -> Result<Option<V>, Rejected<V>> {
        inserted(self.write(key, value, options, Mode::Insert))
    }

    /// Stores a value only if nothing live is there: atomically, so that of any number of callers
    /// exactly one wins an absence. An expired or invalidated value counts as absent, and so does a
    /// load in flight, which a winning `add` revokes and a losing one leaves alone. O(1).
    ///
    /// ```
    /// use larder::Added;
    ///
    /// let cache = larder::Cache::builder().max_capacity(100).build()?;
    /// assert_eq!(cache.add("a", 1), Added::Stored);
    /// assert_eq!(cache.add("a", 2), Added::Present { present: 1, value: 2 });
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    #[doc(alias = "insert_if_absent")]
    #[doc(alias = "put_if_absent")]
    pub fn add(&self, key: K, value: V) -> Added<V>
    where
        V: Clone,
    {
        self.add_with(key, value, EntryOptions::new())
            .unwrap_or(Added::Stored)
    }

    /// Stores a value with options of its own (time to live, tags, weight, windows) if nothing live is there. Of all
    /// callers that find a key absent, one stores.
    ///
    /// # Errors
    /// [`Rejected`] if nothing live was there, so that this caller won, and the value could not be kept.
    ///
    /// ```
    /// use larder::{Cache, EntryOptions};
    /// use std::time::Duration;
    ///
    /// let locks = Cache::builder().max_capacity(100).build()?;
    /// let lease = EntryOptions::new().time_to_live(Duration::from_secs(30));
    /// assert!(locks.add_with("job 7", "worker 1", lease)?.is_stored());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn add_with(&self, key: K, value: V, options: EntryOptions) -> Result<Added<V>, Rejected<V>>
    where
        V: Clone,
    {
        match self.write(key, value, options, Mode::Add(V::clone)) {
            PutOutcome::Unmet {
                key,
                value,
                present: Some(present),
            } => {
                drop_catching(key);
                Ok(Added::Present { present, value })
            }
            PutOutcome::Rejected(value, reason) => Err(Rejected { value, reason }),
            // Who has to wait has waited.
            PutOutcome::Stored(_) | PutOutcome::Unmet { .. } | PutOutcome::Busy { .. } => {
                Ok(Added::Stored)
            }
        }
    }

    /// Stores a value only if something live is there: `Ok` with what was there. O(1).
    ///
    /// # Errors
    /// The value back, if nothing live was there; nothing changed then, and a load in flight goes on.
    /// Also the value back if it cannot be kept; the older one is gone then.
    ///
    /// ```
    /// let cache = larder::Cache::builder().max_capacity(100).build()?;
    /// assert_eq!(cache.replace("a", 1), Err(1));
    /// cache.insert("a", 1);
    /// assert_eq!(cache.replace("a", 2), Ok(1));
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn replace(&self, key: K, value: V) -> Result<V, V> {
        match self.write(key, value, EntryOptions::new(), Mode::Replace) {
            PutOutcome::Stored(Some(old)) => Ok(old),
            PutOutcome::Unmet { key, value, .. } | PutOutcome::Busy { key, value } => {
                drop_catching(key);
                Err(value)
            }
            PutOutcome::Rejected(value, _) => Err(value),
            // A replacement found what it replaces, under the same lock.
            PutOutcome::Stored(None) => unreachable_replacement(),
        }
    }

    /// [`insert`](Self::insert) for each pair, in order. Not atomic as a whole.
    ///
    /// ```
    /// let cache = larder::Cache::builder().max_capacity(100).build()?;
    /// cache.insert_many([("a", 1), ("b", 2)]);
    /// assert_eq!(cache.len(), 2);
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn insert_many(&self, entries: impl IntoIterator<Item = (K, V)>) {
        for (key, value) in entries {
            drop(self.insert(key, value));
        }
    }

    /// Gives a live entry a new time to live, counted from now; `None`: it no longer expires by age.
    /// Returns whether there was a live entry. Renews the idle time, too. A time of zero removes the
    /// entry, as [`remove`](Self::remove) does; otherwise no load is revoked. Jitter is not applied. O(1).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let cache = larder::Cache::builder().max_capacity(100).build()?;
    /// cache.insert("a", 1);
    /// assert!(cache.touch("a", Some(Duration::from_secs(9))));
    /// assert!(cache.touch("a", None));
    /// assert!(!cache.touch("b", None));
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn touch<Q>(&self, key: &Q, time_to_live: Option<Duration>) -> bool
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let lifetime = Lifetime::from_policy(time_to_live, 0.0);
        let hash = self.hash(key);
        self.inner.store.touch(hash, &self.namespace, key, lifetime)
    }

    /// Removes a key and returns its live value. Revokes the load in flight of the key: who waits for it
    /// gets what it brings, and it is not stored. O(1).
    ///
    /// ```
    /// let cache = larder::Cache::builder().max_capacity(100).build()?;
    /// cache.insert("a", 1);
    /// assert_eq!(cache.remove("a"), Some(1));
    /// assert_eq!(cache.remove("a"), None);
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn remove<Q>(&self, key: &Q) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        let hash = self.hash(key);
        self.inner.store.remove(hash, &self.namespace, key)
    }

    /// Removes a key, discards its value, and returns whether there was a live one. Nothing that was
    /// loaded before this call is served to a call that begins after it has returned, also if the key is
    /// absent and only being loaded. O(1).
    ///
    /// ```
    /// let cache = larder::Cache::builder().max_capacity(100).build()?;
    /// cache.insert("a", 1);
    /// assert!(cache.invalidate("a"));
    /// assert!(!cache.invalidate("a"));
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn invalidate<Q>(&self, key: &Q) -> bool
    where
        Q: Hash + Equivalent<K> + ?Sized,
    {
        self.remove(key).is_some()
    }

    /// [`invalidate`](Self::invalidate), but for the load that one of these leaders leads.
    #[cfg(feature = "tiered")]
    pub(crate) fn invalidate_keeping_leaders(
        &self,
        key: &K,
        leaders: &std::collections::HashSet<u64>,
    ) -> bool {
        let hash = self.hash(key);
        let store = &self.inner.store;
        store.remove_keeping_leaders(hash, &self.namespace, key, leaders)
    }

    /// [`invalidate`](Self::invalidate) for each key; returns how many had a live value. Not atomic as a
    /// whole.
    ///
    /// ```
    /// let cache = larder::Cache::builder().max_capacity(100).build()?;
    /// cache.insert_many([("a", 1), ("b", 2)]);
    /// assert_eq!(cache.remove_many(["a", "b", "c"]), 2);
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn remove_many<'q, Q>(&self, keys: impl IntoIterator<Item = &'q Q>) -> usize
    where
        Q: Hash + Equivalent<K> + ?Sized + 'q,
    {
        keys.into_iter().filter(|key| self.invalidate(*key)).count()
    }

    /// Removes everything: on a cache's own handle all entries of all namespaces, on a
    /// [namespace](Self::namespace) its own. Loads in flight will not be stored.
    ///
    /// Takes effect at one moment for all keys. The memory of the removed entries is freed by later
    /// writes, or [`run_pending`](Self::run_pending), 64 entries at a time, and before anything live is
    /// evicted. [`len`](Self::len) and [`weight`](Self::weight) are exact afterwards, except that a
    /// namespace's clear leaves them as upper bounds. O(shards) for a cache, O(1) for a namespace.
    ///
    /// ```
    /// let cache = larder::Cache::builder().max_capacity(100).build()?;
    /// cache.insert("a", 1);
    /// cache.clear();
    /// assert!(cache.is_empty() && cache.get("a").is_none());
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    #[doc(alias = "invalidate_all")]
    pub fn clear(&self) {
        self.inner.store.clear(&self.namespace);
    }

    /// Kills every entry that carries the tag, in all namespaces, at one moment, and keeps every load in
    /// flight from being stored that will turn out to carry it. O(1), however many entries there are;
    /// they are reclaimed when they are met, evicted or past their date.
    ///
    /// ```
    /// use larder::{Cache, EntryOptions};
    ///
    /// let cache = Cache::builder().max_capacity(100).build()?;
    /// let tagged = EntryOptions::new().tag("product:7");
    /// cache.insert_with("/product/7", "chair", tagged.clone())?;
    /// cache.insert_with("/front", "chair, table", tagged.tag("product:8"))?;
    /// cache.insert("/about", "us");
    /// cache.invalidate_tag("product:7");
    /// assert_eq!(cache.get_many(["/product/7", "/front", "/about"]), [None, None, Some("us")]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn invalidate_tag(&self, name: &str) {
        self.inner.store.invalidate_tag(name);
    }

    /// One write. A conditional one waits while another call has its turn with the key.
    fn write(
        &self,
        mut key: K,
        mut value: V,
        options: EntryOptions,
        mode: Mode<V>,
    ) -> PutOutcome<K, V> {
        let hash = self.hash(&key);
        let store = &self.inner.store;
        let mut turn = match mode {
            Mode::Insert => WriteTurn::Ignores,
            Mode::Add(_) | Mode::Replace => WriteTurn::Respects,
        };
        loop {
            match self.write_once(hash, key, value, &options, &mode, turn) {
                PutOutcome::Busy { key: k, value: v } => (key, value) = (k, v),
                done => return done,
            }
            if !store.wait_for_turn(hash, &self.namespace, &key) {
                turn = WriteTurn::Ignores;
            }
        }
    }

    /// With an expiry policy, what lives there now is looked up first and the policy asked without a lock; the write
    /// then applies only to that version, and starts over if it has changed.
    fn write_once(
        &self,
        hash: KeyHash,
        key: K,
        value: V,
        options: &EntryOptions,
        mode: &Mode<V>,
        turn: WriteTurn<'_, K, V>,
    ) -> PutOutcome<K, V> {
        let asks = self.inner.rules.expiry.is_some() && options.ttl == Ttl::Default;
        if asks && !matches!(mode, Mode::Add(_)) {
            return self.write_as_policy_says(hash, key, value, options, mode, turn);
        }
        let store = &self.inner.store;
        if let (Mode::Add(copy), true) = (mode, self.inner.plain_lifetime.is_none()) {
            // One that loses asks nobody how long or how heavy.
            let present = store.peek(hash, &self.namespace, &key, copy);
            if present.is_some() {
                return PutOutcome::unmet(key, value, present);
            }
        }
        let lifetime = self.lifetime_of_new(options.ttl, &key, &value);
        let request = self.request(key, value, options, lifetime);
        store.put(hash, &self.namespace, request, mode.precondition(), turn)
    }

    /// The policy is asked a few times at most: after that its last answer holds for whatever is there.
    #[cold]
    fn write_as_policy_says(
        &self,
        hash: KeyHash,
        mut key: K,
        mut value: V,
        options: &EntryOptions,
        mode: &Mode<V>,
        turn: WriteTurn<'_, K, V>,
    ) -> PutOutcome<K, V> {
        let store = &self.inner.store;
        let mut races = 4;
        loop {
            let seen = store.peek_versioned(hash, &self.namespace, &key, |_, seen| seen);
            if seen.is_none() && matches!(mode, Mode::Replace) {
                return PutOutcome::unmet(key, value, None);
            }
            let lifetime = self.lifetime_after(seen, &key, &value);
            let request = self.request(key, value, options, lifetime);
            let precondition = match races {
                0 => mode.precondition(),
                _ => Precondition::Version(seen.map(|seen| seen.version)),
            };
            match store.put(hash, &self.namespace, request, precondition, turn) {
                PutOutcome::Unmet {
                    key: k, value: v, ..
                } if races > 0 => (key, value) = (k, v),
                done => return done,
            }
            races -= 1;
        }
    }

    /// How long an entry lives after a write over what was seen there. Asks the user's policy.
    pub(super) fn lifetime_after(&self, seen: Option<Snapshot>, key: &K, value: &V) -> Lifetime {
        let rules = &self.inner.rules;
        match (&rules.expiry, seen) {
            (Some(expiry), Some(seen)) => {
                let remaining = seen.remaining(self.inner.store.clock.now());
                let answer = expiry.after_update(key, value, remaining);
                Lifetime::from_policy(answer, rules.jitter)
            }
            _ => self.lifetime_of_new(Ttl::Default, key, value),
        }
    }
}

/// What became of an insertion, as its caller is told.
#[inline]
fn inserted<K, V>(put: PutOutcome<K, V>) -> Result<Option<V>, Rejected<V>> {
    match put {
        PutOutcome::Stored(old) => Ok(old),
        PutOutcome::Rejected(value, reason) => Err(Rejected { value, reason }),
        // An insertion has no condition left to fail; keep the value safe should that change.
        PutOutcome::Unmet { value, .. } | PutOutcome::Busy { value, .. } => Ok(Some(value)),
    }
}

#[cold]
fn unreachable_replacement<V>() -> Result<V, V> {
    unreachable!("a replacement is stored only over a live value")
}
