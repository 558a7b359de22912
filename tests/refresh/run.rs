//! Who runs a refresh, and what its callers are served.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::current;

use larder::{Cache, Freshness, Loaded, ManualClock};

use crate::executor::{Executor, Gate};
use crate::{ALWAYS, KEY, MILLI, Numbers, SECOND, Source, at_rest, in_the_window, put, until};

#[test]
fn the_elected_call_is_served_at_once_and_a_thread_loads() {
    let (cache, _time, source) = in_the_window(|builder| builder);
    // Before the gate opens no loader can end.
    for _ in 0..100 {
        assert_eq!(cache.load(&KEY).unwrap(), 1);
    }
    assert_eq!(cache.stats().refreshes(), 1);
    assert_eq!(cache.__flights().0, 1);
    source.gate.open();
    until(&cache, |stats| stats.loads() == 1);
    at_rest(&cache);
    assert_eq!(cache.load(&KEY).unwrap(), 100);
    assert_eq!(cache.stats().joined(), 0);
}

#[test]
fn a_stale_value_is_served_while_a_thread_loads() {
    let (cache, time, source) =
        in_the_window(|builder| builder.stale_while_revalidate(10 * SECOND));
    time.advance(SECOND);
    for _ in 0..100 {
        assert_eq!(cache.load(&KEY).unwrap(), 1);
    }
    let by = 750 * MILLI;
    assert_eq!(
        cache.get_with_freshness(&KEY),
        Some((1, Freshness::Stale { by }))
    );
    source.gate.open();
    until(&cache, |stats| stats.loads() == 1);
    at_rest(&cache);
    assert_eq!(cache.load(&KEY).unwrap(), 100);
    let stats = cache.stats();
    assert_eq!((stats.stale_while_loading(), stats.joined()), (100, 0));
}

#[test]
fn a_value_that_is_stale_for_errors_alone_is_not_served_before_there_is_one() {
    let (cache, time, source) =
        in_the_window(|builder| builder.stale_if_error(10 * SECOND, SECOND));
    time.advance(SECOND);
    source.gate.open();
    assert_eq!(cache.load(&KEY).unwrap(), 100, "by this call");
    at_rest(&cache);
}

#[test]
fn with_no_threads_the_elected_call_loads_by_itself() {
    let (cache, _time, source) = in_the_window(|builder| builder.refresh_threads(0));
    source.gate.open();
    assert_eq!(cache.load(&KEY).unwrap(), 100);
    at_rest(&cache);
}

#[test]
fn a_call_that_brings_its_loader_runs_it_itself() {
    let (cache, _time, _source) = in_the_window(|builder| builder);
    let here = current().id();
    let value = cache.get_or_load(&KEY, || {
        assert_eq!(current().id(), here);
        5
    });
    assert_eq!(value, 5);
    at_rest(&cache);
}

#[test]
fn it_runs_where_the_builder_was_told() {
    let ran = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&ran);
    let (cache, _time, source) = in_the_window(|builder| {
        builder.executor(move |job| {
            count.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(job);
        })
    });
    assert_eq!(cache.load(&KEY).unwrap(), 1);
    source.gate.open();
    until(&cache, |stats| stats.loads() == 1);
    at_rest(&cache);
    assert_eq!(
        (ran.load(Ordering::SeqCst), cache.get(&KEY)),
        (1, Some(100))
    );
}

/// What passes in the queue is no part of how long a load takes.
#[test]
fn waiting_for_a_thread_does_not_count_as_loading() {
    let (jobs, waiting) = std::sync::mpsc::channel();
    let (cache, time, source) = in_the_window(|builder| {
        builder
            .time_to_live(100 * SECOND)
            .early_expiration(1.0)
            .executor(move |job| jobs.send(job).unwrap())
    });
    source.gate.open();
    // δ is 10 ms: one draw in e is early this late.
    time.advance(99 * SECOND + 240 * MILLI);
    while waiting
        .try_recv()
        .map(|job| (time.advance(5 * MILLI), job()))
        .is_err()
    {
        assert_eq!(cache.load(&KEY).unwrap(), 1);
    }
    at_rest(&cache);
    assert_eq!(cache.get(&KEY), Some(100));
    assert!(cache.stats().load_time().is_zero());
}

#[test]
fn a_load_for_tasks_can_go_from_thread_to_thread() {
    fn goes<T: Send>(_: &T) {}
    let (cache, _time, _source) = in_the_window(|builder| builder);
    goes(&cache.load_async(&KEY));
}

#[test]
fn tasks_have_a_task_load() {
    let (time, source) = (ManualClock::new(), Source::default());
    let gate = Gate::default();
    let (asked, waits) = (source.clone(), gate.clone());
    let (tasks, waiting) = std::sync::mpsc::channel();
    let cache: Numbers = Cache::builder()
        .max_capacity(100)
        .time_to_live(SECOND)
        .early_expiration(ALWAYS)
        .async_loader(move |_| {
            let (asked, waits) = (asked.clone(), waits.clone());
            async move {
                waits.opened().await;
                asked.answer()
            }
        })
        .spawner(move |task| tasks.send(task).unwrap())
        .clock(time.clock())
        .build()
        .unwrap();
    source.gate.open();
    put(&cache, &time);
    for _ in 0..100 {
        assert_eq!(pollster::block_on(cache.load_async(&KEY)).unwrap(), 1);
    }
    let mut executor = Executor::new();
    executor.spawn(waiting.recv().unwrap());
    assert_eq!(executor.run(), 1, "it waits at the gate");
    assert_eq!(pollster::block_on(cache.load_async(&KEY)).unwrap(), 1);
    gate.open();
    // The gate wakes nobody: polled anew by another executor.
    drop(executor);
    at_rest(&cache);
    assert_eq!(
        cache.get(&KEY),
        Some(1),
        "a task that was dropped has left the key"
    );
    assert_eq!(pollster::block_on(cache.load_async(&KEY)).unwrap(), 1);
    pollster::block_on(waiting.recv().unwrap());
    at_rest(&cache);
    assert_eq!(cache.get(&KEY), Some(100));
    assert!(waiting.try_recv().is_err(), "one task a refresh");
}

#[test]
fn a_namespace_refreshes_its_own_key() {
    let (root, time, source) = in_the_window(|builder| builder);
    let cache = root.namespace("a");
    put(&cache, &time);
    put(&root, &time);
    source.gate.open();
    assert_eq!(cache.load(&KEY).unwrap(), 100, "its time was up");
    put(&cache, &time);
    assert_eq!(cache.load(&KEY).unwrap(), 1);
    until(&cache, |stats| stats.loads() == 2);
    at_rest(&cache);
    assert_eq!(cache.get(&KEY), Some(200));
    assert_eq!(root.get(&KEY), None, "its time is up, and nobody asked");
}

#[test]
fn many_keys_share_two_threads() {
    let at_once = Arc::new(AtomicU64::new(0));
    let (running, time) = (Arc::clone(&at_once), ManualClock::new());
    let cache: Cache<u64, u64> = Cache::builder()
        .max_capacity(1_000)
        .time_to_live(SECOND)
        .early_expiration(ALWAYS)
        .clock(time.clock())
        .loader(move |key: &u64| {
            assert!(running.fetch_add(1, Ordering::SeqCst) < 2, "a third thread");
            std::thread::yield_now();
            running.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, String>(Loaded::new(key + 1_000))
        })
        .build()
        .unwrap();
    for key in 0..500 {
        let options = larder::EntryOptions::new().load_time(MILLI);
        cache.insert_with(key, key, options).unwrap();
    }
    time.advance(750 * MILLI);
    let mut refused = 0;
    for key in 0..500 {
        let value = cache.load(&key).unwrap();
        assert!(value == key || value == key + 1_000);
    }
    let stats = cache.stats();
    refused += stats.refresh_refusals();
    assert!(
        stats.refreshes() == 500 && refused <= 500 - 2 * 64,
        "{stats:?}"
    );
    until(&cache, |stats| {
        stats.loads() - stats.load_failures() + refused == 500
    });
    at_rest(&cache);
}
