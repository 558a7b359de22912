//! Loading a value again while it may still be served.

use equivalent::Equivalent;

use super::join::Ask;
use super::leader::Lead;
use crate::entry::generation::Namespace;
use crate::entry::hash::KeyHash;
use crate::entry::removal::drop_catching;
use crate::flight::wait_graph::Node;
use crate::flight::{Flight, Kept, first_term};
use crate::shard::Found;
use crate::store::{Seen, Store};
use crate::util::sync::Arc;

impl<K, V> Store<K, V> {
    /// The lead of a new flight for a key that has a live value and no flight; `None` where somebody loads it
    /// already, or may not. `owned` is the key that the flight would keep.
    pub(crate) fn begin_refresh<Q>(
        self: &Arc<Self>,
        hash: KeyHash,
        namespace: &Arc<Namespace>,
        key: &Q,
        owned: K,
        ask: Ask,
    ) -> Option<Lead<K, V>>
    where
        Q: Equivalent<K> + ?Sized,
        V: Clone,
    {
        let mut owned = Some(owned);
        let mut previous = None;
        let mut permit = None;
        // As in `begin`: on this thread's stack before the visit settles what it removed.
        let node = Node::new();
        let entered = node.enter();
        let joined = self.visit(self.stripe(hash), |visit| {
            let scope = self.scope_in_visit(namespace);
            let found = visit
                .shard
                .lookup(hash.in_shard(), key, scope, &mut visit.now);
            let flight = visit.flights.find(hash, namespace.id, key);
            let now = visit.now.precise();
            let Found::Live(id) = found else { return None };
            // Somebody may be loading it, or have failed to a moment ago.
            let taken = |flight: &Arc<_>| !self.is_to_be_replaced(flight, now);
            if visit.flights.is_uncacheable(hash, now) || flight.as_ref().is_some_and(taken) {
                return None;
            }
            permit = self.take_permit();
            permit.as_ref()?;
            let entry = visit.shard.entry(id)?;
            let seen = Seen {
                version: visit.shard.version(id),
                expires_at: visit.shard.expires_by_age_at(id, entry),
            };
            previous = ask.previous.then(|| entry.value.clone());
            // From here on no user code runs.
            visit.revoke(flight, false);
            let epoch = self.epochs.current();
            let flight = Flight::new(hash, namespace.id, owned.take()?, epoch, now);
            visit.flights.add(Arc::clone(&flight));
            flight.set_leader_node(node.id());
            Some((flight, epoch, seen))
        });
        drop(entered);
        drop_catching(owned);
        let (flight, epoch, seen) = joined?;
        // The lead gives it back.
        std::mem::forget(permit);
        self.counters.refresh();
        let namespace = Arc::clone(namespace);
        let term = (first_term(), epoch);
        let lead = Lead::new(self, namespace, Kept::new(flight), term, node, true);
        Some(lead.of_a_refresh(seen).with_previous(previous))
    }
}
