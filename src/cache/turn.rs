//! What a loading call does next, whether a thread or a task makes it.
//!
//! Each call turns the same wheel: look; on a miss join the key's flight; lead it, follow it, or (where
//! neither may be) load alone. A value that may be served though it is to be loaded again turns it, too.

use std::hash::{BuildHasher, Hash};

use equivalent::Equivalent;

use super::Cache;
use super::load::Answer;
use crate::entry::Loaded;
use crate::error::{LoadError, TryLoadError};
use crate::removal::contain_drop;
use crate::stats::StaleBy;
use crate::store::{Begin, FlightOutcome, Follow, Followed, Lead, Wish};

/// What a caller can be given.
#[derive(Clone, Copy)]
pub(super) struct Ask {
    /// An error, its own or another's. Who cannot be given one loads for itself in the end.
    pub(super) errors: bool,
    /// The news that there is nothing.
    pub(super) absence: bool,
}

impl Ask {
    pub(super) const VALUE: Ask = Ask {
        errors: false,
        absence: false,
    };
    pub(super) const OPTION: Ask = Ask {
        errors: false,
        absence: true,
    };
    pub(super) const RESULT: Ask = Ask {
        errors: true,
        absence: false,
    };
}

/// What a call does next.
pub(super) enum Turn<K, V> {
    /// Return this.
    Return(Result<Option<V>, LoadError>),
    Lead(Lead<K, V>),
    /// Load this value again, which is what to return should that fail.
    Refresh(Lead<K, V>, Fallback<V>),
    Follow(Follow<K, V>),
    /// Run the loader without a flight.
    Alone,
    /// Look again.
    Again,
}

/// Has somebody else run the attached loader for a lead.
pub(super) type Elsewhere<'a, K, V> = &'a dyn Fn(Lead<K, V>);

/// What is served should a load fail.
pub(super) enum Fallback<V> {
    /// Whose time is not up.
    Live(V),
    /// Whose time is up, for so many nanoseconds.
    Stale { value: V, by: u64 },
}

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// The first look, which counts as a read.
    pub(super) fn first_turn<Q>(&self, key: &Q, ask: Ask) -> Turn<K, V>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        V: Clone,
    {
        match self.look_up(key) {
            Some((value, true)) => self.refresh(key, value),
            Some((value, false)) => Turn::Return(Ok(Some(value))),
            None => self.join(key, ask),
        }
    }

    /// Loads a value again, unless somebody does already.
    #[cold]
    fn refresh<Q>(&self, key: &Q, current: V) -> Turn<K, V>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
    {
        let hash = self.hash(key);
        let store = &self.inner.store;
        match store.begin_refresh(hash, &self.namespace, key, key.to_owned()) {
            Some(lead) => Turn::Refresh(lead, Fallback::Live(current)),
            None => Turn::Return(Ok(Some(current))),
        }
    }

    /// A later look, after a wait that brought nothing.
    pub(super) fn next_turn<Q>(&self, key: &Q, ask: Ask) -> Turn<K, V>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        V: Clone,
    {
        match self.get_uncounted(key) {
            Some(value) => Turn::Return(Ok(Some(value))),
            None => self.join(key, ask),
        }
    }

    fn join<Q>(&self, key: &Q, ask: Ask) -> Turn<K, V>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        V: Clone,
    {
        let hash = self.hash(key);
        let store = &self.inner.store;
        if let Some(stale) = store.stale_while_loading(hash, &self.namespace, key) {
            return Turn::Return(Ok(Some(stale)));
        }
        let wish = if ask.errors {
            Wish::ValueOrError
        } else {
            Wish::Value
        };
        match store.begin(hash, &self.namespace, key, key.to_owned(), wish) {
            Begin::Hit(value) | Begin::Stale(value) => Turn::Return(Ok(Some(value))),
            Begin::Lead(lead, None) => Turn::Lead(lead),
            Begin::Lead(lead, Some((value, by))) => {
                Turn::Refresh(lead, Fallback::Stale { value, by })
            }
            Begin::Follow(follow) => Turn::Follow(follow),
            Begin::Alone => Turn::Alone,
            Begin::Failed(error) if ask.errors => Turn::Return(Err(error)),
            Begin::Failed(_) => Turn::Alone,
        }
    }

    /// What the end of a wait means for this caller.
    pub(super) fn after_wait(
        &self,
        ask: Ask,
        follow: &Follow<K, V>,
        followed: Followed<K, V>,
    ) -> Turn<K, V>
    where
        V: Clone,
    {
        let outcome = match followed {
            Followed::Over(outcome) => outcome,
            Followed::Lead(lead) => return Turn::Lead(lead),
            Followed::Again => return Turn::Again,
            Followed::TimedOut(waited) if ask.errors => {
                return self.stale_or(follow, LoadError::WaitTimedOut { waited });
            }
            Followed::TimedOut(_) => return Turn::Alone,
        };
        match &*outcome {
            // A tag of the value moved after the load began, maybe before this caller came: for this
            // caller the value may be of the past.
            FlightOutcome::Done {
                overtaken: Some(born),
                ..
            } if follow.joined() > *born => Turn::Again,
            FlightOutcome::Done { value, .. } => Turn::Return(Ok(Some(value.clone()))),
            FlightOutcome::Absent if ask.absence => Turn::Return(Ok(None)),
            FlightOutcome::Failed(error) if ask.errors => self.stale_or(follow, error.clone()),
            FlightOutcome::GivenUp => Turn::Alone,
            FlightOutcome::Absent | FlightOutcome::Failed(_) | FlightOutcome::Superseded => {
                Turn::Again
            }
        }
    }

    /// A value whose time is up but not its stale window, or else this error.
    fn stale_or(&self, follow: &Follow<K, V>, error: LoadError) -> Turn<K, V>
    where
        V: Clone,
    {
        let store = &self.inner.store;
        let flight = follow.flight();
        match store.peek_stale(flight.hash, &self.namespace, flight.key()) {
            Some((value, _)) => {
                store.counters.stale(StaleBy::Error);
                Turn::Return(Ok(Some(value)))
            }
            None => Turn::Return(Err(error)),
        }
    }

    /// Ends a flight with what its loader answered. An error keeps others from trying again for a while, if this
    /// caller is `served` all the same.
    pub(super) fn finish<E>(
        &self,
        lead: Lead<K, V>,
        answer: Result<Answer<V>, E>,
        told: impl FnOnce(&E) -> LoadError,
        served: bool,
    ) -> Result<Option<V>, TryLoadError<E>>
    where
        K: Clone,
        V: Clone,
    {
        // What the user's functions below load in turn must not wait for this load.
        let running = lead.node().enter();
        match answer {
            Ok(Some(loaded)) if loaded.cacheable => {
                let Loaded { value, options, .. } = loaded;
                // All of this is user code, and runs before the lock: should it panic, the flight is
                // abandoned like any other.
                let life = self.life_of_new(options.ttl, lead.key(), &value);
                let parcel = self.parcel(lead.key().clone(), value.clone(), options, life);
                drop(running);
                lead.done(parcel, &value);
                Ok(Some(value))
            }
            Ok(Some(loaded)) => {
                lead.give_up();
                Ok(Some(loaded.value))
            }
            Ok(None) => {
                lead.absent();
                Ok(None)
            }
            Err(error) => {
                let told = told(&error);
                drop(running);
                lead.failed(told, served);
                Err(TryLoadError::Own(error))
            }
        }
    }

    /// Ends the flight of a value that was loaded again: if that failed, what is there will do.
    pub(super) fn finish_refresh<E>(
        &self,
        lead: Lead<K, V>,
        fallback: Fallback<V>,
        answer: Result<Answer<V>, E>,
        told: impl FnOnce(&E) -> LoadError,
    ) -> Result<Option<V>, TryLoadError<E>>
    where
        K: Clone,
        V: Clone,
    {
        let result = self.finish(lead, answer, told, true);
        let counters = &self.inner.store.counters;
        match (result, fallback) {
            (Ok(answer), Fallback::Live(value) | Fallback::Stale { value, .. }) => {
                contain_drop(value);
                Ok(answer)
            }
            (Err(error), Fallback::Live(value)) => {
                contain_drop(error);
                counters.refresh_failure();
                Ok(Some(value))
            }
            (Err(error), Fallback::Stale { value, .. }) => {
                contain_drop(error);
                counters.stale(StaleBy::Error);
                Ok(Some(value))
            }
        }
    }

    /// Whether what a loading call could fall back on may be served while another load runs: then none need wait.
    pub(super) fn may_be_served_meanwhile(&self, fallback: &Fallback<V>) -> bool {
        match fallback {
            Fallback::Live(_) => true,
            Fallback::Stale { by, .. } => *by < self.inner.store.loads.stale_while_revalidate,
        }
    }

    /// What a call is served whose load runs in the background.
    pub(super) fn served_meanwhile(&self, fallback: Fallback<V>) -> V {
        match fallback {
            Fallback::Live(value) => value,
            Fallback::Stale { value, .. } => {
                self.inner.store.counters.stale(StaleBy::Load);
                value
            }
        }
    }

    /// Takes the answer of a loader that ran without a flight. Its value is not stored; if it says that
    /// it could be, the next load will be.
    pub(super) fn finish_alone<Q, E>(
        &self,
        key: &Q,
        answer: Result<Answer<V>, E>,
    ) -> Result<Option<V>, TryLoadError<E>>
    where
        Q: Hash + ?Sized,
    {
        let store = &self.inner.store;
        store.count_load(answer.is_ok());
        match answer {
            Ok(Some(loaded)) => {
                if loaded.cacheable {
                    store.forget_uncacheable(self.hash(key));
                }
                Ok(Some(loaded.value))
            }
            Ok(None) => Ok(None),
            Err(error) => Err(TryLoadError::Own(error)),
        }
    }
}
