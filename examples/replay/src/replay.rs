//! One trace through one policy: the hits, and how fast.

use std::{
    hash::{BuildHasher, Hash},
    sync::Arc,
    time::Instant,
};

use clap::ValueEnum;
use larder::{Cache, CacheBuilder, EvictionPolicy};
use serde::Serialize;

use crate::{
    error::ReplayError,
    sim::{self, Belady, Fifo, Lru, Simulator},
    trace::{Keys, Trace},
};

/// What a trace is replayed through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// larder as it is by default
    #[value(name = "larder")]
    #[serde(rename = "larder")]
    Larder,
    /// larder with the eviction policy LRU
    LarderLru,
    /// Least recently used, exactly
    Lru,
    /// First in, first out
    Fifo,
    /// Belady's optimum with bypass, which knows the future
    Opt,
}

impl Policy {
    pub const ALL: [Self; 5] = [
        Self::Larder,
        Self::LarderLru,
        Self::Lru,
        Self::Fifo,
        Self::Opt,
    ];

    /// As a column's title.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Larder => "larder",
            Self::LarderLru => "larder, LRU",
            Self::Lru => "LRU",
            Self::Fifo => "FIFO",
            Self::Opt => "optimum",
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Outcome {
    pub policy: Policy,
    pub hits: u64,
    pub misses: u64,
    pub hit_ratio: f64,
    /// On one thread. The simulators keep neither values nor locks, and the optimum's look into the
    /// future is made before: theirs are no rivals' figures.
    pub requests_per_second: f64,
}

/// Replays a trace.
///
/// # Errors
/// If larder refuses the capacity, or answers with another key's value.
pub fn replay(trace: &Trace, policy: Policy, entries: u64) -> Result<Outcome, ReplayError> {
    let through_larder = |eviction| match &trace.keys {
        Keys::U64(keys) => larder_hits(keys, &trace.ids, eviction, entries),
        Keys::Text(keys) => larder_hits::<Arc<str>>(keys, &trace.ids, eviction, entries),
    };
    let ids = &trace.ids;
    let (hits, seconds) = match policy {
        Policy::Larder => through_larder(EvictionPolicy::S3Fifo)?,
        Policy::LarderLru => through_larder(EvictionPolicy::Lru)?,
        Policy::Lru => simulated(Lru::new(trace.distinct, entries), ids),
        Policy::Fifo => simulated(Fifo::new(trace.distinct, entries), ids),
        Policy::Opt => simulated(Belady::new(ids, trace.distinct, entries), ids),
    };
    let requests = ids.len() as u64;
    Ok(Outcome {
        policy,
        hits,
        misses: requests - hits,
        hit_ratio: hits as f64 / requests as f64,
        // A clock that stood still for a short trace must not divide by zero.
        requests_per_second: requests as f64 / seconds.max(1e-9),
    })
}

fn simulated(mut simulator: impl Simulator, ids: &[u32]) -> (u64, f64) {
    let started = Instant::now();
    let hits = sim::hits(&mut simulator, ids);
    (hits, started.elapsed().as_secs_f64())
}

/// Through a cache at its default settings, but for the eviction policy.
fn larder_hits<K>(
    keys: &[K],
    ids: &[u32],
    eviction: EvictionPolicy,
    entries: u64,
) -> Result<(u64, f64), ReplayError>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    through(
        Cache::builder().eviction_policy(eviction),
        keys,
        ids,
        entries,
    )
}

/// Hits and seconds through a cache of this builder. Each miss stores the key with its number, and
/// each hit is held against it, so that a wrong answer cannot pass as a hit.
///
/// # Errors
/// As [`replay`].
pub fn through<K, S>(
    builder: CacheBuilder<K, u32, S>,
    keys: &[K],
    ids: &[u32],
    entries: u64,
) -> Result<(u64, f64), ReplayError>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    S: BuildHasher,
{
    let cache = builder
        .max_capacity(entries)
        .build()
        .map_err(|source| ReplayError::Capacity { entries, source })?;
    let mut hits = 0;
    let started = Instant::now();
    for (request, (key, &id)) in keys.iter().zip(ids).enumerate() {
        match cache.get(key) {
            Some(found) if found == id => hits += 1,
            Some(_) => return Err(ReplayError::WrongValue { request }),
            None => _ = cache.insert(key.clone(), id),
        }
    }
    Ok((hits, started.elapsed().as_secs_f64()))
}
