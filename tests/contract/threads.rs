//! Threads: none unless asked for, and none that a handle waits for.

use std::sync::mpsc::channel;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use larder::{Cache, Clock};

use crate::support::eventually;
use crate::{MILLI, SECOND, ignore, sized};

/// Held by a test that has maintenance threads, so that one that counts them counts its own.
static MAINTAINED: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

/// How many maintenance threads this process has.
#[cfg(target_os = "linux")]
fn maintenance_threads() -> usize {
    // The kernel keeps 15 characters of "larder-maintenance".
    threads_named("larder-maint")
}

/// How many threads this process has whose names begin so.
#[cfg(target_os = "linux")]
fn threads_named(beginning: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux lists its threads");
    let names = tasks.filter_map(|task| {
        // A thread may end while it is listed.
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    });
    names.filter(|name| name.starts_with(beginning)).count()
}

#[cfg(target_os = "linux")]
#[test]
fn a_thread_is_started_only_if_asked_for_and_goes_with_the_cache() {
    let _alone = MAINTAINED.lock();
    eventually("those of other tests are gone", || {
        maintenance_threads() == 0
    });
    let plain = sized(1000);
    (0..2000).for_each(|n| ignore(plain.insert(n, n)));
    let _ = plain.get_or_load(&1, || 1);
    assert_eq!(maintenance_threads(), 0, "nobody asked");

    let builder = Cache::<u64, Arc<u64>>::builder().max_capacity(1000);
    let builder = builder.time_to_live(20 * MILLI).maintenance(5 * MILLI);
    let cache = builder.build().unwrap();
    eventually("the thread starts", || maintenance_threads() == 1);
    let value = Arc::new(7);
    let weak: Weak<u64> = Arc::downgrade(&value);
    cache.insert(1, value);
    // Nobody calls the cache any more, and it gives the value back all the same.
    eventually("an idle cache is reclaimed", || weak.upgrade().is_none());
    assert_eq!((cache.len(), cache.stats().expired()), (0, 1));
    let clone = cache.clone();
    drop(cache);
    std::thread::sleep(30 * MILLI);
    assert_eq!(maintenance_threads(), 1, "a handle is left");
    drop(clone);
    eventually("the thread goes", || maintenance_threads() == 0);

    let builder = Cache::<u64, u64>::builder().max_capacity(10);
    let cache = builder.maintenance(SECOND).build().unwrap();
    let start = Instant::now();
    drop(cache);
    assert!(start.elapsed() < SECOND / 2, "dropping waits for nobody");
    eventually("one interval later at the latest", || {
        maintenance_threads() == 0
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_ticking_clock_has_one_thread_which_goes_with_its_last_clone() {
    assert_eq!(threads_named("larder-clock"), 0, "nobody asked");
    let clock = Clock::ticking(MILLI).unwrap();
    let build = |clock: Clock| {
        let builder = Cache::<u64, u64>::builder().max_capacity(10);
        builder
            .time_to_live(30 * MILLI)
            .clock(clock)
            .build()
            .unwrap()
    };
    let caches = [build(clock.clone()), build(clock)];
    eventually("the thread starts", || threads_named("larder-clock") == 1);
    for cache in &caches {
        let start = Instant::now();
        cache.insert(1, 1);
        let served = cache.get(&1);
        assert!(served.is_some() || start.elapsed() >= 30 * MILLI);
        eventually("its time is up", || cache.get(&1).is_none());
    }
    let [one, other] = caches;
    drop(one);
    std::thread::sleep(20 * MILLI);
    assert_eq!(threads_named("larder-clock"), 1, "a cache is left");
    drop(other);
    eventually("the thread goes", || threads_named("larder-clock") == 0);
}

#[test]
fn the_last_handle_may_go_inside_a_loader() {
    let cache = sized(10);
    let weak = Arc::new(());
    let held = Arc::downgrade(&weak);
    // The loader owns a handle, and the caller's goes while it runs.
    let (entered, running) = channel();
    let (release, gate) = channel::<()>();
    let worker = std::thread::spawn(move || {
        let inner = cache.clone();
        let loaded = cache.get_or_load(&1, move || {
            entered.send(()).unwrap();
            gate.recv().unwrap();
            drop(inner);
            drop(weak);
            7
        });
        drop(cache);
        loaded
    });
    running.recv().unwrap();
    release.send(()).unwrap();
    assert_eq!(worker.join().unwrap(), 7);
    assert!(held.upgrade().is_none());
}

#[test]
fn the_last_handle_may_go_inside_a_listener() {
    // The slot is emptied from within the listener; the handle in it is the last one.
    let slot: Arc<std::sync::OnceLock<()>> = Arc::default();
    let (hand, taken) = channel::<Cache<u64, u64>>();
    let taken = shared(taken);
    let told = Arc::clone(&slot);
    let cache = Cache::builder()
        .max_capacity(10)
        .removal_listener(move |_: &u64, _: &u64, _| {
            ignore(taken.lock().try_recv());
            let _ = told.set(());
        })
        .build()
        .unwrap();
    cache.insert(1, 1);
    let handle = cache.clone();
    hand.send(cache).unwrap();
    // A thread, so that a deadlock is a failure and not a hang of the whole test.
    let worker = std::thread::spawn(move || handle.remove(&1));
    eventually("the removal ends", || worker.is_finished());
    assert_eq!(worker.join().unwrap(), Some(1));
    assert!(slot.get().is_some());
}

#[test]
fn the_last_handle_may_go_inside_the_maintenance_thread() {
    let _alone = MAINTAINED.lock();
    let slot: Arc<parking_lot::Mutex<Option<Cache<u64, u64>>>> = Arc::default();
    let (told, heard) = channel();
    let told = shared(told);
    let taken = Arc::clone(&slot);
    let cache = Cache::builder()
        .max_capacity(10)
        .time_to_live(Duration::from_millis(5))
        .maintenance(Duration::from_millis(2))
        .removal_listener(move |_: &u64, _: &u64, _| {
            let last = taken.lock().take();
            let gone = last.is_some();
            drop(last);
            let _ = told.lock().send(gone);
        })
        .build()
        .unwrap();
    let mut held = slot.lock();
    cache.insert(1, 1);
    // This test's handle goes before the listener can take the other.
    *held = Some(cache);
    drop(held);
    assert_eq!(heard.recv_timeout(Duration::from_secs(20)), Ok(true));
}

/// One end of a channel that threads can share.
fn shared<T>(end: T) -> parking_lot::Mutex<T> {
    parking_lot::Mutex::new(end)
}

#[test]
fn an_iterator_outlives_the_handle() {
    let cache = sized(1000);
    (0..500).for_each(|n| ignore(cache.insert(n, n)));
    let walk = cache.iter();
    drop(cache);
    assert_eq!(walk.count(), 500);
}

#[test]
fn values_are_dropped_once_and_with_the_cache() {
    let value = Arc::new(());
    let cache = Cache::<u64, Arc<()>>::builder()
        .max_capacity(50)
        .build()
        .unwrap();
    (0..200).for_each(|n| ignore(cache.insert(n, Arc::clone(&value))));
    (0..20).for_each(|n| ignore(cache.remove(&n)));
    assert_eq!(Arc::strong_count(&value) as u64, 1 + cache.len());
    cache.clear();
    cache.run_pending(u32::MAX);
    assert_eq!(Arc::strong_count(&value), 1);
    (0..20).for_each(|n| ignore(cache.insert(n, Arc::clone(&value))));
    drop(cache);
    assert_eq!(Arc::strong_count(&value), 1);
}

#[test]
fn a_wait_ends_at_its_deadline() {
    let builder = Cache::<u64, u64>::builder().max_capacity(10);
    let cache = builder.wait_deadline(30 * MILLI).build().unwrap();
    let (entered, running) = channel();
    let (release, gate) = channel::<()>();
    std::thread::scope(|scope| {
        let leader = cache.clone();
        scope.spawn(move || {
            leader.get_or_load(&1, || {
                entered.send(()).unwrap();
                gate.recv().unwrap();
                7
            })
        });
        running.recv().unwrap();
        let waited = cache.try_get_or_load(&1, || Ok::<_, String>(8));
        let Err(larder::TryLoadError::Shared(larder::LoadError::WaitTimedOut { waited })) = waited
        else {
            panic!("{waited:?}");
        };
        assert!(waited >= 30 * MILLI && waited < Duration::from_secs(10));
        release.send(()).unwrap();
    });
    assert_eq!(cache.get(&1), Some(7));
}
