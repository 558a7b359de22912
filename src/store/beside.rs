//! Removing what is there beside a load that may go on.

use std::collections::HashSet;

use equivalent::Equivalent;

use super::Store;
use crate::entry::generation::Namespace;
use crate::entry::hash::KeyHash;
use crate::entry::removal::RemovalCause;
use crate::shard::Found;
use crate::util::sync::atomic::Ordering;

impl<K, V> Store<K, V> {
    /// Removes a live value and revokes the load in flight, unless one of these `leaders` leads it: that one keeps
    /// its right to publish. For a change that the load itself has made in another tier, and which kills
    /// everything but what it is about to publish.
    pub(crate) fn remove_beside<Q>(
        &self,
        hash: KeyHash,
        namespace: &Namespace,
        key: &Q,
        leaders: &HashSet<u64>,
    ) -> bool
    where
        Q: Equivalent<K> + ?Sized,
    {
        let gone = self.visit(self.stripe(hash), |visit| {
            let scope = self.scope_in_visit(namespace);
            let found = visit
                .shard
                .look(hash.in_shard(), key, scope, &mut visit.now);
            let flight = visit.flights.find(hash, namespace.id, key);
            // Relaxed: a leader sets its node before its loader runs, and whoever passes `leaders` learned them
            // from such a loader.
            let is_kept = |node: u64| leaders.contains(&node);
            let flight = flight.filter(|flight| !is_kept(flight.node().load(Ordering::Relaxed)));
            visit.revoke(flight, false);
            match found {
                Found::Live(id) => {
                    let gone = visit.shard.take(id, RemovalCause::Explicit);
                    self.note(gone.iter());
                    gone
                }
                Found::Past(id, cause) => {
                    visit.shard.unlink(id, cause, visit.out);
                    None
                }
                Found::Absent => None,
            }
        });
        gone.map(|gone| self.hand_over(gone)).is_some()
    }
}
