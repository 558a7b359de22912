//! The hot paths whose instructions `tests/instructions` counts: each is run as often as it is told, and
//! does nothing else, so that the difference of two runs is the path's alone.
//!
//! Usage: `hot_paths NAME CALLS`; without arguments it lists the names.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for a script: it prints its list, and one that cannot start has failed"
)]

use std::hash::{BuildHasherDefault, Hasher};
use std::hint::black_box;
use std::time::Duration;

use larder::{Cache, EntryOptions};

/// Keys that are there. Large enough for several shards, small enough to be filled soon.
const RESIDENT: u64 = 7_000;
const HOUR: Duration = Duration::from_secs(3600);

/// A hasher without a key drawn at run time: the same buckets in every run.
#[derive(Default)]
struct Fixed(u64);

impl Hasher for Fixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(byte.into()));
    }

    fn write_u64(&mut self, n: u64) {
        let wide = u128::from(self.0 ^ n ^ 0x2545_F491_4F6C_DD1D) * 0x9E37_79B9_7F4A_7C15;
        self.0 = wide as u64 ^ (wide >> 64) as u64;
    }
}

type Numbers = Cache<u64, u64, BuildHasherDefault<Fixed>>;

fn cache(capacity: u64, ttl: Option<Duration>) -> Numbers {
    let builder = Cache::builder().max_capacity(capacity).shards(4);
    let builder = match ttl {
        Some(ttl) => builder.time_to_live(ttl),
        None => builder,
    };
    builder
        .hasher(BuildHasherDefault::default())
        .build()
        .unwrap()
}

fn full(ttl: Option<Duration>) -> Numbers {
    let cache = cache(2 * RESIDENT, ttl);
    cache.insert_many((0..RESIDENT).map(|n| (n, n)));
    cache
}

/// Keys in an order without a pattern, the same in every run.
fn keys(calls: u64) -> impl Iterator<Item = u64> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    (0..calls).map(move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % RESIDENT
    })
}

fn hits(cache: &Numbers, calls: u64) {
    for key in keys(calls) {
        assert!(black_box(cache.get(&key)).is_some());
    }
}

fn churn(cache: &Numbers, calls: u64) {
    // What is counted is a full cache's insertion: it is full before the first one counted.
    for key in 0..4 * RESIDENT + calls {
        cache.insert(key, key);
    }
}

type Path = (&'static str, fn(u64));

const PATHS: [Path; 8] = [
    ("hit", |calls| hits(&full(None), calls)),
    ("hit-ttl", |calls| hits(&full(Some(HOUR)), calls)),
    ("hit-tagged", |calls| {
        let cache = cache(2 * RESIDENT, None);
        for n in 0..RESIDENT {
            let options = EntryOptions::new().tag("tag");
            cache.insert_with(n, n, options).unwrap();
        }
        hits(&cache, calls);
    }),
    ("hit-loading", |calls| {
        let cache = full(None);
        for key in keys(calls) {
            black_box(cache.get_or_load(&key, || unreachable!("it is there")));
        }
    }),
    ("miss", |calls| {
        let cache = full(None);
        for key in keys(calls) {
            assert!(black_box(cache.get(&(RESIDENT + key))).is_none());
        }
    }),
    ("overwrite-ttl", |calls| {
        let cache = full(Some(HOUR));
        for key in keys(calls) {
            black_box(cache.insert(key, 1));
        }
    }),
    ("churn", |calls| churn(&cache(RESIDENT, None), calls)),
    ("churn-ttl", |calls| {
        churn(&cache(RESIDENT, Some(HOUR)), calls)
    }),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let path = arguments
        .first()
        .and_then(|name| PATHS.iter().find(|path| path.0 == name));
    let calls = arguments.get(1).and_then(|calls| calls.parse().ok());
    match (path, calls) {
        (Some((_, run)), Some(calls)) => run(calls),
        // Also what `cargo bench` and `cargo test` make of it, which have arguments of their own.
        _ => PATHS.iter().for_each(|path| println!("{}", path.0)),
    }
}
