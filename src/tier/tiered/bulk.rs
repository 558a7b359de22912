//! Many keys at once: one command for what the own cache has not, one loader call for what the tier has not.

use std::fmt::Display;
use std::future::ready;
use std::hash::Hash;
use std::time::Duration;

use equivalent::Equivalent;

use super::fetch::{Look, Pass};
use super::load::blocking_as;
use super::{Held, Inner, Tiered, TieredCounters};
use crate::entry::Loaded;
use crate::error::TryLoadError;
use crate::sync::Mutex;
use crate::tier::key::{FromTierKey, TierKey};

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
        loader: F,
    ) -> Result<Vec<Option<V>>, TryLoadError<E>>
    where
        Q: Hash + Eq + Equivalent<K> + ToOwned<Owned = K> + TierKey + ?Sized + 'q,
        F: FnMut(Vec<K>) -> Fut,
        Fut: Future<Output = Result<Vec<Option<V>>, E>>,
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
        let fill = |missing: Vec<K>| inner.fill_many(missing, load);
        let found = inner.l1.get_many_or_load_with_async(keys, fill);
        let found = inner.within_budget(found).await?;
        let value = |held: Option<Held<V>>| held.and_then(|held| held.value);
        Ok(found.into_iter().map(value).collect())
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
        loader: F,
    ) -> Result<Vec<Option<Loaded<Held<V>>>>, E>
    where
        F: FnOnce(Vec<K>) -> Option<Fut>,
        Fut: Future<Output = Result<Vec<Option<V>>, E>>,
    {
        let bytes: Vec<Vec<u8>> = keys.iter().map(|key| key.to_tier().into_owned()).collect();
        let _pledged: Vec<_> = bytes.iter().map(|key| self.pledges.begin(key)).collect();
        let looks = self.look_many(&bytes).await.unwrap_or_else(|_| {
            TieredCounters::count(&self.counters.l2_errors);
            bytes.iter().map(|_| Look::Load(Pass::NONE)).collect()
        });
        let mut answers = Vec::with_capacity(keys.len());
        let mut passes = Vec::new();
        let mut missing = Vec::new();
        for ((key, bytes), look) in keys.into_iter().zip(&bytes).zip(looks) {
            answers.push(match look {
                Look::Found(loaded) => Some(loaded),
                Look::Load(pass) => {
                    passes.push((answers.len(), bytes, pass));
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
                for (_, key, pass) in &passes {
                    self.give_back(key, pass).await;
                }
                // Of a wrong number the own cache says so, and stores nothing.
                let found = answers.len() - passes.len();
                let wrong = other?.len();
                answers.resize_with(found + wrong, || None);
                return Ok(answers);
            }
        };
        self.publish_many(&mut answers, passes, values, took).await;
        Ok(answers)
    }

    /// Stores what was loaded: all are on their way before the first is waited for.
    async fn publish_many(
        &self,
        answers: &mut [Option<Loaded<Held<V>>>],
        passes: Vec<(usize, &Vec<u8>, Pass<V>)>,
        values: Vec<Option<V>>,
        took: Duration,
    ) {
        let mut sent = Vec::with_capacity(passes.len());
        for ((place, key, pass), value) in passes.into_iter().zip(values) {
            let Some(value) = value else {
                // Nothing under this key: neither tier remembers that.
                self.give_back(key, &pass).await;
                continue;
            };
            let prepared = self.prepare(key, &pass, Loaded::new(value), took).await;
            let put = self.send(key, &prepared);
            sent.push((place, key, pass, prepared, put));
        }
        for (place, key, pass, prepared, put) in sent {
            answers[place] = Some(self.conclude(key, &pass, prepared, put).await);
        }
    }
}
