//! Loads that end without a value for the cache: nothing is there, the value is the caller's alone, or it failed.

use super::{Lead, Outcome, Remembered};
use crate::entry::generation::TagSet;
use crate::entry::removal::{RemovalCause, drop_catching};
use crate::entry::stats::Count;
use crate::shard::Found;
use crate::store::Visit;
use crate::util::error::LoadError;
use crate::util::sync::Arc;

impl<K, V> Lead<K, V> {
    /// The loader found nothing. What it was to take the place of is nothing from now on, too. For so many
    /// nanoseconds, unless one of the `tags` moves, that is remembered. With `unwatched`, it names more tags than can be
    /// looked at, and one may have moved.
    pub(crate) fn absent(mut self, lasts: u64, tags: Option<Box<TagSet>>, unwatched: bool)
    where
        K: Eq,
    {
        self.count(true);
        self.visit_last(lasts == 0, |visit, mine| {
            let scope = self.store.scope_in_visit(&self.namespace);
            let hash = self.flight.hash.in_shard();
            let found = visit
                .shard
                .lookup(hash, self.flight.key(), scope, &mut visit.now);
            match found {
                Found::Live(id) if mine => {
                    visit
                        .shard
                        .remove_into(id, RemovalCause::Explicit, visit.out);
                }
                Found::Dead(id, cause) if mine => visit.shard.remove_into(id, cause, visit.out),
                _ => {}
            }
        });
        self.over = true;
        // Out of the table it gains no followers after this look at its tags. In the table it does, and what moves
        // then they see as they look again.
        let stays = lasts > 0;
        let named = tags.as_ref();
        let moved = unwatched || named.is_some_and(|tags| stays || self.is_moved(tags));
        let overtaken = moved.then_some(self.epoch);
        let outcome = Outcome::Absent { overtaken };
        if lasts == 0 {
            self.end(outcome);
            return;
        }
        let remembered = Remembered {
            by_all: self.store.clock.now().saturating_add(lasts),
            by_served: 0,
            tags,
        };
        self.end_and_stay(outcome, remembered);
    }

    /// The loader says that its value is this caller's alone.
    pub(crate) fn give_up(mut self) {
        self.count(true);
        let hash = self.flight.hash;
        let lasts = self.store.loads.uncacheable;
        self.visit_last(true, |visit, mine| {
            if mine {
                let until = visit.now.precise().saturating_add(lasts);
                visit.flights.remember_uncacheable(hash, until);
            }
        });
        self.store.counters.bump(Count::Unpublished);
        self.over = true;
        self.end(Outcome::GivenUp);
    }

    /// The loader failed. Those who waited share `error`, and so does, for the negative time to live,
    /// whoever asks next. If this caller is `served` a value all the same, those who can be are, for a while.
    pub(crate) fn failed(mut self, error: LoadError, served: bool) {
        self.count(false);
        let rules = &self.store.loads;
        let rest = if served { rules.rest } else { 0 };
        let negative = rules.negative;
        self.over = true;
        if negative == 0 && rest == 0 {
            self.visit_last(true, |_, _| ());
            self.end(Outcome::Failed(error));
            return;
        }
        let now = self.store.clock.now();
        let remembered = Remembered {
            by_all: now.saturating_add(negative),
            by_served: now.saturating_add(rest),
            tags: None,
        };
        self.end_and_stay(Outcome::Failed(error), remembered);
    }

    /// Ends the flight, which stays in the table for as long as its end is remembered.
    fn end_and_stay(&self, outcome: Outcome<V>, remembered: Remembered) {
        // Ended first: whoever finds it in the table must find how it ended.
        self.flight.end(Some(self.term), outcome, remembered).call();
        let flight = Arc::clone(&self.flight);
        let evicted = self.store.visit(self.store.stripe(flight.hash), |visit| {
            let stands = visit.flights.contains(&flight) && flight.remembered_until().is_some();
            self.note_whose(stands);
            if stands {
                visit.flights.remember(Arc::clone(&flight))
            } else {
                None
            }
        });
        drop_catching(evicted);
    }

    /// Visits the stripe, saying whether this leader still has the flight, and if it `leaves`, takes it out.
    fn visit_last(&self, leaves: bool, also: impl FnOnce(&mut Visit<'_, K, V>, bool)) {
        let removed = self
            .store
            .visit(self.store.stripe(self.flight.hash), |visit| {
                let mine = visit.flights.contains(&self.flight) && self.flight.is_led_by(self.term);
                also(visit, mine);
                if leaves {
                    self.note_whose(mine);
                }
                if mine && leaves {
                    visit.flights.remove(&self.flight)
                } else {
                    None
                }
            });
        drop_catching(removed);
    }
}
