//! Loads that end without a value for the cache: nothing is there, the value is the caller's alone, or it failed.

use super::{FlightOutcome, LeaderGuard, NegativeResult};
use crate::entry::generation::TagSet;
use crate::entry::removal::{RemovalCause, drop_catching};
use crate::entry::stats::Unpublished;
use crate::shard::Found;
use crate::store::LockedStripe;
use crate::util::error::LoadError;
use crate::util::sync::Arc;

impl<K, V> LeaderGuard<K, V> {
    /// The loader found nothing. What it was to take the place of is nothing from now on, too. For so many nanoseconds,
    /// unless one of the `tags` moves, that is remembered. With `unwatched`, it names more tags than can be looked at,
    /// and one may have moved.
    pub(crate) fn absent(mut self, lasts: u64, tags: Option<Box<TagSet>>, unwatched: bool)
    where
        K: Eq,
    {
        self.end_run(true);
        self.end_locked(lasts == 0, |stripe, mine| {
            if mine {
                self.remove_older(stripe);
            }
        });
        self.over = true;
        // Out of the table it gains no followers after this look at its tags. In the table it does, and what moves
        // then they see as they look again.
        let stays = lasts > 0;
        let named = tags.as_ref();
        let moved = unwatched || named.is_some_and(|tags| stays || self.is_moved(tags));
        let overtaken = moved.then_some(self.epoch);
        let outcome = FlightOutcome::Absent { overtaken };
        if lasts == 0 {
            self.end(outcome);
            return;
        }
        let negative = NegativeResult {
            by_all: self.store.clock.now().saturating_add(lasts),
            by_served: 0,
            tags,
        };
        self.end_and_stay(outcome, negative);
    }

    /// Takes out the value that the answer is newer than.
    fn remove_older(&self, stripe: &mut LockedStripe<'_, K, V>)
    where
        K: Eq,
    {
        let scope = self.store.scope_when_locked(&self.namespace);
        let hash = self.flight.hash.in_shard();
        let found = stripe
            .shard
            .lookup(hash, self.flight.key(), scope, &mut stripe.now);
        match found {
            Found::Live(id) => stripe
                .shard
                .remove_into(id, RemovalCause::Explicit, stripe.out),
            Found::Dead(id, cause) => stripe.shard.remove_into(id, cause, stripe.out),
            Found::Absent => {}
        }
    }

    /// The loader says that its value is this caller's alone. An older value is gone all the same.
    pub(crate) fn give_up(mut self)
    where
        K: Eq,
    {
        self.end_run(true);
        let hash = self.flight.hash;
        let lasts = self.store.loads.uncacheable;
        self.end_locked(true, |stripe, mine| {
            if mine {
                self.remove_older(stripe);
                let until = stripe.now.precise().saturating_add(lasts);
                stripe.flights.remember_uncacheable(hash, until);
            }
        });
        self.store.counters.unpublished(Unpublished::Uncacheable);
        self.over = true;
        self.end(FlightOutcome::GivenUp);
    }

    /// The loader failed. Those who waited share `error`, and so does, for the error time to live,
    /// whoever asks next. If this caller is `served` a value all the same, those who can be are, for a while.
    pub(crate) fn failed(mut self, error: LoadError, served: bool) {
        self.end_run(false);
        let rules = &self.store.loads;
        let cooldown = if served { rules.cooldown } else { 0 };
        let lasts = rules.error_lifetime;
        self.over = true;
        if lasts == 0 && cooldown == 0 {
            self.end_locked(true, |_, _| ());
            self.end(FlightOutcome::Failed(error));
            return;
        }
        let now = self.store.clock.now();
        let negative = NegativeResult {
            by_all: now.saturating_add(lasts),
            by_served: now.saturating_add(cooldown),
            tags: None,
        };
        self.end_and_stay(FlightOutcome::Failed(error), negative);
    }

    /// Ends the flight, which stays in the table for as long as its end is remembered.
    fn end_and_stay(&self, outcome: FlightOutcome<V>, negative: NegativeResult) {
        // Ended first: whoever finds it in the table must find how it ended.
        self.flight.end(Some(self.term), outcome, negative).call();
        let flight = Arc::clone(&self.flight);
        let evicted = self
            .store
            .with_stripe_mut(self.store.stripe(flight.hash), |stripe| {
                let stands =
                    stripe.flights.contains(&flight) && flight.remembered_until().is_some();
                self.note_whose(stands);
                if stands {
                    stripe.flights.remember(Arc::clone(&flight))
                } else {
                    None
                }
            });
        drop_catching(evicted);
    }

    /// Runs `also` under the stripe's lock, with whether this leader still leads the flight; takes the flight out if it
    /// `leaves`.
    fn end_locked(&self, leaves: bool, also: impl FnOnce(&mut LockedStripe<'_, K, V>, bool)) {
        let removed = self
            .store
            .with_stripe_mut(self.store.stripe(self.flight.hash), |stripe| {
                let mine =
                    stripe.flights.contains(&self.flight) && self.flight.is_led_by(self.term);
                also(stripe, mine);
                if leaves {
                    self.note_whose(mine);
                }
                if mine && leaves {
                    stripe.flights.remove(&self.flight)
                } else {
                    None
                }
            });
        drop_catching(removed);
    }
}
