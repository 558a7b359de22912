//! Many keys at once: one command for what the L1 has not, one loader call for what the tier has not.

use std::collections::HashSet;
use std::fmt::Display;
use std::future::ready;
use std::hash::Hash;
use std::time::Duration;

use equivalent::Equivalent;

use super::load::{MAX_TRIES, blocking_as, value_of};
use super::miss::{QueryResult, StorePermit};
use super::own_writes::{Leaders, leaders_here};
use super::publish::Prepared;
use super::{L1Value, Tiered, TieredCounters, TieredInner};
use crate::entry::Loaded;
use crate::tier::async_util::block_on;
use crate::tier::contract::TierError;
use crate::tier::key::{FromTierKey, TierKey};
use crate::util::error::{LoadError, TryLoadError};
use crate::util::sync::Mutex;

impl<K, V> Tiered<K, V>
where
    K: Hash + Eq + Clone + FromTierKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// The values under several keys, in their order. Those that the L1 lacks are asked of the shared tier by
    /// one command, and what that lacks is loaded by one call of the loader, which answers in the order of the keys
    /// that it is given; `None` for a key that there is nothing under. Each is stored under a fence of its own.
    ///
    /// # Errors
    /// Those of [`Cache::get_many_or_load`](crate::Cache::get_many_or_load).
    ///
    /// ```
    /// # use larder::tier::{MemoryServer, Tiered};
    /// # let cache: Tiered<u64, u64> = Tiered::builder(MemoryServer::new().tier()).max_capacity(9).build()?;
    /// cache.insert(1, 1)?;
    /// let squares = cache.get_many_or_load([&1, &2, &3], |missing: &[u64]| {
    ///     assert_eq!(missing, [2, 3]);
    ///     Ok::<_, String>(missing.iter().map(|n| Some(n * n)).collect())
    /// })?;
    /// assert_eq!(squares, [Some(1), Some(4), Some(9)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_many_or_load<'q, Q, F, E>(
        &self,
        keys: impl IntoIterator<Item = &'q Q>,
        mut loader: F,
    ) -> Result<Vec<Option<V>>, TryLoadError<E>>
    where
        Q: Hash + Eq + Equivalent<K> + ToOwned<Owned = K> + TierKey + ?Sized + 'q,
        F: FnMut(&[K]) -> Result<Vec<Option<V>>, E>,
        E: Display,
    {
        let loader = |missing: Vec<K>| ready(loader(&missing));
        blocking_as(self.get_many_or_load_async(keys, loader))
    }

    /// Asynchronous form of [`get_many_or_load`](Self::get_many_or_load): waits without blocking the thread, on any
    /// runtime.
    ///
    /// # Errors
    /// Those of [`get_many_or_load`](Self::get_many_or_load).
    pub async fn get_many_or_load_async<'q, Q, F, Fut, E>(
        &self,
        keys: impl IntoIterator<Item = &'q Q>,
        mut loader: F,
    ) -> Result<Vec<Option<V>>, TryLoadError<E>>
    where
        Q: Hash + Eq + Equivalent<K> + ToOwned<Owned = K> + TierKey + ?Sized + 'q,
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

    /// The values of several keys; one call of the loader loads those that neither the L1 nor the shared tier
    /// has, and says for each how to keep it: for how long, and under which tags. See
    /// [`get_many_or_load`](Self::get_many_or_load).
    ///
    /// # Errors
    /// Those of [`get_many_or_load`](Self::get_many_or_load).
    ///
    /// ```
    /// use larder::Loaded;
    /// # use larder::tier::{MemoryServer, Tiered};
    /// # let cache: Tiered<u64, u64> = Tiered::builder(MemoryServer::new().tier()).max_capacity(9).build()?;
    /// let load = |missing: &[u64]| {
    ///     let square = |n: &u64| Some(Loaded::new(n * n).tag("squares"));
    ///     Ok::<_, String>(missing.iter().map(square).collect())
    /// };
    /// assert_eq!(cache.get_many_or_load_with([&2, &3], load)?, [Some(4), Some(9)]);
    /// cache.invalidate_tag("squares")?;
    /// assert_eq!(cache.get(&2)?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_many_or_load_with<'q, Q, F, E>(
        &self,
        keys: impl IntoIterator<Item = &'q Q>,
        mut loader: F,
    ) -> Result<Vec<Option<V>>, TryLoadError<E>>
    where
        Q: Hash + Eq + Equivalent<K> + ToOwned<Owned = K> + TierKey + ?Sized + 'q,
        F: FnMut(&[K]) -> Result<Vec<Option<Loaded<V>>>, E>,
        E: Display,
    {
        let loader = |missing: Vec<K>| ready(loader(&missing));
        blocking_as(self.get_many_or_load_with_async(keys, loader))
    }

    /// Asynchronous form of [`get_many_or_load_with`](Self::get_many_or_load_with): waits without blocking the thread,
    /// on any runtime.
    ///
    /// # Errors
    /// Those of [`get_many_or_load`](Self::get_many_or_load).
    pub async fn get_many_or_load_with_async<'q, Q, F, Fut, E>(
        &self,
        keys: impl IntoIterator<Item = &'q Q>,
        loader: F,
    ) -> Result<Vec<Option<V>>, TryLoadError<E>>
    where
        Q: Hash + Eq + Equivalent<K> + ToOwned<Owned = K> + TierKey + ?Sized + 'q,
        F: FnMut(Vec<K>) -> Fut,
        Fut: Future<Output = Result<Vec<Option<Loaded<V>>>, E>>,
        E: Display,
    {
        let inner = &self.inner;
        let keys: Vec<&Q> = keys.into_iter().collect();
        let loaded = inner.within_budget(self.find_or_load_many(&keys, loader));
        loaded
            .await
            .unwrap_or_else(|| Err(inner.not_loaded_in_time()))
    }

    /// The values under several keys, in their order, from the L1 or, by one command, the shared tier; `None`
    /// where neither has one.
    ///
    /// # Errors
    /// The tier's, if it was asked and did not answer.
    ///
    /// ```
    /// # use larder::tier::{MemoryServer, Tiered};
    /// # let cache: Tiered<u64, u64> = Tiered::builder(MemoryServer::new().tier()).max_capacity(9).build()?;
    /// cache.insert(1, 1)?;
    /// assert_eq!(cache.get_many([&1, &2])?, [Some(1), None]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_many<'q, Q>(
        &self,
        keys: impl IntoIterator<Item = &'q Q>,
    ) -> Result<Vec<Option<V>>, TierError>
    where
        Q: Hash + Eq + Equivalent<K> + ToOwned<Owned = K> + TierKey + ?Sized + 'q,
    {
        block_on(self.get_many_async(keys))?
    }

    /// Asynchronous form of [`get_many`](Self::get_many): waits without blocking the thread, on any runtime.
    ///
    /// # Errors
    /// Those of [`get_many`](Self::get_many).
    pub async fn get_many_async<'q, Q>(
        &self,
        keys: impl IntoIterator<Item = &'q Q>,
    ) -> Result<Vec<Option<V>>, TierError>
    where
        Q: Hash + Eq + Equivalent<K> + ToOwned<Owned = K> + TierKey + ?Sized + 'q,
    {
        let inner = &self.inner;
        let keys: Vec<&Q> = keys.into_iter().collect();
        let found = inner.within_budget(self.find_many(&keys)).await;
        found.unwrap_or_else(|| Err(inner.not_in_time()))
    }

    async fn find_many<Q>(&self, keys: &[&Q]) -> Result<Vec<Option<V>>, TierError>
    where
        Q: Hash + Eq + Equivalent<K> + ToOwned<Owned = K> + TierKey + ?Sized,
    {
        let inner = &self.inner;
        if inner.demand.any() {
            return self.find_many_alone(keys).await;
        }
        // What the tier told this call, if it was asked and failed.
        let failure = &Mutex::new(None);
        let fill = |missing: Vec<K>| async move {
            let qualified_keys: Vec<Vec<u8>> =
                missing.iter().map(|key| self.qualified_key(key)).collect();
            let found = inner
                .query_many_only(&qualified_keys)
                .await
                .map_err(|error| {
                    let text = error.to_string();
                    *failure.lock() = Some(error);
                    text
                })?;
            let absent = |found: Option<_>| Some(found.unwrap_or_else(|| inner.nothing()));
            Ok::<_, String>(found.into_iter().map(absent).collect())
        };
        let found = self
            .l1
            .get_many_or_load_with_async(keys.iter().copied(), fill)
            .await;
        let failure = failure.lock().take();
        match (found, failure) {
            (Ok(found), _) => Ok(found
                .into_iter()
                .map(|held| held.and_then(|held| held.value))
                .collect()),
            (Err(_), Some(error)) => Err(error),
            // Another call's loader, or its tier. This call has none.
            (Err(TryLoadError::Shared(LoadError::Failed(_))), None) => {
                self.find_many_alone(keys).await
            }
            (Err(error), None) => Err(TierError::NotWaited {
                why: error.to_string().into(),
            }),
        }
    }

    /// Own copies, and what the tier says to this call alone, which is not kept.
    async fn find_many_alone<Q>(&self, keys: &[&Q]) -> Result<Vec<Option<V>>, TierError>
    where
        Q: Hash + Equivalent<K> + TierKey + ?Sized,
    {
        let own: Vec<Option<L1Value<V>>> = keys.iter().map(|key| self.l1.get(*key)).collect();
        let missing = keys.iter().zip(&own).filter(|(_, held)| held.is_none());
        let qualified_keys: Vec<Vec<u8>> =
            missing.map(|(key, _)| self.qualified_key(*key)).collect();
        let mut found = self
            .inner
            .query_many_only(&qualified_keys)
            .await?
            .into_iter();
        let value = |held: Option<L1Value<V>>| match held {
            Some(held) => held.value,
            None => found.next().flatten().and_then(value_of),
        };
        Ok(own.into_iter().map(value).collect())
    }

    async fn find_or_load_many<Q, F, Fut, E>(
        &self,
        keys: &[&Q],
        loader: F,
    ) -> Result<Vec<Option<V>>, TryLoadError<E>>
    where
        Q: Hash + Eq + Equivalent<K> + ToOwned<Owned = K> + TierKey + ?Sized,
        F: FnMut(Vec<K>) -> Fut,
        Fut: Future<Output = Result<Vec<Option<Loaded<V>>>, E>>,
        E: Display,
    {
        let inner = &self.inner;
        // The rounds of one call take tries with it. Taken out while it is called: no user code runs under a lock.
        let loader = &Mutex::new(Some(loader));
        let load = move |missing| {
            let mut taken = loader.lock().take();
            let load = taken.as_mut().map(|loader| loader(missing));
            *loader.lock() = taken;
            load
        };
        let asked = &Mutex::new(HashSet::new());
        let fill = |missing: Vec<K>| {
            let qualified_keys: Vec<Vec<u8>> =
                missing.iter().map(|key| self.qualified_key(key)).collect();
            asked.lock().extend(qualified_keys.iter().cloned());
            inner.fill_many(missing, qualified_keys, load)
        };
        let mut values: Vec<Option<V>> = keys.iter().map(|_| None).collect();
        let mut open: Vec<usize> = (0..keys.len()).collect();
        let (mut demands, mut tries) = (Vec::new(), MAX_TRIES);
        loop {
            let before = inner.nothings();
            let those = open.iter().map(|position| keys[*position]);
            let found = self.l1.get_many_or_load_with_async(those, fill).await?;
            let mut again = Vec::new();
            for (position, held) in open.into_iter().zip(found) {
                if held.is_none() && !asked.lock().contains(&self.qualified_key(keys[position])) {
                    again.push(position);
                }
                values[position] = held.and_then(|held| held.value);
            }
            open = again;
            if open.is_empty() || inner.nothings() == before {
                break;
            }
            // Perhaps the answers of calls without a loader. This one has one.
            let qualified_keys = open
                .iter()
                .map(|position| self.qualified_key(keys[*position]));
            demands.extend(qualified_keys.map(|key| inner.demand.begin(&key)));
            tries -= 1;
            if tries == 0 {
                // They never let this call lead: for it alone.
                let missing: Vec<K> = open
                    .iter()
                    .map(|position| keys[*position].to_owned())
                    .collect();
                let answers = fill(missing).await.map_err(TryLoadError::Own)?;
                for (position, answer) in open.into_iter().zip(answers) {
                    values[position] = answer.and_then(value_of);
                }
                break;
            }
        }
        Ok(values)
    }
}

impl<K, V> TieredInner<K, V>
where
    K: Hash + Eq + Clone + FromTierKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Fills several keys: asks the shared tier, then loads those that it does not have by one call of the loader.
    async fn fill_many<F, Fut, E>(
        &self,
        keys: Vec<K>,
        qualified_keys: Vec<Vec<u8>>,
        loader: F,
    ) -> Result<Vec<Option<Loaded<L1Value<V>>>>, E>
    where
        F: FnOnce(Vec<K>) -> Option<Fut>,
        Fut: Future<Output = Result<Vec<Option<Loaded<V>>>, E>>,
    {
        let leaders = leaders_here();
        let looks = self.query_many(&qualified_keys, &leaders).await;
        let looks = looks.unwrap_or_else(|error| {
            TieredCounters::count(&self.counters.l2_errors);
            let permit = |_| QueryResult::Load(StorePermit::without(&error));
            qualified_keys.iter().map(permit).collect()
        });
        let mut answers = Vec::with_capacity(keys.len());
        let mut permits = Vec::new();
        let mut missing = Vec::new();
        for ((key, qualified_key), query) in keys.into_iter().zip(&qualified_keys).zip(looks) {
            answers.push(match query {
                QueryResult::Found(loaded) => Some(loaded),
                QueryResult::Load(permit) => {
                    permits.push((answers.len(), qualified_key, permit));
                    missing.push(key);
                    None
                }
            });
        }
        if missing.is_empty() {
            return Ok(answers);
        }
        let began = self.clock.now();
        let loaded = match loader(missing) {
            Some(load) => load.await,
            None => Ok(Vec::new()),
        };
        let took = Duration::from_nanos(self.clock.now().saturating_sub(began));
        let values = match loaded {
            Ok(values) if values.len() == permits.len() => values,
            other => {
                give_back(permits.iter_mut().map(|(_, _, permit)| permit)).await;
                // Of a wrong number the L1 says so, and stores nothing.
                let found = answers.len() - permits.len();
                let wrong = other?.len();
                answers.resize_with(found + wrong, || None);
                return Ok(answers);
            }
        };
        self.publish_many(&mut answers, permits, values, took, &leaders)
            .await;
        Ok(answers)
    }

    /// Stores what was loaded: all are on their way before the first is waited for.
    async fn publish_many(
        &self,
        answers: &mut [Option<Loaded<L1Value<V>>>],
        permits: Vec<(usize, &Vec<u8>, StorePermit<'_, V>)>,
        values: Vec<Option<Loaded<V>>>,
        took: Duration,
        leaders: &Leaders,
    ) {
        let mut sent = Vec::with_capacity(permits.len());
        let mut unused = Vec::new();
        for ((position, key, permit), value) in permits.into_iter().zip(values) {
            let Some(value) = value else {
                // Nothing under this key: neither tier remembers that.
                unused.push(permit);
                continue;
            };
            let prepared = self.prepare(key, &permit, value, took).await;
            match prepared {
                Prepared::Not(answer) => {
                    answers[position] = Some(answer);
                    unused.push(permit);
                }
                prepared => {
                    let put = self.send(key, &prepared, leaders);
                    sent.push((position, permit, prepared, put));
                }
            }
        }
        give_back(unused.iter_mut()).await;
        for (position, mut permit, prepared, put) in sent {
            answers[position] = Some(self.conclude(&mut permit, prepared, put).await);
        }
    }
}

fn plain<V>(value: Option<V>) -> Option<Loaded<V>> {
    value.map(Loaded::new)
}

/// Takes placeholders away: all are on their way before the first is waited for.
async fn give_back<'p, 'a: 'p, V: 'p>(permits: impl Iterator<Item = &'p mut StorePermit<'a, V>>) {
    let gone: Vec<_> = permits.filter_map(StorePermit::give_back).collect();
    for gone in gone {
        let _ = gone.await;
    }
}
