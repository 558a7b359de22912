//! What the connection counts, and the snapshot of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::tier::contract::{FlushCause, ServerErrorKind, TierError};
use crate::tier::counters::{TieredStats, add, read};
use crate::util::sync::Mutex;

/// Counters, and the last error of a connection. All Relaxed: each is true by itself, and nothing depends on their
/// order.
#[derive(Default)]
pub struct ConnectionCounters {
    broadcast: bool,
    staleness_bound: Duration,
    pushes: AtomicU64,
    changes: AtomicU64,
    reads: AtomicU64,
    commands: AtomicU64,
    dials: AtomicU64,
    time_outs: AtomicU64,
    breaker_openings: AtomicU64,
    breaker_open: AtomicBool,
    retries: AtomicU64,
    flushes: [AtomicU64; FlushCause::ALL.len()],
    server_errors: [AtomicU64; ServerErrorKind::ALL.len()],
    latencies: Latencies,
    last_error: Mutex<Option<TierError>>,
}

impl std::fmt::Debug for ConnectionCounters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.snapshot().fmt(f)
    }
}

impl ConnectionCounters {
    /// The counters of a connection whose silence is noticed after this time, at the latest.
    #[must_use]
    pub fn new(broadcast: bool, staleness_bound: Duration) -> Self {
        ConnectionCounters {
            broadcast,
            staleness_bound,
            ..ConnectionCounters::default()
        }
    }

    pub(super) fn pushed(&self) {
        add(&self.pushes, 1);
    }

    pub(super) fn changed(&self, keys: u64) {
        add(&self.changes, keys);
    }

    pub(super) fn reads(&self) {
        add(&self.reads, 1);
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

    pub(super) fn set_retries(&self, commands: u64) {
        self.retries.store(commands, Ordering::Relaxed);
    }

    pub(super) fn flushed(&self, cause: FlushCause) {
        add(&self.flushes[cause as usize], 1);
    }

    pub(super) fn server_error(&self, kind: ServerErrorKind) {
        add(&self.server_errors[kind as usize], 1);
    }

    pub(super) fn took(&self, nanos: u64) {
        self.latencies.note(nanos / 1_000);
    }

    /// A connection was lost, or not made.
    pub(super) fn connection_failed(&self, error: &TierError) {
        if let TierError::Refused { kind, .. } = error {
            self.server_error(*kind);
        }
        let before = self.last_error.lock().replace(error.clone());
        drop(before);
    }

    /// All of them now.
    #[must_use]
    pub fn snapshot(&self) -> RedisStats {
        let counts = |counters: &[AtomicU64]| counters.iter().map(read).collect::<Vec<_>>();
        RedisStats {
            broadcast: self.broadcast,
            staleness_bound: self.staleness_bound,
            pushes: read(&self.pushes),
            changes: read(&self.changes),
            reads: read(&self.reads),
            commands: read(&self.commands),
            dials: read(&self.dials),
            time_outs: read(&self.time_outs),
            breaker_openings: read(&self.breaker_openings),
            breaker_open: self.breaker_open.load(Ordering::Relaxed),
            retries: read(&self.retries),
            flushes: FlushCause::ALL
                .into_iter()
                .zip(counts(&self.flushes))
                .collect(),
            server_errors: ServerErrorKind::ALL
                .into_iter()
                .zip(counts(&self.server_errors))
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

/// What a connection has seen since it was made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RedisStats {
    /// Whether the server announces everything under the prefix.
    pub broadcast: bool,
    /// How old a copy may be served while nothing is heard of the server: the heartbeat and the timeout together. While
    /// it is heard of, a copy is out of date only for as long as a message is under way; and never for longer than the
    /// L1's time to live.
    pub staleness_bound: Duration,
    /// Messages about changes.
    pub pushes: u64,
    /// Keys and versions that they named. [`TieredStats::useful_pushes`] says of how many there was a copy.
    pub changes: u64,
    /// Requests that read.
    pub reads: u64,
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
    /// Commands that will make up for writes that were lost or refused: before the next connection is used, or with the
    /// next heartbeat.
    pub retries: u64,
    /// How often everything was flushed, by cause.
    pub flushes: Vec<(FlushCause, u64)>,
    /// Errors that the server answered with, by kind.
    pub server_errors: Vec<(ServerErrorKind, u64)>,
    /// The median time to an answer, to a factor of two, rounded up. Zero before the first.
    pub latency_p50: Duration,
    /// The time within which 99 of 100 answers came, to a factor of two, rounded up. Zero before the first.
    pub latency_p99: Duration,
    /// Why a connection was last lost, or not made.
    pub last_error: Option<Arc<str>>,
}

/// Which way of tracking would serve better than the one that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrackingAdvice {
    /// [`broadcast`](super::RedisBuilder::broadcast): there are few changes among many reads, so the server remembers
    /// for each key who has read it, and hardly ever needs that.
    Broadcast,
    /// Without `broadcast`: nearly all that is announced is about keys of which there is no copy here.
    Default,
}

impl RedisStats {
    /// Whether the other way of tracking would serve this process better, by what it has seen so far; `None` if not, or
    /// if it has not seen enough yet (ten thousand reads or announcements).
    ///
    /// ```
    /// use larder::tier::{Tiered, redis::Redis};
    ///
    /// let redis = Redis::connect("redis://127.0.0.1:1")?;
    /// let watch = redis.stats_handle();
    /// let cache: Tiered<String, u64> = Tiered::builder(redis).max_capacity(100).build()?;
    /// assert_eq!(watch.stats().advice(&cache.tiered_stats()), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn advice(&self, tiered: &TieredStats) -> Option<TrackingAdvice> {
        const ENOUGH: u64 = 10_000;
        const RARELY: u64 = 20;
        if self.broadcast {
            let idle = tiered.useful_pushes.saturating_mul(RARELY) < self.changes;
            return (self.changes >= ENOUGH && idle).then_some(TrackingAdvice::Default);
        }
        let quiet = self.changes.saturating_mul(RARELY) < self.reads;
        (self.reads >= ENOUGH && quiet).then_some(TrackingAdvice::Broadcast)
    }
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

#[cfg(all(test, not(larder_shuttle)))]
mod tests {
    use super::{ConnectionCounters, Latencies, TrackingAdvice, add};
    use crate::tier::counters::TieredCounters;
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
    #[test]
    fn advice_follows_what_was_seen() {
        let advice = |broadcast, reads, changes, useful| {
            let link = ConnectionCounters::new(broadcast, Duration::ZERO);
            let tiered = TieredCounters::default();
            add(&link.reads, reads);
            add(&link.changes, changes);
            add(&tiered.useful_pushes, useful);
            link.snapshot().advice(&tiered.snapshot())
        };
        assert_eq!(advice(false, 9_999, 0, 0), None, "too early");
        assert_eq!(
            advice(false, 10_000, 10, 10),
            Some(TrackingAdvice::Broadcast)
        );
        assert_eq!(advice(false, 10_000, 5_000, 5_000), None);
        assert_eq!(
            advice(true, 10_000, 10_000, 10),
            Some(TrackingAdvice::Default)
        );
        assert_eq!(advice(true, 10_000, 10_000, 9_000), None);
    }
}
