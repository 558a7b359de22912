//! Many keys at once: one command for what the own cache has not, one loader call for what the tier has not.

use std::collections::HashSet;
use std::fmt::Display;
use std::future::ready;
use std::hash::Hash;
use std::time::Duration;

use equivalent::Equivalent;

use super::load::{TURNS, blocking_as, value_of};
use super::miss::{Look, Pass};
use super::own_writes::{Leaders, leaders_here};
use super::publish::Prepared;
use super::{Held, Inner, Tiered, TieredCounters};
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
    /// The values under several keys, in their order. Those that the own cache lacks are asked of the shared tier by
    /// one command, and what that lacks is loaded by one call of the loader, which answers in the order of the keys
    /// that it is given; `None` for a key that there is nothing under. Each is stored under a fence of its own.
    ///
    /// # Errors
    /// As [`Cache::get_many_or_load`](crate::Cache::get_many_or_load).
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

    /// [`get_many_or_load`](Self::get_many_or_load) for tasks.
    ///
    /// # Errors
    /// As [`get_many_or_load`](Self::get_many_or_load).
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

    /// As [`get_many_or_load`](Self::get_many_or_load), for a loader that also says how to keep each value: for how long,
    /// and under which tags.
    ///
    /// # Errors
    /// As [`get_many_or_load`](Self::get_many_or_load).
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

    /// [`get_many_or_load_with`](Self::get_many_or_load_with) for tasks.
    ///
    /// # Errors
    /// As [`get_many_or_load`](Self::get_many_or_load).
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

    /// The values under several keys, in their order, from the own cache or, by one command, the shared tier; `None`
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

    /// [`get_many`](Self::get_many) for tasks.
    ///
    /// # Errors
    /// As [`get_many`](Self::get_many).
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
        if inner.wanted.any() {
            return self.find_many_alone(keys).await;
        }
        // What the tier told this call, if it was asked and failed.
        let failure = &Mutex::new(None);
        let fill = |missing: Vec<K>| async move {
            let places: Vec<Vec<u8>> = missing.iter().map(|key| self.place(key)).collect();
            let found = inner.look_many_only(&places).await.map_err(|error| {
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
        let own: Vec<Option<Held<V>>> = keys.iter().map(|key| self.l1.get(*key)).collect();
        let missing = keys.iter().zip(&own).filter(|(_, held)| held.is_none());
        let places: Vec<Vec<u8>> = missing.map(|(key, _)| self.place(*key)).collect();
        let mut found = self.inner.look_many_only(&places).await?.into_iter();
        let value = |held: Option<Held<V>>| match held {
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
        // The rounds of one call take turns with it. Taken out while it is called: no user code runs under a lock.
        let loader = &Mutex::new(Some(loader));
        let load = move |missing| {
            let mut taken = loader.lock().take();
            let load = taken.as_mut().map(|loader| loader(missing));
            *loader.lock() = taken;
            load
        };
        let asked = &Mutex::new(HashSet::new());
        let fill = |missing: Vec<K>| {
            let places: Vec<Vec<u8>> = missing.iter().map(|key| self.place(key)).collect();
            asked.lock().extend(places.iter().cloned());
            inner.fill_many(missing, places, load)
        };
        let mut values: Vec<Option<V>> = keys.iter().map(|_| None).collect();
        let mut open: Vec<usize> = (0..keys.len()).collect();
        let (mut wants, mut turns) = (Vec::new(), TURNS);
        loop {
            let before = inner.nothings();
            let those = open.iter().map(|place| keys[*place]);
            let found = self.l1.get_many_or_load_with_async(those, fill).await?;
            let mut again = Vec::new();
            for (place, held) in open.into_iter().zip(found) {
                if held.is_none() && !asked.lock().contains(&self.place(keys[place])) {
                    again.push(place);
                }
                values[place] = held.and_then(|held| held.value);
            }
            open = again;
            if open.is_empty() || inner.nothings() == before {
                break;
            }
            // Perhaps the answers of calls without a loader. This one has one.
            let places = open.iter().map(|place| self.place(keys[*place]));
            wants.extend(places.map(|place| inner.wanted.begin(&place)));
            turns -= 1;
            if turns == 0 {
                // They never let this call lead: for it alone.
                let missing: Vec<K> = open.iter().map(|place| keys[*place].to_owned()).collect();
                let answers = fill(missing).await.map_err(TryLoadError::Own)?;
                for (place, answer) in open.into_iter().zip(answers) {
                    values[place] = answer.and_then(value_of);
                }
                break;
            }
        }
        Ok(values)
    }
}

impl<K, V> Inner<K, V>
where
    K: Hash + Eq + Clone + FromTierKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// As `fill`, for several keys by one call of the loader.
    async fn fill_many<F, Fut, E>(
        &self,
        keys: Vec<K>,
        places: Vec<Vec<u8>>,
        loader: F,
    ) -> Result<Vec<Option<Loaded<Held<V>>>>, E>
    where
        F: FnOnce(Vec<K>) -> Option<Fut>,
        Fut: Future<Output = Result<Vec<Option<Loaded<V>>>, E>>,
    {
        let leaders = leaders_here();
        let looks = self.look_many(&places, &leaders).await;
        let looks = looks.unwrap_or_else(|error| {
            TieredCounters::count(&self.counters.l2_errors);
            let pass = |_| Look::Load(Pass::without(&error));
            places.iter().map(pass).collect()
        });
        let mut answers = Vec::with_capacity(keys.len());
        let mut passes = Vec::new();
        let mut missing = Vec::new();
        for ((key, place), look) in keys.into_iter().zip(&places).zip(looks) {
            answers.push(match look {
                Look::Found(loaded) => Some(loaded),
                Look::Load(pass) => {
                    passes.push((answers.len(), place, pass));
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
            Ok(values) if values.len() == passes.len() => values,
            other => {
                give_back(passes.iter_mut().map(|(_, _, pass)| pass)).await;
                // Of a wrong number the own cache says so, and stores nothing.
                let found = answers.len() - passes.len();
                let wrong = other?.len();
                answers.resize_with(found + wrong, || None);
                return Ok(answers);
            }
        };
        self.publish_many(&mut answers, passes, values, took, &leaders)
            .await;
        Ok(answers)
    }

    /// Stores what was loaded: all are on their way before the first is waited for.
    async fn publish_many(
        &self,
        answers: &mut [Option<Loaded<Held<V>>>],
        passes: Vec<(usize, &Vec<u8>, Pass<'_, V>)>,
        values: Vec<Option<Loaded<V>>>,
        took: Duration,
        leaders: &Leaders,
    ) {
        let mut sent = Vec::with_capacity(passes.len());
        let mut unused = Vec::new();
        for ((place, key, pass), value) in passes.into_iter().zip(values) {
            let Some(value) = value else {
                // Nothing under this key: neither tier remembers that.
                unused.push(pass);
                continue;
            };
            let prepared = self.prepare(key, &pass, value, took).await;
            match prepared {
                Prepared::Not(answer) => {
                    answers[place] = Some(answer);
                    unused.push(pass);
                }
                prepared => {
                    let put = self.send(key, &prepared, leaders);
                    sent.push((place, pass, prepared, put));
                }
            }
        }
        give_back(unused.iter_mut()).await;
        for (place, mut pass, prepared, put) in sent {
            answers[place] = Some(self.conclude(&mut pass, prepared, put).await);
        }
    }
}

fn plain<V>(value: Option<V>) -> Option<Loaded<V>> {
    value.map(Loaded::new)
}

/// Takes placeholders away: all are on their way before the first is waited for.
async fn give_back<'p, 'a: 'p, V: 'p>(passes: impl Iterator<Item = &'p mut Pass<'a, V>>) {
    let gone: Vec<_> = passes.filter_map(Pass::give_back).collect();
    for gone in gone {
        let _ = gone.await;
    }
}
