//! What a [`Tiered`](super::Tiered) counts, and the snapshot of it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters are Relaxed: each is true by itself, and nothing hangs on their order.
pub(super) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

pub(super) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// What a [`Tiered`](super::Tiered) counts in addition to the [`Stats`](crate::Stats) of its L1.
#[derive(Default)]
pub(super) struct TieredCounters {
    pub(super) l2_hits: AtomicU64,
    pub(super) l2_misses: AtomicU64,
    pub(super) l2_errors: AtomicU64,
    pub(super) useful_pushes: AtomicU64,
    pub(super) refused_publishes: AtomicU64,
    pub(super) bad_contents: AtomicU64,
    pub(super) stale_served: AtomicU64,
    pub(super) waits: AtomicU64,
}

impl TieredCounters {
    pub(super) fn count(counter: &AtomicU64) {
        add(counter, 1);
    }

    pub(super) fn snapshot(&self) -> TieredStats {
        TieredStats {
            l2_hits: read(&self.l2_hits),
            l2_misses: read(&self.l2_misses),
            l2_errors: read(&self.l2_errors),
            useful_pushes: read(&self.useful_pushes),
            refused_publishes: read(&self.refused_publishes),
            bad_contents: read(&self.bad_contents),
            stale_served: read(&self.stale_served),
            waits: read(&self.waits),
        }
    }
}

/// What a [`Tiered`](super::Tiered) has seen since it was built, in addition to the [`Stats`](crate::Stats) of its L1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TieredStats {
    /// Misses of the L1 that the shared tier answered.
    pub l2_hits: u64,
    /// Those that it did not.
    pub l2_misses: u64,
    /// Calls to it that failed.
    pub l2_errors: u64,
    /// Changes told by it of which this process had a copy.
    pub useful_pushes: u64,
    /// Loaded values that were not stored, because something had changed while they were loaded.
    pub refused_publishes: u64,
    /// Contents that could not be read: damaged, of another schema or codec, or not larder's.
    pub bad_contents: u64,
    /// Values past their date that were served because their loader failed.
    pub stale_served: u64,
    /// Waits for another process's load.
    pub waits: u64,
}
