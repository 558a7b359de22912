//! Removals: one critical section of one stripe.

#[cfg(feature = "tiered")]
use std::collections::HashSet;

use equivalent::Equivalent;

use super::{LockedStripe, Store};
use crate::entry::generation::Namespace;
use crate::entry::hash::KeyHash;
use crate::entry::removal::{RemovalCause, RemovedEntry};
use crate::flight::WriteTurn;
use crate::shard::Found;
#[cfg(feature = "tiered")]
use crate::util::sync::atomic::Ordering;

/// What became of the removal of a value that was judged without a lock.
pub(crate) enum Removal<T> {
    Removed(T),
    /// It is not there any more, or not alive.
    Changed,
    /// Another call has its turn with the key. Nothing changed.
    Busy,
}

impl<K, V> Store<K, V> {
    /// Removes a live value and revokes the load in flight.
    pub(crate) fn remove<Q>(&self, hash: KeyHash, namespace: &Namespace, key: &Q) -> Option<V>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let gone = self.with_stripe_mut(self.stripe(hash), |stripe| {
            let scope = self.scope_when_locked(namespace);
            let found = stripe
                .shard
                .lookup(hash.in_shard(), key, scope, &mut stripe.now);
            let flight = stripe.flights.find(hash, namespace.id, key);
            stripe.revoke(flight, false);
            self.take_found(stripe, found)
        });
        gone.map(|gone| self.notify_and_return(gone))
    }

    /// Removes a value that was judged without a lock, if it is still this version and no turn is in the way, and
    /// revokes the load in flight.
    pub(crate) fn remove_version<Q>(
        &self,
        hash: KeyHash,
        namespace: &Namespace,
        key: &Q,
        version: u32,
        turn: WriteTurn<'_, K, V>,
    ) -> Removal<V>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let gone = self.with_stripe_mut(self.stripe(hash), |stripe| {
            let scope = self.scope_when_locked(namespace);
            let found = stripe
                .shard
                .lookup(hash.in_shard(), key, scope, &mut stripe.now);
            let flight = stripe.flights.find(hash, namespace.id, key);
            match found {
                Found::Live(id) | Found::Dead(id, _) if stripe.shard.version(id) == version => {}
                _ => return Removal::Changed,
            }
            if let Found::Dead(id, cause) = found {
                // What was judged has died since: it goes, and a load that began meanwhile keeps its right.
                stripe.shard.remove_into(id, cause, stripe.out);
                return Removal::Changed;
            }
            if turn.waits_for(flight.as_ref()) {
                return Removal::Busy;
            }
            stripe.revoke(flight, false);
            match self.take_found(stripe, found) {
                Some(gone) => Removal::Removed(gone),
                None => Removal::Changed,
            }
        });
        match gone {
            Removal::Removed(gone) => Removal::Removed(self.notify_and_return(gone)),
            Removal::Changed => Removal::Changed,
            Removal::Busy => Removal::Busy,
        }
    }

    /// Where nothing live is: removes what is stale, and revokes the load in flight. A turn is left alone: it will
    /// write what it decides now. Returns `false` if there is a live value, perhaps published a moment ago.
    pub(crate) fn revoke_absent<Q>(&self, hash: KeyHash, namespace: &Namespace, key: &Q) -> bool
    where
        Q: Equivalent<K> + ?Sized,
    {
        self.with_stripe_mut(self.stripe(hash), |stripe| {
            let scope = self.scope_when_locked(namespace);
            let found = stripe
                .shard
                .lookup(hash.in_shard(), key, scope, &mut stripe.now);
            let flight = stripe.flights.find(hash, namespace.id, key);
            match found {
                Found::Live(_) => return false,
                Found::Dead(id, cause) => stripe.shard.remove_into(id, cause, stripe.out),
                Found::Absent => {}
            }
            if flight.as_ref().is_some_and(|flight| !flight.is_turn()) {
                stripe.revoke(flight, false);
            }
            true
        })
    }

    /// Whether another call has its turn with the key.
    pub(crate) fn has_turn<Q>(&self, hash: KeyHash, namespace: &Namespace, key: &Q) -> bool
    where
        Q: Equivalent<K> + ?Sized,
    {
        let guard = self.stripe(hash).read();
        let flight = guard.flights.find(hash, namespace.id, key);
        // Not the last owner: the table keeps it, and is locked.
        flight.is_some_and(|flight| flight.is_turn())
    }

    /// Lets loads of a key be shared and stored again.
    pub(crate) fn forget_uncacheable(&self, hash: KeyHash) {
        self.with_stripe_mut(self.stripe(hash), |stripe| {
            stripe.flights.forget_uncacheable(hash);
        });
    }

    /// Removes a live value and revokes the load in flight, unless one of these `leaders` leads it: that one keeps
    /// its right to publish. For a change that the load itself has made in another tier, and which kills
    /// everything but what it is about to publish.
    #[cfg(feature = "tiered")]
    pub(crate) fn remove_keeping_leaders<Q>(
        &self,
        hash: KeyHash,
        namespace: &Namespace,
        key: &Q,
        leaders: &HashSet<u64>,
    ) -> bool
    where
        Q: Equivalent<K> + ?Sized,
    {
        let gone = self.with_stripe_mut(self.stripe(hash), |stripe| {
            let scope = self.scope_when_locked(namespace);
            let found = stripe
                .shard
                .lookup(hash.in_shard(), key, scope, &mut stripe.now);
            let flight = stripe.flights.find(hash, namespace.id, key);
            // Relaxed: a leader sets its id before its loader runs, and whoever passes `leaders` learned them
            // from such a loader.
            let is_kept = |load_id: u64| leaders.contains(&load_id);
            let flight =
                flight.filter(|flight| !is_kept(flight.leader_id().load(Ordering::Relaxed)));
            stripe.revoke(flight, false);
            self.take_found(stripe, found)
        });
        gone.map(|gone| self.notify_and_return(gone)).is_some()
    }

    /// Takes out of the shard what a lookup found: a live entry is returned, a dead one joins the batch.
    fn take_found(
        &self,
        stripe: &mut LockedStripe<'_, K, V>,
        found: Found,
    ) -> Option<RemovedEntry<K, V>> {
        match found {
            Found::Live(id) => {
                let gone = stripe.shard.remove(id, RemovalCause::Explicit);
                self.note(gone.iter());
                gone
            }
            Found::Dead(id, cause) => {
                stripe.shard.remove_into(id, cause, stripe.out);
                None
            }
            Found::Absent => None,
        }
    }
}
