//! Putting entries in and taking them out. No user code runs in here.

use super::evict::prepare_to_evict;
use super::side_tables::{Extras, Pockets, hash_of};
use super::{Found, Incoming, Outcome, Scope, Shard};
use crate::entry::Entry;
use crate::entry::freshness::Early;
use crate::entry::generation::{Namespace, Sequence};
use crate::entry::removal::{Batch, Gone, RemovalCause};
use crate::policy::{MAX_HITS, Policy};
use crate::util::clock::Now;

impl<K, V> Shard<K, V> {
    /// Takes notice of a `clear`. Every exclusive visit begins with it.
    #[inline]
    pub(crate) fn notice_clear(&mut self, sequence: &Sequence) {
        let floor = sequence.floor();
        if self.floor < floor {
            self.doom_all(floor, sequence);
        }
    }

    /// Whether the last `clear` was noticed.
    #[inline]
    pub(crate) fn has_noticed(&self, sequence: &Sequence) -> bool {
        self.floor >= sequence.floor()
    }

    #[cold]
    fn doom_all(&mut self, floor: u64, sequence: &Sequence) {
        self.doomed = self.held();
        self.evictor.doom_all();
        // Above every number that an entry in here was born with, and at most what later ones get.
        self.mark = sequence.draw();
        self.floor = floor;
    }

    /// Stores a value where `look` found room for it, evicting as far as its weight needs.
    #[inline(always)]
    pub(crate) fn store(
        &mut self,
        incoming: Incoming<K, V>,
        found: Found,
        scope: Scope<'_>,
        now: &mut Now<'_>,
        out: &mut Batch<K, V>,
    ) -> Outcome<K, V> {
        match found {
            Found::Absent => match self.turn_over_incoming(incoming, scope.namespace, now) {
                Ok(old) => {
                    out.push(displaced(old));
                    Outcome::Stored { replaced: None }
                }
                Err(incoming) => self.store_new(incoming, scope, now, out),
            },
            Found::Live(id) => {
                let grown = incoming.weight.saturating_sub(self.weight_of(id));
                if grown > 0 && self.is_over(0, grown) {
                    self.replace(id, incoming, scope, now, out)
                } else {
                    self.overwrite(id, incoming, scope, now)
                }
            }
            Found::Past(id, cause) => {
                self.unlink(id, cause, out);
                self.store_new(incoming, scope, now, out)
            }
        }
    }

    /// Stores a value over one that must go first: making room must not evict the very entry that is to
    /// be replaced.
    #[cold]
    fn replace(
        &mut self,
        id: u32,
        incoming: Incoming<K, V>,
        scope: Scope<'_>,
        now: &mut Now<'_>,
        out: &mut Batch<K, V>,
    ) -> Outcome<K, V> {
        let old = self.take(id, RemovalCause::Replaced);
        match self.store_new(incoming, scope, now, out) {
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
        incoming: Incoming<K, V>,
        scope: Scope<'_>,
        now: &mut Now<'_>,
        out: &mut Batch<K, V>,
    ) -> Outcome<K, V> {
        let Incoming {
            mut entry,
            weight,
            tags,
            plan,
        } = incoming;
        let hash = entry.stamp.hash();
        let due = entry.stamp.due();
        let mut on_time = false;
        let victim = self.make_room(1, weight, scope.sequence, now, out);
        let evicts = victim.is_some();
        let place = self.evictor.admit(hash);
        entry.stamp.mark(place, 0);
        // The last victim's slot is the new entry's: near, and already on the wheel.
        let id = match victim {
            Some(victim) => match self.slab.replace(victim.id, entry) {
                Ok(old) => {
                    on_time = victim.scheduled && old.stamp.due() <= due;
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
        let extras = Extras {
            weight,
            tags,
            namespace: scope.namespace,
            plan,
        };
        self.beside.write(id, extras, now);
        let slab = &self.slab;
        self.index.insert(hash, id, |id| hash_of(slab, id));
        let mut slots = Pockets {
            slab: &mut self.slab,
            beside: &self.beside,
        };
        self.evictor.insert(id, place, weight, &mut slots);
        if !on_time || self.beside.moves_deadlines() {
            self.schedule(id, due.moment());
        }
        if evicts {
            prepare_to_evict(&self.evictor, &self.index, &mut self.slab);
        }
        Outcome::Stored { replaced: None }
    }

    fn overwrite(
        &mut self,
        id: u32,
        incoming: Incoming<K, V>,
        scope: Scope<'_>,
        now: &mut Now<'_>,
    ) -> Outcome<K, V> {
        let Incoming {
            entry: new,
            weight,
            tags,
            plan,
        } = incoming;
        let old_weight = self.weight_of(id);
        let Some(entry) = self.slab.get_mut(id) else {
            return Outcome::Full(new.key, new.value);
        };
        let value = std::mem::replace(&mut entry.value, new.value);
        let was_tagged = entry.stamp.is_tagged();
        let (was, due) = (entry.stamp.due(), new.stamp.due());
        entry.stamp.renew(new.stamp);
        entry.stamp.hit(MAX_HITS);
        self.beside.forget(id, was_tagged);
        let extras = Extras {
            weight,
            tags,
            namespace: scope.namespace,
            plan,
        };
        self.beside.write(id, extras, now);
        if weight != old_weight {
            let slots = Pockets {
                slab: &mut self.slab,
                beside: &self.beside,
            };
            self.evictor.reweigh(id, old_weight, weight, &slots);
        }
        self.evictor.hit(id);
        if due < was || self.beside.moves_deadlines() {
            self.schedule(id, due.moment());
        }
        Outcome::Stored {
            replaced: Some((new.key, value, old_weight)),
        }
    }

    /// Gives an entry a new deadline by age, and a new window before it.
    pub(crate) fn set_deadline(
        &mut self,
        id: u32,
        expires_at: u64,
        early: Early,
        now: &mut Now<'_>,
    ) {
        if let Some(entry) = self.slab.get_mut(id) {
            entry.stamp.set_expires_at(early.check_at(expires_at));
            let check_at = entry.stamp.expires_at();
            self.beside.set_early(id, early);
            self.beside.touch(id, now);
            self.schedule(id, check_at);
        }
    }

    #[inline]
    pub(super) fn schedule(&mut self, id: u32, check_at: u64) {
        self.wheel
            .schedule(id, self.beside.kept_until(id, check_at));
    }

    /// Changes a value in place, keeping its deadline by age: for counters, whose arithmetic is not user code.
    pub(crate) fn update(&mut self, id: u32, now: &mut Now<'_>, update: impl FnOnce(&mut V)) {
        if let Some(entry) = self.slab.get_mut(id) {
            update(&mut entry.value);
            self.beside.touch(id, now);
            self.beside.renew_version(id);
        }
    }
}

/// What a turnover displaced.
fn displaced<K, V>(entry: Entry<K, V>) -> Gone<K, V> {
    Gone {
        key: entry.key,
        value: entry.value,
        cause: RemovalCause::Size,
        weight: 1,
        namespace: Namespace::ROOT,
        born: entry.stamp.born(),
    }
}
