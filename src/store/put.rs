//! Writes: one exclusive visit to one stripe.

use super::{Guard, Left, Store, Visit};
use crate::entry::expiry::Lifetime;
use crate::entry::freshness::{Early, OwnWindows, RefreshPlan, smoothed};
use crate::entry::generation::{Namespace, TagSet};
use crate::entry::hash::KeyHash;
use crate::entry::header::{EntryHeader, MAX_EPOCH};
use crate::entry::removal::{RemovalCause, RemovedEntry, drop_catching};
use crate::entry::stats::Count;
use crate::entry::{Entry, EntryOptions};
use crate::flight::Flight;
use crate::shard::{Found, MAINTENANCE_BATCH, NewEntry, Outcome};
use crate::util::error::RejectReason;
use crate::util::sync::Arc;
use crate::util::sync::atomic::Ordering;

/// A value on its way into the store, with what outside code had to say about it.
pub(crate) struct Parcel<K, V> {
    pub(crate) key: K,
    pub(crate) value: V,
    pub(crate) lifetime: Lifetime,
    pub(crate) weight: u64,
    pub(crate) tags: Option<Box<TagSet>>,
    /// How many tags it names, if they are too many: none is in `tags` then.
    pub(crate) excess_tags: usize,
    /// How long a load of it takes, if anybody knows, and its windows past its deadline.
    pub(crate) plan: RefreshPlan,
}

/// When a write applies.
pub(crate) enum Condition<V> {
    Always,
    /// Nothing live is there; with the means to copy what is, if something is.
    Absent(fn(&V) -> V),
    /// Something live is there.
    Present,
    /// What is there is this version; `None`: nothing is.
    Version(Option<u32>),
}

/// What became of a write.
pub(crate) enum Put<K, V> {
    /// Stored, in place of this value.
    Stored(Option<V>),
    /// Not stored, and the older value, if any, is gone.
    Rejected(V, RejectReason),
    /// The condition did not hold; nothing changed. With the value that is there, if it was asked for.
    Unmet {
        key: K,
        value: V,
        present: Option<V>,
    },
}

/// What a write found, and whether it applies.
struct Judged<K, V> {
    found: Found,
    /// The number that the value will be born under.
    epoch: u64,
    flight: Option<Arc<Flight<K, V>>>,
    holds: bool,
    /// A copy of what is there, if the condition asks for one.
    copy: Option<V>,
}

/// What a write under the lock leaves to be done after it.
enum Done<K, V> {
    /// Stored where nothing live was.
    New,
    /// Stored over this.
    Replaced(RemovedEntry<K, V>),
    Rejected(K, V, RejectReason),
    Unmet(K, V, Option<V>),
}

impl<K, V> Store<K, V> {
    /// Writes a value, if the condition holds, and revokes the load in flight.
    pub(crate) fn put(
        &self,
        hash: KeyHash,
        namespace: &Namespace,
        parcel: Parcel<K, V>,
        condition: Condition<V>,
    ) -> Put<K, V>
    where
        K: Eq,
    {
        let guard = self.stripe(hash).write();
        self.put_under(guard, hash, namespace, parcel, condition)
    }

    /// The same under a stripe's lock.
    #[inline(never)]
    pub(super) fn put_under(
        &self,
        guard: Guard<'_, K, V>,
        hash: KeyHash,
        namespace: &Namespace,
        parcel: Parcel<K, V>,
        condition: Condition<V>,
    ) -> Put<K, V>
    where
        K: Eq,
    {
        // Not a closure like other visits. The order is the same: a panic of `Eq` or `Clone` frees the lock
        // before it drops the parcel or what left.
        let mut left = Left::new();
        let mut guard = guard;
        let mut visit = self.begin_visit(&mut guard, &mut left);
        let judged = self.judge_in(&mut visit, hash, namespace, &parcel, &condition);
        let done = self.apply_in(&mut visit, hash, namespace, parcel, judged);
        self.end_visit(&mut visit, MAINTENANCE_BATCH);
        drop(guard);
        self.settle(&mut left);
        // All of it was taken: a drop would only look once more.
        std::mem::forget(left);
        match done {
            Done::New => {
                self.counters.bump(Count::Inserts);
                Put::Stored(None)
            }
            Done::Replaced(gone) => {
                self.counters.bump(Count::Inserts);
                Put::Stored(Some(self.hand_over(gone)))
            }
            Done::Rejected(key, value, reason) => {
                self.counters.bump(Count::Rejections);
                drop_catching(key);
                Put::Rejected(value, reason)
            }
            Done::Unmet(key, value, present) => Put::Unmet {
                key,
                value,
                present,
            },
        }
    }

    /// The part of a write that runs user code: it changes nothing, and borrows the parcel, which a panic
    /// must not drop under the lock.
    #[inline(always)]
    fn judge_in(
        &self,
        visit: &mut Visit<'_, K, V>,
        hash: KeyHash,
        namespace: &Namespace,
        parcel: &Parcel<K, V>,
        condition: &Condition<V>,
    ) -> Judged<K, V>
    where
        K: Eq,
    {
        let key = &parcel.key;
        visit.shard.prepare_to_store(hash.in_shard());
        // One place in the sequence: see the invariants of `generation`.
        let (found, epoch) = loop {
            let epoch = self.epochs.current();
            let scope = self.scope_in_visit(namespace);
            let found = visit
                .shard
                .lookup(hash.in_shard(), key, scope, &mut visit.now);
            let tags = parcel.tags.as_ref();
            let own_min_epoch = tags.and_then(|tags| tags.min_epochs().max()).unwrap_or(0);
            let min_epoch = visit.shard.highest_tag_min_epoch(found).max(own_min_epoch);
            if min_epoch.max(namespace.min_epoch()) <= epoch {
                break (found, epoch);
            }
            self.epochs.wait_for_bump();
        };
        let flight = visit.flights.find(hash, namespace.id, key);
        let present = match found {
            Found::Live(id) => visit.shard.entry(id).map(|entry| (id, entry)),
            _ => None,
        };
        let (holds, copy) = match (condition, present) {
            (Condition::Always, _) => (true, None),
            (Condition::Absent(copy), Some((_, entry))) => (false, Some(copy(&entry.value))),
            (Condition::Absent(_), None) => (true, None),
            (Condition::Present, there) => (there.is_some(), None),
            (Condition::Version(version), there) => {
                let version_there = there.map(|(id, _)| visit.shard.version(id));
                (version_there == *version, None)
            }
        };
        Judged {
            found,
            epoch,
            flight,
            holds,
            copy,
        }
    }

    /// The part that changes things: no user code runs in here.
    #[inline(always)]
    fn apply_in(
        &self,
        visit: &mut Visit<'_, K, V>,
        hash: KeyHash,
        namespace: &Namespace,
        parcel: Parcel<K, V>,
        judged: Judged<K, V>,
    ) -> Done<K, V> {
        let Judged { found, flight, .. } = judged;
        if !judged.holds {
            // Not the flight's last owner: the table keeps it.
            drop(flight);
            return Done::Unmet(parcel.key, parcel.value, judged.copy);
        }
        if let Some(reason) = refusal(visit, &parcel, judged.epoch) {
            if let Found::Live(id) | Found::Dead(id, _) = found {
                let cause = match found {
                    Found::Dead(_, cause) => cause,
                    _ => RemovalCause::Explicit,
                };
                visit.shard.remove_into(id, cause, visit.out);
            }
            visit.revoke(flight, false);
            return Done::Rejected(parcel.key, parcel.value, reason);
        }
        visit.revoke(flight, true);
        visit.flights.forget_uncacheable(hash);
        self.store_in(visit, hash, namespace, parcel, judged.epoch, found)
    }

    /// Stores a parcel under the number `epoch`.
    #[inline(always)]
    fn store_in(
        &self,
        visit: &mut Visit<'_, K, V>,
        hash: KeyHash,
        namespace: &Namespace,
        parcel: Parcel<K, V>,
        epoch: u64,
        found: Found,
    ) -> Done<K, V> {
        let expires_at = parcel.lifetime.deadline(&mut visit.now);
        let plan = if parcel.plan == RefreshPlan::NONE && self.loads.refresh_after.is_none() {
            RefreshPlan::NONE
        } else {
            self.plan(visit, parcel.plan, parcel.lifetime, found)
        };
        let tagged = parcel.tags.is_some();
        let new_entry = NewEntry {
            entry: Entry {
                key: parcel.key,
                value: parcel.value,
                header: EntryHeader::new(
                    hash.in_shard(),
                    epoch,
                    plan.early.check_at(expires_at),
                    tagged,
                ),
            },
            weight: parcel.weight,
            tags: parcel.tags,
            plan,
        };
        let scope = self.scope_in_visit(namespace);
        // Before the entry can be seen. What it replaces gives its place back in `account`.
        namespace.entry_added();
        let outcome = visit
            .shard
            .store(new_entry, found, scope, &mut visit.now, visit.out);
        match outcome {
            Outcome::Stored { replaced: None } => Done::New,
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
                Done::Replaced(gone)
            }
            Outcome::Full(key, value) => {
                namespace.entry_removed();
                Done::Rejected(key, value, RejectReason::NoCapacity)
            }
        }
    }

    /// What becomes of a parcel's plan where this was found.
    #[inline(never)]
    fn plan(
        &self,
        visit: &Visit<'_, K, V>,
        plan: RefreshPlan,
        lifetime: Lifetime,
        found: Found,
    ) -> RefreshPlan {
        if plan.windows != OwnWindows::NONE {
            self.keeps_stale.store(true, Ordering::Relaxed);
        }
        RefreshPlan {
            early: self.early(visit, plan.early.delta(), lifetime, found),
            ..plan
        }
    }

    /// When a value whose load took `delta` is to be loaded again, in the place of what was found.
    pub(crate) fn early(
        &self,
        visit: &Visit<'_, K, V>,
        delta: u64,
        lifetime: Lifetime,
        found: Found,
    ) -> Early {
        let before = match found {
            Found::Live(id) | Found::Dead(id, _) => visit.shard.early(id),
            Found::Absent => Early::NEVER,
        };
        let delta = match delta {
            0 => 0,
            delta => smoothed(before.delta(), delta),
        };
        self.loads.early(delta, lifetime)
    }

    /// Publishes a loaded value that was born before its loader ran. The caller has established, in this
    /// visit, that its flight may publish. Returns whether it was stored.
    pub(crate) fn publish_in(
        &self,
        visit: &mut Visit<'_, K, V>,
        hash: KeyHash,
        namespace: &Namespace,
        parcel: Parcel<K, V>,
        epoch: u64,
        found: Found,
    ) -> Published<K, V> {
        if refusal(visit, &parcel, epoch).is_some() {
            // As with any write: what it was to take the place of is of the past.
            match found {
                Found::Live(id) => visit
                    .shard
                    .remove_into(id, RemovalCause::Explicit, visit.out),
                Found::Dead(id, cause) => visit.shard.remove_into(id, cause, visit.out),
                Found::Absent => {}
            }
            return Published::Refused(parcel.key, parcel.value);
        }
        match self.store_in(visit, hash, namespace, parcel, epoch, found) {
            Done::New => Published::Stored(None),
            Done::Replaced(gone) => Published::Stored(Some(gone)),
            Done::Rejected(key, value, _) | Done::Unmet(key, value, _) => {
                Published::Refused(key, value)
            }
        }
    }
}

/// What `publish_in` leaves to be done after the lock.
pub(crate) enum Published<K, V> {
    /// Stored, over this if something was there.
    Stored(Option<RemovedEntry<K, V>>),
    Refused(K, V),
}

/// Why the shard cannot keep a parcel, if it cannot.
#[inline]
fn refusal<K, V>(
    visit: &Visit<'_, K, V>,
    parcel: &Parcel<K, V>,
    epoch: u64,
) -> Option<RejectReason> {
    let limits = visit.shard.limits();
    if parcel.excess_tags > 0 {
        Some(RejectReason::TooManyTags {
            tags: parcel.excess_tags,
            limit: EntryOptions::MAX_TAGS,
        })
    } else if limits.entries == 0 || (limits.weight == 0 && parcel.weight > 0) || epoch > MAX_EPOCH
    {
        Some(RejectReason::NoCapacity)
    } else if parcel.weight > limits.weight {
        Some(RejectReason::TooHeavy {
            weight: parcel.weight,
            limit: limits.weight,
        })
    } else if parcel.lifetime == Lifetime::NOTHING {
        Some(RejectReason::ZeroTimeToLive)
    } else {
        None
    }
}
