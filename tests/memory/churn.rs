//! Memory under churn: flat for entries, bounded for names.

use larder::{Cache, EntryOptions};

use crate::{DEBUG, HOUR, alone, heap, ignore};

/// Puts and removals. A debug build does a tenth.
const TURNS: u64 = if DEBUG { 1_000_000 } else { 10_000_000 };
/// Names that come and go.
const NAMES: u64 = if DEBUG { 200_000 } else { 1_000_000 };
/// How often the heap is looked at on the way.
const LOOKS: u64 = 200;
/// How far live bytes may range over a run once it has settled, in percent.
const RANGE: f64 = 5.0;

/// Runs `turn` so often and looks at the heap on the way; the least and the most live bytes above what
/// was there before, leaving out the first tenth of the run.
fn range(before: i64, turns: u64, mut turn: impl FnMut(u64)) -> (i64, i64) {
    let (mut least, mut most) = (i64::MAX, i64::MIN);
    for n in 0..turns {
        turn(n);
        if n % (turns / LOOKS) == 0 && n >= turns / 10 {
            let now = heap::bytes() - before;
            (least, most) = (least.min(now), most.max(now));
        }
    }
    (least, most)
}

fn assert_flat(what: &str, (least, most): (i64, i64)) {
    let range = (most - least) as f64 / most as f64 * 100.0;
    println!(
        "figures live bytes over {TURNS} turns, {what}: {least} to {most}, a range of {range:.2} %"
    );
    assert!(range <= RANGE, "{what}: a range of {range:.2} %");
}

fn skipped_in_debug(full: u64, done: u64) {
    if DEBUG {
        println!("skipped: {full} turns in release builds; a debug build does {done}");
    }
}

#[test]
fn live_bytes_are_flat_under_puts_and_removals() {
    let _alone = alone();
    skipped_in_debug(10_000_000, TURNS);
    // A window of entries that moves: each turn stores one and removes the oldest.
    let before = heap::bytes();
    let cache: Cache<u64, u64> = Cache::builder()
        .max_capacity(100_000)
        .shards(8)
        .time_to_live(HOUR)
        .build()
        .expect("a valid configuration");
    let window = 50_000;
    let turned = range(before, TURNS, |n| {
        ignore(cache.insert(n, n));
        if n >= window {
            assert_eq!(cache.remove(&(n - window)), Some(n - window));
        }
    });
    assert_flat("a moving window", turned);
    drop(cache);
    // One key after the other, each stored and removed at once.
    let before = heap::bytes();
    let cache: Cache<u64, u64> = Cache::builder().max_capacity(100_000).build().unwrap();
    (0..1000).for_each(|n| ignore(cache.insert(u64::MAX - n, n)));
    let turned = range(before, TURNS, |n| {
        ignore(cache.insert(n, n));
        ignore(cache.remove(&n));
    });
    assert_flat("one at a time", turned);
}

#[test]
fn live_bytes_are_flat_under_eviction_with_strings() {
    let _alone = alone();
    let before = heap::bytes();
    let cache: Cache<String, String> = Cache::builder()
        .max_capacity(20_000)
        .shards(8)
        .time_to_live(HOUR)
        .time_to_idle(HOUR)
        .build()
        .expect("a valid configuration");
    let turned = range(before, TURNS, |n| {
        // The same length each: what changes is the cache's own.
        let tag = EntryOptions::new().tag(format!("tag {}", n % 50));
        ignore(cache.insert_with(format!("{n:020}"), format!("{n:040}"), tag));
        if n % 7 == 0 {
            ignore(cache.remove(&format!("{:020}", n - n % 5)));
        }
    });
    assert_flat("strings, evicted", turned);
}

/// What `churn` does with each of many names in a cache of 1,000 entries: the most names that were known
/// at a time, the number of names that entries carried at the end, and the bytes at a tenth and at the end.
fn names(churn: impl Fn(&Cache<u64, u64>, u64), known: fn((usize, usize)) -> usize) -> usize {
    let cache: Cache<u64, u64> = Cache::builder().max_capacity(1000).build().unwrap();
    let before = heap::bytes();
    let mut most = 0;
    let (least_bytes, most_bytes) = range(before, NAMES, |n| {
        churn(&cache, n);
        most = most.max(known(cache.__names()));
    });
    println!(
        "figures {NAMES} names: {most} known at most, {} at the end, {least_bytes} to {most_bytes} bytes",
        known(cache.__names())
    );
    // A registry's table stays as large as it was: twice the names that it was swept at, and the names.
    assert!(most_bytes < 1_000_000, "{most_bytes} bytes of names");
    most
}

/// The first sweep is at 1,024 names, later ones at twice what the last one left, which is at most one
/// name for each of the 1,000 entries.
const MOST_NAMES: usize = 2 * 1000 + 1024;

#[test]
fn tags_that_entries_carry_are_forgotten_with_them() {
    let _alone = alone();
    skipped_in_debug(1_000_000, NAMES);
    let store = |cache: &Cache<u64, u64>, n: u64| {
        let options = EntryOptions::new().tag(format!("tag {n}"));
        ignore(cache.insert_with(n, n, options));
    };
    let most = names(store, |(tags, _)| tags);
    assert!(most <= MOST_NAMES, "{most} tags");
}

#[test]
fn tags_that_were_only_invalidated_are_forgotten() {
    let _alone = alone();
    let bump = |cache: &Cache<u64, u64>, n: u64| cache.invalidate_tag(&format!("tag {n}"));
    let most = names(bump, |(tags, _)| tags);
    assert!(most <= MOST_NAMES, "{most} tags");
}

#[test]
fn namespaces_are_forgotten_with_their_entries() {
    let _alone = alone();
    let store = |cache: &Cache<u64, u64>, n: u64| {
        ignore(cache.namespace(&format!("name {n}")).insert(n, n));
    };
    let most = names(store, |(_, namespaces)| namespaces);
    assert!(most <= MOST_NAMES, "{most} namespaces");
}

#[test]
fn namespaces_that_were_only_named_are_forgotten() {
    let _alone = alone();
    let call = |cache: &Cache<u64, u64>, n: u64| {
        let view = cache.namespace(&format!("name {n}"));
        ignore(view.get(&n));
    };
    let most = names(call, |(_, namespaces)| namespaces);
    assert!(most <= MOST_NAMES, "{most} namespaces");
}

/// While a load runs, the tags that are invalidated are remembered, for it may name one: so many bytes each.
const BYTES_A_FORGOTTEN_TAG: i64 = 24;

#[test]
fn tags_that_are_remembered_for_a_load_take_few_bytes() {
    let _alone = alone();
    let cache: Cache<u64, u64> = Cache::builder().max_capacity(1000).build().unwrap();
    let mut load = Box::pin(cache.get_or_load_async(&1, std::future::pending::<u64>));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(load.as_mut().poll(&mut context).is_pending());
    let before = heap::bytes();
    for n in 0..NAMES {
        cache.invalidate_tag(&format!("tag {n}"));
    }
    let each = (heap::bytes() - before) / NAMES as i64;
    println!("figures {NAMES} tags invalidated during a load: {each} bytes each");
    assert!((16..=BYTES_A_FORGOTTEN_TAG).contains(&each), "{each} bytes");
    drop(load);
    cache.run_pending(1);
    let left = heap::bytes() - before;
    assert!(left < 1_000_000, "{left} bytes, and no load runs");
}
