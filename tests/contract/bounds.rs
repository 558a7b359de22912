//! Bounded work: no call pays for more than a batch of what others left behind.

use larder::{Cache, EntryOptions, EvictionPolicy, ManualClock, Stats};

use crate::{SECOND, ignore};

const MANY: u64 = 100_000;
/// What one critical section reclaims at most.
const SLICE: u64 = 64;

fn full(policy: EvictionPolicy) -> (Cache<u64, u64>, ManualClock) {
    let time = ManualClock::new();
    let cache = Cache::builder()
        .max_capacity(2 * MANY)
        .eviction_policy(policy)
        .time_to_live(SECOND)
        .clock(time.clock())
        .build()
        .expect("a valid configuration");
    (0..MANY).for_each(|n| ignore(cache.insert(n, n)));
    assert_eq!(cache.len(), MANY);
    (cache, time)
}

fn shards(cache: &Cache<u64, u64>) -> u64 {
    let text = cache.inspect();
    let number = text
        .strip_prefix("shards ")
        .and_then(|rest| rest.split(',').next());
    number
        .and_then(|number| number.parse().ok())
        .expect("inspect starts with the shards")
}

fn reclaimed(stats: &Stats) -> u64 {
    stats.expired() + stats.invalidated() + stats.evicted()
}

/// Calls `call` and returns how many entries it reclaimed.
fn cost(cache: &Cache<u64, u64>, call: impl FnOnce(&Cache<u64, u64>)) -> u64 {
    let before = cache.stats();
    call(cache);
    reclaimed(&cache.stats().since(&before))
}

#[test]
fn no_call_reclaims_more_than_a_slice_of_what_expired_at_once() {
    for policy in [EvictionPolicy::S3Fifo, EvictionPolicy::Lru] {
        let (cache, time) = full(policy);
        time.advance(2 * SECOND);
        type Call = fn(&Cache<u64, u64>);
        let calls: [(&str, Call); 9] = [
            ("get", |cache| ignore(cache.get(&5))),
            ("insert", |cache| ignore(cache.insert(MANY + 1, 1))),
            ("insert over", |cache| ignore(cache.insert(7, 1))),
            ("add", |cache| ignore(cache.add(MANY + 2, 1))),
            ("remove", |cache| ignore(cache.remove(&8))),
            ("touch", |cache| ignore(cache.touch(&9, None))),
            ("incr", |cache| ignore(cache.incr(&10, 1))),
            ("compute", |cache| {
                ignore(cache.compute(&11, |_| larder::Compute::Put(1)))
            }),
            ("run_pending", |cache| {
                ignore(cache.run_pending(SLICE as u32))
            }),
        ];
        for (name, call) in calls {
            let cost = cost(&cache, call);
            // One more, where the call itself meets an entry that is past its date.
            assert!(cost <= SLICE + 1, "{name} reclaimed {cost}, {policy:?}");
        }
        // A load has two critical sections: to join, and to publish.
        let cost = cost(&cache, |cache| ignore(cache.get_or_load(&12, || 1)));
        assert!(cost <= 2 * SLICE + 1, "a load reclaimed {cost}");
    }
}

#[test]
fn writes_reclaim_what_expired_and_run_pending_does_the_rest() {
    let (cache, time) = full(EvictionPolicy::S3Fifo);
    time.advance(2 * SECOND);
    let done = cost(&cache, |cache| {
        (0..200).for_each(|n| ignore(cache.insert(MANY + n, 1)))
    });
    assert!(
        done >= 200 * SLICE * 9 / 10,
        "200 writes reclaimed only {done}"
    );
    assert_eq!(cache.run_pending(1000), 1000);
    cache.run_pending(u32::MAX);
    assert_eq!((cache.len(), cache.iter().count()), (200, 200));
    assert_eq!(cache.stats().expired(), MANY);
}

#[test]
fn clear_reclaims_a_slice_a_shard_and_leaves_the_rest_to_later_calls() {
    let (cache, _) = full(EvictionPolicy::S3Fifo);
    let clearing = cost(&cache, Cache::clear);
    assert!(
        clearing <= SLICE * shards(&cache),
        "clear reclaimed {clearing}"
    );
    assert_eq!((cache.len(), cache.weight(), cache.get(&1)), (0, 0, None));
    for n in 0..20 {
        let cost = cost(&cache, |cache| ignore(cache.insert(n, 1)));
        assert!(cost <= SLICE + 1, "a write after a clear reclaimed {cost}");
    }
    cache.run_pending(u32::MAX);
    assert_eq!((cache.stats().invalidated(), cache.len()), (MANY, 20));
}

#[test]
fn a_tag_and_a_namespace_are_invalidated_without_touching_an_entry() {
    let (cache, _) = full(EvictionPolicy::S3Fifo);
    let view = cache.namespace("a");
    for n in 0..MANY / 2 {
        view.insert_with(n, n, EntryOptions::new().tag("t"))
            .unwrap();
    }
    assert_eq!(cost(&cache, |cache| cache.invalidate_tag("t")), 0);
    assert_eq!(cost(&view, Cache::clear), 0);
    assert_eq!(view.get(&1), None);
}

#[test]
fn a_heavy_entry_evicts_as_much_as_it_weighs_and_no_more() {
    let builder = Cache::<u64, u64>::builder().max_capacity(10_000);
    let cache = builder
        .weigher(|_, weight| *weight)
        .shards(1)
        .build()
        .unwrap();
    (0..10_000).for_each(|n| ignore(cache.insert(n, 1)));
    let before = cache.stats();
    cache.insert(20_000, 1000);
    let evicted = cache.stats().since(&before).evicted();
    assert_eq!((evicted, cache.weight()), (1000, 10_000));
}

#[test]
fn every_one_of_many_is_found_and_none_that_a_clear_killed() {
    for policy in [EvictionPolicy::S3Fifo, EvictionPolicy::Lru] {
        let (cache, _) = full(policy);
        // Some stand away from home, in the index, as the buckets fill up.
        let found =
            |cache: &Cache<u64, u64>| (0..MANY).filter(|key| cache.get(key) == Some(*key)).count();
        assert_eq!(found(&cache), MANY as usize);
        cache.clear();
        // A slice a shard is reclaimed. The others are still in their slots.
        assert!(cache.stats().invalidated() < MANY / 2);
        assert_eq!(found(&cache), 0);
        (0..MANY).for_each(|n| ignore(cache.insert(n, n)));
        assert_eq!(found(&cache), MANY as usize);
    }
}
