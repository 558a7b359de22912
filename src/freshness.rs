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
//! million. Where this window begins is the one moment that an entry's stamp keeps, so an ordinary hit looks at
//! nothing else. What stands here (the window's length and δ) lies beside the slot.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::time::NEVER;

/// The window is so many times δ·β at most.
const REACH: f64 = 16.0;
/// Nanoseconds in a unit of a window: as deadlines are kept.
const WINDOW_UNIT: u64 = 20_000;
/// Nanoseconds in a unit of δ.
const DELTA_UNIT: u64 = 1_000;

/// What an entry's value may be used for, as a [`lookup`](crate::Cache::lookup) says.
///
/// ```
/// use larder::{Cache, Freshness};
///
/// let cache = Cache::builder().max_capacity(100).build()?;
/// cache.insert("a", 1);
/// assert_eq!(cache.lookup("a"), Some((1, Freshness::Fresh)));
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Early {
    /// From where the window begins to the deadline, in units of 20 µs.
    window: u32,
    /// δ in microseconds, rounded up; `None` is zero.
    delta: Option<NonZeroU32>,
}

impl Early {
    /// Never early.
    pub(crate) const NEVER: Early = Early {
        window: 0,
        delta: None,
    };

    /// For an entry whose load took `delta` nanoseconds and that lives `life` nanoseconds (`None`: for ever).
    pub(crate) fn new(delta: u64, beta: f64, life: Option<u64>) -> Early {
        let delta = delta.div_ceil(DELTA_UNIT).min(u64::from(u32::MAX)) as u32;
        let early = Early {
            window: 0,
            delta: NonZeroU32::new(delta),
        };
        early.for_life(beta, life)
    }

    /// The same for another life.
    pub(crate) fn for_life(self, beta: f64, life: Option<u64>) -> Early {
        let window = match life {
            // Casts from floats saturate, and NaN (there is none) would be zero.
            Some(life) => ((REACH * beta * self.delta() as f64) as u64).min(life / 2),
            None => 0,
        };
        let window = (window / WINDOW_UNIT).min(u64::from(u32::MAX)) as u32;
        Early { window, ..self }
    }

    /// δ in nanoseconds: at least what was measured.
    pub(crate) fn delta(self) -> u64 {
        self.delta
            .map_or(0, |delta| u64::from(delta.get()) * DELTA_UNIT)
    }

    /// Where the window begins before a deadline.
    #[inline]
    pub(crate) fn check_at(self, expires_at: u64) -> u64 {
        if expires_at == NEVER {
            NEVER
        } else {
            expires_at.saturating_sub(self.window())
        }
    }

    /// The length of the window in nanoseconds.
    #[inline]
    pub(crate) fn window(self) -> u64 {
        u64::from(self.window) * WINDOW_UNIT
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

/// Whether a value is to be loaded again with `left` nanoseconds to its deadline, δ and β as the module says, and
/// a `draw` from 0.0 (excluded) to 1.0 (included).
pub(crate) fn is_early(left: u64, delta: u64, beta: f64, draw: f64) -> bool {
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
                16 * 4_294_967_295_000,
                4_294_967_295_000,
            ),
            (
                4_000 * SECOND,
                9.0,
                Some(1 << 60),
                85_899_345_900_000,
                4_000 * SECOND,
            ),
        ];
        for (delta, beta, life, window, kept) in table {
            let early = Early::new(delta, beta, life);
            let text = format!("{delta} {beta} {life:?}");
            assert_eq!((early.window(), early.delta()), (window, kept), "{text}");
        }
        assert_eq!(size_of::<Early>(), 8);
        assert_eq!(Early::new(0, 1.0, Some(SECOND)), Early::NEVER);
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
    fn chi_square(judge: impl Fn(u64, f64) -> bool) -> f64 {
        const DRAWS: u32 = 100_000;
        let mut draws = Draws(0x9E37_79B9_7F4A_7C15);
        let mut sum = 0.0;
        for bin in 0..8 {
            let left = 10 * MILLI * bin / 2;
            let early = (0..DRAWS / 8).filter(|_| judge(left, draws.next()));
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
        let early = Early::new(delta, beta, Some(ttl));
        let (mut now, mut loads, mut done) = (ttl - early.window(), 0, u64::MAX);
        while now < done {
            let left = ttl.saturating_sub(now);
            if left == 0 || is_early(left, early.delta(), beta, draws.next()) {
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
