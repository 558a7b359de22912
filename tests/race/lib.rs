//! Models of the flight protocol and of invalidation, over the cache that ships: shuttle stands in for
//! its locks, atomics and threads, and picks the interleavings.
//!
//! ```text
//! cd tests/race && RUSTFLAGS='--cfg larder_shuttle' cargo test --release
//! ```
//!
//! Each model runs under two schedulers: at random, and with random priorities that change at a few
//! places (PCT), which finds orders that need few but particular switches. A failing schedule is
//! printed, and `shuttle::replay` runs it again.
//!
//! # What shuttle does not see
//! * Weak memory: every atomic is sequentially consistent here.
//! * Lost wakes of threads: shuttle has no time, so a timed park is a mere yield. Where a wake counts,
//!   the waiter is a task; a task that is never woken is a deadlock, which shuttle reports.
//! * The registries of names: they lock for real. The models use only names that are registered
//!   already, since registering one reads an atomic under such a lock, where shuttle may switch.

#![cfg(all(test, larder_shuttle))]

mod cancel;
mod deadline;
mod invalidate;
mod recursion;
mod refresh;
mod share;
mod write;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use larder::{Cache, CacheBuilder, Loaded, ManualClock};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::{Config, Runner};

/// The key that everybody wants.
const KEY: u64 = 7;

/// How many schedules of each kind a model is run under.
const SCHEDULES: usize = 1_500;

/// How many changes of priority a PCT schedule has.
const CHANGES: usize = 3;

/// Runs a model under many schedules.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let model = Arc::new(model);
    let mut config = Config::new();
    // Panics of a loader unwind through the whole of the cache on a coroutine's stack.
    config.stack_size = 0x4_0000;
    let run = Arc::clone(&model);
    Runner::new(RandomScheduler::new(SCHEDULES), config.clone()).run(move || run());
    Runner::new(PctScheduler::new(CHANGES, SCHEDULES), config).run(move || model());
}

/// A cache, the clock that it runs by, and what the world outside says the value is.
#[derive(Clone)]
struct World {
    cache: Cache<u64, u64>,
    clock: ManualClock,
    truth: Arc<AtomicU64>,
    loads: Arc<AtomicU64>,
}

impl World {
    /// The truth is 1.
    fn new() -> Self {
        World::with(|builder| builder)
    }

    fn with(set: impl FnOnce(CacheBuilder<u64, u64>) -> CacheBuilder<u64, u64>) -> Self {
        let clock = ManualClock::new();
        let builder = Cache::builder()
            .max_capacity(4)
            .shards(1)
            .clock(clock.clock());
        World {
            cache: set(builder).build().expect("a valid configuration"),
            clock,
            truth: Arc::new(AtomicU64::new(1)),
            loads: Arc::new(AtomicU64::new(0)),
        }
    }

    /// Reads the truth, as a loader does: slowly.
    fn read(&self) -> u64 {
        self.loads.fetch_add(1, Ordering::SeqCst);
        let truth = self.truth.load(Ordering::SeqCst);
        shuttle::thread::yield_now();
        truth
    }

    fn load(&self) -> u64 {
        self.cache.get_or_load(&KEY, || self.read())
    }

    async fn load_async(&self) -> u64 {
        let loader = || async {
            let truth = self.read();
            pending_times(1).await;
            truth
        };
        self.cache.get_or_load_async(&KEY, loader).await
    }

    fn load_tagged(&self, tag: &str) -> u64 {
        let loader = || Ok::<_, String>(Loaded::new(self.read()).tag(tag));
        self.cache
            .get_or_load_with(&KEY, loader)
            .expect("the loader cannot fail")
    }

    /// The outside changes. Whatever is read from now on is 2.
    fn change(&self) {
        self.truth.store(2, Ordering::SeqCst);
    }

    fn loads(&self) -> u64 {
        self.loads.load(Ordering::SeqCst)
    }

    fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }

    /// When all callers are done, no flight stands and no permit is held.
    fn finish(&self) {
        assert_eq!(self.cache.__flights(), (0, 0), "a flight was left behind");
        self.cache.__validate();
    }
}

/// A future that is ready after it was pending so many times; it wakes itself each time.
fn pending_times(times: u32) -> impl Future<Output = ()> {
    struct PendingTimes(u32);

    impl Future for PendingTimes {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
            if self.0 == 0 {
                return Poll::Ready(());
            }
            self.0 -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        }
    }

    PendingTimes(times)
}
