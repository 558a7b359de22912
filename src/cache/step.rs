//! What a loading call does next, whether a thread or a task makes it.
//!
//! Each call takes the same steps: look; on a miss join the key's flight; lead it, follow it, or (where neither is
//! possible) load alone. So does a call that finds a value which may be served, but is to be loaded again.

use std::hash::{BuildHasher, Hash};

use equivalent::Equivalent;

use super::Cache;
use crate::entry::expiry::Lifetime;
use crate::entry::freshness::StaleBy;
use crate::entry::removal::drop_catching;
use crate::entry::{EntryOptions, Loaded, Ttl, What};
use crate::flight::FlightOutcome;
use crate::load::{Accepts, Follower, JoinOutcome, LeaderGuard, Purpose, WaitOutcome};
use crate::store::Fallback;
use crate::util::clock::nanos;
use crate::util::error::{LoadError, TryLoadError};

impl Accepts {
    pub(super) const VALUE: Accepts = Accepts {
        errors: false,
        absence: false,
        previous: false,
        queues: false,
    };
    pub(super) const OPTION: Accepts = Accepts {
        absence: true,
        ..Accepts::VALUE
    };
    pub(super) const RESULT: Accepts = Accepts {
        errors: true,
        ..Accepts::VALUE
    };
    pub(super) const EVERYTHING: Accepts = Accepts {
        errors: true,
        ..Accepts::OPTION
    };

    /// For a loader that is given what is there.
    pub(super) fn with_previous(self, previous: bool) -> Accepts {
        Accepts { previous, ..self }
    }

    /// For a call that has its loader run elsewhere.
    pub(super) fn queueing(self, queues: bool) -> Accepts {
        Accepts { queues, ..self }
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
pub(super) enum LoadStep<K, V> {
    /// Return this.
    Return(Result<Option<V>, LoadError>),
    Leader(LeaderGuard<K, V>),
    /// Load this value again; it may be served meanwhile.
    Refresh(LeaderGuard<K, V>, Served<V>),
    Follower(Follower<K, V>),
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
pub(super) fn why<K, V>(leader: &LeaderGuard<K, V>) -> &'static str {
    if leader.is_refresh() {
        "refresh"
    } else {
        "miss"
    }
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
    /// Drops a value that is not served.
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
    pub(super) fn first_step<Q>(&self, key: &Q, accepts: Accepts) -> LoadStep<K, V>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        V: Clone,
    {
        match self.look_up(key) {
            Some((value, true)) => self.refresh(key, value, accepts),
            Some((value, false)) => LoadStep::Return(Ok(Some(value))),
            None => self.join(key, accepts),
        }
    }

    /// Loads a value again, unless another call does already.
    #[cold]
    fn refresh<Q>(&self, key: &Q, current: V, accepts: Accepts) -> LoadStep<K, V>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        V: Clone,
    {
        let hash = self.hash(key);
        let store = &self.inner.store;
        match store.begin_refresh(hash, &self.namespace, key, key.to_owned(), accepts) {
            Some(leader) => LoadStep::Refresh(leader, Served::Live(current)),
            None => LoadStep::Return(Ok(Some(current))),
        }
    }

    /// A later look, after a wait that brought nothing.
    pub(super) fn next_step<Q>(&self, key: &Q, accepts: Accepts) -> LoadStep<K, V>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        V: Clone,
    {
        match self.get_uncounted(key) {
            Some(value) => LoadStep::Return(Ok(Some(value))),
            None => self.join(key, accepts),
        }
    }

    fn join<Q>(&self, key: &Q, accepts: Accepts) -> LoadStep<K, V>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        V: Clone,
    {
        let hash = self.hash(key);
        let store = &self.inner.store;
        if let Some(stale) = store.stale_at_once(hash, &self.namespace, key, accepts.errors) {
            return LoadStep::Return(Ok(Some(stale)));
        }
        match store.join_or_lead(
            hash,
            &self.namespace,
            key,
            key.to_owned(),
            Purpose::Value(accepts),
        ) {
            JoinOutcome::Hit(value) | JoinOutcome::Stale(value) => {
                LoadStep::Return(Ok(Some(value)))
            }
            JoinOutcome::Leader(leader, None) => LoadStep::Leader(leader),
            JoinOutcome::Leader(leader, Some(stale)) => {
                LoadStep::Refresh(leader, Served::Stale(stale))
            }
            JoinOutcome::Follower(follower) => LoadStep::Follower(follower),
            JoinOutcome::Alone => LoadStep::Alone,
            JoinOutcome::Failed(error) if accepts.errors => LoadStep::Return(Err(error)),
            JoinOutcome::Failed(_) => LoadStep::Alone,
            JoinOutcome::Absent => LoadStep::Return(accepts.of_absence()),
        }
    }

    /// What the end of a wait means for this caller.
    pub(super) fn after_wait(
        &self,
        accepts: Accepts,
        follower: &Follower<K, V>,
        outcome: WaitOutcome<K, V>,
    ) -> LoadStep<K, V>
    where
        V: Clone,
    {
        let outcome = match outcome {
            WaitOutcome::Over(outcome) => outcome,
            WaitOutcome::Leader(leader) => return LoadStep::Leader(leader),
            WaitOutcome::Again => return LoadStep::Again,
            WaitOutcome::TimedOut(waited) if accepts.errors => {
                return self.stale_or(follower, LoadError::WaitTimedOut { waited });
            }
            WaitOutcome::TimedOut(_) => return LoadStep::Alone,
        };
        match &*outcome {
            // A tag of the value moved after the load began, maybe before this caller came: for this
            // caller the value may be of the past.
            FlightOutcome::Done {
                overtaken: Some(epoch),
                ..
            }
            | FlightOutcome::Absent {
                overtaken: Some(epoch),
            } if follower.joined() > *epoch => LoadStep::Again,
            FlightOutcome::Done { value, .. } => LoadStep::Return(Ok(Some(value.clone()))),
            FlightOutcome::Absent { .. } if accepts.absence || accepts.errors => {
                LoadStep::Return(accepts.of_absence())
            }
            FlightOutcome::Failed(error) if accepts.errors => {
                self.stale_or(follower, error.clone())
            }
            FlightOutcome::GivenUp => LoadStep::Alone,
            FlightOutcome::Absent { .. } | FlightOutcome::Failed(_) | FlightOutcome::Superseded => {
                LoadStep::Again
            }
        }
    }

    /// A value to serve instead of an error, if there is one, or else this error.
    pub(super) fn stale_or(&self, follower: &Follower<K, V>, error: LoadError) -> LoadStep<K, V>
    where
        V: Clone,
    {
        let (store, flight) = (&self.inner.store, follower.flight());
        let fallback = store.fallback_for_error(flight.hash, &self.namespace, flight.key(), false);
        LoadStep::Return(match fallback {
            Some((value, fallback)) => {
                self.count_served(fallback);
                Ok(Some(value))
            }
            None => Err(error),
        })
    }

    fn count_served(&self, fallback: Fallback) {
        let counters = &self.inner.store.counters;
        match fallback {
            Fallback::Live => counters.refresh_failure(),
            Fallback::Stale => counters.stale(StaleBy::Error),
        }
    }

    /// Ends a flight with what its loader answered. If that is an error and there is something to serve all the
    /// same, it is what comes back (and is counted, if it is `heard` by anybody), and the source rests.
    pub(super) fn finish<E>(
        &self,
        leader: LeaderGuard<K, V>,
        answer: Result<Loaded<V>, E>,
        told: impl FnOnce(&E) -> LoadError,
        heard: bool,
    ) -> Result<Option<V>, TryLoadError<E>>
    where
        K: Clone,
        V: Clone,
    {
        match unless_nothing_is_unchanged(answer, leader.previous().is_some()) {
            Ok(Loaded { what, options }) => Ok(self.publish_loaded(leader, what, options)),
            Err(failure) => self.publish_failure(leader, failure, told, heard),
        }
    }

    fn publish_failure<E>(
        &self,
        leader: LeaderGuard<K, V>,
        failure: TryLoadError<E>,
        told: impl FnOnce(&E) -> LoadError,
        heard: bool,
    ) -> Result<Option<V>, TryLoadError<E>>
    where
        V: Clone,
    {
        // What the user's functions below load in turn must not wait for this load.
        let running = leader.load_id().enter();
        let told = match &failure {
            TryLoadError::Own(error) => told(error),
            TryLoadError::Shared(error) => error.clone(),
        };
        // Looked for now: what it was to replace may have been removed meanwhile.
        let (store, refresh) = (&self.inner.store, leader.is_refresh());
        let fallback =
            store.fallback_for_error(leader.hash(), &self.namespace, leader.key(), refresh);
        drop(running);
        leader.failed(told, fallback.is_some());
        let Some((value, fallback)) = fallback else {
            return Err(failure);
        };
        drop_catching(failure);
        if heard {
            self.count_served(fallback);
        }
        Ok(Some(value))
    }

    /// Ends a flight whose loader answered.
    fn publish_loaded(
        &self,
        mut leader: LeaderGuard<K, V>,
        what: What<V>,
        options: EntryOptions,
    ) -> Option<V>
    where
        K: Clone,
        V: Clone,
    {
        // Most of what is called before the flight ends is user code, and runs before the lock: should it panic, the
        // flight is abandoned like any other. What it loads in turn must not wait for this load.
        let running = leader.load_id().enter();
        match what {
            What::Value(value) => {
                let lifetime = self.lifetime_of_loaded(options.ttl, &leader, &value);
                let request = self.request(leader.key().clone(), value.clone(), &options, lifetime);
                drop(running);
                leader.done(request, &value);
                Some(value)
            }
            What::Uncacheable(value) => {
                drop(running);
                leader.give_up();
                Some(value)
            }
            What::Absent => {
                let lasts = match options.ttl {
                    Ttl::Default => self.inner.store.loads.negative_lifetime,
                    Ttl::For(time) => nanos(time),
                    Ttl::Forever => u64::MAX,
                };
                let (tags, excess) = self.tags(&options.tags);
                drop(running);
                // Too many to be watched: nothing is remembered.
                leader.absent(if excess > 0 { 0 } else { lasts }, tags, excess > 0);
                None
            }
            What::Unchanged => {
                // Who has none has failed, and is not here.
                let value = leader.take_previous()?;
                let lifetime = self.lifetime_of_loaded(options.ttl, &leader, &value);
                drop(running);
                leader.unchanged(lifetime, options.ttl != Ttl::Default, &value);
                Some(value)
            }
        }
    }

    /// How long a loaded value lives. Asks the user's policy, as for an update where it takes the place of a live one.
    fn lifetime_of_loaded(&self, ttl: Ttl, leader: &LeaderGuard<K, V>, value: &V) -> Lifetime {
        match ttl {
            Ttl::Default => self.lifetime_after(leader.replaces(), leader.key(), value),
            _ => self.lifetime_of_new(ttl, leader.key(), value),
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
                let fallback =
                    store.fallback_for_error(self.hash(key), &self.namespace, key, false);
                match fallback {
                    Some((value, fallback)) => {
                        drop_catching(failure);
                        self.count_served(fallback);
                        Ok(Some(value))
                    }
                    None => Err(failure),
                }
            }
        }
    }
}
