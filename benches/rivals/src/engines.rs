//! The caches that race: one small adapter each, all with the same hasher and the same capacity.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use ahash::RandomState;

/// What a key and a value must be able to do for every cache in the race.
pub trait Key: Hash + Eq + Clone + Send + Sync + 'static {}
impl<T: Hash + Eq + Clone + Send + Sync + 'static> Key for T {}
pub trait Value: Clone + Send + Sync + 'static {}
impl<T: Clone + Send + Sync + 'static> Value for T {}

/// A cache under test.
pub trait Engine<K, V> {
    fn get(&self, key: &K) -> Option<V>;
    fn put(&self, key: K, value: V);
    fn len(&self) -> usize;
}

pub type Larder<K, V> = larder::Cache<K, V, RandomState>;

pub fn larder<K: Key, V: Value>(capacity: usize, ttl: Option<Duration>) -> Larder<K, V> {
    let builder = larder::Cache::builder().max_capacity(capacity as u64);
    let builder = match ttl {
        Some(ttl) => builder.time_to_live(ttl),
        None => builder,
    };
    builder
        .hasher(RandomState::new())
        .build()
        .expect("a valid configuration")
}

/// With the time written down by a thread every millisecond, which may be late.
pub fn larder_ticking<K: Key, V: Value>(capacity: usize, ttl: Duration) -> Larder<K, V> {
    let clock = larder::Clock::ticking(Duration::from_millis(1)).expect("a thread");
    larder::Cache::builder()
        .max_capacity(capacity as u64)
        .time_to_live(ttl)
        .clock(clock)
        .hasher(RandomState::new())
        .build()
        .expect("a valid configuration")
}

impl<K: Key, V: Value> Engine<K, V> for Larder<K, V> {
    #[inline]
    fn get(&self, key: &K) -> Option<V> {
        larder::Cache::get(self, key)
    }

    #[inline]
    fn put(&self, key: K, value: V) {
        self.insert(key, value);
    }

    fn len(&self) -> usize {
        larder::Cache::len(self) as usize
    }
}

pub type Quick<K, V> = quick_cache::sync::Cache<
    K,
    V,
    quick_cache::UnitWeighter,
    RandomState,
    quick_cache::sync::DefaultLifecycle<K, V>,
>;

pub fn quick<K: Key, V: Value>(capacity: usize) -> Quick<K, V> {
    Quick::with(
        capacity,
        capacity as u64,
        quick_cache::UnitWeighter,
        RandomState::new(),
        quick_cache::sync::DefaultLifecycle::default(),
    )
}

impl<K: Key, V: Value> Engine<K, V> for Quick<K, V> {
    #[inline]
    fn get(&self, key: &K) -> Option<V> {
        Quick::get(self, key)
    }

    #[inline]
    fn put(&self, key: K, value: V) {
        self.insert(key, value);
    }

    fn len(&self) -> usize {
        Quick::len(self)
    }
}

/// A TTL as one writes it by hand: the deadline beside the value, looked at on every read.
pub struct ByHand<C> {
    pub cache: C,
    pub ttl: Duration,
}

impl<K, V, C: Engine<K, (V, Instant)>> Engine<K, V> for ByHand<C> {
    #[inline]
    fn get(&self, key: &K) -> Option<V> {
        self.cache
            .get(key)
            .filter(|(_, deadline)| Instant::now() < *deadline)
            .map(|(value, _)| value)
    }

    #[inline]
    fn put(&self, key: K, value: V) {
        self.cache.put(key, (value, Instant::now() + self.ttl));
    }

    fn len(&self) -> usize {
        self.cache.len()
    }
}

/// A TTL written by hand as cheaply as a program can: the deadline is judged by the kernel's coarse
/// clock, in milliseconds.
pub struct ByCoarseClock<C> {
    pub cache: C,
    pub ttl: Duration,
}

fn coarse_millis() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC_COARSE)
        .expect("every Linux has this clock");
    now.tv_sec() as u64 * 1_000 + now.tv_nsec() as u64 / 1_000_000
}

impl<K, V, C: Engine<K, (V, u64)>> Engine<K, V> for ByCoarseClock<C> {
    #[inline]
    fn get(&self, key: &K) -> Option<V> {
        self.cache
            .get(key)
            .filter(|(_, deadline)| coarse_millis() < *deadline)
            .map(|(value, _)| value)
    }

    #[inline]
    fn put(&self, key: K, value: V) {
        let deadline = coarse_millis() + self.ttl.as_millis() as u64;
        self.cache.put(key, (value, deadline));
    }

    fn len(&self) -> usize {
        self.cache.len()
    }
}

pub type Moka<K, V> = moka::sync::Cache<K, V, RandomState>;

pub fn moka<K: Key, V: Value>(capacity: usize, ttl: Duration) -> Moka<K, V> {
    moka::sync::Cache::builder()
        .max_capacity(capacity as u64)
        .time_to_live(ttl)
        .build_with_hasher(RandomState::new())
}

impl<K: Key, V: Value> Engine<K, V> for Moka<K, V> {
    #[inline]
    fn get(&self, key: &K) -> Option<V> {
        Moka::get(self, key)
    }

    #[inline]
    fn put(&self, key: K, value: V) {
        self.insert(key, value);
    }

    fn len(&self) -> usize {
        self.run_pending_tasks();
        self.entry_count() as usize
    }
}

pub type Foyer<K, V> = foyer_memory::Cache<K, V, RandomState>;

pub fn foyer<K: Key, V: Value>(capacity: usize) -> Foyer<K, V> {
    let shards = 4 * std::thread::available_parallelism().map_or(2, NonZeroUsize::get);
    foyer_memory::CacheBuilder::new(capacity)
        .with_shards(shards)
        .with_eviction_config(foyer_memory::S3FifoConfig::default())
        .with_hash_builder(RandomState::new())
        .build()
}

impl<K: Key, V: Value> Engine<K, V> for Foyer<K, V> {
    #[inline]
    fn get(&self, key: &K) -> Option<V> {
        Foyer::get(self, key).map(|entry| entry.value().clone())
    }

    #[inline]
    fn put(&self, key: K, value: V) {
        self.insert(key, value);
    }

    fn len(&self) -> usize {
        self.usage()
    }
}

pub type Dash<K, V> = dashmap::DashMap<K, V, RandomState>;

impl<K: Key, V: Value> Engine<K, V> for Dash<K, V> {
    #[inline]
    fn get(&self, key: &K) -> Option<V> {
        Dash::get(self, key).map(|entry| entry.value().clone())
    }

    #[inline]
    fn put(&self, key: K, value: V) {
        self.insert(key, value);
    }

    fn len(&self) -> usize {
        Dash::len(self)
    }
}

/// The limit for one thread: a table with no lock, no bound and no time.
pub struct Bare<K, V>(std::cell::RefCell<hashbrown::HashMap<K, V, RandomState>>);

impl<K, V> Bare<K, V> {
    pub fn new() -> Self {
        Bare(std::cell::RefCell::new(hashbrown::HashMap::with_hasher(
            RandomState::new(),
        )))
    }
}

impl<K: Key, V: Value> Engine<K, V> for Bare<K, V> {
    #[inline]
    fn get(&self, key: &K) -> Option<V> {
        self.0.borrow().get(key).cloned()
    }

    #[inline]
    fn put(&self, key: K, value: V) {
        self.0.borrow_mut().insert(key, value);
    }

    fn len(&self) -> usize {
        self.0.borrow().len()
    }
}
