//! The versions of tags, and of the whole, as far as this process knows them.

use std::hash::Hash;

use super::TieredInner;
use crate::entry::Loaded;
use crate::tier::contract::TierError;
use crate::tier::key::FromTierKey;
use crate::util::sync::Mutex;

/// The name whose version is moved to invalidate everything. Those of tags begin with '#', those of namespaces with
/// '@'.
pub(in crate::tier) const EVERYTHING: &str = "*";

/// The name of a tag's version.
pub(super) fn name_of(tag: &str) -> Box<str> {
    ["#", tag].concat().into()
}

/// The name of a namespace's version.
pub(super) fn name_of_namespace(namespace: &str) -> Box<str> {
    ["@", namespace].concat().into()
}

/// The namespace of a version's name.
pub(super) fn namespace_of(name: &str) -> Option<&str> {
    name.strip_prefix('@')
}

/// The tag of a version's name.
pub(super) fn tag_of(name: &str) -> Option<&str> {
    name.strip_prefix('#')
}

impl<K, V> TieredInner<K, V>
where
    K: Hash + Eq + Clone + FromTierKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// The versions under these names, in their order. Asks the tier for those that are not known, all at once.
    pub(super) async fn versions_of(
        &self,
        names: &[Box<str>],
    ) -> Result<Vec<Option<u64>>, TierError> {
        // What the tier told this call, if it was the one that asked.
        let failure = Mutex::new(None);
        let read = |missing| {
            let (read, failure) = (self.tier.versions(missing), &failure);
            async move {
                let versions = read.await.map_err(|error| {
                    let text = error.to_string();
                    *failure.lock() = Some(error);
                    text
                })?;
                let known = |version: Option<u64>| version.map(Loaded::new);
                Ok::<_, String>(versions.into_iter().map(known).collect())
            }
        };
        let found = self.versions.get_many_or_load_with_async(names, read).await;
        let failure = failure.lock().take();
        match (found, failure) {
            (Ok(versions), _) => Ok(versions),
            (Err(_), Some(error)) => Err(error),
            // Another call's failure: ask by ourselves.
            (Err(_), None) => self.tier.versions(names.to_vec()).await,
        }
    }

    /// The versions under these names for a value whose load began when the sequence was at `started_at`; `None` if
    /// one of them has moved since, or may have.
    pub(super) async fn versions_as_of(
        &self,
        names: &[Box<str>],
        started_at: u64,
    ) -> Result<Option<Vec<u64>>, TierError> {
        let mut found = self.versions_of(names).await?;
        if found.contains(&None) {
            let nameless = names
                .iter()
                .zip(&found)
                .filter(|(_, found)| found.is_none());
            let nameless = nameless.map(|(name, _)| name.clone()).collect();
            self.tier.init_versions(nameless).await?;
            found = self.versions_of(names).await?;
        }
        let known = |version: Option<u64>| version.filter(|version| *version <= started_at);
        Ok(found.into_iter().map(known).collect())
    }
}
