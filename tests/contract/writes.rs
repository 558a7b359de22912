//! What each write does, returns and revokes.

use larder::{Added, Cache, Compute, EntryOptions};

use crate::{SECOND, ignore, sized, timed};

#[test]
fn insert_returns_the_live_value_it_replaced() {
    let (cache, time) = timed(|builder| builder.time_to_live(SECOND));
    assert_eq!(cache.insert(1, 1), None);
    assert_eq!(cache.insert(1, 2), Some(1));
    assert_eq!(cache.try_insert(1, 3), Ok(Some(2)));
    time.advance(SECOND);
    assert_eq!(
        cache.insert(1, 4),
        None,
        "what had expired was not replaced"
    );
}

#[test]
fn add_wins_only_an_absence() {
    let (cache, time) = timed(|builder| builder.time_to_live(SECOND));
    let lost = |present, value| Added::Present { present, value };
    assert_eq!(cache.add(1, 1), Added::Stored, "absent");
    assert_eq!(cache.add(1, 2), lost(1, 2), "live");
    assert_eq!(cache.get(&1), Some(1), "the live one stays");
    time.advance(SECOND);
    assert_eq!(cache.add(1, 3), Added::Stored, "expired");
    cache.invalidate(&1);
    assert_eq!(cache.add(1, 4), Added::Stored, "invalidated");
    cache.clear();
    let tagged = EntryOptions::new().tag("tag");
    assert_eq!(
        cache.add_with(1, 5, tagged).unwrap(),
        Added::Stored,
        "cleared"
    );
    cache.invalidate_tag("tag");
    assert_eq!(cache.add(1, 6), Added::Stored, "dead by its tag");
    assert!(cache.add(2, 1).is_stored() && !cache.add(2, 1).is_stored());
}

#[test]
fn a_failed_add_does_not_renew_a_life() {
    let (cache, time) = timed(|builder| builder.time_to_live(SECOND));
    assert!(cache.add(1, 1).is_stored());
    time.advance(SECOND / 2);
    assert!(!cache.add(1, 2).is_stored());
    time.advance(SECOND / 2);
    assert_eq!(cache.get(&1), None);
}

#[test]
fn one_of_many_adds_wins() {
    let cache = sized(100);
    for key in 0..200 {
        let winners = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            for value in 0..3 {
                let (cache, winners) = (&cache, &winners);
                scope.spawn(move || {
                    if cache.add(key, value).is_stored() {
                        winners.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(winners.into_inner(), 1);
    }
}

#[test]
fn replace_wants_something_live() {
    let (cache, time) = timed(|builder| builder.time_to_live(SECOND));
    assert_eq!(cache.replace(1, 1), Err(1));
    assert_eq!(cache.len(), 0);
    cache.insert(1, 1);
    assert_eq!(cache.replace(1, 2), Ok(1));
    time.advance(SECOND);
    assert_eq!(cache.replace(1, 3), Err(3));
    assert_eq!(cache.get(&1), None);
}

#[test]
fn compute_reads_decides_and_writes() {
    let cache = sized(100);
    let done = cache.compute(&1, |old| Compute::Put(old.copied().unwrap_or(7)));
    assert_eq!((done.old, done.new), (None, Some(7)));
    let done = cache.compute(&1, |old| Compute::Put(old.copied().unwrap_or(0) + 1));
    assert_eq!((done.old, done.new), (Some(7), Some(8)));
    let done = cache.compute(&1, |_| Compute::Keep);
    assert_eq!((done.old, done.new), (Some(8), Some(8)));
    let done = cache.compute(&1, |_| Compute::Remove);
    assert_eq!((done.old, done.new, cache.get(&1)), (Some(8), None, None));
}

#[test]
fn computations_of_many_threads_lose_nothing() {
    let cache = sized(100);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let add = |old: Option<&u64>| Compute::Put(old.copied().unwrap_or(0) + 1);
            let cache = &cache;
            scope.spawn(move || (0..500).for_each(|_| ignore(cache.compute(&1, add))));
        }
    });
    assert_eq!(cache.get(&1), Some(1500));
    assert_eq!(cache.__flights(), (0, 0));
}

#[test]
fn counting_keeps_the_deadline() {
    let (cache, time) = timed(|builder| builder.time_to_live(SECOND));
    assert_eq!(
        (cache.incr(&1, 1), cache.decr(&1, 1)),
        (None, None),
        "absent"
    );
    cache.insert(1, 10);
    time.advance(SECOND / 2);
    assert_eq!(cache.incr(&1, 5), Some(15));
    assert_eq!(cache.decr(&1, 1), Some(14));
    time.advance(SECOND / 2);
    assert_eq!((cache.get(&1), cache.incr(&1, 1)), (None, None), "expired");
}

#[test]
fn counting_saturates() {
    let cache = sized(10);
    cache.insert(1, u64::MAX - 1);
    assert_eq!(cache.incr(&1, 5), Some(u64::MAX));
    assert_eq!(cache.decr(&1, u64::MAX), Some(0));
    assert_eq!(cache.decr(&1, 1), Some(0));
    let signed: Cache<u64, i8> = Cache::builder().max_capacity(9).build().unwrap();
    signed.insert(1, -100);
    assert_eq!(signed.decr(&1, 100), Some(i8::MIN));
    assert_eq!(signed.incr(&1, -1), Some(i8::MIN));
}

#[test]
fn counting_of_many_threads_loses_nothing() {
    let cache = sized(10);
    cache.insert(1, 0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| (0..2000).for_each(|_| ignore(cache.incr(&1, 1))));
        }
    });
    assert_eq!(cache.get(&1), Some(6000));
}

#[test]
fn remove_returns_the_live_value_and_invalidate_says_whether() {
    let (cache, time) = timed(|builder| builder.time_to_live(SECOND));
    cache.insert_many([(1, 1), (2, 2)]);
    assert_eq!((cache.remove(&1), cache.remove(&1)), (Some(1), None));
    assert_eq!((cache.invalidate(&2), cache.invalidate(&2)), (true, false));
    cache.insert_many([(1, 1), (2, 2)]);
    time.advance(SECOND);
    assert_eq!(
        (cache.remove(&1), cache.invalidate(&2)),
        (None, false),
        "expired"
    );
    assert_eq!(cache.len(), 0, "and reclaimed when it was met");
}

#[test]
fn remove_if_removes_what_it_judged() {
    let cache = sized(10);
    cache.insert(1, 1);
    assert_eq!(cache.remove_if(&1, |n| *n > 1), None);
    assert_eq!(cache.remove_if(&1, |n| *n == 1), Some(1));
    assert_eq!(
        cache.remove_if(&1, |_| unreachable!("nothing is there")),
        None
    );
}

#[test]
fn remove_if_is_asked_again_when_the_value_was_replaced_meanwhile() {
    let cache = sized(10);
    cache.insert(1, 1);
    let mut asked = Vec::new();
    let removed = cache.remove_if(&1, |&n| {
        asked.push(n);
        if n == 1 {
            cache.insert(1, 2);
        }
        true
    });
    assert_eq!((removed, asked), (Some(2), vec![1, 2]));
}

#[test]
fn retain_removes_what_the_closure_condemns_and_counts_it() {
    let cache = sized(100_000);
    (0..10_000).for_each(|n| ignore(cache.insert(n, n)));
    assert_eq!(
        cache.retain(|key, value| key == value && value % 3 != 0),
        3334
    );
    assert_eq!(cache.len(), 6666);
    assert!((0..10_000).all(|n| cache.contains_key(&n) == (n % 3 != 0)));
    assert_eq!(cache.stats().explicit(), 3334);
}

#[test]
fn retain_spares_what_was_replaced_since_it_was_judged() {
    let cache = sized(10);
    cache.insert(1, 1);
    let removed = cache.retain(|_, &value| {
        cache.insert(1, 2);
        value != 1
    });
    assert_eq!((removed, cache.get(&1)), (0, Some(2)));
}

#[test]
fn calls_for_many_keys_do_it_key_by_key() {
    let cache = sized(10);
    cache.insert_many([(1, 1), (2, 2), (1, 3)]);
    assert_eq!(
        cache.get_many(&[1, 2, 3, 1]),
        [Some(3), Some(2), None, Some(3)]
    );
    assert_eq!(cache.remove_many(&[1, 3, 1, 2]), 2);
    assert_eq!(cache.len(), 0);
    let none: [&u64; 0] = [];
    assert_eq!(cache.get_many(none), []);
}

/// Every write, and every removal that covers the key, from inside the loader.
#[test]
fn a_load_is_not_published_over_what_happened_meanwhile() {
    type Act = (&'static str, fn(&Cache<u64, u64>), Option<u64>);
    let acts: [Act; 11] = [
        ("insert", |cache| ignore(cache.insert(1, 2)), Some(2)),
        ("add", |cache| ignore(cache.add(1, 2)), Some(2)),
        (
            "compute",
            |cache| ignore(cache.compute(&1, |_| Compute::Put(2))),
            Some(2),
        ),
        ("remove", |cache| ignore(cache.remove(&1)), None),
        ("invalidate", |cache| ignore(cache.invalidate(&1)), None),
        ("remove_many", |cache| ignore(cache.remove_many(&[1])), None),
        (
            "remove_if",
            |cache| ignore(cache.remove_if(&1, |_| false)),
            None,
        ),
        ("retain", |cache| ignore(cache.retain(|_, _| true)), None),
        ("clear", |cache| cache.clear(), None),
        ("invalidate_tag", |cache| cache.invalidate_tag("tag"), None),
        (
            "two clears",
            |cache| (0..2).for_each(|_| cache.clear()),
            None,
        ),
    ];
    for (name, act, after) in acts {
        let cache = sized(100);
        let loaded = cache.get_or_load_with(&1, || {
            act(&cache);
            Ok::<_, String>(larder::Loaded::new(7).tag("tag"))
        });
        assert_eq!(loaded.unwrap(), 7, "{name}: the caller gets what it loaded");
        assert_eq!(cache.get(&1), after, "{name}");
        assert_eq!(cache.stats().unpublished(), 1, "{name}");
    }
}

#[test]
fn what_changes_nothing_revokes_nothing() {
    type Act = (&'static str, fn(&Cache<u64, u64>));
    let acts: [Act; 7] = [
        ("replace", |cache| ignore(cache.replace(1, 2))),
        ("compute", |cache| {
            ignore(cache.compute(&1, |_| Compute::Keep))
        }),
        ("incr", |cache| ignore(cache.incr(&1, 2))),
        ("touch", |cache| ignore(cache.touch(&1, None))),
        ("get", |cache| ignore(cache.get(&1))),
        ("another key", |cache| ignore(cache.insert(2, 2))),
        ("another tag", |cache| cache.invalidate_tag("another")),
    ];
    for (name, act) in acts {
        let cache = sized(100);
        cache.get_or_load(&1, || {
            act(&cache);
            7
        });
        assert_eq!(cache.get(&1), Some(7), "{name}");
    }
}
