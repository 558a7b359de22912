//! Leading a flight: the five ways in which a load ends.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

mod without_value;

use super::permit::Permit;
use crate::entry::expiry::Lifetime;
use crate::entry::freshness::{Early, RefreshPlan};
use crate::entry::generation::{Namespace, TagSet};
use crate::entry::hash::KeyHash;
use crate::entry::removal::{RemovalCause, drop_catching};
use crate::entry::stats::Count;
use crate::flight::wait_graph::Node;
use crate::flight::{Flight, Kept, Outcome, Remembered};
use crate::shard::Found;
use crate::store::{Parcel, Published, Seen, Store, Visit};
use crate::util::sync::Arc;

/// The right and the duty to load a key. Dropped without a word, it abandons the flight.
pub(crate) struct Lead<K, V> {
    pub(super) store: Arc<Store<K, V>>,
    pub(super) namespace: Arc<Namespace>,
    pub(super) flight: Kept<K, V>,
    term: u64,
    pub(super) epoch: u64,
    node: Node,
    /// When the loader began; `None` for a turn without a loader.
    since: Option<u64>,
    /// What it loads again, if that is a value whose time is not up.
    replaces: Option<Seen>,
    /// What the loader may call unchanged.
    previous: Option<V>,
    /// It runs a loader, and does not only take its turn.
    loads: bool,
    /// It counts as a load in flight.
    permitted: bool,
    over: bool,
}

/// What a publishing visit leaves to be done after the lock.
struct Landed<K, V> {
    published: Option<Published<K, V>>,
    /// See [`Outcome::Done`].
    overtaken: Option<u64>,
    removed: Option<Arc<Flight<K, V>>>,
}

impl<K, V> Lead<K, V> {
    /// For whoever has just begun the `term` of a flight, and runs a loader unless it only takes its turn.
    pub(super) fn new(
        store: &Arc<Store<K, V>>,
        namespace: Arc<Namespace>,
        flight: Kept<K, V>,
        (term, epoch): (u64, u64),
        node: Node,
        loads: bool,
    ) -> Lead<K, V> {
        Lead {
            store: Arc::clone(store),
            namespace,
            flight,
            term,
            epoch,
            node,
            since: loads.then(|| store.clock.now()),
            replaces: None,
            previous: None,
            loads,
            permitted: true,
            over: false,
        }
    }

    /// The same, of a load whose value has a live one to take the place of.
    pub(super) fn of_a_refresh(mut self, replaces: Seen) -> Self {
        self.replaces = Some(replaces);
        self
    }

    /// The same, whose loader is told what is there.
    pub(super) fn with_previous(mut self, previous: Option<V>) -> Self {
        self.previous = previous;
        self
    }

    /// What is there, or was until its time was up, for a loader that asked for it.
    pub(crate) fn previous(&self) -> Option<&V> {
        self.previous.as_ref()
    }

    pub(crate) fn take_previous(&mut self) -> Option<V> {
        self.previous.take()
    }

    pub(crate) fn is_refresh(&self) -> bool {
        self.replaces.is_some()
    }

    pub(crate) fn replaces(&self) -> Option<Seen> {
        self.replaces
    }

    pub(crate) fn hash(&self) -> KeyHash {
        self.flight.hash
    }

    pub(crate) fn key(&self) -> &K {
        self.flight.key()
    }

    /// The loader will run elsewhere, for a call that waits. Until it begins it is in flight, but no load is counted,
    /// and who brings a loader of its own takes over.
    pub(crate) fn queue(&mut self) {
        self.flight.wait_for_leader(self.term);
        self.since = None;
    }

    /// The loader that was queued begins. `false`: it need not, as another took over.
    pub(crate) fn begin_elsewhere(&mut self) -> bool {
        let begins = self.flight.leader_begins(self.term);
        if begins {
            self.since = Some(self.store.clock.now());
        }
        begins
    }

    /// The loader will begin later, or never: until then whoever has nothing to be served takes over, no load is
    /// counted, and none is in flight.
    pub(crate) fn hand_over(&mut self) {
        self.flight.wait_for_leader(self.term);
        self.since = None;
        drop(Permit(&self.store.loads_in_flight));
        self.permitted = false;
    }

    /// The loader that was handed over begins. `false`: it need not, as another took over, or may not, as too many
    /// loads are in flight.
    pub(crate) fn begin_now(&mut self) -> bool {
        let Some(permit) = self.store.take_permit() else {
            return false;
        };
        let begins = self.flight.leader_begins(self.term);
        if begins {
            // Given back when this is dropped.
            std::mem::forget(permit);
            self.permitted = true;
            self.since = Some(self.store.clock.now());
        }
        begins
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// Done: publishes the value, if the flight still may, and gives it to those who waited. The
    /// parcel's copy is for the cache; `value` stays with the caller.
    pub(crate) fn done(mut self, parcel: Parcel<K, V>, value: &V)
    where
        K: Eq,
        V: Clone,
    {
        let took = self.count(true);
        // Outside the visit: should `Eq` panic under the lock, the parcel is dropped after it.
        let mut parcel = Some(Parcel {
            plan: RefreshPlan {
                early: match parcel.plan.early.delta() {
                    0 => Early::measured(took),
                    _ => parcel.plan.early,
                },
                ..parcel.plan
            },
            ..parcel
        });
        let stripe = self.store.stripe(self.flight.hash);
        let landed = self
            .store
            .visit(stripe, |visit| self.publish_in(visit, &mut parcel));
        self.land(landed, value);
    }

    /// Done, without a new value: what was there, a copy of which is `value`, has a new life.
    pub(crate) fn unchanged(mut self, lifetime: Lifetime, value: &V)
    where
        K: Eq,
        V: Clone,
    {
        let took = self.count(true);
        let stripe = self.store.stripe(self.flight.hash);
        let landed = self
            .store
            .visit(stripe, |visit| self.renew_in(visit, lifetime, took));
        self.land(landed, value);
    }

    /// What comes after the publishing visit.
    fn land(mut self, landed: Landed<K, V>, value: &V)
    where
        V: Clone,
    {
        drop_catching(landed.removed);
        self.over = true;
        let (flight, overtaken) = (Arc::clone(&self.flight), landed.overtaken);
        // The followers first: the listener, who hears in `settle`, may take its time.
        let told = if flight.has_followers() {
            catch_unwind(AssertUnwindSafe(|| value.clone())).map(|value| {
                self.end(Outcome::Done { value, overtaken });
            })
        } else {
            Ok(())
        };
        if told.is_err() {
            self.end(Outcome::Superseded);
        }
        self.settle(landed.published);
        if let Err(panic) = told {
            resume_unwind(panic);
        }
    }

    /// The publishing visit.
    fn publish_in(
        &self,
        visit: &mut Visit<'_, K, V>,
        parcel: &mut Option<Parcel<K, V>>,
    ) -> Landed<K, V>
    where
        K: Eq,
    {
        let store = &self.store;
        let scope = store.scope_in_visit(&self.namespace);
        let hash = self.flight.hash;
        let found = visit
            .shard
            .lookup(hash.in_shard(), self.flight.key(), scope, &mut visit.now);
        let mine = visit.flights.contains(&self.flight) && self.flight.is_led_by(self.term);
        let min_epoch = visit.shard.min_epoch().max(scope.min_epoch);
        self.note_whose(mine && self.epoch >= min_epoch);
        // Read as the flight leaves the table: nobody joins it after this.
        let moved = parcel.as_ref().is_some_and(|parcel| self.has_moved(parcel));
        let overtaken = moved.then_some(self.epoch);
        let standing = mine && self.epoch >= min_epoch && !moved;
        let removed = if mine {
            visit.flights.remove(&self.flight)
        } else {
            None
        };
        let published = match parcel.take() {
            Some(parcel) if standing => {
                let published =
                    store.publish_in(visit, hash, &self.namespace, parcel, self.epoch, found);
                Some(published)
            }
            leftover => leftover.map(|parcel| Published::Refused(parcel.key, parcel.value)),
        };
        Landed {
            published,
            overtaken,
            removed,
        }
    }

    /// The visit of a load that found its value unchanged.
    fn renew_in(&self, visit: &mut Visit<'_, K, V>, lifetime: Lifetime, took: u64) -> Landed<K, V>
    where
        K: Eq,
    {
        let store = &self.store;
        let scope = store.scope_in_visit(&self.namespace);
        let hash = self.flight.hash.in_shard();
        let found = visit
            .shard
            .lookup(hash, self.flight.key(), scope, &mut visit.now);
        let mine = visit.flights.contains(&self.flight) && self.flight.is_led_by(self.term);
        let min_epoch = visit.shard.min_epoch().max(scope.min_epoch);
        self.note_whose(mine && self.epoch >= min_epoch);
        let standing = mine && self.epoch >= min_epoch;
        let removed = if mine {
            visit.flights.remove(&self.flight)
        } else {
            None
        };
        // No write came between, or the flight would not stand: what is there is what the loader was shown.
        let renewed = match found {
            Found::Live(id) | Found::Dead(id, RemovalCause::Expired) if standing => {
                if lifetime == Lifetime::NOTHING {
                    visit
                        .shard
                        .remove_into(id, RemovalCause::Explicit, visit.out);
                } else {
                    let early = store.early(visit, took, lifetime, found);
                    store.renew(visit, id, lifetime, early);
                }
                true
            }
            _ => false,
        };
        Landed {
            published: None,
            // Where nothing is there any more, its tags are not known either, and one may have moved.
            overtaken: (!renewed).then_some(self.epoch),
            removed,
        }
    }

    /// Counts a load that was revoked or overtaken before its end.
    fn note_whose(&self, mine: bool) {
        if !mine && self.loads {
            self.store.counters.detached();
        }
    }

    /// Whether a tag of the answer moved since the load was born; also said of an answer whose tags were
    /// too many to be looked up.
    fn has_moved(&self, parcel: &Parcel<K, V>) -> bool {
        let tags = parcel.tags.as_ref();
        parcel.excess_tags > 0 || tags.is_some_and(|tags| self.is_moved(tags))
    }

    fn is_moved(&self, tags: &TagSet) -> bool {
        tags.min_epochs().any(|min_epoch| min_epoch > self.epoch)
    }

    fn settle(&self, published: Option<Published<K, V>>) {
        let counters = &self.store.counters;
        match published {
            Some(Published::Stored(replaced)) => {
                counters.bump(Count::Inserts);
                if let Some(gone) = replaced {
                    drop_catching(self.store.hand_over(gone));
                }
            }
            Some(Published::Refused(key, value)) => {
                counters.bump(Count::Unpublished);
                drop_catching(key);
                drop_catching(value);
            }
            None => {}
        }
    }

    /// Counts the load, once; how long it took, in nanoseconds.
    fn count(&mut self, well: bool) -> u64 {
        let Some(since) = self.since.take() else {
            return 0;
        };
        let took = self.store.clock.now().saturating_sub(since);
        self.store.counters.add(Count::LoadNanos, took);
        self.store.count_load(well);
        took
    }

    fn end(&self, outcome: Outcome<V>) {
        self.flight
            .end(Some(self.term), outcome, Remembered::default())
            .call();
    }

    /// Leaves without a result: the flight stays, leaderless, while anybody waits.
    fn abandon(&self) {
        let (contained, wake, removed) =
            self.store
                .visit(self.store.stripe(self.flight.hash), |visit| {
                    if !visit.flights.contains(&self.flight) {
                        self.note_whose(false);
                        return (false, None, None);
                    }
                    let wake = self.flight.abandon(self.term);
                    let removed = if self.flight.is_deserted() {
                        visit.flights.remove(&self.flight)
                    } else {
                        None
                    };
                    (true, wake, removed)
                });
        drop_catching(removed);
        if let Some(wake) = wake {
            wake.call();
        }
        if !contained {
            self.end(Outcome::Superseded);
        }
    }
}

impl<K, V> Store<K, V> {
    /// Counts a loader that has run.
    pub(crate) fn count_load(&self, well: bool) {
        self.counters.bump(Count::Loads);
        if !well {
            self.counters.bump(Count::LoadFailures);
        }
    }
}

impl<K, V> Drop for Lead<K, V> {
    fn drop(&mut self) {
        drop_catching(self.previous.take());
        if !self.over {
            self.count(false);
            self.abandon();
        }
        if self.permitted {
            drop(Permit(&self.store.loads_in_flight));
        }
    }
}
