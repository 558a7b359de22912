//! One 64-bit hash a key, computed once and outside every lock; the upper half picks the shard, the
//! lower half is the shard's own.

use std::hash::{BuildHasher, Hash};

use crate::entry::generation::Namespace;

/// The default hasher: AES-based, with keys drawn at run time for each cache, so that nobody outside
/// can choose keys that collide.
///
/// ```
/// use larder::{Cache, DefaultHashBuilder};
///
/// let cache: Cache<u64, u64, DefaultHashBuilder> = Cache::builder().max_capacity(10).build()?;
/// # Ok::<(), larder::BuildError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct DefaultHashBuilder(ahash::RandomState);

impl BuildHasher for DefaultHashBuilder {
    type Hasher = DefaultHasher;

    #[inline]
    fn build_hasher(&self) -> DefaultHasher {
        DefaultHasher(self.0.build_hasher())
    }
}

/// The hasher that [`DefaultHashBuilder`] builds.
///
/// ```
/// use std::hash::{BuildHasher, Hasher};
///
/// let mut hasher = larder::DefaultHashBuilder::default().build_hasher();
/// hasher.write_u64(7);
/// let _hash: u64 = hasher.finish();
/// ```
#[derive(Clone, Debug)]
pub struct DefaultHasher(ahash::AHasher);

impl std::hash::Hasher for DefaultHasher {
    #[inline]
    fn finish(&self) -> u64 {
        self.0.finish()
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    #[inline]
    fn write_u8(&mut self, n: u8) {
        self.0.write_u8(n);
    }

    #[inline]
    fn write_u16(&mut self, n: u16) {
        self.0.write_u16(n);
    }

    #[inline]
    fn write_u32(&mut self, n: u32) {
        self.0.write_u32(n);
    }

    #[inline]
    fn write_u64(&mut self, n: u64) {
        self.0.write_u64(n);
    }

    #[inline]
    fn write_u128(&mut self, n: u128) {
        self.0.write_u128(n);
    }

    #[inline]
    fn write_usize(&mut self, n: usize) {
        self.0.write_usize(n);
    }
}

/// A key's hash within a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyHash(u64);

impl KeyHash {
    #[inline]
    pub(crate) fn of_root<Q: Hash + ?Sized>(builder: &impl BuildHasher, key: &Q) -> KeyHash {
        KeyHash(mix(builder.hash_one(key)))
    }

    #[inline]
    pub(crate) fn of<Q: Hash + ?Sized>(
        builder: &impl BuildHasher,
        namespace: u32,
        key: &Q,
    ) -> KeyHash {
        if namespace == Namespace::ROOT {
            return KeyHash::of_root(builder, key);
        }
        KeyHash(mix(builder.hash_one(key) ^ mix(u64::from(namespace))))
    }

    /// Which of `shards` (a power of two) the key belongs to.
    #[inline]
    pub(crate) fn shard(self, shards: usize) -> usize {
        (self.0 >> 32) as usize & (shards - 1)
    }

    /// What the shard's index and ghosts go by; never 0.
    #[inline]
    pub(crate) fn in_shard(self) -> u32 {
        // A bit less hardly matters, and is cheaper than a look whether it is 0.
        self.0 as u32 | 1
    }

    /// The whole hash, by which flights are told apart before their keys are compared.
    pub(crate) fn whole(self) -> u64 {
        self.0
    }
}

/// Spreads what a weak hasher (an identity hash of integers, say) leaves in a few bits over all 64.
#[inline]
fn mix(hash: u64) -> u64 {
    let wide = u128::from(hash ^ 0x9E37_79B9_7F4A_7C15) * u128::from(0xD6E8_FEB8_6659_FD93_u64);
    (wide >> 64) as u64 ^ wide as u64
}

#[cfg(all(test, not(larder_shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn even_an_identity_hash_spreads_over_shards_and_tables() {
        let mut shards = [0u32; 16];
        let mut low = std::collections::HashSet::new();
        for n in 0..16_000u64 {
            let hash = KeyHash(mix(n));
            shards[hash.shard(16)] += 1;
            low.insert(hash.in_shard());
        }
        assert!(
            shards.iter().all(|count| (800..1200).contains(count)),
            "{shards:?}"
        );
        assert!(low.len() > 15_990);
    }

    #[test]
    fn a_namespace_changes_the_hash() {
        let builder = DefaultHashBuilder::default();
        assert_ne!(
            KeyHash::of(&builder, 0, &7u64),
            KeyHash::of(&builder, 1, &7u64)
        );
    }
}
