//! The work: what keys there are, in which order they are asked for, and what is done with each.

use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_distr::Zipf;

/// Draws that a thread goes through before it begins again. Many times what any cache holds: over a short
/// list the work would be a loop, whose hit ratio says nothing about a stream.
const DRAWS: usize = 1 << 23;

/// One kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Reads of keys that are all resident, Zipf 0.99.
    Hit,
    /// Reads of keys that are all resident, with a TTL of an hour in every cache that has one.
    HitHour,
    /// Reads with a TTL of a second, over a tenth of the keys, filled anew before each slice.
    HitSecond,
    /// One write in ten calls, over resident keys, Zipf 0.99.
    Mixed,
    /// Reads, and a write after each miss; a tenth of the keys fits, Zipf 0.9.
    ReadThrough,
    /// Writes of keys that are not there, at capacity.
    Churn,
}

impl Work {
    pub const ALL: [Work; 6] = [
        Work::Hit,
        Work::HitHour,
        Work::HitSecond,
        Work::Mixed,
        Work::ReadThrough,
        Work::Churn,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Work::Hit => "hit",
            Work::HitHour => "hit-hour",
            Work::HitSecond => "hit-second",
            Work::Mixed => "mixed",
            Work::ReadThrough => "read-through",
            Work::Churn => "churn",
        }
    }

    /// Whether every read finds its key.
    pub fn only_hits(self) -> bool {
        matches!(self, Work::Hit | Work::HitHour | Work::HitSecond)
    }

    /// Keys that are there from the start, and the capacity, of `keys` in all.
    pub fn sizes(self, keys: usize) -> (usize, usize) {
        match self {
            Work::Hit | Work::HitHour | Work::Mixed => (keys, keys + keys / 4),
            Work::HitSecond => (keys / 10, keys / 8),
            Work::ReadThrough | Work::Churn => (keys / 10, keys / 10),
        }
    }

    /// The order in which one thread asks for keys.
    pub fn draws(self, keys: usize, seed: u64) -> Vec<u32> {
        let mut random = SmallRng::seed_from_u64(seed);
        let (resident, _) = self.sizes(keys);
        let (among, exponent) = match self {
            Work::Churn => {
                // Each thread walks all keys from a place of its own: what it writes was evicted long ago.
                let start = (keys as u64 / 2 * seed) as usize;
                return (0..keys).map(|n| ((start + n) % keys) as u32).collect();
            }
            Work::ReadThrough => (keys, 0.9),
            _ => (resident, 0.99),
        };
        // Popularity has nothing to do with the order in which keys came.
        let mut ranks: Vec<u32> = (0..among as u32).collect();
        ranks.shuffle(&mut SmallRng::seed_from_u64(7));
        let zipf = Zipf::new(among as f64, exponent).expect("a valid distribution");
        (0..DRAWS)
            .map(|_| ranks[random.sample(zipf) as usize - 1])
            .collect()
    }
}

/// The two kinds of keys and values.
pub trait Kind {
    type Key: crate::engines::Key;
    type Value: crate::engines::Value;
    const NAME: &'static str;
    /// How many keys there are.
    const KEYS: usize;
    fn key(n: usize) -> Self::Key;
    fn value(n: usize) -> Self::Value;
}

/// u64 → u64.
pub struct Numbers;

impl Kind for Numbers {
    type Key = u64;
    type Value = u64;
    const NAME: &'static str = "u64";
    const KEYS: usize = 1_000_000;

    fn key(n: usize) -> u64 {
        n as u64
    }

    fn value(n: usize) -> u64 {
        n as u64
    }
}

/// A String of 40 bytes → an Arc of 1 KiB.
pub struct Pages;

impl Kind for Pages {
    type Key = String;
    type Value = Arc<[u8; 1024]>;
    const NAME: &'static str = "string";
    const KEYS: usize = 200_000;

    fn key(n: usize) -> String {
        format!("/catalogue/products/{n:020}")
    }

    fn value(n: usize) -> Arc<[u8; 1024]> {
        Arc::new([n as u8; 1024])
    }
}
