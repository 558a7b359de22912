//! How a miss becomes a load, one that is waited for, or neither.

use equivalent::Equivalent;

use super::follower::Follower;
use super::leader::LeaderGuard;
use super::permit::Permit;
use crate::entry::freshness::{Stale, StaleBy};
use crate::entry::generation::Namespace;
use crate::entry::hash::KeyHash;
use crate::entry::removal::{RemovalCause, drop_catching};
use crate::entry::stats::Count;
use crate::flight::wait_graph::{LoadId, WaitEdge};
use crate::flight::{Flight, FlightJoin, FlightRef, Joiner, first_term};
use crate::shard::Found;
use crate::store::{LockedStripe, Store};
use crate::util::error::LoadError;
use crate::util::sync::Arc;

/// What a caller that wants a value is to do.
pub(crate) enum JoinOutcome<K, V> {
    /// Take this one.
    Hit(V),
    /// Take this one, whose time is up: another caller loads, or has just failed to.
    Stale(V),
    /// Run the loader, and say how it went. The value, whose time is up, may be served meanwhile.
    Leader(LeaderGuard<K, V>, Option<V>),
    /// Nothing: a load found nothing a moment ago.
    Absent,
    /// Wait for another caller's loader.
    Follower(Follower<K, V>),
    /// Nothing: this is why.
    Failed(LoadError),
    /// Run the loader for oneself: the key was declared uncacheable.
    Alone,
}

/// What a caller can be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepts {
    /// An error, its own or another's. Who cannot be given one loads for itself in the end.
    pub(crate) errors: bool,
    /// An absence, as an answer. A caller that accepts errors instead gets [`LoadError::Absent`].
    pub(crate) absence: bool,
    /// For its loader, what is there or was.
    pub(crate) previous: bool,
    /// Waiting for another call's loader that has not begun: its own would only queue behind that one.
    pub(crate) queues: bool,
}

/// What a caller joins a flight for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A value, or what else it can be given.
    Value(Accepts),
    /// Its turn with the key, whether or not there is a value. Unless it also waits for loads, a load that is under way
    /// leaves it alone.
    Compute { waits_for_loads: bool },
}

impl Purpose {
    /// Whether it can be given an error that a load met a moment ago.
    fn takes_errors(self) -> bool {
        matches!(self, Purpose::Value(accepts) if accepts.errors)
    }

    /// Whether it leaves a load under way alone, and goes on without a turn.
    fn goes_on_beside_loads(self) -> bool {
        matches!(self, Purpose::Compute { waits_for_loads } if !waits_for_loads)
    }

    /// Whether a call is queued behind another's loader that has not begun.
    fn queues(self) -> bool {
        matches!(self, Purpose::Value(accepts) if accepts.queues)
    }

    /// Whether it can be told that a load found nothing.
    fn takes_absence(self) -> bool {
        matches!(self, Purpose::Value(accepts) if accepts.errors || accepts.absence)
    }
}

/// What a caller brings into the critical section and takes out again: all of it is dropped after unlocking.
struct JoinInputs<'s, K, V> {
    /// The key that a new flight would keep.
    owned: Option<K>,
    permit: Option<Permit<'s>>,
    /// A copy of a value whose time is up.
    stale: Option<(V, Stale)>,
}

/// What `join_locked` decided.
enum LockedJoin<K, V> {
    Hit(V),
    /// The value in [`JoinInputs::stale`].
    Stale(StaleBy),
    Leader(Arc<Flight<K, V>>, u64, u64),
    Follower(Arc<Flight<K, V>>, u64, u64),
    Failed(LoadError),
    Absent,
    Alone,
}

/// A copy of the live value, or else, in `stale`, of one whose time is up.
fn copy_found<K, V: Clone>(
    stripe: &mut LockedStripe<'_, K, V>,
    found: Found,
    stale: &mut Option<(V, Stale)>,
) -> Option<V> {
    match found {
        Found::Live(id) => {
            let entry = stripe.shard.entry(id)?;
            let value = entry.value.clone();
            stripe.shard.note_hit(id, entry, &mut stripe.now);
            return Some(value);
        }
        Found::Dead(id, RemovalCause::Expired) => {
            let how = stripe.shard.stale(id, &mut stripe.now)?;
            let entry = stripe.shard.entry(id)?;
            *stale = Some((entry.value.clone(), how));
        }
        _ => {}
    }
    None
}

impl<K, V> Store<K, V> {
    /// Looks once more under the exclusive lock, and joins or starts the flight of the key. `owned` is
    /// the key that a new flight would keep.
    pub(crate) fn join_or_lead<Q>(
        self: &Arc<Self>,
        hash: KeyHash,
        namespace: &Arc<Namespace>,
        key: &Q,
        owned: K,
        purpose: Purpose,
    ) -> JoinOutcome<K, V>
    where
        Q: Equivalent<K> + ?Sized,
        V: Clone,
    {
        let mut inputs = JoinInputs {
            owned: Some(owned),
            permit: None,
            stale: None,
        };
        // The flight has its leader's id, and this thread has the id on its stack, before the deferred work runs: a
        // listener that is called then may load this very key, and must not wait for the load that it delays.
        let load_id = LoadId::new();
        let running = load_id.enter();
        let joined = self.with_stripe_mut(self.stripe(hash), |stripe| {
            let joined = self.join_locked(stripe, hash, namespace, key, purpose, &mut inputs);
            if let LockedJoin::Leader(flight, ..) = &joined {
                flight.set_leader_id(load_id.id());
            }
            joined
        });
        drop(running);
        // A key that no flight needed: its `Drop` must not lose what was joined.
        drop_catching(inputs.owned);
        let loads = matches!(purpose, Purpose::Value(_));
        // If there is one, this caller leads, and the leader gives it back.
        std::mem::forget(inputs.permit);
        let mut stale = inputs.stale;
        let outcome = match joined {
            LockedJoin::Hit(value) => JoinOutcome::Hit(value),
            LockedJoin::Stale(why) => match stale.take() {
                Some((value, _)) => {
                    self.counters.stale(why);
                    JoinOutcome::Stale(value)
                }
                None => JoinOutcome::Alone,
            },
            LockedJoin::Failed(error) => JoinOutcome::Failed(error),
            LockedJoin::Absent => JoinOutcome::Absent,
            LockedJoin::Alone => JoinOutcome::Alone,
            LockedJoin::Leader(flight, term, epoch) => {
                let flight = FlightRef::new(flight);
                let namespace = Arc::clone(namespace);
                let leader =
                    LeaderGuard::new(self, namespace, flight, (term, epoch), load_id, loads);
                let leader = match purpose {
                    Purpose::Value(accepts) if accepts.previous => {
                        leader.with_previous(stale.as_ref().map(|(value, _)| value.clone()))
                    }
                    _ => leader,
                };
                let meanwhile = stale.take_if(|(_, stale)| stale.serves(StaleBy::Load));
                JoinOutcome::Leader(leader, meanwhile.map(|(value, _)| value))
            }
            LockedJoin::Follower(flight, ticket, joined) => self.wait(Follower::new(
                self, namespace, flight, ticket, joined, loads,
            )),
        };
        drop_catching(stale);
        outcome
    }

    /// Waits for another's load, unless that waits for this caller's.
    fn wait(&self, mut follower: Follower<K, V>) -> JoinOutcome<K, V> {
        let Some(wait_edge) = WaitEdge::begin(follower.flight().leader_id()) else {
            return JoinOutcome::Failed(LoadError::Recursive);
        };
        follower.set_wait_edge(wait_edge);
        if follower.is_for_a_load() {
            self.counters.bump(Count::Joined);
        }
        JoinOutcome::Follower(follower)
    }

    fn join_locked<'s, Q>(
        &'s self,
        stripe: &mut LockedStripe<'_, K, V>,
        hash: KeyHash,
        namespace: &Namespace,
        key: &Q,
        purpose: Purpose,
        inputs: &mut JoinInputs<'s, K, V>,
    ) -> LockedJoin<K, V>
    where
        Q: Equivalent<K> + ?Sized,
        V: Clone,
    {
        let wants_value = matches!(purpose, Purpose::Value(_));
        let scope = self.scope_when_locked(namespace);
        let found = stripe
            .shard
            .lookup(hash.in_shard(), key, scope, &mut stripe.now);
        if wants_value {
            if let Some(value) = copy_found(stripe, found, &mut inputs.stale) {
                return LockedJoin::Hit(value);
            }
        }
        let flight = stripe.flights.find(hash, namespace.id, key);
        // From here on no user code runs.
        let now = stripe.now.precise();
        let serves = |why| matches!(&inputs.stale, Some((_, stale)) if stale.serves(why));
        let (serves_loads, serves_errors) = (serves(StaleBy::Load), serves(StaleBy::Error));
        if wants_value && stripe.flights.is_uncacheable(hash, now) {
            return LockedJoin::Alone;
        }
        let epoch = self.epochs.of_load();
        let min_epoch = stripe.shard.min_epoch().max(scope.min_epoch);
        if let Some(flight) = flight {
            let overdue = now.saturating_sub(self.loads.load_deadline);
            if serves_loads && flight.is_under_way(overdue) {
                return LockedJoin::Stale(StaleBy::Load);
            }
            if purpose.goes_on_beside_loads() && flight.is_load_under_way(overdue) {
                return LockedJoin::Alone;
            }
            let joiner = Joiner {
                min_epoch,
                epoch,
                turn: !wants_value,
                now,
                overdue,
                takes_errors: purpose.takes_errors(),
                queues: purpose.queues(),
                epochs: &self.epochs,
            };
            match self.join_flight(flight, joiner, purpose, serves_errors, &mut inputs.permit) {
                Ok(joined) => return joined,
                Err(obsolete) => stripe.revoke(Some(obsolete), false),
            }
        }
        if wants_value {
            inputs.permit = self.take_permit();
        }
        let may_lead = inputs.permit.is_some() || !wants_value;
        match inputs.owned.take_if(|_| may_lead) {
            Some(key) => {
                let flight = Flight::new(hash, namespace.id, key, epoch, now, !wants_value);
                stripe.flights.add(Arc::clone(&flight));
                LockedJoin::Leader(flight, first_term(), epoch)
            }
            None => self.too_many(serves_errors),
        }
    }

    /// What a caller does about the flight of its key; gives it back if a new one must take its place.
    fn join_flight<'s>(
        &'s self,
        flight: Arc<Flight<K, V>>,
        joiner: Joiner<'_>,
        purpose: Purpose,
        serves_errors: bool,
        permit: &mut Option<Permit<'s>>,
    ) -> Result<LockedJoin<K, V>, Arc<Flight<K, V>>> {
        let epoch = joiner.epoch;
        let turn = joiner.turn;
        let may_lead = || {
            if !turn {
                *permit = self.take_permit();
            }
            turn || permit.is_some()
        };
        Ok(match flight.join(joiner, may_lead) {
            FlightJoin::Leader { term } => LockedJoin::Leader(flight, term, epoch),
            FlightJoin::Refused => self.too_many(serves_errors),
            FlightJoin::Follower { ticket } => LockedJoin::Follower(flight, ticket, epoch),
            // From here on the flight is not needed. Its last owner is the table.
            FlightJoin::Failed(_) | FlightJoin::CoolingDown if serves_errors => {
                LockedJoin::Stale(StaleBy::Error)
            }
            FlightJoin::Failed(error) => {
                self.counters.negative_hit();
                LockedJoin::Failed(error)
            }
            FlightJoin::Absent if purpose.takes_absence() => {
                self.counters.negative_hit();
                LockedJoin::Absent
            }
            FlightJoin::CoolingDown | FlightJoin::Absent | FlightJoin::Obsolete => {
                return Err(flight);
            }
        })
    }

    fn too_many(&self, serves_errors: bool) -> LockedJoin<K, V> {
        if serves_errors {
            return LockedJoin::Stale(StaleBy::Error);
        }
        LockedJoin::Failed(LoadError::TooManyLoads {
            limit: self.loads.max_loads.unwrap_or(usize::MAX),
        })
    }
}
