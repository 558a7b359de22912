//! One cold key, asked for by threads.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use ahash::RandomState;

use crate::line::Line;
use crate::rounds::{self, CAPACITY, Call, Loader};

/// A way to get a key's value or load it.
pub type Get = Box<dyn Fn(u64, &dyn Fn() -> u64) -> u64 + Sync>;

/// How a cache is read; with `ttl`, its values expire.
pub fn caches(ttl: Option<Duration>) -> Vec<(&'static str, Get)> {
    let builder = larder::Cache::builder().max_capacity(CAPACITY);
    let larder = match ttl {
        Some(ttl) => builder.time_to_live(ttl),
        None => builder,
    };
    let larder = larder
        .hasher(RandomState::new())
        .build()
        .expect("a valid configuration");
    let moka = moka::sync::Cache::builder().max_capacity(CAPACITY);
    let moka = match ttl {
        Some(ttl) => moka.time_to_live(ttl),
        None => moka,
    };
    let moka = moka.build_with_hasher(RandomState::new());
    let mut all: Vec<(&'static str, Get)> = vec![
        (
            "larder",
            Box::new(move |key, load| larder.get_or_load(&key, load)),
        ),
        ("moka", Box::new(move |key, load| moka.get_with(key, load))),
    ];
    if ttl.is_none() {
        let quick = quick_cache::sync::Cache::<u64, u64>::new(CAPACITY as usize);
        let get = move |key, load: &dyn Fn() -> u64| {
            let value =
                quick.get_or_insert_with(&key, || Ok::<_, std::convert::Infallible>(load()));
            match value {
                Ok(value) => value,
                Err(never) => match never {},
            }
        };
        all.push(("quick_cache", Box::new(get)));
    }
    all
}

pub fn cold(callers: usize, sleep: Duration, rounds: usize) -> Vec<Line> {
    let who = format!("{callers} callers");
    rounds::run(&who, &caches(None), sleep, rounds, |get, key, loader| {
        together(get, key, callers, loader)
    })
}

/// All threads ask for the key at once.
fn together(get: &Get, key: u64, callers: usize, loader: &Loader) -> Vec<Call> {
    let start = Barrier::new(callers);
    let call = || {
        start.wait();
        let asked = Instant::now();
        get(key, &|| loader.in_a_thread());
        (asked, Instant::now())
    };
    std::thread::scope(|scope| {
        let builder = || std::thread::Builder::new().stack_size(128 << 10);
        let threads: Vec<_> = (0..callers)
            .map(|_| builder().spawn_scoped(scope, call).expect("a thread"))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    })
}
