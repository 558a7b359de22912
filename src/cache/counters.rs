//! Counters: `incr` and `decr`.

use std::convert::Infallible;
use std::hash::{BuildHasher, Hash};

use equivalent::Equivalent;

use super::Cache;
use super::compute::{Compute, ComputeError};
use crate::flight::WriteTurn;
use crate::store::Inherits;

/// Integers that [`incr`](Cache::incr) and [`decr`](Cache::decr) count with. Sealed.
///
/// ```
/// fn assert_counts<T: larder::Integer>() {}
/// assert_counts::<u64>();
/// assert_counts::<i32>();
/// ```
pub trait Integer: Copy + sealed::Arithmetic {}

mod sealed {
    pub trait Arithmetic {
        fn plus(self, by: Self) -> Self;
        fn minus(self, by: Self) -> Self;
    }
}

macro_rules! counters {
    ($($number:ty)*) => {$(
        impl sealed::Arithmetic for $number {
            fn plus(self, by: Self) -> Self {
                self.saturating_add(by)
            }

            fn minus(self, by: Self) -> Self {
                self.saturating_sub(by)
            }
        }

        impl Integer for $number {}
    )*};
}

counters!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize);

impl<K, V, S> Cache<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Adds to a live number and returns the sum; `None` if there is no live value. Saturates at the type's bounds.
    /// Atomic; revokes the load in flight, and waits while a [`compute`](Self::compute) of the key has its turn.
    ///
    /// The number keeps its deadline, its tags and its windows. A [`weigher`](crate::CacheBuilder::weigher) is asked
    /// what the sum weighs, and an [`expiry`](crate::CacheBuilder::expiry) policy how long it lives, as for an update.
    /// Where one of them is asked, the sum is written like any value: it counts as an insert, and the removal listener
    /// hears of the number before it as replaced. It counts as a use: it renews the idle time, and the eviction policy hears of it. O(1).
    ///
    /// ```
    /// let cache = larder::Cache::builder().max_capacity(100).build()?;
    /// assert_eq!(cache.incr("visits", 1), None);
    /// cache.insert("visits", 1);
    /// assert_eq!(cache.incr("visits", 2), Some(3));
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn incr<Q>(&self, key: &Q, by: V) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
        K: Clone,
        V: Integer,
    {
        self.count(key, |number| number.plus(by))
    }

    /// Subtracts from a live number: see [`incr`](Self::incr). An unsigned number stops at zero.
    ///
    /// ```
    /// let cache = larder::Cache::builder().max_capacity(100).build()?;
    /// cache.insert("stock", 3u32);
    /// assert_eq!(cache.decr("stock", 1), Some(2));
    /// assert_eq!(cache.decr("stock", 9), Some(0));
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn decr<Q>(&self, key: &Q, by: V) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
        K: Clone,
        V: Integer,
    {
        self.count(key, |number| number.minus(by))
    }

    fn count<Q>(&self, key: &Q, arithmetic: impl Fn(V) -> V) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
        K: Clone,
        V: Integer,
    {
        let rules = &self.inner.rules;
        if rules.weigher.is_some() || rules.expiry.is_some() {
            return self.count_as_asked(key, arithmetic);
        }
        let hash = self.hash(key);
        let store = &self.inner.store;
        let count = |turn| {
            store.update(hash, &self.namespace, key, turn, |number| {
                *number = arithmetic(*number);
                *number
            })
        };
        loop {
            match count(WriteTurn::Respects) {
                Some(sum) => return sum,
                None if store.wait_for_turn(hash, &self.namespace, key) => {}
                None => return count(WriteTurn::Ignores).flatten(),
            }
        }
    }

    /// With user code to be asked, which never runs under a lock: read, decide and write.
    fn count_as_asked<Q>(&self, key: &Q, arithmetic: impl Fn(V) -> V) -> Option<V>
    where
        Q: Hash + Equivalent<K> + ?Sized,
        K: Clone,
        V: Integer,
    {
        let count = |number: Option<&V>| {
            let sum = number.map(|number| arithmetic(*number));
            Ok::<_, Infallible>(sum.map_or(Compute::Keep, Compute::Put))
        };
        // A policy says how long the sum lives.
        let inherits = match self.inner.rules.expiry {
            Some(_) => Inherits::Options,
            None => Inherits::OptionsAndDeadline,
        };
        let key = self
            .inner
            .store
            .peek_key(self.hash(key), &self.namespace, key)?;
        match self.compute_in_turn(&key, inherits, count) {
            Ok(computed) => computed.new,
            // Neither can be: the arithmetic fails never and calls no cache.
            Err((ComputeError::Closure(_) | ComputeError::WroteOwnKey, _)) => None,
        }
    }
}
