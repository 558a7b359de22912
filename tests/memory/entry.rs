//! What one entry costs, with each feature, at four sizes across one doubling.

use std::hash::{BuildHasherDefault, DefaultHasher};
use std::time::Duration;

use larder::{Cache, CacheBuilder, EntryOptions, EvictionPolicy};

use crate::{BOUNDS, DEBUG, HOUR, alone, heap, ignore};

/// Said, and not left to the machine's cores. A debug build measures one shard of the eight.
const SHARDS: u64 = if DEBUG { 1 } else { 16 };
/// Four sizes across one doubling, so that an array that doubles is caught at its emptiest: 100,000 to
/// 200,000 in sixteen shards.
const SIZES: [u64; 4] = [
    6_250 * SHARDS,
    7_812 * SHARDS,
    9_375 * SHARDS,
    12_500 * SHARDS,
];
/// The capacity of the cache that never grows full.
const ROOMY: u64 = 112_500 * SHARDS;

/// Without a seed: which shard gets a few keys more, and so another block, is always the same.
type Fixed = BuildHasherDefault<DefaultHasher>;
type Numbers = Cache<u64, u64, Fixed>;
type Builder = CacheBuilder<u64, u64, Fixed>;

/// A feature: how the cache is built, and how an entry is stored.
struct Feature {
    name: &'static str,
    build: fn(Builder) -> Builder,
    store: fn(&Numbers, u64),
}

fn plainly(cache: &Numbers, n: u64) {
    ignore(cache.insert(n, n));
}

fn with_a_tag(cache: &Numbers, n: u64) {
    let tag = format!("tag {}", n % 100);
    ignore(cache.insert_with(n, n, EntryOptions::new().tag(tag)));
}

const FEATURES: [Feature; 12] = [
    Feature {
        name: "plain",
        build: |builder| builder,
        store: plainly,
    },
    Feature {
        name: "plain, LRU",
        build: |builder| builder.eviction_policy(EvictionPolicy::Lru),
        store: plainly,
    },
    Feature {
        name: "ttl",
        build: |builder| builder.time_to_live(HOUR),
        store: plainly,
    },
    Feature {
        name: "ttl and tti",
        build: |builder| builder.time_to_live(HOUR).time_to_idle(HOUR),
        store: plainly,
    },
    Feature {
        name: "weigher",
        build: |builder| builder.weigher(|_, _| 1),
        store: plainly,
    },
    Feature {
        name: "one of 100 tags each",
        build: |builder| builder,
        store: with_a_tag,
    },
    Feature {
        name: "a tag of its own each",
        build: |builder| builder,
        store: |cache, n| {
            let options = EntryOptions::new().tag(format!("tag {n}"));
            ignore(cache.insert_with(n, n, options));
        },
    },
    // Who judges entries without a lock has their versions kept.
    Feature {
        name: "ttl, stored by compute",
        build: |builder| builder.time_to_live(HOUR),
        store: |cache, n| ignore(cache.compute(&n, |_| larder::Compute::Put(n))),
    },
    Feature {
        name: "ttl, loaded, early expiration",
        build: |builder| builder.time_to_live(HOUR).early_expiration(1.0),
        store: |cache, n| {
            let options = EntryOptions::new().load_time(Duration::from_millis(5));
            ignore(cache.insert_with(n, n, options));
        },
    },
    Feature {
        name: "ttl, stale windows of its own",
        build: |builder| builder.time_to_live(HOUR),
        store: |cache, n| {
            let options = EntryOptions::new().stale_if_error(HOUR);
            ignore(cache.insert_with(n, n, options));
        },
    },
    Feature {
        name: "namespace",
        build: |builder| builder,
        store: plainly,
    },
    Feature {
        name: "ttl, tti, weigher, one tag",
        build: |builder| {
            builder
                .weigher(|_, _| 1)
                .time_to_live(HOUR)
                .time_to_idle(HOUR)
        },
        store: with_a_tag,
    },
];

impl Feature {
    fn cache(&self, capacity: u64) -> Numbers {
        let builder = Cache::builder()
            .max_capacity(capacity)
            .shards(SHARDS as usize)
            .hasher(Fixed::default());
        let cache = (self.build)(builder)
            .build()
            .expect("a valid configuration");
        match self.name {
            "namespace" => cache.namespace("a"),
            _ => cache,
        }
    }

    /// Bytes per entry in a cache of this capacity at `size` entries, and, if it is full, again once
    /// twice as many others have gone through it: then its ghosts are full as well.
    fn measure(&self, capacity: u64, size: u64) -> (f64, f64) {
        let before = heap::bytes();
        let cache = self.cache(capacity);
        (0..size).for_each(|n| (self.store)(&cache, n));
        let filled = per_entry(&cache, before, size);
        if size < capacity {
            return (filled, filled);
        }
        (size..3 * size).for_each(|n| (self.store)(&cache, n));
        (filled, per_entry(&cache, before, size))
    }
}

fn per_entry(cache: &Numbers, before: i64, size: u64) -> f64 {
    let held = cache.len();
    // A full cache holds 96 % at least.
    assert!(held * 100 >= size * 96, "{held} of {size}");
    (heap::bytes() - before) as f64 / held as f64
}

#[test]
fn an_entry_costs_no_more_than_its_bound_with_each_feature() {
    let _alone = alone();
    println!(
        "figures bytes of heap per u64 → u64 entry; at each size: full / ghosts full / roomy; {SHARDS} shards"
    );
    println!(
        "figures {:26} {:>69} {:>13}",
        "",
        SIZES.map(|n| format!("{n:>17}")).concat(),
        "worst"
    );
    let mut over = Vec::new();
    for feature in &FEATURES {
        let (mut row, mut full, mut roomy) = (String::new(), 0_f64, 0_f64);
        for size in SIZES {
            let (before, after) = feature.measure(size, size);
            let (room, _) = feature.measure(ROOMY, size);
            row += &format!(" {before:5.1}/{after:5.1}/{room:5.1}");
            full = full.max(before).max(after);
            roomy = roomy.max(room);
        }
        println!("figures {:26} {row}   {full:5.1}/{roomy:5.1}", feature.name);
        let (_, most_full, most_roomy) = BOUNDS
            .iter()
            .find(|(name, _, _)| *name == feature.name)
            .expect("each feature has its bounds");
        if full > *most_full || roomy > *most_roomy {
            over.push(format!(
                "{}: {full:.1} and {roomy:.1} where {most_full} and {most_roomy} are allowed",
                feature.name
            ));
        }
    }
    assert!(over.is_empty(), "{}", over.join("\n"));
}

/// The measurement sees what it is there for: eight bytes more in a value are eight bytes more.
#[test]
fn eight_bytes_more_are_noticed() {
    let _alone = alone();
    let cost = |value: fn() -> i64| value() as f64 / SIZES[0] as f64;
    let narrow = cost(held_by::<u64>);
    let wide = cost(held_by::<(u64, u64)>);
    // Each shard's last block is used in part.
    println!("figures a value of 8 bytes {narrow:.2}, of 16 {wide:.2}");
    assert!((wide - narrow - 8.0).abs() < 1.0, "{narrow} and {wide}");
}

fn held_by<V: Default + Clone + Send + Sync + 'static>() -> i64 {
    let before = heap::bytes();
    let cache = Cache::<u64, V>::builder()
        .max_capacity(2 * SIZES[0])
        .shards(SHARDS as usize)
        .hasher(Fixed::default())
        .build()
        .expect("a valid configuration");
    (0..SIZES[0]).for_each(|n| ignore(cache.insert(n, V::default())));
    heap::bytes() - before
}
