//! What others have changed: the listener.

use std::hash::Hash;
use std::sync::atomic::Ordering;

use super::versions::{EVERYTHING, tag_of};
use super::{Inner, TieredCounters};
use crate::tier::contract::{Change, FlushCause, TierListener};
use crate::tier::key::FromTierKey;

impl<K, V> Inner<K, V>
where
    K: Hash + Eq + Clone + FromTierKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn hear(&self, change: &Change) -> bool {
        match change {
            Change::Key(bytes) => {
                let useful = match K::from_tier(bytes) {
                    Some(key) => self.l1.invalidate(&key),
                    // Whose key it is cannot be known: it may be anybody's.
                    None => self.forget_everything(),
                };
                self.waiters.changed(bytes);
                useful
            }
            Change::Own(bytes) => {
                let leaders = self.pledges.of(bytes);
                if let Some(key) = K::from_tier(bytes) {
                    self.l1.invalidate_beside(&key, &leaders);
                }
                false
            }
            Change::Version(name) => {
                // First the version: what is loaded after the tag's own invalidation must not find the old one.
                let known = self.versions.invalidate(name);
                match tag_of(name) {
                    Some(tag) => self.l1.invalidate_tag(tag),
                    None if **name == *EVERYTHING => self.l1.clear(),
                    None => {}
                }
                known
            }
        }
    }

    /// Everything that was read is forgotten, and loads in flight lose their right to publish.
    fn forget_everything(&self) -> bool {
        self.versions.clear();
        self.l1.clear();
        true
    }
}

impl<K, V> TierListener for Inner<K, V>
where
    K: Hash + Eq + Clone + FromTierKey + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn changed(&self, changes: &[Change]) {
        for change in changes {
            if self.hear(change) {
                TieredCounters::count(&self.counters.useful_pushes);
            }
        }
    }

    fn flushed(&self, _cause: FlushCause) {
        self.forget_everything();
        self.waiters.everything_changed();
    }

    fn linked(&self, up: bool) {
        self.linked.store(up, Ordering::Relaxed);
    }
}
