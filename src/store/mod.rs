//! The stripes: each a lock around one shard and the flights of its keys.
//!
//! This layer picks the stripe, takes its lock, lets the shard work, and afterwards, with the lock gone,
//! counts, tells the listener, wakes waiters and drops what left. It is the only layer that locks a
//! stripe.
//!
//! # Lock order
//! A stripe, then (as leaves, one at a time) a flight's state, the bump of an epoch, the notifier's queue, the
//! capacity that was last set.
//! No thread ever holds two stripes. No user code runs under any of them, save, under a stripe, `Eq` of
//! keys and `Clone` (of values; of keys too where entries are handed out in pages).
//!
//! # Panics in user code
//! Within a critical section every `Eq` and `Clone` runs before the first change, so that a panic leaves
//! the stripe as it was. `parking_lot` locks are not poisoned.

mod get;
mod put;
mod put_fast;
mod remove;
mod scan;
mod stale;
mod tags;
mod update;

pub(crate) use get::Snapshot;
pub(crate) use put::{Inherits, Precondition, Published, PutOutcome, WriteRequest};
pub(crate) use remove::Removal;
pub(crate) use scan::Page;
pub(crate) use stale::Fallback;

use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::ds::index::MOST_ID;
use crate::entry::expiry::Lifetime;
use crate::entry::freshness::{Early, Windows};
use crate::entry::generation::{EpochCounter, Namespace, Namespaces, Tags};
use crate::entry::hash::KeyHash;
use crate::entry::removal::{Notifier, RemovalCause, RemovedBatch, RemovedEntry, drop_catching};
use crate::entry::stats::Counters;
use crate::flight::{Flight, FlightTable};
use crate::policy::any::AnyPolicy;
use crate::policy::lru::Lru;
use crate::policy::s3fifo::S3Fifo;
use crate::policy::settings::Settings;
use crate::shard::{LookupScope, MAINTENANCE_BATCH, Shard, ShardCapacity};
use crate::util::clock::{Clock, Now};
use crate::util::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::util::sync::locks::RwLockWriteGuard;
use crate::util::sync::{Arc, Locked, RwLock};

/// What 32-bit slot numbers leave room for, with some to spare for blocks and for list ends.
pub(crate) const MAX_ENTRIES_A_SHARD: u64 = (MOST_ID - 1024) as u64;
/// Told of each removal under the stripe's lock, where it happens. For checkers that must know the
/// order of removals among calls; the listener is told too late for that.
pub(crate) type Journal<K> = Box<dyn Fn(&K, RemovalCause) + Send + Sync>;

/// Makes the future that ends after a while, for tasks that wait with a deadline.
pub(crate) type Timer =
    Box<dyn Fn(Duration) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// What a store is built from.
pub(crate) struct StoreConfig<K, V> {
    pub(crate) clock: Clock,
    pub(crate) shards: usize,
    pub(crate) capacity: Capacity,
    pub(crate) weighted: bool,
    pub(crate) idle_after: Option<u64>,
    pub(crate) lru: bool,
    /// Writes never take the fast path.
    pub(crate) no_fast_path: bool,
    pub(crate) notifier: Notifier<K, V>,
    pub(crate) journal: Option<Journal<K>>,
    pub(crate) loads: LoadRules,
}

/// The rules of loading.
pub(crate) struct LoadRules {
    pub(crate) max_loads: Option<usize>,
    /// Nanoseconds after which a leader can be overtaken.
    pub(crate) load_deadline: u64,
    /// Nanoseconds after which a follower gives up.
    pub(crate) wait_deadline: u64,
    /// Nanoseconds for which a failure is remembered; zero for not at all.
    pub(crate) error_lifetime: u64,
    /// Nanoseconds for which an absence is remembered if the loader does not say; zero for not at all.
    pub(crate) negative_lifetime: u64,
    /// Nanoseconds after a write from which on a value is loaded again.
    pub(crate) refresh_after: Option<u64>,
    /// Nanoseconds for which a key is remembered as uncacheable.
    pub(crate) uncacheable: u64,
    /// How long a call of an attached loader waits: where there is something stale to serve, and at all.
    pub(crate) timeouts: Option<(u64, u64)>,
    pub(crate) timer: Option<Timer>,
    /// How early values are loaded again; zero for never.
    pub(crate) beta: f64,
    /// For how long values that say nothing of it are served past their deadlines.
    pub(crate) windows: Windows,
    /// Nanoseconds for which a source that failed is not asked again where there is a value to serve.
    pub(crate) cooldown: u64,
}

impl LoadRules {
    /// When a value that lives so long, and whose load takes `delta`, is to be loaded again.
    fn early(&self, delta: u64, lifetime: Lifetime) -> Early {
        if self.beta == 0.0 && self.refresh_after.is_none() {
            return Early::NEVER;
        }
        Early::new(delta, self.beta, self.refresh_after, lifetime.nanos())
    }
}

/// The bounds of a whole cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capacity {
    pub(crate) entries: u64,
    pub(crate) weight: u64,
}

impl Capacity {
    /// The part of shard `number` out of `shards`: equal parts, the remainder on the first ones.
    fn slice(self, number: usize, shards: usize) -> ShardCapacity {
        let part = |whole: u64| {
            let shards = shards as u64;
            whole / shards + u64::from((number as u64) < whole % shards)
        };
        ShardCapacity {
            entries: part(self.entries),
            weight: part(self.weight),
        }
    }
}

/// In this order: the shard says which of its lines the lock lies on.
#[repr(C)]
pub(crate) struct Stripe<K, V> {
    shard: Shard<K, V>,
    flights: FlightTable<K, V>,
}

/// A stripe that is held exclusively.
type Guard<'a, K, V> = Locked<RwLockWriteGuard<'a, Stripe<K, V>>>;

type Stripes<K, V> = Box<[CachePadded<RwLock<Stripe<K, V>>>]>;

pub(crate) struct Store<K, V> {
    stripes: Stripes<K, V>,
    pub(crate) clock: Clock,
    pub(crate) epochs: EpochCounter,
    pub(crate) tags: Tags,
    pub(crate) namespaces: Namespaces,
    pub(crate) counters: Counters,
    notifier: Notifier<K, V>,
    journal: Option<Journal<K>>,
    /// Hits reorder the policy's queue, so they need the lock exclusively.
    pub(crate) hit_needs_lock: bool,
    pub(crate) loads: LoadRules,
    /// Shared with each walk over the slots that is under way.
    active_scans: Arc<()>,
    pub(crate) loads_in_flight: AtomicUsize,
    /// Some value may be of use past its deadline. Set before the first such value is stored, and never unset;
    /// Relaxed, as who must find that value has heard of it by other means.
    keeps_stale: AtomicBool,
}

impl<K, V> Store<K, V> {
    pub(crate) fn new(config: StoreConfig<K, V>) -> Self {
        let now = config.clock.now();
        let stripe = |number| {
            let capacity = config.capacity.slice(number, config.shards);
            let policy = if config.lru {
                AnyPolicy::Lru(Lru::new())
            } else {
                AnyPolicy::S3Fifo(S3Fifo::new(
                    Settings::DEFAULT,
                    capacity.entries,
                    capacity.weight,
                ))
            };
            let mut shard = Shard::new(
                policy,
                capacity,
                config.weighted,
                config.idle_after,
                config.loads.windows,
                now,
            );
            if config.no_fast_path {
                shard.disable_fast_path();
            }
            CachePadded::new(RwLock::new(Stripe {
                shard,
                flights: FlightTable::new(),
            }))
        };
        Store {
            stripes: (0..config.shards).map(stripe).collect(),
            clock: config.clock,
            epochs: EpochCounter::new(),
            tags: Tags::new(),
            namespaces: Namespaces::new(),
            counters: Counters::new(),
            notifier: config.notifier,
            journal: config.journal,
            hit_needs_lock: config.lru,
            keeps_stale: AtomicBool::new(config.loads.windows.longest() > 0),
            loads: config.loads,
            active_scans: Arc::new(()),
            loads_in_flight: AtomicUsize::new(0),
        }
    }

    pub(crate) fn shards(&self) -> usize {
        self.stripes.len()
    }

    /// Whether any value may be of use past its deadline.
    pub(crate) fn keeps_stale(&self) -> bool {
        self.keeps_stale.load(Ordering::Relaxed)
    }

    /// How often the removal listener panicked.
    pub(crate) fn listener_panics(&self) -> u64 {
        self.notifier.panics()
    }

    pub(crate) fn stripe(&self, hash: KeyHash) -> &RwLock<Stripe<K, V>> {
        &self.stripes[hash.shard(self.stripes.len())]
    }

    fn scope(&self, namespace: &Namespace) -> LookupScope<'_> {
        LookupScope {
            namespace: namespace.id,
            min_epoch: namespace.min_epoch(),
            cache_min_epoch: self.epochs.min_epoch(),
            epochs: &self.epochs,
        }
    }

    /// The scope of a caller that has locked the stripe exclusively, and so noticed the last `clear` already.
    pub(crate) fn scope_when_locked(&self, namespace: &Namespace) -> LookupScope<'_> {
        LookupScope {
            cache_min_epoch: 0,
            ..self.scope(namespace)
        }
    }

    /// Runs `work` under the exclusive lock of a stripe, then a batch of maintenance. Deferred work (dropping, waking,
    /// notifying) runs after unlocking.
    pub(crate) fn with_stripe_mut<R>(
        &self,
        stripe: &RwLock<Stripe<K, V>>,
        work: impl FnOnce(&mut LockedStripe<'_, K, V>) -> R,
    ) -> R {
        self.with_stripe_budget(stripe, MAINTENANCE_BATCH, work).0
    }

    /// Runs `work` under the exclusive lock of a stripe, then maintenance within a budget of entries; returns the
    /// budget that is left.
    fn with_stripe_budget<R>(
        &self,
        stripe: &RwLock<Stripe<K, V>>,
        budget: u32,
        work: impl FnOnce(&mut LockedStripe<'_, K, V>) -> R,
    ) -> (R, u32) {
        // Declared before the guard, so that a panic under the lock drops it after it.
        let mut deferred = Deferred::new();
        let mut guard = stripe.write();
        let mut stripe = self.begin_critical(&mut guard, &mut deferred);
        let result = work(&mut stripe);
        let unused = self.end_critical(&mut stripe, budget);
        drop(guard);
        self.run_deferred(&mut deferred);
        (result, unused)
    }

    #[inline(always)]
    fn begin_critical<'a>(
        &'a self,
        stripe: &'a mut Stripe<K, V>,
        deferred: &'a mut Deferred<K, V>,
    ) -> LockedStripe<'a, K, V> {
        let Stripe { shard, flights } = stripe;
        shard.notice_clear(&self.epochs);
        LockedStripe {
            shard,
            flights,
            now: Now::new(&self.clock),
            out: &mut deferred.values,
            revoked: &mut deferred.flights,
        }
    }

    /// Ends a critical section, still under the lock, with a batch of maintenance. Returns what is left of its budget.
    #[inline(always)]
    fn end_critical(&self, stripe: &mut LockedStripe<'_, K, V>, budget: u32) -> u32 {
        let left = stripe
            .shard
            .run_maintenance(budget, &self.epochs, &mut stripe.now, stripe.out);
        if left > 0 && stripe.shard.is_fragmented() && !self.is_scanned() {
            stripe.shard.compact();
        }
        if stripe.flights.remembers() {
            forget_expired(stripe);
        }
        if self.journal.is_some() {
            self.note(stripe.out.iter());
        }
        left
    }

    /// Whether a walk is under way, for which entries must stay where they are. Certain for callers that hold a
    /// stripe exclusively: a walk that has been to that stripe held its lock before, and shared `active_scans` before
    /// that; one that has not will find what the caller leaves there.
    #[cold]
    fn is_scanned(&self) -> bool {
        Arc::strong_count(&self.active_scans) > 1
    }

    /// Writes removals to the journal, under the lock.
    fn note<'a>(&self, gone: impl Iterator<Item = &'a RemovedEntry<K, V>>)
    where
        K: 'a,
        V: 'a,
    {
        gone.for_each(|gone| self.note_one(&gone.key, gone.cause));
    }

    /// Writes one removal to the journal, under the lock.
    #[inline]
    fn note_one(&self, key: &K, cause: RemovalCause) {
        if let Some(journal) = &self.journal {
            journal(key, cause);
        }
    }

    /// Runs the work that a critical section deferred, outside the lock.
    #[inline(always)]
    fn run_deferred(&self, deferred: &mut Deferred<K, V>) {
        if !deferred.flights.is_empty() {
            self.end_revoked(std::mem::take(&mut deferred.flights));
        }
        if let Some(gone) = deferred.values.first() {
            let cause = self.count_removal(gone);
            if !self.notifier.is_indifferent() {
                self.tell(deferred.values.take_first(), cause);
            }
            if let Some(rest) = deferred.values.take_rest() {
                self.notify_rest(rest);
            }
        }
    }

    /// Tells the followers of flights that were taken out of the table.
    #[cold]
    fn end_revoked(&self, revoked: Revoked<K, V>) {
        for (flight, written) in revoked {
            flight.detach(written).call();
            drop_catching(flight);
        }
    }

    #[inline]
    fn tell(&self, gone: Option<RemovedEntry<K, V>>, cause: RemovalCause) {
        if let Some(gone) = gone {
            self.notifier.tell(gone.key, gone.value, cause);
        }
    }

    #[cold]
    fn notify_rest(&self, all: Vec<RemovedEntry<K, V>>) {
        for gone in all {
            let cause = self.count_removal(&gone);
            self.tell(Some(gone), cause);
        }
    }

    /// Counts a removal, and returns its cause: one that was evicted after its namespace had been
    /// cleared was invalidated.
    #[inline(always)]
    fn count_removal(&self, gone: &RemovedEntry<K, V>) -> RemovalCause {
        let dead = self.namespaces.with(gone.namespace, |namespace| {
            namespace.entry_removed();
            gone.epoch < namespace.min_epoch()
        });
        let cause = match (gone.cause, dead) {
            (RemovalCause::Size | RemovalCause::Expired, Some(true)) => RemovalCause::Invalidated,
            (cause, _) => cause,
        };
        self.counters.removed(cause, gone.weight);
        cause
    }

    /// Hands a removed value to the caller, having told of it.
    pub(crate) fn notify_and_return(&self, gone: RemovedEntry<K, V>) -> V {
        let cause = self.count_removal(&gone);
        self.notifier.tell_and_return(gone.key, gone.value, cause)
    }
}

/// Forgets a few failures and absences whose time is over.
#[cold]
fn forget_expired<K, V>(stripe: &mut LockedStripe<'_, K, V>) {
    let now = stripe.now.coarse();
    let forgotten = stripe.flights.forget_expired(now, 8);
    stripe
        .revoked
        .extend(forgotten.into_iter().map(|flight| (flight, false)));
}

/// Flights that were taken out of the table, and whether a write did it.
pub(crate) type Revoked<K, V> = Vec<(Arc<Flight<K, V>>, bool)>;

/// What a critical section leaves to be done after unlocking.
struct Deferred<K, V> {
    /// Values that left, to be told of and dropped.
    values: RemovedBatch<K, V>,
    flights: Revoked<K, V>,
}

impl<K, V> Deferred<K, V> {
    #[inline]
    fn new() -> Self {
        Deferred {
            values: RemovedBatch::new(),
            flights: Vec::new(),
        }
    }
}

/// A stripe that is locked exclusively, and where to put what it defers.
pub(crate) struct LockedStripe<'a, K, V> {
    pub(crate) shard: &'a mut Shard<K, V>,
    pub(crate) flights: &'a mut FlightTable<K, V>,
    pub(crate) now: Now<'a>,
    /// See [`Deferred`].
    pub(crate) out: &'a mut RemovedBatch<K, V>,
    pub(crate) revoked: &'a mut Revoked<K, V>,
}

impl<K, V> LockedStripe<'_, K, V> {
    /// Takes a flight out of the table: its leader can no longer publish.
    #[inline]
    pub(crate) fn revoke(&mut self, flight: Option<Arc<Flight<K, V>>>, written: bool) {
        if let Some(flight) = flight {
            self.revoke_one(flight, written);
        }
    }

    #[cold]
    fn revoke_one(&mut self, flight: Arc<Flight<K, V>>, written: bool) {
        // Two owners remain at most: the caller's and the leader's. Neither is dropped in here.
        flight.note_write();
        let removed = self.flights.detach(&flight);
        self.revoked.push((flight, written));
        if let Some(removed) = removed {
            self.revoked.push((removed, written));
        }
    }
}

#[cfg(any(test, debug_assertions))]
impl<K, V> Store<K, V> {
    /// Validates every shard.
    pub(crate) fn validate(&self) {
        for stripe in &self.stripes {
            let guard = stripe.write();
            guard.shard.validate();
        }
    }
}
