//! Single-flight loading for tasks: the steps that threads take, on any runtime.
//!
//! A loader's future is polled by the call that leads, and dropped with it: a caller that goes away
//! hands the key to another. No future here holds a lock across an `await`.

use std::fmt::Display;
use std::future::poll_fn;
use std::hash::{BuildHasher, Hash};
use std::pin::pin;

use equivalent::Equivalent;

use super::Cache;
use super::attached::{either, shared};
use super::load::{never_told, no_such_answer, present};
use super::observe::span::LoadSpan;
use super::step::{LoadStep, why};
use super::timeout::{LoadReason, Spawner, Timeouts};
use crate::entry::Loaded;
use crate::load::{Accepts, LeaderGuard};
use crate::util::error::{LoadError, Told, TryLoadError};

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Asynchronous form of [`get_or_load`](Self::get_or_load), which waits without blocking the thread, on any
    /// runtime. Waits by waking, shares flights with the blocking forms, and hands the key to another caller if this
    /// future is dropped while its loader runs.
    ///
    /// A leader whose future is held but never polled keeps others waiting until its load deadline.
    /// Tasks notice that deadline by themselves if the builder was given a
    /// [`timer`](crate::CacheBuilder::timer); otherwise as soon as any caller asks for the key.
    ///
    /// ```
    /// # pollster::block_on(async {
    /// let cache: larder::Cache<u64, u64> = larder::Cache::builder().max_capacity(100).build()?;
    /// assert_eq!(cache.get_or_load_async(&6, || async { 6 * 7 }).await, 42);
    /// # Ok::<(), larder::BuildError>(())
    /// # }).unwrap();
    /// ```
    pub async fn get_or_load_async<Q, F, Fut>(&self, key: &Q, loader: F) -> V
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        K: Clone,
        V: Clone,
        F: FnOnce() -> Fut,
        Fut: Future<Output = V>,
    {
        let loader = |_: Option<V>| async { Ok(Loaded::new(loader().await)) };
        match self
            .load_task(key, Accepts::VALUE, loader, never_told, None, None)
            .await
        {
            Ok(Some(value)) => value,
            Ok(None) | Err(_) => no_such_answer(),
        }
    }

    /// Asynchronous form of [`try_get_or_load`](Self::try_get_or_load): waits without blocking the thread, on any
    /// runtime.
    ///
    /// # Errors
    /// Those of [`try_get_or_load`](Self::try_get_or_load).
    ///
    /// ```
    /// # pollster::block_on(async {
    /// let cache: larder::Cache<String, u32> = larder::Cache::builder().max_capacity(100).build()?;
    /// let seven = cache.try_get_or_load_async("7", || async { "7".parse::<u32>() }).await?;
    /// assert_eq!(seven, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn try_get_or_load_async<Q, F, Fut, E>(
        &self,
        key: &Q,
        loader: F,
    ) -> Result<V, TryLoadError<E>>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        K: Clone,
        V: Clone,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<V, E>>,
        E: Display,
    {
        self.get_or_load_with_async(key, || async { loader().await.map(Loaded::new) })
            .await
    }

    /// Asynchronous form of [`get_or_load_with`](Self::get_or_load_with): waits without blocking the thread, on any
    /// runtime.
    ///
    /// # Errors
    /// Those of [`try_get_or_load`](Self::try_get_or_load).
    ///
    /// ```
    /// # pollster::block_on(async {
    /// use larder::{Cache, Loaded};
    ///
    /// let cache: Cache<u64, &str> = Cache::builder().max_capacity(100).build()?;
    /// let load = || async { Ok::<_, String>(Loaded::new("chair").tag("product:7")) };
    /// assert_eq!(cache.get_or_load_with_async(&7, load).await?, "chair");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn get_or_load_with_async<Q, F, Fut, E>(
        &self,
        key: &Q,
        loader: F,
    ) -> Result<V, TryLoadError<E>>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        K: Clone,
        V: Clone,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Loaded<V>, E>>,
        E: Display,
    {
        let loader = |_: Option<V>| loader();
        present(
            self.load_task(key, Accepts::RESULT, loader, Told::of, None, None)
                .await,
        )
    }

    /// Asynchronous form of [`get_or_load_with_previous`](Self::get_or_load_with_previous): waits without blocking the
    /// thread, on any runtime. The loader owns what it is given.
    ///
    /// # Errors
    /// Those of [`get_or_load_with_previous`](Self::get_or_load_with_previous).
    ///
    /// ```
    /// # pollster::block_on(async {
    /// use larder::{Cache, Loaded};
    ///
    /// let cache: Cache<u64, String> = Cache::builder().max_capacity(100).build()?;
    /// let load = |previous: Option<String>| async move {
    ///     assert_eq!(previous, None); // nothing is there yet
    ///     Ok::<_, String>(Loaded::new("chair".to_owned()))
    /// };
    /// assert_eq!(cache.get_or_load_with_previous_async(&7, load).await?, "chair");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn get_or_load_with_previous_async<Q, F, Fut, E>(
        &self,
        key: &Q,
        loader: F,
    ) -> Result<V, TryLoadError<E>>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        K: Clone,
        V: Clone,
        F: FnOnce(Option<V>) -> Fut,
        Fut: Future<Output = Result<Loaded<V>, E>>,
        E: Display,
    {
        let accepts = Accepts::RESULT.with_previous(true);
        present(
            self.load_task(key, accepts, loader, Told::of, None, None)
                .await,
        )
    }

    /// Asynchronous form of [`get_or_load_optional`](Self::get_or_load_optional): waits without blocking the thread, on
    /// any runtime.
    ///
    /// ```
    /// # pollster::block_on(async {
    /// let cache: larder::Cache<u64, &str> = larder::Cache::builder().max_capacity(100).build()?;
    /// assert_eq!(cache.get_or_load_optional_async(&1, || async { None }).await, None);
    /// # Ok::<(), larder::BuildError>(())
    /// # }).unwrap();
    /// ```
    pub async fn get_or_load_optional_async<Q, F, Fut>(&self, key: &Q, loader: F) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        K: Clone,
        V: Clone,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Option<V>>,
    {
        let loader =
            |_: Option<V>| async { Ok(loader().await.map_or_else(Loaded::absent, Loaded::new)) };
        self.load_task(key, Accepts::OPTION, loader, never_told, None, None)
            .await
            .unwrap_or_else(|_: TryLoadError<std::convert::Infallible>| no_such_answer())
    }

    /// Asynchronous form of [`load`](Self::load), which waits without blocking the thread, with the loader given to
    /// [`async_loader`](crate::CacheBuilder::async_loader).
    ///
    /// # Errors
    /// Those of [`load`](Self::load).
    ///
    /// ```
    /// # pollster::block_on(async {
    /// use larder::{Cache, Loaded};
    /// use std::convert::Infallible;
    ///
    /// let squares: Cache<u64, u64> = Cache::builder()
    ///     .max_capacity(100)
    ///     .async_loader(|n: u64| async move { Ok::<_, Infallible>(Loaded::new(n * n)) })
    ///     .build()?;
    /// assert_eq!(squares.load_async(&7).await?, 49);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn load_async<Q>(&self, key: &Q) -> Result<V, LoadError>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + ?Sized,
        K: Clone,
        V: Clone,
        S: Send + Sync + 'static,
    {
        let attached = self.inner.rules.async_loader.as_ref();
        let attached = attached.ok_or(LoadError::NoLoader)?;
        let load = |previous: Option<V>| async {
            (attached.call)(key.to_owned(), previous)
                .await
                .map_err(shared)
        };
        let run = |leader, reason| self.run_in_a_task(leader, reason);
        let run: Option<Spawner<'_, K, V>> = match self.inner.spawner {
            Some(_) => Some(&run),
            None => None,
        };
        let timeouts = self.timeouts();
        let accepts = Accepts::RESULT
            .with_previous(attached.shows_previous)
            .queueing(timeouts.is_some());
        let load = self.load_task(key, accepts, load, LoadError::clone, run, timeouts);
        present(load.await).map_err(either)
    }

    /// Takes the steps of a loading call, as a task. `told` is a loader's error as other callers see it; `run` runs the
    /// loader elsewhere while this call is served what is there, or waits no longer than its timeouts say.
    async fn load_task<Q, F, Fut, E>(
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
        F: FnOnce(Option<V>) -> Fut,
        Fut: Future<Output = Result<Loaded<V>, E>>,
    {
        let mut turn = self.first_step(key, accepts);
        let leader = loop {
            turn = match turn {
                LoadStep::Return(result) => return result.map_err(TryLoadError::Shared),
                LoadStep::Again => self.next_step(key, accepts),
                LoadStep::Follower(mut follower) => {
                    let until = self.until(accepts, timeouts.as_mut(), &follower);
                    let outcome = poll_fn(|context| follower.poll(context, until)).await;
                    self.after_wait_within(accepts, timeouts.as_mut(), follower, outcome)
                }
                LoadStep::Leader(leader) => match (run, &mut timeouts) {
                    (Some(run), Some(timeouts)) => self.run_elsewhere(leader, run, timeouts),
                    _ => break Some(leader),
                },
                LoadStep::Refresh(leader, served) => {
                    if let Some(run) = run {
                        run(leader, LoadReason::Refresh);
                        return Ok(Some(self.served_meanwhile(served)));
                    }
                    served.drop_unused();
                    break Some(leader);
                }
                LoadStep::Alone => break None,
            };
        };
        // One place that holds the loader's future, so that this future is not a multiple of it.
        let previous = leader.as_ref().and_then(LeaderGuard::previous).cloned();
        let mut load = pin!(async move { loader(previous).await });
        let span = LoadSpan::new(self.label(), leader.as_ref().map_or("miss", why));
        let answer = poll_fn(|context| {
            let _running = leader.as_ref().map(|leader| leader.load_id().enter());
            let _traced = span.enter();
            load.as_mut().poll(context)
        })
        .await;
        match leader {
            Some(leader) => self.finish(leader, answer, told, true),
            None => self.finish_alone(key, answer),
        }
    }
}
