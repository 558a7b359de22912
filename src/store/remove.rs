//! Removals: one critical section of one stripe.

#[cfg(feature = "tiered")]
use std::collections::HashSet;

use equivalent::Equivalent;

use super::{LockedStripe, Store};
use crate::entry::generation::Namespace;
use crate::entry::hash::KeyHash;
use crate::entry::removal::{RemovalCause, RemovedEntry};
use crate::shard::Found;
#[cfg(feature = "tiered")]
use crate::util::sync::atomic::Ordering;

impl<K, V> Store<K, V> {
    /// Removes a live value and revokes the load in flight; where a version was `expected`, only if it is
    /// still there.
    pub(crate) fn remove<Q>(
        &self,
        hash: KeyHash,
        namespace: &Namespace,
        key: &Q,
        expected: Option<u32>,
    ) -> Option<V>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let gone = self.with_stripe_mut(self.stripe(hash), |stripe| {
            let scope = self.scope_when_locked(namespace);
            let found = stripe
                .shard
                .lookup(hash.in_shard(), key, scope, &mut stripe.now);
            let flight = stripe.flights.find(hash, namespace.id, key);
            let version = match found {
                Found::Live(id) | Found::Dead(id, _) => Some(stripe.shard.version(id)),
                Found::Absent => None,
            };
            if expected.is_some() && expected != version {
                return None;
            }
            if let (Found::Dead(id, cause), Some(_)) = (found, expected) {
                // What was judged has died since: it goes, and a load that began meanwhile keeps its right.
                stripe.shard.remove_into(id, cause, stripe.out);
                return None;
            }
            stripe.revoke(flight, false);
            self.take_found(stripe, found)
        });
        gone.map(|gone| self.notify_and_return(gone))
    }

    /// Revokes the load in flight of a key, and nothing else, if there is no live value but the `expected`
    /// version. Returns `false` if there is a live value of another version, perhaps published a moment ago.
    pub(crate) fn revoke<Q>(
        &self,
        hash: KeyHash,
        namespace: &Namespace,
        key: &Q,
        expected: Option<u32>,
    ) -> bool
    where
        Q: Equivalent<K> + ?Sized,
    {
        self.with_stripe_mut(self.stripe(hash), |stripe| {
            let scope = self.scope_when_locked(namespace);
            let found = stripe
                .shard
                .lookup(hash.in_shard(), key, scope, &mut stripe.now);
            let flight = stripe.flights.find(hash, namespace.id, key);
            let version = match found {
                Found::Live(id) => Some(stripe.shard.version(id)),
                _ => None,
            };
            let same = version.is_none() || version == expected;
            if same {
                stripe.revoke(flight, false);
            }
            if let Found::Dead(id, cause) = found {
                stripe.shard.remove_into(id, cause, stripe.out);
            }
            same
        })
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
