//! Real threads against real caches, every call written down, and a checker that looks for an order.
//!
//! Evictions, expiries and reclaimed values are journalled by the cache under its lock, and the checker
//! takes no removal that is in no call and no line: a model in which entries may simply vanish cannot
//! tell a broken `add` from an eviction. `tests/run planted` plants three bugs in the source, one after
//! the other, and this suite must fail on each.
//!
//! | module | what it holds |
//! |---|---|
//! | `history` | stamps, the enclosed clock, events |
//! | `caller` | a thread that calls and writes down |
//! | `model`, `search`, `rules` | the checker |
//! | `illegal` | histories by hand, to check the checker |
//! | `mix`, `races` | where histories come from: at random, and set up |

#![allow(
    clippy::disallowed_types,
    clippy::print_stdout,
    clippy::expect_used,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test outside the crate: std's locks, printed counts, and panics that fail it"
)]

mod caller;
mod history;
mod illegal;
mod mix;
mod model;
mod races;
mod rules;
mod search;

use mix::{Call, Counts, Shape};

/// Everything, in shares that make evictions, expiries and invalidations common.
const ALL: &[(Call, u32)] = &[
    (Call::Get, 8),
    (Call::Peek, 3),
    (Call::Contains, 3),
    (Call::Insert, 22),
    (Call::Refuse, 1),
    (Call::Add, 16),
    (Call::Replace, 3),
    (Call::Remove, 2),
    (Call::Invalidate, 6),
    (Call::Incr, 3),
    (Call::Touch, 3),
    (Call::Put, 5),
    (Call::Keep, 1),
    (Call::Delete, 1),
    (Call::Load, 10),
    (Call::LoadAsTask, 8),
    (Call::Clear, 1),
    (Call::ClearNamespace, 1),
    (Call::InvalidateTag, 2),
    (Call::Advance, 11),
    (Call::RunPending, 1),
];

/// Loads and what revokes them, on few keys.
const LOADS: &[(Call, u32)] = &[
    (Call::Get, 10),
    (Call::Load, 25),
    (Call::LoadAsTask, 25),
    (Call::Insert, 6),
    (Call::Add, 6),
    (Call::Remove, 4),
    (Call::Invalidate, 14),
    (Call::Put, 4),
    (Call::Clear, 2),
    (Call::ClearNamespace, 2),
    (Call::InvalidateTag, 4),
    (Call::Advance, 8),
];

/// Those after which nothing lies beside the slots, and writes of a full cache that say nothing.
const ORDINARY: &[(Call, u32)] = &[
    (Call::Get, 20),
    (Call::Peek, 4),
    (Call::Contains, 4),
    (Call::InsertPlain, 50),
    (Call::Add, 5),
    (Call::Replace, 2),
    (Call::Remove, 1),
    (Call::Invalidate, 2),
    (Call::Touch, 2),
    (Call::Load, 3),
    (Call::LoadAsTask, 2),
    (Call::Clear, 1),
    (Call::Advance, 12),
];

const FIVE_MILLISECONDS: Option<u64> = Some(5_000_000);

const SMALL: Shape = Shape {
    name: "small",
    rounds: 30,
    calls: 400,
    keys: 16,
    named: true,
    tagged: true,
    capacity: 11,
    shards: 1,
    lru: false,
    weighted: false,
    ttl: FIVE_MILLISECONDS,
    mix: ALL,
};

const SHAPES: [Shape; 6] = [
    SMALL,
    Shape {
        name: "ordinary writes",
        rounds: 60,
        named: false,
        tagged: false,
        mix: ORDINARY,
        ..SMALL
    },
    Shape {
        name: "weighted, without a namespace",
        named: false,
        capacity: 13,
        weighted: true,
        ..SMALL
    },
    Shape {
        name: "four shards",
        shards: 4,
        capacity: 13,
        ..SMALL
    },
    Shape {
        name: "least recently used",
        lru: true,
        ..SMALL
    },
    Shape {
        name: "loads on few keys",
        keys: 3,
        capacity: 4,
        mix: LOADS,
        ..SMALL
    },
];

/// Promises 1, 2, 4 and 5, and the single loader of 3.
#[test]
fn every_key_is_linearizable_with_all_calls_in_the_mix() {
    let mut counts = Counts::default();
    for shape in SHAPES {
        if let Err(why) = shape.run(&mut counts) {
            panic!("{why}");
        }
    }
    println!("{counts:?}");
    assert!(counts.operations >= 100_000, "too few operations");
    for (what, count) in [
        ("evictions", counts.evictions),
        ("expiries", counts.expiries),
        ("invalidations", counts.invalidations),
    ] {
        let share = 100 * count / counts.operations;
        println!("{what}: {count}, {share} % of {}", counts.operations);
        assert!(share >= 5, "too few {what}");
    }
}

/// Without pressure nothing is evicted: there is room for every key.
#[test]
fn nothing_is_evicted_while_there_is_room() {
    let mut counts = Counts::default();
    let roomy = Shape {
        name: "roomy",
        rounds: 5,
        capacity: 32,
        ..SMALL
    };
    if let Err(why) = roomy.run(&mut counts) {
        panic!("{why}");
    }
    println!("{counts:?}");
    assert_eq!(counts.evictions, 0, "evicted though every key had room");
}
