//! A hot key, asked for by threads while its value expires.
//!
//! Each of the callers asks again as soon as it is answered, so nearly all calls are hits, and the percentiles are
//! theirs: who had to wait is found in the count of long waits and in the worst.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder::Loaded;

use crate::line::Line;
use crate::rounds::CAPACITY;
use crate::threads::{Get, caches};

const LIFE: Duration = Duration::from_millis(100);
const LOAD: Duration = Duration::from_millis(5);

/// larder with β = 1, by loaders of the callers' own and by an attached one.
fn early(loads: &Arc<AtomicU64>) -> Vec<(&'static str, Get)> {
    let count = Arc::clone(loads);
    let builder = || {
        larder::Cache::builder()
            .max_capacity(CAPACITY)
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

pub fn hot(seconds: u16) -> Vec<Line> {
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
