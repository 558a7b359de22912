//! Calls that wait no longer than they were told, while the loader goes on elsewhere.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use larder::{BuildError, Cache, CacheBuilder, LoadError, Loaded, ManualClock};

use crate::executor::{Executor, Gate, Hand};
use crate::{ANGRY, DOWN, KEY, MILLI, Numbers, SECOND, Source, WELL, at_rest, until};

const SOFT: Duration = Duration::from_millis(50);
const HARD: Duration = Duration::from_millis(500);

/// A cache with both timeouts, and nothing in it. Values live a second, and are then stale for errors.
fn limited(
    set: impl FnOnce(CacheBuilder<u64, u64>) -> CacheBuilder<u64, u64>,
) -> (Numbers, ManualClock, Source) {
    let (time, source) = (ManualClock::new(), Source::default());
    let asked = source.clone();
    let builder = Cache::builder()
        .max_capacity(100)
        .time_to_live(SECOND)
        .stale_if_error(60 * SECOND, Duration::ZERO)
        .loader(move |_: &u64| asked.answer())
        .soft_timeout(SOFT)
        .hard_timeout(HARD)
        .clock(time.clock());
    (set(builder).build().unwrap(), time, source)
}

/// What a call comes to while time passes, in steps that miss neither timeout. A call may begin to wait late.
fn after(cache: &Numbers, time: &ManualClock) -> Result<u64, LoadError> {
    std::thread::scope(|scope| {
        let call = scope.spawn(|| cache.load(&KEY));
        while !call.is_finished() {
            std::thread::sleep(5 * MILLI);
            time.advance(SOFT);
        }
        call.join().unwrap()
    })
}

fn timed_out(result: Result<u64, LoadError>) -> bool {
    matches!(result, Err(LoadError::LoadTimedOut { after }) if after == HARD)
}

fn abandoned(result: Result<u64, LoadError>) -> bool {
    matches!(result, Err(LoadError::Abandoned))
}

#[test]
fn a_loader_that_is_fast_enough_is_like_any_other() {
    let (cache, _time, source) = limited(|builder| builder);
    source.gate.open();
    assert_eq!(cache.load(&KEY).unwrap(), 100);
    assert_eq!(cache.load(&KEY).unwrap(), 100);
    source.is(DOWN);
    let failed = cache.load(&(KEY + 1)).unwrap_err();
    assert_eq!(failed.to_string(), "the loader failed: the source is down");
    at_rest(&cache);
    let stats = cache.stats();
    assert_eq!((stats.loads(), stats.load_failures()), (2, 1));
    assert_eq!((stats.refreshes(), stats.refresh_failures()), (0, 0));
}

/// What waits for nothing looks at no clock.
#[test]
#[cfg(debug_assertions)]
fn a_hit_reads_no_precise_clock() {
    let (cache, _time, _source) = limited(|builder| builder);
    cache.insert(KEY, 1);
    let before = larder::__precise_readings();
    for _ in 0..1_000 {
        assert_eq!(cache.load(&KEY).unwrap(), 1);
    }
    assert_eq!(larder::__precise_readings(), before);
}

#[test]
fn past_the_soft_timeout_a_stale_value_is_served_and_the_load_goes_on() {
    let (cache, time, source) = limited(|builder| builder);
    cache.insert(KEY, 1);
    time.advance(SECOND);
    assert_eq!(after(&cache, &time).unwrap(), 1);
    let stats = cache.stats();
    assert_eq!(
        (stats.stale_while_loading(), stats.stale_on_error()),
        (1, 0)
    );
    source.gate.open();
    at_rest(&cache);
    assert_eq!(cache.get(&KEY), Some(100), "published");
    assert_eq!(source.asked(), 1);
}

#[test]
fn with_nothing_to_serve_a_call_waits_on_until_the_hard_one() {
    let (cache, time, source) = limited(|builder| builder);
    assert!(timed_out(after(&cache, &time)));
    // It has not been cancelled: the next call joins it, and waits as long again.
    assert!(timed_out(after(&cache, &time)));
    assert_eq!(cache.stats().joined(), 1);
    source.gate.open();
    at_rest(&cache);
    assert_eq!(cache.get(&KEY), Some(100), "published");
    assert_eq!(source.asked(), 1);
}

#[test]
fn past_the_hard_timeout_too_a_stale_value_is_better_than_an_error() {
    let (cache, time, source) = limited(|builder| builder.soft_timeout(2 * HARD));
    cache.insert(KEY, 1);
    time.advance(SECOND);
    assert_eq!(after(&cache, &time).unwrap(), 1);
    assert_eq!(cache.stats().stale_on_error(), 1);
    source.gate.open();
    at_rest(&cache);
}

#[test]
fn a_load_deadline_that_is_shorter_is_the_hard_timeout() {
    let (cache, time, source) = limited(|builder| builder.load_deadline(SOFT).soft_timeout(HARD));
    let result = after(&cache, &time);
    assert!(matches!(result, Err(LoadError::LoadTimedOut { after }) if after == SOFT));
    source.gate.open();
    at_rest(&cache);
}

#[test]
fn a_crowd_waits_for_one_loader() {
    let (cache, _time, source) = limited(|builder| builder);
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..20).map(|_| scope.spawn(|| cache.load(&KEY))).collect();
        until(&cache, |stats| stats.joined() == 19);
        source.gate.open();
        for call in calls {
            assert_eq!(call.join().unwrap().unwrap(), 100);
        }
    });
    assert_eq!(source.asked(), 1);
    at_rest(&cache);
}

#[test]
fn a_write_ends_the_wait_and_takes_the_right_to_publish() {
    let (cache, _time, source) = limited(|builder| builder);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| cache.load(&KEY));
        while cache.__flights().1 == 0 {
            std::thread::yield_now();
        }
        cache.insert(KEY, 9);
        assert_eq!(call.join().unwrap().unwrap(), 9);
    });
    source.gate.open();
    at_rest(&cache);
    until(&cache, |stats| stats.detached() == 1);
    assert_eq!(cache.get(&KEY), Some(9));
}

#[test]
fn a_loader_that_panics_is_an_error_and_no_more() {
    let (cache, time, source) = limited(|builder| builder.refresh_threads(1));
    source.gate.open();
    source.is(ANGRY);
    for _ in 0..3 {
        assert!(abandoned(cache.load(&KEY)));
    }
    assert_eq!(source.asked(), 3, "once for each call");
    cache.insert(KEY, 1);
    time.advance(SECOND);
    assert_eq!(cache.load(&KEY).unwrap(), 1, "stale");
    source.is(WELL);
    assert_eq!(cache.load(&KEY).unwrap(), 500);
    at_rest(&cache);
}

#[test]
fn whoever_is_to_run_it_may_refuse() {
    type Refuse = fn(Box<dyn FnOnce() + Send>);
    let refusals: [Refuse; 2] = [drop, |_| panic!("no")];
    for refuse in refusals {
        let (cache, time, source) = limited(|builder| builder.executor(refuse));
        assert!(abandoned(cache.load(&KEY)));
        cache.insert(KEY, 1);
        time.advance(SECOND);
        assert_eq!(cache.load(&KEY).unwrap(), 1, "stale");
        assert_eq!((source.asked(), cache.stats().refresh_refusals()), (0, 0));
        at_rest(&cache);
    }
}

/// However long the queue, a call waits until its own timeout; and what nobody waits for any more is not begun.
#[test]
fn a_long_queue_is_waited_for_and_left_in_time() {
    const CALLS: u64 = 200;
    let (runs, gate) = (Arc::new(AtomicU64::new(0)), Gate::default());
    let (counted, opened) = (Arc::clone(&runs), gate.clone());
    let (cache, time, _source) = limited(|builder| {
        builder.refresh_threads(1).loader(move |key: &u64| {
            counted.fetch_add(1, Ordering::SeqCst);
            opened.block();
            Ok::<_, Infallible>(Loaded::new(*key))
        })
    });
    std::thread::scope(|scope| {
        let cache = &cache;
        let calls: Vec<_> = (0..CALLS)
            .map(|key| scope.spawn(move || cache.load(&key)))
            .collect();
        while cache.__waiting() < CALLS as usize {
            std::thread::yield_now();
        }
        assert!(
            calls.iter().all(|call| !call.is_finished()),
            "no error in advance"
        );
        time.advance(HARD);
        for call in calls {
            assert!(timed_out(call.join().unwrap()));
        }
    });
    gate.open();
    until(&cache, |_| cache.__flights() == (0, 0));
    // The one that was running, and those that wait where there is room for such.
    assert!(runs.load(Ordering::SeqCst) <= 1 + 64, "{runs:?}");
    at_rest(&cache);
}

#[test]
fn such_a_load_counts_as_one_in_flight() {
    let (cache, _time, source) = limited(|builder| builder.max_loads(1));
    std::thread::scope(|scope| {
        let call = scope.spawn(|| cache.load(&KEY));
        while cache.__flights().1 == 0 {
            std::thread::yield_now();
        }
        let other = cache.load(&(KEY + 1));
        assert!(matches!(other, Err(LoadError::TooManyLoads { limit: 1 })));
        source.gate.open();
        assert_eq!(call.join().unwrap().unwrap(), 100);
    });
    at_rest(&cache);
}

#[test]
fn a_loader_that_loads_its_own_key_is_told() {
    let itself = Arc::new(Mutex::new(None::<Numbers>));
    let cache = Arc::clone(&itself);
    let (cache, _time, _source) = limited(|builder| {
        builder.loader(move |key: &u64| {
            let cache = cache.lock().unwrap().clone().unwrap();
            cache.load(key).map(Loaded::new)
        })
    });
    *itself.lock().unwrap() = Some(cache.clone());
    let error = cache.load(&KEY).unwrap_err();
    assert!(error.to_string().contains("its own result"), "{error}");
    at_rest(&cache);
    *itself.lock().unwrap() = None;
}

/// A runtime of the test's own: tasks run when it says so, and sleeps end when the bell rings.
#[derive(Clone, Default)]
struct Runtime {
    tasks: Arc<Mutex<Vec<Task>>>,
    sleepers: Arc<Mutex<Vec<Waker>>>,
    rung: Arc<AtomicBool>,
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Runtime {
    /// A cache of values that an attached loader for tasks brings once the gate is open.
    fn cache(&self, time: &ManualClock, gate: &Gate) -> Numbers {
        let (spawner, sleeper, gate) = (self.clone(), self.clone(), gate.clone());
        Cache::builder()
            .max_capacity(100)
            .time_to_live(SECOND)
            .stale_if_error(60 * SECOND, Duration::ZERO)
            .clock(time.clock())
            .async_loader(move |_| {
                let gate = gate.clone();
                async move {
                    gate.opened().await;
                    Ok::<_, Infallible>(Loaded::new(100))
                }
            })
            .spawner(move |task| spawner.tasks.lock().unwrap().push(task))
            .timer(move |_| sleeper.clone().slept())
            .soft_timeout(SOFT)
            .hard_timeout(HARD)
            .build()
            .unwrap()
    }

    async fn slept(self) {
        std::future::poll_fn(|context| {
            if self.rung.load(Ordering::SeqCst) {
                return Poll::Ready(());
            }
            self.sleepers.lock().unwrap().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// What a call comes to that is under way while `time` passes.
    fn after(
        &self,
        cache: &Numbers,
        time: &ManualClock,
        passes: Duration,
    ) -> Result<u64, LoadError> {
        self.rung.store(false, Ordering::SeqCst);
        let mut call = Hand::pending(cache.load_async(&KEY));
        time.advance(passes);
        self.rung.store(true, Ordering::SeqCst);
        let sleepers = std::mem::take(&mut *self.sleepers.lock().unwrap());
        sleepers.into_iter().for_each(Waker::wake);
        assert!(call.wakes() > 0);
        call.ready()
    }

    fn take_tasks(&self) -> Vec<Task> {
        std::mem::take(&mut *self.tasks.lock().unwrap())
    }
}

#[test]
fn tasks_wait_no_longer_either() {
    let (runtime, gate, time) = (Runtime::default(), Gate::default(), ManualClock::new());
    let cache = runtime.cache(&time, &gate);
    // With nothing to serve: the hard timeout.
    assert!(timed_out(runtime.after(&cache, &time, HARD)));
    // The task goes on, and what it brings is stored.
    let mut executor = Executor::new();
    runtime.take_tasks().into_iter().for_each(|task| {
        executor.spawn(task);
    });
    gate.open();
    executor.finish();
    assert_eq!(cache.get(&KEY), Some(100));
    // With something stale: the soft one.
    time.advance(SECOND);
    assert_eq!(runtime.after(&cache, &time, SOFT).unwrap(), 100);
    assert_eq!(runtime.take_tasks().len(), 1);
    at_rest(&cache);
}

#[test]
fn a_runtime_that_is_gone_takes_its_tasks_and_strands_nobody() {
    let (runtime, gate, time) = (Runtime::default(), Gate::default(), ManualClock::new());
    let cache = runtime.cache(&time, &gate);
    let mut call = Hand::pending(cache.load_async(&KEY));
    drop(runtime.take_tasks());
    assert!(abandoned(call.ready()));
    drop(call);
    at_rest(&cache);
}

#[test]
fn a_timeout_that_nobody_could_keep_is_refused() {
    type Set = fn(CacheBuilder<u64, u64>) -> CacheBuilder<u64, u64>;
    fn threads(builder: CacheBuilder<u64, u64>) -> CacheBuilder<u64, u64> {
        builder.loader(|n: &u64| Ok::<_, Infallible>(Loaded::new(*n)))
    }
    fn tasks(builder: CacheBuilder<u64, u64>) -> CacheBuilder<u64, u64> {
        builder.async_loader(|n| async move { Ok::<_, Infallible>(Loaded::new(n)) })
    }
    let table: [(Set, &str); 4] = [
        (|builder| builder, "loader(..) or async_loader(..)"),
        (
            |builder| threads(builder).refresh_threads(0),
            "refresh_threads(1) or more, or executor(..)",
        ),
        (tasks, "spawner(..)"),
        (|builder| tasks(builder).spawner(|_| ()), "timer(..)"),
    ];
    for (set, needed) in table {
        let builder = Cache::builder().max_capacity(9);
        let error = set(builder).hard_timeout(SECOND).build().unwrap_err();
        assert_eq!(error, BuildError::Timeouts { missing: needed });
        assert!(error.to_string().contains(needed), "{error}");
    }
    for zero in [
        threads(Cache::builder()).soft_timeout(Duration::ZERO),
        threads(Cache::builder()).hard_timeout(Duration::ZERO),
    ] {
        let error = zero.max_capacity(9).build().unwrap_err();
        assert!(matches!(error, BuildError::ZeroDuration { .. }), "{error}");
    }
}

/// A burst of cold keys is no error: each call waits its turn.
#[test]
fn a_burst_of_calls_waits_for_the_threads() {
    let cache: Numbers = Cache::builder()
        .max_capacity(1_000)
        .loader(|key: &u64| {
            std::thread::sleep(MILLI);
            Ok::<_, Infallible>(Loaded::new(key + 1))
        })
        .hard_timeout(600 * SECOND)
        .build()
        .unwrap();
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..300)
            .map(|key| {
                let cache = &cache;
                scope.spawn(move || cache.load(&key).map(|value| value - key))
            })
            .collect();
        for call in calls {
            assert_eq!(call.join().unwrap().unwrap(), 1);
        }
    });
    at_rest(&cache);
}
