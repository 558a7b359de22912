//! The shard against a map, driven as the store drives it: notice a clear, look, change, tend.
//!
//! The reference holds every entry that has not left, alive or not, and decides by numbers what is
//! alive. Who is evicted it does not know: it is told by what the shard hands out, and judges whether
//! that was legal. `Shard::validate` recomputes the rest after each operation.

mod visits;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Bug, Counts, Input, Story, Target};
use crate::entry::freshness::Windows;
use crate::entry::generation::{EpochCounter, Namespace, Namespaces, Tags};
use crate::entry::removal::{RemovalCause, RemovedEntry};
use crate::policy::any::AnyPolicy;
use crate::policy::lru::Lru;
use crate::policy::s3fifo::S3Fifo;
use crate::policy::settings::Settings;
use crate::policy::usage::UNLIMITED;
use crate::shard::{Shard, ShardCapacity};
use crate::util::clock::{Clock, ManualClock, NEVER};

pub const TARGET: Target = Target {
    name: "shard",
    drive,
    bugs: &[
        "shard-tag",
        "shard-weight",
        "shard-late",
        "shard-lost",
        "shard-bound",
        "shard-clear",
    ],
    needs: &[
        "operations",
        "stored",
        "overwritten",
        "live",
        "past",
        "absent",
        "touched",
        "updated",
        "Explicit",
        "Replaced",
        "Expired",
        "Size",
        "Invalidated",
        "trimming",
        "swept",
        "relocated",
        "packed",
    ],
};

/// A value so wide that a block has 64 slots: a few hundred entries are several blocks.
#[derive(Debug)]
pub struct Wide {
    number: u64,
    _rest: [u64; 127],
}

impl Wide {
    fn new(number: u64) -> Wide {
        Wide {
            number,
            _rest: [0; 127],
        }
    }
}

const SPACES: usize = 2;
/// Keys that operations draw one by one, and those that are stored many at a time, a half of which is drawn
/// now and then, too.
const KEYS: u32 = 64;
const FILL: std::ops::Range<u32> = 64..192;
const TAGS: u8 = 3;

pub fn run(data: &[u8]) {
    drive(data, Bug::from_environment(TARGET.bugs));
}

/// A namespace and a key.
type Slot = (usize, u32);

#[derive(Clone, Debug)]
#[allow(dead_code, reason = "a story prints all of it")]
enum Op {
    Setup(Setup),
    Store {
        slot: Slot,
        weight: u64,
        lifetime: u64,
        tags: u8,
        add: bool,
    },
    Look(Slot),
    Remove(Slot),
    Touch(Slot, u64),
    Update(Slot),
    Tend(u32),
    Sweep,
    /// Stores all keys of `FILL`.
    Fill(u64),
    /// The shard is told at once, or by its next critical section.
    Clear(bool),
    ClearSpace(usize),
    InvalidateTag(u8),
    Limit(ShardCapacity),
    Advance(u64),
}

#[derive(Clone, Copy, Debug)]
struct Setup {
    lru: bool,
    weighted: bool,
    idle: Option<u64>,
    /// How keys are hashed: well, into four hashes, or into one bucket.
    hashing: u32,
    capacity: ShardCapacity,
}

/// An entry that has not left, under its value, which no other entry ever had.
#[derive(Clone, Debug)]
struct Held {
    slot: Slot,
    weight: u64,
    expires_at: u64,
    accessed: u64,
    tags: u8,
    dead: bool,
    cleared: bool,
}

struct Run {
    setup: Setup,
    shard: Shard<u32, Wide>,
    epochs: EpochCounter,
    tags: Tags,
    spaces: [Arc<Namespace>; SPACES],
    time: ManualClock,
    clock: Clock,
    now: u64,
    capacity: ShardCapacity,
    /// Entries and weight after the operation before.
    most: (u64, u64),
    held: BTreeMap<u64, Held>,
    /// What the present operation removes by order.
    ordered: Option<u64>,
    next: u64,
    bug: Bug,
    counts: Counts,
    story: Story<Op>,
}

/// Performs the operations in `data`.
pub fn drive(data: &[u8], bug: Bug) -> Counts {
    let mut input = Input::new(data);
    let mut run = Run::new(&mut input, bug);
    while !input.is_empty() {
        run.counts.add("operations", 1);
        let op = run.draw(&mut input);
        run.story.then(op.clone());
        run.step(op);
        run.check();
    }
    run.sweep();
    run.check();
    std::mem::take(&mut run.counts)
}

fn draw_limits(input: &mut Input<'_>, weighted: bool) -> ShardCapacity {
    let entries = input.pick(&[8, 24, 3, 1, 0, 60, 200]);
    match weighted {
        false => ShardCapacity {
            entries,
            weight: entries,
        },
        true if input.flag() => ShardCapacity {
            entries: UNLIMITED >> 33,
            weight: entries * 3,
        },
        true => ShardCapacity {
            entries,
            weight: 10 + u64::from(input.byte()),
        },
    }
}

/// A span with its edges: a tick of the wheel is 2^23.
fn draw_life(input: &mut Input<'_>) -> u64 {
    input.span(36)
}

impl Run {
    fn new(input: &mut Input<'_>, bug: Bug) -> Run {
        let weighted = input.flag();
        let setup = Setup {
            lru: input.flag(),
            weighted,
            idle: input.flag().then(|| 50 + input.span(30)),
            hashing: input.below(3),
            capacity: draw_limits(input, weighted),
        };
        let capacity = setup.capacity;
        let policy = if setup.lru {
            AnyPolicy::Lru(Lru::new())
        } else {
            AnyPolicy::S3Fifo(S3Fifo::new(
                Settings::DEFAULT,
                capacity.entries,
                capacity.weight,
            ))
        };
        let time = ManualClock::new();
        let clock = time.clock();
        let now = clock.now();
        let epochs = EpochCounter::new();
        let names = Namespaces::new();
        let mut story = Story::new();
        story.then(Op::Setup(setup));
        Run {
            setup,
            shard: Shard::new(
                policy,
                capacity,
                weighted,
                setup.idle,
                Windows::default(),
                now,
            ),
            tags: Tags::new(),
            spaces: [Namespace::root(), names.open("a", &epochs)],
            epochs,
            time,
            clock,
            now,
            capacity,
            most: (0, 0),
            held: BTreeMap::new(),
            ordered: None,
            next: 0,
            bug,
            counts: Counts::default(),
            story,
        }
    }

    fn draw(&self, input: &mut Input<'_>) -> Op {
        let slot = (
            usize::from(input.below(4) == 0),
            match u32::from(input.byte()) {
                byte if byte < 3 * KEYS => byte % KEYS,
                byte => byte - 2 * KEYS,
            },
        );
        match input.below(32) {
            0..=12 => {
                let weight = input.pick(&[1, 1, 2, 3, 0, 7, 20, 1 << 40]);
                Op::Store {
                    slot,
                    weight: if self.setup.weighted { weight } else { 1 },
                    lifetime: if input.flag() {
                        NEVER
                    } else {
                        draw_life(input)
                    },
                    tags: if input.below(4) == 0 {
                        input.byte() % (1 << TAGS)
                    } else {
                        0
                    },
                    add: input.below(4) == 0,
                }
            }
            13..=18 => Op::Look(slot),
            19 | 20 => Op::Remove(slot),
            21 => Op::Touch(
                slot,
                if input.flag() {
                    NEVER
                } else {
                    draw_life(input)
                },
            ),
            22 => Op::Update(slot),
            23 => Op::Tend(input.pick(&[0, 1, 2, 64])),
            24 => Op::Sweep,
            25 => Op::Clear(input.flag()),
            26 => Op::ClearSpace(1),
            27 => Op::InvalidateTag(input.byte() % TAGS),
            28 => Op::Limit(draw_limits(input, self.setup.weighted)),
            29 => Op::Fill(if input.flag() {
                NEVER
            } else {
                draw_life(input)
            }),
            _ => Op::Advance(self.draw_step(input)),
        }
    }

    /// Often to the very edge of a deadline.
    fn draw_step(&self, input: &mut Input<'_>) -> u64 {
        let deadlines = self.held.values().map(|held| self.expires_at(held));
        let next = deadlines.filter(|at| *at > self.now && *at < NEVER).min();
        match (input.below(4), next) {
            (0, Some(at)) => at - self.now,
            (1, Some(at)) => at - self.now - 1,
            _ => input.span(34),
        }
    }

    fn hash(&self, slot: Slot) -> u32 {
        let key = slot.1 ^ (slot.0 as u32) << 8;
        let hash = match self.setup.hashing {
            0 => key.wrapping_mul(0x9e37_79b9),
            1 => key % 4 * 0x4000_0001,
            _ => key << 20 | 5,
        };
        // As the store's are.
        hash | 1
    }

    // ---- the reference ----

    fn expires_at(&self, held: &Held) -> u64 {
        self.or_idle(held, held.expires_at)
    }

    fn or_idle(&self, held: &Held, by_age: u64) -> u64 {
        let idle = self
            .setup
            .idle
            .map_or(NEVER, |idle| held.accessed.saturating_add(idle));
        by_age.min(idle)
    }

    /// When it is of no use any more: past the window that its key has.
    fn reclaim_at(&self, held: &Held) -> u64 {
        let window = visits::windows(held.slot).or(Windows::default()).longest();
        let by_age = held.expires_at.saturating_add(window);
        self.or_idle(held, by_age)
    }

    fn holder(&self, slot: Slot) -> Option<(u64, &Held)> {
        let mut holders = self.held.iter().filter(|(_, held)| held.slot == slot);
        let (value, held) = holders.next()?;
        assert!(holders.next().is_none(), "{slot:?} is held twice");
        Some((*value, held))
    }

    fn totals(&self) -> (u64, u64) {
        let weight = self.held.values().map(|held| held.weight).sum();
        (self.held.len() as u64, weight)
    }

    fn is_over(&self) -> bool {
        let (entries, weight) = self.totals();
        entries > self.capacity.entries || weight > self.capacity.weight
    }

    /// Something left: it was there, and the cause is true.
    fn gone(&mut self, gone: &RemovedEntry<u32, Wide>) {
        let value = gone.value.number;
        let held = self.held.get(&value);
        let held = held.unwrap_or_else(|| panic!("value {value} left twice"));
        assert_eq!(
            (held.slot.1, held.weight),
            (gone.key, gone.weight),
            "what left"
        );
        let past = self.now >= self.expires_at(held);
        let doomed = self.held.values().any(|held| held.cleared);
        let legal = match gone.cause {
            RemovalCause::Explicit | RemovalCause::Replaced => self.ordered == Some(value),
            RemovalCause::Expired => past,
            RemovalCause::Invalidated => held.dead || held.cleared,
            RemovalCause::Size => self.now < self.reclaim_at(held) && !doomed && self.is_over(),
        };
        assert!(legal, "{:?} is no cause for {held:?}", gone.cause);
        self.counts.add(name_of(gone.cause), 1);
        self.held.remove(&value);
    }

    fn check(&mut self) {
        self.shard.validate();
        let (entries, weight) = self.totals();
        let live = self.held.values().filter(|held| !held.cleared);
        let live = live.fold((0, 0), |sum, held| (sum.0 + 1, sum.1 + held.weight));
        let got = self.shard.live(&self.epochs);
        assert_eq!((got.entries, got.weight), live, "live totals");
        // Over a limit only since it was lowered, and then ever less.
        let (most_entries, most_weight) = self.most;
        assert!(
            entries <= self.capacity.entries.max(most_entries),
            "{entries} entries"
        );
        assert!(
            weight <= self.capacity.weight.max(most_weight),
            "a weight of {weight}"
        );
        self.most = (entries, weight);
    }
}

fn name_of(cause: RemovalCause) -> &'static str {
    match cause {
        RemovalCause::Explicit => "Explicit",
        RemovalCause::Replaced => "Replaced",
        RemovalCause::Expired => "Expired",
        RemovalCause::Size => "Size",
        RemovalCause::Invalidated => "Invalidated",
    }
}
