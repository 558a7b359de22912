//! Changing things: here, in the shared tier, and thereby everywhere.

use std::hash::Hash;

use equivalent::Equivalent;

use super::versions::{EVERYTHING, name_of};
use super::{Held, Inner, Scope, Tiered, TieredCounters};
use crate::entry::{EntryOptions, Ttl};
use crate::tier::contract::{Fence, TierError};
use crate::tier::envelope::{Envelope, Kind, seal_of};
use crate::tier::key::{FromTierKey, TierKey};
use crate::tier::wake::block_on;

/// How often a change is tried anew where others change the same thing.
const TURNS: usize = 16;

impl<K, V> Tiered<K, V>
where
    K: Hash + Eq + Clone + FromTierKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Stores a value in the shared tier, whatever is there. The own cache does not keep it: the next read fetches it,
    /// and so is told when it changes. Loads in flight, in every process, lose their right to store.
    ///
    /// Of two that insert at one moment the later one stays, which need not be the one that wrote the database last:
    /// for values that have a source, change the source and [`invalidate`](Self::invalidate).
    ///
    /// # Errors
    /// The tier's. What stood under the key may then be there still; it is removed as soon as the tier can be reached
    /// and lets it.
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

    /// [`insert`](Self::insert) for tasks.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub async fn insert_async(&self, key: K, value: V) -> Result<(), TierError> {
        self.insert_with_async(key, value, EntryOptions::new())
            .await
    }

    /// [`insert`](Self::insert) with a time to live, tags and so on.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
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

    /// [`insert_with`](Self::insert_with) for tasks.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub async fn insert_with_async(
        &self,
        key: K,
        value: V,
        options: EntryOptions,
    ) -> Result<(), TierError> {
        let inner = &self.inner;
        if self.scope == Scope::Local {
            inner.insert_here(key, value, options);
            return Ok(());
        }
        self.forget_here(&key);
        let bytes = key.to_tier();
        let content = inner.current_content(&bytes, &value, &options).await;
        let stored = match content {
            Ok(content) => {
                let (content, kept_for) = (content.bytes, content.kept_for);
                let put = inner
                    .tier
                    .put(bytes.to_vec(), content, Fence::None, kept_for);
                put.await.map(|_| ())
            }
            Err(error) => {
                // A write that could not be made is still a write: the older value is not served after it.
                let _ = inner.tier.remove(bytes.to_vec(), Fence::None).await;
                Err(error)
            }
        };
        stored.inspect_err(|_| TieredCounters::count(&inner.counters.l2_errors))
    }

    /// Stores a value in the shared tier if there is none, and says whether it did: of all processes that ask for the
    /// same absence, one is told `true`. Expired, stale and invalidated values count as absent, as does one that
    /// somebody is loading. Within [`Scope::Local`] the own cache alone decides.
    ///
    /// # Errors
    /// The tier's. Whether it was stored is then not known, unless the error says that there is no link.
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

    /// [`add`](Self::add) for tasks.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub async fn add_async(&self, key: K, value: V) -> Result<bool, TierError> {
        let inner = &self.inner;
        let options = EntryOptions::new();
        if self.scope == Scope::Local {
            let (held, options) = inner.held_here(value, options);
            let added = inner.l1.add_with(key, held, options);
            return Ok(added.is_ok_and(|added| added.is_stored()));
        }
        let bytes = key.to_tier();
        let added = inner.add_shared(&bytes, &value, &options).await;
        added.inspect_err(|_| TieredCounters::count(&inner.counters.l2_errors))
    }

    /// Removes a key, and says whether there was something in the shared tier (within [`Scope::Local`]: here). Loads
    /// in flight, in every process, lose their right to store. After it has returned, nothing that was loaded before
    /// it is served in this process; in others, from when the tier's message has come.
    ///
    /// # Errors
    /// The tier's. The own copy is gone all the same, and the removal in the tier is made up for: before the next link is
    /// used, or (if it was refused) with a later heartbeat.
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

    /// [`invalidate`](Self::invalidate) for tasks.
    ///
    /// # Errors
    /// As [`invalidate`](Self::invalidate).
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
    /// As [`invalidate`](Self::invalidate).
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

    /// [`invalidate_many`](Self::invalidate_many) for tasks.
    ///
    /// # Errors
    /// As [`invalidate`](Self::invalidate).
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
                    here += u64::from(self.inner.l1.invalidate(*key));
                }
            })
            .map(|key| key.to_tier().into_owned())
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
    /// As [`invalidate`](Self::invalidate).
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

    /// [`invalidate_tag`](Self::invalidate_tag) for tasks.
    ///
    /// # Errors
    /// As [`invalidate`](Self::invalidate).
    pub async fn invalidate_tag_async(&self, tag: &str) -> Result<(), TierError> {
        if self.scope != Scope::Shared {
            self.inner.l1.invalidate_tag(tag);
        }
        self.bump(name_of(tag)).await
    }

    /// Removes everything that was ever stored under this tier's prefix, by one command.
    ///
    /// # Errors
    /// As [`invalidate`](Self::invalidate).
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

    /// [`clear`](Self::clear) for tasks.
    ///
    /// # Errors
    /// As [`invalidate`](Self::invalidate).
    pub async fn clear_async(&self) -> Result<(), TierError> {
        if self.scope != Scope::Shared {
            self.inner.l1.clear();
        }
        self.bump(EVERYTHING.into()).await
    }

    async fn bump(&self, name: Box<str>) -> Result<(), TierError> {
        if self.scope == Scope::Local {
            return Ok(());
        }
        let bumped = self.inner.tier.bump(name).await;
        bumped
            .map(|_| ())
            .inspect_err(|_| TieredCounters::count(&self.inner.counters.l2_errors))
    }

    fn forget_here(&self, key: &K) {
        if self.scope == Scope::Both {
            self.inner.l1.invalidate(key);
        }
    }
}

impl<K, V> Inner<K, V>
where
    K: Hash + Eq + Clone + FromTierKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// A value that no other process knows of, and its time here.
    fn held_here(&self, value: V, mut options: EntryOptions) -> (Held<V>, EntryOptions) {
        let own = self.rules.own_time_to_live;
        let time = match options.ttl {
            Ttl::For(time) => time.min(own),
            Ttl::Default => self.rules.time_to_live.min(own),
            Ttl::Forever => own,
        };
        options.ttl = Ttl::For(time);
        (Held::unsealed(Some(value)), options)
    }

    fn insert_here(&self, key: K, value: V, options: EntryOptions) {
        let (held, options) = self.held_here(value, options);
        // Refused, it is not kept: as with `Cache::insert`.
        let _ = self.l1.insert_with(key, held, options);
    }

    /// The content of a value that is written now.
    async fn current_content(
        &self,
        key: &[u8],
        value: &V,
        options: &EntryOptions,
    ) -> Result<super::publish::Content, TierError> {
        for _ in 0..TURNS {
            // A version that is newer than this number has moved since, and is read again.
            let born = self.tier.sequence().await?;
            if let Some(content) = self.content_of(key, Some(value), options, born).await? {
                return Ok(content);
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
        for _ in 0..TURNS {
            let content = self.current_content(key, value, options).await?;
            let (bytes, kept_for) = (content.bytes, content.kept_for);
            let added = self.tier.add(key.to_vec(), bytes.clone(), kept_for).await?;
            if added.stored {
                return Ok(true);
            }
            let found = self.tier.get_many(vec![key.to_vec()]).await?;
            let Some(found) = found.into_iter().next().flatten() else {
                continue;
            };
            if self.is_alive(key, &found).await? {
                return Ok(false);
            }
            // What stands there counts as absent: it is taken the place of, if it is that still.
            let fence = seal_of(&found).map_or(Fence::None, Fence::Value);
            if self.tier.put(key.to_vec(), bytes, fence, kept_for).await? {
                return Ok(true);
            }
        }
        Err(TierError::Contended)
    }

    /// Whether a content is a value that may be served fresh.
    async fn is_alive(&self, key: &[u8], content: &[u8]) -> Result<bool, TierError> {
        let Ok(envelope) = Envelope::decode(content, key, &self.rules.limits) else {
            return Ok(false);
        };
        if envelope.kind != Kind::Value || self.clock.unix_millis() >= envelope.expires {
            return Ok(false);
        }
        let names: Vec<Box<str>> = envelope
            .tags
            .iter()
            .map(|(name, _)| Box::from(*name))
            .collect();
        let listed = envelope.tags.iter().map(|(_, version)| Some(*version));
        Ok(self.versions_of(&names).await?.into_iter().eq(listed))
    }
}
