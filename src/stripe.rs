//! Counters that many threads bump at once: each thread has a stripe of its own to write to, padded
//! to its own cache lines, and a reader adds the stripes up.
//!
//! # Cost
//! One uncontended atomic addition a bump; 128 bytes a stripe.

use crossbeam_utils::CachePadded;

use crate::sync::atomic::{AtomicU64, Ordering};

/// Enough that two running threads seldom share one, few enough to add up in no time.
const STRIPES: usize = 16;

/// A set of `N` counters, striped by thread.
#[derive(Debug)]
pub(crate) struct Striped<const N: usize> {
    stripes: Box<[CachePadded<[AtomicU64; N]>]>,
}

impl<const N: usize> Striped<N> {
    pub(crate) fn new() -> Self {
        Striped {
            stripes: (0..STRIPES)
                .map(|_| CachePadded::new(std::array::from_fn(|_| AtomicU64::new(0))))
                .collect(),
        }
    }

    /// Adds to counter `which` on this thread's stripe.
    #[inline]
    pub(crate) fn add(&self, which: usize, amount: u64) {
        let stripe = stripe_of_this_thread() % self.stripes.len();
        // Relaxed: a count orders nothing; it is exact once the counting threads have been joined.
        self.stripes[stripe][which].fetch_add(amount, Ordering::Relaxed);
    }

    /// The sum over all stripes: a moment's value while others count.
    pub(crate) fn sum(&self, which: usize) -> u64 {
        self.stripes
            .iter()
            .map(|stripe| stripe[which].load(Ordering::Relaxed))
            .fold(0, u64::wrapping_add)
    }
}

/// Threads are numbered as they first count; neighbours in time get different stripes.
fn stripe_of_this_thread() -> usize {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    MINE.with(|mine| {
        if mine.get() == usize::MAX {
            // Relaxed: only the number's uniqueness matters.
            mine.set(NEXT.fetch_add(1, Ordering::Relaxed) & (usize::MAX >> 1));
        }
        mine.get()
    })
}

#[cfg(all(test, not(larder_shuttle)))]
mod tests {
    use super::Striped;

    #[test]
    fn no_count_is_lost_across_threads() {
        let counters = Striped::<2>::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| counters.add(1, 1)));
            }
        });
        assert_eq!((counters.sum(0), counters.sum(1)), (0, 40_000));
    }
}
