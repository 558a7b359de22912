//! Calls of an attached loader that wait no longer than they were told: the loader runs elsewhere, goes on when
//! they have left, and its value is stored as any other.
//!
//! Such a call becomes the leader of the flight of its key only to hand that role on. From then on it is one of those
//! who wait for it: for the soft timeout if there is something stale to serve, and for the hard one in any case.

use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use super::Cache;
use super::step::LoadStep;
use crate::entry::freshness::StaleBy;
use crate::flight::wait_graph;
use crate::load::{Accepts, Follower, LeaderGuard, WaitOutcome};
use crate::store::Fallback;
use crate::util::clock::Clock;
use crate::util::error::LoadError;

/// What an attached loader is run for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum LoadReason {
    /// A value that is served meanwhile. Nobody needs to wait for it.
    Refresh,
    /// A call that waits.
    Load,
}

/// Runs an attached loader elsewhere than in the call. Returns `false` if nothing can run it.
pub(super) type Spawner<'a, K, V> = &'a (dyn Fn(LeaderGuard<K, V>, LoadReason) -> bool + Sync);

/// How long one call waits, in nanoseconds.
pub(super) struct Timeouts {
    /// If there is something to serve; [`u64::MAX`] once it has looked.
    soft: u64,
    /// At all.
    hard: u64,
    /// When it began to: a hit, which does not wait, reads no clock for it.
    began: Option<u64>,
    /// It has run the loader once, and does not run it again: a call that becomes the leader because that load failed
    /// would be handed the same failure for ever.
    ran: bool,
}

impl Timeouts {
    /// The moments at which the two are over, for a call that waits from now on at the latest.
    fn moments(&mut self, clock: &Clock) -> (u64, u64) {
        let began = *self.began.get_or_insert_with(|| clock.now());
        (
            began.saturating_add(self.soft),
            began.saturating_add(self.hard),
        )
    }

    fn timed_out(&self) -> LoadError {
        LoadError::LoadTimedOut {
            after: Duration::from_nanos(self.hard),
        }
    }
}

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// The timeouts of an attached loader's call, if the cache has any.
    pub(super) fn timeouts(&self) -> Option<Timeouts> {
        let loads = &self.inner.store.loads;
        let (soft, hard) = loads.timeouts?;
        // A loader that loads in turn keeps one of the threads. Were it to wait for another, a few such would wait for
        // each other's: it runs what it needs itself, and the call that waits for it has its timeouts.
        if wait_graph::is_loading() {
            return None;
        }
        Some(Timeouts {
            soft,
            // Past its deadline a load can be overtaken, and this call does not load again.
            hard: hard.min(loads.load_deadline),
            began: None,
            ran: false,
        })
    }

    /// Until when a call waits for another's load.
    pub(super) fn until(
        &self,
        accepts: Accepts,
        timeouts: Option<&mut Timeouts>,
        follower: &Follower<K, V>,
    ) -> u64 {
        let others = if accepts.errors {
            follower.deadline()
        } else {
            u64::MAX
        };
        let Some(timeouts) = timeouts else {
            return others;
        };
        let (soft_at, hard_at) = timeouts.moments(&self.inner.store.clock);
        // Its own load is under its own timeouts alone.
        let others = if timeouts.ran { u64::MAX } else { others };
        others.min(soft_at).min(hard_at)
    }

    /// Has the loader run elsewhere, and waits with the others.
    pub(super) fn run_elsewhere(
        &self,
        mut leader: LeaderGuard<K, V>,
        run: Spawner<'_, K, V>,
        timeouts: &mut Timeouts,
    ) -> LoadStep<K, V>
    where
        V: Clone,
    {
        let follower = leader.follow();
        leader.queue_load();
        let clock = &self.inner.store.clock;
        let (_, hard_at) = timeouts.moments(clock);
        let late = clock.now() >= hard_at;
        let first = !std::mem::replace(&mut timeouts.ran, true);
        if !late && first && run(leader, LoadReason::Load) {
            return LoadStep::Follower(follower);
        }
        self.stale_or(
            &follower,
            if late {
                timeouts.timed_out()
            } else {
                LoadError::Abandoned
            },
        )
    }

    /// What the end of a wait means for a call that may have timeouts.
    pub(super) fn after_wait_within(
        &self,
        accepts: Accepts,
        timeouts: Option<&mut Timeouts>,
        follower: Follower<K, V>,
        outcome: WaitOutcome<K, V>,
    ) -> LoadStep<K, V>
    where
        V: Clone,
    {
        match timeouts {
            Some(timeouts) => self.after_timed_wait(accepts, timeouts, follower, outcome),
            None => self.after_wait(accepts, &follower, outcome),
        }
    }

    fn after_timed_wait(
        &self,
        accepts: Accepts,
        timeouts: &mut Timeouts,
        follower: Follower<K, V>,
        outcome: WaitOutcome<K, V>,
    ) -> LoadStep<K, V>
    where
        V: Clone,
    {
        let store = &self.inner.store;
        let (soft_at, hard_at) = timeouts.moments(&store.clock);
        let now = store.clock.now();
        match outcome {
            WaitOutcome::TimedOut(_) if now >= hard_at => {
                self.stale_or(&follower, timeouts.timed_out())
            }
            WaitOutcome::TimedOut(_) if now >= soft_at => {
                timeouts.soft = u64::MAX;
                let flight = follower.flight();
                let key = flight.key();
                match store.fallback_for_error(flight.hash, &self.namespace, key, false) {
                    Some((value, fallback)) => {
                        if matches!(fallback, Fallback::Stale) {
                            store.counters.stale(StaleBy::Load);
                        }
                        LoadStep::Return(Ok(Some(value)))
                    }
                    None => LoadStep::Follower(follower),
                }
            }
            outcome => {
                // A load that another call revoked is no failure of its loader.
                timeouts.ran &= matches!(outcome, WaitOutcome::Leader(_));
                self.after_wait(accepts, &follower, outcome)
            }
        }
    }
}
