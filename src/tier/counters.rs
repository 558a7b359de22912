//! What a tier and a [`Tiered`](super::Tiered) count, and the snapshot of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::contract::{FlushCause, Refusal, TierError};
use crate::sync::Mutex;

/// Counters, and the last error of a link. All Relaxed: each is true by itself, and nothing hangs on their order.
#[derive(Default)]
pub struct TierCounters {
    pushes: AtomicU64,
    commands: AtomicU64,
    dials: AtomicU64,
    time_outs: AtomicU64,
    breaker_openings: AtomicU64,
    breaker_open: AtomicBool,
    owed: AtomicU64,
    flushes: [AtomicU64; FlushCause::ALL.len()],
    refusals: [AtomicU64; Refusal::ALL.len()],
    latencies: Latencies,
    last_error: Mutex<Option<TierError>>,
}

impl std::fmt::Debug for TierCounters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.snapshot().fmt(f)
    }
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl TierCounters {
    pub(super) fn pushed(&self) {
        add(&self.pushes, 1);
    }

    pub(super) fn commands(&self, sent: u64) {
        add(&self.commands, sent);
    }

    pub(super) fn dialled(&self) {
        add(&self.dials, 1);
    }

    pub(super) fn timed_out(&self) {
        add(&self.time_outs, 1);
    }

    pub(super) fn breaker_opened(&self) {
        add(&self.breaker_openings, 1);
    }

    pub(super) fn breaker_is(&self, open: bool) {
        self.breaker_open.store(open, Ordering::Relaxed);
    }

    pub(super) fn owes(&self, commands: u64) {
        self.owed.store(commands, Ordering::Relaxed);
    }

    pub(super) fn flushed(&self, cause: FlushCause) {
        add(&self.flushes[cause as usize], 1);
    }

    pub(super) fn refused(&self, refusal: Refusal) {
        add(&self.refusals[refusal as usize], 1);
    }

    pub(super) fn took(&self, nanos: u64) {
        self.latencies.note(nanos / 1_000);
    }

    /// A link was lost, or not made.
    pub(super) fn link_failed(&self, error: &TierError) {
        if let TierError::Refused { refusal, .. } = error {
            self.refused(*refusal);
        }
        let before = self.last_error.lock().replace(error.clone());
        drop(before);
    }

    /// All of them now.
    #[must_use]
    pub fn snapshot(&self) -> TierStats {
        let counts = |counters: &[AtomicU64]| counters.iter().map(read).collect::<Vec<_>>();
        TierStats {
            pushes: read(&self.pushes),
            commands: read(&self.commands),
            dials: read(&self.dials),
            time_outs: read(&self.time_outs),
            breaker_openings: read(&self.breaker_openings),
            breaker_open: self.breaker_open.load(Ordering::Relaxed),
            owed: read(&self.owed),
            flushes: FlushCause::ALL
                .into_iter()
                .zip(counts(&self.flushes))
                .collect(),
            refusals: Refusal::ALL
                .into_iter()
                .zip(counts(&self.refusals))
                .collect(),
            latency_p50: self.latencies.quantile(0.5),
            latency_p99: self.latencies.quantile(0.99),
            last_error: self
                .last_error
                .lock()
                .as_ref()
                .map(|error| error.to_string().into()),
        }
    }
}

/// What a tier's link has seen since it was made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TierStats {
    /// Messages about changes.
    pub pushes: u64,
    /// Commands sent for requests.
    pub commands: u64,
    /// Connections dialled.
    pub dials: u64,
    /// Links closed because an answer did not come in time.
    pub time_outs: u64,
    /// How often the circuit breaker opened.
    pub breaker_openings: u64,
    /// Whether it is open.
    pub breaker_open: bool,
    /// Commands that will be sent before the next link is used, for writes that were lost.
    pub owed: u64,
    /// How often everything was flushed, by cause.
    pub flushes: Vec<(FlushCause, u64)>,
    /// Errors that the server answered with, by kind.
    pub refusals: Vec<(Refusal, u64)>,
    /// The median time to an answer, to a factor of two, rounded up. Zero before the first.
    pub latency_p50: Duration,
    /// The same for all answers but one in a hundred.
    pub latency_p99: Duration,
    /// Why a link was last lost, or not made.
    pub last_error: Option<Arc<str>>,
}

/// Times by powers of two of a microsecond.
struct Latencies([AtomicU64; 40]);

impl Default for Latencies {
    fn default() -> Self {
        Latencies(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Latencies {
    fn note(&self, micros: u64) {
        let place = (64 - micros.leading_zeros()) as usize;
        add(&self.0[place.min(self.0.len() - 1)], 1);
    }

    fn quantile(&self, share: f64) -> Duration {
        let counts: Vec<u64> = self.0.iter().map(read).collect();
        let all: u64 = counts.iter().sum();
        let wanted = (all as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (place, count) in counts.iter().enumerate() {
            seen += count;
            if all > 0 && seen >= wanted {
                return Duration::from_micros(1 << place);
            }
        }
        Duration::ZERO
    }
}

/// What a [`Tiered`](super::Tiered) counts beside the [`Stats`](crate::Stats) of its own cache.
#[derive(Default)]
pub(super) struct TieredCounters {
    pub(super) l2_hits: AtomicU64,
    pub(super) l2_misses: AtomicU64,
    pub(super) l2_errors: AtomicU64,
    pub(super) useful_pushes: AtomicU64,
    pub(super) refused_publishes: AtomicU64,
    pub(super) bad_contents: AtomicU64,
    pub(super) stale_served: AtomicU64,
    pub(super) waits: AtomicU64,
}

impl TieredCounters {
    pub(super) fn count(counter: &AtomicU64) {
        add(counter, 1);
    }

    pub(super) fn snapshot(&self) -> TieredStats {
        TieredStats {
            l2_hits: read(&self.l2_hits),
            l2_misses: read(&self.l2_misses),
            l2_errors: read(&self.l2_errors),
            useful_pushes: read(&self.useful_pushes),
            refused_publishes: read(&self.refused_publishes),
            bad_contents: read(&self.bad_contents),
            stale_served: read(&self.stale_served),
            waits: read(&self.waits),
        }
    }
}

/// What a [`Tiered`](super::Tiered) has seen since it was built, beside the [`Stats`](crate::Stats) of its own cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TieredStats {
    /// Misses of the own cache that the shared tier answered.
    pub l2_hits: u64,
    /// Those that it did not.
    pub l2_misses: u64,
    /// Calls to it that failed.
    pub l2_errors: u64,
    /// Changes told by it of which this process had a copy.
    pub useful_pushes: u64,
    /// Loaded values that were not stored, because something had changed while they were loaded.
    pub refused_publishes: u64,
    /// Contents that could not be read: damaged, of another schema or codec, or not larder's.
    pub bad_contents: u64,
    /// Values past their date that were served because their loader failed.
    pub stale_served: u64,
    /// Waits for another process's load.
    pub waits: u64,
}

#[cfg(all(test, not(larder_shuttle)))]
mod tests {
    use super::Latencies;
    use std::time::Duration;

    #[test]
    fn quantiles_are_upper_bounds_to_a_factor_of_two() {
        let latencies = Latencies::default();
        assert_eq!(latencies.quantile(0.5), Duration::ZERO);
        for micros in 1..=100 {
            latencies.note(micros);
        }
        assert_eq!(latencies.quantile(0.5), Duration::from_micros(64));
        assert_eq!(latencies.quantile(0.99), Duration::from_micros(128));
        latencies.note(u64::MAX);
        assert!(latencies.quantile(1.0) > Duration::from_secs(1));
    }
}
