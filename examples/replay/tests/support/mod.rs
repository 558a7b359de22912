//! A trace made here, the same on every machine and in every year: integers and a seed alone, so
//! that neither a library's generator nor a float's last digit can change it.

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Below `n`, evenly enough for this.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// So many requests: mostly popular keys, a scan of new ones now and then, and a loop. The keys,
/// numbered by first appearance, and how many there are.
pub(crate) fn mixed(seed: u64, requests: usize) -> (Vec<u32>, u32) {
    let mut random = Random(seed);
    let (mut fresh, mut looped) = (1_000_000, 0);
    let mut keys = Vec::new();
    while keys.len() < requests {
        match random.below(100) {
            // Dividing by a random number makes small keys popular, as a power law does.
            0..=89 => keys.extend((0..10).map(|_| random.below(4_000) / (1 + random.below(200)))),
            90..=94 => {
                keys.extend(fresh..fresh + 20);
                fresh += 20;
            }
            _ => {
                keys.extend((0..50).map(|n| 500_000 + (looped + n) % 300));
                looped += 50;
            }
        }
    }
    keys.truncate(requests);
    let mut known = std::collections::HashMap::new();
    let ids = keys
        .into_iter()
        .map(|key| {
            let next = known.len() as u32;
            *known.entry(key).or_insert(next)
        })
        .collect();
    (ids, known.len() as u32)
}
