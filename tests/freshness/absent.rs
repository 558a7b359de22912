//! Loads that find nothing: who is told, for how long it is remembered, and what ends that.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder::{Cache, EntryOptions, LoadError, Loaded, ManualClock, TryLoadError};

use crate::executor::{Gate, Hand};
use crate::{KEY, MILLI, Numbers, SECOND, at_rest, timed};

/// A cache that remembers for a second that there is nothing.
fn remembering() -> (Numbers, ManualClock) {
    timed(0.0, |builder| builder.negative_time_to_live(SECOND))
}

fn nothing(cache: &Numbers) {
    assert_eq!(cache.get_or_load_optional(&KEY, || None), None);
}

/// Whether a call that asks for an option runs its loader; which finds nothing.
fn asks(cache: &Numbers) -> bool {
    let mut asked = false;
    let found = cache.get_or_load_optional(&KEY, || {
        asked = true;
        None
    });
    assert_eq!(found, None);
    asked
}

#[test]
fn it_is_remembered_for_so_long_and_no_longer() {
    let (cache, time) = remembering();
    assert!(asks(&cache));
    time.advance(SECOND - MILLI);
    assert!(!asks(&cache));
    assert_eq!(cache.stats().negative_hits(), 1);
    time.advance(MILLI);
    assert!(asks(&cache));
    // Unless asked for, it is not.
    let (cache, _) = timed(0.0, |builder| builder);
    assert!(asks(&cache) && asks(&cache));
    at_rest(&cache);
}

#[test]
fn an_answer_may_say_for_how_long() {
    let absent = |cache: &Numbers, answer: Loaded<u64>| {
        let told = cache.get_or_load_with(&KEY, || Ok::<_, Infallible>(answer));
        assert!(matches!(told, Err(TryLoadError::Shared(LoadError::Absent))));
    };
    let (cache, time) = remembering();
    absent(&cache, Loaded::absent().time_to_live(5 * SECOND));
    time.advance(5 * SECOND - MILLI);
    assert!(!asks(&cache));
    time.advance(MILLI);
    absent(&cache, Loaded::absent().time_to_live(Duration::ZERO));
    assert!(asks(&cache));
    cache.invalidate(&KEY);
    absent(&cache, Loaded::absent().no_expiry());
    time.advance(1_000_000 * SECOND);
    assert!(!asks(&cache));
}

#[test]
fn it_is_no_value() {
    let (cache, _time) = remembering();
    nothing(&cache);
    assert_eq!((cache.get(&KEY), cache.peek(&KEY)), (None, None));
    assert!(!cache.contains_key(&KEY) && cache.is_empty());
    assert_eq!(cache.get_with_freshness(&KEY), None);
    assert_eq!(cache.replace(KEY, 2), Err(2));
    assert!(!cache.touch(&KEY, None));
    assert!(!asks(&cache), "none of these ended it");
    assert!(cache.add(KEY, 3).is_stored());
    assert_eq!(cache.get_or_load_optional(&KEY, || None), Some(3));
}

#[test]
fn a_write_or_an_invalidation_ends_it() {
    type Act = (&'static str, fn(&Numbers));
    let acts: [Act; 7] = [
        ("insert", |cache| {
            cache.insert(KEY, 1);
            cache.remove(&KEY);
        }),
        ("a refused insert", |cache| {
            let options = EntryOptions::new().time_to_live(Duration::ZERO);
            assert!(cache.insert_with(KEY, 1, options).is_err());
        }),
        ("remove", |cache| assert_eq!(cache.remove(&KEY), None)),
        ("invalidate", |cache| assert!(!cache.invalidate(&KEY))),
        ("remove_if", |cache| {
            assert_eq!(cache.remove_if(&KEY, |_| true), None);
        }),
        ("retain", |cache| assert_eq!(cache.retain(|_, _| true), 0)),
        ("clear", Cache::clear),
    ];
    for (name, act) in acts {
        let (cache, _time) = remembering();
        nothing(&cache);
        act(&cache);
        assert!(asks(&cache), "{name}");
    }
    let (cache, _time) = remembering();
    let named = cache.namespace("named");
    nothing(&named);
    nothing(&cache);
    named.clear();
    assert!(
        asks(&named) && !asks(&cache),
        "a namespace's clear is its own"
    );
}

fn tagged(cache: &Numbers) {
    let answer = || Ok::<_, Infallible>(Loaded::absent().tag("red"));
    assert!(cache.get_or_load_with(&KEY, answer).is_err());
}

#[test]
fn a_tag_that_the_answer_names_ends_it() {
    let (cache, _time) = remembering();
    tagged(&cache);
    cache.invalidate_tag("blue");
    assert!(!asks(&cache));
    cache.invalidate_tag("red");
    assert!(asks(&cache));
    // One that moved while the loader looked: what it saw may be of before.
    let (cache, _time) = remembering();
    let told = cache.get_or_load_with(&KEY, || {
        cache.invalidate_tag("red");
        Ok::<Loaded<u64>, Infallible>(Loaded::absent().tag("red"))
    });
    assert!(told.is_err() && asks(&cache));
    // More than can be watched.
    let (cache, _time) = remembering();
    let many = (0..1_000).map(|n| format!("tag {n}"));
    let told = cache.get_or_load_with(&KEY, || {
        Ok::<Loaded<u64>, Infallible>(Loaded::absent().tags(many))
    });
    assert!(told.is_err() && asks(&cache));
}

#[test]
fn who_cannot_be_told_loads() {
    let (cache, _time) = remembering();
    nothing(&cache);
    assert_eq!(cache.get_or_load(&KEY, || 5), 5);
    assert_eq!(cache.get(&KEY), Some(5));
    at_rest(&cache);
}

#[test]
fn a_crowd_shares_one_answer() {
    let (cache, _time) = timed(0.0, |builder| builder);
    let (at, gate) = (&cache, Gate::default());
    let opened = &gate;
    let mut leader = Hand::pending(at.get_or_load_optional_async(&KEY, || async {
        opened.opened().await;
        None
    }));
    let waiting = |_| {
        let load = || async { panic!("a second loader") };
        Hand::pending(
            at.try_get_or_load_async(&KEY, move || async move { Ok::<u64, String>(load().await) }),
        )
    };
    let mut crowd: Vec<_> = (0..100).map(waiting).collect();
    gate.open();
    assert_eq!(leader.ready(), None);
    for waiter in &mut crowd {
        let told = waiter.ready();
        assert!(matches!(told, Err(TryLoadError::Shared(LoadError::Absent))));
    }
    at_rest(&cache);
}

#[test]
fn what_was_there_goes_and_the_absence_is_remembered() {
    let (cache, time) = timed(0.0, |builder| {
        builder
            .negative_time_to_live(SECOND)
            .stale_if_error(9 * SECOND, SECOND)
    });
    cache.insert(KEY, 1);
    time.advance(SECOND);
    assert!(cache.get_with_freshness(&KEY).is_some(), "stale");
    nothing(&cache);
    assert_eq!(cache.get_with_freshness(&KEY), None);
    assert!(!asks(&cache));
    let failed = cache.try_get_or_load(&KEY, || Err::<u64, _>("down"));
    assert!(matches!(
        failed,
        Err(TryLoadError::Shared(LoadError::Absent))
    ));
}

/// With an attached loader, and many keys at once.
#[test]
fn an_attached_loader_and_a_bulk_one_are_asked_once() {
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    let (cache, _time) = timed(0.0, move |builder| {
        builder
            .negative_time_to_live(SECOND)
            .loader(move |_: &u64| {
                count.fetch_add(1, Ordering::SeqCst);
                Ok::<_, Infallible>(Loaded::absent())
            })
    });
    for _ in 0..1_000 {
        assert!(matches!(cache.load(&KEY), Err(LoadError::Absent)));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    let keys = [KEY, KEY + 1];
    let mut given = Vec::new();
    for _ in 0..3 {
        let found = cache.get_many_or_load(&keys, |missing| {
            given.push(missing.to_vec());
            Ok::<_, String>(vec![None; missing.len()])
        });
        assert_eq!(found.unwrap(), [None, None]);
    }
    assert_eq!(given, [[KEY + 1]]);
}

#[test]
fn absences_are_bounded() {
    let (cache, _time) = timed(0.0, |builder| builder.negative_time_to_live(SECOND));
    for key in 0..5_000 {
        assert_eq!(cache.get_or_load_optional(&key, || None), None);
    }
    assert_eq!(cache.__flights(), (1_024, 0));
    // The latest are those that are remembered.
    assert_eq!(cache.get_or_load_optional(&4_999, || unreachable!()), None);
}

/// Who came after a tag of the answer had moved is not told what was true before.
#[test]
fn who_comes_after_a_move_asks_again() {
    for remembers in [false, true] {
        let (cache, _time) = timed(0.0, |builder| match remembers {
            true => builder.negative_time_to_live(SECOND),
            false => builder,
        });
        let (at, gate) = (&cache, Gate::default());
        let opened = &gate;
        let mut leader = Hand::pending(at.get_or_load_with_async(&KEY, || async {
            opened.opened().await;
            Ok::<Loaded<u64>, Infallible>(Loaded::absent().tag("red"))
        }));
        let ask = || Hand::pending(at.get_or_load_optional_async(&KEY, || async { Some(5) }));
        let mut before = ask();
        cache.invalidate_tag("red");
        let mut after = ask();
        gate.open();
        assert!(leader.ready().is_err());
        assert_eq!((before.ready(), after.ready()), (None, Some(5)));
        at_rest(&cache);
    }
}

/// An absence with too many tags, one of which moved, is of the past for who came after that.
#[test]
fn an_absence_of_too_many_tags_is_not_for_who_came_later() {
    let cache: Cache<u64, u64> = Cache::builder().max_capacity(10).build().unwrap();
    let gate = Gate::default();
    let mut leader = Hand::pending(cache.get_or_load_with_async(&KEY, || async {
        gate.opened().await;
        Ok::<_, String>(Loaded::absent().tags((0..200).map(|n| format!("tag {n}"))))
    }));
    cache.invalidate_tag("tag 0");
    let mut later = Hand::pending(cache.get_or_load_optional_async(&KEY, || async { Some(5) }));
    gate.open();
    assert!(leader.ready().is_err());
    assert_eq!(
        later.ready(),
        Some(5),
        "the absence was loaded before the invalidation"
    );
}
