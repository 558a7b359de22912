//! Capacity and weight: what is kept, what is refused, and where the bound lies.

use larder::{Cache, EvictionPolicy, RejectReason};

use crate::{ignore, sized, weighted};

#[test]
fn a_capacity_of_zero_keeps_nothing_and_still_loads() {
    let cache = sized(0);
    assert_eq!(cache.insert(1, 1), None);
    let rejected = cache.try_insert(1, 1).unwrap_err();
    assert_eq!(
        (rejected.value, rejected.reason),
        (1, RejectReason::NoCapacity)
    );
    assert!(
        cache.add(1, 1).is_stored(),
        "it has won, and left nothing behind"
    );
    assert_eq!(cache.replace(1, 1), Err(1));
    assert_eq!(cache.get_or_load(&1, || 7), 7);
    assert_eq!((cache.get(&1), cache.len(), cache.weight()), (None, 0, 0));
    assert_eq!((cache.capacity(), cache.max_entry_weight()), (0, 0));
}

#[test]
fn a_capacity_of_zero_still_runs_one_loader_a_key() {
    let cache = sized(0);
    let (entered, running) = std::sync::mpsc::channel();
    let (release, gate) = std::sync::mpsc::channel::<()>();
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
        let waiter = scope.spawn(|| cache.get_or_load(&1, || unreachable!("it waits")));
        crate::support::eventually("a waiter joins", || cache.stats().joined() == 1);
        release.send(()).unwrap();
        assert_eq!(waiter.join().unwrap(), 7);
    });
    assert_eq!(cache.stats().loads(), 1);
}

#[test]
fn a_capacity_of_one_holds_the_last_one() {
    for policy in [EvictionPolicy::S3Fifo, EvictionPolicy::Lru] {
        let builder = Cache::builder().max_capacity(1).eviction_policy(policy);
        let cache: Cache<u64, u64> = builder.build().unwrap();
        for n in 0..100 {
            cache.insert(n, n);
            assert_eq!((cache.get(&n), cache.len()), (Some(n), 1), "{policy:?}");
        }
        assert_eq!(cache.stats().evicted(), 99);
    }
}

#[test]
fn a_small_cache_holds_exactly_its_capacity() {
    for policy in [EvictionPolicy::S3Fifo, EvictionPolicy::Lru] {
        for capacity in [1, 2, 3, 10, 100, 255, 256, 512, 1000, 1023] {
            let builder = Cache::builder()
                .max_capacity(capacity)
                .eviction_policy(policy);
            let cache: Cache<u64, u64> = builder.build().unwrap();
            assert!(cache.inspect().starts_with("shards 1,"));
            (0..capacity).for_each(|n| ignore(cache.insert(n, n)));
            assert_eq!(cache.len(), capacity, "nothing is evicted early");
            assert!((0..capacity).all(|n| cache.contains_key(&n)));
            (capacity..3 * capacity).for_each(|n| ignore(cache.insert(n, n)));
            assert_eq!(cache.len(), capacity, "and nothing late");
        }
    }
}

#[test]
fn a_large_cache_keeps_96_percent_of_as_many_distinct_keys() {
    for capacity in [10_000, 100_000] {
        // The default hasher draws its keys at run time: several draws, the worst counts.
        for _ in 0..5 {
            let cache = sized(capacity);
            (0..capacity).for_each(|n| ignore(cache.insert(n, n)));
            let kept = cache.len();
            assert!(kept * 100 >= capacity * 96, "{kept} of {capacity}");
            assert!(kept <= capacity);
        }
    }
}

#[test]
fn what_a_clear_left_makes_room_before_what_is_alive() {
    let cache = weighted(1000).max_entries(1000).build().unwrap();
    (0..1000).for_each(|n| ignore(cache.insert(n, 1)));
    cache.clear();
    cache.insert(1, 10);
    // More than a batch of what is dead has to go for it; the live entry need not.
    cache.insert(2, 500);
    assert_eq!((cache.get(&1), cache.get(&2)), (Some(10), Some(500)));
    assert_eq!((cache.len(), cache.weight()), (2, 510));
}

#[test]
fn a_cache_is_within_its_bound_after_every_write() {
    for shards in [1, 8] {
        let cache = weighted(8 * 640)
            .max_entries(8192)
            .shards(shards)
            .build()
            .unwrap();
        let mut rng = crate::support::Rng::new(7);
        for _ in 0..20_000 {
            cache.insert(rng.below(3000), rng.below(600));
            assert!(cache.weight() <= 8 * 640);
        }
        assert!(cache.stats().evicted() > 1000);
    }
}

// ---- weights ----

#[test]
fn entries_of_no_weight_are_bounded_by_the_entry_bound() {
    let cache = weighted(100).build().unwrap();
    (0..10_000).for_each(|n| ignore(cache.insert(n, 0)));
    assert_eq!(
        (cache.len(), cache.weight()),
        (100, 0),
        "by max_capacity, unless told"
    );
    let cache = weighted(100).max_entries(7).build().unwrap();
    (0..10_000).for_each(|n| ignore(cache.insert(n, 0)));
    assert_eq!((cache.len(), cache.weight()), (7, 0));
}

#[test]
fn what_is_heavier_than_the_capacity_comes_back_and_evicts_nobody() {
    let cache = weighted(100).build().unwrap();
    (0..10).for_each(|n| ignore(cache.insert(n, 10)));
    for weight in [101, 1000, u64::MAX] {
        let rejected = cache.try_insert(77, weight).unwrap_err();
        assert_eq!(
            rejected.reason,
            RejectReason::TooHeavy { weight, limit: 100 }
        );
        assert_eq!(rejected.value, weight);
    }
    assert_eq!((cache.len(), cache.weight()), (10, 100));
    assert_eq!(
        (cache.stats().rejections(), cache.stats().evicted()),
        (3, 0)
    );
}

#[test]
fn a_refused_write_removes_the_older_value() {
    let cache = weighted(100).build().unwrap();
    cache.insert(1, 10);
    assert_eq!(cache.insert(1, 101), None);
    assert_eq!((cache.get(&1), cache.weight()), (None, 0));
    cache.insert(1, 10);
    assert_eq!(cache.replace(1, 101), Err(101));
    assert_eq!(cache.get(&1), None);
    cache.insert(1, 10);
    let done = cache.compute(&1, |_| larder::Compute::Put(101));
    assert_eq!((done.old, done.new, cache.get(&1)), (Some(10), None, None));
    assert_eq!(cache.stats().explicit(), 3);
}

#[test]
fn a_refused_write_revokes_the_load_in_flight() {
    let cache = weighted(100).build().unwrap();
    let loaded = cache.get_or_load(&1, || {
        cache.insert(1, 101);
        10
    });
    assert_eq!((loaded, cache.get(&1)), (10, None));
    assert_eq!(cache.stats().unpublished(), 1);
}

#[test]
fn weights_of_u64_max_do_not_overflow() {
    for capacity in [u64::MAX, u64::MAX - 1] {
        let cache = weighted(capacity).shards(1).build().unwrap();
        for n in 0..10 {
            cache.insert(n, capacity);
            assert_eq!((cache.len(), cache.weight()), (1, capacity));
        }
        cache.insert(1, 1);
        cache.insert(2, 2);
        assert!(cache.weight() <= capacity);
        cache.insert(2, capacity);
        assert_eq!(cache.get(&2), Some(capacity));
        assert_eq!(cache.remove(&2), Some(capacity));
        cache.clear();
        assert_eq!((cache.len(), cache.weight()), (0, 0));
    }
}

#[test]
fn weights_of_u64_max_in_many_shards_do_not_overflow() {
    let cache = weighted(u64::MAX).build().unwrap();
    let part = cache.max_entry_weight();
    assert!(part >= u64::MAX / 8);
    (0..1000).for_each(|n| ignore(cache.insert(n, part)));
    (0..1000).for_each(|n| ignore(cache.insert(n, u64::MAX)));
    (0..1000).for_each(|n| ignore(cache.insert(n, part)));
    assert!(cache.len() <= 8 && !cache.is_empty());
}

#[test]
fn a_counter_weighs_what_its_number_does() {
    let cache = weighted(100).build().unwrap();
    cache.insert(1, 10);
    assert_eq!(cache.incr(&1, 50), Some(60));
    assert_eq!(cache.weight(), 60);
    assert_eq!(cache.decr(&1, 20), Some(40));
    assert_eq!(cache.weight(), 40);
    assert_eq!(cache.incr(&1, 20), Some(60));
    assert_eq!(cache.remove(&1), Some(60));
    assert_eq!(cache.weight(), 0);
}

#[test]
fn the_heaviest_entry_that_is_kept_is_the_one_max_entry_weight_names() {
    for capacity in [1, 7, 100, 4096, 100_003, 1 << 40] {
        for shards in [None, Some(1), Some(3), Some(64)] {
            let mut builder = weighted(capacity);
            if let Some(shards) = shards {
                builder = builder.shards(shards);
            }
            let cache = builder.build().unwrap();
            let most = cache.max_entry_weight();
            assert!(
                shards == Some(64) || most >= capacity / 8,
                "{most} of {capacity}"
            );
            for key in 0..200 {
                assert!(cache.try_insert(key, most).is_ok(), "{most} of {capacity}");
                assert_eq!(
                    cache.peek(&key),
                    Some(most),
                    "kept, and not evicted at once"
                );
            }
            // Slices differ by one at most, where the capacity does not divide.
            let refused = (0..200).filter(|&key| cache.try_insert(key, most + 2).is_err());
            assert_eq!(refused.count(), 200);
        }
    }
}

#[test]
fn an_eighth_of_the_capacity_is_admitted_whatever_else_is_in_there() {
    let capacity = 1 << 20;
    let cache = weighted(capacity).build().unwrap();
    (0..20_000).for_each(|n| ignore(cache.insert(n, 1 + n % 200)));
    for key in 0..500 {
        cache.insert(key, capacity / 8);
        assert_eq!(cache.peek(&key), Some(capacity / 8));
        assert!(cache.weight() <= capacity);
    }
}

/// A write that grows an entry must not evict that very entry instead of replacing it.
#[test]
fn a_heavier_value_replaces_the_lighter_one_in_a_full_cache() {
    for policy in [EvictionPolicy::Lru, EvictionPolicy::S3Fifo] {
        for key in 0..4 {
            let cache = weighted(8).eviction_policy(policy).build().unwrap();
            (0..4).for_each(|n| ignore(cache.insert(n, 2)));
            assert_eq!(cache.replace(key, 5), Ok(2), "{policy:?}, key {key}");
            assert_eq!(cache.get(&key), Some(5));
            let cache = weighted(8).eviction_policy(policy).build().unwrap();
            (0..4).for_each(|n| ignore(cache.insert(n, 2)));
            assert_eq!(cache.insert(key, 5), Some(2), "{policy:?}, key {key}");
            assert_eq!(cache.stats().replaced(), 1);
            assert!(cache.weight() <= 8);
        }
    }
}

// ---- changing the capacity ----

#[test]
fn a_lowered_capacity_is_trimmed_to_slice_by_slice() {
    let cache = Cache::<u64, u64>::builder()
        .max_capacity(1000)
        .build()
        .unwrap();
    (0..1000).for_each(|n| ignore(cache.insert(n, n)));
    cache.set_capacity(100);
    assert_eq!(cache.capacity(), 100);
    assert_eq!(cache.len(), 1000 - 64, "one slice at once");
    cache.insert(2000, 0);
    assert!(cache.len() >= 1000 - 64 - 64 - 1, "one more with a write");
    for n in 2001..2020 {
        let before = cache.len();
        cache.insert(n, 0);
        assert!(
            cache.len() < before || before <= 100,
            "every write advances it"
        );
    }
    assert_eq!(cache.len(), 100);
    (0..1000).for_each(|n| ignore(cache.insert(n, n)));
    assert_eq!(cache.len(), 100);
}

#[test]
fn run_pending_trims_to_a_lowered_capacity() {
    let cache = sized(100_000);
    (0..100_000).for_each(|n| ignore(cache.insert(n, n)));
    cache.set_capacity(500);
    let before = cache.len();
    assert_eq!(cache.run_pending(1000), 1000, "no more than its budget");
    assert_eq!(cache.len(), before - 1000);
    cache.run_pending(u32::MAX);
    assert!(cache.len() <= 500);
}

#[test]
fn a_raised_capacity_is_used() {
    let cache = sized(10);
    (0..10).for_each(|n| ignore(cache.insert(n, n)));
    cache.set_capacity(1000);
    assert_eq!(cache.len(), 10, "nothing is lost");
    (0..1000).for_each(|n| ignore(cache.insert(n, n)));
    assert_eq!(cache.len(), 1000);
    cache.set_capacity(u64::MAX);
    cache.insert(5000, 1);
    assert_eq!(cache.len(), 1001);
}

#[test]
fn a_capacity_lowered_to_zero_empties_and_keeps_nothing() {
    let cache = sized(50);
    (0..50).for_each(|n| ignore(cache.insert(n, n)));
    cache.set_capacity(0);
    assert_eq!(cache.len(), 0);
    assert!(cache.try_insert(1, 1).is_err());
    cache.set_capacity(1);
    assert!(cache.try_insert(1, 1).is_ok());
}

#[test]
fn a_separate_entry_bound_stays_when_the_capacity_changes() {
    let cache = weighted(100).max_entries(5).build().unwrap();
    cache.set_capacity(1000);
    (0..100).for_each(|n| ignore(cache.insert(n, 1)));
    assert_eq!(cache.len(), 5);
}
