//! When to load a value again before its time is up: one pure function of what an entry says, the time and a
//! draw.
//!
//! # Probabilistic early expiration
//! A reader at `left` before the deadline loads the value anew with the probability e^(-left / (δ·β)), where δ
//! is how long a load takes. (XFetch: Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede
//! Prevention", 2015.) So the sooner the deadline and the slower the load, the likelier; and caches that know
//! nothing of each other spread their loads: about e^(1/β) of them load for each expiry, however many
//! there are.
//!
//! Only the last 16·δ·β are looked at, and at most half the life: before that the probability is below 2 in ten
//! million. Where this window begins is the one moment that an entry's header keeps, so an ordinary hit looks at
//! nothing else. What is kept here (the window's length and δ) is in a side table.

use std::time::Duration;

use crate::util::clock::NEVER;

/// The window is so many times δ·β at most.
const REACH: f64 = 16.0;
/// Nanoseconds in a unit of a window: as deadlines are kept.
const WINDOW_UNIT: u64 = 20_000;
/// Nanoseconds in a unit of a window that is too long for [`WINDOW_UNIT`].
const COARSE_UNIT: u64 = 1_000 * WINDOW_UNIT;
/// Nanoseconds in a unit of δ.
const DELTA_UNIT: u64 = 1_000;

/// What an entry's value may be used for, as a [`get_with_freshness`](crate::Cache::get_with_freshness) says.
///
/// ```
/// use larder::{Cache, Freshness};
///
/// let cache = Cache::builder().max_capacity(100).build()?;
/// cache.insert("a", 1);
/// assert_eq!(cache.get_with_freshness("a"), Some((1, Freshness::Fresh)));
/// # Ok::<(), larder::BuildError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Freshness {
    /// It may be served, and there is no need to load it again.
    Fresh,
    /// It may be served, and whoever got this is the one to load it again before its time is up: a draw said
    /// so. A loading call would.
    Early,
    /// Its time is up, and it is kept for the stale windows
    /// ([`stale_while_revalidate`](crate::CacheBuilder::stale_while_revalidate),
    /// [`stale_if_error`](crate::CacheBuilder::stale_if_error)). For `get` it is absent.
    Stale {
        /// How long its time has been up.
        by: Duration,
    },
}

/// When to begin to think of loading an entry again. Nothing is kept for entries that nobody loaded.
///
/// One word, as every write carries it:
///
/// | bits | what |
/// |---|---|
/// | 0..32 | δ in microseconds, rounded up |
/// | 32..62 | from where the window begins to the deadline, rounded down, in units of |
/// | 62 | 20 ms, and not 20 µs: those reach 248 days, and these 6 hours |
/// | 63 | whether every read inside the window is due, and not only those that a draw elects |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Early(u64);

const LONGEST: u64 = (1 << 30) - 1;
const COARSE: u64 = 1 << 62;
const SURE: u64 = 1 << 63;

impl Early {
    /// Never early.
    pub(crate) const NEVER: Early = Early(0);

    /// Never, for an entry whose load took `delta` nanoseconds.
    pub(crate) fn measured(delta: u64) -> Early {
        Early(delta.div_ceil(DELTA_UNIT).min(u64::from(u32::MAX)))
    }

    /// For an entry whose load took `delta` nanoseconds, that lives `lifetime` nanoseconds (`None`: for ever), and that
    /// is to be loaded again from the age `refresh_after` on, if any: the window that begins first decides.
    pub(crate) fn new(
        delta: u64,
        beta: f64,
        refresh_after: Option<u64>,
        lifetime: Option<u64>,
    ) -> Early {
        let early = Early::measured(delta);
        let Some(lifetime) = lifetime else {
            return early;
        };
        let drawn = reach(early.delta(), beta).min(lifetime / 2);
        let sure = refresh_after.map_or(0, |after| lifetime.saturating_sub(after));
        if sure > drawn {
            early.surely(sure)
        } else {
            Early(window_of(drawn) | early.0)
        }
    }

    /// Keeps δ, and sets a window of this length before the deadline in which every read is due.
    pub(crate) fn surely(self, window: u64) -> Early {
        Early(SURE | window_of(window) | u64::from(self.0 as u32))
    }

    /// Whether every read inside the window is due.
    pub(crate) fn is_sure(self) -> bool {
        self.0 & SURE != 0
    }

    /// Whether the reader of the entry with `left` nanoseconds to its deadline, and a `draw` from 0.0 (excluded) to
    /// 1.0 (included), is to load it again.
    pub(crate) fn is_due(self, left: u64, beta: f64, draw: f64) -> bool {
        let begun = self.window() > 0 && left <= self.window();
        begun && (self.is_sure() || is_early(left, self.delta(), beta, draw))
    }

    /// δ in nanoseconds: at least what was measured.
    pub(crate) fn delta(self) -> u64 {
        u64::from(self.0 as u32) * DELTA_UNIT
    }

    /// Where the window begins before a deadline.
    #[inline]
    pub(crate) fn check_at(self, expires_at: u64) -> u64 {
        if expires_at == NEVER || self.0 >> 32 == 0 {
            expires_at
        } else {
            expires_at.saturating_sub(self.window())
        }
    }

    /// The length of the window in nanoseconds.
    #[inline]
    pub(crate) fn window(self) -> u64 {
        let unit = if self.0 & COARSE != 0 {
            COARSE_UNIT
        } else {
            WINDOW_UNIT
        };
        (self.0 >> 32 & LONGEST) * unit
    }
}

/// The bits of a window of so many nanoseconds.
fn window_of(nanos: u64) -> u64 {
    let fine = nanos / WINDOW_UNIT;
    if fine <= LONGEST {
        fine << 32
    } else {
        COARSE | (nanos / COARSE_UNIT).min(LONGEST) << 32
    }
}

/// For how long past its deadline a value may still be served, for each reason, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Windows {
    /// While another call loads it.
    pub(crate) while_revalidate: u64,
    /// Instead of a loader's error.
    pub(crate) if_error: u64,
}

impl Windows {
    /// For how long it is of any use.
    #[inline]
    pub(crate) fn longest(self) -> u64 {
        self.while_revalidate.max(self.if_error)
    }
}

/// What one entry says of its windows, in one word: that for errors above that for loads, each in milliseconds,
/// rounded down, plus one; zero is as the cache says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OwnWindows(u64);

impl OwnWindows {
    /// Both as the cache says.
    pub(crate) const NONE: OwnWindows = OwnWindows(0);

    pub(crate) fn while_revalidate(self, window: Duration) -> Self {
        OwnWindows(self.0 >> 32 << 32 | millis_and_one(window))
    }

    pub(crate) fn if_error(self, window: Duration) -> Self {
        OwnWindows(millis_and_one(window) << 32 | u64::from(self.0 as u32))
    }

    /// What they are, in a cache that says these.
    #[inline]
    pub(crate) fn or(self, cache: Windows) -> Windows {
        let of = |own: u64, cache| match own {
            0 => cache,
            own => (own - 1) * 1_000_000,
        };
        Windows {
            while_revalidate: of(u64::from(self.0 as u32), cache.while_revalidate),
            if_error: of(self.0 >> 32, cache.if_error),
        }
    }
}

fn millis_and_one(window: Duration) -> u64 {
    let millis = u32::try_from(window.as_millis()).unwrap_or(u32::MAX);
    u64::from(millis.saturating_add(1))
}

/// Why a value is served whose time is up.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StaleBy {
    /// Another call is loading it.
    Load,
    /// The loader failed.
    Error,
}

/// What is to be done with an entry before its deadline and after it. Most entries say nothing of it, which is seen
/// at one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RefreshPlan {
    pub(crate) early: Early,
    pub(crate) windows: OwnWindows,
}

impl RefreshPlan {
    pub(crate) const NONE: RefreshPlan = RefreshPlan {
        early: Early::NEVER,
        windows: OwnWindows::NONE,
    };
}

/// A value whose time is up, and which is of use yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stale {
    /// For how long its time has been up, in nanoseconds.
    pub(crate) by: u64,
    pub(crate) windows: Windows,
}

impl Stale {
    /// Whether it may be served for this reason.
    pub(crate) fn serves(self, why: StaleBy) -> bool {
        self.by
            < match why {
                StaleBy::Load => self.windows.while_revalidate,
                StaleBy::Error => self.windows.if_error,
            }
    }
}

/// δ after a load that took `sample`, where it was `before` (zero: unknown). One slow load among many moves it by
/// a quarter of the difference.
pub(crate) fn smoothed(before: u64, sample: u64) -> u64 {
    if before == 0 {
        sample
    } else {
        before - before / 4 + sample / 4
    }
}

/// How long before the deadline draws begin.
fn reach(delta: u64, beta: f64) -> u64 {
    // Casts from floats saturate, and NaN (there is none) would be zero.
    (REACH * beta * delta as f64) as u64
}

/// Whether a value is to be loaded again with `left` nanoseconds to its deadline, δ and β as the module says, and
/// a `draw` from 0.0 (excluded) to 1.0 (included).
fn is_early(left: u64, delta: u64, beta: f64, draw: f64) -> bool {
    // now - δ·β·ln(draw) ≥ deadline
    delta > 0 && beta > 0.0 && -(delta as f64) * beta * draw.ln() >= left as f64
}

#[cfg(all(test, not(larder_shuttle)))]
mod tests {
    use super::*;

    const MILLI: u64 = 1_000_000;
    const SECOND: u64 = 1_000 * MILLI;

    #[test]
    fn one_function_by_tables() {
        let table = [
            // left, δ, β, draw, early
            (0, 10 * MILLI, 1.0, 1.0, true),
            (1, 10 * MILLI, 1.0, 1.0, false),
            (10 * MILLI, 10 * MILLI, 1.0, 0.36, true),
            (10 * MILLI, 10 * MILLI, 1.0, 0.37, false),
            (20 * MILLI, 10 * MILLI, 2.0, 0.36, true),
            (20 * MILLI, 10 * MILLI, 1.0, 0.36, false),
            (160 * MILLI, 10 * MILLI, 1.0, 1e-7, true),
            (160 * MILLI, 10 * MILLI, 1.0, 2e-7, false),
            // Without δ or without β never, whatever is drawn.
            (1, 0, 1.0, f64::MIN_POSITIVE, false),
            (0, 0, 1.0, 1.0, false),
            (1, SECOND, 0.0, f64::MIN_POSITIVE, false),
            (u64::MAX, u64::MAX, f64::MAX, 0.5, true),
        ];
        for (left, delta, beta, draw, early) in table {
            let judged = is_early(left, delta, beta, draw);
            assert_eq!(judged, early, "{left} {delta} {beta} {draw}");
        }
    }

    #[test]
    fn a_window_is_sixteen_deltas_and_at_most_half_the_life() {
        let table = [
            // δ, β, life, window, δ kept
            (10 * MILLI, 1.0, Some(SECOND), 160 * MILLI, 10 * MILLI),
            (10 * MILLI, 2.0, Some(SECOND), 320 * MILLI, 10 * MILLI),
            (SECOND, 1.0, Some(SECOND), SECOND / 2, SECOND),
            (10 * MILLI, 1.0, None, 0, 10 * MILLI),
            (10 * MILLI, 0.0, Some(SECOND), 0, 10 * MILLI),
            (0, 1.0, Some(SECOND), 0, 0),
            // Rounded up, so that a fast load is not one that takes no time.
            (1, 1.0, Some(SECOND), 0, 1_000),
            (1_001, 1.0, Some(SECOND), 20_000, 2_000),
            // What does not fit: 71 minutes, a day.
            (
                u64::MAX,
                1.0,
                Some(1 << 60),
                68_719_460_000_000,
                4_294_967_295_000,
            ),
            (
                4_000 * SECOND,
                9.0,
                Some(1 << 60),
                576_000 * SECOND,
                4_000 * SECOND,
            ),
        ];
        for (delta, beta, lifetime, window, kept) in table {
            let early = Early::new(delta, beta, None, lifetime);
            let text = format!("{delta} {beta} {lifetime:?}");
            assert_eq!((early.window(), early.delta()), (window, kept), "{text}");
        }
        assert_eq!(size_of::<Early>(), 8);
        assert_eq!(Early::new(0, 1.0, None, Some(SECOND)), Early::NEVER);
    }

    #[test]
    fn from_an_age_on_every_read_is_due_and_before_it_draws_decide() {
        let (never, surely) = (1.0, f64::MIN_POSITIVE);
        let (s, hour) = (SECOND, 3_600 * SECOND);
        let table = [
            // δ, β, refresh after, life, left, draw, due
            (0, 0.0, Some(s), 3 * s, 2 * s + 1, surely, false),
            (0, 0.0, Some(s), 3 * s, 2 * s, never, true),
            (0, 0.0, Some(s), 3 * s, 1, never, true),
            (0, 0.0, Some(0), 3 * s, 3 * s, never, true),
            // An age that no value reaches.
            (0, 0.0, Some(3 * s), 3 * s, 1, surely, false),
            (0, 0.0, Some(u64::MAX), 3 * s, 1, surely, false),
            // Beside draws: whichever window begins first decides, and draws get half the life at most.
            (MILLI, 1.0, Some(s), 3 * s, s, never, true),
            (s, 1.0, Some(2 * s), 3 * s, s / 2, never, false),
            (s, 1.0, Some(2 * s), 3 * s, s / 2, 0.5, true),
            (s, 0.125, Some(s), 3 * s, 2 * s, never, true),
            // Long lives.
            (0, 0.0, Some(hour), 48 * hour, 47 * hour + s, never, false),
            (0, 0.0, Some(hour), 48 * hour, 47 * hour, never, true),
            (0, 0.0, Some(hour), 5_000 * hour, 4_998 * hour, never, true),
        ];
        for (delta, beta, after, lifetime, left, draw, due) in table {
            let early = Early::new(delta, beta, after, Some(lifetime));
            let text = format!("{delta} {beta} {after:?} {left} {draw}");
            assert_eq!(early.is_due(left, beta, draw), due, "{text}");
        }
        assert_eq!(Early::new(0, 0.0, Some(SECOND), None), Early::NEVER);
    }

    #[test]
    fn an_entrys_windows_are_its_own_or_the_caches() {
        let cache = Windows {
            while_revalidate: 7,
            if_error: 9 * SECOND + 1,
        };
        assert_eq!(OwnWindows::NONE.or(cache), cache);
        let own = OwnWindows::NONE.while_revalidate(Duration::from_micros(2_999));
        let both = Windows {
            while_revalidate: 2 * MILLI,
            ..cache
        };
        assert_eq!(own.or(cache), both);
        // None at all is another thing than nothing said; what does not fit is 49 days.
        let none = own.if_error(Duration::ZERO).while_revalidate(Duration::MAX);
        let days = u64::from(u32::MAX - 1) * MILLI;
        let (while_revalidate, if_error) = (days, 0);
        let odd = Windows {
            while_revalidate,
            if_error,
        };
        assert_eq!((none.or(cache), odd.longest()), (odd, days));
        assert_eq!(size_of::<OwnWindows>(), 8);
    }

    #[test]
    fn one_slow_load_does_not_move_delta_by_much() {
        assert_eq!(smoothed(0, 8), 8);
        assert_eq!(smoothed(100, 200), 125);
        assert_eq!(smoothed(100, 100), 100);
        let settled = (0..40).fold(SECOND, |delta, _| smoothed(delta, MILLI));
        assert!(settled < 2 * MILLI, "{settled}");
    }

    /// Numbers like those of `rand`, from a seed.
    struct Draws(u64);

    impl Draws {
        fn next(&mut self) -> f64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            let x = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D);
            1.0 - (x >> 11) as f64 / (1_u64 << 53) as f64
        }
    }

    /// Sixteen bins of the window: how far what was drawn is from the exponential, as a chi-square.
    fn chi_square(check: impl Fn(u64, f64) -> bool) -> f64 {
        const DRAWS: u32 = 100_000;
        let mut draws = Draws(0x9E37_79B9_7F4A_7C15);
        let mut sum = 0.0;
        for bin in 0..8 {
            let left = 10 * MILLI * bin / 2;
            let early = (0..DRAWS / 8).filter(|_| check(left, draws.next()));
            let (n, seen) = (f64::from(DRAWS / 8), early.count() as f64);
            let p = (-(left as f64) / (10 * MILLI) as f64).exp();
            if bin == 0 {
                assert_eq!(seen, n, "at the deadline everybody is early");
            } else {
                let expected = n * p;
                sum += (seen - expected).powi(2) / (expected * (1.0 - p));
            }
        }
        sum
    }

    #[test]
    fn refreshes_come_with_the_probability_that_was_promised() {
        // Seven degrees of freedom: above 24.3 once in a thousand.
        let honest = chi_square(|left, draw| is_early(left, 10 * MILLI, 1.0, draw));
        assert!(honest < 24.3, "chi-square {honest}");
        // What this must catch: δ off by a twentieth, a uniform law, a draw that is never one.
        let longer = chi_square(|left, draw| is_early(left, 10_500_000, 1.0, draw));
        assert!(longer > 24.3, "a δ off by 5 % passed: {longer}");
        let uniform = chi_square(|left, draw| draw > left as f64 / (40 * MILLI) as f64);
        assert!(uniform > 24.3, "another law passed: {uniform}");
    }

    /// How many of `processes` caches that know nothing of each other load for one expiry, if one of them is
    /// asked every `gap` and a load takes δ, after which all have the new value.
    fn loads_an_expiry(beta: f64, gap: u64, draws: &mut Draws) -> u32 {
        let (ttl, delta) = (10 * SECOND, 10 * MILLI);
        let early = Early::new(delta, beta, None, Some(ttl));
        let (mut now, mut loads, mut done) = (ttl - early.window(), 0, u64::MAX);
        while now < done {
            let left = ttl.saturating_sub(now);
            if left == 0 || early.is_due(left, beta, draws.next()) {
                loads += 1;
                done = done.min(now + delta);
            }
            now += gap;
        }
        loads
    }

    #[test]
    fn processes_that_know_nothing_of_each_other_load_a_few_times_and_not_all() {
        let mut draws = Draws(0x2545_F491_4F6C_DD1D);
        for beta in [0.5, 1.0, 2.0] {
            // Asked 100 and 1,000 times while one load runs.
            for gap in [MILLI / 10, MILLI / 100] {
                const EXPIRIES: u32 = 2_000;
                let loads: u32 = (0..EXPIRIES)
                    .map(|_| loads_an_expiry(beta, gap, &mut draws))
                    .sum();
                let (mean, expected) = (f64::from(loads) / f64::from(EXPIRIES), (1.0 / beta).exp());
                // The law holds in the limit of many askers; at a hundred a load it is within a tenth.
                let near = (mean / expected - 1.0).abs() < 0.1;
                assert!(near, "β {beta}: {mean} loads an expiry, not {expected}");
            }
        }
    }
}
