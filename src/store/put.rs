//! Writes: one critical section of one stripe.

use super::{Deferred, Guard, LockedStripe, Store};
use crate::entry::expiry::Lifetime;
use crate::entry::freshness::{Early, OwnWindows, RefreshPlan, smoothed};
use crate::entry::generation::{Namespace, TagSet};
use crate::entry::hash::KeyHash;
use crate::entry::header::{EntryHeader, MAX_EPOCH};
use crate::entry::removal::{RemovalCause, RemovedEntry, drop_catching};
use crate::entry::stats::Count;
use crate::entry::{Entry, EntryOptions};
use crate::flight::{Flight, WriteTurn};
use crate::shard::{Found, MAINTENANCE_BATCH, NewEntry, Outcome};
use crate::util::error::RejectReason;
use crate::util::sync::Arc;
use crate::util::sync::atomic::Ordering;

/// A value on its way into the store, with what outside code had to say about it.
pub(crate) struct WriteRequest<K, V> {
    pub(crate) key: K,
    pub(crate) value: V,
    pub(crate) lifetime: Lifetime,
    /// Its time to live was said by who wrote it, and is not the cache's.
    pub(crate) own_ttl: bool,
    pub(crate) weight: u64,
    pub(crate) tags: Option<Box<TagSet>>,
    /// How many tags it names, if they are too many: none is in `tags` then.
    pub(crate) excess_tags: usize,
    /// How long a load of it takes, if anybody knows, and its windows past its deadline.
    pub(crate) plan: RefreshPlan,
    /// What it has from the value that it takes the place of.
    pub(crate) inherits: Inherits,
}

/// What a value has from the live one that it takes the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inherits {
    Nothing,
    /// Its tags, its windows, and its deadline if its time to live is its own.
    Options,
    /// Its tags, its windows and its deadline.
    OptionsAndDeadline,
}

/// When a write applies.
pub(crate) enum Precondition<V> {
    Always,
    /// Nothing live is there; with the means to copy what is, if something is.
    Absent(fn(&V) -> V),
    /// Something live is there.
    Present,
    /// What is there is this version; `None`: nothing is.
    Version(Option<u32>),
}

/// What became of a write.
pub(crate) enum PutOutcome<K, V> {
    /// Stored, in place of this value.
    Stored(Option<V>),
    /// Not stored, and the older value, if any, is gone.
    Rejected(V, RejectReason),
    /// Another call has its turn with the key. Nothing changed.
    Busy { key: K, value: V },
    /// The precondition did not hold; nothing changed. With the value that is there, if it was asked for.
    Unmet {
        key: K,
        value: V,
        present: Option<V>,
    },
}

impl<K, V> PutOutcome<K, V> {
    pub(crate) fn unmet(key: K, value: V, present: Option<V>) -> Self {
        PutOutcome::Unmet {
            key,
            value,
            present,
        }
    }
}

/// What a write found, and whether it applies.
struct CheckedPut<K, V> {
    found: Found,
    /// The epoch that the value will carry.
    epoch: u64,
    flight: Option<Arc<Flight<K, V>>>,
    holds: bool,
    /// It holds, and another call's turn is to be waited for.
    waits: bool,
    /// A copy of what is there, if the precondition asks for one.
    copy: Option<V>,
}

/// What a write under the lock leaves to be done after it.
enum LockedOutcome<K, V> {
    /// Stored where nothing live was.
    New,
    /// Stored over this.
    Replaced(RemovedEntry<K, V>),
    Rejected(K, V, RejectReason),
    Busy(K, V),
    Unmet(K, V, Option<V>),
}

impl<K, V> Store<K, V> {
    /// Writes a value, if the precondition holds and no turn is in the way, and revokes the load in flight.
    pub(crate) fn put(
        &self,
        hash: KeyHash,
        namespace: &Namespace,
        request: WriteRequest<K, V>,
        precondition: Precondition<V>,
        turn: WriteTurn<'_, K, V>,
    ) -> PutOutcome<K, V>
    where
        K: Eq,
    {
        let guard = self.stripe(hash).write();
        self.put_locked(guard, hash, namespace, request, precondition, turn)
    }

    /// Writes a value, if the precondition holds, and revokes the load in flight. The caller has locked the stripe;
    /// this call unlocks it.
    #[inline(never)]
    pub(super) fn put_locked(
        &self,
        guard: Guard<'_, K, V>,
        hash: KeyHash,
        namespace: &Namespace,
        request: WriteRequest<K, V>,
        precondition: Precondition<V>,
        turn: WriteTurn<'_, K, V>,
    ) -> PutOutcome<K, V>
    where
        K: Eq,
    {
        // Not a closure as elsewhere. The order is the same: a panic of `Eq` or `Clone` frees the lock
        // before it drops the request or the removed entries.
        let mut deferred = Deferred::new();
        let mut guard = guard;
        let mut stripe = self.begin_critical(&mut guard, &mut deferred);
        let mut judged = self.check_locked(&mut stripe, hash, namespace, &request, &precondition);
        judged.waits = judged.holds && turn.waits_for(judged.flight.as_ref());
        let done = self.apply_locked(&mut stripe, hash, namespace, request, judged);
        self.end_critical(&mut stripe, MAINTENANCE_BATCH);
        drop(guard);
        self.run_deferred(&mut deferred);
        // All of it was taken: a drop would only look once more.
        std::mem::forget(deferred);
        match done {
            LockedOutcome::New => {
                self.counters.bump(Count::Inserts);
                PutOutcome::Stored(None)
            }
            LockedOutcome::Replaced(gone) => {
                self.counters.bump(Count::Inserts);
                PutOutcome::Stored(Some(self.notify_and_return(gone)))
            }
            LockedOutcome::Rejected(key, value, reason) => {
                self.counters.bump(Count::Rejections);
                drop_catching(key);
                PutOutcome::Rejected(value, reason)
            }
            LockedOutcome::Busy(key, value) => PutOutcome::Busy { key, value },
            LockedOutcome::Unmet(key, value, present) => PutOutcome::Unmet {
                key,
                value,
                present,
            },
        }
    }

    /// The part of a write that runs user code: it changes nothing, and borrows the request, which a panic
    /// must not drop under the lock.
    #[inline(always)]
    fn check_locked(
        &self,
        stripe: &mut LockedStripe<'_, K, V>,
        hash: KeyHash,
        namespace: &Namespace,
        request: &WriteRequest<K, V>,
        precondition: &Precondition<V>,
    ) -> CheckedPut<K, V>
    where
        K: Eq,
    {
        let key = &request.key;
        stripe.shard.prepare_to_store(hash.in_shard());
        // One place in the order of epochs: see the invariants of `generation`.
        let (found, epoch) = loop {
            let epoch = self.epochs.current();
            let scope = self.scope_when_locked(namespace);
            let found = stripe
                .shard
                .lookup(hash.in_shard(), key, scope, &mut stripe.now);
            let tags = request.tags.as_ref();
            let own_min_epoch = tags.and_then(|tags| tags.min_epochs().max()).unwrap_or(0);
            let min_epoch = stripe.shard.highest_tag_min_epoch(found).max(own_min_epoch);
            if min_epoch.max(namespace.min_epoch()) <= epoch {
                break (found, epoch);
            }
            self.epochs.wait_for_bump();
        };
        let flight = stripe.flights.find(hash, namespace.id, key);
        let present = match found {
            Found::Live(id) => stripe.shard.entry(id).map(|entry| (id, entry)),
            _ => None,
        };
        let (holds, copy) = match (precondition, present) {
            (Precondition::Always, _) => (true, None),
            (Precondition::Absent(copy), Some((_, entry))) => (false, Some(copy(&entry.value))),
            (Precondition::Absent(_), None) => (true, None),
            (Precondition::Present, there) => (there.is_some(), None),
            (Precondition::Version(version), there) => {
                let version_there = there.map(|(id, _)| stripe.shard.version(id));
                (version_there == *version, None)
            }
        };
        CheckedPut {
            found,
            epoch,
            flight,
            holds,
            waits: false,
            copy,
        }
    }

    /// The part that changes things: no user code runs in here.
    #[inline(always)]
    fn apply_locked(
        &self,
        stripe: &mut LockedStripe<'_, K, V>,
        hash: KeyHash,
        namespace: &Namespace,
        request: WriteRequest<K, V>,
        judged: CheckedPut<K, V>,
    ) -> LockedOutcome<K, V> {
        let CheckedPut { found, flight, .. } = judged;
        if !judged.holds {
            // Not the flight's last owner: the table keeps it.
            drop(flight);
            return LockedOutcome::Unmet(request.key, request.value, judged.copy);
        }
        if judged.waits {
            drop(flight);
            return LockedOutcome::Busy(request.key, request.value);
        }
        if let Some(reason) = refusal(stripe, &request, judged.epoch) {
            if let Found::Live(id) | Found::Dead(id, _) = found {
                let cause = match found {
                    Found::Dead(_, cause) => cause,
                    _ => RemovalCause::Explicit,
                };
                stripe.shard.remove_into(id, cause, stripe.out);
            }
            stripe.revoke(flight, false);
            return LockedOutcome::Rejected(request.key, request.value, reason);
        }
        stripe.revoke(flight, true);
        stripe.flights.forget_uncacheable(hash);
        self.store_locked(stripe, hash, namespace, request, judged.epoch, found)
    }

    /// Stores the value of a request, with this epoch.
    #[inline(always)]
    fn store_locked(
        &self,
        stripe: &mut LockedStripe<'_, K, V>,
        hash: KeyHash,
        namespace: &Namespace,
        request: WriteRequest<K, V>,
        epoch: u64,
        found: Found,
    ) -> LockedOutcome<K, V> {
        let mut expires_at = request.lifetime.deadline(&mut stripe.now);
        let mut plan = if request.plan == RefreshPlan::NONE && self.loads.refresh_after.is_none() {
            RefreshPlan::NONE
        } else {
            self.plan(stripe, request.plan, request.lifetime, found)
        };
        let mut tags = request.tags;
        let mut own_ttl = request.own_ttl;
        if let (Inherits::Options | Inherits::OptionsAndDeadline, Found::Live(id)) =
            (request.inherits, found)
        {
            tags = stripe.shard.take_tags(id);
            plan.windows = stripe.shard.own_windows(id);
            own_ttl = stripe.shard.has_own_ttl(id);
            let keeps_deadline = own_ttl || request.inherits == Inherits::OptionsAndDeadline;
            if let Some(entry) = stripe.shard.entry(id).filter(|_| keeps_deadline) {
                expires_at = stripe.shard.expires_by_age_at(id, entry);
                plan.early = stripe.shard.early(id);
            }
        }
        let check_at = plan.early.check_at(expires_at);
        let mut header = EntryHeader::new(hash.in_shard(), epoch, check_at, tags.is_some());
        header.set_own_ttl(own_ttl);
        let new_entry = NewEntry {
            entry: Entry {
                key: request.key,
                value: request.value,
                header,
            },
            weight: request.weight,
            tags,
            plan,
        };
        let scope = self.scope_when_locked(namespace);
        // Before the entry can be seen. What it replaces gives its place back in `count_removal`.
        namespace.entry_added();
        let outcome = stripe
            .shard
            .store(new_entry, found, scope, &mut stripe.now, stripe.out);
        match outcome {
            Outcome::Stored { replaced: None } => LockedOutcome::New,
            Outcome::Stored {
                replaced: Some((key, value, weight)),
            } => {
                let gone = RemovedEntry {
                    key,
                    value,
                    cause: RemovalCause::Replaced,
                    weight,
                    namespace: namespace.id,
                    epoch,
                };
                self.note(std::iter::once(&gone));
                LockedOutcome::Replaced(gone)
            }
            Outcome::Full(key, value) => {
                namespace.entry_removed();
                LockedOutcome::Rejected(key, value, RejectReason::NoCapacity)
            }
        }
    }

    /// The refresh plan of a value that is stored where this was found.
    #[inline(never)]
    fn plan(
        &self,
        stripe: &LockedStripe<'_, K, V>,
        plan: RefreshPlan,
        lifetime: Lifetime,
        found: Found,
    ) -> RefreshPlan {
        if plan.windows != OwnWindows::NONE {
            self.keeps_stale.store(true, Ordering::Relaxed);
        }
        RefreshPlan {
            early: self.early(stripe, plan.early.delta(), lifetime, found),
            ..plan
        }
    }

    /// When a value whose load took `delta` is to be loaded again, in the place of what was found.
    pub(crate) fn early(
        &self,
        stripe: &LockedStripe<'_, K, V>,
        delta: u64,
        lifetime: Lifetime,
        found: Found,
    ) -> Early {
        let before = match found {
            Found::Live(id) | Found::Dead(id, _) => stripe.shard.early(id),
            Found::Absent => Early::NEVER,
        };
        let delta = match delta {
            0 => 0,
            delta => smoothed(before.delta(), delta),
        };
        self.loads.early(delta, lifetime)
    }

    /// Reports a value that was replaced before anybody could see it.
    pub(crate) fn put_overtaken(
        &self,
        hash: KeyHash,
        namespace: &Namespace,
        key: K,
        value: V,
        weight: u64,
    ) {
        self.counters.bump(Count::Inserts);
        // Given back in `count_removal`.
        namespace.entry_added();
        let mut gone = Some(RemovedEntry {
            key,
            value,
            cause: RemovalCause::Replaced,
            weight,
            namespace: namespace.id,
            epoch: self.epochs.current(),
        });
        self.with_stripe_mut(self.stripe(hash), |stripe| stripe.out.extend(gone.take()));
    }

    /// Publishes a loaded value, whose epoch was taken before its loader ran. The caller has established, in this
    /// critical section, that its flight may publish. Returns whether it was stored.
    pub(crate) fn publish_locked(
        &self,
        stripe: &mut LockedStripe<'_, K, V>,
        hash: KeyHash,
        namespace: &Namespace,
        request: WriteRequest<K, V>,
        epoch: u64,
        found: Found,
    ) -> Published<K, V> {
        if refusal(stripe, &request, epoch).is_some() {
            // As with any write: what it was to take the place of is of the past.
            match found {
                Found::Live(id) => stripe
                    .shard
                    .remove_into(id, RemovalCause::Explicit, stripe.out),
                Found::Dead(id, cause) => stripe.shard.remove_into(id, cause, stripe.out),
                Found::Absent => {}
            }
            return Published::Refused(request.key, request.value);
        }
        match self.store_locked(stripe, hash, namespace, request, epoch, found) {
            LockedOutcome::New => Published::Stored(None),
            LockedOutcome::Replaced(gone) => Published::Stored(Some(gone)),
            LockedOutcome::Rejected(key, value, _)
            | LockedOutcome::Busy(key, value)
            | LockedOutcome::Unmet(key, value, _) => Published::Refused(key, value),
        }
    }
}

/// What `publish_locked` leaves to be done after the lock.
pub(crate) enum Published<K, V> {
    /// Stored, over this if something was there.
    Stored(Option<RemovedEntry<K, V>>),
    Refused(K, V),
}

/// Why the shard cannot keep the value of a request, if it cannot.
#[inline]
fn refusal<K, V>(
    stripe: &LockedStripe<'_, K, V>,
    request: &WriteRequest<K, V>,
    epoch: u64,
) -> Option<RejectReason> {
    let capacity = stripe.shard.capacity();
    if request.excess_tags > 0 {
        Some(RejectReason::TooManyTags {
            tags: request.excess_tags,
            limit: EntryOptions::MAX_TAGS,
        })
    } else if capacity.entries == 0
        || (capacity.weight == 0 && request.weight > 0)
        || epoch > MAX_EPOCH
    {
        Some(RejectReason::NoCapacity)
    } else if request.weight > capacity.weight {
        Some(RejectReason::TooHeavy {
            weight: request.weight,
            limit: capacity.weight,
        })
    } else if request.lifetime == Lifetime::NOTHING {
        Some(RejectReason::ZeroTimeToLive)
    } else {
        None
    }
}
