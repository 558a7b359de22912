//! Changes to an entry where it is: its life, or its value by arithmetic.

use equivalent::Equivalent;

use super::{LockedStripe, Store};
use crate::entry::expiry::Lifetime;
use crate::entry::freshness::Early;
use crate::entry::generation::Namespace;
use crate::entry::hash::KeyHash;
use crate::entry::removal::RemovalCause;
use crate::flight::WriteTurn;
use crate::shard::Found;

impl<K, V> Store<K, V> {
    /// Gives a live entry a new life from now on. Revokes nothing, unless the life is nothing: then it is a removal.
    pub(crate) fn touch<Q>(
        &self,
        hash: KeyHash,
        namespace: &Namespace,
        key: &Q,
        lifetime: Lifetime,
    ) -> bool
    where
        Q: Equivalent<K> + ?Sized,
    {
        self.with_stripe_mut(self.stripe(hash), |stripe| {
            let scope = self.scope_when_locked(namespace);
            let found = stripe
                .shard
                .lookup(hash.in_shard(), key, scope, &mut stripe.now);
            let Found::Live(id) = found else {
                return false;
            };
            if lifetime == Lifetime::NOTHING {
                let flight = stripe.flights.find(hash, namespace.id, key);
                stripe.revoke(flight, false);
                stripe
                    .shard
                    .remove_into(id, RemovalCause::Explicit, stripe.out);
            } else {
                self.set_lifetime(stripe, id, lifetime);
                stripe.shard.set_own_ttl(id, true);
                stripe.shard.note_use(id);
            }
            true
        })
    }

    /// Gives an entry this life from now on.
    pub(super) fn set_lifetime(
        &self,
        stripe: &mut LockedStripe<'_, K, V>,
        id: u32,
        lifetime: Lifetime,
    ) {
        let early = stripe.shard.early(id);
        if early.is_sure() {
            return self.prolong(stripe, id, lifetime, early);
        }
        self.renew(
            stripe,
            id,
            lifetime,
            self.loads.early(early.delta(), lifetime),
        );
    }

    /// Gives a new lifetime to an entry that is to be loaded again from some age on. The moment of that load stays: the
    /// value is as old as it was.
    fn prolong(
        &self,
        stripe: &mut LockedStripe<'_, K, V>,
        id: u32,
        lifetime: Lifetime,
        early: Early,
    ) {
        let deadline = lifetime.deadline(&mut stripe.now);
        let check_at = stripe.shard.check_at(id);
        let (deadline, early) = match deadline.checked_sub(check_at) {
            Some(window) if lifetime != Lifetime::FOREVER && window > 0 => {
                let early = early.surely(window);
                // The window is rounded, and where it begins must not be: it would creep on at every read.
                (check_at.saturating_add(early.window()), early)
            }
            _ => (deadline, Early::measured(early.delta())),
        };
        stripe
            .shard
            .reschedule(id, deadline, early, &mut stripe.now);
    }

    /// A new life, and when to load the value again.
    pub(crate) fn renew(
        &self,
        stripe: &mut LockedStripe<'_, K, V>,
        id: u32,
        lifetime: Lifetime,
        early: Early,
    ) {
        let deadline = lifetime.deadline(&mut stripe.now);
        stripe
            .shard
            .reschedule(id, deadline, early, &mut stripe.now);
    }

    /// Changes a live value in place by code that is not the user's, keeping its deadline, and revokes
    /// the load in flight. Returns what `update` returned, if there is a live value; `None` if a turn is in the way.
    pub(crate) fn update<Q, R>(
        &self,
        hash: KeyHash,
        namespace: &Namespace,
        key: &Q,
        turn: WriteTurn<'_, K, V>,
        update: impl FnOnce(&mut V) -> R,
    ) -> Option<Option<R>>
    where
        Q: Equivalent<K> + ?Sized,
    {
        self.with_stripe_mut(self.stripe(hash), |stripe| {
            let scope = self.scope_when_locked(namespace);
            let found = stripe
                .shard
                .lookup(hash.in_shard(), key, scope, &mut stripe.now);
            let flight = stripe.flights.find(hash, namespace.id, key);
            let Found::Live(id) = found else {
                // Not the flight's last owner: the table keeps it.
                drop(flight);
                return Some(None);
            };
            if turn.waits_for(flight.as_ref()) {
                drop(flight);
                return None;
            }
            stripe.revoke(flight, true);
            let mut result = None;
            stripe
                .shard
                .update(id, &mut stripe.now, |value| result = Some(update(value)));
            Some(result)
        })
    }
}
