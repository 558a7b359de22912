//! The bound on loads in flight.

use crate::store::Store;
use crate::util::sync::atomic::{AtomicUsize, Ordering};

/// One of the loads that may be in flight. Dropped, it is free again, also by a panic.
pub(super) struct Permit<'a>(pub(super) &'a AtomicUsize);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<K, V> Store<K, V> {
    /// Counts one more load in flight, unless there are as many as may be.
    pub(super) fn take_permit(&self) -> Option<Permit<'_>> {
        // Relaxed: the count bounds, it orders nothing.
        let before = self.loads_in_flight.fetch_add(1, Ordering::Relaxed);
        let permit = Permit(&self.loads_in_flight);
        let refused = self.loads.max_loads.is_some_and(|limit| before >= limit);
        (!refused).then_some(permit)
    }

    /// Counts one more load whatever the bound: a follower takes over from a leader that was counted.
    pub(super) fn force_permit(&self) {
        self.loads_in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// How many loaders are running.
    pub(crate) fn loads_in_flight(&self) -> usize {
        self.loads_in_flight.load(Ordering::Relaxed)
    }
}
