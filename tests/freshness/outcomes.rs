//! What a refresh comes to: for the one who was elected, for the others, and for the value.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use larder::{Freshness, Loaded, RemovalCause};

use crate::executor::{Gate, Hand};
use crate::{ALWAYS, KEY, MILLI, SECOND, at_rest, held, in_the_window, load, served, timed};

#[test]
fn one_is_elected_and_the_others_are_served_what_is_there() {
    let (cache, time) = in_the_window();
    let gate = Gate::default();
    let mut elected = held(&cache, &gate, 2);
    for _ in 0..100 {
        assert_eq!(served(&cache), 1);
        assert_eq!(cache.get(&KEY), Some(1));
    }
    time.advance(20 * MILLI);
    gate.open();
    assert_eq!(elected.ready(), 2);
    assert_eq!(served(&cache), 2);
    let stats = cache.stats();
    assert_eq!(
        (stats.loads(), stats.refreshes(), stats.joined()),
        (2, 1, 0)
    );
    // It was a hit: the elected one found a value.
    assert_eq!((stats.misses(), stats.refresh_failures()), (1, 0));
    // The new value has a life of its own.
    time.advance(490 * MILLI);
    assert_eq!(cache.get_with_freshness(&KEY), Some((2, Freshness::Fresh)));
    at_rest(&cache);
}

#[test]
fn a_failed_refresh_serves_the_value_at_hand_and_changes_nothing() {
    let (cache, time) = in_the_window();
    for n in 1..=3 {
        let answer = cache.try_get_or_load(&KEY, || Err::<u64, _>("the source is down"));
        assert_eq!(answer.unwrap(), 1);
        assert_eq!(cache.stats().refresh_failures(), n);
    }
    assert_eq!(cache.get(&KEY), Some(1));
    time.advance(250 * MILLI);
    // Its time is up as if nobody had tried.
    let answer = cache.try_get_or_load(&KEY, || Err::<u64, _>("the source is down"));
    assert!(answer.is_err());
    let stats = cache.stats();
    assert_eq!((stats.load_failures(), stats.refreshes()), (4, 3));
    at_rest(&cache);
}

#[test]
fn a_remembered_failure_is_not_tried_again_while_it_is_remembered() {
    let (cache, time) = timed(ALWAYS, |builder| builder.error_time_to_live(100 * MILLI));
    load(&cache, &time, 1);
    time.advance(600 * MILLI);
    let fails = || cache.try_get_or_load(&KEY, || Err::<u64, _>("the source is down"));
    for _ in 0..100 {
        assert_eq!(fails().unwrap(), 1);
    }
    assert_eq!(cache.stats().refreshes(), 1);
    time.advance(100 * MILLI);
    assert_eq!(fails().unwrap(), 1);
    assert_eq!(cache.stats().refreshes(), 2);
}

#[test]
fn a_refresh_that_finds_nothing_takes_the_value_away() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ears = Arc::clone(&heard);
    let (cache, time) = timed(ALWAYS, |builder| {
        builder.removal_listener(move |key: &u64, value: &u64, cause| {
            ears.lock().unwrap().push((*key, *value, cause));
        })
    });
    load(&cache, &time, 1);
    time.advance(750 * MILLI);
    assert_eq!(cache.get_or_load_optional(&KEY, || None), None);
    assert_eq!(cache.get(&KEY), None);
    let heard = heard.lock().unwrap().clone();
    assert_eq!(heard, [(KEY, 1, RemovalCause::Explicit)]);
    at_rest(&cache);
}

#[test]
fn an_uncacheable_answer_goes_to_its_caller_and_ends_the_older_value() {
    let (cache, _time) = in_the_window();
    let answer = cache.get_or_load_with(&KEY, || Ok::<_, String>(Loaded::uncacheable(2)));
    assert_eq!(answer.unwrap(), 2);
    assert_eq!(cache.get(&KEY), None);
    assert_eq!(cache.stats().unpublished_uncacheable(), 1);
    at_rest(&cache);
}

#[test]
fn a_panic_of_the_loader_reaches_its_caller_and_nobody_else() {
    let (cache, time) = in_the_window();
    let died = catch_unwind(AssertUnwindSafe(|| {
        cache.get_or_load(&KEY, || panic!("the loader"))
    }));
    assert!(died.is_err());
    assert_eq!(cache.get(&KEY), Some(1));
    at_rest(&cache);
    // The next one is free to try.
    assert_eq!(load(&cache, &time, 2), 2);
    at_rest(&cache);
}

#[test]
fn a_task_that_goes_away_leaves_the_refresh_to_the_next() {
    let (cache, _time) = in_the_window();
    let gate = Gate::default();
    drop(held(&cache, &gate, 2));
    at_rest(&cache);
    gate.open();
    let mut next = Hand::new(cache.get_or_load_async(&KEY, || async { 3 }));
    assert_eq!(next.ready(), 3);
    at_rest(&cache);
}

#[test]
fn a_value_that_dies_while_it_is_loaded_again_is_waited_for_and_not_loaded_twice() {
    let (cache, time) = in_the_window();
    let gate = Gate::default();
    let mut elected = held(&cache, &gate, 2);
    time.advance(250 * MILLI);
    assert_eq!(cache.get(&KEY), None);
    let mut waits = Hand::pending(cache.get_or_load_async(&KEY, || async { 3 }));
    gate.open();
    assert_eq!((elected.ready(), waits.ready()), (2, 2));
    assert_eq!((cache.stats().loads(), cache.stats().joined()), (2, 1));
    at_rest(&cache);
}

#[test]
fn no_more_loads_than_are_allowed() {
    let (cache, time) = timed(ALWAYS, |builder| builder.max_loads(1));
    load(&cache, &time, 1);
    time.advance(750 * MILLI);
    let gate = Gate::default();
    let mut other = Hand::pending(cache.get_or_load_async(&8, || async {
        gate.opened().await;
        8
    }));
    // No room for a refresh: the value at hand will do, and nobody is refused.
    assert_eq!(served(&cache), 1);
    gate.open();
    assert_eq!(other.ready(), 8);
    assert_eq!(load(&cache, &time, 2), 2);
    at_rest(&cache);
}

#[test]
fn a_loader_that_asks_for_its_own_key_gets_the_value_at_hand() {
    let (cache, _time) = in_the_window();
    let value = cache.get_or_load(&KEY, || {
        10 + cache.get_or_load(&KEY, || unreachable!("it is there"))
    });
    assert_eq!(value, 11);
    assert_eq!(cache.get(&KEY), Some(11));
    at_rest(&cache);
}

#[test]
fn attached_loaders_without_threads_refresh_as_others_do() {
    let (cache, time) = timed(ALWAYS, |builder| {
        let answer = |key: &u64| Ok::<_, String>(Loaded::new(key * 6));
        builder.loader(answer).refresh_threads(0)
    });
    assert_eq!(cache.load(&KEY).unwrap(), 42);
    // A load that took no time is never early.
    time.advance(999 * MILLI);
    assert_eq!(cache.load(&KEY).unwrap(), 42);
    assert_eq!(cache.stats().refreshes(), 0);
    time.advance(SECOND);
    let slow = Loaded::new(43);
    cache
        .get_or_load_with(&KEY, || {
            time.advance(MILLI);
            Ok::<_, String>(slow)
        })
        .unwrap();
    time.advance(750 * MILLI);
    assert_eq!(cache.load(&KEY).unwrap(), 42);
    assert_eq!(cache.stats().refreshes(), 1);
    at_rest(&cache);
}
