//! Time as a value: the [`Clock`] a cache reads, the [`ManualClock`] that tests turn by hand, and
//! the crate-private [`Now`], one call's view of the time.
//!
//! Moments are nanoseconds (`u64`) on a clock of the cache's own; they are compared with each other
//! and with nothing else. This file alone may ask the operating system for the time.
//!
//! # Invariants
//! * A clock never runs backwards.
//! * A coarse reading is never ahead of a precise one, and at most [`Clock::coarse_error`] behind.
//!   A deadline at or before a coarse reading has therefore passed; one further ahead than the error
//!   has not; only in between is the precise clock asked.
//!
//! # Cost
//! A coarse reading costs about 6 ns on Linux, a precise one about 40 ns.

use std::time::Duration;

use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};

/// The moment that never comes.
pub(crate) const NEVER: u64 = u64::MAX;

/// Where a cache reads the time: the machine's monotonic clock, or a [`ManualClock`] in tests.
///
/// The machine's clock does not count the time that the machine spends suspended.
///
/// ```
/// use larder::{Cache, Clock};
///
/// let cache: Cache<u64, u64> = Cache::builder().max_capacity(100).clock(Clock::system()).build()?;
/// # Ok::<(), larder::BuildError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { coarse_error: u64 },
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's monotonic clock. This is what a cache uses unless told otherwise.
    ///
    /// ```
    /// let clock = larder::Clock::system();
    /// # let _ = clock;
    /// ```
    pub fn system() -> Self {
        Clock(Source::System {
            coarse_error: system::coarse_error(),
        })
    }

    /// The exact time.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        readings::count();
        match &self.0 {
            Source::System { .. } => system::precise(),
            // Acquire pairs with the Release in `ManualClock::advance`: who sees the new time also
            // sees what its thread did before turning the clock.
            Source::Manual(nanos) => nanos.load(Ordering::Acquire),
        }
    }

    /// The time of day in milliseconds since 1970, for what other machines have to understand. A manual clock counts
    /// from 2020 on.
    #[cfg(feature = "tiered")]
    #[allow(
        clippy::disallowed_methods,
        reason = "no other clock is shared with other machines"
    )]
    pub(crate) fn unix_millis(&self) -> u64 {
        let since_1970 = match &self.0 {
            Source::System { .. } => std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap_or_default(),
            Source::Manual(nanos) => {
                let epoch = Duration::from_secs(1_577_836_800);
                epoch + Duration::from_nanos(nanos.load(Ordering::Acquire))
            }
        };
        u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
    }

    /// A cheap reading, at most [`coarse_error`](Self::coarse_error) behind the exact time.
    #[inline]
    pub(crate) fn coarse(&self) -> u64 {
        match &self.0 {
            Source::System { .. } => system::coarse(),
            Source::Manual(nanos) => nanos.load(Ordering::Acquire),
        }
    }

    /// A cheap reading that the time is surely not past.
    #[inline]
    pub(crate) fn at_latest(&self) -> u64 {
        match &self.0 {
            Source::System { coarse_error } => system::coarse().saturating_add(*coarse_error),
            Source::Manual(nanos) => nanos.load(Ordering::Acquire),
        }
    }

    /// How far a coarse reading can lag, in nanoseconds.
    #[inline]
    pub(crate) fn coarse_error(&self) -> u64 {
        match &self.0 {
            Source::System { coarse_error } => *coarse_error,
            Source::Manual(_) => 0,
        }
    }

    /// The longest that a thread may park before it looks at this clock again. A manual clock wakes
    /// nobody, so its waiters look often.
    pub(crate) fn longest_park(&self) -> Duration {
        match &self.0 {
            Source::System { .. } => Duration::from_secs(3600),
            Source::Manual(_) => Duration::from_millis(2),
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Clock::system()
    }
}

/// A clock that stands still until it is told to move: for testing code that depends on expiry.
///
/// Clones share one time.
///
/// ```
/// use larder::{Cache, ManualClock};
/// use std::time::Duration;
///
/// let time = ManualClock::new();
/// let cache = Cache::builder()
///     .max_capacity(100)
///     .time_to_live(Duration::from_secs(60))
///     .clock(time.clock())
///     .build()?;
/// cache.insert("a", 1);
/// time.advance(Duration::from_secs(59));
/// assert_eq!(cache.get("a"), Some(1));
/// time.advance(Duration::from_secs(1));
/// assert_eq!(cache.get("a"), None);
/// # Ok::<(), larder::BuildError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock that stands at an arbitrary moment.
    ///
    /// ```
    /// let time = larder::ManualClock::new();
    /// # let _ = time;
    /// ```
    pub fn new() -> Self {
        ManualClock(Arc::new(AtomicU64::new(1_000_000_000)))
    }

    /// Moves the time forward. The clock stops short of its end, about 584 years ahead.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let time = larder::ManualClock::new();
    /// time.advance(Duration::from_millis(1));
    /// ```
    pub fn advance(&self, by: Duration) {
        let by = nanos(by);
        // AcqRel: the Release half publishes what this thread did before (see `Clock::now`).
        let _ = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |at| {
                Some(at.saturating_add(by).min(NEVER - 1))
            });
    }

    /// The clock to hand to [`CacheBuilder::clock`](crate::CacheBuilder::clock).
    ///
    /// ```
    /// let clock: larder::Clock = larder::ManualClock::new().clock();
    /// # let _ = clock;
    /// ```
    pub fn clock(&self) -> Clock {
        Clock(Source::Manual(Arc::clone(&self.0)))
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        ManualClock::new()
    }
}

/// The time as one call sees it: read at the first question (so after the lock was taken, which keeps
/// readings in the order of the critical sections), coarse if that decides, precise if it must.
#[derive(Debug)]
pub(crate) struct Now<'a> {
    clock: &'a Clock,
    /// The last reading, 0 before the first.
    seen: u64,
    /// Whether that was a precise one.
    exact: bool,
}

impl<'a> Now<'a> {
    #[inline]
    pub(crate) fn new(clock: &'a Clock) -> Self {
        Now {
            clock,
            seen: 0,
            exact: false,
        }
    }

    /// Whether `deadline` has come. Exact, whatever clock it took to find out.
    #[inline]
    pub(crate) fn has_reached(&mut self, deadline: u64) -> bool {
        if deadline == NEVER {
            return false;
        }
        let coarse = self.coarse();
        if coarse >= deadline {
            return true;
        }
        if deadline - coarse > self.clock.coarse_error() {
            return false;
        }
        self.precise() >= deadline
    }

    /// A reading that is never ahead of the time, for work that may come a tick late.
    #[inline]
    pub(crate) fn coarse(&mut self) -> u64 {
        if self.seen == 0 {
            self.seen = self.clock.coarse();
        }
        self.seen
    }

    /// A reading that the time is surely not past.
    #[inline]
    pub(crate) fn at_latest(&mut self) -> u64 {
        self.coarse().saturating_add(self.clock.coarse_error())
    }

    /// The exact time.
    #[inline]
    pub(crate) fn precise(&mut self) -> u64 {
        if !self.exact {
            (self.seen, self.exact) = (self.clock.now(), true);
        }
        self.seen
    }

    /// The moment `after` nanoseconds from now, from the coarse clock where its lag is under one percent of
    /// `after`: a deadline is never late, and early by at most that.
    #[inline]
    pub(crate) fn deadline(&mut self, after: u64) -> u64 {
        let lag = self.clock.coarse_error();
        let now = if lag <= after / 100 {
            self.coarse()
        } else {
            self.precise()
        };
        now.saturating_add(after)
    }
}

/// How often the calling thread has read a clock precisely; 0 in release builds.
pub(crate) fn precise_readings() -> u64 {
    readings::current()
}

#[cfg(debug_assertions)]
mod readings {
    use std::cell::Cell;

    thread_local! {
        static READINGS: Cell<u64> = const { Cell::new(0) };
    }

    pub(super) fn count() {
        READINGS.with(|readings| readings.set(readings.get() + 1));
    }

    pub(super) fn current() -> u64 {
        READINGS.with(Cell::get)
    }
}

#[cfg(not(debug_assertions))]
mod readings {
    #[inline]
    pub(super) fn count() {}

    pub(super) fn current() -> u64 {
        0
    }
}

/// A duration in nanoseconds; from 584 years on it saturates, which reads as "never".
#[inline]
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(target_os = "linux")]
mod system {
    //! The kernel's monotonic clock, read through the vDSO.

    #[inline]
    fn read(clock: libc::clockid_t) -> u64 {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: `time` is a valid, writable timespec for the whole call, which writes only to it.
        // The clocks asked for exist on every Linux since 2.6.32, so the call cannot fail; if it
        // did, `time` would still hold the zeroes above.
        let _ = unsafe { libc::clock_gettime(clock, &mut time) };
        (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
    }

    #[inline]
    pub(super) fn precise() -> u64 {
        read(libc::CLOCK_MONOTONIC)
    }

    #[inline]
    pub(super) fn coarse() -> u64 {
        read(libc::CLOCK_MONOTONIC_COARSE)
    }

    pub(super) fn coarse_error() -> u64 {
        let mut tick = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: as in `read`: the call writes one timespec through a valid pointer.
        let failed = unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &mut tick) } != 0;
        let tick = (tick.tv_sec as u64) * 1_000_000_000 + tick.tv_nsec as u64;
        // A tick that comes late makes the coarse clock lag more than one tick, and a virtual machine's host
        // can hold one back while other processors run on: allow five.
        if failed || tick == 0 {
            50_000_000
        } else {
            5 * tick
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    //! Elsewhere std's monotonic clock serves for both readings.

    use std::sync::OnceLock;
    use std::time::Instant;

    #[allow(clippy::disallowed_methods)]
    pub(super) fn precise() -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        super::nanos(START.get_or_init(Instant::now).elapsed()).saturating_add(1)
    }

    pub(super) fn coarse() -> u64 {
        precise()
    }

    pub(super) fn coarse_error() -> u64 {
        0
    }
}

#[cfg(all(test, not(larder_shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn coarse_is_behind_precise_and_within_its_error() {
        let clock = Clock::system();
        for _ in 0..100_000 {
            let before = clock.now();
            let coarse = clock.coarse();
            let after = clock.now();
            assert!(coarse <= after, "the coarse clock is ahead");
            assert!(
                before - coarse.min(before) <= clock.coarse_error(),
                "the coarse clock lags {} ns, more than its stated error",
                before - coarse
            );
        }
    }

    #[test]
    fn deadlines_saturate_instead_of_overflowing() {
        let clock = Clock::system();
        let mut now = Now::new(&clock);
        assert_eq!(now.deadline(NEVER), NEVER);
        assert!(!now.has_reached(NEVER));
        let at = now.deadline(0);
        assert!(now.has_reached(at));
    }
}
