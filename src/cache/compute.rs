//! Read, decide, write, of one key at one moment: `compute`, `remove_if`, `retain`, counters.
//!
//! Closures run on a snapshot, without a lock. What they decide applies only if the entry is still the
//! version they saw; otherwise they are asked again.

use std::hash::{BuildHasher, Hash};

use equivalent::Equivalent;

use super::Cache;
use crate::entry::EntryOptions;
use crate::entry::removal::drop_catching;
use crate::load::{JoinOutcome, Purpose, WaitOutcome};
use crate::store::{Precondition, PutOutcome};

/// What a [`compute`](Cache::compute) closure decides.
///
/// ```
/// use larder::Compute;
///
/// let decision = |old: Option<&u64>| match old {
///     Some(n) if *n > 0 => Compute::Put(n - 1),
///     Some(_) => Compute::Remove,
///     None => Compute::Keep,
/// };
/// assert!(matches!(decision(Some(&3)), Compute::Put(2)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compute<V> {
    /// Leave things as they are. Revokes no load in flight.
    Keep,
    /// Store this value, under the rules of an insertion.
    Put(V),
    /// Remove what is there.
    Remove,
}

/// Never prints a value.
impl<V> std::fmt::Debug for Compute<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Compute::Keep => "Keep",
            Compute::Put(_) => "Put(..)",
            Compute::Remove => "Remove",
        })
    }
}

/// What a [`compute`](Cache::compute) did: the live value before it, and the one after it.
///
/// ```
/// use larder::{Cache, Compute, Computed};
///
/// let cache = Cache::builder().max_capacity(100).build()?;
/// let done = cache.compute("a", |_| Compute::Put(1));
/// assert_eq!((done.old, done.new), (None, Some(1)));
/// # Ok::<(), larder::BuildError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Computed<V> {
    /// The value that was there.
    pub old: Option<V>,
    /// The value that is there now. `None` also if the new one could not be kept.
    pub new: Option<V>,
}

/// Never prints a value.
impl<V> std::fmt::Debug for Computed<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Computed")
            .field("old", &self.old.as_ref().map(|_| ".."))
            .field("new", &self.new.as_ref().map(|_| ".."))
            .finish()
    }
}

/// Integers that [`incr`](Cache::incr) and [`decr`](Cache::decr) count with. Sealed.
///
/// ```
/// fn assert_counts<T: larder::Integer>() {}
/// assert_counts::<u64>();
/// assert_counts::<i32>();
/// ```
pub trait Integer: Copy + sealed::Arithmetic {}

mod sealed {
    pub trait Arithmetic {
        fn plus(self, by: Self) -> Self;
        fn minus(self, by: Self) -> Self;
    }
}

macro_rules! counters {
    ($($number:ty)*) => {$(
        impl sealed::Arithmetic for $number {
            fn plus(self, by: Self) -> Self {
                self.saturating_add(by)
            }

            fn minus(self, by: Self) -> Self {
                self.saturating_sub(by)
            }
        }

        impl Integer for $number {}
    )*};
}

counters!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize);

/// After so many lost races a `compute` queues for the key instead of racing on.
const RACES: u32 = 4;

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Reads, decides and writes one key atomically. The closure sees the live value, or `None`, and
    /// runs without any lock: it may use the cache, also this key. If the key changed meanwhile, the
    /// closure is called again on what is there then; after four such losses this call queues with the
    /// other `compute`s and loads of the key, blocking the thread until it is its turn.
    ///
    /// A value put follows the rules of [`insert`](Self::insert): it has the cache's time to live, and no
    /// tags, whatever the old one had. O(1), apart from the
    /// closure.
    ///
    /// ```
    /// use larder::{Cache, Compute};
    ///
    /// let carts = Cache::builder().max_capacity(100).build()?;
    /// for item in ["pen", "ink"] {
    ///     carts.compute("user 7", |cart: Option<&Vec<&str>>| {
    ///         let mut cart = cart.cloned().unwrap_or_default();
    ///         cart.push(item);
    ///         Compute::Put(cart)
    ///     });
    /// }
    /// assert_eq!(carts.get("user 7"), Some(vec!["pen", "ink"]));
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn compute<Q, F>(&self, key: &Q, mut decide: F) -> Computed<V>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        V: Clone,
        F: FnMut(Option<&V>) -> Compute<V>,
    {
        for _ in 0..RACES {
            if let Some(computed) = self.try_compute(key, &mut decide) {
                return computed;
            }
        }
        loop {
            // The turn is a flight of the key, led without a loader. The write below revokes it, which
            // sends the next in the queue to look again.
            let turn = self.queue_for(key);
            // On the stack of loads, so that a closure which loads this very key does not wait for
            // itself.
            let _running = turn.as_ref().map(|turn| turn.load_id().enter());
            if let Some(computed) = self.try_compute(key, &mut decide) {
                return computed;
            }
        }
    }

    /// One race: a snapshot, the closure, and the write if nothing has changed.
    fn try_compute<Q, F>(&self, key: &Q, decide: &mut F) -> Option<Computed<V>>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        V: Clone,
        F: FnMut(Option<&V>) -> Compute<V>,
    {
        let hash = self.hash(key);
        let store = &self.inner.store;
        let snapshot = store.peek_versioned(hash, &self.namespace, key, |value, seen| {
            (value.clone(), seen)
        });
        let (old, seen) = match snapshot {
            Some((value, seen)) => (Some(value), Some(seen)),
            None => (None, None),
        };
        match decide(old.as_ref()) {
            Compute::Keep => Some(Computed {
                new: old.clone(),
                old,
            }),
            Compute::Put(value) => {
                let key = key.to_owned();
                let lifetime = self.lifetime_after(seen, &key, &value);
                let new = value.clone();
                let request = self.request(key, value, EntryOptions::new(), lifetime);
                let precondition = Precondition::Version(seen.map(|seen| seen.version));
                // What is left over goes before the answer is made: a panic in its `Drop` must not cost
                // the answer.
                match store.put(hash, &self.namespace, request, precondition) {
                    PutOutcome::Stored(replaced) => {
                        drop_catching(replaced);
                        Some(Computed {
                            old,
                            new: Some(new),
                        })
                    }
                    PutOutcome::Rejected(value, _) => {
                        drop_catching(value);
                        drop_catching(new);
                        Some(Computed { old, new: None })
                    }
                    PutOutcome::Unmet { key, value, .. } => {
                        drop_catching(key);
                        drop_catching(value);
                        drop_catching(new);
                        None
                    }
                }
            }
            Compute::Remove => {
                let Some(seen) = seen else {
                    store.remove_stale(hash, &self.namespace, key);
                    return Some(Computed { old, new: None });
                };
                drop_catching(old);
                let judged = Some(seen.version);
                let removed = store.remove(hash, &self.namespace, key, judged)?;
                Some(Computed {
                    old: Some(removed),
                    new: None,
                })
            }
        }
    }

    /// Waits for the key's flight to end, or leads one, which keeps other computations of the key
    /// waiting for as long as what comes back lives.
    fn queue_for<Q>(&self, key: &Q) -> Option<crate::load::LeaderGuard<K, V>>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        V: Clone,
    {
        let store = &self.inner.store;
        let hash = self.hash(key);
        match store.join_or_lead(hash, &self.namespace, key, key.to_owned(), Purpose::Compute) {
            JoinOutcome::Leader(leader, _) => Some(leader),
            JoinOutcome::Follower(mut follower) => match follower.wait(follower.deadline()) {
                WaitOutcome::Leader(leader) => Some(leader),
                _ => None,
            },
            JoinOutcome::Hit(_)
            | JoinOutcome::Stale(_)
            | JoinOutcome::Alone
            | JoinOutcome::Failed(_)
            | JoinOutcome::Absent => None,
        }
    }

    /// Adds to a live number, keeping its deadline, and returns the sum; `None` if there is no live
    /// value. Saturates at the type's bounds. Atomic; revokes the load in flight. O(1).
    ///
    /// ```
    /// let cache = larder::Cache::builder().max_capacity(100).build()?;
    /// assert_eq!(cache.incr("visits", 1), None);
    /// cache.insert("visits", 1);
    /// assert_eq!(cache.incr("visits", 2), Some(3));
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn incr<Q>(&self, key: &Q, by: V) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
        V: Integer,
    {
        self.count(key, |number| number.plus(by))
    }

    /// Subtracts from a live number: see [`incr`](Self::incr). An unsigned number stops at zero.
    ///
    /// ```
    /// let cache = larder::Cache::builder().max_capacity(100).build()?;
    /// cache.insert("stock", 3u32);
    /// assert_eq!(cache.decr("stock", 1), Some(2));
    /// assert_eq!(cache.decr("stock", 9), Some(0));
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn decr<Q>(&self, key: &Q, by: V) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
        V: Integer,
    {
        self.count(key, |number| number.minus(by))
    }

    fn count<Q>(&self, key: &Q, arithmetic: impl FnOnce(V) -> V) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
        V: Integer,
    {
        let hash = self.hash(key);
        self.inner
            .store
            .update(hash, &self.namespace, key, |number| {
                *number = arithmetic(*number);
                *number
            })
    }

    /// Removes the live value of a key if the closure says so, and returns it. The closure runs without a lock, and
    /// again if the value it judged was replaced meanwhile. Revokes the load in flight of the key whatever the closure
    /// says, and ends a stale value, which counts as absent, without asking it. O(1), apart from the closure.
    ///
    /// ```
    /// let cache = larder::Cache::builder().max_capacity(100).build()?;
    /// cache.insert("a", 1);
    /// assert_eq!(cache.remove_if("a", |n| *n > 1), None);
    /// assert_eq!(cache.remove_if("a", |n| *n == 1), Some(1));
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn remove_if<Q, F>(&self, key: &Q, mut condemned: F) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
        V: Clone,
        F: FnMut(&V) -> bool,
    {
        let hash = self.hash(key);
        let store = &self.inner.store;
        loop {
            let snapshot = store.peek_versioned(hash, &self.namespace, key, |value, seen| {
                (value.clone(), seen.version)
            });
            let judged = snapshot.as_ref().map(|(_, version)| *version);
            let verdict = snapshot.as_ref().is_some_and(|(value, _)| condemned(value));
            drop_catching(snapshot);
            if verdict {
                let removed = store.remove(hash, &self.namespace, key, judged);
                if removed.is_some() {
                    return removed;
                }
            } else if store.revoke(hash, &self.namespace, key, judged) {
                return None;
            }
        }
    }

    /// Keeps only the entries for which the closure says so, and returns how many it removed. The closure runs without
    /// a lock on clones; an entry is removed only if it is still the version that was judged. Stale values, if any are
    /// kept, are judged and removed like others, and not counted. Entries written while this runs may or may not be
    /// visited. Revokes every load in flight of this handle's namespace. O(entries), 64 slots under a lock at a time.
    ///
    /// ```
    /// let cache = larder::Cache::builder().max_capacity(100).build()?;
    /// cache.insert_many([("a", 1), ("b", 2), ("c", 3)]);
    /// assert_eq!(cache.retain(|_key, n| n % 2 == 1), 1);
    /// assert_eq!(cache.get("b"), None);
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn retain<F>(&self, mut keep: F) -> usize
    where
        K: Clone,
        V: Clone,
        F: FnMut(&K, &V) -> bool,
    {
        let store = &self.inner.store;
        store.revoke_all(&self.namespace);
        store.keep_versions();
        let mut removed = 0;
        let mut page = store.first_page();
        while store.next_page(&self.namespace, &mut page, true) {
            while let Some((key, value, version)) = page.pop() {
                if keep(&key, &value) {
                    continue;
                }
                let hash = self.hash(&key);
                let gone = store.remove(hash, &self.namespace, &key, Some(version));
                removed += usize::from(gone.is_some());
            }
        }
        removed
    }
}
