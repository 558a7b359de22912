//! What a hit does not do: allocate, or ask the precise clock. A million of each.

use std::time::Duration;

use larder::{Cache, CacheBuilder, Clock, EntryOptions, EvictionPolicy};

use crate::{DEBUG, HOUR, alone, heap, ignore};

const HITS: u64 = 1_000_000;
const ENTRIES: u64 = 1000;

type Numbers = Cache<u64, u64>;
type Setting = fn(CacheBuilder<u64, u64>) -> CacheBuilder<u64, u64>;

const SETTINGS: [(&str, Setting); 7] = [
    ("plain", |builder| builder),
    ("ttl", |builder| builder.time_to_live(HOUR)),
    ("ttl, ticking clock", |builder| {
        let clock = Clock::ticking(Duration::from_millis(1)).expect("a thread");
        builder.time_to_live(HOUR).clock(clock)
    }),
    ("ttl, LRU", |builder| {
        builder
            .time_to_live(HOUR)
            .eviction_policy(EvictionPolicy::Lru)
    }),
    ("ttl of a second", |builder| {
        builder.time_to_live(Duration::from_secs(1))
    }),
    ("ttl and tti", |builder| {
        builder.time_to_live(HOUR).time_to_idle(HOUR)
    }),
    ("weigher", |builder| {
        builder.weigher(|_, _| 1).time_to_live(HOUR)
    }),
];

fn filled(set: Setting) -> Numbers {
    let builder = Cache::builder().max_capacity(2 * ENTRIES);
    let cache = set(builder).build().expect("a valid configuration");
    (0..ENTRIES).for_each(|n| ignore(cache.insert(n, n)));
    cache
}

/// A million reads; how many of them hit, how many blocks they allocated, and how often they read the
/// clock precisely.
fn read(cache: &Numbers) -> (u64, u64, u64) {
    let hit = (0..HITS)
        .map(|n| n % ENTRIES)
        .filter(|key| cache.get(key).is_some())
        .map(|_| 1_u64);
    let (allocated, readings) = (heap::allocated(), larder::__precise_readings());
    let hits = hit.sum();
    (
        hits,
        heap::allocated() - allocated,
        larder::__precise_readings() - readings,
    )
}

#[test]
fn a_million_hits_allocate_nothing_and_read_no_precise_clock() {
    let _alone = alone();
    for (name, set) in SETTINGS {
        let cache = filled(set);
        let (hits, allocated, readings) = read(&cache);
        println!(
            "counts a million hits, {name}: {hits} hits, {allocated} allocations, {readings} precise readings"
        );
        assert_eq!(allocated, 0, "{name}");
        if name == "ttl of a second" {
            // They may die before the million is through, and are asked about precisely just before.
            continue;
        }
        assert_eq!(hits, HITS, "{name}");
        assert_eq!(readings, 0, "{name}");
    }
    if !DEBUG {
        println!("skipped: precise readings are counted in debug builds only");
    }
}

#[test]
fn a_million_hits_of_tagged_entries_in_a_namespace_likewise() {
    let _alone = alone();
    let cache = filled(|builder| builder.time_to_live(HOUR)).namespace("a");
    for n in 0..ENTRIES {
        cache
            .insert_with(n, n, EntryOptions::new().tag("t").tag("u"))
            .unwrap();
    }
    assert_eq!(read(&cache), (HITS, 0, 0));
    // Each entry's tags are walked once more.
    cache.invalidate_tag("other");
    assert_eq!(read(&cache), (HITS, 0, 0));
}

/// The count sees what it is there for: within the coarse clock's error the precise one has to decide.
#[test]
fn a_hit_just_before_the_deadline_reads_the_precise_clock() {
    let _alone = alone();
    if !DEBUG {
        println!("skipped: precise readings are counted in debug builds only");
        return;
    }
    let cache = filled(|builder| builder);
    let mut asked = 0;
    for _ in 0..100 {
        let soon = EntryOptions::new().time_to_live(Duration::from_micros(500));
        cache.insert_with(1, 1, soon).unwrap();
        let before = larder::__precise_readings();
        ignore(cache.get(&1));
        asked += larder::__precise_readings() - before;
    }
    assert!(asked >= 50, "{asked} of 100 asked");
}
