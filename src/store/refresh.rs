//! Loading a value again while it may still be served.

use equivalent::Equivalent;

use super::{Lead, Store, Stripe};
use crate::flight::chain::Node;
use crate::flight::{Flight, Kept, first_term};
use crate::freshness;
use crate::generation::Namespace;
use crate::hash::KeyHash;
use crate::removal::{RemovalCause, contain_drop};
use crate::shard::{Found, Reading, Shard};
use crate::stats::StaleBy;
use crate::sync::Arc;
use crate::time::Now;

/// What is served instead of an error.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Instead {
    /// A value whose time is not up.
    Live,
    /// One that is kept for this.
    Stale,
}

impl<K, V> Store<K, V> {
    /// As [`get`](Self::get), and whether whoever gets the value is the one to load it again.
    #[inline]
    pub(crate) fn get_to_load<Q>(
        &self,
        hash: KeyHash,
        namespace: &Namespace,
        key: &Q,
    ) -> Option<(V, bool)>
    where
        Q: Equivalent<K> + ?Sized,
        V: Clone,
    {
        let guard = self.stripe(hash).read();
        let reader = self.reader(namespace);
        let reading = guard.shard.read(hash.in_shard(), key, reader, true)?;
        let early = reading.near && self.is_elected(&guard, &reading, hash, namespace, key);
        Some((reading.entry.value.clone(), early))
    }

    /// Whether whoever reads an entry now is the one to load it again. Touches nothing.
    pub(crate) fn peek_early<Q>(&self, hash: KeyHash, namespace: &Namespace, key: &Q) -> bool
    where
        Q: Equivalent<K> + ?Sized,
    {
        if self.loads.beta == 0.0 {
            return false;
        }
        let guard = self.stripe(hash).read();
        let reader = self.reader(namespace);
        match guard.shard.read(hash.in_shard(), key, reader, false) {
            Some(reading) => {
                reading.near && self.is_elected(&guard, &reading, hash, namespace, key)
            }
            None => false,
        }
    }

    /// The same for an entry whose window may have begun.
    #[inline(never)]
    fn is_elected<Q>(
        &self,
        stripe: &Stripe<K, V>,
        reading: &Reading<'_, K, V>,
        hash: KeyHash,
        namespace: &Namespace,
        key: &Q,
    ) -> bool
    where
        Q: Equivalent<K> + ?Sized,
    {
        let early = stripe.shard.early(reading.id);
        if early.window() == 0 {
            return false;
        }
        let now = self.clock.now();
        let deadline = stripe.shard.expires_at(reading.id, reading.entry);
        let left = deadline.saturating_sub(now);
        if left > early.window() {
            return false;
        }
        let draw = 1.0 - crate::rand::unit();
        if !freshness::is_early(left, early.delta(), self.loads.beta, draw) {
            return false;
        }
        // Somebody may be loading it, or have failed to so short a time ago that nobody is to try again. (What comes
        // back is not the last owner: the table keeps it, and is locked.)
        match stripe.flights.find(hash, namespace.id, key) {
            Some(flight) => self.is_to_be_replaced(&flight, now),
            None => true,
        }
    }

    /// Whether a flight keeps nobody from beginning another: a failure whose time is over, or a load that has taken
    /// too long.
    fn is_to_be_replaced(&self, flight: &Flight<K, V>, now: u64) -> bool {
        match flight.remembered_until() {
            Some(until) => until <= now,
            None => !flight.is_under_way(now.saturating_sub(self.loads.load_deadline)),
        }
    }

    /// A copy of an expired entry's value while a stale window is open, and how long its time has been up.
    pub(super) fn stale_in(
        &self,
        shard: &Shard<K, V>,
        id: u32,
        now: &mut Now<'_>,
    ) -> Option<(V, u64)>
    where
        V: Clone,
    {
        let by = shard.past_by(id, now)?;
        let value = shard.entry(id)?.value.clone();
        Some((value, by))
    }

    /// The value whose time is up, and for how long it has been. Touches nothing.
    pub(crate) fn peek_stale<Q>(
        &self,
        hash: KeyHash,
        namespace: &Namespace,
        key: &Q,
    ) -> Option<(V, u64)>
    where
        Q: Equivalent<K> + ?Sized,
        V: Clone,
    {
        if self.loads.stale() == 0 {
            return None;
        }
        let guard = self.stripe(hash).read();
        let mut now = Now::new(&self.clock);
        let scope = self.scope(namespace);
        match guard.shard.look(hash.in_shard(), key, scope, &mut now) {
            Found::Past(id, RemovalCause::Expired) => self.stale_in(&guard.shard, id, &mut now),
            _ => None,
        }
    }

    /// The value whose time is up, where another caller is loading it, or has failed to a moment ago: what
    /// [`begin`](Self::begin) would answer, found without keeping others out.
    pub(crate) fn stale_at_once<Q>(
        &self,
        hash: KeyHash,
        namespace: &Namespace,
        key: &Q,
    ) -> Option<V>
    where
        Q: Equivalent<K> + ?Sized,
        V: Clone,
    {
        if self.loads.stale() == 0 {
            return None;
        }
        let guard = self.stripe(hash).read();
        let flight = guard.flights.find(hash, namespace.id, key)?;
        let mut now = Now::new(&self.clock);
        let at = now.precise();
        let overdue = at.saturating_sub(self.loads.load_deadline);
        let (window, why) = if flight.is_under_way(overdue) {
            (self.loads.stale_while_revalidate, StaleBy::Load)
        } else if flight.remembered_until().is_some_and(|until| at < until) {
            (self.loads.stale_if_error, StaleBy::Error)
        } else {
            return None;
        };
        // Not the last owner: the table keeps it, and is locked.
        drop(flight);
        let scope = self.scope(namespace);
        let found = guard.shard.look(hash.in_shard(), key, scope, &mut now);
        let Found::Past(id, RemovalCause::Expired) = found else {
            return None;
        };
        // Before a copy is made that nobody would be served, and that would be dropped in here.
        if guard.shard.past_by(id, &mut now)? >= window {
            return None;
        }
        let value = guard.shard.entry(id)?.value.clone();
        drop(guard);
        self.counters.stale(why);
        Some(value)
    }

    /// What there is to serve instead of an error: where stale values are kept for that, or where the load that
    /// failed was to `refresh` a value.
    pub(crate) fn instead_of_error<Q>(
        &self,
        hash: KeyHash,
        namespace: &Namespace,
        key: &Q,
        refresh: bool,
    ) -> Option<(V, Instead)>
    where
        Q: Equivalent<K> + ?Sized,
        V: Clone,
    {
        if self.loads.stale_if_error == 0 && !refresh {
            return None;
        }
        let guard = self.stripe(hash).read();
        let mut now = Now::new(&self.clock);
        let scope = self.scope(namespace);
        let (id, instead) = match guard.shard.look(hash.in_shard(), key, scope, &mut now) {
            Found::Live(id) => (id, Instead::Live),
            Found::Past(id, RemovalCause::Expired) => {
                if guard.shard.past_by(id, &mut now)? >= self.loads.stale_if_error {
                    return None;
                }
                (id, Instead::Stale)
            }
            _ => return None,
        };
        let value = guard.shard.entry(id)?.value.clone();
        Some((value, instead))
    }

    /// Ends what is stale, and the load of it; nothing where there is nothing stale.
    pub(crate) fn remove_stale<Q>(&self, hash: KeyHash, namespace: &Namespace, key: &Q)
    where
        Q: Equivalent<K> + ?Sized,
    {
        if self.loads.stale() == 0 {
            return;
        }
        self.visit(self.stripe(hash), |visit| {
            let scope = self.scope_in_visit(namespace);
            let found = visit
                .shard
                .look(hash.in_shard(), key, scope, &mut visit.now);
            let flight = visit.flights.find(hash, namespace.id, key);
            if let Found::Past(id, cause) = found {
                let served = cause == RemovalCause::Expired
                    && visit.shard.past_by(id, &mut visit.now).is_some();
                if served {
                    visit.revoke(flight, false);
                }
                visit.shard.unlink(id, cause, visit.out);
            }
        });
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
                if !self.is_to_be_replaced(&flight, now) {
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
        let lead = Lead::new(self, namespace, Kept::new(flight), term, node, true);
        Some(lead.of_a_refresh())
    }
}
