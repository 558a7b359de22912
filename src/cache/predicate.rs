//! Removing by a predicate: `remove_if` and `retain`.

use std::hash::{BuildHasher, Hash};

use equivalent::Equivalent;

use super::Cache;
use super::compute::{OVERTAKEN_AFTER, OwnTurn};
use crate::entry::removal::drop_catching;
use crate::flight::WriteTurn;
use crate::store::{Removal, Snapshot};

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Removes the live value of a key if the closure says so, and returns it. The closure runs without a lock on a
    /// clone, under the rules of [`compute`](Self::compute): again if what it judged was changed meanwhile, six times at
    /// most, and if a blind write came between each time, the removal counts as having come before the last of them.
    /// If the closure says no, that is the end: nothing is asked again, and no load is revoked.
    ///
    /// Where nothing live is there, the closure is not asked. A stale value, which counts as absent, goes, and so does
    /// the right of a load in flight to store what it brings: the closure cannot judge that. O(1), apart from the
    /// closure.
    ///
    /// ```
    /// let cache = larder::Cache::builder().max_capacity(100).build()?;
    /// cache.insert("a", 1);
    /// assert_eq!(cache.remove_if("a", |n| *n > 1), None);
    /// assert_eq!(cache.remove_if("a", |n| *n == 1), Some(1));
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn remove_if<Q, F>(&self, key: &Q, mut condemned: F) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
        K: Clone,
        V: Clone,
        F: FnMut(&V) -> bool,
    {
        let hash = self.hash(key);
        let store = &self.inner.store;
        let mut own = OwnTurn::None;
        let (mut races, mut losses) = (0, 0);
        let mut queues = store.has_turn(hash, &self.namespace, key);
        loop {
            if queues {
                // Its own key, for the flight. Where there is none, there is nothing to remove.
                if let Some(key) = store.peek_key(hash, &self.namespace, key) {
                    own = self.take_turn(&key, own, races);
                    drop_catching(key);
                }
            }
            let (value, version) = loop {
                let seen = store.peek_versioned(hash, &self.namespace, key, |value, seen| {
                    (value.clone(), seen.version)
                });
                match seen {
                    Some(seen) => break seen,
                    None if store.revoke_absent(hash, &self.namespace, key) => return None,
                    None => {}
                }
            };
            let running = own.enter();
            if !condemned(&value) {
                return None;
            }
            drop(running);
            match store.remove_version(hash, &self.namespace, key, version, own.turn()) {
                Removal::Removed(removed) => {
                    drop_catching(value);
                    return Some(removed);
                }
                _ if losses == OVERTAKEN_AFTER => return Some(value),
                Removal::Changed | Removal::Busy => {
                    drop_catching(value);
                    // The first race is run without a turn.
                    match own {
                        OwnTurn::None => races += 1,
                        OwnTurn::Has(_) | OwnTurn::Ignores => losses += 1,
                    }
                    queues = true;
                }
            }
        }
    }

    /// Keeps only the entries for which the closure says so, and returns how many it removed. The closure runs without
    /// a lock on clones; an entry is removed only if it is still the version that was judged. Stale values, if any are
    /// kept, are judged and removed like others, and not counted. Entries written while this runs may or may not be
    /// visited. O(entries), 64 slots under a lock at a time.
    ///
    /// # Loads in flight
    /// What a load brings that began before this call and ends during it is judged like the rest. A load that is still
    /// running at the end keeps its right to store its value if there is a live value under its key, which was judged.
    /// One without, which the closure could not judge, keeps it if the closure was asked and condemned nothing;
    /// otherwise it loses it, for what it brings might be of the kind that was condemned. That is counted as
    /// [`unpublished_revoked`](crate::Stats::unpublished_revoked).
    ///
    /// ```
    /// let cache = larder::Cache::builder().max_capacity(100).build()?;
    /// cache.insert_many([("a", 1), ("b", 2), ("c", 3)]);
    /// assert_eq!(cache.retain(|_key, n| n % 2 == 1), 1);
    /// assert_eq!(cache.get("b"), None);
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn retain<F>(&self, mut keep: F) -> usize
    where
        K: Clone,
        V: Clone,
        F: FnMut(&K, &V) -> bool,
    {
        let store = &self.inner.store;
        let loads = store.flights_of(&self.namespace);
        store.keep_versions();
        let mut judged = Judged::default();
        let mut page = store.first_page();
        while store.next_page(&self.namespace, &mut page, true) {
            while let Some((key, value, version)) = page.pop() {
                judged.asked = true;
                if !keep(&key, &value) {
                    self.remove_judged(&key, version, &mut judged);
                }
            }
        }
        for load in &loads {
            self.ask_about(load.key(), &mut keep, &mut judged);
        }
        if judged.condemned || !judged.asked {
            for load in &loads {
                if !store.revoke_unjudged(load, &self.namespace) {
                    // It has ended, perhaps since it was asked about.
                    self.ask_about(load.key(), &mut keep, &mut judged);
                }
            }
        }
        judged.removed
    }

    /// Asks about the live value of a key, if there is one, and removes it if it is condemned. What was written since
    /// it was asked about came after this call, and stays.
    fn ask_about<F>(&self, key: &K, keep: &mut F, judged: &mut Judged)
    where
        V: Clone,
        F: FnMut(&K, &V) -> bool,
    {
        let hash = self.hash(key);
        let seen = |value: &V, seen: Snapshot| (value.clone(), seen.version);
        let store = &self.inner.store;
        let found = store.peek_versioned(hash, &self.namespace, key, seen);
        if let Some((value, version)) = found {
            judged.asked = true;
            if !keep(key, &value) {
                self.remove_judged(key, version, judged);
            }
        }
    }

    fn remove_judged(&self, key: &K, version: u32, judged: &mut Judged) {
        judged.condemned = true;
        let store = &self.inner.store;
        let hash = self.hash(key);
        // A blind write to a `compute` that has its turn.
        let ignores = WriteTurn::Ignores;
        let gone = store.remove_version(hash, &self.namespace, key, version, ignores);
        judged.removed += usize::from(matches!(gone, Removal::Removed(_)));
    }
}

/// What a `retain` has come to.
#[derive(Default)]
struct Judged {
    asked: bool,
    condemned: bool,
    removed: usize,
}
