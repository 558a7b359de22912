//! The rounds of a cold row: the caches take turns, and each must load once a round.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::line::Line;

/// More than the keys that any row asks for, so that nothing is evicted and loaded again.
pub const CAPACITY: u64 = 10_000;

/// When a caller asked, and when it was answered.
pub type Call = (Instant, Instant);

/// The loader of one round. It counts when it is called, not when it is done: a loader that a cache drops halfway and
/// calls again has run twice.
pub struct Loader {
    sleep: Duration,
    calls: AtomicU64,
    slept: OnceLock<(Instant, Instant)>,
}

impl Loader {
    fn new(sleep: Duration) -> Self {
        Loader {
            sleep,
            calls: AtomicU64::new(0),
            slept: OnceLock::new(),
        }
    }

    pub fn in_a_thread(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if !self.sleep.is_zero() {
            let begun = Instant::now();
            std::thread::sleep(self.sleep);
            self.slept.get_or_init(|| (begun, Instant::now()));
        }
        7
    }

    pub async fn in_a_task(self: Arc<Self>) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed);
        // tokio's shortest sleep waits for its timer too: a loader of 0 ms is one that never waits.
        if !self.sleep.is_zero() {
            let begun = Instant::now();
            tokio::time::sleep(self.sleep).await;
            self.slept.get_or_init(|| (begun, Instant::now()));
        }
        7
    }

    /// What is left of a call once the value is there.
    fn wait(&self, (asked, answered): Call) -> Duration {
        let from = match self.slept.get() {
            Some((_, woke)) => asked.max(*woke),
            None => asked,
        };
        answered.saturating_duration_since(from)
    }

    /// By how much the sleep lasted too long: the timer's share, and what kept the loader from running again.
    fn late(&self) -> Option<Duration> {
        let (begun, woke) = self.slept.get()?;
        Some(woke.duration_since(*begun).saturating_sub(self.sleep))
    }
}

/// What a cache did in all recorded rounds, and what it must not do in any.
#[derive(Default)]
struct Sum {
    waits: Vec<Duration>,
    loads: u64,
    late: Vec<Duration>,
    faults: Vec<String>,
}

/// Runs a row. `ask` has all callers ask one cache for the round's key.
pub fn run<Get>(
    callers: &str,
    caches: &[(&'static str, Get)],
    sleep: Duration,
    rounds: usize,
    ask: impl Fn(&Get, u64, &Arc<Loader>) -> Vec<Call>,
) -> Vec<Line> {
    let row = format!("cold, {callers}, loader {} ms", sleep.as_millis());
    let mut sums: Vec<Sum> = caches.iter().map(|_| Sum::default()).collect();
    for round in 0..=rounds {
        for turn in 0..caches.len() {
            // Each round begins with another cache; the first, unrecorded one warms up.
            let at = (turn + round) % caches.len();
            let ((name, get), sum) = (&caches[at], &mut sums[at]);
            let loader = Arc::new(Loader::new(sleep));
            let calls = ask(get, round as u64, &loader);
            let loads = loader.calls.load(Ordering::Relaxed);
            if loads != 1 {
                let fault = format!("{row}: {name} called the loader {loads} times, round {round}");
                sum.faults.push(fault);
            }
            if round > 0 {
                sum.waits
                    .extend(calls.into_iter().map(|call| loader.wait(call)));
                sum.loads += loads;
                sum.late.extend(loader.late());
            }
        }
    }
    let lines = caches.iter().zip(sums).map(|((name, _), mut sum)| {
        sum.late.sort_unstable();
        let late = sum.late.get(sum.late.len() / 2).copied();
        let line = Line::new(&row, name, sum.waits, sum.loads, rounds as f64);
        line.cold(late, sum.faults)
    });
    lines.collect()
}
