//! Loaders that fail, pools that are full, runtimes that are gone, caches that are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{ANGRY, DOWN, KEY, MILLI, SECOND, WELL, at_rest, in_the_window, until};

#[test]
fn a_failure_is_counted_and_the_value_at_hand_served() {
    let (cache, _time, source) = in_the_window(|builder| builder);
    source.gate.open();
    source.is(DOWN);
    assert_eq!(cache.load(&KEY).unwrap(), 1);
    until(&cache, |stats| stats.refresh_failures() == 1);
    at_rest(&cache);
    assert_eq!(cache.get(&KEY), Some(1));
    // The next call tries again.
    source.is(WELL);
    assert_eq!(cache.load(&KEY).unwrap(), 1);
    until(&cache, |stats| stats.loads() == 2);
    at_rest(&cache);
    assert_eq!(cache.get(&KEY), Some(200));
}

#[test]
fn a_source_that_failed_rests() {
    let (cache, time, source) =
        in_the_window(|builder| builder.stale_if_error(SECOND, 100 * MILLI));
    source.gate.open();
    source.is(DOWN);
    assert_eq!(cache.load(&KEY).unwrap(), 1);
    until(&cache, |stats| stats.refresh_failures() == 1);
    for _ in 0..100 {
        assert_eq!(cache.load(&KEY).unwrap(), 1);
    }
    assert_eq!(source.asked(), 1);
    time.advance(100 * MILLI);
    assert_eq!(cache.load(&KEY).unwrap(), 1);
    until(&cache, |stats| stats.refresh_failures() == 2);
    assert_eq!(source.asked(), 2);
}

#[test]
fn a_panic_ends_in_the_pool_and_the_pool_goes_on() {
    let (cache, _time, source) = in_the_window(|builder| builder.refresh_threads(1));
    source.gate.open();
    source.is(ANGRY);
    for n in 1..=3 {
        assert_eq!(cache.load(&KEY).unwrap(), 1);
        until(&cache, |stats| stats.refresh_failures() == n);
        at_rest(&cache);
    }
    source.is(WELL);
    assert_eq!(cache.load(&KEY).unwrap(), 1);
    until(&cache, |stats| stats.loads() == 4);
    at_rest(&cache);
    assert_eq!(cache.get(&KEY), Some(400));
    assert_eq!(cache.stats().load_failures(), 3);
}

#[test]
fn a_function_that_drops_the_job_or_panics_leaves_the_key_to_the_next() {
    let calls = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&calls);
    let (cache, _time, source) = in_the_window(|builder| {
        builder.executor(move |job| match count.fetch_add(1, Ordering::SeqCst) {
            0 => drop(job),
            1 => panic!("the runtime is gone"),
            _ => job(),
        })
    });
    source.gate.open();
    assert_eq!(cache.load(&KEY).unwrap(), 1);
    at_rest(&cache);
    assert_eq!(cache.stats().refresh_refusals(), 1, "it was dropped");
    assert_eq!(cache.load(&KEY).unwrap(), 1);
    at_rest(&cache);
    assert_eq!(cache.stats().refresh_refusals(), 2);
    // This one runs it on the spot, inside the call: slow, and right.
    assert_eq!(cache.load(&KEY).unwrap(), 1);
    assert_eq!(cache.get(&KEY), Some(100));
    assert_eq!(calls.load(Ordering::SeqCst), 3);
    at_rest(&cache);
}

#[test]
fn a_full_queue_is_counted_and_nobody_waits_for_it() {
    let (cache, time, source) = in_the_window(|builder| builder.refresh_threads(1));
    let options = || larder::EntryOptions::new().load_time(10 * MILLI);
    for key in 0..80 {
        cache.insert_with(key, key, options()).unwrap();
    }
    time.advance(750 * MILLI);
    for key in 0..80 {
        assert_eq!(cache.load(&key).unwrap(), key);
    }
    let refused = cache.stats().refresh_refusals();
    // 64 wait, and the thread has taken one, or will.
    assert!(refused == 15 || refused == 16, "{refused}");
    source.gate.open();
    until(&cache, |stats| {
        let well = stats.loads() - stats.load_failures();
        well + refused == 80
    });
    at_rest(&cache);
}

#[test]
fn an_invalidation_takes_the_right_to_publish_away() {
    let (cache, _time, source) = in_the_window(|builder| builder);
    assert_eq!(cache.load(&KEY).unwrap(), 1);
    assert!(cache.invalidate(&KEY));
    source.gate.open();
    until(&cache, |stats| stats.loads() == 1);
    at_rest(&cache);
    assert_eq!(cache.get(&KEY), None);
    assert_eq!(cache.stats().unpublished(), 1);
}

#[test]
fn the_last_handle_goes_without_waiting_and_the_thread_after_it() {
    let alive = Arc::new(());
    let held = Arc::clone(&alive);
    let (cache, _time, source) = in_the_window(|builder| {
        // Goes with the cache.
        builder.removal_listener(move |_, _, _| drop(Arc::clone(&held)))
    });
    assert_eq!(cache.load(&KEY).unwrap(), 1);
    drop(cache);
    // The loader runs still, or has not begun; neither is waited for.
    source.gate.open();
    let begun = std::time::Instant::now();
    while Arc::strong_count(&alive) > 1 {
        assert!(begun.elapsed() < 20 * SECOND, "the cache is kept");
        std::thread::yield_now();
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Jobs are kept until the test runs them.
type Jobs = Arc<parking_lot::Mutex<Vec<Job>>>;

fn kept() -> (Jobs, impl Fn(Job) + Send + Sync) {
    let jobs = Jobs::default();
    let queue = Arc::clone(&jobs);
    (jobs, move |job| queue.lock().push(job))
}

#[test]
fn who_has_nothing_to_be_served_does_not_wait_for_a_queue() {
    let (jobs, keep) = kept();
    let (cache, time, source) = in_the_window(|builder| builder.executor(keep));
    source.gate.open();
    assert_eq!(cache.load(&KEY).unwrap(), 1);
    assert_eq!(jobs.lock().len(), 1);
    time.advance(SECOND);
    // Its time is up, and the job has not begun: this call takes over.
    assert_eq!(cache.load(&KEY).unwrap(), 100);
    let late = jobs.lock().pop().unwrap();
    late();
    assert_eq!(source.asked(), 1, "the job has nothing to do any more");
    assert_eq!(cache.get(&KEY), Some(100));
    assert_eq!(
        (cache.stats().loads(), cache.stats().load_failures()),
        (1, 0)
    );
    at_rest(&cache);
}

#[test]
fn what_waits_in_a_queue_is_no_load_in_flight() {
    let (jobs, keep) = kept();
    let (cache, _time, source) = in_the_window(|builder| builder.executor(keep).max_loads(1));
    source.gate.open();
    assert_eq!(cache.load(&KEY).unwrap(), 1);
    assert_eq!(cache.load(&8).unwrap(), 100, "there is room for a load");
    let job = jobs.lock().pop().unwrap();
    job();
    assert_eq!(cache.get(&KEY), Some(200));
    at_rest(&cache);
}

#[test]
fn a_refresh_that_takes_too_long_is_begun_anew() {
    let (jobs, keep) = kept();
    let (cache, time, source) =
        in_the_window(|builder| builder.executor(keep).load_deadline(100 * MILLI));
    source.gate.open();
    for _ in 0..10 {
        assert_eq!(cache.load(&KEY).unwrap(), 1);
    }
    time.advance(100 * MILLI);
    for _ in 0..10 {
        assert_eq!(cache.load(&KEY).unwrap(), 1);
    }
    assert_eq!((cache.stats().refreshes(), jobs.lock().len()), (2, 2));
    // The first one's flight has gone: what it brings is not published.
    let job = jobs.lock().remove(0);
    job();
    assert_eq!(cache.get(&KEY), Some(1));
    let job = jobs.lock().remove(0);
    job();
    assert_eq!(cache.get(&KEY), Some(200));
    at_rest(&cache);
}
