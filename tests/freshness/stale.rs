//! Values whose time is up: to whom they are served, for how long, and what ends that at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use larder::{
    Cache, EntryOptions, EvictionPolicy, Freshness, LoadError, Loaded, ManualClock, RemovalCause,
    TryLoadError,
};

use crate::executor::{Gate, Hand};
use crate::{KEY, MILLI, Numbers, SECOND, at_rest, held, served};

/// A cache whose values live a second, and are then stale.
fn stale(revalidate: Duration, error: (Duration, Duration)) -> (Numbers, ManualClock) {
    let time = ManualClock::new();
    let cache = Cache::builder()
        .max_capacity(100)
        .time_to_live(SECOND)
        .stale_while_revalidate(revalidate)
        .stale_if_error(error.0, error.1)
        .clock(time.clock())
        .build()
        .unwrap();
    (cache, time)
}

const NEVER: (Duration, Duration) = (Duration::ZERO, Duration::ZERO);

/// A value of 1, half a second past its time, stale for ten seconds.
fn past(revalidate: Duration, error: (Duration, Duration)) -> (Numbers, ManualClock) {
    let (cache, time) = stale(revalidate, error);
    cache.insert(KEY, 1);
    time.advance(SECOND + 500 * MILLI);
    (cache, time)
}

fn fail(cache: &Numbers) -> Result<u64, TryLoadError<&'static str>> {
    cache.try_get_or_load(&KEY, || Err("the source is down"))
}

#[test]
fn one_loads_and_the_others_are_served_the_stale_value() {
    let (cache, _time) = past(10 * SECOND, NEVER);
    let gate = Gate::default();
    let mut elected = held(&cache, &gate, 2);
    for _ in 0..100 {
        assert_eq!(served(&cache), 1);
    }
    gate.open();
    assert_eq!(elected.ready(), 2);
    assert_eq!(served(&cache), 2);
    let stats = cache.stats();
    assert_eq!((stats.loads(), stats.joined()), (1, 0));
    assert_eq!(
        (stats.stale_while_loading(), stats.stale_on_error()),
        (100, 0)
    );
    assert_eq!((stats.hits(), stats.misses()), (1, 101));
    at_rest(&cache);
}

#[test]
fn for_all_other_calls_a_stale_value_is_absent() {
    type Call = fn(&Numbers);
    let calls: [(&str, Call); 9] = [
        ("get", |cache| assert_eq!(cache.get(&KEY), None)),
        ("peek", |cache| assert_eq!(cache.peek(&KEY), None)),
        ("contains_key", |cache| assert!(!cache.contains_key(&KEY))),
        ("iter", |cache| assert_eq!(cache.iter().count(), 0)),
        ("add", |cache| assert!(cache.add(KEY, 3).is_stored())),
        ("replace", |cache| {
            assert_eq!(cache.replace(KEY, 3), Err(3));
        }),
        ("remove", |cache| assert_eq!(cache.remove(&KEY), None)),
        ("touch", |cache| {
            assert!(!cache.touch(&KEY, Some(9 * SECOND)));
        }),
        ("insert", |cache| assert_eq!(cache.insert(KEY, 3), None)),
    ];
    for (name, call) in calls {
        let (cache, _time) = past(10 * SECOND, (10 * SECOND, SECOND));
        let by = 500 * MILLI;
        let is = cache.get_with_freshness(&KEY);
        assert_eq!(is, Some((1, Freshness::Stale { by })), "before {name}");
        call(&cache);
        at_rest(&cache);
    }
}

#[test]
fn what_removes_a_value_removes_its_stale_copy_at_once() {
    type Call = fn(&Numbers);
    let calls: [(&str, Call); 6] = [
        ("remove", |cache| assert_eq!(cache.remove(&KEY), None)),
        ("invalidate", |cache| {
            let _ = cache.invalidate(&KEY);
        }),
        ("clear", Numbers::clear),
        ("remove_many", |cache| {
            cache.remove_many([&KEY]);
        }),
        ("invalidate_tag", |cache| cache.invalidate_tag("t")),
        ("clear of the namespace", |cache| cache.clear()),
    ];
    for (name, call) in calls {
        let (root, time) = stale(10 * SECOND, (10 * SECOND, SECOND));
        let cache = match name {
            "clear of the namespace" => root.namespace("a"),
            _ => root,
        };
        let options = match name {
            "invalidate_tag" => EntryOptions::new().tag("t"),
            _ => EntryOptions::new(),
        };
        cache.insert_with(KEY, 1, options).unwrap();
        time.advance(SECOND + 500 * MILLI);
        // Somebody is loading, and others are being served.
        let gate = Gate::default();
        let mut elected = held(&cache, &gate, 2);
        assert_eq!(served(&cache), 1, "before {name}");
        call(&cache);
        assert_eq!(cache.get_with_freshness(&KEY), None, "{name}");
        let later = cache.try_get_or_load_async(&KEY, async || Err("the source is down"));
        let mut later = Hand::new(later);
        let answer = later.poll();
        gate.open();
        assert_eq!(elected.ready(), 2);
        if name == "invalidate_tag" {
            // The load in flight may yet bring a value without that tag: it is waited for.
            assert!(answer.is_pending(), "served stale after {name}");
            assert_eq!(later.ready().unwrap(), 2);
        } else {
            assert!(matches!(answer, Poll::Ready(Err(_))), "{name}: {answer:?}");
            assert_eq!(cache.get(&KEY), None, "published over {name}");
        }
        at_rest(&cache);
    }
}

#[test]
fn a_window_ends_to_the_tick() {
    let table = [
        (10 * SECOND, NEVER, 10 * SECOND),
        (SECOND, (10 * SECOND, SECOND), 10 * SECOND),
        (10 * SECOND, (SECOND, SECOND), 10 * SECOND),
    ];
    for (revalidate, error, window) in table {
        let (cache, time) = stale(revalidate, error);
        cache.insert(KEY, 1);
        time.advance(SECOND + window - Duration::from_micros(20));
        let by = window - Duration::from_micros(20);
        assert_eq!(
            cache.get_with_freshness(&KEY),
            Some((1, Freshness::Stale { by }))
        );
        cache.run_pending(64);
        assert_eq!(cache.len(), 1, "kept as long as it may be served");
        time.advance(Duration::from_micros(20));
        assert_eq!(cache.get_with_freshness(&KEY), None);
        // The wheel may come a tick late.
        time.advance(20 * MILLI);
        cache.run_pending(64);
        assert_eq!(cache.len(), 0, "and no longer");
        at_rest(&cache);
    }
}

#[test]
fn past_the_window_for_loads_callers_wait_although_the_value_is_kept_for_errors() {
    let (cache, time) = past(SECOND, (10 * SECOND, SECOND));
    time.advance(SECOND);
    let gate = Gate::default();
    let mut elected = held(&cache, &gate, 2);
    let mut waits = Hand::pending(cache.get_or_load_async(&KEY, || async { 3 }));
    gate.open();
    assert_eq!((elected.ready(), waits.ready()), (2, 2));
    at_rest(&cache);
}

#[test]
fn a_dead_source_is_asked_once_in_a_while_and_nobody_notices() {
    let (cache, time) = past(Duration::ZERO, (10 * SECOND, SECOND));
    let asked = AtomicU64::new(0);
    let ask = || {
        cache.try_get_or_load(&KEY, || {
            asked.fetch_add(1, Ordering::SeqCst);
            Err::<u64, _>("the source is down")
        })
    };
    // Half a second past its time, until the window of ten is over.
    for step in 0..95 {
        for _ in 0..10 {
            assert_eq!(ask().unwrap(), 1, "at step {step}");
        }
        time.advance(100 * MILLI);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 10, "once a second");
    assert_eq!(cache.stats().stale_on_error(), 950);
    assert_eq!(cache.stats().load_failures(), 10);
    // The window is over, and with it the rest: who has nothing to serve asks.
    assert!(ask().is_err());
    assert!(ask().is_err());
    assert_eq!(asked.load(Ordering::SeqCst), 12);
    at_rest(&cache);
}

#[test]
fn a_source_that_is_back_is_noticed_after_its_rest() {
    let (cache, time) = past(Duration::ZERO, (10 * SECOND, SECOND));
    assert_eq!(fail(&cache).unwrap(), 1);
    assert_eq!(served(&cache), 1, "it rests");
    time.advance(SECOND);
    assert_eq!(cache.get_or_load(&KEY, || 2), 2);
    assert_eq!(cache.get(&KEY), Some(2));
    at_rest(&cache);
}

#[test]
fn those_who_waited_for_a_load_that_failed_are_served_too() {
    let (cache, _time) = past(Duration::ZERO, (10 * SECOND, SECOND));
    let gate = Gate::default();
    let load = async || {
        gate.opened().await;
        Err::<u64, _>("the source is down")
    };
    let mut leader = Hand::pending(cache.try_get_or_load_async(&KEY, load));
    let mut told = Hand::pending(cache.try_get_or_load_async(&KEY, load));
    let mut untold = Hand::pending(cache.get_or_load_async(&KEY, || async { panic!("it rests") }));
    gate.open();
    assert_eq!(leader.ready().unwrap(), 1);
    assert_eq!(told.ready().unwrap(), 1);
    assert_eq!(untold.ready(), 1);
    assert_eq!(cache.stats().stale_on_error(), 3);
    assert_eq!(cache.__flights(), (1, 0), "a failure that is remembered");
}

#[test]
fn an_early_load_that_fails_rests_as_well() {
    let time = ManualClock::new();
    let cache = Cache::builder()
        .max_capacity(100)
        .time_to_live(10 * SECOND)
        .early_expiration(crate::ALWAYS)
        .stale_if_error(10 * SECOND, SECOND)
        .clock(time.clock())
        .build()
        .unwrap();
    crate::load(&cache, &time, 1);
    time.advance(9 * SECOND);
    for _ in 0..100 {
        assert_eq!(fail(&cache).unwrap(), 1);
    }
    assert_eq!(cache.stats().load_failures(), 1);
    time.advance(SECOND);
    // Its time is up meanwhile; the rest is, too.
    assert_eq!(fail(&cache).unwrap(), 1);
    assert_eq!(cache.stats().load_failures(), 2);
    assert_eq!(cache.stats().stale_on_error(), 1);
}

#[test]
fn without_a_window_an_error_is_an_error() {
    let (cache, _time) = past(Duration::ZERO, NEVER);
    assert!(fail(&cache).is_err());
    assert_eq!(cache.get_with_freshness(&KEY), None);
    assert_eq!(cache.stats().stale_on_error(), 0);
}

#[test]
fn a_load_that_finds_nothing_ends_what_is_stale() {
    let (cache, _time) = past(10 * SECOND, (10 * SECOND, SECOND));
    assert_eq!(cache.get_or_load_optional(&KEY, || None), None);
    assert_eq!(cache.get_with_freshness(&KEY), None);
    assert!(fail(&cache).is_err());
    at_rest(&cache);
}

#[test]
fn what_has_been_idle_too_long_is_not_stale_but_gone() {
    let time = ManualClock::new();
    let cache = Cache::builder()
        .max_capacity(100)
        .time_to_live(10 * SECOND)
        .time_to_idle(SECOND)
        .stale_if_error(100 * SECOND, SECOND)
        .clock(time.clock())
        .build()
        .unwrap();
    cache.insert(KEY, 1);
    time.advance(SECOND);
    assert_eq!(cache.get_with_freshness(&KEY), None);
    assert!(fail(&cache).is_err());
}

#[test]
fn no_more_loads_than_are_allowed_is_an_error_that_a_stale_value_answers() {
    let time = ManualClock::new();
    let cache = Cache::builder()
        .max_capacity(100)
        .time_to_live(SECOND)
        .stale_if_error(10 * SECOND, SECOND)
        .max_loads(1)
        .clock(time.clock())
        .build()
        .unwrap();
    cache.insert(KEY, 1);
    time.advance(SECOND + MILLI);
    let gate = Gate::default();
    let mut other = Hand::pending(cache.get_or_load_async(&8, || async {
        gate.opened().await;
        8
    }));
    assert_eq!(served(&cache), 1);
    let refused = cache.try_get_or_load(&9, || Ok::<_, String>(9));
    assert!(matches!(
        refused,
        Err(TryLoadError::Shared(LoadError::TooManyLoads { limit: 1 }))
    ));
    gate.open();
    assert_eq!(other.ready(), 8);
    at_rest(&cache);
}

/// Stale values compete for room like others, and are told of like others.
#[test]
fn a_stale_value_goes_by_its_cause() {
    let heard = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let ears = Arc::clone(&heard);
    let time = ManualClock::new();
    let cache: Numbers = Cache::builder()
        .max_capacity(2)
        .eviction_policy(EvictionPolicy::Lru)
        .time_to_live(SECOND)
        .stale_while_revalidate(10 * SECOND)
        .clock(time.clock())
        .removal_listener(move |key: &u64, _: &u64, cause| ears.lock().push((*key, cause)))
        .build()
        .unwrap();
    cache.insert(1, 1);
    cache.insert(2, 2);
    time.advance(2 * SECOND);
    // Pressed out while it might still have been served.
    cache.insert(3, 3);
    assert_eq!(*heard.lock(), [(1, RemovalCause::Size)]);
    // Written over: its time was up.
    cache.insert(2, 22);
    assert_eq!(heard.lock()[1..], [(2, RemovalCause::Expired)]);
    time.advance(20 * SECOND);
    cache.run_pending(64);
    assert_eq!(heard.lock().len(), 4);
    assert!(
        heard.lock()[2..]
            .iter()
            .all(|(_, cause)| *cause == RemovalCause::Expired)
    );
    at_rest(&cache);
}

#[test]
fn an_attached_loader_is_kept_from_the_shoppers() {
    let down = Arc::new(AtomicU64::new(0));
    let is_down = Arc::clone(&down);
    let time = ManualClock::new();
    let cache: Numbers = Cache::builder()
        .max_capacity(100)
        .time_to_live(SECOND)
        .stale_if_error(100 * SECOND, SECOND)
        .clock(time.clock())
        .loader(move |key: &u64| match is_down.load(Ordering::SeqCst) {
            0 => Ok(Loaded::new(key * 6)),
            _ => Err("the source is down"),
        })
        .build()
        .unwrap();
    assert_eq!(cache.load(&KEY).unwrap(), 42);
    down.store(1, Ordering::SeqCst);
    for _ in 0..50 {
        time.advance(SECOND);
        assert_eq!(cache.load(&KEY).unwrap(), 42);
        assert_eq!(cache.load(&KEY).unwrap(), 42);
    }
    assert!(cache.load(&8).is_err(), "there is nothing to serve");
    assert_eq!(cache.__flights(), (1, 0), "a failure that is remembered");
}

/// For callers that could not be given the error, the source rests for as long as it was told to, and no longer.
#[test]
fn an_error_that_is_remembered_for_longer_makes_no_one_rest_who_cannot_be_given_it() {
    let time = ManualClock::new();
    let cache = Cache::builder()
        .max_capacity(100)
        .time_to_live(SECOND)
        .stale_if_error(60 * SECOND, SECOND)
        .error_time_to_live(30 * SECOND)
        .clock(time.clock())
        .build()
        .unwrap();
    cache.insert(KEY, 1);
    time.advance(SECOND);
    assert_eq!(fail(&cache).unwrap(), 1);
    assert_eq!(served(&cache), 1, "it rests");
    time.advance(SECOND);
    // Who could be given the error is served instead, without a loader.
    assert_eq!(
        cache.try_get_or_load(&KEY, || Ok::<_, String>(2)).unwrap(),
        1
    );
    assert_eq!(cache.get_or_load(&KEY, || 2), 2);
    at_rest(&cache);
}
