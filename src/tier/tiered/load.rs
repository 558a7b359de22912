//! Reading, with a loader and without.

use std::fmt::Display;
use std::hash::Hash;
use std::sync::atomic::Ordering;
use std::time::Duration;

use equivalent::Equivalent;

use super::miss::QueryResult;
use super::own_writes::leaders_here;
use super::{L1Value, Tiered, TieredCounters, TieredInner};
use crate::entry::{Loaded, What};
use crate::tier::async_util::{block_on, with_timeout};
use crate::tier::contract::TierError;
use crate::tier::key::{FromTierKey, TierKey};
use crate::util::error::{LoadError, TryLoadError};
use crate::util::sync::{Arc, Mutex};

/// How often a call that brings a loader asks again if it was answered by one without.
pub(super) const MAX_TRIES: usize = 16;

impl<K, V> Tiered<K, V>
where
    K: Hash + Eq + Clone + FromTierKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// The value under a key, from the L1 or the shared tier; `None` if neither has one.
    ///
    /// # Errors
    /// The tier's, if the L1 has nothing and the tier could not be asked.
    ///
    /// ```
    /// # use larder::tier::{MemoryServer, Tiered};
    /// # let cache: Tiered<String, u64> = Tiered::builder(MemoryServer::new().tier()).max_capacity(9).build()?;
    /// assert_eq!(cache.get("a")?, None);
    /// cache.insert("a".to_owned(), 1)?;
    /// assert_eq!(cache.get("a")?, Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get<Q>(&self, key: &Q) -> Result<Option<V>, TierError>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + TierKey + ?Sized,
    {
        block_on(self.get_async(key))?
    }

    /// Asynchronous form of [`get`](Self::get): waits without blocking the thread, on any runtime.
    ///
    /// # Errors
    /// Those of [`get`](Self::get).
    pub async fn get_async<Q>(&self, key: &Q) -> Result<Option<V>, TierError>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + TierKey + ?Sized,
    {
        let inner = &self.inner;
        let found = inner.within_budget(self.find(key)).await;
        found.unwrap_or_else(|| Err(inner.not_in_time()))
    }

    async fn find<Q>(&self, key: &Q) -> Result<Option<V>, TierError>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + TierKey + ?Sized,
    {
        let inner = &self.inner;
        if inner.demand.any() && inner.demand.has(&self.qualified_key(key)) {
            return match self.l1.get(key) {
                Some(held) => Ok(held.value),
                None => inner.query_alone(&self.qualified_key(key)).await,
            };
        }
        // What this call itself was told by the tier, if it was the one that asked.
        let own = Mutex::new(None);
        let query = || async {
            let (told, answer) = match inner.query_only(&self.qualified_key(key)).await {
                Ok(Some(loaded)) => (Ok(()), loaded),
                Ok(None) => (Ok(()), inner.nothing()),
                Err(error) => (Err(error), inner.nothing()),
            };
            *own.lock() = Some(told);
            Ok::<_, TierError>(answer)
        };
        let found = self.l1.get_or_load_with_async(key, query).await;
        let told = own.lock().take();
        match (found, told) {
            (Ok(held), _) => Ok(held.value),
            (Err(_), Some(told)) => told.map(|()| None),
            (Err(TryLoadError::Shared(LoadError::Absent)), None) => Ok(None),
            // Another call's loader, or its tier. This call has none.
            (Err(TryLoadError::Shared(LoadError::Failed(_))), None) => {
                inner.query_alone(&self.qualified_key(key)).await
            }
            (Err(error), None) => Err(TierError::NotWaited {
                why: error.to_string().into(),
            }),
        }
    }

    /// The value under a key; if neither the L1 nor the shared tier has one, the loader's, which both keep.
    ///
    /// One call a key asks the tier and runs its loader, in this process; another process may load at the same time,
    /// and whichever is first stores ([`wait_for_others`](super::TieredBuilder::wait_for_others) makes it wait). The
    /// value is stored only if nothing was written or invalidated under the key while it was loaded.
    ///
    /// # Errors
    /// [`LoadError::Failed`] if this call waited for another's loader, which failed; the other errors of waiting.
    ///
    /// ```
    /// # use larder::tier::{MemoryServer, Tiered};
    /// # let cache: Tiered<String, u64> = Tiered::builder(MemoryServer::new().tier()).max_capacity(9).build()?;
    /// assert_eq!(cache.get_or_load("six", || 6)?, 6);
    /// assert_eq!(cache.get_or_load("six", || unreachable!())?, 6);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_or_load<Q, F>(&self, key: &Q, loader: F) -> Result<V, LoadError>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + TierKey + ?Sized,
        F: FnOnce() -> V,
    {
        blocking(self.get_or_load_async(key, || async { loader() }))
    }

    /// Asynchronous form of [`get_or_load`](Self::get_or_load): waits without blocking the thread, on any runtime.
    ///
    /// # Errors
    /// Those of [`get_or_load`](Self::get_or_load).
    pub async fn get_or_load_async<Q, F, Fut>(&self, key: &Q, loader: F) -> Result<V, LoadError>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + TierKey + ?Sized,
        F: FnOnce() -> Fut,
        Fut: Future<Output = V>,
    {
        let loader = || async { Ok::<_, std::convert::Infallible>(loader().await) };
        self.try_get_or_load_async(key, loader)
            .await
            .map_err(|error| match error {
                TryLoadError::Own(never) => match never {},
                TryLoadError::Shared(error) => error,
            })
    }

    /// [`get_or_load`](Self::get_or_load) for a loader that can fail.
    ///
    /// # Errors
    /// [`TryLoadError::Own`] with this call's loader's error; [`TryLoadError::Shared`] as with
    /// [`get_or_load`](Self::get_or_load), and with [`LoadError::Absent`] if it is remembered that there is nothing.
    ///
    /// ```
    /// # use larder::tier::{MemoryServer, Tiered};
    /// # let cache: Tiered<String, u64> = Tiered::builder(MemoryServer::new().tier()).max_capacity(9).build()?;
    /// assert_eq!(cache.try_get_or_load("7", || "7".parse::<u64>())?, 7);
    /// assert!(cache.try_get_or_load("seven", || "seven".parse::<u64>()).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_get_or_load<Q, F, E>(&self, key: &Q, loader: F) -> Result<V, TryLoadError<E>>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + TierKey + ?Sized,
        F: FnOnce() -> Result<V, E>,
        E: Display,
    {
        blocking_as(self.try_get_or_load_async(key, || async { loader() }))
    }

    /// Asynchronous form of [`try_get_or_load`](Self::try_get_or_load): waits without blocking the thread, on any
    /// runtime.
    ///
    /// # Errors
    /// Those of [`try_get_or_load`](Self::try_get_or_load).
    pub async fn try_get_or_load_async<Q, F, Fut, E>(
        &self,
        key: &Q,
        loader: F,
    ) -> Result<V, TryLoadError<E>>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + TierKey + ?Sized,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<V, E>>,
        E: Display,
    {
        self.get_or_load_with_async(key, || async { loader().await.map(Loaded::new) })
            .await?
            .ok_or(TryLoadError::Shared(LoadError::Absent))
    }

    /// The value of the L1, of the shared tier, or of a loader that says how to keep its value: for how long
    /// (in the shared tier; the L1 keeps it no longer), under which tags, or that there is none
    /// ([`Loaded::absent`], which both remember for as long).
    ///
    /// # Errors
    /// Those of [`try_get_or_load`](Self::try_get_or_load), but an absence is `None`.
    ///
    /// ```
    /// use larder::Loaded;
    /// # use larder::tier::{MemoryServer, Tiered};
    /// # let cache: Tiered<String, u64> = Tiered::builder(MemoryServer::new().tier()).max_capacity(9).build()?;
    /// let price = cache.get_or_load_with("price:7", || Ok::<_, String>(Loaded::new(10).tag("product:7")))?;
    /// assert_eq!(price, Some(10));
    /// cache.invalidate_tag("product:7")?; // in every process
    /// let price = cache.get_or_load_with("price:7", || Ok::<_, String>(Loaded::absent()))?;
    /// assert_eq!(price, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_or_load_with<Q, F, E>(
        &self,
        key: &Q,
        loader: F,
    ) -> Result<Option<V>, TryLoadError<E>>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + TierKey + ?Sized,
        F: FnOnce() -> Result<Loaded<V>, E>,
        E: Display,
    {
        blocking_as(self.get_or_load_with_async(key, || async { loader() }))
    }

    /// Asynchronous form of [`get_or_load_with`](Self::get_or_load_with): waits without blocking the thread, on any
    /// runtime.
    ///
    /// # Errors
    /// Those of [`get_or_load_with`](Self::get_or_load_with).
    pub async fn get_or_load_with_async<Q, F, Fut, E>(
        &self,
        key: &Q,
        loader: F,
    ) -> Result<Option<V>, TryLoadError<E>>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + TierKey + ?Sized,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Loaded<V>, E>>,
        E: Display,
    {
        let inner = &self.inner;
        let loaded = inner.within_budget(self.find_or_load(key, loader)).await;
        loaded.unwrap_or_else(|| Err(inner.not_loaded_in_time()))
    }

    async fn find_or_load<Q, F, Fut, E>(
        &self,
        key: &Q,
        loader: F,
    ) -> Result<Option<V>, TryLoadError<E>>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + TierKey + ?Sized,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Loaded<V>, E>>,
        E: Display,
    {
        let inner = &self.inner;
        let mut loader = Some(loader);
        let mut demand = None;
        for _ in 0..MAX_TRIES {
            let before = inner.nothings();
            let slot = &mut loader;
            let fill = |previous| async move {
                inner.fill(&self.qualified_key(key), previous, slot).await
            };
            let found = self.l1.get_or_load_with_previous_async(key, fill).await;
            let is_nothing = matches!(found, Err(TryLoadError::Shared(LoadError::Absent)));
            if !is_nothing || loader.is_none() || inner.nothings() == before {
                return found.map(|held| held.value);
            }
            // Perhaps the answer of a call without a loader. This one has one.
            demand.get_or_insert_with(|| inner.demand.begin(&self.qualified_key(key)));
        }
        let alone = inner
            .fill(&self.qualified_key(key), None, &mut loader)
            .await;
        Ok(value_of(alone.map_err(TryLoadError::Own)?))
    }

    /// The value under a key, by the loader that the builder was given. In a namespace the calling thread runs it, and
    /// values are not loaded again in the background.
    ///
    /// # Errors
    /// [`LoadError::Failed`] with the loader's error, also if no loader was given.
    ///
    /// ```
    /// use larder::Loaded;
    /// use larder::tier::{MemoryServer, Tiered};
    ///
    /// let cache: Tiered<u64, u64> = Tiered::builder(MemoryServer::new().tier())
    ///     .max_capacity(9)
    ///     .loader(|n: &u64| Ok::<_, String>(Loaded::new(n * n)))
    ///     .build()?;
    /// assert_eq!(cache.load(&3)?, Some(9));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn load<Q>(&self, key: &Q) -> Result<Option<V>, LoadError>
    where
        Q: Hash + Equivalent<K> + ToOwned<Owned = K> + TierKey + ?Sized,
    {
        let inner = &self.inner;
        let loader = inner.loader.as_ref().ok_or(LoadError::NoLoader)?;
        if self.namespace.is_some() {
            // The L1's loader is not told of namespaces.
            let owned = key.to_owned();
            let found = self.get_or_load_with(key, || loader(&owned).map_err(Said));
            return found.map_err(|error| match error {
                TryLoadError::Own(Said(error)) => LoadError::Failed(error.into()),
                TryLoadError::Shared(error) => error,
            });
        }
        let mut demand = None;
        for _ in 0..MAX_TRIES {
            let before = inner.nothings();
            match self.l1.load(key) {
                // Perhaps the answer of a call without a loader.
                Err(LoadError::Absent) if inner.nothings() != before => {
                    demand.get_or_insert_with(|| inner.demand.begin(&self.qualified_key(key)));
                }
                found => return found.map(|held| held.value),
            }
        }
        Err(LoadError::Absent)
    }
}

/// An attached loader's error, with the words by which others are told of it.
struct Said(Box<dyn std::error::Error + Send + Sync>);

impl Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl<K, V> TieredInner<K, V>
where
    K: Hash + Eq + Clone + FromTierKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// What the L1 is to keep under a key: the shared tier's, or the loader's.
    pub(super) async fn fill<F, Fut, E>(
        &self,
        key: &[u8],
        previous: Option<L1Value<V>>,
        loader: &mut Option<F>,
    ) -> Result<Loaded<L1Value<V>>, E>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Loaded<V>, E>>,
    {
        let leaders = leaders_here();
        let mut permit = match self.query(key, previous.as_ref(), &leaders).await {
            QueryResult::Found(loaded) => return Ok(loaded),
            QueryResult::Load(permit) => permit,
        };
        let Some(load) = loader.take() else {
            if let Some(gone) = permit.give_back() {
                let _ = gone.await;
            }
            return Ok(self.nothing());
        };
        let began = self.clock.now();
        match load().await {
            Ok(answer) => {
                let took = Duration::from_nanos(self.clock.now().saturating_sub(began));
                let answer = self.renewed(answer, previous);
                Ok(self.publish(key, &mut permit, answer, took, &leaders).await)
            }
            Err(error) => {
                if let Some(gone) = permit.give_back() {
                    let _ = gone.await;
                }
                match permit.take_stale() {
                    Some(stale) => {
                        TieredCounters::count(&self.counters.stale_served);
                        Ok(stale)
                    }
                    None => Err(error),
                }
            }
        }
    }

    /// Asks the tier for this call alone: what it says is not kept.
    async fn query_alone(&self, key: &[u8]) -> Result<Option<V>, TierError> {
        let found = self.query_only(key).await?;
        Ok(found.and_then(value_of))
    }

    /// What a call without a loader answers those who wait for it.
    pub(super) fn nothing(&self) -> Loaded<L1Value<V>> {
        // Relaxed: whoever waits for the answer has it through the flight's lock, and this was before it.
        self.nothings.fetch_add(1, Ordering::Relaxed);
        Loaded::absent().time_to_live(Duration::ZERO)
    }

    /// How often that was answered.
    pub(super) fn nothings(&self) -> u64 {
        // Relaxed: see `nothing`.
        self.nothings.load(Ordering::Relaxed)
    }

    /// What a call without a loader is told whose budget is used up.
    pub(super) fn not_in_time(&self) -> TierError {
        let budget = self.rules.budget.unwrap_or(Duration::MAX);
        let why = format!("the budget of {budget:?} is used up");
        TierError::NotWaited { why: why.into() }
    }

    /// What a call with a loader is told whose budget is used up.
    pub(super) fn not_loaded_in_time<E>(&self) -> TryLoadError<E> {
        let after = self.rules.budget.unwrap_or(Duration::MAX);
        TryLoadError::Shared(LoadError::LoadTimedOut { after })
    }

    /// A call's output; `None` if it has used up its time. A hit asks for no timer.
    pub(super) async fn within_budget<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        match self.rules.budget {
            None => Some(call.await),
            Some(budget) => with_timeout(call, async { self.tier.sleep(budget).await }).await,
        }
    }
}

pub(super) fn value_of<V>(loaded: Loaded<L1Value<V>>) -> Option<V> {
    match loaded.what {
        What::Value(held) | What::Uncacheable(held) => held.value,
        What::Absent | What::Unchanged => None,
    }
}

fn blocking<T>(load: impl Future<Output = Result<T, LoadError>>) -> Result<T, LoadError> {
    block_on(load).unwrap_or_else(|error| Err(LoadError::Failed(Arc::new(error))))
}

pub(super) fn blocking_as<T, E>(
    load: impl Future<Output = Result<T, TryLoadError<E>>>,
) -> Result<T, TryLoadError<E>> {
    block_on(load)
        .unwrap_or_else(|error| Err(TryLoadError::Shared(LoadError::Failed(Arc::new(error)))))
}
