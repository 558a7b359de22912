//! Walking over the entries.

use std::fmt;
use std::hash::{BuildHasher, Hash};

use super::Cache;
use crate::entry::generation::Namespace;
use crate::store::{Page, Store};
use crate::util::sync::Arc;

/// An iterator over clones of the live entries: see [`Cache::iter`].
///
/// ```
/// let cache = larder::Cache::builder().max_capacity(100).build()?;
/// cache.insert("a", 1);
/// let all: Vec<(&str, i32)> = cache.iter().collect();
/// assert_eq!(all, [("a", 1)]);
/// # Ok::<(), larder::BuildError>(())
/// ```
pub struct Iter<K, V> {
    store: Arc<Store<K, V>>,
    namespace: Arc<Namespace>,
    page: Page<K, V>,
}

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Walks over clones of this namespace's live entries, in no order.
    ///
    /// Weakly consistent: an entry that is there, unchanged, for the whole walk is seen exactly once;
    /// one that comes, goes or is replaced meanwhile is seen or not, at most once for each stay; every
    /// entry seen was live at some moment during the call that returned its page of up to 64 entries.
    /// No lock is held between calls of `next`. Touches nothing. O(1) amortised. While the iterator lives,
    /// blocks of memory that hold few entries are not given back: do not keep it for long.
    ///
    /// ```
    /// let cache = larder::Cache::builder().max_capacity(100).build()?;
    /// cache.insert_many([("a", 1), ("b", 2)]);
    /// assert_eq!(cache.iter().map(|(_, n)| n).sum::<i32>(), 3);
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn iter(&self) -> Iter<K, V>
    where
        K: Clone,
        V: Clone,
    {
        Iter {
            store: Arc::clone(&self.inner.store),
            namespace: Arc::clone(&self.namespace),
            page: self.inner.store.first_page(),
        }
    }
}

impl<K: Clone, V: Clone> Iterator for Iter<K, V> {
    type Item = (K, V);

    fn next(&mut self) -> Option<(K, V)> {
        loop {
            if let Some((key, value, _)) = self.page.pop() {
                return Some((key, value));
            }
            if !self.store.next_page(&self.namespace, &mut self.page, false) {
                return None;
            }
        }
    }
}

/// Never prints a key or a value.
impl<K, V> fmt::Debug for Iter<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").finish_non_exhaustive()
    }
}
