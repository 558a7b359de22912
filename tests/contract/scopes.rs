//! Namespaces, tags and clear.

use larder::{Cache, EntryOptions, RejectReason};

use crate::{ignore, sized, timed, weighted};

fn tagged(name: &str) -> EntryOptions {
    EntryOptions::new().tag(name)
}

#[test]
fn the_same_key_is_another_entry_in_another_namespace() {
    let cache = sized(100);
    let (a, b) = (cache.namespace("a"), cache.namespace("b"));
    cache.insert(1, 10);
    a.insert(1, 11);
    b.insert(1, 12);
    let all = || (cache.get(&1), a.get(&1), b.get(&1));
    assert_eq!(all(), (Some(10), Some(11), Some(12)));
    assert_eq!(a.remove(&1), Some(11));
    assert_eq!(all(), (Some(10), None, Some(12)));
    assert_eq!(cache.len(), 2, "they share one capacity");
}

#[test]
fn the_same_name_is_the_same_namespace_and_views_do_not_nest() {
    let cache = sized(100);
    let a = cache.namespace("a");
    a.insert(1, 1);
    assert_eq!(cache.namespace("a").get(&1), Some(1));
    assert_eq!(cache.namespace("b").namespace("a").get(&1), Some(1));
    assert_eq!(
        cache.namespace("").get(&1),
        None,
        "the empty name is not the root"
    );
    assert_eq!(a.clone().get(&1), Some(1));
    drop(a);
    assert_eq!(
        cache.namespace("a").get(&1),
        Some(1),
        "without a handle meanwhile"
    );
}

#[test]
fn clear_on_a_view_kills_that_namespace_alone() {
    let cache = sized(100);
    let (a, b) = (cache.namespace("a"), cache.namespace("b"));
    for view in [&cache, &a, &b] {
        view.insert(1, 1);
    }
    a.clear();
    let all = || (cache.get(&1), a.get(&1), b.get(&1));
    assert_eq!(all(), (Some(1), None, Some(1)));
    a.insert(1, 2);
    assert_eq!(a.get(&1), Some(2));
    cache.clear();
    assert_eq!(all(), (None, None, None));
}

#[test]
fn a_namespace_never_sees_an_older_generation_of_itself() {
    let cache = sized(100);
    for round in 0..50 {
        let view = cache.namespace("same");
        assert_eq!(view.get(&1), None, "round {round}");
        view.insert(1, round);
        view.clear();
        drop(view);
        // Enough other names that the registry forgets those without an entry or a handle.
        for n in 0..300 {
            let _ = cache.namespace(&format!("{round} {n}"));
        }
    }
    assert!(cache.__names().1 <= 600, "{} names", cache.__names().1);
}

#[test]
fn retain_and_iter_stay_within_their_namespace() {
    let cache = sized(100);
    let a = cache.namespace("a");
    cache.insert(1, 1);
    a.insert(2, 2);
    assert_eq!(a.iter().collect::<Vec<_>>(), [(2, 2)]);
    assert_eq!(a.retain(|_, _| false), 1);
    assert_eq!(cache.iter().collect::<Vec<_>>(), [(1, 1)]);
}

#[test]
fn a_load_in_one_namespace_is_not_shared_with_another() {
    let cache = sized(100);
    let a = cache.namespace("a");
    let value = cache.get_or_load(&1, || a.get_or_load(&1, || 7) + 1);
    assert_eq!((value, a.get(&1), cache.get(&1)), (8, Some(7), Some(8)));
    assert_eq!(
        a.get_or_load(&2, || {
            a.clear();
            9
        }),
        9
    );
    assert_eq!(a.get(&2), None);
}

// ---- tags ----

#[test]
fn a_tag_kills_what_was_stored_before_and_nothing_after() {
    let cache = sized(100);
    cache.insert_with(1, 1, tagged("a")).unwrap();
    cache.insert_with(2, 2, tagged("a").tag("b")).unwrap();
    cache.insert_with(3, 3, tagged("b")).unwrap();
    cache.insert(4, 4);
    cache.invalidate_tag("a");
    assert_eq!(
        cache.get_many(&[1, 2, 3, 4]),
        [None, None, Some(3), Some(4)]
    );
    cache.insert_with(1, 5, tagged("a")).unwrap();
    assert_eq!(cache.get(&1), Some(5));
    cache.invalidate_tag("b");
    assert_eq!(cache.get_many(&[1, 3]), [Some(5), None]);
}

#[test]
fn an_overwritten_entry_carries_only_its_new_tags() {
    let cache = sized(100);
    cache.insert_with(1, 1, tagged("a")).unwrap();
    cache.insert_with(1, 2, tagged("b")).unwrap();
    cache.invalidate_tag("a");
    assert_eq!(cache.get(&1), Some(2));
    cache.insert(1, 3);
    cache.invalidate_tag("b");
    assert_eq!(cache.get(&1), Some(3));
}

#[test]
fn a_tag_reaches_over_all_namespaces() {
    let cache = sized(100);
    let (a, b) = (cache.namespace("a"), cache.namespace("b"));
    for view in [&cache, &a, &b] {
        view.insert_with(1, 1, tagged("t")).unwrap();
        view.insert(2, 2);
    }
    b.invalidate_tag("t");
    for view in [&cache, &a, &b] {
        assert_eq!(view.get_many(&[1, 2]), [None, Some(2)]);
    }
}

#[test]
fn as_many_tags_as_max_tags_and_no_more() {
    let cache = sized(100);
    let names = |count| EntryOptions::new().tags((0..count).map(|n| format!("tag {n}")));
    cache
        .insert_with(1, 1, names(EntryOptions::MAX_TAGS))
        .unwrap();
    cache.invalidate_tag("tag 127");
    assert_eq!(cache.get(&1), None, "the last one counts");
    cache.insert(1, 1);
    let rejected = cache.insert_with(1, 2, names(129)).unwrap_err();
    let reason = RejectReason::TooManyTags {
        tags: 129,
        limit: EntryOptions::MAX_TAGS,
    };
    assert_eq!((rejected.value, rejected.reason), (2, reason));
    assert_eq!(cache.get(&1), None, "a refused write is still a write");
    let twice = names(128).tags((0..128).map(|n| format!("tag {n}")));
    assert!(
        cache.insert_with(1, 1, twice).is_ok(),
        "a tag named twice is one"
    );
    let load = || Ok::<_, String>(larder::Loaded::new(7).tags((0..129).map(|n| n.to_string())));
    assert_eq!(cache.get_or_load_with(&9, load).unwrap(), 7);
    assert_eq!(cache.get(&9), None, "delivered, and not stored");
}

#[test]
fn a_dead_entry_is_reclaimed_when_it_is_met() {
    let cache = sized(3);
    (0..3).for_each(|n| ignore(cache.insert_with(n, n, tagged("t")).unwrap()));
    cache.invalidate_tag("t");
    assert_eq!(cache.len(), 3, "an upper bound until then");
    cache.insert(0, 7);
    assert_eq!((cache.len(), cache.stats().invalidated()), (3, 1));
    cache.insert(9, 9);
    assert_eq!(cache.len(), 3, "and the dead make room for the living");
    assert_eq!(
        (cache.stats().invalidated(), cache.stats().evicted()),
        (2, 0)
    );
}

#[test]
fn many_tags_that_nobody_carries_are_forgotten() {
    let cache = sized(100);
    for n in 0..20_000 {
        cache
            .insert_with(n % 50, n, tagged(&n.to_string()))
            .unwrap();
        cache.invalidate_tag(&(n + 1).to_string());
    }
    assert!(cache.__names().0 <= 4096, "{} names", cache.__names().0);
}

// ---- clear ----

#[test]
fn clear_leaves_exact_counts() {
    let cache = weighted(1 << 20).max_entries(100_000).build().unwrap();
    (0..50_000).for_each(|n| ignore(cache.insert(n, n % 10)));
    cache.clear();
    assert_eq!(
        (cache.len(), cache.weight(), cache.is_empty()),
        (0, 0, true)
    );
    assert_eq!(cache.iter().count(), 0);
    (0..100).for_each(|n| ignore(cache.insert(n, 3)));
    assert_eq!((cache.len(), cache.weight()), (100, 300));
    assert_eq!(cache.iter().count(), 100);
}

#[test]
fn nothing_live_is_evicted_while_there_is_something_dead_to_sweep() {
    let cache = sized(1000);
    (0..1000).for_each(|n| ignore(cache.insert(n, n)));
    cache.clear();
    (0..1000).for_each(|n| ignore(cache.insert(n, n + 1)));
    assert_eq!((cache.len(), cache.stats().evicted()), (1000, 0));
    assert_eq!(cache.stats().invalidated(), 1000);
}

#[test]
fn a_heavy_entry_takes_the_room_of_the_dead_before_that_of_the_living() {
    // More dead than a critical section sweeps by itself, so that making room has to ask for them.
    let cache = weighted(1000).build().unwrap();
    (0..1000).for_each(|n| ignore(cache.insert(n, 1)));
    cache.clear();
    (0..10).for_each(|n| ignore(cache.insert(n, 1)));
    cache.insert(5000, 980);
    assert_eq!((cache.len(), cache.weight()), (11, 990));
    assert_eq!(cache.stats().evicted(), 0);
    assert_eq!(cache.get(&5000), Some(980));
}

#[test]
fn clear_and_expiry_may_meet() {
    let (cache, time) = timed(|builder| builder.time_to_live(crate::SECOND));
    (0..500).for_each(|n| ignore(cache.insert(n, n)));
    cache.clear();
    time.advance(crate::SECOND);
    cache.run_pending(u32::MAX);
    let stats = cache.stats();
    assert_eq!(stats.invalidated() + stats.expired(), 500);
    let empty: Vec<(u64, u64)> = Cache::iter(&cache).collect();
    assert_eq!(empty, []);
}

#[test]
fn a_tag_beyond_the_first_slots_harms_no_untagged_entry() {
    let cache = Cache::builder()
        .max_capacity(1000)
        .shards(1)
        .build()
        .unwrap();
    (0..300).for_each(|n| ignore(cache.insert(n, n)));
    cache
        .insert_with(300, 300, EntryOptions::new().tag("t"))
        .unwrap();
    assert_eq!(cache.remove(&0), Some(0));
    assert_eq!(cache.insert(1, 2), Some(1));
}
