//! Calls of an attached loader that wait no longer than they were told: the loader runs elsewhere, goes on when
//! they have left, and its value is stored as any other.
//!
//! Such a call leads the flight of its key only to hand the lead on. From then on it is one of those who wait for it:
//! for the soft timeout if there is something stale to serve, and for the hard one in any case.

use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use super::Cache;
use super::step::Turn;
use crate::entry::freshness::StaleBy;
use crate::flight::wait_graph;
use crate::load::{Ask, Follow, Followed, Lead};
use crate::store::Instead;
use crate::util::clock::Clock;
use crate::util::error::LoadError;

/// What an attached loader is run for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Errand {
    /// A value that is served meanwhile. Nobody needs to wait for it.
    Refresh,
    /// A call that waits.
    Load,
}

/// Has an attached loader run where the call itself is not. `false`: nobody can.
pub(super) type Run<'a, K, V> = &'a (dyn Fn(Lead<K, V>, Errand) -> bool + Sync);

/// How long one call waits, in nanoseconds.
pub(super) struct Limits {
    /// If there is something to serve; [`u64::MAX`] once it has looked.
    soft: u64,
    /// At all.
    hard: u64,
    /// When it began to: a hit, which does not wait, reads no clock for it.
    began: Option<u64>,
    /// It has had the loader run once, and does not again: who takes the lead over because that came to nothing would
    /// be handed the same failure for ever.
    ran: bool,
}

impl Limits {
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
    /// The limits of an attached loader's call, if the cache has any.
    pub(super) fn limits(&self) -> Option<Limits> {
        let loads = &self.inner.store.loads;
        let (soft, hard) = loads.timeouts?;
        // A loader that loads in turn keeps one of the threads. Were it to wait for another, a few such would wait for
        // each other's: it runs what it needs itself, and the call that waits for it has its timeouts.
        if wait_graph::is_loading() {
            return None;
        }
        Some(Limits {
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
        ask: Ask,
        limits: Option<&mut Limits>,
        follow: &Follow<K, V>,
    ) -> u64 {
        let others = if ask.errors {
            follow.deadline()
        } else {
            u64::MAX
        };
        let Some(limits) = limits else { return others };
        let (soft_at, hard_at) = limits.moments(&self.inner.store.clock);
        // Its own load is under its own timeouts alone.
        let others = if limits.ran { u64::MAX } else { others };
        others.min(soft_at).min(hard_at)
    }

    /// Has the loader run elsewhere, and waits with the others.
    pub(super) fn hand_out(
        &self,
        mut lead: Lead<K, V>,
        run: Run<'_, K, V>,
        limits: &mut Limits,
    ) -> Turn<K, V>
    where
        V: Clone,
    {
        let follow = lead.follow();
        lead.queue();
        let clock = &self.inner.store.clock;
        let (_, hard_at) = limits.moments(clock);
        let late = clock.now() >= hard_at;
        let first = !std::mem::replace(&mut limits.ran, true);
        if !late && first && run(lead, Errand::Load) {
            return Turn::Follow(follow);
        }
        self.stale_or(
            &follow,
            if late {
                limits.timed_out()
            } else {
                LoadError::Abandoned
            },
        )
    }

    /// What the end of a wait means for a call that may have limits.
    pub(super) fn after_wait_within(
        &self,
        ask: Ask,
        limits: Option<&mut Limits>,
        follow: Follow<K, V>,
        followed: Followed<K, V>,
    ) -> Turn<K, V>
    where
        V: Clone,
    {
        match limits {
            Some(limits) => self.after_limited_wait(ask, limits, follow, followed),
            None => self.after_wait(ask, &follow, followed),
        }
    }

    fn after_limited_wait(
        &self,
        ask: Ask,
        limits: &mut Limits,
        follow: Follow<K, V>,
        followed: Followed<K, V>,
    ) -> Turn<K, V>
    where
        V: Clone,
    {
        let store = &self.inner.store;
        let (soft_at, hard_at) = limits.moments(&store.clock);
        let now = store.clock.now();
        match followed {
            Followed::TimedOut(_) if now >= hard_at => self.stale_or(&follow, limits.timed_out()),
            Followed::TimedOut(_) if now >= soft_at => {
                limits.soft = u64::MAX;
                let flight = follow.flight();
                let key = flight.key();
                match store.instead_of_error(flight.hash, &self.namespace, key, false) {
                    Some((value, instead)) => {
                        if matches!(instead, Instead::Stale) {
                            store.counters.stale(StaleBy::Load);
                        }
                        Turn::Return(Ok(Some(value)))
                    }
                    None => Turn::Follow(follow),
                }
            }
            followed => {
                // A load that another call revoked came to nothing for no fault of whoever ran it.
                limits.ran &= matches!(followed, Followed::Lead(_));
                self.after_wait(ask, &follow, followed)
            }
        }
    }
}
