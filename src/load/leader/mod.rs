//! Leading a flight: the six ways in which a load ends.

mod without_value;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::permit::Permit;
use crate::entry::expiry::Lifetime;
use crate::entry::freshness::{Early, RefreshPlan};
use crate::entry::generation::{Namespace, TagSet};
use crate::entry::hash::KeyHash;
use crate::entry::removal::{RemovalCause, drop_catching};
use crate::entry::stats::{Count, Unpublished};
use crate::flight::wait_graph::LoadId;
use crate::flight::{Flight, FlightOutcome, FlightRef, NegativeResult, WriteTurn};
use crate::shard::Found;
use crate::store::{LockedStripe, Published, Snapshot, Store, WriteRequest};
use crate::util::sync::Arc;

/// The right and the duty to load a key. Dropped without a word, it abandons the flight.
pub(crate) struct LeaderGuard<K, V> {
    pub(super) store: Arc<Store<K, V>>,
    pub(super) namespace: Arc<Namespace>,
    pub(super) flight: FlightRef<K, V>,
    term: u64,
    pub(super) epoch: u64,
    load_id: LoadId,
    /// When the loader began; `None` for a turn without a loader.
    since: Option<u64>,
    /// What it loads again, if that is a value whose time is not up.
    replaces: Option<Snapshot>,
    /// What the loader may call unchanged.
    previous: Option<V>,
    /// It runs a loader, and does not only take its turn.
    loads: bool,
    /// It counts as a load in flight: a turn does not.
    permitted: bool,
    over: bool,
}

/// What publishing leaves to be done after unlocking.
struct PublishOutcome<K, V> {
    published: Option<Published<K, V>>,
    /// Why the leader was not allowed to publish, if it was not.
    because: Option<Unpublished>,
    /// See [`FlightOutcome::Done`].
    overtaken: Option<u64>,
    removed: Option<Arc<Flight<K, V>>>,
}

impl<K, V> LeaderGuard<K, V> {
    /// The leader that has just begun the `term` of a flight. It runs a loader, unless `loads` is false.
    pub(super) fn new(
        store: &Arc<Store<K, V>>,
        namespace: Arc<Namespace>,
        flight: FlightRef<K, V>,
        (term, epoch): (u64, u64),
        load_id: LoadId,
        loads: bool,
    ) -> LeaderGuard<K, V> {
        LeaderGuard {
            store: Arc::clone(store),
            namespace,
            flight,
            term,
            epoch,
            load_id,
            since: loads.then(|| store.clock.now()),
            replaces: None,
            previous: None,
            loads,
            permitted: loads,
            over: false,
        }
    }

    /// Marks the load as a refresh of this live value.
    pub(super) fn of_a_refresh(mut self, replaces: Snapshot) -> Self {
        self.replaces = Some(replaces);
        self
    }

    /// Hands the loader the previous value.
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

    pub(crate) fn replaces(&self) -> Option<Snapshot> {
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
    pub(crate) fn queue_load(&mut self) {
        self.flight.wait_for_leader(self.term);
        self.since = None;
    }

    /// The loader that was queued begins. `false`: it need not, as another took over; or, where others are `pressing`,
    /// as whoever waited for it has left.
    pub(crate) fn begin_queued_load(&mut self, pressing: bool) -> bool {
        if pressing && self.flight.followers() == 0 {
            return false;
        }
        let begins = self.flight.leader_begins(self.term);
        if begins {
            self.since = Some(self.store.clock.now());
        }
        begins
    }

    /// The loader will begin later, or never: until then whoever has nothing to be served takes over, no load is
    /// counted, and none is in flight.
    pub(crate) fn queue_refresh(&mut self) {
        self.flight.wait_for_leader(self.term);
        self.since = None;
        drop(Permit(&self.store.loads_in_flight));
        self.permitted = false;
    }

    /// The loader that was handed over begins. `false`: it need not, as another took over, or may not, as too many
    /// loads are in flight.
    pub(crate) fn begin_queued_refresh(&mut self) -> bool {
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

    /// The turn that this leader has, if it runs no loader.
    pub(crate) fn turn(&self) -> WriteTurn<'_, K, V> {
        WriteTurn::Has(&self.flight, self.term)
    }

    /// Whether the flight is in the table, and this leader leads it.
    pub(crate) fn stands(&self) -> bool {
        let stripe = self.store.stripe(self.flight.hash);
        self.store.with_stripe_mut(stripe, |stripe| {
            stripe.flights.contains(&self.flight) && self.flight.is_led_by(self.term)
        })
    }

    /// Whether the code that ran during this leader's turn has written the key itself.
    pub(crate) fn has_written_own_key(&self) -> bool {
        self.flight.has_written_own_key()
    }

    /// The load is part of a larger one, by whose id the wait graph knows it from here on.
    pub(crate) fn runs_as(&self, load_id: &LoadId) {
        self.flight.set_leader_id(load_id.id());
    }

    pub(crate) fn load_id(&self) -> &LoadId {
        &self.load_id
    }

    /// Done: publishes the value, if the flight still may, and gives it to those who waited. The
    /// copy in the request is for the cache; `value` stays with the caller.
    pub(crate) fn done(mut self, request: WriteRequest<K, V>, value: &V)
    where
        K: Eq,
        V: Clone,
    {
        let took = self.end_run(true);
        // Outside the critical section: should `Eq` panic under the lock, the request is dropped after it.
        let mut request = Some(WriteRequest {
            plan: RefreshPlan {
                early: match request.plan.early.delta() {
                    0 => Early::measured(took),
                    _ => request.plan.early,
                },
                ..request.plan
            },
            ..request
        });
        let stripe = self.store.stripe(self.flight.hash);
        let outcome = self
            .store
            .with_stripe_mut(stripe, |stripe| self.publish_locked(stripe, &mut request));
        self.finish_publishing(outcome, value);
    }

    /// Done, without a new value: what was there, a copy of which is `value`, has a new life, which the answer itself
    /// named if it is its `own`.
    pub(crate) fn unchanged(mut self, lifetime: Lifetime, own: bool, value: &V)
    where
        K: Eq,
        V: Clone,
    {
        let took = self.end_run(true);
        let stripe = self.store.stripe(self.flight.hash);
        let outcome = self.store.with_stripe_mut(stripe, |stripe| {
            self.renew_locked(stripe, (lifetime, own), took)
        });
        self.finish_publishing(outcome, value);
    }

    /// Tells the followers and the listener, after unlocking.
    fn finish_publishing(mut self, outcome: PublishOutcome<K, V>, value: &V)
    where
        V: Clone,
    {
        drop_catching(outcome.removed);
        self.over = true;
        let (flight, overtaken) = (Arc::clone(&self.flight), outcome.overtaken);
        // The followers first: the listener, which `report_published` calls, may take its time.
        let told = if flight.followers() > 0 {
            catch_unwind(AssertUnwindSafe(|| value.clone())).map(|value| {
                self.end(FlightOutcome::Done { value, overtaken });
            })
        } else {
            Ok(())
        };
        if told.is_err() {
            self.end(FlightOutcome::Superseded);
        }
        self.report_published(outcome.published, outcome.because);
        if let Err(panic) = told {
            resume_unwind(panic);
        }
    }

    /// Publishes under the lock, if the flight still may.
    fn publish_locked(
        &self,
        stripe: &mut LockedStripe<'_, K, V>,
        request: &mut Option<WriteRequest<K, V>>,
    ) -> PublishOutcome<K, V>
    where
        K: Eq,
    {
        let store = &self.store;
        let scope = store.scope_when_locked(&self.namespace);
        let hash = self.flight.hash;
        let found = stripe
            .shard
            .lookup(hash.in_shard(), self.flight.key(), scope, &mut stripe.now);
        let mine = stripe.flights.contains(&self.flight) && self.flight.is_led_by(self.term);
        let min_epoch = stripe.shard.min_epoch().max(scope.min_epoch);
        self.note_whose(mine && self.epoch >= min_epoch);
        // Read as the flight leaves the table: nobody joins it after this.
        let moved = request
            .as_ref()
            .is_some_and(|request| self.has_moved(request));
        let overtaken = moved.then_some(self.epoch);
        let because = if !mine {
            Some(Unpublished::Revoked)
        } else if self.epoch < min_epoch {
            Some(Unpublished::Invalidated)
        } else {
            let tags = request.as_ref().and_then(|request| request.tags.as_deref());
            moved.then(|| self.why_moved(tags))
        };
        let removed = if mine {
            stripe.flights.remove(&self.flight)
        } else {
            None
        };
        let published = match request.take() {
            Some(request) if because.is_none() => {
                let published =
                    store.publish_locked(stripe, hash, &self.namespace, request, self.epoch, found);
                Some(published)
            }
            leftover => leftover.map(|request| Published::Refused(request.key, request.value)),
        };
        PublishOutcome {
            published,
            because,
            overtaken,
            removed,
        }
    }

    /// Renews, under the lock, the value that a load found unchanged.
    fn renew_locked(
        &self,
        stripe: &mut LockedStripe<'_, K, V>,
        (lifetime, own): (Lifetime, bool),
        took: u64,
    ) -> PublishOutcome<K, V>
    where
        K: Eq,
    {
        let store = &self.store;
        let scope = store.scope_when_locked(&self.namespace);
        let hash = self.flight.hash.in_shard();
        let found = stripe
            .shard
            .lookup(hash, self.flight.key(), scope, &mut stripe.now);
        let mine = stripe.flights.contains(&self.flight) && self.flight.is_led_by(self.term);
        let min_epoch = stripe.shard.min_epoch().max(scope.min_epoch);
        self.note_whose(mine && self.epoch >= min_epoch);
        let standing = mine && self.epoch >= min_epoch;
        let removed = if mine {
            stripe.flights.remove(&self.flight)
        } else {
            None
        };
        // No write came between, or the flight would be revoked: what is there is what the loader was shown.
        let renewed = match found {
            Found::Live(id) | Found::Dead(id, RemovalCause::Expired) if standing => {
                if lifetime == Lifetime::NOTHING {
                    stripe
                        .shard
                        .remove_into(id, RemovalCause::Explicit, stripe.out);
                } else {
                    let early = store.early(stripe, took, lifetime, found);
                    store.renew(stripe, id, lifetime, early);
                    stripe.shard.set_own_ttl(id, own);
                    stripe.shard.note_use(id);
                }
                true
            }
            _ => false,
        };
        PublishOutcome {
            published: None,
            because: None,
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

    /// Whether a tag of the answer moved since the load began; also said of an answer whose tags were
    /// too many to be looked up.
    fn has_moved(&self, request: &WriteRequest<K, V>) -> bool {
        let tags = request.tags.as_ref();
        request.excess_tags > 0 || tags.is_some_and(|tags| self.is_moved(tags))
    }

    fn is_moved(&self, tags: &TagSet) -> bool {
        tags.min_epochs().any(|min_epoch| min_epoch > self.epoch)
    }

    /// Why an answer with these tags, which moved, is not stored; `None`: they are too many.
    fn why_moved(&self, tags: Option<&TagSet>) -> Unpublished {
        match tags {
            None => Unpublished::Refused,
            Some(tags) if self.store.tags.gave_up(tags, self.epoch) => Unpublished::TagsGivenUp,
            Some(_) => Unpublished::Invalidated,
        }
    }

    fn report_published(&self, published: Option<Published<K, V>>, because: Option<Unpublished>) {
        let counters = &self.store.counters;
        match published {
            Some(Published::Stored(replaced)) => {
                counters.bump(Count::Inserts);
                if let Some(gone) = replaced {
                    drop_catching(self.store.notify_and_return(gone));
                }
            }
            Some(Published::Refused(key, value)) => {
                counters.unpublished(because.unwrap_or(Unpublished::Refused));
                drop_catching(key);
                drop_catching(value);
            }
            None => {}
        }
    }

    /// The loader has run: it is no load in flight any more, from before anybody is woken who may begin another.
    /// Counts it, once, and returns how long it took, in nanoseconds.
    fn end_run(&mut self, well: bool) -> u64 {
        if std::mem::take(&mut self.permitted) {
            drop(Permit(&self.store.loads_in_flight));
        }
        let Some(since) = self.since.take() else {
            return 0;
        };
        let took = self.store.clock.now().saturating_sub(since);
        self.store.counters.add(Count::LoadNanos, took);
        self.store.count_load(well);
        took
    }

    fn end(&self, outcome: FlightOutcome<V>) {
        self.flight
            .end(Some(self.term), outcome, NegativeResult::default())
            .call();
    }

    /// Leaves without a result: the flight stays, leaderless, while anybody waits.
    fn abandon(&self) {
        let (contained, wake, removed) =
            self.store
                .with_stripe_mut(self.store.stripe(self.flight.hash), |stripe| {
                    if !stripe.flights.contains(&self.flight) {
                        self.note_whose(false);
                        return (false, None, None);
                    }
                    let wake = self.flight.abandon(self.term);
                    let removed = if self.flight.is_deserted() {
                        stripe.flights.remove(&self.flight)
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
            self.end(FlightOutcome::Superseded);
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

impl<K, V> Drop for LeaderGuard<K, V> {
    fn drop(&mut self) {
        drop_catching(self.previous.take());
        if !self.over {
            self.end_run(false);
            self.abandon();
        }
    }
}
