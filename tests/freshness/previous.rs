//! Loaders that are given what is there, and may say that it is unchanged.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder::{Cache, EntryOptions, LoadError, Loaded, ManualClock, TryLoadError};

use crate::executor::{Gate, Hand};
use crate::{ALWAYS, KEY, MILLI, Numbers, SECOND, at_rest, timed};

/// Loads with a loader that calls unchanged what it is given; what that was.
fn revalidate(cache: &Numbers, answer: Loaded<u64>, within: impl FnOnce()) -> (u64, Option<u64>) {
    let mut given = None;
    let value = cache.get_or_load_with_previous(&KEY, |previous| {
        given = previous.copied();
        within();
        Ok::<_, Infallible>(match previous {
            Some(_) => answer,
            None => Loaded::new(2),
        })
    });
    (value.unwrap(), given)
}

fn unchanged(cache: &Numbers) -> (u64, Option<u64>) {
    revalidate(cache, Loaded::unchanged(), || ())
}

/// A cache of values that are stale for ten seconds, with a stale one in it.
fn past() -> (Numbers, ManualClock) {
    let (cache, time) = timed(0.0, |builder| builder.stale_if_error(10 * SECOND, SECOND));
    cache.insert(KEY, 1);
    time.advance(SECOND);
    (cache, time)
}

/// A cache with a live value that is to be loaded again.
fn early() -> (Numbers, ManualClock) {
    let (cache, time) = timed(ALWAYS, |builder| builder);
    let options = EntryOptions::new().load_time(10 * MILLI);
    cache.insert_with(KEY, 1, options).unwrap();
    time.advance(750 * MILLI);
    (cache, time)
}

#[test]
fn a_first_load_is_given_nothing() {
    let (cache, _time) = timed(0.0, |builder| builder);
    assert_eq!(unchanged(&cache), (2, None));
    assert_eq!(cache.get(&KEY), Some(2));
}

#[test]
fn what_is_unchanged_has_a_new_deadline() {
    for (cache, time) in [past(), early()] {
        assert_eq!(unchanged(&cache), (1, Some(1)));
        time.advance(SECOND - MILLI);
        assert_eq!(cache.get(&KEY), Some(1));
        time.advance(MILLI);
        assert_eq!(cache.get(&KEY), None);
        let stats = cache.stats();
        assert_eq!((stats.loads(), stats.load_failures()), (1, 0));
        at_rest(&cache);
    }
}

#[test]
fn the_answer_says_which_deadline() {
    let (cache, time) = past();
    let longer = Loaded::unchanged().time_to_live(9 * SECOND);
    assert_eq!(revalidate(&cache, longer, || ()), (1, Some(1)));
    time.advance(9 * SECOND - MILLI);
    assert_eq!(cache.get(&KEY), Some(1));
    // It is given, and not kept.
    let (cache, _time) = past();
    let zero = Loaded::unchanged().time_to_live(Duration::ZERO);
    assert_eq!(revalidate(&cache, zero, || ()), (1, Some(1)));
    assert_eq!(cache.get_with_freshness(&KEY), None);
    at_rest(&cache);
}

#[test]
fn what_is_unchanged_stays_where_it_is_with_its_tags() {
    let told = Arc::new(Mutex::new(0));
    let heard = Arc::clone(&told);
    let (cache, time) = timed(0.0, move |builder| {
        builder
            .stale_if_error(10 * SECOND, SECOND)
            .removal_listener(move |_, _, _| *heard.lock().unwrap() += 1)
    });
    cache
        .insert_with(KEY, 1, EntryOptions::new().tag("red"))
        .unwrap();
    time.advance(SECOND);
    assert_eq!(unchanged(&cache), (1, Some(1)));
    assert_eq!((cache.get(&KEY), *told.lock().unwrap()), (Some(1), 0));
    cache.invalidate_tag("red");
    assert_eq!(cache.get(&KEY), None);
}

#[test]
fn what_was_invalidated_is_shown_to_nobody() {
    type Act = (&'static str, fn(&Numbers));
    let acts: [Act; 4] = [
        ("remove", |cache| assert!(!cache.invalidate(&KEY))),
        ("clear", Cache::clear),
        ("a tag", |cache| cache.invalidate_tag("red")),
        ("time", |_| ()),
    ];
    for (name, act) in acts {
        let (cache, time) = past();
        cache
            .insert_with(KEY, 1, EntryOptions::new().tag("red"))
            .unwrap();
        let window = if name == "time" {
            10 * SECOND
        } else {
            Duration::ZERO
        };
        time.advance(SECOND + window);
        act(&cache);
        assert_eq!(unchanged(&cache), (2, None), "{name}");
    }
}

#[test]
fn what_comes_between_wins_over_what_was_unchanged() {
    for make in [past, early] {
        let (cache, time) = make();
        let write = || drop(cache.insert_with(KEY, 9, EntryOptions::new().no_expiry()));
        assert_eq!(revalidate(&cache, Loaded::unchanged(), write), (1, Some(1)));
        time.advance(100 * SECOND);
        assert_eq!(cache.get(&KEY), Some(9), "with another's deadline");
        let (cache, _time) = make();
        let remove = || {
            cache.remove(&KEY);
        };
        assert_eq!(
            revalidate(&cache, Loaded::unchanged(), remove),
            (1, Some(1))
        );
        assert_eq!(cache.get_with_freshness(&KEY), None, "brought back");
        let (cache, _time) = make();
        let clear = || cache.clear();
        assert_eq!(revalidate(&cache, Loaded::unchanged(), clear), (1, Some(1)));
        assert_eq!(cache.get_with_freshness(&KEY), None, "brought back");
        assert_eq!(cache.stats().detached(), 1);
        at_rest(&cache);
    }
}

#[test]
fn a_tag_that_moves_meanwhile_wins_and_who_came_after_it_loads_again() {
    let (cache, time) = timed(0.0, |builder| builder.stale_if_error(10 * SECOND, SECOND));
    cache
        .insert_with(KEY, 1, EntryOptions::new().tag("red"))
        .unwrap();
    time.advance(SECOND);
    let (at, gate) = (&cache, Gate::default());
    let opened = &gate;
    let load = |previous: Option<u64>| async move {
        assert_eq!(previous, Some(1));
        opened.opened().await;
        Ok::<_, Infallible>(Loaded::unchanged())
    };
    let mut leader = Hand::pending(at.get_or_load_with_previous_async(&KEY, load));
    let mut before = Hand::pending(at.get_or_load_async(&KEY, || async { 5 }));
    cache.invalidate_tag("red");
    let mut after = Hand::pending(at.get_or_load_async(&KEY, || async { 5 }));
    gate.open();
    assert_eq!(leader.ready().unwrap(), 1);
    assert_eq!((before.ready(), after.ready()), (1, 5));
    assert_eq!(cache.get(&KEY), Some(5));
    at_rest(&cache);
}

#[test]
fn what_has_left_meanwhile_is_given_and_not_stored() {
    let (cache, _time) = past();
    let crowd_out = || cache.insert_many((1_000..2_000).map(|n| (n, n)));
    assert_eq!(
        revalidate(&cache, Loaded::unchanged(), crowd_out),
        (1, Some(1))
    );
    assert_eq!(cache.get_with_freshness(&KEY), None);
    at_rest(&cache);
}

#[test]
fn nothing_cannot_be_unchanged() {
    let (cache, _time) = timed(0.0, |builder| builder);
    let (at, gate) = (&cache, Gate::default());
    let opened = &gate;
    let load = |_| async move {
        opened.opened().await;
        Ok::<_, Infallible>(Loaded::unchanged())
    };
    let mut leader = Hand::pending(at.get_or_load_with_previous_async(&KEY, load));
    let mut follower =
        Hand::pending(at.try_get_or_load_async(&KEY, || async { Ok::<_, String>(5) }));
    gate.open();
    let (own, shared) = (leader.ready(), follower.ready());
    assert!(matches!(
        own,
        Err(TryLoadError::Shared(LoadError::NoPrevious))
    ));
    assert!(matches!(
        shared,
        Err(TryLoadError::Shared(LoadError::NoPrevious))
    ));
    // A loader that never asked to see anything, too.
    let blind = cache.get_or_load_with(&KEY, || Ok::<_, Infallible>(Loaded::unchanged()));
    assert!(matches!(
        blind,
        Err(TryLoadError::Shared(LoadError::NoPrevious))
    ));
    assert_eq!(cache.stats().load_failures(), 2);
    at_rest(&cache);
}

/// With attached loaders, for threads and for tasks.
#[test]
fn attached_loaders_are_given_it_too() {
    let time = ManualClock::new();
    let answer = |previous: Option<u64>| match previous {
        None => Loaded::new(1),
        Some(1) => Loaded::unchanged(),
        Some(other) => unreachable!("{other}"),
    };
    let cache: Numbers = Cache::builder()
        .max_capacity(100)
        .time_to_live(SECOND)
        .stale_if_error(10 * SECOND, SECOND)
        .clock(time.clock())
        .loader_with_previous(move |_: &u64, previous| {
            Ok::<_, Infallible>(answer(previous.copied()))
        })
        .async_loader_with_previous(move |_, previous| async move {
            Ok::<_, Infallible>(answer(previous))
        })
        .build()
        .unwrap();
    for turn in 0..3 {
        let value = match turn {
            2 => Hand::new(cache.load_async(&KEY)).ready(),
            _ => cache.load(&KEY),
        };
        assert_eq!((value.unwrap(), cache.get(&KEY)), (1, Some(1)));
        time.advance(SECOND);
        assert_eq!(cache.get(&KEY), None);
    }
    assert_eq!(cache.stats().loads(), 3);
    at_rest(&cache);
}

/// A loader that answers "unchanged" to nothing has failed; a stale value is served for a failure.
#[test]
fn no_previous_is_a_failure_like_any_other() {
    let time = ManualClock::new();
    let cache: Cache<u64, u64> = Cache::builder()
        .max_capacity(10)
        .clock(time.clock())
        .time_to_live(SECOND)
        .stale_if_error(60 * SECOND, SECOND)
        .build()
        .unwrap();
    cache.insert(KEY, 1);
    time.advance(SECOND);
    let answer = cache.get_or_load_with(&KEY, || Ok::<_, String>(Loaded::unchanged()));
    assert_eq!(answer.unwrap(), 1);
}

#[test]
fn no_previous_of_an_early_load() {
    let time = ManualClock::new();
    let cache: Cache<u64, u64> = Cache::builder()
        .max_capacity(10)
        .clock(time.clock())
        .time_to_live(3 * SECOND)
        .refresh_after(SECOND)
        .build()
        .unwrap();
    cache.insert(KEY, 1);
    time.advance(2 * SECOND);
    let answer = cache.get_or_load_with(&KEY, || Ok::<_, String>(Loaded::unchanged()));
    assert_eq!(answer.unwrap(), 1, "its time is not up");
}
