//! Many callers at once: on one cold key, and on a hot key while its value expires.
//!
//! A wait is what a call took beyond what the loader sleeps. On a cold key somebody has to wait; the question is how
//! often the loader ran, and how long the last of the callers slept after the value was there. On a hot key the
//! question is whether anybody waits at all.

#![forbid(unsafe_code)]

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use ahash::RandomState;
use clap::{Parser, value_parser};
use comfy_table::Table;
use larder::Loaded;
use serde::Serialize;

/// Many callers at once on one key, for larder, moka and quick_cache
#[derive(Debug, Parser)]
#[command(name = "stampede", version)]
struct Args {
    /// Callers (threads) on a cold key, each a row of its own
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [2, 64, 1000], value_parser = value_parser!(u16).range(1..=4000))]
    callers: Vec<u16>,

    /// How long the loader sleeps, in milliseconds, each a row of its own
    #[arg(long, value_name = "MS", value_delimiter = ',', default_values_t = [0, 1, 10, 100])]
    loader: Vec<u16>,

    /// Rounds, each on a new key, the caches taking turns
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = value_parser!(u16).range(1..=1000))]
    rounds: u16,

    /// Seconds that a hot key is asked for; it lives a tenth of one, and takes 5 ms to load
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = value_parser!(u16).range(1..=600))]
    hot: u16,

    /// Print one JSON array, and nothing else
    #[arg(long)]
    json: bool,
}

/// One cache in one row. Times in microseconds.
#[derive(Debug, Serialize)]
struct Line {
    row: String,
    cache: &'static str,
    calls: usize,
    loader_calls: u64,
    /// For what the row has rounds or expiries.
    loader_calls_each: f64,
    waited_over_1_ms: usize,
    p50: u64,
    p99: u64,
    p999: u64,
    worst: u64,
}

impl Line {
    fn new(
        row: &str,
        cache: &'static str,
        mut waits: Vec<Duration>,
        loads: u64,
        each: f64,
    ) -> Self {
        waits.sort_unstable();
        let at = |share: f64| {
            let place = (waits.len() as f64 * share) as usize;
            let wait = waits.get(place.min(waits.len().saturating_sub(1)));
            wait.map_or(0, |wait| wait.as_micros() as u64)
        };
        Line {
            row: row.to_owned(),
            cache,
            calls: waits.len(),
            loader_calls: loads,
            loader_calls_each: loads as f64 / each,
            waited_over_1_ms: waits.iter().filter(|wait| wait.as_millis() >= 1).count(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            worst: at(1.0),
        }
    }
}

/// A way to get a key's value or load it.
type Get = Box<dyn Fn(u64, &dyn Fn() -> u64) -> u64 + Sync>;

/// How a cache is read; with `ttl`, its values expire.
fn caches(ttl: Option<Duration>) -> Vec<(&'static str, Get)> {
    let builder = larder::Cache::builder().max_capacity(10_000);
    let larder = match ttl {
        Some(ttl) => builder.time_to_live(ttl),
        None => builder,
    };
    let larder = larder
        .hasher(RandomState::new())
        .build()
        .expect("a valid configuration");
    let moka = moka::sync::Cache::builder().max_capacity(10_000);
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
        let quick = quick_cache::sync::Cache::<u64, u64>::new(10_000);
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

fn cold(callers: usize, sleep: Duration, rounds: usize) -> Vec<Line> {
    let caches = caches(None);
    let mut waits = vec![Vec::new(); caches.len()];
    let loads: Vec<_> = caches.iter().map(|_| AtomicU64::new(0)).collect();
    for round in 0..=rounds {
        for (at, (_, get)) in caches.iter().enumerate() {
            let start = Barrier::new(callers);
            let took: Vec<Duration> = std::thread::scope(|scope| {
                let (start, loads) = (&start, &loads[at]);
                let call = move || {
                    start.wait();
                    let begun = Instant::now();
                    get(round as u64, &|| {
                        // The first round warms up.
                        loads.fetch_add(u64::from(round > 0), Ordering::Relaxed);
                        if !sleep.is_zero() {
                            std::thread::sleep(sleep);
                        }
                        7
                    });
                    begun.elapsed().saturating_sub(sleep)
                };
                let builder = || std::thread::Builder::new().stack_size(128 << 10);
                let threads: Vec<_> = (0..callers)
                    .map(|_| builder().spawn_scoped(scope, call).expect("a thread"))
                    .collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().expect("no panic"))
                    .collect()
            });
            if round > 0 {
                waits[at].extend(took);
            }
        }
    }
    let row = format!("cold, {callers} callers, loader {} ms", sleep.as_millis());
    let each = rounds as f64;
    let lines = caches.iter().zip(waits).zip(loads);
    lines
        .map(|(((name, _), waits), loads)| Line::new(&row, name, waits, loads.into_inner(), each))
        .collect()
}

const LIFE: Duration = Duration::from_millis(100);
const LOAD: Duration = Duration::from_millis(5);

/// larder with β = 1, by loaders of the callers' own and by an attached one.
fn early(loads: &Arc<AtomicU64>) -> Vec<(&'static str, Get)> {
    let count = Arc::clone(loads);
    let builder = || {
        larder::Cache::builder()
            .max_capacity(10_000)
            .time_to_live(LIFE)
            .early_expiration(1.0)
    };
    let own = builder().build().expect("a valid configuration");
    let attached = builder()
        .loader(move |_: &u64| {
            count.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(LOAD);
            Ok::<_, std::convert::Infallible>(Loaded::new(7))
        })
        .build()
        .expect("a valid configuration");
    vec![
        (
            "larder, β = 1",
            Box::new(move |key, load| own.get_or_load(&key, load)),
        ),
        (
            "larder, β = 1, attached",
            Box::new(move |key, _| attached.load(&key).unwrap_or(0)),
        ),
    ]
}

fn hot(seconds: u16) -> Vec<Line> {
    let loads = Arc::new(AtomicU64::new(0));
    let mut caches = caches(Some(LIFE));
    caches.extend(early(&loads));
    let time = Duration::from_secs(seconds.into());
    let row = format!(
        "hot, 2 callers, {} expiries",
        time.as_millis() / LIFE.as_millis()
    );
    let mut lines = Vec::new();
    for (name, get) in &caches {
        loads.store(0, Ordering::Relaxed);
        let load = || {
            loads.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(LOAD);
            7
        };
        get(1, &load);
        let waits = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let (begun, mut waits) = (Instant::now(), Vec::new());
                        let mut last = begun;
                        while last.duration_since(begun) < time {
                            get(1, &load);
                            let now = Instant::now();
                            waits.push(now.duration_since(last));
                            last = now;
                        }
                        waits
                    })
                })
                .collect();
            let waits = threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"));
            waits.collect::<Vec<_>>().concat()
        });
        let expiries = time.as_secs_f64() / LIFE.as_secs_f64();
        let count = loads.load(Ordering::Relaxed);
        lines.push(Line::new(&row, name, waits, count, expiries));
    }
    lines
}

fn main() -> std::io::Result<()> {
    let args = Args::parse();
    let mut lines = Vec::new();
    for &callers in &args.callers {
        for &sleep in &args.loader {
            let sleep = Duration::from_millis(sleep.into());
            lines.extend(cold(callers.into(), sleep, args.rounds.into()));
        }
    }
    lines.extend(hot(args.hot));
    let mut out = std::io::stdout();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &lines)?;
        return writeln!(out);
    }
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header([
        "row",
        "cache",
        "calls",
        "loads",
        "loads each",
        "over 1 ms",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "worst µs",
    ]);
    for line in &lines {
        table.add_row([
            line.row.clone(),
            line.cache.to_owned(),
            line.calls.to_string(),
            line.loader_calls.to_string(),
            format!("{:.2}", line.loader_calls_each),
            line.waited_over_1_ms.to_string(),
            line.p50.to_string(),
            line.p99.to_string(),
            line.p999.to_string(),
            line.worst.to_string(),
        ]);
    }
    writeln!(out, "{table}")
}
