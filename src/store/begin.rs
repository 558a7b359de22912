//! How a miss becomes a load, one that is waited for, or neither.

use equivalent::Equivalent;

use super::{Follow, Lead, Store, Visit};
use crate::error::LoadError;
use crate::flight::chain::{Node, Waits};
use crate::flight::{Flight, Join, Kept, first_term};
use crate::generation::Namespace;
use crate::hash::KeyHash;
use crate::removal::contain_drop;
use crate::shard::Found;
use crate::stats::Count;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// What a caller that wants a value is to do.
pub(crate) enum Begin<K, V> {
    /// Take this one.
    Hit(V),
    /// Run the loader, and say how it went.
    Lead(Lead<K, V>),
    /// Wait for another caller's loader.
    Follow(Follow<K, V>),
    /// Nothing: this is why.
    Failed(LoadError),
    /// Run the loader for oneself: the key was declared uncacheable.
    Alone,
}

/// What a caller joins a flight for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// A value, whatever it takes.
    Value,
    /// A value, or the error that a load met a moment ago.
    ValueOrError,
    /// Its turn with the key, whether or not there is a value.
    Turn,
}

/// One of the loads that may be in flight. Dropped, it is free again, also by a panic.
pub(super) struct Permit<'a>(pub(super) &'a AtomicUsize);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What `join` decided under the lock.
enum Joined<K, V> {
    Hit(V),
    Lead(Arc<Flight<K, V>>, u64, u64),
    Follow(Arc<Flight<K, V>>, u64, u64),
    Failed(LoadError),
    Alone,
}

impl<K, V> Store<K, V> {
    /// Looks once more under the exclusive lock, and joins or starts the flight of the key. `owned` is
    /// the key that a new flight would keep.
    pub(crate) fn begin<Q>(
        self: &Arc<Self>,
        hash: KeyHash,
        namespace: &Arc<Namespace>,
        key: &Q,
        owned: K,
        wish: Wish,
    ) -> Begin<K, V>
    where
        Q: Equivalent<K> + ?Sized,
        V: Clone,
    {
        let mut permit = None;
        let mut owned = Some(owned);
        // The flight has its leader's node, and this thread the node on its stack, before the visit
        // settles what it removed: a listener told then may load this very key, and must not wait for
        // the load that it delays.
        let node = Node::new();
        let entered = node.enter();
        let joined = self.visit(self.stripe(hash), |visit| {
            let joined = self.join_in(visit, hash, namespace, key, &mut owned, wish, &mut permit);
            if let Joined::Lead(flight, ..) = &joined {
                flight.set_leader_node(node.id());
            }
            joined
        });
        drop(entered);
        // A key that no flight needed: its `Drop` must not lose what was joined.
        contain_drop(owned);
        // If there is one, this caller leads, and the leader gives it back.
        std::mem::forget(permit);
        match joined {
            Joined::Hit(value) => Begin::Hit(value),
            Joined::Failed(error) => Begin::Failed(error),
            Joined::Alone => Begin::Alone,
            Joined::Lead(flight, term, born) => {
                let loads = wish != Wish::Turn;
                let flight = Kept::new(flight);
                let namespace = Arc::clone(namespace);
                Begin::Lead(Lead::new(
                    self,
                    namespace,
                    flight,
                    (term, born),
                    node,
                    loads,
                ))
            }
            Joined::Follow(flight, ticket, joined) => {
                let loads = wish != Wish::Turn;
                let mut follow = Follow::new(self, namespace, flight, ticket, joined, loads);
                match Waits::begin(follow.flight().node()) {
                    Some(waits) => {
                        follow.set_waits(waits);
                        if loads {
                            self.counters.bump(Count::Joined);
                        }
                        Begin::Follow(follow)
                    }
                    None => Begin::Failed(LoadError::Recursive),
                }
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one visit's worth of context")]
    fn join_in<'s, Q>(
        &'s self,
        visit: &mut Visit<'_, K, V>,
        hash: KeyHash,
        namespace: &Namespace,
        key: &Q,
        owned: &mut Option<K>,
        wish: Wish,
        permit: &mut Option<Permit<'s>>,
    ) -> Joined<K, V>
    where
        Q: Equivalent<K> + ?Sized,
        V: Clone,
    {
        let scope = self.scope_in_visit(namespace);
        let found = visit
            .shard
            .look(hash.in_shard(), key, scope, &mut visit.now);
        if let (Found::Live(id), false) = (found, wish == Wish::Turn) {
            if let Some(entry) = visit.shard.entry(id) {
                let value = entry.value.clone();
                visit.shard.note_hit(id, entry, &mut visit.now);
                return Joined::Hit(value);
            }
        }
        let flight = visit.flights.find(hash, namespace.id, key);
        // From here on no user code runs.
        let now = visit.now.precise();
        if wish != Wish::Turn && visit.flights.is_uncacheable(hash, now) {
            return Joined::Alone;
        }
        let born = self.sequence.current();
        let floor = visit.shard.mark().max(scope.floor);
        if let Some(flight) = flight {
            let overdue = now.saturating_sub(self.loads.load_deadline);
            let may_lead = || {
                *permit = self.take_permit();
                permit.is_some()
            };
            match flight.join(floor, born, now, overdue, may_lead) {
                Join::Lead { term } => return Joined::Lead(flight, term, born),
                Join::Refused => return self.too_many(),
                Join::Follow { ticket } => return Joined::Follow(flight, ticket, born),
                Join::Failed(error) if wish == Wish::ValueOrError => return Joined::Failed(error),
                Join::Failed(_) | Join::Past => visit.revoke(Some(flight), false),
            }
        }
        *permit = self.take_permit();
        match owned.take() {
            Some(key) if permit.is_some() => {
                let flight = Flight::new(hash, namespace.id, key, born, now);
                visit.flights.add(Arc::clone(&flight));
                Joined::Lead(flight, first_term(), born)
            }
            unused => {
                *owned = unused;
                self.too_many()
            }
        }
    }

    fn too_many(&self) -> Joined<K, V> {
        Joined::Failed(LoadError::TooManyLoads {
            limit: self.loads.max_loads.unwrap_or(usize::MAX),
        })
    }

    /// Counts one more load in flight, unless there are as many as may be.
    pub(super) fn take_permit(&self) -> Option<Permit<'_>> {
        // Relaxed: the count bounds, it orders nothing.
        let before = self.loads_in_flight.fetch_add(1, Ordering::Relaxed);
        let permit = Permit(&self.loads_in_flight);
        let refused = self.loads.max_loads.is_some_and(|limit| before >= limit);
        (!refused).then_some(permit)
    }

    /// Counts one more load whatever the bound: a follower takes over from a leader that was counted.
    pub(super) fn force_permit(&self) {
        self.loads_in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a loader that has run.
    pub(crate) fn count_load(&self, well: bool) {
        self.counters.bump(Count::Loads);
        if !well {
            self.counters.bump(Count::LoadFailures);
        }
    }

    /// How many loaders are running.
    pub(crate) fn loads_in_flight(&self) -> usize {
        self.loads_in_flight.load(Ordering::Relaxed)
    }

    /// How many flights stand in the tables, remembered failures included.
    pub(crate) fn flights(&self) -> usize {
        self.stripes
            .iter()
            .map(|stripe| stripe.read().flights.len())
            .sum()
    }
}
