//! What touches every stripe, one after the other: clearing, iterating, trimming, reclaiming.

use super::{Capacity, Store};
use crate::entry::generation::Namespace;
use crate::entry::removal::RemovalCause;
use crate::flight::{Flight, FlightRef};
use crate::policy::QueueLens;
use crate::shard::{Found, Shard};
use crate::util::clock::Now;
use crate::util::sync::Arc;

/// How many slots one page of a scan looks at under one shared lock.
const PAGE: u32 = 64;
/// How many batches of one shard a call reclaims at most, whatever its budget.
const ROUNDS: u32 = 65_536;

/// A place in the iteration over all entries, and copies of what was found there. Keys and the rest lie
/// apart so that a `Clone` that panics leaves nothing to be dropped under the lock.
pub(crate) struct Page<K, V> {
    /// While this exists, no entry moves from slot to slot.
    _scan: Arc<()>,
    stripe: usize,
    slot: u32,
    keys: Vec<K>,
    /// Value and version (if versions are kept) of the key at the same place.
    rest: Vec<(V, u32)>,
}

impl<K, V> Page<K, V> {
    /// The next entry of this page, with its version.
    pub(crate) fn pop(&mut self) -> Option<(K, V, u32)> {
        // A panic may have left a key without its value.
        self.keys.truncate(self.rest.len());
        let (value, version) = self.rest.pop()?;
        Some((self.keys.pop()?, value, version))
    }
}

impl<K, V> Store<K, V> {
    /// Kills every entry and every load in flight of a namespace; of all of them, if it is the root.
    pub(crate) fn clear(&self, namespace: &Namespace) {
        if namespace.id != Namespace::ROOT {
            namespace.clear(&self.epochs);
            return;
        }
        // From here on every call finds every shard empty. Locking them only makes the counts exact.
        self.epochs.clear();
        for stripe in &self.stripes {
            self.with_stripe_mut(stripe, |_| ());
        }
    }

    /// Before the first page of a walk.
    pub(crate) fn first_page(&self) -> Page<K, V> {
        Page {
            _scan: Arc::clone(&self.active_scans),
            stripe: 0,
            slot: 0,
            keys: Vec::new(),
            rest: Vec::new(),
        }
    }

    /// Copies out the live entries of the next few slots, under the shared lock; with `stale`, also those that are
    /// stale. `false`: that was all.
    /// A slot is passed before its entry is copied, so that a panic in `Clone` repeats nothing.
    pub(crate) fn next_page(
        &self,
        namespace: &Namespace,
        page: &mut Page<K, V>,
        stale: bool,
    ) -> bool
    where
        K: Clone,
        V: Clone,
    {
        page.keys.clear();
        while page.rest.is_empty() {
            let Some(stripe) = self.stripes.get(page.stripe) else {
                return false;
            };
            let guard = stripe.read();
            let scope = self.scope(namespace);
            let mut now = Now::new(&self.clock);
            let end = guard.shard.end();
            let until = end.min(page.slot.saturating_add(PAGE));
            while page.slot < until {
                let id = page.slot;
                page.slot += 1;
                let Some(entry) = guard.shard.entry(id) else {
                    continue;
                };
                let wanted = guard.shard.namespace(id) == scope.namespace
                    && match guard.shard.check_liveness(id, entry, scope, &mut now) {
                        Found::Live(_) => true,
                        Found::Dead(id, RemovalCause::Expired) => {
                            stale && guard.shard.stale(id, &mut now).is_some()
                        }
                        _ => false,
                    };
                if wanted {
                    page.keys.push(entry.key.clone());
                    page.rest
                        .push((entry.value.clone(), guard.shard.version(id)));
                }
            }
            if until == end {
                page.stripe += 1;
                page.slot = 0;
            }
        }
        true
    }

    /// The loads in flight of a namespace, and the failures and absences that are remembered.
    pub(crate) fn flights_of(&self, namespace: &Namespace) -> Vec<FlightRef<K, V>> {
        let stripes = self.stripes.iter();
        let flights = stripes.flat_map(|stripe| stripe.read().flights.of_namespace(namespace.id));
        flights.map(FlightRef::new).collect()
    }

    /// Revokes a load if no live value is under its key. Returns `false` if the load is over and a live value is there,
    /// which it may have brought.
    pub(crate) fn revoke_unjudged(&self, flight: &Arc<Flight<K, V>>, namespace: &Namespace) -> bool
    where
        K: Eq,
    {
        self.with_stripe_mut(self.stripe(flight.hash), |stripe| {
            let scope = self.scope_when_locked(namespace);
            let hash = flight.hash.in_shard();
            let found = stripe
                .shard
                .lookup(hash, flight.key(), scope, &mut stripe.now);
            let is_there = stripe.flights.contains(flight);
            match found {
                Found::Live(_) => is_there,
                _ => {
                    if is_there && !flight.is_turn() {
                        stripe.revoke(Some(Arc::clone(flight)), false);
                    }
                    true
                }
            }
        })
    }

    /// Reclaims up to `budget` entries that are expired, dead or over the capacity; returns how many it did.
    pub(crate) fn run_pending(&self, budget: u32) -> u32 {
        let mut left = budget;
        self.forget_old_tags();
        for stripe in &self.stripes {
            if left == 0 {
                break;
            }
            let has_work = |shard: &Shard<K, V>| {
                shard.has_work(self.clock.coarse(), &self.epochs)
                    || (shard.is_fragmented() && !self.is_scanned())
            };
            let idle = {
                let guard = stripe.read();
                !has_work(&guard.shard) && !guard.flights.remembers()
            };
            if idle {
                continue;
            }
            // In batches, with the lock free between them.
            for _ in 0..ROUNDS {
                let slice = left.min(crate::shard::MAINTENANCE_BATCH);
                let (_, unused) = self.with_stripe_budget(stripe, slice, |_| ());
                left -= slice - unused;
                // A batch may have gone into moving timers that are not due yet.
                if left == 0 || (unused > 0 && !has_work(&stripe.read().shard)) {
                    break;
                }
            }
        }
        budget - left
    }

    /// Sets new bounds, asked for at each shard under its lock, and trims one batch of it. Later writes
    /// trim the rest.
    pub(crate) fn set_capacity(&self, capacity: impl Fn() -> Capacity) {
        let shards = self.stripes.len();
        for (number, stripe) in self.stripes.iter().enumerate() {
            self.with_stripe_mut(stripe, |stripe| {
                stripe.shard.set_capacity(capacity().slice(number, shards));
            });
        }
    }

    /// The smallest shard's bound on weight: what any key's shard can hold.
    pub(crate) fn smallest_slice(&self) -> u64 {
        self.stripes
            .iter()
            .map(|stripe| stripe.read().shard.capacity())
            .map(|capacity| {
                if capacity.entries == 0 {
                    0
                } else {
                    capacity.weight
                }
            })
            .min()
            .unwrap_or(0)
    }

    /// How many flights are in the tables, remembered failures included.
    pub(crate) fn flights(&self) -> usize {
        self.stripes
            .iter()
            .map(|stripe| stripe.read().flights.len())
            .sum()
    }

    /// How many callers wait for a flight in the tables.
    pub(crate) fn followers(&self) -> usize {
        let stripes = self.stripes.iter();
        stripes
            .map(|stripe| stripe.read().flights.followers())
            .sum()
    }

    /// The lengths of the policy's queues, shard by shard.
    pub(crate) fn queues(&self) -> Vec<QueueLens> {
        self.stripes
            .iter()
            .map(|stripe| stripe.read().shard.queues())
            .collect()
    }
}
