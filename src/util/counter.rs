//! Counters that many threads bump at once: each thread has a stripe of its own to write to, padded
//! to its own cache lines, and a reader adds the stripes up.
//!
//! # Who may write what
//! A thread takes a number when it first counts and gives it back when it ends. The first [`OWNED`]
//! numbers each own one stripe of every set of counters: its thread alone writes there, so a load, an
//! addition and a store lose nothing and cost less than an atomic addition. Threads beyond those share
//! the rest, by atomic additions. A number passes from one thread to the next under a mutex, so the next
//! one sees what the last one wrote.
//!
//! # Cost
//! A thread-local look-up, a load and a store a bump; 128 bytes a stripe and 16 counters.

use std::cell::Cell;

use crossbeam_utils::CachePadded;

use crate::util::sync::atomic::{AtomicU64, Ordering};

/// Stripes that have one thread each.
const OWNED: usize = 32;
/// Stripes that all other threads share.
const SHARED: usize = 8;

/// A set of `N` counters, striped by thread.
#[derive(Debug)]
pub(crate) struct StripedCounter<const N: usize> {
    stripes: Box<[CachePadded<[AtomicU64; N]>; OWNED + SHARED]>,
}

impl<const N: usize> StripedCounter<N> {
    pub(crate) fn new() -> Self {
        StripedCounter {
            stripes: Box::new(std::array::from_fn(|_| {
                CachePadded::new(std::array::from_fn(|_| AtomicU64::new(0)))
            })),
        }
    }

    /// Adds to counter `which` on this thread's stripe.
    #[inline(always)]
    pub(crate) fn add(&self, which: usize, amount: u64) {
        let number = NUMBER.get();
        if number < OWNED {
            self.add_owned(number, which, amount);
        } else {
            self.add_unowned(number, which, amount);
        }
    }

    /// Adds 1 to each of two counters.
    #[inline(always)]
    pub(crate) fn add_both(&self, one: usize, other: usize) {
        let number = NUMBER.get();
        if number < OWNED {
            self.add_owned(number, one, 1);
            self.add_owned(number, other, 1);
        } else {
            self.add_unowned(number, one, 1);
            self.add(other, 1);
        }
    }

    #[inline(always)]
    fn add_owned(&self, number: usize, which: usize, amount: u64) {
        let count = &self.stripes[number][which];
        // Relaxed, as in all of this: a count orders nothing; it is exact once the counting threads have been
        // joined, or have given their numbers to others.
        count.store(
            count.load(Ordering::Relaxed).wrapping_add(amount),
            Ordering::Relaxed,
        );
    }

    /// For threads that own no stripe, or have not asked for one yet.
    #[cold]
    fn add_unowned(&self, number: usize, which: usize, amount: u64) {
        let number = if number == NONE {
            take_number()
        } else {
            number
        };
        if number < OWNED {
            return self.add_owned(number, which, amount);
        }
        let stripe = &self.stripes[OWNED + number % SHARED];
        stripe[which].fetch_add(amount, Ordering::Relaxed);
    }

    /// The sum over all stripes: a moment's value while others count.
    pub(crate) fn sum(&self, which: usize) -> u64 {
        self.stripes
            .iter()
            .map(|stripe| stripe[which].load(Ordering::Relaxed))
            .fold(0, u64::wrapping_add)
    }
}

/// No number was taken yet.
const NONE: usize = usize::MAX;

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(NONE) };
    /// Gives the number back at the thread's end.
    static TAKEN: Taken = const { Taken };
}

/// Numbers that were given back, and the lowest that was never given out.
///
/// A real lock, also under shuttle: nobody else runs while it is held.
static NUMBERS: parking_lot::Mutex<(Vec<usize>, usize)> = parking_lot::Mutex::new((Vec::new(), 0));

#[cold]
fn take_number() -> usize {
    // Shuttle's threads share one real thread, and with it these thread-locals: none of them owns anything.
    // A thread that is ending, its guard gone, owns nothing either.
    if cfg!(larder_shuttle) || TAKEN.try_with(|_| ()).is_err() {
        NUMBER.set(OWNED);
        return OWNED;
    }
    let mut numbers = NUMBERS.lock();
    let number = numbers.0.pop().unwrap_or_else(|| {
        numbers.1 += 1;
        numbers.1 - 1
    });
    NUMBER.set(number);
    number
}

struct Taken;

impl Drop for Taken {
    fn drop(&mut self) {
        let number = NUMBER.replace(OWNED);
        if number != NONE {
            NUMBERS.lock().0.push(number);
        }
    }
}

#[cfg(all(test, not(larder_shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn no_count_is_lost_across_threads() {
        let counters = StripedCounter::<2>::new();
        // More at once than own stripes, and again after they have given their numbers back.
        for _ in 0..4 {
            let all = std::sync::Barrier::new(2 * OWNED);
            std::thread::scope(|scope| {
                for _ in 0..2 * OWNED {
                    scope.spawn(|| {
                        counters.add(0, 1);
                        all.wait();
                        (0..1_000).for_each(|_| counters.add(1, 1));
                    });
                }
            });
        }
        assert_eq!(
            (counters.sum(0), counters.sum(1)),
            (8 * OWNED as u64, 8_000 * OWNED as u64)
        );
    }

    #[test]
    fn no_two_threads_own_one_stripe() {
        let (taken, all) = (
            parking_lot::Mutex::new(Vec::new()),
            std::sync::Barrier::new(20),
        );
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    taken.lock().push(take_number());
                    // All are alive at once, so that none takes a number that another gave back.
                    all.wait();
                });
            }
        });
        let mut taken = taken.into_inner();
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), 20);
    }

    #[test]
    fn numbers_come_back() {
        for _ in 0..1_000 {
            std::thread::scope(|scope| {
                scope.spawn(take_number);
            });
        }
        assert!(NUMBERS.lock().1 < 1_000);
    }
}
