//! Ghosts against an exact bounded set.
//!
//! The ghost is approximate, so two runs ask two questions.
//!
//! *Exactly*, per fingerprint and bucket (two hashes that share both are one to it): a `take` says yes
//! only if such a hash was inserted less than a capacity of insertions ago and not taken since; it says
//! yes for certain if, besides, fewer than eight others came into the bucket since; and a second `take`
//! says no. Two slacks are part of the promise. From 16,384 on, ages are counted in steps of
//! `2^shift` insertions, so an end may come one step late, and what shares a step has no order. The
//! clock has 16 bits, so this run ends before three quarters of its circle.
//!
//! *By share*, over evenly spread hashes and several circles of the clock: at most about one `take` in
//! 8,000 of a hash never inserted says yes, and of the last capacity about 5 % are forgotten.

use std::collections::HashMap;

use super::{Bug, Counts, Input, Story, Target};
use crate::parts::ghost::Ghost;

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
        "certain",
        "aged",
        "resized",
        "from old",
        "strangers",
        "recent",
    ],
};

/// Cells of a bucket, and the hashes aimed at for it.
const CELLS: usize = 8;
const FILL: u32 = 6;
const AGES: u32 = 1 << 14;
/// Insertions of one exact run: below three quarters of the clock's circle.
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

/// What a table knows of a hash: its bucket and its low half, of which 0 is taken for 1.
type Cell = (u32, u32);

/// The exact set behind one table.
struct Table {
    capacity: u32,
    /// When each was inserted last, if not taken since.
    cells: HashMap<Cell, u64>,
    /// When each bucket was inserted into, the last eight times.
    visits: HashMap<u32, Vec<u64>>,
}

impl Table {
    fn new(capacity: u32) -> Self {
        Table {
            capacity,
            cells: HashMap::new(),
            visits: HashMap::new(),
        }
    }

    fn cell(&self, hash: u32) -> Cell {
        let buckets = u64::from(self.capacity.div_ceil(FILL));
        let bucket = (u64::from(hash) * buckets) >> 32;
        (bucket as u32, (hash & 0xffff).max(1))
    }

    /// Insertions that count as one moment.
    fn step(&self) -> u64 {
        let mut step = 1;
        while u64::from(self.capacity) / step >= u64::from(AGES) {
            step *= 2;
        }
        step
    }

    fn insert(&mut self, hash: u32, at: u64) {
        let cell = self.cell(hash);
        self.cells.insert(cell, at);
        let visits = self.visits.entry(cell.0).or_default();
        if visits.len() == CELLS {
            visits.remove(0);
        }
        visits.push(at);
    }

    /// Takes the hash out; whether it may be, and has to be, remembered.
    fn take(&mut self, hash: u32, now: u64) -> (bool, bool) {
        let cell = self.cell(hash);
        let Some(at) = self.cells.remove(&cell) else {
            return (false, false);
        };
        let (age, step) = (now - at, self.step());
        let may = age < u64::from(self.capacity) + step - 1;
        let since = self
            .visits
            .get(&cell.0)
            .map_or(0, |visits| visits.iter().filter(|v| **v > at).count());
        let must = step == 1 && age < u64::from(self.capacity) && since < CELLS;
        (may, must)
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
        self.table.insert(hash, self.inserted);
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
        let (mut may, mut must) = (false, false);
        if self.table.capacity > 0 {
            (may, must) = self.table.take(hash, self.inserted);
        }
        if let Some(old) = &mut self.old {
            let (may_old, must_old) = old.take(hash, self.inserted);
            self.counts
                .add("from old", u64::from(may_old && !may && got));
            (may, must) = (may || may_old, must || must_old);
        }
        assert!(
            may || !got,
            "{hash:#x} was remembered too long, or never there"
        );
        assert!(got || !must, "{hash:#x} was forgotten too soon");
        self.counts.add("remembered", u64::from(got));
        self.counts.add("certain", u64::from(must));
        self.counts.add("aged", u64::from(!may));
        if self.bug.is("ghost-retakes") && hash % 4 == 1 {
            self.ghost.insert(hash);
        }
        assert!(!self.ghost.take(hash), "{hash:#x} was taken twice");
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
        } else if !before.visits.is_empty() {
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
    // More than a circle of the clock, so that the oldest cells would look young again.
    let inserted = 70_000 + u64::from(capacity);
    (0..inserted).for_each(|number| ghost.insert(hash(number)));
    ghost.validate();
    let strangers = 24_000;
    let wrong = (0..strangers)
        .filter(|number| ghost.take(hash(1 << 39 | number)))
        .count();
    // Three are to be expected. A yes empties its cell, so the share can only fall.
    assert!(
        wrong <= 20,
        "{wrong} of {strangers} strangers were remembered"
    );
    let last = inserted - u64::from(capacity)..inserted;
    let known = last.filter(|number| ghost.take(hash(*number))).count();
    let share = known as f64 / f64::from(capacity);
    assert!(
        share > 0.88,
        "{known} of the last {capacity} are remembered"
    );
    counts.add("strangers", strangers);
    counts.add("recent", known as u64);
    counts
}
