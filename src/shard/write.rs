//! Putting entries in and taking them out. No user code runs in here.

use super::beside::{Pockets, hash_of};
use super::{Found, Incoming, Outcome, Scope, Shard, Totals};
use crate::entry::Entry;
use crate::generation::{Sequence, TagSet};
use crate::parts::policy::contract::{MAX_HITS, Policy};
use crate::removal::{Batch, Gone, RemovalCause};
use crate::sync::atomic::AtomicU64;
use crate::time::{NEVER, Now};

impl<K, V> Shard<K, V> {
    /// Takes notice of a `clear`. Every exclusive visit begins with it.
    pub(crate) fn notice_clear(&mut self, sequence: &Sequence) {
        let floor = sequence.floor();
        if self.floor >= floor {
            return;
        }
        self.evictor.doom_all();
        self.doomed.entries += self.live.entries;
        self.doomed.weight += self.live.weight;
        self.live = Totals::default();
        // Above every number that an entry in here was born with, and at most what later ones get.
        self.mark = sequence.draw();
        self.floor = floor;
    }

    /// Stores a value where `look` found room for it, evicting as far as its weight needs.
    pub(crate) fn store(
        &mut self,
        hash: u32,
        incoming: Incoming<K, V>,
        found: Found,
        scope: Scope<'_>,
        now: &mut Now<'_>,
        out: &mut Batch<K, V>,
    ) -> Outcome<K, V> {
        match found {
            Found::Live(id) => {
                let grown = incoming.weight.saturating_sub(self.weight_of(id));
                if !self.is_over(0, grown) {
                    return self.overwrite(id, incoming, now);
                }
                // Making room must not evict the very entry that is to be replaced: take it out first.
                let old = self.take(id, RemovalCause::Replaced);
                match self.store_new(hash, incoming, scope, now, out) {
                    Outcome::Stored { .. } => Outcome::Stored {
                        replaced: old.map(|gone| (gone.key, gone.value, gone.weight)),
                    },
                    full => {
                        out.extend(old);
                        full
                    }
                }
            }
            Found::Past(id, cause) => {
                self.unlink(id, cause, out);
                self.store_new(hash, incoming, scope, now, out)
            }
            Found::Absent => self.store_new(hash, incoming, scope, now, out),
        }
    }

    fn store_new(
        &mut self,
        hash: u32,
        incoming: Incoming<K, V>,
        scope: Scope<'_>,
        now: &mut Now<'_>,
        out: &mut Batch<K, V>,
    ) -> Outcome<K, V> {
        self.make_room(1, incoming.weight, scope.sequence, now, out);
        let entry = Entry {
            key: incoming.key,
            value: incoming.value,
            expires_at: incoming.expires_at,
            born: incoming.born,
            hash,
            namespace: scope.namespace,
            version: self.next_version(),
            hits: Default::default(),
            tagged: incoming.tags.is_some(),
        };
        let id = match self.slab.insert(entry) {
            Ok(id) => id,
            Err(entry) => return Outcome::Full(entry.key, entry.value),
        };
        self.set_weight(id, incoming.weight);
        if incoming.tags.is_some() {
            self.set_tags(id, incoming.tags);
        }
        self.touch_idle(id, now);
        let slab = &self.slab;
        self.index.insert(hash, id, |id| hash_of(slab, id));
        let mut slots = Pockets {
            slab: &mut self.slab,
            weights: self.weights.as_ref(),
        };
        self.evictor.insert(id, &mut slots);
        self.live.add(incoming.weight);
        self.schedule(id);
        Outcome::Stored { replaced: None }
    }

    fn overwrite(&mut self, id: u32, incoming: Incoming<K, V>, now: &mut Now<'_>) -> Outcome<K, V> {
        let old_weight = self.weight_of(id);
        let version = self.next_version();
        let Some(entry) = self.slab.get_mut(id) else {
            return Outcome::Full(incoming.key, incoming.value);
        };
        let value = std::mem::replace(&mut entry.value, incoming.value);
        entry.expires_at = incoming.expires_at;
        entry.born = incoming.born;
        entry.version = version;
        let was_tagged = std::mem::replace(&mut entry.tagged, incoming.tags.is_some());
        entry.hit(MAX_HITS);
        self.set_weight(id, incoming.weight);
        if was_tagged || incoming.tags.is_some() {
            self.set_tags(id, incoming.tags);
        }
        self.touch_idle(id, now);
        self.evictor.reweigh(id, old_weight, incoming.weight);
        self.evictor.hit(id);
        self.live.weight = self.live.weight - old_weight + incoming.weight;
        self.schedule(id);
        Outcome::Stored {
            replaced: Some((incoming.key, value, old_weight)),
        }
    }

    /// Takes an entry out and hands it over.
    pub(crate) fn take(&mut self, id: u32, cause: RemovalCause) -> Option<Gone<K, V>> {
        let mark = self.mark;
        let doomed = self.slab.get(id)?.born < mark;
        let weight = self.weight_of(id);
        if doomed {
            self.evictor.remove_doomed(id);
            self.doomed.take(weight);
        } else {
            let slots = Pockets {
                slab: &mut self.slab,
                weights: self.weights.as_ref(),
            };
            self.evictor.remove(id, &slots);
            self.live.take(weight);
        }
        self.detach(id, cause, weight)
    }

    /// Takes an entry out into the batch.
    pub(crate) fn unlink(&mut self, id: u32, cause: RemovalCause, out: &mut Batch<K, V>) {
        if let Some(gone) = self.take(id, cause) {
            out.push(gone);
        }
    }

    /// The part of a removal that is the same whichever list the entry stood in.
    pub(super) fn detach(
        &mut self,
        id: u32,
        cause: RemovalCause,
        weight: u64,
    ) -> Option<Gone<K, V>> {
        self.wheel.deschedule(id);
        let entry = self.slab.remove(id)?;
        let slab = &self.slab;
        self.index.remove(entry.hash, id, |id| hash_of(slab, id));
        if entry.tagged {
            self.set_tags(id, None);
        }
        Some(Gone {
            key: entry.key,
            value: entry.value,
            cause,
            weight,
            namespace: entry.namespace,
            born: entry.born,
        })
    }

    /// Gives an entry a new deadline by age.
    pub(crate) fn set_deadline(&mut self, id: u32, expires_at: u64, now: &mut Now<'_>) {
        if let Some(entry) = self.slab.get_mut(id) {
            entry.expires_at = expires_at;
            self.touch_idle(id, now);
            self.schedule(id);
        }
    }

    /// Changes a value in place, keeping its deadline by age: for counters, whose arithmetic is not user code.
    pub(crate) fn update(&mut self, id: u32, now: &mut Now<'_>, update: impl FnOnce(&mut V)) {
        let version = self.next_version();
        if let Some(entry) = self.slab.get_mut(id) {
            update(&mut entry.value);
            entry.version = version;
            self.touch_idle(id, now);
        }
    }

    #[inline]
    fn schedule(&mut self, id: u32) {
        let due = match self.slab.get(id) {
            Some(entry) => self.deadline(id, entry),
            None => NEVER,
        };
        if due != NEVER {
            self.wheel.schedule(id, due);
        } else if self.wheel.len() > 0 {
            self.wheel.deschedule(id);
        }
    }

    #[inline]
    fn touch_idle(&mut self, id: u32, now: &mut Now<'_>) {
        if let Some(idle) = &mut self.idle {
            idle.accessed.reserve_for(id);
            *idle.accessed.get_mut(id) = AtomicU64::new(now.precise());
        }
    }

    #[inline]
    fn set_weight(&mut self, id: u32, weight: u64) {
        if let Some(weights) = &mut self.weights {
            weights.reserve_for(id);
            *weights.get_mut(id) = weight;
        }
    }

    fn set_tags(&mut self, id: u32, tags: Option<Box<TagSet>>) {
        if tags.is_some() {
            self.tags.reserve_for(id);
        }
        // An id whose chunk was never reserved has no tags to take away.
        if self.tags.try_get(id).is_some() {
            *self.tags.get_mut(id) = tags;
        }
    }

    fn next_version(&mut self) -> u32 {
        self.version = self.version.wrapping_add(1);
        self.version
    }
}
