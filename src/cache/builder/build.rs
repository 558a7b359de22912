//! From settings to a cache: the checks, and the arithmetic of shards.

use crate::entry::expiry::Lifetime;
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use super::{CacheBuilder, EvictionPolicy};
use crate::cache::executor::{Executor, Pool};
use crate::cache::{Cache, CacheInner, maintenance};
use crate::entry::freshness::Windows;
use crate::entry::generation::Namespace;
use crate::entry::removal::Notifier;
use crate::store::{Capacity, LoadRules, MAX_ENTRIES_A_SHARD, Store, StoreConfig};
use crate::util::clock::nanos;
use crate::util::error::BuildError;
use crate::util::sync::{Arc, Mutex};

/// A shard smaller than this loses hits to its neighbours' luck: a share of about 0.4/√entries.
const ENTRIES_A_SHARD: u64 = 1024;
/// So many that shards lose few hits by running full before their neighbours do.
const MANY_A_SHARD: u64 = 2048;
/// With so many shards at most, one shard's part still holds an eighth of the weight.
const WEIGHTED_SHARDS: usize = 8;
/// Nanoseconds of a life below which a write is no ordinary one.
const SHORT_LIFETIME: u64 = 1_000_000;
/// How long a key is remembered as uncacheable.
const UNCACHEABLE: Duration = Duration::from_secs(5);

impl<K, V, S> CacheBuilder<K, V, S>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    S: BuildHasher,
{
    /// Builds the cache.
    ///
    /// # Errors
    /// [`BuildError`], which says what to change.
    ///
    /// ```
    /// let error = larder::Cache::<u64, u64>::builder().max_capacity(9).jitter(2.0).build();
    /// assert_eq!(error.unwrap_err(), larder::BuildError::Jitter);
    /// ```
    pub fn build(mut self) -> Result<Cache<K, V, S>, BuildError> {
        self.check()?;
        let weighted = self.rules.weigher.is_some();
        let max_capacity = self.max_capacity.ok_or(BuildError::NoCapacity)?;
        let capacity = Capacity {
            weight: max_capacity,
            entries: self.rules.max_entries.unwrap_or(max_capacity),
        };
        // A bound on entries beyond the one on weight shrinks no shard's part of the weight.
        let shards = shard_count(self.shards, capacity.entries.min(capacity.weight), weighted);
        let limit = MAX_ENTRIES_A_SHARD.saturating_mul(shards as u64);
        // Without a bound of their own, entries are as many as slot numbers can tell apart.
        let capacity = match self.rules.max_entries {
            None if weighted => Capacity {
                entries: capacity.entries.min(limit),
                ..capacity
            },
            _ if capacity.entries > limit => {
                return Err(BuildError::TooManyEntries {
                    asked: capacity.entries,
                    limit,
                });
            }
            _ => capacity,
        };
        let loads = self.load_rules();
        let store = Arc::new(Store::new(StoreConfig {
            clock: self.clock,
            shards,
            capacity,
            weighted,
            idle_after: self.time_to_idle.map(nanos),
            no_fast_path: self.no_fast_path,
            lru: self.eviction_policy == EvictionPolicy::Lru,
            notifier: Notifier::new(self.listener),
            journal: self.journal,
            loads,
        }));
        if let Some(every) = self.maintenance {
            maintenance::start(&store, every)?;
        }
        let executor = match (self.executor, self.refresh_threads) {
            _ if self.rules.loader.is_none() => None,
            (Some(spawn), _) => Some(Executor::Given(spawn)),
            (None, 0) => None,
            (None, threads) => Some(Executor::Threads(Pool::new(threads))),
        };
        let asks_nobody = self.rules.expiry.is_none() && self.rules.weigher.is_none();
        let plain = asks_nobody && self.rules.jitter == 0.0 && self.refresh_after.is_none();
        // What lives shorter than a deadline is kept to may be over, and is swept, as it is stored.
        let lifetime = self.rules.time_to_live.unwrap_or(Lifetime::FOREVER);
        let plain = plain && lifetime.nanos().is_none_or(|nanos| nanos >= SHORT_LIFETIME);
        let inner = Arc::new(CacheInner {
            plain_lifetime: plain.then_some(lifetime),
            hits_may_write: store.hit_needs_lock || self.rules.expiry.is_some(),
            executor,
            spawner: self.spawner,
            store,
            hasher: self.hasher,
            rules: self.rules,
            capacity: Mutex::new(capacity),
        });
        Ok(Cache::of(inner, Namespace::root()))
    }

    fn load_rules(&mut self) -> LoadRules {
        LoadRules {
            max_loads: self.max_loads,
            load_deadline: nanos(self.load_deadline),
            wait_deadline: nanos(self.wait_deadline),
            error_lifetime: nanos(self.error_time_to_live),
            negative_lifetime: nanos(self.negative_time_to_live),
            refresh_after: self.refresh_after.map(nanos),
            uncacheable: nanos(UNCACHEABLE),
            timeouts: match (self.soft_timeout, self.hard_timeout) {
                (None, None) => None,
                (soft, hard) => Some((soft.map_or(u64::MAX, nanos), hard.map_or(u64::MAX, nanos))),
            },
            timer: self.timer.take(),
            beta: self.beta,
            windows: Windows {
                while_revalidate: nanos(self.stale_while_revalidate),
                if_error: nanos(self.stale_if_error.0),
            },
            cooldown: nanos(self.stale_if_error.1),
        }
    }

    /// Whether attached loaders can be run apart from the calls that wait for them.
    fn check_timeouts(&self) -> Result<(), BuildError> {
        let (threads, tasks) = (&self.rules.loader, &self.rules.async_loader);
        let missing = if threads.is_none() && tasks.is_none() {
            "loader(..) or async_loader(..)"
        } else if threads.is_some() && self.refresh_threads == 0 && self.executor.is_none() {
            "refresh_threads(1) or more, or executor(..)"
        } else if tasks.is_some() && self.spawner.is_none() {
            "spawner(..)"
        } else if tasks.is_some() && self.timer.is_none() {
            "timer(..)"
        } else {
            return Ok(());
        };
        Err(BuildError::Timeouts { missing })
    }

    fn check(&self) -> Result<(), BuildError> {
        if self.max_capacity.is_none() {
            return Err(BuildError::NoCapacity);
        }
        if self.shards == Some(0) {
            return Err(BuildError::NoShards);
        }
        if !(0.0..=1.0).contains(&self.rules.jitter) {
            return Err(BuildError::Jitter);
        }
        if !(self.beta >= 0.0 && self.beta.is_finite()) {
            return Err(BuildError::Beta);
        }
        if self.max_loads == Some(0) {
            return Err(BuildError::NoLoads);
        }
        if self.rules.time_to_live == Some(Lifetime::NOTHING) {
            return Err(BuildError::ZeroDuration {
                setting: "time_to_live",
            });
        }
        if self.soft_timeout.or(self.hard_timeout).is_some() {
            self.check_timeouts()?;
        }
        let durations = [
            ("time_to_idle", self.time_to_idle),
            ("load_deadline", Some(self.load_deadline)),
            ("wait_deadline", Some(self.wait_deadline)),
            ("maintenance", self.maintenance),
            ("refresh_after", self.refresh_after),
            ("soft_timeout", self.soft_timeout),
            ("hard_timeout", self.hard_timeout),
        ];
        match durations
            .into_iter()
            .find(|(_, time)| *time == Some(Duration::ZERO))
        {
            Some((setting, _)) => Err(BuildError::ZeroDuration { setting }),
            None => Ok(()),
        }
    }
}

/// The most shards of a cache: thirty for each core of a large machine, and five megabytes of them.
const MAX_SHARDS: usize = 1 << 12;

/// A power of two: as many shards as asked for, but none below 1,024 entries. Unless asked, eight a core if that
/// leaves each [`MANY_A_SHARD`], else four.
fn shard_count(asked: Option<usize>, entries: u64, weighted: bool) -> usize {
    let cores = || std::thread::available_parallelism().map_or(4, std::num::NonZero::get);
    let wanted = match asked {
        Some(shards) => shards,
        None if weighted => WEIGHTED_SHARDS.min(4 * cores()),
        None if entries / MANY_A_SHARD >= 8 * cores() as u64 => 8 * cores(),
        None => 4 * cores(),
    };
    let fitting = usize::try_from(entries / ENTRIES_A_SHARD).unwrap_or(usize::MAX);
    // The largest power of two within `fitting`, and the smallest that is at least `wanted`.
    let fitting = 1 << fitting.max(1).ilog2().min(MAX_SHARDS.ilog2());
    wanted.min(MAX_SHARDS).next_power_of_two().min(fitting)
}

#[cfg(all(test, not(larder_shuttle)))]
mod tests {
    use super::shard_count;

    #[test]
    fn small_caches_have_few_shards() {
        for (asked, entries, shards) in [
            (Some(64), 0, 1),
            (Some(64), 2047, 1),
            (Some(64), 2048, 2),
            (Some(64), 1 << 20, 64),
            (Some(3), 1 << 20, 4),
            (Some(usize::MAX), u64::MAX, 1 << 12),
        ] {
            assert_eq!(
                shard_count(asked, entries, false),
                shards,
                "{asked:?} {entries}"
            );
        }
        assert!(shard_count(None, 1 << 40, true) <= 8);
    }
}
