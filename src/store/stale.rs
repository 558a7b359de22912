//! Reads for calls that load: whether a live value is to be loaded again, and what is stale.

use equivalent::Equivalent;

use super::{Store, Stripe};
use crate::entry::freshness::{Stale, StaleBy};
use crate::entry::generation::Namespace;
use crate::entry::hash::KeyHash;
use crate::entry::removal::RemovalCause;
use crate::flight::Flight;
use crate::shard::{Found, Hit, LookupScope, Shard};
use crate::util::clock::Now;

/// What is served instead of an error.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fallback {
    /// A value whose time is not up.
    Live,
    /// One that is kept for this.
    Stale,
}

impl<K, V> Store<K, V> {
    /// A copy of the live value, noted as a hit for the policy, and whether this caller is to load the value again.
    #[inline]
    pub(crate) fn get_to_load<Q>(
        &self,
        hash: KeyHash,
        namespace: &Namespace,
        key: &Q,
    ) -> Option<(V, bool)>
    where
        Q: Equivalent<K> + ?Sized,
        V: Clone,
    {
        let guard = self.stripe(hash).read();
        let reader = self.reader(namespace);
        let reading = guard.shard.read(hash.in_shard(), key, reader, true)?;
        let early = reading.near && self.is_elected(&guard, &reading, hash, namespace, key);
        Some((reading.entry.value.clone(), early))
    }

    /// Whether a reader of the entry now is to load it again. Touches nothing.
    pub(crate) fn peek_early<Q>(&self, hash: KeyHash, namespace: &Namespace, key: &Q) -> bool
    where
        Q: Equivalent<K> + ?Sized,
    {
        if self.loads.beta == 0.0 && self.loads.refresh_after.is_none() {
            return false;
        }
        let guard = self.stripe(hash).read();
        let reader = self.reader(namespace);
        match guard.shard.read(hash.in_shard(), key, reader, false) {
            Some(reading) => {
                reading.near && self.is_elected(&guard, &reading, hash, namespace, key)
            }
            None => false,
        }
    }

    /// Whether this reader is to load an entry again, whose window for an early load may have begun.
    #[inline(never)]
    fn is_elected<Q>(
        &self,
        stripe: &Stripe<K, V>,
        reading: &Hit<'_, K, V>,
        hash: KeyHash,
        namespace: &Namespace,
        key: &Q,
    ) -> bool
    where
        Q: Equivalent<K> + ?Sized,
    {
        let early = stripe.shard.early(reading.id);
        if early.window() == 0 {
            return false;
        }
        let now = self.clock.now();
        let deadline = stripe.shard.expires_by_age_at(reading.id, reading.entry);
        let left = deadline.saturating_sub(now);
        if left > early.window() {
            return false;
        }
        let draw = 1.0 - crate::util::rng::unit();
        if !early.is_due(left, self.loads.beta, draw) {
            return false;
        }
        // Somebody may be loading it, or have failed to so short a time ago that nobody is to try again. (What comes
        // back is not the last owner: the table keeps it, and is locked.)
        match stripe.flights.find(hash, namespace.id, key) {
            Some(flight) => self.is_to_be_replaced(&flight, now),
            None => true,
        }
    }

    /// Whether a new flight may take the place of this one: a failure whose time is over, or a load that has taken
    /// too long.
    pub(crate) fn is_to_be_replaced(&self, flight: &Flight<K, V>, now: u64) -> bool {
        match flight.remembered_until() {
            Some(until) => until <= now,
            None => !flight.is_under_way(now.saturating_sub(self.loads.load_deadline)),
        }
    }

    /// The value of a key that may be served in some case, and how stale it is; `None` is live.
    fn look_for_use<Q>(
        shard: &Shard<K, V>,
        hash: KeyHash,
        scope: LookupScope<'_>,
        key: &Q,
        now: &mut Now<'_>,
    ) -> Option<(u32, Option<Stale>)>
    where
        Q: Equivalent<K> + ?Sized,
    {
        match shard.lookup(hash.in_shard(), key, scope, now) {
            Found::Live(id) => Some((id, None)),
            Found::Dead(id, RemovalCause::Expired) => Some((id, Some(shard.stale(id, now)?))),
            _ => None,
        }
    }

    /// The value whose time is up, and for how long it has been. Touches nothing.
    pub(crate) fn peek_stale<Q>(
        &self,
        hash: KeyHash,
        namespace: &Namespace,
        key: &Q,
    ) -> Option<(V, u64)>
    where
        Q: Equivalent<K> + ?Sized,
        V: Clone,
    {
        if !self.keeps_stale() {
            return None;
        }
        let guard = self.stripe(hash).read();
        let (scope, mut now) = (self.scope(namespace), Now::new(&self.clock));
        let (id, stale) = Self::look_for_use(&guard.shard, hash, scope, key, &mut now)?;
        let by = stale?.by;
        Some((guard.shard.entry(id)?.value.clone(), by))
    }

    /// The value whose time is up, where another caller is loading it, or has failed to a moment ago: what
    /// `Store::join_or_lead` would answer, found without keeping others out.
    pub(crate) fn stale_at_once<Q>(
        &self,
        hash: KeyHash,
        namespace: &Namespace,
        key: &Q,
        takes_errors: bool,
    ) -> Option<V>
    where
        Q: Equivalent<K> + ?Sized,
        V: Clone,
    {
        if !self.keeps_stale() {
            return None;
        }
        let guard = self.stripe(hash).read();
        let flight = guard.flights.find(hash, namespace.id, key)?;
        let (scope, mut now) = (self.scope(namespace), Now::new(&self.clock));
        let at = now.precise();
        let why = if flight.is_under_way(at.saturating_sub(self.loads.load_deadline)) {
            StaleBy::Load
        } else if flight
            .cools_down_until(takes_errors)
            .is_some_and(|until| at < until)
        {
            StaleBy::Error
        } else {
            return None;
        };
        // Not the last owner: the table keeps it, and is locked.
        drop(flight);
        let (id, stale) = Self::look_for_use(&guard.shard, hash, scope, key, &mut now)?;
        // Before a copy is made that nobody would be served, and that would be dropped in here.
        if !stale?.serves(why) {
            return None;
        }
        let value = guard.shard.entry(id)?.value.clone();
        drop(guard);
        self.counters.stale(why);
        Some(value)
    }

    /// What there is to serve instead of an error: where stale values are kept for that, or where the load that
    /// failed was to `refresh` a value.
    pub(crate) fn fallback_for_error<Q>(
        &self,
        hash: KeyHash,
        namespace: &Namespace,
        key: &Q,
        refresh: bool,
    ) -> Option<(V, Fallback)>
    where
        Q: Equivalent<K> + ?Sized,
        V: Clone,
    {
        if !self.keeps_stale() && !refresh {
            return None;
        }
        let guard = self.stripe(hash).read();
        let (scope, mut now) = (self.scope(namespace), Now::new(&self.clock));
        let (id, stale) = Self::look_for_use(&guard.shard, hash, scope, key, &mut now)?;
        let fallback = match stale {
            None if refresh || guard.shard.windows(id).if_error > 0 => Fallback::Live,
            Some(stale) if stale.serves(StaleBy::Error) => Fallback::Stale,
            _ => return None,
        };
        let value = guard.shard.entry(id)?.value.clone();
        Some((value, fallback))
    }

    /// Removes a stale value and revokes the load of it, if there is one.
    pub(crate) fn remove_stale<Q>(&self, hash: KeyHash, namespace: &Namespace, key: &Q)
    where
        Q: Equivalent<K> + ?Sized,
    {
        if !self.keeps_stale() {
            return;
        }
        self.with_stripe_mut(self.stripe(hash), |stripe| {
            let scope = self.scope_when_locked(namespace);
            let found = Self::look_for_use(stripe.shard, hash, scope, key, &mut stripe.now);
            let flight = stripe.flights.find(hash, namespace.id, key);
            if let Some((id, Some(_))) = found {
                stripe.revoke(flight, false);
                stripe
                    .shard
                    .remove_into(id, RemovalCause::Expired, stripe.out);
            }
        });
    }
}
