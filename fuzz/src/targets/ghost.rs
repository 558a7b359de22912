//! Ghosts against queues of fingerprints.
//!
//! The ghost is approximate, so two runs ask two questions.
//!
//! *Exactly*, per fingerprint and bucket (two hashes that share both are one to it): a `take` says yes if
//! and only if such a hash is among the last eight that came into the bucket and were not taken, counting
//! those of the table before a change of capacity until its time is up.
//!
//! *By share*, over evenly spread hashes: at most about one `take` in 8,000 of a hash never inserted says
//! yes, and of the last capacity about 14 % are forgotten, hardly any of them lately inserted.

use std::collections::HashMap;

use super::{Bug, Counts, Input, Story, Target};
use crate::ds::ghost::Ghost;

pub const TARGET: Target = Target {
    name: "ghost",
    drive,
    bugs: &[
        "ghost-long",
        "ghost-retakes",
        "ghost-blind",
        "ghost-coarse",
        "ghost-unclear",
    ],
    needs: &[
        "operations",
        "remembered",
        "forgotten",
        "resized",
        "from old",
        "strangers",
        "recent",
    ],
};

/// Fingerprints in a bucket.
const PLACES: usize = 8;
/// Insertions of one exact run.
const MOST: u64 = 40_000;

pub fn run(data: &[u8]) {
    drive(data, Bug::from_environment(TARGET.bugs));
}

#[derive(Debug)]
#[allow(dead_code, reason = "a story prints all of it")]
enum Op {
    Insert(u32),
    /// So many evenly spread hashes.
    InsertMany(u32),
    Take(u32),
    Resize(u32),
    Clear,
    Shares {
        capacity: u32,
        seed: u64,
    },
}

/// Performs the operations in `data`.
pub fn drive(data: &[u8], bug: Bug) -> Counts {
    let mut input = Input::new(data);
    // Shares cost a hundred thousand calls: seldom, and not for the short inputs a fuzzer begins with.
    if input.byte() == 255 {
        return shares(&mut input, bug);
    }
    let mut run = Run {
        ghost: Ghost::new(),
        table: Table::new(0),
        old: None,
        inserted: 0,
        retired: 0,
        mixed: 0,
        bug,
        counts: Counts::default(),
        story: Story::new(),
    };
    let capacity = draw_capacity(&mut input);
    run.resize(capacity);
    while !input.is_empty() {
        run.step(&mut input);
        // A walk over the whole table: at each step only where that is short.
        if run.table.capacity < 1_000 || input.is_empty() {
            run.ghost.validate();
        }
        assert_eq!(run.ghost.capacity(), run.table.capacity);
    }
    std::mem::take(&mut run.counts)
}

fn draw_capacity(input: &mut Input<'_>) -> u32 {
    match input.below(8) {
        0 => 0,
        1 => input.pick(&[16_383, 16_384, 16_385, 40_000, 100_000]),
        2 => 500 + u32::from(input.byte()) * 8,
        _ => 1 + u32::from(input.byte() % 70),
    }
}

fn mix(number: u64) -> u32 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed >> 32) as u32
}

/// The queues behind one table, the youngest fingerprint first.
struct Table {
    capacity: u32,
    buckets: HashMap<u32, Vec<u32>>,
    written: bool,
}

impl Table {
    fn new(capacity: u32) -> Self {
        Table {
            capacity,
            buckets: HashMap::new(),
            written: false,
        }
    }

    /// The bucket of a hash, and 16 bits above its lowest, of which 0 is taken for 1.
    fn place(&self, hash: u32) -> (u32, u32) {
        let buckets = u64::from(self.capacity.div_ceil(PLACES as u32));
        let bucket = (u64::from(hash) * buckets) >> 32;
        (bucket as u32, (hash >> 1 & 0xffff).max(1))
    }

    fn insert(&mut self, hash: u32) {
        let (bucket, print) = self.place(hash);
        self.written = true;
        let queue = self.buckets.entry(bucket).or_default();
        queue.insert(0, print);
        queue.truncate(PLACES);
    }

    /// Takes the hash out; whether it is remembered.
    fn take(&mut self, hash: u32) -> bool {
        let (bucket, print) = self.place(hash);
        let Some(queue) = self.buckets.get_mut(&bucket) else {
            return false;
        };
        let at = queue.iter().position(|other| *other == print);
        at.map(|at| queue.remove(at)).is_some()
    }
}

struct Run {
    ghost: Ghost,
    table: Table,
    /// The set before the last change of capacity, until its time is up.
    old: Option<Table>,
    inserted: u64,
    retired: u64,
    mixed: u64,
    bug: Bug,
    counts: Counts,
    story: Story<Op>,
}

impl Run {
    fn step(&mut self, input: &mut Input<'_>) {
        self.counts.add("operations", 1);
        match input.below(16) {
            0..=6 => {
                let hash = self.draw_hash(input);
                self.story.then(Op::Insert(hash));
                self.insert(hash);
            }
            7 | 8 => {
                let most = input.pick(&[3, 7, 20, 100, 1_000]);
                self.story.then(Op::InsertMany(most));
                for _ in 0..most {
                    self.mixed += 1;
                    self.insert(mix(self.mixed));
                }
            }
            9..=13 => {
                let hash = self.draw_hash(input);
                self.story.then(Op::Take(hash));
                self.take(hash);
            }
            14 => {
                let capacity = draw_capacity(input);
                self.resize(capacity);
            }
            _ if input.below(4) == 0 => {
                self.story.then(Op::Clear);
                if !self.bug.is("ghost-unclear") {
                    self.ghost.clear();
                }
                self.table = Table::new(self.table.capacity);
                self.old = None;
            }
            _ => {}
        }
    }

    /// One of a few, in few buckets, or one of the spread ones.
    fn draw_hash(&self, input: &mut Input<'_>) -> u32 {
        let byte = u32::from(input.byte());
        match byte % 4 {
            0 => mix(self.mixed.saturating_sub(u64::from(input.byte()))),
            1 => (byte << 24) | ((byte >> 2) % 3),
            _ => byte >> 2,
        }
    }

    fn insert(&mut self, hash: u32) {
        if self.inserted >= MOST {
            return;
        }
        let blind = self.bug.is("ghost-blind") && hash % 16 == 3;
        if !blind {
            self.ghost.insert(hash);
        }
        if self.table.capacity == 0 {
            return;
        }
        self.inserted += 1;
        self.table.insert(hash);
        if let Some(old) = &self.old {
            let limit = u64::from(old.capacity.min(self.table.capacity));
            if self.inserted - self.retired >= limit {
                self.old = None;
            }
        }
    }

    fn take(&mut self, hash: u32) {
        let long = self.bug.is("ghost-long") && hash % 8 == 1;
        let got = self.ghost.take(hash) || long;
        let mut known = self.table.capacity > 0 && self.table.take(hash);
        if let Some(old) = &mut self.old {
            let known_before = old.take(hash);
            self.counts
                .add("from old", u64::from(known_before && !known));
            known |= known_before;
        }
        assert!(
            known || !got,
            "{hash:#x} was remembered too long, or never there"
        );
        assert!(got || !known, "{hash:#x} was forgotten too soon");
        self.counts.add("remembered", u64::from(got));
        self.counts.add("forgotten", u64::from(!got));
        if self.bug.is("ghost-retakes") && got && hash % 4 == 1 {
            self.ghost.insert(hash);
        }
    }

    fn resize(&mut self, capacity: u32) {
        self.story.then(Op::Resize(capacity));
        if capacity == self.table.capacity {
            return;
        }
        self.counts.add("resized", 1);
        self.ghost.set_capacity(capacity);
        let before = std::mem::replace(&mut self.table, Table::new(capacity));
        if capacity == 0 {
            self.old = None;
        } else if before.written {
            // Only a table that was written to takes the place of the one before.
            self.old = Some(before);
            self.retired = self.inserted;
        }
    }
}

/// The run by share.
fn shares(input: &mut Input<'_>, bug: Bug) -> Counts {
    let capacity = 512 + u32::from(input.byte()) * 8;
    let seed = u64::from(input.byte()) << 8 | u64::from(input.byte());
    let mut story = Story::new();
    story.then(Op::Shares { capacity, seed });
    let mut counts = Counts::default();
    counts.add("operations", 1);
    let hash = |number: u64| {
        let hash = mix(seed << 40 | number);
        if bug.is("ghost-coarse") {
            hash & !0xff80
        } else {
            hash
        }
    };
    let mut ghost = Ghost::new();
    ghost.set_capacity(capacity);
    let inserted = 70_000 + u64::from(capacity);
    (0..inserted).for_each(|number| ghost.insert(hash(number)));
    ghost.validate();
    let strangers = 24_000;
    let wrong = (0..strangers)
        .filter(|number| ghost.take(hash(1 << 39 | number)))
        .count();
    // Three are to be expected. A yes empties its place, so the share can only fall.
    assert!(
        wrong <= 20,
        "{wrong} of {strangers} strangers were remembered"
    );
    let last = inserted - u64::from(capacity)..inserted;
    let known = last.filter(|number| ghost.take(hash(*number))).count();
    let share = known as f64 / f64::from(capacity);
    assert!(share > 0.8, "{known} of the last {capacity} are remembered");
    counts.add("strangers", strangers);
    counts.add("recent", known as u64);
    counts
}
