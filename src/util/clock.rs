//! Time as a value: the [`Clock`] a cache reads, the [`ManualClock`] that tests turn by hand, and
//! the crate-private [`Now`], one call's view of the time.
//!
//! Moments are nanoseconds (`u64`) on a clock of the cache's own; they are compared with each other
//! and with nothing else. This file alone may ask the operating system for the time.
//!
//! # Invariants
//! * A clock never runs backwards.
//! * A coarse reading is never ahead of a precise one, and at most [`Clock::coarse_error`] behind (that of
//!   [`Clock::ticking`] as long as its thread gets to run).
//!   A deadline at or before a coarse reading has therefore passed; one further ahead than the error
//!   has not; only in between is the precise clock asked.
//!
//! # Cost
//! A coarse reading costs about 6 ns on Linux, or two loads where a thread writes the time down; a precise
//! one about 40 ns.

use std::time::Duration;

use crate::util::sync::atomic::{AtomicU64, Ordering};
use crate::util::sync::{Arc, Weak};

/// The moment that never comes.
pub(crate) const NEVER: u64 = u64::MAX;

/// Where a cache reads the time: the machine's monotonic clock, read at each call or stored by a thread at intervals,
/// or a [`ManualClock`] in tests.
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
    Ticking(Arc<Ticker>),
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

    /// The machine's monotonic clock, written down every so often (between a tenth of a millisecond and an hour) by a
    /// thread of its own, so that a hit need not ask the kernel: it takes two loads instead of some 75 instructions.
    /// One such clock can serve many caches; the thread ends once it wakes after the last clone of the clock is gone.
    ///
    /// **The price is a promise.** With [`Clock::system`] nothing is served at or after its deadline. With this
    /// clock that holds while the thread gets to run at least once in five times `every` (or in 20 ms, if that is
    /// longer): otherwise (the machine is overloaded, or the process was stopped a moment ago) a value may be served
    /// for as long past its deadline as the thread comes late. A forked child has no such thread, and no such clock.
    ///
    /// # Errors
    /// The operating system's, if the thread cannot be started.
    ///
    /// ```
    /// use larder::{Cache, Clock};
    /// use std::time::Duration;
    ///
    /// let clock = Clock::ticking(Duration::from_millis(1))?;
    /// let cache = Cache::builder()
    ///     .max_capacity(100)
    ///     .time_to_live(Duration::from_secs(60))
    ///     .clock(clock)
    ///     .build()?;
    /// cache.insert("a", 1);
    /// assert_eq!(cache.get("a"), Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ticking(every: Duration) -> std::io::Result<Self> {
        let every = every.clamp(Ticker::SHORTEST, Ticker::LONGEST);
        let ticker = Arc::new(Ticker {
            seen: AtomicU64::new(system::precise()),
            error: nanos(every).saturating_mul(5).max(Ticker::LEAST_ERROR),
        });
        let weak = Arc::downgrade(&ticker);
        std::thread::Builder::new()
            .name("larder-clock".to_owned())
            .spawn(move || tick(&weak, every))?;
        Ok(Clock(Source::Ticking(ticker)))
    }

    /// The exact time.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        readings::count();
        match &self.0 {
            Source::System { .. } | Source::Ticking(_) => system::precise(),
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
            Source::System { .. } | Source::Ticking(_) => std::time::SystemTime::now()
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
            Source::Ticking(ticker) => ticker.seen(),
            Source::Manual(nanos) => nanos.load(Ordering::Acquire),
        }
    }

    /// A cheap reading that the time is surely not past.
    #[inline]
    pub(crate) fn at_latest(&self) -> u64 {
        match &self.0 {
            // Centuries below the end of the numbers.
            Source::System { coarse_error } => system::coarse().wrapping_add(*coarse_error),
            Source::Ticking(ticker) => ticker.seen().wrapping_add(ticker.error),
            Source::Manual(nanos) => nanos.load(Ordering::Acquire),
        }
    }

    /// How far a coarse reading can lag, in nanoseconds.
    #[inline]
    pub(crate) fn coarse_error(&self) -> u64 {
        match &self.0 {
            Source::System { coarse_error } => *coarse_error,
            Source::Ticking(ticker) => ticker.error,
            Source::Manual(_) => 0,
        }
    }

    /// The longest that a thread may park before it looks at this clock again. A manual clock wakes
    /// nobody, so its waiters look often.
    pub(crate) fn longest_park(&self) -> Duration {
        match &self.0 {
            Source::System { .. } | Source::Ticking(_) => Duration::from_secs(3600),
            Source::Manual(_) => Duration::from_millis(2),
        }
    }
}

/// The time as a thread writes it down.
#[derive(Debug)]
struct Ticker {
    seen: AtomicU64,
    /// How far behind that is at most, as long as the thread gets to run.
    error: u64,
}

impl Ticker {
    const SHORTEST: Duration = Duration::from_micros(100);
    const LONGEST: Duration = Duration::from_secs(3600);
    const LEAST_ERROR: u64 = 20_000_000;

    #[inline]
    fn seen(&self) -> u64 {
        // Relaxed: the time orders nothing.
        self.seen.load(Ordering::Relaxed)
    }
}

/// What the thread of a ticking clock does, until nobody has the clock any more.
fn tick(ticker: &Weak<Ticker>, every: Duration) {
    while let Some(ticker) = ticker.upgrade() {
        // Relaxed: see `seen`. Nobody else writes, so the time does not run backwards.
        ticker.seen.store(system::precise(), Ordering::Relaxed);
        drop(ticker);
        #[allow(
            clippy::disallowed_methods,
            reason = "this thread has nothing else to do"
        )]
        std::thread::sleep(every);
    }
}

impl Default for Clock {
    fn default() -> Self {
        Clock::system()
    }
}

/// A clock that moves only when a test moves it: for testing code that depends on expiry.
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
    /// A clock at an arbitrary moment.
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
    #[inline(never)]
    pub(crate) fn precise(&mut self) -> u64 {
        if !self.exact {
            (self.seen, self.exact) = (self.clock.now(), true);
        }
        self.seen
    }

    /// The moment `after` nanoseconds from now, from the coarse clock where its lag is under one percent of
    /// `after`: a deadline is never late, and early by at most that.
    #[inline(always)]
    pub(crate) fn deadline(&mut self, after: u64) -> u64 {
        let now = if self.clock.coarse_error().saturating_mul(100) <= after {
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
    fn a_ticking_clock_is_never_ahead_and_goes_on() {
        let clock = Clock::ticking(Duration::ZERO).expect("a thread");
        let (mut before, first) = (0, clock.coarse());
        while clock.coarse() < first + 3_000_000 {
            let (coarse, exact) = (clock.coarse(), clock.now());
            assert!(
                before <= coarse && coarse <= exact,
                "{before} {coarse} {exact}"
            );
            assert_eq!(clock.coarse_error(), 20_000_000);
            assert!(clock.at_latest() >= coarse + 20_000_000);
            before = coarse;
        }
        let slow = Clock::ticking(Duration::MAX).expect("a thread");
        assert_eq!(slow.coarse_error(), 5 * 3_600_000_000_000);
        assert!(slow.at_latest() > slow.now());
        let mut now = Now::new(&slow);
        assert!(now.deadline(1) > slow.coarse() && now.deadline(NEVER) == NEVER);
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
