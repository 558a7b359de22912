//! What a loading call does next, whether a thread or a task makes it.
//!
//! Each call turns the same wheel: look; on a miss join the key's flight; lead it, follow it, or (where
//! neither may be) load alone. A value that may be served though it is to be loaded again turns it, too.

use std::hash::{BuildHasher, Hash};

use equivalent::Equivalent;

use super::Cache;
use crate::entry::expiry::Lifetime;
use crate::entry::freshness::StaleBy;
use crate::entry::removal::drop_catching;
use crate::entry::{EntryOptions, Loaded, Ttl, What};
use crate::flight::Outcome;
use crate::load::{Ask, Begin, Follow, Followed, Lead, Wish};
use crate::store::Instead;
use crate::util::clock::nanos;
use crate::util::error::{LoadError, TryLoadError};

impl Ask {
    pub(super) const VALUE: Ask = Ask {
        errors: false,
        absence: false,
        previous: false,
        queues: false,
    };
    pub(super) const OPTION: Ask = Ask {
        absence: true,
        ..Ask::VALUE
    };
    pub(super) const RESULT: Ask = Ask {
        errors: true,
        ..Ask::VALUE
    };
    pub(super) const EVERYTHING: Ask = Ask {
        errors: true,
        ..Ask::OPTION
    };

    /// For a loader that is given what is there.
    pub(super) fn with_previous(self, previous: bool) -> Ask {
        Ask { previous, ..self }
    }

    /// For a call that has its loader run elsewhere.
    pub(super) fn queueing(self, queues: bool) -> Ask {
        Ask { queues, ..self }
    }

    /// What a caller is told of an absence.
    fn of_absence<V>(self) -> Result<Option<V>, LoadError> {
        if self.absence {
            Ok(None)
        } else {
            Err(LoadError::Absent)
        }
    }
}

/// What a call does next.
pub(super) enum Turn<K, V> {
    /// Return this.
    Return(Result<Option<V>, LoadError>),
    Lead(Lead<K, V>),
    /// Load this value again; it may be served meanwhile.
    Refresh(Lead<K, V>, Served<V>),
    Follow(Follow<K, V>),
    /// Run the loader without a flight.
    Alone,
    /// Look again.
    Again,
}

/// What a call may be served while its load is under way.
pub(super) enum Served<V> {
    /// Whose time is not up.
    Live(V),
    /// Whose time is up.
    Stale(V),
}

/// What a load is for, as its span says.
pub(super) fn why<K, V>(lead: &Lead<K, V>) -> &'static str {
    if lead.is_refresh() { "refresh" } else { "miss" }
}

/// A loader's answer; one that calls unchanged what it was not given is a failure.
pub(super) fn unless_nothing_is_unchanged<V, E>(
    answer: Result<Loaded<V>, E>,
    has_previous: bool,
) -> Result<Loaded<V>, TryLoadError<E>> {
    match answer {
        Ok(answer) if !has_previous && matches!(answer.what, What::Unchanged) => {
            Err(TryLoadError::Shared(LoadError::NoPrevious))
        }
        answer => answer.map_err(TryLoadError::Own),
    }
}

impl<V> Served<V> {
    /// Lets go of it, as nobody is served it.
    pub(super) fn drop_unused(self) {
        let (Served::Live(value) | Served::Stale(value)) = self;
        drop_catching(value);
    }
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
            Some((value, true)) => self.refresh(key, value, ask),
            Some((value, false)) => Turn::Return(Ok(Some(value))),
            None => self.join(key, ask),
        }
    }

    /// Loads a value again, unless somebody does already.
    #[cold]
    fn refresh<Q>(&self, key: &Q, current: V, ask: Ask) -> Turn<K, V>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        V: Clone,
    {
        let hash = self.hash(key);
        let store = &self.inner.store;
        match store.begin_refresh(hash, &self.namespace, key, key.to_owned(), ask) {
            Some(lead) => Turn::Refresh(lead, Served::Live(current)),
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
        if let Some(stale) = store.stale_at_once(hash, &self.namespace, key, ask.errors) {
            return Turn::Return(Ok(Some(stale)));
        }
        match store.begin(hash, &self.namespace, key, key.to_owned(), Wish::Value(ask)) {
            Begin::Hit(value) | Begin::Stale(value) => Turn::Return(Ok(Some(value))),
            Begin::Lead(lead, None) => Turn::Lead(lead),
            Begin::Lead(lead, Some(stale)) => Turn::Refresh(lead, Served::Stale(stale)),
            Begin::Follow(follow) => Turn::Follow(follow),
            Begin::Alone => Turn::Alone,
            Begin::Failed(error) if ask.errors => Turn::Return(Err(error)),
            Begin::Failed(_) => Turn::Alone,
            Begin::Absent => Turn::Return(ask.of_absence()),
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
            Outcome::Done {
                overtaken: Some(epoch),
                ..
            }
            | Outcome::Absent {
                overtaken: Some(epoch),
            } if follow.joined() > *epoch => Turn::Again,
            Outcome::Done { value, .. } => Turn::Return(Ok(Some(value.clone()))),
            Outcome::Absent { .. } if ask.absence || ask.errors => Turn::Return(ask.of_absence()),
            Outcome::Failed(error) if ask.errors => self.stale_or(follow, error.clone()),
            Outcome::GivenUp => Turn::Alone,
            Outcome::Absent { .. } | Outcome::Failed(_) | Outcome::Superseded => Turn::Again,
        }
    }

    /// A value to serve instead of an error, if there is one, or else this error.
    pub(super) fn stale_or(&self, follow: &Follow<K, V>, error: LoadError) -> Turn<K, V>
    where
        V: Clone,
    {
        let (store, flight) = (&self.inner.store, follow.flight());
        let instead = store.instead_of_error(flight.hash, &self.namespace, flight.key(), false);
        Turn::Return(match instead {
            Some((value, instead)) => {
                self.count_served(instead);
                Ok(Some(value))
            }
            None => Err(error),
        })
    }

    fn count_served(&self, instead: Instead) {
        let counters = &self.inner.store.counters;
        match instead {
            Instead::Live => counters.refresh_failure(),
            Instead::Stale => counters.stale(StaleBy::Error),
        }
    }

    /// Ends a flight with what its loader answered. If that is an error and there is something to serve all the
    /// same, it is what comes back (and is counted, if it is `heard` by anybody), and the source rests.
    pub(super) fn finish<E>(
        &self,
        lead: Lead<K, V>,
        answer: Result<Loaded<V>, E>,
        told: impl FnOnce(&E) -> LoadError,
        heard: bool,
    ) -> Result<Option<V>, TryLoadError<E>>
    where
        K: Clone,
        V: Clone,
    {
        match unless_nothing_is_unchanged(answer, lead.previous().is_some()) {
            Ok(Loaded { what, options }) => Ok(self.take_in(lead, what, options)),
            Err(failure) => self.take_failure(lead, failure, told, heard),
        }
    }

    fn take_failure<E>(
        &self,
        lead: Lead<K, V>,
        failure: TryLoadError<E>,
        told: impl FnOnce(&E) -> LoadError,
        heard: bool,
    ) -> Result<Option<V>, TryLoadError<E>>
    where
        V: Clone,
    {
        // What the user's functions below load in turn must not wait for this load.
        let running = lead.node().enter();
        let told = match &failure {
            TryLoadError::Own(error) => told(error),
            TryLoadError::Shared(error) => error.clone(),
        };
        // Looked for now: what it was to replace may have been removed meanwhile.
        let (store, refresh) = (&self.inner.store, lead.is_refresh());
        let instead = store.instead_of_error(lead.hash(), &self.namespace, lead.key(), refresh);
        drop(running);
        lead.failed(told, instead.is_some());
        let Some((value, instead)) = instead else {
            return Err(failure);
        };
        drop_catching(failure);
        if heard {
            self.count_served(instead);
        }
        Ok(Some(value))
    }

    /// Ends a flight whose loader answered.
    fn take_in(&self, mut lead: Lead<K, V>, what: What<V>, options: EntryOptions) -> Option<V>
    where
        K: Clone,
        V: Clone,
    {
        // Most of what is called before the flight ends is user code, and runs before the lock: should it panic, the
        // flight is abandoned like any other. What it loads in turn must not wait for this load.
        let running = lead.node().enter();
        match what {
            What::Value(value) => {
                let lifetime = self.lifetime_of_loaded(options.ttl, &lead, &value);
                let parcel = self.parcel(lead.key().clone(), value.clone(), options, lifetime);
                drop(running);
                lead.done(parcel, &value);
                Some(value)
            }
            What::Uncacheable(value) => {
                drop(running);
                lead.give_up();
                Some(value)
            }
            What::Absent => {
                let lasts = match options.ttl {
                    Ttl::Default => self.inner.store.loads.absent,
                    Ttl::For(time) => nanos(time),
                    Ttl::Forever => u64::MAX,
                };
                let (tags, excess) = self.tags(&options.tags);
                drop(running);
                // Too many to be watched: nothing is remembered.
                lead.absent(if excess > 0 { 0 } else { lasts }, tags, excess > 0);
                None
            }
            What::Unchanged => {
                // Who has none has failed, and is not here.
                let value = lead.take_previous()?;
                let lifetime = self.lifetime_of_loaded(options.ttl, &lead, &value);
                drop(running);
                lead.unchanged(lifetime, &value);
                Some(value)
            }
        }
    }

    /// How long a loaded value lives. Asks the user's policy, as for an update where it takes the place of a live one.
    fn lifetime_of_loaded(&self, ttl: Ttl, lead: &Lead<K, V>, value: &V) -> Lifetime {
        match ttl {
            Ttl::Default => self.lifetime_after(lead.replaces(), lead.key(), value),
            _ => self.lifetime_of_new(ttl, lead.key(), value),
        }
    }

    /// What a call is served whose load is under way elsewhere.
    pub(super) fn served_meanwhile(&self, served: Served<V>) -> V {
        match served {
            Served::Live(value) => value,
            Served::Stale(value) => {
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
        answer: Result<Loaded<V>, E>,
    ) -> Result<Option<V>, TryLoadError<E>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
        V: Clone,
    {
        let store = &self.inner.store;
        let answer = unless_nothing_is_unchanged(answer, false);
        store.count_load(answer.is_ok());
        match answer.map(|answer| answer.what) {
            Ok(What::Value(value)) => {
                store.forget_uncacheable(self.hash(key));
                Ok(Some(value))
            }
            Ok(What::Uncacheable(value)) => Ok(Some(value)),
            Ok(What::Absent | What::Unchanged) => Ok(None),
            Err(failure) => {
                let instead = store.instead_of_error(self.hash(key), &self.namespace, key, false);
                match instead {
                    Some((value, instead)) => {
                        drop_catching(failure);
                        self.count_served(instead);
                        Ok(Some(value))
                    }
                    None => Err(failure),
                }
            }
        }
    }
}
