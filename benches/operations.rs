//! What one call costs, for each operation that a service makes often. Timings are for a person to read,
//! as ratios within one run; no test depends on them.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a bench that cannot start has failed"
)]

use criterion::{Criterion, criterion_group, criterion_main};
use larder::{Cache, Compute, EntryOptions};
use std::hint::black_box;
use std::time::Duration;

const RESIDENT: u64 = 100_000;

fn cache(time_to_live: Option<Duration>) -> Cache<u64, u64> {
    let mut builder = Cache::builder().max_capacity(2 * RESIDENT);
    if let Some(time) = time_to_live {
        builder = builder.time_to_live(time);
    }
    let cache = builder.build().unwrap();
    cache.insert_many((0..RESIDENT).map(|n| (n, n)));
    cache
}

/// Keys in an order that no prefetcher guesses.
fn keys() -> impl FnMut() -> u64 {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % RESIDENT
    }
}

fn reads(c: &mut Criterion) {
    let mut group = c.benchmark_group("read");
    for (name, time) in [("hit", None), ("hit with a TTL of an hour", Some(3600))] {
        let cache = cache(time.map(Duration::from_secs));
        let mut next = keys();
        group.bench_function(name, |b| b.iter(|| black_box(cache.get(&next()))));
    }
    let cache = cache(None);
    let mut next = keys();
    group.bench_function("miss", |b| {
        b.iter(|| black_box(cache.get(&(next() + RESIDENT))))
    });
    group.bench_function("loading hit", |b| {
        b.iter(|| cache.get_or_load(&next(), || 0))
    });
    let tagged: Cache<u64, u64> = Cache::builder().max_capacity(2 * RESIDENT).build().unwrap();
    for n in 0..RESIDENT {
        let tag = format!("tag {}", n % 100);
        tagged
            .insert_with(n, n, EntryOptions::new().tag(tag))
            .unwrap();
    }
    group.bench_function("hit with a tag", |b| {
        b.iter(|| black_box(tagged.get(&next())))
    });
    let view = cache.namespace("view");
    view.insert_many((0..RESIDENT / 2).map(|n| (n, n)));
    group.bench_function("hit in a namespace", |b| {
        b.iter(|| black_box(view.get(&(next() / 2))))
    });
    group.bench_function("peek", |b| b.iter(|| black_box(cache.peek(&next()))));
    group.bench_function("contains_key", |b| {
        b.iter(|| black_box(cache.contains_key(&next())))
    });
    group.bench_function("get_many of 16", |b| {
        b.iter(|| {
            let keys: [u64; 16] = std::array::from_fn(|_| next());
            black_box(cache.get_many(&keys))
        });
    });
    group.finish();
}

fn writes(c: &mut Criterion) {
    let mut group = c.benchmark_group("write");
    let cache = cache(None);
    let mut next = keys();
    group.bench_function("overwrite", |b| b.iter(|| cache.insert(next(), 1)));
    group.bench_function("lost add", |b| b.iter(|| cache.add(next(), 1)));
    group.bench_function("incr", |b| b.iter(|| cache.incr(&next(), 1)));
    for (name, time) in [("churn", None), ("churn with a TTL of an hour", Some(3600))] {
        let mut builder = Cache::builder().max_capacity(RESIDENT);
        if let Some(time) = time {
            builder = builder.time_to_live(Duration::from_secs(time));
        }
        let cache: Cache<u64, u64> = builder.build().unwrap();
        let mut n = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                n += 1;
                cache.insert(n, n)
            });
        });
    }
    group.finish();
}

fn changes(c: &mut Criterion) {
    let mut group = c.benchmark_group("change");
    let cache = cache(None);
    let mut next = keys();
    group.bench_function("replace", |b| b.iter(|| cache.replace(next(), 1)));
    group.bench_function("compute", |b| {
        b.iter(|| cache.compute(&next(), |old| Compute::Put(old.map_or(0, |n| n + 1))));
    });
    group.bench_function("decr", |b| b.iter(|| cache.decr(&next(), 1)));
    group.bench_function("touch", |b| {
        b.iter(|| cache.touch(&next(), Some(Duration::from_secs(60))));
    });
    group.bench_function("remove_if, no", |b| {
        b.iter(|| cache.remove_if(&next(), |_| false));
    });
    group.bench_function("remove, then add", |b| {
        b.iter(|| {
            let key = next();
            (cache.remove(&key), cache.add(key, 1))
        });
    });
    group.bench_function("invalidate, then load", |b| {
        b.iter(|| {
            let key = next();
            (cache.invalidate(&key), cache.get_or_load(&key, || 1))
        });
    });
    group.bench_function("insert with a TTL and a tag", |b| {
        b.iter(|| {
            let options = EntryOptions::new()
                .time_to_live(Duration::from_secs(60))
                .tag("tag");
            cache.insert_with(next(), 1, options)
        });
    });
    group.bench_function("insert_many of 16", |b| {
        b.iter(|| cache.insert_many(std::array::from_fn::<_, 16, _>(|_| (next(), 1))));
    });
    group.bench_function("tag bump", |b| b.iter(|| cache.invalidate_tag("product:7")));
    group.finish();
}

fn whole(c: &mut Criterion) {
    let mut group = c.benchmark_group("whole");
    let cache = cache(None);
    group.bench_function("walk", |b| b.iter(|| cache.iter().count()));
    group.bench_function("len", |b| b.iter(|| black_box(cache.len())));
    group.bench_function("stats", |b| b.iter(|| black_box(cache.stats())));
    group.bench_function("clear of a namespace", |b| {
        let view = cache.namespace("view");
        b.iter(|| view.clear());
    });
    group.finish();
}

criterion_group!(operations, reads, writes, changes, whole);
criterion_main!(operations);
