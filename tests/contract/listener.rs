//! The removal listener: every way out, exactly once, outside locks.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use larder::{Cache, CacheBuilder, Compute, EntryOptions, ManualClock, RemovalCause};

use crate::{SECOND, ignore};

type Event = (u64, u64, RemovalCause);
type Configure = fn(CacheBuilder<u64, u64>) -> CacheBuilder<u64, u64>;

fn listened(configure: Configure) -> (Cache<u64, u64>, ManualClock, Receiver<Event>) {
    let time = ManualClock::new();
    let (tell, heard) = channel();
    let builder = Cache::builder().max_capacity(4).clock(time.clock());
    let cache = configure(builder)
        .removal_listener(move |key, value, cause| {
            assert_eq!(larder::__lock_depth(), 0, "told under a lock");
            tell.send((*key, *value, cause)).expect("the test listens");
        })
        .build()
        .expect("a valid configuration");
    (cache, time, heard)
}

fn as_is(builder: CacheBuilder<u64, u64>) -> CacheBuilder<u64, u64> {
    builder
}

type Out = fn(&Cache<u64, u64>, &ManualClock);

/// Each way in which entry 1 can leave, and the cause that is told.
const WAYS_OUT: [(&str, Out, RemovalCause); 16] = [
    (
        "remove",
        |cache, _| ignore(cache.remove(&1)),
        RemovalCause::Explicit,
    ),
    (
        "invalidate",
        |cache, _| ignore(cache.invalidate(&1)),
        RemovalCause::Explicit,
    ),
    (
        "remove_many",
        |cache, _| ignore(cache.remove_many(&[1, 1])),
        RemovalCause::Explicit,
    ),
    (
        "remove_if",
        |cache, _| ignore(cache.remove_if(&1, |_| true)),
        RemovalCause::Explicit,
    ),
    (
        "retain",
        |cache, _| ignore(cache.retain(|_, _| false)),
        RemovalCause::Explicit,
    ),
    (
        "compute",
        |cache, _| ignore(cache.compute(&1, |_| Compute::Remove)),
        RemovalCause::Explicit,
    ),
    (
        "touch",
        |cache, _| ignore(cache.touch(&1, Some(Duration::ZERO))),
        RemovalCause::Explicit,
    ),
    (
        "a refused write",
        |cache, _| {
            let none = EntryOptions::new().time_to_live(Duration::ZERO);
            assert!(cache.insert_with(1, 9, none).is_err());
        },
        RemovalCause::Explicit,
    ),
    (
        "insert",
        |cache, _| ignore(cache.insert(1, 9)),
        RemovalCause::Replaced,
    ),
    (
        "replace",
        |cache, _| ignore(cache.replace(1, 9)),
        RemovalCause::Replaced,
    ),
    (
        "compute, a value",
        |cache, _| ignore(cache.compute(&1, |_| Compute::Put(9))),
        RemovalCause::Replaced,
    ),
    (
        "expiry",
        |cache, time| {
            time.advance(10 * SECOND);
            assert_eq!(cache.run_pending(10), 1);
        },
        RemovalCause::Expired,
    ),
    (
        "expiry, found by a write",
        |cache, time| {
            time.advance(10 * SECOND);
            cache.insert(1, 9);
        },
        RemovalCause::Expired,
    ),
    (
        "clear",
        |cache, _| {
            cache.clear();
            cache.run_pending(10);
        },
        RemovalCause::Invalidated,
    ),
    (
        "a tag",
        |cache, _| {
            cache.invalidate_tag("tag");
            cache.remove(&1);
        },
        RemovalCause::Invalidated,
    ),
    (
        "eviction",
        |cache, _| {
            (2..6).for_each(|n| ignore(cache.insert(n, n)));
            cache.clear();
        },
        RemovalCause::Size,
    ),
];

#[test]
fn every_way_out_has_its_cause() {
    for (name, out, cause) in WAYS_OUT {
        let (cache, time, heard) = listened(as_is);
        let options = EntryOptions::new().time_to_live(10 * SECOND).tag("tag");
        cache.insert_with(1, 1, options).unwrap();
        out(&cache, &time);
        let events: Vec<Event> = heard.try_iter().filter(|event| event.0 == 1).collect();
        assert_eq!(events, [(1, 1, cause)], "{name}");
    }
}

#[test]
fn a_namespaces_clear_is_told_as_an_invalidation_however_it_is_reclaimed() {
    let (cache, time, heard) = listened(|builder| builder.time_to_live(SECOND));
    let view = cache.namespace("a");
    (0..4).for_each(|n| ignore(view.insert(n, n)));
    view.clear();
    view.remove(&0);
    (10..13).for_each(|n| ignore(cache.insert(n, n)));
    time.advance(SECOND);
    cache.run_pending(100);
    let dead: Vec<_> = heard.try_iter().filter(|event| event.0 < 10).collect();
    assert_eq!(dead.len(), 4, "{dead:?}");
    assert!(
        dead.iter()
            .all(|event| event.2 == RemovalCause::Invalidated),
        "{dead:?}"
    );
}

#[test]
fn a_refused_value_is_handed_back_and_no_event() {
    let (cache, _, heard) = listened(|builder| builder.weigher(|_, _| 99));
    assert!(cache.try_insert(1, 1).is_err());
    assert!(!cache.add(1, 1).is_stored() || heard.try_recv().is_err());
    assert!(heard.try_recv().is_err());
}

#[test]
fn dropping_the_cache_tells_nobody() {
    let (cache, _, heard) = listened(as_is);
    cache.insert(1, 1);
    drop(cache);
    assert_eq!(heard.iter().count(), 0);
}

#[test]
fn counting_and_failed_writes_are_no_events() {
    let (cache, _, heard) = listened(as_is);
    cache.insert(1, 1);
    cache.incr(&1, 1);
    cache.decr(&1, 1);
    ignore(cache.add(1, 2));
    ignore(cache.replace(2, 2));
    cache.compute(&1, |_| Compute::Keep);
    assert!(heard.try_recv().is_err());
}

#[test]
fn every_value_is_told_once_under_churn() {
    let (cache, time, heard) =
        listened(|builder| builder.max_capacity(300).time_to_live(50 * crate::MILLI));
    std::thread::scope(|scope| {
        for thread in 0..2u64 {
            let (cache, time) = (&cache, &time);
            scope.spawn(move || {
                for n in 0..5000 {
                    // Each value is stored once, so that it must be told of once. Half of the keys come
                    // again soon, half after more keys than there is room for.
                    let key = if n % 2 == 0 {
                        n / 2 % 700
                    } else {
                        1000 + n % 40
                    };
                    let options = EntryOptions::new().tags((n % 20 == 0).then_some("tag"));
                    let stored = cache.insert_with(key, thread << 32 | n, options);
                    assert!(stored.is_ok());
                    match n % 100 {
                        0 => time.advance(2 * crate::MILLI),
                        25 => ignore(cache.remove(&(n % 13))),
                        50 => cache.invalidate_tag("tag"),
                        75 if n % 1000 == 75 => {
                            cache.clear();
                            time.advance(60 * crate::MILLI);
                        }
                        _ => {}
                    }
                }
            });
        }
    });
    cache.clear();
    cache.run_pending(u32::MAX);
    let events: Vec<Event> = heard.try_iter().collect();
    for cause in [
        RemovalCause::Explicit,
        RemovalCause::Replaced,
        RemovalCause::Expired,
        RemovalCause::Size,
        RemovalCause::Invalidated,
    ] {
        let count = events.iter().filter(|event| event.2 == cause).count();
        assert!(count >= 10, "{cause:?} only {count} times");
    }
    let mut values: Vec<u64> = events.iter().map(|event| event.1).collect();
    values.sort_unstable();
    let stored: Vec<u64> = (0..2u64)
        .flat_map(|thread| (0..5000).map(move |n| thread << 32 | n))
        .collect();
    assert!(
        values == stored,
        "told: {} of {}",
        values.len(),
        stored.len()
    );
}

#[test]
fn a_listener_may_use_the_cache() {
    let place: Arc<OnceLock<Cache<u64, u64>>> = Arc::new(OnceLock::new());
    let (tell, heard) = channel();
    let seen = Arc::clone(&place);
    let cache = Cache::builder()
        .max_capacity(2)
        .removal_listener(move |key: &u64, value: &u64, cause| {
            tell.send((*key, *value, cause)).expect("the test listens");
            let cache = seen.get().expect("set before the first event");
            // This removal is told of after this event, not inside it.
            if *key < 3 {
                cache.insert(100 + key, 0);
                cache.remove(&(100 + key));
            }
            assert_eq!(cache.get_or_load(&77, || 7), 7);
        })
        .build()
        .unwrap();
    place.set(cache.clone()).expect("set once");
    cache.insert(1, 1);
    cache.remove(&1);
    let events: Vec<_> = heard.try_iter().collect();
    assert_eq!(events[0], (1, 1, RemovalCause::Explicit));
    assert!(
        events.contains(&(101, 0, RemovalCause::Explicit)),
        "{events:?}"
    );
}

/// What a listener removes is told by the thread that removed it, also if another tells meanwhile.
#[test]
fn what_a_listener_removes_is_told_on_its_own_thread() {
    let place: Arc<OnceLock<Cache<u64, u64>>> = Arc::new(OnceLock::new());
    let (tell, heard) = channel();
    let both = std::sync::Barrier::new(2);
    let seen = Arc::clone(&place);
    let cache = Cache::builder()
        .max_capacity(100)
        .removal_listener(move |key: &u64, _: &u64, _| {
            tell.send((*key, std::thread::current().id()))
                .expect("the test listens");
            if *key < 2 {
                // Both listeners have removed their second entry before either returns.
                seen.get().expect("set before").remove(&(10 + key));
                both.wait();
            }
        })
        .build()
        .unwrap();
    place.set(cache.clone()).expect("set once");
    cache.insert_many([(0, 0), (1, 1), (10, 10), (11, 11)]);
    std::thread::scope(|scope| {
        for key in 0..2 {
            let cache = &cache;
            scope.spawn(move || cache.remove(&key));
        }
    });
    let mut events: Vec<_> = heard.try_iter().collect();
    events.sort_unstable_by_key(|event| event.0);
    let keys: Vec<u64> = events.iter().map(|event| event.0).collect();
    assert_eq!(keys, [0, 1, 10, 11]);
    assert_eq!((events[0].1, events[1].1), (events[2].1, events[3].1));
}

#[test]
fn a_listener_that_panics_stays() {
    let (tell, heard) = channel();
    let cache = Cache::builder()
        .max_capacity(10)
        .removal_listener(move |key: &u64, _: &u64, _| {
            tell.send(*key).expect("the test listens");
            // A quiet panic: the hook would print it, and the test means it.
            std::panic::resume_unwind(Box::new("the listener panics"));
        })
        .build()
        .unwrap();
    for n in 0..3 {
        cache.insert(n, n);
        assert_eq!(cache.remove(&n), Some(n));
    }
    assert_eq!(heard.try_iter().collect::<Vec<_>>(), [0, 1, 2]);
    assert!(cache.inspect().contains("listener panics 3"));
}
