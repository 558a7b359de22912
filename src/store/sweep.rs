//! What touches every stripe, one after the other: clearing, iterating, trimming, reclaiming.

use super::{Capacity, Store};
use crate::flight::Flight;
use crate::generation::Namespace;
use crate::parts::policy::contract::QueueLens;
use crate::shard::Found;
use crate::sync::Arc;
use crate::time::Now;

/// How many slots one page of an iteration visits under one shared lock.
const PAGE: u32 = 64;

/// A place in the iteration over all entries, and what was found there.
pub(crate) struct Page<T> {
    stripe: usize,
    slot: u32,
    pub(crate) found: Vec<T>,
}

impl<T> Page<T> {
    pub(crate) fn first() -> Self {
        Page {
            stripe: 0,
            slot: 0,
            found: Vec::new(),
        }
    }
}

impl<K, V> Store<K, V> {
    /// Kills every entry and every load in flight of a namespace; of all of them, if it is the root.
    pub(crate) fn clear(&self, namespace: &Namespace) {
        if namespace.id != Namespace::ROOT {
            namespace.clear(&self.sequence);
            return;
        }
        // From here on every call finds every shard empty. The visits only make the counts exact.
        self.sequence.clear();
        for stripe in &self.stripes {
            self.visit(stripe, |_| ());
        }
    }

    /// Copies out the live entries of the next few slots, under the shared lock. `false`: that was all.
    pub(crate) fn next_page<T>(
        &self,
        namespace: &Namespace,
        page: &mut Page<T>,
        copy: impl Fn(&K, &V, u32) -> T,
    ) -> bool {
        page.found.clear();
        while page.found.is_empty() {
            let Some(stripe) = self.stripes.get(page.stripe) else {
                return false;
            };
            let guard = stripe.read();
            let scope = self.scope(namespace);
            let mut now = Now::new(&self.clock);
            let end = guard.shard.end();
            let until = end.min(page.slot.saturating_add(PAGE));
            for id in page.slot..until {
                let ours = guard
                    .shard
                    .entry(id)
                    .is_some_and(|entry| entry.namespace == scope.namespace);
                if !ours || !matches!(guard.shard.judge(id, scope, &mut now), Found::Live(_)) {
                    continue;
                }
                if let Some(entry) = guard.shard.entry(id) {
                    page.found
                        .push(copy(&entry.key, &entry.value, entry.version));
                }
            }
            page.slot = until;
            if until == end {
                page.stripe += 1;
                page.slot = 0;
            }
        }
        true
    }

    /// Revokes every load in flight of a namespace.
    pub(crate) fn revoke_all(&self, namespace: &Namespace) {
        for stripe in &self.stripes {
            self.visit(stripe, |visit| {
                let flights: Vec<Arc<Flight<K, V>>> = visit.flights.remove_all(namespace.id);
                visit
                    .revoked
                    .extend(flights.into_iter().map(|flight| (flight, false)));
            });
        }
    }

    /// Reclaims up to `budget` expired, dead or surplus entries; returns how many it did.
    pub(crate) fn run_pending(&self, budget: u32) -> u32 {
        let mut left = budget;
        for stripe in &self.stripes {
            if left == 0 {
                break;
            }
            let idle = {
                let guard = stripe.read();
                !guard.shard.has_work(self.clock.coarse(), &self.sequence)
                    && !guard.flights.has_failures()
            };
            if idle {
                continue;
            }
            // In slices, with the lock free between them.
            loop {
                let slice = left.min(crate::shard::SLICE);
                let (_, unused) = self.visit_with(stripe, slice, |_| ());
                left -= slice - unused;
                if unused > 0 || left == 0 {
                    break;
                }
            }
        }
        budget - left
    }

    /// Sets new bounds, and trims one slice of each shard. Later visits trim the rest.
    pub(crate) fn set_capacity(&self, capacity: Capacity) {
        let shards = self.stripes.len();
        for (number, stripe) in self.stripes.iter().enumerate() {
            let limits = capacity.slice(number, shards);
            self.visit(stripe, |visit| visit.shard.set_limits(limits));
        }
    }

    /// The smallest shard's bound on weight: what any key's shard can hold.
    pub(crate) fn smallest_slice(&self) -> u64 {
        self.stripes
            .iter()
            .map(|stripe| stripe.read().shard.limits())
            .map(|limits| {
                if limits.entries == 0 {
                    0
                } else {
                    limits.weight
                }
            })
            .min()
            .unwrap_or(0)
    }

    /// The lengths of the policy's queues, shard by shard.
    pub(crate) fn queues(&self) -> Vec<QueueLens> {
        self.stripes
            .iter()
            .map(|stripe| stripe.read().shard.queues())
            .collect()
    }
}
