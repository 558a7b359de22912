//! Changing things: here, in the shared tier, and thereby everywhere.

use std::hash::Hash;

use equivalent::Equivalent;

use super::miss::ReadOutcome;
use super::own_writes::{Leaders, Placeholder};
use super::versions::{EVERYTHING, name_of, name_of_namespace};
use super::{L1Value, Scope, Tiered, TieredCounters, TieredInner};
use crate::entry::{EntryOptions, Ttl, What};
use crate::tier::async_util::{all, block_on};
use crate::tier::contract::TierError;
use crate::tier::key::{FromTierKey, TierKey};

/// How often a change is tried anew where others change the same thing.
const MAX_TRIES: usize = 16;

impl<K, V> Tiered<K, V>
where
    K: Hash + Eq + Clone + FromTierKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Stores a value in the shared tier, whatever is there. The L1 does not keep it: the next read fetches it,
    /// and so is told when it changes. Loads in flight, in every process, lose their right to store.
    ///
    /// Of two that insert at one moment the later one stays, which need not be the one that wrote the database last:
    /// for values that have a source, change the source and [`invalidate`](Self::invalidate).
    ///
    /// # Errors
    /// The tier's. What was stored under the key may then still be there; it is removed as soon as the tier can be
    /// reached and lets it.
    ///
    /// ```
    /// # use larder::tier::{MemoryServer, Tiered};
    /// # let cache: Tiered<String, u64> = Tiered::builder(MemoryServer::new().tier()).max_capacity(9).build()?;
    /// cache.insert("a".to_owned(), 1)?;
    /// assert_eq!(cache.get("a")?, Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn insert(&self, key: K, value: V) -> Result<(), TierError> {
        block_on(self.insert_async(key, value))?
    }

    /// Asynchronous form of [`insert`](Self::insert): waits without blocking the thread, on any runtime.
    ///
    /// # Errors
    /// Those of [`insert`](Self::insert).
    pub async fn insert_async(&self, key: K, value: V) -> Result<(), TierError> {
        self.insert_with_async(key, value, EntryOptions::new())
            .await
    }

    /// [`insert`](Self::insert) with a time to live, tags and so on.
    ///
    /// # Errors
    /// Those of [`insert`](Self::insert).
    ///
    /// ```
    /// use larder::EntryOptions;
    /// # use larder::tier::{MemoryServer, Tiered};
    /// # let cache: Tiered<String, u64> = Tiered::builder(MemoryServer::new().tier()).max_capacity(9).build()?;
    /// cache.insert_with("a".to_owned(), 1, EntryOptions::new().tag("letters"))?;
    /// cache.invalidate_tag("letters")?;
    /// assert_eq!(cache.get("a")?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn insert_with(&self, key: K, value: V, options: EntryOptions) -> Result<(), TierError> {
        block_on(self.insert_with_async(key, value, options))?
    }

    /// Asynchronous form of [`insert_with`](Self::insert_with): waits without blocking the thread, on any runtime.
    ///
    /// # Errors
    /// Those of [`insert`](Self::insert).
    pub async fn insert_with_async(
        &self,
        key: K,
        value: V,
        options: EntryOptions,
    ) -> Result<(), TierError> {
        let inner = &self.inner;
        if self.scope == Scope::Local {
            let (held, options) = inner.l1_value(value, options);
            // Refused, it is not kept: as with `Cache::insert`.
            let _ = self.l1.insert_with(key, held, options);
            return Ok(());
        }
        if self.scope == Scope::Both {
            self.l1.invalidate(&key);
        }
        let stored = inner
            .store(&self.qualified_key(&key), &value, &options)
            .await;
        stored.inspect_err(|_| TieredCounters::count(&inner.counters.l2_errors))
    }

    /// [`insert`](Self::insert) for each of these; up to 256 are on their way together. Not atomic.
    ///
    /// # Errors
    /// The first that there is, as [`insert`](Self::insert). The others have been tried all the same.
    ///
    /// ```
    /// # use larder::tier::{MemoryServer, Tiered};
    /// # let cache: Tiered<u64, u64> = Tiered::builder(MemoryServer::new().tier()).max_capacity(9).build()?;
    /// cache.insert_many((1..=3).map(|n| (n, n * n)))?;
    /// assert_eq!(cache.get_many([&1, &2, &4])?, [Some(1), Some(4), None]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn insert_many(&self, entries: impl IntoIterator<Item = (K, V)>) -> Result<(), TierError> {
        block_on(self.insert_many_async(entries))?
    }

    /// Asynchronous form of [`insert_many`](Self::insert_many): waits without blocking the thread, on any runtime.
    ///
    /// # Errors
    /// Those of [`insert_many`](Self::insert_many).
    pub async fn insert_many_async(
        &self,
        entries: impl IntoIterator<Item = (K, V)>,
    ) -> Result<(), TierError> {
        let mut entries = entries.into_iter();
        let mut outcome = Ok(());
        loop {
            let some = entries.by_ref().take(256);
            let some: Vec<_> = some
                .map(|(key, value)| self.insert_async(key, value))
                .collect();
            if some.is_empty() {
                return outcome;
            }
            for stored in all(some).await {
                outcome = outcome.and(stored);
            }
        }
    }

    /// Stores a value in the shared tier if there is none, and says whether it did: of all processes that ask for the
    /// same absence, one is told `true`. Expired, stale and invalidated values count as absent, as does one that
    /// somebody is loading. Within [`Scope::Local`] the L1 alone decides.
    ///
    /// # Errors
    /// The tier's. Whether it was stored is then not known, unless the error says that there is no connection.
    ///
    /// ```
    /// # use larder::tier::{MemoryServer, Tiered};
    /// # let cache: Tiered<String, u64> = Tiered::builder(MemoryServer::new().tier()).max_capacity(9).build()?;
    /// assert!(cache.add("a".to_owned(), 1)?);
    /// assert!(!cache.add("a".to_owned(), 2)?);
    /// assert_eq!(cache.get("a")?, Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn add(&self, key: K, value: V) -> Result<bool, TierError> {
        block_on(self.add_async(key, value))?
    }

    /// Asynchronous form of [`add`](Self::add): waits without blocking the thread, on any runtime.
    ///
    /// # Errors
    /// Those of [`add`](Self::add).
    pub async fn add_async(&self, key: K, value: V) -> Result<bool, TierError> {
        self.add_with_async(key, value, EntryOptions::new()).await
    }

    /// [`add`](Self::add) with a time to live, tags and so on.
    ///
    /// # Errors
    /// Those of [`add`](Self::add).
    ///
    /// ```
    /// use larder::EntryOptions;
    /// # use larder::tier::{MemoryServer, Tiered};
    /// # let cache: Tiered<String, u64> = Tiered::builder(MemoryServer::new().tier()).max_capacity(9).build()?;
    /// let tagged = EntryOptions::new().tag("letters");
    /// assert!(cache.add_with("a".to_owned(), 1, tagged.clone())?);
    /// cache.invalidate_tag("letters")?;
    /// assert!(cache.add_with("a".to_owned(), 2, tagged)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn add_with(&self, key: K, value: V, options: EntryOptions) -> Result<bool, TierError> {
        block_on(self.add_with_async(key, value, options))?
    }

    /// Asynchronous form of [`add_with`](Self::add_with): waits without blocking the thread, on any runtime.
    ///
    /// # Errors
    /// Those of [`add`](Self::add).
    pub async fn add_with_async(
        &self,
        key: K,
        value: V,
        options: EntryOptions,
    ) -> Result<bool, TierError> {
        let inner = &self.inner;
        if self.scope == Scope::Local {
            let (held, options) = inner.l1_value(value, options);
            let added = self.l1.add_with(key, held, options);
            return Ok(added.is_ok_and(|added| added.is_stored()));
        }
        let added = inner
            .add_shared(&self.qualified_key(&key), &value, &options)
            .await;
        added.inspect_err(|_| TieredCounters::count(&inner.counters.l2_errors))
    }

    /// Removes a key, and says whether there was something in the shared tier (within [`Scope::Local`]: here). Loads
    /// in flight, in every process, lose their right to store. After it has returned, nothing that was loaded before
    /// it is served in this process; in others, from when the tier's message has come.
    ///
    /// # Errors
    /// The tier's. The own copy is gone all the same, and the removal in the tier is made up for: before the next
    /// connection is used, or (if it was refused) with a later heartbeat.
    ///
    /// ```
    /// # use larder::tier::{MemoryServer, Tiered};
    /// # let cache: Tiered<String, u64> = Tiered::builder(MemoryServer::new().tier()).max_capacity(9).build()?;
    /// cache.insert("a".to_owned(), 1)?;
    /// assert!(cache.invalidate("a")?);
    /// assert!(!cache.invalidate("a")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn invalidate<Q>(&self, key: &Q) -> Result<bool, TierError>
    where
        Q: Hash + Equivalent<K> + TierKey + ?Sized,
    {
        block_on(self.invalidate_async(key))?
    }

    /// Asynchronous form of [`invalidate`](Self::invalidate): waits without blocking the thread, on any runtime.
    ///
    /// # Errors
    /// Those of [`invalidate`](Self::invalidate).
    pub async fn invalidate_async<Q>(&self, key: &Q) -> Result<bool, TierError>
    where
        Q: Hash + Equivalent<K> + TierKey + ?Sized,
    {
        let removed = self.invalidate_many_async([key]).await?;
        Ok(removed > 0)
    }

    /// [`invalidate`](Self::invalidate) for each of the keys, by one command; returns how many there were. Not atomic.
    ///
    /// # Errors
    /// Those of [`invalidate`](Self::invalidate).
    ///
    /// ```
    /// # use larder::tier::{MemoryServer, Tiered};
    /// # let cache: Tiered<String, u64> = Tiered::builder(MemoryServer::new().tier()).max_capacity(9).build()?;
    /// cache.insert("a".to_owned(), 1)?;
    /// assert_eq!(cache.invalidate_many(["a", "b"])?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn invalidate_many<'q, Q>(
        &self,
        keys: impl IntoIterator<Item = &'q Q>,
    ) -> Result<u64, TierError>
    where
        Q: Hash + Equivalent<K> + TierKey + ?Sized + 'q,
    {
        block_on(self.invalidate_many_async(keys))?
    }

    /// Asynchronous form of [`invalidate_many`](Self::invalidate_many): waits without blocking the thread, on any
    /// runtime.
    ///
    /// # Errors
    /// Those of [`invalidate`](Self::invalidate).
    pub async fn invalidate_many_async<'q, Q>(
        &self,
        keys: impl IntoIterator<Item = &'q Q>,
    ) -> Result<u64, TierError>
    where
        Q: Hash + Equivalent<K> + TierKey + ?Sized + 'q,
    {
        let mut here = 0;
        let bytes: Vec<Vec<u8>> = keys
            .into_iter()
            .inspect(|key| {
                if self.scope != Scope::Shared {
                    here += u64::from(self.l1.invalidate(*key));
                }
            })
            .map(|key| self.qualified_key(key))
            .collect();
        if self.scope == Scope::Local {
            return Ok(here);
        }
        let removed = self.inner.tier.remove_many(bytes).await;
        removed.inspect_err(|_| TieredCounters::count(&self.inner.counters.l2_errors))
    }

    /// Removes everything that bears a tag, by one command, however much that is. Loads in flight whose answers name
    /// it will not be stored.
    ///
    /// # Errors
    /// Those of [`invalidate`](Self::invalidate).
    ///
    /// ```
    /// use larder::EntryOptions;
    /// # use larder::tier::{MemoryServer, Tiered};
    /// # let cache: Tiered<String, u64> = Tiered::builder(MemoryServer::new().tier()).max_capacity(9).build()?;
    /// cache.insert_with("a".to_owned(), 1, EntryOptions::new().tag("letters"))?;
    /// cache.invalidate_tag("letters")?;
    /// assert_eq!(cache.get("a")?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn invalidate_tag(&self, tag: &str) -> Result<(), TierError> {
        block_on(self.invalidate_tag_async(tag))?
    }

    /// Asynchronous form of [`invalidate_tag`](Self::invalidate_tag): waits without blocking the thread, on any
    /// runtime.
    ///
    /// # Errors
    /// Those of [`invalidate`](Self::invalidate).
    pub async fn invalidate_tag_async(&self, tag: &str) -> Result<(), TierError> {
        if self.scope != Scope::Shared {
            self.inner.l1.invalidate_tag(tag);
        }
        self.incr_version(name_of(tag)).await
    }

    /// Removes everything that was ever stored under this tier's prefix (of a [`namespace`](Self::namespace), what was
    /// stored in it), by one command.
    ///
    /// # Errors
    /// Those of [`invalidate`](Self::invalidate).
    ///
    /// ```
    /// # use larder::tier::{MemoryServer, Tiered};
    /// # let cache: Tiered<String, u64> = Tiered::builder(MemoryServer::new().tier()).max_capacity(9).build()?;
    /// cache.insert("a".to_owned(), 1)?;
    /// cache.clear()?;
    /// assert_eq!(cache.get("a")?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn clear(&self) -> Result<(), TierError> {
        block_on(self.clear_async())?
    }

    /// Asynchronous form of [`clear`](Self::clear): waits without blocking the thread, on any runtime.
    ///
    /// # Errors
    /// Those of [`invalidate`](Self::invalidate).
    pub async fn clear_async(&self) -> Result<(), TierError> {
        if self.scope != Scope::Shared {
            self.l1.clear();
        }
        let name = self.namespace.as_deref().map(name_of_namespace);
        self.incr_version(name.unwrap_or_else(|| EVERYTHING.into()))
            .await
    }

    async fn incr_version(&self, name: Box<str>) -> Result<(), TierError> {
        if self.scope == Scope::Local {
            return Ok(());
        }
        let bumped = self.inner.tier.incr_version(name).await;
        bumped
            .map(|_| ())
            .inspect_err(|_| TieredCounters::count(&self.inner.counters.l2_errors))
    }
}

impl<K, V> TieredInner<K, V>
where
    K: Hash + Eq + Clone + FromTierKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// A value that no other process knows of, and its time here.
    fn l1_value(&self, value: V, mut options: EntryOptions) -> (L1Value<V>, EntryOptions) {
        let own = self.rules.l1_time_to_live;
        let time = match options.ttl {
            Ttl::For(time) => time.min(own),
            Ttl::Default => self.rules.time_to_live.min(own),
            Ttl::Forever => own,
        };
        options.ttl = Ttl::For(time);
        (L1Value::without_id(Some(value)), options)
    }

    /// Takes the key's place, and stores over that once it is answered: see the module's argument.
    async fn store(&self, key: &[u8], value: &V, options: &EntryOptions) -> Result<(), TierError> {
        let nobody = Leaders::default();
        for _ in 0..MAX_TRIES {
            let (content_id, content) = self.placeholder(key)?;
            let write = self.writes.begin(content_id, &nobody);
            // However this ends, nobody shall wait for it.
            let mut placeholder = Placeholder::new(&*self.tier, key, write);
            let seized = self
                .tier
                .set_placeholder(key.to_vec(), content, self.rules.lease);
            let started_at = seized.await?;
            let content = self.content_of(key, Some(value), options, started_at).await;
            let stored = match content {
                Ok(Some(content)) => {
                    let (bytes, kept_for) = (content.bytes, content.kept_for);
                    self.tier
                        .compare_and_set(key.to_vec(), bytes, content_id, kept_for)
                        .await
                }
                // A tag has moved meanwhile. The version it has now is as of the next turn.
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            match stored {
                Ok(stored) => {
                    placeholder.set_gone();
                    if stored {
                        return Ok(());
                    }
                    // A load has stored meanwhile, or somebody else has written: this write comes after it.
                }
                Err(error) => {
                    let _ = placeholder.take_away().await;
                    return Err(error);
                }
            }
        }
        Err(TierError::Contended)
    }

    async fn add_shared(
        &self,
        key: &[u8],
        value: &V,
        options: &EntryOptions,
    ) -> Result<bool, TierError> {
        let nobody = Leaders::default();
        for _ in 0..MAX_TRIES {
            let (mut placeholder, content_id, added) = self.add_placeholder(key, &nobody)?;
            let add_placeholder = added.await?;
            let over = if add_placeholder.stored {
                content_id
            } else {
                placeholder.set_gone();
                match self.read(key).await? {
                    Some((_, ReadOutcome::Fresh(loaded))) if is_value(&loaded.what) => {
                        return Ok(false);
                    }
                    // What is stored counts as absent: it is replaced, if it is still there.
                    Some((content_id, _)) => content_id,
                    None => continue,
                }
            };
            let content = self.content_of(key, Some(value), options, add_placeholder.sequence);
            let Some(content) = content.await? else {
                continue;
            };
            let (bytes, kept_for) = (content.bytes, content.kept_for);
            if self
                .tier
                .compare_and_set(key.to_vec(), bytes, over, kept_for)
                .await?
            {
                placeholder.set_gone();
                return Ok(true);
            }
        }
        Err(TierError::Contended)
    }
}

/// Whether this is a value, and not an absence.
fn is_value<V>(what: &What<L1Value<V>>) -> bool {
    matches!(what, What::Value(held) if held.value.is_some())
}
