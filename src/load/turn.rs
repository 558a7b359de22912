//! Waiting for another call's turn with a key.

use equivalent::Equivalent;

use super::follower::Follower;
use crate::entry::generation::Namespace;
use crate::entry::hash::KeyHash;
use crate::flight::wait_graph::WaitEdge;
use crate::store::Store;
use crate::util::sync::Arc;

impl<K, V> Store<K, V> {
    /// Waits, if another call has its turn with the key, until that is over. Returns `false` if it never would be: the
    /// call with the turn waits for this one.
    pub(crate) fn wait_for_turn<Q>(
        self: &Arc<Self>,
        hash: KeyHash,
        namespace: &Arc<Namespace>,
        key: &Q,
    ) -> bool
    where
        Q: Equivalent<K> + ?Sized,
    {
        let joined = self.with_stripe_mut(self.stripe(hash), |stripe| {
            let flight = stripe.flights.find(hash, namespace.id, key);
            let flight = flight.filter(|flight| flight.is_turn())?;
            let ticket = flight.follow();
            Some((flight, ticket))
        });
        let Some((flight, ticket)) = joined else {
            return true;
        };
        let joined = self.epochs.current();
        let mut follower = Follower::new(self, namespace, flight, ticket, joined, false);
        let Some(wait_edge) = WaitEdge::begin(follower.flight().leader_id()) else {
            return false;
        };
        follower.set_wait_edge(wait_edge);
        // Should it come to lead, it gives that up at once.
        drop(follower.wait(u64::MAX));
        true
    }
}
