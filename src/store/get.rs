//! Reads: under the shared lock of one stripe.

use equivalent::Equivalent;

use super::{Store, Stripe};
use crate::entry::expiry::{Expiry, Lifetime, remaining};
use crate::entry::generation::Namespace;
use crate::entry::hash::KeyHash;
use crate::entry::removal::RemovalCause;
use crate::shard::{Found, Hit, ReadContext, Usage};
use crate::util::sync::locks::RwLockReadGuard;
use crate::util::sync::{Locked, RwLock};

impl<K, V> Store<K, V> {
    #[inline(always)]
    pub(super) fn reader<'a>(&'a self, namespace: &'a Namespace) -> ReadContext<'a> {
        ReadContext {
            namespace,
            in_root: namespace.id == Namespace::ROOT,
            epochs: &self.epochs,
            clock: &self.clock,
        }
    }

    /// The context of a read in the root namespace, for callers that know it to be the root.
    #[inline(always)]
    pub(super) fn reader_in_root<'a>(&'a self, root: &'a Namespace) -> ReadContext<'a> {
        debug_assert_eq!(root.id, Namespace::ROOT);
        ReadContext {
            in_root: true,
            ..self.reader(root)
        }
    }

    /// A copy of the live value, noted as a hit for the policy. Counts nothing. Not for a policy that reorders
    /// its queue.
    pub(crate) fn get<Q>(&self, hash: KeyHash, namespace: &Namespace, key: &Q) -> Option<V>
    where
        Q: Equivalent<K> + ?Sized,
        V: Clone,
    {
        self.get_as(self.reader(namespace), hash, key)
    }

    /// A copy of the live value in the root namespace, noted as a hit for the policy: what most hits are.
    #[inline(always)]
    pub(crate) fn get_in_root<Q>(&self, hash: KeyHash, root: &Namespace, key: &Q) -> Option<V>
    where
        Q: Equivalent<K> + ?Sized,
        V: Clone,
    {
        self.get_as(self.reader_in_root(root), hash, key)
    }

    #[inline(always)]
    fn get_as<Q>(&self, reader: ReadContext<'_>, hash: KeyHash, key: &Q) -> Option<V>
    where
        Q: Equivalent<K> + ?Sized,
        V: Clone,
    {
        let guard = self.stripe(hash).read();
        let reading = guard.shard.read(hash.in_shard(), key, reader, true)?;
        Some(reading.entry.value.clone())
    }

    /// A copy of the live value, for a policy that reorders its queue on a hit.
    pub(crate) fn get_and_reorder<Q>(
        &self,
        hash: KeyHash,
        namespace: &Namespace,
        key: &Q,
    ) -> Option<V>
    where
        Q: Equivalent<K> + ?Sized,
        V: Clone,
    {
        let stripe = self.stripe(hash);
        let guard = stripe.read();
        let reader = self.reader(namespace);
        let reading = guard.shard.read(hash.in_shard(), key, reader, true)?;
        let (id, value) = (reading.id, reading.entry.value.clone());
        drop(guard);
        self.reorder(stripe, id);
        Some(value)
    }

    /// Notes a hit for a policy that reorders its queue. Should another entry be in the slot by now, it
    /// is that one's good luck.
    #[cold]
    fn reorder(&self, stripe: &RwLock<Stripe<K, V>>, id: u32) {
        self.with_stripe_mut(stripe, |stripe| {
            let entry = stripe.shard.entry(id);
            // A cleared entry is in no queue any more.
            if entry.is_some_and(|entry| entry.header.epoch() >= stripe.shard.min_epoch()) {
                stripe.shard.reorder(id);
            }
        });
    }

    /// A stripe under its shared lock, its shard keeping versions from now on at the latest.
    fn read_versioned<'a>(
        &self,
        stripe: &'a RwLock<Stripe<K, V>>,
    ) -> Locked<RwLockReadGuard<'a, Stripe<K, V>>> {
        let guard = stripe.read();
        if guard.shard.keeps_versions() {
            return guard;
        }
        drop(guard);
        // No maintenance: the call does its share when it writes.
        self.with_stripe_budget(stripe, 0, |stripe| stripe.shard.keep_versions());
        stripe.read()
    }

    /// Has all shards keep versions from now on.
    pub(crate) fn keep_versions(&self) {
        for stripe in &self.stripes {
            drop(self.read_versioned(stripe));
        }
    }

    /// A copy of the live value, for a cache whose expiry policy hears of reads and may set a new lifetime.
    pub(crate) fn get_and_renew<Q>(
        &self,
        hash: KeyHash,
        namespace: &Namespace,
        key: &Q,
        expiry: &dyn Expiry<K, V>,
    ) -> Option<V>
    where
        Q: Equivalent<K> + ?Sized,
        K: 'static,
        V: Clone + 'static,
    {
        let stripe = self.stripe(hash);
        let guard = self.read_versioned(stripe);
        let reader = self.reader(namespace);
        let Hit { id, entry, .. } = guard.shard.read(hash.in_shard(), key, reader, true)?;
        let value = entry.value.clone();
        let version = guard.shard.version(id);
        let before = remaining(guard.shard.expires_by_age_at(id, entry), self.clock.now());
        drop(guard);
        let after = expiry.after_read(&value, before);
        if after != before || self.hit_needs_lock {
            self.with_stripe_mut(stripe, |stripe| {
                let scope = self.scope_when_locked(namespace);
                let found = stripe
                    .shard
                    .lookup(hash.in_shard(), key, scope, &mut stripe.now);
                let id = match found {
                    Found::Live(id) if stripe.shard.version(id) == version => id,
                    // If its time came while the policy was asked, a read revives nothing.
                    _ => return,
                };
                stripe.shard.reorder(id);
                if after == before {
                    return;
                }
                match Lifetime::from_policy(after, 0.0) {
                    Lifetime::NOTHING => {
                        stripe
                            .shard
                            .remove_into(id, RemovalCause::Expired, stripe.out);
                    }
                    lifetime => self.set_lifetime(stripe, id, lifetime),
                }
            });
        }
        Some(value)
    }

    /// Calls `with` on the live value, under the shared lock, touching nothing. `with` may run `Clone` of the
    /// value and no other user code.
    pub(crate) fn peek<Q, R>(
        &self,
        hash: KeyHash,
        namespace: &Namespace,
        key: &Q,
        with: impl FnOnce(&V) -> R,
    ) -> Option<R>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let guard = self.stripe(hash).read();
        let reader = self.reader(namespace);
        let reading = guard.shard.read(hash.in_shard(), key, reader, false)?;
        Some(with(&reading.entry.value))
    }

    /// A copy of the key of a live value.
    pub(crate) fn peek_key<Q>(&self, hash: KeyHash, namespace: &Namespace, key: &Q) -> Option<K>
    where
        Q: Equivalent<K> + ?Sized,
        K: Clone,
    {
        let guard = self.stripe(hash).read();
        let reader = self.reader(namespace);
        let reading = guard.shard.read(hash.in_shard(), key, reader, false)?;
        Some(reading.entry.key.clone())
    }

    /// Calls `with` on the live value and its version, under the shared lock. For callers that decide without the lock
    /// and then write only if the version is the same.
    pub(crate) fn peek_versioned<Q, R>(
        &self,
        hash: KeyHash,
        namespace: &Namespace,
        key: &Q,
        with: impl FnOnce(&V, Snapshot) -> R,
    ) -> Option<R>
    where
        Q: Equivalent<K> + ?Sized,
    {
        let guard = self.read_versioned(self.stripe(hash));
        let reader = self.reader(namespace);
        let Hit { id, entry, .. } = guard.shard.read(hash.in_shard(), key, reader, false)?;
        let seen = Snapshot {
            version: guard.shard.version(id),
            expires_at: guard.shard.expires_by_age_at(id, entry),
            own_ttl: entry.header.has_own_ttl(),
        };
        Some(with(&entry.value, seen))
    }

    /// Entries and weight over all shards, one shard after the other.
    pub(crate) fn totals(&self) -> Usage {
        let mut sum = Usage::default();
        for stripe in &self.stripes {
            let live = stripe.read().shard.live(&self.epochs);
            sum.entries += live.entries;
            sum.weight += live.weight;
        }
        sum
    }
}

/// What a peek tells about an entry, apart from its value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot {
    pub(crate) version: u32,
    pub(crate) expires_at: u64,
    /// Its time to live was said by who wrote it, and is not the cache's.
    pub(crate) own_ttl: bool,
}

impl Snapshot {
    /// How long the value has still to live by age; `None` if it does not expire.
    pub(crate) fn remaining(self, now: u64) -> Option<std::time::Duration> {
        remaining(self.expires_at, now)
    }
}
