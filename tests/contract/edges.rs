//! Edges that users of other caches found: what is asked, what is counted, what is refused, and in which words.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use larder::{Added, Cache, EntryOptions, LoadError, Loaded, RejectReason};

use crate::{ignore, timed};

#[test]
fn an_add_that_loses_asks_neither_weigher_nor_policy() {
    struct Counts(Arc<AtomicU64>);
    impl larder::Expiry<u64, u64> for Counts {
        fn after_create(&self, _: &u64, _: &u64) -> Option<std::time::Duration> {
            self.0.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
    let (asked, weighed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&weighed);
    let cache = Cache::builder()
        .max_capacity(100)
        .expiry(Counts(Arc::clone(&asked)))
        .weigher(move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            1
        })
        .build()
        .unwrap();
    assert_eq!(cache.add(1, 1), Added::Stored);
    assert_eq!(
        cache.add(1, 2),
        Added::Present {
            present: 1,
            value: 2
        }
    );
    let counts = [&asked, &weighed].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(counts, [1, 1]);
}

/// Each name that an entry carries is compared once with each other, and no name past the limit is compared at all.
#[test]
fn options_past_the_limit_of_tags_are_made_in_linear_time() {
    let names = || (0..1_000_000).map(|n| n.to_string());
    // Quadratic, this would take hours.
    let options = EntryOptions::new().tags(names());
    let (cache, _) = timed(|builder| builder);
    let refused = cache.insert_with(1, 1, options).unwrap_err();
    let limit = EntryOptions::MAX_TAGS;
    let tags = 1_000_000;
    assert_eq!(refused.reason, RejectReason::TooManyTags { tags, limit });
    let twice = EntryOptions::new().tags(["a"; 1_000]);
    assert!(cache.insert_with(1, 1, twice).is_ok(), "one name");
}

#[test]
fn one_of_a_kind_is_said_in_the_singular() {
    let limit = |limit| LoadError::TooManyLoads { limit }.to_string();
    assert!(limit(1).starts_with("1 load is in flight"));
    assert!(limit(2).starts_with("2 loads are in flight"));
    let (asked, answered) = (1, 2);
    let error = LoadError::WrongCount { asked, answered };
    assert!(
        error
            .to_string()
            .contains("asked for 1 key and gave 2 answers")
    );
}

#[test]
fn absurdly_many_shards_are_as_many_as_can_be_of_use() {
    for asked in [usize::MAX, 1 << 20, 1 << 12] {
        let builder = Cache::<u64, u64>::builder().max_capacity(u64::from(u32::MAX));
        let cache = builder.shards(asked).build().unwrap();
        assert!(cache.inspect().starts_with("shards 4096,"));
    }
}

#[test]
fn a_bound_on_entries_shrinks_no_part_of_the_weight() {
    let builder = || {
        let builder = Cache::<u64, u64>::builder().max_capacity(31);
        builder.weigher(|_, weight| *weight).shards(4)
    };
    let alone = builder().build().unwrap().max_entry_weight();
    let beside = builder().max_entries(1 << 20).build().unwrap();
    assert_eq!(beside.max_entry_weight(), alone);
    let fewer = builder().max_entries(10).build().unwrap();
    assert_eq!(fewer.max_entry_weight(), alone);
}

#[test]
fn a_listener_that_panics_is_counted() {
    let cache: Cache<u64, u64> = Cache::builder()
        .max_capacity(10)
        .removal_listener(|_, _, _| panic!("the listener"))
        .build()
        .unwrap();
    let before = cache.stats();
    (0..3).for_each(|_| ignore(cache.insert(1, 1)));
    assert_eq!(cache.stats().since(&before).listener_panics(), 2);
}

/// A value that can never be kept is loaded by each call; the reason is counted.
#[test]
fn a_load_that_is_never_kept_is_counted_by_its_reason() {
    let cache: Cache<u64, u64> = Cache::builder()
        .max_capacity(10)
        .weigher(|_, weight| *weight)
        .build()
        .unwrap();
    let heavy = || Ok::<_, String>(Loaded::new(11));
    let tagged = || Ok::<_, String>(Loaded::new(1).tags((0..200).map(|n| n.to_string())));
    let short = || Ok::<_, String>(Loaded::new(1).time_to_live(std::time::Duration::ZERO));
    for _ in 0..100 {
        assert!(cache.get_or_load_with(&1, heavy).is_ok());
        assert!(cache.get_or_load_with(&2, tagged).is_ok());
        assert!(cache.get_or_load_with(&3, short).is_ok());
    }
    let stats = cache.stats();
    assert_eq!(
        (stats.unpublished_refused(), stats.unpublished()),
        (300, 300)
    );
}
