//! Random operations on a tier, and what each answered: for comparing tiers with each other.

use std::time::Duration;

use larder::tier::{AddReply, ContentId, Tier};
use pollster::block_on;

const HOUR: Duration = Duration::from_secs(3600);

/// A content with a content id of its own: the envelope's place for it, and nothing else.
pub(crate) fn content(content_id: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![b'x'; 24 + length];
    bytes[8..24].fill(content_id);
    bytes
}

pub(crate) fn content_id(of: u8) -> ContentId {
    ContentId([of; 16])
}

struct Journal<'a> {
    tier: &'a dyn Tier,
    state: u64,
    /// Versions are written down from here: where a sequence begins is the server's own affair.
    start: u64,
    last_seal: u8,
}

/// The journal of some hundred operations, the same ones for the same seed.
pub(crate) fn journal(tier: &dyn Tier, seed: u64) -> Vec<String> {
    let start = block_on(tier.sequence()).unwrap();
    let mut journal = Journal {
        tier,
        state: seed,
        start,
        last_seal: 0,
    };
    (0..400).map(|_| journal.step()).collect()
}

fn key(n: u64) -> Vec<u8> {
    format!("k{n}").into_bytes()
}

fn name(n: u64) -> Box<str> {
    format!("#t{n}").into()
}

impl Journal<'_> {
    fn draw(&mut self, below: u64) -> u64 {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % below
    }

    fn fresh(&mut self) -> Vec<u8> {
        self.last_seal = self.last_seal.wrapping_add(1);
        content(self.last_seal, usize::from(self.last_seal % 5))
    }

    /// A content id that was used lately.
    fn recent(&mut self) -> ContentId {
        let ago = self.draw(3) as u8;
        content_id(self.last_seal.wrapping_sub(ago))
    }

    fn step(&mut self) -> String {
        let one = self.draw(5);
        match self.draw(7) {
            0 => self.read(one),
            1..=3 => self.store(one),
            4 => self.remove(one),
            _ => self.version(one),
        }
    }

    fn read(&mut self, one: u64) -> String {
        let many = (0..1 + self.draw(4)).map(|n| key((one + n) % 5)).collect();
        let found = block_on(self.tier.get_many(many)).unwrap();
        let content_ids = found
            .iter()
            .map(|found| found.as_ref().map(|found| (found[8], found.len())));
        format!("get {:?}", content_ids.collect::<Vec<_>>())
    }

    fn store(&mut self, one: u64) -> String {
        match self.draw(4) {
            0 => {
                let content = self.fresh();
                let added = block_on(self.tier.add(key(one), content, HOUR));
                let AddReply { stored, sequence } = added.unwrap();
                format!("add {stored} {}", sequence - self.start)
            }
            1 => {
                let content = self.fresh();
                let seized = block_on(self.tier.set_placeholder(key(one), content, HOUR));
                format!("seize {}", seized.unwrap() - self.start)
            }
            _ => {
                let over = self.recent();
                let content = self.fresh();
                let put = block_on(self.tier.compare_and_set(key(one), content, over, HOUR));
                format!("put {}", put.unwrap())
            }
        }
    }

    fn remove(&mut self, one: u64) -> String {
        match self.draw(3) {
            0 => {
                let many = vec![key(one), key((one + 1) % 5)];
                let removed = block_on(self.tier.remove_many(many)).unwrap();
                format!("remove many {removed}")
            }
            _ => {
                let over = self.recent();
                let removed = block_on(self.tier.remove(key(one), over)).unwrap();
                format!("remove {removed}")
            }
        }
    }

    fn version(&mut self, one: u64) -> String {
        match self.draw(3) {
            0 => {
                let names = (0..1 + self.draw(3)).map(name).collect();
                let found = block_on(self.tier.versions(names)).unwrap();
                let ranks = found
                    .into_iter()
                    .map(|version| version.map(|version| version - self.start));
                format!("versions {:?}", ranks.collect::<Vec<_>>())
            }
            1 => {
                block_on(self.tier.init_versions(vec![name(one % 3), name(3)])).unwrap();
                let sequence = block_on(self.tier.sequence()).unwrap();
                format!("settled, at {}", sequence - self.start)
            }
            _ => {
                let version = block_on(self.tier.incr_version(name(one % 3))).unwrap();
                format!("bump {}", version - self.start)
            }
        }
    }
}
