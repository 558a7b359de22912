//! Finding an entry, and judging whether it may be served. Nothing changes in here.

use equivalent::Equivalent;

use super::{Found, LookupScope, ReadContext, Shard};
use crate::ds::index::BucketProbe;
use crate::entry::Entry;
use crate::entry::generation::{EpochCounter, Namespace};
use crate::entry::header::LivenessBound;
use crate::entry::removal::RemovalCause;
use crate::policy::MAX_HITS;
use crate::util::clock::{Clock, Now};

/// What a read found.
pub(crate) struct Hit<'a, K, V> {
    pub(crate) id: u32,
    pub(crate) entry: &'a Entry<K, V>,
    /// It took a closer look: the window in which the entry is loaded again may have begun.
    pub(crate) near: bool,
}

impl<K, V> Shard<K, V> {
    /// The entry of `key`, dead or alive. Runs `Eq` and changes nothing.
    #[inline]
    fn find<Q>(
        &self,
        hash: u32,
        key: &Q,
        namespace: u32,
        now: &mut Now<'_>,
    ) -> Option<(u32, &Entry<K, V>)>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let home = self.index.home(hash);
        if self.wheel.len() > 0 {
            // What is found will have a deadline: the time is read while the bucket is on its way. Later on
            // it would keep the processor from seeing ahead to the next wait.
            now.coarse();
        }
        self.find_from(home, hash, key, namespace, self.side_tables.none_in_use())
    }

    /// With `plain`, all entries are known to be in the root.
    #[inline(always)]
    fn find_from<Q>(
        &self,
        home: BucketProbe<'_>,
        hash: u32,
        key: &Q,
        namespace: u32,
        plain: bool,
    ) -> Option<(u32, &Entry<K, V>)>
    where
        Q: Equivalent<K> + ?Sized,
    {
        for id in home.ids() {
            if let Some(entry) = self.entry_of(id, hash, key, namespace, plain) {
                return Some((id, entry));
            }
        }
        if home.has_overflow(&self.index) {
            return self.find_further(hash, key, namespace);
        }
        None
    }

    #[inline(never)]
    fn find_further<Q>(&self, hash: u32, key: &Q, namespace: u32) -> Option<(u32, &Entry<K, V>)>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let mut asked = |id| self.entry_of(id, hash, key, namespace, false).is_some();
        let id = self.index.find_further(hash, &mut asked)?;
        Some((id, self.slab.get(id)?))
    }

    /// The entry of `key` in a shard that uses no side tables: all of its entries are in the root namespace.
    #[inline(always)]
    pub(super) fn find_in_root<Q>(
        &self,
        home: BucketProbe<'_>,
        hash: u32,
        key: &Q,
    ) -> Option<(u32, &Entry<K, V>)>
    where
        Q: Equivalent<K> + ?Sized,
    {
        // The first id is nearly always the one, if there is one.
        let mut ids = home.ids();
        if let Some(id) = ids.next() {
            if let Some(entry) = self.entry_of(id, hash, key, Namespace::ROOT, true) {
                return Some((id, entry));
            }
        }
        if ids.next().is_none() && !home.has_overflow(&self.index) {
            return None;
        }
        self.find_after_first(hash, key)
    }

    /// Looks at all ids but the first in the bucket, for a shard that uses no side tables.
    #[inline(never)]
    fn find_after_first<Q>(&self, hash: u32, key: &Q) -> Option<(u32, &Entry<K, V>)>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let home = self.index.home(hash);
        let ask = |id| Some((id, self.entry_of(id, hash, key, Namespace::ROOT, true)?));
        let here = home.ids().skip(1).find_map(ask);
        if here.is_some() || !home.has_overflow(&self.index) {
            return here;
        }
        self.find_further(hash, key, Namespace::ROOT)
    }

    /// The entry at `id`, if it is the key's. With `plain`, all entries are known to be in the root.
    #[inline]
    fn entry_of<Q>(
        &self,
        id: u32,
        hash: u32,
        key: &Q,
        namespace: u32,
        plain: bool,
    ) -> Option<&Entry<K, V>>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let entry = self.slab.get(id)?;
        let its = || {
            if plain {
                Namespace::ROOT
            } else {
                self.side_tables.namespace(id)
            }
        };
        let same = entry.header.may_be_of(hash) && its() == namespace;
        (same && key.equivalent(&entry.key)).then_some(entry)
    }

    /// The live entry of `key`, for those who only read, noted as used if they say so. Runs `Eq`.
    #[inline(always)]
    pub(crate) fn read<Q>(
        &self,
        hash: u32,
        key: &Q,
        reader: ReadContext<'_>,
        note: bool,
    ) -> Option<Hit<'_, K, V>>
    where
        Q: Equivalent<K> + ?Sized,
    {
        // What few calls need is made where they need it, as each word that is kept for them is stored and
        // fetched by all. So they are handed the reader in parts.
        let ReadContext {
            namespace,
            epochs,
            clock,
            ..
        } = reader;
        if !self.side_tables.none_in_use() || !reader.in_root {
            return self.read_with_side_tables(hash, key, namespace, epochs, clock, note);
        }
        let home = self.index.home(hash);
        // While the bucket is on its way, and not when the entry has come: an instruction between the one wait
        // and the next keeps the processor from seeing that far ahead.
        let moment = if self.wheel.len() > 0 {
            clock.at_latest()
        } else {
            0
        };
        // A minimum epoch that this shard has not noticed yet kills all it holds. (The root has no other minimum.)
        if !self.has_noticed(epochs) {
            return None;
        }
        let bound = LivenessBound::new(self.min_epoch, moment);
        let (id, entry) = self.find_in_root(home, hash, key)?;
        let near = !entry.header.is_surely_live(bound);
        if near && !self.is_alive(id, entry, namespace, epochs, &mut Now::new(clock)) {
            return None;
        }
        if note {
            entry.header.hit(MAX_HITS);
        }
        Some(Hit { id, entry, near })
    }

    /// The live entry of `key` in a shard that uses side tables, or in a namespace. Runs `Eq`.
    #[inline(never)]
    fn read_with_side_tables<Q>(
        &self,
        hash: u32,
        key: &Q,
        namespace: &Namespace,
        epochs: &EpochCounter,
        clock: &Clock,
        note: bool,
    ) -> Option<Hit<'_, K, V>>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let mut now = Now::new(clock);
        let home = self.index.home(hash);
        let moment = if self.wheel.len() > 0 {
            now.at_latest()
        } else {
            0
        };
        if !self.has_noticed(epochs) {
            return None;
        }
        let bound = LivenessBound::new(self.min_epoch.max(namespace.min_epoch()), moment);
        let (id, entry) = self.find_from(home, hash, key, namespace.id, false)?;
        let near = !entry.header.is_surely_live(bound);
        let alive = if !self.side_tables.has_idle() && !near {
            !entry.header.is_tagged() || !self.is_dead_by_tag(id, entry, epochs)
        } else {
            self.is_alive(id, entry, namespace, epochs, &mut now)
        };
        if !alive {
            return None;
        }
        if note {
            self.note_hit(id, entry, &mut now);
        }
        Some(Hit { id, entry, near })
    }

    #[cold]
    #[inline(never)]
    fn is_alive(
        &self,
        id: u32,
        entry: &Entry<K, V>,
        namespace: &Namespace,
        epochs: &EpochCounter,
        now: &mut Now<'_>,
    ) -> bool {
        let scope = LookupScope {
            namespace: namespace.id,
            min_epoch: namespace.min_epoch(),
            cache_min_epoch: epochs.min_epoch(),
            epochs,
        };
        matches!(self.check_liveness(id, entry, scope, now), Found::Live(_))
    }

    /// Finds the entry of `key`, and whether it is alive. Runs `Eq` and changes nothing.
    #[inline(always)]
    pub(crate) fn lookup<Q>(
        &self,
        hash: u32,
        key: &Q,
        scope: LookupScope<'_>,
        now: &mut Now<'_>,
    ) -> Found
    where
        Q: Equivalent<K> + ?Sized,
    {
        match self.find(hash, key, scope.namespace, now) {
            Some((id, entry)) => self.check_liveness(id, entry, scope, now),
            None => Found::Absent,
        }
    }

    /// Whether the entry at `id` may be served.
    #[inline]
    pub(crate) fn check_liveness(
        &self,
        id: u32,
        entry: &Entry<K, V>,
        scope: LookupScope<'_>,
        now: &mut Now<'_>,
    ) -> Found {
        if self.is_dead(id, entry, scope) {
            Found::Dead(id, RemovalCause::Invalidated)
        } else if now.has_reached(self.expires_at(id, entry)) {
            Found::Dead(id, RemovalCause::Expired)
        } else {
            Found::Live(id)
        }
    }

    #[inline]
    fn is_dead(&self, id: u32, entry: &Entry<K, V>, scope: LookupScope<'_>) -> bool {
        // A minimum epoch that this shard has not noticed yet kills all it holds.
        self.seen_min_epoch < scope.cache_min_epoch
            || entry.header.epoch() < self.min_epoch.max(scope.min_epoch)
            || (entry.header.is_tagged() && self.is_dead_by_tag(id, entry, scope.epochs))
    }

    /// Whether a tagged entry is dead by one of its tags.
    pub(super) fn is_dead_by_tag(
        &self,
        id: u32,
        entry: &Entry<K, V>,
        epochs: &EpochCounter,
    ) -> bool {
        let tags = self.side_tables.tags(id);
        tags.is_some_and(|tags| !tags.admits(entry.header.epoch(), epochs))
    }

    /// The highest minimum epoch among the tags of what was found.
    #[inline]
    pub(crate) fn highest_tag_min_epoch(&self, found: Found) -> u64 {
        let tags = match found {
            Found::Live(id) | Found::Dead(id, _) => self.side_tables.tags(id),
            Found::Absent => None,
        };
        tags.and_then(|tags| tags.min_epochs().max()).unwrap_or(0)
    }
}
