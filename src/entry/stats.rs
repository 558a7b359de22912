//! What a cache counts, and the [`Stats`] snapshot that callers read.

use std::time::Duration;

use crate::entry::freshness::StaleBy;
use crate::entry::removal::RemovalCause;
use crate::util::counter::StripedCounter;
use crate::util::sync::atomic::{AtomicU64, Ordering};

/// Names the counters, in the order of the striped array.
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
pub(crate) enum Count {
    /// Hits and misses: counted before it is known which, when a processor has time for it.
    Reads,
    Misses,
    Inserts,
    Rejections,
    Loads,
    LoadFailures,
    LoadNanos,
    Joined,
    Explicit,
    Replaced,
    Expired,
    Evicted,
    /// What evicted entries weighed beyond 1 each: where nothing is weighed, nothing is added.
    EvictedWeight,
    Invalidated,
}

const COUNTS: usize = Count::Invalidated as usize + 1;

/// The counters of one cache.
#[derive(Debug)]
pub(crate) struct Counters {
    striped: StripedCounter<COUNTS>,
    rare: Rare,
}

/// Counters of what happens as seldom as a load, or more seldom: they need no stripes.
#[derive(Debug, Default)]
struct Rare {
    refreshes: AtomicU64,
    refresh_failures: AtomicU64,
    refresh_refusals: AtomicU64,
    stale_while_loading: AtomicU64,
    stale_on_error: AtomicU64,
    negative_hits: AtomicU64,
    detached: AtomicU64,
    /// By [`Unpublished`].
    unpublished: [AtomicU64; UNPUBLISHED],
}

/// Why a loaded value went to its callers and not into the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Unpublished {
    /// A write or a removal of the key came between, or another load took over.
    Revoked,
    /// The cache, the namespace or a tag was invalidated.
    Invalidated,
    /// A tag may have been invalidated: too many were while the load ran, and not all are remembered.
    TagsGivenUp,
    /// It is too heavy, names too many tags, has no time to live, or nothing has room.
    Refused,
    /// The loader said so.
    Uncacheable,
}

const UNPUBLISHED: usize = Unpublished::Uncacheable as usize + 1;

impl Counters {
    pub(crate) fn new() -> Self {
        Counters {
            striped: StripedCounter::new(),
            rare: Rare::default(),
        }
    }

    /// Counts a value that begins to be loaded again.
    pub(crate) fn refresh(&self) {
        self.rare.refreshes.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a refresh that nothing could run.
    pub(crate) fn refresh_refusal(&self) {
        self.rare.refresh_refusals.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a value that was served though its time was up.
    pub(crate) fn stale(&self, why: StaleBy) {
        let count = match why {
            StaleBy::Load => &self.rare.stale_while_loading,
            StaleBy::Error => &self.rare.stale_on_error,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one for which that failed.
    pub(crate) fn refresh_failure(&self) {
        self.rare.refresh_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a call that was answered with a failure or an absence that is remembered.
    pub(crate) fn negative_hit(&self) {
        self.rare.negative_hits.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a load that was revoked or overtaken before its end.
    pub(crate) fn detached(&self) {
        self.rare.detached.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a loaded value that is not stored.
    pub(crate) fn unpublished(&self, why: Unpublished) {
        self.rare.unpublished[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(crate) fn bump(&self, count: Count) {
        self.striped.add(count as usize, 1);
    }

    /// Counts one of each.
    #[inline(always)]
    pub(crate) fn bump_both(&self, one: Count, other: Count) {
        self.striped.add_both(one as usize, other as usize);
    }

    #[inline]
    pub(crate) fn add(&self, count: Count, amount: u64) {
        self.striped.add(count as usize, amount);
    }

    #[inline(always)]
    pub(crate) fn removed(&self, cause: RemovalCause, weight: u64) {
        self.bump(match cause {
            RemovalCause::Explicit => Count::Explicit,
            RemovalCause::Replaced => Count::Replaced,
            RemovalCause::Expired => Count::Expired,
            RemovalCause::Invalidated => Count::Invalidated,
            RemovalCause::Size => {
                if weight != 1 {
                    self.add(Count::EvictedWeight, weight.wrapping_sub(1));
                }
                Count::Evicted
            }
        });
    }

    pub(crate) fn snapshot(&self, len: u64, weight: u64, listener_panics: u64) -> Stats {
        let sum = |count: Count| self.striped.sum(count as usize);
        // Relaxed, as all counts.
        let rare = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let unpublished = |why| rare(&self.rare.unpublished[why as usize]);
        // Misses are read before the reads that they are part of.
        let misses = sum(Count::Misses);
        Stats {
            // A read under way may yet become a miss.
            hits: sum(Count::Reads).saturating_sub(misses),
            misses,
            inserts: sum(Count::Inserts),
            rejections: sum(Count::Rejections),
            loads: sum(Count::Loads),
            load_failures: sum(Count::LoadFailures),
            load_nanos: sum(Count::LoadNanos),
            joined: sum(Count::Joined),
            unpublished: self.rare.unpublished.iter().map(rare).sum(),
            unpublished_revoked: unpublished(Unpublished::Revoked),
            unpublished_invalidated: unpublished(Unpublished::Invalidated),
            unpublished_tags_given_up: unpublished(Unpublished::TagsGivenUp),
            unpublished_refused: unpublished(Unpublished::Refused),
            unpublished_uncacheable: unpublished(Unpublished::Uncacheable),
            refreshes: rare(&self.rare.refreshes),
            refresh_failures: rare(&self.rare.refresh_failures),
            refresh_refusals: rare(&self.rare.refresh_refusals),
            stale_while_loading: rare(&self.rare.stale_while_loading),
            stale_on_error: rare(&self.rare.stale_on_error),
            negative_hits: rare(&self.rare.negative_hits),
            detached: rare(&self.rare.detached),
            explicit: sum(Count::Explicit),
            replaced: sum(Count::Replaced),
            expired: sum(Count::Expired),
            evicted: sum(Count::Evicted),
            evicted_weight: sum(Count::Evicted).wrapping_add(sum(Count::EvictedWeight)),
            invalidated: sum(Count::Invalidated),
            listener_panics,
            len,
            weight,
        }
    }
}

/// A cache's counters at one moment. Two snapshots subtract to what happened between them.
///
/// While other threads use the cache the counters are read one after the other, so they may disagree
/// by the calls then under way; once those have returned they are exact.
///
/// ```
/// let cache = larder::Cache::builder().max_capacity(10).build()?;
/// let before = cache.stats();
/// cache.insert("a", 1);
/// cache.get("a");
/// cache.get("b");
/// let during = cache.stats().since(&before);
/// assert_eq!((during.hits(), during.misses()), (1, 1));
/// assert_eq!(during.hit_ratio(), 0.5);
/// # Ok::<(), larder::BuildError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    hits: u64,
    misses: u64,
    inserts: u64,
    rejections: u64,
    loads: u64,
    load_failures: u64,
    load_nanos: u64,
    joined: u64,
    unpublished: u64,
    unpublished_revoked: u64,
    unpublished_invalidated: u64,
    unpublished_tags_given_up: u64,
    unpublished_refused: u64,
    unpublished_uncacheable: u64,
    refreshes: u64,
    refresh_failures: u64,
    refresh_refusals: u64,
    stale_while_loading: u64,
    stale_on_error: u64,
    negative_hits: u64,
    detached: u64,
    explicit: u64,
    replaced: u64,
    expired: u64,
    evicted: u64,
    evicted_weight: u64,
    invalidated: u64,
    listener_panics: u64,
    len: u64,
    weight: u64,
}

/// Writes one getter a field, each with a document of its own and an example that runs.
macro_rules! getters {
    ($($(#[doc = $doc:literal])+ $name:ident),+ $(,)?) => {
        #[allow(clippy::len_without_is_empty, reason = "`len` is a figure here, not a container's")]
        impl Stats {
            $(
                $(#[doc = $doc])+
                ///
                /// ```
                /// let cache = larder::Cache::<u64, u64>::builder().max_capacity(10).build()?;
                #[doc = concat!("assert_eq!(cache.stats().", stringify!($name), "(), 0);")]
                /// # Ok::<(), larder::BuildError>(())
                /// ```
                pub fn $name(&self) -> u64 {
                    self.$name
                }
            )+

            /// All of them, under the names by which other programs know them.
            #[cfg(feature = "metrics")]
            pub(crate) fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((concat!("larder_", stringify!($name)), self.$name)),+].into_iter()
            }
        }
    };
}

getters! {
    /// Reads that found a live value: `get`, `get_many` and the loading calls. `peek`,
    /// `contains_key` and iteration do not count. A read that is under way on another thread may be
    /// counted as a hit until it turns out to be a miss.
    hits,
    /// Reads that found none.
    misses,
    /// Values stored, by whatever call.
    inserts,
    /// Values handed back: too heavy, without time to live, or a capacity of zero.
    rejections,
    /// Loaders that ran to an end, well or not.
    loads,
    /// Loaders that failed or panicked, or whose future was dropped.
    load_failures,
    /// Calls that waited for another call's load.
    joined,
    /// Loaded values that went to their callers and not into the cache: the sum of the five reasons that follow.
    unpublished,
    /// Loaded values that were not stored because a write or a removal of the key came between, or because another
    /// load had taken over.
    unpublished_revoked,
    /// Loaded values that were not stored because the cache was cleared, or their namespace, or one of their tags
    /// invalidated, while they were loaded.
    unpublished_invalidated,
    /// Loaded values that were not stored because one of their tags may have been invalidated while they were loaded:
    /// more than 1,048,576 tags that no entry carries were, and the cache remembers no more than that of them. Shorter
    /// loads or fewer invalidations help.
    unpublished_tags_given_up,
    /// Loaded values that were not stored because they were too heavy, named too many tags, had a time to live of
    /// zero, or because the cache has no capacity. Such a key is loaded by each call that asks for it.
    unpublished_refused,
    /// Loaded values that were not stored because their loader called them
    /// [`uncacheable`](crate::Loaded::uncacheable).
    unpublished_uncacheable,
    /// Values that a call began to load again before their time was up
    /// ([`early_expiration`](crate::CacheBuilder::early_expiration)).
    refreshes,
    /// Those for which the loader failed: the value at hand was served on.
    refresh_failures,
    /// Refreshes with an attached loader that nobody ran in the background, as the queue was full, no thread could be
    /// had, or the function given to the builder panicked or dropped the job. The value at hand was served.
    refresh_refusals,
    /// Loading calls that were served a value whose time was up, because another call was loading it
    /// ([`stale_while_revalidate`](crate::CacheBuilder::stale_while_revalidate)). Each is also a miss.
    stale_while_loading,
    /// Loading calls that were served a value whose time was up, because the loader failed, or had a moment ago
    /// ([`stale_if_error`](crate::CacheBuilder::stale_if_error)). Each is also a miss.
    stale_on_error,
    /// Loading calls that were answered with a failure or an absence that a load had met a moment ago
    /// ([`error_time_to_live`](crate::CacheBuilder::error_time_to_live),
    /// [`negative_time_to_live`](crate::CacheBuilder::negative_time_to_live)). Each is also a miss.
    negative_hits,
    /// Loads that were revoked, or taken over from, before they ended; counted as they end.
    detached,
    /// Removals with [`RemovalCause::Explicit`].
    explicit,
    /// Removals with [`RemovalCause::Replaced`].
    replaced,
    /// Removals with [`RemovalCause::Expired`].
    expired,
    /// Removals with [`RemovalCause::Size`].
    evicted,
    /// What the evicted entries weighed together.
    evicted_weight,
    /// Removals with [`RemovalCause::Invalidated`].
    invalidated,
    /// Calls of the [`removal_listener`](crate::CacheBuilder::removal_listener) that panicked. The panic ended there, and
    /// the removal was not told again.
    listener_panics,
    /// Entries at the moment of the snapshot; see [`Cache::len`](crate::Cache::len). A difference of
    /// two snapshots keeps the later one's.
    len,
    /// Weight at the moment of the snapshot; see [`Cache::weight`](crate::Cache::weight). A
    /// difference keeps the later one's.
    weight,
}

impl Stats {
    /// The time that loaders took, together.
    ///
    /// ```
    /// let cache = larder::Cache::<u64, u64>::builder().max_capacity(10).build()?;
    /// assert!(cache.stats().load_time().is_zero());
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn load_time(&self) -> Duration {
        Duration::from_nanos(self.load_nanos)
    }

    /// The share of reads that hit, from 0.0 to 1.0; 0.0 before the first.
    ///
    /// ```
    /// let cache = larder::Cache::<u64, u64>::builder().max_capacity(10).build()?;
    /// assert_eq!(cache.stats().hit_ratio(), 0.0);
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    pub fn hit_ratio(&self) -> f64 {
        match self.hits + self.misses {
            0 => 0.0,
            reads => self.hits as f64 / reads as f64,
        }
    }

    /// What was counted since `earlier`, a snapshot of the same cache.
    ///
    /// ```
    /// let cache = larder::Cache::<u64, u64>::builder().max_capacity(10).build()?;
    /// let earlier = cache.stats();
    /// cache.get(&1);
    /// assert_eq!(cache.stats().since(&earlier).misses(), 1);
    /// # Ok::<(), larder::BuildError>(())
    /// ```
    #[must_use]
    pub fn since(&self, earlier: &Stats) -> Stats {
        let minus = u64::wrapping_sub;
        Stats {
            // Not one that only grows: see its getter.
            hits: self.hits.saturating_sub(earlier.hits),
            misses: minus(self.misses, earlier.misses),
            inserts: minus(self.inserts, earlier.inserts),
            rejections: minus(self.rejections, earlier.rejections),
            loads: minus(self.loads, earlier.loads),
            load_failures: minus(self.load_failures, earlier.load_failures),
            load_nanos: minus(self.load_nanos, earlier.load_nanos),
            joined: minus(self.joined, earlier.joined),
            unpublished: minus(self.unpublished, earlier.unpublished),
            unpublished_revoked: minus(self.unpublished_revoked, earlier.unpublished_revoked),
            unpublished_invalidated: minus(
                self.unpublished_invalidated,
                earlier.unpublished_invalidated,
            ),
            unpublished_tags_given_up: minus(
                self.unpublished_tags_given_up,
                earlier.unpublished_tags_given_up,
            ),
            unpublished_refused: minus(self.unpublished_refused, earlier.unpublished_refused),
            unpublished_uncacheable: minus(
                self.unpublished_uncacheable,
                earlier.unpublished_uncacheable,
            ),
            refreshes: minus(self.refreshes, earlier.refreshes),
            refresh_failures: minus(self.refresh_failures, earlier.refresh_failures),
            refresh_refusals: minus(self.refresh_refusals, earlier.refresh_refusals),
            stale_while_loading: minus(self.stale_while_loading, earlier.stale_while_loading),
            stale_on_error: minus(self.stale_on_error, earlier.stale_on_error),
            negative_hits: minus(self.negative_hits, earlier.negative_hits),
            detached: minus(self.detached, earlier.detached),
            explicit: minus(self.explicit, earlier.explicit),
            replaced: minus(self.replaced, earlier.replaced),
            expired: minus(self.expired, earlier.expired),
            evicted: minus(self.evicted, earlier.evicted),
            evicted_weight: minus(self.evicted_weight, earlier.evicted_weight),
            invalidated: minus(self.invalidated, earlier.invalidated),
            listener_panics: minus(self.listener_panics, earlier.listener_panics),
            len: self.len,
            weight: self.weight,
        }
    }
}

#[cfg(all(test, not(larder_shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_turned_into_a_miss_between_two_snapshots_is_no_hit_less_than_none() {
        let counters = Counters::new();
        counters.bump(Count::Reads);
        let under_way = counters.snapshot(0, 0, 0);
        counters.bump(Count::Misses);
        let over = counters.snapshot(0, 0, 0);
        assert_eq!((over.hits(), over.misses()), (0, 1));
        let between = over.since(&under_way);
        assert_eq!((between.hits(), between.misses()), (0, 1));
    }

    #[test]
    fn what_was_evicted_weighs_what_it_weighed() {
        let counters = Counters::new();
        for weight in [0, 1, 1, 7] {
            counters.removed(RemovalCause::Size, weight);
        }
        let stats = counters.snapshot(0, 0, 0);
        assert_eq!((stats.evicted(), stats.evicted_weight()), (4, 9));
    }
}
