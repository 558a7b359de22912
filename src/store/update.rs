//! Changes to an entry where it is: its life, or its value by arithmetic.

use equivalent::Equivalent;

use super::{Store, Visit};
use crate::entry::expiry::Lifetime;
use crate::entry::freshness::Early;
use crate::entry::generation::Namespace;
use crate::entry::hash::KeyHash;
use crate::entry::removal::RemovalCause;
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
        self.visit(self.stripe(hash), |visit| {
            let scope = self.scope_in_visit(namespace);
            let found = visit
                .shard
                .lookup(hash.in_shard(), key, scope, &mut visit.now);
            let Found::Live(id) = found else {
                return false;
            };
            if lifetime == Lifetime::NOTHING {
                let flight = visit.flights.find(hash, namespace.id, key);
                visit.revoke(flight, false);
                visit
                    .shard
                    .remove_into(id, RemovalCause::Explicit, visit.out);
            } else {
                self.set_lifetime(visit, id, lifetime);
            }
            true
        })
    }

    /// Gives an entry this life from now on.
    pub(super) fn set_lifetime(&self, visit: &mut Visit<'_, K, V>, id: u32, lifetime: Lifetime) {
        let early = visit.shard.early(id);
        if early.is_sure() {
            return self.prolong(visit, id, lifetime, early);
        }
        self.renew(
            visit,
            id,
            lifetime,
            self.loads.early(early.delta(), lifetime),
        );
    }

    /// The same for an entry that is to be loaded again from an age on: that moment stays where it is, for the value
    /// is as old as it was.
    fn prolong(&self, visit: &mut Visit<'_, K, V>, id: u32, lifetime: Lifetime, early: Early) {
        let deadline = lifetime.deadline(&mut visit.now);
        let check_at = visit.shard.check_at(id);
        let (deadline, early) = match deadline.checked_sub(check_at) {
            Some(window) if lifetime != Lifetime::FOREVER && window > 0 => {
                let early = early.surely(window);
                // The window is rounded, and where it begins must not be: it would creep on at every read.
                (check_at.saturating_add(early.window()), early)
            }
            _ => (deadline, Early::measured(early.delta())),
        };
        visit.shard.reschedule(id, deadline, early, &mut visit.now);
    }

    /// A new life, and when to load the value again.
    pub(crate) fn renew(
        &self,
        visit: &mut Visit<'_, K, V>,
        id: u32,
        lifetime: Lifetime,
        early: Early,
    ) {
        let deadline = lifetime.deadline(&mut visit.now);
        visit.shard.reschedule(id, deadline, early, &mut visit.now);
    }

    /// Changes a live value in place by code that is not the user's, keeping its deadline, and revokes
    /// the load in flight. Returns what `update` returned.
    pub(crate) fn update<Q, R>(
        &self,
        hash: KeyHash,
        namespace: &Namespace,
        key: &Q,
        update: impl FnOnce(&mut V) -> R,
    ) -> Option<R>
    where
        Q: Equivalent<K> + ?Sized,
    {
        self.visit(self.stripe(hash), |visit| {
            let scope = self.scope_in_visit(namespace);
            let found = visit
                .shard
                .lookup(hash.in_shard(), key, scope, &mut visit.now);
            let flight = visit.flights.find(hash, namespace.id, key);
            let Found::Live(id) = found else {
                // Not the flight's last owner: the table keeps it.
                drop(flight);
                return None;
            };
            visit.revoke(flight, true);
            let mut result = None;
            visit
                .shard
                .update(id, &mut visit.now, |value| result = Some(update(value)));
            result
        })
    }
}
