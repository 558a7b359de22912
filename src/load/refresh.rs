//! Loading a value again while it may still be served.

use equivalent::Equivalent;

use super::join::Accepts;
use super::leader::LeaderGuard;
use crate::entry::generation::Namespace;
use crate::entry::hash::KeyHash;
use crate::entry::removal::drop_catching;
use crate::flight::wait_graph::LoadId;
use crate::flight::{Flight, FlightRef, first_term};
use crate::shard::Found;
use crate::store::{Snapshot, Store};
use crate::util::sync::Arc;

impl<K, V> Store<K, V> {
    /// The leader of a new flight for a key that has a live value and no flight; `None` if another call loads it
    /// already, or may not. `owned` is the key that the flight would keep.
    pub(crate) fn begin_refresh<Q>(
        self: &Arc<Self>,
        hash: KeyHash,
        namespace: &Arc<Namespace>,
        key: &Q,
        owned: K,
        accepts: Accepts,
    ) -> Option<LeaderGuard<K, V>>
    where
        Q: Equivalent<K> + ?Sized,
        V: Clone,
    {
        let mut owned = Some(owned);
        let mut previous = None;
        let mut permit = None;
        // As in `join_or_lead`: on this thread's stack before the deferred work runs.
        let load_id = LoadId::new();
        let running = load_id.enter();
        let joined = self.with_stripe_mut(self.stripe(hash), |stripe| {
            let scope = self.scope_when_locked(namespace);
            let found = stripe
                .shard
                .lookup(hash.in_shard(), key, scope, &mut stripe.now);
            let flight = stripe.flights.find(hash, namespace.id, key);
            let now = stripe.now.precise();
            let Found::Live(id) = found else { return None };
            // Somebody may be loading it, or have failed to a moment ago.
            let taken = |flight: &Arc<_>| !self.is_to_be_replaced(flight, now);
            if stripe.flights.is_uncacheable(hash, now) || flight.as_ref().is_some_and(taken) {
                return None;
            }
            permit = self.take_permit();
            permit.as_ref()?;
            let entry = stripe.shard.entry(id)?;
            let seen = Snapshot {
                version: stripe.shard.version(id),
                expires_at: stripe.shard.expires_by_age_at(id, entry),
                own_ttl: entry.header.has_own_ttl(),
            };
            previous = accepts.previous.then(|| entry.value.clone());
            // From here on no user code runs.
            stripe.revoke(flight, false);
            let epoch = self.epochs.of_load();
            let flight = Flight::new(hash, namespace.id, owned.take()?, epoch, now, false);
            stripe.flights.add(Arc::clone(&flight));
            flight.set_leader_id(load_id.id());
            Some((flight, epoch, seen))
        });
        drop(running);
        drop_catching(owned);
        let (flight, epoch, seen) = joined?;
        // The leader gives it back.
        std::mem::forget(permit);
        self.counters.refresh();
        let namespace = Arc::clone(namespace);
        let term = (first_term(), epoch);
        let leader = LeaderGuard::new(self, namespace, FlightRef::new(flight), term, load_id, true);
        Some(leader.of_a_refresh(seen).with_previous(previous))
    }
}
