//! Read, decide, write, of one key at one moment: `compute`.
//!
//! The closure runs on a snapshot, without a lock. What it decides applies only if the entry is still the version that
//! it saw. A call that has lost one such race takes its turn, a flight of the key without a loader: while it is in the
//! table, others that read, decide and write wait. A blind write takes it out, and the call takes another.

use std::convert::Infallible;
use std::hash::{BuildHasher, Hash};

use equivalent::Equivalent;

use super::Cache;
use crate::entry::EntryOptions;
use crate::entry::expiry::Lifetime;
use crate::entry::removal::drop_catching;
use crate::flight::WriteTurn;
use crate::flight::wait_graph::RunningLoad;
use crate::load::{JoinOutcome, LeaderGuard, Purpose, WaitOutcome};
use crate::store::{Inherits, Precondition, PutOutcome, Removal};

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
    /// Store this value, with the tags, the windows and the own time to live of the value before it.
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

/// Why a [`try_compute`](Cache::try_compute) computed nothing.
///
/// ```
/// use larder::{Cache, Compute, ComputeError};
///
/// let cache = Cache::builder().max_capacity(100).build()?;
/// let writes_its_own_key = |_: Option<&u32>| {
///     cache.insert(7, 1);
///     Ok::<_, std::convert::Infallible>(Compute::Put(2))
/// };
/// let error = cache.try_compute(&7, writes_its_own_key).unwrap_err();
/// assert!(matches!(error, ComputeError::WroteOwnKey));
/// assert_eq!(cache.get(&7), Some(1));
/// # Ok::<(), larder::BuildError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ComputeError<E> {
    /// The closure failed, with this error. Nothing was changed.
    Closure(E),
    /// The closure wrote the key that it was to decide about. What it wrote stands.
    WroteOwnKey,
}

impl<E> std::fmt::Display for ComputeError<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ComputeError::Closure(_) => "the closure failed",
            ComputeError::WroteOwnKey => {
                "the closure wrote the key that it was to decide about: have it return its decision, \
                 and write other keys only"
            }
        })
    }
}

impl<E: std::error::Error + 'static> std::error::Error for ComputeError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ComputeError::Closure(error) => Some(error),
            ComputeError::WroteOwnKey => None,
        }
    }
}

/// How often a closure that has its turn runs again for blind writes that came between.
pub(super) const OVERTAKEN_AFTER: u32 = 4;

/// After so many lost races a call waits for a load of its key, too, to have its turn.
const RACES_BESIDE_A_LOAD: u32 = 4;

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Reads, decides and writes one key atomically. The closure sees the live value, or `None`, and runs without any
    /// lock.
    ///
    /// A value put inherits the tags and the stale windows of the value before it, and its deadline, if that entry had
    /// a time to live of its own; otherwise it has the cache's, from now on. Apart from that it follows the rules of
    /// [`insert`](Self::insert). [`Compute::Keep`] returns at once and changes nothing. O(1), apart from the closure.
    ///
    /// # Races
    /// If the key was changed while the closure ran, the closure runs again on what is there then, six times at most
    /// (nine times beside loads of the key):
    /// - The first run is a race. A call that loses it, or that finds another's turn, queues: from then on each call
    ///   that reads, decides and writes the key (`compute`, `remove_if`, `incr`, `decr`, `add`, `replace`) waits until
    ///   this one's turn is over, blocking its thread. While the key is being loaded there are no turns; after four
    ///   lost races the call waits for the load.
    /// - Blind writes (`insert`, `remove`, an invalidation, a load) never wait for a closure. If one came between in
    ///   each of five runs in the turn, it counts as having come after this call: the value put goes to the removal
    ///   listener as replaced, without having been seen. What that write returned is the value that it found.
    ///
    /// A closure that writes its own key, on its own thread, would change what it decides by each time. What it wrote
    /// stands, and its decision counts as overwritten by that. [`try_compute`](Self::try_compute) returns an error
    /// instead.
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
        let decide = |old: Option<&V>| Ok::<_, Infallible>(decide(old));
        match self.compute_in_turn(key, Inherits::Options, decide) {
            Ok(computed) | Err((ComputeError::WroteOwnKey, Some(computed))) => computed,
            Err((ComputeError::Closure(never), _)) => match never {},
            // What could not be decided by is no reason to have decided nothing.
            Err((ComputeError::WroteOwnKey, None)) => Computed {
                old: None,
                new: None,
            },
        }
    }

    /// Reads, decides and writes one key atomically, with a closure that can fail. Under the rules of
    /// [`compute`](Self::compute).
    ///
    /// # Errors
    /// [`ComputeError::Closure`] with the closure's error: nothing was changed. [`ComputeError::WroteOwnKey`] if the
    /// closure wrote the key that it was to decide about: what it wrote stands, and a value that it decided to put
    /// went to the removal listener as replaced.
    ///
    /// ```
    /// use larder::{Cache, Compute, ComputeError};
    ///
    /// let cache = Cache::builder().max_capacity(100).build()?;
    /// let parse = |_: Option<&u32>| "x".parse().map(Compute::Put);
    /// assert!(matches!(cache.try_compute("a", parse), Err(ComputeError::Closure(_))));
    /// assert_eq!(cache.get("a"), None);
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn try_compute<Q, F, E>(&self, key: &Q, decide: F) -> Result<Computed<V>, ComputeError<E>>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        V: Clone,
        F: FnMut(Option<&V>) -> Result<Compute<V>, E>,
    {
        let computed = self.compute_in_turn(key, Inherits::Options, decide);
        computed.map_err(|(error, _)| error)
    }

    /// First a race without a turn; then, in turn, as often as it takes or is allowed. With an own write of the
    /// closure, what was decided comes along.
    pub(super) fn compute_in_turn<Q, F, E>(
        &self,
        key: &Q,
        inherits: Inherits,
        mut decide: F,
    ) -> Result<Computed<V>, Failed<E, V>>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        V: Clone,
        F: FnMut(Option<&V>) -> Result<Compute<V>, E>,
    {
        let (hash, store) = (self.hash(key), &self.inner.store);
        let mut own = OwnTurn::None;
        if store.has_turn(hash, &self.namespace, key) {
            own = self.take_turn(key, own, 0);
        }
        let (mut races, mut losses) = (0, 0);
        loop {
            let lost = match self.attempt(key, inherits, &mut decide, &own) {
                Ok(Ok(computed)) => return Ok(computed),
                Ok(Err(lost)) => lost,
                Err(error) => return Err((ComputeError::Closure(error), None)),
            };
            let wrote_own_key = own.has_written_own_key();
            if wrote_own_key || losses == OVERTAKEN_AFTER {
                let computed = self.overtaken(key, lost);
                return match wrote_own_key {
                    true => Err((ComputeError::WroteOwnKey, Some(computed))),
                    false => Ok(computed),
                };
            }
            lost.discard();
            match own {
                OwnTurn::None => races += 1,
                OwnTurn::Has(_) | OwnTurn::Ignores => losses += 1,
            }
            own = self.take_turn(key, own, races);
        }
    }

    /// One run: a snapshot, the closure, and the write if nothing has changed.
    fn attempt<Q, F, E>(
        &self,
        key: &Q,
        inherits: Inherits,
        decide: &mut F,
        own: &OwnTurn<K, V>,
    ) -> Result<Result<Computed<V>, Lost<V>>, E>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        V: Clone,
        F: FnMut(Option<&V>) -> Result<Compute<V>, E>,
    {
        let (hash, store) = (self.hash(key), &self.inner.store);
        let snapshot = store.peek_versioned(hash, &self.namespace, key, |value, seen| {
            (value.clone(), seen)
        });
        let (old, seen) = match snapshot {
            Some((value, seen)) => (Some(value), Some(seen)),
            None => (None, None),
        };
        // On the stack of loads, so that a closure which loads this very key does not wait for itself.
        let running = own.enter();
        let decision = decide(old.as_ref())?;
        Ok(match decision {
            Compute::Keep => Ok(Computed {
                new: old.clone(),
                old,
            }),
            // Also where it wrote what was there already.
            Compute::Put(value) if own.has_written_own_key() => {
                let new = Some(value);
                Err(Lost { old, new })
            }
            Compute::Put(value) => {
                let key = key.to_owned();
                let lifetime = match seen {
                    // Inherited: the policy is not asked.
                    Some(seen) if seen.own_ttl => Lifetime::FOREVER,
                    _ => self.lifetime_after(seen, &key, &value),
                };
                let new = value.clone();
                let mut request = self.request(key, value, &EntryOptions::new(), lifetime);
                drop(running);
                request.inherits = inherits;
                let precondition = Precondition::Version(seen.map(|seen| seen.version));
                put_computed(
                    store.put(hash, &self.namespace, request, precondition, own.turn()),
                    old,
                    new,
                )
            }
            Compute::Remove => {
                drop(running);
                let Some(seen) = seen else {
                    store.remove_stale(hash, &self.namespace, key);
                    return Ok(Ok(Computed { old, new: None }));
                };
                match store.remove_version(hash, &self.namespace, key, seen.version, own.turn()) {
                    Removal::Removed(removed) => {
                        drop_catching(old);
                        Ok(Computed {
                            old: Some(removed),
                            new: None,
                        })
                    }
                    Removal::Changed | Removal::Busy => Err(Lost { old, new: None }),
                }
            }
        })
    }

    /// Ends a call that a blind write counts as having come after.
    fn overtaken<Q>(&self, key: &Q, lost: Lost<V>) -> Computed<V>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        V: Clone,
    {
        let Lost { old, new } = lost;
        if let Some(value) = &new {
            let (key, value) = (key.to_owned(), value.clone());
            let weight = self.weigh(&key, &value, None);
            let (hash, store) = (self.hash(&key), &self.inner.store);
            store.put_overtaken(hash, &self.namespace, key, value, weight);
        }
        Computed { old, new }
    }

    /// Waits for another's turn to end, and leads a flight without a loader, which keeps others that read, decide and
    /// write waiting for as long as what comes back lives. The turn that the caller had is over, if a write has
    /// revoked it. While the key is being loaded there is no turn to be had: the caller, which has lost so many `races`
    /// without one, runs another, and waits for the load in the end.
    pub(super) fn take_turn<Q>(&self, key: &Q, own: OwnTurn<K, V>, races: u32) -> OwnTurn<K, V>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        V: Clone,
    {
        let store = &self.inner.store;
        let hash = self.hash(key);
        match own {
            OwnTurn::Ignores => return own,
            OwnTurn::Has(ref leader) if leader.stands() => return own,
            // Given up before it is taken again: this call must not wait for itself.
            own => drop(own),
        }
        let waits_for_loads = races >= RACES_BESIDE_A_LOAD;
        let purpose = Purpose::Compute { waits_for_loads };
        loop {
            let key_of_flight = key.to_owned();
            let joined = store.join_or_lead(hash, &self.namespace, key, key_of_flight, purpose);
            match joined {
                JoinOutcome::Leader(leader, _) => return OwnTurn::Has(leader),
                JoinOutcome::Follower(mut follower) => {
                    if let WaitOutcome::Leader(leader) = follower.wait(u64::MAX) {
                        return OwnTurn::Has(leader);
                    }
                }
                JoinOutcome::Alone => return OwnTurn::None,
                // A circle: this call runs in the closure or the loader that it would wait for.
                JoinOutcome::Hit(_)
                | JoinOutcome::Stale(_)
                | JoinOutcome::Failed(_)
                | JoinOutcome::Absent => return OwnTurn::Ignores,
            }
        }
    }
}

/// What became of a run that put `new` in the place of `old`.
fn put_computed<K, V>(
    put: PutOutcome<K, V>,
    old: Option<V>,
    new: V,
) -> Result<Computed<V>, Lost<V>> {
    // What is left over goes before the answer is made: a panic in its `Drop` must not cost the answer.
    match put {
        PutOutcome::Stored(replaced) => {
            drop_catching(replaced);
            let new = Some(new);
            Ok(Computed { old, new })
        }
        PutOutcome::Rejected(value, _) => {
            drop_catching(value);
            drop_catching(new);
            Ok(Computed { old, new: None })
        }
        PutOutcome::Unmet { key, value, .. } | PutOutcome::Busy { key, value } => {
            drop_catching(key);
            drop_catching(value);
            let new = Some(new);
            Err(Lost { old, new })
        }
    }
}

/// What a call that reads, decides and writes has of a turn.
pub(super) enum OwnTurn<K, V> {
    None,
    Has(LeaderGuard<K, V>),
    /// None, and it waits for no other's: that one waits for this call.
    Ignores,
}

impl<K, V> OwnTurn<K, V> {
    pub(super) fn turn(&self) -> WriteTurn<'_, K, V> {
        match self {
            OwnTurn::None => WriteTurn::Respects,
            OwnTurn::Has(leader) => leader.turn(),
            OwnTurn::Ignores => WriteTurn::Ignores,
        }
    }

    /// Puts the turn on this thread's stack of loads while the closure runs.
    pub(super) fn enter(&self) -> Option<RunningLoad> {
        match self {
            OwnTurn::Has(leader) => Some(leader.load_id().enter()),
            OwnTurn::None | OwnTurn::Ignores => None,
        }
    }

    fn has_written_own_key(&self) -> bool {
        matches!(self, OwnTurn::Has(leader) if leader.has_written_own_key())
    }
}

/// Why nothing was computed, and what would have been.
pub(super) type Failed<E, V> = (ComputeError<E>, Option<Computed<V>>);

/// What a run decided by, and the value that it put, where the key had changed meanwhile.
struct Lost<V> {
    old: Option<V>,
    new: Option<V>,
}

impl<V> Lost<V> {
    fn discard(self) {
        drop_catching(self.old);
        drop_catching(self.new);
    }
}
