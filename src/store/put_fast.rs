//! The writes that a cache sees most, in one short piece: those that a shard calls [`FastPath`].

use super::{Guard, Inherits, Precondition, PutOutcome, Store, Stripe, WriteRequest};
use crate::entry::Entry;
use crate::entry::expiry::Lifetime;
use crate::entry::freshness::RefreshPlan;
use crate::entry::generation::Namespace;
use crate::entry::hash::KeyHash;
use crate::entry::header::{EntryHeader, MAX_EPOCH};
use crate::entry::removal::RemovalCause;
use crate::entry::stats::Count;
use crate::flight::WriteTurn;
use crate::shard::FastPath;

impl<K, V> Store<K, V> {
    /// Writes a value that has nothing to say of itself, in the root, and revokes the load in flight.
    #[inline(always)]
    pub(crate) fn put_fast(
        &self,
        hash: KeyHash,
        root: &Namespace,
        key: K,
        value: V,
        lifetime: Lifetime,
    ) -> PutOutcome<K, V>
    where
        K: Eq,
    {
        let mut guard = self.stripe(hash).write();
        let Stripe { shard, flights } = &mut *guard;
        // One place in the order of epochs, as with any write: what was cleared up to this epoch is noticed already,
        // and the root has no other minimum.
        let epoch = self.epochs.current();
        let is_eligible =
            shard.has_noticed(&self.epochs) && flights.holds_nothing() && epoch <= MAX_EPOCH;
        let expected = if is_eligible {
            shard.fast_path_for(hash.in_shard(), &key, lifetime, &self.clock)
        } else {
            None
        };
        // The user's code has run: from here on it does not matter who owns key and value.
        let (mut key, mut value) = (key, value);
        let header = |expires_at| EntryHeader::new(hash.in_shard(), epoch, expires_at, false);
        match expected {
            Some((FastPath::EvictAndInsert, expires_at)) => {
                let header = header(expires_at);
                match shard.insert_evicting(Entry { key, value, header }) {
                    Ok(old) => {
                        self.finish_evicting(guard, old);
                        return PutOutcome::Stored(None);
                    }
                    Err(back) => (key, value) = (back.key, back.value),
                }
            }
            Some((FastPath::Overwrite(id), expires_at)) => {
                match shard.overwrite_fast(id, value, header(expires_at)) {
                    Ok(old) => {
                        self.note_one(&key, RemovalCause::Replaced);
                        drop(guard);
                        return self.overwritten(key, old);
                    }
                    Err(back) => value = back,
                }
            }
            None => {}
        }
        let request = WriteRequest {
            key,
            value,
            lifetime,
            weight: 1,
            tags: None,
            excess_tags: 0,
            plan: RefreshPlan::NONE,
            own_ttl: false,
            inherits: Inherits::Nothing,
        };
        self.put_locked(
            guard,
            hash,
            root,
            request,
            Precondition::Always,
            WriteTurn::Ignores,
        )
    }

    /// Unlocks, counts an eviction and an insertion, and drops the victim.
    #[inline(always)]
    fn finish_evicting(&self, guard: Guard<'_, K, V>, old: Entry<K, V>) {
        if self.journal.is_some() || !self.notifier.is_indifferent() {
            return self.notify_evicted(guard, old);
        }
        drop(guard);
        self.counters.bump_both(Count::Inserts, Count::Evicted);
    }

    #[inline(never)]
    fn notify_evicted(&self, guard: Guard<'_, K, V>, old: Entry<K, V>) {
        self.note_one(&old.key, RemovalCause::Size);
        drop(guard);
        // Who is told finds it counted.
        self.counters.bump(Count::Evicted);
        self.notifier.tell(old.key, old.value, RemovalCause::Size);
        self.counters.bump(Count::Inserts);
    }

    /// What a write over this value returns, once the lock is gone.
    #[inline(never)]
    fn overwritten(&self, key: K, old: V) -> PutOutcome<K, V> {
        self.counters.bump_both(Count::Inserts, Count::Replaced);
        let cause = RemovalCause::Replaced;
        PutOutcome::Stored(Some(self.notifier.tell_and_return(key, old, cause)))
    }
}
