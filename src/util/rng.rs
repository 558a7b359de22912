//! Small random numbers for jitter: one generator a thread, seeded from std's random hash keys.
//!
//! Nothing here is fit for secrets.

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

thread_local! {
    static STATE: Cell<u64> = Cell::new(RandomState::new().build_hasher().finish() | 1);
}

/// The next number of this thread's generator (xorshift64*).
pub(crate) fn next_u64() -> u64 {
    STATE.with(|state| {
        let mut x = state.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        state.set(x);
        x.wrapping_mul(0x2545_F491_4F6C_DD1D)
    })
}

/// A number in `0.0..1.0`.
pub(crate) fn unit() -> f64 {
    // The upper 53 bits fill a double's mantissa exactly.
    (next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(all(test, not(larder_shuttle)))]
mod tests {
    #[test]
    fn unit_stays_in_its_range_and_spreads() {
        let draws: Vec<f64> = (0..10_000).map(|_| super::unit()).collect();
        assert!(draws.iter().all(|draw| (0.0..1.0).contains(draw)));
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        assert!((0.45..0.55).contains(&mean), "mean {mean}");
    }
}
