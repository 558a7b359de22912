//! Inputs that need no fuzzer: bytes of a seeded generator, in lists short and long.

pub struct Inputs(u64);

impl Inputs {
    pub fn new(seed: u64) -> Self {
        Inputs(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Up to `most` bytes, with a few of them preferred so that operations come in runs.
    pub fn draw(&mut self, most: u64) -> Vec<u8> {
        let len = 1 + (self.next() >> 20) % most;
        let favourite = (self.next() >> 30) as u8;
        let share = (self.next() >> 40) % 4;
        (0..len)
            .map(|_| {
                let word = self.next() >> 16;
                if word >> 16 & 7 < share {
                    favourite
                } else {
                    word as u8
                }
            })
            .collect()
    }
}
