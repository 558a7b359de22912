//! The one place that chooses where locks, atomics and threads come from: `parking_lot` and `std`,
//! or the shuttle scheduler under `--cfg larder_shuttle`, so that `tests/race` can drive the very
//! code that ships through chosen interleavings. No other file knows which one is in force.
//!
//! In debug builds every lock counts how many its thread holds. User code is called at depth zero;
//! the exceptions (`Eq` of keys, `Clone` under a shard's lock) must not call the cache, and a debug
//! build says so when they do. They also count the slots that a thread looks at while it holds a lock,
//! so that a test can say how long the longest hold was without a clock.

use std::ops::{Deref, DerefMut};

#[cfg(not(larder_shuttle))]
mod real {
    pub(crate) use parking_lot as locks;
    pub(crate) use std::sync::atomic;
    pub(crate) use std::sync::{Arc, Weak};
    pub(crate) use std::thread::{Thread, current, park_timeout};
    pub(crate) use std::thread_local;
}

#[cfg(larder_shuttle)]
mod real {
    pub(crate) use self::facade as locks;
    pub(crate) use shuttle::sync::atomic;
    pub(crate) use shuttle::sync::{Arc, Weak};
    pub(crate) use shuttle::thread::{Thread, current};
    pub(crate) use shuttle::thread_local;

    /// Shuttle has no time: a park with a time limit is a point where others may run.
    pub(crate) fn park_timeout(_limit: std::time::Duration) {
        shuttle::thread::yield_now();
    }

    /// Shuttle's locks with `parking_lot`'s face: taking one cannot fail.
    pub(crate) mod facade {
        pub(crate) use shuttle::sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};
        use std::sync::PoisonError;

        #[derive(Debug, Default)]
        pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

        impl<T> Mutex<T> {
            pub(crate) fn new(value: T) -> Self {
                Mutex(shuttle::sync::Mutex::new(value))
            }

            pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
                self.0.lock().unwrap_or_else(PoisonError::into_inner)
            }
        }

        #[derive(Debug, Default)]
        pub(crate) struct RwLock<T>(shuttle::sync::RwLock<T>);

        impl<T> RwLock<T> {
            pub(crate) fn new(value: T) -> Self {
                RwLock(shuttle::sync::RwLock::new(value))
            }

            pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
                self.0.read().unwrap_or_else(PoisonError::into_inner)
            }

            pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
                self.0.write().unwrap_or_else(PoisonError::into_inner)
            }
        }
    }
}

pub(crate) use real::*;

/// A lock around something that calls no user code and locks nothing else: a leaf of the lock order.
pub(crate) struct Mutex<T>(locks::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Mutex(locks::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> Locked<locks::MutexGuard<'_, T>> {
        Locked::new(self.0.lock())
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Mutex::new(T::default())
    }
}

/// The lock of a stripe. A thread holds at most one.
pub(crate) struct RwLock<T>(locks::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> Self {
        RwLock(locks::RwLock::new(value))
    }

    #[inline]
    pub(crate) fn read(&self) -> Locked<locks::RwLockReadGuard<'_, T>> {
        depth::assert_none_held();
        Locked::new(self.0.read())
    }

    #[inline]
    pub(crate) fn write(&self) -> Locked<locks::RwLockWriteGuard<'_, T>> {
        depth::assert_none_held();
        Locked::new(self.0.write())
    }
}

/// A held lock, counted in debug builds.
pub(crate) struct Locked<G> {
    // Dropped in this order: the count falls once the lock is free.
    guard: G,
    _held: depth::DepthGuard,
}

impl<G> Locked<G> {
    #[inline]
    fn new(guard: G) -> Self {
        Locked {
            guard,
            _held: depth::DepthGuard::new(),
        }
    }
}

impl<G: Deref> Deref for Locked<G> {
    type Target = G::Target;

    #[inline]
    fn deref(&self) -> &G::Target {
        &self.guard
    }
}

impl<G: DerefMut> DerefMut for Locked<G> {
    #[inline]
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.guard
    }
}

/// How many of this crate's locks the calling thread holds; always 0 in release builds.
pub(crate) fn lock_depth() -> usize {
    depth::current()
}

/// Notes that a slot was looked at; nothing in release builds.
#[inline]
pub(crate) fn note_slot() {
    depth::note_slot();
}

/// The most slots that the calling thread looked at while it held a lock, since this was last asked;
/// always 0 in release builds.
pub(crate) fn longest_hold() -> u64 {
    depth::longest_hold()
}

#[cfg(debug_assertions)]
mod depth {
    use std::cell::Cell;

    super::thread_local! {
        static DEPTH: Cell<usize> = const { Cell::new(0) };
        /// Slots looked at since the first of the held locks was taken, and the most ever.
        static SLOTS: Cell<u64> = const { Cell::new(0) };
        static LONGEST: Cell<u64> = const { Cell::new(0) };
    }

    pub(super) struct DepthGuard(());

    impl DepthGuard {
        pub(super) fn new() -> Self {
            DEPTH.with(|depth| {
                if depth.get() == 0 {
                    SLOTS.with(|slots| slots.set(0));
                }
                depth.set(depth.get() + 1);
            });
            DepthGuard(())
        }
    }

    impl Drop for DepthGuard {
        fn drop(&mut self) {
            DEPTH.with(|depth| depth.set(depth.get() - 1));
            let slots = SLOTS.with(Cell::get);
            LONGEST.with(|longest| longest.set(longest.get().max(slots)));
        }
    }

    pub(super) fn note_slot() {
        SLOTS.with(|slots| slots.set(slots.get() + 1));
    }

    pub(super) fn longest_hold() -> u64 {
        LONGEST.with(|longest| longest.replace(0))
    }

    pub(super) fn current() -> usize {
        DEPTH.with(Cell::get)
    }

    pub(super) fn assert_none_held() {
        assert!(
            current() == 0,
            "larder was called from inside an `Eq` or `Clone` that it runs under a shard's lock; \
             in a release build this deadlocks: keep calls to the cache out of those impls"
        );
    }
}

#[cfg(not(debug_assertions))]
mod depth {
    pub(super) struct DepthGuard(());

    impl DepthGuard {
        #[inline]
        pub(super) fn new() -> Self {
            DepthGuard(())
        }
    }

    #[inline]
    pub(super) fn note_slot() {}

    pub(super) fn longest_hold() -> u64 {
        0
    }

    pub(super) fn current() -> usize {
        0
    }

    #[inline]
    pub(super) fn assert_none_held() {}
}
