//! Putting entries in. No user code runs in here.

use super::evict::prepare_to_evict;
use super::side_tables::{EntryMeta, PolicyView, hash_of};
use super::{Found, LookupScope, NewEntry, Outcome, Shard};
use crate::entry::Entry;
use crate::entry::freshness::Early;
use crate::entry::generation::{EpochCounter, Namespace};
use crate::entry::removal::{RemovalCause, RemovedBatch, RemovedEntry};
use crate::policy::{MAX_HITS, Policy};
use crate::util::clock::Now;

impl<K, V> Shard<K, V> {
    /// Takes notice of a `clear`. Every exclusive critical section begins with it.
    #[inline]
    pub(crate) fn notice_clear(&mut self, epochs: &EpochCounter) {
        let min_epoch = epochs.min_epoch();
        if self.seen_min_epoch < min_epoch {
            self.clear_all(min_epoch, epochs);
        }
    }

    /// Whether the last `clear` was noticed.
    #[inline]
    pub(crate) fn has_noticed(&self, epochs: &EpochCounter) -> bool {
        self.seen_min_epoch >= epochs.min_epoch()
    }

    #[cold]
    fn clear_all(&mut self, min_epoch: u64, epochs: &EpochCounter) {
        self.cleared = self.usage();
        self.policy.clear_all();
        // Above the epoch of every entry in here, and at most that of later ones.
        self.min_epoch = epochs.advance();
        self.seen_min_epoch = min_epoch;
    }

    /// Stores a value where `lookup` found room for it, evicting as far as its weight needs.
    #[inline(always)]
    pub(crate) fn store(
        &mut self,
        new_entry: NewEntry<K, V>,
        found: Found,
        scope: LookupScope<'_>,
        now: &mut Now<'_>,
        out: &mut RemovedBatch<K, V>,
    ) -> Outcome<K, V> {
        match found {
            Found::Absent => match self.insert_evicting_new(new_entry, scope.namespace, now) {
                Ok(old) => {
                    out.push(displaced(old));
                    Outcome::Stored { replaced: None }
                }
                Err(new_entry) => self.store_new(new_entry, scope, now, out),
            },
            Found::Live(id) => {
                let grown = new_entry.weight.saturating_sub(self.weight_of(id));
                if grown > 0 && self.is_over(0, grown) {
                    self.replace(id, new_entry, scope, now, out)
                } else {
                    self.overwrite(id, new_entry, scope, now)
                }
            }
            Found::Dead(id, cause) => {
                self.remove_into(id, cause, out);
                self.store_new(new_entry, scope, now, out)
            }
        }
    }

    /// Stores a value over one that must go first: making room must not evict the very entry that is to
    /// be replaced.
    #[cold]
    fn replace(
        &mut self,
        id: u32,
        new_entry: NewEntry<K, V>,
        scope: LookupScope<'_>,
        now: &mut Now<'_>,
        out: &mut RemovedBatch<K, V>,
    ) -> Outcome<K, V> {
        let old = self.remove(id, RemovalCause::Replaced);
        match self.store_new(new_entry, scope, now, out) {
            Outcome::Stored { .. } => Outcome::Stored {
                replaced: old.map(|gone| (gone.key, gone.value, gone.weight)),
            },
            full => {
                out.extend(old);
                full
            }
        }
    }

    /// Stores a value under a key that has none.
    #[inline(never)]
    fn store_new(
        &mut self,
        new_entry: NewEntry<K, V>,
        scope: LookupScope<'_>,
        now: &mut Now<'_>,
        out: &mut RemovedBatch<K, V>,
    ) -> Outcome<K, V> {
        let NewEntry {
            mut entry,
            weight,
            tags,
            plan,
        } = new_entry;
        let hash = entry.header.hash();
        let due = entry.header.packed_deadline();
        let mut on_time = false;
        let victim = self.make_room(1, weight, scope.epochs, now, out);
        let evicts = victim.is_some();
        let queue = self.policy.admit(hash);
        entry.header.set_queue(queue, 0);
        // The last victim's slot is the new entry's: near, and already on the wheel.
        let id = match victim {
            Some(victim) => match self.slab.replace(victim.id, entry) {
                Ok(old) => {
                    on_time = victim.scheduled && old.header.packed_deadline() <= due;
                    out.push(victim.gone(old));
                    victim.id
                }
                Err(entry) => return Outcome::Full(entry.key, entry.value),
            },
            None => match self.slab.insert(entry) {
                Ok(id) => id,
                Err(entry) => return Outcome::Full(entry.key, entry.value),
            },
        };
        let meta = EntryMeta {
            weight,
            tags,
            namespace: scope.namespace,
            plan,
        };
        self.side_tables.write(id, meta, now);
        let slab = &self.slab;
        self.index.insert(hash, id, |id| hash_of(slab, id));
        let mut slots = PolicyView {
            slab: &mut self.slab,
            side_tables: &self.side_tables,
        };
        self.policy.insert(id, queue, weight, &mut slots);
        if !on_time || self.side_tables.moves_deadlines() {
            self.schedule(id, due.moment());
        }
        if evicts {
            prepare_to_evict(&self.policy, &self.index, &mut self.slab);
        }
        Outcome::Stored { replaced: None }
    }

    fn overwrite(
        &mut self,
        id: u32,
        new_entry: NewEntry<K, V>,
        scope: LookupScope<'_>,
        now: &mut Now<'_>,
    ) -> Outcome<K, V> {
        let NewEntry {
            entry: new,
            weight,
            tags,
            plan,
        } = new_entry;
        let old_weight = self.weight_of(id);
        let Some(entry) = self.slab.get_mut(id) else {
            return Outcome::Full(new.key, new.value);
        };
        let value = std::mem::replace(&mut entry.value, new.value);
        let was_tagged = entry.header.is_tagged();
        let (was, due) = (entry.header.packed_deadline(), new.header.packed_deadline());
        entry.header.renew(new.header);
        entry.header.hit(MAX_HITS);
        self.side_tables.clear_tags(id, was_tagged);
        let meta = EntryMeta {
            weight,
            tags,
            namespace: scope.namespace,
            plan,
        };
        self.side_tables.write(id, meta, now);
        if weight != old_weight {
            let slots = PolicyView {
                slab: &mut self.slab,
                side_tables: &self.side_tables,
            };
            self.policy.reweigh(id, old_weight, weight, &slots);
        }
        self.policy.hit(id);
        if due < was || self.side_tables.moves_deadlines() {
            self.schedule(id, due.moment());
        }
        Outcome::Stored {
            replaced: Some((new.key, value, old_weight)),
        }
    }

    /// Gives an entry a new deadline by age, and a new window before it.
    pub(crate) fn reschedule(&mut self, id: u32, expires_at: u64, early: Early, now: &mut Now<'_>) {
        if let Some(entry) = self.slab.get_mut(id) {
            entry.header.set_check_at(early.check_at(expires_at));
            let check_at = entry.header.check_at();
            self.side_tables.set_early(id, early);
            self.side_tables.touch(id, now);
            self.schedule(id, check_at);
        }
    }

    #[inline]
    pub(super) fn schedule(&mut self, id: u32, check_at: u64) {
        self.wheel
            .schedule(id, self.side_tables.reclaim_at(id, check_at));
    }

    /// Changes a value in place, keeping its deadline by age: for counters, whose arithmetic is not user code.
    pub(crate) fn update(&mut self, id: u32, now: &mut Now<'_>, update: impl FnOnce(&mut V)) {
        if let Some(entry) = self.slab.get_mut(id) {
            update(&mut entry.value);
            self.side_tables.touch(id, now);
            self.side_tables.renew_version(id);
            self.note_use(id);
        }
    }
}

/// The entry that a fast insert evicted.
fn displaced<K, V>(entry: Entry<K, V>) -> RemovedEntry<K, V> {
    RemovedEntry {
        key: entry.key,
        value: entry.value,
        cause: RemovalCause::Size,
        weight: 1,
        namespace: Namespace::ROOT,
        epoch: entry.header.epoch(),
    }
}
