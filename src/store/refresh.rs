//! Loading a value again while it may still be served.

use equivalent::Equivalent;

use super::{Lead, Store};
use crate::flight::chain::Node;
use crate::flight::{Flight, Kept, first_term};
use crate::freshness::{self, Freshness};
use crate::generation::Namespace;
use crate::hash::KeyHash;
use crate::removal::contain_drop;
use crate::shard::{Found, Reading, Shard};
use crate::sync::Arc;

impl<K, V> Store<K, V> {
    /// As [`get`](Self::get), and whether whoever gets the value is the one to load it again.
    #[inline]
    pub(crate) fn get_to_load<Q>(
        &self,
        hash: KeyHash,
        namespace: &Namespace,
        key: &Q,
    ) -> Option<(V, Freshness)>
    where
        Q: Equivalent<K> + ?Sized,
        V: Clone,
    {
        let guard = self.stripe(hash).read();
        let reader = self.reader(namespace);
        let reading = guard.shard.read(hash.in_shard(), key, reader, true)?;
        let freshness = if reading.near {
            self.freshness(&guard.shard, &reading)
        } else {
            Freshness::Fresh
        };
        Some((reading.entry.value.clone(), freshness))
    }

    /// Whether whoever reads an entry now is the one to load it again. Touches nothing.
    pub(crate) fn peek_freshness<Q>(
        &self,
        hash: KeyHash,
        namespace: &Namespace,
        key: &Q,
    ) -> Freshness
    where
        Q: Equivalent<K> + ?Sized,
    {
        let guard = self.stripe(hash).read();
        let reader = self.reader(namespace);
        match guard.shard.read(hash.in_shard(), key, reader, false) {
            Some(reading) if reading.near => self.freshness(&guard.shard, &reading),
            _ => Freshness::Fresh,
        }
    }

    /// The same for an entry whose window may have begun.
    #[inline(never)]
    fn freshness(&self, shard: &Shard<K, V>, reading: &Reading<'_, K, V>) -> Freshness {
        let early = shard.early(reading.id);
        if early.window() == 0 {
            return Freshness::Fresh;
        }
        let deadline = shard.expires_at(reading.id, reading.entry);
        let left = deadline.saturating_sub(self.clock.now());
        if left > early.window() {
            return Freshness::Fresh;
        }
        let draw = 1.0 - crate::rand::unit();
        freshness::judge(left, early.delta(), self.loads.beta, draw)
    }

    /// The lead of a new flight for a key that has a live value and no flight; `None` where somebody loads it
    /// already, or may not. `owned` is the key that the flight would keep.
    pub(crate) fn begin_refresh<Q>(
        self: &Arc<Self>,
        hash: KeyHash,
        namespace: &Arc<Namespace>,
        key: &Q,
        owned: K,
    ) -> Option<Lead<K, V>>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let mut owned = Some(owned);
        let mut permit = None;
        // As in `begin`: on this thread's stack before the visit settles what it removed.
        let node = Node::new();
        let entered = node.enter();
        let joined = self.visit(self.stripe(hash), |visit| {
            let scope = self.scope_in_visit(namespace);
            let found = visit
                .shard
                .look(hash.in_shard(), key, scope, &mut visit.now);
            let flight = visit.flights.find(hash, namespace.id, key);
            // From here on no user code runs.
            let now = visit.now.precise();
            if !matches!(found, Found::Live(_)) || visit.flights.is_uncacheable(hash, now) {
                return None;
            }
            if let Some(flight) = flight {
                let forgotten = flight.remembered_until().is_some_and(|until| now >= until);
                if !forgotten {
                    // Somebody loads, or did a moment ago and failed.
                    return None;
                }
                visit.revoke(Some(flight), false);
            }
            permit = self.take_permit();
            permit.as_ref()?;
            let born = self.sequence.current();
            let flight = Flight::new(hash, namespace.id, owned.take()?, born, now);
            visit.flights.add(Arc::clone(&flight));
            flight.set_leader_node(node.id());
            Some((flight, born))
        });
        drop(entered);
        contain_drop(owned);
        let (flight, born) = joined?;
        // The lead gives it back.
        std::mem::forget(permit);
        self.counters.refresh();
        let namespace = Arc::clone(namespace);
        let term = (first_term(), born);
        Some(Lead::new(
            self,
            namespace,
            Kept::new(flight),
            term,
            node,
            true,
        ))
    }
}
