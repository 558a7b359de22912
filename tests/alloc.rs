//! A hit allocates nothing: proved by an allocator that counts.

#![allow(
    unsafe_code,
    reason = "an allocator cannot be counted from outside, and `GlobalAlloc` is an unsafe trait"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use larder::{Cache, EntryOptions, EvictionPolicy, ManualClock};

thread_local! {
    /// Allocations of this thread: the test harness and other tests allocate on theirs.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes on to the system's allocator unchanged. The count is a thread-local without
// a destructor and with a constant start, so touching it allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations a thousand calls make, after one that sets up what is set up once.
fn allocations(mut call: impl FnMut()) -> u64 {
    call();
    let before = COUNT.with(Cell::get);
    for _ in 0..1000 {
        call();
    }
    COUNT.with(Cell::get) - before
}

/// Drops an answer that the test does not ask about.
fn ignore<T>(_: T) {}

fn numbers(policy: EvictionPolicy) -> Cache<u64, u64> {
    let cache = Cache::builder()
        .max_capacity(10_000)
        .eviction_policy(policy)
        .time_to_live(Duration::from_secs(3600))
        .time_to_idle(Duration::from_secs(3600))
        .build()
        .expect("a valid configuration");
    (0..1000).for_each(|n| ignore(cache.insert(n, n)));
    cache
}

#[test]
fn the_count_counts() {
    assert_eq!(
        allocations(|| ignore(std::hint::black_box(Box::new(7)))),
        1000
    );
}

#[test]
fn a_hit_and_a_miss_of_numbers_with_a_ttl_allocate_nothing() {
    for policy in [EvictionPolicy::S3Fifo, EvictionPolicy::Lru] {
        let cache = numbers(policy);
        assert_eq!(
            allocations(|| assert_eq!(cache.get(&7), Some(7))),
            0,
            "{policy:?}"
        );
        assert_eq!(
            allocations(|| assert_eq!(cache.get(&70_000), None)),
            0,
            "{policy:?}"
        );
        assert_eq!(
            allocations(|| assert_eq!(cache.peek(&7), Some(7))),
            0,
            "{policy:?}"
        );
        assert_eq!(
            allocations(|| assert!(cache.contains_key(&7))),
            0,
            "{policy:?}"
        );
    }
}

#[test]
fn a_hit_by_a_borrowed_string_with_a_shared_value_allocates_nothing() {
    let cache: Cache<String, Arc<Vec<u8>>> = Cache::builder()
        .max_capacity(1000)
        .time_to_live(Duration::from_secs(60))
        .build()
        .expect("a valid configuration");
    cache.insert("a key of some length".to_owned(), Arc::new(vec![0; 100]));
    let hit = || assert!(cache.get("a key of some length").is_some());
    assert_eq!(allocations(hit), 0);
}

#[test]
fn a_hit_of_a_tagged_entry_in_a_namespace_allocates_nothing() {
    let cache = numbers(EvictionPolicy::S3Fifo).namespace("a");
    let options = EntryOptions::new().tag("t").tag("u");
    assert!(cache.insert_with(1, 1, options).is_ok());
    assert_eq!(allocations(|| assert_eq!(cache.get(&1), Some(1))), 0);
    // Another tag moves each time, so that each hit walks the entry's tags anew.
    cache.invalidate_tag("other");
    assert_eq!(allocations(|| assert_eq!(cache.get(&1), Some(1))), 0);
}

#[test]
fn a_loading_hit_allocates_nothing() {
    let cache = numbers(EvictionPolicy::S3Fifo);
    let hit = || assert_eq!(cache.get_or_load(&7, || unreachable!("it is there")), 7);
    assert_eq!(allocations(hit), 0);
    let hit = || {
        let value = cache.try_get_or_load(&7, || Err::<u64, _>("it is there"));
        assert!(matches!(value, Ok(7)));
    };
    assert_eq!(allocations(hit), 0);
}

#[test]
fn overwriting_touching_and_counting_allocate_nothing() {
    let cache = numbers(EvictionPolicy::S3Fifo);
    assert_eq!(allocations(|| ignore(cache.insert(7, 8))), 0);
    assert_eq!(
        allocations(|| ignore(cache.touch(&7, Some(Duration::from_secs(9))))),
        0
    );
    assert_eq!(allocations(|| ignore(cache.incr(&7, 1))), 0);
    assert_eq!(allocations(|| ignore(cache.add(7, 1))), 0);
}

#[test]
fn the_steady_state_of_a_full_cache_allocates_nothing() {
    let time = ManualClock::new();
    let cache = Cache::builder()
        .max_capacity(500)
        .time_to_live(Duration::from_secs(60))
        .clock(time.clock())
        .build()
        .expect("a valid configuration");
    let mut next = 0;
    // The tables have grown to their size by then.
    for _ in 0..20_000 {
        next += 1;
        cache.insert(next, next);
    }
    let churn = || {
        next += 1;
        cache.insert(next, next);
    };
    assert_eq!(allocations(churn), 0, "evicting one and storing one");
}
