//! Loads that are handed out for the sake of a timeout: who may take them over, and what is counted.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder::{Cache, LoadError, Loaded, ManualClock};

use crate::executor::{Gate, Hand};
use crate::{KEY, MILLI, SECOND};

/// A timeout on the machine's clock that even a busy machine does not reach.
const NEVER_NEEDED: Duration = Duration::from_secs(60);

/// Jobs that the test runs when it likes.
type Jobs = Arc<Mutex<Vec<Box<dyn FnOnce() + Send>>>>;

/// It has the loader's time, not the loader: what runs is stored when it comes.
#[test]
fn a_call_that_is_out_of_time_leaves_the_loader_its_right() {
    let (time, gate) = (ManualClock::new(), Gate::default());
    let opened = gate.clone();
    let cache: Cache<u64, u64> = Cache::builder()
        .max_capacity(10)
        .clock(time.clock())
        .load_deadline(100 * MILLI)
        .hard_timeout(10 * SECOND)
        .loader(move |n: &u64| {
            opened.block();
            Ok::<_, Infallible>(Loaded::new(*n))
        })
        .build()
        .unwrap();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| cache.load(&KEY));
        while !call.is_finished() {
            std::thread::sleep(5 * MILLI);
            time.advance(100 * MILLI);
        }
        let result = call.join().unwrap();
        assert!(
            matches!(result, Err(LoadError::LoadTimedOut { .. })),
            "{result:?}"
        );
    });
    gate.open();
    while cache.__flights() != (0, 0) {
        std::thread::yield_now();
    }
    assert_eq!(
        cache.get(&KEY),
        Some(KEY),
        "nobody else has loaded it: {:?}",
        cache.stats()
    );
}

/// A queue that is never emptied fills with loads that nobody can use.
#[test]
fn a_queued_load_that_was_overtaken_is_not_run() {
    let (time, jobs, asked) = (
        ManualClock::new(),
        Jobs::default(),
        Arc::new(AtomicU64::new(0)),
    );
    let (queue, count) = (Arc::clone(&jobs), Arc::clone(&asked));
    let cache: Cache<u64, u64> = Cache::builder()
        .max_capacity(10)
        .clock(time.clock())
        .load_deadline(100 * MILLI)
        .hard_timeout(100 * MILLI)
        .executor(move |job| queue.lock().unwrap().push(job))
        .loader(move |n: &u64| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Infallible>(Loaded::new(*n))
        })
        .build()
        .unwrap();
    for n in 1..=5 {
        std::thread::scope(|scope| {
            let call = scope.spawn(|| cache.load(&KEY));
            while jobs.lock().unwrap().len() < n && !call.is_finished() {
                std::thread::yield_now();
            }
            while !call.is_finished() {
                std::thread::sleep(5 * MILLI);
                time.advance(100 * MILLI);
            }
            assert!(call.join().unwrap().is_err());
        });
    }
    let queued = std::mem::take(&mut *jobs.lock().unwrap());
    let n = queued.len();
    queued.into_iter().for_each(|job| job());
    assert!(
        asked.load(Ordering::SeqCst) <= 1,
        "{n} queued, {asked:?} run: {:?}",
        cache.stats()
    );
}

/// What is counted is loaders that ran.
#[test]
fn a_load_that_nobody_ran_is_no_load() {
    let cache: Cache<u64, u64> = Cache::builder()
        .max_capacity(10)
        .hard_timeout(NEVER_NEEDED)
        .executor(drop)
        .loader(|n: &u64| Ok::<_, Infallible>(Loaded::new(*n)))
        .build()
        .unwrap();
    assert!(matches!(cache.load(&KEY), Err(LoadError::Abandoned)));
    assert_eq!(
        (cache.stats().loads(), cache.stats().load_failures()),
        (0, 0)
    );
}

#[test]
fn a_panic_is_one_failure() {
    let cache: Cache<u64, u64> = Cache::builder()
        .max_capacity(10)
        .hard_timeout(NEVER_NEEDED)
        .loader(|_: &u64| -> Result<Loaded<u64>, Infallible> { panic!("angry") })
        .build()
        .unwrap();
    assert!(matches!(cache.load(&KEY), Err(LoadError::Abandoned)));
    assert_eq!(
        (cache.stats().loads(), cache.stats().load_failures()),
        (1, 1)
    );
}

/// A loader that runs on the pool's only thread runs a nested load itself: waiting for a thread would
/// never end.
#[test]
fn loaders_that_load_other_keys_do_not_wait_for_threads() {
    let itself = Arc::new(Mutex::new(None::<Cache<u64, u64>>));
    let own = Arc::clone(&itself);
    let cache: Cache<u64, u64> = Cache::builder()
        .max_capacity(10)
        .hard_timeout(NEVER_NEEDED)
        .refresh_threads(1)
        .loader(move |n: &u64| {
            if *n == 0 {
                return Ok(Loaded::new(0));
            }
            let cache = own.lock().unwrap().clone().unwrap();
            cache.load(&(n - 1)).map(|below| Loaded::new(below + 1))
        })
        .build()
        .unwrap();
    *itself.lock().unwrap() = Some(cache.clone());
    let answer = cache.load(&1);
    *itself.lock().unwrap() = None;
    assert_eq!(answer.unwrap(), 1);
}

/// The wait deadline is for another's loader.
#[test]
fn a_calls_own_load_is_under_its_own_timeouts() {
    let (time, gate) = (ManualClock::new(), Gate::default());
    let opened = gate.clone();
    let cache: Cache<u64, u64> = Cache::builder()
        .max_capacity(10)
        .clock(time.clock())
        .wait_deadline(100 * MILLI)
        .hard_timeout(SECOND)
        .loader(move |n: &u64| {
            opened.block();
            Ok::<_, Infallible>(Loaded::new(*n))
        })
        .build()
        .unwrap();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| cache.load(&KEY));
        while cache.__flights().1 == 0 && !call.is_finished() {
            std::thread::yield_now();
        }
        std::thread::sleep(20 * MILLI);
        time.advance(200 * MILLI);
        std::thread::sleep(20 * MILLI);
        gate.open();
        assert_eq!(call.join().unwrap().unwrap(), KEY);
    });
}

/// A call whose time is up runs no further loader.
#[test]
fn no_loader_is_run_for_a_call_whose_time_is_up() {
    let time = ManualClock::new();
    let itself = Arc::new(Mutex::new(None::<Cache<u64, u64>>));
    let asked = Arc::new(AtomicU64::new(0));
    let (own, count, passes) = (Arc::clone(&itself), Arc::clone(&asked), time.clone());
    let cache: Cache<u64, u64> = Cache::builder()
        .max_capacity(10)
        .clock(time.clock())
        .hard_timeout(SECOND)
        .executor(|job| std::thread::spawn(job).join().unwrap())
        .loader(move |n: &u64| {
            if count.fetch_add(1, Ordering::SeqCst) < 20 {
                passes.advance(SECOND);
                let cache = own.lock().unwrap().clone().unwrap();
                // A write that comes between and is undone.
                cache.insert(*n, 1);
                cache.remove(n);
            }
            Ok::<_, Infallible>(Loaded::new(*n))
        })
        .build()
        .unwrap();
    *itself.lock().unwrap() = Some(cache.clone());
    let answer = cache.load(&KEY);
    *itself.lock().unwrap() = None;
    assert!(
        asked.load(Ordering::SeqCst) <= 2,
        "{asked:?} loaders: {answer:?}"
    );
}

/// Only calls that would stand in the same queue wait for a loader that has not begun.
#[test]
fn whoever_brings_a_loader_does_not_wait_for_a_thread() {
    let (jobs, time) = (Jobs::default(), ManualClock::new());
    let queue = Arc::clone(&jobs);
    let cache: Cache<u64, u64> = Cache::builder()
        .max_capacity(10)
        .clock(time.clock())
        .hard_timeout(SECOND)
        .executor(move |job| queue.lock().unwrap().push(job))
        .loader(|n: &u64| Ok::<_, Infallible>(Loaded::new(*n)))
        .build()
        .unwrap();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| cache.load(&KEY));
        while jobs.lock().unwrap().is_empty() {
            std::thread::yield_now();
        }
        let mut own = Hand::new(cache.get_or_load_async(&KEY, || async { 5 }));
        assert_eq!(own.ready(), 5);
        assert_eq!(call.join().unwrap().unwrap(), 5, "it is told as well");
    });
    // The job comes too late, and does nothing.
    std::mem::take(&mut *jobs.lock().unwrap())
        .into_iter()
        .for_each(|job| job());
    assert_eq!((cache.get(&KEY), cache.stats().loads()), (Some(5), 1));
    assert_eq!(cache.__flights(), (0, 0));
}

/// An executor that drops its jobs serves nobody, and somebody should hear of it.
#[test]
fn a_refresh_that_is_dropped_is_counted() {
    let time = ManualClock::new();
    let cache: Cache<u64, u64> = Cache::builder()
        .max_capacity(10)
        .clock(time.clock())
        .time_to_live(10 * SECOND)
        .refresh_after(SECOND)
        .executor(drop)
        .loader(|n: &u64| Ok::<_, Infallible>(Loaded::new(*n)))
        .build()
        .unwrap();
    cache.insert(KEY, 1);
    time.advance(2 * SECOND);
    for n in 1..=5 {
        assert_eq!(cache.load(&KEY).unwrap(), 1);
        assert_eq!(cache.stats().refresh_refusals(), n);
    }
    assert_eq!(cache.__flights(), (0, 0));
}
