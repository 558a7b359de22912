//! Loading many keys by one call of one loader.
//!
//! A round: look at every key that has no answer yet. What is there is taken, what another call loads is joined, and
//! for the rest the loader is called once; each key that it answers is published under the right of its own flight.
//! Only then are the joined ones waited for. A call that waits therefore leads nothing: two that overlap, each
//! leading what the other joined, cannot wait for each other. What is left after that (a leader that gave up, say)
//! goes into another round.

use std::collections::{HashMap, VecDeque};
use std::fmt::Display;
use std::future::poll_fn;
use std::hash::{BuildHasher, Hash};
use std::pin::pin;

use equivalent::Equivalent;

use super::Cache;
use super::load::never_told;
use super::observe::span::LoadSpan;
use super::step::LoadStep;
use crate::entry::Loaded;
use crate::entry::removal::drop_catching;
use crate::flight::wait_graph::{LoadId, RunningLoad};
use crate::load::{Accepts, Follower, LeaderGuard, WaitOutcome};
use crate::util::error::{LoadError, Told, TryLoadError};

/// Which of the keys, and what is to be done about it.
enum Open<K, V> {
    Look,
    Leader(LeaderGuard<K, V>),
    /// Loaded without a flight.
    Alone,
}

/// A call on its way: the keys, each once, and their answers.
struct Bulk<'q, Q: ?Sized, K, V> {
    keys: Vec<&'q Q>,
    answers: Each<Option<V>>,
    open: Vec<(usize, Open<K, V>)>,
    /// Those that others load, in the order in which they were joined.
    follows: VecDeque<(usize, Follower<K, V>)>,
    first: bool,
    /// A wait has left something to load: no further one until that is done, for it may lead.
    to_load: bool,
    /// The first error of another's load. What this call leads is loaded and published all the same.
    error: Option<LoadError>,
}

/// What a round has the loader load.
struct BulkLoad<K, V> {
    /// The one id of all loads of the round: the wait graph has one node for them.
    load_id: LoadId,
    /// Those to be loaded, each with its place among the keys.
    leads: Vec<(usize, Option<LeaderGuard<K, V>>)>,
    keys: Each<K>,
}

/// Values that are let go of one by one: were two of them to panic in one go, the process would end.
struct Each<T>(Vec<T>);

impl<T> Drop for Each<T> {
    fn drop(&mut self) {
        while let Some(value) = self.0.pop() {
            drop_catching(value);
        }
    }
}

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// The live values of many keys, in their order; those that are missing are loaded by one call of the loader,
    /// which is given them (each once) and answers in their order, with `None` for what does not exist. Keys that
    /// another call is loading are waited for, after this call's own were stored. Not atomic: each key is looked
    /// up, loaded and stored under its own rules, those of [`try_get_or_load`](Self::try_get_or_load).
    ///
    /// The loader runs once, save where keys come back to this call because another's load of them came to
    /// nothing; then again, for those. `None` is not stored. A key that is due for an early load, or stale, is
    /// loaded with the rest. Each key counts as a load, also against
    /// [`max_loads`](crate::CacheBuilder::max_loads): with more missing than that, the call fails, after it has
    /// loaded as many as it may.
    ///
    /// # Errors
    /// [`TryLoadError::Own`] with this call's loader's error, unless every key it was to load has a value to serve
    /// instead ([`stale_if_error`](crate::CacheBuilder::stale_if_error)); [`TryLoadError::Shared`] with
    /// [`LoadError::WrongCount`] if it answered with more or fewer than it was asked for, or with the error of
    /// another's load, as with [`try_get_or_load`](Self::try_get_or_load). What was loaded stays loaded.
    ///
    /// ```
    /// let cache: larder::Cache<u64, String> = larder::Cache::builder().max_capacity(100).build()?;
    /// cache.insert(1, "one".to_owned());
    /// let names = cache.get_many_or_load([&1, &2, &3], |missing: &[u64]| {
    ///     assert_eq!(missing, [2, 3]);
    ///     Ok::<_, String>(vec![Some("two".to_owned()), None])
    /// })?;
    /// assert_eq!(names, [Some("one".to_owned()), Some("two".to_owned()), None]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_many_or_load<'q, Q, F, E>(
        &self,
        keys: impl IntoIterator<Item = &'q Q>,
        mut loader: F,
    ) -> Result<Vec<Option<V>>, TryLoadError<E>>
    where
        Q: Hash + Eq + Equivalent<K> + ToOwned<Owned = K> + ?Sized + 'q,
        K: Clone,
        V: Clone,
        F: FnMut(&[K]) -> Result<Vec<Option<V>>, E>,
        E: Display,
    {
        self.get_many_or_load_with(keys, |missing| {
            Ok(loader(missing)?.into_iter().map(plain).collect())
        })
    }

    /// The values of several keys; one call of the loader loads all that are missing, and says for each how to keep it:
    /// how long, under which tags, or not at all. See [`get_many_or_load`](Self::get_many_or_load).
    ///
    /// # Errors
    /// Those of [`get_many_or_load`](Self::get_many_or_load).
    ///
    /// ```
    /// use larder::{Cache, Loaded};
    ///
    /// let cache: Cache<u64, u64> = Cache::builder().max_capacity(100).build()?;
    /// let squares = cache.get_many_or_load_with([&2, &3], |missing| {
    ///     Ok::<_, String>(missing.iter().map(|n| Some(Loaded::new(n * n).tag("squares"))).collect())
    /// })?;
    /// assert_eq!(squares, [Some(4), Some(9)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_many_or_load_with<'q, Q, F, E>(
        &self,
        keys: impl IntoIterator<Item = &'q Q>,
        mut loader: F,
    ) -> Result<Vec<Option<V>>, TryLoadError<E>>
    where
        Q: Hash + Eq + Equivalent<K> + ToOwned<Owned = K> + ?Sized + 'q,
        K: Clone,
        V: Clone,
        F: FnMut(&[K]) -> Result<Vec<Option<Loaded<V>>>, E>,
        E: Display,
    {
        let (mut bulk, places) = Bulk::new(keys);
        while bulk.goes_on() {
            if let Some(batch) = self.look_at_all(&mut bulk) {
                let span = LoadSpan::new(self.label(), "bulk");
                let running = (batch.enter(), span.enter());
                let answers = loader(&batch.keys.0);
                drop(running);
                self.publish_answers(&mut bulk, batch, answers)?;
            }
            while let Some((place, mut follower)) = bulk.next_follow() {
                let outcome = follower.wait(follower.deadline());
                self.after_the_wait(&mut bulk, place, &follower, outcome);
            }
        }
        bulk.into_answers(&places).map_err(TryLoadError::Shared)
    }

    /// Asynchronous form of [`get_many_or_load`](Self::get_many_or_load): waits without blocking the thread, on any
    /// runtime.
    ///
    /// # Errors
    /// Those of [`get_many_or_load`](Self::get_many_or_load).
    ///
    /// ```
    /// # pollster::block_on(async {
    /// let cache: larder::Cache<u64, u64> = larder::Cache::builder().max_capacity(100).build()?;
    /// let load = async |missing: Vec<u64>| {
    ///     Ok::<_, String>(missing.iter().map(|n| Some(n * n)).collect())
    /// };
    /// assert_eq!(cache.get_many_or_load_async([&2, &3], load).await?, [Some(4), Some(9)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn get_many_or_load_async<'q, Q, F, Fut, E>(
        &self,
        keys: impl IntoIterator<Item = &'q Q>,
        mut loader: F,
    ) -> Result<Vec<Option<V>>, TryLoadError<E>>
    where
        Q: Hash + Eq + Equivalent<K> + ToOwned<Owned = K> + ?Sized + 'q,
        K: Clone,
        V: Clone,
        F: FnMut(Vec<K>) -> Fut,
        Fut: Future<Output = Result<Vec<Option<V>>, E>>,
        E: Display,
    {
        let loader = |missing| {
            let load = loader(missing);
            async { Ok(load.await?.into_iter().map(plain).collect()) }
        };
        self.get_many_or_load_with_async(keys, loader).await
    }

    /// Asynchronous form of [`get_many_or_load_with`](Self::get_many_or_load_with): waits without blocking the thread,
    /// on any runtime.
    ///
    /// # Errors
    /// Those of [`get_many_or_load`](Self::get_many_or_load).
    ///
    /// ```
    /// # pollster::block_on(async {
    /// use larder::{Cache, Loaded};
    ///
    /// let cache: Cache<u64, u64> = Cache::builder().max_capacity(100).build()?;
    /// let load = async |missing: Vec<u64>| {
    ///     Ok::<_, String>(missing.iter().map(|n| Some(Loaded::new(n * n).tag("squares"))).collect())
    /// };
    /// assert_eq!(cache.get_many_or_load_with_async([&2, &3], load).await?, [Some(4), Some(9)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn get_many_or_load_with_async<'q, Q, F, Fut, E>(
        &self,
        keys: impl IntoIterator<Item = &'q Q>,
        mut loader: F,
    ) -> Result<Vec<Option<V>>, TryLoadError<E>>
    where
        Q: Hash + Eq + Equivalent<K> + ToOwned<Owned = K> + ?Sized + 'q,
        K: Clone,
        V: Clone,
        F: FnMut(Vec<K>) -> Fut,
        Fut: Future<Output = Result<Vec<Option<Loaded<V>>>, E>>,
        E: Display,
    {
        let (mut bulk, places) = Bulk::new(keys);
        while bulk.goes_on() {
            if let Some(mut batch) = self.look_at_all(&mut bulk) {
                let (load, keys) = (&mut loader, std::mem::take(&mut batch.keys.0));
                // Called where it is polled: with this call's loads on the stack.
                let mut load = pin!(async move { load(keys).await });
                let span = LoadSpan::new(self.label(), "bulk");
                let answers = poll_fn(|context| {
                    let _running = (batch.enter(), span.enter());
                    load.as_mut().poll(context)
                })
                .await;
                self.publish_answers(&mut bulk, batch, answers)?;
            }
            while let Some((place, mut follower)) = bulk.next_follow() {
                let until = follower.deadline();
                let outcome = poll_fn(|context| follower.poll(context, until)).await;
                self.after_the_wait(&mut bulk, place, &follower, outcome);
            }
        }
        bulk.into_answers(&places).map_err(TryLoadError::Shared)
    }

    /// Looks at every open key. Returns what the loader is to load, if anything, and leaves what others load.
    fn look_at_all<Q>(&self, bulk: &mut Bulk<'_, Q, K, V>) -> Option<BulkLoad<K, V>>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        K: Clone,
        V: Clone,
    {
        let mut batch = BulkLoad {
            load_id: LoadId::new(),
            leads: Vec::new(),
            keys: Each(Vec::new()),
        };
        bulk.to_load = false;
        for (place, open) in std::mem::take(&mut bulk.open) {
            let key = bulk.keys[place];
            let turn = match open {
                Open::Look if bulk.first => self.first_step(key, Accepts::EVERYTHING),
                Open::Look => self.next_step(key, Accepts::EVERYTHING),
                Open::Leader(leader) => LoadStep::Leader(leader),
                Open::Alone => LoadStep::Alone,
            };
            match turn {
                LoadStep::Return(result) => bulk.answer(place, result),
                LoadStep::Leader(leader) => batch.lead(place, leader),
                LoadStep::Refresh(leader, served) => {
                    served.drop_unused();
                    batch.lead(place, leader);
                }
                LoadStep::Alone => batch.leads.push((place, None)),
                LoadStep::Follower(follower) => bulk.follows.push_back((place, follower)),
                LoadStep::Again => bulk.open.push((place, Open::Look)),
            }
        }
        bulk.first = false;
        let keys = batch
            .leads
            .iter()
            .map(|(place, _)| bulk.keys[*place].to_owned());
        batch.keys = Each(keys.collect());
        (!batch.leads.is_empty()).then_some(batch)
    }

    /// Publishes what the loader answered, key by key.
    fn publish_answers<Q, E>(
        &self,
        bulk: &mut Bulk<'_, Q, K, V>,
        mut batch: BulkLoad<K, V>,
        answers: Result<Vec<Option<Loaded<V>>>, E>,
    ) -> Result<(), TryLoadError<E>>
    where
        Q: Hash + Equivalent<K> + ?Sized,
        K: Clone,
        V: Clone,
        E: Display,
    {
        // The user's functions below may load in turn: none of what this call still leads must be waited for.
        let _running = batch.enter();
        let asked = batch.leads.len();
        let answers = answers.map(Each);
        let failure = match answers {
            Ok(mut answers) if answers.0.len() == asked => {
                answers.0.reverse();
                for (place, leader) in std::mem::take(&mut batch.leads) {
                    let answer = answers.0.pop().flatten().unwrap_or_else(Loaded::absent);
                    let answer = Ok::<_, std::convert::Infallible>(answer);
                    let result = match leader {
                        Some(leader) => self.finish(leader, answer, never_told, true),
                        None => self.finish_alone(bulk.keys[place], answer),
                    };
                    bulk.answer(
                        place,
                        result.map_err(|error| match error {
                            TryLoadError::Own(never) => match never {},
                            TryLoadError::Shared(error) => error,
                        }),
                    );
                }
                return Ok(());
            }
            Ok(answers) => TryLoadError::Shared(LoadError::WrongCount {
                asked,
                answered: answers.0.len(),
            }),
            Err(error) => TryLoadError::Own(error),
        };
        let told = match &failure {
            TryLoadError::Own(error) => Told::of(error),
            TryLoadError::Shared(error) => error.clone(),
        };
        let mut all_served = true;
        for (place, leader) in std::mem::take(&mut batch.leads) {
            let result = match leader {
                Some(leader) => self.finish(leader, Err(()), |()| told.clone(), true),
                None => self.finish_alone(bulk.keys[place], Err(())),
            };
            match result {
                Ok(value) => bulk.answer(place, Ok(value)),
                Err(_) => all_served = false,
            }
        }
        if all_served {
            drop_catching(failure);
            return Ok(());
        }
        Err(failure)
    }

    /// What the end of a wait means for one of the keys.
    fn after_the_wait<Q>(
        &self,
        bulk: &mut Bulk<'_, Q, K, V>,
        place: usize,
        follower: &Follower<K, V>,
        outcome: WaitOutcome<K, V>,
    ) where
        Q: ?Sized,
        V: Clone,
    {
        let open = match self.after_wait(Accepts::EVERYTHING, follower, outcome) {
            LoadStep::Return(result) => return bulk.answer(place, result),
            LoadStep::Leader(leader) => {
                bulk.to_load = true;
                Open::Leader(leader)
            }
            LoadStep::Alone => Open::Alone,
            // Only a look brings the others.
            LoadStep::Again | LoadStep::Refresh(..) | LoadStep::Follower(_) => Open::Look,
        };
        bulk.open.push((place, open));
    }
}

impl<'q, Q: Hash + Eq + ?Sized, K, V> Bulk<'q, Q, K, V> {
    /// The call for these keys, and which of its keys each of them is.
    fn new(keys: impl IntoIterator<Item = &'q Q>) -> (Self, Vec<usize>) {
        let mut once: Vec<&'q Q> = Vec::new();
        let mut known: HashMap<&'q Q, usize> = HashMap::new();
        let places = keys
            .into_iter()
            .map(|key| {
                *known.entry(key).or_insert_with(|| {
                    once.push(key);
                    once.len() - 1
                })
            })
            .collect();
        let bulk = Bulk {
            answers: Each(once.iter().map(|_| None).collect()),
            open: (0..once.len()).map(|place| (place, Open::Look)).collect(),
            keys: once,
            follows: VecDeque::new(),
            first: true,
            to_load: false,
            error: None,
        };
        (bulk, places)
    }
}

impl<Q: ?Sized, K, V> Bulk<'_, Q, K, V> {
    fn goes_on(&self) -> bool {
        !self.open.is_empty() || !self.follows.is_empty()
    }

    /// The next to wait for, unless there is something to load first.
    fn next_follow(&mut self) -> Option<(usize, Follower<K, V>)> {
        if self.to_load {
            return None;
        }
        self.follows.pop_front()
    }

    fn answer(&mut self, place: usize, result: Result<Option<V>, LoadError>) {
        match result {
            Ok(value) => self.answers.0[place] = value,
            Err(error) => self.error = self.error.take().or(Some(error)),
        }
    }

    /// The answers in the order in which the keys came.
    fn into_answers(mut self, places: &[usize]) -> Result<Vec<Option<V>>, LoadError>
    where
        V: Clone,
    {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        if places.len() == self.keys.len() {
            // No key came twice, so they are in order already.
            return Ok(std::mem::take(&mut self.answers.0));
        }
        let copies = places.iter().map(|&place| self.answers.0[place].clone());
        Ok(copies.collect())
    }
}

/// Goes without a result: a listener that is told meanwhile must not wait for what is still led.
impl<K, V> Drop for BulkLoad<K, V> {
    fn drop(&mut self) {
        let _running = self.enter();
        self.leads.clear();
    }
}

impl<K, V> BulkLoad<K, V> {
    fn lead(&mut self, place: usize, leader: LeaderGuard<K, V>) {
        leader.runs_as(&self.load_id);
        self.leads.push((place, Some(leader)));
    }

    /// Puts all that is loaded on this thread's stack of loads.
    fn enter(&self) -> RunningLoad {
        self.load_id.enter()
    }
}

fn plain<V>(value: Option<V>) -> Option<Loaded<V>> {
    value.map(Loaded::new)
}

#[cfg(all(test, not(larder_shuttle)))]
mod tests {
    use crate::Cache;
    use crate::flight::wait_graph::leaders_here;

    /// What a poll, a nested load and the end of the call look through does not grow with the number of keys.
    #[test]
    fn a_call_for_many_keys_is_one_load_in_the_wait_graph() {
        let cache: Cache<u64, u64> = Cache::builder()
            .max_capacity(10_000)
            .build()
            .expect("valid");
        let keys: Vec<u64> = (0..1_000).collect();
        let loaded = cache.get_many_or_load(&keys, |missing| {
            assert_eq!(leaders_here().len(), 1);
            let nested = cache.get_or_load(&missing[7], || 99);
            assert_eq!(nested, 99, "its own key: loaded by itself");
            Ok::<_, std::io::Error>(missing.iter().map(|key| Some(*key)).collect())
        });
        assert_eq!(loaded.expect("it cannot fail").len(), 1_000);
        assert_eq!(leaders_here().len(), 0);
    }
}
