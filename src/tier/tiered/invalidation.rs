//! What others have changed: the listener.

use std::hash::Hash;
use std::sync::atomic::Ordering;

use super::namespace::split_key;
use super::versions::{EVERYTHING, namespace_of, tag_of};
use super::{L1Value, TieredCounters, TieredInner};
use crate::cache::Cache;
use crate::tier::contract::{Change, FlushCause, TierListener};
use crate::tier::key::FromTierKey;

impl<K, V> TieredInner<K, V>
where
    K: Hash + Eq + Clone + FromTierKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn invalidate(&self, change: &Change) -> bool {
        match change {
            Change::Key(bytes) => {
                let useful = match self.find(bytes) {
                    Some((l1, key)) => l1.invalidate(&key),
                    // Whose key it is cannot be known: it may be anybody's.
                    None => self.forget_everything(),
                };
                self.waiters.changed(bytes);
                useful
            }
            Change::Own(bytes, content_id) => {
                let leaders = self.writes.leaders_of(*content_id);
                if let Some((l1, key)) = self.find(bytes) {
                    l1.invalidate_keeping_leaders(&key, &leaders);
                }
                self.waiters.changed(bytes);
                false
            }
            Change::Version(name) => {
                // First the version: what is loaded after the tag's own invalidation must not find the old one.
                let known = self.versions.invalidate(name);
                if let Some(tag) = tag_of(name) {
                    self.l1.invalidate_tag(tag);
                } else if let Some(namespace) = namespace_of(name) {
                    self.l1.namespace(namespace).clear();
                } else if **name == *EVERYTHING {
                    self.l1.clear();
                }
                known
            }
        }
    }

    /// The key whose bytes these are, and the view of the L1 that has it.
    fn find(&self, bytes: &[u8]) -> Option<(Cache<K, L1Value<V>>, K)> {
        let (namespace, key) = split_key(bytes)?;
        let l1 = match namespace {
            Some(namespace) => self.l1.namespace(namespace),
            None => self.l1.clone(),
        };
        Some((l1, K::from_tier(key)?))
    }

    /// Everything that was read is forgotten, and loads in flight lose their right to publish.
    fn forget_everything(&self) -> bool {
        self.versions.clear();
        self.l1.clear();
        true
    }
}

impl<K, V> TierListener for TieredInner<K, V>
where
    K: Hash + Eq + Clone + FromTierKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn changed(&self, changes: &[Change]) {
        for change in changes {
            if self.invalidate(change) {
                TieredCounters::count(&self.counters.useful_pushes);
            }
        }
    }

    fn flushed(&self, _cause: FlushCause) {
        self.forget_everything();
        self.waiters.everything_changed();
    }

    fn connection_changed(&self, up: bool) {
        self.connected.store(up, Ordering::Relaxed);
    }
}
