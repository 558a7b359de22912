//! Leading a flight: how a miss becomes a load, and the five ways in which the load ends.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use equivalent::Equivalent;

use super::write::{Parcel, Published};
use super::{Follow, Store, Visit};
use crate::error::LoadError;
use crate::flight::chain::{Node, Waits};
use crate::flight::{Flight, Join, Kept, Outcome, first_term};
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

/// The right and the duty to load a key. Dropped without a word, it abandons the flight.
pub(crate) struct Lead<K, V> {
    store: Arc<Store<K, V>>,
    namespace: Arc<Namespace>,
    flight: Kept<K, V>,
    term: u64,
    born: u64,
    node: Node,
    /// When the loader began; `None` for a turn without a loader.
    since: Option<u64>,
    over: bool,
}

/// One of the loads that may be in flight. Dropped, it is free again, also by a panic.
struct Permit<'a>(&'a AtomicUsize);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a publishing visit leaves to be done after the lock.
struct Landed<K, V> {
    published: Option<Published<K, V>>,
    /// See [`Outcome::Done`].
    overtaken: Option<u64>,
    removed: Option<Arc<Flight<K, V>>>,
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
                Begin::Lead(self.lead(namespace, flight, (term, born), node, loads))
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

    pub(super) fn lead(
        self: &Arc<Self>,
        namespace: Arc<Namespace>,
        flight: Kept<K, V>,
        (term, born): (u64, u64),
        node: Node,
        loads: bool,
    ) -> Lead<K, V> {
        Lead {
            store: Arc::clone(self),
            namespace,
            flight,
            term,
            born,
            node,
            since: loads.then(|| self.clock.now()),
            over: false,
        }
    }

    /// Counts one more load in flight, unless there are as many as may be.
    fn take_permit(&self) -> Option<Permit<'_>> {
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

impl<K, V> Lead<K, V> {
    pub(crate) fn key(&self) -> &K {
        self.flight.key()
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// Done: publishes the value, if the flight still may, and gives it to those who waited. The
    /// parcel's copy is for the cache; `value` stays with the caller.
    pub(crate) fn done(mut self, parcel: Parcel<K, V>, value: &V)
    where
        K: Eq,
        V: Clone,
    {
        self.count(true);
        let flight = Arc::clone(&self.flight);
        // Outside the visit: should `Eq` panic under the lock, the parcel is dropped after it.
        let mut parcel = Some(parcel);
        let landed = self.store.visit(self.store.stripe(flight.hash), |visit| {
            self.publish_in(visit, &mut parcel)
        });
        contain_drop(landed.removed);
        self.over = true;
        let overtaken = landed.overtaken;
        // The followers first: the listener, who hears in `settle`, may take its time.
        let told = if flight.has_followers() {
            catch_unwind(AssertUnwindSafe(|| value.clone())).map(|value| {
                self.end(Outcome::Done { value, overtaken }, 0);
            })
        } else {
            Ok(())
        };
        if told.is_err() {
            self.end(Outcome::Superseded, 0);
        }
        self.settle(landed.published);
        if let Err(panic) = told {
            resume_unwind(panic);
        }
    }

    /// The publishing visit.
    fn publish_in(
        &self,
        visit: &mut Visit<'_, K, V>,
        parcel: &mut Option<Parcel<K, V>>,
    ) -> Landed<K, V>
    where
        K: Eq,
    {
        let store = &self.store;
        let scope = store.scope_in_visit(&self.namespace);
        let hash = self.flight.hash;
        let found = visit
            .shard
            .look(hash.in_shard(), self.flight.key(), scope, &mut visit.now);
        let mine = visit.flights.contains(&self.flight) && self.flight.is_led_by(self.term);
        let floor = visit.shard.mark().max(scope.floor);
        // Read as the flight leaves the table: nobody joins it after this.
        let moved = parcel.as_ref().is_some_and(|parcel| self.has_moved(parcel));
        let overtaken = moved.then_some(self.born);
        let standing = (mine || cfg!(larder_canary = "publish")) && self.born >= floor && !moved;
        let removed = if mine {
            visit.flights.remove(&self.flight)
        } else {
            None
        };
        let published = match parcel.take() {
            Some(parcel) if standing => {
                let published =
                    store.publish_in(visit, hash, &self.namespace, parcel, self.born, found);
                Some(published)
            }
            leftover => leftover.map(|parcel| Published::Refused(parcel.key, parcel.value)),
        };
        Landed {
            published,
            overtaken,
            removed,
        }
    }

    /// Whether a tag of the answer moved since the load was born; also said of an answer whose tags were
    /// too many to be looked up.
    fn has_moved(&self, parcel: &Parcel<K, V>) -> bool {
        let tags = parcel.tags.as_ref();
        parcel.excess_tags > 0
            || tags.is_some_and(|tags| tags.floors().any(|floor| floor > self.born))
    }

    fn settle(&self, published: Option<Published<K, V>>) {
        let counters = &self.store.counters;
        match published {
            Some(Published::Stored(replaced)) => {
                counters.bump(Count::Inserts);
                if let Some(gone) = replaced {
                    contain_drop(self.store.hand_over(gone));
                }
            }
            Some(Published::Refused(key, value)) => {
                counters.bump(Count::Unpublished);
                contain_drop(key);
                contain_drop(value);
            }
            None => {}
        }
    }

    /// The loader found nothing.
    pub(crate) fn absent(mut self) {
        self.count(true);
        self.leave_table(|_, _| ());
        self.over = true;
        self.end(Outcome::Absent, 0);
    }

    /// The loader says that its value is this caller's alone.
    pub(crate) fn give_up(mut self) {
        self.count(true);
        let hash = self.flight.hash;
        let lasts = self.store.loads.uncacheable;
        self.leave_table(|visit, mine| {
            if mine {
                let until = visit.now.precise().saturating_add(lasts);
                visit.flights.remember_uncacheable(hash, until);
            }
        });
        self.store.counters.bump(Count::Unpublished);
        self.over = true;
        self.end(Outcome::GivenUp, 0);
    }

    /// The loader failed. Those who waited share `error`, and so does, for the negative time to live,
    /// whoever asks next.
    pub(crate) fn failed(mut self, error: LoadError) {
        self.count(false);
        let negative = self.store.loads.negative;
        self.over = true;
        if negative == 0 {
            self.leave_table(|_, _| ());
            self.end(Outcome::Failed(error), 0);
            return;
        }
        let until = self.store.clock.now().saturating_add(negative);
        // Ended first: the flight stays in the table, and whoever finds it must find the failure.
        self.end(Outcome::Failed(error), until);
        let flight = Arc::clone(&self.flight);
        let evicted = self.store.visit(self.store.stripe(flight.hash), |visit| {
            if visit.flights.contains(&flight) && flight.remembered_until().is_some() {
                visit.flights.remember_failure(Arc::clone(&flight))
            } else {
                None
            }
        });
        contain_drop(evicted);
    }

    /// Counts the load, once.
    fn count(&mut self, well: bool) {
        if let Some(since) = self.since.take() {
            let took = self.store.clock.now().saturating_sub(since);
            self.store.counters.add(Count::LoadNanos, took);
            self.store.count_load(well);
        }
    }

    /// Takes the flight out of the table, if this leader still has it.
    fn leave_table(&self, also: impl FnOnce(&mut Visit<'_, K, V>, bool)) {
        let removed = self
            .store
            .visit(self.store.stripe(self.flight.hash), |visit| {
                let mine = visit.flights.contains(&self.flight) && self.flight.is_led_by(self.term);
                also(visit, mine);
                if mine {
                    visit.flights.remove(&self.flight)
                } else {
                    None
                }
            });
        contain_drop(removed);
    }

    fn end(&self, outcome: Outcome<V>, until: u64) {
        self.flight.end(Some(self.term), outcome, until).call();
    }

    /// Leaves without a result: the flight stays, leaderless, while anybody waits.
    fn abandon(&self) {
        let (contained, wake, removed) =
            self.store
                .visit(self.store.stripe(self.flight.hash), |visit| {
                    if !visit.flights.contains(&self.flight) {
                        return (false, None, None);
                    }
                    let wake = self.flight.abandon(self.term);
                    let removed = if self.flight.is_deserted() {
                        visit.flights.remove(&self.flight)
                    } else {
                        None
                    };
                    (true, wake, removed)
                });
        contain_drop(removed);
        if let Some(wake) = wake {
            wake.call();
        }
        if !contained {
            self.end(Outcome::Superseded, 0);
        }
    }
}

impl<K, V> Drop for Lead<K, V> {
    fn drop(&mut self) {
        if !self.over {
            self.count(false);
            self.abandon();
        }
        drop(Permit(&self.store.loads_in_flight));
    }
}
