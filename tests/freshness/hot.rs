//! A key that is asked for all the time, through a hundred expiries.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use larder::Cache;

use crate::executor::Hand;
use crate::{ALWAYS, KEY, MILLI, SECOND, timed};

/// Requests a second of the clock that is turned by hand.
const RATE: u64 = if cfg!(debug_assertions) {
    10_000
} else {
    100_000
};
const EXPIRIES: u64 = 100;

/// What became of the requests.
#[derive(Debug, Default)]
struct Tally {
    requests: u64,
    loads: u64,
    /// Requests that found no value and no loader to run.
    blocked: u64,
    most_at_once: usize,
    oldest: Duration,
}

/// Asks for one key at [`RATE`], where a load takes 10 ms and a value lives a second.
fn run(beta: f64) -> Tally {
    let (cache, time) = timed(beta, |builder| builder);
    let gap = SECOND / RATE as u32;
    let mut tally = Tally::default();
    // Values are the moments at which they were loaded, in gaps.
    let now = std::cell::Cell::new(0_u64);
    let running = std::cell::Cell::new(0_usize);
    let ask = || {
        cache.get_or_load_async(&KEY, || {
            running.set(running.get() + 1);
            let done = now.get() + RATE / 100;
            let (now, running) = (&now, &running);
            async move {
                std::future::poll_fn(|_| match now.get() >= done {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                })
                .await;
                running.set(running.get() - 1);
                now.get()
            }
        })
    };
    let mut loading: Vec<Hand<'_, u64>> = Vec::new();
    let mut loaded = 0;
    // The first load, which somebody has to wait for.
    loading.push(Hand::pending(ask()));
    while now.get() < EXPIRIES * RATE {
        loading.retain_mut(|load| {
            let over = load.poll().is_ready();
            loaded += u64::from(over);
            !over
        });
        let first = loaded == 0;
        if !first {
            let before = running.get();
            let mut request = Hand::new(ask());
            tally.requests += 1;
            match request.poll() {
                Poll::Ready(at) => {
                    let age = gap * (now.get() - at) as u32;
                    tally.oldest = tally.oldest.max(age);
                }
                Poll::Pending => {
                    if running.get() == before {
                        tally.blocked += 1;
                    }
                    loading.push(request);
                }
            }
        }
        tally.most_at_once = tally.most_at_once.max(running.get());
        now.set(now.get() + 1);
        time.advance(gap);
    }
    drop(loading);
    tally.loads = cache.stats().loads();
    tally
}

#[test]
fn nobody_waits_for_a_hot_key_through_a_hundred_expiries() {
    let tally = run(1.0);
    println!("counts a hot key, β = 1: {tally:?}");
    assert_eq!((tally.blocked, tally.most_at_once), (0, 1));
    // Loaded early, a value lives less than a second: so a few more loads than seconds.
    assert!(tally.loads * 10 <= EXPIRIES * 12, "{tally:?}");
    assert!(tally.oldest < SECOND, "{tally:?}");
    // What it is for: without it, everybody waits for ten milliseconds of every second.
    let plain = run(0.0);
    println!("counts a hot key, β = 0: {plain:?}");
    assert!(plain.blocked > EXPIRIES * RATE / 200, "{plain:?}");
}

/// Real threads read a hot key in real time: at any moment one loader runs at most, and no read finds
/// nothing.
#[test]
fn threads_are_served_while_one_of_them_loads() {
    let cache = Cache::builder()
        .max_capacity(100)
        .time_to_live(200 * MILLI)
        .early_expiration(ALWAYS)
        .build()
        .unwrap();
    let (running, loads) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let load = || {
        assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "two loaders");
        std::thread::sleep(5 * MILLI);
        running.fetch_sub(1, Ordering::SeqCst);
        loads.fetch_add(1, Ordering::SeqCst)
    };
    cache.get_or_load(&KEY, load);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while loads.load(Ordering::SeqCst) < 20 {
                    cache.get_or_load(&KEY, load);
                }
            });
        }
    });
    let stats = cache.stats();
    assert!(stats.refreshes() > 0, "{stats:?}");
    assert_eq!(cache.__flights(), (0, 0));
}
