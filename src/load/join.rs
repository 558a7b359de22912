//! How a miss becomes a load, one that is waited for, or neither.

use equivalent::Equivalent;

use super::follower::Follow;
use super::leader::Lead;
use super::permit::Permit;
use crate::entry::freshness::{Stale, StaleBy};
use crate::entry::generation::Namespace;
use crate::entry::hash::KeyHash;
use crate::entry::removal::{RemovalCause, drop_catching};
use crate::entry::stats::Count;
use crate::flight::wait_graph::{Node, Waits};
use crate::flight::{Flight, Join, Joiner, Kept, first_term};
use crate::shard::Found;
use crate::store::{Store, Visit};
use crate::util::error::LoadError;
use crate::util::sync::Arc;

/// What a caller that wants a value is to do.
pub(crate) enum Begin<K, V> {
    /// Take this one.
    Hit(V),
    /// Take this one, whose time is up: another caller loads, or has just failed to.
    Stale(V),
    /// Run the loader, and say how it went. The value, whose time is up, may be served meanwhile.
    Lead(Lead<K, V>, Option<V>),
    /// Nothing: a load found nothing a moment ago.
    Absent,
    /// Wait for another caller's loader.
    Follow(Follow<K, V>),
    /// Nothing: this is why.
    Failed(LoadError),
    /// Run the loader for oneself: the key was declared uncacheable.
    Alone,
}

/// What a caller can be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// An error, its own or another's. Who cannot be given one loads for itself in the end.
    pub(crate) errors: bool,
    /// The news that there is nothing, as an answer; who can be given errors is told by one.
    pub(crate) absence: bool,
    /// For its loader, what is there or was.
    pub(crate) previous: bool,
    /// Another's loader that has not begun: its own would only stand behind that in the queue.
    pub(crate) queues: bool,
}

/// What a caller joins a flight for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// A value, or what else it can be given.
    Value(Ask),
    /// Its turn with the key, whether or not there is a value.
    Turn,
}

impl Wish {
    /// Whether it can be given an error that a load met a moment ago.
    fn takes_errors(self) -> bool {
        matches!(self, Wish::Value(ask) if ask.errors)
    }

    /// Whether it can be told that a load found nothing.
    fn takes_absence(self) -> bool {
        matches!(self, Wish::Value(ask) if ask.errors || ask.absence)
    }
}

/// What a caller brings into the visit, and what it must take out again: all of it is dropped after the lock.
struct Luggage<'s, K, V> {
    /// The key that a new flight would keep.
    owned: Option<K>,
    permit: Option<Permit<'s>>,
    /// A copy of a value whose time is up.
    stale: Option<(V, Stale)>,
}

/// What `join` decided under the lock.
enum Joined<K, V> {
    Hit(V),
    /// The one in the luggage.
    Stale(StaleBy),
    Lead(Arc<Flight<K, V>>, u64, u64),
    Follow(Arc<Flight<K, V>>, u64, u64),
    Failed(LoadError),
    Absent,
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
        let mut luggage = Luggage {
            owned: Some(owned),
            permit: None,
            stale: None,
        };
        // The flight has its leader's node, and this thread the node on its stack, before the visit
        // settles what it removed: a listener told then may load this very key, and must not wait for
        // the load that it delays.
        let node = Node::new();
        let entered = node.enter();
        let joined = self.visit(self.stripe(hash), |visit| {
            let joined = self.join_in(visit, hash, namespace, key, wish, &mut luggage);
            if let Joined::Lead(flight, ..) = &joined {
                flight.set_leader_node(node.id());
            }
            joined
        });
        drop(entered);
        // A key that no flight needed: its `Drop` must not lose what was joined.
        drop_catching(luggage.owned);
        // If there is one, this caller leads, and the leader gives it back.
        std::mem::forget(luggage.permit);
        let mut stale = luggage.stale;
        let begin = match joined {
            Joined::Hit(value) => Begin::Hit(value),
            Joined::Stale(why) => match stale.take() {
                Some((value, _)) => {
                    self.counters.stale(why);
                    Begin::Stale(value)
                }
                None => Begin::Alone,
            },
            Joined::Failed(error) => Begin::Failed(error),
            Joined::Absent => Begin::Absent,
            Joined::Alone => Begin::Alone,
            Joined::Lead(flight, term, epoch) => {
                let loads = wish != Wish::Turn;
                let flight = Kept::new(flight);
                let namespace = Arc::clone(namespace);
                let lead = Lead::new(self, namespace, flight, (term, epoch), node, loads);
                let lead = match wish {
                    Wish::Value(ask) if ask.previous => {
                        lead.with_previous(stale.as_ref().map(|(value, _)| value.clone()))
                    }
                    _ => lead,
                };
                let meanwhile = stale.take_if(|(_, stale)| stale.serves(StaleBy::Load));
                Begin::Lead(lead, meanwhile.map(|(value, _)| value))
            }
            Joined::Follow(flight, ticket, joined) => {
                let loads = wish != Wish::Turn;
                self.wait(Follow::new(self, namespace, flight, ticket, joined, loads))
            }
        };
        drop_catching(stale);
        begin
    }

    /// Waits for another's load, unless that waits for this caller's.
    fn wait(&self, mut follow: Follow<K, V>) -> Begin<K, V> {
        let Some(waits) = Waits::begin(follow.flight().node()) else {
            return Begin::Failed(LoadError::Recursive);
        };
        follow.set_waits(waits);
        if follow.is_for_a_load() {
            self.counters.bump(Count::Joined);
        }
        Begin::Follow(follow)
    }

    fn join_in<'s, Q>(
        &'s self,
        visit: &mut Visit<'_, K, V>,
        hash: KeyHash,
        namespace: &Namespace,
        key: &Q,
        wish: Wish,
        luggage: &mut Luggage<'s, K, V>,
    ) -> Joined<K, V>
    where
        Q: Equivalent<K> + ?Sized,
        V: Clone,
    {
        let scope = self.scope_in_visit(namespace);
        let found = visit
            .shard
            .lookup(hash.in_shard(), key, scope, &mut visit.now);
        if let (Found::Live(id), false) = (found, wish == Wish::Turn) {
            if let Some(entry) = visit.shard.entry(id) {
                let value = entry.value.clone();
                visit.shard.note_hit(id, entry, &mut visit.now);
                return Joined::Hit(value);
            }
        }
        if let (Found::Dead(id, RemovalCause::Expired), false) = (found, wish == Wish::Turn) {
            let stale = visit.shard.stale(id, &mut visit.now);
            let entry = visit.shard.entry(id);
            luggage.stale = entry
                .zip(stale)
                .map(|(entry, stale)| (entry.value.clone(), stale));
        }
        let flight = visit.flights.find(hash, namespace.id, key);
        // From here on no user code runs.
        let now = visit.now.precise();
        let serves = |why| matches!(&luggage.stale, Some((_, stale)) if stale.serves(why));
        let (serves_loads, serves_errors) = (serves(StaleBy::Load), serves(StaleBy::Error));
        if wish != Wish::Turn && visit.flights.is_uncacheable(hash, now) {
            return Joined::Alone;
        }
        let epoch = self.epochs.current();
        let min_epoch = visit.shard.min_epoch().max(scope.min_epoch);
        if let Some(flight) = flight {
            let overdue = now.saturating_sub(self.loads.load_deadline);
            if serves_loads && flight.is_under_way(overdue) {
                return Joined::Stale(StaleBy::Load);
            }
            let joiner = Joiner {
                min_epoch,
                epoch,
                now,
                overdue,
                takes_errors: wish.takes_errors(),
                queues: matches!(wish, Wish::Value(ask) if ask.queues),
                epochs: &self.epochs,
            };
            match self.join_flight(flight, joiner, wish, serves_errors, &mut luggage.permit) {
                Ok(joined) => return joined,
                Err(of_the_past) => visit.revoke(Some(of_the_past), false),
            }
        }
        luggage.permit = self.take_permit();
        let owned = luggage.owned.take_if(|_| luggage.permit.is_some());
        let Some(key) = owned else {
            return self.too_many(serves_errors);
        };
        let flight = Flight::new(hash, namespace.id, key, epoch, now);
        visit.flights.add(Arc::clone(&flight));
        Joined::Lead(flight, first_term(), epoch)
    }

    /// What a caller does about the flight of its key; gives it back if a new one must take its place.
    fn join_flight<'s>(
        &'s self,
        flight: Arc<Flight<K, V>>,
        joiner: Joiner<'_>,
        wish: Wish,
        serves_errors: bool,
        permit: &mut Option<Permit<'s>>,
    ) -> Result<Joined<K, V>, Arc<Flight<K, V>>> {
        let epoch = joiner.epoch;
        let may_lead = || {
            *permit = self.take_permit();
            permit.is_some()
        };
        Ok(match flight.join(joiner, may_lead) {
            Join::Lead { term } => Joined::Lead(flight, term, epoch),
            Join::Refused => self.too_many(serves_errors),
            Join::Follow { ticket } => Joined::Follow(flight, ticket, epoch),
            // From here on the flight is not needed. Its last owner is the table.
            Join::Failed(_) | Join::Resting if serves_errors => Joined::Stale(StaleBy::Error),
            Join::Failed(error) => {
                self.counters.negative_hit();
                Joined::Failed(error)
            }
            Join::Absent if wish.takes_absence() => {
                self.counters.negative_hit();
                Joined::Absent
            }
            Join::Resting | Join::Absent | Join::Obsolete => return Err(flight),
        })
    }

    fn too_many(&self, serves_errors: bool) -> Joined<K, V> {
        if serves_errors {
            return Joined::Stale(StaleBy::Error);
        }
        Joined::Failed(LoadError::TooManyLoads {
            limit: self.loads.max_loads.unwrap_or(usize::MAX),
        })
    }
}
