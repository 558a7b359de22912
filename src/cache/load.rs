//! Single-flight loading for threads. What differs between the methods is only what a loader may answer and what
//! this caller may be given: see [`Accepts`].

use std::fmt::Display;
use std::hash::{BuildHasher, Hash};

use equivalent::Equivalent;

use super::Cache;
use super::attached::{either, shared};
use super::observe::span::LoadSpan;
use super::step::{LoadStep, why};
use super::timeout::{LoadReason, Spawner, Timeouts};
use crate::entry::Loaded;
use crate::entry::removal::drop_catching;
use crate::load::Accepts;
use crate::util::error::{LoadError, Told, TryLoadError};

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// The live value, or the loader's, which is then stored. At any time at most one loader runs for a
    /// key that may store its value: other callers, threads and tasks alike, wait for it. This call blocks its thread:
    /// in a task, and above all on a runtime with one thread, it keeps the very task from running that it may wait
    /// for, until the load deadline; [`get_or_load_async`](Self::get_or_load_async) is for tasks.
    ///
    /// The loader runs in this call, without a lock, and may use the cache. If it panics, the panic goes
    /// to this caller and another one's loader runs. If the key is written or invalidated meanwhile, this
    /// caller gets the loaded value and the cache does not.
    ///
    /// It waits for another caller's load at most until that one's load deadline; then one of those who
    /// wait takes over. This form cannot fail: where a
    /// fallible one would answer with an error (a circle of loads, too many loads), it runs its loader
    /// for itself and stores nothing.
    ///
    /// ```
    /// let cache: larder::Cache<String, usize> = larder::Cache::builder().max_capacity(100).build()?;
    /// assert_eq!(cache.get_or_load("four", || "four".len()), 4);
    /// assert_eq!(cache.get_or_load("four", || unreachable!("it is stored")), 4);
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn get_or_load<Q, F>(&self, key: &Q, loader: F) -> V
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        K: Clone,
        V: Clone,
        F: FnOnce() -> V,
    {
        let loader = |_: Option<&V>| Ok(Loaded::new(loader()));
        match self.load_blocking(key, Accepts::VALUE, loader, never_told, None, None) {
            Ok(Some(value)) => value,
            Ok(None) | Err(_) => no_such_answer(),
        }
    }

    /// The live value, or that of a loader that can fail, which is then stored. One loader runs for a key at a time,
    /// and this call blocks its thread while it waits, which a task must not do: see
    /// [`get_or_load`](Self::get_or_load). A failure is shared by all callers that waited, and is not stored
    /// (unless the builder set an [`error_time_to_live`](crate::CacheBuilder::error_time_to_live)).
    ///
    /// # Errors
    /// [`TryLoadError::Own`] with the error of this call's loader, by value; [`TryLoadError::Shared`]
    /// where another's loader failed, waiting took longer than the wait deadline, the loads wait for
    /// each other in a circle, or too many loads are in flight.
    ///
    /// ```
    /// let cache: larder::Cache<String, u32> = larder::Cache::builder().max_capacity(100).build()?;
    /// assert!(cache.try_get_or_load("x", || "x".parse::<u32>()).is_err());
    /// assert_eq!(cache.try_get_or_load("7", || "7".parse::<u32>())?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_get_or_load<Q, F, E>(&self, key: &Q, loader: F) -> Result<V, TryLoadError<E>>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        K: Clone,
        V: Clone,
        F: FnOnce() -> Result<V, E>,
        E: Display,
    {
        self.get_or_load_with(key, || loader().map(Loaded::new))
    }

    /// The live value, or that of a loader that can fail and that says how to keep its value: a time to live, tags, a
    /// weight, or not at all ([`Loaded`]). One loader runs for a key at a time: see
    /// [`get_or_load`](Self::get_or_load).
    ///
    /// # Errors
    /// Those of [`try_get_or_load`](Self::try_get_or_load).
    ///
    /// ```
    /// use larder::{Cache, Loaded};
    ///
    /// let cache: Cache<u64, &str> = Cache::builder().max_capacity(100).build()?;
    /// let load = || Ok::<_, String>(Loaded::new("chair").tag("product:7"));
    /// assert_eq!(cache.get_or_load_with(&7, load)?, "chair");
    /// cache.invalidate_tag("product:7");
    /// assert_eq!(cache.get(&7), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_or_load_with<Q, F, E>(&self, key: &Q, loader: F) -> Result<V, TryLoadError<E>>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        K: Clone,
        V: Clone,
        F: FnOnce() -> Result<Loaded<V>, E>,
        E: Display,
    {
        let loader = |_: Option<&V>| loader();
        present(self.load_blocking(key, Accepts::RESULT, loader, Told::of, None, None))
    }

    /// The live value, or that of a loader that is given the previous value: it can ask its source whether that has
    /// changed, and answer [`Loaded::unchanged`] if not. The previous value is the live one if this is an early load,
    /// or a stale one inside its windows; otherwise it is `None`, also where a call that waited takes over another
    /// call's load. One loader runs for a key at a time: see [`get_or_load`](Self::get_or_load).
    ///
    /// # Errors
    /// Those of [`try_get_or_load`](Self::try_get_or_load); and [`LoadError::NoPrevious`] if `None` is called
    /// unchanged.
    ///
    /// ```
    /// use larder::{Cache, Loaded, ManualClock};
    /// use std::time::Duration;
    ///
    /// let (time, minute) = (ManualClock::new(), Duration::from_secs(60));
    /// let pages = Cache::builder()
    ///     .max_capacity(100)
    ///     .clock(time.clock())
    ///     .time_to_live(minute)
    ///     .stale_if_error(60 * minute, minute)
    ///     .build()?;
    /// let load = |previous: Option<&String>| match previous {
    ///     None => Ok::<_, String>(Loaded::new("version 1".to_owned())),
    ///     Some(_) => Ok(Loaded::unchanged()), // the source says 304
    /// };
    /// pages.get_or_load_with_previous("front", load)?;
    /// time.advance(minute);
    /// assert_eq!(pages.get("front"), None);
    /// assert_eq!(pages.get_or_load_with_previous("front", load)?, "version 1");
    /// assert_eq!(pages.get("front"), Some("version 1".to_owned()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_or_load_with_previous<Q, F, E>(
        &self,
        key: &Q,
        loader: F,
    ) -> Result<V, TryLoadError<E>>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        K: Clone,
        V: Clone,
        F: FnOnce(Option<&V>) -> Result<Loaded<V>, E>,
        E: Display,
    {
        let accepts = Accepts::RESULT.with_previous(true);
        present(self.load_blocking(key, accepts, loader, Told::of, None, None))
    }

    /// The live value, or that of a loader that may find nothing (`None`). An absence is not stored as a value; all
    /// callers of this method that waited get `None`, too. One loader runs for a key at a time: see
    /// [`get_or_load`](Self::get_or_load).
    ///
    /// ```
    /// let cache: larder::Cache<u64, &str> = larder::Cache::builder().max_capacity(100).build()?;
    /// assert_eq!(cache.get_or_load_optional(&1, || None), None);
    /// assert_eq!(cache.get_or_load_optional(&1, || Some("found")), Some("found"));
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn get_or_load_optional<Q, F>(&self, key: &Q, loader: F) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        K: Clone,
        V: Clone,
        F: FnOnce() -> Option<V>,
    {
        let loader = |_: Option<&V>| Ok(loader().map_or_else(Loaded::absent, Loaded::new));
        self.load_blocking(key, Accepts::OPTION, loader, never_told, None, None)
            .unwrap_or_else(|_: TryLoadError<std::convert::Infallible>| no_such_answer())
    }

    /// The live value, or that of the loader given to the builder with
    /// [`loader`](crate::CacheBuilder::loader), under the rules of
    /// [`get_or_load_with`](Self::get_or_load_with).
    ///
    /// # Errors
    /// [`LoadError`]: the loader's own error, shared by all who waited, or why it did not run;
    /// [`LoadError::NoLoader`] if the builder was given none.
    ///
    /// ```
    /// use larder::{Cache, Loaded};
    /// use std::convert::Infallible;
    ///
    /// let squares: Cache<u64, u64> = Cache::builder()
    ///     .max_capacity(100)
    ///     .loader(|n: &u64| Ok::<_, Infallible>(Loaded::new(n * n)))
    ///     .build()?;
    /// assert_eq!(squares.load(&7)?, 49);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn load<Q>(&self, key: &Q) -> Result<V, LoadError>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        K: Clone,
        V: Clone,
        S: Send + Sync + 'static,
    {
        let attached = self.inner.rules.loader.as_ref();
        let attached = attached.ok_or(LoadError::NoLoader)?;
        let load = |previous: Option<&V>| {
            let owned = key.to_owned();
            let answer = (attached.call)(&owned, previous).map_err(shared);
            drop_catching(owned);
            answer
        };
        let run = |leader, reason| self.run_on_a_thread(leader, reason);
        let run: Option<Spawner<'_, K, V>> = match self.inner.executor {
            Some(_) => Some(&run),
            None => None,
        };
        let timeouts = self.timeouts();
        let accepts = Accepts::RESULT
            .with_previous(attached.shows_previous)
            .queueing(timeouts.is_some());
        present(self.load_blocking(key, accepts, load, LoadError::clone, run, timeouts))
            .map_err(either)
    }

    /// Takes the steps of a loading call, as a thread. `told` is a loader's error as other callers see it; `run` runs
    /// the loader elsewhere while this call is served what is there, or waits no longer than its timeouts say.
    fn load_blocking<Q, F, E>(
        &self,
        key: &Q,
        accepts: Accepts,
        loader: F,
        told: impl FnOnce(&E) -> LoadError,
        run: Option<Spawner<'_, K, V>>,
        mut timeouts: Option<Timeouts>,
    ) -> Result<Option<V>, TryLoadError<E>>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        K: Clone,
        V: Clone,
        F: FnOnce(Option<&V>) -> Result<Loaded<V>, E>,
    {
        let mut turn = self.first_step(key, accepts);
        loop {
            turn = match turn {
                LoadStep::Return(result) => return result.map_err(TryLoadError::Shared),
                LoadStep::Again => self.next_step(key, accepts),
                LoadStep::Follower(mut follower) => {
                    let outcome = follower.wait(self.until(accepts, timeouts.as_mut(), &follower));
                    self.after_wait_within(accepts, timeouts.as_mut(), follower, outcome)
                }
                LoadStep::Leader(leader) => match (run, &mut timeouts) {
                    (Some(run), Some(timeouts)) => self.run_elsewhere(leader, run, timeouts),
                    _ => {
                        let span = LoadSpan::new(self.label(), why(&leader));
                        let running = (leader.load_id().enter(), span.enter());
                        let answer = loader(leader.previous());
                        drop(running);
                        return self.finish(leader, answer, told, true);
                    }
                },
                LoadStep::Refresh(leader, served) => {
                    if let Some(run) = run {
                        run(leader, LoadReason::Refresh);
                        return Ok(Some(self.served_meanwhile(served)));
                    }
                    served.drop_unused();
                    LoadStep::Leader(leader)
                }
                LoadStep::Alone => {
                    let span = LoadSpan::new(self.label(), "miss");
                    let answer = {
                        let _traced = span.enter();
                        loader(None)
                    };
                    return self.finish_alone(key, answer);
                }
            };
        }
    }
}

/// A loader that cannot fail has nothing to tell.
pub(super) fn never_told(error: &std::convert::Infallible) -> LoadError {
    match *error {}
}

/// What a caller gets that asked for a value or an error.
pub(super) fn present<V, E>(
    answer: Result<Option<V>, TryLoadError<E>>,
) -> Result<V, TryLoadError<E>> {
    answer?.ok_or(TryLoadError::Shared(LoadError::Absent))
}

/// An answer that the caller's [`Accepts`] rules out.
#[cold]
pub(super) fn no_such_answer<T>() -> T {
    unreachable!("a load was answered with what its caller cannot be given")
}
